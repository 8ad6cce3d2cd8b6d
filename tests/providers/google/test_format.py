"""Turns of the Gemini API."""

from __future__ import annotations

from typing import Any

import pytest

from providers.formats import DATA, URL, call, formatted, image, messages, output, said
from rejoinder.providers.google.format import GoogleFormatData

SIGNED = {"google": {"thought_signature": "c2lnbmF0dXJl"}}


def user(*parts: dict[str, Any]) -> dict[str, Any]:
    return {"role": "user", "parts": list(parts)}


def model(*parts: dict[str, Any]) -> dict[str, Any]:
    return {"role": "model", "parts": list(parts)}


def test_turns_and_instructions() -> None:
    assert formatted(
        "google",
        said("system", "S1"),
        said("user", "u"),
        said("system", "S2"),
        said("assistant", "a"),
    ) == (
        [
            user({"text": "u"}, {"text": "<instructions>\nS2\n</instructions>"}),
            model({"text": "a"}),
            user({"text": "."}),
        ],
        GoogleFormatData(system_messages=["S1"]),
    )


def test_the_last_turn_that_is_there_decides() -> None:
    dot = user({"text": "."})
    assert messages("google") == [dot]
    assert messages("google", said("user", "")) == [dot]
    sent = messages("google", said("user", "u"), said("assistant", "a"), said("user", ""))
    assert sent == [user({"text": "u"}), model({"text": "a"}), dot]
    assert messages("google", said("user", "u"), said("assistant", "")) == [user({"text": "u"})]
    assert len(messages("google", said("user", "u"), call(), output())) == 3
    assert messages("google", said("assistant", "a"), inject_dummy_user_message=False) == [
        model({"text": "a"})
    ]


def test_images() -> None:
    sent = messages(
        "google",
        said("user", image(URL), image(URL[:-4]), image(URL, mime_type="image/webp"), image(DATA)),
    )
    assert sent == [
        user(
            {"file_data": {"file_uri": URL, "mime_type": "image/png"}},
            {"file_data": {"file_uri": URL[:-4], "mime_type": "image/jpeg"}},
            {"file_data": {"file_uri": URL, "mime_type": "image/webp"}},
            {"inline_data": {"data": b"\x89PNGdata", "mime_type": "image/png"}},
        )
    ]


def test_function_responses_are_turns_of_their_own() -> None:
    sent = messages(
        "google",
        said("user", "u"),
        call("c1", id="g/1", arguments='{"a": 1}'),
        call("c2", id="g/2"),
        output("c1", "1"),
        output("c2", "2", is_error=True, name="other"),
        said("user", "v"),
    )
    assert sent == [
        user({"text": "u"}),
        model(
            {"function_call": {"id": "c1", "name": "t", "args": {"a": 1}}},
            {"function_call": {"id": "c2", "name": "t", "args": {}}},
        ),
        user(
            {"function_response": {"id": "c1", "name": "t", "response": {"output": "1"}}},
            {"function_response": {"id": "c2", "name": "other", "response": {"error": "2"}}},
        ),
        user({"text": "v"}),
    ]


def test_signatures_stand_where_they_came() -> None:
    sent = messages(
        "google",
        said("user", "u", extra=SIGNED),
        said("assistant", "a", "b", extra=SIGNED),
        call(extra=SIGNED),
        output(),
    )
    assert sent[0] == user({"text": "u"})
    assert sent[1] == model(
        {"text": "a"},
        {"text": "b", "thought_signature": b"signature"},
        {
            "function_call": {"id": "c1", "name": "t", "args": {}},
            "thought_signature": b"signature",
        },
    )


def test_signatures_by_call_id_serve_calls_without_one() -> None:
    signatures = {"c1": b"one", "c2": b"two"}
    sent = messages(
        "google",
        said("user", "u"),
        call("c1", id="g/1"),
        call("c2", id="g/2", extra=SIGNED),
        output("c1"),
        output("c2"),
        thought_signatures=signatures,
    )
    assert [part["thought_signature"] for part in sent[1]["parts"]] == [b"one", b"signature"]


@pytest.mark.parametrize("value", ["not base64!", "abc", 5, None, "", {"nested": 1}, "\ud83d", "é"])
def test_a_damaged_signature_is_not_sent(value: Any) -> None:
    extra = {"google": {"thought_signature": value}}
    sent = messages("google", said("user", "u"), call(extra=extra), output())
    assert "thought_signature" not in sent[1]["parts"][0]
    assert messages("google", said("user", "u"), call(extra={"google": value}), output())
