"""What of a message was heard is what the conversation and the service keep of it."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from providers.sessions.driving import read, talking, texts
from rejoinder.llm import ChatContext
from rejoinder.testing import RealtimeConnection, RealtimeServer, ServerReply

WORDS = ["One ", "two ", "three ", "four."]


def said(connection: RealtimeConnection) -> list[str]:
    """The text of each message that the service holds."""
    return [
        part.get("text") or part.get("transcript") or ""
        for item_id in connection.items
        for part in connection.contents[item_id].get("content", ())
    ]


def truncated(connection: RealtimeConnection) -> list[int]:
    return [
        event["audio_end_ms"]
        for event in connection.events
        if event["type"] == "conversation.item.truncate"
    ]


async def until(condition: Any) -> None:
    while not condition():
        await asyncio.sleep(0.001)


async def test_time_and_text_agree_with_what_is_kept(server: RealtimeServer) -> None:
    async with talking(server) as (session, seen):
        server.reply(ServerReply(WORDS))
        await read(await session.generate_reply())
        session.truncate(
            message_id=session.chat_ctx.items[0].id,
            modalities=["audio"],
            audio_end_ms=250,
            audio_transcript="One two thr",
        )
        assert texts(session) == [("assistant", "One two thr")]
        await read(await session.generate_reply())
        assert truncated(server.connections[0]) == [250]
        assert not seen.named("error")


async def test_a_second_cut_gives_nothing_back(server: RealtimeServer) -> None:
    async with talking(server) as (session, seen):
        server.reply(ServerReply(WORDS))
        await read(await session.generate_reply())
        message_id = session.chat_ctx.items[0].id
        for end in (200, 350, 9000, 100):
            session.truncate(message_id=message_id, modalities=["audio"], audio_end_ms=end)
        assert texts(session) == [("assistant", "One ")]
        await read(await session.generate_reply())
        assert truncated(server.connections[0]) == [200, 100]
        assert not seen.named("error")


@pytest.mark.looptime
async def test_what_comes_after_the_cut_was_not_heard(server: RealtimeServer) -> None:
    async with talking(server) as (session, _):
        server.reply(ServerReply(WORDS, hold=True))
        event = await session.generate_reply()
        await until(lambda: list(server.connections[0].sent_ms.values()) == [400])
        await asyncio.sleep(0.01)
        message_id = session.chat_ctx.items[0].id
        session.truncate(message_id=message_id, modalities=["audio"], audio_end_ms=200)
        server.connections[0].release()
        await read(event)
        assert await event.outcome == "completed"  # type: ignore[misc]
        assert texts(session) == [("assistant", "One two ")]


async def test_a_message_of_an_earlier_connection_is_cut_at_the_next(
    server: RealtimeServer,
) -> None:
    async with talking(server) as (session, seen):
        server.reply(ServerReply(WORDS))
        await read(await session.generate_reply())
        message_id = session.chat_ctx.items[0].id
        await server.connections[0].close(1001)
        await until(lambda: seen.named("session_reconnected"))
        session.truncate(message_id=message_id, modalities=["audio"], audio_end_ms=200)
        await until(lambda: said(server.connections[1]) == ["One two "])
        assert texts(session) == [("assistant", "One two ")]
        await read(await session.generate_reply())
        assert truncated(server.connections[1]) == []
        assert texts(session)[0] == ("assistant", "One two ")
        assert len(seen.named("error")) == 1


@pytest.mark.looptime
async def test_a_message_that_was_cut_while_the_next_connection_waited_is_cut_there(
    server: RealtimeServer,
) -> None:
    async with talking(server, max_session_duration=0.05) as (session, seen):
        server.reply(ServerReply(WORDS), ServerReply(["And "], hold=True))
        await read(await session.generate_reply())
        message_id = session.chat_ctx.items[0].id
        event = await session.generate_reply()
        await until(lambda: len(server.connections) > 1 and said(server.connections[1]))
        assert said(server.connections[1]) == ["One two three four."]
        session.truncate(message_id=message_id, modalities=["audio"], audio_end_ms=200)
        await until(lambda: truncated(server.connections[0]) == [200])
        server.connections[0].release()
        await read(event)
        await until(lambda: seen.named("session_reconnected"))
        await until(lambda: said(server.connections[1])[:1] == ["One two "])
        assert texts(session)[0] == ("assistant", "One two ")


async def test_a_message_of_the_application_is_cut_by_its_text(server: RealtimeServer) -> None:
    async with talking(server) as (session, _):
        await session.connected()
        chat_ctx = ChatContext.empty()
        chat_ctx.add_message(role="user", content="Hi.")
        chat_ctx.add_message(role="assistant", content="One two three.", id="spoken_here")
        chat_ctx.add_message(role="user", content="Yes?")
        await session.update_chat_ctx(chat_ctx)
        session.truncate(
            message_id="spoken_here",
            modalities=["text"],
            audio_end_ms=0,
            audio_transcript="One two",
        )
        await until(lambda: said(server.connections[0]) == ["Hi.", "One two", "Yes?"])
        assert [text for _, text in texts(session)] == ["Hi.", "One two", "Yes?"]
        session.truncate(message_id="unknown", modalities=["text"], audio_end_ms=0)


@pytest.mark.parametrize("told", ["", "  "])
async def test_a_message_of_which_nothing_was_heard_is_gone(
    server: RealtimeServer, told: str
) -> None:
    async with talking(server) as (session, _):
        server.reply(ServerReply(WORDS))
        await read(await session.generate_reply())
        session.truncate(
            message_id=session.chat_ctx.items[0].id,
            modalities=["audio"],
            audio_end_ms=30,
            audio_transcript=told,
        )
        await until(lambda: not texts(session))
        assert server.connections[0].items == []
