"""What the templates of all known families leave in texts: none of it is spoken."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from examples import examples
from rejoinder._core.families import FAMILIES, Family, find_family
from rejoinder.providers.answering.chunks import Reply
from rejoinder.providers.answering.marks import ReplyMarks

LEAKING = [family for family in FAMILIES if family.marks]


def spoken(family: Family, *pieces: str) -> tuple[str, str]:
    """(text, thought) of a reply in pieces, as every reader feeds it."""
    marks = ReplyMarks(family)
    reply = Reply("r")
    reply.track_text()
    for piece in pieces:
        if "<" in piece or marks.busy or (marks.more and marks.begin_in(piece)):
            marks.split(piece, reply)
        else:
            reply.text(piece)
    marks.finish(reply)
    deltas = [chunk.delta for chunk in reply.chunks if chunk.delta is not None]
    return (
        "".join(delta.content or "" for delta in deltas),
        "".join(delta.thinking or "" for delta in deltas),
    )


def cut(text: str, places: list[int]) -> list[str]:
    ends = sorted({place % (len(text) + 1) for place in places})
    starts = [0, *ends]
    return [
        text[start:end]
        for start, end in zip(starts, [*ends, len(text)], strict=True)
        if end > start
    ]


def opened(family: Family) -> str:
    return family.think_tags[0][1] if family.opens_inside else ""


@pytest.mark.parametrize("family", LEAKING, ids=lambda family: family.name)
@examples(30)
@given(data=st.data())
def test_marks_that_end_a_text_are_not_spoken(family: Family, data: st.DataObject) -> None:
    tail = data.draw(st.lists(st.sampled_from(family.marks), min_size=1, max_size=2))
    said = data.draw(st.sampled_from(["Hi.", "a < b", "[1] a ]", "x | y", "1 </p> <|"]))
    gap = data.draw(st.sampled_from(["", "\n"]))
    if "<|channel|>" in family.marks or "<|channel>" in tail:
        tail = [
            "<|return|>" if "<|return|>" in family.marks else "<turn|>"
        ]  # others open a channel
    whole = opened(family) + said + "".join(mark + gap for mark in tail)
    places = data.draw(st.lists(st.integers(0, 100), max_size=6))
    assert spoken(family, *cut(whole, places))[0].rstrip() == said


@pytest.mark.parametrize("family", LEAKING, ids=lambda family: family.name)
def test_marks_in_a_text_are_part_of_it(family: Family) -> None:
    """A text about templates is a text."""
    for mark in family.marks:
        if "channel" in mark or "<|message|>" in family.marks:
            continue
        words = f"The mark {mark} ends a turn."
        assert spoken(family, opened(family), *words)[0] == words


def test_thoughts_of_command_and_gemma() -> None:
    command = find_family("command-a-reasoning-08-2025")
    said = "<|START_THINKING|>hm<|END_THINKING|><|START_RESPONSE|>Hi<|END_RESPONSE|><|END_OF_TURN_TOKEN|>"
    assert spoken(command, said) == ("Hi", "hm")
    for size in (1, 5, 16):
        pieces = [said[at : at + size] for at in range(0, len(said), size)]
        assert spoken(command, *pieces) == ("Hi", "hm")
    gemma = find_family("google/gemma-4-31b-it")
    assert spoken(gemma, "<|channel>thought\nhm<channel|>Hi<turn|>") == ("Hi", "\nhm")


@pytest.mark.parametrize(
    ("model", "text"),
    [
        ("ByteDance-Seed/Seed-OSS-36B-Instruct", "<seed:think>hm</seed:think>Hi<seed:eos>"),
        ("tencent/Hunyuan-A13B-Instruct", "<think>hm</think>\n<answer>Hi</answer>"),
        ("ibm-granite/granite-3.3-8b-instruct", "<think>hm</think><response>Hi</response>"),
    ],
)
def test_thoughts_and_answers_in_tags_of_their_own(model: str, text: str) -> None:
    for size in (1, 5, len(text)):
        pieces = [text[at : at + size] for at in range(0, len(text), size)]
        said, thought = spoken(find_family(model), *pieces)
        assert (said.strip(), thought.strip()) == ("Hi", "hm")


@pytest.mark.parametrize(
    ("model", "text", "said"),
    [
        ("gpt-4.1", "Use the <think> tag.", "Use the <think> tag."),
        ("gpt-4.1", "<think>a</think>b", "b"),
        ("minimax-m2", "a<think>b</think>c", "ac"),
        ("acme-1", "a<think>b</think>c", "ac"),
    ],
)
def test_a_family_that_never_thinks_may_write_about_it(model: str, text: str, said: str) -> None:
    for size in (1, 3, len(text)):
        reply = Reply("r_")
        marks = ReplyMarks(find_family(model))
        for at in range(0, len(text), size):
            marks.split(text[at : at + size], reply)
        marks.finish(reply)
        assert "".join(c.delta.content or "" for c in reply.chunks if c.delta) == said
