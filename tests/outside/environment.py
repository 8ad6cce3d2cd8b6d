"""Environments for the foreign programs that the tests in this folder run.

``python("NAME")`` holds the packages of ``requirements/outside/NAME.lock``, ``node("NAME")`` those of
``requirements/outside/NAME/package-lock.json``. A test that needs one that cannot be made is skipped.
"""

from __future__ import annotations

from pathlib import Path

import pytest

import foreign


def python(name: str) -> Path:
    """The interpreter of an environment."""
    try:
        return foreign.python(f"outside/{name}")
    except foreign.NotMadeError as error:
        pytest.skip(f"the environment {name} cannot be made: {error}")


def node(name: str, script: str) -> list[str]:
    """The command that runs `script`, a path below ``node_modules``."""
    try:
        return [foreign.npm()[0], str(foreign.node(f"outside/{name}") / script)]
    except foreign.NotMadeError as error:
        pytest.skip(f"the environment {name} cannot be made: {error}")
