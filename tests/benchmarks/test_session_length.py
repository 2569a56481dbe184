"""How long a session of the workloads lasts: what real ones of a public network do, rapid chargers among them."""

import csv
from datetime import datetime
from statistics import mean, median

from benchmarks.workload import SESSION_READINGS
from tests.shared_data import shared

_CLOCK = "%d/%m/%Y %H:%M"
_TWO_DAYS = 2 * 1440


def test_a_session_has_a_reading_for_each_minute_that_sessions_of_dundee_last_on_average() -> None:
    minutes = []
    with shared("data/sessions/dundee_2018-06_2018-09.csv").open(encoding="utf-8-sig") as file:
        for row in csv.DictReader(file):
            if row["End Date"] and row["End Time"]:
                start, end = (
                    datetime.strptime(f"{row[f'{edge} Date']} {row[f'{edge} Time']}", _CLOCK)
                    for edge in ("Start", "End")
                )
                minutes.append((end - start).total_seconds() / 60)
    plausible = [one for one in minutes if 1 < one < _TWO_DAYS]
    assert len(plausible) > 18_000
    assert abs(mean(plausible) - SESSION_READINGS) < 1
    assert median(plausible) == 31  # half of them are short: the set has 30 readings a session too
