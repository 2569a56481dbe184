"""`wattrate export cdrs|rated`: what billing may rely on, as files that never change."""

import hashlib
import io
import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

import click

from pipeline.clickhouse import Store
from pipeline.errors import BrokerUnavailableError, DocumentError
from pipeline.kafka import Admin
from pipeline.read.checks import instant
from pipeline.read.contract import KINDS, batches, complete_up_to, covered
from pipeline.read.cursor import BEGINNING, Cursor, parse_cursor
from pipeline.read.files import FORMATS
from pipeline.read.sessions import current_log
from pipeline.settings import Settings
from pipeline.topics import READINGS


@click.command()
@click.argument("kind", type=click.Choice(sorted(KINDS)))
@click.option("--since", default=BEGINNING, show_default=True, help="Cursor that the last export printed.")
@click.option("--until", default="", help="Cursor to stop at, to repeat an export; default: all that is complete.")
@click.option("--out", default="-", show_default=True, help="File to write, whole or not at all; - is standard output.")
@click.option("--format", "form", type=click.Choice(sorted(FORMATS)), default="ndjson", show_default=True)
@click.option("--partitions", type=int, help="Partitions of the readings topic; default: ask the broker.")
@click.option("--json", "as_json", is_flag=True, help="Print the outcome as one JSON object.")
@click.pass_obj
def command(
    settings: Settings, kind: str, since: str, until: str, out: str, form: str, partitions: int | None, as_json: bool
) -> None:
    """Export CDRs or rated usage since a cursor.

    The same two cursors give the same rows in the same order for ever, on any machine; what arrives late comes after
    the newer cursor, as corrections (a credit CDR and a new one; rows that reverse and replace). The cursor to go on
    from is printed at the end, and so is `complete_up_to`: the log time up to which everything is in.
    """
    with Store(settings) as store:
        begin = parse_cursor(since)
        end = parse_cursor(until) if until else covered(store)
        with _writing(out) as file:
            told = _Hashing(file)
            what = KINDS[kind]
            rows = FORMATS[form](told, what.schema, batches(store, what, begin, end))
        reached = _reached(settings, store, end, partitions)
    done = {
        "rows": rows,
        "since": str(begin),
        "cursor": str(end),
        "complete_up_to": None if reached is None else instant(reached),
        "sha256": told.digest.hexdigest(),
    }
    words = f"{rows} rows, complete up to {done['complete_up_to'] or 'unknown'}; go on with --since {done['cursor']}"
    print(json.dumps(done) if as_json else words, file=sys.stderr if out == "-" else sys.stdout)


def _reached(settings: Settings, store: Store, end: Cursor, partitions: int | None) -> int | None:
    """complete_up_to; None where a partition has nothing yet, or nobody knows how many there are."""
    log_id = current_log(store)
    if log_id is None:
        return None
    if partitions is None:
        try:
            partitions = Admin(settings).partition_count(READINGS)
        except BrokerUnavailableError as error:
            click.echo(f"complete_up_to is unknown without the broker, or give --partitions: {error.message}", err=True)
            return None
    return complete_up_to(store, end, log_id, partitions)


class _Hashing(io.RawIOBase):
    """A file that hashes what goes through it; closing it leaves the file below open."""

    def __init__(self, file: BinaryIO) -> None:
        self._file, self.digest = file, hashlib.sha256()

    def writable(self) -> bool:
        """It is for writing."""
        return True

    def write(self, data: Any) -> int:
        """Write and hash."""
        self.digest.update(data)
        return self._file.write(data)


@contextmanager
def _writing(out: str) -> Iterator[BinaryIO]:
    """Standard output, or a file that is there only when all of it was written."""
    if out == "-":
        yield sys.stdout.buffer
        return
    path = Path(out)
    part = path.with_name(f".{path.name}.part")
    try:
        with part.open("wb") as file:
            yield file
        part.replace(path)
    except OSError as error:
        raise DocumentError(f"{path} can't be written: {error.strerror or error}") from error
    finally:
        part.unlink(missing_ok=True)
