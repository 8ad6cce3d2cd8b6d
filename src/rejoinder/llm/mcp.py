"""Tools, resources and prompts of MCP servers, kept by a supervisor that cannot hang a call.

`MCPServerStdio` runs a server as a child process, `MCPServerHTTP` talks to one over streamable
HTTP or server-sent events; `MCPToolset` hands the tools of one to a model. Needs the package
`mcp` (``pip install "rejoinder[mcp]"``), which is loaded when the first server is connected.
"""

from __future__ import annotations

import asyncio
import hashlib
import importlib.util
import inspect
import logging
import re
import shlex
import weakref
from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Literal, Self, TypeAlias
from urllib.parse import urlsplit

from typing_extensions import TypedDict, Unpack

from rejoinder._core.items import ChatContent, ChatMessage
from rejoinder._core.tools import ToolError, ToolOptions
from rejoinder._secrets import redacted_url
from rejoinder.errors import APIConnectionError, APIError, APIStatusError, APITimeoutError
from rejoinder.llm.tool_context import RawFunctionTool, Toolset, function_tool, get_tool_name
from rejoinder.mcp import results
from rejoinder.mcp.elicitation import Elicitation, ElicitationAnswer
from rejoinder.mcp.notes import BadAnswer
from rejoinder.mcp.results import (
    MCPToolOutput,
    Prompt,
    Resource,
    ResourceTemplate,
    ServerInfo,
    ToolsChange,
    ToolSpec,
)
from rejoinder.mcp.supervisor import Patience, Supervisor
from rejoinder.mcp.targets import Command, Endpoint

if importlib.util.find_spec("mcp") is None:
    raise ImportError(
        "rejoinder.llm.mcp needs the package `mcp`, which is not installed: "
        'pip install "rejoinder[mcp]"'
    )

if TYPE_CHECKING:
    from mcp.types import CallToolResult  # for a signature of the public API

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

logger = logging.getLogger("rejoinder.mcp")

MCPTool: TypeAlias = RawFunctionTool
"""A tool of a server is a raw function tool: its server wrote the schema."""

_NO_DEADLINE: Final = 3600.0
"""What a timeout of 0 or ``None`` means: a server that says nothing for an hour is dead."""

_SIGNATURE: Final = inspect.Signature(
    [
        inspect.Parameter(
            "raw_arguments", inspect.Parameter.POSITIONAL_OR_KEYWORD, annotation=dict[str, Any]
        )
    ]
)
_ORIGIN: Final = "__rejoinder_origin"
_SERVER: Final = "__rejoinder_mcp_server"
_NAME: Final = "__rejoinder_mcp_name"
_LIST_PAUSE: Final = 1.0
# What every provider accepts in the name of a tool. A server's dot or slash would otherwise make
# the provider refuse the whole request.
_FORBIDDEN: Final = re.compile(r"[^A-Za-z0-9_-]")
_LONGEST_NAME: Final = 64


@dataclass(frozen=True, slots=True)
class MCPToolResultContext:
    """What a `tool_result_resolver` is given.

    Attributes:
        tool_name: the tool, by its server's name for it.
        arguments: what it was called with.
        result: the SDK's ``CallToolResult``; never an error result.
    """

    tool_name: str
    arguments: dict[str, Any]
    result: CallToolResult


@dataclass(frozen=True, slots=True)
class MCPEvent:
    """Something happened to a server.

    Attributes:
        type: ``"lost"`` (the connection; it is made again), ``"restored"``, ``"tools_changed"``
            (see `change`), ``"collision"`` (two tools have one name), ``"bad_tool"`` (a tool was
            left out or mended, because its definition is not valid).
        server: the server.
        message: the same in words. It may quote the server's stderr; it is not for a model.
        change: for ``"tools_changed"``: names added, removed, and changed in their definition.
    """

    type: Literal["lost", "restored", "tools_changed", "collision", "bad_tool"]
    server: MCPServer
    message: str
    change: ToolsChange | None = None


