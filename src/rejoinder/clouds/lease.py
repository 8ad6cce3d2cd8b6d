"""How long credentials may be used."""

from __future__ import annotations

import time

from rejoinder import _stamps

__all__ = ["Lease"]


class Lease:
    """The period for which credentials obtained now are valid.

    It ends when either of two clocks reaches its end: the wall clock can be set back, and the
    monotonic clock may stop while the machine sleeps.

    Args:
        seconds: how long; infinite for no limit.
    """

    __slots__ = ("_by_steady_clock", "_by_wall_clock")

    def __init__(self, seconds: float) -> None:
        self._by_wall_clock = _stamps.wall_now() + seconds
        self._by_steady_clock = time.monotonic() + seconds

    @property
    def over(self) -> bool:
        return (
            _stamps.wall_now() >= self._by_wall_clock or time.monotonic() >= self._by_steady_clock
        )
