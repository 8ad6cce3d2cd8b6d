"""A loop that stood still is nothing that a server did: each wait for a server excuses it.

A blocking call, a suspended process and a sleeping machine look alike: the clock of the loop jumps,
and what arrived meanwhile lies waiting. (What else uses `within` is tested where it lives: connections
of HTTP, sessions, MCP over stdio, models of a fallback.)
"""

from __future__ import annotations

import asyncio
import hashlib
import re
from collections.abc import Coroutine
from pathlib import Path
from typing import Any

import pytest

import mcp_raw as raw
import rejoinder
from listening import listening
from providers.openai.duplex import until
from rejoinder.llm import (
    FunctionCall,
    RealtimeModelFallbackAdapter,
    ToolContext,
    TurnBudget,
    execute_function_call,
    function_tool,
    mcp,
)
from rejoinder.providers.local.fetch import fetch
from rejoinder.providers.local.models import Hub, ModelFile
from rejoinder.providers.openai.realtime import RealtimeModel
from rejoinder.testing import RealtimeConnection, RealtimeServer, ScriptedLLM
from rejoinder.testing.h2_server import H2Server, H2ServerStream
from rejoinder.transport import AiohttpTransport
from rejoinder.transport._aiohttp_ws import AiohttpWebSocketTransport
from rejoinder.transport._h2 import H2Transport
from rejoinder.transport.ws import SocketRequest
from rejoinder.types import APIConnectOptions
from stalls import Stalls
from test_delegation import answers, delegating

pytestmark = pytest.mark.may_block

LIMIT = 2.0

TESTED = {
    "_aio.py": "tests/test_aio.py",
    "delegation.py": "here",
    "llm/_fallback_child.py": "tests/llm/test_fallback_clocks.py",
    "llm/_realtime_fallback_session.py": "here",
    "mcp/http.py": "here",
    "mcp/supervisor.py": "tests/mcp/test_deadlines.py",
    "providers/local/sources.py": "here",
    "providers/sessions/connections.py": "tests/providers/sessions/test_settings.py",
    "providers/sessions/settings.py": "tests/providers/sessions/test_settings.py",
    "transport/_aiohttp_reuse.py": "tests/transport/test_aiohttp.py",
    "transport/_aiohttp_ws.py": "here",
    "transport/_h2.py": "here",
}
"""Where each file with a wait is tested."""


def test_each_user_is_tested() -> None:
    home = Path(rejoinder.__file__).parent
    users = {
        str(path.relative_to(home).as_posix())
        for path in home.rglob("*.py")
        if re.search(r"async with (_aio\.)?within\(", path.read_text("utf-8"))
    }
    assert users == TESTED.keys()


async def while_blocked(work: Coroutine[Any, Any, Any]) -> Any:
    """`work`, during which the loop stands still for 3 s, three times."""
    stalls = Stalls()
    task = asyncio.ensure_future(work)
    for _ in range(3):
        await asyncio.sleep(0)
        stalls.stand_still(3.0)
    return await task


async def test_a_connection_of_http_2() -> None:
    async def echo(stream: H2ServerStream) -> None:
        stream.respond(200)
        stream.end()

    async with H2Server(echo) as server:
        transport = H2Transport()
        url = server.url.replace("127.0.0.1", "localhost")  # looked up in a thread
        stream = await while_blocked(transport.connect(SocketRequest(url, connect_timeout=LIMIT)))
        assert (await stream.head())[0] == 200
        await transport.aclose()


@pytest.mark.looptime
async def test_a_web_socket() -> None:
    async with RealtimeServer() as server:
        http = AiohttpTransport()
        request = SocketRequest(server.url.replace("http:", "ws:"), connect_timeout=LIMIT)
        socket = await while_blocked(AiohttpWebSocketTransport(http).connect(request))
        await socket.aclose()
        await http.aclose()


@pytest.mark.parametrize("method", ["initialize", "tools/list", "tools/call"])
async def test_an_mcp_server_over_http(method: str) -> None:
    stalls = Stalls()

    def handle(request: raw.Request) -> raw.Answer:
        if request.rpc == method:
            stalls.stand_still(30)
        return raw.usual(request)

    async with raw.http(handle) as at, mcp.MCPServerHTTP(at.url) as server:
        assert len(await server.list_tools()) == 1
        assert "fine" in await server.call_tool("t")
        assert [one.rpc for one in at.requests].count("initialize") == 1


@pytest.mark.looptime
async def test_a_download(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stalls = Stalls()
    content = b"x" * 300_000

    async def hub(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        stalls.stand_still(30)
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(content))
        writer.write(content[:100_000])
        await asyncio.sleep(1)
        stalls.stand_still(300)
        writer.write(content[100_000:])
        await writer.drain()

    model = ModelFile(
        name="tiny",
        aliases=(),
        title="Tiny",
        licence="CC0",
        file_name="tiny.gguf",
        size=len(content),
        sha256=hashlib.sha256(content).hexdigest(),
        note="",
        sources=(Hub("somebody/tiny", "tiny.gguf"),),
    )
    async with listening(hub) as url:
        monkeypatch.setenv("HF_ENDPOINT", url)
        assert (await fetch(model, folder=tmp_path)).read_bytes() == content


@pytest.mark.looptime
async def test_a_realtime_model_of_a_fallback() -> None:
    stalls = Stalls()

    async def connect(connection: RealtimeConnection) -> None:
        stalls.stand_still(30)
        await asyncio.sleep(1)

    async with RealtimeServer(on_connect=connect) as one, RealtimeServer() as two:
        once = APIConnectOptions(max_retry=0, timeout=60)
        models = [RealtimeModel(base_url=s.url, api_key="k", conn_options=once) for s in (one, two)]
        adapter = RealtimeModelFallbackAdapter(models, attempt_timeout=LIMIT)
        session = adapter.session()
        await session.connected()
        assert (len(one.connections), len(two.connections)) == (1, 0)
        await adapter.aclose()
        for model in models:
            await model.aclose()


@pytest.mark.looptime
async def test_a_delegated_task() -> None:
    stalls = Stalls()
    budget = TurnBudget(done_by=5, next_token_within=3)
    async with delegating(ScriptedLLM([1.0, "It rains."]), budget=budget) as (_, live, _):
        await live.words_of_user("How is the weather?")
        await live.delegate()
        await asyncio.sleep(1.2)  # the model has been asked
        stalls.stand_still(30)
        await until(lambda: answers(live))
        assert answers(live)[-1] == "It rains."


@pytest.mark.looptime
async def test_the_words_that_a_delegated_task_waits_for() -> None:
    stalls = Stalls()
    llm = ScriptedLLM("It rains.")
    async with delegating(llm) as (_, live, _):
        await live.delegate()
        await asyncio.sleep(0.1)
        stalls.stand_still(3.0)
        await asyncio.sleep(0.1)
        await live.words_of_user("How is the weather?")
        await until(lambda: "It rains." in answers(live))
        assert llm.calls[0].chat_ctx.items[-1].text_content == "How is the weather? "


@pytest.mark.looptime
async def test_a_tool() -> None:
    stalls = Stalls()

    async def ask() -> str:
        await asyncio.sleep(1)
        stalls.stand_still(30)
        await asyncio.sleep(0.5)
        return "done"

    tool = function_tool(ask, name="ask", description="Asks a service.", timeout=LIMIT)
    call = FunctionCall(call_id="c", name="ask", arguments="{}")
    result = await execute_function_call(call, ToolContext([tool]))
    assert result.fnc_call_out is not None
    assert result.fnc_call_out.output == "done"
