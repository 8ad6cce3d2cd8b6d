"""Reads the Chat Completions dialect, which dozens of servers speak in their own ways. Pure.

This module reads what servers were observed to send, not only what is documented: null deltas, content
as a list of parts, tool calls without index, id or type, usage in every chunk or in none, errors in the
middle of a good answer, whole JSON answers instead of a stream.

The end mark is `finish_reason`; ``[DONE]`` only shows that the server stopped writing, which gateways
also do if the model behind them has died. A tool call that the token limit cut is never passed on.
"""

from __future__ import annotations

from typing import Any, Final

import msgspec

from rejoinder._core import jsontext
from rejoinder._core.bodies import plain_text
from rejoinder._core.chunks import CompletionUsage
from rejoinder._core.families import UNKNOWN, Family
from rejoinder.errors import (
    APIConnectionError,
    APIError,
    APIStatusError,
    EmptyResponseError,
    RefusalError,
    WireError,
)
from rejoinder.providers.answering.chunks import MAX_ENTRIES, Reply
from rejoinder.providers.answering.decoder import ReplyDecoder
from rejoinder.providers.answering.fragments import Fragments
from rejoinder.providers.answering.framings import sse_events
from rejoinder.providers.answering.marks import ReplyMarks
from rejoinder.providers.answering.names import model_named_in
from rejoinder.providers.answering.reasons import is_broken_off
from rejoinder.providers.completions.calls import Calls
from rejoinder.providers.completions.errors import decode_error, error_from, event_error, message_of
from rejoinder.providers.completions.events import Call, Chunk, Delta, Function, decode_chunk, walk
from rejoinder.providers.completions.usage import usage_from_openai

__all__ = ["CompletionsReader", "decode_error", "error_from", "make_decoder"]

_REPEAT: Final = 32
"""Minimum characters of a last delta that is compared with the whole text before it."""


def make_decoder(
    *,
    allow_empty: bool = False,
    trust_done: bool = False,
    state_key: str = "openai",
    keep_reasoning: bool = False,
    family: Family = UNKNOWN,
    marks: bool = True,
    host: str = "",
) -> ReplyDecoder:
    """A decoder for the stream of one chat completion; the options are those of the reader."""
    reader = CompletionsReader(
        allow_empty=allow_empty,
        trust_done=trust_done,
        state_key=state_key,
        keep_reasoning=keep_reasoning,
        family=family,
        marks=marks,
        host=host,
    )
    return ReplyDecoder(sse_events(), reader, prefix="chatcmpl-", track_text=True)


