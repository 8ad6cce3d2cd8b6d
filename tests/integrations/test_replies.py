"""What the adapters share, without any framework."""

from __future__ import annotations

import importlib
import importlib.metadata
import json
import sys
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rejoinder._core.items import load_items
from rejoinder.errors import APIConnectionError, APIStatusError, ConfigurationError
from rejoinder.integrations._replies import (
    ReplyState,
    StateMemory,
    check_llm,
    declare_tool,
    framework_version,
    last_failure,
    refuse_unknown_parts,
    speaker,
    whole_arguments,
)
from rejoinder.llm import ChatContext, ChatMessage, FallbackAdapter, FunctionCall, FunctionToolCall
from rejoinder.llm.llm import ChoiceDelta
from rejoinder.testing import ScriptedLLM
from rejoinder.types import DEFAULT_API_CONNECT_OPTIONS


def replied(text: str, state: int) -> ReplyState:
    reply = ReplyState()
    reply.add(ChoiceDelta(content=text, extra={"openai": {"item": state}}))
    return reply


def said(text: str) -> ChatMessage:
    return ChatMessage(role="assistant", content=[text])


def state_of(item: Any) -> Any:
    return item.extra.get("openai", {}).get("item")


def test_equal_texts_get_the_state_of_their_own_replies() -> None:
    memory = StateMemory()
    for number in (1, 2, 3):
        memory.remember(replied("Yes.", number))
    memory.remember(replied("No.", 4))
    items = [said("Yes."), said("No."), said("Yes.")]
    memory.restore(items)
    assert [state_of(item) for item in items] == [2, 4, 3]


def test_no_state_is_given_twice() -> None:
    memory = StateMemory()
    memory.remember(replied("Yes.", 1))
    items = [said("Yes."), said("Yes.")]
    memory.restore(items)
    assert [state_of(item) for item in items] == [None, 1]


def test_a_reply_of_calls_alone_is_found_by_its_first_call() -> None:
    memory = StateMemory()
    reply = ReplyState()
    call = FunctionToolCall(name="t", arguments="{}", call_id="c1", extra={"google": {"s": 1}})
    reply.add(ChoiceDelta(tool_calls=[call], extra={"openai": {"item": 7}}))
    memory.remember_call(call.call_id, call.extra)
    memory.remember(reply)
    items = [FunctionCall(call_id="c1", name="t", arguments="{}")]
    memory.restore(items)
    assert items[0].extra == {"google": {"s": 1}, "openai": {"item": 7}}


def test_memory_is_bounded() -> None:
    memory = StateMemory()
    for number in range(2000):
        memory.remember(replied(str(number), number))
        memory.remember(replied("again", number))
    assert len(memory._by_text) == 512
    assert len(memory._by_text["again"]) == 32
    items = [said("0"), said("1999")]
    memory.restore(items)
    assert [state_of(item) for item in items] == [None, 1999]


def test_a_restart_drops_the_state_and_breaks_the_line() -> None:
    reply = replied("Good mor", 1)
    restart = ChoiceDelta(content="Hello.", extra={"rejoinder": {"event": "restart"}})
    assert reply.add(restart) == "\nHello."
    assert reply.extra == {}
    assert reply.text == "Good mor\nHello."
    assert ReplyState().add(restart) == "Hello."


@pytest.mark.parametrize(
    ("written", "whole"),
    [
        ("", "{}"),
        ("null", "{}"),
        ('{"a": 1}', '{"a": 1}'),
        ("{'a': 1}", '{"a":1}'),
        ('"{\\"a\\": 1}"', '{"a":1}'),
        ("not at all", "not at all"),
        ("[1]", "[1]"),
    ],
)
def test_arguments_are_mended_where_they_mean_one_thing(written: str, whole: str) -> None:
    call = FunctionToolCall(name="t", arguments=written, call_id="c")
    assert whole_arguments(call) == whole


@given(st.dictionaries(st.text(max_size=5), st.integers() | st.text(max_size=5)))
def test_good_arguments_stay_as_they_are(arguments: dict[str, Any]) -> None:
    text = json.dumps(arguments)
    assert whole_arguments(FunctionToolCall(name="t", arguments=text, call_id="c")) == text


def test_content_that_no_model_is_sent_is_refused() -> None:
    known = load_items([{"type": "message", "role": "user", "content": ["hi"]}])
    refuse_unknown_parts(known, "integrations.x.Model")
    part = {"type": "input_video", "url": "u"}
    foreign = load_items([{"type": "message", "role": "user", "content": ["hi", part]}])
    with pytest.raises(ConfigurationError, match=r"integrations\.x\.Model: .*'input_video'"):
        refuse_unknown_parts(foreign, "integrations.x.Model")
    video = {"role": "user", "content": [{"type": "text", "text": "hi"}, part]}
    kept = ChatContext.from_provider_format("openai", [video])
    with pytest.raises(ConfigurationError, match="'input_video'"):
        refuse_unknown_parts(kept.items, "integrations.x.Model")
    searched = [{"type": "message", "role": "assistant", "content": [{"type": "web_search_call"}]}]
    refuse_unknown_parts(load_items(searched), "integrations.x.Model")


