"""`Delegate`: runs the tasks that a full-duplex speech model delegates, with any `LLM`.

    model = GPTLiveModel(delegation=Delegate(llm, tools=[weather]))

The speech model converses. When it needs knowledge or a tool, it delegates the task; `run_turn` lets
the text model do it, and the speech model tells the user the answer in its own words. With a
`FallbackAdapter` as the text model, one that fails or falls silent is replaced.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections import OrderedDict
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Final, Protocol

from rejoinder import _aio
from rejoinder._core.budget import TurnBudget
from rejoinder._core.items import ChatItem, ChatMessage
from rejoinder._core.realtime.commentary import Commentary
from rejoinder._options import (
    CONNECT,
    COUNT,
    FUNCTION,
    NAME,
    SECONDS,
    STRING,
    checked,
    instance,
)
from rejoinder.errors import APITimeoutError
from rejoinder.llm._option_rules import TOOLS
from rejoinder.llm.chat_context import ChatContext
from rejoinder.llm.llm import LLM
from rejoinder.llm.tool_context import Tool, ToolContext
from rejoinder.turn import Done, Restarted, Text, ToolFinished, ToolStarted, Turn, run_turn
from rejoinder.types import DEFAULT_API_CONNECT_OPTIONS, APIConnectOptions

__all__ = ["Delegate"]

logger = logging.getLogger("rejoinder")

INSTRUCTIONS: Final = (
    "You do the tasks of a voice assistant, which speaks with the user on its own and tells them your "
    "answer. Do what the user wants now. Answer in a few short sentences of plain text, without "
    "lists or markup. If something is missing or unclear, ask for it."
)
WAITING: Final = "This takes a moment. Tell the user briefly that you are working on it."
FAILED: Final = (
    "This could not be done: the service that does it has failed. Tell the user so, and offer to try "
    "again."
)
_AGAIN: Final = "Disregard what you were told about this task so far. A new answer follows."
_NOTHING: Final = "The task is done. There is nothing to tell the user."
_CANCELLED: Final = "The task was cancelled. There will be no answer."
_GO_ON: Final = "Do what I have asked for."

_DEFAULT_BUDGET: Final = TurnBudget(first_token_by=2.0, done_by=60.0)
_QUIET: Final = 0.2
"""Seconds without further words after which the user's request counts as complete, because transcripts
arrive later than the sound that the model hears."""
_LONGEST_WAIT: Final = 1.0
_REMIND: Final = 10.0
"""Seconds after which the user hears again that the task takes a while."""
_REMEMBERED: Final = 256
_CLOSE: Final = 1.0

_LLM: Final = instance(LLM, expected='an LLM, such as `rejoinder.create("openai/gpt-4.1")`')
_BUDGET: Final = instance(TurnBudget)


class _Session(Protocol):
    """The methods of a session that a `Delegate` uses."""

    @property
    def chat_ctx(self) -> ChatContext: ...

    @property
    def tools(self) -> ToolContext: ...

    def on(self, event: Any, callback: Callable[..., Any]) -> Any: ...

    def append_thinking(self, text: str, *, delegation_id: str | None = None) -> None: ...

    def append_commentary(self, text: str, *, delegation_id: str | None = None) -> None: ...

    def record(self, items: Iterable[ChatItem]) -> None: ...

    def delegation_over(self, delegation_id: str) -> None: ...


class Delegate:
    """Runs the tasks of speech models with a text model. One object serves any number of sessions.

    Each task is answered once. Its turn gets the conversation so far; its calls and their results
    become part of the conversation, and stay legal if the task is cancelled. While tools run, the
    speech model gets silent notes of what happens. The answer is passed on sentence by sentence.

    Args:
        llm: the text model that runs the tasks, for example a `FallbackAdapter`.
        tools: for the text model; by default the tools of the session (`update_tools`).
        instructions: for the text model.
        budget: limits of a whole task. ``first_token_by``: seconds until the user hears at least that
            it takes a moment, by default 2, and again after 10 seconds without a word. ``done_by``: seconds
            until the task has failed, by default 60. ``next_token_within``: seconds without an event
            of the text model, while no tool runs, until the task has failed.
        waiting: the instruction for the speech model when a task takes a moment.
        failed: the instruction for a task that could not be done.
        max_steps: as in `run_turn`.
        tool_timeout: seconds for tools that set none of their own.
        approve: as in `run_turn`; it must decide, because the turn is never resumed.
        userdata: available to tools as `RunContext.userdata`.
        conn_options: retries and deadlines of each request.

    Raises:
        ConfigurationError: an option has a wrong type or value.
    """

    @checked(
        llm=_LLM,
        tools=TOOLS.optional,
        instructions=STRING,
        budget=_BUDGET.optional,
        waiting=NAME,
        failed=NAME,
        max_steps=COUNT,
        tool_timeout=SECONDS.optional,
        approve=FUNCTION.optional,
        conn_options=CONNECT,
    )
    def __init__(
        self,
        llm: LLM[Any],
        *,
        tools: Sequence[Tool] | ToolContext | None = None,
        instructions: str = INSTRUCTIONS,
        budget: TurnBudget | None = None,
        waiting: str = WAITING,
        failed: str = FAILED,
        max_steps: int = 8,
        tool_timeout: float | None = None,
        approve: Callable[..., Any] | None = None,
        userdata: Any = None,
        conn_options: APIConnectOptions = DEFAULT_API_CONNECT_OPTIONS,
    ) -> None:
        if tools is not None and not isinstance(tools, ToolContext):
            ToolContext(list(tools))  # refuse a wrong tool now, not at the first task
        self._llm = llm
        self._tools = tools
        self._instructions = instructions
        self._budget = budget or _DEFAULT_BUDGET
        self._waiting = waiting
        self._failed = failed
        self._options: dict[str, Any] = {
            "max_steps": max_steps,
            "tool_timeout": tool_timeout,
            "approve": approve,
            "userdata": userdata,
            "conn_options": conn_options,
        }

    @checked()
    def attach(self, session: Any) -> Tasks:
        """Run the tasks of `session`. Models call it when they make a session."""
        return Tasks(self, session)

    def run(self, session: _Session, chat_ctx: ChatContext) -> Turn[Any]:
        """The turn of one task."""
        tools = session.tools if self._tools is None else self._tools
        return run_turn(self._llm, chat_ctx, tools=tools, **self._options)

    def context(self, items: Iterable[ChatItem]) -> ChatContext:
        """The input of the text model: its instructions and the conversation."""
        chat_ctx = ChatContext.empty()
        if self._instructions.strip():
            chat_ctx.add_message(role="system", content=self._instructions)
        chat_ctx.items.extend(items)
        last = chat_ctx.items[-1] if chat_ctx.items else None
        if not (isinstance(last, ChatMessage) and last.role == "user"):
            chat_ctx.add_message(role="user", content=_GO_ON)  # the speech model has said something
        return chat_ctx


class Tasks:
    """The tasks of one session; made by `Delegate.attach`."""

    def __init__(self, delegate: Delegate, session: _Session) -> None:
        self._delegate = delegate
        self._session = session
        self._running: dict[str, asyncio.Task[None]] = {}
        self._known: OrderedDict[str, None] = OrderedDict()
        self._partial: OrderedDict[str, str] = OrderedDict()
        self._heard = asyncio.Event()
        self._over = False
        session.on("delegation_created", self._created)
        session.on("input_audio_transcription_completed", self._transcribed)

    @property
    def running(self) -> list[str]:
        """Ids of the running tasks."""
        return list(self._running)

    @checked(delegation_id=NAME)
    def cancel(self, delegation_id: str) -> None:
        """Stop a task without an answer. Its calls keep their results. Unknown ids are ignored."""
        task = self._running.get(delegation_id)
        if task is not None and task.cancel():
            self._session.append_thinking(_CANCELLED, delegation_id=delegation_id)

    def stop(self) -> None:
        """The session is over: stop all tasks, and accept no further ones."""
        self._over = True
        for task in self._running.values():
            task.cancel()

    async def aclose(self) -> None:
        """Stop all tasks and wait for their ends, for about a second. Never raises."""
        self.stop()
        await _aio.end(*self._running.values(), within=_CLOSE, name="delegated task")

    # -- the conversation --------------------------------------------------------------------

    def _transcribed(self, event: Any) -> None:
        self._partial[event.item_id] = event.transcript
        if len(self._partial) > _REMEMBERED:
            self._partial.popitem(last=False)
        self._heard.set()

    async def _request_complete(self) -> None:
        """Wait until the transcript of the user's request is complete."""
        with contextlib.suppress(TimeoutError):
            async with _aio.within(_LONGEST_WAIT):
                while True:
                    self._heard.clear()
                    async with _aio.within(_QUIET if self._ends_with_user() else _LONGEST_WAIT):
                        await self._heard.wait()

    def _ends_with_user(self) -> bool:
        items = self._items()
        return bool(items) and isinstance(items[-1], ChatMessage) and items[-1].role == "user"

    def _items(self) -> list[ChatItem]:
        """The conversation, with the words of a turn that is not over yet."""
        found: list[ChatItem] = []
        for item in self._session.chat_ctx.items:
            if isinstance(item, ChatMessage) and not item.content:
                words = self._partial.get(item.id) if item.role == "user" else None
                if not words:
                    continue
                item = item.model_copy(update={"content": [words]})
            found.append(item)
        return found

    # -- one task ----------------------------------------------------------------------------

    def _created(self, event: Any) -> None:
        delegation_id: str = event.id
        if self._over or delegation_id in self._known:
            return
        self._known[delegation_id] = None
        if len(self._known) > _REMEMBERED:
            self._known.popitem(last=False)
        task = asyncio.get_running_loop().create_task(
            self._do(delegation_id), name="delegated task"
        )
        self._running[delegation_id] = task
        task.add_done_callback(lambda _: self._ended(delegation_id))

    def _ended(self, delegation_id: str) -> None:
        self._running.pop(delegation_id, None)
        self._session.delegation_over(delegation_id)

    async def _do(self, delegation_id: str) -> None:
        teller = _Teller(self._session, delegation_id, self._delegate._waiting)
        budget = self._delegate._budget
        waiting = asyncio.get_running_loop().create_task(
            teller.keep_company(budget.first_token_by), name="delegated task: waiting"
        )
        try:
            async with _aio.within(budget.done_by):
                await self._request_complete()
                await self._run(teller, budget.next_token_within)
        except Exception as error:
            # The user waits for an answer, whatever the error is.
            logger.warning("a delegated task failed: %s: %s", type(error).__name__, error)
            teller.speak(self._delegate._failed)
        finally:
            await _aio.cancel_and_wait(waiting)

    async def _run(self, teller: _Teller, silence: float | None) -> None:
        chat_ctx = self._delegate.context(self._items())
        given = len(chat_ctx.items)
        turn = self._delegate.run(self._session, chat_ctx)
        tools = 0
        try:
            async with turn:
                events = aiter(turn)
                while True:
                    limit = silence if silence and not tools else None
                    try:
                        async with _aio.within(limit):
                            event = await anext(events)
                    except TimeoutError:
                        raise APITimeoutError(
                            f"the text model sent nothing for {limit:g} s"
                        ) from None
                    match event:
                        case Text(text):
                            teller.write(text)
                        case Restarted():
                            teller.restart()
                        case ToolStarted(call):
                            tools += 1
                            teller.works_with(call.name)
                        case ToolFinished():
                            tools -= 1
                        case Done():
                            teller.done()
                            return
                        case _:
                            continue
        finally:
            made = [item for item in chat_ctx.items[given:] if item.type != "message"]
            self._session.record(made)


