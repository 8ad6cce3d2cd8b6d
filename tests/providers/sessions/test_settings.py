"""Instructions, tools and options: confirmed, refused, or given while nothing is connected."""

from __future__ import annotations

import asyncio
import contextlib
import sys
from typing import Any

import pytest

from providers.sessions.driving import read, sound, talking, texts
from rejoinder._core.realtime.speech import UNTRANSCRIBED
from rejoinder.errors import ConfigurationError
from rejoinder.llm import AudioContent, ChatContext, ChatMessage, function_tool
from rejoinder.llm.realtime import RealtimeError
from rejoinder.media import AudioFrame
from rejoinder.metrics import STTMetrics, UsageCollector
from rejoinder.providers.openai.realtime import RealtimeModel
from rejoinder.providers.sessions.sound import SoundInput, with_sound_at
from rejoinder.testing import RealtimeConnection, RealtimeServer, ScriptedRealtimeModel, ServerReply
from rejoinder.types import APIConnectOptions
from stalls import Stalls


@function_tool
async def weather(city: str) -> str:
    """Tell the weather."""
    return city


def updates(connection: RealtimeConnection) -> list[dict[str, Any]]:
    return [e["session"] for e in connection.events if e["type"] == "session.update"]


async def until(condition: Any) -> None:
    while not condition():
        await asyncio.sleep(0.001)


@pytest.mark.looptime
async def test_a_loop_that_stands_still_is_no_silence_of_the_service() -> None:
    stalls = Stalls()

    async def blocked() -> None:
        await asyncio.sleep(1)
        stalls.stand_still(30)
        await asyncio.sleep(0.5)

    async def connect(connection: RealtimeConnection) -> None:
        await blocked()
        await connection.greet()

    async def hear(_: RealtimeConnection, event: dict[str, Any]) -> bool:
        if event["type"] in ("session.update", "conversation.item.create"):
            await blocked()
        return False

    options = APIConnectOptions(max_retry=0, timeout=5)
    model = ScriptedRealtimeModel(conn_options=options)
    model.service.on_connect = connect
    async with model, contextlib.aclosing(model.session()) as session:
        await session.connected()
        model.service.on_event = hear
        await session.update_instructions("Be brief.")
        chat_ctx = ChatContext.empty()
        chat_ctx.add_message(role="user", content="Hi.")
        await session.update_chat_ctx(chat_ctx)
        assert len(model.service.connections) == 1


@pytest.mark.parametrize("late", [0, 0.03, 0.1])
async def test_what_is_given_late_is_in_force(server: RealtimeServer, late: float) -> None:
    async with talking(server) as (session, _):
        await asyncio.sleep(late)
        chat_ctx = ChatContext.empty()
        chat_ctx.add_message(role="user", content="Hi.")
        await asyncio.gather(
            session.update_instructions("Be brief."),
            session.update_tools([weather]),
            session.update_chat_ctx(chat_ctx),
        )
        session.update_options(tool_choice="required")
        await read(await session.generate_reply())
        connection = server.connections[0]
        assert connection.session["instructions"] == "Be brief."
        assert [tool["name"] for tool in connection.session["tools"]] == ["weather"]
        assert connection.session["tool_choice"] == "required"
        assert [connection.contents[i]["role"] for i in connection.items] == ["user", "assistant"]


async def test_a_change_is_confirmed(server: RealtimeServer) -> None:
    held: list[str] = []

    def hold(connection: RealtimeConnection, event: dict[str, Any]) -> bool:
        if event["type"] != "session.update" or "instructions" not in event["session"]:
            return False
        held.append(event["event_id"])
        return True

    async with talking(server) as (session, _):
        await session.connected()
        server.on_event = hold
        change = asyncio.create_task(session.update_instructions("Be brief."))
        await server.until(lambda: held)
        assert not change.done()
        await server.connections[0].send("session.updated", session={})
        await change


async def test_a_change_that_is_refused_is_told_and_undone(server: RealtimeServer) -> None:
    async def refuse(connection: RealtimeConnection, event: dict[str, Any]) -> bool:
        if event["type"] != "session.update" or "instructions" not in event["session"]:
            return False
        await connection.error("Not those.", code="invalid_value", ref=event["event_id"])
        return True

    async with talking(server) as (session, seen):
        await session.update_instructions("Be kind.")
        await session.connected()
        server.on_event = refuse
        with pytest.raises(RealtimeError, match="Not those") as caught:
            await session.update_instructions("Be rude.")
        assert caught.value.code == "invalid_value"
        server.on_event = None
        await server.connections[0].close(1001)
        await read(await session.generate_reply())
        assert updates(server.connections[1])[0]["instructions"] == "Be kind."
        assert [error.recoverable for error in seen.named("error")] == [True, True]


