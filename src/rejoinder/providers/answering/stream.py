"""One request, one decoder, one reply: the shell that every HTTP provider uses as it is.

A provider supplies values and pure functions: how to build the request, how to decode the body,
how to read an error. It writes no loop, no task and no retry.
"""

from __future__ import annotations

import asyncio
import logging
import math
from collections.abc import Awaitable, Callable, Sequence
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias

from rejoinder import _stamps
from rejoinder._core.changes import Change
from rejoinder._core.chunks import ChatChunk, CompletionUsage
from rejoinder._core.families import retirement
from rejoinder._core.hosts import refuses_state
from rejoinder._core.retry import retry_after_seconds
from rejoinder._secrets import secrets_of
from rejoinder.errors import APIConnectionError, APIError, APIStatusError
from rejoinder.llm.llm import LLM, LLMStream
from rejoinder.providers.answering.errors import DecodeError, redact_error
from rejoinder.transport.http import HttpResponse, HttpTransport, Request, request_id

if TYPE_CHECKING:
    from rejoinder.llm.chat_context import ChatContext
    from rejoinder.types import APIConnectOptions

__all__ = ["Build", "StreamDecoder", "WireStream"]


logger = logging.getLogger("rejoinder")


class StreamDecoder(Protocol):
    """A provider's own decoder: bytes of the body in, chunks out (see `rejoinder.wire.decoder`)."""

    @property
    def failure(self) -> APIError | None:
        """What the next `feed` or `close` will raise."""
        ...

    @property
    def done(self) -> bool:
        """The provider's own last event was seen; nothing of interest follows."""
        ...

    @property
    def progress(self) -> int:
        """Grows with every event that carries text, thinking or part of a tool call."""
        ...

    def feed(self, data: bytes, /) -> list[ChatChunk]: ...

    def close(self) -> list[ChatChunk]: ...


Build: TypeAlias = Callable[[], Awaitable[Request]]

_GRACE = 0.5
"""Seconds that the usage may follow a whole answer."""

_REMEDIES = {
    401: "check the API key or token",
    403: "check what the API key may do, and in which region or project",
    404: "check `model`, and `base_url` (is a /v1 missing, or one too many?)",
    413: "shorten the conversation, or send smaller pictures, sound and documents",
}
"""What to do about errors whose own words rarely say it."""

_ERROR_BODY_LIMIT = 1 << 16
"""Bytes of an error answer that are read; what follows says nothing more."""


