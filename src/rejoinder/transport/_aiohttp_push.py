"""Passes the bytes of a body on in the callback of the socket, with aiohttp.

Usually, aiohttp wakes a task for each read, and the task takes the bytes. That is half the cost of a
chunk of a slow stream. Here, the reader of a body gives the bytes directly to a function, and the task
sleeps until the body ends or fails, or the function wants no more.

aiohttp has no such interface, so its `StreamReader` gets another class while a body is read. The task
waits for the future that `StreamReader` resolves at the end of a body, or with its error. `works` tests
whether this is possible with the installed aiohttp; if not, bodies are read as usual.
"""

from __future__ import annotations

import asyncio
import collections
import functools
from collections.abc import Callable
from typing import Any, Final, cast

from aiohttp import StreamReader
from aiohttp.base_protocol import BaseProtocol
from aiohttp.client_proto import ResponseHandler

__all__ = ["PushingHandler", "PushingReader", "Take", "can_push", "push", "works"]

Take = Callable[[bytes], bool]
"""Takes bytes, and returns whether it wants more."""


_MUCH: Final = 1 << 12
"""Minimum number of unread bytes at which aiohttp's parser may pause: it pauses when more chunks than
this are unread."""

_Outcome = Exception | bool | None
"""None: the body has ended. False: `take` wants no more. An exception: what `take` raised."""


class _Wanted(asyncio.Future[_Outcome]):
    """Done when the body has ended or failed, or when `take` wants no more."""

    __slots__ = ("first", "pieces", "resumes", "take")

    take: Take
    resumes: bool
    """aiohttp's parser may pause in the middle of a read, and then has to be resumed."""
    first: bool
    """The next piece is the first of a socket read. Usually it is the only one."""
    pieces: list[bytes] | None
    """The further pieces of a socket read, if its end is known: fast servers put many small chunks
    into one packet."""


class PushingHandler(ResponseHandler):
    """A connection that notifies its `PushingReader` at the end of each socket read.

    If much of a body is unread, the reader asks aiohttp to pause, and the parser pauses at the next
    piece of the body. By then everything may have been read, and the bytes after that piece would
    wait for the next read of the socket.

    Attributes:
        watched: the next bytes are read only if `is_answer`.
        rests: aiohttp was asked to pause while it read this response.
    """

    watched = False
    rests = False

    def is_answer(self) -> bool:
        return True

    def pause_reading(self) -> None:
        self.rests = True
        super().pause_reading()

    def resume_reading(self, *args: Any, **options: Any) -> None:
        # aiohttp calls this for each piece that is read, and looks for more to parse each time.
        if self.rests:
            super().resume_reading(*args, **options)

    def data_received(self, data: bytes) -> None:
        if self.watched:
            self.watched = False
            if not self.is_answer():
                return
        content = self._payload
        wanted = content._eof_waiter if type(content) is PushingReader else None
        if type(wanted) is not _Wanted:
            ResponseHandler.data_received(self, data)
            return
        wanted.first = True
        ResponseHandler.data_received(
            self, data
        )  # `super()` costs more, and this runs for every chunk
        if self.rests:
            ResponseHandler.data_received(self, b"")
        if wanted.pieces:
            cast("PushingReader", content).flush()


