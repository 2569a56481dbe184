"""What the process holds on to of the memory that it freed: between batches all of it, after a start nothing.

glibc's allocator by its own calls (malloc.h), because nothing else reaches it; elsewhere nothing changes.
"""

import ctypes
from typing import Any, Final

_M_TRIM_THRESHOLD: Final = -1
_M_MMAP_THRESHOLD: Final = -3
_BLOCK_BYTES: Final = 64 << 20
_KEPT_BYTES: Final = 256 << 20


def keep_memory() -> None:
    """What a batch frees, the next one takes: given back, it would be cleared by the operating system page by page.

    Larger blocks, as the state of many connectors, still go back at once.
    """
    mallopt = _of_allocator("mallopt")
    if mallopt is not None:
        mallopt(_M_MMAP_THRESHOLD, _BLOCK_BYTES)
        mallopt(_M_TRIM_THRESHOLD, _KEPT_BYTES)


def give_back() -> None:
    """Return all that is free now: what reading reference data or a snapshot took, no batch will ever need again."""
    trim = _of_allocator("malloc_trim")
    if trim is not None:
        trim(ctypes.c_size_t(0))


def _of_allocator(name: str) -> Any:
    return getattr(ctypes.CDLL(None), name, None)
