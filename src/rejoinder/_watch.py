"""Reports what happens inside a turn to a watcher: attempts, connections, hedges.

A watcher learns what the events of a turn do not show: why a reply was late. Code reports an event
with `note`, and wraps a step that takes time in a `part`. A context variable holds the current part,
so reports from a turn's tasks reach its watcher. Without a watcher they cost almost nothing.
"""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Callable, Generator, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any, Final, Protocol, TypeAlias

__all__ = ["Part", "Watcher", "attempt", "is_watched", "note", "part", "watching"]

Watcher: TypeAlias = Callable[[int, str, Mapping[str, Any]], None]
"""Called immediately, on the loop, with the number of a part, the kind of an event and its facts."""


@dataclass(frozen=True, slots=True)
class Part:
    """A part of a turn. Number 0 is the turn itself."""

    number: int
    watcher: Watcher
    numbers: Iterator[int]

    def note(self, kind: str, **facts: Any) -> None:
        """Report an event in this part to the watcher."""
        self.watcher(self.number, kind, facts)


_place: ContextVar[Part | None] = ContextVar("rejoinder_watch", default=None)


@contextmanager
def watching(watcher: Watcher) -> Generator[None]:
    """Report the events of this context, and of tasks created in it, to `watcher`."""
    token = _place.set(Part(0, watcher, itertools.count(1)))
    try:
        yield
    finally:
        _place.reset(token)


def is_watched() -> bool:
    """Whether this context has a watcher."""
    return _place.get() is not None


def note(kind: str, **facts: Any) -> None:
    """Report an event in the current part to the watcher, if there is one."""
    place = _place.get()
    if place is not None:
        place.note(kind, **facts)


def part(kind: str, **facts: Any) -> AbstractContextManager[Part | None]:
    """Open a part inside the current one. Reports ``begin`` with `kind`, the number of the outer part
    and `facts`, then ``end`` with the outcome. Yields ``None`` without a watcher."""
    outer = _place.get()
    return UNWATCHED if outer is None else _part(outer, kind, facts)


class Named(Protocol):
    """A model, as it names itself."""

    @property
    def model(self) -> str: ...
    @property
    def provider(self) -> str: ...


def attempt(number: int, llm: Named) -> AbstractContextManager[Part | None]:
    """A `part` for one attempt of a reply. Its facts are looked up only for a watcher."""
    outer = _place.get()
    if outer is None:
        return UNWATCHED
    return _part(outer, "attempt", {"number": number, "model": llm.model, "provider": llm.provider})


UNWATCHED: Final[AbstractContextManager[None]] = nullcontext()


@contextmanager
def _part(outer: Part, kind: str, facts: Mapping[str, Any]) -> Generator[Part]:
    inner = Part(next(outer.numbers), outer.watcher, outer.numbers)
    token = _place.set(inner)
    inner.note("begin", what=kind, inside=outer.number, **facts)
    try:
        yield inner
    except asyncio.CancelledError:
        inner.note("end", outcome="cancelled")
        raise
    except BaseException as error:
        inner.note("end", outcome="failed", error=error)
        raise
    else:
        inner.note("end", outcome="done")
    finally:
        _place.reset(token)
