"""A conversation kept by a realtime provider: items that follow one another by id."""

from __future__ import annotations

from dataclasses import dataclass, field

from rejoinder._options import checked
from rejoinder.llm.chat_context import ChatContext, ChatItem

__all__ = ["RemoteChatContext"]


# Compared by identity: the neighbours would drag the whole list into every comparison.
@dataclass(eq=False)
class _RemoteChatItem:
    item: ChatItem
    _prev: _RemoteChatItem | None = field(default=None, repr=False)
    _next: _RemoteChatItem | None = field(default=None, repr=False)


class RemoteChatContext:
    """A doubly linked list of chat items with an index by id; every operation takes constant time."""

    def __init__(self) -> None:
        self._head: _RemoteChatItem | None = None
        self._tail: _RemoteChatItem | None = None
        self._id_to_item: dict[str, _RemoteChatItem] = {}

    def to_chat_ctx(self) -> ChatContext:
        """A new context with the same item objects, in order."""
        items: list[ChatItem] = []
        node = self._head
        while node is not None:
            items.append(node.item)
            node = node._next
        return ChatContext(items)

    @property
    def last_id(self) -> str | None:
        """Id of the item at the tail; ``None`` for an empty conversation."""
        return None if self._tail is None else self._tail.item.id

    def get(self, item_id: str) -> _RemoteChatItem | None:
        """The node that holds this item as ``.item``, or ``None``."""
        return self._id_to_item.get(item_id)

    @checked()
    def insert(self, previous_item_id: str | None, message: ChatItem) -> None:
        """Put `message` right after the item `previous_item_id`; with ``None``, at the head.

        Raises:
            ValueError: the id of `message` is already here, or `previous_item_id` is not.
        """
        if message.id in self._id_to_item:
            raise ValueError(f"RemoteChatContext.insert: the id {message.id!r} is already present")
        previous: _RemoteChatItem | None = None
        if previous_item_id is not None:
            previous = self._id_to_item.get(previous_item_id)
            if previous is None:
                raise ValueError(
                    f"RemoteChatContext.insert: the previous item {previous_item_id!r} is unknown"
                )
        following = self._head if previous is None else previous._next
        node = _RemoteChatItem(message, previous, following)
        if previous is None:
            self._head = node
        else:
            previous._next = node
        if following is None:
            self._tail = node
        else:
            following._prev = node
        self._id_to_item[message.id] = node

    @checked()
    def delete(self, item_id: str) -> None:
        """Take an item out; its id may then be used again.

        Raises:
            ValueError: the id is unknown.
        """
        node = self._id_to_item.pop(item_id, None)
        if node is None:
            raise ValueError(f"RemoteChatContext.delete: the item {item_id!r} is unknown")
        previous, following = node._prev, node._next
        if previous is None:
            self._head = following
        else:
            previous._next = following
        if following is None:
            self._tail = previous
        else:
            following._prev = previous
        node._prev = node._next = None
