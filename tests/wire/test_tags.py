"""Marked passages in streamed text, for every cut of it."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rejoinder.wire.tags import (
    THINK_TAG_END,
    THINK_TAG_START,
    StopFilter,
    TagSplitter,
    ThinkingTokenFilter,
    strip_thinking_tokens,
)


def split(pieces: list[str], *tags: str, inside: bool = False) -> tuple[str, str]:
    splitter = TagSplitter(*tags, inside=inside)
    parts = [splitter.feed(piece) for piece in pieces]
    parts.append(splitter.close())
    return "".join(o for o, _ in parts), "".join(i for _, i in parts)


def cuts(data: st.DataObject, text: str) -> list[str]:
    at = sorted(data.draw(st.lists(st.integers(0, len(text)), max_size=6)))
    return [text[a:b] for a, b in zip([0, *at], [*at, len(text)], strict=True)]


@pytest.mark.parametrize(
    ("text", "outside", "inside"),
    [
        ("abc", "abc", ""),
        ("<think>a</think>b", "b", "a"),
        ("pre<think>in</think>post<think>more</think>end", "prepostend", "inmore"),
        ("a</think>b", "a</think>b", ""),
        ("<think>never closed</thin", "", "never closed</thin"),
        ("almost <thin", "almost <thin", ""),
        ("<<think>x<</think>y", "<y", "x<"),
        ("<think><think>x</think>y</think>", "y</think>", "<think>x"),
    ],
)
def test_split_byte_by_byte_and_whole(text: str, outside: str, inside: str) -> None:
    assert split([text]) == (outside, inside)
    assert split(list(text)) == (outside, inside)


@given(
    st.lists(st.sampled_from(["<think>", "</think>", "<", "th", "/", "a", "<t", ">"])), st.data()
)
def test_every_cut_gives_the_same(pieces: list[str], data: st.DataObject) -> None:
    text = "".join(pieces)
    whole = split([text])
    assert split(cuts(data, text)) == whole
    assert len(whole[0]) + len(whole[1]) <= len(text)


@given(st.lists(st.sampled_from("ab")), st.data())
def test_tags_that_overlap_themselves(pieces: list[str], data: st.DataObject) -> None:
    text = "".join(pieces)
    tags = ("aab", "aba")
    assert split(cuts(data, text), *tags) == split([text], *tags)


@given(st.text(st.sampled_from("<think>/a")), st.data())
def test_little_is_held_back(text: str, data: st.DataObject) -> None:
    splitter = TagSplitter()
    for piece in cuts(data, text):
        splitter.feed(piece)
        assert len(splitter.pending) < len(THINK_TAG_END)


def test_begins_inside() -> None:
    assert split(["a</think>b"], inside=True) == ("b", "a")


def test_tags_must_say_something() -> None:
    with pytest.raises(ValueError, match="not empty"):
        TagSplitter("", "x")


# -- stop texts -----------------------------------------------------------------------------


def until_stop(pieces: list[str], stops: list[str]) -> tuple[str, str | None]:
    stop = StopFilter(stops)
    out = "".join(stop.feed(piece) for piece in pieces)
    return out + stop.close(), stop.stopped


@pytest.mark.parametrize(
    ("text", "stops", "expected"),
    [
        ("hello", [], ("hello", None)),
        ("hello", [""], ("hello", None)),
        ("hello END more", ["END"], ("hello ", "END")),
        ("hello EN", ["END"], ("hello EN", None)),
        ("xEND STOP", ["STOP", "END"], ("x", "END")),
        ("a\n\nb", ["\n\n"], ("a", "\n\n")),
        ("ENDING", ["END", "ENDING"], ("", "ENDING")),
    ],
)
def test_stops(text: str, stops: list[str], expected: tuple[str, str | None]) -> None:
    assert until_stop([text], stops) == expected


@given(st.text(st.sampled_from("abE ND")), st.data())
def test_stops_at_the_same_place_for_every_cut(text: str, data: st.DataObject) -> None:
    stops = ["END", "ab", "DDa"]
    found, _ = until_stop(cuts(data, text), stops)
    first = min((at for s in stops if (at := text.find(s)) >= 0), default=len(text))
    assert found == text[:first]


def test_nothing_comes_after_the_stop() -> None:
    stop = StopFilter(["."])
    assert [stop.feed("a."), stop.feed("b"), stop.close()] == ["a", "", ""]


# -- strip_thinking_tokens ------------------------------------------------------------------


@pytest.mark.parametrize(
    ("pieces", "expected", "rest"),
    [
        # as recorded of LiveKit Agents 1.7.0
        (["<think>a</think>b"], ["b"], None),
        (["<th", "ink>x</th", "ink>y"], [None, None, "y"], None),
        (["pre<think>in", "side</think>post"], ["pre", "post"], None),
        (["a<"], ["a"], "<"),
        (["", ""], ["", ""], None),
        ([[{"type": "text", "text": "q"}]], ["q"], None),
        ([None], [None], None),
        ([["p", {"type": "image"}, 3, {"type": "text", "text": "q"}]], ["pq"], None),
    ],
)
def test_filter(pieces: list[Any], expected: list[Any], rest: str | None) -> None:
    state = ThinkingTokenFilter()
    assert [strip_thinking_tokens(piece, state) for piece in pieces] == expected
    assert strip_thinking_tokens(None, state, final=True) == rest


@pytest.mark.parametrize(
    ("pieces", "expected", "thinking"),
    [
        ([None], [None], False),
        (["abc"], ["abc"], False),
        (["<think>", "x", "</think>", "y"], [None, None, None, "y"], False),
        (["<think>abc</think>def"], ["def"], False),
        (["pre<think>in"], ["pre"], True),
        (["a</think>b"], ["a</think>b"], False),
        (["<think>\n", "in", "side</think>\n", "out"], [None, None, "\n", "out"], False),
        (["<th", "ink>", "z"], [None, None, None], True),
        (["<think>", ""], [None, None], True),
        (["", ""], ["", ""], False),
    ],
)
def test_event(pieces: list[Any], expected: list[Any], thinking: bool) -> None:
    """An `asyncio.Event` as the second argument, as callers of 1.2.17 pass it."""
    event = asyncio.Event()
    assert [strip_thinking_tokens(piece, event) for piece in pieces] == expected
    assert event.is_set() is thinking


def test_an_event_that_the_caller_sets_or_clears() -> None:
    event = asyncio.Event()
    event.set()
    assert strip_thinking_tokens("in</think>out", event) == "out"
    assert strip_thinking_tokens("a<think>b", event) == "a"
    event.clear()
    assert strip_thinking_tokens("visible", event) == "visible"


def test_other_tags() -> None:
    state = ThinkingTokenFilter("<|channel>thought", "<channel|>")
    pieces = ["<|chan", "nel>thought hm <cha", "nnel|>Hello"]
    assert [strip_thinking_tokens(piece, state) for piece in pieces] == [None, None, "Hello"]


def test_constants() -> None:
    assert (THINK_TAG_START, THINK_TAG_END) == ("<think>", "</think>")


@given(
    st.lists(st.sampled_from(["<think>", "</think>", "<", "nk>", "a", "</th"]), max_size=8),
    st.data(),
)
def test_no_thought_is_ever_seen(pieces: list[str], data: st.DataObject) -> None:
    text = "".join(pieces)
    for state in (ThinkingTokenFilter(), asyncio.Event()):
        seen = [strip_thinking_tokens(piece, state) for piece in cuts(data, text)]
        seen.append(strip_thinking_tokens(None, state, final=True))
        assert "".join(piece or "" for piece in seen) == split([text])[0]
