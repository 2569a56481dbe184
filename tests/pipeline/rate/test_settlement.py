"""Sessions settled together give the CDRs that each would give alone, written out one by one."""

from typing import Final

import numpy as np

from pipeline.metering import kinds
from pipeline.metering.columns import SIGNED_FORGED, SIGNED_VERIFIED
from pipeline.metering.output import PIECE_DTYPE, SESSION_DTYPE
from pipeline.rate.batch import Batch, CdrRow, Place
from pipeline.rate.engine import Engine
from pipeline.rate.rows import line_base
from pipeline.rate.segment import piece_columns
from pipeline.rate.settlement import (
    REGISTERS,
    Closed,
    cdr_location,
    cdr_token,
    remark_of,
    session_id,
    settle_all,
    tariff_document,
)
from pipeline.rate.tables import cdrs
from rating.cdr import Account, CdrFacts, accounts, document, encode, short_id
from rating.columns import FREE
from rating.ratesheet import SHEET
from rating.settle import BEYOND_BOUNDS, Q_ENERGY, Q_PARKING, Q_TIME, Sessions, settle
from tests.pipeline.rate.drive import Drive
from tests.pipeline.rate.test_batches import faulty

SESSIONS: Final = 300
TRANSACTIONS: Final = (b"", b"7", b'"\\', "Zürich".encode(), b"0" * 36)
SIGNED: Final = {"encoding_method": "OCMF", "signed_values": [{"nature": "Start", "plain_data": "ü"}]}


def engine() -> Engine:
    """One that has seen a fleet, and a charge point that nobody published."""
    log, published, _ = faulty(40, 6)
    found = Drive(published, 2).run(log).engine
    found.directory.row(0, "nobody's", 2)
    found.directory.token('Ünï"')
    return found


def closed_sessions(given: Engine, dice: np.random.Generator) -> Closed:
    """Sessions of every kind of its connectors, tariffs and tokens, with pieces of every state."""
    directory, sheets = given.directory, given.sheets
    count = dice.integers(1, 5, SESSIONS)
    pieces = np.zeros(count.sum(), PIECE_DTYPE)
    start_ms = 1_767_625_200_000 + np.arange(len(pieces)) * 60_000
    pieces["start_ms"], pieces["end_ms"] = start_ms, start_ms + dice.integers(0, 60_000, len(pieces))
    pieces["energy_mwh"] = dice.integers(0, 3, len(pieces)) * dice.integers(0, 10_000_000, len(pieces))
    pieces["state"] = dice.integers(0, 4, len(pieces))
    pieces["energy_component"] = pieces["time_component"] = FREE
    sessions = np.zeros(SESSIONS, SESSION_DTYPE)
    sessions["session_key"] = dice.permutation(SESSIONS) + 1
    sessions["first_piece"], sessions["pieces"] = np.cumsum(count) - count, count
    sessions["start_ms"] = pieces["start_ms"][sessions["first_piece"]]
    sessions["end_ms"] = sessions["start_ms"] + 3_600_000
    sessions["connector"] = dice.choice([at for at, name in enumerate(directory.charge_points) if name], SESSIONS)
    sessions["connector"][:3] = directory.find("nobody's", 2)
    sessions["token"] = dice.integers(-1, len(directory.tokens), SESSIONS)
    sessions["sheet"] = dice.integers(0, len(sheets.builder.sources), SESSIONS)
    sessions["held_mwh"] = dice.choice([0, 0, 1_234_567], SESSIONS)
    sessions["hold"] = dice.choice([kinds.HOLD_NONE, kinds.HOLD_NONE, kinds.HOLD_REGISTER_JUMP], SESSIONS)
    sessions["signed"] = dice.choice([0, SIGNED_VERIFIED, SIGNED_FORGED], SESSIONS)
    sessions["flat"] = sessions["flat_reserved"] = sessions["flat_expired"] = FREE
    sessions["readings"], sessions["flags"] = dice.integers(1, 99, SESSIONS), dice.integers(0, 8, SESSIONS)
    for at, sheet in enumerate(sessions["sheet"].tolist()):
        priced = [*np.flatnonzero(sheets.book.components[:, SHEET] == sheet).tolist(), FREE]
        own = slice(sessions["first_piece"][at], sessions["first_piece"][at] + count[at])
        for name in ("energy_component", "time_component"):
            pieces[name][own] = dice.choice(priced, count[at])
    sessions["pieces"][-1] = 1
    pieces["energy_mwh"][sessions["first_piece"][-1]] = 2**62  # beyond all bounds
    return Closed(
        sessions, pieces, dice.integers(0, 1_000, SESSIONS), line_base(dice.integers(0, 3, SESSIONS)),
        dice.integers(0, 2, SESSIONS), [TRANSACTIONS[at] for at in dice.integers(0, len(TRANSACTIONS), SESSIONS)],
        sessions["end_ms"] + dice.integers(0, 2_000, SESSIONS),
        [SIGNED if signed and at % 2 else None for at, signed in enumerate(sessions["signed"])],
    )  # fmt: skip


def one_by_one(closed: Closed, given: Engine) -> list[CdrRow | None]:
    """Each session's CDR from an object of its own."""
    fields = ("sheet", "first_piece", "pieces", "flat", "flat_reserved", "flat_expired")
    columns = [np.ascontiguousarray(closed.sessions[name]) for name in fields]
    columns[1], columns[2] = columns[1].astype(np.int64), columns[2].astype(np.int64)
    sessions, pieces = Sessions(*columns), piece_columns(closed.pieces)
    settled = settle(given.sheets.book, sessions, pieces)
    every = accounts(given.sheets.book, pieces, sessions, settled)
    return [
        None if settled.status[at] == BEYOND_BOUNDS else one(closed, at, account, given)
        for at, account in enumerate(every)
    ]


