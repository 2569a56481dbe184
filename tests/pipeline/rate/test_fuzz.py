"""Seeded fuzzing of the whole engine: what still decodes after it was bent is metered, rated and accounted for."""

from typing import Any

import pytest

from pipeline.codec.control import Reference
from pipeline.rate.batch import OUTCOMES
from tests.pipeline.codec.payloads import POINT
from tests.pipeline.codec.test_fuzz import batches
from tests.pipeline.metering.charger import location
from tests.pipeline.rate.drive import Drive, changes, control

RECORDS = 400
DAY_AND_NIGHT: dict[str, Any] = {
    "country_code": "DE", "party_id": "WRT", "id": "T", "currency": "EUR", "last_updated": "2026-01-01T00:00:00Z",
    "elements": [
        {"price_components": [{"type": "ENERGY", "price": 0.5, "step_size": 1}],
         "restrictions": {"start_time": "08:00", "end_time": "20:00"}},
        {"price_components": [{"type": "ENERGY", "price": 0.3, "step_size": 1},
                              {"type": "PARKING_TIME", "price": 6, "step_size": 60}]},
    ],
}  # fmt: skip


def site() -> dict[str, Any]:
    """The charge point that the bent messages come from."""
    known = location()
    known["evses"] = [
        {**evse, "uid": f"{POINT}-{n}", "charge_point_id": POINT} for n, evse in enumerate(known["evses"])
    ]
    return known


@pytest.mark.parametrize("seed", range(8))
def test_every_bent_record_has_one_outcome(seed: int) -> None:
    drive = Drive(changes({"tariffs": [DAY_AND_NIGHT], "locations": [site()]}))
    (given,) = batches(RECORDS, seed)
    kinds = given.content_types or [None] * RECORDS
    start_ms = 1_767_600_000_000
    records = [
        (key, value, kind, start_ms + 1000 * at)
        for at, (key, value, kind) in enumerate(zip(given.keys, given.values, kinds, strict=True))
    ]
    drive.run({0: [control(Reference(1), start_ms), *records]}, 100)
    ended = dict.fromkeys(OUTCOMES, 0)
    for batch in drive.ledger.batches:
        for share in batch.shares.values():
            for code, count in share.outcomes.items():
                ended[OUTCOMES[code]] += count
    assert sum(ended.values()) == RECORDS + 1
    assert ended["used"] > 0
    assert len(drive.ledger.dead) == ended["dead_lettered"]
