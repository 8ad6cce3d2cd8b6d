"""``rejoinder chat``: a conversation with a model, its tools and its numbers, in a terminal; or one
question and one answer, for scripts."""

from __future__ import annotations

import argparse
import contextlib
import os
import select
import stat
import sys
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from rejoinder.cli.inputs import AnswerSchema, attached_files, pictures, read_schema
from rejoinder.cli.kept import keeps, open_store, path_of
from rejoinder.cli.llms import Model, find_tools, make_llms, tool_choice_of
from rejoinder.cli.log import find_id
from rejoinder.cli.loop import LoopThread
from rejoinder.cli.numbers import count, seconds, temperature
from rejoinder.cli.outcome import CommandError, Exit
from rejoinder.cli.prompt import Prompt
from rejoinder.cli.render import printable, render_call, render_error
from rejoinder.cli.screen import Screen
from rejoinder.cli.session import SILENCE, Talk
from rejoinder.cli.shown import JsonShown, Shown, TextShown
from rejoinder.errors import APIError, ConfigurationError

if TYPE_CHECKING:
    from rejoinder.llm.chat_context import FunctionCall, ImageContent
    from rejoinder.store import SqliteStore
    from rejoinder.transport.http import HttpTransport

__all__ = [
    "SYSTEM", "add_approve_option", "add_model_options", "add_options", "add_tool_options", "run",
]  # fmt: skip

SYSTEM: Final = "You are a helpful assistant. Answer briefly."
_TOOL_TIMEOUT: Final = 60.0
_CLOSE_TIMEOUT: Final = 3.0
_TELL_AFTER: Final = 1.0
"""Seconds without data on standard input before a note that it is being read."""


def add_options(parser: argparse.ArgumentParser) -> None:
    """The options of the command."""
    add_model_options(parser)
    add_tool_options(parser)
    add_approve_option(parser)
    parser.add_argument(
        "--tool-choice", metavar="CHOICE",
        help="auto, required, none, or the name of a tool",
    )  # fmt: skip
    parser.add_argument(
        "--once",
        metavar="TEXT",
        help="ask this, print the reply, and exit; piped text follows it, or is the whole question",
    )
    parser.add_argument(
        "--image", metavar="FILE", action="append", default=[],
        help="send this picture with the first question; may be given often",
    )  # fmt: skip
    parser.add_argument(
        "--file", metavar="FILE", action="append", default=[],
        help="send this text or PDF with the first question; may be given often",
    )  # fmt: skip
    parser.add_argument(
        "--schema", metavar="SCHEMA",
        help="answer with JSON that fits this JSON schema: a file, or the schema itself",
    )  # fmt: skip
    parser.add_argument("--json", action="store_true", help="print events as JSON, one per line")
    parser.add_argument(
        "-c", "--continue", dest="go_on", nargs="?", const="", metavar="ID",
        help="continue the last conversation, or this one (see `rejoinder log`)",
    )  # fmt: skip
    parser.add_argument(
        "--no-keep", action="store_true", help="do not keep the conversation (or: REJOINDER_KEEP=0)"
    )
    parser.add_argument(
        "--record", metavar="FILE",
        help="record the traffic with the provider into this ZIP or folder, without keys",
    )  # fmt: skip
    parser.add_argument("--plain", action="store_true", help="show replies as plain text")
    parser.add_argument("-q", "--quiet", action="store_true", help="no numbers, no tool lines")


def add_model_options(parser: argparse.ArgumentParser) -> None:
    """The options of commands that talk to a model."""
    parser.add_argument(
        "-m", "--model", metavar="NAME",
        help="a local model (see `rejoinder models`), the path of a GGUF file, or provider/model",
    )  # fmt: skip
    parser.add_argument(
        "--fallback", metavar="NAME", action="append", default=[],
        help="use this model if the previous one fails; may be given often",
    )  # fmt: skip
    parser.add_argument("--base-url", metavar="URL", help="address of the provider's API")
    parser.add_argument("-s", "--system", metavar="TEXT", help="instructions")
    parser.add_argument(
        "--timeout", metavar="SECONDS", type=seconds,
        help=f"how long the model may be silent (default: {SILENCE:g}; for local models no limit "
        "before the first word)",
    )  # fmt: skip
    parser.add_argument(
        "--temperature", metavar="T", type=temperature, help="0 is the least random"
    )
    parser.add_argument(
        "--max-tokens", metavar="N", type=count, help="the longest reply of a local model"
    )
    parser.add_argument(
        "--context", metavar="N", type=count,
        help="maximum tokens of a conversation with a local model (default: 8192)",
    )  # fmt: skip


