"""A call that a limit cut is never handed out: in any dialect, cut anywhere, whatever it is called."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rejoinder.errors import EmptyResponseError, RefusalError, WireError
from rejoinder.providers.answering.decoder import ReplyDecoder
from rejoinder.providers.anthropic import wire as anthropic
from rejoinder.providers.aws import wire as aws
from rejoinder.providers.completions import wire as completions
from rejoinder.providers.google import wire as google
from rejoinder.providers.openai import responses_wire as responses
from rejoinder.wire.eventstream import encode_message

REASONS = [
    "length",
    "max_tokens",
    "MAX_TOKENS",
    "max_output_tokens",
    "model_length",
    "model_context_window_exceeded",
    "max_length",
    "incomplete",
    "not_finished",
    "OUTPUT_LIMIT_REACHED",
    "content_filter",
]
WHOLE = '{"city": "Rome", "n": 123}'

Make = Callable[[list[str], str], tuple[ReplyDecoder, bytes]]


def events(*values: dict[str, Any]) -> bytes:
    return b"".join(b"data: " + json.dumps(value).encode() + b"\n\n" for value in values)


def by_chat(pieces: list[str], reason: str) -> tuple[ReplyDecoder, bytes]:
    def delta(value: dict[str, Any], stop: str | None = None) -> dict[str, Any]:
        return {"id": "r", "choices": [{"index": 0, "delta": value, "finish_reason": stop}]}

    opening = {"index": 0, "id": "c", "type": "function", "function": {"name": "f"}}
    calls = [{"index": 0, "function": {"arguments": piece}} for piece in pieces]
    return completions.make_decoder(), events(
        delta({"content": "Hi"}),
        *(delta({"tool_calls": [call]}) for call in (opening, *calls)),
        delta({}, reason),
    )


def by_responses(pieces: list[str], reason: str) -> tuple[ReplyDecoder, bytes]:
    item = {"type": "function_call", "id": "fc", "call_id": "c", "name": "f", "arguments": ""}
    kind = "response.function_call_arguments.delta"
    end = {"status": "incomplete", "incomplete_details": {"reason": reason}, "output": []}
    return responses.make_decoder(), events(
        {"type": "response.output_text.delta", "delta": "Hi", "output_index": 0},
        {"type": "response.output_item.added", "output_index": 1, "item": item},
        *({"type": kind, "output_index": 1, "delta": piece} for piece in pieces),
        {"type": "response.incomplete", "response": end},
    )


def by_messages(pieces: list[str], reason: str) -> tuple[ReplyDecoder, bytes]:
    call = {"type": "tool_use", "id": "c", "name": "f", "input": {}}
    deltas = [{"type": "input_json_delta", "partial_json": piece} for piece in pieces]
    return anthropic.make_decoder(), events(
        {"type": "message_start", "message": {"id": "m"}},
        {
            "type": "content_block_start",
            "index": 0,
            "content_block": {"type": "text", "text": "Hi"},
        },
        {"type": "content_block_start", "index": 1, "content_block": call},
        *({"type": "content_block_delta", "index": 1, "delta": delta} for delta in deltas),
        {"type": "content_block_stop", "index": 1},
        {"type": "message_delta", "delta": {"stop_reason": reason}},
        {"type": "message_stop"},
    )


def by_converse(pieces: list[str], reason: str) -> tuple[ReplyDecoder, bytes]:
    def frame(name: str, **value: Any) -> bytes:
        return encode_message(
            {":event-type": name, ":content-type": "application/json", ":message-type": "event"},
            json.dumps(value).encode(),
        )

    data = frame("contentBlockDelta", contentBlockIndex=0, delta={"text": "Hi"})
    use = {"toolUse": {"toolUseId": "c", "name": "f"}}
    data += frame("contentBlockStart", contentBlockIndex=1, start=use)
    for piece in pieces:
        data += frame("contentBlockDelta", contentBlockIndex=1, delta={"toolUse": {"input": piece}})
    data += frame("contentBlockStop", contentBlockIndex=1)
    return aws.make_decoder(), data + frame("messageStop", stopReason=reason)


def heard(decoder: ReplyDecoder, data: bytes) -> list[Any]:
    """What leaves the decoder; a content filter is an error behind it."""
    chunks = [*decoder.feed(data)]
    with contextlib.suppress(RefusalError):
        chunks += decoder.close()
    return [chunk.delta for chunk in chunks if chunk.delta is not None]


def deltas(text: str) -> list[str]:
    return [text[: len(text) // 2], text[len(text) // 2 :]]


def snapshots(text: str) -> list[str]:
    return [*(text[:size] for size in range(2, len(text), 5)), text]


def behind_an_opening(text: str) -> list[str]:
    return ["{}", *deltas(text)]


WAYS: list[Callable[[str], list[str]]] = [deltas, snapshots, behind_an_opening]


@pytest.mark.parametrize("way", WAYS, ids=lambda way: way.__name__)
@pytest.mark.parametrize("make", [by_chat, by_responses, by_messages, by_converse])
@given(
    st.sampled_from(REASONS),
    st.booleans(),
    st.integers(1, len(WHOLE) - 1),
)
def test_no_part_of_a_call_is_handed_out(
    make: Make, way: Callable[[str], list[str]], reason: str, wrapped: bool, size: int
) -> None:
    text = json.dumps(WHOLE) if wrapped else WHOLE
    cut = heard(*make(way(text[:size]), reason))
    assert "".join(delta.content or "" for delta in cut) == "Hi"
    assert not [call for delta in cut for call in delta.tool_calls]
    whole = heard(*make(way(text), reason))
    calls = [call.arguments for delta in whole for call in delta.tool_calls]
    assert calls == [text], "what is whole is no part"


@pytest.mark.parametrize("status", ["incomplete", "in_progress", None, "completed"])
@pytest.mark.parametrize("arguments", ["", "{}", "null"])
def test_a_bare_call_at_which_a_response_was_cut_may_have_had_more(
    status: str | None, arguments: str
) -> None:
    """Some servers tell of a call in the final response alone."""
    call = {"type": "function_call", "id": "fc_1", "call_id": "call_1", "name": "f"}
    call |= {"arguments": arguments, **({"status": status} if status else {})}
    response = {"id": "r", "status": "incomplete", "output": [call]}
    response["incomplete_details"] = {"reason": "max_output_tokens"}
    event = {"type": "response.incomplete", "response": response}
    decoder = responses.make_decoder()
    chunks = [*decoder.feed(events(event))]
    with contextlib.suppress(EmptyResponseError):
        chunks += decoder.close()
    made = [call.arguments for c in chunks if c.delta is not None for call in c.delta.tool_calls]
    assert made == ([arguments] if status == "completed" and arguments else [])


def by_gemini(parts: list[dict[str, Any]], reason: str, *, apart: bool) -> list[str]:
    """The arguments of the calls that leave the decoder.

    Args:
        parts: function calls, each in an event of its own.
        apart: the reason comes in an event of its own.
    """
    answers: list[dict[str, Any]] = [
        {"content": {"parts": [{"functionCall": part}]}} for part in parts
    ]
    if apart or not answers:
        answers.append({})
    answers[-1]["finishReason"] = reason
    decoder = google.make_decoder(allow_empty=True)
    chunks = [*decoder.feed(events(*({"candidates": [answer]} for answer in answers)))]
    with contextlib.suppress(WireError, EmptyResponseError):
        chunks += decoder.close()
    made = [chunk.delta.tool_calls for chunk in chunks if chunk.delta is not None]
    return [call.arguments for calls in made for call in calls]


GEMINI_CALL: list[dict[str, Any]] = [
    {"name": "f", "willContinue": True},
    {
        "partialArgs": [{"jsonPath": "$.city", "stringValue": "Ro", "willContinue": True}],
        "willContinue": True,
    },
    {"partialArgs": [{"jsonPath": "$.city", "stringValue": "me"}], "willContinue": True},
    {"partialArgs": [{"jsonPath": "$.n", "numberValue": 123}], "willContinue": True},
    {},
]


@pytest.mark.parametrize("apart", [False, True])
@pytest.mark.parametrize("reason", ["MAX_TOKENS", "MALFORMED_FUNCTION_CALL"])
@pytest.mark.parametrize("size", range(1, len(GEMINI_CALL)))
def test_no_part_of_a_call_of_gemini_is_handed_out(size: int, reason: str, apart: bool) -> None:
    assert by_gemini(GEMINI_CALL[:size], reason, apart=apart) == []
    whole = by_gemini(GEMINI_CALL, "MAX_TOKENS", apart=apart)
    assert [json.loads(arguments) for arguments in whole] == [{"city": "Rome", "n": 123}]


@pytest.mark.parametrize("apart", [False, True])
@pytest.mark.parametrize("bare", [{"name": "f", "args": {}}, {"name": "f"}], ids=repr)
def test_a_call_without_arguments_may_be_a_cut_one(bare: dict[str, Any], apart: bool) -> None:
    before = {"name": "f", "args": {"n": 1}}
    assert by_gemini([bare], "STOP", apart=apart) == ["{}"]
    assert by_gemini([before, bare], "MAX_TOKENS", apart=apart) == ['{"n":1}']
    assert by_gemini([before, bare], "MALFORMED_FUNCTION_CALL", apart=apart) == ['{"n":1}']
    assert by_gemini([bare, before], "MAX_TOKENS", apart=apart) == ["{}", '{"n":1}']
