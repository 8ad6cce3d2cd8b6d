"""One live session with one server: the SDK's client between guarded streams.

The only file that speaks the SDK's types towards the rest of the room: what leaves it are values
of our own (`rejoinder.mcp.results`) and `rejoinder.errors`. The guards keep a flood out of the
session: messages nobody asked for are dropped before the SDK starts a task for each, and a server
that sends more of them than a person could want is read slowly.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager, AsyncExitStack
from types import TracebackType
from typing import Any, Self, TypeVar, cast

import anyio
import mcp_types as types
from mcp.client import Client, ClientRequestContext, IncomingMessage
from mcp.client.subscriptions import PromptsListChanged, ResourcesListChanged, ToolsListChanged
from mcp.shared.exceptions import MCPError
from mcp.shared.message import SessionMessage
from mcp_types.version import MODERN_PROTOCOL_VERSIONS

from rejoinder.__about__ import __version__
from rejoinder.errors import APIConnectionError, APIError, APIStatusError, APITimeoutError
from rejoinder.mcp import results
from rejoinder.mcp.elicitation import Elicitation, ElicitationAnswer

__all__ = ["ConnectionGone", "ModernServer", "Session", "SessionForgotten"]

logger = logging.getLogger("rejoinder.mcp")

T = TypeVar("T")

_ENTRIES = 10_000
_LONGEST_ERROR = 2000  # characters
_PAGES = 100  # of one listing; a server that pages for ever is cut here
_BURST = 2000  # useless messages taken at full speed
_PER_SECOND = 1000.0
_OPEN_REQUESTS = 32  # questions of the server that may be open at once
_UNSUPPORTED = types.UNSUPPORTED_PROTOCOL_VERSION
_UNASKED = frozenset({"notifications/message", "notifications/progress"})


class ConnectionGone(Exception):
    """The session ended while, or before, it was used. The supervisor knows why."""


class SessionForgotten(Exception):
    """The server no longer knows this session; it did not process the request."""


class ModernServer(Exception):
    """The server speaks only protocol versions without the initialize handshake."""


class _GuardedRead:
    """Passes on what the session needs, slows down what it does not, and notices the end."""

    def __init__(self, inner: Any, on_end: Callable[[], None], open_requests: set[Any]) -> None:
        self._inner = inner
        self._on_end = on_end
        self._open = open_requests
        self._budget = float(_BURST)
        self._filled_at = asyncio.get_running_loop().time()
        self._told = False

    @property
    def last_context(self) -> Any:
        return getattr(self._inner, "last_context", None)

    async def receive(self) -> SessionMessage | Exception:
        while True:
            try:
                item = await self._inner.receive()
            except (anyio.EndOfStream, anyio.ClosedResourceError, anyio.BrokenResourceError):
                self._on_end()
                raise
            wanted = self._wanted(item)
            if not wanted or not _is_answer(item):
                await self._slow_down()
            if wanted:
                return cast("SessionMessage", item)

    def _wanted(self, item: SessionMessage | Exception) -> bool:
        if isinstance(item, Exception):
            if not self._told:
                self._told = True
                logger.warning("an MCP server sends what is no message: %s", item)
            return False
        message = item.message
        if isinstance(message, types.JSONRPCNotification):
            return message.method not in _UNASKED
        if isinstance(message, types.JSONRPCRequest):
            if len(self._open) >= _OPEN_REQUESTS or message.id in self._open:
                return False
            self._open.add(message.id)
        return True

    async def _slow_down(self) -> None:
        now = asyncio.get_running_loop().time()
        self._budget = min(_BURST, self._budget + (now - self._filled_at) * _PER_SECOND) - 1
        self._filled_at = now
        # Also within the budget the tasks that the SDK starts for messages get their turn.
        await asyncio.sleep(0 if self._budget >= 0 else -self._budget / _PER_SECOND + 0.02)

    async def aclose(self) -> None:
        await self._inner.aclose()

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> SessionMessage | Exception:
        try:
            return await self.receive()
        except anyio.EndOfStream:
            raise StopAsyncIteration from None

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc_val: BaseException | None,
        exc_tb: TracebackType | None,
    ) -> None:
        await self.aclose()


def _is_answer(item: SessionMessage | Exception) -> bool:
    return isinstance(item, SessionMessage) and isinstance(
        item.message, types.JSONRPCResponse | types.JSONRPCError
    )


class _GuardedWrite:
    def __init__(self, inner: Any, open_requests: set[Any]) -> None:
        self._inner = inner
        self._open = open_requests

    async def send(self, item: SessionMessage) -> None:
        try:
            await self._inner.send(item)
        finally:
            # Open until its answer is on its way: a server that does not read gets no more.
            if isinstance(item.message, types.JSONRPCResponse | types.JSONRPCError):
                self._open.discard(item.message.id)

    async def aclose(self) -> None:
        await self._inner.aclose()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc_val: BaseException | None,
        exc_tb: TracebackType | None,
    ) -> None:
        await self.aclose()


class _GuardedTransport:
    """Any context manager of streams, as the transport the SDK's client wants."""

    def __init__(
        self, streams: AbstractAsyncContextManager[Any], on_end: Callable[[], None]
    ) -> None:
        self._streams = streams
        self._on_end = on_end

    async def __aenter__(self) -> tuple[Any, Any]:
        entered: Any = await self._streams.__aenter__()
        open_requests: set[Any] = set()
        return (
            _GuardedRead(entered[0], self._on_end, open_requests),
            _GuardedWrite(entered[1], open_requests),
        )

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc_val: BaseException | None,
        exc_tb: TracebackType | None,
    ) -> bool | None:
        return await self._streams.__aexit__(exc_type, exc_val, exc_tb)


