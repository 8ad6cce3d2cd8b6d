"""Removes the part of a continuation that repeats the text before it.

Pure. A model that is asked to continue an answer that broke off may first repeat part of it. `Overlap`
holds back its first words until it is clear how far they repeat, and passes on the rest.
"""

from __future__ import annotations

import re

__all__ = ["Overlap", "last_words", "whitespace_tail"]

_REACH = 600
"""A repetition may begin within this many characters of the end of the first text, or at its start."""
_SHORTEST = 3
"""Shorter repetitions count as chance, unless the whole text is repeated."""
_BEFORE = " \n\t.\u2026\"'`*_\u2018\u201c\u201e\u00ab"
"""Characters that may precede a repetition; they are removed with it."""
_UNSPACED = re.compile(
    "[\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u2e80-\ua4cf\uf900-\ufaff\U00020000-\U0003ffff]"
)
"""Scripts without spaces between words: Thai, Lao, Burmese, Khmer, Chinese, Japanese, Yi."""
_LAST_WORDS = 6
_LAST_CHARACTERS = 16


def whitespace_tail(text: str) -> tuple[str, str]:
    """`text` without the white space at its end, and that white space."""
    stripped = text.rstrip()
    return stripped, text[len(stripped) :]


def last_words(text: str) -> str:
    """The last few words of `text`, beginning at the start of a word."""
    words = text[-_REACH:].split()[-_LAST_WORDS:]
    last = " ".join(words)
    found = list(_UNSPACED.finditer(last))
    if found and len(last) > _LAST_CHARACTERS:
        late = [match.start() for match in found if match.start() >= len(last) - _LAST_CHARACTERS]
        last = last[late[0] :] if late else last
    return last


def _fold(text: str) -> str:
    """`text` in lower case, with the same length."""
    folded = text.lower()
    if len(folded) == len(text):
        return folded
    return "".join(c.lower() if len(c.lower()) == 1 else c for c in text)


class Overlap:
    """Reads the continuation piece by piece and returns it without the repetition.

    Args:
        said: the text that is continued.
        exact: the continuation begins right after `said`, so only white space can be repeated:
            `tail`, which was removed from the end of `said` before the model got it.
    """

    def __init__(self, said: str, *, exact: bool = False, tail: str = "") -> None:
        self._held = ""
        self._decided = False
        self._strip = False
        self._exact = exact
        if exact:
            self._tail = tail
            self._decided = not tail
            return
        base, self._tail = whitespace_tail(said)
        self._said = _fold(base)
        self._starts = _starts(self._said)
        self._decided = not self._starts
        self._strip = self._decided and bool(self._tail)

    def feed(self, text: str) -> str:
        """Take a piece; return what can be passed on now."""
        if self._decided:
            if self._strip:
                text = text.lstrip()
                self._strip = not text
            return text
        self._held += text
        return self._decide(final=False)

    def close(self) -> str:
        """No more text follows: return what was held back."""
        return "" if self._decided else self._decide(final=True)

    def _decide(self, *, final: bool) -> str:
        held = self._held
        if self._exact:
            tail = self._tail
            if not final and len(held) < len(tail) and tail.startswith(held):
                return ""
            self._decided = True
            shared = 0
            while shared < min(len(held), len(tail)) and held[shared] == tail[shared]:
                shared += 1
            return held[shared:]
        words = held.lstrip(_BEFORE)
        folded = _fold(words)
        waiting = False
        repeated = 0
        said = self._said
        left: list[int] = []
        for start in self._starts:
            length = len(said) - start
            if length <= len(folded):
                if said.startswith(folded[:length], start):
                    repeated = max(repeated, length)
                    left.append(start)
            elif said.startswith(folded, start):
                waiting = True
                left.append(start)
        self._starts = left
        if waiting and not final:
            return ""
        self._decided = True
        text = words[repeated:] if repeated else held
        if self._tail and text:
            # The white space between the two texts has already been passed on.
            text = text.lstrip()
        self._strip = bool(self._tail) and not text
        return text


def _starts(said: str) -> list[int]:
    """Where in `said` a repetition may begin: at its start and at the starts of words."""
    starts = [0] if said else []
    for i in range(max(1, len(said) - _REACH), len(said) - _SHORTEST + 1):
        before, here = said[i - 1], said[i]
        if here.isspace():
            continue
        if before.isspace() or (
            here.isalnum() and (not before.isalnum() or _UNSPACED.match(here) is not None)
        ):
            starts.append(i)
    return starts
