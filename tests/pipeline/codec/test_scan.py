"""The compiled scanners agree with their twin on plain, bent and broken input, and take all that is plain."""

import json
import random
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.codec import wordtable
from tests.pipeline.codec.agreement import assert_twins_agree, share_scanned
from tests.pipeline.codec.payloads import FLAT, all_objects, encoded, envelope, records

PLAIN = all_objects()
# What may stand in any member's place: the usual, the odd, the hostile.
ODD_VALUES: list[Any] = [
    None, True, False, 0, -1, 1, 4711, 65535, 65536, 2**31, 2**63 - 1, 2**64, 10**30, 0.5, -0.0, 1e300, 12.3456789012,
    "", "0", "-1", "9223372036854775807", "12,5", " 7 ", "+3", "1e3", "NaN", "007.50", ".5", "5.", "4294967295",
    4294967295, 2147483647000, "x" * 36, "x" * 37, "x" * 300, "payload", "é", "\u0000", "\x7f", "a\"b", "a\\b", "\n",
    [], {}, [[]], [{}], {"id": 1}, {"value": "1"}, "Wh", "kWh", "MWh", "L1", "L2-N", "L1-L2", "N", "Inlet", "EV", "Raw",
    "SignedData", "Transaction.Begin", "Transaction.End", "Sample.Clock", "Energy.Active.Import.Interval", "SoC",
    "Power.Active.Import", "Current.Import", "Voltage", "Reserved", "Occupied", "Nonsense", "Started", "Ended", "stop",
    "2026-01-01T00:00:00Z", "2026-02-29T00:00:00Z", "2028-02-29T23:59:59.999+14:00", "2026-01-01T00:00:00",
    "2026-01-01t00:00:60z", "1970-01-01T00:00:00Z", "0000-00-00T00:00:00Z", "2026-01-01T00:00:00.123456789-05:30",
    "2026-01-01 00:00:00+0100", "2009-12-31T23:59:59Z", "2100-01-01T00:00:00Z", "2099-12-31T23:59:59-01:00", "today",
]  # fmt: skip


