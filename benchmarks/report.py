"""The tables of README.md and docs/performance.md, written from the results of `standard` between their markers.

    python -m benchmarks.report [--check]

`--check` only says whether the tables are those of the results. Figures stand with their workload, machine and commit;
a result that is not there leaves its rows out.
"""

import argparse
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final

from benchmarks.billing_reads import plot as billing_reads_plot
from benchmarks.standard import RESULTS

ROOT: Final = Path(__file__).parents[1]
_BEGIN, _END = "<!-- {}: written by benchmarks/report.py -->", "<!-- {} ends -->"
Result = dict[str, Any]
_BESIDE: Final = {"beside": "embedded broker", "kafka_beside": "Apache Kafka"}
_END_TO_END: Final = {
    "flat": "flat JSON",
    "large_batches": "flat JSON",
    "ocpp16": "OCPP 1.6",
    "ocpp201": "OCPP 2.0.1",
    "arrow": "Arrow batches",
    "short_sessions": "flat JSON, 30 readings a session",
    "mixed_faulty": "flat JSON, 1 % faulty, mixed tariffs",
    "beside": "flat JSON, beside the others",
    "sustained": "flat JSON, Apache Kafka, {minutes} minutes",
    "sustained_ocpp201": "OCPP 2.0.1, Apache Kafka, {minutes} minutes",
    "sustained_arrow": "Arrow batches, Apache Kafka, {minutes} minutes",
    "kafka_beside": "flat JSON, Apache Kafka, beside the others",
    "kafka_ocpp16": "OCPP 1.6, Apache Kafka",
}


def results(folder: Path = RESULTS) -> dict[str, Result]:
    """Every result by its name."""
    return {path.stem: json.loads(path.read_text("utf-8")) for path in sorted(folder.glob("*.json"))}


def end_to_end(found: dict[str, Result]) -> Iterator[str]:
    """Readings a second from Kafka to queryable rows, and CPU by process."""
    rows = [(words, found[name]) for name, words in _END_TO_END.items() if name in found]
    if not rows:
        return
    yield (
        "| input | bytes / message | samples / message | readings/s | of consume-and-discard "
        "| of raw inserts of the same rows | CPU-µs / reading: worker, store (of it merges), broker |"
    )
    yield "| --- | ---: | ---: | ---: | ---: | ---: | --- |"
    for words, one in rows:
        worker, cpu = one["worker"], one["worker"]["cpu_us_per_reading"]
        told = words.format(minutes=round(worker["seconds"] / 60)) + (", large batches" if one.get("settings") else "")
        yield (
            f"| {told} | {one['sent']['bytes_per_message']:,.0f} | {one['sent']['samples_per_message']:,.0f} "
            f"| **{worker['readings_per_s']:,}** | {one['ratios']['worker_to_bare_consume']:.0%} "
            f"| {_share(one['ratios'].get('worker_to_raw_inserts'))} "
            f"| {cpu['worker']}, {cpu['store']}{_merges(worker)}, {cpu['broker']} |"
        )


def _merges(worker: Result) -> str:
    return f" ({worker['merges_cpu_us_per_reading']})" if "merges_cpu_us_per_reading" in worker else ""


def _share(ratio: float | None) -> str:
    return "" if ratio is None else f"{ratio:.0%}"


def beside(found: dict[str, Result]) -> Iterator[str]:
    """The others on the same topic, their costs equal transaction by transaction."""
    runs = {words: found[name] for name, words in _BESIDE.items() if name in found}
    for number, (broker, one) in enumerate(runs.items()):
        yield from [""] if number else []
        yield f"| same topic, same run, {broker} | per second | CPU-µs / reading | worker is so many times as fast |"
        yield "| --- | ---: | ---: | ---: |"
        yield from _beside(one)


def _beside(one: Result) -> Iterator[str]:
    bare, worker = one["bare_consume"]["readings_per_s"], one["worker"]
    yield f"| consume and discard | {bare:,} | | {one['ratios']['worker_to_bare_consume']:.2f} |"
    yield f"| **worker** | **{worker['readings_per_s']:,}** | {worker['cpu_us_per_reading']['worker']} | 1 |"
    names = {
        "faust": "Faust agent",
        "plain_python": "plain Python, no store",
        "pandas": "pandas, no store, ENERGY and FLAT only",
    }
    for name, words in names.items():
        if name in one:
            its = one[name]
            yield (
                f"| {words} | {its['readings_per_s']:,} | {its['cpu_us_per_reading']} "
                f"| {one['ratios'][f'worker_to_{name}']:.1f} |"
            )


def kernels(found: dict[str, Result]) -> Iterator[str]:
    """ns an interval."""
    if "engine" not in found:
        return
    ns = {one["name"]: one["ns_each"] for one in found["engine"]["results"]}
    yield "| tariff | kernel, ns an interval | NumPy | plain Python | kernel is so many times as fast |"
    yield "| --- | ---: | ---: | ---: | ---: |"
    for name in (name.removeprefix("kernel, ") for name in ns if name.startswith("kernel, ")):
        ours, python = ns[f"kernel, {name}"], ns[f"plain Python, {name}"]
        numpy = f"{ns[f'NumPy, {name}']:,.0f}" if f"NumPy, {name}" in ns else ""
        yield f"| {name} | {ours:,.0f} | {numpy} | {python:,.0f} | {python / ours:,.0f} |"


