"""The health of several models, as seen by the turns that use them: breakers, announcements, probes.

Knows no event loop. `simulate_policy` uses it with a clock of its own.
"""

from __future__ import annotations

import math
import os
import random
from collections.abc import Callable, Sequence

from rejoinder import _stamps
from rejoinder._core.breaker import (
    BreakerOptions,
    Health,
    after_failure,
    after_success,
    judge,
    may_probe,
    probe_given_up,
    probing,
)
from rejoinder.errors import APIStatusError
from rejoinder.llm._breakers import Breakers, HealthStore

__all__ = ["HealthBoard"]


class HealthBoard:
    """Which models are available. Safe to use from several threads.

    Args:
        keys: a key for each model; models with the same key share a breaker.
        shared: see `FallbackAdapter`.
        announce: called with the number of a model and whether it is available, when that changes.
        wall: returns the wall time.
        dice: returns a random number in [0, 1).
    """

    def __init__(
        self,
        keys: Sequence[str],
        options: BreakerOptions,
        shared: str | os.PathLike[str] | HealthStore | None = None,
        *,
        announce: Callable[[int, bool], None],
        wall: Callable[[], float] | None = None,
        dice: Callable[[], float] = random.random,
    ) -> None:
        self._keys = list(keys)
        self._options = options
        self._breakers = Breakers(keys, shared)
        self._announce = announce
        self._wall = wall
        self._dice = dice
        self._available = dict.fromkeys(keys, True)
        self._followers: dict[object, Callable[[], None]] = {}

    @property
    def shared(self) -> bool:
        """Whether other processes share the state."""
        return self._breakers.shared

    @property
    def probe_timeout(self) -> float:
        return self._options.probe_timeout

    def wall(self) -> float:
        return _stamps.wall_now() if self._wall is None else self._wall()

    def read(self) -> list[Health]:
        """The current health of all models, including what other processes found out."""
        healths = self._breakers.read()
        news = [self._tell(index, health) for index, health in enumerate(healths)]
        if any(news):
            self._notify()
        return healths

    def follow(self, who: object, changed: Callable[[], None]) -> None:
        """Call `changed` whenever the health of a model has changed, in any thread."""
        self._followers[who] = changed

    def unfollow(self, who: object) -> None:
        self._followers.pop(who, None)

    def failed(
        self, index: int, error: BaseException, *, started: float = math.inf, lapse: float = 0.0
    ) -> None:
        """A call that was made at `started` (wall time) has failed; see `judge` for `lapse`."""
        verdict = judge(error, lapse=lapse)
        if not verdict.trips:
            return
        now, jitter = self.wall(), self._dice()

        def step(health: Health) -> Health:
            return after_failure(
                health,
                verdict,
                reason=error_label(error),
                now=now,
                jitter=jitter,
                options=self._options,
                started=started,
            )

        self._change(index, step)

    def succeeded(self, index: int, *, started: float, probe: bool = False) -> None:
        """A call that was made at `started` (wall time) was answered."""
        if self._breakers.known(self._keys[index]).untroubled:
            return
        now = self.wall()
        self._change(
            index, lambda health: after_success(health, started=started, now=now, probe=probe)
        )

    def claim_probe(self, index: int) -> bool:
        """Whether the caller should probe the model. If so, no other caller does meanwhile."""
        now = self.wall()
        return self._change(
            index,
            lambda health: (
                probing(health, now, self._options) if may_probe(health, now) else health
            ),
        )

    def give_up_probe(self, index: int) -> None:
        """Release a claimed probe that is not made, so that another caller may probe."""
        now = self.wall()
        self._change(index, lambda health: probe_given_up(health, now))

    def close(self) -> None:
        self._breakers.close()

    # -- inside ------------------------------------------------------------------------------

    def _change(self, index: int, step: Callable[[Health], Health]) -> bool:
        before, after = self._breakers.change(self._keys[index], step)
        self._tell(index, after)
        if before == after:
            return False
        self._notify()
        return True

    def _tell(self, index: int, health: Health) -> bool:
        key = self._keys[index]
        if self._available[key] == health.available:
            return False
        self._available[key] = health.available
        self._announce(index, health.available)
        return True

    def _notify(self) -> None:
        for changed in tuple(self._followers.values()):  # a copy: other threads may change it
            changed()


def error_label(error: BaseException) -> str:
    """A short label of an error that is safe to share. The error's own text may quote secrets."""
    name = type(error).__name__
    match error:
        case APIStatusError(status_code=int() as status) if status > 0:
            return f"{name} {status}"
        case _:
            return name
