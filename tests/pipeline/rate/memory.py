"""A ledger in memory: what the worker's batches said so far, as the engine's `History` and as tests want to read it."""

from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from pipeline.metering import kinds
from pipeline.metering.columns import KIND_TICK
from pipeline.metering.output import Rows
from pipeline.rate.batch import AlertRow, Batch, CdrRow, DeadRow, QuarantineRow, last_number, standing_of
from pipeline.rate.directory import Directory
from pipeline.rate.engine import Engine
from pipeline.rate.past import NOTHING, LastCdr, Past, SessionName
from pipeline.rate.rows import FLAG_REVERSAL, RATED_DTYPE
from pipeline.rate.segment import Samples


@dataclass
class Heard:
    """Readings of one session in one batch."""

    samples: Rows
    versions: npt.NDArray[np.int64]
    transaction_ids: list[bytes]
    tokens: list[str]
    charge_point_id: str
    connector_id: int


class MemoryLedger:
    """`pipeline.rate.past.History` over arrays. `add` takes each batch once it is done, as the ledger does."""

    def __init__(self) -> None:
        self.batches: list[Batch] = []
        self._heard: dict[int, list[Heard]] = defaultdict(list)
        self._rated: dict[int, list[tuple[Rows, list[str]]]] = defaultdict(list)
        self._cdrs: dict[int, list[CdrRow]] = defaultdict(list)
        self._alerts: dict[int, set[str]] = defaultdict(set)

    def add(self, batch: Batch, engine: Engine) -> None:
        """Remember what a batch adds; names are resolved now, because a directory's numbers don't last."""
        self.batches.append(batch)
        for given in batch.metered:
            for key, chosen in _groups(_heard_keys(given)):
                heard = _heard(given, chosen, engine.directory)
                self._heard[key].append(heard)
                self.note(key, heard)
        for rows in batch.rated:
            for key, chosen in _groups(rows["session_key"]):
                sources = engine.sheets.builder.sources
                taken = rows[chosen]
                self._rated[key].append((taken, [sources[sheet].key for sheet in taken["sheet"].tolist()]))
        for cdr in batch.cdrs:
            self._cdrs[cdr.place.session_key].append(cdr)
        for alert in batch.alerts:
            self._alerts[alert.place.session_key].add(alert.kind)

    def note(self, key: int, heard: Heard) -> None:
        """A place for those who want to know what is heard of a session; here nobody does."""

    def drop(self, key: int) -> None:
        """Forget the readings, rated rows and CDRs of a session."""
        for kept in (self._heard, self._rated, self._cdrs, self._alerts):
            kept.pop(key, None)

    def prefetch(self, names: Iterable[SessionName]) -> None:
        """Everything is at hand."""

    def past(self, name: SessionName) -> Past:
        """The past of one session."""
        heard = self._heard.get(name.session_key)
        if not heard:
            return NOTHING
        tokens = list(dict.fromkeys(uid for one in heard for uid in one.tokens if uid))
        samples = np.concatenate([one.samples for one in heard])
        samples["token"] = [tokens.index(uid) if uid else -1 for one in heard for uid in one.tokens]
        rated, tariffs = self.rated_of(name.session_key)
        return Past(
            samples=samples,
            versions=np.concatenate([one.versions for one in heard]),
            rated=rated,
            cdr=self.standing_cdr(name.session_key),
            revision=self.revision(name.session_key),
            alerted=frozenset(self._alerts.get(name.session_key, ())),
            transaction_id=next((text for one in heard for text in one.transaction_ids if text), b""),
            connector_id=heard[0].connector_id,
            tokens=tuple(tokens),
            tariffs=tariffs,
        )

    def rated_of(self, session_key: int) -> tuple[Rows, tuple[str, ...]]:
        """Rated rows of a session; their sheets are numbers of the tariff keys given back."""
        parts = self._rated.get(session_key, [])
        keys = [key for _, keys in parts for key in keys]
        tariffs = tuple(dict.fromkeys(keys))
        rated = np.concatenate([rows for rows, _ in parts]) if parts else np.zeros(0, RATED_DTYPE)
        rated["sheet"] = [tariffs.index(key) for key in keys]
        return rated, tariffs

    def standing_cdr(self, session_key: int) -> LastCdr | None:
        """The CDR that stands: the last one, unless it is a credit."""
        cdrs = self._cdrs.get(session_key)
        return standing_of(cdrs[-1].columns) if cdrs else None

    def revision(self, session_key: int) -> int:
        """Of the session's last CDR or credit; 0 where there is none."""
        cdrs = self._cdrs.get(session_key)
        return last_number(cdrs[-1].columns, "revision") if cdrs else 0

    @property
    def sessions(self) -> list[int]:
        """Keys of all sessions heard of."""
        return list(self._heard)

    def transaction_id(self, session_key: int) -> str:
        """Of a session, "" where it has none."""
        return next((t.decode() for one in self._heard[session_key] for t in one.transaction_ids if t), "")

    def place(self, session_key: int) -> tuple[str, int, int]:
        """Charge point, connector and the earliest instant of a session."""
        heard = self._heard[session_key]
        first_ms = min(int(one.samples["time_ms"].min()) for one in heard)
        return heard[0].charge_point_id, heard[0].connector_id, first_ms

    def net(self, session_key: int) -> dict[tuple[object, ...], tuple[int, int]]:
        """Rated amounts of a session that stand: (dimension, start, end, price) → (quantity, cost)."""
        rated, tariffs = self.rated_of(session_key)
        found: dict[tuple[object, ...], tuple[int, int]] = {}
        for row in rated:
            key = (int(row["dimension"]), int(row["start_ms"]), int(row["end_ms"]), int(row["price_e4"]),
                   int(row["element"]), int(row["component"]), tariffs[row["sheet"]])  # fmt: skip
            quantity, cost = found.get(key, (0, 0))
            found[key] = (quantity + int(row["quantity"]), cost + int(row["cost"]))
        return {key: amounts for key, amounts in found.items() if amounts != (0, 0) or not _reversed(rated, key)}

    @property
    def cdrs(self) -> list[CdrRow]:
        """Every CDR and credit, in order."""
        return [cdr for batch in self.batches for cdr in batch.cdrs]

    @property
    def alerts(self) -> list[AlertRow]:
        """Every alert row, in order."""
        return [alert for batch in self.batches for alert in batch.alerts]

    @property
    def quarantine(self) -> list[QuarantineRow]:
        """Every hold and what became of it, in order."""
        return [row for batch in self.batches for row in batch.quarantine]

    @property
    def dead(self) -> list[DeadRow]:
        """Every dead letter, in order."""
        return [row for batch in self.batches for row in batch.dead]

    def rated(self) -> Iterator[np.void]:
        """Every rated row, in order."""
        for batch in self.batches:
            for rows in batch.rated:
                yield from rows


