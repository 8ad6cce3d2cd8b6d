"""The rules of each API for histories, as data. Pure.

Each provider's dialect holds the values; `rejoinder._core.legality` finds violations and
`rejoinder._core.repair` mends them.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Mapping
from typing import Any, Final, Literal, cast

import msgspec

from rejoinder._core.items import FunctionCall
from rejoinder._core.unread import is_sent_alone

__all__ = [
    "BLOCKS",
    "FOREIGN_STATE",
    "STATEFUL",
    "TOOL_NAME",
    "Rules",
    "State",
    "call_id_of",
    "digest",
    "is_base64",
    "is_text",
    "numbered_id",
]

STATEFUL: Final = frozenset({"anthropic", "aws", "google", "livekit", "mistralai", "openai", "xai"})
"""Keys of `extra` that hold the state of a provider; other keys belong to the caller."""

FOREIGN_STATE: Final = ("google", "livekit", "xai")
"""Keys of `extra` that the chat completions format sends as `extra_content`: clones of the API
return them there and expect them back there."""

TOOL_NAME: Final = re.compile(r"[a-zA-Z0-9_-]{1,64}")


def _is_anything(value: object) -> bool:
    return True


def _is_never_enough(state: Mapping[str, Any]) -> bool:
    return False


class State(msgspec.Struct, frozen=True):
    """The opaque state of one provider, which travels in the `extra` of messages and calls."""

    key: str = ""
    """The key of `extra` under which the format sends it; empty: the API keeps no state."""
    part: str = ""
    """The member of the state that is checked; empty to check nothing."""
    is_whole: Callable[[Any], bool] = _is_anything
    """Whether that member, or each of its `entries`, may be sent back."""
    entries: bool = False
    """The member is a list of entries."""
    linked: bool = False
    """Entries have ids, and are valid only directly before the item that they produced."""
    stands_alone: Callable[[Mapping[str, Any]], bool] = _is_never_enough
    """Whether the API accepts an assistant's message that holds nothing but this state."""
    unread: str = ""
    """The format whose unread parts are sent back, see `rejoinder._core.unread`."""

    def fills(self, extra: Mapping[str, Any]) -> bool:
        """Whether a message with this `extra` is sent even without text and image."""
        return bool(self.unread and extra) and is_sent_alone(extra, self.key, self.unread)

    def is_carried_by(self, call: FunctionCall) -> bool:
        """Whether `call` carries this state completely."""
        state = call.extra.get(self.key)
        return isinstance(state, dict) and self.is_whole(
            cast("dict[str, Any]", state).get(self.part)
        )


def digest(text: str) -> str:
    """A hash of `text`. New ids derive from old ones, so that equal prompts stay equal."""
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()


def call_id_of(seed: str) -> str:
    """A call id that most APIs accept."""
    return "call_" + digest(seed)[:24]


def numbered_id(name: str, number: int) -> str:
    """The id of a call in Kimi's form. With ids of another form the model returns nothing."""
    return f"functions.{name}:{number}"


class Rules(msgspec.Struct, frozen=True):
    """The rules of one provider for a history in its format."""

    call_id: re.Pattern[str]
    new_call_id: Callable[[str], str] = call_id_of
    name: re.Pattern[str] = TOOL_NAME
    """The names that tools may have."""
    blocks: bool = False
    """Each text of a message is a block of its own, and none may be blank."""
    first_user: str = ""
    """The user message that is added if the history does not begin with one; empty: not demanded."""
    calls_first: bool = True
    """A history may begin with calls."""
    last_user: str = ""
    """The user message that is added if the history does not end with one; empty: not demanded."""
    lone_user: str = ""
    """The user message that is added if nothing is left of the history; empty: not demanded."""
    folds_instructions: bool = False
    """The first system message is sent beside the messages; later ones become user text."""
    one_instruction: bool = False
    """The API takes one text of instructions, and no system messages."""
    developer: bool = True
    """The API knows the role ``developer``; elsewhere it becomes ``system``."""
    instructions: Literal["anywhere", "beside_user", "first", "user"] = "anywhere"
    """Where system messages may stand among the messages: ``beside_user``: at the beginning, and
    before or after the user; ``first``: only at the beginning; ``user``: nowhere, because the model
    does not know the role. Elsewhere they become user messages, in ``<instructions>``."""
    reply_after_tools: bool = False
    """An assistant message must follow an output."""
    alternates: bool = False
    """User and assistant messages must alternate."""
    numbered_ids: bool = False
    """The id of the n-th call is ``functions.<name>:<n>``, counted from 0 through the history."""
    images: bool = True
    """The model takes images; for others they are described in words."""
    image_side: int | None = None
    """Maximum side of an image in pixels; ``None`` for no limit."""
    image_bytes: int | None = None
    """Maximum bytes of an image, in Base64."""
    crowd: tuple[int, int] | None = None
    """With more images than the first number, the second number limits their sides."""
    assistant_images: bool = False
    result_images: bool = False
    """Tool results may be pictures; otherwise they are described in words."""
    result_addresses: bool = False
    """Such a picture may be a URL."""
    image_schemes: tuple[str, ...] = ("https://", "http://")
    """Accepted beginnings of image URLs; empty if only inline images are accepted."""
    image_types: frozenset[str] = frozenset({"image/gif", "image/jpeg", "image/png", "image/webp"})
    output_names: bool = False
    """An output repeats the name of its call."""
    blank_outputs: bool = True
    blank_errors: bool = True
    state: State = msgspec.field(default_factory=State)
    signatures: bool = False
    """The first call of each step of the last turn needs its state (a thought signature)."""
    no_signature: str = ""
    """A value that the API accepts instead of a signature, for calls of other models."""


BLOCKS: Final = Rules(
    call_id=re.compile(r"[a-zA-Z0-9_-]{1,64}"),
    blocks=True,
    first_user="(empty)",
    last_user=".",
    lone_user="(empty)",
    folds_instructions=True,
    blank_errors=False,
)
"""Of APIs whose turns alternate and hold blocks."""


_BASE64: Final = re.compile(r"(?:[A-Za-z0-9+/_-]{4})*(?:[A-Za-z0-9+/_-]{2}==|[A-Za-z0-9+/_-]{3}=)?")


def is_base64(value: object) -> bool:
    """Whether `value` is bytes, or their Base64, and not empty."""
    if isinstance(value, bytes):
        return bool(value)
    return isinstance(value, str) and bool(value) and _BASE64.fullmatch(value) is not None


def is_text(value: object) -> bool:
    """Whether `value` is a text that is not blank."""
    return isinstance(value, str) and bool(value) and not value.isspace()
