"""Where and with what something was measured: the same for every benchmark, so that figures can be set side by side."""

import json
import os
import platform
import subprocess
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Any


def surroundings(*packages: str) -> dict[str, Any]:
    """Processor, cores, Python, commit, and the versions of these packages."""
    return {
        "machine": _processor(),
        "cores": os.cpu_count(),
        "python": platform.python_version(),
        "commit": _commit(),
        "versions": {name: version(name) for name in packages},
    }


def _processor() -> str:
    """The processor's own name, where Linux tells it."""
    lines = Path("/proc/cpuinfo").read_text("utf-8").splitlines()
    named = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(named, platform.machine())


def _commit() -> str:
    """The commit that was measured; "unknown" outside a checkout."""
    command = ["git", "rev-parse", "--short", "HEAD"]
    told = subprocess.run(command, capture_output=True, text=True, check=False)
    return told.stdout.strip() or "unknown"


def show(found: dict[str, Any], *, as_json: bool) -> None:
    """Print a result: one JSON object, or a line a figure."""
    if as_json:
        print(json.dumps(found, indent=2, ensure_ascii=False))
        return
    for name, value in _flat(found):
        print(f"{name:44} {value}")


def _flat(found: dict[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for name, value in found.items():
        if isinstance(value, dict):
            yield from _flat(value, f"{prefix}{name}.")
        else:
            yield prefix + name, value
