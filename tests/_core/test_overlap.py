"""What a second speaker repeats is dropped, in any script, for any cut."""

from __future__ import annotations

import hypothesis
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rejoinder._core.overlap import Overlap, last_words, whitespace_tail


@pytest.mark.parametrize(
    ("said", "then", "rest"),
    [
        ("The capital of France", " is Paris.", " is Paris."),
        ("The capital of France", "France is Paris.", " is Paris."),
        ("The capital of France ", "of France is Paris.", "is Paris."),
        ("The capital of France", "The capital of France is Paris.", " is Paris."),
        ("The capital of Fra", "Fra" + "nce is", "nce is"),
        ("one two", "three", "three"),
        ("one two", "", ""),
        ("ab", "abc", "c"),
        ("he ab", "abc", "abc"),  # too short to be more than chance
        ("I", "I think so.", " think so."),
        ("the capital of France", "The capital of France is Paris.", " is Paris."),
        ("The capital of France", "\u201cof France is Paris.", " is Paris."),
        ("法国的首都是", "首都是巴黎。", "巴黎。"),
        ("ฝรั่งเศสมีเมืองหลวงคือ", "เมืองหลวงคือปารีส", "ปารีส"),
        ("Well (as they say)", "they say) it is", " it is"),
        ("I like 👩‍👩‍👧", "like 👩‍👩‍👧 very much", " very much"),
        ("yes yes yes", "yes yes yes yes", " yes"),
        ("Hello there", "... there you are", " you are"),
        ("", "all of it", "all of it"),
    ],
)
def test_repetitions_are_dropped_for_any_cut(said: str, then: str, rest: str) -> None:
    for cut in range(len(then) + 1):
        overlap = Overlap(said)
        got = overlap.feed(then[:cut]) + overlap.feed(then[cut:]) + overlap.close()
        assert got == rest


@pytest.mark.parametrize(
    ("said", "words"),
    [
        ("", ""),
        ("  ", ""),
        ("one two three four five six seven ei", "three four five six seven ei"),
        ("a" * 2000, "a" * 600),
        ("我" * 40, "我" * 16),
    ],
)
def test_the_last_words(said: str, words: str) -> None:
    assert last_words(said) == words


@given(st.text("abc 我是.", max_size=300), st.text("xyz 他", max_size=30))
def test_who_begins_with_the_last_words_is_understood_wherever_the_cut_was(
    said: str, then: str
) -> None:
    said = " ".join(said.split())
    words = last_words(said)
    hypothesis.assume(len(words) >= 3 and words[0].isalnum() and not then[:1].isspace())
    overlap = Overlap(said)
    got = "".join(overlap.feed(c) for c in words + then) + overlap.close()
    assert got == then


@given(st.text(max_size=40), st.text(max_size=40), st.integers(0, 40))
def test_a_true_continuation_loses_and_repeats_nothing(said: str, then: str, cut: int) -> None:
    text, tail = whitespace_tail(said)
    assert text + tail == said
    # A model that continues right after `text` says the white space itself, or leaves it out.
    for reply in (tail + then, then if tail and not then[:1].isspace() else tail + then):
        overlap = Overlap(said, exact=True, tail=tail)
        got = overlap.feed(reply[:cut]) + overlap.feed(reply[cut:]) + overlap.close()
        assert said + got == said + then


@given(st.text(max_size=700), st.lists(st.text(max_size=30), max_size=30))
def test_nothing_is_ever_invented_or_held_for_ever(said: str, pieces: list[str]) -> None:
    overlap = Overlap(said)
    got = "".join(overlap.feed(piece) for piece in pieces) + overlap.close()
    assert "".join(pieces).endswith(got)
