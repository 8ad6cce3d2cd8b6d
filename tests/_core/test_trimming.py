"""Which items stay when a conversation is made shorter. (tests/llm/test_chat_context.py: `truncate`.)"""

from __future__ import annotations

import json
from typing import Any

import pytest

from rejoinder._core.items import (
    AgentHandoff,
    AudioContent,
    ChatItem,
    ChatMessage,
    FunctionCall,
    FunctionCallOutput,
    ImageContent,
)
from rejoinder._core.trimming import (
    keep_last_items,
    keep_last_tokens,
    render_for_summary,
    split_for_summary,
)


def history(kinds: str) -> list[ChatItem]:
    """One item for each letter: ``s``ystem, ``u``ser, ``a``ssistant, ``h``andoff; ``C`` calls, ``O``
    is the output of the call before it. Ids are the positions."""
    items: list[ChatItem] = []
    for index, kind in enumerate(kinds):
        match kind:
            case "C":
                items.append(FunctionCall(id=f"{index}", call_id="c", name="t", arguments="{}"))
            case "O":
                items.append(
                    FunctionCallOutput(id=f"{index}", call_id="c", output="", is_error=False)
                )
            case "h":
                items.append(AgentHandoff(id=f"{index}", new_agent_id="x"))
            case _:
                role: Any = {"s": "system", "u": "user", "a": "assistant"}[kind]
                items.append(ChatMessage(id=f"{index}", role=role, content=["x"]))
    return items


def ids(items: list[ChatItem] | None) -> str | None:
    return None if items is None else "".join(item.id for item in items)


@pytest.mark.parametrize(
    ("kinds", "most", "kept"),
    [
        ("sua", 3, None),
        ("suaua", 2, "034"),  # instructions stay
        ("uCOau", 3, "34"),  # what is kept begins with no call and no output
        ("uCuOa", 3, "24"),  # an output that lost its call goes too
        ("uau", 0, ""),
        ("sCOCOu", 2, "05"),
    ],
)
def test_by_number(kinds: str, most: int, kept: str | None) -> None:
    assert ids(keep_last_items(history(kinds), most)) == kept


@pytest.mark.parametrize(
    ("kinds", "most", "kept"),
    [("sua", 3, None), ("suaua", 3, "034"), ("sua", 0, "0"), ("ua", 1, "1")],
)
def test_by_tokens(kinds: str, most: int, kept: str | None) -> None:
    assert ids(keep_last_tokens(history(kinds), most, lambda item: 1)) == kept


@pytest.mark.parametrize(
    ("kinds", "turns", "replaced"),
    [
        ("sua", 1, ""),
        ("suauaua", 1, "1234"),
        ("suauuaa", 1, "12"),  # several user messages in a row begin one turn
        ("uCuOa", 1, "0"),  # a call whose output stays
        ("uCOhaua", 1, "0124"),
        ("uCaua", 1, "02"),  # a call without an output
        ("ua", 0, "01"),
    ],
)
def test_what_a_summary_replaces(kinds: str, turns: int, replaced: str) -> None:
    assert ids(split_for_summary(history(kinds), turns)) == replaced


def test_a_summary_alone_is_not_summarized_again() -> None:
    items = history("uua")
    items[0].extra["is_summary"] = True  # type: ignore[union-attr]
    items.insert(1, history("a")[0])
    items[1].extra["is_summary"] = True  # type: ignore[union-attr]
    assert split_for_summary(items, 1) == []


def test_what_a_model_reads_of_them() -> None:
    items: list[ChatItem] = [
        ChatMessage(role="user", content=["Look:", ImageContent(image="https://x/y.png")]),
        ChatMessage(role="user", content=[AudioContent(frame=[])]),
        ChatMessage(role="assistant", content=["Ich weiß"], interrupted=True),
        ChatMessage(role="assistant", content=["They met."], extra={"is_summary": True}),
        FunctionCall(call_id="c", name="weather", arguments='{"city": "Köln"}'),
        FunctionCallOutput(call_id="c", name="weather", output="rain", is_error=False),
        FunctionCallOutput(call_id="d", output="no", is_error=True),
        AgentHandoff(new_agent_id="x"),
    ]
    assert [json.loads(line) for line in render_for_summary(items).splitlines()] == [
        {"user": "Look:\n[image]"},
        {"user": "[sound]"},
        {"assistant": "Ich weiß", "interrupted": True},
        {"earlier summary": "They met."},
        {"tool call": "weather", "arguments": '{"city": "Köln"}'},
        {"tool output": "rain", "tool": "weather"},
        {"tool error": "no"},
    ]
    assert "Köln" in render_for_summary(items)


def test_a_content_that_was_set_to_one_text() -> None:
    message = ChatMessage(role="user", content=[])
    message.content = "Hello there"  # type: ignore[assignment]
    assert json.loads(render_for_summary([message])) == {"user": "Hello there"}
