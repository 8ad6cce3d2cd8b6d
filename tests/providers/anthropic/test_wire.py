"""Anthropic's stream: what each event leads to, and what goes wrong in it."""

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
from rejoinder.providers.answering.decoder import ReplyDecoder
from rejoinder.providers.anthropic.wire import decode_error, make_decoder
from rejoinder.testing.chunking import byte_by_byte, every_cut
from rejoinder.wire.eventstream import encode_message


def event(kind: str, **members: Any) -> bytes:
    return f"event: {kind}\ndata: {json.dumps({'type': kind, **members})}\n\n".encode()


def start(**usage: Any) -> bytes:
    return event("message_start", message={"id": "msg_1", "usage": usage or {"input_tokens": 3}})


def block(index: int, *deltas: dict[str, Any], **content: Any) -> bytes:
    return (
        event("content_block_start", index=index, content_block=content)
        + b"".join(event("content_block_delta", index=index, delta=delta) for delta in deltas)
        + event("content_block_stop", index=index)
    )


def text(*parts: str, index: int = 0) -> bytes:
    return block(index, *({"type": "text_delta", "text": t} for t in parts), type="text", text="")


def call(index: int, *parts: str, **content: Any) -> bytes:
    deltas = [{"type": "input_json_delta", "partial_json": part} for part in parts]
    content = {"id": f"toolu_{index}", "name": "look_up", "input": {}, **content}
    return block(index, *deltas, type="tool_use", **content)


def end(reason: str | None = "end_turn", **usage: Any) -> bytes:
    delta = {"stop_reason": reason, "stop_sequence": None}
    return event("message_delta", delta=delta, usage=usage or {"output_tokens": 5}) + event(
        "message_stop"
    )


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
        self.skipped = decoder.skipped


def said(*pieces: bytes, **options: Any) -> Said:
    return Said(make_decoder(**options), *pieces)


def test_text_and_calls() -> None:
    found = said(start() + text("Hi", " you") + call(1, '{"city":', '"Rome"}') + end("tool_use"))
    assert found.text == "Hi you"
    assert found.calls == [("toolu_1", "look_up", '{"city":"Rome"}')]
    assert found.error is None
    assert {chunk.id for chunk in found.chunks} == {"msg_1"}


def test_a_call_leaves_as_soon_as_its_block_ends() -> None:
    decoder = make_decoder()
    chunks = decoder.feed(start() + call(0, "{}"))
    assert chunks[-1].delta is not None
    assert chunks[-1].delta.tool_calls


@pytest.mark.parametrize("parts", [(), ("",), (" ",)])
def test_a_call_without_arguments_has_an_empty_object(parts: tuple[str, ...]) -> None:
    assert said(start() + call(0, *parts) + end("tool_use")).calls == [("toolu_0", "look_up", "{}")]


def test_arguments_may_come_with_the_start_of_the_block() -> None:
    found = said(start() + call(0, input={"a": 1}) + end("tool_use"))
    assert json.loads(found.calls[0][2]) == {"a": 1}


def test_thinking_is_shown_beside_and_kept_whole() -> None:
    body = start() + block(
        0,
        {"type": "thinking_delta", "thinking": "Let me "},
        {"type": "thinking_delta", "thinking": "see."},
        {"type": "signature_delta", "signature": "c2ln"},
        type="thinking",
        thinking="",
        signature="",
    )
    body += block(1, type="redacted_thinking", data="cmVk") + text("Ok", index=2) + end()
    found = said(body)
    assert (found.text, found.thinking) == ("Ok", "Let me see.")
    assert found.state == [
        {
            "anthropic": {
                "thinking": [{"type": "thinking", "thinking": "Let me see.", "signature": "c2ln"}]
            }
        },
        {"anthropic": {"thinking": [{"type": "redacted_thinking", "data": "cmVk"}]}},
    ]


def test_thinking_without_a_signature_is_not_kept() -> None:
    body = start() + block(
        0, {"type": "thinking_delta", "thinking": "hm"}, type="thinking", thinking=""
    )
    found = said(body + text("Ok", index=1) + end())
    assert found.thinking == "hm"
    assert not found.state


@pytest.mark.parametrize("cut", range(1, 40))
def test_thoughts_between_tags_are_not_spoken(cut: int) -> None:
    whole = "<thinking>one </thin two</thinking>Hi <thinking>"
    found = said(start() + text(whole[:cut], whole[cut:]) + end())
    assert found.text == "Hi <thinking>"
    assert found.thinking == "one </thin two"


