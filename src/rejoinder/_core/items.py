"""The items of a conversation: a flat list of messages, tool calls and their outputs.

The public names are re-exported by `rejoinder.llm.chat_context`. Items are mutable pydantic
models; unknown keys are ignored, so that histories written by newer versions load.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Annotated, Any, Literal, TypeAlias

from pydantic import BaseModel, ConfigDict, Field, PrivateAttr, TypeAdapter
from pydantic_core import to_jsonable_python

from rejoinder import _stamps
from rejoinder.media import AudioFrame, VideoFrame, same_frame

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
    "same_payload",
]

ChatRole: TypeAlias = Literal["developer", "system", "user", "assistant"]


def _item_id() -> str:
    return _stamps.new_id("item_")


def _image_id() -> str:
    return _stamps.new_id("img_")


def _now() -> float:
    return _stamps.wall_now()


class ImageContent(BaseModel):
    """An image in a message: an ``http(s)`` or ``data:`` URL, or a video frame."""

    model_config = ConfigDict(defer_build=True)

    id: str = Field(default_factory=_image_id)
    type: Literal["image_content"] = "image_content"
    image: str | VideoFrame
    inference_width: int | None = None
    inference_height: int | None = None
    inference_detail: Literal["auto", "high", "low"] = "auto"
    mime_type: str | None = None
    _cache: dict[Any, Any] = PrivateAttr(default_factory=dict)

    def __eq__(self, other: object) -> bool:
        # The cache of encoded bytes says nothing about what the image is, and frames of other
        # packages compare by identity only.
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
        # What was encoded can be encoded again; a pickle need not carry it.
        return super().__getstate__() | {"__pydantic_private__": {"_cache": {}}}


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


class ChatMessage(BaseModel):
    """What somebody said."""

    model_config = ConfigDict(defer_build=True)

    id: str = Field(default_factory=_item_id)
    type: Literal["message"] = "message"
    role: ChatRole
    content: list[ChatContent]
    interrupted: bool = False
    transcript_confidence: float | None = None
    hash: bytes | None = None
    extra: dict[str, Any] = Field(default_factory=dict[str, Any])
    """Opaque state by provider name (thinking blocks, reasoning items), kept with the message."""
    metrics: dict[str, Any] = Field(default_factory=dict[str, Any])
    created_at: float = Field(default_factory=_now)

    @property
    def text_content(self) -> str | None:
        """The text parts joined by newlines; ``None`` when there is no text part at all."""
        parts = [part for part in self.content if isinstance(part, str)]
        return "\n".join(parts) if parts else None

    @property
    def raw_text_content(self) -> str | None:
        return self.text_content


class FunctionCall(BaseModel):
    """The model asked for a tool to be run."""

    model_config = ConfigDict(defer_build=True)

    id: str = Field(default_factory=_item_id)
    type: Literal["function_call"] = "function_call"
    call_id: str
    arguments: str
    name: str
    created_at: float = Field(default_factory=_now)
    extra: dict[str, Any] = Field(default_factory=dict[str, Any])
    """Opaque state by provider name, e.g. ``{"google": {"thought_signature": ...}}``."""
    group_id: str | None = None
    """Calls of one turn share it; without it the part of `id` before a slash groups them."""


class FunctionCallOutput(BaseModel):
    """What came of a tool call."""

    model_config = ConfigDict(defer_build=True)

    id: str = Field(default_factory=_item_id)
    type: Literal["function_call_output"] = "function_call_output"
    name: str = ""
    call_id: str
    output: str
    is_error: bool
    created_at: float = Field(default_factory=_now)
    reply_required: bool = True


class AgentHandoff(BaseModel):
    """Another agent took over. Never sent to a provider."""

    model_config = ConfigDict(defer_build=True)

    id: str = Field(default_factory=_item_id)
    type: Literal["agent_handoff"] = "agent_handoff"
    old_agent_id: str | None = None
    new_agent_id: str
    created_at: float = Field(default_factory=_now)


class AgentConfigUpdate(BaseModel):
    """Instructions or tools changed. Never sent to a provider."""

    model_config = ConfigDict(defer_build=True)

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


_ITEMS: TypeAdapter[list[ChatItem]] = TypeAdapter(
    list[ChatItem], config=ConfigDict(defer_build=True)
)


def load_items(data: Any) -> list[ChatItem]:
    """Plain data, or items, as a list of items.

    Raises:
        pydantic.ValidationError: an entry does not fit; it names its position and field.
    """
    return _ITEMS.validate_python(data)


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
        kind = type(item)
        record: dict[str, Any]
        if kind is ChatMessage:
            content: list[Any] = []
            for part in item.content:
                if isinstance(part, str):
                    content.append(part)
                elif (image and part.type == "image_content") or (
                    audio and part.type == "audio_content"
                ):
                    content.append(part.model_dump(mode="json", exclude_none=True))
            record = {
                "id": item.id,
                "type": "message",
                "role": item.role,
                "content": content,
                "interrupted": item.interrupted,
            }
            if item.transcript_confidence is not None:
                record["transcript_confidence"] = item.transcript_confidence
            if item.hash is not None:
                record["hash"] = _hash_text(item.hash)
            if item.extra:
                record["extra"] = to_jsonable_python(item.extra, bytes_mode="base64")
            if metrics and item.metrics:
                record["metrics"] = to_jsonable_python(item.metrics, bytes_mode="base64")
        elif kind is FunctionCall:
            record = {
                "id": item.id,
                "type": "function_call",
                "call_id": item.call_id,
                "arguments": item.arguments,
                "name": item.name,
            }
        elif kind is FunctionCallOutput:
            record = {
                "id": item.id,
                "type": "function_call_output",
                "name": item.name,
                "call_id": item.call_id,
                "output": item.output,
                "is_error": item.is_error,
            }
        else:
            record = item.model_dump(mode="json", exclude_none=True)
            record.pop("created_at", None)
        if timestamp:
            record["created_at"] = item.created_at
        if kind is FunctionCall:
            if item.extra:
                record["extra"] = to_jsonable_python(item.extra, bytes_mode="base64")
            if item.group_id is not None:
                record["group_id"] = item.group_id
        elif kind is FunctionCallOutput and not item.reply_required:
            record["reply_required"] = False
        dumped.append(record)
    return dumped


_BASE64 = "base64:"


def _hash_text(hash: bytes) -> str:
    return hash.decode()


def same_payload(a: ChatItem, b: ChatItem) -> bool:
    """Whether two items say the same, whatever their ids and times.

    `hash`, `transcript_confidence`, `extra` and `metrics` do not count.
    """
    if a.type != b.type:
        return False
    if a.type == "message":
        return a.role == b.role and a.interrupted == b.interrupted and a.content == b.content
    if a.type == "function_call":
        return a.name == b.name and a.call_id == b.call_id and a.arguments == b.arguments
    if a.type == "function_call_output":
        return (
            a.name == b.name
            and a.call_id == b.call_id
            and a.output == b.output
            and a.is_error == b.is_error
        )
    if a.type == "agent_handoff":
        return a.old_agent_id == b.old_agent_id and a.new_agent_id == b.new_agent_id
    return (
        a.instructions == b.instructions
        and a.tools_added == b.tools_added
        and a.tools_removed == b.tools_removed
    )
