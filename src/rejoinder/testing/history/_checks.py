"""Shared parts of all checkers: the list of problems with their paths, and checks of values."""

from __future__ import annotations

import binascii
import json
import re
from base64 import b64decode
from collections.abc import Iterator, Mapping
from typing import Any, TypeAlias, cast

IMAGE_TYPES = ("image/gif", "image/jpeg", "image/png", "image/webp")
NAME = re.compile(r"[a-zA-Z0-9_-]{1,64}")


class HistoryCheck:
    """One run of one checker: collects problems, each with its path."""

    keys: tuple[str, ...] = ("messages",)
    """The member of a body that holds the messages."""
    system_keys: tuple[str, ...] = ()
    takes_text = False
    continues = False
    """The body refers to an earlier response, so it need not hold the whole history."""

    def __init__(self, *, prefill: bool, thinking: bool, signatures: bool) -> None:
        self.prefill = prefill
        self.thinking = thinking
        self.signatures = signatures
        self.problems: list[str] = []

    def add(self, path: str, problem: str) -> None:
        self.problems.append(f"{path}: {problem}" if path else problem)

    def body(self, body: Mapping[str, Any]) -> None:
        """Check the rest of a body."""

    def system(self, system: Any) -> None:
        blocks: list[Any] = cast("list[Any]", system) if isinstance(system, list) else [system]
        for at, block in enumerate(blocks):
            text = get(block, "text") if isinstance(block, dict) else block
            if isinstance(text, str) and is_blank(text):
                self.add(f"system[{at}]", "blank text")

    def run(self, messages: list[Any]) -> None:
        raise NotImplementedError

    # -- shared checks of values

    def strings(self, value: Any, path: str) -> None:
        """Report halves of surrogate pairs, which UTF-8 cannot encode. Not recursive, because
        arguments of calls can be nested deeper than Python's stack."""
        left: list[tuple[Any, _Place]] = [(value, (None, path))]
        seen: set[int] = set()  # of what holds others: it may hold itself
        while left:
            held, place = left.pop()
            mark = id(held)
            if isinstance(held, str):
                if not held.isascii():
                    try:
                        held.encode()
                    except UnicodeEncodeError:
                        self.add(_path(place), "half a surrogate pair")
            elif mark in seen:
                continue
            elif isinstance(held, dict):
                seen.add(mark)
                entries = list(cast("dict[Any, Any]", held).items())
                for key, entry in reversed(entries):
                    left += (entry, (place, f".{key}")), (key, place)
            elif isinstance(held, list):
                seen.add(mark)
                entries = cast("list[Any]", held)
                left += ((entries[at], (place, f"[{at}]")) for at in reversed(range(len(entries))))

    def is_dict(self, value: Any, path: str) -> bool:
        if isinstance(value, dict):
            return True
        self.add(path, f"expected an object, got {type(value).__name__}")
        return False

    def is_match(self, value: Any, pattern: re.Pattern[str], path: str) -> bool:
        if isinstance(value, str) and pattern.fullmatch(value):
            return True
        self.add(path, f"expected text like {pattern.pattern}, got {shown(value)}")
        return False

    def json_object(self, text: Any, path: str) -> None:
        if not isinstance(text, str):
            self.add(path, f"expected JSON as text, got {type(text).__name__}")
            return
        try:
            value = json.loads(text)
        except (ValueError, RecursionError):
            self.add(path, f"not JSON: {shown(text)}")
            return
        if not isinstance(value, dict):
            self.add(path, f"expected a JSON object, got {shown(text)}")

    def image_url(self, url: Any, path: str) -> None:
        if not isinstance(url, str) or not url:
            self.add(path, f"expected an address, got {shown(url)}")
        elif url.startswith("data:"):
            head, comma, data = url.partition(",")
            mime_type = head[5:].partition(";")[0]
            if mime_type not in IMAGE_TYPES or not comma or not head.endswith(";base64"):
                self.add(path, f"expected a base64 image, got {head}")
            else:
                self.base64(data, path)
        elif not url.startswith(("http://", "https://")):
            self.add(path, f"expected an http or data address, got {shown(url)}")

    def base64(self, data: Any, path: str) -> None:
        if isinstance(data, bytes):
            if not data:
                self.add(path, "no bytes")
            return
        if not isinstance(data, str) or not data:
            self.add(path, f"expected base64, got {shown(data)}")
            return
        if data.startswith("<ELIDED"):
            return
        try:
            b64decode(data, validate=True)
        except (binascii.Error, ValueError):
            self.add(path, "not base64")

    def image_bytes(self, data: Any, mime_type: Any, path: str) -> None:
        """Check that image data, as base64 or bytes, does not begin as another type than declared."""
        self.base64(data, path)
        start = data if isinstance(data, bytes) else _first_bytes(data)
        for actual, mark in _IMAGE_STARTS.items():
            if mark.match(start) and mime_type != actual:
                self.add(path, f"declared as {shown(mime_type)}, but the bytes are {actual}")

    def list_of(self, value: Any, path: str) -> Iterator[tuple[str, dict[str, Any]]]:
        """The objects in a list, each with its path. Reports all other elements."""
        if not isinstance(value, list):
            self.add(path, f"expected a list, got {type(value).__name__}")
            return
        for at, held in enumerate(cast("list[Any]", value)):
            where = f"{path}[{at}]"
            if self.is_dict(held, where):
                yield where, held


_IMAGE_STARTS = {
    "image/gif": re.compile(rb"GIF8"),
    "image/jpeg": re.compile(rb"\xff\xd8\xff"),
    "image/png": re.compile(rb"\x89PNG"),
    "image/webp": re.compile(rb"RIFF....WEBP", re.DOTALL),
}


def _first_bytes(data: Any) -> bytes:
    try:
        return b64decode(data[:16], validate=True) if isinstance(data, str) else b""
    except (binascii.Error, ValueError):
        return b""


_Place: TypeAlias = "tuple[_Place | None, str]"
"""The place of a value: the place of its container, and its own part of the path."""


def _path(place: _Place) -> str:
    parts: list[str] = []
    rest: _Place | None = place
    while rest is not None:
        rest, part = rest
        parts.append(part)
    if len(parts) > 20:
        parts[10:-10] = ["..."]
    return "".join(reversed(parts))


def get(value: Any, *keys: str) -> Any:
    """The first of `keys` that the object holds."""
    if isinstance(value, dict):
        for key in keys:
            if key in value:
                return cast("dict[str, Any]", value)[key]
    return None


def is_blank(text: str) -> bool:
    return not text or text.isspace()


def shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


# ---------------------------------------------------------------------------------------------
