"""Control totals of sessions: usage against CDRs, chains of CDRs, and the register against the bill.

Aggregated in the store; only differences travel. A session is settled when a CDR stands for it: its CDRs less their
credits are one.

The register balance of a settled session, to the last mWh:

    last - first register = billed energy + held energy

over the registers that metering counted, up to the session's end. Sessions whose registers are declared not to be one
rising line are not compared: resets, rollovers, session-relative samples, interval measurands, and late glitches. A
session whose first register was a 0 that is no baseline begins at its first register above 0. A suspect register
counts where the reading after it, or a person, confirmed it.

Between two sessions of a connector, where neither is one of those and the second does not start from 0:

    first register - last register of the session before = energy outside any transaction + unexplained
"""

from collections.abc import Iterator
from typing import Any, Final

from pipeline.clickhouse import Store
from pipeline.errors import IntegrityError
from pipeline.metering import kinds
from pipeline.metering.columns import FLAG_INTERVAL_MEASURAND
from pipeline.read.checks import FAST, SHOWN, Check, Place, Scope, check, log_name
from pipeline.read.holds import SET_APART
from pipeline.reference import tariff_of_history
from rating import words
from rating.money import COST_PER_E4, cost_decimal
from rating.tariff import TAX_INCLUDED

_DECLARED: Final = kinds.SESSION_RESET | kinds.SESSION_ROLLOVER | kinds.SESSION_RELATIVE
_SIGN: Final = "if(credit, -1, 1)"
_MOST: Final = "9223372036854775807"
_LEAST: Final = "-9223372036854775808"


def session_checks(store: Store, scope: Scope) -> Iterator[Check]:
    """Everything that can be said of settled sessions."""
    yield from _usage(store, scope)
    yield _chains(store, scope)
    yield _held_once(store, scope)
    yield _balance(store, scope)
    yield _between(store, scope)


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
        f"SELECT log_id, session_key, charge_point_id, {_SIGN}, 0, energy_mwh, 0, "
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
        f"{sessions} settled sessions, {_kwh(row['total_mwh'])} kWh: rated energy is what their CDRs say",
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
        {**_session(one), "revisions": [f"{number}{'C' if credit else ''}" for number, credit in one["revisions"]]}
        for one in found
    ]
    text = f"{row['sessions']} sessions with a CDR, {row['corrected']} of them corrected: each chain nets to its last"
    return check("cdr_chains", row["sessions"], places, text, row["bad"])