async def test_a_voice_that_is_refused_later_does_not_stop_the_next_connection(
    server: RealtimeServer,
) -> None:
    async def refuse(connection: RealtimeConnection, event: dict[str, Any]) -> bool:
        if event["type"] != "session.update" or "nobody" not in str(event["session"]):
            return False
        await connection.error("Invalid voice.", code="invalid_value", ref=event["event_id"])
        return True

    server.on_event = refuse
    async with talking(server) as (session, seen):
        await session.connected()
        session.update_options(voice="nobody")
        await until(lambda: seen.named("error"))
        await server.connections[0].close(1001)
        await read(await session.generate_reply())
        assert updates(server.connections[1])[0]["audio"]["output"]["voice"] == "marin"


async def test_an_unknown_voice_at_the_beginning_is_one_fatal_error(server: RealtimeServer) -> None:
    async def refuse(connection: RealtimeConnection, event: dict[str, Any]) -> bool:
        if event["type"] != "session.update":
            return False
        await connection.error("Invalid voice.", code="invalid_value", ref=event["event_id"])
        return True

    server.on_event = refuse
    async with talking(server, voice="nobody") as (session, seen):
        with pytest.raises(RealtimeError, match="Invalid voice"):
            await session.generate_reply()
        assert [error.recoverable for error in seen.named("error")] == [False]
    assert len(server.connections) == 1


@pytest.mark.looptime
async def test_a_change_that_is_never_confirmed_is_told(server: RealtimeServer) -> None:
    def swallow(_: RealtimeConnection, event: dict[str, Any]) -> bool:
        return event["type"] == "session.update" and event["session"].get("instructions") == "No."

    server.on_event = swallow
    async with talking(server) as (session, _):
        await session.connected()
        with pytest.raises(RealtimeError) as caught:
            await session.update_instructions("No.")
        assert caught.value.code == "timeout"


async def test_tools_can_change_while_a_reply_runs(server: RealtimeServer) -> None:
    async with talking(server) as (session, seen):
        server.reply(ServerReply(["Let me see."], hold=True))
        event = await session.generate_reply()
        await session.update_tools([weather])
        server.connections[0].release()
        assert (await read(event))[0] == "Let me see."
        await session.update_tools([])
        await read(await session.generate_reply())
        assert server.connections[0].session["tools"] == []
        assert not seen.named("error")


async def test_a_history_that_is_given_while_a_reply_runs_leaves_it_alone(
    server: RealtimeServer,
) -> None:
    async with talking(server) as (session, _):
        server.reply(ServerReply(["Well, "], hold=True))
        before = session.chat_ctx
        event = await session.generate_reply()
        await until(lambda: session.chat_ctx.items)
        await server.connections[0].speech()  # its words are not known yet
        await until(lambda: len(session.chat_ctx.items) == 2)
        before.add_message(role="system", content="Be brief.")
        await session.update_chat_ctx(before)
        server.connections[0].release()
        assert (await read(event))[0] == "Well, "
        held = [server.connections[0].contents[i]["role"] for i in server.connections[0].items]
        assert sorted(held) == ["assistant", "system", "user"]
        assert ("assistant", "Well, ") in texts(session)


@pytest.mark.parametrize(
    ("usage", "seconds", "tokens"),
    [
        ({"type": "duration", "seconds": 2.5}, 2.5, 0),
        ({"type": "tokens", "input_tokens": 14, "output_tokens": 3, "total_tokens": 17}, 0, 14),
    ],
)
async def test_writing_down_what_was_said_is_billed_apart(
    server: RealtimeServer, usage: dict[str, Any], seconds: float, tokens: int
) -> None:
    async with talking(server) as (session, seen):
        await session.connected()
        item_id = await server.connections[0].speech()
        await server.connections[0].send(
            "conversation.item.input_audio_transcription.completed",
            item_id=item_id,
            content_index=0,
            transcript="Hi.",
            usage=usage,
        )
        await until(lambda: seen.named("input_audio_transcription_completed"))
        (bill,) = [m for m in seen.named("metrics_collected") if isinstance(m, STTMetrics)]
        assert (bill.request_id, bill.audio_duration, bill.input_tokens) == (
            item_id,
            seconds,
            tokens,
        )
        collector = UsageCollector()
        collector.collect(bill)
        assert collector.get_summary().stt_audio_duration == seconds
        assert collector.get_summary().llm_requests == 0


