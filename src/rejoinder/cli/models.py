"""``rejoinder models``: lists and manages local models, and shows facts about others."""

from __future__ import annotations

import argparse
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Final

from rejoinder.cli.loop import LoopThread
from rejoinder.cli.outcome import CommandError, Exit
from rejoinder.cli.render import size, table
from rejoinder.cli.screen import Screen
from rejoinder.errors import ConfigurationError

if TYPE_CHECKING:
    from rejoinder._core.prices import ModelPrices, Tiers
    from rejoinder.providers.local.models import ModelFile

__all__ = ["add_options", "fetch_notice", "run"]

_ACTIONS: Final = ("list", "show", "fetch", "verify", "remove", "path")


def add_options(parser: argparse.ArgumentParser) -> None:
    """The options of the command."""
    parser.add_argument(
        "action", nargs="?", choices=_ACTIONS, default="list",
        help="list the local models (default); show facts about a local model or "
        "provider/model; fetch a local model, verify its bytes, remove it, or print its path",
    )  # fmt: skip
    parser.add_argument("name", nargs="?", help="which one; default: the default model")
    parser.add_argument("-q", "--quiet", action="store_true", help="no progress")


def run(args: argparse.Namespace) -> Exit:
    """Do it.

    Raises:
        CommandError: there is no such model, or its bytes are wrong.
        ModelError: it cannot be fetched.
    """
    from rejoinder.providers.local.models import DEFAULT_MODEL, ModelFile, find_model

    screen = Screen(quiet=args.quiet)
    if args.action == "list":
        if args.name is not None:
            raise CommandError(f"models list: takes no {args.name!r}; rejoinder models show NAME")
        return _list(screen)
    name = (args.name or DEFAULT_MODEL).removeprefix("local/")
    if "/" in name and not Path(name).exists():
        if args.action == "show":
            return _show_remote(name)
        raise CommandError(f"models {args.action}: {name!r} does not run on this machine")
    try:
        model = find_model(name)
    except ConfigurationError as error:
        raise CommandError(f"{error}; for a provider's model write provider/model") from error
    if not isinstance(model, ModelFile):
        raise CommandError(f"{args.name!r} is already a file; name a model from `rejoinder models`")
    match args.action:
        case "show":
            print(_facts(model))
        case "fetch":
            _fetch(model, screen)
        case "verify":
            _verify(model, screen)
        case "path":
            print(_here(model))
        case _:
            _remove(model, screen)
    return Exit.OK


def _list(screen: Screen) -> Exit:
    from rejoinder.providers.local.fetch import cache_folder, ready
    from rejoinder.providers.local.models import DEFAULT_MODEL, MODELS

    print(table([
        (
            model.name,
            size(model.size),
            model.licence,
            "here" if ready(model) else "not fetched",
            model.note + (" (the default)" if model.name == DEFAULT_MODEL else ""),
        )
        for model in MODELS
    ]))  # fmt: skip
    screen.note(f"They are kept in {cache_folder()}.")
    return Exit.OK


def _sources(model: ModelFile) -> list[str]:
    from rejoinder.providers.local.models import Hub

    places: list[str] = []
    for source in model.sources:
        if isinstance(source, Hub):
            places.append(f"huggingface.co, {source.repository}")
        else:
            parts = source.parts
            names = parts[0].requirement.partition("==")[0]
            more = f" and {len(parts) - 1} more" if len(parts) > 1 else ""
            places.append(f"the Python package index, {names}{more} (bytes inside of packages)")
    return places


def _facts(model: ModelFile) -> str:
    from rejoinder.providers.local.fetch import cache_folder, ready

    here = ready(model)
    first, *others = _sources(model)
    rows = [
        ("name", f"{model.name} ({model.title})"),
        ("licence", model.licence),
        ("size", size(model.size)),
        ("source", first),
        *(("or", other) for other in others),
        ("SHA-256", model.sha256),
        ("file", str(here or f"not fetched; goes to {cache_folder() / model.file_name}")),
    ]
    return table(rows)


