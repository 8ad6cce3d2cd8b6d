"""The histograms, and where they are recorded."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any, Final

from rejoinder.telemetry._configured import meter_provider

if TYPE_CHECKING:
    from opentelemetry import metrics

__all__ = ["Recorders", "recorders"]

logger = logging.getLogger("rejoinder")

_API: Final = "opentelemetry.metrics"
"""Providers from this module record nothing: they stand for a provider that is not configured."""

_made: tuple[metrics.MeterProvider, Recorders] | None = None


class Recorders:
    """The instruments of one provider. Their errors are logged and have no other effect."""

    def __init__(self, provider: metrics.MeterProvider) -> None:
        self._meter = provider.get_meter("rejoinder")
        self._instruments: dict[str, metrics.Histogram] = {}

    def record(
        self,
        what: tuple[str, str, str, tuple[float, ...]],
        values: Iterable[float],
        attributes: Mapping[str, Any],
    ) -> None:
        """Record `values` of a histogram of `names`."""
        name, unit, description, bounds = what
        try:
            instrument = self._instruments.get(name)
            if instrument is None:
                instrument = self._instruments[name] = self._meter.create_histogram(
                    name,
                    unit=unit,
                    description=description,
                    explicit_bucket_boundaries_advisory=list(bounds),
                )
            for value in values:
                instrument.record(value, attributes)
        except Exception:  # an error of the user's view or reader
            logger.exception("the metric %r could not be recorded", name)


def recorders() -> Recorders | None:
    """The instruments of the current provider; ``None`` if nothing is recorded."""
    global _made
    given = meter_provider.given
    provider = given if given is not None else meter_provider()
    if provider is None:
        return None
    made = _made
    if made is not None and made[0] is provider:
        return made[1]
    if type(provider).__module__.startswith(_API):
        return None  # the provider records nothing
    try:
        found = Recorders(provider)
    except Exception:
        logger.exception("no metrics: the meter provider failed")
        return None
    _made = provider, found
    return found
