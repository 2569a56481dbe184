"""Control totals of sessions: usage against CDRs, and chains of CDRs; `verify_registers` holds registers to them.

Aggregated in the store; only differences travel. A session is settled when a CDR stands for it: its CDRs less their
credits are one.
"""

from collections.abc import Iterator
from typing import Any, Final

from pipeline.clickhouse import Store
from pipeline.errors import IntegrityError
from pipeline.read.checks import FAST, SHOWN, Check, Place, Scope, check, log_name
from pipeline.read.history import tariff_of_history
from pipeline.read.holds import SET_APART
from rating import words
from rating.money import COST_PER_E4, cost_decimal
from rating.tariff import TAX_INCLUDED

SIGN: Final = "if(credit, -1, 1)"


def session_checks(store: Store, scope: Scope) -> Iterator[Check]:
    """Everything that can be said of settled sessions."""
    yield from _usage(store, scope)
    yield _chains(store, scope)
    yield _held_once(store, scope)


def _sessions_in(scope: Scope) -> str:
    """Sessions with a CDR in scope."""
    if scope.since_ms is None:
        return "1"
    return f"(log_id, session_key) IN (SELECT log_id, session_key FROM cdrs WHERE {scope.covers('offset')})"


def _usage(store: Store, scope: Scope) -> Iterator[Check]:
    """Net rated energy = the CDR's energy; Σ rated cost and settlement rows = the CDR's total, to the cost unit."""
    tariffs = [row["key"] for row in store.rows("SELECT DISTINCT toString(tariff) AS key FROM cdrs")]
    inclusive = [key for key in tariffs if _tax_included(store, key)]
    grouped = (
        "SELECT log_id, session_key, any(cp) AS charge_point, sum(cdrs_net) AS standing, sum(rated_mwh) AS mwh, "
        "sum(cdr_mwh) AS billed_mwh, sum(rated_cost) AS cost, sum(cdr_cost) AS billed_cost, "
        "sum(used_cost) AS usage_cost, sum(cdr_used) AS billed_usage FROM ("
        "SELECT log_id, session_key, charge_point_id AS cp, 0 AS cdrs_net, if(dimension = 'ENERGY', quantity, 0) AS "
        "rated_mwh, 0 AS cdr_mwh, v.cost AS rated_cost, 0 AS cdr_cost, if(dimension < 'STEP', v.cost, 0) AS used_cost, "
        f"0 AS cdr_used FROM rated_usage AS v WHERE {_sessions_in(scope)} UNION ALL "
        f"SELECT log_id, session_key, charge_point_id, {SIGN}, 0, energy_mwh, 0, "
        f"if(tariff IN {{inclusive:Array(String)}}, total_incl_e4, total_excl_e4) * {COST_PER_E4}, 0, v.rated_cost "
        f"FROM cdrs AS v WHERE {_sessions_in(scope)}) GROUP BY log_id, session_key HAVING standing = 1"
    ).replace("dimension < 'STEP'", "toInt8(dimension) < 5")
    names = ("mwh", "cost", "usage_cost")
    billed = {"mwh": "billed_mwh", "cost": "billed_cost", "usage_cost": "billed_usage"}
    row = store.rows(
        f"{scope.head}SELECT count() AS sessions, sum(toInt128(billed_mwh)) AS total_mwh, "
        f"{', '.join(f'countIf({n} != {billed[n]}) AS wrong_{n}' for n in names)} FROM ({grouped}){FAST}",
        {"inclusive": inclusive},
    )[0]
    places = {
        name: _differing(store, f"{scope.head}SELECT * FROM ({grouped}) WHERE {name} != {billed[name]}", inclusive)
        if row[f"wrong_{name}"]
        else []
        for name in names
    }
    sessions = row["sessions"]
    yield check(
        "energy_of_sessions", sessions, [_energy_place(p) for p in places["mwh"]],
        f"{sessions} settled sessions, {kwh(row['total_mwh'])} kWh: rated energy is what their CDRs say",
        row["wrong_mwh"],
    )  # fmt: skip
    yield check(
        "cost_of_sessions", sessions, [_cost_place(p, "cost", "billed_cost") for p in places["cost"]],
        f"{sessions} settled sessions: rated cost and settlement rows sum to the CDR's total", row["wrong_cost"],
    )  # fmt: skip
    yield check(
        "usage_of_sessions", sessions, [_cost_place(p, "usage_cost", "billed_usage") for p in places["usage_cost"]],
        f"{sessions} settled sessions: rated cost before settlement is what the CDR holds", row["wrong_usage_cost"],
    )  # fmt: skip


def _tax_included(store: Store, key: str) -> bool:
    tariff = tariff_of_history(store, key)
    if tariff is None:
        raise IntegrityError(f"{store.where}: CDRs name tariff {key}, which was never published here")
    return tariff.tax == TAX_INCLUDED


