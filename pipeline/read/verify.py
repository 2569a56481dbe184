"""The verifier: every control total of the ledger, checked from what readers see."""

from collections.abc import Iterator
from typing import Any

from pipeline.clickhouse import Store
from pipeline.read.checks import BROKEN, Check, Scope
from pipeline.read.verify_kept import kept_check
from pipeline.read.verify_registers import register_checks
from pipeline.read.verify_rows import row_checks
from pipeline.read.verify_sessions import session_checks


def verify(store: Store, since_ms: int | None = None) -> Iterator[Check]:
    """Check after check, as they come; `since_ms`: only markers with that log time or later, and sessions of theirs."""
    scope = Scope(since_ms)
    yield from row_checks(store, scope)
    yield kept_check(store, scope)
    yield from session_checks(store, scope)
    yield from register_checks(store, scope)


def report(checks: list[Check]) -> dict[str, Any]:
    """The checks as one JSON object; `holds` is False when one is broken."""
    return {"holds": all(one.state != BROKEN for one in checks), "checks": [vars(one) for one in checks]}
