"""What an MCP call costs over a direct call, and what 200 tools cost per request.

    python bench/mcp_calls.py

A server that answers at once runs as a child. Wall time and CPU time of this process, per call,
best of five rounds. (Not named ``mcp.py``: started as a script, that would hide the package.)
"""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import Awaitable, Callable
from typing import Any

from rejoinder._core.items import FunctionCall
from rejoinder.llm import mcp
from rejoinder.llm._execution import execute_function_call
from rejoinder.llm.tool_context import ToolContext, function_tool

SERVER = r"""
import json, sys
prefix, count = sys.argv[1], int(sys.argv[2])
schema = {"type": "object", "properties": {"text": {"type": "string", "description": "a text"},
          "n": {"type": "integer"}}, "required": ["text"]}
tools = [{"name": f"{prefix}{i}", "description": f"The tool {i}", "inputSchema": schema} for i in range(count)]
asked = 0
for line in sys.stdin:
    message = json.loads(line)
    asked += 1
    method = message.get("method")
    if "id" not in message:
        continue
    if method == "initialize":
        result = {"protocolVersion": "2025-11-25", "capabilities": {"tools": {}},
                  "serverInfo": {"name": "quick", "version": "1"}}
    elif method == "tools/list":
        result = {"tools": tools}
    elif message["params"]["name"].endswith("0") and message["params"]["arguments"].get("text") == "asked":
        result = {"content": [{"type": "text", "text": str(asked)}]}
    else:
        result = {"content": [{"type": "text", "text": "ok"}]}
    print(json.dumps({"jsonrpc": "2.0", "id": message["id"], "result": result}), flush=True)
"""


def server(prefix: str, count: int) -> mcp.MCPServerStdio:
    return mcp.MCPServerStdio(sys.executable, ["-I", "-S", "-c", SERVER, prefix, str(count)])


async def best(what: Callable[[], Awaitable[Any]], times: int) -> tuple[float, float]:
    """Microseconds per call: wall, CPU of this process."""
    walls, cpus = [], []
    for _ in range(5):
        wall, cpu = time.perf_counter(), time.process_time()
        for _ in range(times):
            await what()
        walls.append((time.perf_counter() - wall) / times * 1e6)
        cpus.append((time.process_time() - cpu) / times * 1e6)
    return min(walls), min(cpus)


def row(name: str, figures: tuple[float, float]) -> None:
    print(f"{name:<52}{figures[0]:>10.0f}{figures[1]:>10.0f}")


async def calls() -> None:
    from mcp.client import Client
    from mcp.client.stdio import StdioServerParameters, stdio_client

    @function_tool
    async def direct(text: str) -> str:
        return "ok"

    print(f"{'one call, microseconds':<52}{'wall':>10}{'CPU here':>10}")
    row("direct, by execute_function_call", await best(_executed([direct], "direct"), 500))
    async with server("t", 1) as one:
        tools = await one.list_tools()
        row("MCP, by execute_function_call", await best(_executed(tools, "t0"), 500))
        row("MCP, by call_tool", await best(lambda: one.call_tool("t0", {"text": "x"}), 500))
    parameters = StdioServerParameters(command=one.command, args=one.args)
    async with Client(stdio_client(parameters), mode="legacy") as client:
        await client.list_tools()
        row("the SDK alone", await best(lambda: client.call_tool("t0", {"text": "x"}), 500))


def _executed(tools: list[Any], name: str) -> Callable[[], Awaitable[Any]]:
    context = ToolContext(tools)
    call = FunctionCall(call_id="c", name=name, arguments='{"text": "x"}')
    return lambda: execute_function_call(call, context)


async def many_tools() -> None:
    servers = [server(f"s{number}_", 40) for number in range(5)]
    toolsets = [mcp.MCPToolset(id=str(n), mcp_server=s) for n, s in enumerate(servers)]
    began = time.perf_counter()
    await asyncio.gather(*(toolset.setup() for toolset in toolsets))
    print(f"\nfive servers of 40 tools connected and listed: {time.perf_counter() - began:.2f} s")

    local = [
        function_tool(_local(), raw_schema=dict(tool.info.raw_schema))  # type: ignore[union-attr]
        for toolset in toolsets
        for tool in toolset.tools
    ]

    async def request(tools: list[Any]) -> None:
        ToolContext(tools).parse_function_tools("openai")

    began = time.perf_counter()
    await request(toolsets)
    first = (time.perf_counter() - began) * 1e6
    print(f"{'the tools of one request, microseconds':<52}{'wall':>10}{'CPU here':>10}")
    row("200 tools of 5 servers, first request", (first, first))
    row("200 tools of 5 servers, later requests", await best(lambda: request(toolsets), 50))
    row("200 local tools, later requests", await best(lambda: request(local), 50))
    asked = [str(await s.call_tool(f"s{n}_0", {"text": "asked"})) for n, s in enumerate(servers)]
    # initialize, initialized, tools/list, and this very question
    print("messages each server has got, this question included:", [a.split('"')[7] for a in asked])
    for toolset in toolsets:
        await toolset.aclose()


def _local() -> Any:
    async def call(raw_arguments: dict[str, Any]) -> str:
        return "ok"

    return call


async def main() -> None:
    await calls()
    await many_tools()


asyncio.run(main())
