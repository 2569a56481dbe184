"""`wattrate watch` whole, on the embedded broker and store, with real HTTP endpoints."""

import json
import random
import time
from dataclasses import replace

from pipeline import topics
from pipeline.anomaly.events import AlertEvent, SessionEvent, encode
from pipeline.clickhouse import Store
from pipeline.kafka import Admin, Reader, Sender
from pipeline.settings import Settings
from pipeline.watch.ledger import WatchLedger
from pipeline.watch.rules import Delivery, Mute, Rules
from pipeline.watch.sinks import SIGNATURE, verify
from tests.pipeline.watch.process import WatchProcess, an_alert, wait_until, watching
from tests.pipeline.watch.receiver import Got, receiver

FAST = Delivery(first_wait_s=0.1, longest_wait_s=0.2, posts_per_minute=3000, repeat_s=0.5)
RULES = Rules(FAST)


def publish(settings: Settings, *alerts: AlertEvent) -> None:
    """As the worker does: the ledger first, then the topic."""
    with Store(settings) as store, Sender(settings) as sender:
        WatchLedger(store).add_alerts(alerts, 1)
        for alert in alerts:
            sender.send(topics.ALERTS, encode(alert), alert.charge_point_id.encode())


def read_all(settings: Settings, topic: str) -> list[tuple[int, bytes]]:
    admin = Admin(settings)
    ends = admin.end_offsets(topic)
    with Reader(settings, topic) as reader:
        reader.assign(admin.start_offsets(topic))
        got: list[tuple[int, bytes]] = []
        while len(got) < sum(ends.values()):
            got += [(m.partition() or 0, m.value() or b"") for m in reader.consume(1000, 0.2)]
        return got


def test_ticks_go_to_every_partition_and_never_back(ready: Settings) -> None:
    settings = replace(ready, tick_interval_s=0.1)
    with watching(settings, ticks=True) as watch:
        wait_until(lambda: watch.health().get("ticks", 0) >= 5)
    times: dict[int, list[int]] = {}
    for partition, value in read_all(settings, topics.READINGS):
        assert value.startswith(topics.CONTROL_PREFIX)
        times.setdefault(partition, []).append(json.loads(value)["time_ms"])
    assert sorted(times) == [0, 1, 2, 3]
    for ticks in times.values():
        assert len(ticks) >= 5
        assert ticks == sorted(ticks)


def test_without_ticks_the_log_is_left_alone(ready: Settings) -> None:
    settings = replace(ready, tick_interval_s=0.1)
    with watching(settings) as watch:
        wait_until(lambda: watch.health()["uptime_s"] > 1)
        assert watch.health()["ticks"] == 0
    assert sum(Admin(settings).end_offsets(topics.READINGS).values()) == 0


def test_an_alert_reaches_the_webhook_signed_and_once(ready: Settings) -> None:
    with receiver() as endpoint:
        settings = replace(ready, webhook_url=endpoint.url + "/hook", webhook_secret="s3cret")  # noqa: S106
        with watching(settings, RULES):
            publish(settings, an_alert(1))
            wait_until(lambda: len(endpoint.got) >= 1)
            publish(settings, an_alert(1))  # a worker that recovers publishes again
            publish(settings, an_alert(2))
            wait_until(lambda: len(endpoint.event_ids()) >= 2)
    assert sorted(endpoint.event_ids()) == sorted([an_alert(1).event_id, an_alert(2).event_id])
    got = endpoint.got[0]
    at_s = int(got.headers[SIGNATURE].split(",")[0].removeprefix("t="))
    assert verify("s3cret", got.headers[SIGNATURE], got.body, at_s)
    assert not verify("other", got.headers[SIGNATURE], got.body, at_s)
    assert not verify("s3cret", got.headers[SIGNATURE], got.body + b" ", at_s)
    assert not verify("s3cret", got.headers[SIGNATURE], got.body, at_s + 301)


