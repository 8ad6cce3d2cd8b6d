"""What was kept of a provider's messages, put back into its place. Pure.

See `rejoinder._core.unread`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from copy import deepcopy
from typing import Any, TypeAlias, cast

from rejoinder._core.items import ChatContent

__all__ = ["Record", "kept_list", "kept_of", "output_as_read", "place_kept"]

Record: TypeAlias = dict[str, Any]


def kept_list(kept: Mapping[str, Any], name: str) -> list[Record]:
    """The entries of a member of what was kept."""
    found: Any = kept.get(name)
    entries = cast("list[Any]", found) if isinstance(found, list) else []
    return [cast("Record", entry) for entry in entries if isinstance(entry, dict)]


def kept_of(kept: Mapping[str, Any], name: str) -> Record:
    """A member of what was kept, a copy that the caller may change."""
    found: Any = kept.get(name)
    return deepcopy(cast("Record", found)) if isinstance(found, dict) else {}


def output_as_read(kept: Mapping[str, Any], text: str) -> list[Any] | None:
    """The content of an output as it was written; ``None`` if it says something else now."""
    output = kept_of(kept, "output")
    content: Any = output.get("content")
    if not isinstance(content, list) or output.get("text") != text:
        return None
    return cast("list[Any]", content)


def place_kept(
    content: Sequence[ChatContent],
    kept: Sequence[Record],
    write: Callable[[ChatContent], Record | None],
    read: Callable[[Record], Any],
) -> list[Record]:
    """The parts of `content` with those that were kept in their places.

    Args:
        content: of the message as it is now.
        kept: see `rejoinder._core.unread`.
        write: writes a part of ours; ``None`` for one that has no place in the format.
        read: reads a part of the provider as one of ours; ``None`` for one that we do not know.
    """
    rest = list(content)
    parts: list[Record] = []

    def write_next() -> None:
        part = write(rest.pop(0))
        if part is not None:
            parts.append(part)

    for entry in kept:
        part, at = entry.get("part"), entry.get("at")
        if not isinstance(part, dict) or not isinstance(at, int):
            continue
        raw = cast("Record", part)
        while rest and len(parts) < at:
            write_next()
        known = read(raw)
        if known is None:
            parts.append(deepcopy(raw))
        elif rest and _says(rest[0], known):
            rest.pop(0)
            parts.append(deepcopy(raw))
        # Otherwise its text or image was changed or taken out, and that is what is sent.
    while rest:
        write_next()
    return parts


def _says(part: ChatContent, known: Any) -> bool:
    if isinstance(part, str) or isinstance(known, str):
        return part == known
    return part.type == "image_content" and part.image == known["image"]
