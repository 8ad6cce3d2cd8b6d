"""A turn of the user that has no transcript yet, when its connection ends."""

from __future__ import annotations

import asyncio
import base64
from collections import Counter
from typing import Any

import pytest

from providers.sessions.driving import Seen, read, sound, talking, texts
from rejoinder.media import AudioFrame
from rejoinder.providers.openai.realtime import RealtimeSession
from rejoinder.testing import (
    RealtimeConnection,
    RealtimeServer,
    ScriptedRealtimeModel,
    ServerReply,
)
from rejoinder.types import APIConnectOptions

WORDS = [(number % 100 + 1) * 2 + 1 for number in range(10)]
"""The value of each byte of 100 ms of loud sound."""


async def until(condition: Any) -> None:
    while not condition():
        await asyncio.sleep(0.001)


def speech() -> list[AudioFrame]:
    return [sound(value=value) for value in WORDS] + [sound(), sound()]


def spoken() -> bytes:
    return b"".join(bytes(frame.data) for frame in speech())


async def say(server: RealtimeServer, session: RealtimeSession, seen: Seen) -> str:
    """A turn of the user, committed by the service and not transcribed. Returns its item."""
    await session.connected()
    first = server.connections[-1]
    item_id = "turn_1"
    await first.send("input_audio_buffer.speech_started", audio_start_ms=0, item_id=item_id)
    await until(lambda: seen.named("input_speech_started"))
    for frame in speech():
        session.push_audio(frame)
    await server.until(lambda: len(first.audio) == len(spoken()))
    await first.speech(item_id=item_id)
    await until(lambda: session.chat_ctx.get_by_id(item_id) is not None)
    return item_id


async def next_connection(server: RealtimeServer, seen: Seen) -> RealtimeConnection:
    await until(lambda: seen.named("session_reconnected"))
    return server.connections[-1]


def created(connection: RealtimeConnection) -> list[dict[str, Any]]:
    return [
        event["item"] for event in connection.events if event["type"] == "conversation.item.create"
    ]


async def test_a_turn_without_an_answer_is_pushed_again(server: RealtimeServer) -> None:
    async with talking(server) as (session, seen):
        await say(server, session, seen)
        server.connections[0].drop()
        second = await next_connection(server, seen)
        await server.until(lambda: len(second.audio) >= len(spoken()))
        assert bytes(second.audio) == spoken()
        assert created(second) == []
        await second.speech("Hello?", item_id="again")
        await until(lambda: texts(session) == [("user", "Hello?")])


async def test_a_request_waits_for_the_turn_that_is_pushed_again(server: RealtimeServer) -> None:
    server.say("Hello.")
    async with talking(server) as (session, seen):
        await say(server, session, seen)
        server.connections[0].drop()
        asked = session.generate_reply()
        second = await next_connection(server, seen)
        await server.until(lambda: len(second.audio) >= len(spoken()))
        assert [event["type"] for event in second.events] == ["session.update"]
        await second.speech("Hello?", item_id="again")
        assert (await read(await asked))[0] == "Hello."


@pytest.mark.looptime
async def test_a_request_does_not_wait_for_ever(server: RealtimeServer) -> None:
    server.say("Hello.")
    async with talking(server) as (session, seen):
        await say(server, session, seen)
        server.connections[0].drop()
        assert (await read(await session.generate_reply()))[0] == "Hello."


async def test_a_turn_with_an_answer_is_created_as_sound(server: RealtimeServer) -> None:
    async with talking(server) as (session, seen):
        item_id = await say(server, session, seen)
        await server.connections[0].begin_reply(ServerReply(["Good ", "morning."]))
        await until(lambda: texts(session) == [("user", ""), ("assistant", "Good morning.")])
        for _ in range(3):
            seen.clear()
            server.connections[-1].drop()
            second = await next_connection(server, seen)
            await until(lambda second=second: len(second.items) == 2)  # type: ignore[misc]
            user, answer = created(second)
            assert user["id"] == item_id
            assert base64.b64decode(user["content"][0]["audio"]) == spoken()
            assert answer["content"] == [{"type": "output_text", "text": "Good morning."}]
            assert not second.audio
        assert texts(session) == [("user", ""), ("assistant", "Good morning.")]