class CompletionsReader:
    """Reads the events of one chat completion.

    Args:
        allow_empty: accept an answer without text or tool call, which is legal after a tool's output.
        trust_done: treat ``[DONE]`` without a `finish_reason` as the end of a complete answer, for
            servers that never send one.
        state_key: the key of this provider's opaque state in `ChoiceDelta.extra`.
        keep_reasoning: keep the reasoning of a reply to send it back, even if the model's family does
            not need it.
        family: the model's family, which determines the marks it leaves in the text.
        marks: remove marks from the text. Otherwise ``<think>`` is text.
        host: the server; opaque state is marked with it, and sent back only to it.
    """

    __slots__ = (
        "_allow_empty",
        "_answer",
        "_answered",
        "_calls",
        "_details",
        "_from",
        "_marks",
        "_refusal",
        "_state_key",
        "_thought",
        "_thoughts",
        "_tier",
        "_trust_done",
        "_uncounted",
        "_unknown",
        "_usage",
    )

    expected = "server-sent events of a chat completion"

    def __init__(
        self,
        *,
        allow_empty: bool = False,
        trust_done: bool = False,
        state_key: str = "openai",
        keep_reasoning: bool = False,
        family: Family = UNKNOWN,
        marks: bool = True,
        host: str = "",
    ) -> None:
        self._from: dict[str, Any] = {"host": host} if host else {}
        self._allow_empty = allow_empty
        self._trust_done = trust_done
        self._state_key = state_key
        wanted = keep_reasoning or family.reasoning_back != "never"
        self._thoughts: list[str] | None = [] if wanted else None
        self._thought = False  # reasoning came in a field of its own
        self._marks = ReplyMarks(family) if marks else None
        self._answer: int | None = None  # the choice to read: the first that arrives
        self._answered = False
        self._calls: Calls | None = None
        self._refusal: list[str] = []
        self._details: list[Fragments] = []
        self._unknown = Fragments()
        self._usage: Any = None
        self._uncounted = False  # a count arrived that no chunk has reported
        self._tier: Any = None

    def usage(self) -> CompletionUsage | None:
        """The provider's token counts so far; some send them in every chunk."""
        raw = self._usage
        return None if raw is None else usage_from_openai(raw, service_tier=self._tier)

    # -- events ------------------------------------------------------------------------------

    def event(self, name: str | None, payload: bytes, reply: Reply) -> None:
        """Read one event."""
        if payload == b"[DONE]":
            self._end(reply, marked=True)
            return
        try:
            chunk = decode_chunk(payload)
        except (msgspec.MsgspecError, UnicodeError, RecursionError):
            if payload[:64].strip() == b"[DONE]":
                self._end(reply, marked=True)
                return
            if b"\n{" in payload and (lines := _lines_of(payload)):
                for line in lines:
                    self.event(name, line, reply)
                    if reply.failure is not None:
                        return
                return
            value = reply.tolerant(payload)
            chunk = walk(value)
            if chunk is None:
                if name == "error" and (value is not None or reply.unreadable):
                    _forgive(reply)
                    reply.fail(error_from(event_error(name, payload)))
                elif value is not None:
                    reply.skipped += 1
                return
        if reply.model is None and chunk.choices:  # Azure's first event names nothing
            reply.model = model_named_in(payload)
        if chunk.choices is None and chunk.error is None:
            chunk.error = event_error(name, payload)
        self._take(chunk, reply)

    def whole(self, body: bytes, reply: Reply) -> None:
        """Read a JSON object that the server sent instead of a stream."""
        try:
            value = jsontext.decode(body)
        except ValueError:
            value = None
        chunk = walk(value)
        if chunk is None or (chunk.error is None and chunk.choices is None):
            shown = plain_text(body)
            reply.fail(
                error_from(value)
                if message_of(value)
                else WireError(f"expected {self.expected}, got: {shown}", body=shown)
            )
            return
        reply.model = model_named_in(body)
        whole = False
        for choice in chunk.choices or ():
            if choice.message is not None:
                choice.delta = None  # a whole answer has its complete message
                whole = True
        self._take(chunk, reply)
        if whole and not self._answered:
            self._answered = True
            self._finish(reply)
            reply.answered()

    def ended(self, reply: Reply) -> None:
        """The bytes have ended."""
        self._end(reply, marked=False)

    def _take(self, chunk: Chunk, reply: Reply) -> None:
        if chunk.id:
            reply.id = chunk.id
        choices = chunk.choices
        if choices:
            if len(choices) > MAX_ENTRIES:
                choices = reply.entries(choices)
            for choice in choices:
                index = choice.index or 0
                if index != self._answer:
                    if self._answer is not None:
                        continue  # only one answer can be spoken
                    self._answer = index
                delta = choice.delta
                if delta is not None:
                    content = delta.content
                    if delta.reasoning_content or delta.reasoning or delta.reasoning_details:
                        self._reasoning(delta, reply, chunk.loose)
                    if content and not (choice.finish_reason and _repeats(content, reply)):
                        marks = self._marks
                        if marks is not None and (
                            "<" in content or marks.busy or (marks.more and marks.begin_in(content))
                        ):
                            marks.split(content, reply, chunk.loose)
                        else:
                            reply.text(content, chunk.loose)
                    if (
                        delta.tool_calls
                        or delta.refusal
                        or delta.function_call
                        or delta.extra_content
                        or delta.annotations
                        or delta.audio
                        or delta.unknown
                    ):
                        self._rare(delta, reply)
                if choice.message is not None:
                    self._message(choice.message, reply, chunk.loose)
                if choice.error is not None and chunk.error is None:
                    chunk.error = choice.error
                if choice.finish_reason and choice.finish_reason != "null":
                    reply.finish_reason = choice.finish_reason
                    self._answered = True
                    reply.answered()
                    self._finish(reply)
        if chunk.service_tier is not None:
            self._tier = chunk.service_tier
        usage = chunk.usage
        if chunk.x_groq is not None:
            usage = usage or chunk.x_groq.get("usage")
            if chunk.error is None:
                chunk.error = chunk.x_groq.get("error")
        if usage:
            self._usage = usage
            self._uncounted = True
            # Some servers count in every chunk: only the last count is worth a chunk.
            if self._answered or not choices:
                self._count(reply)
        if chunk.error:
            self._count(reply)
            reply.fail(error_from(chunk.error))

    def _reasoning(self, delta: Delta, reply: Reply, loose: bool) -> None:
        thought = delta.reasoning_content or delta.reasoning
        details = delta.reasoning_details
        if not self._thought:
            self._thought = True
            if self._marks is not None:
                self._marks.thinks_apart(reply)
        if details:
            if not thought:
                thought = _details_text(details)
            self._keep_details(details, reply)
        if not thought:
            return
        if self._thoughts is not None and reply.keep_text(thought):
            self._thoughts.append(thought)
        reply.thinking(thought, loose)

    def _message(self, message: Delta, reply: Reply, loose: bool) -> None:
        """A finished message. Deltas may already have sent all or a part of it."""
        if not self._thought and (
            message.reasoning_content or message.reasoning or message.reasoning_details
        ):
            self._reasoning(message, reply, loose)
        content = message.content
        if content and self._marks is not None:
            self._marks.snapshot(content, reply)
        elif content:
            reply.snapshot(content)
        if message.tool_calls:
            self._open_calls(reply).finished(_calls_of(message.tool_calls))
            message.tool_calls = None
        self._rare(message, reply)

    def _rare(self, delta: Delta, reply: Reply) -> None:
        for call in delta.tool_calls or ():
            self._fragment(call, reply)
        function = delta.function_call
        if function is not None and (function.name or function.arguments):
            self._fragment(Call(index=-1, function=function), reply)
        if delta.refusal:
            reply.output_count += 1
            if reply.keep_text(delta.refusal):
                self._refusal.append(delta.refusal)
        if delta.extra_content:
            reply.provider_state(delta.extra_content)
        if delta.annotations:
            reply.provider_state({self._state_key: {"annotations": delta.annotations}})
        if delta.audio:
            self._audio(delta.audio, reply)
        if delta.unknown and reply.keep_value(delta.unknown):
            self._unknown.add(delta.unknown)

    def _audio(self, audio: dict[str, Any], reply: Reply) -> None:
        transcript = audio.get("transcript")
        if isinstance(transcript, str) and transcript:
            reply.text(transcript, may_have_surrogates=True)
        data = {key: value for key, value in audio.items() if key != "transcript" and value}
        if data.get("data") or data.get("id"):
            reply.output_count += 1
            reply.provider_state({self._state_key: {"audio": [data]}})

    def _open_calls(self, reply: Reply) -> Calls:
        calls = self._calls
        if calls is None:
            calls = self._calls = Calls(reply)
        return calls

    def _fragment(self, call: Call, reply: Reply) -> None:
        function = call.function or Function()
        if self._marks is not None:
            self._marks.after_call()
        self._open_calls(reply).fragment(
            call.index,
            call.id or "",
            function.name or "",
            function.arguments or "",
            call.extra_content,
        )

    # -- the end -----------------------------------------------------------------------------

    def _finish(self, reply: Reply) -> None:
        """The answer is complete: return the parts that were held back."""
        if self._marks is not None:
            self._marks.finish(reply)
        reply.flush()
        if self._thoughts:
            thoughts = jsontext.heal("".join(self._thoughts))
            reply.provider_state({self._state_key: {"reasoning_content": thoughts}})
            self._thoughts = []
        if self._calls is not None:
            self._calls.hand_out(reply.finish_reason)
        if self._details:
            details = [detail.joined() for detail in self._details]
            self._details = []
            reply.provider_state({self._state_key: {"reasoning_details": details, **self._from}})
        if self._unknown:
            fields = self._unknown.joined()
            reply.provider_state({self._state_key: {"fields": fields, **self._from}})
            self._unknown = Fragments()

    def _count(self, reply: Reply) -> None:
        if self._uncounted:
            self._uncounted = False
            reply.usage(self.usage())

    def _end(self, reply: Reply, *, marked: bool) -> None:
        """The server sends nothing more. Judge the answer. `marked`: it sent an end mark."""
        if not self._answered and marked and self._trust_done:
            self._answered = True
        if self._answered:
            self._finish(reply)
        self._count(reply)
        if not self._answered:
            reply.fail(_truncated(marked))
            return
        reason = reply.finish_reason
        cut = self._calls is not None and self._calls.were_cut
        if self._refusal:
            text = jsontext.heal("".join(self._refusal))
            reply.fail(RefusalError(f"the model refused: {text}", reason="refusal", body=text))
        elif reason == "content_filter":
            reply.fail(
                RefusalError(
                    "the answer was stopped by the provider's content filter",
                    reason="content_filter",
                )
            )
        elif is_broken_off(reason):
            reply.fail(
                APIStatusError(
                    f"the server broke the answer off (finish_reason {reason!r})", status_code=-1
                )
            )
        elif not reply.has_output and (cut or reason == "length"):
            reply.fail(
                EmptyResponseError(
                    "the token limit was reached before any text or whole tool call; "
                    "allow more tokens or less reasoning",
                    retryable=False,
                )
            )
        else:
            reply.fail_if_empty(self._allow_empty, f"finish_reason {reason!r}")
        reply.end()

    # -- state -------------------------------------------------------------------------------

    def _keep_details(self, details: list[Any], reply: Reply) -> None:
        """Keep the fragments of `reasoning_details` as OpenRouter wants them back: in order, those
        of one index joined."""
        kept = self._details
        for entry in details:
            detail = jsontext.as_mapping(entry)
            if detail is None or not reply.keep_value(detail):
                continue
            index = detail.get("index")
            last = kept[-1] if kept else None
            if (
                last is None
                or index is None
                or not last.is_for(index=index, type=detail.get("type"))
            ):
                last = Fragments()
                kept.append(last)
            last.add(detail)


