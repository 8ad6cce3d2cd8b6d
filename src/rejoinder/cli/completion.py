"""``rejoinder completion``: a script that lets a shell complete commands, options, models and the
ids of conversations."""

from __future__ import annotations

import argparse
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any, Final, cast

from rejoinder.cli.outcome import CommandError, Exit

if TYPE_CHECKING:
    from rejoinder.store import SqliteStore

__all__ = ["add_options", "candidates", "run"]

ASK: Final = "__complete"
"""The hidden command that the scripts call for candidates."""

_BASH: Final = """\
_rejoinder() {
    local IFS=$'\\n'
    COMPREPLY=($(rejoinder __complete "${COMP_WORDS[@]:1:COMP_CWORD}" 2>/dev/null))
    if [ ${#COMPREPLY[@]} -eq 0 ]; then compopt -o default; fi
}
complete -F _rejoinder rejoinder
"""
_ZSH: Final = """\
#compdef rejoinder
_rejoinder() {
    local -a found
    found=("${(@f)$(rejoinder __complete "${(@)words[2,CURRENT]}" 2>/dev/null)}")
    if [[ -n "${found[1]}" ]]; then compadd -- "${found[@]}"; else _files; fi
}
compdef _rejoinder rejoinder
"""
_FISH: Final = """\
complete -c rejoinder -a '(rejoinder __complete (commandline -opc)[2..] (commandline -ct) 2>/dev/null)'
"""
_SCRIPTS: Final = {"bash": _BASH, "zsh": _ZSH, "fish": _FISH}


def add_options(parser: argparse.ArgumentParser) -> None:
    """The options of the command."""
    parser.add_argument(
        "shell", choices=tuple(_SCRIPTS),
        help="whose script to print, e.g. for ~/.bashrc: eval \"$(rejoinder completion bash)\"",
    )  # fmt: skip
    parser.set_defaults(quiet=False)


def run(args: argparse.Namespace) -> Exit:
    """Print the script."""
    print(_SCRIPTS[args.shell], end="")
    return Exit.OK


def candidates(parser: argparse.ArgumentParser, words: Sequence[str]) -> list[str]:
    """Completions of the last of `words`; empty if a file name or free text is expected."""
    *before, word = words or [""]
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            commands: dict[str, argparse.ArgumentParser] = cast("Any", action).choices
            if not before:
                return _beginning(word, [*commands, "--version", "--help"])
            command = commands.get(before[0])
            return [] if command is None else _of_command(command, before[1:], word)
    return []


def _of_command(command: argparse.ArgumentParser, before: Sequence[str], word: str) -> list[str]:
    options = command._option_string_actions
    last = options.get(before[-1]) if before else None
    if last is not None and last.nargs is None:
        return _beginning(word, _values(last))
    if word.startswith("-"):
        return _beginning(word, options)
    if last is not None and last.nargs == "?":
        return _beginning(word, _values(last))
    given = [each for each in before if not each.startswith("-")]
    found: list[str] = []
    places = [action for action in command._actions if not action.option_strings]
    for place, action in enumerate(places):
        if place >= len(given) or action.nargs == "*":
            found += _values(action, given)
            break
    return _beginning(word, found)


def _values(action: argparse.Action, given: Sequence[str] = ()) -> Iterable[str]:
    """Possible values of `action`, after the other arguments `given`."""
    if action.choices is not None:
        return [str(choice) for choice in action.choices]
    match action.dest:
        case "model" | "fallback" | "name":
            from rejoinder.catalog import provider_names
            from rejoinder.providers.local.models import MODELS

            return [*(model.name for model in MODELS), *(f"{name}/" for name in provider_names())]
        case "provider":
            from rejoinder.cli.keys import variables

            return sorted(variables())
        case "tool_choice":
            return ["auto", "required", "none"]
        case "go_on":
            return _conversations()
        case "what" if given[:1] in (["show"], ["export"], ["remove"]):
            return _conversations()
        case _:
            return []


def _conversations() -> list[str]:
    """The ids of the kept conversations, newest first."""
    import asyncio

    from rejoinder.cli.kept import open_store, store_path
    from rejoinder.store import StoreError

    async def ids(store: SqliteStore) -> list[str]:
        try:
            return [each.id for each in await store.conversations()]
        finally:
            await store.aclose()

    try:
        if not store_path().exists():
            return []  # opening it would create it
        return asyncio.run(ids(open_store()))
    except (CommandError, StoreError, OSError):
        return []


def _beginning(word: str, found: Iterable[str]) -> list[str]:
    return [each for each in found if each.startswith(word)]
