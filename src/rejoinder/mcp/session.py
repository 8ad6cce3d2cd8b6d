"""A session with one server: the SDK's client between guarded streams.

No type of the SDK leaves this module. It returns our own values (`rejoinder.mcp.results`) and raises
`rejoinder.errors`.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager, AsyncExitStack
from typing import Any, TypeVar, cast

import mcp_types as types
from mcp.client import Client, ClientRequestContext, IncomingMessage
from mcp.client.subscriptions import PromptsListChanged, ResourcesListChanged, ToolsListChanged
from mcp.shared.exceptions import MCPError
from mcp_types.version import LATEST_HANDSHAKE_VERSION, MODERN_PROTOCOL_VERSIONS

from rejoinder.__about__ import __version__
from rejoinder.mcp import mending, results
from rejoinder.mcp.elicitation import Elicitation, ElicitationAnswer
from rejoinder.mcp.failures import (
    MADE_UP,
    REFUSALS,
    ConnectionGone,
    ModernServer,
    SessionForgotten,
    innermost,
    plain_error,
)
from rejoinder.mcp.guards import OPEN_REQUESTS, GuardedTransport
from rejoinder.mcp.notes import Notes, current_call, current_notes

__all__ = [
    "ConnectionGone",
    "ModernServer",
    "Session",
    "SessionForgotten",
    "innermost",
    "plain_error",
]

logger = logging.getLogger("rejoinder.mcp")

T = TypeVar("T")

_ENTRIES = 10_000
_PAGES = 100  # maximum pages of one listing, because a server may send pages without end
_YIELD_EVERY = 100  # entries of a listing to read before yielding to the event loop
_NOT_NOW = frozenset({407, 408, 429})
"""HTTP statuses that do not depend on the session."""
# Error codes for a request in an unknown session: "invalid request", and those of the TypeScript and
# Python SDKs.
_SESSION_CODES = frozenset({-32600, -32000, -32001, -32002})


class Session:
    """Requests to a connected server. Any task may call any method."""

    def __init__(
        self,
        client: Client,
        notes: Notes,
        elicit: Callable[[Elicitation], Awaitable[ElicitationAnswer]] | None = None,
    ) -> None:
        self._client = client
        self._notes = notes
        self._elicit = elicit
        self._output_schemas: dict[str, Any] = {}
        self._mismatched: set[str] = set()

    @classmethod
    async def open(
        cls,
        stack: AsyncExitStack,
        streams: AbstractAsyncContextManager[Any],
        *,
        modern: bool,
        on_end: Callable[[], None],
        on_list_changed: Callable[[str], None],
        elicit: Callable[[Elicitation], Awaitable[ElicitationAnswer]] | None,
    ) -> Session:
        """Connect and shake hands. Closing `stack`, in the same task, closes everything.

        Args:
            stack: closes the session.
            streams: the transport.
            modern: first probe for a server of protocol 2026-07-28, like the SDK's ``mode="auto"``.
                Not the default, because a request before the handshake crashes some older stdio
                servers.
            on_end: called when the server ends the connection.
            on_list_changed: called with the kind of list that changed.
            elicit: answers the server's questions.

        Raises:
            ModernServer: try again with `modern=True`.
            Exception: any error of the SDK; see `plain_error`.
        """
        notes = current_notes.get() or Notes()

        async def heard(message: IncomingMessage) -> None:
            if isinstance(message, types.ToolListChangedNotification):
                on_list_changed("tools")
            elif isinstance(message, types.ResourceListChangedNotification):
                on_list_changed("resources")
            elif isinstance(message, types.PromptListChangedNotification):
                on_list_changed("prompts")

        async def asked(
            context: ClientRequestContext, params: types.ElicitRequestParams
        ) -> types.ElicitResult | types.ErrorData:
            if elicit is None:
                return types.ErrorData(code=types.INVALID_REQUEST, message="not supported")
            if isinstance(params, types.ElicitRequestURLParams):
                question = Elicitation(message=params.message, url=params.url)
            else:
                schema: Any = params.requested_schema
                question = Elicitation(message=params.message, schema=dict(schema))
            answer = await elicit(question)
            return types.ElicitResult(action=answer.action, content=cast("Any", answer.content))

        held: list[Client] = []

        def version() -> str:
            connected = held[0].session.protocol_version if held else None
            return connected or LATEST_HANDSHAKE_VERSION

        client = Client(
            GuardedTransport(streams, on_end, notes, version),
            mode="auto" if modern else "legacy",
            cache=None,
            message_handler=heard,
            elicitation_callback=asked if elicit is not None else None,
            client_info=types.Implementation(name="rejoinder", version=__version__),
        )
        try:
            await stack.enter_async_context(client)
        except Exception as error:
            leaf = innermost(error)
            if not modern and isinstance(leaf, MCPError) and _other_era(leaf, notes.status):
                raise ModernServer(leaf) from None
            raise
        held.append(client)
        session = cls(client, notes, elicit)
        if client.protocol_version in MODERN_PROTOCOL_VERSIONS:
            await stack.enter_async_context(_listening(client, on_list_changed))
        return session

    # what the server is

    @property
    def server(self) -> results.ServerInfo:
        info = self._client.server_info
        return results.ServerInfo(
            name=info.name if info else "",
            version=info.version if info else "",
            protocol_version=self._client.protocol_version,
            instructions=self._client.instructions,
        )

    def offers(self, kind: str) -> bool:
        """Whether the server declares the capability "tools", "resources" or "prompts"."""
        return getattr(self._client.server_capabilities, kind, None) is not None

    # questions

    async def ping(self) -> None:
        """Check that the server is alive: any answer will do, even an error.

        Raises:
            ConnectionGone: the connection has ended.
        """
        try:
            await self._small_question()
        except MCPError as error:
            if error.code == types.CONNECTION_CLOSED:
                raise ConnectionGone(error.message) from None

    async def _small_question(self) -> None:
        if self._client.protocol_version in MODERN_PROTOCOL_VERSIONS:
            await self._client.list_tools()
        else:
            await self._client.session.send_ping()

    async def list_tools(self) -> tuple[list[results.ToolSpec], list[str]]:
        """The tools, and descriptions of the flaws in their definitions."""
        flaws: list[str] = []
        found = await self._pages(
            "tools/list", lambda cursor: self._client.list_tools(cursor=cursor), flaws
        )
        specs = [results.ToolSpec.from_wire(tool) for tool in found]
        self._output_schemas = {spec.name: spec.output_schema for spec in specs}
        return specs, flaws

    async def list_resources(self) -> list[results.Resource]:
        found = await self._pages(
            "resources/list", lambda cursor: self._client.list_resources(cursor=cursor)
        )
        return [results.Resource.from_wire(resource) for resource in found]

    async def list_resource_templates(self) -> list[results.ResourceTemplate]:
        found = await self._pages(
            "resources/templates/list",
            lambda cursor: self._client.list_resource_templates(cursor=cursor),
        )
        return [results.ResourceTemplate.from_wire(template) for template in found]

    async def list_prompts(self) -> list[results.Prompt]:
        found = await self._pages(
            "prompts/list", lambda cursor: self._client.list_prompts(cursor=cursor)
        )
        return [results.Prompt.from_wire(prompt) for prompt in found]

    async def read_resource(self, uri: str) -> list[dict[str, Any]]:
        result = await self._asked(self._client.read_resource(uri))
        return [_dump(part) for part in result.contents]

    async def get_prompt(
        self, name: str, arguments: dict[str, str] | None
    ) -> list[tuple[str, dict[str, Any]]]:
        result = await self._asked(self._client.get_prompt(name, arguments))
        return [(message.role, _dump(message.content)) for message in result.messages]

    async def call_tool(
        self, name: str, arguments: dict[str, Any], *, progress: bool = False
    ) -> results.CallResult:
        """Call a tool.

        Args:
            name: its name on the server.
            arguments: its arguments.
            progress: ask the server to report progress; the open `Call` receives it.
        """
        # The guard of the stream receives the reports. The SDK only has to send a token.
        hear = _unheard if progress else None
        try:
            result = await self._client.call_tool(name, arguments, progress_callback=hear)
        except MCPError as error:
            if error.code != types.URL_ELICITATION_REQUIRED or not await self._visited(error):
                await self._raise(error)
            result = await self._asked(
                self._client.call_tool(name, arguments, progress_callback=hear)
            )
        call = current_call.get()
        whole = call.results["tools/call"] if call is not None else _dump(result)
        for flaw in call.flaws["tools/call"] if call is not None else ():
            logger.warning("the result of the MCP tool `%s`: %s", name, flaw)
        if result.structured_content is None:
            result.structured_content = whole.get("structuredContent")
        mismatch = mending.shallow_mismatch(self._output_schemas.get(name), whole)
        if mismatch is not None and name not in self._mismatched:
            self._mismatched.add(name)
            logger.warning("the MCP tool `%s` broke its own output schema: %s", name, mismatch)
        return results.CallResult(
            parts=[
                *map(results.normal_part, whole["content"][: mending.PARTS]),
                *whole["content"][mending.PARTS :],
            ],
            structured=whole.get("structuredContent"),
            is_error=bool(result.is_error),
            meta=result.meta,
            raw=result,
        )

    async def _visited(self, error: MCPError) -> bool:
        """Whether the user has visited the pages that the server requires."""
        if self._elicit is None:
            return False
        try:
            wanted = types.ElicitationRequiredErrorData.model_validate(error.data).elicitations
        except ValueError:
            return False
        for page in wanted[:OPEN_REQUESTS]:
            answer = await self._elicit(Elicitation(message=page.message, url=page.url))
            if answer.action != "accept":
                return False
        return bool(wanted)

    async def _pages(
        self,
        method: str,
        ask: Callable[[str | None], Awaitable[Any]],
        flaws: list[str] | None = None,
    ) -> list[dict[str, Any]]:
        field = mending.LISTS[method]
        found: list[dict[str, Any]] = []
        cursor: str | None = None
        seen: set[str] = set()
        for _ in range(_PAGES):
            page = await self._asked(ask(cursor))
            call = current_call.get()
            for entry in getattr(page, _ATTRIBUTES.get(field, field)):
                if len(found) % _YIELD_EVERY == _YIELD_EVERY - 1:
                    await asyncio.sleep(0)
                found.append(_dump(entry))
            if method == "tools/list" and call is not None:
                _restore_output_schemas(found, call.results[method])
            for flaw in call.flaws.get(method, ()) if call is not None else ():
                if flaws is not None:
                    flaws.append(flaw)
                else:
                    logger.warning("an MCP server: the %s", flaw)
            cursor = page.next_cursor or None
            if cursor is None:
                return found
            if cursor in seen or len(found) > _ENTRIES:
                break
            seen.add(cursor)
        logger.warning("an MCP server lists %s without end; cut after %d", field, len(found))
        return found

    async def _asked(self, asking: Awaitable[T]) -> T:
        try:
            return await asking
        except MCPError as error:
            await self._raise(error)
            raise AssertionError("unreachable") from None

    async def _raise(self, error: MCPError) -> None:
        """Raise one plain error for `error`, after finding out whether the session has ended."""
        closed = error.code == types.CONNECTION_CLOSED
        made_up = error.message.startswith(MADE_UP)
        if closed and error.message == _CLOSED:
            raise ConnectionGone(error.message) from None
        call = current_call.get()
        plain = cast("Exception", plain_error(error, call=call))
        status = call.status if call is not None else None
        # Servers on stdio use these words too; then there is no status.
        ended = status is None and error.message.startswith(_TERMINATED)
        refused = status is None and error.code in _SESSION_CODES and (ended or not made_up)
        turned_away = status is not None and status not in _NOT_NOW
        if self._client.protocol_version not in MODERN_PROTOCOL_VERSIONS and (
            refused or turned_away or closed
        ):
            try:
                await self._client.session.send_ping()
            except MCPError as again:
                if again.code == types.CONNECTION_CLOSED and again.message.startswith(MADE_UP):
                    raise ConnectionGone(again.message) from None
                same = (again.code, again.message) == (error.code, error.message)
                if same and (refused or turned_away):
                    # The ping is refused with the same error, so the server refuses the session.
                    # After a status of 500 or more, the call may have run, so do not repeat it.
                    raise SessionForgotten(plain, again=(status or 0) < 500) from None
        raise plain from None


async def _unheard(progress: float, total: float | None, message: str | None) -> None:
    """Never called: the guard removes the reports from the stream."""


_TERMINATED = "Session terminated"
_CLOSED = "Connection closed"  # the SDK's words for a connection that has ended
_ATTRIBUTES = {"resourceTemplates": "resource_templates"}


def _restore_output_schemas(found: list[dict[str, Any]], result: dict[str, Any]) -> None:
    """Add the output schemas, which were hidden from the SDK, to the tools."""
    given: dict[str, Any] = {}
    for entry in cast("list[Any]", result["tools"]):
        if isinstance(entry, dict):
            tool = cast("dict[str, Any]", entry)
            given[str(tool.get("name"))] = tool.get("outputSchema")
    for tool in found:
        schema = given.get(tool["name"])
        if isinstance(schema, dict):
            tool["outputSchema"] = schema


def _other_era(error: MCPError, status: int | None) -> bool:
    """Whether a refused handshake may mean that the server knows only 2026-07-28."""
    if status is None:
        return error.code != types.CONNECTION_CLOSED and not error.message.startswith(MADE_UP)
    return status < 500 and status not in REFUSALS


class _listening:  # noqa: N801  used as a function
    """Keeps a subscription to list changes open (servers of 2026-07-28 send them only there)."""

    def __init__(self, client: Client, on_list_changed: Callable[[str], None]) -> None:
        self._client = client
        self._tell = on_list_changed
        self._task: asyncio.Task[None] | None = None

    async def __aenter__(self) -> None:
        self._task = asyncio.create_task(self._listen(), name="rejoinder-mcp-listen")

    async def __aexit__(self, *exc: object) -> None:
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait([self._task])

    async def _listen(self) -> None:
        kinds = {
            ToolsListChanged: "tools",
            ResourcesListChanged: "resources",
            PromptsListChanged: "prompts",
        }
        capabilities = self._client.server_capabilities
        try:
            async with self._client.listen(
                tools_list_changed=capabilities.tools is not None,
                prompts_list_changed=capabilities.prompts is not None,
                resources_list_changed=capabilities.resources is not None,
            ) as events:
                async for event in events:
                    kind = kinds.get(cast("Any", type(event)))
                    if kind is not None:
                        self._tell(kind)
        except Exception as error:
            logger.debug("an MCP server does not announce changes of its lists: %s", error)


def _dump(value: Any) -> dict[str, Any]:
    dumped: dict[str, Any] = value.model_dump(mode="json", by_alias=True)
    if "_meta" in dumped:
        dumped["meta"] = dumped.pop("_meta")
    return dumped
