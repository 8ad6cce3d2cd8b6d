"""Copies of items."""

from __future__ import annotations

import copy
import pickle
from typing import Any

import pytest
from pydantic import PrivateAttr

from rejoinder._core.items import (
    AgentHandoff,
    ChatMessage,
    FunctionCall,
    FunctionCallOutput,
    ImageContent,
    with_fields,
)
from rejoinder.llm.chat_context import ChatContext


class Noted(FunctionCall):
    """An item of somebody's own."""

    note: str = ""
    _secret: dict[str, int] = PrivateAttr(default_factory=dict)


def items() -> list[Any]:
    noted = Noted(call_id="c", arguments="{}", name="n", note="mine")
    noted._secret["a"] = 1
    return [
        ChatMessage(role="user", content=["x", ImageContent(image="https://x/y.png")], hash=b"h"),
        FunctionCall(call_id="c", arguments="{}", name="n", extra={"a": {"b": 1}}),
        FunctionCallOutput(call_id="c", output="o", is_error=False),
        AgentHandoff(new_agent_id="a"),
        noted,
    ]


@pytest.mark.parametrize("item", items(), ids=lambda item: type(item).__name__)
def test_a_copy_is_what_pydantic_would_copy(item: Any) -> None:
    before = item.model_dump()
    copied = with_fields(item, created_at=7.0)
    assert type(copied) is type(item)
    assert copied == item.model_copy(update={"created_at": 7.0})
    assert with_fields(item) == item
    assert pickle.loads(pickle.dumps(copied)) == copy.deepcopy(copied) == copied
    copied.id = "other"
    assert item.model_dump() == before


def test_values_are_taken_as_they_are() -> None:
    message = ChatMessage(role="user", content=["x"])
    content: list[Any] = ["y"]
    copied = with_fields(message, content=content, role="nobody")
    assert copied.content is content
    assert copied.role == "nobody"  # type: ignore[comparison-overlap]  # on purpose
    assert copied.extra is message.extra


def test_what_was_set_is_known_of_each_copy_by_itself() -> None:
    message = ChatMessage(role="user", content=["x"])
    copied = with_fields(message, interrupted=True)
    copied.transcript_confidence = 0.5
    assert "transcript_confidence" not in message.model_fields_set
    assert {"interrupted", "transcript_confidence"} <= copied.model_fields_set
    noted = items()[-1]
    with_fields(noted)._secret = {"b": 2}
    assert noted._secret == {"a": 1}


def test_content_that_was_set_to_one_text_is_one_text() -> None:
    listed = ChatMessage(id="m", role="user", content=["Hello there"])
    message = ChatMessage(id="m", role="user", content=[])
    message.content = "Hello there"  # type: ignore[assignment]
    assert message.text_content == "Hello there"
    assert ChatContext([message]).to_dict() == ChatContext([listed]).to_dict()
