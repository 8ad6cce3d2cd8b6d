"""Answers of the Responses API, as servers really send them."""

from __future__ import annotations

import json
from collections.abc import Callable
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
from rejoinder.providers.openai.responses_wire import make_decoder
from rejoinder.testing.chunking import byte_by_byte
from rejoinder.testing.leaks import measure_memory


class Heard:
    def __init__(self) -> None:
        self.text = ""
        self.thinking = ""
        self.calls: list[tuple[str, str, str]] = []
        self.extra: list[Any] = []
        self.usage: Any = None
        self.error: APIError | None = None
        self.finish: str | None = None
        self.skipped = 0

    def take(self, chunks: list[Any]) -> None:
        for chunk in chunks:
            if chunk.delta is not None:
                self.text += chunk.delta.content or ""
                self.thinking += chunk.delta.thinking or ""
                for call in chunk.delta.tool_calls:
                    self.calls.append((call.call_id, call.name, call.arguments))
                    if call.extra:
                        self.extra.append(call.extra)
                if chunk.delta.extra:
                    self.extra.append(chunk.delta.extra)
            if chunk.usage is not None:
                self.usage = chunk.usage


def body(*events: Any) -> bytes:
    lines = [e if isinstance(e, bytes) else b"data: " + json.dumps(e).encode() for e in events]
    return b"".join(line + b"\n\n" for line in lines)


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
        heard.skipped = decoder.skipped
        found.append(heard)
    whole, cut = found
    assert (whole.text, whole.extra) == (cut.text, cut.extra)
    # A call without an id gets a fresh one each time.
    assert [made[1:] for made in whole.calls] == [made[1:] for made in cut.calls]
    assert repr(whole.error) == repr(cut.error)
    return whole


def text(delta: str, index: int = 0) -> dict[str, Any]:
    return {"type": "response.output_text.delta", "output_index": index, "delta": delta}


def item(value: dict[str, Any], index: int = 0, what: str = "done") -> dict[str, Any]:
    return {"type": f"response.output_item.{what}", "output_index": index, "item": value}


def end(status: str = "completed", **response: Any) -> dict[str, Any]:
    return {"type": f"response.{status}", "response": {"status": status, **response}}


def message(words: str, **more: Any) -> dict[str, Any]:
    part = {"type": "output_text", "text": words}
    return {"type": "message", "role": "assistant", "content": [part], **more}


def call(name: str = "look", arguments: Any = '{"a":1}', **more: Any) -> dict[str, Any]:
    return {
        "type": "function_call",
        "id": "fc_1",
        "call_id": "call_1",
        "name": name,
        "arguments": arguments,
        **more,
    }


LOOK = ("call_1", "look", '{"a":1}')


# -- text -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "events",
    [
        pytest.param([text("Hel"), text("lo"), end(output=[message("Hello")])], id="pieces"),
        pytest.param([text("Hel"), end(output=[message("Hello")])], id="the rest at the end"),
        pytest.param([text("Hel"), item(message("Hello")), end()], id="the rest with the item"),
        pytest.param(
            [
                text("Hel"),
                {"type": "response.output_text.done", "output_index": 0, "text": "Hello"},
                end(output=[message("Hello")]),
            ],
            id="the rest with the text",
        ),
        pytest.param([end(output=[message("Hello")])], id="only at the end"),
        pytest.param([item(message("Hello")), end(output=[message("Hello")])], id="only the item"),
        pytest.param([text("Hello"), end(output=[message("Other")])], id="another text at the end"),
        pytest.param([text("Hello"), end(output=None)], id="no output at the end"),
        pytest.param([text("Hello"), {"type": "response.completed"}], id="no response at the end"),
        pytest.param([text("Hello"), end(), b"data: [DONE]"], id="done"),
        pytest.param(
            [text("Hello", 1), item(message("Hello"), 1), end(output=[message("Hello")])],
            id="another place at the end",
        ),
        pytest.param(
            [text("Hel", 1), end(output=[message("Hello")])], id="the rest from another place"
        ),
        pytest.param(
            [
                {"type": "response.output_text.delta", "delta": "Hello"},
                {"type": "response.output_text.done", "output_index": 1, "text": "Hello"},
                item(message("Hello"), 1),
                end(output=[{"type": "reasoning", "id": "rs", "summary": []}, message("Hello")]),
            ],
            id="no place on the way",
        ),
        pytest.param(
            [
                text("Hel", 1),
                text("lo", 3),
                item(message("lo"), 3),
                item(message("Hel"), 1),
                end(output=[message("Hel"), message("lo")]),
            ],
            id="two texts, all places moved",
        ),
        pytest.param(
            [
                {
                    "type": "response.content_part.done",
                    "part": {"type": "output_text", "text": "Hello"},
                },
                end(),
            ],
            id="only the part",
        ),
    ],
)
def test_text_is_said_once_and_whole(events: list[Any]) -> None:
    heard = hear(body(*events))
    assert (heard.text, heard.error, heard.finish) == ("Hello", None, "completed")


