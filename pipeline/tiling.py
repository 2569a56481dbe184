"""How far the markers of a partition tile, told from sums: recovery must not read every marker that there ever was.

Markers that tile offsets low … end - 1 have lengths that sum up to end - low, and at every seam one marker's end is the
next one's first offset: with any function h, the sum of h(last + 1) - h(first) is h(end) - h(low) alone. h spreads its
64 bits, so that a marker which lacks, or is there twice, shows. Where sums do not fit, that claim's markers are read:
so nothing is trusted that was written about the markers, and a marker that the store lost long ago is still missed.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

_WRAP: Final = 1 << 64
_MASK: Final = _WRAP - 1
UNBOUNDED: Final = _MASK  # the end of the claim that nobody followed


@dataclass(frozen=True)
class Extent:
    """A claim that counts, and the offsets in which its markers hold: first_offset … end_offset - 1."""

    claim: int
    first_offset: int
    end_offset: int


@dataclass(frozen=True)
class Marked:
    """What all markers of a claim sum up to, repeats and those behind its end too; sums modulo 2^64."""

    claim: int
    first_offset: int  # the least
    lengths: int
    seams: int


def spread(number: int) -> int:
    """ClickHouse's intHash64."""
    number ^= 0x4CF2D2BAAE6DA887
    number ^= number >> 33
    number = number * 0xFF51AFD7ED558CCD & _MASK
    number ^= number >> 33
    number = number * 0xC4CEB9FE1A85EC53 & _MASK
    return number ^ number >> 33


def seam(first_offset: int, last_offset: int) -> int:
    """What one marker adds to `Marked.seams`."""
    return spread(last_offset + 1) - spread(first_offset)


Offsets = tuple[int, int]  # first and last, both included
Read = Callable[[int, int, int], Iterable[Offsets]]  # the markers of (claim, from offset, to offset), in order


class OverlapError(Exception):
    """Two markers that count cover one offset, which it holds."""

    def __init__(self, offset: int) -> None:
        """Where the second one begins."""
        super().__init__(offset)
        self.offset = offset


def tiled_end(extents: Sequence[Extent], marked: Mapping[int, Marked], read: Read) -> int:
    """The offset after the last one that markers tile from where the first claim began; 0 where nobody claimed.

    `extents` in the order of claims, `marked` by claim. Raises OverlapError.
    """
    end = extents[0].first_offset if extents else 0
    for extent in extents:
        found = marked.get(extent.claim)
        if found is None or found.first_offset >= extent.end_offset:
            continue  # it marked nothing that counts
        tiles = [(found.first_offset, _told(extent, found, read) - 1)]
        if tiles[0][1] < found.first_offset:
            tiles = list(read(extent.claim, extent.first_offset, extent.end_offset - 1))
        end = _on(end, tiles)
    return end


def _told(extent: Extent, found: Marked, read: Read) -> int:
    """Where the claim's markers end if they tile; 0 where the sums don't say that they do."""
    lengths, seams = found.lengths, found.seams
    if found.first_offset + lengths > extent.end_offset:  # what a fenced writer put behind the end counts for nobody
        for first, last in read(extent.claim, extent.end_offset, UNBOUNDED):
            lengths, seams = lengths - (last + 1 - first), seams - seam(first, last)
    end = found.first_offset + lengths
    fits = (seams - seam(found.first_offset, end - 1)) % _WRAP == 0
    return end if fits and extent.first_offset <= found.first_offset and end <= extent.end_offset else 0


def _on(end: int, tiles: Iterable[Offsets]) -> int:
    """The tiling's end with more markers, up to the first hole."""
    for first, last in tiles:
        if end < first:
            break
        if first < end:
            raise OverlapError(first)
        end = last + 1
    return end
