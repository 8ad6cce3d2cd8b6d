"""The course of one turn: which model is asked when, which one wins, and how the turn ends.

Pure: (event, now) -> actions, in loop time. The shell (`rejoinder.llm`) only carries out the decisions
of this module; `rejoinder.testing.simulate_policy` drives the same code with simulated time.

No decision holds for a whole turn. The next model is chosen when it is needed, from the current health
of all models: `plan` takes the health and revises earlier decisions.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Final, Literal, TypeAlias

from rejoinder._core.breaker import Health, judge, may_probe, preference
from rejoinder._core.hedge import Gate, Pace
from rejoinder._sections import plain
from rejoinder.errors import APIError, APITimeoutError, EmptyResponseError

__all__ = [
    "Action",
    "Cancel",
    "Conclude",
    "Failure",
    "Limits",
    "Probe",
    "Race",
    "Start",
    "Tell",
    "WhenCut",
    "Win",
]

WhenCut: TypeAlias = Literal["stop", "append", "restart", "resume"]
"""The continuation of a reply that breaks off. ``append``: the next model's whole answer."""


@dataclass(frozen=True, slots=True)
class Start:
    """Ask model number `candidate`. `attempt` is the number of the attempt."""

    attempt: int
    candidate: int
    hedge: bool = False


@dataclass(frozen=True, slots=True)
class Cancel:
    """Stop an attempt: another one was faster (`lost`), or it has failed with `error`."""

    attempt: int
    lost: bool
    error: APIError | None = None
    blame: bool = True
    """Whether the model is at fault. False if the turn's limit ended before the model's own limit."""


@dataclass(frozen=True, slots=True)
class Win:
    """This attempt wins: the consumer gets its output."""

    attempt: int


@dataclass(frozen=True, slots=True)
class Probe:
    """Probe this model in the background, unless another process does."""

    candidate: int


@dataclass(frozen=True, slots=True)
class Tell:
    """Inform the consumer about a change of the reply."""

    event: Literal["restart", "cut_after_tool_call", "nothing_to_add"]
    reason: BaseException
    discard: str = ""
    """With ``restart``: the text so far, which is discarded."""
    failed: int | None = None
    """With ``restart``: number of the model that was cut."""


@dataclass(frozen=True, slots=True)
class Conclude:
    """The turn is over: successfully, perhaps without output; or with the winner's error; or for the
    reason in `why`, which `Race.reasons` explains for each model."""

    error: BaseException | None = None
    why: Literal["", "all failed", "no first token"] = ""
    note: str = ""
    """Text to add to `error`."""
    silent: int | None = None
    """The attempt whose empty answer counts; its thinking and usage belong to the reply."""


Action: TypeAlias = Start | Cancel | Win | Probe | Tell | Conclude


@dataclass(frozen=True, slots=True)
class Failure:
    """How an attempt failed."""

    candidate: int
    error: BaseException
    at: float = 0.0
    """Wall time."""
    rested: str = ""
    """A note that the model was asked although it rested; else empty."""
    attempt: int = 0


@dataclass(frozen=True, slots=True)
class Limits:
    """The limits of one turn, in seconds. See `rejoinder.llm.fallback_adapter.TurnBudget`."""

    attempt: float
    first_token_by: float = math.inf
    next_token: float = math.inf
    thinking_is_progress: bool = True
    max_extra_tokens: float = math.inf


@dataclass(slots=True)
class _Attempt:
    number: int
    candidate: int
    started_at: float
    patient_from: float
    """The time from which its silence counts."""
    progress_at: float
    rested: str
    running: bool = True
    stood_still: float = 0.0
    """Seconds during the attempt in which the event loop was blocked."""


_CHARACTERS_PER_TOKEN: Final = 4
_SHORTEST_WAIT: Final = 0.001
"""Seconds."""


def _nothing() -> int:
    return 0