def test_events_by_name_only() -> None:
    data = b'event: response.output_text.delta\ndata: {"delta": "x"}\n\n'
    assert hear(data + body(end())).text == "x"


def test_unknown_events_are_counted() -> None:
    heard = hear(body({"type": "response.new"}, [1], text("x"), b": ping", {"x": 1}, end()))
    assert (heard.text, heard.error) == ("x", None)
    assert heard.skipped == 3


def test_an_emoji_in_two_halves() -> None:
    halves = [
        b'data: {"type":"response.output_text.delta","delta":"\\ud83d"}',
        b'data: {"type":"response.output_text.delta","delta":"\\ude00"}',
    ]
    assert hear(body(*halves, end())).text == "\U0001f600"


def test_thoughts_come_in_paragraphs() -> None:
    def thought(words: str, summary: int) -> dict[str, Any]:
        return {
            "type": "response.reasoning_summary_text.delta",
            "output_index": 0,
            "summary_index": summary,
            "delta": words,
        }

    heard = hear(body(thought("a", 0), thought("b", 0), thought("c", 1), text("x", 1), end()))
    assert (heard.thinking, heard.text) == ("ab\n\nc", "x")
    reasoning = {"type": "reasoning", "id": "rs", "summary": [{"type": "s", "text": "hm"}]}
    assert hear(body(end(output=[reasoning, message("x")]))).thinking == "hm"


# -- calls ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "events",
    [
        pytest.param([item(call()), end(output=[call()])], id="done"),
        pytest.param([end(output=[call()])], id="only at the end"),
        pytest.param([end(output=[call(arguments={"a": 1})])], id="arguments as an object"),
        pytest.param(
            [
                item(call(arguments=""), what="added"),
                {"type": "response.function_call_arguments.delta", "delta": '{"a"'},
                {"type": "response.function_call_arguments.delta", "delta": ":1}"},
                end(output=[]),
            ],
            id="never done",
        ),
        pytest.param(
            [
                item(call(arguments=""), what="added"),
                {"type": "response.function_call_arguments.done", "arguments": '{"a":1}'},
                end(),
            ],
            id="only its arguments done",
        ),
        pytest.param(
            [item(call()), end(output=[call(id="fc_9")])], id="another id of the item at the end"
        ),
        pytest.param([item(call(id=None)), end(output=[call()])], id="no id of the item before"),
        pytest.param(
            [item(call()), end(output=[call(arguments='{ "a": 1 }')])], id="spaces at the end"
        ),
        pytest.param(
            [item(call(arguments=""), 0, "added"), item(call(), 1), end(output=[call()])],
            id="another place when done",
        ),
    ],
)
def test_a_call_is_handed_out_once(events: list[Any]) -> None:
    heard = hear(body(*events))
    assert heard.calls == [LOOK]
    assert heard.error is None


@pytest.mark.parametrize("ids", [{}, {"id": None, "call_id": None}], ids=["ids", "no ids"])
def test_two_calls_that_differ_are_two(ids: dict[str, Any]) -> None:
    calls = [call(**ids), call(arguments='{"a":2}', **ids)]
    for events in ([item(calls[0], 0), item(calls[1], 1), end(output=calls)], [end(output=calls)]):
        assert [made[1:] for made in hear(body(*events)).calls] == [LOOK[1:], ("look", '{"a":2}')]


