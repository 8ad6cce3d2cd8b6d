"""Traces, in the words of OpenTelemetry's GenAI conventions. The only importer of opentelemetry.

One span ``llm_request`` covers a reply, one ``llm_request_run`` each attempt, one ``function_tool``
each run of a tool (the names of LiveKit Agents 1.2.17). They are written beside the stream, never
inside it: where no tracing is configured, a reply costs two calls that do nothing.

What people and models say is not recorded unless `capture_content` says so, or the environment
variable ``OTEL_INSTRUMENTATION_GENAI_CAPTURE_MESSAGE_CONTENT`` is ``true``: then messages, tool
arguments, outputs and error texts are.
"""

from __future__ import annotations

import json
import logging
import os
import traceback
from collections.abc import Sequence
from contextvars import Token
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Self

from opentelemetry import context as otel_context
from opentelemetry import trace
from opentelemetry.trace import Status, StatusCode

from rejoinder._options import checked

if TYPE_CHECKING:
    from opentelemetry.context import Context

    from rejoinder._core.chunks import ChatChunk, FunctionToolCall
    from rejoinder._core.items import ChatItem, FunctionCall, FunctionCallOutput
    from rejoinder.metrics import LLMMetrics

__all__ = [
    "AttemptSpan",
    "RequestSpan",
    "ToolSpan",
    "capture_content",
    "content_captured",
    "set_tracer_provider",
    "tracer",
]

ATTR_GEN_AI_OPERATION_NAME = "gen_ai.operation.name"
ATTR_GEN_AI_PROVIDER_NAME = "gen_ai.provider.name"
ATTR_GEN_AI_REQUEST_MODEL = "gen_ai.request.model"
ATTR_GEN_AI_USAGE_INPUT_TOKENS = "gen_ai.usage.input_tokens"
ATTR_GEN_AI_USAGE_OUTPUT_TOKENS = "gen_ai.usage.output_tokens"
ATTR_GEN_AI_USAGE_CACHE_READ_INPUT_TOKENS = "gen_ai.usage.cache_read.input_tokens"
ATTR_LLM_METRICS = "lk.llm_metrics"
ATTR_RETRY_COUNT = "lk.retry_count"
ATTR_PROVIDER_REQUEST_IDS = "lk.provider_request_ids"
ATTR_GEN_AI_TOOL_NAME = "gen_ai.tool.name"
ATTR_GEN_AI_TOOL_CALL_ID = "gen_ai.tool.call.id"
ATTR_FUNCTION_TOOL_NAME = "lk.function_tool.name"
ATTR_FUNCTION_TOOL_ARGS = "lk.function_tool.arguments"
ATTR_FUNCTION_TOOL_OUTPUT = "lk.function_tool.output"
ATTR_FUNCTION_TOOL_IS_ERROR = "lk.function_tool.is_error"
ATTR_LANGFUSE_COMPLETION_START_TIME = "langfuse.observation.completion_start_time"
ATTR_EXCEPTION_TYPE = "exception.type"
ATTR_EXCEPTION_MESSAGE = "exception.message"
ATTR_EXCEPTION_STACKTRACE = "exception.stacktrace"
ATTR_HTTP_STATUS = "http.response.status_code"
EVENT_GEN_AI_SYSTEM_MESSAGE = "gen_ai.system.message"
EVENT_GEN_AI_USER_MESSAGE = "gen_ai.user.message"
EVENT_GEN_AI_ASSISTANT_MESSAGE = "gen_ai.assistant.message"
EVENT_GEN_AI_TOOL_MESSAGE = "gen_ai.tool.message"
EVENT_GEN_AI_CHOICE = "gen_ai.choice"

logger = logging.getLogger("rejoinder")

_MESSAGE_EVENTS = {
    "system": EVENT_GEN_AI_SYSTEM_MESSAGE,
    "developer": EVENT_GEN_AI_SYSTEM_MESSAGE,
    "user": EVENT_GEN_AI_USER_MESSAGE,
    "assistant": EVENT_GEN_AI_ASSISTANT_MESSAGE,
}

