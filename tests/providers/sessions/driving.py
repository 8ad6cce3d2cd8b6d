"""How tests hold a conversation: one model, one session, and what it emitted."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from functools import partial
from typing import Any

from rejoinder import llm
from rejoinder.llm.realtime import GenerationCreatedEvent
from rejoinder.media import AudioFrame
from rejoinder.providers.openai.realtime import RealtimeModel, RealtimeSession
from rejoinder.testing import RealtimeServer
from rejoinder.types import APIConnectOptions

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
    """The events of a session, in order."""

    def __init__(self, session: llm.RealtimeSession) -> None:
        super().__init__()
        for name in EVENTS:
            session.on(name, partial(self.note, name))  # type: ignore[arg-type]

    def note(self, name: str, event: Any) -> None:
        self.append((name, event))

    def named(self, name: str) -> list[Any]:
        return [event for found, event in self if found == name]


@asynccontextmanager
async def talking(
    server: RealtimeServer, **options: Any
) -> AsyncGenerator[tuple[RealtimeSession, Seen], None]:
    options.setdefault("conn_options", APIConnectOptions(max_retry=2, retry_interval=0.01))
    model = RealtimeModel(base_url=server.url, api_key="any", **options)
    session = model.session()
    seen = Seen(session)
    try:
        yield session, seen
    finally:
        await model.aclose()


async def read(event: GenerationCreatedEvent) -> tuple[str, int, list[str]]:
    """The text of a reply, the milliseconds of its sound, and its calls by name."""
    text, ms = "", 0

    async def messages() -> None:
        nonlocal text, ms
        async for message in event.message_stream:
            text += "".join([piece async for piece in message.text_stream])
            ms += sum([f.samples_per_channel async for f in message.audio_stream]) // 24

    async def calls() -> list[str]:
        return [call.name async for call in event.function_stream]

    _, names = await asyncio.gather(messages(), calls())
    return text, ms, names


def sound(ms: int = 100, value: int = 0) -> AudioFrame:
    return AudioFrame(bytes([value]) * (48 * ms), 24000, 1, 24 * ms)


def texts(session: RealtimeSession) -> list[tuple[str, str]]:
    """The messages of the conversation: who, and what."""
    return [
        (item.role, item.text_content or "")
        for item in session.chat_ctx.items
        if item.type == "message"
    ]
