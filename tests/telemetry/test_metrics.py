"""Histograms: what they measure, and under which names."""

from __future__ import annotations

from typing import Any, get_args, get_type_hints

import pytest
from opentelemetry.semconv._incubating.attributes import gen_ai_attributes, mcp_attributes
from opentelemetry.semconv._incubating.metrics import gen_ai_metrics, mcp_metrics
from opentelemetry.semconv.attributes import (
    error_attributes,
    exception_attributes,
    http_attributes,
    server_attributes,
)

from rejoinder import telemetry
from rejoinder._core.race import Tell
from rejoinder.errors import APIStatusError, APITimeoutError
from rejoinder.llm import ChatContext, CompletionUsage
from rejoinder.telemetry import _recorders, names
from rejoinder.telemetry._configured import meter_provider
from rejoinder.testing import ScriptedLLM
from rejoinder.types import APIConnectOptions
from telemetry.recorded import Recorded

USAGE = CompletionUsage(prompt_tokens=100, completion_tokens=7, total_tokens=107)


def question() -> ChatContext:
    context = ChatContext.empty()
    context.add_message(role="user", content="Hi")
    return context


@pytest.mark.looptime
async def test_the_times_of_a_reply(recorded: Recorded) -> None:
    from rejoinder.llm import ChoiceDelta

    thought = ChoiceDelta(role="assistant", thinking="hm")
    llm = ScriptedLLM([1.0, thought, 2.0, "a", 0.5, "b", 0.5, "c", USAGE], model="m", provider="p")
    await llm.chat(chat_ctx=question()).collect()

    def only(name: str) -> tuple[dict[str, Any], Any]:
        (point,) = recorded.points(name)
        return point

    common = {
        "gen_ai.operation.name": "chat",
        "gen_ai.provider.name": "p",
        "gen_ai.request.model": "m",
    }
    told, duration = only("gen_ai.client.operation.duration")
    assert told == common | {"rejoinder.purpose": "reply"}
    assert duration.sum == pytest.approx(4.0)
    assert only("gen_ai.client.operation.time_to_first_chunk")[1].sum == pytest.approx(1.0)
    assert only("rejoinder.client.operation.time_to_first_token")[1].sum == pytest.approx(3.0)
    told, between = only("gen_ai.client.operation.time_per_output_chunk")
    assert told == common
    assert between.sum == pytest.approx(3.0)
    assert between.max == pytest.approx(2.0)
    tokens = {
        a["gen_ai.token.type"]: p.sum for a, p in recorded.points("gen_ai.client.token.usage")
    }
    assert tokens == {"input": 100, "output": 7}
    span = recorded.named("llm_request")[0].attributes or {}
    assert span["gen_ai.response.time_to_first_chunk"] == pytest.approx(1.0)


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (APIStatusError("no", status_code=429), "429"),
        (APITimeoutError("late"), "timeout"),
        (ValueError("bug"), "ValueError"),
    ],
)
async def test_failures_by_kind(recorded: Recorded, error: Exception, kind: str) -> None:
    llm = ScriptedLLM(error)
    with pytest.raises(type(error)):
        await llm.chat(chat_ctx=question(), conn_options=APIConnectOptions(max_retry=0)).collect()
    ((told, _),) = recorded.points("gen_ai.client.operation.duration")
    assert told["error.type"] == kind


async def test_a_long_reply_keeps_few_times(recorded: Recorded) -> None:
    await ScriptedLLM(["a"] * 2_000).chat(chat_ctx=question()).collect()
    ((_, between),) = recorded.points("gen_ai.client.operation.time_per_output_chunk")
    assert between.count == 1_999


async def test_metrics_that_break_cost_no_reply(caplog: pytest.LogCaptureFixture) -> None:
    class Broken:
        def get_meter(self, *_: Any, **__: Any) -> Any:
            return self

        def create_histogram(self, *_: Any, **__: Any) -> Any:
            raise RuntimeError("the reader is broken")

    provider: Any = Broken()
    meter_provider.given = provider
    try:
        assert (await ScriptedLLM("fine").chat(chat_ctx=question()).collect()).text == "fine"
    finally:
        telemetry.set_meter_provider(None)
    assert "the reader is broken" in caplog.text


def test_nothing_is_recorded_where_nothing_is_configured() -> None:
    assert _recorders.recorders() is None


# Names of the repository of the conventions for generative AI, which the installed package, the
# last one of the general repository that holds them, does not know.
NEWER = {
    "gen_ai.request.reasoning.level",
    "gen_ai.usage.cache_write.input_tokens",
    "gen_ai.usage.audio.input_tokens",
    "gen_ai.usage.audio.output_tokens",
    "gen_ai.usage.text.input_tokens",
    "gen_ai.usage.text.output_tokens",
    "gen_ai.execute_tool.duration",
    "gen_ai.invoke_agent.duration",
}


def test_names_are_those_of_the_conventions() -> None:
    modules: tuple[Any, ...] = (
        *(gen_ai_attributes, mcp_attributes, gen_ai_metrics, mcp_metrics),
        *(error_attributes, exception_attributes, http_attributes, server_attributes),
    )
    known = {value for m in modules for value in vars(m).values() if isinstance(value, str)}
    events = {
        value
        for name, value in vars(names).items()
        if name.startswith("EVENT_") and isinstance(value, str)
    }
    ours: set[str] = set()
    for name, value in vars(names).items():
        if name.startswith("ATTR_"):
            ours.add(value)
        elif isinstance(value, tuple) and isinstance(value[0], str):
            ours.add(value[0])
    foreign = {n for n in ours - events if not n.startswith(("rejoinder.", "lk.", "langfuse."))}
    assert foreign - known == NEWER


def test_every_word_of_a_fallback_has_an_event() -> None:
    events = get_args(get_type_hints(Tell)["event"])
    assert names.EVENT_FALLBACK.keys() == set(events)