ToolResultResolver: TypeAlias = Callable[[MCPToolResultContext], Any]
ElicitationCallback: TypeAlias = Callable[[Elicitation], Awaitable[ElicitationAnswer]]


class MCPOptions(TypedDict, total=False):
    """Further options of every server, by keyword. Times are seconds."""

    allowed_tools: Sequence[str] | None
    """Names of the tools to offer; the others do not exist for us. Default: all."""
    tool_prefix: str
    """Put before the name of each tool, so that two servers can have a tool of one name."""
    tool_result_resolver: ToolResultResolver | None
    """Turns a result into what the tool returns; a plain or an ``async`` function."""
    elicitation: ElicitationCallback | None
    """Answers what the server wants to know from a person. Default: such questions are refused."""
    elicitation_timeout: float
    """How long a person may think (default 120); the deadline of the call waits meanwhile."""
    startup_timeout: float | None
    """For connecting and the handshake. Default: as for every other question."""
    mode: Literal["auto", "legacy"] | None
    """How to agree on a protocol. Default: the handshake of the versions up to 2025-11-25 first, and
    a probe for a server of 2026-07-28 where it is refused. ``"auto"``: the probe first, as the SDK
    does; some older stdio servers do not survive it. ``"legacy"``: the handshake alone."""
    on_event: Callable[[MCPEvent], None] | None
    """Told when the connection is lost or restored, and when the tools change."""
    max_message_bytes: int
    """The longest message that is read (default 16 MiB); a longer one fails its call."""
    max_output_chars: int
    """About the longest text a tool gives to the model (default 100,000); the rest is cut."""
    progress_limit: float
    """How long a call may take in all while the server reports progress (default 120): each report
    renews the deadline up to here. 0: reports change nothing. A `timeout` given for the call, or
    for the tool, is not renewed."""


