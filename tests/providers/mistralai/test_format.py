"""Mistral's messages, and the entries of its Conversations API."""

from __future__ import annotations

from providers.formats import DATA, URL, call, formatted, image, messages, output, said
from rejoinder.providers.mistralai.format import MistralFormatData


def test_as_chat_completions_with_a_user_at_the_end() -> None:
    last = {"role": "user", "content": ""}
    assert formatted("mistralai") == ([last], None)
    assert messages("mistralai", said("system", "S")) == [{"role": "system", "content": "S"}, last]
    assert messages("mistralai", said("assistant", "a"))[-1] == last
    assert messages("mistralai", said("user", "u")) == [{"role": "user", "content": "u"}]
    assert messages("mistralai", call(), output())[-1]["role"] == "tool"
    assert messages("mistralai", inject_dummy_user_message=False) == []
    items = [
        said("user", image(URL), "x"),
        said("assistant", "w", id="g"),
        call(id="g/1"),
        output(),
    ]
    assert messages("mistralai", *items) == messages("openai", *items)


def test_conversations() -> None:
    assert formatted(
        "mistralai.conversations",
        said("system", "S1"),
        said("user", "look", image(DATA)),
        said("assistant", "wait", id="g"),
        call("c1", id="g/1", arguments='{"a": 1}'),
        output("c1", "1"),
        said("assistant", "done"),
        said("developer", "S2"),
    ) == (
        [
            {
                "type": "message.input",
                "role": "user",
                "content": [
                    {"type": "text", "text": "look"},
                    {"type": "image_url", "image_url": DATA},
                ],
            },
            {"type": "message.output", "role": "assistant", "content": "wait"},
            {
                "type": "function.call",
                "tool_call_id": "c1",
                "name": "t",
                "arguments": '{"a": 1}',
            },
            {"type": "function.result", "tool_call_id": "c1", "result": "1"},
            {"type": "message.output", "role": "assistant", "content": "done"},
        ],
        MistralFormatData(instructions="S2"),
    )
    assert formatted("mistralai.conversations") == ([], MistralFormatData(instructions=None))