async def test_the_speaker_of_a_fallback_is_the_model_that_spoke() -> None:
    second = ScriptedLLM("Hello.", model="b", provider="two")
    model = FallbackAdapter([ScriptedLLM(ValueError("no"), model="a"), second])
    context = ChatContext([ChatMessage(role="user", content=["hi"])])
    assert (await model.chat(chat_ctx=context).collect()).text == "Hello."
    assert speaker(model) == ("b", "two")
    assert speaker(second) == ("b", "two")
    await model.aclose()


def test_what_is_no_model_is_refused() -> None:
    with pytest.raises(TypeError, match=r"integrations\.x: expected a rejoinder LLM.*got str"):
        check_llm("gpt", "integrations.x", DEFAULT_API_CONNECT_OPTIONS)
    with pytest.raises(TypeError, match=r"integrations\.x.*conn_options: expected"):
        check_llm(ScriptedLLM("x"), "integrations.x", 5)


async def test_a_declared_tool_cannot_be_run() -> None:
    tool = declare_tool("t", None, None)
    assert tool.info.raw_schema == {
        "name": "t",
        "description": "",
        "parameters": {"type": "object", "properties": {}},
    }
    with pytest.raises(RuntimeError, match="the framework runs its tools itself"):
        tool({})


def test_the_answer_behind_the_last_attempt_is_found() -> None:
    answered = APIStatusError("busy", status_code=429)
    given_up = APIConnectionError("no reply after 4 attempts")
    assert last_failure(answered) is answered
    assert last_failure(given_up) is given_up
    given_up.__cause__ = APIConnectionError("refused")
    assert last_failure(given_up) is given_up
    given_up.__cause__ = answered
    assert last_failure(given_up) is answered


# -- versions ------------------------------------------------------------------------------------

ADAPTERS = [
    ("livekit", "livekit-agents", "1.2.17"),
    ("pipecat", "pipecat-ai", "1.14.0"),
    ("pydantic_ai", "pydantic-ai-slim", "2.68.0"),
    ("openai_agents", "openai-agents", "0.24.0"),
]


@pytest.mark.parametrize(("module", "distribution", "oldest"), ADAPTERS)
@pytest.mark.parametrize("installed", [None, "0.1.0"])
def test_a_missing_or_old_framework_is_one_clear_error(
    module: str,
    distribution: str,
    oldest: str,
    installed: str | None,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    real = importlib.metadata.version

    def version(name: str) -> str:
        if name != distribution:
            return real(name)
        if installed is None:
            raise importlib.metadata.PackageNotFoundError(name)
        return installed

    monkeypatch.setattr(importlib.metadata, "version", version)
    name = f"rejoinder.integrations.{module}"
    monkeypatch.delitem(sys.modules, name, raising=False)
    with pytest.raises(ImportError) as caught:
        importlib.import_module(name)
    told = str(caught.value)
    assert f"needs {distribution} {oldest} or newer" in told
    assert f"pip install 'rejoinder[{module.replace('_', '-')}]'" in told
    assert installed is None or f"found {installed}" in told


@pytest.mark.parametrize(
    ("text", "numbers"),
    [("1.2.17", (1, 2, 17)), ("1.9", (1, 9)), ("2.0.0rc1", (2, 0)), ("1.14.0.dev3", (1, 14, 0))],
)
def test_versions_are_read_as_numbers(
    text: str, numbers: tuple[int, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(importlib.metadata, "version", lambda name: text)
    assert framework_version("x", at_least=(1, 2), extra="x")[: len(numbers)] == numbers


@pytest.mark.parametrize(
    ("form", "message", "kind"),
    [
        ("openai", {"role": "user", "content": [{"type": "hologram"}]}, "hologram"),
        ("anthropic", {"role": "user", "content": [{"type": "hologram"}]}, "hologram"),
        ("google", {"role": "user", "parts": [{"hologram": {}}]}, "hologram"),
        ("aws", {"role": "user", "content": [{"guardContent": {}}]}, "guardContent"),
    ],
)
def test_parts_that_are_not_known_are_refused_by_their_type(
    form: str, message: dict[str, Any], kind: str
) -> None:
    context = ChatContext.from_provider_format(form, [message])
    with pytest.raises(ConfigurationError, match=f"content of the type '{kind}'"):
        refuse_unknown_parts(context.items, "adapter")
