"""The page in a real browser, in an environment of its own."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from outside.environment import python

HERE = Path(__file__).parent
ROOT = HERE.parents[2]


@pytest.mark.timeout(600)
def test_the_page_in_chromium() -> None:
    paths = os.pathsep.join(str(path) for path in (ROOT / "src", ROOT / "tests"))
    done = subprocess.run(
        [
            *(str(python("playwright")), "-m", "pytest", "-q", "-p", "no:cacheprovider"),
            *("--noconftest", "-c", "inside.ini", "inside_page.py", "inside_attacks.py"),
        ],
        cwd=HERE,
        env={**os.environ, "PYTHONPATH": paths},
        capture_output=True,
        text=True,
        timeout=500,
    )
    assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-2000:]
