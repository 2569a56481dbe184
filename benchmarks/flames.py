"""Where a worker's time goes: a flame graph of one that rates a workload, recorded by py-spy.

    python -m benchmarks.flames [--shape flat] [--readings 720000] [--out docs/plots/worker_flat.svg]

Native frames are included, so kernels, the Kafka client, Arrow and the inserts can be told apart; all threads, with
the GIL or without. Needs the `bench` extra, and the right to look into another process (root, or ptrace_scope 0).
"""

import argparse
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Final

from benchmarks.stand import DRAIN_S, await_claims, stand, told, worker
from benchmarks.workload import SESSION_READINGS, publish_reference, send, whole_sessions

PLOTS: Final = Path(__file__).parents[1] / "docs" / "plots"
_RATE: Final = 99  # samples a second


def record(shape: str, readings: int, connectors: int, out: Path) -> None:
    """Rate a workload under py-spy, from the worker's first batch on."""
    program = shutil.which("py-spy", path=str(Path(sys.executable).parent)) or shutil.which("py-spy")
    if program is None:
        raise SystemExit("py-spy is not installed: pip install 'wattrate[bench]'")
    workload = whole_sessions(readings, connectors=connectors, shape=shape, tariff="mixed", minutes=SESSION_READINGS)
    out.parent.mkdir(parents=True, exist_ok=True)
    with stand(workload.partitions) as one:
        publish_reference(one.settings, workload)
        send(one.settings, workload)
        with worker(one.settings, DRAIN_S) as process:
            await_claims(one, process.pid)
            command = [program, "record", "--native", "--threads", "-r", str(_RATE), "-o", str(out), "--pid"]
            done = subprocess.run([*command, str(process.pid)], capture_output=True, text=True, check=False)
            if done.returncode:
                raise SystemExit(f"py-spy: {done.stderr[-1000:]}")
            told(process)


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shape", default="flat", choices=("flat", "ocpp16", "ocpp201", "arrow"))
    parser.add_argument("--readings", type=int, default=720_000)
    parser.add_argument("--connectors", type=int, default=1_000)
    parser.add_argument("--out", type=Path)
    given = parser.parse_args()
    out = given.out or PLOTS / f"worker_{given.shape}.svg"
    began = time.monotonic()
    record(given.shape, given.readings, given.connectors, out)
    print(f"{out}: {out.stat().st_size:,} bytes after {time.monotonic() - began:.0f} s")


if __name__ == "__main__":
    main()
