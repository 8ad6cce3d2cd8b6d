"""The Chat Completions dialect that dozens of servers speak, each in its own way. Pure.

The law of this file: it reads what servers were seen to send, not what a document says they
should: null deltas, content as a list of parts, tool calls without index, id or type, indexes used
twice, usage in every chunk or in none, errors in the middle of a good answer, whole JSON answers
where a stream was asked for. What it cannot read as typed values it walks through key by key.
The end mark is `finish_reason`; ``[DONE]`` says only that the server stopped writing, which
gateways also do when the model behind them died. A tool call that the token limit cut is never
handed out: half of a number is another number.
"""

from __future__ import annotations

import logging
from typing import Any, Final, cast

import msgspec

from rejoinder import _stamps
from rejoinder._core import jsontext
from rejoinder._core.bodies import plain_text
from rejoinder._core.chunks import ChatChunk, CompletionUsage
from rejoinder._core.usage import usage_from_openai
from rejoinder.errors import (
    APIConnectionError,
    APIError,
    APIStatusError,
    EmptyResponseError,
    RefusalError,
    WireError,
)
from rejoinder.providers.answering.chunks import SCAN_FROM, TEXT_OVERHEAD, Reply, too_many_values
from rejoinder.providers.answering.first_bytes import Opening
from rejoinder.providers.completions.errors import (
    bare_error,
    decode_error,
    error_from,
    error_in_text,
    message_of,
)
from rejoinder.wire.sse import SSEDecoder
from rejoinder.wire.tags import THINK_TAG_END, THINK_TAG_START, TagSplitter

__all__ = ["StreamDecoder", "decode_error", "error_from"]

logger = logging.getLogger("rejoinder")

_LIMIT: Final = 1 << 24
"""Bytes of tool arguments, refusals and state, or of a whole JSON answer, that are kept at most."""
_CALL: Final = 512
"""Bytes that a tool call takes beside its texts, here and among those that were handed out."""
_MAX_CALLS: Final = 1024
_EXPECTED: Final = "server-sent events of a chat completion"


class _Function(msgspec.Struct, gc=False):
    name: str | None = None
    arguments: str | None = None


class _Call(msgspec.Struct, gc=False):
    index: int | None = None
    id: str | None = None
    function: _Function | None = None
    extra_content: dict[str, Any] | None = None


class _Delta(msgspec.Struct, gc=False):
    content: str | None = None
    tool_calls: list[_Call] | None = None
    reasoning_content: str | None = None
    reasoning: str | None = None
    refusal: str | None = None
    function_call: _Function | None = None
    reasoning_details: list[Any] | None = None
    extra_content: dict[str, Any] | None = None
    annotations: list[Any] | None = None
    audio: dict[str, Any] | None = None


class _Choice(msgspec.Struct, gc=False):
    delta: _Delta | None = None
    index: int | None = None
    finish_reason: str | None = None
    message: _Delta | None = None
    error: Any = None


class _Chunk(msgspec.Struct, gc=False):
    id: str | None = None
    choices: list[_Choice] | None = None
    usage: Any = None
    error: Any = None
    x_groq: dict[str, Any] | None = None
    service_tier: Any = None
    loose: bool = False
    """Read by the tolerant way: texts may hold halves of surrogate pairs."""


_decode_chunk = msgspec.json.Decoder(_Chunk).decode


class _OpenCall:
    """A tool call whose arguments are still arriving."""

    __slots__ = ("arguments", "extra", "id", "index", "name")

    def __init__(self, index: int | None) -> None:
        self.index = index
        self.id = ""
        self.name = ""
        self.arguments: list[str] = []
        self.extra: dict[str, Any] | None = None

    def text(self) -> str:
        return "".join(self.arguments)

    def whole(self) -> str:
        """The arguments, if they are a whole object."""
        # Most fragments end anywhere: they need not be put together and read to know it.
        if not self.arguments or not self.arguments[-1].rstrip().endswith("}"):
            return ""
        text = self.text()
        return text if _is_whole(text) else ""


