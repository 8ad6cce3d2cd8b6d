"""Moves large pictures and sounds of messages out of the log, and back in. Pure."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Final, cast

__all__ = ["LARGE", "lift", "lower", "names_in"]

LARGE: Final = 8192
"""Bytes of JSON above which a part is stored separately."""
_MARK: Final = "kept_as"


def lift(data: Mapping[str, Any]) -> tuple[Mapping[str, Any], dict[str, bytes]]:
    """The `data` of an item with references instead of large parts, and these parts by name. A name is
    the SHA-256 of the content, so each picture is stored once."""
    content = data.get("content")
    if not isinstance(content, list):
        return data, {}
    kept: dict[str, bytes] = {}
    parts: list[Any] = []
    for part in cast("list[Any]", content):
        if isinstance(part, dict):
            text = json.dumps(part, separators=(",", ":")).encode()
            if len(text) > LARGE:
                name = _name_of(text)
                kept[name] = text
                kind = cast("dict[str, Any]", part).get("type")
                parts.append({"type": kind, _MARK: name, "size": len(text)})
                continue
        parts.append(part)
    return ({**data, "content": parts}, kept) if kept else (data, kept)


def names_in(datas: Iterable[Mapping[str, Any]]) -> set[str]:
    """The names of all references in the data of items."""
    return {name for data in datas for _, name in _references(data)}


def lower(data: Mapping[str, Any], kept: Mapping[str, bytes]) -> Mapping[str, Any]:
    """`data` with the parts instead of the references. A part that no longer exists, or whose content
    does not match its name, becomes a sentence."""
    references = list(_references(data))
    if not references:
        return data
    parts = list(cast("list[Any]", data["content"]))
    for place, name in references:
        found = kept.get(name)
        kind = str(parts[place].get("type") or "part").removesuffix("_content")
        if found is None:
            parts[place] = f"({kind} that is no longer kept)"
        elif _name_of(found) != name:
            parts[place] = f"({kind} whose content is damaged)"
        else:
            parts[place] = json.loads(found)
    return {**data, "content": parts}


def _name_of(content: bytes | str) -> str:
    # A damaged file may hold text where bytes were written.
    data = content if isinstance(content, bytes) else content.encode("utf-8", "replace")
    return hashlib.sha256(data).hexdigest()


def _references(data: Mapping[str, Any]) -> Iterator[tuple[int, str]]:
    content = data.get("content")
    if not isinstance(content, list):
        return
    for place, part in enumerate(cast("list[Any]", content)):
        if isinstance(part, dict):
            name: Any = cast("dict[str, Any]", part).get(_MARK)
            if isinstance(name, str):
                yield place, name
