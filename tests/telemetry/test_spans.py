"""Spans: what they say, and what they keep to themselves."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from typing import Any

import pytest
from opentelemetry.sdk.trace import ReadableSpan, SpanProcessor, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from rejoinder import telemetry
from rejoinder._core.chunks import ChatChunk, ChoiceDelta, CompletionUsage, FunctionToolCall
from rejoinder._core.items import FunctionCall, FunctionCallOutput
from rejoinder.errors import APIStatusError
from rejoinder.llm import LLM, ChatContext, LLMStream, ToolContext, function_tool
from rejoinder.llm._execution import execute_function_call
from rejoinder.types import APIConnectOptions


@pytest.fixture
def spans() -> Iterator[InMemorySpanExporter]:
    exporter = InMemorySpanExporter()
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    telemetry.set_tracer_provider(provider)
    yield exporter
    telemetry.set_tracer_provider(None)
    telemetry.capture_content(None)


class Model(LLM[Any]):
    def __init__(self, *, fails: int = 0) -> None:
        super().__init__()
        self.fails = fails

    @property
    def model(self) -> str:
        return "m-1"

    @property
    def provider(self) -> str:
        return "p"

    def chat(self, *, chat_ctx: ChatContext, **_: Any) -> LLMStream:
        options = APIConnectOptions(retry_interval=0)
        return Stream(self, chat_ctx=chat_ctx, tools=[], conn_options=options)


class Stream(LLMStream):
    async def _run(self) -> None:
        assert isinstance(self._llm, Model)
        if self._llm.fails:
            self._llm.fails -= 1
            raise APIStatusError("SECRET in an error", status_code=503)
        call = FunctionToolCall(name="f", arguments='{"a": "SECRET"}', call_id="c9")
        send = self._event_ch.send_nowait
        send(ChatChunk(id="id1", delta=ChoiceDelta(role="assistant", content="SECRET ")))
        send(ChatChunk(id="id1", delta=ChoiceDelta(content="reply", tool_calls=[call])))
        usage = CompletionUsage(
            completion_tokens=2, prompt_tokens=5, prompt_cached_tokens=3, total_tokens=7
        )
        send(ChatChunk(id="id2", usage=usage))


def conversation() -> ChatContext:
    context = ChatContext.empty()
    context.add_message(role="system", content="SECRET system")
    context.add_message(role="developer", content="SECRET developer")
    context.add_message(role="user", content="SECRET user")
    context.insert(
        [
            FunctionCall(call_id="c1", name="f", arguments='{"x": "SECRET"}'),
            FunctionCallOutput(call_id="c1", name="f", output="SECRET output", is_error=False),
        ]
    )
    return context


def by_name(exporter: InMemorySpanExporter) -> dict[str, ReadableSpan]:
    return {span.name: span for span in exporter.get_finished_spans()}


async def test_a_reply_without_its_words(spans: InMemorySpanExporter) -> None:
    await Model().chat(chat_ctx=conversation()).collect()
    found = by_name(spans)
    request, run = found["llm_request"], found["llm_request_run"]
    assert run.parent is not None
    assert run.parent.span_id == request.context.span_id
    assert request.attributes is not None
    assert request.attributes["gen_ai.operation.name"] == "chat"
    assert request.attributes["gen_ai.request.model"] == "m-1"
    assert request.attributes["gen_ai.provider.name"] == "p"
    assert request.attributes["gen_ai.usage.input_tokens"] == 5
    assert request.attributes["gen_ai.usage.output_tokens"] == 2
    assert request.attributes["gen_ai.usage.cache_read.input_tokens"] == 3
    assert request.attributes["lk.provider_request_ids"] == ("id1", "id2")
    assert json.loads(str(request.attributes["lk.llm_metrics"]))["total_tokens"] == 7
    start = str(request.attributes["langfuse.observation.completion_start_time"])
    assert start.startswith(chr(34) + "20")
    assert run.attributes == {"lk.retry_count": 0}
    assert "SECRET" not in request.to_json() + run.to_json()


async def test_the_words_when_asked_for(spans: InMemorySpanExporter) -> None:
    telemetry.capture_content(True)
    await Model().chat(chat_ctx=conversation()).collect()
    request = by_name(spans)["llm_request"]
    events = [(event.name, dict(event.attributes or {})) for event in request.events]
    call = {
        "function": {"name": "f", "arguments": '{"x": "SECRET"}'},
        "id": "c1",
        "type": "function",
    }
    assert events[:5] == [
        ("gen_ai.system.message", {"content": "SECRET system"}),
        ("gen_ai.system.message", {"content": "SECRET developer"}),
        ("gen_ai.user.message", {"content": "SECRET user"}),
        (
            "gen_ai.assistant.message",
            {"role": "assistant", "tool_calls": (json.dumps(call),)},
        ),
        ("gen_ai.tool.message", {"content": "SECRET output", "name": "f", "id": "c1"}),
    ]
    name, choice = events[5]
    assert name == "gen_ai.choice"
    assert choice["content"] == "SECRET reply"
    assert json.loads(choice["tool_calls"][0])["id"] == "c9"


async def test_the_environment_can_ask_for_the_words(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTEL_INSTRUMENTATION_GENAI_CAPTURE_MESSAGE_CONTENT", "TRUE")
    assert telemetry.content_captured()
    telemetry.capture_content(False)
    assert not telemetry.content_captured()
    telemetry.capture_content(None)
    monkeypatch.delenv("OTEL_INSTRUMENTATION_GENAI_CAPTURE_MESSAGE_CONTENT")
    assert not telemetry.content_captured()


@pytest.mark.parametrize("captured", [False, True])
async def test_each_failed_attempt_is_noted_once(
    spans: InMemorySpanExporter, captured: bool
) -> None:
    telemetry.capture_content(captured)
    await Model(fails=1).chat(chat_ctx=conversation()).collect()
    runs = [span for span in spans.get_finished_spans() if span.name == "llm_request_run"]
    failed, good = runs
    assert failed.attributes is not None
    assert good.attributes == {"lk.retry_count": 1}
    assert failed.attributes["exception.type"] == "APIStatusError"
    assert failed.attributes["http.response.status_code"] == 503
    assert [event.name for event in failed.events] == ["exception"]
    assert not failed.status.is_ok
    assert ("SECRET" in failed.to_json()) is captured


async def test_a_failed_reply_ends_its_span_with_the_error(spans: InMemorySpanExporter) -> None:
    stream = Model(fails=99).chat(chat_ctx=conversation())
    with pytest.raises(Exception, match="attempts"):
        async for _ in stream:
            pass
    request = by_name(spans)["llm_request"]  # nobody has closed the stream
    assert not request.status.is_ok
    assert request.attributes is not None
    assert request.attributes["exception.type"] == "APIConnectionError"


async def test_a_cancelled_reply_ends_its_span(spans: InMemorySpanExporter) -> None:
    class Slow(Model):
        def chat(self, *, chat_ctx: ChatContext, **_: Any) -> LLMStream:
            return SlowStream(self, chat_ctx=chat_ctx, tools=[], conn_options=APIConnectOptions())

    class SlowStream(LLMStream):
        async def _run(self) -> None:
            await asyncio.sleep(1000)

    stream = Slow().chat(chat_ctx=conversation())
    await asyncio.sleep(0)
    await stream.aclose()
    assert {"llm_request", "llm_request_run"} <= by_name(spans).keys()


class Breaks(SpanProcessor):
    def on_start(self, span: Any, parent_context: Any = None) -> None:
        raise RuntimeError("the processor is broken")

    def on_end(self, span: Any) -> None:
        raise RuntimeError("the processor is broken")


class BreaksAtTheEnd(SpanProcessor):
    def on_end(self, span: Any) -> None:
        raise RuntimeError("the processor is broken")


@pytest.mark.parametrize("processor", [Breaks, BreaksAtTheEnd])
async def test_tracing_that_breaks_costs_no_reply(
    processor: type[SpanProcessor], caplog: pytest.LogCaptureFixture
) -> None:
    provider = TracerProvider()
    provider.add_span_processor(processor())
    telemetry.set_tracer_provider(provider)
    metrics: list[Any] = []
    try:
        model = Model(fails=1)
        model.on("metrics_collected", metrics.append)
        reply = await model.chat(chat_ctx=conversation()).collect()
        result = await execute_function_call(
            FunctionCall(call_id="c", name="f", arguments="{}"), ToolContext([f])
        )
    finally:
        telemetry.set_tracer_provider(None)
    assert reply.text == "SECRET reply"
    assert len(metrics) == 1
    assert result.fnc_call_out.output == "1"
    assert "the processor is broken" in caplog.text


@function_tool
async def f() -> int:
    return 1


async def test_spans_hang_below_the_caller_s(spans: InMemorySpanExporter) -> None:
    with telemetry.tracer().start_as_current_span("turn") as turn:
        await Model().chat(chat_ctx=conversation()).collect()
    request = by_name(spans)["llm_request"]
    assert request.parent is not None
    assert request.parent.span_id == turn.get_span_context().span_id
