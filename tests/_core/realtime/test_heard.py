"""What of a message was heard."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rejoinder._core.realtime.heard import SpokenMessage, heard

RATE = 24000
MS = RATE * 2 // 1000


def message(*pieces: tuple[str, int], timed: bool = False) -> SpokenMessage:
    spoken = SpokenMessage(RATE)
    at = 0
    for text, ms in pieces:
        spoken.add_text(text, at / 1000 if timed else None)
        spoken.add_audio(ms * MS)
        at += ms
    return spoken


def test_words_whose_sound_was_played_are_heard() -> None:
    spoken = message(("One ", 100), ("two ", 100), ("three.", 100))
    assert heard(spoken, 0) == ""
    assert heard(spoken, 110) == "One "
    assert heard(spoken, 200) == "One two "
    assert heard(spoken, 300) == "One two three."
    assert heard(spoken, 9000) == "One two three."


def test_times_of_words_count_where_there_are_some() -> None:
    spoken = SpokenMessage(RATE)
    for text, at in (("Hi ", 0.0), ("you ", 0.5), ("there", 2.0)):
        spoken.add_text(text, at)
    spoken.add_audio(3000 * MS)
    assert heard(spoken, 600) == "Hi "
    assert heard(spoken, 1300) == "Hi you "


def test_a_text_that_came_at_once_is_cut_in_proportion_between_words() -> None:
    spoken = SpokenMessage(RATE)
    spoken.add_text("one two three four")
    spoken.add_audio(1000 * MS)
    assert heard(spoken, 500) == "one two"
    assert heard(spoken, 10) == ""[:0] or heard(spoken, 10).strip() in ("", "one")


@pytest.mark.parametrize(
    ("told", "right"),
    [
        ("One two", "One two"),
        ("One   two", "One two"),
        ("something else", "something else"),
        ("", ""),
    ],
)
def test_a_text_that_was_heard_is_a_beginning_of_the_message(told: str, right: str) -> None:
    assert heard(message(("One ", 100), ("two ", 100), ("three.", 100)), told) == right


PIECES = st.lists(st.tuples(st.text(min_size=1, max_size=8), st.integers(0, 300)), max_size=12)


@given(PIECES, st.booleans(), st.lists(st.integers(-10, 4000), min_size=2, max_size=6))
def test_more_time_is_never_less_text(
    pieces: list[tuple[str, int]], timed: bool, times: list[int]
) -> None:
    spoken = message(*pieces, timed=timed)
    found = [heard(spoken, until) for until in sorted(times)]
    for earlier, later in itertools.pairwise(found):
        assert later.startswith(earlier.rstrip())
    assert all(spoken.text.startswith(text.rstrip()) or not text.strip() for text in found)
    assert heard(spoken, 1 << 30) == spoken.text
