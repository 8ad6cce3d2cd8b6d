"""Reads the replies of Gemini's streamGenerateContent. Pure.

A reply ends with a ``finishReason``; bytes that end without one are an error. Older models repeat it in
every event, so reading continues to the end of the body. Thoughts never become content. A signature is
passed on with its call (``FunctionToolCall.extra["google"]``) and must be sent back with it. Blocked,
malformed and empty replies raise three different errors; an error object inside a response of status
200 is raised with its own status. Events arrive as SSE, or as the elements of one JSON array.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import msgspec

from rejoinder._core import jsontext
from rejoinder._core.bodies import plain_text, read_json_object
from rejoinder._core.chunks import CompletionUsage
from rejoinder._core.families import UNKNOWN, Family
from rejoinder.errors import (
    APIConnectionError,
    APIError,
    APIStatusError,
    RefusalError,
    WireError,
    create_api_error_from_http,
)
from rejoinder.providers.answering.arguments import warn_cut_call
from rejoinder.providers.answering.chunks import MAX_ENTRIES, Reply
from rejoinder.providers.answering.decoder import ReplyDecoder
from rejoinder.providers.answering.errors import asked_pause, retry_after, unexpected_body
from rejoinder.providers.answering.framings import sse_events
from rejoinder.providers.answering.marks import ReplyMarks
from rejoinder.providers.answering.names import model_named_in
from rejoinder.providers.answering.reasons import is_cut
from rejoinder.providers.google.partial import PartialArguments
from rejoinder.providers.google.state import BEHIND, MEDIA, PARTS, SIGNATURE, parts_before_call
from rejoinder.providers.google.usage import usage_from_google

__all__ = ["GeminiReader", "decode_error", "make_decoder"]

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
"""Servers that send enums as numbers send the position in this list."""

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

_ABSENT: Final = msgspec.Raw()
_KINDS: Final = frozenset({"executableCode", "codeExecutionResult", "toolCall", "toolResponse"})
"""Parts of Google's own tools."""
_BESIDE: Final = frozenset({"text", "thought", "functionCall"})
_KEPT_EVENT: Final = 1 << 20
"""Maximum bytes of an event whose parts are kept."""
_CALL: Final = 512
"""Memory for the record of one call that was passed on, in bytes."""


class _Part(msgspec.Struct, rename="camel", gc=False):
    text: str | None = None
    thought: bool | None = None
    thought_signature: str | None = None
    function_call: dict[str, Any] | None = None


class _Content(msgspec.Struct, gc=False):
    parts: list[_Part] | None = None


class _Candidate(msgspec.Struct, rename="camel", gc=False):
    content: _Content | None = None
    finish_reason: str | int | None = None
    finish_message: str | None = None
    grounding_metadata: msgspec.Raw = _ABSENT
    citation_metadata: msgspec.Raw = _ABSENT


class _Event(msgspec.Struct, rename="camel", gc=False):
    candidates: list[_Candidate] | None = None
    usage_metadata: msgspec.Raw = _ABSENT
    response_id: str | None = None
    prompt_feedback: dict[str, Any] | None = None
    error: Any = None


_decode_event = msgspec.json.Decoder(_Event).decode


class _Call:
    """A function call whose arguments arrive member by member."""

    __slots__ = ("arguments", "id", "name", "signature")

    def __init__(self, raw: Mapping[str, Any], signature: str | None) -> None:
        self.id = jsontext.as_text(raw.get("id"))
        self.name = jsontext.as_text(raw.get("name"))
        self.signature = signature
        self.arguments = PartialArguments(jsontext.as_mapping(raw.get("args")) or {})


def make_decoder(
    *,
    allow_empty: bool = False,
    family: Family = UNKNOWN,
) -> ReplyDecoder:
    """A decoder for one reply of the Gemini API or Vertex AI; see `GeminiReader` for the arguments."""
    reader = GeminiReader(allow_empty=allow_empty, family=family)
    return ReplyDecoder(sse_events(), reader, prefix="gemini_", track_text=True)


