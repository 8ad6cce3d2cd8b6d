"""Spans and metrics of a test, kept in memory."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from rejoinder import telemetry


class Recorded:
    def __init__(self) -> None:
        self.exporter = InMemorySpanExporter()
        self.reader = InMemoryMetricReader()

    @property
    def spans(self) -> list[ReadableSpan]:
        """In the order of their starts."""
        return sorted(self.exporter.get_finished_spans(), key=lambda span: span.start_time or 0)

    def named(self, name: str) -> list[ReadableSpan]:
        return [span for span in self.spans if span.name == name]

    def tree(self) -> list[Any]:
        """Names of spans as nested lists: a name, then its children."""
        nodes: dict[int, list[Any]] = {span.context.span_id: [span.name] for span in self.spans}
        roots: list[Any] = []
        for span in self.spans:
            node = nodes[span.context.span_id]
            (roots if span.parent is None else nodes[span.parent.span_id]).append(node)
        return roots

    def points(self, name: str) -> list[tuple[dict[str, Any], Any]]:
        """Attributes and data point of a histogram."""
        data = self.reader.get_metrics_data()
        return [
            (dict(point.attributes), point)
            for resource in (data.resource_metrics if data is not None else ())
            for scope in resource.scope_metrics
            for metric in scope.metrics
            if metric.name == name
            for point in metric.data.data_points
        ]

    def everything(self) -> str:
        data = self.reader.get_metrics_data()
        shown = "" if data is None else data.to_json()
        return shown + "".join(span.to_json() for span in self.spans)


@contextmanager
def recording() -> Iterator[Recorded]:
    found = Recorded()
    spans = TracerProvider()
    spans.add_span_processor(SimpleSpanProcessor(found.exporter))
    meters = MeterProvider(metric_readers=[found.reader], shutdown_on_exit=False)
    telemetry.set_tracer_provider(spans)
    telemetry.set_meter_provider(meters)
    try:
        yield found
    finally:
        telemetry.set_tracer_provider(None)
        telemetry.set_meter_provider(None)
        telemetry.capture_content(None)
        telemetry.redact_content(None)
        telemetry.propagate()