class MCPServer(ABC):
    """A server of tools, resources and prompts, kept connected.

    Between `initialize` and `aclose` the connection is watched: a loss is noticed at once, told
    to the calls that wait, and mended in the background. Every question has a deadline. All
    methods may be called from any task of the loop.

    Args:
        client_session_timeout_seconds: the deadline of every question, in seconds.
        options: see `MCPOptions`.
    """

    def __init__(
        self, *, client_session_timeout_seconds: float, **options: Unpack[MCPOptions]
    ) -> None:
        unknown = set(options) - set(MCPOptions.__annotations__)
        if unknown:
            raise TypeError(f"{type(self).__name__}: unknown options: {', '.join(sorted(unknown))}")
        self.client_session_timeout_seconds = client_session_timeout_seconds
        allowed = options.get("allowed_tools")
        self._allowed: frozenset[str] | None = None if allowed is None else frozenset(allowed)
        self._prefix = options.get("tool_prefix", "")
        self._resolver = options.get("tool_result_resolver")
        self._on_event = options.get("on_event")
        self._max_message_bytes = options.get("max_message_bytes", 1 << 24)
        self._max_output_chars = options.get("max_output_chars", 100_000)
        self._progress_limit = options.get("progress_limit", 120.0)
        timeout = client_session_timeout_seconds or _NO_DEADLINE
        self._supervisor = Supervisor(
            label=lambda: repr(self),
            open_streams=lambda: self.client_streams(),
            patience=Patience(
                call=timeout,
                start=options.get("startup_timeout") or timeout,
                elicitation=options.get("elicitation_timeout", 120.0),
            ),
            on_list_changed=self._list_changed,
            on_state=self._state_changed,
            elicit=options.get("elicitation"),
            mode=options.get("mode"),
        )
        self._specs: list[ToolSpec] | None = None
        self._tools: list[MCPTool] | None = None
        self._made: dict[str, tuple[str, MCPTool]] = {}
        self._caches: dict[str, list[Any]] = {}
        self._dirty = True
        self._listing: asyncio.Task[list[MCPTool]] | None = None
        self._exposed: dict[str, str] = {}
        self._toolsets: weakref.WeakSet[MCPToolset] = weakref.WeakSet()

    def _told_name(self) -> str:
        """Distinguishes two servers of one program, once they are connected."""
        info = self._supervisor.server
        return f", server={info.name!r}" if info is not None and info.name else ""

    # the connection

    @abstractmethod
    def client_streams(self) -> AbstractAsyncContextManager[Any]:
        """The transport: a context manager whose value begins with a stream to read messages of
        the SDK from and one to write them to. Entered once per connection."""

    @property
    def initialized(self) -> bool:
        """Whether the server is connected, at this moment."""
        return self._supervisor.connected

    @property
    def server_info(self) -> ServerInfo | None:
        """Who the server says it is; ``None`` before it was connected."""
        return self._supervisor.server

    @property
    def tool_prefix(self) -> str:
        """Put before the names of the tools. A new value counts from the next listing on."""
        return self._prefix

    @tool_prefix.setter
    def tool_prefix(self, prefix: str) -> None:
        self._prefix = prefix
        self._made.clear()
        self._dirty = True

    async def initialize(self) -> None:
        """Connect and shake hands. When it is connecting already, only wait.

        Raises:
            OSError: the command cannot be started, e.g. `FileNotFoundError`.
            APIConnectionError: nothing there, or it hung up; `APITimeoutError`: not in time.
            APIError: the server refused.
        """
        await self._supervisor.start()

    async def aclose(self) -> None:
        """End the connection, and the process if it is one of ours: within about two seconds.

        Idempotent; `initialize` may be called again afterwards.
        """
        listing, self._listing = self._listing, None
        if listing is not None and not listing.done():
            listing.cancel()
        self._specs = None
        self._tools = None
        self._made.clear()
        self._caches.clear()
        self._dirty = True
        await self._supervisor.aclose()

    async def __aenter__(self) -> Self:
        await self.initialize()
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self.aclose()

    # tools

    def invalidate_cache(self) -> None:
        """Let the next listing of each kind ask the server again."""
        self._dirty = True
        self._caches.clear()

    async def list_tools(self) -> list[MCPTool]:
        """The tools. Asked for once; the same list until `invalidate_cache`, or until the server
        says that its tools have changed.

        Raises:
            RuntimeError: not initialized.
            APIError: the server did not answer, or answered with an error.
        """
        if not self._supervisor.started:
            raise RuntimeError(f"{self!r} is not initialized: await initialize() first")
        if self._tools is not None and not self._dirty:
            return self._tools
        return await asyncio.shield(self._list())

    def _list(self) -> asyncio.Task[list[MCPTool]]:
        # One question for all who ask.
        if self._listing is None or self._listing.done():
            self._listing = asyncio.get_running_loop().create_task(
                self._ask_for_tools(), name="rejoinder-mcp-list"
            )
            self._listing.add_done_callback(lambda task: task.cancelled() or task.exception())
        return self._listing

    async def _ask_for_tools(self) -> list[MCPTool]:
        self._dirty = False
        try:
            specs, flaws = await self._supervisor.ask(lambda s: s.list_tools(), "the list of tools")
        except BaseException:
            self._dirty = True
            raise
        if self._dirty:  # it changed meanwhile; a server that says so all the time is not obeyed
            asyncio.get_running_loop().call_later(_LIST_PAUSE, self._list_changed, "tools")
        for flaw in flaws:
            self._tell("bad_tool", f"{self!r}: the {flaw}")
        return self._take(specs)

    def _take(self, specs: list[ToolSpec]) -> list[MCPTool]:
        chosen: dict[str, ToolSpec] = {}
        for spec in specs:
            if self._allowed is not None and spec.name not in self._allowed:
                continue
            if spec.name in chosen:
                self._tell("collision", f"{self!r} lists two tools named `{spec.name}`")
                continue
            chosen[spec.name] = spec
        self._exposed = exposed_names(list(chosen), self._prefix)
        for name in sorted((self._allowed or frozenset()) - set(chosen)):
            logger.warning("%r has no tool `%s`, though it is allowed", self, name)
        change = results.tools_change(self._specs, specs) if self._specs is not None else None
        self._specs = specs
        made: dict[str, tuple[str, MCPTool]] = {}
        for name, spec in chosen.items():
            mark = spec.fingerprint
            known = self._made.get(name)
            # The same tool object for the same definition: what others keep by it stays valid.
            same = known and known[0] == mark and known[1].info.name == self._exposed[name]
            made[name] = known if known and same else (mark, self._make_tool(spec))
        self._made = made
        self._tools = [tool for _, tool in made.values()]
        if change:
            self._tell_change(change)
            for toolset in list(self._toolsets):
                toolset._refresh(self._tools)
        return self._tools

    def _make_tool(self, spec: ToolSpec, options: ToolOptions | None = None) -> MCPTool:
        server = weakref.ref(self)
        timeout = options.timeout if options is not None else None

        async def call(raw_arguments: dict[str, Any]) -> Any:
            owner = server()
            if owner is None:
                raise ToolError(f"the tool `{spec.name}` is not available: its server is gone")
            return await owner._call(spec.name, raw_arguments, timeout)

        schema: dict[str, Any] = {
            "name": self._exposed[spec.name],
            "description": spec.description,
            "parameters": spec.parameters,
        }
        if spec.meta:
            schema["meta"] = spec.meta
        call.__name__ = call.__qualname__ = schema["name"]
        # Ready made: what runs a raw tool looks at its signature at each call.
        call.__annotations__ = {"raw_arguments": dict[str, Any]}
        setattr(call, "__signature__", _SIGNATURE)  # noqa: B010  functions have no such attribute
        # What says of itself that it destroys things is not to be broken off halfway.
        destroys = bool((spec.annotations or {}).get("destructiveHint"))
        tool = function_tool(
            call,
            raw_schema=schema,
            interruptible=options.interruptible if options is not None else not destroys,
        )
        setattr(tool, _SERVER, server)
        setattr(tool, _NAME, spec.name)
        setattr(tool, _ORIGIN, f"tool `{spec.name}` of {self!r}")
        return tool

    async def call_tool(
        self, name: str, arguments: Mapping[str, Any] | None = None, *, timeout: float | None = None
    ) -> Any:
        """Call a tool by its server's name for it, without a model.

        Returns:
            An `MCPToolOutput`, or what the `tool_result_resolver` makes of the result.

        Raises:
            ToolError: the tool failed, did not answer within `timeout` seconds (default
                `client_session_timeout_seconds`), or its server is not there. Never anything
                else: whatever happens to a server is something to tell a model.
        """
        return await self._call(name, dict(arguments or {}), timeout)

    async def _call(self, name: str, arguments: dict[str, Any], timeout: float | None) -> Any:
        if not self._supervisor.started:
            raise ToolError(f"the tool `{name}` is not available: its server is not connected")
        # A deadline that was given for this call is kept, whatever the server reports.
        limit = self._progress_limit if timeout is None else 0.0
        try:
            result = await self._supervisor.ask(
                lambda session: session.call_tool(name, arguments, progress=limit > 0),
                f"a call of `{name}`",
                timeout=timeout,
                limit=limit,
            )
        except (APIError, OSError, ValueError, RuntimeError) as error:
            logger.warning("a call of `%s` failed: %s", name, error)
            raise ToolError(_for_the_model(name, error)) from error
        if result.is_error:
            raise ToolError(results.error_text(result, limit=self._max_output_chars))
        if self._resolver is not None:
            resolved = self._resolver(MCPToolResultContext(name, arguments, result.raw))
            return await resolved if inspect.isawaitable(resolved) else resolved
        output = results.output_of(result, limit=self._max_output_chars)
        if output is None:
            raise ToolError(f"the tool `{name}` finished without a result")
        return output

    # resources and prompts

    async def list_resources(self) -> list[Resource]:
        """What can be read; cached as the tools are. Empty if the server has no resources.

        Raises:
            RuntimeError: not initialized.
            APIError: no answer, or an error.
        """
        return await self._cached("resources", lambda s: s.list_resources(), "its resources")

    async def list_resource_templates(self) -> list[ResourceTemplate]:
        """Families of resources; cached. Raises as `list_resources`."""
        return await self._cached(
            "resources", lambda s: s.list_resource_templates(), "its resource templates"
        )

    async def read_resource(self, uri: str) -> list[ChatContent]:
        """The contents of a resource: texts, and images as `ImageContent`.

        Raises:
            RuntimeError: not initialized.
            APIError: no answer, or an error.
        """
        parts = await self._asked(lambda s: s.read_resource(uri), f"the resource {uri}")
        return results.content_of(parts)

    async def list_prompts(self) -> list[Prompt]:
        """The prompts; cached. Empty if the server has none. Raises as `list_resources`."""
        return await self._cached("prompts", lambda s: s.list_prompts(), "its prompts")

    async def get_prompt(
        self, name: str, arguments: Mapping[str, str] | None = None
    ) -> list[ChatMessage]:
        """A prompt filled in: messages to put into a conversation.

        Raises:
            RuntimeError: not initialized.
            APIError: no answer, or an error (an unknown name, a missing argument).
        """
        found = await self._asked(
            lambda s: s.get_prompt(name, dict(arguments) if arguments else None),
            f"the prompt `{name}`",
        )
        return [
            ChatMessage(
                role="assistant" if role == "assistant" else "user",
                content=results.content_of([part]),
            )
            for role, part in found
        ]

    async def _cached(self, kind: str, ask: Callable[[Any], Any], what: str) -> list[Any]:
        key = f"{kind}: {what}"
        cached = self._caches.get(key)
        if cached is None:
            cached = await self._asked(lambda s: _if_offered(s, kind, ask), what)
            self._caches[key] = cached
        return cached

    async def _asked(self, ask: Callable[[Any], Awaitable[Any]], what: str) -> Any:
        if not self._supervisor.started:
            raise RuntimeError(f"{self!r} is not initialized: await initialize() first")
        return await self._supervisor.ask(ask, what)

    # what happens

    def _list_changed(self, kind: str) -> None:
        if kind != "tools":
            for key in [key for key in self._caches if key.startswith(kind)]:
                del self._caches[key]
            return
        self._dirty = True
        if self._tools is not None and self._supervisor.started:
            self._list()  # who has listed wants to know

    def _state_changed(self, state: Literal["lost", "restored"], reason: str) -> None:
        if state == "restored":
            self._caches.clear()
            self._list_changed("tools")
        self._tell(state, reason)

    def _tell_change(self, change: ToolsChange) -> None:
        words = [
            f"{what} {', '.join(f'`{name}`' for name in names)}"
            for what, names in (
                ("added", change.added),
                ("removed", change.removed),
                ("changed the definition of", change.changed),
            )
            if names
        ]
        self._tell("tools_changed", f"{self!r} has {' and '.join(words)}", change)

    def _tell(self, type: Any, message: str, change: ToolsChange | None = None) -> None:
        # A definition that changes under a name that was trusted is worth a warning.
        level = logging.INFO if type == "restored" else logging.WARNING
        if type == "tools_changed" and change is not None and not change.changed:
            level = logging.INFO
        logger.log(level, message)
        if self._on_event is not None:
            try:
                self._on_event(MCPEvent(type, self, message, change))
            except Exception:
                logger.exception("on_event of %r raised", self)