class Session:
    """What can be asked of a connected server. Each method may be called from any task."""

    def __init__(
        self,
        client: Client,
        elicit: Callable[[Elicitation], Awaitable[ElicitationAnswer]] | None = None,
    ) -> None:
        self._client = client
        self._elicit = elicit

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
        """Connect and shake hands; everything is closed with `stack`, in the same task.

        Raises:
            ModernServer: try again with `modern=True`.
            Exception: anything of the SDK's; see `plain_error`.
        """

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
                return types.ErrorData(code=types.INVALID_REQUEST, message="nobody can answer")
            if isinstance(params, types.ElicitRequestURLParams):
                question = Elicitation(message=params.message, url=params.url)
            else:
                schema: Any = params.requested_schema
                question = Elicitation(message=params.message, schema=dict(schema))
            answer = await elicit(question)
            return types.ElicitResult(action=answer.action, content=cast("Any", answer.content))

        client = Client(
            _GuardedTransport(streams, on_end),
            mode="auto" if modern else "legacy",
            cache=None,
            message_handler=heard,
            elicitation_callback=asked if elicit is not None else None,
            client_info=types.Implementation(name="rejoinder", version=__version__),
        )
        try:
            await stack.enter_async_context(client)
        except Exception as error:
            leaf = _first(error)
            if not modern and isinstance(leaf, MCPError) and leaf.code == _UNSUPPORTED:
                raise ModernServer from error
            raise
        session = cls(client, elicit)
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
        """Whether the server says that it has "tools", "resources" or "prompts"."""
        return getattr(self._client.server_capabilities, kind, None) is not None

    # questions

    async def ping(self) -> None:
        """Any answer at all, also an error, shows that the server lives."""
        try:
            if self._client.protocol_version in MODERN_PROTOCOL_VERSIONS:
                await self._client.list_tools()
            else:
                await self._client.session.send_ping()
        except MCPError as error:
            self._check(error)

    async def list_tools(self) -> list[results.ToolSpec]:
        tools = await self._pages("tools", lambda cursor: self._client.list_tools(cursor=cursor))
        return [results.ToolSpec.from_wire(_dump(tool)) for tool in tools]

    async def list_resources(self) -> list[results.Resource]:
        found = await self._pages(
            "resources", lambda cursor: self._client.list_resources(cursor=cursor)
        )
        return [results.Resource.from_wire(_dump(resource)) for resource in found]

    async def list_resource_templates(self) -> list[results.ResourceTemplate]:
        found = await self._pages(
            "resource_templates",
            lambda cursor: self._client.list_resource_templates(cursor=cursor),
        )
        return [results.ResourceTemplate.from_wire(_dump(template)) for template in found]

    async def list_prompts(self) -> list[results.Prompt]:
        found = await self._pages(
            "prompts", lambda cursor: self._client.list_prompts(cursor=cursor)
        )
        return [results.Prompt.from_wire(_dump(prompt)) for prompt in found]

    async def read_resource(self, uri: str) -> list[dict[str, Any]]:
        result = await self._asked(self._client.read_resource(uri))
        return [_dump(part) for part in result.contents]

    async def get_prompt(
        self, name: str, arguments: dict[str, str] | None
    ) -> list[tuple[str, dict[str, Any]]]:
        result = await self._asked(self._client.get_prompt(name, arguments))
        return [(message.role, _dump(message.content)) for message in result.messages]

    async def call_tool(self, name: str, arguments: dict[str, Any]) -> results.CallResult:
        try:
            result = await self._client.call_tool(name, arguments)
        except MCPError as error:
            if error.code != types.URL_ELICITATION_REQUIRED or not await self._visited(error):
                self._check(error)
                raise plain_error(error) from error
            result = await self._asked(self._client.call_tool(name, arguments))
        return results.CallResult(
            parts=[_dump(part) for part in result.content],
            structured=result.structured_content,
            is_error=bool(result.is_error),
            meta=result.meta,
            raw=result,
        )

    async def _visited(self, error: MCPError) -> bool:
        """Whether the person has been to the pages without which the server does not go on."""
        if self._elicit is None:
            return False
        try:
            wanted = types.ElicitationRequiredErrorData.model_validate(error.data).elicitations
        except ValueError:
            return False
        for page in wanted[:_OPEN_REQUESTS]:
            answer = await self._elicit(Elicitation(message=page.message, url=page.url))
            if answer.action != "accept":
                return False
        return bool(wanted)

    async def _pages(self, field: str, ask: Callable[[str | None], Awaitable[Any]]) -> list[Any]:
        found: list[Any] = []
        cursor: str | None = None
        seen: set[str] = set()
        for _ in range(_PAGES):
            page = await self._asked(ask(cursor))
            found.extend(getattr(page, field))
            cursor = page.next_cursor
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
            self._check(error)
            raise plain_error(error) from error

    def _check(self, error: MCPError) -> None:
        if error.code == types.CONNECTION_CLOSED:
            raise ConnectionGone(error.message) from error
        if error.code == types.INVALID_REQUEST and error.message == "Session terminated":
            raise SessionForgotten from error


