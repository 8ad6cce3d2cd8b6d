"""What real error reporters make of our errors holds no key: Sentry's default event, tracebacks of rich
with local variables, ``pytest -l``."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path

import pytest

from outside.environment import python

HERE = Path(__file__).parent
ROOT = HERE.parents[2]
CANARY = "canary-5f2c9a7e41d84b06"
KEYS = (
    "OPENAI_API_KEY",
    "ANTHROPIC_API_KEY",
    "GOOGLE_API_KEY",
    "AWS_SECRET_ACCESS_KEY",
    "AWS_SESSION_TOKEN",
    "CANARY",
)


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    variables = {name: value for name, value in os.environ.items() if "API_KEY" not in name}
    variables |= dict.fromkeys(KEYS, CANARY) | {"AWS_ACCESS_KEY_ID": f"AKID{CANARY}"}
    return subprocess.run(
        [str(python("reporters")), *arguments],
        cwd=HERE,
        env={**variables, "PYTHONPATH": str(ROOT / "src")},
        capture_output=True,
        text=True,
        timeout=300,
    )


@pytest.mark.timeout(900)
def test_sentry_and_rich_show_no_key() -> None:
    made = run("inside_reporters.py")
    assert made.returncode == 0, made.stderr.replace(CANARY, "***")
    shown = json.loads(made.stdout)
    assert shown["errors"] > 30
    for reporter in ("sentry", "rich"):
        assert "inside_reporters.py" in shown[reporter], "frames with local variables"
        places = [
            shown[reporter][max(0, at - 200) : at]
            for at in range(len(shown[reporter]))
            if shown[reporter].startswith(CANARY, at)
        ]
        assert places == []
    assert made.stderr.count(CANARY) == 0


@pytest.mark.timeout(900)
def test_pytest_shows_no_key() -> None:
    made = run(
        *("-m", "pytest", "-l", "-p", "no:cacheprovider", "--noconftest", "-c", "inside.ini"),
        *("-k", "for_pytest", "inside_reporters.py"),
    )
    assert "cannot connect" in made.stdout
    assert "1 failed" in made.stdout
    assert CANARY not in made.stdout + made.stderr