class StreamDecoder:
    """Bytes of a streamed chat completion in, chunks out.

    Args:
        allow_empty: an answer without text or tool call is legal (it follows a tool's output).
        trust_done: take ``[DONE]`` as the end of a complete answer although no `finish_reason`
            came, for servers that never send one.
        state_key: where opaque state of this provider lies in `ChoiceDelta.extra`.
        keep_reasoning: the model wants its reasoning back.
        thinking_tags: between them the model thinks aloud in its text; ``None``: tags are text.

    Attributes:
        failure: what the next call will raise.
        done: ``[DONE]`` was seen: nothing of interest follows.
        complete: the answer is whole; only usage or ``[DONE]`` may follow, or nothing.
        finish_reason: why the model stopped, in the server's own word.
        progress: grows with every piece of text, thinking or tool arguments.
        skipped: events that meant nothing to this decoder.
    """

    __slots__ = (
        "_allow_empty",
        "_answer",
        "_calls",
        "_cut",
        "_details",
        "_given",
        "_kept",
        "_mark",
        "_opening",
        "_refusal",
        "_reply",
        "_seen",
        "_sse",
        "_state_key",
        "_tagged",
        "_tags",
        "_thoughts",
        "_tier",
        "_trust_done",
        "_usage",
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
        trust_done: bool = False,
        state_key: str = "openai",
        keep_reasoning: bool = False,
        thinking_tags: tuple[str, str] | None = (THINK_TAG_START, THINK_TAG_END),
    ) -> None:
        self._thoughts: list[str] | None = [] if keep_reasoning else None
        self._tags = None if thinking_tags is None else TagSplitter(*thinking_tags)
        self._mark = thinking_tags[0][0] if thinking_tags is not None else ""
        self._tagged = False  # inside the tags, or perhaps inside one of them
        self._allow_empty = allow_empty
        self._trust_done = trust_done
        self._answer: int | None = None  # the choice that is listened to: the first that comes
        self._state_key = state_key
        self._sse = SSEDecoder()
        self._reply = Reply("chatcmpl-")
        self._opening = Opening(_EXPECTED)
        self._calls: list[_OpenCall] = []
        self._given: dict[str, tuple[str, str]] = {}  # calls that were handed out, by id
        self._refusal: list[str] = []
        self._details: list[Any] = []
        self._usage: Any = None
        self._tier: Any = None
        self._kept = 0
        self._seen = False
        self._cut = False
        self.failure: APIError | None = None
        self.done = False
        self.complete = False
        self.finish_reason: str | None = None
        self.skipped = 0

    @property
    def progress(self) -> int:
        return self._reply.progress

    # -- bytes -------------------------------------------------------------------------------

    def feed(self, data: bytes) -> list[ChatChunk]:
        """The chunks that `data` completes.

        Raises:
            APIError: found in an earlier call.
        """
        if self.failure is not None:
            raise self.failure
        if self.done:
            return []
        if self._opening.kind != "stream":
            data = self._opening.feed(data)
            self.failure = self._opening.failure
            if not data:
                return []
        chunks: list[ChatChunk] = []
        self._events(self._sse.feed(data), chunks, last=False)
        if self.failure is None:
            self.failure = self._sse.failure
        return chunks

    def close(self) -> list[ChatChunk]:
        """No more bytes. Returns what is left; where that is followed by an error, `failure` holds
        it, and the next call raises it.

        Raises:
            APIError: the answer is not complete, or is a refusal, an error or nothing.
        """
        if self.failure is not None:
            raise self.failure
        if self.done:
            return []
        chunks: list[ChatChunk] = []
        if self._opening.kind == "stream":
            self._events(self._sse.close(), chunks, last=True)
        else:
            self._read_body(chunks)
        if self.failure is None and not self.done:
            self._end(chunks, marked=False)
        if self.failure is not None:
            if not chunks:
                raise self.failure
            return chunks
        self.done = True
        return chunks

    def _events(
        self, events: list[tuple[str | None, bytes]], chunks: list[ChatChunk], *, last: bool
    ) -> None:
        for name, data in events:
            if len(data) > SCAN_FROM and (failure := too_many_values(data)) is not None:
                self.failure = failure
                return
            try:
                chunk = _decode_chunk(data)
            except (msgspec.MsgspecError, UnicodeError, RecursionError):
                if data.strip() == b"[DONE]":
                    self._end(chunks, marked=True)
                    self.done = self.failure is None
                    return
                if not data.strip():
                    self.skipped += 1
                    continue
                try:
                    chunk = _walk(jsontext.decode_tolerantly(data))
                except ValueError as error:
                    lines = _lines_of(data)
                    if lines:
                        self._events([(name, line) for line in lines], chunks, last=last)
                        if self.done or self.failure is not None:
                            return
                        continue
                    if last:
                        return  # the event was cut with the stream: _end will say so
                    self.failure = WireError(
                        f"an event of the stream is not JSON ({error}): {plain_text(data)!r}",
                        body=plain_text(data),
                    )
                    return
                if chunk is None:
                    self.skipped += 1
                    continue
            if name == "error" and chunk.error is None:
                chunk.error = bare_error(data)
            self._take(chunk, chunks)
            if self.failure is not None:
                return

    # -- values ------------------------------------------------------------------------------

    def _take(self, chunk: _Chunk, chunks: list[ChatChunk]) -> None:
        self._seen = True
        reply = self._reply
        if chunk.id:
            reply.id = chunk.id
        choices = chunk.choices
        if choices:
            for choice in choices:
                index = choice.index or 0
                if index != self._answer:
                    if self._answer is not None:
                        continue  # one answer is what the caller can hear
                    self._answer = index
                delta = choice.delta
                if delta is None:
                    delta = choice.message
                if delta is not None:
                    if delta.reasoning_content or delta.reasoning or delta.reasoning_details:
                        self._thought(delta, chunks, chunk.loose)
                    content = delta.content
                    if content:
                        if self._tags is not None and (self._tagged or self._mark in content):
                            self._split(self._tags, content, chunks, chunk.loose)
                        else:
                            said = reply.text(content, chunk.loose)
                            if said is not None:
                                chunks.append(said)
                    if (
                        delta.tool_calls
                        or delta.refusal
                        or delta.function_call
                        or delta.extra_content
                        or delta.annotations
                        or delta.audio
                    ):
                        self._rare(delta, chunks)
                if choice.error is not None and chunk.error is None:
                    chunk.error = choice.error
                if choice.finish_reason and choice.finish_reason != "null":
                    self.finish_reason = choice.finish_reason
                    self.complete = True
                    self._finish(chunks)
        if chunk.service_tier is not None:
            self._tier = chunk.service_tier
        usage = chunk.usage
        if chunk.x_groq is not None:
            usage = usage or chunk.x_groq.get("usage")
            if chunk.error is None:
                chunk.error = chunk.x_groq.get("error")
        if usage:
            self._usage = usage
            # Some servers count in every chunk: only the last count is worth a chunk.
            if self.complete or not choices:
                self._count(chunks)
        if chunk.error:
            self._count(chunks)
            self.failure = error_from(chunk.error)

    def _split(self, tags: TagSplitter, content: str, chunks: list[ChatChunk], loose: bool) -> None:
        """Part text that may hold thoughts between tags."""
        self._reply.progress += 1
        first = not tags.inside
        text, thought = tags.feed(content)
        parts = [self._reply.text(text, loose) if text else None]
        parts.insert(first, self._reply.thinking(thought, loose) if thought else None)
        chunks.extend(part for part in parts if part is not None)
        self._tagged = tags.inside or bool(tags.pending)

    def _thought(self, delta: _Delta, chunks: list[ChatChunk], loose: bool) -> None:
        thought = delta.reasoning_content or delta.reasoning
        details = delta.reasoning_details
        if details:
            if not thought:
                thought = _details_text(details)
            self._keep_details(details)
        if thought:
            if self._thoughts is not None:
                self._thoughts.append(thought)
                self._keep(len(thought))
            thinking = self._reply.thinking(thought, loose)
            if thinking is not None:
                chunks.append(thinking)

    def _rare(self, delta: _Delta, chunks: list[ChatChunk]) -> None:
        reply = self._reply
        if delta.tool_calls:
            for call in delta.tool_calls:
                self._fragment(call, chunks)
        if delta.function_call is not None and (
            delta.function_call.name or delta.function_call.arguments
        ):
            self._fragment(_Call(index=-1, function=delta.function_call), chunks)
        if delta.refusal:
            reply.progress += 1
            self._refusal.append(delta.refusal)
            self._keep(len(delta.refusal))
        if delta.extra_content:
            chunks.append(reply.state(delta.extra_content))
        if delta.annotations:
            chunks.append(reply.state({self._state_key: {"annotations": delta.annotations}}))
        if delta.audio:
            self._audio(delta.audio, chunks)

    def _audio(self, audio: dict[str, Any], chunks: list[ChatChunk]) -> None:
        transcript = audio.get("transcript")
        if isinstance(transcript, str) and transcript:
            said = self._reply.text(transcript, loose=True)
            if said is not None:
                chunks.append(said)
        data = {key: value for key, value in audio.items() if key != "transcript" and value}
        if data.get("data") or data.get("id"):
            self._reply.progress += 1
            chunks.append(self._reply.state({self._state_key: {"audio": [data]}}))

    def _fragment(self, part: _Call, chunks: list[ChatChunk]) -> None:
        function = part.function
        name = (function.name if function is not None else None) or ""
        arguments = (function.arguments if function is not None else None) or ""
        call_id = part.id or ""
        if not (name or arguments or call_id or part.extra_content):
            return
        self._reply.progress += 1
        call = self._call_of(part.index, call_id, name, arguments)
        if call is None:
            # Calls that are whole can be handed out as soon as the next one begins.
            self._hand_out(chunks, only_whole=True)
            call = _OpenCall(part.index)
            self._calls.append(call)
            self._keep(_CALL)
            if len(self._calls) > _MAX_CALLS and self.failure is None:
                self.failure = WireError(
                    f"more than {_MAX_CALLS} tool calls of one answer are under way at once"
                )
        elif arguments and name and call_id == call.id and arguments == call.whole():
            return  # some servers repeat the calls in their last event
        if call_id and not call.id:
            call.id = call_id
        if name and name != call.name:
            call.name = name if not call.name else call.name + name
        if arguments:
            call.arguments.append(arguments)
        if part.extra_content:
            call.extra = {**(call.extra or {}), **part.extra_content}
            self._keep(len(str(part.extra_content)))
        self._keep(len(arguments) + len(name))

    def _call_of(
        self, index: int | None, call_id: str, name: str, arguments: str
    ) -> _OpenCall | None:
        """The open call that a fragment continues; ``None`` when it begins a new one."""
        calls = self._calls
        if index is not None:
            found = next((call for call in reversed(calls) if call.index == index), None)
            if found is None or not name:
                return found
            if call_id and found.id and call_id != found.id:
                # The index is used a second time; or each fragment has an id of its own.
                torn = name == found.name and found.arguments and not found.whole()
                return found if torn else None
            if found.name and found.whole():
                same = arguments in ("", found.text())
                return found if call_id and same else None
            return found
        if call_id:
            found = next((call for call in reversed(calls) if call.id == call_id), None)
            if found is not None and name and (whole := found.whole()):
                return found if arguments in ("", whole) else None
            return found
        if name or not calls:
            return None
        return calls[-1]

    def _hand_out(self, chunks: list[ChatChunk], *, only_whole: bool = False) -> None:
        calls = self._calls
        if not calls:
            return
        kept: list[_OpenCall] = []
        for call in calls:
            arguments = call.text()
            if only_whole and not (arguments and call.name and _is_whole(arguments)):
                kept.append(call)
                continue
            if not call.name and not arguments.strip():
                self.skipped += 1
                continue
            if self.finish_reason in ("length", "content_filter") and not _is_whole(arguments):
                self._cut = True
                logger.warning(
                    "the call of tool %r was cut (%s) and is left out",
                    call.name,
                    self.finish_reason,
                )
                continue
            call_id = call.id
            before = self._given.get(call_id)
            if call_id and before == (call.name, arguments):
                self.skipped += 1  # it was handed out, and is repeated in the last event
                continue
            if not call_id or before is not None:
                # Two calls of one reply under one id could not be answered apart.
                call_id = _stamps.new_id("call_")
            self._given[call_id] = (call.name, arguments)
            chunks.append(self._reply.call(call_id, call.name, arguments, call.extra))
        self._calls = kept

    # -- the end -----------------------------------------------------------------------------

    def _finish(self, chunks: list[ChatChunk]) -> None:
        if self._tagged and self._tags is not None:
            self._tagged = False
            text, thought = self._tags.close()
            rest = (
                self._reply.thinking(thought) if thought else None,
                self._reply.text(text) if text else None,
            )
            chunks.extend(part for part in rest if part is not None)
        chunks.extend(self._reply.rest())
        if self._thoughts:
            thoughts = jsontext.heal("".join(self._thoughts))
            chunks.append(self._reply.state({self._state_key: {"reasoning_content": thoughts}}))
            self._thoughts = []
        self._hand_out(chunks)
        if self._details:
            details, self._details = self._details, []
            chunks.append(self._reply.state({self._state_key: {"reasoning_details": details}}))

    def usage_so_far(self) -> CompletionUsage | None:
        """What the provider has counted; some do so in every chunk."""
        raw = self._usage
        return None if raw is None else usage_from_openai(raw, service_tier=self._tier)

    def _count(self, chunks: list[ChatChunk]) -> None:
        usage = self.usage_so_far()
        self._usage = None
        if usage is not None:
            chunks.append(self._reply.usage(usage))

    def _end(self, chunks: list[ChatChunk], *, marked: bool) -> None:
        """The server has nothing more to say. Judge the answer. `marked`: it said so itself."""
        if not self.complete and marked and self._trust_done:
            self.complete = True
            self._finish(chunks)
        self._count(chunks)
        if not self.complete:
            self.failure = self._truncated(marked)
            return
        self._finish(chunks)
        reason = self.finish_reason
        if self._refusal:
            text = jsontext.heal("".join(self._refusal))
            self.failure = RefusalError(f"the model refused: {text}", reason="refusal", body=text)
        elif reason == "content_filter":
            self.failure = RefusalError(
                "the answer was stopped by the provider's content filter", reason="content_filter"
            )
        elif reason == "error":
            self.failure = APIStatusError("the model behind the server failed", status_code=-1)
        elif not self._reply.said:
            if self._cut or reason == "length":
                self.failure = EmptyResponseError(
                    "the token limit was reached before any text or whole tool call; "
                    "allow more tokens or less reasoning",
                    retryable=False,
                )
            else:
                self.failure = self._reply.empty_reply_error(
                    self._allow_empty, f"finish_reason {reason!r}"
                )

    def _truncated(self, marked: bool) -> APIError:
        stray = self._sse.stray
        if stray:
            quoted = error_in_text(stray)
            if quoted is not None:
                return quoted
        if not self._seen:
            if stray:
                shown = plain_text(stray)
                return WireError(f"expected {_EXPECTED}, got: {shown}", body=shown)
            return APIConnectionError("the answer ended without a single event")
        if marked:
            return APIConnectionError(
                "the stream ended with [DONE] but never said why the model stopped "
                "(finish_reason); the answer cannot be taken as complete"
            )
        return APIConnectionError(
            "the stream ended before its end mark (finish_reason); the answer is cut short"
        )

    # -- memory ------------------------------------------------------------------------------

    def _keep(self, size: int) -> None:
        self._kept += size + TEXT_OVERHEAD
        if self._kept > _LIMIT and self.failure is None:
            self.failure = WireError(
                f"the tool calls and the state of one answer take more than {_LIMIT} bytes"
            )

    def _keep_details(self, details: list[Any]) -> None:
        # Only signatures and encrypted thoughts have to travel back; text alone does not.
        for entry in details:
            if isinstance(entry, dict):
                kept = cast("dict[str, Any]", entry)
                if kept.get("signature") or kept.get("data"):
                    self._details.append(kept)
                    self._keep(len(str(kept)))

    def _read_body(self, chunks: list[ChatChunk]) -> None:
        """An answer that is no stream: a JSON answer or error, several, or a page."""
        body = self._opening.body
        if self._opening.kind == "?":
            return
        if self._opening.kind == "page":
            self.failure = self._opening.page()
            return
        self.failure = too_many_values(body)
        if self.failure is not None:
            return
        try:
            values = _json_values(body)
        except ValueError:
            shown = plain_text(body)
            self.failure = WireError(f"expected {_EXPECTED}, got: {shown}", body=shown)
            return
        for value in values:
            chunk = _walk(value)
            if chunk is None or (chunk.error is None and chunk.choices is None):
                bare = message_of(value)
                self.failure = (
                    error_from(value)
                    if bare
                    else WireError(f"expected {_EXPECTED}, got: {plain_text(body)}", body=value)
                )
                return
            whole = [choice for choice in chunk.choices or () if choice.message is not None]
            for choice in whole:
                choice.delta = None  # the message of a whole answer is all of it
            self._take(chunk, chunks)
            if self.failure is not None:
                return
            if whole and not self.complete:
                self.complete = True


