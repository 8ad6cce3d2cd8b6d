"""What happens with tests that do not run: one line at the end, or a failure.

Two kinds of skipped test exist. One does not concern this machine: a ``skipif`` mark tells so, and
nothing is missing. The other lacks something that can be had: a recording, a program, the network.
``pytest --nothing-skips`` (or ``REJOINDER_NOTHING_SKIPS=1``) makes a test of the second kind fail, so
that a test which everyone believes to run cannot be skipped for months.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Generator
from typing import Any, TypeVar

import pytest

Report = TypeVar("Report", pytest.TestReport, pytest.CollectReport)
VARIABLE = "REJOINDER_NOTHING_SKIPS"


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--nothing-skips",
        action="store_true",
        default=os.environ.get(VARIABLE, "") not in ("", "0"),
        help=f"fail a test that lacks something instead of skipping it (or {VARIABLE}=1)",
    )


def concerns_this_machine(item: pytest.Item) -> bool:
    return next(item.iter_markers("skipif"), None) is None


@pytest.hookimpl(wrapper=True, trylast=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    lacks = report.skipped and not hasattr(report, "wasxfail") and concerns_this_machine(item)
    return _judged(report, item.config) if lacks else report


@pytest.hookimpl(wrapper=True, trylast=True)
def pytest_make_collect_report(
    collector: pytest.Collector,
) -> Generator[None, pytest.CollectReport, pytest.CollectReport]:
    report = yield
    return _judged(report, collector.config) if report.skipped else report


def _judged(report: Report, config: pytest.Config) -> Report:
    reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else str(report.longrepr)
    reason = reason.removeprefix("Skipped: ")
    if config.getoption("nothing_skips"):
        report.outcome = "failed"
        report.longrepr = f"{report.nodeid} did not run: {reason}"
    else:
        vars(report)["lacks"] = reason
    return report


def pytest_terminal_summary(terminalreporter: Any) -> None:
    lacking = Counter(
        reason
        for report in terminalreporter.stats.get("skipped", ())
        if (reason := vars(report).get("lacks")) is not None
    )
    if not lacking:
        return
    reasons = "; ".join(f"{count} because {reason}" for reason, count in lacking.most_common(4))
    more = f"; {len(lacking) - 4} more reasons" if len(lacking) > 4 else ""
    terminalreporter.write_line(
        f"{lacking.total()} tests did not run: {reasons}{more}."
        " CONTRIBUTING.md tells how to get what they need; -rs lists them.",
        yellow=True,
    )
