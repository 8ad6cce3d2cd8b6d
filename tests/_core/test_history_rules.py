"""Histories as one model at one host wants them, checked by rules that are written here."""

from __future__ import annotations

import re
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rejoinder._core import dialects
from rejoinder._core.families import find_family
from rejoinder._core.history_rules import fitted_dialect
from rejoinder._core.hosts import HOSTS
from rejoinder._core.items import ChatItem, ChatMessage, FunctionCall, FunctionCallOutput
from rejoinder._core.repair import repair
from rejoinder.testing.history import assert_legal


def sent(items: list[ChatItem], model: str, host: str) -> tuple[list[dict[str, Any]], list[str]]:
    dialect = fitted_dialect(dialects.find("openai"), find_family(model), HOSTS[host], "chat")
    history, changes = repair(items, dialect)
    messages, _ = dialects.to_provider_format("openai", history)
    again, more = repair(history, dialect)
    assert more == [], "what was mended is mended again"
    assert again == history
    return messages, [change.kind for change in changes]


def said(role: Any, text: str) -> ChatMessage:
    return ChatMessage(role=role, content=[text])


def called(call_id: str, name: str = "get") -> list[ChatItem]:
    return [
        FunctionCall(call_id=call_id, name=name, arguments="{}"),
        FunctionCallOutput(call_id=call_id, name=name, output="r", is_error=False),
    ]


def roles(messages: list[dict[str, Any]]) -> list[str]:
    return [message["role"] for message in messages]


def ids(messages: list[dict[str, Any]]) -> list[str]:
    found: list[str] = []
    for message in messages:
        found += [call["id"] for call in message.get("tool_calls", ())]
        if message["role"] == "tool":
            found.append(message["tool_call_id"])
    return found


@pytest.mark.parametrize(
    ("model", "host", "role"),
    [
        ("gpt-4.1", "openai", "developer"),
        ("my-deployment", "azure", "developer"),
        ("gpt-5", "compatible", "developer"),
        ("openai/gpt-5", "openrouter", "developer"),
        ("anthropic/claude-sonnet-4.5", "openrouter", "system"),
        ("some-model", "compatible", "system"),
        ("deepseek-v4-flash", "deepseek", "system"),
        ("openai/gpt-oss-120b", "groq", "system"),
        ("o1-mini", "openai", "user"),
        ("google/gemma-2-9b-it", "compatible", "user"),
    ],
)
def test_the_role_of_a_developer_message(model: str, host: str, role: str) -> None:
    messages, _ = sent([said("developer", "be brief"), said("user", "a")], model, host)
    assert messages[0]["role"] == role
    assert "be brief" in messages[0]["content"]


@pytest.mark.parametrize(
    ("model", "host"),
    [("sonar", "perplexity"), ("google/gemma-3-27b-it", "compatible"), ("gemma3:12b", "ollama")],
)
def test_user_and_assistant_take_turns(model: str, host: str) -> None:
    items: list[ChatItem] = [
        said("system", "s"), said("assistant", "Hello"), said("user", "a"), said("user", "b"),
        said("assistant", "c"), said("assistant", "d"), *called("c1"), said("system", "late"),
        said("user", "e"), said("assistant", "f"),
    ]  # fmt: skip
    messages, kinds = sent(items, model, host)
    found = roles(messages)
    assert found[0] == "system"
    spoken = ["user" if role == "tool" else role for role in found[1:]]
    assert "system" not in spoken
    assert spoken[0] == "user"
    assert spoken[-1] == "user"
    assert all(x != y for x, y in pairwise(spoken))
    assert "merged" in kinds
    text = str(messages)
    assert all(
        f"'{word}" in text or f"{word}'" in text or f"\\n{word}" in text for word in "abcdef"
    )


