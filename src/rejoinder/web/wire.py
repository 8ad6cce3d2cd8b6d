"""Transports of the page: one records exchanges in memory, one lets requests fail on command."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final, Literal, TypeAlias, get_args
from urllib.parse import urlsplit

from rejoinder import _watch
from rejoinder._secrets import is_secret_name
from rejoinder.testing import Answer, Fault, FaultServer
from rejoinder.testing.recording import RecordingTransport, _Recorder
from rejoinder.transport.http import HttpResponse, HttpTransport, Request, ResponseAround

__all__ = ["FAULTS", "FaultKind", "FaultSwitch", "MemoryRecorder"]

FaultKind: TypeAlias = Literal["stall", "cut", "429", "slow"]
FAULTS: Final[tuple[FaultKind, ...]] = get_args(FaultKind)

_WORDS: Final = tuple(
    f"{word} "
    for word in [
        "This",
        "answer",
        "comes",
        "from",
        "a",
        "server",
        "on",
        "this",
        "machine",
        "that",
        "fails",
        "on",
        "command.",
    ]
)
_CUT_AFTER: Final = 5
_FIRST: Final = 3.0
"""Seconds until the head of a slow answer arrives."""
_EACH: Final = 0.25
"""Seconds between the reads of a slow answer."""
_PIECE: Final = 300
"""Bytes of one read of a slow answer."""


class MemoryRecorder(RecordingTransport):
    """Reports each exchange to the watcher, as a recording without secrets. Writes no file."""

    def __init__(self, inner: HttpTransport) -> None:
        super().__init__(inner, Path())

    async def _write(self, recorder: _Recorder) -> None:
        _watch.note("exchange", exchange=recorder.exchange(""))


@dataclass(frozen=True, slots=True)
class _Switched:
    kind: FaultKind
    once: bool


class FaultSwitch:
    """Sends requests to their servers, or to a `FaultServer` on this machine while a fault is on.

    ``stall``: the answer begins and then nothing comes. ``cut``: the connection breaks within the
    text. ``429``: too many requests. ``slow``: the real answer, late and in slow pieces.

    Args:
        inner: the transport that does the work.
        always: send every request to the `FaultServer`, even while no fault is on, for a model
            without a server.
    """

    def __init__(self, inner: HttpTransport, *, always: bool = False) -> None:
        self._inner = inner
        self._always = always
        self._server: FaultServer | None = None
        self._on: _Switched | None = None

    @property
    def fault(self) -> FaultKind | None:
        """The fault that is on."""
        return None if self._on is None else self._on.kind

    @property
    def once(self) -> bool:
        """Whether the fault ends with the next request."""
        return self._on is not None and self._on.once

    def switch(self, kind: FaultKind | None, *, once: bool = False) -> None:
        """Turn a fault on, for every request or for the next one only; ``None`` turns it off."""
        self._on = None if kind is None else _Switched(kind, once)

    async def send(self, request: Request) -> HttpResponse:
        """See `HttpTransport.send`."""
        on = self._on
        if on is None:
            return await self._inner.send(await self._here(request) if self._always else request)
        if on.once:
            self._on = None
        _watch.note("fault", fault=on.kind)
        if on.kind == "slow":
            await asyncio.sleep(_FIRST)
            target = await self._here(request) if self._always else request
            return _Slow(await self._inner.send(target))
        answer = {
            "stall": Answer(text=_WORDS, fault=Fault.STALL_BEFORE_OUTPUT),
            "cut": Answer(text=_WORDS, fault=Fault.RESET_MID_STREAM, after=_CUT_AFTER),
            "429": Answer(fault=Fault.STATUS_429, message="too many requests (switched on)"),
        }[on.kind]
        return await self._inner.send(await self._here(request, answer))

    async def _here(self, request: Request, answer: Answer | None = None) -> Request:
        """`request`, addressed to the `FaultServer`, without credentials."""
        _watch.note("invented")
        server = self._server
        if server is None:
            server = self._server = FaultServer(default=Answer(text=_WORDS))
            await server.start()
        if answer is not None:
            server.script(answer)
        parts = urlsplit(request.url)
        headers = {n: v for n, v in request.headers.items() if not is_secret_name(n)}
        return replace(request, url=f"{server.url}{parts.path}", headers=headers, signed_with=None)

    async def prewarm(self, url: str, *, timeout: float = 10.0) -> None:
        """See `HttpTransport.prewarm`."""
        if not self._always:
            await self._inner.prewarm(url, timeout=timeout)

    async def aclose(self) -> None:
        """Close the server and the inner transport."""
        if self._server is not None:
            await self._server.aclose()
        await self._inner.aclose()


class _Slow(ResponseAround):
    """A response whose body comes in small pieces, with pauses between them."""

    _rest = b""

    async def read_some(self) -> bytes:
        await asyncio.sleep(_EACH)
        data = self._rest or await super().read_some()
        piece, self._rest = data[:_PIECE], data[_PIECE:]
        return piece
