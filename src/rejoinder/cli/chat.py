"""``rejoinder chat``: a conversation with a model, its tools and its numbers, in a terminal; or one
question and one answer, for scripts."""

from __future__ import annotations

import argparse
import contextlib
import math
import os
import select
import stat
import sys
from typing import Final

from rejoinder.cli.llms import find_tools, make_llm, tool_choice_of
from rejoinder.cli.loop import LoopThread
from rejoinder.cli.outcome import CommandError, Exit
from rejoinder.cli.prompt import converse
from rejoinder.cli.screen import Screen
from rejoinder.cli.session import SILENCE, Conversation
from rejoinder.errors import APIError

__all__ = ["add_options", "run"]

_SYSTEM: Final = "You are a helpful assistant. Answer briefly."
_TOOL_TIMEOUT: Final = 60.0
_CLOSE_TIMEOUT: Final = 3.0
_TELL_AFTER: Final = 1.0
"""Seconds of silence on standard input after which the person is told that it is being read."""


def add_options(parser: argparse.ArgumentParser) -> None:
    """The options of the command."""
    parser.add_argument(
        "-m", "--model", metavar="NAME",
        help="a local model (see `rejoinder models`), the path of a GGUF file, or provider/model",
    )  # fmt: skip
    parser.add_argument("--base-url", metavar="URL", help="where the provider's API is")
    parser.add_argument("-s", "--system", metavar="TEXT", default=_SYSTEM, help="instructions")
    parser.add_argument(
        "--tool", metavar="MODULE:FUNCTION", action="append", default=[],
        help="offer this function to the model; may be given often; `demo` are the demo tools, the "
        "default in a conversation",
    )  # fmt: skip
    parser.add_argument(
        "--mcp", metavar="SERVER", action="append", default=[],
        help="offer the tools of an MCP server: its URL, or the command that starts it",
    )  # fmt: skip
    parser.add_argument("--no-tools", action="store_true", help="offer no tools")
    parser.add_argument(
        "--tool-choice", metavar="CHOICE",
        help="auto, required, none, or the name of a tool",
    )  # fmt: skip
    parser.add_argument(
        "--tool-timeout", metavar="SECONDS", type=_positive, default=_TOOL_TIMEOUT,
        help="how long a tool may run (default: %(default)g)",
    )  # fmt: skip
    parser.add_argument(
        "--timeout", metavar="SECONDS", type=_positive,
        help=f"how long the model may be silent (default: {SILENCE:g}; for local models no limit "
        "before the first word)",
    )  # fmt: skip
    parser.add_argument(
        "--temperature", metavar="T", type=_temperature, help="0 is the least random"
    )
    parser.add_argument("--max-tokens", metavar="N", type=_count, help="the longest reply")
    parser.add_argument(
        "--context", metavar="N", type=_count,
        help="tokens a local model keeps of the conversation (default: 8192)",
    )  # fmt: skip
    parser.add_argument(
        "--once",
        metavar="TEXT",
        help="ask this, print the reply, and leave; text that is piped in follows it, or is asked alone",
    )
    parser.add_argument("-q", "--quiet", action="store_true", help="no numbers, no tool lines")


def _positive(text: str) -> float:
    value = float(text)
    if not value > 0:
        raise argparse.ArgumentTypeError(f"expected more than 0, got {text}")
    return value


def _temperature(text: str) -> float:
    value = float(text)
    if not 0 <= value < math.inf:
        raise argparse.ArgumentTypeError(f"expected a number of at least 0, got {text}")
    return value


def _count(text: str) -> int:
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"expected at least 1, got {text}")
    return value


def run(args: argparse.Namespace) -> Exit:
    """Run the command.

    Raises:
        CommandError: the options or the input cannot be used.
        KeyboardInterrupt: Ctrl-C.
    """
    system = _utf8(args.system, "--system")
    screen = Screen(quiet=args.quiet)
    text = _question(args, screen)
    with screen.alone():
        return _talk(args, screen, system, text)


def _talk(args: argparse.Namespace, screen: Screen, system: str, text: str | None) -> Exit:
    demo = text is None and not args.mcp
    chosen = args.tool or (["demo"] if demo else [])
    tools = [] if args.no_tools else find_tools(chosen)
    model = make_llm(
        args.model,
        base_url=args.base_url,
        report=screen.fetching,
        max_tokens=args.max_tokens,
        context=args.context,
        temperature=args.temperature,
    )
    with LoopThread() as loop:
        talk = Conversation(
            model.llm,
            screen,
            load=model.load,
            system=system,
            tools=tools,
            tool_choice=tool_choice_of(args.tool_choice),
            tool_timeout=args.tool_timeout,
            timeout=args.timeout,
        )
        try:
            loop.run(talk.open([] if args.no_tools else args.mcp))
            if text is not None:
                return _once(loop, talk, text)
            return converse(loop, talk, screen)
        finally:
            screen.clear()
            with contextlib.suppress(KeyboardInterrupt, APIError, RuntimeError, TimeoutError):
                if loop.responds():
                    loop.run(talk.aclose(), timeout=_CLOSE_TIMEOUT)


def _question(args: argparse.Namespace, screen: Screen) -> str | None:
    """The question to ask once, with the text that was piped in behind it; ``None`` for a
    conversation."""
    parts = [] if args.once is None else [_utf8(args.once, "--once")]
    if sys.stdin is None or sys.stdin.closed:
        if not parts:
            raise CommandError("there is no standard input; ask with --once TEXT")
    elif sys.stdin.isatty():
        if not parts:
            return None
    elif not parts or _is_piped():
        parts.append(_piped(screen))
    text = "\n\n".join(part.strip() for part in parts if part.strip())
    if not text or not parts[0].strip():
        raise CommandError("there is nothing to ask: the text is empty")
    return text


def _is_piped() -> bool:
    """Whether standard input is a pipe or a file, and not, say, /dev/null."""
    try:
        mode = os.fstat(sys.stdin.fileno()).st_mode
    except (OSError, ValueError):
        return False
    return stat.S_ISFIFO(mode) or stat.S_ISREG(mode) or stat.S_ISSOCK(mode)


def _piped(screen: Screen) -> str:
    """The whole of standard input."""
    try:
        if not select.select([sys.stdin], [], [], _TELL_AFTER)[0]:
            screen.note("reading standard input (</dev/null if there is none)")
        data = sys.stdin.buffer.read()
    except OSError as error:
        raise CommandError(f"standard input cannot be read: {error.strerror or error}") from error
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise CommandError(
            f"standard input is not UTF-8 (byte 0x{data[error.start]:02x} at position "
            f"{error.start}); convert it first, e.g. with iconv"
        ) from error


def _utf8(text: str, option: str) -> str:
    """An argument as UTF-8, also where the locale has decoded it as something else."""
    try:
        return os.fsencode(text).decode("utf-8")
    except UnicodeDecodeError:
        raise CommandError(f"the text given with {option} is not UTF-8") from None
    except UnicodeEncodeError:
        return text  # not from a command line


def _once(loop: LoopThread, talk: Conversation, text: str) -> Exit:
    loop.run(talk.say(text), interrupt=talk.interrupt, stuck=talk.stuck)
    if talk.interrupted:
        loop.run(talk.settle())
        raise KeyboardInterrupt
    return Exit.OK
