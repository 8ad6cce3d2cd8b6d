"""``rejoinder keys``: the keys of providers, kept for this user. They are never printed."""

from __future__ import annotations

import argparse
import contextlib
import getpass
import importlib
import json
import os
import sys
from collections.abc import Generator, Mapping
from difflib import get_close_matches
from pathlib import Path
from typing import Any, Final, cast

from rejoinder.cli.kept import data_folder, private_folder
from rejoinder.cli.outcome import CommandError, Exit
from rejoinder.cli.render import table
from rejoinder.cli.screen import Screen

__all__ = ["add_options", "advice_about", "kept_names", "lent_keys", "run", "variables"]

_SERVICE: Final = "rejoinder"
_FILE: Final = "keys.json"
_OWN: Final[Mapping[str, tuple[str, ...]]] = {
    "openai": ("OPENAI_API_KEY",),
    "anthropic": ("ANTHROPIC_API_KEY",),
    "google": ("GOOGLE_API_KEY", "GEMINI_API_KEY"),
    "mistralai": ("MISTRAL_API_KEY",),
    "aws": ("AWS_BEARER_TOKEN_BEDROCK",),
    "azure": ("AZURE_OPENAI_API_KEY",),
    "inference": ("LIVEKIT_API_KEY", "LIVEKIT_API_SECRET"),
}
_OTHER_NAMES: Final[Mapping[str, str]] = {
    "bedrock": "aws", "gemini": "google", "livekit": "inference", "mistral": "mistralai",
    "openai.live": "openai", "openai.responses": "openai", "vertex": "google", "xai": "x_ai",
    "anthropic.bedrock": "aws",
}  # fmt: skip


def variables() -> dict[str, tuple[str, ...]]:
    """The environment variables that each provider reads its keys from."""
    from rejoinder._core.hosts import HOSTS

    hosts = {
        name: (host.key_env,)
        for name, host in HOSTS.items()
        if host.key_env and name not in _OTHER_NAMES
    }
    return {**hosts, **_OWN}


def _variables_of(name: str) -> tuple[str, ...]:
    """The variables of a provider, by its name or the name of a variable.

    Raises:
        CommandError: no provider has this name.
    """
    known = variables()
    wanted = name.strip()
    if wanted in {variable for each in known.values() for variable in each}:
        return (wanted,)
    provider = _OTHER_NAMES.get(wanted.lower(), wanted.lower())
    if provider in known:
        return known[provider]
    close = get_close_matches(provider, [*known, *_OTHER_NAMES], 1)
    hint = f"did you mean {close[0]!r}?" if close else f"known are {', '.join(sorted(known))}"
    raise CommandError(f"no provider with a key is called {name!r}; {hint}")


def add_options(parser: argparse.ArgumentParser) -> None:
    """The options of the command."""
    parser.add_argument(
        "action", nargs="?", choices=("list", "set", "remove"), default="list",
        help="list the kept keys (default) without showing them; keep the key of a provider; remove it",
    )  # fmt: skip
    parser.add_argument(
        "provider", nargs="?", help="whose key, e.g. openai; or a variable, e.g. OPENAI_API_KEY"
    )
    parser.set_defaults(quiet=False)


def run(args: argparse.Namespace) -> Exit:
    """Do it.

    Raises:
        CommandError: the provider is unknown, no key was given, or it cannot be kept.
    """
    screen = Screen(quiet=args.quiet)
    if args.action == "list":
        if args.provider is not None:
            raise CommandError(f"keys list: takes no {args.provider!r}; it lists all keys")
        return _list(screen)
    if args.provider is None:
        raise CommandError(f"name a provider: rejoinder keys {args.action} openai")
    names = _variables_of(args.provider)
    if args.action == "remove":
        with _changing(screen) as keys:
            removed = [name for name in names if _remove(keys, name)]
        screen.note(
            f"Removed {', '.join(removed)}." if removed else f"No key of {args.provider} is kept."
        )
        return Exit.OK
    if not sys.stdin.isatty():
        names = names[:1]
    if len(names) > 1 and args.provider not in ("inference", "livekit"):
        names = names[:1]  # the others are alternative names of the same key
    for name in names:
        key = _ask(name)
        with _changing(screen) as keys:
            place = _set(keys, name, key)
        screen.note(f"{name} is kept in {place}.")
        if os.environ.get(name):
            screen.note(f"The environment also sets {name}, and its value is used.")
    return Exit.OK


def _ask(name: str) -> str:
    if sys.stdin.isatty():
        try:
            key = getpass.getpass(f"{name}: ")
        except EOFError:
            key = ""
    else:
        key = sys.stdin.read()
    key = key.strip()
    if not key:
        raise CommandError("no key was given, and nothing was changed")
    if not key.isascii() or not key.isprintable() or " " in key:
        raise CommandError(
            "a key consists of ASCII characters without spaces; copy only the key, and try again"
        )
    return key


