"""The items of a conversation: a flat list of messages, tool calls and their outputs.

The public names are re-exported by `rejoinder.llm.chat_context`. Items are mutable pydantic
models; unknown keys are ignored, so that histories written by newer versions load.
"""

from __future__ import annotations

import base64
import os
from collections.abc import Callable, Iterable, Sequence
from functools import cache
from typing import TYPE_CHECKING, Annotated, Any, Literal, TypeAlias, TypeVar, cast

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    GetCoreSchemaHandler,
    PrivateAttr,
    ValidationError,
    field_validator,
)
from pydantic_core import CoreSchema, core_schema, to_jsonable_python

from rejoinder import _stamps
from rejoinder.media import AudioFrame, VideoFrame, same_frame

if TYPE_CHECKING:
    from typing import Self

    from PIL.Image import Image as PILImage
    from pydantic import TypeAdapter

__all__ = [
    "AgentConfigUpdate",
    "AgentHandoff",
    "AudioContent",
    "ChatContent",
    "ChatItem",
    "ChatMessage",
    "ChatRole",
    "FunctionCall",
    "FunctionCallOutput",
    "ImageContent",
    "dump_items",
    "load_items",
    "parts_of",
    "same_payload",
    "with_fields",
]

ChatRole: TypeAlias = Literal["developer", "system", "user", "assistant"]


def _item_id() -> str:
    return _stamps.new_id("item_")


def _image_id() -> str:
    return _stamps.new_id("img_")


def _now() -> float:
    return _stamps.wall_now()


# Not `dict[str, Any]`: calling the alias takes four times as long.
_empty = cast("Callable[[], dict[str, Any]]", dict)


# Bytes that are not text are marked and written in base64; so is text that looks marked.
_BASE64 = "base64:"


def _hash_text(hash: bytes) -> str:
    try:
        text = hash.decode()
    except UnicodeDecodeError:
        pass
    else:
        if not text.startswith(_BASE64):
            return text
    return _BASE64 + base64.b64encode(hash).decode()


def _hash_bytes(value: Any) -> Any:
    if isinstance(value, str) and value.startswith(_BASE64):
        try:
            return base64.b64decode(value[len(_BASE64) :], validate=True)
        except ValueError:
            return value
    return value