class WireStream(LLMStream):
    """A reply that comes over HTTP.

    Args:
        build: makes the request of an attempt. Awaited at the start of each attempt, so that
            credentials and signatures are fresh; what it needs must be a snapshot.
        decoder: makes a fresh decoder for an attempt.
        decode_error: turns an answer with an error status into an `APIError`.
        transport: sends the request.
        content_types: what the body of a good answer may be, e.g. ``("text/event-stream",)``.
            Anything else (a proxy's HTML page, a JSON error with status 200) goes to
            `decode_error`. An answer without a type is taken as good.
        drop_state: leaves opaque state of providers out of what `build` makes from now on; returns
            whether there was any. Called once, when the server refuses that state.
        changes: what was done to make the request acceptable; `build` may add to it.
    """

    def __init__(
        self,
        llm: LLM[Any],
        *,
        chat_ctx: ChatContext,
        tools: list[Any],
        conn_options: APIConnectOptions,
        build: Build,
        decoder: Callable[[], StreamDecoder],
        decode_error: DecodeError,
        transport: HttpTransport,
        content_types: tuple[str, ...] = (),
        drop_state: Callable[[], bool] | None = None,
        changes: Sequence[Change] = (),
    ) -> None:
        self._build = build
        self._drop_state = drop_state
        self._changes = changes
        self._make_decoder = decoder
        self._decode_error = decode_error
        self._transport = transport
        self._content_types = content_types
        self._decoder: StreamDecoder | None = None
        super().__init__(llm, chat_ctx=chat_ctx, tools=tools, conn_options=conn_options)

    @property
    def finish_reason(self) -> str | None:
        """Why the model stopped, in the provider's own word; ``None`` while it has not said."""
        return getattr(self._decoder, "finish_reason", None)

    @property
    def changes(self) -> tuple[Change, ...]:
        """What was done to the history and to the options, so that this model accepts them where
        it is served. A long conversation is looked at when the first attempt begins."""
        return tuple(self._changes)

    async def _run(self) -> bool | None:
        try:
            await self._exchange()
        except APIError as error:
            if not self._may_do_without_state(error):
                raise
            logger.warning("asking once more without the state that was refused: %s", error)
            return True
        return False

    def _may_do_without_state(self, error: APIError) -> bool:
        """Whether the server refused opaque state before it said anything, and there is some to
        leave out: the words and calls of the conversation are good without it."""
        return (
            self._drop_state is not None
            and (self._decoder is None or self._decoder.progress == 0)
            and refuses_state(error.message, error.body)
            and self._drop_state()
        )

    async def _exchange(self) -> None:
        self._decoder = None  # that of the attempt before
        request = await self._build()
        async with await self._transport.send(request) as response:
            status = response.status
            try:
                if status >= 300 or not self._is_stream(response):
                    raise await self._read_error(response)
                await self._read(response)
            except asyncio.CancelledError:
                self._count_the_rest()
                raise
            except APIError as error:
                self._count_the_rest()
                if isinstance(error, APIStatusError) and error.request_id is None:
                    error.request_id = request_id(response.headers)
                redact_error(error, secrets_of(request.url, request.headers))
                raise

    async def _read(self, response: HttpResponse) -> None:
        decoder = self._decoder = self._make_decoder()
        channel = self._event_ch
        send = channel.send_nowait
        progress = 0
        while data := await response.read_some():
            for chunk in decoder.feed(data):
                send(chunk)
            if decoder.progress != progress:
                progress = decoder.progress
                self._progressed()
            if decoder.done or decoder.failure is not None:
                break
            if getattr(decoder, "complete", False):
                await self._read_rest(response, decoder)
                break
            if channel.full:
                await self._wait_for_consumer()
        for chunk in decoder.close():
            send(chunk)
        if decoder.failure is not None:
            raise decoder.failure

    async def _read_rest(self, response: HttpResponse, decoder: StreamDecoder) -> None:
        """The answer is whole; what may follow is the usage. A server that neither sends it nor
        closes must not keep anybody waiting, and one that dies now has done its work. Some name
        their reason early and go on talking: then the usual patience applies again."""
        loop = asyncio.get_running_loop()
        progress = decoder.progress
        end: float | None = loop.time() + _GRACE
        self._paused = True  # no further output is owed: the limits on silence must not strike
        try:
            while True:
                async with asyncio.timeout_at(end):
                    data = await response.read_some()
                if not data:
                    return
                for chunk in decoder.feed(data):
                    self._event_ch.send_nowait(chunk)
                if decoder.done or decoder.failure is not None:
                    return
                if decoder.progress != progress:
                    progress = decoder.progress
                    patience = self._conn_options.between_outputs_timeout
                    end = loop.time() + patience if patience < math.inf else None
                    if self._event_ch.full:
                        await self._wait_for_consumer()
        except (TimeoutError, APIConnectionError):
            return
        finally:
            self._paused = False

    def _count_the_rest(self) -> None:
        """Some say with their first event what they have read, and go on counting: a reply that is
        cut has no better figures."""
        so_far: Callable[[], CompletionUsage | None] | None = getattr(
            self._decoder, "usage_so_far", None
        )
        if so_far is not None and self._meter.usage is None:
            self._meter.usage = so_far()

    def _is_stream(self, response: HttpResponse) -> bool:
        expected = self._content_types
        if not expected:
            return True
        found = response.headers.get("content-type", "").partition(";")[0].strip().lower()
        return not found or found in expected

    async def _read_error(self, response: HttpResponse) -> APIError:
        headers = response.headers
        try:
            body = await response.read_all(_ERROR_BODY_LIMIT)
        except APIConnectionError:
            body = b""  # the status alone says enough
        error = self._decode_error(response.status, headers, body)
        if error.retry_after is None:
            error.retry_after = retry_after_seconds(headers, _stamps.wall_now())
        remedy = _remedy(response.status, self._llm.model)
        if remedy is not None:
            said = error.message
            if not said.endswith(
                "..."
            ):  # by the dots of what was cut `redact_error` knows half a key
                said = said.rstrip(". ")
            error.message = f"{said}; {remedy}"
            error.args = (error.message,)
        return error


def _remedy(status: int, model: str) -> str | None:
    """What to do about an error; a model that is gone is answered with 400 or 404."""
    gone = retirement(model) if status in (400, 404) else None
    if gone is not None:
        return f"{model} ended on {gone.ended}; use {gone.successor}"
    return _REMEDIES.get(status)
