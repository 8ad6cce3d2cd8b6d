"""Marks of chat templates in the text of a reply."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rejoinder.testing.chunking import byte_by_byte
from rejoinder.wire.marks import MarkSplitter

THINK = ("<think>", "</think>")
OPENING = [("<thinking>", "</thinking>"), ("<reasoning>", "</reasoning>")]
TAILS = ["<|im_end|>", "</s>"]


HEADS = ["<|START_RESPONSE|>"]


def parted(*pieces: str, inside: bool = False, call: bool = False) -> tuple[str, str]:
    """(text, thought) of a reply in pieces. `call`: a tool call came before."""
    splitter = MarkSplitter(
        [THINK, ("[THINK]", "[/THINK]")], OPENING, inside=inside, heads=HEADS, tails=TAILS
    )
    text, thought = "", ""
    if call:
        splitter.after_call()
    for piece in pieces:
        for is_thought, part in splitter.feed(piece, at_start=not text.strip()):
            text, thought = (text, thought + part) if is_thought else (text + part, thought)
    for is_thought, part in splitter.close():
        text, thought = (text, thought + part) if is_thought else (text + part, thought)
    return text, thought


HARMONY = (
    "<|channel|>analysis<|message|>Hm.<|end|><|start|>assistant<|channel|>commentary<|message|>"
    "Wait. <|end|><|start|>assistant<|channel|>final<|message|>Hello<|return|>"
)
CALL = "<|channel|>commentary to=functions.look <|constrain|>json<|message|>{}<|call|>"


@pytest.mark.parametrize(
    ("whole", "text", "thought"),
    [
        ("<think>hm</think>\n\nHi", "Hi", "hm"),
        ("ok <think>hm</think> Hi", "ok  Hi", "hm"),
        ("[THINK]hm[/THINK]Hi [1]", "Hi [1]", "hm"),
        ("<thinking>hm</thinking>\nHi", "Hi", "hm"),
        (" \n<reasoning>hm</reasoning> Hi", " \nHi", "hm"),
        ("Hi <thinking>x</thinking>", "Hi <thinking>x</thinking>", ""),
        ("a < b <thin", "a < b <thin", ""),
        (HARMONY, "Wait. Hello", "Hm."),
        (CALL, "", ""),
        ("It is <|channel|>.", "It is <|channel|>.", ""),
        ("Hi<|im_end|>", "Hi", ""),
        ("Hi<|im_end|>\n</s>", "Hi", ""),
        ("<|START_RESPONSE|>Hi", "Hi", ""),
        ("<think>hm</think>\n<|START_RESPONSE|>\nHi", "Hi", "hm"),
        ("It is <|START_RESPONSE|>.", "It is <|START_RESPONSE|>.", ""),
        ("<|START_RESP", "<|START_RESP", ""),
        ("<|im_end|> ends it", "<|im_end|> ends it", ""),
        ("Hi <|im_", "Hi <|im_", ""),
        ("<think>never closed", "", "never closed"),
    ],
    ids=repr,
)
def test_marks_in_any_cut(whole: str, text: str, thought: str) -> None:
    assert parted(whole) == (text, thought)
    assert parted(*whole) == (text, thought)
    for at in range(1, len(whole)):
        assert parted(whole[:at], whole[at:]) == (text, thought)


@pytest.mark.parametrize(
    ("whole", "text", "thought"),
    [
        ("hm\n</think>\n\npong", "pong", "hm\n"),
        ("<think>\nhm</think>pong", "pong", "\nhm"),
        ("only an answer", "only an answer", "only an answer"),
        ("  ", "  ", "  "),
        ("", "", ""),
    ],
    ids=repr,
)
def test_a_reply_that_begins_inside_of_a_thought(whole: str, text: str, thought: str) -> None:
    """Where nothing closes the thought it was none: the reply comes late, and is not lost."""
    for pieces in ([whole], list(whole)):
        said, thought_of = parted(*pieces, inside=True)
        assert said == text
        assert thought_of.strip() == thought.strip() or thought_of == ""


def test_thoughts_that_come_by_another_way() -> None:
    splitter = MarkSplitter([THINK], inside=True)
    assert splitter.outside() == []
    assert splitter.feed("Hi") == [(False, "Hi")]
    assert not splitter.busy


@pytest.mark.parametrize(
    ("whole", "text"),
    [
        (">\n</tool_call>", ""),
        ("\n", "\n"),
        ("</function>\n</tool_call><|im_end|>", ""),
        ("tool_call>", ""),
        ("> It rains.", "> It rains."),
        ("\nIt rains.", "\nIt rains."),
        ("<b>It rains</b>", "<b>It rains</b>"),
    ],
    ids=repr,
)
def test_what_a_parser_leaves_behind_a_call(whole: str, text: str) -> None:
    assert parted(whole, call=True)[0] == text
    if ">" in whole.strip("\n")[:1] or "<" in whole[:1] or whole.isspace():
        assert parted(*whole, call=True)[0] == text


texts = st.lists(
    st.sampled_from(
        ["<think>", "</think>", "<thinking>", "</thinking>", "<|channel|>", "final", "analysis",
         "<|message|>", "<|end|>", "<|start|>", "<|im_end|>", "</s>", "<", "|", ">", " ", "x", "é"]
    ),
    max_size=10,
).map("".join)  # fmt: skip


@given(texts, st.lists(st.integers(1, 7), min_size=1), st.booleans())
def test_every_cut_gives_the_same(whole: str, sizes: list[int], inside: bool) -> None:
    pieces: list[str] = []
    at = number = 0
    while at < len(whole):
        pieces.append(whole[at : at + sizes[number % len(sizes)]])
        at, number = at + sizes[number % len(sizes)], number + 1
    assert parted(*pieces, inside=inside)[0] == parted(whole, inside=inside)[0]


@given(st.text(alphabet="abc .,;", max_size=40))
def test_text_without_marks_is_untouched(whole: str) -> None:
    assert parted(whole)[0] == whole
    assert [piece.decode() for piece in byte_by_byte(whole.encode())] == list(whole)
