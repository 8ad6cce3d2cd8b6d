"""Separates a model's speech from silence, for services that send sound continuously. Pure."""

from __future__ import annotations

import math
from typing import Final

__all__ = ["SilenceGate"]

_SAMPLE_BYTES: Final = 2
_FULL_SCALE: Final = 32768.0
_EVERY: Final = 8
"""The level of a window is measured on every eighth sample, because speech fills a whole window."""
_LEAD: Final = 3
"""Windows of quiet sound before the first loud one that are played too: the first sound of a word
is quiet."""


class SilenceGate:
    """Open while the model speaks, including the pauses between words.

    Sound is judged in windows of 20 ms, so the result does not depend on the size of the pieces in
    which the service sends it.

    Args:
        sample_rate: samples a second, one channel of 16 bits.
        opens_at: level above which speech begins, as a share of full scale (RMS).
        closes_at: level below which a window counts as quiet.
        pause_ms: milliseconds of quiet that end the speech.
    """

    WINDOW_MS: Final = 20

    def __init__(
        self,
        sample_rate: int,
        *,
        opens_at: float = 0.0018,
        closes_at: float = 0.0011,
        pause_ms: int = 800,
    ) -> None:
        self.window_bytes = sample_rate * _SAMPLE_BYTES * self.WINDOW_MS // 1000
        """Bytes of one window."""
        self._opens_at = opens_at
        self._closes_at = closes_at
        self._pause = max(1, pause_ms // self.WINDOW_MS)
        self._before: list[bytes] = []
        self._quiet = 0
        self.open = False
        """The model speaks."""

    def close(self) -> None:
        """Close the gate: the next sound is new speech."""
        self.open = False
        self._before = []

    def feed(self, window: bytes) -> bytes:
        """The sound to play after this window: nothing while the gate is closed. The window that
        closes it is not played."""
        level = _level(window)
        if not self.open:
            self._before = [*self._before[-_LEAD:], window]
            if level <= self._opens_at:
                return b""
            self.open = True
            self._quiet = 0
            played, self._before = b"".join(self._before), []
            return played
        self._quiet = 0 if level > self._closes_at else self._quiet + 1
        if self._quiet >= self._pause:
            self.open = False
            return b""
        return window


def _level(window: bytes) -> float:
    samples = memoryview(window).cast("h")[::_EVERY]
    if not samples:
        return 0.0
    return math.sqrt(sum(sample * sample for sample in samples) / len(samples)) / _FULL_SCALE
