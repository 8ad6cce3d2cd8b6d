"""The server's side of chat completions: writes replies, errors and usage. Pure.

A `CompletionWriter` turns the chunks of one reply into server-sent events, or a whole reply into one
JSON object. The forms follow recorded responses of OpenAI. It shares no code with the decoder of this
dialect, so a mistake there is not repeated here.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from rejoinder._core import jsontext
from rejoinder._core.chunks import (
    ChatChunk,
    CollectedResponse,
    CompletionUsage,
    FunctionToolCall,
)
from rejoinder._sections import plain
from rejoinder.errors import APIError, APIStatusError, APITimeoutError, ConfigurationError

__all__ = [
    "CONTENT_TYPE",
    "DONE",
    "KEEP_ALIVE",
    "CompletionWriter",
    "error_object",
    "sse",
    "status_of",
    "tokens",
    "tool_call",
]

CONTENT_TYPE: Final = "text/event-stream; charset=utf-8"
DONE: Final = b"data: [DONE]\n\n"
"""The last event of a stream."""
KEEP_ALIVE: Final = b": keep-alive\n\n"
"""A comment without content, which keeps a connection open."""


def sse(value: object, event: str | None = None) -> bytes:
    """One server-sent event with a JSON value."""
    head = b"" if event is None else b"event: " + event.encode() + b"\n"
    return head + b"data: " + jsontext.encode(value) + b"\n\n"


class CompletionWriter:
    """Writes one reply.

    Args:
        completion_id: id of the reply.
        model: the model that answers.
        created: wall time in seconds.
        include_usage: a stream ends with its token counts (``stream_options.include_usage``).
    """

    __slots__ = ("_called", "_head", "_include_usage", "_usage")

    def __init__(
        self, *, completion_id: str, model: str, created: int, include_usage: bool = True
    ) -> None:
        self._head = {"id": completion_id, "created": created, "model": model}
        self._include_usage = include_usage
        self._called = 0
        self._usage: CompletionUsage | None = None

    # -- a stream ----------------------------------------------------------------------------

    def open(self) -> bytes:
        """The first event: the role, and no text."""
        return self.chunk({"role": "assistant", "content": ""})

    def feed(self, chunk: ChatChunk) -> bytes:
        """The events of one chunk, possibly empty. Token counts are kept for the end."""
        if chunk.usage is not None:
            self._usage = chunk.usage
        delta = chunk.delta
        if delta is None:
            return b""
        events: list[bytes] = []
        if delta.thinking:
            events.append(self.chunk({"reasoning_content": delta.thinking}))
        if delta.content:
            events.append(self.chunk({"content": delta.content}))
        for call in delta.tool_calls:
            events.append(self.chunk({"tool_calls": [tool_call(call, self._called)]}))
            self._called += 1
        return b"".join(events)

    def close(self, finish_reason: str | None = None) -> bytes:
        """The last events: the finish reason, the token counts, the end mark.

        Args:
            finish_reason: default ``"tool_calls"`` if calls were written, else ``"stop"``.
        """
        events = [self.chunk({}, finish_reason or ("tool_calls" if self._called else "stop"))]
        if self._include_usage and self._usage is not None:
            events.append(self.counts(self._usage))
        return b"".join([*events, DONE])

    def fail(self, error: Exception) -> bytes:
        """The event of a reply that failed after it had begun; no end mark follows."""
        return sse({"error": error_object(error)})

    def chunk(
        self, delta: Mapping[str, Any], finish_reason: str | None = None, **more: Any
    ) -> bytes:
        """One event with a delta; `more` are further members of the event."""
        choice = {"index": 0, "delta": delta, "finish_reason": finish_reason}
        return sse({**self._head, "object": "chat.completion.chunk", "choices": [choice], **more})

    def counts(self, usage: CompletionUsage) -> bytes:
        """An event with only token counts."""
        counts = tokens(usage)
        return sse(
            {**self._head, "object": "chat.completion.chunk", "choices": [], "usage": counts}
        )

    # -- a whole reply -----------------------------------------------------------------------

    def whole(self, reply: CollectedResponse, finish_reason: str | None = None) -> bytes:
        """The reply to a request without streaming."""
        calls = [
            {key: value for key, value in tool_call(call, 0).items() if key != "index"}
            for call in reply.tool_calls
        ]
        message: dict[str, Any] = {"role": "assistant", "content": reply.text or None}
        if reply.thinking:
            message["reasoning_content"] = reply.thinking
        if calls:
            message["tool_calls"] = calls
        reason = finish_reason or ("tool_calls" if calls else "stop")
        choice = {"index": 0, "message": message, "finish_reason": reason}
        body: dict[str, Any] = {**self._head, "object": "chat.completion", "choices": [choice]}
        if reply.usage is not None:
            body["usage"] = tokens(reply.usage)
        return jsontext.encode(body)


def tool_call(call: FunctionToolCall, index: int) -> dict[str, Any]:
    """A whole tool call in the form of a delta."""
    function = {"name": call.name, "arguments": call.arguments}
    return {"index": index, "id": call.call_id, "type": "function", "function": function}


def tokens(usage: CompletionUsage) -> dict[str, Any]:
    """Token counts with the dialect's names."""
    counts: dict[str, Any] = {
        "prompt_tokens": usage.prompt_tokens,
        "completion_tokens": usage.completion_tokens,
        "total_tokens": usage.total_tokens,
    }
    if cached := usage.cache_read_tokens or usage.prompt_cached_tokens:
        counts["prompt_tokens_details"] = {"cached_tokens": cached}
    if usage.reasoning_tokens:
        counts["completion_tokens_details"] = {"reasoning_tokens": usage.reasoning_tokens}
    return counts


_TYPES: Final[Mapping[int, str]] = {
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    408: "timeout_error",
    413: "request_too_large",
    429: "rate_limit_error",
    503: "overloaded_error",
    504: "timeout_error",
}


def status_of(error: Exception) -> int:
    """The status of a response if `error` occurs before the reply begins."""
    if isinstance(error, APIStatusError) and 400 <= error.status_code <= 599:
        return error.status_code
    if isinstance(error, APITimeoutError):
        return 504
    if isinstance(error, APIError):
        return 502
    return 400 if isinstance(error, ConfigurationError) else 500


def error_object(error: Exception) -> dict[str, Any]:
    """The member ``error`` of a response or an event. Omits details that are not for clients, such as
    the text of an unexpected exception."""
    status = status_of(error)
    kind = _TYPES.get(status, "invalid_request_error" if status < 500 else "server_error")
    message = "internal error"
    if isinstance(error, APIError):
        message = error.message
    elif isinstance(error, ConfigurationError):
        message = plain(str(error))
    return {"message": message, "type": kind, "param": None, "code": status}
