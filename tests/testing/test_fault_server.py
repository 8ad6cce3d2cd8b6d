"""The server itself: commands, counting, keep-alive, and what it says byte by byte."""

from __future__ import annotations

import asyncio
import base64
import json

import pytest

from rejoinder.errors import APIConnectionError
from rejoinder.testing._dialects import DIALECTS, Format, format_of
from rejoinder.testing.faults import GREETING, Answer, Call, Fault, FaultServer, Usage
from rejoinder.testing.leaks import no_leaks
from rejoinder.transport._aiohttp import AiohttpTransport
from rejoinder.transport.http import Request
from rejoinder.wire.eventstream import EventStreamDecoder
from rejoinder.wire.sse import SSEDecoder

PATHS: dict[str, Format] = {
    "/v1/chat/completions": "openai",
    "/openai/deployments/x/chat/completions?api-version=1": "openai",
    "/v1/responses": "responses",
    "/v1/messages": "anthropic",
    "/v1/projects/p/publishers/anthropic/models/m:streamRawPredict": "anthropic",
    "/v1beta/models/m:streamGenerateContent?alt=sse": "google",
    "/v1beta/models/m:streamGenerateContent": "google-array",
    "/model/m/converse-stream": "bedrock",
    "/model/m/invoke-with-response-stream": "bedrock-anthropic",
}


async def body_of(url: str, transport: AiohttpTransport) -> bytes:
    async with await transport.send(Request("POST", url, {}, b"{}")) as response:
        return await response.read_all()


@pytest.mark.parametrize("path", PATHS)
def test_the_address_tells_the_format(path: str) -> None:
    assert format_of(path) == PATHS[path]


@pytest.mark.parametrize("format", DIALECTS)
async def test_what_is_scripted_is_said(format: Format) -> None:
    answer = Answer(
        text=("one", "zwei é"),
        thinking="thought",
        calls=(Call("tool", '{"a": 1}', "id_9"),),
        usage=Usage(101, 23),
        format=format,
    )
    async with FaultServer() as server:
        server.script(answer)
        transport = AiohttpTransport()
        body = await body_of(server.url + "/any", transport)
        await transport.aclose()
    if format == "bedrock":
        values = [json.loads(message.payload) for message in EventStreamDecoder().feed(body)]
    elif format == "bedrock-anthropic":
        wrapped = [json.loads(message.payload) for message in EventStreamDecoder().feed(body)]
        values = [json.loads(base64.b64decode(value["bytes"])) for value in wrapped]
    elif format == "google-array":
        values = json.loads(body)
    else:
        events = SSEDecoder().feed(body)
        values = [json.loads(data) for _, data in events if data != b"[DONE]"]
    said = json.dumps(values, ensure_ascii=False)
    for word in ("one", "zwei é", "thought", "tool", "101", "23"):
        assert word in said
    assert len(values) >= 4


async def test_the_script_is_played_in_order_then_the_default() -> None:
    async with FaultServer(default=Fault.STATUS_503) as server:
        transport = AiohttpTransport()

        async def status() -> int:
            request = Request("POST", server.url + "/v1/messages", {"X-A": "b"}, b'{"n": 1}')
            async with await transport.send(request) as response:
                await response.read_all()
                return response.status

        server.script(Fault.NONE, Fault.STATUS_404)
        assert server.unused == 2
        assert [await status() for _ in range(4)] == [200, 404, 503, 503]
        server.always(Fault.NONE)
        server.script(Answer(status=418))
        assert [await status() for _ in range(2)] == [418, 200]
        assert server.unused == 0
        await transport.prewarm(server.url)
        assert (len(server.requests), server.warmups, server.connections) == (6, 1, 1)
        request = server.requests[0]
        assert (request.method, request.path, request.json()) == ("POST", "/v1/messages", {"n": 1})
        assert request.headers["x-a"] == "b"
        assert "x-a" not in repr(request)
        await transport.aclose()
        await server.all_closed()
        assert server.open_connections == 0


async def test_requests_in_chunks_are_read() -> None:
    async with FaultServer() as server:
        reader, writer = await asyncio.open_connection("127.0.0.1", int(server.url[-5:].strip(":")))
        writer.write(
            b"POST /v1/messages HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n"
            b"2\r\n{}\r\n3;x=y\r\n   \r\n0\r\n\r\n"
        )
        assert (await reader.readline()).startswith(b"HTTP/1.1 200 ")
        writer.close()
        await writer.wait_closed()
        assert server.requests[0].body == b"{}   "


async def test_closing_ends_stalls() -> None:
    async with no_leaks():
        transport = AiohttpTransport()
        async with FaultServer(default=Fault.STALL_BEFORE_OUTPUT) as server:
            response = await transport.send(Request("POST", server.url + "/v1/messages"))
            await response.read_some()
        with pytest.raises(APIConnectionError):
            await response.read_some()
        await transport.aclose()


def test_it_has_no_address_before_it_runs() -> None:
    with pytest.raises(RuntimeError, match="does not run"):
        _ = FaultServer().url
    with pytest.raises(RuntimeError, match="does not run"):
        _ = FaultServer().elsewhere


@pytest.mark.parametrize(
    ("answer", "pieces"),
    [
        (Answer(), ()),
        (Answer(text="Hello"), ("Hello",)),
        (Answer(text=["Hel", "lo"]), ("Hel", "lo")),
        (Answer(calls=(Call("f", "{}", "c"),)), ()),
        (Answer(fault=Fault.GZIP), GREETING),
        (Answer(calls=(Call("f", "{}", "c"),), fault=Fault.GZIP), ()),
    ],
)
def test_the_pieces_of_an_answer(answer: Answer, pieces: tuple[str, ...]) -> None:
    assert answer.pieces == pieces
