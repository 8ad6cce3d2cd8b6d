"""Puts provider state and the texts around it back in order. Pure.

The content of a message is one text. If a reply had state between its texts, the list of the state also
holds these texts. If the message has changed or was cut since, its content wins:

* If it was edited, unchanged runs of words show the places. A new text takes the place of the text that
  it replaces, or the last place if it replaces several.
* If its end was cut off, such as the part that was not heard, the state behind the cut is dropped too.
  Otherwise all state stays.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from difflib import SequenceMatcher
from itertools import pairwise
from typing import Any, Final, NamedTuple, TypeAlias, cast

from rejoinder.providers.asking.alternating import Block

__all__ = ["in_order", "is_text_entry"]

_WORDS: Final = re.compile(r"\S+")
_TRUSTED: Final = 3
"""Number of consecutive words that identify a place, unless fewer words are a whole text."""
_COMPARED: Final = 1 << 18
"""Maximum number of compared pairs of words, which takes a tenth of a second."""


def is_text_entry(entry: object) -> bool:
    """Whether `entry` is a text between state, or a block of text."""
    if not isinstance(entry, Mapping):  # state may hold any value
        return False
    held = cast("Mapping[str, Any]", entry)
    return isinstance(held.get("text"), str) and held.get("type", "text") == "text"


_TextBlock: TypeAlias = Callable[[str], Block]
_IsSaid: TypeAlias = Callable[[object], bool]


def in_order(
    blocks: list[Block],
    entries: Sequence[Block],
    text_block: _TextBlock,
    is_said: _IsSaid = is_text_entry,
) -> list[Block]:
    """`entries`, with the texts of `blocks` in their places.

    Args:
        blocks: the content of the message, or a call.
        entries: state, and the texts between it.
        text_block: writes a text as a block.
        is_said: whether an entry is one of these texts.
    """
    state = [entry for entry in entries if not is_said(entry)]
    if len(state) == len(entries) or not all(is_text_entry(block) for block in blocks):
        return [*state, *blocks]
    text = "".join(block["text"] for block in blocks)
    placed = _as_told(text, entries, text_block, is_said)
    return _edited(text, entries, text_block, is_said) if placed is None else placed


def _as_told(
    text: str, entries: Sequence[Block], text_block: _TextBlock, is_said: _IsSaid
) -> list[Block] | None:
    """The entries whose texts `text` contains; ``None`` if it was edited since."""
    rest = text
    out: list[Block] = []
    for entry in entries:
        if not is_said(entry):
            out.append(entry)
            continue
        wanted = entry["text"].strip()
        if not wanted:
            continue
        rest = rest.lstrip()
        if rest.startswith(wanted):
            rest = rest[len(wanted) :]
            out.append(entry)
        elif wanted.startswith(rest.rstrip()):  # cut here
            if rest:
                out.append(text_block(rest.rstrip()))
            elif any(map(is_said, out)):  # behind a whole text, and with it the state there
                while not is_said(out[-1]):
                    out.pop()
            return out
        else:
            return None
    if rest.strip():
        out.append(text_block(rest))
    return out


def _edited(
    text: str, entries: Sequence[Block], text_block: _TextBlock, is_said: _IsSaid
) -> list[Block]:
    """The state, with the parts of `text` in the places that the unchanged words show."""
    told: list[str] = []
    ends: list[int] = []
    for entry in entries:
        if is_said(entry):
            told += entry["text"].split()
            ends.append(len(told))
    words = list(_WORDS.finditer(text))
    runs = _runs(told, [word[0] for word in words], ends)
    cut = _cut(told, [word[0] for word in words], runs)
    out: list[Block] = []
    begin = 0

    def put(end: int, as_it_was: Block | None = None) -> None:
        nonlocal begin
        if end > begin:
            piece = text[words[begin - 1].end() if begin else 0 : words[end - 1].end()]
            same = as_it_was is not None and as_it_was["text"].strip() == piece.strip()
            out.append(as_it_was if as_it_was is not None and same else text_block(piece))
            begin = end

    places = iter(ends)
    for entry in entries:
        if is_said(entry):
            place = next(places)
            cut_here = cut is not None and cut <= place
            put(len(words) if cut_here else _new_end(place, runs), entry)
            if cut_here:
                break
        else:
            out.append(entry)
    put(len(words))
    return out


class _Run(NamedTuple):
    """A run of unchanged words."""

    then: int
    now: int
    size: int


def _runs(told: list[str], words: list[str], ends: Sequence[int]) -> list[_Run]:
    """The unchanged runs of words that identify a place, in order.

    Args:
        told: the words of the original texts.
        words: the words of the current text.
        ends: the number of words of `told` up to the end of each text.
    """
    start = 0
    while start < min(len(told), len(words)) and told[start] == words[start]:
        start += 1
    found = [_Run(0, 0, start)]
    told_rest, rest = told[start:], words[start:]
    if len(told_rest) * len(rest) <= _COMPARED:
        matcher = SequenceMatcher(None, told_rest, rest, autojunk=False)
        found += [
            _Run(start + then, start + now, size)
            for then, now, size in matcher.get_matching_blocks()
        ]
    texts = list(pairwise([0, *ends]))
    return [
        run
        for run in found
        if run.size >= _TRUSTED
        or any(run.then <= first < last <= run.then + run.size for first, last in texts)
    ]


def _cut(told: Sequence[str], words: Sequence[str], runs: Sequence[_Run]) -> int | None:
    """The number of words of `told` that are left after its end was cut off; ``None`` if it was not.

    It was cut off if the text ends within, or directly after, a run of unchanged words before the end.
    """
    last = max(runs, key=lambda run: run.now + run.size, default=None)
    if last is None or not last.size:
        return None
    then, now = last.then + last.size, last.now + last.size
    if then == len(told):
        return None
    if now == len(words):
        return then
    within_a_word = now == len(words) - 1 and told[then].startswith(words[now])
    return then + 1 if within_a_word else None


def _new_end(end: int, runs: Sequence[_Run]) -> int:
    """The place in the current text where the original text with its end after `end` words ends.

    New words between two texts belong to the text that was changed; if both or neither were changed,
    they belong to the second, because state produces the text after it.
    """
    then = now = 0
    for run in runs:
        if run.then >= end:
            only_the_first = then < end == run.then
            return run.now if only_the_first else now
        if run.then + run.size > end:
            return run.now + end - run.then
        then, now = run.then + run.size, run.now + run.size
    return now
