"""How fast is the engine alone? Kernel, settlement, CDR documents and sheets, one core, each with a hash of its result.

Beside it: plain NumPy doing the same where it can (a flat and a three-band tariff), plain Python integers
(`plain_python`), and the oracle of the tests, in exact fractions.
Of the OCPI calculators on PyPI, `ocpi-tariffs` 0.1.0 ships no module (only py.typed), so there is none to run.
Figures are CPU time of one thread, the best of some rounds after one that compiles.

Run: python -m benchmarks.engine [--json] [--intervals 2000000]
"""

import argparse
import hashlib
import json
import time
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import numpy as np

from benchmarks.plain_python import Rater
from benchmarks.surroundings import surroundings
from rating import cdr_bytes
from rating.cdr import CdrFacts, accounts, document, encode, periods_of
from rating.columns import ABSENT, CHARGING, Marks, Pieces, empty_pieces
from rating.engine import NEVER, Batch, Rated, rate_batch
from rating.jit import kernel
from rating.kernel import rate_interval
from rating.money import ENERGY_COST, TIME_COST
from rating.ratesheet import FLIPS_AT, FLIPS_END, PATTERNS_AT, PRICE_E4, SLOT_ENERGY, Book, BookBuilder
from rating.settle import settle
from rating.tariff import Tariff, parse_tariff
from tests import oracle

SEED = 20260101
START_MS = 1_767_225_600_000  # 2026-01-01
MINUTE_MS, DAY_MS, KWH = 60_000, 86_400_000, 1_000_000
DAYS = 90
READINGS = 60  # a session: one reading a minute for an hour
ROUNDS = 5
ZONE = "Europe/Berlin"


class Result(NamedTuple):
    """One line: what was done how often a second, and what came of it."""

    name: str
    times: int
    unit: str
    ns_each: float
    per_second: int
    result_hash: str


def tariff(name: str, *elements: dict[str, Any]) -> Tariff:
    """A tariff in euro, of the Netherlands."""
    base = {"country_code": "NL", "party_id": "BEN", "id": name, "currency": "EUR", "elements": list(elements)}
    return parse_tariff({**base, "last_updated": "2026-01-01T00:00:00Z"}, "2.2.1")


def element(restrictions: dict[str, Any], *prices: tuple[str, float]) -> dict[str, Any]:
    """An element with 21 % VAT and steps of 1."""
    components = [{"type": kind, "price": price, "vat": 21, "step_size": 1} for kind, price in prices]
    return {"price_components": components} | ({"restrictions": restrictions} if restrictions else {})


DAY, NIGHT = {"start_time": "08:00", "end_time": "20:00"}, {"start_time": "00:00", "end_time": "08:00"}
TARIFFS = {
    "flat": tariff("flat", element({}, ("ENERGY", 0.45))),
    "three bands": tariff(
        "three bands", element(NIGHT, ("ENERGY", 0.2)), element(DAY, ("ENERGY", 0.4)), element({}, ("ENERGY", 0.3))
    ),
    "kWh tiers": tariff(
        "kWh tiers",
        element({"max_kwh": 5}, ("ENERGY", 0.2)),
        element({"max_kwh": 20}, ("ENERGY", 0.3)),
        element({}, ("ENERGY", 0.4)),
    ),
    "bands × tiers × power": tariff(
        "bands × tiers × power",
        element({**NIGHT, "max_kwh": 5}, ("ENERGY", 0.1)),
        element({**NIGHT, "min_power": 11}, ("ENERGY", 0.2)),
        element({**DAY, "max_kwh": 20}, ("ENERGY", 0.4)),
        element({**DAY, "max_power": 22}, ("ENERGY", 0.45), ("TIME", 1)),
        element({}, ("ENERGY", 0.3), ("PARKING_TIME", 2)),
    ),
}


def book_of(one: Tariff) -> Book:
    """The tariff as sheet 0 over the benchmark's horizon."""
    builder = BookBuilder(START_MS, START_MS + DAYS * DAY_MS)
    builder.add(one, f"{one.id}@1", ZONE)
    return builder.book()