def test_a_cut_call_is_not_handed_out() -> None:
    cut = call(arguments='{"amount": 1', status="incomplete")
    details = {"reason": "max_output_tokens"}
    heard = hear(body(item(cut), end("incomplete", output=[cut], incomplete_details=details)))
    assert heard.calls == []
    assert isinstance(heard.error, EmptyResponseError)
    assert not heard.error.retryable
    heard = hear(body(text("x"), item(cut, 1), end("incomplete", incomplete_details=details)))
    assert (heard.text, heard.calls, heard.error) == ("x", [], None)


REASONING = {
    "type": "reasoning",
    "id": "rs_1",
    "summary": [],
    "encrypted_content": "AAAA",
    "content": None,
    "status": "completed",
}
KEPT = {"type": "reasoning", "id": "rs_1", "summary": [], "encrypted_content": "AAAA"}


def test_an_empty_object_may_be_the_opening_of_a_cut_call() -> None:
    opened = item(call(arguments="", status="in_progress"), what="added")
    delta = {"type": "response.function_call_arguments.delta", "output_index": 0, "delta": "{}"}
    details = {"reason": "max_output_tokens"}
    heard = hear(body(text("Hi", 1), opened, delta, end("incomplete", incomplete_details=details)))
    assert heard.calls == []
    done = item(call(arguments="{}"))
    assert hear(body(opened, delta, done, end("incomplete", incomplete_details=details))).calls


def test_reasoning_is_kept_with_what_it_led_to() -> None:
    heard = hear(body(item(REASONING), item(call(), 1), end(output=[REASONING, call()])))
    assert heard.extra == [{"openai": {"reasoning_items": [KEPT], "item_id": "fc_1"}}]
    said = message("x", id="msg_1", phase="final_answer")
    heard = hear(body(item(REASONING), text("x", 1), item(said, 1), end(output=[REASONING, said])))
    assert heard.extra == [
        {
            "openai": {
                "reasoning_items": [KEPT],
                "message_id": "msg_1",
                "phase": "final_answer",
            }
        }
    ]


def test_what_the_provider_did_itself_is_an_answer() -> None:
    search = {"type": "web_search_call", "id": "ws_1", "status": "completed"}
    heard = hear(body(item(REASONING), item(search, 1), end(output=[REASONING, search])))
    assert heard.error is None
    assert heard.extra == [{"openai": {"output_items": [search]}}]
    # What led to it does not go back without it, also where words follow.
    heard = hear(body(item(REASONING), item(search, 1), item(message("x", id="m"), 2), end()))
    assert heard.extra == [{"openai": {"output_items": [search]}}]


# -- ends -----------------------------------------------------------------------------------------


def test_usage() -> None:
    usage = {"input_tokens": 5, "output_tokens": 2, "total_tokens": 7}
    heard = hear(body(text("x"), end(usage=usage, service_tier="flex")))
    assert (heard.usage.prompt_tokens, heard.usage.completion_tokens) == (5, 2)
    assert heard.usage.service_tier == "flex"


@pytest.mark.parametrize("events", [[text("x")], [text("x"), b"data: [DONE]"]], ids=["cut", "done"])
def test_no_end_mark_is_an_error(events: list[Any]) -> None:
    heard = hear(body(*events))
    assert heard.text == "x"
    assert isinstance(heard.error, APIConnectionError)


def test_emptiness() -> None:
    assert isinstance(hear(body(end())).error, EmptyResponseError)
    assert hear(body(end()), allow_empty=True).error is None
    assert isinstance(hear(b"").error, APIConnectionError)


def test_refusals() -> None:
    heard = hear(body({"type": "response.refusal.delta", "delta": "I can't."}, end()))
    assert isinstance(heard.error, RefusalError)
    assert "I can't." in heard.error.message
    refused = {"type": "message", "content": [{"type": "refusal", "refusal": "No."}]}
    assert isinstance(hear(body(end(output=[refused]))).error, RefusalError)
    details = {"reason": "content_filter"}
    heard = hear(body(text("x"), end("incomplete", incomplete_details=details)))
    assert isinstance(heard.error, RefusalError)


