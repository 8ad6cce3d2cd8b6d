"""Draws replies in a terminal: words as they arrive, then each finished block (paragraph, list,
table, code) again as Markdown. Needs `rich` (extra ``cli``).

A block is drawn over its own raw text. If that text can no longer be erased, because it scrolled
off or the window was resized, it stays.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable
from typing import Any, TextIO

__all__ = ["MarkdownReply", "find_markdown"]


def find_markdown(stream: TextIO, *, colour: bool) -> MarkdownReply | None:
    """A `MarkdownReply` for `stream`, if it is a capable terminal and `rich` is installed."""
    if not colour:
        return None
    try:
        from rich.console import Console
    except ImportError:
        return None
    return MarkdownReply(
        stream, lambda columns: Console(file=stream, force_terminal=True, width=columns)
    )


class MarkdownReply:
    """Draws one reply after the other.

    Args:
        stream: the terminal.
        console: makes a `rich.console.Console` of that many columns on `stream`.
    """

    def __init__(self, stream: TextIO, console: Callable[[int], Any]) -> None:
        self._stream = stream
        self._console = console
        self._block = ""
        self._size = (0, 0)
        self._drawn = False

    def write(self, text: str) -> None:
        """Write a piece of the reply."""
        for line in text.splitlines(keepends=True):
            self._line(line)
        self._stream.flush()

    def _line(self, piece: str) -> None:
        if not self._block:
            self._size = self._now()
            if not piece.strip("\n"):
                return  # between blocks there is one empty line, which the next block writes
            if self._drawn:
                self._stream.write("\n")
        self._stream.write(piece)
        self._block += piece
        if self._block.endswith("\n\n") and not _in_code(self._block):
            self._draw()

    def end(self) -> None:
        """End the reply, or this part of it. The next output begins a new line."""
        if self._block:
            self._draw()
        self._drawn = False
        self._stream.flush()

    def _draw(self) -> None:
        block, self._block = self._block, ""
        self._drawn = True
        columns, rows = self._size
        used = rows_of(block, columns)
        if self._now() != self._size or used >= rows:
            self._stream.write("" if block.endswith("\n") else "\n")
            if block.endswith("\n\n"):
                self._drawn = False
            return
        from rich.markdown import Markdown

        up = used - (0 if block.endswith("\n") else 1)
        self._stream.write(f"\r\x1b[{up}A\x1b[J" if up else "\r\x1b[J")
        self._console(columns).print(Markdown(block.strip("\n")))

    def _now(self) -> tuple[int, int]:
        with contextlib.suppress(OSError, ValueError):
            size = os.get_terminal_size(self._stream.fileno())
            return size.columns or 80, size.lines or 24
        return 80, 24


def _in_code(block: str) -> bool:
    """Whether `block` ends inside a code fence."""
    fence = ""
    for line in block.splitlines():
        mark = line.strip()
        if fence:
            if mark.startswith(fence) and not mark.strip(fence[0]):
                fence = ""
        elif mark.startswith(("```", "~~~")):
            fence = mark[:3]
    return bool(fence)


def rows_of(text: str, columns: int) -> int:
    """Number of terminal rows that `text` occupies."""
    from rich.cells import cell_len

    lines = text.split("\n")
    if lines and not lines[-1]:
        lines.pop()
    return sum(max(1, -(-cell_len(line.expandtabs(8)) // columns)) for line in lines)
