"""MCPServer and MCPToolset as their users see them."""

from __future__ import annotations

import asyncio
import importlib
import inspect
import json
import re
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rejoinder._core.tools import ToolOptions
from rejoinder.errors import ConfigurationError
from rejoinder.llm import mcp
from rejoinder.llm.tool_context import ToolContext, ToolError, get_tool_name, is_raw_function_tool
from rejoinder.mcp.model_view import exposed_names

SURFACE = Path(__file__).parents[1] / "reference"


@pytest.mark.parametrize(
    ("url", "transport"),
    [
        ("http://h/mcp", "streamable_http"),
        ("http://h/mcp/", "streamable_http"),
        ("http://h/mcp//", "streamable_http"),
        ("http://h/MCP", "streamable_http"),
        ("http://h/mcp?x=1", "streamable_http"),
        ("http://h/api/mcp#frag", "streamable_http"),
        ("http://h/xmcp", "sse"),
        ("http://h/sse", "sse"),
        ("http://h/foo", "sse"),
        ("http://h", "sse"),
        ("http://h/", "sse"),
        ("http://h/mcp/sse", "sse"),
        ("http://mcp", "sse"),
    ],
)
def test_the_transport_follows_from_the_url(url: str, transport: str) -> None:
    server = mcp.MCPServerHTTP(url)
    shown = url.partition("?")[0].partition("#")[0]
    assert repr(server) == f"MCPServerHTTP(url={shown}, transport={transport})"
    assert not server.initialized


def test_an_explicit_transport_wins() -> None:
    assert mcp.MCPServerHTTP("http://h/x", transport_type="streamable_http").transport_type == (
        "streamable_http"
    )
    with pytest.raises(ValueError, match="transport_type"):
        mcp.MCPServerHTTP("http://h", transport_type="carrier pigeon")  # type: ignore[arg-type]


def test_signatures() -> None:
    http = list(inspect.signature(mcp.MCPServerHTTP.__init__).parameters.values())
    assert [(p.name, p.default) for p in http[1:6]] == [
        ("url", inspect.Parameter.empty),
        ("headers", None),
        ("timeout", 5),
        ("sse_read_timeout", 300),
        ("client_session_timeout_seconds", 5),
    ]
    stdio = list(inspect.signature(mcp.MCPServerStdio.__init__).parameters.values())
    assert [(p.name, p.default) for p in stdio[1:6]] == [
        ("command", inspect.Parameter.empty),
        ("args", inspect.Parameter.empty),
        ("env", None),
        ("cwd", None),
        ("client_session_timeout_seconds", 5),
    ]
    with pytest.raises(TypeError):
        mcp.MCPServer(client_session_timeout_seconds=5)  # type: ignore[abstract]
    with pytest.raises(TypeError, match="tool_prefx"):
        mcp.MCPServerStdio("x", [], tool_prefx="y")  # type: ignore[call-arg]
    assert repr(mcp.MCPServerStdio("cmd", ["a"], cwd="/x")) == (
        "MCPServerStdio(command=cmd, args=<1 hidden>, cwd=/x)"
    )


def test_without_the_package_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "mcp", None)
    monkeypatch.delitem(sys.modules, "rejoinder.llm.mcp")
    with pytest.raises(ImportError, match=r"rejoinder\[mcp\]"):
        importlib.import_module("rejoinder.llm.mcp")


def test_a_server_from_one_line() -> None:
    server = mcp.server_from_spec("npx -y 'a b' --flag")
    assert isinstance(server, mcp.MCPServerStdio)
    assert (server.command, server.args) == ("npx", ["-y", "a b", "--flag"])
    assert isinstance(mcp.server_from_spec("https://h/mcp"), mcp.MCPServerHTTP)
    with pytest.raises(ValueError, match="nothing"):
        mcp.server_from_spec("  ")
    with pytest.raises(ValueError, match="unclosed quotation mark"):
        mcp.server_from_spec("run 'a b")
    with pytest.raises(ValueError, match=r"https:// URL, or a command, got ftp://\.\.\.$"):
        mcp.server_from_spec("ftp://user:canary@h/mcp")


async def test_tools_are_raw_function_tools_and_cached(lab: Any) -> None:
    async with lab.stdio() as server:
        tools = await server.list_tools()
        assert await server.list_tools() is tools
        assert all(is_raw_function_tool(tool) for tool in tools)
        assert tools[0].info.raw_schema == {
            "name": "echo",
            "description": "The tool echo",
            "parameters": {"type": "object", "properties": {"text": {"type": "string"}}},
        }
        server.invalidate_cache()
        again = await server.list_tools()
        assert again is not tools
        assert again == tools  # the same objects: what is cached by tool stays valid
        text = await tools[0](raw_arguments={"text": "5"})
        assert text == '{"type":"text","text":"5","annotations":null,"meta":null}'


