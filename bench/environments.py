"""Each peer in an environment of its own, in the versions of ``requirements/bench/``.

A benchmark that wants a peer names an `Environment` and calls `run`. An environment is made when it
is first needed, and kept (see ``requirements/foreign.py``).
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

__all__ = ["LIVEKIT", "OURS", "Environment", "python", "run"]

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "requirements"))

import foreign

ROOT = Path(__file__).resolve().parent.parent


@dataclass(frozen=True)
class Environment:
    """A peer: its name in tables, and the lock of its environment below ``requirements/``."""

    name: str
    lock: str | None


OURS = Environment("rejoinder", None)
"""The checkout that is being measured, with the packages of this interpreter."""
LIVEKIT = Environment("livekit-agents==1.2.17", "bench/livekit-agents")


def python(environment: Environment) -> str:
    """The interpreter of `environment`, made if it is not there yet."""
    if environment.lock is None:
        return sys.executable
    return str(foreign.python(environment.lock))


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
