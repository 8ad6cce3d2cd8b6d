"""OpenTelemetry providers that the application sets for this package, instead of the global ones."""

from __future__ import annotations

import functools

from opentelemetry import metrics, trace

from rejoinder._options import checked
from rejoinder.telemetry._configured import meter_provider, tracer_provider

__all__ = ["set_meter_provider", "set_tracer_provider", "tracer"]


@checked()
def set_tracer_provider(provider: trace.TracerProvider | None) -> None:
    """Send the spans of this package to `provider`; ``None`` restores the global one."""
    tracer_provider.given = provider


@checked()
def set_meter_provider(provider: metrics.MeterProvider | None) -> None:
    """Send the metrics of this package to `provider`; ``None`` restores the global one."""
    meter_provider.given = provider


def tracer() -> trace.Tracer:
    """The tracer of the current provider."""
    provider = tracer_provider.given
    return _global_tracer() if provider is None else provider.get_tracer("rejoinder")


@functools.cache
def _global_tracer() -> trace.Tracer:
    """The global tracer. It is cached, because each call of `get_tracer` reads an environment variable.
    Until the application sets a provider, it is a proxy that finds the provider later."""
    return trace.get_tracer("rejoinder")
