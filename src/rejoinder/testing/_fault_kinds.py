"""The faults of providers, the answers of a test server, and the expected outcomes in a client.

Only values; `faults` serves them.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Final, TypeAlias

from rejoinder._options import WHOLE, check_fields, checked
from rejoinder.errors import (
    APIConnectionError,
    APIError,
    APIStatusError,
    APITimeoutError,
    EmptyResponseError,
    WireError,
)
from rejoinder.testing._dialects import Call, Format, Usage

__all__ = [
    "GREETING",
    "OUTCOMES",
    "Answer",
    "Choose",
    "Fault",
    "Outcome",
    "ReceivedRequest",
    "outcome_of",
]


class Fault(StrEnum):
    """A fault that the server applies to a request. The value is its name in test ids and docs."""

    NONE = "none"
    """A proper answer."""
    BYTE_DRIP = "byte_drip"
    """A proper answer, with each byte in a separate read."""
    ONE_WRITE = "one_write"
    """A proper answer, all of it in one read."""
    GZIP = "gzip"
    """A proper answer, compressed."""
    CONTENT_LENGTH = "content_length"
    """A proper answer that announces its length."""
    UNTIL_CLOSE = "until_close"
    """A proper answer that ends with the connection (HTTP/1.0)."""
    KEEP_ALIVES = "keep_alives"
    """A proper answer with keep-alives between its events."""
    UNKNOWN_EVENTS = "unknown_events"
    """A proper answer with events of unknown kinds between its own."""
    HANG_AFTER_END = "hang_after_end"
    """A whole answer with its end mark; then the connection stays open and silent."""
    RESET_AFTER_END = "reset_after_end"
    """A whole answer with its end mark; then the connection is reset."""
    UNASKED_ANSWER = "unasked_answer"
    """A proper answer; a moment later, the same one again without a request, on the idle connection."""

    STATUS_400 = "status_400"
    STATUS_401 = "status_401"
    STATUS_403 = "status_403"
    STATUS_404 = "status_404"
    STATUS_408 = "status_408"
    STATUS_409 = "status_409"
    STATUS_413 = "status_413"
    STATUS_422 = "status_422"
    STATUS_429 = "status_429"
    STATUS_500 = "status_500"
    STATUS_502_HTML = "status_502_html"
    """A gateway's 502 with a web page instead of an error object."""
    STATUS_503 = "status_503"
    STATUS_504_EMPTY = "status_504_empty"
    """A gateway's 504 without a body."""
    STATUS_529 = "status_529"
    RETRY_AFTER_SECONDS = "retry_after_seconds"
    """429 with ``Retry-After: 2``."""
    RETRY_AFTER_DATE = "retry_after_date"
    """503 with ``Retry-After: <date in 2 s>``."""
    RETRY_AFTER_MS = "retry_after_ms"
    """429 with ``retry-after-ms: 1500``."""
    ENDLESS_ERROR_BODY = "endless_error_body"
    """500 with a body that never ends."""

    STALL_BEFORE_HEADERS = "stall_before_headers"
    """The request is read, and no response is sent."""
    STALL_BEFORE_OUTPUT = "stall_before_output"
    """The opening events, then silence."""
    STALL_MID_STREAM = "stall_mid_stream"
    """Some text, then silence."""
    KEEP_ALIVES_FOR_EVER = "keep_alives_for_ever"
    """Only keep-alives, for ever."""
    KEEP_ALIVES_MID_STREAM = "keep_alives_mid_stream"
    """Some text, then keep-alives for ever."""
    ROLE_ONLY_FOR_EVER = "role_only_for_ever"
    """Events that announce an output and hold none, for ever."""
    USAGE_ONLY_FOR_EVER = "usage_only_for_ever"
    """Events that count tokens and hold no output, for ever."""

    CLOSE_BEFORE_HEADERS = "close_before_headers"
    """The connection is closed instead of an answer."""
    RESET_BEFORE_HEADERS = "reset_before_headers"
    """The connection is reset instead of an answer."""
    RESET_BEFORE_OUTPUT = "reset_before_output"
    """The opening events, then the connection is reset."""
    RESET_MID_STREAM = "reset_mid_stream"
    """Some text, then the connection is reset."""
    CLOSE_BEFORE_OUTPUT = "close_before_output"
    """The body ends in order after the opening events."""
    CLOSE_MID_STREAM = "close_mid_stream"
    """The body ends in order after some text, without the provider's end mark."""
    CUT_CHUNKED_BODY = "cut_chunked_body"
    """The connection closes within a chunk of the chunked body."""
    NOT_HTTP = "not_http"
    """The server speaks another protocol."""

    TRUNCATED_JSON = "truncated_json"
    """The body ends in order, in the middle of an event."""
    INVALID_JSON = "invalid_json"
    """After some text comes an event whose payload is not JSON."""
    ERROR_EVENT = "error_event"
    """The provider reports a failure before the first output, with status 200."""
    ERROR_EVENT_MID_STREAM = "error_event_mid_stream"
    """Some text, then the provider reports a failure."""
    HTML_200 = "html_200"
    """A web page with status 200."""
    JSON_ERROR_200 = "json_error_200"
    """An error object with status 200."""
    WRONG_CONTENT_TYPE = "wrong_content_type"
    """A proper stream that is labelled as a picture."""
    GARBAGE = "garbage"
    """Random bytes, labelled as a proper stream."""
    ENDLESS_LINE = "endless_line"
    """An event without end."""
    GZIP_BOMB = "gzip_bomb"
    """An event without end, compressed a thousandfold."""
    EMPTY_BODY = "empty_body"
    """Status 200 with an empty body."""
    EMPTY_REPLY = "empty_reply"
    """A proper stream with usage and without output."""
    REDIRECT_LOOP = "redirect_loop"
    """307 to a place that answers 307 to itself."""
    REDIRECT_AWAY = "redirect_away"
    """307 to another origin (`FaultServer.elsewhere`)."""


