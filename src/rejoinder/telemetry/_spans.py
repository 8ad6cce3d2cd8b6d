"""The spans of a turn: written beside the streams, never inside them.

If nothing is recorded, no span is made: a reply costs a few calls that do nothing, a chunk no call. An
error of a tracer, a processor or an exporter is logged. It loses the span, never the reply.
"""

from __future__ import annotations

import contextlib
import functools
import logging
import sys
import traceback
from collections.abc import Callable, Generator, Mapping, Sequence
from contextvars import Token
from datetime import UTC, datetime
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final, Protocol, Self, TypeAlias
from urllib.parse import urlsplit

from rejoinder import _stamps
from rejoinder._core.hosts import known_host
from rejoinder.errors import APIStatusError, APITimeoutError
from rejoinder.telemetry import names
from rejoinder.telemetry._configured import is_silent, meter_provider, tracer_provider
from rejoinder.telemetry._content import (
    Capture,
    captured,
    input_messages,
    output_message,
    redacted,
)
from rejoinder.telemetry._legacy import add_choice, add_history
from rejoinder.telemetry._recorders import recorders

if TYPE_CHECKING:
    from opentelemetry.context import Context

    from rejoinder._core.chunks import ChatChunk, FunctionToolCall
    from rejoinder._core.items import ChatItem, FunctionCall, FunctionCallOutput
    from rejoinder.metrics import LLMMetrics
    from rejoinder.telemetry._recording import Recording

__all__ = [
    "AnyRequestSpan",
    "AttemptSpan",
    "McpSpan",
    "RequestSpan",
    "SilentRequest",
    "Span",
    "ToolSpan",
    "TurnSpan",
    "provider_name",
    "request_span",
    "start_anew",
]

logger = logging.getLogger("rejoinder")

_INTERVALS: Final = 256
"""Number of times between chunks that are collected before they are recorded."""

_API: Final = "opentelemetry.trace"
"""Providers from this module record nothing: they stand for a provider that is not configured."""


def traced() -> bool:
    """Whether spans are recorded."""
    given = tracer_provider.given
    provider = given if given is not None else tracer_provider()
    return provider is not None and not type(provider).__module__.startswith(_API)


@functools.lru_cache(maxsize=512)
def provider_name(provider: str, speaks: str = "") -> str:
    """The conventions' name of a model's provider, found by host or by name.

    Args:
        provider: the model's provider.
        speaks: the owner of its API, used as the name of an unknown server, as the conventions
            demand; the host is in ``server.address``.
    """
    host = known_host(provider)
    if host is not None:
        return host.telemetry or host.key
    return speaks or provider


class Model(Protocol):
    """The facts of an LLM that its spans hold."""

    @property
    def model(self) -> str: ...
    @property
    def provider(self) -> str: ...
    @property
    def _served_at(self) -> str: ...
    @property
    def _speaks(self) -> str: ...


@functools.lru_cache(maxsize=512)
def address_of(url: str) -> Mapping[str, Any]:
    """``server.address`` and ``server.port`` of a URL; nothing for anything else."""
    try:
        parts = urlsplit(url)
        port = parts.port or {"http": 80, "https": 443, "ws": 80, "wss": 443}.get(parts.scheme)
    except ValueError:
        return MappingProxyType({})
    if not parts.hostname or port is None:
        return MappingProxyType({})
    return MappingProxyType(
        {names.ATTR_SERVER_ADDRESS: parts.hostname, names.ATTR_SERVER_PORT: port}
    )


def error_type(error: BaseException) -> str:
    """The value of ``error.type``: a status, ``timeout``, or the name of the class."""
    if isinstance(error, APIStatusError) and error.status_code > 0:
        return str(error.status_code)
    if isinstance(error, APITimeoutError | TimeoutError):
        return "timeout"
    return type(error).__qualname__


def start_anew() -> None:
    """Let the spans of this task begin a trace of their own."""
    if "opentelemetry.context" in sys.modules:  # else there is no trace to leave
        from rejoinder.telemetry._recording import leave_traces

        leave_traces()