@pytest.mark.parametrize("words", ["<thin", "<", "a <thinking>b</thinking>", "<thinkin g>"])
def test_what_only_looks_like_a_tag_is_spoken(words: str) -> None:
    found = said(start() + text(*words) + end())
    assert found.text == words
    assert not found.thinking


def test_tools_of_the_provider_are_passed_over() -> None:
    body = start() + block(
        0,
        {"type": "input_json_delta", "partial_json": '{"query":"x"}'},
        type="server_tool_use",
        id="s",
        name="web_search",
        input={},
    )
    body += block(1, type="web_search_tool_result", tool_use_id="s", content=[])
    body += block(2, {"type": "citations_delta", "citation": {}}, type="text", text="")
    found = said(body + text("Found.", index=3) + end())
    assert found.text == "Found."
    assert found.calls == []
    assert found.skipped == 0


def test_what_is_unknown_is_skipped_and_counted() -> None:
    body = start() + event("ping") + event("surprise", a=1)
    body += block(0, {"type": "new_delta", "x": 1}, type="new_block") + text("Hi", index=1) + end()
    found = said(body)
    assert found.text == "Hi"
    assert found.skipped == 3


def test_the_name_of_an_event_says_what_its_data_does_not() -> None:
    body = start() + text("Hi") + end()
    assert said(body.replace(b'"type": "message_stop"', b"")).error is None


def test_usage_is_cumulative_and_the_last_count_stands() -> None:
    begin = start(
        input_tokens=10,
        cache_creation_input_tokens=5,
        cache_read_input_tokens=7,
        output_tokens=1,
    )
    middle = event("message_delta", delta={"stop_reason": None}, usage={"output_tokens": 20})
    usage = said(begin + text("Hi") + middle + end(output_tokens=30)).usage
    assert usage.prompt_tokens == 22
    assert usage.completion_tokens == 30
    assert usage.total_tokens == 52
    assert (usage.cache_creation_tokens, usage.cache_read_tokens) == (5, 7)
    assert usage.prompt_cached_tokens == 7


@pytest.mark.parametrize("absent", [0, None])
def test_usage_that_only_one_event_knows(absent: int | None) -> None:
    late = said(start(input_tokens=absent) + text("Hi") + end(input_tokens=9, output_tokens=2))
    early = said(start(input_tokens=9) + text("Hi") + end(input_tokens=absent, output_tokens=2))
    assert late.usage.prompt_tokens == early.usage.prompt_tokens == 9


def test_thinking_tokens_are_part_of_the_completion() -> None:
    usage = said(
        start() + text("Hi") + end(output_tokens=9, output_tokens_details={"thinking_tokens": 4})
    ).usage
    assert (usage.completion_tokens, usage.reasoning_tokens) == (9, 4)


@pytest.mark.parametrize(
    ("kind", "status", "retryable"),
    [
        ("overloaded_error", 529, True),
        ("rate_limit_error", 429, True),
        ("api_error", 500, True),
        ("timeout_error", 504, True),
        ("invalid_request_error", 400, False),
        ("request_too_large", 413, False),
        ("permission_error", 403, False),
        ("brand_new_error", 500, True),
    ],
)
def test_an_error_inside_the_stream_has_the_status_of_its_type(
    kind: str, status: int, retryable: bool
) -> None:
    found = said(start() + text("Hi") + event("error", error={"type": kind, "message": "No more."}))
    assert found.text == "Hi"
    assert isinstance(found.error, APIStatusError)
    assert (found.error.status_code, found.error.retryable) == (status, retryable)
    assert "No more." in str(found.error)


def test_a_stream_without_its_end_mark_is_an_error() -> None:
    whole = start() + text("Hi") + call(1, "{}") + end("tool_use")
    for size in range(len(whole) - 2):
        found = said(whole[:size])
        assert isinstance(found.error, (APIConnectionError, WireError)), size
    # The empty line after the last event may be missing.
    assert said(whole[:-1]).error is None


def test_what_follows_the_end_is_not_read() -> None:
    found = said(start() + text("Hi") + end() + start() + text(" again") + b"data: {broken\n\n")
    assert found.text == "Hi"
    assert found.error is None


def test_a_refusal() -> None:
    delta = {"stop_reason": "refusal", "stop_details": {"explanation": "Not that."}}
    body = start() + text("I") + event("message_delta", delta=delta, usage={"output_tokens": 1})
    found = said(body + event("message_stop"))
    assert isinstance(found.error, RefusalError)
    assert "Not that." in str(found.error)
    assert found.text == "I"
    assert found.usage is not None


