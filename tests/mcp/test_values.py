"""Huge results: refused by a limit that names itself, or read in bounded pieces of work."""

from __future__ import annotations

import asyncio
import json
import sys
from typing import Any

import pytest

import mcp_raw as raw
from mcp_memory import Memory
from rejoinder._core.json_values import LARGE, MAX_VALUES, SLICE
from rejoinder.llm import mcp
from rejoinder.llm.tool_context import ToolError
from rejoinder.mcp import mending, stdio
from rejoinder.mcp.guards import Check
from rejoinder.mcp.mending import PARTS

SERVER = r"""
import json, sys
count, kind = int(sys.argv[1]), sys.argv[2]
part = {"type": "text", "text": "x"}
results = {
    "parts": {"content": [part] * count},
    "structured": {"content": [part], "structuredContent": {"a": [{"b": 1}] * count}},
    "table": {"content": [{"type": "text", "text": "1,2,[3],{4}\n" * count}]},
}
for line in sys.stdin:
    message = json.loads(line)
    if message.get("id") is None:
        continue
    result = {"tools": [{"name": "t", "inputSchema": {"type": "object"}}]}
    if message["method"] == "initialize":
        result = {"protocolVersion": "2025-06-18", "capabilities": {"tools": {}}, "serverInfo": {"name": "h", "version": "1"}}
    if message["method"] == "tools/call":
        result = results[kind]
    print(json.dumps({"jsonrpc": "2.0", "id": message["id"], "result": result}), flush=True)
"""


def huge(kind: str, count: int) -> mcp.MCPServerStdio:
    return mcp.MCPServerStdio(
        sys.executable,
        ["-I", "-S", "-c", SERVER, str(count), kind],
        client_session_timeout_seconds=60,
    )


@pytest.mark.parametrize("kind", ["parts", "structured"])
async def test_too_many_values_are_refused_and_cost_their_call_alone(kind: str) -> None:
    async with huge(kind, 200_000) as server:
        with pytest.raises(ToolError, match="more than 65,536 values"):
            await server.call_tool("t")
        assert len(await server.list_tools()) == 1  # on the same connection
        assert server._supervisor._life is not None
        assert server._supervisor._life._useful


@pytest.mark.parametrize("framing", ["json", "events"])
async def test_too_many_values_are_refused_over_http_too(framing: str) -> None:
    sessions = 0

    def handle(request: raw.Request) -> raw.Answer:
        nonlocal sessions
        sessions += request.rpc == "initialize"
        if request.rpc != "tools/call":
            return raw.usual(request)
        result = {"content": [raw.FINE["content"][0]] * 50_000}
        if framing == "json":
            return raw.rpc(request, result)
        body = json.dumps({"jsonrpc": "2.0", "id": request.message["id"], "result": result})
        return raw.plain(200, f"data: {body}\n\n".encode(), "text/event-stream")

    async with raw.http(handle) as at:
        async with mcp.MCPServerHTTP(at.url, client_session_timeout_seconds=60) as server:
            with pytest.raises(ToolError, match="more than 65,536 values"):
                await server.call_tool("t")
            assert len(await server.list_tools()) == 1
        assert sessions == 1


@pytest.mark.parametrize("framing", ["stdio", "json", "events"])
async def test_a_large_table_is_one_value(framing: str) -> None:
    text = "1,2,[3],{4}\n" * 100_000
    if framing == "stdio":
        async with huge("table", 100_000) as server:
            assert "characters left out" in await server.call_tool("t")
        return

    def handle(request: raw.Request) -> raw.Answer:
        if request.rpc != "tools/call":
            return raw.usual(request)
        result = {"content": [{"type": "text", "text": text}]}
        if framing == "json":
            return raw.rpc(request, result)
        body = json.dumps({"jsonrpc": "2.0", "id": request.message["id"], "result": result})
        return raw.plain(200, f"data: {body}\n\n".encode(), "text/event-stream")

    async with (
        raw.http(handle) as at,
        mcp.MCPServerHTTP(at.url, client_session_timeout_seconds=60) as server,
    ):
        output = await server.call_tool("t")
        assert output.result.parts[0]["text"] == text
        assert len(output) < 110_000


