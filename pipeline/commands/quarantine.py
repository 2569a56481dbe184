"""`wattrate quarantine list|show|release|reject`: usage held back from billing, and what a person decides about it."""

import json
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

import click

from pipeline.clickhouse import Store
from pipeline.decide import Action, Target, decide, login_name, now_ms, wait_until
from pipeline.errors import DocumentError
from pipeline.kafka import Admin, Sender
from pipeline.read.explanation import explanation
from pipeline.read.holds import Hold, Kept, acted_after, as_json, held, held_by_key, kept
from pipeline.read.session_rows import load
from pipeline.read.sessions import find
from pipeline.settings import Settings
from pipeline.topics import READINGS
from rating import words

_MWH_PER_KWH = 1_000_000


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
def command() -> None:
    """List, show, release or reject usage held back from billing.

    A session is held when what it would bill is in doubt: the reasons are in docs/billing-contract.md. It settles when
    it is released, rejected, or at the hold limit; a rejected session's CDR leaves the held energy out and says so.
    """


@command.command("list")
@click.option("--reason", default="", help="Only holds for this reason.")
@click.option("--charge-point", default="", help="Only this charge point.")
@click.option("--all", "everything", is_flag=True, help="Also what was released, rejected or expired.")
@click.option("--json", "as_json_lines", is_flag=True, help="Print one JSON object a line.")
@click.pass_obj
def list_command(settings: Settings, reason: str, charge_point: str, everything: bool, as_json_lines: bool) -> None:
    """List what is held now, oldest first."""
    with Store(settings) as store:
        found = held(store, reason, charge_point, everything)
    if as_json_lines:
        for hold in found:
            print(json.dumps(as_json(hold)))
        return
    for hold in found:
        print(_line(hold))
    mwh = sum(hold.held_mwh for hold in found if hold.action == "held")
    print(f"{sum(h.action == 'held' for h in found)} held, {words.amount(mwh, _MWH_PER_KWH)} kWh")


@command.command("show")
@click.argument("session")
@click.option("--json", "as_one", is_flag=True, help="Print one JSON object.")
@click.pass_obj
def show_command(settings: Settings, session: str, as_one: bool) -> None:
    """Show one held SESSION: why, what was decided, its meter readings, and the raw message that closed it."""
    with Store(settings) as store:
        ref = find(store, session)
        rows = kept(store, ref.log_id, ref.session_key)
        told = explanation(store, load(store, ref), with_readings=True)
    shown = {
        "session": told["session"],
        "holds": [_kept_json(row) for row in rows],
        "readings": told["readings"],
        "bill": told["bill"],
    }
    if as_one:
        print(json.dumps(shown, indent=2))
        return
    print(f"Session {ref.key} of charge point {ref.charge_point_id}, connector {ref.connector_id}")
    for row in rows:
        print(_kept_text(row))
    print("Meter readings")
    for reading in told["readings"]:
        print(
            f"  {reading['time']}  {reading['register_kwh'] or '-':>14} kWh  {reading['verdict']} ({reading['went']})"
        )
    print(f"To decide: wattrate quarantine release {ref.key}, or wattrate quarantine reject {ref.key}")


