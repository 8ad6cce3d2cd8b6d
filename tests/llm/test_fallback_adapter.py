"""FallbackAdapter: what the consumer sees, who is asked, and what is left behind."""

from __future__ import annotations

import asyncio
import gc
import weakref
from typing import Any

import pytest

from llm.fallback_models import (
    DOWN,
    FOREVER,
    ROLE,
    THINKING,
    USAGE,
    Model,
    Step,
    call,
    listen,
    question,
    said,
    text,
    wall_clock,
)
from rejoinder.errors import (
    APIConnectionError,
    APIError,
    APIStatusError,
    APITimeoutError,
    EmptyResponseError,
    RefusalError,
)
from rejoinder.llm import (
    FunctionCall,
    FunctionCallOutput,
    LLMStream,
    function_tool,
)
from rejoinder.llm.fallback_adapter import (
    BreakerOptions,
    FallbackAdapter,
    Hedge,
    TurnBudget,
)
from rejoinder.turn import run_turn
from rejoinder.types import APIConnectOptions

# -- as the reference ----------------------------------------------------------------------------


@pytest.mark.looptime
@pytest.mark.parametrize(
    ("first", "second", "options", "texts", "raised", "events", "asked"),
    [
        ([["a"]], [["b"]], {}, ["a"], None, [], (1, 0)),
        ([[DOWN]], [["b"]], {}, ["b"], None, [("A", False)], (1, 1)),
        (
            [[DOWN]],
            [[DOWN]],
            {},
            [],
            APIConnectionError,
            [("A", False), ("B", False)],
            (1, 1),
        ),
        ([["a", DOWN]], [["b"]], {}, ["a"], APIConnectionError, [("A", False)], (1, 0)),
        (
            [["a", DOWN]],
            [["b"]],
            {"retry_on_chunk_sent": True},
            ["a", "b"],
            None,
            [("A", False)],
            (1, 1),
        ),
        ([[ValueError("x")]], [["b"]], {}, ["b"], None, [("A", False)], (1, 1)),
        # What is different, and better.
        ([[]], [["b"]], {}, ["b"], None, [], (1, 1)),
        ([[]], [[]], {}, [], None, [], (1, 1)),
        ([[ROLE, USAGE, DOWN]], [["b"]], {}, ["b"], None, [("A", False)], (1, 1)),
        (
            [[APIStatusError("too long", status_code=400)]],
            [["b"]],
            {},
            ["b"],
            None,
            [],
            (1, 1),
        ),
        ([[RefusalError("no")]], [["b"]], {}, [], RefusalError, [], (1, 0)),
        (
            [[call("f"), DOWN]],
            [["b"]],
            {"retry_on_chunk_sent": True},
            [],
            APIConnectionError,
            [("A", False)],
            (1, 0),
        ),
    ],
)
async def test_one_turn(
    first: list[list[Step]],
    second: list[list[Step]],
    options: dict[str, Any],
    texts: list[str],
    raised: type[Exception] | None,
    events: list[tuple[str, bool]],
    asked: tuple[int, int],
) -> None:
    a, b = Model("A", *first), Model("B", *second)
    adapter = FallbackAdapter([a, b], **options)
    heard, _ = listen(adapter)
    got, error = await said(adapter)
    assert got == texts
    assert type(error) is (raised or type(None))
    assert heard == events
    assert (len(a.asked), len(b.asked)) == asked
    await adapter.aclose()
    assert asyncio.all_tasks() == {asyncio.current_task()}


@pytest.mark.looptime
@pytest.mark.parametrize(
    "silence", [[FOREVER], [0.5, ROLE] * 100, [0.5, USAGE] * 100], ids=["nothing", "role", "usage"]
)
async def test_a_silent_model_is_replaced_in_time(silence: list[Step]) -> None:
    adapter = FallbackAdapter([Model("A", silence), Model("B", ["b"])], attempt_timeout=2.0)
    start = asyncio.get_running_loop().time()
    assert await said(adapter) == (["b"], None)
    assert asyncio.get_running_loop().time() - start == pytest.approx(2.0, abs=0.02)


@pytest.mark.looptime
@pytest.mark.parametrize("steps", [["a", "b"], ["a", 0.5, "b", 0.5]], ids=["at once", "in time"])
async def test_a_reply_that_has_ended_is_freed_at_once(steps: list[Step]) -> None:
    adapter = FallbackAdapter([Model("A", steps), Model("B", ["b"])])
    gc.collect()
    gc.disable()
    try:
        stream = adapter.chat(chat_ctx=question())
        freed = weakref.ref(stream)
        await stream.collect()
        await asyncio.sleep(0)
        del stream
        assert freed() is None
    finally:
        gc.enable()


