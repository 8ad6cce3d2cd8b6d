"""Gemini's stream: what each event leads to, and what goes wrong in it."""

from __future__ import annotations

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
from rejoinder.providers.google.wire import decode_error, make_decoder
from rejoinder.testing.chunking import byte_by_byte, every_cut

COUNTS = {"promptTokenCount": 5, "candidatesTokenCount": 2, "totalTokenCount": 7}


def answer(*parts: dict[str, Any], **members: Any) -> dict[str, Any]:
    usage = members.pop("usage", None)
    candidate = {"content": {"role": "model", "parts": list(parts)}, **members}
    item: dict[str, Any] = {"candidates": [candidate], "responseId": "r1"}
    if usage is not None:
        item["usageMetadata"] = usage
    return item


def sse(*items: dict[str, Any]) -> bytes:
    return b"".join(b"data: " + json.dumps(item).encode() + b"\r\n\r\n" for item in items)


def array(*items: dict[str, Any]) -> bytes:
    return b"[" + b",\r\n".join(json.dumps(item, indent=2).encode() for item in items) + b"\n]\n"


def stop(reason: Any = "STOP", *parts: dict[str, Any], **members: Any) -> dict[str, Any]:
    return answer(*parts, finishReason=reason, usage=COUNTS, **members)


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
        self.calls = [c for delta in deltas for c in delta.tool_calls]
        self.state = [delta.extra for delta in deltas if delta.extra]
        self.usage = next((c.usage for c in reversed(self.chunks) if c.usage), None)
        self.decoder = decoder


def said(*pieces: bytes, **options: Any) -> Said:
    return Said(make_decoder(**options), *pieces)


both = pytest.mark.parametrize("frame", [sse, array], ids=["events", "array"])


@both
def test_text_thoughts_and_calls(frame: Any) -> None:
    found = said(
        frame(
            answer({"text": "Thinking.", "thought": True}),
            answer({"text": "Let me"}, {"text": " look."}),
            stop("STOP", {"functionCall": {"name": "look_up", "args": {"city": "Köln"}}}),
        )
    )
    assert (found.text, found.thinking) == ("Let me look.", "Thinking.")
    assert [(c.name, c.arguments) for c in found.calls] == [("look_up", '{"city":"Köln"}')]
    assert found.calls[0].call_id.startswith("function_call_")
    assert found.usage.total_tokens == 7
    assert found.error is None


@both
def test_every_cut_gives_the_same(frame: Any) -> None:
    body = frame(answer({"text": 'a "{[\\"👋'}), stop("STOP", {"text": "}]ü"}))
    for pieces in every_cut(body):
        found = said(*pieces)
        assert found.text == 'a "{[\\"👋}]ü'
        assert found.error is None
        assert found.usage is not None


def test_text_that_rides_on_a_call_is_not_spoken() -> None:
    found = said(sse(stop("STOP", {"text": "secret", "functionCall": {"name": "f"}})))
    assert found.text == ""
    assert found.calls[0].arguments == "{}"


def test_a_signature_leaves_with_its_call() -> None:
    found = said(
        sse(
            answer(
                {"functionCall": {"id": "c1", "name": "f"}, "thoughtSignature": "c2ln"},
                {"functionCall": {"id": "c2", "name": "g"}},
            ),
            stop(),
        )
    )
    assert [c.extra for c in found.calls] == [{"google": {"thought_signature": "c2ln"}}, None]


def test_a_signature_of_text_is_state_of_the_message() -> None:
    found = said(
        sse(answer({"text": "Hi"}), stop("STOP", {"text": "", "thoughtSignature": "c2ln"}))
    )
    parts = [{"text": "Hi"}, {"text": "", "thoughtSignature": "c2ln"}]
    assert found.state == [{"google": {"parts": parts, "thought_signature": "c2ln"}}]
    # Where no text was said there is no message to keep it.
    empty = {"text": "", "thoughtSignature": "x"}
    silent = said(sse(stop("STOP", empty, {"functionCall": {"name": "f"}})))
    assert not silent.state
    assert silent.calls[0].extra == {"google": {"parts": [empty]}}


