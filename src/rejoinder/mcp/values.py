"""How many values a JSON text holds, counted as it arrives and without reading it; and how many are
in a message that comes as objects. Pure.

Reading JSON holds up the event loop for as long as it has values; its bytes hardly count, since a
picture or a table is one long text.
"""

from __future__ import annotations

import re
from typing import Any, Final, cast

__all__ = ["LARGE", "MAX_VALUES", "SLICE", "TOO_LARGE", "TOO_MANY", "ValueCounter", "is_crowded"]

MAX_VALUES: Final = 1 << 16
"""Values in one message, where an object or a list counts for three. Reading as many takes about 25
ms."""
TOO_MANY: Final = f"a message of more than {MAX_VALUES:,} values"
TOO_LARGE: Final = -31001
"""Code of the errors that stand for answers over a limit. JSON-RPC reserves other numbers."""
LARGE: Final = 1 << 17
"""Bytes. Nothing shorter holds many values."""
SLICE: Final = 1 << 14
"""Bytes to feed between two turns of the loop."""

_REST_OF_TEXT: Final = re.compile(rb'[^"\\]*(?:\\.[^"\\]*)*"', re.DOTALL)


class ValueCounter:
    """`feed` the bytes of one JSON text in pieces of any size.

    Attributes:
        values: commas and opening brackets outside of texts; a bracket counts for two.
    """

    __slots__ = ("_escaped", "_in_text", "values")

    def __init__(self) -> None:
        self.values = 0
        self._in_text = False
        self._escaped = False

    @property
    def crowded(self) -> bool:
        """Whether there are more values than `MAX_VALUES`."""
        return self.values > MAX_VALUES

    def feed(self, data: bytes) -> None:
        at, end = 0, len(data)
        while at < end:
            if not self._in_text:
                quote = data.find(b'"', at)
                stop = quote if quote >= 0 else end
                self.values += data.count(b",", at, stop)
                self.values += 2 * (data.count(b"{", at, stop) + data.count(b"[", at, stop))
                at = stop + 1
                self._in_text = quote >= 0
                continue
            if self._escaped:
                self._escaped = False
                at += 1
            rest = _REST_OF_TEXT.match(data, at)
            if rest is None:
                tail = data[at:]
                self._escaped = (len(tail) - len(tail.rstrip(b"\\"))) % 2 == 1
                return
            at = rest.end()
            self._in_text = False


def is_crowded(value: Any, most: int = MAX_VALUES) -> bool:
    """Whether `value`, as it is read from JSON, holds more than `most` values."""
    pending, count = [value], 0
    while pending:
        one = pending.pop()
        if isinstance(one, dict):
            members = list(cast("dict[str, Any]", one).values())
        elif isinstance(one, list):
            members = cast("list[Any]", one)
        else:
            continue
        count += 1 + (len(members) or 1)  # a bracket for two, and the commas
        if count > most:
            return True
        pending += [member for member in members if isinstance(member, dict | list)]
    return False
