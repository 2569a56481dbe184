"""The past of sessions over the simulated store: what the statements of `ledger_history.StorePast` answer."""

from collections.abc import Callable
from typing import Any, Final

import pyarrow as pa

from pipeline.metering import kinds
from pipeline.metering.columns import ABSENT_I64
from pipeline.rate.ledger_history import Asked
from pipeline.rate.tables import DIMENSIONS
from tests.simulation.store import Row, SimulatedStore

_DUPLICATE: Final = kinds.VERDICTS[kinds.DUPLICATE]
_SAME: Final = ("session_key", "offset", "line", "transaction_id", "seq_no", "flags", "soc_permille", "kind", "context",
                "state", "signed", "phases")  # fmt: skip
_RENAMED: Final = {
    "time_ms": "time", "received_ms": "received_at", "register": "register_mwh", "power": "power_mw",
    "current": "current_ma", "connector": "connector_id", "uid": "id_token", "version": "reference_version",
}  # fmt: skip
_RATED: Final = ("session_key", "quantity", "cost", "price_e4", "element", "component", "state", "flags")
_TYPES: Final[dict[str, pa.DataType]] = {"session_key": pa.uint64(), "transaction_id": pa.binary(), "uid": pa.string(),
                                         "tariff_key": pa.string()}  # fmt: skip


class SimulatedPast:
    """`pipeline.rate.ledger_history.PastRows`."""

    def __init__(self, store: SimulatedStore, step: Callable[[str], None]) -> None:
        """`step` is called before each question."""
        self._store, self._step = store, step

    def _rows(self, table: str, asked: Asked) -> list[Row]:
        self._step(f"past of {table}")
        self._store.ask()
        rows = [
            row
            for row in self._store.visible(table)
            if row["charge_point_id"] in asked.charge_points
            and row["session_key"] in asked.session_keys
            and row["offset"] < asked.firsts.get(row["partition"], 0)
        ]
        return sorted(rows, key=lambda row: row["session_key"])  # visible rows come by identity, and the sort is stable

    def samples(self, asked: Asked) -> pa.Table:
        """Readings but duplicates."""
        rows = [row for row in self._rows("reading_rows", asked) if row["verdict"] != _DUPLICATE]
        names = {**{name: name for name in _SAME}, **_RENAMED}
        return _table({to: [_given(row[name]) for row in rows] for to, name in names.items()})

    def rated(self, asked: Asked) -> pa.Table:
        """Rated usage."""
        rows = self._rows("rated_usage_rows", asked)
        return _table(
            {
                **{name: [row[name] for row in rows] for name in _RATED},
                "start_ms": [row["start"] for row in rows],
                "end_ms": [row["end"] for row in rows],
                "dimension": [DIMENSIONS.index(row["dimension"]) for row in rows],
                "tariff_key": [row["tariff"] for row in rows],
            }
        )

    def alerted(self, asked: Asked) -> dict[int, frozenset[str]]:
        """Kinds of alerts by session."""
        found: dict[int, set[str]] = {}
        for row in self._rows("alert_rows", asked):
            found.setdefault(row["session_key"], set()).add(row["kind"])
        return {key: frozenset(kinds_of) for key, kinds_of in found.items()}

    def cdrs(self, asked: Asked) -> list[dict[str, Any]]:
        """CDRs and credits."""
        rows = sorted(self._rows("cdr_rows", asked), key=lambda row: (row["session_key"], row["revision"]))
        renamed = {"start_ms": "start", "end_ms": "end", "settled_ms": "settled_at"}
        return [
            {**row, **{to: row[name] for to, name in renamed.items()}, "document_hex": row["document"].hex()}
            for row in rows
        ]


def _given(value: Any) -> Any:
    return ABSENT_I64 if value is None else value


def _table(columns: dict[str, list[Any]]) -> pa.Table:
    return pa.table({name: pa.array(values, _TYPES.get(name, pa.int64())) for name, values in columns.items()})
