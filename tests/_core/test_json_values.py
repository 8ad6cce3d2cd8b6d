"""How many values a JSON text holds, without reading it."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rejoinder._core.json_values import (
    LARGE,
    MAX_VALUES,
    ValueCounter,
    is_crowded,
    may_be_crowded,
)

JSON = st.recursive(
    st.none() | st.integers() | st.text(alphabet='a",{}[]\\\n:é', max_size=8),
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(st.text(alphabet='a",{\\', max_size=4), inner)
    ),
    max_leaves=20,
)


def weight(value: Any) -> int:
    """What is counted, told in another way: by the value itself."""
    if not isinstance(value, list | dict):
        return 0
    members = list(value.values()) if isinstance(value, dict) else value
    return 2 + max(len(members) - 1, 0) + sum(map(weight, members))


@given(JSON, st.lists(st.integers(1, 9), min_size=1), st.booleans(), st.booleans())
def test_values_are_counted_however_the_bytes_are_cut(
    value: Any, sizes: list[int], spaced: bool, escaped: bool
) -> None:
    separators = (", ", ": ") if spaced else (",", ":")
    data = json.dumps(value, separators=separators, ensure_ascii=escaped).encode()
    counter = ValueCounter()
    at = n = 0
    while at < len(data):
        counter.feed(data[at : at + sizes[n % len(sizes)]])
        at += sizes[n % len(sizes)]
        n += 1
    assert counter.values == weight(value)
    assert not is_crowded(value, counter.values)
    assert is_crowded(value, counter.values - 1) is (counter.values > 0)


@pytest.mark.parametrize("unit", ["1,", "[],", '{"a":1},', "[" * 400 + "]" * 400 + ","])
@pytest.mark.parametrize("binary", [True, False])
def test_a_crowded_text_is_told(unit: str, binary: bool) -> None:
    text = "[" + unit * (2 * LARGE // len(unit)) + "1]"
    assert may_be_crowded(text.encode() if binary else text)


def test_a_large_text_of_few_values_is_not_crowded() -> None:
    assert not may_be_crowded('{"delta":"' + "A" * 5_000_000 + '"}')
    assert not may_be_crowded("[" + "1," * (MAX_VALUES // 2) + "1]")
