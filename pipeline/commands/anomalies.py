"""`wattrate anomalies`: open alerts, what a person decides about them, and a backtest of rules and detectors."""

import csv
import getpass
import json
import time
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

import click

from pipeline.anomaly.backtest import Score, by_kind, scores
from pipeline.anomaly.events import AlertEvent
from pipeline.anomaly.sessions import Finding, SessionFacts, SessionWatch, replayed
from pipeline.errors import DocumentError
from pipeline.settings import Settings


@click.group()
def command() -> None:
    """Alerts: list them, decide about them, or see what would have fired on a table of past sessions."""


@command.command("list")
@click.option("--all", "everything", is_flag=True, help="Every step of every alert, not just what is open.")
@click.option("--kind", help="Only this kind.")
@click.option("--limit", default=50, show_default=True, help="The newest so many.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object a line.")
@click.pass_obj
def list_alerts(settings: Settings, everything: bool, kind: str | None, limit: int, as_json: bool) -> None:
    """Open alerts, newest first."""
    from pipeline.clickhouse import Store
    from pipeline.watch.ledger import WatchLedger

    with Store(settings) as store:
        ledger = WatchLedger(store)
        found = ledger.alerts()[::-1] if everything else ledger.open_alerts()
    chosen = [alert for alert in found if kind in (None, alert.kind)][:limit]
    for alert in chosen:
        print(_line(alert, as_json))
    if not chosen and not as_json:
        print("no alerts")


@command.command()
@click.argument("alert_id")
@click.option("--note", default="", help="Why; kept with the decision.")
@click.pass_obj
def acknowledge(settings: Settings, alert_id: str, note: str) -> None:
    """Say that someone looks after an alert. The decision goes into the log, with who and when."""
    _decide(settings, "acknowledge", alert_id, note)


@command.command()
@click.argument("alert_id")
@click.option("--note", default="", help="Why; kept with the decision.")
@click.pass_obj
def resolve(settings: Settings, alert_id: str, note: str) -> None:
    """Close an alert. The decision goes into the log, with who and when."""
    _decide(settings, "resolve", alert_id, note)


def _decide(settings: Settings, action: str, alert_id: str, note: str) -> None:
    from pipeline.clickhouse import Store
    from pipeline.codec.control import encode_control, parse_control
    from pipeline.kafka import Sender
    from pipeline.topics import READINGS
    from pipeline.watch.ledger import WatchLedger

    with Store(settings) as store:
        steps = WatchLedger(store).alert(alert_id)
    if not steps:
        raise DocumentError(f"there is no alert {alert_id}; `wattrate anomalies list` shows the open ones")
    first = steps[0]
    text = {
        "control": "decision",
        "action": action,
        "target": f"{first.charge_point_id}/{alert_id}",
        "actor": getpass.getuser(),
        "note": note,
        "time_ms": time.time_ns() // 1_000_000,
    }
    with Sender(settings) as sender:
        sender.send(READINGS, encode_control(parse_control(json.dumps(text).encode())), partition=first.partition)
    print(f"{action} {alert_id}: written into the log; it counts when the worker has passed it")


@command.command()
@click.argument("file", type=click.Path(path_type=Path))
@click.option("--preset", help="Columns of a known file: dundee, norway or sap.")
@click.option("--map", "changes", multiple=True, metavar="NAME=COLUMN", help="As `wattrate replay --map`.")
@click.option("--labels", type=click.Path(path_type=Path), help="CSV with session ids and a column `label`.")
@click.option("--label-id", default="Charging event", show_default=True, help="Its column with the session's id.")
@click.option("--rules", type=click.Path(path_type=Path), help="Thresholds to try (TOML; docs/watch.md).")
@click.option("--show", default=10, show_default=True, help="Print so many findings of each kind.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def backtest(
    file: Path,
    preset: str | None,
    changes: Sequence[str],
    labels: Path | None,
    label_id: str,
    rules: Path | None,
    show: int,
    as_json: bool,
) -> None:
    """Replay a table of sessions and say what would have fired, with precision and recall where labels exist."""
    from pipeline.watch.rules import load_rules

    sessions, rejected = read_sessions(file, preset, changes)
    findings = list(replayed(sessions, SessionWatch(load_rules(rules).tuning)))
    table = scores(findings, read_labels(labels, label_id), sessions) if labels else []
    if as_json:
        print(json.dumps(_as_object(sessions, rejected, findings, table)))
        return
    print(f"{len(sessions):,} sessions, {rejected:,} rows not usable")
    _print_findings(findings, show)
    _print_scores(table)


