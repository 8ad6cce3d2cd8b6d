"""Compares a conversation with the memory of a graph: unread messages, and open questions.

A graph with a checkpointer keeps the messages of its thread. It stores user messages under the ids of
our items; its own replies have ids of LangChain, so they are found by their text. Pure; objects are
recognized by their shape, and LangChain is only needed to make messages.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any, cast

from rejoinder._foreign import read
from rejoinder.providers.langchain.format import text_of

__all__ = ["interrupts_of", "question_of", "unsent", "words_of"]


def unsent(messages: Sequence[Any], kept: Sequence[Any]) -> list[Any]:
    """Messages that update a graph's memory to the state of the conversation.

    Args:
        messages: the conversation.
        kept: the messages that the graph remembers.

    Returns:
        New messages, messages whose content has changed, and replies of the graph that were cut. The
        latter have the graph's ids, so that LangGraph's `add_messages` replaces the whole replies.
    """
    places = {message.id: index for index, message in enumerate(kept) if message.id}
    changes: list[Any] = []
    # Messages that the graph may not know. If a known message follows, the graph received them in
    # another way (as the answer to its question), and they can no longer be inserted in their place.
    new: list[Any] = []
    at = 0
    for index, message in enumerate(messages):
        place = places.get(message.id)
        if place is not None:
            new.clear()
            at = max(at, place + 1)
            if message.content != kept[place].content:
                changes.append(message)
        elif message.type == "system":
            changes.append(message)
        elif message.type == "ai":
            replies = _replies(kept, at)
            more = _speaks_again(messages[index + 1 :], places)
            found = _heard(text_of(message), replies, more=more)
            if found is not None:
                cut, last = found
                new.clear()
                changes += cut
                at = kept.index(last) + 1
            elif not replies:
                new.append(message)
        else:
            new.append(message)
    return changes + new


def _replies(kept: Sequence[Any], at: int) -> list[Any]:
    """The graph's replies from `at` on, up to the next user message."""
    found: list[Any] = []
    for message in kept[at:]:
        if message.type == "human":
            break
        if message.type == "ai" and text_of(message):
            found.append(message)
    return found


def _speaks_again(messages: Sequence[Any], known: Mapping[Any, int]) -> bool:
    """Whether another assistant message comes before the next message that the graph knows. Messages
    in between answer a question of the graph, and are not in its memory."""
    for message in messages:
        if message.type == "ai" or message.id in known:
            return bool(message.type == "ai")
    return False


def _heard(text: str, replies: Sequence[Any], *, more: bool) -> tuple[list[Any], Any] | None:
    """The changes that reduce `replies` to `text`, and the last reply that belongs to it.

    ``None`` if their text differs. A further part of `text` is a question of the graph, which is not
    one of its messages.

    Args:
        text: the message in the conversation.
        replies: the replies of the graph.
        more: some of `replies` belong to a later message of the conversation.
    """
    rest = "".join(text.split())
    changes: list[Any] = []
    last: Any = None
    for reply in replies:
        said = text_of(reply)
        letters = "".join(said.split())
        if rest and rest.startswith(letters):
            rest = rest[len(letters) :]
        elif letters.startswith(rest) and not (more and not rest):
            changes.append(reply.model_copy(update={"content": _beginning(said, len(rest))}))
            rest = ""
        else:
            break
        last = reply
    return None if last is None else (changes, last)


def _beginning(text: str, letters: int) -> str:
    """The start of `text` up to as many characters that are not white space."""
    end = 0
    for index, letter in enumerate(text):
        if letters == 0:
            break
        letters -= not letter.isspace()
        end = index + 1
    return text[:end]


def interrupts_of(snapshot: Any) -> list[Any]:
    """The questions that a graph waits for, each with an `id` and a `value`."""
    found = read(snapshot, "interrupts")
    if found is None:
        found = [one for task in snapshot.tasks for one in task.interrupts]
    return list(found)


def question_of(value: Any) -> str:
    """The question of an interrupt as text: a string, the text of a mapping, or JSON."""
    if isinstance(value, str):
        return value
    if isinstance(value, Mapping):
        members = cast("Mapping[str, Any]", value)
        for name in ("question", "content", "message", "text", "query", "description"):
            if isinstance(members.get(name), str):
                return members[name]
    return json.dumps(value, ensure_ascii=False, default=str)


def words_of(messages: Sequence[Any]) -> str:
    """The text of the last messages of the user."""
    said: list[str] = []
    for message in reversed(messages):
        if message.type != "human":
            break
        said.append(text_of(message))
    return "\n".join(reversed([text for text in said if text]))
