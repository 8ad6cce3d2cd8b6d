"""One conversation of ``rejoinder chat``: a model, its tools, its history and its numbers.

Runs on the event loop; what the person sees goes through a `Screen`.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import sys
import time
import traceback
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any, Final

from rejoinder.cli.outcome import CommandError, Exit
from rejoinder.cli.render import (
    Stats,
    one_line,
    render_call,
    render_error,
    render_result,
    render_stats,
)
from rejoinder.errors import APIError, ConfigurationError

if TYPE_CHECKING:
    from rejoinder.cli.screen import Screen
    from rejoinder.llm.llm import LLM, LLMError
    from rejoinder.llm.mcp import MCPToolset
    from rejoinder.metrics import LLMMetrics
    from rejoinder.turn import Turn

__all__ = ["SILENCE", "Conversation"]

SILENCE: Final = 60.0
"""Seconds that a provider may be silent: models that think first need more than a voice agent
would grant."""
_CONNECT: Final = 10.0
_RETRIES: Final = 2
_SERVER_START: Final = 60.0
"""Seconds: npx and uvx may have to fetch the server first."""
_MEASURABLE: Final = 0.02
"""Seconds below which a speed means nothing."""
_WAITING: Final = "waiting for the model"
_TELL_AFTER: Final = 1.0
"""Seconds of silence after which the screen shows what is being waited for."""


class Conversation:
    """One model and one history. Everything but the constructor, `interrupt`, `clear` and
    `describe_tools` runs on the loop.

    Args:
        llm: the model.
        screen: where the reply and the notes go.
        load: loads a model that runs on this machine; ``None`` for a provider's.
        system: instructions; empty for none.
        tools: what the model may call.
        tool_choice: as in `LLM.chat`; ``None`` omits it.
        tool_timeout: seconds a tool may run.
        timeout: seconds the model may be silent; default `SILENCE`, and no limit for a model that
            runs on this machine.

    Attributes:
        interrupted: whether the last reply was stopped.
    """

    def __init__(
        self,
        llm: LLM[Any],
        screen: Screen,
        *,
        load: Callable[[], Awaitable[None]] | None = None,
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
        self._load = load
        self._system = system
        self._tools = tools
        self._choice = tool_choice
        self._tool_timeout = tool_timeout
        self._patience = DEFAULT_API_CONNECT_OPTIONS  # a local model has longer limits of its own
        if timeout is not None or load is None:
            silence = SILENCE if timeout is None else timeout
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

    # -- beginning and end -------------------------------------------------------------------

    async def open(self, servers: list[str]) -> None:
        """Get the model and the tool servers ready.

        Raises:
            CommandError: a tool server does not come up, or a tool cannot be used.
            APIError: the model cannot be had.
        """
        for number, server in enumerate(servers):
            self._tools = [*self._tools, await self._connect(server, number)]
        self._check_tools()
        if self._load is not None:
            self._screen.passing("loading the model")
            await self._load()
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
        """Let a model on this machine read instructions and tools while the person types. Returns
        at once."""
        if self._load is not None:
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
        """Send `text`, and write the reply as it comes.

        Raises:
            APIError: the model failed; if nothing of a reply came, `text` leaves the history again.
            ConfigurationError: the request is not possible with these options.
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
        """Wait until the model has read ahead, or until the reply is interrupted."""
        if self._warming is None:
            return
        stopped = asyncio.create_task(self._stopping.wait(), name="stopped")
        await asyncio.wait((self._warming, stopped), return_when=asyncio.FIRST_COMPLETED)
        stopped.cancel()
        if self._warming.done():
            self._warming = None

    async def _tell_waiting(self) -> None:
        """Show what the conversation waits for, after a second of silence."""
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
    """The output of a tool, or why it failed: its author needs more than the model may read."""
    from rejoinder.llm.tool_context import ToolError

    if error is None or isinstance(error, ToolError) or str(error) in told:
        return told
    if type(error).__name__.startswith("_") or error.__traceback__ is None:
        return told  # raised by this package; the output explains it
    frame = traceback.extract_tb(error.__traceback__)[-1]
    where = f"{os.path.basename(frame.filename)}, line {frame.lineno}"
    return f"{type(error).__name__}: {error} ({where})"


def _origin(tool: Any) -> str:
    """Where a tool comes from: its MCP server, or its module."""
    mcp = sys.modules.get("rejoinder.llm.mcp")
    told = mcp.tool_origin(tool) if mcp is not None else None
    return one_line(told or str(getattr(tool, "__module__", "this program")), 100)


def _speed(metrics: LLMMetrics) -> float | None:
    """Tokens per second of the last request, which was answered in words. Tokens of reasoning come
    before the first word and do not count."""
    seconds = metrics.duration - metrics.ttft
    tokens = metrics.completion_tokens - metrics.reasoning_tokens
    if metrics.ttft < 0 or seconds < _MEASURABLE or tokens < 2:
        return None
    return (tokens - 1) / seconds
