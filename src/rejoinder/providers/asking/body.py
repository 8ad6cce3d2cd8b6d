"""A conversation as it was when it was asked about, turned into the body of a request.

`chat()` returns at once and its caller may change any message a moment later. A conversation of
usual length is turned into bytes on the spot, if it is text alone: that takes a millisecond or two
and needs no copy. Pictures and sound take longer, and so do thousands of items, the more so where
they have to be mended for this provider: nothing else could run on the event loop meanwhile. They
are copied (what can change of them) and turned in a thread at the first attempt; later attempts
send the same bytes.
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
        ConfigurationError: it is no `ChatContext`.
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
    """What a history holds besides text."""

    any: bool = False
    """Pictures, sound or documents."""
    here: bool = False
    """Some of them must be encoded: they are not at an address."""
    state: bool = False
    """Opaque state of a provider."""


def survey(
    items: Sequence[ChatItem],
    provider: str,
    *,
    takes_audio: bool,
    takes: Callable[[str], bool | None] | None = None,
) -> Media:
    """What is to be sent besides text.

    Args:
        provider: name of the provider's package.
        takes_audio: the model takes sound.
        takes: whether the model takes a kind of input, such as ``"image"``; ``None``: not known.

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
"""Items, from which on copying them costs less than to mend and convert them at their worst."""


_REMEMBERED = 4_096
"""Items of which an LLM remembers that their state was refused."""


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
    """The bytes that `make` turns a conversation into, made once.

    `ready` are the bytes to be sent, where `get` need not make them.

    Args:
        items: the conversation; it may change as soon as this returns.
        make: items to bytes; pure, may run in a thread.
        media: what the conversation holds; where it has to be encoded, that is done in a thread.
        refused: the state that is not sent again.
        go_on: adds a begun reply to a body; see `rejoinder.providers.asking.ask.Question.go_on`.

    Raises:
        ConfigurationError: an element of `items` is not an item; or what `make` raises.
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
        """The bytes. Made in a thread, where that may take long.

        Raises:
            ValueError: what `make` raises.
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
        """Send what the model has begun along from now on, so that it goes on with it.

        Args:
            part: of the reply, since the last time.
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
                with suppress(Exception):  # what nothing can be made of, no provider can be sent
                    extra = {**extra, **pickle.loads(frozen.state)}  # noqa: S301  made here
                fields = {**fields, "extra": extra}
            items.append(with_fields(item, **fields))
        return self._make(items)


def _has_state(item: ChatItem) -> bool:
    extra: object = item.__dict__.get("extra")
    return isinstance(extra, dict) and not STATEFUL.isdisjoint(cast("dict[str, Any]", extra))


def _stateless(item: ChatItem) -> ChatItem:
    """A copy of `item` without the state of any provider; later changes of it do not reach it."""
    fields = item.__dict__.copy()
    if item.type == "message":
        fields["content"] = [
            part if isinstance(part, str) else _frozen_part(part) for part in item.content
        ]
    if extra := fields.get("extra"):
        fields["extra"] = {key: value for key, value in extra.items() if key not in STATEFUL}
    return with_fields(item, **fields)


def _fields(item: ChatItem) -> dict[str, Any]:
    """The fields of an item, so that later changes of it do not reach them. Items are made of them
    in the thread: that takes longer."""
    fields = item.__dict__.copy()
    if item.type == "message":
        fields["content"] = [
            part if isinstance(part, str) else _frozen_part(part) for part in item.content
        ]
    if extra := fields.get("extra"):
        fields["extra"] = _frozen_extra(extra)
    return fields


class _Frozen(NamedTuple):
    """The `extra` of an item: its own dict, and the state in it that a provider may be sent."""

    shared: dict[str, Any]
    state: bytes


def _frozen_extra(extra: dict[str, Any]) -> dict[str, Any] | _Frozen:
    # Objects may refuse to be copied: then they are shared, as is whatever the caller keeps here of
    # his own.
    with suppress(Exception):
        if STATEFUL.issuperset(extra):
            own, state = _NOTHING, extra
        else:
            own, state = {**extra}, {key: extra[key] for key in extra if key in STATEFUL}
        # The quickest copy of what may be nested: a quarter of the time of walking through it.
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
