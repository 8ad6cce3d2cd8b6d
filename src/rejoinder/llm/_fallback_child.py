"""One request of a fallback to one model: the chunks held back, its signs of life, its cost."""

from __future__ import annotations

import asyncio
import logging
import math
import weakref
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Literal

from rejoinder import _stamps, _watch
from rejoinder._aio import within
from rejoinder._core.breaker import judge
from rejoinder._core.budget import Policy, Settings
from rejoinder._core.chunks import ChatChunk, ChoiceDelta, CompletionUsage
from rejoinder._core.estimates import estimate_history
from rejoinder._core.hedge import Gate, Pace
from rejoinder._core.overlap import Overlap
from rejoinder.errors import APITimeoutError
from rejoinder.llm._asker import Asker
from rejoinder.llm._fallback_health import HealthBoard
from rejoinder.llm.chat_context import ChatContext
from rejoinder.llm.llm import LLM, LLMStream
from rejoinder.metrics import LLMMetrics, Metadata, Purpose
from rejoinder.types import APIConnectOptions

__all__ = ["Child", "Team", "TeamLLM", "probe"]

logger = logging.getLogger("rejoinder")

_HELD = 256
"""Maximum number of chunks held back before the first useful one. Of further chunks, only the content is
kept."""


@dataclass(slots=True, eq=False)
class Team:
    """State that the turns of one `FallbackAdapter` share.

    Attributes:
        emit: emits metrics of the adapter, for the stream to which they belong.
        speaking: the model that answered last.
        asked: the attempts that have not ended.
        leaving: tasks of attempts that were cancelled and have not ended.
        probes: the running probes.
        listening: whether the metrics of the models are still needed.
    """

    models: Sequence[LLM[Any]]
    policy: Policy
    board: HealthBoard
    gate: Gate | None
    paces: Sequence[Pace]
    emit: Callable[[LLMMetrics, LLMStream | None], None]
    settings: Settings | None = None
    """The options of the last turn, for the next turn with the same ones."""
    speaking: LLM[Any] | None = None
    asked: set[Child] = field(default_factory=lambda: set[Child]())
    leaving: set[asyncio.Task[None]] = field(default_factory=set[asyncio.Task[None]])
    probes: set[asyncio.Task[None]] = field(default_factory=set[asyncio.Task[None]])
    listening: bool = True

    def settings_for(self, options: APIConnectOptions) -> Settings:
        settings = self.settings
        if settings is None or settings.asked_with is not options:
            settings = self.settings = self.policy.settings(options)
        return settings

    def see_off(self, tasks: Sequence[asyncio.Task[None]]) -> None:
        """Keep references to cancelled tasks until they have ended."""
        for task in tasks:
            if not task.done():
                self.leaving.add(task)
                task.add_done_callback(self.leaving.discard)

    def start_probe(self, index: int) -> None:
        """Probe a model in the background, unless another turn or process does."""
        if self.board.claim_probe(index):
            task = asyncio.create_task(probe(self, index), name=f"probe {self.models[index].label}")
            self.probes.add(task)
            task.add_done_callback(self.probes.discard)

    def report(self, model: LLM[Any], origin: object, metrics: LLMMetrics) -> None:
        """Find the attempt of metrics that a model has emitted for the stream `origin`."""
        asked_by = origin._asked_by if isinstance(origin, LLMStream) else None
        child = None if asked_by is None else asked_by()
        if not isinstance(child, Child) or child.team is not self:
            # If a class wraps the streams of its base, the inner streams report. They carry no mark, so
            # they can be told apart only if one of them runs.
            wrapped = [c for c in list(self.asked) if c.llm is model and c.wraps]
            child = wrapped[0] if len(wrapped) == 1 else None
        if child is not None:
            child.report(metrics)
        else:  # the model was asked directly
            self.emit(metrics, None)


class TeamLLM(LLM[Literal["llm_availability_changed"]]):
    """An LLM that consists of several others."""

    _team: Team


