"""Runs inside LiveKit Agents, the oldest and the newest version: whole sessions."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from inside_livekit import NEW, Assistant, Theirs, drain, hello, run, said, weather
from livekit import agents, rtc
from livekit.agents import Agent, AgentSession, stt
from livekit.agents import llm as lk
from livekit.agents.types import APIConnectOptions as TheirOptions
from livekit.agents.voice.io import AudioInput
from running import running

from rejoinder.integrations.livekit import LLM, from_livekit
from rejoinder.llm import FallbackAdapter, FunctionToolCall
from rejoinder.llm.chat_context import ChatContext
from rejoinder.providers import openai
from rejoinder.testing import Answer, Fault, FaultServer, ScriptedLLM, no_leaks
from rejoinder.types import APIConnectOptions

GREETING = "Hello, my friend."
EARLY = stt.SpeechEventType.PREFLIGHT_TRANSCRIPT


def at(server: FaultServer, **options: Any) -> openai.LLM:
    return openai.LLM(model="a", api_key="k", base_url=f"{server.url}/v1", **options)


# -- what is heard ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("on_cut", "heard"),
    [("restart", "Hello\nGood day."), ("resume", "Hello my friend."), ("stop", None)],
)
async def test_a_reply_that_breaks_off_is_kept_as_it_was_heard(
    on_cut: Any, heard: str | None
) -> None:
    second = {"restart": "Good day.", "resume": " my friend."}.get(on_cut, "")
    async with FaultServer() as server:
        server.script(Answer(text=("Hello", " my"), fault=Fault.RESET_MID_STREAM))
        async with no_leaks(), at(server) as first:
            adapter = LLM(FallbackAdapter([first, ScriptedLLM(second)], on_cut=on_cut))
            async with AgentSession(llm=adapter) as session:
                await session.start(Assistant())
                try:
                    await run(session, "Hi.")
                except Exception:
                    assert heard is None
                spoken = said(session)
            await adapter.aclose()
        if heard is not None:
            assert spoken == [heard]


async def test_nothing_is_said_twice_and_nothing_is_left() -> None:
    async with FaultServer() as silent, FaultServer() as second:
        silent.always(Fault.KEEP_ALIVES_FOR_EVER)
        second.always(Answer(text=("Here ", "I ", "am.")))
        async with no_leaks(), at(silent) as a, at(second) as b:
            adapter = LLM(FallbackAdapter([a, b], attempt_timeout=0.3))
            async with AgentSession(llm=adapter) as session:
                await session.start(Assistant())
                await run(session, "Hello?")
                await run(session, "And again?")
                assert said(session) == ["Here I am.", "Here I am."]
            await adapter.aclose()


async def test_an_interruption_ends_the_reply_and_keeps_what_was_said() -> None:
    words: list[Any] = ["One", " two", 0.05, *([" more", 0.05] * 400)]
    model = ScriptedLLM(words, "Yes?")
    async with no_leaks():
        adapter = LLM(model)
        async with AgentSession(llm=adapter) as session:
            await session.start(Assistant())
            speech = session.generate_reply(user_input="Count.")
            while not model.attempts:
                await asyncio.sleep(0)
            await asyncio.sleep(0.2)
            assert running() == 1
            speech.interrupt()
            await asyncio.wait_for(speech.wait_for_playout(), 5)
            assert not running()
            await run(session, "Stop.")
        await adapter.aclose()
    sent = model.calls[-1].chat_ctx.items
    assert [item.text_content for item in sent if item.type == "message"][-1] == "Stop."
    for item in sent:
        if item.type == "message" and item.role == "assistant":
            assert item.interrupted
            assert len(item.text_content or "") < 1000


async def test_two_agents_with_models_of_their_own() -> None:
    class Second(Agent):
        def __init__(self, model: LLM, chat_ctx: lk.ChatContext) -> None:
            super().__init__(instructions="You are the second.", llm=model, chat_ctx=chat_ctx)

        async def on_enter(self) -> None:
            self.session.generate_reply()

    second = ScriptedLLM("Second here.", "Still second.")

    class First(Agent):
        @agents.function_tool
        async def hand_over(self) -> tuple[Agent, str]:
            """Hand over."""
            return Second(LLM(second), self.chat_ctx), "done"

    call = FunctionToolCall(name="hand_over", arguments="{}", call_id="c1")
    first = ScriptedLLM([call])
    async with no_leaks(), AgentSession(llm=LLM(first)) as session:
        await session.start(First(instructions="You are the first."))
        result = await run(session, "Hand over.")
        result.expect.contains_function_call(name="hand_over")
        result.expect.contains_agent_handoff(new_agent_type=Second)
        await run(session, "Who is there?")
        assert said(session) == ["Second here.", "Still second."]
    first.assert_used_up()
    second.assert_used_up()
    sent = [item.text_content for item in second.calls[-1].chat_ctx.items if item.type == "message"]
    assert sent == ["You are the second.", "Hand over.", "Second here.", "Who is there?"]


async def check_their_helper() -> None:
    from livekit.agents.testing import fake_job_context

    with fake_job_context():
        async with AgentSession(llm=LLM(ScriptedLLM([weather()], "Rain."))) as session:
            await session.start(Assistant())
            result = await run(session, "Weather?")
            result.expect.next_event().is_function_call(name="get_weather")
            result.expect.next_event().is_function_call_output(output="rain in Oslo")
            result.expect.next_event().is_message(role="assistant")
            result.expect.no_more_events()


# -- preemptive generation -------------------------------------------------------------------------


class Ear(stt.STT):
    """Hears what the test says."""

    def __init__(self) -> None:
        super().__init__(capabilities=stt.STTCapabilities(streaming=True, interim_results=True))
        self.said: asyncio.Queue[tuple[stt.SpeechEventType, str]] = asyncio.Queue()

    async def _recognize_impl(self, *_: Any, **__: Any) -> Any:
        raise NotImplementedError

    def stream(self, *, conn_options: Any = None, **_: Any) -> Any:
        return EarStream(stt=self, conn_options=conn_options or TheirOptions())

    def say(self, kind: stt.SpeechEventType, text: str = "") -> None:
        self.said.put_nowait((kind, text))


class EarStream(stt.RecognizeStream):
    async def _run(self) -> None:
        ear: Any = self._stt
        while True:
            kind, text = await ear.said.get()
            heard = [stt.SpeechData(language="en", text=text, confidence=1.0)] if text else []
            self._event_ch.send_nowait(stt.SpeechEvent(type=kind, alternatives=heard))


class Microphone(AudioInput):
    def __init__(self) -> None:
        super().__init__(label="test")

    async def __anext__(self) -> rtc.AudioFrame:
        await asyncio.sleep(0.01)
        return rtc.AudioFrame(bytes(320), 16000, 1, 160)


@asynccontextmanager
async def listening(model: LLM) -> AsyncGenerator[tuple[AgentSession, Ear]]:
    ear = Ear()
    session: AgentSession = AgentSession(
        llm=model,
        stt=ear,
        turn_detection="stt",
        preemptive_generation=True,
        min_endpointing_delay=0.2,
    )
    session.input.audio = Microphone()
    async with session:
        await session.start(Agent(instructions="You are helpful."))
        await asyncio.sleep(0.1)
        yield session, ear


async def until(true: Any) -> None:
    async with asyncio.timeout(10):
        while not true():
            await asyncio.sleep(0.01)


async def test_a_reply_that_was_begun_early_is_the_one_that_is_heard() -> None:
    model = ScriptedLLM("Sunny.", "Too often.")
    async with listening(LLM(model)) as (session, ear):
        ear.say(stt.SpeechEventType.START_OF_SPEECH)
        ear.say(EARLY, "What is the weather?")
        await until(lambda: model.attempts == 1)
        assert said(session) == []
        ear.say(stt.SpeechEventType.FINAL_TRANSCRIPT, "What is the weather?")
        ear.say(stt.SpeechEventType.END_OF_SPEECH)
        await until(lambda: said(session))
        assert said(session) == ["Sunny."]
    assert model.attempts == 1


async def test_a_reply_that_was_begun_too_early_is_closed() -> None:
    never: list[Any] = ["Wrong", 0.02, *([" words", 0.02] * 2000)]
    model = ScriptedLLM(never, "Right.", "Right.")
    async with no_leaks(), listening(LLM(model)) as (session, ear):
        ear.say(stt.SpeechEventType.START_OF_SPEECH)
        ear.say(EARLY, "What is")
        await until(lambda: model.attempts == 1)
        ear.say(EARLY, "What is the weather?")
        await until(lambda: model.attempts == 2)
        assert running() <= 1
        ear.say(stt.SpeechEventType.FINAL_TRANSCRIPT, "What is the weather?")
        ear.say(stt.SpeechEventType.END_OF_SPEECH)
        await until(lambda: said(session))
        assert said(session) == ["Right."]


# -- settings and events ---------------------------------------------------------------------------


async def test_everything_that_is_asked_reaches_the_model() -> None:
    @agents.function_tool(
        raw_schema={
            "name": "raw",
            "description": "A raw tool.",
            "parameters": {"type": "object", "properties": {"x": {"type": "integer"}}},
        }
    )
    async def raw(raw_arguments: dict[str, object]) -> str:
        return "x"

    @agents.function_tool
    async def typed(city: str, days: int = 3) -> str:
        """Tell the weather.

        Args:
            city: where
        """
        return city

    model = ScriptedLLM("Yes.")
    adapter: Any = LLM(model)
    stream = adapter.chat(
        chat_ctx=hello(),
        tools=[raw, typed],
        tool_choice={"type": "function", "function": {"name": "raw"}},
        parallel_tool_calls=False,
        extra_kwargs={"temperature": 0.5},
        response_format={"type": "json_object"},
        conn_options=TheirOptions(max_retry=7, retry_interval=0.5, timeout=3.0),
    )
    async with stream:
        async for _ in stream:
            pass
    (call,) = model.calls
    one, two = (tool.info.raw_schema for tool in call.tools)
    assert one["parameters"]["properties"] == {"x": {"type": "integer"}}
    assert two["name"] == "typed"
    assert two["parameters"]["properties"]["city"]["description"] == "where"
    assert call.tool_choice == {"type": "function", "function": {"name": "raw"}}
    assert call.parallel_tool_calls is False
    assert call.extra_kwargs == {"temperature": 0.5}
    assert call.response_format == {"type": "json_object"}
    assert (call.conn_options.max_retry, call.conn_options.timeout) == (7, 3.0)


async def check_provider_tools() -> None:
    from livekit.plugins.openai.tools import WebSearch

    async with FaultServer() as server:
        server.always(Answer(text=("Found.",)))
        search: Any = WebSearch()
        model = LLM(at(server, api="responses"))
        async with model.chat(chat_ctx=hello(), tools=[search]) as stream:
            async for _ in stream:
                pass
        assert server.requests[0].json()["tools"] == [search.to_dict()]
        other = LLM(ScriptedLLM("x"))
        unknown: Any = lk.ProviderTool(id="odd")
        with pytest.raises(TypeError, match="provider tools with `to_dict"):
            await drain(other, tools=[unknown])
        await model.aclose()


async def test_a_model_that_cannot_do_what_was_asked_says_so_once() -> None:
    class Odd:
        pass

    seen: list[Any] = []
    model = LLM(ScriptedLLM("x"))
    model.on("error", seen.append)
    odd: Any = [Odd()]
    with pytest.raises(TypeError, match=r"expected function tools.*got Odd"):
        await drain(model, tools=odd)
    assert len(seen) == 1


async def test_prewarming_reaches_the_fallbacks() -> None:
    warmed: list[str] = []
    members = [
        ScriptedLLM("x", model=name, prewarm=lambda name=name: warmed.append(name))
        for name in ("a", "b")
    ]
    adapter = LLM(FallbackAdapter(members))
    adapter.prewarm()
    await until(lambda: len(warmed) == 2)
    await adapter.aclose()
    theirs = Theirs("x")
    calls: list[int] = []
    theirs.prewarm = lambda **_: calls.append(1)  # type: ignore[method-assign]
    from_livekit(theirs).prewarm()
    await until(lambda: calls)


async def test_availability_and_usage_arrive_as_livekits_events() -> None:
    async with FaultServer() as first, FaultServer() as second:
        first.always(Fault.STATUS_500)
        second.always(Answer(text=("Hello",)))
        theirs = Theirs(error=agents.APIStatusError("no", status_code=500))
        model = FallbackAdapter([from_livekit(theirs), at(first), at(second)], max_retry_per_llm=0)
        adapter = LLM(model)
        changed: list[Any] = []
        counted: list[Any] = []
        adapter.on("llm_availability_changed", changed.append)
        adapter.on("metrics_collected", counted.append)
        async with adapter.chat(chat_ctx=hello()) as stream:
            async for _ in stream:
                pass
        assert [type(event) for event in changed] == [lk.AvailabilityChangedEvent] * 2
        assert [event.available for event in changed] == [False, False]
        assert changed[0].llm is theirs
        (metrics,) = counted
        assert metrics.total_tokens > 0
        assert metrics.label == adapter.label
        assert (adapter.model, adapter.provider) == ("a", model.metrics_metadata["model_provider"])
        await adapter.aclose()


async def test_their_fallback_takes_ours_as_a_member() -> None:
    async with FaultServer() as server:
        server.always(Fault.STALL_BEFORE_OUTPUT)
        quick = LLM(at(server), conn_options=APIConnectOptions(max_retry=0))
        model = lk.FallbackAdapter([quick, LLM(ScriptedLLM("Here."))], attempt_timeout=0.3)
        text = ""
        async with model.chat(chat_ctx=hello()) as stream:
            async for chunk in stream:
                text += (chunk.delta.content or "") if chunk.delta else ""
        assert text == "Here."
        await model.aclose()
        await quick.aclose()


async def test_broken_arguments_are_mended() -> None:
    call = FunctionToolCall(name="get_weather", arguments="{'city': 'Oslo'}", call_id="c1")
    async with AgentSession(llm=LLM(ScriptedLLM([call], "Rain."))) as session:
        await session.start(Assistant())
        await run(session, "Weather?")
        outputs = [i for i in session.history.items if i.type == "function_call_output"]
        assert [output.output for output in outputs] == ["rain in Oslo"]


async def check_cache_breakpoints() -> None:
    from rejoinder.integrations.livekit import context_from_livekit, context_to_livekit

    content = ["Rules.", lk.chat_context.CacheBreakpoint(), "Caller: 7"]
    theirs = lk.ChatContext([lk.ChatMessage(role="system", content=content)])
    ours = context_from_livekit(theirs)
    assert ours.items[0].text_content == "Rules.\nCaller: 7"
    assert ours.to_dict()["items"][0]["content"][1] == {"type": "cache_breakpoint"}
    again = context_to_livekit(ChatContext.from_dict(ours.to_dict()))
    assert again.items[0].content == content
    assert again.items[0].extra == {}


if NEW:  # 1.2.17 has none of these
    test_their_helper_for_a_job_without_a_server = check_their_helper
    test_a_provider_tool_is_sent_to_a_model_that_takes_it = check_provider_tools
    test_cache_breakpoints_come_back_and_are_not_sent = check_cache_breakpoints
