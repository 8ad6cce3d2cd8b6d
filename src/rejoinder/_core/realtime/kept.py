"""Keeps the user's sound that the next connection, or the next model, needs. Pure."""

from __future__ import annotations

import math
from collections import OrderedDict
from typing import Final, Generic, TypeVar

import msgspec

__all__ = ["KeptSound"]

T = TypeVar("T")

_COMMIT: Final = -1.0
"""Marks a commit; stored where other entries have a length."""


class _Turn(msgspec.Struct, Generic[T]):
    """The sound of a message that has no transcript yet."""

    ms: float
    pieces: list[T]


class KeptSound(Generic[T]):
    """A buffer of the user's sound: turns without a transcript, the current turn, and part of the
    pause before it.

    Args:
        longest: milliseconds kept in all; the oldest sound is dropped first.
        pause: milliseconds kept while the user is silent, for a word that has just begun.
        lead: milliseconds of quiet kept before loud sound.
        slow: milliseconds of quiet after which a slow service has reported any speech that it
            recognised; 0 for services that report speech at once.
    """

    def __init__(
        self, longest: float, *, pause: float = 1000.0, lead: float = 300.0, slow: float = 0.0
    ) -> None:
        self._longest = longest
        self._slow = slow
        self._pause = pause
        self._lead = lead
        self._kept: list[tuple[float, T, bool]] = []
        self._length = 0.0
        self._leading_quiet = 0.0
        """Milliseconds of quiet at the beginning of the buffer."""
        self._all_quiet = True
        self._commits = 0
        self._quiet_for = math.inf
        self._turns: OrderedDict[str, _Turn[T]] = OrderedDict()
        self._turns_ms = 0.0
        self.dropped_ms = 0.0
        """Milliseconds dropped for lack of space although they were wanted."""

    @property
    def loud(self) -> bool:
        """Whether the buffer may hold words that a slow service has not reported yet. A noise that
        the service does not report is forgotten after some seconds of quiet."""
        return self._quiet_for < self._slow

    def __bool__(self) -> bool:
        return bool(self._kept)

    def add(
        self,
        ms: float,
        piece: T,
        *,
        wanted: bool,
        loud: bool | None = None,
        unheard_ms: float = 0.0,
    ) -> None:
        """Keep sound.

        Args:
            ms: its length.
            piece: the sound.
            wanted: the user speaks, or there is no connection.
            loud: whether it may hold speech; ``None`` if that is not known.
            unheard_ms: milliseconds of sound, this piece included, since the last sign of life of
                the service.
        """
        self._quiet_for = 0.0 if loud else self._quiet_for + ms
        quiet = loud is False
        if quiet and self._all_quiet:
            self._leading_quiet += ms
        elif not quiet:
            self._all_quiet = False
        self._kept.append((ms, piece, quiet))
        self._length += ms
        while self._turns and self._length + self._turns_ms > self._longest:
            self._drop_turn(next(iter(self._turns)))
        whole = wanted or self.loud
        limit = self._longest if whole else min(self._longest, self._pause + unheard_ms)
        while self._length > limit and len(self._kept) > 1:
            dropped = self._drop_first()
            if whole:
                self.dropped_ms += dropped
        if wanted:
            return
        while len(self._kept) > 1 and self._leading_quiet - max(self._kept[0][0], 0) >= self._lead:
            self._drop_first()

    def _drop_first(self) -> float:
        """Drop the oldest entry. Return its length."""
        ms, _, quiet = self._kept.pop(0)
        if quiet:
            self._leading_quiet -= ms
        elif self._kept and self._kept[0][2]:
            self._measure()
        if ms == _COMMIT:
            self._commits -= 1
            return 0.0
        self._length -= ms
        return ms

    def _measure(self) -> None:
        """Measure the quiet at the beginning."""
        self._leading_quiet = 0.0
        self._all_quiet = True
        for ms, _, quiet in self._kept:
            if ms == _COMMIT:
                continue
            if not quiet:
                self._all_quiet = False
                return
            self._leading_quiet += ms

    def add_commit(self, piece: T) -> None:
        """Keep a commit of the sound pushed before it."""
        self._kept.append((_COMMIT, piece, False))
        self._all_quiet = False
        self._commits += 1

    def committed(self, turn_id: str | None = None) -> None:
        """The service confirmed a commit: the oldest kept one, or one that it made itself.

        Args:
            turn_id: the message that the sound became; its sound is kept until `written`. Words
                that began after the last quiet moment belong to the next turn.
        """
        turn: _Turn[T] = _Turn(0.0, [])
        own = not self._commits
        last = len(self._kept) - (self._just_begun() if own else 0)
        for _ in range(last):
            ms, piece, _ = self._kept.pop(0)
            if ms == _COMMIT:
                self._commits -= 1
                break
            self._length -= ms
            turn.ms += ms
            turn.pieces.append(piece)
        self._measure()
        if own:
            self._quiet_for = math.inf
        if turn_id is not None and turn.pieces:
            self._drop_turn(turn_id)
            self._turns[turn_id] = turn
            self._turns_ms += turn.ms

    def _just_begun(self) -> int:
        """The number of loud entries at the end that follow a quiet one. Zero if they are too long
        to have begun while a commit was reported."""
        length = 0.0
        for found, (ms, _, quiet) in enumerate(reversed(self._kept)):
            if quiet:
                return found
            length += ms
            if length > self._lead:
                break
        return 0

    def clear(self) -> None:
        """Forget the sound that is not part of a message."""
        self._kept.clear()
        self._length = self._leading_quiet = 0.0
        self._all_quiet = True
        self._commits = 0
        self._quiet_for = math.inf

    # -- turns without a transcript ----------------------------------------------------------

    @property
    def turns(self) -> list[str]:
        """The messages whose sound is kept, oldest first."""
        return list(self._turns)

    def sound_of(self, turn_id: str) -> list[T]:
        """The sound of a message, if it is kept."""
        turn = self._turns.get(turn_id)
        return [] if turn is None else list(turn.pieces)

    def written(self, turn_id: str) -> None:
        """The message has its text, so its sound is no longer needed."""
        self._drop_turn(turn_id)

    def forget_turns(self) -> None:
        """Forget the sound of all messages."""
        self._turns.clear()
        self._turns_ms = 0.0

    def recall(self, turn_id: str, commit: T | None = None) -> None:
        """Put the sound of the newest message back to the beginning of the buffer, to be pushed
        again. `commit` follows it."""
        turn = self._turns.pop(turn_id, None)
        if turn is None:
            return
        self._turns_ms -= turn.ms
        each = turn.ms / len(turn.pieces)
        again = [(each, piece, False) for piece in turn.pieces]
        if commit is not None:
            again.append((_COMMIT, commit, False))
            self._commits += 1
        self._kept[:0] = again
        self._length += turn.ms
        self._measure()

    def _drop_turn(self, turn_id: str) -> None:
        turn = self._turns.pop(turn_id, None)
        if turn is not None:
            self._turns_ms -= turn.ms

    # -- the buffer ----------------------------------------------------------------------------

    def forget(self, mark: T) -> int:
        """Remove the commits that `mark` stands for. Return the number of other commits."""
        self._kept = [entry for entry in self._kept if entry[0] != _COMMIT or entry[1] is not mark]
        self._commits = sum(1 for ms, _, _ in self._kept if ms == _COMMIT)
        return self._commits

    def entries(self) -> list[T]:
        """The whole buffer, oldest first."""
        return [piece for _, piece, _ in self._kept]