def _for_the_model(name: str, error: Exception) -> str:
    """What a model reads of a failure. It is a third party, and its context is stored and traced:
    so no command line, address, stderr or exit code. Those are in `error`, the log and
    `ToolFinished.exception`."""
    match error:
        case APITimeoutError():
            return f"the tool `{name}` did not answer in time; it may still be at work"
        case APIStatusError():
            why = f"its server refused the call (HTTP {error.status_code})"
        case APIConnectionError() if not error.retryable:
            why = "its server is closed"
        case APIConnectionError():
            why = "its server has ended or cannot be reached"
        case OSError():
            why = "its server cannot be started"
        case APIError() if error.body is not None or isinstance(error, BadAnswer):
            # The server's own answer to the call, e.g. which argument is wrong.
            return f"the tool `{name}` failed: {error.message}"
        case _:
            return f"the tool `{name}` failed: its server's answer could not be used"
    return f"the tool `{name}` is not available: {why}"


def exposed_names(names: Sequence[str], prefix: str) -> dict[str, str]:
    """The names of tools as models see them: with the prefix, of the letters that providers
    accept, and no two alike.

    A name that is too long, or that another tool has already, ends with a mark made of the
    original, so that it stays the same whatever else a server lists.
    """
    exposed: dict[str, str] = {}
    taken: set[str] = set()
    # Names that need no change keep theirs.
    for name in sorted(names, key=lambda name: _legal(prefix + name) != prefix + name):
        legal = _legal(prefix + name)
        mark = name
        while len(legal) > _LONGEST_NAME or legal in taken:
            mark = hashlib.sha256(mark.encode("utf-8", "replace")).hexdigest()[:8]
            legal = f"{_legal(prefix + name)[: _LONGEST_NAME - 9]}_{mark}"
        taken.add(legal)
        exposed[name] = legal
    return exposed


