"""The simulator of fallback policies, and what it shows of ours."""

from __future__ import annotations

import math

import pytest

from rejoinder.llm import Hedge, TurnBudget
from rejoinder.llm.fallback_adapter import BreakerOptions
from rejoinder.testing.policy import SimulatedModel, log_normal, simulate_policy

QUICK = SimulatedModel(log_normal(0.5, 0.3))


def test_a_good_model_alone() -> None:
    report = simulate_policy([QUICK], turns=500)
    assert report.ttft_p50 == pytest.approx(0.5, rel=0.1)
    assert (report.requests, report.unanswered, report.extra_requests) == (500, 0, 0)


@pytest.mark.parametrize("stall", [5.0, 10.0, math.inf])
def test_hedging_cuts_the_tail_of_a_model_that_stalls(stall: float) -> None:
    models = [SimulatedModel(log_normal(0.5, 0.3), stalls=0.05, stall=stall), QUICK]
    alone = simulate_policy(models, turns=4000)
    hedged = simulate_policy(models, turns=4000, hedge=Hedge())
    assert hedged.ttft_p99 <= alone.ttft_p99 / 3
    assert hedged.extra_requests <= 0.08
    assert hedged.unanswered == 0
    assert hedged.extra_tokens > 0
    assert alone.hedged == 0


def test_a_silent_outage_costs_few_turns_and_few_probes() -> None:
    models = [SimulatedModel([0.3], outages=[(100, 400)], outage_silent=True), QUICK]
    report = simulate_policy(models, turns=600, attempt_timeout=2.0)
    assert report.unanswered == 0
    # Turns that were on their way when the first silence was noticed, and nobody after them.
    slow = report.requests - report.turns
    assert slow <= 3
    # 1, 2, 4, ... up to 60 seconds of rest, each probe 10 s long: not one a turn.
    assert 4 <= report.probes <= 15


def test_an_outage_of_all_is_told_and_ends() -> None:
    models = [SimulatedModel([0.3], outages=[(10, 20)]), SimulatedModel([0.3], outages=[(10, 20)])]
    report = simulate_policy(models, turns=30, breaker=BreakerOptions(cooldown=1))
    assert report.unanswered == 10
    assert simulate_policy(models, turns=10).unanswered == 0


def test_a_budget_on_the_first_token_bounds_every_wait() -> None:
    models = [SimulatedModel([0.3], stalls=0.5, stall=math.inf)] * 2
    report = simulate_policy(models, turns=300, budget=TurnBudget(first_token_by=3.0))
    assert report.longest <= 3.0
    assert report.unanswered > 0
    assert "unanswered" in str(report)


def test_no_hedge_is_paid_for_beyond_the_extra_tokens() -> None:
    report = simulate_policy(
        [QUICK, QUICK],
        turns=300,
        hedge=Hedge(delay=0.1, max_share=1.0),
        budget=TurnBudget(max_extra_tokens=10),
    )
    assert report.hedged == 0


ROWS = {
    # Each model has short outages of its own, one after the other. The one that rests is healthy
    # again when the other one fails: no turn is lost.
    "the one that rests is asked last": (
        [
            SimulatedModel([0.3], outages=[(10.0, 10.5), (20.0, 20.5)]),
            SimulatedModel([0.3], outages=[(11.0, 11.5), (21.0, 21.5)]),
        ],
        {"breaker": BreakerOptions(cooldown=30, jitter=0)},
        {"unanswered": 0, "requests": 60 + 4},
    ),
    "an empty answer of the only one that is available is no silence": (
        [SimulatedModel([0.3], outages=[(0, 1)]), SimulatedModel([0.3], empty=1.0)],
        {"breaker": BreakerOptions(cooldown=300, jitter=0)},
        {"unanswered": 1, "probes": 0},
    ),
    "silence only where all are empty": (
        [SimulatedModel([0.3], empty=1.0), SimulatedModel([0.3], empty=1.0)],
        {},
        {"unanswered": 60, "requests": 120, "probes": 0},
    ),
    # The rest ends while the second model is silent: this turn probes, and hedges with the one that
    # came back.
    "one that comes back joins as a hedge": (
        [SimulatedModel([0.3], outages=[(0, 0.5)]), SimulatedModel([4.5])],
        {"hedge": Hedge(delay=0.5, max_share=1.0), "breaker": BreakerOptions(jitter=0)},
        {"longest": pytest.approx(1.6), "hedged": 2, "probes": 1},
    ),
    "one that comes back in mid-turn is the next": (
        [
            SimulatedModel([0.3], outages=[(0, 0.5)]),
            SimulatedModel([0.3], stalls=1.0),
            SimulatedModel([2.0]),
        ],
        {"attempt_timeout": 3.0, "breaker": BreakerOptions(jitter=0)},
        {"longest": pytest.approx(3.3), "unanswered": 0},
    ),
    "a cut is the end": (
        [SimulatedModel([0.3], cuts=1.0), QUICK],
        {"on_cut": "stop"},
        {"broken": pytest.approx(25, abs=20), "unanswered": 0},
    ),
    "a cut is resumed": (
        [SimulatedModel([0.3], cuts=1.0), SimulatedModel([0.4])],
        {"on_cut": "resume"},
        {"broken": 0, "unanswered": 0},
    ),
    "a cut is resumed by the one that rests": (
        [SimulatedModel([0.3], outages=[(0, 1)]), SimulatedModel([0.3], cuts=1.0)],
        {"on_cut": "resume", "breaker": BreakerOptions(cooldown=300, jitter=0), "turns": 2},
        {"broken": 1, "unanswered": 0},  # the first turn: its first model is down
    ),
    "a cut that costs too much": (
        [SimulatedModel([0.3], cuts=1.0), QUICK],
        {"on_cut": "resume", "budget": TurnBudget(max_extra_tokens=10), "turns": 1},
        {"broken": 1},
    ),
}


@pytest.mark.parametrize("row", ROWS)
def test_decisions_are_revised(row: str) -> None:
    models, options, expected = ROWS[row]
    report = simulate_policy(models, **{"turns": 60, **options})  # type: ignore[arg-type]
    assert {name: getattr(report, name) for name in expected} == expected


def test_the_same_seed_tells_the_same() -> None:
    models = [SimulatedModel(log_normal(0.5), errors=0.1), QUICK]
    assert simulate_policy(models, seed=3) == simulate_policy(models, seed=3)
    assert simulate_policy(models, seed=3) != simulate_policy(models, seed=4)


def test_nothing_to_simulate() -> None:
    with pytest.raises(ValueError, match="0 models"):
        simulate_policy([])
