"""Finds what a piece of code left behind: tasks, sockets, other open files, memory.

::

    async with no_leaks(max_memory=64 << 20):
        async with openai.LLM(...) as llm:
            ...
"""

from __future__ import annotations

import asyncio
import os
import stat
import tracemalloc
from collections.abc import AsyncGenerator, Generator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from typing import Any, Self

from rejoinder._options import checked

__all__ = ["Holdings", "LeakError", "MemoryUse", "measure_memory", "no_leaks", "settled"]

_TURNS = 50
_PAUSE = 0.01


class LeakError(AssertionError):
    """Something was left behind, or more memory was used than allowed."""


@dataclass(frozen=True)
class Holdings:
    """The tasks and open files of the process at one moment."""

    tasks: frozenset[asyncio.Task[Any]]
    sockets: frozenset[str]
    """``"fd 7 socket:[123456]"``, one for each open socket."""
    files: frozenset[str]

    @classmethod
    def now(cls) -> Self:
        """Take a snapshot. Must be called inside a running loop. On systems without a list of open
        files (neither ``/proc/self/fd`` nor ``/dev/fd``), it contains only tasks."""
        sockets: set[str] = set()
        files: set[str] = set()
        for fd in _descriptors():
            try:
                mode = os.fstat(fd).st_mode
            except OSError:  # the one that listed them
                continue
            try:
                name = f"fd {fd} {os.readlink(f'/proc/self/fd/{fd}')}"
            except OSError:
                name = f"fd {fd}"
            if stat.S_ISSOCK(mode):
                sockets.add(name)
            elif not name.endswith(" /dev/null"):  # uvloop keeps one for each loop that listens
                files.add(name)
        return cls(frozenset(asyncio.all_tasks()), frozenset(sockets), frozenset(files))

    def since(self, before: Holdings) -> list[str]:
        """The tasks and files that exist now but did not `before`, one line each."""
        lines = [f"task {task!r}" for task in self.tasks - before.tasks]
        lines += [f"socket {name}" for name in sorted(self.sockets - before.sockets)]
        lines += [f"file {name}" for name in sorted(self.files - before.files)]
        return lines


def _descriptors() -> list[int]:
    for folder in ("/proc/self/fd", "/dev/fd"):
        try:
            return [int(name) for name in os.listdir(folder)]
        except (OSError, ValueError):
            continue
    return []


class MemoryUse:
    """Result of `measure_memory`.

    Attributes:
        peak: bytes allocated by Python code at the worst moment, above those at the start.
    """

    def __init__(self, start: int) -> None:
        self._start = start
        self.peak = 0

    def see(self, peak: int) -> None:
        self.peak = max(self.peak, peak - self._start)

    def so_far(self) -> int:
        """The peak until now, in bytes; for use inside the block."""
        self.see(tracemalloc.get_traced_memory()[1])
        return self.peak


_measuring: list[MemoryUse] = []


@contextmanager
def measure_memory() -> Generator[MemoryUse, None, None]:
    """Measure the highest growth of memory inside the block (by `tracemalloc`: exact and slow).
    Blocks can be nested."""
    running = tracemalloc.is_tracing()
    if not running:
        tracemalloc.start()
    start, peak = tracemalloc.get_traced_memory()
    for outer in _measuring:
        outer.see(peak)  # there is one peak for all blocks, which is reset below
    tracemalloc.reset_peak()
    use = MemoryUse(start)
    _measuring.append(use)
    try:
        yield use
    finally:
        _, peak = tracemalloc.get_traced_memory()
        for each in _measuring:
            each.see(peak)
        _measuring.remove(use)
        if not running:
            tracemalloc.stop()


async def settled(before: Holdings) -> None:
    """Fail if more is held than `before`. Allows half a second for things that are closing.

    Raises:
        LeakError: names what was left.
    """
    left: list[str] = []
    for turn in range(_TURNS):
        left = Holdings.now().since(before)
        if not left:
            return
        # Closing sockets takes a turn of the loop or two; only then is there reason to wait.
        await asyncio.sleep(0 if turn < _TURNS // 2 else 2 * _PAUSE)
    raise LeakError("left behind:\n" + "\n".join(left))


@checked()
@asynccontextmanager
async def no_leaks(*, max_memory: int | None = None) -> AsyncGenerator[None, None]:
    """Fail if the block leaves tasks, sockets or files behind, or uses more than `max_memory` bytes
    at any moment. Allows half a second for things that are closing.

    Raises:
        LeakError: names what was left.
    """
    before = Holdings.now()
    if max_memory is None:
        yield
    else:
        with measure_memory() as use:
            yield
        if use.peak > max_memory:
            raise LeakError(f"memory grew by {use.peak} bytes; at most {max_memory} were allowed")
    await settled(before)