def test_arguments_that_come_member_by_member() -> None:
    def part(*entries: dict[str, Any], **more: Any) -> dict[str, Any]:
        return answer({"functionCall": {"partialArgs": list(entries), **more}})

    found = said(
        sse(
            answer(
                {"functionCall": {"name": "f", "willContinue": True}, "thoughtSignature": "c2ln"}
            ),
            part(
                {"jsonPath": "$.a[0].b", "stringValue": "one", "willContinue": True},
                willContinue=True,
            ),
            part({"jsonPath": "$.a[0].b", "stringValue": " two"}, willContinue=True),
            part(
                {"jsonPath": "$.a[1].n", "numberValue": 3},
                {"jsonPath": "$['odd key']", "boolValue": False},
                {"jsonPath": "$.none", "nullValue": "NULL_VALUE"},
                willContinue=True,
            ),
            part({"jsonPath": "no path", "stringValue": "x"}, willContinue=True),
            part({"jsonPath": "$.a[99999].b", "stringValue": "x"}, willContinue=True),
            part({"jsonPath": "$.a.b", "stringValue": "x"}, willContinue=True),
            answer({"functionCall": {}}),
            stop("STOP", {"functionCall": {"name": "g", "args": {"a": 1}}}),
        )
    )
    first, second = found.calls
    assert json.loads(first.arguments) == {
        "a": [{"b": "one two"}, {"n": 3}],
        "odd key": False,
        "none": None,
    }
    assert first.extra == {"google": {"thought_signature": "c2ln"}}
    assert (second.name, second.arguments) == ("g", '{"a":1}')
    assert found.decoder.skipped == 3


def test_a_call_that_nobody_ended_is_handed_out_at_the_end() -> None:
    found = said(sse(answer({"functionCall": {"name": "f", "willContinue": True}}), stop()))
    assert [(c.name, c.arguments) for c in found.calls] == [("f", "{}")]


def test_thoughts_count_as_completion() -> None:
    counts = {
        "promptTokenCount": 5,
        "toolUsePromptTokenCount": 4,
        "candidatesTokenCount": 2,
        "thoughtsTokenCount": 30,
        "cachedContentTokenCount": 3,
        "totalTokenCount": 41,
    }
    usage = said(sse(answer({"text": "x"}, finishReason="STOP", usage=counts))).usage
    assert (usage.prompt_tokens, usage.completion_tokens, usage.total_tokens) == (9, 32, 41)
    assert (usage.reasoning_tokens, usage.cache_read_tokens) == (30, 3)


def test_the_last_usage_counts_and_is_told_once() -> None:
    early = {"promptTokenCount": 5, "totalTokenCount": 5}
    found = said(sse(answer({"text": "a"}, usage=early), stop("STOP", {"text": "b"})))
    assert [chunk.usage.total_tokens for chunk in found.chunks if chunk.usage] == [7]
    labelled = said(
        sse(stop("STOP", {"text": "b"}), {"usageMetadata": {"trafficType": "ON_DEMAND"}})
    )
    assert labelled.usage.total_tokens == 7


def test_older_models_say_the_reason_in_every_event() -> None:
    body = sse(answer({"text": "a"}, finishReason="STOP"), answer({"text": "b"}, finishReason=1))
    decoder = make_decoder()
    decoder.feed(body)
    assert decoder.state is not State.ANSWERED
    found = said(body)
    assert found.text == "ab"
    assert found.error is None


def test_a_whole_answer_is_known_to_be_whole() -> None:
    decoder = make_decoder()
    decoder.feed(sse(answer({"text": "a"}, usage=COUNTS)))
    assert decoder.state is not State.ANSWERED
    decoder.feed(sse(stop()))
    assert decoder.state is State.ANSWERED
    assert decoder.finish_reason == "STOP"


@pytest.mark.parametrize(
    "reason",
    ["SAFETY", "RECITATION", "PROHIBITED_CONTENT", "BLOCKLIST", "SPII", "IMAGE_SAFETY", 3],
)
def test_a_blocked_reply(reason: Any) -> None:
    found = said(sse(answer({"text": "So"}), stop(reason)))
    assert found.text == "So"
    assert isinstance(found.error, RefusalError)
    assert found.error.reason == ("SAFETY" if reason == 3 else reason)
    assert not found.error.retryable
    assert found.usage is not None


@pytest.mark.parametrize(
    "feedback", [{"blockReason": "SAFETY"}, {"blockReason": 1}, {"blockReasonMessage": "No."}]
)
def test_a_blocked_prompt(feedback: dict[str, Any]) -> None:
    found = said(sse({"promptFeedback": feedback, "usageMetadata": COUNTS}))
    assert isinstance(found.error, RefusalError)
    assert "prompt" in str(found.error)
    assert found.usage is not None


def test_ratings_alone_block_nothing() -> None:
    item = stop("STOP", {"text": "Hi"})
    item["promptFeedback"] = {"safetyRatings": [{"category": "X", "probability": "LOW"}]}
    assert said(sse(item)).error is None


def test_a_malformed_call() -> None:
    found = said(sse(stop("MALFORMED_FUNCTION_CALL", finishMessage="print(f(")))
    assert isinstance(found.error, WireError)
    assert found.error.retryable
    assert "print(f(" in str(found.error)


