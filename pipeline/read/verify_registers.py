"""Control totals of registers: where the energy between any two of them went, to the last mWh.

A session that is settled or held says in its CDR, or in what holds it, between which registers it lies as metered, and
by how much they moved in it without energy (a reset, a rollover, a 0 that was no baseline). With `held` as it was left
out, or `rejected` if a person said so,

    last - first register = rated + held + rejected + unexplained        unexplained is 0 but where that is declared

for each of them, whatever its charger did. That they are the registers that the charger told is a check of its own, as
is the energy of readings against that of rated usage. From one session of a connector to its next

    first register - last register of the session before = outside any transaction + unexplained

where both came in order: what comes late may fill a gap that was booked before.
"""

from collections.abc import Iterator
from typing import Any, Final

from pipeline.clickhouse import Store
from pipeline.metering import kinds
from pipeline.metering.columns import FLAG_INTERVAL_MEASURAND
from pipeline.metering.registers import MODULI
from pipeline.read.checks import FAST, SHOWN, Check, Scope, check, log_name
from pipeline.read.verify_sessions import SIGN, kwh, session_place

_MOVES: Final = (
    kinds.SESSION_RESET | kinds.SESSION_ROLLOVER | kinds.SESSION_ZERO_BASELINE | kinds.SESSION_GLITCH
)  # what a session declares whose register moved without energy
_AS_METERED: Final = "(r.first_mwh, r.last_mwh, r.unexplained_mwh)"


def register_checks(store: Store, scope: Scope) -> Iterator[Check]:
    """Everything that can be said of registers."""
    yield balance(store, scope)
    yield as_told(store, scope)
    yield between_sessions(store, scope)
    yield energy_of_readings(store, scope)


def _sessions_in(scope: Scope) -> str:
    """Sessions with a CDR or a hold in scope."""
    if scope.since_ms is None:
        return "1"
    asked = (
        f"SELECT log_id, session_key FROM {table} WHERE {scope.covers('offset')}" for table in ("cdrs", "quarantine")
    )
    return f"(log_id, session_key) IN ({' UNION ALL '.join(asked)})"


def _accounts(scope: Scope) -> str:
    """A row a session that is settled or held and told a register: its registers, and where the energy went."""
    settled = (
        f"SELECT log_id, session_key, any(r.charge_point_id) AS cp, any(r.connector_id) AS conn, 1 AS settled, "
        f"argMax({_AS_METERED}, revision) AS registers, argMax(r.flags, revision) AS told_flags, "
        f"sum(r.energy_mwh) AS mwh, sum(r.held_mwh) AS kept, argMax(r.start, revision) AS opened, "
        f"argMax(r.end, revision) AS until FROM cdrs AS r WHERE {_sessions_in(scope)} "
        f"GROUP BY log_id, session_key HAVING sum({SIGN}) = 1"
    )
    acted = (
        f"SELECT log_id, session_key, any(r.charge_point_id) AS cp, any(r.connector_id) AS conn, "
        f"argMaxIf(({_AS_METERED}, r.held_mwh), (r.offset, r.line), action = 'held') AS hold, "
        "argMax(toString(r.action), (r.offset, r.line)) AS done "
        f"FROM quarantine AS r WHERE session_key != 0 AND {_sessions_in(scope)} GROUP BY log_id, session_key"
    )
    billed_keys = f"SELECT log_id, session_key FROM ({settled})"
    held = f"SELECT * FROM ({acted}) WHERE (log_id, session_key) NOT IN ({billed_keys})"
    usage = (
        "SELECT log_id, session_key, sumIf(quantity, dimension = 'ENERGY') AS mwh FROM rated_usage WHERE "
        f"(log_id, session_key) IN (SELECT log_id, session_key FROM ({held})) GROUP BY log_id, session_key"
    )
    spans = (
        "SELECT log_id, session_key, min(time) AS opened, max(time) AS until FROM readings WHERE "
        f"(log_id, session_key) IN (SELECT log_id, session_key FROM ({held})) GROUP BY log_id, session_key"
    )
    billed = (
        "SELECT s.log_id AS log_id, s.session_key AS session_key, s.cp AS cp, s.conn AS conn, s.settled AS settled, "
        "s.registers AS registers, s.told_flags AS told_flags, s.mwh AS rated, "
        "if(q.done = 'rejected', 0, s.kept) AS held, if(q.done = 'rejected', s.kept, 0) AS rejected, "
        f"s.opened AS opened, s.until AS until FROM ({settled}) AS s "
        f"LEFT JOIN ({acted}) AS q USING (log_id, session_key)"
    )
    waiting = (
        "SELECT h.log_id AS log_id, h.session_key AS session_key, h.cp AS cp, h.conn AS conn, 0 AS settled, "
        "h.hold.1 AS registers, toUInt32(0) AS told_flags, u.mwh AS rated, "
        "if(h.done = 'rejected', 0, h.hold.2) AS held, if(h.done = 'rejected', h.hold.2, 0) AS rejected, "
        f"t.opened AS opened, t.until AS until FROM ({held}) AS h LEFT JOIN ({usage}) AS u USING (log_id, session_key) "
        f"LEFT JOIN ({spans}) AS t ON h.log_id = t.log_id AND h.session_key = t.session_key"
    )
    return (
        "SELECT log_id, session_key, toString(cp) AS charge_point, conn AS connector, settled, told_flags AS flags, "
        "assumeNotNull(registers.1) AS first, assumeNotNull(registers.2) AS last, "
        "assumeNotNull(registers.3) AS unexplained, rated, held, rejected, opened, until "
        f"FROM ({billed} UNION ALL {waiting}) WHERE isNotNull(registers.1)"
    )


