"""Plays recorded exchanges back instead of sending requests to a provider.

::

    recording = replay("recordings/weather")
    llm = openai.LLM(model="gpt-4.1", api_key="any", transport=recording)
    ...
    recording.assert_used_up()
"""

from __future__ import annotations

import asyncio
import json
import math
import urllib.parse
from collections.abc import Awaitable, Callable, Iterable, Mapping
from itertools import zip_longest
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Literal, Self, TypeAlias, cast

from rejoinder import errors
from rejoinder._options import FLAG, FUNCTION, SECONDS, Rule, check, instance
from rejoinder.errors import APIConnectionError, APIError, APITimeoutError
from rejoinder.testing.recording import Exchange, RecordedError, load_exchanges, recorded_body
from rejoinder.transport.http import HttpResponse, Request, read_up_to

__all__ = ["ReplayMismatchError", "ReplayTransport", "replay"]

Match: TypeAlias = Literal["path", "body"] | Callable[[Request, Exchange], bool]
_MATCH: Final = Rule(
    "'path', 'body' or a function",
    lambda value: isinstance(value, str) or callable(value),
    lambda value: value in ("path", "body") or callable(value),
)
_SOURCE: Final = instance(str, Path, Iterable, expected="the path of a recording, or exchanges")
_ABSENT: Final = object()
_MAX_SHOWN: Final = 3
_MAX_TEXT: Final = 80


class ReplayMismatchError(LookupError):
    """A request for which no recording is left. Not an `APIError`: nothing retries it."""


class ReplayTransport:
    """An `HttpTransport` that answers from recordings.

    A request gets the first unused exchange that matches. Parts that a recording does not hold (the
    URL, the body) match anything. Recorded errors are raised again, with their types.

    Args:
        source: a folder or file written by `RecordingTransport`, a ZIP of such files, or exchanges.
        speed: 1.0 keeps the recorded timing, 10.0 is ten times as fast; by default, nothing waits.
        cut: a function that cuts the body of each response into reads.
        repeat: let exchanges be used any number of times.
        match: ``"path"``: by method and path, so that requests are answered in the recorded order.
            ``"body"``: the body must be equal, too, so that requests may come in another order and a
            changed prompt is noticed; ids of calls may differ. Or a function.
        sleep: the function that waits.

    Attributes:
        requests: the requests, in order.

    Raises:
        ValueError: a file is not a recording.
    """

    def __init__(
        self,
        source: str | Path | Iterable[Exchange],
        *,
        speed: float = math.inf,
        cut: Callable[[bytes], list[bytes]] | None = None,
        repeat: bool = False,
        match: Match = "path",
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        check(
            "replay",
            source=(source, _SOURCE),
            speed=(speed, SECONDS),
            cut=(cut, FUNCTION.optional),
            repeat=(repeat, FLAG),
            match=(match, _MATCH),
            sleep=(sleep, FUNCTION),
        )
        if isinstance(source, str | Path):
            source = load_exchanges(source)
        self._left = list(source)
        self._speed = speed
        self._cut = cut
        self._repeat = repeat
        self._match = match
        self._sleep = sleep
        self.requests: list[Request] = []

    @property
    def unused(self) -> list[Exchange]:
        """The exchanges that were not requested."""
        return [] if self._repeat else list(self._left)

    def assert_used_up(self) -> None:
        """Raises:
        AssertionError: some exchanges were not requested.
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
        body = recorded_body(request) if self._match == "body" else None
        differences: list[str] = []
        for index, exchange in enumerate(self._left):
            if callable(self._match):
                if not self._match(request, exchange):
                    continue
            elif not _same_place(request, exchange):
                continue
            elif self._match == "body" and exchange.request_body is not None:
                difference = _Comparison().difference(exchange.request_body, body)
                if difference is not None:
                    differences.append(f"{_name(exchange)} differs at {difference}")
                    continue
            return exchange if self._repeat else self._left.pop(index)
        path = urllib.parse.urlsplit(request.url).path
        left = ", ".join(_name(exchange) for exchange in self._left) or "nothing"
        raise ReplayMismatchError(
            f"no recording for {request.method} {path}; "
            + ("; ".join(differences[:_MAX_SHOWN]) or f"left: {left}")
        )


def _same_place(request: Request, exchange: Exchange) -> bool:
    if exchange.method != request.method:
        return False
    path = urllib.parse.urlsplit(request.url).path
    return exchange.url is None or urllib.parse.urlsplit(exchange.url).path == path


_CALL_IDS: Final = frozenset({"call_id", "tool_call_id", "tool_use_id", "toolUseId"})


class _Comparison:
    """Compares a body with a recorded one.

    Ids of calls may differ if each id occurs in the same places, because ids of providers that send
    none, such as Gemini, are new in each run.
    """

    def __init__(self) -> None:
        self._now: dict[str, str] = {}
        self._then: dict[str, str] = {}

    def difference(
        self, recorded: object, got: object, place: str = "$", *, names_call: bool = False
    ) -> str | None:
        """The first place at which they differ, with both values."""
        for step, one, other, is_id in _members(recorded, got):
            found = self.difference(one, other, place + step, names_call=is_id)
            if found is not None:
                return found
        if self._same_leaf(recorded, got, names_call):
            return None
        return f"{place}: recorded {_shown(recorded)}, got {_shown(got)}"

    def _same_leaf(self, recorded: object, got: object, names_call: bool) -> bool:
        if names_call and isinstance(recorded, str) and isinstance(got, str):
            same = self._now.setdefault(recorded, got) == got
            return same and self._then.setdefault(got, recorded) == recorded
        alike = type(recorded) is type(got) or (_is_number(recorded) and _is_number(got))
        return alike and (isinstance(recorded, dict | list) or recorded == got)


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _members(one: object, other: object) -> Iterable[tuple[str, object, object, bool]]:
    """The members of two objects or of two lists, side by side, and whether they are ids of calls; of
    anything else none."""
    if isinstance(one, dict) and isinstance(other, dict):
        before, now = cast("dict[str, Any]", one), cast("dict[str, Any]", other)
        calls = not {"name", "function"}.isdisjoint(before)
        for key in {**before, **now}:
            is_id = key in _CALL_IDS or (key == "id" and calls)
            yield f".{key}", before.get(key, _ABSENT), now.get(key, _ABSENT), is_id
    elif isinstance(one, list) and isinstance(other, list):
        pairs = zip_longest(cast("list[Any]", one), cast("list[Any]", other), fillvalue=_ABSENT)
        for index, (member, counterpart) in enumerate(pairs):
            yield f"[{index}]", member, counterpart, False


def _shown(value: object) -> str:
    if value is _ABSENT:
        return "nothing"
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= _MAX_TEXT else f"{text[:_MAX_TEXT]}..."


def replay(
    source: str | Path | Iterable[Exchange],
    *,
    speed: float = math.inf,
    repeat: bool = False,
    match: Match = "path",
) -> ReplayTransport:
    """A transport that plays recordings, for the keyword ``transport`` of an `LLM`. See
    `ReplayTransport` for the arguments.

    Raises:
        ValueError: a file is not a recording.
    """
    return ReplayTransport(source, speed=speed, repeat=repeat, match=match)


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
