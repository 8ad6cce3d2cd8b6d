"""Newline-delimited JSON over the pipes of a child process, with bounds that the SDK's client lacks.

The SDK's own stdio client buffers a line of any length, and its child may outlive this process. This
client feeds the same session. It cuts lines at a limit, pauses reading while the messages are not
read, keeps the end of stderr for error messages, and runs the child in a `ProcessGroup`.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import re
from collections import deque
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from types import TracebackType
from typing import Any, Self, cast

import anyio
import mcp_types as types
from mcp.client.stdio import get_default_environment
from mcp.shared.message import SessionMessage

from rejoinder._aio import in_thread
from rejoinder._core import jsontext
from rejoinder._core.json_values import LARGE, SLICE, ValueCounter
from rejoinder._secrets import Hidden, forget_frames
from rejoinder.mcp import mending
from rejoinder.mcp.lines import LineCutter, LongLine
from rejoinder.mcp.notes import TOO_LARGE, TOO_MANY, Notes, StartError, current_notes
from rejoinder.mcp.targets import Command
from rejoinder.mcp.watcher import ProcessGroup

__all__ = ["stdio_streams"]

logger = logging.getLogger("rejoinder.mcp")

# Steps of a shutdown: close stdin, wait this long, send TERM, wait, send KILL.
_LEAVE = 0.4
_TERM = 0.7

_HIGH_BYTES = 1 << 20
_HIGH_LINES = 512

# A child that has ended may have left output in the pipe.
_LINGER = 0.1

# JSON-RPC writers put the id of an answer before the result, or after it.
_ID_IN_FRONT = re.compile(
    rb'^\s*\{(?:\s*"jsonrpc"\s*:\s*"2\.0"\s*,)?\s*"id"\s*:\s*("[^"\\]{1,64}"|\d{1,18})\s*,'
)
_ID_BEHIND = re.compile(
    rb',\s*"id"\s*:\s*("[^"\\]{1,64}"|\d{1,18})\s*(?:,\s*"jsonrpc"\s*:\s*"2\.0"\s*)?\}\s*$'
)


@asynccontextmanager
async def stdio_streams(
    command: Command, *, max_message_bytes: int = 1 << 24
) -> AsyncGenerator[tuple[Inbox, Outbox]]:
    """Start the command, yield the two streams of a session, end the command and its descendants.

    The child receives the SDK's short list of harmless variables, and those of `command`.

    Raises:
        StartError: the command cannot be started.
    """
    loop = asyncio.get_running_loop()
    notes = current_notes.get() or Notes()
    notes.process = True
    notes.secrets = command.secrets()
    inbox = Inbox(max_message_bytes, notes.redacted)
    outbox = Outbox(inbox)

    closing = False

    def exited(returncode: int) -> None:
        # An end that we caused is not a reason.
        if not (closing or outbox.ended_the_child):
            notes.exit_code = returncode
        notes.exited.set()
        loop.call_later(_LINGER, inbox.end)

    def on_exit(returncode: int) -> None:  # in the group's thread
        with contextlib.suppress(RuntimeError):
            loop.call_soon_threadsafe(exited, returncode)

    try:
        group = await in_thread(
            lambda: ProcessGroup(
                command.words,
                env=Hidden(get_default_environment() | command.env.reveal()),
                cwd=command.cwd,
                on_exit=on_exit,
            ),
            name="rejoinder-mcp-start",
            abandon=ProcessGroup.discard,
        )
    except (OSError, ValueError) as error:  # ValueError: an argument that no system accepts
        raise StartError.of(forget_frames(error)) from error
    transports: list[asyncio.BaseTransport] = []
    try:
        words, _ = await loop.connect_read_pipe(lambda: _Stderr(notes), group.stderr)
        transports.append(words)
        reading, _ = await loop.connect_read_pipe(lambda: inbox, group.stdout)
        transports.append(reading)
        writing, _ = await loop.connect_write_pipe(lambda: outbox, group.stdin)
        transports.append(writing)
        yield inbox, outbox
    finally:
        if inbox.ended:  # it closed the pipe: let the reason arrive
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(2 * _LINGER):
                    await notes.exited.wait()
        closing = True
        inbox.discard()
        outbox.shut()
        try:
            await in_thread(lambda: group.stop(grace=_LEAVE, term=_TERM), name="rejoinder-mcp-stop")
        finally:
            outbox.abandon()
            for transport in transports:
                transport.close()
            if len(transports) < 3:
                group.close_pipes()


class _Stderr(asyncio.Protocol):
    def __init__(self, notes: Notes) -> None:
        self._notes = notes

    def data_received(self, data: bytes) -> None:
        self._notes.heard(data)
        if logger.isEnabledFor(logging.DEBUG):
            words = self._notes.redacted(data[-500:].decode("utf-8", "replace").rstrip())
            logger.debug("stderr of an MCP server: %s", words)


class Inbox(asyncio.Protocol):
    """The messages of the child, for the SDK's session."""

    def __init__(self, limit: int, redacted: Callable[[str], str] = str) -> None:
        self._limit = limit
        self._redacted = redacted
        self._cutter = LineCutter(limit)
        self._lines: deque[bytes | LongLine] = deque()
        self._held = 0
        self._ended = False
        self.hung_up = False
        self._discarding = False
        self._paused = False
        self._transport: asyncio.ReadTransport | None = None
        self._waiter: asyncio.Future[None] | None = None
        self.asked: set[types.RequestId] = set()

    # the pipe's side

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.ReadTransport", transport)

    def data_received(self, data: bytes) -> None:
        if self._discarding:
            return
        for line in self._cutter.feed(data):
            self._lines.append(line)
            self._held += len(line) if isinstance(line, bytes) else 1024
        if self._lines:
            self._wake()
        full = self._held > _HIGH_BYTES or len(self._lines) > _HIGH_LINES
        if full and not self._paused and self._transport is not None:
            self._paused = True
            self._transport.pause_reading()

    def eof_received(self) -> None:
        self.hung_up = True
        self.end()

    def connection_lost(self, exc: Exception | None) -> None:
        self.hung_up = True
        self.end()

    def end(self) -> None:
        """No more messages follow. Received ones can still be read."""
        self._ended = True
        self._wake()

    def discard(self) -> None:
        """Read and discard, because a child that is blocked in writing cannot exit."""
        self._discarding = True
        self._lines.clear()
        self._held = 0
        self.end()
        self._resume()

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    def _resume(self) -> None:
        if self._paused and self._transport is not None:
            self._paused = False
            self._transport.resume_reading()

    @property
    def ended(self) -> bool:
        """Whether the child has sent its last message."""
        return self._ended

    # the session's side

    async def receive(self) -> SessionMessage | Exception:
        """The next message; an exception for a line that is not a message.

        Raises:
            anyio.EndOfStream: the child closed its end, or has ended.
        """
        while not self._lines:
            if self._ended:
                raise anyio.EndOfStream
            self._waiter = asyncio.get_running_loop().create_future()
            try:
                await self._waiter
            finally:
                self._waiter = None
        line = self._lines.popleft()
        self._held -= len(line) if isinstance(line, bytes) else 1024
        if self._paused and self._held < _HIGH_BYTES // 2 and len(self._lines) < _HIGH_LINES // 2:
            self._resume()
        if isinstance(line, bytes) and len(line) > LARGE and await _is_crowded(line):
            edges = LongLine(head=line[:512], tail=line[-512:], size=len(line))
            return self._refuse(edges, TOO_MANY)
        return self._read(line)

    def _read(self, line: bytes | LongLine) -> SessionMessage | Exception:
        if isinstance(line, LongLine):
            return self._refuse(
                line, f"a message of {line.size:,} bytes; the limit is {self._limit:,}"
            )
        try:
            message = types.jsonrpc_message_adapter.validate_json(line, by_name=False)
        except ValueError:
            mended = self._mended(line)
            if mended is None:
                words = self._redacted(line[:4096].decode("utf-8", "replace"))[:200]
                return ValueError(f"a line that is not a JSON-RPC message: {words!r}")
            message = mended
        if isinstance(message, types.JSONRPCResponse | types.JSONRPCError):
            self.asked.discard(cast("types.RequestId", message.id))
        return SessionMessage(message)

    def _mended(self, line: bytes) -> types.JSONRPCMessage | None:
        """An almost valid JSON-RPC answer to an open request, e.g. with an error that is a string, or
        in Latin-1."""
        text = line if line.isascii() else line.decode("utf-8", "replace")
        try:
            found = mending.mend_response(jsontext.decode_tolerantly(text))
            if found is None or found["id"] not in self.asked:
                return None
            return types.jsonrpc_message_adapter.validate_python(found, by_name=False)
        except (ValueError, RecursionError):
            return None

    def _refuse(self, line: LongLine, what: str) -> SessionMessage | Exception:
        text = f"the server sent {what}"
        request_id = self._answered(line)
        if request_id is None:
            return ValueError(text)
        self.asked.discard(request_id)
        error = types.ErrorData(code=TOO_LARGE, message=text)
        return SessionMessage(types.JSONRPCError(jsonrpc="2.0", id=request_id, error=error))

    def _answered(self, line: LongLine) -> types.RequestId | None:
        for found in (_ID_IN_FRONT.match(line.head), _ID_BEHIND.search(line.tail)):
            if found is not None:
                raw = found.group(1)
                request_id: types.RequestId = (
                    raw[1:-1].decode("utf-8", "replace") if raw.startswith(b'"') else int(raw)
                )
                if request_id in self.asked:
                    return request_id
        # Only one request is open, so the answer must belong to it.
        return next(iter(self.asked)) if len(self.asked) == 1 else None

    async def aclose(self) -> None:
        self.discard()

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


