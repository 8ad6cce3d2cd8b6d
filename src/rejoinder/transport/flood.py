"""Distinguishes a flood of small frames from a burst. Pure."""

from __future__ import annotations

from typing import Final

__all__ = ["MOST_SIGNS", "STRETCH", "Flood"]

STRETCH: Final = 10.0
"""Seconds of one counting period."""
MOST_SIGNS: Final = 50_000
"""Maximum pings, pongs and other control frames in one period."""


class Flood:
    """Counts in periods of `STRETCH` seconds.

    Args:
        most: maximum of one period.
    """

    __slots__ = ("_count", "_most", "_since")

    def __init__(self, most: int) -> None:
        self._most = most
        self._count = 0
        self._since = 0.0

    def one_more(self, now: float) -> bool:
        """Count one. Return whether there are too many."""
        if now - self._since >= STRETCH:
            self._since, self._count = now, 0
        self._count += 1
        return self._count > self._most

    def told(self, what: str) -> str:
        """The error message about the limit."""
        return f"the service sent more than {self._most:,} {what} within {STRETCH:g} s"
