"""A finished text adds what its deltas did not hold, and nothing twice."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rejoinder.providers.answering.chunks import Reply
from rejoinder.providers.answering.repeats import TRACKED, SentText


def reply(*deltas: str) -> Reply:
    made = Reply("r_")
    made.track_text()
    for delta in deltas:
        made.text(delta)
    return made


def text(made: Reply) -> str:
    return "".join(chunk.delta.content or "" for chunk in made.chunks if chunk.delta)


@pytest.mark.parametrize(
    ("deltas", "finished", "whole"),
    [
        (("Hel", "lo"), [("item", "Hello"), ("final", "Hello")], "Hello"),
        (("Hel",), [("item", "Hello"), ("final", "Hello")], "Hello"),
        ((), [("part", "Hello"), ("item", "Hello"), ("final", "Hello")], "Hello"),
        (("Yes.", "Yes."), [("item", "Yes."), ("item", "Yes.")], "Yes.Yes."),
        ((), [("item", "Yes."), ("item", "Yes."), ("final", "Yes."), ("final", "Yes.")], "Yes.Yes."),
        (("Hel", "lo"), [("item", "lo"), ("item", "Hel"), ("final", "Hel"), ("final", "lo")], "Hello"),
        (("Hello",), [("final", "Other")], "Hello"),
        (("Hello \n",), [("item", "Hello"), ("item", "More")], "Hello \nMore"),
        (("One.",), [("item", "One."), ("item", "Two."), ("final", "One."), ("final", "Two.")], "One.Two."),
        (("a\ud83d",), [("item", "a\U0001f600!")], "a\U0001f600!"),
    ],
    ids=repr,
)  # fmt: skip
def test_what_is_new_of_a_finished_text(
    deltas: tuple[str, ...], finished: list[tuple[str, str]], whole: str
) -> None:
    made = reply()
    for delta in deltas:
        made.text(delta, may_have_surrogates=True)
    for kind, one in finished:
        made.finished_text(kind, one)
    made.flush()
    assert text(made) == whole


def test_the_whole_text_so_far_may_come_with_each_delta() -> None:
    made = reply()
    for delta, whole in (("1", "1"), (" 2", "1 2"), ("", "1 2 3"), ("", "other")):
        made.text(delta)
        made.snapshot(whole)
    assert text(made) == "1 2 3"


def test_a_text_beyond_all_measure_is_not_compared() -> None:
    made = reply("x" * (TRACKED + 1))
    assert made.sent is None
    made.finished_text("item", "y")
    made.snapshot("y")
    assert "y" not in text(made)


words = st.lists(st.sampled_from(["a", "ab", "b ", "Hello", " "]), max_size=6)


@given(
    st.lists(words, max_size=4), st.lists(st.sampled_from(["part", "item", "final"]), unique=True)
)
def test_texts_that_are_streamed_are_never_sent_again(
    items: list[list[str]], kinds: list[str]
) -> None:
    """Every kind of event repeats all texts in their order, after each item or at the end."""
    made = reply()
    for item in items:
        for word in item:
            made.text(word)
        for kind in kinds:
            if kind != "final":
                made.finished_text(kind, "".join(item))
    if "final" in kinds:
        for item in items:
            made.finished_text("final", "".join(item))
    assert text(made) == "".join(word for item in items for word in item)


@given(st.lists(st.text(max_size=5), max_size=6), st.sampled_from(["part", "item"]))
def test_texts_that_are_only_finished_are_sent_once_each(texts: list[str], kind: str) -> None:
    sent = SentText()
    assert "".join(sent.beyond(kind, one) for one in texts) == "".join(texts)
    assert "".join(sent.beyond("final", one) for one in texts) == ""
