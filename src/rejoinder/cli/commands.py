"""Dispatches to a command and turns its outcome into an exit code.

On any failure the user gets one sentence and the shell an exit code (see `rejoinder.cli.outcome`),
never a traceback. ``REJOINDER_DEBUG=1`` shows the traceback.
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
from difflib import get_close_matches
from typing import Any, NoReturn, TextIO

__all__ = ["COMMANDS", "leave", "make_parser", "run"]

_PATIENCE = 0.5
_LOST = 10.0
"""Seconds after a termination signal beyond which the process ends without any clean-up."""
"""Seconds allowed for threads to end."""
_ENDING = (signal.SIGTERM, signal.SIGHUP)


def leave(code: int) -> NoReturn:
    """Exit the process with `code`, even if a thread does not end."""
    from rejoinder.cli.outcome import Exit

    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGINT, signal.SIG_DFL)
    try:
        sys.stdout.flush()
    except BrokenPipeError:
        code = code or Exit.PIPE
        _let_go(sys.stdout)
    except (OSError, ValueError) as error:
        if code == 0:
            code = _explain(error)
        _let_go(sys.stdout)
    with contextlib.suppress(OSError, ValueError):
        sys.stderr.flush()
    if _a_thread_hangs():
        os._exit(code)  # a tool that never returns must not keep the process alive
    sys.exit(code)


def _a_thread_hangs() -> bool:
    """Whether a thread is still running shortly after everything was stopped."""
    me = threading.current_thread()
    deadline = time.monotonic() + _PATIENCE
    while others := [thread for thread in threading.enumerate() if thread is not me]:
        if time.monotonic() > deadline:
            return True
        others[0].join(0.02)
    return False


def run(argv: Sequence[str] | None = None) -> int:
    """Run the command. Returns its exit code."""
    from rejoinder.cli.outcome import CommandError, Ended, Exit

    if not _open_streams():
        _complain("standard output is closed, so nothing can be written")
        return Exit.FAILED
    words = sys.argv[1:] if argv is None else list(argv)
    if words[:1] == ["__complete"]:
        from rejoinder.cli.completion import candidates

        print("\n".join(candidates(make_parser(), words[1:])))
        return Exit.OK
    try:
        args, rest = make_parser().parse_known_args(words)
        if rest:
            args.parser.error(f"unrecognized arguments: {' '.join(rest)}")
    except SystemExit as error:
        return error.code if isinstance(error.code, int) else Exit.USAGE
    _hush(debug=bool(os.environ.get("REJOINDER_DEBUG")))
    with _interrupts():
        try:
            return args.run(args)
        except KeyboardInterrupt:
            return Exit.INTERRUPTED
        except Ended as end:
            return 128 + end.signal
        except BrokenPipeError:
            _let_go(sys.stdout)
            return Exit.PIPE
        except CommandError as error:
            _show_trace(error)
            _complain(str(error))
            return error.code
        except Exception as error:
            return _explain(error)


def _open_streams() -> bool:
    """Reopen closed standard streams on the null device; otherwise the next file or socket would
    get their descriptors. Returns whether there is a standard output."""
    there = sys.stdout is not None
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # takes the lowest free descriptor, which is this one
    if sys.stdout is None:
        sys.stdout = open(os.devnull, "w")  # noqa: SIM115  lives as long as the process
    if sys.stderr is None:
        sys.stderr = open(os.devnull, "w")  # noqa: SIM115
    return there


def _show_trace(error: Exception) -> None:
    if os.environ.get("REJOINDER_DEBUG"):
        import traceback

        traceback.print_exception(error)


def _explain(error: Exception) -> int:
    from rejoinder._sections import extended
    from rejoinder.cli.outcome import Exit
    from rejoinder.cli.render import render_error
    from rejoinder.errors import APIError, APIStatusError, ConfigurationError

    _show_trace(error)
    if isinstance(error, APIError):
        message = render_error(error)
        if isinstance(error, APIStatusError) and error.status_code == 401:
            message = extended(message, "; the key is wrong or has expired, see `rejoinder keys`")
        _complain(message)
        return Exit.MODEL if hasattr(error, "reason") and _is_model_error(error) else Exit.FAILED
    if isinstance(error, ConfigurationError):
        _complain(str(error))
        return Exit.SETUP
    if isinstance(error, ImportError):
        _complain(f"something is not installed: {error}")
        return Exit.SETUP
    if isinstance(error, OSError):
        # This package opens no unnamed files, so an error without a name is from a standard stream.
        where = error.filename or "the output cannot be written"
        _complain(f"{where}: {error.strerror or error}")
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
    """While there is something to clean up: raise `KeyboardInterrupt` on Ctrl-C, and `Ended` on a
    termination signal."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    from rejoinder.cli.outcome import Ended

    guards: list[threading.Timer] = []

    def end(number: int, _: object) -> NoReturn:
        for each in _ENDING:
            signal.signal(each, signal.SIG_DFL)  # a second one does not wait
        # If this runs inside a finalizer, the exception raised here is lost.
        guard = threading.Timer(_LOST, os._exit, (128 + number,))
        guard.daemon = True
        guards.append(guard)
        guard.start()
        raise Ended(number)

    before = {signal.SIGINT: signal.signal(signal.SIGINT, signal.default_int_handler)}
    for number in _ENDING:
        if signal.getsignal(number) is not signal.SIG_IGN:  # nohup
            before[number] = signal.signal(number, end)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        for guard in guards:
            guard.cancel()


