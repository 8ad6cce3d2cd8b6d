"""Calls, changes in mid-session, and frames that make no sense, over the Live API."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from examples import examples
from providers.google.live import connection, gemini_server, sent, talking, until
from providers.google.memory import MemorySocket, MemoryTransport
from providers.google.test_realtime import weather
from providers.sessions.driving import read
from rejoinder._core.realtime import messages as m
from rejoinder.errors import ConfigurationError
from rejoinder.llm import ChatContext, FunctionCallOutput, ImageContent
from rejoinder.llm.realtime import RealtimeError
from rejoinder.providers.google.realtime import RealtimeModel, RealtimeSession
from rejoinder.providers.google.realtime_rules import MODELS, rules_of
from rejoinder.providers.google.realtime_wire import GeminiLiveProtocol
from rejoinder.testing import RealtimeServer, ServerCall, ServerReply

TRAITS = m.Traits(input_rate=16000, output_rate=24000)


async def answer(session: RealtimeSession, call_id: str, output: str, **more: Any) -> None:
    chat_ctx = session.chat_ctx
    result = FunctionCallOutput(call_id=call_id, output=output, **{"is_error": False, **more})
    chat_ctx.items.append(result)
    await session.update_chat_ctx(chat_ctx)


async def called(server: RealtimeServer, session: RealtimeSession) -> None:
    """The model has called a tool."""
    await session.update_tools([weather])
    server.reply(ServerReply(calls=[ServerCall("weather")]))
    assert (await read(await session.generate_reply()))[2] == ["weather"]


async def test_an_interrupt_answers_the_call_that_the_model_waits_for() -> None:
    async with (
        gemini_server() as server,
        talking(server, tool_behavior="BLOCKING") as (session, seen),
    ):
        await called(server, session)
        server.say("What else?")
        session.interrupt()
        await until(lambda: len(seen.named("generation_created")) == 2)
        (result,) = connection(server).results
        assert "interrupted" in result["response"]["error"]
        assert (await read(seen.named("generation_created")[1]))[0] == "What else?"
        server.say("It is warm.")
        await answer(session, "call_1", "warm")
        await until(lambda: len(seen.named("generation_created")) == 3)
        assert (await read(seen.named("generation_created")[2]))[0] == "It is warm."
        assert len(connection(server).results) == 1
        assert "warm" in connection(server).said[-2][1]


async def test_an_interrupt_does_not_touch_a_call_that_the_model_does_not_wait_for() -> None:
    async with gemini_server() as server, talking(server) as (session, _):
        await called(server, session)
        session.interrupt()
        await answer(session, "call_1", "warm")
        await until(lambda: connection(server).results)
        assert [r["response"] for r in connection(server).results] == [{"output": "warm"}]


async def test_a_result_that_needs_no_reply_is_silent() -> None:
    async with gemini_server() as server, talking(server) as (session, seen):
        await called(server, session)
        await answer(session, "call_1", "warm", reply_required=False)
        await until(lambda: connection(server).results)
        assert connection(server).results[0]["scheduling"] == "SILENT"
        assert len(seen.named("generation_created")) == 1


async def test_a_failed_call() -> None:
    async with gemini_server() as server, talking(server) as (session, _):
        await called(server, session)
        await answer(session, "call_1", "No network.", is_error=True)
        await until(lambda: connection(server).results)
        assert connection(server).results[0]["response"] == {"error": "No network."}


async def test_tools_that_are_turned_off_are_refused() -> None:
    async with gemini_server() as server, talking(server) as (session, _):
        session.update_options(tool_choice="none")
        await session.update_tools([weather])
        server.reply(ServerReply(calls=[ServerCall("weather")]))
        assert (await read(await session.generate_reply()))[2] == []
        await until(lambda: connection(server).results)
        assert "No tools" in connection(server).results[0]["response"]["error"]


async def test_a_call_that_comes_twice_runs_once() -> None:
    async with gemini_server() as server, talking(server) as (session, seen):
        await session.update_tools([weather])
        await session.generate_reply()
        await until(lambda: connection(server).speaking is None)
        call = {"id": "c1", "name": "weather", "args": {"city": "Rome"}}
        unnamed = {"name": "weather", "args": {"city": "Oslo"}}
        conn = connection(server)
        for calls in ([call], [call], [unnamed]):
            await conn.send_message(toolCall={"functionCalls": calls})
        parts = [{"functionCall": call}, {"functionCall": unnamed}]
        await conn.send_message(serverContent={"modelTurn": {"parts": parts}})
        await conn.send_message(serverContent={"generationComplete": True, "turnComplete": True})
        await until(lambda: len(seen.named("generation_created")) == 2)
        event = seen.named("generation_created")[1]
        found = [call async for call in event.function_stream]
        assert [json.loads(call.arguments)["city"] for call in found] == ["Rome", "Oslo"]
        await answer(session, found[1].call_id, "cold")
        await until(lambda: conn.results)
        assert conn.results[0] == {"name": "weather", "response": {"output": "cold"}}


async def test_instructions_and_tools_take_effect_before_the_next_reply() -> None:
    async with (
        gemini_server() as server,
        talking(server, instructions="Be brief.") as (session, _),
    ):
        server.reply(ServerReply(["One."], hold=True))
        event = await session.generate_reply()
        await until(lambda: session.chat_ctx.items)
        await session.update_instructions("Be kind.")
        await session.update_tools([weather])
        future = session.generate_reply()
        for _ in range(50):
            await asyncio.sleep(0)
        connection(server, 0).release()
        assert (await read(event))[0] == "One."
        server.say("Two.")
        assert (await read(await future))[0] == "Two."
        setup = connection(server).setup
        assert setup["systemInstruction"]["parts"] == [{"text": "Be kind."}]
        assert len(setup["tools"]) == 1
        assert "".join(t for _, t in connection(server).said) == "One.Two."
        count = len(server.connections)
        await session.update_instructions("Be kind.")
        await session.update_tools([weather])
        await read(await session.generate_reply())
        assert len(server.connections) == count


async def test_instructions_on_vertex_need_no_other_connection() -> None:
    async with gemini_server() as server, talking(server, vertexai=True) as (session, _):
        await read(await session.generate_reply())
        await session.update_instructions("Be kind.")
        await until(lambda: ("system", "Be kind.") in connection(server).said)
        assert len(server.connections) == 1


async def test_a_removed_item_is_gone_from_the_next_session() -> None:
    async with gemini_server() as server, talking(server) as (session, seen):
        chat_ctx = ChatContext.empty()
        chat_ctx.add_message(role="user", content="My number is 1234.")
        chat_ctx.add_message(role="user", content="I am Alice.")
        await session.update_chat_ctx(chat_ctx)
        await read(await session.generate_reply())
        await until(lambda: session.session_resumption_handle)
        shorter = session.chat_ctx
        del shorter.items[0]
        await session.update_chat_ctx(shorter)
        server.say("Alice.")
        assert (await read(await session.generate_reply()))[0] == "Alice."
        assert "handle" not in connection(server).setup["sessionResumption"]
        assert connection(server).said == [
            ("user", "I am Alice."), ("model", "Hello."), ("model", "Alice."),
        ]  # fmt: skip
        assert len(seen.named("session_reconnected")) == 1


async def test_items_that_come_during_a_reply_do_not_cut_it_off() -> None:
    async with gemini_server() as server, talking(server) as (session, _):
        server.reply(ServerReply(["One ", "two."], hold=True))
        event = await session.generate_reply()
        await until(lambda: session.chat_ctx.items)
        chat_ctx = session.chat_ctx
        chat_ctx.add_message(role="user", content="I am Alice.")
        await session.update_chat_ctx(chat_ctx)
        assert not [c for c in sent(connection(server), "clientContent") if c.get("turns")]
        connection(server).release()
        assert (await read(event))[0] == "One two."
        await until(lambda: ("user", "I am Alice.") in connection(server).said)


async def test_pictures_in_the_conversation() -> None:
    pixel = (
        "data:image/png;base64,iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGA"
        "WjR9awAAAABJRU5ErkJggg=="
    )
    async with gemini_server() as server, talking(server) as (session, _):
        await session.connected()
        chat_ctx = ChatContext.empty()
        chat_ctx.add_message(role="user", content=["See:", ImageContent(image=pixel)])
        await session.update_chat_ctx(chat_ctx)
        await until(lambda: sent(connection(server), "clientContent"))
        (turn,) = sent(connection(server), "clientContent")[0]["turns"]
        assert turn["parts"][0] == {"text": "See:"}
        assert turn["parts"][1]["inlineData"]["mimeType"] == "image/png"
        chat_ctx = session.chat_ctx
        chat_ctx.add_message(role="user", content=[ImageContent(image="https://x.example/a.png")])
        with pytest.raises(RealtimeError, match="does not accept URLs"):
            await session.update_chat_ctx(chat_ctx)
        await read(await session.generate_reply())


# -- frames that make no sense ---------------------------------------------------------------------

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3)
    ),
    max_leaves=6,
)
NAMES = [
    "setupComplete", "serverContent", "toolCall", "toolCallCancellation", "usageMetadata", "goAway",
    "sessionResumptionUpdate", "voiceActivity", "error", "somethingNew",
]  # fmt: skip
PART = st.one_of(
    JSON,
    st.fixed_dictionaries({"text": JSON}, optional={"thought": JSON}),
    st.fixed_dictionaries(
        {"inlineData": JSON | st.fixed_dictionaries({"mimeType": JSON, "data": JSON})}
    ),
    st.fixed_dictionaries(
        {"functionCall": st.fixed_dictionaries({"name": JSON, "args": JSON, "id": JSON})}
    ),
)
CONTENT = st.fixed_dictionaries(
    {},
    optional={
        "modelTurn": JSON | st.fixed_dictionaries({"parts": st.lists(PART, max_size=3)}),
        "inputTranscription": JSON | st.fixed_dictionaries({"text": JSON, "finished": JSON}),
        "outputTranscription": JSON | st.fixed_dictionaries({"text": st.text(max_size=3)}),
        "interrupted": JSON,
        "generationComplete": JSON,
        "turnComplete": JSON,
        "turnCompleteReason": JSON,
    },
)
MESSAGE = st.dictionaries(st.sampled_from(NAMES), JSON, max_size=3) | st.fixed_dictionaries(
    {"serverContent": CONTENT}, optional={"usageMetadata": JSON, "toolCall": JSON}
)
FRAME = MESSAGE.map(json.dumps) | st.text(max_size=20) | st.binary(max_size=20)
LIVE = sorted(name for name, rules in MODELS.items() if rules.live)


@examples(150)
@given(st.sampled_from(LIVE), st.lists(FRAME, max_size=12))
def test_no_frame_raises_and_every_reply_that_began_can_end(model: str, frames: list[Any]) -> None:
    protocol = GeminiLiveProtocol(lambda: model, rules_of(model), TRAITS)
    protocol.open(m.UpdateSession("r", options={"responseModalities": ["AUDIO"]}))
    events: list[m.Event] = []
    for frame in [*frames, '{"serverContent":{"turnComplete":true}}']:
        events += protocol.receive(frame)
    running: str | None = None
    for event in events:
        if isinstance(event, m.ReplyStarted):
            assert running is None
            running = event.reply_id
        elif isinstance(event, m.AudioDelta | m.TextDelta | m.MessageStarted | m.MessageEnded):
            assert event.reply_id == running
        elif isinstance(event, m.ReplyEnded) and event.reply_id == running:
            running = None
    assert running is None
    known = {e.item.id for e in events if isinstance(e, m.ItemAdded)}
    assert len(known) == sum(isinstance(e, m.ItemAdded) for e in events)


@pytest.mark.looptime
async def test_every_end_at_every_step_ends_every_future() -> None:
    """The connection ends, with each code, before and after each message of a turn."""
    messages: list[dict[str, Any]] = [
        {"serverContent": {"modelTurn": {"parts": [{"text": "Hm.", "thought": True}]}}},
        {"serverContent": {"outputTranscription": {"text": "Hello."}}},
        {"toolCall": {"functionCalls": [{"id": "c", "name": "weather", "args": {}}]}},
        {"serverContent": {"generationComplete": True}},
        {"serverContent": {"turnComplete": True}},
    ]
    for code in (None, 1000, 1001, 1006, 1007, 1008, 1011):
        for step in range(len(messages) + 1):
            transport = MemoryTransport()
            model = RealtimeModel(api_key="any", transport=transport)
            session = model.session()
            future = session.generate_reply()
            await session.connected()
            await asyncio.sleep(0.1)
            socket: MemorySocket = transport.sockets[0]
            for message in messages[:step]:
                socket.say(**message)
            await asyncio.sleep(0.1)
            socket.end(code, "over")
            await asyncio.sleep(15)
            assert future.done(), (code, step)
            if future.exception() is None:
                outcome = future.result().outcome
                assert outcome is not None
                await asyncio.wait_for(asyncio.ensure_future(outcome), 60)
            else:
                assert isinstance(future.exception(), RealtimeError)
            await asyncio.wait_for(model.aclose(), 2)


def test_a_name_of_no_live_model_is_refused() -> None:
    for name in ("gemini-3.5-flash", "models/gemini-2.5-pro"):
        with pytest.raises(ConfigurationError, match="not a model of the Live API"):
            rules_of(name)
    assert rules_of("gemini-9-live-preview") == rules_of("my-tuned-model")


def told_late(*, texts: int) -> GeminiLiveProtocol:
    """The model has called a tool; results of calls of an earlier connection are told as text, and
    its own result is sent, all before it says a word. Then a reply is asked for."""
    protocol = GeminiLiveProtocol(lambda: "m", rules_of("gemini-3.8-live"), TRAITS)
    protocol.open(m.UpdateSession("open", options={"toolBehavior": "BLOCKING"}))
    called = {"functionCalls": [{"id": "new", "name": "weather", "args": {}}]}
    protocol.receive(json.dumps({"setupComplete": {}}))
    protocol.receive(json.dumps({"toolCall": called}))
    for call_id in [*(f"late_{number}" for number in range(texts)), "new"]:
        output = FunctionCallOutput(call_id=call_id, output="warm", is_error=False)
        protocol.send(m.CreateItem("c", output, None))
    protocol.send(m.CreateReply("asked"))
    return protocol


CUT = json.dumps({"serverContent": {"interrupted": True, "turnComplete": True}})
EMPTY = json.dumps({"serverContent": {"turnComplete": True}})
WORDS = json.dumps({"serverContent": {"outputTranscription": {"text": "It is warm."}}})


@pytest.mark.parametrize("texts", [1, 2, 3])
@pytest.mark.parametrize("end", [CUT, EMPTY])
def test_turns_that_the_next_text_has_overtaken_fail_no_request(texts: int, end: str) -> None:
    protocol = told_late(texts=texts)
    for _ in range(texts):
        assert not [e for e in protocol.receive(end) if isinstance(e, m.ReplyEnded)]
    (begun,) = [e for e in protocol.receive(WORDS) if isinstance(e, m.ReplyStarted)]
    assert begun.ref == "asked"


def test_an_empty_turn_that_nothing_has_overtaken_fails_its_request() -> None:
    protocol = told_late(texts=2)
    protocol.receive(WORDS)
    protocol.receive(EMPTY)
    protocol.send(m.CreateReply("again"))
    (ended,) = [e for e in protocol.receive(EMPTY) if isinstance(e, m.ReplyEnded)]
    assert ended.ref == "again"
    assert "empty reply" in str(ended.error)
