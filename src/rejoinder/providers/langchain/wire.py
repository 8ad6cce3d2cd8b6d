"""Reads the stream of a graph or a runnable: items in, chunks out.

Pure. Items are recognized by their shape, so LangChain is not imported. Items of an unknown shape
are skipped and counted. An item is a token, ``(token, metadata)``, ``(namespace, (token,
metadata))``, ``(mode, (token, metadata))`` or ``(namespace, mode, (token, metadata))``. A token is
a message chunk, a whole message, or a text.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any, cast

from rejoinder import _stamps
from rejoinder._core.chunks import ChatChunk, ChoiceDelta, CompletionUsage, FunctionToolCall
from rejoinder._foreign import has, read
from rejoinder.errors import APIConnectionError, APIError, APIStatusError, APITimeoutError
from rejoinder.providers.langchain.format import text_of, thinking_of

__all__ = ["MODES", "ItemDecoder", "asks", "to_api_error", "unwrap"]

_FOREIGN = ("human", "tool", "system", "function", "remove", "developer", "user")


class ItemDecoder:
    """Decodes the items of one stream: call `feed` for each, and `close` at the end.

    Args:
        calls: return tool calls to the caller. A graph runs its own tools.
        whole: treat a whole message without metadata as an answer. In the stream of a graph, such
            a message repeats what was streamed.
        mode: the stream mode of items that do not name one.

    Attributes:
        skipped: the number of items with an unknown shape or without text for the reply.
        seen: the number of all items.
    """

    def __init__(
        self, *, calls: bool = False, whole: bool = False, mode: str | None = None
    ) -> None:
        self._id = _stamps.new_id("LC_")
        self._calls = calls
        self._whole = whole
        self._mode = mode
        self._ids: set[str] = set()  # of the messages that were sent, in pieces or whole
        self._streamed: dict[Any, dict[str, str]] = {}  # texts that were streamed, by place and id
        self._usage: CompletionUsage | None = None
        self._partial: dict[Any, dict[str, Any]] = {}
        self.skipped = 0
        self.seen = 0

    def feed(self, item: Any) -> list[ChatChunk]:
        """Return the chunks of one item, usually one or none."""
        self.seen += 1
        token, metadata, mode = unwrap(item)
        if isinstance(token, str):
            return self._said(self._id, token, "")
        kind = _kind(token)
        if kind is None or kind in _FOREIGN:
            return self._custom(token) if (mode or self._mode) == "custom" else self._skip()
        chunk = _is_chunk(token)
        place = _place(metadata)
        text, thinking = text_of(token), thinking_of(token)
        written = (mode or self._mode) == "custom"
        if not chunk and self._is_repetition(token, text, metadata, place, written):
            return self._skip()
        identity = read(token, "id") or self._id
        self._count(read(token, "usage_metadata"))
        if self._calls:
            self._collect(token, chunk)
        if text or thinking:
            self._ids.add(str(identity))
            if chunk:
                pieces = self._streamed.setdefault(place, {})
                pieces[str(identity)] = pieces.get(str(identity), "") + text
        return self._said(identity, text, thinking)

    def _is_repetition(
        self,
        token: Any,
        text: str,
        metadata: Mapping[str, Any] | None,
        place: Any,
        written: bool,
    ) -> bool:
        """Return whether a whole message repeats what was sent before.

        It does if its id is known, or if the same step has streamed the same text: a node may put
        the answer of its model into a new message.

        Args:
            token: the message.
            text: its text.
            metadata: what the stream reports about it.
            place: the step that it belongs to.
            written: a node wrote the message into the stream.
        """
        identity = read(token, "id")
        if identity and str(identity) in self._ids:
            return True
        if metadata is None and not self._whole and not written:
            return True
        pieces = list(self._streamed.get(place, {}).values())
        stripped = text.strip()
        return bool(stripped) and (
            stripped in {piece.strip() for piece in pieces} or stripped == "".join(pieces).strip()
        )

    def close(self) -> list[ChatChunk]:
        """Return the tool calls, then the usage of all models together."""
        chunks: list[ChatChunk] = []
        calls = [
            FunctionToolCall(
                name=call["name"],
                arguments=call["args"] or "{}",
                call_id=call["id"] or _stamps.new_id("call_"),
            )
            for call in self._partial.values()
            if call["name"]
        ]
        if calls:
            delta = ChoiceDelta(role="assistant", tool_calls=calls)
            chunks.append(ChatChunk(id=self._id, delta=delta))
        if self._usage is not None:
            chunks.append(ChatChunk(id=self._id, usage=self._usage))
        return chunks

    def _said(self, identity: Any, text: str, thinking: str) -> list[ChatChunk]:
        if not text and not thinking:
            return []
        delta = ChoiceDelta(role="assistant", content=text or None, thinking=thinking or None)
        return [ChatChunk(id=str(identity), delta=delta)]

    def _custom(self, token: Any) -> list[ChatChunk]:
        """Read what a node wrote into the stream: ``{"content": "..."}``."""
        if isinstance(token, Mapping):
            content = cast("Mapping[str, Any]", token).get("content")
            if isinstance(content, str):
                return self._said(self._id, content, "")
        return self._skip()

    def _skip(self) -> list[ChatChunk]:
        self.skipped += 1
        return []

    def _collect(self, token: Any, chunk: bool) -> None:
        if not chunk:
            for call in read(token, "tool_calls") or ():
                import json

                made = {"name": call["name"], "args": json.dumps(call["args"]), "id": call["id"]}
                self._partial[("whole", call["id"])] = made
            return
        for piece in read(token, "tool_call_chunks") or ():
            key = piece.get("index")
            if key is None:
                key = piece.get("id") or len(self._partial)
            call = self._partial.setdefault(key, {"name": "", "args": "", "id": None})
            call["name"] += piece.get("name") or ""
            call["args"] += piece.get("args") or ""
            call["id"] = call["id"] or piece.get("id")

    def _count(self, usage: Any) -> None:
        if not isinstance(usage, Mapping):
            return
        counts = cast("Mapping[str, Any]", usage)
        read = cast("Mapping[str, Any]", counts.get("input_token_details") or {})
        written = cast("Mapping[str, Any]", counts.get("output_token_details") or {})
        before = self._usage
        prompt, completion = _int(counts, "input_tokens"), _int(counts, "output_tokens")
        cached = _int(read, "cache_read")

        def plus(value: int, name: str) -> int:
            return value + (getattr(before, name) if before is not None else 0)

        self._usage = CompletionUsage(
            prompt_tokens=plus(prompt, "prompt_tokens"),
            completion_tokens=plus(completion, "completion_tokens"),
            total_tokens=plus(prompt + completion, "total_tokens"),
            prompt_cached_tokens=plus(cached, "prompt_cached_tokens"),
            cache_read_tokens=plus(cached, "cache_read_tokens"),
            cache_creation_tokens=plus(_int(read, "cache_creation"), "cache_creation_tokens"),
            reasoning_tokens=plus(_int(written, "reasoning"), "reasoning_tokens"),
            prompt_audio_tokens=plus(_int(read, "audio"), "prompt_audio_tokens"),
            completion_audio_tokens=plus(_int(written, "audio"), "completion_audio_tokens"),
        )


def unwrap(item: Any) -> tuple[Any, Mapping[str, Any] | None, str | None]:
    """Return ``(token, metadata, stream mode)`` of an item of any shape."""
    mode: str | None = None
    token: Any = item
    for _ in range(4):
        parts = _parts(token)
        if len(parts) == 3:
            mode, token = parts[1], parts[2]
            continue
        if len(parts) != 2:
            break
        first, second = parts
        if _parts(first) or first == ():  # a namespace
            token = second
        elif isinstance(first, str) and (first in MODES or _parts(second)):
            mode, token = first, second
        elif isinstance(second, Mapping):
            return first, cast("Mapping[str, Any]", second), mode
        else:  # (token, something else)
            token = first
    return token, None, mode


def asks(item: Any) -> bool:
    """Return whether this item reports that the graph was interrupted by a question."""
    token, _, mode = unwrap(item)
    return mode == "updates" and isinstance(token, Mapping) and "__interrupt__" in token


def _parts(item: Any) -> tuple[Any, ...]:
    return cast("tuple[Any, ...]", item) if isinstance(item, tuple) else ()


MODES = frozenset({"messages", "custom", "values", "updates", "debug", "tasks", "checkpoints"})
"""The stream modes of LangGraph."""


def _int(counts: Mapping[str, Any], name: str) -> int:
    value = counts.get(name)
    return value if isinstance(value, int) else 0


def _kind(token: Any) -> str | None:
    """Return ``"ai"``, ``"human"``, ``"tool"``, ...; for an object with only a text, ``"ai"``."""
    kind = read(token, "type", str)
    if kind is not None:
        return kind.removesuffix("MessageChunk").lower()
    return "ai" if has(token, "content") or has(token, "text") else None


def _is_chunk(token: Any) -> bool:
    name = type(token).__name__
    return name.endswith("Chunk") or not name.endswith("Message")


def _place(metadata: Mapping[str, Any] | None) -> Any:
    """Return the step that an item belongs to, or None if the metadata does not name it."""
    node = metadata.get("langgraph_node") if metadata is not None else None
    if metadata is None or node is None:
        return None
    return node, metadata.get("langgraph_checkpoint_ns") or metadata.get("langgraph_step")


def to_api_error(error: BaseException) -> APIError:
    """Return our error for an exception of a graph, which becomes its cause."""
    if isinstance(error, APIError):
        return error
    name = type(error).__name__
    text = str(error) or name
    status = read(error, "status_code", int)
    if status is None:
        status = read(error, "response.status_code", int)
    mapped: APIError
    if status is not None:
        mapped = APIStatusError(
            text,
            status_code=status,
            request_id=read(error, "request_id", str),
            body=read(error, "body"),
        )
    elif isinstance(error, TimeoutError | asyncio.TimeoutError) or "Timeout" in name:
        mapped = APITimeoutError(text)
    elif isinstance(error, ConnectionError) or "Connect" in name or name == "ReadError":
        mapped = APIConnectionError(text)
    else:
        mapped = APIError(f"{name}: {text}", retryable=False)
    mapped.__cause__ = error
    return mapped
