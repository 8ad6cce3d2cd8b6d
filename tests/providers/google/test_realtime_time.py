"""What time does to a session of the Live API: silence, age, replies that are late. No time passes."""

from __future__ import annotations

import asyncio
import base64
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest

from providers.google.memory import MemorySocket, MemoryTransport
from providers.google.test_realtime import sound, weather
from providers.sessions.driving import Seen, read, texts
from rejoinder.llm import FunctionCallOutput
from rejoinder.llm.realtime import RealtimeError
from rejoinder.providers.google.realtime import RealtimeModel, RealtimeSession
from rejoinder.types import APIConnectOptions
from stalls import Stalls

pytestmark = pytest.mark.looptime

WORD = base64.b64encode(bytes(4800)).decode()
SPOKEN = {"modelTurn": {"parts": [{"inlineData": {"mimeType": "audio/pcm", "data": WORD}}]}}


@asynccontextmanager
async def talking(
    transport: MemoryTransport, **options: Any
) -> AsyncIterator[tuple[RealtimeSession, Seen]]:
    options.setdefault("conn_options", APIConnectOptions(max_retry=2, retry_interval=0.1))
    model = RealtimeModel(api_key="any", transport=transport, **options)
    session = model.session()
    seen = Seen(session)
    await session.connected()
    try:
        yield session, seen
    finally:
        await model.aclose()


def say(socket: MemorySocket, text: str) -> None:
    """The model speaks a whole turn."""
    socket.say(serverContent={"outputTranscription": {"text": text}, **SPOKEN})
    socket.say(serverContent={"generationComplete": True})
    socket.say(serverContent={"turnComplete": True})


def asked(socket: MemorySocket) -> int:
    """How many times a reply was asked for."""
    return sum(
        event.get("clientContent", {}).get("turnComplete") is True for _, event in socket.sent
    )


async def push_for(session: RealtimeSession, seconds: float) -> None:
    for _ in range(round(seconds * 10)):
        session.push_audio(sound(100))
        await asyncio.sleep(0.1)


async def until(condition: Callable[[], object]) -> None:
    async with asyncio.timeout(100):
        while not condition():
            await asyncio.sleep(0.01)


async def test_a_service_that_answers_pings_late_stays_connected() -> None:
    transport = MemoryTransport(pong=28.0)
    async with talking(transport) as (session, seen):
        await push_for(session, 300)
        assert len(transport.sockets) == 1
        assert transport.sockets[0].pings >= 3
        assert not seen.named("error")


async def test_a_connection_that_is_half_open_is_replaced() -> None:
    transport = MemoryTransport(pong=None)
    async with talking(transport) as (session, seen):
        await push_for(session, 70)
        assert len(transport.sockets) == 2
        assert [error.recoverable for error in seen.named("error")] == [True]
        assert seen.named("session_reconnected")


@pytest.mark.parametrize("seconds", [3, 12, 100])
async def test_a_loop_that_stood_still_is_no_dead_service(seconds: float) -> None:
    stalls = Stalls()
    transport = MemoryTransport(pong=2.0)
    async with talking(transport) as (session, seen):
        for _ in range(6):  # one of the stalls follows a ping
            await push_for(session, 7)
            stalls.stand_still(seconds)
        await push_for(session, 7)
        assert len(transport.sockets) == 1
        assert transport.sockets[0].pings
        assert not seen.named("error")


async def test_a_loop_that_stood_still_ends_no_reply() -> None:
    stalls = Stalls()
    transport = MemoryTransport()
    async with talking(transport) as (session, seen):
        (socket,) = transport.sockets
        asking = session.generate_reply()
        await asyncio.sleep(0)
        stalls.stand_still(30)  # before the request has left
        await asyncio.sleep(2)
        socket.say(serverContent={"outputTranscription": {"text": "Well, "}, **SPOKEN})
        reply = asyncio.ensure_future(read(await asking))
        await asyncio.sleep(1)
        stalls.stand_still(100)
        await asyncio.sleep(2)
        say(socket, "hello.")
        assert (await reply)[0] == "Well, hello."
        assert not seen.named("error")


