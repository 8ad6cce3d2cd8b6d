"""Messages of the Anthropic API."""

from __future__ import annotations

from typing import Any

import pytest

from providers.formats import DATA, URL, call, formatted, image, messages, output, said
from rejoinder.providers.anthropic.format import AnthropicFormatData

THINKING = {"type": "thinking", "thinking": "hm", "signature": "sealed"}
REDACTED = {"type": "redacted_thinking", "data": "sealed"}


def text(value: str) -> dict[str, Any]:
    return {"text": value, "type": "text"}


def user(*blocks: dict[str, Any]) -> dict[str, Any]:
    return {"role": "user", "content": list(blocks)}


def assistant(*blocks: dict[str, Any]) -> dict[str, Any]:
    return {"role": "assistant", "content": list(blocks)}


EMPTY = user(text("(empty)"))


def test_instructions() -> None:
    assert formatted(
        "anthropic",
        said("system", "S1"),
        said("user", "u"),
        said("system", "S2"),
        said("developer", "D"),
        said("assistant", "a"),
    ) == (
        [
            user(
                text("u"),
                text("<instructions>\nS2\n</instructions>"),
                text("<instructions>\nD\n</instructions>"),
            ),
            assistant(text("a")),
        ],
        AnthropicFormatData(system_messages=["S1"]),
    )
    # The first may also be a developer's, and then stays among the messages.
    assert formatted("anthropic", said("developer", "D1"), said("user", "u")) == (
        [user(text("D1"), text("u"))],
        AnthropicFormatData(system_messages=[]),
    )


def test_images_in_instructions(caplog: pytest.LogCaptureFixture) -> None:
    shown = {"type": "image", "source": {"type": "url", "url": URL}}
    sent, data = formatted("anthropic", said("system", image(URL)), said("user", "u"))
    assert (sent, data.system_messages) == ([user(shown, text("u"))], [])
    sent, data = formatted("anthropic", said("system", "S", image(URL)), said("user", "u"))
    assert (sent, data.system_messages) == ([user(text("u"))], ["S"])
    assert "only its text is sent" in caplog.text


def test_turns_of_one_role_are_one() -> None:
    sent = messages(
        "anthropic",
        said("user", "a"),
        said("assistant", ""),
        said("user", "b", "", "c"),
        said("assistant", "d"),
        said("assistant", "e"),
    )
    assert sent == [user(text("a"), text("b"), text("c")), assistant(text("d"), text("e"))]


def test_who_speaks_first_and_last() -> None:
    assert messages("anthropic") == [EMPTY]
    assert messages("anthropic", said("system", "S")) == [EMPTY]
    assert messages("anthropic", said("assistant", "a")) == [EMPTY, assistant(text("a"))]
    options = {"inject_dummy_user_message": False}
    assert messages("anthropic", said("assistant", "a"), **options) == [assistant(text("a"))]
    sent = messages("anthropic", said("assistant", "a"), inject_trailing_user_message=True)
    assert sent[-1] == user(text("."))


def test_images() -> None:
    sent = messages("anthropic", said("user", "look", image(URL), image(DATA), "more"))
    assert sent == [
        user(
            text("look"),
            {"type": "image", "source": {"type": "url", "url": URL}},
            {
                "type": "image",
                "source": {
                    "type": "base64",
                    "data": "iVBOR2RhdGE=",
                    "media_type": "image/png",
                },
            },
            text("more"),
        )
    ]


def test_calls_and_outputs() -> None:
    sent = messages(
        "anthropic",
        said("user", "u"),
        call("c1", id="g/1", arguments=""),
        call("c2", id="g/2", arguments='{"a": [1]}'),
        output("c2", "2", is_error=True),
        output("c1", "1"),
        said("user", "v"),
    )
    assert sent == [
        user(text("u")),
        assistant(
            {"id": "c1", "type": "tool_use", "name": "t", "input": {}},
            {"id": "c2", "type": "tool_use", "name": "t", "input": {"a": [1]}},
        ),
        user(
            {"tool_use_id": "c2", "type": "tool_result", "content": "2", "is_error": True},
            {"tool_use_id": "c1", "type": "tool_result", "content": "1", "is_error": False},
            text("v"),
        ),
    ]


def test_arguments_that_are_no_json(caplog: pytest.LogCaptureFixture) -> None:
    sent = messages("anthropic", said("user", "u"), call(arguments="{bad"), output())
    assert sent[1]["content"][0]["input"] == {"invalid_json": "{bad"}
    assert "not JSON" in caplog.text


@pytest.mark.parametrize(
    "result",
    [
        '[{"type": "text", "text": "x"}]',
        '[{"type": "image", "source": {}}, {"type": "document"}]',
        '[{"type":"text","text":"3","annotations":null,"meta":null},{"type":"image","bytes":8}]',
        "[]",
        "[broken",
        "",
    ],
)
def test_an_output_is_text_whatever_it_looks_like(result: str) -> None:
    sent = messages("anthropic", said("user", "u"), call(), output(text=result))
    assert sent[-1]["content"][0]["content"] == result


def test_thinking_goes_back_before_what_it_led_to() -> None:
    sent = messages(
        "anthropic",
        said("user", "u"),
        said("assistant", "wait", id="g", extra={"anthropic": {"thinking": [THINKING, REDACTED]}}),
        call("c1", id="g/1"),
        output("c1"),
        call("c2", extra={"anthropic": {"thinking": [THINKING]}}),
        output("c2"),
    )
    kinds = [[block["type"] for block in message["content"]] for message in sent]
    assert kinds == [
        ["text"],
        ["thinking", "redacted_thinking", "text", "tool_use"],
        ["tool_result"],
        ["thinking", "tool_use"],
        ["tool_result"],
    ]
    assert sent[1]["content"][0] == THINKING
    alone = messages(
        "anthropic", said("assistant", "a", extra={"anthropic": {"thinking": [THINKING]}})
    )
    assert alone[1] == assistant(THINKING, text("a"))
