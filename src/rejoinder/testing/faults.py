"""A provider on the loopback interface that misbehaves on command.

It speaks the wire formats of OpenAI (Chat Completions and Responses), Anthropic, Gemini (events and
JSON array), Bedrock and Mistral, down to the byte, and picks the format by the address that is
asked. Point a client's `base_url` at it, say what shall go wrong, and see what your code does::

    async with FaultServer() as server:
        server.script(Fault.STATUS_503, Answer(text="Hello there"))
        llm = openai.LLM(model="any", api_key="any", base_url=server.url + "/v1")
        reply = await llm.chat(chat_ctx=chat_ctx).collect()
        assert reply.text == "Hello there"
        assert len(server.requests) == 2

`Fault` names everything that can go wrong, `OUTCOMES` says what a client of this package makes of
it. Nothing here sleeps: a stall waits until the client goes away or the server is closed.
"""

from __future__ import annotations

import asyncio
import email.utils
import json
import random
import select
import socket
import ssl as ssl_module
import struct
import zlib
from collections import deque
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import StrEnum
from types import TracebackType
from typing import Any, Final, Self, TypeAlias

from rejoinder import _stamps
from rejoinder._options import AMOUNT, WHOLE, check_fields, checked
from rejoinder.errors import (
    APIConnectionError,
    APIError,
    APIStatusError,
    APITimeoutError,
    EmptyResponseError,
    WireError,
)
from rejoinder.testing._dialects import DIALECTS, Call, Dialect, Format, Usage, format_of

__all__ = [
    "OUTCOMES",
    "Answer",
    "Call",
    "Fault",
    "FaultServer",
    "Format",
    "Outcome",
    "ReceivedRequest",
    "Usage",
    "outcome_of",
]


class Fault(StrEnum):
    """What the server does to a request. The value is the name in test ids and in the docs."""

    NONE = "none"
    """A proper answer."""
    BYTE_DRIP = "byte_drip"
    """A proper answer, every byte in a read of its own."""
    ONE_WRITE = "one_write"
    """A proper answer, all of it in one read."""
    GZIP = "gzip"
    """A proper answer, compressed."""
    CONTENT_LENGTH = "content_length"
    """A proper answer whose length is told beforehand."""
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
    """A proper answer; a moment later, unasked, the same one again on the idle connection."""

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
    """The request is read, and nothing is answered."""
    STALL_BEFORE_OUTPUT = "stall_before_output"
    """The opening events, then silence."""
    STALL_MID_STREAM = "stall_mid_stream"
    """Some text, then silence."""
    KEEP_ALIVES_FOR_EVER = "keep_alives_for_ever"
    """Keep-alives and nothing else, for ever."""
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
    """Status 200 and nothing."""
    EMPTY_REPLY = "empty_reply"
    """A proper stream that reports usage and says nothing."""
    REDIRECT_LOOP = "redirect_loop"
    """307 to a place that answers 307 to itself."""
    REDIRECT_AWAY = "redirect_away"
    """307 to another origin (`FaultServer.elsewhere`)."""


GREETING: Final = ("Hello", " wörld", " 👋.")
"""What a server says that was told nothing else."""


@dataclass(frozen=True, slots=True)
class Answer:
    """What the server answers to one request.

    Args:
        text: a text, sent as one event, or several pieces, an event each. By default none; an
            answer with a fault and nothing else has some, so that there is something to disturb.
        calls: tool calls, after the text.
        thinking: visible reasoning, before the text; left out where a format has none.
        usage: tokens reported.
        fault: what goes wrong.
        after: outputs that are sent before a fault in mid-stream.
        status: for your own errors: this status with an error object of the format.
        message: text of error objects.
        headers: further header fields.
        format: the wire format; ``None`` goes by the address.
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
    """What a client of this package makes of a fault, when it does not try again.

    `errors`: the error is an instance of one of these; empty: the reply is good. `text`: whether
    some text reaches the consumer before the error; then nothing is retried, and the error's
    `retryable` is false whatever it is by itself.
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
"""What each fault leads to, on every provider, with ``max_retry=0``; `outcome_of` knows the few
exceptions. ``None`` in an outcome: not fixed, because it depends on what the bytes happen to be."""

