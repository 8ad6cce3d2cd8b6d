"""What happens inside a turn, told to a watcher as it happens: attempts, connections, hedges.

A watcher sees what the events of a turn leave out: why a reply was late. Code notes an event with
`note`, and encloses what takes time in a `part`. The place of both is a context variable, so that
they reach the watcher of the turn from its tasks, and cost next to nothing without one.
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
"""Called with the number of a part, the kind of an event and its facts; on the loop, at once."""


@dataclass(frozen=True, slots=True)
class Part:
    """A stretch of a turn. Number 0 is the turn itself."""

    number: int
    watcher: Watcher
    numbers: Iterator[int]

    def note(self, kind: str, **facts: Any) -> None:
        """Tell the watcher of an event in this part."""
        self.watcher(self.number, kind, facts)


_place: ContextVar[Part | None] = ContextVar("rejoinder_watch", default=None)


@contextmanager
def watching(watcher: Watcher) -> Generator[None]:
    """Tell `watcher` what happens in this context, and in the tasks that are made in it."""
    token = _place.set(Part(0, watcher, itertools.count(1)))
    try:
        yield
    finally:
        _place.reset(token)


def is_watched() -> bool:
    """Whether a watcher sees what happens in this context."""
    return _place.get() is not None


def note(kind: str, **facts: Any) -> None:
    """Tell the watcher, if there is one, of an event in the current part."""
    place = _place.get()
    if place is not None:
        place.note(kind, **facts)


def part(kind: str, **facts: Any) -> AbstractContextManager[Part | None]:
    """Enclose a part of the current one: ``begin`` with `kind`, the number of the outer part and
    `facts`, then ``end`` with how it ended. Gives ``None`` without a watcher."""
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
