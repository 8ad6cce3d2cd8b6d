"""What a service sends without end: each limit names itself. A flood ends the connection, and the
session where the next connections bring it again."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from listening import listening
from providers.sessions.test_hostile import BEGUN, last_error, talking, until
from raw_frames import PING, PONG, TEXT, ws_accept, ws_frame
from rejoinder.providers.google.realtime import RealtimeModel as GeminiLive
from rejoinder.providers.openai.realtime import RealtimeModel
from rejoinder.providers.sessions import connections, conversation, link
from rejoinder.testing import GeminiConnection, RealtimeService
from rejoinder.transport import flood
from rejoinder.types import APIConnectOptions


def item(number: int) -> dict[str, Any]:
    content = [{"type": "input_text", "text": "hi"}]
    fields = {"type": "message", "role": "user", "id": f"i{number}", "content": content}
    return {"type": "conversation.item.added", "item": fields}


async def test_items_without_end_end_the_session(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(conversation, "MAX_ITEMS", 100)
    async with talking() as (peer, session, seen):
        await until(lambda: session._connections.link is not None)
        await peer.send(*[item(number) for number in range(120)])
        await until(lambda: "more than 100 items" in last_error(seen))
        assert not seen.named("error")[-1].recoverable
        assert len(session.chat_ctx.items) == 100


@pytest.mark.parametrize(
    ("event", "what"),
    [
        ({"type": "input_audio_buffer.speech_started", "item_id": "u%"}, "turns"),
        ({"type": "response.created", "response": {"id": "r%"}}, "turns"),
        ({"type": "rate_limits.updated", "rate_limits": []}, "frames without output"),
        ({"type": "of tomorrow"}, "frames without output"),
    ],
    ids=lambda value: value["type"] if isinstance(value, dict) else "",
)
async def test_a_flood_of_frames_ends_the_connection(
    event: dict[str, Any], what: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(link, "_MOST_TURNS", 50)
    monkeypatch.setattr(link, "_MOST_FRAMES", 200)
    most = 50 if what == "turns" else 200
    async with talking() as (peer, session, seen):
        await until(lambda: session._connections.link is not None)
        frames = [
            {
                **event,
                "item_id": f"u{at}",
                **({"response": {"id": f"r{at}"}} if "response" in event else {}),
            }
            for at in range(250)
        ]
        await peer.send(*frames)
        await until(lambda: f"more than {most} {what} within 10 s" in last_error(seen))


async def test_output_has_no_limit_of_frames(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(link, "_MOST_FRAMES", 200)
    delta = {"type": "response.output_text.delta", "response_id": "r", "item_id": "m", "delta": "a"}
    async with talking() as (peer, _, seen):
        await peer.send(BEGUN, *[delta] * 1000)
        await peer.send({"type": "response.done", "response": {"id": "r", "status": "completed"}})
        await until(lambda: seen.named("generation_created"))
        await seen.named("generation_created")[0].outcome
        assert not seen.named("error")


@pytest.mark.parametrize("kind", [PING, PONG])
async def test_a_flood_of_pings_ends_the_session(
    kind: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(flood, "MOST_SIGNS", 300)
    dialled = 0

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal dialled
        dialled += 1
        await ws_accept(reader, writer)
        writer.write(ws_frame(TEXT, b'{"type": "session.updated", "session": {}}'))
        writer.write(ws_frame(kind) * 1000)
        while await reader.read(1 << 16):
            pass

    async with listening(serve) as url:
        options = APIConnectOptions(max_retry=2, retry_interval=0.0)
        model = RealtimeModel(base_url=url, api_key="k", conn_options=options)
        session = model.session()
        errors: list[Any] = []
        session.on("error", errors.append)
        await until(lambda: errors and not errors[-1].recoverable)
        assert "more than 300 pings" in str(errors[-1].error)
        assert dialled == 3
        await model.aclose()


@pytest.mark.looptime
async def test_connections_that_are_announced_to_end_at_once_are_not_swapped_for_ever() -> None:
    class Leaving(GeminiConnection):
        async def handle(self, event: dict[str, Any]) -> None:
            await super().handle(event)
            if "setup" in event:
                for _ in range(3):
                    await self.go_away(50)

    service = RealtimeService(connection=Leaving)
    transport = service.transport()
    model = GeminiLive(api_key="k", transport=transport)
    session = model.session()
    errors: list[Any] = []
    session.on("error", errors.append)
    await asyncio.sleep(300)
    assert len(service.connections) <= connections._MOST_LEAVING + 3
    (told,) = errors
    assert told.recoverable
    assert "announced the end of 8 connections in a row" in str(told.error)
    await session.connected()
    await model.aclose()
    await transport.aclose()
    await service.aclose()
