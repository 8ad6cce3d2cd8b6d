"""Every fault at every step over every transport: an answer or one plain error, in time."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from rejoinder.errors import APIError
from rejoinder.llm.tool_context import ToolError
from rejoinder.mcp import supervisor

DEADLINE = 0.6
PATIENCE = 10.0  # where an answer is expected, also of a busy machine
SLACK = 5.0  # of a busy machine
FAILS = {"stall", "die", "garbage", "wrong", "late"}

TRANSPORTS = ["stdio", "sse", "streamable"]
FAULTS = ["stall", "die", "flood", "garbage", "wrong", "late", "twice"]
STEPS = ["initialize", "list", "call", "close"]


@pytest.mark.parametrize("transport", TRANSPORTS)
@pytest.mark.parametrize("step", STEPS)
@pytest.mark.parametrize("fault", FAULTS)
async def test_fault(lab: Any, transport: str, step: str, fault: str) -> None:
    failed = fault in FAILS
    if step == "close" or fault == "twice":
        patience = PATIENCE
    else:  # what comes after a flood waits behind it, perhaps for ever
        patience = DEADLINE if failed else 5 * DEADLINE
    server = lab.make(
        transport,
        fault,
        step,
        client_session_timeout_seconds=patience,
        startup_timeout=DEADLINE if failed and step == "initialize" else PATIENCE,
    )
    loop = asyncio.get_running_loop()

    async def timed(what: Any) -> Any:
        began = loop.time()
        try:
            return await what
        except (APIError, ToolError) as error:
            return error
        finally:
            if failed and step != "close":
                assert loop.time() - began < DEADLINE + SLACK

    await supervisor._sdk()  # imported once, before any clock runs
    async with lab.nothing_left():
        if step == "initialize":
            outcome = await timed(server.initialize())
            assert isinstance(outcome, APIError) is failed
            assert server.initialized is not failed
        else:
            await server.initialize()
        if server.initialized:
            tools = await timed(server.list_tools())
            if step == "list":
                assert isinstance(tools, APIError) is failed
        outcome = await timed(server.call_tool("echo", {"text": "hello"}))
        if step == "call":
            assert isinstance(outcome, ToolError) is failed
        elif step == "close":
            assert "hello" in outcome
        began = loop.time()
        await server.aclose()
        assert loop.time() - began < 2.0 + SLACK
        assert not server.initialized