GREETING: Final = ("Hello", " wörld", " 👋.")
"""The default text of a server."""


@dataclass(frozen=True, slots=True)
class Answer:
    """The server's response to one request.

    Args:
        text: a text, sent as one event, or several pieces, one event each. Default: no text, but an
            answer with only a fault has some, so that the fault can interrupt it.
        calls: tool calls, after the text.
        thinking: visible reasoning, before the text; omitted in formats without it.
        usage: tokens reported.
        fault: the fault.
        after: outputs that are sent before a fault in mid-stream.
        status: for your own errors: this status with an error object of the format.
        message: text of error objects.
        headers: further header fields.
        format: the wire format; ``None`` chooses it by the URL.
    """

    text: str | Sequence[str] | None = None
    calls: Sequence[Call] = ()
    thinking: str = ""
    usage: Usage = field(default_factory=Usage)
    fault: Fault = Fault.NONE
    after: int = 1
    status: int | None = None
    message: str = "scripted failure"
    headers: Mapping[str, str] = field(default_factory=dict[str, str])
    format: Format | None = None

    def __post_init__(self) -> None:
        check_fields(self, after=WHOLE, status=WHOLE.optional)

    @property
    def pieces(self) -> tuple[str, ...]:
        """The text as it is sent, an event for each piece."""
        if self.text is None:
            alone = self.fault is not Fault.NONE and not (self.calls or self.thinking)
            return GREETING if alone else ()
        return (self.text,) if isinstance(self.text, str) else tuple(self.text)


@dataclass(frozen=True, slots=True)
class ReceivedRequest:
    """One request as the server saw it. Header names are in lower case."""

    method: str
    path: str
    headers: Mapping[str, str] = field(repr=False)
    body: bytes = field(repr=False)

    def json(self) -> Any:
        return json.loads(self.body)


