"""The locks install with old and new versions of pip, also after a locked package has a newer release.

The environments are made by the rules of the Makefile, from the package index and a folder that holds
made newer releases of locked packages.
"""

from __future__ import annotations

import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[3]

# The version that comes with Python 3.11.7, and the newest one at the time of writing.
PIPS = ["23.2.1", "26.3"]

# Packages that others require with an extra: what an old pip looks for a second time.
NEWER = {"google_auth": "requests"}


def make_release(folder: Path, name: str, extra: str) -> None:
    """Write a wheel of a release that is newer than every real one."""
    info = f"{name}-9999.0.dist-info"
    with zipfile.ZipFile(folder / f"{name}-9999.0-py3-none-any.whl", "w") as wheel:
        wheel.writestr(
            f"{info}/METADATA",
            f"Metadata-Version: 2.1\nName: {name}\nVersion: 9999.0\nProvides-Extra: {extra}\n",
        )
        wheel.writestr(
            f"{info}/WHEEL",
            "Wheel-Version: 1.0\nGenerator: tests\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
        )
        wheel.writestr(f"{info}/RECORD", "")


@pytest.mark.timeout(600)
def test_the_locks_hold_what_is_asked_for() -> None:
    """Whoever changes pyproject.toml or a list of requirements runs ``make relock``."""
    checked = subprocess.run(
        [sys.executable, str(ROOT / "requirements" / "lock.py"), "--check"],
        capture_output=True,
        text=True,
        cwd=ROOT,
    )
    assert checked.returncode == 0, checked.stdout + checked.stderr


@pytest.mark.timeout(900)
@pytest.mark.parametrize("pip", PIPS)
def test_the_locks_install(pip: str, tmp_path: Path) -> None:
    index = tmp_path / "index"
    index.mkdir()
    for name, extra in NEWER.items():
        make_release(index, name, extra)
    venv = tmp_path / "venv"
    subprocess.run([sys.executable, "-m", "venv", str(venv)], check=True)
    subprocess.run([str(venv / "bin/pip"), "install", "-q", f"pip=={pip}"], check=True)
    links = f"{index} {os.environ.get('PIP_FIND_LINKS', '')}".strip()
    made = subprocess.run(
        ["make", f"VENV={venv}", f"{venv}/.chat", f"{venv}/.dev"],
        cwd=ROOT,
        env={**os.environ, "PIP_FIND_LINKS": links},
        capture_output=True,
        text=True,
    )
    assert made.returncode == 0, made.stderr
    listed = subprocess.run(
        [str(venv / "bin/pip"), "list", "--format=freeze"],
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    assert f"pip=={pip}\n" in listed
    assert "9999.0" not in listed
    checked = subprocess.run([str(venv / "bin/pip"), "check"], capture_output=True, text=True)
    assert checked.returncode == 0, checked.stdout