def test_an_unexpected_call_after_text_is_no_error() -> None:
    assert said(sse(stop("UNEXPECTED_TOOL_CALL", {"text": "Hi"}))).error is None
    assert isinstance(said(sse(stop("UNEXPECTED_TOOL_CALL"))).error, WireError)


@pytest.mark.parametrize(
    ("reason", "retryable"),
    [("STOP", True), ("OTHER", True), ("NO_IMAGE", True), ("MAX_TOKENS", False)],
)
def test_an_empty_reply(reason: str, retryable: bool) -> None:
    for body in (sse(stop(reason)), sse(stop(reason, {"text": "hm", "thought": True}))):
        found = said(body)
        assert isinstance(found.error, EmptyResponseError)
        assert found.error.retryable is retryable
        assert found.usage is not None
        assert (said(body, allow_empty=True).error is None) is (reason == "STOP")


@both
def test_a_stream_without_a_reason_to_end_is_an_error(frame: Any) -> None:
    body = frame(answer({"text": "Hi"}), stop("STOP", {"text": " you"}))
    for size in range(len(body) - 10):
        found = said(body[:size])
        assert isinstance(found.error, (APIConnectionError, WireError)), size
    assert isinstance(said(frame(answer({"text": "Hi"}))).error, APIConnectionError)


ERROR = {"error": {"code": 503, "message": "Overloaded", "status": "UNAVAILABLE"}}


@both
def test_an_error_inside_a_good_answer(frame: Any) -> None:
    found = said(frame(answer({"text": "Hi"}), ERROR))
    assert found.text == "Hi"
    assert isinstance(found.error, APIStatusError)
    assert found.error.status_code == 503
    assert "Overloaded" in str(found.error)


def test_an_error_as_bare_text_between_the_events() -> None:
    body = sse(answer({"text": "Hi"}, finishReason="STOP")) + json.dumps(ERROR, indent=2).encode()
    found = said(*byte_by_byte(body))
    assert isinstance(found.error, APIStatusError)
    assert found.error.status_code == 503


@pytest.mark.parametrize(
    ("name", "status"), [("RESOURCE_EXHAUSTED", 429), ("CANCELLED", 499), ("NEW_WORD", 500)]
)
def test_an_error_without_a_number_goes_by_its_name(name: str, status: int) -> None:
    found = said(sse({"error": {"status": name}}))
    assert isinstance(found.error, APIStatusError)
    assert found.error.status_code == status


def test_errors_before_the_stream() -> None:
    body = {
        "error": {
            "code": 429,
            "message": "Quota exceeded",
            "status": "RESOURCE_EXHAUSTED",
            "details": [
                {"@type": "type.googleapis.com/google.rpc.QuotaFailure"},
                {"@type": "type.googleapis.com/google.rpc.RetryInfo", "retryDelay": "34.5s"},
            ],
        }
    }
    for text in (json.dumps(body), json.dumps([body])):
        error = decode_error(429, {}, text.encode())
        assert isinstance(error, APIStatusError)
        assert (error.status_code, error.retry_after, error.retryable) == (429, 34.5, True)
    assert decode_error(429, {"retry-after": "2"}, json.dumps(body).encode()).retry_after == 2
    wrong_project = decode_error(
        403, {}, b'{"error":{"code":403,"message":"denied","status":"PERMISSION_DENIED"}}'
    )
    assert not wrong_project.retryable
    assert "Bad gateway" in str(decode_error(502, {}, b"<html>Bad gateway</html>"))
    assert isinstance(decode_error(200, {}, b"<html>Hello</html>"), WireError)
    assert "oops" in str(decode_error(500, {}, b'{"error":"oops"}'))


@pytest.mark.parametrize(
    "odd",
    [
        {"candidates": None},
        {"candidates": [{"content": None}]},
        {"candidates": [{"content": {"parts": [{"text": 5, "thought": "x"}]}}]},
        {"candidates": [{"content": {"parts": [7, None, {"functionCall": []}]}}]},
        {"candidates": "x", "usageMetadata": [1]},
        {"candidates": [{"finishReason": []}], "responseId": 3, "promptFeedback": "x"},
        {},
    ],
)
def test_odd_members_harm_nobody(odd: dict[str, Any]) -> None:
    found = said(sse(answer({"text": "Hi"}), odd, stop()))
    assert found.text == "Hi"
    assert found.error is None


