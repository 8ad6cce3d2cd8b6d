"""Alarms, deadlines and ends of tasks: what rings when, and what a loop that stands still does to it."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Sequence

import pytest

from rejoinder._aio import Alarm, Chan, ChanClosed, Deadline, end, unfinished, within
from stalls import Stalls

pytestmark = pytest.mark.looptime


def now() -> float:
    return asyncio.get_running_loop().time()


class Limit:
    """A moment that can be moved, with an alarm on it."""

    def __init__(self, at: float) -> None:
        self.at = at
        self.asked = 0
        self.late: list[float] = []
        self.rang: list[float] = []
        self.alarm = Alarm(self.due, lambda: self.rang.append(now()), stalled=self.excuse)
        self.alarm.arm()

    def due(self) -> float:
        self.asked += 1
        return self.at

    def excuse(self, seconds: float) -> None:
        self.late.append(seconds)
        self.at += seconds


@pytest.mark.parametrize("seconds", [0.0, 0.1, 2.0, 1000.0])
async def test_an_alarm_rings_once_at_its_moment_and_looks_seldom(seconds: float) -> None:
    limit = Limit(now() + seconds)
    start = now()
    await asyncio.sleep(seconds + 10)
    assert limit.rang == [pytest.approx(start + seconds, abs=0.001)]
    assert limit.late == []
    assert limit.asked < 100


async def test_an_alarm_that_is_stopped_or_has_no_moment_does_not_ring() -> None:
    stopped, never = Limit(now() + 1), Limit(math.inf)
    stopped.alarm.stop()
    await asyncio.sleep(5)
    assert stopped.rang == never.rang == []
    never.at = now() + 1
    never.alarm.arm()
    await asyncio.sleep(5)
    assert len(never.rang) == 1


async def test_a_moment_that_moves_costs_no_timer() -> None:
    limit = Limit(now() + 2)
    start = now()
    for _ in range(20):
        await asyncio.sleep(1)
        limit.at = now() + 2
    assert limit.rang == []
    await asyncio.sleep(5)
    assert limit.rang == [pytest.approx(start + 22, abs=0.001)]


@pytest.mark.parametrize("before", [0.0, 0.1, 1.0, 1.9])
async def test_the_time_in_which_the_loop_stands_still_does_not_count(before: float) -> None:
    stalls = Stalls()
    limit = Limit(now() + 2)
    start = now()
    await asyncio.sleep(before)
    stalls.stand_still(3.0)
    await asyncio.sleep(10)
    # What a look on the way does not see is less than the time between two looks.
    assert start + 4.74 <= limit.rang[0] <= start + 5.01
    assert sum(limit.late) == pytest.approx(3.0, abs=0.26)


async def test_before_it_rings_the_loop_processes_what_lay_waiting() -> None:
    limit = Limit(now() + 1)

    async def arrives() -> None:
        await asyncio.sleep(1)
        for _ in range(3):  # a few steps from the socket to the output
            await asyncio.sleep(0)
        limit.at = now() + 1

    task = asyncio.ensure_future(arrives())
    await asyncio.sleep(1.5)
    assert limit.rang == []
    await task
    limit.alarm.stop()


async def test_within_is_a_timeout_that_excuses_a_loop_that_stood_still() -> None:
    stalls = Stalls()
    start = now()
    with pytest.raises(TimeoutError):
        async with within(2.0):
            await asyncio.sleep(100)
    assert now() - start == pytest.approx(2.0, abs=0.001)
    async with within(2.0):
        await asyncio.sleep(0)
        stalls.stand_still(30.0)
        await asyncio.sleep(1.5)
    for unlimited in (None, math.inf):
        async with within(unlimited):
            await asyncio.sleep(1000)
    with pytest.raises(ValueError, match="mine"):
        async with within(1.0):
            raise ValueError("mine")


async def test_a_time_limit_can_be_renewed() -> None:
    async def body() -> None:
        async with within(2.0) as limit:
            await asyncio.sleep(1.5)
            limit.renew(10.0)
            await asyncio.sleep(100)

    start = now()
    with pytest.raises(TimeoutError):
        await body()
    assert now() - start == pytest.approx(11.5, abs=0.001)


async def test_what_is_unfinished_after_a_time_limit() -> None:
    stalls = Stalls()
    soon, never = (
        asyncio.ensure_future(asyncio.sleep(1.5)),
        asyncio.get_running_loop().create_future(),
    )
    waiting = asyncio.ensure_future(unfinished([soon, never], 2.0))
    await asyncio.sleep(0.5)
    stalls.stand_still(30.0)
    assert await waiting == [never]
    assert not never.cancelled()


async def test_a_cancellation_from_outside_is_no_timeout() -> None:
    async def body() -> None:
        async with within(2.0):
            await asyncio.sleep(100)

    task = asyncio.ensure_future(body())
    await asyncio.sleep(1)
    task.cancel()
    await asyncio.wait([task])
    assert task.cancelled()
    # At the very moment: the cancellation counts.
    task = asyncio.ensure_future(body())
    await asyncio.sleep(0)
    asyncio.get_running_loop().call_later(2.0, task.cancel)
    await asyncio.wait([task])
    assert task.cancelled()


async def test_a_deadline_insists_and_at_last_goes_without_the_task() -> None:
    abandoned: list[float] = []
    cancels: list[float] = []

    async def clings() -> bool:
        at = now() + 1
        deadline = Deadline(lambda: at, abandon=lambda: abandoned.append(now()), insist=0.5)
        while len(cancels) < 3:
            try:
                await asyncio.sleep(100)
            except asyncio.CancelledError:
                cancels.append(now())
        assert deadline.passed
        task = asyncio.current_task()
        assert task is not None
        assert deadline.end()
        assert task.cancelling() == 0
        return True

    start = now()
    assert await asyncio.ensure_future(clings())
    assert [at - start for at in cancels] == pytest.approx([1.0, 1.5, 2.0], abs=0.001)
    assert abandoned == [cancels[-1]]


def test_a_deadline_needs_a_task() -> None:
    async def main() -> None:
        asyncio.get_running_loop().call_soon(outside)
        await asyncio.sleep(0.01)

    errors: list[BaseException] = []

    def outside() -> None:
        try:
            Deadline(lambda: 0.0)
        except RuntimeError as error:
            errors.append(error)

    asyncio.run(main())
    assert "task" in str(errors[0])


@pytest.mark.parametrize(
    ("insist", "swallows", "ended", "took"),
    [(False, 0, True, 0.0), (False, 1, False, 1.0), (True, 1, True, 0.5), (True, 9, False, 1.0)],
)
async def test_the_end_of_a_task(
    insist: bool, swallows: int, ended: bool, took: float, caplog: pytest.LogCaptureFixture
) -> None:
    async def work() -> None:
        for _ in range(swallows):
            try:
                await asyncio.sleep(100)
            except asyncio.CancelledError:
                continue
        await asyncio.sleep(100)

    task = asyncio.create_task(work(), name="the work")
    await asyncio.sleep(0)
    start = now()
    assert await end(task, within=1.0, insist=insist) is ended
    assert now() - start == pytest.approx(took, abs=0.001)
    assert ("the work did not end within 1 s" in caplog.text) is not ended
    while not task.done():
        task.cancel()
        await asyncio.sleep(0)


async def test_the_end_of_tasks_that_raise_or_were_cancelled_already() -> None:
    async def raises() -> None:
        try:
            await asyncio.sleep(100)
        finally:
            raise ValueError("while closing")

    async def cleans_up() -> None:
        try:
            await asyncio.sleep(100)
        finally:
            await asyncio.sleep(0.8)
            cleaned.append(True)

    cleaned: list[bool] = []
    tasks = [asyncio.create_task(raises()), asyncio.create_task(cleans_up())]
    await asyncio.sleep(0)
    for task in tasks:
        task.cancel()
    assert await end(*tasks, within=1.0, cancelled=True)
    assert cleaned == [True]
    assert await end(*tasks, within=1.0)


# -- a channel into another one ------------------------------------------------------------------


def relayed(into: Chan[int]) -> tuple[Chan[int], list[list[int]]]:
    source: Chan[int] = Chan(high=4)
    seen: list[list[int]] = []

    def passes(values: Sequence[int]) -> bool:
        seen.append(list(values))
        return 99 not in values

    source.send_all([1, 2])
    assert source.relay(into, passes)
    return source, seen


async def test_a_relayed_channel_hands_over_what_it_has_and_gets_in_order() -> None:
    into: Chan[int] = Chan(high=4)
    source, seen = relayed(into)
    source.send_nowait(3)
    source.send_all([4, 5])
    assert seen == [[1, 2], [3], [4, 5]]
    assert not source.unread
    assert list(into.unread) == [1, 2, 3, 4, 5]
    assert source.full


async def test_the_sender_of_a_relayed_channel_waits_for_the_reader_of_the_other() -> None:
    into: Chan[int] = Chan(high=4)
    source, _ = relayed(into)
    source.send_all([3, 4])
    waiting = asyncio.create_task(source.drained_within(60))
    await asyncio.sleep(0)
    assert [await anext(into) for _ in range(2)] == [1, 2]
    assert await waiting
    assert not source.full


async def test_the_receiver_of_a_relayed_channel_hears_of_its_end_alone() -> None:
    into: Chan[int] = Chan()
    source, _ = relayed(into)
    receiving = asyncio.create_task(source.recv())
    await asyncio.sleep(0)
    source.send_nowait(3)
    await asyncio.sleep(0)
    assert not receiving.done()
    source.close()
    with pytest.raises(ChanClosed):
        await receiving


async def test_what_does_not_pass_or_comes_after_the_end_goes_nowhere() -> None:
    into: Chan[int] = Chan()
    source, seen = relayed(into)
    source.send_nowait(99)
    assert list(into.unread) == [1, 2]
    into.close()
    source.send_nowait(3)
    assert seen == [[1, 2], [99]]
    assert list(into.unread) == [1, 2]
    assert not source.unread


async def test_a_channel_is_relayed_through_another_one_in_either_order_of_time() -> None:
    for inner_first in (True, False):
        last: Chan[int] = Chan(high=4)
        middle: Chan[int] = Chan(high=4)
        source: Chan[int] = Chan(high=4)
        links = [(source, middle), (middle, last)]
        for one, other in links if inner_first else reversed(links):
            assert one.relay(other, lambda values: True)
        receiving = asyncio.create_task(last.recv())
        await asyncio.sleep(0)
        source.send_all([1, 2, 3, 4, 5])
        assert await receiving == 1
        assert list(last.unread) == [2, 3, 4, 5]
        assert source.full
        assert not middle.unread


async def test_a_channel_whose_sender_waits_is_not_relayed() -> None:
    source: Chan[int] = Chan(high=2)
    source.send_all([1, 2, 3])
    waiting = asyncio.create_task(source.drained())
    await asyncio.sleep(0)
    assert not source.relay(Chan(), lambda values: True)
    assert list(source.unread) == [1, 2, 3]
    source.close()
    await waiting
