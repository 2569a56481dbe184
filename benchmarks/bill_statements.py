"""What each SELECT of an explained bill costs the store when it is asked alone, and what of that is not for its rows.

The statements are those that the bill itself asks, written down as they pass (`billing_reads` makes the store).
"""

from collections import defaultdict
from collections.abc import Iterable, Mapping
from typing import Any, Final, NamedTuple

from benchmarks.stand import Stand
from pipeline.clickhouse import Store
from pipeline.read import explanation
from pipeline.settings import Settings

_NOBODY: Final = "nobody"  # no charge point, transaction or CDR is called so


class Statement(NamedTuple):
    """SQL with its parameters."""

    sql: str
    parameters: dict[str, Any]

    @property
    def table(self) -> str:
        """The one that it reads."""
        return self.sql.split(" FROM ", 1)[1].split()[0]

    def for_nobody(self) -> "Statement":
        """The same, planned in the same way, which finds no row where it asks for a name."""
        return Statement(self.sql, dict.fromkeys(self.parameters, _NOBODY))


class _Listening(Store):
    """A store that keeps what it is asked."""

    def __init__(self, settings: Settings) -> None:
        super().__init__(settings)
        self.asked: list[Statement] = []

    def short(self, sql: str, parameters: Mapping[str, Any] | None = None) -> list[dict[str, Any]]:
        self.asked.append(Statement(sql, dict(parameters or {})))
        return super().short(sql, parameters)


def by_statement(one: Stand, sessions: Iterable[str]) -> dict[str, dict[str, float]]:
    """Table → ms of the store's CPU for its statement: of these sessions, and of nobody's; "" for SELECT 1."""
    asked = defaultdict(list)
    with _Listening(one.settings) as store:
        for name in sessions:
            explanation.explained(store, name)
        for statement in store.asked:
            asked[statement.table].append(statement)
    nothing = Statement("SELECT 1", {})
    with Store(one.settings) as store:
        bare = _cpu_ms(one, store, [nothing] * max(map(len, asked.values())))
        told = {"": {"of_a_session": bare, "of_nobody": bare}}
        for table, statements in asked.items():
            nobody = [statement.for_nobody() for statement in statements]
            told[table] = {"of_a_session": _cpu_ms(one, store, statements), "of_nobody": _cpu_ms(one, store, nobody)}
    return told


def _cpu_ms(one: Stand, store: Store, statements: list[Statement]) -> float:
    before_s = one.cpu_s()["store"]
    for statement in statements:
        store.short(*statement)
    return round(1e3 * (one.cpu_s()["store"] - before_s) / len(statements), 2)
