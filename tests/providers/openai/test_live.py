"""Sessions of OpenAI's Live API: one stream of sound, out of which the session makes turns."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from providers.openai.duplex import connection, live_service, talking, told, until
from providers.sessions.driving import read, sound, texts
from rejoinder.llm import ChatContext, FunctionCallOutput, function_tool
from rejoinder.llm.realtime import RealtimeError
from rejoinder.testing import ServerCall, ServerReply, no_leaks

pytestmark = pytest.mark.looptime


@function_tool
async def weather(city: str) -> str:
    """The weather in a city."""
    return f"rain in {city}"


async def test_a_reply_that_was_asked_for() -> None:
    service = live_service()
    async with talking(service) as (session, seen):
        service.say("Good morning to you.")
        text, ms, _ = await read(await session.generate_reply())
        assert text == "Good morning to you."
        assert 400 <= ms <= 400 + 800
        assert texts(session) == [("assistant", "Good morning to you.")]
        assert [event.user_initiated for event in seen.named("generation_created")] == [True]


async def test_the_model_speaks_by_itself_and_each_pause_ends_a_reply() -> None:
    service = live_service()
    async with talking(service) as (session, seen):
        await session.connected()
        live = connection(service)
        await live.begin_reply(ServerReply(["One. "]))
        await live.begin_reply(ServerReply(["Two."]))
        await until(lambda: len(texts(session)) == 2 and texts(session)[1][1])
        assert texts(session) == [("assistant", "One. "), ("assistant", "Two.")]
        assert [event.user_initiated for event in seen.named("generation_created")] == [False] * 2


async def test_what_the_user_says_is_one_turn() -> None:
    service = live_service()
    async with talking(service) as (session, seen):
        await session.connected()
        await connection(service).speech("How are you today?")
        await until(lambda: seen.named("input_speech_stopped"))
        names = [name for name, _ in seen if name.startswith("input_")]
        assert names[0] == "input_speech_started"
        assert names.count("input_speech_started") == names.count("input_speech_stopped") == 1
        heard = seen.named("input_audio_transcription_completed")
        assert [event.is_final for event in heard] == [False] * 4 + [True]
        assert heard[-1].transcript == "How are you today? "
        assert texts(session) == [("user", "How are you today? ")]


async def test_the_user_stands_before_the_answer_also_when_both_speak() -> None:
    service = live_service()
    async with talking(service) as (session, _):
        await session.connected()
        live = connection(service)
        await live.words_of_user("And now")
        await live.begin_reply(ServerReply(["Well, "], hold=True))
        await until(lambda: live.speaking)
        await live.words_of_user("for something")
        live.release()
        await until(lambda: len(texts(session)) == 2 and all(text for _, text in texts(session)))
        assert texts(session) == [("user", "And now for something "), ("assistant", "Well, ")]


async def test_all_settings_are_in_the_first_frame() -> None:
    service = live_service()
    async with talking(service, voice="cedar") as (session, _):
        history = ChatContext.empty()
        history.add_message(role="system", content="The user is Ada.")
        history.add_message(role="user", content="Hello.")
        history.add_message(role="assistant", content="Hello, Ada.")
        await session.update_instructions("Be brief.")
        await session.update_chat_ctx(history)
        await session.update_tools([weather])
        await session.connected()
        start = connection(service).start
        assert start["instructions"] == "Be brief."
        assert start["audio"]["output"] == {"voice": "cedar"}
        assert start["delegation"]["responses"]["tools"][0]["name"] == "weather"
        roles = [(message["role"], message["content"][0]["text"]) for message in start["input"]]
        assert roles == [
            ("developer", "The user is Ada."),
            ("user", "Hello."),
            ("assistant", "Hello, Ada."),
        ]
        assert len(service.connections) == 1
        assert not connection(service).told


@pytest.mark.parametrize("after", [0.0, 0.6, 2.0])
async def test_what_is_given_late_is_in_force(after: float) -> None:
    service = live_service()
    async with talking(service) as (session, seen):
        await asyncio.sleep(after)
        await session.update_instructions("Be brief.")
        await session.update_tools([weather])
        await read(await session.generate_reply())
        live = connection(service)
        assert live.start["instructions"] == "Be brief."
        assert live.start["delegation"]["responses"]["tools"]
        assert not seen.named("error")


async def test_tools_and_options_change_in_place() -> None:
    service = live_service()
    async with talking(service) as (session, seen):
        await session.connected()
        await session.update_tools([weather])
        session.update_options(
            tool_choice="required", responses_options={"text": {"verbosity": "low"}}
        )
        await read(await session.generate_reply())
        responses = connection(service).start["delegation"]["responses"]
        assert responses["tools"][0]["name"] == "weather"
        assert responses["tool_choice"] == "required"
        assert responses["text"] == {"verbosity": "low"}
        assert len(service.connections) == 1
        assert not seen.named("error")


async def test_calls_of_the_backend_run_once_and_the_batch_is_answered_whole() -> None:
    service = live_service()
    async with talking(service) as (session, seen):
        await session.update_tools([weather])
        await session.connected()
        live = connection(service)
        service.say("Rain in both.")
        await live.call(
            ServerCall("weather", '{"city":"Oslo"}', "a"), ServerCall("weather", "{}", "b")
        )
        await until(lambda: len(seen.named("function_call")) == 2)
        (event,) = seen.named("generation_created")
        assert [call.call_id async for call in event.function_stream] == ["a", "b"]
        for call_id in ("a", "b"):
            chat_ctx = session.chat_ctx
            chat_ctx.items.append(
                FunctionCallOutput(call_id=call_id, output="rain", is_error=False)
            )
            await session.update_chat_ctx(chat_ctx)
            await asyncio.sleep(1)
        await until(lambda: ("assistant", "Rain in both.") in texts(session))
        assert [result["call_id"] for result in live.results] == ["a", "b"]
        kinds = [event["type"] for event in live.events]
        assert kinds.count("response.create") == 1
        assert not seen.named("error")


async def test_a_call_joins_the_reply_that_is_being_spoken() -> None:
    service = live_service()
    async with talking(service) as (session, seen):
        service.reply(ServerReply(["One moment. "], calls=[ServerCall("weather")]))
        text, _, names = await read(await session.generate_reply())
        assert (text, names) == ("One moment. ", ["weather"])
        assert len(seen.named("generation_created")) == 1


@pytest.mark.parametrize("end", ["failed", "incomplete"])
async def test_a_response_that_fails_calls_nothing(end: str) -> None:
    service = live_service()
    async with talking(service) as (session, seen):
        await session.connected()
        await connection(service).call(ServerCall("weather"), end=end)
        await until(lambda: seen.named("error"))
        assert not seen.named("function_call")
        assert all(error.recoverable for error in seen.named("error"))
        await read(await session.generate_reply())


async def test_typed_text_is_told_and_answered_once() -> None:
    service = live_service()
    async with talking(service) as (session, seen):
        await session.connected()
        chat_ctx = session.chat_ctx
        chat_ctx.add_message(role="user", content="What is the capital of Norway?")
        await session.update_chat_ctx(chat_ctx)
        await read(await session.generate_reply())
        live = connection(service)
        assert told(live, "thinking") == ["The user has written: What is the capital of Norway?"]
        assert "What is the capital of Norway?" in told(live, "commentary")[0]
        await read(await session.generate_reply(instructions="Say goodbye."))
        assert told(live, "commentary")[1].endswith("Say goodbye.")
        assert len(seen.named("generation_created")) == 2


async def test_an_interrupt_drops_the_rest_and_says_so() -> None:
    service = live_service()
    async with talking(service) as (session, _):
        service.reply(ServerReply(["This is ", "a long story."], hold=True))
        event = await session.generate_reply()
        await until(lambda: connection(service).speaking and texts(session))
        await asyncio.sleep(0.1)
        session.interrupt()
        await read(event)
        assert event.outcome is not None
        assert await event.outcome == "interrupted"
        connection(service).release()
        service.say("Yes?")
        assert (await read(await session.generate_reply()))[0] == "Yes?"
        assert len(told(connection(service), "instructions")) == 1


async def test_truncating_cuts_the_own_copy_by_the_times_of_the_words() -> None:
    service = live_service()
    async with talking(service) as (session, _):
        service.reply(ServerReply(["One ", "two ", "three ", "four."], ms=500))
        event = await session.generate_reply()
        async for message in event.message_stream:
            await asyncio.sleep(1)
            session.truncate(message_id=message.message_id, modalities=["audio"], audio_end_ms=1000)
        assert texts(session) == [("assistant", "One two ")]


async def test_late_words_belong_to_the_sound_that_was_played() -> None:
    service = live_service()
    async with talking(service) as (session, _):
        await session.connected()
        live = connection(service)
        await live.begin_reply(ServerReply(["One, "], ms=200))
        await until(lambda: texts(session) == [("assistant", "One, ")] and not live.speaking)
        await live.send("session.output_transcript.delta", delta="two.", start_ms=100, end_ms=200)
        await until(lambda: texts(session) == [("assistant", "One, two.")])


async def test_words_without_sound_are_not_lost() -> None:
    service = live_service()
    async with talking(service) as (session, seen):
        await session.connected()
        live = connection(service)
        await live.send("session.output_transcript.delta", delta="Hm.", start_ms=0, end_ms=200)
        await live.silence(2500)
        await until(lambda: seen.named("generation_created"))
        assert await read(seen.named("generation_created")[0]) == ("Hm.", 0, [])


async def test_sound_is_sent_and_muting_survives_a_connection() -> None:
    service = live_service()
    async with talking(service) as (session, _):
        await session.connected()
        session.push_audio(sound(200))
        await until(lambda: len(connection(service).audio) == 200 * 48)
        session.mute_input()
        await until(lambda: connection(service).muted)
        connection(service).drop()
        await until(lambda: len(service.connections) == 2 and connection(service).muted)
        session.unmute_input()
        await until(lambda: not connection(service).muted)


async def test_the_stream_of_sound_has_the_silence_too() -> None:
    service = live_service()
    async with talking(service) as (session, _):
        await session.connected()
        stream = session.audio_stream
        await connection(service).silence(500)
        frames = [await anext(aiter(stream)) for _ in range(5)]
        assert [frame.frame.duration for frame in frames] == [0.1] * 5
        await session.aclose()
        assert [frame async for frame in stream] == []


async def test_usage_is_told_by_difference() -> None:
    service = live_service()
    async with talking(service) as (session, seen):
        await read(await session.generate_reply())
        await read(await session.generate_reply())
        await until(
            lambda: sum(m.session_duration > 0 for m in seen.named("metrics_collected")) == 2
        )
        first, second = [
            m.session_duration for m in seen.named("metrics_collected") if m.session_duration
        ]
        assert first == pytest.approx(1.1)
        assert second == pytest.approx(1.1)


async def test_a_rule_holds_on_later_connections() -> None:
    service = live_service()
    async with talking(service) as (session, _):
        await session.connected()
        session.append_instructions("Never swear.")
        session.append_thinking("The line is bad.")
        await until(lambda: len(connection(service).told) == 2)
        connection(service).drop()
        session.append_commentary("Dinner is ready.")
        await until(lambda: len(service.connections) == 2 and connection(service).told)
        live = connection(service)
        assert live.said[0] == ("developer", "Never swear.")
        assert live.told == [("commentary", None, "Dinner is ready.")]


async def test_long_texts_are_told_in_pieces() -> None:
    service = live_service()
    async with talking(service) as (session, seen):
        await session.connected()
        text = "All work and no play makes Jack a dull boy. " * 120
        session.append_thinking(text)
        await until(lambda: "".join(told(connection(service), "thinking")) == text)
        assert len(told(connection(service), "thinking")) > 1
        assert not seen.named("error")


async def test_the_end_that_the_service_names_is_not_waited_for() -> None:
    service = live_service()

    async def soon(made: Any) -> None:
        made.expires_in = 90.0

    service.on_connect = soon
    async with talking(service) as (session, seen):
        service.say("First.")
        await read(await session.generate_reply())
        await asyncio.sleep(50)
        assert len(service.connections) == 2
        assert connection(service).said == [("assistant", "First.")]
        assert seen.named("session_reconnected")
        assert not seen.named("error")


@pytest.mark.parametrize("reason", ["expired", "remote_hangup", "connection_lost"])
async def test_an_ended_session_is_continued_with_its_history(reason: str) -> None:
    service = live_service()
    async with talking(service) as (session, seen):
        service.say("First.")
        await read(await session.generate_reply())
        await connection(service).end_session(reason)
        service.say("Second.")
        assert (await read(await session.generate_reply()))[0] == "Second."
        assert connection(service).said[0] == ("assistant", "First.")
        assert all(error.recoverable for error in seen.named("error"))


async def test_the_safety_filter_ends_the_session_for_good() -> None:
    service = live_service()
    async with talking(service) as (session, seen):
        await session.connected()
        await connection(service).end_session("content")
        with pytest.raises(RealtimeError, match="safety filter"):
            await session.generate_reply()
        assert [error.recoverable for error in seen.named("error")] == [False]
        assert len(service.connections) == 1


async def test_a_refused_session_is_one_error() -> None:
    service = live_service()

    async def refuse(connection: Any, event: dict[str, Any]) -> bool:
        await connection.error("Unknown voice.", code="invalid_value", ref=event["event_id"])
        return True

    service.on_event = refuse
    async with talking(service) as (session, seen):
        with pytest.raises(RealtimeError, match="refused the session: Unknown voice"):
            await session.connected()
        assert [error.recoverable for error in seen.named("error")] == [False]


async def test_an_item_that_is_removed_needs_a_new_session() -> None:
    service = live_service()
    async with talking(service) as (session, _):
        service.say("First.")
        service.say("Second.")
        await read(await session.generate_reply())
        await read(await session.generate_reply())
        chat_ctx = session.chat_ctx
        del chat_ctx.items[0]
        await session.update_chat_ctx(chat_ctx)
        await until(lambda: len(service.connections) == 2)
        assert connection(service).said == [("assistant", "Second.")]


async def test_a_result_that_comes_too_late_is_told_in_words() -> None:
    service = live_service()
    async with talking(service) as (session, seen):
        await session.connected()
        await connection(service).call(ServerCall("weather", "{}", "a"))
        await until(lambda: seen.named("function_call"))
        connection(service).drop()
        await until(lambda: len(service.connections) == 2)
        await session.connected()
        chat_ctx = session.chat_ctx
        chat_ctx.items.append(
            FunctionCallOutput(call_id="a", name="weather", output="rain", is_error=False)
        )
        service.say("It rains.")
        await session.update_chat_ctx(chat_ctx)
        await until(lambda: ("assistant", "It rains.") in texts(session))
        live = connection(service)
        assert not live.results
        assert told(live, "commentary") == ["The tool weather returned: rain"]
        assert live.said[0][1] == "The tool weather was called with {}."


async def test_nothing_raises_after_the_end() -> None:
    service = live_service()
    async with talking(service) as (session, _):
        waiting = [session.generate_reply() for _ in range(3)]
        await session.aclose()
        await session.aclose()
        assert all(isinstance(future.exception(), RealtimeError) for future in waiting)
        session.append_instructions("x")
        session.append_thinking("x")
        session.append_commentary("x")
        session.mute_input()
        session.push_audio(sound())
        session.commit_audio()
        session.send_event({"type": "session.close"})
        session.interrupt()


@pytest.mark.parametrize("seconds", [5.0, 9.9, 30.0, 300.0])
async def test_a_request_that_the_backend_answers_with_a_slow_tool(seconds: float) -> None:
    service = live_service()
    async with talking(service) as (session, seen):
        await session.update_tools([weather])
        service.reply(ServerReply([], calls=[ServerCall("weather", '{"city":"Oslo"}', "a")]))
        future = session.generate_reply()
        await until(lambda: seen.named("function_call"))
        await asyncio.sleep(seconds)
        chat_ctx = session.chat_ctx
        chat_ctx.items.append(FunctionCallOutput(call_id="a", output="rain", is_error=False))
        service.say("It rains in Oslo.")
        await session.update_chat_ctx(chat_ctx)
        assert (await read(await future))[0] == "It rains in Oslo."
        assert not seen.named("error")


async def test_a_backend_that_thinks_for_long_is_not_silent() -> None:
    service = live_service()
    async with talking(service) as (session, seen):
        await session.connected()
        service.reply(ServerReply([]))
        future = session.generate_reply()
        live = connection(service)
        for _ in range(10):
            await asyncio.sleep(8)
            await live.thinks()
        await live.begin_reply(ServerReply(["At last."]))
        assert (await read(await future))[0] == "At last."
        assert not seen.named("error")


async def test_a_service_that_is_silent_after_a_result_is_not_waited_for() -> None:
    service = live_service()
    async with talking(service) as (session, seen):
        await session.update_tools([weather])
        service.reply(ServerReply([], calls=[ServerCall("weather", "{}", "a")]))
        future = session.generate_reply()
        await until(lambda: seen.named("function_call"))
        await asyncio.sleep(60)
        assert not future.done()
        chat_ctx = session.chat_ctx
        chat_ctx.items.append(FunctionCallOutput(call_id="a", output="rain", is_error=False))
        service.reply(ServerReply([]))
        loop = asyncio.get_running_loop()
        answered = loop.time()
        await session.update_chat_ctx(chat_ctx)
        with pytest.raises(RealtimeError) as caught:
            await future
        assert caught.value.code == "timeout"
        assert loop.time() - answered == pytest.approx(10, abs=1.5)


@pytest.mark.parametrize("answered", [True, False], ids=["answered", "over"])
async def test_a_request_waits_for_the_task_that_it_became(answered: bool) -> None:
    service = live_service()
    async with talking(service, delegation="client") as (session, seen):
        await session.connected()
        live = connection(service)
        service.reply(ServerReply([]))
        future = session.generate_reply()
        await live.delegate(delegation_id="task")
        await asyncio.sleep(45)
        assert not future.done()
        if answered:
            session.append_commentary("It rains.", delegation_id="task")
            assert (await read(await future))[0] == "It rains."
        else:
            session.delegation_over("task")
            with pytest.raises(RealtimeError, match="within 10 s"):
                await future
        assert not seen.named("error")


async def test_a_muted_microphone_holds_no_change() -> None:
    service = live_service()
    async with talking(service) as (session, seen):
        await session.connected()
        session.push_audio(sound(300, 40))  # and nothing after it
        await session.update_instructions("Be brief.")
        await asyncio.sleep(5)
        assert not seen.named("session_reconnected")
        await asyncio.sleep(3)
        assert seen.named("session_reconnected")
        assert connection(service).start["instructions"] == "Be brief."


async def test_a_request_does_not_fail_because_the_user_goes_on_speaking() -> None:
    service = live_service()
    async with talking(service) as (session, seen):
        await session.connected()
        await session.update_instructions("Be brief.")

        async def speak() -> None:
            while True:
                session.push_audio(sound(100, 40))
                await asyncio.sleep(0.1)

        speaking = asyncio.ensure_future(speak())
        await asyncio.sleep(1)
        await session.update_instructions("Be very brief.")
        service.say("Yes.")
        assert (await read(await session.generate_reply()))[0] == "Yes."
        assert connection(service).start["instructions"] == "Be very brief."
        assert not seen.named("error")
        speaking.cancel()


async def test_a_prepared_connection_that_ends_leaves_nothing_behind() -> None:
    service = live_service()
    async with no_leaks(), talking(service) as (session, seen):
        await session.connected()
        session.push_audio(sound(300, 40))
        await session.update_instructions("Be brief.")
        await until(lambda: len(service.connections) == 2)
        await asyncio.sleep(0.1)
        connection(service).drop()
        await asyncio.sleep(30)
        assert connection(service).start["instructions"] == "Be brief."
        await read(await session.generate_reply())
        assert not seen.named("error")
