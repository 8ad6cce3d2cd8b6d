"""Reads the lines of a conversation: from a line editor in a terminal, else from standard input.

With `prompt_toolkit` (extra ``cli``) a line can be edited over several rows, has a persistent
history, and completes commands. Without it, or in a terminal that cannot move its cursor,
`readline` is the fallback.
"""

from __future__ import annotations

import contextlib
import importlib
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from rejoinder.cli.screen import is_dumb

if TYPE_CHECKING:
    from rejoinder.cli.screen import Screen

__all__ = ["Lines", "find_lines"]


class Lines(Protocol):
    """Reads typed lines."""

    def read(self, prompt: str, more: str) -> str:
        """The next input, which may have several lines. A line that ends in a backslash continues
        on the next one, after the prompt `more`.

        Raises:
            EOFError: Ctrl-D, or the end of the input.
            KeyboardInterrupt: Ctrl-C.
            UnicodeError: the input is not UTF-8.
        """
        ...


def find_lines(screen: Screen, *, commands: Sequence[str], history: Path | None) -> Lines:
    """The best available reader.

    Args:
        commands: completions for a line that begins with a slash.
        history: the file in which the lines are kept; ``None`` keeps them in memory.
    """
    terminal = screen.out_is_terminal and sys.stdin is not None and sys.stdin.isatty()
    if terminal and not is_dumb():
        with contextlib.suppress(ImportError):
            return _Toolkit(commands, history)
    return _Plain(screen)


class _Plain:
    def __init__(self, screen: Screen) -> None:
        self._screen = screen

    def read(self, prompt: str, more: str) -> str:
        lines: list[str] = []
        while True:
            line = self._line(prompt if not lines else more)
            line.encode()  # readline replaces invalid UTF-8 by surrogates and raises no error
            if not line.endswith("\\"):
                return "\n".join([*lines, line])
            lines.append(line[:-1])

    def _line(self, prompt: str) -> str:
        if self._screen.out_is_terminal:
            _use_readline()
            return input(prompt)
        self._screen.say(prompt)
        line = sys.stdin.readline()
        if not line:
            raise EOFError
        return line.rstrip("\n")


def _use_readline() -> None:
    """Use the line editor of Python, if it has one: editing, a history, pasted text as one line."""
    with contextlib.suppress(ImportError):
        readline = importlib.import_module("readline")
        if "libedit" not in (readline.__doc__ or "") and not is_dumb():
            readline.parse_and_bind("set enable-bracketed-paste on")


class _Toolkit:
    def __init__(self, commands: Sequence[str], history: Path | None) -> None:
        from prompt_toolkit import PromptSession
        from prompt_toolkit.auto_suggest import AutoSuggestFromHistory
        from prompt_toolkit.completion import Completer, Completion
        from prompt_toolkit.document import Document
        from prompt_toolkit.history import FileHistory, History, InMemoryHistory
        from prompt_toolkit.key_binding import KeyBindings, KeyPressEvent

        class Commands(Completer):
            def get_completions(
                self, document: Document, complete_event: Any
            ) -> Iterable[Completion]:
                text = document.text_before_cursor
                if text.startswith("/") and " " not in text:
                    for command in commands:
                        if command.startswith(text):
                            yield Completion(command, start_position=-len(text))

        bindings = KeyBindings()

        @bindings.add("enter")
        def _(event: KeyPressEvent) -> None:
            buffer = event.current_buffer
            if buffer.document.text.endswith("\\") and buffer.document.is_cursor_at_the_end:
                buffer.delete_before_cursor()
                buffer.insert_text("\n")
            else:
                buffer.validate_and_handle()

        @bindings.add("escape", "enter")
        def _(event: KeyPressEvent) -> None:
            event.current_buffer.insert_text("\n")

        kept: History = InMemoryHistory()
        if history is not None:
            with contextlib.suppress(OSError):
                history.touch(mode=0o600)
                kept = FileHistory(history)
        self._more = ". "
        self._session: PromptSession[str] = PromptSession(
            multiline=True,
            history=kept,
            key_bindings=bindings,
            completer=Commands(),
            complete_while_typing=False,
            auto_suggest=AutoSuggestFromHistory(),
            prompt_continuation=lambda width, number, wrapped: (
                " " * width if wrapped else self._more
            ),
        )

    def read(self, prompt: str, more: str) -> str:
        self._more = more
        text = self._session.prompt(prompt, refresh_interval=0)
        text.encode()
        return text
