"""What users of realtime sessions complain about most, and the tests that hold it down.

Those of the services of other vendors stand with their protocols.
"""

from __future__ import annotations

import asyncio
import gc
import importlib
import tracemalloc
from typing import Any

import pytest

from providers.sessions.driving import read, sound, talking, texts
from rejoinder.llm import ChatContext, FunctionCallOutput
from rejoinder.media import AudioFrame
from rejoinder.providers.openai.realtime import RealtimeModel
from rejoinder.testing import RealtimeServer, ScriptedRealtimeModel, ServerCall, ServerReply
from rejoinder.types import APIConnectOptions

SESSION = "providers.sessions.test_session"
HEARD = "providers.sessions.test_heard"
TURNS = "providers.sessions.test_turns"
SETTINGS = "providers.sessions.test_settings"
FALLBACK = "llm.test_realtime_fallback_adapter"
HERE = "providers.sessions.test_pains"

PAINS = {
    "a request races the service's own reply": (
        (SESSION, "test_a_request_beside_the_reply_of_the_service_waits_for_its_end"),
        (SESSION, "test_a_request_that_the_service_refuses_as_busy_is_made_again"),
    ),
    "the cap ends the call": (
        (HERE, "test_the_cap_in_every_form"),
        (SESSION, "test_many_ends_in_a_row_lose_and_repeat_no_item"),
    ),
    "an announced end cuts a sentence": (
        (SESSION, "test_the_next_connection_is_there_before_the_old_one_ends"),
        (SETTINGS, "test_a_swap_waits_for_the_words_of_the_user"),
    ),
    "keep-alive kills slow but healthy sockets": (
        (HERE, "test_a_service_that_answers_no_ping_stays_connected"),
    ),
    "a half-open socket is mute for ever": (
        (SESSION, "test_a_half_open_connection_is_noticed"),
        (TURNS, "test_words_spoken_into_a_dead_connection_arrive"),
    ),
    "an interrupt loses the result of a tool": (
        (HERE, "test_every_call_is_answered_after_an_interrupt"),
    ),
    "a call runs twice": (
        (HERE, "test_a_call_that_is_told_twice_runs_once"),
        (SESSION, "test_a_call_is_run_once_and_answered_once"),
    ),
    "a refused item stalls the history": ((SESSION, "test_a_refused_item_settles_at_once"),),
    "a barge-in before the first sound is refused": (
        (SESSION, "test_truncating_is_legal_at_any_time"),
        (HERE, "test_a_barge_in_before_the_first_sound"),
    ),
    "truncation beyond the received sound": (
        (SESSION, "test_truncating_is_legal_at_any_time"),
        (HERE, "test_each_message_of_a_reply_is_cut_by_itself"),
    ),
    "words are kept that nobody heard": (
        (HEARD, "test_time_and_text_agree_with_what_is_kept"),
        (HEARD, "test_a_message_of_an_earlier_connection_is_cut_at_the_next"),
        (
            "_core.realtime.test_commit",
            "test_a_turn_keeps_what_was_heard_and_the_next_model_sees_it",
        ),
    ),
    "the user's words stand behind the answer": (
        (SESSION, "test_what_the_user_said_stands_where_the_turn_began"),
        (HERE, "test_words_of_the_user_at_any_time"),
    ),
    "a partial transcript is taken for the final one": (
        (HERE, "test_one_final_transcript_a_turn"),
        ("recorded.test_realtime", "test_a_recorded_session_gives_what_it_holds"),
    ),
    "typed text is answered twice": ((HERE, "test_typed_text_is_answered_once"),),
    "what is given late is left out": ((SETTINGS, "test_what_is_given_late_is_in_force"),),
    "handlers are lost over a swap": ((FALLBACK, "test_handlers_of_a_vendors_events_stay"),),
    "no way down to text": ((FALLBACK, "test_a_text_model_answers_when_no_voice_is_left"),),
    "memory grows with the call": (
        (HERE, "test_a_long_conversation_grows_by_its_text_alone"),
        (HERE, "test_minutes_of_sound_leave_nothing_behind"),
    ),
    "a wrong model is a loop or silence": (
        (SESSION, "test_a_wrong_model_is_one_error_with_a_hint"),
        (SETTINGS, "test_a_model_of_another_api_is_refused"),
    ),
    "an end that was no success is not told": (
        (SESSION, "test_a_reply_that_failed_is_told"),
        (SESSION, "test_a_filtered_reply_is_incomplete"),
    ),
}


@pytest.mark.parametrize("pain", PAINS)
def test_every_pain_has_its_tests(pain: str) -> None:
    for module, name in PAINS[pain]:
        assert callable(getattr(importlib.import_module(module), name)), (module, name)


async def until(condition: Any) -> None:
    while not condition():
        await asyncio.sleep(0.001)


