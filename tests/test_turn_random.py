"""Any turn: models that talk, think, call, repeat themselves and fail; tools that return, raise, hang
and take no notice; cut anywhere, in any way. What `run_turn` promises holds for all of them."""

from __future__ import annotations

import asyncio
from collections import Counter
from typing import Any

import looptime
from hypothesis import event, given
from hypothesis import strategies as st

from rejoinder.errors import APIConnectionError
from rejoinder.llm._tool_runs import CUT_OFF, NOT_STARTED, STILL_RUNNING
from rejoinder.llm.chat_context import FunctionCall, FunctionCallOutput
from rejoinder.llm.tool_context import (
    RunContext,
    StopResponse,
    ToolError,
    function_tool,
)
from rejoinder.turn import (
    Done,
    Text,
    ToolFinished,
    ToolPaused,
    ToolStarted,
    Turn,
    Usage,
    pending_approvals,
    run_turn,
)
from test_turn import (
    ScriptedLLM,
    calls,
    check_every_provider,
    check_history,
    question,
    text,
    usage,
)

BLANK_OR_BROKEN = ("text", "arguments")
"""What tools return and models write is kept as it came, and mended when it is sent."""


class Strange:
    """No value that a model could read."""


class Tools:
    def __init__(self) -> None:
        self.running: Counter[str] = Counter()
        self.effects: list[str] = []

        @function_tool
        async def quick() -> int:
            return 0

        @function_tool
        def plain() -> Any:
            return {"a": [1, None]}

        @function_tool
        async def slow() -> str:
            self.running["slow"] += 1
            try:
                for _ in range(5):
                    await asyncio.sleep(0)
                await asyncio.sleep(1)
            finally:
                self.running["slow"] -= 1
            return "slow is done"

        @function_tool
        async def strange() -> Any:
            return Strange()

        @function_tool
        async def raises() -> None:
            raise ToolError("on purpose")

        @function_tool
        async def breaks() -> None:
            raise SystemExit(3)

        @function_tool
        async def stops() -> None:
            raise StopResponse

        @function_tool(timeout=2)
        async def hangs() -> None:
            await asyncio.Event().wait()

        @function_tool
        async def stubborn() -> str:
            try:
                await asyncio.sleep(3)
            except asyncio.CancelledError:
                await asyncio.sleep(0.3)
            return "still"

        @function_tool(interruptible=False)
        async def pay(ctx: RunContext) -> str:
            await asyncio.sleep(0)
            await asyncio.sleep(0.5)
            self.effects.append(ctx.function_call.call_id)
            return "paid"

        @function_tool
        async def fence(ctx: RunContext) -> str:
            await asyncio.sleep(0)
            ctx.disallow_interruptions()
            await asyncio.sleep(0.5)
            self.effects.append(ctx.function_call.call_id)
            return "done"

        self.all = [quick, plain, slow, strange, raises, breaks, stops, hangs, stubborn, pay, fence]


NAMES = ["quick", "plain", "slow", "strange", "raises", "breaks", "hangs", "stubborn", "pay"]
NAMES += ["fence", "unknown", 'quick:{"a', "quick", "pay", "pay", "fence"]

called = st.lists(st.sampled_from(NAMES), min_size=1, max_size=3).map(lambda names: calls(*names))
spoken = st.sampled_from([text("a"), text(" b"), text(" "), usage(1), usage(2)])


async def waits() -> None:
    await asyncio.sleep(1)


replies = st.builds(
    lambda chunks, wait, more, end: [*chunks, *([waits] if wait else []), *more, *end],
    st.lists(spoken, max_size=3),
    st.booleans(),
    st.lists(st.one_of(called, spoken), max_size=3),
    st.sampled_from(
        [[], [], [], [], [calls("stops")], [APIConnectionError("reset")], [ValueError("a bug")]]
    ),
)


async def slowly(_: FunctionCall) -> bool:
    await asyncio.sleep(1)
    return True


APPROVE: dict[str, Any] = {
    "unasked": None,
    "yes": lambda _: True,
    "slowly": slowly,
    "no": lambda _: False,
    "open": lambda _: None,
}


@given(
    scripts=st.lists(replies, min_size=5, max_size=5),
    cut=st.sampled_from(["never", "interrupt", "close", "cancel", "cancel twice", "close the llm"]),
    turns=st.integers(0, 25),
    later=st.sampled_from([0, 0, 0.2, 0.7, 1.2, 2.5, 4]),
    options=st.fixed_dictionaries(
        {
            "max_steps": st.integers(1, 4),
            "max_repeats": st.integers(1, 3),
            "max_concurrency": st.sampled_from([None, 1, 2]),
            "approve": st.sampled_from(["unasked", "unasked", *APPROVE]),
        }
    ),
)
def test_any_course_of_a_turn(
    scripts: list[Any], cut: str, turns: int, later: float, options: dict[str, Any]
) -> None:
    loop = looptime.new_event_loop()
    try:
        loop.run_until_complete(course(scripts, cut, turns, later, options))
    finally:
        loop.close()


