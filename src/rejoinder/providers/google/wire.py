"""Gemini's generateContent stream: bytes in, chunks out.

The law of this file: a reply ends with a ``finishReason``; bytes that end without one are an error.
Older models repeat it on every event, so reading goes on to the end of the body. Thoughts never
become content; a signature leaves with the call it belongs to (``FunctionToolCall.extra["google"]``)
and has to come back with it. Blocked, malformed and empty replies are three different errors, and an
error object inside a good answer is raised with its own status. The events come as SSE, or as the
elements of one JSON array. Pure.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any, Final, cast

import msgspec

from rejoinder._core import jsontext
from rejoinder._core.bodies import plain_text, read_json_object
from rejoinder._core.chunks import ChatChunk, CompletionUsage
from rejoinder._core.usage import usage_from_google
from rejoinder.errors import (
    APIConnectionError,
    APIError,
    APIStatusError,
    RefusalError,
    WireError,
    create_api_error_from_http,
)
from rejoinder.providers.answering.chunks import Reply
from rejoinder.providers.answering.errors import retry_after, unexpected_body
from rejoinder.wire.sse import SSEDecoder

__all__ = ["StreamDecoder", "decode_error"]

_STATUS: Final[Mapping[str, int]] = {
    "INVALID_ARGUMENT": 400,
    "FAILED_PRECONDITION": 400,
    "OUT_OF_RANGE": 400,
    "UNAUTHENTICATED": 401,
    "PERMISSION_DENIED": 403,
    "NOT_FOUND": 404,
    "ABORTED": 409,
    "ALREADY_EXISTS": 409,
    "RESOURCE_EXHAUSTED": 429,
    "CANCELLED": 499,
    "UNKNOWN": 500,
    "INTERNAL": 500,
    "DATA_LOSS": 500,
    "UNIMPLEMENTED": 501,
    "UNAVAILABLE": 503,
    "DEADLINE_EXCEEDED": 504,
}
"""The HTTP status of a canonical code (google.rpc.Code)."""

_FINISH_NUMBERS: Final = (
    "FINISH_REASON_UNSPECIFIED",
    "STOP",
    "MAX_TOKENS",
    "SAFETY",
    "RECITATION",
    "OTHER",
    "LANGUAGE",
    "BLOCKLIST",
    "PROHIBITED_CONTENT",
    "SPII",
    "MALFORMED_FUNCTION_CALL",
    "IMAGE_SAFETY",
    "UNEXPECTED_TOOL_CALL",
    "TOO_MANY_TOOL_CALLS",
)
"""Servers asked for enums as numbers say the position in this list."""

_BLOCK_NUMBERS: Final = (
    "BLOCK_REASON_UNSPECIFIED",
    "SAFETY",
    "OTHER",
    "BLOCKLIST",
    "PROHIBITED_CONTENT",
    "IMAGE_SAFETY",
)

_BLOCKED: Final = frozenset(
    {
        "SAFETY",
        "RECITATION",
        "LANGUAGE",
        "BLOCKLIST",
        "PROHIBITED_CONTENT",
        "SPII",
        "IMAGE_SAFETY",
        "IMAGE_PROHIBITED_CONTENT",
        "IMAGE_RECITATION",
    }
)
_MALFORMED: Final = frozenset({"MALFORMED_FUNCTION_CALL", "MALFORMED_RESPONSE"})
_MALFORMED_IF_SILENT: Final = frozenset(
    {"UNEXPECTED_TOOL_CALL", "TOO_MANY_TOOL_CALLS", "MISSING_THOUGHT_SIGNATURE"}
)

_MAX_EVENT: Final = 1 << 24
_MAX_KEPT: Final = 1 << 24
_MAX_GAP: Final = 16
_MAX_DEPTH: Final = 100


_ABSENT: Final = msgspec.Raw()


class _Part(msgspec.Struct, rename="camel", gc=False):
    text: str | None = None
    thought: bool | None = None
    thought_signature: str | None = None
    function_call: dict[str, Any] | None = None
    # Results of tools that run on Google's side, and media: known, and not for the listener.
    executable_code: msgspec.Raw = _ABSENT
    code_execution_result: msgspec.Raw = _ABSENT
    inline_data: msgspec.Raw = _ABSENT
    file_data: msgspec.Raw = _ABSENT
    tool_call: msgspec.Raw = _ABSENT
    tool_response: msgspec.Raw = _ABSENT

    def known(self) -> bool:
        return not (
            self.executable_code is _ABSENT
            and self.code_execution_result is _ABSENT
            and self.inline_data is _ABSENT
            and self.file_data is _ABSENT
            and self.tool_call is _ABSENT
            and self.tool_response is _ABSENT
        )


class _Content(msgspec.Struct, gc=False):
    parts: list[_Part] | None = None


class _Candidate(msgspec.Struct, rename="camel", gc=False):
    content: _Content | None = None
    finish_reason: str | int | None = None
    finish_message: str | None = None


class _Event(msgspec.Struct, rename="camel", gc=False):
    candidates: list[_Candidate] | None = None
    usage_metadata: msgspec.Raw = _ABSENT
    response_id: str | None = None
    prompt_feedback: dict[str, Any] | None = None
    error: Any = None


_decode_event = msgspec.json.Decoder(_Event).decode


class _Call:
    """A function call whose arguments arrive member by member."""

    __slots__ = ("arguments", "id", "name", "open", "signature")

    def __init__(self, raw: Mapping[str, Any], signature: str | None) -> None:
        self.id = _word(raw.get("id"))
        self.name = _word(raw.get("name"))
        self.signature = signature
        args = raw.get("args")
        self.arguments: dict[str, Any] = (
            cast("dict[str, Any]", args) if isinstance(args, dict) else {}
        )
        self.open: set[str] = set()


class StreamDecoder:
    """Decodes one reply of streamGenerateContent, of the Gemini API and of Vertex AI.

    Args:
        allow_empty: an answer that says nothing is fine, as it is after a tool output.
        on_signature: is told the id of each call that has a thought signature, and the signature.

    Attributes:
        failure: what the next call raises.
        done: the JSON array was closed. A stream of server-sent events ends with its bytes.
        complete: the finish reason and the full usage were seen: nothing need follow.
        finish_reason: why the model stopped, in Google's word.
        progress: pieces of text, thoughts and arguments so far.
        skipped: parts of unknown kinds so far.
    """

    __slots__ = (
        "_allow_empty",
        "_array",
        "_call",
        "_finish_message",
        "_kept",
        "_on_signature",
        "_reply",
        "_seen",
        "_sse",
        "_usage",
        "_usage_total",
        "complete",
        "done",
        "failure",
        "finish_reason",
        "skipped",
    )

    def __init__(
        self,
        *,
        allow_empty: bool = False,
        on_signature: Callable[[str, str], None] | None = None,
    ) -> None:
        self._allow_empty = allow_empty
        self._on_signature = on_signature
        self._sse: SSEDecoder | None = None
        self._array: _ArrayDecoder | None = None
        self._reply = Reply("gemini_")
        self._call: _Call | None = None
        self.finish_reason: str | None = None
        self.complete = False
        self._finish_message = ""
        self._kept = 0
        self._usage = _ABSENT
        self._usage_total = _ABSENT
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
        sse = self._sse
        if sse is not None:
            for _, payload in sse.feed(data):
                self._payload(payload, chunks)
                if self.failure is not None:
                    return chunks
            self.failure = sse.failure
            return chunks
        if self._array is None:
            # What the first character is tells the two framings apart.
            data = data.lstrip(b" \t\r\n") if not data.startswith(b"\xef") else data
            if not data:
                return chunks
            if data[0] not in b"[{":
                self._sse = SSEDecoder(max_line=_MAX_EVENT, max_event=_MAX_EVENT)
                return self.feed(data)
            self._array = _ArrayDecoder()
        array = self._array
        for payload in array.feed(data):
            self._payload(payload, chunks)
            if self.failure is not None:
                return chunks
        self.failure = array.failure
        if array.done and self.failure is None:
            self.done = True
            self._end(chunks)
        return chunks

    def close(self) -> list[ChatChunk]:
        """Say that no bytes will follow.

        Raises:
            APIError: the reply is not complete, was blocked, is malformed, or is empty.
        """
        chunks: list[ChatChunk] = []
        if self.failure is None and not self.done:
            self._close(chunks)
        if self.failure is not None and not chunks:
            raise self.failure
        return chunks

    def _close(self, chunks: list[ChatChunk]) -> None:
        cut = APIConnectionError(
            "the stream ended in the middle of an event: the reply is incomplete"
        )
        if self._sse is not None:
            for _, payload in self._sse.close():
                self._payload(payload, chunks)
            if isinstance(self.failure, WireError):
                self.failure = cut
            if self.failure is None and self._sse.stray:
                self._read_stray(self._sse.stray)
        elif self._array is not None:
            if self._array.unfinished:
                self.failure = cut
        elif not self._seen:
            self.failure = unexpected_body(b"", "server-sent events or a JSON array")
        if self.failure is not None:
            return
        if not self.finish_reason:
            self.failure = APIConnectionError(
                "the stream ended without a finishReason: the reply is incomplete"
            )
            return
        self._end(chunks)

    def _read_stray(self, stray: bytes) -> None:
        """What stood between the events: Google writes an error there as bare JSON."""
        answer = read_json_object(stray)
        if answer is not None and answer.get("error") is not None:
            self.failure = _error(answer["error"], status=None)
        elif not self._seen:
            self.failure = unexpected_body(stray, "server-sent events or a JSON array of replies")

    def _payload(self, payload: bytes, chunks: list[ChatChunk]) -> None:
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
        if event.error is not None:
            self.failure = _error(event.error, status=None)
            return
        self._seen = True
        if event.response_id:
            self._reply.id = event.response_id
        usage = event.usage_metadata
        counted = False
        if usage is not _ABSENT:
            # Kept unread: they come with every event, and only the last ones are wanted.
            if b"totalTokenCount" in payload:
                self._usage = self._usage_total = usage
                counted = True
            elif b"TokenCount" in payload:
                self._usage = usage
        if event.candidates:
            candidate = event.candidates[0]
            if candidate.content is not None and candidate.content.parts:
                for part in candidate.content.parts:
                    self._part(part, chunks, loose)
                    if self.failure is not None:
                        return
            if candidate.finish_reason is not None:
                self._finished(candidate, chunks)
                # Older models say the reason in every event, but count only at the end.
                self.complete = counted and self.finish_reason is not None
        if event.prompt_feedback is not None and self.failure is None:
            self._prompt_feedback(event.prompt_feedback, chunks)

    def _part(self, part: _Part, chunks: list[ChatChunk], loose: bool) -> None:
        reply = self._reply
        if part.function_call is not None:
            # The text that rides on a call is not meant to be heard.
            self._function_call(part.function_call, part.thought_signature, chunks)
        elif part.text is not None:
            if part.thought:
                if chunk := reply.thinking(part.text, loose):
                    chunks.append(chunk)
            elif chunk := reply.text(part.text, loose):
                chunks.append(chunk)
            if part.thought_signature and not part.thought and reply.said:
                chunks.append(reply.state(_signature(part.thought_signature)))
        else:
            reply.progress += 1
            if not (part.known() or part.thought_signature):
                self.skipped += 1

    def _function_call(
        self, raw: Mapping[str, Any], signature: str | None, chunks: list[ChatChunk]
    ) -> None:
        self._reply.progress += 1
        more = raw.get("willContinue") is True
        call = self._call
        if raw.get("name"):
            if call is not None:
                self._emit(call, chunks)
                self._call = None
            if not more and "partialArgs" not in raw:
                args = raw.get("args")
                text = "{}" if args is None else jsontext.encode(args).decode()
                self._hand_out(
                    _word(raw.get("id")), _word(raw.get("name")), text, signature, chunks
                )
                return
            call = self._call = _Call(raw, signature)
        if call is None:
            return  # the end of a call that was complete before
        if signature and call.signature is None:
            call.signature = signature
        partial = raw.get("partialArgs")
        if isinstance(partial, list):
            for entry in cast("list[Any]", partial):
                if not isinstance(entry, dict) or not self._argument(
                    call, cast("dict[str, Any]", entry)
                ):
                    self.skipped += 1
        if not more:
            self._emit(call, chunks)
            self._call = None

    def _argument(self, call: _Call, entry: Mapping[str, Any]) -> bool:
        path = _word(entry.get("jsonPath"))
        steps = _steps(path)
        if not steps:
            return False
        value: Any = None
        for name in ("stringValue", "numberValue", "boolValue"):
            if name in entry:
                value = entry[name]
                break
        else:
            if "nullValue" not in entry:
                return False
        self._kept += len(path) + (len(value) if isinstance(value, str) else 8)
        if self._kept > _MAX_KEPT:
            self.failure = WireError(
                f"the arguments of one reply are longer than {_MAX_KEPT} characters"
            )
            return True
        stored = _store(call.arguments, steps, value, append=path in call.open)
        if entry.get("willContinue") is True and isinstance(value, str):
            call.open.add(path)
        else:
            call.open.discard(path)
        return stored

    def _emit(self, call: _Call, chunks: list[ChatChunk]) -> None:
        text = jsontext.encode(call.arguments).decode()
        self._hand_out(call.id, call.name, text, call.signature, chunks)

    def _hand_out(
        self,
        call_id: str,
        name: str,
        arguments: str,
        signature: str | None,
        chunks: list[ChatChunk],
    ) -> None:
        extra = _signature(signature) if signature else None
        chunk = self._reply.call(call_id, name, arguments, extra)
        chunks.append(chunk)
        if signature and self._on_signature is not None and chunk.delta is not None:
            self._on_signature(chunk.delta.tool_calls[0].call_id, signature)

    def _finished(self, candidate: _Candidate, chunks: list[ChatChunk]) -> None:
        reason = _enum(candidate.finish_reason, _FINISH_NUMBERS)
        if not reason or reason == "FINISH_REASON_UNSPECIFIED":
            return
        self.finish_reason = reason
        message = jsontext.heal(candidate.finish_message or "")
        self._finish_message = message
        if reason in _BLOCKED:
            self._fail(
                chunks,
                RefusalError(
                    f"the reply was blocked: {reason}" + (f": {message}" if message else ""),
                    reason=reason,
                ),
            )
        elif reason in _MALFORMED or (reason in _MALFORMED_IF_SILENT and not self._reply.said):
            self._fail(
                chunks,
                WireError(
                    f"the model wrote a reply that cannot be read: {reason}"
                    + (f": {message}" if message else ""),
                    body={"finishReason": reason, "finishMessage": message},
                ),
            )

    def _prompt_feedback(self, feedback: Mapping[str, Any], chunks: list[ChatChunk]) -> None:
        reason = _enum(feedback.get("blockReason"), _BLOCK_NUMBERS)
        message = _word(feedback.get("blockReasonMessage"))
        if (reason and reason != "BLOCK_REASON_UNSPECIFIED") or message:
            words = ": ".join(part for part in (reason, jsontext.heal(message)) if part)
            self._fail(
                chunks,
                RefusalError(
                    f"the prompt was blocked: {words}",
                    reason=reason or "BLOCK_REASON_UNSPECIFIED",
                    body=dict(feedback),
                ),
            )

    def _fail(self, chunks: list[ChatChunk], error: APIError) -> None:
        """End with `error`, after what is already known."""
        chunks += self._reply.rest()
        self._emit_usage(chunks)
        self.failure = error

    def _end(self, chunks: list[ChatChunk]) -> None:
        if not self.finish_reason:
            self.failure = APIConnectionError(
                "the stream ended without a finishReason: the reply is incomplete"
            )
            return
        if self._call is not None:
            self._emit(self._call, chunks)
            self._call = None
        chunks += self._reply.rest()
        self._emit_usage(chunks)
        why = f"finishReason {self.finish_reason}"
        if self._finish_message:
            why += f": {self._finish_message}"
        self.failure = self._reply.empty_reply_error(
            self._allow_empty and self.finish_reason == "STOP",
            why,
            retryable=self.finish_reason != "MAX_TOKENS",
        )

    def _emit_usage(self, chunks: list[ChatChunk]) -> None:
        usage = self.usage_so_far()
        if usage is not None:
            chunks.append(self._reply.usage(usage))

    def usage_so_far(self) -> CompletionUsage | None:
        """What the provider has counted; it does so in every event."""
        counts: dict[str, Any] = {}
        for raw in (self._usage_total, self._usage):
            if raw is not _ABSENT:
                try:
                    counts.update(_mapping(jsontext.decode(bytes(raw))) or {})
                except ValueError:  # what is skipped unread is not checked to the last character
                    continue
        return usage_from_google(counts)


class _ArrayDecoder:
    """Cuts a JSON array of objects, or one bare object, into the bytes of each object."""

    __slots__ = ("_buffer", "_depth", "_escaped", "_position", "_text", "done", "failure")

    _BETWEEN: Final = re.compile(rb"[^ \t\r\n,\[]")
    _OUTSIDE: Final = re.compile(rb'["{}]')
    _INSIDE: Final = re.compile(rb'["\\]')

    def __init__(self) -> None:
        self._buffer = bytearray()
        self._position = 0  # up to here the buffer has been looked at
        self._depth = 0
        self._text = False
        self._escaped = False
        self.done = False
        self.failure: APIError | None = None

    @property
    def unfinished(self) -> bool:
        return self._depth > 0

    def feed(self, data: bytes) -> list[bytes]:
        found: list[bytes] = []
        buffer = self._buffer
        buffer += data
        begin = 0  # of the object that is being read
        position = self._position
        size = len(buffer)
        while position < size:
            if self._depth == 0:
                begin = _search(self._BETWEEN, buffer, position)
                if begin < 0:
                    begin = position = size
                    break
                byte = buffer[begin]
                position = begin + 1
                if byte == 0x7B:  # {
                    self._depth = 1
                    continue
                if byte == 0x5D:  # ]
                    self.done = True
                else:
                    self.failure = WireError(
                        "expected a JSON array of objects, got "
                        f"{bytes([byte])!r} between two of them"
                    )
                break
            if self._escaped:
                self._escaped = False
                position += 1
                continue
            place = _search(self._INSIDE if self._text else self._OUTSIDE, buffer, position)
            if place < 0:
                position = size
                break
            byte = buffer[place]
            position = place + 1
            if byte == 0x5C:
                self._escaped = True
            elif byte == 0x22:
                self._text = not self._text
            elif byte == 0x7B:
                self._depth += 1
            else:
                self._depth -= 1
                if self._depth == 0:
                    found.append(bytes(buffer[begin:position]))
                    begin = position
        # Once for all objects: taking each away by itself would move the rest each time.
        del buffer[:begin]
        self._position = position - begin
        if len(buffer) > _MAX_EVENT and self.failure is None:
            self.failure = WireError(f"an event is longer than {_MAX_EVENT} bytes")
        return found


def _search(pattern: re.Pattern[bytes], buffer: bytearray, start: int) -> int:
    # In a function of its own: a match that is alive locks the size of the buffer.
    match = pattern.search(buffer, start)
    return -1 if match is None else match.start()


def decode_error(status: int, headers: Mapping[str, str], body: bytes) -> APIError:
    """The error for an answer that is not a stream.

    Args:
        headers: by lower-case name.
    """
    request_id = headers.get("x-goog-request-id") or headers.get("x-request-id")
    answer = read_json_object(body)
    error: APIError
    if answer is not None and answer.get("error") is not None:
        error = _error(
            answer["error"],
            status=None if 200 <= status < 300 else status,
            request_id=request_id,
        )
    elif 200 <= status < 300:
        error = unexpected_body(body, "server-sent events or a JSON array of replies")
    else:
        shown = plain_text(body)
        error = create_api_error_from_http(
            shown, status=status, request_id=request_id, body=shown or None
        )
    pause = retry_after(headers)
    if pause is not None:
        error.retry_after = pause
    return error


def _error(detail: object, *, status: int | None, request_id: str | None = None) -> APIStatusError:
    words: list[str] = []
    pause: float | None = None
    if isinstance(detail, Mapping):
        members = cast("Mapping[str, Any]", detail)
        code = members.get("code")
        name = _word(members.get("status"))
        words = [name, _word(members.get("message"))]
        if status is None:
            if isinstance(code, int) and 400 <= code < 600:
                status = code
            else:
                status = _STATUS.get(name, 500)
        pause = _retry_delay(members.get("details"))
    elif detail is not None:
        words = [str(detail)]
    error = create_api_error_from_http(
        jsontext.heal(": ".join(word for word in words if word)),
        status=500 if status is None else status,
        request_id=request_id,
        body=cast("object", detail),
    )
    error.retry_after = pause
    return error


def _retry_delay(details: object) -> float | None:
    if not isinstance(details, list):
        return None
    for entry in cast("list[Any]", details):
        delay = cast("dict[str, Any]", entry).get("retryDelay") if isinstance(entry, dict) else None
        if isinstance(delay, str) and (match := re.fullmatch(r"(\d{1,9}(?:\.\d{1,9})?)s", delay)):
            return float(match[1])
    return None


def _signature(signature: str) -> dict[str, Any]:
    return {"google": {"thought_signature": jsontext.heal(signature)}}


_STEP: Final = re.compile(
    r"""\.(?P<name>[^.\[\]'"]+)|\[(?P<index>\d{1,9})\]|\['(?P<single>[^']*)'\]|\["(?P<double>[^"]*)"\]"""
)


def _steps(path: str) -> list[str | int]:
    """``$.a[0].b`` as ``["a", 0, "b"]``; an empty list for what is not such a path."""
    if not path.startswith("$"):
        return []
    steps: list[str | int] = []
    position = 1
    while position < len(path):
        match = _STEP.match(path, position)
        if match is None or len(steps) >= _MAX_DEPTH:
            return []
        position = match.end()
        if match["index"] is not None:
            steps.append(int(match["index"]))
        else:
            steps.append(match["name"] or match["single"] or match["double"] or "")
    return steps


def _store(root: dict[str, Any], steps: list[str | int], value: Any, *, append: bool) -> bool:
    """Put `value` where `steps` lead, making what is missing on the way."""
    place: Any = root
    for number, step in enumerate(steps):
        inside: Any
        holder: Any = place
        if isinstance(step, int):
            if not isinstance(place, list):
                return False
            entries = cast("list[Any]", place)
            if step > len(entries) + _MAX_GAP:
                return False
            while len(entries) <= step:
                entries.append(None)
            inside = entries[step]
        else:
            if not isinstance(place, dict):
                return False
            inside = cast("dict[str, Any]", place).get(step)
        if number == len(steps) - 1:
            if append and isinstance(inside, str) and isinstance(value, str):
                value = inside + value
            holder[step] = value
            return True
        if inside is None:
            inside = [] if isinstance(steps[number + 1], int) else {}
            holder[step] = inside
        place = inside
    return False


def _loose_event(payload: bytes) -> _Event | None:
    """An event whose members have unexpected types, or whose JSON only tolerant readers take."""
    try:
        value: Any = jsontext.decode(payload)
    except ValueError:
        return None
    raw = _mapping(value)
    if raw is None:
        return None
    candidates: list[_Candidate] = []
    for entry in _list(raw.get("candidates")):
        candidate = _mapping(entry) or {}
        content = _mapping(candidate.get("content"))
        reason = candidate.get("finishReason")
        candidates.append(
            _Candidate(
                content=None
                if content is None
                else _Content([_loose_part(part) for part in _list(content.get("parts"))]),
                finish_reason=reason if isinstance(reason, (str, int)) else None,
                finish_message=_word(candidate.get("finishMessage")),
            )
        )
    usage = _mapping(raw.get("usageMetadata"))
    return _Event(
        candidates=candidates,
        usage_metadata=_ABSENT if usage is None else msgspec.Raw(jsontext.encode(usage)),
        response_id=jsontext.heal(_word(raw.get("responseId"))) or None,
        prompt_feedback=_mapping(raw.get("promptFeedback")),
        error=raw.get("error"),
    )


def _loose_part(value: object) -> _Part:
    raw = _mapping(value) or {}
    text = raw.get("text")
    signature = raw.get("thoughtSignature")
    return _Part(
        text=text if isinstance(text, str) else None,
        thought=raw.get("thought") is True,
        thought_signature=signature if isinstance(signature, str) else None,
        function_call=_mapping(raw.get("functionCall")),
    )


def _enum(value: object, names: tuple[str, ...]) -> str:
    if isinstance(value, bool):
        return ""
    if isinstance(value, int):
        return names[value] if 0 <= value < len(names) else f"number {value}"
    return jsontext.heal(value) if isinstance(value, str) else ""


def _mapping(value: object) -> dict[str, Any] | None:
    return cast("dict[str, Any]", value) if isinstance(value, dict) else None


def _list(value: object) -> list[Any]:
    return cast("list[Any]", value) if isinstance(value, list) else []


def _word(value: object) -> str:
    return value if isinstance(value, str) else ""
