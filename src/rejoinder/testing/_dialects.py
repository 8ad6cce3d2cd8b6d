"""Encodes replies in each provider's format, as a server sends them: the counterpart of the decoders.

Pure: values in, bytes out; no socket, no clock. It shares no code with the decoders, so a mistake
there is not repeated here. The formats follow recorded responses.
"""

from __future__ import annotations

import base64
import json
import struct
from collections.abc import Mapping
from typing import Any, Final

from rejoinder._core.chunks import CompletionUsage
from rejoinder.providers.completions.serve import (
    CONTENT_TYPE,
    DONE,
    KEEP_ALIVE,
    CompletionWriter,
    tokens,
)
from rejoinder.testing._rendering import Call, Dialect, Format, Rendered, Usage
from rejoinder.wire.eventstream import encode_message

__all__ = ["DIALECTS", "Call", "Dialect", "Format", "Rendered", "Usage", "format_of"]

_U32: Final = struct.Struct("!I")


def _json(value: object) -> bytes:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode()


def _sse(value: object, event: str | None = None, end: bytes = b"\n\n") -> bytes:
    head = b"" if event is None else b"event: " + event.encode() + b"\n"
    return head + b"data: " + _json(value) + end


def _halves(text: str) -> list[str]:
    middle = len(text) // 2
    return [part for part in (text[:middle], text[middle:]) if part]


def _counted(usage: Usage) -> CompletionUsage:
    return CompletionUsage(
        prompt_tokens=usage.prompt,
        completion_tokens=usage.completion,
        total_tokens=usage.prompt + usage.completion,
    )


class _Chat:
    """OpenAI Chat Completions, and Mistral's dialect of it."""

    frame = (b"", b"", b"")
    content_type = CONTENT_TYPE
    keep_alive = KEEP_ALIVE
    endless = (b'data: {"id":"', b"x")
    broken = b'data: {"id":"chatcmpl-1","choices":[{"index":0,"delta":{]}}\n\n'

    def __init__(self, *, mistral: bool = False) -> None:
        self._mistral = mistral
        writer = CompletionWriter(
            completion_id="chatcmpl-1", model="scripted-model", created=1767225600
        )
        self._writer, self._chunk = writer, writer.chunk
        self.nothing = writer.open()
        self.unknown = _sse({"object": "chat.completion.novelty", "detail": [1, None]}, "novelty")

    def render(
        self, text: tuple[str, ...], calls: tuple[Call, ...], thinking: str, usage: Usage
    ) -> Rendered:
        outputs: list[bytes] = []
        if thinking and self._mistral:
            part = {"type": "thinking", "thinking": [{"type": "text", "text": thinking}]}
            outputs.append(self._chunk({"content": [part]}))
        elif thinking:
            outputs.append(self._chunk({"reasoning_content": thinking}))
        outputs += [self._chunk({"content": piece}) for piece in text]
        for index, call in enumerate(calls):
            function = {"name": call.name, "arguments": call.arguments}
            if self._mistral:
                whole = {"id": call.call_id, "function": function, "index": index}
                outputs.append(self._chunk({"tool_calls": [whole]}))
                continue
            opening = {
                "index": index,
                "id": call.call_id,
                "type": "function",
                "function": {"name": call.name, "arguments": ""},
            }
            outputs.append(self._chunk({"tool_calls": [opening]}))
            for half in _halves(call.arguments):
                part = {"index": index, "function": {"arguments": half}}
                outputs.append(self._chunk({"tool_calls": [part]}))
        finish = "tool_calls" if calls else "stop"
        if self._mistral:
            last = [self._chunk({"content": ""}, finish, usage=tokens(_counted(usage)))]
        else:
            last = [self._chunk({}, finish), self.counting(usage)]
        return Rendered([self.nothing], outputs, [*last, DONE], [*last, DONE])

    def counting(self, usage: Usage) -> bytes:
        return self._writer.counts(_counted(usage))

    def error_event(self) -> bytes:
        error = {"message": "The server is overloaded", "type": "server_error", "code": 503}
        return _sse({"error": error})

    def error_body(self, status: int, message: str) -> tuple[bytes, dict[str, str]]:
        if self._mistral:
            body: dict[str, Any] = {
                "object": "error",
                "message": message,
                "type": "scripted_error",
                "param": None,
                "code": "1000",
            }
        else:
            error = {"message": message, "type": "scripted_error", "param": None, "code": None}
            body = {"error": error}
        return _json(body), {"x-request-id": "req_scripted"}


