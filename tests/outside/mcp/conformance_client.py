"""The client that the conformance suite of the Model Context Protocol runs: our servers, nothing else.

    conformance_client.py URL

The suite names the scenario, the version of the protocol and further data in the environment.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
from typing import Any

from rejoinder.llm import mcp
from rejoinder.llm.tool_context import ToolError

SCENARIO = os.environ["MCP_CONFORMANCE_SCENARIO"]
VERSION = os.environ.get("MCP_CONFORMANCE_PROTOCOL_VERSION", "")
CONTEXT: dict[str, Any] = json.loads(os.environ.get("MCP_CONFORMANCE_CONTEXT") or "{}")
EXAMPLES = {"string": "text", "integer": 5, "number": 3.5, "boolean": True, "array": []}


async def person(question: mcp.Elicitation) -> mcp.ElicitationAnswer:
    """Takes the default of each field."""
    fields: dict[str, Any] = (question.schema or {}).get("properties", {})
    return mcp.ElicitationAnswer(
        "accept", {name: field["default"] for name, field in fields.items() if "default" in field}
    )


def arguments(tool: dict[str, Any], schemas: dict[str, Any]) -> dict[str, Any]:
    """What to call a tool with: what the suite says, or a value of each type."""
    for call in CONTEXT.get("toolCalls", ()):
        if call["name"] == tool["name"]:
            return dict(call["arguments"])
    if SCENARIO == "json-schema-2020-12-preservation":
        return {"schema": schemas["json_schema_2020_12_tool"]}
    fields: dict[str, Any] = tool["parameters"].get("properties", {})
    return {name: EXAMPLES.get(field.get("type"), {}) for name, field in fields.items()}


async def main(url: str) -> None:
    server = mcp.MCPServerHTTP(
        url,
        transport_type="streamable_http",
        client_session_timeout_seconds=20,
        startup_timeout=20,
        elicitation=person,
        mode="auto" if VERSION >= "2026" else "legacy",
    )
    async with server:
        print(server.server_info)
        tools = [tool.info.raw_schema for tool in await server.list_tools()]
        schemas = {tool["name"]: tool["parameters"] for tool in tools}
        for tool in tools:
            try:
                print(await server.call_tool(tool["name"], arguments(tool, schemas)))
            except ToolError as error:
                print(f"{tool['name']}: {error}, because of {error.__cause__!r}")
        for prompt in await server.list_prompts():
            print(await server.get_prompt(prompt.name))
        for resource in await server.list_resources():
            print(await server.read_resource(resource.uri))


asyncio.run(main(sys.argv[-1]))