def test_an_empty_reply() -> None:
    found = said(start() + end())
    assert isinstance(found.error, EmptyResponseError)
    assert found.error.retryable
    assert found.usage is not None
    assert said(start() + end(), allow_empty=True).error is None


def test_a_call_that_the_limit_cut_is_not_made() -> None:
    # Half of a number is another number.
    found = said(start() + text("Hi") + call(1, '{"amount": 1') + end("max_tokens"))
    assert found.calls == []
    assert found.error is None
    alone = said(start() + call(0, '{"amount": 1') + end("max_tokens"))
    assert isinstance(alone.error, EmptyResponseError)
    assert not alone.error.retryable


def test_arguments_that_are_no_json_are_handed_out_as_they_are() -> None:
    found = said(start() + call(0, "{broken") + end("tool_use"))
    assert found.calls == [("toolu_0", "look_up", "{broken")]


def test_an_emoji_in_two_halves() -> None:
    body = start() + text("a\ud83d", "\ude00b") + end()
    assert b"\\ud83d" in body
    assert said(*byte_by_byte(body)).text == "a😀b"
    assert said(start() + text("a\ud83d") + end()).text == "a\ufffd"


@pytest.mark.parametrize(
    "broken",
    [
        b"data: {\n\n",
        b"data: []\n\n",
        b"data: 7\n\n",
        b'data: {"type":"content_block_delta","index":0,"delta":{"text":5}\n\n',
    ],
)
def test_an_event_that_cannot_be_read(broken: bytes) -> None:
    found = said(start() + text("Hi") + broken + end())
    assert found.text == "Hi"
    assert isinstance(found.error, WireError)


@pytest.mark.parametrize(
    "odd",
    [
        {"type": "content_block_delta", "index": "0", "delta": {"type": "text_delta", "text": 5}},
        {"type": "content_block_delta", "index": 0, "delta": None},
        {"type": "content_block_start", "index": 3, "content_block": {"type": ["x"]}},
        {"type": "content_block_start", "index": 3, "content_block": "text"},
        {"type": "message_delta", "delta": [], "usage": "none"},
        {"type": 5},
        {"type": "content_block_stop", "index": 77},
        {},
    ],
)
def test_odd_members_harm_nobody(odd: dict[str, Any]) -> None:
    body = start() + text("Hi") + f"data: {json.dumps(odd)}\n\n".encode() + end()
    found = said(body)
    assert found.text == "Hi"
    assert found.error is None


def test_every_cut_gives_the_same() -> None:
    body = start() + text("Grüße 👋") + call(1, '{"a":', '"ü"}') + end("tool_use")
    expected = said(body)
    for pieces in every_cut(body):
        found = said(*pieces)
        assert (found.text, found.calls, found.usage, found.error) == (
            expected.text,
            expected.calls,
            expected.usage,
            None,
        )


def test_frames_of_bedrock() -> None:
    body = start() + text("Hi") + end()
    events = [line[6:] for line in body.split(b"\n") if line.startswith(b"data: ")]
    headers = {":message-type": "event", ":event-type": "chunk"}
    frames = [
        encode_message(
            headers, json.dumps({"bytes": base64.b64encode(e).decode(), "p": "ab"}).encode()
        )
        for e in events
    ]
    found = said(*byte_by_byte(b"".join(frames)), framing="eventstream")
    assert found.text == "Hi"
    assert found.error is None
    failed = said(
        frames[0],
        encode_message(
            {":message-type": "exception", ":exception-type": "throttlingException"},
            b'{"message":"slow"}',
        ),
        framing="eventstream",
    )
    assert isinstance(failed.error, APIStatusError)
    assert failed.error.status_code == 429
    odd = said(encode_message(headers, b'{"bytes":"!"}'), framing="eventstream")
    assert isinstance(odd.error, WireError)
    assert isinstance(said(b"", framing="eventstream").error, APIConnectionError)


def test_a_whole_message_instead_of_a_stream() -> None:
    message = {
        "type": "message",
        "id": "msg_9",
        "content": [
            {"type": "thinking", "thinking": "hm", "signature": "c2ln"},
            {"type": "text", "text": "Hi"},
            {"type": "tool_use", "id": "t", "name": "look_up", "input": {"a": 1}},
        ],
        "stop_reason": "tool_use",
        "usage": {"input_tokens": 1, "output_tokens": 2},
    }
    found = said(*byte_by_byte(json.dumps(message, indent=1).encode()))
    assert (found.text, found.thinking) == ("Hi", "hm")
    assert found.calls == [("t", "look_up", '{"a":1}')]
    assert found.usage.total_tokens == 3
    assert found.state


