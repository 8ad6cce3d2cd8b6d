"""One turn of a conversation: ask, run the tools that are asked for, ask again, until it is said.

`run_turn` gives typed events, so that a command line, a voice loop or a web page can be built on
it. What was said and done is in the context, whole at every moment: a call is appended together
with an answer that says it is running, and that answer is rewritten when the tool has finished.
So every call has exactly one output, whatever is cancelled when.
"""

from __future__ import annotations

import asyncio
import json
import logging
from collections import deque
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass, field
from types import TracebackType
from typing import TYPE_CHECKING, Any, Final, Literal, TypeAlias, cast

from rejoinder import _stamps
from rejoinder._core.chunks import ChatChunk, CompletionUsage, FunctionToolCall
from rejoinder._core.items import ChatMessage, FunctionCall, FunctionCallOutput
from rejoinder._core.tools import RunContext, ToolChoice
from rejoinder.llm._execution import FunctionCallResult, execute_function_call, runs_in_thread
from rejoinder.llm.chat_context import ChatContext
from rejoinder.llm.llm import LLM, LLMStream, is_restart, merge_extra
from rejoinder.llm.tool_context import Tool, ToolContext, get_tool_options
from rejoinder.types import (
    DEFAULT_API_CONNECT_OPTIONS,
    NOT_GIVEN,
    APIConnectOptions,
    NotGivenOr,
    is_given,
)

if TYPE_CHECKING:
    from typing import Self

__all__ = [
    "Done",
    "Restarted",
    "Text",
    "Thinking",
    "ToolFinished",
    "ToolStarted",
    "Turn",
    "TurnEvent",
    "Usage",
    "run_turn",
]

logger = logging.getLogger("rejoinder")

STILL_RUNNING: Final = "Still running; the result is not there yet"
NOT_STARTED: Final = "Interrupted before it was started; nothing was done"
CUT_OFF: Final = "Interrupted before it finished; it may have had an effect already"
OUR_FAILURE: Final = "Failed with an internal error; it may have had an effect already"

_CLOSE_TIMEOUT: Final = 1.0
"""Seconds that `Turn.aclose` waits for tools that do not end when they are cancelled."""


@dataclass(frozen=True, slots=True)
class Text:
    """A piece of the answer."""

    text: str


@dataclass(frozen=True, slots=True)
class Thinking:
    """A piece of the reasoning that the model shows. Not part of the answer."""

    text: str


@dataclass(frozen=True, slots=True)
class Restarted:
    """A model broke off, and another one answers from the start: the text of this request so far
    does not count (a `FallbackAdapter` with ``on_cut="restart"``)."""

    discard: str


@dataclass(frozen=True, slots=True)
class ToolStarted:
    """A tool runs now."""

    call: FunctionCall


@dataclass(frozen=True, slots=True)
class ToolFinished:
    """A call is answered: the tool returned, failed, was refused or was stopped."""

    call: FunctionCall
    output: FunctionCallOutput
    duration: float
    """Seconds from start to finish."""
    exception: BaseException | None = None
    """What the tool raised, for logs and people; the model sees only `output`."""


@dataclass(frozen=True, slots=True)
class Usage:
    """Tokens of one request of the turn."""

    usage: CompletionUsage


@dataclass(frozen=True, slots=True)
class Done:
    """The last event.

    Attributes:
        reason: ``"complete"``: the model has answered. ``"stop_response"``: a tool wanted no
            answer. ``"max_steps"``: the model was made to answer without tools, because it had
            reached the limit or kept repeating itself. ``"interrupted"``: the turn was cut.
        message: the last message of the assistant, as it is in the context, if there is one.
        steps: how many requests were made.
        usage: their tokens together; ``None`` if the provider told none.
    """

    reason: Literal["complete", "stop_response", "max_steps", "interrupted"]
    message: ChatMessage | None
    steps: int
    usage: CompletionUsage | None

    @property
    def text(self) -> str:
        """The last answer."""
        return (self.message.text_content or "") if self.message is not None else ""


TurnEvent: TypeAlias = Text | Thinking | Restarted | ToolStarted | ToolFinished | Usage | Done