def _legal(name: str) -> str:
    return _FORBIDDEN.sub("_", name) or "_"


async def _if_offered(session: Any, kind: str, ask: Callable[[Any], Any]) -> Any:
    return await ask(session) if session.offers(kind) else []


class MCPServerHTTP(MCPServer):
    """A server at a URL.

    Args:
        url: a path that ends with ``/mcp`` means streamable HTTP, any other server-sent events.
        headers: sent with every request; see the property.
        timeout: seconds for connecting, and for messages that are only acknowledged.
        sse_read_timeout: seconds of silence on a stream after which it is given up.
        client_session_timeout_seconds: the deadline of every question, in seconds.
        transport_type: ``"streamable_http"`` or ``"sse"``; default: by the path of `url`.
        options: see `MCPOptions`.

    Raises:
        ValueError: an unknown `transport_type`.
    """

    def __init__(
        self,
        url: str,
        headers: dict[str, Any] | None = None,
        timeout: float = 5,
        sse_read_timeout: float = 300,
        client_session_timeout_seconds: float = 5,
        *,
        transport_type: Literal["sse", "streamable_http"] | None = None,
        **options: Unpack[MCPOptions],
    ) -> None:
        super().__init__(client_session_timeout_seconds=client_session_timeout_seconds, **options)
        if transport_type not in {None, "sse", "streamable_http"}:
            raise ValueError(
                f"transport_type: expected 'sse' or 'streamable_http', got {transport_type!r}"
            )
        self.url = url
        self._headers = headers
        self._timeout = timeout
        self._sse_read_timeout = sse_read_timeout
        self._transport: Literal["sse", "streamable_http"] = transport_type or _transport_of(url)

    @property
    def headers(self) -> dict[str, Any] | None:
        """Sent with every request. A new value counts from the next request on, also on a live
        connection: so a token can be renewed."""
        return self._headers

    @headers.setter
    def headers(self, headers: dict[str, Any] | None) -> None:
        self._headers = headers

    @property
    def transport_type(self) -> Literal["sse", "streamable_http"]:
        """How the server is talked to."""
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


