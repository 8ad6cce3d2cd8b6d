"""Tools, resources and prompts of MCP servers, with supervised connections: no call can hang.

`MCPServerStdio` runs a server as a child process, `MCPServerHTTP` talks to one over streamable
HTTP or server-sent events; `MCPToolset` offers a server's tools to a model. Needs the package
`mcp` (``pip install "rejoinder[mcp]"``), which is imported when the first server connects.
"""

from __future__ import annotations

import importlib.util
import shlex
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Any, Literal, Self
from urllib.parse import urlsplit

from typing_extensions import Unpack

from rejoinder._core.tools import ToolOptions
from rejoinder._options import AMOUNT, NAME, checked
from rejoinder._secrets import redacted_url
from rejoinder._sections import explained
from rejoinder.errors import ConfigurationError
from rejoinder.llm._mcp_server import (
    NAME_KEY,
    SERVER_KEY,
    MCPEvent,
    MCPOptions,
    MCPServer,
    MCPTool,
    MCPToolResultContext,
)
from rejoinder.llm.tool_context import Toolset, get_tool_name
from rejoinder.mcp.elicitation import Elicitation, ElicitationAnswer
from rejoinder.mcp.results import (
    MCPToolOutput,
    Prompt,
    Resource,
    ResourceTemplate,
    ServerInfo,
    ToolsChange,
)
from rejoinder.mcp.targets import Command, Endpoint

if importlib.util.find_spec("mcp") is None:
    raise ImportError(
        explained(
            "rejoinder.llm.mcp needs the package `mcp`, which is not installed: "
            'pip install "rejoinder[mcp]"',
            "missing package",
        )
    )

__all__ = [
    "Elicitation",
    "ElicitationAnswer",
    "MCPEvent",
    "MCPOptions",
    "MCPServer",
    "MCPServerHTTP",
    "MCPServerStdio",
    "MCPTool",
    "MCPToolOutput",
    "MCPToolResultContext",
    "MCPToolset",
    "Prompt",
    "Resource",
    "ResourceTemplate",
    "ServerInfo",
    "ToolsChange",
    "name_collisions",
    "server_from_spec",
    "tool_origin",
]

for _public in (MCPEvent, MCPOptions, MCPServer, MCPToolResultContext):
    _public.__module__ = __name__


class MCPServerHTTP(MCPServer):
    """A server at a URL.

    Args:
        url: a path that ends with ``/mcp`` means streamable HTTP, any other server-sent events.
        headers: sent with every request; see the property.
        timeout: seconds for connecting, and for messages that are only acknowledged.
        sse_read_timeout: seconds of silence after which a stream counts as dead.
        client_session_timeout_seconds: the deadline of every request, in seconds.
        transport_type: ``"streamable_http"`` or ``"sse"``; default: by the path of `url`.
        options: see `MCPOptions`.

    Raises:
        ConfigurationError: `url` is not a URL, or a header field cannot be sent.
        ValueError: an unknown `transport_type`.
    """

    @checked(
        timeout=AMOUNT,
        sse_read_timeout=AMOUNT,
        client_session_timeout_seconds=AMOUNT.optional,
    )
    def __init__(
        self,
        url: str,
        headers: dict[str, Any] | None = None,
        timeout: float = 5,
        sse_read_timeout: float = 300,
        client_session_timeout_seconds: float | None = 5,
        *,
        transport_type: Literal["sse", "streamable_http"] | None = None,
        **options: Unpack[MCPOptions],
    ) -> None:
        super().__init__(client_session_timeout_seconds=client_session_timeout_seconds, **options)
        if transport_type not in {None, "sse", "streamable_http"}:
            raise ValueError(
                f"transport_type: expected 'sse' or 'streamable_http', got {transport_type!r}"
            )
        _check_address(url)
        _check_headers(headers)
        self.url = url
        self._headers = headers
        self._timeout = timeout
        self._sse_read_timeout = sse_read_timeout
        self._transport: Literal["sse", "streamable_http"] = transport_type or _transport_of(url)

    @property
    def headers(self) -> dict[str, Any] | None:
        """Sent with every request. A new value applies from the next request on, even on a live
        connection, so a token can be renewed."""
        return self._headers

    @headers.setter
    def headers(self, headers: dict[str, Any] | None) -> None:
        _check_headers(headers)
        self._headers = headers

    @property
    def transport_type(self) -> Literal["sse", "streamable_http"]:
        """The transport in use: ``"streamable_http"`` or ``"sse"``."""
        return self._transport

    def client_streams(self) -> AbstractAsyncContextManager[Any]:
        from rejoinder.mcp import http

        streams = (
            http.streamable_http_streams
            if self._transport == "streamable_http"
            else http.sse_streams
        )
        return streams(
            Endpoint(self.url, lambda: self._headers),
            timeout=self._timeout,
            sse_read_timeout=self._sse_read_timeout,
            max_message_bytes=self._max_message_bytes,
        )

    def __repr__(self) -> str:
        shown = f"url={redacted_url(self.url)}, transport={self._transport}"
        return f"MCPServerHTTP({shown}{self._told_name()})"