def _let_go(stream: TextIO) -> None:
    """Discard buffered output silently, because the reader of the output has gone."""
    with contextlib.suppress(OSError, ValueError):
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, stream.fileno())
        os.close(nowhere)
        stream.flush()


def _hush(*, debug: bool) -> None:
    """Hide log lines, warnings and thread tracebacks of libraries, which are for developers."""
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
        self.exit(2, f"rejoinder: {self._hint(message)} (see {self.prog} --help).\n")

    def _hint(self, message: str) -> str:
        """`message` with a suggestion."""
        _, unknown, rest = message.partition("unrecognized arguments: ")
        if unknown:
            word = rest.split()[0]
            known = list(self._option_string_actions)
            if not word.startswith("-"):
                return f"{message}; a question is asked with --once TEXT"
        elif "invalid choice: " in message:
            word = message.partition("invalid choice: '")[2].partition("'")[0]
            known = [
                str(choice)
                for action in self._actions
                if action.choices is not None
                for choice in action.choices
            ]
        elif message.endswith("required: COMMAND"):
            return f"a COMMAND is missing: {', '.join(COMMANDS)}"
        else:
            return message
        close = get_close_matches(word.partition("=")[0], known, 1)
        return f"{message}; did you mean {close[0]!r}?" if close else message


COMMANDS = {
    "chat": "talk to a model",
    "web": "talk to a model on a page that shows why a reply was late",
    "talk": "speak with a realtime model: by files, or by microphone and speaker",
    "log": "find, show, export and remove the conversations that were kept",
    "models": "list, fetch, verify and remove the models that run on this machine",
    "keys": "keep the keys of providers",
    "migrate": "replace imports of LiveKit Agents by ours in a program, or show how",
    "doctor": "look at what this machine has and what is missing, and try a model",
    "completion": "print a script that completes commands in your shell",
}
"""The commands, and what each does. The module of a command has its name."""


def make_parser() -> argparse.ArgumentParser:
    """The whole command line."""
    import importlib

    from rejoinder.__about__ import __version__

    parser = _Parser(prog="rejoinder", description="Talk to language models.", allow_abbrev=False)
    parser.add_argument("--version", action="version", version=f"rejoinder {__version__}")
    commands = parser.add_subparsers(metavar="COMMAND", required=True, parser_class=_Parser)
    for name, summary in COMMANDS.items():
        module: Any = importlib.import_module(f"rejoinder.cli.{name}")
        description = (module.__doc__ or "").replace(f"``rejoinder {name}``: ", "").strip()
        command = commands.add_parser(
            name,
            help=summary,
            description=description[:1].upper() + description[1:],
            allow_abbrev=False,
        )
        module.add_options(command)
        command.set_defaults(run=module.run, parser=command)
    return parser
