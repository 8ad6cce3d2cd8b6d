"""Writes the output of the command line: only the reply to standard output, everything else to
standard error."""

from __future__ import annotations

import contextlib
import os
import sys
import time
from collections.abc import Generator
from typing import TYPE_CHECKING, TextIO

from rejoinder._foreign import method
from rejoinder.cli.render import Style, fitting_bar, printable, sentence, size

if TYPE_CHECKING:
    from rejoinder.cli.markdown import MarkdownReply
    from rejoinder.providers.local.fetch import Progress

__all__ = ["Screen", "is_dumb"]

_REDRAW = 0.1


def _style(stream: TextIO) -> Style:
    return Style(colour=_is_terminal(stream) and not os.environ.get("NO_COLOR") and not is_dumb())


def is_dumb() -> bool:
    """Whether the terminal cannot move its cursor, or is unknown."""
    return os.environ.get("TERM", "") in ("", "dumb", "unknown")


def _is_terminal(stream: TextIO) -> bool:
    try:
        return stream.isatty()
    except ValueError:  # closed
        return False


def _columns(stream: TextIO) -> int:
    try:
        return os.get_terminal_size(stream.fileno()).columns or 80
    except (OSError, ValueError):
        return 80


class Screen:
    """Writes to the two streams, and keeps track of the terminal's last line.

    A reply that cannot be written is an error (`OSError`). Text for standard error that cannot be
    written is dropped.

    Args:
        quiet: write only errors and notices to standard error.
    """

    def __init__(self, *, quiet: bool = False) -> None:
        self.out = sys.stdout
        self.err = sys.stderr
        for stream in (self.out, self.err):
            reconfigure = method(stream, "reconfigure")
            if reconfigure is not None:
                reconfigure(
                    errors="replace"
                )  # characters outside the terminal's encoding must not end a reply
        self.quiet = quiet
        self._markdown: MarkdownReply | None = None
        self.out_style = _style(self.out)
        self.err_style = _style(self.err)
        self.out_is_terminal = _is_terminal(self.out)
        self.err_is_terminal = _is_terminal(self.err)
        self._erases = self.err_is_terminal and not is_dumb()
        self._passing = False
        self._line_open = False
        self._drawn_at = 0.0
        self._quarter = -1
        self._began: tuple[float, int] | None = None

    @contextlib.contextmanager
    def alone(self) -> Generator[None]:
        """Reserve standard output for the reply, unless it is a terminal: output of tools and of
        the programs that they start goes to standard error."""
        if self.out_is_terminal:
            yield
            return
        shown = self.out
        shown.flush()
        number = shown.fileno()
        kept = os.dup(number)
        os.dup2(self.err.fileno(), number)
        self.out = open(kept, "w", encoding=shown.encoding, errors="replace")  # noqa: SIM115
        try:
            with contextlib.redirect_stdout(self.err):
                yield
        finally:
            os.dup2(kept, number)
            with contextlib.suppress(OSError):
                self.out.close()
            self.out = shown

    def draw_markdown(self) -> None:
        """Draw replies as Markdown from now on, if possible."""
        from rejoinder.cli.markdown import find_markdown

        self._markdown = find_markdown(self.out, colour=self.out_style.colour)

    def data(self, line: str) -> None:
        """Write a line for a program to standard output."""
        self.clear()
        self.out.write(line + "\n")
        self.out.flush()

    def reply(self, text: str) -> None:
        """Write a piece of the reply at once."""
        self.clear()
        text = printable(text) if self.out_is_terminal else text
        if not text:
            return
        if self._markdown is not None:
            self._markdown.write(text)
            self._line_open = True
            return
        self.out.write(text)
        self.out.flush()
        self._line_open = not text.endswith("\n")

    def end_line(self) -> None:
        """Begin a new line for the next output."""
        self.clear()
        if self._line_open and self._markdown is not None:
            self._markdown.end()
            self._line_open = False
        elif self._line_open:
            self.out.write("\n")
            self.out.flush()
            self._line_open = False

    def note(self, text: str) -> None:
        """Write a note beside the reply."""
        if self.quiet:
            return
        self._aside(self.err_style.dim(text))

    def notice(self, text: str) -> None:
        """Like `note`, but also shown with ``quiet``, because the command is waiting for something."""
        self._aside(self.err_style.dim(text))

    def error(self, text: str) -> None:
        """Write an error as one sentence."""
        self._aside(self.err_style.red(f"rejoinder: {sentence(text)}"))

    def _aside(self, text: str) -> None:
        self.clear()
        if self._line_open and self.out_is_terminal and self.err_is_terminal:
            self.end_line()
        self.say(text + "\n")

    def say(self, text: str) -> None:
        """Write `text` unchanged to standard error."""
        with contextlib.suppress(OSError, ValueError):
            self.err.write(text)
            self.err.flush()

    def break_line(self) -> None:
        """End the line of a prompt."""
        if self.out_is_terminal:
            self.out.write("\n")
            self.out.flush()
        else:
            self.say("\n")

    def passing(self, text: str) -> None:
        """Show a line that the next one replaces; only on a terminal that can erase a line."""
        if self.quiet or not self._erases or (self._line_open and self.out_is_terminal):
            return
        text = printable(text)[: _columns(self.err) - 1]  # only one line can be erased
        self.say("\r\x1b[K" + self.err_style.dim(text))
        self._passing = True

    def clear(self) -> None:
        """Erase the temporary line."""
        if self._passing:
            self._passing = False
            self.say("\r\x1b[K")

    def fetching(self, progress: Progress) -> None:
        """Show the progress of fetching a model."""
        match progress.stage:
            case "waiting":
                self.passing("another rejoinder is fetching the model; waiting for it")
            case "fetching":
                self.progress("fetching the model", progress.done, progress.total)
            case "checking":
                self.passing("checking the model")

    def progress(self, what: str, done: int, total: int) -> None:
        """Show progress: a bar on a terminal, an occasional line elsewhere."""
        now = time.monotonic()
        if (
            self._began is None or done < self._began[1]
        ):  # the second condition: it has started again
            self._began = (now, done)
        if not self._erases:
            quarter = 4 * done // total if total else 0
            if quarter > self._quarter and not self.quiet:
                self._quarter = quarter
                self._aside(f"{what}: {25 * quarter} % of {size(total)}")
            return
        if now - self._drawn_at < _REDRAW and done < total:
            return
        self._drawn_at = now
        since, before = self._began
        rate = (done - before) / (now - since) if now - since > 1 else None
        self.passing(fitting_bar(what, done, total, rate=rate, columns=_columns(self.err) - 1))