def places(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """The path to every member and item of a JSON value."""
    items: list[tuple[Any, Any]] = []
    if isinstance(value, dict):
        items = list(value.items())
    elif isinstance(value, list):
        items = list(enumerate(value))
    found = [path] if path else []
    for name, inner in items:
        found.extend(places(inner, (*path, name)))
    return found


def bent(value: Any, path: tuple[Any, ...], change: Any) -> Any:
    """A copy with another value at `path`; a callable change gets the old one."""
    if not path:
        return change(value) if callable(change) else change
    copied: Any = dict(value) if isinstance(value, dict) else list(value)
    copied[path[0]] = bent(value[path[0]], path[1:], change)
    return copied


def without(value: Any, path: tuple[Any, ...]) -> Any:
    def remove(holder: Any) -> Any:
        kept: Any = dict(holder) if isinstance(holder, dict) else list(holder)
        del kept[path[-1]]
        return kept

    return bent(value, path[:-1], remove)


def test_every_plain_form_is_scanned() -> None:
    for value in PLAIN:
        for compact in (False, True):
            assert share_scanned(records(encoded(value, compact=compact))) == 1, value
    assert_twins_agree(records(*PLAIN))


@pytest.mark.parametrize("number", range(len(PLAIN)))
def test_twins_agree_whatever_stands_in_the_place_of_any_value(number: int) -> None:
    value = PLAIN[number]
    batch = [bent(value, path, odd) for path in places(value) for odd in ODD_VALUES]
    assert_twins_agree(records(*batch))


@pytest.mark.parametrize("number", range(len(PLAIN)))
def test_twins_agree_when_members_are_missing_or_in_another_order(number: int) -> None:
    value = PLAIN[number]
    dice = random.Random(number)
    batch = [without(value, path) for path in places(value)]
    for _ in range(50):
        names = list(value)
        dice.shuffle(names)
        batch.append({name: value[name] for name in names})
    assert_twins_agree(records(*batch))


@pytest.mark.parametrize("number", range(len(PLAIN)))
def test_twins_agree_on_every_cut_and_every_changed_byte(number: int) -> None:
    text = encoded(PLAIN[number])
    batch = [text[:length] for length in range(len(text))]
    for at in range(len(text)):
        batch.extend(text[:at] + bytes([byte]) + text[at + 1 :] for byte in b'"\\{}[],:0 -.e\x00\x7f\xff\n')
    assert_twins_agree(records(*batch))


@pytest.mark.parametrize("number", range(len(PLAIN)))
def test_twins_agree_when_members_stand_twice_or_strange_ones_join(number: int) -> None:
    text = encoded(PLAIN[number]).decode()
    batch: list[bytes] = []
    for path in places(PLAIN[number]):
        if isinstance(path[-1], str):
            name = json.dumps(path[-1])
            extras = (f"{name}: 1, ", f"{name}: null, ", '"custom": {"a": [1, 2, "x"]}, ', '"connector_id": 1, ')
            batch.extend(text.replace(f"{name}:", f"{extra}{name}:", 1).encode() for extra in extras)
    assert_twins_agree(records(*batch))


def test_a_record_never_borrows_from_its_neighbour() -> None:
    whole = encoded(FLAT)
    for length in range(1, len(whole)):
        assert_twins_agree(records(whole[:length], whole[length:], whole))


def test_keys_decide_who_may_speak() -> None:
    batch = records(*[FLAT] * 5)
    keys = [b"CP-0001", b"CP-0002", b"", None, b"CP-0001\x00"]
    decoded = assert_twins_agree(batch._replace(keys=keys))
    assert [letter.reason for letter in decoded.dead] == ["key_mismatch"] * 4


def test_members_fit_the_bits_of_an_int64_and_words_fit_the_table() -> None:
    assert wordtable.number_of("multiplier") < 63
    assert max(map(len, wordtable.ALL_WORDS)) <= 32


JSON_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=40),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=12), inner, max_size=3),
    max_leaves=6,
)


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_twins_agree_on_drawn_mutations(data: st.DataObject) -> None:
    batch = []
    for _ in range(20):
        value = data.draw(st.sampled_from(PLAIN))
        for _ in range(data.draw(st.integers(1, 3))):
            path = data.draw(st.sampled_from(places(value)))
            change = data.draw(st.sampled_from(ODD_VALUES) | JSON_VALUES)
            value = bent(value, path, change)
            if not places(value):
                break
        batch.append(encoded(value, compact=data.draw(st.booleans())))
    assert_twins_agree(records(*batch))


@settings(max_examples=200, deadline=None)
@given(st.lists(st.binary(max_size=200), min_size=1, max_size=20))
def test_twins_agree_on_any_bytes(values: list[bytes]) -> None:
    assert_twins_agree(records(*values))


@settings(max_examples=300, deadline=None)
@given(st.decimals(min_value=0, max_value=10**9, places=9), st.sampled_from(["Wh", "kWh", None]), st.booleans())
def test_numbers_are_cut_to_the_mwh_and_never_rounded(number: Any, unit: str | None, quoted: bool) -> None:
    value: dict[str, Any] = {"value": f"{number:f}"}
    if unit:
        value["unit"] = unit
    text = encoded(envelope("1.6", "MeterValues", {"connectorId": 1, "meterValue": [
        {"timestamp": "2026-01-01T00:00:00Z", "sampledValue": [value]}]}))  # fmt: skip
    if not quoted:
        text = text.replace(f'"{number:f}"'.encode(), f"{number:f}".encode())
    decoded = assert_twins_agree(records(text))
    scale = 10**6 if unit == "kWh" else 10**3
    exact = int(f"{number:.9f}".replace(".", "")) * scale // 10**9
    if not decoded.samples["flags"][0] & (1 << 7):
        assert decoded.samples["register_mwh"].tolist() == [exact]
