"""Turns of the Gemini API as items, in camel or in snake case. Pure."""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Mapping, Sequence
from typing import Any, cast

from rejoinder._core.items import ChatItem
from rejoinder._core.reading import (
    ItemReader,
    as_text,
    data_address,
    is_picture,
    mappings,
    read_result,
    system_texts,
)
from rejoinder._core.unread import Unread
from rejoinder.providers.google.format import PICTURE_ALONE
from rejoinder.providers.google.options import camel
from rejoinder.providers.google.state import BEHIND, PARTS, SIGNATURE, parts_before_call

__all__ = ["from_contents", "known_part"]


def from_contents(messages: object, system: Any = None) -> list[ChatItem]:
    """Convert turns of the Gemini API to items.

    Thoughts (parts with ``thought: true``) without a signature are omitted, because they are not part
    of a conversation.

    Args:
        messages: the ``contents`` as they are sent.
        system: the ``systemInstruction`` beside them.

    Raises:
        ValueError: an entry is not a turn of this API; the message names the place.
    """
    reader = ItemReader(system_texts(system), form="google")
    for place, turn in mappings(messages, "contents"):
        parts = [
            (where, {camel(key): value for key, value in part.items()})
            for where, part in mappings(turn.get("parts") or [], f"{place}.parts")
        ]
        parts = [
            (where, part)
            for where, part in parts
            if part.get("thought") is not True or part.get("thoughtSignature")
        ]
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
        held = {camel(key): value for key, value in cast("Mapping[str, Any]", response).items()}
        output, failed = _output(held.get("response"))
        parts_of_it = [
            (_result_part(where, entry), _as_json(entry))
            for where, entry in mappings(held.get("parts") or [], f"{place}.functionResponse.parts")
        ]
        found = read_result(parts_of_it)
        if found.images and output == PICTURE_ALONE:
            output = ""
        further = {
            key: _as_json(value)
            for key, value in held.items()
            if key not in ("id", "name", "response", "parts") and value is not None
        }
        kept = found.kept
        if further or kept:
            # The kept state: the further members first, then the parts, with the text beside them.
            kept = read_result([(Unread(further), further), *parts_of_it]).kept
            kept["text"] = as_text(output)
        reader.output(
            held.get("id"),
            output,
            is_error=failed,
            name=held.get("name"),
            images=found.images,
            kept=kept,
        )
    reader.user(said)


def _result_part(place: str, part: Mapping[str, Any]) -> Any:
    read = _part(place, {camel(key): value for key, value in part.items()})
    known = read.known if isinstance(read, Unread) else read
    if isinstance(known, Mapping) and is_picture(cast("Mapping[str, Any]", known)):
        return read
    return Unread(_as_json(part))


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
    kept: list[dict[str, Any]] = []
    last: object = None
    calls: list[tuple[Mapping[str, Any], dict[str, Any]]] = []
    for place, part in parts:
        call: Any = part.get("functionCall")
        signature = _as_base64(part.get("thoughtSignature"))
        if isinstance(call, Mapping):
            state: dict[str, Any] = {SIGNATURE: signature} if signature else {}
            if kept and not said and not calls:
                state[PARTS], kept = kept, []
            elif (between := parts_before_call(kept)) is not None:
                state[PARTS], kept = between, kept[: kept.index(BEHIND)]
            calls.append((cast("Mapping[str, Any]", call), state))
            continue
        if calls and BEHIND not in kept:
            kept.append(dict(BEHIND))
        raw = _as_json({**part, "thoughtSignature": signature} if signature else part)
        kept.append(raw)
        text = part.get("text")
        if isinstance(text, str):
            last = signature or last
            if text and part.get("thought") is not True:
                said.append(text)
        elif signature is None and (known := known_part(part, place)) is not None:
            said.append(known)
        else:
            _kind_of(place, part)
    extra: dict[str, Any] = {}
    if any(part.keys() != {"text"} for part in kept) and not _pictures(said):
        extra[PARTS] = kept
    if last and said:
        extra[SIGNATURE] = last
    if calls and not said and PARTS in extra:  # there is no message to keep them
        first = calls[0][1]
        first[PARTS] = [*first.get(PARTS, ()), *extra.pop(PARTS)]
    if said or extra or not calls:
        reader.message("assistant", said, {"google": extra} if extra else None)
    for call, state in calls:
        further = {"google": state} if state else None
        reader.call(call.get("id"), call.get("name"), call.get("args"), further)


def _pictures(said: list[Any]) -> bool:
    """Whether the message has images, whose position matters."""
    return any(not isinstance(part, str) for part in said)


def _as_base64(signature: object) -> Any:
    return b64encode(signature).decode("ascii") if isinstance(signature, bytes) else signature


def _part(place: str, part: Mapping[str, Any]) -> Any:
    known = known_part(part, place)
    told = {key for key, value in part.items() if value is not None}
    if isinstance(known, str) or (known is not None and is_picture(known)):
        if len(told) == 1 and _BLOB.issuperset(map(camel, part.get("inlineData") or ())):
            return known
    elif known is None:
        _kind_of(place, part)
    return Unread(_as_json(part), known)


_BLOB = frozenset({"data", "mimeType"})


def _as_json(value: Any) -> Any:
    """A part with only JSON values."""
    if isinstance(value, Mapping):
        held = cast("Mapping[str, Any]", value)
        return {key: _as_json(entry) for key, entry in held.items()}
    if isinstance(value, list | tuple):
        return [_as_json(entry) for entry in cast("Sequence[Any]", value)]
    return _as_base64(value)


def _kind_of(place: str, part: Mapping[str, Any]) -> None:
    """Raise an error if `part` does not have exactly one kind."""
    kinds = [key for key in part if key not in _BESIDE]
    if len(kinds) != 1 and not part.get("thoughtSignature"):
        raise ValueError(f"{place}: expected a part of one kind, got the keys {list(part)}")


_BESIDE = frozenset(
    {"mediaResolution", "partMetadata", "thought", "thoughtSignature", "videoMetadata"}
)
"""Members of a part other than its content."""


def known_part(part: Mapping[str, Any], place: str = "") -> Any:
    """A part as text or image; ``None`` if it is neither."""
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
    return None
