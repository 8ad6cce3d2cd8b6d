"""A span of OpenTelemetry, and the context in which it is current. Imported with the first span that is
exported."""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping
from contextvars import Token
from typing import Any, Final

from opentelemetry import context as otel_context
from opentelemetry import trace
from opentelemetry.context import Context
from opentelemetry.trace import SpanKind, Status, StatusCode

from rejoinder.telemetry._providers import tracer

__all__ = ["Recording", "leave_traces"]

logger = logging.getLogger("rejoinder")


def leave_traces() -> None:
    """Detach this task from all traces."""
    otel_context.attach(Context())


class Clock:
    """Nanoseconds since the epoch that never go back. The wall clock is read once, and the monotonic
    clock counts from there. A span shares its clock with the spans inside it, so that a change of the
    wall clock affects none of them.

    Attributes:
        stopped: the span has ended; later spans in its context read the wall clock again.
    """

    __slots__ = ("_ahead", "stopped")

    def __init__(self) -> None:
        self._ahead = time.time_ns() - time.monotonic_ns()
        self.stopped = False

    def now(self) -> int:
        return self._ahead + time.monotonic_ns()


_CLOCK: Final = "rejoinder-clock"


class Recording:
    """A span that has begun.

    Args:
        remote: the span describes a request to another process.

    Attributes:
        wanted: its attributes are recorded. A sampler may keep only its place in the trace.
    """

    __slots__ = ("_clock", "_owns_clock", "_span", "wanted")

    def __init__(self, name: str, attributes: Mapping[str, Any], *, remote: bool) -> None:
        kind = SpanKind.CLIENT if remote else SpanKind.INTERNAL
        outer = otel_context.get_value(_CLOCK)
        lent = outer if isinstance(outer, Clock) and not outer.stopped else None
        self._clock = lent or Clock()
        self._owns_clock = lent is None
        self._span: trace.Span = tracer().start_span(
            name, kind=kind, attributes=dict(attributes), start_time=self._clock.now()
        )
        self.wanted = self._span.is_recording()

    def now(self) -> int:
        """Nanoseconds since the epoch."""
        return self._clock.now()

    def attach(self) -> Token[Context]:
        """Make this the current span of the task, until `detach`."""
        context = otel_context.set_value(_CLOCK, self._clock)
        return otel_context.attach(trace.set_span_in_context(self._span, context))

    def detach(self, token: Token[Context]) -> None:
        otel_context.detach(token)

    def set(self, attributes: Mapping[str, Any]) -> None:
        self._span.set_attributes(dict(attributes))

    def event(self, name: str, attributes: Mapping[str, Any], at: int) -> None:
        self._span.add_event(name, dict(attributes), at)

    def fail(self, description: str) -> None:
        self._span.set_status(Status(StatusCode.ERROR, description))

    def end(self, at: int) -> None:
        self._span.end(at)
        self._clock.stopped = self._clock.stopped or self._owns_clock
