"""Replay: what the file says of a session is what its messages say, to the Wh, and rows are never lost in silence."""

import json
from collections import defaultdict
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from pipeline.cli import root
from pipeline.errors import DocumentError
from pipeline.publication import read_documents
from pipeline.replay.feed import ReplayFeed, locations, tariff_document, tokens
from pipeline.replay.mapping import PRESETS, TableMapping, with_changes
from pipeline.replay.plan import ReplayPlan, plan_replay
from pipeline.replay.table import REASONS, Rejected, Row, read_table
from pipeline.simulate.documents import write_documents
from tests.shared_data import shared

FILES = {
    "dundee": "dundee_2018-06_2018-09.csv",
    "norway": "norway_residential.csv",
    "sap": "sap_labs_mougins.csv",
}
HEADER = "start,end,energy_kwh,charge_point_id,connector,user\n"
OWN = with_changes(TableMapping(), ["connector=connector", "token=user", "time_zone=Europe/Oslo"])


def slice_of(preset: str, folder: Path, begin: int, rows: int) -> Path:
    lines = shared(f"data/sessions/{FILES[preset]}").read_text("utf-8-sig").splitlines(keepends=True)
    path = folder / f"{preset}.csv"
    path.write_text(lines[0] + "".join(lines[begin : begin + rows]), "utf-8")
    return path


def plan_of(path: Path, mapping: TableMapping, *, whole_wh: bool = True) -> ReplayPlan:
    return plan_replay(read_table(path, mapping, "earlier"), mapping, 300_000, whole_wh=whole_wh)


def own(tmp_path: Path, *lines: str, mapping: TableMapping = OWN) -> ReplayPlan:
    path = tmp_path / "own.csv"
    path.write_text(HEADER + "".join(line + "\n" for line in lines), "utf-8")
    return plan_of(path, mapping)


def told(plan: ReplayPlan, shape: str = "ocpp16") -> list[dict[str, Any]]:
    """All messages but ticks, decoded."""
    feed = ReplayFeed(plan, shape=shape, partitions=2, settle_hours=1)
    return [json.loads(message.value) for message in feed.messages() if message.key is not None]


def sessions_16(messages: list[dict[str, Any]]) -> dict[int, dict[str, Any]]:
    """What OCPP 1.6 messages say of each transaction: start and stop payloads, registers in Wh."""
    sessions: dict[int, dict[str, Any]] = defaultdict(lambda: {"registers": []})
    for message in messages:
        payload = message["payload"]
        match message["action"]:
            case "StartTransaction":
                session = sessions[int(message["transaction_id"])]
                session["start"] = payload
                session["registers"].append(payload["meterStart"])
            case "MeterValues":
                value = payload["meterValue"][0]["sampledValue"][0]["value"]
                sessions[payload["transactionId"]]["registers"].append(int(value))
            case "StopTransaction":
                session = sessions[payload["transactionId"]]
                session["stop"] = payload
                session["registers"].append(payload["meterStop"])
    return sessions


@pytest.mark.parametrize(("preset", "begin"), [("dundee", 6_000), ("norway", 20_000), ("sap", 3_000)])
def test_every_row_of_a_real_slice_is_told_to_the_wh_or_rejected_with_a_reason(
    preset: str, begin: int, tmp_path: Path
) -> None:
    plan = plan_of(slice_of(preset, tmp_path, begin, 250), PRESETS[preset])
    assert len(plan.told) + len(plan.rejected) == 250
    assert {rejected.reason for rejected in plan.rejected} <= set(REASONS)
    sessions = sessions_16(told(plan))
    assert len(sessions) == len(plan.told)
    by_start = sorted(plan.told, key=lambda entry: entry.row.line)
    ids = {entry.row.session: entry for entry in by_start} if preset != "norway" else {}
    for number, session in sessions.items():
        entry = ids[str(number)] if ids else next(e for e in by_start if e.row.line == number)
        energy = (session["registers"][-1] - session["registers"][0]) * 1_000
        if entry.row.energy_mwh is not None:
            assert energy == entry.row.energy_mwh, entry
        assert ("stop" in session) == (entry.row.end_ms is not None)


