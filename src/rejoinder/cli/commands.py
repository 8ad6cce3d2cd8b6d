"""Which command is meant, and how it ends.

Whatever happens, the person at the keyboard gets one sentence and the shell a number (see
`rejoinder.cli.outcome`), never a traceback. ``REJOINDER_DEBUG=1`` shows where a fault lies.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import signal
import sys
import threading
import time
from collections.abc import Sequence
from typing import NoReturn

__all__ = ["leave", "run"]

_PATIENCE = 0.5
"""Seconds that threads have to end."""


def leave(code: int) -> NoReturn:
    """End the process with `code`, also when a thread does not end."""
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGINT, signal.SIG_DFL)
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError, ValueError, AttributeError):
            stream.flush()
    if _somebody_hangs():
        os._exit(code)  # a tool that never returns must not keep the program
    sys.exit(code)


def _somebody_hangs() -> bool:
    """Whether a thread is still at work, some moments after everything was told to end."""
    me = threading.current_thread()
    deadline = time.monotonic() + _PATIENCE
    while others := [thread for thread in threading.enumerate() if thread is not me]:
        if time.monotonic() > deadline:
            return True
        others[0].join(0.02)
    return False


def run(argv: Sequence[str] | None = None) -> int:
    """Run the command. Returns its exit code."""
    try:
        args = _parser().parse_args(argv)
    except SystemExit as error:
        return error.code if isinstance(error.code, int) else 2
    from rejoinder.cli.outcome import CommandError, Exit

    _hush(debug=bool(os.environ.get("REJOINDER_DEBUG")))
    with _interrupts():
        try:
            return args.run(args)
        except KeyboardInterrupt:
            return Exit.INTERRUPTED
        except BrokenPipeError:
            _leave_pipe()
            return Exit.PIPE
        except CommandError as error:
            _complain(str(error))
            return error.code
        except Exception as error:
            return _explain(error)


def _explain(error: Exception) -> int:
    from rejoinder.cli.outcome import Exit
    from rejoinder.errors import APIError, ConfigurationError

    if os.environ.get("REJOINDER_DEBUG"):
        import traceback

        traceback.print_exception(error)
    if isinstance(error, APIError):
        _complain(str(error))
        return Exit.MODEL if hasattr(error, "reason") and _is_model_error(error) else Exit.FAILED
    if isinstance(error, ConfigurationError):
        _complain(str(error))
        return Exit.SETUP
    if isinstance(error, ImportError):
        _complain(f"something is not installed: {error}")
        return Exit.SETUP
    if isinstance(error, OSError):
        _complain(f"{error.strerror or error}{f': {error.filename}' if error.filename else ''}")
        return Exit.FAILED
    _complain(
        f"a fault in rejoinder: {type(error).__name__}: {error} (REJOINDER_DEBUG=1 shows where)"
    )
    return Exit.FAULT


def _is_model_error(error: Exception) -> bool:
    from rejoinder.providers.local.models import ModelError

    return isinstance(error, ModelError)


def _complain(text: str) -> None:
    from rejoinder.cli.screen import Screen

    with contextlib.suppress(OSError, ValueError):
        Screen().error(text)


@contextlib.contextmanager
def _interrupts():
    """Ctrl-C as `KeyboardInterrupt`, for as long as there is something to tidy up."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


def _leave_pipe() -> None:
    """Nobody reads what we write: let what is still buffered go nowhere, in silence."""
    with contextlib.suppress(OSError, ValueError):
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, sys.stdout.fileno())
        os.close(nowhere)


def _hush(*, debug: bool) -> None:
    """What libraries say in log lines, warnings and tracebacks of threads is for developers."""
    import logging
    import warnings

    if debug:
        logging.basicConfig(level=logging.DEBUG)
        return
    warnings.simplefilter("ignore")
    logging.getLogger().addHandler(logging.NullHandler())
    threading.excepthook = lambda _: None
    sys.unraisablehook = lambda _: None


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        self.exit(2, f"rejoinder: {message} (see {self.prog} --help).\n")


def _parser() -> argparse.ArgumentParser:
    from rejoinder.__about__ import __version__

    parser = _Parser(prog="rejoinder", description="Talk to language models.", allow_abbrev=False)
    parser.add_argument("--version", action="version", version=f"rejoinder {__version__}")
    commands = parser.add_subparsers(metavar="COMMAND", required=True, parser_class=_Parser)
    from rejoinder.cli import chat, doctor, models

    for name, module, told in (
        ("chat", chat, "talk to a model"),
        ("models", models, "list, fetch and remove the models that run on this machine"),
        ("doctor", doctor, "look at what this machine has and what is missing"),
    ):
        command = commands.add_parser(
            name, help=told, description=module.__doc__, allow_abbrev=False
        )
        module.add_options(command)
        command.set_defaults(run=module.run)
    return parser
