"""Tests that do not run are counted in one line, or fail where nothing may skip."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow

TESTS = Path(__file__).resolve().parents[1]

CASES = """
import pytest

def test_that_runs():
    pass

def test_that_lacks_something():
    pytest.skip("no server")

@pytest.fixture
def server():
    pytest.skip("no server")

def test_whose_fixture_lacks_something(server):
    pass

@pytest.mark.skipif(True, reason="another system")
def test_of_another_system():
    pass

@pytest.mark.xfail(reason="known")
def test_that_is_expected_to_fail():
    assert False
"""
MODULE = "import pytest\npytest.importorskip('no_such_module', reason='no extra')\n"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "test_cases.py").write_text(CASES)
    (tmp_path / "test_module.py").write_text(MODULE)
    return tmp_path


PLUGINS = ("-p", "skips", "-p", "xdist")
"""All that these tests need; the others take seconds of each start."""


def run(folder: Path, *options: str, **variables: str) -> list[str]:
    """The lines that pytest prints about the tests of `folder`."""
    result = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", *PLUGINS, "-c", os.devnull, *options, "."],
        cwd=folder,
        env={
            **os.environ,
            "PYTHONPATH": str(TESTS),
            "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1",
            "REJOINDER_NOTHING_SKIPS": "",
            **variables,
        },
        capture_output=True,
        text=True,
    )
    assert "INTERNALERROR" not in result.stdout, result.stdout
    return result.stdout.splitlines()


@pytest.mark.parametrize("options", [[], ["-n", "2"]], ids=["one process", "two processes"])
def test_one_line_tells_what_did_not_run(folder: Path, options: list[str]) -> None:
    lines = run(folder, *options)
    (line,) = [line for line in lines if "did not run" in line]
    assert line.startswith("3 tests did not run: 2 because no server; 1 because no extra. ")
    assert lines[-1].startswith("1 passed, 4 skipped, 1 xfailed")


@pytest.mark.parametrize("way", ["option", "variable"])
def test_what_lacks_something_fails_where_nothing_may_skip(folder: Path, way: str) -> None:
    options = ["--nothing-skips"] if way == "option" else []
    variables = {"REJOINDER_NOTHING_SKIPS": "1"} if way == "variable" else {}
    lines = run(folder, "--continue-on-collection-errors", *options, **variables)
    assert "test_cases.py::test_that_lacks_something did not run: no server" in lines
    assert "test_cases.py::test_whose_fixture_lacks_something did not run: no server" in lines
    assert "test_module.py did not run: no extra" in lines
    assert lines[-1].startswith("1 failed, 1 passed, 1 skipped, 1 xfailed, 2 errors")
