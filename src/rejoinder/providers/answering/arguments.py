"""Assembles the arguments of one tool call from a server's pieces. Pure.

Most servers send deltas. Others send growing snapshots, an empty object before the first argument, or
the whole text again at the end. Only the whole text shows which of these a server does. Takes linear
time: a text is parsed only when its brackets show that it has ended.
"""

from __future__ import annotations

import itertools
import json
import logging
import re
from collections.abc import Sequence
from typing import Any, Final, cast

from rejoinder._core import jsontext

__all__ = ["Arguments", "canonical", "extends", "is_object", "warn_cut_call"]

logger = logging.getLogger("rejoinder")

_OUTSIDE: Final = re.compile(r'["{}\[\]]')
_INSIDE: Final = re.compile(r'["\\]')
_PLACEHOLDERS: Final = re.compile(r'(?:\s*(?:\{\}|null|""))+\s*')
"""Placeholders for arguments that follow."""
_MAX_ENCODINGS: Final = 4
_MAX_DEPTH: Final = 64
_MAX_PLACEHOLDER: Final = 64


def is_object(text: str) -> bool:
    """Whether `text` is a whole JSON object, possibly inside a JSON string. ``null`` counts, too,
    because the tool reads it as an empty object."""
    value: Any = text
    for _ in range(_MAX_ENCODINGS):
        try:
            value = jsontext.decode(value)
        except ValueError:
            return False
        if not isinstance(value, str):
            return value is None or isinstance(value, dict)
    return False


def _are_snapshots(pieces: Sequence[str]) -> bool:
    """Whether each piece is a whole object that contains the previous one."""
    return all(map(is_object, pieces)) and all(
        _PLACEHOLDERS.fullmatch(before) or extends(after, before)
        for before, after in itertools.pairwise(pieces)
    )


def canonical(text: str) -> str:
    """A text that is equal for all spellings of the same arguments."""
    if not text.strip():
        return "{}"
    try:
        return json.dumps(jsontext.decode(text), sort_keys=True)
    except (ValueError, RecursionError):
        return text


def extends(new: str, old: str) -> bool:
    """Whether the object in the JSON text `new` contains that of `old`, whose values may be shorter.
    Then both are snapshots of the same call."""
    try:
        return _grown(jsontext.decode(new), jsontext.decode(old), 0)
    except ValueError:
        return False


def _grown(new: Any, old: Any, depth: int) -> bool:
    if depth > _MAX_DEPTH:
        return new == old
    if isinstance(old, dict) and isinstance(new, dict):
        before, after = cast("dict[str, Any]", old), cast("dict[str, Any]", new)
        return all(
            name in after and _grown(after[name], value, depth + 1)
            for name, value in before.items()
        )
    if isinstance(old, list) and isinstance(new, list):
        first, second = cast("list[Any]", old), cast("list[Any]", new)
        return len(first) <= len(second) and all(
            _grown(after, before, depth + 1) for before, after in zip(first, second, strict=False)
        )
    if isinstance(old, str) and isinstance(new, str):
        return new.startswith(old)
    return bool(new == old)


