"""What becomes of a question before it is sent."""

from __future__ import annotations

import json
import logging
from typing import Any

import pytest

from rejoinder.llm import ChatContext
from rejoinder.providers.asking.ask import Question, _encode
from rejoinder.providers.asking.body import Media
from rejoinder.providers.asking.fields import HttpExtras
from rejoinder.providers.openai.dialect import DIALECT
from rejoinder.providers.openai.wire import decode_error


def _body(
    messages: list[dict[str, Any]], data: Any, specs: Any, choice: Any, options: Any
) -> dict[str, Any]:
    return {"messages": messages, **options}


class Plain(Question):
    """A question to a model of which no family and no host is known."""

    provider = "plain"
    compose = staticmethod(_body)

    def part(self, attachment: Any) -> None:
        return None

    async def request(self, body: bytes, connect_timeout: float | None) -> Any:
        raise NotImplementedError

    def decoder(self, *, allow_empty: bool) -> Any:
        raise NotImplementedError


def test_reasoning_that_a_model_has_no_option_for_is_told(caplog: pytest.LogCaptureFixture) -> None:
    ctx = ChatContext()
    ctx.add_message(role="user", content="Hello.")
    extras = HttpExtras({"reasoning": "high", "user": "u"})
    question = Plain(dialect=DIALECT, decode_error=decode_error, extras=extras, options=extras.body)
    with caplog.at_level(logging.WARNING, "rejoinder"):
        body = json.loads(_encode(question, Media(), ctx.items))
    assert body.keys() == {"messages", "user"}
    assert [change.kind for change in question.changes] == ["reasoning"]
    assert "reasoning='high': this model does not support the option" in caplog.text
