"""kill -9 of `wattrate watch` at random moments while a fleet is rated, as often as wanted, beside an undisturbed one.

`python -m tests.faults.watch_kills --kills 50 --seed 7` prints a report; the exit code is 1 where anything differs.

The undisturbed watch reads the same topics and the same ledger (a copy without what watch wrote), so both must write
the same alerts, step by step. What was delivered to the webhook must be every step of the ledger.
"""

import json
import random
import sys
import tempfile
import time
from collections import Counter, defaultdict
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Final

import click

from pipeline import topics
from pipeline.anomaly.events import AlertEvent
from pipeline.anomaly.sites import HOUR_MS
from pipeline.clickhouse import Store
from pipeline.kafka import Admin
from pipeline.migrations import migrate
from pipeline.settings import Settings
from pipeline.simulate.faults import FAULTS
from pipeline.simulate.fleet import Fleet, FleetPlan
from pipeline.store import StoreLedger
from pipeline.watch.ledger import WatchLedger
from tests.faults.rig import Feeder, Process, await_rated, publish
from tests.pipeline.watch.process import WatchProcess, wait_until
from tests.pipeline.watch.receiver import Receiver, receiver
from tests.stack import prepared, running_stack

_WHILE_STARTING: Final = 0.2  # share of kills that come before it has taken up its alerts
_QUIET_S: Final = 600.0
# Low thresholds, so that every rule of watch has something to say of a few days.
_RULES: Final = """
[delivery]
posts_per_minute = 6000
first_wait_s = 0.2
longest_wait_s = 0.5
oldest_h = 2000
[[tune]]
kind = "large_session"
z = 1.0
warm_up = 4
[[tune]]
kind = "site_silence"
expected = 1.0
warm_up_weeks = 0
[[tune]]
kind = "peer_gap"
share = 0.95
sessions = 4
peers = 2
[[tune]]
kind = "register_reset"
resolve_after_h = 12
"""


@dataclass
class Report:
    """What a run did. Seconds are wall time."""

    seed: int
    kills: int = 0
    while_starting: int = 0
    messages: int = 0
    seconds: float = 0.0
    steps: int = 0  # in the ledger
    of_watch: Counter[str] = field(default_factory=Counter)  # alerts opened, by kind
    open: int = 0
    delivered: int = 0  # with repeats
    repeats: int = 0

    def __str__(self) -> str:
        kinds = ", ".join(f"{n} {kind}" for kind, n in sorted(self.of_watch.items()))
        return (
            f"seed {self.seed}: {self.kills} kills ({self.while_starting} while starting) in {self.seconds:.0f} s, "
            f"{self.messages:,} messages; {self.steps:,} alert steps, {self.open:,} open, equal to the undisturbed "
            f"watch; every step delivered, {self.repeats} of {self.delivered:,} again under the same id; "
            f"of watch itself: {kinds}"
        )


def kill_watch(
    settings: Settings, folder: Path, seed: int, kills: int, *, charge_points: int = 40, load_s: float | None = None
) -> Report:
    """Rate a faulty fleet, kill the watch `kills` times, let the last one finish, compare with an undisturbed one."""
    began, rng, report = time.monotonic(), random.Random(seed), Report(seed)
    rules = folder / "rules.toml"
    rules.write_text(_RULES)
    fleet = _fleet(seed, charge_points)
    with receiver() as endpoint:
        settings = replace(settings, webhook_url=endpoint.url)
        publish(settings, fleet, folder / "reference")
        feeder = Feeder(settings, fleet, load_s if load_s is not None else 6.0 * kills)
        report.messages = feeder.messages
        with Process(settings, folder / "worker.log") as worker:
            for _ in range(kills):
                _life(settings, rules, rng, report)
            feeder.done()
            await_rated(settings)
            assert worker.stop() == 0, worker.said()
        _finish(settings, rules)
    _compare(settings, _undisturbed(settings, rules), endpoint, report)
    report.seconds = time.monotonic() - began
    return report


def _fleet(seed: int, charge_points: int) -> Fleet:
    faults = {**dict.fromkeys(FAULTS, 0.008), "token_two_sites": 0.1}
    return Fleet(
        FleetPlan(
            seed=seed, charge_points=charge_points, hours=72.0, sample_ms=1_800_000, sessions_per_day=8.0,
            faults=faults, partitions=4, tick_ms=600_000, settle_hours=72,
        )
    )  # fmt: skip


def _life(settings: Settings, rules: Path, rng: random.Random, report: Report) -> None:
    """One watch from its start to its violent end."""
    starting, after_s = rng.random() < _WHILE_STARTING, rng.uniform(0.0, 4.0)
    watch = WatchProcess(settings, "--no-ticks", "--rules", str(rules), wait=not starting)
    time.sleep(after_s)
    assert watch.process.poll() is None, f"it ended by itself: {watch.log.read_text()}"
    watch.kill()
    report.kills += 1
    report.while_starting += starting


