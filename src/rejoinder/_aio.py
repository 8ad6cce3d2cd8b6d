"""Small additions to asyncio."""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import logging
import math
import threading
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from types import TracebackType
from typing import Any, Generic, Self, TypeVar

__all__ = [
    "Alarm",
    "Chan",
    "ChanClosed",
    "Deadline",
    "cancel_and_wait",
    "end",
    "in_thread",
    "unfinished",
    "within",
]

logger = logging.getLogger("rejoinder")

T = TypeVar("T")

_LOOP_TURNS = 5
"""Iterations of the event loop between the end of a time limit and its effect. They process the data
that arrived while something else kept the loop busy."""
_SHORTEST_LOOK = 0.25
"""Seconds. An alarm checks eight times before its time, but not more often than this."""
_LATE = 0.05
"""Seconds. A timer that fires later than this shows that the loop was blocked."""


class ChanClosed(Exception):
    """Sending into, or receiving from, a channel that was closed."""


class Chan(Generic[T]):
    """A queue for one consumer, that can be closed. Sending never waits.

    Values sent before `close` can still be received. A cancelled receiver loses nothing. `unread` holds
    the values that were sent but not received. While no sender waits (`sender_waits`), the receiver may
    take values from its left end.

    `observe` receives the values that are about to be sent. `waiting` is called when a receiver waits for
    the first time on a loop other than `loop`; its exceptions are raised in the receiver.

    If the channel is `full` (more than `high` unread values), a producer that can wait should await
    `drained`; it resumes when half of them are taken.

    A receiver that avoids the coroutines of this class awaits `news`, and then sets `receiver` to ``None``.

    A channel may be relayed into another one, so that no task has to carry its values there.
    """

    def __init__(
        self,
        *,
        observe: Callable[[Sequence[T]], None] | None = None,
        waiting: Callable[[], None] | None = None,
        high: int = 1024,
        loop: asyncio.AbstractEventLoop | None = None,
    ) -> None:
        self.unread: deque[T] = deque()
        self._observe = observe
        self._waiting = waiting
        self._high = high
        self._low = high // 2
        self._into: Chan[T] | None = None
        self._passes: Callable[[Sequence[T]], bool] | None = None
        self._loop = loop
        self.receiver: asyncio.Future[None] | None = None
        self.sender_waits: asyncio.Future[None] | None = None
        self.closed = False

    @property
    def full(self) -> bool:
        into = self._into
        return len(self.unread) >= self._high if into is None else into.full

    def relay(self, into: Chan[T], passes: Callable[[Sequence[T]], bool]) -> bool:
        """Put unread and future values into `into`, if `passes` returns True for them; `into` does not
        observe them. A sender waits while `into` is full. The receiver of this channel waits until it
        is closed.

        Returns:
            Whether it was relayed. It is not relayed while a sender waits for the current receiver.
        """
        if self.sender_waits is not None:
            return False
        self._into, self._passes = into, passes
        if self.unread:
            left = list(self.unread)
            self.unread.clear()
            self._pass_on(left)
        if self.closed:
            self._passes = None  # as in `close`
        return True

    def _pass_on(self, values: Sequence[T]) -> None:
        into, passes = self._into, self._passes
        if into is None or passes is None or into.closed or not passes(values):
            return
        if into._into is not None:
            into._pass_on(values)
        else:
            into._put(values)

    def _put(self, values: Sequence[T]) -> None:
        self.unread += values
        receiver = self.receiver
        if receiver is not None and not receiver.done():
            receiver.set_result(None)

    def __len__(self) -> int:
        return len(self.unread)

    def send_nowait(self, value: T) -> None:
        """Raises:
        ChanClosed: the receiver has closed the channel.
        """
        if self.closed:
            raise ChanClosed
        if self._observe is not None:
            self._observe((value,))
        if self._into is not None:
            self._pass_on((value,))
            return
        self.unread.append(value)
        receiver = self.receiver
        if receiver is not None and not receiver.done():
            receiver.set_result(None)

    def send_all(self, values: Sequence[T]) -> None:
        """`send_nowait` of each; a waiting receiver is woken once.

        Raises:
            ChanClosed: the receiver has closed the channel.
        """
        if self.closed:
            raise ChanClosed
        if not values:
            return
        if self._observe is not None:
            self._observe(values)
        if self._into is not None:
            self._pass_on(values)
        else:
            self._put(values)

    async def send(self, value: T) -> None:
        self.send_nowait(value)

    def recv_nowait(self) -> T:
        """Raises:
        ChanClosed: closed and empty.
        asyncio.QueueEmpty: nothing there yet.
        """
        if self.unread:
            return self.take()
        raise ChanClosed if self.closed else asyncio.QueueEmpty

    async def recv(self) -> T:
        """Raises:
        ChanClosed: closed and empty.
        """
        try:
            return await self.__anext__()
        except StopAsyncIteration:
            raise ChanClosed from None

    def close(self) -> None:
        """No more values follow. Idempotent."""
        self.closed = True
        # They often belong to the owner of this channel, which could not be freed at once then.
        self._observe = self._waiting = self._passes = None
        for waiter in (self.receiver, self.sender_waits):
            if waiter is not None and not waiter.done():
                waiter.set_result(None)

    async def drained(self) -> None:
        """Wait until the consumer has taken enough, or the channel is closed."""
        if self._into is not None:
            await self._into.drained()
            return
        while len(self.unread) > self._low and not self.closed:
            self.sender_waits = asyncio.get_running_loop().create_future()
            try:
                await self.sender_waits
            finally:
                self.sender_waits = None

    async def drained_within(self, seconds: float) -> bool:
        """`drained`, unless the consumer takes nothing for `seconds`. Returns whether it has."""
        if self._into is not None:
            return await self._into.drained_within(seconds)
        while True:
            unread = len(self.unread)
            try:
                async with asyncio.timeout(seconds):
                    await self.drained()
                return True
            except TimeoutError:
                if len(self.unread) >= unread:
                    return False

    def __aiter__(self) -> Chan[T]:
        return self

    async def __anext__(self) -> T:
        while not self.unread:
            news = self.news()
            if news is None:
                raise StopAsyncIteration
            try:
                await news
            finally:
                self.receiver = None
        return self.take()

    def news(self) -> asyncio.Future[None] | None:
        """A future that is done when a value can be received or the channel is closed; ``None`` if it is
        closed. The task that awaits it is the `receiver` until it sets that to ``None``."""
        if self.receiver is not None:
            raise RuntimeError("another task is already waiting for the next value of this stream")
        if self.closed:
            return None
        loop = asyncio.get_running_loop()
        if loop is not self._loop:
            if self._waiting is not None:
                self._waiting()
            self._loop = loop
        news = self.receiver = loop.create_future()
        return news

    def take(self) -> T:
        """The next `unread` value."""
        value = self.unread.popleft()
        sender = self.sender_waits
        if sender is not None and len(self.unread) <= self._low and not sender.done():
            sender.set_result(None)
        return value


