"""The circuit breaker of one model: when it is asked, when it rests, and when a probe may go out.

Pure: (health, event, now) -> health. Breakers use wall time, because several processes may share
them. `Health.of` checks values that other processes wrote.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Final, Literal

from rejoinder._options import AMOUNT, Rule, check
from rejoinder.errors import (
    APIConnectionError,
    APIError,
    APIStatusError,
    ConfigurationError,
    EmptyResponseError,
    RefusalError,
)

__all__ = [
    "HEALTHY",
    "BreakerOptions",
    "Health",
    "Verdict",
    "after_failure",
    "after_success",
    "judge",
    "may_probe",
    "preference",
    "probe_given_up",
    "probing",
]

_FACTOR: Final = Rule("a number of at least 1", AMOUNT.type_fits, lambda number: number >= 1)
_LONGEST_REST: Final = 3600.0
"""Maximum seconds of a rest without a probe, even if a server or another process asks for more."""
_MOST_FAILURES: Final = 1_000_000
_LONGEST_REASON: Final = 80
_SET_BACK: Final = 1.0
"""Seconds. If a time that should be past is further ahead than this, the clock was set back."""
_LAPSE: Final = 1.0
"""If this process was blocked for more seconds than this, a broken connection does not count against
the model."""


@dataclass(frozen=True, slots=True)
class BreakerOptions:
    """The time that a model rests after a failure, in seconds.

    The first rest is `cooldown`; each further one is `factor` times longer, up to `max_cooldown`. A
    random part of up to `jitter` is added, so that processes do not return together. At the end of
    a rest one probe may go out. The probe is leased for `probe_timeout`, so a crashed process cannot
    block the others.

    Raises:
        ConfigurationError: a value is not a number, or is out of range.
    """

    cooldown: float = 1.0
    factor: float = 2.0
    max_cooldown: float = 60.0
    jitter: float = 0.25
    probe_timeout: float = 10.0

    def __post_init__(self) -> None:
        check(
            "BreakerOptions",
            cooldown=(self.cooldown, AMOUNT),
            factor=(self.factor, _FACTOR),
            max_cooldown=(self.max_cooldown, AMOUNT),
            jitter=(self.jitter, AMOUNT),
            probe_timeout=(self.probe_timeout, AMOUNT),
        )


@dataclass(frozen=True, slots=True)
class Health:
    """The state of one model.

    Attributes:
        state: ``closed`` (it is asked), ``open`` (it rests until `until`), ``half_open`` (one probe
            is running, and expires at `until`).
        until: wall time.
        failures: failures in a row that opened the breaker. A successful probe closes the breaker
            and keeps the count, so a model that only answers probes rests longer each time.
        reason: the last of these failures, in a few words.
        since: when the breaker was opened, or closed again (wall time).
    """

    state: Literal["closed", "open", "half_open"] = "closed"
    until: float = 0.0
    failures: int = 0
    reason: str = ""
    since: float = 0.0

    @property
    def available(self) -> bool:
        return self.state == "closed"

    @property
    def untroubled(self) -> bool:
        """Whether a success would change nothing."""
        return self.state == "closed" and not self.failures

    @classmethod
    def of(cls, fields: Mapping[str, Any]) -> Health | None:
        """Read the health that another process, perhaps of another version, has written.

        Unknown fields are ignored. Returns ``None`` if a known field is missing or wrong. Absurd
        numbers are bounded.
        """
        match fields:
            case {
                "state": ("closed" | "open" | "half_open") as state,
                "until": int() | float() as until,
                "failures": int() as failures,
                "reason": str() as reason,
                "since": int() | float() as since,
            } if math.isfinite(until) and math.isfinite(since) and failures >= 0:
                shown = "".join(c if c.isprintable() else " " for c in reason[:_LONGEST_REASON])
                until = min(float(until), since + 2 * _LONGEST_REST)
                return cls(state, until, min(int(failures), _MOST_FAILURES), shown, float(since))
            case _:
                return None


HEALTHY: Final = Health()


@dataclass(frozen=True, slots=True)
class Verdict:
    """The consequences of a failure.

    Attributes:
        trips: the model is at fault and should rest.
        rest: for how many seconds, if the provider specified it.
        final: the request itself is at fault, so no other model should be asked.
        empty: the model sent an empty answer.
    """

    trips: bool
    rest: float | None = None
    final: bool = False
    empty: bool = False


_FAULTS_OF_THE_REQUEST: Final = frozenset({400, 409, 413, 414, 415, 422})


def judge(error: BaseException, *, lapse: float = 0.0) -> Verdict:
    """Decide whether the model, the request or this process is at fault.

    Args:
        lapse: seconds during the call in which this process, or the whole machine, was blocked. A
            connection that broke or timed out then does not count against the model.
    """
    match error:
        case RefusalError():
            return Verdict(trips=False, final=True)
        case EmptyResponseError():
            return Verdict(trips=False, empty=True)
        case ConfigurationError():
            return Verdict(trips=False)
        case APIStatusError(status_code=status) if status in _FAULTS_OF_THE_REQUEST:
            return Verdict(trips=False)
        case APIConnectionError() if lapse > _LAPSE:
            return Verdict(trips=False)
        case APIError(retry_after=int() | float() as rest) if 0 <= rest < math.inf:
            return Verdict(trips=True, rest=rest)
        case _:
            return Verdict(trips=True)


def after_failure(
    health: Health,
    verdict: Verdict,
    *,
    reason: str,
    now: float,
    jitter: float,
    options: BreakerOptions,
    started: float = math.inf,
) -> Health:
    """The health after a failure.

    Args:
        jitter: a random number in [0, 1).
        started: when the failed call was made. Calls from before the model recovered do not count.
    """
    if not verdict.trips:
        return health
    if health.state == "closed" and started < health.since <= now:
        return health
    spread = 1 + options.jitter * jitter
    # A rest of 0 s would make every turn a probe.
    rest = None if not verdict.rest else min(verdict.rest, _LONGEST_REST) * spread
    if health.state == "open" and now < health.until and not _clock_was_set_back(health, now):
        # Another call has already noticed this outage, which counts once. Only a longer rest that
        # the provider asks for is taken over.
        if rest is not None and now + rest > health.until:
            return replace(health, until=now + rest, reason=reason)
        return health
    failures = min(health.failures + 1, _MOST_FAILURES)
    if rest is None:
        # The exponent is limited, because 2 ** 1024 overflows a float.
        power = options.factor ** min(failures - 1, 64)
        rest = min(options.cooldown * power, options.max_cooldown) * spread
    return Health("open", now + rest, failures, reason, now)


def after_success(health: Health, *, started: float, now: float, probe: bool = False) -> Health:
    """The health after an answer to a call that was made at `started`."""
    if health.state == "closed":
        return health if probe or not health.failures else replace(health, failures=0)
    if not probe and (started < health.since <= now or started > now + _SET_BACK):
        return health  # the call is older than the outage, or the clock was set back since
    return Health("closed", 0.0, health.failures if probe else 0, "", now)


def may_probe(health: Health, now: float) -> bool:
    """Whether a probe may be sent now: the rest is over, or the last probe was abandoned."""
    return health.state != "closed" and (health.until <= now or _clock_was_set_back(health, now))


def probing(health: Health, now: float, options: BreakerOptions) -> Health:
    """The health while a probe is on its way."""
    since = min(health.since, now)  # the clock may have been set back
    return replace(health, state="half_open", until=now + options.probe_timeout, since=since)


def probe_given_up(health: Health, now: float) -> Health:
    """The health after a probe was cancelled: another one may go out at once."""
    return replace(health, until=now) if health.state == "half_open" else health


def preference(health: Health) -> tuple[bool, int]:
    """Sort key of models: available ones first, in the given order; then resting ones, those with
    fewer failures first."""
    return (True, health.failures) if not health.available else (False, 0)


def _clock_was_set_back(health: Health, now: float) -> bool:
    """Whether the clock was set back; then a stored time that was near may be hours away."""
    return now < health.since - _SET_BACK
