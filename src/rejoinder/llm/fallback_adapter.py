"""FallbackAdapter: several models that answer as one, so that nobody hears a silence.

The adapter keeps its own clock: a model that opens a stream and says nothing is replaced, whatever
keep-alives it sends. What it had sent before anything useful is held back, so a dead attempt leaves
no trace. Whom to ask, when to ask twice and who rests is decided in `_core.candidates` and
`_core.hedge`; this file starts and cancels what they say.
"""

from __future__ import annotations

import asyncio
import dataclasses
import logging
import math
import os
import random
from collections.abc import Callable, Sequence
from contextvars import ContextVar
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from rejoinder import _stamps
from rejoinder._core.candidates import (
    Action,
    BreakerOptions,
    Cancel,
    Conclude,
    Failure,
    Health,
    Limits,
    Race,
    Start,
    Win,
    after_failure,
    after_success,
    judge,
    may_probe,
    order,
    probing,
)
from rejoinder._core.chunks import ChatChunk, ChoiceDelta
from rejoinder._core.estimates import estimate_history
from rejoinder._core.hedge import Gate, Hedge, Pace
from rejoinder._core.overlap import Overlap, last_words, whitespace_tail
from rejoinder.errors import APIConnectionError, APIError, APITimeoutError
from rejoinder.llm._breakers import Breakers, HealthStore
from rejoinder.llm.chat_context import ChatContext
from rejoinder.llm.llm import LLM, LLMStream
from rejoinder.metrics import LLMMetrics, Metadata
from rejoinder.types import NOT_GIVEN, APIConnectOptions, NotGivenOr, is_given

if TYPE_CHECKING:
    from rejoinder.llm.tool_context import ToolChoice

__all__ = [
    "DEFAULT_FALLBACK_API_CONNECT_OPTIONS",
    "AvailabilityChangedEvent",
    "BreakerOptions",
    "FallbackAdapter",
    "FallbackLLMStream",
    "HealthStore",
    "Hedge",
    "TurnBudget",
]

logger = logging.getLogger("rejoinder")

DEFAULT_FALLBACK_API_CONNECT_OPTIONS = APIConnectOptions(max_retry=0, timeout=10.0)

OnCut = Literal["stop", "restart", "resume"]

_CONTINUE = (
    "Your previous reply was cut off. Continue it from exactly where it stops, in the same language, "
    "and do not comment on the interruption. To show where you take it up, begin with its last "
    "words, exactly as they are here, without quotation marks: {last}"
)

_HELD = 256
"""Chunks that are held back as they are, before the first useful one; of more, the content."""
_LOOP_TURNS = 5
"""How often the event loop goes round before a time that is up counts: in that time arrives what lay
waiting while something else kept the loop busy."""
_SEEING_OFF = 0.02
"""Seconds that the end of a turn waits for attempts that were cancelled: enough for all that close
their connections in order, and too short to be heard."""
_CLOSING = 0.8
"""The same, when the consumer closes the stream; less than what that may take."""


@dataclass(frozen=True)
class TurnBudget:
    """What one turn may cost in time and tokens, whichever models it needs.

    Args:
        first_token_by: seconds from the call of `chat` to the first text or tool call of any model.
            ``None``: no other limit than `attempt_timeout` for each model.
        next_token_within: seconds between two outputs of the model that speaks. ``None``: the
            adapter's `attempt_timeout`; 0: no limit.
        done_by: seconds from the call of `chat` to the end of the reply. ``None``: no limit.
        max_extra_tokens: tokens that may be spent on words nobody hears, or hears twice: on hedges
            that lose, and on restarting or resuming a reply that was cut. Estimated from the lengths
            of texts. ``None``: no limit.
        thinking_is_progress: a model that shows its reasoning is not silent.

    The defaults are those of the reference. A budget that cannot be met fails when its time is up,
    with an `APITimeoutError` (`done_by`) or the error that names all models (`first_token_by`).

    Raises:
        ValueError: a number is negative, or the first token may come later than the end.
    """

    first_token_by: float | None = None
    next_token_within: float | None = None
    done_by: float | None = None
    max_extra_tokens: int | None = None
    thinking_is_progress: bool = True

    def __post_init__(self) -> None:
        for name in ("first_token_by", "next_token_within", "done_by", "max_extra_tokens"):
            value = getattr(self, name)
            if value is not None and not value >= 0:
                raise ValueError(f"TurnBudget.{name}: expected at least 0, got {value!r}")
        if (
            self.first_token_by is not None
            and self.done_by is not None
            and self.first_token_by > self.done_by
        ):
            raise ValueError(
                f"TurnBudget cannot be met: the first token by {self.first_token_by:g} s is later "
                f"than the end of the reply by {self.done_by:g} s"
            )


