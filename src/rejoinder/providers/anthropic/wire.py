"""Reads the replies of Anthropic's Messages API. Pure.

A reply ends with ``message_stop``; bytes that end before it are an error. An error event is raised
after the chunks before it, with the status for its type. Thinking never becomes content; it is passed on
as ``delta.thinking``. Signed thinking and the blocks of tools that run at Anthropic must be sent back
unchanged and in their place. So they are passed on with what follows them: in the `extra` of a call, or
in ``delta.extra["anthropic"]["thinking"]`` before a text; see `rejoinder.providers.anthropic.state`. A
reply that pauses (``pause_turn``) while such a tool runs continues when its blocks are sent back. Usage
is cumulative: the last count wins. Events arrive as SSE or, from Bedrock, in event-stream frames.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final, Literal

import msgspec

from rejoinder._core import jsontext
from rejoinder._core.bodies import plain_text, read_json_object
from rejoinder._core.chunks import CompletionUsage
from rejoinder._core.families import UNKNOWN, Family
from rejoinder.clouds.aws_errors import http_error
from rejoinder.errors import (
    APIConnectionError,
    APIError,
    RefusalError,
    WireError,
    create_api_error_from_http,
)
from rejoinder.providers.answering.arguments import Arguments, is_object, warn_cut_call
from rejoinder.providers.answering.chunks import Reply
from rejoinder.providers.answering.decoder import Framing, ReplyDecoder
from rejoinder.providers.answering.errors import retry_after, unexpected_body
from rejoinder.providers.answering.framings import FrameEvents, sse_events
from rejoinder.providers.answering.marks import ReplyMarks
from rejoinder.providers.answering.names import model_name
from rejoinder.providers.answering.reasons import is_cut
from rejoinder.providers.anthropic.state import (
    CONTAINER,
    FIELDS,
    HOST,
    OWN_FIELDS,
    SERVER_CALLS,
    STATE,
    THINKING,
    is_result,
)
from rejoinder.providers.anthropic.usage import usage_from_anthropic

__all__ = ["MessagesReader", "decode_error", "make_decoder"]

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
"""The HTTP status of each error type if it occurs before the stream."""

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
_DIRECT: Final = {"type": "direct"}
"""The usual `caller` of a call: the model itself."""
_SILENT: Final = frozenset({"redacted_thinking", "compaction", "fallback"})
"""Blocks that are sent back unchanged and are not shown to the user. A ``fallback`` block marks where
another model took over. Without it, the API refuses the thinking around that place
(code-yeongyu/senpi PR#99)."""
_LOST: Final[dict[str, Any]] = {}
"""In the record of a reply: a block that cannot be sent back unchanged."""
_PAUSED: Final = frozenset({"compaction", "pause_turn"})
"""Stop reasons of replies that continue when they are sent back (Anthropic's guides to stop reasons and
to compaction)."""
_MAX_BLOCKS: Final = 10_000


class _Delta(msgspec.Struct, gc=False):
    type: str | None = None
    text: str | None = None
    thinking: str | None = None
    partial_json: str | None = None
    signature: str | None = None
    content: str | None = None
    citation: dict[str, Any] | None = None
    stop_reason: str | None = None
    container: dict[str, Any] | None = None
    stop_details: Any = None


class _Event(msgspec.Struct, gc=False):
    type: str = ""
    index: int = 0
    delta: _Delta | None = None
    content_block: dict[str, Any] | None = None
    message: dict[str, Any] | None = None
    usage: dict[str, Any] | None = None
    error: Any = None


_OBJECTS: Final = frozenset({"citation", "container"})
_decode_event = msgspec.json.Decoder(_Event).decode


class _Call:
    """A call of one of our tools, or of a tool that runs at Anthropic."""

    __slots__ = ("arguments", "raw")

    def __init__(self, raw: Mapping[str, Any]) -> None:
        self.raw = raw
        self.arguments = Arguments()

    def text(self) -> str:
        joined = self.arguments.text()
        given = jsontext.as_mapping(self.raw.get("input"))
        if given and joined.strip() in ("", "{}"):
            # Some servers put all arguments into the start of the block and send no fragments.
            return jsontext.encode(given).decode()
        return joined


class _State:
    """A block that must be sent back unchanged: thinking, or a result of Anthropic's own tools."""

    __slots__ = ("partial", "raw", "signature", "text")

    def __init__(self, raw: Mapping[str, Any]) -> None:
        self.raw = raw
        self.partial = False  # further parts arrived in an unknown form
        self.text = [jsontext.as_text(raw.get("thinking"))]
        self.signature = jsontext.as_text(raw.get("signature"))


class _Text:
    """An open text block: its place in the text of the reply, and its citations."""

    __slots__ = ("begin", "citations")

    def __init__(self, begin: int) -> None:
        self.begin = begin
        self.citations: list[Any] = []


def make_decoder(
    *,
    allow_empty: bool = False,
    framing: Literal["sse", "eventstream"] = "sse",
    host: str = "",
    family: Family = UNKNOWN,
) -> ReplyDecoder:
    """A decoder for the stream of one message.

    Args:
        allow_empty: accept an empty answer, which is legal after a tool output.
        host: the server to which state is sent back, if it is not a host of Claude.
        framing: ``"sse"``, or ``"eventstream"`` for Bedrock's invoke-with-response-stream.
        family: the model's family, which determines the marks it leaves in the text.
    """
    frames: Framing = sse_events() if framing == "sse" else FrameEvents(wrapped=True)
    reader = MessagesReader(allow_empty=allow_empty, host=host, family=family)
    return ReplyDecoder(
        frames, reader, prefix="msg_", track_text=True, checksums=framing == "eventstream"
    )


class MessagesReader:
    """Reads the events of one message; for the arguments see `make_decoder`."""

    __slots__ = (
        "_allow_empty",
        "_blocks",
        "_container",
        "_from",
        "_held_calls",
        "_marks",
        "_pending",
        "_record",
        "_stop_details",
        "_texts",
        "_usage",
    )

    expected = "a stream of events"

    def __init__(
        self, *, allow_empty: bool = False, host: str = "", family: Family = UNKNOWN
    ) -> None:
        self._allow_empty = allow_empty
        self._from = {HOST: host} if host else {}
        # Claude 3 writes its thoughts between tags before a tool call.
        self._marks = ReplyMarks(family, think=False)
        self._blocks: dict[int, _Call | _State | _Text | None] = {}
        self._held_calls: list[tuple[_Call, list[dict[str, Any]]]] = []
        self._pending: list[dict[str, Any]] = []  # state that belongs to the next block
        # the texts before that state, if their order must be kept
        self._texts: list[dict[str, Any]] = []
        self._record: list[dict[str, Any]] = []  # all blocks, to be sent back after a pause
        self._container: Mapping[str, Any] | None = None  # the container of Anthropic's tools
        self._usage: dict[str, Any] = {}
        self._stop_details: Any = None

    def usage(self) -> CompletionUsage | None:
        """The token counts so far; those of the prompt arrive with the first event."""
        return usage_from_anthropic(self._usage)

    # -- events ------------------------------------------------------------------------------

    def event(self, name: str | None, payload: bytes, reply: Reply) -> None:
        """Read one event."""
        loose = False
        try:
            event = _decode_event(payload)
        except (msgspec.MsgspecError, UnicodeError, RecursionError):
            loose = True
            value = reply.tolerant(payload)
            if value is None:
                return
            found = _loose_event(value)
            if found is None:
                shown = plain_text(payload)
                reply.fail(WireError(f"an event is not a JSON object: {shown}", body=shown))
                return
            event = found
        kind = event.type or name or ""  # some servers send it only once
        if kind == "content_block_delta":
            delta = event.delta
            if delta is not None:
                text = delta.text
                if text is not None:
                    marks = self._marks
                    if "<" in text or marks.busy:
                        marks.split(text, reply, loose)
                    else:
                        reply.text(text, loose)
                else:
                    self._delta(event.index, delta, reply, loose)
        elif kind == "content_block_start":
            self._block_start(event.index, event.content_block or {}, reply, loose)
        elif kind == "content_block_stop":
            self._block_stop(event.index, reply)
        elif kind == "message_start":
            message = event.message or {}
            reply.id = jsontext.heal(jsontext.as_text(message.get("id"))) or reply.id
            reply.model = model_name(message.get("model"))
            self._container = jsontext.as_mapping(message.get("container"))
            self._merge_usage(message.get("usage"))
        elif kind == "message_delta":
            if event.delta is not None and event.delta.stop_reason is not None:
                reply.finish_reason = event.delta.stop_reason
                self._stop_details = event.delta.stop_details
                self._container = event.delta.container or self._container
            self._merge_usage(event.usage)
        elif kind == "message_stop":
            self._stop(reply)
        elif kind == "error" or (not kind and event.error is not None):
            self._error(event, payload, reply)
        elif kind != "ping":
            reply.skipped += 1

    def whole(self, body: bytes, reply: Reply) -> None:
        """Read a whole message, or an error, that arrived instead of a stream."""
        message = read_json_object(body)
        if message is None or message.get("type") != "message":
            reply.fail(decode_error(200, {}, body))
            return
        reply.id = jsontext.heal(jsontext.as_text(message.get("id"))) or reply.id
        reply.model = model_name(message.get("model"))
        for number, entry in enumerate(reply.entries(message.get("content"))):
            block = jsontext.as_mapping(entry) or {}
            self._block_start(number, block, reply, True)
            self._block_stop(number, reply)
        self._merge_usage(message.get("usage"))
        reply.finish_reason = jsontext.as_text(message.get("stop_reason")) or None
        self._stop_details = message.get("stop_details")
        self._container = jsontext.as_mapping(message.get("container"))
        if reply.finish_reason is None:
            reply.fail(WireError("a whole message without a stop_reason"))
        else:
            self._stop(reply)

    def ended(self, reply: Reply) -> None:
        """The bytes have ended without an end mark."""
        reply.fail(
            APIConnectionError("the stream ended before message_stop: the reply is incomplete").but(
                section="cut"
            )
        )

    def _error(self, event: _Event, payload: bytes, reply: Reply) -> None:
        detail = event.error
        if detail is None:  # gateways put their upstream's unchanged error into the event
            detail = jsontext.decode(payload)
        reply.fail(_error(detail, status=None, request_id=None))

    def _delta(self, index: int, delta: _Delta, reply: Reply, loose: bool) -> None:
        block = self._blocks.get(index)
        if delta.partial_json is not None:
            if type(block) is _Call:
                if block.arguments.add(delta.partial_json):
                    reply.output_count += 1
                reply.keep_text(delta.partial_json)
            elif delta.partial_json:
                reply.output_count += 1
        elif delta.thinking is not None:
            reply.thinking(delta.thinking, loose)
            if type(block) is _State and reply.keep_text(delta.thinking):
                block.text.append(delta.thinking)
        elif delta.signature is not None:
            reply.output_count += 1
            if type(block) is _State and reply.keep_text(delta.signature):
                block.signature = delta.signature
        elif delta.type == "citations_delta":
            if delta.citation and reply.keep_value(delta.citation):
                if type(block) is _Text:
                    block.citations.append(delta.citation)
                reply.provider_state({"anthropic": {"citations": [delta.citation]}})
        elif delta.type == "compaction_delta":
            if type(block) is _State and reply.keep_text(delta.content or ""):
                block.raw = {**block.raw, "content": delta.content}
        else:
            reply.skipped += 1
            if type(block) is _State:
                block.partial = True

    # -- blocks ------------------------------------------------------------------------------

    def _block_start(self, index: int, raw: Mapping[str, Any], reply: Reply, loose: bool) -> None:
        if index in self._blocks:
            self._block_stop(index, reply)
        if len(self._blocks) + len(self._held_calls) >= _MAX_BLOCKS:
            reply.fail(WireError(f"more than {_MAX_BLOCKS} blocks are open in one reply"))
            return
        kind = jsontext.as_text(raw.get("type"))
        block: _Call | _State | _Text | None = None
        if kind == "text":
            self._release(reply)
            block = _Text(0 if reply.sent is None else len(reply.sent.pieces))
            text = jsontext.as_text(raw.get("text"))
            if text:
                self._marks.split(text, reply, loose)
            citations = jsontext.as_list(raw.get("citations"))
            if citations and reply.keep_value(citations):
                block.citations += citations
                reply.provider_state({"anthropic": {"citations": citations}})
        elif kind == "tool_use" or kind in SERVER_CALLS:
            block = _Call(raw)
            reply.keep_value(raw)
        elif kind == "thinking":
            block = _State(raw)
            reply.thinking(block.text[0], loose)
        elif kind:
            block = _State(raw)
            reply.keep_value(raw)
            if kind not in _SILENT and not is_result(kind):
                reply.skipped += 1
        else:
            reply.skipped += 1
        self._blocks[index] = block

    def _block_stop(self, index: int, reply: Reply) -> None:
        block = self._blocks.pop(index, None)
        if type(block) is _Text:
            self._marks.finish(reply)
            self._end_text(block, reply)
        elif type(block) is _Call:
            self._end_call(block, reply)
        elif type(block) is _State:
            self._end_state(block, reply)

    def _end_text(self, block: _Text, reply: Reply) -> None:
        if reply.sent is None:  # too long to be kept
            self._record.append(_LOST)
            return
        text = "".join(reply.sent.pieces[block.begin :])
        if not text.strip():
            return
        entry: dict[str, Any] = {"type": "text", "text": text}
        if block.citations:
            entry["citations"] = block.citations
        self._record.append(entry)
        self._texts.append(entry)
        if block.citations:
            self._put_in_order([], reply)

    def _end_call(self, call: _Call, reply: Reply) -> None:
        if call.raw.get("type") in SERVER_CALLS:
            text = call.text()
            given: Any = jsontext.decode(text) if is_object(text) else {}
            self._keep({**call.raw, "input": given or {}}, reply)
        elif is_object(call.text()) and not self._held_calls:
            self._hand_out(call, self._pending, reply)
            self._pending = []
        else:
            # Only the reason why the reply stopped, which is still to come, shows whether incomplete
            # arguments were cut. The others keep their order behind it.
            self._held_calls.append((call, self._pending))
            self._pending = []

    def _end_state(self, block: _State, reply: Reply) -> None:
        if block.raw.get("type") == "thinking":
            if block.signature:
                thought = jsontext.heal("".join(block.text))
                signature = jsontext.heal(block.signature)
                kept = {**block.raw, "thinking": thought, "signature": signature}
                self._keep(kept, reply)
        elif not block.partial and (
            block.raw.get("type") != "redacted_thinking" or jsontext.as_text(block.raw.get("data"))
        ):
            self._keep({**block.raw}, reply)
        else:
            self._record.append(_LOST)

    def _keep(self, block: dict[str, Any], reply: Reply) -> None:
        reply.output_count += 1
        self._pending.append(block)
        self._record.append(block)

    def _release(self, reply: Reply) -> None:
        """Attach state before a text to the message."""
        if self._pending:
            self._put_in_order(self._pending, reply)
            self._pending = []

    def _put_in_order(self, state: list[dict[str, Any]], reply: Reply) -> None:
        """Keep `state`, preceded by the texts before it."""
        for block in (*self._texts, *state):
            reply.provider_state({"anthropic": {STATE: [block], **self._from}})
        self._texts = []

    def _hand_out(self, call: _Call, state: list[dict[str, Any]], reply: Reply) -> None:
        self._marks.after_call()
        kept: dict[str, Any] = {STATE: state} if state else {}
        fields = {
            name: value
            for name, value in call.raw.items()
            if name not in OWN_FIELDS and value is not None and value != _DIRECT
        }
        if fields:
            kept[FIELDS] = fields
        reply.call(
            jsontext.as_text(call.raw.get("id")),
            jsontext.as_text(call.raw.get("name")),
            call.text(),
            {"anthropic": {**kept, **self._from}} if kept else None,
        )
        self._record.append(_LOST)  # this reply continues with the results, not by itself

    # -- the end -----------------------------------------------------------------------------

    def _merge_usage(self, usage: object) -> None:
        for key, value in (jsontext.as_mapping(usage) or {}).items():
            # Counts are cumulative, so the last one stands; but some gateways fill in only one
            # of the two events that carry them, with null or zero in the other.
            if key in _COUNTS and value is not None and (value != 0 or key not in self._usage):
                self._usage[key] = value

    def _stop(self, reply: Reply) -> None:
        reason = reply.finish_reason
        for index in list(self._blocks):
            self._block_stop(index, reply)
        self._marks.finish(reply)
        for call, state in self._held_calls:
            if is_cut(reason) and not is_object(call.text()):
                warn_cut_call(jsontext.as_text(call.raw.get("name")), reason)
                self._pending += state
            else:
                self._hand_out(call, state, reply)
        self._held_calls.clear()
        if reply.has_calls:
            # After the calls: it produced nothing, and no turn may end with it.
            self._pending = [block for block in self._pending if block["type"] not in THINKING]
        self._release(reply)
        reply.flush()
        container = jsontext.heal(jsontext.as_text((self._container or {}).get("id")))
        if reason in _PAUSED and reply.may_pause and self._record and _LOST not in self._record:
            self._put_in_order([], reply)
            reply.pause({"content": self._record, **({CONTAINER: container} if container else {})})
            return
        if container and reply.has_output:
            reply.provider_state({"anthropic": {CONTAINER: container, **self._from}})
        reply.usage(self.usage())
        if reason == "refusal":
            reply.fail(
                RefusalError(
                    _refusal_text(self._stop_details), reason="refusal", body=self._stop_details
                )
            )
        else:
            reply.fail_if_empty(
                self._allow_empty, f"stop_reason {reason!r}", retryable=not is_cut(reason)
            )
        reply.end()


def decode_error(status: int, headers: Mapping[str, str], body: bytes) -> APIError:
    """The error for a response that is not a stream.

    Reads Anthropic's own form, that of the proxies in front of it, Vertex's and Bedrock's.

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
        if request_id is None and jsontext.as_text(answer.get("request_id")):
            request_id = jsontext.as_text(answer.get("request_id"))
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
        error = error.but(retry_after=pause)
    if headers.get("x-should-retry") == "false":
        error = error.but(retryable=False)
    return error


def _error(detail: object, *, status: int | None, request_id: str | None) -> APIError:
    kind, text = "", ""
    members = jsontext.as_mapping(detail)
    if members is not None:
        kind = jsontext.as_text(members.get("type")) or jsontext.as_text(members.get("status"))
        text = jsontext.as_text(members.get("message"))
        code = members.get("code")
        if status is None and isinstance(code, int) and 400 <= code < 600:
            status = code
    elif detail is not None:
        text = str(detail)
    if status is None:
        status = _STATUS.get(kind, 500)
    words = ": ".join(part for part in (kind, text) if part)
    return create_api_error_from_http(
        jsontext.heal(words), status=status, request_id=request_id, body=detail
    )


def _refusal_text(details: object) -> str:
    text = "the model refused to answer"
    members = jsontext.as_mapping(details)
    if members is not None:
        why = jsontext.as_text(members.get("explanation")) or jsontext.as_text(
            members.get("category")
        )
        if why:
            text = f"{text}: {jsontext.heal(why)}"
    return text


def _loose_event(value: object) -> _Event | None:
    """Read an event whose members have unexpected types, or whose JSON is not strictly valid."""
    raw = jsontext.as_mapping(value)
    if raw is None:
        return None
    delta = jsontext.as_mapping(raw.get("delta"))
    index = raw.get("index")
    return _Event(
        type=jsontext.as_text(raw.get("type")),
        index=index if type(index) is int else 0,
        delta=None
        if delta is None
        else _Delta(
            **{
                name: delta[name]
                for name in _Delta.__struct_fields__
                if name == "stop_details"
                or isinstance(delta.get(name), dict if name in _OBJECTS else str)
                if name in delta
            }
        ),
        content_block=jsontext.as_mapping(raw.get("content_block")),
        message=jsontext.as_mapping(raw.get("message")),
        usage=jsontext.as_mapping(raw.get("usage")),
        error=raw.get("error"),
    )
