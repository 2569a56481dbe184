"""Published objects and charge points of a fleet, packed: what a million of them take, and what changed since beside.

Immutable: `changed` gives another one that shares what it can. Most charge points are of few shapes (party, zone, and
the number, tariffs and power of each EVSE), so that each is a location and a shape; bodies are kept compressed.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Final, Generic, NamedTuple, Self, TypeVar

import numpy as np
import numpy.typing as npt
import zstandard

from pipeline.texts import Numbers, Packed, Texts, ends_of, packed_bytes

_FEW: Final = 4_096  # changes that are kept beside whatever there is
_SHARE: Final = 8  # a part of all above which they are packed
_NONE: Final = -1
_LEVEL: Final = 1
_SAMPLES: Final = 16  # bodies that the others are packed by
_SAMPLE_BYTES: Final = 8_192
_T = TypeVar("_T")


class Document(NamedTuple):
    """A published object: the version that brought it and its JSON."""

    version: int
    body: bytes


class Outlet(NamedTuple):
    """What an EVSE has without regard to the token: the number that chargers call it, its tariffs, its power."""

    evse_id: int
    tariff_ids: tuple[str, ...]
    max_power_w: int


class Shape(NamedTuple):
    """All that prices a charge point's sessions by themselves."""

    country_code: str
    party_id: str
    time_zone: str
    outlets: tuple[Outlet, ...]


class Place(NamedTuple):
    """The locations that name a charge point, sorted, and its shape where they are one."""

    locations: tuple[str, ...]
    shape: Shape | None


