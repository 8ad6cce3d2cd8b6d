"""A server that cannot read the state it is sent back is asked once more without it."""

from __future__ import annotations

import json
from typing import Any, ClassVar, Self

import pytest

from contract.rows import ROWS, Row
from rejoinder.errors import APIError
from rejoinder.llm.chat_context import ChatContext, FunctionCall, FunctionCallOutput
from rejoinder.llm.tool_context import function_tool
from rejoinder.providers import anthropic, aws, google, openai
from rejoinder.testing.faults import Answer, Fault, FaultServer
from rejoinder.transport.http import Request
from rejoinder.types import APIConnectOptions
from rejoinder.wire.eventstream import encode_message

ONCE = APIConnectOptions(max_retry=0, timeout=5)
REFUSALS = {
    "openai": "Item 'rs_1' of type 'reasoning' was provided without its required following item.",
    "responses": "The encrypted content could not be verified.",
    "anthropic": "messages.1.content.0: Invalid `signature` in `thinking` block",
    "google": "Unable to submit request because Thought signature is not valid.",
    "bedrock-anthropic": "messages.1.content.0: Invalid `signature` in `thinking` block",
    "bedrock": "messages.1.content.0: Invalid `signature` in `thinking` block",
    "mistral": "extra inputs are not permitted",
}
STATE: dict[str, Any] = {
    "openai": {
        "reasoning_items": [
            {"type": "reasoning", "id": "rs_1", "summary": [], "encrypted_content": "SECRET-STATE"}
        ],
        "item_id": "fc_1",
    },
    "anthropic": {"thinking": [{"type": "thinking", "thinking": "t", "signature": "SECRET-STATE"}]},
    "google": {"thought_signature": "U0VDUkVULVNUQVRF"},
    "aws": {"reasoning": [{"reasoningText": {"text": "t", "signature": "SECRET-STATE"}}]},
}


@function_tool
async def get() -> str:
    """Get."""
    return ""


def conversation() -> ChatContext:
    context = ChatContext.empty()
    context.add_message(role="user", content="weather?")
    context.items.extend(
        [
            FunctionCall(call_id="abcdefgh1", name="get", arguments="{}", extra=dict(STATE)),
            FunctionCallOutput(call_id="abcdefgh1", name="get", output="sun", is_error=False),
        ]
    )
    return context


def has_state(body: bytes) -> bool:
    text = json.dumps(json.loads(body))
    return "SECRET-STATE" in text or "U0VDUkVULVNUQVRF" in text


@pytest.mark.parametrize("fault", [Fault.NONE, Fault.JSON_ERROR_200], ids=["status", "whole"])
@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.name)
async def test_the_request_is_made_once_more_without_the_state(row: Row, fault: Fault) -> None:
    if fault in row.differs:
        pytest.skip(row.differs[fault])
    refusal = Answer(
        status=400 if fault is Fault.NONE else None, fault=fault, message=REFUSALS[row.format]
    )
    async with FaultServer() as server, row.make(server.url) as llm:
        server.script(refusal, Answer(text="Sunny."))
        stream = llm.chat(chat_ctx=conversation(), tools=[get], conn_options=ONCE)
        assert (await stream.collect()).text == "Sunny."
        first, second = server.requests
        assert has_state(first.body) is (row.format != "mistral")
        assert not has_state(second.body)
        for word in ("weather?", "sun", "get"):
            assert word in second.body.decode()


class Replies:
    """A transport that answers with these bodies."""

    def __init__(self, *bodies: bytes) -> None:
        self.bodies = list(bodies)
        self.requests: list[bytes] = []

    async def send(self, request: Request) -> Any:
        self.requests.append(request.body or b"")
        return _Reply(self.bodies.pop(0))

    async def prewarm(self, url: str, *, timeout: float = 10.0) -> None: ...

    async def aclose(self) -> None: ...


class _Reply:
    status = 200
    headers: ClassVar[dict[str, str]] = {"content-type": "text/event-stream"}

    def __init__(self, body: bytes) -> None:
        self._body = body

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None: ...

    async def read_some(self) -> bytes:
        body, self._body = self._body, b""
        return body


def events(*values: dict[str, Any]) -> bytes:
    return b"".join(b"data: " + json.dumps(value).encode() + b"\n\n" for value in values)


async def test_a_refusal_in_the_stream_counts_too() -> None:
    error = {"code": "invalid_encrypted_content", "message": "no"}
    failed = {
        "type": "response.failed",
        "response": {"id": "r", "status": "failed", "error": error},
    }
    message = {
        "type": "message", "id": "m", "role": "assistant", "status": "completed",
        "content": [{"type": "output_text", "text": "Sunny.", "annotations": []}],
    }  # fmt: skip
    done = {
        "type": "response.completed",
        "response": {"id": "r", "status": "completed", "output": [message]},
    }
    replies = Replies(events(failed), events(done))
    llm = openai.LLM(model="gpt-5", api_key="k", api="responses", transport=replies)
    reply = await llm.chat(chat_ctx=conversation(), tools=[get], conn_options=ONCE).collect()
    assert reply.text == "Sunny."
    assert [has_state(body) for body in replies.requests] == [True, False]
    assert "fc_1" not in replies.requests[1].decode(), "nor the id of the call that it led to"
    await llm.aclose()