def add_tool_options(parser: argparse.ArgumentParser) -> None:
    """The options of commands that offer tools."""
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
        "--tool-timeout", metavar="SECONDS", type=seconds, default=_TOOL_TIMEOUT,
        help="how long a tool may run (default: %(default)g)",
    )  # fmt: skip


def add_approve_option(parser: argparse.ArgumentParser) -> None:
    """The option to ask the user before a tool runs."""
    parser.add_argument(
        "--approve", action="store_true", help="ask before each tool that may change something"
    )


def run(args: argparse.Namespace) -> Exit:
    """Run the command.

    Raises:
        CommandError: the options or the input cannot be used.
        KeyboardInterrupt: Ctrl-C.
    """
    if args.system is not None:
        args.system = _utf8(args.system, "--system")
    screen = Screen(quiet=args.quiet or args.json)
    text = _question(args, screen)
    if args.json and text is None:
        raise CommandError("--json needs a question: ask with --once TEXT, or pipe it in")
    if args.approve and not sys.stdin.isatty():
        raise CommandError("--approve asks at the keyboard, but standard input is not a terminal")
    if args.go_on is not None and args.no_keep:
        raise CommandError("-c continues a kept conversation; omit --no-keep")
    extras = _extras(args)
    schema = None if args.schema is None else read_schema(args.schema)
    with screen.alone():
        return _talk(args, screen, text, extras, schema)


@dataclass(slots=True)
class _Extras:
    """The attachments of the first question."""

    text: str = ""
    images: list[ImageContent] = field(default_factory=list["ImageContent"])


def _extras(args: argparse.Namespace) -> _Extras:
    text, documents = attached_files(args.file)
    return _Extras(text, [*pictures(args.image), *documents])


def _talk(
    args: argparse.Namespace,
    screen: Screen,
    text: str | None,
    extras: _Extras,
    schema: AnswerSchema | None,
) -> Exit:
    demo = text is None and not args.mcp
    chosen = args.tool or (["demo"] if demo else [])
    tools = [] if args.no_tools else find_tools(chosen)
    recorder = _recorder(args.record)

    def make(name: str | None) -> Model:
        same = (name or "").partition("/")[0] == (args.model or "").partition("/")[0]
        return make_llms(
            name,
            args.fallback,
            base_url=args.base_url if same else None,
            report=screen.fetching,
            max_tokens=args.max_tokens,
            context=args.context,
            temperature=args.temperature,
            transport=recorder,
        )

    store = _place(args, screen)
    with LoopThread() as loop:
        id: str | None = None
        if store is not None:
            id = loop.run(_choose(store, args))
        model = make(args.model)
        if args.json:
            shown = JsonShown(screen, conversation=id)
        else:
            shown = TextShown(screen, whole=schema is not None)
            if not args.plain:
                screen.draw_markdown()
        talk = Talk(
            model,
            screen,
            shown=shown,
            system=SYSTEM if args.system is None else args.system,
            tools=tools,
            tool_choice=tool_choice_of(args.tool_choice),
            tool_timeout=args.tool_timeout,
            timeout=args.timeout,
            schema=schema,
            approve=_approver(loop, screen) if args.approve else None,
        )
        try:
            if store is not None:
                loop.run(_keep(talk, store, id, args))
            loop.run(talk.open([] if args.no_tools else args.mcp))
            if text is not None:
                return _once(loop, talk, shown, text, extras)
            prompt = Prompt(loop, talk, screen, make=make, store=store)
            return prompt.converse(extras.text, extras.images)
        finally:
            screen.clear()
            with contextlib.suppress(KeyboardInterrupt, APIError, RuntimeError, TimeoutError):
                if loop.responds():
                    loop.run(_end(talk, store, recorder), timeout=_CLOSE_TIMEOUT)


def _recorder(place: str | None) -> Any:
    if place is None:
        return None
    from rejoinder.testing import record

    if not place.strip():
        raise CommandError("--record: expected the name of a ZIP or a folder, got an empty one")
    path = path_of(place)
    one_file = path.suffix.lower() == ".zip"
    if one_file and path.exists():
        raise CommandError(f"--record: {place} exists already; name another file")
    try:
        (path.parent if one_file else path).mkdir(parents=True, exist_ok=True)
    except FileExistsError as error:
        raise CommandError(
            f"--record: expected a folder or a new file that ends in .zip, got the file {place}"
        ) from error
    except OSError as error:
        raise CommandError(f"--record: {place}: {error.strerror or error}") from error
    return record(path)


