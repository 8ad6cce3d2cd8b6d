"""One connection of a session: its socket, its protocol and its unconfirmed changes."""

from __future__ import annotations

import asyncio
import logging
import math
from collections.abc import Callable, Iterable, Sequence
from typing import Final

import msgspec

from rejoinder import _aio
from rejoinder._core.items import ChatItem
from rejoinder._core.json_values import MAX_VALUES, SLICE, ValueCounter, may_be_crowded
from rejoinder._core.realtime.messages import (
    AudioDelta,
    Command,
    Event,
    Frame,
    RealtimeProtocol,
    ReplyStarted,
    ServiceFailed,
    SoundMade,
    SpeechStarted,
    TextDelta,
)
from rejoinder.errors import APIConnectionError, WireError
from rejoinder.transport.flood import Flood
from rejoinder.transport.ws import Closed, WebSocket

__all__ = ["Handle", "Link", "PendingItem", "describe_end"]

logger = logging.getLogger("rejoinder")

_FRAMES_BETWEEN_TURNS: Final = 64
"""Frames handled before yielding to the event loop, so that a burst does not block it."""
_MOST_TURNS: Final = 1000
"""Beginnings of replies and of speech that a service may report in one stretch of ten seconds."""
_MOST_FRAMES: Final = 20_000
"""Frames without sound and text, in the same time."""
_READ_AFTER: Final = 1.0
"""Seconds after which a sent item counts as read, for services that do not acknowledge items."""
_FAREWELL_TIMEOUT: Final = 0.3
"""Seconds allowed for sending the last frames of a connection."""


class Handle(msgspec.Struct, frozen=True):
    """A point from which another connection can resume a session.

    Attributes:
        token: the value to send to the service.
        known: ids of the items that are part of it.
    """

    token: str
    known: frozenset[str]


class PendingItem(msgspec.Struct):
    """An item whose creation or removal the service has not confirmed."""

    done: asyncio.Future[None]
    item_id: str
    item: ChatItem | None
    """The item; ``None`` if it is being removed."""
    previous_id: str | None = None


