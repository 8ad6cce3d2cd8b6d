"""The provider's own order of items."""

from __future__ import annotations

import random

import pytest

from rejoinder.llm import remote_chat_context
from rejoinder.llm.chat_context import ChatMessage
from rejoinder.llm.remote_chat_context import RemoteChatContext


def item(item_id: str) -> ChatMessage:
    return ChatMessage(id=item_id, role="user", content=[])


def order(context: RemoteChatContext) -> list[str]:
    forward = [entry.id for entry in context.to_chat_ctx().items]
    backward: list[str] = []
    node = context._tail
    while node is not None:
        backward.append(node.item.id)
        node = node._prev
    assert backward == forward[::-1]
    return forward


def test_the_documented_sequence() -> None:
    context = RemoteChatContext()
    assert order(context) == []
    assert context._head is context._tail is None
    for previous, new, expected in [
        (None, "a", "a"),
        (None, "b", "ba"),
        ("b", "c", "bca"),
        ("a", "d", "bcad"),
    ]:
        context.insert(previous, item(new))
        assert order(context) == list(expected)
    for gone, expected in [("b", "cad"), ("d", "ca"), ("c", "a"), ("a", "")]:
        context.delete(gone)
        assert order(context) == list(expected)
    assert context._head is context._tail is None
    context.insert(None, item("a"))
    assert order(context) == ["a"]


def test_nodes() -> None:
    context = RemoteChatContext()
    message = item("a")
    context.insert(None, message)
    context.insert("a", item("b"))
    node = context.get("a")
    assert node is not None
    assert node.item is message
    assert node._prev is None
    assert node._next is context.get("b")
    assert context.get("x") is None
    assert repr(node).startswith("_RemoteChatItem(item=ChatMessage(id='a'")
    assert context.to_chat_ctx().items is not context.to_chat_ctx().items


def test_refusals() -> None:
    context = RemoteChatContext()
    context.insert(None, item("a"))
    with pytest.raises(ValueError, match="'a'"):
        context.insert("missing", item("a"))
    for missing in ("missing", ""):
        with pytest.raises(ValueError, match="previous"):
            context.insert(missing, item("b"))
    assert context.get("b") is None
    with pytest.raises(ValueError, match="'x'"):
        context.delete("x")
    assert order(context) == ["a"]


def test_like_a_list() -> None:
    chance = random.Random(7)
    context, model = RemoteChatContext(), list[str]()
    for number in range(600):
        if model and chance.random() < 0.4:
            gone = chance.choice(model)
            model.remove(gone)
            context.delete(gone)
        else:
            previous = chance.choice([None, *model])
            new = str(number)
            model.insert(0 if previous is None else model.index(previous) + 1, new)
            context.insert(previous, item(new))
        assert order(context) == model


def test_public_names() -> None:
    assert remote_chat_context.__all__ == ["RemoteChatContext"]