@pytest.mark.parametrize(
    ("event", "status"),
    [
        ({"type": "error", "code": "rate_limit_exceeded", "message": "boom"}, 429),
        ({"type": "error", "error": {"type": "server_error", "message": "boom"}}, 500),
        (end("failed", error={"code": "server_error", "message": "boom"}), 500),
        ({"error": {"message": "boom", "code": 502}}, 502),
        (b'event: error\ndata: {"message": "boom"}', -1),
        (b'{"error": {"message": "boom", "code": 500}}', 500),
    ],
    ids=repr,
)
def test_errors_in_a_stream(event: Any, status: int) -> None:
    heard = hear(body(text("x"), event))
    assert heard.text == "x"
    assert isinstance(heard.error, APIStatusError)
    assert heard.error.status_code == status
    assert "boom" in heard.error.message


@pytest.mark.parametrize(
    ("data", "kind", "words"),
    [
        (b'{"error": {"message": "boom"}}', APIStatusError, "boom"),
        (b'{"ok": 1}', WireError, "expected"),
        (b"<html>boom</html>", WireError, "boom"),
        (b"boom", WireError, "boom"),
        (b"data: {nope\n\n", WireError, "not JSON"),
        (b"{", WireError, "expected"),
    ],
    ids=repr,
)
def test_what_is_no_answer(data: bytes, kind: type[APIError], words: str) -> None:
    heard = hear(data)
    assert isinstance(heard.error, kind)
    assert words in str(heard.error)


def test_a_whole_answer_instead_of_a_stream() -> None:
    data = json.dumps({"status": "completed", "output": [message("x"), call()]}).encode()
    heard = hear(data)
    assert (heard.text, heard.calls, heard.error) == ("x", [LOOK], None)


def test_a_refusal_in_pieces() -> None:
    """Put together at once: to add each piece to what was there would copy all of it each time."""
    pieces = [{"type": "response.refusal.delta", "delta": "No. "} for _ in range(5000)]
    heard = hear(body(*pieces, end()))
    assert isinstance(heard.error, RefusalError)
    assert heard.error.body == "No. " * 5000
    done = {"type": "response.refusal.done", "refusal": "Never."}
    assert hear(body(*pieces[:3], done, end())).error.body == "Never."


def test_memory_is_bounded() -> None:
    decoder = make_decoder()
    decoder.feed(body(item(call(arguments=""), what="added")))
    more = body({"type": "response.function_call_arguments.delta", "delta": "x" * (1 << 20)})
    for _ in range(40):
        if decoder.failure is None:
            decoder.feed(more)
    assert isinstance(decoder.failure, WireError)


FAT = "x" * (1 << 18)


@pytest.mark.parametrize(
    "event",
    [
        lambda n: item({"type": "reasoning", "id": str(n), "summary": [], "more": FAT}, n),
        lambda n: item(call(call_id=str(n), arguments=json.dumps({"a": FAT}), more=FAT), n),
        lambda n: item(call(call_id=str(n), more=FAT, arguments=FAT), n, what="added"),
        lambda n: {"type": "response.output_text.delta", "output_index": n, "delta": "x"},
        lambda n: {"type": "response.output_text.done", "output_index": n, "text": "x"},
    ],
    ids=["reasoning", "calls", "begun calls", "places", "whole texts"],
)
def test_whatever_never_ends_takes_little_memory(event: Callable[[int], Any]) -> None:
    decoder = make_decoder()
    fat = len(body(event(0))) > len(FAT)
    with measure_memory() as memory:
        for n in range(150 if fat else 15_000):
            if decoder.failure is None:
                decoder.feed(body(event(n)))
    assert memory.peak < (24 << 20 if fat else 5 << 19)


@pytest.mark.parametrize("head", [b"data: ", b""], ids=["event", "whole answer"])
def test_json_that_grows_when_it_is_read_is_an_error(head: bytes) -> None:
    data = head + b'{"status":"completed","output":[' + b"{}," * 500_000 + b"{}]}\n\n"
    with measure_memory() as memory:
        decoder = make_decoder()
        decoder.feed(data)
        with pytest.raises(WireError, match="values"):
            decoder.close()
    assert memory.peak < 16 << 20


def test_many_small_pieces_count_for_what_they_take() -> None:
    decoder = make_decoder()
    decoder.feed(body(item(call(arguments=""), what="added")))
    piece = body({"type": "response.function_call_arguments.delta", "delta": "xyz"}) * 5000
    fed = 0
    while decoder.failure is None and fed < 100:
        decoder.feed(piece)
        fed += 1
    assert isinstance(decoder.failure, WireError)


