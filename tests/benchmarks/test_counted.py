"""The regression gate: counted work against its recorded budget. `python -m benchmarks.counted --record` renews it."""

import pytest

from benchmarks import counted


@pytest.fixture(scope="module")
def counts() -> dict[str, float]:
    found: dict[str, float] = counted.run()["counts"]
    return found


def test_no_reading_costs_more_work_than_budgeted(counts: dict[str, float]) -> None:
    over = counted.above(counts, counted.budget())
    assert not over, f"worth it? Then `python -m benchmarks.counted --record` and say why in the commit: {over}"


def test_the_budget_names_what_is_counted_and_is_not_far_above_it(counts: dict[str, float]) -> None:
    budget = counted.budget()
    assert budget.keys() == counts.keys()
    loose = {name: (counts[name], allowed) for name, allowed in budget.items() if counts[name] < allowed / 2}
    assert not loose, f"less than half of the budget is used: `python -m benchmarks.counted --record` ({loose})"


def test_a_count_above_its_budget_is_named() -> None:
    assert counted.above({"calls": 111.0, "bytes": 9.0}, {"calls": 100.0, "bytes": 9.0}) == [
        "calls: 111.0 where 100.0 is the budget"
    ]
