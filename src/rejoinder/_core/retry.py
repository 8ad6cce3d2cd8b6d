"""Decides whether and when a failed call is tried again.

Pure: `now` and the jitter are passed in. A call is tried again only if the failure is retryable, the
consumer has received nothing yet, an attempt is left, and the pause fits into the remaining time.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC
from typing import Literal, TypeAlias

from rejoinder.errors import APIError
from rejoinder.types import APIConnectOptions

__all__ = ["GiveUp", "Wait", "after", "retry_after_seconds"]

# Up to a quarter is added, so that clients that failed together do not return together.
_JITTER = 0.25


@dataclass(frozen=True, slots=True)
class Wait:
    """Try again after `delay` seconds."""

    delay: float


@dataclass(frozen=True, slots=True)
class GiveUp:
    """Do not try again."""

    reason: Literal["committed", "not retryable", "no attempts left", "no time left"]


Decision: TypeAlias = Wait | GiveUp


def after(
    attempt: int,
    error: APIError,
    *,
    committed: bool,
    options: APIConnectOptions,
    now: float,
    deadline: float | None,
    jitter: float,
) -> Decision:
    """Decide what to do after attempt number `attempt` (from 0) failed with `error`.

    Args:
        committed: text or a tool call has reached the consumer, which would get it twice.
        now: loop time.
        deadline: loop time by which the whole reply must be complete, if there is a limit.
        jitter: a random number in [0, 1).
    """
    if committed:
        return GiveUp("committed")
    if not error.retryable:
        return GiveUp("not retryable")
    if attempt >= options.max_retry:
        return GiveUp("no attempts left")
    delay = options._interval_for_retry(attempt) * (1 + _JITTER * jitter)
    asked = error.retry_after
    if asked is not None:
        # A pause longer than the caller's limit on the first output would be silence; a fallback
        # can answer meanwhile.
        if asked > options.first_output_timeout:
            return GiveUp("no time left")
        delay = asked + _JITTER * jitter * min(asked, 1.0)
    if deadline is not None and now + delay >= deadline:
        return GiveUp("no time left")
    return Wait(delay)


def retry_after_seconds(headers: Mapping[str, str], wall_now: float) -> float | None:
    """The pause a server asks for, from its header fields (lower-case names).

    ``retry-after-ms`` (milliseconds; OpenAI, Azure) counts before ``retry-after`` (RFC 9110
    section 10.2.3: seconds or an HTTP date). A date counts from the ``date`` of the answer, so the
    clock here may be wrong; `wall_now` is for servers that send none. Fractions are accepted, past
    dates mean 0, and unreadable values are ignored.
    """
    milliseconds = _number(headers.get("retry-after-ms"))
    if milliseconds is not None:
        return milliseconds / 1000
    value = headers.get("retry-after")
    seconds = _number(value)
    if seconds is not None or value is None:
        return seconds
    moment = _moment(value)
    if moment is None:
        return None
    answered = _moment(headers.get("date"))
    return max(0.0, moment - (wall_now if answered is None else answered))


def _moment(date: str | None) -> float | None:
    """Seconds since the epoch of an HTTP date."""
    if date is None:
        return None
    # Imported here: it takes as long as this whole package, and dates are rare.
    import email.utils

    try:
        moment = email.utils.parsedate_to_datetime(date)
        if moment.tzinfo is None:
            # Obsolete formats name no zone; all HTTP dates are UTC (RFC 9110, 5.6.7).
            moment = moment.replace(tzinfo=UTC)
        return moment.timestamp()
    except (TypeError, ValueError, IndexError, OverflowError):
        return None


def _number(text: str | None) -> float | None:
    if text is None:
        return None
    try:
        value = float(text)
    except ValueError:
        return None
    return value if 0 <= value < float("inf") else None
