"""The standard set: every question in turn, its result as a file, with progress; `report` makes the tables from them.

    python -m benchmarks.standard [--only NAME,NAME] [--long] [--tiny] [--out benchmarks/results] [--list]

About 10 minutes on 2 cores without `--long`, which adds a million connectors in full, 100 million rows, five minutes
without a pause and Apache Kafka. `--tiny` runs everything at sizes that say nothing about speed: it is what the tests
do. A benchmark that fails is named at the end, and the others still run.
"""

import argparse
import json
import shlex
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Final, NamedTuple

RESULTS: Final = Path(__file__).parent / "results"
ROOT: Final = Path(__file__).parents[1]


class Question(NamedTuple):
    """A result's name, the module that gives it, and its arguments: usual, and tiny."""

    name: str
    module: str
    usual: str
    tiny: str
    long: bool = False


_FEW: Final = "--connectors 80 --readings 2400 --session-readings 30"
_LARGE: Final = "--batch-records 400000 --batch-bytes 100000000"  # batches four times the default and more
QUESTIONS: Final = (
    Question("flat", "end_to_end", "--connectors 10000 --readings 3600000", _FEW),
    Question("short_sessions", "end_to_end", "--connectors 10000 --readings 1200000 --session-readings 30", _FEW),
    Question("mixed_faulty", "end_to_end", "--readings 360000 --tariff mixed --faulty",
             f"{_FEW} --tariff mixed --faulty"),
    Question("ocpp16", "end_to_end", "--shape ocpp16 --connectors 5000 --readings 1800000",
             f"--shape ocpp16 {_FEW}"),
    Question("ocpp201", "end_to_end", "--shape ocpp201 --connectors 5000 --readings 1800000",
             f"--shape ocpp201 {_FEW}"),
    Question("arrow", "end_to_end", "--shape arrow --connectors 10000 --readings 7200000",
             f"--shape arrow {_FEW}"),
    Question(
        "beside", "end_to_end", "--readings 360000 --beside faust,pandas,python",
        f"{_FEW} --beside faust,pandas,python",
    ),
    Question("large_batches", "end_to_end", f"--connectors 10000 --readings 10800000 {_LARGE}", "", long=True),
    Question("sustained", "end_to_end", f"--kafka --connectors 10000 --readings 66600000 {_LARGE}", "", long=True),
    Question("sustained_ocpp201", "end_to_end",
             f"--kafka --shape ocpp201 --connectors 10000 --readings 48600000 {_LARGE}", "", long=True),
    Question("sustained_arrow", "end_to_end", "--kafka --shape arrow --connectors 10000 --readings 90000000", "",
             long=True),
    Question("kafka_beside", "end_to_end", "--kafka --readings 360000 --beside faust,pandas,python", "", long=True),
    Question("kafka_ocpp16", "end_to_end", "--kafka --shape ocpp16 --connectors 5000 --readings 1800000", "",
             long=True),
    Question("recovery_of_a_million", "recovery", "--kafka --connectors 1000000 --times 1", "", long=True),
    Question("engine", "engine", "--intervals 1000000", "--intervals 600"),
    Question("inserts", "inserts", "", "--connectors 20 --rounds 1"),
    Question("decode", "decode", "", "--records 400 --points 50"),
    Question("growth", "growth", "--by connectors,workers --sizes 1000,10000,100000 --readings 200000",
             "--sizes 80 --readings 160 --by connectors"),
    Question("growth_to_a_million", "growth", "--by connectors --readings 1000000", "", long=True),
    Question("growth_in_width", "growth", "--by tariffs,partitions --readings 300000", "", long=True),
    Question("latency", "latency", "--seconds 10", "--connectors 80 --readings 2400 --seconds 1 --shares 0.1"),
    Question("alert_latency", "alert_latency", "--connectors 10000 --seconds 15",
             "--connectors 80 --seconds 1 --probes 10"),
    Question("billing_reads", "billing_reads", "--rows 1000000,5000000 --reads 100", "--rows 50000 --reads 5"),
    Question("billing_reads_of_100_million", "billing_reads", "--rows 100000000 --rested", "", long=True),
)  # fmt: skip
PLOTTED: Final = {
    "growth": "--plots docs/plots",
    "growth_to_a_million": "--plots docs/plots",
    "growth_in_width": "--plots docs/plots",
}


def chosen(only: Sequence[str], *, long: bool) -> list[Question]:
    """Those named, or all; the long ones replace nothing, they come on top."""
    unknown = set(only) - {question.name for question in QUESTIONS}
    if unknown:
        raise SystemExit(f"no such benchmark: {', '.join(sorted(unknown))}; --list shows them")
    return [one for one in QUESTIONS if (one.name in only if only else long or not one.long)]


def answer(question: Question, out: Path, *, tiny: bool) -> str:
    """Run one; "" or what went wrong. Its words go to the terminal, its result to a file."""
    arguments = question.tiny if tiny else f"{question.usual} {PLOTTED.get(question.name, '')}"
    command = [sys.executable, "-m", f"benchmarks.{question.module}", *shlex.split(arguments), "--json"]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, cwd=ROOT, check=False)
    if done.returncode:
        return f"ended with code {done.returncode}"
    found = json.loads(done.stdout)
    found["command"] = f"python -m benchmarks.{question.module} {arguments}".strip()
    (out / f"{question.name}.json").write_text(json.dumps(found, indent=1, ensure_ascii=False) + "\n", "utf-8")
    return ""


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default="")
    parser.add_argument("--long", action="store_true")
    parser.add_argument("--tiny", action="store_true")
    parser.add_argument("--out", type=Path, default=RESULTS)
    parser.add_argument("--list", action="store_true")
    given = parser.parse_args()
    questions = chosen([name for name in given.only.split(",") if name], long=given.long)
    if given.list:
        print("\n".join(f"{one.name:32} python -m benchmarks.{one.module} {one.usual}" for one in QUESTIONS))
        return
    given.out.mkdir(parents=True, exist_ok=True)
    began, failed = time.monotonic(), []
    for number, question in enumerate(questions, 1):
        started = time.monotonic()
        print(f"[{number}/{len(questions)}] {question.name} …", file=sys.stderr, flush=True)
        problem = answer(question, given.out, tiny=given.tiny)
        failed += [f"{question.name} {problem}"] if problem else []
        print(f"    {problem or 'done'} after {time.monotonic() - started:.0f} s", file=sys.stderr, flush=True)
    print(f"all in {(time.monotonic() - began) / 60:.1f} minutes; results in {given.out}", file=sys.stderr)
    if failed:
        raise SystemExit("\n".join(failed))


if __name__ == "__main__":
    main()
