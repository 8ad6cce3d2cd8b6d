"""docs/troubleshooting.md quotes errors in the words of the code, and errors name their section."""

from __future__ import annotations

import ast
import re
from functools import cache
from pathlib import Path

from rejoinder import errors
from rejoinder._sections import SECTIONS
from rejoinder.errors import is_retryable_status

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "troubleshooting.md"
SECTION = re.compile(r"^### (.+)\n\n(?:> (`.+`)\n)?", re.MULTILINE)
QUOTED = re.compile(r"`((?:[^`]|`(?! *,|$))+)`")


def sections() -> dict[str, list[str]]:
    """The anchor of each section, and the messages that it quotes."""
    found = SECTION.findall(PAGE.read_text("utf-8"))
    return {anchor(title): QUOTED.findall(quotes) for title, quotes in found}


def anchor(title: str) -> str:
    """As the site and code hosts make it of a heading."""
    return re.sub(r"[^\w -]", "", title.lower()).replace(" ", "-")


@cache
def trees() -> list[ast.AST]:
    return [ast.parse(file.read_text("utf-8")) for file in (ROOT / "src").rglob("*.py")]


def texts() -> str:
    """All text in the code, that of joined strings in pieces."""
    return "\n".join(
        node.value
        for tree in trees()
        for node in ast.walk(tree)
        if isinstance(node, ast.Constant) and isinstance(node.value, str)
    )


def kinds_in_use() -> set[str]:
    """The kinds of errors that the code gives: to `explained`, or as the section of an `APIError`."""
    found: set[str] = set()
    for tree in trees():
        for node in ast.walk(tree):
            given: list[ast.expr] = []
            if isinstance(node, ast.Call):
                if isinstance(node.func, ast.Name) and node.func.id == "explained":
                    given = node.args[1:]
                given += [word.value for word in node.keywords if word.arg == "section"]
            elif isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "section":
                given = [node.value]
            found |= {kind.value for kind in given if isinstance(kind, ast.Constant)}  # type: ignore[misc]
    return found


def test_each_quoted_message_is_one_of_the_code() -> None:
    quoted = [text for texts in sections().values() for text in texts]
    assert len(quoted) > 40
    code = texts()
    gone = [text for text in quoted if any(part not in code for part in text.split("…"))]
    assert not gone, f"the code has no such message any more: {gone}"


def test_each_kind_of_error_has_a_section_and_each_section_with_a_message_a_kind() -> None:
    there = sections()
    missing = {kind: place for kind, place in SECTIONS.items() if place not in there}
    assert not missing, f"the page has no such section: {missing}"
    unnamed = [
        place for place, quotes in there.items() if quotes and place not in SECTIONS.values()
    ]
    assert not unnamed, f"no error names these sections: {unnamed}"


def test_the_code_gives_kinds_of_the_table_and_each_of_them() -> None:
    used = kinds_in_use()
    assert used <= SECTIONS.keys(), f"not in the table: {used - SECTIONS.keys()}"
    # Those of a status, of a deadline and of the words of a server are chosen at run time.
    chosen = {"no output", "no further output", "whole reply", "context too long", "schema refused"}
    unused = {kind for kind in SECTIONS if not kind.startswith("status ")} - used - chosen
    assert not unused, f"no error has this kind: {unused}"


def test_the_table_has_each_error_and_the_statuses_that_are_retried() -> None:
    text = PAGE.read_text("utf-8")
    table = text[text.index("| error |") : text.index("All except")]
    named = set(re.findall(r"`(\w+Error)`", table))
    assert {name for name in errors.__all__ if name.endswith("Error")} - {"APIError"} <= named
    told = {int(number) for number in re.findall(r"\b4\d\d\b", table)}
    assert told == {status for status in range(400, 500) if is_retryable_status(status)}
