"""Reads the content parts of OpenAI's two APIs, and keeps unknown parts.

Pure. A part is kept if the format would not write it back completely; see `rejoinder._core.unread`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from copy import deepcopy
from typing import Any, cast

from rejoinder._core.items import ImageContent
from rejoinder._core.reading import ReadResult, as_text, is_picture, mappings, read_result
from rejoinder._core.results import told_instead
from rejoinder._core.unread import Record, Unread

__all__ = ["arguments_of", "fields_of", "known_part", "read_content", "read_output"]

_TEXTS = frozenset({"text", "input_text", "output_text"})
_IMAGES = frozenset({"image_url", "input_image"})
_DETAILS = frozenset({"auto", "low", "high"})


def read_content(content: object, place: str) -> tuple[list[Any], list[Record]]:
    """The content of a message as our own types, and the parts to keep beside it.

    Raises:
        ValueError: the content is neither a text nor a list of parts.
    """
    if content is None:
        return [], []
    if isinstance(content, str):
        return [content], []
    read: list[Any] = []
    kept: list[Record] = []
    for at, (where, part) in enumerate(_parts_of(content, place)):
        known = known_part(where, part)
        if known is not None:
            read.append(known)
        if known is None or not _is_whole(part):
            entry: Record = {"at": at, "part": deepcopy(part)}
            kept.append(entry if known is None else {**entry, "read": True})
    return read, kept


def _parts_of(content: object, place: str) -> Iterator[tuple[str, Record]]:
    if not isinstance(content, list | tuple):
        raise ValueError(f"{place}: expected a text or a list, got {type(content).__name__}")
    # Some applications put bare strings among the parts.
    parts = [
        {"type": "text", "text": part} if isinstance(part, str) else part
        for part in cast("list[Any]", content)
    ]
    for where, part in mappings(parts, place):
        yield where, dict(part)


def read_output(content: object, place: str, *, pictures: bool) -> ReadResult:
    """The content of a tool's result.

    Args:
        content: a text, or a list of parts.
        place: its path, for errors.
        pictures: whether the format writes pictures in results.

    Raises:
        ValueError: the content is neither a text nor a list of parts.
    """
    if content is None or isinstance(content, str):
        return ReadResult(content or "", [], [], {})
    return read_result(
        ((_output_part(where, part), deepcopy(part)) for where, part in _parts_of(content, place)),
        pictures_last=pictures,
    )


def _output_part(place: str, part: Record) -> Any:
    known: Any = known_part(place, part)
    if isinstance(known, Mapping) and not is_picture(held := cast("Record", known)):
        # Results cannot hold documents.
        return Unread(part, told_instead(ImageContent.model_validate(held)))
    return cast("Any", known) if known is not None and _is_whole(part) else Unread(part, known)


def arguments_of(called: Mapping[str, Any]) -> Any:
    """The arguments of a call; the text that a custom tool takes is its ``input``."""
    return called.get("arguments", {"input": called.get("input")})


def fields_of(entry: Mapping[str, Any], known: frozenset[str]) -> Record:
    """The unknown members of a message."""
    return {
        name: deepcopy(value)
        for name, value in entry.items()
        if name not in known and value is not None
    }


def known_part(place: str, part: Mapping[str, Any]) -> Any:
    """A part as text or image; ``None`` if it is neither."""
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
    """Whether a part of a known type has only known members."""
    kind = part["type"]
    members = {name for name, value in part.items() if value not in (None, [], "")} - {"type"}
    if kind in _TEXTS:
        return members <= {"text"} and isinstance(part.get("text", ""), str)
    if kind not in _IMAGES:
        return False
    url: Any = part["image_url"]
    image = cast("Mapping[str, Any]", url) if isinstance(url, Mapping) else part
    return (
        members <= {"image_url", "detail"}
        and (image is part or set(image) <= {"url", "detail"})
        and image.get("detail") in (None, *_DETAILS)
    )


def _document(part: Mapping[str, Any]) -> Record | None:
    """An inline document or one at a URL; ``None`` for a file that is stored at the provider."""
    held: Any = part.get("file", part)
    if not isinstance(held, Mapping):
        return None
    file = cast("Mapping[str, Any]", held)
    url = file.get("file_data") or file.get("file_url")
    if not isinstance(url, str) or not url.startswith(("data:", "https:", "http:")):
        return None
    record = {"type": "image_content", "image": url}
    return record if url.startswith("data:") else {**record, "mime_type": "application/pdf"}
