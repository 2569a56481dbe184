"""The linter names what is legal but probably wrong, with its place, and is silent about a good tariff."""

import copy
import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from hypothesis import HealthCheck, given, settings

from pipeline.commands.tariff import command
from pipeline.errors import DocumentError
from rating.lint import SEVERITIES, Finding, Stretch, lint
from tests.bulk import joined
from tests.engine_door import rate, sheet_of
from tests.generated import Pair
from tests.strategies import json_values, pairs

Json = dict[str, Any]
SPRING_2026 = Stretch(["Europe/Berlin"], 1_772_323_200_000, 1_780_272_000_000)  # March to May


def component(dimension: str = "ENERGY", price: float = 0.25, **more: Any) -> Json:
    return {"type": dimension, "price": price, "step_size": 1, **more}


def element(*components: Json, **restrictions: Any) -> Json:
    return {"price_components": list(components)} | ({"restrictions": restrictions} if restrictions else {})


def tariff(*elements: Json, **more: Any) -> Json:
    head = {
        "country_code": "DE",
        "party_id": "TST",
        "id": "1",
        "currency": "EUR",
        "last_updated": "2026-01-01T00:00:00Z",
    }
    return {**head, "elements": list(elements), **more}


def codes(found: list[Finding]) -> list[str]:
    return [finding.code for finding in found]


def only(source: Json, clocks: Stretch | None = None) -> Finding:
    [finding] = lint(source, clocks=clocks)
    return finding


GOOD = tariff(
    element(component("FLAT", 0.5)),
    element(component(), start_time="22:00", end_time="06:00"),
    element(component(price=0.4), component("TIME", 1), component("PARKING_TIME", 2)),
)


def test_nothing_is_said_of_a_good_tariff() -> None:
    assert lint(GOOD, clocks=SPRING_2026) == []


def test_a_tariff_that_cant_be_read_is_one_error_with_the_parsers_path() -> None:
    finding = only(tariff(element(component(price="0.25"))))  # type: ignore[arg-type]
    assert (finding.code, finding.severity) == ("unreadable", "error")
    assert finding.path == "$.elements[0].price_components[0].price"


@pytest.mark.parametrize(
    ("restrictions", "example"),
    [
        ({"start_time": "08:00", "end_time": "20:00"}, "00:00–08:00"),
        ({"end_time": "22:00"}, "22:00–24:00"),
        ({"day_of_week": ["MONDAY", "TUESDAY", "WEDNESDAY", "THURSDAY", "FRIDAY"]}, "Saturday, Sunday"),
        ({"min_kwh": 10}, "energy from 0 kWh below 10 kWh"),
        ({"max_kwh": 50.5}, "energy from 50.5 kWh"),
        ({"min_duration": 600}, "duration from 0 s below 600 s"),
        ({"max_power": 50}, "power from 50 kW"),
        ({"end_date": "2027-01-01"}, "from 2027-01-01"),
    ],
)
def test_a_gap_where_a_dimension_is_free_is_shown_by_example(restrictions: Json, example: str) -> None:
    finding = only(tariff(element(component(), **restrictions)))
    assert (finding.code, finding.severity, finding.path) == ("gap", "warning", "$.elements[0].restrictions")
    assert example in finding.sentence


def test_bands_that_fill_the_day_leave_no_gap() -> None:
    bands = [("00:00", "07:00"), ("07:00", "17:30"), ("17:30", "00:00")]
    source = tariff(
        *(element(component(price=price), start_time=s, end_time=e) for price, (s, e) in enumerate(bands, 1))
    )
    assert lint(source) == []


def test_no_gap_is_seen_on_days_when_the_tariff_is_not_valid() -> None:
    source = tariff(element(component(), start_date="2026-01-01"), start_date_time="2026-01-03T00:00:00Z")
    assert lint(source) == []


def test_limits_on_what_a_charger_may_not_report_want_a_fallback() -> None:
    finding = only(tariff(element(component(), max_power=50), element(component(price=0.5), min_power=50)))
    assert (finding.code, finding.severity) == ("missing-fallback", "warning")
    assert "power not reported" in finding.sentence


def test_an_element_behind_one_without_restrictions_is_never_used() -> None:
    finding = only(tariff(element(component()), element(component(price=0.1), start_time="22:00", end_time="06:00")))
    assert (finding.code, finding.severity) == ("never-used", "error")
    assert finding.path == "$.elements[1].price_components[0]"


