"""Plays the service's side of a recorded session: waits for the client's frames, and sends the
service's.

Ids differ between sessions. Ids that the client makes are taken from its current frames and
inserted into the service's frames. If a client sends no ids (some libraries leave that to the
service), it receives the recorded ids of the service.
"""

from __future__ import annotations

import asyncio
import json
import math
from collections import deque
from collections.abc import Awaitable, Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self, cast

from rejoinder._options import SECONDS, Rule, check
from rejoinder.errors import APIConnectionError
from rejoinder.testing.memory_socket import MemorySocket, MemoryTransport
from rejoinder.testing.realtime_recording import SessionEvent, SessionRecording, load_sessions
from rejoinder.testing.replaying import ReplayMismatchError
from rejoinder.transport.ws import SocketRequest, WireFrame

__all__ = ["ReplaySocketTransport", "SessionPlayer", "replay_sessions"]

_FLOWING: Final = frozenset({"input_audio_buffer.append", "realtimeInput", "realtime_input"})
"""Sound and pictures: the player does not wait for these frames, because their sizes vary."""
_ADDED: Final = frozenset({"conversation.item.added", "conversation.item.created"})
_SOURCE: Final = Rule(
    "the path of recordings, or a list of SessionRecording",
    lambda value: isinstance(value, str | Path | list | tuple),
    lambda value: (
        isinstance(value, str | Path)
        or all(isinstance(recording, SessionRecording) for recording in value)
    ),
)
_CLIENTS_IDS: Final = frozenset({"id", "event_id", "client_event_id"})


@dataclass(slots=True)
class _Entry:
    event: SessionEvent
    value: Any
    """The frame as a JSON object; ``None`` if it is not one."""

    @property
    def kind(self) -> str:
        return _kind(self.value)


class SessionPlayer:
    """One connection of a recording.

    Args:
        recording: the recording to play.
        speed: 1.0 keeps the recorded timing; by default as fast as the client responds.

    Attributes:
        unexpected: kinds of frames that the client sent and the recorded one did not.
    """

    def __init__(self, recording: SessionRecording, *, speed: float = math.inf) -> None:
        self.recording = recording
        self._speed = speed
        self._entries = _with_early_answers(
            [_Entry(event, _value(event.frame)) for event in recording.events]
        )
        self._place = 0
        self._spoke: deque[tuple[str, Any]] = deque()
        self._heard = asyncio.Event()
        self._names: dict[str, str] = {}
        self._made: deque[str] = deque()
        self._asked: deque[str] = deque()
        self._refs: dict[str, str] = {}
        self._seen: set[str] = set()
        self._own = any(
            "client_event_id" in (entry.event.frame or "")
            for entry in self._entries
            if entry.event.direction == "client" and isinstance(entry.event.frame, str)
        )

    @property
    def done(self) -> bool:
        """Whether the whole recording was played."""
        return self._place >= len(self._entries)

    @property
    def unexpected(self) -> list[str]:
        return [kind for kind, _ in self._spoke]

    @property
    def waits_for(self) -> str | None:
        """The kind of frame that the recorded client sent at this place."""
        if self.done or self._entries[self._place].event.direction == "server":
            return None
        return self._entries[self._place].kind

    def hear(self, frame: WireFrame) -> None:
        """A frame of the client."""
        value = _value(frame)
        kind = _kind(value)
        if kind in _FLOWING:
            return
        if kind == "conversation.item.create":
            self._made.append(value["item"].get("id", ""))
        elif kind == "response.create":
            response: dict[str, Any] = value.get("response") or {}
            metadata: dict[str, Any] = response.get("metadata") or {}
            if "client_event_id" in metadata and not self._own:
                self._asked.append(metadata["client_event_id"])
        self._spoke.append((kind, value))
        self._heard.set()

    async def play(
        self,
        send: Callable[[WireFrame], Awaitable[None]],
        close: Callable[[int, str], Awaitable[None]],
    ) -> None:
        """Play to the end."""
        before = 0.0
        while not self.done:
            entry = self._entries[self._place]
            event = entry.event
            if event.direction == "client":
                if event.frame is not None and entry.kind not in _FLOWING:
                    await self._wait_for(entry)
            else:
                if math.isfinite(self._speed) and event.at is not None:
                    await asyncio.sleep(max(0.0, event.at - before) / self._speed)
                if event.closed is not None:
                    self._place += 1
                    await close(event.closed.code or 1006, event.closed.reason)
                    return
                if event.frame is not None:
                    await send(self._written(entry))
            before = event.at if event.at is not None else before
            self._place += 1

    async def _wait_for(self, entry: _Entry) -> None:
        while True:
            for place, (kind, value) in enumerate(self._spoke):
                if kind == entry.kind:
                    del self._spoke[place]
                    for recorded, actual in _different(entry.value, value):
                        self._names[recorded] = actual
                    return
            self._heard.clear()
            await self._heard.wait()

    def _written(self, entry: _Entry) -> WireFrame:
        frame = entry.event.frame
        if isinstance(frame, bytes) or frame is None:
            return frame or b""
        value = entry.value
        if isinstance(value, dict):
            frame = self._fitted(entry.kind, cast("dict[str, Any]", value), frame)
        for recorded, actual in self._names.items():
            frame = frame.replace(f'"{recorded}"', f'"{actual}"')
        return frame

    def _fitted(self, kind: str, value: dict[str, Any], frame: str) -> str:
        """A frame of OpenAI's protocol with the ids of a client that gave them."""
        item: Any = value.get("item")
        if kind == "response.output_item.added":
            self._seen.add(item["id"])
        elif kind == "input_audio_buffer.committed":
            self._seen.add(value["item_id"])
        elif kind in _ADDED and item["id"] not in self._seen and self._made:
            self._seen.add(item["id"])
            made = self._made.popleft()
            if made and item["id"] not in self._names:
                self._names[item["id"]] = made
        response: Any = value.get("response")
        if not isinstance(response, dict):
            return frame
        details = cast("dict[str, Any]", response)
        if kind == "response.created" and self._asked:
            self._refs[details["id"]] = self._asked.popleft()
        ref = self._refs.get(details.get("id", ""))
        if ref is None:
            return frame
        return json.dumps({**value, "response": {**details, "metadata": {"client_event_id": ref}}})


