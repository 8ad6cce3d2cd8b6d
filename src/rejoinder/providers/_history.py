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
from rejoinder._core.items import AudioContent, ChatContent, ChatItem, ChatMessage, ImageContent
from rejoinder.media import AudioFrame, VideoFrame, to_audio_frame, to_video_frame

__all__ = ["Body", "frozen_items", "has_media"]


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
    return [
        _frozen_message(item)
        if item.type == "message"
        else item.model_copy(update={"extra": copy.deepcopy(item.extra)})
        if item.type == "function_call"
        else item.model_copy()
        for item in items
    ]


def _frozen_message(message: ChatMessage) -> ChatMessage:
    return message.model_copy(
        update={
            "content": [_frozen_part(part) for part in message.content],
            "extra": copy.deepcopy(message.extra),
        }
    )


def _frozen_part(part: ChatContent) -> ChatContent:
    if isinstance(part, str):
        return part
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
