"""How tests hold a conversation with Nova Sonic: one server, one model, one session."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from typing import Any

from providers.sessions.driving import Seen, read
from rejoinder.clouds.sigv4 import Credentials
from rejoinder.media import AudioFrame
from rejoinder.providers.aws.realtime import RealtimeModel, RealtimeSession
from rejoinder.testing.sonic_server import SonicServer
from rejoinder.types import APIConnectOptions

KEYS = Credentials("AKIDEXAMPLE", "a-long-secret-key")


class Heard(Seen):
    """The events of a session, and its replies, each of which is read from its first event on."""

    def __init__(self, session: RealtimeSession) -> None:
        self.replies: list[asyncio.Task[tuple[str, int, list[str]]]] = []
        super().__init__(session)

    def note(self, name: str, event: Any) -> None:
        super().note(name, event)
        if name == "generation_created":
            self.replies.append(asyncio.ensure_future(read(event)))


@asynccontextmanager
async def talking(
    server: SonicServer, **options: Any
) -> AsyncGenerator[tuple[RealtimeSession, Heard]]:
    options.setdefault("conn_options", APIConnectOptions(max_retry=2, retry_interval=0.01))
    options.setdefault("api_key", KEYS.access_key)
    options.setdefault("api_secret", KEYS.secret_key)
    model = RealtimeModel(base_url=server.url, **options)
    session = model.session()
    seen = Heard(session)
    try:
        yield session, seen
        assert not server.illegal, server.illegal
        assert not server.protocol_errors
    finally:
        await model.aclose()
        for task in seen.replies:
            task.cancel()
        await asyncio.gather(*seen.replies, return_exceptions=True)
    assert not server.illegal, server.illegal


async def when(condition: Callable[[], object]) -> None:
    """Wait until `condition` holds."""
    async with asyncio.timeout(20):
        while not condition():
            await asyncio.sleep(0.001)


def sound(ms: int = 100, value: int = 0) -> AudioFrame:
    """16 kHz; `value` is that of each sample."""
    return AudioFrame(value.to_bytes(2, "little", signed=True) * (16 * ms), 16000, 1, 16 * ms)