class ReplaySocketTransport:
    """Plays recorded connections, in their order; a `WebSocketTransport`.

    Args:
        source: recordings, or a file or folder of them.
        speed: 1.0 keeps the recorded timing; by default as fast as the client responds.
    """

    def __init__(
        self, source: str | Path | Sequence[SessionRecording], *, speed: float = math.inf
    ) -> None:
        check("replay_sessions", source=(source, _SOURCE), speed=(speed, SECONDS))
        recordings = load_sessions(source) if isinstance(source, str | Path) else list(source)
        self._left = deque(recordings)
        self._speed = speed
        self._memory = MemoryTransport(self._serve)
        self.players: list[SessionPlayer] = []

    async def connect(self, request: SocketRequest) -> MemorySocket:
        """See `WebSocketTransport.connect`.

        Raises:
            ReplayMismatchError: every recorded connection has been played.
        """
        if not self._left:
            raise ReplayMismatchError(
                f"{request!r}: all {len(self.players)} recorded connections have been played"
            )
        recording = self._left.popleft()
        player = SessionPlayer(recording, speed=self._speed)
        self.players.append(player)
        if recording.error is not None:
            raise APIConnectionError(f"recorded: {recording.error.type}: {recording.error.message}")
        return await self._memory.connect(request)

    async def aclose(self) -> None:
        await self._memory.aclose()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.aclose()

    def assert_used_up(self) -> None:
        """Check that every connection was played to its end and nothing else was sent.

        Raises:
            AssertionError: names what is left, or what was sent besides.
        """
        assert not self._left, f"{len(self._left)} recorded connections were not played"
        for player in self.players:
            name = player.recording.id or "the recording"
            assert player.done, f"{name} waits for {player.waits_for!r} of the client"
            assert not player.unexpected, f"{name} holds no {player.unexpected} of the client"

    async def _serve(self, socket: MemorySocket, _: SocketRequest) -> None:
        player = self.players[-1]
        playing = asyncio.ensure_future(player.play(socket.peer.send, socket.peer.close))
        try:
            while (frame := await socket.sent.get()) is not None:
                player.hear(frame)
        finally:
            playing.cancel()
            await asyncio.gather(playing, return_exceptions=True)


def replay_sessions(
    source: str | Path | Sequence[SessionRecording], *, speed: float = math.inf
) -> ReplaySocketTransport:
    """A transport that plays recorded connections, for the keyword ``transport`` of a realtime model.

    Args:
        source: recordings, or a file or folder of them.
        speed: 1.0 keeps the recorded timing, 2.0 halves it; by default as fast as the client
            responds.
    """
    return ReplaySocketTransport(source, speed=speed)


def _value(frame: WireFrame | None) -> Any:
    if not isinstance(frame, str):
        return None
    try:
        return json.loads(frame)
    except ValueError:
        return None


def _kind(value: Any) -> str:
    """The kind of a frame: its ``type``, or the name of its first field."""
    if not isinstance(value, dict):
        return ""
    fields = cast("dict[str, Any]", value)
    kind = fields.get("type")
    return kind if isinstance(kind, str) else next(iter(fields), "")


def _different(recorded: Any, actual: Any) -> Iterator[tuple[str, str]]:
    """Ids that the client made, at the same places of two frames, and that differ."""
    if isinstance(recorded, dict) and isinstance(actual, dict):
        first, second = cast("dict[str, Any]", recorded), cast("dict[str, Any]", actual)
        for name, value in first.items():
            other = second.get(name)
            if name not in _CLIENTS_IDS:
                yield from _different(value, other)
            elif isinstance(value, str) and isinstance(other, str) and value != other:
                yield value, other
    elif isinstance(recorded, list) and isinstance(actual, list):
        pairs = zip(cast("list[Any]", recorded), cast("list[Any]", actual), strict=False)
        for one, other in pairs:
            yield from _different(one, other)


def _with_early_answers(entries: list[_Entry]) -> list[_Entry]:
    """The same with the confirmation of each item right behind its creation: some recorded clients
    did not wait for it, and a session does."""
    entries = list(entries)
    made = {
        entry.value["item"]["id"] for entry in entries if entry.kind == "response.output_item.added"
    } | {
        entry.value["item_id"] for entry in entries if entry.kind == "input_audio_buffer.committed"
    }
    place = 0
    while place < len(entries):
        if entries[place].kind == "conversation.item.create":
            for later in range(place + 1, len(entries)):
                entry = entries[later]
                if entry.kind in _ADDED and entry.value["item"]["id"] not in made:
                    made.add(entry.value["item"]["id"])
                    entries.insert(place + 1, entries.pop(later))
                    break
        place += 1
    return entries