@pytest.mark.parametrize(
    ("body", "status"),
    [
        (b'{"type":"error","error":{"type":"overloaded_error","message":"Busy"}}', 529),
        (b'{"error":{"type":"authentication_error","message":"Busy"}}', 401),
        (b'{"error":"Busy"}', 500),
    ],
)
def test_an_error_object_with_status_200(body: bytes, status: int) -> None:
    for found in (said(body).error, decode_error(200, {}, body)):
        assert isinstance(found, APIStatusError)
        assert found.status_code == status
        assert "Busy" in str(found)


@pytest.mark.parametrize("body", [b"<html><title>Sorry</title></html>", b"Sorry", b'{"a":"Sorry"}'])
def test_something_else_with_status_200(body: bytes) -> None:
    for found in (said(body).error, decode_error(200, {}, body)):
        assert isinstance(found, WireError)
        assert "Sorry" in str(found)


def test_errors_before_the_stream() -> None:
    error = decode_error(
        429,
        {"request-id": "req_1", "retry-after": "3"},
        b'{"type":"error","error":{"type":"rate_limit_error","message":"Slow down"}}',
    )
    assert isinstance(error, APIStatusError)
    assert (error.status_code, error.request_id, error.retry_after) == (429, "req_1", 3.0)
    assert error.retryable
    assert "Slow down" in str(error)
    told = decode_error(529, {"x-should-retry": "false"}, b"{}")
    assert not told.retryable
    page = decode_error(502, {}, b"<html><style>b{}</style><body>Bad <b>gateway</b></body>")
    assert "Bad gateway" in str(page)
    bedrock = decode_error(
        403, {"x-amzn-errortype": "ExpiredTokenException:http://x"}, b'{"message":"old"}'
    )
    assert "ExpiredTokenException" in str(bedrock)
    vertex = decode_error(
        403, {}, b'[{"error":{"code":403,"message":"no","status":"PERMISSION_DENIED"}}]'
    )
    assert "PERMISSION_DENIED" in str(vertex)


@given(st.binary(max_size=300) | st.text(max_size=200).map(str.encode))
def test_any_bytes(data: bytes) -> None:
    for framing in ("sse", "eventstream"):
        assert said(data, framing=framing).error is not None
    decode_error(500, {}, data)
    decode_error(200, {}, data)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3)
    ),
    max_leaves=8,
)
kinds = st.sampled_from(
    [
        "message_start",
        "content_block_start",
        "content_block_delta",
        "content_block_stop",
        "message_delta",
        "message_stop",
        "error",
        "ping",
        "x",
    ]
)
events = st.fixed_dictionaries(
    {"type": kinds | json_values},
    optional={
        "index": st.integers(-2, 4) | json_values,
        "delta": st.fixed_dictionaries(
            {}, optional=dict.fromkeys(("type", "text", "thinking", "partial_json"), json_values)
        )
        | json_values,
        "content_block": st.fixed_dictionaries(
            {"type": st.sampled_from(["text", "tool_use", "thinking", "redacted_thinking"])},
            optional=dict.fromkeys(
                ("id", "name", "input", "text", "thinking", "data"), json_values
            ),
        )
        | json_values,
        "message": st.fixed_dictionaries({}, optional={"id": json_values, "usage": json_values})
        | json_values,
        "usage": json_values,
        "error": json_values,
    },
)


@given(st.lists(events, max_size=8))
def test_any_events(items: list[dict[str, Any]]) -> None:
    body = b"".join(b"data: " + json.dumps(item).encode() + b"\n\n" for item in items)
    one = said(body)
    many = said(*byte_by_byte(body))
    assert (one.text, one.thinking, one.calls == [] or len(one.calls), repr(one.error)) == (
        many.text,
        many.thinking,
        many.calls == [] or len(many.calls),
        repr(many.error),
    )


def test_many_small_pieces_count_for_what_they_take() -> None:
    begin = event(
        "content_block_start",
        index=0,
        content_block={"type": "tool_use", "id": "t", "name": "f", "input": {}},
    )
    piece = event(
        "content_block_delta", index=0, delta={"type": "input_json_delta", "partial_json": "xyz"}
    )
    decoder = make_decoder()
    decoder.feed(start() + begin)
    fed = 0
    while decoder.failure is None and fed < 100:
        decoder.feed(piece * 5000)
        fed += 1
    assert isinstance(decoder.failure, WireError)


# -- what servers were seen to do ------------------------------------------------------------------


def thought(index: int, words: str) -> bytes:
    return block(
        index,
        {"type": "thinking_delta", "thinking": words},
        {"type": "signature_delta", "signature": f"s{words}"},
        type="thinking",
        thinking="",
    )


