"""What spans, metrics and log records tell of a call: never the key, whatever goes wrong, whoever
quotes it, and whatever is recorded."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Sequence
from typing import Any

import pytest
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import (
    MetricExporter,
    MetricExportResult,
    MetricsData,
    PeriodicExportingMetricReader,
)
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor, SpanExporter, SpanExportResult

from canaries import all_records
from contract.rows import KEY, ROWS, Row
from contract.test_faults import ask
from rejoinder import telemetry
from rejoinder.testing.faults import Answer, Fault, FaultServer
from rejoinder.types import APIConnectOptions
from telemetry.recorded import recording


async def ask_badly(row: Row) -> None:
    """Five requests, with retries, of which two are answered with the key itself."""
    async with FaultServer() as server, row.make(server.url) as llm:
        server.script(
            Answer(status=401, message=f"Incorrect API key provided: {KEY}."),
            Answer(status=500, message=f"Authorization: Bearer {KEY}"),
            Answer(fault=Fault.ERROR_EVENT_MID_STREAM),
            Fault.RESET_MID_STREAM,
            Fault.NONE,
        )
        for _ in range(5):
            await ask(llm, conn_options=APIConnectOptions(max_retry=1, retry_interval=0))


@pytest.mark.parametrize("content", [False, True])
@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.name)
async def test_nothing_that_is_recorded_holds_the_key(row: Row, content: bool) -> None:
    with recording() as recorded, all_records(KEY) as logs:
        telemetry.capture_content(content)
        telemetry.propagate(http=["127.0.0.1"], mcp=True)
        await ask_badly(row)
        assert len(recorded.spans) >= 10, "a request and an attempt for each call"
        assert recorded.points("gen_ai.client.operation.duration")
        shown = recorded.everything()
    assert "llm_request" in shown
    assert KEY not in shown
    assert logs.count > 0
    assert not logs.leaks


class Fails(SpanExporter):
    """An exporter that quotes what it could not send, as some do."""

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        raise RuntimeError("cannot send " + "".join(span.to_json() for span in spans))


class FailsToo(MetricExporter):
    """The same for metrics."""

    def export(self, metrics_data: MetricsData, **_: Any) -> MetricExportResult:
        raise RuntimeError("cannot send " + metrics_data.to_json())

    def force_flush(self, timeout_millis: float = 0) -> bool:
        return True

    def shutdown(self, timeout_millis: float = 0, **_: Any) -> None:
        pass


@pytest.mark.parametrize("row", ROWS[:1], ids=lambda row: row.name)
async def test_exporters_that_fail_tell_no_key(row: Row) -> None:
    spans: Any = TracerProvider()
    spans.add_span_processor(SimpleSpanProcessor(Fails()))
    reader = PeriodicExportingMetricReader(FailsToo(), export_interval_millis=math.inf)
    meters = MeterProvider(metric_readers=[reader], shutdown_on_exit=False)
    telemetry.set_tracer_provider(spans)
    telemetry.set_meter_provider(meters)
    telemetry.capture_content(True)
    try:
        with all_records(KEY) as logs:
            await ask_badly(row)
            told = logs.count
            with contextlib.suppress(RuntimeError):
                reader.collect()
            assert logs.count > told, "what the exporter of metrics said was logged"
    finally:
        telemetry.set_tracer_provider(None)
        telemetry.set_meter_provider(None)
        telemetry.capture_content(None)
        meters.shutdown()
    assert not logs.leaks


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.name)
async def test_spans_and_histograms_tell_which_model_answered(row: Row) -> None:
    with recording() as recorded:
        async with FaultServer() as server, row.make(server.url) as llm:
            await ask(llm)
        (span,) = recorded.named("llm_request")
        ((found, _),) = recorded.points("gen_ai.client.operation.duration")
    expected = None if row.format == "bedrock" else "scripted-model"  # Bedrock does not tell
    for attributes in (dict(span.attributes or {}), found):
        assert attributes.get("gen_ai.response.model") == expected
