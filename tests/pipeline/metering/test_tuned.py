"""Thresholds by model and location: which entry wins, what the pass is given, and what a wrong entry is told."""

import itertools
import re
from dataclasses import replace
from pathlib import Path

import msgspec
import pytest

from pipeline.metering.policy import MeteringPolicy, limits_of
from pipeline.metering.published import parse_policy
from pipeline.metering.tuned import THRESHOLDS_OF, LimitTable, Tune

MODELS, LOCATIONS = ("", "AC 22", "DC 50", "unheard of"), ("", "DUN-7", "OSL-1", "unheard of")


def slowly(metering: MeteringPolicy, tune: list[Tune], model: str, location: str) -> MeteringPolicy:
    """The rule as it is written: every entry that fits, the less exact first, of two as exact the later last."""
    for exactness in (1, 2):
        for entry in tune:
            fits = entry.model in ("", model) and entry.location in ("", location)
            if fits and bool(entry.model) + bool(entry.location) == exactness:
                metering = replace(metering, **entry.values)
    return metering


ENTRIES = [
    Tune("AC 22", "", {"stuck_mwh": 1, "zero_run": 4}), Tune("", "DUN-7", {"stuck_mwh": 2, "silence_factor": 5}),
    Tune("AC 22", "DUN-7", {"stuck_mwh": 3}), Tune("AC 22", "", {"silence_factor": 6}),
    Tune("DC 50", "OSL-1", {"zero_run": 9}), Tune("AC 22", "DUN-7", {"stuck_mwh": 7, "hold_kinds": 0}),
]  # fmt: skip


@pytest.mark.parametrize("tune", [[], ENTRIES, ENTRIES[::-1], ENTRIES[2:3]])
def test_the_most_exact_entry_wins_and_of_two_as_exact_the_later(tune: list[Tune]) -> None:
    metering = MeteringPolicy(zero_run=2)
    table = LimitTable(metering, tune)
    chargers = list(itertools.product(MODELS, LOCATIONS))
    for _ in range(2):  # made at first, known from then on
        numbers = table.numbers(chargers)
        assert (
            table.rows[numbers].tolist() == limits_of(slowly(metering, tune, *charger) for charger in chargers).tolist()
        )
    assert table.tuned == bool(tune)


def test_chargers_that_no_entry_tells_apart_share_a_row() -> None:
    table = LimitTable(MeteringPolicy(), [Tune("AC 22", "", {"zero_run": 4})])
    assert table.numbers([("X", "L1"), ("Y", "L2"), ("AC 22", "L1"), ("AC 22", "L2"), ("", "")]) == [0, 0, 1, 1, 0]
    assert len(table.rows) == 2


def test_every_threshold_of_a_kind_can_be_set_by_kind_model_and_location() -> None:
    for kind, names in THRESHOLDS_OF.items():
        entry = {"kind": kind, "model": "M", "location": "L", **dict.fromkeys(names, 77)}
        rules = parse_policy(msgspec.json.encode({"policy": "metering", "tune": [entry]}))
        [number] = rules.limits.numbers([("M", "L")])
        assert all(rules.limits.rows[name][number] == 77 for name in names)


@pytest.mark.parametrize(
    ("entry", "problem"),
    [
        ({"model": "M", "stuck_kwh": 1}, r"\$\.tune\[0\]\.stuck_kwh: no threshold here; there are above_rating"),
        ({"model": "M", "hold_limit_ms": 1}, r"\$\.tune\[0\]\.hold_limit_ms: no threshold here"),
        ({"model": "M", "kind": "stuck_register", "zero_run": 1}, r"zero_run: no threshold here; there are stuck_mwh$"),
        ({"model": "M", "kind": "stuck", "stuck_mwh": 1}, r"\$\.tune\[0\]\.kind: 'stuck' has no threshold in metering"),
        ({"model": "M", "kind": "large_session", "z": 1}, "tuned in its rules file"),
        ({"kind": "stuck_register", "stuck_mwh": 1}, r"\$\.tune\[0\]: names neither model nor location"),
        ({"model": "M", "kind": "stuck_register"}, r"\$\.tune\[0\]: names no threshold"),
        ({"model": 7, "stuck_mwh": 1}, r"\$\.tune\[0\]\.model: expected a text, found 7"),
        ({"model": "M", "stuck_mwh": 0.5}, r"stuck_mwh: expected a whole number from 0 to 10+, found 0\.5"),
        ({"model": "M", "above_rating_permille": 0}, "above_rating_permille: expected a whole number from 1 to 100"),
        ({"model": "M", "zero_run": 0}, r"zero_run: expected a whole number from 1 to 10000, found 0"),
        ({"model": "M", "silence_min_ms": 10**9}, r"silence_min_ms: expected a whole number from 1 to 432000000"),
        ({"model": "M", "holds": ["silence"]}, r"\$\.tune\[0\]\.holds: 'silence' holds no session"),
        ({"model": "M", "holds": "stuck"}, r"\$\.tune\[0\]\.holds: 'stuck' holds no session"),
        ({"model": "M", "hold_kinds": 3}, r"\$\.tune\[0\]\.hold_kinds: no threshold here"),
        ("M", r"Expected `object`, got `str` - at `\$\.tune\[0\]`"),
    ],
)  # fmt: skip
def test_a_wrong_entry_is_told_where_it_stands_and_what_there_is(entry: object, problem: str) -> None:
    with pytest.raises(ValueError, match=problem):
        parse_policy(msgspec.json.encode({"policy": "metering", "tune": [entry]}))


def test_the_longest_time_out_is_what_sessions_apart_are_remembered_for() -> None:
    tune = [{"model": "M", "session_timeout_ms": 10**9}, {"location": "L", "session_timeout_ms": 5}]
    body = {"policy": "metering", "session_timeout_ms": 10**6, "tune": tune}
    assert parse_policy(msgspec.json.encode(body)).longest_timeout_ms == 10**9
    assert parse_policy(b'{"policy": "metering"}').longest_timeout_ms == MeteringPolicy().session_timeout_ms


def test_the_policy_that_the_docs_show_can_be_meant() -> None:
    text = (Path(__file__).parents[3] / "docs" / "anomalies.md").read_text("utf-8")
    [shown] = re.findall(r"```json\n(.*?)```", text, re.DOTALL)
    assert parse_policy(shown.encode()).limits.tuned
