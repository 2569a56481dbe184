"""Store and worker die, or are refused, at single calls of the commit path: a seeded sample.

Every call in every way: `python -m tests.faults.crash_points --all`; the table is in docs/recovery.md.
"""

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.faults.crash_points import chosen, strike, table
from tests.faults.crashes import ACTIONS, Bed, Point, points_of
from tests.faults.interpose import Action, Interposer, build
from tests.faults.rig import repeatable, tell
from tests.faults.zygote import STORE, WORKER

SEED = 8_001
SAMPLE = 2  # calls of each kind of strike


@pytest.fixture(scope="module")
def bed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bed]:
    with Bed(tmp_path_factory.mktemp("crashes"), seed=SEED) as found:
        yield found


def test_a_struck_call_loses_and_repeats_nothing(bed: Bed) -> None:
    with repeatable(SEED, f"python -m tests.faults.crash_points --seed {SEED} --sample {SAMPLE}"):
        points = chosen(points_of(bed.calls), SAMPLE, SEED)
        results = strike(bed, points)
        tell(table(results))
        assert {(p.target, p.action) for p in points} == {(t, a) for t, actions in ACTIONS.items() for a in actions}
        assert sum(one.fired for one in results.values()) >= 0.8 * len(points)
        bad = {str(point): one for point, one in results.items() if one.bad}
        assert not bad, f"readers would see it: {bad}; one alone: --point {next(iter(bad))}"


def test_the_workload_makes_every_kind_of_call_that_a_commit_makes(bed: Bed) -> None:
    assert {"create", "write", "fsync", "mkdir", "rename"} <= set(bed.calls[STORE])
    assert set(bed.calls[WORKER]) == {"send"}
    assert bed.rows > 30


SCRIPT = """
import os, sys, threading
folder = sys.argv[1]
def work(name):
    path = f"{folder}/{name}"
    with open(path, "wb", 0) as file:
        file.write(b"12345678"); os.fsync(file.fileno())
    os.rename(path, path + "2"); os.unlink(path + "2")
threads = [threading.Thread(target=work, args=(n,)) for n in range(4)]
[t.start() for t in threads]; [t.join() for t in threads]
open("/dev/null", "w").write("x")
"""


def acted(folder: Path, call: int, action: Action) -> tuple[int, str, Interposer]:
    """A script of 20 calls in four threads under the shim: its exit code, what it said, and the shim."""
    (folder / "data").mkdir()
    shim = Interposer(build(folder), folder / "control", f"{folder}/data")
    shim.arm(call, action)
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, str(folder / "data")], env=shim.environ, capture_output=True, text=True,
        check=False,
    )  # fmt: skip
    return done.returncode, done.stderr, shim


def test_the_shim_counts_over_all_threads_and_only_where_it_is_told(tmp_path: Path) -> None:
    code, said, shim = acted(tmp_path, 1_000, Action.KILL_BEFORE)
    assert (code, said, shim.count, shim.fired) == (0, "", 20, 0)
    assert sorted(shim.kinds(0)) == sorted(["create", "write", "fsync", "rename", "unlink"] * 4)


@pytest.mark.parametrize(
    ("action", "code", "said"),
    [
        (Action.KILL_BEFORE, -9, ""),
        (Action.KILL_AFTER, -9, ""),
        (Action.TORN, -9, ""),
        (Action.DISK_FULL, 0, "No space left on device"),
        (Action.IO_ERROR, 0, "Input/output error"),
    ],
)
def test_the_shim_strikes_one_call(tmp_path: Path, action: Action, code: int, said: str) -> None:
    found, heard, shim = acted(tmp_path, 7, action)
    assert found == code and said in heard
    assert shim.fired == 1 and shim.struck.split()[1].startswith(f"{tmp_path}/data/")


def test_half_a_write_is_half_a_write(tmp_path: Path) -> None:
    # given one thread's first write, the second call, when it is torn, then four of its eight bytes are there
    (tmp_path / "data").mkdir()
    shim = Interposer(build(tmp_path), tmp_path / "control", f"{tmp_path}/data")
    shim.arm(2, Action.TORN)
    script = f"open('{tmp_path}/data/x', 'wb', 0).write(b'12345678')"
    assert subprocess.run([sys.executable, "-c", script], env=shim.environ, check=False).returncode == -9
    assert (tmp_path / "data" / "x").read_bytes() == b"1234"


def test_points_have_names(bed: Bed) -> None:
    assert Point(STORE, Action.DISK_FULL, 117) in points_of(bed.calls)
    assert str(Point(STORE, Action.DISK_FULL, 117)) == "store:disk_full:117"
