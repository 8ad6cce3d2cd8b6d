"""Conversations as AG-UI messages and back."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rejoinder.llm import ChatMessage, FunctionCall, FunctionCallOutput
from rejoinder.llm.chat_context import ImageContent
from rejoinder.web.agui import InputError, Writer, items_of, messages_of, sse

TEXT = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=20)
PICTURE = ImageContent(image="data:image/png;base64,AAAA")


@st.composite
def histories(draw: st.DrawFn) -> list[Any]:
    """Items as a turn leaves them: messages, and calls with their outputs."""
    items: list[Any] = []
    for number in range(draw(st.integers(0, 5))):
        match draw(st.sampled_from(["user", "assistant", "calls"])):
            case "user":
                content: list[Any] = [draw(TEXT), *draw(st.sampled_from([[], [PICTURE]]))]
                items.append(ChatMessage(role="user", content=content))
            case "assistant":
                items.append(ChatMessage(role="assistant", content=[draw(TEXT)]))
            case _:
                ids = [f"call_{number}_{index}" for index in range(draw(st.integers(1, 3)))]
                items += [FunctionCall(call_id=id, name="f", arguments="{}") for id in ids]
                items += [
                    FunctionCallOutput(call_id=id, name="f", output=draw(TEXT), is_error=draw(st.booleans()))
                    for id in ids
                ]  # fmt: skip
    return items


def plain(items: list[Any]) -> list[Any]:
    """What a client can know of items."""
    told: list[Any] = []
    for item in items:
        match item:
            case ChatMessage():
                parts = [p if isinstance(p, str) else p.image for p in item.content]
                told.append((item.id, item.role, parts))
            case FunctionCall():
                told.append((item.call_id, item.name, item.arguments))
            case _:
                told.append((item.call_id, item.output, item.is_error))
    return told


@given(histories())
def test_a_history_comes_back(items: list[Any]) -> None:
    messages = messages_of(items)
    assert plain(items_of(messages, lambda name: None)) == plain(items)
    known: dict[str, Any] = {}
    for item in items:
        known[item.id] = item
        if isinstance(item, FunctionCall):
            known[f"call:{item.call_id}"] = item
        elif isinstance(item, FunctionCallOutput):
            known[f"output:{item.call_id}"] = item
    same = items_of(messages, known.get)
    assert len(same) == len(items)
    assert all(a is b for a, b in zip(same, items, strict=True))


@given(histories(), st.data())
def test_a_client_that_leaves_results_out_leaves_no_call_open(items: list[Any], data: Any) -> None:
    messages = [
        m for m in messages_of(items) if m["role"] != "tool" or data.draw(st.booleans(), "kept")
    ]
    owed: set[str] = set()
    for item in items_of(messages, lambda name: None):
        if isinstance(item, FunctionCall):
            owed.add(item.call_id)
        elif isinstance(item, FunctionCallOutput):
            owed.remove(item.call_id)
        else:
            assert not owed
    assert not owed


def test_a_result_without_its_call_is_refused() -> None:
    with pytest.raises(InputError, match="no call before it"):
        items_of(
            [{"id": "t", "role": "tool", "toolCallId": "c", "content": "x"}], lambda name: None
        )


@pytest.mark.parametrize(
    ("message", "told"),
    [
        ({"id": "u", "role": "robot", "content": "x"}, "'robot'"),
        ({"id": "u", "role": "user"}, "content"),
        ({"id": "", "role": "user", "content": "x"}, "id of a message"),
        ({"id": "u\n", "role": "user", "content": "x"}, "printable"),
        ({"id": "u", "role": "user", "content": [{"type": "smell"}]}, "'smell'"),
        ({"id": "u", "role": "user", "content": [{"type": "image"}]}, "source"),
        (
            {"id": "u", "role": "user",
             "content": [{"type": "image", "source": {"type": "url", "value": "file:///etc/passwd"}}]},
            "http",
        ),
        ({"id": "a", "role": "assistant", "toolCalls": [{"id": "c"}]}, "function"),
    ],
)  # fmt: skip
def test_a_message_that_is_none_is_refused(message: dict[str, Any], told: str) -> None:
    with pytest.raises(InputError, match=told):
        items_of([message], lambda name: None)


def test_an_event_is_one_line_whatever_it_holds() -> None:
    event = Writer("t", "r").say("a\n\ndata: \u2028\ud800\x00")[-1]
    assert sse(event).count(b"\n") == 2
    assert sse(event).endswith(b"\n\n")
