"""Runs inside LiveKit Agents, the oldest and the newest version."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from livekit import agents, rtc
from livekit.agents import Agent, AgentSession, RunContext, function_tool
from livekit.agents import llm as lk
from page import run_program

from rejoinder.integrations.livekit import (
    LLM,
    context_from_livekit,
    context_to_livekit,
    from_livekit,
)
from rejoinder.llm import ChatContext, FallbackAdapter, FunctionToolCall
from rejoinder.llm.chat_context import (
    AgentConfigUpdate,
    AgentHandoff,
    AudioContent,
    ChatMessage,
    FunctionCall,
    FunctionCallOutput,
    ImageContent,
)
from rejoinder.providers import openai
from rejoinder.testing import Answer, Fault, FaultServer, ScriptedLLM
from rejoinder.types import APIConnectOptions

NEW = tuple(map(int, agents.__version__.split(".")[:2])) >= (1, 8)


class Assistant(Agent):
    def __init__(self, instructions: str = "You are helpful.") -> None:
        super().__init__(instructions=instructions)

    @function_tool
    async def get_weather(self, ctx: RunContext, city: str) -> str:
        """Tell the weather of a city."""
        return f"rain in {city}"

    @function_tool
    async def transfer(self, ctx: RunContext) -> Agent:
        """Hand over to the other agent."""
        return Agent(instructions="You are the other one.")


def weather(call_id: str = "c1", **more: Any) -> FunctionToolCall:
    return FunctionToolCall(
        name="get_weather", arguments='{"city": "Oslo"}', call_id=call_id, **more
    )


def hello() -> lk.ChatContext:
    ctx = lk.ChatContext.empty()
    ctx.add_message(role="user", content="hi")
    return ctx


async def drain(model: LLM, **options: Any) -> None:
    async with model.chat(chat_ctx=hello(), **options) as stream:
        async for _ in stream:
            pass


def said(session: AgentSession) -> list[str]:
    return [
        item.text_content or ""
        for item in session.history.items
        if item.type == "message" and item.role == "assistant"
    ]


async def run(session: AgentSession, text: str) -> Any:
    return await asyncio.wait_for(session.run(user_input=text), 20)


async def test_a_session_speaks_and_runs_a_tool() -> None:
    model = ScriptedLLM([weather()], "It rains in Oslo.")
    async with AgentSession(llm=LLM(model)) as session:
        await session.start(Assistant())
        await run(session, "Weather in Oslo?")
        assert said(session) == ["It rains in Oslo."]
        outputs = [i for i in session.history.items if i.type == "function_call_output"]
        assert [output.output for output in outputs] == ["rain in Oslo"]


async def test_another_agent_takes_over() -> None:
    call = FunctionToolCall(name="transfer", arguments="{}", call_id="c1")
    model = ScriptedLLM([call], "Hello from the other one.", "Still me.")
    async with AgentSession(llm=LLM(model)) as session:
        await session.start(Assistant())
        await run(session, "Hand over.")
        await run(session, "Who is there?")
        assert model.calls[-1].chat_ctx.items[0].text_content == "You are the other one."


async def test_a_model_that_says_nothing_is_replaced() -> None:
    async with FaultServer() as server:
        server.script(Fault.STALL_BEFORE_OUTPUT)
        silent = openai.LLM(model="a", api_key="k", base_url=f"{server.url}/v1")
        second = ScriptedLLM("Here I am.")
        model = LLM(FallbackAdapter([silent, second], attempt_timeout=0.3))
        async with AgentSession(llm=model) as session:
            await session.start(Assistant())
            await run(session, "Hello?")
            assert said(session) == ["Here I am."]


async def test_interrupting_ends_the_reply() -> None:
    async with FaultServer() as server:
        server.script(Answer(text=("One ",) * 5000))
        model = LLM(openai.LLM(model="a", api_key="k", base_url=f"{server.url}/v1"))
        stream = model.chat(chat_ctx=hello())
        async for _ in stream:
            break
        await stream.aclose()
        assert stream._task.done()
        left = [task for task in asyncio.all_tasks() if "LLMStream" in repr(task)]
        assert not left


async def test_failures_are_told_and_retried_once() -> None:
    inner = openai.LLM(model="a", api_key="k", base_url="http://127.0.0.1:9/v1")
    model = LLM(inner, conn_options=APIConnectOptions(max_retry=1, retry_interval=0.01))
    seen: list[Any] = []
    model.on("error", seen.append)
    with pytest.raises(agents.APIConnectionError):
        await drain(model)
    assert [error.recoverable for error in seen] == [True, False]


async def test_an_error_keeps_its_status_and_is_not_retried() -> None:
    async with FaultServer() as server:
        server.always(Fault.STATUS_401)
        model = LLM(openai.LLM(model="a", api_key="k", base_url=f"{server.url}/v1"))
        with pytest.raises(agents.APIStatusError) as caught:
            await drain(model)
        assert caught.value.status_code == 401
        assert not caught.value.retryable
        assert len(server.requests) == 1


async def test_usage_arrives_as_livekits_metrics() -> None:
    async with FaultServer() as server:
        server.script(Answer(text=("Hello",)))
        model = LLM(openai.LLM(model="a", api_key="k", base_url=f"{server.url}/v1"))
        seen: list[Any] = []
        model.on("metrics_collected", seen.append)
        await drain(model)
        (metrics,) = seen
        assert metrics.total_tokens > 0
        assert metrics.ttft >= 0


async def test_state_that_a_version_drops_returns_with_the_reply() -> None:
    model = ScriptedLLM([weather(extra={"google": {"thought_signature": "x"}})], "Rain.")
    adapter = LLM(model)
    async with AgentSession(llm=adapter) as session:
        await session.start(Assistant())
        await run(session, "Weather?")
    (call,) = [item for item in model.calls[-1].chat_ctx.items if item.type == "function_call"]
    assert call.extra == {"google": {"thought_signature": "x"}}


class Theirs(lk.LLM):
    """A model of LiveKit."""

    def __init__(self, *texts: str, error: Exception | None = None) -> None:
        super().__init__()
        self.texts = texts
        self.error = error

    def chat(self, *, chat_ctx: Any, tools: Any = None, conn_options: Any = None, **_: Any) -> Any:
        return _Stream(self, chat_ctx=chat_ctx, tools=tools or [], conn_options=conn_options)


class _Stream(lk.LLMStream):
    async def _run(self) -> None:
        theirs: Any = self._llm
        if theirs.error is not None:
            raise theirs.error
        for text in theirs.texts:
            delta = lk.ChoiceDelta(role="assistant", content=text)
            self._event_ch.send_nowait(lk.ChatChunk(id="1", delta=delta))


async def test_a_model_of_livekit_is_a_member_of_a_fallback() -> None:
    broken = from_livekit(Theirs(error=agents.APIStatusError("no", status_code=500)))
    model = FallbackAdapter([broken, from_livekit(Theirs("Hel", "lo."))], max_retry_per_llm=0)
    ctx = ChatContext.empty()
    ctx.add_message(role="user", content="hi")
    assert (await model.chat(chat_ctx=ctx).collect()).text == "Hello."
    await model.aclose()


def test_what_is_no_model_is_told() -> None:
    with pytest.raises(TypeError, match="expected a rejoinder LLM"):
        LLM("gpt-4.1")  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="conn_options: expected "):
        LLM(ScriptedLLM("x"), conn_options=5)  # type: ignore[arg-type]
    for convert in (context_from_livekit, context_to_livekit):
        with pytest.raises(TypeError, match="chat_ctx: expected a ChatContext of"):
            convert([])  # type: ignore[arg-type]
    with pytest.raises(TypeError, match=r"livekit\.agents LLM"):
        from_livekit(ScriptedLLM("x"))  # type: ignore[arg-type]


def test_without_a_loop_there_is_one_error() -> None:
    with pytest.raises(RuntimeError, match="no event loop"):
        LLM(ScriptedLLM("x")).chat(chat_ctx=lk.ChatContext.empty())


# -- contexts ------------------------------------------------------------------------------------

texts = st.text(max_size=20)
ids = st.text(alphabet="abcdef0123", min_size=1, max_size=8)
parts = st.one_of(
    texts,
    st.builds(
        lambda url, detail: lk.ImageContent(image=url, inference_detail=detail),
        st.just("data:image/png;base64,AAAA"),
        st.sampled_from(["auto", "high", "low"]),
    ),
    st.builds(
        lambda transcript: lk.AudioContent(
            frame=[rtc.AudioFrame(bytes(480), 24000, 1, 240)], transcript=transcript
        ),
        st.none() | texts,
    ),
)
messages = st.builds(
    lambda role, content, interrupted, at: lk.ChatMessage(
        role=role, content=content, interrupted=interrupted, created_at=at
    ),
    st.sampled_from(["system", "developer", "user", "assistant"]),
    st.lists(parts, max_size=3),
    st.booleans(),
    st.floats(0, 2e9),
)
calls = st.builds(
    lambda call_id, arguments: lk.FunctionCall(call_id=call_id, name="t", arguments=arguments),
    ids,
    texts,
)
outputs = st.builds(
    lambda call_id, output, error: lk.FunctionCallOutput(
        call_id=call_id, name="t", output=output, is_error=error
    ),
    ids,
    texts,
    st.booleans(),
)
kinds = [messages, calls, outputs]
if NEW:
    kinds += [
        st.builds(
            lambda a, b: lk.AgentHandoff(old_agent_id=a, new_agent_id=b), st.none() | ids, ids
        ),
        st.builds(lambda text: lk.AgentConfigUpdate(instructions=text), st.none() | texts),
    ]


@settings(max_examples=150, deadline=None)
@given(st.lists(st.one_of(*kinds), max_size=8))
def test_a_context_comes_back_as_it_was(items: list[Any]) -> None:
    theirs = lk.ChatContext(items)
    back = context_to_livekit(context_from_livekit(theirs))
    assert len(back.items) == len(items)
    for before, after in zip(items, back.items, strict=True):
        assert type(after) is type(before)
        mine, other = dict(before.__dict__), dict(after.__dict__)
        if before.type == "message":
            for a, b in zip(mine.pop("content"), other.pop("content"), strict=True):
                if isinstance(a, str):
                    assert a == b
                else:
                    assert {k: v for k, v in a.__dict__.items() if k != "frame"} == {
                        k: v for k, v in b.__dict__.items() if k != "frame"
                    }
                    assert getattr(a, "frame", None) == getattr(b, "frame", None)
        assert mine == other


our_messages = st.builds(
    lambda role, content, interrupted, at, extra: ChatMessage(
        role=role,
        content=content,
        interrupted=interrupted,
        created_at=at,
        extra=extra if NEW else {},
    ),
    st.sampled_from(["system", "developer", "user", "assistant"]),
    st.lists(
        texts
        | st.builds(ImageContent, image=st.just("https://example.com/a.png"))
        | st.builds(
            AudioContent,
            frame=st.just([rtc.AudioFrame(bytes(480), 24000, 1, 240)]),
            transcript=st.none() | texts,
        ),
        max_size=3,
    ),
    st.booleans(),
    st.floats(0, 2e9),
    st.dictionaries(texts, st.integers() | texts, max_size=2),
)
our_calls = st.builds(FunctionCall, call_id=ids, name=ids, arguments=texts)
our_outputs = st.builds(
    FunctionCallOutput, call_id=ids, name=ids, output=texts, is_error=st.booleans()
)
our_kinds = [our_messages, our_calls, our_outputs]
if NEW:
    our_kinds += [
        st.builds(AgentHandoff, old_agent_id=st.none() | ids, new_agent_id=ids),
        st.builds(AgentConfigUpdate, instructions=texts, tools_added=st.none() | st.lists(ids)),
        st.builds(FunctionCall, call_id=ids, name=ids, arguments=texts, group_id=ids),
    ]


@settings(max_examples=150, deadline=None)
@given(st.lists(st.one_of(*our_kinds), max_size=8))
def test_a_context_of_ours_comes_back_as_it_was(items: list[Any]) -> None:
    assert context_from_livekit(context_to_livekit(ChatContext(items))).items == items


async def test_the_program_of_the_documentation_runs(tmp_path: Path) -> None:
    assert "Hello from here." in await run_program("LiveKit Agents", tmp_path)