def test_an_element_whose_limits_contradict_each_other_never_matches() -> None:
    source = tariff(element(component(price=1), min_kwh=10, max_kwh=10), element(component()))
    assert only(source).code == "never-matches"
    assert only(source).path == "$.elements[0].restrictions.max_kwh"


def test_dates_that_end_before_they_start_never_match() -> None:
    source = tariff(element(component(price=1), start_date="2026-02-01", end_date="2026-02-01"), element(component()))
    assert (only(source).code, only(source).path) == ("never-matches", "$.elements[0].restrictions.end_date")


def test_elements_that_cross_without_one_holding_the_other_overlap() -> None:
    source = tariff(
        element(component(price=1), start_time="08:00", end_time="14:00"),
        element(component(price=2), start_time="12:00", end_time="20:00"),
        element(component(price=3)),
    )
    finding = only(source)
    assert (finding.code, finding.severity, finding.path) == ("overlap", "warning", "$.elements[1].restrictions")
    assert "12:00–14:00" in finding.sentence
    assert "element 0 wins" in finding.sentence


def test_an_end_of_24_00_is_an_error_that_says_what_to_write() -> None:
    finding = only(tariff(element(component(), start_time="00:00", end_time="24:00")))
    assert (finding.code, finding.severity, finding.path) == (
        "end-24-00",
        "error",
        "$.elements[0].restrictions.end_time",
    )
    assert '"00:00"' in finding.advice


def test_equal_times_are_named() -> None:
    assert only(tariff(element(component(), start_time="08:00", end_time="08:00"))).code == "equal-times"


def test_a_second_component_of_a_dimension_is_an_error() -> None:
    finding = only(tariff(element(component(), component(price=0.5))))
    assert (finding.code, finding.severity) == ("duplicate-component", "error")
    assert finding.path == "$.elements[0].price_components[1]"


def test_energy_under_a_reservation_is_never_used() -> None:
    source = tariff(element(component("TIME"), component(), reservation="RESERVATION"), element(component()))
    assert codes(lint(source)) == ["reservation-dimension"]


def test_a_flat_fee_that_only_matches_later_is_never_due() -> None:
    source = tariff(element(component("FLAT", 1), min_kwh=1), element(component()))
    assert codes(lint(source)) == ["flat-never-due"]


def test_a_window_over_midnight_with_weekdays_is_explained() -> None:
    source = tariff(
        element(component(price=0.1), start_time="22:00", end_time="06:00", day_of_week=["FRIDAY"]),
        element(component()),
    )
    assert only(source).code == "overnight-weekday"


def test_a_misspelt_restriction_is_named() -> None:
    finding = only(tariff(element(component(), min_kWh=5)))
    assert (finding.code, finding.path) == ("unknown-field", "$.elements[0].restrictions.min_kWh")


def test_a_window_inside_the_hour_that_the_clock_skips_is_named_with_zone_and_day() -> None:
    source = tariff(element(component(price=0.1), start_time="02:00", end_time="03:00"), element(component()))
    finding = only(source, SPRING_2026)
    assert (finding.code, finding.severity) == ("skipped-hour", "warning")
    assert "Europe/Berlin" in finding.sentence
    assert "2026-03-29" in finding.sentence
    assert lint(source) == [], "no zone, no clock change"


def test_a_window_that_begins_inside_the_skipped_hour_is_only_information() -> None:
    source = tariff(element(component(price=0.1), start_time="02:30", end_time="06:00"), element(component()))
    assert (only(source, SPRING_2026).severity, only(source, SPRING_2026).path.split(".")[-1]) == ("info", "start_time")


def test_a_skipped_hour_on_another_weekday_is_not_mentioned() -> None:
    window = element(component(price=0.1), start_time="02:00", end_time="03:00", day_of_week=["MONDAY"])
    assert lint(tariff(window, element(component())), clocks=SPRING_2026) == []


def test_crossed_limits_and_missing_vat_concern_the_whole_tariff() -> None:
    source = tariff(
        element(component(vat=19), component("TIME", 1)), min_price={"excl_vat": 5}, max_price={"excl_vat": 3}
    )
    assert codes(lint(source)) == ["limits-cross", "vat-missing"]


def test_a_free_tariff_is_only_information() -> None:
    assert only(tariff(element(component("FLAT", 0)))).severity == "info"