def balance(store: Store, scope: Scope) -> Check:
    """Last - first register = rated + held + rejected + unexplained, for every session that is settled or held."""
    missing = "last - first - rated - held - rejected - unexplained"
    wrong = f"{missing} != 0 OR (settled AND unexplained != 0 AND bitAnd(flags, {_MOVES}) = 0)"
    parts = ("rated", "held", "rejected", "unexplained")
    row = store.rows(
        f"{scope.head}SELECT count() AS sessions, countIf({wrong}) AS bad, sum(toInt128(last - first)) AS moved, "
        f"{', '.join(f'sum(toInt128({part})) AS all_{part}' for part in parts)} FROM ({_accounts(scope)}){FAST}"
    )[0]
    found = _differing(
        store, scope, f"SELECT *, {missing} AS missing FROM ({_accounts(scope)}) WHERE {wrong}", row["bad"]
    )
    names = ("first", "last", *parts, "missing")
    places = [{**session_place(one), **{f"{name}_mwh": one[name] for name in names}} for one in found]
    sums = " + ".join(f"{kwh(row[f'all_{part}'])} {part}" for part in parts)
    text = f"{row['sessions']} sessions settled or held: registers moved by {kwh(row['moved'])} kWh = {sums}"
    return check("register_balance", row["sessions"], places, text, row["bad"])


def _differing(store: Store, scope: Scope, sql: str, wrong: int, order: str = "charge_point, session_key") -> list[Any]:
    return store.rows(f"{scope.head}{sql} ORDER BY {order} LIMIT {SHOWN}") if wrong else []


