"""Two ledgers to hold to one contract: ClickHouse behind a network that misbehaves, and the simulated store."""

import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Protocol

import pyarrow as pa

from pipeline.clickhouse import Store
from pipeline.ledger import RATED_USAGE, Ledger, Marker
from pipeline.settings import Settings
from pipeline.store import StoreLedger
from tests.contract.proxy import Fault, Proxy
from tests.simulation.ledger import SimulatedLedger
from tests.simulation.store import Fate, Part, SimulatedStore

LOG = (1 << 64) - 5  # ids use all 64 bits
JUNE, JULY = 1_717_200_000_000, 1_719_800_000_000  # instants in two table partitions


class Bench(Protocol):
    """A ledger and the faults that both kinds have."""

    ledger: Ledger

    def stored(self, table: str) -> list[int]:
        """Offsets of all rows of a table that landed, repeats too; once nothing is on its way any more."""

    def lost_answer(self) -> AbstractContextManager[None]:
        """Inserts land and nobody is told."""

    def late(self) -> AbstractContextManager[None]:
        """Inserts are given up by their writer and land after that."""

    def partial(self, table: str) -> AbstractContextManager[None]:
        """Of an insert into two table partitions only the first lands, and it is acknowledged."""

    def down(self) -> AbstractContextManager[None]:
        """Nobody answers."""

    def refusing(self, cost: int) -> AbstractContextManager[None]:
        """Rated usage of this cost or more is refused."""


class RealBench:
    """ClickHouse through the proxy."""

    def __init__(self, through: Store, direct: Store, proxy: Proxy) -> None:
        """`through` is the ledger's connection, `direct` the test's own."""
        self.ledger: Ledger = StoreLedger(through, LOG)
        self._direct, self._proxy = direct, proxy

    def stored(self, table: str) -> list[int]:
        """Offsets of what landed."""
        before: list[int] = [-1]
        while (now := self._offsets(table)) != before:
            before = now
            time.sleep(0.3)  # nothing tells when a request that nobody waits for has ended
        return now

    def _offsets(self, table: str) -> list[int]:
        found: list[int] = self._direct.scalar(f"SELECT arraySort(groupArray(offset)) FROM {table}")
        return found

    def lost_answer(self) -> AbstractContextManager[None]:
        """The proxy cuts before the answer."""
        return self._proxy.fault(Fault(cut_answer_after=0))

    def late(self) -> AbstractContextManager[None]:
        """The proxy is slower than the writer's patience."""
        return self._proxy.fault(Fault(delay_s=3.0))

    @contextmanager
    def partial(self, table: str) -> Iterator[None]:
        """Something lies where the second part is to be renamed to; parts are numbered through."""
        path = Path(self._direct.scalar("SELECT data_paths[1] FROM system.tables WHERE name = {t:String} AND "
                                        "database = currentDatabase()", {"t": table}))  # fmt: skip
        number = int(self._direct.scalar(
            "SELECT max(max_block_number) FROM system.parts WHERE table = {t:String} AND database = currentDatabase()",
            {"t": table},
        ))  # fmt: skip
        obstacles = [path / f"202407_{number + 2}_{number + 2}_{level}" for level in (0, 1)]
        for obstacle in obstacles:
            (obstacle / "in the way").mkdir(parents=True)
        try:
            yield
        finally:
            for obstacle in obstacles:
                shutil.rmtree(obstacle)
            self._direct.command(
                f"DETACH TABLE {table}"
            )  # the engine takes the lost part for present until it restarts
            self._direct.command(f"ATTACH TABLE {table}")

    def down(self) -> AbstractContextManager[None]:
        """Connections are refused."""
        return self._proxy.fault(Fault(refuse=True))

    @contextmanager
    def refusing(self, cost: int) -> Iterator[None]:
        """By a constraint."""
        self._direct.command(f"ALTER TABLE {RATED_USAGE} ADD CONSTRAINT little CHECK cost < {cost}")
        yield
        self._direct.command(f"ALTER TABLE {RATED_USAGE} DROP CONSTRAINT little")


