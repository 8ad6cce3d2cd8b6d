"""Deaths, restarts, cancellations and ends: what happens to calls, and what is left behind."""

from __future__ import annotations

import asyncio
import json
import os
import re
import resource
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from listening import listening
from mcp_memory import Memory
from mcp_raw import FINE
from rejoinder._core.tools import ToolOptions
from rejoinder.errors import APIConnectionError, APIError, APIStatusError, APITimeoutError
from rejoinder.llm import mcp
from rejoinder.llm.tool_context import ToolError
from rejoinder.mcp import supervisor

TRANSPORTS = ["stdio", "sse", "streamable"]
NEVER = "3600"
"""Seconds that a slow tool takes: a test that waits for one runs into its timeout."""


def server_pids(lab: Any) -> list[int]:
    return [int(line.split()[0]) for line in lab.leftovers() if lab.mark in line]


async def until(check: Any) -> None:
    """Wait until `check()` is true. A test for which it never is runs into its timeout."""
    while not check():
        await asyncio.sleep(0.01)


async def test_a_death_is_told_at_once_and_mended(lab: Any) -> None:
    events: list[mcp.MCPEvent] = []
    server = lab.stdio(on_event=events.append)
    async with lab.nothing_left(), server:
        tools = await server.list_tools()
        slow = [asyncio.create_task(server.call_tool("slow", {"text": NEVER})) for _ in range(4)]
        with pytest.raises(ToolError) as caught:
            await server.call_tool("exit")
        # The model reads that it is gone; how it ended is for the program.
        assert caught.value.message == (
            "the tool `exit` is not available: its server has ended or cannot be reached"
        )
        assert "code 3" in str(caught.value.__cause__)
        assert "the last words" in str(caught.value.__cause__)
        outcomes = await asyncio.gather(*slow, return_exceptions=True)
        assert all(isinstance(outcome, ToolError) for outcome in outcomes), outcomes
        # The next call waits for the new connection; the old tool objects serve it.
        assert "again" in await tools[0](raw_arguments={"text": "again"})
        assert [event.type for event in events] == ["lost", "restored"]


async def test_a_server_that_hangs_up_and_stays_alive(lab: Any) -> None:
    server = lab.stdio("hangup", "call")
    async with lab.nothing_left(), server:
        with pytest.raises(ToolError) as caught:
            await server.call_tool("echo", {"text": "x"})
        assert "closed by the server" in str(caught.value.__cause__)


async def test_a_death_while_idle_is_noticed_within_a_second(lab: Any) -> None:
    events: list[mcp.MCPEvent] = []
    server = lab.stdio(on_event=events.append)
    async with lab.nothing_left(), server:
        (pid,) = server_pids(lab)
        os.kill(pid, signal.SIGKILL)
        await until(lambda: events)
        assert "signal 9" in events[0].message
        await until(lambda: server.initialized)
        assert "hi" in await server.call_tool("echo", {"text": "hi"})


@pytest.mark.parametrize("transport", ["sse", "streamable"])
async def test_a_dead_http_server_is_noticed_within_a_second_and_found_again(
    lab: Any, transport: str
) -> None:
    port = lab.serve(transport)
    events: list[mcp.MCPEvent] = []
    path = "sse" if transport == "sse" else "mcp"
    server = mcp.MCPServerHTTP(f"http://127.0.0.1:{port}/{path}", on_event=events.append)
    async with lab.nothing_left(), server:
        await server.list_tools()
        await server.call_tool("echo", {"text": "x"})
        lab.kill_servers()
        await until(lambda: events)
        assert not server.initialized
        with pytest.raises(ToolError):
            await server.call_tool("echo", {"text": "x"})
        lab.serve(transport, port=port)
        await until(lambda: server.initialized)
        assert "back" in await server.call_tool("echo", {"text": "back"})


