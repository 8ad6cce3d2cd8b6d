"""``rejoinder migrate``: replaces imports of LiveKit Agents by ours in a program, or shows how.

Without ``--write`` it changes nothing and prints a diff. A program that also uses names without a
counterpart (``AgentSession``, ``JobContext``, a plugin for speech) stays with LiveKit Agents and is not
changed; it can still use our models (docs/integrations.md).
"""

from __future__ import annotations

import argparse
import ast
import difflib
import io
import os
import tokenize
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Final

from rejoinder.cli.outcome import CommandError, Exit
from rejoinder.cli.screen import Screen

__all__ = ["Migrated", "add_options", "migrate", "run"]

_MODULES: Final = {
    "livekit.agents": "rejoinder",
    "livekit.agents._exceptions": "rejoinder.errors",
    "livekit.agents.inference": "rejoinder.providers.inference",
    "livekit.agents.llm": "rejoinder.llm",
    "livekit.agents.metrics": "rejoinder.metrics",
    "livekit.agents.types": "rejoinder.types",
    "livekit.plugins": "rejoinder.providers",
}
"""Our module for each module of LiveKit Agents."""
_PACKAGES: Final = ("livekit.agents.llm.", "livekit.plugins.")
"""Packages whose submodules are below our counterparts."""
_MOVED: Final = {
    ("livekit.agents", "inference"): "rejoinder.providers",
    ("livekit.agents", "mcp"): "rejoinder.llm",
}
"""Names that have another place than the rest of their module."""
_SKIPPED: Final = frozenset(
    {"node_modules", "site-packages", "venv", "__pycache__", "build", "dist"}
)
_WIDTH: Final = 88


@dataclass(slots=True)
class Migrated:
    """The result for one file.

    Attributes:
        text: the program with our imports.
        stays: used names without a counterpart: the line, and the name.
    """

    text: str
    stays: list[tuple[int, str]] = field(default_factory=list[tuple[int, str]])


@dataclass(frozen=True, slots=True)
class _Name:
    """One name of an import, as it will be written."""

    module: str
    text: str
    before: tuple[str, ...] = ()
    """Comments in the lines above it."""
    after: str = ""
    """The comment behind it."""


def _home(module: str) -> str | None:
    """Our counterpart of a module, or ``None``."""
    if module in _MODULES:
        return _MODULES[module]
    for package in _PACKAGES:
        if module.startswith(package):
            found = f"{_MODULES[package[:-1]]}.{module[len(package) :]}"
            return found if _exists(found) else None
    return None


def _exists(module: str) -> bool:
    try:
        return find_spec(module) is not None
    except ImportError:
        return False


def _has(module: str, name: str) -> bool:
    """Whether one of our modules has a public name."""
    if name.startswith("_"):
        return False
    if _exists(f"{module}.{name}") and (
        module != "rejoinder" or f"livekit.agents.{name}" in _MODULES
    ):
        return True  # its `cli` is something else
    try:
        names: Sequence[str] = import_module(module).__all__
    except (ImportError, AttributeError):
        return False
    return name in names


def _uses(tree: ast.AST, name: str) -> Iterator[tuple[int, str]]:
    """The attributes of a variable that a program uses: the line, and the attribute."""
    for node in ast.walk(tree):
        if (
            isinstance(node, ast.Attribute)
            and isinstance(node.value, ast.Name)
            and node.value.id == name
        ):
            yield node.lineno, node.attr


def _foreign(module: str) -> bool:
    return module in {"livekit.agents", "livekit.plugins"} or module.startswith(
        ("livekit.agents.", "livekit.plugins.")
    )


