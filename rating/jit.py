"""How rating's kernels are compiled: two decorators that keep a function's type.

`_nrt=False` leaves out numba's reference counting: with it, every array of a NamedTuple is counted up and
down atomically and an interval costs 1 µs instead of 50 ns. In return a kernel can't allocate: it writes
into arrays that it is given. The compiled code is cached on disk beside the module (`__pycache__`); numba
does not notice when a function that was compiled *into* a cached one changes, so `make` removes the cache
after an upgrade and workers only read it.
"""

from collections.abc import Callable
from typing import Any, TypeVar, cast

import numba

Function = TypeVar("Function", bound=Callable[..., Any])

_njit: Callable[..., Any] = numba.njit
_OPTIONS = {"cache": True, "nogil": True, "_nrt": False}


def kernel(function: Function) -> Function:
    """Compile a function of its own: entry points, and leaves that take no arrays."""
    return cast(Function, _njit(**_OPTIONS)(function))


def inlined(function: Function) -> Function:
    """Compile a function that always becomes part of its caller."""
    return cast(Function, _njit(**_OPTIONS, forceinline=True)(function))
