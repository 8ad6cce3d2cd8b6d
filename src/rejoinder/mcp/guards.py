"""Guards around the streams of a session: they stop floods, and isolate flawed parts of results.

Unrequested messages are dropped before the SDK starts a task for each, and a server that sends too many
is read slowly. Results are mended before the SDK validates them (`rejoinder.mcp.mending`), and progress
reports are passed to their call.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping
from contextlib import AbstractAsyncContextManager
from types import TracebackType
from typing import Any, Self, cast

import anyio
import mcp_types as types
from mcp.shared.message import SessionMessage
from mcp_types import methods
from mcp_types.version import MODERN_PROTOCOL_VERSIONS
from pydantic import ValidationError

from rejoinder._core.json_values import is_crowded
from rejoinder.mcp import mending
from rejoinder.mcp.notes import TOO_LARGE, TOO_MANY, Notes, current_call
from rejoinder.telemetry import TRACE_FIELDS, reaches_mcp

__all__ = ["OPEN_REQUESTS", "Check", "GuardedTransport"]

logger = logging.getLogger("rejoinder.mcp")

OPEN_REQUESTS = 32
"""Maximum number of open requests of the server."""

_BURST = 2000  # useless messages taken at full speed
_PER_SECOND = 1000.0
_UNASKED = frozenset({"notifications/message", "notifications/progress"})


class _GuardedRead:
    """Passes on what the session needs, slows down what it does not, and notices the end."""

    def __init__(
        self,
        inner: Any,
        on_end: Callable[[], None],
        open_requests: set[Any],
        notes: Notes,
        version: Callable[[], str],
    ) -> None:
        self._inner = inner
        self._on_end = on_end
        self._open = open_requests
        self._notes = notes
        self._version = version
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
            item = self._bounded(item)
            wanted = self._wanted(item)
            if not wanted or not _is_answer(item):
                await self._slow_down()
            if wanted:
                return cast("SessionMessage", item)

    @staticmethod
    def _bounded(item: SessionMessage | Exception) -> SessionMessage | Exception:
        """`item`, or an error in place of a message that the SDK would read for too long. Our own
        transports refuse these before they are parsed; others do not."""
        match item:
            case SessionMessage(message=types.JSONRPCResponse() as answer):
                if is_crowded(answer.result):
                    error = types.ErrorData(code=TOO_LARGE, message=f"the server sent {TOO_MANY}")
                    refusal = types.JSONRPCError(jsonrpc="2.0", id=answer.id, error=error)
                    return SessionMessage(refusal)
            case SessionMessage(
                message=types.JSONRPCRequest() | types.JSONRPCNotification() as message_body
            ):
                if is_crowded(message_body.params):
                    return ValueError(TOO_MANY)
            case _:
                pass
        return item

    def _wanted(self, item: SessionMessage | Exception) -> bool:
        if isinstance(item, Exception):
            if not self._told:
                self._told = True
                logger.warning("an MCP server sent something that is not a message: %s", item)
            return False
        message = item.message
        if isinstance(message, types.JSONRPCResponse):
            self._mend(message)
        if isinstance(message, types.JSONRPCNotification):
            if message.method == "notifications/progress":
                self._progress(message.params or {})
            return message.method not in _UNASKED
        if isinstance(message, types.JSONRPCRequest):
            if len(self._open) >= OPEN_REQUESTS or message.id in self._open:
                return False
            self._open.add(message.id)
        return True

    def _mend(self, message: types.JSONRPCResponse) -> None:
        call = self._notes.call(message.id)
        if call is None:
            return
        method, version = call.method, self._version()
        check = Check(method, version)
        if method == "tools/call":
            message.result, call.results[method], call.flaws[method] = mending.mend_call(
                message.result, check, trusting=version not in MODERN_PROTOCOL_VERSIONS
            )
        elif method in mending.LISTS:
            call.results[method] = message.result
            message.result, call.flaws[method] = mending.mend_list(method, message.result, check)

    def _progress(self, params: Mapping[str, Any]) -> None:
        call = self._notes.call(params.get("progressToken"))
        progress = params.get("progress")
        if call is not None and call.progress is not None and isinstance(progress, int | float):
            call.progress(progress)

    async def _slow_down(self) -> None:
        now = asyncio.get_running_loop().time()
        self._budget = min(_BURST, self._budget + (now - self._filled_at) * _PER_SECOND) - 1
        self._filled_at = now
        # Yield even within the budget, so that the tasks that the SDK starts for messages can run.
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


class Check:
    """Raises `mending.Refused` for a result that the SDK would not take."""

    def __init__(self, method: str, version: str) -> None:
        self._method = method
        self._version = version

    def __call__(self, result: dict[str, Any]) -> None:
        model: Any = _RESULTS[self._method]
        try:
            try:
                methods.validate_server_result(self._method, self._version, result)
            except KeyError:  # a method that this version does not have
                pass
            model.model_validate(result, by_name=False)
        except ValidationError as error:
            raise mending.Refused(
                [(one["loc"], one["msg"]) for one in error.errors(include_input=False)]
            ) from None


_RESULTS = {
    "tools/list": types.ListToolsResult,
    "tools/call": types.CallToolResult,
    "resources/list": types.ListResourcesResult,
    "resources/templates/list": types.ListResourceTemplatesResult,
    "resources/read": types.ReadResourceResult,
    "prompts/list": types.ListPromptsResult,
    "prompts/get": types.GetPromptResult,
}


def _is_answer(item: SessionMessage | Exception) -> bool:
    return isinstance(item, SessionMessage) and isinstance(
        item.message, types.JSONRPCResponse | types.JSONRPCError
    )


class _GuardedWrite:
    def __init__(self, inner: Any, open_requests: set[Any], notes: Notes) -> None:
        self._inner = inner
        self._open = open_requests
        self._notes = notes

    async def send(self, item: SessionMessage) -> None:
        if not reaches_mcp() and isinstance(
            item.message, types.JSONRPCRequest | types.JSONRPCNotification
        ):
            _forget_trace(item.message)
        call = current_call.get()
        if call is not None and isinstance(item.message, types.JSONRPCRequest):
            # One question may take several requests: pages, or rounds of a server's questions.
            self._notes.calls.pop(call.id, None)
            call.id, call.method = item.message.id, item.message.method
            call.status, call.refusal = None, ""
            self._notes.calls[call.id] = call
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


def _forget_trace(message: types.JSONRPCRequest | types.JSONRPCNotification) -> None:
    """Take out the trace context, which the SDK writes into every request."""
    params = message.params
    meta: Any = None if params is None else params.get("_meta")
    if params is None or not isinstance(meta, dict):
        return
    fields = cast("dict[str, Any]", meta)
    kept = {name: value for name, value in fields.items() if name not in TRACE_FIELDS}
    if len(kept) < len(fields):
        if kept:
            params["_meta"] = kept
        else:
            del params["_meta"]


class GuardedTransport:
    """Any context manager of streams, as the transport the SDK's client wants."""

    def __init__(
        self,
        streams: AbstractAsyncContextManager[Any],
        on_end: Callable[[], None],
        notes: Notes,
        version: Callable[[], str],
    ) -> None:
        self._streams = streams
        self._on_end = on_end
        self._notes = notes
        self._version = version

    async def __aenter__(self) -> tuple[Any, Any]:
        entered: Any = await self._streams.__aenter__()
        open_requests: set[Any] = set()
        return (
            _GuardedRead(entered[0], self._on_end, open_requests, self._notes, self._version),
            _GuardedWrite(entered[1], open_requests, self._notes),
        )

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc_val: BaseException | None,
        exc_tb: TracebackType | None,
    ) -> bool | None:
        return await self._streams.__aexit__(exc_type, exc_val, exc_tb)