def as_told(store: Store, scope: Scope) -> Check:
    """The registers of settled sessions are those that their chargers told, the first and the last that counted.

    A last one less than a Wh below the one before is that one, told in whole Wh. Of a session that came late only that
    its charger told them; nothing can be said where samples count from 0 or an interval's energy is told.
    """
    counted = "verdict IN ('first', 'good', 'gap') OR (verdict = 'suspect' AND disposition = 'held')"
    confirmed = f"{counted} OR (verdict = 'suspect' AND disposition = 'none')"
    place = "reg, (offset, line)"
    readings = (
        "SELECT log_id, session_key, offset, line, flags, toString(verdict) AS verdict, toString(disposition) AS "
        "disposition, assumeNotNull(register_mwh) AS reg FROM readings WHERE session_key != 0 "
        f"AND isNotNull(register_mwh) AND verdict NOT IN ('duplicate', 'ignored') AND {_sessions_in(scope)}"
    )
    told = (
        f"SELECT log_id, session_key, argMinIf({place}, {counted}) AS low, argMaxIf({place}, {counted}) AS high, "
        f"argMaxIf({place}, {confirmed}) AS higher, countIf(verdict = 'late') AS lates, "
        f"max(bitAnd(flags, {FLAG_INTERVAL_MEASURAND})) AS by_interval FROM ({readings}) GROUP BY log_id, session_key"
    )
    late = (
        f"SELECT log_id, session_key, groupUniqArray(reg) AS registers FROM ({readings}) WHERE (log_id, session_key) "
        f"IN (SELECT log_id, session_key FROM ({readings}) WHERE verdict = 'late') GROUP BY log_id, session_key"
    )
    compared = (
        "SELECT a.log_id AS log_id, a.session_key AS session_key, a.charge_point AS charge_point, a.first AS first, "
        "a.last AS last, t.low AS low, t.high AS high, t.higher AS higher, t.lates AS lates, l.registers AS registers "
        f"FROM ({_accounts(scope)}) AS a INNER JOIN ({told}) AS t USING (log_id, session_key) "
        f"LEFT JOIN ({late}) AS l ON a.log_id = l.log_id AND a.session_key = l.session_key "
        f"WHERE a.settled AND t.by_interval = 0 AND bitAnd(a.flags, {kinds.SESSION_RELATIVE}) = 0"
    )
    wrong = (
        "if(lates = 0, first != low OR (last != higher AND NOT last - high BETWEEN 0 AND 999), "
        "NOT has(registers, first) OR NOT arrayExists(reg -> last - reg BETWEEN 0 AND 999, registers))"
    )
    row = store.rows(
        f"{scope.head}SELECT count() AS sessions, countIf(lates > 0) AS came_late, countIf({wrong}) AS bad "
        f"FROM ({compared}){FAST}"
    )[0]
    found = _differing(store, scope, f"SELECT * FROM ({compared}) WHERE {wrong}", row["bad"])
    places = [
        {**session_place(one), **{f"{name}_mwh": one[name] for name in ("first", "low", "last", "high")}}
        for one in found
    ]
    text = (
        f"{row['sessions']} settled sessions, {row['came_late']} of them with late readings: their chargers told it so"
    )
    return check("registers_as_told", row["sessions"], places, text, row["bad"])


