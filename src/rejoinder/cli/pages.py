"""Generates the command line reference, a page of the documentation, from the parser::

python -m rejoinder.cli.pages docs/cli-reference.md
"""

from __future__ import annotations

import argparse
import re
import sys
from pathlib import Path
from typing import Any, cast

from rejoinder.cli.commands import COMMANDS, make_parser
from rejoinder.cli.outcome import Exit

__all__ = ["reference"]


def reference() -> str:
    """The page."""
    parser = make_parser()
    origin = (
        "Made by `python -m rejoinder.cli.pages docs/cli-reference.md` from what `--help` shows. "
        "[The command line](cli.md) explains it."
    )
    lines = ["# Reference of the command line", "", origin]
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            commands: dict[str, argparse.ArgumentParser] = cast("Any", action).choices
            for name, command in commands.items():
                lines += ["", f"## `rejoinder {name}`", "", *_command(name, command)]
    lines += ["", "## Exit codes", "", "| code | |", "|---|---|"]
    lines += [f"| {code.value} | {_of(code)} |" for code in Exit]
    return "\n".join([*lines, ""])


def _command(name: str, command: argparse.ArgumentParser) -> list[str]:
    lines = [_plain(command.description or COMMANDS[name]), "", "| | |", "|---|---|"]
    for action in command._actions:
        description = (action.help or "") % {**vars(action), "prog": command.prog}
        lines.append(f"| {_name(action)} | {_plain(description)} |")
    return lines


def _name(action: argparse.Action) -> str:
    if not action.option_strings:
        if action.choices is not None:
            return " \\| ".join(f"`{choice}`" for choice in action.choices)
        return f"`{action.dest.upper()}`"
    value = ""
    if action.nargs != 0:
        value = f" {action.metavar or action.dest.upper()}"
        value = f"[{value.strip()}]" if action.nargs == "?" else value.strip()
        value = f" {value}"
    return ", ".join(f"`{option}{value}`" for option in action.option_strings)


def _plain(text: str) -> str:
    return re.sub(r"\s+", " ", text.replace("``", "`")).replace("|", "\\|").strip()


_CODES = {
    Exit.OK: "it worked",
    Exit.FAILED: "the model did not answer (refused, cut off, out of context, provider down), "
    "nothing was found, or the output could not be written",
    Exit.USAGE: "the command was written wrongly: unknown option, model, tool or file; text that is "
    "not UTF-8",
    Exit.SETUP: "something is missing on this machine: a key, an extra, a tool server, a place to keep "
    "things",
    Exit.MODEL: "the local model cannot be fetched or loaded, or is damaged",
    Exit.FAULT: "a fault of this program; `REJOINDER_DEBUG=1` shows where",
    Exit.INTERRUPTED: "Ctrl-C",
    Exit.PIPE: "the program that read the output has ended",
}


def _of(code: Exit) -> str:
    return _CODES[code]


if __name__ == "__main__":
    Path(sys.argv[1]).write_text(reference(), "utf-8")
