"""Messages that lie, each as users of real systems reported it (design.md section 4)."""

import pytest

from pipeline.metering import kinds
from tests.pipeline.metering.charger import Charger, Found, at, stamp

KWH = 1_000_000


def test_number_where_a_string_belongs() -> None:
    said = Charger().start(0, 1_000).value(5, 1_500, bare=True).stop(10, 2_000).rated()
    assert said.found == Found([KWH], "first good good", {"used": 3})


def test_decimal_comma() -> None:
    said = Charger().start(0, 1_000).value(5, "1500,5").value(10, "1800,7").stop(15, 2_000).rated()
    assert said.found == Found([KWH], "first good good good", {"used": 4})


def test_broken_json_is_a_dead_letter_with_its_bytes() -> None:
    broken = b'{"charge_point_id":"CP1","ocpp_version":"1.6","action":"MeterVal'
    said = Charger().start(0, 1_000).raw(broken, 5).stop(10, 2_000).rated()
    assert said.found == Found([KWH], "first good", {"used": 2, "dead_lettered": 1})
    assert [(row.reason, row.raw) for row in said.ledger.dead] == [("bad_json", broken)]


def test_timestamp_without_zone_is_read_as_utc() -> None:
    plain = stamp(at(5)).removesuffix("Z")
    said = Charger().start(0, 1_000).value(5, 1_500, stamp_of=plain).stop(10, 2_000).rated()
    assert said.found == Found([KWH], "first good good", {"used": 3})


@pytest.mark.parametrize("lie", ["1970-01-01T00:00:42Z", "0000-00-00T00:00:00Z", "yesterday"])
def test_a_time_that_is_none_is_replaced_by_the_arrival(lie: str) -> None:
    said = Charger().start(0, 1_000).value(5, 1_500, stamp_of=lie).stop(10, 2_000).rated()
    assert said.found == Found([KWH], "first good good", {"used": 3}, alerts=("unusable_time",))
    assert said.flags & kinds.SESSION_TIME_CORRECTED


def test_local_time_marked_utc_ends_when_the_message_arrived() -> None:
    said = Charger().start(60, 1_000, late=-60).value(65, 1_500, late=-60).stop(70, 2_000, late=-60).rated()
    assert said.found == Found([KWH], "first good good", {"used": 3})
    columns = said.ledger.cdrs[-1].columns
    assert (columns["start_ms"], columns["end_ms"]) == (at(0), at(10))
    assert said.flags & kinds.SESSION_TIME_CORRECTED


def test_a_clock_hours_behind_bills_the_energy() -> None:
    said = Charger().start(0, 1_000, late=420).value(5, 1_500, late=420).stop(10, 2_000, late=420).rated()
    assert said.found == Found([KWH], "first good good", {"used": 3})


@pytest.mark.parametrize("txn", [-1, 0, 2**63 - 1, None])
def test_a_transaction_id_that_lies_is_matched_by_connector_and_time(txn: int | None) -> None:
    story = Charger().start(0, 1_000, txn=str(txn or 0)).value(5, 1_500, txn=txn).stop(10, 2_000, txn=txn)
    said = story.status(10.2, "Available").tick(30).rated()
    assert said.found == Found([KWH], "first good good good", {"used": 4})


def test_ids_that_lie_on_two_connectors_at_once() -> None:
    story = Charger().start(0, 1_000, txn="0").start(1, 70_000, txn="0", connector=2)
    story.value(5, 1_500, txn=0).value(6, 70_300, txn=0, connector=2).stop(10, 2_000, txn=0).stop(12, 70_400, txn=0)
    said = story.rated()
    assert said.found == Found([KWH, 400_000], "first first good good good good", {"used": 6})


def test_duplicates_are_never_billed_twice() -> None:
    story = Charger().start(0, 1_000).start(0, 1_000).value(5, 1_500).value(5, 1_500).stop(10, 2_000).stop(10, 2_000)
    said = story.value(5, 1_500).rated()
    assert said.found == Found(
        [KWH], "first duplicate good duplicate good duplicate duplicate", {"used": 3, "duplicate": 4}
    )
    assert len(said.ledger.cdrs) == 1


