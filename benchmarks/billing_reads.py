"""How long do billing reads take as stored rows grow? A session's explained bill, a customer's month, all customers'.

    python -m benchmarks.billing_reads [--rows 1000000,10000000,100000000] [--reads 200] [--rested] [--json]

A worker rates 250 sessions of 100 readings; what it wrote to every table, its markers too, is then copied inside the
store to other charge points and other working days of the month, so that each row counts and each bill adds up; each
copy's session has the key that metering would have given it.
Reads ask for random sessions and customers, each once, through the same functions as the commands. Every bill must
agree with its CDR, every sum with the template times its copies. Time is the caller's, over HTTP. Each statement of
a bill is asked again alone (`bill_statements`), for what it costs the store.
"""

import argparse
import hashlib
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import numpy as np
import pyarrow as pa

from benchmarks.bill_statements import by_statement
from benchmarks.plots import Series, line_chart
from benchmarks.stand import PACKAGES, Stand, rate, stand
from benchmarks.surroundings import show, surroundings
from benchmarks.workload import MINUTE_MS, SEED, Workload, documents, send
from pipeline.clickhouse import Store
from pipeline.coverage import Coverage
from pipeline.kafka import Sender
from pipeline.publication import publish
from pipeline.read import explanation, statements
from pipeline.read.sessions import Likely

FROM_MS, UNTIL_MS = 1_767_225_600_000, 1_769_904_000_000  # January 2026
DAYS: Final = tuple(day for day in range(26) if day % 7 < 5)  # working days from the template's Monday: prices repeat
TEMPLATE: Final = Workload(connectors=250, sweeps=100, minutes=100, tariff="time_of_use")
CUSTOMERS: Final = 50_000
KEYS: Final = "copied_keys"
COPIED: Final = ("reading_rows", "rated_usage_rows", "cdr_rows", "marker_rows")
_COPIES_AT_ONCE: Final = 100
_MERGE_S: Final = 120.0
_BUSY, _REST_S = 0.08, 10.0  # of all cores: what broker and store do by themselves is less
_DAY_MS: Final = 1440 * MINUTE_MS


