"""The framings of replies: server-sent events, and the event-stream frames of AWS. Pure.

An exception frame ends the stream with the error for its name. Claude on Bedrock wraps the bytes of each
event of its own stream in a frame, in base64.
"""

from __future__ import annotations

import base64

import msgspec

from rejoinder.clouds.aws_errors import frame_error
from rejoinder.errors import APIError, WireError
from rejoinder.providers.answering.chunks import EVENT_LIMIT
from rejoinder.wire.eventstream import EventStreamDecoder
from rejoinder.wire.sse import SSEDecoder

__all__ = ["FrameEvents", "sse_events"]


class _Wrapped(msgspec.Struct):
    bytes: str


_decode_wrapped = msgspec.json.Decoder(_Wrapped).decode


def sse_events() -> SSEDecoder:
    """A decoder of server-sent events with the size limits of replies."""
    return SSEDecoder(max_line=EVENT_LIMIT, max_event=EVENT_LIMIT)


class FrameEvents:
    """Frames of an AWS event stream as events: the name of each and its payload.

    Args:
        wrapped: each frame holds one event of another stream, in base64.

    Attributes:
        failure: why no more events follow.
    """

    __slots__ = ("_frames", "_wrapped", "failure")

    stray = b""

    def __init__(self, *, wrapped: bool = False) -> None:
        self._frames = EventStreamDecoder(max_message=EVENT_LIMIT)
        self._wrapped = wrapped
        self.failure: APIError | None = None

    def feed(self, data: bytes) -> list[tuple[str | None, bytes]]:
        """The events that `data` completes.

        Raises:
            APIError: found in an earlier call.
        """
        if self.failure is not None:
            raise self.failure
        events: list[tuple[str | None, bytes]] = []
        wrapped = self._wrapped
        for message in self._frames.feed(data):
            kind, name, payload, _ = message
            if kind in ("exception", "error"):
                self.failure = frame_error(message)
                return events
            if not wrapped:
                events.append((name, payload))
            elif name == "chunk":
                try:
                    events.append(
                        (
                            None,
                            base64.b64decode(_decode_wrapped(payload).bytes, validate=True),
                        )
                    )
                except (ValueError, UnicodeError, RecursionError, msgspec.MsgspecError):
                    self.failure = WireError(
                        "a chunk frame does not hold base64 in its member 'bytes'"
                    )
                    return events
            else:
                events.append((None, b"{}"))
        self.failure = self._frames.failure
        return events

    def close(self) -> list[tuple[str | None, bytes]]:
        """No more bytes: drop an unfinished frame."""
        return []