@dataclass
class AvailabilityChangedEvent:
    """Payload of ``"llm_availability_changed"``: a model began to rest, or came back."""

    llm: LLM[Any]
    available: bool


class FallbackAdapter(LLM[Literal["llm_availability_changed"]]):
    """Several models, asked one after the other until one answers.

    Args:
        llm: the models, the preferred one first. They stay yours: `aclose` of the adapter does not
            close them. The same model given twice is asked twice, and rests as one.
        attempt_timeout: seconds that each model has for its first text or tool call; 0: no limit.
            Keep-alives, role-only, empty, blank and usage-only chunks do not count. While a model
            shows that it thinks, or sends the arguments of a tool call, the time starts anew.
        max_retry_per_llm: further attempts with the same model before the next one is asked.
        retry_interval: seconds between them.
        retry_on_chunk_sent: when a model fails in mid-reply, go on with the next one, whose whole
            answer follows what was said already. Never after a tool call. See `on_cut` for better
            ways.
        budget: limits on the whole turn.
        hedge: ask the next model too when the first one is slow; off by default.
        on_cut: what happens when a model fails after it has said something. ``"stop"``: its error
            is raised. ``"restart"``: a chunk whose ``delta.extra["rejoinder"]`` says ``{"event":
            "restart", "discard": text so far, ...}``, then the next model's whole answer.
            ``"resume"``: the next model continues the sentence. After a tool call, ``"restart"``
            raises and ``"resume"`` ends the reply there: the call is complete, and a second model
            might make it again.
        breaker: how long failed models rest.
        shared_state: path of a file in which all processes of this host share what they know of the
            models (SQLite, made if missing), or a `HealthStore` of your own.

    Events, besides those of every `LLM`: ``"llm_availability_changed"`` with an
    `AvailabilityChangedEvent`. The metrics of the models are emitted again by the adapter, those of
    lost hedges and of probes with their `LLMMetrics.purpose`.

    Raises:
        ValueError: no models.
    """

    def __init__(
        self,
        llm: list[LLM[Any]],
        *,
        attempt_timeout: float = 5.0,
        max_retry_per_llm: int = 0,
        retry_interval: float = 0.5,
        retry_on_chunk_sent: bool = False,
        budget: TurnBudget | None = None,
        hedge: Hedge | None = None,
        on_cut: OnCut = "stop",
        breaker: BreakerOptions | None = None,
        shared_state: str | os.PathLike[str] | HealthStore | None = None,
    ) -> None:
        if not llm:
            raise ValueError("FallbackAdapter: expected at least one LLM, got an empty list")
        for model in llm:
            if not isinstance(model, LLM):
                raise TypeError(
                    f"FallbackAdapter: expected instances of LLM, got {type(model).__name__}"
                )
        if on_cut not in ("stop", "restart", "resume"):
            raise ValueError(
                f"FallbackAdapter.on_cut: expected 'stop', 'restart' or 'resume', got {on_cut!r}"
            )
        for name, value in (
            ("attempt_timeout", attempt_timeout),
            ("max_retry_per_llm", max_retry_per_llm),
            ("retry_interval", retry_interval),
        ):
            if not value >= 0:
                raise ValueError(f"FallbackAdapter.{name}: expected at least 0, got {value!r}")
        super().__init__()
        self._llm_instances = llm
        self._attempt_timeout = attempt_timeout
        self._max_retry_per_llm = max_retry_per_llm
        self._retry_interval = retry_interval
        self._retry_on_chunk_sent = retry_on_chunk_sent
        self._budget = budget or TurnBudget()
        self._on_cut: OnCut = on_cut
        self._breaker_options = breaker or BreakerOptions()
        self._keys = [_key(llm, index) for index in range(len(llm))]
        self._breakers = Breakers(self._keys, shared_state)
        self._available = dict.fromkeys(self._keys, True)
        self._gate = None if hedge is None else Gate(hedge)
        self._paces = {key: Pace(200 if hedge is None else hedge.window) for key in self._keys}
        self._probes: set[asyncio.Task[None]] = set()
        self._leaving: set[asyncio.Task[None]] = set()
        self._listening = True
        self._speaking: LLM[Any] | None = None
        for model in llm:
            model.on("metrics_collected", self._on_metrics)

    @property
    def model(self) -> str:
        return "FallbackAdapter"

    @property
    def provider(self) -> str:
        return "livekit"

    @property
    def metrics_metadata(self) -> dict[str, str]:
        """Of the model that spoke last."""
        return (
            super().metrics_metadata if self._speaking is None else self._speaking.metrics_metadata
        )

    @property
    def continues_prefill(self) -> bool:
        """Whether all of the models do."""
        return all(model.continues_prefill for model in self._llm_instances)

    def _continues(self, extra_kwargs: NotGivenOr[dict[str, Any]]) -> bool:
        return all(model._continues(extra_kwargs) for model in self._llm_instances)

    @property
    def llms(self) -> Sequence[LLM[Any]]:
        """The models, in the order in which they are asked."""
        return tuple(self._llm_instances)

    def availability(self) -> list[bool]:
        """Which of the models are asked at present, in their order."""
        return [health.available for health in self._breakers.read()]

    def chat(
        self,
        *,
        chat_ctx: ChatContext,
        tools: list[Any] | None = None,
        conn_options: APIConnectOptions = DEFAULT_FALLBACK_API_CONNECT_OPTIONS,
        parallel_tool_calls: NotGivenOr[bool] = NOT_GIVEN,
        tool_choice: NotGivenOr[ToolChoice] = NOT_GIVEN,
        extra_kwargs: NotGivenOr[dict[str, Any]] = NOT_GIVEN,
    ) -> LLMStream:
        return FallbackLLMStream(
            self,
            chat_ctx=chat_ctx,
            tools=tools or [],
            conn_options=conn_options,
            parallel_tool_calls=parallel_tool_calls,
            tool_choice=tool_choice,
            extra_kwargs=extra_kwargs,
        )

    def prewarm(self, *, loop: asyncio.AbstractEventLoop | None = None) -> None:
        """Prewarm all models: the one that has to step in should not be the slow one."""
        for model in self._llm_instances:
            try:
                if loop is None:
                    model.prewarm()
                else:
                    model.prewarm(loop=loop)
            except Exception as error:
                logger.debug("prewarming %s failed: %s", model.label, error)

    async def aclose(self) -> None:
        """End replies and probes that still run, and let go of the models, which stay open. The
        adapter can still be used; it only does not report their metrics any more."""
        loop = asyncio.get_running_loop()
        for probe in self._probes:
            if probe.get_loop() is loop:
                probe.cancel()
        leaving = [t for t in (*self._probes, *self._leaving) if t.get_loop() is loop]
        await asyncio.gather(super().aclose(), _gone(leaving, timeout=1.0))
        for task in (*self._probes, *self._leaving):
            if task.get_loop() is loop:
                task.cancel()  # whoever still clings has had the time to close in order
        self._listening = False
        for model in self._llm_instances:
            model.off("metrics_collected", self._on_metrics)
        if self._breakers.shared:
            # The last one out tidies the file up, which takes milliseconds.
            await asyncio.to_thread(self._breakers.close)

    # -- health ------------------------------------------------------------------------------

    def _healths(self) -> list[Health]:
        healths = self._breakers.read()
        for index, health in enumerate(healths):
            self._announce(index, health.available)
        return healths

    def _announce(self, index: int, available: bool) -> None:
        key = self._keys[index]
        if self._available[key] != available:
            self._available[key] = available
            model = self._llm_instances[index]
            self.emit("llm_availability_changed", AvailabilityChangedEvent(model, available))

    def _failed(self, index: int, error: BaseException, started: float = math.inf) -> None:
        """A call that was made at `started` (wall time) has failed."""
        verdict = judge(error)
        if not verdict.trips:
            return
        now = _stamps.wall_now()
        self._change(
            index,
            lambda health: after_failure(
                health,
                verdict,
                reason=_in_a_word(error),
                now=now,
                jitter=random.random(),  # noqa: S311  spreads rests, hides nothing
                options=self._breaker_options,
                started=started,
            ),
        )

    def _succeeded(self, index: int, started: float, *, probe: bool = False) -> None:
        """A call that was made at `started` (wall time) was answered."""
        if self._breakers.known(self._keys[index]).untroubled:
            return
        now = _stamps.wall_now()
        self._change(
            index, lambda health: after_success(health, started=started, now=now, probe=probe)
        )

    def _change(self, index: int, step: Callable[[Health], Health]) -> bool:
        """Take a step in the health of a model; returns whether it was one."""
        before, after = self._breakers.change(self._keys[index], step)
        self._announce(index, after.available)
        return before != after

    def _see_off(self, tasks: Sequence[asyncio.Task[None]]) -> None:
        """Keep hold of attempts that were cancelled until they are gone."""
        for task in tasks:
            if not task.done():
                self._leaving.add(task)
                task.add_done_callback(self._leaving.discard)

    # -- probes ------------------------------------------------------------------------------

    def _probe_rested(self, healths: Sequence[Health]) -> None:
        """Send a probe to each model whose rest is over, if nobody else has."""
        now = _stamps.wall_now()
        options = self._breaker_options
        for index, health in enumerate(healths):
            if not may_probe(health, now):
                continue
            if self._change(
                index,
                lambda health: probing(health, now, options) if may_probe(health, now) else health,
            ):
                probe = asyncio.create_task(
                    self._probe(index), name=f"probe {self._llm_instances[index].label}"
                )
                self._probes.add(probe)
                probe.add_done_callback(self._probes.discard)

    async def _probe(self, index: int) -> None:
        """Ask for one word, and hear whether the model speaks."""
        timeout = self._breaker_options.probe_timeout
        started = _stamps.wall_now()
        question = ChatContext.empty()
        question.add_message(role="user", content="Say: ok")
        child = _Child(self, index, purpose="probe")
        _CHILD.set(child)
        try:
            async with asyncio.timeout(timeout):
                stream = child.ask(
                    chat_ctx=question,
                    tools=[],
                    conn_options=APIConnectOptions(max_retry=0, timeout=timeout),
                )
                async with stream:
                    async for chunk in stream:
                        if chunk.has_response() or (chunk.delta and chunk.delta.thinking):
                            break
        except TimeoutError:
            self._failed(index, APITimeoutError(f"the probe got no answer within {timeout:g} s"))
        except asyncio.CancelledError:
            # Somebody else may try at once.
            self._change(
                index,
                lambda health: (
                    dataclasses.replace(health, until=_stamps.wall_now())
                    if health.state == "half_open"
                    else health
                ),
            )
            raise
        except Exception as error:
            verdict = judge(error)
            if verdict.trips:
                self._failed(index, error)
            else:  # it is up, whatever it thinks of the question
                self._succeeded(index, started, probe=True)
        else:
            self._succeeded(index, started, probe=True)
        finally:
            child.settle(question)

    # -- metrics -----------------------------------------------------------------------------

    def _on_metrics(self, metrics: LLMMetrics) -> None:
        child = _CHILD.get()
        while child is not None and child.adapter is not self:
            child = child.asked_by  # an adapter among the models has attempts of its own
        if child is not None:
            child.report(metrics)
        else:  # somebody asked the model directly
            self.emit("metrics_collected", metrics)


