"""Simulates a fallback policy under latencies and outages, without network or real time.

`simulate_policy` sends invented turns through the deciding code of `FallbackAdapter` (`Race`, the
breakers, the hedging gate) on a simulated clock, and reports how long users would have waited.
Latencies are recorded ones (a list of seconds) or drawn from a distribution.
"""

from __future__ import annotations

import functools
import heapq
import itertools
import math
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from rejoinder._core.breaker import BreakerOptions, judge
from rejoinder._core.budget import OnCut, Policy, TurnBudget
from rejoinder._core.hedge import Gate, Hedge, Pace
from rejoinder._core.race import Action, Cancel, Conclude, Probe, Race, Start, Tell, Win
from rejoinder._options import AMOUNT, COUNT, SECONDS, SHARE, WHOLE, check_fields, checked
from rejoinder.errors import APIConnectionError, APITimeoutError, EmptyResponseError
from rejoinder.llm._fallback_health import HealthBoard
from rejoinder.types import APIConnectOptions

__all__ = ["PolicyReport", "SimulatedModel", "log_normal", "simulate_policy"]

Latency = Callable[[random.Random], float]


@checked(median=SECONDS, spread=AMOUNT)
def log_normal(median: float, spread: float = 0.4) -> Latency:
    """Log-normally distributed times to first token, as measured times usually are. `spread` is the
    standard deviation of the logarithm (0.4: one in twenty takes twice as long as the median)."""
    return lambda dice: dice.lognormvariate(math.log(median), spread)


@dataclass(frozen=True)
class SimulatedModel:
    """The behaviour of one model.

    Args:
        latency: seconds to the first token: a function of a random generator, or recorded values
            to draw from.
        stalls: share of the requests that stall.
        stall: seconds for which a stalled request sends nothing; ``inf`` for ever.
        errors: share of the requests that fail at once.
        empty: share of the requests that get an empty answer.
        cuts: share of the replies that break off.
        reply: seconds from the first token of a reply to its end.
        outages: periods in which every request fails: their start and end in seconds of simulated
            time.
        outage_silent: in an outage requests send nothing instead of failing.
    """

    latency: Latency | Sequence[float]
    stalls: float = 0.0
    stall: float = math.inf
    errors: float = 0.0
    outages: Sequence[tuple[float, float]] = ()
    outage_silent: bool = False
    empty: float = 0.0
    cuts: float = 0.0
    reply: float = 3.0

    def __post_init__(self) -> None:
        check_fields(
            self, stalls=SHARE, stall=AMOUNT, errors=SHARE, empty=SHARE, cuts=SHARE, reply=AMOUNT
        )

    def answer(self, dice: random.Random, now: float) -> float | Exception:
        """Seconds to the first token of a request that is sent now, or how it fails."""
        if any(start <= now < end for start, end in self.outages):
            return math.inf if self.outage_silent else APIConnectionError("outage")
        if self.errors and dice.random() < self.errors:
            return APIConnectionError("error")
        if self.empty and dice.random() < self.empty:
            return EmptyResponseError("empty")
        seconds = self.latency(dice) if callable(self.latency) else dice.choice(list(self.latency))
        if self.stalls and dice.random() < self.stalls:
            return seconds + self.stall
        return seconds

    def cut_after(self, dice: random.Random) -> float | None:
        """Seconds after which a reply breaks off, or ``None`` for a whole one."""
        return dice.random() * self.reply if self.cuts and dice.random() < self.cuts else None


