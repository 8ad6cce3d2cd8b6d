"""Recordings as files of JSON, one each."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Protocol, Self, TypeVar

__all__ = ["Recorded", "load", "load_all", "save"]


class Recorded(Protocol):
    """A recording that can be stored as JSON."""

    @classmethod
    def from_json(cls, data: dict[str, Any], /) -> Self:
        """Raises:
        ValueError: `data` is not a recording of this kind.
        """
        ...

    def to_json(self) -> dict[str, Any]: ...


TRecorded = TypeVar("TRecorded", bound=Recorded)


def load(kind: type[TRecorded], path: str | Path) -> TRecorded:
    """Read one file.

    Raises:
        ValueError: it is not a recording of this kind.
    """
    try:
        found = json.loads(Path(path).read_text("utf-8"))
    except RecursionError:
        raise ValueError(f"{path}: JSON that is nested too deeply") from None
    return kind.from_json(found)


def load_all(kind: type[TRecorded], path: str | Path) -> list[TRecorded]:
    """Read a file, or all ``*.json`` of a folder (by name, not of the folders in it)."""
    place = Path(path)
    files = sorted(place.glob("*.json")) if place.is_dir() else [place]
    return [load(kind, file) for file in files]


def save(recorded: Recorded, path: str | Path) -> None:
    """Write one file. Creates its folder if needed."""
    place = Path(path)
    place.parent.mkdir(parents=True, exist_ok=True)
    place.write_text(json.dumps(recorded.to_json(), ensure_ascii=False, indent=1) + "\n", "utf-8")