def _transport_of(url: str) -> Literal["sse", "streamable_http"]:
    path = urlsplit(url).path.lower().rstrip("/")
    transport: Literal["sse", "streamable_http"] = "sse"
    if path.endswith("/mcp"):
        transport = "streamable_http"
    return transport


class MCPServerStdio(MCPServer):
    """A server that is a command: run as a child process, talked to over its pipes.

    The child and its descendants end with the connection, and when this process ends in whatever
    way. It sees a short list of harmless environment variables, and `env`.

    Args:
        command: the program, found along ``PATH``.
        args: its arguments.
        env: environment variables to add.
        cwd: where it runs.
        client_session_timeout_seconds: the deadline of every question, in seconds.
        options: see `MCPOptions`.
    """

    def __init__(
        self,
        command: str,
        args: list[str],
        env: dict[str, str] | None = None,
        cwd: str | Path | None = None,
        client_session_timeout_seconds: float = 5,
        **options: Unpack[MCPOptions],
    ) -> None:
        super().__init__(client_session_timeout_seconds=client_session_timeout_seconds, **options)
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

    When the server's tools change, so do those of the set; a `filter_tools` stays in force.

    Args:
        id: names the set.
        mcp_server: whose tools.
        tool_options: by the server's name of a tool, how it is run: its `timeout` is the deadline
            of its calls.
    """

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
        """Whose tools these are."""
        return self._server

    async def setup(self, *, reload: bool = False) -> Self:
        """Connect if needed and list the tools. Later calls change nothing, unless `reload`: then
        the server is asked again, and filters are forgotten.

        Raises:
            OSError, APIError: as `MCPServer.initialize` and `MCPServer.list_tools`.
        """
        await super().setup()
        if self._ready and not reload:
            return self
        await self._server.initialize()
        if reload:
            self._server.invalidate_cache()
            self._filters.clear()
        tools = await self._server.list_tools()
        self._server._toolsets.add(self)
        self._ready = True
        self._refresh(tools)
        return self

    def filter_tools(self, keep: Callable[[MCPTool], bool]) -> Self:
        """Leave only the tools for which `keep` is true, now and when the server's tools change."""
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

    def _refresh(self, tools: Iterable[MCPTool]) -> None:
        if not self._ready:
            return
        server = self._server
        if self._options:
            specs = {spec.name: spec for spec in server._specs or ()}
            tools = [
                server._make_tool(specs[name], self._options[name])
                if (name := getattr(tool, _NAME, "")) in self._options
                else tool
                for tool in tools
            ]
        self._tools = [tool for tool in tools if all(keep(tool) for keep in self._filters)]

    def __repr__(self) -> str:
        return f"MCPToolset(id={self.id!r}, mcp_server={self._server!r})"


