"""Sessions with Nova Sonic, against a server that refuses what the real one refuses."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator, Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from certificates import server_context
from providers.aws.sonic import KEYS, sound, talking, when
from providers.sessions.driving import read, texts
from rejoinder.errors import ConfigurationError
from rejoinder.llm import ChatContext, FunctionCallOutput, function_tool
from rejoinder.llm.realtime import RealtimeError
from rejoinder.providers.aws.experimental import realtime as experimental
from rejoinder.providers.aws.realtime import RealtimeModel
from rejoinder.testing import ServerCall, check_realtime, no_leaks
from rejoinder.testing.sonic_server import SonicConnection, SonicReply, SonicServer
from rejoinder.transport._h2 import H2Transport


@pytest.fixture
async def server() -> AsyncGenerator[SonicServer]:
    async with SonicServer(credentials=KEYS) as server:
        yield server


@function_tool
async def weather(city: str) -> str:
    """Tell the weather."""
    return city


def first(server: SonicServer) -> SonicConnection:
    return server.connections[0]


def last(server: SonicServer) -> SonicConnection:
    return server.connections[-1]


async def test_a_reply_is_spoken(server: SonicServer) -> None:
    server.say("Hello there.", "How are you?", ms=200)
    async with no_leaks(), talking(server) as (session, seen):
        await session.update_instructions("Be brief.")
        event = await session.generate_reply(instructions="Greet.")
        await when(lambda: seen.replies[0].done())
        assert seen.replies[0].result() == ("Hello there. How are you?", 400, [])
        assert event.user_initiated
        assert event.outcome is not None
        assert await event.outcome == "completed"
        assert texts(session) == [("assistant", "Hello there. How are you?")]
        assert first(server).grammar.system == "Be brief."
        await when(lambda: [m for m in seen.named("metrics_collected") if m.total_tokens])
        (tokens,) = [m for m in seen.named("metrics_collected") if m.total_tokens]
        assert (tokens.input_tokens, tokens.output_tokens) == (20, 10)
    assert first(server).last_frame
    assert first(server).stream.ended


async def test_over_tls_with_alpn(certificate: Path) -> None:
    context = server_context(certificate)
    async with no_leaks(), SonicServer(credentials=KEYS, tls=context) as server:
        transport = H2Transport(ssl=str(certificate))
        async with talking(server, transport=transport) as (session, seen):
            await session.generate_reply()
            await when(lambda: seen.replies and seen.replies[0].done())
            assert seen.replies[0].result()[0] == "Hello."
        await transport.aclose()


@pytest.mark.parametrize(("window", "piece"), [(700, 1), (65_535, 7)])
async def test_frames_may_be_cut_anywhere(window: int, piece: int) -> None:
    async with (
        SonicServer(credentials=KEYS, window=window, piece=piece) as server,
        talking(server) as (session, seen),
    ):
        for _ in range(5):
            session.push_audio(sound())
        await session.generate_reply()
        await when(lambda: seen.replies and seen.replies[0].done())
        assert seen.replies[0].result() == ("Hello.", 100, [])


async def test_the_request_is_signed_as_aws_wants_it(server: SonicServer) -> None:
    async with talking(server, session_token="TOKEN") as (session, _):
        await session.connected()
        fields = server.requests[0]
        path = "/model/amazon.nova-2-sonic-v1%3A0/invoke-with-bidirectional-stream"
        assert fields[":path"] == path
        assert fields["x-amz-content-sha256"] == "STREAMING-AWS4-HMAC-SHA256-EVENTS"
        assert fields["x-amz-security-token"] == "TOKEN"
        assert "/us-east-1/bedrock/aws4_request" in fields["authorization"]


# -- turns ---------------------------------------------------------------------------------------


async def test_a_spoken_turn(server: SonicServer) -> None:
    async with talking(server) as (session, seen):
        session.push_audio(sound(value=5000))
        await when(lambda: server.connections and first(server).grammar.audio)
        await first(server).speech("hi", "there")
        await first(server).speak(SonicReply(["Hello."]))
        await when(lambda: seen.replies and seen.replies[0].done())
        names = [
            name for name, _ in seen if name.startswith("input") or name == "generation_created"
        ]
        assert names == [
            "input_speech_started",
            "input_audio_transcription_completed",
            "input_audio_transcription_completed",
            "input_speech_stopped",
            "input_audio_transcription_completed",
            "generation_created",
        ]
        transcripts = seen.named("input_audio_transcription_completed")
        assert [(t.transcript, t.is_final) for t in transcripts] == [
            ("hi", False),
            ("hi there", False),
            ("hi there", True),
        ]
        assert not seen.named("generation_created")[0].user_initiated
        assert texts(session) == [("user", "hi there"), ("assistant", "Hello.")]


async def test_a_typed_turn_is_answered_once(server: SonicServer) -> None:
    server.say("Typed back.")
    async with talking(server) as (session, seen):
        session.push_audio(sound())
        await when(lambda: server.connections and first(server).grammar.audio)
        chat_ctx = session.chat_ctx
        chat_ctx.add_message(role="user", content="What is up?")
        await session.update_chat_ctx(chat_ctx)
        await session.generate_reply()
        await when(lambda: seen.replies and seen.replies[0].done())
        assert first(server).grammar.typed_texts == ["What is up?"]
        assert texts(session) == [("user", "What is up?"), ("assistant", "Typed back.")]
        assert len(seen.replies) == 1


@pytest.mark.parametrize("control", [True, False])
@pytest.mark.looptime
async def test_an_interruption_ends_the_reply_and_is_not_shown(
    server: SonicServer, control: bool
) -> None:
    server.reply(SonicReply(["One.", "Two."], hold=True))
    async with talking(server) as (session, seen):
        event = await session.generate_reply()
        await when(lambda: texts(session))
        await when(lambda: first(server)._open_sound is not None and server.answered)
        await asyncio.sleep(0.02)
        await first(server).interrupt(control=control)
        await first(server).speech("stop")
        assert event.outcome is not None
        assert await event.outcome == "cancelled"
        text, _, _ = await seen.replies[0]
        assert "interrupted" not in text
        await when(lambda: seen.named("input_audio_transcription_completed"))
        assert len(seen.named("input_speech_started")) == 1
        # What it says it spoke counts: the first sentence was confirmed, the second was not.
        (message,) = [item for item in session.chat_ctx.items if item.type == "message"][:1]
        assert message.text_content == "One."
        assert message.interrupted


async def test_what_was_spoken_is_told_after_the_end(server: SonicServer) -> None:
    server.say("A long sentence that is cut short.", truth=False)
    async with talking(server) as (session, seen):
        await session.generate_reply()
        await when(lambda: seen.replies and seen.replies[0].done())
        assert texts(session) == [("assistant", "A long sentence that is cut short.")]
        await first(server).truth("A long sentence", "INTERRUPTED")
        await when(lambda: texts(session) == [("assistant", "A long sentence")])
        assert len(seen.named("input_speech_started")) == 1
        (message,) = session.chat_ctx.items
        assert message.interrupted  # type: ignore[union-attr]


async def test_truncating_cuts_the_copy(server: SonicServer) -> None:
    server.say("One two three four.", ms=1000, truth=False)
    async with talking(server) as (session, seen):
        await session.generate_reply()
        await when(lambda: seen.replies and seen.replies[0].done())
        (message,) = session.chat_ctx.items
        for end in (100_000, 500, 500):
            session.truncate(message_id=message.id, modalities=["audio"], audio_end_ms=end)
        assert texts(session)[0][1] in ("One two", "One")
        for end in (0, -1, 10):
            session.truncate(message_id=message.id, modalities=["audio"], audio_end_ms=end)
        assert texts(session) == []
        await session.generate_reply()
        await when(lambda: len(seen.replies) == 2 and seen.replies[1].done())
        assert len(server.connections) == 1


async def test_an_interrupt_of_ours_drops_the_rest(server: SonicServer) -> None:
    server.reply(SonicReply(["One."], hold=True), SonicReply(["Two."]))
    async with talking(server) as (session, seen):
        event = await session.generate_reply()
        session.interrupt()
        session.interrupt()
        assert event.outcome is not None
        assert await event.outcome == "interrupted"
        await when(lambda: server.answered)
        first(server).release()
        await session.generate_reply()
        await when(lambda: len(seen.replies) == 2 and seen.replies[1].done())
        assert seen.replies[1].result()[0] == "Two."


def deaf_to_text(connection: SonicConnection, kind: str, fields: dict[str, Any]) -> bool:
    return kind == "contentEnd"


@pytest.mark.looptime
async def test_a_reply_that_comes_too_late_is_not_heard(server: SonicServer) -> None:
    server.on_event = deaf_to_text
    async with talking(server, generate_reply_timeout=0.05) as (session, seen):
        with pytest.raises(RealtimeError, match="no reply began"):
            await session.generate_reply()
        await first(server).speak(SonicReply(["Late."]))
        await asyncio.sleep(0.05)
        assert not seen.named("generation_created")


async def test_what_the_user_asks_meanwhile_is_answered(server: SonicServer) -> None:
    server.on_event = deaf_to_text
    async with talking(server, generate_reply_timeout=0.05) as (session, seen):
        with pytest.raises(RealtimeError, match="no reply began"):
            await session.generate_reply()
        await first(server).speech("Hello?")
        await first(server).speak(SonicReply(["Yes?"]))
        await when(lambda: seen.replies and seen.replies[0].done())
        assert seen.replies[0].result()[0] == "Yes?"


# -- tools ---------------------------------------------------------------------------------------


async def answer(session: Any, call_id: str, output: str, *, is_error: bool = False) -> None:
    chat_ctx = session.chat_ctx
    chat_ctx.items.append(FunctionCallOutput(call_id=call_id, output=output, is_error=is_error))
    await session.update_chat_ctx(chat_ctx)


async def test_a_tool_runs_once_and_is_answered_once(server: SonicServer) -> None:
    call = ServerCall("weather", json.dumps(json.dumps({"city": "Paris"})), "c1")
    server.reply(SonicReply(calls=[call]), SonicReply(["Sunny."]))
    async with talking(server) as (session, seen):
        await session.update_tools([weather])
        event = await session.generate_reply(instructions="Weather in Paris?")
        calls = [c async for c in event.function_stream]
        assert [(c.name, c.arguments) for c in calls] == [("weather", '{"city": "Paris"}')]
        await first(server).call(call)  # told twice
        await answer(session, "c1", "sunny")
        await answer(session, "c1", "sunny")
        await when(lambda: len(seen.replies) >= 2 and seen.replies[-1].done())
        assert seen.replies[-1].result()[0] == "Sunny."
        assert first(server).grammar.results == {"c1": '{"result":"sunny"}'}
        kinds = [item.type for item in session.chat_ctx.items]
        assert kinds.count("function_call") == 1


async def test_several_tools_run_beside_speech(server: SonicServer) -> None:
    calls = [ServerCall("weather", '{"city":"A"}', "a"), ServerCall("weather", '{"city":"B"}', "b")]
    server.reply(SonicReply(calls=calls), SonicReply(["One."]), SonicReply(["Two."]))
    async with talking(server) as (session, seen):
        await session.update_tools([weather])
        await session.generate_reply()
        await when(lambda: len(seen.replies) == 2)
        await first(server).speech("and hurry")
        await answer(session, "b", '{"sky":"clear"}')
        await answer(session, "a", "no such city", is_error=True)
        await when(lambda: len(seen.replies) >= 4 and seen.replies[-1].done())
        assert first(server).grammar.results == {
            "a": '{"error":"no such city"}',
            "b": '{"sky":"clear"}',
        }


async def test_a_document_as_a_result_is_an_error_before_anything_is_sent(
    server: SonicServer,
) -> None:
    server.reply(SonicReply(calls=[ServerCall("weather", "{}", "c1")]))
    async with talking(server) as (session, seen):
        await session.update_tools([weather])
        await session.generate_reply()
        await when(lambda: seen.replies and seen.replies[0].done())
        with pytest.raises(RealtimeError, match="application/pdf"):
            await answer(session, "c1", "data:application/pdf;base64,JVBERi0=")
        assert not first(server).grammar.results


# -- settings ------------------------------------------------------------------------------------


@pytest.mark.looptime
@pytest.mark.parametrize("pause", [0.0, 0.6, 2.0, 10.0])
async def test_settings_given_at_any_time_are_in_force(pause: float) -> None:
    async with SonicServer(credentials=KEYS) as server, talking(server) as (session, seen):
        if pause:
            await session.connected()
            await asyncio.sleep(pause)
        await session.update_instructions("Be brief.")
        await session.update_tools([weather])
        chat_ctx = ChatContext.empty()
        chat_ctx.add_message(role="user", content="My name is Ann.")
        chat_ctx.add_message(role="assistant", content="Hello Ann.")
        await session.update_chat_ctx(chat_ctx)
        server.say("In force.")
        event = await session.generate_reply(instructions="Go on.")
        assert (await read(event))[0] == "In force." or seen.replies
        grammar = last(server).grammar
        assert grammar.system == "Be brief."
        assert grammar.prompt["toolConfiguration"]["tools"][0]["toolSpec"]["name"] == "weather"
        assert [*grammar.history, *grammar.typed_texts][-1] == "Go on."
        assert "My name is Ann." in str([*grammar.history, *grammar.typed_texts])
        assert not seen.named("error")


@pytest.mark.looptime
async def test_a_change_takes_the_next_stream_and_cuts_nothing(server: SonicServer) -> None:
    server.reply(SonicReply(["A long story."], hold=True), SonicReply(["Kindly."]))
    async with talking(server) as (session, seen):
        event = await session.generate_reply()
        await session.update_instructions("Be kind.")
        await when(lambda: len(server.connections) == 2)
        future = session.generate_reply(instructions="And now?")
        await asyncio.sleep(0.02)
        assert not future.done()
        first(server).release()
        assert event.outcome is not None
        assert await event.outcome == "completed"
        await future
        await when(lambda: len(seen.replies) == 2 and seen.replies[1].done())
        assert seen.replies[1].result()[0] == "Kindly."
        assert last(server).grammar.system.startswith("Be kind.")
        assert "A long story." in last(server).grammar.system  # the model spoke first
        assert first(server).last_frame
        assert not seen.named("error")


async def test_a_removed_item_is_gone_from_the_next_turn_on(server: SonicServer) -> None:
    async with talking(server) as (session, seen):
        chat_ctx = ChatContext.empty()
        chat_ctx.add_message(role="user", content="A secret.")
        chat_ctx.add_message(role="assistant", content="I see.")
        await session.update_chat_ctx(chat_ctx)
        await session.generate_reply(instructions="Go on.")
        await when(lambda: seen.replies and seen.replies[0].done())
        shorter = session.chat_ctx
        del shorter.items[0]
        await session.update_chat_ctx(shorter)
        await session.generate_reply(instructions="And?")
        await when(lambda: len(seen.replies) == 2 and seen.replies[1].done())
        assert "A secret." not in str([last(server).grammar.history, last(server).grammar.system])
        assert len(server.connections) == 2


# -- ends ----------------------------------------------------------------------------------------


End = Callable[[SonicConnection], Awaitable[None]]


async def cap(connection: SonicConnection) -> None:
    await connection.fail("modelTimeoutException", "The session has lasted too long.")


async def drop(connection: SonicConnection) -> None:
    connection.stream.drop()


async def reset(connection: SonicConnection) -> None:
    connection.stream.reset(0)


async def goaway(connection: SonicConnection) -> None:
    connection.stream.goaway(0)


async def rude_goaway(connection: SonicConnection) -> None:
    connection.stream.goaway(2, last=0, debug=b"maintenance")


async def overload(connection: SonicConnection) -> None:
    await connection.fail("throttlingException", "Too many.")


async def hiccup(connection: SonicConnection) -> None:
    await connection.fail("validationException", "System instability detected")


async def garbage(connection: SonicConnection) -> None:
    await connection.stream.send(b"\x00" * 40)


async def hang_up(connection: SonicConnection) -> None:
    connection.stream.end()


ENDS = [cap, drop, reset, goaway, rude_goaway, overload, hiccup, garbage, hang_up]


async def test_a_hundred_ends_in_a_row_lose_and_repeat_no_item(server: SonicServer) -> None:
    async with talking(server) as (session, seen):
        expected: list[tuple[str, str]] = []
        for number in range(100):
            server.say(f"Reply {number}.")
            await session.generate_reply(instructions=f"Say {number}.")
            await when(lambda: seen.replies[-1].done() if seen.replies else False)
            expected.append(("assistant", f"Reply {number}."))
            await when(lambda: len(seen.replies) == len(expected))
            assert texts(session) == expected
            before = len(server.connections)
            end = ENDS[number % len(ENDS)]
            await end(last(server))
            await when(lambda before=before: len(server.connections) > before)
            await session.connected()
        server.say("Last.")
        await session.generate_reply()
        await when(lambda: len(seen.replies) == 101 and seen.replies[-1].done())
        assert texts(session) == [*expected, ("assistant", "Last.")]
        told = str([last(server).grammar.system, *last(server).grammar.history])
        for number in range(100):
            assert told.count(f"Reply {number}.") == 1
        assert len(server.connections) == 101
        assert [e.recoverable for e in seen.named("error")].count(False) == 0


@pytest.mark.parametrize("end", ENDS, ids=lambda end: end.__name__)
@pytest.mark.parametrize("step", range(12))
async def test_a_fault_at_every_step_of_a_reply(end: End, step: int) -> None:
    """Whatever breaks when: futures end, the session goes on, and nothing is told twice."""
    broken: list[int] = []
    async with SonicServer(credentials=KEYS) as server:
        server.reply(
            SonicReply(["One.", "Two."], calls=[ServerCall("weather", '{"city":"A"}', "c1")])
        )
        server.say("After.")
        send = SonicConnection.send_text

        async def counted(self: SonicConnection, text: str) -> None:
            if self.number == 1:
                broken.append(1)
                if len(broken) == step + 1:
                    await end(self)
                    if end is not goaway:
                        raise ConnectionError("broken on purpose")
            await send(self, text)

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(SonicConnection, "send_text", counted)
            async with no_leaks(), talking(server) as (session, seen):
                await session.update_tools([weather])
                asked = session.generate_reply(instructions="Go.")
                try:
                    async with asyncio.timeout(10):
                        await asked
                except RealtimeError:
                    pass
                await when(lambda: len(server.connections) >= 2)
                await when(lambda: all(task.done() for task in seen.replies))
                for generation in seen.named("generation_created"):
                    assert await generation.outcome in ("completed", "failed", "cancelled")
                server.say("After all.")
                async with asyncio.timeout(10):
                    await session.generate_reply(instructions="Still there?")
                await when(lambda: seen.replies[-1].done())
                ids = [item.id for item in session.chat_ctx.items]
                assert len(ids) == len(set(ids))
                calls = [i for i in session.chat_ctx.items if i.type == "function_call"]
                assert len(calls) <= 2


@pytest.mark.looptime
async def test_the_next_stream_is_ready_before_the_old_one_ends() -> None:
    async with (
        SonicServer(credentials=KEYS) as server,
        talking(server, max_session_duration=20.0) as (session, seen),
    ):
        await session.generate_reply(instructions="Hello.")
        await when(lambda: seen.replies and seen.replies[0].done())
        await asyncio.sleep(15)
        server.reply(SonicReply(["A very long story."], hold=True))
        event = await session.generate_reply(instructions="Tell a story.")
        for _ in range(8):
            await asyncio.sleep(5)
            await first(server).send(
                "audioOutput", contentId=first(server)._open_sound, content="AAAA"
            )
        assert len(server.connections) >= 2
        assert not seen.named("session_reconnected")
        first(server).release()
        assert event.outcome is not None
        assert await event.outcome == "completed"
        await when(lambda: seen.named("session_reconnected"))
        server.say("On the next one.")
        await session.generate_reply(instructions="And then?")
        await when(lambda: len(seen.replies) == 3 and seen.replies[2].done())
        assert "A very long story." in last(server).grammar.system
        assert not seen.named("error")
        # A stream that waited too long was made anew.
        assert len(server.connections) == 3


@pytest.mark.looptime
async def test_a_silent_user_is_carried_over_many_caps() -> None:
    async with (
        SonicServer(credentials=KEYS, cap=48, idle=10) as server,
        talking(server, max_session_duration=36.0) as (session, seen),
    ):
        await session.generate_reply(instructions="Remember: Ann.")
        await when(lambda: seen.replies and seen.replies[0].done())
        await asyncio.sleep(100)
        assert len(server.connections) == 3
        assert not seen.named("error")
        assert "Hello." in last(server).grammar.system
        assert len(last(server).grammar.audio) <= 30 * 32000


@pytest.mark.looptime
async def test_silence_is_paced_where_the_application_is_silent() -> None:
    async with SonicServer(credentials=KEYS, idle=5) as server, talking(server) as (session, seen):
        await session.connected()
        await asyncio.sleep(30)
        assert len(server.connections) == 1
        assert not seen.named("error")
        seconds = len(first(server).grammar.audio) / 32000
        assert 27 <= seconds <= 30
        assert not any(first(server).grammar.audio)
        for _ in range(100):
            session.push_audio(sound(value=1000))
            await asyncio.sleep(0.1)
        pushed = bytes(first(server).grammar.audio).count(sound(50, 1000).data.tobytes())
        assert pushed == 200  # no silence between


@pytest.mark.parametrize("end", [cap, drop, reset], ids=lambda end: end.__name__)
async def test_what_the_user_says_during_a_swap_arrives_once(server: SonicServer, end: End) -> None:
    async with talking(server) as (session, _):
        session.push_audio(sound(200))
        await when(lambda: server.connections and len(first(server).grammar.audio) >= 6400)
        words = [1000 + n for n in range(40)]
        for index, value in enumerate(words):
            session.push_audio(sound(50, value))
            if index == 20:
                await end(last(server))
            await asyncio.sleep(0.002)
        await when(lambda: len(server.connections) == 2)
        await session.connected()
        await when(lambda: sound(50, words[-1]).data.tobytes() in bytes(last(server).grammar.audio))
        heard = bytes(last(server).grammar.audio)
        places = [heard.find(sound(50, value).data.tobytes()) for value in words]
        assert places == sorted(places)
        assert all(heard.count(sound(50, value).data.tobytes()) == 1 for value in words)


async def test_a_turn_that_was_answered_is_not_said_again(server: SonicServer) -> None:
    async with talking(server) as (session, seen):
        for _ in range(10):
            session.push_audio(sound(50, 3000))
        await when(lambda: server.connections and len(first(server).grammar.audio) >= 16000)
        await first(server).speech("Hello")
        await first(server).speak(SonicReply(["Hi."]))
        await when(lambda: seen.replies and seen.replies[0].done())
        await drop(first(server))
        await when(lambda: len(server.connections) == 2)
        session.push_audio(sound(50, 7))
        await when(lambda: last(server).grammar.audio)
        assert sound(50, 3000).data.tobytes() not in bytes(last(server).grammar.audio)
        assert last(server).grammar.history == [("USER", "Hello"), ("ASSISTANT", "Hi.")]


@pytest.mark.looptime
async def test_a_user_who_speaks_is_not_swapped_away() -> None:
    """The service tells late that it hears somebody; the loudness tells at once."""
    async with (
        SonicServer(credentials=KEYS) as server,
        talking(server, max_session_duration=1.0) as (session, seen),
    ):
        await session.connected()
        for _ in range(60):
            session.push_audio(sound(50, 4000))
            await asyncio.sleep(0.05)
        assert not seen.named("session_reconnected")
        assert len(server.connections) == 2
        await first(server).speech("I spoke for three seconds")
        await first(server).speak(SonicReply(["I heard."]))
        await when(lambda: seen.named("session_reconnected"))
        assert texts(session) == [
            ("user", "I spoke for three seconds"),
            ("assistant", "I heard."),
        ]


async def test_a_result_that_comes_after_the_end_of_its_stream_is_told(server: SonicServer) -> None:
    server.reply(SonicReply(calls=[ServerCall("weather", '{"city":"Rome"}', "c1")]))
    server.say("It rains in Rome.")
    async with talking(server) as (session, seen):
        await session.update_tools([weather])
        await session.generate_reply(instructions="Weather in Rome?")
        await when(lambda: seen.replies and seen.replies[0].done())
        await cap(first(server))
        await when(lambda: len(server.connections) == 2)
        await session.connected()
        session.push_audio(sound())
        await when(lambda: last(server).grammar.audio)
        await answer(session, "c1", "rain")
        await when(lambda: len(seen.replies) == 2 and seen.replies[1].done())
        (told,) = last(server).grammar.typed_texts
        assert "rain" in told
        assert seen.replies[1].result()[0] == "It rains in Rome."


async def test_a_half_open_connection_is_noticed(server: SonicServer) -> None:
    async with talking(server, silence_timeout=0.2) as (session, seen):
        await session.generate_reply()
        await when(lambda: seen.replies and seen.replies[0].done())
        first(server).stream.go_deaf()
        await when(lambda: len(server.connections) == 2)
        server.say("Awake.")
        await session.generate_reply()
        await when(lambda: len(seen.replies) == 2 and seen.replies[1].done())
        assert seen.replies[1].result()[0] == "Awake."


async def test_a_service_that_has_nothing_to_say_is_not_dead(server: SonicServer) -> None:
    async with talking(server, silence_timeout=0.1) as (session, seen):
        await session.connected()
        for _ in range(60):
            session.push_audio(sound())
            await asyncio.sleep(0.005)
        assert len(server.connections) == 1
        assert not seen.named("error")


# -- refusals ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("status", "name"),
    [
        (403, "AccessDeniedException"),
        (404, "ResourceNotFoundException"),
        (400, "ValidationException"),
    ],
)
@pytest.mark.looptime
async def test_a_refusal_is_one_fatal_error_in_the_words_of_aws(status: int, name: str) -> None:
    def refuse(number: int) -> tuple[int, str, str]:
        return status, name, "You shall not pass: a-long-secret-key"

    async with no_leaks(), SonicServer(refuse=refuse) as server, talking(server) as (session, seen):
        with pytest.raises(RealtimeError, match="You shall not pass"):
            await session.generate_reply()
        await asyncio.sleep(0.05)
        (error,) = seen.named("error")
        assert not error.recoverable
        assert name in str(error.error)
        assert "a-long-secret-key" not in str(error.error)
        assert len(server.requests) == 1


async def test_a_busy_service_is_asked_again() -> None:
    def refuse(number: int) -> tuple[int, str, str] | None:
        return (429, "ThrottlingException", "Too many.") if number < 3 else None

    async with SonicServer(refuse=refuse) as server, talking(server) as (session, seen):
        await session.generate_reply()
        await when(lambda: seen.replies and seen.replies[0].done())
        assert [error.recoverable for error in seen.named("error")] == [True, True]


async def test_credentials_that_expired_are_read_anew() -> None:
    class Frozen:
        access_key, secret_key, token = "AKIDEXAMPLE", "a-long-secret-key", None

    class Source:
        def get_frozen_credentials(self) -> Frozen:
            return Frozen()

    class Session:
        region_name = "us-east-1"
        asked = 0

        def get_credentials(self) -> Source:
            self.asked += 1
            return Source()

    def refuse(number: int) -> tuple[int, str, str] | None:
        return (403, "ExpiredTokenException", "expired") if number == 1 else None

    account = Session()
    async with SonicServer(refuse=refuse) as server:
        model = RealtimeModel(base_url=server.url, session=account)
        session = model.session()
        await session.connected()
        assert account.asked == 2
        await model.aclose()


async def test_a_service_that_always_hangs_up_is_not_dialled_for_ever(server: SonicServer) -> None:
    async def hang(connection: SonicConnection) -> None:
        connection.stream.reset(7)

    server.on_connect = hang
    async with talking(server) as (session, seen):
        with pytest.raises(RealtimeError):
            await session.generate_reply()
        assert len(server.requests) <= 5
        assert not seen.named("error")[-1].recoverable


async def test_without_credentials_nothing_is_sent(
    server: SonicServer, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    for name in (
        "AWS_ACCESS_KEY_ID",
        "AWS_SECRET_ACCESS_KEY",
        "AWS_PROFILE",
        "AWS_BEARER_TOKEN_BEDROCK",
    ):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    for name in ("AWS_SHARED_CREDENTIALS_FILE", "AWS_CONFIG_FILE"):
        monkeypatch.setenv(name, str(tmp_path / "none"))
    model = RealtimeModel(base_url=server.url)
    session = model.session()
    errors: list[Any] = []
    session.on("error", errors.append)
    with pytest.raises(RealtimeError, match="none were found"):
        await session.generate_reply()
    assert [error.recoverable for error in errors] == [False]
    assert not server.requests
    await model.aclose()


# -- options -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"model": "gpt-realtime"}, "not a Nova Sonic model"),
        ({"voice": "greta"}, "belongs to amazon.nova-sonic"),
        ({"voice": "olivia", "model": "amazon.nova-sonic-v1:0"}, "belongs to amazon.nova-2-sonic"),
        ({"voice": "tifany"}, "did you mean 'tiffany'"),
        ({"region": "eu-central-1"}, "is in ap-northeast-1, eu-north-1, us-east-1, us-west-2"),
        ({"region": "us-west-2", "model": "amazon.nova-sonic-v1:0"}, "does not have"),
        ({"region": "us-esat-1"}, "us-east-1"),
        ({"api_key": "AKID"}, "api_secret"),
        ({"modalities": ["text"]}, "always answers in speech"),
        ({"modalities": "text"}, "always answers in speech"),
        ({"modalities": "video"}, "modalities"),
        ({"turn_detection": "FAST"}, "HIGH"),
        ({"turn_detection": "HIGH", "model": "amazon.nova-sonic-v1:0"}, "not taken"),
        ({"temperature": 2.0}, "from 0 to 1"),
        ({"max_tokens": 20_000}, "at most 10000"),
        ({"tool_choice": "always"}, "tool_choice"),
        ({"base_url": "nova.example"}, "base_url"),
        ({"generate_reply_timeout": -1.0}, "generate_reply_timeout"),
    ],
)
def test_wrong_options_are_refused_at_once(options: dict[str, Any], told: str) -> None:
    with pytest.raises(ConfigurationError, match=told):
        RealtimeModel(**options)


def test_what_is_not_in_the_table_is_not_refused() -> None:
    RealtimeModel(voice="a-voice-of-tomorrow")
    RealtimeModel(region="eu-central-1", model="amazon.nova-2-5-sonic")
    RealtimeModel(
        region="eu-central-1", base_url="https://bedrock-runtime.eu-central-1.amazonaws.com"
    )
    RealtimeModel(model="amazon.nova-3-sonic-v1:0")


def test_each_model_has_a_name() -> None:
    assert RealtimeModel.with_nova_sonic_1().model == "amazon.nova-sonic-v1:0"
    assert RealtimeModel.with_nova_sonic_2(voice="amy").model == "amazon.nova-2-sonic-v1:0"
    assert RealtimeModel.with_nova_sonic_2_5().model == "amazon.nova-2-5-sonic"
    assert RealtimeModel().model == "amazon.nova-2-sonic-v1:0"
    assert RealtimeModel().provider == "Amazon"
    assert experimental.RealtimeModel is RealtimeModel


async def test_the_first_model_says_that_it_cannot_be_asked(server: SonicServer) -> None:
    server.typed = False
    async with talking(server, model="amazon.nova-sonic-v1:0") as (session, _):
        with pytest.raises(RealtimeError, match=r"use 'amazon.nova-2-sonic-v1:0'"):
            await session.generate_reply()
    async with talking(server, modalities="audio") as (session, _):
        with pytest.raises(RealtimeError, match="modalities='audio'"):
            await session.generate_reply()


async def test_what_has_no_effect_is_said_once(
    server: SonicServer, caplog: pytest.LogCaptureFixture
) -> None:
    async with talking(server) as (session, _):
        for _ in range(3):
            session.commit_audio()
            session.clear_audio()
            session.push_video(None)
    assert len([r for r in caplog.records if "no effect on Nova Sonic" in r.message]) == 3


async def test_the_contract_of_realtime_models_is_kept(server: SonicServer) -> None:
    await check_realtime(
        lambda: RealtimeModel(
            base_url=server.url, api_key=KEYS.access_key, api_secret=KEYS.secret_key
        )
    )
    assert not server.illegal
    assert not server.protocol_errors