def kept(words: str) -> dict[str, str]:
    return {"type": "thinking", "thinking": words, "signature": f"s{words}"}


def test_thinking_goes_with_what_it_led_to() -> None:
    found = said(
        start()
        + thought(0, "A")
        + call(1, "{}")
        + thought(2, "B")
        + text("Hi", index=3)
        + thought(4, "C")
        + call(5, "{}")
        + end("tool_use")
    )
    carried = [
        (chunk.delta.content or (chunk.delta.tool_calls and chunk.delta.tool_calls[0].call_id), found_in)
        for chunk in found.chunks
        if chunk.delta is not None and not chunk.delta.thinking
        for found_in in [chunk.delta.extra or (chunk.delta.tool_calls and chunk.delta.tool_calls[0].extra)]
    ]  # fmt: skip
    assert carried == [
        ("toolu_1", {"anthropic": {"thinking": [kept("A")]}}),
        ([], {"anthropic": {"thinking": [kept("B")]}}),
        ("Hi", []),
        ("toolu_5", {"anthropic": {"thinking": [kept("C")]}}),
    ]


def test_thinking_behind_the_calls_led_to_nothing() -> None:
    """Before the message it would stand where it was not, and at the end of a turn it is refused."""
    found = said(start() + thought(0, "A") + call(1, "{}") + thought(2, "B") + end("tool_use"))
    assert found.thinking == "AB"
    assert found.state == []
    alone = said(start() + thought(0, "A") + text("Hi", index=1) + thought(2, "B") + end())
    assert len(alone.state) == 3


def test_what_the_tools_of_the_provider_did_is_kept_in_its_place() -> None:
    used = {"type": "server_tool_use", "id": "s", "name": "web_search"}
    result = {"type": "web_search_tool_result", "tool_use_id": "s", "content": [{"url": "u"}]}
    found = said(
        start()
        + thought(0, "A")
        + block(1, {"type": "input_json_delta", "partial_json": '{"query":"x"}'}, input={}, **used)
        + block(2, **result)
        + text("Found.", index=3)
        + end()
    )
    state = [entry["anthropic"]["thinking"][0] for entry in found.state]
    assert state == [kept("A"), {**used, "input": {"query": "x"}}, result]
    assert found.calls == []


def test_compaction_and_citations_are_kept() -> None:
    cited = {"type": "web_search_result_location", "url": "u", "cited_text": "x"}
    found = said(
        start()
        + block(0, {"type": "compaction_delta", "content": "So far."}, type="compaction", content=None)
        + block(1, {"type": "text_delta", "text": "x"}, {"type": "citations_delta", "citation": cited}, type="text", text="")
        + end()
    )  # fmt: skip
    assert found.state == [
        {"anthropic": {"thinking": [{"type": "compaction", "content": "So far."}]}},
        {"anthropic": {"citations": [cited]}},
        {"anthropic": {"thinking": [{"type": "text", "text": "x", "citations": [cited]}]}},
    ]


@pytest.mark.parametrize("reason", ["max_tokens", "model_context_window_exceeded"])
@pytest.mark.parametrize("parts", [(), ("",), ('{"a',)], ids=repr)
def test_a_call_that_was_cut_before_its_arguments_is_not_made(
    reason: str, parts: tuple[str, ...]
) -> None:
    found = said(start() + text("Hi") + call(1, "{}") + call(2, *parts) + end(reason))
    assert [made[0] for made in found.calls] == ["toolu_1"]
    whole = {"type": "message", "content": [{"type": "text", "text": "Hi"}, {"type": "tool_use", "id": "t", "name": "f", "input": {}}], "stop_reason": reason}  # fmt: skip
    assert said(json.dumps(whole).encode()).calls == []


@pytest.mark.parametrize(
    "parts",
    [("{}", '{"a"', ":1}"), ('{"a', '{"a":', '{"a":1}'), ('{"a":1}', '{"a":1}')],
    ids=repr,
)
def test_placeholders_snapshots_and_repeats(parts: tuple[str, ...]) -> None:
    assert said(start() + call(0, *parts) + end("tool_use")).calls[0][2] == '{"a":1}'


def test_an_error_that_does_not_call_itself_one() -> None:
    for data in (
        '{"message": "No more.", "code": 429}',
        '{"type": "error", "message": "No more."}',
    ):
        found = said(start() + text("Hi") + f"event: error\ndata: {data}\n\n".encode())
        assert isinstance(found.error, APIStatusError)
        assert "No more." in str(found.error)
