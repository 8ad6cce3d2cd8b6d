"""The feedback to a model whose JSON does not fit the schema.

Pure. Every line states the place, the expected value and the given one. The length is bounded.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Mapping
from typing import Any, Final

from pydantic import ValidationError
from pydantic_core import ErrorDetails, to_json

__all__ = ["MAX_ERRORS", "complaints", "cut", "kind_of", "path_of", "shown", "unknown_names"]

MAX_ERRORS: Final = 8
_MAX_SHOWN = 120
"""Characters of a wrong value that are shown to the model."""
_MAX_NAME = 64
"""Characters of a name that are compared with the known ones."""


def complaints(error: ValidationError, schema: Mapping[str, Any]) -> list[str]:
    """One line for each of the first errors, and one that counts the others."""
    details = error.errors(include_url=False, include_context=False)
    lines = [f"- {_line(detail, schema)}" for detail in details[:MAX_ERRORS]]
    if len(details) > MAX_ERRORS:
        lines.append(f"- and {len(details) - MAX_ERRORS} more")
    return lines


def unknown_names(given: Iterable[str], known: list[str]) -> list[str]:
    """One line for each of the first unknown names, with a suggestion where one is close."""
    lines: list[str] = []
    by_case = {key.casefold(): key for key in known}
    for name in given:
        if len(lines) == MAX_ERRORS:
            break
        if name in known:
            continue
        close = difflib.get_close_matches(name[:_MAX_NAME].casefold(), by_case, n=1)
        hint = f", did you mean `{by_case[close[0]]}`?" if close else f"; there are {_names(known)}"
        lines.append(f"- {path_of((cut(name),))}: no such argument{hint}")
    return lines


_ENUM_MEMBER: Final = re.compile(r"<\w+(?:\.\w+)+: (.*?)>(?=,| or |$)")
"""Matches an enum member as pydantic shows it. The model knows only the value."""


def _line(detail: ErrorDetails, schema: Mapping[str, Any]) -> str:
    path = path_of(detail["loc"])
    if detail["type"] == "missing":
        if len(detail["loc"]) == 1:
            place: Any = schema.get("properties", {}).get(detail["loc"][0], {})
            kind = place.get("type")
            if isinstance(kind, str):
                return f"{path}: expected a value ({kind}), got nothing"
        return f"{path}: expected a value, got nothing"
    message = detail["msg"]
    for start in ("Value error, ", "Assertion failed, "):
        message = message.removeprefix(start)
    if message.startswith("Input should be "):
        message = "expected " + message.removeprefix("Input should be ")
    if detail["type"] == "literal_error":
        message = _ENUM_MEMBER.sub(r"\1", message)
    value: Any = detail["input"]
    got = "null" if value is None else f"{kind_of(value)} {shown(value)}"
    return f"{path}: {message}, got {got}"


def path_of(steps: tuple[int | str, ...]) -> str:
    """The place in a JSON value, as in ``$.items[0].name``."""
    path = "$"
    for step in steps:
        path += f"[{step}]" if isinstance(step, int) else f".{step}"
    return path


def _names(names: list[str]) -> str:
    return ", ".join(f"`{name}`" for name in names) or "none"


def kind_of(value: object) -> str:
    """JSON's name for a value of this kind."""
    match value:
        case None:
            return "null"
        case bool():
            return "boolean"
        case int() | float():
            return "number"
        case str():
            return "text"
        case dict():
            return "object"
        case list():
            return "array"
        case _:
            return type(value).__name__


def shown(value: object) -> str:
    """The start of `value` as JSON."""
    try:
        text = to_json(value, inf_nan_mode="constants").decode()
    except ValueError:  # a lone surrogate, or not a JSON value
        text = ascii(value)
    return cut(text)


def cut(text: str) -> str:
    """The start of `text`."""
    return text if len(text) <= _MAX_SHOWN else f"{text[:_MAX_SHOWN]}..."
