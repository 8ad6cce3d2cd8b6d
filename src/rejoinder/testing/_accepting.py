"""How the servers of tests stop to accept connections."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from typing import Protocol

__all__ = ["accept_no_more"]

_TURNS = 5
"""Turns of the loop in which an accepted connection gets its transport, and its handler begins: four,
and one more."""


class _Listener(Protocol):
    def fileno(self) -> int: ...


async def accept_no_more(listeners: Iterable[_Listener]) -> None:
    """Accept no more connections at `listeners`, and wait until those that were accepted have begun.

    To be called before `asyncio.Server.close`: asyncio leaves a connection open that was accepted when
    the server closes and has no transport yet, and the garbage collector reports it in a later test.
    """
    loop = asyncio.get_running_loop()
    if not isinstance(loop, asyncio.SelectorEventLoop):  # others accept in ways of their own
        return
    for listener in listeners:
        loop.remove_reader(listener.fileno())
    for _ in range(_TURNS):
        await asyncio.sleep(0)
