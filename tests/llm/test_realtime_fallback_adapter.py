"""One conversation over several realtime models, and over a text model when none is left."""

from __future__ import annotations

import asyncio
import base64
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from providers.sessions.driving import Seen, read, sound, texts
from rejoinder.errors import APIConnectionError, ConfigurationError
from rejoinder.llm import (
    ChatContext,
    FunctionCallOutput,
    FunctionToolCall,
    RealtimeAvailabilityChangedEvent,
    RealtimeModelFallbackAdapter,
    function_tool,
)
from rejoinder.llm.realtime import RealtimeError
from rejoinder.providers.openai.realtime import RealtimeModel
from rejoinder.testing import (
    RealtimeConnection,
    RealtimeServer,
    ScriptedLLM,
    ServerCall,
    ServerReply,
    no_leaks,
)
from rejoinder.types import APIConnectOptions

FAST = APIConnectOptions(max_retry=0, retry_interval=0.01)


@function_tool
async def weather(city: str) -> str:
    """Tell the weather."""
    return city


@pytest.fixture
async def servers() -> AsyncIterator[list[RealtimeServer]]:
    async with RealtimeServer() as one, RealtimeServer() as two:
        yield [one, two]


@asynccontextmanager
async def talking(
    servers: list[RealtimeServer], *, model_options: dict[str, Any] | None = None, **options: Any
) -> AsyncGenerator[tuple[Any, Seen], None]:
    models: list[Any] = [
        RealtimeModel(base_url=s.url, api_key="any", conn_options=FAST, **(model_options or {}))
        for s in servers
    ]
    adapter = RealtimeModelFallbackAdapter(models, **options)
    session = adapter.session()
    seen = Seen(session)

    def changed(event: RealtimeAvailabilityChangedEvent) -> None:
        index = [model is event.realtime_model for model in models].index(True)
        seen.append(("available", (index, event.available)))

    adapter.on("realtime_availability_changed", changed)
    try:
        yield session, seen
    finally:
        await adapter.aclose()
        for model in models:
            await model.aclose()


async def kill(server: RealtimeServer) -> None:
    """The service ends all sessions for good."""

    async def refuse(connection: RealtimeConnection) -> None:
        await connection.close(4000, "out of order")

    server.on_connect = refuse
    for connection in server.connections:
        await connection.error("The account is closed.", code="account_deactivated")


async def turns(count: int = 50) -> None:
    for _ in range(count):
        await asyncio.sleep(0)


async def until(condition: Any) -> None:
    while not condition():
        await asyncio.sleep(0.001)


async def test_the_next_model_goes_on_with_history_tools_and_instructions(
    servers: list[RealtimeServer],
) -> None:
    async with no_leaks(), talking(servers) as (session, seen):
        await session.update_instructions("Be brief.")
        await session.update_tools([weather])
        chat_ctx = ChatContext.empty()
        chat_ctx.add_message(role="user", content="Hi.")
        await session.update_chat_ctx(chat_ctx)
        servers[0].say("Good morning.")
        await read(await session.generate_reply())
        await kill(servers[0])
        await until(lambda: seen.named("session_reconnected"))
        servers[1].say("Still here.")
        assert (await read(await session.generate_reply()))[0] == "Still here."
        connection = servers[1].connections[0]
        assert connection.session["instructions"] == "Be brief."
        assert [tool["name"] for tool in connection.session["tools"]] == ["weather"]
        assert texts(session) == [
            ("user", "Hi."),
            ("assistant", "Good morning."),
            ("assistant", "Still here."),
        ]
        assert len(connection.items) == 3
        assert [error.recoverable for error in seen.named("error")] == [True]
        assert (0, False) in seen.named("available")


async def test_a_request_that_no_model_has_answered_goes_to_the_next(
    servers: list[RealtimeServer],
) -> None:
    async def die(connection: RealtimeConnection, event: dict[str, Any]) -> bool:
        if event["type"] != "response.create":
            return False
        await connection.error("You are out of money.", code="insufficient_quota")
        return True

    servers[0].on_event = die
    servers[1].say("Mine.")
    async with talking(servers) as (session, _):
        assert (await read(await session.generate_reply(instructions="Greet.")))[0] == "Mine."
        asked = [e for e in servers[1].connections[0].events if e["type"] == "response.create"]
        assert [e["response"]["instructions"] for e in asked] == ["Greet."]


