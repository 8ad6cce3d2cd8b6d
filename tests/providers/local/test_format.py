"""Conversations for the embedded engine."""

from __future__ import annotations

import json

import pytest

from rejoinder._core.items import FunctionCall, FunctionCallOutput, ImageContent
from rejoinder.llm import ChatContext
from rejoinder.providers.local.format import Mode, answered_calls, request_body, to_chat_ctx
from rejoinder.providers.local.tools import Call

TOOLS = [
    {
        "type": "function",
        "function": {
            "name": "now",
            "description": "The time.",
            "parameters": {"type": "object", "properties": {"zone": {"type": "string"}}},
        },
    }
]


def history() -> ChatContext:
    ctx = ChatContext()
    ctx.add_message(role="developer", content="Be brief.")
    ctx.add_message(role="user", content="What time is it?")
    ctx.items.append(FunctionCall(call_id="1", name="now", arguments='{"zone": "UTC"}'))
    ctx.items.append(FunctionCallOutput(call_id="1", name="now", output="five", is_error=False))
    return ctx


def test_messages() -> None:
    messages, data = to_chat_ctx(history().items)
    assert data is None
    assert [message["role"] for message in messages] == ["system", "user", "assistant", "tool"]


def test_nobody_spoke() -> None:
    ctx = ChatContext()
    ctx.add_message(role="system", content="S")
    assert to_chat_ctx(ctx.items)[0][-1] == {"role": "user", "content": "."}
    assert len(to_chat_ctx(ctx.items, inject_dummy_user_message=False)[0]) == 1


def test_pictures_are_told() -> None:
    ctx = ChatContext()
    ctx.add_message(
        role="user", content=["Look", ImageContent(image="https://example.org/cat.png")]
    )
    (message,), _ = to_chat_ctx(ctx.items)
    assert isinstance(message["content"], str)
    assert "Look" in message["content"]
    assert "cannot see" in message["content"]
    assert "example.org" not in json.dumps(message)


def test_auto_offers_tools_natively_or_as_text() -> None:
    messages, _ = to_chat_ctx(history().items)
    native = request_body(messages, TOOLS, {"max_tokens": 5}, mode="auto")
    assert native["tools"] == TOOLS
    assert native["tool_choice"] == "auto"
    assert native["stream"] is native["return_progress"] is True
    assert native["max_tokens"] == 5
    folded = request_body(messages, TOOLS, {}, mode="auto", knows_tools=False)
    assert "tools" not in folded
    assert "now" in folded["messages"][0]["content"]
    assert [message["role"] for message in folded["messages"]][-1] == "user"


def test_a_forced_call_keeps_the_prompt_and_adds_a_grammar() -> None:
    messages, _ = to_chat_ctx(history().items)
    auto = request_body(messages, TOOLS, {}, mode="auto")
    forced = request_body(messages, TOOLS, {}, mode="forced", forced="now")
    assert forced["messages"] == auto["messages"]
    assert forced["tools"] == auto["tools"]
    schema = forced["response_format"]["json_schema"]["schema"]
    assert schema["properties"]["name"] == {"const": "now"}


@pytest.mark.parametrize("mode", ["auto", "forced"])
def test_where_a_call_may_come_the_past_is_told_where_asked_to(mode: Mode) -> None:
    ctx = history()
    ctx.add_message(role="assistant", content="Five.")
    ctx.add_message(role="user", content="And now?")
    messages, _ = to_chat_ctx(ctx.items)
    body = request_body(messages, TOOLS, {}, mode=mode, tell=True)
    assert [message["role"] for message in body["messages"]] == ["system", "user"]
    assert body["messages"][-1]["content"].endswith("Assistant: Five.\n\nNow: And now?")
    assert request_body(messages, TOOLS, {}, mode=mode)["messages"] == messages


def test_plain_without_tools_tells_calls_where_asked_to() -> None:
    messages, _ = to_chat_ctx(history().items)
    body = request_body(messages, TOOLS, {}, mode="plain", tell=True)
    assert "tools" not in body
    assert "now with zone UTC gave: five." in body["messages"][-1]["content"]
    kept = request_body(messages, TOOLS, {}, mode="plain")
    assert kept["messages"][-1]["role"] == "tool"


def test_a_response_schema_leaves_room_for_calls() -> None:
    messages, _ = to_chat_ctx(history().items)
    wanted = {"type": "object", "properties": {"a": {"type": "string"}}}
    plain = request_body(messages, [], {}, response_schema=wanted)
    assert plain["response_format"]["json_schema"]["schema"] == wanted
    both = request_body(messages, TOOLS, {}, mode="auto", response_schema=wanted)
    first, second = both["response_format"]["json_schema"]["schema"]["anyOf"]
    assert first == wanted
    assert second["properties"]["name"] == {"const": "now"}


def test_a_template_without_system_messages() -> None:
    messages, _ = to_chat_ctx(history().items[:2])
    body = request_body(messages, [], {}, knows_system=False)
    assert body["messages"] == [{"role": "user", "content": "Be brief.\n\nWhat time is it?"}]


def test_answered_calls_of_this_turn_only() -> None:
    ctx = history()
    assert answered_calls(ctx.items) == {Call("now", '{"zone": "UTC"}')}
    ctx.add_message(role="user", content="And now?")
    assert answered_calls(ctx.items) == frozenset()
