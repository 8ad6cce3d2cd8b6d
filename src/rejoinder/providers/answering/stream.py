"""One request, one decoder, one reply: the shell that every HTTP provider uses unchanged.

A provider supplies values and pure functions: how to build the request, how to decode the body,
how to read an error. It writes no loop, no task and no retry.
"""

from __future__ import annotations

import asyncio
import logging
import math
from collections.abc import Awaitable, Callable, Collection, Sequence
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any, Final, TypeAlias
from urllib.parse import urlsplit

from rejoinder import _stamps, _watch
from rejoinder._core.changes import Change
from rejoinder._core.chunks import CompletionUsage
from rejoinder._core.families import retirement
from rejoinder._core.hosts import kind_of_refusal, refuses_state
from rejoinder._core.retry import retry_after_seconds
from rejoinder._secrets import forget_frames, shorten
from rejoinder.errors import APIConnectionError, APIError, APIStatusError, ConfigurationError
from rejoinder.llm.llm import LLM, LLMStream
from rejoinder.llm.tool_context import ToolContext
from rejoinder.providers.answering.decoder import ReplyDecoder, State
from rejoinder.providers.answering.errors import DecodeError, redact_error
from rejoinder.telemetry import _propagation
from rejoinder.transport.http import HttpResponse, HttpTransport, Request, pour, request_id

if TYPE_CHECKING:
    from rejoinder.llm.chat_context import ChatContext
    from rejoinder.types import APIConnectOptions

__all__ = ["Build", "WireStream"]

logger = logging.getLogger("rejoinder")


Build: TypeAlias = Callable[[], Awaitable[Request]]

_GRACE = 0.5
"""Seconds within which the usage may follow a whole answer."""

_PIECE: Final = 1 << 14
"""Maximum bytes that are decoded at once."""
_BEFORE_YIELD: Final = 1 << 15
"""Maximum bytes that are decoded before yielding to the loop."""
_OVER: Final = frozenset({State.ENDED, State.BROKEN})
_STOPS: Final = frozenset({State.ANSWERED, *_OVER})
_MEDIA: Final = ("image/", "audio/", "video/", "font/")

_REMEDIES = {
    401: "check the API key or token",
    403: "check what the API key may do, and in which region or project",
    404: "check `model`, and `base_url` (is a /v1 missing, or one too many?)",
    413: "shorten the conversation, or send smaller pictures, sound and documents",
}
"""Remedies for errors whose own messages rarely have one."""

_REFUSED: Final = (400, 413, 422)

_MAX_PAUSES: Final = 8
"""Maximum number of pauses of one reply that is continued."""

_ERROR_BODY_LIMIT = 1 << 16
"""Maximum bytes of an error body to read."""