class Arguments:
    """The pieces of one call's arguments, in the order in which they came."""

    __slots__ = (
        "_closed",
        "_depth",
        "_escaped",
        "_growing",
        "_overrun",
        "_repeated",
        "_scanned",
        "_size",
        "_text",
        "_whole",
        "pieces",
    )

    def __init__(self) -> None:
        self.pieces: list[str] = []
        self._clear()

    def _clear(self) -> None:
        self._scanned = 0  # pieces that the scan of brackets has seen
        self._depth = 0
        self._text = False
        self._escaped = False
        self._closed = False  # the first bracket that opened has closed
        self._overrun = False  # something follows it
        self._growing = True  # each piece begins with the one before
        self._repeated = False  # the last piece begins with all that came before it
        self._size = 0
        self._whole: tuple[int, str | None] = (-1, None)

    def __bool__(self) -> bool:
        return bool(self.pieces)

    def add(self, piece: str) -> bool:
        """Add a piece. Returns whether it is output. White space between tokens is not, because a
        grammar allows an unlimited amount."""
        if not piece:
            return False
        pieces = self.pieces
        if pieces:
            if self._growing:
                self._growing = piece.startswith(pieces[-1])
            # Such pieces at least double the text, so all comparisons together are linear.
            self._repeated = len(piece) >= self._size and piece.startswith("".join(pieces))
        pieces.append(piece)
        self._size += len(piece)
        if not piece.isspace():
            return True
        self._scan()
        return self._text

    def replace(self, text: str) -> None:
        """Forget the pieces: `text` contains them all."""
        self.pieces = [text]
        self._clear()
        self._size = len(text)

    def whole(self) -> str | None:
        """The arguments as one JSON object, or ``None`` if they are not whole (yet)."""
        pieces = self.pieces
        if not pieces:
            return None
        count, text = self._whole
        if count != len(pieces):
            text = self._find_whole()
            self._whole = (len(pieces), text)
        return text

    def text(self) -> str:
        """The arguments at the end of the reply: one JSON object, if the pieces can be read as one;
        otherwise the unchanged pieces."""
        found = self._settle()
        return "".join(self.pieces) if found is None else found

    def _find_whole(self) -> str | None:
        last = self.pieces[-1]
        if len(self.pieces) > 1 and (self._growing or self._repeated) and is_object(last):
            return last
        self._scan()
        # Join and parse only if the brackets allow it, which is about once per call.
        return self._settle() if self._closed and not self._overrun else None

    def _settle(self) -> str | None:
        pieces = self.pieces
        joined = "".join(pieces)
        if is_object(joined):
            return joined
        last = pieces[-1] if pieces else ""
        if len(pieces) > 1 and (self._growing or self._repeated) and is_object(last):
            return last
        # Servers that stream decoded objects begin with an empty object, or with nothing.
        opening = _PLACEHOLDERS.match(joined)
        if opening is not None:
            rest = joined[opening.end() :]
            if not rest:
                return "{}"
            if is_object(rest):
                return rest
        return last if len(pieces) > 1 and _are_snapshots(pieces) else None

    def _scan(self) -> None:
        """Follow the brackets through the pieces since the last scan."""
        pieces = self.pieces
        for number in range(self._scanned, len(pieces)):
            piece = pieces[number]
            if (
                self._closed
                and not self._overrun
                and piece.strip()
                and self._is_placeholder(number)
            ):
                self._closed = False
            if self._closed:
                self._overrun = self._overrun or not piece.isspace()
                continue
            self._scan_piece(piece)
        self._scanned = len(pieces)

    def _is_placeholder(self, count: int) -> bool:
        """Whether the first pieces are only an empty object, which may stand for what follows."""
        if count > _MAX_PLACEHOLDER:
            return False
        return _PLACEHOLDERS.fullmatch("".join(self.pieces[:count])) is not None

    def _scan_piece(self, piece: str) -> None:
        position = 0
        size = len(piece)
        while position < size:
            if self._escaped:
                self._escaped = False
                position += 1
                continue
            match = (_INSIDE if self._text else _OUTSIDE).search(piece, position)
            if match is None:
                return
            position = match.end()
            mark = match[0]
            if mark == '"':
                self._text = not self._text
                if not self._text and not self._depth:  # an object in a JSON string
                    self._closed = True
            elif mark == "\\":
                self._escaped = True
            elif mark in "{[":
                self._depth += 1
            else:
                self._depth -= 1
                if self._depth <= 0:
                    self._closed = True
            if self._closed:
                rest = piece[position:]
                self._overrun = bool(rest) and not rest.isspace()
                return


def warn_cut_call(name: str, reason: str | None) -> None:
    """Log that a call was dropped because the reply was cut inside its arguments: half a number is
    another number."""
    logger.warning(
        "tool call dropped: the reply was cut (%s) inside the arguments of %r", reason, name[:64]
    )
