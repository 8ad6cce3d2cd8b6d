"""docs/limits.md has each limit that a program can meet, with the value that the code has."""

from __future__ import annotations

import inspect
import re
from pathlib import Path
from typing import Any

import pytest

from house.limits_page import INSIDE, PAGE, TABLES, page
from house.test_wrong_options import public

ROOT = Path(__file__).parents[2]
SOURCE = ROOT / "src"
LISTED = {limit.where.replace(":", ".") for limits in TABLES.values() for limit in limits}
CONSTANT = re.compile(r"^(_?[A-Z_]*(?:TIMEOUT|PATIENCE))(?:: \w+)? = [\d.]+", re.MULTILINE)
PARAMETER = re.compile(r"timeout|^max_(steps|retr|rep|conc)|patience|^retry_interval")


def test_the_values_are_those_of_the_code() -> None:
    text = PAGE.read_text("utf-8")
    assert text == page(text), "run PYTHONPATH=src:tests python -m house.limits_page"


def test_each_constant_that_limits_a_wait_is_listed() -> None:
    found = {
        f"{'.'.join(file.relative_to(SOURCE).with_suffix('').parts)}.{name}"
        for file in SOURCE.rglob("*.py")
        if "testing" not in file.parts
        for name in CONSTANT.findall(file.read_text("utf-8"))
    }
    assert len(found) > 12
    assert found <= LISTED | INSIDE, "add it to tests/house/limits_page.py"
    assert found >= INSIDE, "it is gone: remove it from INSIDE"


@pytest.mark.parametrize("thing", [pytest.param(thing, id=name) for name, thing in public()])
def test_each_option_that_limits_a_wait_is_described(thing: Any) -> None:
    try:
        parameters = inspect.signature(thing).parameters.values()
    except (TypeError, ValueError):
        return
    limits = [
        one.name
        for one in parameters
        if PARAMETER.search(one.name) and isinstance(one.default, int | float)
    ]
    told = {limit.where.rpartition(".")[2] for limits in TABLES.values() for limit in limits}
    missing = [name for name in limits if name not in told and f"`{name}`" not in PAGE.read_text()]
    assert not missing, f"docs/limits.md does not mention {missing}"
