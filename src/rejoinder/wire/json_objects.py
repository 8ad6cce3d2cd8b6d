"""JSON objects, one after the other: bytes in, the bytes of each object out.

This module knows the framing of a JSON array of objects, of one object, and of objects on separate
lines, but not the content of an object. The size of an object is bounded. The result does not depend on
how the bytes are cut.
"""

from __future__ import annotations

import re
from typing import Final

from rejoinder.errors import APIError, WireError

__all__ = ["JSONObjectDecoder"]

_BETWEEN: Final = re.compile(rb"[^ \t\r\n,\[]")
_OUTSIDE: Final = re.compile(rb'["{}]')
_INSIDE: Final = re.compile(rb'["\\]')
_BOM: Final = b"\xef\xbb\xbf"


class JSONObjectDecoder:
    """Cuts a byte stream into JSON objects, each as ``(None, bytes)``.

    Args:
        max_object: maximum bytes of an object.

    Attributes:
        failure: the error that the next call will raise.
        done: the array was closed; later bytes are not read.
    """

    __slots__ = ("_buffer", "_depth", "_escaped", "_max", "_position", "_text", "done", "failure")

    def __init__(self, *, max_object: int = 1 << 24) -> None:
        self._max = max_object
        self._buffer = bytearray()
        self._position = 0  # the buffer has been searched up to here
        self._depth = 0
        self._text = False
        self._escaped = False
        self.done = False
        self.failure: APIError | None = None

    @property
    def stray(self) -> bytes:
        """The bytes of an object that has not ended."""
        return bytes(self._buffer)

    def feed(self, data: bytes) -> list[tuple[str | None, bytes]]:
        """The objects completed by `data`.

        Raises:
            WireError: found in an earlier call.
        """
        if self.failure is not None:
            raise self.failure
        found: list[tuple[str | None, bytes]] = []
        if self.done:
            return found
        buffer = self._buffer
        buffer += data
        begin = 0  # of the object that is being read
        position = self._position
        size = len(buffer)
        while position < size:
            if self._depth == 0:
                begin = _search(_BETWEEN, buffer, position)
                if begin < 0:
                    begin = position = size
                    break
                byte = buffer[begin]
                position = begin + 1
                if byte == 0x7B:  # {
                    self._depth = 1
                    continue
                if byte == 0x5D:  # ]
                    self.done = True
                elif byte == 0xEF and _BOM.startswith(buffer[begin : begin + 3]):
                    if size - begin < 3:
                        position = begin
                        break
                    position = begin + 3
                    continue
                else:
                    self.failure = WireError(
                        "expected a JSON array of objects, got "
                        f"{bytes([byte])!r} between two of them"
                    )
                break
            if self._escaped:
                self._escaped = False
                position += 1
                continue
            place = _search(_INSIDE if self._text else _OUTSIDE, buffer, position)
            if place < 0:
                position = size
                break
            byte = buffer[place]
            position = place + 1
            if byte == 0x5C:
                self._escaped = True
            elif byte == 0x22:
                self._text = not self._text
            elif byte == 0x7B:
                self._depth += 1
            else:
                self._depth -= 1
                if self._depth == 0:
                    found.append((None, bytes(buffer[begin:position])))
                    begin = position
        if self.done or self.failure is not None:
            buffer.clear()
            return found
        # Delete all objects at once: each single deletion would move the rest of the buffer.
        del buffer[:begin]
        self._position = position - begin
        if len(buffer) > self._max:
            self._buffer = bytearray()
            self.failure = WireError(
                f"a JSON object is longer than {self._max} bytes; it is too long to be read"
            )
        return found

    def close(self) -> list[tuple[str | None, bytes]]:
        """No more bytes. Returns nothing: an object that has not ended is in `stray`.

        Raises:
            WireError: found in an earlier call.
        """
        if self.failure is not None:
            raise self.failure
        return []


def _search(pattern: re.Pattern[bytes], buffer: bytearray, start: int) -> int:
    # In a function of its own: a match that is alive locks the size of the buffer.
    match = pattern.search(buffer, start)
    return -1 if match is None else match.start()