class _HashText:
    """Reads and writes a hash. Replaces pydantic's own annotations, whose import takes as long as this
    whole module."""

    @classmethod
    def __get_pydantic_core_schema__(cls, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        written = core_schema.plain_serializer_function_ser_schema(
            _hash_text, return_schema=core_schema.str_schema(), when_used="json"
        )
        return core_schema.no_info_before_validator_function(
            _hash_bytes, core_schema.bytes_schema(), serialization=written
        )


HashBytes: TypeAlias = Annotated[bytes, _HashText]


class ImageContent(BaseModel):
    """An image in a message: an ``http(s)`` or ``data:`` URL, or a video frame.

    `image` also accepts the bytes of a file, a path, or a Pillow image, which are stored as a
    ``data:`` URL. See `from_file`, `from_bytes` and `from_pil`. The bytes of a PDF make a document, for
    models that accept documents.
    """

    model_config = ConfigDict(defer_build=True)

    id: str = Field(default_factory=_image_id)
    type: Literal["image_content"] = "image_content"
    image: str | VideoFrame
    inference_width: int | None = None
    inference_height: int | None = None
    inference_detail: Literal["auto", "high", "low"] = "auto"
    mime_type: str | None = None
    _cache: dict[Any, Any] = PrivateAttr(default_factory=dict)

    @field_validator("image", mode="before")
    @classmethod
    def _as_url(cls, value: Any) -> Any:
        if isinstance(value, str):
            return value
        from rejoinder._core import pictures

        if isinstance(value, bytes | bytearray):
            return pictures.data_url(value)
        if isinstance(value, os.PathLike):
            return _url_of_file(cast("os.PathLike[str]", value))
        if type(value).__module__.startswith("PIL."):
            return pictures.data_url_of_picture(value)
        return value

    @classmethod
    def from_bytes(cls, data: bytes, *, mime_type: str | None = None, **options: Any) -> Self:
        """An image from the bytes of a file.

        Args:
            data: a JPEG, PNG, GIF or WebP, or a document with its type in `mime_type`.
            mime_type: default: detected from the bytes.
            options: the other fields, e.g. ``inference_detail="low"``.

        Raises:
            ValueError: the bytes have no known type, and `mime_type` was not passed.
        """
        from rejoinder._core import pictures

        return cls(image=pictures.data_url(data, mime_type), **options)

    @classmethod
    def from_file(
        cls, path: str | os.PathLike[str], *, mime_type: str | None = None, **options: Any
    ) -> Self:
        """An image from a file, which is read now.

        Raises:
            OSError: the file cannot be read.
            ValueError: see `from_bytes`.
        """
        return cls(image=_url_of_file(path, mime_type), **options)

    @classmethod
    def from_pil(cls, picture: PILImage, **options: Any) -> Self:
        """A Pillow image, sent as a JPEG, or as a PNG if it may be transparent."""
        from rejoinder._core import pictures

        return cls(image=pictures.data_url_of_picture(picture), **options)

    def __eq__(self, other: object) -> bool:
        # The cache of encoded bytes does not affect equality, and frames of other packages compare
        # only by identity.
        if not isinstance(other, ImageContent):
            return NotImplemented
        mine, theirs = self.__dict__, other.__dict__
        if isinstance(self.image, str) or isinstance(other.image, str):
            return mine == theirs
        return same_frame(self.image, other.image) and all(
            mine[key] == theirs[key] for key in mine if key != "image"
        )

    __hash__ = None  # type: ignore[assignment]  # mutable, like every item

    def __getstate__(self) -> dict[Any, Any]:
        # The cache can be rebuilt, so a pickle does not need it.
        return super().__getstate__() | {"__pydantic_private__": {"_cache": {}}}


def _url_of_file(path: str | os.PathLike[str], mime_type: str | None = None) -> str:
    from rejoinder._core import pictures

    with open(path, "rb") as file:
        return pictures.data_url(file.read(), mime_type)


class AudioContent(BaseModel):
    """Sound in a message, with its transcript if there is one."""

    model_config = ConfigDict(defer_build=True)

    type: Literal["audio_content"] = "audio_content"
    frame: list[AudioFrame]
    transcript: str | None = None

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, AudioContent):
            return NotImplemented
        return (
            self.transcript == other.transcript
            and len(self.frame) == len(other.frame)
            and all(map(same_frame, self.frame, other.frame))
        )

    __hash__ = None  # type: ignore[assignment]  # mutable, like every item


ChatContent: TypeAlias = ImageContent | AudioContent | str

# Text is tried first: trying all three for every text would double the time of loading a message.
_ContentPart: TypeAlias = Annotated[
    str | ImageContent | AudioContent, Field(union_mode="left_to_right")
]


class ChatMessage(BaseModel):
    """A message of the system, the developer, the user or the assistant."""

    model_config = ConfigDict(
        defer_build=True, ser_json_bytes="base64", ser_json_inf_nan="constants"
    )

    id: str = Field(default_factory=_item_id)
    type: Literal["message"] = "message"
    role: ChatRole
    content: list[_ContentPart]
    interrupted: bool = False
    transcript_confidence: float | None = None
    hash: HashBytes | None = None
    extra: dict[str, Any] = Field(default_factory=_empty)
    """Opaque state by provider name (thinking blocks, reasoning items), kept with the message."""
    metrics: dict[str, Any] = Field(default_factory=_empty)
    created_at: float = Field(default_factory=_now)

    @property
    def text_content(self) -> str | None:
        """The text parts joined by newlines; ``None`` if the message has no text part."""
        parts = [part for part in parts_of(self) if isinstance(part, str)]
        return "\n".join(parts) if parts else None

    @property
    def raw_text_content(self) -> str | None:
        return self.text_content


def parts_of(message: ChatMessage) -> Sequence[ChatContent]:
    """The content of a message as a list, even if it was assigned as one string: assignments are not
    checked, and iterating over a string would yield its characters."""
    content: Sequence[ChatContent] = message.content
    return [content] if isinstance(content, str) else content


