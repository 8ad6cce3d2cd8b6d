"""Histories in the dialect of chat completions, which many providers clone.

Pure: items in, plain dicts out. One message per turn, roles as they are. Texts that follow each
other are joined by newlines; with an image, content is a list, in the order of the message. Calls stand on
their assistant message with their arguments as text, outputs follow as role ``tool``.
"""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, cast

from rejoinder._core.families import ReasoningBack
from rejoinder._core.groups import Group, group_tool_calls
from rejoinder._core.items import ChatItem, ChatMessage, FunctionCall, ImageContent, parts_of

if TYPE_CHECKING:
    from rejoinder._core.images import SerializedImage

__all__ = ["image_url", "ordered_content", "read_image", "to_messages"]

# What is sent where a model insists on its reasoning and none is known: calls of another model.
_NO_THOUGHT = " "

# State of these providers travels in `extra_content`, where their own and clone servers look.
_EXTRA_CONTENT = ("google", "livekit", "xai")


def to_messages(
    items: Sequence[ChatItem],
    *,
    reasoning_back: ReasoningBack = "never",
    reasoning_details: bool = False,
    host: str = "",
) -> list[dict[str, Any]]:
    """`items` as messages of the chat completions API.

    Args:
        items: a history.
        reasoning_back: which assistant messages get their ``reasoning_content`` back, for models
            that insist on it. Where nothing is known of it, an empty text is sent, which they
            accept. Others refuse the field.
        reasoning_details: send ``reasoning_details`` back on the message that they came with, for
            hosts that want them.
        host: the server; the fields of its messages that no document names go back to it.

    Raises:
        ValueError: an image cannot be read.
    """
    messages: list[dict[str, Any]] = []
    append = messages.append
    thoughtful: list[tuple[dict[str, Any], str]] = []
    called = False
    wants_state = reasoning_details or reasoning_back != "never" or bool(host)
    for turn in group_tool_calls(items):
        if not isinstance(turn, Group):
            entry = _message(turn)
            if turn.role == "assistant" and wants_state:
                thought = _state_of(entry, (turn,), reasoning_details, host)
                thoughtful.append((entry, thought))
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
            thoughtful.append((entry, _state_of(entry, carriers, reasoning_details, host)))
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
    host: str,
) -> str:
    """The reasoning that led to a message. Its opaque state is put on the message: with `details`
    those of the reasoning, and the unknown fields that came from `host`."""
    thought = ""
    for carrier in carriers:
        state: Any = carrier.extra.get("openai") if carrier is not None else None
        if not isinstance(state, dict):
            continue
        held = cast("dict[str, Any]", state)
        said: Any = held.get("reasoning_content")
        if not thought and isinstance(said, str):
            thought = said
        fields: Any = held.get("fields")
        if isinstance(fields, dict) and host and held.get("host") == host:
            for name, value in cast("dict[str, Any]", fields).items():
                entry.setdefault(name, value)
        found: Any = held.get("reasoning_details")
        if details and held.get("host", host) in (host, "") and isinstance(found, list) and found:
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
        entry = {"role": message.role, "content": ordered_content(message, _text, _image)}
    if message.extra and (state := _extra_content(message.extra)):
        entry["extra_content"] = state
    return entry


def _text(text: str) -> dict[str, Any]:
    return {"type": "text", "text": text}


def _image(image: ImageContent) -> dict[str, Any]:
    read = read_image(image)
    return {
        "type": "image_url",
        "image_url": {"url": image_url(read), "detail": read.inference_detail},
    }


def ordered_content(
    message: ChatMessage,
    write_text: Callable[[str], dict[str, Any]],
    write_image: Callable[[ImageContent], dict[str, Any]],
) -> str | list[dict[str, Any]]:
    """The content of a message: one text, or a list of parts where it holds images.

    The parts are in the order of the message, because texts speak of the images beside them
    ("before:", "after:"). Texts that follow each other are joined by newlines, without empty ones in
    front. Sound is not part of this dialect.
    """
    runs: list[list[str] | ImageContent] = [[]]
    for part in parts_of(message):
        last = runs[-1]
        if isinstance(part, str):
            if not isinstance(last, list):
                runs.append([part] if part else [])
            elif part or last:
                last.append(part)
        elif part.type == "image_content":
            runs.append(part)
    if len(runs) == 1:
        return "\n".join(cast("list[str]", runs[0]))
    parts: list[dict[str, Any]] = []
    for run in runs:
        if not isinstance(run, list):
            parts.append(write_image(run))
        elif text := "\n".join(run):
            parts.append(write_text(text))
    return parts


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
