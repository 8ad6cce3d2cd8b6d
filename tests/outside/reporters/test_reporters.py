"""What real error reporters make of our errors holds no key: Sentry's default event, its breadcrumbs
and spans, tracebacks of rich with local variables, ``pytest -l``; nor do logs, pickles, recordings."""

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

pytestmark = pytest.mark.timeout(900)


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    variables = {
        name: value
        for name, value in os.environ.items()
        if "API_KEY" not in name and "proxy" not in name.lower()
    }
    variables |= dict.fromkeys(KEYS, CANARY) | {"AWS_ACCESS_KEY_ID": f"AKID{CANARY}"}
    return subprocess.run(
        [str(python("reporters")), *arguments],
        cwd=HERE,
        env={**variables, "PYTHONPATH": str(ROOT / "src")},
        capture_output=True,
        text=True,
        timeout=600,
    )


@pytest.mark.parametrize(
    ("name", "least"),
    [
        ("calls", 100),
        ("proxies", 30),
        ("wrong_options", 3),
        ("files", 50),
        ("accounts", 30),
        ("tools", 50),
        ("processes", 15),
        ("sessions", 50),
    ],
)
def test_no_reporter_shows_a_key(name: str, least: int, tmp_path: Path) -> None:
    """Args:
    name: a function of `inside_failures`.
    least: so many errors it must have.
    """
    made = run("inside_reporters.py", name, str(tmp_path))
    assert made.returncode == 0, made.stderr.replace(CANARY, "***")
    shown = json.loads(made.stdout)
    assert {kind: found for kind, found in shown["places"].items() if found} == {}
    assert shown["errors"] >= least
    assert shown["sizes"]["events"] > 1000 * shown["errors"], "events have frames"
    if name in ("calls", "sessions"):
        assert [kind for kind in shown["sizes"] if kind.startswith("recording")]
    assert made.stderr.count(CANARY) == 0


def test_pytest_shows_no_key() -> None:
    made = run(
        *("-m", "pytest", "-l", "-p", "no:cacheprovider", "--noconftest", "-c", "inside.ini"),
        "inside_pytest.py",
    )
    assert "cannot connect" in made.stdout
    assert "18 failed" in made.stdout
    assert CANARY not in made.stdout + made.stderr
