"""Threads and runs: a conversation of the page, and one turn of it as a stream of AG-UI events."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections import OrderedDict, deque
from collections.abc import AsyncGenerator, Callable, Coroutine, Iterator, Mapping, Sequence
from typing import Any, Final, cast

from rejoinder import _watch
from rejoinder._core.items import ChatItem, ChatMessage, FunctionCall, FunctionCallOutput
from rejoinder.conversation import Conversation
from rejoinder.errors import APIError, ConfigurationError
from rejoinder.llm._tool_runs import waiting_calls
from rejoinder.llm.chat_context import ChatContext
from rejoinder.llm.llm import LLM, CompletionUsage
from rejoinder.llm.tool_context import RawFunctionTool, ToolContext, function_tool
from rejoinder.store import ConflictError, Store, StoreError
from rejoinder.turn import (
    Done,
    Restarted,
    Text,
    Thinking,
    ToolFinished,
    ToolPaused,
    ToolStarted,
    Turn,
    run_turn,
)
from rejoinder.types import APIConnectOptions
from rejoinder.web.agui import Event, InputError, RunInput, Writer, items_of
from rejoinder.web.timeline import Timeline

__all__ = ["Run", "Thread", "Threads"]

_WAITING: Final = 64
"""Maximum number of events of a turn that wait for a slow client before the turn waits, too."""
_AFTERWARDS: Final = 0.3
"""Seconds after a turn within which its stopped tools should end."""
_LEAVING: Final = 2.0
"""Seconds within which a run must end whose client has left."""
_KEPT: Final = 200
"""Maximum number of runs whose timeline is kept."""
_REFUSED: Final = "the user refused it"
_UNDECIDED: Final = "the user wrote something else instead of allowing it"
_ANSWER: Final = {
    "type": "object",
    "properties": {
        "approved": {"type": "boolean"},
        "always": {"type": "boolean", "description": "also for later calls of this tool"},
    },
    "required": ["approved"],
}
"""The schema of the answer to an interrupt."""


class _Logged(Conversation):
    """A conversation of the page. Its log holds no cost for replies of the page's own servers."""

    timeline: Timeline | None = None

    def used(self, model: str, usage: CompletionUsage, cost: float | None) -> None:
        """See `rejoinder.turn.Journal`."""
        invented = self.timeline is not None and self.timeline.invented
        super().used(model, usage, None if invented else cost)


class Thread:
    """One conversation, and its runs in this process.

    Attributes:
        running: the current run.
        always: tools that were approved for the rest of the conversation.
    """

    def __init__(self, store: Store, id: str) -> None:
        self.id = id
        self.conversation = _Logged(store, id)
        self.running: Run | None = None
        self.always: set[str] = set()
        self._loaded = False
        self._aliases: dict[str, str] = {}

    async def open(self) -> Conversation:
        """The loaded conversation."""
        if not self._loaded:
            await self.conversation.load()
            self._loaded = True
        return self.conversation

    async def settled(self) -> None:
        """Wait a moment for the end of a run. After a reload of the page, the request for the
        conversation can arrive before the server sees that the client of the run has left."""
        if (run := self.running) is not None:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_LEAVING):
                    await run.over.wait()

    def alias(self, shown: str, item: str) -> None:
        """The client knows `item` as `shown`."""
        self._aliases[shown] = item

    @property
    def aliases(self) -> Mapping[str, str]:
        """Ids of items by the ids under which they were streamed."""
        return self._aliases

    async def take(self, messages: Sequence[Mapping[str, Any]], system: str) -> ChatContext:
        """The context that `messages` describe. Known items stay unchanged; items that the client
        omitted become another branch.

        Raises:
            InputError: a message is not as AG-UI describes it.
            StoreError: the store cannot be used.
        """
        conversation = await self.open()
        state = conversation._state
        by_call: dict[str, str] = {}
        for id, data in state.data.items():
            kind = {"function_call": "call", "function_call_output": "output"}.get(
                str(data.get("type"))
            )
            if kind is not None:
                by_call[f"{kind}:{data.get('call_id')}"] = id
        wanted = [
            id
            for message in messages
            for id in (
                self._aliases.get(str(message.get("id")), str(message.get("id"))),
                *(by_call.get(f"output:{call}") for call in _calls_in(message)),
            )
            if id in state.data
        ]
        for id in reversed(wanted):
            with contextlib.suppress(ValueError):  # it stands between a call and its output
                await conversation.rewind(id)
                break
        chat_ctx = conversation.chat_ctx
        known: dict[str, ChatItem] = {}
        for item in chat_ctx.items:
            known[item.id] = item
            if isinstance(item, FunctionCall):
                known[f"call:{item.call_id}"] = item
            elif isinstance(item, FunctionCallOutput):
                known[f"output:{item.call_id}"] = item
        items = items_of(messages, lambda name: known.get(self._aliases.get(name, name)))
        first = items[0] if items else None
        instructed = isinstance(first, ChatMessage) and first.role in ("system", "developer")
        if system and not instructed:
            before = chat_ctx.items[0] if chat_ctx.items else None
            if not (isinstance(before, ChatMessage) and before.role == "system"):
                before = ChatMessage(role="system", content=[system])
            items.insert(0, before)
        chat_ctx.items = items
        return chat_ctx


