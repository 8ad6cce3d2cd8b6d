"""A turn is one trace, whatever happens in it."""

from __future__ import annotations

import asyncio
import time
from typing import Any

import opentelemetry.sdk.trace
import pytest

from mcp_memory import Memory
from rejoinder import FallbackAdapter, telemetry
from rejoinder._core.breaker import BreakerOptions
from rejoinder._core.hedge import Hedge
from rejoinder.errors import APIStatusError
from rejoinder.llm import CompletionUsage, FunctionToolCall, function_tool
from rejoinder.llm.tool_context import ToolError
from rejoinder.testing import ScriptedLLM
from rejoinder.turn import Done, Text, run_turn
from rejoinder.types import APIConnectOptions
from telemetry.recorded import Recorded

CALL = FunctionToolCall(name="look_up", arguments='{"what": "A17"}', call_id="call_1")
ONCE = APIConnectOptions(max_retry=0)


def usage(prompt: int, completion: int) -> CompletionUsage:
    return CompletionUsage(
        prompt_tokens=prompt, completion_tokens=completion, total_tokens=prompt + completion
    )


def down() -> APIStatusError:
    return APIStatusError("down", status_code=503)


@function_tool
async def look_up(what: str) -> str:
    """Look something up."""
    return "shipped"


def attributes(span: Any) -> dict[str, Any]:
    return dict(span.attributes or {})


async def test_a_turn_with_a_fallback_and_a_tool_is_one_trace(recorded: Recorded) -> None:
    first = ScriptedLLM([CALL, usage(10, 2)], down(), model="first")
    second = ScriptedLLM(["It is on its way.", usage(20, 5)], model="second")
    done = await run_turn(
        FallbackAdapter([first, second]), "Where is it?", tools=[look_up]
    ).collect()
    assert isinstance(done, Done)
    request = ["llm_request", ["llm_request_run"]]
    assert recorded.tree() == [
        [
            "agent_turn",
            ["llm_fallback_adapter", ["llm_request_run", request]],
            ["function_tool"],
            ["llm_fallback_adapter", ["llm_request_run", request, request]],
        ]
    ]
    assert len({span.context.trace_id for span in recorded.spans}) == 1
    turn = attributes(recorded.named("agent_turn")[0])
    assert turn == {
        "gen_ai.operation.name": "invoke_agent",
        "rejoinder.turn.reason": "complete",
        "rejoinder.turn.steps": 2,
    }
    failed = recorded.named("llm_request")[1]
    assert attributes(failed)["error.type"] == "503"
    assert [
        attributes(span)["rejoinder.fallback.candidate"] for span in recorded.named("llm_request")
    ] == [0, 0, 1]


async def test_tokens_are_counted_once(recorded: Recorded) -> None:
    llm = FallbackAdapter([ScriptedLLM([CALL, usage(10, 2)], ["yes", usage(20, 5)])])
    done = await run_turn(llm, "Where is it?", tools=[look_up]).collect()
    assert done.usage is not None
    for name, total in (
        ("input", done.usage.prompt_tokens),
        ("output", done.usage.completion_tokens),
    ):
        told = [attributes(span).get(f"gen_ai.usage.{name}_tokens", 0) for span in recorded.spans]
        assert sum(told) == total
        points = recorded.points("gen_ai.client.token.usage")
        assert sum(p.sum for a, p in points if a["gen_ai.token.type"] == name) == total


async def test_the_code_between_two_events_is_not_in_the_turn(recorded: Recorded) -> None:
    with telemetry.tracer().start_as_current_span("call"):
        async for _ in run_turn(ScriptedLLM("one two"), "Hi"):
            with telemetry.tracer().start_as_current_span("mine"):
                pass
    turn = recorded.named("agent_turn")[0]
    call = recorded.named("call")[0]
    assert turn.parent is not None
    assert turn.parent.span_id == call.context.span_id
    mine = recorded.named("mine")
    assert mine
    assert all(span.parent and span.parent.span_id == call.context.span_id for span in mine)


