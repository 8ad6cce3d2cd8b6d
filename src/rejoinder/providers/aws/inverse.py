"""Messages of Bedrock's Converse as items. Pure."""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Mapping, Sequence
from typing import Any, cast

from rejoinder._core.items import ChatItem
from rejoinder._core.reading import (
    ItemReader,
    as_text,
    data_address,
    mappings,
    read_result,
    system_texts,
)
from rejoinder._core.unread import Unread
from rejoinder.providers.aws.format import DOCUMENTS

__all__ = ["from_messages", "known_block"]

_TYPES = {ending: kind for kind, ending in DOCUMENTS.items()}


def from_messages(messages: object, system: Any = None) -> list[ChatItem]:
    """Convert messages of Converse to items.

    Args:
        messages: as they are sent.
        system: the ``system`` beside them.

    Raises:
        ValueError: an entry is not a message of this API; the message names the place.
    """
    reader = ItemReader(system_texts(system), form="aws")
    for place, message in mappings(messages, "messages"):
        blocks = [
            (where, block)
            for where, block in mappings(message.get("content"), f"{place}.content")
            if "cachePoint" not in block
        ]
        match message.get("role"):
            case "user":
                _user(reader, blocks)
            case "assistant":
                _assistant(reader, blocks)
            case role:
                raise ValueError(f"{place}.role: expected 'user' or 'assistant', got {role!r}")
    return reader.finish()


def _user(reader: ItemReader, blocks: list[tuple[str, Mapping[str, Any]]]) -> None:
    said: list[Any] = []
    for place, block in blocks:
        result: Any = block.get("toolResult")
        if not isinstance(result, Mapping):
            said.append(_part(place, block))
            continue
        held = cast("Mapping[str, Any]", result)
        found = read_result(
            (_result_part(where, part), _written(part))
            for where, part in mappings(held.get("content") or [], f"{place}.toolResult.content")
        )
        reader.output(
            held.get("toolUseId"),
            found.text,
            is_error=held.get("status") == "error",
            images=found.images,
            kept=found.kept,
        )
        said += found.documents
    reader.user(said)


def _result_part(place: str, block: Mapping[str, Any]) -> Any:
    if "json" in block:
        return Unread(_written(block), as_text(block["json"]))
    return _part(place, block)


def _assistant(reader: ItemReader, blocks: list[tuple[str, Mapping[str, Any]]]) -> None:
    reader.turn()
    said: list[Any] = []
    before: list[Any] = []
    reasoning: list[Any] = []
    calls: list[tuple[Mapping[str, Any], dict[str, Any]]] = []
    told = 0  # how much of `said` stands before the reasoning that is kept
    for place, block in blocks:
        use: Any = block.get("toolUse")
        if "reasoningContent" in block:
            reasoning.append(_reasoning(block))
        elif isinstance(use, Mapping):
            calls.append((cast("Mapping[str, Any]", use), _state(reasoning)))
            reasoning = []
        else:
            part = _part(place, block)
            if isinstance(part, Unread) and part.known is None:
                reasoning.append(part.part)
                continue
            if reasoning:
                texts = "".join(text for text in said[told:] if isinstance(text, str))
                before += [*([{"text": texts}] if texts else []), *reasoning]
                told, reasoning = len(said), []
            said.append(part)
    if reasoning and (not calls or any("reasoningContent" not in entry for entry in reasoning)):
        texts = "".join(text for text in said[told:] if isinstance(text, str))
        before += [*([{"text": texts}] if texts else []), *reasoning]
    if said or before or not calls:
        reader.message("assistant", said, _state(before))
    for call, extra in calls:
        reader.call(call.get("toolUseId"), call.get("name"), call.get("input"), extra)


def _written(value: Any) -> Any:
    """The content of a block, with only JSON values."""
    if isinstance(value, Mapping):
        held = cast("Mapping[str, Any]", value)
        return {key: _written(entry) for key, entry in held.items()}
    if isinstance(value, list | tuple):
        return [_written(entry) for entry in cast("Sequence[Any]", value)]
    if isinstance(value, bytes | bytearray):
        return b64encode(value).decode("ascii")
    return value


def _reasoning(block: Mapping[str, Any]) -> dict[str, Any]:
    """A block of reasoning, with only JSON values."""
    return {"reasoningContent": _written(block["reasoningContent"])}


def _state(reasoning: list[Any]) -> dict[str, Any]:
    return {"aws": {"reasoning": reasoning}} if reasoning else {}


def _part(place: str, block: Mapping[str, Any]) -> Any:
    known = known_block(block, place)
    if known is not None and "document" not in block:
        return known
    if len(block) != 1:
        raise ValueError(f"{place}: expected a block of one member, got the keys {list(block)}")
    return Unread(_written(block), known)


def known_block(block: Mapping[str, Any], place: str = "") -> Any:
    """A block as text or image; ``None`` if it is neither."""
    if "text" in block:
        return as_text(block["text"])
    for kind in ("image", "document"):
        held: Any = block.get(kind)
        source: Any = cast("Any", held).get("source") if isinstance(held, Mapping) else None
        if isinstance(source, Mapping) and "bytes" in source:
            ending = str(cast("Any", held).get("format") or "jpeg")
            mime_type = f"image/{ending}" if kind == "image" else _TYPES.get(ending)
            data = cast("Mapping[str, Any]", source)["bytes"]
            return {"type": "image_content", "image": data_address(data, mime_type, place)}
    return None
