"""FallbackAdapter: several models that answer as one, so that a turn is never silent.

This module has the public options and `chat`. The decisions are pure and in `_core`: `race` (the
course of a turn), `breaker` (cooldown), `hedge`, `budget`. `_fallback_stream` carries them out for one
turn, `_fallback_child` asks one model, `_fallback_health` keeps the state of all models.
"""

from __future__ import annotations

import asyncio
import functools
import logging
import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, cast

from rejoinder._core.breaker import BreakerOptions
from rejoinder._core.budget import OnCut, Policy, TurnBudget
from rejoinder._core.hedge import Gate, Hedge, Pace
from rejoinder._options import (
    ANYTHING,
    CONNECT,
    FLAG,
    Rule,
    WrongTypeError,
    check,
    checked,
    instance,
    mapping,
)
from rejoinder.llm._breakers import HealthStore
from rejoinder.llm._fallback_child import Team, TeamLLM
from rejoinder.llm._fallback_health import HealthBoard
from rejoinder.llm._fallback_stream import FallbackLLMStream
from rejoinder.llm._option_rules import TOOL_CHOICE, TOOLS
from rejoinder.llm.chat_context import ChatContext
from rejoinder.llm.llm import LLM, LLMStream
from rejoinder.llm.tool_context import ToolContext
from rejoinder.types import NOT_GIVEN, APIConnectOptions, NotGivenOr, is_given

if TYPE_CHECKING:
    from rejoinder._core.tools import ToolChoice
    from rejoinder.metrics import LLMMetrics

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


def _is_store(value: Any) -> bool:
    return isinstance(value, str | os.PathLike | HealthStore) and not isinstance(value, type)


_MODELS: Final = Rule(
    "a list of at least one LLM, as [llm, llm]",
    lambda value: isinstance(value, Sequence) and not isinstance(value, str),
    lambda value: len(value) > 0,
)
_BUDGET: Final = instance(TurnBudget, expected="a TurnBudget, as TurnBudget(done_by=20)").optional
_HEDGE: Final = instance(Hedge, expected="a Hedge, as Hedge()").optional
_BREAKER: Final = instance(
    BreakerOptions, expected="BreakerOptions, as BreakerOptions(cooldown=1)"
).optional
_SHARED_STATE: Final = Rule(
    "the path of a file, or a HealthStore with read() and update()", _is_store
).optional
_CHAT_CTX: Final = instance(ChatContext, expected="a ChatContext, as ChatContext.empty()")
_EXTRA: Final = mapping().optional

_LEAVING = 1.0
"""Seconds that `aclose` waits for attempts that close their connections."""
_WINDOW = 200
"""Number of times to first token remembered for each model, unless the hedge sets another."""


@dataclass
class AvailabilityChangedEvent:
    """Payload of ``"llm_availability_changed"``: a model began to rest, or is available again."""

    llm: LLM[Any]
    available: bool


