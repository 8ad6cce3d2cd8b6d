"""Cuts a byte stream into lines and never holds more than one line of the allowed length.

Bytes in, lines out: no loop, no clock. Of a line over the limit, only the beginning and the end are
kept, because they show which request it answered; the middle is counted and dropped.
"""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["LineCutter", "LongLine"]

_EDGE = 512


@dataclass(frozen=True, slots=True)
class LongLine:
    """The beginning and the end of a line that was over the limit."""

    head: bytes
    tail: bytes
    size: int


class LineCutter:
    """`feed` bytes, get complete lines (without the newline) and `LongLine` marks, in order."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._buffer = bytearray()  # the unfinished line, or the head of one that is too long
        self._tail = b""
        self._size = 0

    @property
    def pending(self) -> int:
        """Bytes of the unfinished line so far, dropped ones included."""
        return self._size

    def feed(self, data: bytes) -> list[bytes | LongLine]:
        lines: list[bytes | LongLine] = []
        start = 0
        while (end := data.find(b"\n", start)) >= 0:
            if self._size == 0 and end - start <= self._limit:
                lines.append(data[start:end])
            else:
                self._take(data[start:end])
                lines.append(self._finish())
            start = end + 1
        if start < len(data):
            self._take(data[start:])
        return lines

    def _take(self, piece: bytes) -> None:
        before = self._size
        self._size += len(piece)
        if self._size <= self._limit:
            self._buffer += piece
            return
        if before <= self._limit:
            self._buffer += piece
            self._tail = bytes(self._buffer[-_EDGE:])
            self._buffer = self._buffer[:_EDGE]
            return
        self._buffer += piece[: _EDGE - len(self._buffer)]
        self._tail = (self._tail + piece[-_EDGE:])[-_EDGE:]

    def _finish(self) -> bytes | LongLine:
        line: bytes | LongLine
        if self._size <= self._limit:
            line = bytes(self._buffer)
        else:
            line = LongLine(head=bytes(self._buffer), tail=self._tail, size=self._size)
        self._buffer = bytearray()
        self._tail = b""
        self._size = 0
        return line
