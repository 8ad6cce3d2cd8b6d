"""Time limits of a reply: which one ends first, and when.

Pure: all times are loop times that are passed in. The shell has one timer and asks again when it
fires, so a chunk needs no timer.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, Literal, NamedTuple

from rejoinder._core.meter import Pulse
from rejoinder.errors import APITimeoutError

__all__ = ["Deadlines", "Due", "Patience"]


_SECTIONS: Final = {
    "first output": "no output",
    "next output": "no further output",
    "whole reply": "whole reply",
}


class Due(NamedTuple):
    """The next moment at which a limit ends, and which one."""

    at: float
    limit: Literal["first output", "next output", "whole reply"]
    seconds: float

    def __str__(self) -> str:
        match self.limit:
            case "first output":
                return f"no output within {self.seconds:g} s"
            case "next output":
                return f"no further output within {self.seconds:g} s"
            case "whole reply":
                return f"the reply was not complete within {self.seconds:g} s"


class Deadlines(NamedTuple):
    """The limits of one call, in seconds; infinite without a limit."""

    first_output: float
    between_outputs: float
    total: float

    def due(
        self,
        *,
        started_at: float,
        attempt_at: float,
        progress_at: float | None,
        paused: bool,
        excused: float = 0.0,
    ) -> Due:
        """The limit that ends first.

        Args:
            started_at: start of the reply.
            attempt_at: start of this attempt.
            progress_at: the last output of this attempt, if there was one.
            paused: reading is paused for a slow consumer. No output is due then, and only the limit
                on the whole reply counts.
            excused: seconds since the last output in which the event loop was blocked. They extend
                the limits on silence, not the limit on the whole reply.
        """
        whole = started_at + self.total
        if not paused:
            if progress_at is None:
                at = attempt_at + self.first_output + excused
                if at < whole:
                    return Due(at, "first output", self.first_output)
            else:
                at = progress_at + self.between_outputs + excused
                if at < whole:
                    return Due(at, "next output", self.between_outputs)
        return Due(whole, "whole reply", self.total)


@dataclass(slots=True)
class Patience:
    """The time limits of one running attempt.

    Args:
        pulse: returns the present state of the attempt.
    """

    deadlines: Deadlines
    started_at: float
    attempt_at: float
    pulse: Callable[[], Pulse]
    latest: Due | None = None
    """The limit that ends first, as of the last call of `moment`."""
    _excused: float = 0.0
    _excused_since: float | None = None

    def moment(self) -> float:
        """The loop time at which the first limit ends."""
        progress_at, paused, _ = self.pulse()
        due = self.latest = self.deadlines.due(
            started_at=self.started_at,
            attempt_at=self.attempt_at,
            progress_at=progress_at,
            paused=paused,
            excused=self._excused if progress_at == self._excused_since else 0.0,
        )
        return due.at

    def overdue(self, label: str) -> APITimeoutError:
        """The error for the limit that has passed."""
        due = self.latest
        error = APITimeoutError(f"{label}: {due}")
        return error if due is None else error.but(section=_SECTIONS[due.limit])

    def excuse(self, seconds: float) -> None:
        """Subtract the time that the event loop was blocked from the provider's silence."""
        progress_at = self.pulse().progress_at
        if progress_at != self._excused_since:
            self._excused, self._excused_since = 0.0, progress_at
        self._excused += seconds
