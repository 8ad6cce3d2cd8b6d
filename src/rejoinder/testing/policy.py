"""What would a fallback policy have done? Latencies and outages, without network or real time.

`simulate_policy` sends invented turns through the very code that decides in `FallbackAdapter`
(`Race`, the breakers, the hedging gate) on a clock of its own, and tells how long people would have
waited. Latencies are recorded ones (a list of seconds) or drawn from a distribution.
"""

from __future__ import annotations

import heapq
import itertools
import math
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from rejoinder._core.candidates import (
    HEALTHY,
    Action,
    BreakerOptions,
    Cancel,
    Conclude,
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
from rejoinder._core.hedge import Gate, Hedge, Pace
from rejoinder.errors import APIConnectionError, APITimeoutError
from rejoinder.llm.fallback_adapter import TurnBudget

__all__ = ["PolicyReport", "SimulatedModel", "log_normal", "simulate_policy"]

Latency = Callable[[random.Random], float]


def log_normal(median: float, spread: float = 0.4) -> Latency:
    """Times to first token as they are usually distributed: `spread` is the standard deviation of
    their logarithm (0.4: one in twenty takes twice as long as the median)."""
    return lambda dice: dice.lognormvariate(math.log(median), spread)


@dataclass(frozen=True)
class SimulatedModel:
    """How one model behaves.

    Args:
        latency: seconds to the first token: a function of a random generator, or recorded values,
            which are drawn from.
        stalls: the share of requests that stall, ...
        stall: ... and for how many seconds they say nothing; ``inf`` for ever.
        errors: the share of requests that fail at once.
        outages: from when to when (seconds of simulated time) every request fails, ...
        outage_silent: ... or, instead of failing, says nothing.
    """

    latency: Latency | Sequence[float]
    stalls: float = 0.0
    stall: float = math.inf
    errors: float = 0.0
    outages: Sequence[tuple[float, float]] = ()
    outage_silent: bool = False

    def answer(self, dice: random.Random, now: float) -> float | Exception:
        """Seconds to the first token of a request that is sent now, or how it fails."""
        if any(start <= now < end for start, end in self.outages):
            return math.inf if self.outage_silent else APIConnectionError("outage")
        if self.errors and dice.random() < self.errors:
            return APIConnectionError("error")
        seconds = self.latency(dice) if callable(self.latency) else dice.choice(list(self.latency))
        if self.stalls and dice.random() < self.stalls:
            return seconds + self.stall
        return seconds


@dataclass(frozen=True)
class PolicyReport:
    """What the simulated turns were like. Times in seconds.

    Attributes:
        turns: how many there were.
        ttft_p50, ttft_p95, ttft_p99: time from the question to the first word, over the answered
            turns.
        longest: the longest of them, or of the waits for a final error.
        unanswered: turns in which nobody said anything.
        requests: sent for turns, in all; without failures and hedges one for each turn.
        hedged: turns in which two models were asked at once.
        probes: requests that only tested whether a model is back.
        extra_tokens: of hedges that lost and of probes.
    """

    turns: int
    ttft_p50: float
    ttft_p95: float
    ttft_p99: float
    longest: float
    unanswered: int
    requests: int
    hedged: int
    probes: int
    extra_tokens: int

    @property
    def extra_requests(self) -> float:
        """Requests beyond one for each turn, as a share of the turns."""
        return (self.requests - self.turns) / self.turns

    def __str__(self) -> str:
        return (
            f"first word p50 {self.ttft_p50:.2f} s, p95 {self.ttft_p95:.2f} s, "
            f"p99 {self.ttft_p99:.2f} s, longest wait {self.longest:.2f} s, "
            f"unanswered {self.unanswered} of {self.turns}, extra requests "
            f"{self.extra_requests:.1%}, probes {self.probes}, extra tokens {self.extra_tokens}"
        )


def simulate_policy(
    models: Sequence[SimulatedModel],
    *,
    turns: int = 2000,
    interval: float = 1.0,
    attempt_timeout: float = 5.0,
    budget: TurnBudget | None = None,
    hedge: Hedge | None = None,
    breaker: BreakerOptions | None = None,
    prompt_tokens: int = 1000,
    seed: int = 0,
) -> PolicyReport:
    """Send `turns` turns, one every `interval` seconds, through a policy.

    Args:
        models: in the order in which they are asked.
        attempt_timeout, budget, hedge, breaker: as in `FallbackAdapter`. Of the budget, the limits
            on the first token and on extra tokens count: replies are only simulated up to there.
        prompt_tokens: what one request costs.
        seed: the same seed gives the same result.

    Raises:
        ValueError: no models, or no turns.
    """
    if not models or turns < 1 or interval < 0:
        raise ValueError(
            f"simulate_policy: expected models, turns and an interval of at least 0, got "
            f"{len(models)} models, {turns} turns, interval {interval!r}"
        )
    world = _World(
        models=models,
        attempt_timeout=attempt_timeout,
        budget=budget or TurnBudget(),
        gate=None if hedge is None else Gate(hedge),
        breaker=breaker or BreakerOptions(),
        prompt_tokens=prompt_tokens,
        dice=random.Random(seed),  # noqa: S311  an invented world
        paces=[Pace(200 if hedge is None else hedge.window) for _ in models],
        healths=[HEALTHY] * len(models),
    )
    for number in range(turns):
        world.at(number * interval, world.turn)
    world.run()
    return world.report(turns)


@dataclass
class _World:
    models: Sequence[SimulatedModel]
    attempt_timeout: float
    budget: TurnBudget
    gate: Gate | None
    breaker: BreakerOptions
    prompt_tokens: int
    dice: random.Random
    paces: list[Pace]
    healths: list[Health]
    now: float = 0.0
    requests: int = 0
    hedged: int = 0
    probes: int = 0
    extra_tokens: int = 0
    waits: list[float] = field(default_factory=list[float])
    failed_waits: list[float] = field(default_factory=list[float])
    _agenda: list[tuple[float, int, Callable[[], None]]] = field(
        default_factory=list[tuple[float, int, Callable[[], None]]]
    )
    _order: itertools.count[int] = field(default_factory=itertools.count)

    def at(self, moment: float, what: Callable[[], None]) -> None:
        if moment < math.inf:
            heapq.heappush(self._agenda, (moment, next(self._order), what))

    def run(self) -> None:
        while self._agenda:
            self.now, _, what = heapq.heappop(self._agenda)
            what()

    def turn(self) -> None:
        candidates, nobody = order(self.healths)
        if not nobody:
            self._probe_rested()
        delay = None
        limit = self.budget.max_extra_tokens
        if (
            self.gate is not None
            and len(candidates) > 1
            and (limit is None or limit >= self.prompt_tokens)
        ):
            everybody = not nobody and len(candidates) == len(self.models)
            delay = self.gate.delay(self.paces[candidates[0]], all_available=everybody)
        first_by = self.budget.first_token_by
        limits = Limits(
            attempt=self.attempt_timeout or math.inf,
            first_token_by=math.inf if first_by is None else first_by,
        )
        race = Race(
            candidates,
            limits,
            started_at=self.now,
            hedge_delay=delay,
            may_hedge=self._may_hedge,
        )
        _Turn(self, race).begin()

    def _may_hedge(self) -> bool:
        everybody = all(health.available for health in self.healths)
        return self.gate is not None and everybody and self.gate.take()

    def failed(self, index: int, error: BaseException, started: float) -> None:
        self.healths[index] = after_failure(
            self.healths[index],
            judge(error),
            reason=str(error),
            now=self.now,
            jitter=self.dice.random(),
            options=self.breaker,
            started=started,
        )

    def succeeded(self, index: int, started: float, *, probe: bool = False) -> None:
        self.healths[index] = after_success(
            self.healths[index], started=started, now=self.now, probe=probe
        )

    def _probe_rested(self) -> None:
        for index, health in enumerate(self.healths):
            if not may_probe(health, self.now):
                continue
            self.healths[index] = probing(health, self.now, self.breaker)
            self.probes += 1
            answer = self.models[index].answer(self.dice, self.now)
            patience = self.breaker.probe_timeout
            if isinstance(answer, Exception):
                self.failed(index, answer, math.inf)
            elif answer > patience:
                self.at(
                    self.now + patience, lambda i=index: self.failed(i, APITimeoutError(), math.inf)
                )
            else:
                self.at(self.now + answer, lambda i=index: self.succeeded(i, math.inf, probe=True))

    def report(self, turns: int) -> PolicyReport:
        waits = sorted(self.waits) or [math.nan]

        def percentile(share: float) -> float:
            return waits[min(len(waits) - 1, math.ceil(share * len(waits)) - 1)]

        return PolicyReport(
            turns=turns,
            ttft_p50=percentile(0.5),
            ttft_p95=percentile(0.95),
            ttft_p99=percentile(0.99),
            longest=max([*self.waits, *self.failed_waits]),
            unanswered=len(self.failed_waits),
            requests=self.requests,
            hedged=self.hedged,
            probes=self.probes,
            extra_tokens=self.extra_tokens,
        )


class _Turn:
    """Drives one race, as `FallbackLLMStream` does, on the invented clock."""

    def __init__(self, world: _World, race: Race) -> None:
        self._world = world
        self._race = race
        self._started: list[tuple[int, float]] = []
        self._done = False

    def begin(self) -> None:
        self._do(self._race.begin(self._world.now))

    def _do(self, actions: Sequence[Action]) -> None:
        world = self._world
        for action in actions:
            match action:
                case Start(attempt=attempt, candidate=candidate):
                    world.requests += 1
                    self._started.append((candidate, world.now))
                    answer = world.models[candidate].answer(world.dice, world.now)
                    if isinstance(answer, Exception):
                        world.at(world.now, lambda a=attempt, e=answer: self._fails(a, e))
                    else:
                        world.at(world.now + answer, lambda a=attempt: self._speaks(a))
                case Cancel(attempt=attempt, error=error):
                    if error is None:
                        world.extra_tokens += world.prompt_tokens
                    else:
                        world.failed(self._started[attempt][0], error, self._started[attempt][1])
                case Win(attempt=attempt):
                    candidate, since = self._started[attempt]
                    world.paces[candidate].add(world.now - since)
                    world.succeeded(candidate, since)
                    world.waits.append(world.now - self._race.started_at)
                    self._over()
                case Conclude():
                    if not self._done:
                        world.failed_waits.append(world.now - self._race.started_at)
                        self._over()
        world.at(self._race.due(), self._tick)

    def _over(self) -> None:
        self._done = True
        if self._world.gate is not None:
            self._world.gate.turned()
        self._world.hedged += self._race.hedged

    def _tick(self) -> None:
        if not self._done:
            self._do(self._race.tick(self._world.now))

    def _speaks(self, attempt: int) -> None:
        if not self._done:
            self._do(self._race.useful(attempt, self._world.now))

    def _fails(self, attempt: int, error: Exception) -> None:
        if not self._done:
            candidate, since = self._started[attempt]
            self._world.failed(candidate, error, since)
            self._do(self._race.ended(attempt, error, self._world.now))
