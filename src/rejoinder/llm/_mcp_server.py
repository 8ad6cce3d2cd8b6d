"""A server of tools, resources and prompts: the part that all transports share. See
`rejoinder.llm.mcp`."""

from __future__ import annotations

import asyncio
import inspect
import logging
import weakref
from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Literal, Protocol, Self, TypeAlias

from typing_extensions import TypedDict, Unpack

from rejoinder._core.items import ChatContent, ChatMessage
from rejoinder._core.tools import ToolError, ToolOptions
from rejoinder._options import AMOUNT, checked, unknown_option
from rejoinder.errors import APIError
from rejoinder.llm.tool_context import RawFunctionTool, function_tool
from rejoinder.mcp import results
from rejoinder.mcp.elicitation import Elicitation, ElicitationAnswer
from rejoinder.mcp.model_view import exposed_names, failure_text
from rejoinder.mcp.results import (
    Prompt,
    Resource,
    ResourceTemplate,
    ServerInfo,
    ToolsChange,
    ToolSpec,
)
from rejoinder.mcp.supervisor import Patience, Supervisor

if TYPE_CHECKING:
    from mcp.types import CallToolResult  # for a signature of the public API

__all__ = [
    "NAME_KEY",
    "SERVER_KEY",
    "Follower",
    "MCPEvent",
    "MCPOptions",
    "MCPServer",
    "MCPTool",
    "MCPToolResultContext",
]

logger = logging.getLogger("rejoinder.mcp")

MCPTool: TypeAlias = RawFunctionTool
"""A tool of a server is a raw function tool: its server wrote the schema."""

_NO_DEADLINE: Final = 3600.0
"""Seconds that a timeout of 0 or ``None`` stands for: a server silent for an hour is dead."""

_SIGNATURE: Final = inspect.Signature(
    [
        inspect.Parameter(
            "raw_arguments", inspect.Parameter.POSITIONAL_OR_KEYWORD, annotation=dict[str, Any]
        )
    ]
)
_ORIGIN: Final = "__rejoinder_origin"
SERVER_KEY: Final = "__rejoinder_mcp_server"
NAME_KEY: Final = "__rejoinder_mcp_name"
_LIST_PAUSE: Final = 1.0


@dataclass(frozen=True, slots=True)
class MCPToolResultContext:
    """The argument of a `tool_result_resolver`.

    Attributes:
        tool_name: the tool, by its server's name for it.
        arguments: the arguments of the call.
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
    """Names of the tools to offer; all others are ignored. Default: all."""
    tool_prefix: str
    """Prefix of each tool's name, so that two servers can offer tools of the same name."""
    tool_result_resolver: ToolResultResolver | None
    """A plain or ``async`` function that converts a server's result to the tool's output."""
    elicitation: ElicitationCallback | None
    """Answers a server's questions to the user. Default: they are refused."""
    elicitation_timeout: float
    """How long the user may take to answer (default 120). The deadline of the call is paused
    meanwhile."""
    startup_timeout: float | None
    """Deadline for connecting and the handshake. Default: that of every other request."""
    mode: Literal["auto", "legacy"] | None
    """The way to agree on a protocol version. Default: try the handshake of versions up to 2025-11-25; if
    the server refuses it, probe for version 2026-07-28. ``"auto"``: probe first, as the SDK does;
    some older stdio servers exit on the probe. ``"legacy"``: only the handshake."""
    on_event: Callable[[MCPEvent], None] | None
    """Called when the connection is lost or restored, and when the tools change."""
    max_message_bytes: int
    """Maximum size of a message in bytes (default 16 MiB). A larger one fails its call."""
    max_output_chars: int
    """Approximate maximum of characters in a tool's output (default 100,000); the rest is cut."""
    progress_limit: float
    """Maximum time of a call whose server reports progress (default 120). Each report renews the
    deadline, up to this limit; with 0, reports do not. A `timeout` of the call or of the tool is
    never renewed."""


class Follower(Protocol):
    """Receives a server's tools after each listing."""

    def tools_changed(self, tools: Iterable[MCPTool]) -> None: ...


