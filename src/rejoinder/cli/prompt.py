"""The prompt of ``rejoinder chat``: reads lines from a person and obeys the slash commands."""

from __future__ import annotations

import contextlib
import importlib
import os
import sys
from typing import TYPE_CHECKING, Final

from rejoinder.cli.outcome import Exit
from rejoinder.cli.render import one_line, render_error
from rejoinder.errors import APIError, ConfigurationError

if TYPE_CHECKING:
    from rejoinder.cli.loop import LoopThread
    from rejoinder.cli.screen import Screen
    from rejoinder.cli.session import Conversation

__all__ = ["converse"]

_HELP: Final = """\
/tools   what the model may call
/clear   forget the conversation
/quit    leave (also Ctrl-D, or Ctrl-C twice)
A line that ends in \\ goes on in the next one."""


def converse(loop: LoopThread, talk: Conversation, screen: Screen) -> Exit:
    """Talk until the person leaves."""
    screen.note(f"{talk.llm.model}. /help shows the commands, Ctrl-D leaves.")
    loop.run(talk.warm_up())
    presses = 0
    while True:
        try:
            line = _read_line(screen)
        except EOFError:
            screen.break_line()
            loop.run(talk.settle())
            return Exit.OK
        except KeyboardInterrupt:
            presses += 1
            screen.break_line()
            if presses > 1:
                raise
            screen.note("Ctrl-C again leaves.")
            continue
        except UnicodeError:
            screen.error("that line is not UTF-8, and was not sent")
            continue
        line = line.strip()
        if not line:
            continue
        presses = 0
        if line.startswith("/") and "\n" not in line:
            if _command(line, talk, screen):
                loop.run(talk.settle())
                return Exit.OK
            continue
        try:
            loop.run(talk.say(line), interrupt=talk.interrupt, stuck=talk.stuck)
        except APIError as error:
            screen.error(render_error(error))
        except ConfigurationError as error:
            screen.error(str(error))
        if talk.interrupted:
            presses = 1


def _read_line(screen: Screen) -> str:
    """A line from the terminal; a line that ends in a backslash goes on in the next one.

    Raises:
        EOFError: Ctrl-D.
        KeyboardInterrupt: Ctrl-C.
        UnicodeError: what was typed is not UTF-8.
    """
    lines: list[str] = []
    while True:
        prompt = "> " if not lines else ". "
        if screen.out_is_terminal:
            _use_line_editor()
            line = input(prompt)
        else:
            screen.say(prompt)
            line = sys.stdin.readline()
            if not line:
                raise EOFError
            line = line.rstrip("\n")
        line.encode()  # readline marks bytes that are not UTF-8 and lets them pass
        if not line.endswith("\\"):
            return "\n".join([*lines, line])
        lines.append(line[:-1])


def _use_line_editor() -> None:
    """Use the line editor, if there is one: editing, a history, pasted text as one line."""
    with contextlib.suppress(ImportError):
        readline = importlib.import_module("readline")
        if "libedit" not in (readline.__doc__ or "") and os.environ.get("TERM") != "dumb":
            readline.parse_and_bind("set enable-bracketed-paste on")


def _command(line: str, talk: Conversation, screen: Screen) -> bool:
    """Obey a line that begins with a slash. Returns whether to leave."""
    match line.split()[0]:
        case "/quit" | "/exit" | "/q":
            return True
        case "/help" | "/?":
            screen.note(_HELP)
        case "/tools":
            screen.note(talk.describe_tools())
        case "/clear":
            talk.clear()
            screen.note("The conversation begins anew.")
        case other:
            screen.note(f"There is no {one_line(other, 40)}; /help shows what there is.")
    return False
