"""One turn of a conversation: ask the model, run the tools it calls, ask again, until it answers.

`run_turn` returns typed events, the base for a command line, a voice loop or a web page. The chat
context is legal at every moment: a call is appended together with its output, which reports the
call as running and is rewritten when the tool has finished (see `rejoinder.llm._tool_runs`).
"""

from __future__ import annotations

import asyncio
import contextlib
import inspect
import logging
import weakref
from collections import deque
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from types import TracebackType
from typing import TYPE_CHECKING, Any, Generic, TypeAlias, cast

from rejoinder import _stamps
from rejoinder._aio import end
from rejoinder._core.chunks import ChatChunk, CompletionUsage, FunctionToolCall, sum_usage
from rejoinder._core.collecting import is_restart, merge_extra
from rejoinder._core.items import ChatMessage, FunctionCall, FunctionCallOutput
from rejoinder._core.realtime.commit import SOUND, UNTIL, commit_heard
from rejoinder._core.tools import RunContext, ToolChoice
from rejoinder._core.turn_events import (
    Done,
    OutputT,
    Partial,
    Reason,
    Restarted,
    Text,
    Thinking,
    Usage,
)
from rejoinder._options import (
    ANYTHING,
    CONNECT,
    COUNT,
    FLAG,
    FUNCTION,
    SECONDS,
    WHOLE,
    WrongTypeError,
    checked,
    instance,
    mapping,
)
from rejoinder._sections import explained
from rejoinder.errors import OutputMismatchError
from rejoinder.llm._journal import NO_JOURNAL, Journal
from rejoinder.llm._option_rules import TOOL_CHOICE, TOOLS
from rejoinder.llm._tool_runs import (
    CLOSE_TIMEOUT,
    Approve,
    ToolEvent,
    ToolFinished,
    ToolPaused,
    ToolRuns,
    ToolStarted,
    call_items,
    detach,
    waiting_calls,
)
from rejoinder.llm.chat_context import ChatContext
from rejoinder.llm.llm import LLM, LLMStream
from rejoinder.llm.tool_context import Tool, ToolContext
from rejoinder.types import (
    DEFAULT_API_CONNECT_OPTIONS,
    NOT_GIVEN,
    APIConnectOptions,
    NotGiven,
    NotGivenOr,
    is_given,
)

if TYPE_CHECKING:
    from typing import Self

    from rejoinder._core.realtime.heard import SoundMap
    from rejoinder.llm._typed_answer import TypedAnswer
    from rejoinder.telemetry import TurnSpan

__all__ = [
    "Done",
    "Journal",
    "Partial",
    "Restarted",
    "Text",
    "Thinking",
    "ToolFinished",
    "ToolPaused",
    "ToolStarted",
    "Turn",
    "TurnEvent",
    "Usage",
    "pending_approvals",
    "run_turn",
]

logger = logging.getLogger("rejoinder")

for _public in (
    Done, Journal, Partial, Restarted, Text, Thinking, ToolFinished, ToolPaused, ToolStarted, Usage,
):  # fmt: skip
    _public.__module__ = __name__


TurnEvent: TypeAlias = (
    Text
    | Partial
    | Thinking
    | Restarted
    | ToolStarted
    | ToolFinished
    | ToolPaused
    | Usage
    | Done[OutputT]
)

_LLM = instance(LLM, expected='an LLM, such as `rejoinder.create("openai/gpt-4.1")`')
_JOURNAL = instance(Journal, expected="a Journal, such as a `Conversation`")
_CHAT_CTX = instance(ChatContext, str, expected="a ChatContext or the user's text")


