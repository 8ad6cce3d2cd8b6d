"""Reads the replies of Bedrock's ConverseStream. Pure.

A reply ends with ``messageStop``; the usage follows in ``metadata``. Bytes that end before
``messageStop`` are an error, and so is an exception frame, with the status for its name. Reasoning never
becomes content. Complete and signed, it is passed on with what follows it: in the `extra` of a call, or
in ``delta.extra["aws"]["reasoning"]`` before a text, to be sent back unchanged and in its place. Text
blocks have no start event, every event has unknown members (padding), and calls of tools that ran at
the provider are not run here.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Mapping
from typing import Any, Final

import msgspec

from rejoinder._core import jsontext
from rejoinder._core.bodies import plain_text, read_json_object
from rejoinder._core.chunks import CompletionUsage
from rejoinder._core.families import UNKNOWN, Family
from rejoinder.clouds.aws_errors import http_error
from rejoinder.errors import APIConnectionError, APIError, RefusalError, WireError
from rejoinder.providers.answering.arguments import Arguments, is_object, warn_cut_call
from rejoinder.providers.answering.chunks import Reply
from rejoinder.providers.answering.decoder import ReplyDecoder
from rejoinder.providers.answering.errors import retry_after, unexpected_body
from rejoinder.providers.answering.framings import FrameEvents
from rejoinder.providers.answering.marks import ReplyMarks
from rejoinder.providers.answering.reasons import is_cut
from rejoinder.providers.aws.usage import usage_from_bedrock

__all__ = ["ConverseReader", "decode_error", "make_decoder"]

_REFUSALS: Final = frozenset({"guardrail_intervened", "content_filtered", "refusal"})
_MALFORMED: Final = frozenset({"malformed_model_output", "malformed_tool_use"})
_MAX_BLOCKS: Final = 10_000


class _ToolUse(msgspec.Struct, rename="camel", gc=False):
    input: str | None = None


class _Reasoning(msgspec.Struct, rename="camel", gc=False):
    text: str | None = None
    signature: str | None = None
    redacted_content: str | None = None


class _Delta(msgspec.Struct, rename="camel", gc=False):
    text: str | None = None
    tool_use: _ToolUse | None = None
    reasoning_content: _Reasoning | None = None
    citation: dict[str, Any] | None = None
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
        self.id = jsontext.as_text(raw.get("toolUseId"))
        self.name = jsontext.as_text(raw.get("name"))
        self.arguments = Arguments()


class _Thought:
    __slots__ = ("redacted", "signature", "text")

    def __init__(self) -> None:
        self.text: list[str] = []
        self.signature: list[str] = []
        self.redacted: list[str] = []


def make_decoder(*, allow_empty: bool = False, family: Family = UNKNOWN) -> ReplyDecoder:
    """A decoder for one reply of ConverseStream.

    Args:
        allow_empty: accept an empty answer, which is legal after a tool output.
        family: the model's family, which determines the marks it leaves in the text.
    """
    reader = ConverseReader(allow_empty=allow_empty, family=family)
    return ReplyDecoder(FrameEvents(), reader, prefix="bedrock_", checksums=True, track_text=True)


class ConverseReader:
    """Reads the events of one reply; for the arguments see `make_decoder`."""

    __slots__ = (
        "_allow_empty",
        "_answered",
        "_blocks",
        "_held_calls",
        "_marks",
        "_masked",
        "_pending",
        "_tier",
        "_told",
        "_usage",
    )

    expected = "an AWS event stream"

    def __init__(self, *, allow_empty: bool = False, family: Family = UNKNOWN) -> None:
        self._allow_empty = allow_empty
        # Amazon Nova and Claude 3 write their thoughts between tags before a tool call.
        self._marks = ReplyMarks(family, think=False)
        self._blocks: dict[int, _Call | _Thought | None] = {}
        self._held_calls: list[tuple[_Call, list[dict[str, Any]]]] = []
        self._pending: list[dict[str, Any]] = []  # reasoning that belongs to the next block
        self._told = 0  # number of text pieces before the released reasoning
        self._answered = False
        self._masked = False
        self._usage: Any = None
        self._tier: Any = None

    def usage(self) -> CompletionUsage | None:
        """The provider's token counts, which arrive at the end."""
        tier = jsontext.as_mapping(self._tier) or {}
        return usage_from_bedrock(self._usage, service_tier=tier.get("type"))

    # -- events ------------------------------------------------------------------------------

    def event(self, name: str | None, payload: bytes, reply: Reply) -> None:
        """Read one event."""
        loose = False
        try:
            event = _decode_event(payload)
        except (msgspec.MsgspecError, UnicodeError, RecursionError):
            loose = True
            value = reply.tolerant(payload)
            found = _loose_event(value)
            if found is None:
                if reply.failure is None:
                    shown = plain_text(payload)
                    reply.fail(
                        WireError(f"the event {name!r} is not a JSON object: {shown}", body=shown)
                    )
                return
            event = found
        if name == "contentBlockDelta":
            delta = event.delta
            if delta is not None:
                text = delta.text
                if text is not None:
                    if "<" in text or self._marks.busy or self._pending:
                        self._text(text, reply, loose)
                    else:
                        reply.text(text, loose)
                else:
                    self._delta(event.content_block_index, delta, reply, loose)
        elif name == "contentBlockStart":
            self._block_start(event.content_block_index, event.start or {}, reply)
        elif name == "contentBlockStop":
            self._block_stop(event.content_block_index, reply)
        elif name == "messageStop":
            reply.finish_reason = jsontext.heal(event.stop_reason or "")
            self._flush(reply)
            self._answered = True
            reply.answered()
        elif name == "metadata":
            self._usage = event.usage
            self._tier = event.service_tier
            reply.usage(self.usage())
            self._masked = _only_masked(payload)
            if self._answered:
                self._end(reply)
        elif name != "messageStart":
            reply.skipped += 1

    def whole(self, body: bytes, reply: Reply) -> None:
        """Read a whole reply, or an error, that arrived instead of a stream."""
        answer = read_json_object(body) or {}
        message = jsontext.as_mapping(
            (jsontext.as_mapping(answer.get("output")) or {}).get("message")
        )
        if message is None:
            reply.fail(decode_error(200, {}, body))
            return
        for entry in reply.entries(message.get("content")):
            self._whole_block(jsontext.as_mapping(entry) or {}, reply)
        self._usage = answer.get("usage")
        self._tier = answer.get("serviceTier")
        reply.finish_reason = jsontext.heal(jsontext.as_text(answer.get("stopReason"))) or None
        self._flush(reply)
        reply.usage(self.usage())
        self._masked = _only_masked(body)
        if reply.finish_reason is None:
            reply.fail(WireError("a whole reply without a stopReason"))
        else:
            self._end(reply)

    def ended(self, reply: Reply) -> None:
        """The bytes have ended."""
        if self._answered:
            self._end(reply)
        else:
            reply.fail(
                APIConnectionError(
                    "the stream ended before messageStop: the reply is incomplete"
                ).but(section="cut")
            )

    def _whole_block(self, block: dict[str, Any], reply: Reply) -> None:
        use = jsontext.as_mapping(block.get("toolUse"))
        cited = jsontext.as_mapping(block.get("citationsContent"))
        if use is not None:
            if use.get("type") != "server_tool_use":
                call = _Call(use)
                call.arguments.add(jsontext.encode(use.get("input") or {}).decode())
                self._end_call(call, reply)
        elif "reasoningContent" in block:
            self._whole_thought(jsontext.as_mapping(block["reasoningContent"]) or {}, reply)
        elif cited is not None:
            for part in reply.entries(cited.get("content")):
                text = (jsontext.as_mapping(part) or {}).get("text")
                self._text(jsontext.as_text(text), reply, True)
            for citation in reply.entries(cited.get("citations")):
                self._citation(jsontext.as_mapping(citation), reply)
        else:
            self._text(jsontext.as_text(block.get("text")), reply, True)

    def _whole_thought(self, raw: Mapping[str, Any], reply: Reply) -> None:
        thought = _Thought()
        inner = jsontext.as_mapping(raw.get("reasoningText")) or {}
        text = jsontext.as_text(inner.get("text"))
        reply.thinking(text, may_have_surrogates=True)
        if text:
            thought.text.append(text)
        if jsontext.as_text(inner.get("signature")):
            thought.signature.append(jsontext.as_text(inner.get("signature")))
        if jsontext.as_text(raw.get("redactedContent")):
            thought.redacted.append(jsontext.as_text(raw.get("redactedContent")))
        self._end_thought(thought)

    def _text(self, text: str, reply: Reply, loose: bool) -> None:
        if self._pending and text:
            self._release(reply)
        marks = self._marks
        if "<" in text or marks.busy:
            marks.split(text, reply, loose)
        else:
            reply.text(text, loose)

    def _delta(self, index: int, delta: _Delta, reply: Reply, loose: bool) -> None:
        if delta.tool_use is not None:
            block = self._blocks.get(index)
            text = delta.tool_use.input
            if text and type(block) is _Call:
                if block.arguments.add(text):
                    reply.output_count += 1
                reply.keep_text(text)
            elif text:
                reply.output_count += 1
        elif delta.reasoning_content is not None:
            self._reasoning(index, delta.reasoning_content, reply, loose)
        elif delta.citation is not None:
            reply.output_count += 1
            self._citation(delta.citation, reply)
        elif delta.tool_result is not None:
            reply.output_count += 1
        else:
            reply.skipped += 1

    def _reasoning(self, index: int, part: _Reasoning, reply: Reply, loose: bool) -> None:
        block = self._blocks.get(index)
        if type(block) is not _Thought:
            if not self._has_room(reply):
                return
            block = self._blocks[index] = _Thought()
        if part.text is not None:
            if reply.keep_text(part.text):
                block.text.append(part.text)
            reply.thinking(part.text, loose)
        elif part.signature or part.redacted_content:
            reply.output_count += 1
        if part.signature and reply.keep_text(part.signature):
            block.signature.append(part.signature)
        if part.redacted_content and reply.keep_text(part.redacted_content):
            block.redacted.append(part.redacted_content)

    def _citation(self, citation: dict[str, Any] | None, reply: Reply) -> None:
        if citation and reply.keep_value(citation):
            reply.provider_state({"aws": {"citations": [citation]}})

    # -- blocks ------------------------------------------------------------------------------

    def _has_room(self, reply: Reply) -> bool:
        if len(self._blocks) + len(self._held_calls) < _MAX_BLOCKS:
            return True
        reply.fail(WireError(f"more than {_MAX_BLOCKS} blocks are open in one reply"))
        return False

    def _block_start(self, index: int, start: Mapping[str, Any], reply: Reply) -> None:
        if index in self._blocks:
            self._block_stop(index, reply)
        if not self._has_room(reply):
            return
        use = jsontext.as_mapping(start.get("toolUse"))
        if use is not None and use.get("type") != "server_tool_use":
            call = self._blocks[index] = _Call(use)
            reply.keep(len(call.id) + len(call.name))
        else:
            self._blocks[index] = None
            if start and use is None and "toolResult" not in start and "image" not in start:
                reply.skipped += 1

    def _block_stop(self, index: int, reply: Reply) -> None:
        block = self._blocks.pop(index, None)
        if type(block) is _Call:
            self._end_call(block, reply)
        elif type(block) is _Thought:
            self._end_thought(block)

    def _end_call(self, call: _Call, reply: Reply) -> None:
        state, self._pending = self._pending, []
        if is_object(call.arguments.text()) and not self._held_calls:
            self._hand_out(call, state, reply)
        else:
            # Only the reason why the reply stopped, which is still to come, shows whether incomplete
            # arguments were cut. The others keep their order behind it.
            self._held_calls.append((call, state))

    def _hand_out(self, call: _Call, state: list[dict[str, Any]], reply: Reply) -> None:
        self._marks.after_call()
        reply.call(
            call.id,
            call.name,
            call.arguments.text(),
            {"aws": {"reasoning": state}} if state else None,
        )

    def _end_thought(self, thought: _Thought) -> None:
        if thought.redacted:
            self._pending.append({"redactedContent": _joined_base64(thought.redacted)})
        if thought.text or thought.signature:
            text: dict[str, str] = {"text": jsontext.heal("".join(thought.text))}
            if thought.signature:
                text["signature"] = jsontext.heal("".join(thought.signature))
            self._pending.append({"reasoningText": text})

    def _release(self, reply: Reply) -> None:
        """Attach reasoning before a text to the message, with the text that precedes it."""
        if self._pending:
            text = ""
            if reply.sent is not None:  # else it is too long to be kept
                text = "".join(reply.sent.pieces[self._told :])
                self._told = len(reply.sent.pieces)
            entries = [{"text": text}, *self._pending] if text.strip() else self._pending
            reply.provider_state({"aws": {"reasoning": entries}})
            self._pending = []

    def _flush(self, reply: Reply) -> None:
        """Add the text that was held back."""
        for index in list(self._blocks):
            self._block_stop(index, reply)
        self._marks.finish(reply)
        reason = reply.finish_reason
        for call, state in self._held_calls:
            if is_cut(reason) and not is_object(call.arguments.text()):
                warn_cut_call(call.name, reason)
                self._pending = [*state, *self._pending]
            else:
                self._hand_out(call, state, reply)
        self._held_calls.clear()
        if reply.has_calls:
            self._pending = []  # after the calls: it produced nothing, and no turn may end with it
        self._release(reply)
        reply.flush()

    def _end(self, reply: Reply) -> None:
        reason = reply.finish_reason or ""
        if reason in _REFUSALS and not (reason == "guardrail_intervened" and self._masked):
            what = (
                "a guardrail stopped the reply"
                if reason == "guardrail_intervened"
                else "the reply was blocked"
            )
            reply.fail(RefusalError(f"{what} (stopReason {reason})", reason=reason))
        elif reason in _MALFORMED:
            reply.fail(WireError(f"the model wrote a malformed reply (stopReason {reason})"))
        else:
            reply.fail_if_empty(
                self._allow_empty, f"stopReason {reason}", retryable=not is_cut(reason)
            )
        reply.end()