Choose: TypeAlias = Callable[[ReceivedRequest], Answer]
"""Chooses the answer to a request."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """The outcome of a fault in a client of this package, without retries.

    `errors`: the error is an instance of one of these; empty: the reply is good. `text`: whether some
    text reaches the consumer before the error; then nothing is retried, and the error's `retryable` is
    always false.
    """

    errors: tuple[type[APIError], ...] = ()
    status: int | None = None
    retryable: bool | None = None
    text: bool = False
    retry_after: float | None = None


def _status(status: int, *, retryable: bool, retry_after: float | None = None) -> Outcome:
    return Outcome((APIStatusError,), status, retryable, retry_after=retry_after)


_LATE: Final = Outcome((APITimeoutError,), retryable=True)
_LATE_TEXT: Final = Outcome((APITimeoutError,), retryable=False, text=True)
_LOST: Final = Outcome((APIConnectionError,), retryable=True)
_LOST_TEXT: Final = Outcome((APIConnectionError,), retryable=False, text=True)
_CUT: Final = Outcome((WireError, APIConnectionError), retryable=True)
_CUT_TEXT: Final = Outcome((WireError, APIConnectionError), retryable=False, text=True)

OUTCOMES: Final[Mapping[Fault, Outcome]] = {
    Fault.NONE: Outcome(),
    Fault.BYTE_DRIP: Outcome(),
    Fault.ONE_WRITE: Outcome(),
    Fault.GZIP: Outcome(),
    Fault.CONTENT_LENGTH: Outcome(),
    Fault.UNTIL_CLOSE: Outcome(),
    Fault.KEEP_ALIVES: Outcome(),
    Fault.UNKNOWN_EVENTS: Outcome(),
    Fault.HANG_AFTER_END: Outcome(),
    Fault.RESET_AFTER_END: Outcome(),
    Fault.UNASKED_ANSWER: Outcome(),
    Fault.STATUS_400: _status(400, retryable=False),
    Fault.STATUS_401: _status(401, retryable=False),
    Fault.STATUS_403: _status(403, retryable=False),
    Fault.STATUS_404: _status(404, retryable=False),
    Fault.STATUS_408: _status(408, retryable=True),
    Fault.STATUS_409: _status(409, retryable=True),
    Fault.STATUS_413: _status(413, retryable=False),
    Fault.STATUS_422: _status(422, retryable=False),
    Fault.STATUS_429: _status(429, retryable=True),
    Fault.STATUS_500: _status(500, retryable=True),
    Fault.STATUS_502_HTML: _status(502, retryable=True),
    Fault.STATUS_503: _status(503, retryable=True),
    Fault.STATUS_504_EMPTY: _status(504, retryable=True),
    Fault.STATUS_529: _status(529, retryable=True),
    Fault.RETRY_AFTER_SECONDS: _status(429, retryable=True, retry_after=2.0),
    Fault.RETRY_AFTER_DATE: _status(503, retryable=True, retry_after=2.0),
    Fault.RETRY_AFTER_MS: _status(429, retryable=True, retry_after=1.5),
    Fault.ENDLESS_ERROR_BODY: _status(500, retryable=True),
    Fault.STALL_BEFORE_HEADERS: _LATE,
    Fault.STALL_BEFORE_OUTPUT: _LATE,
    Fault.STALL_MID_STREAM: _LATE_TEXT,
    Fault.KEEP_ALIVES_FOR_EVER: _LATE,
    Fault.KEEP_ALIVES_MID_STREAM: _LATE_TEXT,
    Fault.ROLE_ONLY_FOR_EVER: _LATE,
    Fault.USAGE_ONLY_FOR_EVER: _LATE,
    Fault.CLOSE_BEFORE_HEADERS: _LOST,
    Fault.RESET_BEFORE_HEADERS: _LOST,
    Fault.RESET_BEFORE_OUTPUT: _LOST,
    Fault.RESET_MID_STREAM: _LOST_TEXT,
    Fault.CLOSE_BEFORE_OUTPUT: _CUT,
    Fault.CLOSE_MID_STREAM: _CUT_TEXT,
    Fault.CUT_CHUNKED_BODY: _LOST_TEXT,
    Fault.NOT_HTTP: Outcome((WireError, APIConnectionError), retryable=True),
    Fault.TRUNCATED_JSON: _CUT_TEXT,
    Fault.INVALID_JSON: _CUT_TEXT,
    Fault.ERROR_EVENT: Outcome((APIError,), retryable=True),
    Fault.ERROR_EVENT_MID_STREAM: Outcome((APIError,), retryable=False, text=True),
    Fault.HTML_200: Outcome((APIError,)),
    Fault.JSON_ERROR_200: Outcome((APIError,)),
    Fault.WRONG_CONTENT_TYPE: Outcome((APIError,)),
    Fault.GARBAGE: Outcome((APIError,)),
    Fault.ENDLESS_LINE: Outcome((WireError,)),
    Fault.GZIP_BOMB: Outcome((WireError,)),
    Fault.EMPTY_BODY: Outcome((WireError, APIConnectionError, EmptyResponseError), retryable=True),
    Fault.EMPTY_REPLY: Outcome((EmptyResponseError,)),
    Fault.REDIRECT_LOOP: Outcome((APIStatusError,), 307, retryable=False),
    Fault.REDIRECT_AWAY: Outcome(),
}
"""The outcome of each fault on every provider, with ``max_retry=0``; `outcome_of` has the few
exceptions. ``None`` in an outcome: undefined, because it depends on the random bytes."""

_EXCEPTIONS: Final[Mapping[tuple[Fault, Format], Outcome]] = {
    # Frames with checksums prove their type, so the declared type does not matter.
    (Fault.WRONG_CONTENT_TYPE, "bedrock"): Outcome(),
    (Fault.WRONG_CONTENT_TYPE, "bedrock-anthropic"): Outcome(),
}


@checked()
def outcome_of(fault: Fault, format: Format) -> Outcome:
    """The outcome of `fault` in a client of this `format`, with ``max_retry=0``."""
    return _EXCEPTIONS.get((fault, format)) or OUTCOMES[fault]
