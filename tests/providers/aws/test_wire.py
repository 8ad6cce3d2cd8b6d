"""Bedrock's event stream: what each event leads to, and what goes wrong in it."""

from __future__ import annotations

import base64
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rejoinder.errors import (
    APIConnectionError,
    APIError,
    APIStatusError,
    EmptyResponseError,
    RefusalError,
    WireError,
)
from rejoinder.providers.answering.decoder import ReplyDecoder, State
from rejoinder.providers.aws.wire import decode_error, make_decoder
from rejoinder.testing.chunking import byte_by_byte
from rejoinder.wire.eventstream import encode_message


def event(name: str, **members: Any) -> bytes:
    return encode_message(
        {":event-type": name, ":content-type": "application/json", ":message-type": "event"},
        json.dumps({**members, "p": "abcdef"}).encode(),
    )


def failed(name: str, payload: bytes = b'{"message":"No more."}', **headers: str) -> bytes:
    fields = {":message-type": "exception", ":exception-type": name, **headers}
    return encode_message(fields, payload)


START = event("messageStart", role="assistant")
USAGE = {"inputTokens": 5, "outputTokens": 2, "totalTokens": 7}


def text(*parts: str, index: int = 0) -> bytes:
    deltas = [event("contentBlockDelta", contentBlockIndex=index, delta={"text": t}) for t in parts]
    return b"".join(deltas) + event("contentBlockStop", contentBlockIndex=index)


def call(index: int, *parts: str, **use: Any) -> bytes:
    start = {"toolUse": {"toolUseId": f"tooluse_{index}", "name": "look_up", **use}}
    deltas = [
        event("contentBlockDelta", contentBlockIndex=index, delta={"toolUse": {"input": part}})
        for part in parts
    ]
    return (
        event("contentBlockStart", contentBlockIndex=index, start=start)
        + b"".join(deltas)
        + event("contentBlockStop", contentBlockIndex=index)
    )


def end(reason: str = "end_turn", usage: Any = USAGE, **metadata: Any) -> bytes:
    return event("messageStop", stopReason=reason) + event("metadata", usage=usage, **metadata)


class Said:
    def __init__(self, decoder: ReplyDecoder, *pieces: bytes) -> None:
        self.chunks: list[Any] = []
        self.error: APIError | None = None
        try:
            for piece in pieces:
                self.chunks += decoder.feed(piece)
            self.chunks += decoder.close()
            if decoder.failure is not None:
                raise decoder.failure
        except APIError as error:
            self.error = error
        deltas = [chunk.delta for chunk in self.chunks if chunk.delta is not None]
        self.text = "".join(delta.content or "" for delta in deltas)
        self.thinking = "".join(delta.thinking or "" for delta in deltas)
        self.calls = [
            (c.call_id, c.name, c.arguments) for delta in deltas for c in delta.tool_calls
        ]
        self.state = [delta.extra for delta in deltas if delta.extra]
        self.usage = next((c.usage for c in reversed(self.chunks) if c.usage), None)
        self.decoder = decoder


def said(*pieces: bytes, **options: Any) -> Said:
    return Said(make_decoder(**options), *pieces)


def test_text_and_calls() -> None:
    body = START + text("Hi", "", " you") + call(1, '{"city":', '"Köln"}') + end("tool_use")
    for found in (said(body), said(*byte_by_byte(body))):
        assert found.text == "Hi you"
        assert found.calls == [("tooluse_1", "look_up", '{"city":"Köln"}')]
        assert found.usage.total_tokens == 7
        assert found.error is None
        assert found.decoder.state is State.ENDED


def test_a_call_without_arguments_has_an_empty_object() -> None:
    assert said(START + call(0) + end("tool_use")).calls == [("tooluse_0", "look_up", "{}")]


def test_tools_of_the_provider_are_not_ours_to_run() -> None:
    body = START + call(0, "{}", type="server_tool_use")
    body += event("contentBlockStart", contentBlockIndex=1, start={"toolResult": {}})
    body += event("contentBlockDelta", contentBlockIndex=1, delta={"toolResult": [{"text": "x"}]})
    body += event("contentBlockDelta", contentBlockIndex=2, delta={"citation": {"title": "t"}})
    found = said(body + text("Found.", index=2) + end())
    assert (found.text, found.calls) == ("Found.", [])
    assert found.decoder.skipped == 0


