"""What the worker tells watch of sessions: starts while they run, stops when they end or are held, the same again."""

from collections import Counter
from pathlib import Path

import msgspec

from pipeline import topics
from pipeline.anomaly.events import AlertEvent, SessionEvent, alert_decoder, session_decoder
from pipeline.anomaly.tokens import TokenLimits, TokenState, observe
from pipeline.clickhouse import Store
from pipeline.kafka import Admin, Reader
from pipeline.logwriter import write
from pipeline.rate.worker import Worker
from pipeline.settings import Settings
from pipeline.simulate.fleet import Fleet, FleetPlan
from tests.faults.rig import publish

FAULTS = {"token_two_sites": 0.2, "stuck_register": 0.1, "forged_signature": 0.05, "start_lost": 0.05, "gap": 0.05}


def rate(settings: Settings) -> None:
    Worker.connect(settings, wait=lambda: True).run(drain_s=1.0)


def read(settings: Settings, topic: str) -> list[bytes]:
    """Every record of a topic, partition after partition."""
    admin = Admin(settings)
    ends = admin.end_offsets(topic)
    found: list[tuple[int, int, bytes]] = []
    with Reader(settings, topic) as reader:
        reader.assign(admin.start_offsets(topic))
        while len(found) < sum(ends.values()):
            found += [(m.partition() or 0, m.offset() or 0, m.value() or b"") for m in reader.consume(1000, 0.2)]
    return [value for _, _, value in sorted(found)]


def events_of(settings: Settings) -> list[SessionEvent]:
    return [session_decoder.decode(value) for value in read(settings, topics.SESSION_EVENTS)]


def test_starts_and_stops_are_told_with_their_place_and_told_again_alike_after_a_crash(
    ready: Settings, tmp_path: Path
) -> None:
    fleet = Fleet(FleetPlan(seed=4, charge_points=60, hours=10.0, sample_ms=300_000, partitions=4, faults=FAULTS))
    publish(ready, fleet, tmp_path / "reference")
    truth = [row for chunk in fleet.chunks() if write(ready, [chunk.batch]) for row in chunk.truth.to_pylist()]
    rate(ready)
    events, alerts = events_of(ready), read(ready, topics.ALERTS)
    kinds = Counter(event.event for event in events)
    with Store(ready) as store:
        cdrs = store.scalar("SELECT count() FROM cdrs WHERE credit = 0")
        held = store.scalar("SELECT uniqExact(session_key) FROM quarantine WHERE action = 'held'")
    assert kinds["stop"] == cdrs + held
    assert held > 0
    assert {e.session_key for e in events if e.event == "stop"} <= {e.session_key for e in events if e.event == "start"}
    assert all(e.latitude and e.longitude and e.location_id for e in events)
    conflicts = found_by_rule(events)
    shared = {one["charge_point_id"] for one in truth if one["fault"] == "token_two_sites"}
    assert shared
    assert shared <= {place for pair in conflicts for place in pair}

    with Store(ready) as store:
        store.command("TRUNCATE TABLE published_rows")  # as if it had died between marker and topic
    rate(ready)
    assert Counter(map(_identity, events_of(ready))) == Counter({_identity(e): 2 for e in events})
    again = Counter(_step(value) for value in read(ready, topics.ALERTS))
    assert again == Counter({_step(value): 2 for value in alerts})


def found_by_rule(events: list[SessionEvent]) -> set[tuple[str, str]]:
    """Charge points of sessions that share a token, as the rule finds them in these events."""
    state, limits = TokenState(), TokenLimits()
    found: set[tuple[str, str]] = set()
    for event in events:
        for conflict in observe(state, event, limits):
            (found.add if conflict.found else found.discard)(
                (conflict.first.charge_point_id, conflict.second.charge_point_id)
            )
    return found


def _identity(event: SessionEvent) -> bytes:
    return msgspec.json.encode(event)


def _step(value: bytes) -> str:
    alert: AlertEvent = alert_decoder.decode(value)
    return alert.event_id + alert.severity
