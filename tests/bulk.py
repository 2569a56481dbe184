"""Engine against oracle on any number of random sessions: `python -m tests.bulk --sessions 10000000 --seed 7`.

Compares by `==`: every piece (neighbours of equal price joined), every quantity, step, cost and total. Broken tariffs
are mixed in; they must be refused with a JSON path. The first disagreements are printed as JSON to be replayed.
"""

import argparse
import json
import os
import sys
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from fractions import Fraction
from itertools import chain
from typing import Any

from rating.errors import TariffError
from rating.money import COST_PER_UNIT
from rating.ratesheet import TAX_MODE
from rating.settle import SETTLED
from rating.tariff import TAX_INCLUDED, parse_tariff
from tests.engine_door import Rated, rate, sheet_of
from tests.generated import Pair, pairs
from tests.malformed import broken
from tests.oracle import Piece, Session, Tariff
from tests.oracle_bill import NOTHING, Amount, Bill, rounded, settle

SESSIONS_A_TARIFF = 100
TARIFFS_A_CHUNK = 50
QUANTITIES = ("ENERGY", "TIME", "PARKING_TIME", "RESERVATION")  # columns of settled.step and of settled.cost
E4 = 10_000


@dataclass
class Report:
    """How much was compared, and what differed."""

    sessions: int = 0
    tariffs: int = 0
    broken_tariffs: int = 0
    pieces: int = 0
    disagreements: list[str] = field(default_factory=list)

    def add(self, other: "Report") -> None:
        """Both together."""
        self.sessions += other.sessions
        self.tariffs += other.tariffs
        self.broken_tariffs += other.broken_tariffs
        self.pieces += other.pieces
        self.disagreements += other.disagreements