def _list(screen: Screen) -> Exit:
    kept = _read()
    rows: list[tuple[str, str]] = []
    for provider, names in sorted(variables().items()):
        for name in names:
            where = "the environment" if os.environ.get(name) else ""
            if name in kept:
                place = "the keyring" if kept[name] is None else "the file"
                where = f"{where} (also {place})" if where else place
            if where:
                rows.append((f"{provider}: {name}", where))
    print(table(rows)) if rows else screen.note(
        "No keys are kept. `rejoinder keys set openai` keeps one."
    )
    return Exit.OK


# -- where they are ------------------------------------------------------------------------------


def kept_names() -> list[str]:
    """The variables whose keys are kept."""
    return sorted(_read())


def advice_about(provider: str, problem: str) -> str:
    """How to keep the key of `provider`, if `problem` complains that it is missing; else empty."""
    provider = _OTHER_NAMES.get(provider, provider)
    missing = any(name in problem for name in variables().get(provider, ()))
    return f"; `rejoinder keys set {provider}` keeps it" if missing else ""


@contextlib.contextmanager
def lent_keys(provider: str) -> Generator[None]:
    """Put the kept keys of `provider` into the environment while its LLM is made, which reads them.
    Child processes do not inherit them."""
    names = variables().get(_OTHER_NAMES.get(provider, provider), ())
    lent: list[str] = []
    if names and not any(os.environ.get(name, "").strip() for name in names):
        kept = _read()
        for name in names:
            if name in kept:
                key = kept[name] if kept[name] is not None else _from_keyring(name)
                if key:
                    os.environ[name] = key
                    lent.append(name)
    try:
        yield
    finally:
        for name in lent:
            os.environ.pop(name, None)


def _path() -> Path:
    return data_folder() / _FILE


def _read() -> dict[str, str | None]:
    """The keys in the file; ``None`` for a key that is in the keyring."""
    path = _path()
    try:
        mode = path.stat().st_mode
        if mode & 0o077:
            path.chmod(0o600)
        data: Any = json.loads(path.read_text("utf-8"))
    except (FileNotFoundError, NotADirectoryError):
        return {}
    except OSError as error:
        why = error.strerror or error
        raise CommandError(f"the keys in {path} cannot be read: {why}", Exit.SETUP) from error
    except ValueError:
        data = None  # the error may quote the file
    if not isinstance(data, dict):
        raise CommandError(f"{path} holds no keys; remove it, and set them again", Exit.SETUP)
    entries = cast("dict[str, Any]", data)
    return {name: key for name, key in entries.items() if key is None or isinstance(key, str)}


def _write(keys: Mapping[str, str | None]) -> None:
    path = _path()
    scratch = path.with_name(f"{path.name}.new")
    try:
        scratch.unlink(missing_ok=True)  # left by a process that was killed
        number = os.open(scratch, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with open(number, "w", encoding="utf-8") as file:
            json.dump(keys, file, indent=1)
            file.flush()
            os.fsync(number)
        scratch.replace(path)
    except OSError as error:
        scratch.unlink(missing_ok=True)
        raise CommandError(
            f"the key cannot be kept in {path}: {error.strerror or error}", Exit.SETUP
        ) from error


@contextlib.contextmanager
def _changing(screen: Screen) -> Generator[dict[str, str | None]]:
    """Lock the keys against other processes, and write them after the change."""
    import fcntl

    path = private_folder() / f"{_FILE}.lock"
    try:
        lock = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    except OSError as error:
        raise CommandError(
            f"the keys in {path.parent} cannot be changed: {error.strerror or error}", Exit.SETUP
        ) from error
    try:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            screen.passing("waiting for another `rejoinder keys`")
            fcntl.flock(lock, fcntl.LOCK_EX)
            screen.clear()
        keys = _read()
        before = dict(keys)
        yield keys
        if keys != before:
            _write(keys)
    finally:
        os.close(lock)


def _set(keys: dict[str, str | None], name: str, key: str) -> str:
    keyring = _keyring()
    if keyring is not None:
        try:
            keyring.set_password(_SERVICE, name, key)
        except Exception:
            keyring = None  # locked, or without a session: use the file
    keys[name] = key if keyring is None else None
    return f"{_path()}, readable by you alone" if keyring is None else "the system's keyring"


def _remove(keys: dict[str, str | None], name: str) -> bool:
    if name not in keys:
        return False
    if keys[name] is None and (keyring := _keyring()) is not None:
        try:
            keyring.delete_password(_SERVICE, name)
        except Exception as error:
            raise CommandError(
                f"the keyring does not remove {name}: {error}", Exit.SETUP
            ) from error
    del keys[name]
    return True


def _keyring() -> Any:
    """The system's keyring, where the package `keyring` is installed and finds one."""
    try:
        keyring: Any = importlib.import_module("keyring")
        fail: Any = importlib.import_module("keyring.backends.fail")
        return None if isinstance(keyring.get_keyring(), fail.Keyring) else keyring
    except Exception:  # a backend that cannot be loaded
        return None


def _from_keyring(name: str) -> str | None:
    keyring = _keyring()
    try:
        return None if keyring is None else keyring.get_password(_SERVICE, name)
    except Exception as error:
        raise CommandError(
            f"the keyring does not give {name}: {type(error).__name__}; unlock it, or set {name}",
            Exit.SETUP,
        ) from error
