"""WireSession: a realtime session over any protocol.

It does what all vendors have in common: it connects and reconnects, passes on events, keeps a copy
of the conversation, and ends every future by its deadline. The protocol holds everything specific
to a vendor. `rejoinder._core.realtime.replies` decides about replies.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Literal, TypeVar

import msgspec

from rejoinder import _aio, _stamps
from rejoinder._core import jsontext
from rejoinder._core.items import ChatItem, ChatMessage
from rejoinder._core.realtime import messages as m
from rejoinder._core.realtime.frames import read_frame
from rejoinder._core.realtime.replies import Announce, Cancel, Effect, Fail, Finish, Replies, Send
from rejoinder._sections import explained
from rejoinder.errors import APIError, APIStatusError, ConfigurationError
from rejoinder.llm.chat_context import ChatContext
from rejoinder.llm.realtime import (
    GenerationCreatedEvent,
    InputSpeechStartedEvent,
    InputSpeechStoppedEvent,
    RealtimeError,
    RealtimeModel,
    RealtimeSession,
    RealtimeSessionReconnectedEvent,
    RemoteItemAddedEvent,
    error_event,
)
from rejoinder.llm.tool_context import ToolContext
from rejoinder.media import AudioFrame
from rejoinder.providers.sessions.bills import Bills
from rejoinder.providers.sessions.calls import INTERRUPTED, Calls
from rejoinder.providers.sessions.connections import Connections
from rejoinder.providers.sessions.conversation import Conversation, keep, outcome
from rejoinder.providers.sessions.link import Link
from rejoinder.providers.sessions.open_replies import OpenReplies
from rejoinder.providers.sessions.options import SessionOptions, checked_session_options, code_of
from rejoinder.providers.sessions.settings import Settings
from rejoinder.providers.sessions.turns import UserTurns
from rejoinder.providers.sessions.uplink import COMMITTING, Uplink
from rejoinder.providers.sessions.video import frame_url
from rejoinder.transport.ws import WebSocket
from rejoinder.types import NOT_GIVEN, NotGivenOr, is_given

__all__ = ["SessionOptions", "WireSession"]

logger = logging.getLogger("rejoinder")

TEvent = TypeVar("TEvent")


class WireSession(RealtimeSession[TEvent]):
    """A session over a socket and a protocol. Subclasses add a vendor's own options.

    Args:
        model: the model that makes the session.
        dial: opens a socket.
        make_protocol: makes the protocol object of one connection.
        describe_tools: writes tools in the vendor's form.
        options: deadlines and bounds.
        settings: the vendor's options at the beginning.
        resume: handle of an earlier session to continue.
        instructions: those at the beginning.

    Raises:
        RuntimeError: no event loop is running.
    """

    _frame_event = ""  # shows each frame of the service, decoded

    def __init__(
        self,
        model: RealtimeModel,
        *,
        dial: Callable[[], Awaitable[WebSocket]],
        make_protocol: Callable[[], m.RealtimeProtocol],
        describe_tools: Callable[[ToolContext], Sequence[dict[str, Any]]],
        options: SessionOptions,
        settings: dict[str, Any],
        resume: str | None = None,
        instructions: str | None = None,
    ) -> None:
        super().__init__(model)
        try:
            self._loop = asyncio.get_running_loop()
        except RuntimeError:
            text = f"{type(self).__name__}: no event loop is running; make sessions in a coroutine"
            raise RuntimeError(explained(text, "no loop")) from None
        self._describe_tools = describe_tools
        self._options = options
        self._traits = make_protocol().traits
        self._settings = Settings(settings, instructions)

        self._conversation = Conversation(
            confirmed=self._traits.confirms,
            sound_of=lambda item_id: self._uplink.sound_of(item_id),
        )
        self._replies = Replies(timeout=options.reply_timeout, silence=options.silence)
        self._bills = Bills(model, lambda bill: self.emit("metrics_collected", bill))
        self._open = OpenReplies(
            self._conversation, rate=self._traits.output_rate, names=self._bills.names
        )
        self._calls = Calls(self._traits.result_media)
        self._turns = UserTurns()
        self._uplink = Uplink(
            self._traits,
            lambda: self._connections.link,
            kept_sound=options.kept_sound,
            finds_turns=lambda: self.capabilities.turn_detection,
        )
        self._over: RealtimeError | None = None
        self._connections = Connections(
            self,
            dial=dial,
            make_protocol=make_protocol,
            options=options.conn_options,
            max_duration=options.max_duration,
            silence=options.silence,
            standby=self._traits.standby,
            pong=self._traits.pong,
            resume=resume,
        )
        look = max(0.05, min(1.0, options.silence / 4))
        self._timer = _aio.Alarm(self._due, self._tick, stalled=self._excuse, interval=look)
        self._timer.arm()

    # -- what the base class asks for ----------------------------------------------------------

    @property
    def chat_ctx(self) -> ChatContext:
        """The conversation as the service holds it; a copy."""
        return self._conversation.to_chat_ctx()

    @property
    def tools(self) -> ToolContext:
        return self._settings.tool_ctx

    @property
    def working(self) -> bool:
        return self._over is None and (self._replies.working or bool(self._calls.open))

    async def connected(self) -> None:
        """Wait until a connection is in use.

        Raises:
            RealtimeError: the session is over.
        """
        if self._over is None:
            await self._connections.connected()
        if self._over is not None:
            raise RealtimeError(str(self._over), code=self._over.code)

    @checked_session_options
    async def update_instructions(self, instructions: str) -> None:
        """Replace the instructions.

        Raises:
            RealtimeError: the service refused them, or did not confirm in time.
        """
        if instructions != self._settings.instructions:
            await self._changed(self._settings.change(instructions=instructions))

    @checked_session_options
    async def update_tools(self, tools: list[Any]) -> None:
        """Replace the tools.

        Raises:
            ConfigurationError: a tool cannot be described to this service.
            RealtimeError: the service refused them (then the old ones stay), or did not confirm in
                time.
        """
        tool_ctx = ToolContext(tools)
        specs = self._describe_tools(tool_ctx)
        if specs == self._settings.tools:
            self._settings.tool_ctx = tool_ctx  # same schema, other functions
        else:
            await self._changed(self._settings.change(tools=(tool_ctx, specs)))

    @checked_session_options
    def update_options(self, *, tool_choice: NotGivenOr[Any] = NOT_GIVEN) -> None:
        self._change_settings({"tool_choice": tool_choice} if is_given(tool_choice) else {})

    @checked_session_options
    async def update_chat_ctx(self, chat_ctx: ChatContext) -> None:
        """Make the service's conversation equal to `chat_ctx`.

        Results of tools that are new in it are sent once each; a call that was answered or
        cancelled gets no second answer. Items that the service is still adding (the running reply,
        a user message without transcript) stay, whether `chat_ctx` has them or not.

        Raises:
            RealtimeError: the service refused an item, or did not confirm in time. All others are
                in place.
        """
        link = self._connections.link
        waiting, answered = self._conversation.change(
            link, chat_ctx, self._calls.answer, under_way=self._open.message_ids
        )
        for call_id in answered:
            self._apply(self._replies.answered(call_id, self._loop.time()))
        if link is not None and link.stale:
            self._renew(anew=True)
        await outcome(waiting, within=self._options.update_timeout)

    @checked_session_options
    def push_audio(self, frame: AudioFrame) -> None:
        """Send sound of the user. Without a connection, keep it for the next one.

        Raises:
            ConfigurationError: the frame has another form than the service takes and ``soxr`` is
                not installed.
        """
        self._uplink.push(frame)

    def push_video(self, frame: Any) -> None:
        self._send(m.SendImage(_stamps.new_id("video_"), frame_url(frame)))

    def commit_audio(self) -> None:
        """Turn the pushed sound into a user message. Does nothing for less than 100 ms of sound."""
        self._uplink.commit()

    def clear_audio(self) -> None:
        self._uplink.clear()
        self._send(m.ClearAudio(_stamps.new_id("clear_")))

    @checked_session_options
    def generate_reply(
        self,
        *,
        instructions: NotGivenOr[str] = NOT_GIVEN,
        tool_choice: NotGivenOr[Any] = NOT_GIVEN,
        tools: NotGivenOr[list[Any]] = NOT_GIVEN,
    ) -> asyncio.Future[GenerationCreatedEvent]:
        """Ask for a reply. While another one runs, the request waits for its end.

        The future ends in the reply or in a `RealtimeError`: refused, interrupted
        (``code="superseded"``), not begun in time (``code="timeout"``), or the session ended.
        Cancelling it cancels the reply.
        """
        ref = _stamps.new_id("response_create_")
        command = m.CreateReply(
            ref,
            instructions=instructions if is_given(instructions) else None,
            tool_choice=tool_choice if is_given(tool_choice) else None,
            tools=self._describe_tools(ToolContext(tools)) if is_given(tools) else None,
        )
        given_up = self._replies.give_up
        future = self._open.ask(ref, lambda ref: self._apply(given_up(ref, self._loop.time())))
        if self._over is not None:
            self._open.fail([ref], str(self._over), self._over.code)
        else:
            self._apply(self._replies.request(command, self._loop.time()))
        return future

    def interrupt(self) -> None:
        """Stop the running reply and all requested ones, if any. Open calls get a placeholder: a
        service that waits for a result might stay silent for ever."""
        self._apply(self._replies.interrupt(self._loop.time()))
        self._abandon_calls("The user interrupted. A result may follow as text.")

    def start_user_activity(self) -> None:
        self._send(m.StartActivity(_stamps.new_id("activity_")))

    @checked_session_options
    def truncate(
        self,
        *,
        message_id: str,
        modalities: list[Literal["text", "audio"]],
        audio_end_ms: int,
        audio_transcript: NotGivenOr[str] = NOT_GIVEN,
    ) -> None:
        """Cut off what the user did not hear, here and at the service. Legal in every state: the
        time is clamped to the sound received, and a message without heard text is removed. If the
        service supports no truncation, only the local copy is cut."""
        self._conversation.cut(
            self._connections.link,
            message_id,
            audio_end_ms,
            audio_transcript if is_given(audio_transcript) else None,
            audio="audio" in modalities,
            told=self._realtime_model.capabilities.message_truncation,
        )

    async def aclose(self) -> None:
        """End the session and its connections, within about a second. Never raises. Futures that wait
        end in a `RealtimeError`."""
        self._finish(RealtimeError("the session was closed", code="closed"))
        await self._connections.aclose()

    # -- settings ------------------------------------------------------------------------------

    def _change_settings(self, changes: dict[str, Any]) -> None:
        """Change options of the vendor; only what changes is sent."""
        known = self._settings.options
        changes = {
            name: value
            for name, value in changes.items()
            if name not in known or known[name] != value
        }
        if changes:
            self._tell(self._settings.change(options=changes))

    async def _changed(self, command: m.UpdateSession) -> None:
        self._tell(command)
        await self._settings.confirmed(command, within=self._options.update_timeout)

    def _tell(self, command: m.UpdateSession) -> None:
        """Send a change to the current connection. The next one begins with it."""
        link = self._connections.link
        waits = False
        if link is not None and link.protocol.takes(command):
            link.version = self._settings.version
            waits = self._send(command) and self._traits.confirms_settings
        elif link is not None:
            self._renew()
        if not waits:
            self._settings.applied(command.ref)

    def _renew(self, *, anew: bool = False) -> None:
        """Open a connection that can carry out a change; requests for replies wait for it."""
        self._replies.pause()
        self._connections.renew(anew=anew)

    def _abandon_calls(self, why: str) -> None:
        link = self._connections.link
        for call in self._calls.open:
            command = m.AbandonCall(_stamps.new_id("abandon_"), call, why)
            if link is not None and link.protocol.takes(command):
                self._send(command)
                self._replies.unblocked(call.call_id, self._loop.time())

    # -- sending -------------------------------------------------------------------------------

    def _send(self, command: m.Command, *, urgent: bool = False) -> bool:
        link = self._connections.link
        if link is None:
            return False
        try:
            return link.send(command, urgent=urgent)
        except ConfigurationError as error:
            self._report(APIStatusError(str(error), retryable=False), recoverable=True)
            return False

    # -- what the connections ask for ------------------------------------------------------------

    def settings_now(self) -> tuple[int, m.UpdateSession]:
        return self._settings.version, self._settings.now(history=not self._conversation.empty)

    def with_history(self, link: Link, settings: m.UpdateSession) -> m.UpdateSession:
        return self._conversation.with_history(link, settings)

    def give_history(self, link: Link) -> list[asyncio.Future[None]]:
        return self._conversation.give_history(link)

    def saw(self, frame: m.Frame) -> None:
        """Called with each frame before it is read. Vendors emit it as a vendor-specific event."""
        name: Any = self._frame_event
        if name in self._events:
            event = read_frame(frame)
            if event is not None:
                self.emit(name, event)

    def may_swap(self) -> bool:
        return self._replies.pressing or self._between_turns()

    def _between_turns(self) -> bool:
        link = self._connections.link
        return (
            self._replies.between_turns
            and self._uplink.quiet
            and not (self.capabilities.user_transcription and self._turns.unwritten)
            and (link is None or link.protocol.settled)
            and (self._traits.answers_move or not self._calls.open)
        )

    def installed(self, link: Link, *, again: bool) -> None:
        if link.version != self._settings.version:
            version, settings = self.settings_now()
            if link.protocol.takes(settings):
                link.version = version
                self._send(settings)
            else:
                self._renew()
        self._conversation.give_history(link)
        if link.resumed:
            self._abandon_calls("The connection was replaced. The result follows as text.")
        if self._uplink.replay(link):
            self._replies.hold(self._loop.time() + COMMITTING)
        self._bills.connected(link.acquire_time)
        if again:
            self.emit("session_reconnected", RealtimeSessionReconnectedEvent())
        if self._conversation.settle_late(link) and self._replies.idle:
            self._ask(m.CreateReply(_stamps.new_id("late_")))
        self._apply(self._replies.connected(self._loop.time()))
        early, link.early = link.early or (), None
        for event in early:
            self.received(link, event)

    def lost(self, link: Link) -> None:
        self._bills.flush()
        self._apply(self._replies.lost(self._loop.time()))
        if self._connections.handle is not None:
            self._uplink.forget_turns()  # the service keeps them
        self._conversation.settle(link)
        unheard = self._uplink.recall(self._conversation.followed)
        if self._turns.hearing is not None and self._uplink.keeps:
            unheard.append(self._turns.hearing)
        self._conversation.settle_turns(unheard)
        self._turns.unheard(unheard)
        self._settings.settle()

    def report(self, error: APIError) -> None:
        self._report(error, recoverable=True)

    def failed(self, error: APIError) -> None:
        if self._over is not None:
            return
        self._finish(RealtimeError(error.message, code=code_of(error)))
        self._report(error, recoverable=False)
        self._connections.stop()

    # -- time ------------------------------------------------------------------------------------

    def _due(self) -> float:
        return min(
            self._replies.deadline(),
            self._uplink.due(),
            self._connections.due(self._uplink.sent_at),
        )

    def _excuse(self, seconds: float) -> None:
        self._replies.excuse(seconds)
        self._connections.excuse(seconds)

    def _tick(self) -> None:
        if self._over is not None:
            return
        now = self._loop.time()
        effects = self._replies.tick(now)
        if any(isinstance(effect, Fail) for effect in effects):
            self._connections.doubt(now - self._options.reply_timeout)
        self._apply(effects)
        self._uplink.tick(now)
        self._connections.tick(now, self._uplink.sent_at)
        self._timer.arm()

    # -- effects ---------------------------------------------------------------------------------

    def _apply(self, effects: list[Effect]) -> None:
        for effect in effects:
            match effect:
                case Send(request):
                    self._ask(request)
                case Announce(reply_id, refs):
                    self.emit("generation_created", self._open.announce(reply_id, refs))
                case Cancel(reply_id):
                    self._send(m.CancelReply(_stamps.new_id("cancel_"), reply_id), urgent=True)
                case Finish(reply_id, status):
                    self._open.end(reply_id, status)
                case Fail(refs, message, code):
                    self._open.fail(refs, message, code)
        self._connections.swap_if_due()
        self._timer.arm()

    def _ask(self, request: m.CreateReply) -> None:
        link = self._connections.link
        if link is None:
            return
        if not self._traits.names_replies:
            self._replies.forgive()
        try:
            link.send(self._conversation.with_untold(link, request))
        except ConfigurationError as error:
            refused = APIStatusError(str(error), retryable=False)
            self._apply(self._replies.refused(request.ref, refused, self._loop.time()))

    # -- events ----------------------------------------------------------------------------------

    def received(self, link: Link, event: m.Event) -> None:
        """An event of the service."""
        if link is not self._connections.link:
            self._received_beside(link, event)
            return
        match event:
            case (
                m.AudioDelta()
                | m.TextDelta()
                | m.MessageStarted()
                | m.ModalityKnown()
                | m.MessageEnded()
            ):
                if self._replies.progressed(event.reply_id, self._loop.time()):
                    message = self._open[event.reply_id].take(event)
                    link.spoken.add(event.item_id)
                    keep(self._conversation.spoken, event.item_id, message.spoken)
            case m.MessageHeard(item_id, text, interrupted):
                self._conversation.set_text(item_id, text, interrupted=interrupted)
                self._connections.swap_if_due()
            case m.TextAppended(item_id, text):
                self._conversation.append_text(item_id, jsontext.heal(text))
            case m.SettingsApplied(ref):
                self._settings.applied(ref)
            case m.UsageReported():
                self._bills.reported(event)
            case m.ToolCalled():
                self._called(event)
            case m.Working():
                self._replies.works(self._loop.time())
            case m.Delegated(delegation_id):
                self._replies.blocked(delegation_id)
            case m.ItemAdded() | m.AudioCommitted() if self._conversation.full:
                self.failed(APIError(self._conversation.full, retryable=False))
            case m.ReplyStarted(reply_id, ref):
                link.unsure.clear()
                self._apply(self._replies.started(reply_id, ref, self._loop.time()))
            case m.ReplyEnded():
                link.served = link.served or event.status != "failed"
                self._reply_ended(event)
            case m.ItemAdded(item, previous_id, at_tail):
                self._item_added(link, item, previous_id, at_tail)
            case m.ItemDeleted(item_id):
                self._conversation.deleted(link, item_id)
            case m.SpeechStarted(item_id):
                self._uplink.speaking = True
                if not self._traits.names_replies:
                    self._replies.forgive()
                if item_id is not None:
                    self._turns.began(item_id)
                self.emit("input_speech_started", InputSpeechStartedEvent())
            case m.SpeechStopped():
                self._uplink.stopped()
                transcribed = self.capabilities.user_transcription
                self.emit("input_speech_stopped", InputSpeechStoppedEvent(transcribed))
                self._connections.swap_if_due()
            case m.AudioCommitted(item_id, previous_id):
                link.known.add(item_id)
                if self._turns.committed(item_id):
                    self._uplink.committed(item_id, written=self._turns.written(item_id))
                message = ChatMessage(id=item_id, role="user", content=[])
                self._conversation.insert(previous_id, message)
                self._apply(self._replies.release(self._loop.time()))
            case m.Transcript():
                self._transcribed(event)
            case m.CallsCancelled(call_ids):
                for call_id in call_ids:
                    self._calls.settle(call_id, "cancelled")
                    self._apply(self._replies.answered(call_id, self._loop.time()))
            case m.Refused(ref, error, code, busy, harmless):
                self._refused(link, ref, error, code, busy, harmless)
            case m.ServiceFailed(error, fatal, _):
                if fatal:
                    self.failed(error)
                else:
                    self._report(error, recoverable=True)
            case m.SessionEnding(seconds):
                self._connections.ending_in(seconds)
                self._timer.arm()
            case m.Resumable(token):
                self._connections.resumable(link.handle(token))
            case m.SessionReady() | m.SessionEnded() | m.SoundMade():
                return

    def _received_beside(self, link: Link, event: m.Event) -> None:
        """Events of a connection that is being prepared, or was replaced."""
        match event:
            case m.ItemAdded(item):
                link.known.add(item.id)
                self._conversation.confirm(link, item.id, created=True, in_use=False)
            case m.Refused(ref, error, _, _, harmless):
                if not harmless:
                    logger.warning("an item of the history was refused: %s", error.message)
                self._conversation.refuse(link, ref, error, None, harmless=True)
            case m.MessageHeard(item_id, text, interrupted):
                self._conversation.set_text(item_id, text, interrupted=interrupted)
            case m.UsageReported():
                self._bills.reported(event)
            case m.ServiceFailed(error, True, _):
                link.abort(error.message)
            case _:
                if link.early is not None:
                    link.early.append(event)

    def _item_added(
        self, link: Link, item: ChatItem, previous_id: str | None, at_tail: bool
    ) -> None:
        link.known.add(item.id)
        self._conversation.confirm(link, item.id, created=True, in_use=True)
        if self._conversation.insert(previous_id, item, at_tail=at_tail):
            self.emit("remote_item_added", RemoteItemAddedEvent(previous_id, item))

    def _called(self, event: m.ToolCalled) -> None:
        reply_id, call = event.reply_id, event.call
        announced = self._conversation.complete_call(call)
        if self._calls.knows(call.call_id):
            return  # reported twice; it runs once
        unwanted = self._settings.options.get("tool_choice") == "none"
        if not self._replies.progressed(reply_id, self._loop.time()) or unwanted:
            why = "No tools may be used now." if unwanted else INTERRUPTED
            self._conversation.create(
                self._connections.link,
                call.id if announced else None,
                self._calls.refuse(call, why),
            )
            return
        self._calls.hand_out(call)
        self._replies.called(call.call_id, waits=event.waits)
        self._open[reply_id].call(call)

    def _reply_ended(self, event: m.ReplyEnded) -> None:
        error = event.error
        reply = self._open.get(event.reply_id)
        if reply is not None:
            reply.usage = event.usage
        self._apply(
            self._replies.ended(
                event.reply_id,
                event.status,
                event.ref,
                self._loop.time(),
                message=error.message if error is not None else "",
                code=event.reason,
            )
        )
        if self._open.take(event.reply_id) is not None and reply is not None:
            status = reply.outcome.result() if reply.outcome.done() else event.status
            reply.end(event.status)
            self._bills.ended(reply, status, usage_follows=event.usage_follows)
        link = self._connections.link
        if link is not None and link.untold:
            self._conversation.give_history(link)
        if error is not None:
            if event.fatal:
                self.failed(error)
            else:
                self._report(error, recoverable=True)

    def _transcribed(self, event: m.Transcript) -> None:
        if not event.text.isascii():
            event = msgspec.structs.replace(event, text=jsontext.heal(event.text))
        completed = self._turns.transcribed(event)
        if completed is None:
            return
        if event.usage is not None:
            self._bills.transcribed(event.item_id, event.usage)
        if event.final and not event.failed:
            self._uplink.written(event.item_id)
        if event.text and event.final:
            self._conversation.set_transcript(event.item_id, event.text, event.confidence)
        elif event.text:
            self._conversation.set_partial(event.item_id, event.text)
        self.emit("input_audio_transcription_completed", completed)
        self._connections.swap_if_due()

    def _refused(
        self, link: Link, ref: str, error: APIError, code: str | None, busy: bool, harmless: bool
    ) -> None:
        if self._conversation.refuse(link, ref, error, code, harmless=harmless):
            return
        if self._settings.refused(ref, error, code):
            link.version = self._settings.version
            self._report(error, recoverable=True)
            return
        effects = self._replies.refused(ref, error, self._loop.time(), code=code, busy=busy)
        if self._open.is_asked(ref) or effects:
            self._apply(effects)
        elif not harmless:
            self._report(error, recoverable=True)

    # -- the end ---------------------------------------------------------------------------------

    def _report(self, error: Exception, *, recoverable: bool) -> None:
        label = self._realtime_model.label
        logger.log(logging.WARNING if recoverable else logging.ERROR, "%s: %s", label, error)
        self.emit("error", error_event(label, error, recoverable=recoverable))

    def _finish(self, why: RealtimeError) -> None:
        self._over = self._over or why
        self._bills.flush()
        self._settings.settle(why)
        self._timer.stop()
        for effect in self._replies.fail_all(str(why), why.code):
            if isinstance(effect, Fail):
                self._open.fail(effect.refs, effect.message, effect.code)
            elif isinstance(effect, Finish):
                self._open.end(effect.reply_id, effect.status)
        link = self._connections.link
        if link is not None:
            self._conversation.settle(link, why)
        self._conversation.settle_turns()
        self._open.finish(why)
