"""How tests hold a conversation over OpenAI's Live API. Everything that is sent is checked."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from functools import partial
from typing import Any, Literal

from providers.openai.live_checks import check_sent, check_served
from providers.sessions.driving import Seen
from rejoinder.providers.openai.live import GPTLiveModel, GPTLiveSession
from rejoinder.testing import LiveConnection, RealtimeService
from rejoinder.transport.ws import WireFrame
from rejoinder.types import APIConnectOptions

OWN_EVENTS: tuple[Literal["delegation_created", "function_call", "transcript_delta"], ...] = (
    "delegation_created",
    "function_call",
    "transcript_delta",
)


class Checked(LiveConnection):
    """Checks the frames of both sides against the types of ``openai``."""

    def note(self, event: dict[str, Any]) -> None:
        check_sent(event)
        super().note(event)

    async def send_raw(self, frame: WireFrame) -> None:
        if self._fault is None:
            check_served(json.loads(frame))
        await super().send_raw(frame)


def live_service(**options: Any) -> RealtimeService:
    return RealtimeService(connection=Checked, **options)


def connection(service: RealtimeService, number: int = -1) -> LiveConnection:
    found = service.connections[number]
    assert isinstance(found, LiveConnection)
    return found


def told(connection: LiveConnection, how: str) -> list[str]:
    return [text for kind, _, text in connection.told if kind == how]


@asynccontextmanager
async def talking(
    service: RealtimeService, **options: Any
) -> AsyncIterator[tuple[GPTLiveSession, Seen]]:
    options.setdefault("conn_options", APIConnectOptions(max_retry=2, retry_interval=0.1))
    transport = service.transport()
    model = GPTLiveModel(transport=transport, api_key="any", **options)
    session = model.session()
    seen = Seen(session)
    for name in OWN_EVENTS:
        session.on(name, partial(seen.note, name))
    try:
        yield session, seen
    finally:
        await model.aclose()
        await transport.aclose()
        await service.aclose()


async def until(condition: Callable[[], object]) -> None:
    """Let the loop run until `condition` holds."""
    async with asyncio.timeout(60):
        while not condition():
            await asyncio.sleep(0.01)
