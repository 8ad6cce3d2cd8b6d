"""Anthropic's Messages stream: bytes in, chunks out.

The law of this file: a reply ends with ``message_stop``; bytes that end before it are an error.
What is said first comes out first; an error event is raised after it, with the status that its type
stands for. Thinking never becomes content; it leaves as ``delta.thinking`` and, whole and signed, as
``delta.extra["anthropic"]["thinking"]``, to be sent back untouched. Blocks of tools that run on the
provider's side are passed over; blocks and events nobody knows are counted in `skipped`. Usage is
cumulative: the last count wins. The same events come as SSE or, from Bedrock, in event-stream
frames. Servers that answer with one whole message instead of a stream are understood. Pure.
"""

from __future__ import annotations

import base64
import binascii
import logging
from collections.abc import Mapping
from typing import Any, Final, Literal, cast

import msgspec

from rejoinder._core import jsontext
from rejoinder._core.bodies import plain_text, read_json_object
from rejoinder._core.chunks import ChatChunk, CompletionUsage
from rejoinder._core.usage import usage_from_anthropic
from rejoinder.clouds.aws_errors import frame_error, http_error
from rejoinder.errors import (
    APIConnectionError,
    APIError,
    APIStatusError,
    RefusalError,
    WireError,
    create_api_error_from_http,
)
from rejoinder.providers.answering.chunks import TEXT_OVERHEAD, Reply
from rejoinder.providers.answering.errors import retry_after, unexpected_body
from rejoinder.providers.answering.first_bytes import Opening
from rejoinder.wire.eventstream import EventStreamDecoder, Message
from rejoinder.wire.sse import SSEDecoder

__all__ = ["StreamDecoder", "decode_error"]

logger = logging.getLogger(__name__)

_STATUS: Final[Mapping[str, int]] = {
    "invalid_request_error": 400,
    "authentication_error": 401,
    "billing_error": 402,
    "permission_error": 403,
    "not_found_error": 404,
    "conflict_error": 409,
    "request_too_large": 413,
    "rate_limit_error": 429,
    "api_error": 500,
    "timeout_error": 504,
    "overloaded_error": 529,
}
"""The HTTP status that an error type has when it comes before the stream."""

# Content of tools that ran on the provider's side, and other things that are not for the listener.
_SILENT_BLOCKS: Final = frozenset({"server_tool_use", "mcp_tool_use", "compaction", "fallback"})

_CUT_SHORT: Final = frozenset({"max_tokens", "model_context_window_exceeded"})

_COUNTS: Final = frozenset(
    {
        "input_tokens",
        "output_tokens",
        "cache_creation_input_tokens",
        "cache_read_input_tokens",
        "cache_creation",
        "output_tokens_details",
        "service_tier",
    }
)

_OPEN: Final = "<thinking>"
_CLOSE: Final = "</thinking>"

_MAX_KEPT: Final = 1 << 24
_MAX_BLOCKS: Final = 10_000


class _Delta(msgspec.Struct, gc=False):
    type: str | None = None
    text: str | None = None
    thinking: str | None = None
    partial_json: str | None = None
    signature: str | None = None
    stop_reason: str | None = None
    stop_details: Any = None


class _Event(msgspec.Struct, gc=False):
    type: str = ""
    index: int = 0
    delta: _Delta | None = None
    content_block: dict[str, Any] | None = None
    message: dict[str, Any] | None = None
    usage: dict[str, Any] | None = None
    error: Any = None


_decode_event = msgspec.json.Decoder(_Event).decode


class _Call:
    __slots__ = ("arguments", "id", "input", "name")

    def __init__(self, block: Mapping[str, Any]) -> None:
        self.id = _word(block.get("id"))
        self.name = _word(block.get("name"))
        self.input = _mapping(block.get("input"))
        self.arguments: list[str] = []

    def text(self) -> str:
        joined = "".join(self.arguments)
        if not joined.strip() and self.input:
            # Some servers put all arguments into the start of the block and send no fragments.
            return jsontext.encode(self.input).decode()
        return joined


class _Thought:
    __slots__ = ("signature", "text")

    def __init__(self, block: Mapping[str, Any]) -> None:
        self.text = [_word(block.get("thinking"))]
        self.signature = _word(block.get("signature"))


class _Text:
    """A text block. Claude 3 writes its thoughts into one, between tags, before a tool call."""

    __slots__ = ("held", "mode")

    def __init__(self) -> None:
        self.held = ""
        self.mode: Literal["start", "thinking", "plain"] = "start"


