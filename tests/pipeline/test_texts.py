"""Packed texts against what they stand for: a dictionary of texts to numbers."""

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.texts import Texts, distinct, packed

WORDS = st.lists(st.text(max_size=40), max_size=60)


@settings(deadline=None)
@given(st.lists(WORDS, max_size=6))
def test_numbers_are_given_in_the_order_of_first_appearance(batches: list[list[str]]) -> None:
    texts, twin = Texts(), dict[str, int]()
    for batch in batches:
        numbers = texts.numbers(batch)
        assert numbers.tolist() == [twin.setdefault(word, len(twin)) for word in batch]
    assert [texts[number] for number in range(len(texts))] == list(twin)
    asked = [word for batch in batches for word in batch] + ["never said, nor was this"]
    assert texts.found(asked).tolist() == [twin.get(word, -1) for word in asked]
    assert [texts.find(word) for word in asked] == [twin.get(word, -1) for word in asked]
    assert len(texts) == len(twin)


@settings(deadline=None)
@given(WORDS, st.data())
def test_texts_are_taken_out_in_any_order_and_number(words: list[str], data: st.DataObject) -> None:
    texts = Texts()
    texts.numbers(words)
    chosen = data.draw(st.lists(st.integers(0, max(0, len(texts) - 1)), max_size=50 if words else 0))
    taken = texts.taken(np.array(chosen, np.int32))
    assert taken.arrow().equals(pa.array([texts[number] for number in chosen], pa.string()))
    assert taken.texts() == [texts[number] for number in chosen]
    assert [taken.text(at).decode() for at in range(len(chosen))] == [texts[number] for number in chosen]
    kept = list(dict.fromkeys(chosen))
    only = texts.only(np.array(kept, np.int32))
    assert [only[number] for number in range(len(only))] == [texts[number] for number in kept]


def test_many_texts_find_room() -> None:
    words = [f"CP{number:07d}" for number in range(30_000)]
    texts = Texts()
    for first in range(0, len(words), 1_000):
        texts.numbers(words[first : first + 1_000])
    assert texts.found(words[::-1]).tolist() == list(range(30_000))[::-1]


def test_a_number_that_was_never_given_is_an_error() -> None:
    texts = Texts()
    texts.numbers(["CP1"])
    for number in (-1, 1):
        with pytest.raises(IndexError):
            texts[number]


@settings(deadline=None)
@given(st.lists(st.integers(-1, 2**40), max_size=80))
def test_distinct_numbers_in_order(numbers: list[int]) -> None:
    places, used = distinct(np.array(numbers, np.int64))
    assert used.tolist() == list(dict.fromkeys(numbers))
    assert used[places].tolist() == numbers


def test_packed_texts_are_utf_8() -> None:
    assert [packed(["Säule", "", "樁"]).text(at) for at in range(3)] == ["Säule".encode(), b"", "樁".encode()]
