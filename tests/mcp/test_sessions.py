"""Sessions over HTTP: ended, refused, redirected, and of another era of the protocol."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import subprocess
import sys
from typing import Any

import pytest

from mcp_raw import FINE, HTTP, TOOL, Answer, Request, http, plain, rpc, rpc_error, usual
from rejoinder.errors import APIConnectionError, APIError, APIStatusError
from rejoinder.llm import mcp
from rejoinder.llm.tool_context import ToolError


def server(at: HTTP, **options: Any) -> mcp.MCPServerHTTP:
    options.setdefault("client_session_timeout_seconds", 20)
    return mcp.MCPServerHTTP(at.url, **options)


ENDED = {
    "404 without a body": lambda r: plain(404),
    "404 with JSON-RPC, as the Python SDK": lambda r: rpc_error(
        r, -32600, "Session not found", status=404
    ),
    "404 with -32001, as the TypeScript SDK": lambda r: rpc_error(
        r, -32001, "Session not found", status=404
    ),
    "404 with JSON": lambda r: plain(404, b'{"detail": "Not Found"}', "application/json"),
    "404 with HTML": lambda r: plain(404, b"<html><h1>Not found</h1></html>", "text/html"),
    "410": lambda r: plain(410, b"gone"),
    "400 with text": lambda r: plain(400, b"Bad Request: no valid session id"),
    "400 with -32000": lambda r: rpc_error(
        r, -32000, "Bad Request: No valid session ID provided", status=400
    ),
    "400 with an error that is a text": lambda r: plain(
        400, b'{"error": "unknown session"}', "application/json"
    ),
    "200 with an error": lambda r: rpc_error(r, -32600, "Invalid session"),
    "200 with -32001": lambda r: rpc_error(r, -32001, "Session not found"),
    "200 with the words of the SDK": lambda r: rpc_error(r, -32600, "Session terminated"),
    "401": lambda r: plain(401, b"session expired"),
    "403": lambda r: plain(403, b"unknown session"),
    "409": lambda r: plain(409, b"session expired"),
    "422": lambda r: plain(422, b'{"detail": "session"}', "application/json"),
}


@pytest.mark.parametrize("words", ENDED)
async def test_a_session_that_ended_is_renewed_whatever_the_words(words: str) -> None:
    sessions: list[str] = []
    known: set[str] = set()

    def handle(request: Request) -> Answer:
        if request.rpc == "initialize":
            sessions.append(f"s{len(sessions)}")
            known.add(sessions[-1])
            return usual(request, mcp_session_id=sessions[-1])
        if request.method == "POST" and request.session not in known:
            return ENDED[words](request)
        return usual(request)

    async with http(handle) as at, server(at) as ours:
        assert await ours.list_tools()
        for _ in range(2):
            known.clear()  # the server was restarted
            for _ in range(2):
                assert "fine" in await ours.call_tool("t")
        assert sessions == ["s0", "s1", "s2"]
        # Each call was answered once.
        calls = [r for r in at.requests if r.rpc == "tools/call" and r.session in {"s1", "s2"}]
        assert len(calls) == 4 + 1  # one of them found that s1 had ended


async def test_a_session_behind_a_server_error_is_renewed_and_the_call_is_not_repeated() -> None:
    restarted = False
    sessions: list[str] = []

    def handle(request: Request) -> Answer:
        if request.rpc == "initialize":
            sessions.append(f"s{len(sessions)}")
            return usual(request, mcp_session_id=sessions[-1])
        if request.method == "POST" and restarted and request.session == "s0":
            return plain(500, b"KeyError: 's0'")
        return usual(request)

    async with http(handle) as at, server(at) as ours:
        assert await ours.list_tools()
        restarted = True
        with pytest.raises(ToolError, match="HTTP 500"):
            await ours.call_tool("t")
        assert "fine" in await ours.call_tool("t")
        assert [r.session for r in at.requests if r.rpc == "tools/call"] == ["s0", "s1"]


@pytest.mark.parametrize("status", [400, 401, 403, 429, 500, 503])
async def test_a_refused_call_is_not_taken_for_a_session_that_ended(status: int) -> None:
    def handle(request: Request) -> Answer:
        if request.rpc == "tools/call":
            return plain(status, b"<p>expired</p>", "text/html")
        return usual(request, mcp_session_id="s")

    async with http(handle) as at, server(at) as ours:
        with pytest.raises(ToolError) as caught:
            await ours.call_tool("t")
        assert str(caught.value).endswith(f"its server refused the call (HTTP {status})")
        assert isinstance(caught.value.__cause__, APIStatusError)
        assert caught.value.__cause__.status_code == status
        assert "expired" in str(caught.value.__cause__)
        assert at.methods().count("initialize") == 1
        assert at.methods().count("tools/call") == 1


async def test_a_session_that_is_never_known_is_an_error_with_its_cause() -> None:
    def handle(request: Request) -> Answer:
        if request.rpc == "tools/call":
            return plain(404, b"no such session")
        return usual(request, mcp_session_id="s")

    async with http(handle) as at, server(at) as ours:
        with pytest.raises(ToolError, match="HTTP 404") as caught:
            await ours.call_tool("t")
        assert "no such session" in str(caught.value.__cause__)
        assert at.methods().count("tools/call") == 2


async def test_a_404_of_a_server_without_sessions_is_an_error() -> None:
    def handle(request: Request) -> Answer:
        return plain(404) if request.rpc == "tools/call" else usual(request)

    async with http(handle) as at, server(at) as ours:
        with pytest.raises(ToolError, match="HTTP 404"):
            await ours.call_tool("t")
        assert at.methods().count("initialize") == 1


async def test_an_answer_with_a_wrong_argument_reaches_the_model() -> None:
    def handle(request: Request) -> Answer:
        if request.rpc == "tools/call":
            return rpc_error(request, -32602, "a: expected a number")
        return usual(request, mcp_session_id="s")

    async with http(handle) as at, server(at) as ours:
        with pytest.raises(ToolError, match="a: expected a number"):
            await ours.call_tool("t")
        assert at.methods().count("ping") == 0


PROGRAM = """
import sys, uvicorn
from mcp.server import MCPServer
server = MCPServer("m")
@server.tool()
def add(a: int, b: int) -> int:
    return a + b
