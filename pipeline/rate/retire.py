"""Old snapshots go when a newer one has proved to be there, and never the only one.

1. list    what is stored up to the newest, which this worker has just stored
2. prove   the newest is read back whole: an acknowledgement is no proof, and a torn one would be all that is left
3. check   nobody asked for the partition since: so nothing that was listed is of a newer claim
4. drop    by name (claim and offset): one that lands late takes nothing that was stored after the list

Kept are the newest three, and of those before them the oldest at each four-fold distance: a marker that the store lost
long ago sends recovery back to before it, and then it should not begin with the log.
"""

from collections.abc import Sequence
from typing import Final, NamedTuple

from pipeline.errors import FencedError, StoreRefusedError
from pipeline.ledger import Claim, Ledger, Snapshot, StateAt
from pipeline.log import Log

LOG: Final = Log("rate")


class Keeping(NamedTuple):
    """How many of the newest are kept, and how many there must be to drop before the newest is read back for it."""

    newest: int
    at_once: int


KEEPING: Final = Keeping(3, 4)


def superfluous(stored: Sequence[StateAt], newest: int) -> list[StateAt]:
    """Which of these, newest first, need not be kept."""
    distant: dict[int, StateAt] = {}
    for one in stored[newest:]:
        distant[(stored[0].last_offset - one.last_offset).bit_length() // 2] = one
    kept = {*stored[:newest], *distant.values()}
    return [one for one in stored if one not in kept]


def retire(ledger: Ledger, newest: Snapshot, claim: Claim, keeping: Keeping = KEEPING) -> None:
    """Drop what `newest`, just stored under this claim, makes superfluous. Raises StoreUnavailableError."""
    gone = superfluous(ledger.snapshots(newest.partition, newest.last_offset), keeping.newest)
    if len(gone) < keeping.at_once or ledger.snapshot(newest.partition, newest.last_offset) != newest:
        return
    try:
        ledger.check_claims([claim])
        ledger.drop_snapshots(newest.partition, gone)
    except FencedError:
        return  # whoever has the partition now drops them
    except StoreRefusedError as error:
        LOG.warning("old snapshots stay", partition=newest.partition, why=str(error))