def test_the_counts_of_the_whole_dundee_file_are_those_of_the_docs() -> None:
    plan = plan_of(shared(f"data/sessions/{FILES['dundee']}"), PRESETS["dundee"])
    assert plan.categories == {
        "plain": 18_348,
        "zero_kwh": 641,
        "no_length": 129,
        "start_only": 72,
        "overlap": 29,
        "negative_energy": 8,
    }
    assert plan.reasons == {}


def test_messages_come_in_the_order_of_their_time_with_ticks_after_them(tmp_path: Path) -> None:
    plan = plan_of(slice_of("dundee", tmp_path, 100, 200), PRESETS["dundee"])
    last, ticks = 0, 0
    for message in ReplayFeed(plan, shape="ocpp201", partitions=3).messages():
        assert message.time_ms >= last
        if message.partition == 0:
            assert message.time_ms > ticks
            ticks = message.time_ms
        last = message.time_ms
    assert ticks == last, "the last word in each partition is a tick"


def test_registers_never_fall_inside_a_session_that_is_told_plainly(tmp_path: Path) -> None:
    plan = plan_of(slice_of("sap", tmp_path, 0, 200), PRESETS["sap"])
    for session in sessions_16(told(plan)).values():
        assert session["registers"] == sorted(session["registers"])


def test_a_negative_energy_is_a_stop_below_its_start(tmp_path: Path) -> None:
    plan = own(tmp_path, "2026-03-02T08:00:00,2026-03-02T09:00:00,-9.54,CP1,1,A")
    assert plan.categories == {"negative_energy": 1}
    session = sessions_16(told(plan))[2]
    assert session["stop"]["meterStop"] - session["start"]["meterStart"] == -9_540
    assert len(set(session["registers"][:-1])) == 1


def test_an_end_before_the_start_is_told_as_it_stands(tmp_path: Path) -> None:
    plan = own(tmp_path, "2026-03-02T08:00:00,2026-03-02T07:30:00,3.5,CP1,1,A")
    session = sessions_16(told(plan))[2]
    assert session["stop"]["timestamp"] == "2026-03-02T06:30:00Z"
    assert session["start"]["timestamp"] == "2026-03-02T07:00:00Z"
    assert session["registers"][-1] - session["registers"][0] == 3_500


def test_a_missing_end_is_a_session_that_never_stops(tmp_path: Path) -> None:
    plan = own(tmp_path, "2026-03-02T08:00:00,,12.5,CP1,1,A", "2026-03-02T08:00:00,,,CP2,1,B")
    assert plan.categories == {"no_end": 1, "start_only": 1}
    sessions = sessions_16(told(plan))
    assert sessions[2]["registers"][-1] - sessions[2]["registers"][0] == 12_500
    assert "stop" not in sessions[2]
    assert sessions[3]["registers"] == [sessions[3]["start"]["meterStart"]]


def test_of_two_overlapping_sessions_the_first_tells_its_energy_before_the_second_begins(tmp_path: Path) -> None:
    plan = own(
        tmp_path,
        "2026-03-02T08:00:00,2026-03-02T12:00:00,20,CP1,1,A",
        "2026-03-02T10:00:00,2026-03-02T11:00:00,5,CP1,1,B",
    )
    assert plan.categories == {"overlap": 1, "plain": 1}
    messages = told(plan)
    sessions = sessions_16(messages)
    assert sessions[2]["registers"][-2] == sessions[2]["registers"][-1]
    assert sessions[3]["start"]["meterStart"] == sessions[2]["stop"]["meterStop"]
    begun = next(at for at, message in enumerate(messages) if message.get("transaction_id") == "3")
    after = [m["action"] for m in messages[begun + 1 :] if m["payload"].get("transactionId") == 2]
    assert after == ["StopTransaction"]