def _lines_of(data: bytes) -> list[bytes]:
    """The events in `data`, from servers that put no empty line between them."""
    lines = data.split(b"\n")
    if len(lines) < 2 or any(line[:1] not in (b"{", b"[", b"") for line in lines):
        return []
    return lines


def _json_values(body: bytes) -> list[Any]:
    try:
        value = jsontext.decode(body)
    except ValueError:
        lines = [line for line in body.splitlines() if line.strip()]
        if len(lines) < 2:
            raise
        return [jsontext.decode(line) for line in lines]
    return cast("list[Any]", value) if isinstance(value, list) else [value]


def _is_whole(arguments: str) -> bool:
    try:
        return isinstance(jsontext.decode(arguments), dict)
    except ValueError:
        return False


# -- the tolerant way -------------------------------------------------------------------------


def _walk(value: object) -> _Chunk | None:
    """A chunk from any JSON value, keeping what can be understood of it."""
    if isinstance(value, str):
        return _Chunk(error=value) if value else None
    if not isinstance(value, dict):
        return None
    data = cast("dict[str, Any]", value)
    choices: list[_Choice] | None = None
    if isinstance(data.get("choices"), (dict, list)):
        choices = []
        for entry in _entries(data["choices"]):
            if isinstance(entry, dict):
                choice = cast("dict[str, Any]", entry)
                choices.append(
                    _Choice(
                        delta=_walk_delta(choice.get("delta")),
                        index=_integer(choice.get("index")),
                        finish_reason=_word(choice.get("finish_reason")),
                        message=_walk_delta(choice.get("message")),
                        error=choice.get("error"),
                    )
                )
    return _Chunk(
        id=_word(data.get("id")),
        choices=choices,
        usage=data.get("usage"),
        error=data.get("error"),
        x_groq=_object(data.get("x_groq")),
        service_tier=data.get("service_tier"),
        loose=True,
    )


