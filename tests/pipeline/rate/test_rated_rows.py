"""The compiled pass from pieces to rated rows, beside the same in columns of numpy."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.metering.columns import SAMPLE_DTYPE
from pipeline.metering.output import PIECE_DTYPE, Rows
from pipeline.rate.rows import (
    ENERGY,
    FLAG_APPORTIONED,
    FLAG_POWER_MISSING,
    PARKING_TIME,
    RATED_DTYPE,
    TIME,
    from_pieces,
    line_base,
    places,
    priced,
)
from pipeline.rate.segment import new_facts
from rating.columns import PARKING, RESERVATION
from rating.money import ENERGY_COST, TIME_COST
from rating.ratesheet import COMPONENT_COLUMNS, Book, BookBuilder

_COMPONENTS = 5


def in_columns(book: Book, pieces: Rows, samples: Rows, facts: Rows) -> Rows:
    """What `from_pieces` says, column after column."""
    timed = pieces["time_component"] >= 0
    metered = (pieces["energy_mwh"] > 0) | (~timed & (pieces["state"] < RESERVATION))
    which = np.concatenate([np.flatnonzero(metered), np.flatnonzero(timed)])
    is_time = np.arange(len(which)) >= np.count_nonzero(metered)
    order = np.lexsort((is_time, which))
    which, is_time = which[order], is_time[order]
    chosen = pieces[which]
    cause = chosen["tag"]
    rated = np.zeros(len(which), RATED_DTYPE)
    for name in ("start_ms", "end_ms", "state", "split"):
        rated[name] = chosen[name]
    rated["offset"] = samples["offset"][cause]
    rated["line"] = line_base(samples["line"][cause]) + places(cause).astype(np.uint64)
    for name, source in (("session_key", "session_key"), ("partition", "partition"), ("row", "row")):
        rated[name] = facts[source][cause]
    rated["sheet"] = facts["used_sheet"][cause]
    rated["dimension"] = np.where(is_time, np.where(chosen["state"] == PARKING, PARKING_TIME, TIME), ENERGY)
    rated["quantity"] = np.where(is_time, chosen["end_ms"] - chosen["start_ms"], chosen["energy_mwh"])
    priced(rated, book, np.where(is_time, chosen["time_component"], chosen["energy_component"]), 1)
    rated["cost"] *= np.where(is_time, TIME_COST, ENERGY_COST)
    rated["flags"] = chosen["apportioned"] * FLAG_APPORTIONED + chosen["missing"].astype(np.uint32) * FLAG_POWER_MISSING
    return rated


def drawn(dtype: np.dtype[np.void], rows: int, rng: np.random.Generator, least: int, most: int) -> Rows:
    """Rows of numbers in [least, most)."""
    found = np.zeros(rows, dtype)
    for name in dtype.names or ():
        found[name] = rng.integers(least, most, rows)
    return found


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), causes=st.integers(1, 20), pieces=st.integers(0, 60))
def test_rows_from_pieces_are_those_of_the_columns(seed: int, causes: int, pieces: int) -> None:
    """Every state, free and priced dimensions, no energy, several pieces of one cause: field for field."""
    rng = np.random.default_rng(seed)
    book = BookBuilder(0, 1).book()._replace(components=rng.integers(0, 5000, (_COMPONENTS, COMPONENT_COLUMNS)))
    samples = drawn(SAMPLE_DTYPE, causes, rng, 0, 100)
    facts = new_facts(causes)
    for name in ("session_key", "row", "partition", "used_sheet"):
        facts[name] = rng.integers(0, 100, causes)
    given_pieces = drawn(PIECE_DTYPE, pieces, rng, 0, 4)
    given_pieces["tag"] = np.sort(rng.integers(0, causes, pieces))
    given_pieces["energy_component"] = rng.integers(-1, _COMPONENTS, pieces)
    given_pieces["time_component"] = rng.integers(-1, _COMPONENTS, pieces)
    given_pieces["apportioned"] = rng.integers(0, 2, pieces)

    found = from_pieces(book, given_pieces, samples, facts)

    assert found.tolist() == in_columns(book, given_pieces, samples, facts).tolist()
