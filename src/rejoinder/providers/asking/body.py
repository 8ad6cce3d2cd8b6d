"""Encodes a snapshot of a conversation as the body of a request.

`chat()` returns at once, and its caller may change any message a moment later. A conversation of usual
length with only text is encoded immediately: that takes a millisecond or two and needs no copy. Pictures
and sound take longer, and so do thousands of items, especially if they must be repaired; they would
block the event loop. Their mutable parts are copied, and they are encoded in a thread at the first
attempt. Later attempts send the same bytes.
"""

from __future__ import annotations

import pickle
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from typing import Any, NamedTuple, cast

from rejoinder._aio import in_thread
from rejoinder._core import jsontext
from rejoinder._core.images import needs_preparing
from rejoinder._core.items import (
    AudioContent,
    ChatContent,
    ChatItem,
    ChatMessage,
    ImageContent,
    with_fields,
)
from rejoinder._core.rules import STATEFUL
from rejoinder._foreign import read
from rejoinder._sections import explained
from rejoinder.errors import ConfigurationError
from rejoinder.llm.chat_context import ChatContext
from rejoinder.media import AudioFrame, VideoFrame, to_audio_frame, to_video_frame
from rejoinder.providers.asking.capabilities import refuse, refuse_unsupported

__all__ = ["Body", "Media", "RefusedState", "items_of", "survey"]


def items_of(chat_ctx: object) -> list[ChatItem]:
    """The items of a conversation.

    Raises:
        ConfigurationError: it is not a `ChatContext`.
    """
    items: object = chat_ctx.items if isinstance(chat_ctx, ChatContext) else read(chat_ctx, "items")
    if not isinstance(items, list):
        raise ConfigurationError(
            explained(
                f"chat_ctx: expected a ChatContext, got {type(chat_ctx).__name__}; make one by "
                "ChatContext.empty() and add_message(role='user', content=...)",
                "context",
            )
        )
    return cast("list[ChatItem]", items)


class Media(NamedTuple):
    """The content of a history other than text."""

    any: bool = False
    """Pictures, sound or documents."""
    here: bool = False
    """Some of them must be encoded, because they are not URLs."""
    state: bool = False
    """Opaque state of a provider."""


def survey(
    items: Sequence[ChatItem],
    provider: str,
    *,
    takes_audio: bool,
    takes: Callable[[str], bool | None] | None = None,
) -> Media:
    """Find the content to be sent other than text.

    Args:
        provider: name of the provider's package.
        takes_audio: the model takes sound.
        takes: whether the model accepts a kind of input, such as ``"image"``; ``None`` if unknown.

    Raises:
        ConfigurationError: the last user turn cannot be sent, or an element is not an item.
    """
    parts: list[ImageContent | AudioContent] = []
    state = False
    try:
        for item in items:
            if item.type == "message":
                for part in item.content:
                    if not isinstance(part, str):
                        parts.append(part)  # noqa: PERF401  a comprehension would be called anew
            elif item.type != "function_call":
                continue
            if not state and item.extra:
                state = not STATEFUL.isdisjoint(item.extra)
        if not parts:
            return _STATE_ALONE if state else _TEXT_ALONE
        sees = None if takes is None else takes("image")
        refuse_unsupported(provider, items, hears=takes_audio, sees=sees)
        return Media(True, any(map(_is_here, parts)), state)
    except (AttributeError, TypeError) as error:
        refuse(items, error)


_TEXT_ALONE = Media()
_STATE_ALONE = Media(state=True)


def _is_here(part: ImageContent | AudioContent) -> bool:
    if isinstance(part, AudioContent):
        return True
    return not isinstance(part.image, str) or part.image[:5] == "data:"


_LONG = 200
"""From this many items on, copying costs less than repairing and converting them in the worst case."""


_REMEMBERED = 4_096
"""Maximum number of items whose refused state an LLM remembers."""


class RefusedState:
    """The items whose state a server could not read, by their id; kept by each LLM."""

    __slots__ = ("ids",)

    def __init__(self) -> None:
        self.ids: dict[str, None] = {}

    def add(self, items: Iterable[ChatItem]) -> None:
        for item in items:
            self.ids[item.id] = None
        while len(self.ids) > _REMEMBERED:
            del self.ids[next(iter(self.ids))]

    def without(self, items: Sequence[ChatItem]) -> Sequence[ChatItem]:
        """`items` without the state that was refused."""
        ids = self.ids
        if not ids:
            return items
        return [_stateless(item) if item.id in ids else item for item in items]


