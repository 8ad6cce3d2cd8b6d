"""Mends broken JSON if its meaning is unambiguous.

Pure. Only the broken parts change: no character inside a string is changed or removed, even if it looks
like a mark of a chat template, a code fence or a tag. The only exception is a string inside Gemma's own
quotes, because it was quoted twice. Takes linear time.
"""

from __future__ import annotations

import re
from typing import Any, Final, cast

from pydantic_core import from_json

from rejoinder._core.json_values import is_crowded_text

__all__ = [
    "BROKEN",
    "MAX_ENCODINGS",
    "QUOTED",
    "read_json",
    "repair_json",
    "unquoted",
    "unwrapped",
]

BROKEN: Final = object()
"""Returned in place of a value by `repair_json` and `read_json`."""
MAX_ENCODINGS: Final = 4
"""Maximum number of JSON strings around a value."""

# Marks of chat templates that models leak into their output. Marks in plain angle brackets may also be
# HTML, so they count only around the JSON.
_MARK: Final = r"<\|[A-Za-z_][\w.:/-]{0,40}\|?>"
_GAP: Final = re.compile(rf"(?:\s|{_MARK})*")
_QUOTE_MARK: Final = '<|"|>'
"""Gemma's quote around a text."""
QUOTED: Final = '<|\\"'
"""The beginning of this quote in a JSON text."""
# Parsers of servers leave the quote complete or truncated, with the JSON quote that it stands for
# (vllm-project/vllm #44522, NousResearch/hermes-agent PR#7449).
_QUOTES: Final = re.compile(r'<\|"(?:\|[>"]?)?(.*?)<\|"(?:\|[>"]?)?', re.DOTALL)
# The same in a JSON text, where the quote at the end may have been taken for part of the mark.
_QUOTED_TEXT: Final = re.compile(
    r'"<\|\\"(?:\|(?:>|\\")?)?((?:[^"\\]|\\.)*?)<\|\\"(?:\|(?:>|\\")?)?"?', re.DOTALL
)
_AROUND: Final = (
    *(f"<{name}>" for name in ("tool_call", "tool", "function_call", "s", "bos", "eos")),
    *(f"</{name}>" for name in ("tool_call", "tool", "function_call", "s", "bos", "eos")),
    *("<start_of_turn>", "<end_of_turn>"),
    *("[TOOL_CALL]", "[TOOL_CALLS]", "[/TOOL_CALL]", "[/TOOL_CALLS]"),
)
_MAX_AROUND = 8
_FENCE: Final = "```"
_LANGUAGE: Final = re.compile(r"[A-Za-z0-9_-]*")


def read_json(text: str | bytes | bytearray) -> Any:
    """The value of a JSON text, mended if necessary; `BROKEN` if that is impossible."""
    try:
        return from_json(text)
    except ValueError:
        if isinstance(text, bytes | bytearray):
            text = text.decode("utf-8", "replace")
        return repair_json(text)


def unquoted(value: Any) -> Any:
    """`value` without Gemma's quotes around strings and names, at any depth."""
    if isinstance(value, str):
        inner = _QUOTES.fullmatch(value)
        return value if inner is None else inner[1]
    if isinstance(value, dict):
        members = cast("dict[str, Any]", value)
        return {unquoted(name): unquoted(member) for name, member in members.items()}
    if isinstance(value, list):
        return [unquoted(entry) for entry in cast("list[Any]", value)]
    return value


def unwrapped(value: Any) -> Any:
    """`value` without the JSON strings in which it is wrapped."""
    for _ in range(MAX_ENCODINGS):
        if not isinstance(value, str) or is_crowded_text(value):
            break
        inner = read_json(value)
        if inner is BROKEN:
            break
        value = inner
    return value


def repair_json(text: str) -> Any:
    """The only possible value of a broken JSON text, or `BROKEN`.

    Mends a byte order mark, a surrounding code fence, chat-template marks around or between values,
    trailing commas, single quotes, Python's ``True``/``False``/``None``, names without quotes, raw line
    breaks in strings, missing or surplus closing brackets at the end, and a value that is written twice.
    Nothing is guessed: an unfinished string, number or pair stays broken.
    """
    text = _without_marks_around(_without_fence(text).removeprefix("\ufeff"))
    try:
        return from_json(text)
    except ValueError:
        pass
    reader = _Reader(text)
    try:
        value = reader.value()
        reader.end(value)
    except (_Unclear, RecursionError, ValueError):  # ValueError: a number beyond all bounds
        return BROKEN
    return value


def _without_fence(text: str) -> str:
    core = text.strip()
    if len(core) < 2 * len(_FENCE) or not (core.startswith(_FENCE) and core.endswith(_FENCE)):
        return text
    language, line_end, inner = core[len(_FENCE) : -len(_FENCE)].partition("\n")
    return inner if line_end and _LANGUAGE.fullmatch(language.strip()) else text


def _without_marks_around(text: str) -> str:
    for _ in range(_MAX_AROUND):
        core = text.lstrip()
        mark = next((mark for mark in _AROUND if core.startswith(mark)), None)
        if mark is None:
            break
        text = core[len(mark) :]
    for _ in range(_MAX_AROUND):
        core = text.rstrip()
        mark = next((mark for mark in _AROUND if core.endswith(mark)), None)
        if mark is None:
            break
        # A value before a mark is complete: a number there has not lost any digits.
        text = core[: -len(mark)] + " "
    return text


