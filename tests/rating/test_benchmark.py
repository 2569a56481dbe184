"""The benchmark of the engine runs, and its twins agree: kernel, NumPy and oracle give one hash."""

from benchmarks.engine import TARIFFS, run


def test_the_benchmark_runs_small_and_gives_the_same_hashes_again() -> None:
    first, again = (run(600, rounds=1, documented=5, compiled=20, checked=2) for _ in range(2))
    assert len(first) == 3 * len(TARIFFS) + 2 + 3 + 2 + 1
    assert [(one.name, one.result_hash) for one in first] == [(one.name, one.result_hash) for one in again]
