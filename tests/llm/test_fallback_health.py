"""What the turns of an adapter see of the health of its models, and who is told."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Self

import pytest

from llm.fallback_models import DOWN, Model, listen, said, text
from rejoinder._core.breaker import HEALTHY, BreakerOptions, Health
from rejoinder.errors import APIConnectionError, APIStatusError
from rejoinder.llm import ChatChunk, LLMStream
from rejoinder.llm._fallback_health import HealthBoard
from rejoinder.llm.fallback_adapter import FallbackAdapter, Hedge


class Clock:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


class Shelf:
    """A store of health that two boards share."""

    def __init__(self) -> None:
        self.texts: dict[str, str] = {}

    def read(self, keys: Sequence[str]) -> list[str | None]:
        return [self.texts.get(key) for key in keys]

    def update(self, key: str, change: Callable[[str | None], str | None]) -> None:
        value = change(self.texts.get(key))
        if value is not None:
            self.texts[key] = value


def board(clock: Clock, shelf: Shelf | None = None) -> tuple[HealthBoard, list[tuple[int, bool]]]:
    told: list[tuple[int, bool]] = []
    made = HealthBoard(
        ["a", "b"],
        BreakerOptions(cooldown=1, jitter=0, probe_timeout=5),
        shelf,
        announce=lambda index, available: told.append((index, available)),
        wall=clock,
        dice=lambda: 0.0,
    )
    return made, told


def test_each_change_is_told_once_and_to_every_turn_that_runs() -> None:
    clock = Clock()
    health, told = board(clock)
    heard: list[str] = []
    health.follow("one", lambda: heard.append("one"))
    health.follow("two", lambda: heard.append("two"))
    health.failed(0, DOWN)
    health.failed(0, DOWN)  # the same outage
    health.failed(1, APIStatusError("bad request", status_code=400))
    assert told == [(0, False)]
    assert heard == ["one", "two"]
    health.unfollow("one")
    assert not health.claim_probe(0)
    clock.now += 1
    assert health.claim_probe(0)
    assert not health.claim_probe(0)
    health.give_up_probe(0)
    assert health.claim_probe(0)
    health.succeeded(0, started=clock.now, probe=True)
    assert told == [(0, False), (0, True)]
    assert heard[2:] == ["two"] * 4


def test_a_success_of_a_model_that_was_never_in_trouble_changes_nothing() -> None:
    health, told = board(Clock())
    health.follow("one", lambda: pytest.fail("nothing has changed"))
    health.succeeded(0, started=0)
    assert told == []
    assert health.read() == [HEALTHY, HEALTHY]


def test_what_another_process_found_out_is_told_here_too() -> None:
    clock, shelf = Clock(), Shelf()
    one, _ = board(clock, shelf)
    two, told = board(clock, shelf)
    heard: list[int] = []
    two.follow("turn", lambda: heard.append(1))
    one.failed(1, DOWN)
    assert [h.available for h in two.read()] == [True, False]
    assert told == [(1, False)]
    assert heard == [1]
    two.read()
    assert heard == [1]


def test_a_connection_that_broke_while_the_process_stood_still_is_not_held_against_it() -> None:
    health, told = board(Clock())
    health.failed(0, APIConnectionError("reset"), lapse=30)
    assert told == []
    health.failed(0, APIConnectionError("reset"), started=math.inf)
    assert told == [(0, False)]
    assert health.read()[0] == Health("open", 1001, 1, "APIConnectionError", 1000)


# -- metrics find the attempt they belong to -----------------------------------------------------


class Shouting(LLMStream):
    """Wraps a stream to change what it says, and never calls `LLMStream.__init__`."""

    def __init__(self, inner: LLMStream) -> None:
        self.inner = inner

    async def _run(self) -> None: ...

    async def __anext__(self) -> ChatChunk:
        chunk = await self.inner.__anext__()
        if chunk.delta is not None and chunk.delta.content:
            return text(chunk.delta.content.upper())
        return chunk

    async def __aenter__(self) -> Self:
        return self

    async def aclose(self) -> None:
        await self.inner.aclose()


class Wrapping(Model):
    def chat(self, **given: object) -> LLMStream:
        return Shouting(super().chat(**given))  # type: ignore[arg-type]


@pytest.mark.looptime
async def test_a_wrapped_stream_that_loses_a_race_is_accounted_for_as_a_hedge() -> None:
    a, b = Wrapping("A", [3.0, "late"]), Wrapping("B", [0.2, "b"])
    adapter = FallbackAdapter([a, b], hedge=Hedge(delay=0.5))
    _, metrics = listen(adapter)
    assert await said(adapter) == (["B"], None)
    await adapter.aclose()
    assert sorted((m.label, m.purpose) for m in metrics) == [("A", "hedge"), ("B", "reply")]


@pytest.mark.looptime
async def test_two_adapters_over_one_model_do_not_mix_their_accounts() -> None:
    a = Model("A", ["a"])
    one, two = FallbackAdapter([a]), FallbackAdapter([a])
    _, first = listen(one)
    _, second = listen(two)
    await said(one)
    # As in LiveKit Agents: an adapter passes on all that its models report.
    assert [m.purpose for m in first] == [m.purpose for m in second] == ["reply"]
    await one.aclose()
    await said(two)
    assert (len(first), len(second)) == (1, 2)
