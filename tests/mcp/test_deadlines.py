"""Deadlines, and what moves them. Time jumps; nobody waits."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

import mcp_raw as raw
from mcp_memory import Memory, Send
from rejoinder._core.tools import ToolOptions
from rejoinder.errors import APITimeoutError
from rejoinder.llm import mcp
from rejoinder.llm.tool_context import ToolContext, ToolError
from rejoinder.mcp import supervisor
from stalls import Stalls

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


# liveness ------------------------------------------------------------------------------------


async def never(message: dict[str, Any], send: Send) -> None:
    await asyncio.Event().wait()


async def test_a_slow_tool_is_no_reason_to_connect_again() -> None:
    async with Memory(never) as server:
        for _ in range(5):
            error, seconds = await elapsed(server.call_tool("t"))
            assert isinstance(error, ToolError)
            assert seconds == pytest.approx(2, abs=0.01)
        await asyncio.sleep(60)
        assert server.connections == 1
        assert [m["method"] for m in server.seen].count("ping") == 2


async def test_a_server_that_answers_nothing_any_more_is_connected_again() -> None:
    class Frozen(Memory):
        frozen = False

        async def answer(self, message: dict[str, Any], send: Send) -> None:
            if not self.frozen:
                await super().answer(message, send)

    events: list[mcp.MCPEvent] = []
    async with Frozen(on_event=events.append) as server:
        server.frozen = True
        began = asyncio.get_running_loop().time()
        for _ in range(2):
            assert isinstance((await elapsed(server.call_tool("t")))[0], ToolError)
        await asyncio.sleep(1.9)  # a ping has two seconds
        assert events == []
        server.frozen = False
        await asyncio.sleep(0.2)
        assert [event.type for event in events] == ["lost", "restored"]
        assert asyncio.get_running_loop().time() - began == pytest.approx(6.1, abs=0.1)
        assert "fine" in await server.call_tool("t")


async def test_start_and_lists_end_at_their_deadlines() -> None:
    class Silent(Memory):
        silent = "initialize"

        async def answer(self, message: dict[str, Any], send: Send) -> None:
            if message["method"] != self.silent:
                await super().answer(message, send)

    server = Silent(startup_timeout=7)
    loop = asyncio.get_running_loop()
    began = loop.time()
    with pytest.raises(APITimeoutError, match="not connected within 7 s"):
        await server.initialize()
    assert loop.time() - began == pytest.approx(7, abs=0.1)
    server.silent = "tools/list"
    await server.initialize()
    began = loop.time()
    with pytest.raises(APITimeoutError, match="no answer to the list of tools within 2 s"):
        await server.list_tools()
    assert loop.time() - began == pytest.approx(2, abs=0.1)
    await server.aclose()


class Blocking(Memory):
    """A server that answers `method` when the loop has stood still for half a minute."""

    def __init__(self, method: str, call: Any = None, **options: Any) -> None:
        super().__init__(call, **options)
        self.stalls = Stalls()
        self.method = method

    async def answer(self, message: dict[str, Any], send: Send) -> None:
        if message["method"] == self.method:
            await asyncio.sleep(1)
            self.stalls.stand_still(30)
            await asyncio.sleep(0.5)
        await super().answer(message, send)


async def test_a_loop_that_stands_still_is_no_slow_start() -> None:
    server = Blocking("initialize", startup_timeout=7)
    await server.initialize()
    assert server.connections == 1
    await server.aclose()


async def test_a_loop_that_stands_still_is_no_late_answer() -> None:
    async with Blocking("tools/call") as server:
        assert "fine" in await server.call_tool("t")


async def test_a_loop_that_stands_still_is_no_unanswered_ping() -> None:
    async with Blocking("ping", never) as server:
        for _ in range(2):
            assert isinstance((await elapsed(server.call_tool("t")))[0], ToolError)
        await asyncio.sleep(60)
        assert "ping" in [m.get("method") for m in server.seen]
        assert server.connections == 1


# questions of the server ---------------------------------------------------------------------

QUESTION = {
    "message": "who are you?",
    "requestedSchema": {"type": "object", "properties": {"name": {"type": "string"}}},
}


class Asking(Memory):
    """A server that asks before it answers, and answers with what it was told."""

    def __init__(self, **options: Any) -> None:
        super().__init__(self.ask, **options)
        self.told: asyncio.Queue[dict[str, Any]] = asyncio.Queue()

    async def ask(self, message: dict[str, Any], send: Send) -> None:
        if message["params"].get("arguments"):
            await never(message, send)
        await send(id="q", method="elicitation/create", params=QUESTION)
        while not (told := [m for m in self.seen if m.get("id") == "q"]):
            await asyncio.sleep(0.01)
        text = str(told[-1].get("result") or told[-1].get("error"))
        await send(id=message["id"], result={"content": [{"type": "text", "text": text}]})


async def test_a_person_may_think_longer_than_a_call_may_take() -> None:
    asked: list[mcp.Elicitation] = []

    async def person(question: mcp.Elicitation) -> mcp.ElicitationAnswer:
        asked.append(question)
        await asyncio.sleep(100)
        return mcp.ElicitationAnswer("accept", {"name": "Ada"})

    async with Asking(elicitation=person) as server:
        output, seconds = await elapsed(server.call_tool("t"))
        assert "Ada" in output
        assert seconds == pytest.approx(100, abs=0.1)
        assert asked[0].message == "who are you?"
        assert asked[0].schema is not None
        assert "name" in asked[0].schema["properties"]
        assert asked[0].server == "Memory()"
        # Afterwards the deadline is the usual one again.
        error, seconds = await elapsed(server.call_tool("t", {"a": 1}))
        assert isinstance(error, ToolError)
        assert seconds == pytest.approx(2, abs=0.1)


@pytest.mark.parametrize("how", ["raises", "too late", "nobody"])
async def test_a_question_that_nobody_answers(how: str) -> None:
    async def person(question: mcp.Elicitation) -> mcp.ElicitationAnswer:
        if how == "raises":
            raise ValueError("no")
        await asyncio.Event().wait()
        raise AssertionError

    async with Asking(elicitation=None if how == "nobody" else person) as server:
        output, seconds = await elapsed(server.call_tool("t"))
        assert ("cancel" if how != "nobody" else "not supported") in output
        assert seconds == pytest.approx(120 if how == "too late" else 0, abs=0.1)


# floods --------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["changes", "pings", "noise", "progress"])
async def test_a_flood_is_read_slowly_and_does_not_pile_up(kind: str) -> None:
    noise: dict[str, Any] = {
        "changes": {"method": "notifications/tools/list_changed"},
        "pings": {"method": "ping", "id": "p"},
        "noise": {"method": "notifications/message", "params": {"level": "info", "data": "x"}},
        "progress": {"method": "notifications/progress", "params": {"progressToken": 9, "progress": 1}},
    }[kind]  # fmt: skip
    sent = 0

    async def flood(message: dict[str, Any], send: Send) -> None:
        nonlocal sent
        for _ in range(3000):
            await send(**noise)
            sent += 1
        await send(id=message["id"], result=raw.FINE)

    async with Memory(flood, client_session_timeout_seconds=60) as server:
        call = asyncio.create_task(elapsed(server.call_tool("t")))
        tasks = 0
        while not call.done():
            await asyncio.sleep(0.001)
            tasks = max(tasks, len(asyncio.all_tasks()))
        output, seconds = await call
        assert "fine" in output
        assert sent == 3000
        assert tasks < 100
        # 2,000 at once, and 1,000 in each second after that.
        assert seconds == pytest.approx(1, abs=0.3)
