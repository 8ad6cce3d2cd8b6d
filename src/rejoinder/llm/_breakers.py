"""The health of several models, in memory or shared by the processes of a host."""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Callable, Sequence
from dataclasses import asdict
from typing import Protocol

from rejoinder._core.candidates import HEALTHY, Health

__all__ = ["Breakers", "HealthStore"]

logger = logging.getLogger("rejoinder")


class HealthStore(Protocol):
    """Short texts by key, shared by processes. `rejoinder` brings one on SQLite; another one (on
    Redis, say) needs these two methods. Both raise any exception when the store is out of reach;
    the health known to this process counts meanwhile."""

    def read(self, keys: Sequence[str], /) -> list[str | None]: ...

    def update(self, key: str, change: Callable[[str | None], str | None], /) -> None:
        """Replace the text of `key` by ``change(text)``, atomically; ``None`` changes nothing."""
        ...


class Breakers:
    """Reads and changes the health of the models named by `keys`."""

    def __init__(
        self, keys: Sequence[str], shared: str | os.PathLike[str] | HealthStore | None
    ) -> None:
        self._keys = list(keys)
        self._known: dict[str, Health] = dict.fromkeys(keys, HEALTHY)
        self._complained = False
        self._store: HealthStore | None
        if isinstance(shared, str | os.PathLike):
            from rejoinder.transport._store_sqlite import SqliteStore

            self._store = SqliteStore(shared)
            self.read()  # opens the file here, and not in the first turn
        else:
            self._store = shared

    def read(self) -> list[Health]:
        """The health of all models, in the order of their keys."""
        if self._store is not None:
            try:
                for key, text in zip(self._keys, self._store.read(self._keys), strict=True):
                    if text is not None:
                        self._known[key] = _decode(text)
            except Exception as error:
                self._complain(error)
        return [self._known[key] for key in self._keys]

    def change(self, key: str, step: Callable[[Health], Health]) -> tuple[Health, Health]:
        """Replace the health of a model by what `step` makes of it; returns it before and after."""
        if self._store is not None:
            before = after = HEALTHY

            def replace(text: str | None) -> str | None:
                nonlocal before, after
                before = HEALTHY if text is None else _decode(text)
                after = step(before)
                return None if after == before else json.dumps(asdict(after))

            try:
                self._store.update(key, replace)
            except Exception as error:
                self._complain(error)
            else:
                self._known[key] = after
                return before, after
        before = self._known[key]
        after = self._known[key] = step(before)
        return before, after

    def close(self) -> None:
        close = getattr(self._store, "close", None)
        if close is not None:
            close()

    def _complain(self, error: Exception) -> None:
        if not self._complained:
            self._complained = True
            logger.error("the shared state of breakers is out of reach, going on alone: %s", error)


def _decode(text: str) -> Health:
    try:
        return Health(**json.loads(text))
    except (TypeError, ValueError):
        return HEALTHY  # written by another version
