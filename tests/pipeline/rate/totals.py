"""Control totals of registers over a log's rows, session by session: the slow twin of `wattrate verify`."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

Row = Mapping[str, Any]
Rows = Mapping[str, Sequence[Row]]


class Account(NamedTuple):
    """A session that is settled or held, in mWh: its registers, and where the energy between them went."""

    key: int
    connector: tuple[str, int]
    first: int
    last: int
    rated: int
    held: int
    rejected: int
    unexplained: int

    @property
    def missing(self) -> int:
        """What the registers moved by and nobody accounts for; 0 or something is wrong."""
        return self.last - self.first - self.rated - self.held - self.rejected - self.unexplained


def accounts(rows: Rows) -> list[Account]:
    """Every session that is settled or held and told a register."""
    rated = _rated(rows)
    acted = _last(rows["quarantine_rows"])
    revised = {row["session_key"]: row for row in sorted(rows["cdr_rows"], key=lambda row: row["revision"])}
    standing = {key: row for key, row in revised.items() if not row["credit"]}
    holds = _last([row for row in rows["quarantine_rows"] if row["action"] == "held"])
    held = {key: row for key, row in holds.items() if key not in standing}
    found = []
    for key, row in {**held, **standing}.items():
        if row["first_mwh"] is None:
            continue
        rejected = key in acted and acted[key]["action"] == "rejected"
        found.append(
            Account(
                key, (row["charge_point_id"], row["connector_id"]), row["first_mwh"],
                row["last_mwh"], rated[key], 0 if rejected else row["held_mwh"], row["held_mwh"] * rejected,
                row["unexplained_mwh"],
            )
        )  # fmt: skip
    return found


def misread(rows: Rows) -> list[int]:
    """Sessions of which nothing was ever held, and whose readings don't carry the energy of their rated usage."""
    doubted = {row["session_key"] for row in rows["quarantine_rows"]}
    told, rated = defaultdict[int, int](int), _rated(rows)
    for row in rows["reading_rows"]:
        if row["disposition"] == "held":
            doubted.add(row["session_key"])
        elif row["disposition"] == "rated":
            told[row["session_key"]] += row["energy_mwh"]
    return [key for key in {*told, *rated} - doubted if told[key] != rated[key]]


def _rated(rows: Rows) -> dict[int, int]:
    rated: dict[int, int] = defaultdict(int)
    for row in rows["rated_usage_rows"]:
        if row["dimension"] == "ENERGY":
            rated[row["session_key"]] += row["quantity"]
    return rated


def _last(rows: Sequence[Row]) -> dict[int, Row]:
    """The last row of each session."""
    ordered = sorted(rows, key=lambda row: (row["partition"], row["offset"], row["line"]))
    return {row["session_key"]: row for row in ordered if row["session_key"]}