def _decision(action: Action) -> click.Command:
    """`release` and `reject` take the same options."""

    @click.command(action, help=_HELP[action])
    @click.argument("sessions", nargs=-1)
    @click.option("--reason", default="", help="All that is held for this reason.")
    @click.option("--all", "everything", is_flag=True, help="All that is held.")
    @click.option("--note", default="", help="Why; kept with the decision.")
    @click.option("--actor", default=login_name, show_default="login name", help="Who decides; kept with the decision.")
    @click.option("--wait", "wait_s", is_flag=False, flag_value=30.0, default=0.0, type=float, help=_WAIT)
    @click.option("--json", "as_one", is_flag=True, help="Print one JSON object.")
    @click.pass_obj
    def run(
        settings: Settings,
        sessions: tuple[str, ...],
        reason: str,
        everything: bool,
        note: str,
        actor: str,
        wait_s: float,
        as_one: bool,
    ) -> None:
        with Store(settings) as store:
            chosen = _chosen(store, sessions, reason, everything, Admin(settings).log_id(READINGS))
            with Sender(settings) as sender:
                decide(sender, action, [Target(h.partition, h.key) for h in chosen], actor, note, now_ms())
            if wait_s and chosen:
                wait_until(lambda: _undone(store, chosen), wait_s)
        kwh = words.amount(sum(h.held_mwh for h in chosen), _MWH_PER_KWH)
        if as_one:
            print(json.dumps({"action": action, "sessions": [h.key for h in chosen], "energy_kwh": kwh}))
        else:
            done = "done" if wait_s else "written to the log"
            print(f"{action} of {len(chosen)} sessions with {kwh} kWh: {done}")

    return run


_WAIT = "Wait until the worker has acted, up to this many seconds (30 if no number is given)."
_HELP = {
    "release": "Release held SESSIONS (session keys or ids): they are rated and billed with what was held.",
    "reject": "Reject held SESSIONS (session keys or ids): they are billed without what was held.",
}
command.add_command(_decision("release"))
command.add_command(_decision("reject"))


def _chosen(store: Store, names: Sequence[str], reason: str, everything: bool, log_id: int) -> list[Hold]:
    """The holds that are meant. Raises DocumentError for one that is not held, or of a log that is gone."""
    if bool(names) == (bool(reason) or everything):
        raise DocumentError("name the sessions, or use --reason or --all: one of them")
    if not names:
        return [hold for hold in held(store, reason) if hold.decidable and hold.log_id == log_id]
    refs = [find(store, name) for name in names]
    known = held_by_key(store, [ref.session_key for ref in refs])
    chosen = []
    for name, ref in zip(names, refs, strict=True):
        hold = known.get(ref.session_key)
        if hold is None or not hold.decidable:
            said = f"was {hold.action}" if hold and hold.action != "held" else "is not held"
            raise DocumentError(f"session {name} {said}: `wattrate quarantine list` shows what is held")
        if hold.log_id != log_id:
            raise DocumentError(
                f"session {name} belongs to log {hold.log_id:016x}, which is gone (the topic was made anew): "
                "nothing can be decided about it any more"
            )
        chosen.append(hold)
    return chosen


def _undone(store: Store, chosen: Sequence[Hold]) -> list[str]:
    done = acted_after(store, chosen)
    return [hold.key for hold in chosen if hold.session_key not in done]


def _line(hold: Hold) -> str:
    state = hold.action if hold.action != "held" else "" if hold.decidable else "record set apart"
    kwh = words.amount(hold.held_mwh, _MWH_PER_KWH)
    what = f"{kwh:>14} kWh  {hold.reason:<20} {hold.charge_point_id}  {state}"
    return f"{hold.key}  {_instant(hold.since_ms)}  {what}".rstrip()


def _kept_json(row: Kept) -> dict[str, Any]:
    names = ("action", "reason", "held_mwh", "time_ms", "partition", "offset", "actor", "note")
    return {**{name: getattr(row, name) for name in names}, "raw": row.raw.decode("utf-8", "backslashreplace")}


def _kept_text(row: Kept) -> str:
    by = f" by {row.actor}" if row.actor else ""
    note = f": {row.note}" if row.note else ""
    raw = f"\n  {row.raw.decode('utf-8', 'backslashreplace')}" if row.raw else ""
    kwh = words.amount(row.held_mwh, _MWH_PER_KWH)
    where = f"partition {row.partition}, offset {row.offset}"
    return f"{_instant(row.time_ms)}  {row.action}{by}, {kwh} kWh, {row.reason}{note} ({where}){raw}"


def _instant(instant_ms: int) -> str:
    return f"{datetime.fromtimestamp(instant_ms / 1000, UTC):%Y-%m-%d %H:%M:%S}Z"
