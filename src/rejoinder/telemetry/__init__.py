"""Traces and metrics, by OpenTelemetry's conventions for generative AI.

A turn is one trace: ``agent_turn``, in it ``llm_request`` for each reply (below
``llm_fallback_adapter`` for each model that a `FallbackAdapter` asks), in that ``llm_request_run``
for each attempt, and ``function_tool`` for each tool, with the call of an MCP server in it. The
names are those of LiveKit Agents 1.2.17; the attributes are its own and those of today's conventions
(`names`).

Content is recorded only if `capture_content` or the environment variable
``OTEL_INSTRUMENTATION_GENAI_CAPTURE_MESSAGE_CONTENT`` allows it: messages, arguments and outputs of
tools, and error texts, after `redact_content`.

This room is the only importer of opentelemetry, and imports it once the application has done so, or an
environment variable names a provider (`_configured`).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from rejoinder._late import late_names
from rejoinder._options import checked
from rejoinder.telemetry._content import MODE, captured, redact_content, set_capture
from rejoinder.telemetry._propagation import (
    TRACE_FIELDS,
    propagate,
    reaches_mcp,
    trace_headers,
)
from rejoinder.telemetry._spans import (
    AttemptSpan,
    McpSpan,
    RequestSpan,
    Span,
    ToolSpan,
    TurnSpan,
    provider_name,
    start_anew,
)

if TYPE_CHECKING:
    from rejoinder.telemetry._providers import set_meter_provider, set_tracer_provider, tracer

__all__ = [
    "TRACE_FIELDS",
    "AttemptSpan",
    "McpSpan",
    "RequestSpan",
    "Span",
    "ToolSpan",
    "TurnSpan",
    "capture_content",
    "content_captured",
    "propagate",
    "provider_name",
    "reaches_mcp",
    "redact_content",
    "set_meter_provider",
    "set_tracer_provider",
    "start_anew",
    "trace_headers",
    "tracer",
]


@checked(on=MODE)
def capture_content(on: bool | str | None) -> None:
    """Set whether spans record content; ``None`` leaves it to the environment variable.

    Args:
        on: ``"SPAN_ONLY"``: as attributes, which today's tools read. ``"EVENT_ONLY"``: as span
            events, like LiveKit Agents 1.2.17. ``True`` or ``"SPAN_AND_EVENT"``: both. ``False`` or
            ``"NO_CONTENT"``: never.
    """
    set_capture(on)


def content_captured() -> bool:
    """Whether content is recorded."""
    return bool(captured())


__getattr__, __dir__ = late_names(
    __name__,
    dict.fromkeys(("set_meter_provider", "set_tracer_provider", "tracer"), "_providers"),
)