@dataclass(slots=True)
class Race:
    """One turn, from the first attempt to the end of the winner, and again if that one is cut.

    Call `plan` before `begin`, and whenever the health of a model has changed; call `tick` at `due`.
    All other events come from the attempts.

    Attributes:
        models: the number of models.
        started_at: when the turn began (loop time).
        when_cut: how to continue after a reply that breaks off.
        empty_is_fine: an empty answer is legal, as after a tool output. The others are still asked;
            if none of them answers, the turn ends without output, not with an error.
        gate: decides about hedges, for all turns together; ``None``: no hedges.
        paces: how fast each model usually is.
        price: approximate tokens of one more request.
        spent: extra tokens spent so far.
        said: the pieces of text that the consumer got.
        called: the consumer got a tool call.
        resuming: the attempts that run now continue what was `said`.
    """

    models: int
    limits: Limits
    started_at: float
    when_cut: WhenCut = "stop"
    empty_is_fine: bool = False
    gate: Gate | None = None
    paces: Sequence[Pace] = ()
    price: Callable[[], int] = _nothing
    spent: float = 0
    said: list[str] = field(default_factory=list[str])
    called: bool = False
    resuming: bool = False
    failures: list[Failure] = field(default_factory=list[Failure])
    winner: int | None = None
    hedged: bool = False
    over: bool = False
    _attempts: list[_Attempt] = field(default_factory=list[_Attempt])
    _left: set[int] = field(default_factory=set[int])
    """The models that can still be asked."""
    _again: set[int] = field(default_factory=set[int])
    """Models that failed in this turn and have recovered or rested since. Each can be asked once
    more."""
    _healths: Sequence[Health] = ()
    _to_wall: float = 0.0
    _probed: dict[int, Health] = field(default_factory=dict[int, Health])
    _probe_at: float = math.inf
    _spoken: bool = False
    _hedge_at: float = math.inf
    _cut_by: BaseException | None = None
    _failures_before: int = 0
    _said_before: int = 0
    """Number of pieces of `said` from before the last cut."""

    def __post_init__(self) -> None:
        self._left = set(range(self.models))

    # -- events: each returns actions, in order ---------------------------------------------------

    def plan(self, now: float, healths: Sequence[Health], wall: float) -> list[Action]:
        """Revise decisions by new facts.

        Args:
            healths: the health of all models.
            wall: the wall time at `now`.
        """
        self._healths = healths
        self._to_wall = wall - now
        if self.over:
            return []
        for failure in self.failures:
            health = healths[failure.candidate]
            if (
                failure.candidate not in self._again
                and health.available
                and health.since > failure.at
                and judge(failure.error).trips
            ):
                self._again.add(failure.candidate)
                self._left.add(failure.candidate)
        return self._revise(now)

    def begin(self, now: float) -> list[Action]:
        """The turn starts."""
        return self._ask_next(now)

    def progressed(self, attempt: int, at: float) -> None:
        """Record the last sign of life of an attempt: thinking, a part of a tool call or, for the winner,
        any output. Reports may be late: it is enough to report before reading `due`."""
        if self.limits.thinking_is_progress or attempt == self.winner:
            known = self._attempts[attempt]
            known.progress_at = max(known.patient_from, at)

    def stood_still(self, seconds: float) -> None:
        """The event loop was blocked, so that time does not count as a model's silence."""
        for attempt in self._attempts:
            if attempt.running:
                attempt.progress_at = attempt.patient_from = attempt.progress_at + seconds
                attempt.stood_still += seconds
        self._hedge_at += seconds

    def useful(self, attempt: int, now: float) -> list[Action]:
        """An attempt sent its first text or made its first tool call."""
        if self.winner is not None or self.over or not self._attempts[attempt].running:
            return []
        self.winner = attempt
        won = self._attempts[attempt]
        won.progress_at = won.patient_from = now
        self._spoken = True
        self._hedge_at = self._probe_at = math.inf
        losers = [i for i, other in enumerate(self._attempts) if other.running and i != attempt]
        for loser in losers:
            self._attempts[loser].running = False
            # Losers did not fail: they stay candidates in case the winner breaks off.
            self._left.add(self._attempts[loser].candidate)
            self._spend()
        return [Win(attempt), *(Cancel(loser, lost=True) for loser in losers)]

    def ended(self, attempt: int, error: BaseException | None, now: float) -> list[Action]:
        """An attempt ended normally, before any output or as the winner."""
        ended = self._attempts[attempt]
        if self.over or not ended.running:
            return []
        ended.running = False
        if attempt == self.winner:
            return self._conclude() if error is None else self.cut(error, now)
        if error is None:
            error = EmptyResponseError("the model ended its reply without any output")
        return self._failed(ended, error, now)

    def cut(self, error: BaseException, now: float) -> list[Action]:
        """The winner has failed: end the turn, or continue with another model."""
        failed: int | None = None
        if self.winner is not None:
            attempt = self._attempts[self.winner]
            failed = attempt.candidate
            self._note(attempt, error, now)
            self.winner = None
        final = judge(error).final
        if self.called and self.when_cut == "resume" and not final:
            # The call is complete, and the model will be asked again with its output.
            return [Tell("cut_after_tool_call", error), *self._conclude()]
        if self.when_cut == "stop" or self.called or final:
            return self._conclude(error)
        if not self.resuming or any(self.said[self._said_before :]):
            # Attempts that continued the old text are obsolete.
            self._failures_before = len(self.failures)
        if not self._left:
            self._left = self._rested(now)
        if not self._left:
            return self._exhausted()
        if not self.affordable:
            limit = self.limits.max_extra_tokens
            return self._conclude(
                error, note=f"not continued: TurnBudget.max_extra_tokens ({limit:g}) is spent"
            )
        actions: list[Action] = []
        if self.when_cut != "append":
            self._spend()
        if self.when_cut == "restart":
            discard = "".join(self.said)
            self.spent += len(discard) // _CHARACTERS_PER_TOKEN
            self.said.clear()
            actions.append(Tell("restart", error, discard=discard, failed=failed))
        self.resuming = self.when_cut == "resume"
        self._cut_by, self._said_before = error, len(self.said)
        return [*actions, *self._ask_next(now)]

    def tick(self, now: float) -> list[Action]:
        """Time has passed. Call it at `due`; extra calls are harmless."""
        actions: list[Action] = []
        if self.over:
            return actions
        if self.winner is not None:
            return self._watch_winner(self.winner, now)
        if now >= self._first_token_at():
            return self._too_late(now)
        for number, attempt in enumerate(self._attempts):
            if attempt.running and now >= attempt.progress_at + self.limits.attempt:
                attempt.running = False
                error = APITimeoutError(f"no output within {self.limits.attempt:g} s").but(
                    section="no output"
                )
                actions.append(Cancel(number, lost=False, error=error))
                actions += self._failed(attempt, error, now)
        if now >= self._hedge_at and not self.over:
            self._hedge_at = math.inf
            if self.gate is not None and self.gate.take():
                self.hedged = True
                actions += self._ask_next(now, hedge=True)
        return actions

    def due(self) -> float:
        """When to call `plan` and `tick` next (loop time); infinite if there is nothing to wait for."""
        if self.over:
            return math.inf
        if self.winner is not None:
            return self._attempts[self.winner].progress_at + self.limits.next_token
        moments = [a.progress_at + self.limits.attempt for a in self._attempts if a.running]
        return min([*moments, self._hedge_at, self._probe_at, self._first_token_at()])

    # -- what the shell asks ----------------------------------------------------------------------

    @property
    def affordable(self) -> bool:
        """Whether one more request fits into the budget of extra tokens."""
        limit = self.limits.max_extra_tokens
        return limit == math.inf or self.spent + self.price() <= limit

    def lapse(self, attempt: int) -> float:
        """Seconds during an attempt in which the event loop was blocked."""
        return self._attempts[attempt].stood_still

    def reasons(self, names: Sequence[str], now: float) -> str:
        """For each model, how it failed in this turn, or why it was not asked."""
        reasons = [
            f"{names[failure.candidate]}: {plain(str(failure.error))}{failure.rested}"
            for failure in self.failures
        ]
        asked = {attempt.candidate for attempt in self._attempts}
        failed = {failure.candidate for failure in self.failures}
        for candidate, name in enumerate(names):
            if candidate not in asked:
                reasons.append(f"{name}: not asked{self._rest(candidate, now, ', it has rested')}")
            elif candidate not in failed:
                started = max(a.started_at for a in self._attempts if a.candidate == candidate)
                reasons.append(f"{name}: asked {now - started:.2f} s ago, not ended yet")
        return "; ".join(reasons)

    # -- inside -----------------------------------------------------------------------------------

    def _first_token_at(self) -> float:
        return math.inf if self._spoken else self.started_at + self.limits.first_token_by

    def _watch_winner(self, winner: int, now: float) -> list[Action]:
        attempt = self._attempts[winner]
        if now < attempt.progress_at + self.limits.next_token:
            return []
        error = APITimeoutError(f"no further output within {self.limits.next_token:g} s").but(
            section="no further output"
        )
        attempt.running = False
        return [Cancel(winner, lost=False, error=error), *self.cut(error, now)]

    def _too_late(self, now: float) -> list[Action]:
        actions: list[Action] = []
        for number, attempt in enumerate(self._attempts):
            if attempt.running:
                attempt.running = False
                waited = now - attempt.started_at
                error = APITimeoutError(f"no output yet after {waited:.2f} s")
                self._note(attempt, error, now)
                # A model that was asked late had less time than usual.
                blame = waited >= min(self.limits.attempt, self.limits.first_token_by)
                actions.append(Cancel(number, lost=False, error=error, blame=blame))
        if not self._left and (silent := self._deliberate_silence()) is not None:
            return [*actions, *self._conclude(silent=silent)]
        return [*actions, *self._conclude(why="no first token")]

    def _ask_next(self, now: float, *, hedge: bool = False) -> list[Action]:
        if not self._left and self._cut_by is not None:
            self._left = self._rested(now)
        candidate = self._next()
        if candidate is None:
            return self._exhausted()
        self._left.discard(candidate)
        rested = self._rest(candidate, now, " (asked although it had rested")
        number = len(self._attempts)
        asked = _Attempt(number, candidate, now, now, now, f"{rested})" if rested else "")
        self._attempts.append(asked)
        return [Start(number, candidate, hedge), *self._revise(now)]

    def _next(self) -> int | None:
        """The next model: an available one, or else a resting one, because asking it is better than
        silence."""
        if not self._left:
            return None
        return min(
            self._left, key=lambda candidate: (preference(self._healths[candidate]), candidate)
        )

    def _revise(self, now: float) -> list[Action]:
        """Decide again about probes and a hedge."""
        self._hedge_at = self._probe_at = math.inf
        if self.over or self.winner is not None:
            return []
        self._plan_hedge()
        return self._plan_probes(now)

    def _plan_hedge(self) -> None:
        """Plan a hedge for when the only attempt is silent for longer than usual. No hedge while another
        model is known to be down, because the others already carry its load."""
        if self.gate is None or self.hedged or self._spoken or not self._left:
            return
        running = [attempt for attempt in self._attempts if attempt.running]
        if len(running) != 1 or not self.affordable:
            return
        if not all(health.available for health in self._healths):
            return
        attempt = running[0]
        delay = self.gate.delay(self.paces[attempt.candidate])
        if delay is not None:
            self._hedge_at = attempt.started_at + attempt.stood_still + delay

    def _plan_probes(self, now: float) -> list[Action]:
        """Plan a probe of each resting candidate for the end of its rest. If all rest, the next one is
        asked instead, which serves as the probe."""
        healths = self._healths
        resting = [index for index, health in enumerate(healths) if not health.available]
        if not resting or len(resting) == len(healths):
            return []
        wall = now + self._to_wall
        probes: list[Action] = []
        for candidate in resting:
            health = healths[candidate]
            if candidate not in self._left or self._probed.get(candidate) == health:
                continue
            if may_probe(health, wall):
                self._probed[candidate] = health
                probes.append(Probe(candidate))
            else:
                # Strictly later than now, because sums of times are rounded.
                rest = max(health.until - wall, _SHORTEST_WAIT)
                self._probe_at = min(self._probe_at, now + rest)
        return probes

    def _rested(self, now: float) -> set[int]:
        """Models that failed in this turn and whose rest is over. A cut reply would end here, so they
        are asked once more, which serves as the probe."""
        wall = now + self._to_wall
        rested = {
            failure.candidate
            for failure in self.failures
            if failure.candidate not in self._again
            and judge(failure.error).trips
            and may_probe(self._healths[failure.candidate], wall)
        }
        self._again |= rested
        return rested

    def _rest(self, candidate: int, now: float, words: str) -> str:
        health = self._healths[candidate]
        if health.available:
            return ""
        seconds = max(0.0, now + self._to_wall - health.since)
        after = f" after {health.reason}" if health.reason else ""
        return f"{words} for {seconds:.1f} s{after}"

    def _note(self, attempt: _Attempt, error: BaseException, now: float) -> None:
        wall = now + self._to_wall
        failure = Failure(attempt.candidate, error, wall, attempt.rested, attempt.number)
        self.failures.append(failure)

    def _failed(self, attempt: _Attempt, error: BaseException, now: float) -> list[Action]:
        self._note(attempt, error, now)
        if judge(error).final:
            return [*self._cancel_rest(), *self._conclude(error)]
        if any(other.running for other in self._attempts):
            return self._revise(now)  # the other attempt of a hedge is already running
        return self._ask_next(now)

    def _exhausted(self) -> list[Action]:
        """All models were asked."""
        if self.failures and all(judge(f.error).empty for f in self.failures):
            return self._conclude(silent=self._deliberate_silence())  # they gave empty answers
        since = self.failures[self._failures_before :]
        if self.resuming and self._cut_by and any(judge(f.error).empty for f in since):
            # Perhaps only the end of the reply was missing.
            return [Tell("nothing_to_add", self._cut_by), *self._conclude()]
        if (silent := self._deliberate_silence()) is not None:
            return self._conclude(silent=silent)
        return self._conclude(why="all failed")

    def _deliberate_silence(self) -> int | None:
        """The first attempt with an empty answer, if that is legal."""
        if not self.empty_is_fine:
            return None
        since = self.failures[self._failures_before :]
        return next((f.attempt for f in since if judge(f.error).empty), None)

    def _cancel_rest(self) -> list[Action]:
        actions: list[Action] = []
        for number, attempt in enumerate(self._attempts):
            if attempt.running:
                attempt.running = False
                actions.append(Cancel(number, lost=True))
        return actions

    def _spend(self) -> None:
        if self.limits.max_extra_tokens < math.inf:
            self.spent += self.price()

    def _conclude(
        self,
        error: BaseException | None = None,
        *,
        why: Literal["", "all failed", "no first token"] = "",
        note: str = "",
        silent: int | None = None,
    ) -> list[Action]:
        self.over = True
        return [Conclude(error, why, note, silent)]