_provider: trace.TracerProvider | None = None
_capture: bool | None = None


@checked()
def set_tracer_provider(provider: trace.TracerProvider | None) -> None:
    """Send the spans of this package to `provider`; ``None`` means the global one again."""
    global _provider
    _provider = provider


def tracer() -> trace.Tracer:
    """The tracer of the provider in force now."""
    provider = _provider
    if provider is None:
        return trace.get_tracer("rejoinder")
    return provider.get_tracer("rejoinder")


@checked()
def capture_content(on: bool | None) -> None:
    """Record what is said in spans, or not; ``None`` leaves it to the environment variable."""
    global _capture
    _capture = on


def content_captured() -> bool:
    if _capture is not None:
        return _capture
    value = os.environ.get("OTEL_INSTRUMENTATION_GENAI_CAPTURE_MESSAGE_CONTENT", "")
    return value.strip().lower() in ("1", "true", "yes", "on")


def _start(name: str) -> tuple[trace.Span, Token[Context]]:
    """A span that is the current one from now on."""
    try:
        span = tracer().start_span(name)
    except Exception:
        # A sampler or a processor of the user's: it shall cost the span, and not the call.
        logger.exception("the span %r could not be started", name)
        return trace.INVALID_SPAN, otel_context.attach(otel_context.get_current())
    return span, otel_context.attach(trace.set_span_in_context(span))


def _end(span: trace.Span, token: Token[Context]) -> None:
    try:
        span.end()
    except Exception:
        logger.exception("a span could not be ended")
    otel_context.detach(token)


class RequestSpan:
    """The span of one reply, current in the task that makes it from `__init__` to `end`."""

    def __init__(
        self, *, name: str, model: str, provider: str, history: Sequence[ChatItem]
    ) -> None:
        self._content: list[str] | None = None
        self._calls: list[str] = []
        self._ids: list[str] = []
        span, self._token = _start(name)
        self._span = span
        self._recording = span.is_recording()
        if not self._recording:
            return
        span.set_attributes(
            {
                ATTR_GEN_AI_OPERATION_NAME: "chat",
                ATTR_GEN_AI_REQUEST_MODEL: model,
                ATTR_GEN_AI_PROVIDER_NAME: provider,
            }
        )
        if content_captured():
            self._content = []
            _add_history(span, history)

    @property
    def recording(self) -> bool:
        """Whether `see` has to be called for each chunk."""
        return self._recording

    def see(self, chunk: ChatChunk) -> None:
        if chunk.id and (not self._ids or self._ids[-1] != chunk.id) and len(self._ids) < 16:
            self._ids.append(chunk.id)
        content = self._content
        delta = chunk.delta
        if content is None or delta is None:
            return
        if delta.content:
            content.append(delta.content)
        self._calls.extend(_call_text(call) for call in delta.tool_calls)

    def attempt(self, number: int) -> AttemptSpan:
        return AttemptSpan(number)

    def end(
        self,
        *,
        metrics: LLMMetrics | None,
        first_token_timestamp: float | None,
        error: BaseException | None,
    ) -> None:
        span = self._span
        if self._recording:
            if metrics is not None:
                span.set_attributes(
                    {
                        ATTR_LLM_METRICS: metrics.model_dump_json(),
                        ATTR_GEN_AI_USAGE_INPUT_TOKENS: metrics.prompt_tokens,
                        ATTR_GEN_AI_USAGE_OUTPUT_TOKENS: metrics.completion_tokens,
                        ATTR_GEN_AI_USAGE_CACHE_READ_INPUT_TOKENS: metrics.prompt_cached_tokens,
                    }
                )
            if self._ids:
                span.set_attribute(ATTR_PROVIDER_REQUEST_IDS, self._ids)
            if first_token_timestamp is not None:
                moment = datetime.fromtimestamp(first_token_timestamp, tz=UTC).isoformat()
                span.set_attribute(ATTR_LANGFUSE_COMPLETION_START_TIME, f'"{moment}"')
            if self._content is not None and metrics is not None:
                attributes: dict[str, Any] = {"role": "assistant"}
                if self._content:
                    attributes["content"] = "".join(self._content)
                if self._calls:
                    attributes["tool_calls"] = self._calls
                span.add_event(EVENT_GEN_AI_CHOICE, attributes)
            if error is not None:
                _record_error(span, error)
        _end(span, self._token)