def test_a_failing_endpoint_is_tried_again_and_a_refusal_is_a_dead_letter(ready: Settings) -> None:
    def answer(got: Got) -> int:
        if any(one["charge_point_id"] == "CP0002" for one in got.json["alerts"]):
            return 422
        return 503 if len(endpoint.got) < 3 else 200

    with receiver(answer) as endpoint:
        settings = replace(ready, webhook_url=endpoint.url)
        with watching(settings, RULES) as watch:
            publish(settings, an_alert(1), an_alert(2), an_alert(3))
            wait_until(lambda: sum(Admin(settings).end_offsets(topics.DEAD_LETTERS).values()) >= 1)
            wait_until(lambda: len(endpoint.event_ids()) >= 2)
            assert "wattrate_watch_deliveries_total" in watch.get("/metrics")[1]
    assert sorted(endpoint.event_ids()) == [an_alert(1).event_id, an_alert(3).event_id]
    [(_, value)] = read_all(settings, topics.DEAD_LETTERS)
    assert json.loads(value)["charge_point_id"] == "CP0002"


def test_alertmanager_hears_of_open_alerts_again_until_they_are_resolved(ready: Settings) -> None:
    with receiver() as endpoint:
        settings = replace(ready, alertmanager_url=endpoint.url)
        with watching(settings, RULES):
            publish(settings, an_alert(1))
            wait_until(lambda: len(endpoint.got) >= 3)
            # as the worker writes a person's decision: it knows the id only
            publish(settings, an_alert(1, action="resolved", offset=9, severity="info", connector_id=0))
            wait_until(lambda: any("endsAt" in one for got in endpoint.got for one in got.json))
    assert {got.path for got in endpoint.got} == {"/api/v2/alerts"}
    [first], [last] = endpoint.got[0].json, endpoint.got[-1].json
    assert last["labels"] == first["labels"]
    assert first["labels"] == {
        "alertname": "stuck_register",
        "severity": "critical",
        "alert_id": an_alert(1).alert_id,
        "charge_point_id": "CP0001",
        "connector_id": "1",
    }


def test_one_token_at_two_sites_becomes_an_alert_in_ledger_topic_and_webhook(ready: Settings) -> None:
    with receiver() as endpoint:
        settings = replace(ready, webhook_url=endpoint.url)
        with watching(settings, RULES) as watch:
            with Sender(settings) as sender:
                for event in (_start("a", "L1", "-2.97", 0), _start("b", "L2", "-4.00", 600_000)):
                    sender.send(topics.SESSION_EVENTS, encode(event), event.id_token.encode())
            wait_until(lambda: len(endpoint.event_ids()) == 1)
            assert "token two sites" in watch.get("/")[1]
    [step] = endpoint.got[0].json["alerts"]
    assert step["kind"] == "token_two_sites"
    assert step["evidence"]["other_location"] == "L1"
    with Store(settings) as store:
        assert [alert.alert_id for alert in WatchLedger(store).alerts()] == [step["alert_id"]]


def _start(key: str, location: str, longitude: str, time_ms: int) -> SessionEvent:
    return SessionEvent(
        "start",
        key * 16,
        f"CP-{location}",
        1,
        1_780_000_000_000 + time_ms,
        0,
        time_ms,
        location,
        "T1",
        "56.46",
        longitude,
    )