def between_sessions(store: Store, scope: Scope) -> Check:
    """From one session of a connector to its next the register moves by what was booked outside, or as unexplained.

    A counter that passed its modulus meanwhile moved by that much less.
    """
    begun = (
        "SELECT log_id, session_key, min(time) AS heard, countIf(verdict = 'late') AS lates, "
        f"max(bitAnd(flags, {FLAG_INTERVAL_MEASURAND})) AS by_interval FROM readings WHERE session_key != 0 "
        f"AND isNotNull(register_mwh) AND {_sessions_in(scope)} GROUP BY log_id, session_key"
    )
    stated = (
        "SELECT a.log_id AS log_id, a.charge_point AS charge_point, a.connector AS connector, a.opened AS opened, "
        "a.until AS until, b.heard AS heard, a.first AS first, a.last AS last, "
        "b.lates > 0 OR b.by_interval > 0 AS apart "
        f"FROM ({_accounts(scope)}) AS a INNER JOIN ({begun}) AS b USING (log_id, session_key)"
    )
    unstated = (
        "SELECT log_id, toString(charge_point_id) AS charge_point, connector_id AS connector, min(time) AS opened, "
        "max(time) AS until, opened AS heard, toInt64(0) AS first, toInt64(0) AS last, 1 AS apart FROM readings "
        f"WHERE session_key != 0 AND {_sessions_in(scope)} AND (log_id, session_key) NOT IN ("
        f"SELECT log_id, session_key FROM ({_accounts(scope)})) GROUP BY log_id, charge_point, connector, session_key"
    )
    window = "(PARTITION BY log_id, charge_point, connector ORDER BY opened ROWS BETWEEN 1 PRECEDING AND CURRENT ROW)"
    before = ", ".join(f"lagInFrame({name}, 1) OVER {window} AS {name}_before" for name in ("last", "until"))
    # Two sessions of one connector at once have one register: neither says where the other's began.
    alone = (
        "SELECT *, apart OR heard < max(until) OVER (PARTITION BY log_id, charge_point, connector ORDER BY opened "
        f"ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING) AS doubtful FROM ({stated} UNION ALL {unstated})"
    )
    chained = f"SELECT *, {before}, lagInFrame(toUInt8(doubtful), 1, 1) OVER {window} AS doubtful_before FROM ({alone})"
    beside = (
        "SELECT log_id, toString(charge_point_id) AS charge_point, connector_id AS connector, "
        "groupArray((time, energy_mwh, disposition = 'outside')) AS moves FROM readings WHERE disposition = 'outside' "
        "OR (disposition = 'unexplained' AND verdict != 'good') GROUP BY log_id, charge_point, connector"
    )
    grouped = (
        "SELECT log_id, charge_point, connector, opened, first - last_before AS moved, "
        "arrayFilter(m -> m.1 >= until_before AND m.1 <= heard, moves) AS between, "
        "arraySum(m -> m.2, between) AS told, arraySum(m -> if(m.3, m.2, 0), between) AS outside FROM "
        f"({chained}) AS c LEFT JOIN ({beside}) AS b USING (log_id, charge_point, connector) "
        "WHERE NOT doubtful AND NOT doubtful_before"
    )
    wrong = f"told - moved NOT IN (0, {', '.join(map(str, MODULI.tolist()))})"
    row = store.rows(
        f"{scope.head}SELECT count() AS gaps, sum(toInt128(outside)) AS mwh, sum(toInt128(moved)) AS all_moved, "
        f"countIf({wrong}) AS bad FROM ({grouped})"
    )[0]
    found = _differing(store, scope, f"SELECT * FROM ({grouped}) WHERE {wrong}", row["bad"], "charge_point, opened")
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
    moved, outside = row["all_moved"], row["mwh"]
    text = (
        f"{row['gaps']} times from one session of a connector to its next: registers moved by {kwh(moved)} kWh = "
        f"{kwh(outside)} outside any transaction + {kwh(moved - outside)} unexplained"
    )
    return check("registers_between_sessions", row["gaps"], places, text, row["bad"])


def energy_of_readings(store: Store, scope: Scope) -> Check:
    """The energy of readings is that of rated usage, of open sessions too; of those ever held the holds tell."""
    within = _sessions_in(scope) if scope.since_ms is not None else "session_key != 0"
    grouped = (
        "SELECT log_id, session_key, any(cp) AS charge_point, sum(told) AS read_mwh, sum(usage) AS rated_mwh FROM ("
        "SELECT log_id, session_key, toString(charge_point_id) AS cp, "
        "if(disposition = 'rated', energy_mwh, 0) AS told, "
        "toInt64(0) AS usage, disposition = 'held' AS doubt FROM readings "
        f"WHERE session_key != 0 AND {within} UNION ALL "
        "SELECT log_id, session_key, toString(charge_point_id), toInt64(0), if(dimension = 'ENERGY', quantity, 0), 0 "
        f"FROM rated_usage WHERE {within} UNION ALL SELECT log_id, session_key, toString(charge_point_id), toInt64(0), "
        f"toInt64(0), 1 FROM quarantine WHERE session_key != 0 AND {within}) "
        "GROUP BY log_id, session_key HAVING max(doubt) = 0"
    )
    row = store.rows(
        f"{scope.head}SELECT count() AS sessions, countIf(read_mwh != rated_mwh) AS bad FROM ({grouped}){FAST}"
    )[0]
    found = _differing(store, scope, f"SELECT * FROM ({grouped}) WHERE read_mwh != rated_mwh", row["bad"])
    places = [{**session_place(one), "read_mwh": one["read_mwh"], "rated_mwh": one["rated_mwh"]} for one in found]
    text = f"{row['sessions']} sessions, open ones too, of which nothing was ever held: readings and rated usage agree"
    return check("energy_of_readings", row["sessions"], places, text, row["bad"])
