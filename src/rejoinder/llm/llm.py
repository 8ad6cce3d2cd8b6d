"""LLM and LLMStream: ask a model and read its reply while it is generated.

The shell around every provider, written once: attempts, deadlines, retries, metrics, spans and
closing. A provider implements one attempt. The decisions are pure and made in `_core` (`retry`,
`deadlines`, `meter`).
"""

from __future__ import annotations

import asyncio
import inspect
import logging
import math
import random
import time
from abc import ABC, abstractmethod
from collections.abc import AsyncIterable, AsyncIterator, Awaitable, Callable, Sequence
from functools import partial
from types import TracebackType
from typing import TYPE_CHECKING, Any, Generic, Literal, TypeAlias, TypeVar

from rejoinder import _stamps, _watch
from rejoinder._aio import Chan, Deadline, cancel_and_wait, end
from rejoinder._core import retry
from rejoinder._core.chunks import (
    ChatChunk,
    ChoiceDelta,
    CollectedResponse,
    CompletionUsage,
    FunctionToolCall,
)
from rejoinder._core.collecting import Collector
from rejoinder._core.deadlines import Deadlines, Patience
from rejoinder._core.meter import Meter, Pulse
from rejoinder._emitter import EventEmitter
from rejoinder._options import checked
from rejoinder._sections import explained
from rejoinder.errors import APIConnectionError, APIError, APITimeoutError
from rejoinder.llm._asker import ASKED_FOR_ITSELF, Asker
from rejoinder.llm._events import LLMError
from rejoinder.llm._prepared import prepare
from rejoinder.metrics import LLMMetrics, Metadata
from rejoinder.types import DEFAULT_API_CONNECT_OPTIONS, NOT_GIVEN, APIConnectOptions, NotGivenOr

if TYPE_CHECKING:
    from typing import Self

    from rejoinder._core.items import ChatItem
    from rejoinder.llm.chat_context import ChatContext
    from rejoinder.llm.tool_context import ToolChoice
    from rejoinder.telemetry._spans import AnyRequestSpan

__all__ = [
    "LLM",
    "ChatChunk",
    "ChoiceDelta",
    "CollectedResponse",
    "CompletionUsage",
    "FunctionToolCall",
    "LLMError",
    "LLMStream",
]

logger = logging.getLogger("rejoinder")

TEvent = TypeVar("TEvent")
Price: TypeAlias = Callable[[], float | None]

_CLOSE_TIMEOUT = 1.0
"""Seconds that `aclose` or a deadline waits for an attempt that ignores its cancellation."""
_FORGOTTEN = 600.0
"""Seconds without a read after which a paused reply is abandoned, because its reader is gone."""


