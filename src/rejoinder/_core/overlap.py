"""Where a continuation begins: drops what a second speaker repeats of the first one's last words.

Pure. A model that is asked to go on with a broken-off answer may first repeat some of it. `Overlap`
holds its first words back until it is clear how far they repeat, and passes on the rest.
"""

from __future__ import annotations

__all__ = ["Overlap", "whitespace_tail"]

_REACH = 600
"""Characters of the first speaker's text in which a repetition may begin."""
_SHORTEST = 3
"""A repetition of fewer characters is chance."""


def whitespace_tail(text: str) -> tuple[str, str]:
    """`text` without the white space at its end, and that white space."""
    stripped = text.rstrip()
    return stripped, text[len(stripped) :]


class Overlap:
    """Feeds on the second speaker's text, and gives it back without the repetition.

    Args:
        said: what the first speaker had said.
        exact: the second one continues right after `said`; only white space may come twice,
            `tail` being what was cut off the end of `said` before it was handed over.
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
        self._said = base[-_REACH:]
        whole = len(base) <= _REACH
        # A repetition begins at the start of a word, or at the very start.
        self._starts = [
            i
            for i in range(len(self._said) - _SHORTEST + 1)
            if not self._said[i].isspace() and (self._said[i - 1].isspace() if i else whole)
        ]
        self._decided = not self._starts
        self._strip = self._decided and bool(self._tail)

    def feed(self, text: str) -> str:
        """What may be passed on now."""
        if self._decided:
            if self._strip:
                text = text.lstrip()
                self._strip = not text
            return text
        self._held += text
        return self._decide(final=False)

    def close(self) -> str:
        """What was still held back: no more text will come."""
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
        words = held.lstrip(" \n\t.\u2026")
        waiting = False
        repeated = 0
        for start in self._starts:
            rest = self._said[start:]
            if words.startswith(rest):
                repeated = max(repeated, len(rest))
            elif rest.startswith(words):
                waiting = True
        if waiting and not final and len(held) <= 2 * _REACH:
            return ""
        self._decided = True
        text = words[repeated:] if repeated else held
        if self._tail and text:
            # The white space between the two has been said already.
            text = text.lstrip()
        self._strip = bool(self._tail) and not text
        return text
