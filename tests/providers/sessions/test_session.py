"""A realtime session against a server that refuses what the real one refuses."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from providers.sessions.driving import read, sound, talking, texts
from rejoinder.llm import ChatContext, FunctionCallOutput, function_tool
from rejoinder.llm.realtime import RealtimeError
from rejoinder.providers.openai import realtime as openai
from rejoinder.testing import (
    RealtimeConnection,
    RealtimeServer,
    ScriptedRealtimeModel,
    ServerCall,
    ServerReply,
    no_leaks,
)


def first(server: RealtimeServer) -> RealtimeConnection:
    return server.connections[0]


def sent(connection: RealtimeConnection, kind: str) -> list[dict[str, Any]]:
    return [event for event in connection.events if event["type"] == kind]


async def test_a_reply_is_spoken(server: RealtimeServer) -> None:
    server.say("Hello there.", ms=200)
    async with no_leaks(), talking(server) as (session, seen):
        event = await session.generate_reply()
        assert await read(event) == ("Hello there.", 400, [])
        assert event.user_initiated
        assert event.outcome is not None
        assert await event.outcome == "completed"
        assert texts(session) == [("assistant", "Hello there.")]
        tokens = [m for m in seen.named("metrics_collected") if m.total_tokens]
        assert [(m.input_tokens, m.output_tokens) for m in tokens] == [(20, 10)]


async def test_settings_given_at_any_time_are_in_force(server: RealtimeServer) -> None:
    @function_tool
    async def weather(city: str) -> str:
        """Tell the weather."""
        return city

    async with talking(server) as (session, _):
        await session.update_instructions("Be brief.")
        await session.update_tools([weather])
        await read(await session.generate_reply())
        await session.update_instructions("Be kind.")
        await session.update_tools([])
        await read(await session.generate_reply())
        assert first(server).session["instructions"] == "Be kind."
        assert first(server).session["tools"] == []
        opening = sent(first(server), "session.update")[0]["session"]
        assert opening["instructions"] == "Be brief."
        assert [tool["name"] for tool in opening["tools"]] == ["weather"]


async def test_instructions_of_a_reply_are_added_to_those_of_the_session(
    server: RealtimeServer,
) -> None:
    async with talking(server) as (session, _):
        await session.update_instructions("Be brief.")
        await read(await session.generate_reply(instructions="Greet."))
        (asked,) = sent(first(server), "response.create")
        assert asked["response"]["instructions"] == "Be brief.\nGreet."


async def test_a_history_stands_where_it_was_put(server: RealtimeServer) -> None:
    async with talking(server) as (session, _):
        chat_ctx = ChatContext.empty()
        chat_ctx.add_message(role="system", content="You are kind.")
        chat_ctx.add_message(role="user", content="Hi.")
        chat_ctx.add_message(role="assistant", content="Hello.")
        await session.update_chat_ctx(chat_ctx)
        await read(await session.generate_reply())
        roles = [first(server).contents[i]["role"] for i in first(server).items]
        assert roles == ["system", "user", "assistant", "assistant"]
        shorter = session.chat_ctx
        del shorter.items[1]
        await session.update_chat_ctx(shorter)
        assert [first(server).contents[i]["role"] for i in first(server).items] == [
            "system",
            "assistant",
            "assistant",
        ]


async def test_a_request_beside_the_reply_of_the_service_waits_for_its_end(
    server: RealtimeServer,
) -> None:
    async with talking(server) as (session, seen):
        await read(await session.generate_reply())
        connection = first(server)
        await connection.begin_reply(ServerReply(["One moment."], hold=True))
        await server.until(lambda: connection.running is not None)
        while len(seen.named("generation_created")) < 2:
            await asyncio.sleep(0)
        server.say("Yours.")
        future = session.generate_reply()
        for _ in range(20):
            await asyncio.sleep(0)
        assert len(sent(connection, "response.create")) == 1
        connection.release()
        assert (await read(await future))[0] == "Yours."
        assert [event.user_initiated for event in seen.named("generation_created")] == [
            True,
            False,
            True,
        ]


async def test_a_request_that_the_service_refuses_as_busy_is_made_again(
    server: RealtimeServer,
) -> None:
    async with talking(server) as (session, _):
        await read(await session.generate_reply())
        connection = first(server)

        async def race(other: RealtimeConnection, event: dict[str, Any]) -> bool:
            if event["type"] == "response.create" and other.running is None and not raced:
                raced.append(1)
                await other.begin_reply(ServerReply(["Mine first."]))
            return False

        raced: list[int] = []
        server.on_event = race
        server.say("Yours.")
        assert (await read(await session.generate_reply()))[0] == "Yours."
        assert len(sent(connection, "response.create")) == 3


async def test_a_refused_request_fails_at_once(server: RealtimeServer) -> None:
    async def refuse(connection: RealtimeConnection, event: dict[str, Any]) -> bool:
        if event["type"] != "response.create":
            return False
        await connection.error("No such tool.", code="invalid_value", ref=event["event_id"])
        return True

    server.on_event = refuse
    async with talking(server) as (session, _):
        with pytest.raises(RealtimeError, match="No such tool") as caught:
            await session.generate_reply()
        assert caught.value.code == "invalid_value"


async def test_interrupting_stops_what_is_heard_and_nothing_else(server: RealtimeServer) -> None:
    async with talking(server) as (session, seen):
        session.interrupt()
        server.reply(ServerReply(["A long "], hold=True))
        event = await session.generate_reply()
        while not session.chat_ctx.items:
            await asyncio.sleep(0)
        session.interrupt()
        assert event.outcome is not None
        assert await event.outcome == "interrupted"
        server.say("Next.")
        assert (await read(await session.generate_reply()))[0] == "Next."
        assert len(sent(first(server), "response.cancel")) == 1
        assert not seen.named("error")


async def test_an_interrupt_ends_what_was_asked_for(server: RealtimeServer) -> None:
    async with talking(server) as (session, _):
        future = session.generate_reply()
        session.interrupt()
        with pytest.raises(RealtimeError) as caught:
            await future
        assert caught.value.code == "superseded"
        server.say("Heard.")
        assert (await read(await session.generate_reply()))[0] == "Heard."


@pytest.mark.looptime
async def test_a_reply_that_comes_too_late_is_cancelled_and_never_heard(
    server: RealtimeServer,
) -> None:
    asked: list[str] = []

    async def hold_back(connection: RealtimeConnection, event: dict[str, Any]) -> bool:
        if event["type"] == "response.create" and not asked:
            asked.append(event["response"]["metadata"]["client_event_id"])
            return True
        return False

    server.on_event = hold_back
    async with talking(server, reply_timeout=0.05) as (session, seen):
        with pytest.raises(RealtimeError) as caught:
            await session.generate_reply()
        assert caught.value.code == "timeout"
        late = await first(server).begin_reply(ServerReply(["Late."], hold=True), ref=asked[0])
        await server.until(lambda: sent(first(server), "response.cancel"))
        assert sent(first(server), "response.cancel")[0]["response_id"] == late
        assert not seen.named("generation_created")


@pytest.mark.looptime
@pytest.mark.parametrize("turns", range(12))
async def test_a_request_can_be_given_up_at_any_moment(turns: int) -> None:
    async with ScriptedRealtimeModel(ServerReply(["No."], hold=True), "Yes.") as model:
        session = model.session()
        await session.connected()
        request = session.generate_reply()
        for _ in range(turns):
            await asyncio.sleep(0)
        if request.cancel():
            async with asyncio.timeout(4):  # less than the time a cancelled reply may take to end
                assert (await read(await session.generate_reply()))[0] == "Yes."
        else:
            assert request.done()


@pytest.mark.parametrize("end", [-1, 0, 50, 200, 399, 400, 10_000])
async def test_truncating_is_legal_at_any_time(server: RealtimeServer, end: int) -> None:
    async with talking(server) as (session, seen):
        server.reply(ServerReply(["One ", "two ", "three ", "four."], hold=True))
        event = await session.generate_reply()
        while (
            not (items := session.chat_ctx.items) or first(server).sent_ms.get(items[0].id) != 400
        ):
            await asyncio.sleep(0)
        for _ in range(10):
            await asyncio.sleep(0)
        message_id = items[0].id
        session.interrupt()
        session.truncate(message_id=message_id, modalities=["audio"], audio_end_ms=end)
        await read(event)
        server.say("Go on.")
        await read(await session.generate_reply())
        assert not seen.named("error")
        told = dict(texts(session)[:-1]).get("assistant", "")
        assert told == "" if end <= 0 else "One two three four.".startswith(told)
        if end >= 400:
            assert told == "One two three four."


async def test_a_call_is_run_once_and_answered_once(server: RealtimeServer) -> None:
    async with talking(server) as (session, _):
        server.reply(ServerReply(calls=[ServerCall("weather", '{"city": "Oslo"}')]))
        event = await session.generate_reply()
        (call,) = [call async for call in event.function_stream]
        assert call.arguments == '{"city": "Oslo"}'
        for _ in range(2):
            chat_ctx = session.chat_ctx
            chat_ctx.items.append(
                FunctionCallOutput(
                    call_id=call.call_id, name=call.name, output="rain", is_error=False
                )
            )
            await session.update_chat_ctx(chat_ctx)
        outputs = [
            item
            for item in first(server).contents.values()
            if item["type"] == "function_call_output"
        ]
        assert len(outputs) == 1


async def test_one_reply_is_asked_for_after_all_results_of_a_batch(server: RealtimeServer) -> None:
    async with talking(server) as (session, _):
        server.reply(
            ServerReply(calls=[ServerCall("a", call_id="c1"), ServerCall("b", call_id="c2")])
        )
        event = await session.generate_reply()
        calls = [call async for call in event.function_stream]
        futures: list[asyncio.Future[Any]] = []
        for call in calls:
            chat_ctx = session.chat_ctx
            chat_ctx.items.append(
                FunctionCallOutput(call_id=call.call_id, name=call.name, output="1", is_error=False)
            )
            await session.update_chat_ctx(chat_ctx)
            futures.append(session.generate_reply())
        one, two = await asyncio.gather(*futures)
        await read(one)
        assert len(sent(first(server), "response.create")) in (2, 3)
        if one is not two:
            await read(two)


async def test_the_cap_loses_nothing(server: RealtimeServer) -> None:
    async with talking(server) as (session, seen):
        await session.update_instructions("Be brief.")
        chat_ctx = ChatContext.empty()
        chat_ctx.add_message(role="user", content="Hi.")
        await session.update_chat_ctx(chat_ctx)
        await read(await session.generate_reply())
        await first(server).close(1001, "Your session hit the maximum duration of 60 minutes.")
        server.say("Still here.")
        assert (await read(await session.generate_reply()))[0] == "Still here."
        assert len(seen.named("session_reconnected")) == 1
        assert [error.recoverable for error in seen.named("error")] == [True]
        second = server.connections[1]
        assert second.session["instructions"] == "Be brief."
        assert [second.contents[i]["role"] for i in second.items] == [
            "user",
            "assistant",
            "assistant",
        ]
        assert texts(session) == [
            ("user", "Hi."),
            ("assistant", "Hello."),
            ("assistant", "Still here."),
        ]


async def test_many_ends_in_a_row_lose_and_repeat_no_item(server: RealtimeServer) -> None:
    async with talking(server) as (session, _):
        expected: list[tuple[str, str]] = []
        for number in range(100):
            server.say(f"Reply {number}.")
            event = await session.generate_reply()
            await read(event)
            expected.append(("assistant", f"Reply {number}."))
            assert texts(session) == expected
            await server.connections[-1].close(1001 if number % 2 else 1000)
        server.say("Last.")
        await read(await session.generate_reply())
        assert texts(session) == [*expected, ("assistant", "Last.")]
        assert len(set(server.connections[-1].items)) == len(expected) + 1


@pytest.mark.looptime
async def test_the_next_connection_is_there_before_the_old_one_ends(server: RealtimeServer) -> None:
    async with talking(server, max_session_duration=0.05) as (session, seen):
        server.reply(ServerReply(["A long story."], hold=True))
        event = await session.generate_reply()
        await server.until(lambda: len(server.connections) > 1)
        await asyncio.sleep(0)
        assert not seen.named("session_reconnected")
        first(server).release()
        assert (await read(event))[0] == "A long story."
        assert event.outcome is not None
        assert await event.outcome == "completed"
        while not seen.named("session_reconnected"):
            await asyncio.sleep(0)
        server.say("On the next one.")
        assert (await read(await session.generate_reply()))[0] == "On the next one."
        assert not seen.named("error")


async def test_sound_that_was_pushed_without_a_connection_arrives(server: RealtimeServer) -> None:
    async with talking(server) as (session, _):
        for value in range(1, 6):
            session.push_audio(sound(value=value))
        await server.until(lambda: server.connections and len(first(server).audio) == 5 * 4800)
        assert bytes(first(server).audio) == b"".join(bytes([v]) * 4800 for v in range(1, 6))


async def test_short_frames_are_collected(server: RealtimeServer) -> None:
    async with talking(server) as (session, _):
        for _ in range(20):
            session.push_audio(sound(10))
        session.commit_audio()
        await server.until(lambda: server.connections and first(server).items)
        assert first(server).appends == 4
        assert len(first(server).audio) == 20 * 480


async def test_too_little_sound_is_not_committed(server: RealtimeServer) -> None:
    async with talking(server) as (session, seen):
        session.push_audio(sound(60))
        session.commit_audio()
        await read(await session.generate_reply())
        assert not sent(first(server), "input_audio_buffer.commit")
        assert not seen.named("error")


async def test_what_the_user_said_stands_where_the_turn_began(server: RealtimeServer) -> None:
    async with talking(server) as (session, seen):
        await read(await session.generate_reply())
        connection = first(server)
        item_id = await connection.speech()
        server.say("Answer.")
        await read(await session.generate_reply())
        for transcript in ("What is this?", "What is that?"):
            await connection.send(
                "conversation.item.input_audio_transcription.completed",
                item_id=item_id,
                content_index=0,
                transcript=transcript,
            )
        while not seen.named("input_audio_transcription_completed"):
            await asyncio.sleep(0)
        await read(await session.generate_reply())
        assert texts(session)[:3] == [
            ("assistant", "Hello."),
            ("user", "What is this?"),
            ("assistant", "Answer."),
        ]
        (final,) = seen.named("input_audio_transcription_completed")
        assert final.is_final
        assert final.turn_started_at is not None


@pytest.mark.parametrize(
    "frame",
    [
        "no json",
        "[]",
        "{}",
        '{"type": 5}',
        '{"type": "response.done"}',
        "\x00",
        '{"type": "new.thing"}',
    ],
)
async def test_a_broken_frame_harms_nothing(server: RealtimeServer, frame: str) -> None:
    async with talking(server) as (session, seen):
        await read(await session.generate_reply())
        await first(server).send_raw(frame)
        assert (await read(await session.generate_reply()))[0] == "Hello."
        assert not seen.named("error")


@pytest.mark.parametrize("code", ["insufficient_quota", "invalid_api_key"])
async def test_a_fatal_error_ends_the_session_once(server: RealtimeServer, code: str) -> None:
    async def refuse(connection: RealtimeConnection, event: dict[str, Any]) -> bool:
        if event["type"] != "response.create":
            return False
        await connection.error("You are out of money.", code=code)
        return True

    server.on_event = refuse
    async with talking(server) as (session, seen):
        with pytest.raises(RealtimeError, match="out of money"):
            await session.generate_reply()
        assert [error.recoverable for error in seen.named("error")] == [False]
        with pytest.raises(RealtimeError):
            await session.generate_reply()
        await session.aclose()
    assert len(server.connections) == 1


@pytest.mark.parametrize("code", [1003, 1007, 1008, 4001])
async def test_a_wrong_model_is_one_error_with_a_hint(server: RealtimeServer, code: int) -> None:
    async def hang_up(connection: RealtimeConnection) -> None:
        await connection.close(code, "model not found")

    server.on_connect = hang_up
    async with talking(server, model="gpt-9") as (session, seen):
        with pytest.raises(RealtimeError, match="model not found"):
            await session.generate_reply()
        (error,) = seen.named("error")
        assert not error.recoverable
        assert "'gpt-9'" in str(error.error)
    assert len(server.connections) == 1


async def test_a_server_that_hangs_up_is_not_dialled_for_ever(server: RealtimeServer) -> None:
    async def hang_up(connection: RealtimeConnection) -> None:
        await connection.close(1011, "later")

    server.on_connect = hang_up
    async with talking(server) as (session, seen):
        with pytest.raises(RealtimeError):
            await session.generate_reply()
        assert [error.recoverable for error in seen.named("error")] == [True, True, False]
    assert len(server.connections) == 3


async def test_a_refused_upgrade_is_told() -> None:
    async with RealtimeServer(refuse=401) as server, talking(server) as (session, seen):
        with pytest.raises(RealtimeError, match="401"):
            await session.generate_reply()
        assert [error.recoverable for error in seen.named("error")] == [False]


async def test_closing_ends_what_waits(server: RealtimeServer) -> None:
    def ignore(_: RealtimeConnection, event: dict[str, Any]) -> bool:
        return event["type"] == "response.create"

    server.on_event = ignore
    async with no_leaks(), talking(server) as (session, _):
        future = session.generate_reply()
        await server.until(lambda: server.connections and sent(first(server), "response.create"))
        await session.aclose()
        with pytest.raises(RealtimeError, match="closed"):
            await future
        await session.aclose()


def named(name: str) -> list[asyncio.Task[Any]]:
    return [task for task in asyncio.all_tasks() if task.get_name() == name]


async def test_closing_waits_for_a_connection_that_was_being_made() -> None:
    """Otherwise the connection stays open if the program ends its event loop now."""
    silent = asyncio.Event()

    async def say_nothing(_: RealtimeConnection) -> None:
        await silent.wait()

    async with RealtimeServer(on_connect=say_nothing) as server, talking(server) as (session, _):
        while not named("realtime reader"):
            await asyncio.sleep(0)
        await session.aclose()
        assert [
            *named("realtime close"),
            *named("realtime reader"),
            *named("realtime writer"),
        ] == []
        silent.set()


async def test_connections_close_although_the_caller_gives_up(server: RealtimeServer) -> None:
    async with no_leaks(), talking(server) as (session, _):
        await session.connected()
        closing = asyncio.create_task(session.aclose())
        while not named("realtime close"):
            await asyncio.sleep(0)
        (close,) = named("realtime close")
        closing.cancel()
        await asyncio.wait([closing, close])
        assert closing.cancelled()
        assert not close.cancelled()


@pytest.mark.looptime
@pytest.mark.parametrize("kind", ["session.update", "conversation.item.create"])
async def test_closing_ends_a_change_that_waits(server: RealtimeServer, kind: str) -> None:
    async with talking(server) as (session, _):
        await session.connected()
        server.on_event = lambda _, event: event["type"] == kind
        chat_ctx = ChatContext.empty()
        chat_ctx.add_message(role="user", content="Hi.")
        change = asyncio.create_task(
            session.update_instructions("Be brief.")
            if kind == "session.update"
            else session.update_chat_ctx(chat_ctx)
        )
        await server.until(lambda: sent(first(server), kind)[-1:])
        await asyncio.sleep(0.01)
        assert not change.done()
        await session.aclose()
        with pytest.raises(RealtimeError, match="closed") as error:
            await change
        assert error.value.code == "closed"


@pytest.mark.looptime
async def test_closing_a_model_closes_its_sessions_together(server: RealtimeServer) -> None:
    """Services that do not answer the close of a connection are waited for at the same time."""
    stuck: list[RealtimeConnection] = []
    over = asyncio.Event()

    async def hang(connection: RealtimeConnection, event: dict[str, Any]) -> bool:
        if event["type"] == "input_audio_buffer.append":
            stuck.append(connection)
            await over.wait()
        return True

    loop = asyncio.get_running_loop()
    model = openai.RealtimeModel(base_url=server.url, api_key="any")
    sessions = [model.session() for _ in range(10)]
    await asyncio.gather(*(session.connected() for session in sessions))
    server.on_event = hang
    for session in sessions:
        session.push_audio(sound())
    await server.until(lambda: len(stuck) == len(sessions))
    began = loop.time()
    await model.aclose()
    assert 0.1 < loop.time() - began < 1.0
    over.set()
    for session in sessions:
        with pytest.raises(RealtimeError, match="closed"):
            await session.generate_reply()


async def test_a_reply_that_failed_is_told(server: RealtimeServer) -> None:
    async with talking(server) as (session, seen):
        server.reply(
            ServerReply(
                status="failed",
                details={
                    "type": "failed",
                    "error": {"type": "server_error", "code": "x", "message": "Sorry."},
                },
            )
        )
        event = await session.generate_reply()
        assert event.outcome is not None
        assert await event.outcome == "failed"
        (error,) = seen.named("error")
        assert error.recoverable
        assert "Sorry." in str(error.error)
        assert (await read(await session.generate_reply()))[0] == "Hello."


async def test_a_filtered_reply_is_incomplete(server: RealtimeServer) -> None:
    async with talking(server) as (session, _):
        server.reply(
            ServerReply(
                ["Well"],
                status="incomplete",
                details={"type": "incomplete", "reason": "content_filter"},
            )
        )
        event = await session.generate_reply()
        assert event.outcome is not None
        assert await event.outcome == "incomplete"


async def test_a_refused_item_settles_at_once(server: RealtimeServer) -> None:
    async def refuse(connection: RealtimeConnection, event: dict[str, Any]) -> bool:
        if event["type"] != "conversation.item.create":
            return False
        await connection.error("Not this one.", code="bad_item", ref=event["event_id"])
        return True

    async with talking(server) as (session, _):
        await read(await session.generate_reply())
        server.on_event = refuse
        chat_ctx = session.chat_ctx
        chat_ctx.add_message(role="user", content="Hi.")
        with pytest.raises(RealtimeError, match="Not this one"):
            await session.update_chat_ctx(chat_ctx)
        server.on_event = None
        assert (await read(await session.generate_reply()))[0] == "Hello."


@pytest.mark.looptime
async def test_a_half_open_connection_is_noticed(server: RealtimeServer) -> None:
    mute: list[RealtimeConnection] = []

    def swallow(connection: RealtimeConnection, event: dict[str, Any]) -> bool:
        return connection in mute

    server.on_event = swallow
    async with talking(server, silence_timeout=0.2) as (session, seen):
        await read(await session.generate_reply())
        mute.append(first(server))
        while len(server.connections) < 2:
            session.push_audio(sound())
            await asyncio.sleep(0.01)
        server.say("Awake.")
        assert (await read(await session.generate_reply()))[0] == "Awake."
        assert len(seen.named("session_reconnected")) == 1


@pytest.mark.looptime
async def test_a_user_who_is_silent_is_no_dead_service(server: RealtimeServer) -> None:
    async with talking(server, silence_timeout=0.1) as (session, seen):
        await read(await session.generate_reply())
        for _ in range(60):
            session.push_audio(sound())
            await asyncio.sleep(0.005)
        assert not seen.named("session_reconnected")
    assert len(server.connections) == 1


async def test_the_beta_words_mean_the_same() -> None:
    async with RealtimeServer(beta=True) as server, talking(server, dialect="beta") as (session, _):
        server.say("Hello there.")
        assert (await read(await session.generate_reply()))[0] == "Hello there."
        opening = sent(first(server), "session.update")[0]["session"]
        assert opening["modalities"] == ["text", "audio"]
        assert "audio" not in opening


async def test_text_alone(server: RealtimeServer) -> None:
    async with talking(server, modalities=["text"]) as (session, _):
        event = await session.generate_reply()
        async for message in event.message_stream:
            assert await message.modalities == ["text"]
            assert [frame async for frame in message.audio_stream] == []
            assert "".join([text async for text in message.text_stream]) == "Hello."


async def test_without_a_loop_there_is_no_session() -> None:
    def make() -> None:
        from rejoinder.providers.openai.realtime import RealtimeModel

        RealtimeModel(api_key="any").session()

    with pytest.raises(RuntimeError, match="no event loop"):
        await asyncio.to_thread(make)


async def test_one_model_carries_more_sessions_than_a_pool_has_connections(
    server: RealtimeServer,
) -> None:
    """aiohttp's own limit is 100 connections; a session beyond it would wait for another to end."""
    many = 120
    for _ in range(many):
        server.say("Hello.")
    model = openai.RealtimeModel(base_url=server.url, api_key="any")
    sessions = [model.session() for _ in range(many)]
    try:
        await asyncio.gather(*(session.connected() for session in sessions))
        events = await asyncio.gather(*(session.generate_reply() for session in sessions))
        replies = await asyncio.gather(*(read(event) for event in events))
    finally:
        await model.aclose()
    assert [text for text, _, _ in replies] == ["Hello."] * many
    assert len(server.connections) == many