def test_offline_messages_that_come_late_correct_what_stands() -> None:
    ordered = Charger().start(0, 1_000).value(5, 1_500).value(10, 1_700).value(15, 1_900).stop(20, 2_000).rated()
    mixed = Charger().start(0, 1_000).value(15, 1_900).value(5, 1_500, late=20).value(10, 1_700, late=20)
    said = mixed.stop(20, 2_000).rated()
    assert said.found == Found([KWH], "first good late late good", {"used": 5})
    (key,) = said.ledger.sessions
    assert said.ledger.net(key) == ordered.ledger.net(key)


def test_a_late_reading_after_settlement_is_credited_and_billed_anew() -> None:
    story = Charger().event(0, "Started", 0, 1_000).event(5, "Updated", 1, 1_400).event(10, "Ended", 3, None)
    said = story.event(9, "Updated", 2, 2_000, late=60).rated()
    assert said.found == Found([KWH], "first good good late", {"used": 4})
    assert [(c.columns["revision"], c.columns["credit"]) for c in said.ledger.cdrs] == [(1, 0), (2, 1), (3, 0)]


def test_out_of_order_by_seq_no() -> None:
    story = Charger().event(0, "Started", 0, 1_000).event(10, "Updated", 2, 1_800).event(5, "Updated", 1, 1_400, late=6)
    said = story.event(15, "Ended", 3, 2_000).rated()
    assert said.found == Found([KWH], "first good late good", {"used": 4})


def test_values_after_the_stop_are_outside_the_session() -> None:
    story = Charger().start(0, 1_000).stop(10, 2_000).value(11, 2_000).value(12, 2_300)
    said = story.rated()
    assert said.found == Found(
        [KWH], "first good suspect suspect", {"used": 2, "quarantined": 2}, alerts=("energy_outside_transaction",)
    )


def test_the_stop_never_comes_but_the_connector_is_available() -> None:
    said = Charger().start(0, 1_000).value(5, 1_500).status(10, "Available").tick(11).tick(20).rated()
    assert said.found == Found([500_000], "first good good", {"used": 3}, alerts=("lost_stop",))
    assert said.flags & kinds.SESSION_LOST_STOP


def test_the_stop_never_comes_but_the_next_start() -> None:
    story = Charger().start(0, 1_000).value(5, 1_500).start(60, 1_500, txn="8").stop(70, 1_900, txn=8)
    said = story.rated()
    assert said.found == Found([500_000, 400_000], "first good first good", {"used": 4}, alerts=("lost_stop",))


def test_the_stop_never_comes_and_time_runs_out() -> None:
    said = Charger().start(0, 1_000).value(5, 1_500).tick(60).tick(49 * 60).rated()
    assert said.found == Found([500_000], "first good", {"used": 2}, alerts=("lost_stop", "silence"))


def test_the_start_is_lost() -> None:
    said = Charger().value(5, 1_500).value(10, 1_800).stop(15, 2_000).rated()
    assert said.found == Found([500_000], "first good good", {"used": 3}, alerts=("lost_start",))
    assert said.flags & kinds.SESSION_LOST_START


def test_batch_without_energy_is_no_zero() -> None:
    said = Charger().start(0, 1_000).value(5, None, power=6_000).value(10, 1_800).stop(15, 2_000).rated()
    assert said.found == Found([KWH], "first good good good", {"used": 4})


def test_sample_clock_mixed_with_periodic() -> None:
    both = [{"value": "1300", "context": "Sample.Clock"}, {"value": "1500", "context": "Sample.Periodic"}]
    said = Charger().start(0, 1_000).values(5, both).stop(10, 2_000).rated()
    assert said.found == Found([KWH], "first good good", {"used": 3})


def test_begin_and_periodic_in_one_bucket() -> None:
    both = [{"value": "1000", "context": "Transaction.Begin"}, {"value": "1500", "context": "Sample.Periodic"}]
    said = Charger().start(0, 1_000).value(3, 1_200).values(5, both).stop(10, 2_000).rated()
    assert said.found == Found([KWH], "first good ignored good", {"used": 4})