class FallbackAdapter(TeamLLM):
    """Several models, asked one after the other until one answers.

    Args:
        llm: the models, in order of preference. `aclose` of the adapter does not close them. A
            model that is listed twice is asked twice, but has one cooldown.
        attempt_timeout: seconds that each model has for its first text or tool call; 0: no limit.
            Keep-alives, role-only, empty, blank and usage-only chunks do not count. Thinking and
            the arguments of a tool call restart the time.
        max_retry_per_llm: further attempts with the same model before the next one is asked.
        retry_interval: seconds between them.
        retry_on_chunk_sent: if a model fails in mid-reply, ask the next one, whose whole answer
            follows the text sent so far. Never after a tool call. `on_cut` has better ways.
        budget: limits on the whole turn.
        hedge: ask a second model too when the first one is slow; off by default.
        on_cut: the reaction to a model that fails in mid-reply. ``"stop"``: its error is raised.
            ``"restart"``: a chunk with ``delta.extra["rejoinder"] == {"event": "restart",
            "discard": text so far, ...}``, then the next model's whole answer. ``"resume"``: the
            next model continues the sentence. After a tool call, ``"restart"`` raises the error and
            ``"resume"`` ends the reply: the call is complete, and a second model might repeat it.
        breaker: how long failed models rest.
        shared_state: path of a file (SQLite, created if missing) in which all processes of this
            host share the state of the models, or your own `HealthStore`.

    Events, besides those of every `LLM`: ``"llm_availability_changed"`` with an
    `AvailabilityChangedEvent`. The adapter emits the metrics of its models again, those of lost
    hedges and of probes with their `LLMMetrics.purpose`.

    Raises:
        ConfigurationError: no models, or an option of a wrong type or value (wrong types are
            `TypeError`s too).
    """

    # `Policy` checks the options without a rule here.
    @checked(
        llm=ANYTHING,
        attempt_timeout=ANYTHING,
        max_retry_per_llm=ANYTHING,
        retry_interval=ANYTHING,
        retry_on_chunk_sent=ANYTHING,
        budget=_BUDGET,
        hedge=_HEDGE,
        on_cut=ANYTHING,
        breaker=_BREAKER,
        shared_state=_SHARED_STATE,
    )
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
        _check_models(llm)
        policy = Policy(
            attempt_timeout=attempt_timeout,
            max_retry_per_llm=max_retry_per_llm,
            retry_interval=retry_interval,
            retry_on_chunk_sent=retry_on_chunk_sent,
            budget=budget or TurnBudget(),
            on_cut=on_cut,
        )
        super().__init__()
        self._llm_instances = llm
        keys = [_key(llm, index) for index in range(len(llm))]
        paces = {key: Pace(_WINDOW if hedge is None else hedge.window) for key in keys}
        self._team = Team(
            models=llm,
            policy=policy,
            board=HealthBoard(
                keys, breaker or BreakerOptions(), shared_state, announce=self._announce
            ),
            gate=None if hedge is None else Gate(hedge),
            paces=[paces[key] for key in keys],
            emit=self._emit_metrics,
        )
        distinct = {id(model): model for model in llm}.values()
        self._followed = [
            (model, functools.partial(self._team.report, model)) for model in distinct
        ]
        for model, report in self._followed:
            model._follow("metrics_collected", report)

    @property
    def model(self) -> str:
        return "FallbackAdapter"

    @property
    def provider(self) -> str:
        return "livekit"

    @property
    def metrics_metadata(self) -> dict[str, str]:
        """The metadata of the model that spoke last."""
        speaking = self._team.speaking
        return super().metrics_metadata if speaking is None else speaking.metrics_metadata

    @property
    def continues_prefill(self) -> bool:
        """Whether all models continue a prefilled reply."""
        return all(model.continues_prefill for model in self._llm_instances)

    def _continues(self, extra_kwargs: NotGivenOr[dict[str, Any]]) -> bool:
        return all(model._continues(extra_kwargs) for model in self._llm_instances)

    @checked()
    def takes_option(self, option: str) -> bool:
        return all(model.takes_option(option) for model in self._llm_instances)

    @property
    def llms(self) -> Sequence[LLM[Any]]:
        """The models, in the order in which they are asked."""
        return tuple(self._llm_instances)

    def availability(self) -> list[bool]:
        """Whether each model is available now, in their order. Unavailable models are asked last."""
        return [health.available for health in self._team.board.read()]

    def chat(
        self,
        *,
        chat_ctx: ChatContext,
        tools: list[Any] | None = None,
        conn_options: APIConnectOptions = DEFAULT_FALLBACK_API_CONNECT_OPTIONS,
        parallel_tool_calls: NotGivenOr[bool] = NOT_GIVEN,
        tool_choice: NotGivenOr[ToolChoice] = NOT_GIVEN,
        extra_kwargs: NotGivenOr[dict[str, Any]] = NOT_GIVEN,
        **options: Any,
    ) -> LLMStream:
        """Ask the models; see `LLM.chat`.

        Args:
            options: further options of the models' `chat`, such as `response_format`. All models
                must have them.

        Raises:
            ConfigurationError: an argument has a wrong type or value (wrong types are `TypeError`s
                too), or a model does not know one of `options`.
            ValueError: an element is not a tool, or two have one name.
        """
        check(
            "FallbackAdapter.chat",
            chat_ctx=(chat_ctx, _CHAT_CTX),
            tools=(tools, TOOLS.optional),
            tool_choice=(tool_choice, TOOL_CHOICE.optional),
            conn_options=(conn_options, CONNECT),
            parallel_tool_calls=(parallel_tool_calls, FLAG.optional),
            extra_kwargs=(extra_kwargs, _EXTRA),
        )
        if tools:
            ToolContext.of(tools)  # the caller's error, not a failure of the models
        given = {option: value for option, value in options.items() if is_given(value)}
        for option in given:
            strangers = [
                model.label for model in self._llm_instances if not model.takes_option(option)
            ]
            if strangers:
                raise WrongTypeError(
                    f"FallbackAdapter.chat: {', '.join(strangers)} has no option {option!r} in its "
                    "chat(); pass only options that all models have, or set it in the model's constructor"
                )
        return FallbackLLMStream(
            self,
            chat_ctx=chat_ctx,
            tools=tools if isinstance(tools, list) else list(tools or []),
            conn_options=conn_options,
            parallel_tool_calls=parallel_tool_calls,
            tool_choice=tool_choice,
            extra_kwargs=extra_kwargs,
            **given,
        )

    @checked()
    def prewarm(self, *, loop: asyncio.AbstractEventLoop | None = None) -> None:
        """Prewarm all models, so that a fallback does not begin with a slow connection."""
        for model in self._llm_instances:
            try:
                if loop is None:
                    model.prewarm()
                else:
                    model.prewarm(loop=loop)
            except Exception as error:
                logger.debug("prewarming %s failed: %s", model.label, error)

    async def aclose(self) -> None:
        """End replies and probes that still run, and unsubscribe from the models, which stay open. The
        adapter can still be used, but no longer emits their metrics."""
        team = self._team
        loop = asyncio.get_running_loop()
        for task in team.probes:
            if task.get_loop() is loop:
                task.cancel()
        leaving = [t for t in (*team.probes, *team.leaving) if t.get_loop() is loop]
        await asyncio.gather(super().aclose(), _ended(leaving))
        for task in (*team.probes, *team.leaving):
            if task.get_loop() is loop:
                task.cancel()  # it has had enough time to close properly
        team.listening = False
        for model, report in self._followed:
            model.off("metrics_collected", report)
        if team.board.shared:
            # The last process to close the file compacts it, which takes milliseconds.
            await asyncio.to_thread(team.board.close)

    def _announce(self, index: int, available: bool) -> None:
        event = AvailabilityChangedEvent(self._llm_instances[index], available)
        self.emit("llm_availability_changed", event)

    def _emit_metrics(self, metrics: LLMMetrics, stream: LLMStream | None) -> None:
        if stream is not None:
            cost = metrics.cost
            stream._bill = [*stream._bill, lambda: cost]
        self._emit_from(stream, "metrics_collected", metrics)


