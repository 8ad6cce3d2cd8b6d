"""What a server of the dialect writes: our own decoder, and OpenAI's types, read it as it was meant."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from openai.types.chat import ChatCompletion, ChatCompletionChunk

from rejoinder._core.chunks import (
    ChatChunk,
    ChoiceDelta,
    CollectedResponse,
    CompletionUsage,
    FunctionToolCall,
)
from rejoinder.errors import (
    APIConnectionError,
    APIStatusError,
    APITimeoutError,
    ConfigurationError,
)
from rejoinder.providers.completions.serve import (
    DONE,
    CompletionWriter,
    error_object,
    status_of,
)
from rejoinder.providers.completions.wire import decode_error, make_decoder

USAGE = CompletionUsage(
    prompt_tokens=20,
    completion_tokens=9,
    total_tokens=29,
    prompt_cached_tokens=16,
    cache_read_tokens=16,
    reasoning_tokens=4,
)


def writer(**options: Any) -> CompletionWriter:
    return CompletionWriter(completion_id="chatcmpl-1", model="m", created=1767225600, **options)


def said(**delta: Any) -> ChatChunk:
    return ChatChunk(id="x", delta=ChoiceDelta(role="assistant", **delta))


def call(number: int, arguments: str = '{"city": "Köln"}') -> FunctionToolCall:
    return FunctionToolCall(name="look_up", arguments=arguments, call_id=f"call_{number}")


chunks = st.lists(
    st.one_of(
        st.builds(lambda text: said(content=text), st.text(min_size=1, max_size=8)),
        st.builds(lambda text: said(thinking=text), st.text(min_size=1, max_size=8)),
        st.builds(lambda: ChatChunk(id="x", usage=USAGE)),
    ),
    max_size=8,
)
calls = st.lists(st.sampled_from(["{}", '{"city": "Köln"}', '{"a": [1, null]}']), max_size=3)


@given(chunks=chunks, arguments=calls)
def test_what_is_written_is_read(chunks: list[ChatChunk], arguments: list[str]) -> None:
    made = [*chunks, said(content="."), *(
        said(tool_calls=[call(number, text)]) for number, text in enumerate(arguments)
    )]  # fmt: skip
    out = writer()
    body = out.open() + b"".join(map(out.feed, made)) + out.close()
    decoder = make_decoder()
    read = [*decoder.feed(body), *decoder.close()]
    assert decoder.failure is None
    for name in ("content", "thinking"):
        texts = [
            "".join(getattr(chunk.delta, name) or "" for chunk in found if chunk.delta)
            for found in (made, read)
        ]
        assert texts[0] == texts[1]
    assert [c.arguments for chunk in read if chunk.delta for c in chunk.delta.tool_calls] == (
        arguments
    )
    usages = [chunk.usage for chunk in read if chunk.usage is not None]
    assert bool(usages) == any(chunk.usage is not None for chunk in made)
    for usage in usages:
        assert (usage.prompt_tokens, usage.completion_tokens) == (20, 9)
        assert (usage.cache_read_tokens, usage.reasoning_tokens) == (16, 4)


def test_each_event_is_one_of_openai() -> None:
    out = writer()
    made = [said(content="Hi", tool_calls=[call(1), call(2)]), ChatChunk(id="x", usage=USAGE)]
    events = (out.open() + b"".join(map(out.feed, made)) + out.close()).split(b"\n\n")
    assert events[-2:] == [DONE.strip(), b""]
    read = [ChatCompletionChunk.model_validate(json.loads(event[6:])) for event in events[:-2]]
    indexes = [c.index for chunk in read if chunk.choices for c in chunk.choices[0].delta.tool_calls or ()]  # fmt: skip
    assert indexes == [0, 1]
    assert [chunk.choices[0].finish_reason for chunk in read if chunk.choices][-1] == "tool_calls"
    assert read[-1].usage is not None
    assert not read[-1].choices


def test_usage_only_where_it_is_asked_for() -> None:
    out = writer(include_usage=False)
    assert out.feed(ChatChunk(id="x", usage=USAGE)) == b""
    assert b"usage" not in out.close("length")


def test_a_whole_reply() -> None:
    reply = CollectedResponse(text="Hi", tool_calls=[call(1)], usage=USAGE, extra={}, thinking="Hm")
    found = ChatCompletion.model_validate_json(writer().whole(reply))
    message = found.choices[0].message
    assert message.content == "Hi"
    assert found.choices[0].finish_reason == "tool_calls"
    assert found.usage is not None
    assert found.usage.total_tokens == 29
    decoder = make_decoder()
    read = [*decoder.feed(writer().whole(reply)), *decoder.close()]
    assert "".join((c.delta.content or "") for c in read if c.delta) == "Hi"


@pytest.mark.parametrize(
    ("error", "status", "words"),
    [
        (APIStatusError("slow down", status_code=429), 429, "slow down"),
        (APIStatusError("odd", status_code=-1), 502, "odd"),
        (APITimeoutError("late"), 504, "late"),
        (APIConnectionError("gone"), 502, "gone"),
        (ConfigurationError("tools: no"), 400, "tools: no"),
        (KeyError("a secret of the server"), 500, "internal error"),
    ],
)
def test_errors(error: Exception, status: int, words: str) -> None:
    assert status_of(error) == status
    body = json.dumps({"error": error_object(error)}).encode()
    read = decode_error(status, {}, body)
    assert isinstance(read, APIStatusError)
    assert read.status_code == status
    assert read.message == words
    decoder = make_decoder()
    decoder.feed(writer().open() + writer().fail(error))
    assert words in str(decoder.failure)