class Span:
    """A span that cannot fail.

    Args:
        remote: the span describes a request to another process.
    """

    def __init__(self, name: str, attributes: Mapping[str, Any], *, remote: bool = False) -> None:
        self._token: Token[Context] | None = None
        self._ended_at: int | None = None  # nanoseconds since the epoch
        self._written: Recording | None = None
        self.recording = False
        if (tracer_provider.given is None and is_silent()) or not traced():
            return
        from rejoinder.telemetry._recording import Recording

        try:
            self._written = Recording(name, attributes, remote=remote)
        except Exception:
            # An error of the user's sampler or processor must lose the span, not the call.
            logger.exception("the span %r could not be started", name)
            return
        self.recording = self._written.wanted

    def enter(self) -> None:
        """Become the current span of this task until `end`."""
        if self._written is not None:
            self._token = self._written.attach()

    def current(self) -> contextlib.AbstractContextManager[None]:
        """Be the current span of everything that is started inside."""
        return _NOTHING if self._written is None else _current(self._written)

    def set(self, attributes: Mapping[str, Any]) -> None:
        if self.recording and self._written is not None:
            self._written.set(attributes)

    def event(self, name: str, attributes: Mapping[str, Any]) -> None:
        if self.recording and self._written is not None:
            self._written.event(name, attributes, self._moment(self._written))

    def fail(self, error: BaseException) -> None:
        """Record an error. Its text is recorded only if content is."""
        written = self._written
        if not self.recording or written is None:
            return
        attributes: dict[str, Any] = {
            names.ATTR_ERROR_TYPE: error_type(error),
            names.ATTR_EXCEPTION_TYPE: type(error).__name__,
        }
        if isinstance(error, APIStatusError) and error.status_code > 0:
            attributes[names.ATTR_HTTP_STATUS] = error.status_code
        if captured():
            # Providers echo parts of the request in their error texts.
            lines = "".join(traceback.format_exception(error))
            attributes[names.ATTR_EXCEPTION_MESSAGE] = redacted(str(error))
            attributes[names.ATTR_EXCEPTION_STACKTRACE] = redacted(lines)
        written.set(attributes)
        written.event("exception", attributes, self._moment(written))
        written.fail(type(error).__name__)

    def fail_as(self, kind: str) -> None:
        """Record a failure that is not an exception."""
        if self.recording and self._written is not None:
            self._written.set({names.ATTR_ERROR_TYPE: kind})
            self._written.fail(kind)

    def _moment(self, written: Recording) -> int:
        """The time for an event that is recorded now; at most the time of the span's end."""
        return written.now() if self._ended_at is None else self._ended_at

    def leave(self) -> None:
        """Stop being the current span of this task. The described work ends now, even if `end`
        is called later."""
        written = self._written
        if written is None:
            return
        if self.recording and self._ended_at is None:
            self._ended_at = written.now()
        token, self._token = self._token, None
        if token is not None:
            written.detach(token)

    def end(self) -> None:
        """Idempotent."""
        try:
            if self._written is not None:
                self._written.end(self._moment(self._written))
        except Exception:
            logger.exception("a span could not be ended")
        self.leave()


@contextlib.contextmanager
def _current(span: Recording) -> Generator[None]:
    token = span.attach()
    try:
        yield
    finally:
        span.detach(token)


class TurnSpan(Span):
    """The span of a turn, whose trace contains all of its requests and tools.

    It is current only while the turn starts something, because between two events the caller's code
    runs in the same task.
    """

    def __init__(self, *, now: float) -> None:
        super().__init__(names.SPAN_TURN, {names.ATTR_GEN_AI_OPERATION_NAME: names.INVOKE_AGENT})
        self._started_at = now
        self._error: BaseException | None = None
        self._over = False

    def fail(self, error: BaseException) -> None:
        if self._error is None:
            self._error = error
            super().fail(error)

    def finish(self, *, reason: str, steps: int, said: Callable[[], str], now: float) -> None:
        """Idempotent. `said` returns the answer."""
        if self._over:
            return
        self._over = True
        attributes: dict[str, Any] = {names.ATTR_GEN_AI_OPERATION_NAME: names.INVOKE_AGENT}
        error = self._error
        if isinstance(error, Exception):
            attributes[names.ATTR_ERROR_TYPE] = error_type(error)
        found = recorders()
        if found is not None:
            found.record(names.TURN_DURATION, (max(0.0, now - self._started_at),), attributes)
        if self.recording:
            self.set({names.ATTR_TURN_REASON: reason, names.ATTR_TURN_STEPS: steps})
            if reason == "interrupted":
                self.set({names.ATTR_CANCELLED: True})
            if Capture.ATTRIBUTES in captured() and (text := said()):
                self.set({names.ATTR_GEN_AI_OUTPUT_MESSAGES: output_message(text, (), "", None)})
        self.end()