def _walk_delta(value: object) -> _Delta | None:
    if isinstance(value, str):
        return _Delta(content=value)
    if not isinstance(value, dict):
        return None
    data = cast("dict[str, Any]", value)
    content, thought = _walk_content(data.get("content"))
    calls: list[_Call] = []
    for entry in _entries(data.get("tool_calls")):
        if isinstance(entry, dict):
            call = cast("dict[str, Any]", entry)
            calls.append(
                _Call(
                    index=_integer(call.get("index")),
                    id=_word(call.get("id")),
                    # Some servers forget the envelope and put name and arguments beside the id.
                    function=_walk_function(call.get("function")) or _walk_function(call),
                    extra_content=_object(call.get("extra_content")),
                )
            )
    return _Delta(
        content=content,
        tool_calls=calls or None,
        reasoning_content=_word(data.get("reasoning_content")) or thought or None,
        reasoning=_walk_content(data.get("reasoning"))[0],
        refusal=_word(data.get("refusal")),
        function_call=_walk_function(data.get("function_call")),
        reasoning_details=_entries(data.get("reasoning_details")) or None,
        extra_content=_object(data.get("extra_content")),
        annotations=_entries(data.get("annotations")) or None,
        audio=_object(data.get("audio")),
    )


def _walk_content(value: object) -> tuple[str | None, str | None]:
    """Text and thinking of a content that may be text, a part, or a list of them."""
    if isinstance(value, str):
        return value, None
    if isinstance(value, dict):
        part = cast("dict[str, Any]", value)
        if part.get("type") in ("thinking", "reasoning"):
            inner = part.get("thinking") or part.get("reasoning") or part.get("text")
            return None, _walk_content(inner)[0]
        for key in ("text", "content", "refusal"):
            if isinstance(part.get(key), str):
                return part[key], None
        return None, None
    if isinstance(value, list):
        texts: list[str] = []
        thoughts: list[str] = []
        for entry in cast("list[Any]", value):
            text, thought = _walk_content(entry)
            texts.append(text or "")
            thoughts.append(thought or "")
        return "".join(texts) or None, "".join(thoughts) or None
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        return str(value), None
    return None, None