@pytest.mark.looptime
async def test_all_reasons_are_in_the_final_error() -> None:
    adapter = FallbackAdapter(
        [
            Model("A", [FOREVER]),
            Model("B", [APIStatusError("overloaded", status_code=529)]),
            Model("C", []),
        ],
        attempt_timeout=1.0,
    )
    _, error = await said(adapter)
    assert isinstance(error, APIConnectionError)
    assert error.retryable
    for part in ("A: no output within 1 s", "B: overloaded", "C: the model ended"):
        assert part in str(error)
    assert isinstance(error.__cause__, ExceptionGroup)
    assert [type(e) for e in error.__cause__.exceptions] == [
        APITimeoutError,
        APIStatusError,
        EmptyResponseError,
    ]


@pytest.mark.looptime
async def test_hedge_the_faster_one_is_heard_and_the_other_accounted_for() -> None:
    a, b = Model("A", [3.0, "late"]), Model("B", [0.2, "b", USAGE])
    adapter = FallbackAdapter([a, b], hedge=Hedge(delay=0.5))
    events, metrics = listen(adapter)
    start = asyncio.get_running_loop().time()
    assert await said(adapter) == (["b"], None)
    assert asyncio.get_running_loop().time() - start == pytest.approx(0.7, abs=0.02)
    assert events == []
    by_label = {m.label: m for m in metrics}
    assert by_label["B"].purpose == "reply"
    assert by_label["A"].purpose == "hedge"
    assert by_label["A"].estimated
    assert by_label["A"].prompt_tokens > 0


@pytest.mark.looptime
async def test_resume_continues_the_sentence() -> None:
    a = Model("A", ["The capital of ", "France is ", DOWN])
    b = Model("B", ["Par", "is."], prefill=True)
    adapter = FallbackAdapter([a, b], on_cut="resume")
    got, error = await said(adapter)
    assert error is None
    assert "".join(got) == "The capital of France is Paris."
    assert b.asked[0].items[-1].text_content == "The capital of France is"


@pytest.mark.looptime
async def test_restart_says_so() -> None:
    a, b = Model("A", ["wrong ", DOWN]), Model("B", ["right"])
    adapter = FallbackAdapter([a, b], on_cut="restart")
    events = []
    async with adapter.chat(chat_ctx=question()) as stream:
        got = ""
        async for chunk in stream:
            if chunk.delta is None:
                continue
            extra = (chunk.delta.extra or {}).get("rejoinder")
            if extra:
                events.append(extra["event"])
                assert extra["discard"] == got
                got = ""
            got += chunk.delta.content or ""
    assert got == "right"
    assert events == ["restart"]


@pytest.mark.looptime
async def test_a_model_that_rested_is_probed_and_comes_back() -> None:
    a, b = Model("A", [DOWN], ["ok"], ["a"]), Model("B", ["b"])
    adapter = FallbackAdapter([a, b], breaker=BreakerOptions(cooldown=0.0, jitter=0.0))
    events, metrics = listen(adapter)
    assert await said(adapter) == (["b"], None)
    assert await said(adapter) == (["b"], None)
    await asyncio.sleep(0.1)
    assert events == [("A", False), ("A", True)]
    assert await said(adapter) == (["a"], None)
    assert [m.purpose for m in metrics if m.label == "A"] == ["probe", "reply"]


def test_no_models() -> None:
    with pytest.raises(ValueError, match="at least one LLM"):
        FallbackAdapter([])
    with pytest.raises(ValueError, match="cannot be met"):
        TurnBudget(first_token_by=5, done_by=2)


@pytest.mark.looptime
async def test_adapter_retries_whole_rounds_when_asked() -> None:
    a = Model("A", [APIError("x")], ["a"])
    adapter = FallbackAdapter([a])
    options = APIConnectOptions(max_retry=1, retry_interval=0)
    assert await said(adapter, conn_options=options) == (["a"], None)


# -- silence, budgets, hedges --------------------------------------------------------------------


@pytest.mark.looptime
async def test_thinking_keeps_a_model_unless_told_otherwise() -> None:
    thinker: list[Step] = [1.5, THINKING, 1.5, THINKING, 1.5, "a"]
    patient = FallbackAdapter([Model("A", thinker), Model("B", ["b"])], attempt_timeout=2.0)
    assert await said(patient) == (["a"], None)
    strict = FallbackAdapter(
        [Model("A", thinker), Model("B", ["b"])],
        attempt_timeout=2.0,
        budget=TurnBudget(thinking_is_progress=False),
    )
    start = asyncio.get_running_loop().time()
    assert await said(strict) == (["b"], None)
    assert asyncio.get_running_loop().time() - start == pytest.approx(2.0, abs=0.02)