class SimulatedBench:
    """The simulated store; what lands late does so when somebody looks at what is stored."""

    def __init__(self) -> None:
        """Empty."""
        self._later: list[Callable[[], None]] = []
        self._store = SimulatedStore(lambda _seconds, event: self._later.append(event))
        self.ledger: Ledger = SimulatedLedger(self._store, LOG)

    def stored(self, table: str) -> list[int]:
        """Offsets of what landed."""
        while self._later:
            self._later.pop(0)()
        return sorted(row["offset"] for row in self._store.stored(table))

    @contextmanager
    def _fate(self, fate: Callable[[list[Part]], Fate]) -> Iterator[None]:
        before, self._store.fate = self._store.fate, fate
        yield
        self._store.fate = before

    def lost_answer(self) -> AbstractContextManager[None]:
        """They land."""
        return self._fate(lambda parts: Fate([0.0] * len(parts), answered=False))

    def late(self) -> AbstractContextManager[None]:
        """They land later."""
        return self._fate(lambda parts: Fate([1.0] * len(parts), answered=False))

    def partial(self, table: str) -> AbstractContextManager[None]:
        """The first lands."""
        return self._fate(lambda parts: Fate([0.0, None]))

    @contextmanager
    def down(self) -> Iterator[None]:
        """No answer to questions, nothing of an insert."""
        self._store.down = lambda: True
        with self._fate(lambda parts: Fate([None] * len(parts), answered=False)):
            yield
        self._store.down = lambda: False

    @contextmanager
    def refusing(self, cost: int) -> Iterator[None]:
        """By what is asked of each row."""
        self._store.refuses = lambda table, row: table == RATED_USAGE and row["cost"] >= cost
        yield
        self._store.refuses = lambda _table, _row: False


@contextmanager
def real_bench(server: Settings, direct: Store) -> Iterator[Bench]:
    """A bench over the server, in the database of `direct`."""
    with Proxy(server.clickhouse_port) as proxy:
        through = replace(server, clickhouse_port=proxy.port, clickhouse_database=direct.database)
        with Store(through, timeout_s=1) as store:
            yield RealBench(store, direct, proxy)


def usage(offsets: list[int], claim: int = 1, partition: int = 0, cost: int = -(1 << 61), at: int = JUNE) -> pa.Table:
    """Rated usage, a row an offset."""
    rows = len(offsets)
    return pa.table(
        {
            "log_id": pa.array([LOG] * rows, pa.uint64()),
            "partition": pa.array([partition] * rows, pa.uint16()),
            "offset": pa.array(offsets, pa.uint64()),
            "line": pa.array([0] * rows, pa.uint64()),
            "claim": pa.array([claim] * rows, pa.uint32()),
            "charge_point_id": pa.array(["CP1"] * rows),
            "session_key": pa.array([7] * rows, pa.uint64()),
            "start": pa.array([at] * rows, pa.timestamp("ms", "UTC")),
            "end": pa.array([at + 60_000] * rows, pa.timestamp("ms", "UTC")),
            "dimension": pa.array(["ENERGY"] * rows),
            "quantity": pa.array([5] * rows, pa.int64()),
            "cost": pa.array([cost] * rows, pa.int64()),
        }
    )


def marker(first: int, last: int, claim: int = 1, partition: int = 0) -> Marker:
    """A marker of rated usage."""
    zero = dict.fromkeys(("control", "duplicate", "quarantined", "dead_lettered", "cdrs", "alerts", "quarantine"), 0)
    count = last - first + 1
    return Marker(
        partition, claim, first, last, records=count, used=count, readings=count, rated=count, energy_mwh=-3, cost=4,
        checksum=LOG, log_time=1_700_000_000_123, reference_version=2, code_version="1", written_at=1_800_000_000_456,
        **zero,
    )  # fmt: skip