_EXCEPTIONS: Final[Mapping[tuple[Fault, Format], Outcome]] = {
    # Frames with checksums prove what they are; the label is not asked.
    (Fault.WRONG_CONTENT_TYPE, "bedrock"): Outcome(),
    (Fault.WRONG_CONTENT_TYPE, "bedrock-anthropic"): Outcome(),
}


@checked()
def outcome_of(fault: Fault, format: Format) -> Outcome:
    """What `fault` leads to in a client of this `format`, with ``max_retry=0``."""
    return _EXCEPTIONS.get((fault, format)) or OUTCOMES[fault]


_STATUS: Final = {
    Fault.STATUS_400: 400,
    Fault.STATUS_401: 401,
    Fault.STATUS_403: 403,
    Fault.STATUS_404: 404,
    Fault.STATUS_408: 408,
    Fault.STATUS_409: 409,
    Fault.STATUS_413: 413,
    Fault.STATUS_422: 422,
    Fault.STATUS_429: 429,
    Fault.STATUS_500: 500,
    Fault.STATUS_503: 503,
    Fault.STATUS_529: 529,
    Fault.RETRY_AFTER_SECONDS: 429,
    Fault.RETRY_AFTER_DATE: 503,
    Fault.RETRY_AFTER_MS: 429,
}
_PAGE: Final = (
    b"<!DOCTYPE html><html><head><title>Bad gateway</title></head><body>...</body></html>"
)
_LOOP: Final = "/scripted/redirect/loop"
_MAX_HEAD: Final = 1 << 16
_BLOCK: Final = 1 << 16


