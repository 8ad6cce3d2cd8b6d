"""JSON values that are handed out as copies. Pure."""

from __future__ import annotations

import copy
from typing import Any

import msgspec

__all__ = ["Frozen"]


class Frozen:
    """A JSON value that is handed out as fresh copies, many times cheaper than `copy.deepcopy`."""

    __slots__ = ("_packed", "_value")

    def __init__(self, value: Any) -> None:
        self._value: Any = None
        try:
            packed = msgspec.msgpack.encode(value)
            if msgspec.msgpack.decode(packed) != value:
                raise TypeError
            self._packed = packed
        except (TypeError, ValueError, OverflowError):
            # Holds something that is no JSON, e.g. an enum member in a raw schema.
            self._packed = b""
            self._value = copy.deepcopy(value)

    def copy(self) -> Any:
        if self._packed:
            return msgspec.msgpack.decode(self._packed)
        return copy.deepcopy(self._value)