@pytest.mark.looptime
async def test_what_a_dead_attempt_sent_leaves_no_trace() -> None:
    adapter = FallbackAdapter([Model("A", [ROLE, THINKING, USAGE, DOWN]), Model("B", ["b", USAGE])])
    async with adapter.chat(chat_ctx=question()) as stream:
        chunks = [chunk async for chunk in stream]
    assert chunks == [text("b"), USAGE]


@pytest.mark.looptime
async def test_the_budget_of_the_whole_turn() -> None:
    loop = asyncio.get_running_loop()
    models = [Model(name, [FOREVER]) for name in "ABC"]
    adapter = FallbackAdapter(models, attempt_timeout=2.0, budget=TurnBudget(first_token_by=3.0))
    start = loop.time()
    _, error = await said(adapter)
    assert isinstance(error, APITimeoutError)
    assert "3 s of the whole turn" in str(error)
    assert loop.time() - start == pytest.approx(3.0, abs=0.02)
    assert [len(model.asked) for model in models] == [1, 1, 0]

    slow = FallbackAdapter(
        [Model("A", [1.0, "a"] * 60)], attempt_timeout=2.0, budget=TurnBudget(done_by=5.5)
    )
    start = loop.time()
    got, error = await said(slow)
    assert got == ["a"] * 5
    assert isinstance(error, APITimeoutError)
    assert loop.time() - start == pytest.approx(5.5, abs=0.02)


@pytest.mark.looptime
async def test_silence_in_mid_reply_has_its_own_limit() -> None:
    a, b = Model("A", ["a", FOREVER]), Model("B", ["b"], prefill=True)
    adapter = FallbackAdapter(
        [a, b], attempt_timeout=5.0, budget=TurnBudget(next_token_within=1.0), on_cut="resume"
    )
    start = asyncio.get_running_loop().time()
    assert await said(adapter) == (["a", "b"], None)
    assert asyncio.get_running_loop().time() - start == pytest.approx(1.0, abs=0.02)


@pytest.mark.looptime
async def test_a_quick_first_model_is_not_hedged() -> None:
    a, b = Model("A", [0.1, "a"]), Model("B", ["b"])
    adapter = FallbackAdapter([a, b], hedge=Hedge(delay=0.5))
    assert await said(adapter) == (["a"], None)
    assert b.asked == []


@pytest.mark.looptime
async def test_no_hedge_while_a_model_is_down_nor_beyond_the_share() -> None:
    a, b = Model("A", [1.0, "a"]), Model("B", [0.1, "b"])
    c = Model("C", [DOWN])
    down = FallbackAdapter([c, a, b], hedge=Hedge(delay=0.5))
    assert await said(down) == (["a"], None)  # c fails, a is asked in its place, no race
    assert await said(down) == (["a"], None)
    assert b.asked == []
    capped = FallbackAdapter([a, b], hedge=Hedge(delay=0.5, max_share=0.1))
    answers = [(await said(capped))[0][0] for _ in range(40)]
    assert answers.count("b") <= 1 + 4


@pytest.mark.looptime
async def test_tool_calls_count_only_from_the_winner() -> None:
    a = Model("A", [0.6, call("pay")])
    b = Model("B", [0.2, call("pay")])
    adapter = FallbackAdapter([a, b], hedge=Hedge(delay=0.5))
    async with adapter.chat(chat_ctx=question()) as stream:
        whole = await stream.collect()
    assert len(whole.tool_calls) == 1


@pytest.mark.looptime
async def test_extra_tokens_are_limited() -> None:
    context = question()
    context.add_message(role="user", content="x" * 4000)
    a, b = Model("A", [3.0, "a"]), Model("B", ["b"])
    adapter = FallbackAdapter(
        [a, b], hedge=Hedge(delay=0.5), budget=TurnBudget(max_extra_tokens=500)
    )
    async with adapter.chat(chat_ctx=context) as stream:
        assert (await stream.collect()).text == "a"
    assert b.asked == []


# -- mid-reply -----------------------------------------------------------------------------------


@pytest.mark.looptime
async def test_a_model_without_prefill_is_asked_to_go_on_and_its_repetition_is_dropped() -> None:
    a = Model("A", ["The capital of France", DOWN])
    b = Model("B", ["France is", " Paris."])
    adapter = FallbackAdapter([a, b], on_cut="resume")
    got, _ = await said(adapter)
    assert "".join(got) == "The capital of France is Paris."
    *_, before, instruction = b.asked[0].items
    assert before.text_content == "The capital of France"
    assert instruction.role == "user"
    assert len(question().items) == 1