class _Responses:
    """OpenAI Responses."""

    frame = (b"", b"", b"")
    content_type = "text/event-stream; charset=utf-8"
    keep_alive = b": keep-alive\n\n"
    endless = (b'event: response.output_text.delta\ndata: {"type":"', b"x")
    broken = b'event: response.output_text.delta\ndata: {"type":"response.output_text.delta",]}\n\n'
    nothing = _sse({"type": "response.in_progress", "response": {"id": "resp_1"}},
                   "response.in_progress")  # fmt: skip
    unknown = _sse({"type": "response.novelty", "detail": [1, None]}, "response.novelty")

    def _response(self, status: str, **more: Any) -> dict[str, Any]:
        return {
            "id": "resp_1",
            "object": "response",
            "created_at": 1767225600,
            "status": status,
            "error": None,
            "incomplete_details": None,
            "model": "scripted-model",
            "output": [],
            "usage": None,
            **more,
        }

    def _event(self, kind: str, **more: Any) -> bytes:
        return _sse({"type": kind, **more}, kind)

    def render(
        self, text: tuple[str, ...], calls: tuple[Call, ...], thinking: str, usage: Usage
    ) -> Rendered:
        opening = [
            self._event("response.created", response=self._response("in_progress")),
            self._event("response.in_progress", response=self._response("in_progress")),
        ]
        outputs: list[bytes] = []
        items: list[dict[str, Any]] = []
        after: list[bytes] = []
        if thinking:
            item: dict[str, Any] = {"id": "rs_1", "type": "reasoning", "summary": []}
            outputs.append(self._event("response.output_item.added", output_index=0, item=item))
            outputs.append(
                self._event("response.reasoning_summary_text.delta", item_id="rs_1",
                            output_index=0, summary_index=0, delta=thinking)
            )  # fmt: skip
            item = {**item, "summary": [{"type": "summary_text", "text": thinking}]}
            outputs.append(self._event("response.output_item.done", output_index=0, item=item))
            items.append(item)
        if text:
            place: dict[str, Any] = {
                "item_id": "msg_1",
                "output_index": len(items),
                "content_index": 0,
            }
            item = {
                "id": "msg_1",
                "type": "message",
                "status": "in_progress",
                "role": "assistant",
                "content": [],
            }
            part: dict[str, Any] = {"type": "output_text", "annotations": [], "text": ""}
            start = [
                self._event("response.output_item.added", output_index=len(items), item=item),
                self._event("response.content_part.added", **place, part=part),
            ]
            if thinking:
                outputs += start
            else:
                opening += start
            outputs += [
                self._event("response.output_text.delta", **place, delta=piece) for piece in text
            ]
            part = {**part, "text": "".join(text)}
            item = {**item, "status": "completed", "content": [part]}
            after = [
                self._event("response.output_text.done", **place, text="".join(text)),
                self._event("response.content_part.done", **place, part=part),
                self._event("response.output_item.done", output_index=len(items), item=item),
            ]
            items.append(item)
        if calls:
            outputs += after
            after = []
        for number, call in enumerate(calls):
            index = len(items)
            place = {"item_id": f"fc_{number}", "output_index": index}
            item = {
                "id": f"fc_{number}",
                "type": "function_call",
                "status": "in_progress",
                "arguments": "",
                "call_id": call.call_id,
                "name": call.name,
            }
            outputs.append(self._event("response.output_item.added", output_index=index, item=item))
            outputs += [
                self._event("response.function_call_arguments.delta", **place, delta=half)
                for half in _halves(call.arguments)
            ]
            outputs.append(
                self._event(
                    "response.function_call_arguments.done", **place, arguments=call.arguments
                )
            )
            item = {**item, "status": "completed", "arguments": call.arguments}
            outputs.append(self._event("response.output_item.done", output_index=index, item=item))
            items.append(item)
        tokens = self._tokens(usage)
        done = self._event(
            "response.completed", response=self._response("completed", output=items, usage=tokens)
        )
        bare = self._event("response.completed", response=self._response("completed", usage=tokens))
        return Rendered(opening, outputs, [*after, done], [bare])

    def _tokens(self, usage: Usage) -> dict[str, Any]:
        return {
            "input_tokens": usage.prompt,
            "input_tokens_details": {"cached_tokens": 0},
            "output_tokens": usage.completion,
            "output_tokens_details": {"reasoning_tokens": 0},
            "total_tokens": usage.prompt + usage.completion,
        }

    def counting(self, usage: Usage) -> bytes:
        response = self._response("in_progress", usage=self._tokens(usage))
        return self._event("response.in_progress", response=response)

    def error_event(self) -> bytes:
        error = {"code": "server_error", "message": "The server had an error"}
        return self._event("response.failed", response=self._response("failed", error=error))

    def error_body(self, status: int, message: str) -> tuple[bytes, dict[str, str]]:
        error = {"message": message, "type": "scripted_error", "param": None, "code": None}
        return _json({"error": error}), {"x-request-id": "req_scripted"}