class GeminiReader:
    """Reads the events of one reply.

    Args:
        allow_empty: accept an empty answer, which is legal after a tool output.
        family: the model's family, which determines the marks it leaves in the text.
    """

    __slots__ = (
        "_allow_empty",
        "_begin",
        "_call",
        "_called",
        "_finish_message",
        "_given",
        "_marks",
        "_parts",
        "_released",
        "_sources",
        "_usage",
        "_usage_total",
    )

    expected = "server-sent events or a JSON array of replies"

    def __init__(
        self,
        *,
        allow_empty: bool = False,
        family: Family = UNKNOWN,
    ) -> None:
        self._allow_empty = allow_empty
        self._marks = ReplyMarks(family, think=False)
        self._call: _Call | None = None
        self._given: set[tuple[str, str, str]] = set()
        self._begin = 0  # pieces of the text that stand before the next part that is kept
        self._released = 0  # and before the next one that is passed on
        self._called: int | None = (
            None  # pieces before the last call, until a part behind it is kept
        )
        self._parts: list[dict[str, Any]] = []  # what is kept and was not passed on yet
        self._finish_message = ""
        self._sources: dict[str, msgspec.Raw] = {}
        self._usage = _ABSENT
        self._usage_total = _ABSENT

    def usage(self) -> CompletionUsage | None:
        """The latest token counts; every event carries some."""
        counts: dict[str, Any] = {}
        for raw in (self._usage_total, self._usage):
            counts.update(_mapping_of(raw))
        return usage_from_google(counts)

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
        if event.error is not None:
            reply.fail(_error(event.error, status=None))
            return
        if reply.model is None:
            reply.model = model_named_in(payload)
        if event.response_id:
            reply.id = event.response_id
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
                parts = candidate.content.parts
                if len(parts) > MAX_ENTRIES:
                    parts = reply.entries(parts)
                for place, part in enumerate(parts):
                    text = part.text
                    if part.thought_signature:
                        self._signed(part, payload, place, reply, loose)
                    elif text is None or part.thought or part.function_call is not None:
                        self._part(part, payload, place, reply, loose)
                    elif text:
                        marks = self._marks
                        if "<" in text or marks.busy:
                            marks.split(text, reply, loose)
                        else:
                            reply.text(text, loose)
                if reply.failure is not None:
                    return
            if candidate.finish_reason is not None:
                self._finished(candidate, reply)
                # Older models name the reason in every event, but count only at the end.
                if counted and reply.finish_reason is not None:
                    reply.answered()
            if (
                candidate.grounding_metadata is not _ABSENT
                or candidate.citation_metadata is not _ABSENT
            ):
                self._keep_sources(candidate)
        if event.prompt_feedback is not None:
            self._prompt_feedback(event.prompt_feedback, reply)

    def whole(self, body: bytes, reply: Reply) -> None:
        """Read one element of a JSON array of replies, or an error."""
        self.event(None, body, reply)

    def ended(self, reply: Reply) -> None:
        """The bytes have ended."""
        reason = reply.finish_reason
        if not reason:
            reply.fail(
                APIConnectionError(
                    "the stream ended without a finishReason: the reply is incomplete"
                ).but(section="cut")
            )
            return
        call, self._call = self._call, None
        if call is not None:
            if is_cut(reason) or call.arguments.unfinished:
                warn_cut_call(call.name, reason)
            else:
                self._emit(call, reply)
        self._flush(reply)
        why = f"finishReason {reason}"
        if self._finish_message:
            why += f": {self._finish_message}"
        reply.fail_if_empty(
            self._allow_empty and reason == "STOP", why, retryable=reason != "MAX_TOKENS"
        )

    def _part(self, part: _Part, payload: bytes, place: int, reply: Reply, loose: bool) -> None:
        """Read a part that is not text."""
        if part.function_call is not None:
            # Text in the part of a call is not meant for the user.
            self._function_call(part.function_call, part.thought_signature, reply)
        elif part.text is not None:
            reply.thinking(part.text, loose)
        else:
            reply.output_count += 1
            raw = _raw_part(payload, place)
            if raw.keys().isdisjoint(MEDIA):
                if not raw.keys() & _KINDS:
                    reply.skipped += 1
                if raw.keys() - _BESIDE:
                    self._keep_part(raw, _said(reply), reply)

    def _signed(self, part: _Part, payload: bytes, place: int, reply: Reply, loose: bool) -> None:
        """Read a part with a signature, which must be sent back unchanged."""
        text = part.text
        if part.function_call is not None:
            self._function_call(part.function_call, part.thought_signature, reply)
            return
        signed = {"thoughtSignature": jsontext.heal(part.thought_signature or "")}
        if text is None:
            reply.output_count += 1
            raw = _raw_part(payload, place)
            if raw.keys().isdisjoint(MEDIA):
                self._keep_part({**raw, **signed}, _said(reply), reply)
        elif part.thought:
            reply.thinking(text, loose)
            thought = {"text": jsontext.heal(text), "thought": True, **signed}
            self._keep_part(thought, _said(reply), reply)
        else:
            self._marks.finish(reply)  # the text that was held back belongs to the previous part
            end = _said(reply)
            self._marks.split(text, reply, loose)
            self._marks.finish(reply)
            own = "" if reply.sent is None else "".join(reply.sent.pieces[end:])
            self._keep_part({"text": own, **signed}, end, reply)

    def _keep_part(self, part: dict[str, Any], end: int, reply: Reply) -> None:
        """Keep a part, preceded by the text since the last kept part, up to the piece `end`."""
        pieces = [] if reply.sent is None else reply.sent.pieces
        entries: list[dict[str, Any]] = []
        if self._called is not None:
            entries += _text_entry(pieces[self._begin : self._called])
            entries.append(dict(BEHIND))
            self._begin, self._called = max(self._begin, self._called), None
        entries += [*_text_entry(pieces[self._begin : end]), part]
        self._begin = len(pieces)
        if reply.keep_value(entries):
            self._parts += entries
            if reply.has_output and not reply.has_calls:  # else they may belong to the next call
                self._release(reply)

    def _release(self, reply: Reply) -> None:
        """Attach kept parts to the message's text, or to the call before them."""
        parts, self._parts = self._parts, []
        if not parts:
            return
        self._released = self._begin
        state: dict[str, Any] = {PARTS: parts}
        signature = parts[-1].get("thoughtSignature")
        if signature and "text" in parts[-1] and (reply.sent is None or reply.sent.size):
            state[SIGNATURE] = signature
        reply.provider_state({"google": state})

    # -- calls -------------------------------------------------------------------------------

    def _function_call(self, raw: Mapping[str, Any], signature: str | None, reply: Reply) -> None:
        reply.output_count += 1
        more = raw.get("willContinue") is True
        call = self._call
        if raw.get("name"):
            if call is not None:
                self._emit(call, reply)
                self._call = None
            # The reason why the reply stopped shows whether a call without arguments was cut.
            if not more and "partialArgs" not in raw and raw.get("args"):
                text = jsontext.encode(raw["args"]).decode()
                name = jsontext.as_text(raw.get("name"))
                self._hand_out(jsontext.as_text(raw.get("id")), name, text, signature, reply)
                return
            call = self._call = _Call(raw, signature)
            if not more and "partialArgs" not in raw:
                return
        if call is None:
            return  # the end of a call that was complete before
        if signature and call.signature is None:
            call.signature = signature
        for entry in reply.entries(raw.get("partialArgs")):
            member = jsontext.as_mapping(entry)
            size = 0 if member is None else call.arguments.add(member)
            if not size:
                reply.skipped += 1
            elif not reply.keep(size):
                return
        if not more:
            self._emit(call, reply)
            self._call = None

    def _emit(self, call: _Call, reply: Reply) -> None:
        self._hand_out(call.id, call.name, call.arguments.text(), call.signature, reply)

    def _hand_out(
        self, call_id: str, name: str, arguments: str, signature: str | None, reply: Reply
    ) -> None:
        if call_id:
            if (call_id, name, arguments) in self._given:
                reply.skipped += 1  # proxies repeat a call in their last event
                return
            self._given.add((call_id, name, arguments))
            reply.keep(_CALL)
            reply.keep_text(arguments)
        self._marks.after_call()
        state: dict[str, Any] = {}
        if signature:
            state[SIGNATURE] = jsontext.heal(signature)
        if self._parts and not reply.has_output:
            state[PARTS], self._parts = self._parts, []
        elif (between := parts_before_call(self._parts)) is not None:
            state[PARTS], self._parts = between, []
            self._begin = self._released
        else:
            self._release(reply)
        reply.call(call_id, name, arguments, {"google": state} if state else None)
        self._called = _said(reply)

    # -- the end -----------------------------------------------------------------------------

    def _finished(self, candidate: _Candidate, reply: Reply) -> None:
        reason = _enum(candidate.finish_reason, _FINISH_NUMBERS)
        if not reason or reason == "FINISH_REASON_UNSPECIFIED":
            return
        reply.finish_reason = reason
        message = jsontext.heal(candidate.finish_message or "")
        self._finish_message = message
        if reason in _BLOCKED:
            self._flush(reply)
            reply.fail(
                RefusalError(
                    f"the reply was blocked: {reason}" + (f": {message}" if message else ""),
                    reason=reason,
                )
            )
        elif reason in _MALFORMED or (reason in _MALFORMED_IF_SILENT and not reply.has_output):
            self._flush(reply)
            reply.fail(
                WireError(
                    f"the model wrote a malformed reply: {reason}"
                    + (f": {message}" if message else ""),
                    body={"finishReason": reason, "finishMessage": message},
                )
            )

    def _prompt_feedback(self, feedback: Mapping[str, Any], reply: Reply) -> None:
        reason = _enum(feedback.get("blockReason"), _BLOCK_NUMBERS)
        message = jsontext.as_text(feedback.get("blockReasonMessage"))
        if (reason and reason != "BLOCK_REASON_UNSPECIFIED") or message:
            words = ": ".join(part for part in (reason, jsontext.heal(message)) if part)
            self._flush(reply)
            reply.fail(
                RefusalError(
                    f"the prompt was blocked: {words}",
                    reason=reason or "BLOCK_REASON_UNSPECIFIED",
                    body=dict(feedback),
                )
            )

    def _keep_sources(self, candidate: _Candidate) -> None:
        """Keep the sources of Google Search. The last event with sources lists all of them."""
        if candidate.grounding_metadata is not _ABSENT:
            self._sources["grounding_metadata"] = candidate.grounding_metadata
        if candidate.citation_metadata is not _ABSENT:
            self._sources["citation_metadata"] = candidate.citation_metadata

    def _flush(self, reply: Reply) -> None:
        """Add the text that was held back."""
        self._marks.finish(reply)
        reply.flush()
        if reply.has_output:
            self._release(reply)
        sources = {
            name: found for name, raw in self._sources.items() if (found := _mapping_of(raw))
        }
        self._sources.clear()
        if sources and reply.keep_value(sources):
            reply.provider_state({"google": sources})
        reply.usage(self.usage())


