"""Messages of the Converse API."""

from __future__ import annotations

import pytest

from providers.formats import DATA, URL, call, formatted, image, messages, output, said
from rejoinder.providers.aws.format import BedrockFormatData


def test_turns_and_instructions() -> None:
    assert formatted(
        "aws",
        said("system", "S1"),
        said("assistant", "a"),
        said("user", "u"),
        said("developer", "D"),
    ) == (
        [
            {"role": "user", "content": [{"text": "(empty)"}]},
            {"role": "assistant", "content": [{"text": "a"}]},
            {
                "role": "user",
                "content": [{"text": "u"}, {"text": "<instructions>\nD\n</instructions>"}],
            },
        ],
        BedrockFormatData(system_messages=["S1"]),
    )
    assert messages("aws", inject_dummy_user_message=False) == []


@pytest.mark.parametrize(
    ("mime_type", "format"),
    [("png", "png"), ("jpeg", "jpeg"), ("gif", "gif"), ("webp", "webp")],
)
def test_images_tell_their_format(mime_type: str, format: str) -> None:
    sent = messages("aws", said("user", image(DATA.replace("image/png", f"image/{mime_type}"))))
    assert sent[0]["content"] == [
        {"image": {"format": format, "source": {"bytes": b"\x89PNGdata"}}}
    ]


def test_an_address_is_refused() -> None:
    with pytest.raises(ValueError, match="Bedrock takes only inline images, got the URL"):
        messages("aws", said("user", image(URL)))


def test_calls_and_outputs() -> None:
    sent = messages(
        "aws",
        said("user", "u"),
        call("c1", id="g/1", arguments='{"a": 1}'),
        call("c2", id="g/2"),
        output("c1", "1"),
        output("c2", "2", is_error=True),
        said("user", "v"),
    )
    assert sent[1:] == [
        {
            "role": "assistant",
            "content": [
                {"toolUse": {"toolUseId": "c1", "name": "t", "input": {"a": 1}}},
                {"toolUse": {"toolUseId": "c2", "name": "t", "input": {}}},
            ],
        },
        {
            "role": "user",
            "content": [
                {
                    "toolResult": {
                        "toolUseId": "c1",
                        "content": [{"text": "1"}],
                        "status": "success",
                    }
                },
                {"toolResult": {"toolUseId": "c2", "content": [{"text": "2"}], "status": "error"}},
                {"text": "v"},
            ],
        },
    ]


def test_reasoning_goes_back_before_what_it_led_to() -> None:
    text = {"reasoningText": {"text": "hm", "signature": "sealed"}}
    reasoning = [text, {"reasoningContent": text}, {"redactedContent": "c2VhbGVk"}, "damaged"]
    state = {"aws": {"reasoning": reasoning}}
    sent = messages(
        "aws",
        said("user", "u"),
        said("assistant", "a", id="g", extra=state),
        call(id="g/1"),
        output(),
        call("c2", extra=state),
        output("c2"),
        said("assistant", "b", extra=state),
    )
    sealed = [
        {"reasoningContent": text},
        {"reasoningContent": text},
        {"reasoningContent": {"redactedContent": b"sealed"}},
    ]
    assert sent[1]["content"][:4] == [*sealed, {"text": "a"}]
    assert sent[3]["content"][:3] == sealed
    assert sent[5]["content"] == [*sealed, {"text": "b"}]
