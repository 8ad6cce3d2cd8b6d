"""What keeps a history from being sent as it is: each rule by itself, and nothing in a legal one.

That no illegal history passes is shown with all rules together, by an independent checker
(tests/_core/test_repair.py, tests/fuzz).
"""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from rejoinder._core import dialects
from rejoinder._core.items import (
    AgentHandoff,
    ChatItem,
    ChatMessage,
    FunctionCall,
    FunctionCallOutput,
    ImageContent,
)
from rejoinder._core.legality import FOREIGN_IDS, find_violation, is_object, is_sendable


def said(role: Any, *content: Any, **fields: Any) -> ChatMessage:
    return ChatMessage(role=role, content=list(content), **fields)


def call(call_id: str = "abcdefgh1", **fields: Any) -> FunctionCall:
    return FunctionCall(**({"call_id": call_id, "name": "t", "arguments": "{}"} | fields))


def output(call_id: str = "abcdefgh1", text: str = "o", **fields: Any) -> FunctionCallOutput:
    fields = {"name": "t", "is_error": False} | fields
    return FunctionCallOutput(call_id=call_id, output=text, **fields)


USER = said("user", "u")


def violation(provider: str, *items: ChatItem) -> str | None:
    rules = dialects.find(provider).rules
    assert rules is not None
    return find_violation(items, rules, frozenset({rules.state.key}))


def with_call(*behind: ChatItem, **fields: Any) -> list[ChatItem]:
    return [USER, call(**fields), *behind]


@pytest.mark.parametrize(
    ("provider", "items", "told"),
    [
        ("openai", with_call(), "a call has no output"),
        ("openai", with_call(USER), "a call has no output before the next message"),
        ("openai", [USER, output()], "an output has no call before it"),
        ("google", with_call(output(name="x")), "an output has another name than its call"),
        ("openai", with_call(call(), output()), "a call id is used twice"),
        ("openai", with_call(output(), name="n m"), "the name of a tool is not accepted"),
        ("openai", with_call(output(), arguments="[]"), "arguments are not a JSON object"),
        ("openai", with_call(output(text="\ud800")), "an output holds half a surrogate pair"),
        ("anthropic", with_call(output(text=" ", is_error=True)), "an output is blank"),
        ("openai", [said("user", "\udc00")], "a text is blank, or holds half a surrogate pair"),
        ("openai", [said("user", " ")], "a text is blank, or holds half a surrogate pair"),
        ("openai", [USER, said("user")], "a message has a part that cannot be sent"),
        (
            "openai",
            [said("user", "x", ImageContent(image="ftp://x/y.png"))],
            "a message has a part that cannot be sent",
        ),
        ("anthropic", [said("assistant", "x"), USER], "the user does not speak first"),
        ("anthropic", [USER, said("assistant", "x", id="a"), said("assistant", "y", id="a"), USER],
         "two assistant turns have one id"),
        ("mistralai", with_call(output(), USER), "an output is not followed by the assistant"),
        ("openai", [], "nothing is left to send"),
        ("openai", [AgentHandoff(new_agent_id="x")], "nothing is left to send"),
        ("mistralai", [USER, call("long-id-1"), output("long-id-1"), said("assistant", "x"), USER],
         FOREIGN_IDS),
    ],
)  # fmt: skip
def test_each_rule(provider: str, items: list[ChatItem], told: str) -> None:
    assert violation(provider, *items) == told


@pytest.mark.parametrize("provider", ["openai", "anthropic", "aws", "google", "openai.responses"])
def test_nothing_in_a_legal_history(provider: str) -> None:
    calls = [call("abcdefgh1", group_id="g"), call("abcdefgh2", group_id="g")]
    if provider == "google":
        calls[0].extra["google"] = {"thought_signature": "c2ln"}
    outputs = [output("abcdefgh1"), output("abcdefgh2")]
    assert violation(provider, said("system", "s"), USER, *calls, *outputs, USER) is None


def test_a_role_that_is_none() -> None:
    message = said("user", "x")
    message.role = "nobody"  # type: ignore[assignment]
    assert violation("openai", message) == "a role is unknown"


def test_what_is_no_item() -> None:
    with pytest.raises(TypeError):
        violation("openai", SimpleNamespace(type="note"))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("arguments", "whole"),
    [
        ("{}", True),
        ('{"a": [1]}', True),
        ("[]", False),
        ("", False),
        ("{", False),
        ('{"a":' * 64 + "1" + "}" * 64, True),
        ('{"a":' * 65 + "1" + "}" * 65, False),
        ('{"a":' * 100_000 + "1" + "}" * 100_000, False),
    ],
)
def test_arguments(arguments: str, whole: bool) -> None:
    assert is_object(arguments) is whole


def test_half_a_surrogate_pair() -> None:
    assert is_sendable("👋 漢")
    assert not is_sendable("a\ud83d")
