"""How long credentials may be used."""

from __future__ import annotations

import time

from rejoinder import _stamps

__all__ = ["Lease"]


class Lease:
    """The time for which something that was had now may be used.

    It ends by the clock that reaches the end first. The wall clock can be set back; the steady clock may
    stand still while the machine sleeps.

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