async def test_restarts_are_bounded_and_a_call_wakes_the_server(
    lab: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(supervisor, "_FIRST_REST", 0.005)
    script = tmp_path / "server.py"
    hidden = tmp_path / "hidden.py"
    original, *rest = lab.command()
    shutil.copy(rest[2], script)
    rest[2] = str(script)
    server = mcp.MCPServerStdio(original, rest)
    async with lab.nothing_left(), server:
        life = server._supervisor._life
        assert life is not None
        script.rename(hidden)
        for pid in server_pids(lab):
            os.kill(pid, signal.SIGKILL)
        await until(lambda: life.state == "asleep")
        assert not server_pids(lab)
        with pytest.raises(ToolError, match="has ended") as caught:
            await server.call_tool("echo", {"text": "x"})
        assert re.search(r"No such file|code 2", str(caught.value.__cause__))
        await until(lambda: life.state == "asleep")
        hidden.rename(script)
        assert "awake" in await server.call_tool("echo", {"text": "awake"})


async def test_a_line_of_300_megabytes_costs_its_call_and_nothing_else(lab: Any) -> None:
    server = lab.stdio("huge", "call")
    async with lab.nothing_left(), server:
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        with pytest.raises(ToolError, match="the limit is 16,777,216"):
            await server.call_tool("echo", {"text": "x"})
        grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
        assert grown < 80 * 1024 * (1024 if sys.platform == "darwin" else 1)
        # The same connection goes on.
        assert len(await server.list_tools()) > 3


@pytest.mark.parametrize("transport", ["sse", "streamable"])
@pytest.mark.parametrize("body", ["sse", "json"])
async def test_a_huge_answer_over_http_is_refused(
    lab: Any, transport: str, body: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FAULTY", body)
    monkeypatch.setenv("FAULTY_HUGE", str(64 << 20))
    server = lab.http(transport, "huge", "call", max_message_bytes=1 << 20)
    async with lab.nothing_left(), server:
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        with pytest.raises(ToolError):
            await server.call_tool("echo", {"text": "x"})
        grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
        assert grown < 40 * 1024 * (1024 if sys.platform == "darwin" else 1)
        assert len(await server.list_tools()) > 3


async def test_a_frozen_server_is_restarted(lab: Any) -> None:
    server = lab.stdio()
    async with lab.nothing_left(), server:
        (frozen,) = server_pids(lab)
        os.kill(frozen, signal.SIGSTOP)
        for _ in range(2):
            with pytest.raises(ToolError, match="did not answer in time"):
                await server.call_tool("echo", {"text": "x"}, timeout=0.2)
        await until(lambda: server_pids(lab) not in ([], [frozen]))
        await until(lambda: server.initialized)
        assert "thawed" in await server.call_tool("echo", {"text": "thawed"})


@pytest.mark.parametrize("transport", TRANSPORTS)
async def test_start_and_end_may_come_from_different_tasks(lab: Any, transport: str) -> None:
    server = lab.make(transport)
    async with lab.nothing_left():
        for _ in range(2):
            await asyncio.gather(*(asyncio.create_task(server.initialize()) for _ in range(3)))
            assert server.initialized
            assert "hi" in await asyncio.create_task(server.call_tool("echo", {"text": "hi"}))
            await asyncio.create_task(server.aclose())
            await asyncio.create_task(server.aclose())
            assert not server.initialized
        with pytest.raises(RuntimeError, match="not initialized"):
            await server.list_tools()
        with pytest.raises(ToolError, match="not connected"):
            await server.call_tool("echo", {})


@pytest.mark.parametrize("transport", ["sse", "streamable"])
async def test_a_refused_connection_is_one_plain_error(lab: Any, transport: str) -> None:
    port = lab.serve("sse")
    lab.kill_servers()
    server = mcp.MCPServerHTTP(f"http://127.0.0.1:{port}/{'sse' if transport == 'sse' else 'mcp'}")
    async with lab.nothing_left():
        with pytest.raises(APIConnectionError, match=str(port)) as caught:
            await server.initialize()
        assert not isinstance(caught.value, APITimeoutError)
        assert not server.initialized


UNSTARTABLE: dict[str, tuple[dict[str, Any], str]] = {
    "missing": ({"command": "no-such-command-here"}, "No such file.*: 'no-such-command-here'"),
    "no file": ({"command": "/no/such/file"}, "No such file.*: '/no/such/file'"),
    "not executable": ({"command": "{tmp}/plain"}, "Permission denied"),
    "a directory": ({"command": "{tmp}"}, "Permission denied"),
    "no program": ({"command": "{tmp}/empty"}, "Exec format error"),
    "no interpreter": ({"command": "{tmp}/orphan"}, "No such file.*/orphan"),
    "below a file": ({"command": "{tmp}/plain/x"}, "Not a directory"),
    "directory missing": ({"cwd": "/no/such/directory"}, "No such file.*: '/no/such/directory'"),
    "directory is a file": ({"cwd": "{tmp}/plain"}, "Not a directory"),
    "argument too long": ({"args": ["x" * 3_000_000]}, "Argument list too long"),
    "argument no text": ({"args": ["\ud800"]}, "surrogates not allowed"),
}


@pytest.mark.parametrize(("options", "why"), UNSTARTABLE.values(), ids=UNSTARTABLE)
async def test_a_command_that_cannot_be_started(
    lab: Any, options: dict[str, Any], why: str, tmp_path: Path
) -> None:
    (tmp_path / "plain").write_text("x")
    for name, text in (("orphan", "#!/no/such/interpreter\n"), ("empty", "\x7fELF")):
        (tmp_path / name).write_text(text)
        (tmp_path / name).chmod(0o755)
    placed = {
        name: value.replace("{tmp}", str(tmp_path)) if isinstance(value, str) else value
        for name, value in options.items()
    }
    server = mcp.MCPServerStdio(**{"command": sys.executable, "args": [], **placed})
    async with lab.nothing_left():
        with pytest.raises(APIConnectionError, match=why) as caught:
            await server.initialize()
        assert isinstance(caught.value.__cause__, OSError | ValueError)
        assert "cannot be started" in str(caught.value)
        assert not caught.value.retryable
        assert not server.initialized


async def test_a_command_that_is_no_server_tells_its_last_words(lab: Any) -> None:
    server = mcp.MCPServerStdio(sys.executable, ["-c", "raise SystemExit('wrong flags')"])
    async with lab.nothing_left():
        with pytest.raises(APIConnectionError, match="wrong flags"):
            await server.initialize()


@pytest.mark.parametrize("transport", TRANSPORTS)
async def test_a_cancelled_caller_leaves_at_once_and_the_server_hears_of_it(
    lab: Any, transport: str
) -> None:
    server = lab.make(transport)
    async with lab.nothing_left(), server:
        call = asyncio.create_task(server.call_tool("slow", {"text": NEVER}))

        async def seen() -> list[str]:
            return json.loads(json.loads(await server.call_tool("seen"))["text"])

        while (await seen()).count("tools/call") < 2:
            await asyncio.sleep(0.01)
        call.cancel()
        with pytest.raises(asyncio.CancelledError):
            await call
        while "notifications/cancelled" not in await seen():
            await asyncio.sleep(0.01)


@pytest.mark.parametrize("transport", TRANSPORTS)
@pytest.mark.parametrize("fault", ["none", "stall"])
async def test_cancelling_the_start_at_any_moment_leaves_nothing(
    lab: Any, transport: str, fault: str
) -> None:
    server = lab.make(transport, fault, "initialize")
    async with lab.nothing_left():
        for steps in (0, 1, 2, 3, 5, 8, 20, 60):
            start = asyncio.create_task(server.initialize())
            for _ in range(steps):
                await asyncio.sleep(0.002 if steps > 5 else 0)
            start.cancel()
            await asyncio.gather(start, return_exceptions=True)
            if not server.initialized:
                assert server._supervisor._life is None
            await server.aclose()


@pytest.mark.parametrize("transport", TRANSPORTS)
async def test_closing_while_calls_are_open(lab: Any, transport: str) -> None:
    server = lab.make(transport)
    async with lab.nothing_left():
        await server.initialize()
        calls = [asyncio.create_task(server.call_tool("slow", {"text": NEVER})) for _ in range(3)]
        while '"tools/call","tools/call"' not in (await server.call_tool("seen")).replace(
            "\\", ""
        ).replace(" ", ""):
            await asyncio.sleep(0.01)
        await server.aclose()
        outcomes = await asyncio.gather(*calls, return_exceptions=True)
        assert all(isinstance(outcome, ToolError) for outcome in outcomes), outcomes


async def test_a_loop_that_ends_without_closing_leaves_no_child(lab: Any) -> None:
    server = lab.stdio("stall", "close")

    def other_loop() -> None:
        asyncio.run(server.initialize())

    await asyncio.to_thread(other_loop)
    await until(lambda: not lab.leftovers())


@pytest.mark.parametrize("step", ["close", "initialize", "call"])
async def test_no_child_survives_a_parent_that_is_killed(lab: Any, step: str) -> None:
    program = f"""
import asyncio, sys
from rejoinder.llm import mcp
async def main():
    command = {lab.command("stall", step)!r}
    servers = [mcp.MCPServerStdio(command[0], command[1:], client_session_timeout_seconds=300) for _ in range(2)]
    starts = [asyncio.create_task(s.initialize()) for s in servers]
    if {step!r} != "initialize":
        await asyncio.gather(*starts)
    if {step!r} == "call":
        for s in servers:
            asyncio.create_task(s.call_tool("echo", {{}}))
        await asyncio.sleep(0.1)
    print("ready", flush=True)
    await asyncio.sleep(600)
asyncio.run(main())
"""
    parent = subprocess.Popen(
        [sys.executable, "-c", program, "the parent"], stdout=subprocess.PIPE, text=True
    )
    try:
        assert parent.stdout is not None
        assert (await asyncio.to_thread(parent.stdout.readline)).strip() == "ready"

        def marked() -> list[list[str]]:
            listed = subprocess.run(
                ["ps", "-ww", "-eo", "pid=,pgid=,stat=,args="],
                capture_output=True,
                text=True,
                check=True,
            ).stdout
            rows = [line.split(None, 3) for line in listed.splitlines()]
            return [row for row in rows if "Z" not in row[2] and int(row[0]) != parent.pid]

        def servers() -> list[list[str]]:
            return [row for row in marked() if lab.mark in row[3]]

        await until(lambda: len(servers()) == 2)
        groups = {row[1] for row in servers()}
        assert len(groups) == 2
        assert sum(row[1] in groups for row in marked()) == 4  # two servers, two watchers
        parent.kill()
        await asyncio.to_thread(parent.wait)
        await until(lambda: not servers() and not any(row[1] in groups for row in marked()))
    finally:
        parent.kill()
        parent.wait()
        assert parent.stdout is not None
        parent.stdout.close()


async def test_a_forgotten_session_is_made_again_and_the_call_repeated(lab: Any) -> None:
    server = lab.http("streamable", "forget", "call")
    async with lab.nothing_left(), server:
        assert "kept" in await server.call_tool("echo", {"text": "kept"})


@pytest.mark.parametrize("transport", ["sse", "streamable"])
async def test_headers_can_change_on_a_live_connection(lab: Any, transport: str) -> None:
    server = lab.http(transport, headers={"X-Token": "one"})
    async with lab.nothing_left(), server:
        sent = json.loads(json.loads(await server.call_tool("headers"))["text"])
        assert sent["x-token" if "x-token" in sent else "X-Token"] == "one"
        server.headers = {"X-Token": "two"}
        sent = json.loads(json.loads(await server.call_tool("headers"))["text"])
        assert sent["x-token" if "x-token" in sent else "X-Token"] == "two"


async def test_a_modern_server_without_the_handshake(lab: Any) -> None:
    server = lab.stdio("modern", "none")
    async with lab.nothing_left(), server:
        assert server.server_info is not None
        assert server.server_info.protocol_version == "2026-07-28"


async def test_a_closed_server_is_told_as_such(lab: Any) -> None:
    server = lab.stdio()
    await server.initialize()
    tools = await server.list_tools()
    await server.aclose()
    with pytest.raises(ToolError, match="not connected"):
        await tools[0](raw_arguments={})
    with pytest.raises(RuntimeError):
        await server.list_resources()


async def test_a_server_that_refuses_the_handshake(lab: Any) -> None:
    process_port = lab.serve("sse")  # answers GET only at its own paths
    wrong = mcp.MCPServerHTTP(f"http://127.0.0.1:{process_port}/x/mcp")
    async with lab.nothing_left():
        with pytest.raises(APIError):
            await wrong.initialize()


@pytest.mark.parametrize("kind", ["changes", "pings", "noise"])
@pytest.mark.parametrize("transport", ["stdio", "sse"])
async def test_a_flood_of_any_kind_does_not_pile_up(
    lab: Any, kind: str, transport: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    server = (
        lab.stdio("flood", "list", env={"FLOOD": kind})
        if transport == "stdio"
        else (monkeypatch.setenv("FLOOD", kind), lab.http("sse", "flood", "list"))[1]
    )
    async with lab.nothing_left(), server:
        await server.list_tools()
        tasks = 0
        for _ in range(200):
            await asyncio.sleep(0.005)
            tasks = max(tasks, len(asyncio.all_tasks()))
        # What comes in does not pile up as tasks.
        assert tasks < 100


async def test_an_error_status_is_told_with_the_server(lab: Any) -> None:
    async def refuse(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 401 Unauthorized\r\ncontent-length: 0\r\nconnection: close\r\n\r\n")
        await writer.drain()

    async with listening(refuse) as url:
        for path in ("mcp", "sse"):
            server = mcp.MCPServerHTTP(f"{url}/{path}")
            with pytest.raises(APIStatusError, match=f"{url.rpartition(':')[2]}/{path}") as caught:
                await server.initialize()
            assert caught.value.status_code == 401
            assert not caught.value.retryable
            assert not server.initialized


async def test_initialize_wakes_a_supervisor_that_rests(lab: Any, tmp_path: Path) -> None:
    script, hidden = tmp_path / "server.py", tmp_path / "hidden.py"
    original, *rest = lab.command()
    shutil.copy(rest[2], script)
    server = mcp.MCPServerStdio(original, [*rest[:2], str(script), *rest[3:]])
    async with lab.nothing_left(), server:
        script.rename(hidden)
        for pid in server_pids(lab):
            os.kill(pid, signal.SIGKILL)
        life = server._supervisor._life
        assert life is not None
        await until(lambda: life.state == "resting")
        with pytest.raises(APIConnectionError):
            await server.initialize()
        hidden.rename(script)
        await server.initialize()
        assert server.initialized


@pytest.mark.parametrize("transport", TRANSPORTS)
async def test_a_turn_goes_on_whatever_its_servers_do(lab: Any, transport: str) -> None:
    from rejoinder.llm.chat_context import ChatContext
    from rejoinder.llm.llm import FunctionToolCall
    from rejoinder.testing.scripted import ScriptedLLM
    from rejoinder.turn import run_turn

    def prefixed(fault: str, prefix: str) -> Any:
        return lab.make(
            transport,
            fault,
            "call",
            tool_prefix=prefix,
        )

    servers = [prefixed("stall", "stall_"), prefixed("die", "die_"), prefixed("none", "ok_")]
    calls = [
        FunctionToolCall(name=f"{prefix}_echo", arguments='{"text": "hello"}', call_id=prefix)
        for prefix in ("stall", "die", "ok")
    ]
    llm = ScriptedLLM(calls, "Two of three failed.")
    ctx = ChatContext.empty()
    ctx.add_message(role="user", content="go")
    async with lab.nothing_left():
        # Only the server that stalls may be late.
        late = {"echo": ToolOptions(timeout=0.3)}
        toolsets = [
            mcp.MCPToolset(id=str(n), mcp_server=s, tool_options={} if n else late)
            for n, s in enumerate(servers)
        ]
        for toolset in toolsets:
            await toolset.setup()
        async with run_turn(llm, ctx, tools=toolsets) as turn:
            async for _ in turn:
                pass
        for toolset in toolsets:
            await toolset.aclose()
    outputs = {i.call_id: i for i in ctx.items if i.type == "function_call_output"}
    assert [outputs[p].is_error for p in ("stall", "die", "ok")] == [True, True, False]
    assert "did not answer in time" in outputs["stall"].output
    assert "not available" in outputs["die"].output
    assert ctx.items[-1].text_content == "Two of three failed."  # type: ignore[union-attr]
    llm.assert_used_up()


async def test_one_server_on_two_loops_is_refused(lab: Any) -> None:
    async with lab.stdio() as server:

        def elsewhere() -> Any:
            return asyncio.run(server.list_tools())

        await server.list_tools()
        server.invalidate_cache()
        with pytest.raises(RuntimeError, match="another event loop"):
            await asyncio.to_thread(elsewhere)
        assert "here" in await server.call_tool("echo", {"text": "here"})


async def test_each_message_of_a_flood_costs_a_turn_of_the_loop() -> None:
    async def flood(message: dict[str, Any], send: Any) -> None:
        for _ in range(1500):
            await send(method="notifications/message", params={"level": "info", "data": "x"})
        await send(id=message["id"], result=FINE)

    async with Memory(flood, client_session_timeout_seconds=300) as server:
        call = asyncio.create_task(server.call_tool("t"))
        turns = 0
        while not call.done():
            await asyncio.sleep(0)
            turns += 1
        assert "fine" in await call
        assert turns >= 1500