async def test_a_model_without_a_connection_in_time_is_passed_over(
    servers: list[RealtimeServer],
) -> None:
    async def silence(_: RealtimeConnection) -> None:
        await asyncio.Event().wait()

    servers[0].on_connect = silence
    async with talking(servers, attempt_timeout=0.1) as (session, _):
        servers[1].say("Here.")
        assert (await read(await session.generate_reply()))[0] == "Here."
        for connection in servers[0].connections:
            connection.drop()


async def test_a_reply_that_was_cut_is_asked_for_again(servers: list[RealtimeServer]) -> None:
    async with talking(servers) as (session, seen):
        servers[0].reply(ServerReply(["Once upon "], hold=True))
        event = await session.generate_reply()
        await until(lambda: texts(session))
        await turns()
        servers[1].say("As I said.")
        await kill(servers[0])
        assert (await read(event))[0] == "Once upon "
        assert await event.outcome == "failed"
        await until(lambda: len(seen.named("generation_created")) == 2)
        await read(seen.named("generation_created")[1])
        assert texts(session) == [("assistant", "Once upon "), ("assistant", "As I said.")]


async def test_a_reply_is_not_asked_for_again_while_its_tool_runs(
    servers: list[RealtimeServer],
) -> None:
    async with talking(servers) as (session, seen):
        servers[0].reply(ServerReply(calls=[ServerCall("weather", '{"city": "Oslo"}')]))
        event = await session.generate_reply()
        (call,) = [call async for call in event.function_stream]
        await kill(servers[0])
        await until(lambda: seen.named("session_reconnected"))
        chat_ctx = session.chat_ctx
        chat_ctx.items.append(
            FunctionCallOutput(call_id=call.call_id, name="weather", output="rain", is_error=False)
        )
        await session.update_chat_ctx(chat_ctx)
        servers[1].say("It rains.")
        assert (await read(await session.generate_reply()))[0] == "It rains."
        kinds = [
            servers[1].connections[0].contents[i]["type"] for i in servers[1].connections[0].items
        ]
        assert kinds == ["function_call", "function_call_output", "message"]
        assert len(seen.named("generation_created")) == 2


async def test_handlers_of_a_vendors_events_stay(servers: list[RealtimeServer]) -> None:
    async with talking(servers) as (session, seen):
        kinds: list[str] = []

        def saw(event: dict[str, Any]) -> None:
            kinds.append(event["type"])

        session.on("openai_server_event_received", saw)
        await read(await session.generate_reply())
        assert kinds.count("response.done") == 1
        await kill(servers[0])
        await until(lambda: seen.named("session_reconnected"))
        kinds.clear()
        await read(await session.generate_reply())
        assert kinds.count("response.done") == 1


async def test_what_was_not_heard_of_an_earlier_model_is_cut(servers: list[RealtimeServer]) -> None:
    async with talking(servers) as (session, seen):
        servers[0].reply(ServerReply(["One ", "two ", "three ", "four."]))
        await read(await session.generate_reply())
        message_id = session.chat_ctx.items[0].id
        await kill(servers[0])
        await until(lambda: seen.named("session_reconnected"))
        session.truncate(message_id=message_id, modalities=["audio"], audio_end_ms=200)
        await until(lambda: texts(session) == [("assistant", "One two ")])
        await session.connected()
        connection = servers[1].connections[0]
        await until(
            lambda: (
                [
                    part["text"]
                    for i in connection.items
                    for part in connection.contents[i]["content"]
                ]
                == ["One two "]
            )
        )


# -- the text model ------------------------------------------------------------------------------


