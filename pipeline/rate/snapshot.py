"""The state of one partition as bytes, and back: what recovery starts from instead of the whole log.

A snapshot says which offset it is of, which code and layout wrote it, and carries a checksum; anything that does not
fit is refused, and an older one, or the log from its start, is used. Rate sheets travel by name (tariff version and
zone), because their numbers are this worker's own.
"""

import hashlib
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any, Final, NamedTuple

import msgspec
import numpy as np
import numpy.typing as npt
import zstandard

from pipeline.codec.records import TRANSACTION_ID_DTYPE
from pipeline.errors import IntegrityError
from pipeline.ledger import Snapshot
from pipeline.metering.output import Rows, opaque, rows_at
from pipeline.metering.state import CONNECTOR_DTYPE, MARK_DTYPE, MARKS, PERIOD_DTYPE, periods_of
from pipeline.rate.engine import Engine
from pipeline.rate.memory import give_back
from pipeline.rate.partition import Held, PartitionState
from pipeline.rate.signed_values import SignedValue
from pipeline.texts import Packed
from rating.ratesheet import COMPONENTS_AT

_ARRAYS: Final = {
    "connectors": CONNECTOR_DTYPE, "marks": MARK_DTYPE, "periods": PERIOD_DTYPE, "lengths": np.dtype(np.int64),
    "texts": np.dtype(TRANSACTION_ID_DTYPE), "names": np.dtype(np.uint8), "name_ends": np.dtype(np.int64),
    "tokens": np.dtype(np.uint8), "token_ends": np.dtype(np.int64),
}  # fmt: skip
_LAYOUT: Final = hashlib.sha256(repr((_ARRAYS, MARKS)).encode()).hexdigest()[:16]
CODE_VERSION: Final = f"6-{_LAYOUT}"
# Fields that point into tables of this worker, and are written anew when the state is taken in elsewhere.
_TEXTS: Final = (("tokens", "token_ends"), ("names", "name_ends"))
_LENGTH: Final = 8  # bytes that say how long the header is
_CHAINS: Final = ("sibling", "follows", "head", "tail")


class _Header(msgspec.Struct, frozen=True):
    partition: int
    last_offset: int
    log_time_ms: int
    reference_version: int
    policy_version: int
    held: list[tuple[int, dict[str, Any]]]
    apart: list[tuple[int, int]]
    signed: list[tuple[int, list[SignedValue]]]
    sheets: list[tuple[str, str]]
    first_components: list[int]
    rows: dict[str, int]  # of each array: they follow in this order


class StateCopy(NamedTuple):
    """A partition's state at an offset, copied out of the engine: packing it may wait, and go on in another thread."""

    header: _Header  # without its arrays
    arrays: Mapping[str, Rows]
    claim: int
    taken_at_ms: int

    def packed(self) -> Snapshot:
        """As the ledger stores it."""
        rows = {name: len(array) for name, array in self.arrays.items()}
        header = msgspec.msgpack.encode(msgspec.structs.replace(self.header, rows=rows))
        parts: list[bytes | memoryview] = [
            len(header).to_bytes(_LENGTH, "little"),
            header,
            *map(_raw, self.arrays.values()),
        ]
        size = sum(map(len, parts))
        packing = zstandard.ZstdCompressor(level=1).compressobj(size=size)  # part by part: nothing is copied once more
        payload = b"".join([packing.compress(part) for part in parts] + [packing.flush()])
        partition, last_offset = self.header.partition, self.header.last_offset
        return Snapshot(partition, self.claim, last_offset, CODE_VERSION, checksum(payload), payload, self.taken_at_ms)


def take(engine: Engine, partition: int, last_offset: int, claim: int, taken_at_ms: int) -> StateCopy:
    """The partition's state after `last_offset`."""
    directory = engine.directory
    rows = directory.members(partition)
    connectors = rows_at(directory.state.connectors, rows)
    marks = rows_at(directory.state.marks, _marks_of(rows, connectors))  # those in use, one connector's after the other
    periods, lengths = periods_of(directory.state.periods, connectors["head"])
    names = directory.charge_points.names(rows)
    state = engine.own(partition)
    tokens, connectors["token"] = _renumbered(connectors["token"])
    uids = directory.tokens.taken(np.array(tokens, np.int64))
    used, connectors["sheet"] = _renumbered(connectors["sheet"])
    connectors["limits"] = 0  # this worker's own numbers; `Engine.defaults` finds those of who takes the state in
    sources = [engine.sheets.builder.sources[sheet] for sheet in used]
    header = _Header(
        partition, last_offset, state.log_time_ms, state.reference_version, state.policy_version,
        [(key, asdict(held)) for key, held in state.held.items()], list(state.apart.items()),
        [(key, list(values)) for key, values in state.signed.items()],
        [(source.key, source.zone) for source in sources],
        [int(engine.sheets.book.sheets[sheet, COMPONENTS_AT]) for sheet in used], {},
    )  # fmt: skip
    arrays = {
        "connectors": connectors, "marks": marks, "periods": periods, "lengths": lengths,
        "texts": directory.transaction_ids[rows], "names": names.data, "name_ends": names.ends,
        "tokens": uids.data, "token_ends": uids.ends,
    }  # fmt: skip
    return StateCopy(header, arrays, claim, taken_at_ms)


def checksum(payload: bytes) -> int:
    """64 bits that a torn or changed payload does not have."""
    return int.from_bytes(hashlib.blake2b(payload, digest_size=8).digest(), "little")


