"""AWS event-stream frames: decodes bytes to messages, and encodes messages to bytes.

This module knows frames, headers and their two checksums, but not the meaning of a payload. It checks
every length before using it, so memory is bounded by `max_message`, and no byte sequence raises
anything but `WireError`. Exception and error frames are ordinary messages with their own
`Message.kind`; the caller decides what to raise.

A frame: total length u32, headers length u32, CRC32 of these 8 bytes, headers, payload, CRC32 of
everything before it; big endian. A header: name length u8, name, type u8, value.
"""

from __future__ import annotations

import struct
import uuid
from collections.abc import Mapping
from types import MappingProxyType
from typing import Final, NamedTuple, TypeAlias
from zlib import crc32

from rejoinder.errors import APIError, WireError

__all__ = [
    "EventStreamDecoder",
    "HeaderValue",
    "Message",
    "Timestamp",
    "encode_headers",
    "encode_message",
]

HeaderValue: TypeAlias = bool | int | bytes | str | uuid.UUID
"""The values of a header. Decoded timestamps are plain integers."""


class Timestamp(int):
    """Milliseconds since the epoch, encoded as a timestamp."""

    __slots__ = ()


_PRELUDE: Final = struct.Struct("!III")
_U16: Final = struct.Struct("!H")
_U32: Final = struct.Struct("!I")
_INTEGERS: Final = {
    2: struct.Struct("!b"),
    3: struct.Struct("!h"),
    4: struct.Struct("!i"),
    5: struct.Struct("!q"),
    8: struct.Struct("!q"),  # a timestamp, in milliseconds
}
_OVERHEAD: Final = 16  # prelude and the last checksum
_MAX_HEADERS: Final = 1 << 17  # the protocol's own limit
_CACHED_HEADERS: Final = 32
_CACHEABLE: Final = 512


class Message(NamedTuple):
    """One frame.

    `kind` is the header ``:message-type``: ``"event"``, ``"exception"`` (modelled by the service)
    or ``"error"`` (not modelled). `name` is the header ``:event-type``, ``:exception-type`` or
    ``:error-code``. Both are ``""`` if the header is missing.
    """

    kind: str
    name: str
    payload: bytes
    headers: Mapping[str, HeaderValue]


class EventStreamDecoder:
    """Cuts a byte stream into event-stream messages.

    Args:
        max_message: bytes of the largest frame that is accepted.

    Attributes:
        failure: what the next call will raise.
    """

    __slots__ = ("_buffer", "_known", "_max_message", "_need", "failure")

    def __init__(self, *, max_message: int = 1 << 24) -> None:
        self._max_message = max_message
        self._buffer = bytearray()
        self._need = 12  # bytes the buffer must hold before the next step
        # The few header blocks of a stream repeat with every frame; they are read once.
        self._known: dict[bytes, tuple[str, str, Mapping[str, HeaderValue]]] = {}
        self.failure: APIError | None = None

    def feed(self, data: bytes) -> list[Message]:
        """The messages completed by `data`.

        Raises:
            WireError: a frame was broken, in an earlier call.
        """
        if self.failure is not None:
            raise self.failure
        messages: list[Message] = []
        if self._buffer:
            self._buffer += data
            if len(self._buffer) < self._need:
                return messages
            data = bytes(self._buffer)
            self._buffer.clear()
        try:
            rest = self._frames(data, messages)
        except WireError as error:
            self.failure = error
            return messages
        if rest < len(data):
            self._buffer += data[rest:] if rest else data
        return messages

    def close(self) -> list[Message]:
        """No more bytes follow.

        Raises:
            WireError: the bytes end within a frame, or a frame was broken.
        """
        if self.failure is not None:
            raise self.failure
        if self._buffer:
            self.failure = WireError(
                f"the event stream was cut short: {len(self._buffer)} bytes of an unfinished frame"
            )
            self._buffer = bytearray()
            raise self.failure
        return []

    def _frames(self, data: bytes, messages: list[Message]) -> int:
        position = 0
        size = len(data)
        while True:
            if size - position < 12:
                self._need = 12
                return position
            total, headers_size, prelude_crc = _PRELUDE.unpack_from(data, position)
            if crc32(data[position : position + 8]) != prelude_crc:
                raise WireError(
                    "event stream: the checksum of a frame's prelude does not match; "
                    f"expected an AWS event stream, got {data[position : position + 12]!r}"
                )
            if headers_size > _MAX_HEADERS or headers_size > total - _OVERHEAD:
                raise WireError(
                    f"event stream: a frame of {total} bytes claims {headers_size} of headers"
                )
            if total > self._max_message:
                raise WireError(
                    f"event stream: a frame of {total} bytes; at most {self._max_message} are accepted"
                )
            end = position + total
            if end > size:
                self._need = total
                return position
            body_end = end - 4
            if crc32(data[position:body_end]) != _U32.unpack_from(data, body_end)[0]:
                raise WireError("event stream: the checksum of a frame does not match its bytes")
            payload_start = position + 12 + headers_size
            block = data[position + 12 : payload_start]
            known = self._known.get(block)
            if known is None:
                known = _describe(block)
                if len(self._known) < _CACHED_HEADERS and headers_size <= _CACHEABLE:
                    self._known[block] = known
            messages.append(Message(known[0], known[1], data[payload_start:body_end], known[2]))
            position = end