async def test_a_user_who_says_nothing_costs_no_connection() -> None:
    transport = MemoryTransport(pong=None)
    async with talking(transport, max_session_duration=None) as (_, seen):
        await asyncio.sleep(3000)
        assert len(transport.sockets) == 1
        assert not seen.named("error")


async def test_an_application_that_sends_no_sound_says_so() -> None:
    transport = MemoryTransport()
    async with talking(transport) as (session, _):
        await push_for(session, 1)
        end = asyncio.get_running_loop().time()
        await asyncio.sleep(60)
        (paused,) = [
            at
            for at, event in transport.sockets[0].sent
            if event.get("realtimeInput") == {"audioStreamEnd": True}
        ]
        assert 1.0 <= paused - end <= 3.0
        await push_for(session, 1)
        await asyncio.sleep(60)
        ends = [e for _, e in transport.sockets[0].sent if "audioStreamEnd" in str(e)]
        assert len(ends) == 2


async def test_a_reply_that_comes_too_late_is_not_heard() -> None:
    transport = MemoryTransport()
    async with talking(transport) as (session, seen):
        with pytest.raises(RealtimeError) as caught:
            await session.generate_reply()
        assert caught.value.code == "timeout"
        await asyncio.sleep(5)
        say(transport.sockets[0], "Late.")
        await asyncio.sleep(5)
        assert not seen.named("generation_created")
        # The next turn is the user's, and its answer is heard.
        socket = transport.sockets[0]
        socket.say(voiceActivity={"voiceActivityType": "ACTIVITY_START"})
        socket.say(serverContent={"inputTranscription": {"text": "Hello?"}})
        socket.say(voiceActivity={"voiceActivityType": "ACTIVITY_END"})
        say(socket, "Yes.")
        await until(lambda: seen.named("generation_created"))
        assert (await read(seen.named("generation_created")[0]))[0] == "Yes."
        assert texts(session)[-2:] == [("user", "Hello?"), ("assistant", "Yes.")]


async def test_the_user_cancels_the_debt() -> None:
    transport = MemoryTransport()
    async with talking(transport) as (session, seen):
        with pytest.raises(RealtimeError):
            await session.generate_reply()
        socket = transport.sockets[0]
        socket.say(voiceActivity={"voiceActivityType": "ACTIVITY_START"})
        socket.say(voiceActivity={"voiceActivityType": "ACTIVITY_END"})
        say(socket, "To you.")
        await until(lambda: seen.named("generation_created"))
        assert (await read(seen.named("generation_created")[0]))[0] == "To you."


async def test_a_new_request_cancels_the_debt() -> None:
    transport = MemoryTransport()
    async with talking(transport) as (session, _):
        with pytest.raises(RealtimeError):
            await session.generate_reply()
        future = session.generate_reply()
        await until(lambda: asked(transport.sockets[0]) == 2)
        say(transport.sockets[0], "For the second.")
        event = await future
        assert event.user_initiated
        assert (await read(event))[0] == "For the second."


async def test_a_reply_that_stands_still_fails_and_thinking_does_not() -> None:
    transport = MemoryTransport()
    async with talking(transport) as (session, _):
        future = session.generate_reply()
        await until(lambda: asked(transport.sockets[0]) == 1)
        socket = transport.sockets[0]
        for _ in range(10):
            thought = {"text": "Hm.", "thought": True}
            socket.say(serverContent={"modelTurn": {"parts": [thought]}})
            await asyncio.sleep(20)
        event = await future
        await asyncio.sleep(40)
        assert event.outcome is not None
        assert await event.outcome == "failed"


