"""Graphs and runnables as an LLM: every stream shape, usage, errors, cancellation."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Annotated, Any, TypedDict

import pytest
from langchain_core.language_models import GenericFakeChatModel
from langchain_core.messages import (
    AIMessage,
    AIMessageChunk,
    HumanMessage,
    HumanMessageChunk,
    SystemMessage,
    ToolMessage,
)
from langchain_core.prompts import ChatPromptTemplate
from langchain_core.tools import tool
from langgraph.graph import END, START, StateGraph
from langgraph.graph.message import add_messages
from langgraph.prebuilt import ToolNode

from rejoinder._core.items import FunctionCall, FunctionCallOutput
from rejoinder.errors import APIConnectionError, APIError, APIStatusError, APITimeoutError
from rejoinder.llm.chat_context import ChatContext
from rejoinder.llm.llm import CompletionUsage, FunctionToolCall
from rejoinder.providers.langchain import LLMAdapter, as_langchain
from rejoinder.providers.langchain.wire import ItemDecoder
from rejoinder.testing.scripted import ScriptedLLM
from rejoinder.types import APIConnectOptions

ONCE = APIConnectOptions(max_retry=0)


class State(TypedDict):
    messages: Annotated[list[Any], add_messages]


def asked(text: str = "hi") -> ChatContext:
    ctx = ChatContext.empty()
    ctx.add_message(role="user", content=text)
    return ctx


class Shapes:
    """A stand-in with a graph's `astream`."""

    def __init__(self, *items: Any) -> None:
        self.items = items
        self.given: dict[str, Any] = {}
        self.closed = False

    async def astream(
        self, state: Any, config: Any = None, *, stream_mode: Any = None, subgraphs: bool = False
    ) -> AsyncIterator[Any]:
        self.given = {
            "state": state, "config": config, "stream_mode": stream_mode, "subgraphs": subgraphs,
        }  # fmt: skip
        try:
            for item in self.items:
                if isinstance(item, Exception):
                    raise item
                yield item
                await asyncio.sleep(0)
        finally:
            self.closed = True


META = {"langgraph_node": "agent", "langgraph_step": 1, "langgraph_checkpoint_ns": "agent:1"}


@pytest.mark.parametrize(
    "wrap",
    [
        lambda token: token,
        lambda token: (token, META),
        lambda token: (("sub:1",), (token, META)),
        lambda token: ((), (token, META)),
        lambda token: ("messages", (token, META)),
        lambda token: (("sub:1",), "messages", (token, META)),
    ],
)
@pytest.mark.parametrize("kind", ["chunk", "text"])
async def test_all_shapes_of_the_stream(wrap: Any, kind: str) -> None:
    def token(text: str) -> Any:
        return AIMessageChunk(text, id="m1") if kind == "chunk" else text

    graph = Shapes(wrap(token("Hel")), wrap(token("lo")))
    chunks = [c async for c in LLMAdapter(graph).chat(chat_ctx=asked())]
    assert "".join(c.delta.content for c in chunks if c.delta) == "Hello"
    if kind == "chunk":
        assert {c.id for c in chunks} == {"m1"}
    else:
        assert all(c.id.startswith("LC_") for c in chunks)


async def test_what_the_graph_is_given() -> None:
    graph = Shapes(AIMessageChunk("x"))
    ctx = ChatContext.empty()
    ctx.add_message(role="system", content="s")
    ctx.add_message(role="developer", content="d")
    ctx.add_message(role="user", content=["one", "two"], id="u1")
    ctx.add_message(role="assistant", content="a")
    ctx.items.append(FunctionCall(call_id="c", name="t", arguments="{}"))
    ctx.items.append(FunctionCallOutput(call_id="c", name="t", output="o", is_error=False))
    config = {"configurable": {"thread_id": "1"}}
    await LLMAdapter(graph, config=config, subgraphs=True).chat(chat_ctx=ctx).collect()
    messages = graph.given["state"]["messages"]
    assert [type(m) for m in messages] == [SystemMessage, SystemMessage, HumanMessage, AIMessage]
    assert messages[2].content == "one\ntwo"
    assert messages[2].id == "u1"
    assert graph.given["config"] == config
    assert graph.given["stream_mode"] == "messages"
    assert graph.given["subgraphs"] is True


async def test_an_old_graph_without_subgraphs() -> None:
    class Old:
        async def _go(self) -> AsyncIterator[Any]:
            yield AIMessageChunk("old")

        def astream(self, state: Any, config: Any = None, *, stream_mode: str) -> Any:
            return self._go()

    assert (await LLMAdapter(Old()).chat(chat_ctx=asked()).collect()).text == "old"