class FunctionCall(BaseModel):
    """A model's request to run a tool."""

    model_config = ConfigDict(
        defer_build=True, ser_json_bytes="base64", ser_json_inf_nan="constants"
    )

    id: str = Field(default_factory=_item_id)
    type: Literal["function_call"] = "function_call"
    call_id: str
    arguments: str
    name: str
    created_at: float = Field(default_factory=_now)
    extra: dict[str, Any] = Field(default_factory=_empty)
    """Opaque state by provider name, e.g. ``{"google": {"thought_signature": ...}}``."""
    group_id: str | None = None
    """Calls of one turn share it; without it the part of `id` before a slash groups them."""


_no_images = cast("Callable[[], list[ImageContent]]", list)


class FunctionCallOutput(BaseModel):
    """The output of a tool call."""

    model_config = ConfigDict(defer_build=True, ser_json_inf_nan="constants")

    id: str = Field(default_factory=_item_id)
    type: Literal["function_call_output"] = "function_call_output"
    name: str = ""
    call_id: str
    output: str
    is_error: bool
    created_at: float = Field(default_factory=_now)
    reply_required: bool = True
    images: list[ImageContent] = Field(default_factory=_no_images)
    """Pictures that belong to the output, in order: shown where the API takes them, else described.
    Each is a ``data:`` URL."""


class AgentHandoff(BaseModel):
    """Another agent took over. Never sent to a provider."""

    model_config = ConfigDict(defer_build=True, ser_json_inf_nan="constants")

    id: str = Field(default_factory=_item_id)
    type: Literal["agent_handoff"] = "agent_handoff"
    old_agent_id: str | None = None
    new_agent_id: str
    created_at: float = Field(default_factory=_now)


class AgentConfigUpdate(BaseModel):
    """Instructions or tools changed. Never sent to a provider."""

    model_config = ConfigDict(defer_build=True, ser_json_inf_nan="constants")

    id: str = Field(default_factory=_item_id)
    type: Literal["agent_config_update"] = "agent_config_update"
    instructions: str | None = None
    tools_added: list[str] | None = None
    tools_removed: list[str] | None = None
    created_at: float = Field(default_factory=_now)


ChatItem: TypeAlias = Annotated[
    ChatMessage | FunctionCall | FunctionCallOutput | AgentHandoff | AgentConfigUpdate,
    Field(discriminator="type"),
]


@cache
def _list_of_items() -> TypeAdapter[list[ChatItem]]:
    from pydantic import TypeAdapter

    return TypeAdapter(list[ChatItem])


def load_items(data: Any) -> list[ChatItem]:
    """Convert plain data, or items, to a list of items.

    Unknown parts of messages, such as the ``cache_breakpoint`` of LiveKit Agents 1.8, are kept in the
    message's ``extra["rejoinder"]`` and written back by `dump_items`.

    Raises:
        pydantic.ValidationError: an entry does not fit; the error names its position and field.
        TypeError: an image or a sound in an entry is invalid; the error names the position.
    """
    items = _list_of_items()
    try:
        return items.validate_python(data)
    except ValidationError:
        known = _known_parts(data)
        if known is None:
            raise
        return items.validate_python(known)
    except TypeError as error:
        for position, entry in enumerate(data):
            try:
                items.validate_python([entry])
            except TypeError:
                raise TypeError(f"items[{position}]: {error}") from error
        raise


_PARTS = frozenset({"image_content", "audio_content"})
_OWN = "rejoinder"
_FOREIGN = "content"
"""Key in ``extra["rejoinder"]`` of a message for its unknown parts, each with its place."""


def _known_parts(data: Any) -> list[Any] | None:
    """`data` without unknown parts of messages; ``None`` if all parts are known."""
    if not isinstance(data, list):
        return None
    known = [_without_foreign(entry) for entry in cast("list[Any]", data)]
    found = any(new is not old for new, old in zip(known, cast("list[Any]", data), strict=True))
    return known if found else None


