"""Clocks that jump, stand still or go backwards, and what of it is blamed on a model: nothing."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from llm.fallback_models import DOWN, FOREVER, Model, listen, said
from rejoinder import _stamps
from rejoinder.errors import APIStatusError
from rejoinder.llm.fallback_adapter import BreakerOptions, FallbackAdapter, Hedge, TurnBudget
from stalls import Stalls


def now() -> float:
    return asyncio.get_running_loop().time()


SLOWLY = [0.3] * 4
"""A model that needs several steps of the loop, as connections do: only one of them goes on meanwhile."""


class Wall:
    """Wall time that follows the loop's, and can be moved."""

    def __init__(self) -> None:
        self.moved = 0.0

    def __call__(self) -> float:
        return 1e9 + asyncio.get_running_loop().time() + self.moved


@pytest.fixture
def wall(monkeypatch: pytest.MonkeyPatch) -> Wall:
    clock = Wall()
    monkeypatch.setattr(_stamps, "wall_now", clock)
    return clock


@pytest.mark.looptime
@pytest.mark.parametrize("before", [0.1, 0.6, 0.9])
@pytest.mark.parametrize("hedge", [None, Hedge(delay=1.4)])
async def test_a_loop_that_is_blocked_for_three_seconds_is_no_strike(
    before: float, hedge: Hedge | None
) -> None:
    stalls = Stalls()
    a, b = Model("A", [*SLOWLY, "a ", *SLOWLY, "a"]), Model("B", ["b"])
    adapter = FallbackAdapter([a, b], attempt_timeout=2.0, hedge=hedge, on_cut="resume")
    events, _ = listen(adapter)
    turn = asyncio.ensure_future(said(adapter))
    for _ in range(2):
        await asyncio.sleep(before)
        stalls.stand_still(3.0)
        await asyncio.sleep(1.2 - before)
    assert await turn == (["a ", "a"], None)
    assert b.asked == []
    assert events == []


@pytest.mark.looptime
async def test_a_silent_model_is_still_replaced_after_the_loop_stood_still() -> None:
    stalls = Stalls()
    adapter = FallbackAdapter([Model("A", [FOREVER]), Model("B", ["b"])], attempt_timeout=2.0)
    start = now()
    turn = asyncio.ensure_future(said(adapter))
    await asyncio.sleep(1.0)
    stalls.stand_still(3.0)
    assert await turn == (["b"], None)
    assert now() - start <= 5.02


@pytest.mark.looptime
async def test_the_budget_of_the_turn_counts_in_full_but_blames_nobody() -> None:
    stalls = Stalls()
    a = Model("A", [FOREVER])
    adapter = FallbackAdapter(
        [a, Model("B", ["b"])], attempt_timeout=2.0, budget=TurnBudget(done_by=4.0)
    )
    events, _ = listen(adapter)
    start = now()
    turn = asyncio.ensure_future(said(adapter))
    await asyncio.sleep(0.1)
    stalls.stand_still(30.0)
    _, error = await turn
    assert error is not None
    assert now() - start == pytest.approx(30.1, abs=0.3)
    assert events == []


@pytest.mark.looptime
async def test_a_probe_that_the_loop_kept_waiting_has_not_failed(wall: Wall) -> None:
    stalls = Stalls()
    a, b = Model("A", [DOWN], [*SLOWLY, "ok"], ["a"]), Model("B", ["b"])
    adapter = FallbackAdapter(
        [a, b], breaker=BreakerOptions(cooldown=0, jitter=0, probe_timeout=2.0)
    )
    await said(adapter)
    assert await said(adapter) == (["b"], None)  # the probe is on its way
    stalls.stand_still(3.0)
    await asyncio.sleep(1.5)
    assert adapter.availability() == [True, True]


@pytest.mark.looptime
@pytest.mark.parametrize(
    ("error", "slept", "rests"),
    [
        (DOWN, 3600.0, False),  # the connection died while the machine slept
        (DOWN, 0.0, True),
        (DOWN, -3600.0, True),  # set back: the failure is a failure
        (APIStatusError("down", status_code=503), 3600.0, True),
    ],
)
async def test_a_laptop_that_slept(wall: Wall, error: Exception, slept: float, rests: bool) -> None:
    adapter = FallbackAdapter([Model("A", [1.0, error]), Model("B", ["b"])])
    turn = asyncio.ensure_future(said(adapter))
    await asyncio.sleep(0.5)
    wall.moved += slept
    assert await turn == (["b"], None)
    assert adapter.availability() == [not rests, True]


@pytest.mark.looptime
async def test_an_estimate_has_its_duration_also_when_the_clock_was_set_back(wall: Wall) -> None:
    adapter = FallbackAdapter([Model("A", [FOREVER]), Model("B", ["b"])], hedge=Hedge(delay=0.5))
    _, metrics = listen(adapter)
    turn = asyncio.ensure_future(said(adapter))
    await asyncio.sleep(0.25)
    wall.moved -= 3600.0
    assert await turn == (["b"], None)
    await asyncio.sleep(0.1)
    took = {m.label: m.duration for m in metrics}
    assert took["A"] == pytest.approx(0.5, abs=0.1)


@pytest.mark.looptime
async def test_a_probe_that_was_cut_by_sleep_has_found_nothing_out(wall: Wall) -> None:
    a, b = Model("A", [DOWN], [1.0, DOWN], ["ok"], ["a"]), Model("B", ["b"])
    adapter = FallbackAdapter([a, b], breaker=BreakerOptions(cooldown=1, jitter=0))
    await said(adapter)
    await asyncio.sleep(1.0)
    await said(adapter)
    await asyncio.sleep(0.5)
    wall.moved += 3600
    await asyncio.sleep(1.0)
    assert await said(adapter) == (["b"], None)  # probes at once: nothing was held against it
    await asyncio.sleep(0.1)
    assert await said(adapter) == (["a"], None)
    assert adapter._team.board.read()[0].failures == 0


@pytest.mark.looptime
@pytest.mark.parametrize("moved", [-86_400.0, -10.0, 10.0, 86_400.0])
async def test_a_wall_clock_that_is_set_opens_no_breaker_and_keeps_none_open(
    wall: Wall, moved: float
) -> None:
    a: Any = Model("A", [1.0, "a"])
    adapter = FallbackAdapter([a, Model("B", ["b"])], breaker=BreakerOptions(cooldown=5, jitter=0))
    events, _ = listen(adapter)
    turn = asyncio.ensure_future(said(adapter))
    await asyncio.sleep(0.5)
    wall.moved += moved
    assert await turn == (["a"], None)
    assert events == []
    # While it rests.
    a.calls = ([DOWN],)
    await said(adapter)
    a.calls = (["ok"],)
    wall.moved += moved
    await said(adapter)
    await asyncio.sleep(6.0)
    await said(adapter)
    await asyncio.sleep(0.1)
    assert adapter.availability() == [True, True]
