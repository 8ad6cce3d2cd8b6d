"""A connection without a network: two ends in one process, on the clock of the event loop.

With it, tests of deadlines need no real time: under ``looptime`` a timeout of 20 s passes at once.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable
from typing import Final, Protocol

from rejoinder.errors import APIConnectionError
from rejoinder.transport.ws import Closed, SocketRequest, WireFrame

__all__ = ["MemorySocket", "MemoryTransport", "Peer"]

_UNREAD: Final = 1024
"""Maximum number of undelivered frames before a sender has to wait."""


class Peer(Protocol):
    """The service's end of a connection."""

    @property
    def closed(self) -> bool: ...
    async def send(self, frame: WireFrame) -> None:
        """Send one frame. Does nothing if the connection has ended."""
        ...

    async def close(self, code: int, reason: str) -> None:
        """Close it with a close frame."""
        ...

    def drop(self) -> None:
        """Break it without a close frame."""
        ...


class MemorySocket:
    """The client's end, a `WebSocket`. The other end is `peer`; what it receives is in `sent`."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._arrived: deque[WireFrame] = deque()
        self._end: Closed | None = None
        self._changed = asyncio.Event()
        self.sent: asyncio.Queue[WireFrame | None] = asyncio.Queue(_UNREAD)
        self.heard_at = self._loop.time()
        self.peer = _MemoryPeer(self)

    async def send(self, frame: WireFrame) -> None:
        if self._end is None:
            await self.sent.put(frame)
        if self._end is not None:
            raise APIConnectionError("the connection has ended; a frame could not be sent")

    async def receive(self) -> WireFrame | Closed:
        while not self._arrived:
            if self._end is not None:
                return self._end
            self._changed.clear()
            await self._changed.wait()
        self.heard_at = self._loop.time()
        return self._arrived.popleft()

    async def ping(self) -> None:
        if not self.peer.mute:
            self.heard_at = self._loop.time()

    async def aclose(self, code: int = 1000) -> None:
        self._ended(Closed(code))

    def _arrive(self, frame: WireFrame) -> None:
        if self._end is None:
            self._arrived.append(frame)
            self._changed.set()

    def _ended(self, how: Closed) -> None:
        if self._end is not None:
            return
        self._end = how
        self._changed.set()
        while True:  # a waiting sender must see the end, and so must the service
            try:
                self.sent.put_nowait(None)
                return
            except asyncio.QueueFull:
                self.sent.get_nowait()

    @property
    def ended(self) -> bool:
        return self._end is not None


class _MemoryPeer:
    """See `Peer`. `mute`: pings are not answered."""

    def __init__(self, socket: MemorySocket) -> None:
        self._socket = socket
        self.mute = False

    @property
    def closed(self) -> bool:
        return self._socket.ended

    async def send(self, frame: WireFrame) -> None:
        self._socket._arrive(frame)
        await asyncio.sleep(0)

    async def close(self, code: int, reason: str) -> None:
        self._socket._ended(Closed(code, reason))

    def drop(self) -> None:
        self._socket._ended(Closed(None, "the connection was lost"))


class MemoryTransport:
    """Opens connections to a service in this process; a `WebSocketTransport`.

    Args:
        serve: serves one connection until it ends, in a task of its own.
        admit: called first; may raise an `APIError` to refuse the connection.
    """

    def __init__(
        self,
        serve: Callable[[MemorySocket, SocketRequest], Awaitable[None]],
        admit: Callable[[SocketRequest], None] | None = None,
    ) -> None:
        self._serve = serve
        self._admit = admit
        self._tasks: set[asyncio.Task[None]] = set()
        self._sockets: list[MemorySocket] = []

    async def connect(self, request: SocketRequest) -> MemorySocket:
        await asyncio.sleep(0)
        if self._admit is not None:
            self._admit(request)
        socket = MemorySocket()
        task = asyncio.ensure_future(_run(self._serve(socket, request)))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        self._sockets = [other for other in self._sockets if not other.ended]
        self._sockets.append(socket)
        return socket

    async def aclose(self) -> None:
        for socket in self._sockets:
            await socket.aclose()
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)


async def _run(work: Awaitable[None]) -> None:
    await work