_CHILD: ContextVar[_Child | None] = ContextVar("rejoinder_fallback_child", default=None)
"""Which attempt a task works for: the task of a child's stream inherits it."""


class _Child:
    """One model asked once."""

    def __init__(
        self,
        adapter: FallbackAdapter,
        index: int,
        *,
        purpose: Literal["reply", "hedge", "probe"] | None = None,
    ) -> None:
        self.adapter = adapter
        self.index = index
        self.llm = adapter._llm_instances[index]
        self.purpose: Literal["reply", "hedge", "probe"] | None = purpose
        self.asked_by = _CHILD.get()
        self.chat_ctx: ChatContext | None = None
        self.stream: LLMStream | None = None
        self.task: asyncio.Task[None] | None = None
        self.overlap: Overlap | None = None
        self.started_at = 0.0
        self.started_wall = _stamps.wall_now()
        self.gone = False
        """Cancelled: whatever it still does, the turn goes on without it."""
        self.heard_at = -math.inf
        """The last chunk of the winner, the last thinking of the others."""
        self.blank_at = -math.inf
        """The last text that was nothing but white space."""
        self._reports: list[LLMMetrics] = []
        self._measured = False
        self._settled = False
        self._held: list[ChatChunk] = []
        self._more_thinking: list[str] = []
        self._more_usage: ChatChunk | None = None

    def ask(self, *, chat_ctx: ChatContext, **arguments: Any) -> LLMStream:
        self.chat_ctx = chat_ctx
        self.stream = self.llm.chat(chat_ctx=chat_ctx, **arguments)
        return self.stream

    # -- what is held back -------------------------------------------------------------------

    def hold(self, chunk: ChatChunk) -> None:
        """Keep a chunk until it is known whether anybody hears this model. Somebody who thinks, or
        announces himself, without end must not fill the memory."""
        if len(self._held) < _HELD:
            self._held.append(chunk)
            return
        if chunk.usage is not None:
            self._more_usage = chunk
        delta = chunk.delta
        if delta is None:
            return
        if delta.content or delta.tool_calls or delta.extra:
            self._pour()
            self._held.append(chunk)
        elif delta.thinking:
            self._more_thinking.append(delta.thinking)

    def release(self) -> list[ChatChunk]:
        self._pour()
        if self._more_usage is not None and self._more_usage not in self._held:
            self._held.append(self._more_usage)
        held, self._held = self._held, []
        return held

    def _pour(self) -> None:
        if self._more_thinking:
            thinking = "".join(self._more_thinking)
            self._more_thinking = []
            self._held.append(
                ChatChunk(
                    id=self._held[-1].id, delta=ChoiceDelta(role="assistant", thinking=thinking)
                )
            )

    # -- signs of life -----------------------------------------------------------------------

    def working_at(self, *, winner: bool) -> float:
        """When it last gave a sign that it is at work; only its stream sees the parts of a tool
        call."""
        stream = self.stream
        if isinstance(stream, FallbackLLMStream):
            return max(self.heard_at, stream._working_at())
        meter = getattr(stream, "_meter", None)
        inside = None if meter is None else meter.progress_at
        if inside is None or (not winner and inside <= self.blank_at):
            return self.heard_at
        return max(self.heard_at, inside)

    # -- what it costs -----------------------------------------------------------------------

    def report(self, metrics: LLMMetrics) -> None:
        """The model says what the attempt cost: passed on as soon as it is known what for."""
        if self._settled:
            return  # it took too long to say so: an estimate went out
        if metrics.purpose != "probe":
            self._measured = True
        if self.purpose is None:
            self._reports.append(metrics)
            return
        if self.purpose != "reply" and metrics.purpose == "reply":
            metrics = metrics.model_copy(update={"purpose": self.purpose})
        self.adapter.emit("metrics_collected", metrics)

    def decide(self, purpose: Literal["reply", "hedge"]) -> None:
        """It is known what the attempt was for."""
        if self.purpose is None:
            self.purpose = purpose
            reports, self._reports = self._reports, []
            for metrics in reports:
                self.report(metrics)

    def settle(self, chat_ctx: ChatContext) -> None:
        """See to it that what nobody heard is accounted for, if only by an estimate."""
        if self._measured or self.stream is None or self.purpose in (None, "reply"):
            return
        if not self.adapter._listening:
            return
        self._measured = self._settled = True
        tokens = estimate_history(chat_ctx.items)
        names = self.llm.metrics_metadata
        self.adapter.emit(
            "metrics_collected",
            LLMMetrics(
                label=self.llm.label,
                request_id="",
                timestamp=_stamps.wall_now(),
                duration=max(0.0, _stamps.wall_now() - self.started_wall),
                ttft=-1.0,
                cancelled=True,
                completion_tokens=0,
                prompt_tokens=tokens,
                prompt_cached_tokens=0,
                total_tokens=tokens,
                tokens_per_second=0.0,
                metadata=Metadata(
                    model_name=names.get("model_name"), model_provider=names.get("model_provider")
                ),
                estimated=True,
                purpose=self.purpose or "reply",
            ),
        )


