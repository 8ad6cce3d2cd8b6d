"""Who is tried, and who rests: the breaker of each model, and the course of one turn.

Pure: (event, now) -> decisions. A breaker counts in wall time, because several processes may share
it; a turn counts in loop time. The shell starts and cancels what is decided here, and decides
nothing itself; `rejoinder.testing.simulate_policy` drives the same code with invented time.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal, TypeAlias

from rejoinder.errors import (
    APIError,
    APIStatusError,
    APITimeoutError,
    ConfigurationError,
    EmptyResponseError,
    RefusalError,
)

__all__ = [
    "HEALTHY",
    "Action",
    "BreakerOptions",
    "Cancel",
    "Conclude",
    "Failure",
    "Health",
    "Limits",
    "Race",
    "Start",
    "Verdict",
    "Win",
    "after_failure",
    "after_success",
    "judge",
    "may_probe",
    "order",
    "probing",
]


# -- breaker -------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class BreakerOptions:
    """How long a model rests after a failure. Seconds.

    The first rest is `cooldown`, each further one `factor` times longer, up to `max_cooldown`; a
    random part of up to `jitter` is added, so that processes do not come back together. At the end
    of a rest one probe may go out; whoever sends it holds it for `probe_timeout` at most, so that a
    process that dies with it blocks nobody.
    """

    cooldown: float = 1.0
    factor: float = 2.0
    max_cooldown: float = 60.0
    jitter: float = 0.25
    probe_timeout: float = 10.0

    def __post_init__(self) -> None:
        for name in ("cooldown", "max_cooldown", "jitter", "probe_timeout"):
            if getattr(self, name) < 0:
                raise ValueError(
                    f"BreakerOptions.{name}: expected at least 0, got {getattr(self, name)!r}"
                )
        if self.factor < 1:
            raise ValueError(f"BreakerOptions.factor: expected at least 1, got {self.factor!r}")


@dataclass(frozen=True, slots=True)
class Health:
    """What is known of one model.

    Attributes:
        state: ``closed`` (it is asked), ``open`` (it rests until `until`), ``half_open`` (one probe
            is on its way, and is given up at `until`).
        until: wall time.
        failures: failures in a row that opened the breaker. A probe that succeeds closes it and
            leaves the count, so that a model that only answers probes rests longer each time.
        reason: what the last of them was, in a few words.
        since: when it was opened, or closed again (wall time).
    """

    state: Literal["closed", "open", "half_open"] = "closed"
    until: float = 0.0
    failures: int = 0
    reason: str = ""
    since: float = 0.0

    @property
    def available(self) -> bool:
        return self.state == "closed"

    @property
    def untroubled(self) -> bool:
        """Nothing is left that a success could mend."""
        return self.state == "closed" and not self.failures


HEALTHY = Health()


@dataclass(frozen=True, slots=True)
class Verdict:
    """What a failure says.

    Attributes:
        trips: about the model: it should rest.
        rest: for how long, if the provider said so (seconds).
        final: about the request: no other model should be asked.
        empty: the model answered, and said nothing.
    """

    trips: bool
    rest: float | None = None
    final: bool = False
    empty: bool = False


# What these say is wrong with the request, not with the model that was asked.
_OURS = frozenset({400, 409, 413, 414, 415, 422})


def judge(error: BaseException) -> Verdict:
    """Whose fault it is."""
    match error:
        case RefusalError():
            return Verdict(trips=False, final=True)
        case EmptyResponseError():
            return Verdict(trips=False, empty=True)
        case ConfigurationError():
            return Verdict(trips=False)
        case APIStatusError(status_code=status) if status in _OURS:
            return Verdict(trips=False)
        case APIError(retry_after=rest):
            return Verdict(trips=True, rest=rest)
        case _:
            return Verdict(trips=True)


def after_failure(
    health: Health,
    verdict: Verdict,
    *,
    reason: str,
    now: float,
    jitter: float,
    options: BreakerOptions,
    started: float = math.inf,
) -> Health:
    """The health after a failure.

    Args:
        jitter: a random number in [0, 1).
        started: when the call that failed was made. What was asked before the model came back says
            nothing about it.
    """
    if not verdict.trips:
        return health
    if health.state == "closed" and started < health.since <= now:
        return health
    spread = 1 + options.jitter * jitter
    # A rest of 0 s would make every turn a probe.
    rest = None if not verdict.rest else verdict.rest * spread
    if health.state == "open" and now < health.until and not _clock_was_set_back(health, now):
        # Somebody else has noticed the same outage already: one outage counts once. But a provider
        # that says for how long knows better.
        if rest is not None and now + rest > health.until:
            return replace(health, until=now + rest, reason=reason)
        return health
    failures = health.failures + 1
    if rest is None:
        # 2 ** 1024 is no float; no rest is that long.
        power = options.factor ** min(failures - 1, 64)
        rest = min(options.cooldown * power, options.max_cooldown) * spread
    return Health("open", now + rest, failures, reason, now)


def after_success(health: Health, *, started: float, now: float, probe: bool = False) -> Health:
    """The health after an answer to a call that was made at `started`."""
    if health.state == "closed":
        return health if probe or not health.failures else replace(health, failures=0)
    if not probe and started < health.since <= now:
        return health  # it was asked before the outage: a long reply comes to its end
    return Health("closed", 0.0, health.failures if probe else 0, "", now)


def may_probe(health: Health, now: float) -> bool:
    """Whether a probe may go out now: the rest is over, or the last probe was given up."""
    return health.state != "closed" and (health.until <= now or _clock_was_set_back(health, now))


def probing(health: Health, now: float, options: BreakerOptions) -> Health:
    """The health while a probe is on its way."""
    since = min(health.since, now)  # the clock may have been set back
    return replace(health, state="half_open", until=now + options.probe_timeout, since=since)


def _clock_was_set_back(health: Health, now: float) -> bool:
    """Then what is written as a moment soon may be hours away."""
    return now < health.since - 1.0


def order(healths: Sequence[Health]) -> tuple[list[int], bool]:
    """Whom to ask, first one first, and whether they are asked although all of them rest: when
    nobody is available, asking is better than silence. Then those come first that failed less."""
    available = [index for index, health in enumerate(healths) if health.available]
    if available:
        return available, False
    return sorted(range(len(healths)), key=lambda index: healths[index].failures), True


# -- one turn ------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Start:
    """Ask candidate number `candidate`; the attempt goes by `attempt` from now on."""

    attempt: int
    candidate: int
    hedge: bool = False


@dataclass(frozen=True, slots=True)
class Cancel:
    """Stop an attempt; `lost` if another one was faster, otherwise it has failed with `error`."""

    attempt: int
    lost: bool
    error: APIError | None = None


@dataclass(frozen=True, slots=True)
class Win:
    """From now on the consumer hears this attempt."""

    attempt: int


@dataclass(frozen=True, slots=True)
class Conclude:
    """The turn is over. Without an `error` it ended well, perhaps with nothing said."""

    error: BaseException | None = None
    exhausted: bool = False
    """Nobody is left to be asked; `Race.failures` tells why."""


Action: TypeAlias = Start | Cancel | Win | Conclude


@dataclass(frozen=True, slots=True)
class Failure:
    """How an attempt failed."""

    candidate: int
    error: BaseException


@dataclass(frozen=True, slots=True)
class Limits:
    """The patience of one turn, in seconds. See `rejoinder.llm.fallback_adapter.TurnBudget`."""

    attempt: float
    first_token_by: float = math.inf
    next_token: float = math.inf
    thinking_is_progress: bool = True


@dataclass(slots=True)
class _Attempt:
    candidate: int
    progress_at: float
    running: bool = True


def _always() -> bool:
    return True


@dataclass(slots=True)
class Race:
    """One turn, from the first attempt to the end of the winner, and again if that one is cut.

    Attributes:
        candidates: numbers of the models, in the order in which they are asked.
        hedge_delay: after so many seconds of silence the next one is asked beside the first.
        empty_is_fine: an empty answer is an answer, as it is after a tool output.
        may_hedge: asked at the moment when a hedge would start.
    """

    candidates: Sequence[int]
    limits: Limits
    started_at: float
    hedge_delay: float | None = None
    empty_is_fine: bool = False
    may_hedge: Callable[[], bool] = _always
    failures: list[Failure] = field(default_factory=list[Failure])
    winner: int | None = None
    hedged: bool = False
    over: bool = False
    _attempts: list[_Attempt] = field(default_factory=list[_Attempt])
    _waiting: list[int] = field(default_factory=list[int])
    _spoken: bool = False
    _hedge_at: float = math.inf

    def __post_init__(self) -> None:
        self._waiting = list(self.candidates)

    # -- events: each returns what is to be done, in order ----------------------------------------

    def begin(self, now: float) -> list[Action]:
        """The turn starts, or starts anew after its winner was cut."""
        actions = self._ask_next(now)
        if self.hedge_delay is not None and not self._spoken:
            self._hedge_at = now + self.hedge_delay
        return actions

    def progressed(self, attempt: int, at: float) -> None:
        """An attempt gave a sign at that moment that it is at work: it showed that it thinks, or
        sent part of a tool call, or, as the winner, said something. Need not be told before the
        next `tick`."""
        if self.limits.thinking_is_progress or attempt == self.winner:
            told = self._attempts[attempt]
            told.progress_at = max(told.progress_at, at)

    def useful(self, attempt: int, now: float) -> list[Action]:
        """An attempt said its first text or made its first tool call."""
        if self.winner is not None or self.over or not self._attempts[attempt].running:
            return []
        self.winner = attempt
        self._attempts[attempt].progress_at = now
        self._spoken = True
        self._hedge_at = math.inf
        losers = [i for i, other in enumerate(self._attempts) if other.running and i != attempt]
        for loser in losers:
            self._attempts[loser].running = False
        # They have not failed: should this one be cut, they can be asked again.
        self._waiting[:0] = [self._attempts[loser].candidate for loser in losers]
        return [Win(attempt), *(Cancel(loser, lost=True) for loser in losers)]

    def ended(self, attempt: int, error: BaseException | None, now: float) -> list[Action]:
        """An attempt came to its end, by itself, before anything useful or as the winner."""
        ended = self._attempts[attempt]
        if self.over or not ended.running:
            return []
        ended.running = False
        if attempt == self.winner:
            if error is None:
                return self._conclude()
            # What now is a policy of the shell: it may call `begin` for the candidates that are left.
            self.winner = None
            self.failures.append(Failure(ended.candidate, error))
            return [Conclude(error)]
        if self.empty_is_fine and (error is None or judge(error).empty):
            return [*self._cancel_rest(), *self._conclude()]
        if error is None:
            error = EmptyResponseError("the model ended its reply without saying anything")
        return self._failed(ended, error, now)

    def tick(self, now: float) -> list[Action]:
        """Time has passed. To be called at `due`, and harmless at any other moment."""
        actions: list[Action] = []
        if self.over:
            return actions
        if self.winner is not None:
            return self._watch_winner(self.winner, now)
        if now >= self._first_token_at():
            error = APITimeoutError(
                f"nothing was said within the {self.limits.first_token_by:g} s of the whole turn"
            )
            for attempt in self._attempts:
                if attempt.running:
                    self.failures.append(Failure(attempt.candidate, error))
            actions += self._cancel_rest(error)
            return [*actions, *self._conclude(error)]
        for number, attempt in enumerate(self._attempts):
            if attempt.running and now >= attempt.progress_at + self.limits.attempt:
                attempt.running = False
                error = APITimeoutError(
                    f"nothing was said within {self.limits.attempt:g} s (attempt_timeout)"
                )
                actions.append(Cancel(number, lost=False, error=error))
                actions += self._failed(attempt, error, now)
        if now >= self._hedge_at and not self.over:
            self._hedge_at = math.inf
            if self._waiting and self.may_hedge():
                self.hedged = True
                actions += self._ask_next(now, hedge=True)
        return actions

    def due(self) -> float:
        """When to call `tick` next (loop time); infinite if there is nothing to wait for."""
        if self.over:
            return math.inf
        if self.winner is not None:
            return self._attempts[self.winner].progress_at + self.limits.next_token
        moments = [a.progress_at + self.limits.attempt for a in self._attempts if a.running]
        moments.append(self._hedge_at)
        moments.append(self._first_token_at())
        return min(moments)

    @property
    def left(self) -> int:
        """How many candidates can still be asked."""
        return len(self._waiting)

    def only_empty(self) -> bool:
        """Whether all who were asked answered, and said nothing."""
        return bool(self.failures) and all(judge(f.error).empty for f in self.failures)

    # -- inside ----------------------------------------------------------------------------------

    def _first_token_at(self) -> float:
        return math.inf if self._spoken else self.started_at + self.limits.first_token_by

    def _watch_winner(self, winner: int, now: float) -> list[Action]:
        attempt = self._attempts[winner]
        if now < attempt.progress_at + self.limits.next_token:
            return []
        error = APITimeoutError(f"no further output within {self.limits.next_token:g} s")
        attempt.running = False
        self.winner = None
        self.failures.append(Failure(attempt.candidate, error))
        return [Cancel(winner, lost=False, error=error), Conclude(error)]

    def _ask_next(self, now: float, *, hedge: bool = False) -> list[Action]:
        if not self._waiting:
            return self._conclude(exhausted=True)
        candidate = self._waiting.pop(0)
        self._attempts.append(_Attempt(candidate, progress_at=now))
        return [Start(len(self._attempts) - 1, candidate, hedge)]

    def _failed(self, attempt: _Attempt, error: BaseException, now: float) -> list[Action]:
        self.failures.append(Failure(attempt.candidate, error))
        verdict = judge(error)
        if verdict.final:
            return [*self._cancel_rest(), *self._conclude(error)]
        if verdict.trips:
            self._hedge_at = math.inf  # a model is down: the others have its load already
        if any(other.running for other in self._attempts):
            return []  # the hedge is on its way already
        return self._ask_next(now)

    def _cancel_rest(self, error: APIError | None = None) -> list[Action]:
        actions: list[Action] = []
        for number, attempt in enumerate(self._attempts):
            if attempt.running:
                attempt.running = False
                actions.append(Cancel(number, lost=error is None, error=error))
        return actions

    def _conclude(
        self, error: BaseException | None = None, *, exhausted: bool = False
    ) -> list[Action]:
        self.over = True
        return [Conclude(error, exhausted)]
