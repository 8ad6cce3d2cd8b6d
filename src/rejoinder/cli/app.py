"""The command `rejoinder`, where it begins.

This file imports next to nothing: Ctrl-C while Python imports the rest should end the command in
silence, and can only do so after `main` has begun.
"""

from __future__ import annotations

import signal
from collections.abc import Sequence
from typing import NoReturn

__all__ = ["main"]


def main(argv: Sequence[str] | None = None) -> NoReturn:
    """Run the command and leave the process."""
    try:
        # Until there is something to tidy up, Ctrl-C ends the process as the shell expects it.
        signal.signal(signal.SIGINT, signal.SIG_DFL)
    except ValueError:
        pass  # not in the main thread
    from rejoinder.cli.commands import leave, run

    leave(run(argv))