@pytest.mark.parametrize("how", ["1001", "1000", "error"])
async def test_the_cap_in_every_form(server: RealtimeServer, how: str) -> None:
    async with talking(server) as (session, seen):
        await read(await session.generate_reply())
        connection = server.connections[0]
        if how == "error":
            await connection.error("Your session hit the maximum duration.", code="session_expired")
            await connection.close(1001)
        else:
            await connection.close(int(how), "Your session hit the maximum duration of 60 minutes.")
        server.say("Still here.")
        assert (await read(await session.generate_reply()))[0] == "Still here."
        assert texts(session) == [("assistant", "Hello."), ("assistant", "Still here.")]
        assert all(error.recoverable for error in seen.named("error"))


@pytest.mark.looptime
async def test_a_service_that_answers_no_ping_stays_connected() -> None:
    """Sound comes, pongs do not: a minute of it is no reason to hang up."""
    async with RealtimeServer() as server, talking(server) as (session, seen):
        await read(await session.generate_reply())
        for _ in range(60):
            await asyncio.sleep(1)
            session.push_audio(sound())
        await read(await session.generate_reply())
        assert len(server.connections) == 1
        assert not seen.named("session_reconnected")


async def test_every_call_is_answered_after_an_interrupt(server: RealtimeServer) -> None:
    async with talking(server) as (session, seen):
        server.reply(ServerReply(["One. "], calls=[ServerCall("tool")], hold=True))
        event = await session.generate_reply()
        await until(lambda: session.chat_ctx.items)
        connection = server.connections[0]
        session.interrupt()
        # The call was on its way already.
        assert connection.running is not None
        await connection.send(
            "response.output_item.done",
            response_id=connection.running.reply_id,
            output_index=1,
            item={
                "id": "c",
                "type": "function_call",
                "call_id": "late",
                "name": "tool",
                "arguments": "{}",
            },
        )
        assert [call.name async for call in event.function_stream] == []
        await until(
            lambda: (
                [
                    e["item"]["call_id"]
                    for e in connection.events
                    if e["type"] == "conversation.item.create"
                ]
                == ["late"]
            )
        )
        assert (await read(await session.generate_reply()))[0] == "Hello."
        assert not seen.named("error")


async def test_a_call_that_is_told_twice_runs_once(server: RealtimeServer) -> None:
    async with talking(server) as (session, _):
        server.reply(ServerReply(calls=[ServerCall("tool", call_id="c1")], hold=True))
        event = await session.generate_reply()
        connection = server.connections[0]
        item = {
            "id": "i",
            "type": "function_call",
            "call_id": "c1",
            "name": "tool",
            "arguments": "{}",
        }
        for _ in range(2):
            await connection.send(
                "response.output_item.done",
                response_id=event.response_id,
                output_index=1,
                item=item,
            )
        connection.release()
        assert [call.call_id async for call in event.function_stream] == ["c1"]
        await connection.close(1001)
        chat_ctx = session.chat_ctx
        chat_ctx.items.append(FunctionCallOutput(call_id="c1", output="1", is_error=False))
        await session.update_chat_ctx(chat_ctx)
        await read(await session.generate_reply())
        outputs = [
            e
            for e in server.connections[1].events
            if e.get("item", {}).get("type") == "function_call_output"
        ]
        assert len(outputs) == 1


async def test_a_barge_in_before_the_first_sound(server: RealtimeServer) -> None:
    async with talking(server) as (session, seen):
        server.reply(ServerReply(["", ""], ms=0, hold=True))
        event = await session.generate_reply()
        await until(lambda: session.chat_ctx.items)
        session.interrupt()
        session.truncate(
            message_id=session.chat_ctx.items[0].id, modalities=["audio"], audio_end_ms=0
        )
        await read(event)
        assert (await read(await session.generate_reply()))[0] == "Hello."
        assert texts(session) == [("assistant", "Hello.")]
        assert not seen.named("error")


async def test_each_message_of_a_reply_is_cut_by_itself(server: RealtimeServer) -> None:
    async with talking(server) as (session, seen):
        server.reply(ServerReply(["One ", "two. "]), ServerReply(["Three ", "four."]))
        for _ in range(2):
            await read(await session.generate_reply())
        first, second = session.chat_ctx.items
        session.truncate(message_id=second.id, modalities=["audio"], audio_end_ms=5000)
        session.truncate(message_id=first.id, modalities=["audio"], audio_end_ms=100)
        assert texts(session) == [("assistant", "One "), ("assistant", "Three four.")]
        await read(await session.generate_reply())
        assert not seen.named("error")


@pytest.mark.parametrize("when", ["before", "during", "after", "never", "failed"])
async def test_words_of_the_user_at_any_time(server: RealtimeServer, when: str) -> None:
    async with talking(server) as (session, _):
        await session.connected()
        connection = server.connections[0]
        item_id = await connection.speech("Hi." if when == "before" else None)

        async def write_down() -> None:
            kind = "failed" if when == "failed" else "completed"
            await connection.send(
                f"conversation.item.input_audio_transcription.{kind}",
                item_id=item_id,
                content_index=0,
                transcript="Hi.",
            )

        server.reply(ServerReply(["Hello."], hold=True))
        event = await session.generate_reply()
        if when == "during":
            await write_down()
        connection.release()
        await read(event)
        if when in ("after", "failed"):
            await write_down()
        await read(await session.generate_reply())
        told = "" if when in ("never", "failed") else "Hi."
        assert texts(session)[:2] == [("user", told), ("assistant", "Hello.")]


