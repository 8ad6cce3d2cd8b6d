"""Finds the new part of a finished text, because servers also repeat a streamed text as a whole. Pure.

A finished text is matched by its words, not by its index, because servers number deltas and finished
items differently. Each kind of event that repeats a text (the part, the item, the final response) is
matched with the deltas separately. So no text is sent twice, however many kinds of events repeat it,
and a text that the model really wrote twice is sent twice.
"""

from __future__ import annotations

from typing import Final

__all__ = ["TRACKED", "SentText"]

TRACKED: Final = 1 << 20
"""Maximum number of characters compared. Beyond it, finished texts add nothing."""
_MAX_FINISHED: Final = 1024
_MAX_GAPS: Final = 64


class SentText:
    """The text that a reply has sent so far.

    Attributes:
        pieces: pieces of the text; the reply appends to them directly, because a call for each
            word would be slow.
        size: number of characters.
    """

    __slots__ = ("_claimed", "_finished", "_joined", "pieces", "size")

    def __init__(self) -> None:
        self.pieces: list[str] = []
        self._joined = ""
        self.size = 0
        self._claimed: dict[str, list[tuple[int, int]]] = {}
        self._finished = 0

    def text(self) -> str:
        """All of it."""
        if self.pieces:
            self._joined = "".join((self._joined, *self.pieces))
            self.pieces.clear()
        return self._joined

    def is_blank(self) -> bool:
        """Whether only white space was sent."""
        return not self._joined.strip() and not any(piece.strip() for piece in self.pieces)

    def beyond(self, kind: str, finished: str) -> str:
        """The part of a finished text that was not sent yet. From now on it counts as sent.

        Args:
            kind: kind of the event that repeats the text; each kind repeats each text once.
        """
        if not finished or self._finished >= _MAX_FINISHED:
            return ""
        self._finished += 1
        sent = self.text()
        claimed = self._claimed.setdefault(kind, [])
        end = claimed[-1][1] if claimed else 0
        at = sent.find(finished, end)
        if at < 0 and claimed:
            at = self._in_gaps(sent, finished, claimed)
        if at >= 0:
            _claim(claimed, at, at + len(finished))
            return ""
        gap = sent[end:]
        if gap and finished.startswith(gap):
            _claim(claimed, end, end + len(finished))
            return self._send(finished[len(gap) :])
        if _has_open_gap(sent, claimed):
            # A different version of a text that was sent: it may have been heard and cannot be revoked.
            _claim(claimed, end, len(sent))
            return ""
        _claim(claimed, len(sent), len(sent) + len(finished))
        return self._send(finished)

    def grown_to(self, whole: str) -> str:
        """The part of a snapshot (the whole text so far) that was not sent yet. From now on it counts
        as sent."""
        sent = self.text()
        if not whole.startswith(sent):
            return ""
        return self._send(whole[len(sent) :])

    def _send(self, text: str) -> str:
        self.size += len(text)
        self.pieces.append(text)
        return text

    def _in_gaps(self, sent: str, finished: str, claimed: list[tuple[int, int]]) -> int:
        """The place of `finished` between the matched texts, which may come in another order."""
        begin = 0
        for start, stop in claimed[:_MAX_GAPS]:
            at = sent.find(finished, begin, start)
            if at >= 0:
                return at
            begin = stop
        return -1


def _claim(claimed: list[tuple[int, int]], begin: int, end: int) -> None:
    claimed.append((begin, end))
    if len(claimed) > 1 and claimed[-2] > claimed[-1]:
        claimed.sort()


def _has_open_gap(sent: str, claimed: list[tuple[int, int]]) -> bool:
    begin = 0
    for start, stop in claimed[-_MAX_GAPS:]:
        if len(claimed) <= _MAX_GAPS and sent[begin:start].strip():
            return True
        begin = stop
    return bool(sent[begin:].strip())
