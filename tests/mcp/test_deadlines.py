"""Deadlines, and what moves them. Time jumps; nobody waits."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

import mcp_raw as raw
from mcp_memory import Memory, Send
from rejoinder._core.tools import ToolOptions
from rejoinder.llm import mcp
from rejoinder.llm.tool_context import ToolContext, ToolError
from rejoinder.mcp import supervisor

pytestmark = [pytest.mark.looptime, pytest.mark.usefixtures("imported")]


@pytest.fixture
async def imported() -> None:
    await supervisor._sdk()


def reporting(*reports: Any, every: float = 0.5) -> Any:
    async def call(message: dict[str, Any], send: Send) -> None:
        token = message["params"].get("_meta", {}).get("progressToken")
        for progress in reports:
            await asyncio.sleep(every)
            if token is not None:
                params = {"progressToken": token, "progress": progress}
                await send(method="notifications/progress", params=params)
        await asyncio.sleep(every)
        await send(id=message["id"], result=raw.FINE)

    return call


async def elapsed(what: Any) -> tuple[Any, float]:
    loop = asyncio.get_running_loop()
    began = loop.time()
    try:
        return await what, loop.time() - began
    except ToolError as error:
        return error, loop.time() - began


async def test_progress_renews_the_deadline() -> None:
    async with Memory(reporting(*range(9))) as server:
        output, seconds = await elapsed(server.call_tool("t"))
        assert "fine" in output
        assert seconds == pytest.approx(5.0, abs=0.1)


async def test_progress_has_a_limit() -> None:
    async with Memory(reporting(*range(100)), progress_limit=7) as server:
        error, seconds = await elapsed(server.call_tool("t"))
        assert isinstance(error, ToolError)
        assert "did not answer in time" in str(error)
        assert seconds == pytest.approx(7, abs=0.1)


@pytest.mark.parametrize(
    "reports", [[5] * 20, [3, 2, 1] + [0] * 20, [float("nan")] * 20, ["x"] * 9]
)
async def test_reports_without_progress_renew_nothing(reports: list[Any]) -> None:
    async with Memory(reporting(*reports)) as server:
        error, seconds = await elapsed(server.call_tool("t"))
        assert isinstance(error, ToolError)
        assert seconds == pytest.approx(2.5 if reports[0] in (5, 3) else 2, abs=0.1)


async def test_a_deadline_that_was_given_is_kept() -> None:
    async with Memory(reporting(*range(9))) as server:
        error, seconds = await elapsed(server.call_tool("t", timeout=1))
        assert isinstance(error, ToolError)
        assert seconds == pytest.approx(1, abs=0.1)
        # Not even a token is sent.
        (sent,) = [seen for seen in server.seen if seen["method"] == "tools/call"]
        assert "progressToken" not in sent["params"].get("_meta", {})
    async with Memory(reporting(*range(9)), progress_limit=0) as server:
        assert isinstance((await elapsed(server.call_tool("t")))[0], ToolError)


async def test_the_deadline_of_a_tool_of_a_toolset_is_kept() -> None:
    server = Memory(reporting(*range(9)))
    options = {"t": ToolOptions(timeout=1)}
    async with mcp.MCPToolset(id="s", mcp_server=server, tool_options=options) as tools:
        tool: Any = ToolContext([tools]).get_function_tool("t")
        error, seconds = await elapsed(tool(raw_arguments={}))
        assert isinstance(error, ToolError)
        assert seconds == pytest.approx(1, abs=0.1)


async def test_reports_reach_the_call_they_belong_to() -> None:
    calls: list[dict[str, Any]] = []

    async def call(message: dict[str, Any], send: Send) -> None:
        calls.append(message)
        if len(calls) == 1:
            for n in range(8):
                await asyncio.sleep(0.5)
                token = calls[0]["params"]["_meta"]["progressToken"]
                await send(
                    method="notifications/progress", params={"progressToken": token, "progress": n}
                )
            await send(id=message["id"], result=raw.FINE)

    async with Memory(call) as server:
        first, second = await asyncio.gather(
            elapsed(server.call_tool("t")), elapsed(server.call_tool("t"))
        )
        assert "fine" in first[0]
        assert isinstance(second[0], ToolError)
        assert second[1] == pytest.approx(2, abs=0.1)


async def test_a_cancelled_call_leaves_no_open_request() -> None:
    async with Memory(reporting(*range(100))) as server:
        call = asyncio.create_task(server.call_tool("t"))
        await asyncio.sleep(1)
        life = server._supervisor._life
        assert life is not None
        assert len(life._notes.calls) == 1
        call.cancel()
        await asyncio.gather(call, return_exceptions=True)
        await asyncio.sleep(1)
        assert life._notes.calls == {}
        assert life._questions == set()
        assert server.seen[-1]["method"] == "notifications/cancelled"


async def test_attempts_to_connect_rest_longer_and_longer_and_then_wait_for_a_call() -> None:
    loop = asyncio.get_running_loop()
    attempts: list[float] = []
    fail = False

    class Flaky(Memory):
        def client_streams(self) -> Any:
            attempts.append(loop.time())
            if fail:
                raise ConnectionRefusedError("nobody there")
            return super().client_streams()

    async with Flaky() as server:
        await asyncio.sleep(30)  # it was a good connection
        fail = True
        began = loop.time()
        server.hang_up()
        await asyncio.sleep(60)
        rests = [b - a for a, b in zip([began, *attempts[1:]], attempts[1:], strict=False)]
        assert len(rests) == 5
        assert rests[0] < 0.1
        for rest, expected in zip(rests[1:], (0.25, 0.5, 1, 2), strict=True):
            assert 0.8 * expected <= rest <= 1.21 * expected
        with pytest.raises(ToolError, match="has ended"):
            await server.call_tool("t")
        assert len(attempts) == 7
        fail = False
        assert "fine" in await server.call_tool("t")
