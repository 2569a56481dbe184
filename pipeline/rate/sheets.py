"""Which rate sheet and rating a connector has under each reference version in use; one book for all of them.

A version becomes a `slot` when the log says that it is active; partitions reach it at different offsets, so several
are in use at once. Sheets are never dropped: sessions keep the tariff that was valid at their start.
"""

from collections.abc import Callable
from typing import Final

import numpy as np
import numpy.typing as npt

from pipeline.errors import IntegrityError
from pipeline.metering.output import Rows
from pipeline.metering.run import DEFAULT_DTYPE
from pipeline.rate.directory import Directory
from pipeline.reference import Priced, ReferenceData, Resolution
from pipeline.texts import grown
from rating.policy import Policy
from rating.ratesheet import Book, BookBuilder
from rating.tariff import Tariff

DAY_MS: Final = 86_400_000
_AHEAD_MS: Final = 400 * DAY_MS  # how far the horizon reaches beyond what was asked, so that it is rarely extended

LoadVersion = Callable[[ReferenceData, int], ReferenceData]


class Sheets:
    """Rate sheets by reference version."""

    def __init__(self, load: LoadVersion, policy: Policy) -> None:
        """`load` gives the reference data at a version, made from an earlier one where it can."""
        self._load = load
        self._policy = policy
        self._builder: BookBuilder | None = None
        self._book: Book | None = None
        self._data: dict[int, ReferenceData] = {0: ReferenceData()}
        self._slots: dict[int, int] = {}
        self._defaults: Rows = np.zeros((1, 0), DEFAULT_DTYPE)
        self._filled: list[int] = []  # rows known, by slot
        self._timed: npt.NDArray[np.bool_] = np.zeros(0, np.bool_)  # rows whose tariff depends on the instant
        self._of_tariff: dict[str, int] = {}  # tariff → its first sheet, in whatever zone
        self._alike: list[int] = []  # sheet → the first sheet of its tariff

    def data(self, version: int) -> ReferenceData:
        """Reference data at a version."""
        if version not in self._data:
            nearest = max((v for v in self._data if v < version), default=0)
            self._data[version] = self._load(self._data[nearest], version)
        return self._data[version]

    def cover(self, from_ms: int, until_ms: int) -> None:
        """Make every sheet cover [from_ms, until_ms)."""
        if self._builder is None:
            self._builder = BookBuilder(from_ms - DAY_MS, until_ms + _AHEAD_MS, self._policy)
        elif from_ms < self._builder.from_ms or until_ms > self._builder.until_ms:
            self._builder.extend(min(from_ms - DAY_MS, self._builder.from_ms), until_ms + _AHEAD_MS)
            self._book = None

    @property
    def builder(self) -> BookBuilder:
        """The sheets' sources, by sheet number."""
        if self._builder is None:
            raise RuntimeError("Sheets.cover comes first: a book needs a horizon")
        return self._builder

    @property
    def book(self) -> Book:
        """The book of all sheets so far."""
        if self._book is None:
            self._book = self.builder.book()
        return self._book

    def sheet_of(self, resolution: Resolution) -> int:
        """The sheet of a resolved tariff; -1 where there is none."""
        if resolution.tariff is None:
            return -1
        return self._added(resolution.tariff, resolution.tariff_key, resolution.zone)

    def slot(self, version: int) -> int:
        """The slot of a version."""
        if version not in self._slots:
            self._slots[version] = len(self._slots)
            self._filled.append(0)
            self.data(version)
        return self._slots[version]

    def defaults(self, directory: Directory, at_ms: int) -> Rows:
        """What each row has by itself under each slot: shape (slots, rows), complete for all rows known now."""
        rows = len(directory.charge_points)
        if self._defaults.shape[0] < len(self._slots) or self._defaults.shape[1] < rows:
            wider = np.zeros((max(1, len(self._slots)), max(1024, rows + rows // 4)), DEFAULT_DTYPE)
            wider["sheet"] = -1
            slots, known = self._defaults.shape
            wider[:slots, :known] = self._defaults
            self._defaults = wider
            self._timed = grown(self._timed, wider.shape[1])
        again = np.array(directory.taken_again, np.intp)
        self._timed[again] = False
        for version, slot in self._slots.items():
            new = np.concatenate([again, np.arange(self._filled[slot], rows)])
            self._fill(directory, version, slot, new, at_ms)
            self._filled[slot] = rows
        directory.taken_again.clear()
        return self._defaults

    def own_tariff(self, version: int, uid: str) -> bool:
        """Whether a token has a tariff of its own."""
        return uid.lower() in self.data(version).own_tariffs

    def depends_on_time(self, row: int) -> bool:
        """Whether the connector's tariff has a validity, so that each start must be resolved at its instant."""
        return bool(self._timed[row])

    def resolve(self, directory: Directory, version: int, row: int, uid: str, at_ms: int) -> Resolution:
        """What reference data of a version says of a session on this connector."""
        connector_id = int(directory.state.connectors["connector_id"][row])
        return self.data(version).resolve(directory.charge_points[row], connector_id, uid, at_ms)

    def renumbered(self, rated: Rows, tariffs: tuple[str, ...]) -> Rows:
        """Rated rows of the ledger with this book's sheet numbers; `tariffs` is what their `sheet` points into.

        Rows name a tariff and no zone: each gets a sheet of its tariff, in whatever zone. To be held against others
        through `alike`, never to be rated with.
        """
        if not len(rated):
            return rated
        known = self._of_tariff
        numbers = np.array([known[k] if k in known else self.sheet_named(k, "UTC") for k in tariffs], np.int32)
        rated = rated.copy()
        rated["sheet"] = numbers[rated["sheet"]]
        return rated

    def alike(self, rated: Rows) -> Rows:
        """Rated rows whose sheets are one for one tariff, as the ledger's rows name it."""
        if not len(rated):
            return rated
        rated = rated.copy()
        rated["sheet"] = np.array(self._alike, np.int32)[rated["sheet"]]
        return rated

    def sheet_named(self, key: str, zone: str) -> int:
        """The sheet of a tariff version "CC*PARTY*ID@version" in a zone."""
        tariff = self.data(int(key.rpartition("@")[2])).tariff(key)
        if tariff is None:
            raise IntegrityError(f"rated usage names tariff {key}, which was never published under that version")
        return self._added(tariff, key, zone)

    def _added(self, tariff: Tariff, key: str, zone: str) -> int:
        known = len(self.builder.sources)
        sheet = self.builder.add(tariff, key, zone)
        if len(self.builder.sources) != known:
            self._book = None
            self._alike.append(self._of_tariff.setdefault(key, sheet))
        return sheet

    def _fill(self, directory: Directory, version: int, slot: int, rows: npt.NDArray[np.intp], at_ms: int) -> None:
        if not len(rows):
            return
        names, ids = directory.charge_points.names(rows), directory.state.connectors["connector_id"][rows]
        where, found = self.data(version).defaults(names, ids, at_ms)
        sheets = [self._added(d.priced.tariff, d.priced.tariff_key, d.zone) if d.priced.tariff else -1 for d in found]
        ratings_mw = [default.max_power_w * 1000 if default.max_power_w else -1 for default in found]
        self._defaults["sheet"][slot, rows] = np.array(sheets, np.int32)[where]
        self._defaults["rating_mw"][slot, rows] = np.array(ratings_mw, np.int64)[where]
        self._timed[rows] |= np.array([_is_timed(default.priced) for default in found], np.bool_)[where]


def _is_timed(priced: Priced) -> bool:
    return priced.reason == "tariff_not_valid" or (priced.tariff is not None and priced.tariff.depends_on_time)
