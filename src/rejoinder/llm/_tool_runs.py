"""`ToolRuns`: runs the tool calls of a model, with exactly one output per call at every moment.

A call is planned together with an output that reports it as running; the same object is rewritten
when the tool has finished. A caller that appends both at once keeps its history whole, whatever is
cancelled when. Turns, realtime sessions and adapters to other frameworks share this code: it knows
no LLM and no chat context.
"""

from __future__ import annotations

import asyncio
import inspect
import json
import logging
from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass
from operator import attrgetter
from typing import Any, Final, Literal, TypeAlias, cast

from rejoinder import _stamps
from rejoinder._aio import end
from rejoinder._core.chunks import FunctionToolCall
from rejoinder._core.items import FunctionCall, FunctionCallOutput
from rejoinder._core.tools import RunContext, ToolError
from rejoinder.llm._execution import (
    FunctionCallResult,
    can_run,
    execute_function_call,
    runs_in_thread,
    to_function_call,
)
from rejoinder.llm._journal import NO_JOURNAL, Journal
from rejoinder.llm.tool_context import ToolContext, get_tool_options

__all__ = [
    "Approve",
    "ToolEvent",
    "ToolFinished",
    "ToolPaused",
    "ToolRuns",
    "ToolStarted",
    "call_items",
    "detach",
    "unmark",
    "waiting_calls",
]

logger = logging.getLogger("rejoinder")

STILL_RUNNING: Final = "Still running; the result is not available yet"
NOT_STARTED: Final = "Interrupted before it was started; nothing was done"
CUT_OFF: Final = "Interrupted before it finished; it may have had an effect already"
OUR_FAILURE: Final = "Failed with an internal error; it may have had an effect already"
WAITING: Final = "Not run yet: it waits for approval"

_MARK: Final = "awaiting_approval"
"""Key in ``call.extra["rejoinder"]`` of a call whose approval is undecided. It is stored, too."""

CLOSE_TIMEOUT: Final = 1.0
"""Seconds that `ToolRuns.aclose` waits for tools that do not end when they are cancelled."""
_QUOTED: Final = 500
"""Characters of an earlier result that the refusal of a repeated call quotes."""


@dataclass(frozen=True, slots=True)
class ToolStarted:
    """A tool has started."""

    call: FunctionCall


@dataclass(frozen=True, slots=True)
class ToolFinished:
    """A call has its output: the tool returned, failed, was refused or was stopped."""

    call: FunctionCall
    output: FunctionCallOutput
    duration: float
    """Seconds from start to finish."""
    exception: BaseException | None = None
    """The exception that the tool raised, for logs and people. The model reads only `output`."""


@dataclass(frozen=True, slots=True)
class ToolPaused:
    """`approve` has not decided about a call: its tool has not run, and the turn ends with
    ``Done("paused")``."""

    call: FunctionCall


ToolEvent: TypeAlias = ToolStarted | ToolFinished | ToolPaused

Approval: TypeAlias = bool | str | None
Approve: TypeAlias = Callable[[FunctionCall], Approval | Awaitable[Approval]]
"""Decides whether a tool may run: True runs it, False or a reason as text refuses it, ``None``
leaves the decision open."""


def waiting_calls(
    items: Iterable[object],
) -> list[tuple[FunctionCall, FunctionCallOutput]]:
    """The calls in a history whose approval was left open, each with its output."""
    waiting: dict[str, FunctionCall] = {}
    pairs: list[tuple[FunctionCall, FunctionCallOutput]] = []
    for item in items:
        if isinstance(item, FunctionCall):
            if _own_extra(item).get(_MARK) is True:
                waiting[item.call_id] = item
        elif isinstance(item, FunctionCallOutput):
            call = waiting.pop(item.call_id, None)
            if call is not None:
                pairs.append((call, item))
    return pairs


def _own_extra(call: FunctionCall) -> dict[str, Any]:
    own: object = call.extra.get("rejoinder")
    return cast("dict[str, Any]", own) if isinstance(own, dict) else {}


def _mark(call: FunctionCall) -> None:
    call.extra = {**call.extra, "rejoinder": {**_own_extra(call), _MARK: True}}


def unmark(call: FunctionCall) -> None:
    if _MARK in _own_extra(call):
        own = {key: value for key, value in _own_extra(call).items() if key != _MARK}
        extra = {key: value for key, value in call.extra.items() if key != "rejoinder"}
        call.extra = {**extra, "rejoinder": own} if own else extra