async def test_a_long_answer_is_played_longer_than_it_is_made() -> None:
    transport = MemoryTransport()
    async with talking(transport) as (session, seen):
        future = session.generate_reply()
        await until(lambda: asked(transport.sockets[0]) == 1)
        socket = transport.sockets[0]
        socket.say(serverContent={"outputTranscription": {"text": "Long."}, **SPOKEN})
        socket.say(serverContent={"generationComplete": True})
        event = await future
        await asyncio.sleep(90)  # the service believes that it is being played
        socket.say(
            serverContent={"turnComplete": True},
            usageMetadata={"promptTokenCount": 3, "candidatesTokenCount": 4},
        )
        assert event.outcome is not None
        assert await event.outcome == "completed"
        await until(lambda: any(m.total_tokens for m in seen.named("metrics_collected")))
        told = [m for m in seen.named("metrics_collected") if m.request_id]
        assert [(m.input_tokens, m.output_tokens) for m in told] == [(3, 4)]


async def test_a_turn_with_pauses_is_one_reply() -> None:
    transport = MemoryTransport()
    async with talking(
        transport,
        model="gemini-3.8-live-extended-thinking",
        thinking_config={"thinking_level": "low"},
    ) as (session, seen):
        future = session.generate_reply()
        await until(lambda: asked(transport.sockets[0]) == 1)
        socket = transport.sockets[0]
        socket.say(serverContent={"outputTranscription": {"text": "Let me think. "}, **SPOKEN})
        end = {"generationComplete": True, "turnComplete": True}
        socket.say(serverContent={**end, "interactionStatus": "IN_PROGRESS"})
        await asyncio.sleep(60)
        socket.say(serverContent={"outputTranscription": {"text": "Got it."}, **SPOKEN})
        socket.say(serverContent={**end, "interactionStatus": "IDLE"})
        assert (await read(await future))[0] == "Let me think. Got it."
        assert len(seen.named("generation_created")) == 1


async def test_a_session_is_begun_anew_before_the_service_ends_it() -> None:
    transport = MemoryTransport()
    async with talking(transport, context_window_compression={"trigger_tokens": 9}) as (
        session,
        seen,
    ):
        future = session.generate_reply()
        await until(lambda: asked(transport.sockets[0]) == 1)
        say(transport.sockets[0], "Hello.")
        await read(await future)
        transport.sockets[0].say(sessionResumptionUpdate={"newHandle": "h", "resumable": True})
        await asyncio.sleep(3350)
        assert len(transport.sockets) == 1
        await asyncio.sleep(30)
        assert len(transport.sockets) == 2
        setup, history = [event for _, event in transport.sockets[1].sent]
        assert setup["setup"]["sessionResumption"] == {}
        (turn,) = history["clientContent"]["turns"]
        assert turn == {"role": "model", "parts": [{"text": "Hello."}]}
        assert not seen.named("error")


async def test_the_gap_of_a_swap() -> None:
    transport = MemoryTransport(handshake=0.2)
    async with talking(transport) as (session, _):
        transport.sockets[0].say(sessionResumptionUpdate={"newHandle": "h", "resumable": True})
        await until(lambda: session.session_resumption_handle)
        began = asyncio.get_running_loop().time()
        transport.sockets[0].say(goAway={"timeLeft": "50s"})
        await until(lambda: len(transport.sockets) == 2 and transport.sockets[1].sent)
        assert transport.requests[1][0] - began <= 0.3
        assert transport.sockets[1].sent[0][0] - began <= 0.3 + 0.2 + 0.02


async def test_a_going_away_that_cannot_wait_is_obeyed() -> None:
    transport = MemoryTransport()
    async with talking(transport) as (session, seen):
        socket = transport.sockets[0]
        socket.say(sessionResumptionUpdate={"newHandle": "h", "resumable": True})
        future = session.generate_reply()
        await until(lambda: asked(socket) == 1)
        socket.say(goAway={"timeLeft": "10s"})
        for _ in range(20):
            socket.say(serverContent={"outputTranscription": {"text": "x"}, **SPOKEN})
            await asyncio.sleep(1)
        event = await future
        assert event.outcome is not None
        assert await event.outcome == "failed"
        assert len(transport.sockets) == 2
        began = transport.requests[1][0]
        assert 7.5 <= began - socket.sent[-1][0] <= 9.0
        assert seen.named("session_reconnected")