def _repeats(content: str, reply: Reply) -> bool:
    """Whether the last delta only repeats the whole text."""
    sent = reply.sent
    return sent is not None and len(content) >= _REPEAT and sent.text() == content


def _forgive(reply: Reply) -> None:
    if reply.unreadable:
        reply.failure = None
        reply.unreadable = False


def _truncated(marked: bool) -> APIError:
    if marked:
        return APIConnectionError(
            "the stream ended with [DONE], but without the reason why the model stopped "
            "(finish_reason); the answer cannot be taken as complete"
        )
    return APIConnectionError(
        "the stream ended before its end mark (finish_reason); the answer is cut short"
    ).but(section="cut")


def _lines_of(data: bytes) -> list[bytes]:
    """The events in `data`, from servers that put no empty line between them."""
    lines = data.split(b"\n")
    if len(lines) < 2 or any(line[:1] not in (b"{", b"[", b"") for line in lines):
        return []
    return lines


def _calls_of(calls: list[Call]) -> list[tuple[str, str, str]]:
    found: list[tuple[str, str, str]] = []
    for call in calls:
        function = call.function or Function()
        found.append((call.id or "", function.name or "", function.arguments or ""))
    return found


def _details_text(details: list[Any]) -> str:
    texts: list[str] = []
    for entry in details:
        detail = jsontext.as_mapping(entry)
        if detail is not None:
            texts.append(
                jsontext.as_text(detail.get("text")) or jsontext.as_text(detail.get("summary"))
            )
    return "".join(texts)
