"""How test servers stop accepting connections."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from typing import Protocol

__all__ = ["accept_no_more"]

_TURNS = 5
"""Turns of the loop until an accepted connection has its transport and its handler begins: four, plus
one in reserve."""


class _Listener(Protocol):
    def fileno(self) -> int: ...


async def accept_no_more(listeners: Iterable[_Listener]) -> None:
    """Stop accepting connections at `listeners`, and wait until all accepted ones have a handler.

    Call it before `asyncio.Server.close`: asyncio leaks a connection that was accepted but has no
    transport yet when the server closes, and the garbage collector reports it in a later test.
    """
    loop = asyncio.get_running_loop()
    if not isinstance(loop, asyncio.SelectorEventLoop):  # others accept in ways of their own
        return
    for listener in listeners:
        loop.remove_reader(listener.fileno())
    for _ in range(_TURNS):
        await asyncio.sleep(0)
