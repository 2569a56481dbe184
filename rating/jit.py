"""How kernels are compiled: decorators that keep a function's type, and a cache that can't go stale.

`_nrt=False` leaves out numba's reference counting: with it, every array of a NamedTuple is counted up and
down atomically and an interval costs 1 µs instead of 50 ns. In return a kernel can't allocate: it writes
into arrays that it is given.

A constant argument is compiled as any other number of its type. Numba would compile a function, and all that it calls,
anew for each constant that it is called with, and nothing is gained: the optimizer sees the constant where it inlines.

Compiled code is cached on disk beside its module. Numba alone asks only whether the function's own file has
changed, so after an upgrade a caller could go on billing with the old code of a function, or the old value of a
constant, that was compiled into it. Here the cache's key holds a fingerprint of all of them.
"""

import hashlib
import inspect
from collections.abc import Callable, Iterator
from functools import cache
from types import CodeType, FunctionType, ModuleType
from typing import Any, TypeVar, cast

import numba
import numpy as np
from numba.core import caching

Function = TypeVar("Function", bound=Callable[..., Any])

_njit: Callable[..., Any] = numba.njit
_unliteral: Callable[[Any], Any] = numba.types.unliteral
_FunctionCache: Any = caching.FunctionCache
_OPTIONS = {"nogil": True, "_nrt": False}
_UNWRAPPED = {"no_cpython_wrapper": True, "no_cfunc_wrapper": True}


def kernel(function: Function) -> Function:
    """Compile a function of its own: entry points, and leaves that take no arrays."""
    return _cached(function, _njit(**_OPTIONS)(function))


def part(function: Function) -> Function:
    """Compile a function that only compiled code calls: no wrapper for Python, which takes long to compile.

    Called from Python it would end the process: numba does not look whether there is a wrapper.
    """
    return _cached(function, _njit(**_OPTIONS, **_UNWRAPPED)(function))


def inlined(function: Function) -> Function:
    """Compile a function that always becomes part of its compiled caller; not for Python either (see `part`)."""
    return _cached(function, _njit(**_OPTIONS, **_UNWRAPPED, forceinline=True)(function))


def allocating(function: Function) -> Function:
    """Compile a function of its own that makes the arrays it returns: not for what runs once a reading."""
    return _cached(function, _njit(nogil=True)(function))


def fingerprint(function: Callable[..., Any]) -> str:
    """A hash of a function's code and of every function and constant that is compiled into it.

    Of a wrapper, as an intrinsic is, it takes the file of what it wraps: any function there may say what it emits.
    """
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
                digest.update(f"{name}:{sorted(value.targetoptions.items())};".encode())
            elif isinstance(emitter := getattr(value, "__wrapped__", None), FunctionType):
                digest.update(_file_hash(emitter))
            elif isinstance(value, np.ndarray | np.generic):
                digest.update(f"{name}={value.dtype}{value.shape};".encode() + value.tobytes())
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
        _without_literals(compiled)
    return cast(Function, compiled)


def _without_literals(compiled: Any) -> None:
    """Calls with constants share what is compiled for their type."""
    template = compiled.get_call_template

    def shared(args: Any, kws: dict[str, Any]) -> Any:
        return template([_unliteral(one) for one in args], {name: _unliteral(one) for name, one in kws.items()})

    compiled.get_call_template = shared


def _referred(code: CodeType, known: dict[str, Any]) -> Iterator[tuple[str, Any]]:
    """The globals that a function names, also those inside modules that it names."""
    for name in code.co_names:
        value = known.get(name)
        if isinstance(value, ModuleType):
            yield from ((inner, getattr(value, inner, None)) for inner in code.co_names)
        yield name, value


@cache
def _file_hash(function: Callable[..., Any]) -> bytes:
    """Of the whole file that the function is written in."""
    return hashlib.sha256("".join(inspect.findsource(function)[0]).encode()).digest()


def _plain(value: Any) -> bool:
    """Whether the value is a number or text that is compiled in, or a type of numbers."""
    return isinstance(value, int | float | str) or hasattr(value, "dtype")
