"""Parts of a message in the words of OpenAI's two APIs: read, and those that we do not know kept.

Pure. A part is kept when the format would not write it back whole, see `rejoinder._core.unread`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from copy import deepcopy
from typing import Any, TypeAlias, cast

from rejoinder._core.items import ChatContent
from rejoinder._core.reading import as_text, mappings

__all__ = [
    "arguments_of",
    "content_of",
    "fields_of",
    "kept_list",
    "kept_of",
    "place_kept",
    "read_content",
]

Record: TypeAlias = dict[str, Any]

_TEXTS = frozenset({"text", "input_text", "output_text"})
_IMAGES = frozenset({"image_url", "input_image"})
_DETAILS = frozenset({"auto", "low", "high"})


def read_content(content: object, place: str) -> tuple[list[Any], list[Record]]:
    """The content of a message as plain data of ours, and the parts to keep beside it.

    Raises:
        ValueError: the content is neither a text nor a list of parts.
    """
    if content is None:
        return [], []
    if isinstance(content, str):
        return [content], []
    if not isinstance(content, list | tuple):
        raise ValueError(f"{place}: expected a text or a list, got {type(content).__name__}")
    # Some write bare texts among the parts.
    parts = [
        {"type": "text", "text": part} if isinstance(part, str) else part
        for part in cast("list[Any]", content)
    ]
    read: list[Any] = []
    kept: list[Record] = []
    for at, (where, part) in enumerate(mappings(parts, place)):
        known = _known(where, part)
        if known is not None:
            read.append(known)
        if known is None or not _is_whole(part):
            entry: Record = {"at": at, "part": deepcopy(dict(part))}
            kept.append(entry if known is None else {**entry, "read": True})
    return read, kept


def content_of(content: object, place: str) -> list[Any]:
    """The content of a message with the parts that we do not know among it, as they are.

    Raises:
        ValueError: the content is neither a text nor a list of parts.
    """
    read, kept = read_content(content, place)
    for entry in kept:
        if _known("", entry["part"]) is None:
            read.insert(entry["at"], entry["part"])
    return read


def arguments_of(called: Mapping[str, Any]) -> Any:
    """The arguments of a call; the text that a custom tool takes is its ``input``."""
    return called.get("arguments", {"input": called.get("input")})


def fields_of(entry: Mapping[str, Any], known: frozenset[str]) -> Record:
    """The members of a message that we do not know."""
    return {
        name: deepcopy(value)
        for name, value in entry.items()
        if name not in known and value is not None
    }


def _known(place: str, part: Mapping[str, Any]) -> Any:
    """A part as text or image; ``None``: it is neither."""
    kind = part.get("type")
    if kind in _TEXTS:
        return as_text(part.get("text", ""))
    if kind == "refusal":
        return as_text(part.get("refusal", ""))
    if kind in _IMAGES and part.get("image_url"):
        url: Any = part["image_url"]
        detail: Any = part.get("detail")
        if isinstance(url, Mapping):
            image = cast("Mapping[str, Any]", url)
            url, detail = image.get("url"), image.get("detail")
        if not isinstance(url, str):
            raise ValueError(f"{place}: expected the address of an image, got {type(url).__name__}")
        record = {"type": "image_content", "image": url}
        return {**record, "inference_detail": detail} if detail in ("low", "high") else record
    if kind in ("file", "input_file"):
        return _document(part)
    if not isinstance(kind, str) or not kind:
        raise ValueError(f"{place}: expected a part with a `type`, got the keys {list(part)}")
    return None


def _is_whole(part: Mapping[str, Any]) -> bool:
    """Whether a part that we know holds nothing but what we know."""
    kind = part["type"]
    told = {name for name, value in part.items() if value not in (None, [], "")} - {"type"}
    if kind in _TEXTS:
        return told <= {"text"} and isinstance(part.get("text", ""), str)
    if kind not in _IMAGES:
        return False
    url: Any = part["image_url"]
    image = cast("Mapping[str, Any]", url) if isinstance(url, Mapping) else part
    return (
        told <= {"image_url", "detail"}
        and (image is part or set(image) <= {"url", "detail"})
        and image.get("detail") in (None, *_DETAILS)
    )


def _document(part: Mapping[str, Any]) -> Record | None:
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


# -- back again


def kept_list(kept: Mapping[str, Any], name: str) -> list[Record]:
    """The entries of a member of what was kept."""
    found: Any = kept.get(name)
    entries = cast("list[Any]", found) if isinstance(found, list) else []
    return [cast("Record", entry) for entry in entries if isinstance(entry, dict)]


def kept_of(kept: Mapping[str, Any], name: str) -> Record:
    """A member of what was kept, a copy that the caller may change."""
    found: Any = kept.get(name)
    return deepcopy(cast("Record", found)) if isinstance(found, dict) else {}


def place_kept(
    content: Sequence[ChatContent],
    kept: Sequence[Record],
    write: Callable[[ChatContent], Record | None],
) -> list[Record]:
    """The parts of `content` with those that were kept in their places.

    Args:
        content: of the message as it is now.
        kept: as `read_content` returned them.
        write: writes a part of ours; ``None`` for one that has no place in the format.
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
        known = _known("", raw)
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
