"""Texts by number, packed: their bytes one behind the other, found again through a compiled hash table.

A million ids as Python objects in lists and dictionaries take 250 bytes each, here 20 and their own length.
"""

from collections.abc import Iterable, Sequence
from itertools import pairwise
from typing import Final, NamedTuple, Self, TypeVar

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from rating.jit import kernel, part

Bytes = npt.NDArray[np.uint8]
Places = npt.NDArray[np.int64]
Numbers = npt.NDArray[np.int32]
_NONE: Final = -1
_T = TypeVar("_T", bound=np.generic)
_BASIS: Final = np.uint64(0xCBF29CE484222325)
_PRIME: Final = np.uint64(0x100000001B3)
_SHIFT: Final = np.uint64(29)


class Packed(NamedTuple):
    """Texts in order: that of number n is `data[ends[n]:ends[n + 1]]`, in UTF-8."""

    data: Bytes
    ends: Places  # one more than texts; the first is 0

    def text(self, number: int) -> bytes:
        """One of them."""
        return self.data[self.ends[number] : self.ends[number + 1]].tobytes()

    def texts(self) -> list[str]:
        """As texts of Python."""
        whole, ends = self.data.tobytes(), self.ends.tolist()
        if whole.isascii():
            text = whole.decode("ascii")
            return [text[first:stop] for first, stop in pairwise(ends)]
        return [whole[first:stop].decode() for first, stop in pairwise(ends)]

    def replaced(self, count: int, numbers: npt.NDArray[np.integer], others: "Packed") -> "Packed":
        """So many texts: these, with those of some numbers, and all that are new, replaced by others."""
        parts = Packed(np.concatenate([self.data, others.data]), np.append(self.ends, self.ends[-1] + others.ends[1:]))
        which = np.zeros(count, np.int64)
        known = len(self.ends) - 1
        which[:known] = np.arange(known)
        which[numbers] = known + np.arange(len(numbers))
        return parts.taken(which)

    def taken(self, numbers: Places) -> "Packed":
        """The texts of these numbers, in order."""
        ends = ends_of(self.ends[numbers + 1] - self.ends[numbers])
        data = np.empty(int(ends[-1]), np.uint8)
        gather(self.data, self.ends, numbers, data)
        return Packed(data, ends)

    def arrow(self) -> "pa.Array[pa.StringScalar]":
        """As an Arrow column; copies nothing but the ends."""
        ends, data = self.ends.astype(np.int32).data, self.data.data
        return pa.StringArray.from_buffers(len(self.ends) - 1, pa.py_buffer(ends), pa.py_buffer(data))


def packed(texts: Sequence[str]) -> Packed:
    """Texts of Python."""
    whole = "".join(texts)
    data = np.frombuffer(bytearray(whole, "utf-8"), np.uint8)  # of bytes it would be another type to compiled code
    lengths: Iterable[int] = map(len, texts if len(data) == len(whole) else [text.encode() for text in texts])
    return Packed(data, ends_of(np.fromiter(lengths, np.int64, len(texts))))


def packed_bytes(texts: Sequence[bytes]) -> Packed:
    """Texts, or anything else that is bytes."""
    lengths = np.fromiter(map(len, texts), np.int64, len(texts))
    return Packed(np.frombuffer(bytearray(b"".join(texts)), np.uint8), ends_of(lengths))


def ends_of(lengths: npt.NDArray[np.integer]) -> Places:
    """Where texts of these lengths end, one behind the other; 0 comes first."""
    return np.concatenate([[0], np.cumsum(lengths, dtype=np.int64)])


class Texts:
    """Distinct texts, numbered in the order in which they were first given."""

    def __init__(self) -> None:
        """None yet."""
        self._count = 0
        self._data: Bytes = np.zeros(256, np.uint8)
        self._ends: Places = np.zeros(17, np.int64)
        self._table: Numbers = np.full(32, _NONE, np.int32)  # a power of 2, at most half full

    def __len__(self) -> int:
        """How many."""
        return self._count

    def __getitem__(self, number: int) -> str:
        """The text of a number."""
        if not 0 <= number < self._count:
            raise IndexError(f"text {number} of {self._count}")
        return self._data[self._ends[number] : self._ends[number + 1]].tobytes().decode()

    def numbers(self, texts: Sequence[str]) -> Numbers:
        """The numbers of texts; those that are new get the next ones, in order."""
        return self.numbers_of(packed(texts))

    def numbers_of(self, given: Packed) -> Numbers:
        """The same of packed texts."""
        self._make_room(len(given.ends) - 1, len(given.data))
        numbers = np.empty(len(given.ends) - 1, np.int32)
        self._count = intern(self._data, self._ends, self._table, self._count, given.data, given.ends, numbers, True)
        return numbers

    def found(self, texts: Sequence[str]) -> Numbers:
        """The numbers of texts, -1 for those that are not known."""
        return self.found_of(packed(texts))

    def found_of(self, given: Packed) -> Numbers:
        """The same of packed texts."""
        numbers = np.empty(len(given.ends) - 1, np.int32)
        intern(self._data, self._ends, self._table, self._count, given.data, given.ends, numbers, False)
        return numbers

    def find(self, text: str) -> int:
        """The number of a text, -1 when it is not known."""
        if not self._count:
            return _NONE
        return int(number_of(self._data, self._ends, self._table, np.frombuffer(bytearray(text, "utf-8"), np.uint8)))

    def taken(self, numbers: npt.NDArray[np.integer]) -> Packed:
        """The texts of these numbers, in order."""
        return Packed(self._data, self._ends).taken(numbers.astype(np.int64))

    def copy(self) -> Self:
        """The same texts, to which others may be added."""
        return self.only(np.arange(self._count))

    def only(self, numbers: npt.NDArray[np.integer]) -> Self:
        """These texts alone, numbered in this order."""
        kept = type(self)()
        kept.numbers_of(self.taken(numbers))
        return kept

    def _make_room(self, texts: int, size: int) -> None:
        """Room for so many more texts of `size` bytes together."""
        self._data = grown(self._data, int(self._ends[self._count]) + size)
        self._ends = grown(self._ends, self._count + texts + 1)
        if 2 * (self._count + texts) > len(self._table):
            self._table = new_table(self._count + texts)
            enter(self._data, self._ends, self._table, self._count)