WORDS = [
    "type",
    "delta",
    "item",
    "response",
    "output",
    "status",
    "error",
    "message",
    "content",
    "text",
    "refusal",
    "arguments",
    "id",
    "call_id",
    "name",
    "output_index",
    "summary",
    "usage",
    "input_tokens",
    "incomplete_details",
    "reason",
]
KINDS = [
    "response.output_text.delta",
    "response.output_item.done",
    "response.output_item.added",
    "response.completed",
    "response.incomplete",
    "response.failed",
    "error",
    "message",
    "function_call",
    "reasoning",
    "response.function_call_arguments.delta",
    "response.refusal.delta",
    "response.created",
    "output_text",
    "response.output_text.done",
    "response.reasoning_summary_text.delta",
    "refusal",
]
values = st.recursive(
    st.none() | st.integers(-1, 3) | st.floats() | st.text(max_size=4) | st.sampled_from(KINDS),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(WORDS), inner, max_size=5)
    ),
    max_leaves=15,
)


@given(st.lists(values, max_size=5))
def test_any_json_can_be_an_event(events: list[Any]) -> None:
    hear(body(*events))
    hear(json.dumps(events[0] if events else None).encode())


@given(st.sampled_from(KINDS), values, values, values)
def test_any_json_can_be_in_an_event(kind: str, one: Any, two: Any, three: Any) -> None:
    hear(
        body(
            {"type": kind, "item": one, "delta": two, "response": three, "output_index": two},
            end(output=[one, {"type": kind, "content": two, "arguments": three}], usage=two),
        )
    )


# -- what servers were seen to do ------------------------------------------------------------------


def arguments(text: str, kind: str = "done") -> dict[str, Any]:
    key = "delta" if kind == "delta" else "arguments"
    return {"type": f"response.function_call_arguments.{kind}", "item_id": "fc_1", key: text}


@pytest.mark.parametrize(
    "events",
    [
        pytest.param(
            [arguments('{"a":1}'), item(call(arguments="")), end(output=[call(arguments="")])],
            id="only in the event of their own",
        ),
        pytest.param(
            [arguments('{"a":1}'), item(call(arguments="{}")), end(output=[call(arguments="{}")])],
            id="an empty object at the end",
        ),
        pytest.param(
            [
                arguments('{"a"', "delta"),
                arguments(":1}", "delta"),
                arguments(""),
                item(call(arguments="")),
                end(output=[call(arguments="")]),
            ],
            id="only in pieces",
        ),
        pytest.param(
            [
                *(arguments(text, "delta") for text in ('{"a', '{"a":', '{"a":1}')),
                item(call(arguments="")),
                end(),
            ],
            id="growing snapshots",
        ),
        pytest.param(
            [
                arguments("{}", "delta"),
                arguments('{"a"', "delta"),
                arguments(":1}", "delta"),
                item(call(arguments=""), 4),
                end(),
            ],
            id="an empty object first, and another place when done",
        ),
    ],
)
def test_the_fullest_arguments_count(events: list[Any]) -> None:
    heard = hear(body(item(call(arguments=""), what="added"), *events))
    assert heard.calls == [LOOK]
    assert heard.error is None


def delta(words: str, output: int, content: int) -> dict[str, Any]:
    place = {"output_index": output, "content_index": content}
    return {"type": "response.output_text.delta", "delta": words, **place}


@pytest.mark.parametrize("done", [(1, 0), (1, 1), (0, 0), (3, 2)], ids=str)
def test_places_that_are_counted_otherwise_send_no_text_twice(done: tuple[int, int]) -> None:
    """Bedrock counts `content_index` otherwise in the deltas of gpt-oss and in its finished items."""
    output, content = done
    place = {"output_index": output, "content_index": content}
    heard = hear(
        body(
            delta("Hel", 1, 1),
            delta("lo", 1, 1),
            {"type": "response.output_text.done", "text": "Hello", **place},
            {
                "type": "response.content_part.done",
                "part": {"type": "output_text", "text": "Hello"},
                **place,
            },
            item(message("Hello"), output),
            end(output=[{"type": "reasoning", "id": "rs", "summary": []}, message("Hello")]),
        )
    )
    assert (heard.text, heard.error) == ("Hello", None)


