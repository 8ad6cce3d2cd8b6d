"""Every fault at every step over every transport: an answer or one plain error, in time."""

from __future__ import annotations

from typing import Any

import pytest

from rejoinder.errors import APIError
from rejoinder.llm.tool_context import ToolError
from rejoinder.mcp import supervisor

LATE = 0.4
"""Seconds until a question that fails is given up. Everything else may take as long as it likes: what
ends when is tested in ``test_deadlines.py``, by a clock that jumps."""
PATIENCE = 300.0
FAILS = {"stall", "die", "garbage", "wrong", "late"}

TRANSPORTS = ["stdio", "sse", "streamable"]
FAULTS = ["stall", "die", "flood", "garbage", "wrong", "late", "twice"]
STEPS = ["initialize", "list", "call", "close"]


@pytest.mark.parametrize("transport", TRANSPORTS)
@pytest.mark.parametrize("step", STEPS)
@pytest.mark.parametrize("fault", FAULTS)
async def test_fault(lab: Any, transport: str, step: str, fault: str) -> None:
    failed = fault in FAILS
    options: dict[str, Any] = {}
    if failed and step == "initialize":
        options["startup_timeout"] = LATE
    elif failed and step == "list":
        options |= {"client_session_timeout_seconds": LATE, "startup_timeout": PATIENCE}
    # What comes after a flood waits behind it, perhaps for ever.
    late = LATE if step != "close" and (failed or (fault, step) == ("flood", "list")) else None
    server = lab.make(transport, fault, step, **options)

    async def outcome_of(what: Any) -> Any:
        try:
            return await what
        except (APIError, ToolError) as error:
            return error

    await supervisor._sdk()  # imported once, before any clock runs
    async with lab.nothing_left():
        if step == "initialize":
            outcome = await outcome_of(server.initialize())
            assert isinstance(outcome, APIError) is failed
            assert server.initialized is not failed
        else:
            await server.initialize()
        if server.initialized:
            tools = await outcome_of(server.list_tools())
            if step == "list":
                assert isinstance(tools, APIError) is failed
        outcome = await outcome_of(server.call_tool("echo", {"text": "hello"}, timeout=late))
        if step == "call":
            assert isinstance(outcome, ToolError) is failed
        elif step == "close":
            assert "hello" in outcome
        await server.aclose()
        assert not server.initialized
