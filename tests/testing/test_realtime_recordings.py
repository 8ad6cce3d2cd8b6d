"""Sessions recorded and played back: the same conversation, without secrets, with its timing."""

from __future__ import annotations

import asyncio
import json
import math
from pathlib import Path
from typing import Any

import pytest

from rejoinder.llm import ChatContext, FunctionCallOutput, function_tool
from rejoinder.llm.realtime import RealtimeError
from rejoinder.media import AudioFrame
from rejoinder.providers.openai.realtime import RealtimeModel, RealtimeSession
from rejoinder.testing import (
    RealtimeFault,
    RealtimeServer,
    RealtimeService,
    ServerCall,
    ServerReply,
    SessionEvent,
    SessionRecording,
    load_session,
    load_sessions,
    record_sessions,
    replay_sessions,
    save_session,
)
from rejoinder.transport.ws import Closed, WebSocketTransport
from rejoinder.types import APIConnectOptions
from testing.test_realtime_faults import outcome

KEY = "sk-canary-4f1d8a7e9b2c33aa"


@function_tool
async def weather(city: str) -> str:
    """Tells the weather."""
    return city


def model(transport: WebSocketTransport, **options: Any) -> RealtimeModel:
    given: dict[str, Any] = {
        "api_key": KEY,
        "base_url": "http://service.example",
        "transport": transport,
        "conn_options": APIConnectOptions(max_retry=1, retry_interval=0.01),
    }
    return RealtimeModel(**(given | options))


def service() -> RealtimeService:
    made = RealtimeService()
    made.reply(ServerReply(["It ", "is ", f"{KEY}."]), ServerReply(calls=[ServerCall("weather")]))
    made.say("It rains.")
    return made


async def converse(session: RealtimeSession) -> list[Any]:
    """Three turns: what the user gets of them."""
    await session.update_instructions("Be brief.")
    await session.update_tools([weather])
    told: list[Any] = []
    chat_ctx = ChatContext.empty()
    chat_ctx.add_message(role="user", content="How is it?")
    await session.update_chat_ctx(chat_ctx)
    session.push_audio(AudioFrame(bytes(9600), 24000, 1, 4800))
    told.append(await outcome(await session.generate_reply()))
    event = await session.generate_reply()
    calls = [call async for call in event.function_stream]
    told.append([(call.name, call.call_id) for call in calls])
    chat_ctx = session.chat_ctx
    chat_ctx.items.append(
        FunctionCallOutput(call_id=calls[0].call_id, output="rain", is_error=False)
    )
    await session.update_chat_ctx(chat_ctx)
    told.append(await outcome(await session.generate_reply()))
    told.append([(item.type, getattr(item, "text_content", "")) for item in session.chat_ctx.items])
    return told


async def record(folder: Path) -> list[Any]:
    async with record_sessions(folder, inner=service().transport()) as transport:
        recorded = model(transport)
        told = await converse(recorded.session())
        await recorded.aclose()
    return told


async def test_a_session_is_played_back(tmp_path: Path) -> None:
    told = await record(tmp_path)
    assert told[2] == ("It rains.", "completed")
    async with replay_sessions(tmp_path) as transport:
        played = model(transport)
        again = await converse(played.session())
        transport.assert_used_up()
        await played.aclose()
    assert json.dumps(again) == json.dumps(told).replace(KEY, "X" * len(KEY))


async def test_no_secret_is_written(tmp_path: Path) -> None:
    await record(tmp_path)
    [file] = tmp_path.glob("*.json")
    text = file.read_text()
    assert KEY not in text
    assert "X" * len(KEY) in text
    assert load_session(file).url == "http://service.example/realtime?model=gpt-realtime-2.1"


async def test_a_server_plays_a_recording(tmp_path: Path) -> None:
    await record(tmp_path)
    async with RealtimeServer() as server:
        server.play(load_sessions(tmp_path)[0])
        played = RealtimeModel(base_url=server.url, api_key="any")
        told = await converse(played.session())
        await played.aclose()
        assert server.unused == 0
        assert server.players[0].unexpected == []
    assert told[2] == ("It rains.", "completed")


