"""Counts the values of a JSON text as it arrives, without parsing it, and those of parsed messages. Pure.

The time that parsing blocks the event loop depends on the number of values, and its memory can be 30
times the size of the text. The number of bytes hardly matters, because a picture or a table is one
long text.
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
"""Maximum values in one message, where an object or a list counts for three. Parsing this many takes
about 25 ms."""
LARGE: Final = 1 << 17
"""Bytes. Shorter texts cannot hold too many values."""
SLICE: Final = 1 << 14
"""Bytes to feed before yielding to the event loop."""

_TEXT: Final = re.compile(rb'"[^"\\]*+(?:\\.[^"\\]*+)*+"', re.DOTALL)
_REST_OF_TEXT: Final = re.compile(rb'[^"\\]*+(?:\\.[^"\\]*+)*+"', re.DOTALL)
_END: Final = b'\0"'
"""Appended to a piece, to close a text that continues in the next one. The text may end in a backslash,
which escapes the first character. If the piece ends outside of a text, both remain unmatched."""


class ValueCounter:
    """`feed` the bytes of one JSON text in pieces of any size.

    Attributes:
        values: commas and opening brackets outside of texts; a bracket counts as two.
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
    """Whether the JSON text `data` may hold more than `MAX_VALUES` values. Also counts commas and
    brackets inside texts, so a megabyte takes less than a millisecond."""
    if len(data) <= LARGE:
        return False
    if isinstance(data, str):
        marks = data.count(",") + 2 * (data.count("{") + data.count("["))
    else:
        marks = _marks(data)
    return marks > MAX_VALUES


def is_crowded_text(text: bytes | str) -> bool:
    """Whether the JSON text holds more than `MAX_VALUES` values. The content of its texts does not
    count. The text may be invalid."""
    if not may_be_crowded(text):
        return False
    counter = ValueCounter()
    counter.feed(text if isinstance(text, bytes) else text.encode("utf-8", "surrogatepass"))
    return counter.crowded


def is_crowded(value: Any, most: int = MAX_VALUES) -> bool:
    """Whether the parsed JSON `value` holds more than `most` values."""
    pending, count = [value], 0
    while pending:
        one = pending.pop()
        if isinstance(one, dict):
            members = list(cast("dict[str, Any]", one).values())
        elif isinstance(one, list):
            members = cast("list[Any]", one)
        else:
            continue
        count += 1 + (len(members) or 1)  # the bracket counts as two, plus the commas
        if count > most:
            return True
        pending += [member for member in members if isinstance(member, dict | list)]
    return False
