"""One span for each reply of a realtime session, in the words of OpenTelemetry's GenAI conventions."""

from __future__ import annotations

import logging

from rejoinder import telemetry
from rejoinder._core.realtime.messages import ReplyStatus, Usage
from rejoinder.metrics import Metadata

__all__ = ["ReplySpan"]

logger = logging.getLogger("rejoinder")

ATTR_OUTCOME = "rejoinder.realtime.outcome"
"""How the reply ended; see `rejoinder.llm.realtime.ReplyStatus`."""
ATTR_ASKED = "rejoinder.realtime.asked_for"
"""Whether the application asked for the reply."""


class ReplySpan:
    """The span ``realtime_reply``, from the first event of a reply to its end. It is never the
    current span, because a session runs concurrently with the application's own work.

    An error in the tracer loses the span, never the reply.
    """

    def __init__(self, names: Metadata, reply_id: str, *, asked: bool) -> None:
        self._span = None
        try:
            self._span = telemetry.tracer().start_span("realtime_reply")
            self._span.set_attributes(
                {
                    telemetry.ATTR_GEN_AI_OPERATION_NAME: "chat",
                    telemetry.ATTR_GEN_AI_PROVIDER_NAME: names.model_provider or "",
                    telemetry.ATTR_GEN_AI_REQUEST_MODEL: names.model_name or "",
                    telemetry.ATTR_PROVIDER_REQUEST_IDS: [reply_id],
                    ATTR_ASKED: asked,
                }
            )
        except Exception:
            logger.exception("a span of a realtime reply could not be started")

    def end(self, status: ReplyStatus, usage: Usage | None) -> None:
        """Idempotent."""
        span, self._span = self._span, None
        if span is None:
            return
        try:
            if usage is not None:
                span.set_attributes(
                    {
                        telemetry.ATTR_GEN_AI_USAGE_INPUT_TOKENS: usage.input_tokens,
                        telemetry.ATTR_GEN_AI_USAGE_OUTPUT_TOKENS: usage.output_tokens,
                    }
                )
            span.set_attribute(ATTR_OUTCOME, status)
            if status == "failed":
                span.set_attribute(telemetry.ATTR_EXCEPTION_TYPE, "RealtimeError")
            span.end()
        except Exception:
            logger.exception("a span of a realtime reply could not be ended")
