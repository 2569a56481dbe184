import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.errors import DocumentError
from pipeline.read.cursor import START, Cursor, parse_cursor

ENDS = st.dictionaries(
    st.tuples(st.integers(0, 2**64 - 1), st.integers(0, 63)), st.integers(0, 2**63), min_size=1, max_size=9
)


@given(ENDS)
def test_a_cursor_survives_being_text(ends: dict[tuple[int, int], int]) -> None:
    cursor = Cursor.of(ends)
    assert parse_cursor(str(cursor)) == cursor
    for (log, partition), offset in ends.items():
        assert cursor.next_offset(log, partition) == offset


def test_the_beginning_has_a_name() -> None:
    assert parse_cursor("start") == START
    assert str(START) == "start"
    assert START.next_offset(1, 2) == 0


@pytest.mark.parametrize("change", [lambda t: t[:-1], lambda t: t.replace("7", "8"), lambda t: "x" + t, lambda t: ""])
def test_a_damaged_cursor_is_refused(change: object) -> None:
    text = str(Cursor.of({(5, 0): 17, (5, 1): 3}))
    with pytest.raises(DocumentError, match="is no cursor"):
        parse_cursor(change(text))  # type: ignore[operator]
