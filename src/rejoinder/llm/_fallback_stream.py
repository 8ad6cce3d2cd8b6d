"""A reply of several models: starts and cancels attempts as `Race` decides, and passes on the winner's
chunks."""

from __future__ import annotations

import asyncio
import contextvars
import logging
import math
from collections.abc import Callable, Mapping, Sequence
from functools import cache, partial
from typing import TYPE_CHECKING, Any, Final, cast

from rejoinder import _watch
from rejoinder._aio import Alarm, Chan
from rejoinder._core.chunks import ChatChunk, ChoiceDelta
from rejoinder._core.deadlines import Patience
from rejoinder._core.estimates import estimate_history
from rejoinder._core.meter import Pulse
from rejoinder._core.overlap import Overlap, last_words, whitespace_tail
from rejoinder._core.race import Action, Cancel, Conclude, Probe, Race, Start, Tell, Win
from rejoinder.errors import (
    APIConnectionError,
    APIError,
    APITimeoutError,
)
from rejoinder.llm._fallback_child import Child, TeamLLM
from rejoinder.llm.llm import LLMStream
from rejoinder.types import NOT_GIVEN, APIConnectOptions, NotGivenOr

if TYPE_CHECKING:
    from rejoinder._core.tools import ToolChoice
    from rejoinder.llm.chat_context import ChatContext
    from rejoinder.llm.llm import LLM
    from rejoinder.metrics import Purpose

__all__ = ["FallbackLLMStream", "name_in_errors"]

logger = logging.getLogger("rejoinder")

_CONTINUE: Final = (
    "Your previous reply was cut off. Continue it from exactly where it stops, in the same language, "
    "and do not comment on the interruption. To show where you take it up, begin with its last "
    "words, exactly as they are here, without quotation marks: {last}"
)

_SEEING_OFF: Final = 0.02
"""Seconds that the end of a turn waits for cancelled attempts: enough to close connections properly,
and too short to be heard."""
_CLOSING: Final = 0.8
"""The same if the consumer closes the stream; shorter than the limit on closing."""


