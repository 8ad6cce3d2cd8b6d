"""What is sent to Mistral, and what its own ways of answering lead to."""

from __future__ import annotations

import json
from typing import Any

import pydantic
import pytest
from mistralai.client.models import ChatCompletionStreamRequest

from providers.conversation import (
    IMAGE,
    ONCE,
    RAW_SCHEMA,
    TOOLS,
    WEATHER_SCHEMA,
    conversation,
    sent,
)
from rejoinder.errors import (
    APIConnectionError,
    APIStatusError,
    ConfigurationError,
    EmptyResponseError,
)
from rejoinder.llm import AudioContent, ImageContent
from rejoinder.llm.chat_context import ChatContext
from rejoinder.media import AudioFrame
from rejoinder.providers import mistralai
from rejoinder.providers.mistralai.wire import decode_error, make_decoder
from rejoinder.testing.chunking import byte_by_byte
from rejoinder.testing.faults import Answer, FaultServer
from rejoinder.testing.history import assert_legal


def mistral(**options: Any) -> Any:
    return lambda url: mistralai.LLM(**{"api_key": "mk", "base_url": f"{url}/v1", **options})


def fits(body: dict[str, Any]) -> dict[str, Any]:
    """`body`, if it is what the vendor's own types say it has to be."""
    ChatCompletionStreamRequest.model_validate(body)
    assert_legal("mistralai", body)
    return body


async def test_every_option() -> None:
    make = mistral(temperature=0.3, max_completion_tokens=20)
    request = await sent(
        make,
        tools=TOOLS,
        tool_choice={"type": "function", "function": {"name": "raw_tool"}},
        parallel_tool_calls=True,
    )
    assert request.path == "/v1/chat/completions"
    assert request.headers["authorization"] == "Bearer mk"
    assert request.headers["accept"] == "text/event-stream"
    body = fits(request.json())
    messages = body.pop("messages")
    # As LiveKit Agents 1.2.17 wants to send it: there max_completion_tokens makes every call fail,
    # and the schemas are OpenAI's strict ones.
    assert body == {
        "model": "ministral-8b-latest",
        "stream": True,
        "temperature": 0.3,
        "max_tokens": 20,
        "parallel_tool_calls": True,
        "tool_choice": {"type": "function", "function": {"name": "raw_tool"}},
        "tools": [
            {
                "type": "function",
                "function": {
                    "name": "get_weather",
                    "description": "Look up the weather.\n",
                    "parameters": WEATHER_SCHEMA,
                },
            },
            {
                "type": "function",
                "function": {"name": "raw_tool", "description": "raw", "parameters": RAW_SCHEMA},
            },
        ],
    }
    assert messages[0] == {"role": "system", "content": "You are S."}
    assert messages[1]["content"][1]["image_url"]["url"] == IMAGE
    first, second = messages[2]["tool_calls"]
    assert [call["function"]["arguments"] for call in (first, second)] == ['{"city":"Rome"}', "{}"]
    assert [m["content"] for m in messages if m["role"] == "tool"] == ["sunny", "boom"]
    assert messages[-1] == {"role": "user", "content": "and now?"}


async def test_a_plain_request() -> None:
    body = fits((await sent(mistral())).json())
    assert set(body) == {"model", "stream", "messages"}


async def test_a_developer_is_the_system() -> None:
    context = ChatContext.empty()
    context.add_message(role="developer", content="Be brief.")
    context.add_message(role="user", content="hi")
    body = fits((await sent(mistral(), context)).json())
    assert [m["role"] for m in body["messages"]] == ["system", "user"]


class Person(pydantic.BaseModel):
    name: str


async def test_further_parameters() -> None:
    extra = {
        "safe_prompt": True,
        "max_completion_tokens": 9,
        "extra_headers": {"X-Mine": "1"},
        "extra_query": {"a": "1"},
        "extra_body": {"random_seed": 3},
    }
    request = await sent(mistral(), extra_kwargs=extra, response_format=Person)
    body = fits(request.json())
    assert (body["safe_prompt"], body["max_tokens"], body["random_seed"]) == (True, 9, 3)
    assert body["response_format"]["json_schema"]["name"] == "Person"
    assert request.headers["x-mine"] == "1"
    assert request.path == "/v1/chat/completions?a=1"


async def test_sound_and_documents() -> None:
    context = ChatContext.empty()
    parts: list[Any] = [
        AudioContent(frame=[AudioFrame(b"\1\0" * 80, 8000, 1, 80)], transcript="spoken"),
        "hear",
        ImageContent(image="data:application/pdf;base64,JVBERg=="),
        ImageContent(image="https://example.com/x.docx", mime_type="application/msword"),
    ]
    context.add_message(role="user", content=parts)
    heard = fits((await sent(mistral(model="voxtral-small-latest"), context)).json())
    kinds = [part["type"] for part in heard["messages"][0]["content"]]
    assert kinds == ["input_audio", "document_url", "document_url", "text"]
    assert heard["messages"][0]["content"][-1]["text"] == "hear"
    read = fits((await sent(mistral(), context)).json())
    assert read["messages"][0]["content"][-1]["text"] == "spoken\nhear"