@pytest.mark.looptime
async def test_a_cut_turn_ends_all_of_its_spans(recorded: Recorded) -> None:
    async with run_turn(ScriptedLLM(["so", 60.0, "late"]), "Hi") as turn:
        await anext(turn)
    assert {span.name for span in recorded.spans} == {
        "agent_turn",
        "llm_request",
        "llm_request_run",
    }
    assert attributes(recorded.named("agent_turn")[0])["rejoinder.turn.reason"] == "interrupted"
    request = attributes(recorded.named("llm_request")[0])
    assert request["rejoinder.cancelled"] is True
    assert request["rejoinder.usage.estimated"] is True


async def test_a_failed_turn_tells_why(recorded: Recorded) -> None:
    with pytest.raises(APIStatusError):
        await run_turn(ScriptedLLM(down()), "Hi", conn_options=ONCE).collect()
    turn = recorded.named("agent_turn")[0]
    assert attributes(turn)["error.type"] == "503"
    assert not turn.status.is_ok
    ((found, _),) = recorded.points("gen_ai.invoke_agent.duration")
    assert found["error.type"] == "503"


@pytest.mark.looptime
async def test_a_hedge_that_lost_is_told_as_one(recorded: Recorded) -> None:
    slow = ScriptedLLM([5.0, "late"], model="slow")
    quick = ScriptedLLM("now", model="quick")
    async with FallbackAdapter([slow, quick], hedge=Hedge(delay=0.2, max_share=1.0)) as llm:
        assert (await run_turn(llm, "Hi").collect()).text == "now"
        await asyncio.sleep(1)
    told = {
        attributes(span)["gen_ai.request.model"]: attributes(span)["rejoinder.purpose"]
        for span in recorded.named("llm_request")
    }
    assert told == {"slow": "hedge", "quick": "reply"}
    assert len({span.context.trace_id for span in recorded.spans}) == 1


async def test_no_span_ends_before_it_starts_when_the_clock_is_set_back(
    recorded: Recorded, monkeypatch: pytest.MonkeyPatch
) -> None:
    readings = iter(range(1_700_000_000_000_000_000, 0, -3_600_000_000_000))
    for module in (time, opentelemetry.sdk.trace):
        monkeypatch.setattr(module, "time_ns", lambda: next(readings))
    telemetry.capture_content(True)
    fails, calls = ScriptedLLM(down()), ScriptedLLM(["Hm", CALL], "done")
    async with FallbackAdapter([fails, calls]) as llm:
        done = await run_turn(llm, "Hi", tools=[look_up], conn_options=ONCE).collect()
    assert done.text == "done"
    by_id = {span.context.span_id: span for span in recorded.spans}
    assert len(by_id) > 8
    for span in by_id.values():
        outer = by_id[span.parent.span_id] if span.parent is not None else span
        times = [
            outer.start_time,
            span.start_time,
            *(event.timestamp for event in span.events),
            span.end_time,
            outer.end_time,
        ]
        assert times == sorted(times), span.name


@pytest.mark.looptime
async def test_what_was_taken_back_is_told_as_a_restart(recorded: Recorded) -> None:
    broken = ScriptedLLM(["I think ", down()], model="broken")
    metrics: list[Any] = []
    llm = FallbackAdapter([broken, ScriptedLLM("It rains.")], on_cut="restart")
    llm.on("metrics_collected", metrics.append)
    assert (await run_turn(llm, "Hi").collect()).text == "It rains."
    assert [m.purpose for m in metrics] == ["restart", "reply"]
    events = [event.name for event in recorded.named("llm_fallback_adapter")[0].events]
    assert events == ["rejoinder.fallback.restart"]
    told = [attributes(span)["rejoinder.purpose"] for span in recorded.named("llm_request")]
    assert told == ["restart", "reply"]
    durations = recorded.points("gen_ai.client.operation.duration")
    assert sorted(found["rejoinder.purpose"] for found, _ in durations) == ["reply", "restart"]


