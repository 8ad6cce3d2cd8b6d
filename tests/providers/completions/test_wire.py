"""The dialect of chat completions as servers really send it: every oddity that was seen."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rejoinder._core.families import find_family
from rejoinder.errors import (
    APIConnectionError,
    APIError,
    APIStatusError,
    EmptyResponseError,
    RefusalError,
    WireError,
)
from rejoinder.providers.completions.errors import decode_error, error_from
from rejoinder.providers.completions.wire import make_decoder
from rejoinder.testing.chunking import byte_by_byte
from rejoinder.testing.leaks import measure_memory

STOP = {"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]}
CALLED = {"choices": [{"index": 0, "delta": {}, "finish_reason": "tool_calls"}]}


class Heard:
    def __init__(self) -> None:
        self.text = ""
        self.thinking = ""
        self.calls: list[tuple[str, str, str]] = []
        self.usage: Any = None
        self.extra: list[Any] = []
        self.ids: list[str] = []
        self.error: APIError | None = None
        self.finish: str | None = None

    def take(self, chunks: list[Any]) -> None:
        for chunk in chunks:
            self.ids.append(chunk.id)
            if chunk.delta is not None:
                self.text += chunk.delta.content or ""
                self.thinking += chunk.delta.thinking or ""
                self.calls += [(c.call_id, c.name, c.arguments) for c in chunk.delta.tool_calls]
                self.extra += [c.extra for c in chunk.delta.tool_calls if c.extra]
                if chunk.delta.extra:
                    self.extra.append(chunk.delta.extra)
            if chunk.usage is not None:
                self.usage = chunk.usage


def body(*events: Any, done: bool = True) -> bytes:
    lines = [e if isinstance(e, bytes) else b"data: " + json.dumps(e).encode() for e in events]
    return b"".join(line + b"\n\n" for line in [*lines, *([b"data: [DONE]"] if done else [])])


def hear(data: bytes, **options: Any) -> Heard:
    """Read `data`, whole and byte by byte, which must be the same."""
    found: list[Heard] = []
    for pieces in ([data], byte_by_byte(data)):
        decoder = make_decoder(**options)
        heard = Heard()
        try:
            for piece in pieces:
                heard.take(decoder.feed(piece))
            heard.take(decoder.close())
            if decoder.failure is not None:
                raise decoder.failure
        except APIError as error:
            heard.error = error
        heard.finish = decoder.finish_reason
        found.append(heard)
    whole, cut = found
    assert whole.text == cut.text
    assert [call[1:] for call in whole.calls] == [call[1:] for call in cut.calls]
    assert repr(whole.error) == repr(cut.error)
    return whole


def said(delta: Any, finish: str | None = None, **more: Any) -> dict[str, Any]:
    return {"id": "c", "choices": [{"index": 0, "delta": delta, "finish_reason": finish, **more}]}


def part(index: int | None = None, **call: Any) -> dict[str, Any]:
    """A delta with one fragment of a tool call."""
    function = {k: call.pop(k) for k in ("name", "arguments") if k in call}
    entry = {"function": function, **call}
    if index is not None:
        entry["index"] = index
    return said({"tool_calls": [entry]})


# -- text -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "event",
    [
        said(None),
        said({}),
        {"choices": [{"index": 0, "finish_reason": None}]},
        said({"content": None}),
        said({"content": ""}),
        said({"role": "assistant"}),
        {"choices": []},
        {"choices": None},
        {"id": "", "choices": [], "prompt_filter_results": [{"prompt_index": 0}]},
        {"object": "ping"},
        {"choices": [None, 7, "x"]},
        {"choices": [{"index": 0, "delta": 5}]},
        [1, 2],
        7,
        b": OPENROUTER PROCESSING",
        b"event: ping\ndata: ",
        b"id: 7",
        b"data:    ",
    ],
    ids=repr,
)
def test_what_says_nothing_is_passed_over(event: Any) -> None:
    heard = hear(body(said({"content": "a"}), event, said({"content": "b"}), STOP))
    assert (heard.text, heard.error, heard.finish) == ("ab", None, "stop")


@pytest.mark.parametrize(
    ("delta", "text", "thinking"),
    [
        ({"content": [{"type": "text", "text": "x"}, {"type": "text", "text": "y"}]}, "xy", ""),
        (
            {
                "content": [
                    {"type": "thinking", "thinking": [{"type": "text", "text": "hm"}]},
                    {"type": "text", "text": "x"},
                ]
            },
            "x",
            "hm",
        ),
        ({"content": {"type": "text", "text": "x"}}, "x", ""),
        ({"content": ["x", "y"]}, "xy", ""),
        ({"content": 7}, "7", ""),
        ("x", "x", ""),
        ({"content": "x", "reasoning_content": "hm"}, "x", "hm"),
        ({"content": "x", "reasoning": "hm"}, "x", "hm"),
        ({"content": "x", "reasoning": "hm", "reasoning_content": "hm"}, "x", "hm"),
        ({"content": "x", "reasoning_content": [{"type": "text", "text": "hm"}]}, "x", "hm"),
        (
            {"content": "x", "reasoning_content": ["h", {"type": "thinking", "thinking": "m"}]},
            "x",
            "hm",
        ),
        ({"content": "x", "reasoning_content": {"type": "text", "text": "hm"}}, "x", "hm"),
        ({"content": "x", "reasoning": [{"type": "reasoning_text", "text": "hm"}]}, "x", "hm"),
        (
            {"content": "x", "reasoning": {"type": "reasoning", "summary": [{"text": "hm"}]}},
            "x",
            "hm",
        ),
        ({"content": "x", "reasoning_content": [], "reasoning": [None, 7, []]}, "x", "7"),
        ({"content": "x", "reasoning_details": [{"type": "t", "text": "hm"}]}, "x", "hm"),
        ({"content": "x", "reasoning_details": [{"summary": "hm"}, None]}, "x", "hm"),
        ({"content": "x", "tool_calls": None, "function_call": None, "refusal": None}, "x", ""),
        ({"content": "x", "tool_calls": [], "audio": None}, "x", ""),
        ({"audio": {"id": "a", "transcript": "x"}}, "x", ""),
    ],
    ids=repr,
)
def test_content_in_every_form(delta: Any, text: str, thinking: str) -> None:
    heard = hear(body(said(delta), STOP))
    assert (heard.text, heard.thinking, heard.error) == (text, thinking, None)


def test_one_answer_of_several() -> None:
    other = {"choices": [{"index": 1, "delta": {"content": "no"}, "finish_reason": "stop"}]}
    heard = hear(body(said({"content": "yes"}), other, STOP))
    assert heard.text == "yes"


def test_the_only_answer_may_have_any_index() -> None:
    heard = hear(
        body(
            {"choices": [{"index": 1, "delta": {"content": "yes"}}]},
            {"choices": [{"index": 1, "delta": {}, "finish_reason": "stop"}]},
        )
    )
    assert (heard.text, heard.finish, heard.error) == ("yes", "stop", None)


def test_ids_may_change_or_be_missing() -> None:
    heard = hear(
        body(
            {"choices": [{"delta": {"content": "a"}}]},
            {"id": "1", "choices": [{"delta": {"content": "b"}}]},
            {"id": "", "choices": [{"delta": {"content": "c"}}]},
            STOP,
        )
    )
    assert heard.text == "abc"
    assert heard.ids[0].startswith("chatcmpl-")
    assert heard.ids[1:] == ["1", "1"]


def test_an_emoji_in_two_halves() -> None:
    events = [
        b'data: {"choices":[{"delta":{"content":"hi \\ud83d"}}]}',
        b'data: {"choices":[{"delta":{"content":"\\ude00!"}}]}',
    ]
    assert hear(body(*events, STOP)).text == "hi \U0001f600!"
    assert hear(body(events[0], STOP)).text == "hi \ufffd"


def test_numbers_that_are_none() -> None:
    heard = hear(body(b'data: {"choices":[{"delta":{"content":"x"},"logprob":NaN}]}', STOP))
    assert (heard.text, heard.error) == ("x", None)


@pytest.mark.parametrize("end", [b"\n", b"\r\n", b"\r"], ids=repr)
def test_line_ends(end: bytes) -> None:
    data = body(said({"content": "x"}), STOP).replace(b"\n", end)
    assert hear(b"\xef\xbb\xbf" + data).text == "x"


@pytest.mark.parametrize("done", [b"", b"data: [DONE]\n"])
def test_events_without_an_empty_line_between_them(done: bytes) -> None:
    data = b"".join(
        b"data: " + json.dumps(event).encode() + b"\n"
        for event in (said({"content": "a"}), said({"content": "b"}), STOP)
    )
    heard = hear(data + done)
    assert (heard.text, heard.finish, heard.error) == ("ab", "stop", None)
    cut = hear(data[:-9])
    assert cut.text == "ab"
    assert "cut short" in str(cut.error)
    mixed = hear(data + b"data: {]\n\n")
    assert isinstance(mixed.error, WireError)


def test_white_space_before_json() -> None:
    assert hear(body(b"data:    " + json.dumps(said({"content": "x"})).encode(), STOP)).text == "x"


# -- thinking between tags ------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("pieces", "text", "thinking"),
    [
        (["<think>hm</think>x"], "x", "hm"),
        (["<thi", "nk>h", "m</th", "ink>", "x"], "x", "hm"),
        (["ok<think>hm</think>x"], "okx", "hm"),
        (["ok ", "<", " 5"], "ok < 5", ""),
        (["ok <thin"], "ok <thin", ""),
        (["<think>never closed"], "", "never closed"),
        (["a<think>1</think>b<think>2</think>c"], "abc", "12"),
    ],
    ids=repr,
)
def test_thinking_tags(pieces: list[str], text: str, thinking: str) -> None:
    heard = hear(body(*(said({"content": piece}) for piece in pieces), STOP))
    assert (heard.text, heard.thinking) == (text, thinking)


def test_tags_can_be_text() -> None:
    heard = hear(body(said({"content": "<think>x</think>"}), STOP), marks=False)
    assert heard.text == "<think>x</think>"


# -- tool calls -----------------------------------------------------------------------------------

A, B = ("look", '{"a":1}'), ("book", '{"b":2}')


@pytest.mark.parametrize(
    "events",
    [
        pytest.param(
            [
                part(0, id="1", type="function", name="look", arguments=""),
                part(0, arguments='{"a"'),
                part(0, arguments=":1}"),
                part(1, id="2", type="function", name="book", arguments='{"b":2}'),
            ],
            id="as the document says",
        ),
        pytest.param(
            [
                part(0, id="1", name="look", arguments='{"a":1}'),
                part(0, id="2", name="book", arguments='{"b":2}'),
            ],
            id="one index for both",
        ),
        pytest.param(
            [
                part(0, name="look", arguments='{"a":1}'),
                part(0, name="book", arguments='{"b":2}'),
            ],
            id="one index for both, no ids",
        ),
        pytest.param(
            [
                part(id="1", name="look", arguments='{"a":1}'),
                part(id="2", name="book", arguments='{"b":2}'),
            ],
            id="no index",
        ),
        pytest.param(
            [
                part(name="look", arguments='{"a"'),
                part(arguments=":1}"),
                part(name="book", arguments='{"b":2}'),
            ],
            id="neither index nor id",
        ),
        pytest.param(
            [
                part(id="1", name="look", arguments='{"a"'),
                part(id="1", arguments=":1}"),
                part(id="2", name="book", arguments='{"b":2}'),
            ],
            id="the id on every fragment",
        ),
        pytest.param(
            [
                part(0, id="1", name="look", arguments='{"a"'),
                part(0, id="1", name="look", arguments=":1}"),
                part(1, id="2", name="book", arguments='{"b":2}'),
            ],
            id="the name on every fragment",
        ),
        pytest.param(
            [
                part(0, id="1", name="look", arguments=""),
                part(1, id="2", name="book", arguments=""),
                part(1, arguments='{"b":2}'),
                part(0, arguments='{"a":1}'),
            ],
            id="interleaved",
        ),
        pytest.param(
            [
                said(
                    {
                        "tool_calls": [
                            {"id": "1", "function": {"name": "look", "arguments": {"a": 1}}},
                            {"id": "2", "function": {"name": "book", "arguments": {"b": 2}}},
                        ]
                    }
                )
            ],
            id="arguments as objects",
        ),
        pytest.param(
            [
                said(
                    {"tool_calls": {"index": "0", "id": 1, "name": "look", "arguments": '{"a":1}'}}
                ),
                part(1, id="2", name="book", arguments='{"b":2}', type=None),
            ],
            id="flat, one object, numbers as text",
        ),
        pytest.param(
            [
                part(0, id="1", name="look", arguments='{"a"'),
                part(0, id="9", name="look", arguments=":1}"),
                part(1, id="2", name="book", arguments='{"b":2}'),
            ],
            id="an id of its own on every fragment",
        ),
        pytest.param(
            [
                part(0, id="1", arguments=""),
                part(0, arguments='{"a":1}'),
                part(0, name="look"),
                part(1, id="2", name="bo"),
                part(1, name="ok", arguments='{"b":2}'),
            ],
            id="names that come late, and in pieces",
        ),
        pytest.param(
            [
                part(0, id="1", name="look", arguments='{"a":1}'),
                part(1, id="2", name="book", arguments='{"b":2}'),
                part(0, id="1", name="look", arguments='{"a":1}'),
                part(1, id="2", name="book", arguments='{"b":2}'),
            ],
            id="all of them once more",
        ),
        pytest.param(
            [
                part(id="1", name="look", arguments='{"a":1}'),
                part(id="1", name="look", arguments='{"a":1}'),
                part(id="2", name="book", arguments='{"b":2}'),
                part(id="1", name="look", arguments='{"a":1}'),
            ],
            id="once more without index",
        ),
    ],
)
@pytest.mark.parametrize("end", [CALLED, STOP], ids=["tool_calls", "stop"])
def test_calls_in_every_form(events: list[Any], end: Any) -> None:
    heard = hear(body(*events, end))
    assert sorted(call[1:] for call in heard.calls) == sorted([A, B])
    assert len({call[0] for call in heard.calls}) == 2
    assert heard.error is None


@pytest.mark.parametrize("places", [(0, 1), (0, 0), (None, None)], ids=repr)
def test_two_calls_under_one_id_get_two(places: tuple[int | None, int | None]) -> None:
    heard = hear(
        body(
            part(places[0], id="x", name="look", arguments='{"a":1}'),
            part(places[1], id="x", name="book", arguments='{"b":2}'),
            CALLED,
        )
    )
    assert [call[1:] for call in heard.calls] == [A, B]
    assert heard.calls[0][0] == "x"
    assert heard.calls[1][0] != "x"


def test_a_call_is_handed_out_when_the_next_one_begins() -> None:
    decoder = make_decoder()
    decoder.feed(body(part(0, id="1", name="look", arguments='{"a":1}'), done=False))
    chunks = decoder.feed(body(part(1, id="2", name="book", arguments="{"), done=False))
    assert [call.name for chunk in chunks for call in chunk.delta.tool_calls] == ["look"]


def test_no_arguments_are_the_empty_object() -> None:
    heard = hear(body(part(0, id="1", name="look"), CALLED))
    assert heard.calls == [("1", "look", "{}")]


def test_the_old_form_of_calls() -> None:
    heard = hear(
        body(
            said({"function_call": {"name": "look", "arguments": '{"a"'}}),
            said({"function_call": {"arguments": ":1}"}}),
            said({}, "function_call"),
        )
    )
    assert [call[1:] for call in heard.calls] == [A]


def test_text_beside_the_last_call() -> None:
    delta = {
        "content": "T",
        "tool_calls": [{"index": 0, "id": "1", "function": {"name": "look", "arguments": "{}"}}],
    }
    heard = hear(body(said(delta, "tool_calls")))
    assert (heard.text, heard.calls) == ("T", [("1", "look", "{}")])


def test_signatures_stay_with_their_call() -> None:
    signature = {"google": {"thought_signature": "c2ln"}}
    heard = hear(
        body(part(0, id="1", name="look", arguments="{}", extra_content=signature), CALLED)
    )
    assert heard.extra == [signature]


@pytest.mark.parametrize("reason", ["length", "content_filter"])
def test_a_call_that_was_cut_is_not_handed_out(reason: str) -> None:
    heard = hear(
        body(
            said({"content": "x"}),
            part(0, id="1", name="look", arguments='{"a":1}'),
            part(1, id="2", name="pay", arguments='{"amount": 1'),
            said({}, reason),
        )
    )
    assert [call[1:] for call in heard.calls] == [A]


def test_an_answer_that_is_only_a_cut_call_is_an_error() -> None:
    heard = hear(body(part(0, id="1", name="pay", arguments='{"amount": 1'), said({}, "length")))
    assert isinstance(heard.error, EmptyResponseError)
    assert not heard.error.retryable


# -- the end --------------------------------------------------------------------------------------


@pytest.mark.parametrize("done", [True, False])
def test_finish_reason_is_the_end(done: bool) -> None:
    heard = hear(body(said({"content": "x"}), STOP, done=done))
    assert (heard.text, heard.error) == ("x", None)


def test_done_without_a_reason_is_no_end() -> None:
    data = body(said({"content": "x"}))
    heard = hear(data)
    assert heard.text == "x"
    assert isinstance(heard.error, APIConnectionError)
    assert "[DONE]" in str(heard.error)
    assert hear(data, trust_done=True).error is None


def test_nothing_at_all() -> None:
    for data in (b"", b"\n\n", b": ping\n\n"):
        heard = hear(data)
        assert isinstance(heard.error, APIConnectionError)
        assert "without a single event" in str(heard.error)


def test_a_cut_answer_with_a_call_hands_out_nothing() -> None:
    heard = hear(body(part(0, id="1", name="look", arguments="{}"), done=False))
    assert heard.calls == []
    assert isinstance(heard.error, APIConnectionError)


def test_a_reason_that_says_null_is_none() -> None:
    heard = hear(body(said({"content": "a"}, "null"), said({"content": "b"}, "null")))
    assert heard.text == "ab"
    assert isinstance(heard.error, APIConnectionError)
    assert hear(body(said({"content": "a"}, "null"), STOP)).error is None


@pytest.mark.parametrize("reason", ["eos", "end_turn", "tool_call"])
def test_any_reason_is_a_reason(reason: str) -> None:
    heard = hear(body(said({"content": "x"}), said({}, reason)))
    assert (heard.error, heard.finish) == (None, reason)


def test_empty_answers() -> None:
    assert isinstance(hear(body(STOP)).error, EmptyResponseError)
    assert isinstance(hear(body(said({"reasoning": "hm"}), STOP)).error, EmptyResponseError)
    assert hear(body(STOP), allow_empty=True).error is None


def test_refusals() -> None:
    heard = hear(body(said({"refusal": "I "}), said({"refusal": "can't."}), STOP))
    assert isinstance(heard.error, RefusalError)
    assert "I can't." in heard.error.message
    heard = hear(body(said({"content": "x"}), said({}, "content_filter")))
    assert heard.text == "x"
    assert isinstance(heard.error, RefusalError)
    assert heard.error.reason == "content_filter"


@pytest.mark.parametrize(
    "usage",
    [
        pytest.param([{"choices": [], "usage": "U"}], id="after the end"),
        pytest.param([], id="with the end"),
        pytest.param(
            [{"choices": [{"index": 0, "delta": {}}], "usage": "U"}], id="late, with choices"
        ),
        pytest.param([{"choices": [], "x_groq": {"usage": "U"}}], id="Groq's own"),
    ],
)
def test_usage_wherever_it_is(usage: list[Any]) -> None:
    counts = {"prompt_tokens": 5, "completion_tokens": 2, "total_tokens": 7}
    text = json.dumps(usage).replace('"U"', json.dumps(counts))
    end = STOP if usage else {**STOP, "usage": counts}
    heard = hear(body(said({"content": "x"}), end, *json.loads(text)))
    assert (heard.usage.prompt_tokens, heard.usage.completion_tokens) == (5, 2)


def test_usage_in_every_chunk_is_told_once() -> None:
    decoder = make_decoder()
    events = [
        {**said({"content": "x"}), "usage": {"prompt_tokens": 5, "completion_tokens": count}}
        for count in range(1, 9)
    ]
    chunks = decoder.feed(
        body(*events, {**STOP, "usage": {"prompt_tokens": 5, "completion_tokens": 9}})
    )
    counted = [chunk.usage.completion_tokens for chunk in chunks if chunk.usage is not None]
    assert counted == [9]


# -- errors inside, and answers that are no stream ------------------------------------------------


@pytest.mark.parametrize(
    ("event", "status", "words"),
    [
        ({"error": {"message": "boom", "code": 502}}, 502, "boom"),
        ({"error": {"message": "boom", "type": "invalid_request_error"}}, 400, "boom"),
        ({"error": {"message": "boom", "status_code": 400}}, 400, "boom"),
        ({"error": "boom"}, -1, "boom"),
        ({"choices": [{"index": 0, "error": {"message": "boom", "code": 429}}]}, 429, "boom"),
        (b'event: error\ndata: {"message": "boom"}', -1, "boom"),
        (b"event: error\ndata: boom", None, "boom"),
        (
            {
                "error": {
                    "message": "Provider returned error",
                    "code": 502,
                    "metadata": {"raw": "boom"},
                }
            },
            502,
            "boom",
        ),
        (b'{"error": {"message": "boom", "code": 500}}', 500, "boom"),
    ],
    ids=repr,
)
def test_errors_in_a_stream(event: Any, status: int | None, words: str) -> None:
    heard = hear(body(said({"content": "x"}), event))
    assert heard.text == "x"
    assert heard.error is not None
    assert words in heard.error.message
    if status is not None:
        assert isinstance(heard.error, APIStatusError)
        assert heard.error.status_code == status


def test_garbage_in_a_stream() -> None:
    heard = hear(body(said({"content": "x"}), b"data: {not json", STOP))
    assert heard.text == "x"
    assert isinstance(heard.error, WireError)


WHOLE = {
    "id": "c",
    "choices": [{"index": 0, "message": {"content": "x"}, "finish_reason": "stop"}],
    "usage": {"prompt_tokens": 5, "completion_tokens": 2, "total_tokens": 7},
}


@pytest.mark.parametrize(
    "data",
    [
        json.dumps(WHOLE).encode(),
        json.dumps(WHOLE, indent=2).encode(),
        b"\xef\xbb\xbf \n" + json.dumps(WHOLE).encode(),
        json.dumps([said({"content": "x"}), {**STOP, "usage": WHOLE["usage"]}]).encode(),
        b"\n".join(
            json.dumps(e).encode()
            for e in (said({"content": "x"}), {**STOP, "usage": WHOLE["usage"]})
        ),
    ],
    ids=["json", "indented", "byte order mark", "array", "lines"],
)
def test_a_whole_answer_instead_of_a_stream(data: bytes) -> None:
    heard = hear(data)
    assert (heard.text, heard.error) == ("x", None)
    assert heard.usage.total_tokens == 7


@pytest.mark.parametrize(
    ("data", "kind", "words"),
    [
        (b'{"error": {"message": "boom", "code": 401}}', APIStatusError, "boom"),
        (b'{"message": "boom"}', APIStatusError, "boom"),
        (b'{"detail": "boom"}', APIStatusError, "boom"),
        (b'{"ok": true}', WireError, "expected"),
        (b"<html><title>Bad gateway</title></html>", WireError, "Bad gateway"),
        (b"  \n <!DOCTYPE html><p>Sorry</p>", WireError, "Sorry"),
        (b"Internal Server Error", WireError, "Internal Server Error"),
        (b'{"choices": [', WireError, "expected"),
    ],
    ids=repr,
)
def test_what_is_no_answer(data: bytes, kind: type[APIError], words: str) -> None:
    heard = hear(data)
    assert isinstance(heard.error, kind)
    assert words in str(heard.error)


# -- memory ---------------------------------------------------------------------------------------


def test_calls_without_end_are_no_answer() -> None:
    """To look through all of them at each event would take the time of all squared."""
    events = [part(index, id=str(index), name="look", arguments="") for index in range(3000)]
    heard = hear(body(*events, CALLED))
    assert isinstance(heard.error, WireError)
    assert "1024 tool calls" in heard.error.message
    whole = [part(index, id=str(index), name="look", arguments="{}") for index in range(3000)]
    assert len(hear(body(*whole, CALLED)).calls) == 3000


def test_memory_is_bounded() -> None:
    many = body(part(0, id="1", name="look", arguments="x" * (1 << 20)), done=False)
    page = b"<html>" + b"x" * (1 << 16)
    for first, more in ((b"", many), (page, page), (b"{", b" " * (1 << 20))):
        decoder = make_decoder()
        decoder.feed(first)
        for _ in range(40):
            if decoder.failure is None:
                decoder.feed(more)
        assert isinstance(decoder.failure, WireError)


FAT = "x" * (1 << 18)


@pytest.mark.parametrize(
    "delta",
    [
        lambda n: {"reasoning_details": [{"signature": "s", "more": FAT}]},
        lambda n: {"tool_calls": [{"index": 0, "extra_content": {str(n): FAT}}]},
        lambda n: {"tool_calls": [{"index": 0, "function": {"arguments": "xyz"}}] * 20_000},
        lambda n: {
            "tool_calls": [
                {"id": f"{n} {m}", "function": {"name": "f", "arguments": "{}"}}
                for m in range(1000)
            ]
        },
    ],
    ids=["details", "state of a call", "small pieces", "small calls"],
)
def test_whatever_never_ends_is_an_error(delta: Callable[[int], Any]) -> None:
    decoder = make_decoder()
    for n in range(100):
        if decoder.failure is None:
            decoder.feed(body(said(delta(n)), done=False))
    assert isinstance(decoder.failure, WireError)


@pytest.mark.parametrize("head", [b"data: ", b""], ids=["event", "whole answer"])
def test_json_that_grows_when_it_is_read_is_an_error(head: bytes) -> None:
    data = head + b'{"choices":[' + b"{}," * 500_000 + b"{}]}\n\n"
    with measure_memory() as memory:
        heard = make_decoder()
        heard.feed(data)
        with pytest.raises(WireError, match="values"):
            heard.close()
    assert memory.peak < 16 << 20


# -- errors of their own --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("status", "data", "words"),
    [
        (401, b'{"error":{"message":"no","code":"invalid_api_key"}}', "no"),
        (400, b'{"object":"error","message":"no","code":"1500"}', "no"),
        (401, b'{"detail":"no"}', "no"),
        (422, b'{"detail":[{"loc":["body","x"],"msg":"no","type":"t"}]}', "no (at body.x)"),
        (422, b'{"message":{"detail":[{"loc":["body"],"msg":"no"}]}}', "no (at body)"),
        (400, b'[{"error":{"code":400,"message":"no","status":"INVALID_ARGUMENT"}}]', "no"),
        (500, b"no", "no"),
        (502, b"<html><h1>no</h1></html>", "no"),
        (503, b"", "503"),
        (500, b"[]", "500"),
        (500, b"null", "500"),
        (500, b"\xff\xfe", "\ufffd"),
        (
            400,
            b'{"error":{"message":"a","metadata":{"raw":"{\\"error\\":{\\"message\\":\\"b\\"}}"}}}',
            "a: b",
        ),
    ],
    ids=repr,
)
def test_errors_with_a_status(status: int, data: bytes, words: str) -> None:
    error = decode_error(status, {"x-request-id": "r"}, data)
    assert isinstance(error, APIStatusError)
    assert words in error.message
    assert error.status_code == status
    assert error.request_id == "r"
    assert error.retryable is (status >= 500)


def test_a_filled_quota_is_hopeless() -> None:
    data = b'{"error":{"message":"x","type":"insufficient_quota","code":"insufficient_quota"}}'
    assert not decode_error(429, {}, data).retryable
    assert decode_error(429, {}, b'{"error":{"message":"x"}}').retryable


def test_pauses_are_read() -> None:
    assert decode_error(429, {"retry-after-ms": "1500"}, b"").retry_after == 1.5


@pytest.mark.parametrize(
    "error",
    [
        {"code": "content_filter", "message": "no"},
        {"code": "x", "message": "no", "innererror": {"code": "ResponsibleAIPolicyViolation"}},
        {"code": 403, "message": "no", "metadata": {"reasons": [], "flagged_input": "x"}},
    ],
    ids=repr,
)
def test_filters_are_refusals(error: dict[str, Any]) -> None:
    found = decode_error(400, {}, json.dumps({"error": error}).encode())
    assert isinstance(found, RefusalError)
    assert not found.retryable


WORDS = [
    "error",
    "message",
    "code",
    "type",
    "status",
    "metadata",
    "raw",
    "choices",
    "delta",
    "content",
    "tool_calls",
    "function",
    "index",
    "id",
    "usage",
    "prompt_tokens",
    "prompt_tokens_details",
    "finish_reason",
    "name",
    "arguments",
    "reasoning_details",
]
json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(WORDS),
            inner,
            max_size=4,
        )
    ),
    max_leaves=12,
)


@given(json_values)
def test_any_json_can_be_an_error(value: Any) -> None:
    assert isinstance(error_from(value), APIStatusError)
    assert isinstance(decode_error(500, {}, json.dumps(value).encode()), APIStatusError)


@given(st.lists(json_values, max_size=4), json_values, json_values)
def test_any_json_can_be_an_event(events: list[Any], delta: Any, choice: Any) -> None:
    hear(body(*events, said(delta), {"choices": choice}, {"choices": [choice]}, STOP))
    hear(json.dumps(choice).encode())


# -- what servers were seen to do ------------------------------------------------------------------


@pytest.mark.parametrize(
    "fragments",
    [
        [{"id": "1", "name": "look", "arguments": {}}, {"id": "1", "name": "look", "arguments": {"a": 1}}],
        [{"name": "look", "arguments": "{}"}, {"name": "look", "arguments": '{"a":1}'}],
        [{"id": "1", "name": "look", "arguments": "{}"}, {"arguments": '{"a"'}, {"arguments": ":1}"}],
        [{"id": "1", "name": "look", "arguments": t} for t in ('{"a', '{"a":', '{"a":1}')],
        [{"id": "1", "name": "look", "arguments": ""}, *({"arguments": t} for t in ('{"a', '{"a":1}'))],
        [{"id": "1", "name": "look", "arguments": '{"a":1}'}, {"arguments": '{"a":1}'}],
        [{"id": "1", "name": "look", "arguments": '{"a"'}, {"arguments": ":1}"}, {"arguments": '{"a":1}'}],
    ],
    ids=repr,
)  # fmt: skip
def test_placeholders_snapshots_and_repeats_are_one_call(fragments: list[dict[str, Any]]) -> None:
    heard = hear(body(*(part(0, **fragment) for fragment in fragments), CALLED))
    assert [call[1:] for call in heard.calls] == [A]


def test_a_snapshot_of_two_calls_grows() -> None:
    events = [
        [{"index": 0, "id": "1", "function": {"name": "look", "arguments": first}}]
        + ([{"index": 1, "id": "2", "function": {"name": "book", "arguments": second}}] if second else [])
        for first, second in (("{}", ""), ('{"a":1}', ""), ('{"a":1}', "{}"), ('{"a":1}', '{"b":2}'))
    ]  # fmt: skip
    heard = hear(body(*(said({"tool_calls": calls}) for calls in events), CALLED))
    assert [call[1:] for call in heard.calls] == [A, B]


MESSAGE = {"role": "assistant", "content": "Hello world, and all who live in it!"}


@pytest.mark.parametrize(
    "last",
    [
        {"choices": [{"index": 0, "finish_reason": "stop", "message": MESSAGE}]},
        {"choices": [{"index": 0, "finish_reason": "stop", "delta": {}, "message": MESSAGE}]},
        said({"content": MESSAGE["content"]}, "stop"),
    ],
    ids=["message", "message beside a delta", "last delta"],
)
def test_a_message_that_repeats_the_deltas_is_not_sent_again(last: Any) -> None:
    pieces = [said({"content": piece}) for piece in ("Hello ", "world, and all who live in it!")]
    assert hear(body(*pieces, last)).text == MESSAGE["content"]
    assert hear(body(pieces[0], last)).text.endswith("world, and all who live in it!")
    assert hear(body(last)).text == MESSAGE["content"]


def test_a_message_repeats_calls_and_thoughts_too() -> None:
    call = {"id": "other", "function": {"name": "look", "arguments": '{ "a": 1 }'}}
    message = {"content": None, "reasoning_content": "hm", "tool_calls": [call]}
    end = {"choices": [{"index": 0, "finish_reason": "tool_calls", "message": message}]}
    heard = hear(body(said({"reasoning_content": "hm"}), part(0, id="1", name="look", arguments='{"a":1}'), end))  # fmt: skip
    assert (heard.calls, heard.thinking) == ([("1", "look", '{"a":1}')], "hm")
    heard = hear(body(end))
    assert ([call[1:] for call in heard.calls], heard.thinking) == ([("look", '{ "a": 1 }')], "hm")


def test_short_words_may_be_said_twice() -> None:
    assert hear(body(said({"content": "ha"}), said({"content": "ha"}, "stop"))).text == "haha"


@pytest.mark.parametrize(
    "reason",
    ["length", "max_tokens", "MAX_TOKENS", "max_output_tokens", "model_length", "model_context_window_exceeded", "content_filter", "abort"],
)  # fmt: skip
@pytest.mark.parametrize("arguments", ["", " ", '{"amount": 1', "{}", "{} "])
def test_a_cut_call_is_dropped_whatever_the_limit_is_called(reason: str, arguments: str) -> None:
    heard = hear(body(said({"content": "x"}), part(0, id="2", name="pay", arguments=arguments), said({}, reason)))  # fmt: skip
    assert heard.calls == []


def test_a_call_without_arguments_stands_where_another_follows() -> None:
    """An empty object opens the arguments of the last call alone."""
    heard = hear(
        body(
            part(0, id="1", name="stop", arguments="{}"),
            part(1, id="2", name="pay", arguments='{"am'),
            said({}, "length"),
        )
    )
    assert [call[1] for call in heard.calls] == ["stop"]
    assert hear(body(part(0, id="1", name="stop", arguments="{}"), said({}, "tool_calls"))).calls


@pytest.mark.parametrize(
    "reason", ["abort", "insufficient_system_resource", "network_error", "error", "timeout"]
)
def test_a_reply_that_the_server_broke_off_is_an_error(reason: str) -> None:
    heard = hear(body(said({"content": "Half an ans"}), said({}, reason)))
    assert heard.text == "Half an ans"
    assert heard.error is not None
    assert heard.error.retryable
    assert reason in str(heard.error)


@pytest.mark.parametrize(
    ("event", "words", "status"),
    [
        ({"object": "error", "message": "too long", "type": "BadRequestError", "code": 400}, "too long", 400),
        ({"detail": "slow down"}, "slow down", -1),
        ({"code": 429, "msg": "slow down", "data": None}, "slow down", 429),
        ({"choices": None, "base_resp": {"status_code": 1002, "status_msg": "slow down"}}, "slow down", 429),
        (b'event: error\ndata: {"code":400,"details":"no logprobs"}', "no logprobs", 400),
        (b"event: error\ndata: boom", "boom", -1),
    ],
    ids=repr,
)  # fmt: skip
def test_errors_that_do_not_call_themselves_one(event: Any, words: str, status: int) -> None:
    heard = hear(body(said({"content": "x"}), event))
    assert isinstance(heard.error, APIStatusError)
    assert words in heard.error.message
    assert heard.error.status_code == status


@pytest.mark.parametrize(
    "event",
    [
        b'event: status\ndata: {"message":"working"}',
        {"choices": None, "base_resp": {"status_code": 0, "status_msg": ""}},
        {"usage": {"prompt_tokens": 1}, "message": ""},
    ],
    ids=repr,
)
def test_what_only_looks_like_an_error_is_none(event: Any) -> None:
    assert hear(body(said({"content": "x"}), event, STOP)).error is None


@pytest.mark.parametrize(
    ("error", "retryable"),
    [
        ({"type": "invalid_request_error", "code": "request_timeout", "message": "x"}, True),
        ({"type": "invalid_request_error", "code": "server_is_overloaded", "message": "x"}, True),
        ({"type": "server_error", "code": "invalid_prompt", "message": "x"}, False),
    ],
    ids=repr,
)
def test_the_code_of_an_error_counts_before_its_type(error: Any, retryable: bool) -> None:
    assert error_from({"error": error}).retryable is retryable


@pytest.mark.parametrize("code", ["bio_policy", "cyber_policy", "content_policy_violation"])
def test_a_block_by_policy_is_a_refusal(code: str) -> None:
    for found in (
        error_from({"code": code, "message": "flagged"}),
        decode_error(400, {}, json.dumps({"error": {"code": code, "message": "flagged"}}).encode()),
    ):
        assert isinstance(found, RefusalError)
        assert (found.reason, found.retryable) == (code, False)


@pytest.mark.parametrize(
    ("error", "pause"),
    [
        ({"code": 429, "message": "x", "details": [{"retryDelay": "1.5s"}]}, 1.5),
        ({"code": 429, "message": "x", "retry_after": 3}, 3.0),
        ({"code": 429, "message": "Please try again in 2.25s. Visit"}, 2.25),
        ({"code": 429, "message": "Please try again in 7m12s."}, 432.0),
        ({"code": 429, "message": "Please try again in 120ms."}, 0.12),
        ({"code": 503, "message": "Please retry after 12 seconds."}, 12.0),
        ({"code": 400, "message": "try again in 5s"}, None),
        ({"code": 429, "message": "x", "retry_after": -1}, None),
        ({"code": 429, "message": "x", "details": [{"retryDelay": "soon"}, 7]}, None),
    ],
    ids=repr,
)
def test_pauses_in_a_body_are_read(error: dict[str, Any], pause: float | None) -> None:
    assert error_from({"error": error}).retry_after == pause
    assert decode_error(error["code"], {"retry-after": "9"}, json.dumps(error).encode()).retry_after == 9  # fmt: skip


def test_reasoning_details_are_kept_in_order_and_joined() -> None:
    pieces = [
        {"type": "reasoning.text", "text": "a", "index": 0, "format": "f"},
        {"type": "reasoning.text", "text": "b", "signature": "s", "index": 0, "format": "f"},
        {"type": "reasoning.encrypted", "data": "ZZ", "id": "1", "index": 1},
        {"type": "reasoning.text", "text": "c", "index": 2},
    ]
    heard = hear(body(*(said({"reasoning_details": [piece]}) for piece in pieces), said({"content": "x"}), STOP))  # fmt: skip
    assert heard.thinking == "abc"
    assert heard.extra == [
        {
            "openai": {
                "reasoning_details": [
                    {"type": "reasoning.text", "text": "ab", "index": 0, "format": "f", "signature": "s"},
                    {"type": "reasoning.encrypted", "data": "ZZ", "id": "1", "index": 1},
                    {"type": "reasoning.text", "text": "c", "index": 2},
                ]
            }
        }
    ]  # fmt: skip


def test_fields_that_no_document_names_are_kept() -> None:
    heard = hear(
        body(
            said({"content": "x", "reasoning_opaque": "AA", "blocks": [1], "none": None}),
            said({"content": "y", "blocks": [2], "name": "assistant", "logprobs": None}),
            STOP,
        )
    )
    assert heard.text == "xy"
    assert heard.extra == [{"openai": {"fields": {"reasoning_opaque": "AA", "blocks": [1, 2]}}}]


def test_thoughts_between_tags_are_known_by_the_family() -> None:
    thinker = find_family("Qwen/Qwen3-30B-A3B-Thinking-2507")
    pieces = [said({"content": piece}) for piece in ("Okay, pong.\n</thi", "nk>\n\npong")]
    heard = hear(body(*pieces, STOP), family=thinker)
    assert (heard.text, heard.thinking) == ("pong", "Okay, pong.\n")
    # Served with a reasoning parser, and where the thoughts are left out by the host.
    heard = hear(body(said({"reasoning_content": "hm"}), said({"content": "pong"}), STOP), family=thinker)  # fmt: skip
    assert (heard.text, heard.thinking) == ("pong", "hm")
    assert hear(body(said({"content": "pong"}), STOP), family=thinker).text == "pong"
    leaky = find_family("gpt-oss-120b")
    harmony = (
        "<|channel|>analysis<|message|>hm<|end|><|start|>assistant<|channel|>final<|message|>Hi"
    )
    heard = hear(body(*(said({"content": letter}) for letter in "So " + harmony), STOP), family=leaky)  # fmt: skip
    assert (heard.text, heard.thinking) == ("So Hi", "hm")


def test_what_a_parser_left_behind_a_call_is_not_spoken() -> None:
    call = part(0, id="1", name="look", arguments='{"a":1}')
    heard = hear(body(call, said({"content": ">"}), said({"content": "\n</tool_call>"}), CALLED))
    assert (heard.text, [found[1:] for found in heard.calls]) == ("", [A])
    heard = hear(body(call, said({"content": "\n"}), said({"content": "I look."}), CALLED))
    assert heard.text == "\nI look."


def test_white_space_without_end_keeps_nothing_alive() -> None:
    decoder = make_decoder()
    decoder.feed(body(part(0, id="1", name="look", arguments='{"a":'), done=False))
    before = decoder.output_count
    for _ in range(20):
        decoder.feed(body(part(0, arguments=" \n"), done=False))
    assert decoder.output_count == before
    decoder.feed(body(part(0, arguments="1"), done=False))
    assert decoder.output_count > before
