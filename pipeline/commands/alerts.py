"""`wattrate alerts list|show|acknowledge|resolve|mute`: what is wrong in the network, and who looks after it."""

import json
from collections.abc import Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from typing import Any

import click

from pipeline.clickhouse import Store
from pipeline.codec.control import Mute
from pipeline.decide import Action, Target, decide, login_name, mute, now_ms, partition_of_location, wait_until
from pipeline.errors import DocumentError
from pipeline.kafka import Admin, Sender
from pipeline.read.alerts import AlertNow, alert, alerts, steps
from pipeline.settings import Settings
from pipeline.topics import READINGS

_DONE = {"acknowledge": ("acknowledged", "resolved"), "resolve": ("resolved",)}
_INSTANT = click.DateTime(["%Y-%m-%dT%H:%M:%SZ", "%Y-%m-%dT%H:%M:%S", "%Y-%m-%d"])
_HELP = {
    "acknowledge": "Acknowledge ALERTS by their ids: someone looks after them, and they are not repeated.",
    "resolve": "Resolve ALERTS by their ids: they are done with.",
}


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
def command() -> None:
    """List, show, acknowledge, resolve or mute alerts."""


@command.command("list")
@click.option("--kind", default="", help="Only this kind, such as register_jump.")
@click.option("--severity", default="", type=click.Choice(["", "info", "warning", "critical"]), help="Only this one.")
@click.option("--charge-point", default="", help="Only this charge point.")
@click.option("--all", "everything", is_flag=True, help="Also those that are resolved.")
@click.option("--limit", default=100, show_default=True, help="The newest so many; 0 for all.")
@click.option("--json", "as_lines", is_flag=True, help="Print one JSON object a line.")
@click.pass_obj
def list_command(
    settings: Settings, kind: str, severity: str, charge_point: str, everything: bool, limit: int, as_lines: bool
) -> None:
    """List alerts that are not resolved, newest last."""
    with Store(settings) as store:
        found = alerts(store, kind, severity, charge_point, everything, limit)
    for one in found:
        if as_lines:
            print(json.dumps(_json(one)))
        else:
            what = f"{one.severity:<9}{one.action:<13}{one.charge_point_id}"
            print(f"{_instant(one.last_ms)}  {what:<44} {one.alert_id}")
    if not as_lines:
        print(f"{len(found)} alerts")


@command.command("show")
@click.argument("alert_id")
@click.option("--json", "as_one", is_flag=True, help="Print one JSON object.")
@click.pass_obj
def show_command(settings: Settings, alert_id: str, as_one: bool) -> None:
    """Show one alert: its evidence and every step of its life."""
    with Store(settings) as store:
        one, life = alert(store, alert_id), steps(store, alert_id)
    if as_one:
        print(json.dumps({**_json(one), "life": [asdict(step) for step in life]}, indent=2))
        return
    print(f"{one.kind} ({one.severity}, {one.action}) at charge point {one.charge_point_id}, {one.alert_id}")
    if one.session_key:
        print(f"session {one.session_key:016x}: wattrate explain {one.session_key:016x}")
    for step in life:
        told = ", ".join(f"{name} {value}" for name, value in step.evidence.items())
        where = f"partition {step.partition}, offset {step.offset}"
        print(f"{_instant(step.time_ms)}  {step.action} by {step.source} ({where}): {told}")


def _decision(action: Action) -> click.Command:
    """`acknowledge` and `resolve` take the same options."""

    @click.command(action, help=_HELP[action])
    @click.argument("alert_ids", nargs=-1)
    @click.option("--kind", default="", help="All open alerts of this kind.")
    @click.option("--note", default="", help="Why; kept with the decision.")
    @click.option("--actor", default=login_name, show_default="login name", help="Who decides; kept with the decision.")
    @click.option("--wait", "wait_s", is_flag=False, flag_value=30.0, default=0.0, type=float, help=_WAIT)
    @click.option("--json", "as_one", is_flag=True, help="Print one JSON object.")
    @click.pass_obj
    def run(
        settings: Settings, alert_ids: tuple[str, ...], kind: str, note: str, actor: str, wait_s: float, as_one: bool
    ) -> None:
        if bool(alert_ids) == bool(kind):
            raise DocumentError("name the alerts, or use --kind: one of them")
        with Store(settings) as store:
            chosen = [alert(store, name) for name in alert_ids] or alerts(store, kind)
            count = Admin(settings).partition_count(READINGS)
            targets = [Target(one.partition % count, one.target) for one in chosen]
            with Sender(settings) as sender:
                decide(sender, action, targets, actor, note, now_ms())
            if wait_s and chosen:
                wait_until(lambda: _undone(store, chosen, _DONE[action]), wait_s)
        if as_one:
            print(json.dumps({"action": action, "alerts": [one.alert_id for one in chosen]}))
        else:
            print(f"{action} of {len(chosen)} alerts: {'done' if wait_s else 'written to the log'}")

    return run


@command.command("mute")
@click.argument("location", default="")
@click.option("--from", "begin", type=_INSTANT, help="From this instant on (UTC); now if not given.")
@click.option("--until", required=True, type=_INSTANT, help="Up to this instant (UTC).")
@click.option("--kind", "kinds", multiple=True, help="Only this kind; may be repeated.")
@click.option("--note", default="", help="Why; kept with the mute.")
@click.option("--actor", default=login_name, show_default="login name", help="Who decides; kept with the mute.")
@click.pass_obj
def mute_command(
    settings: Settings, location: str, begin: datetime | None, until: datetime, kinds: tuple[str, ...], note: str,
    actor: str,
) -> None:  # fmt: skip
    """Mute a LOCATION (all without one) for maintenance: its alerts are kept but not sent.

    A mute stands among the alerts (`wattrate alerts list --kind maintenance`); resolve it to end it early.
    """
    now = now_ms()
    control = Mute(location, now if begin is None else _ms(begin), _ms(until), kinds, actor, note, now)
    partition = partition_of_location(location, Admin(settings).partition_count(READINGS))
    with Sender(settings) as sender:
        mute(sender, partition, control)
    print(f"mute of {location or 'all locations'} until {_instant(control.until_ms)}: written to the log")


_WAIT = "Wait until the worker has acted, up to this many seconds (30 if no number is given)."
command.add_command(_decision("acknowledge"))
command.add_command(_decision("resolve"))


def _undone(store: Store, chosen: Sequence[AlertNow], done: Sequence[str]) -> list[str]:
    return [one.alert_id for one in chosen if alert(store, one.alert_id).action not in done]


def _json(one: AlertNow) -> dict[str, Any]:
    return {**asdict(one), "session_key": f"{one.session_key:016x}", "log_id": f"{one.log_id:016x}"}


def _ms(instant: datetime) -> int:
    return round(instant.replace(tzinfo=UTC).timestamp() * 1000)


def _instant(instant_ms: int) -> str:
    return f"{datetime.fromtimestamp(instant_ms / 1000, UTC):%Y-%m-%d %H:%M:%S}Z"