def decode_error(status: int, headers: Mapping[str, str], body: bytes) -> APIError:
    """The error for a response that is not a stream.

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
    return error if pause is None else error.but(retry_after=pause)


def _only_masked(payload: bytes) -> bool:
    """Whether the trace of a guardrail in `payload` reports only masked words, and no block."""
    return b'"BLOCKED"' not in payload and (
        b'"ANONYMIZED"' in payload or b"Guardrail masked" in payload
    )


def _joined_base64(parts: list[str]) -> str:
    """Base64 of the joined bytes of `parts`."""
    if len(parts) == 1:
        return jsontext.heal(parts[0])
    try:
        data = b"".join(base64.b64decode(part, validate=True) for part in parts)
    except (binascii.Error, ValueError):
        return jsontext.heal("".join(parts))
    return base64.b64encode(data).decode()


def _loose_event(value: object) -> _Event | None:
    """Read an event whose members have unexpected types, or whose JSON is not strictly valid."""
    raw = jsontext.as_mapping(value)
    if raw is None:
        return None
    index = raw.get("contentBlockIndex")
    delta = jsontext.as_mapping(raw.get("delta"))
    return _Event(
        content_block_index=index if type(index) is int else 0,
        delta=None if delta is None else _loose_delta(delta),
        start=jsontext.as_mapping(raw.get("start")),
        stop_reason=jsontext.as_text(raw.get("stopReason")) or None,
        usage=jsontext.as_mapping(raw.get("usage")),
        service_tier=raw.get("serviceTier"),
    )


def _loose_delta(raw: Mapping[str, Any]) -> _Delta:
    text = raw.get("text")
    use = jsontext.as_mapping(raw.get("toolUse"))
    reasoning = jsontext.as_mapping(raw.get("reasoningContent"))
    tool_use: _ToolUse | None = None
    if use is not None:
        given = jsontext.as_mapping(use.get("input"))  # where text belongs
        text_of = jsontext.as_text(use.get("input")) or None
        tool_use = _ToolUse(input=text_of if given is None else jsontext.encode(given).decode())
    return _Delta(
        text=text if isinstance(text, str) else None,
        tool_use=tool_use,
        reasoning_content=None
        if reasoning is None
        else _Reasoning(
            text=jsontext.as_text(reasoning.get("text")) or None,
            signature=jsontext.as_text(reasoning.get("signature")) or None,
            redacted_content=jsontext.as_text(reasoning.get("redactedContent")) or None,
        ),
        citation=jsontext.as_mapping(raw.get("citation")),
        tool_result=raw.get("toolResult"),
    )