def _reversed(rated: Rows, key: tuple[object, ...]) -> bool:
    same = (rated["dimension"] == key[0]) & (rated["start_ms"] == key[1]) & (rated["end_ms"] == key[2])
    return bool((rated["flags"][same] & FLAG_REVERSAL).any())


def _heard_keys(given: Samples) -> npt.NDArray[np.uint64]:
    counts = (given.facts["verdict"] != kinds.DUPLICATE) & (given.samples["kind"] != KIND_TICK)
    return np.where(counts, given.facts["session_key"], np.uint64(0))


def _groups(keys: npt.NDArray[np.uint64]) -> Iterator[tuple[int, npt.NDArray[np.intp]]]:
    """Rows of each session in order; rows of none are left out."""
    if not len(keys):
        return
    order = np.argsort(keys, kind="stable")
    unique, first = np.unique(keys[order], return_index=True)
    ends = np.append(first[1:], len(order))
    for key, start, end in zip(unique.tolist(), first.tolist(), ends.tolist(), strict=True):
        if key:
            yield key, order[start:end]


def _heard(given: Samples, chosen: npt.NDArray[np.intp], directory: Directory) -> Heard:
    samples = given.samples[chosen].copy()
    row = int(given.facts["row"][chosen[0]])
    return Heard(
        samples, given.versions[chosen].copy(), [bytes(text) for text in given.transaction_ids[chosen]],
        [directory.token_text(token) for token in samples["token"].tolist()], directory.charge_points[row],
        int(directory.state.connectors["connector_id"][row]),
    )  # fmt: skip
