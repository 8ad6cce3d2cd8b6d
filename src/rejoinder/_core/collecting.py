"""Collects the chunks of a reply into a whole. Pure."""

from __future__ import annotations

from typing import Any, cast

from rejoinder._core.chunks import (
    ChatChunk,
    ChoiceDelta,
    CollectedResponse,
    CompletionUsage,
    FunctionToolCall,
)

__all__ = ["Collector", "is_restart", "merge_extra"]


class Collector:
    """Builds a reply from its chunks. Drops the text before a restart."""

    __slots__ = ("_calls", "_extra", "_text", "_thinking", "_usage")

    def __init__(self) -> None:
        self._text: list[str] = []
        self._thinking: list[str] = []
        self._calls: list[FunctionToolCall] = []
        self._usage: CompletionUsage | None = None
        self._extra: dict[str, Any] = {}

    def feed(self, chunk: ChatChunk) -> None:
        delta = chunk.delta
        if delta is not None:
            if delta.content:
                self._text.append(delta.content)
            if delta.thinking:
                self._thinking.append(delta.thinking)
            self._calls.extend(delta.tool_calls)
            if delta.extra:
                if is_restart(delta):
                    self._text.clear()
                    self._thinking.clear()
                    self._extra.clear()
                merge_extra(self._extra, delta.extra)
        if chunk.usage is not None:
            self._usage = chunk.usage

    def whole(self) -> CollectedResponse:
        """The reply so far; the text without white space around it."""
        return CollectedResponse(
            text="".join(self._text).strip(),
            tool_calls=self._calls,
            usage=self._usage,
            extra=self._extra,
            thinking="".join(self._thinking),
        )


def is_restart(delta: ChoiceDelta) -> bool:
    """Whether this is the event of a `FallbackAdapter` that another model answers from the start."""
    event = delta.extra.get("rejoinder") if delta.extra else None
    return isinstance(event, dict) and cast("dict[str, Any]", event).get("event") == "restart"


def merge_extra(into: dict[str, Any], more: dict[str, Any]) -> None:
    """Merge provider state deeply: dicts by key, lists are concatenated, other values are replaced."""
    for key, value in more.items():
        old = into.get(key)
        if isinstance(old, dict) and isinstance(value, dict):
            merge_extra(old, value)  # pyright: ignore[reportUnknownArgumentType]
        elif isinstance(old, list) and isinstance(value, list):
            into[key] = [*old, *value]
        elif isinstance(value, dict):
            copied: dict[str, Any] = {}
            merge_extra(copied, value)  # pyright: ignore[reportUnknownArgumentType]
            into[key] = copied
        else:
            into[key] = value
