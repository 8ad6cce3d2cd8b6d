"""Record exact versions of everything foreign, and print what changed.

    python requirements/lock.py            keep the recorded versions; add and drop what has to be
    python requirements/lock.py --newest   record the newest versions
    python requirements/lock.py --check    fail if something has to be added or dropped

- ``dev.lock`` and ``chat.lock`` come from pyproject.toml.
- Each ``NAME.in`` in a folder below this one becomes ``NAME.lock``: an environment for a foreign
  program of the tests (``outside/``) or for a peer of the benchmarks (``bench/``).
- Each folder with a ``package.json`` gets a ``package-lock.json``.
"""

from __future__ import annotations

import argparse
import json
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

from foreign import FOLDER, UV, npm

ROOT = FOLDER.parent
# Python packages are locked for every platform and every Python from the oldest one on.
COMPILE = [
    *(*UV, "pip", "compile", "--universal", "--python-version", "3.11", "--generate-hashes"),
    *("--no-annotate", "--no-header", "--no-emit-index-url", "--quiet"),
    # An environment that holds our dependencies too (`.[extra]` in its file) imports the checkout.
    *("--no-emit-package", "rejoinder"),
]
PROJECT = "pyproject.toml"
OURS = {
    "dev": [PROJECT, "--extra", "all", "--group", "dev"],
    # The same versions in both, so that one environment can hold both.
    "chat": [
        *(PROJECT, "--extra", "local", "--extra", "cli", "--group", "build"),
        *("--constraints", "requirements/dev.lock"),
    ],
}


def locks() -> Iterator[tuple[Path, list[str]]]:
    """Each lock of Python packages, and what it is compiled from."""
    for name, source in OURS.items():
        yield FOLDER / f"{name}.lock", source
    for source in sorted(FOLDER.glob("*/*.in")):
        yield source.with_suffix(".lock"), [str(source.relative_to(ROOT))]


def recorded(lock: Path) -> dict[str, str]:
    """Name and version of each package in a lock, if there is one already."""
    if not lock.exists():
        return {}
    text = lock.read_text("utf-8")
    if lock.suffix == ".json":
        packages = json.loads(text)["packages"]
        return {path: entry["version"] for path, entry in packages.items() if "version" in entry}
    found: dict[str, list[str]] = {}
    # One package can have several versions, each for other platforms or Pythons.
    for name, version in re.findall(r"^([\w.-]+)==([^\s;]+)", text, re.MULTILINE):
        found.setdefault(name, []).append(version)
    return {name: ", ".join(versions) for name, versions in found.items()}


def differences(before: dict[str, str], after: dict[str, str]) -> Iterator[str]:
    if not before:
        yield f"new, {len(after)} packages"
        return
    for name in sorted(before.keys() | after.keys()):
        old, new = before.get(name), after.get(name)
        if old != new:
            yield f"{name} {old or '(new)'} -> {new or '(gone)'}"


def run(command: Sequence[str], folder: Path = ROOT) -> None:
    if subprocess.run(command, cwd=folder).returncode:
        sys.exit(f"failed in {folder}: {' '.join(command)}")


def lock_node(folder: Path, newest: bool) -> None:
    wanted = json.loads((folder / "package.json").read_text("utf-8"))["dependencies"]
    if newest:
        (folder / "package-lock.json").unlink(missing_ok=True)
    # A pre-release is newer than what npm calls the latest: it is changed by hand alone.
    names = [
        f"{name}@{version if '-' in version else 'latest'}" for name, version in wanted.items()
    ]
    names = names if newest else []
    options = ["--package-lock-only", "--save-exact", "--no-audit", "--no-fund", "--silent"]
    options += ["--omit-lockfile-registry-resolved"]  # another machine may use another registry
    run([*npm(), "install", *options, *names], folder)


def lock_python(lock: Path, source: Sequence[str], newest: bool = False) -> None:
    """Write `lock`. What it holds already stays, unless `newest`."""
    upgrade = ["--upgrade"] if newest else []
    run([*COMPILE, *upgrade, *source, "--output-file", str(lock)])


def check() -> bool:
    """Whether the locks of Python packages hold what they are compiled from; says what does not."""
    good = True
    with tempfile.TemporaryDirectory() as folder:
        for lock, source in locks():
            copy = Path(folder) / lock.name
            shutil.copy(lock, copy)
            lock_python(copy, source)
            for line in differences(recorded(lock), recorded(copy)):
                print(f"{lock.relative_to(FOLDER)}: {line}")
                good = False
    return good


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    how = parser.add_mutually_exclusive_group()
    how.add_argument("--newest", action="store_true", help="take the newest versions")
    how.add_argument("--check", action="store_true", help="change nothing")
    options = parser.parse_args()
    if options.check:
        sys.exit(0 if check() else "run `make relock`")
    newest: bool = options.newest
    changed = False
    for lock, source in locks():
        before = recorded(lock)
        lock_python(lock, source, newest)
        changed |= told(lock, before)
    for package in sorted(FOLDER.glob("*/*/package.json")):
        lock = package.with_name("package-lock.json")
        before = recorded(lock)
        lock_node(package.parent, newest)
        changed |= told(lock, before)
    if not changed:
        print("every version stays")


def told(lock: Path, before: dict[str, str]) -> bool:
    """Print what became newer, came or went in a lock."""
    lines = list(differences(before, recorded(lock)))
    for line in lines:
        print(f"{lock.relative_to(FOLDER)}: {line}")
    return bool(lines)


if __name__ == "__main__":
    main()
