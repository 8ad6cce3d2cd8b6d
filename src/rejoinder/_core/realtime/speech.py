"""Speech in a history: its words, for a model or a place that takes only text. Pure."""

from __future__ import annotations

from typing import Final

from rejoinder._core.items import AudioContent, ChatItem, ChatMessage, parts_of

__all__ = ["UNTRANSCRIBED", "in_words", "spoken_text", "words_of"]

UNTRANSCRIBED: Final = "(speech that was not transcribed)"
"""Stands for a turn of the user, so that the answer does not lack a question."""


def words_of(part: AudioContent, role: str) -> str:
    """The transcript. If it is missing, user speech is mentioned and other speech is omitted."""
    return part.transcript or (UNTRANSCRIBED if role == "user" else "")


def spoken_text(message: ChatMessage) -> str:
    """The text of a message, with the words of its sound. Pictures are omitted."""
    parts = (
        words_of(part, message.role) if isinstance(part, AudioContent) else part
        for part in parts_of(message)
    )
    return "\n".join(part for part in parts if isinstance(part, str) and part.strip())


def in_words(item: ChatItem) -> ChatItem:
    """`item`, with its sound replaced by words."""
    if not isinstance(item, ChatMessage):
        return item
    parts = parts_of(item)
    if not any(isinstance(part, AudioContent) for part in parts):
        return item
    said = [words_of(part, item.role) if isinstance(part, AudioContent) else part for part in parts]
    return item.model_copy(update={"content": [part for part in said if part != ""]})
