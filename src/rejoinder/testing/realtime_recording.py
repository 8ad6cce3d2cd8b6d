"""Recordings of realtime sessions: one JSON file for each connection, with timing, without secrets.

The rule of `rejoinder.testing.recording` holds here too: secrets are removed before a
`SessionRecording` is created. The format is that of the recorded traffic with which this package is
tested, plus the time of each frame.
"""

from __future__ import annotations

import asyncio
import base64
import json
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, Self, cast

from rejoinder._options import checked
from rejoinder.errors import APIError
from rejoinder.testing import _files
from rejoinder.testing.recording import Cleaner, RecordedError
from rejoinder.transport.http import Request
from rejoinder.transport.ws import Closed, SocketRequest, WebSocket, WebSocketTransport, WireFrame

__all__ = [
    "RecordingSocketTransport",
    "SessionEvent",
    "SessionRecording",
    "load_session",
    "load_sessions",
    "record_sessions",
    "save_session",
]


@dataclass(frozen=True, slots=True)
class SessionEvent:
    """A frame, or the end of the connection.

    Attributes:
        direction: ``"client"`` or ``"server"``: the sender.
        frame: text or bytes; ``None`` for an end.
        closed: how the connection ended.
        at: seconds since the connection was requested; ``None`` if unknown.
    """

    direction: Literal["client", "server"]
    frame: WireFrame | None = None
    closed: Closed | None = None
    at: float | None = None

    def to_json(self) -> dict[str, Any]:
        data: dict[str, Any] = {"direction": self.direction}
        if self.at is not None:
            data["at"] = self.at
        if self.closed is not None:
            data["close"] = {"code": self.closed.code, "reason": self.closed.reason}
        elif isinstance(self.frame, bytes):
            data["data_b64"] = base64.b64encode(self.frame).decode()
        elif self.frame is not None:
            event = _parsed(self.frame)
            data |= {"text": self.frame} if event is None else {"event": event}
        return data

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Self:
        """Raises:
        ValueError: `data` is not an event of a recorded session.
        """
        try:
            direction, at = data["direction"], data.get("at")
            if direction not in ("client", "server"):
                raise ValueError(f"direction: expected 'client' or 'server', got {direction!r}")
            close = data.get("close")
            if close is not None:
                return cls(
                    direction, closed=Closed(close.get("code"), close.get("reason") or ""), at=at
                )
            if data.get("data_b64") is not None:
                return cls(direction, base64.b64decode(data["data_b64"]), at=at)
            if data.get("text") is not None:
                return cls(direction, data["text"], at=at)
            return cls(direction, json.dumps(data["event"], ensure_ascii=False), at=at)
        except (KeyError, TypeError, AttributeError) as problem:
            raise ValueError(f"not an event of a recorded session: {problem!r}") from problem


@dataclass(frozen=True, slots=True)
class SessionRecording:
    """One connection, as it was on the wire, without secrets.

    Attributes:
        url: its address; ``None`` if that was not recorded.
        events: frames of both sides in their order, and the end.
        error: how the connection was refused, if it was.
    """

    id: str = ""
    provider: str = ""
    model: str | None = None
    url: str | None = None
    events: tuple[SessionEvent, ...] = ()
    error: RecordedError | None = None

    def to_json(self) -> dict[str, Any]:
        """The content of its file."""
        data: dict[str, Any] = {
            "id": self.id,
            "provider": self.provider,
            "api": "realtime",
            "model": self.model,
            "kind": "realtime",
            "url": self.url,
            "events": [event.to_json() for event in self.events],
        }
        if self.error is not None:
            error = self.error
            data["error"] = {"type": error.type, "message": error.message, "at": error.at}
        return data

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Self:
        """Raises:
        ValueError: `data` is not a recording of a session.
        """
        try:
            error: dict[str, Any] | None = data.get("error")
            return cls(
                id=data.get("id") or "",
                provider=data.get("provider") or "",
                model=data.get("model"),
                url=data.get("url"),
                events=tuple(SessionEvent.from_json(event) for event in data["events"]),
                error=None
                if error is None
                else RecordedError(error["type"], error["message"], error["at"]),
            )
        except (KeyError, TypeError, AttributeError) as problem:
            raise ValueError(f"not the recording of a realtime session: {problem!r}") from problem


def load_session(path: str | Path) -> SessionRecording:
    """Read one file.

    Raises:
        ValueError: it is not a recording of a session.
    """
    return _files.load(SessionRecording, path)


def load_sessions(path: str | Path) -> list[SessionRecording]:
    """Read a file, or all ``*.json`` of a folder (by name, not of the folders in it)."""
    return _files.load_all(SessionRecording, path)


def save_session(recording: SessionRecording, path: str | Path) -> None:
    """Write one file. Creates its folder if needed."""
    _files.save(recording, path)


