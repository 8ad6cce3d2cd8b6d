"""The client of the AG-UI project talks to the page's server: a turn with a tool of the server, one
with a tool of the client, and one with a tool that it has to allow."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

from outside.environment import node
from rejoinder import function_tool
from rejoinder.llm import FunctionToolCall
from rejoinder.testing import ScriptedLLM
from web.laboratory import serving

CLIENT = Path(__file__).with_name("agui_client.mjs")


@function_tool
async def book() -> str:
    """Book a table."""
    return "booked"


@function_tool(effects=False)
async def weather(city: str) -> str:
    """The weather in a city."""
    return f"sunny in {city}"


async def test_the_client_of_the_project() -> None:
    program, package = node("web-page", "@ag-ui/client/package.json")
    folder = Path(package).parents[2]
    llm = ScriptedLLM(
        [FunctionToolCall(name="weather", arguments='{"city": "Paris"}', call_id="call_1")],
        "It is sunny.",
        [FunctionToolCall(name="locate", arguments="{}", call_id="call_2")],
        "You live in Rome.",
        [FunctionToolCall(name="book", arguments="{}", call_id="call_3")],
        "There is a table for you.",
    )
    async with serving([llm], tools=[weather, book], approve=True) as page:
        process = await asyncio.create_subprocess_exec(
            *(program, str(CLIENT), str(folder)),
            *(f"{page.origin}/api/run", page.address.token),
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
        out, err = await process.communicate()
    assert process.returncode == 0, err.decode()
    told = json.loads(out)
    said = [(m["role"], m.get("content")) for m in told["messages"]]
    assert ("tool", "sunny in Paris") in said
    assert ("assistant", "It is sunny.") in said
    assert ("assistant", "You live in Rome.") in said
    assert [each["toolCallId"] for each in told["interrupts"]] == ["call_3"]
    assert ("tool", "booked") in said
    assert said[-1] == ("assistant", "There is a table for you.")
    assert told["added"] == 3
    assert told["kinds"].count("RUN_FINISHED") == 5
    assert "RUN_ERROR" not in told["kinds"]
