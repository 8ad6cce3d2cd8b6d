"""Nothing is decided once for a whole turn: models go and come back while it runs, and it takes notice."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from llm.fallback_models import (
    DOWN,
    FOREVER,
    Model,
    Step,
    call,
    listen,
    question,
    said,
    wall_clock,
)
from rejoinder._core.budget import OnCut
from rejoinder.errors import APIConnectionError, APIError, APITimeoutError, EmptyResponseError
from rejoinder.llm import LLM
from rejoinder.llm.fallback_adapter import BreakerOptions, FallbackAdapter, Hedge, TurnBudget

EMPTY = EmptyResponseError("nothing")


def now() -> float:
    return asyncio.get_running_loop().time()


async def rest(adapter: FallbackAdapter, *models: int) -> None:
    """Let these models rest, as if they had just failed in other turns."""
    for index in models:
        adapter._team.board.failed(index, DOWN)


@pytest.mark.looptime
@pytest.mark.parametrize(
    ("first", "second", "options", "heard", "asked"),
    [
        # The only one that is available fails: the one that rests is asked.
        (["a"], [DOWN], {}, ["a"], 1),
        (["a"], [EMPTY], {}, ["a"], 1),
        (["a"], [FOREVER], {"attempt_timeout": 0.5}, ["a"], 1),
        (["a."], ["b ", DOWN], {"on_cut": "resume"}, ["b ", "a."], 1),
        (["a."], ["b ", DOWN], {"on_cut": "restart"}, ["b ", "a."], 1),
        (["a."], ["b ", DOWN], {"retry_on_chunk_sent": True}, ["b ", "a."], 1),
        # Silence only if all were asked and all were empty.
        ([EMPTY], [EMPTY], {}, [], 1),
        # Where the available one answers, the other one is left alone.
        (["a"], ["b"], {}, ["b"], 0),
        ([EMPTY], ["b ", DOWN], {"on_cut": "stop"}, APIConnectionError, 0),
    ],
)
async def test_models_that_rest_are_asked_last(
    first: list[Step], second: list[Step], options: dict[str, Any], heard: Any, asked: int
) -> None:
    a, b = Model("A", first, prefill=True), Model("B", second)
    adapter = FallbackAdapter([a, b], **options)
    await rest(adapter, 0)
    got, error = await said(adapter)
    if isinstance(heard, list):
        assert (got, error) == (heard, None)
    else:
        assert isinstance(error, heard)
    assert len(a.asked) == asked
    await adapter.aclose()


@pytest.mark.looptime
async def test_every_turn_that_fails_has_asked_every_model() -> None:
    models: list[LLM[Any]] = [Model(name, [DOWN]) for name in "ABCD"]
    adapter = FallbackAdapter(models)
    for failed in range(4):
        await rest(adapter, *range(failed))
        before = [len(model.asked) for model in models]  # type: ignore[attr-defined]
        _, error = await said(adapter)
        after = [len(model.asked) for model in models]  # type: ignore[attr-defined]
        assert after == [count + 1 for count in before]
        assert all(f"{name}: down" in str(error) for name in "ABCD")


@pytest.mark.looptime
async def test_the_final_error_names_each_model_with_its_reason() -> None:
    with wall_clock():
        adapter = FallbackAdapter(
            [Model("A", [DOWN]), Model("B", [APIError("odd")]), Model("C", [EMPTY])]
        )
        await rest(adapter, 0)
        await asyncio.sleep(0.5)
        _, error = await said(adapter)
    assert isinstance(error, APIConnectionError)
    told = "B: odd; C: nothing; A: down (asked although it had rested for 0.5 s after APIConnectionError)"
    assert error.message == f"all LLMs failed after 0.00 s ({told})"


@pytest.mark.looptime
@pytest.mark.parametrize("budget", [TurnBudget(first_token_by=1.0), TurnBudget(done_by=1.0)])
async def test_also_when_the_time_of_the_turn_ends_each_model_is_named(budget: TurnBudget) -> None:
    with wall_clock():
        adapter = FallbackAdapter(
            [Model("A", [0.4, DOWN]), Model("B", [FOREVER]), Model("C", ["c"])], budget=budget
        )
        await rest(adapter, 2)
        _, error = await said(adapter)
    assert isinstance(error, APITimeoutError)
    text = str(error)
    assert "A: down; B: " in text
    assert "0.60 s" in text
    assert "C: not asked, it has rested for 1.0 s after APIConnectionError" in text
    # The second model had 0.6 s of its 5: that is no reason to let it rest.
    assert adapter.availability() == [False, True, False]


@pytest.mark.looptime
async def test_the_time_for_the_first_token_counts_from_the_call_in_every_round() -> None:
    adapter = FallbackAdapter([Model("A", [0.8, DOWN])], budget=TurnBudget(first_token_by=2.0))
    from rejoinder.types import APIConnectOptions

    start = now()
    _, error = await said(adapter, conn_options=APIConnectOptions(max_retry=9, retry_interval=0.1))
    assert isinstance(error, APITimeoutError)
    assert now() - start == pytest.approx(2.0, abs=0.02)


@pytest.mark.looptime
async def test_a_model_that_comes_back_in_mid_turn_is_the_next_one_asked() -> None:
    with wall_clock():
        a, b = Model("A", ["ok"], ["a"]), Model("B", [3.0, DOWN])
        c = Model("C", ["c"])
        adapter = FallbackAdapter([a, b, c], breaker=BreakerOptions(cooldown=1, jitter=0))
        events, metrics = listen(adapter)
        await rest(adapter, 0)
        # The rest is over in mid-turn: this turn sends the probe, and asks the model after B.
        assert await said(adapter) == (["a"], None)
    assert events == [("A", False), ("A", True), ("B", False)]
    assert [m.purpose for m in metrics if m.label == "A"] == ["probe", "reply"]
    assert c.asked == []
    await adapter.aclose()


@pytest.mark.looptime
async def test_a_model_that_comes_back_in_mid_turn_is_asked_beside_a_slow_one() -> None:
    with wall_clock():
        a, b = Model("A", [0.1, "ok"], [0.1, "a"]), Model("B", [4.0, "b"])
        adapter = FallbackAdapter(
            [a, b], hedge=Hedge(delay=0.5), breaker=BreakerOptions(cooldown=1, jitter=0)
        )
        await rest(adapter, 0)
        start = now()
        assert await said(adapter) == (["a"], None)
        assert now() - start == pytest.approx(1.2, abs=0.02)
    await adapter.aclose()


@pytest.mark.looptime
async def test_another_turn_that_finds_a_model_healthy_tells_those_that_run() -> None:
    a, b = Model("A", ["a"]), Model("B", [2.0, "b"])
    adapter = FallbackAdapter([a, b], hedge=Hedge(delay=0.5))
    await rest(adapter, 0)
    turn = asyncio.ensure_future(said(adapter))
    await asyncio.sleep(1.0)
    adapter._team.board.succeeded(0, started=1e12, probe=True)
    start = now()
    assert await turn == (["a"], None)
    assert now() == start


@pytest.mark.looptime
async def test_a_model_that_was_cut_and_came_back_continues_its_reply() -> None:
    a = Model("A", ["one ", DOWN], ["three"], prefill=True)
    b = Model("B", ["two ", 2.0, DOWN], prefill=True)
    with wall_clock():
        adapter = FallbackAdapter([a, b], on_cut="resume")
        turn = asyncio.ensure_future(said(adapter))
        await asyncio.sleep(1.0)
        assert adapter.availability() == [False, True]
        adapter._team.board.succeeded(0, started=2e9, probe=True)
        assert await turn == (["one ", "two ", "three"], None)


@pytest.mark.looptime
@pytest.mark.parametrize(
    ("on_cut", "rest_of_b", "heard", "asked"),
    [
        ("restart", 2.0, ["one ", "whole"], (2, 1)),
        ("resume", 2.0, ["one ", "whole"], (2, 1)),
        ("restart", 0.1, ["one "], (1, 1)),  # A still rests
        ("stop", 2.0, ["one "], (1, 1)),
    ],
)
async def test_a_model_that_failed_and_had_its_rest_goes_on_with_a_reply_that_was_cut(
    on_cut: OnCut, rest_of_b: float, heard: list[str], asked: tuple[int, int]
) -> None:
    a = Model("A", [DOWN], ["whole"], prefill=True)
    b = Model("B", ["one ", rest_of_b, DOWN], prefill=True)
    with wall_clock():
        adapter = FallbackAdapter(
            [a, b], on_cut=on_cut, breaker=BreakerOptions(cooldown=1, jitter=0)
        )
        got, error = await said(adapter)
    assert (got, error is None) == (heard, len(heard) == 2)
    assert (len(a.asked), len(b.asked)) == asked
    await adapter.aclose()


@pytest.mark.looptime
async def test_with_its_rest_over_a_model_is_asked_once_more_and_not_for_ever() -> None:
    a = Model("A", [DOWN], ["x ", 2.0, DOWN], [FOREVER])
    b = Model("B", ["one ", 2.0, DOWN], ["y ", 2.0, DOWN], [FOREVER])
    with wall_clock():
        adapter = FallbackAdapter(
            [a, b], on_cut="resume", breaker=BreakerOptions(cooldown=1, jitter=0)
        )
        got, error = await said(adapter)
    assert got == ["one ", "x ", "y "]
    assert isinstance(error, APIConnectionError)
    assert (len(a.asked), len(b.asked)) == (2, 2)
    await adapter.aclose()


@pytest.mark.looptime
async def test_a_cut_that_is_too_dear_to_continue_says_so() -> None:
    context = question()
    context.add_message(role="user", content="x" * 4000)
    adapter = FallbackAdapter(
        [Model("A", ["a", DOWN]), Model("B", ["b"])],
        on_cut="resume",
        budget=TurnBudget(max_extra_tokens=100),
    )
    with pytest.raises(APIConnectionError, match="down") as caught:
        await adapter.chat(chat_ctx=context).collect()
    assert any("max_extra_tokens (100) is spent" in note for note in caught.value.__notes__)


@pytest.mark.looptime
async def test_with_resume_the_final_error_names_those_that_continued_too() -> None:
    models: list[LLM[Any]] = [
        Model("A", ["one ", DOWN]),
        Model("B", ["two ", APIError("odd")], prefill=True),
    ]
    got, error = await said(FallbackAdapter(models, on_cut="resume"))
    assert "".join(got) == "one two "
    assert isinstance(error, APIConnectionError)
    assert "(A: down; B: odd)" in str(error)
    # Where the reply just ends with the model that broke off, its own error is raised.
    models = [Model("A", ["one ", call("f"), DOWN]), Model("B", ["two"])]
    _, error = await said(FallbackAdapter(models, on_cut="restart"))
    assert error is DOWN


@pytest.mark.looptime
async def test_a_probe_in_mid_turn_is_sent_once_for_all_turns() -> None:
    with wall_clock():
        a, b = Model("A", [0.5, "ok"], ["a"]), Model("B", [3.0, "b"])
        adapter = FallbackAdapter([a, b], breaker=BreakerOptions(cooldown=1, jitter=0))
        await rest(adapter, 0)
        await asyncio.gather(*(said(adapter) for _ in range(20)))
        assert len(a.asked) == 1
        assert adapter.availability() == [True, True]
    await adapter.aclose()
