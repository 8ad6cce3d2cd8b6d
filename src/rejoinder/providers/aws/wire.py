"""Bedrock's ConverseStream: bytes in, chunks out.

The law of this file: a reply ends with ``messageStop``; the usage follows in ``metadata``. Bytes that
end before ``messageStop`` are an error, and so is an exception frame, with the status its name stands
for. Reasoning never becomes content; whole and signed it leaves as ``delta.extra["aws"]["reasoning"]``,
to be sent back untouched. Text blocks have no start, members nobody knows ride on every event
(padding), and calls of tools that ran on the provider's side are not ours to run. Servers that answer
with one whole reply instead of a stream are understood. Pure.
"""

from __future__ import annotations

import base64
import binascii
import logging
from collections.abc import Mapping
from typing import Any, Final, cast

import msgspec

from rejoinder._core import jsontext
from rejoinder._core.bodies import plain_text, read_json_object
from rejoinder._core.chunks import ChatChunk
from rejoinder._core.usage import usage_from_bedrock
from rejoinder.clouds.aws_errors import frame_error, http_error
from rejoinder.errors import APIConnectionError, APIError, RefusalError, WireError
from rejoinder.providers.answering.chunks import TEXT_OVERHEAD, Reply
from rejoinder.providers.answering.errors import retry_after, unexpected_body
from rejoinder.providers.answering.first_bytes import Opening
from rejoinder.wire.eventstream import EventStreamDecoder, Message

__all__ = ["StreamDecoder", "decode_error"]

logger = logging.getLogger("rejoinder")

_REFUSALS: Final = frozenset({"guardrail_intervened", "content_filtered", "refusal"})
_MALFORMED: Final = frozenset({"malformed_model_output", "malformed_tool_use"})
_CUT_SHORT: Final = frozenset({"max_tokens", "model_context_window_exceeded"})
_MAX_KEPT: Final = 1 << 24
_MAX_BLOCKS: Final = 10_000


class _ToolUse(msgspec.Struct, rename="camel", gc=False):
    tool_use_id: str | None = None
    name: str | None = None
    type: str | None = None
    input: str | None = None


class _Reasoning(msgspec.Struct, rename="camel", gc=False):
    text: str | None = None
    signature: str | None = None
    redacted_content: str | None = None


class _Delta(msgspec.Struct, rename="camel", gc=False):
    text: str | None = None
    tool_use: _ToolUse | None = None
    reasoning_content: _Reasoning | None = None
    citation: Any = None
    tool_result: Any = None


class _Event(msgspec.Struct, rename="camel", gc=False):
    content_block_index: int = 0
    delta: _Delta | None = None
    start: dict[str, Any] | None = None
    stop_reason: str | None = None
    usage: dict[str, Any] | None = None
    service_tier: Any = None


_decode_event = msgspec.json.Decoder(_Event).decode


class _Call:
    __slots__ = ("arguments", "id", "name")

    def __init__(self, raw: Mapping[str, Any]) -> None:
        self.id = _word(raw.get("toolUseId"))
        self.name = _word(raw.get("name"))
        self.arguments: list[str] = []

    def text(self) -> str:
        return "".join(self.arguments)


class _Thought:
    __slots__ = ("redacted", "signature", "text")

    def __init__(self) -> None:
        self.text: list[str] = []
        self.signature: list[str] = []
        self.redacted: list[str] = []


