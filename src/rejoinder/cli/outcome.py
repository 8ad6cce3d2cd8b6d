"""How a command can end. The numbers are part of the interface: scripts look at them (docs/cli.md)."""

from __future__ import annotations

from enum import IntEnum

__all__ = ["CommandError", "Ended", "Exit"]


class Exit(IntEnum):
    """What a command leaves behind."""

    OK = 0
    FAILED = 1
    """The model did not answer: refused, cut off, out of context, provider down."""
    USAGE = 2
    """The command was written wrongly: an unknown option, model, tool or file; no UTF-8."""
    SETUP = 3
    """Something is missing on this machine: a key, an extra, a tool server."""
    MODEL = 4
    """The embedded model cannot be fetched or loaded."""
    FAULT = 70
    """A fault of this program."""
    INTERRUPTED = 130
    """Ctrl-C."""
    PIPE = 141
    """Whoever read our output went away."""


class CommandError(Exception):
    """Ends the command. The text is one sentence for the person at the keyboard."""

    def __init__(self, message: str, code: Exit = Exit.USAGE) -> None:
        super().__init__(message)
        self.code = code


class Ended(BaseException):
    """The process was told to end, by `signal`: tidy up and go, without asking anybody."""

    def __init__(self, signal: int) -> None:
        super().__init__(signal)
        self.signal = signal