uvicorn.run(server.streamable_http_app(), host="127.0.0.1", port=int(sys.argv[1]), log_level="critical")
"""


async def started(port: int) -> subprocess.Popen[bytes]:
    process = subprocess.Popen([sys.executable, "-c", PROGRAM, str(port)])
    while process.poll() is None:
        try:
            _, writer = await asyncio.open_connection("127.0.0.1", port)
        except OSError:
            await asyncio.sleep(0.05)
        else:
            writer.close()
            return process
    raise AssertionError("the server did not start")


@pytest.mark.timeout(300)  # two interpreters import the SDK and a web server
async def test_the_official_server_may_be_restarted() -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    process = await started(port)
    try:
        ours = mcp.MCPServerHTTP(f"http://127.0.0.1:{port}/mcp", client_session_timeout_seconds=20)
        async with ours:
            assert "3" in await ours.call_tool("add", {"a": 1, "b": 2})
            process.terminate()
            process.wait()
            process = await started(port)
            # The client may have noticed, and rest between two attempts; then a call fails at once.
            while True:
                with contextlib.suppress(ToolError):
                    assert "7" in await ours.call_tool("add", {"a": 3, "b": 4})
                    break
                await asyncio.sleep(0.05)
            for n in range(3):
                assert str(n + 2) in await ours.call_tool("add", {"a": n, "b": 2})
    finally:
        process.kill()
        process.wait()


# redirects -----------------------------------------------------------------------------------


@pytest.mark.parametrize("status", [307, 308])
async def test_a_redirect_within_the_origin_is_followed_with_the_message(status: int) -> None:
    def handle(request: Request) -> Answer:
        if request.target.partition("?")[0] == "/mcp":
            query = request.target.partition("?")[2]
            return plain(status, location=f"/mcp/?{query}" if query else "/mcp/")
        assert request.headers["x-token"] == "one"
        assert request.target == "/mcp/?key=two"
        return usual(request, mcp_session_id="s")

    async with http(handle) as at:
        ours = mcp.MCPServerHTTP(at.url + "?key=two", headers={"X-Token": "one"})
        async with ours:
            assert "fine" in await ours.call_tool("t")


async def test_a_redirect_to_another_origin_is_an_error_that_names_it() -> None:
    async with http(usual) as other:

        def handle(request: Request) -> Answer:
            return plain(307, location=f"{other.url}?state=abc")

        async with http(handle) as at:
            ours = server(at, headers={"X-Token": "one"})
            with pytest.raises(APIConnectionError, match=str(other.port)) as caught:
                await ours.initialize()
            assert "state" not in str(caught.value)
            assert not other.requests


# modern servers ------------------------------------------------------------------------------

VERSION = "2026-07-28"
COMPLETE = {"resultType": "complete", "ttlMs": 0, "cacheScope": "private"}
REFUSALS = {
    "no version header": lambda r: rpc_error(
        r, -32020, "Missing MCP-Protocol-Version header", status=400
    ),
    "unsupported version": lambda r: rpc_error(r, -32022, "unsupported", status=400),
    "unknown method": lambda r: rpc_error(r, -32601, "Method not found", status=404),
    "not found": lambda r: plain(404),
    "text": lambda r: plain(400, b"no"),
}


@pytest.mark.parametrize("how", REFUSALS)
async def test_a_server_of_the_new_protocol_alone(how: str) -> None:
    def handle(request: Request) -> Answer:
        if request.method != "POST":
            return plain(405)
        if "mcp-protocol-version" not in request.headers or request.rpc == "initialize":
            return REFUSALS[how](request)
        if request.rpc == "server/discover":
            found = {"supportedVersions": [VERSION], "capabilities": {"tools": {}}}
            return rpc(request, {**COMPLETE, **found})
        if request.rpc == "tools/list":
            return rpc(request, {**COMPLETE, "tools": [TOOL]})
        if request.rpc == "tools/call":
            return rpc(request, {**FINE, "resultType": "complete"})
        return rpc_error(request, -32601, "Method not found", status=404)

    async with http(handle) as at, server(at) as ours:
        assert ours.server_info is not None
        assert ours.server_info.protocol_version == VERSION
        assert [tool.info.name for tool in await ours.list_tools()] == ["t"]
        assert "fine" in await ours.call_tool("t")


async def test_a_server_of_both_eras_is_asked_once() -> None:
    async with http(usual) as at, server(at) as ours:
        assert ours.server_info is not None
        assert "fine" in await ours.call_tool("t")
        assert "server/discover" not in at.methods()
        assert at.methods().count("initialize") == 1


@pytest.mark.parametrize("status", [401, 403, 503])
async def test_who_is_not_let_in_is_told_so_at_once(status: int) -> None:
    async with http(lambda r: plain(status, b"token expired")) as at:
        ours = server(at)
        with pytest.raises(APIStatusError, match=f"HTTP {status}: token expired") as caught:
            await ours.initialize()
        assert caught.value.status_code == status
        assert at.methods() == ["initialize"]


async def test_a_server_that_knows_neither_era_is_an_error() -> None:
    async with http(lambda r: rpc_error(r, -32601, "what?", status=400)) as at:
        ours = server(at)
        with pytest.raises(APIError, match="what"):
            await ours.initialize()
        assert at.methods() == ["initialize", "server/discover", "initialize"]
