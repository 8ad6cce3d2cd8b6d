"""The helper for bare socket servers leaves no connection open, whenever the test ends."""

from __future__ import annotations

import asyncio
import gc
import socket
from pathlib import Path

import pytest

from certificates import server_context
from listening import listening


@pytest.mark.parametrize("tls", [False, True])
@pytest.mark.parametrize("turns", range(6))
async def test_a_connection_of_the_last_moment_is_closed(
    turns: int, tls: bool, certificate: Path
) -> None:
    """An unclosed one is a warning of the garbage collector, which fails the test."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()

    async with listening(serve, server_context(certificate) if tls else None) as url:
        client = socket.create_connection(("127.0.0.1", int(url.rpartition(":")[2])))
        for _ in range(turns):
            await asyncio.sleep(0)
    client.close()
    gc.collect()
