"""What the pass says of one sample: its verdict and where the energy before it went, or that it waits for `rerate`."""

import numpy as np

from pipeline.metering.output import DEFERRED, Record
from pipeline.metering.run import Desk
from pipeline.metering.sessions import tell
from pipeline.metering.state import NONE
from rating.jit import inlined, part


@inlined
def say(desk: Desk, cause: int, row: Record, verdict: int, disposition: int, energy_mwh: int) -> None:
    """The verdict on sample `cause`, and where the energy since the register before it went."""
    desk.facts[cause].verdict = verdict
    desk.facts[cause].disposition = disposition
    desk.facts[cause].energy_mwh = energy_mwh
    desk.facts[cause].session_key = row.session_key if row.open else np.uint64(0)
    desk.facts[cause].used_sheet = row.sheet if row.open else NONE


@part
def defer(desk: Desk, cause: int, connector: int, why: int) -> None:
    """Leave the sample, and all that follow on its charge point in this segment, to `rerate`.

    On the whole charge point: which of its connectors the sample is of, and so what the others' samples will find, is
    not known yet.
    """
    tell(desk, DEFERRED, why, cause, connector, desk.connectors[connector].session_key, desk.samples[cause].time_ms, 0)
    at = connector
    while True:
        desk.connectors[at].dirty = 1
        at = int(np.int64(desk.connectors[at].sibling))
        if at == connector:
            break
