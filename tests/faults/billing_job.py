"""A billing job as docs/billing-contract.md tells: it books every CDR exactly once, however often it is killed.

`python -m tests.faults.billing_job BOOKS.sqlite [--once]` reads CDRs since its stored cursor, and books them and the
new cursor in one transaction. Rows go in by a plain INSERT on their identity: one that were read twice would end it.
"""

import sqlite3
import sys
import time
from pathlib import Path

from pipeline.clickhouse import Store
from pipeline.errors import StoreUnavailableError
from pipeline.read.contract import cdrs, covered
from pipeline.read.cursor import BEGINNING, parse_cursor
from pipeline.settings import load

_PAUSE_S = 0.1


def opened(path: Path) -> sqlite3.Connection:
    """The books, made when absent."""
    books = sqlite3.connect(path, isolation_level=None)
    books.execute("CREATE TABLE IF NOT EXISTS booked (id TEXT PRIMARY KEY, session_key INTEGER, total_e4 INTEGER)")
    books.execute("CREATE TABLE IF NOT EXISTS stored (at INTEGER PRIMARY KEY, cursor TEXT)")
    return books


def book(store: Store, books: sqlite3.Connection) -> None:
    """One run: from the stored cursor to all that counts now."""
    stored = books.execute("SELECT cursor FROM stored ORDER BY at DESC LIMIT 1").fetchone()
    since, until = parse_cursor(stored[0] if stored else BEGINNING), covered(store)
    books.execute("BEGIN")
    for cdr in cdrs(store, since, until):
        books.execute("INSERT INTO booked VALUES (?, ?, ?)", (cdr.id, f"{cdr.session_key:016x}", cdr.total_incl_e4))
    books.execute("INSERT INTO stored (cursor) VALUES (?)", (str(until),))
    books.execute("COMMIT")


def main(path: Path, *, once: bool) -> None:
    """Go on for ever, through outages of the store."""
    books = opened(path)
    while True:
        try:
            with Store(load()) as store:
                book(store, books)
        except StoreUnavailableError:
            if books.in_transaction:
                books.execute("ROLLBACK")
        else:
            if once:
                return
        time.sleep(_PAUSE_S)


if __name__ == "__main__":
    main(Path(sys.argv[1]), once="--once" in sys.argv)