async def test_a_service_that_never_accepts_is_given_up() -> None:
    transport = MemoryTransport()
    transport.answers = False
    model = RealtimeModel(
        api_key="any",
        transport=transport,
        conn_options=APIConnectOptions(max_retry=2, retry_interval=0.1),
    )
    session = model.session()
    with pytest.raises(RealtimeError):
        await session.generate_reply()
    with pytest.raises(RealtimeError, match="did not accept"):
        await session.connected()
    assert len(transport.sockets) == 3
    await model.aclose()


async def called(session: RealtimeSession, socket: MemorySocket, seen: Seen) -> None:
    """The model has called a tool, by itself."""
    socket.say(toolCall={"functionCalls": [{"id": "c1", "name": "weather", "args": {}}]})
    await until(lambda: seen.named("generation_created"))


async def answer(session: RealtimeSession) -> None:
    chat_ctx = session.chat_ctx
    chat_ctx.items.append(FunctionCallOutput(call_id="c1", output="rain", is_error=False))
    await session.update_chat_ctx(chat_ctx)


@pytest.mark.parametrize("model", ["gemini-3.1-flash-live-preview", "gemini-3.8-live"])
async def test_a_request_beside_a_slow_tool_that_the_model_waits_for(model: str) -> None:
    transport = MemoryTransport()
    options: dict[str, Any] = {"tool_behavior": "BLOCKING"} if "3.8" in model else {}
    async with talking(transport, model=model, **options) as (session, seen):
        await session.update_tools([weather])
        await until(lambda: len(transport.sockets) == 2)
        await session.connected()
        await asyncio.sleep(1)
        socket = transport.sockets[-1]
        await called(session, socket, seen)
        future = session.generate_reply()
        await asyncio.sleep(60)
        assert asked(socket) == 0  # a text would cut off what the model is about to say
        await answer(session)
        say(socket, "It rains.")
        event = await future
        assert event.user_initiated
        assert (await read(event))[0] == "It rains."
        assert not seen.named("error")


async def test_a_turn_with_pauses_waits_for_a_slow_tool() -> None:
    transport = MemoryTransport()
    async with talking(
        transport,
        model="gemini-3.8-live-extended-thinking",
        thinking_config={"thinking_level": "low"},
    ) as (session, seen):
        future = session.generate_reply()
        await until(lambda: asked(transport.sockets[0]) == 1)
        socket = transport.sockets[0]
        socket.say(serverContent={"outputTranscription": {"text": "One moment. "}, **SPOKEN})
        await called(session, socket, seen)
        await asyncio.sleep(300)
        await answer(session)
        socket.say(serverContent={"outputTranscription": {"text": "It rains."}, **SPOKEN})
        end = {"generationComplete": True, "turnComplete": True}
        socket.say(serverContent={**end, "interactionStatus": "IDLE"})
        event = await future
        assert (await read(event))[0] == "One moment. It rains."
        assert event.outcome is not None
        assert await event.outcome == "completed"


async def test_a_connection_too_many_is_closed() -> None:
    transport = MemoryTransport()
    async with talking(transport) as (session, _):
        await asyncio.sleep(11)
        await session.update_instructions("Be brief.")  # the next connection is being opened
        await asyncio.sleep(0.01)
        transport.sockets[0].end(1011)  # and one instead of the first
        await asyncio.sleep(1)
        assert len(transport.sockets) == 3
        open_ones = [socket for socket in transport.sockets if socket.closed_at is None]
        assert len(open_ones) == 1
