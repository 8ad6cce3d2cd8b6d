"""``rejoinder doctor``: reports what this machine has and lacks. With the name of a model it requests
one token from it; without a name it uses no network and no model."""

from __future__ import annotations

import argparse
import importlib.metadata
import importlib.util
import os
import platform
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, cast

from rejoinder.cli.keys import kept_names, variables
from rejoinder.cli.llms import Model, is_local, make_llm
from rejoinder.cli.loop import LoopThread
from rejoinder.cli.numbers import seconds
from rejoinder.cli.outcome import CommandError, Exit
from rejoinder.cli.render import Style, one_line, sentence, size
from rejoinder.cli.screen import Screen
from rejoinder.errors import ConfigurationError

if TYPE_CHECKING:
    from rejoinder.transport.http import HttpTransport

__all__ = ["add_options", "run"]

_EXTRAS = (
    ("local", "xllamacpp", "models on this machine"),
    ("mcp", "mcp", "tools of MCP servers"),
    ("google", "google.auth", "Vertex AI"),
    ("aws", "botocore", "Bedrock's credential chain"),
    ("images", "PIL", "pictures from video frames"),
    ("audio", "soxr", "sound of any rate"),
    ("talk", "sounddevice", "microphone and speaker"),
    ("cli", "prompt_toolkit", "line editing, drawn replies, windows of models, time zones"),
    ("web", "starlette", "the page of `rejoinder web`"),
    ("keyring", "keyring", "keys in the system's keyring"),
    ("langchain", "langchain_core", "LangChain and LangGraph"),
)
_VERSIONS = ("aiohttp", "pydantic", "msgspec", "opentelemetry-api")


def add_options(parser: argparse.ArgumentParser) -> None:
    """The options of the command."""
    parser.add_argument(
        "model", nargs="?",
        help="try this model: request a token, and report the time of each step",
    )  # fmt: skip
    parser.add_argument("--base-url", metavar="URL", help="address of the provider's API")
    parser.add_argument(
        "--timeout", metavar="SECONDS", type=seconds, default=30.0,
        help="how long the model may be silent (default: %(default)g)",
    )  # fmt: skip
    parser.set_defaults(quiet=False)


def run(args: argparse.Namespace) -> Exit:
    """Print the report. The exit code shows whether a local chat can work."""
    from rejoinder.__about__ import __version__

    screen = Screen(quiet=args.quiet)
    style = screen.out_style
    if args.model is not None:
        return _try(args, screen)
    if args.base_url is not None:
        raise CommandError("--base-url: name the model to try there, such as openai/any")
    print(f"rejoinder {__version__}, Python {platform.python_version()}, {platform.platform()}")
    versions = (f"{name} {importlib.metadata.version(name)}" for name in _VERSIONS)
    print(f"with {', '.join(versions)}")
    sound = _engine(style)
    sound = _folder(style) and sound
    for extra, module, use in _EXTRAS[1:]:
        if _there(module):
            _line(style, True, f"{extra}: {use} ({_version(module)})")
        else:
            _line(style, None, f"{extra}: {use}: pip install 'rejoinder[{extra}]'")
    known = sorted({name for names in variables().values() for name in names})
    keys = [name for name in known if os.environ.get(name)]
    _line(style, bool(keys) or None, f"keys in the environment: {', '.join(keys) or 'none'}")
    try:
        kept = kept_names()
    except CommandError as error:
        _line(style, False, f"keys that are kept: {error}")
    else:
        _line(style, bool(kept) or None, f"keys that are kept: {', '.join(kept) or 'none'}")
    return Exit.OK if sound else Exit.SETUP


def _try(args: argparse.Namespace, screen: Screen) -> Exit:
    """Ask the model for a token."""
    from rejoinder.cli.reach import reach

    local = args.base_url is None and is_local(args.model)

    def make(transport: object) -> Model:
        return make_llm(
            args.model, base_url=args.base_url, report=screen.fetching,
            max_tokens=1 if local else None, context=None, temperature=None,
            transport=cast("HttpTransport | None", transport),
        )  # fmt: skip

    with LoopThread() as loop:
        found = loop.run(reach(make, local=local, timeout=args.timeout))
    screen.clear()
    for what, took in found.steps:
        _line(screen.out_style, True, f"{took * 1000:7.1f} ms  {what}")
    if found.error is None:
        _line(screen.out_style, True, f"{args.model} answers: {one_line(found.text, 60)!r}")
        return Exit.OK
    print(f"{screen.out_style.red('failed ')} {sentence(found.error)}")
    print(f"        {sentence(found.advice or '')}")
    return Exit.FAILED


def _version(module: str) -> str:
    names = importlib.metadata.packages_distributions().get(module.partition(".")[0], [])
    return importlib.metadata.version(names[0]) if names else "installed"


def _line(style: Style, sound: bool | None, text: str) -> None:
    mark = {True: style.green("ok     "), False: style.red("missing"), None: style.dim("-      ")}
    print(f"{mark[sound]} {text}")


def _there(module: str) -> bool:
    try:
        return importlib.util.find_spec(module) is not None
    except ImportError:
        return False


def _engine(style: Style) -> bool:
    if not _there("xllamacpp"):
        _line(style, False, "local: the engine: pip install 'rejoinder[local]'")
        return False
    from rejoinder.providers.local.engine import default_threads

    writing, reading = default_threads()
    version = importlib.metadata.version("xllamacpp")
    _line(style, True, f"local: engine {version}, {reading} cores to read, {writing} to write")
    return True


def _folder(style: Style) -> bool:
    from rejoinder.providers.local.fetch import cache_folder, ready
    from rejoinder.providers.local.models import DEFAULT_MODEL, MODELS

    try:
        folder = cache_folder()
    except ConfigurationError as error:
        _line(style, False, f"models: {error}")
        return False
    there = folder
    while not there.exists():
        there = there.parent
    writable = os.access(there, os.W_OK | os.X_OK) and there.is_dir()
    free = shutil.disk_usage(there).free
    _line(
        style,
        writable,
        f"models are kept in {folder} ({size(free)} free{'' if writable else ', cannot be written'})",
    )
    default_here = False
    for model in MODELS:
        here = ready(model) is not None
        default_here = default_here or (here and model.name == DEFAULT_MODEL)
        _line(style, here or None, f"model {model.name}: {'here' if here else 'not fetched'}")
    tool = "pip" if _there("pip") else shutil.which("uv") or ("pip" if _there("ensurepip") else "")
    if not default_here:
        _line(style, bool(tool), f"to fetch models: {Path(tool).name if tool else 'pip or uv'}")
    return writable and (default_here or bool(tool))
