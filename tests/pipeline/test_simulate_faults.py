"""The register of faults: it covers the design's table and anomalies, and each fault shows as it says."""

import re
from functools import cache
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from pipeline.codec.control import split_controls
from pipeline.codec.decode import decode
from pipeline.codec.records import Decoded, Records
from pipeline.errors import DocumentError
from pipeline.metering.columns import ABSENT_I64, KIND_START, KIND_STOP, SIGNED_FORGED, SIGNED_VERIFIED
from pipeline.metering.kinds import ALERT_KINDS
from pipeline.metering.signed import verify
from pipeline.simulate.faults import FAULTS, check_rates
from pipeline.simulate.fleet import Fleet, FleetPlan
from pipeline.simulate.signing import public_key
from tests.shared_data import shared

CROSS_CONNECTOR_ALERTS = {"token_two_sites"}


def design_rows(section: str, below: str) -> str:
    text = shared("design.md").read_text("utf-8")
    return text[text.index(section) : text.index(below)]


def test_every_row_of_the_designs_fault_table_has_a_fault() -> None:
    rows = re.findall(r"^\| (.+?) \| .+ \|$", design_rows("| fault | do |", "**Signed values.**"), re.MULTILINE)
    rows = [row for row in rows if row not in ("fault", "---")]
    assert len(rows) == 19
    met = {fault.meets for fault in FAULTS.values()}
    assert [row for row in rows if row not in met] == []


def test_every_rule_anomaly_of_the_design_has_a_fault() -> None:
    words = {
        "counter rollback": "counter_lost",
        "stuck register": "stuck_register",
        "unit error": "kwh_labelled_wh",
        "power above the connector's rating": "power_above_rating",
        "session energy above rating": "energy_impossible",
        "energy outside a transaction": "energy_outside_transaction",
        "forged signature": "forged_signature",
        "phase loss": "phase_loss",
        "idle overstay": "idle_overstay",
        "clock drift": "clock_drift",
        "silence": "silence",
        "one token at two sites": "token_two_sites",
        "run of zero-kWh sessions": "zero_kwh_run",
        "meter drift or bypass": "meter_drift",
    }
    section = design_rows("## 6. Anomalies", "## 7.")
    for word, name in words.items():
        assert word in section
        assert name in FAULTS


def test_the_alerts_that_truth_expects_are_kinds_that_exist() -> None:
    expected = {kind for fault in FAULTS.values() for entry in fault.alerts for kind in entry.split("|")}
    assert expected <= {*ALERT_KINDS, *CROSS_CONNECTOR_ALERTS}


@pytest.mark.parametrize(
    ("rates", "says"),
    [
        ({"stuck": 0.1}, "no fault 'stuck'"),
        ({"gap": 1.5}, "between 0 and 1"),
        ({"gap": 0.6, "outlier": 0.6}, "at most 1"),
    ],
)
def test_a_wrong_rate_is_told(rates: dict[str, float], says: str) -> None:
    with pytest.raises(DocumentError, match=says):
        check_rates(rates)


@cache
def run_of(name: str, shape: str) -> "Run":
    return Run(name, shape)


class Run:
    """A fleet with one fault, decoded."""

    def __init__(self, name: str, shape: str) -> None:
        rate = 0.9 if FAULTS[name].scope == "session" else 1.0
        plan = FleetPlan(
            charge_points=40 if name != "phase_loss" else 120,
            hours=60.0 if name in ("clock_drift", "meter_drift", "rollover_23bit", "zero_kwh_run") else 16.0,
            shape=shape,
            faults={name: rate},
            partitions=2,
            settle_hours=0,
            sample_ms=120_000,
            tick_ms=600_000,
        )
        chunks = list(Fleet(plan).chunks())
        self.truth = [row for chunk in chunks for row in chunk.truth.to_pylist()]
        self.struck = {row["transaction_id"]: row for row in self.truth if row["fault"] == name}
        batches = [chunk.batch for chunk in chunks]
        values = [value for batch in batches for value in batch.values]
        records = Records(
            values,
            [key for batch in batches for key in batch.keys],
            np.arange(len(values), dtype=np.int64),
            [headers[0][1].decode() if headers else None for batch in batches for headers in batch.headers],
            np.array([time for batch in batches for time in batch.times_ms], np.int64),
        )
        self.split = split_controls(records)
        self.decoded: Decoded = decode(self.split.data)

    def registers(self, transaction: str) -> list[int]:
        """The registers that a transaction's samples tell, in the order of arrival."""
        mine = self.decoded.transaction_ids == transaction.encode()
        told = self.decoded.samples["register_mwh"][mine]
        return [int(value) for value in told if value != ABSENT_I64]


CASES = [
    (name, shape)
    for name, fault in FAULTS.items()
    for shape in ("ocpp16", "ocpp201", "flat", "arrow")
    if shape in fault.shapes
]