class _Teller:
    """Reports about one task to the speech model."""

    def __init__(self, session: _Session, delegation_id: str, waiting: str) -> None:
        self._session = session
        self._id = delegation_id
        self._waiting = waiting
        self._text = Commentary()
        self._spoke = asyncio.Event()

    async def keep_company(self, after: float | None) -> None:
        """Let the speech model say that it takes a moment, whenever the user has heard nothing for too
        long."""
        wait = after
        while wait is not None:
            self._spoke.clear()
            try:
                async with asyncio.timeout(wait):
                    await self._spoke.wait()
            except TimeoutError:
                self._session.append_commentary(self._waiting, delegation_id=self._id)
            wait = _REMIND

    def speak(self, text: str) -> None:
        if text:
            self._spoke.set()
            self._session.append_commentary(text, delegation_id=self._id)

    def write(self, text: str) -> None:
        self.speak(self._text.feed(text))

    def works_with(self, tool: str) -> None:
        self.speak(self._text.flush())
        self._session.append_thinking(
            f"Working on the task with the tool {tool}.", delegation_id=self._id
        )

    def restart(self) -> None:
        self._text.restart()
        if self._text.said:
            self._session.append_thinking(_AGAIN, delegation_id=self._id)

    def done(self) -> None:
        self.speak(self._text.flush())
        if not self._text.said:
            self._spoke.set()
            self._session.append_thinking(_NOTHING, delegation_id=self._id)
