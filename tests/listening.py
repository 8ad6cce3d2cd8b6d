"""Servers of bare sockets, for tests that write an answer byte by byte."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager

from rejoinder.testing._accepting import accept_no_more

Handler = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


class Accepted(asyncio.StreamReaderProtocol):
    """One connection, of which `transports` knows before its handler begins: a handler that is
    cancelled before its first step closes nothing."""

    def __init__(self, handle: Handler, transports: set[asyncio.Transport]) -> None:
        super().__init__(asyncio.StreamReader(), handle)
        self._transports = transports

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._connection = transport
        self._transports.add(transport)
        super().connection_made(transport)

    def connection_lost(self, exc: Exception | None) -> None:
        # Aborting it once more raises, if it was closed while bytes were still to be sent.
        self._transports.discard(self._connection)
        super().connection_lost(exc)


@asynccontextmanager
async def listening(
    handle: Handler, ssl_context: ssl.SSLContext | None = None
) -> AsyncGenerator[str]:
    """The URL of a server that calls `handle` once for each connection.

    At the end all handlers are cancelled and all connections are closed: one that stays open is
    reported by the garbage collector in a later test, as a failure of that one.
    """
    tasks: set[asyncio.Task[None]] = set()
    transports: set[asyncio.Transport] = set()

    async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        tasks.add(task)
        try:
            await handle(reader, writer)
        except (asyncio.CancelledError, OSError, asyncio.IncompleteReadError):
            pass
        finally:
            tasks.discard(task)
            if writer.transport.get_write_buffer_size():
                writer.close()
            else:
                writer.transport.abort()

    server = await asyncio.get_running_loop().create_server(
        lambda: Accepted(connected, transports), "127.0.0.1", 0, ssl=ssl_context
    )
    port = server.sockets[0].getsockname()[1]
    try:
        yield f"{'http' if ssl_context is None else 'https'}://127.0.0.1:{port}"
    finally:
        await accept_no_more(server.sockets)
        server.close()
        closed = asyncio.ensure_future(server.wait_closed())
        for transport in list(transports):
            transport.abort()
        while tasks or not closed.done():
            for task in list(tasks):
                task.cancel()
            await asyncio.sleep(0)
        await asyncio.sleep(0)