@pytest.mark.looptime
async def test_a_span_that_waits_for_its_purpose_ends_when_the_request_did(
    recorded: Recorded,
) -> None:
    with telemetry.tracer().start_as_current_span("around"):
        broken = ScriptedLLM(["I think ", down()], model="broken")
        llm = FallbackAdapter([broken, ScriptedLLM("It rains.")], on_cut="restart")
        assert (await run_turn(llm, "Hi").collect()).text == "It rains."
        with telemetry.tracer().start_as_current_span("after"):
            pass
    around = recorded.named("around")[0]
    first, second = recorded.named("llm_request")
    attempt = recorded.named("llm_request_run")[1]
    assert attempt.parent is not None
    assert attempt.parent.span_id == first.context.span_id
    assert all(event.timestamp <= first.end_time for event in first.events)
    assert [event.name for event in first.events] == ["exception"]
    assert attempt.end_time <= first.end_time <= second.start_time
    after = recorded.named("after")[0].parent
    assert after is not None
    assert after.span_id == around.context.span_id


async def test_the_call_of_an_mcp_server_is_in_its_tool(recorded: Recorded) -> None:
    call = FunctionToolCall(name="t", arguments="{}", call_id="call_1")
    async with Memory() as server:
        tools = await server.list_tools()
        await run_turn(ScriptedLLM([call], "done"), "Hi", tools=tools).collect()
        meta = [message.get("params", {}).get("_meta") for message in server.seen]
    assert recorded.tree()[0][2] == ["function_tool", ["tools/call t"]]
    found = attributes(recorded.named("tools/call t")[0])
    assert found == {"mcp.method.name": "tools/call", "gen_ai.tool.name": "t"}
    assert not any("traceparent" in (fields or {}) for fields in meta)


async def test_mcp_servers_hear_of_the_trace_when_asked(recorded: Recorded) -> None:
    telemetry.propagate(mcp=True)
    async with Memory() as server:
        await server.call_tool("t")
        (asked,) = [m for m in server.seen if m["method"] == "tools/call"]
    span = recorded.named("tools/call t")[0]
    assert f"{span.context.trace_id:032x}" in asked["params"]["_meta"]["traceparent"]


async def test_the_failure_of_an_mcp_tool_is_an_error_of_its_span(recorded: Recorded) -> None:
    async def fails(message: dict[str, Any], send: Any) -> None:
        wrong = {"content": [{"type": "text", "text": "no"}], "isError": True}
        await send(id=message["id"], result=wrong)

    async with Memory(fails) as server:
        with pytest.raises(ToolError):
            await server.call_tool("t")
    span = recorded.named("tools/call t")[0]
    assert attributes(span)["error.type"] == "tool_error"
    assert not span.status.is_ok
    ((found, _),) = recorded.points("mcp.client.operation.duration")
    assert found["error.type"] == "tool_error"


@pytest.mark.looptime
async def test_a_probe_has_a_trace_of_its_own(recorded: Recorded) -> None:
    models = [ScriptedLLM(down(), "ok", model="rests"), ScriptedLLM("a", "b")]
    rest = BreakerOptions(cooldown=0, jitter=0)
    async with FallbackAdapter(models, breaker=rest, max_retry_per_llm=0) as llm:
        await run_turn(llm, "Hi").collect()
        await asyncio.sleep(1.5)
        await run_turn(llm, "Hi").collect()
        await asyncio.sleep(1)
    purposes = [
        (attributes(span)["rejoinder.purpose"], span.parent is None)
        for span in recorded.named("llm_request")
    ]
    assert [p for p in purposes if p[0] == "probe"] == [("probe", True)]


async def test_a_turn_tells_its_cost(recorded: Recorded) -> None:
    named = {"model": "gpt-4.1", "provider": "api.openai.com"}
    llm = FallbackAdapter([ScriptedLLM([CALL, usage(1000, 10)], ["yes", usage(2000, 20)], **named)])
    done = await run_turn(llm, "Where is it?", tools=[look_up]).collect()
    assert done.cost == pytest.approx((3000 * 2 + 30 * 8) / 1e6)
    told = [attributes(span).get("rejoinder.cost", 0.0) for span in recorded.spans]
    assert sum(told) == pytest.approx(done.cost)
    ((_, point),) = recorded.points("rejoinder.client.operation.cost")
    assert point.sum == pytest.approx(done.cost)