def test_reasoning_is_shown_beside_and_kept_whole() -> None:
    def thought(**content: str) -> bytes:
        return event("contentBlockDelta", contentBlockIndex=0, delta={"reasoningContent": content})

    body = START + thought(text="Let me ") + thought(text="see.") + thought(signature="c2ln")
    body += event("contentBlockStop", contentBlockIndex=0)
    found = said(body + text("Ok", index=1) + end())
    assert (found.text, found.thinking) == ("Ok", "Let me see.")
    assert found.state == [
        {"aws": {"reasoning": [{"reasoningText": {"text": "Let me see.", "signature": "c2ln"}}]}}
    ]
    halves = [base64.b64encode(part).decode() for part in (b"ab", b"cd")]
    body = START + b"".join(thought(redactedContent=half) for half in halves)
    found = said(
        body + event("contentBlockStop", contentBlockIndex=0) + text("Ok", index=1) + end()
    )
    assert found.state == [
        {"aws": {"reasoning": [{"redactedContent": base64.b64encode(b"abcd").decode()}]}}
    ]


def test_cached_tokens_are_part_of_the_prompt() -> None:
    usage = {
        "inputTokens": 5,
        "outputTokens": 2,
        "totalTokens": 7,
        "cacheReadInputTokens": 3,
        "cacheWriteInputTokens": 4,
    }
    found = said(START + text("Hi") + end(usage=usage, serviceTier={"type": "priority"})).usage
    assert (found.prompt_tokens, found.completion_tokens, found.total_tokens) == (12, 2, 14)
    assert (found.cache_read_tokens, found.cache_creation_tokens) == (3, 4)
    assert found.service_tier == "priority"


def test_the_usage_may_be_missing() -> None:
    decoder = make_decoder()
    decoder.feed(START + text("Hi") + event("messageStop", stopReason="end_turn"))
    assert decoder.state is State.ANSWERED
    assert decoder.state is not State.ENDED
    assert said(START + text("Hi") + event("messageStop", stopReason="end_turn")).error is None


@pytest.mark.parametrize("reason", ["guardrail_intervened", "content_filtered"])
def test_a_stopped_reply(reason: str) -> None:
    found = said(START + text("Sorry.") + end(reason))
    assert found.text == "Sorry."
    assert isinstance(found.error, RefusalError)
    assert found.error.reason == reason
    assert found.usage is not None


def test_a_guardrail_that_only_masks_lets_the_reply_pass() -> None:
    masked = {"guardrail": {"outputAssessments": {"x": [{"action": "ANONYMIZED"}]}}}
    blocked = {"guardrail": {"outputAssessments": {"x": [{"action": "BLOCKED"}]}}}
    body = START + text("{NAME} says hi.")
    assert said(body + end("guardrail_intervened", trace=masked)).error is None
    stopped = said(body + end("guardrail_intervened", trace=blocked)).error
    assert isinstance(stopped, RefusalError)


@pytest.mark.parametrize("reason", ["malformed_model_output", "malformed_tool_use"])
def test_a_malformed_reply(reason: str) -> None:
    error = said(START + end(reason)).error
    assert isinstance(error, WireError)
    assert error.retryable


def test_an_empty_reply() -> None:
    found = said(START + end())
    assert isinstance(found.error, EmptyResponseError)
    assert found.usage is not None
    assert said(START + end(), allow_empty=True).error is None
    cut = said(START + end("max_tokens")).error
    assert isinstance(cut, EmptyResponseError)
    assert not cut.retryable


def test_a_call_that_the_limit_cut_is_not_made() -> None:
    found = said(START + text("Hi") + call(1, '{"amount": 1') + end("max_tokens"))
    assert found.calls == []
    assert found.error is None
    kept = said(START + call(1, "{broken") + end("tool_use"))
    assert kept.calls == [("tooluse_1", "look_up", "{broken")]


@pytest.mark.parametrize(
    ("name", "status", "retryable"),
    [
        ("throttlingException", 429, True),
        ("internalServerException", 500, True),
        ("serviceUnavailableException", 503, True),
        ("modelStreamErrorException", 424, True),
        ("modelTimeoutException", 408, True),
        ("validationException", 400, False),
        ("brandNewException", 500, True),
    ],
)
def test_an_exception_inside_the_stream(name: str, status: int, retryable: bool) -> None:
    found = said(START + text("Hi") + failed(name))
    assert found.text == "Hi"
    assert isinstance(found.error, APIStatusError)
    assert (found.error.status_code, found.error.retryable) == (status, retryable)
    assert "No more." in str(found.error)


