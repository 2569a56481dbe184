"""Where the read-only material beside the project lies; tests that need it are skipped, loudly, where it is absent."""

import os
from pathlib import Path

import pytest

SHARED = Path(os.environ.get("WATTRATE_SHARED", Path(__file__).parents[2] / "shared"))


def shared(path: str) -> Path:
    """The path inside the shared folder; skips the calling test, loudly, where the folder is absent."""
    if not SHARED.is_dir():
        pytest.skip(f"needs the shared folder ({SHARED} is absent; set WATTRATE_SHARED)", allow_module_level=True)
    return SHARED / path