def workload(intervals: int) -> Batch:
    """Sessions of an hour with a reading and a power sample a minute, at random times, in the order of time."""
    dice = np.random.default_rng(SEED)
    count = max(intervals // READINGS, 1)
    starts = np.sort(START_MS + dice.integers(0, (DAYS - 1) * DAY_MS, count))
    edges = (starts[:, None] + np.arange(READINGS) * MINUTE_MS).ravel()
    first = np.arange(count, dtype=np.int64) * READINGS
    return Batch(
        sheet=np.zeros(count, np.int32),
        start_ms=starts,
        reserved_ms=np.full(count, NEVER, np.int64),
        expired=np.zeros(count, np.int8),
        owes_flat=np.ones(count, np.int8),
        first_interval=first,
        n_intervals=np.full(count, READINGS, np.int64),
        start_mark=first,
        interval_start_ms=edges,
        interval_end_ms=edges + MINUTE_MS,
        interval_mwh=dice.integers(0, 700_000, len(edges)),
        interval_mark=np.arange(len(edges), dtype=np.int64),
        interval_n_marks=np.ones(len(edges), np.int64),
        marks=Marks(
            start_ms=edges,
            state=np.full(len(edges), CHARGING, np.int8),
            power_mw=dice.integers(0, 42 * KWH, len(edges)),
            current_ma=np.full(len(edges), ABSENT, np.int64),
        ),
    )


@kernel
def rate_and_sum(book: Book, batch: Batch, pieces: Pieces) -> int:
    """Rate every interval of every session and sum its cost, as a worker does: what a price an interval costs."""
    total = 0
    for session in range(len(batch.start_ms)):
        begun, before = batch.start_ms[session], 0
        first = batch.first_interval[session]
        for at in range(first, first + batch.n_intervals[session]):
            row = np.uint64(at)
            start, end = batch.interval_start_ms[row], batch.interval_end_ms[row]
            mark, energy = batch.interval_mark[row], batch.interval_mwh[row]
            used = rate_interval(book, 0, at, begun, before, batch.marks, mark, 1, start, end, energy, pieces, 0)
            before += energy
            for piece in range(used):
                priced, timed = pieces.energy_component[piece], pieces.time_component[piece]
                if priced >= 0:
                    total += pieces.energy_mwh[piece] * book.components[priced, PRICE_E4] * ENERGY_COST
                if timed >= 0:
                    length = pieces.end_ms[piece] - pieces.start_ms[piece]
                    total += length * book.components[timed, PRICE_E4] * TIME_COST
    return total


def by_numpy(book: Book, batch: Batch) -> int:
    """Plain NumPy for tariffs of time bands alone: intervals shorter than any band, so at most one flip in each."""
    flips = book.flips[book.sheets[0, FLIPS_AT] : book.sheets[0, FLIPS_END]]
    first = book.candidates[book.patterns[book.sheets[0, PATTERNS_AT] :, SLOT_ENERGY], 0]
    prices = book.components[first, PRICE_E4][book.flip_pattern[book.sheets[0, FLIPS_AT] : book.sheets[0, FLIPS_END]]]
    start, end, energy = batch.interval_start_ms, batch.interval_end_ms, batch.interval_mwh
    low = np.searchsorted(flips, start, side="right") - 1
    high = np.searchsorted(flips, end, side="left") - 1
    until = np.where(high > low, flips[high], end)
    before = np.where(high > low, energy * (until - start) // (end - start), energy)
    return int((before * prices[low] + (energy - before) * prices[high]).sum() * ENERGY_COST)


def by_oracle(one: Tariff, batch: Batch, sessions: int) -> int:
    """The oracle on the first sessions, in cost units."""
    source = oracle.Tariff(dict(one.source), ZONE, "2.2.1")
    prices = [[c.price_e4 for c in element.components] for element in one.elements]
    total = 0
    for at in range(sessions):
        rows = range(at * READINGS, (at + 1) * READINGS)
        starts, ends, energies = batch.interval_start_ms, batch.interval_end_ms, batch.interval_mwh
        intervals = [oracle.Interval(int(starts[row]), int(ends[row]), int(energies[row])) for row in rows]
        marks = [oracle.Mark(int(starts[row]), "CHARGING", int(batch.marks.power_mw[row])) for row in rows]
        for piece in oracle.rate(source, oracle.Session(intervals, marks)):
            if piece.energy:
                total += piece.energy_mwh * prices[piece.energy[0]][piece.energy[1]] * ENERGY_COST
            if piece.time:
                total += (piece.end_ms - piece.start_ms) * prices[piece.time[0]][piece.time[1]] * TIME_COST
    return total


def by_plain_python(rater: Rater, batch: Batch, sessions: int) -> int:
    """Plain Python on the first sessions, in cost units."""
    rows = zip(*(batch.interval_start_ms, batch.interval_end_ms, batch.interval_mwh, batch.marks.power_mw), strict=True)
    given = [tuple(int(value) for value in row) for row, _ in zip(rows, range(sessions * READINGS), strict=False)]
    starts = batch.start_ms.tolist()
    total = so_far = 0
    for at, (start, end, energy, power) in enumerate(given):
        so_far = so_far if at % READINGS else 0
        priced = rater.interval(starts[at // READINGS], so_far, start, end, energy, power, False)
        total += sum(piece.cost for piece in priced)
        so_far += energy
    return total


def first_sessions(batch: Batch, count: int) -> Batch:
    """The same sessions, fewer."""
    rows = count * READINGS
    marks = Marks(*(column[:rows] for column in batch.marks))  # type: ignore[arg-type]
    narrow = {name: getattr(batch, name)[:count] for name in Batch._fields[:8]}
    wide = {name: getattr(batch, name)[:rows] for name in Batch._fields[8:-1]}
    return Batch(**narrow, **wide, marks=marks)


def measure(name: str, unit: str, count: int, work: Callable[[], Any], rounds: int = ROUNDS) -> Result:
    """The best of some rounds, after one that compiles."""
    outcome = work()
    best = float("inf")
    for _ in range(rounds):
        started = time.thread_time()
        outcome = work()
        best = min(best, time.thread_time() - started)
    best = max(best, 1e-9)
    return Result(name, count, unit, round(best / count * 1e9, 1), round(count / best), hash_of(outcome))


def hash_of(outcome: Any) -> str:
    """Of a number, bytes or columns; the same on every machine."""
    digest = hashlib.sha256()
    for part in outcome if isinstance(outcome, tuple) else (outcome,):
        digest.update(part.tobytes() if isinstance(part, np.ndarray) else str(part).encode())
    return digest.hexdigest()[:16]


def kernels(batch: Batch, rounds: int, oracle_sessions: int) -> list[Result]:
    """The kernel under each tariff, NumPy where it can, the oracle on some sessions; equal sums or it fails."""
    pieces, results = empty_pieces(256), []
    few, more = (first_sessions(batch, min(n, len(batch.sheet))) for n in (oracle_sessions, 10 * oracle_sessions))
    for name, one in TARIFFS.items():
        book, count = book_of(one), len(batch.interval_mwh)
        ours = measure(f"kernel, {name}", "interval", count, partial(rate_and_sum, book, batch, pieces), rounds)
        results.append(ours)
        if name in ("flat", "three bands"):
            theirs = measure(f"NumPy, {name}", "interval", count, partial(by_numpy, book, batch), rounds)
            assert theirs.result_hash == ours.result_hash, f"{name}: kernel and NumPy disagree"
            results.append(theirs)
        slow = measure(
            f"oracle, {name}", "interval", len(few.interval_mwh), partial(by_oracle, one, few, len(few.sheet)), 1
        )
        same = rate_and_sum(book, few, pieces)
        assert slow.result_hash == hash_of(same), f"{name}: kernel and oracle disagree"
        work = partial(by_plain_python, Rater(one, ZONE), more, len(more.sheet))
        python = measure(f"plain Python, {name}", "interval", len(more.interval_mwh), work, rounds)
        same = rate_and_sum(book, more, pieces)
        assert python.result_hash == hash_of(same), f"{name}: kernel and plain Python disagree"
        results += [slow, python]
    return results


def settlements(batch: Batch, rounds: int) -> list[Result]:
    """Settlement of sessions as columns, from the pieces of all their intervals."""
    results = []
    for name in ("three bands", "bands × tiers × power"):
        rated = rate_batch(book_of(TARIFFS[name]), batch)
        work = partial(settle, rated.book, rated.sessions, rated.pieces)
        results.append(measure(f"settle, {name}", "session", len(batch.sheet), work, rounds))
    return results


def documents(batch: Batch, count: int, rounds: int) -> list[Result]:
    """CDR documents of settled sessions, with their tariff and charging periods, encoded."""
    one = TARIFFS["three bands"]
    rated: Rated = rate_batch(book_of(one), batch)
    facts = CdrFacts(
        country_code="NL",
        party_id="BEN",
        id="CDR",
        start_ms=START_MS,
        end_ms=START_MS + DAY_MS,
        session_id="CDR",  # as the worker names both
        cdr_token={"country_code": "NL", "party_id": "BEN", "uid": "1", "type": "RFID", "contract_id": "NL-BEN-C1"},
        auth_method="WHITELIST",
        cdr_location={"id": "L", "address": "A 1", "city": "Utrecht", "country": "NLD", "evse_uid": "1"},
        currency="EUR",
        tariffs=[one.source],
        tariff_id=one.id,
        last_updated_ms=START_MS + DAY_MS,
    )
    count = min(count, len(rated.sessions.sheet))

    def work(version: str) -> str:
        digest = hashlib.sha256()
        for account in accounts(rated.book, rated.pieces, rated.sessions, rated.settled)[:count]:
            digest.update(encode(document(account, facts, version)))
        return digest.hexdigest()

    one_by_one = [
        measure(f"CDR {version}", "document", count, partial(work, version), rounds) for version in ("2.2.1", "2.3.0")
    ]
    together = measure("CDR 2.2.1, all at once", "document", count, partial(in_bulk, rated, facts, count), rounds)
    assert together.result_hash == one_by_one[0].result_hash, "CDRs written in bulk are others"
    return [*one_by_one, together]


def in_bulk(rated: Rated, facts: CdrFacts, count: int) -> str:
    """The same documents as columns, by the compiled pass."""
    given = cdr_bytes.texts(
        [
            cdr_bytes.owner_text(facts.country_code, facts.party_id), encode(facts.id), encode(facts.cdr_token),
            cdr_bytes.place_text(facts.auth_method, facts.cdr_location),
            cdr_bytes.tariffs_text(facts.currency, facts.tariffs), encode(facts.tariff_id),
        ]
    )  # fmt: skip
    texts = [*(cdr_bytes.FIRST_TEXT + number for number in range(6)), cdr_bytes.NOTHING, cdr_bytes.NOTHING]
    columns = [np.full(count, value) for value in (*texts, facts.start_ms, facts.end_ms, facts.last_updated_ms)]
    periods = periods_of(rated.pieces, rated.sessions)
    found = cdr_bytes.documents(given, cdr_bytes.Told(np.arange(count), *columns), periods, rated.settled)
    return hashlib.sha256(found.text.tobytes()).hexdigest()


def sheets(count: int) -> list[Result]:
    """Sheets of tariffs with windows of their own over 20 zones; bytes a sheet are part of the name."""
    dice = np.random.default_rng(SEED)
    zones = ["Europe/Berlin", "America/New_York", "Asia/Kolkata", "Australia/Lord_Howe", "Africa/Casablanca"]
    tariffs = []
    for at in range(count):
        start, end = sorted(dice.choice(24, 2, replace=False).tolist())
        window = {"start_time": f"{start:02d}:00", "end_time": f"{end:02d}:00"}
        tariffs.append(
            tariff(
                f"t{at}",
                element(window, ("ENERGY", 0.2)),
                element({"max_kwh": 9}, ("ENERGY", 0.3)),
                element({}, ("ENERGY", 0.4)),
            )
        )

    def work() -> Book:
        builder = BookBuilder(START_MS, START_MS + DAYS * DAY_MS)
        for at, one in enumerate(tariffs):
            builder.add(one, f"{one.id}@1", zones[at % len(zones)])
        return builder.book()

    size = sum(np.asarray(table).nbytes for table in work()) // count
    return [measure(f"sheets over {DAYS} days, {size:,} bytes each", "sheet", count, work, 1)]


def run(
    intervals: int, rounds: int = ROUNDS, documented: int = 20_000, compiled: int = 2_000, checked: int = 30
) -> list[Result]:
    """All of it on one workload."""
    batch = workload(intervals)
    return [
        *kernels(batch, rounds, checked),
        *settlements(batch, rounds),
        *documents(batch, documented, rounds),
        *sheets(compiled),
    ]


def main() -> None:
    """Prints a table, or JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--intervals", type=int, default=2_000_000)
    options = parser.parse_args()
    results = run(options.intervals)
    if options.json:
        print(
            json.dumps(
                {**surroundings("numba", "numpy", "msgspec"), "results": [one._asdict() for one in results]},
                indent=2,
                ensure_ascii=False,
            )
        )
        return
    for one in results:
        print(f"{one.name:46} {one.ns_each:14,.1f} ns a {one.unit:9} {one.per_second:13,} /s  {one.result_hash}")


if __name__ == "__main__":
    main()
