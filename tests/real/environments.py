"""Environments of their own for programs that must not share ours.

They are made once and kept in ``REJOINDER_TEST_CACHE`` (by default a folder in the user's cache),
with uv if it is there and with venv and pip otherwise.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

MINUTES = 10


def environment(name: str, *requirements: str) -> Path:
    """The Python of an environment that holds `requirements`. Skips when it cannot be made."""
    base = os.environ.get("REJOINDER_TEST_CACHE")
    folder = (Path(base) if base else Path.home() / ".cache" / "rejoinder-tests") / name
    python = folder / "bin" / "python"
    stamp = folder / "requirements.txt"
    wanted = "\n".join(requirements)
    if python.exists() and stamp.exists() and stamp.read_text() == wanted:
        return python
    shutil.rmtree(folder, ignore_errors=True)
    uv = shutil.which("uv")
    if uv is not None:
        commands = [
            [uv, "venv", "--quiet", "--python", sys.executable, str(folder)],
            [uv, "pip", "install", "--quiet", "--python", str(python), *requirements],
        ]
    else:
        commands = [
            [sys.executable, "-m", "venv", str(folder)],
            [str(python), "-m", "pip", "install", "--quiet", *requirements],
        ]
    for command in commands:
        try:
            subprocess.run(command, check=True, capture_output=True, timeout=MINUTES * 60)
        except (subprocess.SubprocessError, OSError) as error:
            told = getattr(error, "stderr", b"") or b""
            pytest.skip(f"cannot make the environment {name}: {error} {told[-300:]!r}")
    stamp.write_text(wanted)
    return python
