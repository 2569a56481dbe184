"""Fleets with every fault against their ground truth: billed to the last mWh, or held; never wrong in silence."""

from collections import defaultdict
from typing import Any

import pytest

from tests.pipeline.rate.drive import Drive
from tests.pipeline.rate.test_batches import faulty

# What WATCH says, across connectors, and what needs a longer run than this one.
ELSEWHERE = {"token_two_sites", "zero_kwh_run"}


@pytest.mark.parametrize(("charge_points", "seed"), [(80, 11), (40, 6), (80, 23)])
def test_every_session_is_billed_or_held_as_the_truth_has_it(charge_points: int, seed: int) -> None:
    log, published, truth = faulty(charge_points, seed)
    drive = Drive(published, 2).run(log)
    wrong = [one for one in _sessions(drive, truth) if not _right(drive, *one)]
    assert wrong == []


@pytest.mark.parametrize(("charge_points", "seed"), [(80, 11), (80, 23)])
def test_every_alert_that_must_fire_does(charge_points: int, seed: int) -> None:
    log, published, truth = faulty(charge_points, seed)
    drive = Drive(published, 2).run(log)
    said = defaultdict(set)
    for alert in drive.ledger.alerts:
        said[alert.place.session_key].add(alert.kind)
    missing = [
        (session["fault"], kind, session["transaction_id"])
        for session, keys in _sessions(drive, truth)
        for kind in session["alerts"]
        if kind not in ELSEWHERE and not set(kind.split("|")) & set().union(*(said[key] for key in keys))
    ]
    assert missing == []


def _sessions(drive: Drive, truth: list[dict[str, Any]]) -> list[tuple[dict[str, Any], list[int]]]:
    """The sessions that metering made of each true one: by transaction id, else by connector and time."""
    ledger = drive.ledger
    by_id: dict[tuple[str, str], list[int]] = defaultdict(list)
    nameless: dict[tuple[str, int], list[tuple[int, int]]] = defaultdict(list)
    for key in ledger.sessions:
        charge_point, connector_id, first_ms = ledger.place(key)
        text = ledger.transaction_id(key)
        if text:
            by_id[charge_point, text].append(key)
        else:
            nameless[charge_point, connector_id].append((first_ms, key))
    found = []
    for session in truth:
        keys = by_id.get((session["charge_point_id"], session["transaction_id"]), [])
        place = nameless[session["charge_point_id"], session["connector_id"]]
        within = [key for first_ms, key in place if session["start_ms"] <= first_ms <= session["stop_ms"]]
        found.append((session, keys or within))
    return found


def _right(drive: Drive, session: dict[str, Any], keys: list[int]) -> bool:
    held = {key for state in drive.engine.partitions.values() for key in state.held}
    if held & set(keys):
        return bool(session["outcome"] != "billed")
    standing = [cdr for key in keys if (cdr := drive.ledger.standing_cdr(key)) is not None]
    billed_mwh = sum(cdr.energy_mwh for cdr in standing)
    return bool(session["outcome"] != "held" and billed_mwh == session["expected_mwh"])
