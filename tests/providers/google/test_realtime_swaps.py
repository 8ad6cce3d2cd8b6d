"""Connections of the Live API that end, and what of the conversation survives: everything, once."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from providers.google.live import connection, gemini_server, sent, talking, until
from providers.google.test_realtime import sound, weather
from providers.sessions.driving import read, texts
from rejoinder.llm import FunctionCallOutput
from rejoinder.providers.google.realtime import RealtimeSession
from rejoinder.testing import GeminiConnection, RealtimeServer, ServerCall, ServerReply


async def turn(server: RealtimeServer, session: RealtimeSession, number: int) -> None:
    """The user types, and the model answers."""
    chat_ctx = session.chat_ctx
    chat_ctx.add_message(role="user", content=f"Question {number}?")
    await session.update_chat_ctx(chat_ctx)
    server.say(f"Answer {number}.")
    await read(await session.generate_reply())


def conversation(numbers: int) -> list[tuple[str, str]]:
    return [
        part
        for number in range(numbers)
        for part in (("user", f"Question {number}?"), ("model", f"Answer {number}."))
    ]


def known(server: RealtimeServer) -> list[tuple[str, str]]:
    """The conversation as the newest connection knows it, one entry for each text."""
    return connection(server).said


async def settled(server: RealtimeServer, session: RealtimeSession, handles: int) -> None:
    await until(lambda: session.session_resumption_handle == f"handle_{handles}")


MODELS = [
    "gemini-3.8-live",
    "gemini-2.5-flash-native-audio-latest",
    "gemini-3.1-flash-live-preview",
]


async def test_a_session_goes_on_behind_its_handle() -> None:
    async with gemini_server() as server, talking(server) as (session, seen):
        await turn(server, session, 0)
        await until(lambda: session.session_resumption_handle)
        handle = session.session_resumption_handle
        await connection(server).go_away(50)
        await until(lambda: seen.named("session_reconnected"))
        assert connection(server).setup["sessionResumption"] == {"handle": handle}
        assert not sent(connection(server), "clientContent")
        await turn(server, session, 1)
        assert known(server) == conversation(2)
        assert not seen.named("error")
        assert len(server.connections) == 2


async def test_words_are_spoken_to_the_end_before_the_session_moves() -> None:
    async with gemini_server() as server, talking(server) as (session, seen):
        await turn(server, session, 0)
        await until(lambda: session.session_resumption_handle)
        server.reply(ServerReply(["One ", "two."], hold=True))
        event = await session.generate_reply()
        first = connection(server)
        await first.go_away(50)
        for _ in range(50):
            await asyncio.sleep(0)
        assert len(server.connections) == 1
        first.release()
        assert (await read(event))[0] == "One two."
        await until(lambda: seen.named("session_reconnected"))
        assert event.outcome is not None
        assert await event.outcome == "completed"


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("how", ["goaway", "drop", "close", "1011"])
async def test_what_came_after_the_handle_is_told_once(model: str, how: str) -> None:
    async with gemini_server() as server, talking(server, model=model) as (session, seen):
        await turn(server, session, 0)
        await until(lambda: session.session_resumption_handle)
        chat_ctx = session.chat_ctx
        chat_ctx.add_message(role="user", content="Question 1?")
        await session.update_chat_ctx(chat_ctx)
        await end(connection(server), how)
        await until(lambda: seen.named("session_reconnected"))
        server.say("Answer 1.")
        await read(await session.generate_reply())
        assert flat(known(server)) == flat(conversation(2))


async def end(last: Any, how: str) -> None:
    match how:
        case "goaway":
            await last.go_away(50)
        case "drop":
            last.drop()
        case "close":
            await last.close(1000)
        case _:
            await last.close(1011, "Deadline expired before operation could complete.")


def flat(said: list[tuple[str, str]]) -> str:
    """All that is known, in order; turns of one role that were joined count as their texts. What asks
    for a reply is left out."""
    whole = "".join(text for _, text in said)
    return whole.replace("<instructions>\nAnswer now.\n</instructions>", "")


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("code", [1007, 1008, 1011])
async def test_a_handle_that_is_refused_is_replaced_by_the_history(model: str, code: int) -> None:
    async with gemini_server() as server, talking(server, model=model) as (session, seen):
        await turn(server, session, 0)
        await until(lambda: session.session_resumption_handle)

        async def refuse(conn: Any, event: dict[str, Any]) -> bool:
            if "setup" in event and "handle" in event["setup"]["sessionResumption"]:
                await conn.close(code, "no")
                return True
            return False

        server.on_event = refuse
        await connection(server).go_away(50)
        await until(lambda: seen.named("session_reconnected"))
        assert len(server.connections) == 3
        await turn(server, session, 1)
        assert flat(known(server)) == flat(conversation(2))
        assert not seen.named("error")


async def test_a_handle_that_is_stale_is_replaced_by_the_history() -> None:
    async with gemini_server() as server, talking(server) as (session, seen):
        await turn(server, session, 0)
        await until(lambda: session.session_resumption_handle)
        server.handles.clear()
        connection(server).drop()
        await until(lambda: seen.named("session_reconnected"))
        await turn(server, session, 1)
        assert known(server) == conversation(2)


class Forgetful(GeminiConnection):
    async def snapshot(self) -> None:
        await self.send_message(sessionResumptionUpdate={"resumable": False})


async def test_without_a_handle_the_next_session_is_made_beside_the_old_one() -> None:
    async with RealtimeServer(connection=Forgetful) as server, talking(server) as (session, seen):
        await turn(server, session, 0)
        first = connection(server)
        server.reply(ServerReply(["One ", "two."], hold=True))
        event = await session.generate_reply()
        await first.go_away(50)
        await until(lambda: len(server.connections) == 2 and known(server))
        assert first.speaking is not None
        first.release()
        assert (await read(event))[0] == "One two."
        await until(lambda: seen.named("session_reconnected"))
        await turn(server, session, 1)
        said = known(server)
        assert flat(said) == "Question 0?Answer 0.One two.Question 1?Answer 1."


@pytest.mark.parametrize("model", ["gemini-3.8-live", "gemini-2.5-flash-native-audio-latest"])
async def test_a_result_reaches_the_next_session(model: str) -> None:
    async with gemini_server() as server, talking(server, model=model) as (session, seen):
        await session.update_tools([weather])
        await turn(server, session, 0)
        await until(lambda: session.session_resumption_handle)
        server.reply(ServerReply(calls=[ServerCall("weather", '{"city":"Rome"}')]))
        await read(await session.generate_reply())
        connection(server).drop()
        await until(lambda: seen.named("session_reconnected"))
        if "handle" in connection(server).setup["sessionResumption"]:
            await until(lambda: connection(server).results)
            (lost,) = connection(server).results
            assert "replaced" in lost["response"]["error"]
        server.say("Rome is warm.")
        chat_ctx = session.chat_ctx
        chat_ctx.items.append(FunctionCallOutput(call_id="call_1", output="warm", is_error=False))
        count = len(seen.named("generation_created"))
        await session.update_chat_ctx(chat_ctx)
        await until(lambda: len(seen.named("generation_created")) == count + 1)
        assert (await read(seen.named("generation_created")[-1]))[0] == "Rome is warm."
        assert sum("warm" in text for role, text in known(server) if role == "user") == 1


async def test_the_session_does_not_move_while_a_call_is_open() -> None:
    async with gemini_server() as server, talking(server) as (session, seen):
        await session.update_tools([weather])
        await turn(server, session, 0)
        server.reply(ServerReply(calls=[ServerCall("weather")]))
        await read(await session.generate_reply())
        await connection(server).go_away(50)
        for _ in range(100):
            await asyncio.sleep(0)
        assert not seen.named("session_reconnected")
        server.say("Done.")
        chat_ctx = session.chat_ctx
        chat_ctx.items.append(FunctionCallOutput(call_id="call_1", output="x", is_error=False))
        await session.update_chat_ctx(chat_ctx)
        await until(lambda: seen.named("session_reconnected"))
        assert texts(session)[-1] == ("assistant", "Done.")


async def test_sound_that_is_pushed_while_the_session_moves_arrives_once() -> None:
    async with gemini_server() as server, talking(server) as (session, seen):
        await turn(server, session, 0)
        await until(lambda: session.session_resumption_handle)
        session.push_audio(sound(100, 1))
        await until(lambda: connection(server).audio)
        connection(server).drop()
        for value in range(2, 30):
            session.push_audio(sound(100, value))
            await asyncio.sleep(0)
        await until(lambda: seen.named("session_reconnected"))
        for value in range(30, 40):
            session.push_audio(sound(100, value))
        await until(lambda: connection(server).audio.endswith(bytes([39]) * 3200))
        heard = connection(server).audio
        values = [heard[at] for at in range(0, len(heard), 3200)]
        assert values == sorted(set(values))
        assert values[-38:] == list(range(2, 40))


async def test_a_hundred_ends_lose_and_repeat_nothing() -> None:
    ways = ["goaway", "drop", "close", "1011", "1007"]
    async with gemini_server() as server, talking(server) as (session, seen):

        async def refuse(conn: Any, event: dict[str, Any]) -> bool:
            """Every seventh handle is refused."""
            if "setup" not in event or conn.number % 7:
                return False
            if "handle" in event["setup"]["sessionResumption"]:
                await conn.close(1007, "no")
                return True
            return False

        server.on_event = refuse
        for number in range(100):
            await turn(server, session, number)
            if number % 3:
                await until(lambda: session.session_resumption_handle)
            count = len(seen.named("session_reconnected"))
            await end(connection(server), ways[number % 4])
            await until(lambda count=count: len(seen.named("session_reconnected")) > count)
        await turn(server, session, 100)
        assert flat(known(server)) == flat(conversation(101))
        wanted = [(role.replace("model", "assistant"), text) for role, text in conversation(101)]
        assert texts(session) == wanted


async def test_words_that_a_lost_connection_heard_are_heard_again_and_stand_once() -> None:
    async with gemini_server() as server, talking(server) as (session, seen):
        await turn(server, session, 0)
        await until(lambda: session.session_resumption_handle)
        first = connection(server)
        await first.send_message(voiceActivity={"voiceActivityType": "ACTIVITY_START"})
        await until(lambda: seen.named("input_speech_started"))
        for value in range(1, 31):
            session.push_audio(sound(100, value))
        await until(lambda: first.audio)
        await first.send_message(serverContent={"inputTranscription": {"text": " Who are"}})
        await until(lambda: seen.named("input_audio_transcription_completed"))
        first.drop()
        await until(lambda: seen.named("session_reconnected"))
        await until(lambda: len(connection(server).audio) >= 30 * 3200)
        assert set(connection(server).audio) == set(range(1, 31))
        await connection(server).speech("Who are you?")
        await connection(server).begin_reply(ServerReply(["Nobody."]))
        await until(lambda: len(seen.named("generation_created")) == 2)
        await read(seen.named("generation_created")[1])
        assert texts(session)[2:] == [("user", "Who are you?"), ("assistant", "Nobody.")]


async def test_words_whose_sound_is_not_there_any_more_are_kept() -> None:
    async with gemini_server() as server, talking(server) as (session, seen):
        await turn(server, session, 0)
        await connection(server).send_message(
            serverContent={"inputTranscription": {"text": " Who are"}}
        )
        await until(lambda: seen.named("input_audio_transcription_completed"))
        connection(server).drop()
        await until(lambda: seen.named("session_reconnected"))
        assert texts(session)[2:] == [("user", "Who are")]


async def test_a_result_that_comes_between_two_connections_is_answered() -> None:
    for handle in (True, False):
        async with gemini_server() as server, talking(server) as (session, seen):
            await session.update_tools([weather])
            await turn(server, session, 0)
            await until(lambda: session.session_resumption_handle)
            server.reply(ServerReply(calls=[ServerCall("weather")]))
            await read(await session.generate_reply())
            if not handle:
                server.handles.clear()
            server.say("It is warm.")
            connection(server).drop()
            await until(lambda: seen.named("error"))
            chat_ctx = session.chat_ctx
            chat_ctx.items.append(
                FunctionCallOutput(call_id="call_1", output="warm", is_error=False)
            )
            await session.update_chat_ctx(chat_ctx)
            await until(lambda: len(seen.named("generation_created")) == 3)
            assert (await read(seen.named("generation_created")[2]))[0] == "It is warm."
            told = [str(content) for content in sent(connection(server), "clientContent")]
            assert sum("warm" in content for content in told) == 1
            assert len(connection(server).results) == handle


async def test_a_manual_turn_survives_the_end_of_a_connection() -> None:
    manual = {"automatic_activity_detection": {"disabled": True}}
    async with (
        gemini_server() as server,
        talking(server, realtime_input_config=manual) as (
            session,
            seen,
        ),
    ):
        await turn(server, session, 0)
        await until(lambda: session.session_resumption_handle)
        for value in range(1, 31):
            session.push_audio(sound(100, value))
        await until(lambda: len(connection(server).audio) >= 30 * 3200)
        await connection(server).go_away(50)
        for _ in range(50):
            await asyncio.sleep(0)
        assert len(server.connections) == 1  # it waits for the end of the turn
        connection(server).drop()
        await until(lambda: seen.named("session_reconnected"))
        server.say("I heard it.")
        session.commit_audio()
        assert (await read(await session.generate_reply()))[0] == "I heard it."
        heard = connection(server).audio
        assert [heard[at] for at in range(0, len(heard), 3200)] == list(range(1, 31))
