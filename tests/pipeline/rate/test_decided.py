"""What people, time and reference data decide about held usage; the CDR names what it leaves out."""

from typing import Any

import msgspec
import pytest

from pipeline.reference import TOKEN, Change
from tests.pipeline.metering.charger import TARIFF_16, Charger, location, tariff_change
from tests.pipeline.rate.drive import changes

KWH = 1_000_000
DAY = 24 * 60


def jumped() -> Charger:
    """1 kWh told well, and 500 kWh that no connector of 11 kW delivers in five minutes."""
    return Charger().start(0, 910_000).value(30, 911_000).stop(35, 1_411_000)


def remark(cdr: Any) -> str:
    document = msgspec.json.decode(cdr.columns["document"])
    return str(document.get("remark", ""))


def test_a_rejected_session_is_billed_without_what_was_held_and_names_it() -> None:
    (key,) = jumped().rated().held
    said = jumped().decide(60, "reject", key).rated()
    assert (said.bills, said.held) == ([KWH], {})
    assert said.quarantine == [("held", "register_jump"), ("rejected", "register_jump")]
    (cdr,) = said.ledger.cdrs
    assert (cdr.columns["held_mwh"], cdr.columns["held_reason"]) == (500 * KWH, "register_jump")
    assert remark(cdr) == "500.000 kWh not billed: register_jump"


def test_a_released_session_is_billed_with_it() -> None:
    (key,) = jumped().rated().held
    said = jumped().decide(60, "release", key).rated()
    assert (said.bills, said.held) == ([501 * KWH], {})
    assert remark(said.ledger.cdrs[0]) == ""


def test_a_held_session_settles_at_the_hold_limit_without_what_was_held() -> None:
    story = jumped().tick(29 * DAY)
    assert list(story.rated().held.values()) == ["register_jump"]
    said = story.tick(31 * DAY).rated()
    assert (said.bills, said.held) == ([KWH], {})
    assert said.quarantine[-1] == ("expired", "register_jump")
    assert remark(said.ledger.cdrs[0]) == "500.000 kWh not billed: register_jump"


def test_a_decision_about_what_is_not_held_changes_nothing() -> None:
    said = Charger().start(0, 1_000).stop(10, 2_000).decide(20, "release", 4711).decide(21, "reject", 4711).rated()
    assert (said.bills, said.quarantine) == ([KWH], [])


def test_a_decision_told_twice_bills_once() -> None:
    (key,) = jumped().rated().held
    said = jumped().decide(60, "release", key).decide(61, "reject", key).decide(62, "release", key).rated()
    assert said.bills == [501 * KWH]
    assert len(said.ledger.cdrs) == 1


@pytest.mark.parametrize(("action", "energy_mwh"), [("release", 501 * KWH), ("reject", KWH)])
def test_a_reading_that_comes_after_the_decision_asks_for_another(action: str, energy_mwh: int) -> None:
    (key,) = jumped().rated().held
    story = jumped().decide(60, action, key).value(20, 910_800, late=60)
    said = story.rated()
    chain = [(c.columns["revision"], c.columns["credit"], c.columns["energy_mwh"]) for c in said.ledger.cdrs]
    assert chain == [(1, 0, energy_mwh), (2, 1, -energy_mwh)]
    assert list(said.held.values()) == ["register_jump"]
    for size in (0, 1):
        again = story.decide(90, "release", key).rated(size)
        revisions = [(c.columns["revision"], c.columns["credit"]) for c in again.ledger.cdrs]
        assert (again.bills, revisions) == ([501 * KWH], [(1, 0), (2, 1), (3, 0)])


def without_tariff(tariff: str = "LATER") -> Charger:
    """A charge point whose tariff was never published."""
    return Charger(tariff_id=tariff).start(0, 1_000).value(5, 1_500).stop(10, 2_000)


def test_a_session_without_a_tariff_is_held_and_billed_when_the_tariff_comes() -> None:
    story = without_tariff()
    waiting = story.rated()
    assert (waiting.bills, list(waiting.held.values())) == ([], ["unknown_tariff"])
    assert waiting.alerts == {"unknown_reference"}
    said = story.publish(60, 2, tariff_change(2, {**TARIFF_16, "id": "LATER"})).rated()
    assert (said.bills, said.held) == ([KWH], {})
    assert said.quarantine[-1] == ("released", "unknown_tariff")


def test_what_jumped_in_a_session_without_a_tariff_is_held_with_the_rest() -> None:
    story = Charger(tariff_id="LATER").start(0, 1_000).value(10, 2_000).value(20, 302_000).value(30, 303_000)
    said = story.stop(40, 304_000).rated()
    assert [row.held_mwh for row in said.ledger.quarantine] == [303 * KWH]


def test_an_open_session_without_a_tariff_is_rated_from_its_start_when_the_tariff_comes() -> None:
    story = Charger(tariff_id="LATER").start(0, 1_000).value(5, 1_500)
    story.publish(6, 2, tariff_change(2, {**TARIFF_16, "id": "LATER"}))
    said = story.value(8, 1_800).stop(10, 2_000).rated()
    assert (said.bills, said.held) == ([KWH], {})


def test_a_charge_point_that_nobody_knew_is_billed_when_its_location_comes() -> None:
    story = Charger(name="CP9").start(0, 1_000).stop(10, 2_000)
    assert list(story.rated().held.values()) == ["unknown_tariff"]
    site = location()
    site["id"], site["evses"] = "L9", [{**site["evses"][0], "uid": "CP9-1", "charge_point_id": "CP9"}]
    said = story.publish(60, 2, *changes({"locations": [site]}, 2)).rated()
    assert (said.bills, said.held) == ([KWH], {})


def test_a_tokens_own_tariff_wins_over_the_connectors() -> None:
    dear = {**TARIFF_16, "id": "DEAR"}
    dear["elements"] = [{"price_components": [{"type": "ENERGY", "price": 0.9, "step_size": 1}]}]
    token = {"country_code": "DE", "party_id": "WRT", "uid": "T1", "tariff_id": "DEAR"}
    story = Charger().start(0, 1_000).stop(10, 2_000).start(20, 2_000, txn="8", tag="T2").stop(30, 3_000, txn=8)
    story.reference += [tariff_change(1, dear), Change(1, TOKEN, "DE*WRT*T1", False, msgspec.json.encode(token))]
    said = story.rated()
    assert [cdr.columns["total_excl_e4"] for cdr in said.ledger.cdrs] == [9_000, 3_000]
    assert [cdr.columns["tariff"] for cdr in said.ledger.cdrs] == ["DE*WRT*DEAR@1", "DE*WRT*T@1"]


def test_a_new_price_is_paid_by_sessions_that_start_after_it_and_by_no_other() -> None:
    dear = {**TARIFF_16, "elements": [{"price_components": [{"type": "ENERGY", "price": 0.6, "step_size": 1}]}]}
    story = Charger().start(0, 1_000).value(5, 1_500).publish(6, 2, tariff_change(2, dear))
    story.value(8, 1_800).stop(10, 2_000).start(20, 2_000, txn="8").value(25, 2_500, txn=8).stop(30, 3_000, txn=8)
    for size in (0, 1):
        cdrs = story.rated(size).ledger.cdrs
        assert [(cdr.columns["tariff"], cdr.columns["total_incl_e4"]) for cdr in cdrs] == [
            ("DE*WRT*T@1", 3_000), ("DE*WRT*T@2", 6_000),
        ]  # fmt: skip