async def test_others_than_the_model_are_not_read_aloud() -> None:
    graph = Shapes(
        (HumanMessageChunk("echo"), META),
        (ToolMessage("raw result", tool_call_id="c"), META),
        (AIMessageChunk("said", id="m1"), META),
        (AIMessage("said", id="m1"), META),  # the whole of what was streamed
        (AIMessage("said", id="m2"), META),  # again, by the same step under another id
        AIMessage("bare"),
        ("updates", {"agent": {}}),
        42,
        {"strange": True},
    )
    assert (await LLMAdapter(graph).chat(chat_ctx=asked()).collect()).text == "said"


async def test_thinking_and_usage() -> None:
    usage: Any = {
        "input_tokens": 10, "output_tokens": 4, "total_tokens": 14,
        "input_token_details": {"cache_read": 6, "cache_creation": 1},
        "output_token_details": {"reasoning": 3},
    }  # fmt: skip
    thinking: Any = [{"type": "thinking", "thinking": "hm"}, {"type": "text", "text": "well"}]
    graph = Shapes(
        (AIMessageChunk(thinking, id="m1"), META),
        (AIMessageChunk("", id="m1", usage_metadata=usage), META),
        (AIMessageChunk("", id="m2", usage_metadata=usage), META),
    )
    reply = await LLMAdapter(graph).chat(chat_ctx=asked()).collect()
    assert (reply.text, reply.thinking) == ("well", "hm")
    assert reply.usage is not None
    assert reply.usage.prompt_tokens == 20
    assert reply.usage.completion_tokens == 8
    assert reply.usage.total_tokens == 28
    assert reply.usage.prompt_cached_tokens == 12
    assert reply.usage.cache_creation_tokens == 2
    assert reply.usage.reasoning_tokens == 6


class Refused(Exception):
    status_code = 429
    request_id = "req_1"


class ReadTimeout(Exception):
    pass


@pytest.mark.parametrize(
    ("error", "kind", "retryable"),
    [
        (Refused("slow down"), APIStatusError, True),
        (ReadTimeout("late"), APITimeoutError, True),
        (TimeoutError(), APITimeoutError, True),
        (ConnectionResetError("reset"), APIConnectionError, True),
        (ValueError("a bug"), APIError, False),
        (APIStatusError("ours", status_code=503), APIStatusError, True),
    ],
)
@pytest.mark.parametrize("after", ["nothing", "a tool"])
async def test_errors_are_mapped(
    error: Exception, kind: type[APIError], retryable: bool, after: str
) -> None:
    before = [(ToolMessage("x", tool_call_id="c"), META)] if after == "a tool" else []
    graph = Shapes(*before, error)
    with pytest.raises(kind) as caught:
        await LLMAdapter(graph).chat(chat_ctx=asked(), conn_options=ONCE).collect()
    assert type(caught.value) is kind
    # What has run may have had an effect: it is not run twice.
    assert caught.value.retryable is (retryable and after == "nothing")
    assert caught.value is error or caught.value.__cause__ is error
    assert graph.closed


async def test_a_stream_that_is_left_closes_the_graph() -> None:
    graph = Shapes(*("x" for _ in range(1000)))
    stream = LLMAdapter(graph).chat(chat_ctx=asked())
    await anext(stream.__aiter__())
    await stream.aclose()
    assert graph.closed


async def test_what_nodes_write_themselves() -> None:
    graph = Shapes("a", {"content": "b"}, ("messages", (AIMessageChunk("c"), META)), {"n": 1})
    adapter = LLMAdapter(graph, stream_mode="custom")
    assert (await adapter.chat(chat_ctx=asked()).collect()).text == "abc"
    again = AIMessage("d", id="1")
    graph = Shapes("c", ("custom", again), ("custom", again), ("custom", AIMessageChunk("e")))
    adapter = LLMAdapter(graph, stream_mode=["custom"])
    assert (await adapter.chat(chat_ctx=asked()).collect()).text == "cde"


def test_the_decoder_takes_anything() -> None:
    decoder = ItemDecoder()
    for item in (None, (), (1,), (1, 2), (1, 2, 3, 4), ((), ()), b"x", object(), [AIMessage("x")]):
        assert decoder.feed(item) == []
    assert decoder.skipped == decoder.seen
    assert decoder.close() == []


# real graphs ---------------------------------------------------------------------------------


def fake(*texts: str) -> GenericFakeChatModel:
    return GenericFakeChatModel(messages=iter([AIMessage(text) for text in texts]))