def fetch_notice(name: str | None) -> str | None:
    """The notice to show before a model of this name is fetched; ``None`` if nothing will be
    fetched."""
    from rejoinder.providers.local.fetch import ready
    from rejoinder.providers.local.models import DEFAULT_MODEL, ModelFile, find_model

    try:
        model = find_model((name or DEFAULT_MODEL).removeprefix("local/"))
    except ConfigurationError:
        return None
    if not isinstance(model, ModelFile) or ready(model) is not None:
        return None
    return (
        f"{model.title}, {model.licence}, {size(model.size)}, is fetched once, from "
        f"{' or '.join(_sources(model))}."
    )


def _fetch(model: ModelFile, screen: Screen) -> None:
    from rejoinder.providers.local.fetch import fetch, ready

    if ready(model) is None:
        screen.note(_facts(model))
    with LoopThread() as loop:
        path = loop.run(fetch(model, report=screen.fetching))
    screen.clear()
    print(path)


def _here(model: ModelFile) -> Path:
    from rejoinder.providers.local.fetch import ready

    found = ready(model)
    if found is None:
        raise CommandError(
            f"{model.name} is not here (rejoinder models fetch {model.name})", Exit.MODEL
        )
    return found


def _verify(model: ModelFile, screen: Screen) -> None:
    from rejoinder.providers.local.fetch import cache_folder, verify

    path = cache_folder() / model.file_name
    if not path.exists():
        _here(model)
    with LoopThread() as loop:
        right = loop.run(verify(model, report=screen.fetching))
    screen.clear()
    if not right:
        raise CommandError(
            f"{path} is damaged: its SHA-256 is not that of {model.name}; "
            f"rejoinder models fetch {model.name} gets it again",
            Exit.MODEL,
        )
    print(f"{model.name} is whole: {size(model.size)}, SHA-256 {model.sha256}")


def _remove(model: ModelFile, screen: Screen) -> None:
    from rejoinder.providers.local.fetch import cache_folder

    removed = 0
    for path in sorted(cache_folder().glob(f"{model.file_name}*")):
        try:
            if path.is_file():
                removed += path.stat().st_size
                path.unlink()
        except OSError as error:
            raise CommandError(f"{path}: {error.strerror or error}", Exit.MODEL) from error
    screen.note(f"Removed {size(removed)}." if removed else f"{model.name} is not here.")


def _show_remote(name: str) -> Exit:
    """Print the facts about ``provider/model`` from the table of model families. Sends no
    request."""
    from rejoinder import catalog
    from rejoinder._core.families import find_family
    from rejoinder._core.prices import find_prices

    provider, _, model = name.partition("/")
    try:
        catalog.check_provider(provider)
    except ConfigurationError as error:
        raise CommandError(f"no such model: {error}") from error
    family = find_family(model)
    prices = find_prices(provider, model)
    window = family.context if family.context is not None or prices is None else prices.context
    print(table([
        ("name", name),
        ("family", family.name),
        ("window", _tokens(window)),
        ("longest reply", _tokens(family.output)),
        ("price", _price(prices)),
    ]))  # fmt: skip
    return Exit.OK


def _price(prices: ModelPrices | None) -> str:
    from rejoinder._core.prices import prices_date

    price = None if prices is None else prices.at(datetime.now(UTC))
    if price is None:
        return "unknown"
    parts = [f"${_dollars(price.input)} in", f"${_dollars(price.output)} out"]
    if price.cache_read is not None:
        parts.append(f"${_dollars(price.cache_read)} cached")
    steps = " and more for long prompts" if isinstance(price.input, tuple) else ""
    return f"{', '.join(parts)} for a million tokens{steps} ({prices_date()})"


def _dollars(price: float | Tiers) -> str:
    return f"{price[0] if isinstance(price, tuple) else price:g}"


def _tokens(count: int | None) -> str:
    return "unknown" if count is None else f"{count:,} tokens"
