"""A simulated realtime service: holds conversations, and misbehaves on command. Uses no network.

It implements OpenAI's protocol, in the generally available or the beta form, or Google's (see
`rejoinder.testing.GeminiConnection`). Each connection keeps a
conversation of its own, and refuses what the real service refuses: an unknown anchor, a second reply
beside a running one, a truncation beyond the sound that was sent.

`rejoinder.testing.realtime_server` puts it on the loopback interface, `ScriptedRealtimeModel` uses it
without any network.
"""

from __future__ import annotations

import asyncio
import json
import math
from collections import deque
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Any, ClassVar, Final, cast

from rejoinder._options import FUNCTION, SECONDS, Rule, check, checked, instance
from rejoinder.errors import APIStatusError
from rejoinder.testing.memory_socket import MemorySocket, MemoryTransport, Peer
from rejoinder.testing.realtime_connection import Handler, RealtimeConnection, ServerReply
from rejoinder.testing.realtime_faults import RealtimeFault, Stage
from rejoinder.testing.realtime_playing import SessionPlayer
from rejoinder.testing.realtime_recording import SessionRecording
from rejoinder.transport.ws import SocketRequest, WireFrame

__all__ = ["RealtimeService"]

_STATUS: Final = Rule(
    "an HTTP status from 300 to 599",
    lambda value: isinstance(value, int) and not isinstance(value, bool),
    lambda status: 300 <= status < 600,
)
_CONNECTION: Final = Rule(
    "RealtimeConnection or a subclass of it",
    lambda value: isinstance(value, type) and issubclass(value, RealtimeConnection),
)