class FallbackLLMStream(LLMStream):
    """A reply of a `FallbackAdapter`."""

    _request_span_name = "llm_fallback_adapter"

    def __init__(
        self,
        llm: FallbackAdapter,
        *,
        chat_ctx: ChatContext,
        tools: list[Any],
        conn_options: APIConnectOptions,
        parallel_tool_calls: NotGivenOr[bool] = NOT_GIVEN,
        tool_choice: NotGivenOr[ToolChoice] = NOT_GIVEN,
        extra_kwargs: NotGivenOr[dict[str, Any]] = NOT_GIVEN,
    ) -> None:
        self._adapter = llm
        # A later model must get what the first one got, whatever has been said meanwhile.
        self._history = chat_ctx.copy()
        self._offered = list(tools)
        self._parallel_tool_calls = parallel_tool_calls
        self._tool_choice = tool_choice
        self._extra_kwargs = dict(extra_kwargs) if is_given(extra_kwargs) else extra_kwargs
        self._children: list[_Child] = []
        self._winner: _Child | None = None
        self._first: _Child | None = None
        self._said: list[str] = []
        self._called = False
        self._extra_tokens = 0
        self._resuming = False
        self._cut_by: BaseException | None = None
        self._failures_before = 0
        budget = llm._budget
        next_token = budget.next_token_within
        if next_token is None:
            next_token = conn_options.between_outputs
        self._child_options = dataclasses.replace(
            conn_options,
            max_retry=llm._max_retry_per_llm,
            timeout=llm._attempt_timeout,
            retry_interval=llm._retry_interval,
            first_output=None,
            between_outputs=next_token,
            total=None,
        )
        self._limits = Limits(
            attempt=_patience(llm),
            first_token_by=min(
                _or_inf(budget.first_token_by), _or_inf(conn_options.first_output or None)
            ),
            next_token=(llm._attempt_timeout if next_token is None else next_token) or math.inf,
            thinking_is_progress=budget.thinking_is_progress,
        )
        total = min(_or_inf(budget.done_by), _or_inf(conn_options.total))
        super().__init__(
            llm,
            chat_ctx=chat_ctx,
            tools=tools,
            # Silence is judged by the race below, not by the base class.
            conn_options=dataclasses.replace(
                conn_options,
                first_output=math.inf,
                between_outputs=math.inf,
                total=None if total == math.inf else total,
            ),
        )

    @property
    def chat_ctx(self) -> ChatContext:
        """Of the model that spoke first; before that, what was given."""
        child = self._first
        if child is None or child.stream is None or child.stream.chat_ctx is child.chat_ctx:
            return self._chat_ctx
        return child.stream.chat_ctx

    @property
    def tools(self) -> list[Any]:
        child = self._first
        if child is None or child.stream is None or child.stream.tools == self._offered:
            return self._tools
        return child.stream.tools

    def _emit_metrics(self, metrics: LLMMetrics) -> None:
        """The models report what they cost; the adapter adds nothing to it."""

    async def _run(self) -> None:
        adapter = self._adapter
        loop = asyncio.get_running_loop()
        healths = adapter._healths()
        candidates, nobody_available = order(healths)
        if not nobody_available:
            adapter._probe_rested(healths)
        delay = None
        if adapter._gate is not None and len(candidates) > 1 and self._affordable():
            pace = adapter._paces[adapter._keys[candidates[0]]]
            all_available = not nobody_available and len(candidates) == len(healths)
            delay = adapter._gate.delay(pace, all_available=all_available)
        items = self._history.items
        self._race = Race(
            candidates,
            self._limits,
            started_at=loop.time(),
            hedge_delay=delay,
            empty_is_fine=bool(items) and items[-1].type == "function_call_output",
            may_hedge=self._may_hedge,
        )
        self._children = []
        self._timer: asyncio.Handle | None = None
        self._turns = 0
        self._over: asyncio.Future[None] = loop.create_future()
        try:
            self._do(self._race.begin(loop.time()))
            await self._over
        finally:
            if self._timer is not None:
                self._timer.cancel()
            if self._over.done() and not self._over.cancelled():
                self._over.exception()  # seen, also when a cancellation came first
            if adapter._gate is not None:
                adapter._gate.turned()
            for child in self._children:
                child.decide("reply")
                if child.task is not None and not child.gone:
                    child.gone = True
                    child.task.cancel()
            tasks = [child.task for child in self._children if child.task is not None]
            adapter._see_off(tasks)
            await _gone(tasks, timeout=_CLOSING if self._closing else _SEEING_OFF)

    def _working_at(self) -> float:
        """When any of the models that are being asked last gave a sign that it is at work."""
        return max(
            (
                child.working_at(winner=child is self._winner)
                for child in self._children
                if not child.gone
            ),
            default=-math.inf,
        )

    def _may_hedge(self) -> bool:
        gate = self._adapter._gate
        return gate is not None and all(self._adapter._available.values()) and gate.take()

    # -- acting on decisions -----------------------------------------------------------------

    def _do(self, actions: Sequence[Action]) -> None:
        for action in actions:
            match action:
                case Start():
                    self._ask(action)
                case Cancel():
                    self._cancel(action)
                case Win(attempt=attempt):
                    self._win(self._children[attempt])
                case Conclude():
                    self._conclude(action)
        self._set_timer()

    def _set_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._turns = 0
        due = self._race.due()
        if due != math.inf and not self._over.done():
            self._timer = asyncio.get_running_loop().call_at(due, self._tick)

    def _tick(self) -> None:
        loop = asyncio.get_running_loop()
        now = loop.time()
        if self._race.due() <= now and self._turns < _LOOP_TURNS:
            self._turns += 1
            self._timer = loop.call_soon(self._tick)
            return
        for attempt, child in enumerate(self._children):
            if child is not self._winner:
                at = child.working_at(winner=False)
            elif self._paused or getattr(child.stream, "_paused", False):
                at = now  # the consumer has enough to read: nothing is owed
            else:
                at = child.working_at(winner=True)
            self._race.progressed(attempt, at)
        self._do(self._race.tick(now))

    def _ask(self, start: Start) -> None:
        child = _Child(self._adapter, start.candidate)
        child.started_at = asyncio.get_running_loop().time()
        self._children.append(child)
        if start.hedge:
            logger.debug(
                "%s keeps silent, asking %s too", self._children[0].llm.label, child.llm.label
            )
        child.task = asyncio.create_task(
            self._listen(start.attempt, child), name=f"fallback {child.llm.label}"
        )
        child.task.add_done_callback(self._listened)

    def _listened(self, task: asyncio.Task[None]) -> None:
        error = None if task.cancelled() else task.exception()
        if error is not None and not self._over.done():  # whatever broke, the turn has an end
            self._over.set_exception(error)

    async def _listen(self, attempt: int, child: _Child) -> None:
        """Read one model's reply, and tell the race what it says."""
        _CHILD.set(child)
        error: Exception | None = None
        whole = False
        race = self._race
        now = asyncio.get_running_loop().time
        try:
            stream = child.ask(
                chat_ctx=self._history_for(child),
                tools=list(self._offered),
                conn_options=self._child_options,
                parallel_tool_calls=self._parallel_tool_calls,
                tool_choice=self._tool_choice,
                extra_kwargs=dict(self._extra_kwargs)
                if is_given(self._extra_kwargs)
                else self._extra_kwargs,
            )
            async with stream:
                async for chunk in stream:
                    if self._winner is child and not child.gone:
                        child.heard_at = now()
                        self._forward(child, chunk)
                        if self._event_ch.full:
                            await self._wait_for_consumer()
                        continue
                    child.hold(chunk)
                    delta = chunk.delta
                    if delta is None:
                        continue
                    if delta.tool_calls or (delta.content and not delta.content.isspace()):
                        self._do(race.useful(attempt, now()))
                    elif delta.content:
                        child.blank_at = now()
                    elif delta.thinking:
                        child.heard_at = now()
                whole = True
            task = getattr(stream, "_task", None)
            if task is not None and task.done() and task.cancelled():
                error = APIConnectionError(
                    "the model's stream was cancelled, perhaps by its aclose"
                )
        except asyncio.CancelledError:
            task = asyncio.current_task()
            if task is None or task.cancelling():
                raise
            error = APIConnectionError("the model's stream was cancelled by somebody else")
        except Exception as caught:
            if whole:  # it has answered; how it closes is its own affair
                logger.warning("closing the stream of %s failed: %s", child.llm.label, caught)
            else:
                error = caught
        self._child_ended(attempt, child, error)

    def _win(self, child: _Child) -> None:
        adapter = self._adapter
        took = asyncio.get_running_loop().time() - child.started_at
        adapter._paces[adapter._keys[child.index]].add(took)
        self._hear(child)

    def _hear(self, child: _Child) -> None:
        """From now on the consumer gets what this model says, and what was held back of it."""
        self._winner = child
        child.decide("reply")
        if self._first is None:
            self._first = child
        self._adapter._speaking = child.llm
        for chunk in child.release():
            self._forward(child, chunk)

    def _forward(self, child: _Child, chunk: ChatChunk) -> None:
        delta = chunk.delta
        if delta is not None:
            if child.overlap is not None and delta.content:
                content = child.overlap.feed(delta.content)
                if content != delta.content:
                    delta = delta.model_copy(update={"content": content})
                    chunk = chunk.model_copy(update={"delta": delta})
            if delta.content:
                self._said.append(delta.content)
            if delta.tool_calls:
                self._called = True
                self._flush_overlap(child)  # what was said before the call comes before it
        self._event_ch.send_nowait(chunk)

    def _child_ended(self, attempt: int, child: _Child, error: Exception | None) -> None:
        child.decide("reply")
        if child.gone:
            return  # it was cancelled, and went on nevertheless
        nothing_more = self._race.empty_is_fine and (error is None or judge(error).empty)
        if nothing_more and self._winner is None and not self._race.over:
            # An answer of white space, thinking or usage, and that is all there is to say.
            self._hear(child)
        if error is None:
            if self._resuming and self._winner is None and child.blank_at > -math.inf:
                # Only white space was missing.
                self._do(self._race.useful(attempt, asyncio.get_running_loop().time()))
            if child is self._winner:
                self._flush_overlap(child)
                self._adapter._succeeded(child.index, child.started_wall)
        else:
            self._log(child, error)
            self._adapter._failed(child.index, error, child.started_wall)
        self._do(self._race.ended(attempt, error, asyncio.get_running_loop().time()))

    def _flush_overlap(self, child: _Child) -> None:
        rest = "" if child.overlap is None else child.overlap.close()
        if rest:
            self._said.append(rest)
            self._event_ch.send_nowait(
                ChatChunk(id=self._meter.request_id, delta=ChoiceDelta(content=rest))
            )

    def _cancel(self, cancel: Cancel) -> None:
        child = self._children[cancel.attempt]
        child.gone = True
        if cancel.error is not None:
            child.decide("reply")
            self._log(child, cancel.error)
            self._adapter._failed(child.index, cancel.error, child.started_wall)
        else:
            # Both asked, one is heard: this one's cost is the price of the hedge.
            child.decide("hedge")
            self._extra_tokens += estimate_history(self._history.items)
        if child.task is not None and child.task is not asyncio.current_task():
            child.task.cancel()
            if cancel.lost:
                child.task.add_done_callback(lambda _: child.settle(self._history))

    def _conclude(self, conclusion: Conclude) -> None:
        if self._over.done():
            return
        error = conclusion.error
        if error is None and not conclusion.exhausted:
            self._over.set_result(None)
        elif conclusion.exhausted:
            if self._race.only_empty():
                self._over.set_result(None)  # they all answered, and had nothing to say
            elif self._resuming and self._somebody_had_nothing_to_add():
                # Perhaps all had been said but the end.
                self._say({"event": "nothing_to_add", "reason": str(self._cut_by)})
                self._over.set_result(None)
            else:
                self._over.set_exception(self._all_failed())
        elif self._winner is None or error is None:
            self._over.set_exception(error or self._all_failed())
        else:
            self._cut(error)

    def _somebody_had_nothing_to_add(self) -> bool:
        return any(judge(f.error).empty for f in self._race.failures[self._failures_before :])

    # -- a reply that was cut ----------------------------------------------------------------

    def _cut(self, error: BaseException) -> None:
        """The model that spoke has failed. What now?"""
        adapter = self._adapter
        failed = self._winner
        policy = adapter._on_cut
        if adapter._retry_on_chunk_sent and policy == "stop":
            policy = "append"
        if self._called and policy == "resume" and not judge(error).final:
            self._say({"event": "cut_after_tool_call", "reason": str(error)})
            self._over.set_result(None)
            return
        if (
            policy == "stop"
            or self._called
            or judge(error).final
            or not self._race.left
            or not self._affordable()
        ):
            self._over.set_exception(error)
            return
        said = "".join(self._said)
        self._winner = None
        if policy != "append":
            self._extra_tokens += estimate_history(self._history.items)
        if policy == "restart":
            self._extra_tokens += len(said) // 4
            self._said = []
            self._say(
                {
                    "event": "restart",
                    "discard": said,
                    "failed": "" if failed is None else failed.llm.label,
                    "reason": str(error),
                }
            )
        self._resuming = policy == "resume"
        self._cut_by, self._failures_before = error, len(self._race.failures)
        self._do(self._race.begin(asyncio.get_running_loop().time()))

    def _say(self, event: dict[str, Any]) -> None:
        self._event_ch.send_nowait(
            ChatChunk(id=self._meter.request_id, delta=ChoiceDelta(extra={"rejoinder": event}))
        )

    def _history_for(self, child: _Child) -> ChatContext:
        # Each gets a list of its own: some models put something into what they are given.
        history = self._history.copy()
        if not self._resuming:
            return history
        said = "".join(self._said)
        if child.llm._continues(self._extra_kwargs):
            text, tail = whitespace_tail(said)
            child.overlap = Overlap(said, exact=True, tail=tail)
            if text:
                history.add_message(role="assistant", content=text)
            return history
        child.overlap = Overlap(said)
        history.add_message(role="assistant", content=said)
        history.add_message(role="user", content=_CONTINUE.format(last=last_words(said)))
        return history

    # -- accounts ----------------------------------------------------------------------------

    def _affordable(self) -> bool:
        limit = self._adapter._budget.max_extra_tokens
        if limit is None:
            return True
        return self._extra_tokens + estimate_history(self._history.items) <= limit

    def _all_failed(self) -> APIError:
        failures = self._race.failures
        took = asyncio.get_running_loop().time() - self._race.started_at
        reasons = "; ".join(f"{self._name(failure)}: {failure.error}" for failure in failures)
        error = APIConnectionError(f"all LLMs failed after {took:.2f} s ({reasons})")
        causes = [f.error for f in failures if isinstance(f.error, Exception)]
        if causes:
            error.__cause__ = ExceptionGroup("why each model failed", causes)
        return error

    def _name(self, failure: Failure) -> str:
        model = self._adapter._llm_instances[failure.candidate]
        return model.label if model.model == "unknown" else f"{model.provider}/{model.model}"

    def _log(self, child: _Child, error: BaseException) -> None:
        logger.warning("%s failed, %s", child.llm.label, error)