@pytest.mark.parametrize(("name", "shape"), CASES)
def test_a_fault_strikes_and_leaves_dead_letters_only_where_it_says_so(name: str, shape: str) -> None:
    run = run_of(name, shape)
    assert run.struck, "no session shows the fault"
    dead = [*run.decoded.dead, *run.split.dead]
    if name in ("broken_json", "poison"):
        assert len(dead) == len(run.struck)
    else:
        assert dead == []
    for row in run.struck.values():
        assert row["outcome"] == FAULTS[name].outcome
        assert row["alerts"] == list(FAULTS[name].alerts)


HONEST_EDGES = [
    name
    for name, fault in FAULTS.items()
    if fault.outcome == "billed"
    and name not in ("begin_zero", "start_lost", "meter_drift", "rollover_23bit")  # the first register lies or lacks
    and not name.startswith(("transaction_", "first_", "last_", "stop_lost", "reset_on", "counter_lost"))
]


@pytest.mark.parametrize("name", HONEST_EDGES)
def test_where_only_samples_lie_start_and_stop_tell_the_expected_energy(name: str) -> None:
    shape = "ocpp201" if "ocpp201" in FAULTS[name].shapes else "ocpp16"
    run = run_of(name, shape)
    samples, ids = run.decoded.samples, run.decoded.transaction_ids
    for transaction, row in run.struck.items():
        mine = ids == transaction.encode()
        first = samples["register_mwh"][mine & (samples["kind"] == KIND_START)]
        last = samples["register_mwh"][mine & (samples["kind"] == KIND_STOP)]
        assert int(last[0] - first[0]) == row["expected_mwh"]
        if FAULTS[name].scope == "session":
            assert row["true_mwh"] >= 2_000_000


@pytest.mark.parametrize("name", ["reset_on_reboot", "counter_lost"])
def test_a_register_that_starts_anew_loses_no_energy_between_its_runs(name: str) -> None:
    run = run_of(name, "ocpp201")
    for transaction, row in run.struck.items():
        values = run.registers(transaction)
        steps = np.diff(values)
        assert (steps < 0).sum() == 1
        assert int(steps[steps > 0].sum()) == row["true_mwh"]


def test_a_23_bit_register_wraps_and_its_energy_is_exact_by_the_modulus() -> None:
    run = run_of("rollover_23bit", "ocpp16")
    for transaction, row in run.struck.items():
        values = run.registers(transaction)
        assert (values[-1] - values[0]) % 838_860_800 == row["true_mwh"]
        assert values[-1] < values[0]


def test_an_honest_signature_verifies_and_a_forged_one_does_not() -> None:
    for name, state in (("signed_beside_plain", SIGNED_VERIFIED), ("forged_signature", SIGNED_FORGED)):
        for shape in ("ocpp16", "ocpp201"):
            run = run_of(name, shape)
            blobs = run.decoded.signed[:6]
            assert blobs
            names = [run.decoded.charge_points[run.decoded.samples["charge_point"][blob.sample]] for blob in blobs]
            verified = verify(blobs, [public_key(cp.encode()) for cp in names])
            assert set(verified.states.tolist()) == {state}


def test_a_token_at_two_sites_charges_in_two_cities_at_once() -> None:
    run = run_of("token_two_sites", "flat")
    by_token: dict[str, list[dict[str, Any]]] = {}
    for row in run.truth:
        by_token.setdefault(row["id_token"], []).append(row)
    for row in run.struck.values():
        others = [
            other
            for other in by_token[row["id_token"]]
            if other["session"] != row["session"] and other["start_ms"] <= row["start_ms"] < other["stop_ms"]
        ]
        assert any(other["charge_point_id"][:3] != row["charge_point_id"][:3] for other in others)


def test_energy_outside_transactions_is_what_lies_between_two_sessions_registers() -> None:
    run = run_of("energy_outside_transaction", "flat")
    last: dict[tuple[str, int], int] = {}
    for row in sorted(run.truth, key=lambda entry: entry["session"]):
        connector = (row["charge_point_id"], row["connector_id"])
        values = run.registers(row["transaction_id"])
        if connector in last:
            assert values[0] - last[connector] == row["outside_mwh"]
        last[connector] = values[-1]
    assert all(row["outside_mwh"] > 0 for row in run.struck.values())


def test_faults_leave_the_other_sessions_alone() -> None:
    plan = FleetPlan(charge_points=100, hours=12.0, shape="flat", faults={"outlier": 0.2}, partitions=2)
    truth = pa.concat_tables([chunk.truth for chunk in Fleet(plan).chunks()])
    shares = np.asarray(truth["fault"]) == "outlier"
    assert 0.05 < shares.mean() < 0.3
