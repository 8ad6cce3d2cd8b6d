"""One conversation of ``rejoinder chat``: a model, its tools, its history and its numbers.

Runs on the event loop. All output to the user goes through a `Screen`.
"""

from __future__ import annotations

import asyncio
import contextlib
import sys
import time
from collections.abc import Awaitable, Callable, Sequence
from typing import TYPE_CHECKING, Any, Final

from rejoinder._sections import extended
from rejoinder.cli.models import fetch_notice
from rejoinder.cli.outcome import CommandError, Exit
from rejoinder.cli.render import (
    Stats,
    one_line,
    render_error,
    render_stats,
)
from rejoinder.cli.servers import connect_servers
from rejoinder.cli.shown import Shown, TextShown
from rejoinder.errors import APIError, ConfigurationError, OutputMismatchError

if TYPE_CHECKING:
    from rejoinder.cli.inputs import AnswerSchema
    from rejoinder.cli.llms import Model
    from rejoinder.cli.screen import Screen
    from rejoinder.conversation import Conversation
    from rejoinder.llm.chat_context import ChatContext, FunctionCall, ImageContent
    from rejoinder.llm.llm import LLMError
    from rejoinder.metrics import LLMMetrics
    from rejoinder.store import StoreError
    from rejoinder.turn import Turn
    from rejoinder.types import APIConnectOptions

__all__ = ["SILENCE", "Talk", "patience_for"]

SILENCE: Final = 60.0
"""Seconds that a provider may be silent. Models that think first need more than a voice agent
allows."""
_CONNECT: Final = 10.0
_RETRIES: Final = 2
_MEASURABLE: Final = 0.02
"""Shortest duration in seconds for which a speed is meaningful."""
_TELL_AFTER: Final = 1.0
"""Seconds of silence before the screen shows what the session is waiting for."""


def patience_for(timeout: float | None, *, local: bool) -> APIConnectOptions:
    """Retries and deadlines of each request.

    Args:
        timeout: seconds the model may be silent; default `SILENCE`, and for a model on this machine
            its own, longer limits.
        local: whether the model runs on this machine.
    """
    from rejoinder.types import DEFAULT_API_CONNECT_OPTIONS, APIConnectOptions

    if timeout is None and local:
        return DEFAULT_API_CONNECT_OPTIONS
    silence = SILENCE if timeout is None else timeout
    return APIConnectOptions(max_retry=_RETRIES, timeout=silence, connect=min(_CONNECT, silence))


