"""A WebSocket without a network, for tests in which time jumps."""

from __future__ import annotations

import asyncio
import json
from typing import Any

from rejoinder.transport.ws import Closed, SocketRequest, WebSocket, WireFrame


class MemorySocket:
    """One connection; the test is its server.

    Attributes:
        sent: what the client sent, with the loop's time.
        pong: seconds until a ping is answered; ``None``: never.
    """

    def __init__(self, pong: float | None, *, answers: bool = True) -> None:
        self._loop = asyncio.get_running_loop()
        self.heard_at = self._loop.time()
        self.sent: list[tuple[float, dict[str, Any]]] = []
        self.closed_at: float | None = None
        self.pong = pong
        self.pings = 0
        self._answers = answers
        self._inbox: asyncio.Queue[WireFrame | Closed] = asyncio.Queue()

    async def send(self, frame: WireFrame) -> None:
        event = json.loads(frame)
        self.sent.append((self._loop.time(), event))
        if "setup" in event and self._answers:
            self.say(setupComplete={})

    def say(self, **message: Any) -> None:
        """Send a message to the client."""
        self.heard_at = self._loop.time()
        self._inbox.put_nowait(json.dumps(message).encode())

    def end(self, code: int | None, reason: str = "") -> None:
        self._inbox.put_nowait(Closed(code, reason))

    async def receive(self) -> WireFrame | Closed:
        return await self._inbox.get()

    async def ping(self) -> None:
        self.pings += 1
        if self.pong is not None:
            self._loop.call_later(self.pong, self._heard)

    def _heard(self) -> None:
        self.heard_at = self._loop.time()

    async def aclose(self, code: int = 1000) -> None:
        if self.closed_at is None:
            self.closed_at = self._loop.time()
        self._inbox.put_nowait(Closed(code))


class MemoryTransport:
    """Opens connections to the test."""

    def __init__(self, *, pong: float | None = 0.1, handshake: float = 0.05) -> None:
        self.sockets: list[MemorySocket] = []
        self.requests: list[tuple[float, SocketRequest]] = []
        self.answers = True
        self._pong = pong
        self._handshake = handshake

    async def connect(self, request: SocketRequest) -> WebSocket:
        self.requests.append((asyncio.get_running_loop().time(), request))
        await asyncio.sleep(self._handshake)
        socket = MemorySocket(self._pong, answers=self.answers)
        self.sockets.append(socket)
        return socket

    async def aclose(self) -> None: ...