def _check_address(url: str) -> None:
    from rejoinder.transport._addresses import parse_url

    try:
        parse_url(url)
    except ConfigurationError:
        raise ConfigurationError(
            "MCPServerHTTP.url: expected an absolute URL like 'https://host/mcp', got "
            f"{redacted_url(url)!r}"
        ) from None


def _check_headers(headers: Mapping[str, Any] | None) -> None:
    from rejoinder.transport._addresses import check_headers

    check_headers({str(name): str(value) for name, value in (headers or {}).items()})


def _transport_of(url: str) -> Literal["sse", "streamable_http"]:
    path = urlsplit(url).path.lower().rstrip("/")
    transport: Literal["sse", "streamable_http"] = "sse"
    if path.endswith("/mcp"):
        transport = "streamable_http"
    return transport


class MCPServerStdio(MCPServer):
    """A server that runs as a child process, connected over its stdin and stdout.

    The child and its descendants end with the connection, and when this process ends in any way.
    The child receives only a short list of harmless environment variables, and `env`.

    Args:
        command: the program, found along ``PATH``.
        args: its arguments.
        env: environment variables to add.
        cwd: its working directory.
        client_session_timeout_seconds: the deadline of every request, in seconds.
        options: see `MCPOptions`.
    """

    @checked(command=NAME, client_session_timeout_seconds=AMOUNT.optional)
    def __init__(
        self,
        command: str,
        args: list[str],
        env: dict[str, str] | None = None,
        cwd: str | Path | None = None,
        client_session_timeout_seconds: float | None = 5,
        **options: Unpack[MCPOptions],
    ) -> None:
        super().__init__(client_session_timeout_seconds=client_session_timeout_seconds, **options)
        if "\0" in "".join([command, *args, *(env or {}), *(env or {}).values()]):
            raise ConfigurationError(
                "MCPServerStdio: a NUL character cannot be in a command line or its environment"
            )
        for name in env or ():
            if not name or "=" in name:
                raise ConfigurationError(
                    "MCPServerStdio.env: expected a dict of names and values, as {'NAME': 'value'}; "
                    "a name is empty or holds '='"
                )
        self.command = command
        self.args = args
        self.env = env
        self.cwd = cwd

    def client_streams(self) -> AbstractAsyncContextManager[Any]:
        from rejoinder.mcp.stdio import stdio_streams

        return stdio_streams(
            Command(self.command, self.args, env=self.env, cwd=self.cwd),
            max_message_bytes=self._max_message_bytes,
        )

    def __repr__(self) -> str:
        # Arguments often hold keys.
        hidden = f", args=<{len(self.args)} hidden>" if self.args else ""
        where = f", cwd={self.cwd}" if self.cwd is not None else ""
        return f"MCPServerStdio(command={self.command}{hidden}{where}{self._told_name()})"