@pytest.mark.looptime
async def test_after_a_tool_call_resuming_ends_the_reply_and_restarting_fails() -> None:
    for policy, events in (("resume", ["cut_after_tool_call"]), ("restart", [])):
        a, b = Model("A", ["hm ", call("pay"), DOWN]), Model("B", [call("pay")])
        adapter = FallbackAdapter([a, b], on_cut=policy)  # type: ignore[arg-type]
        heard: list[str] = []
        calls = 0
        failed = False
        try:
            async for chunk in adapter.chat(chat_ctx=question()):
                assert chunk.delta is not None
                calls += len(chunk.delta.tool_calls)
                if chunk.delta.extra:
                    heard.append(chunk.delta.extra["rejoinder"]["event"])
        except APIError:
            failed = True
        assert calls == 1
        assert heard == events
        assert failed is (policy == "restart")
        assert b.asked == []


@pytest.mark.looptime
async def test_a_second_cut_is_resumed_too_and_the_last_one_is_raised() -> None:
    models = [
        Model("A", ["one ", DOWN]),
        Model("B", ["two ", DOWN], prefill=True),
        Model("C", ["three"], prefill=True),
    ]
    got, error = await said(FallbackAdapter(models, on_cut="resume"))  # type: ignore[arg-type]
    assert ("".join(got), error) == ("one two three", None)
    got, error = await said(FallbackAdapter(models[:2], on_cut="resume"))  # type: ignore[arg-type]
    assert "".join(got) == "one two "
    assert isinstance(error, APIConnectionError)


# -- the conversation, the same model twice, closing ---------------------------------------------


@pytest.mark.looptime
async def test_a_later_model_gets_what_the_first_one_got() -> None:
    context = question()
    b = Model("B", ["b"])
    adapter = FallbackAdapter([Model("A", [1.0, DOWN]), b])
    stream = adapter.chat(chat_ctx=context)
    context.add_message(role="user", content="said later")
    await stream.collect()
    assert [item.text_content for item in b.asked[0].items] == ["Hello?"]


@pytest.mark.looptime
@pytest.mark.parametrize(
    "nothing", [[THINKING, USAGE], [THINKING, USAGE, EmptyResponseError("nothing was said")]]
)
@pytest.mark.parametrize(
    ("others", "heard"),
    [
        ([["b"]], "b"),
        ([[DOWN], ["c"]], "c"),
        ([[USAGE], ["c"]], "c"),
        # Silence only if all were asked.
        ([[USAGE], [EmptyResponseError("nothing")]], ""),
        ([[DOWN], [FOREVER]], ""),
    ],
)
async def test_after_a_tool_output_silence_is_an_answer_once_all_were_asked(
    nothing: list[Step], others: list[list[Step]], heard: str
) -> None:
    context = question()
    context.insert(FunctionCall(call_id="c", name="f", arguments="{}"))
    context.insert(FunctionCallOutput(call_id="c", name="f", output="done", is_error=False))
    models = [Model(str(number), steps) for number, steps in enumerate([nothing, *others])]
    adapter = FallbackAdapter([*models])
    async with adapter.chat(chat_ctx=context) as stream:
        whole = await stream.collect()
    assert whole.text == heard
    assert [len(model.asked) for model in models] == [1] * len(models)
    assert adapter.availability()[0]
    if not heard:
        assert (whole.thinking, whole.usage) == ("hm", USAGE.usage)


@pytest.mark.looptime
async def test_a_turn_in_which_no_model_has_anything_to_add_to_a_tool_output_ends_well() -> None:
    @function_tool
    async def look_up() -> str:
        """Look it up."""
        return "found"

    silent = Model("A", [call("look_up")], [THINKING])
    other = Model("B", [])
    context = question()
    result = await run_turn(FallbackAdapter([silent, other]), context, tools=[look_up]).collect()
    assert result.text == ""
    assert [item.type for item in context.items][-2:] == ["function_call", "function_call_output"]
    assert (len(silent.asked), len(other.asked)) == (2, 1)


@pytest.mark.looptime
async def test_the_same_model_twice_is_asked_twice_and_rests_as_one() -> None:
    model = Model("A", [DOWN], ["a"])
    adapter = FallbackAdapter([model, model])
    events, metrics = listen(adapter)
    assert await said(adapter) == (["a"], None)
    assert len(metrics) == 1
    assert events == [("A", False), ("A", True)]


