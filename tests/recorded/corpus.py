"""Where recorded exchanges are found, and what one is.

A recording is one JSON file with the request and the answer as they went over the wire. They are
not part of this repository: the environment variable ``REJOINDER_RECORDINGS`` names the folder
that holds ``recorded/`` and ``synthetic/``.
"""

from __future__ import annotations

import base64
import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

VARIABLE = "REJOINDER_RECORDINGS"
ABSENT = f"there are no recordings ({VARIABLE} names no folder)"


@dataclass(frozen=True)
class Exchange:
    """One recorded exchange."""

    id: str
    provider: str
    api: str
    kind: str
    """``stream``, ``json`` or ``error``."""
    tags: frozenset[str]
    status: int
    content_type: str | None
    body: bytes
    request: dict[str, Any] | None
    headers: dict[str, str]
    model: str | None


def root() -> Path | None:
    """The folder of the recordings, if there is one."""
    name = os.environ.get(VARIABLE)
    return Path(name) if name and Path(name).is_dir() else None


def required_root() -> Path:
    """The folder of the recordings; skips the test without it."""
    found = root()
    if found is None:
        pytest.skip(ABSENT)
    return found


def groups(apis: tuple[str, ...], part: str = "recorded", *, but: str = "") -> list[Any]:
    """Names like ``openai/responses`` of all folders that hold exchanges of these APIs, as values of
    a parameter; without those that begin with `but`."""
    found = root()
    if found is None:
        return [pytest.param("", id="none", marks=pytest.mark.skip(reason=ABSENT))]
    return sorted(
        f"{folder.parent.name}/{folder.name}"
        for folder in (found / part).glob("*/*")
        if folder.name in apis and not (but and folder.parent.name.startswith(but))
    )


def exchanges(group: str, part: str = "recorded") -> list[Exchange]:
    """The exchanges of a group, in order of their ids."""
    return [load(path) for path in sorted((required_root() / part / group).glob("*.json"))]


def load(path: Path) -> Exchange:
    data = json.loads(path.read_text("utf-8"))
    response = data["response"]
    encoded = response.get("body_b64")
    headers = {str(k).lower(): str(v) for k, v in (response.get("headers") or {}).items()}
    return Exchange(
        id=path.stem,
        provider=data["provider"],
        api=data["api"],
        kind=data["kind"],
        tags=frozenset(data["tags"]),
        status=response["status"],
        content_type=headers.get("content-type"),
        body=base64.b64decode(encoded)
        if encoded is not None
        else (response.get("body") or "").encode("utf-8", "surrogatepass"),
        request=(data.get("request") or {}).get("body"),
        headers=headers,
        model=data.get("model"),
    )