def _mapping_of(raw: msgspec.Raw) -> dict[str, Any]:
    if raw is _ABSENT:
        return {}
    try:
        return jsontext.as_mapping(jsontext.decode(bytes(raw))) or {}
    except ValueError:  # skipped members are not fully validated
        return {}


def decode_error(status: int, headers: Mapping[str, str], body: bytes) -> APIError:
    """The error for a response that is not a stream.

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
    return error if pause is None else error.but(retry_after=pause)


def _error(detail: object, *, status: int | None, request_id: str | None = None) -> APIStatusError:
    words: list[str] = []
    pause: float | None = None
    members = jsontext.as_mapping(detail)
    if members is not None:
        code = members.get("code")
        name = jsontext.as_text(members.get("status"))
        words = [name, jsontext.as_text(members.get("message"))]
        if status is None:
            if isinstance(code, int) and 400 <= code < 600:
                status = code
            else:
                status = _STATUS.get(name, 500)
        pause = asked_pause(members)
    elif detail is not None:
        words = [str(detail)]
    error = create_api_error_from_http(
        jsontext.heal(": ".join(word for word in words if word)),
        status=500 if status is None else status,
        request_id=request_id,
        body=detail,
    )
    return error.but(retry_after=pause)


def _said(reply: Reply) -> int:
    """The number of text pieces so far."""
    return 0 if reply.sent is None else len(reply.sent.pieces)


def _text_entry(pieces: list[str]) -> list[dict[str, Any]]:
    text = "".join(pieces)
    return [{"text": text}] if text.strip() else []


def _raw_part(payload: bytes, place: int) -> dict[str, Any]:
    """A part of an event, unchanged; ``None`` if the event is too large."""
    if len(payload) > _KEPT_EVENT:
        return {}
    event = jsontext.as_mapping(jsontext.decode(payload)) or {}
    candidates = jsontext.as_list(event.get("candidates"))
    candidate = jsontext.as_mapping(candidates[0]) if candidates else None
    content = jsontext.as_mapping((candidate or {}).get("content")) or {}
    parts = jsontext.as_list(content.get("parts"))
    part = jsontext.as_mapping(parts[place]) if place < len(parts) else None
    return {key: value for key, value in (part or {}).items() if value is not None}


def _loose_event(value: object) -> _Event | None:
    """Read an event whose members have unexpected types, or whose JSON is not strictly valid."""
    raw = jsontext.as_mapping(value)
    if raw is None:
        return None
    candidates: list[_Candidate] = []
    for entry in jsontext.as_list(raw.get("candidates")):
        candidate = jsontext.as_mapping(entry) or {}
        content = jsontext.as_mapping(candidate.get("content"))
        reason = candidate.get("finishReason")
        candidates.append(
            _Candidate(
                content=None
                if content is None
                else _Content(
                    [_loose_part(part) for part in jsontext.as_list(content.get("parts"))]
                ),
                finish_reason=reason if isinstance(reason, (str, int)) else None,
                finish_message=jsontext.as_text(candidate.get("finishMessage")),
            )
        )
    usage = jsontext.as_mapping(raw.get("usageMetadata"))
    return _Event(
        candidates=candidates,
        usage_metadata=_ABSENT if usage is None else msgspec.Raw(jsontext.encode(usage)),
        response_id=jsontext.heal(jsontext.as_text(raw.get("responseId"))) or None,
        prompt_feedback=jsontext.as_mapping(raw.get("promptFeedback")),
        error=raw.get("error"),
    )


def _loose_part(value: object) -> _Part:
    raw = jsontext.as_mapping(value) or {}
    text = raw.get("text")
    signature = raw.get("thoughtSignature")
    return _Part(
        text=text if isinstance(text, str) else None,
        thought=raw.get("thought") is True,
        thought_signature=signature if isinstance(signature, str) else None,
        function_call=jsontext.as_mapping(raw.get("functionCall")),
    )


def _enum(value: object, names: tuple[str, ...]) -> str:
    if isinstance(value, bool):
        return ""
    if isinstance(value, int):
        return names[value] if 0 <= value < len(names) else f"number {value}"
    return jsontext.heal(value) if isinstance(value, str) else ""