class _File:
    """One file: finds what to replace, and what has no counterpart."""

    def __init__(self, text: str) -> None:
        self._lines = text.encode().splitlines(keepends=True)
        self._tree = ast.parse(text)
        self._comments = _comments(text)
        self.stays: list[tuple[int, str]] = []

    def replaced(self) -> str:
        nodes = [
            node for node in ast.walk(self._tree) if isinstance(node, ast.Import | ast.ImportFrom)
        ]
        for node in sorted(nodes, key=lambda node: (node.lineno, node.col_offset), reverse=True):
            names = self._import(node) if isinstance(node, ast.Import) else self._from(node)
            if names is not None:
                self._put(node, names)
        self.stays.sort()
        return b"".join(self._lines).decode()

    def _import(self, node: ast.Import) -> list[_Name] | None:
        found: list[_Name] = []
        changed = False
        for alias in node.names:
            home = _home(alias.name) if _foreign(alias.name) else None
            if home is not None and alias.asname and self._complete(alias.asname, home, alias.name):
                found.append(_Name("", f"{home} as {alias.asname}"))
                changed = True
                continue
            if _foreign(alias.name) and (home is None or not alias.asname):
                self.stays.append((node.lineno, alias.name))
            found.append(_Name("", alias.name + (f" as {alias.asname}" if alias.asname else "")))
        return found if changed else None

    def _from(self, node: ast.ImportFrom) -> list[_Name] | None:
        module = node.module or ""
        if node.level or not (_foreign(module) or module == "livekit"):
            return None
        found: list[_Name] = []
        for alias in node.names:
            full = f"{module}.{alias.name}"
            if module == "livekit" and not _foreign(full):
                home = None  # `from livekit import rtc`: not replaced
            else:
                home = self._find(module, alias)
                if home is None:
                    self.stays.append((alias.lineno, full))
            text = alias.name + (f" as {alias.asname}" if alias.asname else "")
            found.append(self._commented(_Name(home or module, text), node, alias))
        return found if any(name.module != module for name in found) else None

    def _find(self, module: str, alias: ast.alias) -> str | None:
        """Our module with this name, if it has everything that the file uses of it."""
        home = _MOVED.get((module, alias.name)) or _home(module)
        if home is None or not _has(home, alias.name):
            return None
        if _exists(f"{home}.{alias.name}"):
            bound = alias.asname or alias.name
            if not self._complete(bound, f"{home}.{alias.name}", f"{module}.{alias.name}"):
                return None
        return home

    def _complete(self, bound: str, home: str, was: str) -> bool:
        """Whether one of our modules has everything that the file uses of its counterpart."""
        missing = [(line, name) for line, name in _uses(self._tree, bound) if not _has(home, name)]
        self.stays += [(line, f"{was}.{name}") for line, name in missing]
        return not missing

    def _commented(self, name: _Name, node: ast.ImportFrom, alias: ast.alias) -> _Name:
        """A name with its comments inside the parentheses of the import."""
        last = all(
            other.lineno != alias.lineno for other in node.names[node.names.index(alias) + 1 :]
        )
        inside = node.lineno <= alias.lineno < (node.end_lineno or 0)
        after = self._comments.get(alias.lineno, "") if last and inside else ""
        above: list[str] = []
        line = alias.lineno - 1
        while line > node.lineno and self._lines[line - 1].lstrip().startswith(b"#"):
            above.insert(0, self._comments[line])
            line -= 1
        first = (
            node.names[node.names.index(alias) - 1].lineno < alias.lineno or alias is node.names[0]
        )
        return _Name(name.module, name.text, tuple(above) if first else (), after)

    def _put(self, node: ast.Import | ast.ImportFrom, names: list[_Name]) -> None:
        first, last = node.lineno - 1, (node.end_lineno or node.lineno) - 1
        before = self._lines[first][: node.col_offset]
        behind = self._lines[last][node.end_col_offset or 0 :]
        indent = before.decode() if not before.strip() else ""
        end = "\r\n" if self._lines[first].endswith(b"\r\n") else "\n"
        statements = list(_statements(names, indent, end))
        between = f"{end}{indent}" if not before.strip() else "; "
        self._lines[first : last + 1] = [before + between.join(statements).encode() + behind]


def _comments(text: str) -> dict[int, str]:
    return {
        token.start[0]: token.string
        for token in tokenize.generate_tokens(io.StringIO(text).readline)
        if token.type == tokenize.COMMENT
    }