def tool_origin(tool: object) -> str | None:
    """Where a tool comes from, for people; ``None`` if it is not one of an MCP server."""
    reference: Any = getattr(tool, _SERVER, None)
    server = reference() if reference is not None else None
    return repr(server) if server is not None else None


def name_collisions(*sources: Toolset | Sequence[Any]) -> dict[str, list[str]]:
    """The names that more than one tool of `sources` has, each with the origins of those tools.

    A `ToolContext` refuses them; give one of the servers a `tool_prefix`.
    """
    found: dict[str, list[str]] = {}
    for source in sources:
        for tool in source.tools if isinstance(source, Toolset) else source:
            found.setdefault(get_tool_name(tool), []).append(tool_origin(tool) or "this program")
    return {name: origins for name, origins in found.items() if len(origins) > 1}


def server_from_spec(
    spec: str, *, client_session_timeout_seconds: float = 5, **options: Unpack[MCPOptions]
) -> MCPServer:
    """A server from one line, as people type it: a URL, or a command with its arguments.

    Args:
        spec: the line.
        client_session_timeout_seconds, options: as for the servers.

    Raises:
        ValueError: the line is empty, or its quotes are not closed.
    """
    if spec.startswith(("http://", "https://")):
        return MCPServerHTTP(
            spec, client_session_timeout_seconds=client_session_timeout_seconds, **options
        )
    words = shlex.split(spec)
    if not words:
        raise ValueError("an MCP server: expected a URL or a command, got nothing")
    return MCPServerStdio(
        words[0],
        words[1:],
        client_session_timeout_seconds=client_session_timeout_seconds,
        **options,
    )
