"""Prints how many recorded exchanges were compared."""

from __future__ import annotations

from collections import defaultdict
from typing import Any

from recorded.harness import COUNTS


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