class _Anthropic:
    """Anthropic Messages."""

    frame = (b"", b"", b"")
    content_type = "text/event-stream; charset=utf-8"
    keep_alive = b'event: ping\ndata: {"type": "ping"}\n\n'
    endless = (b'event: content_block_delta\ndata: {"type":"', b"x")
    broken = b'event: content_block_delta\ndata: {"type":"content_block_delta","index":0,]}\n\n'
    nothing = _sse(
        {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": ""}},
        "content_block_delta",
    )
    unknown = _sse({"type": "novelty", "detail": [1, None]}, "novelty")

    def _event(self, kind: str, **more: Any) -> bytes:
        return _sse({"type": kind, **more}, kind)

    def _block(
        self, index: int, block: dict[str, Any], deltas: list[dict[str, Any]]
    ) -> list[bytes]:
        return [
            self._event("content_block_start", index=index, content_block=block),
            *(self._event("content_block_delta", index=index, delta=delta) for delta in deltas),
            self._event("content_block_stop", index=index),
        ]

    def render(
        self, text: tuple[str, ...], calls: tuple[Call, ...], thinking: str, usage: Usage
    ) -> Rendered:
        message: dict[str, Any] = {
            "id": "msg_1",
            "type": "message",
            "role": "assistant",
            "model": "scripted-model",
            "content": [],
            "stop_reason": None,
            "stop_sequence": None,
            "usage": {"input_tokens": usage.prompt, "output_tokens": 1},
        }
        opening = [self._event("message_start", message=message)]
        outputs: list[bytes] = []
        closing: list[bytes] = []
        index = 0
        if thinking:
            deltas: list[dict[str, Any]] = [
                {"type": "thinking_delta", "thinking": thinking},
                {"type": "signature_delta", "signature": "c2lnbmVk"},
            ]
            block: dict[str, Any] = {"type": "thinking", "thinking": "", "signature": ""}
            outputs += self._block(index, block, deltas)
            index += 1
        if text:
            block = {"type": "text", "text": ""}
            start, *pieces, stop = self._block(
                index, block, [{"type": "text_delta", "text": piece} for piece in text]
            )
            (outputs if outputs else opening).append(start)
            outputs += pieces
            (outputs if calls else closing).append(stop)
            index += 1
        for call in calls:
            block = {"type": "tool_use", "id": call.call_id, "name": call.name, "input": {}}
            parts = [
                {"type": "input_json_delta", "partial_json": part}
                for part in ["", *_halves(call.arguments)]
            ]
            outputs += self._block(index, block, parts)
            index += 1
        end = [
            self._event(
                "message_delta",
                delta={"stop_reason": "tool_use" if calls else "end_turn", "stop_sequence": None},
                usage={"output_tokens": usage.completion},
            ),
            self._event("message_stop"),
        ]
        return Rendered(opening, outputs, closing + end, end)

    def counting(self, usage: Usage) -> bytes:
        nothing = {"stop_reason": None, "stop_sequence": None}
        counts = {"output_tokens": usage.completion}
        return self._event("message_delta", delta=nothing, usage=counts)

    def error_event(self) -> bytes:
        return self._event("error", error={"type": "overloaded_error", "message": "Overloaded"})

    def error_body(self, status: int, message: str) -> tuple[bytes, dict[str, str]]:
        kinds = {
            400: "invalid_request_error",
            401: "authentication_error",
            403: "permission_error",
            404: "not_found_error",
            413: "request_too_large",
            429: "rate_limit_error",
            529: "overloaded_error",
        }
        error = {"type": kinds.get(status, "api_error"), "message": message}
        return _json({"type": "error", "error": error}), {"request-id": "req_scripted"}


class _Google:
    """Gemini, as server-sent events or as one JSON array."""

    def __init__(self, *, array: bool = False) -> None:
        self._array = array
        self.frame = (b"[", b"\n,\n", b"\n]") if array else (b"", b"", b"")
        if array:
            self.content_type = "application/json; charset=UTF-8"
            self.keep_alive = b"\n"
            self.endless = (b'{"candidates": [{"content": {"parts": [{"text": "', b"x")
            self.broken = b'{"candidates": [{"content": ]}]}'
        else:
            self.content_type = "text/event-stream"
            self.keep_alive = b": keep-alive\r\n\r\n"
            self.endless = (b'data: {"candidates": [{"content": {"parts": [{"text": "', b"x")
            self.broken = b'data: {"candidates": [{"content": ]}]}\r\n\r\n'
        self.nothing = self._event(self._answer([{"text": ""}]))
        self.unknown = self._event({"novelty": {"detail": [1, None]}})

    def _event(self, value: object) -> bytes:
        if self._array:
            return json.dumps(value, indent=2, ensure_ascii=False).encode()
        return _sse(value, end=b"\r\n\r\n")

    def _answer(self, parts: list[dict[str, Any]], **candidate: Any) -> dict[str, Any]:
        return {
            "candidates": [{"content": {"parts": parts, "role": "model"}, "index": 0, **candidate}],
            "modelVersion": "scripted-model",
            "responseId": "resp-1",
        }

    def render(
        self, text: tuple[str, ...], calls: tuple[Call, ...], thinking: str, usage: Usage
    ) -> Rendered:
        outputs: list[dict[str, Any]] = []
        if thinking:
            outputs.append(self._answer([{"text": thinking, "thought": True}]))
        outputs += [self._answer([{"text": piece}]) for piece in text]
        outputs += [
            self._answer([{"functionCall": {"name": c.name, "args": json.loads(c.arguments)}}])
            for c in calls
        ]
        last = self._answer([{"text": ""}], finishReason="STOP")
        last["usageMetadata"] = self._tokens(usage)
        return Rendered(
            [self.nothing],
            [self._event(output) for output in outputs],
            [self._event(last)],
            [self._event(last)],
        )

    def _tokens(self, usage: Usage) -> dict[str, int]:
        return {
            "promptTokenCount": usage.prompt,
            "candidatesTokenCount": usage.completion,
            "totalTokenCount": usage.prompt + usage.completion,
        }

    def counting(self, usage: Usage) -> bytes:
        return self._event(
            {
                "usageMetadata": self._tokens(usage),
                "modelVersion": "scripted-model",
                "responseId": "resp-1",
            }
        )

    def error_event(self) -> bytes:
        error = {"code": 503, "message": "The model is overloaded.", "status": "UNAVAILABLE"}
        return self._event({"error": error})

    def error_body(self, status: int, message: str) -> tuple[bytes, dict[str, str]]:
        names = {
            400: "INVALID_ARGUMENT",
            401: "UNAUTHENTICATED",
            403: "PERMISSION_DENIED",
            404: "NOT_FOUND",
            429: "RESOURCE_EXHAUSTED",
            500: "INTERNAL",
            503: "UNAVAILABLE",
            504: "DEADLINE_EXCEEDED",
        }
        error = {"code": status, "message": message, "status": names.get(status, "UNKNOWN")}
        body: object = {"error": error}
        return json.dumps([body] if self._array else body, indent=2).encode(), {}


class _Bedrock:
    """Bedrock ConverseStream, in AWS event-stream frames."""

    frame = (b"", b"", b"")
    content_type = "application/vnd.amazon.eventstream"
    # A frame that declares a length of 2 GiB minus one byte, with a correct checksum.
    endless = (_U32.pack(0x7FFFFFFF) + _U32.pack(16) + _U32.pack(0xB1736A41), b"x")

    def __init__(self) -> None:
        self.keep_alive = self._event("keepAlive", {})
        self.nothing = self._delta(0, {"text": ""})
        self.unknown = self._event("novelty", {"detail": [1, None]})
        self.broken = self._frame("event", "contentBlockDelta", b'{"contentBlockIndex":0,]}')

    def _frame(self, kind: str, name: str, payload: bytes) -> bytes:
        headers = {
            f":{kind}-type": name,
            ":content-type": "application/json",
            ":message-type": kind,
        }
        return encode_message(headers, payload)

    def _event(self, name: str, value: Mapping[str, Any]) -> bytes:
        return self._frame("event", name, _json({**value, "p": "abcdef"}))

    def _delta(self, index: int, delta: Mapping[str, Any]) -> bytes:
        return self._event("contentBlockDelta", {"contentBlockIndex": index, "delta": delta})

    def render(
        self, text: tuple[str, ...], calls: tuple[Call, ...], thinking: str, usage: Usage
    ) -> Rendered:
        outputs: list[bytes] = []
        closing: list[bytes] = []
        index = 0
        if thinking:
            outputs += [
                self._delta(index, {"reasoningContent": part})
                for part in ({"text": thinking}, {"signature": "c2lnbmVk"})
            ]
            outputs.append(self._event("contentBlockStop", {"contentBlockIndex": index}))
            index += 1
        outputs += [self._delta(index, {"text": piece}) for piece in text]
        if text:
            stop = self._event("contentBlockStop", {"contentBlockIndex": index})
            (outputs if calls else closing).append(stop)
            index += 1
        for call in calls:
            start = {"toolUse": {"name": call.name, "toolUseId": call.call_id}}
            outputs.append(
                self._event("contentBlockStart", {"contentBlockIndex": index, "start": start})
            )
            outputs += [
                self._delta(index, {"toolUse": {"input": part}})
                for part in ["", *_halves(call.arguments)]
            ]
            outputs.append(self._event("contentBlockStop", {"contentBlockIndex": index}))
            index += 1
        end = [
            self._event("messageStop", {"stopReason": "tool_use" if calls else "end_turn"}),
            self.counting(usage),
        ]
        return Rendered(
            [self._event("messageStart", {"role": "assistant"})], outputs, closing + end, end
        )

    def counting(self, usage: Usage) -> bytes:
        tokens = {
            "inputTokens": usage.prompt,
            "outputTokens": usage.completion,
            "totalTokens": usage.prompt + usage.completion,
        }
        return self._event("metadata", {"metrics": {"latencyMs": 5}, "usage": tokens})

    def error_event(self) -> bytes:
        return self._frame(
            "exception", "serviceUnavailableException", b'{"message":"The service is overloaded"}'
        )

    def error_body(self, status: int, message: str) -> tuple[bytes, dict[str, str]]:
        names = {
            400: "ValidationException",
            401: "UnrecognizedClientException",
            403: "AccessDeniedException",
            404: "ResourceNotFoundException",
            408: "ModelTimeoutException",
            429: "ThrottlingException",
            503: "ServiceUnavailableException",
        }
        return _json({"message": message}), {
            "x-amzn-errortype": names.get(status, "InternalServerException"),
            "x-amzn-requestid": "req_scripted",
        }


class _AnthropicOnBedrock(_Bedrock):
    """Anthropic's events in the frames of Bedrock: invoke-with-response-stream."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = _Anthropic()
        self.keep_alive = self._wrapped(self.inner.keep_alive)
        self.nothing = self._wrapped(self.inner.nothing)
        self.unknown = self._wrapped(self.inner.unknown)
        self.broken = self._wrapped(self.inner.broken)

    def counting(self, usage: Usage) -> bytes:
        return self._wrapped(self.inner.counting(usage))

    def _wrapped(self, event: bytes) -> bytes:
        data = event.partition(b"data: ")[2].rstrip()
        return self._event("chunk", {"bytes": base64.b64encode(data).decode()})

    def render(
        self, text: tuple[str, ...], calls: tuple[Call, ...], thinking: str, usage: Usage
    ) -> Rendered:
        parts = self.inner.render(text, calls, thinking, usage)
        return Rendered(
            *(
                [self._wrapped(event) for event in events]
                for events in (parts.opening, parts.outputs, parts.closing, parts.usage_only)
            )
        )


DIALECTS: Final[dict[Format, Dialect]] = {
    "openai": _Chat(),
    "responses": _Responses(),
    "anthropic": _Anthropic(),
    "google": _Google(),
    "google-array": _Google(array=True),
    "bedrock": _Bedrock(),
    "bedrock-anthropic": _AnthropicOnBedrock(),
    "mistral": _Chat(mistral=True),
}


def format_of(path: str) -> Format:
    """The format that a client expects at a URL, by its path and query."""
    route, _, query = path.partition("?")
    if route.endswith("/responses"):
        return "responses"
    if route.endswith(("/messages", ":streamRawPredict")):
        return "anthropic"
    if route.endswith("/invoke-with-response-stream"):
        return "bedrock-anthropic"
    if route.endswith(":streamGenerateContent"):
        return "google" if "alt=sse" in query else "google-array"
    if route.endswith("/converse-stream"):
        return "bedrock"
    return "openai"