class RequestSpan(Span):
    """The span of one reply, current in the task that makes it from `__init__` to `finish`.

    Args:
        composed: the reply consists of other models' replies, which report their usage and content
            themselves.
        started_at: loop time of the start, which is now.
    """

    recorded = True
    """Whether its outcome is recorded."""

    def __init__(
        self,
        model: Model,
        *,
        name: str,
        history: Sequence[ChatItem],
        composed: bool,
        candidate: int | None,
        started_at: float,
    ) -> None:
        attributes: dict[str, Any] = {names.ATTR_GEN_AI_REQUEST_MODEL: model.model}
        url = model._served_at
        if composed:
            attributes[names.ATTR_GEN_AI_OPERATION_NAME] = names.INVOKE_WORKFLOW
        else:
            attributes |= {
                names.ATTR_GEN_AI_OPERATION_NAME: names.CHAT,
                names.ATTR_GEN_AI_PROVIDER_NAME: provider_name(model.provider, model._speaks),
                **address_of(url),
            }
        self._common = dict(attributes)
        if not composed:
            attributes[names.ATTR_GEN_AI_REQUEST_STREAM] = True
        if candidate is not None:
            attributes[names.ATTR_CANDIDATE] = candidate
        super().__init__(name, attributes, remote=bool(url) and not composed)
        self.enter()
        self._composed = composed
        self._recorders = None if composed else recorders()
        self._started_at, self._started_wall = started_at, _stamps.wall_now()
        self._first_at: float | None = None
        self._chunk_at: float | None = None
        self._intervals: list[float] = []
        self._text: list[str] = []
        self._thinking: list[str] = []
        self._calls: list[FunctionToolCall] = []
        self._ids: list[str] = []
        self._capture = captured() if self.recording and not composed else Capture.NOWHERE
        if Capture.ATTRIBUTES in self._capture:
            self.set({names.ATTR_GEN_AI_INPUT_MESSAGES: input_messages(history)})
        if Capture.EVENTS in self._capture:
            add_history(self.event, history)

    @property
    def sees_chunks(self) -> bool:
        """Whether `see` must be called for each chunk."""
        return (self.recording or self._recorders is not None) and not self._composed

    def asked(self, body: bytes | None) -> None:
        """Record the options of the sent body as attributes."""
        if not self.recording:
            return
        from rejoinder.telemetry._request import request_attributes

        attributes = request_attributes(body)
        if names.ATTR_GEN_AI_REQUEST_STOP_SEQUENCES in attributes:
            stops = attributes[names.ATTR_GEN_AI_REQUEST_STOP_SEQUENCES]
            attributes[names.ATTR_GEN_AI_REQUEST_STOP_SEQUENCES] = [
                redacted(text) for text in stops
            ]
        self.set(attributes)

    def see(self, chunk: ChatChunk, now: float) -> None:
        if self._chunk_at is None:
            self._first_at = now
        elif self._recorders is not None:
            self._intervals.append(now - self._chunk_at)
            if len(self._intervals) >= _INTERVALS:
                self._record_intervals()
        self._chunk_at = now
        if chunk.id and (not self._ids or self._ids[-1] != chunk.id) and len(self._ids) < 16:
            self._ids.append(chunk.id)
        delta = chunk.delta
        if not self._capture or delta is None:
            return
        if delta.content:
            self._text.append(delta.content)
        if delta.thinking:
            self._thinking.append(delta.thinking)
        self._calls.extend(delta.tool_calls)

    def _record_intervals(self) -> None:
        intervals, self._intervals = self._intervals, []
        if self._recorders is not None and intervals:
            self._recorders.record(names.BETWEEN_CHUNKS, intervals, self._common)

    def went_on(self, how: str, reason: object) -> None:
        """A model failed in mid-reply, and another one continues."""
        self.event(names.EVENT_FALLBACK[how], {names.ATTR_ERROR_TYPE: type(reason).__name__})

    def attempt(self, number: int) -> AttemptSpan:
        return AttemptSpan(number)

    def finish(
        self,
        purpose: str,
        *,
        metrics: LLMMetrics | None,
        finish_reason: str | None,
        answered_by: str | None,
        first_token_at: float | None,
        outcome: BaseException | None,
        now: float,
    ) -> None:
        """End the span, and record the metrics of the request."""
        if answered_by and not self._composed:
            self._common[names.ATTR_GEN_AI_RESPONSE_MODEL] = answered_by
            self.set({names.ATTR_GEN_AI_RESPONSE_MODEL: answered_by})
        error = outcome if isinstance(outcome, Exception) else None
        try:
            if self._recorders is not None:
                self._record(metrics, error, purpose, now)
            if self.recording:
                if not self._composed:
                    self._describe(metrics, finish_reason, first_token_at, purpose)
                if outcome is not None and error is None:
                    self.set({names.ATTR_CANCELLED: True})
                if error is not None:
                    self.fail(error)
        finally:
            self.end()

    def _describe(
        self,
        metrics: LLMMetrics | None,
        finish_reason: str | None,
        first_token_at: float | None,
        purpose: str,
    ) -> None:
        attributes: dict[str, Any] = {names.ATTR_PURPOSE: purpose}
        if metrics is not None:
            attributes |= {
                names.ATTR_LLM_METRICS: metrics.model_dump_json(),
                names.ATTR_GEN_AI_USAGE_INPUT_TOKENS: metrics.prompt_tokens,
                names.ATTR_GEN_AI_USAGE_OUTPUT_TOKENS: metrics.completion_tokens,
            }
            for name, count in (
                (names.ATTR_GEN_AI_USAGE_CACHE_READ_INPUT_TOKENS, metrics.prompt_cached_tokens),
                (names.ATTR_GEN_AI_USAGE_CACHE_WRITE_INPUT_TOKENS, metrics.cache_creation_tokens),
                (
                    names.ATTR_GEN_AI_USAGE_CACHE_CREATION_INPUT_TOKENS,
                    metrics.cache_creation_tokens,
                ),
                (names.ATTR_GEN_AI_USAGE_REASONING_OUTPUT_TOKENS, metrics.reasoning_tokens),
            ):
                if count:
                    attributes[name] = count
            if metrics.estimated:
                attributes[names.ATTR_ESTIMATED] = True
            if metrics.cost is not None:
                attributes[names.ATTR_COST] = metrics.cost
        if self._ids:
            attributes[names.ATTR_PROVIDER_REQUEST_IDS] = self._ids
            attributes[names.ATTR_GEN_AI_RESPONSE_ID] = self._ids[-1]
        if self._first_at is not None:
            waited = self._first_at - self._started_at
            attributes[names.ATTR_GEN_AI_RESPONSE_TIME_TO_FIRST_CHUNK] = waited
        if finish_reason is not None:
            attributes[names.ATTR_GEN_AI_RESPONSE_FINISH_REASONS] = [finish_reason]
        if first_token_at is not None:
            wall = self._started_wall + first_token_at - self._started_at
            moment = datetime.fromtimestamp(wall, tz=UTC).isoformat()
            attributes[names.ATTR_LANGFUSE_COMPLETION_START_TIME] = f'"{moment}"'
        text = "".join(self._text)
        if Capture.ATTRIBUTES in self._capture and self._chunk_at is not None:
            thinking = "".join(self._thinking)
            attributes[names.ATTR_GEN_AI_OUTPUT_MESSAGES] = output_message(
                text, self._calls, thinking, finish_reason
            )
        self.set(attributes)
        if Capture.EVENTS in self._capture and metrics is not None:
            add_choice(self.event, text, self._calls)

    def _record(
        self, metrics: LLMMetrics | None, error: BaseException | None, purpose: str, now: float
    ) -> None:
        found = self._recorders
        if found is None:
            return
        self._record_intervals()
        common = self._common | {names.ATTR_PURPOSE: purpose}
        took = (max(0.0, now - self._started_at),)
        failed = {} if error is None else {names.ATTR_ERROR_TYPE: error_type(error)}
        found.record(names.DURATION, took, common | failed)
        if self._first_at is not None:
            found.record(names.FIRST_CHUNK, (self._first_at - self._started_at,), common)
        if metrics is None:
            return
        if metrics.ttft >= 0:
            found.record(names.FIRST_TOKEN, (metrics.ttft,), common)
        if metrics.cost is not None:
            found.record(names.COST, (metrics.cost,), common)
        for kind, count in (
            ("input", metrics.prompt_tokens),
            ("output", metrics.completion_tokens),
        ):
            if count:
                found.record(
                    names.TOKEN_USAGE, (count,), common | {names.ATTR_GEN_AI_TOKEN_TYPE: kind}
                )


