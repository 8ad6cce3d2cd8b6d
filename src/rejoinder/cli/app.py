"""The command `rejoinder`, where it begins.

This file imports next to nothing: Ctrl-C while Python imports the rest should end the command in
silence, and can only do so after `main` has begun.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import NoReturn

__all__ = ["main"]


def main(argv: Sequence[str] | None = None) -> NoReturn:
    """Run the command and leave the process."""
    # What `signal` is made of: built in, where `signal` itself takes some time to import.
    signal = __import__("_signal")
    try:
        # Until there is something to tidy up, Ctrl-C ends the process as the shell expects it.
        signal.signal(signal.SIGINT, signal.SIG_DFL)
    except ValueError:
        pass  # not in the main thread
    from rejoinder.cli.commands import leave, run

    leave(run(argv))