def call_items(
    calls: Sequence[FunctionToolCall], *, taken: Iterable[str], group_id: str
) -> list[FunctionCall]:
    """History items for the calls of one reply.

    A call gets a new id if its own is empty or already in `taken`, because some servers restart the
    numbering of calls in each reply. Empty arguments become ``{}``.
    """
    known = set(taken)
    items: list[FunctionCall] = []
    for call in calls:
        call_id = call.call_id
        if not call_id or call_id in known:
            call_id = _stamps.new_id("call_")
        known.add(call_id)
        items.append(to_function_call(call, call_id=call_id, group_id=group_id))
    return items


@dataclass(eq=False, slots=True)
class _Run:
    """One planned, running or finished call."""

    call: FunctionCall
    output: FunctionCallOutput
    tools: ToolContext
    context: Any
    interruptible: bool
    journal: Journal
    started_at: float | None = None
    answered: bool = False
    reported: bool = False
    paused: bool = False
    task: asyncio.Task[None] | None = None

    @property
    def may_be_cut(self) -> bool:
        if self.started_at is None:
            return True
        context: object = self.context
        if isinstance(context, RunContext):
            return self.interruptible and cast("RunContext[Any]", context).interruptible
        return self.interruptible

    @property
    def over(self) -> bool:
        return self.answered and (self.task is None or self.task.done())

    def answer(self, text: str, *, is_error: bool, reply_required: bool = True) -> None:
        self.answered = True
        if not self.paused:
            unmark(self.call)
        self.output.output = text
        self.output.is_error = is_error
        self.output.reply_required = reply_required
        self.journal.write(self.call, self.output)

    def pause(self) -> None:
        self.paused = True
        _mark(self.call)
        self.answer(WAITING, is_error=False)

    def answer_cut(self) -> None:
        self.answer(NOT_STARTED if self.started_at is None else CUT_OFF, is_error=True)

    def ended(self, _: asyncio.Task[None]) -> None:
        if not self.answered:  # cancelled before its first step, and not by `cut`
            self.answer_cut()


_is_answered = attrgetter("answered")

_detached: set[asyncio.Task[Any]] = set()
"""Tasks that may outlive their owner; referenced here so that they are not garbage-collected."""


def detach(task: asyncio.Task[Any]) -> None:
    """Keep `task` alive until it ends, even if its owner is gone."""
    _detached.add(task)
    task.add_done_callback(_detached.discard)


