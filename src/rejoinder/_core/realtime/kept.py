"""Keeps the user's sound that the next connection, or the next model, needs. Pure."""

from __future__ import annotations

import math
from collections import deque
from typing import Final, Generic, TypeVar

__all__ = ["KeptSound"]

T = TypeVar("T")

_COMMIT: Final = -1.0
"""Marks a commit; stored where other entries have a length."""
_UNHEARD_MS: Final = 6000.0
"""Milliseconds of quiet after which a service has reported any speech that it recognised."""


class KeptSound(Generic[T]):
    """A buffer of the user's sound: the current turn, and part of the pause before it.

    Args:
        longest: milliseconds kept while the user speaks or while there is no connection.
        pause: milliseconds kept while the user is silent, for a word that has just begun.
    """

    def __init__(self, longest: float, pause: float = 1000.0) -> None:
        self._longest = longest
        self._pause = pause
        self._kept: deque[tuple[float, T]] = deque()
        self._length = 0.0
        self._commits = 0
        self._quiet_for = math.inf
        self.dropped_ms = 0.0
        """Milliseconds dropped for lack of space although they were wanted."""

    @property
    def loud(self) -> bool:
        """Whether the buffer may hold words that the service has not reported yet. A noise that the
        service does not report is forgotten after some seconds of quiet."""
        return self._quiet_for < _UNHEARD_MS

    def __bool__(self) -> bool:
        return bool(self._kept)

    def add(self, ms: float, piece: T, *, wanted: bool, loud: bool = False) -> None:
        """Keep sound. `wanted`: the user speaks, or there is no connection. `loud`: it may hold
        speech that a slow service has not reported yet."""
        self._quiet_for = 0.0 if loud else self._quiet_for + ms
        wanted = wanted or self.loud
        self._kept.append((ms, piece))
        self._length += ms
        limit = self._longest if wanted else self._pause
        while self._length > limit and len(self._kept) > 1:
            old, _ = self._kept.popleft()
            if old == _COMMIT:
                self._commits -= 1
                continue
            self._length -= old
            if wanted:
                self.dropped_ms += old

    def add_commit(self, piece: T) -> None:
        """Keep a commit of the sound pushed before it."""
        self._kept.append((_COMMIT, piece))
        self._commits += 1

    def committed(self) -> None:
        """The service confirmed a commit, the oldest of those that are kept or one of its own."""
        if not self._commits:
            self.clear()
            return
        while self._kept:
            ms, _ = self._kept.popleft()
            if ms == _COMMIT:
                self._commits -= 1
                return
            self._length -= ms

    def clear(self) -> None:
        """Forget all sound pushed so far."""
        self._kept.clear()
        self._length = 0.0
        self._commits = 0
        self._quiet_for = math.inf

    def forget(self, mark: T) -> int:
        """Remove the commits that `mark` stands for. Return the number of other commits."""
        self._kept = deque(
            (ms, piece) for ms, piece in self._kept if ms != _COMMIT or piece is not mark
        )
        self._commits = sum(1 for ms, _ in self._kept if ms == _COMMIT)
        return self._commits

    def entries(self) -> list[T]:
        """The whole buffer, oldest first."""
        return [piece for _, piece in self._kept]