class FallbackLLMStream(LLMStream):
    """A reply of a `FallbackAdapter`."""

    _request_span_name = "llm_fallback_adapter"
    _composed = True

    def __init__(
        self,
        llm: TeamLLM,
        *,
        chat_ctx: ChatContext,
        tools: list[Any],
        conn_options: APIConnectOptions,
        parallel_tool_calls: NotGivenOr[bool] = NOT_GIVEN,
        tool_choice: NotGivenOr[ToolChoice] = NOT_GIVEN,
        extra_kwargs: NotGivenOr[dict[str, Any]] = NOT_GIVEN,
        **options: Any,
    ) -> None:
        team = self._team = llm._team
        # A later model must get the same input as the first one, whatever changes meanwhile.
        self._history = chat_ctx.copy()
        self._offered = list(tools)
        self._extra_kwargs = _own(extra_kwargs)
        self._parallel_tool_calls = parallel_tool_calls
        self._tool_choice = tool_choice
        self._options = {name: _own(value) for name, value in options.items()}
        self._children: list[Child] = []
        self._winner: Child | None = None
        self._first: Child | None = None
        self._latest: ChatChunk | None = None  # the last chunk passed on
        self._asked_at: float | None = None
        self._race: Race | None = None
        self._price: Callable[[], int] = cache(partial(estimate_history, self._history.items))
        settings = team.settings_for(conn_options)
        self._limits = settings.limits
        self._child_options = settings.child
        super().__init__(llm, chat_ctx=chat_ctx, tools=tools, conn_options=settings.own)

    @property
    def chat_ctx(self) -> ChatContext:
        """The context of the model that answered first; before that, the given one."""
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

    @property
    def finish_reason(self) -> str | None:
        """The finish reason of the model that answered last."""
        winner = self._winner
        heard = None if winner is None else winner.stream
        return heard.finish_reason if isinstance(heard, LLMStream) else None

    def _owed(self) -> list[float | None]:
        return [*self._costs(), *(cost for child in self._children for cost in child.owed())]

    @property
    def pulse(self) -> Pulse:
        winner = self._winner
        running = [child for child in self._children if not child.gone]
        progress_at = max(
            (child.working_at(winner=child is winner) for child in running), default=-math.inf
        )
        heard = winner.stream if winner is not None else None
        return Pulse(
            progress_at if progress_at > -math.inf else None,
            self._paused or (winner is not None and winner.paused),
            heard.pulse.usage if isinstance(heard, LLMStream) else None,
        )

    def _observe(self, chunks: Sequence[ChatChunk]) -> None:
        # The models measure what they send; here only the first text counts.
        if not self._meter.committed:
            super()._observe(chunks)

    # -- one round ---------------------------------------------------------------------------

    async def _run(self) -> None:
        team = self._team
        loop = asyncio.get_running_loop()
        if self._asked_at is None:
            self._asked_at = loop.time()
        items = self._history.items
        race = self._race = Race(
            len(team.models),
            self._limits,
            started_at=self._asked_at,
            when_cut=team.policy.when_cut,
            empty_is_fine=bool(items) and items[-1].type == "function_call_output",
            gate=team.gate,
            paces=team.paces,
            price=self._price,
            spent=self._race.spent if self._race is not None else 0,
        )
        self._children = []
        self._winner = self._latest = None
        self._over: asyncio.Future[None] = loop.create_future()
        self._context = contextvars.copy_context()
        self._alarm = Alarm(self._due, self._tick, stalled=race.stood_still)
        team.board.follow(self, self._note_change)
        try:
            plan = self._plan(race)
            self._do(race, [*plan, *race.begin(loop.time())])
            await self._over
        finally:
            self._alarm.stop()
            del self._alarm  # it refers to this stream
            team.board.unfollow(self)
            if self._over.done() and not self._over.cancelled():
                self._over.exception()  # mark as retrieved, even if a cancellation came first
            if team.gate is not None:
                team.gate.turned()
            for child in self._children:
                child.decide("reply")
                if child.task is not None and not child.gone:
                    child.gone = True
                    child.task.cancel()
            tasks = [child.task for child in self._children if child.task is not None]
            team.see_off(tasks)
            left = [task for task in tasks if not task.done()]
            if left:  # a second cancellation would disturb their closing
                await asyncio.wait(left, timeout=_CLOSING if self._closing else _SEEING_OFF)

    def _overdue(self, patience: Patience) -> APITimeoutError:
        error = super()._overdue(patience)
        if self._race is not None:
            error = error.but(message=f"{error.message} ({self._reasons(self._race)})")
        return error

    # -- what happens besides the attempts ---------------------------------------------------

    def _due(self) -> float:
        race = self._race
        if race is None or self._over.done():
            return math.inf
        now = asyncio.get_running_loop().time()
        for attempt, child in enumerate(self._children):
            if child is not self._winner:
                at = child.working_at(winner=False)
            elif self._paused or child.paused:
                at = now  # the consumer has enough to read, so no output is due
            else:
                at = child.working_at(winner=True)
            race.progressed(attempt, at)
        return race.due()

    def _tick(self) -> None:
        race = self._race
        if race is not None and not self._over.done():
            plan = self._plan(race)
            self._do(race, [*plan, *race.tick(asyncio.get_running_loop().time())])

    def _plan(self, race: Race) -> list[Action]:
        board = self._team.board
        return race.plan(asyncio.get_running_loop().time(), board.read(), board.wall())

    def _note_change(self) -> None:
        """Called when the health of a model has changed, in any thread, at any time."""
        try:
            if self._loop is not None:
                self._loop.call_soon_threadsafe(self._replan)
        except RuntimeError:  # the loop is closed, so nothing waits for this turn
            self._team.board.unfollow(self)

    def _replan(self) -> None:
        race = self._race
        if race is not None and not self._over.done():
            self._do(race, self._plan(race))

    # -- acting on decisions -----------------------------------------------------------------

    def _do(self, race: Race, actions: Sequence[Action]) -> None:
        for action in actions:
            match action:
                case Start():
                    self._ask(race, action)
                case Cancel():
                    self._cancel(race, action, _fate(actions))
                case Win(attempt=attempt):
                    self._win(race, self._children[attempt])
                case Probe(candidate=candidate):
                    self._team.start_probe(candidate)
                case Tell():
                    self._tell_consumer(action)
                case Conclude():
                    self._conclude(race, action)
        if not self._over.done():
            self._alarm.arm(race.due())

    def _ask(self, race: Race, start: Start) -> None:
        child = Child(self._team, start.candidate, parent=self)
        self._children.append(child)
        if start.hedge:
            logger.debug(
                "%s is silent, asking %s too", self._children[0].llm.label, child.llm.label
            )
        child.task = asyncio.create_task(
            self._listen_watched(race, start, child),
            name=f"fallback {child.llm.label}",
            # The event that starts an attempt may come from another task or thread.
            context=self._context.copy(),
        )
        child.task.add_done_callback(self._listened)

    def _listened(self, task: asyncio.Task[None]) -> None:
        error = None if task.cancelled() else task.exception()
        if error is not None and not self._over.done():  # the turn must end in any case
            self._over.set_exception(error)

    async def _listen_watched(self, race: Race, start: Start, child: Child) -> None:
        if start.hedge:
            why = "hedge"
        elif race.resuming:
            why = "resume"
        else:
            why = "fallback" if start.attempt else "first"
        with _watch.part("ask", why=why, model=child.llm.model, candidate=start.candidate) as place:
            child.place = place
            await self._listen(race, start.attempt, child)

    async def _listen(self, race: Race, attempt: int, child: Child) -> None:
        """Read one model's reply, and report to the race what it sends."""
        error: Exception | None = None
        whole = relayed = False
        now = asyncio.get_running_loop().time
        try:
            stream = child.ask(
                chat_ctx=self._history_for(race, child),
                tools=list(self._offered),
                conn_options=self._child_options,
                parallel_tool_calls=self._parallel_tool_calls,
                tool_choice=self._tool_choice,
                extra_kwargs=_own(self._extra_kwargs),
                **{name: _own(value) for name, value in self._options.items()},
            )
            async with stream:
                async for chunk in stream:
                    if self._winner is child and not child.gone:
                        self._forward(race, child, (chunk,))
                        relayed = relayed or self._relay(race, child, stream)
                        if self._event_ch.full and not relayed:
                            await self._wait_for_consumer()
                            child.heard_at = now()
                        continue
                    child.hold(chunk)
                    delta = chunk.delta
                    if delta is None:
                        continue
                    if delta.tool_calls or (delta.content and not delta.content.isspace()):
                        self._do(race, race.useful(attempt, now()))
                        relayed = self._winner is child and self._relay(race, child, stream)
                    elif delta.content:
                        child.blank_at = now()
                    elif delta.thinking:
                        child.heard_at = now()
                whole = True
            if child.was_cut:
                error = APIConnectionError(
                    "the model's stream was cancelled, perhaps by its aclose"
                )
        except asyncio.CancelledError:
            task = asyncio.current_task()
            if task is None or task.cancelling():
                raise
            error = APIConnectionError("the model's stream was cancelled from outside")
        except Exception as caught:
            if whole:  # it has answered, so an error while closing does not matter
                logger.warning("closing the stream of %s failed: %s", child.llm.label, caught)
            else:
                error = caught
        finally:
            child.ended()
        self._child_ended(race, attempt, child, error)

    def _win(self, race: Race, child: Child) -> None:
        took = asyncio.get_running_loop().time() - child.started_at
        self._team.paces[child.index].add(took)
        self._hear(race, child)

    def _hear(self, race: Race, child: Child) -> None:
        """Pass on the chunks held back for this model, and its further chunks."""
        self._winner = child
        if child.place is not None:
            child.place.note("heard")
        if self._first is None:
            self._first = child
        self._team.speaking = child.llm
        self._forward(race, child, child.release())

    def _relay(self, race: Race, child: Child, stream: LLMStream) -> bool:
        """Let the winner's stream put its chunks directly into this stream's channel. Returns whether
        it does: a subclass may pass chunks on in another way, and a continuation may begin with words
        that were sent before."""
        if (
            child.overlap is not None
            or not self._meter.committed
            or not isinstance(stream, LLMStream)
            or type(stream).__anext__ is not LLMStream.__anext__
            or type(stream).__aiter__ is not LLMStream.__aiter__
            or stream._event_aiter is not stream._event_ch
            or type(stream._event_ch) is not Chan
        ):
            return False
        return stream._event_ch.relay(self._event_ch, partial(self._passes, race, child))

    def _forward(self, race: Race, child: Child, chunks: Sequence[ChatChunk]) -> None:
        """Pass a model's chunks on, if it is still the winner."""
        if self._winner is not child or child.gone or self._event_ch.closed:
            return
        child.heard_at = self._now()
        if child.overlap is not None:
            for chunk in chunks:
                self._continue(race, child, child.overlap, chunk)
        elif self._passes(race, child, chunks):
            self._event_ch.send_all(chunks)

    def _passes(self, race: Race, child: Child, chunks: Sequence[ChatChunk]) -> bool:
        """Record a model's chunk. Returns whether the model is still the winner."""
        if self._winner is not child or child.gone:
            return False
        for chunk in chunks:
            delta = chunk.delta
            content = None if delta is None else delta.content
            if content:  # its stream knows when
                race.said.append(content)
            else:
                child.heard_at = self._now()
            if delta is not None and delta.tool_calls:
                race.called = True
        self._latest = chunks[-1]
        return True

    def _continue(self, race: Race, child: Child, overlap: Overlap, chunk: ChatChunk) -> None:
        """Pass on a chunk of a model that continues another model's reply."""
        delta = chunk.delta
        self._latest = chunk
        if delta is not None:
            if delta.content:
                content = overlap.feed(delta.content)
                if content != delta.content:
                    delta = delta.model_copy(update={"content": content})
                    chunk = chunk.model_copy(update={"delta": delta})
            if delta.content:
                race.said.append(delta.content)
            if delta.tool_calls:
                race.called = True
                self._flush_overlap(race, child)  # text from before the call comes before it
        self._event_ch.send_nowait(chunk)

    def _flush_overlap(self, race: Race, child: Child) -> None:
        rest = "" if child.overlap is None else child.overlap.close()
        if rest:
            race.said.append(rest)
            self._send(ChoiceDelta(content=rest))

    def _send(self, delta: ChoiceDelta) -> None:
        name = "" if self._latest is None else self._latest.id
        self._event_ch.send_nowait(ChatChunk(id=name, delta=delta))

    def _child_ended(self, race: Race, attempt: int, child: Child, error: Exception | None) -> None:
        if child.gone:
            child.decide("reply")
            return  # it was cancelled, but continued
        loop = asyncio.get_running_loop()
        if error is None:
            if race.resuming and race.winner is None and child.blank_at > -math.inf:
                # Only white space was missing.
                self._do(race, race.useful(attempt, loop.time()))
            if child is self._winner:
                self._flush_overlap(race, child)
                self._team.board.succeeded(child.index, started=child.started_wall)
        else:
            self._failed(race, attempt, child, error)
        heard = child is self._winner
        if error is not None and heard:
            self._winner = None
        well = error is None and heard
        plan = [] if well else self._plan(race)
        actions = [*plan, *race.ended(attempt, error, loop.time())]
        child.decide(_fate(actions) if heard else "reply")
        self._do(race, actions)

    def _cancel(self, race: Race, cancel: Cancel, fate: Purpose) -> None:
        child = self._children[cancel.attempt]
        child.gone = True
        if cancel.error is not None:
            child.decide(fate if child is self._winner else "reply")
            if child is self._winner:
                self._winner = None
            if cancel.blame:
                self._failed(race, cancel.attempt, child, cancel.error)
        else:
            # Both were asked and the other one won: this cost is the price of the hedge.
            child.decide("hedge")
        if child.place is not None and cancel.error is None:
            child.place.note("lost")
        if child.task is not None and child.task is not asyncio.current_task():
            child.task.cancel()
            if cancel.lost:
                child.task.add_done_callback(lambda _: child.settle(self._history))

    def _failed(self, race: Race, attempt: int, child: Child, error: Exception) -> None:
        logger.warning("%s failed, %s", child.llm.label, error)
        if child.place is not None:
            child.place.note("failed", error=error)
        lapse = race.lapse(attempt) + max(0.0, child.lapse())
        self._team.board.failed(child.index, error, started=child.started_wall, lapse=lapse)

    def _tell_consumer(self, tell: Tell) -> None:
        event: dict[str, Any] = {"event": tell.event, "reason": str(tell.reason)}
        if tell.event == "restart":
            failed = "" if tell.failed is None else self._team.models[tell.failed].label
            event |= {"discard": tell.discard, "failed": failed}
        if self._span is not None:
            self._span.went_on(tell.event, tell.reason)
        self._send(ChoiceDelta(extra={"rejoinder": event}))

    def _conclude(self, race: Race, end: Conclude) -> None:
        if self._over.done():
            return
        if end.silent is not None:
            self._hear(race, self._children[end.silent])
        error = end.error
        if end.why == "no first token":
            limit = self._limits.first_token_by
            late = APITimeoutError(
                f"no first token within the {limit:g} s of the whole turn ({self._reasons(race)})",
                retryable=False,  # the time counts from the call of `chat`
            ).but(section="all failed")
            error = self._with_causes(race, late)
        elif end.why == "all failed":
            took = asyncio.get_running_loop().time() - race.started_at
            failed = APIConnectionError(
                f"all LLMs failed after {took:.2f} s ({self._reasons(race)})"
            ).but(section="all failed")
            error = self._with_causes(race, failed)
        if error is None:
            self._over.set_result(None)
        else:
            if end.note:
                error.add_note(end.note)
            self._over.set_exception(error)

    def _reasons(self, race: Race) -> str:
        names = [name_in_errors(model) for model in self._team.models]
        return race.reasons(names, asyncio.get_running_loop().time())

    def _with_causes(self, race: Race, error: APIError) -> APIError:
        causes = [f.error for f in race.failures if isinstance(f.error, Exception)]
        if causes:
            error.__cause__ = ExceptionGroup("why each model failed", causes)
        return error

    # -- the models' input -------------------------------------------------------------------

    def _history_for(self, race: Race, child: Child) -> ChatContext:
        # Each gets its own list, because some models append to it.
        history = self._history.copy()
        if not race.resuming:
            return history
        said = "".join(race.said)
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


def name_in_errors(model: LLM[Any]) -> str:
    """The name of `model` in the final error of a turn."""
    return model.label if model.model == "unknown" else f"{model.provider}/{model.model}"


def _fate(actions: Sequence[Action]) -> Purpose:
    """The purpose of a reply, given the actions that follow it."""
    taken_back = any(isinstance(action, Tell) and action.event == "restart" for action in actions)
    return "restart" if taken_back else "reply"


def _own(value: Any) -> Any:
    """A copy of a dict or list, because some models remove from it what they use."""
    if isinstance(value, Mapping):
        return dict(cast("Mapping[str, Any]", value))
    return list(cast("list[Any]", value)) if isinstance(value, list) else value
