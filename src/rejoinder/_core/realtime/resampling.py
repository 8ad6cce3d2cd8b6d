"""Sound at another rate, with the standard library alone. Pure.

A low-pass filter of the windowed-sinc kind, evaluated only where the new samples are. A second
of sound takes 30 to 50 ms of one core; libraries in C are faster, and not needed for one caller.
"""

from __future__ import annotations

import math
from array import array
from collections.abc import Sequence
from functools import lru_cache
from operator import mul
from typing import Final

__all__ = ["Resampler", "mono"]

_CROSSINGS: Final = 8
"""Zero crossings of the sinc on each side: the steepness of the filter."""
_BAND: Final = 0.92
"""What of the band that fits the lower rate is kept."""
_PHASES: Final = 256
"""Positions between two samples that are told apart, at most."""


class Resampler:
    """Changes the rate of one channel of 16-bit samples, piece by piece.

    Args:
        source: samples a second of what comes.
        target: samples a second of what is wanted.
    """

    def __init__(self, source: int, target: int) -> None:
        common = math.gcd(source, target)
        self._step, self._up = source // common, target // common
        self._bank = _bank(self._step, self._up)
        self._width = len(self._bank[0])
        # The middle of the first filter is the first sample.
        self._past = [0] * (self._width // 2 - 1)
        self._at = 0

    def feed(self, samples: Sequence[int]) -> bytes:
        """The samples that follow from `samples` and what came before."""
        held = [*self._past, *samples]
        bank, width, up, step = self._bank, self._width, self._up, self._step
        phases = len(bank)
        out = array("h")
        at = self._at
        last = len(held) - width
        while (index := at // up) <= last:
            taps = bank[(at - index * up) * phases // up]
            value = round(sum(map(mul, taps, held[index : index + width])))
            out.append(-32768 if value < -32768 else 32767 if value > 32767 else value)
            at += step
        drop = min(at // up, len(held))
        self._past = held[drop:]
        self._at = at - drop * up
        return out.tobytes()


def mono(samples: Sequence[int], channels: int) -> Sequence[int]:
    """The mean of interleaved channels."""
    if channels == 1:
        return samples
    rows = [samples[channel::channels] for channel in range(channels)]
    return [sum(row) // channels for row in zip(*rows, strict=True)]


@lru_cache(maxsize=8)
def _bank(step: int, up: int) -> list[tuple[float, ...]]:
    """The filter at each position between two samples; each lets silence and a steady level pass."""
    cutoff = min(1.0, up / step) * _BAND
    half = math.ceil(_CROSSINGS / cutoff)
    phases = min(up, _PHASES)
    bank: list[tuple[float, ...]] = []
    for phase in range(phases):
        taps = [_tap(place + 1 - half - phase / phases, cutoff, half) for place in range(2 * half)]
        whole = sum(taps)
        bank.append(tuple(tap / whole for tap in taps))
    return bank


def _tap(distance: float, cutoff: float, half: int) -> float:
    if abs(distance) >= half:
        return 0.0
    window = 0.5 + 0.5 * math.cos(math.pi * distance / half)
    turned = math.pi * distance * cutoff
    return window * (math.sin(turned) / turned if turned else 1.0)
