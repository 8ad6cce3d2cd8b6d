"""How tests hold a conversation with Nova Sonic: one server, one model, one session."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from typing import Any

from providers.sessions.driving import read
from rejoinder.clouds.sigv4 import Credentials
from rejoinder.media import AudioFrame
from rejoinder.providers.aws.realtime import RealtimeModel, RealtimeSession
from rejoinder.testing.sonic_server import SonicServer
from rejoinder.types import APIConnectOptions

KEYS = Credentials("AKIDEXAMPLE", "a-long-secret-key")

EVENTS = (
    "error",
    "generation_created",
    "input_audio_transcription_completed",
    "input_speech_started",
    "input_speech_stopped",
    "metrics_collected",
    "remote_item_added",
    "session_reconnected",
)


class Seen(list[tuple[str, Any]]):
    """The events of a session, in order, and their replies while they are read."""

    def __init__(self, session: RealtimeSession) -> None:
        super().__init__()
        self.replies: list[asyncio.Task[tuple[str, int, list[str]]]] = []
        for name in EVENTS:
            session.on(name, self._noting(name))  # type: ignore[arg-type]

    def _noting(self, name: str) -> Callable[[Any], None]:
        def note(event: Any) -> None:
            self.append((name, event))
            if name == "generation_created":
                self.replies.append(asyncio.ensure_future(read(event)))

        return note

    def named(self, name: str) -> list[Any]:
        return [event for found, event in self if found == name]


@asynccontextmanager
async def talking(
    server: SonicServer, **options: Any
) -> AsyncGenerator[tuple[RealtimeSession, Seen]]:
    options.setdefault("conn_options", APIConnectOptions(max_retry=2, retry_interval=0.01))
    options.setdefault("api_key", KEYS.access_key)
    options.setdefault("api_secret", KEYS.secret_key)
    model = RealtimeModel(base_url=server.url, **options)
    session = model.session()
    seen = Seen(session)
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


def texts(session: RealtimeSession) -> list[tuple[str, str]]:
    """The messages of the conversation: who, and what."""
    return [
        (item.role, item.text_content or "")
        for item in session.chat_ctx.items
        if item.type == "message"
    ]