def test_two_equal_texts_are_two() -> None:
    first, second = message("Yes.", id="m1"), message("Yes.", id="m2")
    events = [item(first, 0), item(second, 1), end(output=[first, second])]
    assert hear(body(*events)).text == "Yes.Yes."
    assert hear(body(text("Yes.", 0), text("Yes.", 1), *events)).text == "Yes.Yes."


def test_citations_are_kept_once() -> None:
    cited = {"type": "url_citation", "url": "https://example.com", "start_index": 0}
    said = message("x", id="m")
    said["content"][0]["annotations"] = [cited]
    heard = hear(
        body(
            text("x"),
            {"type": "response.output_text.annotation.added", "annotation": cited},
            item(said),
            end(output=[said]),
        )
    )
    assert heard.extra == [{"openai": {"annotations": [cited]}}]


COMPACTION = {"type": "compaction", "id": "cmp_1", "encrypted_content": "AA"}


def test_compaction_is_kept_with_its_server() -> None:
    heard = hear(body(item(COMPACTION), text("x", 1), end(output=[COMPACTION, message("x")])), host="h")  # fmt: skip
    assert heard.extra == [{"openai": {"output_items": [COMPACTION], "host": "h"}}]


CUSTOM = {
    "type": "custom_tool_call",
    "id": "ctc_1",
    "call_id": "call_7",
    "name": "shell",
    "input": "echo hi",
    "status": "completed",
}


def test_a_custom_call_is_a_call_unless_the_provider_ran_it() -> None:
    heard = hear(body(item(CUSTOM), end(output=[CUSTOM])))
    assert heard.calls == [("call_7", "shell", '{"input":"echo hi"}')]
    assert heard.extra == [{"openai": {"type": "custom_tool_call"}}]
    pieces = [
        item({**CUSTOM, "input": ""}, what="added"),
        {"type": "response.custom_tool_call_input.delta", "item_id": "ctc_1", "delta": "echo "},
        {"type": "response.custom_tool_call_input.delta", "item_id": "ctc_1", "delta": "hi"},
        item({**CUSTOM, "input": ""}),
        end(),
    ]
    assert hear(body(*pieces)).calls == [("call_7", "shell", '{"input":"echo hi"}')]
    ran = hear(
        body(item(CUSTOM), item(message("Done."), 1), end(output=[CUSTOM, message("Done.")]))
    )
    assert (ran.calls, ran.text) == ([], "Done.")
    cut = {**CUSTOM, "status": "incomplete"}
    assert hear(body(text("x"), item(cut, 1), end("incomplete", output=[cut]))).calls == []


@pytest.mark.parametrize("given", ["", " ", '{"amount": 1'])
@pytest.mark.parametrize("status", ["in_progress", None])
def test_a_call_that_turns_out_to_be_cut_is_dropped(given: str, status: str | None) -> None:
    cut = call(arguments=given, status=status)
    details = {"reason": "max_output_tokens"}
    events = [text("x"), item(call(arguments=""), 1, "added"), item(cut, 1)]
    heard = hear(body(*events, end("incomplete", incomplete_details=details)))
    assert (heard.text, heard.calls) == ("x", [])
    assert hear(body(*events, end())).calls == [
        ("call_1", "look", given if given.strip() else "{}")
    ]


def test_fields_that_no_document_names_are_kept() -> None:
    heard = hear(body(item(call(namespace="n"))))
    assert heard.extra == [{"openai": {"fields": {"namespace": "n"}}}]
    said = message("x", id="m", mood="calm")
    assert hear(body(item(said), end())).extra == [{"openai": {"fields": {"mood": "calm"}}}]


def test_thoughts_and_marks_in_the_text_are_not_spoken() -> None:
    leaky = "<think>hm</think>Hi"
    heard = hear(body(*(text(letter) for letter in leaky), item(message(leaky)), end(output=[message(leaky)])))  # fmt: skip
    assert (heard.text, heard.thinking) == ("Hi", "hm")
    heard = hear(body(end(output=[message(leaky)])))
    assert (heard.text, heard.thinking) == ("Hi", "hm")


@pytest.mark.parametrize("code", ["bio_policy", "cyber_policy"])
def test_a_block_by_policy_is_a_refusal(code: str) -> None:
    heard = hear(body(end("failed", error={"code": code, "message": "flagged"})))
    assert isinstance(heard.error, RefusalError)
    assert not heard.error.retryable