ROWS = [{"b": 1}] * 50_000


@pytest.mark.parametrize(
    "result",
    [
        {"content": [{"type": "text", "text": "x"}] * 50_000},
        {"content": [], "structuredContent": {"a": ROWS}},
        {"content": [{"type": "text", "text": "x", "_meta": {"a": ROWS}}]},
    ],
)
async def test_they_are_refused_too_from_a_transport_that_is_not_ours(result: Any) -> None:
    async def call(message: dict[str, Any], send: Any) -> None:
        await send(id=message["id"], result=result)

    async with Memory(call) as server:
        with pytest.raises(ToolError, match="more than 65,536 values"):
            await server.call_tool("t")
        assert len(await server.list_tools()) == 1
        assert server.connections == 1


@pytest.mark.parametrize("told", [{"id": 7}, {}])
async def test_a_question_or_a_notice_of_many_values_is_dropped(told: dict[str, Any]) -> None:
    async def call(message: dict[str, Any], send: Any) -> None:
        await send(**told, method="notifications/x", params={"a": ROWS})
        await send(id=message["id"], result=raw.FINE)

    async with Memory(call) as server:
        assert await server.call_tool("t")
        assert not [one for one in server.seen if one.get("id") == 7 and "method" not in one]


async def test_the_loop_gets_its_turns_while_a_large_line_is_counted() -> None:
    line = b'{"jsonrpc":"2.0","id":1,"result":{"a":"' + b"x" * (64 * SLICE) + b'"}}'
    inbox = stdio.Inbox(1 << 24)
    inbox.data_received(line + b"\n")
    turns = 0

    async def count() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    counting = asyncio.create_task(count())
    await inbox.receive()
    counting.cancel()
    assert turns >= len(line) // SLICE


async def test_a_line_at_the_limit_is_read_and_one_beyond_it_is_not() -> None:
    for count, fits in ((MAX_VALUES - 7, True), (MAX_VALUES - 6, False)):
        inbox = stdio.Inbox(1 << 24)
        inbox.asked.add(1)
        numbers = json.dumps([10] * count)
        line = f'{{"jsonrpc":"2.0","id":1,"result":{{"a":{numbers}}}}}'.encode()
        assert len(line) > LARGE
        inbox.data_received(line + b"\n")
        message: Any = await inbox.receive()
        assert hasattr(message.message, "result") is fits


@pytest.mark.parametrize("part", [raw.FINE["content"][0], {"type": "chart"}, None])
def test_the_sdk_is_shown_no_more_than_a_model(part: Any) -> None:
    checks = 0
    real = Check("tools/call", "2025-11-25")

    def check(result: dict[str, Any]) -> None:
        nonlocal checks
        checks += 1
        real(result)

    result = {"content": [part] * 20_000, "structuredContent": {"a": [1] * 20_000}}
    view, whole, _ = mending.mend_call(result, check, trusting=True)
    assert len(view["content"]) == PARTS
    assert "structuredContent" not in view
    assert checks <= PARTS + 1
    assert len(whole["content"]) == 20_000
    assert whole["structuredContent"] == result["structuredContent"]


async def test_all_parts_reach_the_program_and_the_first_the_model() -> None:
    async with huge("parts", 10_000) as server:
        output = await server.call_tool("t")
    assert len(output.result.parts) == 10_000
    shown = json.loads(output)
    assert len(shown) == PARTS + 1
    assert shown[-1] == "[cut: 9,000 of 10,000 parts left out]"


async def test_large_structured_data_reaches_program_and_resolver() -> None:
    async with huge("structured", 5_000) as server:
        output = await server.call_tool("t")
    assert len(output.structured["a"]) == 5_000
    assert output.result.raw.structured_content == output.structured
    assert '{"structuredContent":{"a":[{"b":1}' in output
