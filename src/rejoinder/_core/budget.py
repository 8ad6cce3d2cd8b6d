"""The settings of a fallback: limits of a turn, and the reaction to a failed model. Pure values."""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from typing import Final, Literal, TypeAlias

from rejoinder._core.race import Limits, WhenCut
from rejoinder._options import AMOUNT, FLAG, PAUSE, WHOLE, check, one_of
from rejoinder.errors import ConfigurationError
from rejoinder.types import APIConnectOptions

__all__ = ["OnCut", "Policy", "Settings", "TurnBudget"]

OnCut: TypeAlias = Literal["stop", "restart", "resume"]
_ON_CUT: Final = one_of("stop", "restart", "resume")


@dataclass(frozen=True)
class TurnBudget:
    """Limits on the time and tokens of one turn, whichever models it needs.

    Args:
        first_token_by: seconds from the call of `chat` to the first text or tool call of any model.
            ``None``: only the `attempt_timeout` of each model limits it.
        next_token_within: seconds between two outputs of the model that speaks. ``None``: the
            adapter's `attempt_timeout`; 0: no limit.
        done_by: seconds from the call of `chat` to the end of the reply. ``None``: no limit.
        max_extra_tokens: tokens that may be spent on output that is not heard or is heard twice: on
            hedges that lose, and on restarting or resuming a reply that was cut. Estimated from the
            lengths of texts. ``None``: no limit.
        thinking_is_progress: a model that sends thinking does not count as silent.

    The defaults are those of the reference. When a limit on time ends, the turn fails with an
    `APITimeoutError` that names all models.

    Raises:
        ConfigurationError: a value is not a number or is negative, or the limit for the first token is
            later than the one for the end.
    """

    first_token_by: float | None = None
    next_token_within: float | None = None
    done_by: float | None = None
    max_extra_tokens: int | None = None
    thinking_is_progress: bool = True

    def __post_init__(self) -> None:
        check(
            "TurnBudget",
            first_token_by=(self.first_token_by, AMOUNT.optional),
            next_token_within=(self.next_token_within, AMOUNT.optional),
            done_by=(self.done_by, AMOUNT.optional),
            max_extra_tokens=(self.max_extra_tokens, WHOLE.optional),
            thinking_is_progress=(self.thinking_is_progress, FLAG),
        )
        if (
            self.first_token_by is not None
            and self.done_by is not None
            and self.first_token_by > self.done_by
        ):
            raise ConfigurationError(
                f"TurnBudget cannot be met: the first token by {self.first_token_by:g} s is later "
                f"than the end of the reply by {self.done_by:g} s"
            )


@dataclass(frozen=True, slots=True)
class Settings:
    """The settings that follow from the options of a call.

    Attributes:
        asked_with: the given options.
        limits: the limits of the race.
        child: the options for each model.
        own: the options of the adapter's own stream.
    """

    asked_with: APIConnectOptions
    limits: Limits
    child: APIConnectOptions
    own: APIConnectOptions


@dataclass(frozen=True)
class Policy:
    """The checked settings of a `FallbackAdapter`; described there."""

    attempt_timeout: float = 5.0
    max_retry_per_llm: int = 0
    retry_interval: float = 0.5
    retry_on_chunk_sent: bool = False
    budget: TurnBudget = field(default_factory=TurnBudget)
    on_cut: OnCut = "stop"

    def __post_init__(self) -> None:
        check(
            "FallbackAdapter",
            attempt_timeout=(self.attempt_timeout, AMOUNT),
            max_retry_per_llm=(self.max_retry_per_llm, WHOLE),
            retry_interval=(self.retry_interval, PAUSE),
            retry_on_chunk_sent=(self.retry_on_chunk_sent, FLAG),
            on_cut=(self.on_cut, _ON_CUT),
        )

    @property
    def when_cut(self) -> WhenCut:
        if self.on_cut == "stop" and self.retry_on_chunk_sent:
            return "append"
        return self.on_cut

    @property
    def patience(self) -> float:
        """Seconds that a model may be silent, including its own retries and their pauses."""
        retries = self.max_retry_per_llm
        timeout = self.attempt_timeout or math.inf
        if not retries:
            return timeout
        pauses = 0.1 + self.retry_interval * (retries - 1)
        return timeout * (retries + 1) + 1.25 * pauses

    def settings(self, options: APIConnectOptions) -> Settings:
        """The settings for the turn and for each model that follow from the options of `chat`."""
        done_by = self.done_by(options)
        return Settings(
            asked_with=options,
            limits=self.limits(options),
            child=self.child_options(options),
            # The race decides about silence, not the base class.
            own=replace(
                options,
                first_output=math.inf,
                between_outputs=math.inf,
                total=None if done_by == math.inf else done_by,
            ),
        )

    def limits(self, options: APIConnectOptions) -> Limits:
        """The limits of a turn with `options`. The stricter of both applies."""
        budget = self.budget
        next_token = self._next_token(options)
        return Limits(
            attempt=self.patience,
            first_token_by=min(
                _or_inf(budget.first_token_by), _or_inf(options.first_output or None)
            ),
            next_token=(self.attempt_timeout if next_token is None else next_token) or math.inf,
            thinking_is_progress=budget.thinking_is_progress,
            max_extra_tokens=_or_inf(budget.max_extra_tokens),
        )

    def done_by(self, options: APIConnectOptions) -> float:
        """Seconds for the whole turn."""
        return min(_or_inf(self.budget.done_by), _or_inf(options.total))

    def child_options(self, options: APIConnectOptions) -> APIConnectOptions:
        """The options for each model."""
        return replace(
            options,
            max_retry=self.max_retry_per_llm,
            timeout=self.attempt_timeout,
            retry_interval=self.retry_interval,
            first_output=None,
            between_outputs=self._next_token(options),
            total=None,
        )

    def _next_token(self, options: APIConnectOptions) -> float | None:
        own = self.budget.next_token_within
        return options.between_outputs if own is None else own


def _or_inf(seconds: float | None) -> float:
    return math.inf if seconds is None else seconds
