"""Server-sent events: bytes in, ``(event, data)`` pairs out.

This module knows the framing of the HTML standard, but not the content of events. Lines end with LF,
CRLF or CR, even if a read cuts CRLF in two; data may span lines; comments, `id`, `retry` and unknown
fields are skipped; a byte order mark at the start is dropped. The size of a line and of an event's data
is bounded; beyond it, `feed` returns the earlier events and raises `WireError` at the next call. The
result does not depend on how the bytes are cut. This is on the hot path of every reply: an ordinary
event costs about half a microsecond.
"""

from __future__ import annotations

from typing import Final, TypeAlias

from rejoinder.errors import APIError, WireError

__all__ = ["SSEDecoder", "SSEEvent"]

SSEEvent: TypeAlias = tuple[str | None, bytes]
"""``(event, data)``: the name in the `event` field (``None`` if missing), and the data as bytes, its
lines joined with LF."""

_BOM: Final = b"\xef\xbb\xbf"
_STRAY_LIMIT: Final = 1 << 16
_CR: Final = 13
"""A number, because searching for ``b"\\r"`` makes CPython raise and drop an exception each time."""
_LF: Final = 10


class SSEDecoder:
    """Cuts a byte stream into server-sent events.

    Args:
        max_line: maximum bytes of a line.
        max_event: maximum bytes of an event's data.

    Attributes:
        failure: the error that the next call will raise.
        skipped: events with a name but no data, which the standard ignores.
    """

    __slots__ = (
        "_data",
        "_event",
        "_head",
        "_idle",
        "_line",
        "_max_event",
        "_max_fast",
        "_max_line",
        "_skip_lf",
        "_stray",
        "failure",
        "skipped",
    )

    def __init__(self, *, max_line: int = 1 << 24, max_event: int = 1 << 24) -> None:
        self._max_line = max_line
        self._max_event = max_event
        self._max_fast = min(max_line, max_event)  # shorter lines need no further checks
        self._idle = False  # nothing is pending: the next byte begins an event
        self._head: bytes | None = b""  # first bytes, until it is known if they are a BOM
        self._skip_lf = False  # the last byte was CR: an LF now belongs to it
        self._line = bytearray()  # a line that has no end yet
        # The data of the event that is being read; a second line makes it a bytearray.
        self._data: bytes | bytearray | None = None
        self._event: str | None = None
        self.failure: APIError | None = None
        self.skipped = 0
        self._stray = bytearray()

    @property
    def stray(self) -> bytes:
        """The first 64 KiB of lines that were not fields of this protocol.

        Used to quote a JSON object or a web page that a server sent instead of a stream. Includes the
        last line after `close`.
        """
        return bytes(self._stray)

    def feed(self, data: bytes) -> list[SSEEvent]:
        """The events completed by `data`.

        Raises:
            WireError: a line or an event was too long, in an earlier call.
        """
        # Most reads of a live stream hold exactly one event: one line, or a name and one line.
        if self._idle and len(data) <= self._max_fast:
            if data[-4:] == b"\r\n\r\n":
                data = data.replace(b"\r\n", b"\n")
            if data[-2:] == b"\n\n" and _CR not in data:
                if data[:5] == b"data:":
                    value = data[6 if data[5] == 32 else 5 : -2]
                    if _LF not in value:
                        return [(None, value)]
                elif data[:7] == b"event: ":
                    name, _, field = data[7:-2].partition(b"\n")
                    if field[:6] == b"data: " and _LF not in field:
                        return [(name.decode("utf-8", "replace"), field[6:])]
        if self.failure is not None:
            raise self.failure
        events = self._feed(data)
        self._idle = not (
            self._line
            or self._skip_lf
            or self._head is not None
            or self._data is not None
            or self._event is not None
            or self.failure is not None
        )
        return events

    def _feed(self, data: bytes) -> list[SSEEvent]:
        if self._head is not None:
            data = self._head + data
            if len(data) < 3 and _BOM.startswith(data):
                self._head = data
                return []
            self._head = None
            data = data.removeprefix(_BOM)
        # Turn every line end into LF, so that the code below handles only one kind.
        if self._skip_lf and data:
            self._skip_lf = False
            if data[0] == 10:
                data = data[1:]
        if _CR in data:
            self._skip_lf = data[-1] == 13
            data = data.replace(b"\r\n", b"\n").replace(b"\r", b"\n")

        events: list[SSEEvent] = []
        if self._line or self._data is not None or self._event is not None:
            # An event was begun by an earlier read: finish it line by line.
            position = self._lines(data, events)
            if position < 0:
                return events
            if position:
                data = data[position:]
        blocks = data.split(b"\n\n")
        tail = blocks.pop()
        bounded = len(data) <= self._max_fast
        for block in blocks:
            if bounded and _LF not in block:
                if block[:5] == b"data:":
                    events.append((None, block[6 if block[5:6] == b" " else 5 :]))
                    continue
                if block[:1] == b":" or not block:
                    continue  # a comment, which servers send to keep the connection alive
            elif bounded and block[:7] == b"event: ":
                name, _, rest = block.partition(b"\n")
                if rest[:6] == b"data: " and _LF not in rest:
                    events.append((name[7:].decode("utf-8", "replace"), rest[6:]))
                    continue
            # The first LF ends the last line of the block, the second is the empty line.
            self._lines(block + b"\n\n", events, to_end=True)
            if self.failure is not None:
                return events
        if tail:
            self._lines(tail, events, to_end=True)
        return events

    def close(self) -> list[SSEEvent]:
        """The last event, if the stream ended without the empty line that should follow it.

        The event may be cut anywhere. If its data is unreadable, callers should report a stream that
        was cut short, not garbage.

        Raises:
            WireError: a line or an event was too long.
        """
        if self.failure is not None:
            raise self.failure
        events: list[SSEEvent] = []
        if self._head:  # a lone part of a BOM
            self._line += self._head
        self._head = None
        if self._line:
            self._lines(b"\n", events, to_end=True)
            if self.failure is not None:
                raise self.failure
        self._dispatch(events)
        return events

    def _lines(self, data: bytes, events: list[SSEEvent], *, to_end: bool = False) -> int:
        """Read `data` line by line, until an event is complete or `to_end`.

        Returns the position after what was read, or -1 if all was read or the decoder failed.
        """
        position = 0
        size = len(data)
        while position < size:
            end = data.find(b"\n", position)
            if end < 0:
                self._line += data[position:]
                if len(self._line) > self._max_line:
                    self._fail_line()
                return -1
            if self._line:
                self._line += data[position:end]
                line = bytes(self._line)
                self._line.clear()
            else:
                line = data[position:end]
            position = end + 1
            if len(line) > self._max_line:
                self._fail_line()
                return -1
            if line:
                self._field(line)
                if self.failure is not None:
                    return -1
            else:
                self._dispatch(events)
                if not to_end:
                    return position
        return -1

    def _field(self, line: bytes) -> None:
        if line[:5] == b"data:":
            # Cut out at once: each further copy of a large event counts.
            self._add_data(line[6:] if line[5:6] == b" " else line[5:])
            return
        name, _, value = line.partition(b":")
        if value[:1] == b" ":
            value = value[1:]
        if name == b"data":
            self._add_data(value)
        elif name == b"event":
            self._event = value.decode("utf-8", "replace")
        elif name and name not in (b"id", b"retry") and len(self._stray) < _STRAY_LIMIT:
            self._stray += line[: _STRAY_LIMIT - len(self._stray)]
            self._stray += b"\n"

    def _add_data(self, value: bytes) -> None:
        data = self._data
        if data is None:
            self._data = value
            size = len(value)
        else:
            if isinstance(data, bytes):
                data = self._data = bytearray(data)
            data += b"\n"
            data += value
            size = len(data)
        if size > self._max_event:
            self._fail(
                f"an event holds more than {self._max_event} bytes of data; "
                "the server does not end its events"
            )

    def _dispatch(self, events: list[SSEEvent]) -> None:
        if self._data is not None:
            events.append((self._event, bytes(self._data)))
            self._data = None
        elif self._event is not None:
            self.skipped += 1
        self._event = None

    def _fail_line(self) -> None:
        self._fail(
            f"a line of the event stream is longer than {self._max_line} bytes; "
            "expected server-sent events"
        )

    def _fail(self, message: str) -> None:
        self.failure = WireError(message)
        self._line = bytearray()
        self._data = None