def growth(found: dict[str, Result]) -> Iterator[str]:
    """Cost and memory by connectors."""
    one = found.get("growth_to_a_million", found.get("growth"))
    if one is None or "connectors" not in one:
        return
    yield (
        "| connectors, each in a session | µs a reading | worker CPU-µs | resident MB | bytes a connector "
        "| to its first batch, s |"
    )
    yield "| ---: | ---: | ---: | ---: | ---: | ---: |"
    for size in one["connectors"]:
        yield (
            f"| {size['connectors']:,} | {size['us_per_reading']} | {size['cpu_us_per_reading']['worker']} "
            f"| {size['resident_mb']:,} | {size.get('bytes_per_connector', '')} | {size['first_batch_after_start_s']} |"
        )


def latency(found: dict[str, Result]) -> Iterator[str]:
    """Event to queryable row, and to alert."""
    one = found.get("latency")
    if one is None:
        return
    yield "| load | readings/s | until | p50, s | p99, s | max, s |"
    yield "| ---: | ---: | --- | ---: | ---: | ---: |"
    for share, at in one["shares"].items():
        took = at["queryable_s"]
        yield f"| {share} | {at['readings_per_s']:,} | row queryable | {took['p50']} | {took['p99']} | {took['max']} |"
    for share, at in found.get("alert_latency", {}).get("shares", {}).items():
        told = f"| {share} | {at['readings_per_s']:,} | alert on its topic "
        yield f"{told}| {at['p50_s']} | {at['p99_s']} | {at['max_s']} |"


def billing_reads(found: dict[str, Result]) -> Iterator[str]:
    """Reads by stored rows."""
    sizes = billing_sizes(found)
    if not sizes:
        return
    yield (
        "| rated rows | sessions | explained bill p50 / p99, ms | customer's month p50 / p99, ms "
        "| statements of all, s |"
    )
    yield "| ---: | ---: | --- | --- | ---: |"
    for size in sizes:
        bill, month = size["explained_bill_ms"], size["customer_month_ms"]
        yield (
            f"| {size['rated_rows']:,} | {size['sessions']:,} | {bill['p50']} / {bill['p99']} "
            f"| {month['p50']} / {month['p99']} | {size['statement_run']['seconds']} |"
        )


def bill_statements(found: dict[str, Result]) -> Iterator[str]:
    """What each statement of a bill costs the store, at the most rows that were measured."""
    sizes = [size for size in billing_sizes(found) if "statement_cpu_ms" in size]
    if not sizes:
        return
    most = sizes[-1]
    told = f"the store's CPU for a statement of a bill, ms, at {most['rated_rows']:,} rated rows"
    yield f"| {told} | of a session | of nobody |"
    yield "| --- | ---: | ---: |"
    for table, ms in most["statement_cpu_ms"].items():
        yield f"| {table or 'SELECT 1'} | {ms['of_a_session']} | {ms['of_nobody']} |"


def billing_sizes(found: dict[str, Result]) -> list[dict[str, Any]]:
    """What reads took at each number of stored rows, of all runs."""
    names = ("billing_reads", "billing_reads_of_100_million")
    return [size for name in names if name in found for size in found[name]["sizes"]]


def where(found: dict[str, Result]) -> Iterator[str]:
    """Machine, versions, commands and hashes."""
    for name, one in found.items():
        hashes = [one["sent"]["hash"]] if "sent" in one else []
        hashes += [one["result_hash"]] if "result_hash" in one else []
        told = f"hashes {', '.join(hashes)}" if hashes else "hashes in its file"
        machine = f"{one['machine']}, {one['cores']} cores, Python {one['python']}, commit {one['commit']}"
        yield f"- {name}: `{one['command']}`; {machine}; {told}"


SECTIONS: Final[dict[str, Callable[[dict[str, Result]], Iterator[str]]]] = {
    "end to end": end_to_end,
    "beside": beside,
    "kernels": kernels,
    "growth": growth,
    "latency": latency,
    "billing reads": billing_reads,
    "bill statements": bill_statements,
    "where": where,
}


def written(text: str, found: dict[str, Result]) -> str:
    """The document with its tables."""
    for name, section in SECTIONS.items():
        begin, end = _BEGIN.format(name), _END.format(name)
        body = "\n".join(section(found)) or "(not measured yet: `make bench`)"
        before, found_begin, rest = text.partition(begin + "\n")
        _, found_end, after = rest.partition(end)
        if found_begin and found_end:
            text = f"{before}{begin}\n{body}\n{end}{after}"
    return text


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true")
    given = parser.parse_args()
    found = results()
    for path in (ROOT / "README.md", ROOT / "docs" / "performance.md"):
        before = path.read_text("utf-8")
        after = written(before, found)
        if given.check and after != before:
            raise SystemExit(f"{path.name}: its tables are not those of the results; run `python -m benchmarks.report`")
        path.write_text(after, "utf-8")
    if not given.check and (sizes := billing_sizes(found)):
        billing_reads_plot(sizes, ROOT / "docs" / "plots" / "billing_reads.svg")


if __name__ == "__main__":
    main()
