"""The servers of tests leave no connection open, whenever a client connects."""

from __future__ import annotations

import asyncio
import gc
import socket
from collections.abc import Callable
from typing import Any
from urllib.parse import urlsplit

import pytest

from rejoinder.testing import FaultServer, RealtimeServer
from rejoinder.testing.h2_server import H2Server, H2ServerStream


async def silent(stream: H2ServerStream) -> None:
    await stream.receive()


@pytest.mark.parametrize("make", [FaultServer, RealtimeServer, lambda: H2Server(silent)])
@pytest.mark.parametrize("turns", range(7))
async def test_a_connection_of_the_last_moment_is_closed(
    turns: int, make: Callable[[], Any]
) -> None:
    """An unclosed one is a warning of the garbage collector, which fails the test."""
    async with make() as server:
        at = urlsplit(server.url)
        client = socket.create_connection((at.hostname, at.port))
        for _ in range(turns):
            await asyncio.sleep(0)
    client.close()
    gc.collect()