class AttemptSpan:
    """The span of one attempt; a context manager that notes what the attempt raised, once."""

    def __init__(self, number: int) -> None:
        self._number = number

    def __enter__(self) -> Self:
        span, self._token = _start("llm_request_run")
        self._span = span
        if span.is_recording():
            span.set_attribute(ATTR_RETRY_COUNT, self._number)
        return self

    def __exit__(self, exc_type: object, exc: BaseException | None, tb: object) -> None:
        if isinstance(exc, Exception) and self._span.is_recording():
            _record_error(self._span, exc)
        _end(self._span, self._token)


class ToolSpan:
    """The span of one tool run; a context manager."""

    def __init__(self, call: FunctionCall) -> None:
        self._call = call

    def __enter__(self) -> Self:
        span, self._token = _start("function_tool")
        self._span = span
        if span.is_recording():
            span.set_attributes(
                {
                    ATTR_GEN_AI_OPERATION_NAME: "execute_tool",
                    ATTR_GEN_AI_TOOL_NAME: self._call.name,
                    ATTR_GEN_AI_TOOL_CALL_ID: self._call.call_id,
                    ATTR_FUNCTION_TOOL_NAME: self._call.name,
                }
            )
        return self

    def end(self, output: FunctionCallOutput, error: BaseException | None) -> None:
        """What came of the call."""
        span = self._span
        if not span.is_recording():
            return
        span.set_attribute(ATTR_FUNCTION_TOOL_IS_ERROR, output.is_error)
        if content_captured():
            span.set_attribute(ATTR_FUNCTION_TOOL_ARGS, self._call.arguments)
            span.set_attribute(ATTR_FUNCTION_TOOL_OUTPUT, output.output)
        if error is not None and output.is_error:
            _record_error(span, error)

    def __exit__(self, exc_type: object, exc: BaseException | None, tb: object) -> None:
        _end(self._span, self._token)


def _record_error(span: trace.Span, error: BaseException) -> None:
    attributes: dict[str, Any] = {ATTR_EXCEPTION_TYPE: type(error).__name__}
    status = getattr(error, "status_code", None)
    if isinstance(status, int) and status >= 0:
        attributes[ATTR_HTTP_STATUS] = status
    if content_captured():
        # Providers echo parts of the request in their error texts.
        attributes[ATTR_EXCEPTION_MESSAGE] = str(error)
        attributes[ATTR_EXCEPTION_STACKTRACE] = "".join(traceback.format_exception(error))
    span.set_attributes(attributes)
    span.add_event("exception", attributes)
    span.set_status(Status(StatusCode.ERROR, type(error).__name__))


def _add_history(span: trace.Span, history: Sequence[ChatItem]) -> None:
    for item in history:
        if item.type == "message":
            span.add_event(_MESSAGE_EVENTS[item.role], {"content": item.text_content or ""})
        elif item.type == "function_call":
            span.add_event(
                EVENT_GEN_AI_ASSISTANT_MESSAGE,
                {"role": "assistant", "tool_calls": [_call_text(item)]},
            )
        elif item.type == "function_call_output":
            span.add_event(
                EVENT_GEN_AI_TOOL_MESSAGE,
                {"content": item.output, "name": item.name, "id": item.call_id},
            )


def _call_text(call: FunctionToolCall | FunctionCall) -> str:
    return json.dumps(
        {
            "function": {"name": call.name, "arguments": call.arguments},
            "id": call.call_id,
            "type": "function",
        }
    )
