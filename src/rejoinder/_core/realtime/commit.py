"""Cuts the last answer of a history down to its heard text. Pure."""

from __future__ import annotations

import math
from collections.abc import Collection
from typing import Final

from rejoinder._core.items import ChatItem, ChatMessage
from rejoinder._core.realtime.heard import SoundMap, heard_of_text, spread
from rejoinder._foreign import method
from rejoinder._options import Rule

__all__ = ["SOUND", "UNTIL", "commit_heard", "last_answer"]


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


UNTIL: Final = Rule(
    "the text that was heard, or milliseconds",
    lambda value: _is_number(value) or isinstance(value, str),
    lambda value: isinstance(value, str) or not math.isnan(value),
)
SOUND: Final = Rule(
    "milliseconds greater than 0, or an object with heard(ms)",
    lambda value: _is_number(value) or method(value, "heard") is not None,
    lambda value: not _is_number(value) or value > 0,
).optional


def last_answer(items: list[ChatItem]) -> list[str]:
    """Ids of the assistant messages after the last user message."""
    found: list[str] = []
    for item in reversed(items):
        if not isinstance(item, ChatMessage):
            continue
        if item.role == "user":
            break
        if item.role == "assistant":
            found.append(item.id)
    return found[::-1]


def commit_heard(
    items: list[ChatItem],
    message_ids: Collection[str],
    until: float | str,
    sound: SoundMap | float | None,
) -> str:
    """Cut consecutive spoken messages down to their heard text.

    A message without heard text is removed. Calls and results stay, because the tools did run.
    A message that is cut loses its provider state, which is valid for the whole message only.

    Returns:
        The text that was heard.

    Raises:
        ValueError: see `heard_of_text`.
    """
    messages = [item for item in items if isinstance(item, ChatMessage) and item.id in message_ids]
    texts = [message.text_content or "" for message in messages]
    heard = heard_of_text("".join(texts), until, sound)
    kept = spread(texts, heard)
    gone: set[int] = set()
    for message, before, text in zip(messages, texts, kept, strict=True):
        if text == before:
            continue
        if text.strip():
            message.content, message.interrupted, message.extra = [text], True, {}
        else:
            gone.add(id(message))
    if gone:
        items[:] = [item for item in items if id(item) not in gone]
    return heard
