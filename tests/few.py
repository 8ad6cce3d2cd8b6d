"""``pytest --few``: of a test with many parameters, the first and some of the others.

For a second run of the suite in other circumstances, such as on another interpreter. The choice is the same in
each run.
"""

from __future__ import annotations

from collections import Counter

import pytest

FIRST = 8
ONE_IN = 8


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--few",
        action="store_true",
        help=f"of each test with parameters, run the first {FIRST} and one in {ONE_IN} of the others",
    )


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if not config.getoption("few"):
        return
    seen: Counter[str] = Counter()
    kept: list[pytest.Item] = []
    left: list[pytest.Item] = []
    for item in items:
        name = item.nodeid.partition("[")[0]
        number = seen[name]
        seen[name] += 1
        (kept if number < FIRST or number % ONE_IN == 0 else left).append(item)
    items[:] = kept
    config.hook.pytest_deselected(items=left)
