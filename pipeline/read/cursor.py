"""A cursor: up to where in each partition of each log a reader has read. As text it is safe in a shell and a URL.

    w1.<log id, 16 hex digits>-<next offset of partition 0>-<of partition 1>-….<checksum>

One section a log, in the order of their ids; the checksum is the CRC-32 of all before it. "start" is the beginning of
everything. Partitions that a cursor does not name begin at offset 0.
"""

import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from pipeline.errors import DocumentError

_VERSION: Final = "w1"
BEGINNING: Final = "start"


@dataclass(frozen=True)
class Cursor:
    """Log → next offset by partition. Equal cursors are equal texts."""

    logs: tuple[tuple[int, tuple[int, ...]], ...] = ()

    @classmethod
    def of(cls, ends: Mapping[tuple[int, int], int]) -> "Cursor":
        """From (log, partition) → next offset."""
        by_log: dict[int, dict[int, int]] = {}
        for (log_id, partition), offset in ends.items():
            by_log.setdefault(log_id, {})[partition] = offset
        return cls(tuple((log, tuple(of.get(p, 0) for p in range(max(of) + 1))) for log, of in sorted(by_log.items())))

    def next_offset(self, log_id: int, partition: int) -> int:
        """The first offset that was not read."""
        offsets = dict(self.logs).get(log_id, ())
        return offsets[partition] if partition < len(offsets) else 0

    def items(self) -> list[tuple[int, int, int]]:
        """(log, partition, next offset), in the order of export."""
        return [(log, partition, offset) for log, offsets in self.logs for partition, offset in enumerate(offsets)]

    def __str__(self) -> str:
        if not self.logs:
            return BEGINNING
        sections = ["-".join([f"{log:016x}", *map(str, offsets)]) for log, offsets in self.logs]
        body = ".".join([_VERSION, *sections])
        return f"{body}.{_checksum(body)}"


START: Final = Cursor()


def parse_cursor(text: str) -> Cursor:
    """The cursor that `text` is. Raises DocumentError for anything else."""
    if text == BEGINNING:
        return START
    body, _, checksum = text.strip().rpartition(".")
    version, *sections = body.split(".")
    if version != _VERSION or not sections or checksum != _checksum(body):
        raise DocumentError(
            f"{text[:60]!r} is no cursor: give the one that the last export printed, whole, or {BEGINNING!r}"
        )
    return Cursor(tuple(_section(section) for section in sections))


def _section(section: str) -> tuple[int, tuple[int, ...]]:
    log, *offsets = section.split("-")
    return int(log, 16), tuple(int(offset) for offset in offsets)


def _checksum(body: str) -> str:
    return f"{zlib.crc32(body.encode()):08x}"