class Body:
    """The bytes that `make` makes from a conversation, made once.

    `ready` are the bytes to send, if `get` does not have to make them.

    Args:
        items: the conversation; it may change as soon as this returns.
        make: converts items to bytes; pure, may run in a thread.
        media: the media of the conversation; they are encoded in a thread.
        refused: the state that is not sent again.
        go_on: adds a begun reply to a body; see `rejoinder.providers.asking.ask.Question.go_on`.

    Raises:
        ConfigurationError: an element of `items` is not an item. Other errors come from `make`.
    """

    __slots__ = (
        "_begun",
        "_bytes",
        "_go_on",
        "_make",
        "_refused",
        "_snapshot",
        "_stateless",
        "ready",
    )

    def __init__(
        self,
        items: Sequence[ChatItem],
        make: Callable[[Sequence[ChatItem]], bytes],
        media: Media,
        refused: RefusedState,
        go_on: Callable[[dict[str, Any], Sequence[dict[str, Any]]], None] | None = None,
    ) -> None:
        self._go_on = go_on
        self._begun: list[dict[str, Any]] = []
        self._make = make
        self._refused = refused
        self._snapshot: list[tuple[ChatItem, dict[str, Any]]] = []
        self._stateless: list[ChatItem] = []
        self._bytes: bytes | None = None
        self.ready: bytes | None = None
        try:
            if media.state:
                kept = refused.without(items)
                if kept is items or any(map(_has_state, kept)):
                    self._stateless = [_stateless(item) for item in kept]
                items = kept
            if media.here or len(items) > _LONG:
                self._snapshot = [(item, _fields(item)) for item in items]
                return
        except (AttributeError, TypeError) as error:
            refuse(items, error)
        self._bytes = self.ready = make(items)

    async def get(self) -> bytes:
        """The bytes, made in a thread if that may take long.

        Raises:
            ValueError: `make` raised it.
        """
        if self._bytes is None:
            self._bytes = await in_thread(self._made, name="rejoinder-body")
            self._snapshot = []
        if not self._begun or self._go_on is None:
            return self._bytes
        body = jsontext.decode(self._bytes)
        self._go_on(body, self._begun)
        return jsontext.encode(body)

    def go_on(self, part: dict[str, Any]) -> None:
        """Add a begun reply to the body from now on, so that the model continues it.

        Args:
            part: the part of the reply since the last call.
        """
        self._begun.append(part)
        self.ready = None

    def drop_state(self) -> bool:
        """Send the conversation without opaque state from now on, and remember that for the next
        one. Returns whether there was any."""
        items = self._stateless
        if not items:
            return False
        if self._refused is not None:
            self._refused.add(items)
        self._snapshot = [(item, dict(item.__dict__)) for item in items]
        self._stateless = []
        self._bytes = self.ready = None
        return True

    def _made(self) -> bytes:
        items: list[ChatItem] = []
        for item, fields in self._snapshot:
            if type(frozen := fields.get("extra")) is _Frozen:
                extra = frozen.shared
                with suppress(Exception):  # an item that cannot be converted is not sent either
                    extra = {**extra, **pickle.loads(frozen.state)}  # noqa: S301  made here
                fields = {**fields, "extra": extra}
            items.append(with_fields(item, **fields))
        return self._make(items)


def _has_state(item: ChatItem) -> bool:
    extra: object = item.__dict__.get("extra")
    return isinstance(extra, dict) and not STATEFUL.isdisjoint(cast("dict[str, Any]", extra))


def _stateless(item: ChatItem) -> ChatItem:
    """An independent copy of `item` without the state of any provider."""
    fields = item.__dict__.copy()
    if item.type == "message":
        fields["content"] = [
            part if isinstance(part, str) else _frozen_part(part) for part in item.content
        ]
    if extra := fields.get("extra"):
        fields["extra"] = {key: value for key, value in extra.items() if key not in STATEFUL}
    return with_fields(item, **fields)


def _fields(item: ChatItem) -> dict[str, Any]:
    """A copy of the fields of an item. The thread makes items of them, because that takes longer."""
    fields = item.__dict__.copy()
    if item.type == "message":
        fields["content"] = [
            part if isinstance(part, str) else _frozen_part(part) for part in item.content
        ]
    if extra := fields.get("extra"):
        fields["extra"] = _frozen_extra(extra)
    return fields


class _Frozen(NamedTuple):
    """A copy of an item's `extra`, including the state in it that may be sent to a provider."""

    shared: dict[str, Any]
    state: bytes


def _frozen_extra(extra: dict[str, Any]) -> dict[str, Any] | _Frozen:
    # Objects that refuse to be copied are shared, like the caller's own data here.
    with suppress(Exception):
        if STATEFUL.issuperset(extra):
            own, state = _NOTHING, extra
        else:
            own, state = {**extra}, {key: extra[key] for key in extra if key in STATEFUL}
        # The quickest copy of nested values, in a quarter of the time of a recursive one.
        return _Frozen(own, pickle.dumps(state, pickle.HIGHEST_PROTOCOL))
    return {**extra}


_NOTHING: dict[str, Any] = {}


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
