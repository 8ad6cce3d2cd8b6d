"""What the engine says, with the calls that small models write as text."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rejoinder._core.chunks import CompletionUsage
from rejoinder.errors import APIError, APIStatusError, EmptyResponseError
from rejoinder.providers.answering.decoder import ReplyDecoder, State
from rejoinder.providers.local.tools import Call, ToolSpec
from rejoinder.providers.local.wire import ContextOverflowError, LocalReader, decode_error
from rejoinder.wire.sse import SSEDecoder

NOW = ToolSpec("now", "The time.", {"type": "object", "properties": {"zone": {"type": "string"}}})
CALL = '{"name": "now", "arguments": {"zone": "UTC"}}'


def stream(*pieces: str, finish: str = "stop", usage: tuple[int, int] | None = (20, 5)) -> bytes:
    events: list[dict[str, Any]] = [
        {
            "choices": [{"index": 0, "delta": {"role": "assistant", "content": None}}],
            "prompt_progress": {"total": 20, "cache": 0, "processed": 20, "time_ms": 1},
        }
    ]
    events += [{"choices": [{"index": 0, "delta": {"content": piece}}]} for piece in pieces]
    events.append({"choices": [{"index": 0, "delta": {}, "finish_reason": finish}]})
    if usage is not None:
        prompt, completion = usage
        events.append(
            {
                "choices": [],
                "usage": {
                    "prompt_tokens": prompt,
                    "completion_tokens": completion,
                    "total_tokens": prompt + completion,
                },
            }
        )
    text = "".join(f"data: {json.dumps({'id': 'c', **event})}\n\n" for event in events)
    return text.encode() + b"data: [DONE]\n\n"


def make_decoder(reader: LocalReader) -> ReplyDecoder:
    return ReplyDecoder(SSEDecoder(), reader, prefix="c")


def decode(data: bytes, sizes: list[int] | None = None, **options: Any) -> tuple[list[Any], Any]:
    """Texts (joined), calls and usages; and the reader or the error."""
    reader = LocalReader(**options)
    decoder = make_decoder(reader)
    chunks = []
    at = number = 0
    try:
        while at < len(data):
            size = (sizes or [len(data)])[number % len(sizes or [1])]
            chunks += decoder.feed(data[at : at + size])
            at, number = at + size, number + 1
        chunks += decoder.close()
        if decoder.failure is not None:
            raise decoder.failure
        assert decoder.state is State.ENDED
        end: Any = reader
    except APIError as error:
        end = error
    out: list[Any] = []
    for chunk in chunks:
        if chunk.usage is not None:
            out.append(chunk.usage.total_tokens)
        elif chunk.delta is not None and chunk.delta.content:
            if out and isinstance(out[-1], str):
                out[-1] += chunk.delta.content
            else:
                out.append(chunk.delta.content)
        elif chunk.delta is not None:
            out += [(call.name, call.arguments) for call in chunk.delta.tool_calls]
    return out, end


def test_text() -> None:
    out, reader = decode(stream("Hel", "lo"))
    assert out == ["Hello", 25]
    assert reader.again is None


def test_a_call_in_the_text_is_a_call_and_comes_before_the_usage() -> None:
    out, reader = decode(stream(*CALL), mode="auto", specs=[NOW])
    assert out == [("now", '{"zone":"UTC"}'), 25]
    assert reader.again is None


def native(name: str, arguments: str) -> bytes:
    call = {"index": 0, "id": "x", "function": {"name": name, "arguments": arguments}}
    event = {"id": "c", "choices": [{"index": 0, "delta": {"tool_calls": [call]}}]}
    return f"data: {json.dumps(event)}\n\n".encode() + stream(finish="tool_calls")


@pytest.mark.parametrize("arguments", ['{"zone": "UTC", "mood": 1}', ' {"zone":"UTC"}'])
def test_a_call_that_the_engine_recognised_fits_too(arguments: str) -> None:
    out, reader = decode(native("now", arguments), mode="auto", specs=[NOW])
    assert out == [("now", '{"zone":"UTC"}'), 25]
    assert reader.again is None


@pytest.mark.parametrize(
    ("name", "arguments", "mode", "tool"),
    [
        ("now", '{"zone": 5}', "forced", "now"),
        ("now", '{"zone": "U', "forced", "now"),
        ("then", "{}", "plain", None),
    ],
)
def test_a_call_that_the_engine_recognised_and_nobody_declared(
    name: str, arguments: str, mode: str, tool: str | None
) -> None:
    out, reader = decode(native(name, arguments), mode="auto", specs=[NOW])
    assert out == []
    assert (reader.again.mode, reader.again.tool) == (mode, tool)


def test_json_that_was_asked_for_may_look_like_a_call() -> None:
    person = '{"name": "Ada", "input": "x"}'
    for mode in ("auto", "plain"):
        out, _ = decode(stream(*person), mode=mode, specs=[NOW], lookalikes=False)
        assert out == [person, 25]
    out, _ = decode(stream(*CALL), mode="auto", specs=[NOW], lookalikes=False)
    assert out == [("now", '{"zone":"UTC"}'), 25]


def test_reading_the_prompt_is_a_sign_of_life() -> None:
    decoder = make_decoder(LocalReader())
    decoder.feed(stream()[:40])
    before = decoder.output_count
    decoder.feed(stream()[40:250])
    assert decoder.output_count > before


def test_a_forced_call_shows_no_text() -> None:
    out, _ = decode(stream("I ", *CALL), mode="forced", specs=[NOW])
    assert out == [("now", '{"zone":"UTC"}'), 25]


def test_a_forced_call_that_was_cut_is_an_error() -> None:
    out, error = decode(stream(CALL[:20], finish="length"), mode="forced", specs=[NOW])
    assert out == []
    assert isinstance(error, EmptyResponseError)
    assert not error.retryable


def test_nothing_but_a_bad_call_asks_again() -> None:
    out, reader = decode(stream('{"name": "joke", "arguments": {}}'), mode="auto", specs=[NOW])
    assert out == []
    assert (reader.again.mode, reader.again.tool) == ("plain", None)
    assert reader.again.usage.total_tokens == 25


def test_a_misfit_asks_for_that_tool_under_its_schema() -> None:
    _, reader = decode(
        stream('{"name": "now", "arguments": {"zone": 5}}'), mode="auto", specs=[NOW]
    )
    assert (reader.again.mode, reader.again.tool) == ("forced", "now")


def test_text_and_a_bad_call_is_an_answer() -> None:
    out, reader = decode(
        stream("Well. ", '{"name": "joke", "arguments": {}}'), mode="auto", specs=[NOW]
    )
    assert out == ["Well.", 25]
    assert reader.again is None


def test_what_was_spent_before_is_counted() -> None:
    spent = CompletionUsage(completion_tokens=3, prompt_tokens=7, total_tokens=10)
    out, _ = decode(stream("Hi"), spent=spent)
    assert out == ["Hi", 35]


def test_a_call_where_none_is_allowed() -> None:
    for allow_empty in (False, True):
        out, reader = decode(stream(CALL), mode="plain", specs=[NOW], allow_empty=allow_empty)
        assert out == []
        assert (reader.again.mode, reader.again.usage.total_tokens) == ("words", 25)
    # Words cannot be asked for where the answer is to be JSON.
    out, error = decode(stream(CALL), mode="plain", specs=[NOW], lookalikes=False)
    assert isinstance(error, EmptyResponseError)
    out, _ = decode(stream("It is five. ", CALL), mode="plain", specs=[NOW])
    assert out == ["It is five.", 25]


def test_a_call_that_is_answered_already_asks_again() -> None:
    _, reader = decode(
        stream(CALL), mode="auto", specs=[NOW], answered=[Call("now", '{"zone": "UTC"}')]
    )
    assert reader.again.mode == "plain"


def test_a_model_that_does_not_stop_after_its_call_is_cut_off() -> None:
    data = stream(CALL, *(["blah "] * 100))
    decoder = make_decoder(LocalReader(mode="auto", specs=[NOW], single=True))
    chunks = decoder.feed(data[: len(data) // 2])
    assert decoder.state is State.ENDED
    chunks += decoder.close()
    calls = [call for chunk in chunks if chunk.delta for call in chunk.delta.tool_calls]
    assert [call.name for call in calls] == ["now"]


@pytest.mark.parametrize(
    ("status", "body", "expected"),
    [
        (500, b'{"error":{"code":500,"message":"no","type":"server_error"}}', False),
        (503, b'{"error":{"code":503,"message":"Loading model"}}', True),
        (400, b"not json", False),
    ],
)
def test_only_loading_is_retried(status: int, body: bytes, expected: bool) -> None:
    error = decode_error(status, {}, body)
    assert isinstance(error, APIStatusError)
    assert error.retryable is expected


def test_a_conversation_that_does_not_fit() -> None:
    error = decode_error(
        400,
        {},
        b'{"error":{"code":400,"message":"request (9031 tokens) exceeds the available context size",'
        b'"type":"exceed_context_size_error","n_prompt_tokens":9031,"n_ctx":4096}}',
    )
    assert isinstance(error, ContextOverflowError)
    assert (error.prompt_tokens, error.context) == (9031, 4096)
    assert "9031" in str(error)


MODES = st.sampled_from(["plain", "auto", "forced"])


@given(
    st.lists(st.sampled_from([CALL, "Hello ", "```json\n", "{", "}", '"', "é"]), max_size=8),
    st.lists(st.integers(1, 60), min_size=1),
    MODES,
    st.booleans(),
)
def test_the_way_it_is_cut_changes_nothing(
    pieces: list[str], sizes: list[int], mode: str, single: bool
) -> None:
    data = stream(*pieces)
    whole, end = decode(data, mode=mode, specs=[NOW], single=single)
    cut, cut_end = decode(data, sizes, mode=mode, specs=[NOW], single=single)
    assert cut == whole
    assert type(cut_end) is type(end)


@given(st.binary(max_size=300), MODES)
def test_garbage_gives_our_errors_only(data: bytes, mode: str) -> None:
    out, end = decode(stream("Hi")[:150] + data, mode=mode, specs=[NOW])
    assert isinstance(end, (APIError, LocalReader))
    assert isinstance(out, list)


def test_a_stream_that_is_cut_is_told() -> None:
    data = stream("Hello")
    out, error = decode(data[: data.index(b"finish_reason") - 40])
    assert out == ["Hello"]
    assert isinstance(error, APIError)