class StreamDecoder:
    """Decodes one reply of the Messages API.

    Args:
        allow_empty: an answer that says nothing is fine, as it is after a tool output.
        framing: ``"sse"``, or ``"eventstream"`` for Bedrock's invoke-with-response-stream.

    Attributes:
        failure: what the next call raises.
        done: ``message_stop`` was seen.
        finish_reason: why the model stopped, in Anthropic's word.
        progress: pieces of text, thinking and arguments so far.
        skipped: events and blocks of unknown types so far.
    """

    __slots__ = (
        "_allow_empty",
        "_blocks",
        "_frames",
        "_held_calls",
        "_kept",
        "_opening",
        "_reply",
        "_seen",
        "_sse",
        "_stop_details",
        "_usage",
        "done",
        "failure",
        "finish_reason",
        "skipped",
    )

    def __init__(
        self, *, allow_empty: bool = False, framing: Literal["sse", "eventstream"] = "sse"
    ) -> None:
        self._allow_empty = allow_empty
        self._sse = SSEDecoder() if framing == "sse" else None
        self._frames = None if framing == "sse" else EventStreamDecoder()
        self._reply = Reply("msg_")
        self._blocks: dict[int, _Call | _Thought | _Text | None] = {}
        self._held_calls: list[_Call] = []
        self._kept = 0
        self._usage: dict[str, Any] = {}
        self._opening = Opening("a stream of events")
        self.finish_reason: str | None = None
        self._stop_details: Any = None
        self._seen = False
        self.done = False
        self.failure: APIError | None = None
        self.skipped = 0

    @property
    def progress(self) -> int:
        return self._reply.progress

    def feed(self, data: bytes) -> list[ChatChunk]:
        """The chunks that `data` completes.

        Raises:
            APIError: what `failure` held.
        """
        if self.failure is not None:
            raise self.failure
        chunks: list[ChatChunk] = []
        if self.done:
            return chunks
        if self._opening.kind != "stream":
            data = self._opening.feed(data)
            self.failure = self._opening.failure
            if not data:
                return chunks
        if self._sse is not None:
            for name, payload in self._sse.feed(data):
                self._payload(payload, chunks, name)
                if self.done or self.failure is not None:
                    return chunks
            self.failure = self._sse.failure
        elif self._frames is not None:
            for message in self._frames.feed(data):
                self._frame(message, chunks)
                if self.done or self.failure is not None:
                    return chunks
            self.failure = self._frames.failure
        return chunks

    def close(self) -> list[ChatChunk]:
        """Say that no bytes will follow.

        Raises:
            APIError: the reply is not complete, was refused, or is empty.
        """
        chunks: list[ChatChunk] = []
        if self.failure is None and not self.done and self._opening.kind in ("json", "page"):
            self._whole(chunks)
        elif self.failure is None and not self.done:
            self.failure = APIConnectionError(
                "the stream ended before message_stop: the reply is incomplete"
            )
            if self._sse is not None:
                self._close_sse(self._sse, chunks)
            elif not (self._seen or self.skipped):
                self.failure = unexpected_body(b"", "an AWS event stream")
        if self.failure is not None and not chunks:
            raise self.failure
        return chunks

    def _whole(self, chunks: list[ChatChunk]) -> None:
        """A whole message, or an error, that came where a stream was asked for."""
        message = read_json_object(self._opening.body)
        if message is None or message.get("type") != "message":
            self.failure = decode_error(200, {}, self._opening.body)
            return
        reply = self._reply
        if _word(message.get("id")):
            reply.id = jsontext.heal(_word(message.get("id")))
        content = message.get("content")
        for entry in cast("list[Any]", content) if isinstance(content, list) else ():
            block = _mapping(entry) or {}
            kind = block.get("type")
            if kind == "text":
                text = _Text()
                self._tagged(text, _word(block.get("text")), chunks, loose=True)
                self._flush_held(text, chunks)
            elif kind == "tool_use":
                self._emit(_Call(block), chunks)
            elif kind == "thinking":
                found = reply.thinking(_word(block.get("thinking")), loose=True)
                if found is not None:
                    chunks.append(found)
                if _word(block.get("signature")):
                    kept = {name: _word(block.get(name)) for name in ("thinking", "signature")}
                    self._think(chunks, {"type": "thinking", **kept})
            elif kind == "redacted_thinking":
                self._think(chunks, {"type": "redacted_thinking", "data": _word(block.get("data"))})
        self._merge_usage(message.get("usage"))
        self.finish_reason = _word(message.get("stop_reason")) or None
        self._stop_details = message.get("stop_details")
        if self.finish_reason is None:
            self.failure = WireError("a whole message without a stop_reason")
            return
        self._stop(chunks)

    def _close_sse(self, sse: SSEDecoder, chunks: list[ChatChunk]) -> None:
        incomplete, self.failure = self.failure, None
        for name, payload in sse.close():
            self._payload(payload, chunks, name)
        if self.done or isinstance(self.failure, APIStatusError):
            return
        self.failure = incomplete
        if not (self._seen or self.skipped):
            self.failure = (
                decode_error(200, {}, sse.stray)
                if sse.stray
                else unexpected_body(b"", "server-sent events")
            )

    def _frame(self, message: Message, chunks: list[ChatChunk]) -> None:
        if message.kind in ("exception", "error"):
            self.failure = frame_error(message)
            return
        if message.name != "chunk":
            self.skipped += 1
            return
        try:
            wrapped: Any = jsontext.decode(message.payload)
            payload = base64.b64decode(wrapped["bytes"], validate=True)
        except (ValueError, TypeError, KeyError, binascii.Error):
            self.failure = WireError("a chunk frame does not hold base64 in its member 'bytes'")
            return
        self._payload(payload, chunks)

    def _payload(self, payload: bytes, chunks: list[ChatChunk], name: str | None = None) -> None:
        """Decode one event; a fault is stored in `failure`."""
        loose = False
        try:
            event = _decode_event(payload)
        except (msgspec.MsgspecError, UnicodeError, RecursionError):
            loose = True
            found = _loose_event(payload)
            if found is None:
                if payload.strip() == b"[DONE]":  # some gateways add the mark of another API
                    self.skipped += 1
                    return
                self.failure = WireError(
                    f"an event is not a JSON object: {plain_text(payload, limit=400)}"
                )
                return
            event = found
        kind = event.type or name or ""  # some servers say it only once
        if kind == "content_block_delta":
            delta = event.delta
            if delta is not None:
                self._delta(event.index, delta, chunks, loose)
        elif kind == "content_block_start":
            self._block_start(event.index, event.content_block or {}, chunks, loose)
        elif kind == "content_block_stop":
            self._block_stop(event.index, chunks)
        elif kind == "message_start":
            message = event.message or {}
            self._seen = True
            if _word(message.get("id")):
                self._reply.id = jsontext.heal(_word(message.get("id")))
            self._merge_usage(message.get("usage"))
        elif kind == "message_delta":
            if event.delta is not None and event.delta.stop_reason is not None:
                self.finish_reason = event.delta.stop_reason
                self._stop_details = event.delta.stop_details
            self._merge_usage(event.usage)
        elif kind == "message_stop":
            self._stop(chunks)
        elif kind == "error" or (not kind and event.error is not None):
            self.failure = _error(event.error, status=None, request_id=None)
        elif kind != "ping":
            self.skipped += 1

    def _delta(self, index: int, delta: _Delta, chunks: list[ChatChunk], loose: bool) -> None:
        block = self._blocks.get(index)
        reply = self._reply
        if delta.text is not None and (delta.type == "text_delta" or block is None):
            if type(block) is _Text and block.mode != "plain":
                self._tagged(block, delta.text, chunks, loose)
            elif chunk := reply.text(delta.text, loose):
                chunks.append(chunk)
        elif delta.partial_json is not None:
            if delta.partial_json:
                reply.progress += 1
            if type(block) is _Call:
                self._keep(delta.partial_json, block.arguments)
        elif delta.thinking is not None:
            if chunk := reply.thinking(delta.thinking, loose):
                chunks.append(chunk)
            if type(block) is _Thought:
                self._keep(delta.thinking, block.text)
        elif delta.signature is not None:
            reply.progress += 1
            if type(block) is _Thought:
                block.signature = delta.signature
        elif delta.type not in ("citations_delta", "compaction_delta"):
            self.skipped += 1

    def _keep(self, text: str, parts: list[str]) -> None:
        self._kept += len(text) + TEXT_OVERHEAD
        if self._kept > _MAX_KEPT:
            self.failure = WireError(
                f"thinking and tool arguments of one reply take more than {_MAX_KEPT} bytes"
            )
        else:
            parts.append(text)

    def _block_start(
        self, index: int, raw: Mapping[str, Any], chunks: list[ChatChunk], loose: bool
    ) -> None:
        self._seen = True
        if index in self._blocks:
            self._block_stop(index, chunks)
        if len(self._blocks) + len(self._held_calls) >= _MAX_BLOCKS:
            self.failure = WireError(f"more than {_MAX_BLOCKS} blocks are open in one reply")
            return
        kind = _word(raw.get("type"))
        block: _Call | _Thought | _Text | None = None
        if kind == "text":
            block = _Text()
            text = _word(raw.get("text"))
            if text:
                self._tagged(block, text, chunks, loose)
        elif kind == "tool_use":
            block = _Call(raw)
        elif kind == "thinking":
            block = _Thought(raw)
            if block.text[0] and (chunk := self._reply.thinking(block.text[0], loose)):
                chunks.append(chunk)
        elif kind == "redacted_thinking":
            data = _word(raw.get("data"))
            if data:
                self._think(chunks, {"type": "redacted_thinking", "data": data})
        elif not (kind in _SILENT_BLOCKS or kind.endswith("_tool_result")):
            self.skipped += 1
        self._blocks[index] = block

    def _block_stop(self, index: int, chunks: list[ChatChunk]) -> None:
        block = self._blocks.pop(index, None)
        if type(block) is _Text:
            self._flush_held(block, chunks)
        elif type(block) is _Call:
            # Arguments that do not parse are told from arguments that were cut by the reason why
            # the reply stopped, which is still to come.
            if _is_json(block.text()):
                self._emit(block, chunks)
            else:
                self._held_calls.append(block)
        elif type(block) is _Thought and block.signature:
            self._think(
                chunks,
                {
                    "type": "thinking",
                    "thinking": jsontext.heal("".join(block.text)),
                    "signature": jsontext.heal(block.signature),
                },
            )

    def _emit(self, call: _Call, chunks: list[ChatChunk]) -> None:
        chunks.append(self._reply.call(call.id, call.name, call.text()))

    def _think(self, chunks: list[ChatChunk], block: dict[str, str]) -> None:
        self._reply.progress += 1
        chunks.append(self._reply.state({"anthropic": {"thinking": [block]}}))

    def _tagged(self, block: _Text, text: str, chunks: list[ChatChunk], loose: bool) -> None:
        """Text of a block that has not been seen to be plain."""
        if not text:
            return
        if not text:
            return
        text = block.held + text
        block.held = ""
        if block.mode == "start":
            if _OPEN.startswith(text):
                block.held = text  # it may still become the tag
                self._reply.progress += 1
                if text != _OPEN:
                    return
            if not text.startswith(_OPEN):
                block.mode = "plain"
                if chunk := self._reply.text(text, loose):
                    chunks.append(chunk)
                return
            block.mode = "thinking"
            block.held = ""
            text = text[len(_OPEN) :]
        thought, tag, rest = text.partition(_CLOSE)
        if tag:
            block.mode = "plain"
        else:
            keep = _overlap(thought, _CLOSE)
            block.held = thought[len(thought) - keep :]
            thought = thought[: len(thought) - keep]
        if chunk := self._reply.thinking(thought, loose):
            chunks.append(chunk)
        if rest and (chunk := self._reply.text(rest, loose)):
            chunks.append(chunk)

    def _flush_held(self, block: _Text, chunks: list[ChatChunk]) -> None:
        held, block.held = block.held, ""
        if not held:
            return
        spoken = block.mode == "start"
        chunk = self._reply.text(held) if spoken else self._reply.thinking(held)
        if chunk:
            chunks.append(chunk)

    def _merge_usage(self, usage: object) -> None:
        if not isinstance(usage, dict):
            return
        for key, value in cast("dict[str, Any]", usage).items():
            # Counts are cumulative, so the last one stands; but some gateways fill in only one
            # of the two events that carry them, with null or zero in the other.
            if key in _COUNTS and value is not None and (value != 0 or key not in self._usage):
                self._usage[key] = value

    def usage_so_far(self) -> CompletionUsage | None:
        """What the provider has counted; what was read comes with the first event."""
        return usage_from_anthropic(self._usage)

    def _stop(self, chunks: list[ChatChunk]) -> None:
        reason = self.finish_reason
        for index in list(self._blocks):
            self._block_stop(index, chunks)
        for call in self._held_calls:
            if reason in _CUT_SHORT:
                logger.warning(
                    "tool call dropped: the reply stopped (%s) inside its arguments",
                    reason,
                    extra={"tool": call.name},
                )
            else:
                self._emit(call, chunks)
        self._held_calls.clear()
        chunks += self._reply.rest()
        usage = self.usage_so_far()
        if usage is not None:
            chunks.append(self._reply.usage(usage))
        self.done = True
        if reason == "refusal":
            self.failure = RefusalError(
                _refusal_text(self._stop_details), reason="refusal", body=self._stop_details
            )
        else:
            self.failure = self._reply.empty_reply_error(
                self._allow_empty,
                f"stop_reason {reason!r}",
                retryable=reason not in _CUT_SHORT,
            )


