"""A ledger in memory for a run of weeks: it keeps what later messages may ask for, and of the rest what was billed."""

from collections import defaultdict
from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

from pipeline.rate.batch import AlertRow, Batch
from pipeline.rate.engine import Engine
from pipeline.rate.past import Past, SessionName
from tests.pipeline.rate.memory import Heard, MemoryLedger

Truth = dict[str, Any]


class Name(NamedTuple):
    """Where a session was heard first, and what it calls itself."""

    charge_point_id: str
    connector_id: int
    transaction_id: str
    first_ms: int


class RollingLedger(MemoryLedger):
    """`forget` drops the readings and rated rows of sessions that are over; asking for one of them is an error."""

    def __init__(self) -> None:
        """Nothing heard of."""
        super().__init__()
        self.names: dict[int, Name] = {}
        self.kinds: dict[int, set[str]] = defaultdict(set)  # alert kinds by session
        self.holds: dict[int, str] = {}  # what was done last about a session that was held
        self._last_ms: dict[int, int] = {}
        self._billed_mwh: dict[int, int] = defaultdict(int)
        self._forgotten: set[int] = set()
        self._alert_rows: list[dict[str, Any]] = []

    def add(self, batch: Batch, engine: Engine) -> None:
        """Remember a batch, but not the batch itself."""
        super().add(batch, engine)
        self.batches.clear()
        for cdr in batch.cdrs:
            energy_mwh = cdr.columns["energy_mwh"]
            assert isinstance(energy_mwh, int)
            self._billed_mwh[cdr.place.session_key] += energy_mwh
        for row in batch.quarantine:
            if row.place.session_key:
                self.holds[row.place.session_key] = row.action
        for alert in batch.alerts:
            if alert.action != "opened":
                continue
            if alert.action == "opened":
                self.kinds[alert.place.session_key].add(alert.kind)
            self._alert_rows.append(_alert(alert))

    def note(self, key: int, heard: Heard) -> None:
        """Keep the name of a session when it is heard first, and when it was heard last."""
        first_ms = int(heard.samples["time_ms"].min())
        self._last_ms[key] = max(self._last_ms.get(key, 0), int(heard.samples["received_ms"].max()))
        text = next((text.decode() for text in heard.transaction_ids if text), "")
        known = self.names.get(key)
        if known is None:
            self.names[key] = Name(heard.charge_point_id, heard.connector_id, text, first_ms)
        elif first_ms < known.first_ms or (text and not known.transaction_id):
            self.names[key] = known._replace(
                first_ms=min(first_ms, known.first_ms), transaction_id=known.transaction_id or text
            )

    def past(self, name: SessionName) -> Past:
        """The past of one session. Raises LookupError for one that was forgotten."""
        if name.session_key in self._forgotten:
            raise LookupError(f"session {name.session_key:016x} of {name.charge_point_id} was forgotten too early")
        return super().past(name)

    def forget(self, before_ms: int, waiting: Iterable[int]) -> None:
        """Drop what was last heard of before an instant, but for sessions that still wait for something."""
        kept = set(waiting)
        over = [key for key, last_ms in self._last_ms.items() if last_ms < before_ms and key not in kept]
        for key in over:
            del self._last_ms[key]
            self.drop(key)
        self._forgotten.update(over)

    def matched(self, truth: Iterable[Truth]) -> Iterator[tuple[Truth, list[int]]]:
        """The sessions that metering made of each true one: by transaction id, else by connector and time."""
        by_id: dict[tuple[str, str], list[int]] = defaultdict(list)
        nameless: dict[tuple[str, int], list[tuple[int, int]]] = defaultdict(list)
        for key, name in self.names.items():
            if name.transaction_id:
                by_id[name.charge_point_id, name.transaction_id].append(key)
            else:
                nameless[name.charge_point_id, name.connector_id].append((name.first_ms, key))
        for session in truth:
            keys = by_id.get((session["charge_point_id"], session["transaction_id"]), [])
            place = nameless[session["charge_point_id"], session["connector_id"]]
            within = [key for first_ms, key in place if session["start_ms"] <= first_ms <= session["stop_ms"]]
            yield session, keys or within

    def billed_mwh(self, keys: Iterable[int]) -> int:
        """What stands billed for these sessions, credits taken off."""
        return sum(self._billed_mwh[key] for key in keys)

    def total_mwh(self) -> int:
        """All that stands billed."""
        return sum(self._billed_mwh.values())

    def alert_rows(self) -> list[dict[str, Any]]:
        """Every alert, for other eyes."""
        return self._alert_rows


def _alert(alert: AlertRow) -> dict[str, Any]:
    place = alert.place
    return {
        "kind": alert.kind, "time_ms": alert.time_ms, "charge_point_id": place.charge_point_id,
        "connector_id": place.connector_id, "session_key": f"{place.session_key:016x}", "alert_id": alert.alert_id,
    }  # fmt: skip