def test_in_2_1_1_an_element_that_matches_first_leaves_the_other_dimensions_free() -> None:
    source = tariff(element(component("TIME", 1), max_duration=600), element(component()))
    found = lint(source, "2.1.1")
    assert ["ENERGY is free" in finding.sentence for finding in found if finding.code == "gap"].count(True) == 1


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(pairs())
def test_what_is_said_to_be_never_used_never_prices_anything(pair: Pair) -> None:
    unused = {
        tuple(int(part.split("]")[0]) for part in finding.path.split("[")[1:])
        for finding in lint(pair.tariff, pair.version)
        if finding.code in ("never-used", "duplicate-component", "reservation-dimension")
    }
    rated = rate(sheet_of(pair.tariff, pair.zone, pair.version, pair.sessions), pair.sessions)
    for number in range(len(pair.sessions)):
        used = {place for piece in joined(rated.pieces_of(number)) for place in (piece.energy, piece.time)}
        assert not used & unused


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(pairs())
def test_a_dimension_without_a_gap_is_never_free(pair: Pair) -> None:
    charging = [e for e in pair.tariff["elements"] if not e.get("restrictions", {}).get("reservation")]
    priced = {component["type"] for element in charging for component in element["price_components"]}
    said = ("ENERGY is free", "This price for ENERGY", "No session can satisfy", "end_date is not after")
    if "ENERGY" not in priced or any(finding.sentence.startswith(said) for finding in lint(pair.tariff, pair.version)):
        return
    rated = rate(sheet_of(pair.tariff, pair.zone, pair.version, pair.sessions), pair.sessions)
    for number in range(len(pair.sessions)):
        assert all(piece.energy for piece in rated.pieces_of(number) if piece.state in ("CHARGING", "PARKING"))


@settings(max_examples=100, deadline=None)
@given(json_values)
def test_any_json_at_all_gives_findings_and_no_exception(value: Any) -> None:
    found = lint(value)
    assert found[0].code == "unreadable"
    assert all(finding.severity in SEVERITIES and finding.advice for finding in found)


# ---------------------------------------------------------------- the command


def run(*arguments: str) -> tuple[int, str]:
    result = CliRunner().invoke(command, ["lint", *arguments], catch_exceptions=False)
    return result.exit_code, result.output


def written(folder: Path, value: Any, name: str = "tariff.json") -> str:
    path = folder / name
    path.write_text(value if isinstance(value, str) else json.dumps(value))
    return str(path)


def test_the_command_passes_a_good_tariff(tmp_path: Path) -> None:
    code, text = run(written(tmp_path, GOOD))
    assert code == 0
    assert "DE*TST*1" in text
    assert "nothing to remark" in text


def test_the_command_fails_on_an_error_and_says_what_to_do(tmp_path: Path) -> None:
    broken = copy.deepcopy(GOOD)
    broken["elements"][1]["restrictions"]["end_time"] = "24:00"
    code, text = run(written(tmp_path, broken))
    assert code == 1
    assert 'Write "00:00"' in text


def test_the_command_prints_findings_as_json_lines(tmp_path: Path) -> None:
    path = written(tmp_path, {"data": [tariff(element(component(), min_kwh=5)), GOOD], "status_code": 1000})
    code, text = run("--json", path)
    assert code == 0
    [line] = [json.loads(line) for line in text.splitlines()]
    assert (line["code"], line["tariff"], line["file"]) == ("gap", "DE*TST*1", path)


def test_the_command_knows_the_zones_of_the_tariffs_country(tmp_path: Path) -> None:
    night = tariff(element(component(price=0.1), start_time="02:00", end_time="03:00"), element(component()))
    assert "Europe/Berlin" in run(written(tmp_path, night))[1]
    assert (
        "Lord_Howe"
        in run(
            "--zone",
            "Australia/Lord_Howe",
            written(
                tmp_path,
                tariff(
                    night["elements"][0] | {"restrictions": {"start_time": "02:00", "end_time": "02:30"}},
                    element(component()),
                ),
            ),
        )[1]
    )


def test_the_command_names_a_zone_that_does_not_exist(tmp_path: Path) -> None:
    code, text = run("--zone", "Europe/Atlantis", written(tmp_path, GOOD))
    assert code == 2
    assert "Europe/Atlantis" in text


def test_the_command_reads_one_tariff_a_line(tmp_path: Path) -> None:
    path = written(tmp_path, "\n".join(json.dumps(one) for one in (GOOD, GOOD)), "tariffs.jsonl")
    assert run(path)[1].count("nothing to remark") == 2


def test_a_file_that_is_not_json_is_named(tmp_path: Path) -> None:
    with pytest.raises(DocumentError, match="is not JSON"):
        run(written(tmp_path, "{"))