async def test_a_text_model_answers_when_no_voice_is_left(servers: list[RealtimeServer]) -> None:
    llm = ScriptedLLM("I can only write.")
    async with no_leaks(), talking(servers[:1], text=llm) as (session, seen):
        await session.update_instructions("Be brief.")
        await session.update_tools([weather])
        servers[0].say("Good morning.")
        await read(await session.generate_reply())
        await kill(servers[0])
        await until(lambda: seen.named("session_reconnected"))
        assert not session.capabilities.audio_output
        event = await session.generate_reply(instructions="Say why.")
        async for message in event.message_stream:
            assert await message.modalities == ["text"]
            assert [frame async for frame in message.audio_stream] == []
            assert "".join([text async for text in message.text_stream]) == "I can only write."
        assert await event.outcome == "completed"
        (call,) = llm.calls
        asked = [(i.role, i.text_content) for i in call.chat_ctx.messages()]
        assert asked == [("system", "Be brief.\nSay why."), ("assistant", "Good morning.")]
        assert call.tools == [weather]
        assert texts(session)[-1] == ("assistant", "I can only write.")
        assert [error.recoverable for error in seen.named("error")] == [True]


async def test_the_first_token_of_the_text_model_waits_for_no_clock(
    servers: list[RealtimeServer],
) -> None:
    """A request that is open when the last model fails is answered without a timer in between."""

    async def die(connection: RealtimeConnection, event: dict[str, Any]) -> bool:
        if event["type"] != "response.create":
            return False
        await connection.error("You are out of money.", code="insufficient_quota")
        return True

    for server in servers:
        server.on_event = die
    llm = ScriptedLLM("Here.")
    async with talking(servers, text=llm) as (session, _):
        failures: list[float] = []
        steps = 0

        def failed() -> None:
            failures.append(steps)

        session.on("error", failed)
        future = session.generate_reply()
        loop = asyncio.get_running_loop()
        timers: list[float] = []
        call_at = loop.call_at

        def counted(when: float, *args: Any, **kwargs: Any) -> Any:
            if len(failures) == 2:
                timers.append(when - loop.time())
            return call_at(when, *args, **kwargs)

        loop.call_at = counted  # type: ignore[method-assign]
        try:
            while not future.done():
                steps += 1
                await asyncio.sleep(0)
        finally:
            loop.call_at = call_at  # type: ignore[method-assign]
        assert len(failures) == 2
        assert steps - failures[1] < 60, (
            "turns of the loop from the last failure to the first token"
        )
        assert (await read(future.result()))[0] == "Here."


async def test_a_tool_of_the_text_model_is_called_and_answered(
    servers: list[RealtimeServer],
) -> None:
    llm = ScriptedLLM(
        [FunctionToolCall(name="weather", arguments='{"city": "Oslo"}', call_id="c1")], "It rains."
    )
    await kill(servers[0])
    async with talking(servers[:1], text=llm) as (session, _):
        await session.update_tools([weather])
        event = await session.generate_reply()
        (call,) = [call async for call in event.function_stream]
        assert (call.name, call.arguments) == ("weather", '{"city": "Oslo"}')
        chat_ctx = session.chat_ctx
        chat_ctx.items.append(
            FunctionCallOutput(call_id=call.call_id, name="weather", output="rain", is_error=False)
        )
        await session.update_chat_ctx(chat_ctx)
        assert (await read(await session.generate_reply()))[0] == "It rains."
        kinds = [item.type for item in llm.calls[1].chat_ctx.items]
        assert kinds == ["function_call", "function_call_output"]


async def test_the_conversation_goes_back_to_speech_between_turns(
    servers: list[RealtimeServer],
) -> None:
    server = servers[0]
    llm = ScriptedLLM(["One ", 0.3, "two."])
    async with no_leaks(), talking(servers[:1], text=llm, cooldown=0.05) as (session, seen):
        await read(await session.generate_reply())
        await kill(server)
        await until(lambda: not session.capabilities.audio_output)
        event = await session.generate_reply()
        server.on_connect = None
        dead = len(server.connections)
        await until(lambda: len(server.connections) > dead)
        assert not session.capabilities.audio_output, "the reply in text is not over"
        assert (await read(event))[0] == "One two."
        await until(lambda: session.capabilities.audio_output)
        server.say("And three.")
        text, ms, _ = await read(await session.generate_reply())
        assert (text, ms > 0) == ("And three.", True)
        assert texts(session) == [
            ("assistant", "Hello."),
            ("assistant", "One two."),
            ("assistant", "And three."),
        ]
        assert seen.named("available")[-1] == (0, True)