def _finish(settings: Settings, rules: Path) -> None:
    """A watch that nobody kills, until it has read, swept and delivered everything."""
    watch = WatchProcess(settings, "--no-ticks", "--rules", str(rules))
    wait_until(lambda: _done(settings, watch), _QUIET_S, watch.log)
    assert watch.stop() == 0, watch.log.read_text()


def _done(settings: Settings, watch: WatchProcess) -> bool:
    """Everything is read, swept, and delivered where there is a webhook."""
    if not watch.health().get("ok"):
        return False
    admin = Admin(settings)
    with Store(settings) as store:
        ledger = WatchLedger(store)
        log_id = admin.log_id(topics.READINGS)
        reached = {scope: state.position for scope, state in ledger.states("").items()}
        for topic in (topics.ALERTS, topics.SESSION_EVENTS):
            prefix = f"{topic}/{admin.log_id(topic):016x}/"
            if any(reached.get(f"{prefix}{p}", 0) < end for p, end in admin.end_offsets(topic).items()):
                return False
        complete_ms = StoreLedger(store, log_id).complete_up_to(admin.partition_count(topics.READINGS))
        if complete_ms is None or reached.get(f"sweep/{log_id:016x}", 0) < complete_ms // HOUR_MS:
            return False
        steps = {step.event_id for step in ledger.alerts()}
        return not settings.webhook_url or steps <= ledger.settled("webhook")


def _undisturbed(settings: Settings, rules: Path) -> Settings:
    """The same topics and ledger, watched undisturbed into a database of its own; nothing is delivered."""
    name = f"{settings.clickhouse_database}_undisturbed"
    of = replace(settings, clickhouse_database=name, webhook_url="")
    with Store(settings) as store:
        store.command(f"CREATE DATABASE {name}")
        kept = [row["name"] for row in store.rows("SELECT name FROM system.tables WHERE database = currentDatabase()")]
    with Store(of) as store:
        migrate(store)
        for table in kept:
            if table.endswith("_rows") and not table.startswith("watch_"):
                store.command(f"INSERT INTO {table} SELECT * FROM {settings.clickhouse_database}.{table}")
    _finish(of, rules)
    return of


def _compare(settings: Settings, undisturbed: Settings, endpoint: Receiver, report: Report) -> None:
    here, there = _steps(settings), _steps(undisturbed)
    missing, more = there.keys() - here.keys(), here.keys() - there.keys()
    assert not missing, f"{len(missing)} alert steps are lost, such as {sorted(missing)[:3]}"
    assert not more, f"{len(more)} alert steps the undisturbed watch does not have, such as {sorted(more)[:3]}"
    differing = [(here[step], there[step]) for step in here if here[step] != there[step]]
    assert not differing, f"{len(differing)} alert steps differ, such as {differing[0]}"
    assert _open(settings) == _open(undisturbed)
    sent = [(one["event_id"], one) for got in endpoint.got for one in got.json["alerts"]]
    ids = Counter(event_id for event_id, _ in sent)
    lost = here.keys() - ids.keys()
    assert not lost, f"{len(lost)} alert steps were never delivered, such as {sorted(lost)[:3]}"
    assert ids.keys() <= here.keys(), "something was delivered that the ledger does not have"
    _one_id_each([one for _, one in sent])
    report.steps, report.open = len(here), len(_open(settings))
    report.delivered, report.repeats = len(sent), len(sent) - len(ids)
    with Store(settings) as store:
        found = store.rows("SELECT toString(kind) AS kind, uniqExact(alert_id) AS n FROM watch_alert_rows GROUP BY 1")
    report.of_watch = Counter({row["kind"]: row["n"] for row in found})


def _one_id_each(sent: list[dict[str, Any]]) -> None:
    """What one alert is about is told under one id. Raises AssertionError where it is not."""
    subject = ("kind", "charge_point_id", "connector_id", "location_id", "session_key", "action", "time_ms", "evidence")
    names: dict[str, set[str]] = defaultdict(set)
    for one in sent:
        names[json.dumps([one[name] for name in subject], sort_keys=True)].add(one["alert_id"])
    twice = {about: ids for about, ids in names.items() if len(ids) > 1}
    assert not twice, f"told under two ids: {list(twice.items())[:3]}"


def _steps(settings: Settings) -> dict[str, AlertEvent]:
    with Store(settings) as store:
        return {step.event_id: step for step in WatchLedger(store).alerts()}


def _open(settings: Settings) -> set[str]:
    with Store(settings) as store:
        return set(WatchLedger(store).open_alerts())


@click.command()
@click.option("--kills", default=50, show_default=True)
@click.option("--seed", default=7, show_default=True)
@click.option("--load-seconds", default=None, type=float, help="How long the fleet is fed; 6 a kill if not given.")
def main(kills: int, seed: int, load_seconds: float | None) -> None:
    """Kill the watch, and compare."""
    with tempfile.TemporaryDirectory() as folder, running_stack(Path(folder)) as stack:
        settings = prepared(stack.settings)
        report = kill_watch(settings, Path(folder), seed, kills, load_s=load_seconds)
        sys.stdout.write(f"{report}\n")
        assert sum(Admin(settings).end_offsets(topics.DEAD_LETTERS).values()) == 0


if __name__ == "__main__":
    main()
