"""The page of the documentation that is made from the parser, and what shells complete with it."""

from __future__ import annotations

import asyncio
import os
import shutil
import sys
from pathlib import Path

import pytest

from cli.commands import Terminal, run
from rejoinder.cli.commands import COMMANDS, make_parser
from rejoinder.cli.completion import candidates
from rejoinder.cli.kept import open_store, store_path
from rejoinder.cli.pages import reference
from rejoinder.store import Record

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


def kept(*ids: str) -> None:
    """Keep conversations with these ids; the last one is the latest."""

    store = open_store()

    async def keep() -> None:
        for id in ids:
            await store.append(id, [Record("about", data={"title": id})], after=0)
        await store.aclose()

    asyncio.run(keep())


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["chat", "-c", ""], ["conv_bee", "conv_ant", "other"]),
        (["chat", "--continue", "conv_a"], ["conv_ant"]),
        (["chat", "-c", "--js"], ["--json"]),
        (["log", "show", "conv_b"], ["conv_bee"]),
        (["log", "export", "o"], ["other"]),
        (["log", "-q", "remove", "conv_ant", "o"], ["other"]),
        (["log", "search", "o"], []),
        (["log", "list", "o"], []),
        (["log", "sh"], ["show"]),
    ],
)
def test_candidates_among_the_conversations(
    words: list[str], expected: list[str], home: Path
) -> None:
    assert set(candidates(make_parser(), words)) <= {"--json", "show"}  # nothing is kept yet
    assert not home.exists()
    kept("other", "conv_ant", "conv_bee")
    assert sorted(candidates(make_parser(), words)) == sorted(expected)
    store_path().write_text("damaged")
    candidates(make_parser(), words)


SHELLS = {
    "bash": ["--norc", "--noprofile", "-i"],
    "zsh": ["-f", "-i"],
    "fish": ["--no-config", "-i"],
}
BEGIN = {
    "bash": 'eval "$(rejoinder completion bash)"',
    "zsh": 'autoload -U compinit && compinit -u -D && eval "$(rejoinder completion zsh)"',
    "fish": "rejoinder completion fish | source",
}


@pytest.mark.parametrize("shell", SHELLS)
def test_a_shell_completes(shell: str, tmp_path: Path) -> None:
    """In the shell itself, in a terminal, by the key that people press."""
    program = shutil.which(shell)
    if program is None:
        pytest.skip(f"no {shell} on this machine")
    kept("conv_ant", "conv_bee")
    command = tmp_path / "rejoinder"
    command.write_text(f'#!/bin/sh\nexec {sys.executable} -m rejoinder "$@"\n')
    command.chmod(0o755)
    path = f"{tmp_path}{os.pathsep}{os.environ['PATH']}"
    # A dumb terminal: zsh writes bold marks between the words otherwise.
    own = {"PATH": path, "HOME": str(tmp_path), "TERM": "dumb"}
    with Terminal(program=[program, *SHELLS[shell]], **own) as terminal:
        terminal.type(f"{BEGIN[shell]}; echo rea''dy\n")
        terminal.wait_for("ready")
        for typed, completed in (
            ("rejoinder mod\trem\t", r"models\W+remove"),
            ("rejoinder log show conv_b\t", r"conv_bee"),
            ("rejoinder chat -c conv_a\t", r"conv_ant"),
            ("rejoinder keys set anthropi\t", r"anthropic"),
        ):
            terminal.type(typed)
            terminal.wait_for(completed)
            terminal.type("\x15")  # Ctrl-U: an empty line again


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_each_shell_has_a_script(shell: str) -> None:
    ran = run("completion", shell)
    assert ran.code == 0
    assert "rejoinder __complete" in ran.out