def test_decisions_and_mutes_over_http_need_the_token_and_go_into_the_log(ready: Settings) -> None:
    settings = replace(ready, watch_token="t0ken")  # noqa: S106
    window = {"from": "2026-03-01T06:00:00Z", "until": "2026-03-01T18:00:00Z"}
    with watching(settings, RULES) as watch:
        publish(settings, an_alert(1), an_alert(2))
        wait_until(lambda: watch.health()["open_alerts"] == 2)
        [_, one] = json.loads(watch.get("/alerts")[1])
        asked = {"action": "acknowledge", "alert_ids": [one["alert_id"]], "actor": "anna", "note": "on my way"}
        mute = {**window, "location": "L7", "actor": "anna", "kinds": ["silence"]}
        answers = [
            watch.post("/decisions", asked, ""),
            watch.post("/decisions", {**asked, "action": "ignore"}, "t0ken"),
            watch.post("/decisions", {**asked, "alert_ids": ["none"]}, "t0ken"),
            watch.post("/mutes", {**mute, "until": "2026-03-01T05:00:00Z"}, "t0ken"),
            watch.post("/mutes", {**mute, "until": "2026-03-01T05:00:00"}, "t0ken"),
            watch.post("/decisions", asked, "t0ken"),
            watch.post("/mutes", mute, "t0ken"),
        ]
    assert answers == [401, 400, 404, 400, 400, 202, 202]
    written = [json.loads(value) for _, value in read_all(settings, topics.READINGS)]
    [decision] = [one for one in written if one["control"] == "decision"]
    assert decision["target"] == f"CP0001/{an_alert(1).alert_id}"
    assert (decision["actor"], decision["note"], decision["action"]) == ("anna", "on my way", "acknowledge")
    [said] = [one for one in written if one["control"] == "mute"]
    assert (said["location"], said["kinds"], said["until_ms"] - said["from_ms"]) == ("L7", ["silence"], 43_200_000)


def test_without_a_token_in_the_settings_nothing_is_decided_over_http(ready: Settings) -> None:
    with watching(ready, RULES) as watch:
        asked = {"action": "resolve", "alert_ids": ["a"], "actor": "anna"}
        assert watch.post("/decisions", asked, "") == 403


def test_broken_records_are_dead_letters_and_the_rest_goes_on(ready: Settings) -> None:
    with watching(ready) as watch:
        with Sender(ready) as sender:
            sender.send(topics.ALERTS, b"\xff\x00", b"CP1")
            sender.send(topics.SESSION_EVENTS, b'{"event":"begin"}', b"T1")
            sender.send(topics.ALERTS, encode(an_alert(1)), b"CP1")
        wait_until(lambda: watch.health()["open_alerts"] == 1)
    assert sorted(value for _, value in read_all(ready, topics.DEAD_LETTERS)) == [b'{"event":"begin"}', b"\xff\x00"]


def test_killed_at_any_moment_no_alert_is_lost_and_none_has_two_ids(ready: Settings) -> None:
    dice = random.Random(6)
    alerts = [an_alert(n) for n in range(1, 41)]
    steps = [*alerts, *(an_alert(n, action="resolved", offset=100 + n) for n in range(1, 21))]
    with receiver() as endpoint:
        settings = replace(ready, webhook_url=endpoint.url)
        for first in (0, 30):
            watch = WatchProcess(settings, "--no-ticks")
            publish(settings, *steps[first : first + 30])
            time.sleep(dice.random() * 2)
            watch.kill()
        watch = WatchProcess(settings, "--no-ticks")
        wait_until(lambda: set(endpoint.event_ids()) == {step.event_id for step in steps}, log=watch.log)
        assert watch.health()["open_alerts"] == 20
        assert watch.stop() == 0
        assert "watch ended" in watch.log.read_text()
    sent = [one for got in endpoint.got for one in got.json["alerts"]]
    assert {one["alert_id"] for one in sent} == {alert.alert_id for alert in alerts}


def test_alerts_of_a_location_under_maintenance_are_kept_but_not_sent(ready: Settings) -> None:
    mute = Mute("L7", 1_770_000_000_000, 1_790_000_000_000)
    with receiver() as endpoint:
        settings = replace(ready, webhook_url=endpoint.url)
        with watching(settings, replace(RULES, mutes=[mute])) as watch:
            publish(settings, an_alert(1, location_id="L7"), an_alert(2, location_id="L8"))
            wait_until(lambda: watch.health()["open_alerts"] == 2)
            wait_until(lambda: len(endpoint.event_ids()) == 1)
    assert endpoint.event_ids() == [an_alert(2).event_id]
    with Store(settings) as store:
        found = store.rows("SELECT alert_id, toString(outcome) AS outcome FROM watch_delivery_rows ORDER BY alert_id")
    assert [row["outcome"] for row in found] == ["muted", "delivered"]
