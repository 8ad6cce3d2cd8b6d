"""Replies of scripted models that still run; a server for tests that have several loops."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Generator
from contextlib import contextmanager

from rejoinder.testing import Answer, FaultServer


def running() -> int:
    return sum(task.get_name().endswith("ScriptedLLM reply") for task in asyncio.all_tasks())


@contextmanager
def serving(answer: Answer) -> Generator[str]:
    """The address of a server that runs in a thread of its own."""
    ready: list[tuple[str, asyncio.AbstractEventLoop, asyncio.Event]] = []
    started = threading.Event()

    async def serve() -> None:
        async with FaultServer() as server:
            server.always(answer)
            done = asyncio.Event()
            ready.append((server.url, asyncio.get_running_loop(), done))
            started.set()
            await done.wait()

    thread = threading.Thread(target=asyncio.run, args=(serve(),))
    thread.start()
    started.wait(10)
    url, loop, done = ready[0]
    try:
        yield url
    finally:
        loop.call_soon_threadsafe(done.set)
        thread.join(10)
