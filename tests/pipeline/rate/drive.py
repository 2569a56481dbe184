"""The worker's engine driven in memory: a log of records by partition, reference data, batches of any size."""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import msgspec
import numpy as np

from pipeline.codec.control import Control, Reference, Tick, encode_control
from pipeline.codec.records import Records
from pipeline.rate.batch import Batch
from pipeline.rate.engine import Engine
from pipeline.rate.tables import tables_of
from pipeline.reference import LOCATION, TARIFF, TOKEN, Change, ReferenceData
from pipeline.simulate.documents import reference_documents
from pipeline.simulate.fleet import Fleet
from pipeline.simulate.message import Chunk
from pipeline.simulate.partitioning import partition_of
from tests.pipeline.rate.memory import MemoryLedger

Record = tuple[bytes | None, bytes, str | None, int]  # key, value, content type, record time
Log = dict[int, list[Record]]
ARROW = "application/vnd.apache.arrow.stream"


def changes(documents: Mapping[str, Sequence[Any]], version: int = 1) -> list[Change]:
    """Publications of OCPI objects, as `wattrate publish` writes them."""
    kinds = {"tariffs": (TARIFF, "id"), "locations": (LOCATION, "id"), "tokens": (TOKEN, "uid")}
    return [
        Change(version, kind, f"{one['country_code']}*{one['party_id']}*{one[name]}", False, msgspec.json.encode(one))
        for group, (kind, name) in kinds.items()
        for one in documents.get(group, ())
    ]


def fleet_changes(fleet: Fleet) -> list[Change]:
    """A fleet's reference data; of its tokens those that have a tariff of their own."""
    documents = reference_documents(fleet.network)
    tokens = [token for token in documents["tokens"] if token.get("tariff_id")]
    return changes({**documents, "tokens": tokens})


def fleet_log(fleet: Fleet, reference: int = 1) -> tuple[Log, list[dict[str, Any]]]:
    """A fleet's messages by partition, led by the reference record; and the truth about its sessions."""
    log = lead(fleet, reference)
    truth: list[dict[str, Any]] = []
    places: dict[bytes, int] = {}
    for chunk in fleet.chunks():
        truth.extend(chunk.truth.to_pylist())
        for partition, records in chunk_log(chunk, fleet.plan.partitions, places).items():
            log[partition] += records
    return log, truth


def lead(fleet: Fleet, reference: int = 1) -> Log:
    """The reference record that a fleet's log begins with, in every partition."""
    return {p: [control(Reference(reference), fleet.plan.start_ms)] for p in range(fleet.plan.partitions)}


def chunk_log(chunk: Chunk, partitions: int, places: dict[bytes, int]) -> Log:
    """A chunk's messages by partition; `places` remembers the partition of each key."""
    log: Log = {p: [] for p in range(partitions)}
    for time_ms, key, value, partition, headers in zip(*chunk.batch, strict=True):
        if partition is None:
            name = key or b""
            if name not in places:
                places[name] = int(partition_of([name], partitions)[0])
            partition = places[name]
        log[partition].append((key, value, ARROW if headers else None, time_ms))
    return log


def control(said: Control, time_ms: int) -> Record:
    """A control record."""
    return None, encode_control(said), None, time_ms


def tick(time_ms: int) -> Record:
    """A tick."""
    return control(Tick(time_ms), time_ms)


class Drive:
    """An engine over one log, with the ledger that stands behind it."""

    def __init__(
        self, published: Iterable[Change], partitions: int = 1, ledger: MemoryLedger | None = None, **engine: Any
    ) -> None:
        by_version: dict[int, list[Change]] = defaultdict(list)
        for change in published:
            by_version[change.version].append(change)
        self._versions = dict(by_version)
        self.ledger = MemoryLedger() if ledger is None else ledger
        self.engine = Engine(partitions, self.ledger, self._load, **engine)
        self._next: dict[int, int] = defaultdict(int)
        self.rows: dict[str, list[dict[str, Any]]] | None = None

    def keep_rows(self) -> "Drive":
        """Keep every row as the ledger's tables have it."""
        self.rows = defaultdict(list)
        return self

    def _load(self, data: ReferenceData, version: int) -> ReferenceData:
        for at in sorted(v for v in self._versions if data.version < v <= version):
            data = data.changed(at, self._versions[at])
        return data

    def take(self, records: Mapping[int, Sequence[Record]]) -> Batch:
        """One batch."""
        batch = self.engine.process({p: self._records(p, given) for p, given in records.items() if given})
        self.ledger.add(batch, self.engine)
        if self.rows is not None:
            claims = dict.fromkeys(range(len(self.engine.directory.roster)), 1)
            for name, table in tables_of(batch, self.engine.directory, self.engine.sheets, 1, claims).items():
                self.rows[name].extend(table.to_pylist())
        return batch

    def run(self, log: Log, size: int = 0) -> "Drive":
        """A whole log in batches of `size` records a partition; 0: all at once."""
        longest = max(map(len, log.values()))
        step = size or longest
        for first in range(0, longest, step):
            self.take({p: records[first : first + step] for p, records in log.items()})
        return self

    def _records(self, partition: int, given: Sequence[Record]) -> Records:
        first = self._next[partition]
        self._next[partition] = first + len(given)
        return Records(
            [r[1] for r in given], [r[0] for r in given], np.arange(first, first + len(given)),
            [r[2] for r in given], np.array([r[3] for r in given], np.int64),
        )  # fmt: skip
