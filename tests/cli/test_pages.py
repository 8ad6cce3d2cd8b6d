"""The page of the documentation that is made from the parser, and what shells complete with it."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from cli.commands import run
from rejoinder.cli.commands import COMMANDS, make_parser
from rejoinder.cli.completion import candidates
from rejoinder.cli.pages import reference

DOCS = Path(__file__).parents[2] / "docs"


def test_the_reference_is_what_help_shows() -> None:
    assert (DOCS / "cli-reference.md").read_text("utf-8") == reference(), (
        "run: python -m rejoinder.cli.pages docs/cli-reference.md"
    )


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ([""], [*COMMANDS, "--version", "--help"]),
        (["d"], ["doctor"]),
        (["models", "f"], ["fetch"]),
        (["models", "fetch", "smol"], ["smollm2-135m"]),
        (["chat", "--fallb"], ["--fallback"]),
        (["chat", "-m", "anthropic/"], ["anthropic/"]),
        (["chat", "--tool-choice", "r"], ["required"]),
        (["keys", "set", "anthr"], ["anthropic"]),
        (["chat", "--once", "wh"], []),
        (["nonsense", "x"], []),
        (["completion", "z"], ["zsh"]),
    ],
)
def test_candidates(words: list[str], expected: list[str]) -> None:
    assert candidates(make_parser(), words) == expected


def test_bash_completes(tmp_path: Path) -> None:
    bash = shutil.which("bash")
    if bash is None:
        pytest.skip("no bash on this machine")
    command = tmp_path / "rejoinder"
    command.write_text(f'#!/bin/sh\nexec {sys.executable} -m rejoinder "$@"\n')
    command.chmod(0o755)
    script = run("completion", "bash", afresh=True).out
    done = subprocess.run(
        [bash, "-c", f'{script}\nCOMP_WORDS=(rejoinder models rem); COMP_CWORD=2; _rejoinder; echo "${{COMPREPLY[@]}}"'],
        capture_output=True, text=True, check=True, timeout=60,
        env={**os.environ, "PATH": f"{tmp_path}{os.pathsep}{os.environ['PATH']}"},
    )  # fmt: skip
    assert done.stdout == "remove\n", done.stderr


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_each_shell_has_a_script(shell: str) -> None:
    ran = run("completion", shell)
    assert ran.code == 0
    assert "rejoinder __complete" in ran.out
