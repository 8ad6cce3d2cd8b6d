"""Run the tests that are near to a change:  python tests/near.py [options of pytest]

What counts as changed: everything that differs from the main branch, or from the last commit but one
where nothing does. Near to a file are

- the tests that mirror it (``src/rejoinder/a/b.py``: ``tests/a/test_b.py`` and ``tests/a/test_b_*.py``),
- the tests that import it, where these are few,
- all tests of its provider, and the rows of that provider in ``tests/contract``.

Tests marked `slow` are left out. The whole suite (``make tests``) decides.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
MANY = 12
"""Test files that import a module, from which on it is everywhere, and near to nothing."""
ROWS = {
    "clouds": "aws or bedrock or vertex",
    "completions": "openai or azure or inference or mistral",
}
"""Rows of ``tests/contract`` that show what a shared room does, where these are not all."""
SHARED = ("answering", "asking", "wire", "transport")
"""Rooms whose changes every row can show."""


def git(*arguments: str) -> list[str]:
    """Lines of git's output; none where it fails."""
    done = subprocess.run(["git", *arguments], cwd=ROOT, capture_output=True, text=True)
    return done.stdout.splitlines() if done.returncode == 0 else []


def changed() -> list[str]:
    """Paths of the files that changed."""
    for main in ("main", "origin/main"):
        base = git("merge-base", "HEAD", main)
        if base:
            break
    else:
        base = ["HEAD"]
    new = git("ls-files", "--others", "--exclude-standard")
    return [*git("diff", "--name-only", base[0]), *new] or git("diff", "--name-only", "HEAD~1")


TESTED_BY = {"bench": "tests/house/test_benchmarks.py", "examples": "tests/examples"}
"""Tests of what lies in other folders."""


class Near:
    """What is near to changed files.

    Attributes:
        files: paths to run, relative to the checkout.
        rows: expressions for the rows of ``tests/contract``; empty for all of them.
    """

    def __init__(self, root: Path = ROOT) -> None:
        self.root = root
        self.files: set[str] = set()
        self.rows: set[str] = set()
        self._texts = {
            str(path.relative_to(root)): path.read_text("utf-8")
            for path in (root / "tests").rglob("*.py")
            if "outside" not in path.relative_to(root).parts
        }

    def add(self, path: str) -> None:
        """Add what is near to the file at `path`."""
        parts = Path(path).parts
        if parts[0] == "src" and path.endswith(".py"):
            self._add_source(parts[2:])
        elif path in self._texts:
            self._add_test(path)
        elif parts[0] in TESTED_BY:
            self.files.add(TESTED_BY[parts[0]])
        elif path.endswith(".md"):
            self.files.add("tests/house/test_docs.py")
        elif parts[0] != "tests":
            self.files.add("tests/house")

    def _add_source(self, parts: tuple[str, ...]) -> None:
        *folders, name = parts
        stem = name.removesuffix(".py").strip("_")
        module = ".".join(["rejoinder", *folders, name.removesuffix(".py")])
        self.files.update(self._mirrors(Path("tests", *folders), stem))
        if folders[:1] == ["providers"] and len(folders) > 1:
            self._add_contract(folders[1])
            self.files.update(self._below(f"tests/providers/{folders[1]}/"))
        elif folders:
            self._add_contract(folders[0])
        importing = list(self._importing(module.removesuffix(".__init__")))
        if len(importing) < MANY:
            self.files.update(importing)

    def _add_contract(self, room: str) -> None:
        if room in SHARED or room in ROWS or (self.root / "tests/providers" / room).is_dir():
            self.files.add("tests/contract")
            self.rows.add("" if room in SHARED else ROWS.get(room, room))

    def _add_test(self, path: str) -> None:
        name = Path(path).name
        if name.startswith("test_"):
            self.files.add(path)
        elif name == "conftest.py":
            folder = str(Path(path).parent)
            self.files.update(["tests/house"] if folder == "tests" else self._below(f"{folder}/"))
        else:
            module = ".".join(Path(path).with_suffix("").parts[1:])
            self.files.update(self._importing(module))

    def _mirrors(self, folder: Path, stem: str) -> Iterator[str]:
        names = re.compile(rf"{re.escape(str(folder))}/test_{re.escape(stem)}(_\w+)?\.py")
        return (path for path in self._texts if names.fullmatch(path))

    def _below(self, folder: str) -> Iterator[str]:
        return (path for path in self._tests() if path.startswith(folder))

    def _importing(self, module: str) -> Iterator[str]:
        above, _, last = module.rpartition(".")
        words = rf"(?:from|import) {re.escape(module)}\b"
        if above:
            words += rf"|from {re.escape(above)} import [^\n]*\b{re.escape(last)}\b"
        importing = re.compile(words)
        return (path for path in self._tests() if importing.search(self._texts[path]))

    def _tests(self) -> Iterator[str]:
        return (path for path in self._texts if Path(path).name.startswith("test_"))

    def command(self) -> list[str]:
        """What to tell pytest."""
        chosen = sorted(self.files)
        options = ["-m", "not slow"]
        if "tests/contract" in self.files and "" not in self.rows:
            options += ["-k", f"not contract or {' or '.join(sorted(self.rows))}"]
        return [*options, *chosen]


def near(paths: Iterable[str], root: Path = ROOT) -> Near:
    found = Near(root)
    for path in paths:
        found.add(path)
    return found


def main() -> int:
    paths = changed()
    found = near(paths)
    print(f"{len(paths)} files changed; near to them: {' '.join(sorted(found.files)) or 'no test'}")
    if not found.files:
        return 0
    environment = {"HYPOTHESIS_PROFILE": "near", **os.environ}
    command = [sys.executable, "-m", "pytest", *sys.argv[1:], *found.command()]
    code = subprocess.run(command, cwd=ROOT, env=environment).returncode
    return 0 if code == 5 else code  # 5: all that is near is slow


if __name__ == "__main__":
    sys.exit(main())