async def test_a_turn_is_created_as_text_once_it_is_known(server: RealtimeServer) -> None:
    async with talking(server) as (session, seen):
        item_id = await say(server, session, seen)
        await server.connections[0].begin_reply(ServerReply(["Good ", "morning."]))
        await until(lambda: texts(session) == [("user", ""), ("assistant", "Good morning.")])
        await server.connections[0].send(
            "conversation.item.input_audio_transcription.completed",
            item_id=item_id,
            content_index=0,
            transcript="Hello?",
        )
        await until(lambda: ("user", "Hello?") in texts(session))
        server.connections[0].drop()
        second = await next_connection(server, seen)
        await until(lambda: len(second.items) == 2)
        assert created(second)[0]["content"] == [{"type": "input_text", "text": "Hello?"}]
        assert not second.audio


async def test_what_the_application_committed_is_committed_again(server: RealtimeServer) -> None:
    async with talking(server, turn_detection=None) as (session, seen):
        await session.connected()
        for frame in speech():
            session.push_audio(frame)
        session.commit_audio()
        await until(lambda: len(texts(session)) == 1)
        session.push_audio(sound(value=9))
        server.connections[0].drop()
        second = await next_connection(server, seen)
        await server.until(lambda: len(second.audio) == len(spoken()) + 4800)
        assert bytes(second.audio).startswith(spoken())
        await until(lambda: len(texts(session)) == 1 and second.items)
        assert [event["type"] for event in second.events].count("input_audio_buffer.commit") == 1


async def test_a_replaced_connection_takes_turns_that_are_never_transcribed(
    server: RealtimeServer,
) -> None:
    async with talking(server, input_audio_transcription=None) as (session, seen):
        await say(server, session, seen)
        await server.connections[0].begin_reply(ServerReply(["Good ", "morning."]))
        await until(lambda: texts(session) == [("user", ""), ("assistant", "Good morning.")])
        await server.connections[0].close(1001, "the cap")
        second = await next_connection(server, seen)
        await until(lambda: len(second.items) == 2)
        assert base64.b64decode(created(second)[0]["content"][0]["audio"]) == spoken()


@pytest.mark.looptime
async def test_words_spoken_into_a_dead_connection_arrive(server: RealtimeServer) -> None:
    async with talking(server) as (session, seen):
        await session.connected()
        first = server.connections[0]
        first.fall_asleep()
        pushed = bytearray()
        for number in range(300):
            frame = sound(value=WORDS[number % 10])
            session.push_audio(frame)
            pushed += frame.data
            await asyncio.sleep(0.1)
        second = await next_connection(server, seen)
        await server.until(lambda: len(second.audio) >= len(pushed) - 20 * 4800)
        assert bytes(pushed).endswith(bytes(second.audio))
        assert len(second.audio) == len(pushed)


async def test_a_turn_that_is_reported_twice_keeps_its_sound(server: RealtimeServer) -> None:
    async with talking(server) as (session, seen):
        item_id = await say(server, session, seen)
        first = server.connections[0]
        session.push_audio(sound(value=9))
        await server.until(lambda: len(first.audio) > len(spoken()))
        await first.send("input_audio_buffer.committed", item_id=item_id, previous_item_id=None)
        await first.begin_reply(ServerReply(["Good ", "morning."]))
        await until(lambda: texts(session) == [("user", ""), ("assistant", "Good morning.")])
        first.drop()
        second = await next_connection(server, seen)
        await until(lambda: len(second.items) == 2)
        assert base64.b64decode(created(second)[0]["content"][0]["audio"]) == spoken()
        await server.until(lambda: len(second.audio) == 4800)


