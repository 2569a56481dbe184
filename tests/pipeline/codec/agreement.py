"""Two decodings of the same records are compared here, whatever order their names came up in."""

from typing import Any

import numpy as np

from pipeline.codec.decode import decode, decode_by_twin
from pipeline.codec.records import Decoded, Records
from pipeline.codec.scan import scan


def plain(decoded: Decoded) -> dict[str, Any]:
    """All that was decoded, with names in place of indices."""
    samples = decoded.samples
    points = [decoded.charge_points[index] for index in samples["charge_point"].tolist()]
    tokens = [decoded.tokens[index] if index >= 0 else None for index in samples["token"].tolist()]
    rest = [name for name in samples.dtype.names or () if name not in ("charge_point", "token")]
    return {
        "points": points,
        "tokens": tokens,
        "ids": decoded.transaction_ids.tolist(),
        "records": decoded.records.tolist(),
        "dead": decoded.dead,
        "signed": decoded.signed,
        **{name: samples[name].tolist() for name in rest},
    }


def assert_same(one: Decoded, other: Decoded, records: Records | None = None) -> None:
    """Both say the same, to the last flag; names the first record where they don't."""
    first, second = plain(one), plain(other)
    if records is not None and first != second:
        for index, value in enumerate(records.values):
            assert _of_record(one, first, index) == _of_record(other, second, index), value[:2000]
    assert first == second


def _of_record(decoded: Decoded, said: dict[str, Any], index: int) -> dict[str, Any]:
    rows = np.flatnonzero(decoded.records == index).tolist()
    lines = {name: [said[name][row] for row in rows] for name in said if name not in ("dead", "signed")}
    return {**lines, "dead": [letter for letter in decoded.dead if letter.index == index]}


def assert_twins_agree(records: Records) -> Decoded:
    """The decoder with its scanners gives what the twin alone gives; every record is accounted for."""
    decoded = decode(records)
    assert_same(decoded, decode_by_twin(records, range(len(records.values))), records)
    assert_accounted(records, decoded)
    return decoded


def assert_accounted(records: Records, decoded: Decoded) -> None:
    """Each record has samples or one dead letter, never both, never neither."""
    used = set(np.unique(decoded.records).tolist())
    dead = [letter.index for letter in decoded.dead]
    assert len(dead) == len(set(dead))
    assert not used & set(dead)
    assert used | set(dead) == set(range(len(records.values)))
    assert decoded.samples["offset"].tolist() == records.offsets[decoded.records].tolist()
    assert all(letter.detail and letter.reason for letter in decoded.dead)


def share_scanned(records: Records) -> float:
    """What part of the records the fast way took."""
    return 1 - len(scan(records).left) / len(records.values)
