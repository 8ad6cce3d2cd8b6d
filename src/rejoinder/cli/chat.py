"""``rejoinder chat``: a conversation with a model, its tools and its numbers, in a terminal; or one
question and one answer, for scripts."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import importlib
import math
import os
import re
import sys
import time
import traceback
from typing import TYPE_CHECKING, Any, Final

from rejoinder.cli.llms import find_tools, make_llm, tool_choice_of
from rejoinder.cli.loop import LoopThread
from rejoinder.cli.outcome import CommandError, Exit
from rejoinder.cli.render import (
    Stats,
    one_line,
    render_call,
    render_error,
    render_result,
    render_stats,
)
from rejoinder.cli.screen import Screen
from rejoinder.errors import APIError, ConfigurationError

if TYPE_CHECKING:
    from rejoinder.llm.llm import LLM, LLMError
    from rejoinder.llm.mcp import MCPToolset
    from rejoinder.metrics import LLMMetrics
    from rejoinder.providers.local.fetch import Progress
    from rejoinder.turn import Turn

__all__ = ["Conversation", "add_options", "run", "tell_progress"]

_SYSTEM: Final = "You are a helpful assistant. Answer briefly."
_HELP: Final = """\
/tools   what the model may call
/clear   forget the conversation
/quit    leave (also Ctrl-D, or Ctrl-C twice)
A line that ends in \\ goes on in the next one."""
_TOOL_TIMEOUT: Final = 60.0
_CLOSE_TIMEOUT: Final = 3.0
_MEASURABLE: Final = 0.02
"""Seconds below which a speed says nothing."""
_SERVER_START: Final = 60.0
"""Seconds: npx and uvx may have to fetch the server first."""
_SILENCE: Final = 60.0
"""Seconds: models that think before they speak need more than a voice agent would grant."""
_CONNECT: Final = 10.0
_RETRIES: Final = 2
_WAITING: Final = "waiting for the model"
_TELL_AFTER: Final = 1.0
"""Seconds of silence after which a person is told that we wait."""


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
        help="offer this function to the model; may be given often; default: the demo tools",
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
        help=f"how long the model may be silent (default: {_SILENCE:g}; for local models no limit "
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
        "--once", metavar="TEXT", help="ask this, print the reply, and leave (or pipe the text in)"
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
    """Talk.

    Raises:
        CommandError: it cannot be done.
        KeyboardInterrupt: Ctrl-C.
    """
    text = _question(args)
    system = _utf8(args.system, "--system")
    screen = Screen(quiet=args.quiet)
    with screen.alone():
        return _talk(args, screen, system, text)


def _talk(args: argparse.Namespace, screen: Screen, system: str, text: str | None) -> Exit:
    chosen = args.tool or (["demo"] if not args.mcp else [])
    tools = [] if args.no_tools else find_tools(chosen)
    llm = make_llm(
        args.model,
        base_url=args.base_url,
        report=lambda progress: tell_progress(screen, progress),
        max_tokens=args.max_tokens,
        context=args.context,
        temperature=args.temperature,
    )
    with LoopThread() as loop:
        talk = Conversation(
            llm,
            screen,
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
            return _converse(loop, talk, screen)
        finally:
            screen.clear()
            with contextlib.suppress(KeyboardInterrupt, APIError, RuntimeError, TimeoutError):
                if loop.responds():
                    loop.run(talk.aclose(), timeout=_CLOSE_TIMEOUT)


def _question(args: argparse.Namespace) -> str | None:
    """What is to be asked once; ``None`` for a conversation."""
    if args.once is not None:
        text = _utf8(args.once, "--once")
    elif sys.stdin is None or sys.stdin.closed:
        raise CommandError("there is no standard input; ask with --once TEXT")
    elif sys.stdin.isatty():
        return None
    else:
        try:
            data = sys.stdin.buffer.read()
        except OSError as error:
            raise CommandError(
                f"standard input cannot be read: {error.strerror or error}"
            ) from error
        try:
            text = data.decode("utf-8-sig")
        except UnicodeDecodeError as error:
            raise CommandError(
                f"standard input is not UTF-8 (byte 0x{data[error.start]:02x} at position "
                f"{error.start}); convert it first, e.g. with iconv"
            ) from error
    if not text.strip():
        raise CommandError("there is nothing to ask: the text is empty")
    return text.strip()


def _utf8(text: str, option: str) -> str:
    """What was written on the command line; the locale may have taken it for something else."""
    try:
        return os.fsencode(text).decode("utf-8")
    except UnicodeDecodeError:
        raise CommandError(f"the text given with {option} is not UTF-8") from None
    except UnicodeEncodeError:
        return text  # not from a command line


def tell_progress(screen: Screen, progress: Progress) -> None:
    match progress.stage:
        case "waiting":
            screen.passing("another rejoinder is fetching the model; waiting for it")
        case "fetching":
            screen.progress("fetching the model", progress.done, progress.total)
        case "checking":
            screen.passing("checking the model")


def _once(loop: LoopThread, talk: Conversation, text: str) -> Exit:
    loop.run(talk.say(text), interrupt=talk.interrupt, stuck=talk.stuck)
    if talk.interrupted:
        loop.run(talk.settle())
        raise KeyboardInterrupt
    return Exit.OK


def _converse(loop: LoopThread, talk: Conversation, screen: Screen) -> Exit:
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
    """A line from the terminal, put together from those that end in a backslash.

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
    """Editing, a history, and pasted text as one line, where there is a line editor."""
    with contextlib.suppress(ImportError):
        readline = importlib.import_module("readline")
        if "libedit" not in (readline.__doc__ or "") and os.environ.get("TERM") != "dumb":
            readline.parse_and_bind("set enable-bracketed-paste on")


