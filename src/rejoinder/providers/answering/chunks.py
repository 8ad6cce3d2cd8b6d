"""What the decoders of several providers have in common: one reply under way.

The law of this file: it builds chunks and knows whether anything was said; it knows no provider's
words. Text may arrive with half a surrogate pair at its end (an emoji cut in two by the model's
tokenizer, written as ``\\ud83d``): the half waits for its other half, because nothing that prints
or sends text can hold it. Pure.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from rejoinder import _stamps
from rejoinder._core import jsontext
from rejoinder._core.chunks import ChatChunk, ChoiceDelta, CompletionUsage, FunctionToolCall
from rejoinder.errors import APIError, EmptyResponseError, WireError

__all__ = [
    "SCAN_FROM",
    "TEXT_OVERHEAD",
    "Reply",
    "too_many_values",
]

TEXT_OVERHEAD: Final = 48
"""Bytes that a piece of text takes beside its characters: decoders count it to what they keep."""


class Reply:
    """The chunks of one reply.

    Attributes:
        id: what the chunks are marked with; a fresh one until the provider names its own.
        said: whether text or a tool call has been produced.
        progress: grows with every piece of text, thinking or tool arguments.
    """

    __slots__ = ("_half", "_half_thought", "_validated", "id", "progress", "said")

    def __init__(self, prefix: str) -> None:
        self.id = _stamps.new_id(prefix)
        self.said = False
        self.progress = 0
        self._half = ""
        self._half_thought = ""
        self._validated: Callable[[Any], ChatChunk] = (
            ChatChunk.__pydantic_validator__.validate_python
        )

    def text(self, text: str, loose: bool = False) -> ChatChunk | None:
        """A chunk of spoken text. `loose`: it may hold halves of surrogate pairs."""
        if not text:
            return None  # no output: it must not keep a silent server alive
        self.progress += 1
        if loose or self._half:
            text, self._half = _joined(self._half, text)
        if not text:
            return None
        self.said = True
        # As ChatChunk(...), validated and equal to it, in two thirds of the time: no Python code
        # of pydantic runs for the outer and the inner model. Every word of every reply passes here.
        return self._validated({"id": self.id, "delta": {"role": "assistant", "content": text}})

    def thinking(self, text: str, loose: bool = False) -> ChatChunk | None:
        """A chunk of visible reasoning."""
        if not text:
            return None
        self.progress += 1
        if loose or self._half_thought:
            text, self._half_thought = _joined(self._half_thought, text)
        if not text:
            return None
        return ChatChunk(id=self.id, delta=ChoiceDelta(role="assistant", thinking=text))

    def state(self, extra: dict[str, Any]) -> ChatChunk:
        """A chunk that only carries opaque provider state."""
        return ChatChunk(id=self.id, delta=ChoiceDelta(role="assistant", extra=extra))

    def call(
        self, call_id: str, name: str, arguments: str, extra: dict[str, Any] | None = None
    ) -> ChatChunk:
        """A chunk with one complete tool call. No arguments at all are the empty object."""
        self.said = True
        call = FunctionToolCall(
            name=jsontext.heal(name),
            arguments=jsontext.heal(arguments) if arguments.strip() else "{}",
            call_id=jsontext.heal(call_id) or _stamps.new_id("function_call_"),
            extra=extra,
        )
        return ChatChunk(id=self.id, delta=ChoiceDelta(role="assistant", tool_calls=[call]))

    def usage(self, usage: CompletionUsage) -> ChatChunk:
        return ChatChunk(id=self.id, usage=usage)

    def rest(self) -> list[ChatChunk]:
        """At the end: halves that never met their other half, as U+FFFD."""
        chunks: list[ChatChunk] = []
        if self._half_thought:
            self._half_thought = ""
            chunks.append(
                ChatChunk(id=self.id, delta=ChoiceDelta(role="assistant", thinking="\ufffd"))
            )
        if self._half:
            self._half = ""
            self.said = True
            chunks.append(
                ChatChunk(id=self.id, delta=ChoiceDelta(role="assistant", content="\ufffd"))
            )
        return chunks

    def empty_reply_error(
        self, allowed: bool, why: str, *, retryable: bool = True
    ) -> APIError | None:
        """The error of a reply that ended in order and said nothing; ``None`` if it did or may."""
        if self.said or allowed:
            return None
        return EmptyResponseError(
            f"the model's reply has neither text nor a tool call ({why})", retryable=retryable
        )


def _joined(half: str, text: str) -> tuple[str, str]:
    text = half + text
    rest = ""
    if text and "\ud800" <= text[-1] <= "\udbff":
        text, rest = text[:-1], text[-1]
    return jsontext.heal(text), rest


SCAN_FROM: Final = 1 << 20
"""Bytes of JSON beyond which it is looked at before it is read, see `too_many_values`."""
_MAX_VALUES: Final = 1 << 18


def too_many_values(data: bytes) -> WireError | None:
    """The error of JSON that would take many times its size; ``None`` for any other. What is large
    for good reason is a picture, sound or a long text: one value."""
    if len(data) <= SCAN_FROM or data.count(b",") <= _MAX_VALUES:
        return None
    return WireError(f"{len(data)} bytes of JSON hold more than {_MAX_VALUES} values")
