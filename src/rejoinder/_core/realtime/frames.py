"""Reads the frames of all realtime services. Pure."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any, Final, cast

import msgspec

from rejoinder._core import jsontext

__all__ = ["TOLERATED", "read_frame"]

TOLERATED: Final = 1 << 19
"""Maximum size of a frame for the tolerant, slower reader."""

_decode: Final = msgspec.json.Decoder().decode


def read_frame(frame: bytes | str, *, pieces: Collection[str] = ()) -> dict[str, Any] | None:
    """The JSON object in a frame, read as tolerantly as `jsontext.decode`; ``None`` if the frame does
    not hold one.

    Halves of surrogate pairs become U+FFFD, except in the fields named in `pieces`: they hold pieces
    of a text, and the other half may arrive with the next piece.
    """
    try:
        found: object = _decode(frame)
    except (msgspec.MsgspecError, UnicodeError, RecursionError):
        if len(frame) > TOLERATED:
            return None
        try:
            found = _healed(jsontext.decode_tolerantly(frame), pieces)
        except (ValueError, RecursionError):
            return None
    return jsontext.as_mapping(found)


def _healed(value: Any, pieces: Collection[str]) -> Any:
    if isinstance(value, str):
        return jsontext.heal(value)
    if isinstance(value, dict):
        return {
            jsontext.heal(name): one
            if name in pieces and isinstance(one, str)
            else _healed(one, pieces)
            for name, one in cast("dict[str, Any]", value).items()
        }
    if isinstance(value, list):
        return [_healed(one, pieces) for one in cast("list[Any]", value)]
    return value
