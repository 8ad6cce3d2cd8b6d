"""Blocking steps in a thread of their own.

Not the loop's shared pool: ending a child must not wait behind somebody's slow work, and a pool
that is shut down must not keep a child alive.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Callable
from typing import TypeVar

__all__ = ["in_thread"]

T = TypeVar("T")


async def in_thread(
    work: Callable[[], T], *, name: str, abandon: Callable[[T], object] | None = None
) -> T:
    """The result of `work()`, which runs in a new daemon thread.

    When the waiter is cancelled the work still runs to its end, and `abandon` gets its result, in
    a thread as well.
    """
    loop = asyncio.get_running_loop()
    future: asyncio.Future[T] = loop.create_future()

    def give_up(result: T) -> None:
        if abandon is not None:
            threading.Thread(target=abandon, args=(result,), name=name, daemon=True).start()

    def succeed(result: T) -> None:
        if future.done():
            give_up(result)
        else:
            future.set_result(result)

    def fail(error: BaseException) -> None:
        if not future.done():
            future.set_exception(error)

    def run() -> None:
        try:
            result = work()
        except BaseException as error:
            with contextlib.suppress(RuntimeError):  # the loop is closed: nobody waits any more
                loop.call_soon_threadsafe(fail, error)
            return
        try:
            loop.call_soon_threadsafe(succeed, result)
        except RuntimeError:
            give_up(result)

    threading.Thread(target=run, name=name, daemon=True).start()
    try:
        return await future
    except asyncio.CancelledError:
        if future.done() and not future.cancelled() and future.exception() is None:
            give_up(future.result())
        raise