def _walk_function(value: object) -> _Function | None:
    if not isinstance(value, dict):
        return None
    data = cast("dict[str, Any]", value)
    arguments = data.get("arguments")
    if arguments is not None and not isinstance(arguments, str):
        # An object where JSON text belongs: write it as the text it should have been.
        arguments = jsontext.encode(arguments).decode()
    name = _word(data.get("name"))
    if name is None and arguments is None:
        return None
    return _Function(name=name, arguments=arguments)


def _details_text(details: list[Any]) -> str:
    texts: list[str] = []
    for entry in details:
        if isinstance(entry, dict):
            detail = cast("dict[str, Any]", entry)
            texts.append(_word(detail.get("text")) or _word(detail.get("summary")) or "")
    return "".join(texts)


def _object(value: object) -> dict[str, Any] | None:
    return cast("dict[str, Any]", value) if isinstance(value, dict) else None


def _entries(value: object) -> list[Any]:
    """A list as it is, one object as a list of one."""
    if isinstance(value, list):
        return cast("list[Any]", value)
    return [value] if isinstance(value, dict) else []


def _word(value: object) -> str | None:
    if isinstance(value, str):
        return value or None
    return str(value) if isinstance(value, int) and not isinstance(value, bool) else None


def _integer(value: object) -> int | None:
    if isinstance(value, bool):
        return None
    if isinstance(value, int):
        return value
    if isinstance(value, (str, float)):
        try:
            return int(value)
        except (ValueError, OverflowError):
            return None
    return None