class ToolRuns:
    """The tool calls of one turn or session.

    `plan` calls, append them and their outputs to the history, then `start` them::

        outputs = runs.plan(calls, tools)
        history.extend([*calls, *outputs])
        runs.start()

    Args:
        on_event: called with a `ToolStarted` when a tool starts and with exactly one `ToolFinished`
            (or `ToolPaused`) for each call, except for those that `cut` returns.
        make_context: returns the value of context parameters for a call; default a `RunContext`.
        timeout: seconds for tools that set none of their own.
        max_concurrency: how many tools may run at once; default no limit.
        max_repeats: how often the same call may give the same output before it is refused.
        approve: asked before each tool that is not declared ``effects=False``.
        journal: records the start of each tool with effects before it runs, and every output.
    """

    def __init__(
        self,
        *,
        on_event: Callable[[ToolEvent], None],
        make_context: Callable[[FunctionCall], Any] = RunContext,
        timeout: float | None = None,
        max_concurrency: int | None = None,
        max_repeats: int = 3,
        approve: Approve | None = None,
        journal: Journal | None = None,
    ) -> None:
        self._on_event = on_event
        self._make_context = make_context
        self._timeout = timeout
        self._slots = asyncio.Semaphore(max_concurrency) if max_concurrency is not None else None
        self._repeats = _Repeats(max_repeats)
        self._approve = approve
        self._journal = journal or NO_JOURNAL
        self._runs: list[_Run] = []
        self._stop_requested = False

    # -- state -------------------------------------------------------------------------------

    @property
    def pending(self) -> bool:
        """Whether a call has no final output yet."""
        return not all(map(_is_answered, self._runs))

    @property
    def running(self) -> list[FunctionCall]:
        """The calls whose tasks run now; after `cut` those that could not be stopped."""
        return [run.call for run in self._runs if run.task is not None and not run.task.done()]

    @property
    def stop_requested(self) -> bool:
        """Whether a tool has raised `StopResponse`."""
        return self._stop_requested

    @property
    def paused(self) -> list[FunctionCall]:
        """The calls that still wait for approval."""
        return [run.call for run in self._runs if run.paused]

    def only_repeats(self) -> bool:
        """Whether every call since the last use of this method was refused as a repeat."""
        return self._repeats.only_refused()

    # -- running -----------------------------------------------------------------------------

    def plan(self, calls: Sequence[FunctionCall], tools: ToolContext) -> list[FunctionCallOutput]:
        """Plan `calls` to be run with `tools`. Returns one output for each, in their order, which
        reports the call as running until the tool has finished."""
        outputs = [
            FunctionCallOutput(
                name=call.name, call_id=call.call_id, output=STILL_RUNNING, is_error=False
            )
            for call in calls
        ]
        self.resume(zip(calls, outputs, strict=True), tools)
        return outputs

    def resume(
        self, pairs: Iterable[tuple[FunctionCall, FunctionCallOutput]], tools: ToolContext
    ) -> None:
        """Plan calls that are in the history already, with their outputs (see `waiting_calls`)."""
        runs = [self._plan(call, output, tools) for call, output in pairs]
        self._runs = [run for run in self._runs if not run.over] + runs

    def _plan(self, call: FunctionCall, output: FunctionCallOutput, tools: ToolContext) -> _Run:
        tool = tools.get_function_tool(call.name)
        interruptible = tool is None or (
            get_tool_options(tool).interruptible and not runs_in_thread(tool)
        )
        return _Run(call, output, tools, self._make_context(call), interruptible, self._journal)

    def start(self) -> None:
        """Start every planned call, each in a task of its own."""
        loop = asyncio.get_running_loop()
        for run in list(self._runs):
            # With eager tasks, the previous run may have called `cut`, which answers all others.
            if run.task is None and not run.answered:
                run.task = loop.create_task(self._run(run), name=f"tool {run.call.name}")
                run.task.add_done_callback(run.ended)
                detach(run.task)

    async def _run(self, run: _Run) -> None:
        exception: BaseException | None = None
        # A task that starts eagerly runs before `start` has stored it.
        run.task = asyncio.current_task()
        try:
            result = await self._answer(run)
        except asyncio.CancelledError as error:
            exception = error
            if not run.answered:  # not cancelled by `cut`: the event loop is shutting down
                run.answer_cut()
        except BaseException as error:
            # Failures of tools are part of the result, so this is our own fault, or Ctrl-C.
            exception = error
            run.answer(OUR_FAILURE, is_error=True)
            if not isinstance(error, Exception):
                self._report(run, error)
                raise
            logger.exception("running the tool %r failed", run.call.name)
        else:
            if result is None:
                return
            out = result.fnc_call_out
            run.answer(out.output, is_error=out.is_error, reply_required=out.reply_required)
            exception = result.raw_exception
            self._stop_requested = self._stop_requested or result.stop
        self._report(run, exception)

    async def _answer(self, run: _Run) -> FunctionCallResult | None:
        """Run the tool if it may run. Returns ``None`` for a call that was paused or cut."""
        if self._approve is not None and self._needs_approval(run):
            decision = await self._ask(self._approve, run.call)
            if run.answered:  # cut, and `approve` has ignored its cancellation
                return None
            if decision is None:
                run.pause()
                self._on_event(ToolPaused(run.call))
                return None
            if decision is not True:
                self._repeats.note(run.call, decision.fnc_call_out.output)
                return decision
            unmark(run.call)
            run.output.output = STILL_RUNNING
        if self._slots is None:
            return await self._start(run)
        async with self._slots:
            return await self._start(run)

    def _needs_approval(self, run: _Run) -> bool:
        # Calls that cannot run are answered without asking for approval.
        tool = run.tools.get_function_tool(run.call.name)
        return (
            tool is not None
            and get_tool_options(tool).effects
            and not self._repeats.exhausted(run.call)
            and can_run(tool, run.call, run.context)
        )

    async def _ask(
        self, approve: Approve, call: FunctionCall
    ) -> FunctionCallResult | Literal[True] | None:
        """The decision of `approve`: True, a refusal, or ``None`` if it is open."""
        try:
            decision = approve(call)
            if inspect.isawaitable(decision):
                decision = await decision
            if not isinstance(cast("object", decision), bool | str | None):
                raise TypeError(
                    "run_turn: `approve` returns True, False, a reason as text, or None to pause; "
                    f"got {decision!r}"
                )
        except ToolError as error:
            return _not_approved(call, error.message, error)
        except asyncio.CancelledError as error:
            task = asyncio.current_task()
            if task is not None and task.cancelling():
                raise
            return _not_approved(call, "the approval was cancelled", error)
        except Exception as error:
            logger.exception("approving a call of the tool %r failed", call.name)
            return _not_approved(call, "asking for approval failed", error)
        if decision is None or decision is True:
            return decision
        return _not_approved(call, decision or "it was not approved")

    async def _start(self, run: _Run) -> FunctionCallResult | None:
        call = run.call
        refusal = self._repeats.refuse(call) or await self._forbidden(run)
        if run.answered:  # cut while it was recorded
            return None
        return refusal or await self._execute(run)

    async def _forbidden(self, run: _Run) -> FunctionCallResult | None:
        """A refusal if the journal cannot record the start of the tool of `run`."""
        tool = run.tools.get_function_tool(run.call.name)
        if tool is None or not get_tool_options(tool).effects:
            return None
        try:
            reason = await self._journal.start(run.call)
        except Exception as error:
            logger.warning("a call of the tool %r was not recorded: %s", run.call.name, error)
            return _not_approved(run.call, "it could not be recorded", error)
        return None if reason is None else _not_approved(run.call, reason)

    async def _execute(self, run: _Run) -> FunctionCallResult:
        call = run.call
        run.started_at = asyncio.get_running_loop().time()
        self._on_event(ToolStarted(call))
        result = await execute_function_call(
            call, run.tools, call_ctx=run.context, timeout=self._timeout
        )
        self._repeats.note(call, result.fnc_call_out.output)
        return result

    def _report(self, run: _Run, exception: BaseException | None) -> None:
        if not run.reported:
            self._on_event(_finish(run, exception))

    # -- ending ------------------------------------------------------------------------------

    def cut(self) -> list[ToolFinished]:
        """Stop every call that may be stopped. Tools that must not be interrupted continue.

        Returns at once, with the events of the calls that were stopped; `on_event` is not called
        for them. Each output is final when it returns, unless a tool ignores its cancellation: then
        the tool's result replaces the output.
        """
        events: list[ToolFinished] = []
        for run in self._runs:
            if run.answered or not run.may_be_cut:
                continue
            run.answer_cut()
            events.append(_finish(run, None))
            if run.task is not None:
                run.task.cancel()
        return events

    async def aclose(self) -> None:
        """Wait, for a second at most, until the tools that `cut` stopped have ended."""
        stopped = {run.task for run in self._runs if run.answered and run.task is not None}
        await end(*stopped, within=CLOSE_TIMEOUT, cancelled=True)

    async def settled(self) -> None:
        """Wait until every tool has ended, including those that `cut` left running."""
        tasks = [run.task for run in self._runs if run.task is not None]
        if tasks:
            await asyncio.wait(tasks)