def _differing(store: Store, sql: str, inclusive: list[str]) -> list[dict[str, Any]]:
    return store.rows(f"{sql} ORDER BY charge_point, session_key LIMIT {SHOWN}", {"inclusive": inclusive})


def _chains(store: Store, scope: Scope) -> Check:
    """Revisions 1, 2, 3, … are CDR, credit, CDR, …, and the chain nets to its last: that CDR, or nothing."""
    amounts = ("energy_mwh", "held_mwh", "rated_cost", "total_excl_e4", "total_incl_e4")
    nets = [f"sum(v.{n}) != if(last_credit, 0, argMax(v.{n}, revision))" for n in amounts]
    broken = " OR ".join(["n != last", "uniqExact(revision) != n", "countIf(credit = revision % 2) > 0", *nets])
    grouped = (
        "SELECT log_id, session_key, any(charge_point_id) AS charge_point, count() AS n, max(revision) AS last, "
        f"argMax(credit, revision) AS last_credit, ({broken}) AS wrong, arraySort(groupArray((revision, credit))) AS "
        f"revisions FROM cdrs AS v WHERE {_sessions_in(scope)} GROUP BY log_id, session_key"
    )
    row = store.rows(
        f"{scope.head}SELECT count() AS sessions, countIf(n > 1) AS corrected, countIf(wrong) AS bad FROM ({grouped})"
    )[0]
    found = (
        store.rows(
            f"{scope.head}SELECT * FROM ({grouped}) WHERE wrong ORDER BY charge_point, session_key LIMIT {SHOWN}"
        )
        if row["bad"]
        else []
    )
    places = [
        {**session_place(one), "revisions": [f"{number}{'C' if credit else ''}" for number, credit in one["revisions"]]}
        for one in found
    ]
    text = f"{row['sessions']} sessions with a CDR, {row['corrected']} of them corrected: each chain nets to its last"
    return check("cdr_chains", row["sessions"], places, text, row["bad"])


def _held_once(store: Store, scope: Scope) -> Check:
    """A session is billed or held, never both; one whose CDR was credited without a new one is held."""
    grouped = (
        "SELECT log_id, session_key, any(cp) AS charge_point, sum(net) AS standing, sum(is_cdr) AS n, "
        "max(is_held) AS held FROM ("
        f"SELECT log_id, session_key, charge_point_id AS cp, {SIGN} AS net, 1 AS is_cdr, 0 AS is_held FROM cdrs "
        f"WHERE {_sessions_in(scope)} UNION ALL "
        "SELECT log_id, session_key, any(charge_point_id), 0, 0, argMax(action = 'held' AND (held_mwh != 0 OR reason "
        f"NOT IN {SET_APART!r}), (offset, line)) FROM quarantine WHERE session_key != 0 AND {_sessions_in(scope)} "
        "GROUP BY log_id, session_key) GROUP BY log_id, session_key"
    )
    wrong = "(standing = 1 AND held) OR (n > 0 AND standing = 0 AND NOT held) OR standing NOT IN (0, 1)"
    row = store.rows(
        f"{scope.head}SELECT count() AS sessions, countIf(held) AS held_now, countIf({wrong}) AS bad FROM ({grouped})"
    )[0]
    found = (
        store.rows(
            f"{scope.head}SELECT * FROM ({grouped}) WHERE {wrong} ORDER BY charge_point, session_key LIMIT {SHOWN}"
        )
        if row["bad"]
        else []
    )
    places = [{**session_place(one), "cdrs_standing": one["standing"], "held": bool(one["held"])} for one in found]
    text = f"{row['sessions']} sessions settled or held, {row['held_now']} held now: none is both, none is neither"
    return check("billed_or_held", row["sessions"], places, text, row["bad"])


def session_place(row: dict[str, Any]) -> Place:
    """A session as a check names it."""
    return {
        "log_id": log_name(row["log_id"]),
        "session": f"{row['session_key']:016x}",
        "charge_point_id": row["charge_point"],
    }


def _energy_place(row: dict[str, Any]) -> Place:
    difference = row["mwh"] - row["billed_mwh"]
    return {**session_place(row), "rated_mwh": row["mwh"], "cdr_mwh": row["billed_mwh"], "difference_mwh": difference}


def _cost_place(row: dict[str, Any], rated: str, billed: str) -> Place:
    return {
        **session_place(row),
        "rated": f"{cost_decimal(row[rated]):f}",
        "cdr": f"{cost_decimal(row[billed]):f}",
        "difference": f"{cost_decimal(row[rated] - row[billed]):f}",
        "difference_cost_units": row[rated] - row[billed],
    }


def kwh(mwh: int) -> str:
    """Energy as a check writes it."""
    return words.amount(int(mwh), 1_000_000)
