"""One record at a time, decoded by the scanner and by its twin."""

from typing import Any

from pipeline.codec.records import Decoded
from tests.pipeline.codec.agreement import assert_twins_agree
from tests.pipeline.codec.payloads import START_MS, envelope, records

RECEIVED_MS = START_MS + 1_250
REGISTER = "Energy.Active.Import.Register"


def decoded(value: Any, **given: Any) -> Decoded:
    """One record, decoded by both ways, which agree."""
    return assert_twins_agree(records(value)._replace(**given))


def sample(value: Any, **given: Any) -> Any:
    """The one sample of a record."""
    found = decoded(value, **given)
    assert len(found.samples) == 1, found.dead
    return found.samples[0]


def reason(value: Any, **given: Any) -> str:
    """Why a record is dead."""
    found = decoded(value, **given)
    assert len(found.samples) == 0
    return found.dead[0].reason


def flags_of(row: Any) -> int:
    return int(row["flags"])


def values16(*sampled: dict[str, Any], time: Any = "2026-01-01T00:00:00Z", **payload: Any) -> dict[str, Any]:
    entries = [{"timestamp": time, "sampledValue": list(sampled)}]
    return envelope("1.6", "MeterValues", {"connectorId": 1, "transactionId": 4711, "meterValue": entries, **payload})
