"""Messages of chat completions as items. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, cast

from rejoinder._core.items import ChatItem
from rejoinder._core.reading import ItemReader, as_text, mappings

__all__ = ["content_of", "from_messages"]

_ROLES = {"function": "tool"}
_STATE = ("reasoning_content", "reasoning_details")
_EXTRA_CONTENT = ("google", "livekit", "xai")


def from_messages(messages: object, system: Any = None) -> list[ChatItem]:
    """The items that messages of the chat completions API hold.

    Args:
        messages: as they are sent.
        system: nothing stands beside them here.

    Raises:
        ValueError: an entry is not a message of this API; the text says where.
    """
    reader = ItemReader()
    for place, message in mappings(messages, "messages"):
        role = message.get("role")
        role = _ROLES.get(str(role), role)
        content = message.get("content")
        if role == "tool":
            text = "\n".join(map(as_text, content_of(content, f"{place}.content")))
            reader.output(message.get("tool_call_id"), text, name=message.get("name"))
        elif role == "assistant":
            _assistant(reader, message, place)
        elif role in ("system", "developer", "user"):
            reader.message(role, content_of(content, f"{place}.content"), _state(message))
        else:
            raise ValueError(f"{place}.role: expected a role of chat completions, got {role!r}")
    return reader.finish()


def _assistant(reader: ItemReader, message: Mapping[str, Any], place: str) -> None:
    reader.turn()
    content = content_of(message.get("content"), f"{place}.content")
    refusal = message.get("refusal")
    if isinstance(refusal, str) and refusal:
        content.append(refusal)
    state = _state(message)
    calls = message.get("tool_calls") or ()
    legacy = message.get("function_call")
    if content or state or not (calls or legacy):
        reader.message("assistant", content, state)
    for where, call in mappings(calls, f"{place}.tool_calls") if calls else ():
        inner: Any = call.get("function") or call.get("custom")
        if not isinstance(inner, Mapping):
            raise ValueError(f"{where}: expected `function` with name and arguments")
        called = cast("Mapping[str, Any]", inner)
        arguments = called.get("arguments", {"input": called.get("input")})
        reader.call(call.get("id"), called.get("name"), arguments, _state(call))
    if isinstance(legacy, Mapping):
        called = cast("Mapping[str, Any]", legacy)
        reader.call(None, called.get("name"), called.get("arguments"))


def _state(entry: Mapping[str, Any]) -> dict[str, Any]:
    extra: dict[str, Any] = {}
    held = {key: entry[key] for key in _STATE if entry.get(key)}
    if held:
        extra["openai"] = held
    more = entry.get("extra_content")
    if isinstance(more, Mapping):
        state = cast("Mapping[str, Any]", more)
        extra |= {key: state[key] for key in _EXTRA_CONTENT if key in state}
    return extra


def content_of(content: object, place: str) -> list[Any]:
    """The parts of a message as plain data of ours.

    Raises:
        ValueError: the content is neither a text nor a list of parts.
    """
    if content is None:
        return []
    if isinstance(content, str):
        return [content]
    if not isinstance(content, list | tuple):
        raise ValueError(f"{place}: expected a text or a list, got {type(content).__name__}")
    # Some write bare texts among the parts.
    parts = [
        {"type": "text", "text": part} if isinstance(part, str) else part
        for part in cast("list[Any]", content)
    ]
    return [_part(where, part) for where, part in mappings(parts, place)]


def _part(place: str, part: Mapping[str, Any]) -> Any:
    kind = part.get("type")
    if kind in ("text", "input_text", "output_text"):
        return as_text(part.get("text", ""))
    if kind == "refusal":
        return as_text(part.get("refusal", ""))
    if kind in ("image_url", "input_image") and part.get("image_url"):
        url: Any = part["image_url"]
        detail: Any = part.get("detail")
        if isinstance(url, Mapping):
            image = cast("Mapping[str, Any]", url)
            url, detail = image.get("url"), image.get("detail")
        record = {"type": "image_content", "image": url}
        return {**record, "inference_detail": detail} if detail in ("low", "high") else record
    if kind in ("file", "input_file"):
        return _document(part) or dict(part)
    if not isinstance(kind, str) or not kind:
        raise ValueError(f"{place}: expected a part with a `type`, got the keys {list(part)}")
    return dict(part)


def _document(part: Mapping[str, Any]) -> dict[str, Any] | None:
    """A document that stands in the message, or at an address; ``None``: it lies with the provider."""
    held: Any = part.get("file", part)
    if not isinstance(held, Mapping):
        return None
    file = cast("Mapping[str, Any]", held)
    url = file.get("file_data") or file.get("file_url")
    if not isinstance(url, str) or not url.startswith(("data:", "https:", "http:")):
        return None
    record = {"type": "image_content", "image": url}
    return record if url.startswith("data:") else {**record, "mime_type": "application/pdf"}