def read_sessions(file: Path, preset: str | None, changes: Sequence[str] = ()) -> tuple[list[SessionFacts], int]:
    """The usable rows of a table, and how many are not. Raises DocumentError for an unknown preset or column."""
    from pipeline.replay.mapping import PRESETS, TableMapping, rating_w, with_changes
    from pipeline.replay.table import Rejected, read_table

    if preset is not None and preset not in PRESETS:
        raise DocumentError(f"--preset {preset}: there are {', '.join(PRESETS)}")
    mapping = with_changes(TableMapping() if preset is None else PRESETS[preset], changes)
    sessions, rejected = [], 0
    for row in read_table(file, mapping, "earlier"):
        if isinstance(row, Rejected):
            rejected += 1
            continue
        elapsed_ms = None if row.end_ms is None else row.end_ms - row.start_ms
        charging_ms = None if elapsed_ms is None or row.idle_ms is None else elapsed_ms - row.idle_ms
        sessions.append(
            SessionFacts(
                row.session,
                row.charge_point,
                row.connector or 1,
                row.site,
                row.model,
                row.token,
                rating_w(mapping, row.model),
                row.start_ms,
                row.end_ms,
                row.energy_mwh,
                charging_ms,
            )
        )
    return sessions, rejected


def read_labels(path: Path, id_column: str) -> dict[str, list[str]]:
    """Label → ids of sessions. Raises DocumentError when a column is missing."""
    labels: dict[str, list[str]] = defaultdict(list)
    try:
        with path.open(encoding="utf-8", newline="") as file:
            for row in csv.DictReader(file):
                labels[row["label"]].append(row[id_column])
    except OSError as error:
        raise DocumentError(f"{path}: {error.strerror}") from error
    except KeyError as error:
        raise DocumentError(f"{path}: no column {error.args[0]!r}; name the id's with --label-id") from error
    return labels


def _as_object(
    sessions: list[SessionFacts], rejected: int, findings: list[Finding], table: list[Score]
) -> dict[str, object]:
    return {
        "sessions": len(sessions),
        "rejected": rejected,
        "findings": dict(by_kind(findings)),
        "labels": [{**row._asdict(), "recall": row.recall, "precision": row.precision} for row in table],
    }


def _print_findings(findings: list[Finding], show: int) -> None:
    for kind, count in by_kind(findings).most_common():
        print(f"\n{kind}: {count}")
        for finding in [f for f in findings if f.kind == kind][:show]:
            facts = " ".join(f"{name}={value}" for name, value in finding.evidence.items())
            session = finding.session
            print(f"  {session.key:>12} {session.charge_point}/{session.connector} {facts}")


def _print_scores(table: list[Score]) -> None:
    if not table:
        return
    print(f"\n{'label':<30}{'found':>7}{'missed':>7}{'extra':>7}{'recall':>9}{'precision':>11}")
    for row in table:
        print(f"{row.label:<30}{row.found:>7}{row.missed:>7}{row.extra:>7}{row.recall:>9.3f}{row.precision:>11.3f}")


def _line(alert: AlertEvent, as_json: bool) -> str:
    from pipeline.anomaly.events import encode
    from pipeline.watch.sinks import instant, summary

    if as_json:
        return encode(alert).decode()
    return f"{instant(alert.time_ms)} {alert.severity:<8} {alert.action:<12} {alert.alert_id}  {summary(alert)}"
