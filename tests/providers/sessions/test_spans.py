"""The span of each reply of a realtime session."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import get_current_span

from providers.sessions.driving import read, talking
from rejoinder import telemetry
from rejoinder.testing import RealtimeFault, RealtimeServer, ServerReply


@pytest.fixture
def spans() -> Iterator[InMemorySpanExporter]:
    exporter = InMemorySpanExporter()
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    telemetry.set_tracer_provider(provider)
    yield exporter
    telemetry.set_tracer_provider(None)


async def until(condition: Callable[[], object]) -> None:
    while not condition():
        await asyncio.sleep(0.001)


def attributes(span: ReadableSpan) -> dict[str, Any]:
    return dict(span.attributes or {})


async def test_a_reply_is_one_span(server: RealtimeServer, spans: InMemorySpanExporter) -> None:
    server.say("A secret.")
    async with talking(server) as (session, _):
        reply = await session.generate_reply()
        assert not get_current_span().is_recording(), "the session runs beside the application"
        await read(reply)
        assert await reply.outcome == "completed"  # type: ignore[misc]
        [span] = spans.get_finished_spans()
        found = attributes(span)
        assert span.name == "realtime_reply"
        assert found["gen_ai.request.model"] == session.realtime_model.model
        assert found["gen_ai.usage.input_tokens"] == 20
        assert found["gen_ai.usage.output_tokens"] == 10
        assert found["rejoinder.realtime.outcome"] == "completed"
        assert found["rejoinder.realtime.asked_for"] is True
        assert "secret" not in str(found)


async def test_a_reply_of_the_service_was_not_asked_for(
    server: RealtimeServer, spans: InMemorySpanExporter
) -> None:
    async with talking(server) as (session, seen):
        await session.connected()
        await server.connections[0].begin_reply(ServerReply(["Hello."]))
        await until(spans.get_finished_spans)
        [span] = spans.get_finished_spans()
        assert attributes(span)["rejoinder.realtime.asked_for"] is False
        assert len(seen.named("generation_created")) == 1


async def test_an_interrupted_reply_says_so(
    server: RealtimeServer, spans: InMemorySpanExporter
) -> None:
    server.reply(ServerReply(["Hello."], hold=True))
    async with talking(server) as (session, _):
        reply = await session.generate_reply()
        session.interrupt()
        await read(reply)
        await until(spans.get_finished_spans)
        [span] = spans.get_finished_spans()
        assert attributes(span)["rejoinder.realtime.outcome"] == "interrupted"


@pytest.mark.parametrize("fault", [RealtimeFault.FAILED, RealtimeFault.DROP_MID_REPLY])
async def test_a_failed_reply_says_so(
    server: RealtimeServer, spans: InMemorySpanExporter, fault: RealtimeFault
) -> None:
    server.fault(fault)
    server.say("Hello there.")
    async with talking(server) as (session, _):
        await read(await session.generate_reply())
        await until(spans.get_finished_spans)
        [span] = spans.get_finished_spans()
        assert attributes(span)["rejoinder.realtime.outcome"] == "failed"
        assert attributes(span)["exception.type"] == "RealtimeError"


async def test_closing_ends_the_span(server: RealtimeServer, spans: InMemorySpanExporter) -> None:
    server.reply(ServerReply(["Hello."], hold=True))
    async with talking(server) as (session, _):
        await session.generate_reply()
    [span] = spans.get_finished_spans()
    assert attributes(span)["rejoinder.realtime.outcome"] == "failed"


class BrokenTracer(TracerProvider):
    def get_tracer(self, *args: Any, **kwargs: Any) -> Any:
        raise RuntimeError("no tracer today")


async def test_a_broken_tracer_costs_the_span_and_no_reply(server: RealtimeServer) -> None:
    server.say("Hello.")
    telemetry.set_tracer_provider(BrokenTracer())
    try:
        async with talking(server) as (session, _):
            assert (await read(await session.generate_reply()))[0] == "Hello."
    finally:
        telemetry.set_tracer_provider(None)