def encode_message(headers: Mapping[str, HeaderValue], payload: bytes) -> bytes:
    """One frame with its checksums. Integers are written with 64 bits.

    Raises:
        ValueError: a header name is empty or longer than 255 bytes, or a value is out of range.
    """
    block = encode_headers(headers)
    if len(block) > _MAX_HEADERS:
        raise ValueError(f"event stream: headers of {len(block)} bytes; at most {_MAX_HEADERS} fit")
    lengths = _PRELUDE.pack(len(block) + len(payload) + _OVERHEAD, len(block), 0)[:8]
    frame = lengths + _U32.pack(crc32(lengths)) + block + payload
    return frame + _U32.pack(crc32(frame))


def encode_headers(headers: Mapping[str, HeaderValue]) -> bytes:
    """The headers of a frame, one behind the other.

    Raises:
        ValueError: as `encode_message`.
    """
    block = bytearray()
    for name, value in headers.items():
        encoded = name.encode()
        if not 0 < len(encoded) < 256:
            raise ValueError(f"event stream header {name!r}: expected a name of 1 to 255 bytes")
        block.append(len(encoded))
        block += encoded
        match value:
            case bool():
                block.append(0 if value else 1)
            case int():
                block.append(8 if isinstance(value, Timestamp) else 5)
                try:
                    block += _INTEGERS[5].pack(value)
                except struct.error:
                    raise ValueError(
                        f"event stream header {name!r}: {value} does not fit into 64 bits"
                    ) from None
            case uuid.UUID():
                block.append(9)
                block += value.bytes
            case bytes() | str():
                raw = value if isinstance(value, bytes) else value.encode()
                if len(raw) > 0x7FFF:
                    raise ValueError(
                        f"event stream header {name!r}: expected at most 32767 bytes, got {len(raw)}"
                    )
                block.append(6 if isinstance(value, bytes) else 7)
                block += _U16.pack(len(raw))
                block += raw
    return bytes(block)


def _describe(block: bytes) -> tuple[str, str, Mapping[str, HeaderValue]]:
    headers = _headers(block)
    kind = headers.get(":message-type", "")
    name = headers.get(":event-type") or headers.get(":exception-type")
    name = name or headers.get(":error-code") or ""
    return str(kind), str(name), MappingProxyType(headers)


def _headers(block: bytes) -> dict[str, HeaderValue]:
    headers: dict[str, HeaderValue] = {}
    position = 0
    try:
        while position < len(block):
            start = position + 1
            position = start + block[position]
            name = block[start:position].decode()
            kind = block[position]
            position += 1
            if kind < 2:
                headers[name] = kind == 0
            elif kind in _INTEGERS:
                number = _INTEGERS[kind]
                headers[name] = int(number.unpack_from(block, position)[0])
                position += number.size
            elif kind in (6, 7):
                start = position + 2
                position = start + int(_U16.unpack_from(block, position)[0])
                value = block[start:position]
                headers[name] = value.decode() if kind == 7 else value
            elif kind == 9:
                headers[name] = uuid.UUID(bytes=block[position : position + 16])
                position += 16
            else:
                raise WireError(f"event stream: header {name!r} has the unknown type {kind}")
    except (IndexError, ValueError, struct.error) as error:
        raise WireError("event stream: the headers of a frame cannot be read") from error
    if position != len(block):
        raise WireError("event stream: the last header of a frame is cut short")
    return headers
