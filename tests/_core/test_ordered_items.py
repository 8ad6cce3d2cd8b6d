"""Where new items go, compared with inserting them one by one by the rule itself."""

from __future__ import annotations

import math
from dataclasses import dataclass

from hypothesis import given
from hypothesis import strategies as st

from rejoinder._core.ordered_items import insert_ordered, insertion_index


@dataclass(eq=False)
class Item:
    created_at: float


TIMES = st.lists(st.sampled_from([0.0, 1.0, 2.0, 3.0, math.inf, -math.inf, math.nan]), max_size=9)


def position(items: list[Item], at: float) -> int:
    """The rule, written down."""
    earlier = [index for index, item in enumerate(items) if item.created_at <= at]
    return earlier[-1] + 1 if earlier else 0


@given(TIMES, st.floats())
def test_position(times: list[float], at: float) -> None:
    items = [Item(time) for time in times]
    assert insertion_index(items, at) == position(items, at)


@given(TIMES, TIMES)
def test_many_at_once(times: list[float], new: list[float]) -> None:
    items = [Item(time) for time in times]
    fresh = [Item(time) for time in new]
    expected = list(items)
    for item in fresh:
        expected.insert(position(expected, item.created_at), item)
    kept = items
    insert_ordered(items, iter(fresh))
    assert kept is items
    assert items == expected