class StreamDecoder:
    """Decodes one reply of ConverseStream.

    Args:
        allow_empty: an answer that says nothing is fine, as it is after a tool output.

    Attributes:
        failure: what the next call raises.
        done: the usage, which follows ``messageStop``, was seen.
        complete: ``messageStop`` was seen: only the usage may follow, or nothing.
        finish_reason: why the model stopped, in Bedrock's word.
        progress: pieces of text, reasoning and arguments so far.
        skipped: events of unknown types so far.
    """

    __slots__ = (
        "_allow_empty",
        "_blocks",
        "_frames",
        "_held_calls",
        "_kept",
        "_masked",
        "_opening",
        "_reply",
        "_seen",
        "complete",
        "done",
        "failure",
        "finish_reason",
        "skipped",
    )

    def __init__(self, *, allow_empty: bool = False) -> None:
        self._allow_empty = allow_empty
        self._frames = EventStreamDecoder()
        self._reply = Reply("bedrock_")
        self._blocks: dict[int, _Call | _Thought | None] = {}
        self._held_calls: list[_Call] = []
        self._kept = 0
        self._masked = False
        self._seen = False
        self._opening = Opening("an AWS event stream")
        self.finish_reason: str | None = None
        self.complete = False
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
        for message in self._frames.feed(data):
            self._message(message, chunks)
            if self.done or self.failure is not None:
                return chunks
        self.failure = self._frames.failure
        return chunks

    def close(self) -> list[ChatChunk]:
        """Say that no bytes will follow.

        Raises:
            APIError: the reply is not complete, was refused, is malformed, or is empty.
        """
        chunks: list[ChatChunk] = []
        if self.failure is None and not self.done:
            if self._opening.kind in ("json", "page"):
                self._whole(chunks)
            elif self.complete:
                self._end(chunks)
            elif self._seen or self.skipped:
                self.failure = APIConnectionError(
                    "the stream ended before messageStop: the reply is incomplete"
                )
            else:
                self.failure = unexpected_body(b"", "an AWS event stream")
        if self.failure is not None and not chunks:
            raise self.failure
        return chunks

    def _whole(self, chunks: list[ChatChunk]) -> None:
        """A whole reply, or an error, that came where a stream was asked for."""
        body = self._opening.body
        answer = read_json_object(body) or {}
        message = _mapping((_mapping(answer.get("output")) or {}).get("message"))
        if message is None:
            self.failure = decode_error(200, {}, body)
            return
        reply = self._reply
        content = message.get("content")
        for entry in cast("list[Any]", content) if isinstance(content, list) else ():
            block = _mapping(entry) or {}
            use = _mapping(block.get("toolUse"))
            cited = _mapping(block.get("citationsContent"))
            if use is not None:
                if use.get("type") != "server_tool_use":
                    arguments = jsontext.encode(use.get("input") or {}).decode()
                    chunks.append(
                        reply.call(_word(use.get("toolUseId")), _word(use.get("name")), arguments)
                    )
            elif "reasoningContent" in block:
                self._whole_thought(_mapping(block["reasoningContent"]) or {}, chunks)
            elif cited is not None:
                parts = cited.get("content")
                for part in cast("list[Any]", parts) if isinstance(parts, list) else ():
                    self._whole_text((_mapping(part) or {}).get("text"), chunks)
            else:
                self._whole_text(block.get("text"), chunks)
        usage = usage_from_bedrock(
            answer.get("usage"),
            service_tier=(_mapping(answer.get("serviceTier")) or {}).get("type"),
        )
        if usage is not None:
            chunks.append(reply.usage(usage))
        self._masked = _only_masked(body)
        self.finish_reason = jsontext.heal(_word(answer.get("stopReason"))) or None
        if self.finish_reason is None:
            self.failure = WireError("a whole reply without a stopReason")
            return
        self.done = True
        self._end(chunks)

    def _whole_text(self, text: object, chunks: list[ChatChunk]) -> None:
        if (found := self._reply.text(_word(text), loose=True)) is not None:
            chunks.append(found)

    def _whole_thought(self, raw: Mapping[str, Any], chunks: list[ChatChunk]) -> None:
        thought = _Thought()
        inner = _mapping(raw.get("reasoningText")) or {}
        text = _word(inner.get("text"))
        if (found := self._reply.thinking(text, loose=True)) is not None:
            chunks.append(found)
            thought.text.append(text)
        if _word(inner.get("signature")):
            thought.signature.append(_word(inner.get("signature")))
        if _word(raw.get("redactedContent")):
            thought.redacted.append(_word(raw.get("redactedContent")))
        self._think(thought, chunks)

    def _message(self, message: Message, chunks: list[ChatChunk]) -> None:
        """Decode one frame; a fault is stored in `failure`."""
        if message.kind in ("exception", "error"):
            self.failure = frame_error(message)
            return
        loose = False
        try:
            event = _decode_event(message.payload)
        except (msgspec.MsgspecError, UnicodeError, RecursionError):
            loose = True
            found = _loose_event(message.payload)
            if found is None:
                self.failure = WireError(
                    f"the event {message.name!r} is not a JSON object: "
                    f"{plain_text(message.payload, limit=400)}"
                )
                return
            event = found
        name = message.name
        if name == "contentBlockDelta":
            self._seen = True
            if event.delta is not None:
                self._delta(event.content_block_index, event.delta, chunks, loose)
        elif name == "contentBlockStart":
            self._seen = True
            self._block_start(event.content_block_index, event.start or {}, chunks)
        elif name == "contentBlockStop":
            self._block_stop(event.content_block_index, chunks)
        elif name == "messageStart":
            self._seen = True
        elif name == "messageStop":
            self._seen = True
            self.finish_reason = jsontext.heal(event.stop_reason or "")
            self._flush(chunks)
            self.complete = True
        elif name == "metadata":
            usage = usage_from_bedrock(
                event.usage,
                service_tier=(_mapping(event.service_tier) or {}).get("type"),
            )
            if usage is not None:
                chunks.append(self._reply.usage(usage))
            self._masked = _only_masked(message.payload)
            if self.complete:
                self.done = True
                self._end(chunks)
        else:
            self.skipped += 1

    def _delta(self, index: int, delta: _Delta, chunks: list[ChatChunk], loose: bool) -> None:
        reply = self._reply
        if delta.text is not None:
            if delta.text and (chunk := reply.text(delta.text, loose)):
                chunks.append(chunk)
        elif delta.tool_use is not None:
            block = self._blocks.get(index)
            if delta.tool_use.input:
                reply.progress += 1
                if type(block) is _Call:
                    self._keep(delta.tool_use.input, block.arguments)
        elif delta.reasoning_content is not None:
            block = self._blocks.get(index)
            if type(block) is not _Thought:
                if not self._room():
                    return
                block = self._blocks[index] = _Thought()
            part = delta.reasoning_content
            if part.text is not None:
                self._keep(part.text, block.text)
                if chunk := reply.thinking(part.text, loose):
                    chunks.append(chunk)
            elif part.signature or part.redacted_content:
                reply.progress += 1
            if part.signature:
                self._keep(part.signature, block.signature)
            if part.redacted_content:
                self._keep(part.redacted_content, block.redacted)
        elif delta.tool_result is not None or delta.citation is not None:
            reply.progress += 1
        else:
            self.skipped += 1

    def _keep(self, text: str, parts: list[str]) -> None:
        self._kept += len(text) + TEXT_OVERHEAD
        if self._kept > _MAX_KEPT:
            self.failure = WireError(
                f"reasoning and tool arguments of one reply take more than {_MAX_KEPT} bytes"
            )
        else:
            parts.append(text)

    def _room(self) -> bool:
        if len(self._blocks) + len(self._held_calls) < _MAX_BLOCKS:
            return True
        self.failure = WireError(f"more than {_MAX_BLOCKS} blocks are open in one reply")
        return False

    def _block_start(self, index: int, start: Mapping[str, Any], chunks: list[ChatChunk]) -> None:
        if index in self._blocks:
            self._block_stop(index, chunks)
        if not self._room():
            return
        use = _mapping(start.get("toolUse"))
        if use is not None and use.get("type") != "server_tool_use":
            self._blocks[index] = _Call(use)
        else:
            self._blocks[index] = None
            if start and use is None and "toolResult" not in start and "image" not in start:
                self.skipped += 1

    def _block_stop(self, index: int, chunks: list[ChatChunk]) -> None:
        block = self._blocks.pop(index, None)
        if type(block) is _Call:
            # Arguments that do not parse are told from arguments that were cut by the reason why
            # the reply stopped, which is still to come.
            if _is_json(block.text()):
                chunks.append(self._reply.call(block.id, block.name, block.text()))
            else:
                self._held_calls.append(block)
        elif type(block) is _Thought:
            self._think(block, chunks)

    def _think(self, thought: _Thought, chunks: list[ChatChunk]) -> None:
        blocks: list[dict[str, Any]] = []
        if thought.redacted:
            blocks.append({"redactedContent": _joined_base64(thought.redacted)})
        if thought.text or thought.signature:
            text: dict[str, str] = {"text": jsontext.heal("".join(thought.text))}
            if thought.signature:
                text["signature"] = jsontext.heal("".join(thought.signature))
            blocks.append({"reasoningText": text})
        if blocks:
            chunks.append(self._reply.state({"aws": {"reasoning": blocks}}))

    def _flush(self, chunks: list[ChatChunk]) -> None:
        for index in list(self._blocks):
            self._block_stop(index, chunks)
        for call in self._held_calls:
            if self.finish_reason in _CUT_SHORT:
                logger.warning(
                    "tool call dropped: the reply stopped (%s) inside its arguments",
                    self.finish_reason,
                    extra={"tool": call.name},
                )
            else:
                chunks.append(self._reply.call(call.id, call.name, call.text()))
        self._held_calls.clear()
        chunks += self._reply.rest()

    def _end(self, chunks: list[ChatChunk]) -> None:
        reason = self.finish_reason or ""
        if reason in _REFUSALS and not (reason == "guardrail_intervened" and self._masked):
            what = (
                "a guardrail stopped the reply"
                if reason == "guardrail_intervened"
                else "the reply was blocked"
            )
            self.failure = RefusalError(f"{what} (stopReason {reason})", reason=reason)
        elif reason in _MALFORMED:
            self.failure = WireError(
                f"the model wrote a reply that cannot be read (stopReason {reason})"
            )
        else:
            self.failure = self._reply.empty_reply_error(
                self._allow_empty,
                f"stopReason {reason}",
                retryable=reason not in _CUT_SHORT,
            )