class LLM(ABC, EventEmitter[Literal["metrics_collected", "error"] | TEvent], Generic[TEvent]):
    """A language model.

    Events: ``"metrics_collected"`` with an `LLMMetrics` after each reply, ``"error"`` with an
    `LLMError` at each failed attempt.

    One instance can serve many conversations at once, even from several event loops.
    """

    _speaks = ""  # the owner of its API: names the provider in traces if the server is unknown

    def __init__(self) -> None:
        super().__init__()
        self._label = f"{type(self).__module__}.{type(self).__name__}"
        self._streams: set[LLMStream] = set()
        self._prewarming: dict[asyncio.AbstractEventLoop, asyncio.Task[None]] = {}
        prepare(LLMError)  # here rather than in the first `chat`, which would have to wait for it

    @property
    def label(self) -> str:
        """Module and class name; names the model in events and log lines."""
        return self._label

    @property
    def model(self) -> str:
        """The provider's name of the model."""
        return "unknown"

    @property
    def provider(self) -> str:
        """Name of the service that runs the model."""
        return "unknown"

    @property
    def _served_at(self) -> str:
        """The URL of its server; empty for a model in this process. Protected, for subclasses."""
        return ""

    @property
    def metrics_metadata(self) -> dict[str, str]:
        """The `Metadata` of this model's metrics."""
        return {"model_name": self.model, "model_provider": self.provider}

    @property
    def continues_prefill(self) -> bool:
        """Whether the model, given a conversation that ends with an assistant message, continues
        right after the last character of that message."""
        return False

    def _continues(self, extra_kwargs: NotGivenOr[dict[str, Any]]) -> bool:
        """`continues_prefill` for a call with these parameters; protected, for subclasses."""
        return self.continues_prefill

    @checked()
    def takes_option(self, option: str) -> bool:
        """Whether `chat` has this option, such as `response_format`."""
        parameters = inspect.signature(self.chat).parameters.values()
        return any(p.name == option or p.kind is p.VAR_KEYWORD for p in parameters)

    @abstractmethod
    def chat(
        self,
        *,
        chat_ctx: ChatContext,
        tools: list[Any] | None = None,
        conn_options: APIConnectOptions = DEFAULT_API_CONNECT_OPTIONS,
        parallel_tool_calls: NotGivenOr[bool] = NOT_GIVEN,
        tool_choice: NotGivenOr[ToolChoice] = NOT_GIVEN,
        extra_kwargs: NotGivenOr[dict[str, Any]] = NOT_GIVEN,
    ) -> LLMStream:
        """Ask the model to continue the conversation. Returns at once.

        The conversation, the tools and the options are snapshots: changing them while the stream
        runs has no effect.

        Args:
            chat_ctx: the conversation so far.
            tools: the tools the model may call (functions made with `function_tool`, or toolsets).
            conn_options: retries and deadlines of this call.
            parallel_tool_calls: whether one reply may contain several calls.
            tool_choice: ``"auto"``, ``"required"``, ``"none"`` or one function by name.
            extra_kwargs: further parameters under the provider's own names.
        """

    @checked()
    def prewarm(self, *, loop: asyncio.AbstractEventLoop | None = None) -> None:
        """Open connections in the background, so that the first reply is as fast as later ones.

        Works once per loop, ignores errors and costs no tokens. Does nothing if no loop is given
        and none is running.
        """
        try:
            here = asyncio.get_running_loop()
        except RuntimeError:
            here = None
        if loop is not None and loop is not here:
            loop.call_soon_threadsafe(self.prewarm)
        elif here is not None:
            known = self._prewarming
            if here not in known:
                task = here.create_task(self._prewarm(), name=f"prewarm {self._label}")
                # A new dict: other threads may be reading the old one.
                self._prewarming = {
                    loop: task for loop, task in known.items() if not loop.is_closed()
                } | {here: task}

    async def _prewarm(self) -> None:
        try:
            await self._prewarm_impl()
        except Exception as error:
            logger.debug("prewarming %s failed: %s", self._label, error)

    async def _prewarm_impl(self) -> None:
        """The provider's part of `prewarm`; protected, for subclasses."""

    async def aclose(self) -> None:
        """End running replies and free connections, within about a second. Idempotent."""
        here = asyncio.get_running_loop()
        # A copy first: other threads may be starting streams on loops of their own.
        endings: list[Awaitable[object]] = [
            stream.aclose() for stream in list(self._streams) if stream._loop is here
        ]
        if (prewarm := self._prewarming.get(here)) is not None:
            endings.append(cancel_and_wait(prewarm, timeout=_CLOSE_TIMEOUT))
        # Close all of them, even if the `aclose` of a subclass raises.
        for outcome in await asyncio.gather(*endings, return_exceptions=True):
            if isinstance(outcome, BaseException):
                raise outcome

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        exc_tb: TracebackType | None,
    ) -> None:
        await self.aclose()


