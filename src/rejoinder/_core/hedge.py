"""When silence is worth a second request: how fast a model usually is, and how often to ask twice.

Pure. The delay is a percentile of a model's recent times to its first token. It is computed from the
short and the middle times, assuming a log-normal distribution. The longest times cannot be used: they
include stalls, which a hedge must precede, and lack the times that earlier hedges cut off.
"""

from __future__ import annotations

import math
from collections import deque
from dataclasses import dataclass
from statistics import NormalDist

from rejoinder._options import AMOUNT, WHOLE, Rule, check
from rejoinder.errors import ConfigurationError

__all__ = ["Gate", "Hedge", "Pace"]

_PERCENTILE = Rule(
    "a number from 0.5 to below 1", AMOUNT.type_fits, lambda number: 0.5 <= number < 1
)
_SHARE = Rule("a number from 0 to 1", AMOUNT.type_fits, lambda number: 0 <= number <= 1)
_SAMPLES = Rule("a whole number of at least 4", WHOLE.type_fits, lambda number: number >= 4)
_LOW, _HIGH = 0.10, 0.75
_Z_BETWEEN = NormalDist().inv_cdf(_HIGH) - NormalDist().inv_cdf(_LOW)


@dataclass(frozen=True, slots=True)
class Hedge:
    """Ask a second model as well if the first one is silent for too long.

    Attributes:
        delay: seconds of silence before the second model is asked; ``None`` learns it.
        percentile: the learned delay is this percentile of the model's recent times to first token.
            0.98 means that two of a hundred ordinary turns are asked twice.
        max_share: the largest share of turns that is hedged in the long run.
        min_samples: turns to learn from before the first hedge.
        window: turns that are remembered, for the percentile and for the share.
        min_delay: lower limit of a learned delay in seconds.

    Raises:
        ConfigurationError: a value is not a number, or is out of range.
    """

    delay: float | None = None
    percentile: float = 0.98
    max_share: float = 0.08
    min_samples: int = 20
    window: int = 200
    min_delay: float = 0.05

    def __post_init__(self) -> None:
        check(
            "Hedge",
            delay=(self.delay, AMOUNT.optional),
            percentile=(self.percentile, _PERCENTILE),
            max_share=(self.max_share, _SHARE),
            min_samples=(self.min_samples, _SAMPLES),
            window=(self.window, WHOLE),
            min_delay=(self.min_delay, AMOUNT),
        )
        if self.window < self.min_samples:
            raise ConfigurationError(
                f"Hedge: expected window to hold min_samples ({self.min_samples}), got {self.window}"
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
        """The time within which a share `p` of ordinary turns has its first token."""
        known = self._delay
        if known is not None and known[0] == p:
            return known[1]
        times = sorted(self._times)
        low, middle, high = (times[int(len(times) * q)] for q in (_LOW, 0.5, _HIGH))
        sigma = math.log(high / low) / _Z_BETWEEN
        value = middle * math.exp(NormalDist().inv_cdf(p) * sigma)
        # If the times hardly differ, the percentile would lie right on top of them.
        value = max(value, 1.25 * middle)
        self._delay = (p, value)
        return value


class Gate:
    """Keeps the share of hedged turns below the cap: every turn earns `max_share` of a hedge, and a
    hedge spends one. Unspent credit is kept for bad times, up to half a window's worth."""

    __slots__ = ("_credit", "options")

    def __init__(self, options: Hedge) -> None:
        self.options = options
        # The first one is free, otherwise a young process could never hedge.
        self._credit = 1.0 if options.max_share else 0.0

    def delay(self, pace: Pace) -> float | None:
        """Seconds of silence before a hedge beside a model of this pace; ``None``: no hedge. When the
        time has come, `take` decides: other turns may have spent the credit meanwhile."""
        options = self.options
        if self._credit < 1.0:
            return None
        if options.delay is not None:
            return options.delay
        if len(pace) < options.min_samples:
            return None
        return max(pace.percentile(options.percentile), options.min_delay)

    def take(self) -> bool:
        """Spend the price of one hedge. Returns whether there was enough credit."""
        if self._credit < 1.0:
            return False
        self._credit -= 1.0
        return True

    def turned(self) -> None:
        """A turn is over: add what it earns."""
        options = self.options
        most = max(1.0, options.max_share * options.window / 2)
        self._credit = min(most, self._credit + options.max_share)