def decode_error(status: int, headers: Mapping[str, str], body: bytes) -> APIError:
    """The error for an answer that is not a stream.

    Understands Anthropic's own form, that of the proxies in front of it, Vertex's and Bedrock's.

    Args:
        headers: by lower-case name.
    """
    request_id = headers.get("request-id") or headers.get("x-amzn-requestid")
    answer = read_json_object(body)
    error: APIError
    if answer is None:
        shown = plain_text(body)
        if 200 <= status < 300:
            error = unexpected_body(body, "a stream of events")
        else:
            error = create_api_error_from_http(
                shown, status=status, request_id=request_id, body=shown or None
            )
    else:
        if request_id is None and _word(answer.get("request_id")):
            request_id = _word(answer.get("request_id"))
        detail: object = answer.get("error")
        if detail is None and not 200 <= status < 300 and not answer.get("type"):
            error = http_error(status, headers, body)
        elif detail is None and 200 <= status < 300:
            error = WireError(
                f"expected a stream of events, got a JSON object: {plain_text(body)}", body=answer
            )
        else:
            error = _error(
                answer if detail is None else detail,
                status=None if 200 <= status < 300 else status,
                request_id=request_id,
            )
    pause = retry_after(headers)
    if pause is not None:
        error.retry_after = pause
    if headers.get("x-should-retry") == "false":
        error.retryable = False
    return error


