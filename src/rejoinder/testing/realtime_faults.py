"""Faults of a realtime service, and their expected outcomes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

__all__ = ["REALTIME_OUTCOMES", "RealtimeFault", "RealtimeOutcome", "Stage"]


class Stage(StrEnum):
    """When a fault happens."""

    CONNECT = "connect"
    """On the next connection."""
    REPLY = "reply"
    """On the next request for a reply."""


class RealtimeFault(StrEnum):
    """A fault that `RealtimeService` applies to a connection or a request. The value is its name in
    test ids and in the docs."""

    # to a connection
    REFUSE_401 = "refuse_401"
    """The upgrade is refused with status 401."""
    REFUSE_404 = "refuse_404"
    """The upgrade is refused with status 404."""
    REFUSE_429 = "refuse_429"
    """The upgrade is refused with status 429."""
    REFUSE_503 = "refuse_503"
    """The upgrade is refused with status 503."""
    NEVER_READY = "never_ready"
    """The connection opens, and the service never sends anything."""
    CLOSE_AT_ONCE = "close_at_once"
    """The connection opens and is closed with code 1011."""
    WRONG_MODEL = "wrong_model"
    """The connection opens and is closed with code 1008 and the vendor's reason text."""
    NO_CREDIT = "no_credit"
    """The connection opens; the first event reports that there is no credit."""

    # to a reply
    NEVER_ANSWERS = "never_answers"
    """The request is read, and no reply begins."""
    LATE = "late"
    """The reply begins 15 seconds after the request."""
    TWICE = "twice"
    """Every event of the reply is sent twice."""
    BACKWARDS = "backwards"
    """The events of the reply come in reverse order."""
    NO_BEGINNING = "no_beginning"
    """The reply ends without having begun."""
    NO_END = "no_end"
    """The reply is spoken, and its end is never sent."""
    UNKNOWN_EVENTS = "unknown_events"
    """A correct reply, mixed with events of unknown types."""
    GARBAGE = "garbage"
    """A correct reply, mixed with frames that are not JSON or not an event."""
    ODD_TYPES = "odd_types"
    """A correct reply, mixed with events whose fields have wrong types."""
    REFUSED = "refused"
    """An error event names the request."""
    RATE_LIMIT = "rate_limit"
    """An error event reports a rate limit."""
    BUSY = "busy"
    """The service's own reply occupies the session, and ends later."""
    FAILED = "failed"
    """The reply ends with the status ``failed``."""
    FILTERED = "filtered"
    """The reply ends with the status ``incomplete``: a content filter."""
    QUOTA = "quota"
    """The reply ends with the status ``failed``: no credit is left."""
    DROP_BEFORE = "drop_before"
    """The connection breaks without a close frame, instead of a reply."""
    DROP_MID_REPLY = "drop_mid_reply"
    """The connection breaks without a close frame after the first word."""
    CAP = "cap"
    """The connection is closed with code 1001 after the first word: the session is too old."""
    CLOSE_1000 = "close_1000"
    """The connection is closed with code 1000 after the first word."""
    CLOSE_1011 = "close_1011"
    """The connection is closed with code 1011 after the first word."""
    CLOSE_4000 = "close_4000"
    """The connection is closed after the first word with code 4000, which no standard defines."""
    HALF_OPEN = "half_open"
    """After the request, the service stops reading and writing; the connection stays open."""

    @property
    def stage(self) -> Stage:
        """When it happens."""
        return Stage.CONNECT if self in _AT_CONNECT else Stage.REPLY


_AT_CONNECT: Final = frozenset(
    {
        RealtimeFault.REFUSE_401,
        RealtimeFault.REFUSE_404,
        RealtimeFault.REFUSE_429,
        RealtimeFault.REFUSE_503,
        RealtimeFault.NEVER_READY,
        RealtimeFault.CLOSE_AT_ONCE,
        RealtimeFault.WRONG_MODEL,
        RealtimeFault.NO_CREDIT,
    }
)


@dataclass(frozen=True)
class RealtimeOutcome:
    """The expected outcome of a fault.

    Attributes:
        reply: how the reply of the request ends, by its `ReplyStatus`; ``None``: the request fails.
        code: the code of the `RealtimeError` with which the request fails, if it is certain.
        fatal: the session is over; otherwise the next request gets a reply.
    """

    reply: str | None = "completed"
    code: str | None = None
    fatal: bool = False


_FATAL: Final = RealtimeOutcome(reply=None, fatal=True)

REALTIME_OUTCOMES: Final[Mapping[RealtimeFault, RealtimeOutcome]] = {
    RealtimeFault.REFUSE_401: _FATAL,
    RealtimeFault.REFUSE_404: _FATAL,
    RealtimeFault.REFUSE_429: RealtimeOutcome(),
    RealtimeFault.REFUSE_503: RealtimeOutcome(),
    RealtimeFault.NEVER_READY: RealtimeOutcome(reply=None, code="timeout"),
    RealtimeFault.CLOSE_AT_ONCE: RealtimeOutcome(),
    RealtimeFault.WRONG_MODEL: _FATAL,
    RealtimeFault.NO_CREDIT: _FATAL,
    RealtimeFault.NEVER_ANSWERS: RealtimeOutcome(reply=None, code="timeout"),
    RealtimeFault.LATE: RealtimeOutcome(reply=None, code="timeout"),
    RealtimeFault.TWICE: RealtimeOutcome(),
    RealtimeFault.BACKWARDS: RealtimeOutcome(reply=None),
    RealtimeFault.NO_BEGINNING: RealtimeOutcome(reply=None),
    RealtimeFault.NO_END: RealtimeOutcome(reply="failed"),
    RealtimeFault.UNKNOWN_EVENTS: RealtimeOutcome(),
    RealtimeFault.GARBAGE: RealtimeOutcome(),
    RealtimeFault.ODD_TYPES: RealtimeOutcome(),
    RealtimeFault.REFUSED: RealtimeOutcome(reply=None, code="invalid_value"),
    RealtimeFault.RATE_LIMIT: RealtimeOutcome(reply=None, code="inference_rate_limit_exceeded"),
    RealtimeFault.BUSY: RealtimeOutcome(),
    RealtimeFault.FAILED: RealtimeOutcome(reply="failed"),
    RealtimeFault.FILTERED: RealtimeOutcome(reply="incomplete"),
    RealtimeFault.QUOTA: RealtimeOutcome(reply="failed", fatal=True),
    RealtimeFault.DROP_BEFORE: RealtimeOutcome(),
    RealtimeFault.DROP_MID_REPLY: RealtimeOutcome(reply="failed"),
    RealtimeFault.CAP: RealtimeOutcome(reply="failed"),
    RealtimeFault.CLOSE_1000: RealtimeOutcome(reply="failed"),
    RealtimeFault.CLOSE_1011: RealtimeOutcome(reply="failed"),
    RealtimeFault.CLOSE_4000: RealtimeOutcome(reply="failed"),
    RealtimeFault.HALF_OPEN: RealtimeOutcome(reply=None, code="timeout"),
}
"""The outcome of each fault in sessions of this package, with default deadlines."""