class Link:
    """One open connection.

    Args:
        socket: the connection.
        protocol: its protocol object, used by no other connection.
        on_event: called with each event of the service. A `WireError` that it raises ends the
            connection.
        on_frame: called with each frame, before its events.

    Attributes:
        known: ids of the items that the service holds.
        given: the text of messages when they were created on it, by id.
        spoken: ids of the messages that the model made on it.
        rewritten: ids of messages whose old form the service is about to remove.
        pending: unconfirmed changes, by the reference of their command.
        ready: done when the service has accepted the session.
        closed: done when the connection has ended; its result is the reason.
        version: version of the settings that the service has received.
        served: it has carried a reply.
        doubted: a reply did not begin, and nothing has arrived since.
        stale: it holds an item that the conversation no longer has, and cannot remove it.
        untold: ids of items that it accepts only with or after the next request for a reply.
        unsure: sent items and their times, without proof yet that the service has read them.
        resumed: it resumed the session of an earlier connection.
        retired: closed by the client in order to resume its session on another connection.
        lasts: seconds from its beginning until the service ends the session; infinite if unknown.
        leaving: the service has announced its end.
        flooded: it has ended because of a flood.
        early: events that arrived before it was in use; ``None`` afterwards.
    """

    __slots__ = (
        "_draining",
        "_frames",
        "_idle",
        "_on_event",
        "_on_frame",
        "_outbox",
        "_ping",
        "_socket",
        "_tasks",
        "_turns",
        "_urgent",
        "_wake",
        "acquire_time",
        "closed",
        "doubted",
        "early",
        "flooded",
        "given",
        "known",
        "lasts",
        "leaving",
        "opened_at",
        "pending",
        "probed_at",
        "protocol",
        "ready",
        "resumed",
        "retired",
        "rewritten",
        "served",
        "spoken",
        "stale",
        "unsure",
        "untold",
        "version",
    )

    def __init__(
        self,
        socket: WebSocket,
        protocol: RealtimeProtocol,
        on_event: Callable[[Link, Event], None],
        on_frame: Callable[[Frame], None],
    ) -> None:
        loop = asyncio.get_running_loop()
        self.protocol = protocol
        self.known: set[str] = set()
        self.given: dict[str, str] = {}
        self.spoken: set[str] = set()
        self.rewritten: set[str] = set()
        self.pending: dict[str, PendingItem] = {}
        self.ready: asyncio.Future[None] = loop.create_future()
        self.closed: asyncio.Future[Closed] = loop.create_future()
        self.opened_at = loop.time()
        self.acquire_time = 0.0
        self.version = -1
        self.probed_at = 0.0
        self.doubted = False
        self.served = False
        self.stale = False
        self.untold: list[str] = []
        self.unsure: dict[str, float] = {}
        self.resumed = False
        self.retired = False
        self.lasts = math.inf
        self.leaving = False
        self.flooded = False
        self.early: list[Event] | None = []
        self._socket = socket
        self._on_event = on_event
        self._on_frame = on_frame
        self._outbox: list[Frame] = []  # an empty deque takes ten times the memory
        self._urgent: list[Frame] = []
        self._turns = Flood(_MOST_TURNS)
        self._frames = Flood(_MOST_FRAMES)
        self._ping = False
        self._wake: asyncio.Future[None] | None = None
        self._idle = False
        """All frames have been sent."""
        self._draining: asyncio.Future[None] | None = None
        self._tasks = (
            loop.create_task(self._read(), name="realtime reader"),
            loop.create_task(self._write(), name="realtime writer"),
        )

    @property
    def heard_at(self) -> float:
        """Loop time of the last sign of life of the service."""
        return self._socket.heard_at

    @property
    def backlog(self) -> int:
        """Frames that wait to be sent."""
        return len(self._outbox) + len(self._urgent)

    def told(self, item_ids: Iterable[str]) -> None:
        """Items were sent to a service that does not acknowledge them."""
        now = asyncio.get_running_loop().time()
        for item_id in item_ids:
            self.known.add(item_id)
            self.unsure[item_id] = now

    def send(self, command: Command, *, urgent: bool = False) -> bool:
        """Send a command. Return whether the protocol has frames for it.

        `urgent` commands overtake queued sound: an interrupt must not wait behind it.

        Raises:
            ConfigurationError: the service cannot take it.
        """
        frames = self.protocol.send(command)
        self.send_frames(frames, urgent=urgent)
        return bool(frames)

    def send_frames(self, frames: Sequence[Frame], *, urgent: bool = False) -> None:
        """Send frames of this protocol, in their order."""
        if not frames or self.closed.done():
            return
        (self._urgent if urgent else self._outbox).extend(frames)
        self._rouse()

    def probe(self) -> None:
        """Ask the peer for a sign of life."""
        frames = self.protocol.probe()
        if frames:
            self.send_frames(frames)
        elif not self.closed.done():
            self._ping = True
            self._rouse()

    async def _drained(self) -> None:
        """Wait until all frames have been sent."""
        while not self._idle and not self.closed.done():
            self._draining = asyncio.get_running_loop().create_future()
            await self._draining

    def _tell_drained(self) -> None:
        self._idle = True
        if self._draining is not None and not self._draining.done():
            self._draining.set_result(None)

    def _rouse(self) -> None:
        self._idle = False
        wake = self._wake
        if wake is not None and not wake.done():
            wake.set_result(None)

    def handle(self, token: str) -> Handle:
        """A handle that has just arrived. It may not cover items sent a moment ago that the service
        has not answered."""
        now = asyncio.get_running_loop().time()
        self.unsure = {i: at for i, at in self.unsure.items() if now - at < _READ_AFTER}
        return Handle(token, frozenset(self.known - self.unsure.keys()))

    def retire(self) -> None:
        """Close it, because its session is resumed on another connection."""
        self.retired = True
        self._ended(Closed(1000, "another connection continues the session"))

    def abort(self, reason: str) -> None:
        """Declare the connection dead."""
        self._ended(Closed(None, reason))

    async def aclose(self) -> None:
        """Close the connection and end its tasks, within about a second. Never raises."""
        whole = not self.closed.done()
        farewell = self.protocol.farewell() if whole else ()
        if farewell:
            self.send_frames(farewell)
            try:
                async with asyncio.timeout(_FAREWELL_TIMEOUT):
                    await self._drained()
            except TimeoutError:
                pass  # a peer that does not read cannot receive it
        self._ended(Closed(1000, "closed by this side"))
        await self._socket.aclose(1000 if whole else 1001)
        await _aio.end(*self._tasks, within=0.5, name="realtime connection")

    # -- tasks -------------------------------------------------------------------------------

    async def _read(self) -> None:
        receive = self._socket.receive
        handled = 0
        while True:
            frame = await receive()
            if self.flooded:
                return
            if isinstance(frame, Closed):
                self._ended(frame)
                return
            if may_be_crowded(frame) and await _is_crowded(frame):
                problem = f"a frame of {len(frame)} bytes holds more than {MAX_VALUES:,} values"
                self._handle(ServiceFailed(WireError(f"{problem}; it was not read")))
            else:
                self._receive(frame)
            # Waiting for the next frame must not keep this one and its sound in memory.
            del frame
            handled += 1
            if handled % _FRAMES_BETWEEN_TURNS == 0:
                await asyncio.sleep(0)

    def _receive(self, frame: Frame) -> None:
        self._on_frame(frame)
        events = self.protocol.receive(frame)
        self._count(events)
        for event in events:
            self._handle(event)

    def _count(self, events: Sequence[Event]) -> None:
        """End the connection at a flood. Sound and text have limits of their own."""
        if events and isinstance(events[-1], AudioDelta | SoundMade | TextDelta):
            return
        now = asyncio.get_running_loop().time()
        problem = ""
        if self._frames.one_more(now):
            problem = self._frames.told("frames without output")
        for event in events:
            if isinstance(event, ReplyStarted | SpeechStarted) and self._turns.one_more(now):
                problem = self._turns.told("turns")
        if problem:
            self.flooded = True
            self.abort(problem)

    def _handle(self, event: Event) -> None:
        try:
            self._on_event(self, event)
        except WireError as error:
            self._ended(Closed(None, error.message))
        except Exception:
            logger.exception(
                "an event of a realtime session could not be handled: %s", type(event).__name__
            )

    async def _write(self) -> None:
        outbox, urgent, send = self._outbox, self._urgent, self._socket.send
        loop = asyncio.get_running_loop()
        try:
            while True:
                while urgent or outbox:
                    await send(urgent.pop(0) if urgent else outbox.pop(0))
                if self._ping:
                    self._ping = False
                    await self._socket.ping()
                    continue
                self._tell_drained()
                self._wake = loop.create_future()
                await self._wake
        except APIConnectionError as error:
            self._ended(Closed(None, error.message))

    def _ended(self, how: Closed) -> None:
        if self.closed.done():
            return
        self.closed.set_result(how)
        self._outbox.clear()
        self._urgent.clear()
        self._tell_drained()
        if not self.ready.done():
            self.ready.set_exception(
                APIConnectionError(f"the connection ended before the session was ready{_told(how)}")
            )
            self.ready.exception()  # it may have been abandoned


async def _is_crowded(frame: Frame) -> bool:
    data = frame.encode("utf-8", "replace") if isinstance(frame, str) else frame
    counter = ValueCounter()
    for start in range(0, len(data), SLICE):
        counter.feed(data[start : start + SLICE])
        if counter.crowded:
            return True
        await asyncio.sleep(0)
    return False


def _told(how: Closed) -> str:
    code = "" if how.code is None else f" with code {how.code}"
    reason = f": {how.reason}" if how.reason else ""
    return f"{code}{reason}"


def describe_end(how: Closed) -> str:
    """The end of a connection, in words."""
    return f"the connection ended{_told(how)}"
