"""Pooled aiohttp connections: ensures that each response belongs to its request.

HTTP/1 responses have no ids: the next response on a connection belongs to the previous request. So an
unsolicited response would count as the response to the next request, and every later response would
belong to the wrong request. Four rules prevent that, as far as HTTP allows:

- A pooled connection is used only if nothing has arrived on it since its last response ended.
- It is checked again immediately before the first byte of the request is written. The bytes go to the
  kernel at once. This includes uvloop, which otherwise sends at the end of a turn of the loop (with
  TLS it may still do so).
- Bytes that arrive between the two checks are not a response, because no request was sent yet.
- Bytes that arrive before the peer has acknowledged a byte of the request are not a response either,
  because the peer's kernel acknowledges before its program can read. (Only Linux shows this.)

An unsolicited response that is sent while the request is already waiting at the peer cannot be
distinguished from the true one.
"""

from __future__ import annotations

import asyncio
import functools
import select
import socket as socket_module
import sys
from collections.abc import Callable
from typing import Any, Final

import aiohttp
from aiohttp.abc import AbstractStreamWriter
from aiohttp.connector import Connection

from rejoinder import _watch
from rejoinder._aio import within
from rejoinder.transport._aiohttp_push import PushingHandler
from rejoinder.transport._aiohttp_veil import VeiledRequest

__all__ = ["Connector", "NotSentError", "OneAnswerRequest", "UnaskedAnswerError"]

_NO_LIMITS: Final = aiohttp.ClientTimeout(total=None, connect=None, sock_read=None)


class NotSentError(aiohttp.ServerDisconnectedError):
    """The pooled connection was no longer usable, and nothing was written to it."""


class UnaskedAnswerError(aiohttp.ServerDisconnectedError):
    """The server sent something before it had a byte of the request."""


class Connector(aiohttp.TCPConnector):
    """Lends pooled connections by the rules above.

    It also limits the time for connecting by `within`. aiohttp's own timeout also counts the time in
    which the loop was blocked, so in a busy process it would fail for a fast server.
    """

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)  # pyright: ignore[reportUnknownMemberType]  aiohttp's own
        self._factory = functools.partial(_Handler, loop=self._loop)

    async def connect(
        self, req: aiohttp.ClientRequest, traces: Any, timeout: aiohttp.ClientTimeout
    ) -> Connection:
        _watch.note("connect")
        # A pooled connection is available at once, so it needs no limit, which would need a timer.
        # (For a proxy aiohttp has more to do.)
        while not req.proxy and (found := await self._get(req.connection_key, traces)) is not None:
            if self._is_good(found):
                return found
        async with within(timeout.connect):
            while True:
                connection = await super().connect(req, traces, _NO_LIMITS)
                if self._is_good(connection):
                    return connection

    def _is_good(self, connection: Connection) -> bool:
        handler = connection.protocol
        if isinstance(handler, _Handler) and not handler.lend():
            connection.close()
            return False
        reused = isinstance(handler, _Handler) and handler.reused
        _watch.note("connected", reused=reused)
        return True

    async def _resolve_host(self, *where: Any, **options: Any) -> Any:
        found: Any = await super()._resolve_host(*where, **options)  # pyright: ignore[reportUnknownMemberType]
        _watch.note("name")
        return found


class OneAnswerRequest(VeiledRequest):
    """Tells its connection when its bytes leave."""

    async def send(self, conn: Connection) -> aiohttp.ClientResponse:
        handler = conn.protocol
        # Without a body, aiohttp writes at once and does not call `write_bytes`.
        if isinstance(handler, _Handler) and not self.body and not handler.write_now():
            raise NotSentError
        return await super().send(conn)

    async def write_bytes(
        self, writer: AbstractStreamWriter, conn: Connection, content_length: int | None = None
    ) -> None:
        handler = conn.protocol
        if isinstance(handler, _Handler) and not handler.write_now():
            return
        await super().write_bytes(writer, conn, content_length)
        _watch.note("sent")


class _Handler(PushingHandler):
    """One connection. A request on a new connection needs no checks."""

    _used = False
    _written = False
    _acknowledged = 0
    _socket: Any = None
    """Its socket, once it is used a second time."""
    _has_unread: Callable[[], bool] = staticmethod(lambda: True)

    @property
    def reused(self) -> bool:
        """Whether it serves a later request than its first."""
        return self.watched

    def lend(self) -> bool:
        """Whether the connection can serve a request."""
        if not self._used:
            self._used = True
            return True
        if self._socket is None and not self._look_after():
            return False
        if self._was_disturbed():
            return False
        self.watched, self._written, self.rests = True, False, False
        return True

    def _look_after(self) -> bool:
        """Prepare what each further request needs."""
        transport = self.transport
        socket = None if transport is None else transport.get_extra_info("socket")
        if socket is None or socket.fileno() < 0:  # uvloop has no socket after the end
            return False
        self._socket = socket
        self._has_unread = _unread_in(socket.fileno())
        if isinstance(transport, asyncio.WriteTransport):
            transport.set_write_buffer_limits(high=0)  # so uvloop writes at once
        return True

    def write_now(self) -> bool:
        """Whether the request may be written. If so, the caller must write it at once."""
        if not self.watched:
            return not self._failed_unsent()
        if self._was_disturbed():
            self.watched = False
            self.set_exception(NotSentError())
            return False
        self._written = True
        self._acknowledged = _acknowledged(self._socket)
        return True

    def close(self) -> None:
        """Discard the connection. With TLS, a normal close would continue to read until the peer's
        close notification, up to half a minute."""
        transport = self.transport
        if transport is not None and transport.get_extra_info("sslcontext") is not None:
            transport.abort()
        super().close()

    def is_answer(self) -> bool:
        """Whether the first bytes on a pooled connection are the response to its request."""
        error = self._no_answer()
        if error is not None:
            self.set_exception(error)
            if self.transport is not None:
                self.transport.abort()
        return error is None

    def _no_answer(self) -> Exception | None:
        """Why the first bytes on a pooled connection are not the response to its request."""
        if not self._written:
            return NotSentError()
        if self._acknowledged and _acknowledged(self._socket) == self._acknowledged:
            return UnaskedAnswerError()
        return None

    def _failed_unsent(self) -> bool:
        return isinstance(self.exception(), NotSentError)

    def _was_disturbed(self) -> bool:
        """Whether anything has arrived since the last response ended."""
        transport = self.transport  # keeps its socket until it is closed
        return (
            self.should_close or transport is None or transport.is_closing() or self._has_unread()
        )


def _unread_in(number: int) -> Callable[[], bool]:
    """Whether unread bytes, or the end of the connection, wait in a socket."""
    if sys.platform == "win32":  # has no poll
        return lambda: bool(select.select([number], [], [], 0)[0])
    poll = select.poll()
    poll.register(number, select.POLLIN)
    return lambda: bool(poll.poll(0))


_BYTES_ACKNOWLEDGED: Final = slice(120, 128)
"""`tcpi_bytes_acked` in the `tcp_info` of Linux, from 4.1 on."""


def _acknowledged(socket: Any) -> int:
    """The number of bytes that the peer has acknowledged since the connection began; 0 if the system
    does not report it."""
    if sys.platform != "linux":
        return 0
    try:
        info = socket.getsockopt(socket_module.IPPROTO_TCP, socket_module.TCP_INFO, 128)
    except OSError:  # not TCP, or closed
        return 0
    return int.from_bytes(info[_BYTES_ACKNOWLEDGED], sys.byteorder)
