"""Messages of the Messages API as items. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from copy import deepcopy
from typing import Any, cast

from rejoinder._core.items import ChatItem
from rejoinder._core.reading import (
    ItemReader,
    ReadResult,
    as_text,
    data_address,
    mappings,
    read_result,
    system_texts,
)
from rejoinder._core.unread import Unread
from rejoinder.providers.anthropic.state import FIELDS, OWN_FIELDS, STATE, THINKING, is_state

__all__ = ["from_messages", "known_block"]


def from_messages(messages: object, system: Any = None) -> list[ChatItem]:
    """Convert messages of the Messages API to items.

    Args:
        messages: as they are sent.
        system: the ``system`` beside them.

    Raises:
        ValueError: an entry is not a message of this API; the message names the place.
    """
    reader = ItemReader(system_texts(system), form="anthropic")
    for place, message in mappings(messages, "messages"):
        content: Any = message.get("content")
        if isinstance(content, str):
            content = [{"type": "text", "text": content}]
        blocks = list(mappings(content, f"{place}.content"))
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
        if block.get("type") != "tool_result":
            said.append(_part(place, block))
            continue
        found = _result(place, block.get("content"))
        reader.output(
            block.get("tool_use_id"),
            found.text,
            is_error=block.get("is_error") is True,
            images=found.images,
            kept=found.kept,
        )
        said += found.documents
    reader.user(said)


def _result(place: str, content: object) -> ReadResult:
    if content is None or isinstance(content, str):
        content = [{"type": "text", "text": content or ""}]
    return read_result(
        (_part(where, block), deepcopy(_unmarked(block)))
        for where, block in mappings(content, f"{place}.content")
    )


def _assistant(reader: ItemReader, blocks: list[tuple[str, Mapping[str, Any]]]) -> None:
    reader.turn()
    said: list[Any] = []
    before: list[dict[str, Any]] = []  # goes with the message, in order
    texts: list[dict[str, Any]] = []  # behind it, if anything follows that has to be in order
    state: list[dict[str, Any]] = []  # goes with what follows
    calls: list[tuple[Mapping[str, Any], dict[str, Any]]] = []
    for place, block in blocks:
        match block.get("type"):
            case "text":
                before += _ordered(texts, state)
                texts.append({"type": "text", "text": as_text(block.get("text", ""))})
                if block.get("citations"):
                    texts[-1]["citations"] = block["citations"]
                    before += _ordered(texts, [])
                said.append(_part(place, block))
            case "tool_use":
                fields = {
                    name: value
                    for name, value in block.items()
                    if name not in OWN_FIELDS and value is not None
                }
                calls.append((block, _state(state, fields)))
                state = []
            case "image" | "document":
                before += _ordered([], state)
                said.append(_part(place, block))
            case _ if is_state(block):
                state.append(dict(block))
            case kind if kind in THINKING:
                pass  # it is damaged, and the API would refuse it
            case _:
                before += _ordered([], state)
                said.append(_part(place, block))
    if state:
        before += _ordered(texts, state)
    if said or before or not calls:
        reader.message("assistant", said, _state(before, {}))
    for call, extra in calls:
        reader.call(call.get("id"), call.get("name"), call.get("input"), extra)


def _ordered(texts: list[dict[str, Any]], state: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """`state` and the texts before it, which are empty then."""
    if not state and not (texts and "citations" in texts[-1]):
        return []
    found = [*texts, *state]
    texts.clear()
    state.clear()
    return found


def _state(state: list[dict[str, Any]], fields: dict[str, Any]) -> dict[str, Any]:
    kept: dict[str, Any] = {STATE: state} if state else {}
    if fields:
        kept[FIELDS] = fields
    return {"anthropic": kept} if kept else {}


def _part(place: str, block: Mapping[str, Any]) -> Any:
    known = known_block(block, place)
    if known is not None and _is_whole(block):
        return known
    if not isinstance(block.get("type"), str) or not block["type"]:
        raise ValueError(f"{place}: expected a block with a `type`, got the keys {list(block)}")
    return Unread(deepcopy(_unmarked(block)), known)


def _unmarked(block: Mapping[str, Any]) -> dict[str, Any]:
    """A block without `cache_control`, which applies to one request only."""
    return {key: value for key, value in block.items() if key != "cache_control"}


def _is_whole(block: Mapping[str, Any]) -> bool:
    """Whether a block of a known type has only known members."""
    if block.get("type") == "document":
        return False  # converted to a document, it would lose its name
    told = {key for key, value in block.items() if value is not None}
    return told <= {"type", "cache_control", "text", "citations"} or told <= {
        "type",
        "cache_control",
        "source",
    }


def known_block(block: Mapping[str, Any], place: str = "") -> Any:
    """A block as text or image; ``None`` if it is neither."""
    kind = block.get("type")
    if kind == "text":
        return as_text(block.get("text", ""))
    source: Any = block.get("source")
    if kind in ("image", "document") and isinstance(source, Mapping):
        held = cast("Mapping[str, Any]", source)
        mime_type = held.get("media_type") or ("application/pdf" if kind == "document" else None)
        match held.get("type"):
            case "base64":
                image = data_address(held.get("data"), mime_type, place)
                return {"type": "image_content", "image": image}
            case "url":
                record = {"type": "image_content", "image": held.get("url")}
                return {**record, "mime_type": mime_type} if mime_type else record
            case _:
                pass
    return None
