"""`run_turn(approve=...)`: nothing with effects runs before it is approved, a turn can pause and be
resumed from a stored context, and the history stays legal whatever happens meanwhile."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest

from rejoinder.llm._tool_runs import NOT_STARTED, WAITING
from rejoinder.llm.chat_context import ChatContext, FunctionCall
from rejoinder.llm.tool_context import ToolError, function_tool
from rejoinder.turn import (
    Done,
    ToolFinished,
    ToolPaused,
    ToolStarted,
    pending_approvals,
    run_turn,
)
from test_turn import (
    ScriptedLLM,
    calls,
    check_every_provider,
    check_history,
    events_of,
    outputs,
    question,
    text,
)

ran: list[str] = []


@pytest.fixture(autouse=True)
def _fresh() -> None:  # pyright: ignore[reportUnusedFunction]
    ran.clear()


@function_tool
async def pay(amount: int = 1) -> str:
    ran.append(f"pay {amount}")
    return f"paid {amount}"


@function_tool(effects=False)
async def look() -> str:
    ran.append("look")
    return "seen"


def yes(_: FunctionCall) -> bool:
    return True


async def test_only_what_has_effects_is_asked_about() -> None:
    asked: list[str] = []

    async def approve(call: FunctionCall) -> bool:
        asked.append(call.name)
        assert ran in ([], ["look"]), "the tool has not run yet"
        return True

    context = question()
    llm = ScriptedLLM([calls("look", "pay:{'amount': 5,}", "unknown")], [text("ok")])
    events = await events_of(run_turn(llm, context, tools=[look, pay], approve=approve))
    assert asked == ["pay"]
    assert sorted(ran) == ["look", "pay 5"]
    assert outputs(context)[:2] == ["seen", "paid 5"]
    assert events[-1].reason == "complete"


async def test_the_approved_arguments_are_clean() -> None:
    shown: list[str] = []

    def approve(call: FunctionCall) -> bool:
        shown.append(call.arguments)
        return True

    llm = ScriptedLLM([calls("pay:{'amount': 5,}")], [text("ok")])
    await events_of(run_turn(llm, question(), tools=[pay], approve=approve))
    assert [json.loads(arguments) for arguments in shown] == [{"amount": 5}]


async def test_calls_that_cannot_run_bother_nobody() -> None:
    def approve(call: FunctionCall) -> bool:
        raise AssertionError(f"asked about {call}")

    context = question()
    llm = ScriptedLLM([calls('pay:{"amount": "much"}', "unknown")], [text("ok")])
    await events_of(run_turn(llm, context, tools=[pay], approve=approve))
    assert "expected" in outputs(context)[0]
    assert "There is no tool" in outputs(context)[1]
    assert ran == []


def raises(error: BaseException) -> Any:
    def approve(_: FunctionCall) -> bool:
        raise error

    return approve


@pytest.mark.parametrize(
    ("approve", "output"),
    [
        (lambda _: False, "`pay` was not run: it was not approved"),
        (lambda _: "", "`pay` was not run: it was not approved"),
        (lambda _: "too much", "`pay` was not run: too much"),
        (raises(ToolError("ask the boss")), "`pay` was not run: ask the boss"),
        (raises(KeyError("secret")), "`pay` was not run: asking for approval failed"),
        (raises(asyncio.CancelledError()), "`pay` was not run: the approval was cancelled"),
        (lambda _: {"ok": True}, "`pay` was not run: asking for approval failed"),
        (lambda _: 1, "`pay` was not run: asking for approval failed"),
    ],
)
async def test_refused(approve: Any, output: str) -> None:
    context = question()
    llm = ScriptedLLM([calls("pay")], [text("a pity")])
    events = await events_of(run_turn(llm, context, tools=[pay], approve=approve))
    assert ran == []
    assert outputs(context) == [output]
    assert [type(e) for e in events if isinstance(e, ToolStarted | ToolFinished)] == [ToolFinished]
    assert events[-1] == Done("complete", context.items[-1], 2, None)  # type: ignore[arg-type]
    check_every_provider(context)


async def test_a_model_that_insists_does_not_ask_for_ever() -> None:
    asked = 0

    def approve(_: FunctionCall) -> bool:
        nonlocal asked
        asked += 1
        return False

    llm = ScriptedLLM(*[[calls("pay")]] * 3, [text("well")])
    events = await events_of(run_turn(llm, question(), tools=[pay], approve=approve, max_repeats=2))
    assert asked == 2
    assert events[-1].reason == "max_steps"


@pytest.mark.looptime
async def test_a_person_may_take_their_time() -> None:
    async def approve(_: FunctionCall) -> bool:
        await asyncio.sleep(3600)
        return True

    llm = ScriptedLLM([calls("pay", "look")], [text("ok")])
    turn = run_turn(
        llm, question(), tools=[pay, look], approve=approve, tool_timeout=1, max_concurrency=1
    )
    events = await events_of(turn)
    assert [e.call.name for e in events if isinstance(e, ToolFinished)] == ["look", "pay"], (
        "a call that waits for a person takes no slot"
    )
    durations = [e.duration for e in events if isinstance(e, ToolFinished)]
    assert durations == [0, 0], "the wait is not the tool's"


@pytest.mark.looptime
async def test_interrupted_while_a_person_thinks() -> None:
    gone = False

    async def approve(_: FunctionCall) -> bool:
        nonlocal gone
        try:
            await asyncio.sleep(3600)
        finally:
            gone = True
        return True

    context = question()
    async with run_turn(ScriptedLLM([calls("pay")]), context, tools=[pay], approve=approve) as turn:
        waiting = asyncio.ensure_future(anext(turn))
        await asyncio.sleep(1)
        check_history(context.items)
        turn.interrupt()
        assert isinstance(await waiting, ToolFinished)
    assert gone
    assert ran == []
    assert outputs(context) == [NOT_STARTED]
    check_history(context.items)
    check_every_provider(context)


@pytest.mark.looptime
@pytest.mark.parametrize("late", [True, None, False])
async def test_an_answer_after_the_interruption_changes_nothing(late: bool | None) -> None:
    async def approve(_: FunctionCall) -> bool | None:
        try:
            await asyncio.sleep(3600)
        except asyncio.CancelledError:
            pass
        return late

    context = question()
    async with run_turn(ScriptedLLM([calls("pay")]), context, tools=[pay], approve=approve) as turn:
        waiting = asyncio.ensure_future(anext(turn))
        await asyncio.sleep(1)
        turn.interrupt()
        await waiting
    await turn.settled()
    assert ran == []
    assert outputs(context) == [NOT_STARTED]
    assert pending_approvals(context) == []


# -- pause, store, resume -------------------------------------------------------------------


async def paused() -> ChatContext:
    """A context in which one call waits and another was run, as read back from a store."""
    context = question()
    llm = ScriptedLLM([text("Just a moment."), calls('pay:{"amount": 5}', "look")])
    events = await events_of(run_turn(llm, context, tools=[pay, look], approve=lambda _: None))
    assert ran == ["look"]
    assert [e.call.name for e in events if isinstance(e, ToolPaused)] == ["pay"]
    assert events[-1].reason == "paused"
    assert events[-1].text == "Just a moment."
    assert outputs(context) == [WAITING, "seen"]
    check_history(context.items)
    check_every_provider(context)
    return ChatContext.from_dict(json.loads(json.dumps(context.to_dict())))


async def test_resumed_from_a_store() -> None:
    context = await paused()
    assert [(c.name, c.arguments) for c in pending_approvals(context)] == [("pay", '{"amount": 5}')]
    decisions = {call.call_id: True for call in pending_approvals(context)}
    llm = ScriptedLLM([text("Paid.")])
    events = await events_of(
        run_turn(llm, context, tools=[pay, look], approve=lambda call: decisions.get(call.call_id))
    )
    assert ran == ["look", "pay 5"]
    assert outputs(context) == ["paid 5", "seen"]
    assert pending_approvals(context) == []
    assert [type(e) for e in events][:2] == [ToolStarted, ToolFinished]
    assert events[-1].reason == "complete"
    assert events[-1].steps == 1
    check_every_provider(context)


async def test_refused_after_all() -> None:
    context = await paused()
    llm = ScriptedLLM([text("Then not.")])
    await events_of(run_turn(llm, context, tools=[pay, look], approve=lambda _: "no money"))
    assert ran == ["look"]
    assert outputs(context) == ["`pay` was not run: no money", "seen"]
    assert pending_approvals(context) == []


async def test_still_undecided() -> None:
    context = await paused()
    events = await events_of(run_turn(ScriptedLLM(), context, tools=[pay], approve=lambda _: None))
    assert [type(e) for e in events] == [ToolPaused, Done]
    assert (events[-1].reason, events[-1].steps) == ("paused", 0)
    assert len(pending_approvals(context)) == 1
    assert ran == ["look"]


async def test_a_turn_that_asks_nobody_does_not_run_it() -> None:
    context = await paused()
    context.add_message(role="user", content="never mind")
    await events_of(run_turn(ScriptedLLM([text("ok")]), context, tools=[pay, look]))
    assert ran == ["look"]
    assert outputs(context) == [WAITING, "seen"]


async def test_the_tool_is_gone() -> None:
    context = await paused()
    await events_of(run_turn(ScriptedLLM([text("hm")]), context, tools=[look], approve=yes))
    assert "There is no tool `pay`" in outputs(context)[0]
    assert pending_approvals(context) == []


async def test_a_forced_choice_was_made_before_the_pause() -> None:
    context = await paused()
    llm = ScriptedLLM([text("ok")])
    turn = run_turn(llm, context, tools=[pay], approve=yes, tool_choice="required")
    await events_of(turn)
    assert llm.requests[0]["tool_choice"] != "required"


async def test_what_others_keep_beside_the_mark_stays() -> None:
    context = await paused()
    call = pending_approvals(context)[0]
    call.extra = {**call.extra, "google": {"thought_signature": "s"}}
    call.extra["rejoinder"]["note"] = 1
    await events_of(run_turn(ScriptedLLM([text("ok")]), context, tools=[pay], approve=yes))
    assert call.extra == {"google": {"thought_signature": "s"}, "rejoinder": {"note": 1}}


async def test_interrupted_while_resuming() -> None:
    context = await paused()
    started = asyncio.Event()

    async def approve(_: FunctionCall) -> bool:
        started.set()
        await asyncio.Event().wait()
        return True

    async with run_turn(ScriptedLLM(), context, tools=[pay], approve=approve) as turn:
        waiting = asyncio.ensure_future(anext(turn))
        await started.wait()
        turn.interrupt()
        await waiting
    assert outputs(context) == [NOT_STARTED, "seen"]
    assert ran == ["look"]
    check_every_provider(context)
