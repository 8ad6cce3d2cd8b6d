"""`ToolRuns` by itself, as a realtime session or an adapter uses it: no LLM and no chat context."""

from __future__ import annotations

import asyncio
from collections import Counter
from typing import Any

import pytest

from rejoinder._core.chunks import FunctionToolCall
from rejoinder._core.items import FunctionCall, FunctionCallOutput
from rejoinder.llm._execution import execute_function_call
from rejoinder.llm._tool_runs import (
    CUT_OFF,
    NOT_STARTED,
    STILL_RUNNING,
    ToolEvent,
    ToolFinished,
    ToolRuns,
    ToolStarted,
    call_items,
)
from rejoinder.llm.tool_context import (
    RunContext,
    StopResponse,
    ToolContext,
    ToolError,
    function_tool,
)


@function_tool
async def quick() -> str:
    return "done"


@function_tool
async def slow() -> str:
    await asyncio.sleep(60)
    return "slow is done"


@function_tool(interruptible=False)
async def pay() -> str:
    await asyncio.sleep(5)
    return "paid"


@function_tool
async def stop() -> None:
    raise StopResponse


TOOLS = ToolContext([quick, slow, pay, stop])


def call(name: str, call_id: str = "", arguments: str = "{}") -> FunctionToolCall:
    return FunctionToolCall(name=name, arguments=arguments, call_id=call_id)


class Owner:
    """Keeps a history the way a session does."""

    def __init__(self, **options: Any) -> None:
        self.events: list[ToolEvent] = []
        self.history: list[FunctionCall | FunctionCallOutput] = []
        self.runs = ToolRuns(on_event=self.events.append, **options)

    def start(self, *names: str) -> list[FunctionCallOutput]:
        items = call_items(
            [call(name) for name in names], taken=(), group_id=f"group_{len(self.history)}"
        )
        outputs = self.runs.plan(items, TOOLS)
        self.history.extend([*items, *outputs])
        self.check()
        self.runs.start()
        return outputs

    def check(self) -> None:
        """Each call has exactly one output."""
        calls = Counter(i.call_id for i in self.history if isinstance(i, FunctionCall))
        outputs = Counter(i.call_id for i in self.history if isinstance(i, FunctionCallOutput))
        assert calls == outputs
        assert set(calls.values()) <= {1}

    @property
    def finished(self) -> list[str]:
        return [e.call.name for e in self.events if isinstance(e, ToolFinished)]


@pytest.mark.looptime
async def test_one_event_and_one_output_for_each_call() -> None:
    owner = Owner()
    outputs = owner.start("quick", "slow", "unknown")
    assert [o.output for o in outputs] == [STILL_RUNNING] * 3
    assert owner.runs.pending
    await owner.runs.settled()
    assert not owner.runs.pending
    assert [o.output for o in outputs[:2]] == ["done", "slow is done"]
    assert "There is no tool `unknown`" in outputs[2].output
    assert Counter(owner.finished) == {"quick": 1, "slow": 1, "unknown": 1}
    started = [e.call.name for e in owner.events if isinstance(e, ToolStarted)]
    assert started == ["quick", "slow", "unknown"]
    owner.check()


@pytest.mark.looptime
async def test_a_cut_returns_its_events_and_reports_nothing_twice() -> None:
    owner = Owner()
    outputs = owner.start("slow", "pay")
    await asyncio.sleep(1)
    stopped = owner.runs.cut()
    assert [(e.call.name, e.output.output, e.duration) for e in stopped] == [("slow", CUT_OFF, 1.0)]
    assert owner.runs.cut() == [], "what is answered is not answered again"
    assert [c.name for c in owner.runs.running] == ["slow", "pay"]
    await owner.runs.aclose()
    assert [c.name for c in owner.runs.running] == ["pay"]
    assert owner.runs.pending
    await owner.runs.settled()
    assert [o.output for o in outputs] == [CUT_OFF, "paid"]
    assert owner.finished == ["pay"], "a tool that outlives the cut is reported when it ends"


async def test_cut_before_the_first_step() -> None:
    owner = Owner()
    outputs = owner.start("pay", "quick")
    assert [e.output.output for e in owner.runs.cut()] == [NOT_STARTED] * 2
    await owner.runs.settled()
    assert [o.output for o in outputs] == [NOT_STARTED] * 2
    assert owner.events == []


async def test_a_loop_that_shuts_down_before_the_first_step_leaves_an_output() -> None:
    owner = Owner()
    outputs = owner.start("quick")
    for task in asyncio.all_tasks() - {asyncio.current_task()}:
        task.cancel()
    await owner.runs.settled()
    assert [o.output for o in outputs] == [NOT_STARTED]
    assert not owner.runs.pending


@pytest.mark.looptime
async def test_calls_may_be_added_while_others_run() -> None:
    owner = Owner()
    first = owner.start("slow")
    await asyncio.sleep(1)
    second = owner.start("quick")
    await asyncio.sleep(1)
    assert [o.output for o in (*first, *second)] == [STILL_RUNNING, "done"]
    await owner.runs.settled()
    owner.check()


async def test_a_long_session_keeps_nothing_of_finished_calls() -> None:
    owner = Owner(max_repeats=1000)
    for _ in range(50):
        owner.start("quick")
        await owner.runs.settled()
    assert len(owner.runs._runs) == 1
    assert len(owner.finished) == 50


async def test_a_tool_asks_for_silence() -> None:
    owner = Owner()
    owner.start("quick")
    await owner.runs.settled()
    assert not owner.runs.stop_requested
    owner.start("stop")
    await owner.runs.settled()
    assert owner.runs.stop_requested


async def test_what_repeats_itself_is_refused() -> None:
    owner = Owner(max_repeats=2)
    for _ in range(2):
        owner.start("quick")
        await owner.runs.settled()
    assert not owner.runs.only_repeats()
    outputs = owner.start("quick")
    await owner.runs.settled()
    assert "was not run again" in outputs[0].output
    assert owner.runs.only_repeats()
    assert not owner.runs.only_repeats(), "counted anew after each question"


async def test_contexts_are_made_for_each_call() -> None:
    seen: list[Any] = []

    @function_tool
    async def look(ctx: RunContext[Any]) -> None:
        seen.append(ctx.function_call.call_id)

    owner = Owner()
    items = call_items([call("look", "a"), call("look", "b")], taken=(), group_id="g")
    owner.runs.plan(items, ToolContext([look]))
    owner.runs.start()
    await owner.runs.settled()
    assert seen == ["a", "b"]


def test_items_of_calls() -> None:
    items = call_items(
        [call("a", "1"), call("b", "1"), call("c", "7"), call("d", "", " \n")],
        taken={"7"},
        group_id="g",
    )
    ids = [item.call_id for item in items]
    assert ids[0] == "1"
    assert len(set(ids)) == 4
    assert not {"", "7"} & set(ids)
    assert {item.group_id for item in items} == {"g"}
    assert items[-1].arguments == "{}"


async def test_a_tool_error_whose_message_is_no_text() -> None:
    class Unspeakable:
        def __str__(self) -> str:
            raise ValueError("no words")

    @function_tool
    async def fail() -> str:
        """Fail."""
        raise ToolError(Unspeakable())  # type: ignore[arg-type]

    call = FunctionCall(call_id="c", name="fail", arguments="{}")
    result = await execute_function_call(call, ToolContext([fail]))
    assert result.fnc_call_out is not None
    assert result.fnc_call_out.is_error
    assert result.fnc_call_out.output == "`fail` failed, and its message cannot be shown as text"
    assert isinstance(result.raw_exception, ToolError)