def _without_foreign(entry: Any) -> Any:
    """The data of an item, with unknown parts of its content moved to ``extra``."""
    if not isinstance(entry, dict):
        return entry
    message = _with_plain_instructions(cast("dict[str, Any]", entry))
    content: Any = message.get("content")
    parts = cast("list[Any]", content) if isinstance(content, list) else []
    foreign = [[place, part] for place, part in enumerate(parts) if _is_foreign(part)]
    if not foreign:
        return message
    extra: Any = message.get("extra")
    more = cast("dict[str, Any]", extra) if isinstance(extra, dict) else {}
    return {
        **message,
        "content": [part for part in parts if not _is_foreign(part)],
        "extra": {**more, _OWN: {**more.get(_OWN, {}), _FOREIGN: foreign}},
    }


def _with_plain_instructions(item: dict[str, Any]) -> dict[str, Any]:
    """Convert instructions to strings. LiveKit Agents before 1.8 wrote some as an object with a text for
    voice and perhaps one for chat; without them the agent would behave differently."""
    changed: dict[str, Any] = {}
    content: Any = item.get("content")
    if isinstance(content, list):
        parts = cast("list[Any]", content)
        plain = [_plain_instructions(part) for part in parts]
        if any(new is not old for new, old in zip(plain, parts, strict=True)):
            changed["content"] = plain
    given: Any = item.get("instructions")
    if isinstance(given, dict):
        changed["instructions"] = _plain_instructions(given)
    return {**item, **changed} if changed else item


def _plain_instructions(part: Any) -> Any:
    match part:
        case {"type": "instructions", "audio": str() as words}:
            return words
        case {"type": "instructions", "text": str() as words}:
            return words
        case _:
            return part


def _is_foreign(part: Any) -> bool:
    if not isinstance(part, dict):
        return False
    kind = cast("dict[Any, Any]", part).get("type")
    return isinstance(kind, str) and bool(kind) and kind not in _PARTS


def _with_foreign(record: dict[str, Any]) -> None:
    """Put the unknown parts of a dumped message back in their places."""
    own: Any = record["extra"].get(_OWN)
    if not isinstance(own, dict) or _FOREIGN not in own:
        return
    rest = {**cast("dict[str, Any]", own)}
    for entry in rest.pop(_FOREIGN):
        place, part = entry
        record["content"].insert(place, part)
    record["extra"] = {**record["extra"], _OWN: rest}
    if not rest:
        del record["extra"][_OWN]
    if not record["extra"]:
        del record["extra"]


def dump_items(
    items: Iterable[ChatItem],
    *,
    image: bool,
    audio: bool,
    timestamp: bool,
    metrics: bool,
) -> list[dict[str, Any]]:
    """Items as plain data, ready for JSON, without ``None`` and without defaults of newer fields.

    The keys are in the order of the fields.
    """
    # Written out by hand: a third of the time of `model_dump`, which goes through every field of
    # every model three times.
    dumped: list[dict[str, Any]] = []
    for item in items:
        record: dict[str, Any]
        if type(item) is ChatMessage:
            record = {
                "id": item.id,
                "type": "message",
                "role": item.role,
                "content": _dump_content(item, image, audio),
                "interrupted": item.interrupted,
            }
            if item.transcript_confidence is not None:
                record["transcript_confidence"] = item.transcript_confidence
            if item.hash is not None:
                record["hash"] = _hash_text(item.hash)
            if item.extra:
                record["extra"] = _plain(item.extra, item, "extra")
                if _OWN in item.extra:
                    _with_foreign(record)
            if metrics and item.metrics:
                record["metrics"] = _plain(item.metrics, item, "metrics")
            if timestamp:
                record["created_at"] = item.created_at
        elif type(item) is FunctionCall:
            record = {
                "id": item.id,
                "type": "function_call",
                "call_id": item.call_id,
                "arguments": item.arguments,
                "name": item.name,
            }
            if timestamp:
                record["created_at"] = item.created_at
            if item.extra:
                record["extra"] = _plain(item.extra, item, "extra")
            if item.group_id is not None:
                record["group_id"] = item.group_id
        elif type(item) is FunctionCallOutput:
            record = {
                "id": item.id,
                "type": "function_call_output",
                "name": item.name,
                "call_id": item.call_id,
                "output": item.output,
                "is_error": item.is_error,
            }
            if timestamp:
                record["created_at"] = item.created_at
            if not item.reply_required:
                record["reply_required"] = False
            if image and item.images:
                record["images"] = [
                    shown.model_dump(mode="json", exclude_none=True) for shown in item.images
                ]
        else:
            record = _dump_model(item, image, audio, timestamp, metrics)
        dumped.append(record)
    return dumped


