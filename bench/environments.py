"""Each peer in an environment of its own, made when it is first needed.

A benchmark that wants a peer names an `Environment` and calls `run`. The environments live in
``.bench/`` of the checkout and are used again; delete the folder to have them made anew.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

__all__ = ["LIVEKIT", "OURS", "Environment", "python", "run"]

ROOT = Path(__file__).resolve().parent.parent
HOME = ROOT / ".bench"


@dataclass(frozen=True)
class Environment:
    """A name and what pip is to install."""

    name: str
    requirements: tuple[str, ...]


OURS = Environment("rejoinder", (f"{ROOT}[images]",))
LIVEKIT = Environment(
    "livekit-agents==1.2.17",
    # The versions of its time: with the newest it does not import, or loses schemas.
    (
        "livekit-agents[images]==1.2.17",
        "livekit-plugins-openai==1.2.17",
        "openai==1.109.1",
        "pydantic==2.11.10",
        "pillow",
    ),
)


def python(environment: Environment) -> str:
    """The interpreter of `environment`, made if it is not there yet."""
    mark = hashlib.sha256("\n".join(environment.requirements).encode()).hexdigest()[:8]
    folder = HOME / f"{environment.name.split('=')[0]}-{mark}"
    interpreter = folder / "bin" / "python"
    ready = folder / ".ready"
    if environment is OURS:
        # The checkout that is being measured, with the packages of this interpreter.
        return sys.executable
    if not ready.exists():
        print(f"making the environment of {environment.name} ...", file=sys.stderr)
        subprocess.run([sys.executable, "-m", "venv", "--clear", str(folder)], check=True)
        uv = shutil.which("uv")
        if uv:
            command = [uv, "pip", "install", "-q", "--python", str(interpreter)]
        else:
            command = [str(interpreter), "-m", "pip", "install", "-q"]
        subprocess.run([*command, *environment.requirements], check=True)
        ready.touch()
    return str(interpreter)


def run(environment: Environment, arguments: Sequence[str], *, timeout: float = 600) -> str:
    """What a script prints when it runs in `environment`."""
    variables = {key: value for key, value in os.environ.items() if not key.startswith("PYTHON")}
    result = subprocess.run(
        [python(environment), *arguments],
        stdout=subprocess.PIPE,
        text=True,
        timeout=timeout,
        check=True,
        env=variables | {"PYTHONWARNINGS": "ignore"},
    )
    return result.stdout
