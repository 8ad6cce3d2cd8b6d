"""Keys of MCP servers are in no text that is shown: errors, frames, logs, events, and what a model reads.

Each server gets keys in every place that takes one. Then it fails, in each way a server can; and
whatever can be reached from the failure is searched for them, as an error reporter would: the local
variables of every frame, walked into, of every error behind it and of every log record.
"""

from __future__ import annotations

import asyncio
import contextlib
import pickle
import socket
import struct
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

import canaries
import mcp_raw as raw
from canaries import Records, all_records
from listening import listening
from rejoinder._core.items import FunctionCall
from rejoinder._secrets import Hidden, secrets_in_command
from rejoinder.llm import mcp
from rejoinder.llm._execution import execute_function_call
from rejoinder.llm.tool_context import ToolContext, ToolError
from rejoinder.mcp.targets import Command, Endpoint

KEY = "canary-5b1d6f0a"
HEADERS = {"Authorization": f"Bearer {KEY}", "X-Custom": f"{KEY}-2", "Cookie": f"a={KEY}"}
ARGUMENTS = ["--api-key", f"{KEY}", f"--token={KEY}", "--header", f"X-Key: {KEY}"]
ARGUMENTS += [f"https://u:{KEY}@h/?key={KEY}"]
ENVIRONMENT = {"SOME_API_KEY": KEY, "HARMLESS": f"{KEY}-3"}


# the search ----------------------------------------------------------------------------------


@pytest.fixture
def records() -> Iterator[Records]:
    with all_records(KEY) as found:
        yield found


def leaks(error: BaseException | None) -> list[str]:
    return canaries.leaks(error, [KEY])


async def searched(server: mcp.MCPServer, records: Records, events: list[mcp.MCPEvent]) -> None:
    """Start the server, call its tool as a turn does, close it; nothing shows a key."""
    asyncio.get_running_loop().set_debug(True)
    found: list[str] = []
    try:
        await server.initialize()
    except (Exception, asyncio.CancelledError) as error:
        found += leaks(error)
    else:
        with contextlib.suppress(Exception):
            await server.list_tools()
        try:
            await server.call_tool("t")
        except ToolError as error:
            found += leaks(error)
            told = str(error)
            assert "code" not in told
            assert "://" not in told
            assert sys.executable not in told
            assert "127.0.0.1" not in told
    found += [f"repr: {server!r}"] if KEY in repr(server) else []
    await server.aclose()
    found += [f"event: {event}" for event in events if KEY in repr(event)]
    assert found == []
    assert records.leaks == set()
    assert records.count


# over HTTP -----------------------------------------------------------------------------------


def reset(writer: asyncio.StreamWriter) -> None:
    sock = writer.get_extra_info("socket")
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()


