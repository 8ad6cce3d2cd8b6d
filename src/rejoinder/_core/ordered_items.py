"""Where a new item belongs in a list that is ordered by time, mostly.

Law: an item goes behind the last one whose `created_at` is not later than its own, so equal times
keep the order of insertion. The list itself need not be sorted. Only `created_at` is looked at; a
NaN is later than everything for the others, and goes to the head itself.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from math import nan
from typing import Protocol, TypeVar

__all__ = ["insert_ordered", "insertion_index"]


class Stamped(Protocol):
    """Anything with a time."""

    created_at: float


S = TypeVar("S", bound=Stamped)


def insertion_index(items: Sequence[Stamped], created_at: float) -> int:
    """The position behind the last item that is not later than `created_at`; 0 if there is none."""
    index = len(items)
    while index and not items[index - 1].created_at <= created_at:
        index -= 1
    return index


def insert_ordered(items: list[S], new: Iterable[S]) -> None:
    """Place `new` one after another, in one pass: sorting aside, linear in both."""
    fresh = list(new)
    if not fresh:
        return
    if len(fresh) == 1 or any(item.created_at != item.created_at for item in fresh):
        for item in fresh:
            items.insert(insertion_index(items, item.created_at), item)
        return
    fresh.sort(key=lambda item: item.created_at)  # stable, as inserting one by one is
    # The earliest time from each position to the end. It never falls, and an item with time t goes
    # behind the last position where it is <= t; inserting changes it nowhere else.
    # NaN, which is not <= anything, where no time is left.
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
