"""Nothing that others send makes the event loop work long at a stretch: the calls of a stretch are
counted, whose number does not depend on the machine, and must not grow with what arrives."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

import pytest

from stretches import SCENARIOS, measured

pytestmark = [pytest.mark.may_block, pytest.mark.slow]

MOST = 750_000
"""Calls and returns: what 50 ms of Python hold on the machine of the benchmarks."""

COPIES = ("history: items",)
"""A conversation is copied on the loop, item by item: it grew by what the caller put in."""


@contextmanager
def counted_calls() -> Iterator[Callable[[], float]]:
    """A clock that counts the calls of this thread."""
    count = 0

    def note(frame: FrameType, event: str, argument: Any) -> None:
        nonlocal count
        count += 1

    before = sys.getprofile()
    sys.setprofile(note)
    try:
        yield lambda: float(count)
    finally:
        sys.setprofile(before)


@pytest.mark.parametrize("name", [name for name in SCENARIOS if not name.startswith(COPIES)])
async def test_the_longest_stretch_is_bounded(name: str) -> None:
    make = SCENARIOS[name]
    await measured(make(1_000), lambda: 0.0)  # imports, caches
    with counted_calls() as clock:
        assert await measured(make(200_000), clock) < MOST
