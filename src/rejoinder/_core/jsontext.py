"""Decodes and encodes the JSON that this package exchanges with providers.

Decoding is tolerant: msgspec comes first, because it is the fastest. What it refuses, the standard library
decodes if it can: lone surrogates, ``NaN``, a byte order mark, raw control characters, bytes that are not
UTF-8. Encoding is strict: the output is always valid JSON in valid UTF-8. Bad input raises only
`ValueError`, even if it is nested too deeply.
"""

from __future__ import annotations

import json
from typing import Any, cast

import msgspec

__all__ = [
    "as_list",
    "as_mapping",
    "as_text",
    "decode",
    "decode_tolerantly",
    "encode",
    "heal",
    "join_halves",
]

_decode = msgspec.json.Decoder().decode
_encode = msgspec.json.Encoder().encode


def decode(data: bytes | str, /) -> Any:
    """The value that the JSON text `data` stands for.

    Raises:
        ValueError: `data` is not JSON, even for the tolerant decoder.
    """
    try:
        return _decode(data)
    except (msgspec.MsgspecError, UnicodeError, RecursionError):
        pass
    return decode_tolerantly(data)


def decode_tolerantly(data: bytes | str, /) -> Any:
    """`decode` without its first attempt, for callers that already made it.

    Raises:
        ValueError: `data` is not JSON.
    """
    text = data if isinstance(data, str) else data.decode("utf-8", "replace")
    try:
        return json.loads(text.removeprefix("\ufeff"), strict=False)
    except RecursionError:
        raise ValueError("JSON is nested too deeply to be read") from None


def encode(obj: Any, /) -> bytes:
    """`obj` as compact JSON in UTF-8. ``NaN`` becomes ``null``, a lone surrogate U+FFFD.

    Raises:
        TypeError: `obj` holds something that has no JSON form.
    """
    try:
        return _encode(obj)
    except UnicodeEncodeError:
        return _encode(_healed(obj))


def as_mapping(value: object, /) -> dict[str, Any] | None:
    """`value` if it is a JSON object."""
    return value if isinstance(value, dict) else None  # pyright: ignore[reportUnknownVariableType]


def as_list(value: object, /) -> list[Any]:
    """`value` if it is a JSON array, else an empty list."""
    return value if isinstance(value, list) else []  # pyright: ignore[reportUnknownVariableType]


def as_text(value: object, /) -> str:
    """`value` if it is a string, else an empty one."""
    return value if isinstance(value, str) else ""


def heal(text: str, /) -> str:
    """`text` with split surrogate pairs joined, and U+FFFD for each lone half.

    A model that writes an emoji in two pieces sends half a pair in each. Halves cannot be printed or
    sent.
    """
    if text.isascii():
        return text
    try:
        text.encode()
    except UnicodeEncodeError:
        return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")
    return text


def join_halves(half: str, text: str, /) -> tuple[str, str]:
    """Join `text` to `half`, the half of a surrogate pair at the end of the previous piece. Return the
    healed text, and the half at the end of this piece."""
    text = half + text
    rest = ""
    if text and "\ud800" <= text[-1] <= "\udbff":
        text, rest = text[:-1], text[-1]
    return heal(text), rest


def _healed(obj: Any) -> Any:
    if isinstance(obj, str):
        return heal(obj)
    if isinstance(obj, dict):
        mapping = cast("dict[Any, Any]", obj)
        return {_healed(key): _healed(value) for key, value in mapping.items()}
    if isinstance(obj, (list, tuple)):
        return [_healed(value) for value in cast("list[Any]", obj)]
    return obj
