"""Calls and outputs find each other, wherever they stand."""

from __future__ import annotations

from typing import Any

import pytest

from rejoinder._core.groups import Group, group_tool_calls, parse_arguments
from rejoinder.llm.chat_context import (
    AgentConfigUpdate,
    AgentHandoff,
    ChatItem,
    ChatMessage,
    FunctionCall,
    FunctionCallOutput,
)


def said(role: Any, text: str, **fields: Any) -> ChatMessage:
    return ChatMessage(role=role, content=[text], **fields)


def call(call_id: str, **fields: Any) -> FunctionCall:
    return FunctionCall(**({"call_id": call_id, "name": "t", "arguments": "{}"} | fields))


def output(call_id: str, text: str = "r", **fields: Any) -> FunctionCallOutput:
    return FunctionCallOutput(call_id=call_id, output=text, is_error=False, **fields)


def shape(items: list[ChatItem]) -> list[Any]:
    """Each turn as its texts, call ids and outputs."""
    found: list[Any] = []
    for turn in group_tool_calls(items):
        if isinstance(turn, Group):
            message = turn.message.text_content if turn.message else None
            found.append(
                (
                    message,
                    [entry.call_id for entry in turn.calls],
                    [entry.output for entry in turn.outputs],
                )
            )
        else:
            found.append(turn.text_content)
    return found


def test_messages_stand_alone() -> None:
    items = [said("system", "s"), said("user", "u"), said("assistant", "a")]
    assert shape(items) == ["s", "u", "a"]


def test_calls_with_unrelated_ids_are_turns_of_their_own() -> None:
    assert shape([call("c1"), call("c2"), output("c1", "1"), output("c2", "2")]) == [
        (None, ["c1"], ["1"]),
        (None, ["c2"], ["2"]),
    ]


@pytest.mark.parametrize(
    "calls",
    [
        [call("c1", id="g/1"), call("c2", id="g/2")],
        [call("c1", group_id="g"), call("c2", group_id="g", id="other/1")],
        [call("c1", id="g"), call("c2", group_id="g")],
    ],
)
def test_calls_of_one_turn(calls: list[ChatItem]) -> None:
    items = [*calls, output("c2", "2"), output("c1", "1")]
    assert shape(items) == [(None, ["c1", "c2"], ["2", "1"])]


def test_a_message_and_the_calls_that_follow_it() -> None:
    items = [said("assistant", "wait", id="g"), call("c1", id="g/fnc_0"), output("c1")]
    assert shape(items) == [("wait", ["c1"], ["r"])]
    # Also when the call came first.
    assert shape([items[1], items[0], items[2]]) == [("wait", ["c1"], ["r"])]


def test_a_later_call_moves_to_its_turn() -> None:
    items = [call("c1", id="g/1"), said("user", "u"), call("c2", id="g/2")]
    items += [output("c1", "1"), output("c2", "2")]
    assert shape(items) == [(None, ["c1", "c2"], ["1", "2"]), "u"]


def test_outputs_find_their_call_from_anywhere() -> None:
    assert shape([output("c1"), call("c1")]) == [(None, ["c1"], ["r"])]
    assert shape([call("c1"), said("user", "u"), output("c1")]) == [(None, ["c1"], ["r"]), "u"]


def test_halves_of_a_pair_are_left_out_and_told(caplog: pytest.LogCaptureFixture) -> None:
    assert shape([call("c1"), said("user", "u"), output("c2")]) == [(None, [], []), "u"]
    assert "no output" in caplog.text
    assert "no call 'c2'" in caplog.text


def test_each_call_needs_its_own_output() -> None:
    """Two calls and two outputs, but both outputs are of the first call."""
    items = [call("c1", id="g/1"), call("c2", id="g/2"), output("c1", "1"), output("c1", "2")]
    assert shape(items) == [(None, ["c1"], ["1", "2"])]


def test_messages_of_one_id_are_both_kept() -> None:
    users = [said("user", "a", id="x"), said("user", "b", id="x")]
    assert shape(users) == ["a", "b"]
    assistants = [said("assistant", "a", id="g"), said("assistant", "b", id="g/1")]
    assert shape([*assistants, call("c1", id="g/2"), output("c1")]) == ["a", ("b", ["c1"], ["r"])]
    mixed = [said("assistant", "a", id="x"), said("user", "b", id="x"), call("c1", id="x/1")]
    assert shape([*mixed, output("c1")]) == [("a", ["c1"], ["r"]), "b"]


def test_handoffs_and_updates_are_not_for_providers() -> None:
    assert shape([AgentHandoff(new_agent_id="b"), said("user", "u"), AgentConfigUpdate()]) == ["u"]


def test_what_is_no_item_is_refused() -> None:
    with pytest.raises(
        TypeError, match=r"items\[\d\]: .* got dict with type None; to load plain data"
    ):
        group_tool_calls([{"type": "message"}])  # type: ignore[list-item]


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("", {}),
        (" \n", {}),
        ("null", {}),
        ("{}", {}),
        ('{"a": 1}', {"a": 1}),
        ("[1]", [1]),
        ("{bad", {"invalid_json": "{bad"}),
        ('{"a": 99999999999999999999}', {"a": 99999999999999999999}),
        ('{"a": "\\ud83d"}', {"a": "\ud83d"}),
    ],
)
def test_arguments(text: str, value: Any) -> None:
    assert parse_arguments(call("c1", arguments=text)) == value


def test_arguments_nested_beyond_reading() -> None:
    text = "[" * 100_000
    assert parse_arguments(call("c1", arguments=text)) == {"invalid_json": text}