def _statements(names: list[_Name], indent: str, end: str) -> Iterator[str]:
    for module in dict.fromkeys(name.module for name in names):
        group = [name for name in names if name.module == module]
        start = f"from {module} import " if module else "import "
        line = start + ", ".join(name.text for name in group)
        if not any(name.before or name.after for name in group) and (
            len(indent + line) <= _WIDTH or not module
        ):
            yield line
            continue
        inner = f"{indent}    "
        rows: list[str] = []
        for name in group:
            rows += [inner + comment for comment in name.before]
            rows.append(f"{inner}{name.text}," + (f"  {name.after}" if name.after else ""))
        yield end.join([f"{start}(", *rows, f"{indent})"])


def migrate(text: str) -> Migrated:
    """The text of a program with our imports, and the names without a counterpart.

    Raises:
        SyntaxError: it is not Python.
    """
    file = _File(text)
    return Migrated(file.replaced(), file.stays)


# -- the command ----------------------------------------------------------------------------------


def add_options(parser: argparse.ArgumentParser) -> None:
    """The options of the command."""
    parser.add_argument("path", nargs="+", help="files, or folders of a program")
    parser.add_argument(
        "--write", action="store_true", help="change the files; default: show the changes"
    )
    parser.add_argument(
        "--anyway", action="store_true",
        help="change even programs that use names without a counterpart; their imports stay",
    )  # fmt: skip
    parser.add_argument("-q", "--quiet", action="store_true", help="no notes")


def run(args: argparse.Namespace) -> Exit:
    """Show the changes, or make them.

    Raises:
        CommandError: a path does not exist.
    """
    screen = Screen(quiet=args.quiet)
    changed: list[tuple[Path, str, Migrated]] = []
    stays: list[str] = []
    for path in _files(Path(path) for path in args.path):
        try:
            text = _read(path)
            result = migrate(text)
        except (SyntaxError, ValueError) as error:  # not Python, another encoding, a NUL
            screen.note(f"{path} was skipped: {error}")
            continue
        except (RecursionError, MemoryError):  # the parser's stack is full
            screen.note(f"{path} was skipped: it is nested too deeply")
            continue
        stays += [f"  {path}:{line}: {name}" for line, name in result.stays]
        if result.text != text:
            changed.append((path, text, result))
    if stays:
        screen.note("Not in rejoinder:\n" + "\n".join(stays))
        if not args.anyway:
            screen.note(
                "Nothing was changed, because parts of this program stay with LiveKit Agents, and "
                "their objects do not mix. Use our models inside it: rejoinder.integrations.livekit "
                "(docs/integrations.md). With --anyway, the other imports are replaced."
            )
            return Exit.OK
    for path, text, result in changed:
        if args.write:
            _write(path, result.text)
        else:
            print("".join(_diff(path, text, result.text)), end="")
    done = "changed" if args.write else "would change (--write changes them)"
    screen.note(f"{len(changed)} files {done}")
    return Exit.OK


def _files(paths: Iterable[Path]) -> Iterator[Path]:
    for path in paths:
        if path.is_dir():
            for folder, inner, names in os.walk(path):
                inner[:] = sorted(
                    name for name in inner if name not in _SKIPPED and not name.startswith(".")
                )
                yield from (Path(folder, name) for name in sorted(names) if name.endswith(".py"))
        elif path.exists():
            yield path
        else:
            raise CommandError(f"{path} does not exist")


def _read(path: Path) -> str:
    data = path.read_bytes()
    encoding, _ = tokenize.detect_encoding(io.BytesIO(data).readline)
    return data.decode(encoding)


def _write(path: Path, text: str) -> None:
    encoding, _ = tokenize.detect_encoding(io.BytesIO(path.read_bytes()).readline)
    path.write_bytes(text.encode(encoding))


def _diff(path: Path, before: str, after: str) -> Iterator[str]:
    return difflib.unified_diff(
        before.splitlines(keepends=True), after.splitlines(keepends=True), str(path), str(path)
    )
