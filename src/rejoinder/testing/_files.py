"""Recordings as files of JSON, one each, in a folder or a ZIP."""

from __future__ import annotations

import io
import json
import os
import threading
import zipfile
import zlib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Protocol, Self, TypeVar

__all__ = ["Recorded", "Series", "load", "load_all", "save", "zipped"]


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
    place.write_text(_text(recorded), "utf-8")


class Series:
    """Writes numbered recordings into a folder or, if the name ends in ``.zip``, into a new ZIP.

    The ZIP is replaced as a whole, so that it can be read whenever the process ends.
    """

    def __init__(self, path: str | Path) -> None:
        self._path = Path(path)
        self._zipped = self._path.suffix.lower() == ".zip"
        self._one_at_a_time = threading.Lock()
        self._written = b""

    def save(self, number: int, recorded: Recorded) -> None:
        if not self._zipped:
            save(recorded, self._path / _name(number))
            return
        self._path.parent.mkdir(parents=True, exist_ok=True)
        with self._one_at_a_time:
            data = _added(self._written, {number: recorded})
            beside = self._path.with_name(f"{self._path.name}.part")
            beside.write_bytes(data)
            os.replace(beside, self._path)
            self._written = data


def zipped(recordings: Iterable[Recorded]) -> bytes:
    """A ZIP of `recordings` in their order, as `Series` writes it and `load_all` reads it."""
    return _added(b"", dict(enumerate(recordings, 1)))


def _added(archive: bytes, recordings: Mapping[int, Recorded]) -> bytes:
    file = io.BytesIO(archive)
    with zipfile.ZipFile(file, "a", zipfile.ZIP_DEFLATED) as opened:
        for number, recorded in recordings.items():
            opened.writestr(_name(number), _text(recorded))
    return file.getvalue()


def _name(number: int) -> str:
    return f"{number:04}.json"


def _text(recorded: Recorded) -> str:
    return json.dumps(recorded.to_json(), ensure_ascii=False, indent=1) + "\n"