def test_positions_and_keys(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MISTRAL_API_KEY", raising=False)
    with pytest.raises(ConfigurationError, match="MISTRAL_API_KEY"):
        mistralai.LLM()
    llm = mistralai.LLM("mistral-small", "key", None, 0.5, 10, None)
    assert (llm.model, llm.provider) == ("mistral-small", "MistralAI")
    monkeypatch.setenv("MISTRAL_API_KEY", "k")
    assert mistralai.LLM()._base_url == "https://api.mistral.ai/v1"


async def test_key_and_address_of_a_client(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MISTRAL_API_KEY", raising=False)
    from mistralai.client import Mistral

    async with FaultServer() as server:
        with Mistral(api_key="client-key", server_url=server.url) as client:
            async with mistralai.LLM(client=client) as llm:
                await llm.chat(chat_ctx=conversation(), conn_options=ONCE).collect()
        assert server.requests[0].headers["authorization"] == "Bearer client-key"
        assert server.requests[0].path == "/v1/chat/completions"


# -- answers -----------------------------------------------------------------------------------


def sse(*deltas: Any, usage: Any = None, finish: str | None = "stop", done: bool = True) -> bytes:
    items = [{"id": "m1", "choices": [{"index": 0, "delta": delta}], "p": "ab"} for delta in deltas]
    if finish is not None:
        items.append({"id": "m1", "choices": [{"index": 0, "delta": {}, "finish_reason": finish}]})
        if usage is not None:
            items[-1]["usage"] = usage
    body = b"".join(b"data: " + json.dumps(item).encode() + b"\n\n" for item in items)
    return body + (b"data: [DONE]\n\n" if done else b"")


def said(body: bytes) -> tuple[str, str, list[Any], Any]:
    decoder = make_decoder()
    chunks = [chunk for piece in byte_by_byte(body) for chunk in decoder.feed(piece)]
    chunks += decoder.close()
    deltas = [chunk.delta for chunk in chunks if chunk.delta is not None]
    return (
        "".join(delta.content or "" for delta in deltas),
        "".join(delta.thinking or "" for delta in deltas),
        [(c.call_id, c.name, c.arguments) for delta in deltas for c in delta.tool_calls],
        next((chunk.usage for chunk in chunks if chunk.usage), None),
    )


def test_usage_beside_the_reason_to_stop() -> None:
    counts = {"prompt_tokens": 5, "completion_tokens": 2, "total_tokens": 7}
    text, _, _, usage = said(sse({"content": "Hi"}, usage=counts))
    assert text == "Hi"
    assert (usage.prompt_tokens, usage.completion_tokens, usage.total_tokens) == (5, 2, 7)


def test_calls_whole_and_in_fragments() -> None:
    whole = {"id": "abc123def", "function": {"name": "f", "arguments": '{"a": 1}'}}
    objects = {"id": "abc123deg", "function": {"name": "g", "arguments": {"b": 2}}}
    _, _, calls, _ = said(sse({"tool_calls": [whole, objects]}, finish="tool_calls"))
    assert [(c[0], c[1], json.loads(c[2])) for c in calls] == [
        ("abc123def", "f", {"a": 1}),
        ("abc123deg", "g", {"b": 2}),
    ]
    fragments = [
        {"tool_calls": [{"index": 0, "id": "x", "function": {"name": "f", "arguments": ""}}]},
        {"tool_calls": [{"index": 0, "function": {"arguments": '{"a":'}}]},
        {"tool_calls": [{"index": 0, "function": {"arguments": "1}"}}]},
    ]
    assert said(sse(*fragments, finish="tool_calls"))[2] == [("x", "f", '{"a":1}')]


def test_typed_content() -> None:
    thought = {"type": "thinking", "thinking": [{"type": "text", "text": "hm"}]}
    reference = {"type": "reference", "reference_ids": [1]}
    text, thinking, _, _ = said(
        sse({"content": [thought]}, {"content": [{"type": "text", "text": "Hi"}, reference]})
    )
    assert (text, thinking) == ("Hi", "hm")


def test_a_stream_without_its_end_mark_is_an_error() -> None:
    with pytest.raises(APIConnectionError):
        said(sse({"content": "Hi"}, finish=None, done=False))
    with pytest.raises(EmptyResponseError):
        said(sse())


def test_errors_before_the_stream() -> None:
    error = decode_error(
        429, {"retry-after": "2"}, b'{"object":"error","message":"Slow down","type":"rate_limited"}'
    )
    assert isinstance(error, APIStatusError)
    assert (error.status_code, error.retryable, error.retry_after) == (429, True, 2)
    assert "Slow down" in str(error)
    detail = decode_error(401, {}, b'{"detail":"Invalid API Key"}')
    assert "Invalid API Key" in str(detail)
    assert not detail.retryable


async def test_every_error_of_the_reference_was_a_connection_error() -> None:
    async with FaultServer() as server, mistral()(server.url) as llm:
        server.script(Answer(status=429, headers={"retry-after": "0"}), Answer(text="Hello"))
        reply = await llm.chat(chat_ctx=conversation()).collect()
        assert reply.text
        assert len(server.requests) == 2