class RealtimeService:
    """Holds the conversations of any number of connections.

    Args:
        beta: use the beta form of the protocol.
        on_event: called with each event of a client before it is handled.
        on_connect: called when a connection is open; by default it is greeted by
            ``session.created``.
        refuse: an HTTP status with which connections are refused.
        connection: the protocol of each connection, by default OpenAI's;
            `rejoinder.testing.GeminiConnection` speaks Google's.

    Attributes:
        connections: all connections, in their order.
        players: the recordings that were begun.
    """

    observers: ClassVar[list[Callable[[RealtimeConnection, dict[str, Any]], None]]] = []
    """Called with each event of a client before it is handled: for checks that a whole test run
    shares."""

    @checked(
        refuse=_STATUS.optional,
        connection=_CONNECTION,
        on_event=FUNCTION.optional,
        on_connect=FUNCTION.optional,
    )
    def __init__(
        self,
        *,
        beta: bool = False,
        on_event: Handler | None = None,
        on_connect: Callable[[RealtimeConnection], Awaitable[None]] | None = None,
        refuse: int | None = None,
        connection: type[RealtimeConnection] = RealtimeConnection,
    ) -> None:
        self._make = connection
        self.beta = beta
        self.on_event = on_event
        self.on_connect = on_connect
        self.refuse = refuse
        self.connections: list[RealtimeConnection] = []
        self.handles: dict[str, Any] = {}
        self._script: list[ServerReply | RealtimeFault] = []
        self._recordings: deque[tuple[SessionRecording, float]] = deque()
        self.players: list[SessionPlayer] = []
        self._changed = asyncio.Event()
        self._tasks: set[asyncio.Task[None]] = set()

    # -- the script --------------------------------------------------------------------------------

    @checked()
    def say(self, text: str, **options: Any) -> None:
        """The next reply speaks `text`, word by word. `options`: fields of a `ServerReply`."""
        words = text.split(" ")
        pieces = [word + " " for word in words[:-1]] + words[-1:]
        self.reply(ServerReply(pieces, **options))

    def reply(self, *replies: ServerReply) -> None:
        """The next replies."""
        for reply in replies:
            _REPLY.check("replies", reply)
        self._script.extend(replies)

    def fault(self, *faults: RealtimeFault) -> None:
        """Queue faults behind the replies queued so far. Each fault applies to the next connection,
        or to the next request, once it is first in the queue."""
        for fault in faults:
            _FAULT.check("faults", fault)
        self._script.extend(faults)

    def play(self, recording: SessionRecording, *, speed: float = math.inf) -> None:
        """The next connection plays a recording.

        Args:
            speed: 1.0 keeps the recorded timing; by default as fast as the client responds.
        """
        check("play", recording=(recording, _RECORDING), speed=(speed, SECONDS))
        self._recordings.append((recording, speed))

    def next_reply(self) -> ServerReply:
        """The next reply; ``Hello.`` if none is queued."""
        for step in self._script:
            if isinstance(step, ServerReply):
                self._script.remove(step)
                return step
        return ServerReply(["Hello."])

    def next_fault(self, stage: Stage) -> RealtimeFault | None:
        """The current fault."""
        for place, step in enumerate(self._script):
            if isinstance(step, RealtimeFault) and step.stage is stage:
                return cast("RealtimeFault", self._script.pop(place))
            if stage is Stage.CONNECT or isinstance(step, ServerReply):
                return None
        return None

    @property
    def unused(self) -> int:
        """The unused replies, faults and recordings."""
        return len(self._script) + len(self._recordings)

    def asked(self, connection: RealtimeConnection, response: dict[str, Any]) -> None:
        """Called for each request for a reply; a hook for subclasses."""

    @checked()
    async def until(self, condition: Callable[[], object]) -> None:
        """Wait until `condition` holds. It is checked whenever a client has sent something."""
        while not condition():
            self._changed.clear()
            await self._changed.wait()

    # -- connections -------------------------------------------------------------------------------

    def transport(self) -> MemoryTransport:
        """Connections to this service without a network, for the keyword ``transport`` of a model.
        Deadlines then use the loop's clock, which tests can advance."""
        return MemoryTransport(self._serve_memory, self._admit)

    def status(self) -> int | None:
        """The HTTP status with which the next connection is refused."""
        if self.refuse is not None:
            return self.refuse
        first = self._script[0] if self._script else None
        if isinstance(first, RealtimeFault) and first in _REFUSALS:
            del self._script[0]
            return _REFUSALS[first]
        return None

    def _admit(self, request: SocketRequest) -> None:
        status = self.status()
        if status is not None:
            raise APIStatusError(
                f"{request!r}: the server refused the WebSocket with status {status}",
                status_code=status,
            )

    async def _serve_memory(self, socket: MemorySocket, _: SocketRequest) -> None:
        connection = await self.open(socket.peer)
        try:
            while (frame := await socket.sent.get()) is not None:
                if connection.asleep:
                    socket.peer.mute = True
                    await asyncio.get_running_loop().create_future()
                await self.receive(connection, frame)
        finally:
            self.end(connection)

    async def open(self, peer: Peer) -> RealtimeConnection:
        """A connection is open."""
        connection = self._make(self, peer, len(self.connections) + 1)
        self.connections.append(connection)
        fault = self.next_fault(Stage.CONNECT)
        if fault is not None:
            await self._spoil(connection, fault)
        elif self._recordings:
            recording, speed = self._recordings.popleft()
            player = SessionPlayer(recording, speed=speed)
            self.players.append(player)
            connection.player = player
            self.keep(asyncio.create_task(player.play(connection.send_raw, connection.close)))
        elif self.on_connect is not None:
            await self.on_connect(connection)
        else:
            await connection.greet()
        self._changed.set()
        return connection

    async def _spoil(self, connection: RealtimeConnection, fault: RealtimeFault) -> None:
        match fault:
            case RealtimeFault.NEVER_READY:
                connection.fall_asleep()
            case RealtimeFault.WRONG_MODEL:
                await connection.close(1008, 'Model "any" is not supported in realtime mode.')
            case RealtimeFault.NO_CREDIT:
                await connection.error(
                    "You exceeded your current quota.", code="insufficient_quota"
                )
            case _:
                await connection.close(1011, "internal error")

    async def receive(self, connection: RealtimeConnection, frame: WireFrame) -> None:
        """A frame of a client."""
        if connection.player is not None:
            connection.player.hear(frame)
            self._changed.set()
            return
        try:
            event: object = json.loads(frame)
        except ValueError:
            await connection.error("The frame is not JSON.")
            return
        if not isinstance(event, dict):
            await connection.error("The frame is not an object.")
            return
        fields = cast("dict[str, Any]", event)
        for observer in self.observers:
            observer(connection, fields)
        connection.note(fields)
        if not await self._intercepted(connection, fields):
            await connection.handle(fields)
        self._changed.set()

    def end(self, connection: RealtimeConnection) -> None:
        """A connection has ended."""
        running = connection.running
        if running is not None:
            running.task.cancel()
        self._changed.set()

    def keep(self, task: asyncio.Task[None]) -> None:
        """Keep a reference to a task until it ends."""
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def aclose(self) -> None:
        """End all connections and tasks."""
        for connection in self.connections:
            self.end(connection)
            await connection.close()
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        with suppress(asyncio.CancelledError):
            await asyncio.gather(*tasks, return_exceptions=True)

    async def _intercepted(self, connection: RealtimeConnection, event: dict[str, Any]) -> bool:
        if self.on_event is None:
            return False
        handled = self.on_event(connection, event)
        return handled if isinstance(handled, bool) else await handled


_RECORDING: Final = instance(SessionRecording, expected="a SessionRecording")
_REPLY: Final = instance(ServerReply, expected="a ServerReply")
_FAULT: Final = instance(RealtimeFault, expected="a RealtimeFault")
_REFUSALS: Final[dict[RealtimeFault, int]] = {
    RealtimeFault.REFUSE_401: 401,
    RealtimeFault.REFUSE_404: 404,
    RealtimeFault.REFUSE_429: 429,
    RealtimeFault.REFUSE_503: 503,
}
