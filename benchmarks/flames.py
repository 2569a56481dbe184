"""Where a worker's time goes: a flame graph of its Python lines by py-spy, and its CPU by library by perf, if there.

    python -m benchmarks.flames [--shape flat] [--readings 3600000] [--out docs/plots/worker_flat.svg]

Only threads that run are counted, with the GIL or without: what a kernel, Arrow or the Kafka client does stands under
the line that calls it. (Native frames would need the process to be stopped at every sample, after which threads that
wait look as if they ran.) The client's own threads have no Python line: they are in perf's table, a text beside the
graph, which also tells how much is compiled code ([JIT] or //anon), Arrow, the interpreter and the kernel. Needs the
`bench` extra, and the right to look into another process (root, or ptrace_scope 0).
"""

import argparse
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from benchmarks.stand import DRAIN_S, await_claims, stand, told, worker
from benchmarks.workload import SESSION_READINGS, publish_reference, send, whole_sessions

PLOTS: Final = Path(__file__).parents[1] / "docs" / "plots"
_RATE: Final = 99  # samples a second
_PERF_RATE: Final = 499
_LEAST: Final = 0.3  # per cent; less is not told


def record(shape: str, readings: int, connectors: int, out: Path) -> None:
    """Rate a workload under py-spy and perf, from the worker's first batch on."""
    program = shutil.which("py-spy", path=str(Path(sys.executable).parent)) or shutil.which("py-spy")
    if program is None:
        raise SystemExit("py-spy is not installed: pip install 'wattrate[bench]'")
    workload = whole_sessions(
        readings, connectors=connectors, shape=shape, tariff="time_of_use", minutes=SESSION_READINGS
    )
    out.parent.mkdir(parents=True, exist_ok=True)
    with stand(workload.partitions) as one:
        publish_reference(one.settings, workload)
        send(one.settings, workload)
        with worker(one.settings, DRAIN_S) as process:
            await_claims(one, process.pid)
            with by_library(process.pid, out.with_suffix(".txt")):
                command = [program, "record", "--nonblocking", "--threads", "-r", str(_RATE), "-o", str(out), "--pid"]
                done = subprocess.run([*command, str(process.pid)], capture_output=True, text=True, check=False)
            if done.returncode:
                raise SystemExit(f"py-spy: {done.stderr[-1000:]}")
            told(process)


@contextmanager
def by_library(pid: int, out: Path) -> Iterator[None]:
    """While the block runs: samples of a process's CPU, then its share by library as text."""
    program = shutil.which("perf")
    if program is None:
        print("perf is not installed: no table by library")
        yield
        return
    with tempfile.TemporaryDirectory() as folder:
        data = f"{folder}/perf.data"
        given = ["-e", "cpu-clock", "-F", str(_PERF_RATE), "-p", str(pid), "-o", data]
        with subprocess.Popen([program, "record", "--quiet", *given]) as sampling:
            yield
            sampling.terminate()
        command = [program, "report", "-i", data, "--stdio", "--sort", "dso", "--field-separator", ";"]
        told_lines = subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()
    shares = [line.strip().split(";") for line in told_lines if line.strip() and not line.startswith("#")]
    rows = [(float(share.strip(" %")), name.strip()) for share, name in shares]
    out.write_text("".join(f"{share:6.2f} %  {name}\n" for share, name in rows if share >= _LEAST), "utf-8")


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shape", default="flat", choices=("flat", "ocpp16", "ocpp201", "arrow"))
    parser.add_argument("--readings", type=int, default=3_600_000)
    parser.add_argument("--connectors", type=int, default=10_000)
    parser.add_argument("--out", type=Path)
    given = parser.parse_args()
    out = given.out or PLOTS / f"worker_{given.shape}.svg"
    began = time.monotonic()
    record(given.shape, given.readings, given.connectors, out)
    print(f"{out}: {out.stat().st_size:,} bytes after {time.monotonic() - began:.0f} s")


if __name__ == "__main__":
    main()
