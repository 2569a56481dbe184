"""`wattrate doctor`: looks at settings, broker, topics, store, schema, clock; says what is wrong and what to do."""

import json
import shutil
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import click

from pipeline.clickhouse import Store
from pipeline.embedded.stack import Run
from pipeline.errors import ChecksFailedError, WattrateError
from pipeline.kafka import Admin
from pipeline.migrations import inspect
from pipeline.reference import latest_version
from pipeline.settings import Settings
from pipeline.topics import READINGS, TOPICS

_CLOCK_OFF_MAX_S = 2.0
_DISK_FREE_MIN = 0.05


@dataclass(frozen=True)
class Finding:
    """One thing looked at: "ok", "warning" or "wrong", and for the last two what to do."""

    subject: str
    state: str
    text: str


def examine(settings: Settings) -> list[Finding]:
    """Look at everything; a part that can't be reached is a finding, not an error."""
    return [
        *_settings(settings),
        *_guarded("broker", lambda: _broker(settings)),
        *_guarded("store", lambda: _store(settings)),
    ]


def _guarded(subject: str, look: Callable[[], Iterator[Finding]]) -> list[Finding]:
    found: list[Finding] = []
    try:
        found.extend(look())
    except WattrateError as error:
        found.append(Finding(subject, "wrong", error.message))
    return found


def _settings(settings: Settings) -> Iterator[Finding]:
    run = Run.read(settings.data_dir)
    given = ", ".join(f"{name} ({source})" for name, source in settings.sources.items())
    yield Finding("settings", "ok", f"given: {given}" if given else "all defaults")
    yield Finding(
        "stack", "ok", f"embedded stack runs (process {run.pid}) in {settings.data_dir}" if run else "none here"
    )
    if settings.clickhouse_timeout_s >= settings.max_poll_interval_s:
        yield Finding(
            "settings",
            "wrong",
            f"clickhouse_timeout_s ({settings.clickhouse_timeout_s:g}) must be below max_poll_interval_s "
            f"({settings.max_poll_interval_s:g}): a slow insert would cost the worker its partitions",
        )
    if settings.clickhouse_password and not settings.clickhouse_secure:
        yield Finding("settings", "warning", "clickhouse_password travels in the clear: set clickhouse_secure")
    if "SASL" in settings.kafka_security_protocol and "SSL" not in settings.kafka_security_protocol:
        yield Finding("settings", "warning", "kafka_sasl_password travels in the clear: use SASL_SSL")
    folder = settings.data_dir if settings.data_dir.exists() else settings.data_dir.absolute().parent
    if run and (disk := shutil.disk_usage(folder)).free < disk.total * _DISK_FREE_MIN:
        yield Finding(
            "disk", "warning", f"{folder} has {disk.free >> 20} MiB left: the store stops taking rows when it is full"
        )


def _broker(settings: Settings) -> Iterator[Finding]:
    admin = Admin(settings)
    brokers = admin.ping(min(settings.kafka_timeout_s, 5.0))
    yield Finding("broker", "ok", f"{brokers} at {settings.kafka_bootstrap}")
    counts = admin.partition_counts()
    missing = [name for topic in TOPICS if (name := settings.topic(topic.name)) not in counts]
    if missing:
        yield Finding("topics", "wrong", f"missing: {', '.join(missing)}; run `wattrate init`")
        return
    partitions = counts[settings.topic(READINGS)]
    yield Finding("topics", "ok", f"{len(TOPICS)} there, {READINGS} with {partitions} partitions")
    if partitions != settings.partitions:
        yield Finding(
            "topics",
            "warning",
            f"{READINGS} has {partitions} partitions, settings say {settings.partitions}: set it so",
        )
    yield Finding(
        "log", "ok", f"id {admin.log_id(READINGS):016x}, {sum(admin.end_offsets(READINGS).values())} records so far"
    )


def _store(settings: Settings) -> Iterator[Finding]:
    with Store(settings, timeout_s=min(settings.clickhouse_timeout_s, 10.0)) as store:
        yield Finding(
            "store", "ok", f"version {store.version()} at {settings.clickhouse_host}:{settings.clickhouse_port}"
        )
        yield from _clock(store)
        schema = inspect(store)
        if schema.pending:
            names = ", ".join(f"{m.number:04}_{m.name}" for m in schema.pending)
            yield Finding("schema", "wrong", f"not yet run: {names}; run `wattrate init`")
            return
        yield Finding("schema", "ok", f"at {schema.applied[-1]:04}")
        version = latest_version(store)
        yield (
            Finding("reference", "ok", f"version {version}")
            if version
            else Finding("reference", "warning", "no tariffs yet: `wattrate publish PATH`, or all usage is held")
        )


def _clock(store: Store) -> Iterator[Finding]:
    before = time.time()
    theirs = int(store.scalar("SELECT toUnixTimestamp64Milli(now64(3))")) / 1000
    off = theirs - (before + time.time()) / 2
    state = "ok" if abs(off) <= _CLOCK_OFF_MAX_S else "warning"
    advice = "" if state == "ok" else ": synchronise both with NTP"
    yield Finding("clock", state, f"store is {off:+.2f} s from this machine{advice}")


def report(findings: list[Finding]) -> dict[str, Any]:
    """The findings as one JSON object."""
    return {"healthy": all(f.state != "wrong" for f in findings), "findings": [f.__dict__ for f in findings]}


@click.command()
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
@click.option("--settings", "show", is_flag=True, help="Also print every setting in force, secrets masked.")
@click.pass_obj
def command(settings: Settings, as_json: bool, show: bool) -> None:
    """Say what is wrong with this installation and what to do. Exit code 1 when something is."""
    findings = examine(settings)
    if as_json:
        shown = {"settings": {k: str(v) for k, v in settings.shown().items()}} if show else {}
        print(json.dumps({**report(findings), **shown}))
    else:
        for finding in findings:
            print(f"{finding.state:<8} {finding.subject:<10} {finding.text}")
        for name, value in settings.shown().items() if show else ():
            print(f"{'':<8} {name} = {value}")
    wrong = [f.subject for f in findings if f.state == "wrong"]
    if wrong:
        raise ChecksFailedError(f"wrong: {', '.join(wrong)}")
