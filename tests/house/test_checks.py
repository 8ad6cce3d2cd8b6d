"""The checks that every test runs under are awake."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import time
import warnings
from pathlib import Path
from typing import Any

import pytest
from blockbuster import BlockingError

from rejoinder.llm import llm

ROOT = Path(__file__).resolve().parents[2]


def of_the_library(source: str) -> Any:
    """A coroutine function `work`, as if it stood in a file of ours."""
    names: dict[str, Any] = {"time": time, "os": os}
    exec(compile(source, llm.__file__, "exec"), names)
    return names["work"]


@pytest.mark.parametrize("call", ["time.sleep(0.001)", "os.listdir()"])
async def test_a_blocking_call_of_the_library_fails(call: str) -> None:
    with pytest.raises(BlockingError):
        await of_the_library(f"async def work():\n    {call}")()


@pytest.mark.may_block
async def test_a_test_can_allow_it() -> None:
    await of_the_library("async def work():\n    time.sleep(0.001)")()


def test_warnings_are_errors() -> None:
    with pytest.raises(DeprecationWarning):
        warnings.warn("old", DeprecationWarning, stacklevel=1)


def test_a_test_that_hangs_is_ended(request: pytest.FixtureRequest) -> None:
    """The limit finds tests that never end. It is far above what a busy machine needs."""
    assert 60 < float(request.config.getini("timeout")) <= 300


CLOCKS = re.compile(r"assert .*\b(?:monotonic|perf_counter|process_time|thread_time)\(\).*<")


def test_no_test_asserts_how_long_something_took() -> None:
    """A busy machine makes that meaningless; tests/work.py has what to assert instead."""
    found = [
        f"{path.relative_to(ROOT)}:{number}"
        for path in (ROOT / "tests").rglob("*.py")
        for number, line in enumerate(path.read_text("utf-8").splitlines(), 1)
        if CLOCKS.search(line)
    ]
    assert not found


def test_tasks_that_nobody_owns_are_refused(tmp_path: Path) -> None:
    source = "import asyncio\n\n\nasync def work() -> None:\n    asyncio.create_task(work())\n"
    result = subprocess.run(
        [
            sys.executable,
            "-m",
            "ruff",
            "check",
            "--no-cache",
            "--stdin-filename",
            str(ROOT / "src" / "rejoinder" / "new.py"),
            "-",
        ],
        input=source,
        capture_output=True,
        text=True,
        cwd=ROOT,
    )
    assert "RUF006" in result.stdout
