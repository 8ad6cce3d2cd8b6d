"""Until when a reply may be silent: which of the limits comes first.

Pure: all moments are loop times that are passed in. The shell keeps one timer and asks again when
it fires, so that a chunk costs no timer.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

from rejoinder.types import APIConnectOptions

__all__ = ["Deadlines", "Due"]


@dataclass(frozen=True, slots=True)
class Due:
    """The next moment at which patience ends, and with what."""

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


@dataclass(frozen=True, slots=True)
class Deadlines:
    first_output: float
    between_outputs: float
    total: float

    @classmethod
    def of(cls, options: APIConnectOptions) -> Deadlines:
        return cls(
            first_output=options.first_output_timeout,
            between_outputs=options.between_outputs_timeout,
            total=math.inf if options.total is None else options.total,
        )

    def due(
        self, *, started_at: float, attempt_at: float, progress_at: float | None, paused: bool
    ) -> Due:
        """The earliest limit. While reading is `paused` for a slow consumer, the provider owes
        nothing and only the whole reply is limited."""
        whole = Due(started_at + self.total, "whole reply", self.total)
        if paused:
            return whole
        if progress_at is None:
            silence = Due(attempt_at + self.first_output, "first output", self.first_output)
        else:
            silence = Due(progress_at + self.between_outputs, "next output", self.between_outputs)
        return silence if silence.at < whole.at else whole