@checked(
    llm=_LLM,
    tools=TOOLS.optional,
    tool_choice=TOOL_CHOICE.optional,
    chat_ctx=_CHAT_CTX,
    max_steps=COUNT,
    max_repeats=COUNT,
    max_concurrency=COUNT.optional,
    max_output_retries=WHOLE,
    response_format=ANYTHING,  # `output_type` knows what describes something
    tool_timeout=SECONDS.optional,
    parallel_tool_calls=FLAG.optional,
    conn_options=CONNECT,
    extra_kwargs=mapping().optional,
    make_context=FUNCTION.optional,
    approve=FUNCTION.optional,
    journal=_JOURNAL.optional,
)
def run_turn(
    llm: LLM[Any],
    chat_ctx: ChatContext | str,
    *,
    tools: Sequence[Tool] | ToolContext | None = None,
    max_steps: int = 8,
    tool_choice: NotGivenOr[ToolChoice] = NOT_GIVEN,
    parallel_tool_calls: NotGivenOr[bool] = NOT_GIVEN,
    response_format: NotGivenOr[type[OutputT] | Mapping[str, Any] | None] = NOT_GIVEN,
    max_output_retries: int = 2,
    conn_options: APIConnectOptions = DEFAULT_API_CONNECT_OPTIONS,
    extra_kwargs: NotGivenOr[dict[str, Any]] = NOT_GIVEN,
    userdata: Any = None,
    make_context: Callable[[FunctionCall], Any] | None = None,
    tool_timeout: float | None = None,
    max_concurrency: int | None = None,
    max_repeats: int = 3,
    approve: Approve | None = None,
    journal: Journal | None = None,
    **chat_options: Any,
) -> Turn[OutputT]:
    """Let the model answer, with as many tool calls as it needs. Iterate over the result.

    Calls of one reply run concurrently; their outputs stand in the context in the order of the
    calls. The turn ends when the model calls nothing more, when a tool raises `StopResponse`, or
    at the step limit, with a last answer for which no tool may be called.

    Leaving it early (``aclose``, the end of ``async with``, cancelling the task that iterates, or
    `Turn.interrupt`) cuts it: the text so far is kept as an interrupted message, and running tools
    are cancelled. Tools that are not interruptible finish, and their results still enter the
    context.

    Args:
        llm: the model.
        chat_ctx: the conversation; the turn appends its messages and calls to it. A string is the
            user's message in a new one, `Turn.chat_ctx`.
        tools: tools for the model. A list is read again at every step, so a toolset may change.
        max_steps: how many requests may end in tool calls.
        tool_choice: for the first request; a forced choice is not repeated for the later ones.
        parallel_tool_calls: whether several calls may come in one reply.
        response_format: the type of the answer: a pydantic model, a TypedDict, a dataclass or
            another type that pydantic can validate; or a JSON schema. The answer is in
            `Done.output`; `Partial` events show it as it grows.
        max_output_retries: how often the model is asked again with the errors if its answer does
            not fit. Wrong answers do not enter the context, except for the last one.
        conn_options: retries and deadlines of each request.
        extra_kwargs: further parameters of each request, in the provider's own names.
        userdata: available to tools as `RunContext.userdata`.
        make_context: makes the value of tools' context parameters, instead of a `RunContext`.
        tool_timeout: seconds for tools that set none of their own.
        max_concurrency: how many tools may run at once; default all of one reply.
        max_repeats: how often the same call may give the same output in a turn. Further repeats
            are refused with an explanation, and a model that only repeats has to answer.
        approve: called with each call before its tool runs, unless the tool is declared
            ``effects=False``; may be ``async``. It returns True to run the tool, False or a reason
            to refuse the call, or ``None`` to leave the decision open: the turn then ends with
            ``Done("paused")``, the context can be stored, and the next turn on it asks `approve`
            about these calls first (see `pending_approvals`). If `approve` fails, the call is
            refused.
        journal: records the turn while it runs, such as a `Conversation`: after a crash at any
            moment the conversation continues where it was, and no call runs twice.
        chat_options: further arguments of ``llm.chat``, which only some providers have.

    Raises:
        ConfigurationError: an option has a wrong type or value (wrong types are `TypeError`s too),
            or `llm` does not know it.
        ValueError: two tools have one name, or `chat_ctx` is read-only.
        StoreError: (while iterating) `journal` cannot record the turn.
        APIError: (while iterating) a request failed, or the answers did not fit `response_format`
            (`OutputMismatchError`); the context is legal nevertheless.
    """
    if isinstance(chat_ctx, str):
        text, chat_ctx = chat_ctx, ChatContext.empty()
        chat_ctx.add_message(role="user", content=text)
    if chat_ctx.readonly:
        raise ValueError(
            "run_turn: the chat context is read-only; run the turn on a `.copy()` of it"
        )
    answer: TypedAnswer | None = None
    if response_format is not None and not isinstance(response_format, NotGiven):
        from rejoinder.llm._typed_answer import TypedAnswer

        answer = TypedAnswer(response_format, max_output_retries)
        chat_options["response_format"] = response_format
    for name in chat_options:
        _check_chat_option(llm, name)
    return Turn(
        llm,
        chat_ctx,
        tools=tools,
        max_steps=max_steps,
        tool_choice=tool_choice,
        request={
            "conn_options": conn_options,
            "parallel_tool_calls": parallel_tool_calls,
            "extra_kwargs": extra_kwargs,
            **chat_options,
        },
        answer=answer,
        tool_runs=partial(
            ToolRuns,
            make_context=make_context or partial(RunContext, userdata=userdata),
            timeout=tool_timeout,
            max_concurrency=max_concurrency,
            max_repeats=max_repeats,
            approve=approve,
            journal=journal,
        ),
        journal=journal,
        resume=waiting_calls(chat_ctx.items) if approve is not None else [],
    )