class Run:
    """One turn of a thread.

    Args:
        thread: the conversation.
        given: the client's request.
        llm: the model.
        tools: the tools that the model may call.
        system: instructions, for a conversation without any.
        tool_timeout: seconds a tool may run.
        approve: ask the client before each tool that may change something.
        conn_options: retries and deadlines of each request.
        named: the name of the model on the command line.
        explain: returns in one sentence why a run failed.

    Raises:
        InputError: the client has a tool with the name of one in `tools`.
    """

    def __init__(self, thread: Thread, given: RunInput, *, llm: LLM[Any], tools: Sequence[Any],
                 system: str, tool_timeout: float, approve: bool, conn_options: APIConnectOptions,
                 named: str, explain: Callable[[BaseException], str]) -> None:  # fmt: skip
        self.id = given.run
        self.thread = thread
        self.model = llm.model
        self.at = time.time()
        self._given = given
        self._named = named
        self._explain = explain
        self._llm = llm
        self._theirs = {str(tool.get("name")) for tool in given.tools}
        if both := self._theirs & ToolContext(list(tools)).function_tools.keys():
            raise InputError(
                f"the server has a tool named {min(both)!r}, too; give yours another name"
            )
        self._tools = [*tools, *(_client_tool(tool) for tool in given.tools)]
        self._system = system
        self._tool_timeout = tool_timeout
        self._asks = approve
        self._conn_options = conn_options
        self._writer = Writer(thread.id, given.run)
        self._notes: deque[Event] = deque()
        self._queue: asyncio.Queue[tuple[Any, float | None]] = asyncio.Queue(_WAITING)
        self.timeline = Timeline(asyncio.get_running_loop().time, self._noted)
        self.over = asyncio.Event()
        self._turn: Turn | None = None
        self._stopping = asyncio.Event()
        self._items = 0
        self._pending: list[FunctionCall] = []
        self._left: set[str] = set()
        self._cost: float | None = None

    def stop(self) -> None:
        """End the run and keep its text so far. Idempotent."""
        self._stopping.set()
        if self._turn is not None:
            self._turn.interrupt()

    async def unless_stopped(self, work: Coroutine[Any, Any, None]) -> None:
        """Do `work`, which the run needs before it begins, until it is done or the run is stopped."""
        task = asyncio.ensure_future(work)
        stopped = asyncio.ensure_future(self._stopping.wait())
        try:
            await asyncio.wait((task, stopped), return_when=asyncio.FIRST_COMPLETED)
            if task.done():
                task.result()
        finally:
            task.cancel()
            stopped.cancel()

    def facts(self) -> dict[str, Any]:
        """The facts about the run, for the page."""
        return {
            "runId": self.id,
            "at": self.at,
            "messages": self._writer.said,
            "events": self.timeline.events,
            "recorded": len(self.timeline.exchanges),
        }

    def _noted(self, event: dict[str, Any]) -> None:
        self._notes.append(self._writer.custom("timeline", event))
        if self._queue.empty():
            self._queue.put_nowait((None, None))  # wakes the reader

    async def events(self) -> AsyncGenerator[Event]:
        """The AG-UI events of the run. Leaving the iteration stops the run."""
        thread = self.thread
        writer = self._writer
        if thread.running is not None:
            yield writer.started()
            for failure in writer.failed(
                f"the conversation {thread.id!r} has a run already; wait for its end, or stop it",
                "busy",
            ):
                yield failure
            return
        thread.running = self
        work = asyncio.create_task(self._work(), name=f"run {self.id}")
        # Not after the wait below, which is cancelled too if a client leaves.
        work.add_done_callback(self._over)
        try:
            yield writer.started()
            while True:
                event, at = await self._queue.get()
                if isinstance(event, Done):  # tools that outlive the turn are part of its timeline
                    await asyncio.wait((work,), timeout=_AFTERWARDS)
                while self._notes:
                    yield self._notes.popleft()
                if event is not None:
                    for piece in self._told(event, at):
                        yield piece
                    if isinstance(event, Done | BaseException):
                        return
        finally:
            work.cancel()
            await asyncio.wait((work,))

    def _over(self, _: asyncio.Task[None]) -> None:
        self.thread.running = None
        self.over.set()

    async def _work(self) -> None:
        try:
            with _watch.watching(self.timeline.watch):
                await self._run()
        except Exception as error:
            self.timeline.add(0, "error", error=self._explain(error))
            await self._queue.put((error, None))

    async def _run(self) -> None:
        thread, timeline = self.thread, self.timeline
        thread.conversation.timeline = timeline
        chat_ctx = await thread.take(self._given.messages, self._system)
        self._items = len(chat_ctx.items)
        self._left = {call.call_id for call, _ in waiting_calls(chat_ctx.items)}
        self._writer.known.update(self._left)
        if "model" not in thread.conversation.about:
            await thread.conversation.describe(model=self._named)
        turn = run_turn(
            self._llm,
            chat_ctx,
            tools=self._tools,
            tool_timeout=self._tool_timeout,
            conn_options=self._conn_options,
            approve=self._approve if self._theirs or self._asks else None,
            journal=thread.conversation,
        )
        async with turn:
            self._turn = turn
            if self._stopping.is_set():
                turn.interrupt()
            timeline.add(0, "turn", model=self.model)
            async for event in turn:
                at = self._track(event)
                await self._queue.put((event, at))

    async def _approve(self, call: FunctionCall) -> bool | str | None:
        """Pause for the client's tools, and for approval of the others."""
        id, answers, always = call.call_id, self._given.answers, self.thread.always
        if call.name in self._theirs:
            return None
        if not self._asks or call.name in always:
            return True
        if id not in answers:
            return _UNDECIDED if id in self._left else None
        answer: Any = answers[id]
        if not (
            isinstance(answer, dict) and cast("dict[str, Any]", answer).get("approved") is True
        ):
            return _REFUSED
        if cast("dict[str, Any]", answer).get("always") is True:
            always.add(call.name)
        return True

    def _track(self, event: Any) -> float | None:
        """Add an event of the turn to the timeline. Returns the time of a piece of text."""
        add = self.timeline.add
        match event:
            case Text(text=text):
                return self.timeline.text("text", len(text))
            case Thinking(text=text):
                return self.timeline.text("thinking", len(text))
            case Restarted(discard=text):
                add(0, "restarted", size=len(text))
            case ToolStarted(call=call):
                add(0, "tool", call=call.call_id, name=call.name)
            case ToolFinished(call=call, output=output):
                add(0, "tool_end", call=call.call_id, name=call.name, failed=output.is_error)
            case ToolPaused(call=call):
                add(0, "paused", call=call.call_id, name=call.name)
            case Done(reason=reason, cost=cost):
                self._cost = None if self.timeline.invented else cost
                add(0, "done", reason=reason, cost=self._cost)
            case _:
                pass
        return None

    def _told(self, event: Any, at: float | None) -> Sequence[Event]:
        writer = self._writer
        match event:
            case Text(text=text):
                return writer.say(text, at)
            case Thinking(text=text):
                return writer.think(text)
            case ToolStarted(call=call) | ToolPaused(call=call):
                if isinstance(event, ToolPaused):
                    self._pending.append(call)
                events = writer.call(call)
                self._name_messages()
                return events
            case ToolFinished(call=call, output=output):
                return writer.result(call, output)
            case Restarted():
                return writer.restart(self.thread.conversation.chat_ctx.items)
            case Done(reason=reason, steps=steps):
                self._name_messages()
                return self._finished(reason, steps)
            case BaseException():
                return writer.failed(self._explain(event), _code(event))
            case _:
                return ()

    def _finished(self, reason: str, steps: int) -> Sequence[Event]:
        if reason == "interrupted":
            outcome: Event = {"type": "cancelled"}
        elif asked := [call for call in self._pending if call.name not in self._theirs]:
            outcome = {"type": "interrupt", "interrupts": [_interrupt(call) for call in asked]}
        else:
            outcome = {"type": "success"}
            if reason == "paused":
                outcome["pendingToolCallIds"] = [call.call_id for call in self._pending]
        usage = [
            {
                "provider": metrics.metadata.model_provider if metrics.metadata else None,
                "model": metrics.metadata.model_name if metrics.metadata else None,
                "inputTokens": metrics.prompt_tokens,
                "outputTokens": metrics.completion_tokens,
                "totalTokens": metrics.total_tokens,
                "reasoningTokens": metrics.reasoning_tokens,
                "cachedInputTokens": metrics.prompt_cached_tokens,
            }
            for metrics in self.timeline.metrics
        ]
        usage = [{k: v for k, v in entry.items() if v is not None} for entry in usage]
        result = {"reason": reason, "steps": steps, "cost": self._cost}
        return self._writer.finished(outcome, result, usage)

    def _name_messages(self) -> None:
        """Record the item of each streamed message."""
        items = self.thread.conversation.chat_ctx.items[self._items :]
        spoken = [
            item for item in items if isinstance(item, ChatMessage) and item.role == "assistant"
        ]
        for shown, item in zip(self._writer.said, spoken, strict=False):
            self.thread.alias(shown, item.id)