class LLMStream(ABC):
    """One reply, while it is generated. Iterate over it or `collect` it, inside ``async with``.

    The request starts at once if an event loop is running, otherwise when the stream is first
    awaited.

    A stream that is dropped without being closed continues until the reply ends or a deadline
    passes. It stops reading when 1,024 chunks are unread, and fails after ten minutes without a
    read.

    Subclasses implement `_run` (one attempt), which puts chunks into `_event_ch`. They may use the
    attributes `_llm`, `_chat_ctx`, `_tools`, `_conn_options`, `_event_ch`, `_event_aiter` and
    `_task`. A failed attempt raises an `APIError`, whose `retryable` decides whether another attempt
    can help; the base class decides, waits, and calls `_run` again. It never does so when text or a
    tool call is already in the channel.
    """

    _request_span_name = "llm_request"

    # For subclasses that never call `__init__`; and Python stores up to 30 attributes compactly.
    _measures_itself = False
    _composed = False
    """The reply consists of the replies of other models, which report their costs themselves."""
    _asked_by: Callable[[], Asker | None] | None = None
    """The attempt of a composing LLM, such as a `FallbackAdapter`, that this stream belongs to."""
    _bill: Sequence[Price] = ()
    """The cost of each request of this reply, computed on demand."""
    _meter = Meter()
    _paused = False
    _closing = False
    _lost: APIError | None = None
    _seen_by: Callable[[ChatChunk, float], None] | None = None
    _span: AnyRequestSpan | None = None
    """While it runs."""
    _task: asyncio.Task[None] | None = None

    def __init__(
        self,
        llm: LLM[Any],
        *,
        chat_ctx: ChatContext,
        tools: list[Any],
        conn_options: APIConnectOptions,
    ) -> None:
        self._llm = llm
        self._chat_ctx = chat_ctx
        self._tools = tools
        self._conn_options = conn_options
        self._measures_itself = True
        self._meter = Meter()
        self._bill = []
        self._started_at = 0.0
        self._place: _watch.Part | None = None
        self._prompt: tuple[ChatItem, ...] = tuple(chat_ctx.items) if chat_ctx else ()
        try:
            loop = asyncio.get_running_loop()
        except RuntimeError:
            loop = None
        self._event_ch: Chan[ChatChunk] = Chan(
            observe=self._observe, waiting=self._about_to_wait, loop=loop
        )
        self._event_aiter: AsyncIterator[ChatChunk] = self._event_ch
        self._loop: asyncio.AbstractEventLoop | None = None
        self._now: Callable[[], float] = time.monotonic
        if loop is not None:
            self._start(loop)

    @property
    def chat_ctx(self) -> ChatContext:
        return self._chat_ctx

    @property
    def tools(self) -> list[Any]:
        return self._tools

    @abstractmethod
    async def _run(self) -> bool | None:
        """Make one attempt: put chunks into `_event_ch`, raise an `APIError` when it fails.

        Return True when the attempt put nothing there and asks for another one, which follows at
        once and does not count as a retry.
        """

    @property
    def finish_reason(self) -> str | None:
        """The provider's finish reason, or ``None`` while it is unknown."""
        return None

    @property
    def _answered_by(self) -> str | None:
        """The provider's name of the model that answers; ``None`` if unknown."""
        return None

    @property
    def pulse(self) -> Pulse:
        """A snapshot of the running reply: its last output, whether it is paused, its usage so far."""
        return Pulse(self._meter.progress_at, self._paused, self._meter.usage)

    # -- consuming ---------------------------------------------------------------------------

    def __aiter__(self) -> AsyncIterator[ChatChunk]:
        return self

    async def __anext__(self) -> ChatChunk:
        channel = self._event_ch
        # As `Chan.__anext__`, without a further coroutine for each chunk.
        if self._event_aiter is channel and type(channel) is Chan:
            while not (unread := channel.unread) and (news := channel.news()) is not None:
                try:
                    await news
                finally:
                    channel.receiver = None
            if unread:
                return unread.popleft() if channel.sender_waits is None else channel.take()
        else:  # a subclass has its own
            try:
                return await self._event_aiter.__anext__()
            except StopAsyncIteration:
                pass
        if self._lost is not None:
            raise self._lost
        if (task := self._task) is not None:
            if not task.done() and not self._closing:
                # The channel closes a moment before the task ends, with its outcome already fixed.
                await asyncio.wait((task,))
            if task.done() and not task.cancelled():
                error = task.exception()
                if error is not None:
                    raise error
        raise StopAsyncIteration

    async def collect(self) -> CollectedResponse:
        """Return the whole reply; the text is stripped. Closes the stream.

        Omits text that a `FallbackAdapter` discarded by a restart.

        Raises:
            APIError: the reply failed, or was closed before its end.
        """
        collector = Collector()
        async with self:
            async for chunk in self:
                collector.feed(chunk)
            if self.was_cut:
                raise APIConnectionError(
                    f"{self._llm.label}: the reply was closed before its end", retryable=False
                ).but(section="cut")
        return collector.whole()

    def to_str_iterable(self) -> AsyncIterable[str]:
        """Iterate over the text only. Closes the stream at the end.

        Raises:
            APIError: the reply failed.
        """

        async def texts() -> AsyncIterator[str]:
            async with self:
                async for chunk in self:
                    if chunk.delta is not None and chunk.delta.content:
                        yield chunk.delta.content

        return texts()

    @property
    def was_cut(self) -> bool:
        """Whether the reply was closed, or its task cancelled, before its end."""
        task = self._task
        return self._closing if task is None or not task.done() else task.cancelled()

    async def aclose(self) -> None:
        """Stop the reply if it still runs, and free its connection, within a second. Idempotent;
        never raises the error of the reply. Unread chunks can still be read."""
        again, self._closing = self._closing, True
        task = self._task
        if task is None:
            self._event_ch.close()
            return
        if task.done():
            return
        self._check_loop()
        if not again:  # a second cancellation would break into the clean-up after the first
            task.cancel()
        name = type(self).__qualname__
        if not await end(task, within=_CLOSE_TIMEOUT, name=name, cancelled=True, insist=True):
            self._event_ch.close()
            task.cancel()  # a third time, for a task that checks whether its result is still needed

    async def __aenter__(self) -> Self:
        if self._task is None:
            self._about_to_wait()
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        exc_tb: TracebackType | None,
    ) -> None:
        await self.aclose()

    # -- for subclasses ----------------------------------------------------------------------

    def _progressed(self) -> None:
        """The provider has sent output that is not a chunk yet (part of a tool call). Restarts the limits
        on silence."""
        self._meter.progress_at = self._now()

    async def _wait_for_consumer(self) -> None:
        """If `_event_ch.full`, wait until the consumer has caught up. The limits on silence do not
        apply meanwhile."""
        before, self._paused = self._paused, True
        try:
            if not await self._event_ch.drained_within(_FORGOTTEN):
                raise APITimeoutError(
                    f"{self._llm.label}: the reply was not read for {_FORGOTTEN:g} s; "
                    "close streams that are not read to their end",
                    retryable=False,
                ).but(section="not read")
        finally:
            self._paused = before
            if self._meter.progress_at is not None:
                self._progressed()

    @property
    def _metrics_task(self) -> asyncio.Future[None]:
        """Done when the metrics have been emitted; never raises. Subclasses written for LiveKit
        Agents await a task of this name in their `aclose`."""
        task = self._task
        told: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        if task is None or task.done():
            told.set_result(None)
        else:
            task.add_done_callback(lambda _: None if told.done() else told.set_result(None))
        return told

    # -- running -----------------------------------------------------------------------------

    def _observe(self, chunks: Sequence[ChatChunk]) -> None:
        now, meter = self._now(), self._meter
        before = meter.first_token_at
        meter.feed_all(chunks, now)
        if before is None and meter.first_token_at is not None and self._place is not None:
            self._place.note("useful")
        if self._seen_by is not None:
            for chunk in chunks:
                self._seen_by(chunk, now)

    def _check_loop(self) -> None:
        if self._loop is not asyncio.get_running_loop():
            told = (
                f"{type(self).__qualname__} runs on another event loop than this one; "
                "use a stream on the loop where it was started (the LLM itself may serve several)"
            )
            raise RuntimeError(explained(told, "other loop"))

    def _about_to_wait(self) -> None:
        if self._task is not None:
            self._check_loop()
        elif not self._closing:
            self._start(asyncio.get_running_loop())

    def _abandon(self, error: APIError) -> None:
        """Raise `error` in the consumer although the attempt has not ended and may never end."""
        logger.error(
            "%s did not end within %g s of its deadline; it was left behind",
            type(self).__qualname__,
            _CLOSE_TIMEOUT,
        )
        self._lost = error
        self._event_ch.close()

    def _start(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._now = loop.time
        self._task = loop.create_task(self._main_task(), name=f"{self._llm._label} reply")
        self._llm._streams.add(self)
        self._task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._llm._streams.discard(self)
        self._event_ch.close()  # even if the task was cancelled before its first step
        if not task.cancelled():
            task.exception()  # it reaches the consumer; asyncio must not report it as lost

    async def _main_task(self) -> None:
        from rejoinder.telemetry._spans import request_span

        if self._task is None:
            # With eager tasks, this runs inside `__init__`. Wait until the subclass and the task exist.
            await asyncio.sleep(0)
        llm = self._llm
        loop = asyncio.get_running_loop()
        self._started_at = loop.time()
        asker = self._asked_by() if self._asked_by is not None else None
        span = self._span = request_span(
            llm,
            name=self._request_span_name,
            history=self._prompt,
            composed=self._composed,
            candidate=None if asker is None else asker.index,
            started_at=self._started_at,
        )
        if span.sees_chunks:
            self._seen_by = span.see
        outcome: BaseException | None = None
        try:
            await self._attempts(loop, span)
        except BaseException as error:
            outcome = error
            raise
        finally:
            try:
                self._tell(span, outcome)
            except Exception:  # from a subclass's property or a tracer: no reason to lose a reply
                logger.exception("%s: cannot compute the cost of a reply", llm.label)
            self._event_ch.close()
        # All went well, so `_ended` has nothing left to do, and its turn of the loop can be saved.
        llm._streams.discard(self)
        if self._task is not None:
            self._task.remove_done_callback(self._ended)

    def _tell(self, span: AnyRequestSpan, outcome: BaseException | None) -> None:
        """Emit the metrics, if there is a listener, and end the span."""
        llm, meter, now = self._llm, self._meter, self._now()
        failed = isinstance(outcome, Exception)
        metrics: LLMMetrics | None = None
        try:
            if not self._composed and meter.billable and (meter.committed or not failed):
                self._bill = [*self._bill, self._priced(cut=outcome is not None)]
                if span.recorded or llm._is_heard("metrics_collected"):
                    metrics = meter.report(
                        label=llm.label,
                        metadata=Metadata(**llm.metrics_metadata),
                        timestamp=_stamps.wall_now(),
                        started_at=self._started_at,
                        now=now,
                        cancelled=isinstance(outcome, asyncio.CancelledError),
                        failed=failed,
                        prompt=self._prompt,
                    )
        finally:
            self._span = None
            if span.recorded:
                asker = self._asked_by() if self._asked_by is not None else None
                span.leave()
                finish = partial(
                    span.finish,
                    metrics=metrics,
                    finish_reason=self.finish_reason,
                    answered_by=self._answered_by,
                    first_token_at=meter.first_token_at,
                    outcome=outcome,
                    now=now,
                )
                (asker or ASKED_FOR_ITSELF).when_decided(finish)
            if metrics is not None:
                llm._emit_from(self, "metrics_collected", metrics)

    async def _attempts(self, loop: asyncio.AbstractEventLoop, span: AnyRequestSpan) -> None:
        options = self._conn_options
        total = math.inf if options.total is None else options.total
        deadlines = Deadlines(options.first_output_timeout, options.between_outputs_timeout, total)
        attempt = 0
        while True:
            try:
                if span.recorded or _watch.is_watched():
                    with span.attempt(attempt), _watch.attempt(attempt, self._llm) as self._place:
                        again = await self._attempt(loop, deadlines)
                else:
                    again = await self._attempt(loop, deadlines)
                if not again:
                    return
                self._meter = Meter()
            except APIError as error:
                if self._closing:  # the attempt turned its cancellation into a failure
                    raise asyncio.CancelledError from error
                # With a closed channel or a cancelled task, another attempt is useless.
                committed = self._meter.committed or self._event_ch.closed or self._cancelled()
                if committed:
                    error.retryable = False
                decision = retry.after(
                    attempt,
                    error,
                    committed=committed,
                    options=options,
                    now=loop.time(),
                    deadline=self._started_at + total,
                    jitter=random.random(),  # noqa: S311  spreads retries, hides nothing
                )
                self._emit_error(error, recoverable=isinstance(decision, retry.Wait))
                if not isinstance(decision, retry.Wait):
                    if decision.reason == "no attempts left" and attempt > 0:
                        raise APIConnectionError(
                            f"{self._llm.label}: no reply after {attempt + 1} attempts"
                        ) from error
                    raise
                logger.warning(
                    "%s: attempt %d failed, next in %.2g s: %s",
                    self._llm.label,
                    attempt + 1,
                    decision.delay,
                    error,
                )
                _watch.note("retry", after=decision.delay)
                await asyncio.sleep(decision.delay)
                attempt += 1
                self._meter = Meter()
            except Exception as error:
                self._emit_error(error, recoverable=False)
                raise

    async def _attempt(self, loop: asyncio.AbstractEventLoop, deadlines: Deadlines) -> bool:
        """One `_run`, with its deadlines. Returns whether it asks for another one."""
        task = self._task
        if task is None or task is not asyncio.current_task():
            raise RuntimeError("an attempt runs in the task of its stream, and in no other")
        now, started_at = loop.time(), self._started_at
        patience = Patience(deadlines, started_at, now, lambda: self.pulse)
        deadline = Deadline(
            patience.moment,
            stalled=patience.excuse,
            # An output, or the end of a pause, can restart the limit on silence.
            interval=deadlines.between_outputs,
            abandon=lambda: self._abandon(self._overdue(patience)),
            insist=_CLOSE_TIMEOUT / 2,
            first=min(now + deadlines.first_output, started_at + deadlines.total),
            task=task,
        )
        cause: BaseException | None = None
        try:
            again = await self._run()
        except asyncio.CancelledError as error:
            if not deadline.end():
                if self._cancelled():
                    raise
                # This reply was not cancelled, so it must not look complete.
                raise APIConnectionError(
                    f"{self._llm.label}: something that the attempt waited for was cancelled"
                ) from error
        except Exception as error:
            if not deadline.end():
                if isinstance(error, StopAsyncIteration):  # it would look like the reply's end
                    raise RuntimeError(
                        f"{type(self).__qualname__}._run raised StopAsyncIteration"
                    ) from error
                raise
            cause = error
        except BaseException:
            deadline.end()
            raise
        else:
            if not deadline.end():
                if self._closing:
                    raise asyncio.CancelledError
                return again is True
        raise self._overdue(patience) from cause

    def _overdue(self, patience: Patience) -> APITimeoutError:
        """The error for the time limit that has passed; protected, for subclasses."""
        return patience.overdue(self._llm.label)

    def _cancelled(self) -> bool:
        """Whether the task of this stream was cancelled by anything but its own deadlines."""
        return self._closing or (self._task is not None and self._task.cancelling() > 0)

    def _priced(self, *, cut: bool) -> Price:
        names, at = self._llm.metrics_metadata, _stamps.wall_now()
        return partial(self._meter.cost, names, at, self._prompt, cut=cut)

    def _costs(self) -> list[float | None]:
        return [price() for price in self._bill]

    def _owed(self) -> list[float | None]:
        """US dollars of each request for this reply so far. If the running request is about to be cut,
        its missing token counts are estimated. ``None``: not known."""
        costs = self._costs()
        if self._span is not None:
            costs.append(self._priced(cut=True)() if self._meter.billable else None)
        return costs

    def _emit_error(self, error: Exception, *, recoverable: bool) -> None:
        now, name = _stamps.wall_now(), self._llm.label
        event = LLMError(timestamp=now, label=name, error=error, recoverable=recoverable)
        self._llm.emit("error", event)