def restore(engine: Engine, snapshot: Snapshot) -> PartitionState:
    """Take a partition's state in. Raises IntegrityError for a torn, foreign or older-layout snapshot."""
    if snapshot.code_version != CODE_VERSION:
        raise IntegrityError(f"snapshot of partition {snapshot.partition} was taken by other code: not used")
    if checksum(snapshot.payload) != snapshot.checksum:
        raise IntegrityError(f"snapshot of partition {snapshot.partition} at {snapshot.last_offset} is torn: not used")
    whole = memoryview(zstandard.decompress(snapshot.payload))
    begin = _LENGTH + int.from_bytes(whole[:_LENGTH], "little")
    header = msgspec.msgpack.decode(whole[_LENGTH:begin], type=_Header)
    if (header.partition, header.last_offset) != (snapshot.partition, snapshot.last_offset):
        raise IntegrityError(f"snapshot of partition {snapshot.partition} holds partition {header.partition}: not used")
    state = PartitionState(
        header.partition, header.log_time_ms, header.reference_version, header.policy_version,
        {key: Held(**held) for key, held in header.held}, dict(header.apart),
        {key: tuple(values) for key, values in header.signed},
    )  # fmt: skip
    engine.drop(header.partition)
    engine.partitions[header.partition] = state
    _take_in(engine, header, _arrays(whole[begin:], header.rows))
    del whole
    give_back()  # before the next partition: several times what it takes in goes through memory
    return state


def _raw(rows: Rows) -> memoryview:
    """The bytes of an array, not copied."""
    return np.ascontiguousarray(rows).view(np.uint8).data


def _arrays(stored: memoryview, rows: Mapping[str, int]) -> dict[str, Any]:
    """The arrays that lie one behind the other."""
    found, at = {}, 0
    for name, kind in _ARRAYS.items():
        found[name] = np.frombuffer(stored, kind, rows[name], at)
        at += found[name].nbytes
    return found


def _take_in(engine: Engine, header: _Header, stored: Mapping[str, Any]) -> None:
    """All connectors at once, field by field; only places in this worker's own tables are given one by one."""
    directory = engine.directory
    connectors = stored["connectors"]
    sheets, shifts = _sheets(engine, header, connectors)
    # Copied, so that they are writable: that is what compiled code knows.
    uids, names = (Packed(stored[of].copy(), stored[ends].copy()) for of, ends in _TEXTS)
    tokens = np.append(directory.tokens.numbers_of(uids), np.int32(-1))
    rows = directory.take_in(names, connectors["connector_id"], header.partition, connectors["identity"])
    used = connectors["sheet"]
    shift = np.array(shifts, np.int64)[used]
    own = directory.state.connectors
    chains = {field: own[field][rows] for field in _CHAINS}
    opaque(own)[rows] = opaque(connectors)
    for field, places in chains.items():
        own[field][rows] = places
    own["token"][rows] = tokens[connectors["token"]]
    own["sheet"][rows] = np.array(sheets, np.int64)[used]
    for field in ("flat", "flat_reserved", "flat_expired"):
        own[field][rows] += np.where(connectors[field] >= 0, shift, 0).astype(np.int32)
    own["periods"][rows] = 0
    directory.transaction_ids[rows] = stored["texts"]
    opaque(directory.state.marks)[_marks_of(rows, connectors)] = opaque(stored["marks"])
    _take_in_periods(engine, rows, shift, stored)


def _marks_of(rows: npt.NDArray[np.integer], connectors: Rows) -> npt.NDArray[np.int64]:
    """Where the marks of connectors stand that are in use; `connectors` are these rows of the state."""
    counts = connectors["n_marks"].astype(np.int64)
    begin = np.repeat(rows.astype(np.int64) * MARKS - (np.cumsum(counts) - counts), counts)
    return begin + np.arange(len(begin))


def _take_in_periods(engine: Engine, rows: Any, shift: Any, stored: Mapping[str, Any]) -> None:
    periods = stored["periods"].copy()
    shift = np.repeat(shift, stored["lengths"])
    for field in ("energy_component", "time_component"):
        periods[field] += np.where(periods[field] >= 0, shift, 0).astype(np.int32)
    engine.directory.append_periods(rows, stored["lengths"], periods)


def _sheets(engine: Engine, header: _Header, connectors: Any) -> tuple[list[int], list[int]]:
    """This worker's number of each sheet, and how far its components lie from where they were; -1 comes last."""
    starts = connectors["start_ms"][connectors["open"] == 1]
    reserved = connectors["since_ms"][connectors["since_ms"] > 0]  # of open sessions later than their start
    earliest_ms = reserved.min(initial=starts.min(initial=header.log_time_ms))
    engine.sheets.cover(int(earliest_ms), header.log_time_ms + 1)
    numbers = [engine.sheets.sheet_named(key, zone) for key, zone in header.sheets]
    book = engine.sheets.book if numbers else None
    shifts = [
        int(book.sheets[number, COMPONENTS_AT]) - first
        for number, first in zip(numbers, header.first_components, strict=True)
        if book is not None
    ]
    return [*numbers, -1], [*shifts, 0]


def _renumbered(numbers: npt.NDArray[np.int32]) -> tuple[list[int], npt.NDArray[np.int32]]:
    """The numbers in use, and the place of each among them; -1 stays."""
    there = np.zeros(int(numbers.max(initial=-1)) + 1, np.bool_)
    there[numbers[numbers >= 0]] = True
    places = np.append(np.cumsum(there, dtype=np.int32) - 1, np.int32(-1))
    return np.flatnonzero(there).tolist(), places[numbers]