def _code(error: BaseException) -> str:
    if isinstance(error, ConflictError):
        return "conflict"
    if isinstance(error, StoreError):
        return "store"
    if isinstance(error, APIError):
        return "model"
    if isinstance(error, InputError | ConfigurationError | ValueError):
        return "input"
    return "fault"


def _calls_in(message: Mapping[str, Any]) -> Iterator[object]:
    """The ids of the calls that a message makes or answers."""
    yield message.get("toolCallId")
    made: object = message.get("toolCalls")
    for call in cast("list[object]", made) if isinstance(made, list) else ():
        if isinstance(call, dict):
            yield cast("dict[str, object]", call).get("id")


def _interrupt(call: FunctionCall) -> Event:
    """A call that waits for approval. An answer names the call."""
    return {
        "id": call.call_id,
        "reason": "tool_approval",
        "message": f"May {call.name} run?",
        "toolCallId": call.call_id,
        "responseSchema": _ANSWER,
    }


def _client_tool(tool: Mapping[str, Any]) -> RawFunctionTool:
    """A tool that the client runs: the turn pauses at its call."""

    async def theirs(raw_arguments: dict[str, object]) -> str:
        raise AssertionError("a tool of the client never runs here")

    schema: dict[str, Any] = {
        "name": str(tool.get("name")),
        "description": str(tool.get("description") or ""),
        "parameters": tool.get("parameters") or {"type": "object", "properties": {}},
    }
    return function_tool(theirs, raw_schema=schema)