async def test_a_transcript_before_its_turn_leaves_no_sound(server: RealtimeServer) -> None:
    async with talking(server) as (session, seen):
        await session.connected()
        first = server.connections[0]
        for frame in speech():
            session.push_audio(frame)
        await server.until(lambda: len(first.audio) == len(spoken()))
        await first.send(
            "conversation.item.input_audio_transcription.completed",
            item_id="turn_1",
            content_index=0,
            transcript="Hello?",
        )
        await first.speech(item_id="turn_1")
        await until(lambda: texts(session) == [("user", "Hello?")])
        first.drop()
        second = await next_connection(server, seen)
        await until(lambda: len(second.items) == 1)
        assert created(second)[0]["content"] == [{"type": "input_text", "text": "Hello?"}]
        assert not second.audio


TURN_BYTES = 3 * 4800


def marked(number: int) -> AudioFrame:
    """100 ms of a turn, told from all others."""
    return AudioFrame((1000 + number).to_bytes(2, "little") * 2400, 24000, 1, 2400)


def heard_by(connection: RealtimeConnection) -> list[int]:
    """The turns that a connection knows, as text, as an item with sound, or as pushed sound."""
    found: list[int] = []
    sounds = [bytes(connection.audio)]
    for item_id in connection.items:
        for part in connection.contents[item_id]["content"]:
            text = part.get("text") or ""
            if text.startswith("Turn "):
                found.append(int(text.removeprefix("Turn ").rstrip(".")))
            sounds.append(base64.b64decode(part.get("audio") or ""))
    for data in sounds:
        samples = memoryview(data[: len(data) & ~1]).cast("h")
        counts = Counter(samples)
        found += [
            value - 1000
            for value, count in counts.items()
            for _ in range(count * 2 // TURN_BYTES)
            if value >= 1000
        ]
        assert all(count * 2 % TURN_BYTES == 0 for value, count in counts.items() if value)
    return sorted(found)


async def settled(session: RealtimeSession, seen: Seen, ends: int) -> None:
    await until(lambda: len(seen.named("session_reconnected")) == ends)
    await session.connected()


@pytest.mark.looptime
async def test_a_hundred_ends_lose_and_repeat_no_turn() -> None:
    """The connection ends in mid-speech, before the transcript, before the answer, or after both."""
    options = APIConnectOptions(max_retry=5, retry_interval=0.0)
    model = ScriptedRealtimeModel(conn_options=options, max_session_duration=None)
    session = model.session()
    seen = Seen(session)
    await session.connected()
    for number in range(100):
        seen[:] = [entry for entry in seen if entry[0] != "input_speech_started"]
        connection = model.service.connections[-1]
        item_id = f"item_of_{number}"
        how = ("speaking", "committed", "answered", "written")[number % 4]
        await connection.send(
            "input_audio_buffer.speech_started", audio_start_ms=0, item_id=item_id
        )
        await until(lambda: seen.named("input_speech_started"))
        for _ in range(2 if how == "speaking" else 3):
            session.push_audio(marked(number))
        if how != "speaking":
            await model.service.until(lambda c=connection: len(c.audio) % TURN_BYTES == 0)  # type: ignore[misc]
            transcript = f"Turn {number}." if how == "written" else None
            await connection.speech(transcript, item_id=item_id)
            await until(lambda i=item_id: session.chat_ctx.get_by_id(i) is not None)  # type: ignore[misc]
        if how in ("answered", "written"):
            await connection.begin_reply(ServerReply([f"Answer {number}."]))
            await until(lambda n=number: ("assistant", f"Answer {n}.") in texts(session))  # type: ignore[misc]
        connection.drop()
        if how == "speaking":
            session.push_audio(marked(number))
        await settled(session, seen, number + 1)
        following = model.service.connections[-1]
        for _ in range(50):
            await asyncio.sleep(0)
        known = heard_by(following)
        assert known == list(range(number + 1)), how
        if how in ("speaking", "committed"):
            await following.speech(f"Turn {number}.", item_id=f"again_{number}")
            await until(lambda n=number: ("user", f"Turn {n}.") in texts(session))  # type: ignore[misc]
    answers = [text for role, text in texts(session) if role == "assistant"]
    assert answers == [f"Answer {n}." for n in range(100) if n % 4 > 1]
    await model.aclose()
