"""Removes chat-template marks from the text of a reply. Pure.

`rejoinder._core.families` lists the marks of each model; `rejoinder.wire.marks` has the grammar.
"""

from __future__ import annotations

from typing import Final

from rejoinder._core.families import UNKNOWN, Family
from rejoinder.providers.answering.chunks import Reply
from rejoinder.wire.marks import MarkSplitter, Part

__all__ = ["ReplyMarks"]

_THINK: Final = ("<think>", "</think>")
# Words that a text about XML may also contain, so they are marks only at the beginning.
_OPENING: Final = (("<thinking>", "</thinking>"), ("<reasoning>", "</reasoning>"))


class ReplyMarks(MarkSplitter):
    """The marks in the text of one reply.

    Readers first check whether a piece may hold a mark, because very few do::

        if "<" in text or marks.busy or (marks.more and marks.begin_in(text)):
            marks.split(text, reply)
        else:
            reply.text(text)

    Args:
        family: the model's family.
        think: the text may contain ``<think>``, which Chat Completions servers pass on: anywhere, or
            only at the beginning for a family that never thinks.

    Attributes:
        more: characters other than ``<`` with which marks may begin.
    """

    __slots__ = ("_family", "_think", "more")

    def __init__(self, family: Family = UNKNOWN, *, think: bool = True) -> None:
        thoughts = [pair for pair in family.think_tags if pair not in _OPENING]
        opening = _OPENING
        if think and _THINK not in thoughts:
            if family is UNKNOWN or family.think_tags or family.thinks != "never":
                thoughts.append(_THINK)
            else:  # a word of its prose, unless something else answers under its name
                opening = (*_OPENING, _THINK)
        super().__init__(
            thoughts,
            opening,
            inside=family.opens_inside and bool(thoughts),
            channels="<|channel|>" in family.marks,
            heads=family.heads,
            tails=family.marks,
        )
        self._family = family
        self._think = think
        self.more = self.first.replace("<", "")

    def begin_in(self, text: str) -> bool:
        """Whether a mark that does not begin with ``<`` may begin in `text`."""
        return any(first in text for first in self.more)

    def split(self, text: str, reply: Reply, may_have_surrogates: bool = False) -> None:
        """Add a piece of text without its marks."""
        reply.output_count += 1
        if self.busy and not reply.keep_text(text):
            return
        self._add(self.feed(text, at_start=reply.is_blank()), reply, may_have_surrogates)

    def finished(self, kind: str, text: str, reply: Reply) -> None:
        """Add the part of a finished text, without marks, that its pieces did not contain."""
        reply.finished_text(kind, self._without_marks(text, reply))

    def snapshot(self, text: str, reply: Reply) -> None:
        """Add the part of the whole text so far, without marks, that its pieces did not contain."""
        reply.snapshot(self._without_marks(text, reply))

    def _without_marks(self, text: str, reply: Reply) -> str:
        if self.begins.search(text) is not None or self._family.opens_inside:
            whole = ReplyMarks(self._family, think=self._think)
            parts = [*whole.feed(text, at_start=True), *whole.close()]
            if reply.is_blank():
                for is_thought, part in parts:
                    if is_thought:
                        reply.thinking(part, may_have_surrogates=True)
            text = "".join(part for is_thought, part in parts if not is_thought)
        return text

    def thinks_apart(self, reply: Reply) -> None:
        """Thinking arrives in a separate field, so the text does not begin inside it."""
        self._add(self.outside(), reply)

    def finish(self, reply: Reply) -> None:
        """The text has ended: add what was held back."""
        if self.busy:
            self._add(self.close(), reply)

    def _add(self, parts: list[Part], reply: Reply, may_have_surrogates: bool = False) -> None:
        for is_thought, text in parts:
            if is_thought:
                reply.thinking(text, may_have_surrogates)
            else:
                reply.text(text, may_have_surrogates)