def test_a_model_error_has_the_status_of_its_origin() -> None:
    payload = b'{"message":"x","originalStatusCode":400,"originalMessage":"y"}'
    error = said(START + failed("modelStreamErrorException", payload)).error
    assert isinstance(error, APIStatusError)
    assert error.status_code == 400


def test_an_unmodelled_error_frame() -> None:
    frame = encode_message(
        {":message-type": "error", ":error-code": "InternalFailure", ":error-message": "Ouch"}, b""
    )
    error = said(START + frame).error
    assert isinstance(error, APIStatusError)
    assert error.status_code == 500
    assert "Ouch" in str(error)


def test_a_stream_without_its_end_mark_is_an_error() -> None:
    whole = START + text("Hi") + event("messageStop", stopReason="end_turn")
    for size in range(len(whole)):
        assert isinstance(said(whole[:size]).error, (APIConnectionError, WireError)), size
    assert said(whole).error is None


def test_a_changed_byte_is_noticed() -> None:
    whole = START + text("Hi") + end()
    for place in range(len(whole)):
        broken = bytearray(whole)
        broken[place] ^= 1
        assert isinstance(said(bytes(broken)).error, (WireError, APIConnectionError)), place


def test_unknown_events_are_skipped() -> None:
    body = START + event("brandNew", a=1) + text("Hi") + end()
    body = event("contentBlockStart", contentBlockIndex=0, start={}) + body
    found = said(body)
    assert found.text == "Hi"
    assert found.decoder.skipped == 1


def test_a_whole_reply_instead_of_a_stream() -> None:
    reply = {
        "output": {
            "message": {
                "role": "assistant",
                "content": [
                    {"reasoningContent": {"reasoningText": {"text": "hm", "signature": "c2ln"}}},
                    {"text": "Hi"},
                    {"citationsContent": {"content": [{"text": " there"}], "citations": []}},
                    {"toolUse": {"toolUseId": "t", "name": "look_up", "input": {"a": 1}}},
                ],
            }
        },
        "stopReason": "tool_use",
        "usage": USAGE,
    }
    found = said(*byte_by_byte(json.dumps(reply).encode()))
    assert (found.text, found.thinking) == ("Hi there", "hm")
    assert found.calls == [("t", "look_up", '{"a":1}')]
    assert found.usage.total_tokens == 7
    assert found.state
    assert found.error is None


def test_an_error_object_with_status_200() -> None:
    body = b'{"message":"Try later"}'
    for error in (said(body).error, decode_error(200, {}, body)):
        assert isinstance(error, APIStatusError)
        assert "Try later" in str(error)


@pytest.mark.parametrize(
    ("status", "headers", "body", "name"),
    [
        (
            400,
            {"x-amzn-errortype": "ValidationException:http://internal.amazon.com/coral/x/"},
            b'{"message":"bad"}',
            "ValidationException",
        ),
        (403, {}, b'{"__type":"com.x#AccessDeniedException","Message":"bad"}', "AccessDenied"),
        (404, {}, b'{"__type":"ResourceNotFoundException","message":"bad"}', "ResourceNotFound"),
        (413, {}, b"<html>bad</html>", "Too Large"),
    ],
)
def test_errors_that_cannot_get_better(
    status: int, headers: dict[str, str], body: bytes, name: str
) -> None:
    error = decode_error(status, {**headers, "x-amzn-requestid": "r1"}, body)
    assert isinstance(error, APIStatusError)
    assert (error.status_code, error.request_id, error.retryable) == (status, "r1", False)
    assert name in str(error)
    assert "bad" in str(error)


@pytest.mark.parametrize("status", [408, 424, 429, 500, 503])
def test_errors_that_can_get_better(status: int) -> None:
    error = decode_error(status, {"retry-after": "1"}, b'{"message":"slow"}')
    assert error.retryable
    assert error.retry_after == 1


@given(st.binary(max_size=300))
def test_any_bytes(data: bytes) -> None:
    one = said(data)
    assert one.error is not None
    assert repr(said(*byte_by_byte(data)).error) == repr(one.error)
    decode_error(500, {}, data)
    decode_error(200, {}, data)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3)
    ),
    max_leaves=8,
)
names = st.sampled_from(
    [
        "messageStart",
        "contentBlockStart",
        "contentBlockDelta",
        "contentBlockStop",
        "messageStop",
        "metadata",
        "x",
    ]
)
members = st.fixed_dictionaries(
    {},
    optional={
        "contentBlockIndex": st.integers(0, 2) | json_values,
        "start": st.fixed_dictionaries(
            {}, optional={"toolUse": st.fixed_dictionaries({"name": json_values}) | json_values}
        )
        | json_values,
        "delta": st.fixed_dictionaries(
            {},
            optional={
                "text": st.text(max_size=3) | json_values,
                "toolUse": st.fixed_dictionaries({"input": st.text(max_size=3) | json_values})
                | json_values,
                "reasoningContent": st.dictionaries(
                    st.sampled_from(["text", "signature", "redactedContent"]),
                    st.text(max_size=4) | json_values,
                    max_size=3,
                )
                | json_values,
            },
        )
        | json_values,
        "stopReason": st.sampled_from(["end_turn", "tool_use"]) | json_values,
        "usage": json_values,
    },
)


