"""Chat completions messages."""

from __future__ import annotations

import pytest

from providers.formats import DATA, URL, call, formatted, image, messages, output, said


def test_roles_and_system_texts_stay_as_they_are() -> None:
    assert formatted(
        "openai",
        said("system", "S1"),
        said("developer", "D"),
        said("user", "u"),
        said("system", "S2"),
        said("assistant", "a"),
    ) == (
        [
            {"role": "system", "content": "S1"},
            {"role": "developer", "content": "D"},
            {"role": "user", "content": "u"},
            {"role": "system", "content": "S2"},
            {"role": "assistant", "content": "a"},
        ],
        None,
    )
    assert formatted("openai") == ([], None)


@pytest.mark.parametrize(
    ("texts", "joined"),
    [
        (["a", "b", "", "c"], "a\nb\n\nc"),
        (["", "a"], "a"),
        (["a", ""], "a\n"),
        ([], ""),
        ([""], ""),
    ],
)
def test_texts_are_joined(texts: list[str], joined: str) -> None:
    assert messages("openai", said("user", *texts)) == [{"role": "user", "content": joined}]


def test_text_and_images_keep_their_order() -> None:
    sent = messages(
        "openai",
        said(
            "user", "before:", image(URL, inference_detail="low"), "after:", "", "it", image(DATA)
        ),
    )
    assert sent[0]["content"] == [
        {"type": "text", "text": "before:"},
        {"type": "image_url", "image_url": {"url": URL, "detail": "low"}},
        {"type": "text", "text": "after:\n\nit"},
        {"type": "image_url", "image_url": {"url": DATA, "detail": "auto"}},
    ]
    entries = messages("openai.responses", said("user", "a", image(URL), "b"))
    assert [part["type"] for part in entries[0]["content"]] == [
        "input_text",
        "input_image",
        "input_text",
    ]
    (part,) = messages("openai", said("user", "", image(DATA), ""))[0]["content"]
    assert part["image_url"] == {"url": DATA, "detail": "auto"}
    with pytest.raises(ValueError, match="data:"):
        messages("openai", said("user", image("data:nothing")))


def test_calls_and_outputs() -> None:
    sent = messages(
        "openai",
        said("assistant", "wait", id="g"),
        call("c1", id="g/1", arguments='{"a": 1}'),
        call("c2", id="g/2", arguments="{broken"),
        output("c2", "2", is_error=True),
        output("c1", "1"),
    )
    assert sent == [
        {
            "role": "assistant",
            "content": "wait",
            "tool_calls": [
                {
                    "id": "c1",
                    "type": "function",
                    "function": {"name": "t", "arguments": '{"a": 1}'},
                },
                {"id": "c2", "type": "function", "function": {"name": "t", "arguments": "{broken"}},
            ],
        },
        {"role": "tool", "tool_call_id": "c2", "content": "2"},
        {"role": "tool", "tool_call_id": "c1", "content": "1"},
    ]
    assert "content" not in messages("openai", call(), output())[0]


def test_state_of_clones_travels_in_extra_content() -> None:
    state = {"google": {"thought_signature": "S"}, "anthropic": {"thinking": []}, "mine": 1}
    sent = messages("openai", said("assistant", "a", extra=state), call(extra=state), output())
    only = {"google": {"thought_signature": "S"}}
    assert sent[0]["extra_content"] == only
    assert sent[1]["tool_calls"][0]["extra_content"] == only
    assert "extra_content" not in messages("openai", said("user", "u", extra={"mine": 1}))[0]