def decode_error(status: int, headers: Mapping[str, str], body: bytes) -> APIError:
    """The error for an answer that is not a stream.

    Args:
        headers: by lower-case name.
    """
    error: APIError
    if 200 <= status < 300:
        answer = read_json_object(body)
        if answer is not None and (answer.get("message") or answer.get("Message")):
            error = http_error(500, headers, body)
        else:
            error = unexpected_body(body, "an AWS event stream")
    else:
        error = http_error(status, headers, body)
    pause = retry_after(headers)
    if pause is not None:
        error.retry_after = pause
    return error


def _only_masked(payload: bytes) -> bool:
    """Whether the trace of a guardrail in `payload` tells of masked words and of no block."""
    return b'"BLOCKED"' not in payload and (
        b'"ANONYMIZED"' in payload or b"Guardrail masked" in payload
    )


def _joined_base64(parts: list[str]) -> str:
    """Base64 of the bytes that `parts` stand for together."""
    if len(parts) == 1:
        return jsontext.heal(parts[0])
    try:
        data = b"".join(base64.b64decode(part, validate=True) for part in parts)
    except (binascii.Error, ValueError):
        return jsontext.heal("".join(parts))
    return base64.b64encode(data).decode()


def _loose_event(payload: bytes) -> _Event | None:
    """An event whose members have unexpected types, or whose JSON only tolerant readers take."""
    try:
        raw = _mapping(jsontext.decode(payload))
    except ValueError:
        return None
    if raw is None:
        return None
    index = raw.get("contentBlockIndex")
    delta = _mapping(raw.get("delta"))
    return _Event(
        content_block_index=index if type(index) is int else 0,
        delta=None if delta is None else _loose_delta(delta),
        start=_mapping(raw.get("start")),
        stop_reason=_word(raw.get("stopReason")) or None,
        usage=_mapping(raw.get("usage")),
        service_tier=raw.get("serviceTier"),
    )


def _loose_delta(raw: Mapping[str, Any]) -> _Delta:
    text = raw.get("text")
    use = _mapping(raw.get("toolUse"))
    reasoning = _mapping(raw.get("reasoningContent"))
    tool_use: _ToolUse | None = None
    if use is not None:
        arguments = use.get("input")
        if isinstance(arguments, dict):  # some servers send an object where text belongs
            arguments = jsontext.encode(cast("object", arguments)).decode()
        tool_use = _ToolUse(input=arguments if isinstance(arguments, str) else None)
    return _Delta(
        text=text if isinstance(text, str) else None,
        tool_use=tool_use,
        reasoning_content=None
        if reasoning is None
        else _Reasoning(
            text=_word(reasoning.get("text")) or None,
            signature=_word(reasoning.get("signature")) or None,
            redacted_content=_word(reasoning.get("redactedContent")) or None,
        ),
        citation=raw.get("citation"),
        tool_result=raw.get("toolResult"),
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
