"""Histories in the dialect of chat completions, which many providers clone.

Law: pure; items in, plain dicts out. One message per turn, roles as they are. The texts of a
message are joined by newlines; with an image, content is a list, images first. Calls stand on
their assistant message with their arguments as text, outputs follow as role ``tool``.
"""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, cast

from rejoinder._core.families import ReasoningBack
from rejoinder._core.groups import Group, group_tool_calls
from rejoinder._core.items import ChatItem, ChatMessage, FunctionCall, ImageContent, parts_of

if TYPE_CHECKING:
    from rejoinder._core.images import SerializedImage

__all__ = ["image_url", "read_image", "split_content", "to_messages"]

# What is sent where a model insists on its reasoning and none is known: calls of another model.
_NO_THOUGHT = " "

# State of these providers travels in `extra_content`, where their own and clone servers look.
_EXTRA_CONTENT = ("google", "livekit", "xai")


def to_messages(
    items: Sequence[ChatItem],
    *,
    reasoning_back: ReasoningBack = "never",
    reasoning_details: bool = False,
) -> list[dict[str, Any]]:
    """`items` as messages of the chat completions API.

    Args:
        items: a history.
        reasoning_back: which assistant messages get their ``reasoning_content`` back, for models
            that insist on it. Where nothing is known of it, an empty text is sent, which they
            accept. Others refuse the field.
        reasoning_details: send ``reasoning_details`` back on the message that they came with, for
            hosts that want them.

    Raises:
        ValueError: an image cannot be read.
    """
    messages: list[dict[str, Any]] = []
    append = messages.append
    thoughtful: list[tuple[dict[str, Any], str]] = []
    called = False
    wants_state = reasoning_details or reasoning_back != "never"
    for turn in group_tool_calls(items):
        if not isinstance(turn, Group):
            entry = _message(turn)
            if turn.role == "assistant" and wants_state:
                thoughtful.append((entry, _state_of(entry, (turn,), reasoning_details)))
            append(entry)
            continue
        message = turn.message
        if not turn.calls:
            if message is not None:
                append(_message(message))
            continue
        called = True
        entry: dict[str, Any] = {"role": "assistant"} if message is None else _message(message)
        entry["tool_calls"] = [_call(call) for call in turn.calls]
        if wants_state:
            carriers = (message, *turn.calls)
            thoughtful.append((entry, _state_of(entry, carriers, reasoning_details)))
        append(entry)
        for output in turn.outputs:
            append({"role": "tool", "tool_call_id": output.call_id, "content": output.output})
    for entry, thought in thoughtful:
        if "tool_calls" in entry:
            if reasoning_back != "never":
                entry["reasoning_content"] = thought
        elif called and reasoning_back == "after_calls":
            entry["reasoning_content"] = thought
    return messages


def _state_of(
    entry: dict[str, Any],
    carriers: Sequence[ChatMessage | FunctionCall | None],
    details: bool,
) -> str:
    """The reasoning that led to a message; with `details`, its details are put on the message."""
    thought = ""
    for carrier in carriers:
        state: Any = carrier.extra.get("openai") if carrier is not None else None
        if not isinstance(state, dict):
            continue
        held = cast("dict[str, Any]", state)
        said: Any = held.get("reasoning_content")
        if not thought and isinstance(said, str):
            thought = said
        found: Any = held.get("reasoning_details")
        if details and isinstance(found, list) and found:
            entry["reasoning_details"] = [*entry.get("reasoning_details", ()), *found]
    return thought or _NO_THOUGHT


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
