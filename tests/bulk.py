"""Engine against oracle on any number of random sessions: `python -m tests.bulk --sessions 10000000 --seed 7`.

Compares by `==`: every piece (neighbours of equal price joined), every quantity, step, cost and total. Broken tariffs
are mixed in; they must be refused with a JSON path. The first disagreements are printed as JSON to be replayed.
"""

import argparse
import gc
import hashlib
import json
import os
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from fractions import Fraction
from typing import Any, NamedTuple

import click

from rating.columns import FREE
from rating.errors import TariffError
from rating.money import COST_PER_E4, COST_PER_UNIT
from rating.ratesheet import TAX_MODE
from rating.settle import SETTLED
from rating.tariff import TAX_INCLUDED, parse_tariff
from tests.engine_door import NAMES, Rated, rate, sheet_of
from tests.generated import Pair, pairs
from tests.malformed import broken
from tests.oracle import Component, Piece, Session, Tariff
from tests.oracle_bill import NOTHING, Amount, Bill, settle, whole_units

SESSIONS_A_TARIFF = 100
TARIFFS_A_CHUNK = 50
QUANTITIES = ("ENERGY", "TIME", "PARKING_TIME", "RESERVATION")  # columns of settled.step and of settled.cost
E4 = 10_000
CASES_KEPT = 20
TELL_EVERY_S = 10


@dataclass
class Report:
    """How much was compared, and what differed."""

    sessions: int = 0
    tariffs: int = 0
    broken_tariffs: int = 0
    pieces: int = 0
    disagreed: int = 0
    disagreements: list[str] = field(default_factory=list)  # the first CASES_KEPT of them
    result_hash: str = ""

    def add(self, other: "Report") -> None:
        """Both together; the hash is that of the parts in their order."""
        self.sessions += other.sessions
        self.tariffs += other.tariffs
        self.broken_tariffs += other.broken_tariffs
        self.pieces += other.pieces
        self.disagreed += other.disagreed
        self.disagreements = (self.disagreements + other.disagreements)[:CASES_KEPT]
        self.result_hash = hashlib.sha256((self.result_hash + other.result_hash).encode()).hexdigest()[:16]

    def line(self) -> str:
        """What was compared so far."""
        return (
            f"{self.sessions:,} sessions, {self.tariffs:,} tariffs, {self.broken_tariffs:,} broken tariffs, "
            f"{self.pieces:,} pieces: {self.disagreed} disagreements"
        )


