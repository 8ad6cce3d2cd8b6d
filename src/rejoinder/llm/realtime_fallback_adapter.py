"""RealtimeModelFallbackAdapter: several speech-to-speech models that hold one conversation.

Names are those of ``livekit.agents.llm`` 1.6.5 and later; only `text` is new.
"""

from __future__ import annotations

import asyncio
import logging
import weakref
from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Any, Final, Literal, cast

from rejoinder._emitter import EventEmitter
from rejoinder._options import (
    AMOUNT,
    FLAG,
    SECONDS,
    Rule,
    WrongTypeError,
    checked,
    instance,
)
from rejoinder.errors import ConfigurationError
from rejoinder.llm._realtime_fallback_session import FallbackSession, Team
from rejoinder.llm.llm import LLM
from rejoinder.llm.realtime import RealtimeCapabilities, RealtimeModel

__all__ = ["RealtimeAvailabilityChangedEvent", "RealtimeModelFallbackAdapter"]

logger = logging.getLogger("rejoinder")

_MODELS: Final = Rule(
    "a list of at least one RealtimeModel, as [model, model]",
    lambda value: isinstance(value, Sequence) and not isinstance(value, str),
    lambda value: len(value) > 0,
)
_TEXT: Final = instance(LLM, expected="an LLM").optional
_MUST_AGREE: Final = ("audio_output", "turn_detection")
"""Capabilities that an application is built around, so they must not change during a call."""


@dataclass
class RealtimeAvailabilityChangedEvent:
    """``"realtime_availability_changed"``: a model failed, or was reached again."""

    realtime_model: RealtimeModel
    available: bool


class RealtimeModelFallbackAdapter(
    RealtimeModel, EventEmitter[Literal["realtime_availability_changed"]]
):
    """Speech-to-speech models with fallback: when one fails, the next one continues the
    conversation.

    The next session receives instructions, tools, history, the sound of the current turn, and the
    unanswered requests for replies. Event handlers stay attached. When all models have failed, the
    text model `text` answers in text. The conversation returns to speech between two turns once a
    model can be reached again.

    Full-duplex models and others can take turns. `capabilities` are those that all models share;
    those of a session are the active model's.

    Args:
        models: the models, in order of preference. `aclose` of the adapter does not close them.
        text: a text model that answers when all `models` have failed; it is not closed either.
            Without it, the session ends in that case.
        cooldown: seconds for which a model that failed is not tried again.
        regenerate_on_swap: request the unfinished reply of the failed model from the next one,
            unless a tool call has no result yet.
        attempt_timeout: seconds in which a model must have a connection, at the beginning and
            after one was lost; then the next one is tried.
        kept_sound: seconds of the user's sound that are kept for the next model.

    Events: ``"realtime_availability_changed"`` with a `RealtimeAvailabilityChangedEvent`.

    Raises:
        ConfigurationError: no models, an option of a wrong type or value (wrong types are
            `TypeError`s too), or models that differ in a capability that must not change during a
            call: speech output or turn detection.
    """

    @checked(
        models=_MODELS,
        text=_TEXT,
        cooldown=AMOUNT,
        regenerate_on_swap=FLAG,
        attempt_timeout=SECONDS,
        kept_sound=AMOUNT,
    )
    def __init__(
        self,
        models: list[RealtimeModel],
        *,
        text: LLM[Any] | None = None,
        cooldown: float = 10.0,
        regenerate_on_swap: bool = True,
        attempt_timeout: float = 5.0,
        kept_sound: float = 30.0,
    ) -> None:
        for model in cast("list[object]", models):
            if not isinstance(model, RealtimeModel):
                kind = model.__name__ if isinstance(model, type) else type(model).__name__
                raise WrongTypeError(
                    "RealtimeModelFallbackAdapter: expected instances of RealtimeModel in models, "
                    f"got {kind}"
                )
        RealtimeModel.__init__(self, capabilities=_merged(models))
        super(
            RealtimeModel, self
        ).__init__()  # the emitter's __init__: RealtimeModel does not call super().__init__()
        self._models = list(models)
        self._team = Team(
            models=self._models,
            text=text,
            cooldown=cooldown,
            regenerate=regenerate_on_swap,
            attempt_timeout=attempt_timeout,
            kept_sound=kept_sound,
            announce=self._announce,
        )
        self._sessions: weakref.WeakSet[FallbackSession] = weakref.WeakSet()

    @property
    def models(self) -> Sequence[RealtimeModel]:
        """The models, in the order in which they are tried."""
        return tuple(self._models)

    @property
    def model(self) -> str:
        return "RealtimeModelFallbackAdapter"

    @property
    def provider(self) -> str:
        return "livekit"

    def availability(self) -> list[bool]:
        """Whether each model could be reached when it was last tried, in the order of `models`."""
        return list(self._team.available)

    @checked()
    def session(self, *, turn_detection_disabled: bool = False) -> FallbackSession:
        """A new session, which connects by itself. Needs a running event loop."""
        session = FallbackSession(self, self._team, turn_detection_disabled=turn_detection_disabled)
        self._sessions.add(session)
        return session

    @checked()
    async def restart_session(self, *, switch_model: bool = False) -> None:
        """Give each live session a new connection, between two turns; with `switch_model`, to the next
        model.

        Raises:
            RealtimeError: no model could be reached. The session continues unchanged.
        """
        await asyncio.gather(
            *(session.restart(switch_model=switch_model) for session in list(self._sessions))
        )

    async def aclose(self) -> None:
        """Close the sessions. The models stay open."""
        await asyncio.gather(*(session.aclose() for session in list(self._sessions)))

    def _announce(self, index: int, available: bool) -> None:
        self.emit(
            "realtime_availability_changed",
            RealtimeAvailabilityChangedEvent(self._models[index], available),
        )


def _merged(models: Sequence[RealtimeModel]) -> RealtimeCapabilities:
    """The capabilities that all models share."""
    first = models[0].capabilities
    for model in models[1:]:
        for name in _MUST_AGREE:
            ours, theirs = getattr(first, name), getattr(model.capabilities, name)
            if ours != theirs:
                raise ConfigurationError(
                    f"RealtimeModelFallbackAdapter: the models must agree in {name}; it is {ours} "
                    f"for {models[0].label} and {theirs} for {model.label}"
                )
    names = [field.name for field in fields(RealtimeCapabilities)]
    return RealtimeCapabilities(
        **{name: all(getattr(model.capabilities, name) for model in models) for name in names}
    )