class SilentRequest:
    """Replaces the `RequestSpan` of a reply that is not recorded."""

    recorded = False
    sees_chunks = False

    def asked(self, body: bytes | None) -> None: ...

    def see(self, chunk: ChatChunk, now: float) -> None: ...

    def went_on(self, how: str, reason: object) -> None: ...

    def attempt(self, number: int) -> contextlib.AbstractContextManager[object]:
        return _NOTHING

    def leave(self) -> None: ...

    def finish(self, purpose: str, **outcome: object) -> None: ...


AnyRequestSpan: TypeAlias = RequestSpan | SilentRequest
_NOTHING: Final[contextlib.AbstractContextManager[None]] = contextlib.nullcontext()
_SILENT: Final = SilentRequest()


def request_span(
    model: Model,
    *,
    name: str,
    history: Sequence[ChatItem],
    composed: bool,
    candidate: int | None,
    started_at: float,
) -> AnyRequestSpan:
    """A `RequestSpan`, or its silent replacement if nothing is recorded."""
    silent = tracer_provider.given is None and meter_provider.given is None and is_silent()
    if silent or (not traced() and (composed or recorders() is None)):
        return _SILENT
    return RequestSpan(
        model,
        name=name,
        history=history,
        composed=composed,
        candidate=candidate,
        started_at=started_at,
    )


