"""Our models as LangChain's: messages, tools, streaming, state and errors."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from langchain_core.messages import (
    AIMessage,
    AIMessageChunk,
    HumanMessage,
    SystemMessage,
    ToolMessage,
)
from langchain_core.tools import tool
from pydantic import BaseModel

from rejoinder.errors import APIStatusError
from rejoinder.llm.llm import ChoiceDelta, CompletionUsage, FunctionToolCall
from rejoinder.llm.tool_context import ToolContext
from rejoinder.providers.langchain import as_langchain
from rejoinder.providers.langchain.chat_model import _StopCutter
from rejoinder.providers.langchain.format import from_messages, to_chat_ctx
from rejoinder.testing.scripted import ScriptedLLM

USAGE = CompletionUsage(
    completion_tokens=5,
    prompt_tokens=7,
    total_tokens=12,
    prompt_cached_tokens=3,
    cache_read_tokens=3,
    reasoning_tokens=2,
)
CALL = FunctionToolCall(name="weather", arguments='{"city": "Oslo"}', call_id="c1")


@tool
def weather(city: str) -> str:
    """The weather in a city."""
    return f"rain in {city}"


async def test_text_streams_and_tokens_are_counted() -> None:
    model = as_langchain(ScriptedLLM(["Hello", " you", USAGE]))
    chunks = [chunk async for chunk in model.astream("hi")]
    assert [chunk.text for chunk in chunks if chunk.text] == ["Hello", " you"]
    whole = chunks[0]
    for chunk in chunks[1:]:
        whole = whole + chunk
    assert isinstance(whole, AIMessageChunk)
    assert whole.text == "Hello you"
    assert whole.usage_metadata == {
        "input_tokens": 7,
        "output_tokens": 5,
        "total_tokens": 12,
        "input_token_details": {"cache_read": 3},
        "output_token_details": {"reasoning": 2},
    }
    assert whole.response_metadata["model_provider"] == "testing"


def test_the_plain_methods_work_without_a_loop() -> None:
    model = as_langchain(
        ScriptedLLM("one two", "three four", APIStatusError("no", status_code=400))
    )
    assert model.invoke("hi").text == "one two"
    assert [chunk.text for chunk in model.stream("hi") if chunk.text] == ["three", " four"]
    with pytest.raises(APIStatusError, match="no"):
        model.invoke("hi")


async def test_tools_are_offered_forced_and_called() -> None:
    llm = ScriptedLLM([CALL], "It rains.")
    model = as_langchain(llm).bind_tools([weather], tool_choice="any", parallel_tool_calls=False)
    reply = await model.ainvoke("weather?")
    assert reply.tool_calls == [
        {"name": "weather", "args": {"city": "Oslo"}, "id": "c1", "type": "tool_call"}
    ]
    asked = llm.calls[0]
    assert asked.tool_choice == "required"
    assert asked.parallel_tool_calls is False
    (spec,) = ToolContext(asked.tools).parse_function_tools("openai", strict=False)
    assert spec["function"]["name"] == "weather"
    assert spec["function"]["parameters"]["properties"]["city"]["type"] == "string"
    await model.ainvoke([HumanMessage("weather?"), reply, ToolMessage("rain", tool_call_id="c1")])
    items = llm.calls[1].chat_ctx.items
    assert [item.type for item in items] == ["message", "function_call", "function_call_output"]
    assert items[2].name == "weather"  # type: ignore[union-attr]


@pytest.mark.parametrize(
    ("choice", "expected"),
    [
        ("auto", "auto"),
        ("none", "none"),
        ("required", "required"),
        (True, "required"),
        ("weather", {"type": "function", "function": {"name": "weather"}}),
    ],
)
async def test_tool_choice_in_all_its_spellings(choice: Any, expected: Any) -> None:
    llm = ScriptedLLM("x")
    await as_langchain(llm).bind_tools([weather], tool_choice=choice).ainvoke("hi")
    assert llm.calls[0].tool_choice == expected


async def test_structured_output() -> None:
    class City(BaseModel):
        name: str
        people: int

    call = FunctionToolCall(name="City", arguments='{"name": "Oslo", "people": 7}', call_id="c")
    model = as_langchain(ScriptedLLM([call])).with_structured_output(City)
    assert await model.ainvoke("a city") == City(name="Oslo", people=7)


async def test_opaque_state_travels_out_and_back() -> None:
    call = CALL.model_copy(update={"extra": {"google": {"thought_signature": "c2ln"}}})
    state = {"anthropic": {"thinking": [{"type": "thinking", "signature": "abc"}]}}
    llm = ScriptedLLM(
        [ChoiceDelta(extra=state), ChoiceDelta(thinking="hm"), "Let me see.", call], "done"
    )
    model = as_langchain(llm)
    reply = await model.ainvoke("hi")
    assert reply.additional_kwargs["reasoning_content"] == "hm"
    await model.ainvoke([HumanMessage("hi"), reply, ToolMessage("r", tool_call_id="c1")])
    _, message, made, _ = llm.calls[1].chat_ctx.items
    assert message.extra == state  # type: ignore[union-attr]
    assert made.extra == {"google": {"thought_signature": "c2ln"}}  # type: ignore[union-attr]


async def test_options_reach_the_model() -> None:
    llm = ScriptedLLM("a b STOP c")
    model = as_langchain(
        llm, temperature=0.5, max_tokens=9, timeout=3, max_retries=1, stop=["STOP"]
    )
    assert (await model.ainvoke("hi")).text == "a b "
    assert llm.calls[0].extra_kwargs == {"temperature": 0.5, "max_tokens": 9}
    assert llm.calls[0].conn_options.timeout == 3
    assert llm.calls[0].conn_options.max_retry == 1


@given(st.text(alphabet="ab-", max_size=30), st.data(), st.sampled_from([["-a"], ["aa", "ab-"]]))
def test_a_stop_text_is_found_however_it_is_cut(text: str, data: Any, stops: list[str]) -> None:
    cutter = _StopCutter(stops)
    said, rest = "", text
    while rest:
        size = data.draw(st.integers(1, len(rest)))
        said += cutter.feed(rest[:size])
        rest = rest[size:]
    said += cutter.close()
    ends = [text.find(stop) for stop in stops if stop in text]
    # Cut at the first stop text that is complete; another may begin before it and end after it.
    assert text.startswith(said)
    if not ends:
        assert said == text
    else:
        assert not any(stop in said for stop in stops)


def test_messages_become_items() -> None:
    items = from_messages(
        [
            SystemMessage("be brief"),
            HumanMessage(
                [
                    {"type": "text", "text": "what is this?"},
                    {"type": "image_url", "image_url": {"url": "https://x/y.png"}},
                    {"type": "image", "base64": "AAAA", "mime_type": "image/png"},
                ]
            ),
            AIMessage("let me see", tool_calls=[{"name": "t", "args": {"a": 1}, "id": "c1"}]),
            ToolMessage("bad", tool_call_id="c1", status="error"),
        ]
    )
    assert [item.type for item in items] == [
        "message", "message", "message", "function_call", "function_call_output",
    ]  # fmt: skip
    assert items[0].role == "system"  # type: ignore[union-attr]
    first, second, third = items[1].content  # type: ignore[union-attr]
    assert first == "what is this?"
    assert second.image == "https://x/y.png"
    assert third.image == "data:image/png;base64,AAAA"
    assert items[3].arguments == '{"a": 1}'  # type: ignore[union-attr]
    assert items[4].is_error  # type: ignore[union-attr]
    with pytest.raises(ValueError, match="expected a system"):
        from_messages([AIMessage("x").model_copy(update={"type": "strange"})])


def test_items_survive_the_round_trip() -> None:
    items = from_messages(
        [
            HumanMessage("q", id="h"),
            AIMessage("a", id="r", tool_calls=[{"name": "t", "args": {"x": [1]}, "id": "c1"}]),
            ToolMessage("out", tool_call_id="c1"),
            AIMessage("done", id="d"),
        ]
    )
    messages, _ = to_chat_ctx(items, with_tools=True)
    again = from_messages(messages)
    assert [
        (i.type, getattr(i, "content", None) or getattr(i, "arguments", None)) for i in again
    ] == [(i.type, getattr(i, "content", None) or getattr(i, "arguments", None)) for i in items]
