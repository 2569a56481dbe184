"""`wattrate deadletters list|show|retry`: inputs that could not be used."""

import json
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import click

from pipeline.clickhouse import Store
from pipeline.decide import Target, decide, login_name, now_ms
from pipeline.errors import DocumentError
from pipeline.kafka import Admin, Sender
from pipeline.read.dead import DeadRecord, dead_letter, dead_letters, reasons
from pipeline.settings import Settings
from pipeline.topics import ARROW_STREAM, CONTENT_TYPE, READINGS

_ARROW_HEAD = b"\xff\xff\xff\xff"  # every Arrow IPC stream begins so


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
def command() -> None:
    """List, show or send again inputs that could not be used.

    A dead letter is a record of the log that no rule can make sense of; its bytes are kept. It is named by its place,
    partition/offset.
    """


@command.command("list")
@click.option("--reason", default="", help="Only dead letters for this reason.")
@click.option("--limit", default=100, show_default=True, help="The newest so many; 0 for all.")
@click.option("--json", "as_lines", is_flag=True, help="Print one JSON object a line.")
@click.pass_obj
def list_command(settings: Settings, reason: str, limit: int, as_lines: bool) -> None:
    """List dead letters, newest last, and how many there are by reason."""
    with Store(settings) as store:
        log_id = Admin(settings).log_id(READINGS)
        found = dead_letters(store, log_id, reason, limit)
        counts = reasons(store, log_id)
    if as_lines:
        for record in found:
            print(json.dumps(_json(record)))
        return
    for record in found:
        print(f"{record.name:<14} {_instant(record.time_ms)}  {record.reason:<22} {record.detail}")
    print(", ".join(f"{count} {why}" for why, count in counts.items()) or "no dead letters")


@command.command("show")
@click.argument("name")
@click.option("--raw", "raw_only", is_flag=True, help="Print the record's bytes and nothing else.")
@click.option("--json", "as_one", is_flag=True, help="Print one JSON object.")
@click.pass_obj
def show_command(settings: Settings, name: str, raw_only: bool, as_one: bool) -> None:
    """Show the dead letter NAME (partition/offset) with its bytes."""
    with Store(settings) as store:
        record = dead_letter(store, Admin(settings).log_id(READINGS), name)
    if raw_only:
        sys.stdout.buffer.write(record.raw)
    elif as_one:
        print(json.dumps({**_json(record), "raw_hex": record.raw.hex()}))
    else:
        print(f"{record.name}  {_instant(record.time_ms)}  {record.reason}: {record.detail}")
        print(f"key    {_text(record.key) or 'none'}")
        print(f"bytes  {_text(record.raw)}")
        print(f"To send it again: wattrate deadletters retry {record.name} [--edit FILE] [--key CHARGE_POINT]")


@command.command("retry")
@click.argument("names", nargs=-1)
@click.option("--reason", default="", help="All dead letters for this reason.")
@click.option("--edit", "edited", type=click.Path(path_type=Path, dir_okay=False), help="Send these bytes instead.")
@click.option("--key", default="", help="Send with this key (the charge point id) instead of the record's own.")
@click.option("--note", default="", help="Why; kept with the decision.")
@click.option("--actor", default=login_name, show_default="login name", help="Who decides; kept with the decision.")
@click.option("--json", "as_one", is_flag=True, help="Print one JSON object.")
@click.pass_obj
def retry_command(
    settings: Settings,
    names: tuple[str, ...],
    reason: str,
    edited: Path | None,
    key: str,
    note: str,
    actor: str,
    as_one: bool,
) -> None:
    """Send dead letters NAMES (partition/offset) to the log again, mended if need be.

    The record goes to the end of the log with its own key, followed by a `retry` decision that names the old place. If
    it still can't be used it becomes another dead letter.
    """
    if bool(names) == bool(reason):
        raise DocumentError("name the dead letters, or use --reason: one of them")
    if edited is not None and len(names) != 1:
        raise DocumentError("--edit replaces the bytes of one dead letter: name one")
    with Store(settings) as store:
        log_id = Admin(settings).log_id(READINGS)
        found = [dead_letter(store, log_id, name) for name in names] or dead_letters(store, log_id, reason)
    body = _read(edited) if edited else None
    with Sender(settings) as sender:
        for record in found:
            _send(sender, record, record.raw if body is None else body, key.encode() or record.key)
        sender.flush()
        decide(sender, "retry", [Target(r.partition, r.name) for r in found], actor, note, now_ms())
    if as_one:
        print(json.dumps({"sent": [record.name for record in found]}))
    else:
        print(f"{len(found)} records sent again")


def _send(sender: Sender, record: DeadRecord, value: bytes, key: bytes) -> None:
    """A record without a key goes where it was: only Arrow batches may do without one."""
    headers: list[tuple[str, str | bytes | None]] = [("retry-of", record.name)]
    if value.startswith(_ARROW_HEAD):
        headers.append((CONTENT_TYPE, ARROW_STREAM))
    if key:
        sender.send(READINGS, value, key, headers=headers)
    else:
        sender.send(READINGS, value, partition=record.partition, headers=headers)


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise DocumentError(f"{path}: {error.strerror or error}") from error


def _json(record: DeadRecord) -> dict[str, Any]:
    return {
        "name": record.name,
        "time_ms": record.time_ms,
        "reason": record.reason,
        "detail": record.detail,
        "key": _text(record.key),
        "raw": _text(record.raw),
    }


def _text(raw: bytes) -> str:
    return raw.decode("utf-8", "backslashreplace")


def _instant(instant_ms: int) -> str:
    return f"{datetime.fromtimestamp(instant_ms / 1000, UTC):%Y-%m-%d %H:%M:%S}Z"
