"""Many seeds, over several processes: each is one run of its own, so that they need nothing of each other."""

import ctypes
import logging
import multiprocessing
import os
import time
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from typing import Final, NamedTuple

from pipeline.rate.warm import compile_all
from tests.simulation.mutants import MUTANTS
from tests.simulation.world import Told, World

CORES: Final = len(os.sched_getaffinity(0))
_AT_ONCE: Final = 10  # seeds that a process is given
_M_MMAP_THRESHOLD: Final = -3  # of glibc's malloc.h
_LARGE: Final = 1_000_000


class Ran(NamedTuple):
    """One seed: what it did, or the invariant that did not hold with the notes on it."""

    seed: int
    told: Told
    failed: str
    notes: Sequence[str]
    cpu_s: float


def prepare() -> None:
    """Once a process: what workers say of faults is not of interest here, and large arrays come from the kernel.

    The engine asks for megabytes of zeros a batch and touches a few rows of them. Fresh pages cost nothing until they
    are touched; glibc would learn to keep such memory, and would wipe all of it for every batch.
    """
    logging.disable(logging.CRITICAL)
    malloc = getattr(ctypes.CDLL(None), "mallopt", None)
    if malloc is not None:
        malloc(_M_MMAP_THRESHOLD, _LARGE)
    compile_all()


def run_all(seeds: Sequence[int], mutant: str = "", workers: int = CORES) -> Iterator[Ran]:
    """Run seeds and tell of each, in their order; what is not asked for any more is not begun."""
    if workers <= 1 or len(seeds) <= _AT_ONCE:
        prepare()
        yield from (run(seed, mutant) for seed in seeds)
        return
    chunks = [seeds[first : first + _AT_ONCE] for first in range(0, len(seeds), _AT_ONCE)]
    # Not forked: Arrow's and Numba's threads would not be there in the child.
    spawn = multiprocessing.get_context("spawn")
    pool = ProcessPoolExecutor(workers, mp_context=spawn, initializer=prepare)
    try:
        for ran in pool.map(_run_each, chunks, [mutant] * len(chunks)):
            yield from ran
    finally:
        pool.shutdown(cancel_futures=True)


def _run_each(seeds: Iterable[int], mutant: str) -> list[Ran]:
    return [run(seed, mutant) for seed in seeds]


def run(seed: int, mutant: str = "") -> Ran:
    """One seed."""
    began_s = time.process_time()
    world = World(seed, MUTANTS[mutant] if mutant else None)
    failed, notes = "", ()
    try:
        world.run()
    except AssertionError as error:
        failed, notes = str(error) or "an assertion without words", tuple(getattr(error, "__notes__", ()))
    return Ran(seed, world.told, failed, notes, time.process_time() - began_s)
