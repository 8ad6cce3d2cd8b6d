"""Reads the replies of the embedded engine: chat completions, with calls written as text. Pure.

The JSON of a call is never passed on as text. A reply that consists only of an invalid call is not an
error: `LocalReader.again` describes how to ask the model again.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, cast

from rejoinder import _stamps
from rejoinder._core import jsontext
from rejoinder._core.chunks import ChatChunk, CompletionUsage
from rejoinder.errors import APIError, APIStatusError, EmptyResponseError
from rejoinder.providers.answering.chunks import Reply, Step
from rejoinder.providers.completions import wire
from rejoinder.providers.completions.wire import CompletionsReader
from rejoinder.providers.local.format import Mode
from rejoinder.providers.local.reader import CallReader
from rejoinder.providers.local.tools import Call, ToolSpec

__all__ = ["Again", "ContextOverflowError", "LocalReader", "decode_error"]


class ContextOverflowError(APIStatusError):
    """The conversation does not fit into the model's context.

    Attributes:
        prompt_tokens: tokens of the conversation.
        context: maximum tokens of prompt and reply together.
    """

    def __init__(self, prompt_tokens: int, context: int, *, body: object = None) -> None:
        super().__init__(
            f"the conversation has {prompt_tokens} tokens, the model's context holds {context}: "
            "shorten it (ChatContext.truncate), or allow a longer context (context=)",
            status_code=400,
            body=body,
            retryable=False,
        )
        self.prompt_tokens = prompt_tokens
        self.context = context


@dataclass(frozen=True, slots=True)
class Again:
    """How to ask the model again."""

    mode: Mode
    tool: str | None
    """The tool whose call did not fit its schema."""
    usage: CompletionUsage | None
    """The usage of the discarded reply."""


_PATIENCE: Final = 16
"""Number of text pieces after the only accepted call before the reply is ended. It continues up to here
because most models end soon, and the usage comes at the end."""
_BEAT: Final = b'"prompt_progress"'


class LocalReader:
    """Reads the events of the engine's reply.

    Args:
        mode: the kind of the request.
        specs: the declared tools.
        single: accept one call at most; the text after it is cut off.
        answered: calls whose results are in the conversation; they are not repeated.
        lookalikes: drop texts that only look like a call; see `CallReader`.
        allow_empty: accept an empty answer, which is legal after a tool's output.
        spent: usage of earlier attempts at the same reply; added to the usage.

    Attributes:
        again: after the end: how to ask again, if this reply has nothing to pass on.
    """

    expected = "server-sent events of a chat completion"

    def __init__(
        self,
        *,
        mode: Mode = "plain",
        specs: Sequence[ToolSpec] = (),
        single: bool = False,
        answered: Collection[Call] = (),
        lookalikes: bool = True,
        allow_empty: bool = False,
        spent: CompletionUsage | None = None,
    ) -> None:
        self._base = CompletionsReader(allow_empty=allow_empty, state_key="local")
        self._inner = Reply("chatcmpl-")  # the reply that the base reader writes into
        self._inner.track_text()
        self._mode = mode
        self._lookalikes = lookalikes
        self._allow_empty = allow_empty
        self._reader = (
            CallReader(
                specs,
                single=single or mode == "forced",
                answered=answered,
                refuse=mode in ("plain", "words"),
                lookalikes=lookalikes,
            )
            if specs
            else None
        )
        self._spent = spent
        self._usage: CompletionUsage | None = None
        self._after = 0
        self._closed = False
        self.again: Again | None = None

    def usage(self) -> CompletionUsage | None:
        """The usage so far, including earlier attempts."""
        return _added(self._spent, self._usage or self._base.usage())

    def event(self, name: str | None, payload: bytes, reply: Reply) -> None:
        """Read one event."""
        if _BEAT in payload:
            reply.output_count += 1
        self._base.event(name, payload, self._inner)
        self._follow(reply)

    def whole(self, body: bytes, reply: Reply) -> None:
        """Read a JSON object that arrived instead of a stream."""
        self._base.whole(body, self._inner)
        self._follow(reply)

    def ended(self, reply: Reply) -> None:
        """The bytes have ended."""
        self._base.ended(self._inner)
        self._follow(reply)

    def _follow(self, reply: Reply) -> None:
        """Apply the base reader's changes of its reply to this one."""
        inner = self._inner
        reply.id = inner.id
        reply.output_count += inner.output_count
        reply.skipped += inner.skipped
        inner.output_count = inner.skipped = 0
        reply.finish_reason = inner.finish_reason
        chunks, inner.chunks = inner.chunks, []
        step, inner.step = inner.step, None
        if self._closed:
            return
        if self._sort(chunks, reply):
            step = Step.END
        elif inner.failure is not None:
            if self._reader is not None:
                self._add(self._reader.close(), reply)
            reply.unreadable = inner.unreadable
            reply.fail(inner.failure)
            inner.failure = None
            inner.unreadable = False
            return
        if step is Step.END:
            self._close(reply)
            reply.end()
        elif step is Step.ANSWER:
            reply.answered()

    def _close(self, reply: Reply) -> None:
        """The reply has ended: judge what was read."""
        self._closed = True
        reader = self._reader
        if reader is not None:
            self._add(reader.close(), reply)
            if self._mode == "forced" and not reader.called:
                reply.fail(
                    EmptyResponseError(
                        "the model had to call a tool, but wrote no complete call; "
                        "allow more tokens (max_completion_tokens)",
                        retryable=False,
                    )
                )
                return
            if reader.dropped and not reader.said and not reader.called:
                if self._mode == "auto":
                    self._ask_again("forced" if reader.misfit else "plain", reader.misfit)
                    return
                if self._mode == "plain" and self._lookalikes:
                    self._ask_again("words", None)
                    return
                if not self._allow_empty:
                    reply.fail(
                        EmptyResponseError(
                            "the model wrote only a tool call, but no call was allowed"
                        )
                    )
                    return
        if self._usage is not None:
            reply.usage(self.usage())

    def _ask_again(self, mode: Mode, tool: str | None) -> None:
        self.again = Again(mode, tool, _added(self._spent, self._usage))

    def _sort(self, chunks: list[ChatChunk], reply: Reply) -> bool:
        """Add the chunks to pass on. Returns whether to end the reply here."""
        reader = self._reader
        for chunk in chunks:
            delta = chunk.delta
            if chunk.usage is not None:
                self._usage = chunk.usage  # sent last, after the text that is held back
            elif delta is None or reader is None:
                reply.chunks.append(chunk)
            elif delta.content:
                if reader.full:
                    self._after += 1
                    if self._after > _PATIENCE:
                        return True
                self._add(reader.feed(delta.content), reply)
            elif delta.tool_calls:  # the engine recognizes calls, but does not check them
                for call in delta.tool_calls:
                    self._add(reader.take(call.name, call.arguments), reply)
            else:
                reply.chunks.append(chunk)
        return False

    def _add(self, found: Sequence[str | Call], reply: Reply) -> None:
        for piece in found:
            if isinstance(piece, Call):
                reply.call(_stamps.new_id("call_"), piece.name, piece.arguments)
            elif self._mode != "forced":
                reply.text(piece)


