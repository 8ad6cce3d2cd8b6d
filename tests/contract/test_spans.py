"""What spans tell of a call: never the key, whatever goes wrong and whoever quotes it."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from contract.rows import KEY, ROWS, Row
from contract.test_faults import ask
from rejoinder import telemetry
from rejoinder.testing.faults import Answer, Fault, FaultServer
from rejoinder.types import APIConnectOptions


@pytest.fixture
def spans() -> Iterator[InMemorySpanExporter]:
    exporter = InMemorySpanExporter()
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    telemetry.set_tracer_provider(provider)
    yield exporter
    telemetry.set_tracer_provider(None)


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.name)
async def test_no_span_holds_the_key(row: Row, spans: InMemorySpanExporter) -> None:
    async with FaultServer() as server, row.make(server.url) as llm:
        server.script(
            Answer(status=401, message=f"Incorrect API key provided: {KEY}."),
            Answer(status=500, message=f"Authorization: Bearer {KEY}"),
            Answer(fault=Fault.ERROR_EVENT_MID_STREAM),
            Fault.RESET_MID_STREAM,
            Fault.NONE,
        )
        for _ in range(5):
            await ask(llm, conn_options=APIConnectOptions(max_retry=0))
    found = spans.get_finished_spans()
    assert len(found) >= 10, "a request and an attempt for each call"
    shown = "".join(span.to_json() for span in found)
    assert "llm_request" in shown
    assert KEY not in shown
