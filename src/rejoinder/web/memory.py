"""A store of conversations in memory."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any

from rejoinder.store import ConflictError, Found, Record, Summary
from rejoinder.store._media import names_in

__all__ = ["MemoryStore"]

_LONGEST_TITLE = 80
_AROUND = 40
"""Characters of an excerpt before the found word."""


class MemoryStore:
    """A `rejoinder.store.Store` that lasts as long as its process."""

    def __init__(self) -> None:
        self._logs: dict[str, list[Record]] = {}
        self._media: dict[str, bytes] = {}

    async def read(self, conversation: str, *, after: int = 0) -> Sequence[Record]:
        """See `Store.read`."""
        return self._logs.get(conversation, [])[after:]

    async def append(
        self,
        conversation: str,
        records: Sequence[Record],
        *,
        after: int,
        media: Mapping[str, bytes] | None = None,
    ) -> None:
        """See `Store.append`."""
        log = self._logs.setdefault(conversation, [])
        if len(log) != after:
            raise ConflictError(
                f"the conversation {conversation!r} has {len(log)} records, expected {after}; load "
                "it again"
            )
        log.extend(records)
        self._media.update(media or {})

    async def media(self, names: Collection[str]) -> Mapping[str, bytes]:
        """See `Store.media`."""
        return {name: self._media[name] for name in names if name in self._media}

    async def conversations(self, *, limit: int | None = None) -> Sequence[Summary]:
        """See `Store.conversations`."""
        found = [_summary(id, log) for id, log in self._logs.items() if log]
        found.sort(key=lambda summary: summary.updated, reverse=True)
        return found[:limit]

    async def search(
        self, text: str, *, conversation: str | None = None, limit: int = 20
    ) -> Sequence[Found]:
        """See `Store.search`."""
        words = text.casefold().split()
        found: list[Found] = []
        for id, log in self._logs.items():
            if words and conversation in (None, id):
                for item, shown, at in _texts(log):
                    folded = shown.casefold()
                    if all(word in folded for word in words):
                        start = max(0, folded.find(words[0]) - _AROUND)
                        found.append(Found(id, item, shown[start : start + 4 * _AROUND], at))
        found.sort(key=lambda each: each.at, reverse=True)
        return found[:limit]

    async def remove(self, conversation: str) -> bool:
        """See `Store.remove`."""
        removed = self._logs.pop(conversation, None)
        if removed is None:
            return False
        kept = {name for log in self._logs.values() for name in names_in(_datas(log))}
        for name in names_in(_datas(removed)) - kept:
            self._media.pop(name, None)
        return True

    async def aclose(self) -> None:
        """See `Store.aclose`."""


def _datas(log: Sequence[Record]) -> Iterator[Mapping[str, Any]]:
    return (record.data for record in log if record.data is not None)


def _summary(id: str, log: Sequence[Record]) -> Summary:
    about: dict[str, Any] = {}
    title = ""
    for record in log:
        data = record.data or {}
        if record.kind == "about":
            about.update(data)
        elif not title and record.kind == "item" and data.get("role") == "user":
            title = _text_of(data)[:_LONGEST_TITLE]
    about = {name: value for name, value in about.items() if value is not None}
    return Summary(
        id=id,
        title=str(about.get("title") or title),
        items=sum(record.kind == "item" for record in log),
        created=log[0].at,
        updated=log[-1].at,
        about=about,
    )


def _texts(log: Sequence[Record]) -> Iterator[tuple[str, str, float]]:
    newest: dict[str, tuple[str, float]] = {}
    for record in log:
        if record.kind in ("item", "change") and record.item is not None:
            newest[record.item] = (_text_of(record.data or {}), record.at)
    for item, (text, at) in newest.items():
        if text:
            yield item, text, at


def _text_of(data: Mapping[str, Any]) -> str:
    """The text of an item: a message, a call or the output of one."""
    content = data.get("content")
    if isinstance(content, list):
        parts: list[Any] = content  # pyright: ignore[reportUnknownVariableType]
        return "\n".join(part for part in parts if isinstance(part, str))
    return " ".join(
        value if isinstance(value, str) else json.dumps(value)
        for name in ("name", "arguments", "output")
        if (value := data.get(name))
    )
