"""Maps played sound to heard text. Pure.

Speech engines make sound piece by piece, some with word times. When playback stops, the heard text is
a part of the source text, like the result of `heard` for realtime models.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Final

from rejoinder._core.realtime.heard import SpokenMessage, heard

__all__ = ["SoundMap"]

_RATE: Final = 8000
_BYTES_PER_MS: Final = _RATE * 2 // 1000
_MS_PER_CHARACTER: Final = 65.0
"""Milliseconds assumed for a character, before the speed of the voice is known."""
_WORD: Final = re.compile(
    r"\s*(?:[\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u9fff]"
    r"|[^\s\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u9fff]+)"
)
_EDGE: Final = re.compile(r"^\W+|\W+$")
_NEAR: Final = 60
"""Number of spoken characters in which a word of the source is searched for."""


@dataclass(slots=True)
class _Sounded:
    spoken: str
    source: str
    ms: float = 0.0
    words: list[tuple[int, float]] = field(default_factory=list[tuple[int, float]])
    """Positions in `spoken`, and the millisecond at which their sound begins."""
    found_to: int = 0
    whole: bool = False


class SoundMap:
    """The pieces of one message, each with its sound. Pieces sound in the order of their numbers."""

    __slots__ = ("_latest", "_pieces")

    def __init__(self) -> None:
        self._pieces: list[_Sounded] = []
        self._latest = 0

    def __len__(self) -> int:
        return len(self._pieces)

    def add_piece(self, spoken: str, source: str) -> None:
        """Add the next piece. The first one has the number 0."""
        self._pieces.append(_Sounded(spoken, source))

    def add_sound(self, number: int, ms: float) -> None:
        """Add sound of a piece. Earlier pieces are then complete."""
        self._pieces[number].ms += ms
        for piece in self._pieces[self._latest : number]:
            piece.whole = True
        self._latest = max(self._latest, number)

    def add_words(self, number: int, words: Iterable[tuple[str, float]]) -> None:
        """Add spoken words of a piece, each with its millisecond in the piece's sound."""
        piece = self._pieces[number]
        for word, at in words:
            core = _EDGE.sub("", word) or word.strip()
            place = piece.spoken.find(core, piece.found_to)
            if core and place >= 0:
                piece.words.append((place, at))
                piece.found_to = place + len(core)

    def end(self, number: int) -> None:
        """Mark a piece as complete: no more sound follows."""
        self._pieces[number].whole = True

    def heard(self, ms: float) -> str:
        """The source text that was heard after `ms` milliseconds.

        Uses word times if they are known, else the played share of a piece's sound. Text without
        sound, such as a block of code, counts as heard together with the words after it.
        """
        message = SpokenMessage(_RATE)
        begin = 0.0
        pace = self._pace()
        for piece in self._pieces:
            if piece.ms <= 0:
                if piece.whole:  # the engine made no sound
                    message.add_text(piece.source, begin / 1000)
                    continue
                break
            length = piece.ms if piece.whole else max(piece.ms, len(piece.spoken) * pace)
            for word, at in _timed(piece, length):
                message.add_text(word, (begin + at) / 1000)
            begin += length
        message.add_audio(int(begin * _BYTES_PER_MS) & ~1)
        return heard(message, int(max(0.0, min(ms, begin))))

    def _pace(self) -> float:
        """Milliseconds per character, measured on the complete pieces."""
        ms = sum(piece.ms for piece in self._pieces if piece.whole)
        size = sum(len(piece.spoken) for piece in self._pieces if piece.whole and piece.ms)
        return ms / size if size else _MS_PER_CHARACTER


def _timed(piece: _Sounded, length: float) -> list[tuple[str, float]]:
    """The source of a piece as words, each with the millisecond at which it begins."""
    spoken, source = piece.spoken, piece.source
    timed: list[tuple[str, float]] = []
    silent = ""
    at = 0
    for match in _WORD.finditer(source):
        core = _EDGE.sub("", match[0])
        place = spoken.find(core, at, at + _NEAR + len(core)) if core else -1
        if place < 0:
            silent += match[0]
            continue
        at = place + len(core)
        timed.append((silent + match[0], _moment(piece, place, length)))
        silent = ""
    rest = silent + source[sum(len(word) for word, _ in timed) + len(silent) :]
    if timed:
        word, moment = timed[-1]
        timed[-1] = (word + rest, moment)
    else:
        timed.append((rest, 0.0))
    return timed


def _moment(piece: _Sounded, place: int, length: float) -> float:
    """The time of the character at `place`: the time of its word, or interpolated between known
    times."""
    before, after = (0, 0.0), (max(1, len(piece.spoken)), length)
    for known in piece.words:
        if known[0] <= place:
            before = known
        else:
            after = known
            break
    span = after[0] - before[0]
    share = (place - before[0]) / span if span else 0.0
    return before[1] + (after[1] - before[1]) * share