async def test_what_results_become(lab: Any) -> None:
    async with lab.stdio(max_output_chars=1000) as server:
        with pytest.raises(ToolError, match=r"^it did not work$"):
            await server.call_tool("fail")
        with pytest.raises(ToolError, match="without a result"):
            await server.call_tool("empty")
        picture = await server.call_tool("picture", {"text": "look"})
        assert isinstance(picture, mcp.MCPToolOutput)
        assert len(picture.images) == 1
        assert len(picture) < 1000
        structured = await server.call_tool("structured")
        assert structured == '{"n":1}'
        assert structured.structured == {"n": 1}
        many = await server.call_tool("many", {"text": "100000"})
        assert len(many) < 3000
        assert "99,000 of 100,000 characters left out" in many


@pytest.mark.parametrize("asynchronous", [False, True])
async def test_a_resolver_makes_of_a_result_what_it_likes(lab: Any, asynchronous: bool) -> None:
    def resolve(context: mcp.MCPToolResultContext) -> Any:
        return (context.tool_name, context.arguments, len(context.result.content))

    async def later(context: mcp.MCPToolResultContext) -> Any:
        return resolve(context)

    async with lab.stdio(tool_result_resolver=later if asynchronous else resolve) as server:
        assert await server.call_tool("echo", {"text": "x"}) == ("echo", {"text": "x"}, 1)
        assert await server.call_tool("empty") == ("empty", {}, 0)
        with pytest.raises(ToolError, match="it did not work"):
            await server.call_tool("fail")


async def test_only_allowed_tools_exist(lab: Any, caplog: pytest.LogCaptureFixture) -> None:
    async with lab.stdio(allowed_tools=["fail", "echo", "absent"]) as server:
        assert [get_tool_name(tool) for tool in await server.list_tools()] == ["echo", "fail"]
    assert "no tool `absent`" in caplog.text


async def test_names_that_collide_are_reported_and_can_be_prefixed(lab: Any) -> None:
    one, two, three = lab.stdio(), lab.stdio(), lab.stdio(tool_prefix="b_")
    async with one, two, three:
        lists = [await server.list_tools() for server in (one, two, three)]
        collisions = mcp.name_collisions(*lists)
        assert collisions["echo"] == [repr(one), repr(two)]
        assert "b_echo" not in collisions
        with pytest.raises(ValueError, match=r"(?s)echo.*MCPServerStdio.*tool_prefix"):
            ToolContext([*lists[0], *lists[1]])
        context = ToolContext([*lists[0], *lists[2]])
        prefixed: Any = context.get_function_tool("b_echo")
        assert mcp.tool_origin(prefixed) == repr(three)
        assert "hi" in await prefixed(raw_arguments={"text": "hi"})


async def test_a_toolset_has_the_tools_between_setup_and_close(lab: Any) -> None:
    toolset = mcp.MCPToolset(id="t", mcp_server=lab.stdio())
    assert toolset.tools == []
    await toolset.setup()
    everything = len(toolset.tools)
    assert everything > 5
    toolset.filter_tools(lambda tool: get_tool_name(tool) in {"echo", "fail"})
    assert [tool.id for tool in toolset.tools] == ["echo", "fail"]
    await toolset.setup()
    assert len(toolset.tools) == 2
    await toolset.setup(reload=True)
    assert len(toolset.tools) == everything
    assert "echo" in ToolContext([toolset]).function_tools
    await toolset.aclose()
    assert toolset.tools == []
    assert not toolset.mcp_server.initialized


async def test_options_of_single_tools(lab: Any) -> None:
    server = lab.stdio(tool_prefix="p_")
    options = {"slow": ToolOptions(timeout=0.2, interruptible=False)}
    async with mcp.MCPToolset(id="t", mcp_server=server, tool_options=options) as toolset:
        slow: Any = ToolContext([toolset]).get_function_tool("p_slow")
        with pytest.raises(ToolError, match="did not answer in time"):
            await slow(raw_arguments={"text": "3600"})


