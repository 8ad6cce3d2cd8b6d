"""The two tools that come along."""

from __future__ import annotations

import sys
import zoneinfo
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rejoinder.cli.demo import DEMO_TOOLS, calculate, evaluate, find_zone, time_in
from rejoinder.llm.tool_context import ToolContext, ToolError


@pytest.mark.parametrize(
    ("expression", "value"),
    [
        ("17 * 23", 391),
        ("2^10", 1024),
        ("7 × 8 =", 56),
        ("10 / 4", 2.5),
        ("-3 + +2", -1),
        ("sqrt(2) ** 2", 2.0),
        ("max(1, min(5, 3))", 3),
        ("17 % 5 + 17 // 5", 5),
        ("2 * pi", 6.28318530718),
    ],
)
def test_arithmetic(expression: str, value: float) -> None:
    assert evaluate(expression) == value


@pytest.mark.parametrize(
    "expression",
    [
        "9**9**9", "1/0", "__import__('os')", "(1", "1e999", "x + 1", "[1] * 9", "'a' * 9", "True",
        "(-1) ** 0.5", "sqrt(-1)", "f(1)", "(lambda: 1)()", "1 if 1 else 2", "", "1;2", "9" * 600,
        "round(1, ndigits=1)", "a.b", "10 ** 5000", "abs()",
    ],
)  # fmt: skip
def test_anything_else_is_refused(expression: str) -> None:
    with pytest.raises(ValueError):
        evaluate(expression)


@given(st.text("0123456789+-*/%().^ episqrtlog", max_size=40))
def test_whatever_is_written_gives_a_number_or_is_refused(expression: str) -> None:
    try:
        assert isinstance(evaluate(expression), (int, float))
    except ValueError:
        pass


@pytest.mark.parametrize(
    ("place", "zone"),
    [
        ("Paris", "Europe/Paris"),
        ("new york", "America/New_York"),
        ("Tokyo, Japan", "Asia/Tokyo"),
        ("U.K.", "Europe/London"),
        ("Europe/Rome", "Europe/Rome"),
        ("Atlantis", None),
        ("", None),
    ],
)
def test_places(place: str, zone: str | None) -> None:
    assert find_zone(place) == zone


@pytest.fixture
def no_zones() -> Iterator[None]:
    """A system without time zone data."""
    zoneinfo.reset_tzpath(to=[])
    zoneinfo.ZoneInfo.clear_cache()
    yield
    zoneinfo.reset_tzpath()
    zoneinfo.ZoneInfo.clear_cache()


@pytest.mark.usefixtures("no_zones")
async def test_the_extra_brings_time_zones() -> None:
    pytest.importorskip("tzdata", reason="the extra `cli` is not installed")
    assert "Asia/Tokyo" in await time_in(place="Tokyo")


@pytest.mark.usefixtures("no_zones")
async def test_without_time_zones(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in sys.modules if name.startswith("tzdata.")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "tzdata", None)  # as if it were not installed
    with pytest.raises(ToolError, match=r"rejoinder\[cli\]"):
        await time_in(place="Tokyo")


async def test_as_tools() -> None:
    assert await calculate(expression="6 * 7") == "42"
    assert "Asia/Tokyo" in await time_in(place="Tokyo")
    with pytest.raises(ToolError, match="division by zero"):
        await calculate(expression="1/0")
    with pytest.raises(ToolError, match="Atlantis"):
        await time_in(place="Atlantis")
    names = set(ToolContext(DEMO_TOOLS).function_tools)
    assert names == {"calculate", "time_in"}
