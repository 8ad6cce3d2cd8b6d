"""Which limit of a reply comes first."""

from __future__ import annotations

import math

import pytest

from rejoinder._core.deadlines import Deadlines
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
    assert Deadlines.of(APIConnectOptions(timeout=7)) == Deadlines(7, 7, math.inf)
    assert Deadlines.of(APIConnectOptions(timeout=0, total=9)) == Deadlines(math.inf, math.inf, 9)