class Threads:
    """The threads in use, and the latest runs."""

    def __init__(self, store: Store) -> None:
        self.store = store
        self._threads: dict[str, Thread] = {}
        self._runs: OrderedDict[str, Run] = OrderedDict()

    def thread(self, id: str) -> Thread:
        """The thread with this id; a new one if it is unknown."""
        thread = self._threads.get(id)
        if thread is None:
            thread = self._threads[id] = Thread(self.store, id)
        return thread

    def add(self, run: Run) -> None:
        """Keep a run, and forget the oldest one."""
        self._runs[run.id] = run
        while len(self._runs) > _KEPT:
            self._runs.popitem(last=False)

    def run(self, id: str) -> Run | None:
        """The run with this id, if it is known."""
        return self._runs.get(id)

    def runs_of(self, thread: str) -> list[Run]:
        """The known runs of a thread, oldest first."""
        return [run for run in self._runs.values() if run.thread.id == thread]

    @property
    def runs(self) -> list[Run]:
        """The known runs, oldest first."""
        return list(self._runs.values())

    async def forget(self, id: str) -> bool:
        """Erase a conversation and its runs. Returns whether there was one."""
        thread = self._threads.pop(id, None)
        if thread is not None and thread.running is not None:
            thread.running.stop()
        for run in self.runs_of(id):
            del self._runs[run.id]
        return await self.store.remove(id) or thread is not None