def _added(before: CompletionUsage | None, usage: CompletionUsage | None) -> CompletionUsage | None:
    if before is None or usage is None:
        return usage or before
    return CompletionUsage(
        completion_tokens=before.completion_tokens + usage.completion_tokens,
        prompt_tokens=before.prompt_tokens + usage.prompt_tokens,
        prompt_cached_tokens=before.prompt_cached_tokens + usage.prompt_cached_tokens,
        cache_read_tokens=before.cache_read_tokens + usage.cache_read_tokens,
        total_tokens=before.total_tokens + usage.total_tokens,
    )


def decode_error(status: int, headers: Mapping[str, str], body: bytes) -> APIError:
    """The error for a response with an error status. The engine always answers the same request in the
    same way, so only "still loading" is retried."""
    try:
        value = jsontext.decode(body)
    except ValueError:
        value = None
    if isinstance(value, dict):
        inner: Any = cast("dict[str, Any]", value).get("error")
        if isinstance(inner, dict):
            details = cast("dict[str, Any]", inner)
            if details.get("type") == "exceed_context_size_error":
                return ContextOverflowError(
                    int(details.get("n_prompt_tokens") or 0),
                    int(details.get("n_ctx") or 0),
                    body=details,
                )
    error = wire.decode_error(status, headers, body)
    return error if status == 503 else error.but(retryable=False)
