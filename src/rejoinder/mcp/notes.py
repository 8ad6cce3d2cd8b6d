"""The state of one connection: how its process ended, and which requests are open.

The supervisor creates `Notes` for each connection. The transport and the guards of the session write
into them.
"""

from __future__ import annotations

import asyncio
import errno
from collections.abc import Callable
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any, Final

from rejoinder._core.json_values import MAX_VALUES
from rejoinder._secrets import Hidden, one_line, redact, shorten
from rejoinder.errors import APIConnectionError, APIError

__all__ = [
    "TOO_LARGE",
    "TOO_MANY",
    "BadAnswer",
    "Call",
    "Notes",
    "StartError",
    "current_call",
    "current_notes",
]

TOO_MANY: Final = f"a message of more than {MAX_VALUES:,} values"
TOO_LARGE: Final = -31001
"""Code of errors that replace answers over a limit. JSON-RPC reserves other numbers."""
_TAIL = 2000
_MAY_PASS: Final = {errno.EAGAIN, errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.ETXTBSY}
"""Errors of temporarily missing system resources; the command itself is fine."""


class BadAnswer(APIError):
    """The server's answer cannot be used. The message quotes nothing from the server, so it can be
    sent to a model."""

    def __init__(self, message: str) -> None:
        super().__init__(message, retryable=False)


class StartError(APIConnectionError):
    """The command of a server cannot be started. Its cause is the system's error."""

    section = "command"

    @classmethod
    def of(cls, error: Exception) -> StartError:
        """Make the error from the system's error about the command, directory or argument."""
        retryable = isinstance(error, OSError) and error.errno in _MAY_PASS
        text = f"the command cannot be started: {shorten(one_line(str(error)))}"
        made = cls(text, retryable=retryable)
        made.__cause__ = error
        return made


@dataclass(slots=True, eq=False)
class Call:
    """One request that waits for its answer.

    Attributes:
        id: the id of its last JSON-RPC request, once it was sent.
        method: the method of that request.
        results: by method, the last unchanged result, before the SDK read it.
        flaws: by method, descriptions of what was mended in that result.
        status: the HTTP status, if the request was refused with one.
        refusal: the first words of the body of that refusal.
        fail: ends the wait with an error.
        progress: called when the server reports progress.
    """

    id: Any = None
    method: str = ""
    results: dict[str, dict[str, Any]] = field(default_factory=dict[str, dict[str, Any]])
    flaws: dict[str, tuple[str, ...]] = field(default_factory=dict[str, tuple[str, ...]])
    status: int | None = None
    refusal: str = ""
    fail: Callable[[Exception], None] | None = None
    progress: Callable[[float], None] | None = None


@dataclass(slots=True)
class Notes:
    """The notes of one connection.

    Attributes:
        process: the server is a child process.
        exited: set when `exit_code` is known.
        exit_code: how the server's process ended, negative for a signal; ``None`` if we ended it.
        status: the HTTP status of the last POST, if it was an error.
        secrets: credentials that `last_words` and refusals must not quote.
        calls: the open requests by their id.
        handshake: the requests that begin the connection.
        suspect: called when the transport suspects that the server is gone.
        lost: called with the reason when the connection has become unusable.
        forgotten: called when the server no longer knows the session, with the call it refused.
    """

    process: bool = False
    exited: asyncio.Event = field(default_factory=asyncio.Event)
    exit_code: int | None = None
    status: int | None = None
    secrets: Hidden[list[str]] = field(default_factory=lambda: Hidden[list[str]]([]))
    calls: dict[Any, Call] = field(default_factory=dict[Any, Call], repr=False)
    handshake: Call = field(default_factory=Call, repr=False)
    suspect: Callable[[], None] | None = None
    lost: Callable[[str], None] | None = None
    forgotten: Callable[[Call | None, Exception], None] | None = None
    _stderr: bytes = field(default=b"", repr=False)

    def call(self, request_id: Any) -> Call | None:
        """The open request with this id. Servers may return a number as a string."""
        found = self.calls.get(request_id)
        if found is None and isinstance(request_id, str) and request_id.isascii():
            found = self.calls.get(int(request_id)) if request_id.isdigit() else None
        return found

    def redacted(self, text: str) -> str:
        """`text` without the credentials of this connection."""
        return redact(text, self.secrets.reveal())

    def heard(self, data: bytes) -> None:
        """Keep the end of the process's stderr."""
        self._stderr = (self._stderr + data[-_TAIL:])[-_TAIL:]

    @property
    def last_words(self) -> str:
        """The last lines of stderr, at most 300 characters, without our credentials."""
        text = self.redacted(self._stderr.decode("utf-8", "replace").strip())
        lines = [line.strip() for line in text.splitlines() if line.strip()]
        return " | ".join(lines[-3:])[-300:]

    def ending(self) -> str | None:
        """A description of how the process ended; ``None`` while unknown."""
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
current_call: ContextVar[Call | None] = ContextVar("rejoinder_mcp_call", default=None)