async def test_the_text_model_fails_and_is_asked_again(servers: list[RealtimeServer]) -> None:
    await kill(servers[0])
    llm = ScriptedLLM(APIConnectionError("down", retryable=False), "Up.")
    async with talking(servers[:1], text=llm) as (session, seen):
        with pytest.raises(RealtimeError, match="down"):
            await session.generate_reply()
        assert all(error.recoverable for error in seen.named("error"))
        assert (await read(await session.generate_reply()))[0] == "Up."


async def test_an_interrupted_text_reply_keeps_what_was_read(servers: list[RealtimeServer]) -> None:
    await kill(servers[0])
    llm = ScriptedLLM(["One ", "two ", 60.0, "three."], "Next.")
    async with talking(servers[:1], text=llm) as (session, _):
        event = await session.generate_reply()
        message = await anext(aiter(event.message_stream))
        assert await anext(aiter(message.text_stream)) == "One "
        await turns()
        session.interrupt()
        session.truncate(
            message_id=message.message_id,
            modalities=["text"],
            audio_end_ms=0,
            audio_transcript="One",
        )
        assert await event.outcome == "interrupted"
        assert texts(session) == [("assistant", "One")]
        await read(await session.generate_reply())
        assert [m.text_content for m in llm.calls[1].chat_ctx.messages()] == ["One"]


async def test_without_a_text_model_the_end_is_one_fatal_error(
    servers: list[RealtimeServer],
) -> None:
    async with no_leaks(), talking(servers) as (session, seen):
        await read(await session.generate_reply())
        await kill(servers[1])
        await kill(servers[0])
        await until(lambda: [e for e in seen.named("error") if not e.recoverable])
        with pytest.raises(RealtimeError, match="all realtime models have failed"):
            await session.generate_reply()
        assert [error.recoverable for error in seen.named("error")] == [True, False]
        await session.aclose()


# -- sound ---------------------------------------------------------------------------------------


def heard(server: RealtimeServer, number: int = -1) -> bytes:
    return bytes(server.connections[number].audio)


async def test_sound_of_a_turn_that_is_not_over_reaches_the_next_model_once(
    servers: list[RealtimeServer],
) -> None:
    async with talking(servers) as (session, seen):
        await read(await session.generate_reply())
        await servers[0].connections[0].send("input_audio_buffer.speech_started", item_id="u1")
        await until(lambda: seen.named("input_speech_started"))
        for value in range(1, 31):
            session.push_audio(sound(value=value))
        await kill(servers[0])
        await until(lambda: seen.named("error"))
        for value in range(31, 41):
            session.push_audio(sound(value=value))
        await until(lambda: servers[1].connections and len(heard(servers[1])) >= 40 * 4800)
        assert heard(servers[1]) == b"".join(bytes([v]) * 4800 for v in range(1, 41))


async def test_sound_of_a_turn_with_known_words_is_not_sent_again(
    servers: list[RealtimeServer],
) -> None:
    async with talking(servers) as (session, seen):
        await read(await session.generate_reply())
        session.push_audio(sound(value=1))
        await servers[0].connections[0].speech("What is this?")
        await until(lambda: seen.named("input_audio_transcription_completed"))
        session.push_audio(sound(value=2))
        await kill(servers[0])
        await until(lambda: servers[1].connections and len(heard(servers[1])) >= 4800)
        assert heard(servers[1]) == bytes([2]) * 4800
        assert ("user", "What is this?") in texts(session)


async def answered_without_a_transcript(
    server: RealtimeServer, session: Any, seen: Seen, value: int, answer: str
) -> None:
    replies = len(seen.named("generation_created"))
    connection = server.connections[-1]
    session.push_audio(sound(value=value))
    await connection.speech()
    await connection.begin_reply(ServerReply([answer]))
    await until(lambda: len(seen.named("generation_created")) > replies)
    event = seen.named("generation_created")[-1]
    assert (await read(event))[0] == answer
    assert await event.outcome == "completed"


