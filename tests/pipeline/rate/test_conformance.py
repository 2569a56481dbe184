"""The conformance cases of OCPI, streamed as readings through the worker's engine: the totals of `wattrate price`."""

from itertools import pairwise
from typing import Any

import msgspec
import pytest

from pipeline.codec.control import Reference
from pipeline.metering.policy import MeteringPolicy
from rating.cases import price_case, read_session
from rating.columns import CHARGING, PARKING
from rating.money import e4_text
from rating.policy import EXACT_TOTALS
from rating.session import Session
from tests.pipeline.metering.charger import location, stamp
from tests.pipeline.rate.drive import Drive, Record, changes, control
from tests.rating.test_conformance import cases

STATES = {CHARGING: "Charging", PARKING: "SuspendedEV"}
_BASE_MWH = 5_000_000_000
# A nominal case may charge 20 kWh in an instant or stand for days: nothing of it is to be held.
BELIEVES = MeteringPolicy(jump_slack_mwh=10**12, idle_overstay_ms=10**12, stuck_mwh=10**15)


def streamable() -> list[Any]:
    """Tiers A and B whose session is one of readings: no reservation, no change between two of them, no overlap."""
    chosen = [case for case in cases() if case["tier"] in "AB" and case["session"] and _is_stream(case)]
    return [pytest.param(case, id=case["id"]) for case in chosen]


def _is_stream(case: dict[str, Any]) -> bool:
    if "error" in price_case(case) or case.get("other_tariffs"):
        return False
    session = read_session(case["session"])
    tiles = all(one[1] == after[0] for one, after in pairwise(session.intervals))
    turns = {turn for start, end, _ in session.intervals for turn in (start, end)}
    return tiles and all(mark.state in STATES and mark.start_ms in turns for mark in session.marks)


def readings(session: Session) -> list[Record]:
    """The session as flat readings: a register at each turn, with what holds from there on."""
    first_ms, last_ms = session.intervals[0][0], session.intervals[-1][1]
    registers = {first_ms: _BASE_MWH}
    for _, end_ms, energy_mwh in session.intervals:
        registers[end_ms] = max(registers.values()) + energy_mwh
    marks = {mark.start_ms: mark for mark in session.marks}
    records = [control(Reference(1), first_ms)]
    for time_ms, register_mwh in sorted(registers.items()):
        said: dict[str, Any] = {
            "charge_point_id": "CP1", "connector_id": 1, "transaction_id": "9", "timestamp": stamp(time_ms),
            "energy_wh": register_mwh / 1000, "received_at": stamp(time_ms),
            "event": "start" if time_ms == first_ms else "stop" if time_ms == last_ms else "sample",
        }  # fmt: skip
        if mark := marks.get(time_ms):
            said["state"] = STATES[mark.state]
            said |= {"power_w": mark.power_mw / 1000} if mark.power_mw >= 0 else {}
            said |= {"current_a": mark.current_ma / 1000} if mark.current_ma >= 0 else {}
        records.append((b"CP1", msgspec.json.encode(said), None, time_ms))
    return records


@pytest.mark.parametrize("case", streamable())
def test_streamed_readings_cost_what_wattrate_price_says(case: dict[str, Any]) -> None:
    tariff = {"country_code": "DE", "party_id": "WRT", **case["tariff"]}
    site = {**location(tariff["id"]), "time_zone": case["timezone"]}
    site |= {"country_code": tariff["country_code"], "party_id": tariff["party_id"]}
    for evse in site["evses"]:
        evse["connectors"][0].pop("max_electric_power", None)
    published = changes({"tariffs": [tariff], "locations": [site]})
    drive = Drive(published, policy=EXACT_TOTALS, metering=BELIEVES).run({0: readings(read_session(case["session"]))})
    (cdr,) = drive.ledger.cdrs
    priced = price_case(case)
    ours = [cdr.columns[name] for name in ("total_excl_e4", "total_incl_e4")]
    assert [e4_text(int(str(total))) for total in ours] == [
        priced["total_cost_excl_vat"],
        priced["total_cost_incl_vat"],
    ]


def test_most_cases_can_be_streamed() -> None:
    assert len(streamable()) >= 45
