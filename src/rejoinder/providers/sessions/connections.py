"""The connections of one session: the current one, the next one, and the time of the swap.

A failed connection is replaced, with back-off and a limit on retries. A connection that grows old,
or whose end the service announces, is replaced in advance: the next one is opened beside it,
receives settings and history, and takes over as soon as no turn would be interrupted.

If the service has issued a handle, the next connection resumes the session instead. Services refuse
to resume while the older connection is open, so the older one is closed first, even between turns,
and the user's sound is buffered meanwhile. A refused handle is discarded: the next connection
begins a new session and receives the history.
"""

from __future__ import annotations

import asyncio
import logging
import math
import random
from collections.abc import Awaitable, Callable
from typing import Final, Protocol

import msgspec

from rejoinder import _aio
from rejoinder._core import retry
from rejoinder._core.realtime import messages as m
from rejoinder._secrets import forget_frames
from rejoinder.errors import APIConnectionError, APIError, APIStatusError, ConfigurationError
from rejoinder.providers.sessions.link import Handle, Link, describe_end
from rejoinder.transport.ws import Closed, WebSocket
from rejoinder.types import APIConnectOptions

__all__ = ["Connections", "Owner"]

logger = logging.getLogger("rejoinder")

_DOUBT: Final = 5.0
"""Seconds within which a service that did not begin a reply must show a sign of life."""
_GOOD_LIFE: Final = 10.0
"""Seconds after which a connection counts as good, even if it carried no reply. The next failure
then starts a new count of retries."""
_FURNISH_TIMEOUT: Final = 10.0
"""Seconds that a service may take to confirm the history of a new connection."""
_FORCE_AFTER: Final = 60.0
"""Seconds that a replacement because of age waits for the end of a turn."""
_RETRY_SWAP: Final = 5.0
"""Seconds before a failed replacement is retried."""
_HANG_UP: Final = 0.3
"""Seconds to wait for a connection to close before its session is resumed on another one."""
_BEFORE_END: Final = 60.0
"""Seconds before the end of a session that the service named at its beginning; for short sessions
half of their time."""
_MOST_LEAVING: Final = 8
"""Connections in a row that are replaced because the service announces their end as they begin."""
_MARGIN: Final = 2.0
"""Seconds before an announced end at which a replacement stops waiting for the turn."""


class Owner(Protocol):
    """The session, as its connections see it."""

    def settings_now(self) -> tuple[int, m.UpdateSession]:
        """The settings, and their version."""
        ...

    def with_history(self, link: Link, settings: m.UpdateSession) -> m.UpdateSession:
        """The settings with the history, if the service takes it only with them."""
        ...

    def give_history(self, link: Link) -> list[asyncio.Future[None]]: ...

    def received(self, link: Link, event: m.Event) -> None: ...

    def saw(self, frame: m.Frame) -> None:
        """Called with each raw frame of the service."""
        ...

    def may_swap(self) -> bool:
        """Whether a swap now would interrupt no turn."""
        ...

    def installed(self, link: Link, *, again: bool) -> None:
        """Called when `link` comes into use."""
        ...

    def lost(self, link: Link) -> None:
        """Called when `link` is no longer in use."""
        ...

    def report(self, error: APIError) -> None:
        """Report a failure after which the session continues."""
        ...

    def failed(self, error: APIError) -> None:
        """End the session because of this failure."""
        ...