async def _ended(tasks: Sequence[asyncio.Task[None]]) -> None:
    # A second cancellation would disturb their closing.
    left = [task for task in tasks if not task.done()]
    if left:
        await asyncio.wait(left, timeout=_LEAVING)


def _check_models(llm: object) -> None:
    check("FallbackAdapter", llm=(llm, _MODELS))
    for model in cast("Sequence[object]", llm):
        if not isinstance(model, LLM):
            kind = model.__name__ if isinstance(model, type) else type(model).__name__
            raise WrongTypeError(f"FallbackAdapter: expected instances of LLM in llm, got {kind}")


def _key(llms: Sequence[LLM[Any]], index: int) -> str:
    """The name under which processes share the state of a model."""
    model = llms[index]
    # A URL may contain a password.
    name = f"{model.label} {model.provider.rpartition('@')[2]}/{model.model}"
    # Two models of the same name are different unless they are the same object.
    same = [i for i, other in enumerate(llms[:index]) if _names(other) == _names(model)]
    first = next((i for i in same if llms[i] is model), index)
    rank = len({id(llms[i]) for i in same if i < first and llms[i] is not model})
    return f"{name} #{rank}" if rank else name


def _names(model: LLM[Any]) -> tuple[str, str, str]:
    return model.label, model.provider, model.model
