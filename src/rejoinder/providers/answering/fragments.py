"""Joins state that a server sends in pieces. Pure."""

from __future__ import annotations

from typing import Any, cast

__all__ = ["Fragments"]


class Fragments:
    """The pieces of one JSON object. Joining them takes linear time."""

    __slots__ = ("_pieces",)

    def __init__(self) -> None:
        self._pieces: dict[str, list[Any]] = {}

    def __bool__(self) -> bool:
        return bool(self._pieces)

    def add(self, piece: dict[str, Any]) -> None:
        """Add the next piece. Explicit nulls add nothing."""
        for key, value in piece.items():
            if value is not None:
                self._pieces.setdefault(key, []).append(value)

    def is_for(self, **members: Any) -> bool:
        """Whether these members have these values."""
        return all(self._pieces.get(key, [None])[-1] == value for key, value in members.items())

    def joined(self) -> dict[str, Any]:
        """The joined object: texts and lists are concatenated; of other values, the last one counts."""
        return {key: _join(key, values) for key, values in self._pieces.items()}


def _join(key: str, values: list[Any]) -> Any:
    last = values[-1]
    if len(values) == 1:
        return last
    if isinstance(last, str):
        texts = [value for value in values if isinstance(value, str)]
        # Signatures, ids and formats are repeated; a text continues.
        return "".join(texts) if _is_running(key) else last
    if isinstance(last, list):
        found: list[Any] = []
        for value in values:
            if isinstance(value, list):
                found.extend(cast("list[Any]", value))
        return found
    return last


def _is_running(key: str) -> bool:
    return any(word in key for word in ("text", "summary", "data", "content", "thinking"))