class Talk:
    """One model and one history. Everything but the constructor, `interrupt`, `clear` and
    `describe_tools` runs on the loop.

    Args:
        model: the model.
        screen: receives the notes.
        shown: receives the reply; default the screen.
        system: instructions; may be empty.
        tools: the tools that the model may call.
        tool_choice: as in `LLM.chat`; ``None`` omits it.
        tool_timeout: seconds a tool may run.
        timeout: seconds the model may be silent; default `SILENCE`, and no limit for a model that
            runs on this machine.
        schema: the schema of answers.
        approve: called for approval before a tool runs; ``None``: tools run without approval.

    Attributes:
        model: the model, with its name on the command line.
        llm: the LLM that answers.
        kept: the conversation in its store; ``None`` if it is not kept.
        interrupted: whether the last reply was stopped.
    """

    def __init__(
        self,
        model: Model,
        screen: Screen,
        *,
        shown: Shown | None = None,
        system: str,
        tools: list[Any],
        tool_choice: Any,
        tool_timeout: float,
        timeout: float | None = None,
        schema: AnswerSchema | None = None,
        approve: Callable[[FunctionCall], Awaitable[bool]] | None = None,
    ) -> None:
        from rejoinder.llm.chat_context import ChatContext

        self.interrupted = False
        self.kept: Conversation | None = None
        self._screen = screen
        self._shown = shown or TextShown(screen)
        self._schema = schema
        self._approve = approve
        self._asking = False
        self._timeout = timeout
        self._system = system
        self._tools = tools
        self._choice = tool_choice
        self._tool_timeout = tool_timeout
        self._ctx = ChatContext.empty()
        self._metrics: list[LLMMetrics] = []
        self._turn: Turn | None = None
        self._left: list[Turn] = []
        self._stopping = asyncio.Event()
        self._quiet_since = 0.0
        self._warming: asyncio.Task[None] | None = None
        self._open: list[Any] = []
        self.clear()
        self._use(model)

    def _use(self, model: Model) -> None:
        self.model = model
        self.llm = model.llm
        self._load = model.load
        self._patience = patience_for(self._timeout, local=model.load is not None)
        self.llm.on("metrics_collected", self._metrics.append)
        self.llm.on("error", self._failed)

    # -- beginning and end -------------------------------------------------------------------

    async def open(self, servers: list[str]) -> None:
        """Prepare the model and the tool servers.

        Raises:
            CommandError: a tool server does not start, or a tool cannot be used.
            APIError: the model is not available.
        """
        self._tools = await connect_servers(
            servers, self._tools, tool_timeout=self._tool_timeout, screen=self._screen,
            opened=self._open,
        )  # fmt: skip
        self._check_tools()
        await self._ready(self.model)

    async def _ready(self, model: Model) -> None:
        """Load a local model. First print a notice of the files to fetch, including those that a
        fallback may fetch later."""
        for name in (model.name, *model.fallbacks):
            notice = fetch_notice(name)
            if notice is not None:
                self._screen.note(notice)
        if model.load is None:
            return
        self._screen.passing("loading the model")
        await model.load()
        self._screen.clear()

    async def change_model(self, model: Model) -> None:
        """Continue with another model.

        Raises:
            APIError: it is not available; the current one stays.
        """
        before = self.llm
        try:
            await self._ready(model)
        except BaseException:
            await model.llm.aclose()
            raise
        finally:
            self._screen.clear()
        if self._warming is not None:
            self._warming.cancel()
            self._warming = None
        self._use(model)
        await before.aclose()
        await self.note_facts()

    def _check_tools(self) -> None:
        from rejoinder.llm.tool_context import ToolContext

        try:
            names = list(ToolContext(self._tools).function_tools)
        except ValueError as error:
            raise CommandError(f"the tools cannot be used: {error}") from error
        choice = self._choice
        if isinstance(choice, dict) and choice["function"]["name"] not in names:
            raise CommandError(
                f"--tool-choice: unknown tool {choice['function']['name']!r} "
                f"(available: {', '.join(names) or 'none'})"
            )
        if choice not in (None, "auto", "none") and not names:
            raise CommandError("--tool-choice: no tools are offered")

    async def warm_up(self) -> None:
        """Let a local model process instructions and tools while the user types. Returns at
        once."""
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

    # -- the history -------------------------------------------------------------------------

    @property
    def items(self) -> list[Any]:
        """The history."""
        return self._ctx.items

    @property
    def system(self) -> str:
        """The instructions."""
        found = self._instructions()
        return "" if found is None else found.text_content or ""

    def _instructions(self) -> Any:
        for item in self._ctx.items:
            if item.type == "message" and item.role in ("system", "developer"):
                return item
        return None

    def clear(self) -> None:
        """Forget the conversation."""
        from rejoinder.llm.chat_context import ChatContext

        self._ctx = ChatContext.empty()
        if self._system:
            self._ctx.add_message(role="system", content=self._system)

    def instruct(self, text: str) -> None:
        """Replace the instructions from now on; empty for none."""
        from rejoinder.llm.chat_context import ChatMessage

        self._system = text
        before = self._instructions()
        items = [item for item in self._ctx.items if item is not before]
        if text:
            items.insert(0, ChatMessage(role="system", content=[text]))
        self._ctx.items = items

    def use_context(self, chat_ctx: ChatContext) -> None:
        """Continue with the history of `chat_ctx`, including its own instructions if it has any."""
        self._ctx = chat_ctx
        if self._instructions() is None and self._system:
            self.instruct(self._system)

    async def keep(self, conversation: Conversation) -> None:
        """Continue a conversation of a store, and keep its new messages there.

        Raises:
            StoreError: the store cannot be used.
        """
        chat_ctx = await conversation.load()
        self.kept = conversation
        if chat_ctx.items:
            self.use_context(chat_ctx)
        else:
            chat_ctx.items = self._ctx.items[:]
            self._ctx = chat_ctx

    async def note_facts(self) -> None:
        """Record the model in the store."""
        facts = {"model": self.model.name, "base_url": self.model.base_url}
        if self.kept is not None and not facts.items() <= self.kept.about.items():
            await self._kept_or_told(self.kept.describe(**facts))

    async def _kept_or_told(self, work: Awaitable[Any]) -> None:
        from rejoinder.store import StoreError

        try:
            await work
        except StoreError as error:
            self.not_kept(error)

    def not_kept(self, error: StoreError) -> None:
        """The store cannot be used: continue without it."""
        self.kept = None
        self._screen.error(f"from now on the conversation is not kept: {error}")

    def forget_last_reply(self) -> bool:
        """Remove everything after the last user message. Returns whether there is one."""
        items = self._ctx.items
        for place in range(len(items) - 1, -1, -1):
            item = items[place]
            if item.type == "message" and item.role == "user":
                del items[place + 1 :]
                return True
        return False

    def describe_tools(self) -> str:
        """The tools, one per line."""
        from rejoinder.llm.tool_context import (
            ToolContext,
            get_function_info,
            get_raw_function_info,
            is_raw_function_tool,
        )

        lines: list[str] = []
        for name, tool in ToolContext(self._tools).function_tools.items():
            if is_raw_function_tool(tool):
                description = str(get_raw_function_info(tool).raw_schema.get("description") or "")
            else:
                description = get_function_info(tool).description or ""
            lines.append(f"{name}  {one_line(description, 100)}".rstrip() + f"  [{_origin(tool)}]")
        return "\n".join(lines) or "The model has no tools."

    # -- a turn ------------------------------------------------------------------------------

    async def say(self, text: str, *, images: Sequence[ImageContent] = ()) -> None:
        """Send `text`, and write the reply as it arrives.

        Raises:
            APIError: the model failed; if no part of a reply arrived, `text` is removed from the
                history.
            ConfigurationError: the request is not possible with these options.
        """
        before = len(self._ctx.items)
        self._ctx.add_message(role="user", content=[text, *images])
        try:
            await self.reply()
        except (APIError, ConfigurationError):
            if self._shown.first is None:
                del self._ctx.items[before:]
                if self.kept is not None:
                    await self._kept_or_told(self.kept.sync())
            raise

    async def reply(self) -> None:
        """Answer the last message.

        Raises:
            APIError: the model failed.
            ConfigurationError: the request is not possible with these options.
            CommandError: the conversation could not be kept in the middle of the reply.
        """
        from rejoinder.store import ConflictError, StoreError
        from rejoinder.turn import Done, Text, Thinking, ToolStarted, run_turn
        from rejoinder.types import NOT_GIVEN

        begun = lost = False
        self.interrupted = False
        screen, shown = self._screen, self._shown
        shown.begin()
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
                response_format=NOT_GIVEN if self._schema is None else self._schema.data,
                approve=None if self._approve is None else self._ask,
                journal=self.kept,
            )
            async with turn:
                self._turn = turn
                if self._stopping.is_set():
                    turn.interrupt()
                async for event in turn:
                    if not isinstance(event, Thinking):
                        self._quiet_since = time.monotonic()
                    begun = begun or isinstance(event, Text | ToolStarted)
                    shown.take(event)
                    if isinstance(event, Done):
                        self.interrupted = event.reason == "interrupted"
            if turn.running:
                self._left.append(turn)
        except ConflictError as error:
            where = "" if self.kept is None else f" (in a chat: /load {self.kept.id})"
            raise CommandError(extended(str(error), where), Exit.FAILED) from error
        except OutputMismatchError as error:
            if self._schema is None:
                raise
            message = f"the answer does not fit {self._schema.option}: {error.__cause__}"
            raise OutputMismatchError(
                message, body=error.body, retryable=False
            ) from error.__cause__
        except StoreError as error:
            self.not_kept(error)
            lost = True
        finally:
            telling.cancel()
            self._turn = None
            self._stopping.clear()
            shown.end()
        if lost and begun:
            raise CommandError("the reply broke off when it could not be kept", Exit.FAILED)
        if lost:
            await self.reply()  # no request was sent yet
            return
        if self.interrupted:
            screen.note("[interrupted]")
        if self._metrics:
            screen.note(f"[{render_stats(self._stats(shown.first))}]")

    async def _ask(self, call: FunctionCall) -> bool:
        assert self._approve is not None  # noqa: S101
        self._asking = True
        self._screen.end_line()  # the question is not a part of the reply
        try:
            return await self._approve(call)
        finally:
            self._asking = False
            self._quiet_since = time.monotonic()

    async def _warmed(self) -> None:
        """Wait until the model has processed the prompt, or until the reply is interrupted."""
        if self._warming is None:
            return
        stopped = asyncio.create_task(self._stopping.wait(), name="stopped")
        await asyncio.wait((self._warming, stopped), return_when=asyncio.FIRST_COMPLETED)
        stopped.cancel()
        if self._warming.done():
            self._warming = None

    async def _tell_waiting(self) -> None:
        """After a second of silence, show what the session is waiting for."""
        began = self._quiet_since = time.monotonic()
        while True:
            await asyncio.sleep(_TELL_AFTER)
            now = time.monotonic()
            if now - self._quiet_since >= _TELL_AFTER and not self._asking:
                self._screen.passing(f"{self._shown.doing} ({now - began:.0f} s; Ctrl-C stops it)")

    async def settle(self) -> None:
        """Wait for tools that could not be stopped: they may be in the middle of an operation."""
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
        self._screen.notice("A tool cannot be stopped. Press Ctrl-C again to leave.")

    def _stats(self, first: float | None) -> Stats:
        metrics = self._metrics
        costs = [m.cost for m in metrics]
        return Stats(
            first=first,
            speed=_speed(metrics[-1]) if first is not None else None,
            prompt=sum(m.prompt_tokens for m in metrics),
            cached=sum(m.prompt_cached_tokens for m in metrics),
            completion=sum(m.completion_tokens for m in metrics),
            estimated=any(m.estimated for m in metrics),
            cost=None if None in costs else sum(cost for cost in costs if cost is not None),
        )

    def _failed(self, error: LLMError) -> None:
        if error.recoverable:
            cause = error.error
            text = render_error(cause) if isinstance(cause, APIError) else str(cause)
            self._screen.note(f"trying again: {one_line(text)}")


def _origin(tool: Any) -> str:
    """The origin of a tool: its MCP server, or its module."""
    mcp = sys.modules.get("rejoinder.llm.mcp")
    origin = mcp.tool_origin(tool) if mcp is not None else None
    return one_line(origin or str(getattr(tool, "__module__", "this program")), 100)


def _speed(metrics: LLMMetrics) -> float | None:
    """Tokens per second of the last request, which has a text answer. Reasoning tokens come before
    the first text and do not count."""
    seconds = metrics.duration - metrics.ttft
    tokens = metrics.completion_tokens - metrics.reasoning_tokens
    if metrics.ttft < 0 or seconds < _MEASURABLE or tokens < 2:
        return None
    return (tokens - 1) / seconds