async def cancel_and_wait(*futures: asyncio.Future[Any], timeout: float | None = None) -> bool:
    """Cancel each and wait until all are done. Their exceptions are not raised.

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
            future.exception()  # mark as retrieved, or asyncio reports it as lost
    return not pending


async def end(
    *tasks: asyncio.Task[Any],
    within: float,
    name: str = "",
    cancelled: bool = False,
    insist: bool = False,
) -> bool:
    """Cancel tasks and wait until they have ended. Their exceptions are not raised. A task that does
    not end is left behind, and logged as an error.

    Args:
        within: seconds.
        name: names the tasks in the log; their own names by default.
        cancelled: the tasks have been cancelled already. A second cancellation right away would
            interrupt their clean-up.
        insist: cancel again half-way, for tasks that swallow a cancellation or clean up without end.

    Returns:
        Whether all tasks have ended.
    """
    if not cancelled:
        for task in tasks:
            if not task.done():
                task.cancel()
    pending = {task for task in tasks if not task.done()}
    if pending and insist:
        within /= 2
        _, pending = await asyncio.wait(pending, timeout=within)
        for task in pending:
            task.cancel()
    if pending:
        _, pending = await asyncio.wait(pending, timeout=within)
    for task in tasks:
        if task.done() and not task.cancelled():
            task.exception()  # mark as retrieved, or asyncio reports it as lost
    for task in pending:
        logger.error(
            "%s did not end within %g s of being cancelled; it was left behind",
            name or task.get_name(),
            within * (2 if insist else 1),
        )
    return not pending


class Alarm:
    """Calls `ring` when the time that `due` returns has passed. Needs only one timer, even if the time
    changes often, because it calls `due` only when the timer fires.

    While the event loop is blocked (by a blocking call, or a suspended process or machine), no answer
    can arrive. So the alarm checks several times before its time, and reports to `stalled` by how many
    seconds a check was late. Before it rings, it lets the loop process waiting data.

    Args:
        due: returns the loop time at which to ring; infinite for never.
        ring: called once, unless `stop` or `arm` comes first.
        stalled: called with the number of seconds for which the loop was blocked.
        interval: maximum seconds between two checks, for a `due` that may change to an earlier time.
    """

    __slots__ = (
        "_at",
        "_due",
        "_handle",
        "_interval",
        "_loop",
        "_moment",
        "_ring",
        "_stalled",
        "_turns",
    )

    def __init__(
        self,
        due: Callable[[], float],
        ring: Callable[[], None] | None,
        *,
        stalled: Callable[[float], None] | None = None,
        interval: float = math.inf,
    ) -> None:
        self._loop = asyncio.get_running_loop()
        self._due = due
        self._ring = ring
        self._stalled = stalled
        self._interval = interval
        self._handle: asyncio.Handle | None = None
        self._at = math.inf
        self._moment = math.inf
        """The last known time at which to ring."""
        self._turns = 0

    def arm(self, due: float | None = None) -> None:
        """Start waiting for the time `due`; by default, the time that the function `due` returns."""
        if self._handle is not None:
            self._handle.cancel()
            self._handle = None
        self._moment = self._due() if due is None else due
        self._wait(self._moment)

    def stop(self) -> None:
        if self._handle is not None:
            self._handle.cancel()
            self._handle = None

    def _wait(self, due: float) -> None:
        self._turns = 0
        now = self._loop.time()
        left = due - now
        step = left if left <= _SHORTEST_LOOK else max(_SHORTEST_LOOK, left / 8)
        if step > self._interval:
            step = self._interval
        if step < math.inf:
            self._at = now + step
            self._handle = self._loop.call_at(self._at, self._look)

    def _look(self) -> None:
        self._handle = None
        now = self._loop.time()
        if now - self._at > _LATE and self._stalled is not None:
            self._stalled(now - self._at)
        if now < self._moment:
            self._moment = self._due()
        if now < self._moment:
            self._wait(self._moment)
        elif self._turns < _LOOP_TURNS:
            self._turns += 1
            self._at = now  # the loop can be blocked between these checks, too
            self._handle = self._loop.call_soon(self._look)
        else:
            self._moment = self._due()
            if now < self._moment:
                self._wait(self._moment)
            else:
                self._rings()

    def _rings(self) -> None:
        if self._ring is not None:
            self._ring()


class Deadline(Alarm):
    """Cancels the current task at a time that may change; see `Alarm` for the arguments.

    Like `asyncio.timeout`, but a task that does not end is cancelled a second time; then `abandon` is
    called, with a third cancellation for a task that checks whether its result is still needed. `first`
    is the present result of `due`, and `task` the current task, if they are known.
    """

    __slots__ = ("_abandon", "_cancelling", "_cancels", "_insist", "_task")

    def __init__(
        self,
        due: Callable[[], float],
        *,
        stalled: Callable[[float], None] | None = None,
        interval: float = math.inf,
        abandon: Callable[[], None] | None = None,
        insist: float = 0.5,
        first: float | None = None,
        task: asyncio.Task[Any] | None = None,
    ) -> None:
        super().__init__(due, None, stalled=stalled, interval=interval)
        if task is None:
            task = asyncio.current_task()
        if task is None:
            raise RuntimeError("a deadline needs a task to cancel")
        self._task = task
        self._cancelling = task.cancelling()
        self._cancels = 0
        self._abandon = abandon
        self._insist = insist
        self._moment = due() if first is None else first
        self._wait(self._moment)

    @property
    def passed(self) -> bool:
        """Whether the deadline has cancelled the task."""
        return self._cancels > 0

    def end(self) -> bool:
        """Stop. Returns whether only the deadline has cancelled the task."""
        if self._handle is not None:
            self._handle.cancel()
            self._handle = None
        if not self._cancels:
            return False
        cancels, self._cancels = self._cancels, 0
        for _ in range(cancels):  # undo only the cancellations made here
            self._task.uncancel()
        return self._task.cancelling() <= self._cancelling

    def _rings(self) -> None:
        self._handle = None
        if self._cancels < 2:
            self._handle = self._loop.call_later(self._insist, self._rings)
        elif self._abandon is not None:
            self._abandon()
        self._cancels += 1
        self._task.cancel()


class within:  # noqa: N801  used as `async with within(2.0):`
    """Raises `TimeoutError` if the body takes longer than `seconds`, like `asyncio.timeout`, but without
    counting the time in which the event loop was blocked."""

    __slots__ = ("_at", "_deadline", "_seconds")

    def __init__(self, seconds: float | None) -> None:
        self._seconds = seconds
        self._at = math.inf
        self._deadline: Deadline | None = None

    async def __aenter__(self) -> Self:
        if self._seconds is not None and self._seconds < math.inf:
            self._at = asyncio.get_running_loop().time() + self._seconds
            self._deadline = Deadline(self._due, stalled=self._stand_still)
        return self

    def renew(self, seconds: float) -> None:
        """Give the body `seconds` from now on, but never less than it had left."""
        self._at = asyncio.get_running_loop().time() + seconds

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        exc_tb: TracebackType | None,
    ) -> None:
        deadline, self._deadline = self._deadline, None
        if deadline is not None and deadline.end() and isinstance(exc, asyncio.CancelledError):
            raise TimeoutError from exc

    def _due(self) -> float:
        return self._at

    def _stand_still(self, seconds: float) -> None:
        self._at += seconds


async def unfinished(futures: Iterable[asyncio.Future[Any]], seconds: float) -> list[Any]:
    """Wait until all are done. Returns those that are not after `seconds`, not counting the time in which
    the event loop was blocked. Cancels nothing."""
    waiting = list(futures)
    with contextlib.suppress(TimeoutError):
        async with within(seconds):
            await asyncio.wait(waiting)
    return [future for future in waiting if not future.done()]


async def in_thread(
    work: Callable[[], T], *, name: str, abandon: Callable[[T], object] | None = None
) -> T:
    """Run `work()` in a new daemon thread, in the context of the caller, and return its result.

    It does not use the loop's shared thread pool, where urgent work could wait behind slow work of other
    code, and whose shutdown would wait for it.

    If the waiter is cancelled, the work still runs to its end, and `abandon` gets its result, even in a
    thread.
    """
    loop = asyncio.get_running_loop()
    context = contextvars.copy_context()
    # Errors are passed as values, because a future refuses StopIteration and would never be done.
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
        except RuntimeError:  # the loop is closed, so nothing waits for the result
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