class FaultServer:
    """The server. An async context manager; leaving it closes every connection.

    Args:
        ssl: serve HTTPS with this context.
        interval: seconds between the events of the faults that go on for ever.
        sleep: how it waits for them.
        default: what requests get when the script is used up; a function chooses for each.

    Attributes:
        requests: the requests that were answered or are being answered, in order. Those that
            only warm a connection up (HEAD, OPTIONS) are counted in `warmups`.
        connections: how many connections were ever made.
        aborted: how many answers the client left before they were complete.
    """

    @checked(interval=AMOUNT)
    def __init__(
        self,
        *,
        ssl: ssl_module.SSLContext | None = None,
        interval: float = 0.005,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
        default: Answer | Fault | Choose = Fault.NONE,
    ) -> None:
        self.requests: list[ReceivedRequest] = []
        self.warmups = 0
        self.connections = 0
        self.aborted = 0
        self._ssl = ssl
        self._interval = interval
        self._sleep = sleep
        self._default = default if callable(default) else _answer(default)
        self._script: deque[Answer] = deque()
        self._server: asyncio.Server | None = None
        self._elsewhere: FaultServer | None = None
        self._handlers: set[asyncio.Task[None]] = set()
        self._quiet = asyncio.Event()
        self._quiet.set()

    # -- commands ----------------------------------------------------------------------------

    def script(self, *answers: Answer | Fault) -> None:
        """What the next requests get, one each, after what was scripted before."""
        self._script.extend(_answer(answer) for answer in answers)

    @checked()
    def always(self, answer: Answer | Fault | Choose) -> None:
        """What every request gets once the script is used up; a function chooses for each, also for
        those that are redirected `elsewhere`."""
        self._default = answer if callable(answer) else _answer(answer)
        if callable(answer) and self._elsewhere is not None:
            self._elsewhere.always(answer)

    @property
    def unused(self) -> int:
        """Scripted answers that nobody asked for."""
        return len(self._script)

    @property
    def open_connections(self) -> int:
        return len(self._handlers)

    @property
    def url(self) -> str:
        """``http://127.0.0.1:port``, without a slash at its end."""
        if self._server is None:
            raise RuntimeError(
                "the server does not run; use it by `async with FaultServer() as ...`"
            )
        port = self._server.sockets[0].getsockname()[1]
        return f"{'http' if self._ssl is None else 'https'}://127.0.0.1:{port}"

    @property
    def elsewhere(self) -> FaultServer:
        """A second server on another port, the target of `Fault.REDIRECT_AWAY`."""
        if self._elsewhere is None:
            raise RuntimeError(
                "the server does not run; use it by `async with FaultServer() as ...`"
            )
        return self._elsewhere

    async def all_closed(self) -> None:
        """Wait until the client has closed every connection."""
        await self._quiet.wait()

    async def start(self) -> None:
        self._server = await asyncio.start_server(
            self._serve, "127.0.0.1", 0, ssl=self._ssl, limit=_MAX_HEAD
        )

    async def aclose(self) -> None:
        """Stop listening, close every connection and wait for what served them."""
        if self._elsewhere is not None:
            await self._elsewhere.aclose()
        if self._server is not None:
            self._server.close()
        handlers = list(self._handlers)
        for handler in handlers:
            handler.cancel()
        await asyncio.gather(*handlers, return_exceptions=True)
        if self._server is not None:
            await self._server.wait_closed()
            self._server = None

    async def __aenter__(self) -> Self:
        await self.start()
        self._elsewhere = FaultServer(ssl=self._ssl, interval=self._interval, sleep=self._sleep)
        if callable(self._default):
            self._elsewhere.always(self._default)
        await self._elsewhere.start()
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.aclose()

    # -- serving -----------------------------------------------------------------------------

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        if task is None:
            raise RuntimeError("connections are served by tasks")
        self._handlers.add(task)
        self._quiet.clear()
        self.connections += 1
        try:
            while await self._serve_one(reader, writer):
                pass
        except asyncio.CancelledError:
            pass  # the server is closing, which is a good end for this task
        except (OSError, asyncio.IncompleteReadError, asyncio.LimitOverrunError):
            self.aborted += 1
        finally:
            writer.transport.abort()
            self._handlers.discard(task)
            if not self._handlers:
                self._quiet.set()

    async def _serve_one(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        """Read and answer one request. Returns whether another can follow."""
        request = await _read_request(reader)
        if request is None:
            return False
        if request.method in ("HEAD", "OPTIONS", "GET"):
            self.warmups += 1
            writer.write(b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n")
            await writer.drain()
            return True
        self.requests.append(request)
        if request.path == _LOOP:
            writer.write(_head(307, {"Location": _LOOP, "Content-Length": "0"}))
            await writer.drain()
            return True
        if self._script:
            answer = self._script.popleft()
        else:
            answer = self._default(request) if callable(self._default) else self._default
        dialect = DIALECTS[answer.format or format_of(request.path)]
        return await _Exchange(self, reader, writer, answer, dialect, request).run()


class _Exchange:
    """One answer."""

    def __init__(
        self,
        server: FaultServer,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        answer: Answer,
        dialect: Dialect,
        request: ReceivedRequest,
    ) -> None:
        self.server = server
        self.reader = reader
        self.writer = writer
        self.answer = answer
        self.dialect = dialect
        self.request = request
        self.first = True
        self.compressor: Any = None

    async def run(self) -> bool:
        answer = self.answer
        fault = answer.fault
        if answer.status is not None:
            return await self._error(answer.status)
        if fault in _STATUS:
            return await self._error(_STATUS[fault])
        parts = self.dialect.render(
            answer.pieces, tuple(answer.calls), answer.thinking, answer.usage
        )
        everything = [*parts.opening, *parts.outputs, *parts.closing]
        some = [*parts.opening, *parts.outputs[: answer.after]]
        rest = [*parts.outputs[answer.after :], *parts.closing]
        match fault:
            case Fault.NONE:
                await self._head()
                await self._events(everything)
                return await self._end()
            case Fault.BYTE_DRIP:
                await self._head()
                body = self._joined(everything)
                for index in range(len(body)):
                    await self._write(body[index : index + 1])
                    await asyncio.sleep(0)
                return await self._end(b"")
            case Fault.ONE_WRITE:
                await self._head()
                await self._write(self._joined(everything))
                return await self._end(b"")
            case Fault.GZIP:
                await self._head(extra={"Content-Encoding": "gzip"})
                self.compressor = zlib.compressobj(wbits=31)
                await self._events(everything)
                return await self._end()
            case Fault.CONTENT_LENGTH:
                return await self._whole(200, self._joined(everything), self.dialect.content_type)
            case Fault.UNTIL_CLOSE:
                self.writer.write(
                    b"HTTP/1.0 200 OK\r\nContent-Type: "
                    + self.dialect.content_type.encode()
                    + b"\r\n\r\n"
                    + self._joined(everything)
                )
                await self.writer.drain()
                return await self._close()
            case Fault.KEEP_ALIVES:
                await self._head()
                for event in everything:
                    await self._write(self.dialect.keep_alive)
                    await self._events([event])
                return await self._end()
            case Fault.UNKNOWN_EVENTS:
                await self._head()
                for event in everything[:-1]:
                    await self._events([self.dialect.unknown, event])
                await self._events(everything[-1:])
                return await self._end()
            case Fault.HANG_AFTER_END:
                await self._head()
                await self._write(self._joined(everything))
                return await self._stall()
            case Fault.RESET_AFTER_END:
                await self._head()
                await self._write(self._joined(everything))
                await self._taken()
                return self._reset()
            case Fault.UNASKED_ANSWER:
                await self._head()
                await self._write(self._joined(everything))
                await self._end()
                await self._taken()
                if not self.reader.at_eof() and not self._asked_again():
                    body = self._joined(everything)
                    fields = {
                        "Content-Type": self.dialect.content_type,
                        "Content-Length": len(body),
                    }
                    self.writer.write(_head(200, {k: str(v) for k, v in fields.items()}) + body)
                return True
            case Fault.STATUS_502_HTML:
                return await self._whole(502, _PAGE, "text/html")
            case Fault.STATUS_504_EMPTY:
                return await self._whole(504, b"", "")
            case Fault.ENDLESS_ERROR_BODY:
                await self._head(500, "text/plain")
                return await self._for_ever(b"x" * _BLOCK, pause=False)
            case Fault.STALL_BEFORE_HEADERS:
                return await self._stall()
            case Fault.STALL_BEFORE_OUTPUT:
                await self._head()
                await self._events(parts.opening)
                return await self._stall()
            case Fault.STALL_MID_STREAM:
                await self._head()
                await self._events(some)
                return await self._stall()
            case Fault.KEEP_ALIVES_FOR_EVER:
                await self._head()
                return await self._for_ever(self.dialect.keep_alive)
            case Fault.KEEP_ALIVES_MID_STREAM:
                await self._head()
                await self._events(some)
                return await self._for_ever(self.dialect.keep_alive)
            case Fault.ROLE_ONLY_FOR_EVER:
                await self._head()
                await self._events(parts.opening)
                return await self._for_ever(self.dialect.nothing, event=True)
            case Fault.USAGE_ONLY_FOR_EVER:
                await self._head()
                await self._events(parts.opening)
                return await self._for_ever(self.dialect.counting(answer.usage), event=True)
            case Fault.CLOSE_BEFORE_HEADERS:
                return await self._close()
            case Fault.RESET_BEFORE_HEADERS:
                return self._reset()
            case Fault.RESET_BEFORE_OUTPUT:
                await self._head()
                await self._events(parts.opening)
                await self._taken()
                return self._reset()
            case Fault.RESET_MID_STREAM:
                await self._head()
                await self._events(some)
                await self._taken()
                return self._reset()
            case Fault.CLOSE_BEFORE_OUTPUT:
                await self._head()
                await self._events(parts.opening)
                return await self._end(b"")
            case Fault.CLOSE_MID_STREAM:
                await self._head()
                await self._events(some)
                return await self._end(b"")
            case Fault.CUT_CHUNKED_BODY:
                await self._head()
                await self._events(some)
                event = rest[0]
                self.writer.write(f"{len(event):x}\r\n".encode() + event[: len(event) // 2])
                await self.writer.drain()
                return await self._close()
            case Fault.NOT_HTTP:
                self.writer.write(b"SSH-2.0-OpenSSH_9.6\r\n\r\n")
                await self.writer.drain()
                return await self._close()
            case Fault.TRUNCATED_JSON:
                await self._head()
                await self._events(some)
                event = (b"" if self.first else self.dialect.frame[1]) + rest[0]
                await self._write(event[: len(event) * 2 // 3])
                return await self._end(b"")
            case Fault.INVALID_JSON:
                await self._head()
                await self._events([*some, self.dialect.broken, *rest])
                return await self._end()
            case Fault.ERROR_EVENT:
                await self._head()
                await self._events([*parts.opening, self.dialect.error_event()])
                return await self._end()
            case Fault.ERROR_EVENT_MID_STREAM:
                await self._head()
                await self._events([*some, self.dialect.error_event()])
                return await self._end()
            case Fault.HTML_200:
                return await self._whole(200, _PAGE, "text/html; charset=utf-8")
            case Fault.JSON_ERROR_200:
                body, _ = self.dialect.error_body(500, answer.message)
                return await self._whole(200, body, "application/json")
            case Fault.WRONG_CONTENT_TYPE:
                await self._head(content_type="image/png")
                await self._events(everything)
                return await self._end()
            case Fault.GARBAGE:
                await self._head()
                await self._write(random.Random(7).randbytes(20_000))  # noqa: S311  repeatable
                return await self._end(b"")
            case Fault.ENDLESS_LINE:
                await self._head()
                start, filler = self.dialect.endless
                await self._events([start])
                return await self._for_ever(filler * _BLOCK, pause=False)
            case Fault.GZIP_BOMB:
                await self._head(extra={"Content-Encoding": "gzip"})
                self.compressor = zlib.compressobj(wbits=31)
                start, filler = self.dialect.endless
                await self._events([start])
                return await self._for_ever(filler * (_BLOCK * 16), pause=False)
            case Fault.EMPTY_BODY:
                return await self._whole(200, b"", self.dialect.content_type)
            case Fault.EMPTY_REPLY:
                await self._head()
                await self._events([*parts.opening, *parts.usage_only])
                return await self._end()
            case Fault.REDIRECT_LOOP:
                return await self._whole(307, b"", "", {"Location": _LOOP})
            case Fault.REDIRECT_AWAY:
                away = self.server.elsewhere
                # A client that leaves now never asks for what is scripted there; the next one would
                # get it. A function answers whoever comes.
                if not callable(self.server._default):
                    away.script(replace(answer, fault=Fault.NONE))
                return await self._whole(307, b"", "", {"Location": away.url + self.request.path})
            case _:
                raise AssertionError(f"no behaviour for {fault!r}")

    # -- pieces of HTTP ----------------------------------------------------------------------

    async def _head(
        self,
        status: int = 200,
        content_type: str | None = None,
        extra: Mapping[str, str] | None = None,
    ) -> None:
        fields = {
            "Content-Type": content_type or self.dialect.content_type,
            "Transfer-Encoding": "chunked",
            **(extra or {}),
            **self.answer.headers,
        }
        self.writer.write(_head(status, fields))
        await self.writer.drain()

    async def _whole(
        self,
        status: int,
        body: bytes,
        content_type: str,
        extra: Mapping[str, str] | None = None,
    ) -> bool:
        fields = {"Content-Length": str(len(body)), **(extra or {}), **self.answer.headers}
        if content_type:
            fields["Content-Type"] = content_type
        self.writer.write(_head(status, fields) + body)
        await self.writer.drain()
        return True

    async def _error(self, status: int) -> bool:
        body, extra = self.dialect.error_body(status, self.answer.message)
        match self.answer.fault:
            case Fault.RETRY_AFTER_SECONDS:
                extra["Retry-After"] = "2"
            case Fault.RETRY_AFTER_MS:
                extra["retry-after-ms"] = "1500"
            case Fault.RETRY_AFTER_DATE:
                extra["Retry-After"] = email.utils.formatdate(_stamps.wall_now() + 2, usegmt=True)
            case _:
                pass
        return await self._whole(status, body, "application/json", extra)

    async def _events(self, events: list[bytes]) -> None:
        opening, between, _ = self.dialect.frame
        for event in events:
            await self._write((opening if self.first else between) + event)
            self.first = False

    def _joined(self, events: list[bytes]) -> bytes:
        opening, between, ending = self.dialect.frame
        return opening + between.join(events) + ending

    async def _write(self, data: bytes) -> None:
        """One chunk of the body, in a read of its own wherever the network lets it."""
        if self.compressor is not None:
            data = self.compressor.compress(data) + self.compressor.flush(zlib.Z_SYNC_FLUSH)
        if data:
            self.writer.write(f"{len(data):x}\r\n".encode() + data + b"\r\n")
            await self.writer.drain()

    async def _end(self, ending: bytes | None = None) -> bool:
        ending = self.dialect.frame[2] if ending is None else ending
        if ending:
            await self._write(ending)
        if self.compressor is not None:
            data = self.compressor.flush()
            self.writer.write(f"{len(data):x}\r\n".encode() + data + b"\r\n")
        self.writer.write(b"0\r\n\r\n")
        await self.writer.drain()
        return True

    async def _taken(self) -> None:
        """Give the client the chance to read what was sent: a reset discards the rest."""
        for _ in range(20):
            await asyncio.sleep(0)
        await self.server._sleep(self.server._interval)

    def _asked_again(self) -> bool:
        """Whether the next request waits to be read: then what is sent would answer it."""
        read: bytearray = getattr(self.reader, "_buffer", bytearray())  # asyncio reads ahead
        raw = self.writer.get_extra_info("socket")
        return bool(read) or raw.fileno() < 0 or bool(select.select([raw], [], [], 0)[0])

    async def _stall(self) -> bool:
        """Say nothing until the client goes away."""
        while await self.reader.read(_BLOCK):
            pass
        self.server.aborted += 1
        return False

    async def _for_ever(self, data: bytes, *, event: bool = False, pause: bool = True) -> bool:
        while not self.reader.at_eof():
            if event:
                await self._events([data])
            else:
                await self._write(data)
            if pause:
                await self.server._sleep(self.server._interval)
            else:
                await asyncio.sleep(0)
        self.server.aborted += 1
        return False

    async def _close(self) -> bool:
        """A FIN, not a reset: everything that was sent arrives."""
        if self.writer.can_write_eof():
            self.writer.write_eof()
            while await self.reader.read(_BLOCK):
                pass
        else:
            self.writer.close()
            await self.writer.wait_closed()
        return False

    def _reset(self) -> bool:
        raw = self.writer.get_extra_info("socket")
        raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.writer.transport.abort()
        return False


def _answer(value: Answer | Fault) -> Answer:
    return value if isinstance(value, Answer) else Answer(text=GREETING, fault=value)


def _head(status: int, fields: Mapping[str, str]) -> bytes:
    lines = [f"HTTP/1.1 {status} Scripted", *(f"{name}: {value}" for name, value in fields.items())]
    return ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1")


async def _read_request(reader: asyncio.StreamReader) -> ReceivedRequest | None:
    try:
        head = await reader.readuntil(b"\r\n\r\n")
    except asyncio.IncompleteReadError:
        return None  # the client has closed an idle connection
    first, *lines = head.decode("latin-1").split("\r\n")
    method, path, _ = first.split(" ", 2)
    headers: dict[str, str] = {}
    for line in lines:
        name, colon, value = line.partition(":")
        if colon:
            headers[name.strip().lower()] = value.strip()
    if headers.get("transfer-encoding", "").lower() == "chunked":
        body = await _read_chunked(reader)
    else:
        body = await reader.readexactly(int(headers.get("content-length", "0")))
    return ReceivedRequest(method, path, headers, body)


async def _read_chunked(reader: asyncio.StreamReader) -> bytes:
    body = bytearray()
    while True:
        size = int((await reader.readuntil(b"\r\n")).split(b";")[0], 16)
        body += (await reader.readexactly(size + 2))[:-2]
        if size == 0:
            return bytes(body)
