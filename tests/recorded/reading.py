"""What a plain reading of an answer gives, and how it is compared. Shared by all readings.

A reading is made with `json` and strings only, never with the code under test: two readers that
agree on every recording are unlikely to be wrong in the same way.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import Any


@dataclass
class Reading:
    """What an answer says."""

    text: str = ""
    calls: list[tuple[str, str]] = field(default_factory=list)
    """Name and arguments of each tool call, in order of their beginning."""
    call_ids: list[str] = field(default_factory=list)
    """Ids of the calls; empty where the server gave none."""
    finish: str | None = None
    usage: tuple[int, int, int] | None = None
    """Tokens read, of these from a cache, tokens generated."""
    error: str | None = None
    """Why no complete answer can be had: ``error``, ``cut``, ``refusal``, ``filter``, ``empty``."""


def events(body: str) -> list[tuple[str, str]]:
    """The (event, data) pairs of a body of server-sent events."""
    found: list[tuple[str, str]] = []
    body = body.removeprefix("\ufeff").replace("\r\n", "\n").replace("\r", "\n")
    for block in body.split("\n\n"):
        name, data = "", []
        for line in block.split("\n"):
            if line.startswith("event:"):
                name = line[6:].strip()
            elif line.startswith("data:"):
                data.append(line[5:].removeprefix(" "))
        if data:
            found.append((name, "\n".join(data)))
    return found


def is_json(text: str) -> bool:
    try:
        return isinstance(json.loads(text), dict)
    except ValueError:
        return False


def number(value: Any) -> int:
    return value if isinstance(value, int) and not isinstance(value, bool) else 0
