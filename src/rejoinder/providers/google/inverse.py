"""Turns of the Gemini API as items, in camel or in snake case. Pure."""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Mapping
from typing import Any, cast

from rejoinder._core.items import ChatItem
from rejoinder._core.reading import ItemReader, as_text, data_address, mappings, system_texts
from rejoinder.providers.google.options import camel

__all__ = ["from_contents"]


def from_contents(messages: object, system: Any = None) -> list[ChatItem]:
    """The items that turns of the Gemini API hold.

    Thoughts (parts with ``thought: true``) are not part of a conversation and left out.

    Args:
        messages: the ``contents`` as they are sent.
        system: the ``systemInstruction`` beside them.

    Raises:
        ValueError: an entry is not a turn of this API; the text says where.
    """
    reader = ItemReader(system_texts(system))
    for place, turn in mappings(messages, "contents"):
        parts = [
            (where, {camel(key): value for key, value in part.items()})
            for where, part in mappings(turn.get("parts") or [], f"{place}.parts")
        ]
        parts = [(where, part) for where, part in parts if part.get("thought") is not True]
        match turn.get("role", "user"):
            case "user" | "function" | "tool":
                _user(reader, parts)
            case "model":
                _model(reader, parts)
            case role:
                raise ValueError(f"{place}.role: expected 'user' or 'model', got {role!r}")
    return reader.finish()


def _user(reader: ItemReader, parts: list[tuple[str, dict[str, Any]]]) -> None:
    said: list[Any] = []
    for place, part in parts:
        response: Any = part.get("functionResponse")
        if not isinstance(response, Mapping):
            said.append(_part(place, part))
            continue
        held = cast("Mapping[str, Any]", response)
        output, failed = _output(held.get("response"))
        reader.output(held.get("id"), output, is_error=failed, name=held.get("name"))
    reader.user(said)


def _output(response: object) -> tuple[object, bool]:
    if response is None:
        return "", False
    held: Any = cast("Any", response) if isinstance(response, Mapping) else {}
    for key, failed in (("output", False), ("result", False), ("error", True)):
        if list(held) == [key]:
            return held[key], failed
    return cast("object", response), False


def _model(reader: ItemReader, parts: list[tuple[str, dict[str, Any]]]) -> None:
    reader.turn()
    said: list[Any] = []
    signature: object = None
    calls: list[tuple[Mapping[str, Any], dict[str, Any]]] = []
    for place, part in parts:
        call: Any = part.get("functionCall")
        if isinstance(call, Mapping):
            calls.append((cast("Mapping[str, Any]", call), _state(part.get("thoughtSignature"))))
        else:
            said.append(_part(place, part))
            signature = part.get("thoughtSignature", signature)
    if said or not calls:
        reader.message("assistant", said, _state(signature))
    for call, extra in calls:
        reader.call(call.get("id"), call.get("name"), call.get("args"), extra)


def _state(signature: object) -> dict[str, Any]:
    if isinstance(signature, bytes):
        signature = b64encode(signature).decode("ascii")
    return {"google": {"thought_signature": signature}} if signature else {}


def _part(place: str, part: Mapping[str, Any]) -> Any:
    if isinstance(part.get("text"), str):
        return part["text"]
    for kind in ("inlineData", "fileData"):
        found: Any = part.get(kind)
        if not isinstance(found, Mapping):
            continue
        held = {camel(key): value for key, value in cast("Mapping[str, Any]", found).items()}
        if kind == "inlineData":
            image = data_address(held.get("data"), held.get("mimeType"), place)
            return {"type": "image_content", "image": image}
        address = {"type": "image_content", "image": as_text(held.get("fileUri"))}
        return {**address, "mime_type": held.get("mimeType")}
    kinds = [key for key in part if key != "thoughtSignature"]
    if len(kinds) != 1:
        raise ValueError(f"{place}: expected a part of one kind, got the keys {list(part)}")
    return {"type": f"google.{kinds[0]}", "part": dict(part)}