def frames(*events: tuple[str, float, Any]) -> SessionRecording:
    return SessionRecording(
        events=tuple(
            SessionEvent("server" if who == "s" else "client", closed=what, at=at)
            if isinstance(what, Closed)
            else SessionEvent(
                "server" if who == "s" else "client",
                what if isinstance(what, bytes) else json.dumps(what),
                at=at,
            )
            for who, at, what in events
        )
    )


@pytest.mark.looptime
@pytest.mark.parametrize(("speed", "expected"), [(math.inf, 0.0), (1.0, 7.0), (2.0, 3.5)])
async def test_the_timing_is_kept_where_it_is_wanted(speed: float, expected: float) -> None:
    recording = frames(
        ("s", 0.0, {"type": "session.created"}),
        ("c", 0.1, {"type": "session.update"}),
        ("s", 2.1, {"type": "session.updated", "session": {}}),
        ("c", 3.0, {"type": "response.create", "response": {}}),
        ("s", 8.0, {"type": "response.created", "response": {"id": "r"}}),
        ("s", 8.0, {"type": "response.done", "response": {"id": "r", "status": "completed"}}),
        ("s", 8.0, Closed(1000, "bye")),
    )
    async with replay_sessions([recording, recording], speed=speed) as transport:
        played = model(transport)
        begin = asyncio.get_running_loop().time()
        await played.session().generate_reply()
        took = asyncio.get_running_loop().time() - begin
        assert took == pytest.approx(expected, abs=0.05)
        await played.aclose()


@pytest.mark.looptime
async def test_more_connections_than_were_recorded() -> None:
    async with replay_sessions([]) as transport:
        played = model(transport)
        with pytest.raises(RealtimeError, match="0 recorded connections"):
            await played.session().generate_reply()
        await played.aclose()


@pytest.mark.looptime
async def test_what_was_not_played_is_told(tmp_path: Path) -> None:
    await record(tmp_path)
    async with replay_sessions(tmp_path) as transport:
        played = model(transport)
        session = played.session()
        await session.connected()
        with pytest.raises(AssertionError, match=r"0001 waits for 'session.update'|conversation"):
            transport.assert_used_up()
        await played.aclose()


async def test_a_refused_connection_is_recorded_as_one(tmp_path: Path) -> None:
    refusing = RealtimeService()
    refusing.fault(RealtimeFault.REFUSE_401)
    async with record_sessions(tmp_path, inner=refusing.transport()) as transport:
        recorded = model(transport)
        with pytest.raises(RealtimeError):
            await recorded.session().generate_reply()
        await recorded.aclose()
    [recording] = load_sessions(tmp_path)
    assert recording.error is not None
    assert recording.error.type == "APIStatusError"


def test_files_hold_what_was_recorded(tmp_path: Path) -> None:
    recording = SessionRecording(
        "x",
        url="ws://a.example",
        events=(
            SessionEvent("client", '{"a": 1}', at=0.5),
            SessionEvent("server", "no JSON"),
            SessionEvent("server", b"\0\xff"),
            SessionEvent("server", closed=Closed(1001, "old"), at=9.0),
        ),
    )
    save_session(recording, tmp_path / "deep" / "x.json")
    assert load_session(tmp_path / "deep" / "x.json") == recording


NO_RECORDINGS: list[Any] = [
    {},
    {"events": 1},
    {"events": [{}]},
    {"events": [{"direction": "up"}]},
    [],
]


@pytest.mark.parametrize("data", NO_RECORDINGS)
def test_what_is_no_recording_is_refused(data: Any, tmp_path: Path) -> None:
    file = tmp_path / "x.json"
    file.write_text(json.dumps(data))
    with pytest.raises(ValueError, match=r"recording|recorded|direction"):
        load_session(file)
