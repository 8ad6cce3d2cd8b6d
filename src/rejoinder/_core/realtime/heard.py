"""Computes the heard text of a spoken message whose playback stopped early.

A service generates faster than sound is played, so the text it sent is more than the user heard.
Pure.
"""

from __future__ import annotations

from array import array
from bisect import bisect_left
from collections.abc import Sequence
from typing import Final, Protocol

__all__ = ["SoundMap", "SpokenMessage", "heard", "heard_of_text", "spread"]

_BYTES_PER_SAMPLE: Final = 2
_JOINED: Final = 64
"""Number of text pieces that are joined at a time, because a separate piece takes ten times the memory."""


class SoundMap(Protocol):
    """Maps times of a message's sound to its words, like `rejoinder.speech.Speech`."""

    def heard(self, ms: float) -> str:
        """The text that was heard after `ms` milliseconds."""
        ...


class SpokenMessage:
    """The text and the amount of sound of one message, in the order of arrival.

    Args:
        sample_rate: samples a second of its sound, one channel of 16 bits.
    """

    __slots__ = ("_at", "_bytes", "_ends", "_new", "_rate", "_text", "_timed", "is_cut")

    def __init__(self, sample_rate: int) -> None:
        self._rate = sample_rate
        self._text = ""
        self._new: list[str] = []
        """Pieces that are not part of `_text` yet."""
        self._ends = array("L")
        """The end of each piece in the text."""
        self._at = array("d")
        """The millisecond at which the sound of each piece begins."""
        self._bytes = 0
        self._timed = False
        self.is_cut = False
        """Playback was stopped: ignore text and sound that arrive later."""

    def add_text(self, text: str, start_time: float | None = None) -> None:
        """Record a piece of text. `start_time`: seconds from the beginning of the sound, if known."""
        if self.is_cut:
            return
        if start_time is None:
            self._at.append(self.received_ms)
        else:
            self._timed = True
            self._at.append(start_time * 1000)
        self._ends.append((self._ends[-1] if self._ends else 0) + len(text))
        self._new.append(text)
        if len(self._new) >= _JOINED:
            self._join()

    def add_audio(self, size: int) -> None:
        """Record `size` bytes of sound."""
        if not self.is_cut:
            self._bytes += size

    def replace_text(self, text: str) -> None:
        """Set the whole text, if a service repeats it at the end. Keeps the pieces that agree."""
        if text != self.text and not self.is_cut:
            self._set(text)
            self._timed = False

    def cut(self, text: str, ms: int) -> None:
        """Playback was stopped: `text` was heard, in `ms` milliseconds."""
        self.is_cut = True
        self._bytes = min(self._bytes, max(0, ms) * self._rate * _BYTES_PER_SAMPLE // 1000)
        if not self.text.startswith(text):
            self._set(text)
            return
        self._text = text
        whole = bisect_left(self._ends, len(text))
        if text:
            self._ends[whole] = len(text)
            whole += 1
        del self._ends[whole:], self._at[whole:]

    def _set(self, text: str) -> None:
        self._text = text
        self._new.clear()
        self._ends = array("L", [len(text)])
        self._at = array("d", [0.0])

    def _join(self) -> None:
        self._text += "".join(self._new)
        self._new.clear()

    @property
    def text(self) -> str:
        """The whole text."""
        if self._new:
            self._join()
        return self._text

    @property
    def received_ms(self) -> int:
        """Milliseconds of sound received."""
        return self._bytes * 1000 // (self._rate * _BYTES_PER_SAMPLE)

    @property
    def pieces(self) -> list[tuple[str, float]]:
        """Each piece of text with the millisecond at which its sound begins; a copy."""
        text, begin = self.text, 0
        found: list[tuple[str, float]] = []
        for end, at in zip(self._ends, self._at, strict=True):
            found.append((text[begin:end], at))
            begin = end
        return found


def heard(message: SpokenMessage, until: int | str) -> str:
    """The text of `message` that was heard.

    Uses the word times if the service sends them, else the amount of sound that preceded each piece
    of text, else the share of the sound that was played.

    Args:
        message: the message.
        until: milliseconds that were played, or the text that was heard. A text that the message
            does not begin with is returned unchanged.
    """
    if isinstance(until, str):
        return _prefix_of(message.text, until)
    received = message.received_ms
    if until <= 0:
        return ""
    pieces = message.pieces
    if until >= received and (received or not pieces):
        return message.text
    marks = {at for _, at in pieces}
    if len(marks) > 1:
        # A piece counts as heard if half of its sound was played, so no word is split.
        ends = [at for _, at in pieces[1:]] + [float(max(received, int(pieces[-1][1])))]
        whole = [
            text
            for (text, start), end in zip(pieces, ends, strict=True)
            if until >= (start + end) / 2 and until > start
        ]
        return "".join(whole)
    if not received:
        return message.text
    return _cut_at_word(message.text, len(message.text) * until // received)


def _cut_at_word(text: str, length: int) -> str:
    if length >= len(text):
        return text
    end = length
    while end > 0 and not text[end].isspace() and not text[end - 1].isspace():
        end -= 1
    # Scripts without spaces are cut at the exact position of the sound.
    return text[: end or length].rstrip()


def _prefix_of(whole: str, heard: str) -> str:
    """The prefix of `whole` that equals `heard` apart from white space; `heard` if there is no such
    prefix."""
    position = 0
    for word in heard.split():
        found = whole.find(word, position)
        if found < 0 or whole[position:found].strip():
            return heard
        position = found + len(word)
    return whole[:position]


def heard_of_text(text: str, until: float | str, sound: SoundMap | float | None) -> str:
    """The heard part of `text` when the application made the sound.

    Args:
        text: the whole text.
        until: milliseconds that were played, or the text that was heard.
        sound: maps milliseconds to text; or the duration of the whole text in milliseconds.

    Raises:
        ValueError: `until` is in milliseconds and `sound` is missing.
    """
    if isinstance(until, str):
        return _prefix_of(text, until)
    if until <= 0:
        return ""
    if sound is None:
        raise ValueError(
            "milliseconds need the sound: pass `sound`, the milliseconds that the "
            "whole text takes or an object with `heard(ms)` (`rejoinder.speech.speakable` gives one), "
            "or pass the text that was heard"
        )
    if not isinstance(sound, int | float):
        return _prefix_of(text, sound.heard(until))
    if until >= sound:
        return text
    return _cut_at_word(text, int(len(text) * until / sound))


def spread(texts: Sequence[str], heard: str) -> list[str]:
    """The heard part of each of `texts`, which were spoken one after another, if `heard` is their
    heard text as a whole."""
    left: list[str] = []
    for number, text in enumerate(texts):
        rest = _behind(heard, text)
        if rest is None or number == len(texts) - 1:
            left.append(_prefix_of(text, heard) if heard.strip() else "")
            heard = ""
        else:
            left.append(text)
            heard = rest
    return left


def _behind(heard: str, text: str) -> str | None:
    """The rest of `heard` after all words of `text`; ``None`` if `heard` does not begin with them."""
    position = 0
    for word in text.split():
        found = heard.find(word, position)
        if found < 0 or heard[position:found].strip():
            return None
        position = found + len(word)
    return heard[position:]
