"""The `NotGiven` sentinel and `APIConnectOptions`, used in most signatures.

Holds values only. Knows no loop, no clock, no network.
"""

from __future__ import annotations

import math
from dataclasses import KW_ONLY, dataclass
from functools import cached_property
from typing import Final, TypeAlias, TypeGuard, TypeVar

__all__ = [
    "DEFAULT_API_CONNECT_OPTIONS",
    "NOT_GIVEN",
    "APIConnectOptions",
    "NotGiven",
    "NotGivenOr",
    "is_given",
]

_T = TypeVar("_T")


class NotGiven:
    """Type of the marker for an omitted argument, where ``None`` has a meaning of its own."""

    __slots__ = ()

    def __bool__(self) -> bool:
        return False

    def __repr__(self) -> str:
        return "NOT_GIVEN"


NotGivenOr: TypeAlias = _T | NotGiven
NOT_GIVEN: Final = NotGiven()


def is_given(obj: NotGivenOr[_T]) -> TypeGuard[_T]:
    """True unless `obj` is an instance of `NotGiven`; ``None`` counts as given."""
    return not isinstance(obj, NotGiven)


# The first retry comes quickly, because most failures of a first attempt are stale connections.
_FIRST_RETRY_INTERVAL: Final = 0.1


@dataclass(frozen=True)
class APIConnectOptions:
    """Deadlines and retries of one call. All times are seconds, measured on the event loop's clock.

    The stream itself keeps the deadlines, so a server that sends keep-alives, empty events or half
    a message cannot hold a turn open. For `first_output` and `between_outputs`, only text, thinking
    and tool calls (also parts of their arguments) count as output; comments, pings, role-only and
    usage-only events do not.

    0 and infinity mean no limit. For `total`, 0 leaves no time.

    Raises:
        TypeError: a value is not a number.
        ValueError: a number is negative or NaN.
    """

    max_retry: int = 3
    """Attempts after the first one."""
    retry_interval: float = 2.0
    """Pause before the second and later retries; the first retry waits 0.1 s."""
    timeout: float = 10.0
    """Default of `connect`, `first_output` and `between_outputs`."""
    _: KW_ONLY
    connect: float | None = None
    """Opening the connection: name look-up, TCP, TLS."""
    first_output: float | None = None
    """From the start of an attempt to its first output."""
    between_outputs: float | None = None
    """From one output to the next, or to the end."""
    total: float | None = None
    """The whole reply, including all attempts and pauses. ``None`` means no limit."""

    def __post_init__(self) -> None:
        for name in (
            "max_retry",
            "retry_interval",
            "timeout",
            "connect",
            "first_output",
            "between_outputs",
            "total",
        ):
            value: object = getattr(self, name)
            if value is None and name not in ("max_retry", "retry_interval", "timeout"):
                continue
            kind = int if name == "max_retry" else int | float
            if not isinstance(value, kind) or isinstance(value, bool):
                raise TypeError(
                    f"APIConnectOptions.{name}: expected a number of seconds or attempts, got a "
                    f"{type(value).__name__}"
                )
            if not value >= 0:  # NaN is refused too
                raise ValueError(
                    f"APIConnectOptions.{name}: expected a number of at least 0, got {value!r}"
                )
        if self.retry_interval == math.inf:
            raise ValueError(
                "APIConnectOptions.retry_interval: expected a finite number, got inf; for no further "
                "attempts use max_retry=0"
            )

    @cached_property
    def connect_timeout(self) -> float | None:
        """Seconds for opening the connection; ``None``: no limit."""
        seconds = self.timeout if self.connect is None else self.connect
        return seconds if 0 < seconds < math.inf else None

    @cached_property
    def first_output_timeout(self) -> float:
        """Seconds to the first output, infinite without a limit."""
        return _limit(self.timeout if self.first_output is None else self.first_output)

    @cached_property
    def between_outputs_timeout(self) -> float:
        """Seconds from one output to the next, infinite without a limit."""
        return _limit(self.timeout if self.between_outputs is None else self.between_outputs)

    def _interval_for_retry(self, num_retries: int) -> float:
        return _FIRST_RETRY_INTERVAL if num_retries == 0 else self.retry_interval


def _limit(seconds: float) -> float:
    # 0 has always been allowed as a timeout.
    return seconds if seconds > 0 else math.inf


DEFAULT_API_CONNECT_OPTIONS: Final = APIConnectOptions()
