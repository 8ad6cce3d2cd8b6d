"""Prints how many recorded exchanges were compared."""

from __future__ import annotations

from collections import Counter, defaultdict
from typing import Any

import pytest

COUNTS: Counter[tuple[str, str]] = Counter()
"""(group, outcome) -> exchanges."""


def pytest_sessionfinish(session: pytest.Session) -> None:
    output = getattr(session.config, "workeroutput", None)
    if output is not None:  # a worker of pytest-xdist: its counts are added to those of the others
        output["compared"] = [[*key, count] for key, count in COUNTS.items()]


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: Any) -> None:
    for group, outcome, count in getattr(node, "workeroutput", {}).get("compared", ()):
        COUNTS[group, outcome] += count


def pytest_terminal_summary(terminalreporter: Any) -> None:
    if not COUNTS:
        return
    by_group: dict[str, dict[str, int]] = defaultdict(dict)
    for (group, outcome), count in sorted(COUNTS.items()):
        by_group[group][outcome] = count
    terminalreporter.section("recorded exchanges compared with their plain readings")
    total = 0
    for group, counts in by_group.items():
        compared = {
            k: v for k, v in counts.items() if k not in ("pieces", "cuts inside characters")
        }
        total += sum(compared.values())
        shown = ", ".join(f"{count} {outcome}" for outcome, count in counts.items())
        terminalreporter.write_line(f"{group}: {sum(compared.values())} ({shown})")
    terminalreporter.write_line(f"total: {total}")