class MCPServer(ABC):
    """A server of tools, resources and prompts, kept connected.

    Between `initialize` and `aclose` the connection is watched. If it is lost, pending calls fail at
    once, and it is restored in the background. Every request has a deadline. All methods may be
    called from any task of the loop.

    Args:
        client_session_timeout_seconds: the deadline of every request, in seconds.
        options: see `MCPOptions`.
    """

    @checked(client_session_timeout_seconds=AMOUNT.optional)
    def __init__(
        self, *, client_session_timeout_seconds: float | None, **options: Unpack[MCPOptions]
    ) -> None:
        for name in options:
            if name not in MCPOptions.__annotations__:
                raise unknown_option(type(self).__name__, name, MCPOptions.__annotations__)
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
        self.followers: weakref.WeakSet[Follower] = weakref.WeakSet()

    def _told_name(self) -> str:
        """Distinguishes two servers of one program, once they are connected."""
        info = self._supervisor.server
        return f", server={info.name!r}" if info is not None and info.name else ""

    # the connection

    @abstractmethod
    def client_streams(self) -> AbstractAsyncContextManager[Any]:
        """The transport: a context manager that yields a tuple, which begins with a stream to read
        the SDK's messages from and one to write them to. Entered once per connection."""

    @property
    def initialized(self) -> bool:
        """Whether the server is connected now."""
        return self._supervisor.connected

    @property
    def server_info(self) -> ServerInfo | None:
        """The identity that the server reports; ``None`` before it was connected."""
        return self._supervisor.server

    @property
    def tool_prefix(self) -> str:
        """Prefix of the tools' names. A new value applies from the next listing on."""
        return self._prefix

    @tool_prefix.setter
    def tool_prefix(self, prefix: str) -> None:
        self._prefix = prefix
        self._made.clear()
        self._dirty = True

    async def initialize(self) -> None:
        """Connect and perform the handshake. If a connection is already being made, wait for it.

        Raises:
            APIConnectionError: the server cannot be reached, its command cannot be started (the
                cause is the `OSError`), or it closed the connection.
            APITimeoutError: the handshake took too long.
            APIError: the server refused.
        """
        await self._supervisor.start()

    async def aclose(self) -> None:
        """Close the connection, and end the server process if we started it, in about two seconds.

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

    @property
    def specs(self) -> Sequence[ToolSpec]:
        """The tools as the server defined them in its last listing."""
        return self._specs or ()

    def invalidate_cache(self) -> None:
        """Make the next listing of tools, resources and prompts ask the server again."""
        self._dirty = True
        self._caches.clear()

    async def list_tools(self) -> list[MCPTool]:
        """The tools. The list is cached until `invalidate_cache`, or until the server announces that
        its tools have changed.

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
        # Concurrent callers share one request.
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
        if self._dirty:  # changed meanwhile; listing again at once could go on without end
            asyncio.get_running_loop().call_later(_LIST_PAUSE, self._list_changed, "tools")
        for flaw in flaws:
            self._tell("bad_tool", f"{self!r}: the {flaw}")
        return self._take(specs)

    def _take(self, specs: list[ToolSpec]) -> list[MCPTool]:
        chosen: dict[str, ToolSpec] = {}
        if self._allowed is not None:
            specs = [spec for spec in specs if spec.name in self._allowed]
        specs, flaws = results.bounded(specs)
        for flaw in flaws:
            self._tell("bad_tool", f"{self!r}: the {flaw}")
        for spec in specs:
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
            # An unchanged definition keeps its tool object, so references to it stay valid.
            same = known and known[0] == mark and known[1].info.name == self._exposed[name]
            made[name] = known if known and same else (mark, self.make_tool(spec))
        self._made = made
        self._tools = [tool for _, tool in made.values()]
        if change:
            self._tell_change(change)
            for toolset in list(self.followers):
                toolset.tools_changed(self._tools)
        return self._tools

    def make_tool(self, spec: ToolSpec, options: ToolOptions | None = None) -> MCPTool:
        """A tool that calls the server. `options` control how it runs."""
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
        # Computed once here, because each call of a raw tool reads its signature.
        call.__annotations__ = {"raw_arguments": dict[str, Any]}
        setattr(call, "__signature__", _SIGNATURE)  # noqa: B010  functions have no such attribute
        # Do not cancel tools marked `destructiveHint` midway.
        destroys = bool((spec.annotations or {}).get("destructiveHint"))
        tool = function_tool(
            call,
            raw_schema=schema,
            interruptible=options.interruptible if options is not None else not destroys,
        )
        setattr(tool, SERVER_KEY, server)
        setattr(tool, NAME_KEY, spec.name)
        setattr(tool, _ORIGIN, f"tool `{spec.name}` of {self!r}")
        return tool

    @checked(timeout=AMOUNT.optional)
    async def call_tool(
        self, name: str, arguments: Mapping[str, Any] | None = None, *, timeout: float | None = None
    ) -> Any:
        """Call a tool directly, by the server's name for it.

        Returns:
            An `MCPToolOutput`, or the value that the `tool_result_resolver` returns.

        Raises:
            ToolError: the tool failed, did not answer within `timeout` seconds (default
                `client_session_timeout_seconds`), or its server is not connected. No other
                exception is raised, so every failure of a server can be sent to a model.
        """
        return await self._call(name, dict(arguments or {}), timeout)

    async def _call(self, name: str, arguments: dict[str, Any], timeout: float | None) -> Any:
        from rejoinder.telemetry import McpSpan

        if not self._supervisor.started:
            raise ToolError(f"the tool `{name}` is not available: its server is not connected")
        # Progress reports do not extend a deadline that was set for this call.
        limit = self._progress_limit if timeout is None else 0.0
        try:
            with McpSpan("tools/call", name, asyncio.get_running_loop().time) as span:
                result = await self._supervisor.ask(
                    lambda session: session.call_tool(name, arguments, progress=limit > 0),
                    f"a call of `{name}`",
                    timeout=timeout,
                    limit=limit,
                )
                if result.is_error:
                    span.tool_failed()
        except (APIError, ValueError, RuntimeError) as error:
            logger.warning("a call of `%s` failed: %s", name, error)
            raise ToolError(failure_text(name, error)) from error
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
        """The resources; cached like the tools. Empty if the server has none.

        Raises:
            RuntimeError: not initialized.
            APIError: no answer, or an error.
        """
        return await self._cached("resources", lambda s: s.list_resources(), "its resources")

    async def list_resource_templates(self) -> list[ResourceTemplate]:
        """The resource templates; cached. Raises like `list_resources`."""
        return await self._cached(
            "resources", lambda s: s.list_resource_templates(), "its resource templates"
        )

    @checked()
    async def read_resource(self, uri: str) -> list[ChatContent]:
        """The contents of a resource: texts, and images as `ImageContent`.

        Raises:
            RuntimeError: not initialized.
            APIError: no answer, or an error.
        """
        parts = await self._asked(lambda s: s.read_resource(uri), f"the resource {uri}")
        return results.content_of(parts)

    async def list_prompts(self) -> list[Prompt]:
        """The prompts; cached. Empty if the server has none. Raises like `list_resources`."""
        return await self._cached("prompts", lambda s: s.list_prompts(), "its prompts")

    @checked()
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
            self._list()  # toolsets that hold the old list need the new one

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
        # A changed definition deserves a warning: the user may have trusted the old one.
        level = logging.INFO if type == "restored" else logging.WARNING
        if type == "tools_changed" and change is not None and not change.changed:
            level = logging.INFO
        logger.log(level, message)
        if self._on_event is not None:
            try:
                self._on_event(MCPEvent(type, self, message, change))
            except Exception:
                logger.exception("on_event of %r raised", self)


async def _if_offered(session: Any, kind: str, ask: Callable[[Any], Any]) -> Any:
    return await ask(session) if session.offers(kind) else []
