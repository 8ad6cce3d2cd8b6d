"""The providers that the application has given to OpenTelemetry, if it has.

An application may do so at any time, so this is asked for each request. OpenTelemetry's own functions
read an environment variable each time as long as no provider is set, which costs more than all
other work for telemetry in a request that is not recorded. So each is called once, for the variable; from
then on the variable in which its module keeps the provider decides. Where a release has no such name,
the function is called as before.
"""

from __future__ import annotations

from collections.abc import Callable
from types import ModuleType
from typing import Any, Final, Generic, TypeVar, cast

from opentelemetry import metrics, trace
from opentelemetry.metrics import _internal as metrics_module

__all__ = ["is_silent", "meter_provider", "tracer_provider"]

P = TypeVar("P")


class _Configured(Generic[P]):
    def __init__(self, ask: Callable[[], P], module: ModuleType, name: str) -> None:
        self._ask = ask
        self.names: Final[dict[str, Any]] = vars(module)
        self.name = name
        self.asked = False

    def __call__(self) -> P | None:
        """The provider; ``None`` if none is configured, or only a placeholder."""
        if self.asked and self.name in self.names:
            return cast("P | None", self.names[self.name])
        self.asked = True
        return self._ask()


tracer_provider: Final = _Configured(trace.get_tracer_provider, trace, "_TRACER_PROVIDER")
meter_provider: Final = _Configured(metrics.get_meter_provider, metrics_module, "_METER_PROVIDER")


def is_silent() -> bool:
    """Whether it is certain that neither provider is configured; both have to be asked otherwise."""
    return (
        tracer_provider.asked
        and meter_provider.asked
        and tracer_provider.names.get(tracer_provider.name, True) is None
        and meter_provider.names.get(meter_provider.name, True) is None
    )