def _finish(run: _Run, exception: BaseException | None) -> ToolFinished:
    run.reported = True
    now = asyncio.get_running_loop().time()
    duration = 0.0 if run.started_at is None else now - run.started_at
    return ToolFinished(run.call, run.output, duration, exception)


def _refusal(
    call: FunctionCall, text: str, error: BaseException | None = None
) -> FunctionCallResult:
    return FunctionCallResult(
        fnc_call=call,
        fnc_call_out=FunctionCallOutput(
            name=call.name, call_id=call.call_id, output=text, is_error=True
        ),
        raw_exception=error,
    )


def _not_approved(
    call: FunctionCall, reason: str, error: BaseException | None = None
) -> FunctionCallResult:
    return _refusal(call, f"`{call.name}` was not run: {reason}", error)


class _Repeats:
    """Detects a model that repeats the same call although the output stays the same."""

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
            f"{count} times in this turn: {output[:_QUOTED]}\n"
            "Use that result, call it with other arguments, or answer without it"
        )
        return _refusal(call, text)

    def note(self, call: FunctionCall, output: str) -> None:
        self._ran += 1
        key = _same_call(call)
        count, last = self._seen.get(key, (0, ""))
        self._seen[key] = (count + 1 if output == last else 1, output)

    def exhausted(self, call: FunctionCall) -> bool:
        """Whether `refuse` would refuse `call`."""
        return self._seen.get(_same_call(call), (0, ""))[0] >= self._limit

    def only_refused(self) -> bool:
        answer = self._refused > 0 and self._ran == 0
        self._refused = self._ran = 0
        return answer


def _same_call(call: FunctionCall) -> tuple[str, str]:
    if call.arguments == "{}":
        return call.name, call.arguments
    try:
        arguments = json.dumps(json.loads(call.arguments), sort_keys=True)
    except (ValueError, RecursionError):
        arguments = call.arguments
    return call.name, arguments
