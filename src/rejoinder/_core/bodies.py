"""Reads the bodies of answers that are not streams: error pages and JSON errors. Pure."""

from __future__ import annotations

import html
import re
from collections.abc import Mapping
from typing import Any, Final, cast

from rejoinder._core import jsontext

__all__ = ["plain_text", "read_json_object"]

_TAGS: Final = re.compile(r"<(script|style)\b.*?</\1\s*>|<[^>]*>", re.DOTALL | re.IGNORECASE)
_READ: Final = 20_000
_SHOWN: Final = 300


def plain_text(body: bytes, *, limit: int = _READ) -> str:
    """The start of an error page as one line for people: no tags, no runs of white space.

    Args:
        limit: bytes that are looked at. What is cut ends with dots: by them `redact` knows half of
            a key.
    """
    text = body[:limit].decode("utf-8", "replace")
    if "<" in text:
        text = html.unescape(_TAGS.sub(" ", text))
    text = " ".join(text.split())
    return text if len(text) <= _SHOWN and len(body) <= limit else text[:_SHOWN] + "..."


def read_json_object(body: bytes) -> Mapping[str, Any] | None:
    """`body` as a JSON object; the first object of an array; ``None`` for anything else."""
    try:
        value = jsontext.decode(body)
    except ValueError:
        return None
    if isinstance(value, list):
        items = cast("list[Any]", value)
        value = items[0] if items else None
    return cast("Mapping[str, Any]", value) if isinstance(value, dict) else None