class AttemptSpan:
    """The span of one attempt; a context manager that records the attempt's error, once."""

    def __init__(self, number: int) -> None:
        self._number = number

    def __enter__(self) -> Self:
        self._span = Span(names.SPAN_ATTEMPT, {names.ATTR_RETRY_COUNT: self._number})
        self._span.enter()
        return self

    def __exit__(self, exc_type: object, exc: BaseException | None, tb: object) -> None:
        if isinstance(exc, Exception):
            self._span.fail(exc)
        self._span.end()


class ToolSpan:
    """The span of one tool run; a context manager."""

    def __init__(self, call: FunctionCall, clock: Callable[[], float]) -> None:
        self._call = call
        self._clock = clock
        self._error: str | None = None

    def __enter__(self) -> Self:
        self._common = {
            names.ATTR_GEN_AI_OPERATION_NAME: names.EXECUTE_TOOL,
            names.ATTR_GEN_AI_TOOL_NAME: self._call.name,
            names.ATTR_GEN_AI_TOOL_TYPE: "function",
        }
        own = {
            names.ATTR_GEN_AI_TOOL_CALL_ID: self._call.call_id,
            names.ATTR_FUNCTION_TOOL_NAME: self._call.name,
        }
        self._span = Span(names.SPAN_TOOL, self._common | own)
        self._span.enter()
        self._started_at = self._clock()
        return self

    def end(self, output: FunctionCallOutput, error: BaseException | None) -> None:
        """End the span with the outcome of the call."""
        span = self._span
        failed = error if output.is_error else None
        if output.is_error:
            self._error = "tool_error" if failed is None else error_type(failed)
        if not span.recording:
            return
        span.set({names.ATTR_FUNCTION_TOOL_IS_ERROR: output.is_error})
        if captured():
            arguments, answer = redacted(self._call.arguments), redacted(output.output)
            span.set(
                {
                    names.ATTR_FUNCTION_TOOL_ARGS: arguments,
                    names.ATTR_FUNCTION_TOOL_OUTPUT: answer,
                    names.ATTR_GEN_AI_TOOL_CALL_ARGUMENTS: arguments,
                    names.ATTR_GEN_AI_TOOL_CALL_RESULT: answer,
                }
            )
        if failed is not None:
            span.fail(failed)

    def __exit__(self, exc_type: object, exc: BaseException | None, tb: object) -> None:
        found = recorders()
        if found is not None:
            failed = {} if self._error is None else {names.ATTR_ERROR_TYPE: self._error}
            took = max(0.0, self._clock() - self._started_at)
            found.record(names.TOOL_DURATION, (took,), self._common | failed)
        if isinstance(exc, BaseException):
            self._span.set({names.ATTR_CANCELLED: True})
        self._span.end()


class McpSpan:
    """The span of a call of an MCP server, until its answer; a context manager.

    It has no operation name, because the span of the tool run is the call's only ``execute_tool``.
    """

    def __init__(self, method: str, target: str, clock: Callable[[], float]) -> None:
        self._name = f"{method} {target}"
        self._common = {
            names.ATTR_MCP_METHOD_NAME: method,
            names.ATTR_GEN_AI_TOOL_NAME: target,
        }
        self._clock = clock
        self._failed = False

    def __enter__(self) -> Self:
        self._span = Span(self._name, self._common, remote=True)
        self._span.enter()
        self._started_at = self._clock()
        return self

    def tool_failed(self) -> None:
        """The server has answered, with the failure of its tool."""
        self._failed = True

    def __exit__(self, exc_type: object, exc: BaseException | None, tb: object) -> None:
        failed: dict[str, Any] = {}
        if isinstance(exc, Exception):
            failed[names.ATTR_ERROR_TYPE] = error_type(exc)
            self._span.fail(exc)
        elif self._failed:
            failed[names.ATTR_ERROR_TYPE] = "tool_error"
            self._span.fail_as("tool_error")
        found = recorders()
        if found is not None:
            took = max(0.0, self._clock() - self._started_at)
            found.record(names.MCP_DURATION, (took,), self._common | failed)
        self._span.end()
