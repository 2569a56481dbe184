"""Poison at 1 %: isolated and counted, its neighbours rated as if it were not there, never a crash loop."""

import random
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from pipeline.clickhouse import Store
from pipeline.kafka import Sender
from pipeline.settings import Settings
from pipeline.simulate.message import ARROW_HEADERS, Message
from pipeline.topics import READINGS
from tests.faults.kills import TAKEN_OVER
from tests.faults.rig import Process, await_rated, equal_to_oracle, faulty_fleet, oracle, publish, repeatable, tell
from tests.stack import prepared

SEED = 7_001
SHARE = 0.01


def poison(rng: random.Random, key: bytes | None, partition: int) -> Message:
    """One record that no rule can make sense of, beside good ones of the same charge point."""
    kinds = (
        (key, rng.randbytes(rng.randrange(1, 300)), ()),
        (key, b"", ()),
        (key, b'{"charge_point_id":' + b"[" * 5_000, ()),
        (key, b'{"charge_point_id":"' + b"x" * 3_000_000 + b'"}', ()),
        (None, b'{"charge_point_id":"NOBODY","connector_id":1}', ()),
        (None, b'{"control":"dance","time_ms":1}', ()),
        (None, b'{"control":"tick","time_ms":"soon"}', ()),
        (None, b'{"control":"decision","action":7}', ()),
        (key, b"\xff\xff\xff\xff" + rng.randbytes(200), ARROW_HEADERS),
        (key, '{"charge_point_id":"\ud800"}'.encode("utf-8", "surrogatepass"), ()),
        (key, b'{"charge_point_id":"CP","connector_id":1,"transaction_id":"1","timestamp":"NaN","energy_wh":NaN}', ()),
    )
    chosen, value, headers = rng.choice(kinds)
    return Message(0, chosen, value, partition if chosen is None else None, headers)


def poisoned(messages: list[Message], rng: random.Random) -> Iterator[tuple[Message, bool]]:
    """The messages in their order, and poison between them."""
    for message in messages:
        yield message, False
        if rng.random() < SHARE:
            yield poison(rng, message.key, rng.randrange(4)), True


def test_poison_is_isolated_and_counted(ready: Settings, tmp_path: Path) -> None:
    with repeatable(SEED, "pytest tests/faults/test_poison.py") as rng:
        fleet = faulty_fleet(SEED, charge_points=40)
        publish(ready, fleet, tmp_path / "reference")
        messages = [m for chunk in fleet.chunks() for m in chunk.batch.messages()]
        with Process(ready, tmp_path / "worker.log") as worker:
            assert worker.await_word(TAKEN_OVER), worker.said()
            bad = send(ready, poisoned(messages, rng))
            await_rated(ready)
            assert worker.stop() == 0, worker.said()
            assert "Traceback" not in worker.said(), worker.said()
        counts = equal_to_oracle(ready)
        tell(f"{bad} poisoned records;", counts)
        clean = replace(prepared(ready), batch_records=5_000)
        publish(clean, faulty_fleet(SEED, charge_points=40), tmp_path / "again")
        send(clean, ((message, False) for message in messages))
        undisturbed = oracle(clean)
        assert bills(ready) == bills(undisturbed), "good data is billed as if there had been no poison"
        assert counts.rows["dead_letters"] == dead(undisturbed) + bad


def send(settings: Settings, messages: Iterator[tuple[Message, bool]]) -> int:
    """Write them all; how many were poison."""
    bad = 0
    with Sender(settings) as sender:
        for message, is_poison in messages:
            partition = -1 if message.partition is None else message.partition
            sender.send(
                READINGS, message.value, message.key, partition=partition, headers=list(message.headers) or None
            )
            bad += is_poison
    return bad


def bills(settings: Settings) -> list[tuple[object, ...]]:
    """What each session costs, in an order of its own."""
    sql = (
        "SELECT charge_point_id, session_key, revision, credit, energy_mwh, rated_cost, total_incl_e4 FROM cdrs "
        "ORDER BY ALL"
    )
    with Store(settings) as store:
        return [tuple(row.values()) for row in store.rows(sql)]


def dead(settings: Settings) -> int:
    """Dead letters of a log without poison: the fleet's own."""
    with Store(settings) as store:
        return int(store.scalar("SELECT count() FROM dead_letters"))
