"""One conversation over several realtime models; see `RealtimeModelFallbackAdapter`.

At any time one session of one model is active, and all calls go to it. When it fails, the next one
is made and set up; calls wait meanwhile. The text model is the last session in the order. While it
is active, the adapter keeps trying to reach a speech model.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterable, Callable
from typing import Any, Final, Literal, cast

from rejoinder import _aio
from rejoinder._core.items import ChatItem, ChatMessage
from rejoinder._core.realtime.kept import KeptSound
from rejoinder.errors import APIError, APITimeoutError, ConfigurationError
from rejoinder.llm._realtime_fallback_team import (
    Child,
    Mark,
    OwedSound,
    Requests,
    Team,
    replaced,
    unanswered,
)
from rejoinder.llm._realtime_text import TextSession
from rejoinder.llm.chat_context import ChatContext
from rejoinder.llm.llm import LLM
from rejoinder.llm.realtime import (
    GenerationCreatedEvent,
    InputTranscriptionCompleted,
    RealtimeCapabilities,
    RealtimeError,
    RealtimeModel,
    RealtimeModelError,
    RealtimeSession,
    RealtimeSessionReconnectedEvent,
    error_event,
)
from rejoinder.llm.tool_context import ToolContext
from rejoinder.media import AudioFrame
from rejoinder.types import NOT_GIVEN, NotGivenOr, is_given

__all__ = ["FallbackSession", "Team"]

logger = logging.getLogger("rejoinder")

_FORWARDED: Final = (
    "error",
    "generation_created",
    "input_audio_transcription_completed",
    "input_speech_started",
    "input_speech_stopped",
    "metrics_collected",
    "remote_item_added",
    "session_reconnected",
)
_PATIENCE: Final = 30.0
"""Seconds that a non-urgent change of models waits for running tools."""
_RETIRED: Final = 4
"""Number of ended sessions to keep, because their last messages may still be truncated."""


class FallbackSession(RealtimeSession[Any]):
    """One conversation over several models. Re-emits all events of the models' sessions, including
    vendor-specific ones.

    `capabilities` are those of the active model.
    """

    def __init__(
        self, adapter: RealtimeModel, team: Team, *, turn_detection_disabled: bool
    ) -> None:
        super().__init__(adapter)
        self._loop = asyncio.get_running_loop()
        self._team = team
        self._turn_detection_disabled = turn_detection_disabled
        self._names: set[str] = set(_FORWARDED)

        self._instructions: str | None = None
        self._tools: list[Any] | None = None
        self._tool_choice: NotGivenOr[Any] = NOT_GIVEN
        self._version = 0
        self._items: list[ChatItem] | None = None
        """The history while no session holds it."""
        self._requests = Requests(self._stir)
        self._running: GenerationCreatedEvent | None = None
        self._cut = False
        """The last reply failed, and no other has begun."""
        self._moved: dict[str, RealtimeSession[Any]] = {}
        """Messages that an earlier session spoke, by id."""

        self._kept: KeptSound[AudioFrame | Mark] = KeptSound(team.kept_sound * 1000)
        self._speaking = False
        self._turns = OwedSound(self._kept)

        self._tried: set[int] = set()
        self._stirred = asyncio.Event()
        self._changed: asyncio.Future[None] | None = None
        self._tasks: set[asyncio.Task[Any]] = set()
        self._open: set[RealtimeSession[Any]] = set()
        self._closings: set[asyncio.Task[None]] = set()
        self._seeking: asyncio.Task[None] | None = None
        self._over: RealtimeError | None = None

        child = self._make_next()
        if child is None:
            raise self._exhausted(None)
        self._active = child
        self._installed(child)

    # -- what the base class asks for ----------------------------------------------------------

    @property
    def capabilities(self) -> RealtimeCapabilities:
        """The capabilities of the active model."""
        return self._active.session.capabilities

    @property
    def active_model(self) -> RealtimeModel | LLM[Any]:
        """The model that holds the conversation now."""
        if self._active.index is not None:
            return self._team.models[self._active.index]
        return cast("LLM[Any]", self._team.text)

    @property
    def chat_ctx(self) -> ChatContext:
        if self._items is not None:
            return ChatContext(list(self._items))
        return self._active.session.chat_ctx

    @property
    def tools(self) -> ToolContext:
        return ToolContext(self._tools or [])

    @property
    def working(self) -> bool:
        return self._active.session.working

    async def connected(self) -> None:
        while True:
            await self._settled()
            child = self._active
            try:
                await child.session.connected()
            except RealtimeError:
                if child is self._active and self._changed is None:
                    raise
            if child is self._active and self._changed is None:
                return

    async def update_instructions(self, instructions: str) -> None:
        self._instructions = instructions
        self._version += 1
        await self._on_active(lambda session: session.update_instructions(instructions))

    async def update_tools(self, tools: list[Any]) -> None:
        ToolContext(tools)  # raises here if two tools share a name
        before, self._tools = self._tools, list(tools)
        self._version += 1
        try:
            await self._on_active(lambda session: session.update_tools(list(tools)))
        except ConfigurationError:
            self._tools = before
            raise

    async def update_chat_ctx(self, chat_ctx: ChatContext) -> None:
        await self._on_active(lambda session: session.update_chat_ctx(chat_ctx))
        self._stir()

    def update_options(self, *, tool_choice: NotGivenOr[Any] = NOT_GIVEN) -> None:
        if is_given(tool_choice):
            self._tool_choice = tool_choice
            self._version += 1
            if self._changed is None:
                self._active.session.update_options(tool_choice=tool_choice)

    def push_audio(self, frame: AudioFrame) -> None:
        """Send sound of the user. Sound that a failed model may have missed is kept for the next
        one."""
        ms = frame.samples_per_channel * 1000 / frame.sample_rate
        child = self._active
        finds_turns = child.session.capabilities.turn_detection
        unheard = child.error is not None or not finds_turns
        self._kept.add(ms, frame, wanted=self._speaking or unheard or self._turns.open)
        if child.error is None:
            child.session.push_audio(frame)

    def push_video(self, frame: Any) -> None:
        if self._active.error is None:
            self._active.session.push_video(frame)

    def generate_reply(
        self,
        *,
        instructions: NotGivenOr[str] = NOT_GIVEN,
        tool_choice: NotGivenOr[Any] = NOT_GIVEN,
        tools: NotGivenOr[list[Any]] = NOT_GIVEN,
    ) -> asyncio.Future[GenerationCreatedEvent]:
        """Ask for a reply. If a model fails, its unanswered requests go to the next one."""
        given = {"instructions": instructions, "tool_choice": tool_choice, "tools": tools}
        return self._request({name: value for name, value in given.items() if is_given(value)})

    def _request(self, options: dict[str, Any]) -> asyncio.Future[GenerationCreatedEvent]:
        if self._over is not None:
            failed: asyncio.Future[GenerationCreatedEvent] = self._loop.create_future()
            failed.set_exception(RealtimeError(str(self._over), code=self._over.code))
            return failed
        return self._requests.add(options, None if self._changed else self._active)

    def say(self, text: str | AsyncIterable[str]) -> asyncio.Future[GenerationCreatedEvent]:
        return self._active.session.say(text)

    def commit_audio(self) -> None:
        self._turns.ended(Mark.COMMIT)
        if self._active.error is None:
            self._active.session.commit_audio()

    def clear_audio(self) -> None:
        self._turns.clear()
        if self._active.error is None:
            self._active.session.clear_audio()

    def start_user_activity(self) -> None:
        if self._active.error is None:
            self._active.session.start_user_activity()

    def interrupt(self) -> None:
        """Stop the reply that runs and those that were asked for."""
        if self._changed is not None:
            self._requests.fail("the reply was interrupted before it began", "superseded")
            self._running = None
        else:
            self._active.session.interrupt()

    def truncate(
        self,
        *,
        message_id: str,
        modalities: list[Literal["text", "audio"]],
        audio_end_ms: int,
        audio_transcript: NotGivenOr[str] = NOT_GIVEN,
    ) -> None:
        """Cut off the part of a message that the user did not hear, even if an earlier model spoke
        it."""
        spoke = self._moved.get(message_id, self._active.session)
        spoke.truncate(
            message_id=message_id,
            modalities=modalities,
            audio_end_ms=audio_end_ms,
            audio_transcript=audio_transcript,
        )
        if spoke is self._active.session:
            return
        heard = spoke.chat_ctx.get_by_id(message_id)
        items = replaced(self.chat_ctx.items, message_id, heard)
        if self._items is not None:
            self._items = items
        else:
            self._spawn(self._give(items), "truncate the unheard part")

    async def restart(self, *, switch_model: bool = False) -> None:
        """Continue on a new session, between two turns; with `switch_model`, on a session of the
        next model.

        Raises:
            RealtimeError: no model could be reached. The session continues unchanged.
        """
        await self._settled()
        now, old = self._loop.time(), self._active.index
        usable = self._team.usable(now)
        if switch_model or old is None:
            usable = [index for index in usable if index != old]
            later = [index for index in usable if old is not None and index > old]
            usable = later + [index for index in usable if index not in later]
        else:
            usable = [old]
        for index in usable:
            if await self._go_over_to(index):
                return
        raise RealtimeError("restart: no model could be reached", code="unavailable")

    async def aclose(self) -> None:
        """End the conversation, within about a second. Never raises. Futures that wait end in a
        `RealtimeError`."""
        self._finish(RealtimeError("the session was closed", code="closed"))
        current = asyncio.current_task()
        tasks = [task for task in self._tasks if task is not current]
        for session in list(self._open):
            self._close_soon(session)
        await _aio.end(*tasks, within=0.5, name="realtime fallback")
        if self._closings:
            # Unlike `gather`, this leaves them running if the caller gives up.
            await asyncio.wait(self._closings)

    def _register(self, event: Any, callback: Any, *, once: bool) -> Any:
        found = super()._register(event, callback, once=once)
        if event not in self._names:
            # A vendor-specific event, from the active session.
            self._names.add(event)
            self._forward(self._active, event)
        return found

    # -- calls that must reach the active session ------------------------------------------------

    async def _settled(self) -> None:
        """Wait until no change of models is under way.

        Raises:
            RealtimeError: the session is over.
        """
        while self._changed is not None and self._over is None:
            await asyncio.shield(self._changed)
        if self._over is not None:
            raise RealtimeError(str(self._over), code=self._over.code)

    async def _on_active(self, call: Callable[[RealtimeSession[Any]], Any]) -> None:
        """Make `call` on the active session. If that session fails, repeat it on the next one."""
        while True:
            await self._settled()
            child = self._active
            try:
                await call(child.session)
            except RealtimeError:
                if child is self._active and child.error is None:
                    raise
            if child is self._active and self._changed is None:
                return

    async def _give(self, items: list[ChatItem]) -> None:
        try:
            await self.update_chat_ctx(ChatContext(items))
        except RealtimeError as error:
            logger.warning("the history could not be brought up to date: %s", error)

    # -- replies -----------------------------------------------------------------------------

    def _reply_over(
        self, event: GenerationCreatedEvent, until: int, unwritten: list[str], status: str
    ) -> None:
        if self._running is event:
            self._running = None
            self._cut = status == "failed"
        if status == "completed":
            self._turns.answered(until, unwritten)
        self._stir()

    # -- events ------------------------------------------------------------------------------

    def _forward(self, child: Child, name: str) -> None:
        def forward(*payload: Any) -> None:
            self._received(child, name, payload)

        child.session.on(name, forward)

    def _received(self, child: Child, name: str, payload: tuple[Any, ...]) -> None:
        if name == "error":
            self._errored(child, payload[0])
            return
        if child is not self._active or self._over is not None:
            return
        if name == "generation_created":
            self._began(payload[0])
        elif name == "input_speech_started":
            self._speaking, self._cut = True, False
        elif name == "input_speech_stopped":
            self._speaking = False
            self._turns.ended(Mark.TURN)
        elif name == "input_audio_transcription_completed":
            told = cast("InputTranscriptionCompleted", payload[0])
            if told.is_final:
                self._turns.transcribed(told.item_id, told.transcript.strip())
        self.emit(name, *payload)

    def _began(self, event: GenerationCreatedEvent) -> None:
        self._running, self._cut = event, False
        outcome, until = event.outcome, self._turns.number
        unwritten = self._turns.unwritten(self.chat_ctx.items) if self._turns.open else []

        def over(done: asyncio.Future[Any]) -> None:
            status = "failed"
            if not done.cancelled() and done.exception() is None:
                status = str(done.result())
            self._reply_over(event, until, unwritten, status)

        if outcome is None:
            self._running = None  # its end cannot be observed
        elif isinstance(outcome, asyncio.Future):
            cast("asyncio.Future[Any]", outcome).add_done_callback(over)
        else:
            self._spawn(_result(outcome), "outcome of a reply").add_done_callback(over)

    def _errored(self, child: Child, event: RealtimeModelError) -> None:
        if self._over is not None or child.error is not None:
            return
        if event.recoverable:
            if child is self._active:
                self.emit("error", event)
                if child.index is not None:
                    self._spawn(self._watch(child), "watch a realtime model")
        elif child is self._active:
            self._failed(child, event.error, event)
        else:
            child.error = event.error
            self._stir()

    # -- from one session to the next ----------------------------------------------------------

    def _make(self, index: int) -> Child | None:
        """A session of this model; ``None`` if making it fails."""
        model = self._team.models[index]
        try:
            if self._turn_detection_disabled:
                session = model.session(turn_detection_disabled=True)
            else:
                session = model.session()
        except Exception as error:
            logger.warning("%s: no session could be made: %s", model.label, error)
            self._team.failed(index, self._loop.time())
            return None
        return self._bound(Child(session, index))

    def _make_next(self) -> Child | None:
        """A session of the next model not tried since the last success; else of the text model."""
        for index in self._team.usable(self._loop.time()):
            if index not in self._tried:
                self._tried.add(index)
                child = self._make(index)
                if child is not None:
                    return child
        if self._team.text is None:
            return None
        self._tried.clear()
        every = self._team.models
        replies = all(model.capabilities.auto_tool_reply_generation for model in every)
        model = self._realtime_model
        session = TextSession(model, self._team.text, replies_to_tools=replies)
        return self._bound(Child(session, None))

    async def _watch(self, child: Child) -> None:
        """Wait until a session has a connection. Without one in time, the session has failed."""
        seconds = self._team.attempt_timeout
        error: Exception
        try:
            async with _aio.within(seconds):
                await child.session.connected()
        except TimeoutError:
            error = APITimeoutError(f"no connection within {seconds:g} s")
        except RealtimeError as ended:
            error = APIError(str(ended))
        else:
            if child is self._active and child.error is None and child.index is not None:
                self._tried.clear()
                self._cut = False
                self._team.reached(child.index)
            return
        if child is self._active:
            self._failed(child, error, None)

    def _failed(self, child: Child, error: Exception, event: RealtimeModelError | None) -> None:
        """The active session has ended: the next one."""
        if child.error is not None or self._over is not None:
            return
        child.error = error
        if child.index is not None:
            self._tried.add(child.index)
            self._team.failed(child.index, self._loop.time())
        cut = self._cut or self._running is not None
        self._requests.give_up(child)
        self._carry(child)
        self._close_soon(child.session)
        told = event or error_event(self._realtime_model.label, error, recoverable=True)
        following = self._make_next()
        if following is None:
            self._changed_over()
            ended = self._exhausted(error)
            self._finish(ended)
            self.emit("error", told.model_copy(update={"recoverable": False}))
            return
        self.emit("error", told.model_copy(update={"recoverable": True}))
        self._spawn(self._go_on(following, regenerate=cut), "next realtime model")

    async def _go_on(self, child: Child | None, *, regenerate: bool) -> None:
        """Set up the next session and use it; if that fails, try the one after it."""
        error: Exception | None = None
        while child is not None and self._over is None:
            try:
                await self._furnish(child)
            except Exception as failure:
                error = failure
            else:
                error = child.error
            if error is None:
                self._install(child, regenerate=regenerate)
                return
            logger.warning("the next session could not be set up: %s", error)
            child.error = error
            if child.index is not None:
                self._team.failed(child.index, self._loop.time())
            self._close_soon(child.session)
            child = self._make_next() if child.index is not None else None
        if self._over is None:
            self._changed_over()
            self._finish(self._exhausted(error))
            error = error or RealtimeError("no model is left")
            self.emit("error", error_event(self._realtime_model.label, error, recoverable=False))

    async def _furnish(self, child: Child) -> None:
        """Give a session instructions, tools, options and history."""
        session = child.session
        while True:
            version = self._version
            if self._instructions is not None:
                await session.update_instructions(self._instructions)
            if self._tools is not None:
                await session.update_tools(list(self._tools))
            if is_given(self._tool_choice):
                session.update_options(tool_choice=self._tool_choice)
            items = self._turns.carried(self.chat_ctx.items)
            if items:
                await session.update_chat_ctx(ChatContext(items))
            if version == self._version:
                return

    def _carry(self, child: Child) -> None:
        """Detach the active session: keep the history here, and let calls wait."""
        self._items = self._turns.carried(child.session.chat_ctx.items)
        self._changed = self._changed or self._loop.create_future()

    def _install(self, child: Child, *, regenerate: bool) -> None:
        previous = self._active.session
        items = self._items or []
        for item in items:
            if isinstance(item, ChatMessage) and item.role == "assistant":
                self._moved.setdefault(item.id, previous)
        sessions = list(dict.fromkeys(self._moved.values()))[-_RETIRED:]
        self._moved = {
            item_id: session for item_id, session in self._moved.items() if session in sessions
        }
        self._active = child
        self._running, self._cut = None, False
        self._changed_over()
        self._installed(child)
        unheard = self._turns.open or self._speaking
        self._turns.begin_anew()
        for entry in self._kept.entries():
            if isinstance(entry, Mark):
                child.session.commit_audio()
            else:
                child.session.push_audio(entry)
        self._speaking = False
        self.emit("session_reconnected", RealtimeSessionReconnectedEvent())
        self._requests.ask(child)
        by_itself = unheard and child.session.capabilities.turn_detection
        if (
            regenerate
            and self._team.regenerate
            and not self._requests
            and not by_itself
            and not unanswered(items)
        ):
            self._request({})

    def _installed(self, child: Child) -> None:
        if child.index is not None:
            self._spawn(self._watch(child), "watch a realtime model")
        elif self._seeking is None or self._seeking.done():
            self._seeking = self._spawn(self._seek_speech(), "seek a realtime model")

    def _bound(self, child: Child) -> Child:
        self._open.add(child.session)
        for name in self._names:
            self._forward(child, name)
        return child

    def _changed_over(self) -> None:
        self._items = None
        changed, self._changed = self._changed, None
        if changed is not None and not changed.done():
            changed.set_result(None)

    def _close_soon(self, session: RealtimeSession[Any]) -> None:
        if session in self._open:
            self._open.discard(session)
            task = self._loop.create_task(session.aclose(), name="close a realtime session")
            self._closings.add(task)
            task.add_done_callback(self._closings.discard)

    # -- changes that are not urgent -------------------------------------------------------------

    async def _seek_speech(self) -> None:
        """While the text model answers, try the models whose cooldown is over, and return to
        speech."""
        while self._active.index is None and self._over is None:
            now = self._loop.time()
            usable = self._team.usable(now)
            if not usable:
                await asyncio.sleep(max(min(self._team.rests_until) - now, 0.0))
                continue
            if not await self._go_over_to(usable[0]):
                await asyncio.sleep(0.1)  # a cool-down of 0 must not become a busy loop

    async def _go_over_to(self, index: int) -> bool:
        """Make a session of this model beside the active one, and switch to it between two turns.
        Return whether that succeeded."""
        child = self._make(index)
        if child is None:
            return False
        try:
            try:
                async with _aio.within(self._team.attempt_timeout):
                    await self._furnish(child)
                    await child.session.connected()
            except (APIError, ConfigurationError, RealtimeError, TimeoutError) as error:
                child.error = child.error or error
            while child.error is None and self._over is None:
                await self._between_turns(child)
                old = self._active
                if self._changed is not None or old.error is not None:
                    break
                self._carry(old)
                try:
                    await self._furnish(child)
                except (ConfigurationError, RealtimeError) as error:
                    child.error = child.error or error
                if self._active is not old or old.error is not None:
                    break  # the active session failed meanwhile and was replaced
                if child.error is None and self._calm:
                    self._close_soon(old.session)
                    self._tried.clear()
                    self._team.reached(index)
                    self._install(child, regenerate=False)
                    return True
                self._changed_over()
                self._requests.ask(old)
            if child.error is not None:
                logger.info("%s: not reached: %s", self._team.models[index].label, child.error)
                self._team.failed(index, self._loop.time())
            return False
        finally:
            if self._active is not child:
                self._close_soon(child.session)

    @property
    def _calm(self) -> bool:
        """Whether no reply runs, none is requested from the active session, and the user is
        silent."""
        return self._running is None and not self._requests.asked and not self._speaking

    def _stir(self) -> None:
        self._stirred.set()

    async def _between_turns(self, child: Child) -> None:
        """Wait until no reply runs or is requested, the user is silent, and no tool runs."""
        patient_until = self._loop.time() + _PATIENCE
        while child.error is None and self._over is None and self._changed is None:
            waits = unanswered(self.chat_ctx.items) and self._loop.time() < patient_until
            if self._calm and not waits:
                return
            self._stirred.clear()
            try:
                async with asyncio.timeout(1.0):
                    await self._stirred.wait()
            except TimeoutError:
                continue

    # -- the end -----------------------------------------------------------------------------

    def _exhausted(self, error: Exception | None) -> RealtimeError:
        why = f": {error}" if error is not None else ""
        return RealtimeError(f"all realtime models have failed{why}", code="unavailable")

    def _finish(self, why: RealtimeError) -> None:
        self._over = self._over or why
        self._changed_over()
        self._requests.fail(str(why), why.code)
        self._stir()

    def _spawn(self, work: Any, name: str) -> asyncio.Task[Any]:
        task: asyncio.Task[Any] = self._loop.create_task(work, name=name)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task


async def _result(outcome: Any) -> Any:
    return await outcome