def compare(
    sessions: int, seed: int, workers: int = 1, tell: Callable[[Report, Report], None] = lambda whole, part: None
) -> Report:
    """Compare at least `sessions` random sessions; the same seed gives the same ones with any number of workers.

    `tell` is called after every chunk with all so far and with the chunk.
    """
    chunks = -(-sessions // (SESSIONS_A_TARIFF * TARIFFS_A_CHUNK))
    report = Report()
    for part in _parts([seed * 1_000_003 + number for number in range(chunks)], workers):
        report.add(part)
        tell(report, part)
    return report


def _parts(seeds: Sequence[int], workers: int) -> Iterator[Report]:
    if workers == 1:
        yield from map(compare_chunk, seeds)
        return
    # What a worker keeps lives as long as it does: collecting it again and again would find nothing.
    with ProcessPoolExecutor(workers, initializer=gc.set_threshold, initargs=(100_000, 50, 50)) as pool:
        yield from pool.map(compare_chunk, seeds)


def compare_chunk(seed: int) -> Report:
    """TARIFFS_A_CHUNK random tariffs, each with its sessions and one broken copy."""
    report = Report()
    digest = hashlib.sha256()
    for number, pair in enumerate(pairs(seed, TARIFFS_A_CHUNK, SESSIONS_A_TARIFF)):
        rated = rate(sheet_of(pair.tariff, pair.zone, pair.version, pair.sessions), pair.sessions)
        report.tariffs += 1
        report.sessions += len(pair.sessions)
        report.broken_tariffs += 1
        for text in (*_disagreements(pair, rated, report), *_misread(pair, seed + number)):
            report.disagreed += 1
            report.disagreements.append(f"chunk seed {seed}, tariff {number}: {text}")
        for column in (
            rated.settled.step,
            rated.settled.cost,
            rated.settled.total_excl_e4,
            rated.settled.total_incl_e4,
        ):
            digest.update(column.tobytes())
    report.disagreements = report.disagreements[:CASES_KEPT]
    report.result_hash = digest.hexdigest()
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


def _disagreements(pair: Pair, rated: Rated, report: Report) -> Iterator[str]:
    tariff = Tariff(pair.tariff, pair.zone, pair.version)
    included = prices_include_taxes(rated)
    for session, pieces, row in zip(pair.sessions, engine_pieces(rated), engine_rows(rated), strict=True):
        bill = settle(tariff, session)
        report.pieces += len(bill.pieces)
        for what, ours, theirs in (*_unlike_pieces(pieces, bill), *_unlike_rows(row, row_of(bill, included))):
            yield _case(pair, session, f"{what}: engine {ours}, oracle {theirs}")
            break


def _case(pair: Pair, session: Session, text: str) -> str:
    case = {"tariff": pair.tariff, "zone": pair.zone, "version": pair.version, "session": session}
    return f"{text}\n  {json.dumps(case, default=lambda value: value.__dict__)}"


# ---------------------------------------------------------------- what is compared

Difference = tuple[str, Any, Any]


class Row(NamedTuple):
    """Everything that settlement says of one session, in whole units; a `Fraction` would equal no whole number."""

    status: int
    steps: tuple[int, ...]  # mWh or ms added, per QUANTITIES
    step_components: tuple[Component | None, ...]
    costs: tuple[int | Fraction, ...]  # cost units in the tariff's own sense, per QUANTITIES and FLAT
    excl_e4: tuple[int, ...]  # the same, rounded, without taxes
    incl_e4: tuple[int, ...]
    total_excl_e4: int | Fraction
    total_incl_e4: int | Fraction
    tax_lines_e4: int | Fraction
    sum_of_rows: int | Fraction  # rated cost + settlement rows = CDR total (design, control totals), in cost units


def prices_include_taxes(rated: Rated) -> bool:
    """Whether exact costs are with taxes."""
    return bool(rated.book.sheets[0, TAX_MODE] == TAX_INCLUDED)


def engine_rows(rated: Rated) -> list[Row]:
    """What the engine says of every session."""
    settled = rated.settled
    components = _components(rated)
    columns = (settled.rated_cost, settled.min_cost, settled.max_cost, settled.rounding_cost)
    parts = zip(*(column.tolist() for column in columns), settled.step_cost.tolist(), strict=True)
    return [
        Row(*row)
        for row in zip(
            settled.status.tolist(),
            map(tuple, settled.step.tolist()),
            [tuple([components[number] for number in numbers]) for numbers in settled.step_component.tolist()],
            map(tuple, settled.cost.tolist()),
            map(tuple, settled.excl_e4.tolist()),
            map(tuple, settled.incl_e4.tolist()),
            settled.total_excl_e4.tolist(),
            settled.total_incl_e4.tolist(),
            map(sum, settled.tax_e4.tolist()),
            [rated_cost + low + high + rounding + sum(steps) for rated_cost, low, high, rounding, steps in parts],
            strict=True,
        )
    ]


def row_of(bill: Bill, included: bool) -> Row:
    """What the oracle says of a session."""
    steps = {step.dimension: step for step in bill.steps}
    amounts = dict(bill.by_dimension)
    if "RESERVATION_FLAT" in amounts:
        amounts["RESERVATION"] = amounts.get("RESERVATION", NOTHING).plus(amounts.pop("RESERVATION_FLAT"))
    stated: list[Amount | None] = [amounts.get(name) for name in (*QUANTITIES, "FLAT")]
    excl_e4, incl_e4 = (_in_units(amount, E4) for amount in bill.total)
    return Row(
        SETTLED,
        tuple([steps[name].quantity if name in steps else 0 for name in QUANTITIES]),
        tuple([steps[name].component if name in steps else None for name in QUANTITIES]),
        tuple([0 if one is None else _in_units(one.incl if included else one.excl, COST_PER_UNIT) for one in stated]),
        tuple([0 if one is None else whole_units(one.excl, 4) for one in stated]),
        tuple([0 if one is None else whole_units(one.incl, 4) for one in stated]),
        excl_e4,
        incl_e4,
        incl_e4 - excl_e4,
        (incl_e4 if included else excl_e4) * COST_PER_E4,
    )


def _in_units(amount: Fraction, per_unit: int) -> int | Fraction:
    """Exactly; a whole number if it is one."""
    whole, rest = divmod(amount.numerator * per_unit, amount.denominator)
    return amount * per_unit if rest else whole


def _components(rated: Rated) -> dict[int, Component | None]:
    return {number: rated.component(number) for number in (FREE, *range(len(rated.book.components)))}


def engine_pieces(rated: Rated) -> list[list[Piece]]:
    """The engine's pieces of every session in the oracle's words."""
    columns = rated.pieces
    components = _components(rated)
    rows = map(
        Piece,
        columns.start_ms.tolist(),
        columns.end_ms.tolist(),
        map(NAMES.__getitem__, columns.state.tolist()),
        columns.energy_mwh.tolist(),
        map(components.__getitem__, columns.energy_component.tolist()),
        map(components.__getitem__, columns.time_component.tolist()),
    )
    pieces = list(rows)
    places = zip(rated.sessions.first_piece.tolist(), rated.sessions.n_pieces.tolist(), strict=True)
    return [pieces[first : first + count] for first, count in places]


def joined(pieces: Sequence[Piece]) -> list[Piece]:
    """Neighbours of equal state and components as one piece."""
    found: list[Piece] = []
    for piece in pieces:
        start, end, state, energy_mwh, *components = piece
        if found:
            last_start, last_end, last_state, last_mwh, *last_components = found[-1]
            if last_end == start and last_state == state and last_components == components:
                found[-1] = Piece(last_start, end, state, last_mwh + energy_mwh, *components)
                continue
        found.append(piece)
    return found


def _unlike_pieces(pieces: Sequence[Piece], bill: Bill) -> Iterator[Difference]:
    if pieces != bill.pieces and (ours := joined(pieces)) != (theirs := joined(bill.pieces)):
        yield "pieces", ours, theirs


def _unlike_rows(ours: Row, theirs: Row) -> Iterator[Difference]:
    if ours != theirs:
        yield from (
            (what, one, other) for what, one, other in zip(Row._fields, ours, theirs, strict=True) if one != other
        )


def differing_pieces(rated: Rated, number: int, bill: Bill) -> Iterator[Difference]:
    """The charging periods, if they are not the same."""
    return _unlike_pieces(rated.pieces_of(number), bill)


def differing_money(rated: Rated, number: int, bill: Bill) -> Iterator[Difference]:
    """Everything that settlement says, if it is not the same."""
    return _unlike_rows(engine_rows(rated)[number], row_of(bill, prices_include_taxes(rated)))


# ---------------------------------------------------------------- the command


class Teller:
    """Disagreements at once on stdout, a line of progress every TELL_EVERY_S on stderr."""

    def __init__(self) -> None:
        self.started = self.told = time.monotonic()

    def __call__(self, whole: Report, part: Report) -> None:
        """After each chunk."""
        if part.disagreements and whole.disagreed - part.disagreed < CASES_KEPT:
            click.echo("\n".join(part.disagreements))
        now = time.monotonic()
        if now - self.told >= TELL_EVERY_S:
            self.told = now
            rate_s = whole.sessions / (now - self.started)
            click.echo(f"{whole.line()}, {rate_s:,.0f} sessions/s", err=True)


def main(arguments: Sequence[str] | None = None) -> int:
    """Exit 1 where engine and oracle disagree."""
    parser = argparse.ArgumentParser(prog="python -m tests.bulk", description=__doc__)
    parser.add_argument("--sessions", type=int, default=10_000_000)
    parser.add_argument("--seed", type=int, default=7)
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 1)
    given = parser.parse_args(arguments)
    tell = Teller()
    report = compare(given.sessions, given.seed, given.workers, tell)
    seconds = time.monotonic() - tell.started
    click.echo(f"{report.line()}, seed {given.seed}, result hash {report.result_hash}, {seconds:,.0f} s")
    return 1 if report.disagreed else 0


if __name__ == "__main__":
    sys.exit(main())
