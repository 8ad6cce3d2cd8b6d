"""Reads the bodies of responses that are not streams: error pages and JSON errors. Pure."""

from __future__ import annotations

import html
from collections.abc import Mapping
from typing import Any, Final, cast

from rejoinder._core import jsontext
from rejoinder._secrets import one_line

__all__ = ["plain_text", "read_json_object"]

_READ: Final = 20_000
_WORD: Final = 4096


def plain_text(body: bytes, *, limit: int = _READ) -> str:
    """The start of an error page as one readable line, without tags and runs of white space.

    The line is long; redact it, then `shorten` it.

    Args:
        limit: maximum bytes that are read. A word that is cut at the limit is omitted, because it
            may be half of a key.
    """
    text = body[:limit].decode("utf-8", "replace")
    if len(body) > limit:
        space = max(text.rfind(space, len(text) - _WORD) for space in " \n\t<>")
        text = text[: space if space >= 0 else -_WORD]
    if "<" in text:
        text = html.unescape(_without_tags(text))
    return one_line(text)


def _without_tags(page: str) -> str:
    """The text of a web page, in one pass. Patterns with a look-ahead would take quadratic time for a
    page with unclosed tags."""
    parts: list[str] = []
    lower = page.lower()
    position = 0
    while True:
        start = page.find("<", position)
        if start < 0:
            break
        parts.append(page[position:start])
        hidden = next(
            (name for name in ("script", "style") if lower.startswith(name, start + 1)), ""
        )
        end = lower.find(f"</{hidden}", start) if hidden else start
        end = page.find(">", end) if end >= 0 else -1
        if end < 0:
            position = start if not hidden else len(page)
            break
        position = end + 1
    parts.append(page[position:])
    return " ".join(parts)


_JSON_LIMIT: Final = 1 << 20


def read_json_object(body: bytes) -> Mapping[str, Any] | None:
    """`body` as a JSON object; the first object of an array; ``None`` for anything else, and for a
    body that is too long for an error."""
    if len(body) > _JSON_LIMIT:
        return None
    try:
        value = jsontext.decode(body)
    except ValueError:
        return None
    if isinstance(value, list):
        items = cast("list[Any]", value)
        value = items[0] if items else None
    return cast("Mapping[str, Any]", value) if isinstance(value, dict) else None
