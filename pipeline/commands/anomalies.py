"""`wattrate anomalies backtest`: what the rules and detectors over whole sessions would have said of the past."""

import csv
import json
from collections import defaultdict
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

import click

from pipeline.anomaly.backtest import Score, by_kind, scores
from pipeline.anomaly.sessions import Finding, SessionFacts, SessionWatch, replayed
from pipeline.errors import DocumentError
from pipeline.settings import Settings


@click.group()
def command() -> None:
    """Try rules and thresholds on past sessions; `wattrate alerts` shows what was found live."""


@command.command()
@click.argument("file", type=click.Path(path_type=Path), required=False)
@click.option("--since", type=click.DateTime(), help="Instead of a file: the ledger's CDRs settled from then on (UTC).")
@click.option("--preset", help="Columns of a known file: dundee, norway or sap.")
@click.option("--map", "changes", multiple=True, metavar="NAME=COLUMN", help="As `wattrate replay --map`.")
@click.option("--labels", type=click.Path(path_type=Path), help="CSV with session ids and a column `label`.")
@click.option("--label-id", default="Charging event", show_default=True, help="Its column with the session's id.")
@click.option("--rules", type=click.Path(path_type=Path), help="Thresholds to try (TOML; docs/watch.md).")
@click.option("--show", default=10, show_default=True, help="Print so many findings of each kind.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
@click.pass_obj
def backtest(
    settings: Settings,
    file: Path | None,
    since: datetime | None,
    preset: str | None,
    changes: Sequence[str],
    labels: Path | None,
    label_id: str,
    rules: Path | None,
    show: int,
    as_json: bool,
) -> None:
    """Replay a table of sessions, or the ledger's, and say what would have fired, scored where labels exist."""
    from pipeline.watch.rules import load_rules

    if (file is None) == (since is None):
        raise DocumentError("name a FILE or --since: one of them")
    sessions, rejected = (_of_ledger(settings, since), 0) if since else read_sessions(file or Path(), preset, changes)
    findings = list(replayed(sessions, SessionWatch(load_rules(rules).tuning)))
    table = scores(findings, read_labels(labels, label_id), sessions) if labels else []
    if as_json:
        print(json.dumps(_as_object(sessions, rejected, findings, table)))
        return
    print(f"{len(sessions):,} sessions, {rejected:,} rows not usable")
    _print_findings(findings, show)
    _print_scores(table)


def _of_ledger(settings: Settings, since: datetime) -> list[SessionFacts]:
    from pipeline.clickhouse import Store
    from pipeline.watch.places import Places
    from pipeline.watch.sessions import settled_sessions

    with Store(settings) as store:
        places = Places()
        places.refresh(store)
        return [one.facts for one in settled_sessions(store, places, int(since.replace(tzinfo=UTC).timestamp() * 1000))]


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
