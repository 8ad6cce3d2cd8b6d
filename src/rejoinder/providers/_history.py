"""A conversation as it was when it was asked about, turned into the body of a request.

`chat()` returns at once and its caller may change any message a moment later. Text alone is turned
into bytes on the spot: that takes microseconds and needs no copy. Pictures and sound take
milliseconds, so they are copied (what can change of them) and turned in a thread at the first
attempt; later attempts send the same bytes.
"""

from __future__ import annotations

import asyncio
import copy
from collections.abc import Callable, Iterable, Sequence
from typing import cast

from rejoinder._core.images import needs_preparing
from rejoinder._core.items import (
    AudioContent,
    ChatContent,
    ChatItem,
    ChatMessage,
    ImageContent,
    with_fields,
)
from rejoinder.errors import ConfigurationError
from rejoinder.media import AudioFrame, VideoFrame, to_audio_frame, to_video_frame

__all__ = ["Body", "frozen_items", "has_media", "items_of", "may_be_empty"]


def items_of(chat_ctx: object) -> list[ChatItem]:
    """The items of a conversation.

    Raises:
        ConfigurationError: it is no `ChatContext`.
    """
    items = getattr(chat_ctx, "items", None)
    if not isinstance(items, list):
        raise ConfigurationError(
            f"chat_ctx: expected a ChatContext, got {type(chat_ctx).__name__}; make one by "
            "ChatContext.empty() and add_message(role='user', content=...)"
        )
    return cast("list[ChatItem]", items)


def may_be_empty(items: Sequence[ChatItem]) -> bool:
    """Whether an answer without text and calls is legal: after a tool's output a model may have
    nothing to add."""
    return bool(items) and items[-1].type == "function_call_output"


class Body:
    """The bytes that `make` turns a conversation into, made once.

    Args:
        items: the conversation; it may change as soon as this returns.
        make: items to bytes; pure, may run in a thread.
    """

    __slots__ = ("_bytes", "_items", "_make")

    def __init__(
        self, items: Sequence[ChatItem], make: Callable[[Sequence[ChatItem]], bytes]
    ) -> None:
        self._make = make
        self._items: Sequence[ChatItem] = ()
        self._bytes: bytes | None = None
        if has_media(items):
            self._items = frozen_items(items)
        else:
            self._bytes = make(items)

    async def get(self) -> bytes:
        """The bytes. Made in a thread, where pictures or sound are among the items.

        Raises:
            ValueError: what `make` raises.
        """
        if self._bytes is None:
            self._bytes = await asyncio.to_thread(self._make, self._items)
            self._items = ()
        return self._bytes


def has_media(items: Iterable[ChatItem]) -> bool:
    """Whether a picture that is here (not at an address) or sound is among the items."""
    for item in items:
        if item.type == "message":
            for part in item.content:
                if isinstance(part, str):
                    continue
                if part.type == "audio_content":
                    return True
                if not isinstance(part.image, str) or part.image[:5] == "data:":
                    return True
    return False


def frozen_items(items: Sequence[ChatItem]) -> list[ChatItem]:
    """Copies of the items that later changes of the originals do not reach."""
    return [_frozen(item) for item in items]


def _frozen(item: ChatItem) -> ChatItem:
    if item.type == "message":
        content = [part if isinstance(part, str) else _frozen_part(part) for part in item.content]
        extra = copy.deepcopy(item.extra) if item.extra else {}
        return with_fields(item, content=content, extra=extra)
    if item.type == "function_call" and item.extra:
        return with_fields(item, extra=copy.deepcopy(item.extra))
    return with_fields(item)


def _frozen_part(part: ImageContent | AudioContent) -> ChatContent:
    if isinstance(part, AudioContent):
        return part.model_copy(update={"frame": [_frozen_sound(frame) for frame in part.frame]})
    copied = part.model_copy()  # shares the cache of what was encoded before
    if not isinstance(part.image, (str, VideoFrame)) and _uncached(part):
        copied.image = cast("VideoFrame", to_video_frame(part.image))
    return copied


def _frozen_sound(frame: AudioFrame) -> AudioFrame:
    if isinstance(frame, AudioFrame):
        return frame
    return cast("AudioFrame", to_audio_frame(frame))


def _uncached(image: ImageContent) -> bool:
    return needs_preparing([ChatMessage(role="user", content=[image])])
