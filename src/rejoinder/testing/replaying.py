"""Plays recorded exchanges back, instead of asking a provider.

::

    recording = replay("recordings/weather")
    llm = openai.LLM(model="gpt-4.1", api_key="any", transport=recording)
    ...
    recording.assert_used_up()
"""

from __future__ import annotations

import asyncio
import math
import urllib.parse
from collections.abc import Awaitable, Callable, Iterable, Mapping
from pathlib import Path
from types import TracebackType
from typing import Self

from rejoinder import errors
from rejoinder.errors import APIConnectionError, APIError, APITimeoutError
from rejoinder.testing.recording import Exchange, RecordedError, load_exchanges
from rejoinder.transport.http import HttpResponse, Request, read_up_to

__all__ = ["ReplayMismatchError", "ReplayTransport", "replay"]


class ReplayMismatchError(LookupError):
    """A request for which no recording is left. Not an `APIError`: nothing retries it."""


class ReplayTransport:
    """An `HttpTransport` that answers from recordings.

    A request gets the first unused exchange with its method and path; one whose recording does not
    know its address serves any. The exchange's errors are raised again, as what they were.

    Args:
        source: a folder or file written by `RecordingTransport`, or exchanges.
        speed: 1.0 keeps the recorded timing, 10.0 is ten times as fast; by default nothing waits.
        cut: cuts the body of each answer into reads of its own choice.
        repeat: exchanges can be used any number of times.
        sleep: how to wait.

    Attributes:
        requests: what was sent, in order.

    Raises:
        ValueError: a file is no recording.
    """

    def __init__(
        self,
        source: str | Path | Iterable[Exchange],
        *,
        speed: float = math.inf,
        cut: Callable[[bytes], list[bytes]] | None = None,
        repeat: bool = False,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        if isinstance(source, str | Path):
            source = load_exchanges(source)
        self._left = list(source)
        self._speed = speed
        self._cut = cut
        self._repeat = repeat
        self._sleep = sleep
        self.requests: list[Request] = []

    @property
    def unused(self) -> list[Exchange]:
        """The exchanges nobody asked for."""
        return [] if self._repeat else list(self._left)

    def assert_used_up(self) -> None:
        """Raises:
        AssertionError: some exchanges were not asked for.
        """
        if self.unused:
            names = ", ".join(_name(exchange) for exchange in self.unused)
            raise AssertionError(f"{len(self.unused)} recorded exchanges were not used: {names}")

    async def send(self, request: Request) -> HttpResponse:
        self.requests.append(request)
        exchange = self._pick(request)
        if exchange.status is None:
            error = exchange.error or RecordedError("APIConnectionError", "no answer", 0.0)
            await self.wait(0.0, error.at)
            raise _rebuilt(error)
        await self.wait(0.0, exchange.head_at)
        return _ReplayedResponse(self, exchange, self._cut)

    async def prewarm(self, url: str, *, timeout: float = 10.0) -> None:
        return

    async def aclose(self) -> None:
        return

    async def wait(self, since: float, until: float) -> None:
        """Let the recorded time from `since` to `until` pass."""
        seconds = (until - since) / self._speed
        if seconds > 0:
            await self._sleep(seconds)

    def _pick(self, request: Request) -> Exchange:
        path = urllib.parse.urlsplit(request.url).path
        for index, exchange in enumerate(self._left):
            known = exchange.url is None or urllib.parse.urlsplit(exchange.url).path == path
            if known and exchange.method == request.method:
                return exchange if self._repeat else self._left.pop(index)
        left = ", ".join(_name(exchange) for exchange in self._left) or "nothing"
        raise ReplayMismatchError(f"no recording for {request.method} {path}; left: {left}")


def replay(
    source: str | Path | Iterable[Exchange], *, speed: float = math.inf, repeat: bool = False
) -> ReplayTransport:
    """A transport that plays recordings; for the keyword ``transport`` of an `LLM`. For the
    arguments see `ReplayTransport`.

    Raises:
        ValueError: a file is no recording.
    """
    return ReplayTransport(source, speed=speed, repeat=repeat)


class _ReplayedResponse:
    def __init__(
        self,
        transport: ReplayTransport,
        exchange: Exchange,
        cut: Callable[[bytes], list[bytes]] | None,
    ) -> None:
        self.status = exchange.status or 0
        self.headers: Mapping[str, str] = {
            name: value
            for name, value in exchange.headers.items()
            if name not in ("content-encoding", "content-length", "transfer-encoding")
        }
        self._transport = transport
        self._pieces = exchange.pieces if cut is None else [p for p in cut(exchange.body) if p]
        timed = cut is None and len(exchange.chunk_times) == len(self._pieces)
        self._times = exchange.chunk_times if timed else (exchange.head_at,) * len(self._pieces)
        self._now = exchange.head_at
        self._index = 0
        self._error = exchange.error

    async def read_some(self) -> bytes:
        index = self._index
        if index < len(self._pieces):
            self._index += 1
            await self._transport.wait(self._now, self._times[index])
            self._now = self._times[index]
            return self._pieces[index]
        if self._error is not None:
            await self._transport.wait(self._now, self._error.at)
            raise _rebuilt(self._error)
        return b""

    async def read_all(self, limit: int = 1 << 20) -> bytes:
        return await read_up_to(limit, self.read_some)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._index = len(self._pieces)


def _rebuilt(error: RecordedError) -> APIError:
    kind = getattr(errors, error.type, APIConnectionError)
    if kind is APITimeoutError:
        return APITimeoutError(error.message)
    if kind in (errors.WireError, errors.APIError):
        return kind(error.message)
    return APIConnectionError(error.message)


def _name(exchange: Exchange) -> str:
    path = urllib.parse.urlsplit(exchange.url or "").path
    return f"{exchange.id or '?'} ({exchange.method} {path or 'anywhere'})"
