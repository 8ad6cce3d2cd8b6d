"""docs/troubleshooting.md quotes errors in the words of the code."""

from __future__ import annotations

import ast
import re
from pathlib import Path

from rejoinder import errors
from rejoinder.errors import is_retryable_status

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "troubleshooting.md"
QUOTED = re.compile(r"^### `([^`]+)`$", re.MULTILINE)


def texts() -> str:
    """All text in the code, that of joined strings in pieces."""
    found: list[str] = []
    for file in (ROOT / "src").rglob("*.py"):
        for node in ast.walk(ast.parse(file.read_text("utf-8"))):
            if isinstance(node, ast.Constant) and isinstance(node.value, str):
                found.append(node.value)
    return "\n".join(found)


def test_each_quoted_message_is_one_of_the_code() -> None:
    quoted = QUOTED.findall(PAGE.read_text("utf-8"))
    assert len(quoted) > 20
    code = texts()
    gone = [text for text in quoted if any(part not in code for part in text.split("…"))]
    assert not gone, f"the code has no such message any more: {gone}"


def test_the_table_has_each_error_and_the_statuses_that_are_retried() -> None:
    text = PAGE.read_text("utf-8")
    table = text[text.index("| error |") : text.index("All but")]
    named = set(re.findall(r"`(\w+Error)`", table))
    assert {name for name in errors.__all__ if name.endswith("Error")} - {"APIError"} <= named
    told = {int(number) for number in re.findall(r"\b4\d\d\b", table)}
    assert told == {status for status in range(400, 500) if is_retryable_status(status)}