def _dump_model(
    item: ChatItem, image: bool, audio: bool, timestamp: bool, metrics: bool
) -> dict[str, Any]:
    """Dump an item of a rare kind, or of a subclass with further fields."""
    if not isinstance(cast("object", item), BaseModel):
        raise TypeError(
            f"ChatContext: expected items, got {type(item).__name__} among them; to load plain "
            "data, use ChatContext.from_dict()"
        )
    excluded = {"content"}
    if not timestamp:
        excluded.add("created_at")
    if not metrics:
        excluded.add("metrics")
    record = item.model_dump(mode="json", exclude_none=True, exclude=excluded)
    for name in ("extra", "metrics"):
        if name in record and not record[name]:
            del record[name]
    if record.get("reply_required") is True:
        del record["reply_required"]
    if isinstance(item, ChatMessage):
        record["content"] = _dump_content(item, image, audio)
    return record


def _dump_content(message: ChatMessage, image: bool, audio: bool) -> list[Any]:
    dumped: list[Any] = []
    for part in parts_of(message):
        if isinstance(part, str):
            dumped.append(part)
        elif image if part.type == "image_content" else audio:
            dumped.append(part.model_dump(mode="json", exclude_none=True))
    return dumped


def _plain(value: dict[str, Any], item: ChatItem, name: str) -> Any:
    """A copy with only JSON values; bytes become base64."""
    try:
        try:
            return to_jsonable_python(value, bytes_mode="base64")
        except UnicodeEncodeError:
            return _with_any_keys(value)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"item {item.id!r}, {name}: expected JSON values: {error}") from error


def _with_any_keys(value: Any) -> Any:
    """Like `_plain`, without pydantic, which refuses half a surrogate pair in keys, unlike JSON."""
    if isinstance(value, dict):
        entries = cast("dict[Any, Any]", value).items()
        return {
            key if isinstance(key, str) else str(key): _with_any_keys(held) for key, held in entries
        }
    if isinstance(value, list | tuple):
        return [_with_any_keys(held) for held in cast("list[Any]", value)]
    return to_jsonable_python(value, bytes_mode="base64")


Item_T = TypeVar("Item_T", bound=BaseModel)


def with_fields(item: Item_T, **fields: Any) -> Item_T:
    """A shallow copy of `item` with other values in `fields`, which are not validated.

    Like `model_copy(update=fields)`, in half the time.
    """
    private = item.__pydantic_private__
    copied = item.__new__(type(item))
    # As pydantic's own `model_copy` does it; assigning would validate, or mark fields as set.
    _set(copied, "__dict__", {**item.__dict__, **fields})
    _set(copied, "__pydantic_fields_set__", {*item.__pydantic_fields_set__, *fields})
    _set(copied, "__pydantic_extra__", item.__pydantic_extra__)
    _set(copied, "__pydantic_private__", private if private is None else {**private})
    return copied


_set = object.__setattr__

_PAYLOAD: dict[str, tuple[str, ...]] = {
    "message": ("role", "interrupted", "content"),
    "function_call": ("name", "call_id", "arguments"),
    "function_call_output": ("name", "call_id", "output", "is_error", "images"),
    "agent_handoff": ("old_agent_id", "new_agent_id"),
    "agent_config_update": ("instructions", "tools_added", "tools_removed"),
}


def same_payload(a: ChatItem, b: ChatItem) -> bool:
    """Whether two items have the same content, regardless of ids and times.

    `hash`, `transcript_confidence`, `extra` and `metrics` do not count.
    """
    # By their dictionaries, because this runs for every item of long conversations.
    mine, theirs = a.__dict__, b.__dict__
    if mine["type"] != theirs["type"]:
        return False
    for name in _PAYLOAD[mine["type"]]:  # noqa: SIM110  a generator costs half as much again
        if mine[name] != theirs[name]:
            return False
    return True