async def test_a_changed_list_is_reported_and_followed(lab: Any) -> None:
    events: list[mcp.MCPEvent] = []
    told = asyncio.Event()

    def on_event(event: mcp.MCPEvent) -> None:
        events.append(event)
        told.set()

    server = lab.stdio(on_event=on_event)
    async with mcp.MCPToolset(id="t", mcp_server=server) as toolset:
        toolset.filter_tools(lambda tool: get_tool_name(tool) in {"echo", "fresh", "fail"})
        await server.call_tool("change", {"text": "do something else"})
        async with asyncio.timeout(60):
            await told.wait()
        (event,) = events
        assert event.type == "tools_changed"
        assert event.change is not None
        assert event.change.changed == ("echo",)
        assert event.change.added == ("fresh",)
        assert event.change.removed == ("headers",)
        assert "changed the definition of `echo`" in event.message
        assert {tool.id for tool in toolset.tools} == {"echo", "fail", "fresh"}
        echo: Any = ToolContext([toolset]).get_function_tool("echo")
        assert echo.info.raw_schema["description"] == "do something else"


async def test_no_message_is_sent_for_a_request_of_the_model(lab: Any) -> None:
    async with mcp.MCPToolset(id="t", mcp_server=lab.stdio()) as toolset:
        for _ in range(20):
            ToolContext([toolset]).parse_function_tools("openai")
            await toolset.setup()
            await toolset.mcp_server.list_tools()
        seen = json.loads(json.loads(await toolset.mcp_server.call_tool("seen"))["text"])
        assert seen.count("tools/list") == 1


async def test_a_server_without_resources_and_prompts_has_none(lab: Any) -> None:
    async with lab.stdio() as server:
        assert await server.list_resources() == []
        assert await server.list_resource_templates() == []
        assert await server.list_prompts() == []


async def test_a_transport_of_somebody_elses(lab: Any) -> None:
    from mcp.client.stdio import StdioServerParameters, stdio_client

    class Own(mcp.MCPServer):
        def client_streams(self) -> Any:
            command, *args = lab.command()
            return stdio_client(StdioServerParameters(command=command, args=args))

    async with lab.nothing_left(), Own(client_session_timeout_seconds=5) as server:
        assert "own" in await server.call_tool("echo", {"text": "own"})


async def test_names_are_made_of_letters_that_providers_accept(lab: Any) -> None:
    async with lab.stdio(env={"ODD_NAMES": "1"}) as server:
        names = [get_tool_name(tool) for tool in await server.list_tools()]
        # The tool that is really called so keeps the name; the other one is marked.
        assert names[0] == "echo"
        assert names[1].startswith("files_read_v2_")
        assert names[2] == "files_read_v2"
        assert names[3].startswith("n" * 50)
        assert len(names[3]) == 64


@given(
    st.lists(st.text(max_size=90) | st.sampled_from(["a.b", "a/b", "a_b", "n" * 100]), unique=True),
    st.sampled_from(["", "p_", "my server/", "x" * 70]),
)
def test_exposed_names_are_legal_unlike_and_stable(names: list[str], prefix: str) -> None:
    exposed = exposed_names(names, prefix)
    assert sorted(exposed) == sorted(names)
    assert len(set(exposed.values())) == len(names)
    assert all(re.fullmatch(r"[A-Za-z0-9_-]{1,64}", name) for name in exposed.values())
    # What a server lists beside a tool changes its name only if both want the same one.
    for name in names:
        alone = exposed_names([name], prefix)[name]
        others = {n for other, n in exposed_names(names, prefix).items() if other != name}
        assert exposed[name] == alone or alone in others


@pytest.mark.parametrize(
    ("make", "told"),
    [
        (
            lambda: mcp.MCPServerHTTP("ftp://u:secret@h/x"),
            "MCPServerHTTP.url: expected an absolute",
        ),
        (lambda: mcp.MCPServerHTTP("h"), "MCPServerHTTP.url"),
        (lambda: mcp.MCPServerHTTP(""), "MCPServerHTTP.url"),
        (lambda: mcp.MCPServerHTTP("http://h:port/mcp"), "MCPServerHTTP.url"),
        (lambda: mcp.MCPServerHTTP("http://h/mcp", {"a b": "secret"}), "header"),
        (lambda: mcp.MCPServerHTTP("http://h/mcp", {"X": "secret\n"}), "a line break"),
        (lambda: mcp.MCPServerStdio(" ", []), "MCPServerStdio.command"),
        (lambda: mcp.MCPServerStdio("x", ["secret\0"]), "a NUL character"),
        (lambda: mcp.MCPServerStdio("x", [], env={"A=B": "secret"}), "MCPServerStdio.env"),
        (lambda: mcp.MCPServerStdio("x", [], env={"": "secret"}), "MCPServerStdio.env"),
    ],
)
def test_a_server_that_cannot_be_reached_is_refused_where_it_is_named(make: Any, told: str) -> None:
    with pytest.raises(ConfigurationError, match=told) as caught:
        make()
    assert "secret" not in str(caught.value)