def test_a_table_without_connectors_gives_overlapping_sessions_one_each(tmp_path: Path) -> None:
    mapping = with_changes(OWN, ["connector="])
    plan = own(
        tmp_path,
        "2026-03-02T08:00:00,2026-03-02T12:00:00,20,CP1,,A",
        "2026-03-02T10:00:00,2026-03-02T11:00:00,5,CP1,,B",
        "2026-03-02T12:00:00,2026-03-02T13:00:00,5,CP1,,B",
        mapping=mapping,
    )
    assert [entry.connector for entry in plan.told] == [1, 2, 1]
    assert plan.categories == {"plain": 3}


def test_rows_that_leave_open_what_to_tell_are_rejected_by_reason(tmp_path: Path) -> None:
    plan = own(
        tmp_path,
        "2026-03-02T08:00:00,2026-03-02T09:00:00,5,,1,A",  # no charge point
        ",2026-03-02T09:00:00,5,CP1,1,A",  # no start
        "soon,2026-03-02T09:00:00,5,CP1,1,A",  # bad time
        "2026-03-29T02:30:00,2026-03-29T09:00:00,5,CP1,1,A",  # the clocks went forward
        "2026-03-02T08:00:00,2026-03-02T09:00:00,much,CP1,1,A",  # bad energy
        "2026-03-02T08:00:00,2026-03-02T09:00:00,,CP1,1,A",  # no energy
        "2026-03-02T08:00:00,2026-03-02T09:00:00,9999999999,CP1,1,A",
        "2026-03-02T08:00:00,2026-03-02T09:00:00,5,CP1,left,A",  # bad connector
        "2026-03-02T08:00:00,2026-03-02T09:00:00,5,CP1,1,A",
        "2026-03-02T08:00:00,2026-03-02T09:00:00,5,CP1,1,A",  # the same again
        "2026-03-02T08:00:00,2026-03-02T09:30:00,6,CP1,1,A",  # another at the same instant
    )
    assert len(plan.told) == 1
    assert {(rejected.line, rejected.reason) for rejected in plan.rejected} == {
        (2, "no_charge_point"),
        (3, "no_start"),
        (4, "bad_time"),
        (5, "nonexistent_local_time"),
        (6, "bad_energy"),
        (7, "no_energy"),
        (8, "energy_out_of_range"),
        (9, "bad_connector"),
        (11, "duplicate_row"),
        (12, "same_start"),
    }


@pytest.mark.parametrize(
    ("ambiguous", "utc"), [("earlier", "2026-10-25T00:30:00Z"), ("later", "2026-10-25T01:30:00Z"), ("reject", None)]
)
def test_a_local_time_that_came_twice_is_read_as_told_to(ambiguous: Any, utc: str | None, tmp_path: Path) -> None:
    path = tmp_path / "own.csv"
    path.write_text(HEADER + "2026-10-25T02:30:00,2026-10-25T06:00:00,5,CP1,1,A\n", "utf-8")
    plan = plan_replay(read_table(path, OWN, ambiguous), OWN, 300_000, whole_wh=True)
    if utc is None:
        assert plan.reasons == {"ambiguous_local_time": 1}
    else:
        assert sessions_16(told(plan))[2]["start"]["timestamp"] == utc


def test_a_stated_duration_decides_between_the_two_hours(tmp_path: Path) -> None:
    """OSL_S_16502 of the Norwegian file: plugged in at 02:39 on the night of the change, 9.83 h connected."""
    lines = shared(f"data/sessions/{FILES['norway']}").read_text("utf-8").splitlines(keepends=True)
    path = tmp_path / "norway.csv"
    path.write_text(lines[0] + "".join(line for line in lines if '"OSL_S_16502"' in line), "utf-8")
    [row] = [entry for entry in read_table(path, PRESETS["norway"], "earlier") if isinstance(entry, Row)]
    assert row.end_ms is not None
    assert (row.end_ms - row.start_ms) / 3_600_000 == pytest.approx(9.8333, abs=0.01)