class _listening:  # noqa: N801  used as a function
    """Keeps a subscription to list changes open (servers of 2026-07-28 tell them only there)."""

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
            logger.debug("an MCP server does not tell when its lists change: %s", error)


def _dump(value: Any) -> dict[str, Any]:
    dumped: dict[str, Any] = value.model_dump(mode="json", by_alias=True)
    if "_meta" in dumped:
        dumped["meta"] = dumped.pop("_meta")
    return dumped


# What the SDK says of an answer with an error status and no message in it.
_STATUS_ONLY = frozenset({"Server returned an error response", "Not Found"})


def plain_error(error: BaseException, *, status: int | None = None) -> BaseException:
    """One plain error for whatever the SDK, its HTTP client or its task groups raised.

    Args:
        error: what was raised.
        status: the last HTTP error status, for errors of the SDK that do not tell it.
    """
    leaf = _first(error)
    if isinstance(leaf, APIError | OSError) and not isinstance(leaf, TimeoutError):
        return leaf
    if isinstance(leaf, MCPError):
        text = results.cut(leaf.message, _LONGEST_ERROR)
        if status is not None and leaf.message in _STATUS_ONLY:
            return APIStatusError(text, status_code=status)
        if leaf.code == types.REQUEST_TIMEOUT:
            return APITimeoutError(text)
        if leaf.code == types.CONNECTION_CLOSED:
            return APIConnectionError(text)
        return APIError(text, body={"code": leaf.code, "message": text}, retryable=False)
    name = type(leaf).__name__
    text = results.cut(str(leaf) or name, _LONGEST_ERROR)
    answered = getattr(getattr(leaf, "response", None), "status_code", None)
    if isinstance(answered, int):
        return APIStatusError(text.partition("\n")[0], status_code=answered)
    if "Timeout" in name or isinstance(leaf, TimeoutError):
        return APITimeoutError(text)
    if type(leaf).__module__.startswith(("httpx2", "httpcore2", "anyio")):
        return APIConnectionError(text)
    return APIError(f"{name}: {text}", retryable=False)


def _first(error: BaseException) -> BaseException:
    while isinstance(error, BaseExceptionGroup):
        group = cast("BaseExceptionGroup[BaseException]", error)
        error = group.exceptions[0]
    return error
