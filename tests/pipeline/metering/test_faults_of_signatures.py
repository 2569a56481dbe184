"""Signed values (OCMF) beside plain ones: the signed one is billed; verified, unverifiable, forged are three things."""

from typing import Any

import msgspec
import pytest

from pipeline.metering.columns import SIGNED_FORGED, SIGNED_UNVERIFIABLE, SIGNED_VERIFIED
from pipeline.metering.signed import Verifier
from pipeline.reference import LOCATION, Change
from pipeline.simulate.signing import public_key, signed_value
from tests.pipeline.metering.charger import NAME, Charger, Found, at, location, stamp
from tests.pipeline.rate.drive import Drive

KWH = 1_000_000


def signed(register_wh: int, minute: float, *, forged: bool = False) -> list[dict[str, Any]]:
    """A signed register, and a plain one that was labelled Wh and means kWh."""
    data = signed_value(NAME.encode(), stamp(at(minute)).encode(), register_wh * 1000, forged=forged)
    register = {"measurand": "Energy.Active.Import.Register", "unit": "Wh"}
    return [
        {"value": data.decode(), "format": "SignedData", **register},
        {"value": str(register_wh / 1000), **register},
    ]


def story(key: str, *, forged: bool = False) -> Charger:
    charger = Charger(meter_public_key=key).start(0, 1_000)
    return charger.values(5, signed(1_500, 5, forged=forged)).stop(10, 2_000)


def test_a_signed_value_beside_a_plain_one_in_another_unit_is_billed_and_verified() -> None:
    said = story(public_key(NAME.encode())).rated()
    assert said.found == Found([KWH], "first good good", {"used": 3})
    assert said.ledger.cdrs[-1].columns["signed"] == SIGNED_VERIFIED


def test_a_signed_value_whose_key_nobody_knows_is_billed_as_unverifiable() -> None:
    said = story("").rated()
    assert said.found == Found([KWH], "first good good", {"used": 3})
    assert said.ledger.cdrs[-1].columns["signed"] == SIGNED_UNVERIFIABLE


def test_a_forged_signature_holds_the_session() -> None:
    said = story(public_key(NAME.encode()), forged=True).rated()
    assert said.found == Found(
        [], "first good good", {"used": 3}, held=("forged_signature",), alerts=("forged_signature",)
    )


@pytest.mark.parametrize(("action", "energy_mwh"), [("release", KWH), ("reject", 0)])
def test_a_forged_session_is_billed_when_a_person_says_so(action: str, energy_mwh: int) -> None:
    charger = story(public_key(NAME.encode()), forged=True)
    (key,) = charger.rated().held
    assert charger.decide(30, action, key).rated().bills == [energy_mwh]


def test_signatures_that_other_processes_verify_make_the_same_rows() -> None:
    name = NAME.encode()
    other = Change(2, LOCATION, "DE*WRT*L", False, msgspec.json.encode(location(meter_public_key=public_key(b"other"))))
    box = Charger(meter_public_key=public_key(name)).start(0, 1_000).values(5, signed(1_500, 5))
    box = box.publish(6, 2, other).values(7, signed(1_600, 7)).values(8, signed(1_700, 8, forged=True)).stop(10, 2_000)
    alone = Drive(box.reference).keep_rows().run({0: box.records})
    with Verifier(1) as verifier:
        ahead = Drive(box.reference, verifier=verifier).keep_rows().run({0: box.records}, 3)
    assert ahead.rows == alone.rows
    assert alone.rows is not None
    assert [row["signed"] for row in alone.rows["reading_rows"]] == [0, SIGNED_VERIFIED, *[SIGNED_FORGED] * 2, 0]
