"""Servers that nobody here wrote: one from npm, one from the Python package index."""

from __future__ import annotations

import asyncio
import json
import os
import socket
import subprocess
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from outside.environment import node, python
from rejoinder._core.items import ImageContent
from rejoinder.errors import APIConnectionError, APIError
from rejoinder.llm import mcp
from rejoinder.llm.tool_context import ToolContext, ToolError
from rejoinder.turn import run_turn

# The first run makes their environments.
pytestmark = pytest.mark.timeout(600)

EVERYTHING = "@modelcontextprotocol/server-everything/dist/index.js"


@pytest.fixture(scope="session")
def everything() -> list[str]:
    return node("server-everything", EVERYTHING)


@pytest.fixture(scope="session")
def clock() -> str:
    return str(python("mcp-server-time").with_name("mcp-server-time"))


async def person(question: mcp.Elicitation) -> mcp.ElicitationAnswer:
    if question.url is not None:
        return mcp.ElicitationAnswer("accept")
    return mcp.ElicitationAnswer("accept", {"name": "Ada", "check": True})


OPTIONS: Any = {
    "client_session_timeout_seconds": 20,
    "startup_timeout": 60,
    "elicitation": person,
}


@pytest.fixture
def port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@asynccontextmanager
async def connected(transport: str, command: list[str], port: int) -> AsyncIterator[mcp.MCPServer]:
    if transport == "stdio":
        async with mcp.MCPServerStdio(command[0], [*command[1:], "stdio"], **OPTIONS) as server:
            yield server
        return
    process = await asyncio.create_subprocess_exec(
        *command,
        "streamableHttp",
        env={**os.environ, "PORT": str(port)},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        server = mcp.MCPServerHTTP(f"http://127.0.0.1:{port}/mcp", **OPTIONS)
        for _ in range(200):
            try:
                await server.initialize()
                break
            except APIConnectionError:
                await asyncio.sleep(0.1)
        async with server:
            yield server
    finally:
        process.kill()
        await process.wait()


ARGUMENTS: dict[str, dict[str, Any]] = {
    "echo": {"message": "hello"},
    "get-annotated-message": {"messageType": "success", "includeImage": True},
    "get-resource-links": {"count": 2},
    "get-resource-reference": {"resourceType": "Blob", "resourceId": 1},
    "get-structured-content": {"location": "New York"},
    "get-sum": {"a": 17, "b": 25},
    "gzip-file-as-resource": {
        "name": "a.gz", "data": "data:text/plain;base64,aGVsbG8=", "outputType": "resource",
    },
    "trigger-long-running-operation": {"duration": 0.2, "steps": 2},
    "trigger-url-elicitation": {"url": "https://example.org/", "message": "open it"},
    "simulate-research-query": {"topic": "tea"},
}  # fmt: skip

EXPECTED = {
    "echo": "Echo: hello",
    "get-annotated-message": "image/png",
    "get-env": "PATH",
    "get-resource-links": "resource_link",
    "get-resource-reference": '"bytes":',
    "get-structured-content": "temperature",
    "get-sum": "42",
    "get-tiny-image": "image/png",
    "gzip-file-as-resource": '"bytes":',
    "toggle-simulated-logging": "logging",
    "toggle-subscriber-updates": "updates",
    "trigger-long-running-operation": "completed",
    "trigger-elicitation-request": "Ada",
    "trigger-url-elicitation": "completed",
}
# This one answers only to the task extension, which the protocol has dropped again.
REFUSES = {"simulate-research-query"}


@pytest.mark.parametrize("transport", ["stdio", "streamable_http"])
async def test_every_tool_of_server_everything(
    transport: str, everything: list[str], port: int, lab: Any
) -> None:
    async with lab.nothing_left(), connected(transport, everything, port) as server:
        assert server.server_info is not None
        assert server.server_info.name == "mcp-servers/everything"
        tools = await server.list_tools()
        assert {tool.id for tool in tools} == set(EXPECTED) | REFUSES
        for tool in tools:
            call: Any = tool
            if tool.id in REFUSES:
                with pytest.raises(ToolError, match="task"):
                    await call(raw_arguments=ARGUMENTS.get(tool.id, {}))
                continue
            output = await call(raw_arguments=ARGUMENTS.get(tool.id, {}))
            assert EXPECTED[tool.id] in output, (tool.id, output)
            if tool.id in {"get-tiny-image", "get-annotated-message"}:
                assert len(output.images) == 1
                assert str(output.images[0].image).startswith("data:image/png;base64,iVBOR")
            if tool.id == "trigger-url-elicitation":
                # The same by way of an error that names the page.
                again = await call(raw_arguments={**ARGUMENTS[tool.id], "errorPath": True})
                assert again
            if tool.id == "get-structured-content":
                assert set(output.structured) == {"temperature", "conditions", "humidity"}
        with pytest.raises(ToolError, match="expected number"):
            await server.call_tool("get-sum", {"a": "x", "b": 1})


@pytest.mark.parametrize("transport", ["stdio", "streamable_http"])
async def test_resources_and_prompts_of_server_everything(
    transport: str, everything: list[str], port: int
) -> None:
    async with connected(transport, everything, port) as server:
        resources = await server.list_resources()
        assert resources
        assert await server.list_resources() is resources
        (text,) = await server.read_resource(resources[0].uri)
        assert isinstance(text, str)
        assert text.startswith("#")
        templates = await server.list_resource_templates()
        assert any("{resourceId}" in template.uri_template for template in templates)
        prompts = {prompt.name: prompt for prompt in await server.list_prompts()}
        assert prompts["args-prompt"].arguments["city"][1] is True
        (message,) = await server.get_prompt("args-prompt", {"city": "Oslo"})
        assert message.role == "user"
        assert "Oslo" in (message.text_content or "")
        with pytest.raises(APIError):
            await server.get_prompt("args-prompt")
        with pytest.raises(APIError):
            await server.read_resource("demo://nowhere")


async def test_a_turn_with_a_real_server(everything: list[str], port: int) -> None:
    from rejoinder.llm.chat_context import ChatContext
    from rejoinder.llm.llm import FunctionToolCall
    from rejoinder.testing.scripted import ScriptedLLM

    call = FunctionToolCall(name="get-sum", arguments='{"a": 17, "b": 25}', call_id="c1")
    llm = ScriptedLLM([call], "It is 42.")
    ctx = ChatContext.empty()
    ctx.add_message(role="user", content="17 + 25?")
    async with connected("stdio", everything, port) as server:
        toolset = mcp.MCPToolset(id="everything", mcp_server=server)
        async with toolset, run_turn(llm, ctx, tools=[toolset]) as turn:
            async for _ in turn:
                pass
    output = next(item for item in ctx.items if item.type == "function_call_output")
    assert "42" in output.output
    assert not output.is_error
    assert not isinstance(output.output, ImageContent)
    llm.assert_used_up()


async def test_every_tool_of_the_python_server(clock: str, lab: Any) -> None:
    server = mcp.MCPServerStdio(clock, ["--local-timezone", "UTC"], **OPTIONS)
    async with lab.nothing_left(), mcp.MCPToolset(id="time", mcp_server=server) as toolset:
        context = ToolContext([toolset])
        assert set(context.function_tools) == {"get_current_time", "convert_time"}
        now: Any = context.get_function_tool("get_current_time")
        told = json.loads(json.loads(await now(raw_arguments={"timezone": "Europe/Oslo"}))["text"])
        assert told["timezone"] == "Europe/Oslo"
        convert: Any = context.get_function_tool("convert_time")
        arguments = {"source_timezone": "UTC", "time": "12:00", "target_timezone": "Asia/Tokyo"}
        told = json.loads(json.loads(await convert(raw_arguments=arguments))["text"])
        assert "T21:00" in told["target"]["datetime"]
        with pytest.raises(ToolError, match=r"[Tt]ime"):
            await now(raw_arguments={"timezone": "Nowhere/Land"})
