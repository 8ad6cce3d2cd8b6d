"""State of a provider stays in its place when the text of its message is edited."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rejoinder.providers.asking.in_order import in_order, is_text_entry

Block = dict[str, Any]


def said(text: str) -> Block:
    return {"type": "text", "text": text}


def state(number: int) -> Block:
    return {"type": "thinking", "number": number}


def placed(text: str, *entries: Block) -> list[Block]:
    return in_order([said(text)], entries, said)


A, B, C, S, T = (
    said("First I look."),
    said(" Then I ask."),
    said(" All is well."),
    state(0),
    state(1),
)


@pytest.mark.parametrize(
    ("text", "entries", "wanted"),
    [
        # One text was replaced: the new one stands where it stood.
        ("Well. Then I ask. Bye.", [A, S, B, T], [said("Well."), S, B, T, said(" Bye.")]),
        ("First I look. Hm! All is well.", [A, S, B, T, C], [A, S, said(" Hm!"), T, C]),
        ("Hm! Then I ask. Bye.", [T, A, S, B], [T, said("Hm!"), S, B, said(" Bye.")]),
        # One was taken out.
        ("Then I ask. Bye.", [A, S, B, T], [S, said("Then I ask."), T, said(" Bye.")]),
        ("First I look. All is well.", [A, S, B, T, C], [A, S, T, C]),
        # What is new between two unchanged texts comes behind the state that leads to it.
        ("First I look. New. Then I ask.", [A, S, B], [A, S, said(" New. Then I ask.")]),
        # A few words of a text tell its place too.
        (
            "Now First I look. So then I ask you. Bye.",
            [said("And First I look."), S, said("Hm, then I ask you."), T],
            [said("Now First I look."), S, said(" So then I ask you."), T, said(" Bye.")],
        ),
        # Its end was cut off: what stood behind the cut goes, also where the beginning was edited.
        ("First I look.", [S, A, T, B], [S, A]),
        ("First I", [A, S, B, T], [said("First I")]),
        ("First I look. Then", [A, S, B, T, C], [A, S, said("Then")]),
        ("Well. First I look.", [A, S, B, T], [said("Well. First I look.")]),
        ("Well. First I look. Then I", [A, S, B, T, C], [said("Well. First I look."), S, said("Then I")]),
        ("Hm! Then I ask. All is we", [A, S, B, T, C], [said("Hm!"), S, B, T, said("All is we")]),
        ("Hm! Then I ask. Al", [A, S, B, T, C, state(2)], [said("Hm!"), S, B, T, said("Al")]),
        # Nothing is left: as it was before the first text.
        ("", [S, A, T, B], [S]),
        # Nothing is as it was: behind all state, as an answer stands.
        ("Other words.", [A, S, B, T], [S, T, said("Other words.")]),
        ("Other words.", [S, A], [S, said("Other words.")]),
        # A word or two that stand in any text tell nothing.
        ("I look away.", [A, S, B, T], [S, T, said("I look away.")]),
    ],
)  # fmt: skip
def test_an_edited_text_takes_the_place_of_what_it_replaces(
    text: str, entries: list[Block], wanted: list[Block]
) -> None:
    def told(blocks: list[Block]) -> list[Block]:
        return [said(block["text"].strip()) if is_text_entry(block) else block for block in blocks]

    assert told(placed(text, *entries)) == told(wanted)


@st.composite
def replies(draw: st.DrawFn) -> list[Block]:
    """State and texts, none of which stands beside another; the texts have words of their own."""
    entries: list[Block] = []
    for number in range(draw(st.integers(1, 6))):
        if number or draw(st.booleans()):
            entries += [state(2 * number + more) for more in range(draw(st.integers(1, 2)))]
        count = draw(st.integers(1, 6))
        entries.append(said(" ".join(f"w{number}x{word}" for word in range(count)) + " "))
    return entries


@given(entries=replies(), data=st.data())
def test_the_unchanged_texts_and_all_state_keep_their_order(
    entries: list[Block], data: st.DataObject
) -> None:
    """Texts with an unchanged one on both sides, or an end, stand exactly where they stood."""
    places = [place for place, entry in enumerate(entries) if is_text_entry(entry)]
    edited = data.draw(st.sets(st.sampled_from(places), max_size=len(places) - 1))
    wanted = [
        said(f"new{place} ") if place in edited else entry for place, entry in enumerate(entries)
    ]
    last = state(99)
    tail = said("the end.")
    # Two edited texts side by side may trade words; here one has no words.
    for one, two in pairwise(places):
        if one in edited and two in edited:
            wanted[one] = said("")
    wanted = [entry for entry in wanted if entry != said("")]
    text = "".join(entry["text"] for entry in wanted if is_text_entry(entry))
    got = placed(text + tail["text"], *entries, last)

    def told(blocks: list[Block]) -> list[Any]:
        return [block["text"].strip() if is_text_entry(block) else block for block in blocks]

    if places[-1] in edited:  # what follows the last text is not known
        gone = max(place for place, entry in enumerate(wanted) if is_text_entry(entry))
        tail = said(wanted[gone]["text"] + tail["text"])
        wanted = [entry for place, entry in enumerate(wanted) if place != gone]
    assert told(got) == told([*wanted, last, tail])


@given(entries=replies(), data=st.data())
def test_no_state_from_behind_a_cut_stays(entries: list[Block], data: st.DataObject) -> None:
    whole = "".join(entry["text"] for entry in entries if is_text_entry(entry))
    cut = data.draw(st.integers(1, len(whole)))
    kept = whole[:cut].rstrip()
    before = data.draw(st.sampled_from(["", "New here. "]))
    got = placed(before + kept, *entries)
    is_cut = len(whole.rstrip()) > len(kept)
    wanted: list[Block] = []
    length = 0
    for entry in entries:
        if length >= len(kept) and is_cut:
            break
        wanted.append(entry)
        length += len(entry["text"]) if is_text_entry(entry) else 0
    states = [entry for entry in got if not is_text_entry(entry)]
    if before and is_cut and len(kept.split()) < 4:
        return  # too few unchanged words to tell a place
    assert states == [entry for entry in wanted if not is_text_entry(entry)]
    words = " ".join(entry["text"] for entry in got if is_text_entry(entry)).split()
    assert words == (before + kept).split()


@given(text=st.text("ab. ", max_size=30), entries=replies())
def test_no_word_and_no_state_is_lost_when_all_is_new(text: str, entries: list[Block]) -> None:
    words = ("q " + text).split()
    got = placed("q " + text, *entries)
    assert " ".join(b["text"] for b in got if is_text_entry(b)).split() == words
    assert [b for b in got if not is_text_entry(b)] == [b for b in entries if not is_text_entry(b)]


def test_a_long_edited_text_is_placed_in_time() -> None:
    entries = [said("a b " * 20_000), S, said("b a " * 20_000), T]
    assert placed("x " + "a b " * 40_000, *entries)[:2] == [S, T]