def one(closed: Closed, at: int, account: Account, given: Engine) -> CdrRow:
    """The CDR of one session."""
    session, directory = closed.sessions[at], given.directory
    row = int(session["connector"])
    name, connector_id = directory.charge_points[row], int(directory.state.connectors["connector_id"][row])
    source = given.sheets.builder.sources[int(session["sheet"])]
    data = given.sheets.data(int(source.key.rpartition("@")[2]))
    tariff, token = source.tariff, directory.token_text(int(session["token"]))
    found = data.charge_points.get(name)
    location = cdr_location(data.locations[str(found)].body, name, connector_id) if found else {}
    transaction = closed.transaction_ids[at].decode()
    cdr_id, start_ms, end_ms = (
        session_id(name, connector_id, int(session["start_ms"]), transaction),
        int(session["start_ms"]),
        int(session["end_ms"]),
    )
    settled_ms = int(closed.settled_ms[at])
    facts = CdrFacts(
        country_code=tariff.country_code, party_id=tariff.party_id, id=short_id(cdr_id), start_ms=start_ms,
        end_ms=end_ms, session_id=short_id(cdr_id), cdr_token=cdr_token(token, tariff.country_code, tariff.party_id),
        auth_method="WHITELIST", cdr_location=location, currency=tariff.currency,
        tariffs=[tariff_document(data, source.key)], tariff_id=tariff.id,
        last_updated_ms=settled_ms, signed_data=closed.signed[at], remark=remark_of(session),
    )  # fmt: skip
    columns: dict[str, object] = {
        "cdr_id": cdr_id, "revision": 1, "credit": 0, "transaction_id": transaction, "id_token": token,
        "location_id": location.get("id", ""), "start_ms": start_ms, "end_ms": end_ms, "settled_ms": settled_ms,
        "tariff": source.key, "currency": tariff.currency, "energy_mwh": account.metered[Q_ENERGY],
        "charging_ms": account.metered[Q_TIME], "parking_ms": account.metered[Q_PARKING],
        "held_mwh": int(session["held_mwh"]), "held_reason": kinds.HOLD_REASONS[int(session["hold"])],
        "rated_cost": account.rated_cost, "total_excl_e4": account.total_excl_e4,
        "total_incl_e4": account.total_incl_e4, "readings": int(session["readings"]),
        "signed": int(session["signed"]), "flags": int(session["flags"]),
        **{name: int(session[name]) for name in REGISTERS},
        "document": encode(document(account, facts, "2.2.1")),
    }  # fmt: skip
    place = Place(
        int(closed.partitions[at]), int(closed.offsets[at]), int(closed.bases[at]), row, int(session["session_key"]),
        name, connector_id,
    )  # fmt: skip
    return CdrRow(place, columns)


def test_sessions_settled_together_give_the_cdrs_that_each_would_give_alone() -> None:
    given = engine()
    closed = closed_sessions(given, np.random.default_rng(7))
    alone = one_by_one(closed, given)
    found = settle_all(closed, given.sheets, given.directory).cdrs
    bulk = [found.at(number) for number in range(len(found.places.line))]
    assert alone[-1] is None
    assert bulk == [cdr for cdr in alone if cdr is not None]
    written = str([cdr.columns["document"] for cdr in bulk])
    for told in ("kWh not billed", "signature does not match", "signed_data", '"uid":"UNKNOWN"', '"cdr_location":{}'):
        assert told in written, told


def test_a_batch_knows_the_last_cdr_of_a_session_however_it_was_written() -> None:
    given = engine()
    found = settle_all(closed_sessions(given, np.random.default_rng(8)), given.sheets, given.directory).cdrs
    batch, (place, columns) = Batch(), found.at(3)
    batch.add_cdrs(found)
    batch.add_cdr(place, {**columns, "revision": 2})
    batch.add_cdrs(found)
    lines = [
        cdr.place.line for cdr in batch.cdrs if cdr.place[:2] == place[:2] and cdr.place.line >> 32 == place.line >> 32
    ]
    assert lines == [place.line + at for at in range(len(lines))]
    assert batch.last_cdr(place.session_key) == batch.cdrs[len(found.places.line) + 1 + 3]
    batch.add_cdr(place, {**columns, "revision": 3})
    last = batch.last_cdr(place.session_key)
    assert last is not None
    assert last.columns["revision"] == 3
    assert batch.last_cdr(0) is None


def test_the_tables_of_cdrs_are_their_rows_however_they_were_written() -> None:
    given = engine()
    found = settle_all(closed_sessions(given, np.random.default_rng(9)), given.sheets, given.directory).cdrs
    batch = Batch()
    for _ in range(2):
        batch.add_cdrs(found)
        for number in range(0, 9, 3):
            batch.add_cdr(*found.at(number))
    table = cdrs(batch, 5, {0: 1, 1: 2}).to_pylist()
    told = [
        (row["partition"], row["offset"], row["line"], row["session_key"], row["cdr_id"], row["document"])
        for row in table
    ]
    rows = [
        (*cdr.place[:3], cdr.place.session_key, cdr.columns["cdr_id"], cdr.columns["document"]) for cdr in batch.cdrs
    ]
    assert told == rows
    assert {row["claim"] for row in table} == {1, 2}