@given(st.lists(st.tuples(names, members), max_size=8))
def test_any_events(events: list[tuple[str, dict[str, Any]]]) -> None:
    body = b"".join(event(name, **fields) for name, fields in events)
    one = said(body)
    many = said(*byte_by_byte(body))
    assert (one.text, one.thinking, len(one.calls), repr(one.error)) == (
        many.text,
        many.thinking,
        len(many.calls),
        repr(many.error),
    )


# -- what servers were seen to do ------------------------------------------------------------------


def thought(index: int, words: str) -> bytes:
    contents = ({"text": words}, {"signature": f"s{words}"})
    deltas = [
        event("contentBlockDelta", contentBlockIndex=index, delta={"reasoningContent": content})
        for content in contents
    ]
    return b"".join(deltas) + event("contentBlockStop", contentBlockIndex=index)


def test_reasoning_goes_with_what_it_led_to() -> None:
    found = said(
        START
        + thought(0, "A")
        + call(1, "{}")
        + thought(2, "B")
        + text("Hi", index=3)
        + thought(4, "C")
        + call(5, "{}")
        + end("tool_use")
    )
    calls = [made for chunk in found.chunks if chunk.delta for made in chunk.delta.tool_calls]
    words = [
        state["aws"]["reasoning"][0]["reasoningText"]["text"]
        for state in (calls[0].extra, found.state[0], calls[1].extra)
    ]
    assert words == ["A", "B", "C"]
    assert len(found.state) == 1


@pytest.mark.parametrize("cut", range(1, 50, 7))
def test_thoughts_between_tags_are_not_spoken(cut: int) -> None:
    """Amazon Nova writes them before a tool call."""
    whole = "<thinking> The user greets me. </thinking>\n\nHello! <thinking>"
    found = said(START + text(whole[:cut], whole[cut:]) + end())
    assert (found.text, found.thinking) == ("Hello! <thinking>", " The user greets me. ")


@pytest.mark.parametrize("reason", ["max_tokens", "model_context_window_exceeded"])
@pytest.mark.parametrize("parts", [(), ("",), ('{"a',)], ids=repr)
def test_a_call_that_was_cut_before_its_arguments_is_not_made(
    reason: str, parts: tuple[str, ...]
) -> None:
    found = said(START + text("Hi") + call(1, "{}") + call(2, *parts) + end(reason))
    assert [made[0] for made in found.calls] == ["tooluse_1"]


@pytest.mark.parametrize(
    "parts",
    [("{}", '{"a"', ":1}"), ('{"a', '{"a":', '{"a":1}'), ('{"a":1}', '{"a":1}')],
    ids=repr,
)
def test_placeholders_snapshots_and_repeats(parts: tuple[str, ...]) -> None:
    assert said(START + call(0, *parts) + end("tool_use")).calls[0][2] == '{"a":1}'


def test_citations_are_kept() -> None:
    cited = {"title": "t", "source": "u"}
    delta = event("contentBlockDelta", contentBlockIndex=0, delta={"citation": cited})
    assert said(START + text("x") + delta + end()).state == [{"aws": {"citations": [cited]}}]


def test_reasoning_behind_the_calls_led_to_nothing() -> None:
    """Before the message it would stand where it was not, and at the end of a turn it is refused."""

    def thought(index: int) -> bytes:
        parts = [{"text": "hm"}, {"signature": "c2ln"}]
        return b"".join(
            event("contentBlockDelta", contentBlockIndex=index, delta={"reasoningContent": part})
            for part in parts
        ) + event("contentBlockStop", contentBlockIndex=index)

    found = said(START + call(0, "{}") + thought(1) + end("tool_use"))
    assert (found.thinking, found.state) == ("hm", [])
    assert said(START + thought(0) + text("x", index=1) + thought(2) + end()).state
