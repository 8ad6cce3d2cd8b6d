"""When silence is worth a second request: how fast a model usually is, and how often we may ask twice.

Pure. The delay is a percentile of a model's recent times to its first token. It is reckoned from the
quick and the middling times, under the assumption that all are log-normal, and not read from the
largest ones: those hold the stalls (a hedge has to come long before them) and lack what earlier
hedges cut off, and both would spoil it.
"""

from __future__ import annotations

import math
from collections import deque
from dataclasses import dataclass
from statistics import NormalDist

__all__ = ["Gate", "Hedge", "Pace"]

_LOW, _HIGH = 0.10, 0.75
_Z_BETWEEN = NormalDist().inv_cdf(_HIGH) - NormalDist().inv_cdf(_LOW)


@dataclass(frozen=True, slots=True)
class Hedge:
    """Ask the next model too when the first one keeps silent.

    Attributes:
        delay: seconds of silence; ``None`` learns it.
        percentile: of the first model's recent times to first token, if it is learned. 0.98 means
            that two of a hundred ordinary turns are asked twice.
        max_share: at most this share of the turns is hedged in the long run.
        min_samples: turns to learn from before the first hedge.
        window: turns that are remembered, for the percentile and for the share.
        min_delay: seconds; a learned delay is not shorter.

    Raises:
        ValueError: a number is out of its range.
    """

    delay: float | None = None
    percentile: float = 0.98
    max_share: float = 0.08
    min_samples: int = 20
    window: int = 200
    min_delay: float = 0.05

    def __post_init__(self) -> None:
        if self.delay is not None and self.delay < 0:
            raise ValueError(f"Hedge.delay: expected at least 0, got {self.delay!r}")
        if not 0.5 <= self.percentile < 1:
            raise ValueError(
                f"Hedge.percentile: expected a number from 0.5 to below 1, got {self.percentile!r}"
            )
        if not 0 <= self.max_share <= 1:
            raise ValueError(f"Hedge.max_share: expected 0 to 1, got {self.max_share!r}")
        if self.min_samples < 4 or self.window < self.min_samples:
            raise ValueError(
                "Hedge: expected min_samples of at least 4 and a window that holds them, got "
                f"{self.min_samples!r} and {self.window!r}"
            )


class Pace:
    """A model's recent times to its first token, in seconds."""

    __slots__ = ("_delay", "_times")

    def __init__(self, window: int) -> None:
        self._times: deque[float] = deque(maxlen=window)
        self._delay: tuple[float, float] | None = None

    def __len__(self) -> int:
        return len(self._times)

    def add(self, seconds: float) -> None:
        self._times.append(max(seconds, 1e-6))
        self._delay = None

    def percentile(self, p: float) -> float:
        """The time by which a share `p` of the ordinary turns have begun to speak."""
        known = self._delay
        if known is not None and known[0] == p:
            return known[1]
        times = sorted(self._times)
        low, middle, high = (times[int(len(times) * q)] for q in (_LOW, 0.5, _HIGH))
        sigma = math.log(high / low) / _Z_BETWEEN
        value = middle * math.exp(NormalDist().inv_cdf(p) * sigma)
        # Times that hardly differ would put the limit right on top of them.
        value = max(value, 1.25 * middle)
        self._delay = (p, value)
        return value


class Gate:
    """Keeps the share of hedged turns below the cap: every turn earns `max_share` of a hedge, and
    a hedge spends one. What is not spent is kept for bad times, up to half a window's worth."""

    __slots__ = ("_credit", "options")

    def __init__(self, options: Hedge) -> None:
        self.options = options
        # The first one is free, otherwise a young process could never have any.
        self._credit = 1.0 if options.max_share else 0.0

    def delay(self, pace: Pace, *, all_available: bool) -> float | None:
        """After how much silence to hedge the turn that begins now; ``None``: not at all. When that
        time has come, `take` has the last word: others may have hedged meanwhile.

        While a model is known to be down there is no hedging: its load is on the others already.
        """
        options = self.options
        if not all_available or self._credit < 1.0:
            return None
        if options.delay is not None:
            return options.delay
        if len(pace) < options.min_samples:
            return None
        return max(pace.percentile(options.percentile), options.min_delay)

    def take(self) -> bool:
        """Spend what a hedge costs, if there is enough left."""
        if self._credit < 1.0:
            return False
        self._credit -= 1.0
        return True

    def turned(self) -> None:
        """A turn is over."""
        options = self.options
        most = max(1.0, options.max_share * options.window / 2)
        self._credit = min(most, self._credit + options.max_share)