async def _is_crowded(line: bytes) -> bool:
    counter = ValueCounter()
    for start in range(0, len(line), SLICE):
        counter.feed(line[start : start + SLICE])
        if counter.crowded:
            return True
        await asyncio.sleep(0)
    return False


class Outbox(asyncio.BaseProtocol):
    """The messages to the child."""

    def __init__(self, inbox: Inbox) -> None:
        self._inbox = inbox
        self._transport: asyncio.WriteTransport | None = None
        self._closed = False
        self.ended_the_child = False
        self._lost = False
        self._paused = False
        self._waiters: set[asyncio.Future[None]] = set()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.WriteTransport", transport)

    def pause_writing(self) -> None:
        self._paused = True

    def resume_writing(self) -> None:
        self._paused = False
        self._release()

    def connection_lost(self, exc: Exception | None) -> None:
        # Nothing more can be sent, so no answers will follow.
        self._closed = self._lost = True
        self._release()
        self._inbox.end()

    def _release(self) -> None:
        for waiter in self._waiters:
            if not waiter.done():
                waiter.set_result(None)

    async def send(self, item: SessionMessage) -> None:
        """Write one message; wait while the child does not read.

        Raises:
            anyio.BrokenResourceError: the child no longer reads.
        """
        while self._paused and not self._closed:
            waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            self._waiters.add(waiter)
            try:
                await waiter
            finally:
                self._waiters.discard(waiter)
        if self._closed or self._transport is None:
            raise anyio.BrokenResourceError
        message: Any = item.message
        if isinstance(message, types.JSONRPCRequest):
            self._inbox.asked.add(message.id)
        elif isinstance(message, types.JSONRPCNotification):
            self._forget_abandoned(message)
        self._transport.write(
            message.model_dump_json(by_alias=True, exclude_unset=True).encode() + b"\n"
        )

    def abandon(self) -> None:
        """Discard what the child has not read."""
        if self._transport is not None and not self._lost:
            self._transport.abort()

    def _forget_abandoned(self, message: types.JSONRPCNotification) -> None:
        if message.method == "notifications/cancelled" and message.params is not None:
            self._inbox.asked.discard(message.params.get("requestId", ""))

    def shut(self) -> None:
        """Close the child's stdin, which asks it to exit."""
        self.ended_the_child = self.ended_the_child or not self._inbox.hung_up
        self._closed = True
        self._release()
        if self._transport is not None:
            self._transport.close()

    async def aclose(self) -> None:
        self.shut()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc_val: BaseException | None,
        exc_tb: TracebackType | None,
    ) -> None:
        await self.aclose()
