"""Histories in the dialect of chat completions, which many providers clone.

Law: pure; items in, plain dicts out. One message per turn, roles as they are. The texts of a
message are joined by newlines; with an image, content is a list, images first. Calls stand on
their assistant message with their arguments as text, outputs follow as role ``tool``.
"""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, cast

from rejoinder._core.groups import Group, group_tool_calls
from rejoinder._core.items import ChatItem, ChatMessage, FunctionCall, ImageContent, parts_of

if TYPE_CHECKING:
    from rejoinder._core.images import SerializedImage

__all__ = ["image_url", "read_image", "split_content", "to_messages"]

# State of these providers travels in `extra_content`, where their own and clone servers look.
_EXTRA_CONTENT = ("google", "livekit", "xai")


def to_messages(items: Sequence[ChatItem], *, keep_reasoning: bool = False) -> list[dict[str, Any]]:
    """`items` as messages of the chat completions API.

    Args:
        items: a history.
        keep_reasoning: send the reasoning that led to tool calls back with them, for servers that
            insist on it. Others refuse the field.

    Raises:
        ValueError: an image cannot be read.
    """
    messages: list[dict[str, Any]] = []
    append = messages.append
    for turn in group_tool_calls(items):
        if not isinstance(turn, Group):
            append(_message(turn))
            continue
        message = turn.message
        if not turn.calls:
            if message is not None:
                append(_message(message))
            continue
        entry: dict[str, Any] = {"role": "assistant"} if message is None else _message(message)
        entry["tool_calls"] = [_call(call) for call in turn.calls]
        if keep_reasoning and (thought := _reasoning(message, turn.calls[0])):
            entry["reasoning_content"] = thought
        append(entry)
        for output in turn.outputs:
            append({"role": "tool", "tool_call_id": output.call_id, "content": output.output})
    return messages


def _reasoning(*carriers: ChatMessage | FunctionCall | None) -> str | None:
    for carrier in carriers:
        state: Any = carrier.extra.get("openai") if carrier is not None else None
        if not isinstance(state, dict):
            continue
        thought: Any = cast("dict[str, Any]", state).get("reasoning_content")
        if isinstance(thought, str) and thought:
            return thought
    return None


def _call(call: FunctionCall) -> dict[str, Any]:
    spec: dict[str, Any] = {
        "id": call.call_id,
        "type": "function",
        "function": {"name": call.name, "arguments": call.arguments},
    }
    if call.extra and (state := _extra_content(call.extra)):
        spec["extra_content"] = state
    return spec


def _message(message: ChatMessage) -> dict[str, Any]:
    content = message.content
    if len(content) == 1 and isinstance(only := content[0], str):
        entry: dict[str, Any] = {"role": message.role, "content": only}
    else:
        text, images = split_content(message)
        if images:
            parts: list[dict[str, Any]] = [
                {
                    "type": "image_url",
                    "image_url": {"url": image_url(image), "detail": image.inference_detail},
                }
                for image in map(read_image, images)
            ]
            if text:
                parts.append({"type": "text", "text": text})
            entry = {"role": message.role, "content": parts}
        else:
            entry = {"role": message.role, "content": text}
    if message.extra and (state := _extra_content(message.extra)):
        entry["extra_content"] = state
    return entry


def split_content(message: ChatMessage) -> tuple[str, list[ImageContent]]:
    """The texts joined by newlines, without empty ones in front, and the images; sound is not
    part of this dialect."""
    texts: list[str] = []
    images: list[ImageContent] = []
    for part in parts_of(message):
        if isinstance(part, str):
            if part or texts:
                texts.append(part)
        elif part.type == "image_content":
            images.append(part)
    return "\n".join(texts), images


def read_image(image: ImageContent) -> SerializedImage:
    """The image's address or its bytes.

    Raises:
        ValueError: it cannot be read.
    """
    from rejoinder._core.images import serialize_image  # only histories with images need it

    return serialize_image(image)


def image_url(image: SerializedImage) -> str:
    """The address of an image that is elsewhere, a ``data:`` URL of one that is here."""
    if image.external_url is not None:
        return image.external_url
    data = b64encode(image.data_bytes or b"").decode("ascii")
    return f"data:{image.mime_type};base64,{data}"


def _extra_content(extra: dict[str, Any]) -> dict[str, Any]:
    return {name: extra[name] for name in _EXTRA_CONTENT if name in extra}
