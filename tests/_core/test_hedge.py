"""When a second model is asked beside the first."""

from __future__ import annotations

import math
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rejoinder._core.hedge import Gate, Hedge, Pace


def paced(times: list[float]) -> Pace:
    pace = Pace(window=200)
    for seconds in times:
        pace.add(seconds)
    return pace


def test_the_percentile_is_that_of_ordinary_turns_not_of_stalls() -> None:
    dice = random.Random(1)
    ordinary = [dice.lognormvariate(math.log(0.5), 0.4) for _ in range(200)]
    expected = 0.5 * math.exp(0.4 * 2.054)
    assert paced(ordinary).percentile(0.98) == pytest.approx(expected, rel=0.25)
    stalled = ordinary[:190] + [30.0] * 10
    assert paced(stalled).percentile(0.98) == pytest.approx(expected, rel=0.35)


def test_times_that_do_not_vary_leave_some_room() -> None:
    assert paced([0.4] * 50).percentile(0.98) == pytest.approx(0.5)


def test_when_there_is_a_hedge() -> None:
    quick = paced([0.2] * 50)
    gate = Gate(Hedge(delay=None, min_samples=20))
    assert gate.delay(quick) == pytest.approx(0.25)
    assert gate.delay(paced([0.2] * 19)) is None
    assert Gate(Hedge(delay=0.7)).delay(paced([])) == 0.7
    assert Gate(Hedge(delay=0.7, max_share=0)).delay(quick) is None


def test_many_turns_at_once_share_the_cap() -> None:
    gate = Gate(Hedge(delay=1.0, max_share=0.08, window=200))
    for _ in range(1000):
        gate.turned()
    assert sum(gate.take() for _ in range(50)) == 8


@given(st.lists(st.booleans(), min_size=200, max_size=600), st.sampled_from([0.02, 0.08, 0.5]))
def test_the_share_of_hedges_stays_below_the_cap(wanted: list[bool], share: float) -> None:
    gate = Gate(Hedge(delay=1.0, max_share=share))
    hedged = 0
    for wants in wanted:
        hedges = wants and gate.delay(Pace(10)) is not None
        hedges = hedges and gate.take()
        gate.turned()
        hedged += hedges
    assert hedged <= share * len(wanted) + 1


@pytest.mark.parametrize(
    "bad", [{"delay": -1}, {"percentile": 1.0}, {"max_share": 2}, {"min_samples": 1}, {"window": 3}]
)
def test_bad_hedges_are_refused(bad: dict[str, float]) -> None:
    with pytest.raises(ValueError, match="Hedge"):
        Hedge(**bad)  # type: ignore[arg-type]