def _check_chat_option(llm: LLM[Any], name: str) -> None:
    if not llm.takes_option(name):
        parameters = inspect.signature(llm.chat).parameters
        raise WrongTypeError(
            f"run_turn: {type(llm).__qualname__}.chat has no parameter {name!r}; it has "
            f"{', '.join(parameters)} (parameters of the provider's API go into extra_kwargs)"
        )


@checked()
def pending_approvals(chat_ctx: ChatContext) -> list[FunctionCall]:
    """The calls in `chat_ctx` that a paused turn has left waiting for approval."""
    return [call for call, _ in waiting_calls(chat_ctx.items)]


# `list` itself: calling `list[str]` costs a hidden exception.
_no_list = cast("Callable[[], list[Any]]", list)
_no_dict = cast("Callable[[], dict[str, Any]]", dict)


@dataclass(slots=True)
class _Reply:
    """The results of one request so far."""

    text: list[str] = field(default_factory=_no_list)
    calls: list[FunctionToolCall] = field(default_factory=_no_list)
    extra: dict[str, Any] = field(default_factory=_no_dict)
    usage: CompletionUsage | None = None


def _total(bill: Sequence[float | None]) -> float | None:
    """The sum; ``None`` if a part of it is not known."""
    known = [cost for cost in bill if cost is not None]
    return sum(known) if known and len(known) == len(bill) else None


