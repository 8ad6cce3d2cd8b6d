"""The arguments of a call that Gemini streams one member at a time, as a path and a value. Pure."""

from __future__ import annotations

import re
from typing import Any, Final, cast

from rejoinder._core import jsontext

__all__ = ["PartialArguments"]

_MAX_GAP: Final = 16
_MAX_DEPTH: Final = 100
_VALUES: Final = ("stringValue", "numberValue", "boolValue")


class PartialArguments:
    """The arguments so far.

    Attributes:
        members: the object that the entries describe.
    """

    __slots__ = ("_open", "_running", "members")

    def __init__(self, members: dict[str, Any]) -> None:
        self.members = members
        self._open: set[str] = set()
        self._running: dict[str, list[str]] = {}  # texts that go on, in pieces

    @property
    def unfinished(self) -> bool:
        """Whether a text was announced to continue, and its rest did not arrive."""
        return bool(self._open)

    def add(self, entry: dict[str, Any]) -> int:
        """Add one entry. Returns the number of bytes it keeps in memory; 0 if it cannot be stored."""
        path = jsontext.as_text(entry.get("jsonPath"))
        steps = _steps(path)
        if not steps:
            return 0
        name = next((name for name in _VALUES if name in entry), None)
        if name is None and "nullValue" not in entry:
            return 0
        value: Any = None if name is None else entry[name]
        if isinstance(value, str) and path in self._open:
            self._running[path].append(value)
            stored = True
        else:
            stored = _store(self.members, steps, value)
            self._running.pop(path, None)
        if entry.get("willContinue") is True and isinstance(value, str) and stored:
            if path not in self._running:
                self._running[path] = [value]
            self._open.add(path)
        else:
            self._open.discard(path)
        if not stored:
            return 0
        return len(path) + (4 * len(value) if isinstance(value, str) else 8)

    def text(self) -> str:
        """The arguments as JSON."""
        for path, pieces in self._running.items():
            _store(self.members, _steps(path), "".join(pieces))
        self._running.clear()
        return jsontext.encode(self.members).decode()


_STEP: Final = re.compile(
    r"""\.(?P<name>[^.\[\]'"]+)|\[(?P<index>\d{1,9})\]|\['(?P<single>[^']*)'\]|\["(?P<double>[^"]*)"\]"""
)


def _steps(path: str) -> list[str | int]:
    """``$.a[0].b`` as ``["a", 0, "b"]``; an empty list if it is not a path of this form."""
    if not path.startswith("$"):
        return []
    steps: list[str | int] = []
    position = 1
    while position < len(path):
        match = _STEP.match(path, position)
        if match is None or len(steps) >= _MAX_DEPTH:
            return []
        position = match.end()
        if match["index"] is not None:
            steps.append(int(match["index"]))
        else:
            steps.append(match["name"] or match["single"] or match["double"] or "")
    return steps


def _store(root: dict[str, Any], steps: list[str | int], value: Any) -> bool:
    """Store `value` at the path `steps`; create missing objects and arrays."""
    place: Any = root
    for number, step in enumerate(steps):
        inside: Any
        holder: Any = place
        if isinstance(step, int):
            if not isinstance(place, list):
                return False
            entries = cast("list[Any]", place)
            if step > len(entries) + _MAX_GAP:
                return False
            while len(entries) <= step:
                entries.append(None)
            inside = entries[step]
        else:
            if not isinstance(place, dict):
                return False
            inside = cast("dict[str, Any]", place).get(step)
        if number == len(steps) - 1:
            holder[step] = value
            return True
        if inside is None:
            inside = [] if isinstance(steps[number + 1], int) else {}
            holder[step] = inside
        place = inside
    return False
