"""Formats the output of the command line: values in, text out.

This module is pure: no stream, no terminal, no clock. All text of models and tools passes through
`printable` first, because a terminal executes control characters and this text is not trusted.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final, cast

from rejoinder._sections import extended, plain
from rejoinder.errors import APIConnectionError, APIError

__all__ = [
    "PLAIN",
    "Stats",
    "Style",
    "bar",
    "dollars",
    "fitting_bar",
    "one_line",
    "printable",
    "render_call",
    "render_error",
    "render_result",
    "render_stats",
    "sentence",
    "size",
    "table",
]

_CONTROLS: Final = re.compile(
    r"\x1b\[[0-?]*[ -/]*[@-~]"  # a complete escape sequence: remove it
    r"|\x1b\][^\x07\x1b]*(?:\x07|\x1b\\)?"
    r"|\r(?=\n)|[\x00-\x08\x0b-\x1f\x7f-\x9f]"
    "|[\u200e\u200f\u202a-\u202e\u2066-\u2069]"  # changes of writing direction can hide text
)
_SHOWN: Final = 200
_LABEL: Final = re.compile(
    r"^[a-z_]+(\.\w+)*\.LLM: "
)  # drop the model's label: there is only one model


@dataclass(frozen=True, slots=True)
class Style:
    """Colours, if enabled."""

    colour: bool

    def dim(self, text: str) -> str:
        return f"\x1b[2m{text}\x1b[22m" if self.colour else text

    def bold(self, text: str) -> str:
        return f"\x1b[1m{text}\x1b[22m" if self.colour else text

    def red(self, text: str) -> str:
        return f"\x1b[31m{text}\x1b[39m" if self.colour else text

    def green(self, text: str) -> str:
        return f"\x1b[32m{text}\x1b[39m" if self.colour else text


PLAIN: Final = Style(colour=False)


def printable(text: str) -> str:
    """`text` without control characters, except line breaks and tabs."""
    if text.isprintable():
        return text
    return _CONTROLS.sub("", text).encode("utf-8", "replace").decode("utf-8")


def one_line(text: str, limit: int = _SHOWN) -> str:
    """`text` as one line of at most `limit` characters."""
    line = " ".join(printable(text).split())
    return line if len(line) <= limit else line[: limit - 3] + "..."


def sentence(text: str) -> str:
    """An error as one line that ends with a full stop, or with the place of its explanation. The
    latter has no full stop, because people copy it."""
    line = one_line(text, 600).rstrip()
    explained = plain(line) != line
    return line if explained or line.endswith((".", "!", "?", ")")) else line + "."


def render_call(name: str, arguments: str) -> str:
    """A tool call as it would be written in Python: ``time_in(place='Paris')``."""
    try:
        value: Any = json.loads(arguments)
    except ValueError:
        value = None
    if isinstance(value, dict):
        pairs = cast("dict[str, Any]", value).items()
        inner = ", ".join(f"{key}={entry!r}" for key, entry in pairs)
    else:
        inner = arguments
    return one_line(f"{name}({inner})")


def render_result(output: str, *, is_error: bool, seconds: float) -> str:
    """The result of a tool call."""
    shown = one_line(output) or "(nothing)"
    return f"{'failed: ' if is_error else ''}{shown}  [{seconds:.1f} s]"


@dataclass(frozen=True, slots=True)
class Stats:
    """The numbers of one turn."""

    first: float | None
    """Seconds until the first text."""
    speed: float | None
    """Tokens per second after the first one."""
    prompt: int
    cached: int
    completion: int
    estimated: bool = False
    cost: float | None = None
    """US dollars; ``None`` if a price is not known."""


def render_stats(stats: Stats) -> str:
    """``0.31 s to first token, 41.2 tok/s, 38 tokens (29 in, 22 of them cached, 9 out)``"""
    parts: list[str] = []
    if stats.first is not None:
        parts.append(f"{stats.first:.2f} s to first token")
    if stats.speed is not None:
        parts.append(f"{stats.speed:.1f} tok/s")
    if stats.prompt + stats.completion == 0:
        return ", ".join([*parts, "tokens not reported"])
    cached = f", {stats.cached} of them cached" if stats.cached else ""
    about = "about " if stats.estimated else ""
    parts.append(
        f"{about}{stats.prompt + stats.completion} tokens "
        f"({stats.prompt} in{cached}, {stats.completion} out)"
    )
    if stats.cost is not None:
        parts.append(dollars(stats.cost))
    return ", ".join(parts)


def dollars(cost: float) -> str:
    """A sum of money with two significant digits."""
    return f"${cost:.2f}" if cost >= 1 else f"${float(f'{cost:.2g}'):.{4 if cost >= 0.001 else 6}f}"


def size(count: int) -> str:
    """A number of bytes in readable form."""
    if count < 1 << 20:
        return f"{count / 1024:.0f} KB"
    if count < 1 << 30:
        return f"{count / (1 << 20):.0f} MB"
    return f"{count / (1 << 30):.1f} GB"


def bar(done: int, total: int, *, width: int = 30, rate: float | None = None) -> str:
    """A progress bar: ``[######------------]  34 %  159 of 469 MB  12 MB/s``."""
    share = min(1.0, done / total) if total else 0.0
    filled = round(share * width)
    text = f"[{'#' * filled}{'-' * (width - filled)}] {share:4.0%}  {size(done)} of {size(total)}"
    return f"{text}  {size(int(rate))}/s" if rate else text


def fitting_bar(
    what: str, done: int, total: int, *, rate: float | None = None, columns: int = 80
) -> str:
    """`what` and its progress bar, shortened if `columns` are few."""
    full = f"{what} {bar(done, total, rate=rate)}"
    if len(full) <= columns:
        return full
    small = f"{what} {bar(done, total, width=8)}"
    if len(small) <= columns:
        return small
    return f"{done / total if total else 0:4.0%} of {size(total)}".strip()


def render_error(error: APIError) -> str:
    """The error of a model, without names of our classes."""
    from rejoinder.providers.local.wire import ContextOverflowError

    if isinstance(error, ContextOverflowError):
        return (
            f"the conversation has {error.prompt_tokens} tokens, the model's context holds "
            f"{error.context}: say less, begin anew with /clear, or allow more with --context"
        )
    message = _LABEL.sub("", error.message)
    cause = error.__cause__
    if isinstance(error, APIConnectionError):
        if isinstance(cause, APIError):  # all attempts failed; this is the last error
            return extended(render_error(cause), f"; {message}")
        while cause is not None and cause.__cause__ is not None:
            cause = cause.__cause__
        if isinstance(cause, OSError):
            home = type(cause).__module__
            if home == "socket":  # name resolution, which has its own error numbers
                return message
            if home == "builtins" and cause.errno:
                why = os.strerror(cause.errno).lower()
                return message if why in message.lower() else f"{message} ({why})"
    return _LABEL.sub("", str(error))


def table(rows: Sequence[Sequence[str]]) -> str:
    """`rows` in columns."""
    if not rows:
        return ""
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in rows
    )