class Turn(Generic[OutputT]):
    """A turn in progress; made by `run_turn`.

    Iterate over it for its events, in one task, preferably inside ``async with``, which cuts the
    turn if it is not over at the end. Cancelling a task that waits for an event cuts the turn too.
    """

    def __init__(
        self,
        llm: LLM[Any],
        chat_ctx: ChatContext,
        *,
        tools: Sequence[Tool] | ToolContext | None,
        max_steps: int,
        tool_choice: NotGivenOr[ToolChoice],
        request: dict[str, Any],
        answer: TypedAnswer | None,
        tool_runs: Callable[..., ToolRuns],
        journal: Journal | None,
        resume: list[tuple[FunctionCall, FunctionCallOutput]],
    ) -> None:
        self._loop: asyncio.AbstractEventLoop | None = None  # first: `__del__` reads it
        self._llm = llm
        self._chat_ctx = chat_ctx
        self._tools = tools
        self._tool_ctx = self._read_tools()
        self._max_steps = max_steps
        self._tool_choice: NotGivenOr[ToolChoice] = tool_choice
        self._request = request
        self._answer = answer
        # Weakly: a turn that is dropped ends at once, without waiting for the garbage collector.
        self._runs = tool_runs(on_event=_weakly(self._saw))
        self._journal = NO_JOURNAL  # until the turn has begun, and for good if it may not begin
        self._unbegun: Journal | None = journal or NO_JOURNAL
        self._resume = resume

        self._events: deque[TurnEvent[OutputT]] = deque()
        self._wake: asyncio.Event = asyncio.Event()
        self._stream: LLMStream | None = None
        self._reply = _Reply()
        self._closing: list[asyncio.Task[None]] = []
        self._message: ChatMessage | None = None
        self._said: list[str] = []
        self._usage: CompletionUsage | None = None
        self._bill: list[float | None] = []
        self._billed = 0  # costs of the present stream that are counted
        self._steps = 0
        self._last_step = False
        self._ended = False
        self._pulled = False
        self._span: TurnSpan | None = None

    # -- consuming ---------------------------------------------------------------------------

    @property
    def chat_ctx(self) -> ChatContext:
        """The conversation that the turn is written into."""
        return self._chat_ctx

    @property
    def done(self) -> bool:
        """Whether the turn is over (tools that must not be interrupted may still run)."""
        return self._ended

    def __aiter__(self) -> AsyncIterator[TurnEvent[OutputT]]:
        return self

    async def __anext__(self) -> TurnEvent[OutputT]:
        if self._pulled:
            raise RuntimeError("another task is already waiting for the next event of this turn")
        self._pulled = True
        try:
            while not self._events:
                if self._ended:
                    raise StopAsyncIteration
                stream = self._stream
                if stream is None:
                    await self._between_replies()
                    continue
                try:
                    chunk = await stream.__anext__()
                except StopAsyncIteration:
                    chunk = None
                if self._stream is not stream:
                    continue  # the turn was cut meanwhile
                if chunk is not None:
                    self._take(chunk)
                else:
                    await self._stream_ended(stream)
            if isinstance(self._events[0], Done):
                await self._journal.flush()
            return self._events.popleft()
        except StopAsyncIteration:
            raise
        except BaseException as error:
            if self._span is not None and isinstance(error, Exception):
                self._span.fail(error)
            self._cut()
            self._events.clear()
            raise
        finally:
            self._pulled = False

    async def collect(self) -> Done[OutputT]:
        """Run the turn to its end, and close it.

        Raises:
            APIError: a request failed.
        """
        async with self:
            async for event in self:
                if isinstance(event, Done):
                    return event
        raise RuntimeError(explained("this turn was over already", "turn over"))

    def interrupt(self) -> None:
        """Cut the turn now: keep what was said, stop what may be stopped. The iteration ends with a
        `Done`. Returns at once; the context is whole when it returns. Idempotent."""
        self._cut()

    @checked(until=UNTIL, sound=SOUND)
    def commit_heard(self, until: float | str, *, sound: SoundMap | float | None = None) -> str:
        """Cut the turn, and keep in the context only what was heard of it; see
        `ChatContext.commit_heard`. May be called after the end, too, and again with less."""
        self._cut()
        items = self._chat_ctx.items
        heard = commit_heard(items, self._said, until, sound)
        self._journal.write(*(item for item in items if item.id in self._said))
        return heard

    async def aclose(self) -> None:
        """Cut the turn if it is not over, and wait, for a second at most, for what was stopped.

        Tools that must not be interrupted go on; see `settled`.
        """
        self._cut()
        await asyncio.gather(
            end(*self._closing, within=CLOSE_TIMEOUT, cancelled=True), self._runs.aclose()
        )
        try:
            await self._journal.flush()
        except Exception as error:
            logger.warning("the end of a turn could not be recorded: %s", error)

    @property
    def running(self) -> list[FunctionCall]:
        """The calls whose tools run now; after an interruption those that could not be stopped."""
        return self._runs.running

    async def settled(self) -> None:
        """Wait until every tool has finished, including those that an interruption left running."""
        await self._runs.settled()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        exc_tb: TracebackType | None,
    ) -> None:
        await self.aclose()

    def __del__(self) -> None:
        # The loop over it was left by `break`: do not let the reply stream on unread.
        loop = self._loop
        if loop is not None and not self._ended and not loop.is_closed():
            loop.call_soon_threadsafe(self._cut)

    # -- asking ------------------------------------------------------------------------------

    async def _stream_ended(self, stream: LLMStream) -> None:
        if stream.was_cut:
            # From outside, for instance with its LLM: text and calls may be incomplete.
            self._cut()
        else:
            self._stream = None
            try:
                await self._reply_ended(stream._owed())
            finally:
                await stream.aclose()

    async def _between_replies(self) -> None:
        if (journal := self._unbegun) is not None:
            from rejoinder.telemetry import TurnSpan

            self._loop = asyncio.get_running_loop()
            self._span = TurnSpan(now=self._loop.time())
            self._unbegun = None
            await journal.begin(self._chat_ctx)
            self._journal = journal
            if self._ended:
                journal.end("interrupted")
                return
        if self._runs.pending:
            self._wake.clear()
            await self._wake.wait()
        elif self._resume:
            waiting, self._resume = self._resume, []
            if self._tool_choice not in ("auto", "none"):
                self._tool_choice = NOT_GIVEN  # a forced choice was for the reply that called
            self._runs.resume(waiting, self._tool_ctx)
            self._start_tools()
        else:
            await self._journal.flush()
            if not self._ended:
                self._ask()

    def _read_tools(self) -> ToolContext:
        tools = self._tools
        return tools if isinstance(tools, ToolContext) else ToolContext(list(tools or ()))

    def _ask(self) -> None:
        if self._steps > 0:
            self._tool_ctx = self._read_tools()
        flat = self._tool_ctx.flatten()
        choice = self._tool_choice
        corrections = [] if self._answer is None else self._answer.corrections
        if self._last_step or corrections:
            choice = "none"
        elif self._steps > 0 and is_given(choice) and choice not in ("auto", "none"):
            choice = NOT_GIVEN  # a forced call has been made; forced again, it would never end
        self._steps += 1
        self._billed = 0
        self._begin_reply()
        chat_ctx = self._chat_ctx
        if corrections:
            chat_ctx = ChatContext([*chat_ctx.items, *corrections])
        # Everything that is started here belongs to the trace of the turn.
        with contextlib.nullcontext() if self._span is None else self._span.current():
            self._stream = self._llm.chat(
                chat_ctx=chat_ctx,
                tools=flat or None,
                tool_choice=choice if flat else NOT_GIVEN,
                **self._request,
            )

    def _begin_reply(self) -> None:
        self._reply = _Reply()
        self._journal.said(None)
        if self._answer is not None:
            self._answer.begin()

    def _take(self, chunk: ChatChunk) -> None:
        delta = chunk.delta
        if delta is not None:
            # A look at a field of a model costs more than the rest of this: `__dict__` has them all.
            fields = delta.__dict__
            extra, thinking, content = fields["extra"], fields["thinking"], fields["content"]
            if extra and is_restart(delta):
                self._count(self._reply, [] if self._stream is None else self._stream._costs())
                self._events.append(Restarted("".join(self._reply.text)))
                self._begin_reply()
            if thinking:
                self._events.append(Thinking(thinking))
            if content:
                self._reply.text.append(content)
                self._events.append(Text(content))
                self._journal.said(content)
                if self._answer is not None:
                    value = self._answer.feed(content)
                    if value is not None:
                        self._events.append(Partial(value))
            if calls := fields["tool_calls"]:
                self._reply.calls.extend(calls)
            if extra:
                merge_extra(self._reply.extra, {k: v for k, v in extra.items() if k != "rejoinder"})
        if chunk.usage is not None:
            self._reply.usage = chunk.usage  # the last one counts: some count again in each chunk

    def _count(self, reply: _Reply, owed: Sequence[float | None]) -> None:
        """Note what a reply took. `owed`: the cost of each request of its stream so far."""
        bill = owed[self._billed :]
        self._billed = len(owed)
        self._bill += bill
        if reply.usage is not None:
            self._usage = sum_usage(self._usage, reply.usage)
            self._events.append(Usage(reply.usage))
            self._journal.used(self._llm.model, reply.usage, _total(bill))

    async def _reply_ended(self, owed: Sequence[float | None]) -> None:
        reply = self._reply
        self._count(reply, owed)
        answer = self._answer
        must_answer = self._last_step or (answer is not None and bool(answer.corrections))
        if reply.calls and not must_answer:
            self._call(reply.calls, self._say(reply, interrupted=False))
            return
        text = "".join(reply.text)
        try:
            fits = answer is None or await answer.read(text)
        except OutputMismatchError:
            self._say(reply, interrupted=False, keep_state=not reply.calls)
            raise
        if fits:
            self._message = self._say(reply, interrupted=False, keep_state=not reply.calls)
            self._finish("max_steps" if self._last_step else "complete")
        else:
            self._events.append(Restarted(text))

    def _say(
        self, reply: _Reply, *, interrupted: bool, keep_state: bool = True
    ) -> ChatMessage | None:
        text = "".join(reply.text)
        if not text.strip():
            return None
        message = ChatMessage(
            role="assistant",
            content=[text],
            interrupted=interrupted,
            extra=reply.extra if keep_state else {},
        )
        self._chat_ctx.items.append(message)
        self._journal.write(message)
        self._said.append(message.id)
        return message

    def _finish(self, reason: Reason) -> None:
        self._ended = True
        output = None if self._answer is None else self._answer.value
        cost = _total(self._bill)
        self._events.append(
            Done(reason, self._message, self._steps, self._usage, output, cost=cost)
        )
        self._journal.end(reason)
        self._wake.set()
        if self._span is not None and self._loop is not None:
            message = self._message
            self._span.finish(
                reason=reason,
                steps=self._steps,
                said=lambda: (message.text_content or "") if message is not None else "",
                now=self._loop.time(),
            )

    # -- running tools -----------------------------------------------------------------------

    def _call(self, calls: Sequence[FunctionToolCall], message: ChatMessage | None) -> None:
        self._message = message
        items = call_items(
            calls,
            taken=(item.call_id for item in self._chat_ctx.items if item.type == "function_call"),
            group_id=message.id if message is not None else _stamps.new_id("item_"),
        )
        if message is None and self._reply.extra:
            merge_extra(items[0].extra, self._reply.extra)
        outputs = self._runs.plan(items, self._tool_ctx)
        self._chat_ctx.items.extend([*items, *outputs])
        self._journal.write(*items, *outputs, planned=True)
        self._start_tools()

    def _start_tools(self) -> None:
        with contextlib.nullcontext() if self._span is None else self._span.current():
            self._runs.start()

    def _saw(self, event: ToolEvent) -> None:
        if self._ended:
            return
        self._events.append(event)
        self._wake.set()
        if isinstance(event, ToolStarted) or self._runs.pending:
            return
        if self._runs.paused:
            self._finish("paused")
        elif self._runs.stop_requested:
            self._finish("stop_response")
        elif self._steps >= self._max_steps or self._runs.only_repeats():
            self._last_step = True

    # -- cutting -----------------------------------------------------------------------------

    def _cut(self) -> None:
        """Stop everything that may be stopped, and leave a whole context. Never waits."""
        if self._ended:
            return
        stream, self._stream = self._stream, None
        if stream is not None:
            # Calls of an unfinished reply are not run, and the provider's state belongs to them.
            self._count(self._reply, stream._owed())
            self._message = self._say(self._reply, interrupted=True, keep_state=False)
            loop = self._loop or asyncio.get_running_loop()
            closing = loop.create_task(_close(stream), name="close a reply")
            self._closing.append(closing)
            detach(closing)
        self._events.extend(self._runs.cut())
        self._finish("interrupted")


async def _close(stream: LLMStream) -> None:
    try:
        await stream.aclose()
    except Exception:  # of a subclass: nothing receives it
        logger.exception("%s could not be closed", type(stream).__qualname__)


def _weakly(method: Callable[[ToolEvent], None]) -> Callable[[ToolEvent], None]:
    reference = weakref.WeakMethod(method)

    def call(event: ToolEvent) -> None:
        target = reference()
        if target is not None:
            target(event)

    return call