class Child(Asker):
    """One request to one model."""

    def __init__(
        self,
        team: Team,
        index: int,
        *,
        parent: LLMStream | None = None,
        purpose: Purpose | None = None,
    ) -> None:
        self.team = team
        self.index = index
        self.llm = team.models[index]
        super().__init__(purpose)
        self.chat_ctx: ChatContext | None = None
        self.stream: LLMStream | None = None
        self.task: asyncio.Task[None] | None = None
        self.place: _watch.Part | None = None
        self.overlap: Overlap | None = None
        self.started_at = asyncio.get_running_loop().time()
        self.started_wall = team.board.wall()
        self.gone = False
        """It was cancelled, and the turn continues without it."""
        self.heard_at = -math.inf
        """The last chunk of the winner, the last thinking of the others."""
        self.blank_at = -math.inf
        """The last text that was only white space."""
        self._parent = None if parent is None else weakref.ref(parent)
        self._passed_on = 0  # reports
        self._measured = False
        self._settled = False
        self._held: list[ChatChunk] = []
        self._more_thinking: list[str] = []
        self._more_usage: ChatChunk | None = None

    def ask(self, *, chat_ctx: ChatContext, **arguments: Any) -> LLMStream:
        self.chat_ctx = chat_ctx
        self.stream = self.llm.chat(chat_ctx=chat_ctx, **arguments)
        if isinstance(self.stream, LLMStream):
            self.stream._asked_by = weakref.ref(self)
        self.team.asked.add(self)
        return self.stream

    def ended(self) -> None:
        """Whether its task has ended, so that nothing more follows."""
        self.team.asked.discard(self)

    @property
    def wraps(self) -> bool:
        """Whether its stream wraps another one, which reports the metrics."""
        return not isinstance(self.stream, LLMStream) or not self.stream._measures_itself

    @property
    def was_cut(self) -> bool:
        """Whether its stream was closed, or its task cancelled, before the end of the reply."""
        return isinstance(self.stream, LLMStream) and self.stream.was_cut

    @property
    def paused(self) -> bool:
        """Whether it waits for the consumer, so that no output is due."""
        return isinstance(self.stream, LLMStream) and self.stream.pulse.paused

    # -- what is held back -------------------------------------------------------------------

    def hold(self, chunk: ChatChunk) -> None:
        """Keep a chunk until the race has a winner. Bounded, because a model may send thinking or
        empty chunks without end."""
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
        """The time of its last sign of life. Only its stream sees parts of a tool call."""
        stream = self.stream
        inside = stream.pulse.progress_at if isinstance(stream, LLMStream) else None
        if inside is None or (not winner and inside <= self.blank_at):
            return self.heard_at
        return max(self.heard_at, inside)

    def lapse(self) -> float:
        """Seconds that the machine slept since the request: the difference between the wall clock and
        the loop's clock."""
        wall = self.team.board.wall() - self.started_wall
        return wall - (asyncio.get_running_loop().time() - self.started_at)

    # -- what it costs -----------------------------------------------------------------------

    def report(self, metrics: LLMMetrics) -> None:
        """The model reports the cost of the attempt. Pass it on once its purpose is decided."""
        if self._settled:
            return  # too late: an estimate was emitted instead
        if metrics.purpose != "probe":
            self._measured = True
        self.when_decided(partial(self._pass_on, metrics))

    def _pass_on(self, metrics: LLMMetrics, purpose: Purpose) -> None:
        self._passed_on += 1
        if purpose != "reply" and metrics.purpose == "reply":
            metrics = metrics.model_copy(update={"purpose": purpose})
        self._emit(metrics)

    def owed(self) -> list[float | None]:
        """`LLMStream._owed` of its stream, without the costs that were passed on."""
        if self._settled or not isinstance(self.stream, LLMStream):
            return []
        return self.stream._owed()[self._passed_on :]

    def settle(self, chat_ctx: ChatContext) -> None:
        """Report the cost of an unused attempt, as an estimate if the model reported nothing."""
        if self._measured or self.stream is None or self.purpose in (None, "reply", "restart"):
            return
        if not self.team.listening:
            return
        self._measured = self._settled = True
        from rejoinder._core.prices import cost_of

        tokens = estimate_history(chat_ctx.items)
        usage = CompletionUsage(completion_tokens=0, prompt_tokens=tokens, total_tokens=tokens)
        names = Metadata(**self.llm.metrics_metadata)
        now = _stamps.wall_now()
        self._emit(
            LLMMetrics(
                label=self.llm.label,
                request_id="",
                timestamp=now,
                duration=asyncio.get_running_loop().time() - self.started_at,
                ttft=-1.0,
                cancelled=True,
                completion_tokens=0,
                prompt_tokens=tokens,
                prompt_cached_tokens=0,
                total_tokens=tokens,
                tokens_per_second=0.0,
                metadata=names,
                estimated=True,
                purpose=self.purpose,
                cost=cost_of(usage, provider=names.model_provider, model=names.model_name, at=now),
            )
        )

    def _emit(self, metrics: LLMMetrics) -> None:
        self.team.emit(metrics, None if self._parent is None else self._parent())


async def probe(team: Team, index: int) -> None:
    """Ask a model for one word, and record in the health whether it answered."""
    from rejoinder.telemetry import start_anew

    start_anew()  # it outlives the turn that starts it
    board = team.board
    timeout = board.probe_timeout
    question = ChatContext.empty()
    question.add_message(role="user", content="Say: ok")
    child = Child(team, index, purpose="probe")
    try:
        async with within(timeout):
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
        error = APITimeoutError(f"the probe got no answer within {timeout:g} s")
        board.failed(index, error, lapse=child.lapse())
        board.give_up_probe(index)
    except asyncio.CancelledError:
        board.give_up_probe(index)
        raise
    except Exception as error:
        if judge(error, lapse=child.lapse()).trips:
            board.failed(index, error)
        elif judge(error).trips:
            board.give_up_probe(index)  # the machine was asleep, so the result is unknown
        else:  # the model is up, even if it refused the question
            board.succeeded(index, started=child.started_wall, probe=True)
    else:
        board.succeeded(index, started=child.started_wall, probe=True)
    finally:
        child.ended()
        child.settle(question)