def _command(line: str, talk: Conversation, screen: Screen) -> bool:
    """Obey a line that begins with a slash. Returns whether it is time to leave."""
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


class Conversation:
    """One model, one history; all but the constructor, `interrupt`, `clear` and `describe_tools`
    runs on the loop.

    Attributes:
        interrupted: the last reply was stopped.
    """

    def __init__(
        self,
        llm: LLM[Any],
        screen: Screen,
        *,
        system: str,
        tools: list[Any],
        tool_choice: Any,
        tool_timeout: float,
        timeout: float | None = None,
    ) -> None:
        from rejoinder.llm.chat_context import ChatContext
        from rejoinder.types import DEFAULT_API_CONNECT_OPTIONS, APIConnectOptions

        self.llm = llm
        self.interrupted = False
        self._screen = screen
        self._system = system
        self._tools = tools
        self._choice = tool_choice
        self._tool_timeout = tool_timeout
        self._patience = DEFAULT_API_CONNECT_OPTIONS  # a local model makes more of it
        if timeout is not None or not hasattr(llm, "load"):
            silence = _SILENCE if timeout is None else timeout
            self._patience = APIConnectOptions(
                max_retry=_RETRIES, timeout=silence, connect=min(_CONNECT, silence)
            )
        self._ctx = ChatContext.empty()
        self._metrics: list[LLMMetrics] = []
        self._turn: Turn | None = None
        self._left: list[Turn] = []
        self._stopping = asyncio.Event()
        self._doing = ""
        self._quiet_since = 0.0
        self._warming: asyncio.Task[None] | None = None
        self._open: list[Any] = []
        self.clear()
        llm.on("metrics_collected", self._metrics.append)
        llm.on("error", self._failed)

    # -- the shell ---------------------------------------------------------------------------

    async def open(self, servers: list[str]) -> None:
        """Get the model and the tool servers ready.

        Raises:
            CommandError: a tool server does not come up, or a tool cannot be used.
            APIError: the model cannot be had.
        """
        for number, server in enumerate(servers):
            self._tools = [*self._tools, await self._connect(server, number)]
        self._check_tools()
        load = getattr(self.llm, "load", None)
        if load is not None:
            self._screen.passing("loading the model")
            await load()
            self._screen.clear()

    async def _connect(self, server: str, number: int) -> Any:
        try:
            from rejoinder.llm import mcp
        except ImportError as error:
            raise CommandError(str(error), Exit.SETUP) from error
        self._screen.passing(f"connecting to {one_line(server, 60)}")
        try:
            connection = mcp.server_from_spec(
                server,
                client_session_timeout_seconds=self._tool_timeout,
                startup_timeout=_SERVER_START,
            )
            toolset = mcp.MCPToolset(id=f"mcp{number}", mcp_server=connection)
            self._open.append(connection)
            await toolset.setup()
            await self._prefix(toolset, number)
        except Exception as error:
            raise CommandError(
                f"the MCP server {one_line(server, 80)!r} does not come up: {error}", Exit.SETUP
            ) from error
        self._screen.clear()
        return toolset

    async def _prefix(self, toolset: MCPToolset, number: int) -> None:
        """Where a tool has the name of another one, this server's tools get a prefix."""
        from rejoinder.llm.mcp import name_collisions
        from rejoinder.llm.tool_context import ToolContext

        names = name_collisions([*ToolContext(self._tools).function_tools.values()], toolset)
        if not names:
            return
        server = toolset.mcp_server
        told = server.server_info.name if server.server_info else ""
        word = re.sub(r"[^A-Za-z0-9]+", "_", told).strip("_")[-20:] or "mcp"
        server.tool_prefix = f"{word}{number + 1}_"
        await toolset.setup(reload=True)
        self._screen.note(
            f"{', '.join(names)}: there already; the tools of this server are named "
            f"{server.tool_prefix}..."
        )

    def _check_tools(self) -> None:
        from rejoinder.llm.tool_context import ToolContext

        try:
            names = list(ToolContext(self._tools).function_tools)
        except ValueError as error:
            raise CommandError(f"the tools cannot be used: {error}") from error
        choice = self._choice
        if isinstance(choice, dict) and choice["function"]["name"] not in names:
            raise CommandError(
                f"--tool-choice: there is no tool {choice['function']['name']!r} "
                f"(there are: {', '.join(names) or 'none'})"
            )
        if choice not in (None, "auto", "none") and not names:
            raise CommandError("--tool-choice: there are no tools to choose from")

    async def warm_up(self) -> None:
        """Have a model on this machine read instructions and tools while the person types. Returns
        at once."""
        if hasattr(self.llm, "load"):
            self._warming = asyncio.create_task(self._read_ahead(), name="read ahead")

    async def _read_ahead(self) -> None:
        with contextlib.suppress(APIError, ConfigurationError):
            await self.llm.chat(
                chat_ctx=self._ctx.copy(), tools=self._tools, extra_kwargs={"max_tokens": 1}
            ).collect()

    async def aclose(self) -> None:
        """End everything, within a few seconds."""
        if self._warming is not None:
            self._warming.cancel()
        await self.llm.aclose()
        for connection in self._open:
            await connection.aclose()

    def clear(self) -> None:
        """Forget the conversation."""
        from rejoinder.llm.chat_context import ChatContext

        self._ctx = ChatContext.empty()
        if self._system:
            self._ctx.add_message(role="system", content=self._system)

    def describe_tools(self) -> str:
        """The tools, one a line."""
        from rejoinder.llm.tool_context import (
            ToolContext,
            get_function_info,
            get_raw_function_info,
            is_raw_function_tool,
        )

        lines: list[str] = []
        for name, tool in ToolContext(self._tools).function_tools.items():
            if is_raw_function_tool(tool):
                told = str(get_raw_function_info(tool).raw_schema.get("description") or "")
            else:
                told = get_function_info(tool).description or ""
            lines.append(f"{name}  {one_line(told, 100)}".rstrip() + f"  [{_origin(tool)}]")
        return "\n".join(lines) or "The model has no tools."

    # -- a turn ------------------------------------------------------------------------------

    async def say(self, text: str) -> None:
        """Say `text`, and write the reply as it comes.

        Raises:
            APIError: the model failed; what was said to it is taken back.
            ConfigurationError: it cannot be asked so.
        """
        from rejoinder.turn import Done, Text, Thinking, ToolFinished, ToolStarted, run_turn
        from rejoinder.types import NOT_GIVEN

        screen = self._screen
        before = len(self._ctx.items)
        self._ctx.add_message(role="user", content=text)
        self.interrupted = False
        began = time.monotonic()
        first: float | None = None
        said = False
        telling = asyncio.create_task(self._tell_waiting(), name="tell waiting")
        try:
            await self._warmed()
            self._metrics.clear()
            turn = run_turn(
                self.llm,
                self._ctx,
                tools=self._tools,
                tool_choice=NOT_GIVEN if self._choice is None else self._choice,
                tool_timeout=self._tool_timeout,
                conn_options=self._patience,
            )
            async with turn:
                self._turn = turn
                if self._stopping.is_set():
                    turn.interrupt()
                async for event in turn:
                    if not isinstance(event, Thinking):
                        self._quiet_since = time.monotonic()
                    match event:
                        case Text(text=piece):
                            if first is None:
                                first = time.monotonic() - began
                            if not said:
                                piece = piece.lstrip("\n")
                            said = said or bool(piece)
                            screen.reply(piece)
                        case Thinking():
                            self._doing = "thinking"
                        case ToolStarted(call=call):
                            screen.end_line()
                            said = False
                            screen.note(f"-> {render_call(call.name, call.arguments)}")
                            self._doing = f"{one_line(call.name, 40)} is running"
                        case ToolFinished(output=output, duration=seconds, exception=error):
                            told = render_result(
                                _reason(error, output.output),
                                is_error=output.is_error,
                                seconds=seconds,
                            )
                            screen.note(f"<- {told}")
                            self._doing = _WAITING
                        case Done(reason=reason):
                            self.interrupted = reason == "interrupted"
                        case _:
                            pass
            if turn.running:
                self._left.append(turn)
        except (APIError, ConfigurationError):
            if first is None:
                del self._ctx.items[before:]
            raise
        finally:
            telling.cancel()
            self._turn = None
            self._stopping.clear()
            screen.end_line()
        if self.interrupted:
            screen.note("[interrupted]")
        if self._metrics:
            screen.note(f"[{render_stats(self._stats(first))}]")

    async def _warmed(self) -> None:
        """Wait for what was read ahead, which the question begins with; not when it is stopped."""
        if self._warming is None:
            return
        stopped = asyncio.create_task(self._stopping.wait(), name="stopped")
        await asyncio.wait((self._warming, stopped), return_when=asyncio.FIRST_COMPLETED)
        stopped.cancel()
        if self._warming.done():
            self._warming = None

    async def _tell_waiting(self) -> None:
        """Show a person that it is not we who hang."""
        self._doing = _WAITING
        began = self._quiet_since = time.monotonic()
        while True:
            await asyncio.sleep(_TELL_AFTER)
            now = time.monotonic()
            if now - self._quiet_since >= _TELL_AFTER:
                self._screen.passing(f"{self._doing} ({now - began:.0f} s; Ctrl-C stops it)")

    async def settle(self) -> None:
        """Wait for tools that could not be stopped: they may be in the middle of something."""
        running = [call.name for turn in self._left for call in turn.running]
        if not running:
            return
        self._screen.notice(
            f"Waiting for {one_line(', '.join(running), 80)}, which cannot be stopped. "
            "Ctrl-C leaves without it."
        )
        for turn in self._left:
            await turn.settled()

    def interrupt(self) -> None:
        """Stop the reply. Idempotent."""
        self._stopping.set()
        if self._turn is not None:
            self._turn.interrupt()

    def stuck(self) -> None:
        """The reply does not stop."""
        self._screen.notice("A tool does not let itself be stopped. Ctrl-C again leaves.")

    def _stats(self, first: float | None) -> Stats:
        metrics = self._metrics
        return Stats(
            first=first,
            speed=_speed(metrics[-1]) if first is not None else None,
            prompt=sum(m.prompt_tokens for m in metrics),
            cached=sum(m.prompt_cached_tokens for m in metrics),
            completion=sum(m.completion_tokens for m in metrics),
            estimated=any(m.estimated for m in metrics),
        )

    def _failed(self, error: LLMError) -> None:
        if error.recoverable:
            told = error.error
            text = render_error(told) if isinstance(told, APIError) else str(told)
            self._screen.note(f"trying again: {one_line(text)}")