@pytest.mark.looptime
async def test_a_model_that_raises_in_chat_is_passed_over() -> None:
    class Broken(Model):
        def chat(self, **_: Any) -> LLMStream:
            raise RuntimeError("no such thing")

    adapter = FallbackAdapter([Broken("A", []), Model("B", ["b"])])
    assert await said(adapter) == (["b"], None)
    _, error = await said(FallbackAdapter([Broken("A", [])]))
    assert isinstance(error, APIConnectionError)
    assert "A: no such thing" in str(error)


def test_wrong_arguments_are_refused() -> None:
    with pytest.raises(TypeError, match="expected instances of LLM in llm, got str"):
        FallbackAdapter(["gpt"])  # type: ignore[list-item]
    with pytest.raises(ValueError, match="on_cut"):
        FallbackAdapter([Model("A", [])], on_cut="again")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="attempt_timeout"):
        FallbackAdapter([Model("A", [])], attempt_timeout=-1)
    with pytest.raises(ValueError, match="max_extra_tokens"):
        TurnBudget(max_extra_tokens=-1)


@pytest.mark.looptime
@pytest.mark.parametrize("policy", ["stop", "restart", "resume"])
async def test_cancelled_at_every_step_nothing_leaks_and_nothing_is_said_twice(
    policy: Any,
) -> None:
    """The consumer is cancelled after 0, 1, 2, ... turns of the loop, through a turn with a silent
    model, a hedge, a cut and a probe."""
    for steps in range(120):
        models = [
            Model("A", [0, 0, THINKING, 0, 0, "one ", 0, 0, DOWN]),
            Model("B", [0, ROLE, 0, 0, "two ", 0, 0, "three"], prefill=True),
        ]
        adapter = FallbackAdapter(
            models,  # type: ignore[arg-type]
            hedge=Hedge(delay=0.0, max_share=1.0),
            on_cut=policy,
            breaker=BreakerOptions(cooldown=0, jitter=0),
        )
        got: list[str] = []

        async def consume(adapter: FallbackAdapter = adapter, got: list[str] = got) -> None:
            for _ in range(2):
                got.clear()
                async with adapter.chat(chat_ctx=question()) as stream:
                    async for chunk in stream:
                        if chunk.delta is not None and chunk.delta.content:
                            got.append(chunk.delta.content)

        task = asyncio.ensure_future(consume())
        for _ in range(steps):
            await asyncio.sleep(0)
        start = asyncio.get_running_loop().time()
        task.cancel()
        await asyncio.wait([task])
        await adapter.aclose()
        assert asyncio.get_running_loop().time() - start < 1.0
        assert asyncio.all_tasks() == {asyncio.current_task()}
        words = "".join(got).split()
        assert len(words) == len(set(words))


@pytest.mark.looptime
async def test_closing_the_adapter_ends_probes_and_leaves_the_models_open() -> None:
    a, b = Model("A", [DOWN], [FOREVER]), Model("B", ["b"])
    adapter = FallbackAdapter([a, b], breaker=BreakerOptions(cooldown=0, jitter=0))
    await said(adapter)
    await said(adapter)
    assert len(a.asked) == 2  # the probe is on its way
    await adapter.aclose()
    assert asyncio.all_tasks() == {asyncio.current_task()}
    async with b.chat(chat_ctx=question()) as stream:
        assert (await stream.collect()).text == "b"


@pytest.mark.looptime
async def test_only_one_probe_at_a_time_and_longer_rests_after_each_failure() -> None:
    a, b = Model("A", [DOWN]), Model("B", ["b"])
    adapter = FallbackAdapter([a, b], breaker=BreakerOptions(cooldown=1, factor=2, jitter=0))
    with wall_clock():
        for _ in range(20):
            assert await said(adapter) == (["b"], None)
            await asyncio.sleep(0.5)
    # Asked at 0; probed when the rests of 1, 2 and 4 seconds were over.
    assert len(a.asked) == 4
    assert [item.text_content for item in a.asked[1].items] == ["Say: ok"]


@pytest.mark.looptime
async def test_prewarm_and_metadata() -> None:
    class Warm(Model):
        warmed = 0

        async def _prewarm_impl(self) -> None:
            self.warmed += 1

    a, b = Warm("A", [DOWN]), Warm("B", ["b"])
    adapter = FallbackAdapter([a, b])
    assert adapter.metrics_metadata == {
        "model_name": "FallbackAdapter",
        "model_provider": "livekit",
    }
    adapter.prewarm()
    await asyncio.sleep(0)
    assert (a.warmed, b.warmed) == (1, 1)
    await said(adapter)
    assert adapter.metrics_metadata == b.metrics_metadata
    assert adapter.llms == (a, b)
    assert adapter.availability() == [False, True]