def run_turn(
    llm: LLM[Any],
    chat_ctx: ChatContext,
    *,
    tools: Sequence[Tool] | ToolContext | None = None,
    max_steps: int = 8,
    tool_choice: NotGivenOr[ToolChoice] = NOT_GIVEN,
    parallel_tool_calls: NotGivenOr[bool] = NOT_GIVEN,
    conn_options: APIConnectOptions = DEFAULT_API_CONNECT_OPTIONS,
    extra_kwargs: NotGivenOr[dict[str, Any]] = NOT_GIVEN,
    userdata: Any = None,
    make_context: Callable[[FunctionCall], Any] | None = None,
    tool_timeout: float | None = None,
    max_concurrency: int | None = None,
    max_repeats: int = 3,
) -> Turn:
    """Let the model answer, with as many tool calls as it needs. Iterate over the result.

    Calls of one reply run concurrently; their outputs stand in the context in the order of the
    calls. The turn ends when the model calls nothing more, when a tool raises `StopResponse`, or
    at the step limit, with a last answer for which no tool may be called.

    Leaving it early (``aclose``, the end of ``async with``, cancelling the task that iterates, or
    `Turn.interrupt`) cuts it: the text so far is kept as an interrupted message, running tools are
    cancelled, except those that are not interruptible: they finish, and their result still enters
    the context.

    Args:
        llm: who answers.
        chat_ctx: the conversation; what is said and done is appended to it.
        tools: what the model may call. A list is read anew at every step, so a toolset may change.
        max_steps: how many requests may end in tool calls.
        tool_choice: for the first request; a forced choice is not repeated for the later ones.
        parallel_tool_calls: whether several calls may come in one reply.
        conn_options: retries and deadlines of each request.
        extra_kwargs: further parameters of each request, in the provider's own names.
        userdata: what tools find as `RunContext.userdata`.
        make_context: makes what context parameters get, instead of a `RunContext`.
        tool_timeout: seconds for tools that set none of their own.
        max_concurrency: how many tools may run at once; default all of one reply.
        max_repeats: how often the same call may give the same output in a turn; after that it is
            refused with an explanation, and a model that does nothing else has to answer.

    Raises:
        ValueError: a limit is too small, two tools have one name, or `chat_ctx` is read-only.
        APIError: (while iterating) a request failed; the context is whole nevertheless.
    """
    for name, value in (("max_steps", max_steps), ("max_repeats", max_repeats)):
        if value < 1:
            raise ValueError(f"run_turn: expected {name} of at least 1, got {value}")
    if max_concurrency is not None and max_concurrency < 1:
        raise ValueError(f"run_turn: expected max_concurrency of at least 1, got {max_concurrency}")
    if chat_ctx.readonly:
        raise ValueError(
            "run_turn: the chat context is read-only; run the turn on a `.copy()` of it"
        )
    if not isinstance(tools, ToolContext):
        ToolContext(list(tools or ()))  # complains now, not at the first event
    return Turn(
        llm,
        chat_ctx,
        tools=tools,
        max_steps=max_steps,
        max_repeats=max_repeats,
        tool_choice=tool_choice,
        request={
            "conn_options": conn_options,
            "parallel_tool_calls": parallel_tool_calls,
            "extra_kwargs": extra_kwargs,
        },
        make_context=make_context or _context_maker(userdata),
        tool_timeout=tool_timeout,
        slots=asyncio.Semaphore(max_concurrency) if max_concurrency is not None else None,
    )


def _context_maker(userdata: Any) -> Callable[[FunctionCall], RunContext[Any]]:
    return lambda call: RunContext(call, userdata=userdata)


@dataclass(eq=False, slots=True)
class _Run:
    """One call on its way."""

    call: FunctionCall
    output: FunctionCallOutput
    context: Any
    interruptible: bool
    started_at: float | None = None
    answered: bool = False
    task: asyncio.Task[None] | None = None

    def may_be_cut(self) -> bool:
        context: object = self.context
        if isinstance(context, RunContext):
            return self.interruptible and cast("RunContext[Any]", context).interruptible
        return self.interruptible

    def answer(self, text: str, *, is_error: bool, reply_required: bool = True) -> None:
        self.answered = True
        self.output.output = text
        self.output.is_error = is_error
        self.output.reply_required = reply_required


@dataclass(slots=True)
class _Reply:
    """What one request has brought so far."""

    text: list[str] = field(default_factory=list[str])
    calls: list[FunctionToolCall] = field(default_factory=list[FunctionToolCall])
    extra: dict[str, Any] = field(default_factory=dict[str, Any])
    usage: CompletionUsage | None = None


# Whoever was told to stop, or must not be stopped, and has nobody left who waits for him.
_left_running: set[asyncio.Task[Any]] = set()


def _keep(task: asyncio.Task[Any]) -> None:
    _left_running.add(task)
    task.add_done_callback(_left_running.discard)