@pytest.mark.parametrize("subgraphs", [False, True])
async def test_a_real_graph_with_a_real_subgraph(subgraphs: bool) -> None:
    inner_model, outer_model = fake("from the inside"), fake("from the outside")

    async def inner(state: State) -> dict[str, Any]:
        return {"messages": [await inner_model.ainvoke(state["messages"])]}

    async def outer(state: State) -> dict[str, Any]:
        return {"messages": [await outer_model.ainvoke(state["messages"])]}

    sub = StateGraph(State)
    sub.add_node("inner", inner)
    sub.add_edge(START, "inner")
    builder = StateGraph(State)
    builder.add_node("sub", sub.compile())
    builder.add_node("outer", outer)
    builder.add_edge(START, "sub")
    builder.add_edge("sub", "outer")
    adapter = LLMAdapter(builder.compile(), subgraphs=subgraphs)
    text = (await adapter.chat(chat_ctx=asked()).collect()).text
    assert text.endswith("from the outside")
    assert text.count("from the inside") == 1


async def test_a_node_that_answers_without_a_model_is_heard() -> None:
    builder = StateGraph(State)
    builder.add_node("fixed", lambda state: {"messages": [AIMessage("a fixed answer")]})
    builder.add_edge(START, "fixed")
    reply = await LLMAdapter(builder.compile()).chat(chat_ctx=asked()).collect()
    assert reply.text == "a fixed answer"


async def test_an_agent_graph_over_one_of_our_models_and_back() -> None:
    runs: list[str] = []

    @tool
    def weather(city: str) -> str:
        """The weather."""
        runs.append(city)
        return "rain"

    usage = CompletionUsage(completion_tokens=1, prompt_tokens=2, total_tokens=3)
    llm = ScriptedLLM(
        [FunctionToolCall(name="weather", arguments='{"city": "Oslo"}', call_id="c1"), usage],
        ["It", " rains.", usage],
    )
    forced = as_langchain(llm).bind_tools([weather], tool_choice="any")
    free = as_langchain(llm).bind_tools([weather])

    async def agent(state: State) -> dict[str, Any]:
        model = free if isinstance(state["messages"][-1], ToolMessage) else forced
        return {"messages": [await model.ainvoke(state["messages"])]}

    builder = StateGraph(State)
    builder.add_node("agent", agent)
    builder.add_node("tools", ToolNode([weather]))
    builder.add_edge(START, "agent")
    builder.add_conditional_edges(
        "agent", lambda s: "tools" if s["messages"][-1].tool_calls else END, ["tools", END]
    )
    builder.add_edge("tools", "agent")
    stream = LLMAdapter(builder.compile()).chat(chat_ctx=asked("weather?"))
    chunks = [chunk async for chunk in stream]
    assert [c.delta.content for c in chunks if c.delta and c.delta.content] == ["It", " rains."]
    assert not any(c.delta.tool_calls for c in chunks if c.delta)
    assert chunks[-1].usage is not None
    assert chunks[-1].usage.total_tokens == 6
    assert runs == ["Oslo"]
    assert llm.calls[0].tool_choice == "required"
    llm.assert_used_up()


async def test_a_chat_model_of_langchain_gets_tools_and_its_calls_come_back() -> None:
    from rejoinder.llm.tool_context import function_tool

    @function_tool
    async def weather(city: str) -> str:
        """The weather."""
        return "rain"

    call = FunctionToolCall(name="weather", arguments='{"city": "Oslo"}', call_id="c1")
    llm = ScriptedLLM(["Hm.", call])
    adapter = LLMAdapter(as_langchain(llm))
    reply = await adapter.chat(chat_ctx=asked(), tools=[weather], tool_choice="required").collect()
    assert reply.text == "Hm."
    assert [(c.name, c.arguments, c.call_id) for c in reply.tool_calls] == [
        ("weather", '{"city": "Oslo"}', "c1")
    ]
    assert llm.calls[0].tool_choice == "required"


async def test_a_chain_gets_the_state_its_prompt_asks_for() -> None:
    prompt = ChatPromptTemplate.from_messages([("system", "brief"), ("placeholder", "{messages}")])
    chain = prompt | fake("a chain answers")
    assert (await LLMAdapter(chain).chat(chat_ctx=asked()).collect()).text == "a chain answers"


def test_a_graph_that_is_not_compiled_is_refused() -> None:
    with pytest.raises(TypeError, match="compiled"):
        LLMAdapter(StateGraph(State))
