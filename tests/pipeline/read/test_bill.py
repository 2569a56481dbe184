from pipeline.rate.rows import ENERGY, FLAG_REVERSAL, MAX_PRICE
from pipeline.read.bill import merged, standing
from pipeline.read.session_rows import RatedRow
from rating.usage import UsageRow


def row(start: int, quantity: int, cost: int, flags: int = 0, dimension: int = ENERGY) -> RatedRow:
    return RatedRow(start, start + 10, dimension, quantity, cost, 1, "T@1", 0, 0, 0, 0, flags)


def test_a_reversal_takes_back_the_row_it_names_and_no_other() -> None:
    kept, gone = row(0, 5, 50), row(10, 7, 70)
    assert standing([kept, gone, row(10, -7, -70, FLAG_REVERSAL), row(10, 8, 80)]) == [kept, row(10, 8, 80)]


def test_of_two_equal_rows_one_reversal_leaves_one() -> None:
    twice = row(0, 5, 50)
    assert standing([twice, twice, row(0, -5, -50, FLAG_REVERSAL)]) == [twice]


def test_a_maximum_price_is_negative_and_no_reversal() -> None:
    limit = row(0, 0, -30, 0, MAX_PRICE)
    assert standing([limit]) == [limit]
    assert standing([limit, row(0, 0, 30, FLAG_REVERSAL, MAX_PRICE)]) == []


def test_neighbours_of_one_price_are_one_line_and_gaps_stay() -> None:
    def line(start: int, price: int) -> UsageRow:
        return UsageRow(start, start + 10, ENERGY, 1, 2, price, 0, 0)

    joined = merged([line(0, 5), line(10, 5), line(20, 6), line(40, 6)])
    assert [(one.start_ms, one.end_ms, one.quantity, one.cost) for one in joined] == [
        (0, 20, 2, 4),
        (20, 30, 1, 2),
        (40, 50, 1, 2),
    ]