async def test_capabilities_follow_the_options(server: RealtimeServer) -> None:
    async with talking(server) as (session, _):
        assert session.capabilities.turn_detection
        session.update_options(turn_detection=None, input_audio_transcription=None)
        assert not session.capabilities.turn_detection
        assert not session.capabilities.user_transcription
        assert session.realtime_model.capabilities.turn_detection


async def test_sound_that_is_not_committed_is_kept_where_the_application_finds_turns(
    server: RealtimeServer,
) -> None:
    async with talking(server, turn_detection=None) as (session, _):
        await session.connected()
        for value in range(1, 41):
            session.push_audio(sound(value=value))
        await server.until(lambda: len(server.connections[0].audio) == 40 * 4800)
        server.connections[0].drop()
        await server.until(
            lambda: len(server.connections) > 1 and len(server.connections[1].audio) == 40 * 4800
        )
        session.commit_audio()
        await server.until(lambda: server.connections[1].items)


@pytest.mark.looptime
async def test_a_swap_waits_for_the_words_of_the_user(server: RealtimeServer) -> None:
    async with talking(server, max_session_duration=0.05) as (session, seen):
        await session.connected()
        first = server.connections[0]
        item_id = await first.speech()
        await until(lambda: seen.named("input_speech_stopped"))
        await server.until(lambda: len(server.connections) > 1)
        await asyncio.sleep(0.05)
        assert not seen.named("session_reconnected")
        await first.send(
            "conversation.item.input_audio_transcription.completed",
            item_id=item_id,
            content_index=0,
            transcript="Hi.",
        )
        await until(lambda: seen.named("session_reconnected"))
        second = server.connections[1]
        await until(lambda: second.items)
        assert second.contents[second.items[0]]["content"] == [
            {"type": "input_text", "text": "Hi."}
        ]


FORMS = ((48000, 1), (24000, 2), (16000, 1))


def frame_of(rate: int, channels: int) -> AudioFrame:
    return AudioFrame(bytes(2 * channels * rate // 10), rate, channels, rate // 10)


@pytest.mark.parametrize(("rate", "channels"), FORMS)
def test_sound_of_any_form_is_converted(rate: int, channels: int) -> None:
    pytest.importorskip("soxr", reason="the extra `audio` is not installed")
    pushed = SoundInput(24000)
    frame = frame_of(rate, channels)
    pieces = [piece for _ in range(10) if (piece := pushed.feed(frame)) is not None]
    size = sum(memoryview(piece).nbytes for piece in pieces)
    assert abs(size - 48000) <= 4800, "a second, but for what the filter holds back"


@pytest.mark.parametrize(("rate", "channels"), FORMS)
def test_sound_of_another_form_is_refused_without_soxr(
    monkeypatch: pytest.MonkeyPatch, rate: int, channels: int
) -> None:
    monkeypatch.setitem(sys.modules, "soxr", None)
    with pytest.raises(ConfigurationError, match=rf"got {rate} Hz and {channels};.*soxr"):
        SoundInput(24000).feed(frame_of(rate, channels))


@pytest.mark.parametrize("missing", ["soxr", "numpy"])
def test_speech_of_a_history_is_mentioned_where_it_cannot_be_converted(
    monkeypatch: pytest.MonkeyPatch, missing: str
) -> None:
    monkeypatch.setitem(sys.modules, missing, None)
    spoken = AudioContent(frame=[frame_of(16000, 1)])
    fitting = AudioContent(frame=[frame_of(24000, 1)])
    told = AudioContent(frame=[frame_of(16000, 1)], transcript="Hello.")
    message = ChatMessage(role="user", content=["Listen:", spoken, fitting, told])
    made = with_sound_at(message, 24000)
    assert isinstance(made, ChatMessage)
    assert made.content == ["Listen:", UNTRANSCRIBED, fitting, told]
    assert message.content[1] is spoken


def test_a_missing_key_is_refused_before_anything_is_dialled(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    with pytest.raises(ConfigurationError, match="OPENAI_API_KEY"):
        RealtimeModel()


@pytest.mark.parametrize(
    "model", ["gpt-4.1", "gpt-4o-mini", "gpt-5.1", "gpt-live-1", "gpt-transcribe"]
)
def test_a_model_of_another_api_is_refused(model: str) -> None:
    with pytest.raises(ConfigurationError, match=model):
        RealtimeModel(model=model, api_key="any")