class Month:
    """The store with a month of copies in it, growing."""

    def __init__(self, one: Stand, store: Store) -> None:
        """The template, rated by a worker."""
        self.store = store
        self.stand = one
        self.log_id = one.log_id()
        self.copies = 1
        self.spans = {
            row["part"]: row["span"]
            for row in store.rows("SELECT partition AS part, max(last_offset) + 1 AS span FROM covered GROUP BY part")
        }
        self.template = store.rows(
            "SELECT charge_point_id AS name, toInt64(transaction_id) AS number, session_key, energy_mwh, total_incl_e4 "
            "FROM cdrs ORDER BY name"
        )
        assert [row["session_key"] for row in self.template] == self._keys(0), (
            "sessions have other keys than their names"
        )
        columns = "session_key UInt64, copy UInt64, key UInt64"
        store.command(f"CREATE TABLE {KEYS} ({columns}) ENGINE = Join(ANY, LEFT, session_key, copy)")
        self.rated_each = int(store.scalar("SELECT count() FROM rated_usage"))

    def grow(self, rows: int) -> None:
        """Copy until about so many rated rows count."""
        wanted = max(1, rows // self.rated_each)
        while self.copies < wanted:
            until = min(wanted, self.copies + _COPIES_AT_ONCE)
            self._insert_keys(self.copies, until)
            for table in COPIED:
                self.store.command(self._insert(table, self.copies, until))
            self.copies = until
        self._let_merge()

    def _keys(self, copy: int) -> list[int]:
        """Of the sessions of a copy, in the template's order; their connectors are the first of their charge points."""
        named = (self.session(copy * len(self.template) + row)[0] for row in range(len(self.template)))
        return [Likely.of(*name.split("*")).keys[0] for name in named]

    def _insert_keys(self, first: int, until: int) -> None:
        self.store.command(f"TRUNCATE TABLE {KEYS}")
        template = [row["session_key"] for row in self.template]
        for copy in range(first, until):
            columns = template, [copy] * len(template), self._keys(copy)
            arrays = [pa.array(column, pa.uint64()) for column in columns]
            self.store.insert(KEYS, pa.table(dict(zip(("session_key", "copy", "key"), arrays, strict=True))))

    def _insert(self, table: str, first: int, until: int) -> str:
        spans = f"transform(t.partition, {list(self.spans)}, {list(self.spans.values())}, toUInt64(0))"
        day = f"arrayElement({list(DAYS)}, copy % {len(DAYS)} + 1)"
        fleet = f"intDiv(copy, {len(DAYS)})"
        offset = f"toUInt64(t.{{0}} + copy * {spans}) AS {{0}}"
        # What a copy's row says: another charge point of another fleet, another day, a session and offsets of its own.
        number = f"(toUInt32(substring(t.charge_point_id, 3)) + {TEMPLATE.connectors} * {fleet})"
        name = f"concat('CP', leftPad(toString({number}), 7, '0'))"
        token = f"concat('T', leftPad(toString(({number} * 7919 + {day} * 104729) % {CUSTOMERS}), 8, '0'))"
        transaction = f"toString(toUInt64(t.transaction_id) + {TEMPLATE.connectors} * copy)"
        later = "addMilliseconds(t.{0}, " + f"{_DAY_MS} * {day}) AS {{0}}"
        key = f"if(t.session_key = 0, 0, joinGet('{KEYS}', 'key', t.session_key, copy)) AS session_key"
        common = [offset.format("offset"), f"{name} AS charge_point_id", key]
        replaced = {
            "reading_rows": [*common, f"{transaction} AS transaction_id", later.format("time"),
                             later.format("received_at"), f"if(t.id_token = '', '', {token}) AS id_token"],
            "rated_usage_rows": [*common, later.format("start"), later.format("end")],
            "cdr_rows": [*common, f"{transaction} AS transaction_id", f"concat({name}, '*', {transaction}) AS cdr_id",
                         f"{token} AS id_token", *(later.format(n) for n in ("start", "end", "settled_at"))],
            "marker_rows": [offset.format("first_offset"), offset.format("last_offset"), later.format("log_time")],
        }[table]  # fmt: skip
        spots = "first_offset" if table == "marker_rows" else "offset"
        return (
            f"INSERT INTO {table} SELECT * EXCEPT copy REPLACE ({', '.join(replaced)}) FROM (SELECT * FROM {table} "
            f"WHERE log_id = {self.log_id} AND {spots} < transform(partition, {list(self.spans)}, "
            f"{list(self.spans.values())}, toUInt64(0))) AS t CROSS JOIN "
            f"(SELECT toUInt64(number + {first}) AS copy FROM numbers({until - first})) AS n"
        )

    def _let_merge(self) -> None:
        """Wait until the store's background merges rest, or for two minutes."""
        until_s = time.monotonic() + _MERGE_S
        while self.store.scalar("SELECT count() FROM system.merges") and time.monotonic() < until_s:
            time.sleep(1.0)

    def session(self, pick: int) -> tuple[str, dict[str, Any]]:
        """What people call a session, and its template."""
        copy, row = divmod(pick, len(self.template))
        template = self.template[row]
        number = int(template["name"][2:]) + TEMPLATE.connectors * (copy // len(DAYS))
        return f"CP{number:07d}*{template['number'] + TEMPLATE.connectors * copy}", template

    def stored(self) -> dict[str, Any]:
        """Rows, parts and bytes of each table."""
        found = self.store.rows(
            "SELECT table AS name, sum(rows) AS rows, count() AS parts, sum(bytes_on_disk) AS bytes FROM system.parts "
            "WHERE active AND database = currentDatabase() AND table IN {tables:Array(String)} GROUP BY name",
            {"tables": list(COPIED)},
        )
        return {row.pop("name"): row for row in sorted(found, key=lambda row: str(row["name"]))}


def explained(month: Month, picks: list[int]) -> tuple[list[float], str]:
    """ms of each explained bill, and the hash of their totals."""
    took, digest = [], hashlib.sha256()
    for pick in picks:
        text, template = month.session(pick)
        began = time.perf_counter()
        told = explanation.explained(month.store, text)
        took.append(1e3 * (time.perf_counter() - began))
        bill = told["bill"]
        assert bill and not bill["differs"], f"{text}: {bill and bill['differs']}"
        energy_mwh = template["energy_mwh"]
        assert told["cdrs"][-1]["energy_kwh"] == bill["energy_kwh"], f"{text}: bill and CDR differ"
        assert round(float(bill["energy_kwh"]) * 1e6) == energy_mwh, f"{text}: {bill['energy_kwh']} kWh"
        digest.update(repr((text, bill["totals"] if "totals" in bill else bill["energy_kwh"])).encode())
    return took, digest.hexdigest()[:16]


def looked_up(month: Month, times: int) -> list[float]:
    """ms of each look-up of what counts in a partition, which is part of every bill."""
    took, place = [], (month.log_id, 0)
    for _ in range(times):
        began = time.perf_counter()
        Coverage.of(month.store, [place])
        took.append(1e3 * (time.perf_counter() - began))
    return took


def months(month: Month, picks: list[int]) -> tuple[list[float], int]:
    """ms of each customer's month, and how many lines they had."""
    took, lines = [], 0
    for pick in picks:
        began = time.perf_counter()
        found = statements.of_customer(month.store, f"T{pick:08d}", FROM_MS, UNTIL_MS)
        took.append(1e3 * (time.perf_counter() - began))
        lines += sum(len(statement.lines) for statement in found)
        for statement in found:
            assert statement.total_incl_e4 == sum(line.total_incl_e4 for line in statement.lines)
    return took, lines


def everyone(month: Month) -> dict[str, Any]:
    """The statement run; its sums must be the template's times the copies."""
    began = time.perf_counter()
    count = lines = energy = incl = 0
    for statement in statements.of_everyone(month.store, FROM_MS, UNTIL_MS):
        count += 1
        lines += len(statement.lines)
        energy += statement.energy_mwh
        incl += statement.total_incl_e4
    seconds = time.perf_counter() - began
    for name, found in (("energy_mwh", energy), ("total_incl_e4", incl)):
        truth = month.copies * sum(row[name] for row in month.template)
        assert found == truth, f"statements hold {found} {name}, the copies {truth}"
    assert lines == month.copies * len(month.template), f"{lines} lines for {month.copies} copies"
    return {"seconds": round(seconds, 2), "customers": count, "sessions": lines}


def measured(month: Month, reads: int) -> dict[str, Any]:
    """All three reads at the present size."""
    dice = np.random.default_rng(SEED)
    total = month.copies * len(month.template)
    picks = dice.choice(total, min(reads, total), replace=False).tolist()
    explained(month, picks[:3])  # connections and imports
    store_s, client_s = month.stand.cpu_s()["store"], time.process_time()
    bills, digest = explained(month, picks)
    spent_s = {"store": month.stand.cpu_s()["store"] - store_s, "client": time.process_time() - client_s}
    customers = dice.choice(CUSTOMERS, reads, replace=False).tolist()
    month_ms, lines = months(month, customers)
    return {
        "rated_rows": month.copies * month.rated_each, "sessions": total, "stored": month.stored(),
        "coverage_ms": quantiles(looked_up(month, min(reads, 50))),
        "explained_bill_ms": quantiles(bills),
        "explained_bill_cpu_ms": {name: round(1e3 * spent / len(picks), 2) for name, spent in spent_s.items()},
        "statement_cpu_ms": by_statement(month.stand, [month.session(pick)[0] for pick in picks]),
        "customer_month_ms": quantiles(month_ms),
        "lines_per_customer": round(lines / len(customers), 1), "statement_run": everyone(month), "result_hash": digest,
    }  # fmt: skip


def quantiles(took_ms: list[float]) -> dict[str, float]:
    """p50, p99 and the maximum."""
    return {"p50": round(float(np.quantile(took_ms, 0.5)), 2), "p99": round(float(np.quantile(took_ms, 0.99)), 2),
            "max": round(max(took_ms), 2)}  # fmt: skip


def rest() -> None:
    """Return when nothing else has kept the machine busy for some seconds.

    A span to count over, not a wait for an event: nobody tells when other programs rest.
    """
    busy = 1.0
    while busy > _BUSY:
        before = _cpu_ticks()
        time.sleep(_REST_S)
        used, whole = (now - then for now, then in zip(_cpu_ticks(), before, strict=True))
        busy = used / whole


def _cpu_ticks() -> tuple[int, int]:
    """What all cores spent on anything, and altogether, since they were started."""
    ticks = [int(word) for word in Path("/proc/stat").read_text("ascii").splitlines()[0].split()[1:9]]
    return sum(ticks) - ticks[3] - ticks[4], sum(ticks)


def run(
    sizes: list[int], reads: int, note: Callable[[str], None] = lambda _: None, *, rested: bool = False
) -> dict[str, Any]:
    """Grow to each size, and read."""
    fleets = max(1, max(sizes) // (TEMPLATE.readings * len(DAYS)) + 1)
    with stand(TEMPLATE.partitions, clickhouse_timeout_s=1800.0) as one, Store(one.settings) as store:
        with Sender(one.settings) as sender:
            publish(store, sender, documents(Workload(connectors=fleets * TEMPLATE.connectors, tariff=TEMPLATE.tariff)))
        send(one.settings, TEMPLATE)
        rate(one.settings)
        month, found = Month(one, store), []
        for size in sizes:
            note(f"{size:,} rated rows")
            month.grow(size)
            if rested:
                rest()
            found.append(measured(month, reads))
    return {"question": "billing_reads", "sizes": found, **surroundings(*PACKAGES)}


def plot(sizes: list[dict[str, Any]], path: Path) -> None:
    """p99 by stored rows."""
    rows = [one["rated_rows"] for one in sizes]
    series = [
        Series("one session's explained bill, p99", rows, [one["explained_bill_ms"]["p99"] for one in sizes]),
        Series("one customer's month, p99", rows, [one["customer_month_ms"]["p99"] for one in sizes]),
        Series("statements of all", rows, [1e3 * one["statement_run"]["seconds"] for one in sizes]),
    ]
    line_chart(path, "Billing reads by stored rows", "rated rows", "ms", series, log_x=True, log_y=True)


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", default="1000000,10000000")
    parser.add_argument("--reads", type=int, default=200)
    parser.add_argument("--rested", action="store_true", help="measure when nothing else keeps the machine busy")
    parser.add_argument("--json", action="store_true")
    given = parser.parse_args()
    found = run([int(rows) for rows in given.rows.split(",")], given.reads, rested=given.rested)
    show(found, as_json=given.json)


if __name__ == "__main__":
    main()