def _key(llms: Sequence[LLM[Any]], index: int) -> str:
    """The name under which processes share what they know of a model."""
    model = llms[index]
    # An address may hold a password.
    name = f"{model.label} {model.provider.rpartition('@')[2]}/{model.model}"
    # Two models of the same name are two unless they are the same object.
    same = [i for i, other in enumerate(llms[:index]) if _plain(other) == _plain(model)]
    first = next((i for i in same if llms[i] is model), index)
    rank = len({id(llms[i]) for i in same if i < first and llms[i] is not model})
    return f"{name} #{rank}" if rank else name


async def _gone(tasks: Sequence[asyncio.Task[None]], *, timeout: float) -> None:
    """Wait for tasks that were cancelled. A second cancellation would disturb their closing."""
    left = [task for task in tasks if not task.done()]
    if left:
        await asyncio.wait(left, timeout=timeout)


def _in_a_word(error: BaseException) -> str:
    """What may be written to a file that others read: an error's text may quote anything."""
    status = getattr(error, "status_code", None)
    name = type(error).__name__
    return f"{name} {status}" if isinstance(status, int) and status > 0 else name


def _plain(model: LLM[Any]) -> tuple[str, str, str]:
    return model.label, model.provider, model.model


def _patience(adapter: FallbackAdapter) -> float:
    """How long a model may be silent, its own retries and their pauses included."""
    retries = adapter._max_retry_per_llm
    timeout = adapter._attempt_timeout or math.inf
    if not retries:
        return timeout
    pauses = 0.1 + adapter._retry_interval * (retries - 1)
    return timeout * (retries + 1) + 1.25 * pauses


def _or_inf(seconds: float | None) -> float:
    return math.inf if seconds is None else seconds