class _Unclear(Exception):
    """The text is ambiguous or has no meaning."""


_ATOM: Final = re.compile(r"[^\s,:\[\]{}\"'<]+")
_NUMBER: Final = re.compile(r"-?(?:0|[1-9]\d*)(?:\.\d+)?(?:[eE][+-]?\d+)?\Z")
_NAME: Final = re.compile(r"[A-Za-z_$][\w$-]*\Z")
_HEX: Final = re.compile(r"[0-9A-Fa-f]{4}")
_PLAIN: Final = {'"': re.compile(r'[^"\\]+'), "'": re.compile(r"[^'\\]+")}
_WORDS: Final[dict[str, Any]] = {
    "true": True,
    "True": True,
    "false": False,
    "False": False,
    "null": None,
    "None": None,
}
_ESCAPES: Final = {
    '"': '"', "'": "'", "\\": "\\", "/": "/", "b": "\b", "f": "\f", "n": "\n", "r": "\r", "t": "\t",
}  # fmt: skip
_MAX_DEPTH = 64


class _Reader:
    """Reads what was meant to be JSON; raises `_Unclear` at the first thing that needs a guess."""

    def __init__(self, text: str) -> None:
        self._text = text
        self._at = 0
        self._depth = 0

    def _peek(self) -> str:
        """The next character that is neither white space nor part of a mark; empty at the end."""
        gap = _GAP.match(self._text, self._at)
        if gap is not None:
            self._at = gap.end()
        return self._text[self._at : self._at + 1]

    def value(self) -> Any:
        char = self._peek()
        if char == "{":
            return self._object()
        if char == "[":
            return self._array()
        if self._quoted(char):
            return self._string()
        atom = self._atom()
        if atom in _WORDS:
            return _WORDS[atom]
        # At the very end a number may have lost digits.
        if _NUMBER.match(atom) and self._at < len(self._text):
            return from_json(atom)
        raise _Unclear

    def end(self, value: Any) -> None:
        """Read the rest after the value: nothing, surplus closing brackets, or the same value again."""
        while (char := self._peek()) and char in "]}":
            self._at += 1
        while self._peek():
            if self.value() != value:
                raise _Unclear

    def _quoted(self, char: str) -> bool:
        return char in _PLAIN or self._text.startswith(_QUOTE_MARK, self._at)

    def _atom(self) -> str:
        match = _ATOM.match(self._text, self._at)
        if match is None:
            raise _Unclear
        self._at = match.end()
        return match.group()

    def _enter(self) -> None:
        self._at += 1
        self._depth += 1
        if self._depth > _MAX_DEPTH:
            raise _Unclear

    def _closed(self, bracket: str, *, may_lack: bool) -> bool:
        char = self._peek()
        if char == bracket:
            self._at += 1
            self._depth -= 1
            return True
        if char == "" and may_lack:
            # The content is complete; only the bracket is missing.
            self._depth -= 1
            return True
        return False

    def _object(self) -> dict[str, Any]:
        self._enter()
        out: dict[str, Any] = {}
        after_comma = False
        while not self._closed("}", may_lack=bool(out) and not after_comma):
            key = self._key()
            if self._peek() != ":":
                raise _Unclear
            self._at += 1
            value = self.value()
            if key in out and out[key] != value:
                raise _Unclear
            out[key] = value
            after_comma = self._comma("}")
        return out

    def _key(self) -> str:
        if self._quoted(self._peek()):
            return self._string()
        key = self._atom()
        if not _NAME.match(key):
            raise _Unclear
        return key

    def _array(self) -> list[Any]:
        self._enter()
        out: list[Any] = []
        after_comma = False
        while not self._closed("]", may_lack=bool(out) and not after_comma):
            out.append(self.value())
            after_comma = self._comma("]")
        return out

    def _comma(self, bracket: str) -> bool:
        char = self._peek()
        if char == ",":
            self._at += 1
            return True
        if char not in ("", bracket):
            raise _Unclear
        return False

    def _string(self) -> str:
        text = self._text
        if text.startswith(_QUOTE_MARK, self._at):
            start = self._at + len(_QUOTE_MARK)
            end = text.find(_QUOTE_MARK, start)
            if end < 0:
                raise _Unclear
            return self._ended(text[start:end], end + len(_QUOTE_MARK))
        marked = _QUOTED_TEXT.match(text, self._at)
        if marked is not None:
            return self._ended(from_json(f'"{marked[1]}"'), marked.end())
        quote = text[self._at]
        plain = _PLAIN[quote]
        at = self._at + 1
        out: list[str] = []
        while True:
            piece = plain.match(text, at)
            if piece is not None:
                out.append(piece.group())
                at = piece.end()
            if at >= len(text):
                raise _Unclear
            if text[at] == quote:
                break
            escape = text[at + 1 : at + 2]
            if escape == "u":
                if not _HEX.fullmatch(text, at + 2, at + 6):
                    raise _Unclear
                out.append(chr(int(text[at + 2 : at + 6], 16)))
                at += 6
                continue
            if escape not in _ESCAPES:
                raise _Unclear
            out.append(_ESCAPES[escape])
            at += 2
        joined = "".join(out).encode("utf-16", "surrogatepass").decode("utf-16", "replace")
        return self._ended(joined, at + 1)

    def _ended(self, said: str, at: int) -> str:
        self._at = at
        # A quote that no delimiter follows may belong to the text ("it's").
        if self._peek() not in ("", ",", ":", "]", "}"):
            raise _Unclear
        return said