async def course(
    scripts: list[Any], cut: str, turns: int, later: float, options: dict[str, Any]
) -> None:
    loop = asyncio.get_running_loop()
    tools = Tools()
    llm = ScriptedLLM(*scripts)
    context = question()
    turn = run_turn(
        llm, context, tools=tools.all, **{**options, "approve": APPROVE[options["approve"]]}
    )
    events: list[Any] = []

    async def consume() -> None:
        async with turn:
            async for happened in turn:
                events.append(happened)
                check_history(context.items)

    task = asyncio.create_task(consume())
    if cut != "never":
        for _ in range(turns):
            await asyncio.sleep(0)
        await asyncio.sleep(later)
        started = loop.time()
        match cut:
            case "interrupt":
                turn.interrupt()
                check_history(context.items)
            case "close":
                await turn.aclose()
            case "close the llm":
                await llm.aclose()
            case _:
                task.cancel()
                if cut == "cancel twice":
                    await asyncio.sleep(0)
                    task.cancel()
        check_history(context.items)
        if cut != "close the llm":
            await asyncio.wait((task,))
            assert loop.time() - started <= 2.1, "a second for the reply, and one for the tools"
    await asyncio.wait((task,), timeout=200)
    assert task.done(), "a turn ends"
    error = None if task.cancelled() else task.exception()
    assert turn.done
    check_history(context.items)
    check_every_provider(context, but=BLANK_OR_BROKEN)

    whole = bool(events) and isinstance(events[-1], Done)
    check_events(turn, events, llm, options, whole=whole)
    if error is not None:
        assert isinstance(error, APIConnectionError | ValueError)
    elif not task.cancelled():
        assert whole
        if cut == "never":
            assert events[-1].reason != "interrupted"
    event(f"{cut}: {events[-1].reason if whole else type(error).__name__}")

    await turn.settled()
    check_history(context.items)
    check_every_provider(context, but=BLANK_OR_BROKEN)
    assert not +tools.running, "no tool is left that could be stopped"
    made = {item.call_id: item for item in context.items if isinstance(item, FunctionCall)}
    effects = Counter(tools.effects)
    if options["approve"] in ("no", "open"):
        assert not effects
    for call in pending_approvals(context):
        assert effects[call.call_id] == 0
    for item in context.items:
        if isinstance(item, FunctionCallOutput):
            assert item.output != STILL_RUNNING
            if made[item.call_id].name == "pay":
                done = item.output == "paid"
                assert effects[item.call_id] == done, "what the history says is what was done"
                assert item.output != CUT_OFF
            if made[item.call_id].name == "fence":
                assert effects[item.call_id] == (item.output == "done")
            if item.output == NOT_STARTED:
                assert effects[item.call_id] == 0
    for _ in range(5):
        await asyncio.sleep(0)
    assert asyncio.all_tasks() == {asyncio.current_task()}


def check_events(
    turn: Turn, events: list[Any], llm: ScriptedLLM, options: dict[str, Any], *, whole: bool
) -> None:
    assert sum(isinstance(e, Done) for e in events) == whole
    assert len(llm.requests) <= options["max_steps"] + 1
    for request in llm.requests[options["max_steps"] :]:
        assert request["tool_choice"] == "none"
    started = Counter(e.call.call_id for e in events if isinstance(e, ToolStarted))
    finished = Counter(e.call.call_id for e in events if isinstance(e, ToolFinished))
    assert set(started.values()) | set(finished.values()) <= {1}
    if not whole:
        return
    done: Done = events[-1]
    if done.reason != "interrupted":
        assert set(started) <= set(finished)
        made = [item for item in turn.chat_ctx.items if isinstance(item, FunctionCall)]
        paused = {e.call.call_id for e in events if isinstance(e, ToolPaused)}
        assert bool(paused) == (done.reason == "paused")
        assert {item.call_id for item in made} == set(finished) | paused
        assert not set(finished) & paused
        text = "".join(e.text for e in events if isinstance(e, Text))
        assert text.endswith(done.text)
    counted = [e.usage for e in events if isinstance(e, Usage)]
    if counted:
        assert done.usage is not None
        assert done.usage.completion_tokens == sum(usage.completion_tokens for usage in counted)
    else:
        assert done.usage is None
    assert done.steps == len(llm.requests)