class Connections:
    """Keeps one connection in use.

    Args:
        owner: the session.
        dial: opens a socket.
        make_protocol: makes the protocol object of one connection.
        options: timeout and retries of connecting.
        max_duration: age in seconds at which a new session replaces this one.
        silence: seconds without any event after which a service counts as dead.
        standby: seconds that a connection may stay unused before it is replaced.
        pong: seconds that a healthy service may take to answer a probe.
        resume: handle of a session to continue.
    """

    def __init__(
        self,
        owner: Owner,
        *,
        dial: Callable[[], Awaitable[WebSocket]],
        make_protocol: Callable[[], m.RealtimeProtocol],
        options: APIConnectOptions,
        max_duration: float | None,
        silence: float,
        standby: float | None,
        pong: float = 0.0,
        resume: str | None = None,
    ) -> None:
        self._owner = owner
        self._dial = dial
        self._make_protocol = make_protocol
        self._options = options
        self._max_duration = math.inf if max_duration is None else max_duration
        self._silence = silence
        self._standby = math.inf if standby is None else standby
        self._pong = pong
        self._limit = max(silence, silence / 2 + pong)
        self._loop = asyncio.get_running_loop()
        self._began = self._loop.time()
        self._handle = None if resume is None else Handle(resume, frozenset())
        self._reached = False
        self._retiring = False
        self._leaving = 0
        self._deciding = False
        self._anew = False
        self._link: Link | None = None
        self._next: Link | None = None
        self._swap_at = math.inf
        self._force_at = math.inf
        self._over = False
        self._waiting: list[asyncio.Future[None]] = []
        self._swapping: asyncio.Task[None] | None = None
        self._closings: set[asyncio.Task[None]] = set()
        self._main = self._loop.create_task(self._supervise(), name="realtime session")

    @property
    def link(self) -> Link | None:
        """The connection in use, if it is open."""
        link = self._link
        return None if link is None or link.closed.done() else link

    async def connected(self) -> None:
        """Wait until a connection is in use, or until no more will be opened."""
        while self.link is None and not self._over:
            waiter: asyncio.Future[None] = self._loop.create_future()
            self._waiting.append(waiter)
            await waiter

    def _tell_waiting(self) -> None:
        waiting, self._waiting = self._waiting, []
        for waiter in waiting:
            if not waiter.done():
                waiter.set_result(None)

    # -- time --------------------------------------------------------------------------------

    def due(self, uplink_at: float) -> float:
        """When `tick` is due."""
        due = self._swap_at
        if self._next is not None or self._retiring:
            due = min(due, self._force_at)
        if self._next is not None:
            due = min(due, self._next.opened_at + self._standby)
        link = self.link
        if link is not None:
            due = min(due, self._look_at(link, uplink_at))
        return due

    def tick(self, now: float, uplink_at: float) -> None:
        """Handle what is due. `uplink_at`: when sound was sent last."""
        if self._over:
            return
        if now >= self._swap_at:
            self._swap_at = math.inf
            self.renew(anew=True)
        following = self._next
        if following is not None and now >= following.opened_at + self._standby:
            self._next = None
            self._close_soon(following)
            self._start_swap()
        self.swap_if_due()
        link = self.link
        if link is None:
            return
        asked = link.probed_at > link.heard_at
        link.doubted = link.doubted and asked
        if now < self._look_at(link, uplink_at):
            return
        if asked:
            quiet = now - max(link.heard_at, link.opened_at)
            link.abort(f"the service sent nothing for {quiet:.0f} s and did not answer a probe")
        else:
            link.probed_at = now
            link.probe()

    def _look_at(self, link: Link, uplink_at: float) -> float:
        """When a silent service is probed, or declared dead."""
        heard = max(link.heard_at, link.opened_at)
        asked = link.probed_at > link.heard_at
        due = heard + self._silence / 2
        if asked:  # later than planned, if the loop was blocked; the answer has the same time
            due = max(due, link.probed_at) + self._limit - self._silence / 2
        if due - uplink_at >= self._silence:
            due = math.inf  # no sound is sent, so the service has nothing to answer
        if asked and link.doubted:
            due = min(due, link.probed_at + _DOUBT + self._pong)
        return due

    def excuse(self, seconds: float) -> None:
        """Subtract the time that the event loop was blocked from the service's silence."""
        link = self.link
        if link is not None and link.probed_at > link.heard_at:
            link.probed_at += seconds

    def doubt(self, since: float) -> None:
        """The reply requested at `since` did not begin, and nothing else arrived: probe the service
        with a shorter deadline, so that the next request does not get lost on a dead connection
        too."""
        link = self.link
        if link is not None and link.heard_at <= since and not link.doubted:
            link.doubted = True
            link.probed_at = self._loop.time()
            link.probe()

    def renew(self, *, anew: bool = False) -> None:
        """Replace the connection in use between two turns. `anew`: begin a new session instead of
        resuming this one."""
        if anew:
            self._anew = True
            self._handle = None
        self._start_swap()

    def resumable(self, handle: Handle) -> None:
        """The newest handle from the service, with which another connection can resume the
        session."""
        if not self._anew:
            self._handle = handle

    @property
    def handle(self) -> str | None:
        """The handle that would be used now."""
        return None if self._handle is None else self._handle.token

    def ending_in(self, seconds: float) -> None:
        """The service will end the connection in use."""
        link = self.link
        if link is None or link.leaving:
            return
        link.leaving = True
        young = not link.served and self._loop.time() - link.opened_at < _GOOD_LIFE
        self._leaving = self._leaving + 1 if young else 0
        if self._leaving >= _MOST_LEAVING:
            if self._leaving == _MOST_LEAVING:
                self._owner.report(
                    APIConnectionError(
                        f"the service announced the end of {_MOST_LEAVING} connections in a row as "
                        "they began; the next one is used until it ends"
                    )
                )
            return
        end = self._loop.time() + max(0.0, seconds - _MARGIN)
        self._force_at = min(self._force_at, end)
        self._start_swap()

    # -- the one in use ----------------------------------------------------------------------

    async def _supervise(self) -> None:
        failures = 0
        while not self._over:
            try:
                link = self._next or await self._open(self._handle)
            except APIError as error:
                if self._handle is not None and self._reached:
                    logger.info("the session cannot be resumed; starting a new one: %s", error)
                    self._handle = None
                    continue
                decision = retry.after(
                    failures,
                    error,
                    committed=False,
                    options=self._options,
                    now=self._loop.time(),
                    deadline=None,
                    jitter=random.random(),  # noqa: S311  jitter for retries, not a secret
                )
                if isinstance(decision, retry.GiveUp):
                    self._owner.failed(error)
                    return
                self._owner.report(error)
                failures += 1
                await asyncio.sleep(decision.delay)
                continue
            except ConfigurationError as error:
                self._owner.failed(APIStatusError(str(error), retryable=False))
                return
            except Exception as error:  # from a transport, or from a function that returns the key
                logger.exception("no connection can be made")
                message = f"no connection can be made: {type(error).__name__}: {error}"
                self._owner.failed(APIError(message, retryable=False))
                return
            self._install(link)
            lost, how = await self._watch()
            if self._over:
                return
            good = not lost.flooded and (
                lost.retired or lost.served or self._loop.time() - lost.opened_at >= _GOOD_LIFE
            )
            failures = 0 if good else failures + 1
            if lost.resumed and not good:
                self._handle = None  # the handle may be the cause
            verdict = lost.protocol.closed(how.code, how.reason)
            self._owner.lost(lost)
            closing = self._close_soon(lost)
            if lost.retired:
                await asyncio.wait([closing], timeout=_HANG_UP)
                continue
            if verdict is not None and verdict.fatal:
                self._owner.failed(verdict.error)
                return
            error = verdict.error if verdict is not None else APIConnectionError(describe_end(how))
            if failures > self._options.max_retry:
                self._owner.failed(error)
                return
            self._owner.report(error)
            if failures:
                # Back off if the service accepts connections and closes them at once.
                await asyncio.sleep(self._options._interval_for_retry(failures - 1))

    async def _watch(self) -> tuple[Link, Closed]:
        """The current connection and how it ended. Connections that were replaced do not count."""
        while True:
            link = self._link
            assert link is not None  # noqa: S101  installed before, and never taken out
            how = await asyncio.shield(link.closed)
            if self._link is link:
                return link, how

    async def _open(self, handle: Handle | None = None) -> Link:
        """Open a connection and send it settings and history. With `handle` it resumes a session.

        Raises:
            APIError: the connection failed.
        """
        began = self._loop.time()
        self._reached = False
        protocol = self._make_protocol()
        link = Link(await self._socket(), protocol, self._received, self._owner.saw)
        self._reached = True
        try:
            link.version, settings = self._owner.settings_now()
            if handle is not None:
                settings = msgspec.structs.replace(settings, resume=handle.token)
            link.send_frames(protocol.open(self._owner.with_history(link, settings)))
            timeout = self._options.connect_timeout or 10.0
            try:
                async with _aio.within(timeout):
                    await asyncio.shield(link.ready)
            except TimeoutError:
                raise APIConnectionError(
                    f"the service did not accept the session within {timeout:g} s"
                ) from None
            except APIConnectionError:
                how = link.closed.result() if link.closed.done() else Closed(None)
                verdict = protocol.closed(how.code, how.reason)
                if verdict is not None and verdict.fatal:
                    raise verdict.error from None
                raise
            if handle is not None:
                link.resumed = True
                link.known |= handle.known
            while missing := self._owner.give_history(link):
                late = await _aio.unfinished(missing, _FURNISH_TIMEOUT)
                if link.closed.done():
                    raise APIConnectionError(describe_end(link.closed.result()))
                if late:
                    raise APIConnectionError(
                        f"the service did not confirm {len(late)} items of the history within "
                        f"{_FURNISH_TIMEOUT:g} s"
                    )
            if handle is not None and link.untold:
                raise APIConnectionError(
                    f"the session lacks {len(link.untold)} items of the history and accepts none now"
                )
        except BaseException:
            self._close_soon(link)
            raise
        link.acquire_time = self._loop.time() - began
        return link

    async def _socket(self) -> WebSocket:
        """Open a socket. Frames of the dialling code hold keys as local variables, so our own
        errors are raised without those frames. Other errors come from the caller's code."""
        try:
            return await self._dial()
        except (APIError, ConfigurationError, asyncio.CancelledError) as error:
            forget_frames(error)
            raise

    def _received(self, link: Link, event: m.Event) -> None:
        if isinstance(event, m.SessionReady):
            if event.lasts is not None:
                link.lasts = event.lasts
            if not link.ready.done():
                link.ready.set_result(None)
        elif isinstance(event, m.SessionEnded):
            link.abort(event.reason)
        elif isinstance(event, m.ServiceFailed) and not link.ready.done():
            event.error.retryable = event.error.retryable and not event.fatal
            link.ready.set_exception(event.error)
            link.ready.exception()
        else:
            self._owner.received(link, event)

    def _install(self, link: Link) -> None:
        previous = self.link
        again = self._link is not None
        following, self._next = self._next, None
        if following is not None and following is not link:
            self._close_soon(following)  # two were opened: to replace the last, and after its end
        self._link = link
        self._force_at = math.inf
        self._retiring = False
        if not link.resumed:
            self._began = self._loop.time()
            self._anew = False
            self._handle = None
        lasts = max(link.lasts - _BEFORE_END, link.lasts / 2)
        self._swap_at = self._began + min(self._max_duration, lasts)
        if previous is not None:
            self._owner.lost(previous)
            self._close_soon(previous)
        self._owner.installed(link, again=again)
        self._tell_waiting()

    # -- the next one ------------------------------------------------------------------------

    def _start_swap(self) -> None:
        running = self._swapping is not None and not self._swapping.done()
        if running or self._next is not None or self._over:
            return
        if self._handle is not None and self.link is not None:
            self._retiring = True
            self._force_at = min(self._force_at, self._loop.time() + _FORCE_AFTER)
            self.swap_if_due()
        else:
            self._swapping = self._loop.create_task(self._swap(), name="realtime swap")

    async def _swap(self) -> None:
        try:
            link = await self._open()
        except (APIError, ConfigurationError) as error:
            if isinstance(error, APIError):
                self._owner.report(error)
            self._swap_at = self._loop.time() + _RETRY_SWAP
            return
        if self._over or self._next is not None:
            self._close_soon(link)
            return
        self._next = link
        self._force_at = min(self._force_at, self._loop.time() + _FORCE_AFTER)
        self.swap_if_due()

    def swap_if_due(self) -> None:
        """Switch to the next connection if it is ready and no turn would be interrupted. Called
        after all events of a frame have been handled, because one frame may end a turn and begin
        another."""
        if (self._next is not None or self._retiring) and not self._deciding:
            self._deciding = True
            self._loop.call_soon(self._decide_swap)

    def _decide_swap(self) -> None:
        self._deciding = False
        following, link = self._next, self.link
        if self._over or link is None:
            return  # if the current one has ended, the supervisor takes the next one
        if self._retiring and following is None:
            if self._loop.time() >= self._force_at or self._owner.may_swap():
                self._retiring = False
                if self._handle is None:
                    self._start_swap()
                else:
                    link.retire()
            return
        if following is None:
            return
        if following.closed.done():
            self._next = None
            self._close_soon(following)
            self._swap_at = self._loop.time()
        elif self._loop.time() >= self._force_at or self._owner.may_swap():
            self._install(following)

    # -- the end -----------------------------------------------------------------------------

    def stop(self) -> None:
        """Open no more connections and close the existing ones, in the background."""
        self._over = True
        self._tell_waiting()
        for link in (self._link, self._next):
            if link is not None:
                self._close_soon(link)

    async def aclose(self) -> None:
        """Close everything, within about a second. Never raises."""
        self.stop()
        current = asyncio.current_task()
        tasks = [task for task in (self._main, self._swapping) if task is not None]
        await _aio.end(
            *(task for task in tasks if task is not current),
            within=0.5,
            name="realtime session",
        )
        # Only now, as a task that was opening a connection has just begun to close it. Unlike
        # `gather`, `wait` leaves them running if the caller gives up.
        if self._closings:
            await asyncio.wait(self._closings)

    def _close_soon(self, link: Link) -> asyncio.Task[None]:
        task = self._loop.create_task(link.aclose(), name="realtime close")
        self._closings.add(task)
        task.add_done_callback(self._closings.discard)
        return task
