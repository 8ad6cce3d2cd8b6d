"""What a transport learns about its server, for people to read: how it ended, what it last said.

The supervisor opens a page of notes for each connection; a transport that is
entered while the page is open writes on it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextvars import ContextVar
from dataclasses import dataclass, field

__all__ = ["Notes", "current_notes"]

_TAIL = 2000


@dataclass(slots=True)
class Notes:
    """One connection's page.

    Attributes:
        process: the server is a child of ours.
        exited: set when `exit_code` is known.
        exit_code: how the server's process ended, negative for a signal.
        status: the last HTTP error status.
        suspect: called when the transport has reason to believe that the server is gone.
    """

    process: bool = False
    exited: asyncio.Event = field(default_factory=asyncio.Event)
    exit_code: int | None = None
    status: int | None = None
    suspect: Callable[[], None] | None = None
    _stderr: bytes = field(default=b"", repr=False)

    def heard(self, data: bytes) -> None:
        """Remember the end of what the server's process writes to stderr."""
        self._stderr = (self._stderr + data[-_TAIL:])[-_TAIL:]

    @property
    def last_words(self) -> str:
        """The last lines of stderr, at most 300 characters."""
        text = self._stderr.decode("utf-8", "replace").strip()
        lines = [line.strip() for line in text.splitlines() if line.strip()]
        return " | ".join(lines[-3:])[-300:]

    def ending(self) -> str | None:
        """How the process ended, in words; ``None`` while nothing is known."""
        if self.exit_code is None:
            return None
        how = (
            f"its process was ended by signal {-self.exit_code}"
            if self.exit_code < 0
            else f"its process ended with code {self.exit_code}"
        )
        words = self.last_words
        return f"{how}; its last words: {words}" if words else how


current_notes: ContextVar[Notes | None] = ContextVar("rejoinder_mcp_notes", default=None)
