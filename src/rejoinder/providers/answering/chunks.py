"""The chunks of one running reply, and how it ends. Pure.

This module builds chunks; it knows no provider and no framing. A text may end with half a surrogate
pair (a tokenizer cut an emoji in two, and the server wrote ``\\ud83d``). The half is held back until
the other half arrives, because it can be neither printed nor sent.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection
from enum import Enum
from typing import Any, Final, cast

from rejoinder import _stamps
from rejoinder._core import jsontext
from rejoinder._core.bodies import plain_text
from rejoinder._core.chunks import ChatChunk, ChoiceDelta, CompletionUsage, FunctionToolCall
from rejoinder._core.usage import added
from rejoinder.errors import APIError, EmptyResponseError, WireError
from rejoinder.providers.answering.repeats import TRACKED, SentText

__all__ = ["EVENT_LIMIT", "KEPT_LIMIT", "MAX_ENTRIES", "MAX_VALUES", "TEXT_LIMIT", "Reply", "Step"]

EVENT_LIMIT: Final = 1 << 23
"""Maximum bytes of an event. A text in it may take four bytes of memory for each."""
KEPT_LIMIT: Final = 1 << 23
"""Maximum bytes of tool arguments, thinking, refusals and state kept for one reply."""
TEXT_LIMIT: Final = 1 << 22
"""Maximum characters of text and thinking in one reply. No model writes so many, and code that
collects a reply keeps them, at up to four bytes each."""
MAX_VALUES: Final = 1 << 16
"""Maximum number of values in one event: JSON of many small values takes up to 30 times its size in
memory. Legitimate large events hold one large value: a picture, sound or a long text."""
MAX_ENTRIES: Final = 4096
"""Maximum number of choices, parts, items or calls in one event or reply, to bound its time."""
_TEXT_OVERHEAD: Final = 48
"""Memory overhead of a piece of text, in bytes."""
_HOLDER: Final = re.compile(r"(?:functions|default_api)[.:]")
_TOLERATED: Final = 1 << 19
"""Maximum bytes of an event for the tolerant, slower reader."""


_no_names = cast("Callable[[], Collection[str]]", tuple)
"""`tuple` itself: calling `tuple[str, ...]` costs a hidden exception."""


class Step(Enum):
    """The steps of a reply; see `rejoinder.providers.answering.decoder.TRANSITIONS`."""

    __hash__ = object.__hash__

    STREAM_OPENED = "a stream opens"
    JSON_OPENED = "JSON opens"
    PAGE_OPENED = "a web page opens"
    ANSWER = "the answer is whole"
    END = "the end"
    FAIL = "a failure"


class Reply:
    """The chunks of one reply, and its state.

    Args:
        prefix: prefix of the generated id, which is used until the provider sends one.

    Attributes:
        id: id of the chunks.
        model: the model that answers, as the provider names it; empty if the provider does not name
            it, ``None`` until that is known.
        chunks: finished chunks that were not taken yet.
        has_calls: whether a tool call has been made.
        has_output: whether text or a tool call has been made.
        output_count: grows with every piece of text, thinking or tool arguments.
        finish_reason: the provider's own finish reason.
        skipped: number of events that the reader skipped.
        step: the effect of the last event on the reply, until the decoder has processed it.
        failure: why the reply failed.
        may_pause: a paused reply is sent back and continues.
        paused: the part to send back.
        spent: the usage of the parts before a pause.
        unreadable: the failure is an unreadable event. If the bytes end with it, it was cut.
        sent: the text so far, if the reader has called `track_text`.
        tool_names: returns the names of the declared tools, with which marks in names are found.
    """

    __slots__ = (
        "_half",
        "_half_thought",
        "_kept",
        "_length",
        "_validated",
        "_values",
        "_was_long",
        "chunks",
        "failure",
        "finish_reason",
        "has_calls",
        "has_output",
        "id",
        "may_pause",
        "model",
        "output_count",
        "paused",
        "sent",
        "skipped",
        "spent",
        "step",
        "tool_names",
        "unreadable",
    )

    def __init__(self, prefix: str) -> None:
        self.id = _stamps.new_id(prefix)
        self.model: str | None = None
        self.chunks: list[ChatChunk] = []
        self.has_calls = False
        self.has_output = False
        self.output_count = 0
        self.finish_reason: str | None = None
        self.skipped = 0
        self.step: Step | None = None
        self.may_pause = False
        self.paused: dict[str, Any] | None = None
        self.spent: CompletionUsage | None = None
        self.failure: APIError | None = None
        self.unreadable = False
        self.sent: SentText | None = None
        self.tool_names: Callable[[], Collection[str]] = _no_names
        self._half = ""
        self._half_thought = ""
        self._kept = 0
        self._length = 0
        self._was_long = False  # the text is no longer tracked
        self._values = 0
        self._validated: Callable[[Any], ChatChunk] = (
            ChatChunk.__pydantic_validator__.validate_python
        )

    # -- output ------------------------------------------------------------------------------

    def text(self, text: str, may_have_surrogates: bool = False) -> None:
        """Add a chunk of text. `may_have_surrogates`: it may hold halves of surrogate pairs."""
        if not text:
            return  # not output: it must not keep a silent server alive
        self.output_count += 1
        if may_have_surrogates or self._half:
            text, self._half = jsontext.join_halves(self._half, text)
            if not text:
                return
        self._length += len(text)
        if self._length > TEXT_LIMIT:
            self._is_too_long()
            return
        self.has_output = True
        sent = self.sent
        if sent is not None:
            sent.pieces.append(text)
            sent.size += len(text)
            if sent.size > TRACKED:
                self.sent = None
                self._was_long = True
        # Equal to ChatChunk(...) and validated, in two thirds of the time, because pydantic runs no
        # Python code for the outer and the inner model. Every word of every reply passes here.
        self.chunks.append(
            self._validated({"id": self.id, "delta": {"role": "assistant", "content": text}})
        )

    def finished_text(self, kind: str, text: str) -> None:
        """Add the part of a finished text that the deltas did not contain. `kind`: kind of the event.

        Needs `track_text`.
        """
        if self.sent is not None:
            self._add_rest(self.sent.beyond(kind, jsontext.heal(text)))
        elif not self._was_long:
            self.text(text, may_have_surrogates=True)

    def snapshot(self, text: str) -> None:
        """Add the part of the whole text so far that the deltas did not contain. Needs `track_text`."""
        if self.sent is not None:
            self._add_rest(self.sent.grown_to(jsontext.heal(text)))
        elif not self._was_long:
            self.text(text, may_have_surrogates=True)

    def _add_rest(self, more: str) -> None:
        self._length += len(more)
        if self._length > TEXT_LIMIT:
            self._is_too_long()
        elif more:
            self._half = ""  # the finished text has both halves
            self.output_count += 1
            self.has_output = True
            delta = ChoiceDelta(role="assistant", content=more)
            self.chunks.append(ChatChunk(id=self.id, delta=delta))

    def track_text(self) -> None:
        """Remember the text from now on, for `finished_text`."""
        self.sent = SentText()

    def is_blank(self) -> bool:
        """Whether no text was sent yet, or only white space."""
        return not self.has_output or (self.sent is not None and self.sent.is_blank())

    def thinking(self, text: str, may_have_surrogates: bool = False) -> None:
        """Add a chunk of visible reasoning."""
        if not text:
            return
        self.output_count += 1
        if may_have_surrogates or self._half_thought:
            text, self._half_thought = jsontext.join_halves(self._half_thought, text)
            if not text:
                return
        self._length += len(text)
        if self._length > TEXT_LIMIT:
            self._is_too_long()
            return
        self.chunks.append(
            ChatChunk(id=self.id, delta=ChoiceDelta(role="assistant", thinking=text))
        )

    def provider_state(self, extra: dict[str, Any]) -> None:
        """Add a chunk that only carries opaque provider state."""
        self.chunks.append(ChatChunk(id=self.id, delta=ChoiceDelta(role="assistant", extra=extra)))

    def call(
        self, call_id: str, name: str, arguments: str, extra: dict[str, Any] | None = None
    ) -> FunctionToolCall:
        """Add a chunk with one complete tool call. Missing arguments become the empty object."""
        self.has_calls = self.has_output = True
        call = FunctionToolCall(
            name=self._tool_name(jsontext.heal(name)),
            arguments=jsontext.heal(arguments) if arguments.strip() else "{}",
            call_id=jsontext.heal(call_id) or _stamps.new_id("function_call_"),
            extra=extra,
        )
        delta = ChoiceDelta(role="assistant", tool_calls=[call])
        self.chunks.append(ChatChunk(id=self.id, delta=delta))
        return call

    def _tool_name(self, name: str) -> str:
        """`name` without marks of a chat template and without a namespace. gpt-oss on vLLM, Ollama
        and Bedrock writes ``functions.look_up<|channel|>commentary`` (vllm-project/vllm#32587).
        Gemini's namespace is ``default_api``, as its messages about malformed calls show."""
        holder = _HOLDER.match(name)
        if holder is None and "<|" not in name:
            return name
        known = self.tool_names()
        if name in known:
            return name
        clean = name.partition("<|")[0].strip()
        bare = clean[holder.end() :] if holder is not None else clean
        return bare if bare in known else clean or name

    def usage(self, usage: CompletionUsage | None) -> None:
        """Add a chunk with the token counts, if there are any."""
        usage = self.with_spent(usage)
        if usage is not None:
            self.chunks.append(self._validated({"id": self.id, "usage": usage}))

    def with_spent(self, usage: CompletionUsage | None) -> CompletionUsage | None:
        """`usage` plus the usage of the parts before a pause."""
        return usage if self.spent is None else added(self.spent, usage)

    def flush(self) -> None:
        """Turn unpaired halves into U+FFFD at the end."""
        if self._half_thought:
            self._half_thought = ""
            self.thinking("\ufffd")
        if self._half:
            self._half = ""
            self.text("\ufffd")

    # -- the end -----------------------------------------------------------------------------

    def answered(self) -> None:
        """The answer is complete. At most the usage follows."""
        if self.step is None:
            self.step = Step.ANSWER

    def end(self) -> None:
        """Nothing of interest follows."""
        if self.step is not Step.FAIL:
            self.step = Step.END

    def pause(self, part: dict[str, Any]) -> None:
        """Pause the reply. It continues when `part`, the reply so far, is sent back."""
        self.paused = part
        self.end()

    def fail(self, error: APIError) -> None:
        """Fail the reply, after the chunks made so far. Only the first failure counts."""
        if self.failure is None:
            self.failure = error
            self.step = Step.FAIL

    def fail_if_empty(self, allowed: bool, why: str, *, retryable: bool = True) -> None:
        """Fail a reply that ended properly but has no output, unless that is allowed."""
        if not (self.has_output or allowed):
            self.fail(
                EmptyResponseError(
                    f"the model's reply has neither text nor a tool call ({why})",
                    retryable=retryable,
                )
            )

    # -- bounds ------------------------------------------------------------------------------

    def _is_too_long(self) -> None:
        self.fail(WireError(f"the text of one reply is longer than {TEXT_LIMIT} characters"))

    def keep(self, size: int) -> bool:
        """Count `size` bytes that the reader is about to keep. Returns whether it may."""
        self._kept += size + _TEXT_OVERHEAD
        if self._kept <= KEPT_LIMIT:
            return True
        self.fail(
            WireError(
                "the thinking, tool calls and state of one reply take more than "
                f"{KEPT_LIMIT} bytes of memory"
            )
        )
        return False

    def keep_text(self, text: str) -> bool:
        """`keep` for a text. Its characters take up to four bytes each, and JSON in it is parsed when
        the reply is complete."""
        self._values += text.count(",")
        if self._values > MAX_VALUES:
            self.fail(WireError(f"the texts of one reply hold more than {MAX_VALUES} values"))
            return False
        return self.keep(len(text) if text.isascii() else 4 * len(text))

    def entries(self, value: object) -> list[Any]:
        """`value` as a list. If it is too long, the reply fails and the result is empty."""
        found = jsontext.as_list(value)
        if len(found) > MAX_ENTRIES:
            self.fail(WireError(f"one event holds a list of more than {MAX_ENTRIES} entries"))
            return []
        return found

    def keep_value(self, value: Any) -> bool:
        """`keep` for a JSON value."""
        return self.keep(2 * len(jsontext.encode(value)))

    # -- events ------------------------------------------------------------------------------

    def tolerant(self, payload: bytes) -> Any:
        """The JSON value of an event that the strict reader refused.

        ``None`` if it is not JSON. Blank events and ``[DONE]`` are skipped; anything else that is
        not JSON fails the reply.
        """
        reason: str
        if len(payload) > _TOLERATED:
            reason = f"{len(payload)} bytes that do not follow the schema are not read"
        else:
            try:
                return jsontext.decode_tolerantly(payload)
            except ValueError as error:
                reason = str(error)
        if payload[:64].strip() in (b"[DONE]", b""):
            self.skipped += 1
            return None
        shown = plain_text(payload)
        self.fail(
            WireError(f"an event of the stream is not JSON ({reason}): {shown!r}", body=shown).but(
                section="not JSON"
            )
        )
        self.unreadable = True
        return None
