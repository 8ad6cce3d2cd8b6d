"""Newline-delimited JSON (and any other line protocol): bytes in, whole lines out.

Lines end with LF, CRLF or CR. Empty lines and a byte order mark at the start are dropped, and the
length of a line is limited. The caller interprets what is inside a line. However the bytes are cut
into chunks, the result is the same.
"""

from __future__ import annotations

from typing import Final

from rejoinder.errors import APIError, WireError

__all__ = ["LineDecoder"]

_BOM: Final = b"\xef\xbb\xbf"
_BLANK: Final = b" \t"


class LineDecoder:
    """Cuts a byte stream into lines that hold something.

    White space around a line is removed.

    Args:
        max_line: bytes of the longest line that is accepted.

    Attributes:
        failure: what the next call will raise.
    """

    __slots__ = ("_head", "_line", "_max_line", "failure")

    def __init__(self, *, max_line: int = 1 << 24) -> None:
        self._max_line = max_line
        self._head: bytes | None = b""  # first bytes, until it is known if they are a BOM
        self._line = bytearray()
        self.failure: APIError | None = None

    def feed(self, data: bytes) -> list[bytes]:
        """The lines completed by `data`.

        Raises:
            WireError: a line was too long, in an earlier call.
        """
        if self.failure is not None:
            raise self.failure
        if self._head is not None:
            data = self._head + data
            if len(data) < 3 and _BOM.startswith(data):
                self._head = data
                return []
            self._head = None
            data = data.removeprefix(_BOM)
        # The LF of a CRLF makes one more empty line, and those are dropped anyway.
        parts = data.replace(b"\r", b"\n").split(b"\n")
        tail = parts.pop()
        lines: list[bytes] = []
        for part in parts:
            if self._line:
                self._line += part
                part = bytes(self._line)
                self._line.clear()
            if len(part) > self._max_line:
                self._fail()
                return lines
            part = part.strip(_BLANK)
            if part:
                lines.append(part)
        self._line += tail
        if len(self._line) > self._max_line:
            self._fail()
        return lines

    def close(self) -> list[bytes]:
        """The last line, if the bytes ended without a line end. It may be cut short.

        Raises:
            WireError: a line was too long.
        """
        if self.failure is not None:
            raise self.failure
        line = (bytes(self._head or b"") + bytes(self._line)).strip(_BLANK)
        self._head = None
        self._line = bytearray()
        return [line] if line else []

    def _fail(self) -> None:
        self.failure = WireError(
            f"a line is longer than {self._max_line} bytes; expected newline-delimited JSON"
        )
        self._line = bytearray()
