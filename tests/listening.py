"""Servers of bare sockets, for tests that write an answer byte by byte."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager

Handler = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


@asynccontextmanager
async def listening(
    handle: Handler, ssl_context: ssl.SSLContext | None = None
) -> AsyncGenerator[str]:
    """The URL of a server that calls `handle` once for each connection.

    At the end all handlers are cancelled and all connections are closed: one that stays open is
    reported by the garbage collector in a later test, as a failure of that one.
    """
    tasks: set[asyncio.Task[None]] = set()
    closing: set[asyncio.StreamWriter] = set()

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
                closing.add(writer)
                writer.close()
            else:
                writer.transport.abort()

    server = await asyncio.start_server(connected, "127.0.0.1", 0, ssl=ssl_context)
    port = server.sockets[0].getsockname()[1]
    try:
        yield f"{'http' if ssl_context is None else 'https'}://127.0.0.1:{port}"
    finally:
        server.close()
        closed = asyncio.ensure_future(server.wait_closed())
        while tasks or not closed.done():  # some connections may have been accepted this moment
            for task in list(tasks):
                task.cancel()
            await asyncio.sleep(0)
        for writer in closing:
            writer.transport.abort()
        await asyncio.sleep(0)
