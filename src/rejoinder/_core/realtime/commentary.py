"""Cuts the answer of a text model into pieces for a speech model, while it streams. Pure."""

from __future__ import annotations

import re
from typing import Final

__all__ = ["Commentary"]

_END: Final = re.compile(r"(?:[.!?…]+[\"'”’)]*(?=\s)|[。！？]+[」』”]*|\n)\s*")


class Commentary:
    """Sentences of one answer: the first alone, because the user is waiting; later ones joined.

    Args:
        first: minimum characters of the first piece.
        later: minimum characters of later pieces.
    """

    def __init__(self, *, first: int = 12, later: int = 240) -> None:
        self._least = first
        self._later = later
        self._text = ""
        self.said = False
        """Whether a piece was returned."""

    def feed(self, text: str) -> str:
        """The next piece; empty while there is no whole one."""
        self._text += text
        end = 0
        for found in _END.finditer(self._text):
            if len(self._text[: found.end()].strip()) >= self._least:
                end = found.end()
                if not self.said:
                    break
        return self._take(end)

    def flush(self) -> str:
        """The remaining text, because the model does something else now or has ended."""
        return self._take(len(self._text))

    def restart(self) -> None:
        """The answer begins again. Drops the text that was not returned."""
        self._text = ""

    def _take(self, end: int) -> str:
        piece, self._text = self._text[:end].strip(), self._text[end:]
        if piece:
            self.said = True
            self._least = self._later
        return piece