class PushingReader(StreamReader):
    """Passes bytes on while a `_Wanted` waits; otherwise buffers them like its base class."""

    __slots__ = ()  # the same layout: an object can change its class

    _eof_waiter: asyncio.Future[Any] | None
    _http_chunk_splits: collections.deque[int] | None
    _cursor: int
    total_bytes: int

    def feed_data(self, data: bytes, size: int = 0) -> bool:
        wanted = self._eof_waiter
        if type(wanted) is not _Wanted or wanted.done():
            return super().feed_data(data, size)
        if data:
            # Count these bytes as read, because the reader measures later ones from here.
            self.total_bytes += len(data)
            self._cursor = self.total_bytes
            if wanted.first or wanted.pieces is None:
                wanted.first = False
                # Inlined `_hand_over`: this runs for every chunk, and the call would cost more than its body.
                try:
                    if not wanted.take(data):
                        wanted.set_result(False)
                except Exception as error:
                    wanted.set_result(error)
            else:
                wanted.pieces.append(data)
            if wanted.resumes:
                self._loop.call_soon(self._protocol.resume_reading)
        return False

    def flush(self) -> None:
        wanted = self._eof_waiter
        if type(wanted) is _Wanted and wanted.pieces and not wanted.done():
            pieces = wanted.pieces
            data = pieces.pop() if len(pieces) == 1 else b"".join(pieces)
            pieces.clear()
            _hand_over(wanted, data)

    def feed_eof(self) -> None:
        self.flush()
        super().feed_eof()

    def set_exception(self, exc: BaseException, exc_cause: BaseException | None = None) -> None:
        self.flush()
        if exc_cause is None:
            super().set_exception(exc)
        else:
            super().set_exception(exc, exc_cause)

    def begin_http_chunk_receiving(self) -> None:
        if self._http_chunk_splits is None:
            self._http_chunk_splits = collections.deque()

    def end_http_chunk_receiving(self) -> None:
        if type(self._eof_waiter) is not _Wanted:
            super().end_http_chunk_receiving()


def _wanted(
    take: Take, loop: asyncio.AbstractEventLoop, protocol: BaseProtocol | None = None
) -> _Wanted:
    wanted = _Wanted(loop=loop)
    wanted.take = take
    wanted.first = wanted.resumes = False
    wanted.pieces = [] if isinstance(protocol, PushingHandler) else None
    return wanted


def _hand_over(wanted: _Wanted, data: bytes) -> None:
    try:
        if not wanted.take(data):
            wanted.set_result(False)
    except Exception as error:  # aiohttp would treat it as a broken body
        wanted.set_result(error)


async def push(content: StreamReader, take: Take) -> Exception | bool | None:
    """Pass each piece of `content` to `take`, in the callback of the socket, until it returns False
    or the body ends. Only if `can_push` returned True.

    Returns:
        ``None`` at the end of the body, False if `take` wants no more, or the exception of `take`.

    Raises:
        Exception: what reading from `content` raises.
    """
    reader = _as_pushing(content)
    protocol = reader._protocol
    wanted = _wanted(take, asyncio.get_running_loop(), protocol)
    # The connections of a user's own session do not report a pause, so infer it from the size.
    wanted.resumes = wanted.pieces is None and reader.total_bytes > _MUCH
    reader._eof_waiter = wanted
    try:
        return await wanted
    finally:
        if reader._eof_waiter is wanted:
            reader._eof_waiter = None


def _as_pushing(content: StreamReader) -> PushingReader:
    content.__class__ = PushingReader
    return cast("PushingReader", content)


def can_push(content: StreamReader) -> bool:
    """Whether `content` is still open, has nothing buffered, and can be given to `push`."""
    return (
        type(content) in _KNOWN
        and not content._buffer
        and not content._eof
        and content._exception is None
        and content._protocol.connected
        and works()
    )


_KNOWN: Final = (StreamReader, PushingReader)


@functools.cache
def works() -> bool:
    """Whether bodies can be pushed with the installed aiohttp. Reads a small response with aiohttp's own
    parser, first pushed, then as usual. Needs a running loop."""
    try:
        return _read_as_expected(asyncio.get_running_loop())
    except Exception:  # an internal of aiohttp differs
        return False


def _read_as_expected(loop: asyncio.AbstractEventLoop) -> bool:
    handler = ResponseHandler(loop)
    handler.set_response_params(timer=None, read_until_eof=True, auto_decompress=True)
    handler.data_received(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
    content = handler._payload
    if type(content) is not StreamReader:
        return False
    seen: list[bytes] = []

    def take(data: bytes) -> bool:
        seen.append(data)
        return False

    _as_pushing(content)._eof_waiter = wanted = _wanted(take, loop)
    handler.data_received(b"1\r\na\r\n")
    pushed = wanted.done() and seen == [b"a"] and not content._buffer
    handler.data_received(b"1\r\nb\r\n")
    _as_pushing(content)._eof_waiter = ending = _wanted(take, loop)
    handler.data_received(b"0\r\n\r\n")
    return pushed and content.read_nowait() == b"b" and ending.done() and content.at_eof()