ANSWERS = {
    "bad head": b"nonsense\r\n\r\n",
    "cut": b"HTTP/1.1 200 OK\r\ncontent-length: 100\r\ncontent-type: application/json\r\n\r\n{",
    "401": b"HTTP/1.1 401 No\r\ncontent-type: text/html\r\ncontent-length: 28\r\n\r\n<p>canary-5b1d6f0a wrong</p>",
    "404": b"HTTP/1.1 404 No\r\ncontent-length: 0\r\n\r\n",
    "500": b"HTTP/1.1 500 No\r\ncontent-length: 0\r\n\r\n",
    "redirect": b"HTTP/1.1 307 No\r\nlocation: http://127.0.0.1:9/mcp?key=canary-5b1d6f0a\r\ncontent-length: 0\r\n\r\n",
    "html": b"HTTP/1.1 200 OK\r\ncontent-type: text/html\r\ncontent-length: 13\r\n\r\n<p>log in</p>\n",
    "garbage": b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 2\r\n\r\n}{",
    "quoted": b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 29\r\n\r\n{'bad': 'key canary-5b1d6f0a'",
    "quoted events": b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\nconnection: close\r\n\r\ndata: }{canary-5b1d6f0a\n\n",
    "events": b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\nconnection: close\r\n\r\ndata: }{\n\n",
}  # fmt: skip


@contextlib.asynccontextmanager
async def failing(how: str, at: str) -> AsyncIterator[tuple[int, asyncio.Event]]:
    """A server that works until the step `at`, and fails there; it has to come to that."""
    failed = asyncio.Event()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
            first, *rest = head.strip().split("\r\n")
            fields = dict(line.lower().split(": ", 1) for line in rest)
            body = await reader.readexactly(int(fields.get("content-length", "0")))
            request = raw.Request(*first.split(" ")[:2], fields, body)
            assert KEY in head  # the server itself does get the keys
            if at in {request.rpc, "connect"} or (at == "stream" and request.method == "GET"):
                failed.set()
                if how == "reset":
                    reset(writer)
                elif how == "stall":
                    await asyncio.Event().wait()
                else:
                    writer.write(ANSWERS[how])
                    await writer.drain()
                break
            status, more, content = raw.usual(request, mcp_session_id="s")
            lines = [f"HTTP/1.1 {status} X", f"content-length: {len(content)}"]
            lines += [f"{name.replace('_', '-')}: {value}" for name, value in more.items()]
            writer.write("\r\n".join(lines).encode() + b"\r\n\r\n" + content)
            await writer.drain()

    async with listening(serve) as url:
        yield int(url.rpartition(":")[2]), failed
    assert failed.is_set()


def over_http(port: int, path: str, **options: Any) -> mcp.MCPServerHTTP:
    url = f"http://user:{KEY}@127.0.0.1:{port}/{path}?api_key={KEY}&more={KEY}#{KEY}"
    options.setdefault("client_session_timeout_seconds", 20)
    return mcp.MCPServerHTTP(url, HEADERS, **options)


@pytest.mark.parametrize("how", [*ANSWERS, "reset", "stall"])
@pytest.mark.parametrize("at", ["initialize", "tools/call", "sse"])
async def test_no_failure_over_http_shows_a_key(how: str, at: str, records: Records) -> None:
    events: list[mcp.MCPEvent] = []
    async with failing(how, "connect" if at == "sse" else at) as (port, _):
        options: dict[str, Any] = {"on_event": events.append}
        if how == "stall":
            options |= {
                "client_session_timeout_seconds": 2,
                "startup_timeout": 2,
                "timeout": 2,
            }
            if at == "tools/call":
                options["startup_timeout"] = 20
        await searched(over_http(port, "sse" if at == "sse" else "mcp", **options), records, events)


@pytest.mark.parametrize("path", ["mcp", "sse"])
async def test_a_refused_connection_shows_no_key(path: str, records: Records) -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    await searched(over_http(port, path), records, [])


@pytest.mark.parametrize("path", ["mcp", "sse"])
async def test_a_cancelled_start_and_call_show_no_key(path: str, records: Records) -> None:
    async with failing("stall", "connect" if path == "sse" else "tools/call") as (port, failed):
        server = over_http(port, path)
        start = asyncio.create_task(server.initialize())
        if path == "mcp":
            await start
            start = asyncio.create_task(server.call_tool("t"))
        await failed.wait()
        start.cancel()
        with pytest.raises(asyncio.CancelledError) as caught:
            await start
        assert leaks(caught.value) == []
        await server.aclose()
        assert records.leaks == set()


@pytest.mark.parametrize("scheme", ["http", "ftp"])
async def test_a_proxy_shows_no_key(
    scheme: str, records: Records, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[bytes] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        seen.append(await reader.readuntil(b"\r\n\r\n"))
        writer.write(b"HTTP/1.1 407 No\r\ncontent-length: 0\r\nconnection: close\r\n\r\n")

    for name in ("no_proxy", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)
    async with listening(serve) as url:
        monkeypatch.setenv("http_proxy", url.replace("http://", f"{scheme}://user:{KEY}@"))
        server = mcp.MCPServerHTTP(f"http://example.org/mcp?api_key={KEY}", HEADERS)
        await searched(server, records, [])
    assert bool(seen) is (scheme == "http")


# stdio ---------------------------------------------------------------------------------------

DIES = r"""
import json, os, sys
step = sys.argv[1]
def end():
    keys = {name: value for name, value in os.environ.items() if name in ("SOME_API_KEY", "HARMLESS")}
    print("cannot use", sys.argv[2:], keys, file=sys.stderr, flush=True)
    os._exit(3)
if step == "start":
    end()
for line in sys.stdin:
    message = json.loads(line)
    if message.get("id") is None:
        continue
    if message["method"] == step:
        print("cannot connect with", *sys.argv, *os.environ.values(), flush=True)
        end()
    result = {"tools": [{"name": "t", "inputSchema": {"type": "object"}}]}
    if message["method"] == "initialize":
        result = {"protocolVersion": "2025-06-18", "capabilities": {"tools": {}}, "serverInfo": {"name": "d", "version": "1"}}
    print(json.dumps({"jsonrpc": "2.0", "id": message["id"], "result": result}), flush=True)
"""


@pytest.mark.parametrize("step", ["start", "initialize", "tools/list", "tools/call", "no command", "no folder"])  # fmt: skip
async def test_no_failure_over_stdio_shows_a_key(
    step: str, records: Records, tmp_path: Path
) -> None:
    events: list[mcp.MCPEvent] = []
    program = "no-such-program" if step == "no command" else sys.executable
    await searched(
        mcp.MCPServerStdio(
            program,
            ["-c", DIES, step, *ARGUMENTS],
            env=ENVIRONMENT,
            cwd=tmp_path / "missing" if step == "no folder" else None,
            client_session_timeout_seconds=20,
            on_event=events.append,
        ),
        records,
        events,
    )


async def test_the_arguments_of_a_process_are_for_the_system_alone(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Tools for monitoring read the arguments of every process that is started, as is done here."""
    told: list[str] = []
    original = subprocess.Popen.__init__

    def init(self: Any, args: Any, **options: Any) -> None:
        told.append(" ".join(map(str, args)) + repr(args))
        original(self, args, **options)
        told.append(repr(self) + repr(self.args))

    monkeypatch.setattr(subprocess.Popen, "__init__", init)
    script = f"import sys; assert sys.argv[2] == {KEY[:6]!r} + {KEY[6:]!r}; sys.exit(3)"
    server = mcp.MCPServerStdio(sys.executable, ["-c", script, *ARGUMENTS], env=ENVIRONMENT)
    with pytest.raises(Exception, match="its process ended with code 3"):
        await server.initialize()
    await server.aclose()
    assert [text for text in told if sys.executable in text]
    assert [text for text in told if KEY in text] == []


async def test_how_a_server_ended_is_in_the_cause_and_the_log_alone(
    caplog: pytest.LogCaptureFixture,
) -> None:
    server = mcp.MCPServerStdio(
        sys.executable, ["-c", DIES, "tools/call", *ARGUMENTS], env=ENVIRONMENT
    )
    async with mcp.MCPToolset(id="d", mcp_server=server) as tools:
        call = FunctionCall(call_id="c", name="t", arguments="{}")
        result = await execute_function_call(call, ToolContext([tools]))
    assert result.fnc_call_out is not None
    assert result.fnc_call_out.output == (
        "the tool `t` is not available: its server has ended or cannot be reached"
    )
    cause = result.raw_exception.__cause__ if result.raw_exception else None
    for text in (str(cause), caplog.text):
        assert "its process ended with code 3; its last words: cannot use" in text
        assert KEY not in text


# the values ----------------------------------------------------------------------------------


def test_commands_and_endpoints_show_the_program_and_the_address_only() -> None:
    command = Command("npx", ARGUMENTS, env=ENVIRONMENT)
    endpoint = Endpoint(f"https://user:{KEY}@h:1/a/mcp?key={KEY}#{KEY}", lambda: HEADERS)
    assert repr(command) == "Command('npx')"
    assert repr(endpoint) == "Endpoint('https://h:1/a/mcp')"
    values = [command.words, command.env, command.secrets(), endpoint.query, endpoint.headers()]
    for value in [*values, endpoint.secrets()]:
        assert repr(value) == str(value) == f"{value}" == "<hidden>"
        assert KEY in repr(value.reveal())
        assert not isinstance(value, Mapping | Sequence)
        with pytest.raises(TypeError, match="not pickled"):
            pickle.dumps(value)
    assert Hidden([1]) == Hidden([1])
    assert Hidden([1]) != Hidden([2])
    assert Hidden([1]) != [1]


@pytest.mark.parametrize(
    ("args", "env", "found"),
    [
        (["--api-key", "abcdefgh"], {}, True),
        (["--api-key=abcdefgh"], {}, True),
        (["-e", "API_KEY=abcdefgh"], {}, True),
        (["--header", "Authorization: Bearer abcdefgh"], {}, True),
        (["https://user:abcdefgh@host/"], {}, True),
        (["https://host/?token=abcdefgh"], {}, True),
        (["--url=https://host/?token=abcdefgh"], {}, True),
        ([], {"GITHUB_TOKEN": "abcdefgh"}, True),
        (["--folder", "abcdefgh"], {"HOME": "abcdefgh"}, False),
        (["abcdefgh", "https://host/abcdefgh"], {}, False),
    ],
)
def test_credentials_of_a_command_line_are_found_by_name(
    args: list[str], env: dict[str, str], found: bool
) -> None:
    assert ("abcdefgh" in secrets_in_command(args, env)) is found
