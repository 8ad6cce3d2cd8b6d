"""A server in the test itself, without a process or a socket, so that time may jump."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import anyio
import mcp_types as types
from mcp.shared.message import SessionMessage

import mcp_raw
from rejoinder.llm import mcp

Send = Callable[..., Awaitable[None]]
Handler = Callable[[dict[str, Any], Send], Awaitable[None]]


class Memory(mcp.MCPServer):
    """A server with the tool `t`.

    Args:
        call: answers a call: gets the message, and `send` for JSON-RPC messages. A task of its own.
        options: of the server.
    """

    def __init__(self, call: Handler | None = None, **options: Any) -> None:
        options.setdefault("client_session_timeout_seconds", 2)
        super().__init__(**options)
        self.call = call
        self.seen: list[dict[str, Any]] = []
        self.connections = 0
        self.hang_up: Callable[[], None] = lambda: None

    @asynccontextmanager
    async def client_streams(self) -> AsyncGenerator[Any]:
        self.connections += 1
        to_client, client_reads = anyio.create_memory_object_stream[SessionMessage](1000)
        client_writes, from_client = anyio.create_memory_object_stream[SessionMessage](1000)
        self.hang_up = to_client.close
        tasks: set[asyncio.Task[None]] = set()

        async def send(**message: Any) -> None:
            parsed = types.jsonrpc_message_adapter.validate_python({"jsonrpc": "2.0", **message})
            await to_client.send(SessionMessage(parsed))

        async def serve() -> None:
            async for item in from_client:
                message = item.message.model_dump(by_alias=True, exclude_unset=True)
                self.seen.append(message)
                if message.get("id") is not None and "method" in message:
                    tasks.add(asyncio.create_task(self.answer(message, send)))

        tasks.add(asyncio.create_task(serve()))
        try:
            yield client_reads, client_writes
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            for stream in (to_client, client_reads, client_writes, from_client):
                stream.close()

    async def answer(self, message: dict[str, Any], send: Send) -> None:
        if message["method"] == "tools/call" and self.call is not None:
            await self.call(message, send)
            return
        results = {
            "initialize": mcp_raw.INITIALIZED,
            "tools/list": {"tools": [mcp_raw.TOOL]},
            "tools/call": mcp_raw.FINE,
        }
        await send(id=message["id"], result=results.get(message["method"], {}))

    def __repr__(self) -> str:
        return "Memory()"
