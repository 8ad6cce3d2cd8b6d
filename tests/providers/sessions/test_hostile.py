"""Frames that a broken or hostile service may send: each limit names itself, and the session goes on
or fails, with bounded memory. How long the loop stands still is measured in `tests/stretches.py`."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import json
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest

from listening import listening
from providers.sessions.driving import Seen, read
from raw_frames import TEXT, ws_accept, ws_frame
from rejoinder.llm.realtime import GenerationCreatedEvent
from rejoinder.providers.google.realtime import RealtimeModel as GeminiLive
from rejoinder.providers.openai.live import GPTLiveModel
from rejoinder.providers.openai.realtime import RealtimeModel
from rejoinder.testing.leaks import measure_memory
from rejoinder.types import APIConnectOptions

OPTIONS = APIConnectOptions(max_retry=0)


class Peer:
    """The service's end of the first connection of a session: bytes are written as they are."""

    def __init__(self) -> None:
        self._writer: asyncio.Future[asyncio.StreamWriter] = (
            asyncio.get_running_loop().create_future()
        )

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await ws_accept(reader, writer)
        if not self._writer.done():
            self._writer.set_result(writer)
        while await reader.read(1 << 16):
            pass

    async def send(self, *events: dict[str, Any] | str) -> None:
        writer = await self._writer
        for event in events:
            text = event if isinstance(event, str) else json.dumps(event)
            writer.write(ws_frame(TEXT, text.encode()))
        with contextlib.suppress(ConnectionResetError):
            await writer.drain()


BEGINNINGS: dict[str, tuple[Any, list[dict[str, Any]]]] = {
    "openai": (RealtimeModel, [{"type": "session.updated", "session": {}}]),
    "live": (GPTLiveModel, [{"type": "session.started", "event_id": "e", "session": {"id": "s"}}]),
    "gemini": (GeminiLive, [{"setupComplete": {}}]),
}


@asynccontextmanager
async def talking(kind: str = "openai") -> AsyncGenerator[tuple[Peer, Any, Seen]]:
    make, beginning = BEGINNINGS[kind]
    peer = Peer()
    async with listening(peer.serve) as url:
        model = make(base_url=url, api_key="sk-some-key", conn_options=OPTIONS)
        session = model.session()
        try:
            await peer.send(*beginning)
            yield peer, session, Seen(session)
        finally:
            await model.aclose()


async def until(condition: Callable[[], object]) -> None:
    async with asyncio.timeout(200):
        while not condition():
            await asyncio.sleep(0.001)


def last_error(seen: Seen) -> str:
    errors = seen.named("error")
    return str(errors[-1].error) if errors else ""


@pytest.mark.parametrize("kind", BEGINNINGS)
@pytest.mark.parametrize(
    "values",
    ["[]," * 100_000, "1," * 100_000, '{"a":1},' * 40_000, ("[" * 300 + "]" * 300 + ",") * 300],
    ids=["lists", "numbers", "objects", "nested"],
)
async def test_a_frame_of_too_many_values_is_not_read_and_told(kind: str, values: str) -> None:
    async with talking(kind) as (peer, _, seen):
        await peer.send('{"type":"x","x":[' + values + "1]}")
        await until(lambda: "more than 65,536 values" in last_error(seen))
        assert seen.named("error")[-1].recoverable


async def test_a_large_table_in_a_text_is_one_value() -> None:
    table = "1,2,[3],{4}\n" * 20_000
    async with talking() as (peer, session, seen):
        item = {"type": "message", "role": "user", "id": "i1"}
        item["content"] = [{"type": "input_text", "text": table}]  # type: ignore[assignment]
        await peer.send({"type": "conversation.item.added", "item": item})
        await until(lambda: session.chat_ctx.items)
        assert session.chat_ctx.items[0].text_content == table
        assert not seen.named("error")


@pytest.mark.parametrize("kind", BEGINNINGS)
async def test_a_frame_nested_deeply_is_one_unreadable_frame(kind: str) -> None:
    async with talking(kind) as (peer, _, seen):
        for bracket in ("[", '{"a":'):
            await peer.send('{"type":"x","serverContent":' + bracket * 50_000)
        await peer.send("[" * 100_000)
        await peer.send('{"type":"x","x":[' + "1," * 100_000 + "1]}")
        await until(lambda: "more than 65,536 values" in last_error(seen))


def delta(kind: str, text: str, item: str = "m") -> dict[str, Any]:
    return {"type": f"response.{kind}.delta", "response_id": "r", "item_id": item, "delta": text}


BEGUN = {"type": "response.created", "response": {"id": "r"}}
SECOND = base64.b64encode(bytes(48_000)).decode()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("event", "count", "told"),
    [
        (delta("output_audio", SECOND * 10), 100, "more than 32 MB of one reply wait to be read"),
        (delta("output_audio", "AAAA"), 100_000, "more than 32 MB of one reply wait to be read"),
        (delta("output_text", "a"), 100_000, "more than 32 MB of one reply wait to be read"),
        (delta("output_text", "a" * 50_000), 30, "more than 1,048,576 characters of text"),
    ],
    ids=["sound", "scraps of sound", "scraps of text", "text"],
)
async def test_a_reply_that_nothing_reads_is_bounded(
    event: dict[str, Any], count: int, told: str
) -> None:
    async with talking() as (peer, _, seen):
        await peer.send(BEGUN)
        await until(lambda: seen.named("generation_created"))
        with measure_memory() as memory:
            for _ in range(0, count, 10):
                await peer.send(*[event] * 10)
                if told in last_error(seen):
                    break
            await until(lambda: told in last_error(seen))
        assert memory.peak < 64 << 20


async def test_a_reply_of_endless_messages_is_bounded() -> None:
    async with talking() as (peer, _, seen):
        await peer.send(BEGUN)
        await peer.send(*[delta("output_text", "a", f"m{i}") for i in range(2000)])
        await until(lambda: "more than 1,024 messages" in last_error(seen))


async def listened(event: GenerationCreatedEvent) -> float:
    """Seconds of sound in a reply."""
    seconds = 0.0
    async for message in event.message_stream:
        async for frame in message.audio_stream:
            seconds += frame.duration
    return seconds


@pytest.mark.slow
async def test_sound_that_is_read_has_no_limit() -> None:
    async with talking() as (peer, _, seen):
        await peer.send(BEGUN)
        await until(lambda: seen.named("generation_created"))
        reading = asyncio.ensure_future(listened(seen.named("generation_created")[0]))
        for _ in range(100):
            await peer.send(delta("output_audio", SECOND * 10))
        await peer.send({"type": "response.done", "response": {"id": "r", "status": "completed"}})
        assert await reading == 1000
        assert not seen.named("error")


async def test_half_a_minute_of_live_sound_comes_at_once_and_no_more() -> None:
    async with talking("live") as (peer, _, seen):
        await peer.send({"type": "session.output_audio.delta", "delta": "A" * 3_000_000})
        await until(lambda: "at most 2097152 are played" in last_error(seen))
        assert seen.named("error")[-1].recoverable


async def test_an_emoji_in_two_pieces_is_one_and_half_of_one_is_a_mark() -> None:
    async with talking() as (peer, _, seen):
        reply = {"id": "r", "status": "completed"}
        await peer.send(
            BEGUN,
            delta("output_text", "sun \ud83c"),
            delta("output_text", "\udf1e, rain \ud83c"),
            {"type": "response.done", "response": reply},
        )
        await until(lambda: seen.named("generation_created"))
        assert (await read(seen.named("generation_created")[0]))[0] == "sun 🌞, rain \ufffd"