@pytest.mark.parametrize(
    ("model", "host", "form"),
    [
        ("anthropic/claude-sonnet-4.5", "openrouter", r"[a-zA-Z0-9_-]{1,64}"),
        ("mistralai/Mistral-Small-3.2-24B-Instruct-2506", "compatible", r"[a-zA-Z0-9]{9}"),
        ("gpt-4.1", "openai", r"\S{1,40}"),
        ("my-deployment", "azure", r"\S{1,40}"),
        ("moonshotai/Kimi-K2-Instruct", "together", r"functions\.get:\d+"),
    ],
)
def test_ids_have_the_form_that_the_model_wants(model: str, host: str, form: str) -> None:
    items = [said("user", "q"), *called("call:" + "x" * 90), *called("b" * 9), said("user", "z")]
    messages, _ = sent(items, model, host)
    found = ids(messages)
    assert found[::2] == found[1::2]
    assert all(re.fullmatch(form, call_id) for call_id in found)


def test_long_ids_stay_where_a_server_keeps_state_in_them() -> None:
    long = "call_2156408__thought__" + "Q" * 900
    for model in ("gemini-3.1-pro-preview", "some-model"):
        messages, kinds = sent([said("user", "q"), *called(long)], model, "compatible")
        assert ids(messages) == [long, long]
        assert kinds == []


def test_calls_of_kimi_are_counted_through_the_history() -> None:
    items = [said("user", "q"), *called("functions.get:0"), said("user", "r"),
             *called("functions.get:0"), *called("call_x", "put"), said("user", "z")]  # fmt: skip
    messages, _ = sent(items, "kimi-k2.7", "moonshot")
    assert ids(messages)[::2] == ["functions.get:0", "functions.get:1", "functions.put:2"]
    ready = [said("user", "q"), *called("functions.get:0"), *called("functions.put:1", "put")]
    assert sent(ready, "kimi-k2.7", "moonshot")[1] == []


@pytest.mark.parametrize("model", ["anthropic/claude-sonnet-4.6", "claude-opus-4-7"])
def test_the_user_ends_a_history_of_claude(model: str) -> None:
    for items in (
        [said("user", "a"), said("assistant", "b")],
        [said("user", "a"), said("assistant", "b"), said("system", "c")],
    ):
        messages, _ = sent(list(items), model, "openrouter")
        assert roles(messages)[-1] == "user"
    older, kinds = sent(
        [said("user", "a"), said("assistant", "b")], "claude-sonnet-4-5", "openrouter"
    )
    assert roles(older)[-1] == "assistant"
    assert kinds == []


_ITEMS = st.lists(
    st.one_of(
        st.builds(said, st.sampled_from(["user", "assistant", "system", "developer"]), st.sampled_from("ab")).map(lambda m: [m]),
        st.builds(called, st.sampled_from(["c1", "c2", "functions.get:0", "abcdefgh1"])),
    ),
    min_size=1,
    max_size=8,
).map(lambda parts: [item for part in parts for item in part])  # fmt: skip


@given(
    _ITEMS,
    st.sampled_from(
        [
            ("sonar", "perplexity"), ("gemma3", "ollama"), ("google/gemma-2-9b-it", "compatible"),
            ("kimi-k2", "compatible"), ("mistral-small-latest", "openrouter"), ("o1-mini", "openai"),
            ("anthropic/claude-opus-4.7", "openrouter"), ("gpt-4.1", "azure"), ("x", "compatible"),
        ]
    ),
)  # fmt: skip
def test_any_history_is_legal_for_every_pair(items: list[ChatItem], pair: tuple[str, str]) -> None:
    model, host = pair
    messages, _ = sent(items, model, host)
    if "mistral" in model:
        assert_legal("mistralai", messages)
    elif host in ("openai", "azure"):
        assert_legal("openai", messages)
    found = roles(messages)
    spoken = [role for role in found if role not in ("system", "developer")]
    if model in ("sonar", "gemma3", "google/gemma-2-9b-it"):
        turns = ["user" if role == "tool" else role for role in spoken]
        assert all(x != y for x, y in pairwise(turns))
        assert spoken[0] == "user"
        assert spoken[-1] in ("user", "tool")
        assert "system" not in found[found.index(spoken[0]) :]
    if model in ("o1-mini", "google/gemma-2-9b-it"):
        assert not {"system", "developer"} & {*found}
    if "claude" in model:
        assert spoken[-1] in ("user", "tool")
    if model == "kimi-k2":
        calls = [call["id"] for message in messages for call in message.get("tool_calls", ())]
        assert calls == [f"functions.get:{at}" for at in range(len(calls))]
