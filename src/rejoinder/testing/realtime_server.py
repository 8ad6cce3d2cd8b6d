"""A realtime service on the loopback interface.

    async with RealtimeServer() as server:
        server.say("Hello there.")
        model = openai.realtime.RealtimeModel(base_url=server.url, api_key="any")

See `RealtimeService` for its replies and its faults.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Awaitable, Callable
from types import TracebackType
from typing import Self

from aiohttp import WSMsgType, web

from rejoinder.testing._accepting import accept_no_more
from rejoinder.testing.realtime_connection import Handler, RealtimeConnection
from rejoinder.testing.realtime_service import RealtimeService
from rejoinder.transport.ws import WireFrame

__all__ = ["RealtimeServer"]


class _AiohttpPeer:
    def __init__(
        self, socket: web.WebSocketResponse, transport: asyncio.BaseTransport | None
    ) -> None:
        self._socket = socket
        self._transport = transport

    @property
    def closed(self) -> bool:
        return self._socket.closed

    async def send(self, frame: WireFrame) -> None:
        if isinstance(frame, str):
            await self._socket.send_str(frame)
        else:
            await self._socket.send_bytes(frame)

    async def close(self, code: int, reason: str) -> None:
        await self._socket.close(code=code, message=reason.encode())

    def drop(self) -> None:
        if isinstance(self._transport, asyncio.Transport):
            self._transport.abort()


class RealtimeServer(RealtimeService):
    """A `RealtimeService` that any client can connect to. Use it by ``async with``.

    Attributes:
        url: its address, for ``base_url``.
        requests: the upgrade requests.
    """

    def __init__(
        self,
        *,
        beta: bool = False,
        on_event: Handler | None = None,
        on_connect: Callable[[RealtimeConnection], Awaitable[None]] | None = None,
        refuse: int | None = None,
        connection: type[RealtimeConnection] = RealtimeConnection,
    ) -> None:
        super().__init__(
            beta=beta,
            on_event=on_event,
            on_connect=on_connect,
            refuse=refuse,
            connection=connection,
        )
        self.requests: list[web.Request] = []
        self._runner: web.AppRunner | None = None
        self._listener: socket.socket | None = None
        self.url = ""

    async def __aenter__(self) -> Self:
        app = web.Application()
        app.router.add_get("/{path:.*}", self._serve)
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
        await self._runner.setup()
        self._listener = socket.create_server(("127.0.0.1", 0))
        await web.SockSite(self._runner, self._listener).start()
        host, port = self._runner.addresses[0][:2]
        self.url = f"http://{host}:{port}/v1"
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.aclose()
        if self._listener is not None:
            await accept_no_more([self._listener])
        if self._runner is not None:
            await self._runner.cleanup()

    async def _serve(self, request: web.Request) -> web.StreamResponse:
        self.requests.append(request)
        status = self.status()
        if status is not None:
            return web.json_response({"error": {"message": "no"}}, status=status)
        socket = web.WebSocketResponse(compress=False, timeout=0.5, max_msg_size=1 << 24)
        await socket.prepare(request)
        connection = await self.open(_AiohttpPeer(socket, request.transport))
        async for message in socket:
            if connection.asleep:
                await asyncio.get_running_loop().create_future()
            if message.type in (WSMsgType.TEXT, WSMsgType.BINARY):
                await self.receive(connection, message.data)
        self.end(connection)
        return socket
