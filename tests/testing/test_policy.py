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


def test_the_same_seed_tells_the_same() -> None:
    models = [SimulatedModel(log_normal(0.5), errors=0.1), QUICK]
    assert simulate_policy(models, seed=3) == simulate_policy(models, seed=3)
    assert simulate_policy(models, seed=3) != simulate_policy(models, seed=4)


def test_nothing_to_simulate() -> None:
    with pytest.raises(ValueError, match="0 models"):
        simulate_policy([])
