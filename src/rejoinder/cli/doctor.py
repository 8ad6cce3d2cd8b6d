"""``rejoinder doctor``: what this machine has, and what is missing. Asks no network and no model."""

from __future__ import annotations

import argparse
import importlib.metadata
import importlib.util
import os
import platform
import shutil
from pathlib import Path

from rejoinder.cli.outcome import Exit
from rejoinder.cli.render import Style, size
from rejoinder.cli.screen import Screen

__all__ = ["add_options", "run"]

_EXTRAS = (
    ("local", "xllamacpp", "models on this machine"),
    ("mcp", "mcp", "tools of MCP servers"),
    ("google", "google.auth", "Vertex AI"),
    ("aws", "botocore", "Bedrock's credential chain"),
    ("images", "PIL", "pictures from video frames"),
    ("cli", "tzdata", "time zones for the demo tool, where the system has none"),
    ("langchain", "langchain_core", "LangChain and LangGraph"),
)
_KEYS = (
    "OPENAI_API_KEY",
    "ANTHROPIC_API_KEY",
    "GOOGLE_API_KEY",
    "GEMINI_API_KEY",
    "MISTRAL_API_KEY",
    "AWS_ACCESS_KEY_ID",
    "LIVEKIT_API_KEY",
)


def add_options(parser: argparse.ArgumentParser) -> None:
    """The command has none."""
    parser.set_defaults(quiet=False)


def run(args: argparse.Namespace) -> Exit:
    """Look, and tell. The exit code says whether a local chat can work."""
    from rejoinder.__about__ import __version__

    style = Screen(quiet=args.quiet).out_style
    print(f"rejoinder {__version__}, Python {platform.python_version()}, {platform.platform()}")
    sound = _engine(style)
    sound = _folder(style) and sound
    for extra, module, use in _EXTRAS[1:]:
        if _there(module):
            _line(style, True, f"{extra}: {use}")
        else:
            _line(style, None, f"{extra}: {use}: pip install 'rejoinder[{extra}]'")
    keys = [name for name in _KEYS if os.environ.get(name)]
    _line(style, bool(keys) or None, f"keys in the environment: {', '.join(keys) or 'none'}")
    return Exit.OK if sound else Exit.SETUP


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

    folder = cache_folder()
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
