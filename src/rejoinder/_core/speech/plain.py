"""Converts streamed Markdown to spoken text.

The result depends on the text alone, never on its chunks: a mark whose meaning needs more text
waits for it, up to a limited number of characters. Nothing is lost: each run has the number of
source characters that it stands for. Pure.
"""

from __future__ import annotations

import html
import re
from typing import Final, TypeAlias

__all__ = ["Plain", "Run"]

Run: TypeAlias = tuple[str, int]
"""Spoken text, and the number of source characters that it stands for."""

_SPECIAL: Final = r"*_~`\[\]\\<&\n!"
"""Characters that may mean something within a line, for a regular expression's set."""

# A set at the beginning lets the engine skip all other characters quickly; alternatives would not.
# White space and marks of emphasis are found as a whole.
_INLINE: Final = re.compile(
    rf"[{_SPECIAL}](?:(?<=\n)[ \t\n]*|(?<=\*)\**|(?<=_)_*|(?<=~)~*|(?<!!)|(?=\[|\Z))"
).search
_MAYBE: Final = re.compile(rf"[{_SPECIAL}]").search
_INDENT: Final = re.compile(r"[ \t\n]*")
_AT_LINE_START: Final = frozenset("#>-+*_|`~")
_EMPHASIS: Final = frozenset("*_~")
_PUNCTUATION: Final = frozenset("!\"#$%&'()*+,-./:;<=>?@[\\]^_`{|}~")
_CHECKBOX: Final = re.compile(r"\[[ xX]\] ?")
_RULE_CELL: Final = re.compile(r":?-+:?")
_LABEL_END: Final = re.compile(r"[\]\n\[]").search
_TARGET_END: Final = {"(": re.compile(r"[)\n]").search, "[": re.compile(r"[\]\n]").search}
_TAG_END: Final = re.compile(r"[>\n]").search
_TAG: Final = re.compile(
    r"</?(?:a|abbr|b|blockquote|br|code|del|details|div|em|h[1-6]|hr|i|img|ins|kbd|li|mark|ol|p|pre|s"
    r"|small|span|strong|sub|summary|sup|table|tbody|td|th|thead|tr|u|ul)(?:\s[^<>]*)?/?>",
    re.IGNORECASE,
)
_ADDRESS: Final = re.compile(r"<((?:https?://|mailto:)[^<>\s]+)>", re.IGNORECASE)
_ENTITY: Final = re.compile(r"&(?:#[0-9]{1,7}|#[xX][0-9a-fA-F]{1,6}|[A-Za-z][A-Za-z0-9]{1,30});")
_ENTITY_SO_FAR: Final = re.compile(r"&(?:#?[A-Za-z0-9]{0,31})\Z")

# Maximum number of characters that a mark waits for its closing mark.
_MAX_CODE: Final = 200
_MAX_LABEL: Final = 300
_MAX_TARGET: Final = 2000
_MAX_ROW: Final = 2000
_MAX_TAG: Final = 300
_MAX_INFO: Final = 200

_WAIT: Final = -1
"""A mark that needs more text."""


