"""A provider on the loopback interface that misbehaves on command.

It speaks the wire formats of OpenAI (Chat Completions and Responses), Anthropic, Gemini (events and
JSON array), Bedrock and Mistral, down to the byte, and chooses the format by the request's path.
Point a client's `base_url` at it, script what goes wrong, and see what your code does::

    async with FaultServer() as server:
        server.script(Fault.STATUS_503, Answer(text="Hello there"))
        llm = openai.LLM(model="any", api_key="any", base_url=server.url + "/v1")
        reply = await llm.chat(chat_ctx=chat_ctx).collect()
        assert reply.text == "Hello there"
        assert len(server.requests) == 2

`Fault` names everything that can go wrong; `OUTCOMES` lists how a client of this package handles
each fault. Nothing here sleeps: a stall lasts until the client disconnects or the server is closed.
"""

from __future__ import annotations

import asyncio
import email.utils
import random
import select
import socket
import ssl as ssl_module
import struct
import zlib
from collections import deque
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import replace
from types import TracebackType
from typing import Any, Final, Self

from rejoinder import _stamps
from rejoinder._options import PAUSE, checked
from rejoinder.testing._accepting import accept_no_more
from rejoinder.testing._dialects import DIALECTS, Call, Dialect, Format, Usage, format_of
from rejoinder.testing._fault_kinds import (
    GREETING,
    OUTCOMES,
    Answer,
    Choose,
    Fault,
    Outcome,
    ReceivedRequest,
    outcome_of,
)

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
        interval: seconds between the events of endless faults.
        sleep: the function that waits between them.
        default: the behaviour when the script is used up; a function chooses for each request.

    Attributes:
        requests: the requests so far, in order, including those still being answered. Requests
            that only warm up a connection (HEAD, OPTIONS) are counted in `warmups`.
        connections: how many connections were accepted in total.
        aborted: how many answers the client left before they were complete.
    """

    @checked(interval=PAUSE)
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
        """Append behaviours to the script; each of the next requests gets one."""
        self._script.extend(_answer(answer) for answer in answers)

    @checked()
    def always(self, answer: Answer | Fault | Choose) -> None:
        """Set the behaviour for every request after the script. A function chooses for each request,
        also for those redirected `elsewhere`."""
        self._default = answer if callable(answer) else _answer(answer)
        if callable(answer) and self._elsewhere is not None:
            self._elsewhere.always(answer)

    @property
    def unused(self) -> int:
        """Scripted answers that were not requested."""
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
        """Stop listening, close every connection and wait for their handlers."""
        if self._elsewhere is not None:
            await self._elsewhere.aclose()
        if self._server is not None:
            await accept_no_more(self._server.sockets)
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
        except RuntimeError:
            if not writer.is_closing():
                raise
            self.aborted += 1  # uvloop's transports refuse a write after the end
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
                # Make uvloop, too, write now and not at the end of the turn of the loop, when
                # the next request may wait: no client could recognise such a response.
                self.writer.transport.set_write_buffer_limits(high=0)
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
                # get it. A function answers every request.
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
        """Write one chunk of the body, so that the client reads it separately where possible."""
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
        """Let the client read what was sent, because a reset discards unread bytes."""
        for _ in range(20):
            await asyncio.sleep(0)
        await self.server._sleep(self.server._interval)

    def _asked_again(self) -> bool:
        """Whether the next request is already waiting; then anything sent would answer that one."""
        read: bytearray = getattr(self.reader, "_buffer", bytearray())  # asyncio reads ahead
        raw = self.writer.get_extra_info("socket")
        if raw is None or raw.fileno() < 0:  # closed
            return True
        return bool(read) or bool(select.select([raw], [], [], 0)[0])

    async def _stall(self) -> bool:
        """Send nothing until the client disconnects."""
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
        if raw is not None and raw.fileno() >= 0:  # uvloop has no socket after the end
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