def _held_once(store: Store, scope: Scope) -> Check:
    """A session is billed or held, never both; one whose CDR was credited without a new one is held."""
    grouped = (
        "SELECT log_id, session_key, any(cp) AS charge_point, sum(net) AS standing, sum(is_cdr) AS n, "
        "max(is_held) AS held FROM ("
        f"SELECT log_id, session_key, charge_point_id AS cp, {_SIGN} AS net, 1 AS is_cdr, 0 AS is_held FROM cdrs "
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
    places = [{**_session(one), "cdrs_standing": one["standing"], "held": bool(one["held"])} for one in found]
    text = f"{row['sessions']} sessions settled or held, {row['held_now']} held now: none is both, none is neither"
    return check("billed_or_held", row["sessions"], places, text, row["bad"])


def _balance(store: Store, scope: Scope) -> Check:
    """Last - first register = billed + held, to the mWh; see above for what is not compared."""
    grouped = _registers(scope)
    declared = (
        f"bitAnd(flags, {_DECLARED}) != 0 OR intervals OR NOT registers "
        f"OR (late AND bitAnd(flags, {kinds.SESSION_GLITCH}) != 0)"
    )
    begun = f"if(bitAnd(flags, {kinds.SESSION_ZERO_BASELINE}) != 0, first_above, first)"
    wrong = f"NOT ({declared}) AND billed + held_back NOT IN (last - {begun}, last_all - {begun})"
    row = store.rows(
        f"{scope.head}SELECT count() AS sessions, countIf({declared}) AS excused, countIf({wrong}) AS bad, "
        f"sum(toInt128(held_back)) AS held_mwh FROM ({grouped}){FAST}"
    )[0]
    found = (
        store.rows(
            f"{scope.head}SELECT * FROM ({grouped}) WHERE {wrong} ORDER BY charge_point, session_key LIMIT {SHOWN}"
        )
        if row["bad"]
        else []
    )
    places = [
        {
            **_session(one),
            "first_mwh": one["first"],
            "last_mwh": one["last"],
            "billed_mwh": one["billed"],
            "held_mwh": one["held_back"],
            "unexplained_mwh": one["last"] - one["first"] - one["billed"] - one["held_back"],
            "flags": one["flags"],
        }
        for one in found
    ]
    text = (
        f"{row['sessions'] - row['excused']} sessions: last - first register = billed + held, of which "
        f"{_kwh(row['held_mwh'])} kWh held; {row['excused']} more declare a reset, rollover or relative register"
    )
    return check("register_balance", row["sessions"] - row["excused"], places, text, row["bad"])


def _between(store: Store, scope: Scope) -> Check:
    """From one session of a connector to its next the register moves by what was booked outside, or as unexplained."""
    odd = kinds.SESSION_GLITCH | kinds.SESSION_ZERO_BASELINE | _DECLARED
    settled = (
        f"SELECT log_id, toString(charge_point) AS charge_point, connector, opened, until, begun, first, "
        f"last, bitAnd(flags, {odd}) != 0 OR "
        f"intervals OR late OR NOT registers OR held_back != 0 AS excused FROM ({_registers(scope)})"
    )
    unsettled = (
        "SELECT log_id, toString(charge_point_id) AS charge_point, connector_id AS connector, min(time) AS opened, "
        "max(time) AS until, opened AS begun, toInt64(0) AS first, toInt64(0) AS last, 1 AS excused FROM readings "
        f"WHERE session_key != 0 AND {_sessions_in(scope)} AND (log_id, session_key) NOT IN ("
        f"SELECT log_id, session_key FROM cdrs GROUP BY log_id, session_key HAVING sum({_SIGN}) = 1) "
        "GROUP BY log_id, charge_point, connector, session_key"
    )
    window = "(PARTITION BY log_id, charge_point, connector ORDER BY opened ROWS BETWEEN 1 PRECEDING AND CURRENT ROW)"
    before = ", ".join(f"lagInFrame({name}, 1) OVER {window} AS {name}_before" for name in ("last", "until"))
    # Two sessions of one connector at once have one register: neither says where the other's began.
    alone = (
        "SELECT *, excused OR begun < max(until) OVER (PARTITION BY log_id, charge_point, connector ORDER BY opened "
        f"ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING) AS doubtful FROM ({settled} UNION ALL {unsettled})"
    )
    chained = f"SELECT *, {before}, lagInFrame(toUInt8(doubtful), 1, 1) OVER {window} AS doubtful_before FROM ({alone})"
    beside = (
        "SELECT log_id, toString(charge_point_id) AS charge_point, connector_id AS connector, "
        "groupArray((time, energy_mwh)) AS moves FROM readings WHERE disposition IN ('outside', 'unexplained') "
        "GROUP BY log_id, charge_point, connector"
    )
    grouped = (
        "SELECT log_id, charge_point, connector, opened, first - last_before AS moved, arraySum(m -> m.2, arrayFilter("
        "m -> m.1 >= until_before AND m.1 <= begun, moves)) AS told FROM "
        f"({chained}) AS c LEFT JOIN ({beside}) AS b USING (log_id, charge_point, connector) "
        "WHERE NOT doubtful AND NOT doubtful_before AND first > 0 AND last_before > 0"
    )
    row = store.rows(
        f"{scope.head}SELECT count() AS gaps, sum(toInt128(told)) AS mwh, countIf(moved != told) AS bad "
        f"FROM ({grouped})"
    )[0]
    found = (
        store.rows(
            f"{scope.head}SELECT * FROM ({grouped}) WHERE moved != told ORDER BY charge_point, opened LIMIT {SHOWN}"
        )
        if row["bad"]
        else []
    )
    places = [
        {
            "log_id": log_name(one["log_id"]),
            "charge_point_id": one["charge_point"],
            "connector_id": one["connector"],
            "session_start": str(one["opened"]),
            "moved_mwh": one["moved"],
            "booked_mwh": one["told"],
        }
        for one in found
    ]
    text = (
        f"{row['gaps']} times from one session of a connector to its next: the register moved by what was booked "
        f"outside or as unexplained, {_kwh(row['mwh'])} kWh"
    )
    return check("registers_between_sessions", row["gaps"], places, text, row["bad"])


def _registers(scope: Scope) -> str:
    """A row a settled session: its registers, and what its CDRs say of them.

    The few readings that came late or are suspect are kept aside (`odd`) and held against the session's end.
    """
    settled = (
        f"SELECT log_id, session_key, any(charge_point_id) AS cp, sum({_SIGN}) AS standing, argMax(r.flags, revision) "
        "AS f, sum(r.energy_mwh) AS mwh, sum(r.held_mwh) AS held, argMax(r.end, revision) AS until, "
        "any(r.connector_id) AS conn, argMax(r.start, revision) AS opened FROM cdrs AS r "
        f"WHERE {_sessions_in(scope)} GROUP BY log_id, session_key HAVING standing = 1"
    )
    metered = (
        "SELECT log_id, session_key, countIf(good) AS goods, minIf(time, good) AS first_time, "
        "minIf(reg, good) AS lo_good, "
        "minIf(reg, good AND reg > 0) AS lo_above, countIf(good AND reg > 0) AS above, maxIf(reg, good) AS hi_good, "
        f"max(bitAnd(v.flags, {FLAG_INTERVAL_MEASURAND})) AS by_interval, "
        "groupArrayIf((time, reg, verdict = 'late', disposition = 'held', disposition = 'outside'), NOT good) AS odd "
        "FROM (SELECT log_id, session_key, time, flags, verdict, disposition, assumeNotNull(register_mwh) AS reg, "
        "verdict IN ('first', 'good', 'gap') AS good FROM readings WHERE session_key != 0 AND isNotNull(register_mwh) "
        f"AND verdict IN ('first', 'good', 'gap', 'late', 'suspect') AND {_sessions_in(scope)}) AS v "
        "GROUP BY log_id, session_key"
    )
    counted = "arrayMap(o -> o.2, arrayFilter(o -> (o.3 AND o.1 <= until) OR (NOT o.3 AND o.4), odd))"
    either = "arrayMap(o -> o.2, arrayFilter(o -> o.1 <= until AND NOT o.5, odd))"
    return (
        "SELECT log_id, session_key, c.cp AS charge_point, c.mwh AS billed, c.held AS held_back, c.f AS flags, "
        f"{counted} AS more, arrayMin(arrayPushBack(more, if(goods > 0, lo_good, {_MOST}))) AS first, "
        "arrayMin(arrayPushBack(arrayFilter(o -> o > 0, more), "
        f"if(above > 0, lo_above, {_MOST}))) AS first_above, "
        f"arrayMax(arrayPushBack(more, if(goods > 0, hi_good, {_LEAST}))) AS last, "
        f"arrayMax(arrayPushBack({either}, last)) AS last_all, by_interval != 0 AS intervals, "
        "arrayExists(o -> o.3, odd) AS late, goods + length(more) > 0 AS registers, c.conn AS connector, "
        "c.opened AS opened, c.until AS until, m.first_time AS begun "
        f"FROM ({metered}) AS m INNER JOIN ({settled}) AS c USING (log_id, session_key)"
    )


def _session(row: dict[str, Any]) -> Place:
    return {
        "log_id": log_name(row["log_id"]),
        "session": f"{row['session_key']:016x}",
        "charge_point_id": row["charge_point"],
    }


def _energy_place(row: dict[str, Any]) -> Place:
    difference = row["mwh"] - row["billed_mwh"]
    return {**_session(row), "rated_mwh": row["mwh"], "cdr_mwh": row["billed_mwh"], "difference_mwh": difference}


def _cost_place(row: dict[str, Any], rated: str, billed: str) -> Place:
    return {
        **_session(row),
        "rated": f"{cost_decimal(row[rated]):f}",
        "cdr": f"{cost_decimal(row[billed]):f}",
        "difference": f"{cost_decimal(row[rated] - row[billed]):f}",
        "difference_cost_units": row[rated] - row[billed],
    }


def _kwh(mwh: int) -> str:
    return words.amount(int(mwh), 1_000_000)
