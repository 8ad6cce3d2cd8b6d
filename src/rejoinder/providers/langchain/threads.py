"""A conversation compared with the memory of a graph: what the graph has not read, and what it waits for.

A graph with a checkpointer keeps the messages of its thread. It knows those of the user by the ids
of our items; its own replies have ids of LangChain, so they are found by what they say. Pure, and by
shape alone, but for making messages.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any, cast

from rejoinder._foreign import read
from rejoinder.providers.langchain.format import text_of

__all__ = ["interrupts_of", "question_of", "unsent", "words_of"]


def unsent(messages: Sequence[Any], kept: Sequence[Any]) -> list[Any]:
    """Those of `messages` that bring a graph's memory to the state of the conversation.

    Args:
        messages: the conversation.
        kept: the messages that the graph remembers.

    Returns:
        New messages; messages whose content has changed; and replies of the graph that were cut, under
        the graph's ids, so that LangGraph's `add_messages` puts them in the place of the whole ones.
    """
    places = {message.id: index for index, message in enumerate(kept) if message.id}
    changes: list[Any] = []
    # Messages that the graph may not know. Once something known follows, it has had them in another
    # way (as the answer to its question), and they cannot be put in their place any more.
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
    """The graph's replies from `at` on, until a person speaks."""
    found: list[Any] = []
    for message in kept[at:]:
        if message.type == "human":
            break
        if message.type == "ai" and text_of(message):
            found.append(message)
    return found


def _speaks_again(messages: Sequence[Any], known: Mapping[Any, int]) -> bool:
    """Whether the assistant does so before the next message that the graph knows: what stands between
    answers a question of the graph, and is not in its memory."""
    for message in messages:
        if message.type == "ai" or message.id in known:
            return bool(message.type == "ai")
    return False


def _heard(text: str, replies: Sequence[Any], *, more: bool) -> tuple[list[Any], Any] | None:
    """The changes by which `replies` say `text` and no more, and the last reply that belongs to it.

    ``None`` if they say something else. What follows in `text` is a question of the graph, which is no
    message of it.

    Args:
        text: of the conversation.
        replies: of the graph.
        more: some of `replies` belong to a later message of the conversation.
    """
    rest = "".join(text.split())
    changes: list[Any] = []
    last: Any = None
    for reply in replies:
        said = text_of(reply)
        told = "".join(said.split())
        if rest and rest.startswith(told):
            rest = rest[len(told) :]
        elif told.startswith(rest) and not (more and not rest):
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
    """What an interrupt asks, in words: a text, the text of a mapping, or JSON."""
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
