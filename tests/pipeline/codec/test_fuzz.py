"""Seeded fuzzing: whatever a record holds, decode() answers, in bounded memory, and accounts for every record.

A million messages in the ordinary run (about a minute); WATTRATE_FUZZ_MESSAGES says another number.
"""

import json
import os
import random
import resource
from collections.abc import Callable, Iterator

import numpy as np
import pytest

from pipeline.codec.control import PREFIX, split_controls
from pipeline.codec.decode import decode
from pipeline.codec.records import ARROW_CONTENT_TYPE, Records
from tests.pipeline.codec.agreement import assert_accounted
from tests.pipeline.codec.payloads import POINT, all_objects, encoded
from tests.pipeline.codec.test_arrow import stream, table
from tests.pipeline.codec.test_scan import ODD_VALUES, bent, places

SEED = 20260101
BATCH = 5_000
MAX_GROWTH_BYTES = 300 << 20

_OBJECTS = all_objects()
_TEXTS = [encoded(value, compact=compact) for value in _OBJECTS for compact in (False, True)]
_PLACES = [(value, places(value)) for value in _OBJECTS]
_STREAMS = [stream(table(rows)) for rows in (1, 5, 50)]
_PIECES = [encoded(odd) for odd in ODD_VALUES] + [
    b'"',
    b"\\",
    b"{",
    b"}",
    b"[",
    b"]",
    b",",
    b":",
    b"\xff",
    b"\0",
    PREFIX,
]


def random_bytes(dice: random.Random) -> bytes:
    return dice.randbytes(dice.randrange(200))


def bent_bytes(dice: random.Random) -> bytes:
    """A message with bytes changed, cut, doubled or replaced by pieces of other messages."""
    text = dice.choice(_TEXTS)
    for _ in range(dice.randint(1, 3)):
        at = dice.randrange(len(text) + 1)
        end = at + dice.choice((0, 1, 1, 2, 8, 40))
        text = text[:at] + dice.choice((dice.choice(_PIECES), dice.randbytes(1), text[at:end] * 2, b"")) + text[end:]
    return text


def bent_json(dice: random.Random) -> bytes:
    """A message with odd values in the places of its own."""
    value, paths = dice.choice(_PLACES)
    return json.dumps(bent(value, dice.choice(paths), dice.choice(ODD_VALUES))).encode()


def bent_arrow(dice: random.Random) -> bytes:
    """An Arrow stream with bytes changed."""
    changed = bytearray(dice.choice(_STREAMS))
    for _ in range(dice.randint(1, 6)):
        changed[dice.randrange(len(changed))] = dice.randrange(256)
    return bytes(changed[: dice.choice((len(changed), len(changed), dice.randrange(len(changed))))])


def with_other_digits(count: int, dice: random.Random) -> list[bytes]:
    """Messages that are still well formed: some of their digits are others."""
    chosen = dice.choices(_TEXTS, k=count)
    text = np.frombuffer(b"".join(chosen), np.uint8).copy()
    chance = np.random.default_rng(dice.getrandbits(64))
    digits = np.flatnonzero((text >= ord("0")) & (text <= ord("9")))
    struck = digits[chance.random(len(digits)) < 0.03]
    text[struck] = chance.integers(ord("0"), ord("9") + 1, len(struck))
    ends = np.cumsum([len(one) for one in chosen]).tolist()
    whole = text.tobytes()
    return [whole[end - len(one) : end] for one, end in zip(chosen, ends, strict=True)]


MUTATORS: list[tuple[Callable[[random.Random], bytes], str | None]] = [
    (random_bytes, None),
    (bent_bytes, None),
    (bent_bytes, None),
    (bent_bytes, None),
    (bent_json, None),
    (bent_json, None),
    (bent_json, None),
    (bent_arrow, ARROW_CONTENT_TYPE),
    (bent_bytes, ARROW_CONTENT_TYPE),
    (bent_arrow, None),
]


def batches(count: int, seed: int) -> Iterator[Records]:
    dice = random.Random(seed)
    keys: tuple[bytes | None, ...] = (POINT.encode(), POINT.encode(), POINT.encode(), None, b"", b"\xff")
    for first in range(0, count, BATCH):
        size = min(BATCH, count - first)
        whole = size * 2 // 5
        given: list[tuple[bytes, str | None]] = [(text, None) for text in with_other_digits(whole, dice)]
        given += [(mutate(dice), kind) for mutate, kind in dice.choices(MUTATORS, k=size - whole)]
        dice.shuffle(given)
        yield Records(
            [value for value, _ in given],
            dice.choices(keys, k=size),
            np.arange(first, first + size, dtype=np.int64),
            [kind for _, kind in given],
        )


def fuzz(count: int, seed: int) -> tuple[int, int]:
    """How many records were used and how many are dead; raises what decode() lets through."""
    used = dead = 0
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for batch in batches(count, seed):
        split = split_controls(batch)
        decoded = decode(split.data)
        assert_accounted(split.data, decoded)
        dead += len(decoded.dead)
        used += len(split.data.values) - len(decoded.dead)
    growth = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * 1024
    assert growth < MAX_GROWTH_BYTES, f"{growth:,} bytes more than before"
    return used, dead


@pytest.mark.timeout(3600)
def test_no_message_brings_the_decoder_down() -> None:
    count = int(os.environ.get("WATTRATE_FUZZ_MESSAGES", "1000000"))
    used, dead = fuzz(count, SEED)
    assert used > count // 40
    assert dead > count // 4
