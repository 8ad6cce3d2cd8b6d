"""The few asyncio pieces of our own."""

from __future__ import annotations

import asyncio
import contextvars
import threading
from collections import deque
from collections.abc import Callable
from typing import Any, Generic, TypeVar

__all__ = ["Chan", "ChanClosed", "cancel_and_wait", "in_thread"]

T = TypeVar("T")


class ChanClosed(Exception):
    """Sending into, or receiving from, a channel that was closed."""


class Chan(Generic[T]):
    """A queue for one consumer, that can be closed. Sending never waits.

    Values sent before `close` can still be received. A receiver that is cancelled loses nothing.
    `observe` sees every value once, as it is sent. `waiting` is called when a receiver is about to
    wait; what it raises, the receiver raises.

    A producer that can wait should, when `full`, await `drained`: more than `high` values lie
    unread, and it resumes when half of them are taken.
    """

    def __init__(
        self,
        *,
        observe: Callable[[T], None] | None = None,
        waiting: Callable[[], None] | None = None,
        high: int = 1024,
    ) -> None:
        self._items: deque[T] = deque()
        self._observe = observe
        self._waiting = waiting
        self._high = high
        self._low = high // 2
        self._closed = False
        self._receiver: asyncio.Future[None] | None = None
        self._sender: asyncio.Future[None] | None = None

    @property
    def closed(self) -> bool:
        return self._closed

    @property
    def full(self) -> bool:
        return len(self._items) >= self._high

    def __len__(self) -> int:
        return len(self._items)

    def send_nowait(self, value: T) -> None:
        """Raises:
        ChanClosed: nobody will receive it.
        """
        if self._closed:
            raise ChanClosed
        if self._observe is not None:
            self._observe(value)
        self._items.append(value)
        receiver = self._receiver
        if receiver is not None and not receiver.done():
            receiver.set_result(None)

    async def send(self, value: T) -> None:
        self.send_nowait(value)

    def recv_nowait(self) -> T:
        """Raises:
        ChanClosed: closed and empty.
        asyncio.QueueEmpty: nothing there yet.
        """
        if self._items:
            return self._take()
        raise ChanClosed if self._closed else asyncio.QueueEmpty

    async def recv(self) -> T:
        """Raises:
        ChanClosed: closed and empty.
        """
        try:
            return await self.__anext__()
        except StopAsyncIteration:
            raise ChanClosed from None

    def close(self) -> None:
        """No more values will come. Idempotent."""
        self._closed = True
        for waiter in (self._receiver, self._sender):
            if waiter is not None and not waiter.done():
                waiter.set_result(None)

    async def drained(self) -> None:
        """Wait until the consumer has taken enough, or the channel is closed."""
        while len(self._items) > self._low and not self._closed:
            self._sender = asyncio.get_running_loop().create_future()
            try:
                await self._sender
            finally:
                self._sender = None

    def __aiter__(self) -> Chan[T]:
        return self

    async def __anext__(self) -> T:
        items = self._items
        if not items:
            await self._wait()
        if self._sender is not None:
            return self._take()
        return items.popleft()

    def _take(self) -> T:
        value = self._items.popleft()
        sender = self._sender
        if sender is not None and len(self._items) <= self._low and not sender.done():
            sender.set_result(None)
        return value

    async def _wait(self) -> None:
        if self._receiver is not None:
            raise RuntimeError("another task is already waiting for the next value of this stream")
        if self._waiting is not None and not self._closed:
            self._waiting()
        while not self._items:
            if self._closed:
                raise StopAsyncIteration
            self._receiver = asyncio.get_running_loop().create_future()
            try:
                await self._receiver
            finally:
                self._receiver = None


async def cancel_and_wait(*futures: asyncio.Future[Any], timeout: float | None = None) -> bool:
    """Cancel each and wait until all are done; what they raise is not raised again.

    Returns:
        Whether all were done within `timeout` seconds.
    """
    pending = {future for future in futures if not future.done()}
    for future in pending:
        future.cancel()
    if pending:
        _, pending = await asyncio.wait(pending, timeout=timeout)
    for future in futures:
        if future.done() and not future.cancelled():
            future.exception()  # it has been seen: asyncio must not report it as lost
    return not pending


async def in_thread(
    work: Callable[[], T], *, name: str, abandon: Callable[[T], object] | None = None
) -> T:
    """The result of `work()`, which runs in a new daemon thread, in the context of the caller.

    Not in the loop's shared pool: what has to happen now must not wait behind somebody's slow work,
    and a pool that is shut down must not keep anything alive.

    When the waiter is cancelled the work still runs to its end, and `abandon` gets its result, in
    a thread as well.
    """
    loop = asyncio.get_running_loop()
    context = contextvars.copy_context()
    # Errors travel as values: a future takes no StopIteration, which would be waited for for ever.
    future: asyncio.Future[tuple[T, None] | tuple[None, BaseException]] = loop.create_future()

    def give_up(outcome: tuple[T, None] | tuple[None, BaseException]) -> None:
        if abandon is not None and outcome[1] is None:
            args = (outcome[0],)
            threading.Thread(target=abandon, args=args, name=name, daemon=True).start()

    def tell(outcome: tuple[T, None] | tuple[None, BaseException]) -> None:
        if future.done():
            give_up(outcome)
        else:
            future.set_result(outcome)

    def run() -> None:
        outcome: tuple[T, None] | tuple[None, BaseException]
        try:
            outcome = context.run(work), None
        except BaseException as error:
            outcome = None, error
        try:
            loop.call_soon_threadsafe(tell, outcome)
        except RuntimeError:  # the loop is closed: nobody waits any more
            give_up(outcome)

    threading.Thread(target=run, name=name, daemon=True).start()
    try:
        outcome = await future
    except asyncio.CancelledError:
        if future.done() and not future.cancelled():
            give_up(future.result())
        raise
    if outcome[1] is not None:
        raise outcome[1]
    return outcome[0]
