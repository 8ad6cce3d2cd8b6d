"""The records of a store of conversations, and the `Store` protocol. No I/O."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol, TypeAlias, runtime_checkable

from rejoinder import _stamps

__all__ = ["ConflictError", "Found", "Kind", "Record", "Store", "StoreError", "Summary"]

Kind: TypeAlias = Literal[
    "item", "change", "place", "head", "turn", "text", "start", "usage", "end", "heard", "about"
]


class StoreError(Exception):
    """The store cannot be read or written at the moment."""


class ConflictError(StoreError):
    """Another process or object continues the same conversation."""


def _now() -> float:
    return _stamps.wall_now()


@dataclass(frozen=True, slots=True)
class Record:
    """One line of the log of a conversation. Lines are only ever appended.

    Attributes:
        kind: ``"item"``: a new item. ``"change"``: new content of the item. ``"place"``: a new
            parent of the item. ``"head"``: the conversation continues after this item.
            ``"turn"``: a turn begins. ``"text"``: a piece of a reply that is not an item yet.
            ``"start"``: a tool is about to run. ``"usage"``: the tokens of a request. ``"end"``:
            the turn is over. ``"heard"``: how much of a spoken message was heard. ``"about"``:
            title and other facts about the conversation.
        item: id of the item.
        parent: id of the item before it; ``None`` for the first one.
        turn: the turn in which it happened.
        key: the idempotency key of a call (`RunContext.idempotency_key`).
        planned: the output of a call whose tool has not finished.
        usage: tokens of a request, by the names of `CompletionUsage`, and the ``model``.
        cost: cost of the request, in the caller's currency; ``None`` if unknown.
        data: the item, or other facts, as plain data. Large pictures and sounds are references.
        at: wall time, in seconds.
    """

    kind: Kind
    item: str | None = None
    parent: str | None = None
    turn: str | None = None
    key: str | None = None
    planned: bool = False
    usage: Mapping[str, Any] | None = None
    cost: float | None = None
    data: Mapping[str, Any] | None = None
    at: float = field(default_factory=_now)


@dataclass(frozen=True, slots=True)
class Summary:
    """Summary of a conversation.

    Attributes:
        id: its id.
        title: set by `Conversation.describe`, or the beginning of the first user message.
        items: the number of items in its log, on all branches.
        created: wall time of its first record.
        updated: wall time of its last record.
        about: further facts, set by `Conversation.describe`.
    """

    id: str
    title: str
    items: int
    created: float
    updated: float
    about: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Found:
    """An item that matches a search."""

    conversation: str
    item: str
    excerpt: str
    at: float


@runtime_checkable
class Store(Protocol):
    """Keeps a log for each conversation. `SqliteStore` is one; implement these methods for another
    one.

    No method blocks the event loop. Each raises `StoreError` if the store cannot be used.
    """

    async def read(self, conversation: str, *, after: int = 0) -> Sequence[Record]:
        """The records of a conversation after the first `after`; empty for an unknown
        conversation."""
        ...

    async def append(
        self,
        conversation: str,
        records: Sequence[Record],
        *,
        after: int,
        media: Mapping[str, bytes] | None = None,
    ) -> None:
        """Append all `records`, or none, and keep `media` under their names.

        Raises:
            ConflictError: the conversation does not have exactly `after` records, because another
                writer has appended some.
        """
        ...

    async def media(self, names: Collection[str]) -> Mapping[str, bytes]:
        """The media with these names. Unknown names are omitted."""
        ...

    async def conversations(self, *, limit: int | None = None) -> Sequence[Summary]:
        """The conversations, most recently written first."""
        ...

    async def search(
        self, text: str, *, conversation: str | None = None, limit: int = 20
    ) -> Sequence[Found]:
        """Items that contain all words of `text`, newest first. A word also matches parts of longer
        words, and upper or lower case."""
        ...

    async def remove(self, conversation: str) -> bool:
        """Erase a conversation, with media that no other one uses. Returns whether it was there."""
        ...

    async def aclose(self) -> None:
        """Finish pending calls, and close."""
        ...
