"""How kernels are compiled: two decorators that keep a function's type, and a cache that can't go stale.

`_nrt=False` leaves out numba's reference counting: with it, every array of a NamedTuple is counted up and
down atomically and an interval costs 1 µs instead of 50 ns. In return a kernel can't allocate: it writes
into arrays that it is given.

Compiled code is cached on disk beside its module. Numba alone asks only whether the function's own file has
changed, so after an upgrade a caller could go on billing with the old code of a function, or the old value of a
constant, that was compiled into it. Here the cache's key holds a fingerprint of all of them.
"""

import hashlib
from collections.abc import Callable, Iterator
from types import CodeType, ModuleType
from typing import Any, TypeVar, cast

import numba
from numba.core import caching

Function = TypeVar("Function", bound=Callable[..., Any])

_njit: Callable[..., Any] = numba.njit
_FunctionCache: Any = caching.FunctionCache
_OPTIONS = {"nogil": True, "_nrt": False}


def kernel(function: Function) -> Function:
    """Compile a function of its own: entry points, and leaves that take no arrays."""
    return _cached(function, _njit(**_OPTIONS)(function))


def part(function: Function) -> Function:
    """Compile a function that only other compiled code calls: no wrapper for Python, which takes long to compile."""
    return _cached(function, _njit(**_OPTIONS, no_cpython_wrapper=True, no_cfunc_wrapper=True)(function))


def inlined(function: Function) -> Function:
    """Compile a function that always becomes part of its caller."""
    return _cached(function, _njit(**_OPTIONS, forceinline=True)(function))


def fingerprint(function: Callable[..., Any]) -> str:
    """A hash of a function's code and of every function and constant that is compiled into it."""
    digest = hashlib.sha256()
    todo, seen = [function], set()
    while todo:
        one = todo.pop()
        code = one.__code__
        if code in seen:
            continue
        seen.add(code)
        digest.update(repr((code.co_code, code.co_names, [c for c in code.co_consts if _plain(c)])).encode())
        for name, value in _referred(code, one.__globals__):
            if hasattr(value, "py_func"):
                todo.append(value.py_func)
            elif _plain(value):
                digest.update(f"{name}={value!r};".encode())
    return digest.hexdigest()


class _Cache(_FunctionCache):
    """Numba's cache of one function, its keys extended by the fingerprint."""

    def _index_key(self, sig: Any, codegen: Any) -> tuple[Any, ...]:
        return (*super()._index_key(sig, codegen), fingerprint(self._py_func))


def _cached(function: Function, compiled: Any) -> Function:
    if compiled is not function:  # NUMBA_DISABLE_JIT leaves the function as it is
        compiled._cache = _Cache(function)  # noqa: SLF001 - numba has no public way to say what a cache depends on
    return cast(Function, compiled)


def _referred(code: CodeType, known: dict[str, Any]) -> Iterator[tuple[str, Any]]:
    """The globals that a function names, also those inside modules that it names."""
    for name in code.co_names:
        value = known.get(name)
        if isinstance(value, ModuleType):
            yield from ((inner, getattr(value, inner, None)) for inner in code.co_names)
        yield name, value


def _plain(value: Any) -> bool:
    """Whether the value is a number or text that is compiled in."""
    return isinstance(value, int | float | str) or hasattr(value, "dtype")