def _error(detail: object, *, status: int | None, request_id: str | None) -> APIError:
    kind, text = "", ""
    if isinstance(detail, Mapping):
        members = cast("Mapping[str, Any]", detail)
        kind = _word(members.get("type")) or _word(members.get("status"))
        text = _word(members.get("message"))
        code = members.get("code")
        if status is None and isinstance(code, int) and 400 <= code < 600:
            status = code
    elif detail is not None:
        text = str(detail)
    if status is None:
        status = _STATUS.get(kind, 500)
    words = ": ".join(part for part in (kind, text) if part)
    return create_api_error_from_http(
        jsontext.heal(words), status=status, request_id=request_id, body=cast("object", detail)
    )


def _refusal_text(details: object) -> str:
    text = "the model refused to answer"
    if isinstance(details, Mapping):
        members = cast("Mapping[str, Any]", details)
        why = _word(members.get("explanation")) or _word(members.get("category"))
        if why:
            text = f"{text}: {jsontext.heal(why)}"
    return text


def _loose_event(payload: bytes) -> _Event | None:
    """An event whose members have unexpected types, or whose JSON only tolerant readers take."""
    try:
        value: Any = jsontext.decode(payload)
    except ValueError:
        return None
    if not isinstance(value, dict):
        return None
    raw = cast("dict[str, Any]", value)
    delta = _mapping(raw.get("delta"))
    index = raw.get("index")
    return _Event(
        type=_word(raw.get("type")),
        index=index if type(index) is int else 0,
        delta=None
        if delta is None
        else _Delta(
            **{
                name: delta[name]
                for name in _Delta.__struct_fields__
                if name == "stop_details" or isinstance(delta.get(name), str)
                if name in delta
            }
        ),
        content_block=_mapping(raw.get("content_block")),
        message=_mapping(raw.get("message")),
        usage=_mapping(raw.get("usage")),
        error=raw.get("error"),
    )


def _mapping(value: object) -> dict[str, Any] | None:
    return cast("dict[str, Any]", value) if isinstance(value, dict) else None


def _word(value: object) -> str:
    return value if isinstance(value, str) else ""


def _is_json(text: str) -> bool:
    if not text.strip():
        return True
    try:
        jsontext.decode(text)
    except ValueError:
        return False
    return True


def _overlap(text: str, tag: str) -> int:
    """How many characters at the end of `text` may be the beginning of `tag`."""
    for size in range(min(len(text), len(tag) - 1), 0, -1):
        if text.endswith(tag[:size]):
            return size
    return 0