def frames(*values: tuple[str, str, dict[str, Any]]) -> bytes:
    """Of AWS: the kind of each message, its name, and what it holds."""
    return b"".join(
        encode_message(
            {f":{kind}-type": name, ":content-type": "application/json", ":message-type": kind},
            json.dumps(value).encode(),
        )
        for kind, name, value in values
    )


SIGNATURE = "messages.1.content.0: Invalid `signature` in `thinking` block"
IN_THE_STREAM: dict[str, tuple[Any, bytes, bytes]] = {
    "anthropic": (
        lambda transport: anthropic.LLM(
            model="claude-sonnet-4-5", api_key="k", transport=transport
        ),
        events(
            {"type": "message_start", "message": {"id": "m", "usage": {"input_tokens": 3}}},
            {"type": "error", "error": {"type": "invalid_request_error", "message": SIGNATURE}},
        ),
        events(
            {"type": "message_start", "message": {"id": "m"}},
            {
                "type": "content_block_start",
                "index": 0,
                "content_block": {"type": "text", "text": "Sunny."},
            },
            {"type": "message_delta", "delta": {"stop_reason": "end_turn"}},
            {"type": "message_stop"},
        ),
    ),
    "bedrock": (
        lambda transport: aws.LLM(
            model="us.anthropic.claude-sonnet-4-5-20250929-v1:0",
            bearer_token="k",
            region="us-east-1",
            transport=transport,
        ),
        frames(
            ("event", "messageStart", {"role": "assistant"}),
            ("exception", "validationException", {"message": SIGNATURE}),
        ),
        frames(
            ("event", "messageStart", {"role": "assistant"}),
            (
                "event",
                "contentBlockDelta",
                {"contentBlockIndex": 0, "delta": {"text": "Sunny."}},
            ),
            ("event", "messageStop", {"stopReason": "end_turn"}),
        ),
    ),
    "gemini": (
        lambda transport: google.LLM(model="gemini-2.5-flash", api_key="k", transport=transport),
        events({"error": {"code": 400, "message": "Thought signature is not valid."}}),
        events(
            {"candidates": [{"content": {"parts": [{"text": "Sunny."}]}, "finishReason": "STOP"}]}
        ),
    ),
    "xai": (
        lambda transport: openai.LLM(
            model="grok-4.3",
            api="responses",
            base_url="https://api.x.ai/v1",
            api_key="k",
            transport=transport,
        ),
        events(
            {
                "type": "response.failed",
                "response": {
                    "status": "failed",
                    "error": {"message": "Could not decrypt the provided encrypted_content."},
                },
            }
        ),
        events(
            {"type": "response.output_text.delta", "delta": "Sunny.", "output_index": 0},
            {"type": "response.completed", "response": {"status": "completed", "output": []}},
        ),
    ),
}


@pytest.mark.parametrize("where", IN_THE_STREAM)
async def test_a_refusal_in_the_stream_is_known_in_the_words_of_each_server(where: str) -> None:
    make, refusal, answer = IN_THE_STREAM[where]
    replies = Replies(refusal, answer)
    llm = make(replies)
    reply = await llm.chat(chat_ctx=conversation(), tools=[get], conn_options=ONCE).collect()
    assert reply.text == "Sunny."
    assert [has_state(body) for body in replies.requests] == [True, False]
    await llm.aclose()


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.name)
async def test_a_second_refusal_is_told(row: Row) -> None:
    refusal = Answer(status=400, message=REFUSALS[row.format])
    async with FaultServer(default=refusal) as server, row.make(server.url) as llm:
        with pytest.raises(APIError, match=REFUSALS[row.format][:20].replace("`", ".")):
            await llm.chat(chat_ctx=conversation(), tools=[get], conn_options=ONCE).collect()
        assert len(server.requests) == 2


async def test_refused_state_is_remembered_by_its_item() -> None:
    row = next(row for row in ROWS if row.name == "anthropic")
    context = conversation()
    async with FaultServer() as server, row.make(server.url) as llm:
        server.script(Answer(status=400, message=REFUSALS["anthropic"]), Answer(text="Sunny."))
        await llm.chat(chat_ctx=context, conn_options=ONCE).collect()
        fresh = FunctionCall(call_id="abcdefgh2", name="get", arguments="{}", extra=dict(STATE))
        output = FunctionCallOutput(call_id="abcdefgh2", name="get", output="r", is_error=False)
        context.items.extend([fresh, output])
        server.script(Answer(text="Warm."))
        await llm.chat(chat_ctx=context, conn_options=ONCE).collect()
        assert len(server.requests) == 3, "no turn pays for the refusal again"
        assert server.requests[-1].body.decode().count("SECRET-STATE") == 1
        assert context.items[1].extra == STATE, "the conversation of the caller stays as it is"


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.name)
async def test_without_state_nothing_is_asked_twice(row: Row) -> None:
    context = ChatContext.empty()
    context.add_message(role="user", content="hello")
    refusal = Answer(status=400, message=REFUSALS[row.format])
    async with FaultServer(default=refusal) as server, row.make(server.url) as llm:
        with pytest.raises(APIError):
            await llm.chat(chat_ctx=context, conn_options=ONCE).collect()
        assert len(server.requests) == 1
