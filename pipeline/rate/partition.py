"""What the worker remembers of a partition beside its connectors: log time, reference version, held sessions.

Everything here is a function of the log, and is part of a snapshot.
"""

import itertools
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Final

import numpy as np
import numpy.typing as npt

from pipeline.rate.inputs import Wake
from pipeline.rate.signed_values import SignedValue, kept

_NEVER_MS: Final = 2**62


@dataclass(frozen=True)
class Held:
    """A session that waits for a person, for reference data, or for the hold limit."""

    charge_point_id: str
    connector_id: int
    reason: str
    held_mwh: int
    since_ms: int  # log time


@dataclass
class PartitionState:
    """One partition's own memory."""

    partition: int
    log_time_ms: int = 0
    reference_version: int = 0
    policy_version: int = 0
    held: dict[int, Held] = field(default_factory=dict)  # by session key
    apart: dict[int, int] = field(
        default_factory=dict
    )  # sessions only `rerate` may touch → log time of their last record
    signed: dict[int, tuple[SignedValue, ...]] = field(default_factory=dict)  # by session key, for its CDR

    def detached(self) -> npt.NDArray[np.uint64]:
        """Their keys, sorted."""
        return np.array(sorted(self.apart), np.uint64)

    def keep_signed(self, values: Mapping[int, Iterable[SignedValue]]) -> None:
        """Remember the signed values that a batch brought."""
        for key, new in values.items():
            self.signed[key] = kept([*self.signed.get(key, ()), *new])

    def wake(self, hold_limit_ms: int, timeout_ms: int) -> Wake:
        """From when on a tick has something to settle or to forget here."""
        held = (held.since_ms + hold_limit_ms for held in self.held.values())
        apart = (heard_ms + timeout_ms for heard_ms in self.apart.values())
        signed = (
            values[-1].time_ms + timeout_ms
            for key, values in self.signed.items()
            if key not in self.held and key not in self.apart
        )
        due_ms = min(itertools.chain(held, apart, signed), default=_NEVER_MS)
        return Wake(self.log_time_ms, due_ms, min(hold_limit_ms, timeout_ms))

    def forget_apart(self, older_than_ms: int) -> None:
        """Sessions apart that nothing was heard of for long are over; so are signed values as old, unless held."""
        self.apart = {key: heard for key, heard in self.apart.items() if heard >= older_than_ms}
        self.signed = {
            key: values
            for key, values in self.signed.items()
            if values[-1].time_ms >= older_than_ms or key in self.held or key in self.apart
        }
