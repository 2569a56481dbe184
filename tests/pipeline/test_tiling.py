"""How far markers tile, from sums, against the obvious twin that walks over every marker."""

import random
from collections import defaultdict
from itertools import starmap

import pytest

from pipeline.tiling import UNBOUNDED, Extent, Marked, Offsets, OverlapError, seam, tiled_end

Markers = dict[int, list[Offsets]]


def summed(markers: Markers) -> dict[int, Marked]:
    return {
        claim: Marked(
            claim, min(of)[0], sum(last + 1 - first for first, last in of), sum(starmap(seam, of)) % (1 << 64)
        )
        for claim, of in markers.items()
    }


class Reader:
    """Counts what is read."""

    def __init__(self, markers: Markers) -> None:
        self.markers, self.read = markers, 0

    def __call__(self, claim: int, first: int, last: int) -> list[Offsets]:
        found = sorted({one for one in self.markers[claim] if first <= one[0] and one[1] <= last})
        self.read += len(found)
        return found


def walked(extents: list[Extent], markers: Markers) -> int:
    """The twin: every marker that holds, in order, up to the first hole."""
    end = 0
    for extent in extents:
        for first, last in sorted(set(markers.get(extent.claim, []))):
            if extent.first_offset <= first and last < extent.end_offset:
                if end < first:
                    return end
                end = last + 1
    return end


def test_a_tiling_of_many_claims_is_told_without_reading_a_marker() -> None:
    extents = [Extent(1, 0, 100), Extent(4, 100, 100), Extent(5, 100, UNBOUNDED)]
    markers = {1: [(at, at + 9) for at in range(0, 100, 10)], 5: [(at, at) for at in range(100, 150)]}
    reader = Reader(markers)
    assert tiled_end(extents, summed(markers), reader) == 150
    assert reader.read == 0


def test_of_a_fenced_writer_only_what_lies_behind_its_end_is_read() -> None:
    extents = [Extent(1, 0, 90), Extent(2, 90, UNBOUNDED)]
    markers = {1: [(at, at + 9) for at in range(0, 100, 10)], 2: [(90, 95)]}
    reader = Reader(markers)
    assert tiled_end(extents, summed(markers), reader) == 96
    assert reader.read == 1


def test_two_markers_over_one_offset_are_told() -> None:
    markers = {1: [(0, 4), (4, 9)]}
    with pytest.raises(OverlapError):
        tiled_end([Extent(1, 0, UNBOUNDED)], summed(markers), Reader(markers))


@pytest.mark.parametrize("seed", range(300))
def test_lost_repeated_and_late_markers_give_what_a_walk_gives(seed: int) -> None:
    dice = random.Random(seed)
    markers: Markers = defaultdict(list)
    firsts: list[tuple[int, int]] = []
    at = 0
    for claim in range(1, dice.randint(2, 5)):
        firsts.append((claim, at))
        for _ in range(dice.randint(0, 6)):
            size = dice.choice((1, 5, 5, 5, 9))
            markers[claim] += [(at, at + size - 1)] * dice.choice((1, 1, 1, 2))
            at += size
        if dice.random() < 0.3:
            markers[claim].append((at, at + 4))  # fenced: nobody goes on from it
    for of in markers.values():
        if of and dice.random() < 0.4:
            lost = dice.choice(of)
            of[:] = [one for one in of if one != lost]
    ends = [*(first for _, first in firsts[1:]), UNBOUNDED]
    extents = [Extent(claim, first, end) for (claim, first), end in zip(firsts, ends, strict=True)]
    given = {claim: of for claim, of in markers.items() if of}
    assert tiled_end(extents, summed(given), Reader(markers)) == walked(extents, given)
