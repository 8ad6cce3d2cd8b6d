"""The tracer and meter providers that the application has set in OpenTelemetry, if any.

An application may set a provider at any time, so each request checks. To set one, it imports
OpenTelemetry, or an environment variable names the provider. Until then, OpenTelemetry is not imported
here, which saves time and memory.

While no provider is set, OpenTelemetry's own functions read that environment variable at each call. That
costs more than all other telemetry of a request that is not recorded. So the environment variable is read
once, and later checks read the module variable in which OpenTelemetry keeps the provider. If a release
has no such module variable, its function is called.
"""

from __future__ import annotations

import os
import sys
from importlib import import_module
from typing import TYPE_CHECKING, Any, Final, Generic, TypeVar, cast

if TYPE_CHECKING:
    from opentelemetry.metrics import MeterProvider
    from opentelemetry.trace import TracerProvider

__all__ = ["is_silent", "meter_provider", "tracer_provider"]

P = TypeVar("P")


class _Configured(Generic[P]):
    """Args:
    module: of OpenTelemetry.
    ask: its function that returns the provider.
    name: its variable in which the provider is kept.
    variable: of the environment, which names a provider.

    Attributes:
        given: the provider set for this package, instead of OpenTelemetry's.
        asked: the environment variable has been read.
        names: the contents of the module; empty while OpenTelemetry is not needed.
    """

    def __init__(self, module: str, ask: str, name: str, variable: str) -> None:
        self.given: P | None = None
        self.asked = False
        self.names: dict[str, Any] = {}
        self.module: Final = module
        self.name: Final = name
        self._ask = ask
        self._variable = variable

    def __call__(self) -> P | None:
        """The provider; ``None`` if none is configured, or only a placeholder."""
        if not self.asked:
            self.asked = True
            named = self._variable in os.environ
        elif self.name in self.names:
            return cast("P | None", self.names[self.name])
        else:
            named = False
        if not self.names:
            if not named and self.module not in sys.modules:
                return None
            self.names = vars(import_module(self.module))
        return cast("P | None", self.names[self._ask]())


tracer_provider: Final[_Configured[TracerProvider]] = _Configured(
    "opentelemetry.trace",
    "get_tracer_provider",
    "_TRACER_PROVIDER",
    "OTEL_PYTHON_TRACER_PROVIDER",
)
meter_provider: Final[_Configured[MeterProvider]] = _Configured(
    "opentelemetry.metrics._internal",
    "get_meter_provider",
    "_METER_PROVIDER",
    "OTEL_PYTHON_METER_PROVIDER",
)


def is_silent() -> bool:
    """Whether it is certain that neither provider is configured. Otherwise, call both."""
    for one in (tracer_provider, meter_provider):
        if not one.asked:
            return False
        if one.names:
            if one.names.get(one.name, True) is not None:
                return False
        elif one.module in sys.modules:
            return False
    return True
