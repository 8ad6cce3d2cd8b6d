"""Recordings as files of JSON, one each, in a folder or a ZIP."""

from __future__ import annotations

import json
import zipfile
import zlib
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
    return _read(kind, Path(path).read_bytes(), path)


def _read(kind: type[TRecorded], data: bytes, path: str | Path) -> TRecorded:
    try:
        found = json.loads(data.decode("utf-8"))
    except RecursionError:
        raise ValueError(f"{path}: JSON that is nested too deeply") from None
    return kind.from_json(found)


def load_all(kind: type[TRecorded], path: str | Path) -> list[TRecorded]:
    """Read a file, or all ``*.json`` of a folder or a ZIP (by name, not of the folders in it).

    Raises:
        ValueError: one is not a recording of this kind, or the ZIP is damaged.
    """
    place = Path(path)
    if place.is_dir():
        return [load(kind, file) for file in sorted(place.glob("*.json"))]
    if not zipfile.is_zipfile(place):
        return [load(kind, place)]
    try:
        with zipfile.ZipFile(place) as archive:
            names = sorted(name for name in archive.namelist() if name.endswith(".json"))
            return [
                _read(kind, archive.read(name), place / name) for name in names if "/" not in name
            ]
    except (zipfile.BadZipFile, zlib.error, NotImplementedError, RuntimeError) as error:
        raise ValueError(f"{place}: a ZIP that cannot be read: {error}") from error


def save(recorded: Recorded, path: str | Path) -> None:
    """Write one file. Creates its folder if needed."""
    place = Path(path)
    place.parent.mkdir(parents=True, exist_ok=True)
    place.write_text(json.dumps(recorded.to_json(), ensure_ascii=False, indent=1) + "\n", "utf-8")