class MCPToolset(Toolset):
    """The tools of one server, connected by `setup` and closed by `aclose`.

    When the server's tools change, so do those of the set; `filter_tools` stays in force.

    Args:
        id: id of the set.
        mcp_server: the server.
        tool_options: options of single tools, by the server's name of the tool; `timeout` is the
            deadline of its calls.
    """

    @checked()
    def __init__(
        self,
        *,
        id: str,
        mcp_server: MCPServer,
        tool_options: Mapping[str, ToolOptions] | None = None,
    ) -> None:
        super().__init__(id=id)
        self._server = mcp_server
        self._options = dict(tool_options or {})
        self._filters: list[Callable[[MCPTool], bool]] = []
        self._ready = False

    @property
    def mcp_server(self) -> MCPServer:
        """The server of these tools."""
        return self._server

    async def setup(self, *, reload: bool = False) -> Self:
        """Connect if needed and list the tools. Later calls do nothing, except with `reload`, which
        lists the tools again and removes the filter.

        Raises:
            APIError: as `MCPServer.initialize` and `MCPServer.list_tools`.
        """
        await super().setup()
        if self._ready and not reload:
            return self
        await self._server.initialize()
        if reload:
            self._server.invalidate_cache()
            self._filters.clear()
        tools = await self._server.list_tools()
        self._server.followers.add(self)
        self._ready = True
        self.tools_changed(tools)
        return self

    def filter_tools(self, keep: Callable[[MCPTool], bool]) -> Self:
        """Keep only the tools for which `keep` returns true, now and after later changes."""
        self._filters.append(keep)
        self._tools = [tool for tool in self._tools if keep(tool)]  # type: ignore[arg-type]  # only ours are in it
        return self

    async def aclose(self) -> None:
        """Close the server and empty the set."""
        self._ready = False
        self._tools = []
        self._filters.clear()
        await super().aclose()
        await self._server.aclose()

    def tools_changed(self, tools: Iterable[MCPTool]) -> None:
        """Called by the server when it has listed its tools."""
        if not self._ready:
            return
        server = self._server
        if self._options:
            specs = {spec.name: spec for spec in server.specs}
            tools = [
                server.make_tool(specs[name], self._options[name])
                if (name := getattr(tool, NAME_KEY, "")) in self._options
                else tool
                for tool in tools
            ]
        self._tools = [tool for tool in tools if all(keep(tool) for keep in self._filters)]

    def __repr__(self) -> str:
        return f"MCPToolset(id={self.id!r}, mcp_server={self._server!r})"


def tool_origin(tool: object) -> str | None:
    """A readable description of a tool's server; ``None`` if it is not from an MCP server."""
    reference: Any = getattr(tool, SERVER_KEY, None)
    server = reference() if reference is not None else None
    return repr(server) if server is not None else None


def name_collisions(*sources: Toolset | Sequence[Any]) -> dict[str, list[str]]:
    """Names that several tools of `sources` share, each with the origins of those tools.

    A `ToolContext` refuses them; give one of the servers a `tool_prefix`.
    """
    found: dict[str, list[str]] = {}
    for source in sources:
        for tool in source.tools if isinstance(source, Toolset) else source:
            found.setdefault(get_tool_name(tool), []).append(tool_origin(tool) or "this program")
    return {name: origins for name, origins in found.items() if len(origins) > 1}


@checked(client_session_timeout_seconds=AMOUNT.optional)
def server_from_spec(
    spec: str, *, client_session_timeout_seconds: float | None = 5, **options: Unpack[MCPOptions]
) -> MCPServer:
    """Make a server from a URL, or from a command line.

    Args:
        spec: the line.
        client_session_timeout_seconds, options: as for the servers.

    Raises:
        ValueError: the line is empty, its quotes are not closed, or it is a URL of another kind.
    """
    if spec.startswith(("http://", "https://")):
        return MCPServerHTTP(
            spec, client_session_timeout_seconds=client_session_timeout_seconds, **options
        )
    try:
        words = shlex.split(spec)
    except ValueError:
        raise ValueError(
            "an MCP server: expected a command, got one with an unclosed quotation mark"
        ) from None
    if not words:
        raise ValueError("an MCP server: expected a URL or a command, got nothing")
    scheme, colon, _ = words[0].partition("://")
    if colon:
        raise ValueError(
            f"an MCP server: expected an http:// or https:// URL, or a command, got {scheme}://..."
        )
    return MCPServerStdio(
        words[0],
        words[1:],
        client_session_timeout_seconds=client_session_timeout_seconds,
        **options,
    )
