"""Documents written in bulk are, byte for byte, those written one by one."""

from typing import Any, NamedTuple

import numpy as np
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from rating.cdr import Account, CdrFacts, Period, Periods, document, encode
from rating.cdr_bytes import (
    FIRST_TEXT,
    NOTHING,
    Documents,
    Told,
    documents,
    documents_joined,
    documents_of,
    member_text,
    owner_text,
    place_text,
    tariffs_text,
    texts,
)
from rating.columns import CHARGING, PARKING, RESERVATION, RESERVATION_EXPIRED
from rating.errors import SessionError
from rating.settle import CATEGORIES, QUANTITIES, Settled, empty_settled

MOST = 2**62  # of an amount; what metering sums up stays below it
FIRST_MS, LAST_MS = -62_135_596_800_000, 253_402_300_799_999

texts_of_people = st.text(max_size=12) | st.sampled_from(
    ['"', "\\", "a\nb\tc\x00\x1f\x7f", "Zürich*1", "充电", "🔌", "\u2028", "</script>"]
)
objects = st.dictionaries(texts_of_people, texts_of_people | st.integers(-5, 5) | st.none(), max_size=3)
amounts = st.integers(-MOST, MOST) | st.integers(-30_000, 30_000) | st.sampled_from([0, 1, -1, 9_999, 10_000, -10_100])
quantities = st.integers(0, 2**40) | st.sampled_from([0, 49, 50, 179, 180])
instants = st.integers(FIRST_MS, LAST_MS) | st.integers(1_760_000_000_000, 1_790_000_000_000)
states = st.sampled_from([CHARGING, PARKING, RESERVATION, RESERVATION_EXPIRED])
period = st.builds(Period, instants, states, quantities, quantities)


class One(NamedTuple):
    """A settled session, and what its CDR says beside."""

    facts: CdrFacts
    account: Account


def several(of: st.SearchStrategy[int], count: int) -> st.SearchStrategy[list[int]]:
    return st.lists(of, min_size=count, max_size=count)


@st.composite
def sessions(draw: st.DrawFn) -> One:
    name = draw(texts_of_people)
    facts = CdrFacts(
        country_code=draw(texts_of_people), party_id=draw(texts_of_people), id=name, start_ms=draw(instants),
        end_ms=draw(instants), session_id=name, cdr_token=draw(objects), auth_method=draw(texts_of_people),
        cdr_location=draw(objects), currency=draw(texts_of_people), tariffs=draw(st.lists(objects, max_size=2)),
        tariff_id=draw(texts_of_people), last_updated_ms=draw(instants), signed_data=draw(st.none() | objects),
        remark=draw(st.none() | texts_of_people),
    )  # fmt: skip
    account = Account(
        rates_e4=[], periods=draw(st.lists(period, min_size=1, max_size=6)),
        metered=draw(several(quantities, QUANTITIES)), priced=draw(several(quantities, QUANTITIES)),
        cost=draw(several(amounts, CATEGORIES)), excl_e4=draw(several(amounts, CATEGORIES)),
        incl_e4=draw(several(amounts, CATEGORIES)), tax_e4=[], total_excl_e4=draw(amounts),
        total_incl_e4=draw(amounts), rated_cost=0,
    )  # fmt: skip
    return One(facts, account)


def settled_of(found: list[One]) -> Settled:
    settled = empty_settled(len(found))
    for name in ("metered", "priced", "cost", "excl_e4", "incl_e4", "total_excl_e4", "total_incl_e4"):
        column = getattr(settled, name)
        for row, one in enumerate(found):
            column[row] = getattr(one.account, name)
    return settled


def periods_of(found: list[One]) -> Periods:
    every = [period for one in found for period in one.account.periods]
    columns = [np.array(column, np.int64) for column in zip(*every, strict=True)] if every else [np.zeros(0, int)] * 4
    ends = np.cumsum([len(one.account.periods) for one in found])
    return Periods(columns[0], columns[1].astype(np.int8), columns[2], columns[3], ends)


def written(found: list[One], which: list[int]) -> Documents:
    """The documents of some sessions."""
    told: list[bytes] = []

    def number(text: bytes) -> int:
        told.append(text)
        return FIRST_TEXT + len(told) - 1

    def member(name: str, value: Any) -> int:
        return NOTHING if value is None else number(member_text(name, value))

    rows = []
    for at in which:
        f = found[at].facts
        rows.append((
            at, number(owner_text(f.country_code, f.party_id)), number(encode(f.id)), number(encode(f.cdr_token)),
            number(place_text(f.auth_method, f.cdr_location)), number(tariffs_text(f.currency, f.tariffs)),
            number(encode(f.tariff_id)), member("signed_data", f.signed_data), member("remark", f.remark),
            f.start_ms, f.end_ms, f.last_updated_ms,
        ))  # fmt: skip
    columns = [np.array(column, np.int64) for column in zip(*rows, strict=True)] if rows else [np.zeros(0, int)] * 12
    return documents(texts(told), Told(*columns), periods_of(found), settled_of(found))


def alone(one: One) -> bytes:
    return encode(document(one.account, one.facts, "2.2.1"))


def one_of(periods: list[Period], amount_e4: int, instant_ms: int, **facts: Any) -> One:
    """A session in which every amount is the same."""
    said = {"id": "CP1*7", "session_id": "CP1*7", "signed_data": None, "remark": None} | facts
    return One(
        CdrFacts(
            country_code="DE", party_id="WRT", start_ms=instant_ms, end_ms=instant_ms, cdr_token={},
            auth_method="WHITELIST", cdr_location={}, currency="EUR", tariffs=[], tariff_id="T",
            last_updated_ms=instant_ms, **said,
        ),
        Account([], periods, [1] * 4, [0] * 4, [1] * 5, [amount_e4] * 5, [amount_e4] * 5, [], amount_e4, amount_e4, 0),
    )  # fmt: skip


PERIOD = Period(0, CHARGING, 1_000_000, 3_600_000)


@settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])  # the first one compiles
@given(st.lists(sessions(), max_size=4), st.data())
@example([one_of([PERIOD], -(2**63), FIRST_MS)], None)
@example([one_of([PERIOD] * 40, 2**63 - 1, LAST_MS, remark="", signed_data={})], None)
def test_documents_written_in_bulk_are_those_written_one_by_one(found: list[One], data: st.DataObject | None) -> None:
    indices = list(range(len(found)))
    which = data.draw(st.lists(st.sampled_from(indices), unique=True)) if data and indices else indices
    bulk = written(found, which)
    assert [bulk.at(row) for row in range(len(which))] == [alone(found[at]) for at in which]
    assert len(bulk.text) == sum(len(alone(found[at])) for at in which)


@given(st.lists(st.lists(st.binary(max_size=5)), min_size=1))
def test_documents_stay_apart_when_they_are_joined(parts: list[list[bytes]]) -> None:
    joined = documents_joined([documents_of(part) for part in parts])
    every = [one for part in parts for one in part]
    assert [joined.at(row) for row in range(len(joined.ends))] == every


def test_a_session_in_which_nothing_was_rated_has_no_document() -> None:
    with pytest.raises(SessionError, match="charging period"):
        written([one_of([PERIOD], 1, 0), one_of([], 1, 0)], [0, 1])


@pytest.mark.parametrize("instant_ms", [FIRST_MS - 1, LAST_MS + 1])
def test_an_instant_that_cannot_be_written_is_refused(instant_ms: int) -> None:
    with pytest.raises(SessionError, match="years"):
        written([one_of([PERIOD], 1, instant_ms)], [0])
