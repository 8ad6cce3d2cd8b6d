"""Divides the text of a reply into text for the user, thinking, and other parts.

Text in, parts out; the same for every cut of the same text. A possible beginning of a mark is held back
until the next piece decides. This module knows the grammar of marks; the marks of a model are passed in
as data.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Sequence
from enum import Enum
from typing import Final, TypeAlias

from rejoinder.wire.tags import held_back

__all__ = ["MarkSplitter", "Part"]

Part: TypeAlias = tuple[bool, str]
"""``(is_thought, text)``"""

_CHANNEL_TOKENS: Final = (
    "<|start|>",
    "<|channel|>",
    "<|constrain|>",
    "<|message|>",
    "<|end|>",
    "<|return|>",
    "<|call|>",
)
_CHANNEL_ENDS: Final = ("<|end|>", "<|return|>", "<|call|>", "<|start|>", "<|channel|>")
_TOKEN: Final = re.compile(r"<\|[a-z]{3,9}\|>")
_MAX_HEADER: Final = 256
_MAX_TAIL: Final = 512
# Leftovers of a parser for tool calls: whole marks, and the end of one that it cut.
_LEFTOVER: Final = re.compile(r"\A[\w/|:.-]{0,40}>|</?[\w|\uff5c:/.-]{0,48}>?")


class _Mode(Enum):
    TEXT = "text"
    THOUGHT = "thought"
    HIDDEN = "hidden"  # a call written as text: neither text for the user nor thinking
    HEADER = "header"  # between the name of a channel and its message


class MarkSplitter:
    """Removes marks from streamed text.

    Args:
        thoughts: pairs of tags around thinking, anywhere in the text.
        opening: pairs of tags around thinking, only at the beginning.
        inside: the text begins inside thinking, which the first of `thoughts` closes.
        heads: marks that are dropped at the beginning of the text.
        channels: accept the channels of the harmony format anywhere, not only at the beginning.
        tails: marks that are dropped at the end of the text.

    Attributes:
        busy: whether the next piece must go through `feed`. Otherwise, a piece without any
            character of `first` is plain text.
        first: the first characters of all marks.
        begins: finds one of these characters.
    """

    __slots__ = (
        "_channels",
        "_ends",
        "_first",
        "_header",
        "_heads",
        "_leftovers",
        "_mode",
        "_opening",
        "_pending",
        "_tails",
        "_thoughts",
        "_trim",
        "_unclosed",
        "begins",
        "busy",
        "first",
    )

    def __init__(
        self,
        thoughts: Sequence[tuple[str, str]] = (),
        opening: Sequence[tuple[str, str]] = (),
        *,
        inside: bool = False,
        channels: bool = False,
        heads: Sequence[str] = (),
        tails: Sequence[str] = (),
    ) -> None:
        self._thoughts = tuple(thoughts)
        self._heads = tuple(heads)
        self._opening = tuple(opening)
        self._channels = channels
        self._tails = tuple(tails)
        self._mode = _Mode.TEXT
        self._ends: tuple[str, ...] = ()
        self._first = False  # inside of a thought that no mark has opened, and nothing came yet
        self._unclosed: list[str] | None = None  # the texts of that thought
        self._header = ""
        self._pending = ""
        self._trim = False
        self._leftovers = False
        if inside and thoughts:
            self._mode = _Mode.THOUGHT
            self._ends = (thoughts[0][1],)
            self._first = True
            self._unclosed = []
        self.first, self.begins = _beginnings(
            self._thoughts, self._opening, self._heads, self._tails
        )
        self.busy = self._mode is not _Mode.TEXT

    def feed(self, text: str, *, at_start: bool = False) -> list[Part]:
        """The parts of the text so far that are certain.

        Args:
            at_start: only white space was sent so far.
        """
        parts: list[Part] = []
        text = self._pending + text
        self._pending = ""
        if self._leftovers:
            if _is_leftover(text):
                self._pending = text
                return parts
            self._leftovers = False
        while text:
            if self._mode is _Mode.TEXT:
                text, at_start = self._text(text, at_start, parts)
            elif self._mode is _Mode.HEADER:
                text = self._in_header(text)
            else:
                text = self._in_marks(text, at_start, parts)
        self.busy = self._mode is not _Mode.TEXT or bool(self._pending) or self._trim
        return parts

    def after_call(self) -> None:
        """A tool call has begun, so text that consists of marks is a leftover of its parser."""
        if not self._pending:
            self._leftovers = self.busy = True

    def outside(self) -> list[Part]:
        """Thinking arrives in another field, so the text did not begin inside it. Returns the text that
        was taken for thinking."""
        if self._unclosed is None:
            return []
        texts, self._unclosed = self._unclosed, None
        text = "".join(texts) + self._pending
        self._pending = ""
        self._mode = _Mode.TEXT
        self._first = self.busy = False
        return [(False, text)] if text else []

    def close(self) -> list[Part]:
        """No more text follows. Returns what was held back."""
        if self._unclosed is not None:
            # No mark closed the thought, so it was text: return it late rather than lose it.
            return self.outside()
        rest, self._pending = self._pending, ""
        self.busy = False
        if not rest or self._mode in (_Mode.HIDDEN, _Mode.HEADER):
            return []
        if self._leftovers:
            return [(False, rest)] if rest.isspace() else []
        if self._mode is _Mode.THOUGHT:
            return [(True, rest)]
        return [] if self._after_tails(rest) == "" else [(False, rest)]

    # -- the modes ---------------------------------------------------------------------------

    def _text(self, text: str, at_start: bool, parts: list[Part]) -> tuple[str, bool]:
        if self._trim:
            text = text.lstrip()
            if not text:
                return "", at_start
            self._trim = False
        begin = self.begins.search(text)
        if begin is None:
            parts.append((False, text))
            return "", False
        head, rest = text[: begin.start()], text[begin.start() :]
        at_start = at_start and (not head or head.isspace())
        size = self._opens(rest, at_start)
        if size < 0:
            if head:
                parts.append((False, head))
            self._pending = rest
            return "", at_start
        if size == 0:
            # A plain character: go on behind it, to the next one.
            begin = self.begins.search(rest, 1)
            size = len(rest) if begin is None else begin.start()
            head += rest[:size]
        if head:
            parts.append((False, head))
            at_start = at_start and head.isspace()
        return rest[size:], at_start

    def _opens(self, text: str, at_start: bool) -> int:
        """The length of the mark at the beginning of `text`: 0 if there is no mark, -1 if the next
        piece decides."""
        pairs = (*self._thoughts, *self._opening) if at_start else self._thoughts
        for start, end in pairs:
            if text.startswith(start):
                self._mode = _Mode.THOUGHT
                self._ends = (end,)
                return len(start)
        heads = self._heads if at_start else ()
        for head in heads:
            if text.startswith(head):
                self._trim = True
                return len(head)
        if self._channels or at_start:
            match = _TOKEN.match(text)
            token = match[0] if match is not None else ""
            if token in ("<|start|>", "<|channel|>"):
                self._channels = True
                self._mode = _Mode.HEADER
                self._header = token
                return len(token)
            if self._channels and token in _CHANNEL_TOKENS:
                return len(token)
            if any(token.startswith(text) for token in _CHANNEL_TOKENS):
                return -1
        if any(start.startswith(text) for start in (*heads, *(start for start, _ in pairs))):
            return -1
        rest = self._after_tails(text)
        if len(rest) < len(text) or any(tail.startswith(text) for tail in self._tails):
            maybe = not rest or any(tail.startswith(rest) for tail in self._tails)
            return -1 if maybe and len(text) <= _MAX_TAIL else 0
        return 0

    def _after_tails(self, text: str) -> str:
        """`text` without the tails that it begins with."""
        while True:
            found = next((tail for tail in self._tails if text.startswith(tail)), None)
            if found is None:
                return text
            text = text[len(found) :].lstrip()

    def _in_marks(self, text: str, at_start: bool, parts: list[Part]) -> str:
        if self._first:
            start = self._thoughts[0][0]
            core = text.lstrip()
            if start.startswith(core) and core != start:  # even if only white space came
                self._pending = text
                return ""
            if core.startswith(start):
                self._unclosed = None
                text = core[len(start) :]
            self._first = False
        found = [(place, end) for end in self._ends if (place := text.find(end)) >= 0]
        if not found:
            keep = max(held_back(text, end) for end in self._ends)
            self._thought(text[: len(text) - keep], parts)
            self._pending = text[len(text) - keep :]
            return ""
        at, end = min(found)
        self._thought(text[:at], parts)
        self._unclosed = None
        if end in ("<|start|>", "<|channel|>"):
            self._mode = _Mode.HEADER
            self._header = end
        else:
            self._mode = _Mode.TEXT
            self._trim = at_start
        return text[at + len(end) :]

    def _thought(self, text: str, parts: list[Part]) -> None:
        if text and self._mode is _Mode.THOUGHT:
            parts.append((True, text))
            if self._unclosed is not None:
                self._unclosed.append(text)

    def _in_header(self, text: str) -> str:
        """Between ``<|start|>`` or ``<|channel|>`` and the message that follows."""
        header = self._header + text
        at = header.find("<|message|>")
        places = [header.find(end) for end in ("<|end|>", "<|return|>", "<|call|>")]
        ended = min((place for place in places if place >= 0), default=-1)
        if at < 0 and ended < 0 and len(header) <= _MAX_HEADER:
            self._header = header
            return ""
        self._header = ""
        self._mode = _Mode.TEXT
        if 0 <= ended < at or at < 0:
            return header[header.find("|>", ended) + 2 :] if ended >= 0 else ""
        channel = header[:at].rpartition("<|channel|>")[2]
        name = channel.strip().partition(" ")[0].partition("<")[0]
        if " to=" in header[:at]:
            self._mode = _Mode.HIDDEN
        elif name == "analysis":
            self._mode = _Mode.THOUGHT
        if self._mode is not _Mode.TEXT:
            self._ends = _CHANNEL_ENDS
        return header[at + len("<|message|>") :]


@functools.lru_cache(maxsize=256)
def _beginnings(
    thoughts: tuple[tuple[str, str], ...],
    opening: tuple[tuple[str, str], ...],
    heads: tuple[str, ...],
    tails: tuple[str, ...],
) -> tuple[str, re.Pattern[str]]:
    """The first characters of all marks, and a function that finds one. Cached for each family."""
    marks = [*(start for start, _ in (*thoughts, *opening)), *heads, *tails]
    first = "".join(sorted({"<", *(mark[0] for mark in marks)}))
    return first, re.compile(f"[{re.escape(first)}]")


def _is_leftover(text: str) -> bool:
    """Whether `text` holds only marks or parts of marks."""
    if len(text) > _MAX_TAIL:
        return False
    return not _LEFTOVER.sub("", text.lstrip()).strip(" \t\r\n>")
