"""One span for each reply of a realtime session, by OpenTelemetry's conventions for generative AI."""

from __future__ import annotations

import logging
from typing import Any

from rejoinder import telemetry
from rejoinder._core.realtime.messages import ReplyStatus, Usage
from rejoinder.metrics import Metadata
from rejoinder.telemetry import names

__all__ = ["ReplySpan"]

logger = logging.getLogger("rejoinder")


class ReplySpan:
    """The span ``realtime_reply``, from the first event of a reply to its end. It is never the
    current span, because a session runs concurrently with the application's own work.

    An error in the tracer loses the span, never the reply.
    """

    def __init__(self, metadata: Metadata, reply_id: str, *, asked: bool) -> None:
        self._span: telemetry.Span | None = telemetry.Span(
            names.SPAN_REALTIME_REPLY,
            {
                names.ATTR_GEN_AI_OPERATION_NAME: names.REALTIME_INFERENCE,
                names.ATTR_GEN_AI_PROVIDER_NAME: telemetry.provider_name(
                    metadata.model_provider or "unknown"
                ),
                names.ATTR_GEN_AI_REQUEST_MODEL: metadata.model_name or "unknown",
                names.ATTR_GEN_AI_RESPONSE_ID: reply_id,
                names.ATTR_PROVIDER_REQUEST_IDS: [reply_id],
                names.ATTR_REALTIME_ASKED: asked,
            },
            remote=True,
        )

    def end(self, status: ReplyStatus, usage: Usage | None) -> None:
        """Idempotent."""
        span, self._span = self._span, None
        if span is None:
            return
        attributes: dict[str, Any] = {names.ATTR_REALTIME_OUTCOME: status}
        if usage is not None:
            attributes |= {
                names.ATTR_GEN_AI_USAGE_INPUT_TOKENS: usage.input_tokens,
                names.ATTR_GEN_AI_USAGE_OUTPUT_TOKENS: usage.output_tokens,
            }
            given, made = usage.input_details, usage.output_details
            for name, count in (
                (names.ATTR_GEN_AI_USAGE_CACHE_READ_INPUT_TOKENS, given.cached_tokens),
                (names.ATTR_GEN_AI_USAGE_AUDIO_INPUT_TOKENS, given.audio_tokens),
                (names.ATTR_GEN_AI_USAGE_TEXT_INPUT_TOKENS, given.text_tokens),
                (names.ATTR_GEN_AI_USAGE_AUDIO_OUTPUT_TOKENS, made.audio_tokens),
                (names.ATTR_GEN_AI_USAGE_TEXT_OUTPUT_TOKENS, made.text_tokens),
            ):
                if count:
                    attributes[name] = count
        span.set(attributes)
        if status == "failed":
            span.set({names.ATTR_EXCEPTION_TYPE: "RealtimeError"})
            span.fail_as("RealtimeError")
        span.end()
