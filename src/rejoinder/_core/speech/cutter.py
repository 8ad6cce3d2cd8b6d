"""Cuts the text of a model into pieces for a speech engine, while it streams.

The end of a piece depends on the text alone, never on its chunks: a mark that may end a sentence is
judged when the next word is complete, whatever else has arrived. So a test with one chunk covers
streams of tokens too. Pure.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable, Sequence
from typing import Final

import msgspec

from rejoinder._core.speech.plain import Plain

__all__ = ["Cut", "Cutter", "Segment"]

Segment = Callable[[str], Sequence[str]]
"""Cuts a text into sentences. Joined, they equal the text."""

_CLOSERS: Final = "\"'”’»›)\\]）」』】》〉］"
_WIDE_ENDS: Final = "。！？｡．।॥۔؟"
_WIDE_CLAUSES: Final = "、，；：،؛—"
_ENDS: Final = f".!?…{_WIDE_ENDS}"
_CLAUSES: Final = f",;:{_WIDE_CLAUSES}"
# These patterns begin with a set, so that the engine skips all other characters quickly.
_MARKS: Final = {
    # Whether a piece may end at a comma.
    True: re.compile(
        rf"[\n{_ENDS}{_CLAUSES}](?:(?<=\n)|(?<=[{_ENDS}])[{_ENDS}]*[{_CLOSERS}]*|[{_CLAUSES}]*[{_CLOSERS}]*)"
    ),
    False: re.compile(rf"[\n{_ENDS}](?:(?<=\n)|[{_ENDS}]*[{_CLOSERS}]*)"),
}
# The marks that may end a piece, and the characters that may follow them within the chunk: a mark in the
# middle of a word ends nothing. An entity may stand for a mark.
_FOLLOWS: Final = rf"(?=[\s.!?…,;:*_~`<&\\\[{_CLOSERS}]|\Z)"
_QUICK: Final = {
    True: re.compile(
        rf"[\n&{_ENDS}{_CLAUSES}](?:(?<=[\n&{_WIDE_ENDS}{_WIDE_CLAUSES}])|{_FOLLOWS})"
    ).search,
    False: re.compile(rf"[\n&{_ENDS}](?:(?<=[\n&{_WIDE_ENDS}])|{_FOLLOWS})").search,
}
_LAST: Final = re.compile(rf"(?:[{_ENDS}]+|[{_CLAUSES}]+)[{_CLOSERS}]*\Z").match
"""A mark that ends a chunk: the next one decides about it."""
_PART_OF_WORD: Final = re.compile(r"\s*\S{0,15}").fullmatch
"""Decides nothing about a full stop before it."""
_BLANK: Final = re.compile(r"\s*")
_MOST_QUIET: Final = 256
"""Chunks of a block of code that are kept before they are joined."""
_LONG_WORD: Final = 16
"""Characters of a word after which it counts as whole."""
_WORD: Final = re.compile(rf"\S{{0,{_LONG_WORD}}}")
_SOUND: Final = re.compile(r"[^\W_]")
# Scripts that write a word, or a syllable, as one character, and put no spaces between words.
_WIDE: Final = re.compile(
    r"[\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u9fff\uac00-\ud7af\U00020000-\U0003ffff]"
)
_WIDE_WEIGHT: Final = 3
_JOINER: Final = "\u200d"


class Cut(msgspec.Struct, frozen=True):
    """One piece: the spoken text, and the part of the source it stands for."""

    spoken: str
    source: str


class Cutter:
    """Cuts one message.

    A character of a script without spaces counts as three letters.

    Args:
        segment: cuts a text into sentences.
        plain: removes text that is not spoken; ``None`` keeps everything.
        first_length: letters after which the first piece may end at a comma; ``None``: it ends
            with its sentence, as all others do.
        min_length: letters of the shortest piece; shorter sentences are joined with the next one.
        max_length: characters of the longest piece.
    """

    __slots__ = (
        "_at",
        "_fence",
        "_first",
        "_first_length",
        "_free",
        "_held",
        "_limit",
        "_mark",
        "_max",
        "_min",
        "_plain",
        "_quick",
        "_quiet",
        "_runs",
        "_same",
        "_segment",
        "_size",
        "_soonest",
        "_source",
        "_spoken",
        "_stop",
    )

    def __init__(
        self,
        segment: Segment,
        *,
        plain: Plain | None,
        first_length: int | None,
        min_length: int,
        max_length: int,
    ) -> None:
        self._segment = segment
        self._plain = plain
        self._quick = _QUICK[first_length is not None]
        self._mark = _MARKS[first_length is not None].search
        self._held = ""
        """The text that waits in `plain`."""
        self._free = True
        """Whether nothing in it could end a piece."""
        self._stop = False
        """Whether the chunk before has ended in a full stop."""
        self._fence = ""
        """In a block of code, the character without which the block cannot end."""
        self._first_length = first_length
        self._min = min_length
        self._max = max_length
        self._first = True
        self._source = ""
        self._spoken = ""
        self._quiet: list[str] = []
        """Later chunks that are not converted yet, because nothing in them can end a piece."""
        self._size = 0
        """Characters of `_spoken`, `_held` and `_quiet` together."""
        self._soonest = self._shortest()
        self._runs: list[tuple[int, int]] = []
        """Lengths of spoken text and source. If they are equal, each character stands for
        itself."""
        self._same = 0
        """The number of characters after `_runs`. They stand for themselves."""
        self._at = 0
        """Position from which the next mark is searched."""
        self._limit = max_length
        """The size above which quiet chunks are examined; -1 while a mark waits for them."""

    def feed(self, text: str) -> Sequence[Cut]:
        """Add text. Return the pieces that are final now."""
        self._quiet.append(text)
        size = self._size = self._size + len(text)
        if self._free and size <= self._limit:
            found = self._quick(text)
            if found is None:
                return ()  # nothing in it can end a piece, which is by far the most common case
            if _LAST(text, found.start()):
                self._limit = -1
                self._stop = found[0] == "."
                return ()
        if self._fence:
            over = self._fence in text or len(self._quiet) > _MOST_QUIET
            return self._scan() if over else ()
        if self._stop:
            self._stop = False
            if size <= self._max and _PART_OF_WORD(text) and self._quick(text) is None:
                return ()
        if size < self._soonest and self._is_short():
            return ()
        return self._scan()

    def flush(self) -> tuple[list[Cut], str]:
        """The remaining pieces, and the source of the unspoken text after them. The cutter cannot
        be used again."""
        cuts = self._scan(final=True)
        text, source = self._spoken, self._source
        if _SOUND.search(text):
            cuts.append(Cut(text, source))
            return cuts, ""
        return cuts, source

    # -- the kept text -----------------------------------------------------------------------------

    def _shortest(self) -> int:
        """The minimum number of letters of the next piece."""
        if self._plain is not None and self._plain.code:
            return 0  # it may be longer than the block for which it stands
        least = self._min
        if self._first and self._first_length is not None:
            least = self._first_length
        return min(self._max, least)

    def _is_short(self) -> bool:
        """Whether the text has no more letters than characters: no script without spaces, and no table,
        whose bars become commas."""
        text = self._held + "".join(self._quiet)
        return text.isascii() and self._spoken.isascii() and "|" not in text

    def _settle(self, final: bool) -> None:
        """Convert the chunks that are not converted yet."""
        text = "".join(self._quiet)
        self._quiet.clear()
        self._source += text
        plain = self._plain
        if plain is None:
            self._spoken += text
            self._same += len(text)
            return
        found = plain.feed(text, final=final)
        spoken = self._spoken = self._spoken + "".join([said for said, _ in found])
        runs, same = self._runs, self._same
        for said, meant in found:
            size = len(said)
            if size == meant:
                same += size
                continue
            if same:
                runs.append((same, same))
                same = 0
            runs.append((size, meant))
        self._same = same
        held, fence = plain.held
        self._held = held
        self._size = len(spoken) + len(held)
        self._fence = "" if fence in held else fence
        self._free = not self._fence and (bool(fence) or self._quick(held) is None)

    def _take(self, spoken: int) -> str:
        """Remove and return the source of the first `spoken` characters."""
        source = self._source
        taken, left, done = 0, spoken, 0
        for said, meant in self._runs:
            if left == 0:
                break
            if said > left:
                part = left if said == meant else meant
                self._runs[done] = (said - left, meant - part)
                taken += part
                left = 0
                break
            taken += meant
            left -= said
            done += 1
        del self._runs[:done]
        self._same -= left
        taken += left
        self._source = source[taken:]
        self._spoken = self._spoken[spoken:]
        self._size -= spoken
        return source[:taken]

    # -- the places to cut -------------------------------------------------------------------------

    def _scan(self, *, final: bool = False) -> list[Cut]:
        self._settle(final)
        cuts: list[Cut] = []
        while True:
            end = self._next_end(final)
            if end is None:
                return cuts
            text = self._spoken[:end]
            cuts.append(Cut(text, self._take(end)))
            self._at = 0
            if self._first:
                self._first = False
                self._quick = _QUICK[False]
                self._mark = _MARKS[False].search
                self._soonest = self._shortest()

    def _next_end(self, final: bool) -> int | None:
        """The end of the first piece of the text; ``None`` if it is not final yet."""
        text = self._spoken
        size = len(text)
        self._limit = self._max
        if size < self._soonest and text.isascii():
            return None
        if not self._at and text[:1] == "\n":
            blank = size - len(text.lstrip())
            self._at = blank if blank <= self._max else 0
        while True:
            found = self._mark(text, self._at)
            if found is None:
                # Skip white space and letters that are not marks.
                self._at = size
                return self._forced(text) if size > self._max else None
            start, end = found.span()
            mark = text[start]
            line = mark == "\n"
            stop = start if line else end
            clause = mark in _CLAUSES
            whole = end < size and end <= self._max
            if whole and not self._long_enough(text, stop, clause):
                self._at = end
                continue
            judged = end if line else self._judge(mark, end, text, final)
            if judged is None or abs(judged) > self._max + 1:
                if size > self._max:
                    return self._forced(text)
                if judged is None:
                    self._limit = -1
                    self._at = start
                    return None
            elif judged > 0 and (whole or self._long_enough(text, stop, clause)):
                return stop
            self._at = end

    def _judge(self, mark: str, end: int, text: str, final: bool) -> int | None:
        """The amount of text that was needed to judge a mark: positive if it may end a piece,
        negative if not, ``None`` if more text is needed."""
        size = len(text)
        if end >= size:
            return -end if final else None
        after = text[end]
        if mark in _CLAUSES:
            return end + 1 if after.isspace() or mark in _WIDE_CLAUSES else -(end + 1)
        if mark in _WIDE_ENDS:
            return end + 1
        if not after.isspace():
            return -(end + 1)
        if after == "\n":
            return -(end + 1)  # the line ends the piece
        blank = _BLANK.match(text, end)
        word = end if blank is None else blank.end()
        if "\n" in text[end:word]:
            return -(text.index("\n", end) + 1)
        if word >= size:
            return -word if final else None
        stop = seen = word + 1
        if mark == ".":  # an abbreviation, or the number of an item: the next word decides
            match = _WORD.match(text, word)
            stop = seen = word if match is None else match.end()
            if stop - word < _LONG_WORD:  # what follows shows that the word is whole
                if stop < size:
                    seen += 1
                elif not final:
                    return None
        total = 0
        for sentence in self._segment(text[:stop]):
            total += len(sentence)
            if end <= total <= word:
                return seen
            if total > word:
                break
        return -seen

    def _long_enough(self, text: str, end: int, clause: bool) -> bool:
        least = self._min
        if self._first and self._first_length is not None:
            least = self._first_length
        if end * _WIDE_WEIGHT < least:
            return False
        text = text[:end].strip()
        length = len(text)
        if length < least and not text.isascii():
            length += (_WIDE_WEIGHT - 1) * len(_WIDE.findall(text))
        if length < least or not _SOUND.search(text):
            return False
        return clause or not text.rstrip(".)").isdigit()  # the number of an item

    def _forced(self, text: str) -> int:
        """The end of a piece that is too long: after a mark, else between words, else anywhere."""
        limit = self._max
        end = 0
        for found in _MARKS[True].finditer(text, limit // 4, limit):
            if text[found.end()].isspace() or found[0][0] in _WIDE_ENDS + _WIDE_CLAUSES:
                end = found.end()
        if end:
            return end
        for place in range(limit, limit // 4, -1):
            if text[place].isspace():
                return place
        while limit > 1 and _joins(text, limit):
            limit -= 1
        return limit


def _joins(text: str, place: int) -> bool:
    """Whether the characters around a place belong together."""
    after = text[place]
    return (
        unicodedata.category(after) in ("Mn", "Mc", "Me", "Cf", "Sk")
        or text[place - 1] == _JOINER
        or after == _JOINER
    )
