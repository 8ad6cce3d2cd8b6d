"""The entry point of the command `rejoinder`.

This file imports almost nothing. Ctrl-C during the other imports should end the command silently,
and that works only after `main` has begun.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import NoReturn

__all__ = ["main"]


def main(argv: Sequence[str] | None = None) -> NoReturn:
    """Run the command and exit the process."""
    # The built-in core of `signal`, which imports faster than `signal` itself.
    signal = __import__("_signal")
    try:
        # Until there is something to clean up, Ctrl-C ends the process as the shell expects.
        signal.signal(signal.SIGINT, signal.SIG_DFL)
    except ValueError:
        pass  # not in the main thread
    from rejoinder.cli.commands import leave, run

    leave(run(argv))
