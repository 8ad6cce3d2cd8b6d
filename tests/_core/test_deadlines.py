"""Which limit of a reply comes first."""

from __future__ import annotations

import math

import pytest

from rejoinder._core.deadlines import Deadlines, Patience
from rejoinder._core.meter import Pulse
from rejoinder.types import APIConnectOptions

LIMITS = Deadlines(first_output=10, between_outputs=4, total=30)


@pytest.mark.parametrize(
    ("progress", "attempt", "paused", "at", "limit"),
    [
        (None, 0, False, 10, "first output"),
        (None, 25, False, 30, "whole reply"),
        (5.0, 0, False, 9, "next output"),
        (29.0, 0, False, 30, "whole reply"),
        (5.0, 0, True, 30, "whole reply"),
    ],
)
def test_the_limit_that_comes_first(
    progress: float | None, attempt: float, paused: bool, at: float, limit: str
) -> None:
    due = LIMITS.due(started_at=0, attempt_at=attempt, progress_at=progress, paused=paused)
    assert (due.at, due.limit) == (at, limit)
    assert f"{due.seconds:g} s" in str(due)


def test_limits_come_from_the_options() -> None:
    for timeout, limit in (7, 7), (0, math.inf):
        options = APIConnectOptions(timeout=timeout)
        assert (options.first_output_timeout, options.between_outputs_timeout) == (limit, limit)


def test_patience_follows_the_attempt_and_excuses_a_loop_that_stood_still() -> None:
    pulse = Pulse()
    patience = Patience(LIMITS, started_at=0, attempt_at=2, pulse=lambda: pulse)
    assert patience.moment() == 12
    patience.excuse(3)
    patience.excuse(1)
    assert patience.moment() == 16
    # From the next output on everything counts again.
    pulse = Pulse(progress_at=7)
    assert patience.moment() == 11
    assert str(patience.latest) == "no further output within 4 s"
    patience.excuse(2)
    assert patience.moment() == 13
    pulse = Pulse(progress_at=8)
    assert patience.moment() == 12
    pulse = Pulse(progress_at=8, paused=True)
    assert patience.moment() == 30
    # The caller's patience with the whole reply is not extended.
    pulse = Pulse(progress_at=29)
    patience.excuse(50)
    assert patience.moment() == 30