def test_parts_that_are_not_for_the_listener() -> None:
    found = said(
        sse(
            answer(
                {"executableCode": {"code": "1+1"}},
                {"codeExecutionResult": {"output": "2"}},
                {"inlineData": {"mimeType": "image/png", "data": "eA=="}},
                {"toolCall": {}, "thoughtSignature": "x"},
                {"brandNew": 1},
            ),
            stop("STOP", {"text": "2"}),
        )
    )
    assert found.text == "2"
    assert found.decoder.skipped == 1


def test_an_emoji_in_two_halves() -> None:
    body = sse(answer({"text": "a\ud83d"}), stop("STOP", {"text": "\ude00b"}))
    assert said(body).text == "a😀b"


@given(st.binary(max_size=300) | st.text(alphabet='[]{}",:\\ax1 \n', max_size=80).map(str.encode))
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
paths = st.sampled_from(["$.a", "$.a[0]", "$.a[1].b", "$.a.b", "$['c']", "$", "a", "$.a[7]"])
parts = st.fixed_dictionaries(
    {},
    optional={
        "text": st.text(max_size=4) | json_values,
        "thought": st.booleans() | json_values,
        "thoughtSignature": st.text(max_size=4) | json_values,
        "functionCall": st.fixed_dictionaries(
            {},
            optional={
                "name": st.sampled_from(["f", ""]) | json_values,
                "args": json_values,
                "id": json_values,
                "willContinue": st.booleans() | json_values,
                "partialArgs": st.lists(
                    st.fixed_dictionaries(
                        {"jsonPath": paths},
                        optional={
                            "stringValue": st.text(max_size=3) | json_values,
                            "numberValue": st.integers(),
                            "willContinue": st.booleans(),
                        },
                    ),
                    max_size=3,
                )
                | json_values,
            },
        )
        | json_values,
    },
)
items = st.fixed_dictionaries(
    {},
    optional={
        "candidates": st.lists(
            st.fixed_dictionaries(
                {},
                optional={
                    "content": st.fixed_dictionaries({"parts": st.lists(parts, max_size=3)})
                    | json_values,
                    "finishReason": st.sampled_from(["STOP", "SAFETY", 2]) | json_values,
                },
            ),
            max_size=2,
        )
        | json_values,
        "usageMetadata": st.dictionaries(
            st.sampled_from(["totalTokenCount", "promptTokenCount", "x"]), json_values, max_size=3
        )
        | json_values,
        "error": json_values,
    },
)


@given(st.lists(items, max_size=6), st.booleans())
def test_any_events(given_items: list[dict[str, Any]], as_array: bool) -> None:
    body = (array if as_array else sse)(*given_items)
    one = said(body)
    many = said(*byte_by_byte(body))
    assert (one.text, one.thinking, len(one.calls), repr(one.error)) == (
        many.text,
        many.thinking,
        len(many.calls),
        repr(many.error),
    )


def test_many_small_objects_at_once_are_each_looked_at_once() -> None:
    """Copying what is left after each would take longer than the time that a test has."""
    body = b"[" + b"{}," * 300_000 + b"{}" + b" " * 300_000 + b"]"
    assert isinstance(said(body).error, APIConnectionError)


# -- what servers were seen to do ------------------------------------------------------------------


@pytest.mark.parametrize(
    ("reason", "entry"),
    [
        ("MAX_TOKENS", {"jsonPath": "$.a", "numberValue": 1}),
        ("STOP", {"jsonPath": "$.a", "stringValue": "Par", "willContinue": True}),
    ],
)
def test_a_call_that_was_cut_is_not_made(reason: str, entry: dict[str, Any]) -> None:
    begun = {"functionCall": {"name": "f", "willContinue": True}}
    more = {"functionCall": {"partialArgs": [entry], "willContinue": True}}
    found = said(sse(answer({"text": "x"}), answer(begun), answer(more), stop(reason)))
    assert (found.text, found.calls, found.error) == ("x", [], None)


def test_a_call_that_is_repeated_is_made_once() -> None:
    call = {"functionCall": {"id": "c1", "name": "f", "args": {"a": 1}}}
    found = said(sse(answer(call), stop("STOP", call)))
    assert [made.call_id for made in found.calls] == ["c1"]
    nameless = {"functionCall": {"name": "f", "args": {"a": 1}}}
    assert len(said(sse(answer(nameless), stop("STOP", nameless))).calls) == 2


def test_the_last_sources_are_kept() -> None:
    first, last = ({"groundingChunks": [{"web": {"uri": uri}}]} for uri in ("a", "b"))
    found = said(
        sse(
            answer({"text": "x"}, groundingMetadata=first),
            stop("STOP", groundingMetadata=last, citationMetadata={"citations": [1]}),
        )
    )
    assert found.state == [
        {"google": {"grounding_metadata": last, "citation_metadata": {"citations": [1]}}}
    ]
