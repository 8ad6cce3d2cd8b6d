"""``rejoinder models``: the models that run on this machine."""

from __future__ import annotations

import argparse

from rejoinder.cli.loop import LoopThread
from rejoinder.cli.outcome import CommandError, Exit
from rejoinder.cli.render import size, table
from rejoinder.cli.screen import Screen
from rejoinder.errors import ConfigurationError

__all__ = ["add_options", "run"]


def add_options(parser: argparse.ArgumentParser) -> None:
    """The options of the command."""
    parser.add_argument(
        "action", nargs="?", choices=("list", "fetch", "remove", "path"), default="list",
        help="list them all (default); fetch, remove, or print the path of one",
    )  # fmt: skip
    parser.add_argument("name", nargs="?", help="which one; default: the default model")
    parser.add_argument("-q", "--quiet", action="store_true", help="no progress")


def run(args: argparse.Namespace) -> Exit:
    """Do it.

    Raises:
        CommandError: there is no such model.
        ModelError: it cannot be fetched.
    """
    from rejoinder.providers.local.fetch import cache_folder, ready
    from rejoinder.providers.local.models import DEFAULT_MODEL, MODELS, ModelFile, find_model

    screen = Screen(quiet=args.quiet)
    if args.action == "list":
        rows = [
            (
                model.name,
                size(model.size),
                model.licence,
                "here" if ready(model) else "not fetched",
                model.note + (" (the default)" if model.name == DEFAULT_MODEL else ""),
            )
            for model in MODELS
        ]
        print(table(rows))
        screen.note(f"They are kept in {cache_folder()}.")
        return Exit.OK
    try:
        model = find_model(args.name or DEFAULT_MODEL)
    except ConfigurationError as error:
        raise CommandError(str(error)) from error
    if not isinstance(model, ModelFile):
        raise CommandError(f"{args.name!r} is a file already; name a model from `rejoinder models`")
    match args.action:
        case "fetch":
            from rejoinder.providers.local.fetch import fetch

            with LoopThread() as loop:
                path = loop.run(fetch(model, report=screen.fetching))
            screen.clear()
            print(path)
        case "path":
            found = ready(model)
            if found is None:
                raise CommandError(
                    f"{model.name} is not here (rejoinder models fetch {model.name})", Exit.MODEL
                )
            print(found)
        case _:
            removed = 0
            for path in sorted(cache_folder().glob(f"{model.file_name}*")):
                if path.is_file():
                    removed += path.stat().st_size
                    path.unlink()
            screen.note(f"Removed {size(removed)}." if removed else f"{model.name} is not here.")
    return Exit.OK