class Turn:
    """A turn under way; made by `run_turn`.

    Iterate over it for its events, in one task. Better inside ``async with``, which cuts whatever
    is not over at the end. Cancelling a task that waits for an event cuts the turn too.
    """

    def __init__(
        self,
        llm: LLM[Any],
        chat_ctx: ChatContext,
        *,
        tools: Sequence[Tool] | ToolContext | None,
        max_steps: int,
        max_repeats: int,
        tool_choice: NotGivenOr[ToolChoice],
        request: dict[str, Any],
        make_context: Callable[[FunctionCall], Any],
        tool_timeout: float | None,
        slots: asyncio.Semaphore | None,
    ) -> None:
        self._llm = llm
        self._chat_ctx = chat_ctx
        self._tools = tools
        self._tool_ctx = ToolContext.empty()
        self._max_steps = max_steps
        self._tool_choice: NotGivenOr[ToolChoice] = tool_choice
        self._request = request
        self._make_context = make_context
        self._tool_timeout = tool_timeout
        self._slots = slots
        self._repeats = _Repeats(max_repeats)

        self._events: deque[TurnEvent] = deque()
        self._wake: asyncio.Event = asyncio.Event()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._stream: LLMStream | None = None
        self._reply = _Reply()
        self._runs: list[_Run] = []
        self._closing: list[asyncio.Task[None]] = []
        self._message: ChatMessage | None = None
        self._usage: CompletionUsage | None = None
        self._steps = 0
        self._last_step = False
        self._stop = False
        self._ended = False
        self._pulled = False

    # -- consuming ---------------------------------------------------------------------------

    @property
    def chat_ctx(self) -> ChatContext:
        """The conversation that the turn is written into."""
        return self._chat_ctx

    @property
    def done(self) -> bool:
        """Whether the turn is over (tools that must not be interrupted may still run)."""
        return self._ended

    def __aiter__(self) -> AsyncIterator[TurnEvent]:
        return self

    async def __anext__(self) -> TurnEvent:
        if self._pulled:
            raise RuntimeError("another task is already waiting for the next event of this turn")
        self._pulled = True
        try:
            while not self._events:
                if self._ended:
                    raise StopAsyncIteration
                await self._advance()
            return self._events.popleft()
        except StopAsyncIteration:
            raise
        except BaseException:
            self._cut()
            self._events.clear()
            raise
        finally:
            self._pulled = False

    async def collect(self) -> Done:
        """Run the turn to its end, and close it.

        Raises:
            APIError: a request failed.
        """
        async with self:
            async for event in self:
                if isinstance(event, Done):
                    return event
        raise RuntimeError("this turn was over already")

    def interrupt(self) -> None:
        """Cut the turn now: keep what was said, stop what may be stopped. The iteration ends with a
        `Done`. Returns at once; the context is whole when it returns. Idempotent."""
        self._cut()

    async def aclose(self) -> None:
        """Cut the turn if it is not over, and wait, a second at most, for what was stopped.

        Tools that must not be interrupted go on; see `settled`.
        """
        self._cut()
        waiting = {task for task in self._closing if not task.done()}
        waiting |= {run.task for run in self._runs if run.task and run.answered}
        waiting -= {task for task in waiting if task.done()}
        if waiting:
            _, late = await asyncio.wait(waiting, timeout=_CLOSE_TIMEOUT)
            for task in late:
                logger.error(
                    "%s did not end within %g s of being cancelled; it was left behind",
                    task.get_name(),
                    _CLOSE_TIMEOUT,
                )

    @property
    def running(self) -> list[FunctionCall]:
        """The calls whose tools run now; after an interruption those that could not be stopped."""
        return [run.call for run in self._runs if run.task is not None and not run.task.done()]

    async def settled(self) -> None:
        """Wait until every tool has finished, also those that an interruption left running."""
        tasks = [run.task for run in self._runs if run.task is not None]
        if tasks:
            await asyncio.wait(tasks)

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
        # Somebody broke out of a loop over it: do not leave the reply streaming to nobody.
        loop = getattr(self, "_loop", None)
        if loop is not None and not self._ended and not loop.is_closed():
            loop.call_soon_threadsafe(self._cut)

    # -- asking ------------------------------------------------------------------------------

    async def _advance(self) -> None:
        if self._runs_pending():
            self._wake.clear()
            await self._wake.wait()
        elif self._stream is None:
            self._ask()
        else:
            stream = self._stream
            try:
                chunk = await stream.__anext__()
            except StopAsyncIteration:
                chunk = None
            if self._stream is not stream:
                return  # the turn was cut meanwhile
            if chunk is not None:
                self._take(chunk)
            elif stream._was_cut:
                # By somebody else, with its LLM for instance: what is there is not the answer, and
                # not all of the calls.
                self._cut()
            else:
                self._stream = None
                self._reply_ended()
                await stream.aclose()

    def _ask(self) -> None:
        self._loop = asyncio.get_running_loop()
        tools = self._tools
        self._tool_ctx = tools if isinstance(tools, ToolContext) else ToolContext(list(tools or ()))
        flat = self._tool_ctx.flatten()
        choice = self._tool_choice
        if self._last_step:
            choice = "none"
        elif self._steps > 0 and is_given(choice) and choice not in ("auto", "none"):
            choice = NOT_GIVEN  # a forced call has been made; forced again, it would never end
        self._steps += 1
        self._reply = _Reply()
        self._stream = self._llm.chat(
            chat_ctx=self._chat_ctx,
            tools=list(flat) or None,
            tool_choice=choice if flat else NOT_GIVEN,
            **self._request,
        )

    def _take(self, chunk: ChatChunk) -> None:
        delta = chunk.delta
        if delta is not None:
            if delta.extra and is_restart(delta):
                self._count(self._reply)
                self._events.append(Restarted("".join(self._reply.text)))
                self._reply = _Reply()
            if delta.thinking:
                self._events.append(Thinking(delta.thinking))
            if delta.content:
                self._reply.text.append(delta.content)
                self._events.append(Text(delta.content))
            self._reply.calls.extend(delta.tool_calls)
            if delta.extra:
                merge_extra(
                    self._reply.extra, {k: v for k, v in delta.extra.items() if k != "rejoinder"}
                )
        if chunk.usage is not None:
            self._reply.usage = chunk.usage  # the last one counts: some count again in each chunk

    def _count(self, reply: _Reply) -> None:
        if reply.usage is not None:
            self._usage = _sum(self._usage, reply.usage)
            self._events.append(Usage(reply.usage))

    def _reply_ended(self) -> None:
        self._count(self._reply)
        calls = [] if self._last_step else self._reply.calls
        message = self._say(self._reply, interrupted=False, keep_state=calls == self._reply.calls)
        if not calls:
            self._message = message
            self._finish("max_steps" if self._last_step else "complete")
            return
        self._call(calls, message)

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
        return message

    def _finish(
        self, reason: Literal["complete", "stop_response", "max_steps", "interrupted"]
    ) -> None:
        self._ended = True
        self._events.append(Done(reason, self._message, self._steps, self._usage))
        self._wake.set()

    # -- running tools -----------------------------------------------------------------------

    def _call(self, calls: Sequence[FunctionToolCall], message: ChatMessage | None) -> None:
        self._message = message
        group = message.id if message is not None else _stamps.new_id("item_")
        taken = {item.call_id for item in self._chat_ctx.items if item.type == "function_call"}
        items: list[FunctionCall] = []
        for call in calls:
            call_id = call.call_id
            if not call_id or call_id in taken:
                # Some servers count their calls anew in each reply.
                call_id = _stamps.new_id("call_")
            taken.add(call_id)
            items.append(
                FunctionCall(
                    call_id=call_id,
                    name=call.name,
                    arguments=call.arguments if call.arguments.strip() else "{}",
                    extra=dict(call.extra or {}),
                    group_id=group,
                )
            )
        if message is None and self._reply.extra:
            merge_extra(items[0].extra, self._reply.extra)
        runs = [self._plan(item) for item in items]
        # In one breath: from here on there is no moment at which a call has no output.
        self._chat_ctx.items.extend([*items, *(run.output for run in runs)])
        self._runs.extend(runs)
        loop = asyncio.get_running_loop()
        for run in runs:
            if not run.answered:  # the one before may have cut the turn, where tasks start at once
                run.task = loop.create_task(self._run(run), name=f"tool {run.call.name}")
                _keep(run.task)

    def _plan(self, call: FunctionCall) -> _Run:
        output = FunctionCallOutput(
            name=call.name, call_id=call.call_id, output=STILL_RUNNING, is_error=False
        )
        tool = self._tool_ctx.get_function_tool(call.name)
        interruptible = tool is None or (
            get_tool_options(tool).interruptible and not runs_in_thread(tool)
        )
        return _Run(call, output, self._make_context(call), interruptible)

    async def _run(self, run: _Run) -> None:
        exception: BaseException | None = None
        run.task = asyncio.current_task()  # known to nobody yet, where tasks start at once
        try:
            if self._slots is None:
                result = await self._execute(run)
            else:
                async with self._slots:
                    result = await self._execute(run)
        except asyncio.CancelledError as error:
            exception = error
            if not run.answered:  # not by us: the event loop itself is shutting down
                run.answer(NOT_STARTED if run.started_at is None else CUT_OFF, is_error=True)
        except BaseException as error:
            # Not the tool's failure, which is part of the result: ours, or Ctrl-C.
            exception = error
            run.answer(OUR_FAILURE, is_error=True)
            if not isinstance(error, Exception):
                self._finished(run, error)
                raise
            logger.exception("running the tool %r failed", run.call.name)
        else:
            out = result.fnc_call_out
            run.answer(out.output, is_error=out.is_error, reply_required=out.reply_required)
            exception = result.raw_exception
            self._stop = self._stop or result.stop
        self._finished(run, exception)

    def _finished(self, run: _Run, exception: BaseException | None) -> None:
        if self._ended:
            return
        self._events.append(_finish_of(run, exception))
        self._wake.set()
        if self._runs_pending():
            return
        if self._stop:
            self._finish("stop_response")
        elif self._steps >= self._max_steps or self._repeats.only_refused():
            self._last_step = True

    async def _execute(self, run: _Run) -> FunctionCallResult:
        call = run.call
        refusal = self._repeats.refuse(call)
        if refusal is not None:
            return refusal
        run.started_at = asyncio.get_running_loop().time()
        if not self._ended:
            self._events.append(ToolStarted(call))
            self._wake.set()
        result = await execute_function_call(
            call, self._tool_ctx, call_ctx=run.context, timeout=self._tool_timeout
        )
        self._repeats.note(call, result.fnc_call_out.output)
        return result

    def _runs_pending(self) -> bool:
        return any(not run.answered for run in self._runs)

    # -- cutting -----------------------------------------------------------------------------

    def _cut(self) -> None:
        """Stop everything that may be stopped, and leave a whole context. Never waits."""
        if self._ended:
            return
        stream, self._stream = self._stream, None
        if stream is not None:
            # Calls of an unfinished reply are not run, and the provider's state belongs to them.
            self._count(self._reply)
            self._message = self._say(self._reply, interrupted=True, keep_state=False)
            loop = self._loop or asyncio.get_running_loop()
            closing = loop.create_task(_close(stream), name="close a reply")
            self._closing.append(closing)
            _keep(closing)
        for run in self._runs:
            if run.answered:
                continue
            not_started = run.started_at is None
            if not_started or run.may_be_cut():
                run.answer(NOT_STARTED if not_started else CUT_OFF, is_error=True)
                self._events.append(_finish_of(run, None))
                if run.task is not None:
                    run.task.cancel()
        self._finish("interrupted")


