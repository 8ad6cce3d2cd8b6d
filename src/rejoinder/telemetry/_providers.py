"""The providers that the application gives to this package, instead of OpenTelemetry's own."""

from __future__ import annotations

import functools

from opentelemetry import metrics, trace

from rejoinder._options import checked
from rejoinder.telemetry._configured import meter_provider, tracer_provider

__all__ = ["set_meter_provider", "set_tracer_provider", "tracer"]


@checked()
def set_tracer_provider(provider: trace.TracerProvider | None) -> None:
    """Send the spans of this package to `provider`; ``None`` means the global one again."""
    tracer_provider.given = provider


@checked()
def set_meter_provider(provider: metrics.MeterProvider | None) -> None:
    """Send the metrics of this package to `provider`; ``None`` means the global one again."""
    meter_provider.given = provider


def tracer() -> trace.Tracer:
    """The tracer of the provider in force now."""
    provider = tracer_provider.given
    return _global_tracer() if provider is None else provider.get_tracer("rejoinder")


@functools.cache
def _global_tracer() -> trace.Tracer:
    """Until the application sets its provider this is a proxy, which finds the provider itself: asking
    for it once more at each span reads an environment variable every time."""
    return trace.get_tracer("rejoinder")
