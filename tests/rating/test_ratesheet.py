"""Rate sheets grow without disturbing readers, share what is equal, and refuse what they can't settle."""

import numpy as np
import pytest

from rating import engine
from rating.errors import SheetError
from rating.policy import Policy
from rating.ratesheet import BookBuilder
from rating.session import Mark, Session
from tests.rating.tariffs import HOUR, KWH, MONDAY, component, element, tariff

DAY = 24 * HOUR
BANDS = tariff(
    element(component("ENERGY", 0.2), start_time="00:00", end_time="08:00"),
    element(component("ENERGY", 0.4), start_time="08:00", end_time="20:00"),
    element(component("ENERGY", 0.3)),
)


def cost(builder: BookBuilder, sheet: int, start: int) -> int:
    session = Session(((start, start + HOUR, KWH),), (Mark(start, 0),))
    return int(engine.rate_batch(builder.book(), engine.batch_of([session], [sheet])).settled.rated_cost[0])


def test_a_sheet_keeps_its_number_and_meaning_while_the_book_grows() -> None:
    builder = BookBuilder(MONDAY, MONDAY + DAY)
    berlin = builder.add(BANDS, "T@1", "Europe/Berlin")
    old = builder.book()
    before = cost(builder, berlin, MONDAY + 9 * HOUR)
    builder.add(tariff(element(component("ENERGY", 9))), "U@1", "UTC")
    builder.extend(MONDAY - DAY, MONDAY + 90 * DAY)
    assert builder.add(BANDS, "T@1", "Europe/Berlin") == berlin
    assert cost(builder, berlin, MONDAY + 9 * HOUR) == before
    assert (builder.book().components[: len(old.components)] == old.components).all()


def test_a_session_beyond_the_horizon_is_refused_until_it_is_extended() -> None:
    builder = BookBuilder(MONDAY, MONDAY + DAY)
    sheet = builder.add(BANDS, "T@1", "UTC")
    with pytest.raises(SheetError, match="extend"):
        cost(builder, sheet, MONDAY + 2 * DAY)
    builder.extend(MONDAY, MONDAY + 3 * DAY)
    assert cost(builder, sheet, MONDAY + 2 * DAY) > 0


def test_a_new_version_is_another_sheet_and_leaves_the_old_one_alone() -> None:
    builder = BookBuilder(MONDAY, MONDAY + DAY)
    first = builder.add(tariff(element(component("ENERGY", 1))), "T@1", "UTC")
    second = builder.add(tariff(element(component("ENERGY", 2))), "T@2", "UTC")
    assert cost(builder, second, MONDAY) == 2 * cost(builder, first, MONDAY)


def test_sheets_of_equal_zone_and_windows_share_their_calendar() -> None:
    builder = BookBuilder(MONDAY, MONDAY + 90 * DAY)
    builder.add(BANDS, "T@1", "Europe/Berlin")
    flips = len(builder.book().flips)
    for version in range(2, 500):
        builder.add(BANDS, f"T@{version}", "Europe/Berlin")
    book = builder.book()
    assert len(book.flips) == flips
    assert sum(np.asarray(table).nbytes for table in book) < 500 * 1500  # bytes a sheet, measured about 640


def test_a_tariff_without_local_times_has_no_horizon() -> None:
    builder = BookBuilder(MONDAY, MONDAY + 1)
    sheet = builder.add(tariff(element(component("ENERGY", 1))), "T@1", "Asia/Kathmandu")
    assert cost(builder, sheet, MONDAY + 10_000 * DAY) > 0


def test_more_than_64_elements_are_no_limit() -> None:
    elements = [
        element(component("ENERGY", at), start_date=f"2019-01-{7 + at:02d}", end_date=f"2019-01-{8 + at:02d}")
        for at in range(1, 20)
    ]
    hours = [
        element(
            component("ENERGY", hour / 100),
            start_time=f"{hour:02d}:{minute:02d}",
            end_time=f"{hour:02d}:{minute + 10:02d}",
        )
        for hour in range(24)
        for minute in range(0, 50, 10)
    ]
    builder = BookBuilder(MONDAY - DAY, MONDAY + 30 * DAY)
    sheet = builder.add(tariff(*hours, *elements), "T@1", "UTC")
    assert cost(builder, sheet, MONDAY + 3 * DAY + 7 * HOUR) > 0


def test_an_unknown_zone_is_named() -> None:
    with pytest.raises(SheetError, match="Mars/Olympus"):
        BookBuilder(MONDAY, MONDAY + DAY).add(BANDS, "T@1", "Mars/Olympus")


def test_more_tax_rates_than_can_be_settled_are_refused() -> None:
    many = tariff(element(*(component("ENERGY", 1, vat=vat) for vat in range(9))))
    with pytest.raises(SheetError, match="9 different VAT"):
        BookBuilder(0, 1).add(many, "T@1", "UTC")


def test_prices_and_limits_beyond_int64_are_refused() -> None:
    for huge in (
        tariff(element(component("FLAT", 10_000_000))),
        tariff(element(component("ENERGY", 1)), max_price={"excl_vat": 10_000_000}),
    ):
        with pytest.raises(SheetError, match="6 million"):
            BookBuilder(0, 1).add(huge, "T@1", "UTC")


def test_equal_start_and_end_are_a_whole_day_or_never_as_the_policy_says() -> None:
    whole = tariff(element(component("ENERGY", 1), start_time="08:00", end_time="08:00"))
    for policy, expected in ((Policy(), True), (Policy(equal_times="never"), False)):
        builder = BookBuilder(MONDAY, MONDAY + DAY, policy)
        assert (cost(builder, builder.add(whole, "T@1", "UTC"), MONDAY + HOUR) > 0) is expected