@dataclass(frozen=True)
class PolicyReport:
    """Statistics of the simulated turns. Times are in seconds.

    Attributes:
        turns: number of turns.
        ttft_p50, ttft_p95, ttft_p99: time from the question to the first word, over the answered
            turns.
        longest: the longest of them, or of the waits for a final error.
        unanswered: turns that ended without any output, with an error or with an empty answer.
        requests: requests for turns; without failures and hedges one for each turn.
        hedged: turns in which two models were asked at once.
        probes: requests that only tested whether a model is back.
        extra_tokens: tokens of lost hedges, of requests after a cut and of probes.
        broken: replies that broke off and were not completed by another model.
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
    broken: int = 0

    @property
    def extra_requests(self) -> float:
        """Requests beyond one for each turn, as a share of the turns."""
        return (self.requests - self.turns) / self.turns

    def __str__(self) -> str:
        broken = f", broken off {self.broken}" if self.broken else ""
        return (
            f"first word p50 {self.ttft_p50:.2f} s, p95 {self.ttft_p95:.2f} s, "
            f"p99 {self.ttft_p99:.2f} s, longest wait {self.longest:.2f} s, "
            f"unanswered {self.unanswered} of {self.turns}{broken}, extra requests "
            f"{self.extra_requests:.1%}, probes {self.probes}, extra tokens {self.extra_tokens}"
        )


@checked(turns=COUNT, interval=AMOUNT, attempt_timeout=AMOUNT, prompt_tokens=WHOLE)
def simulate_policy(
    models: Sequence[SimulatedModel],
    *,
    turns: int = 2000,
    interval: float = 1.0,
    attempt_timeout: float = 5.0,
    budget: TurnBudget | None = None,
    hedge: Hedge | None = None,
    breaker: BreakerOptions | None = None,
    on_cut: OnCut = "stop",
    prompt_tokens: int = 1000,
    seed: int = 0,
) -> PolicyReport:
    """Send `turns` turns, one every `interval` seconds, through a policy.

    Args:
        models: the models, in the order in which they are asked.
        attempt_timeout, budget, hedge, breaker, on_cut: as in `FallbackAdapter`.
        prompt_tokens: tokens that one request costs.
        seed: the same seed gives the same result.

    Raises:
        ValueError: no models, or no turns.
    """
    if not models or turns < 1 or interval < 0:
        raise ValueError(
            f"simulate_policy: expected models, turns and an interval of at least 0, got "
            f"{len(models)} models, {turns} turns, interval {interval!r}"
        )
    policy = Policy(attempt_timeout=attempt_timeout, budget=budget or TurnBudget(), on_cut=on_cut)
    world = _World(models, policy, hedge, breaker or BreakerOptions(), prompt_tokens, seed)
    for number in range(turns):
        world.at(number * interval, _Turn(world).begin)
    world.run()
    return world.report(turns)


class _World:
    """State shared by the turns: the clock, the models and their health."""

    def __init__(
        self,
        models: Sequence[SimulatedModel],
        policy: Policy,
        hedge: Hedge | None,
        breaker: BreakerOptions,
        prompt_tokens: int,
        seed: int,
    ) -> None:
        self.models = models
        self.policy = policy
        self.limits = policy.limits(APIConnectOptions())
        self.gate = None if hedge is None else Gate(hedge)
        self.paces = [Pace(200 if hedge is None else hedge.window) for _ in models]
        self.prompt_tokens = prompt_tokens
        self.dice = random.Random(seed)  # noqa: S311  an invented world
        self.board = HealthBoard(
            [str(index) for index in range(len(models))],
            breaker,
            announce=lambda index, available: None,
            wall=lambda: self.now,
            dice=self.dice.random,
        )
        self.now = 0.0
        self.requests = 0
        self.hedged = 0
        self.probes = 0
        self.extra_tokens = 0
        self.broken = 0
        self.waits: list[float] = []
        self.failed_waits: list[float] = []
        self._agenda: list[tuple[float, int, Callable[[], None]]] = []
        self._order = itertools.count()

    def at(self, moment: float, what: Callable[[], None]) -> None:
        if moment < math.inf:
            heapq.heappush(self._agenda, (max(moment, self.now), next(self._order), what))

    def run(self) -> None:
        while self._agenda:
            self.now, _, what = heapq.heappop(self._agenda)
            what()

    def probe(self, index: int) -> None:
        if not self.board.claim_probe(index):
            return
        self.probes += 1
        answer = self.models[index].answer(self.dice, self.now)
        patience = self.board.probe_timeout
        if not isinstance(answer, Exception) and answer > patience:
            answer, took = APITimeoutError(), patience
        else:
            took = 0.0 if isinstance(answer, Exception) else answer
        if isinstance(answer, Exception) and judge(answer).trips:
            self.at(self.now + took, functools.partial(self.board.failed, index, answer))
        else:
            back = functools.partial(self.board.succeeded, index, started=self.now, probe=True)
            self.at(self.now + took, back)

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
            broken=self.broken,
        )


class _Turn:
    """Carries out the decisions of one race, like `FallbackLLMStream`, on the simulated clock."""

    def __init__(self, world: _World) -> None:
        self._world = world
        self._started: list[tuple[int, float]] = []
        self._over = False
        self._spoke = False

    def begin(self) -> None:
        world = self._world
        self._race = Race(
            len(world.models),
            world.limits,
            started_at=world.now,
            when_cut=world.policy.when_cut,
            gate=world.gate,
            paces=world.paces,
            price=lambda: world.prompt_tokens,
        )
        world.board.follow(self, lambda: world.at(world.now, self._replan))
        plan = self._plan()
        self._do([*plan, *self._race.begin(world.now)])

    def _plan(self) -> list[Action]:
        world = self._world
        return self._race.plan(world.now, world.board.read(), world.now)

    def _replan(self) -> None:
        if not self._over:
            self._do(self._plan())

    def _do(self, actions: Sequence[Action]) -> None:
        for action in actions:
            match action:
                case Start(attempt=attempt, candidate=candidate):
                    self._ask(attempt, candidate)
                case Cancel(attempt=attempt):
                    self._cancel(attempt, action)
                case Win(attempt=attempt):
                    self._win(attempt)
                case Probe(candidate=candidate):
                    self._world.probe(candidate)
                case Tell():
                    pass
                case Conclude():
                    self._conclude(action)
        if not self._over:
            self._world.at(self._race.due(), self._tick)

    def _ask(self, attempt: int, candidate: int) -> None:
        world = self._world
        world.requests += 1
        if self._spoke:
            world.extra_tokens += world.prompt_tokens
        self._started.append((candidate, world.now))
        answer = world.models[candidate].answer(world.dice, world.now)
        if isinstance(answer, Exception):
            world.at(world.now, lambda: self._fails(attempt, answer))
        else:
            world.at(world.now + answer, lambda: self._speaks(attempt))

    def _cancel(self, attempt: int, cancel: Cancel) -> None:
        world = self._world
        if cancel.error is None:
            world.extra_tokens += world.prompt_tokens
        elif cancel.blame:
            candidate, since = self._started[attempt]
            world.board.failed(candidate, cancel.error, started=since)

    def _win(self, attempt: int) -> None:
        world = self._world
        candidate, since = self._started[attempt]
        world.paces[candidate].add(world.now - since)
        if not self._spoke:
            self._spoke = True
            world.waits.append(world.now - self._race.started_at)
        cut = world.models[candidate].cut_after(world.dice)
        if cut is None:  # the rest of a whole reply decides nothing
            world.at(world.now, lambda: self._ends(attempt))
        else:
            # The limit on silence between two outputs is another matter: output flows until the cut.
            self._race.progressed(attempt, world.now + cut)
            error = APIConnectionError("cut")
            world.at(world.now + cut, lambda: self._fails(attempt, error))

    def _conclude(self, end: Conclude) -> None:
        world = self._world
        self._over = True
        world.board.unfollow(self)
        if world.gate is not None:
            world.gate.turned()
        world.hedged += self._race.hedged
        if not self._spoke:
            world.failed_waits.append(world.now - self._race.started_at)
        elif end.error is not None or end.why:
            world.broken += 1

    def _tick(self) -> None:
        if not self._over:
            plan = self._plan()
            self._do([*plan, *self._race.tick(self._world.now)])

    def _speaks(self, attempt: int) -> None:
        if not self._over:
            self._do(self._race.useful(attempt, self._world.now))

    def _ends(self, attempt: int) -> None:
        if not self._over:
            candidate, since = self._started[attempt]
            self._world.board.succeeded(candidate, started=since)
            self._do(self._race.ended(attempt, None, self._world.now))

    def _fails(self, attempt: int, error: Exception) -> None:
        if not self._over:
            candidate, since = self._started[attempt]
            self._world.board.failed(candidate, error, started=since)
            plan = self._plan()
            self._do([*plan, *self._race.ended(attempt, error, self._world.now)])