@pytest.mark.looptime
async def test_the_cost_of_a_turn_holds_what_nobody_heard(recorded: Recorded) -> None:
    named = {"model": "gpt-4.1", "provider": "api.openai.com"}
    broken = ScriptedLLM(["I think ", usage(1000, 5), down()], **named)
    good = ScriptedLLM(["It rains.", usage(1000, 10)], **named)
    done = await run_turn(FallbackAdapter([broken, good], on_cut="restart"), "Hi").collect()
    assert done.text == "It rains."
    assert done.cost == pytest.approx((2000 * 2 + 15 * 8) / 1e6)


async def test_the_cost_of_a_turn_is_not_known_where_one_price_is_not() -> None:
    known = ScriptedLLM([CALL, usage(1000, 10)], down(), model="gpt-4.1", provider="api.openai.com")
    unknown = ScriptedLLM(["yes", usage(10, 1)], model="mine", provider="mine")
    llm = FallbackAdapter([known, unknown])
    assert (await run_turn(llm, "Where is it?", tools=[look_up]).collect()).cost is None


NAMED = {"model": "gpt-4.1", "provider": "api.openai.com"}


async def cut(llm: Any, after: int = 1) -> tuple[Done[Any], list[Any]]:
    """A turn that is closed behind so many events, and the metrics of its requests."""
    metrics: list[Any] = []
    llm.on("metrics_collected", metrics.append)
    turn = run_turn(llm, "Tell me about rain.")
    for _ in range(after):
        await anext(turn)
    await turn.aclose()
    (done,) = [event async for event in turn if isinstance(event, Done)]
    await asyncio.sleep(1)
    return done, metrics


@pytest.mark.looptime
@pytest.mark.parametrize("counted", [True, False], ids=["counted", "estimated"])
@pytest.mark.parametrize("adapter", [False, True], ids=["alone", "in an adapter"])
async def test_the_cost_of_a_cut_turn_is_what_its_metrics_tell(
    counted: bool, adapter: bool
) -> None:
    llm: Any = ScriptedLLM(
        ["It rains", *([usage(1000, 2)] if counted else []), " cats", 60.0, "late"], **NAMED
    )
    if adapter:
        llm = FallbackAdapter([llm])
    done, (metrics,) = await cut(llm, after=2)
    assert done.reason == "interrupted"
    assert metrics.cancelled
    assert metrics.cost > 0
    assert done.cost == pytest.approx(metrics.cost)


@pytest.mark.looptime
async def test_the_cost_of_a_cut_turn_holds_what_was_asked_before() -> None:
    llm = ScriptedLLM([CALL, usage(1000, 10)], ["It", usage(2000, 1), 60.0], **NAMED)
    metrics: list[Any] = []
    llm.on("metrics_collected", metrics.append)
    turn = run_turn(llm, "Where is it?", tools=[look_up])
    async for event in turn:
        if event == Text("It"):
            break
    await asyncio.sleep(0.1)  # until the usage has come
    await turn.aclose()
    (done,) = [event async for event in turn if isinstance(event, Done)]
    await asyncio.sleep(1)
    assert done.cost == pytest.approx(sum(m.cost for m in metrics))
    assert len(metrics) == 2


@pytest.mark.looptime
async def test_what_a_request_costs_that_was_cut_before_its_first_chunk_is_not_known() -> None:
    llm = ScriptedLLM([60.0, "late"], **NAMED)
    turn = run_turn(llm, "Hi")
    waiting = asyncio.ensure_future(anext(turn))
    await asyncio.sleep(1)
    await turn.aclose()
    done = await waiting
    assert isinstance(done, Done)
    assert done.cost is None


@pytest.mark.looptime
async def test_the_estimate_of_a_hedge_that_never_ended_has_a_price() -> None:
    slow = ScriptedLLM([5.0, "late"], **NAMED)
    quick = ScriptedLLM("now", **NAMED)
    metrics: list[Any] = []
    async with FallbackAdapter([slow, quick], hedge=Hedge(delay=0.2, max_share=1.0)) as llm:
        llm.on("metrics_collected", metrics.append)
        await run_turn(llm, "Hi").collect()
        await asyncio.sleep(1)
    (hedge,) = [m for m in metrics if m.purpose == "hedge"]
    assert hedge.estimated
    assert hedge.cost > 0
