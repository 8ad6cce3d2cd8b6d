"""Finds the place of a new item in a list that is mostly ordered by time.

An item is inserted after the last one whose `created_at` is not later than its own, so equal times keep
the order of insertion. The list need not be sorted. Only `created_at` is compared. An item whose time is
NaN counts as later than all others, and is itself inserted at the head.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from math import nan
from typing import Protocol, TypeVar

__all__ = ["insert_ordered", "insertion_index"]


class Stamped(Protocol):
    """An object with a time."""

    created_at: float


S = TypeVar("S", bound=Stamped)


def insertion_index(items: Sequence[Stamped], created_at: float) -> int:
    """The position after the last item that is not later than `created_at`; 0 if all are later."""
    index = len(items)
    while index and not items[index - 1].created_at <= created_at:
        index -= 1
    return index


def insert_ordered(items: list[S], new: Iterable[S]) -> None:
    """Insert all of `new` in one pass, in linear time (except for sorting `new`)."""
    fresh = list(new)
    if not fresh:
        return
    if len(fresh) == 1 or any(item.created_at != item.created_at for item in fresh):
        for item in fresh:
            items.insert(insertion_index(items, item.created_at), item)
        return
    fresh.sort(key=lambda item: item.created_at)  # stable, like inserting one by one
    # The earliest time from each position to the end. It never decreases. An item with time t is
    # inserted after the last position where it is <= t, and changes it nowhere else.
    # NaN, which is not <= anything, if no time is left.
    earliest = nan
    floor = [nan] * len(items)
    for index in range(len(items) - 1, -1, -1):
        time = items[index].created_at
        if time == time and not time >= earliest:
            earliest = time
        floor[index] = earliest
    merged: list[S] = []
    start = 0
    size = len(items)
    for item in fresh:
        end = start
        while end < size and floor[end] <= item.created_at:
            end += 1
        merged += items[start:end]
        merged.append(item)
        start = end
    merged += items[start:]
    items[:] = merged