def test_a_missing_column_is_told_with_the_columns_there_are(tmp_path: Path) -> None:
    path = tmp_path / "own.csv"
    path.write_text("a,b\n1,2\n", "utf-8")
    with pytest.raises(
        DocumentError, match=r"no column 'start' for start; the file has a, b\. Name it with --map start="
    ):
        list(read_table(path, TableMapping(), "earlier"))
    with pytest.raises(DocumentError, match="write NAME=COLUMN"):
        with_changes(TableMapping(), ["begin=a"])


def test_ocpp_201_tells_energies_finer_than_a_wh(tmp_path: Path) -> None:
    path = tmp_path / "own.csv"
    path.write_text(HEADER + "2026-03-02T08:00:00,2026-03-02T09:00:00,5.0004,CP1,1,A\n", "utf-8")
    plan = plan_of(path, OWN, whole_wh=False)
    events = [message["payload"] for message in told(plan, "ocpp201") if message["action"] == "TransactionEvent"]
    values = [event["meterValue"][0]["sampledValue"][0]["value"] for event in events if "meterValue" in event]
    assert round((values[-1] - values[0]) * 10) == 50_004


def test_the_files_reference_data_is_accepted_for_publication(tmp_path: Path) -> None:
    for preset in FILES:
        plan = plan_of(slice_of(preset, tmp_path, 50, 60), PRESETS[preset])
        tariff = tariff_document(PRESETS[preset], None)
        folder = tmp_path / preset
        kinds = {"locations": locations(plan, PRESETS[preset], tariff["id"]), "tokens": tokens(plan, PRESETS[preset])}
        write_documents(folder, [tariff], kinds)
        published = read_documents([folder])
        assert sum(document.kind == "token" for document in published) == len(plan.tokens)


def test_the_command_counts_lists_and_writes_without_a_broker(tmp_path: Path) -> None:
    path = tmp_path / "own.csv"
    path.write_text(HEADER + "2026-03-02T08:00:00,2026-03-02T09:00:00,5,CP1,1,A\nsoon,,5,CP1,1,A\n", "utf-8")
    out = tmp_path / "messages.jsonl"
    options = ["--map", "connector=connector", "--map", "token=user", "--list-rejected", "--json", "--out", str(out)]
    result = CliRunner().invoke(root, ["replay", str(path), *options])
    assert result.exit_code == 0, result.output
    summary = json.loads(result.output)
    assert (summary["rows"], summary["told"], summary["rejected"]) == (2, {"plain": 1}, {"bad_time": 1})
    assert summary["rejected_rows"] == [vars(Rejected(3, "3", "bad_time", "soon"))]
    assert summary["samples"] == "reconstructed"
    lines = [json.loads(line) for line in out.read_text("utf-8").splitlines()]
    assert sum(line["key"] == "CP1" for line in lines) > 12


def test_an_idle_time_below_nothing_tells_nothing(tmp_path: Path) -> None:
    path = tmp_path / "idle.csv"
    path.write_text(
        "start,end,energy_kwh,charge_point_id,idle\n2024-06-01 10:00,2024-06-01 11:00,5,CP1,-1799\n", "utf-8"
    )
    mapping = with_changes(TableMapping(), ["idle_s=idle", "time_zone=UTC"])
    (row,) = read_table(path, mapping, "earlier")
    assert isinstance(row, Row)
    assert row.idle_ms is None
    registers = [
        register for one in sessions_16(told(plan_of(path, mapping))).values() for register in one["registers"]
    ]
    assert max(b - a for a, b in pairwise(registers)) < 1_000  # 5 kWh over an hour, none of it in one last jump