def compare(sessions: int, seed: int, workers: int = 1) -> Report:
    """Compare at least `sessions` random sessions; the same seed gives the same ones with any number of workers."""
    chunks = -(-sessions // (SESSIONS_A_TARIFF * TARIFFS_A_CHUNK))
    seeds = [seed * 1_000_003 + number for number in range(chunks)]
    report = Report()
    if workers == 1:
        for part in map(compare_chunk, seeds):
            report.add(part)
        return report
    with ProcessPoolExecutor(workers) as pool:
        for done, part in enumerate(pool.map(compare_chunk, seeds), start=1):
            report.add(part)
            if done % 20 == 0:
                print(f"{report.sessions:,} sessions, {len(report.disagreements)} disagreements", file=sys.stderr)  # noqa: T201
    return report


def compare_chunk(seed: int) -> Report:
    """TARIFFS_A_CHUNK random tariffs, each with its sessions and one broken copy."""
    report = Report()
    for number, pair in enumerate(pairs(seed, TARIFFS_A_CHUNK, SESSIONS_A_TARIFF)):
        report.tariffs += 1
        report.sessions += len(pair.sessions)
        report.disagreements += list(_disagreements(pair, report))
        report.disagreements += list(_misread(pair, seed + number))
        report.broken_tariffs += 1
    return report


def _misread(pair: Pair, seed: int) -> Iterator[str]:
    """A tariff broken on purpose must be refused, with the place that was broken."""
    source, path = broken(pair.tariff, seed)
    try:
        parse_tariff(source, pair.version)
    except TariffError as error:
        if not error.path.startswith(path):
            yield f"broken at {path}, refused at {error.path}: {json.dumps(source, default=str)}"
    else:
        yield f"broken at {path}, not refused: {json.dumps(source, default=str)}"


def _disagreements(pair: Pair, report: Report) -> Iterator[str]:
    book = sheet_of(pair.tariff, pair.zone, pair.version, pair.sessions)
    rated = rate(book, pair.sessions)
    tariff = Tariff(pair.tariff, pair.zone, pair.version)
    for number, session in enumerate(pair.sessions):
        bill = settle(tariff, session)
        report.pieces += len(bill.pieces)
        for what, ours, theirs in chain(differing_pieces(rated, number, bill), differing_money(rated, number, bill)):
            yield _case(pair, session, f"{what}: engine {ours}, oracle {theirs}")
            break


def _case(pair: Pair, session: Session, text: str) -> str:
    case = {"tariff": pair.tariff, "zone": pair.zone, "version": pair.version, "session": session}
    return f"{text}\n  {json.dumps(case, default=lambda value: value.__dict__)}"


# ---------------------------------------------------------------- what is compared

Difference = tuple[str, Any, Any]


def joined(pieces: Sequence[Piece]) -> list[Piece]:
    """Neighbours of equal state and components as one piece."""
    found: list[Piece] = []
    for piece in pieces:
        last = found[-1] if found else None
        if (
            last is not None
            and last.end_ms == piece.start_ms
            and (last.state, last.energy, last.time) == (piece.state, piece.energy, piece.time)
        ):
            found[-1] = last._replace(end_ms=piece.end_ms, energy_mwh=last.energy_mwh + piece.energy_mwh)
        else:
            found.append(piece)
    return found


def differing_pieces(rated: Rated, number: int, bill: Bill) -> Iterator[Difference]:
    """The charging periods, if they are not the same."""
    ours, theirs = joined(rated.pieces_of(number)), joined(bill.pieces)
    if ours != theirs:
        yield "pieces", ours, theirs


def differing_money(rated: Rated, number: int, bill: Bill) -> Iterator[Difference]:
    """Everything that settlement says, if it is not the same."""
    settled = rated.settled
    if settled.status[number] != SETTLED:
        yield "status", int(settled.status[number]), SETTLED
        return
    for what, ours, theirs in chain(_steps(rated, number, bill), _amounts(rated, number, bill)):
        if ours != theirs:
            yield what, ours, theirs
    total = Amount(*(Fraction(int(column[number]), E4) for column in (settled.total_excl_e4, settled.total_incl_e4)))
    if total != bill.total:
        yield "total", total, bill.total
    taxes = int(settled.tax_e4[number].sum())
    if taxes != (bill.total.incl - bill.total.excl) * E4:
        yield "tax lines", taxes, (bill.total.incl - bill.total.excl) * E4
    yield from _rows_add_up(rated, number)


def _steps(rated: Rated, number: int, bill: Bill) -> Iterator[Difference]:
    steps = {step.dimension: step for step in bill.steps}
    settled = rated.settled
    for column, name in enumerate(QUANTITIES):
        step = steps.get(name)
        yield f"{name} step", int(settled.step[number, column]), 0 if step is None else step.quantity
        component = rated.component(int(settled.step_component[number, column]))
        yield f"{name} step component", component, None if step is None else step.component


def _amounts(rated: Rated, number: int, bill: Bill) -> Iterator[Difference]:
    included = bool(rated.book.sheets[0, TAX_MODE] == TAX_INCLUDED)
    stated = {name: bill.by_dimension.get(name, NOTHING) for name in (*QUANTITIES, "FLAT")}
    if "RESERVATION_FLAT" in bill.by_dimension:
        stated["RESERVATION"] = stated["RESERVATION"].plus(bill.by_dimension["RESERVATION_FLAT"])
    settled = rated.settled
    for column, (name, amount) in enumerate(stated.items()):
        got = (settled.cost[number, column], settled.excl_e4[number, column], settled.incl_e4[number, column])
        if amount is NOTHING:
            yield name, tuple(map(int, got)), (0, 0, 0)
            continue
        yield f"{name} cost", Fraction(int(got[0]), COST_PER_UNIT), amount.incl if included else amount.excl
        yield f"{name} excl", int(got[1]), rounded(amount.excl, 4) * E4
        yield f"{name} incl", int(got[2]), rounded(amount.incl, 4) * E4


def _rows_add_up(rated: Rated, number: int) -> Iterator[Difference]:
    """Σ rated cost + settlement rows = CDR total (design, control totals)."""
    settled = rated.settled
    rows = settled.rated_cost[number] + settled.step_cost[number].sum() + settled.min_cost[number]
    rows += settled.max_cost[number] + settled.rounding_cost[number]
    included = rated.book.sheets[0, TAX_MODE] == TAX_INCLUDED
    total = (settled.total_incl_e4 if included else settled.total_excl_e4)[number]
    if Fraction(int(rows), COST_PER_UNIT) != Fraction(int(total), E4):
        yield "sum of rows", int(rows), int(total)


def main(arguments: Sequence[str] | None = None) -> int:
    """Exit 1 where engine and oracle disagree."""
    parser = argparse.ArgumentParser(prog="python -m tests.bulk", description=__doc__)
    parser.add_argument("--sessions", type=int, default=10_000_000)
    parser.add_argument("--seed", type=int, default=7)
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 1)
    given = parser.parse_args(arguments)
    started = time.perf_counter()
    report = compare(given.sessions, given.seed, given.workers)
    seconds = time.perf_counter() - started
    print("\n".join(report.disagreements[:5]))  # noqa: T201
    print(  # noqa: T201
        f"{report.sessions:,} sessions, {report.tariffs:,} tariffs, {report.broken_tariffs:,} broken tariffs, "
        f"{report.pieces:,} pieces, seed {given.seed}: {len(report.disagreements)} disagreements in {seconds:,.0f} s"
    )
    return 1 if report.disagreements else 0


if __name__ == "__main__":
    sys.exit(main())