async def test_an_answered_turn_without_a_transcript_becomes_sound_before_its_answer(
    servers: list[RealtimeServer],
) -> None:
    llm = ScriptedLLM("I can only write.")
    options = {"input_audio_transcription": None}
    async with talking(servers, model_options=options, text=llm) as (session, seen):
        await session.connected()
        await answered_without_a_transcript(servers[0], session, seen, 1, "One.")
        await answered_without_a_transcript(servers[0], session, seen, 2, "Two.")
        session.push_audio(sound(value=3))
        await servers[0].connections[0].speech()
        await until(lambda: len(seen.named("input_speech_stopped")) == 3)
        await kill(servers[0])
        await until(lambda: servers[1].connections and len(heard(servers[1])) >= 4800)
        assert heard(servers[1]) == bytes([3]) * 4800, "its turn is not answered"
        connection = servers[1].connections[0]
        parts = [connection.contents[i]["content"][0] for i in connection.items]
        assert [part.get("audio") or part["text"] for part in parts] == [
            base64.b64encode(bytes([1]) * 4800).decode(),
            "One.",
            base64.b64encode(bytes([2]) * 4800).decode(),
            "Two.",
        ]
        await kill(servers[1])
        await until(lambda: not session.capabilities.audio_output)
        await read(await session.generate_reply())
        said = [message.text_content for message in llm.calls[0].chat_ctx.messages()]
        unknown = "(speech that was not transcribed)"
        assert said == [unknown, "One.", unknown, "Two."]
        assert [item.role for item in session.chat_ctx.messages()][:4] == 2 * ["user", "assistant"]


async def test_a_late_transcript_takes_the_place_of_the_sound(
    servers: list[RealtimeServer],
) -> None:
    async with talking(servers) as (session, seen):
        await session.connected()
        await answered_without_a_transcript(servers[0], session, seen, 1, "One.")
        await answered_without_a_transcript(servers[0], session, seen, 2, "Two.")
        first = session.chat_ctx.items[0].id
        await (
            servers[0]
            .connections[0]
            .send(
                "conversation.item.input_audio_transcription.completed",
                item_id=first,
                content_index=0,
                transcript="First.",
            )
        )
        await until(lambda: texts(session)[0] == ("user", "First."))
        await kill(servers[0])
        await until(lambda: servers[1].connections and len(servers[1].connections[0].items) == 4)
        connection = servers[1].connections[0]
        parts = [connection.contents[i]["content"][0] for i in connection.items]
        assert [part.get("text") for part in parts] == ["First.", "One.", None, "Two."]
        assert heard(servers[1]) == b""


async def test_words_that_could_not_be_read_are_heard_by_the_next_model(
    servers: list[RealtimeServer],
) -> None:
    async with talking(servers) as (session, seen):
        await session.connected()
        session.push_audio(sound(value=1))
        await servers[0].connections[0].speech("")
        await until(lambda: seen.named("input_audio_transcription_completed"))
        await kill(servers[0])
        await until(lambda: servers[1].connections and len(heard(servers[1])) >= 4800)
        assert heard(servers[1]) == bytes([1]) * 4800
        assert not servers[1].connections[0].items


async def test_sound_pushed_while_the_text_model_answers_is_heard_later(
    servers: list[RealtimeServer],
) -> None:
    server = servers[0]
    async with talking(servers[:1], text=ScriptedLLM("Hm."), cooldown=0.05) as (session, _):
        await read(await session.generate_reply())
        await kill(server)
        await until(lambda: not session.capabilities.audio_output)
        for value in range(1, 11):
            session.push_audio(sound(value=value))
        server.on_connect = None
        await until(lambda: session.capabilities.audio_output)
        await until(lambda: len(heard(server)) >= 10 * 4800)
        assert heard(server) == b"".join(bytes([v]) * 4800 for v in range(1, 11))


