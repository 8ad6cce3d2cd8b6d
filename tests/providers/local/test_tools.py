"""Tools as small models are asked to use them: declared, forced, told."""

from __future__ import annotations

import pytest

from rejoinder.providers.local.tools import (
    ToolSpec,
    call_schema,
    fold_tools,
    plain_schema,
    slim,
    tell_calls,
    tell_past,
)

WEATHER = ToolSpec(
    "get_weather",
    "The weather in a city.",
    {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
)
NOW = ToolSpec("now", "The time.", {"type": "object", "properties": {}})


def test_the_schema_of_a_call() -> None:
    schema = call_schema([WEATHER, NOW])
    names = [variant["properties"]["name"]["const"] for variant in schema["anyOf"]]
    assert names == ["get_weather", "now"]
    assert schema["anyOf"][1]["properties"]["arguments"] == {
        "type": "object",
        "properties": {},
        "additionalProperties": False,
    }
    assert call_schema([NOW])["properties"]["name"] == {"const": "now"}


def test_definitions_of_two_tools_do_not_meet() -> None:
    def spec(name: str, kind: str) -> ToolSpec:
        return ToolSpec(
            name,
            "",
            {
                "type": "object",
                "properties": {"x": {"$ref": "#/$defs/X"}},
                "$defs": {"X": {"type": kind}},
            },
        )

    schema = call_schema([spec("a", "string"), spec("b", "integer")])
    assert schema["$defs"] == {"t0_X": {"type": "string"}, "t1_X": {"type": "integer"}}
    refs = [
        variant["properties"]["arguments"]["properties"]["x"]["$ref"] for variant in schema["anyOf"]
    ]
    assert refs == ["#/$defs/t0_X", "#/$defs/t1_X"]


def test_what_the_grammar_does_not_know_is_left_out() -> None:
    assert plain_schema(
        {
            "title": "T",
            "type": "object",
            "properties": {"a": {"type": "string", "pattern": "x", "format": "date"}},
            "oneOf": [{"type": "null"}],
        }
    ) == {
        "type": "object",
        "properties": {"a": {"type": "string"}},
        "anyOf": [{"type": "null"}],
    }


def test_declarations_without_titles() -> None:
    declared = {
        "type": "function",
        "function": {
            "name": "f",
            "description": "Do.\n",
            "parameters": {
                "title": "FArgs",
                "type": "object",
                "properties": {
                    "title": {"title": "Title", "type": "string"},
                    "x": {"anyOf": [{"title": "X", "type": "string"}, {"type": "null"}]},
                },
                "required": ["title"],
            },
        },
    }
    (slimmed,) = slim([declared])
    assert slimmed["function"] == {
        "name": "f",
        "description": "Do.",
        "parameters": {
            "type": "object",
            "properties": {
                "title": {"type": "string"},
                "x": {"anyOf": [{"type": "string"}, {"type": "null"}]},
            },
            "required": ["title"],
        },
    }
    assert declared["function"]["parameters"]["title"] == "FArgs"


HISTORY = [
    {"role": "system", "content": "S"},
    {"role": "user", "content": "U"},
    {
        "role": "assistant",
        "content": None,
        "tool_calls": [
            {"id": "1", "type": "function", "function": {"name": "now", "arguments": '{"a": 1}'}}
        ],
    },
    {"role": "tool", "tool_call_id": "1", "content": "five"},
]


def test_a_template_without_tools_gets_text() -> None:
    folded = fold_tools(HISTORY, [NOW])
    assert [message["role"] for message in folded] == ["system", "user", "assistant", "user"]
    assert "now" in folded[0]["content"]
    assert (
        folded[2]["content"] == '<tool_call>\n{"name": "now", "arguments": {"a": 1}}\n</tool_call>'
    )
    assert folded[3]["content"] == "<tool_response>\nfive\n</tool_response>"
    assert HISTORY[0]["content"] == "S"


def test_calls_told_in_words() -> None:
    told = tell_calls(HISTORY)
    assert told == [
        {"role": "system", "content": "S"},
        {"role": "user", "content": "U\nnow with a 1 gave: five. Answer my question."},
    ]
    assert HISTORY[1]["content"] == "U"


def test_the_past_told_with_the_question() -> None:
    later = [{"role": "assistant", "content": "Five."}, {"role": "user", "content": "And now?"}]
    assert tell_past([*HISTORY, *later]) == [
        {"role": "system", "content": "S"},
        {
            "role": "user",
            "content": "Our conversation so far:\nUser: U\nnow with a 1 gave: five.\n"
            "Assistant: Five.\n\nNow: And now?",
        },
    ]
    assert later[1]["content"] == "And now?"


@pytest.mark.parametrize("count", [0, 1, 2])
def test_without_a_past_there_is_nothing_to_tell(count: int) -> None:
    assert tell_past(HISTORY[:count]) == HISTORY[:count]


def test_a_past_that_ends_with_the_model_is_left_as_it_is() -> None:
    said = [*HISTORY[:2], {"role": "assistant", "content": "A"}]
    assert tell_past(said) == said


def test_calls_told_beside_what_was_said_with_them() -> None:
    said = {**HISTORY[2], "content": "Let me look."}
    later = [{"role": "assistant", "content": "Five."}, {"role": "user", "content": "Thanks"}]
    told = tell_calls([*HISTORY[:2], said, HISTORY[3], *later])
    assert [message["content"] for message in told[1:]] == [
        "U",
        "Let me look.",
        "now with a 1 gave: five.",
        "Five.",
        "Thanks",
    ]
    assert all("tool_calls" not in message for message in told)