def _reason(error: BaseException | None, told: str) -> str:
    """What a tool said, or why it failed: who wrote it wants to know more than the model does."""
    from rejoinder.llm.tool_context import ToolError

    if error is None or isinstance(error, ToolError) or str(error) in told:
        return told
    if type(error).__name__.startswith("_") or error.__traceback__ is None:
        return told  # our own; it has said it
    frame = traceback.extract_tb(error.__traceback__)[-1]
    where = f"{os.path.basename(frame.filename)}, line {frame.lineno}"
    return f"{type(error).__name__}: {error} ({where})"


def _origin(tool: Any) -> str:
    """Where a tool comes from: its MCP server, or its module."""
    mcp = sys.modules.get("rejoinder.llm.mcp")
    told = mcp.tool_origin(tool) if mcp is not None else None
    return one_line(told or str(getattr(tool, "__module__", "this program")), 100)


def _speed(metrics: LLMMetrics) -> float | None:
    """Tokens per second of the last request: the one that was answered in words. Without those of
    reasoning, which come before the first word."""
    seconds = metrics.duration - metrics.ttft
    tokens = metrics.completion_tokens - metrics.reasoning_tokens
    if metrics.ttft < 0 or seconds < _MEASURABLE or tokens < 2:
        return None
    return (tokens - 1) / seconds