def grown(values: npt.NDArray[_T], size: int) -> npt.NDArray[_T]:
    """An array that has room for `size`: the same, or a longer one; what is added is 0 and untouched memory."""
    if size <= len(values):
        return values
    longer = np.zeros(max(size, len(values) + len(values) // 2), values.dtype)
    longer[: len(values)] = values
    return longer


def distinct(numbers: npt.NDArray[np.integer]) -> tuple[Numbers, Places]:
    """Numbers as places among the different ones of them, and those, in the order of their first appearance."""
    places, used = np.empty(len(numbers), np.int32), np.empty(len(numbers), np.int64)
    count = number_again(numbers.astype(np.int64), new_table(len(numbers)), used, places)
    return places, used[:count]


def new_table(count: int) -> Numbers:
    """An empty hash table for so many numbers."""
    return np.full(1 << max(5, (2 * count - 1).bit_length()), _NONE, np.int32)


@part
def hash_of(data: Bytes, first: int, stop: int) -> np.uint64:
    """FNV-1a, and its high bits in its low ones."""
    mixed = _BASIS
    for at in range(first, stop):
        mixed = (mixed ^ np.uint64(data[at])) * _PRIME
    return mixed ^ (mixed >> _SHIFT)


@part
def is_same(data: Bytes, first: int, stop: int, other: Bytes, other_first: int, other_stop: int) -> bool:
    """Whether two texts have the same bytes."""
    if stop - first != other_stop - other_first:
        return False
    at = 0
    while at < stop - first and data[first + at] == other[other_first + at]:
        at += 1
    return bool(at == stop - first)


@kernel
def intern(
    data: Bytes, ends: Places, table: Numbers, count: int, given: Bytes, given_ends: Places, numbers: Numbers, add: bool
) -> int:
    """Write the number of each given text; with `add`, texts that are new are taken in. Returns how many there are."""
    mask = np.uint64(len(table) - 1)
    for k in range(len(given_ends) - 1):
        first, stop = given_ends[k], given_ends[k + 1]
        slot = hash_of(given, first, stop) & mask
        number = np.int64(table[slot])
        while number >= 0 and not is_same(data, ends[number], ends[number + 1], given, first, stop):
            slot = (slot + np.uint64(1)) & mask
            number = np.int64(table[slot])
        if number < 0 and add:
            number = np.int64(count)
            table[slot] = number
            ends[count + 1] = ends[count] + stop - first
            for at in range(stop - first):
                data[ends[count] + at] = given[first + at]
            count += 1
        numbers[k] = number
    return count


@kernel
def number_of(data: Bytes, ends: Places, table: Numbers, given: Bytes) -> int:
    """The number of one text, -1 when it is not known."""
    mask = np.uint64(len(table) - 1)
    slot = hash_of(given, 0, len(given)) & mask
    number = np.int64(table[slot])
    while number >= 0 and not is_same(data, ends[number], ends[number + 1], given, 0, len(given)):
        slot = (slot + np.uint64(1)) & mask
        number = np.int64(table[slot])
    return int(number)


@kernel
def enter(data: Bytes, ends: Places, table: Numbers, count: int) -> None:
    """Put the first `count` texts into an empty table."""
    mask = np.uint64(len(table) - 1)
    for number in range(count):
        slot = hash_of(data, ends[number], ends[number + 1]) & mask
        while table[slot] >= 0:
            slot = (slot + np.uint64(1)) & mask
        table[slot] = number


@kernel
def gather(data: Bytes, ends: Places, numbers: Places, into: Bytes) -> None:
    """Copy texts one behind the other."""
    to = 0
    for k in range(len(numbers)):
        for at in range(ends[numbers[k]], ends[numbers[k] + 1]):
            into[to] = data[at]
            to += 1


@kernel
def number_again(numbers: Places, table: Numbers, used: Places, places: Numbers) -> int:
    """Write the place of each number among the different ones, and those to `used`. Returns how many they are."""
    mask, count = np.uint64(len(table) - 1), 0
    for k in range(len(numbers)):
        mixed = np.uint64(numbers[k]) * _PRIME
        slot = (mixed ^ (mixed >> _SHIFT)) & mask
        place = np.int64(table[slot])
        while place >= 0 and used[place] != numbers[k]:
            slot = (slot + np.uint64(1)) & mask
            place = np.int64(table[slot])
        if place < 0:
            place = np.int64(count)
            table[slot] = place
            used[count] = numbers[k]
            count += 1
        places[k] = place
    return count