async def test_a_hundred_swaps_lose_and_repeat_nothing(servers: list[RealtimeServer]) -> None:
    expected: list[tuple[str, str]] = []
    pushed = bytearray()
    async with talking(servers, cooldown=0) as (session, seen):
        for number in range(100):
            current = servers[number % 2]
            await session.connected()
            assert session.active_model is session.realtime_model.models[number % 2]
            current.say(f"Reply {number}.")
            assert (await read(await session.generate_reply()))[0] == f"Reply {number}."
            expected.append(("assistant", f"Reply {number}."))
            assert texts(session) == expected
            connection = current.connections[-1]
            await connection.send("input_audio_buffer.speech_started", item_id=f"u{number}")
            await until(lambda n=number: len(seen.named("input_speech_started")) == n + 1)
            session.clear_audio()
            pushed = bytearray()
            for value in range(1, 6):
                session.push_audio(sound(value=value))
                pushed += bytes([value]) * 4800
            await connection.error("The account is closed.", code="account_deactivated")
            await until(lambda n=number: len(seen.named("session_reconnected")) == n + 1)
            session.push_audio(sound(value=9))
            pushed += bytes([9]) * 4800
            following = servers[(number + 1) % 2]
            await until(
                lambda s=following, n=number, pushed=pushed: (
                    len(s.connections) == n // 2 + 1 + (n % 2) and len(heard(s)) >= len(pushed)
                )
            )
            assert heard(following) == pushed
        ids = servers[0].connections[-1].items
        assert len(ids) == len(set(ids)) == 100
    assert not [error for error in seen.named("error") if not error.recoverable]


# -- other ---------------------------------------------------------------------------------------


async def test_a_restart_changes_models_between_turns(servers: list[RealtimeServer]) -> None:
    async with talking(servers) as (session, seen):
        servers[0].reply(ServerReply(["A long story."], hold=True))
        event = await session.generate_reply()
        change = asyncio.create_task(session.realtime_model.restart_session(switch_model=True))
        await until(lambda: servers[1].connections)
        await turns()
        assert not seen.named("session_reconnected")
        servers[0].connections[0].release()
        assert (await read(event))[0] == "A long story."
        await change
        servers[1].say("On the other one.")
        assert (await read(await session.generate_reply()))[0] == "On the other one."
        assert not seen.named("error")


async def test_an_interrupt_while_models_change_ends_what_was_asked_for(
    servers: list[RealtimeServer],
) -> None:
    async with talking(servers) as (session, seen):
        await read(await session.generate_reply())
        error: list[Any] = []

        def asked(_: Any) -> None:
            error.append(session.generate_reply())
            session.interrupt()

        session.on("error", asked)
        await kill(servers[0])
        await until(lambda: error)
        with pytest.raises(RealtimeError) as caught:
            await error[0]
        assert caught.value.code == "superseded"
        await until(lambda: seen.named("session_reconnected"))
        assert (await read(await session.generate_reply()))[0] == "Hello."


async def test_closing_ends_what_waits(servers: list[RealtimeServer]) -> None:
    def ignore(_: RealtimeConnection, event: dict[str, Any]) -> bool:
        return event["type"] == "response.create"

    servers[0].on_event = ignore
    async with no_leaks(), talking(servers[:1]) as (session, _):
        future = session.generate_reply()
        await turns()
        await session.aclose()
        with pytest.raises(RealtimeError, match="closed"):
            await future
        with pytest.raises(RealtimeError, match="closed"):
            await session.generate_reply()
        await session.aclose()


async def test_closing_closes_every_session_that_was_made(servers: list[RealtimeServer]) -> None:
    """The failed one, which is being closed, and the next one, which is being set up."""
    silent = asyncio.Event()

    async def say_nothing(_: RealtimeConnection) -> None:
        await silent.wait()

    def working() -> list[str]:
        names = [task.get_name() for task in asyncio.all_tasks()]
        return [name for name in names if name.startswith(("realtime", "close a realtime"))]

    servers[1].on_connect = say_nothing
    async with talking(servers) as (session, _):
        await read(await session.generate_reply())
        await kill(servers[0])
        while working().count("realtime reader") < 1 or "next realtime model" not in {
            task.get_name() for task in asyncio.all_tasks()
        }:
            await asyncio.sleep(0)
        await session.aclose()
        assert working() == []
        silent.set()


def test_models_that_differ_in_kind_are_refused() -> None:
    spoken = RealtimeModel(api_key="any")
    written = RealtimeModel(api_key="any", modalities=["text"])
    with pytest.raises(ConfigurationError, match="audio_output"):
        RealtimeModelFallbackAdapter([spoken, written])
    with pytest.raises(ConfigurationError, match="at least one"):
        RealtimeModelFallbackAdapter([])
    with pytest.raises(TypeError, match="RealtimeModel"):
        RealtimeModelFallbackAdapter([ScriptedLLM()])  # type: ignore[list-item]
