"""What is known of a session beyond the worker's state: its readings, rated rows, CDR and alerts so far.

The port that `rerate` reads through; the ledger stands behind it in the worker, an array in tests.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from typing import NamedTuple, Protocol

import numpy as np
import numpy.typing as npt

from pipeline.metering.columns import SAMPLE_DTYPE
from pipeline.metering.output import Rows
from pipeline.rate.rows import RATED_DTYPE


class SessionName(NamedTuple):
    """A session as the ledger finds it."""

    charge_point_id: str
    session_key: int


@dataclass(frozen=True)
class LastCdr:
    """The CDR that stands for a session now."""

    revision: int
    energy_mwh: int
    total_excl_e4: int
    total_incl_e4: int
    held_mwh: int
    start_ms: int
    end_ms: int
    columns: dict[str, object] = field(default_factory=dict)  # the whole row, to be credited
    document: bytes = b""


@dataclass(frozen=True)
class Past:
    """A session's past. `samples["token"]` and `rated["sheet"]` are numbers of `tokens` and `tariffs`."""

    samples: Rows = field(default_factory=lambda: np.zeros(0, SAMPLE_DTYPE))
    versions: npt.NDArray[np.int64] = field(default_factory=lambda: np.zeros(0, np.int64))
    rated: Rows = field(default_factory=lambda: np.zeros(0, RATED_DTYPE))
    cdr: LastCdr | None = None  # that stands
    revision: int = 0  # of the last CDR or credit; 0 = none was made
    alerted: frozenset[str] = frozenset()
    transaction_id: bytes = b""
    connector_id: int = 0
    tokens: tuple[str, ...] = ()
    tariffs: tuple[str, ...] = ()

    @property
    def known(self) -> bool:
        """Whether anything was ever heard of the session."""
        return len(self.samples) > 0

    def with_cdr(self, cdr: LastCdr | None) -> "Past":
        """The same with another CDR standing."""
        return replace(self, cdr=cdr)


class History(Protocol):
    """Where pasts come from: rows that count, of earlier batches."""

    def prefetch(self, names: Iterable[SessionName]) -> None:
        """Fetch several at once."""

    def past(self, name: SessionName) -> Past:
        """The past of one session; empty where nothing is known."""


NOTHING = Past()


class NoPast:
    """The history of a log that begins here: nothing is known of any session."""

    def prefetch(self, names: Iterable[SessionName]) -> None:
        """Nothing to fetch."""

    def past(self, name: SessionName) -> Past:
        """Nothing is known."""
        return NOTHING
