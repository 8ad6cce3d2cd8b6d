"""What the embedded engine says: chat completions, with the calls that small models write as text.

Law of this file: pure; bytes in, chunks out, with all that `rejoinder.wire.decoder` promises. It
never lets the JSON of a call through as text. When a reply turns out to be nothing but a call that
cannot be taken, it raises nothing: it says in `again` how the model is to be asked once more.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, cast

from rejoinder import _stamps
from rejoinder._core import jsontext
from rejoinder._core.chunks import ChatChunk, ChoiceDelta, CompletionUsage, FunctionToolCall
from rejoinder.errors import APIError, APIStatusError, EmptyResponseError
from rejoinder.providers.completions import wire
from rejoinder.providers.local.format import Mode
from rejoinder.providers.local.reader import CallReader
from rejoinder.providers.local.tools import Call, ToolSpec

__all__ = ["Again", "ContextOverflowError", "StreamDecoder", "decode_error"]


class ContextOverflowError(APIStatusError):
    """The conversation does not fit into the model's context.

    Attributes:
        prompt_tokens: what the conversation needs.
        context: what there is, for prompt and reply together.
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
    """How to ask once more."""

    mode: Mode
    tool: str | None
    """The tool whose call did not fit its schema."""
    usage: CompletionUsage | None
    """What the reply that was thrown away has cost."""


_PATIENCE: Final = 16
"""Pieces of text after the only call that is taken, before the rest is not waited for. The usage
comes at the end, and most models end there by themselves."""
_BEAT: Final = b'"prompt_progress"'


class StreamDecoder:
    """Bytes of a streamed reply in, chunks out.

    Args:
        mode: what was asked for.
        specs: the declared tools.
        single: one call at most; what follows it is cut off.
        answered: calls whose results are in the conversation; they are not made again.
        lookalikes: what only has the shape of a call is dropped; see `CallReader`.
        allow_empty: an empty answer is legal (it follows a tool's output).
        spent: what was used up before by the same reply; added to the usage.

    Attributes:
        again: after `close`: how to ask once more, if this reply is nothing to hand on.
    """

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
        self._base = wire.StreamDecoder(allow_empty=allow_empty, state_key="local")
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
        self._usage: list[ChatChunk] = []
        self._beats = 0
        self._tail = b""
        self._id = ""
        self._after = 0
        self._stopped = False
        self._failure: APIError | None = None
        self._closed = False
        self.again: Again | None = None

    @property
    def failure(self) -> APIError | None:
        if self._stopped:
            return None
        return self._failure or self._base.failure

    @property
    def done(self) -> bool:
        return self._base.done or self._stopped

    @property
    def progress(self) -> int:
        return self._base.progress + self._beats

    @property
    def finish_reason(self) -> str | None:
        """Why the model stopped, in the engine's own word."""
        return self._base.finish_reason

    @property
    def skipped(self) -> int:
        return self._base.skipped

    def feed(self, data: bytes) -> list[ChatChunk]:
        """The chunks that `data` completes.

        Raises:
            APIError: found in an earlier call.
        """
        if self._failure is not None:
            raise self._failure
        if self._stopped:
            return []
        seen = self._tail + data
        self._beats += seen.count(_BEAT)
        self._tail = seen[-(len(_BEAT) - 1) :]
        return self._sorted(self._base.feed(data))

    def close(self) -> list[ChatChunk]:
        """No more bytes. Returns what is left.

        Raises:
            APIError: the reply is not complete, or nothing.
        """
        if self._failure is not None:
            raise self._failure
        if self._closed:
            return []
        chunks = [] if self._stopped else self._sorted(self._base.close())
        self._closed = True
        reader = self._reader
        if reader is not None:
            chunks += self._given(reader.close())
            if self._mode == "forced" and not reader.called:
                self._failure = EmptyResponseError(
                    "the model was made to call a tool and wrote no whole call; "
                    "allow more tokens (max_completion_tokens)",
                    retryable=False,
                )
                raise self._failure
            if reader.dropped and not reader.said and not reader.called:
                if self._mode == "auto":
                    self._ask_again("forced" if reader.misfit else "plain", reader.misfit)
                    return chunks
                if self._mode == "plain" and self._lookalikes:
                    self._ask_again("words", None)
                    return chunks
                if not self._allow_empty:
                    self._failure = EmptyResponseError(
                        "the model wrote nothing but a tool call, where none was allowed"
                    )
                    raise self._failure
        for chunk in self._usage:
            chunks.append(ChatChunk(id=chunk.id, usage=_added(self._spent, chunk.usage)))
        return chunks

    def _ask_again(self, mode: Mode, tool: str | None) -> None:
        usage = self._usage[-1].usage if self._usage else None
        self.again = Again(mode, tool, _added(self._spent, usage))

    def _sorted(self, found: list[ChatChunk]) -> list[ChatChunk]:
        chunks: list[ChatChunk] = []
        reader = self._reader
        for chunk in found:
            self._id = chunk.id
            delta = chunk.delta
            if chunk.usage is not None:
                self._usage = [chunk]  # it comes last, after what is still held back
            elif delta is None or reader is None:
                chunks.append(chunk)
            elif delta.content:
                if reader.full:
                    self._after += 1
                    if self._after > _PATIENCE:
                        self._stopped = True
                        return chunks
                chunks += self._given(reader.feed(delta.content))
            elif delta.tool_calls:  # the engine has recognised them, and checked nothing
                for call in delta.tool_calls:
                    chunks += self._given(reader.take(call.name, call.arguments))
            else:
                chunks.append(chunk)
        if reader is not None and self._base.failure is not None:
            chunks += self._given(reader.close())
        return chunks

    def _given(self, found: Sequence[str | Call]) -> list[ChatChunk]:
        chunks: list[ChatChunk] = []
        for piece in found:
            if isinstance(piece, Call):
                call = FunctionToolCall(
                    name=piece.name, arguments=piece.arguments, call_id=_stamps.new_id("call_")
                )
                delta = ChoiceDelta(role="assistant", tool_calls=[call])
            elif self._mode == "forced":
                continue
            else:
                delta = ChoiceDelta(role="assistant", content=piece)
            chunks.append(ChatChunk(id=self._id, delta=delta))
        return chunks


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
    """The error that an answer with an error status stands for. The engine answers the same request
    always in the same way, so only "still loading" is retried."""
    try:
        value = jsontext.decode(body)
    except ValueError:
        value = None
    if isinstance(value, dict):
        inner: Any = cast("dict[str, Any]", value).get("error")
        if isinstance(inner, dict):
            told = cast("dict[str, Any]", inner)
            if told.get("type") == "exceed_context_size_error":
                return ContextOverflowError(
                    int(told.get("n_prompt_tokens") or 0), int(told.get("n_ctx") or 0), body=told
                )
    error = wire.decode_error(status, headers, body)
    if status != 503:
        error.retryable = False
    return error
