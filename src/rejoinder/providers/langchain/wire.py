"""Reads what a graph or a runnable streams: items in, chunks out.

Pure, and by shape alone: nothing of LangChain is imported. Unknown items are skipped and counted,
never fatal. An item is a token, ``(token, metadata)``, ``(namespace,
(token, metadata))``, ``(mode, (token, metadata))`` or ``(namespace, mode, (token, metadata))``;
a token is a message chunk, a whole message, or a text.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any, cast

from rejoinder import _stamps
from rejoinder._core.chunks import ChatChunk, ChoiceDelta, CompletionUsage, FunctionToolCall
from rejoinder.errors import APIConnectionError, APIError, APIStatusError, APITimeoutError
from rejoinder.providers.langchain.format import text_of, thinking_of

__all__ = ["MODES", "ItemDecoder", "asks", "to_api_error", "unwrap"]

_FOREIGN = ("human", "tool", "system", "function", "remove", "developer", "user")


class ItemDecoder:
    """`feed` items of one stream, `close` at its end.

    Args:
        calls: whether tool calls are for the caller. A graph runs its own.
        whole: whether a whole message without metadata is an answer by itself. In a graph's stream
            it is a repetition.
        mode: of items that do not name theirs.

    Attributes:
        skipped: how many items were of no known shape, or not for the reader.
        seen: how many items there were.
    """

    def __init__(
        self, *, calls: bool = False, whole: bool = False, mode: str | None = None
    ) -> None:
        self._id = _stamps.new_id("LC_")
        self._calls = calls
        self._whole = whole
        self._mode = mode
        self._ids: set[str] = set()  # of the messages that were sent, in pieces or whole
        self._streamed: dict[Any, dict[str, str]] = {}  # by place and id, what came in pieces
        self._usage: CompletionUsage | None = None
        self._partial: dict[Any, dict[str, Any]] = {}
        self.skipped = 0
        self.seen = 0

    def feed(self, item: Any) -> list[ChatChunk]:
        """The chunks for one item; most often one or none."""
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
        identity = getattr(token, "id", None) or self._id
        self._count(getattr(token, "usage_metadata", None))
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
        """Whether a whole message repeats what was sent: by its id, or because its step has
        streamed the same text (a node may put its model's answer into a message of its own).

        Args:
            written: a node wrote it into the stream itself.
        """
        identity = getattr(token, "id", None)
        if identity and str(identity) in self._ids:
            return True
        if metadata is None and not self._whole and not written:
            return True
        pieces = list(self._streamed.get(place, {}).values())
        told = text.strip()
        return bool(told) and (
            told in {piece.strip() for piece in pieces} or told == "".join(pieces).strip()
        )

    def close(self) -> list[ChatChunk]:
        """What was gathered on the way: tool calls, then the tokens of all models together."""
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
        """What a node wrote into the stream itself: ``{"content": "..."}``."""
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
            for call in getattr(token, "tool_calls", None) or ():
                import json

                made = {"name": call["name"], "args": json.dumps(call["args"]), "id": call["id"]}
                self._partial[("whole", call["id"])] = made
            return
        for piece in getattr(token, "tool_call_chunks", None) or ():
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
    """``(token, metadata, stream mode)`` of an item of any shape."""
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
        else:  # (token, something): the rest says nothing to us
            token = first
    return token, None, mode


def asks(item: Any) -> bool:
    """Whether an item is the update by which LangGraph tells that the graph has stopped to ask."""
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
    """``"ai"``, ``"human"``, ``"tool"``, ...; ``"ai"`` for what only looks like a message."""
    kind = getattr(token, "type", None)
    if isinstance(kind, str):
        return kind.removesuffix("MessageChunk").lower()
    return "ai" if hasattr(token, "content") or hasattr(token, "text") else None


def _is_chunk(token: Any) -> bool:
    name = type(token).__name__
    return name.endswith("Chunk") or not name.endswith("Message")


def _place(metadata: Mapping[str, Any] | None) -> Any:
    """The step that an item belongs to; ``None`` where nothing tells."""
    node = metadata.get("langgraph_node") if metadata is not None else None
    if metadata is None or node is None:
        return None
    return node, metadata.get("langgraph_checkpoint_ns") or metadata.get("langgraph_step")


def to_api_error(error: BaseException) -> APIError:
    """One of our errors for whatever a graph raised; the original stays its cause."""
    if isinstance(error, APIError):
        return error
    name = type(error).__name__
    text = str(error) or name
    status = getattr(error, "status_code", None)
    if not isinstance(status, int):
        status = getattr(getattr(error, "response", None), "status_code", None)
    mapped: APIError
    if isinstance(status, int):
        request_id = getattr(error, "request_id", None)
        mapped = APIStatusError(
            text,
            status_code=status,
            request_id=request_id if isinstance(request_id, str) else None,
            body=getattr(error, "body", None),
        )
    elif isinstance(error, TimeoutError | asyncio.TimeoutError) or "Timeout" in name:
        mapped = APITimeoutError(text)
    elif isinstance(error, ConnectionError) or "Connect" in name or name == "ReadError":
        mapped = APIConnectionError(text)
    else:
        mapped = APIError(f"{name}: {text}", retryable=False)
    mapped.__cause__ = error
    return mapped