async def test_one_final_transcript_a_turn(server: RealtimeServer) -> None:
    async with talking(server) as (session, seen):
        await session.connected()
        connection = server.connections[0]
        item_id = await connection.speech()
        name = "conversation.item.input_audio_transcription"
        for piece in ("What ", "is "):
            await connection.send(f"{name}.delta", item_id=item_id, content_index=0, delta=piece)
        for status in ("in_progress", "completed", "completed"):
            await connection.send(
                f"{name}.completed",
                item_id=item_id,
                content_index=0,
                transcript="What is it?",
                status=status,
            )
        await read(await session.generate_reply())
        told = [
            (e.transcript, e.is_final) for e in seen.named("input_audio_transcription_completed")
        ]
        assert told == [
            ("What ", False),
            ("What is ", False),
            ("What is it?", False),
            ("What is it?", True),
        ]


async def test_typed_text_is_answered_once(server: RealtimeServer) -> None:
    async with talking(server) as (session, seen):
        chat_ctx = ChatContext.empty()
        chat_ctx.add_message(role="user", content="Hi.")
        await session.update_chat_ctx(chat_ctx)
        await read(await session.generate_reply())
        for _ in range(50):
            await asyncio.sleep(0)
        assert len(seen.named("generation_created")) == 1


async def test_minutes_of_sound_leave_nothing_behind() -> None:
    """3,600 pieces up, and nothing of them is kept but the second before the user speaks."""
    async with RealtimeServer() as server:
        model = RealtimeModel(base_url=server.url, api_key="any")
        session = model.session()
        await session.connected()
        frame = sound()
        largest = 0
        for number in range(3_600):
            session.push_audio(frame)
            if number % 200 == 0:
                largest = max(largest, held(session))
                server.connections[0].audio.clear()
                await server.until(lambda n=number: server.connections[0].appends > n - 200)
        assert largest <= 10, "pieces of 100 ms"
        await model.aclose()


@pytest.mark.looptime
async def test_a_long_conversation_grows_by_its_text_alone() -> None:
    """Two items a minute: what a session keeps of each is its text, and no event, delta or sound."""
    minutes = 16
    replies = [ServerReply([f"word{n} " for n in range(20)]) for _ in range(minutes)]
    model = ScriptedRealtimeModel(*replies, max_session_duration=None)
    session = model.session()
    frame = AudioFrame(b"\x20\x10" * 2400, 24000, 1, 2400)
    sizes: list[int] = []
    tracemalloc.start(1)
    try:
        for minute in range(minutes):
            for _ in range(6):
                session.push_audio(frame)
                await asyncio.sleep(10.0)
            await model.service.connections[-1].speech(f"Question {minute}?")
            await read(await session.generate_reply())
            if minute % 8 == 7:
                for connection in model.service.connections:
                    connection.audio.clear()
                    connection.events.clear()
                model.service.requests.clear()
                sizes.append(ours())
    finally:
        tracemalloc.stop()
    await model.aclose()
    assert (sizes[1] - sizes[0]) / 16 < 4_000, "bytes for each item"


def ours() -> int:
    """Bytes that were not allocated by the double of the service."""
    gc.collect()
    kinds = ("*/rejoinder/testing/*", "*/looptime/*", tracemalloc.__file__)
    taken = tracemalloc.take_snapshot().filter_traces(
        [tracemalloc.Filter(False, kind) for kind in kinds]
    )
    return sum(trace.size for trace in taken.traces)


def held(session: Any) -> int:
    return len(session._uplink._kept.entries())


async def test_a_pushed_sample_is_encoded_once(
    server: RealtimeServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Over however many connections it goes."""
    from rejoinder._core.realtime import messages

    encoded: list[int] = []
    encode = messages.base64.b64encode

    def counted(data: Any) -> bytes:
        encoded.append(len(memoryview(data).cast("B")))
        return encode(data)

    monkeypatch.setattr(messages.base64, "b64encode", counted)
    patience = APIConnectOptions(max_retry=10, retry_interval=0.0)
    async with talking(server, turn_detection=None, conn_options=patience) as (session, _):
        for value in range(1, 11):
            session.push_audio(sound(value=value))
        for number in range(3):
            await server.until(
                lambda n=number: (
                    len(server.connections) > n and len(server.connections[n].audio) == 48000
                )
            )
            server.connections[number].drop()
        await server.until(lambda: len(server.connections) == 4)
        sounds = [size for size in encoded if size > 100]  # not the keys of handshakes
        assert sounds == [4800] * 10


def test_a_frame_in_the_right_form_is_not_copied() -> None:
    from rejoinder.providers.sessions.sound import SoundInput

    frame = sound()
    piece = SoundInput(24000).feed(frame)
    assert memoryview(piece).obj is memoryview(frame.data).obj  # type: ignore[arg-type]