async def _end(talk: Talk, store: SqliteStore | None, recorder: HttpTransport | None) -> None:
    await talk.aclose()
    if recorder is not None:
        await recorder.aclose()
    if store is not None:
        await store.aclose()


def _place(args: argparse.Namespace, screen: Screen) -> SqliteStore | None:
    """The store of the conversation, if it is kept."""
    if args.no_keep or (not keeps() and args.go_on is None):
        return None
    try:
        return open_store()
    except CommandError as error:
        if args.go_on is not None:
            raise
        screen.note(f"The conversation is not kept: {error}")
        return None


async def _choose(store: SqliteStore, args: argparse.Namespace) -> str:
    """The id of the conversation. A resumed one uses its earlier model, unless another one is
    named."""
    from rejoinder import _stamps
    from rejoinder.store import StoreError

    if args.go_on is None:
        return _stamps.new_id("conv_")
    try:
        id = await find_id(store, args.go_on)
        (about,) = (each.about for each in await store.conversations() if each.id == id)
    except StoreError as error:
        raise CommandError(str(error), Exit.SETUP) from error
    if args.model is None and args.base_url is None:
        args.model = about.get("model")
        args.base_url = about.get("base_url")
    return id


async def _keep(talk: Talk, store: SqliteStore, id: str | None, args: argparse.Namespace) -> None:
    from rejoinder.conversation import Conversation
    from rejoinder.store import StoreError

    try:
        await talk.keep(Conversation(store, id))
    except StoreError as error:
        if args.go_on is not None:
            raise CommandError(str(error), Exit.SETUP) from error
        talk.not_kept(error)
        return
    if args.go_on is not None and args.system is not None:
        talk.instruct(args.system)


def _approver(loop: LoopThread, screen: Screen) -> Callable[[FunctionCall], Awaitable[bool]]:
    always: set[str] = set()

    def question(call: FunctionCall) -> bool:
        shown = render_call(call.name, call.arguments)
        try:
            answer = input(f"Run {printable(shown)}? [y]es, [n]o, [a]lways: ").strip().lower()
        except (EOFError, UnicodeError):
            screen.break_line()
            return False
        except KeyboardInterrupt:
            screen.break_line()
            raise
        if answer in ("a", "always"):
            always.add(call.name)
        return answer in ("y", "yes", "a", "always")

    async def approve(call: FunctionCall) -> bool:
        return call.name in always or await loop.ask(lambda: question(call))

    return approve


def _question(args: argparse.Namespace, screen: Screen) -> str | None:
    """The question to ask once, followed by the piped text; ``None`` for a conversation."""
    parts = [] if args.once is None else [_utf8(args.once, "--once")]
    if sys.stdin is None or sys.stdin.closed:
        if not parts:
            raise CommandError("standard input is closed; ask with --once TEXT")
    elif sys.stdin.isatty():
        if not parts:
            return None
    elif not parts or _is_piped():
        parts.append(_piped(screen))
    text = "\n\n".join(part.strip() for part in parts if part.strip())
    if not text or not parts[0].strip():
        raise CommandError("the question is empty")
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
            screen.note("reading standard input (use </dev/null to skip it)")
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
    """An argument as UTF-8, even if the locale decoded it with another encoding."""
    try:
        return os.fsencode(text).decode("utf-8")
    except UnicodeDecodeError:
        raise CommandError(f"the text given with {option} is not UTF-8") from None
    except UnicodeEncodeError:
        return text  # not from a command line


def _once(loop: LoopThread, talk: Talk, shown: Shown, text: str, extras: _Extras) -> Exit:
    text = "\n\n".join(part for part in (text, extras.text) if part)
    loop.run(talk.note_facts())
    try:
        loop.run(talk.say(text, images=extras.images), interrupt=talk.interrupt, stuck=talk.stuck)
    except (APIError, ConfigurationError, CommandError) as error:
        if isinstance(shown, JsonShown):
            shown.fail(render_error(error) if isinstance(error, APIError) else str(error))
        raise
    if talk.interrupted:
        loop.run(talk.settle())
        raise KeyboardInterrupt
    return Exit.OK