class Documents(Mapping[str, Document]):
    """Published objects by key."""

    def __init__(self, packed: "_PackedDocuments | None" = None, beside: Mapping[str, Document | None] = {}) -> None:
        """None; `beside` holds those that changed since they were packed, None for one that was deleted."""
        self._packed, self._beside = packed or _PackedDocuments(), beside

    def __getitem__(self, key: str) -> Document:
        """The object; KeyError where there is none."""
        found = self._beside[key] if key in self._beside else self._packed.get(key)
        if found is None:
            raise KeyError(key)
        return found

    def __iter__(self) -> Iterator[str]:
        """Their keys, in no order that means anything."""
        yield from (key for key in self._packed.all_keys() if key not in self._beside)
        yield from (key for key, document in self._beside.items() if document is not None)

    def __len__(self) -> int:
        """How many."""
        return sum(1 for _ in self)

    def changed(self, changes: Mapping[str, Document | None]) -> Self:
        """With these objects changed; None: deleted."""
        beside = {**self._beside, **changes}
        if len(beside) <= max(_FEW, len(self._packed.texts) // _SHARE):
            return type(self)(self._packed, beside)
        return type(self)(self._packed.with_changes(beside))


class ChargePoints(Mapping[str, str | tuple[str, ...]]):
    """The location (or locations, sorted) that name each charge point."""

    def __init__(self, packed: "_PackedPlaces | None" = None, beside: Mapping[str, Place | None] = {}) -> None:
        """None; `beside` as in `Documents`."""
        self._packed, self._beside = packed or _PackedPlaces(), beside

    def place(self, name: str) -> Place | None:
        """Where a charge point is, None where it is not known."""
        return self._beside[name] if name in self._beside else self._packed.get(name)

    def __getitem__(self, name: str) -> str | tuple[str, ...]:
        """The location's key, or several."""
        place = self.place(name)
        if place is None:
            raise KeyError(name)
        return place.locations[0] if len(place.locations) == 1 else place.locations

    def __iter__(self) -> Iterator[str]:
        """Their names, in no order that means anything."""
        yield from (name for name in self._packed.names() if name not in self._beside)
        yield from (name for name, place in self._beside.items() if place is not None)

    def __len__(self) -> int:
        """How many."""
        return sum(1 for _ in self)

    def changed(self, changes: Mapping[str, Place | None]) -> Self:
        """With these charge points changed; None: gone."""
        beside = {**self._beside, **changes}
        if len(beside) <= max(_FEW, len(self._packed.texts) // _SHARE):
            return type(self)(self._packed, beside)
        return type(self)(self._packed.with_changes(beside))

    def absent(self, names: Sequence[str]) -> set[str]:
        """Those of these names that are nobody's, asked for together."""
        known = self._packed.texts.found(names).tolist()
        return {name for name, number in zip(names, known, strict=True) if number < 0 and name not in self._beside}

    def shapes(self, names: Packed) -> tuple[Numbers, Sequence[Shape]]:
        """The shape of each charge point, as a place in a list; -1 for one to be looked up by itself."""
        found, shapes = self._packed.shapes_of(names), self._packed.shapes
        if self._beside:
            beside, number_of = Texts(), {shape: number for number, shape in enumerate(shapes)}
            beside.numbers(list(self._beside))
            numbers = [
                number_of.setdefault(place.shape, len(number_of)) if place and place.shape else _NONE
                for place in self._beside.values()
            ]
            changed = beside.found_of(names)
            found = np.where(changed >= 0, np.array(numbers, np.int32)[changed], found)
            shapes = list(number_of)
        return found, shapes


def outlet_of(numbers: list[int], connector_id: int) -> int | None:
    """The place of the EVSE of this number, of several the last; 0 means the only one."""
    if connector_id <= 0:
        return len(numbers) - 1 if len(set(numbers)) == 1 else None
    return next((at for at in reversed(range(len(numbers))) if numbers[at] == connector_id), None)


class Draft(Generic[_T]):
    """Changes to be made together."""

    def __init__(self, stored: Callable[[str], _T | None]) -> None:
        """Nothing changed yet; `stored` gives what was there before."""
        self._stored = stored
        self.changes: dict[str, _T | None] = {}
        self.absent: set[str] = set()  # known not to be stored: not asked for

    def get(self, key: str) -> _T | None:
        """What is there after the changes so far."""
        if key in self.changes:
            return self.changes[key]
        return None if key in self.absent else self._stored(key)


class Load:
    """A fleet from nothing, each location told once: what `changed` makes of them one by one, in columns."""

    def __init__(self) -> None:
        """None yet."""
        self._keys, self._names = Texts(), Texts()
        self._versions: list[npt.NDArray[np.int64]] = []
        self._bodies: list[Packed] = []
        self._press: _Press | None = None
        self._named: list[Numbers] = []  # charge points in the order in which locations name them
        self._counts: list[npt.NDArray[np.int64]] = []  # how many of them each location names
        self._shaped: list[Numbers] = []  # the shape of each
        self._shapes: list[Shape] = []
        self._number_of: dict[Shape, int] = {}

    def number(self, shape: Shape) -> int:
        """By which `add` knows a shape."""
        number = self._number_of.setdefault(shape, len(self._shapes))
        if number == len(self._shapes):
            self._shapes.append(shape)
        return number

    def add(
        self, documents: Mapping[str, Document], names: Sequence[str], counts: Sequence[int], shapes: Sequence[int]
    ) -> None:
        """Take in some locations: the charge points of all of them, how many each has, the number of each's shape."""
        if not documents:  # a part of other objects alone: what bodies have in common is told by the first that come
            return
        bodies = [document.body for document in documents.values()]
        self._press = self._press or _Press.of(bodies)
        self._keys.numbers(list(documents))
        self._versions.append(np.array([document.version for document in documents.values()], np.int64))
        self._bodies.append(self._press.packed(bodies))
        self._named.append(self._names.numbers(names))
        self._counts.append(np.array(counts, np.int64))
        self._shaped.append(np.array(shapes, np.int32))

    def done(self) -> tuple[Documents, ChargePoints]:
        """All of them."""
        if self._press is None:
            return Documents(), ChargePoints()
        documents = _PackedDocuments(self._press)
        documents.texts = self._keys
        documents.versions = np.concatenate(self._versions)
        documents.bodies = _joined(self._bodies)
        return Documents(documents), ChargePoints(self._places())

    def _places(self) -> "_PackedPlaces":
        named, counts = np.concatenate(self._named), np.concatenate(self._counts)
        location = np.repeat(np.arange(len(counts), dtype=np.int32), counts)
        places = _PackedPlaces()
        places.texts, places.locations = self._names, self._keys
        places.shapes, places.number_of = self._shapes, self._number_of
        places.location, places.shape = (np.full(len(self._names), _NONE, np.int32) for _ in range(2))
        often = np.bincount(named, minlength=len(self._names)) > 1
        alone = np.flatnonzero(~often[named])
        places.location[named[alone]] = location[alone]
        places.shape[named[alone]] = np.concatenate(self._shaped)[alone]
        several: dict[str, list[str]] = {}
        for at in np.flatnonzero(often[named]).tolist():
            several.setdefault(self._names[int(named[at])], []).append(self._keys[int(location[at])])
        places.several = {name: Place(tuple(sorted(keys)), None) for name, keys in several.items()}
        return places


class _Press:
    """Bodies made small one by one, with what they have in common told once: most of a location is like the next."""

    def __init__(self, sample: bytes) -> None:
        """`sample`: what the others will be like."""
        self._sample = zstandard.ZstdCompressionDict(sample, dict_type=zstandard.DICT_TYPE_RAWCONTENT)
        self._sample.precompute_compress(level=_LEVEL)

    @classmethod
    def of(cls, bodies: Sequence[bytes]) -> Self:
        """For bodies like some of these."""
        return cls(b"".join(bodies[:: len(bodies) // _SAMPLES + 1])[:_SAMPLE_BYTES])

    def packed(self, bodies: Iterable[bytes]) -> Packed:
        """They, one behind the other; one without bytes stays so."""
        compress = zstandard.ZstdCompressor(level=_LEVEL, dict_data=self._sample).compress
        return packed_bytes([compress(body) if body else b"" for body in bodies])

    def whole(self, body: bytes) -> bytes:
        """One of them as it was."""
        return zstandard.ZstdDecompressor(dict_data=self._sample).decompress(body)


def _joined(parts: Sequence[Packed]) -> Packed:
    """All of them, in order."""
    lengths = np.concatenate([np.diff(part.ends) for part in parts])
    return Packed(np.concatenate([part.data for part in parts]), ends_of(lengths))


class _PackedDocuments:
    """Objects by number of their key: version, and body one behind the other; a body of no bytes is none."""

    def __init__(self, press: _Press | None = None) -> None:
        self.texts = Texts()
        self.versions: npt.NDArray[np.int64] = np.zeros(0, np.int64)
        self.bodies = packed_bytes([])
        self._press = press

    def get(self, key: str) -> Document | None:
        number = self.texts.find(key)
        body = self.bodies.text(number) if number >= 0 else b""
        return Document(int(self.versions[number]), self._press.whole(body)) if body and self._press else None

    def all_keys(self) -> Iterator[str]:
        there = np.flatnonzero(np.diff(self.bodies.ends)).tolist()
        return (self.texts[number] for number in there)

    def with_changes(self, changes: Mapping[str, Document | None]) -> "_PackedDocuments":
        given = [document.body if document else b"" for document in changes.values()]
        press = self._press or _Press.of([body for body in given if body])
        new, known = _PackedDocuments(press), len(self.texts)
        new.texts = self.texts.copy()
        numbers = new.texts.numbers(list(changes))
        new.versions = np.zeros(len(new.texts), np.int64)
        new.versions[:known] = self.versions
        new.versions[numbers] = [document.version if document else 0 for document in changes.values()]
        new.bodies = self.bodies.replaced(len(new.texts), numbers, press.packed(given))
        return new


class _PackedPlaces:
    """Charge points by number of their name: the number of their location, and of their shape; -1 is none."""

    def __init__(self) -> None:
        self.texts = Texts()
        self.locations = Texts()
        self.location: Numbers = np.zeros(0, np.int32)
        self.shape: Numbers = np.zeros(0, np.int32)
        self.several: dict[str, Place] = {}  # charge points of several locations, or of no known shape
        self.shapes: list[Shape] = []
        self.number_of: dict[Shape, int] = {}

    def get(self, name: str) -> Place | None:
        number = self.texts.find(name)
        if number < 0 or self.location[number] < 0:
            return self.several.get(name)
        return Place((self.locations[self.location[number]],), self.shapes[self.shape[number]])

    def names(self) -> Iterator[str]:
        yield from (self.texts[number] for number in np.flatnonzero(self.location >= 0).tolist())
        yield from self.several

    def shapes_of(self, names: Packed) -> Numbers:
        numbers = self.texts.found_of(names)
        return np.where(numbers >= 0, np.append(self.shape, np.int32(_NONE))[numbers], np.int32(_NONE))

    def with_changes(self, changes: Mapping[str, Place | None]) -> "_PackedPlaces":
        new, known = _PackedPlaces(), len(self.texts)
        new.texts, new.locations = self.texts.copy(), self.locations.copy()
        new.shapes, new.number_of = list(self.shapes), dict(self.number_of)
        alone = {name: place for name, place in changes.items() if place and place.shape and len(place.locations) == 1}
        new.several = {name: place for name, place in self.several.items() if name not in changes}
        new.several |= {name: place for name, place in changes.items() if place and name not in alone}
        numbers = new.texts.numbers(list(changes))
        new.location, new.shape = (np.full(len(new.texts), _NONE, np.int32) for _ in range(2))
        new.location[:known], new.shape[:known] = self.location, self.shape
        new.location[numbers] = new.shape[numbers] = _NONE
        numbers = new.texts.found(list(alone))
        new.location[numbers] = new.locations.numbers([place.locations[0] for place in alone.values()])
        new.shape[numbers] = [new._number(place.shape) for place in alone.values()]
        return new

    def _number(self, shape: Shape | None) -> int:
        if shape is None:
            return _NONE
        if shape not in self.number_of:
            self.number_of[shape] = len(self.shapes)
            self.shapes.append(shape)
        return self.number_of[shape]