class Plain:
    """Removes the marks from streamed Markdown.

    Removes the marks of emphasis, headings, quotes, bullets, rules and tags, and whole code blocks.
    Keeps the words of links, pictures and inline code. Table rows become lists with commas.

    Args:
        code: text spoken instead of a code block.

    Attributes:
        code: see above.
        before: the last spoken character; the meaning of a mark depends on its neighbours.
    """

    __slots__ = (
        "_at_line_start",
        "_base",
        "_buffer",
        "_fence",
        "_link_ends",
        "_runs",
        "before",
        "code",
    )

    def __init__(self, code: str = "") -> None:
        self.code = code
        self._buffer = ""
        self._at_line_start = True
        self.before = "\n"
        self._base = 0
        """Position of the buffer in the whole text."""
        self._fence = ""
        self._link_ends: dict[int, int] = {}
        self._runs: list[Run] = []

    @property
    def held(self) -> tuple[str, str]:
        """The text that waits for more text. In a block of code, which is not spoken: also the
        character of the mark that ends the block."""
        return self._buffer, self._fence[:1]

    def feed(self, text: str, *, final: bool = False) -> list[Run]:
        """The runs that are final now. `final`: no more text follows, so all runs are."""
        if not (self._buffer or self._at_line_start or self._fence) and not _MAYBE(text):
            if text:
                self.before = text[-1]
            return [(text, len(text))]
        buffer = self._buffer + text
        runs = self._runs = []
        at = 0
        size = len(buffer)
        while at < size:
            if self._fence:
                taken = self._in_fence(buffer, at, final)
            elif self._at_line_start and (taken := self._line_start(buffer, at, final)):
                pass
            else:
                found = _INLINE(buffer, at)
                mark, end = (size, size) if found is None else found.span()
                char = buffer[mark : mark + 1]
                if char == "\n" or not char:
                    self._at_line_start = bool(char)
                    runs.append((buffer[at:end], end - at))
                    self.before = buffer[end - 1]
                    at = end
                    continue
                if mark > at:
                    runs.append((buffer[at:mark], mark - at))
                    self.before = buffer[mark - 1]
                    at = mark
                if char in _EMPHASIS:
                    taken = self._emphasis(char, buffer, at, end, final)
                else:
                    taken = self._mark(char, buffer, at, final)
            if taken == _WAIT:
                break
            at += taken
        self._base += at
        self._buffer = buffer[at:]
        return runs

    # -- at the start of a line ------------------------------------------------------------------

    def _line_start(self, text: str, at: int, final: bool) -> int:
        """The length of the marks at the start of a line; 0 if the text of the line begins here."""
        char = text[at]
        if char in _AT_LINE_START:
            taken = self._block_mark(char, text, at, final)
            if taken:
                return taken
        elif char in " \t\n":
            found = _INDENT.match(text, at)
            end = at + 1 if found is None else found.end()
            return self._say(text[at:end], end - at)
        self._at_line_start = False
        return 0

    def _block_mark(self, char: str, text: str, at: int, final: bool) -> int:
        """The length of the mark at the start of a line; 0 without a mark."""
        if char == ">":
            return self._drop(1)
        if char == "|":
            return self._table_row(text, at, final)
        end = at
        while end < len(text) and text[end] == char:
            end += 1
        if end == len(text) and not final:
            return _WAIT
        count = end - at
        after = text[end : end + 1]
        if char == "#":
            if count > 6 or after not in ("", " ", "\t", "\n"):
                return 0
            self._at_line_start = False
            return self._drop(count)
        if char in "`~":
            return self._open_fence(text, at, count, final) if count >= 3 else 0
        if count == 1 and char != "_":
            return self._bullet(text, at, final) if after in (" ", "\t") else 0
        if count >= 3 and char != "+":
            line_end = end
            while line_end < len(text) and text[line_end] in " \t":
                line_end += 1
            if line_end - at >= _MAX_INFO:
                return 0
            if line_end == len(text) and not final:
                return _WAIT
            if text[line_end : line_end + 1] in ("", "\n"):
                return self._drop(line_end - at)
        return 0

    def _bullet(self, text: str, at: int, final: bool) -> int:
        rest = text[at + 2 : at + 6]
        if not final and (not rest or (rest[0] == "[" and len(rest) < 4)):
            return _WAIT
        box = _CHECKBOX.match(rest) if rest[:1] == "[" else None
        self._at_line_start = False
        return self._drop(2 + (0 if box is None else box.end()))

    def _open_fence(self, text: str, at: int, count: int, final: bool) -> int:
        line_end = text.find("\n", at, at + count + _MAX_INFO)
        whole = line_end >= 0
        if not whole:
            line_end = min(len(text), at + count + _MAX_INFO)
        info = text[at + count : line_end]
        if text[at] == "`" and "`" in info:
            return 0
        if not whole and len(info) >= _MAX_INFO:
            return 0
        if not whole and not final:
            return _WAIT
        self._fence = text[at : at + count]
        self._runs.append((self.code, line_end - at))
        self.before = "\n"
        return line_end - at

    def _in_fence(self, text: str, at: int, final: bool) -> int:
        """One line of a code block, with the line break before it."""
        line_end = text.find("\n", at + 1)
        if line_end < 0:
            if not final:
                return _WAIT
            line_end = len(text)
        line = text[at:line_end].strip()
        if line.startswith(self._fence) and not line.strip(self._fence[0]):
            self._fence = ""
            self._at_line_start = False
        self._runs.append(("", line_end - at))
        return line_end - at

    def _table_row(self, text: str, at: int, final: bool) -> int:
        line_end = text.find("\n", at, at + _MAX_ROW)
        if line_end < 0:
            if len(text) - at >= _MAX_ROW:
                return 0
            if not final:
                return _WAIT
            line_end = len(text)
        row = text[at:line_end].rstrip()
        if len(row) < 2 or not row.endswith("|"):
            return 0
        cells = [cell.strip() for cell in row[1:-1].split("|")]
        spoken = ""
        if not all(_RULE_CELL.fullmatch(cell) for cell in cells):
            words = "".join(run for run, _ in _words(", ".join(cell for cell in cells if cell)))
            spoken = words
        self._runs.append((spoken, line_end - at))
        self.before = "|"
        self._at_line_start = False
        return line_end - at

    # -- within a line -----------------------------------------------------------------------------

    def _mark(self, char: str, text: str, at: int, final: bool) -> int:
        """The length of an element that begins with any mark except those of emphasis."""
        if char == "]":
            length = self._link_ends.pop(self._base + at, 0)
            return self._drop(length) if length else self._say(char, 1)
        if at + 1 == len(text) and not final:
            return _WAIT
        match char:
            case "\\":
                escaped = text[at + 1 : at + 2]
                if escaped and escaped in _PUNCTUATION:
                    return self._say(escaped, 2)
                return self._say(char, 1)
            case "`":
                return self._code_span(text, at, final)
            case "[":
                return self._link(text, at, at, final)
            case "!":
                # This is not the end of the text, or the mark would have waited.
                return self._link(text, at, at + 1, final) if text[at + 1 :] else self._say("!", 1)
            case "<":
                return self._angle(text, at, final)
            case _:  # "&"
                return self._entity(text, at, final)

    def _emphasis(self, char: str, text: str, at: int, end: int, final: bool) -> int:
        if end == len(text) and not final:
            return _WAIT
        before, after = self.before, text[end : end + 1] or "\n"
        literal = before.isspace() and after.isspace()
        if char == "~":
            literal = literal or end - at != 2
        elif char == "_":
            literal = literal or (before.isalnum() and after.isalnum())
        elif before.isdigit() and after.isdigit():
            literal = True  # 2*3
        if literal:
            return self._say(text[at:end], end - at)
        # The text before this mark also decides about the next one: "**_x_**".
        return self._drop(end - at)

    def _code_span(self, text: str, at: int, final: bool) -> int:
        start = at
        while start < len(text) and text[start] == "`":
            start += 1
        if start == len(text) and not final:
            return _WAIT
        ticks = text[at:start]
        line_end = text.find("\n", start, start + _MAX_CODE)
        limit = line_end if line_end >= 0 else min(len(text), start + _MAX_CODE)
        end = text.find(ticks, start, limit)
        if end < 0 or (end + len(ticks) == len(text) and not final):
            if end < 0 and (line_end >= 0 or final or len(text) >= start + _MAX_CODE):
                return self._drop(len(ticks))
            return _WAIT
        return self._say(text[start:end], end + len(ticks) - at)

    def _link(self, text: str, at: int, bracket: int, final: bool) -> int:
        """A link or a picture whose ``[`` stands at `bracket`."""
        label_end = _first(_LABEL_END(text, bracket + 1, bracket + 1 + _MAX_LABEL))
        if label_end < 0:
            if not final and len(text) <= bracket + _MAX_LABEL:
                return _WAIT
            return self._say(text[at : bracket + 1], bracket + 1 - at)
        if text[label_end] != "]":
            return self._say(text[at : bracket + 1], bracket + 1 - at)
        opening = text[label_end + 1 : label_end + 2]
        if not opening and not final:
            return _WAIT
        if text[bracket + 1] == "^":  # a footnote's mark
            return self._drop(label_end + 1 - at)
        target_end = _TARGET_END.get(opening)
        if target_end is None:
            return self._say(text[at : bracket + 1], bracket + 1 - at)
        end = _first(target_end(text, label_end + 2, label_end + 2 + _MAX_TARGET))
        if end < 0:
            if not final and len(text) <= label_end + 1 + _MAX_TARGET:
                return _WAIT
            return self._say(text[at : bracket + 1], bracket + 1 - at)
        if text[end] == "\n":
            return self._say(text[at : bracket + 1], bracket + 1 - at)
        # Read the label like other text. The rest of the link is removed when the reader gets
        # there.
        self._link_ends[self._base + label_end] = end + 1 - label_end
        return self._drop(bracket + 1 - at)

    def _angle(self, text: str, at: int, final: bool) -> int:
        if not (text[at + 1 : at + 2].isalpha() or text[at + 1 : at + 2] == "/"):
            return self._say("<", 1)
        end = _first(_TAG_END(text, at + 1, at + _MAX_TAG))
        if end < 0 and not final and len(text) < at + _MAX_TAG:
            return _WAIT
        whole = text[at : end + 1] if end >= 0 else ""
        address = _ADDRESS.fullmatch(whole)
        if address is not None:
            return self._say(address[1], len(whole))
        if _TAG.fullmatch(whole):
            return self._drop(len(whole))
        return self._say("<", 1)

    def _entity(self, text: str, at: int, final: bool) -> int:
        found = _ENTITY.match(text, at)
        if found is None:
            if not final and _ENTITY_SO_FAR.match(text, at):
                return _WAIT
            return self._say("&", 1)
        return self._say(html.unescape(found[0]), found.end() - at)

    # -- the spoken text ---------------------------------------------------------------------------

    def _say(self, spoken: str, source: int) -> int:
        self._runs.append((spoken, source))
        if spoken:
            self.before = spoken[-1]
        return source

    def _drop(self, source: int) -> int:
        self._runs.append(("", source))
        return source


def _words(text: str) -> list[Run]:
    """The runs of a text within a line."""
    plain = Plain()
    plain._at_line_start = False
    return plain.feed(text, final=True)


def _first(found: re.Match[str] | None) -> int:
    return -1 if found is None else found.start()
