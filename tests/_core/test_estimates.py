"""What items cost without a tokenizer."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rejoinder._core.estimates import estimate_history, estimate_tokens, text_size, tokens_of
from rejoinder._core.items import (
    AgentHandoff,
    AudioContent,
    ChatMessage,
    FunctionCall,
    FunctionCallOutput,
    ImageContent,
)
from rejoinder.media import AudioFrame

SECOND = AudioFrame.create(16000, 1, 16000)


def said(*content: Any) -> ChatMessage:
    return ChatMessage(role="user", content=list(content))


@pytest.mark.parametrize(
    ("item", "tokens"),
    [
        (said("x" * 400), 104),
        (said("漢" * 100), 79),
        (said(AudioContent(frame=[SECOND] * 3)), 100),
        (said(AudioContent(frame=[SECOND], transcript="hi")), 5),
        (said(ImageContent(image="http://x")), 1004),
        (FunctionCall(call_id="c", name="weather", arguments="{}"), 7),
        (FunctionCallOutput(call_id="c", output="rain", is_error=False), 5),
        (AgentHandoff(new_agent_id="x"), 0),
    ],
)
def test_every_kind_of_item(item: Any, tokens: int) -> None:
    assert estimate_tokens(item) == tokens
    assert estimate_history([item, item]) == 2 * tokens


def test_a_content_that_was_set_to_one_text() -> None:
    message = said()
    message.content = "Hello there"  # type: ignore[assignment]
    assert estimate_tokens(message) == estimate_tokens(said("Hello there"))


@given(st.text())
def test_the_size_of_a_text_is_that_of_its_bytes(text: str) -> None:
    size = text_size(text)
    assert size == len(text.encode("utf-8", "surrogatepass"))
    assert 4 * tokens_of(size) - 4 < size <= 4 * tokens_of(size)