class RecordingSocketTransport:
    """A transport that connects through another one and writes each connection into a folder.

    A file is written when its connection has ended or was refused. Headers are not recorded. Frames
    and the URL lose the same secrets as in `record`.

    Args:
        inner: the transport that does the work; closed by `aclose`.
        path: the folder; files are numbered from 1.
        secrets: further strings that must not be written.
        clock: seconds, for the timing.
    """

    @checked()
    def __init__(
        self,
        inner: WebSocketTransport,
        path: str | Path,
        *,
        secrets: Iterable[str] = (),
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._inner = inner
        self._path = Path(path)
        self._secrets = tuple(secrets)
        self._clock = clock
        self._count = 0
        self._open: set[_RecordedSocket] = set()
        self._writing: set[asyncio.Task[None]] = set()

    async def connect(self, request: SocketRequest) -> WebSocket:
        self._count += 1
        name = f"{self._count:04}"
        cleaner = Cleaner(Request("GET", request.url, request.headers), {}, self._secrets)
        begin = self._clock()
        try:
            socket = await self._inner.connect(request)
        except APIError as error:
            at = round(self._clock() - begin, 6)
            failure = RecordedError(type(error).__name__, cleaner.text(error.message), at)
            self._write(SessionRecording(name, url=cleaner.url(request.url), error=failure))
            raise
        recorded = _RecordedSocket(
            socket,
            name,
            cleaner,
            cleaner.url(request.url),
            lambda: self._clock() - begin,
            self._ended,
        )
        self._open.add(recorded)
        return recorded

    async def aclose(self) -> None:
        for socket in list(self._open):
            await socket.aclose()
        if self._writing:
            await asyncio.gather(*self._writing)
        await self._inner.aclose()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.aclose()

    def _ended(self, socket: _RecordedSocket) -> None:
        if socket in self._open:
            self._open.discard(socket)
            self._write(socket.recording())

    def _write(self, recording: SessionRecording) -> None:
        path = self._path / f"{recording.id}.json"
        task = asyncio.ensure_future(asyncio.to_thread(save_session, recording, path))
        self._writing.add(task)
        task.add_done_callback(self._writing.discard)


@checked()
def record_sessions(
    path: str | Path, *, secrets: Iterable[str] = (), inner: WebSocketTransport | None = None
) -> RecordingSocketTransport:
    """A transport that connects to the service and records every connection into the folder `path`;
    for the keyword ``transport`` of a realtime model. Leave it by ``async with``.

    Args:
        path: the folder; files are numbered from 1.
        secrets: further strings that must not be written, e.g. a customer's name.
        inner: the transport that does the work; by default a new one.
    """
    if inner is None:
        from rejoinder.transport._aiohttp import AiohttpTransport
        from rejoinder.transport._aiohttp_ws import AiohttpWebSocketTransport

        inner = AiohttpWebSocketTransport(AiohttpTransport())
    return RecordingSocketTransport(inner, path, secrets=secrets)


class _RecordedSocket:
    """Passes frames through, and records them without secrets."""

    def __init__(
        self,
        inner: WebSocket,
        name: str,
        cleaner: Cleaner,
        url: str,
        elapsed: Callable[[], float],
        ended: Callable[[_RecordedSocket], None],
    ) -> None:
        self._inner = inner
        self._name = name
        self._cleaner = cleaner
        self._url = url
        self._elapsed = elapsed
        self._ended = ended
        self._events: list[SessionEvent] = []
        self._over = False

    @property
    def heard_at(self) -> float:
        return self._inner.heard_at

    async def send(self, frame: WireFrame) -> None:
        self._note("client", frame)
        await self._inner.send(frame)

    async def receive(self) -> WireFrame | Closed:
        frame = await self._inner.receive()
        if isinstance(frame, Closed):
            self._end("server", Closed(frame.code, self._cleaner.text(frame.reason)))
        else:
            self._note("server", frame)
        return frame

    async def ping(self) -> None:
        await self._inner.ping()

    async def aclose(self, code: int = 1000) -> None:
        self._end("client", Closed(code))
        await self._inner.aclose(code)

    def recording(self) -> SessionRecording:
        return SessionRecording(self._name, url=self._url, events=tuple(self._events))

    def _note(self, direction: Literal["client", "server"], frame: WireFrame) -> None:
        if self._over:
            return
        text = isinstance(frame, str)
        clean = self._cleaner.text(frame) if text else self._cleaner.bytes(frame)
        self._events.append(SessionEvent(direction, clean, at=self._now()))

    def _end(self, direction: Literal["client", "server"], how: Closed) -> None:
        if not self._over:
            self._over = True
            self._events.append(SessionEvent(direction, closed=how, at=self._now()))
            self._ended(self)

    def _now(self) -> float:
        return round(self._elapsed(), 6)


def _parsed(text: str) -> object:
    """The JSON object in a frame; else ``None``."""
    try:
        value: object = json.loads(text)
    except ValueError:
        return None
    return cast("object", value) if isinstance(value, dict) else None
