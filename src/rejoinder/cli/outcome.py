"""Exit codes of the commands. The numbers are part of the interface: scripts check them
(docs/cli.md)."""

from __future__ import annotations

from enum import IntEnum

__all__ = ["CommandError", "Ended", "Exit"]


class Exit(IntEnum):
    """The exit code of a command."""

    OK = 0
    FAILED = 1
    """The model did not answer: refused, cut off, out of context, provider down."""
    USAGE = 2
    """Wrong usage: an unknown option, model, tool or file; input that is not UTF-8."""
    SETUP = 3
    """Something is missing on this machine: a key, an extra, a tool server."""
    MODEL = 4
    """The embedded model cannot be fetched or loaded."""
    FAULT = 70
    """A bug in this program."""
    INTERRUPTED = 130
    """Ctrl-C."""
    PIPE = 141
    """The reader of the output closed its pipe."""


class CommandError(Exception):
    """Ends the command. The text is one sentence for the user."""

    def __init__(self, message: str, code: Exit = Exit.USAGE) -> None:
        super().__init__(message)
        self.code = code


class Ended(SystemExit):
    """The process received the termination signal `signal`: clean up and exit without any
    prompt.

    It may be raised anywhere, even in a coroutine. asyncio lets only `SystemExit` and
    `KeyboardInterrupt` out of a running loop; it would log any other exception and continue.
    """

    def __init__(self, signal: int) -> None:
        super().__init__(128 + signal)
        self.signal = signal
