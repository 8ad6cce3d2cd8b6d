"""How many values a JSON text holds, counted as it arrives and without reading it; and how many are
in a message that comes as objects. Pure.

Reading JSON holds up the event loop for as long as it has values, and takes up to 30 times its size
in memory; its bytes hardly count, since a picture or a table is one long text.
"""

from __future__ import annotations

import re
from typing import Any, Final, cast

__all__ = [
    "LARGE",
    "MAX_VALUES",
    "SLICE",
    "ValueCounter",
    "is_crowded",
    "is_crowded_text",
    "may_be_crowded",
]

MAX_VALUES: Final = 1 << 16
"""Values in one message, where an object or a list counts for three. Reading as many takes about 25
ms."""
LARGE: Final = 1 << 17
"""Bytes. Nothing shorter holds many values."""
SLICE: Final = 1 << 14
"""Bytes to feed between two turns of the loop."""

_TEXT: Final = re.compile(rb'"[^"\\]*+(?:\\.[^"\\]*+)*+"', re.DOTALL)
_REST_OF_TEXT: Final = re.compile(rb'[^"\\]*+(?:\\.[^"\\]*+)*+"', re.DOTALL)
_END: Final = b'\0"'
"""Closes a text that goes on in the next piece; the first character may be escaped by that text. Behind
a piece that ends outside of a text it stays."""


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
        if self._escaped and data:
            data, self._escaped = data[1:], False
        if self._in_text:
            rest = _REST_OF_TEXT.match(data)
            if rest is None:
                self._escaped = self._escaped or _ends_with_escape(data)
                return
            data = data[rest.end() :]
        outside = _TEXT.sub(b"", data + _END)
        self._in_text = not outside.endswith(_END)
        self._escaped = self._in_text and _ends_with_escape(data)
        self.values += _marks(outside)


def _ends_with_escape(data: bytes) -> bool:
    return (len(data) - len(data.rstrip(b"\\"))) % 2 == 1


def _marks(data: bytes) -> int:
    return data.count(b",") + 2 * (data.count(b"{") + data.count(b"["))


def may_be_crowded(data: bytes | str) -> bool:
    """Whether the JSON text `data` may hold more than `MAX_VALUES` values. It counts commas and
    brackets in texts too, so that a megabyte takes less than a millisecond."""
    if len(data) <= LARGE:
        return False
    if isinstance(data, str):
        marks = data.count(",") + 2 * (data.count("{") + data.count("["))
    else:
        marks = _marks(data)
    return marks > MAX_VALUES


def is_crowded_text(text: bytes | str) -> bool:
    """Whether the JSON text holds more than `MAX_VALUES` values; what stands in its texts is none.
    The text may be broken."""
    if not may_be_crowded(text):
        return False
    counter = ValueCounter()
    counter.feed(text if isinstance(text, bytes) else text.encode("utf-8", "surrogatepass"))
    return counter.crowded


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