async def _close(stream: LLMStream) -> None:
    try:
        await stream.aclose()
    except Exception:  # of a subclass: there is nobody to tell
        logger.exception("%s could not be closed", type(stream).__qualname__)


def _finish_of(run: _Run, exception: BaseException | None) -> ToolFinished:
    now = asyncio.get_running_loop().time()
    duration = 0.0 if run.started_at is None else now - run.started_at
    return ToolFinished(run.call, run.output, duration, exception)


class _Repeats:
    """Sees a model that does the same again and again without learning anything new."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._seen: dict[tuple[str, str], tuple[int, str]] = {}
        self._ran = 0
        self._refused = 0

    def refuse(self, call: FunctionCall) -> FunctionCallResult | None:
        count, output = self._seen.get(_same_call(call), (0, ""))
        if count < self._limit:
            return None
        self._refused += 1
        text = (
            f"`{call.name}` was not run again: with these arguments it gave the same result "
            f"{count} times in this turn: {output[:500]}\n"
            "Use that result, call it with other arguments, or answer without it"
        )
        return FunctionCallResult(
            fnc_call=call,
            fnc_call_out=FunctionCallOutput(
                name=call.name, call_id=call.call_id, output=text, is_error=True
            ),
        )

    def note(self, call: FunctionCall, output: str) -> None:
        self._ran += 1
        count, last = self._seen.get(_same_call(call), (0, ""))
        self._seen[_same_call(call)] = (count + 1 if output == last else 1, output)

    def only_refused(self) -> bool:
        """Whether nothing but refused calls came since the last question."""
        answer = self._refused > 0 and self._ran == 0
        self._refused = self._ran = 0
        return answer


def _same_call(call: FunctionCall) -> tuple[str, str]:
    try:
        arguments = json.dumps(json.loads(call.arguments), sort_keys=True)
    except (ValueError, RecursionError):
        arguments = call.arguments
    return call.name, arguments


def _sum(a: CompletionUsage | None, b: CompletionUsage) -> CompletionUsage:
    if a is None:
        return b.model_copy()
    total = {
        name: getattr(a, name) + getattr(b, name)
        for name in CompletionUsage.model_fields
        if name != "service_tier"
    }
    return CompletionUsage(**total, service_tier=b.service_tier or a.service_tier)
