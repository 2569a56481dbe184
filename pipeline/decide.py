"""What a person decides goes into the log: a `decision` record in the partition that it concerns, and then we wait.

The worker acts on it at its place in the log, so a replay decides the same. Nothing is written to the ledger here.
"""

import getpass
import time
from collections.abc import Callable, Iterable, Sequence
from typing import Final, Literal, NamedTuple
from zlib import crc32

from pipeline.anomaly.tuning import KINDS
from pipeline.codec.control import Decision, Mute, encode_control
from pipeline.errors import ChecksFailedError, DocumentError
from pipeline.kafka import Sender
from pipeline.topics import READINGS

Action = Literal["release", "reject", "acknowledge", "resolve", "retry"]

_POLL_S: Final = 0.25
_TEXT_MAX: Final = 4096


class Target(NamedTuple):
    """What is decided about, by its name in the log, and the partition that it lives in."""

    partition: int
    name: str


def decide(sender: Sender, action: Action, targets: Iterable[Target], actor: str, note: str, now_ms: int) -> int:
    """Write one decision a target and confirm all of them; how many. Raises DocumentError for texts too long."""
    for text in (actor, note):
        if len(text) > _TEXT_MAX:
            raise DocumentError(f"a note or an actor's name has at most {_TEXT_MAX} characters, not {len(text)}")
    sent = 0
    for target in targets:
        value = encode_control(Decision(action, target.name, actor, note, now_ms))
        sender.send(READINGS, value, partition=target.partition)
        sent += 1
    sender.flush()
    return sent


def mute(sender: Sender, partition: int, asked: Mute) -> None:
    """Write a mute and confirm it. Raises DocumentError for what can't be meant."""
    for text in (asked.actor, asked.note, asked.location, *asked.kinds):
        if len(text) > _TEXT_MAX:
            raise DocumentError(f"a text of a mute has at most {_TEXT_MAX} characters, not {len(text)}")
    if asked.until_ms <= asked.from_ms:
        raise DocumentError("a mute ends after it begins: --until comes after --from")
    if unknown := sorted(set(asked.kinds) - set(KINDS)):
        raise DocumentError(f"no kind of alert is called {unknown[0]!r}; there are {', '.join(KINDS)}")
    sender.send(READINGS, encode_control(asked), partition=partition)
    sender.flush()


def partition_of_location(location: str, partitions: int) -> int:
    """Where what is decided about a location goes: always the same partition, so that its steps stay in order."""
    return crc32(location.encode()) % partitions


def login_name() -> str:
    """Who sits here; "unknown" where the system does not say."""
    try:
        return getpass.getuser()
    except (KeyError, OSError, ImportError):
        return "unknown"


def wait_until(done: Callable[[], Sequence[str]], wait_s: float) -> None:
    """Wait until `done` names nothing any more. Raises ChecksFailedError naming what is left after `wait_s`."""
    deadline = time.monotonic() + wait_s
    while left := done():
        if time.monotonic() > deadline:
            named = ", ".join(list(left)[:5]) + (f" and {len(left) - 5} more" if len(left) > 5 else "")
            raise ChecksFailedError(
                f"after {wait_s:g} s the ledger does not show the decision about {named}: it is in the log and will be "
                "acted on; is a worker running (`wattrate rate`)?"
            )
        time.sleep(_POLL_S)


def now_ms() -> int:
    """The instant that a decision is dated with."""
    return time.time_ns() // 1_000_000