class WireStream(LLMStream):
    """A reply over HTTP.

    Args:
        build: makes the request of an attempt. Awaited at the start of each attempt, so that
            credentials and signatures are new; its inputs must be a snapshot.
        decoder: makes a new decoder for an attempt.
        decode_error: turns a response with an error status into an `APIError`.
        transport: sends the request.
        drop_state: makes `build` omit opaque state of providers from now on; returns whether there
            was any. Called once, when the server refuses that state.
        go_on: makes `build` send the parts of a paused reply from now on, so that the model continues
            it; ``None``: a pause is the end.
        changes: the changes that made the request acceptable; `build` may add to them.
    """

    # Attributes that most streams never set; see `LLMStream`.
    _pauses = 0
    _spent: CompletionUsage | None = None
    """The usage before the last pause."""
    _much = b""
    """Data that is too large for one callback."""

    def __init__(
        self,
        llm: LLM[Any],
        *,
        chat_ctx: ChatContext,
        tools: list[Any],
        conn_options: APIConnectOptions,
        build: Build,
        decoder: Callable[[], ReplyDecoder],
        decode_error: DecodeError,
        transport: HttpTransport,
        drop_state: Callable[[], bool] | None = None,
        go_on: Callable[[dict[str, Any]], None] | None = None,
        changes: Sequence[Change] = (),
    ) -> None:
        self._build = build
        self._drop_state = drop_state
        self._go_on = go_on
        self._changes = changes
        self._make_decoder = decoder
        self._decode_error = decode_error
        self._transport = transport
        self._decoder: ReplyDecoder | None = None
        self._undisturbed = 0  # bytes decoded since the loop turned
        self._arriving = False
        self._outputs = 0  # `output_count` of the decoder when it was last looked at
        super().__init__(llm, chat_ctx=chat_ctx, tools=tools, conn_options=conn_options)

    @property
    def finish_reason(self) -> str | None:
        """The provider's finish reason, or ``None`` until it arrives."""
        return None if self._decoder is None else self._decoder.finish_reason

    @property
    def _answered_by(self) -> str | None:
        return None if self._decoder is None else self._decoder.model

    @property
    def changes(self) -> tuple[Change, ...]:
        """The changes to the history and the options that made this model accept them at its host. A
        long conversation is only repaired when the first attempt begins."""
        return tuple(self._changes)

    async def _run(self) -> bool | None:
        try:
            while await self._exchange():
                pass
        except APIError as error:
            if not self._may_do_without_state(error):
                raise
            logger.warning("asking once more without the state that was refused: %s", error)
            return True
        return False

    def _may_do_without_state(self, error: APIError) -> bool:
        """Whether the server refused opaque state before any output, and there is state to omit. The text
        and calls of the conversation are valid without it."""
        return (
            self._drop_state is not None
            and (self._decoder is None or self._decoder.output_count == 0)
            and refuses_state(error.message, error.body)
            and self._drop_state()
        )

    async def _exchange(self) -> bool:
        """Send the request and read the response. Returns whether the reply has paused and continues."""
        self._decoder = None  # that of the previous attempt
        self._arriving = False
        self._outputs = 0
        request = await self._request()
        if self._place is not None:
            _watch.note("send", host=urlsplit(request.url).netloc.rpartition("@")[2])
        async with await self._transport.send(request) as response:
            if self._place is not None:
                _watch.note("head", status=response.status)
            failure = await self._read_response(response)
            if failure is not None:
                # Outside `except`, so that the original error is not reachable as the context.
                failure = self._presentable(failure, request, response)
                raise failure
        decoder: ReplyDecoder | None = self._decoder
        if self._go_on is None or decoder is None or decoder.paused is None:
            return False
        self._pauses += 1
        self._spent = decoder.usage_so_far
        self._go_on(decoder.paused)
        return True

    async def _request(self) -> Request:
        """The request of this attempt. Header fields and tokens are local variables where it is
        made, so our own errors leave without those frames. Errors of the caller's code keep theirs."""
        try:
            request = await self._build()
        except (APIError, ConfigurationError, asyncio.CancelledError) as error:
            forget_frames(error)
            raise
        if self._span is not None and self._span.recorded:
            self._span.asked(request.body)
        if not _propagation.hosts:
            return request
        fields = _propagation.trace_headers(request.url)
        return replace(request, headers={**request.headers, **fields}) if fields else request

    async def _read_response(self, response: HttpResponse) -> APIError | None:
        """Read the reply into the channel. Returns why it failed."""
        try:
            decoder = self._make_decoder()
            if response.status >= 300 or (_is_media(response) and not decoder.checksums):
                return await self._read_error(response)
            self._decoder = decoder
            if self._go_on is not None:
                decoder.go_on(self._spent)
                if self._pauses < _MAX_PAUSES:
                    decoder.may_pause()
            await self._read(response, decoder)
        except asyncio.CancelledError:
            self._count_the_rest()
            raise
        except APIError as error:
            self._count_the_rest()
            return error
        return None

    def _presentable(self, error: APIError, request: Request, response: HttpResponse) -> APIError:
        """`error` for users: with facts from the header fields and the remedy, without credentials,
        and short."""
        headers = response.headers
        changes: dict[str, Any] = {}
        if error.retry_after is None:
            changes["retry_after"] = retry_after_seconds(headers, _stamps.wall_now())
        if isinstance(error, APIStatusError) and error.request_id is None:
            changes["request_id"] = request_id(headers)
        if isinstance(error, APIStatusError) and error.status_code in _REFUSED:
            changes["section"] = kind_of_refusal(error.message, error.body)
        # Redact before cutting, because half a key is not recognized.
        error = redact_error(error.but(**changes), request.secrets().reveal())
        message = shorten(error.message)
        remedy = _remedy(response.status, self._llm.model)
        if remedy is not None:
            message = f"{message.rstrip('. ')}; {remedy}"
        # The frames that read the response hold its text in their local variables.
        return forget_frames(error.but(message=message))

    async def _read(self, response: HttpResponse, decoder: ReplyDecoder) -> None:
        if self._tools:
            decoder.know_tools(partial(_names_of, self._tools))
        while not await pour(response, self._take):
            if self._much:
                data, self._much = self._much, b""
                await self._decode_in_pieces(decoder, data)
            state = decoder.state
            if state is State.ANSWERED:
                await self._read_rest(response, decoder)
                break
            if state in _OVER:
                break
            if self._event_ch.full:
                await self._wait_for_consumer()
        self._event_ch.send_all(decoder.close())
        if decoder.failure is not None:
            raise decoder.failure

    def _take(self, data: bytes) -> bool:
        """Decode the bytes that have arrived, in the callback of the socket. Returns whether more may
        follow in the same way."""
        if not self._arriving:
            self._arriving = True
            if self._place is not None:  # the callback has the context of its connection
                self._place.note("bytes")
        decoder = self._decoder
        if decoder is None or len(data) > _PIECE or self._undisturbed > _BEFORE_YIELD:
            self._much = data
            return False
        self._decode(decoder, data)
        return decoder.state not in _STOPS and not self._event_ch.full

    def _decode(self, decoder: ReplyDecoder, data: bytes) -> None:
        before = self._meter.progress_at
        self._event_ch.send_all(decoder.feed(data))
        self._undisturbed += len(data)
        count = decoder.reply.output_count
        if count != self._outputs:
            self._outputs = count
            if self._meter.progress_at is before:  # no chunk has reported it
                self._progressed()

    async def _decode_in_pieces(self, decoder: ReplyDecoder, data: bytes) -> None:
        """Decode in pieces and yield to the loop in between. Compressed data may unpack to any size, and
        reads from a fast server never wait; neither may block the loop."""
        for start in range(0, len(data), _PIECE):
            if self._undisturbed > _BEFORE_YIELD:
                self._undisturbed = 0
                await asyncio.sleep(0)
            self._decode(decoder, data[start : start + _PIECE])
            if decoder.state in _OVER:
                return

    async def _read_rest(self, response: HttpResponse, decoder: ReplyDecoder) -> None:
        """Read the usage, which may follow a whole answer.

        A server that neither sends it nor closes must not delay anything, and an error of the server is
        harmless now. Some servers send their finish reason early and continue the text: then the usual
        limit on silence applies again.
        """
        loop = asyncio.get_running_loop()
        output_count = decoder.output_count
        end: float | None = loop.time() + _GRACE
        self._paused = True  # no further output is due, so the limits on silence do not apply
        try:
            while True:
                async with asyncio.timeout_at(end):
                    data = await response.read_some()
                if not data:
                    return
                await self._decode_in_pieces(decoder, data)
                if decoder.state in _OVER:
                    return
                if decoder.output_count != output_count:
                    output_count = decoder.output_count
                    patience = self._conn_options.between_outputs_timeout
                    end = loop.time() + patience if patience < math.inf else None
                    if self._event_ch.full:
                        await self._wait_for_consumer()
        except (TimeoutError, APIConnectionError):
            return
        finally:
            self._paused = False

    def _owed(self) -> list[float | None]:
        if self._span is not None:
            self._count_the_rest()
        return super()._owed()

    def _count_the_rest(self) -> None:
        """Use the provider's token counts so far as the usage of a cut reply."""
        if self._decoder is not None and self._meter.usage is None:
            self._meter.usage = self._decoder.usage_so_far

    async def _read_error(self, response: HttpResponse) -> APIError:
        headers = response.headers
        try:
            body = await response.read_all(_ERROR_BODY_LIMIT)
        except APIConnectionError:
            body = b""  # the status is enough
        return self._decode_error(response.status, headers, body)


# Not a method: the decoder keeps it, and a stream that refers to itself is not freed at once.
def _names_of(tools: list[Any]) -> Collection[str]:
    return ToolContext(tools).function_tools.keys()


def _remedy(status: int, model: str) -> str | None:
    """The remedy for an error. For a retired model, servers send 400 or 404."""
    gone = retirement(model) if status in (400, 404) else None
    if gone is not None:
        return f"{model} ended on {gone.ended}; use {gone.successor}"
    return _REMEDIES.get(status)


def _is_media(response: HttpResponse) -> bool:
    """Whether the type of a body shows that it is not a reply. Servers and proxies declare many types
    for streams, so everything that is not media is judged by its bytes."""
    return response.headers.get("content-type", "").lstrip().lower().startswith(_MEDIA)
