"""Stores the health of several models, in memory or shared by the processes of a host."""

from __future__ import annotations

import json
import logging
import math
import os
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict
from typing import Any, Protocol, cast, runtime_checkable

from rejoinder._core.breaker import HEALTHY, Health

__all__ = ["Breakers", "HealthStore"]

logger = logging.getLogger("rejoinder")


@runtime_checkable
class HealthStore(Protocol):
    """Short texts by key, shared by processes. `rejoinder` includes a store on SQLite; your own (on
    Redis, for example) needs these two methods. Both may raise any exception if the store cannot be
    reached; for the next seconds, the process then uses its own knowledge. They are called on the
    event loop, so they must be fast: keep a local copy of a remote store."""

    def read(self, keys: Sequence[str], /) -> list[str | None]: ...

    def update(self, key: str, change: Callable[[str | None], str | None], /) -> None:
        """Atomically replace the text of `key` with ``change(text)``; ``None`` leaves it unchanged."""
        ...


_ALONE = 5.0
"""Seconds to wait before a failed store is used again, because each attempt may block the loop."""
_LONGEST_TEXT = 2000
"""Maximum characters of a stored health. This package writes no longer ones."""


class Breakers:
    """Reads and changes the health of the models named by `keys`. Safe to use from several threads."""

    def __init__(
        self, keys: Sequence[str], shared: str | os.PathLike[str] | HealthStore | None
    ) -> None:
        self._keys = list(keys)
        self._known: dict[str, Health] = dict.fromkeys(keys, HEALTHY)
        self._own: set[str] = set()
        """Keys whose health could not be written: the store holds outdated values for them."""
        self._alone_until = -math.inf
        self._complained = False
        self._lock = threading.RLock()
        self._store: HealthStore | None
        if isinstance(shared, str | os.PathLike):
            from rejoinder.store._sqlite import SqliteTexts

            self._store = SqliteTexts(shared)
            self.read()  # opens the file here rather than in the first turn
        else:
            self._store = shared

    @property
    def shared(self) -> bool:
        return self._store is not None

    def known(self, key: str) -> Health:
        """The health of a model as it was last read."""
        return self._known[key]

    def read(self) -> list[Health]:
        """The health of all models, in the order of their keys."""
        store = self._reachable()
        if store is not None:
            try:
                texts = store.read(self._keys)
                for key, text in zip(self._keys, texts, strict=True):
                    if key not in self._own:
                        self._known[key] = HEALTHY if text is None else _decode(text)
            except Exception as error:
                self._out_of_reach(error)
            else:
                self._in_reach()
        return [self._known[key] for key in self._keys]

    def change(self, key: str, step: Callable[[Health], Health]) -> tuple[Health, Health]:
        """Replace the health of a model with ``step(health)``; returns it before and after."""
        with self._lock:
            store = self._reachable()
            if store is not None:
                changed: tuple[Health, Health] | None = None

                def replace(text: str | None) -> str | None:
                    nonlocal changed
                    before = HEALTHY if text is None else _decode(text)
                    after = step(before)
                    changed = before, after
                    return None if after == before else json.dumps(asdict(after))

                try:
                    store.update(key, replace)
                except Exception as error:
                    self._out_of_reach(error)
                else:
                    if changed is not None:
                        self._own.discard(key)
                        self._known[key] = changed[1]
                        self._in_reach()
                        return changed
            before = self._known[key]
            after = self._known[key] = step(before)
            if self._store is not None and after != before:
                self._own.add(key)
            return before, after

    def close(self) -> None:
        close = getattr(self._store, "close", None)
        if close is not None:
            close()

    def _reachable(self) -> HealthStore | None:
        return None if time.monotonic() < self._alone_until else self._store

    def _in_reach(self) -> None:
        if not self._own:
            self._complained = False

    def _out_of_reach(self, error: Exception) -> None:
        self._alone_until = time.monotonic() + _ALONE
        if not self._complained:
            self._complained = True
            logger.error("the shared state of breakers is out of reach, going on alone: %s", error)


def _decode(text: object) -> Health:
    """The health in `text`. Text that cannot be read (from another version, or not a health) counts as
    healthy: the worst consequence is a failed request."""
    if not isinstance(text, str) or len(text) > _LONGEST_TEXT:
        return HEALTHY
    try:
        fields: object = json.loads(text)
    except (ValueError, RecursionError):
        return HEALTHY
    return (
        Health.of(cast("dict[str, Any]", fields)) if isinstance(fields, dict) else None
    ) or HEALTHY
