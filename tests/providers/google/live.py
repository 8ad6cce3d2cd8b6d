"""How tests hold a conversation over the Live API."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

from providers.sessions.driving import Seen
from rejoinder.providers.google.realtime import RealtimeModel, RealtimeSession
from rejoinder.testing import GeminiConnection, RealtimeServer
from rejoinder.types import APIConnectOptions


def gemini_server(**options: Any) -> RealtimeServer:
    return RealtimeServer(connection=GeminiConnection, **options)


def connection(server: RealtimeServer, number: int = -1) -> GeminiConnection:
    found = server.connections[number]
    assert isinstance(found, GeminiConnection)
    return found


def sent(connection: GeminiConnection, kind: str) -> list[dict[str, Any]]:
    return [event[kind] for event in connection.events if kind in event]


@asynccontextmanager
async def talking(
    server: RealtimeServer, **options: Any
) -> AsyncIterator[tuple[RealtimeSession, Seen]]:
    options.setdefault("conn_options", APIConnectOptions(max_retry=2, retry_interval=0.01))
    model = RealtimeModel(base_url=server.url.removesuffix("/v1"), api_key="any", **options)
    session = model.session()
    seen = Seen(session)
    try:
        yield session, seen
    finally:
        await model.aclose()


async def until(condition: Callable[[], object]) -> None:
    """Let the loop run until `condition` holds."""
    async with asyncio.timeout(10):
        while not condition():
            await asyncio.sleep(0)
