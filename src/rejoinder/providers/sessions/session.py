"""WireSession: a realtime session over any protocol.

What it does is the same for every vendor: connect and reconnect, hand on events, keep the copy of
the conversation, end every future by its deadline. What a vendor says, and how, is the protocol's.

A reply is decided about in `rejoinder._core.realtime.replies`; the shell carries out what that
says. Connections are replaced before they are missed: at the age `max_duration`, or when the
service announces an end, the next one is opened beside the old one, given instructions, tools and
history, and put in its place between two turns.
"""

from __future__ import annotations

import asyncio
import logging
import math
import random
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal, TypeVar, cast

from rejoinder import _aio, _stamps
from rejoinder._core import retry
from rejoinder._core.items import ChatItem, ChatMessage, FunctionCall, FunctionCallOutput
from rejoinder._core.realtime import messages as m
from rejoinder._core.realtime.heard import SpokenMessage, heard
from rejoinder._core.realtime.replies import Announce, Cancel, Effect, Fail, Finish, Replies, Send
from rejoinder.errors import APIConnectionError, APIError, APIStatusError, ConfigurationError
from rejoinder.llm.chat_context import ChatContext
from rejoinder.llm.realtime import (
    GenerationCreatedEvent,
    InputSpeechStartedEvent,
    InputSpeechStoppedEvent,
    InputTranscriptionCompleted,
    RealtimeError,
    RealtimeModel,
    RealtimeModelError,
    RealtimeSession,
    RealtimeSessionReconnectedEvent,
    RemoteItemAddedEvent,
)
from rejoinder.llm.remote_chat_context import RemoteChatContext
from rejoinder.llm.tool_context import ToolContext
from rejoinder.llm.utils import compute_chat_ctx_diff
from rejoinder.media import AudioFrame
from rejoinder.metrics import Metadata, RealtimeModelMetrics
from rejoinder.providers.sessions.link import Link, PendingItem, describe_end
from rejoinder.providers.sessions.sound import KeptSound, SoundInput
from rejoinder.providers.sessions.streams import Reply
from rejoinder.transport.ws import Closed, WebSocket
from rejoinder.types import (
    DEFAULT_API_CONNECT_OPTIONS,
    NOT_GIVEN,
    APIConnectOptions,
    NotGivenOr,
    is_given,
)

__all__ = ["SessionOptions", "WireSession"]

logger = logging.getLogger("rejoinder")

TEvent = TypeVar("TEvent")

_REMEMBERED: Final = 256
_MIN_COMMIT_MS: Final = 100
"""Milliseconds of sound below which services refuse a commit."""
_GOOD_LIFE: Final = 10.0
"""Seconds after which a connection counts as good: the next failure starts the count anew."""
_FURNISH_TIMEOUT: Final = 10.0
"""Seconds that a service may take to confirm the history of a new connection."""
_FORCE_AFTER: Final = 60.0
"""Seconds that a swap at `max_duration` waits for the end of a turn."""
_MARGIN: Final = 2.0
"""Seconds before an announced end at which a swap no longer waits."""


@dataclass(frozen=True, kw_only=True)
class SessionOptions:
    """Deadlines and bounds of a session, in seconds."""

    conn_options: APIConnectOptions = DEFAULT_API_CONNECT_OPTIONS
    reply_timeout: float = 10.0
    """From the sending of a request for a reply to its beginning."""
    update_timeout: float = 5.0
    """For the service to confirm a change of the conversation."""
    silence: float = 20.0
    """A service from which nothing comes for so long, although sound goes up and it was asked for a
    sign, is taken for dead; so is a reply that stands still."""
    max_duration: float | None = None
    """Age at which a connection is replaced between two turns. ``None``: never."""
    kept_sound: float = 30.0
    """Sound of the user that is kept for a next connection while none is there."""


class WireSession(RealtimeSession[TEvent]):
    """A session over a socket and a protocol. Subclasses add a vendor's own options.

    Args:
        model: makes the session.
        dial: opens a socket.
        make_protocol: makes the protocol object of one connection.
        describe_tools: writes tools in the vendor's form.
        options: deadlines and bounds.
        settings: the vendor's options at the beginning.

    Raises:
        RuntimeError: no event loop is running.
    """

    def __init__(
        self,
        model: RealtimeModel,
        *,
        dial: Callable[[], Awaitable[WebSocket]],
        make_protocol: Callable[[], m.RealtimeProtocol],
        describe_tools: Callable[[ToolContext], Sequence[dict[str, Any]]],
        options: SessionOptions,
        settings: dict[str, Any],
    ) -> None:
        super().__init__(model)
        try:
            self._loop = asyncio.get_running_loop()
        except RuntimeError:
            raise RuntimeError(
                f"{type(self).__name__}: no event loop is running; make sessions in a coroutine"
            ) from None
        self._dial = dial
        self._make_protocol = make_protocol
        self._describe_tools = describe_tools
        self._options = options
        self._codec = make_protocol()
        self._instructions: str | None = None
        self._settings = dict(settings)
        self._tool_ctx = ToolContext.empty()
        self._tool_specs: Sequence[dict[str, Any]] | None = None
        self._version = 0

        self._remote = RemoteChatContext()
        self._replies = Replies(timeout=options.reply_timeout, silence=options.silence)
        self._requests: dict[str, asyncio.Future[GenerationCreatedEvent]] = {}
        self._live: dict[str, Reply] = {}
        self._spoken: OrderedDict[str, SpokenMessage] = OrderedDict()
        self._calls: OrderedDict[str, Literal["open", "answered", "cancelled"]] = OrderedDict()
        self._finals: OrderedDict[str, None] = OrderedDict()
        self._early: dict[str, str] = {}
        self._turns: OrderedDict[str, float] = OrderedDict()

        self._sound = SoundInput(self._codec.sample_rate)
        self._kept = KeptSound(options.kept_sound * 1000)
        self._uncommitted_ms = 0.0
        self._uplink_at = -math.inf
        self._speaking = False
        self._speech_began = 0.0

        self._link: Link | None = None
        self._next: Link | None = None
        self._swap_task: asyncio.Task[None] | None = None
        self._force_at = math.inf
        self._swap_at = math.inf
        self._closings: set[asyncio.Task[None]] = set()
        self._over: RealtimeError | None = None
        self._timer = _aio.Alarm(self._due, self._tick, interval=max(0.05, options.silence / 4))
        self._timer.arm()
        self._main = self._loop.create_task(self._supervise(), name=f"{type(self).__name__}")

    # -- what the base class asks for ----------------------------------------------------------

    @property
    def chat_ctx(self) -> ChatContext:
        """The conversation as the service holds it; a copy."""
        return self._remote.to_chat_ctx()

    @property
    def tools(self) -> ToolContext:
        return self._tool_ctx

    async def update_instructions(self, instructions: str) -> None:
        """Replace the instructions. In force at once, or from the next connection on."""
        self._instructions = instructions
        self._change(instructions=instructions)

    async def update_tools(self, tools: list[Any]) -> None:
        """Replace the tools. In force at once, or from the next connection on.

        Raises:
            ConfigurationError: a tool cannot be described to this service.
        """
        tool_ctx = ToolContext(tools)
        specs = self._describe_tools(tool_ctx)
        self._tool_ctx, self._tool_specs = tool_ctx, specs
        self._change(tools=specs)

    def update_options(self, *, tool_choice: NotGivenOr[Any] = NOT_GIVEN) -> None:
        if is_given(tool_choice):
            self._change_settings({"tool_choice": tool_choice})

    async def update_chat_ctx(self, chat_ctx: ChatContext) -> None:
        """Make the service's conversation equal to `chat_ctx`.

        Results of tools that are new in it are sent once each; a call that was answered or
        cancelled gets no second answer.

        Raises:
            RealtimeError: the service refused an item, or did not confirm in time. All others are
                in place.
        """
        diff = compute_chat_ctx_diff(self._remote.to_chat_ctx(), chat_ctx)
        waiting: list[asyncio.Future[None]] = []
        for item_id in diff.to_remove:
            waiting += self._remove(item_id)
        answered: list[str] = []
        for previous_id, item_id in diff.to_create:
            item = chat_ctx.get_by_id(item_id)
            if item is None:
                continue
            if isinstance(item, FunctionCallOutput):
                if self._calls.get(item.call_id) in ("answered", "cancelled"):
                    self._insert(previous_id, item)
                    continue
                self._calls[item.call_id] = "answered"
                answered.append(item.call_id)
            waiting += self._create(previous_id, item)
        for call_id in answered:
            self._apply(self._replies.answered(call_id, self._loop.time()))
        if not waiting:
            return
        _, late = await asyncio.wait(waiting, timeout=self._options.update_timeout)
        refused = [
            str(future.exception())
            for future in waiting
            if future.done() and not future.cancelled() and future.exception() is not None
        ]
        if late:
            raise RealtimeError(
                f"update_chat_ctx: {len(late)} of {len(waiting)} changes were not confirmed within "
                f"{self._options.update_timeout:g} s",
                code="timeout",
            )
        if refused:
            raise RealtimeError(f"update_chat_ctx: {'; '.join(refused)}", code="refused")

    def push_audio(self, frame: AudioFrame) -> None:
        """Send sound of the user; while no connection is there, keep it for the next one.

        Raises:
            ConfigurationError: the frame has another form than the service takes and ``soxr`` is
                not installed.
        """
        piece = self._sound.feed(frame)
        if piece is not None:
            self._append(piece)

    def push_video(self, frame: Any) -> None:
        from rejoinder.llm.chat_context import ImageContent
        from rejoinder.llm.utils import serialize_image

        encoded = serialize_image(ImageContent(image=frame))
        if encoded.data_bytes is None:
            raise ConfigurationError("push_video: the frame could not be encoded")
        import base64

        url = f"data:{encoded.mime_type};base64,{base64.b64encode(encoded.data_bytes).decode()}"
        self._send(m.SendImage(_stamps.new_id("video_"), url))

    def commit_audio(self) -> None:
        """Make what was pushed a message of the user; less than 100 ms of sound is left as it is."""
        self._flush()
        if self._uncommitted_ms > _MIN_COMMIT_MS:
            self._uncommitted_ms = 0.0
            self._send(m.CommitAudio(_stamps.new_id("commit_")))

    def clear_audio(self) -> None:
        self._sound.clear()
        self._kept.clear()
        self._uncommitted_ms = 0.0
        self._send(m.ClearAudio(_stamps.new_id("clear_")))

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
        future: asyncio.Future[GenerationCreatedEvent] = self._loop.create_future()
        if self._over is not None:
            future.set_exception(RealtimeError(str(self._over), code=self._over.code))
            return future
        ref = _stamps.new_id("response_create_")
        command = m.CreateReply(
            ref,
            instructions=instructions if is_given(instructions) else None,
            tool_choice=tool_choice if is_given(tool_choice) else None,
            tools=self._describe_tools(ToolContext(tools)) if is_given(tools) else None,
        )
        self._requests[ref] = future
        future.add_done_callback(lambda done: self._forget_request(ref, done))
        self._apply(self._replies.request(command, self._loop.time()))
        return future

    def interrupt(self) -> None:
        """Stop the reply that runs and those that were asked for; without any, nothing is sent."""
        self._apply(self._replies.interrupt(self._loop.time()))

    def truncate(
        self,
        *,
        message_id: str,
        modalities: list[Literal["text", "audio"]],
        audio_end_ms: int,
        audio_transcript: NotGivenOr[str] = NOT_GIVEN,
    ) -> None:
        """Cut off what the user did not hear, here and at the service. Legal in every state: the time
        is clamped to the sound that came, and a message of which nothing was heard is removed."""
        spoken = self._spoken.get(message_id)
        if spoken is None:
            return
        until: int | str = audio_transcript if is_given(audio_transcript) else audio_end_ms
        text = heard(spoken, until)
        end = min(audio_end_ms, spoken.received_ms)
        if "audio" in modalities and spoken.received_ms > 0:
            if end <= 0:
                self._remove(message_id)
                return
            if end < spoken.received_ms:
                self._send(
                    m.TruncateItem(_stamps.new_id("truncate_"), message_id, end), urgent=True
                )
        node = self._remote.get(message_id)
        if node is not None and isinstance(node.item, ChatMessage):
            node.item.content = [text] if text else []
            node.item.interrupted = True

    async def aclose(self) -> None:
        """End the session and its connections, within about a second. Never raises. Futures that wait
        end in a `RealtimeError`."""
        self._finish(RealtimeError("the session was closed", code="closed"))
        links = [link for link in (self._link, self._next) if link is not None]
        tasks = [task for task in (self._main, self._swap_task) if task is not None]
        current = asyncio.current_task()
        await asyncio.gather(
            *(link.aclose() for link in links),
            _aio.end(
                *(task for task in tasks if task is not current),
                within=0.5,
                name="realtime session",
            ),
            *self._closings,
            return_exceptions=True,
        )

    # -- settings ------------------------------------------------------------------------------

    def _change_settings(self, changes: dict[str, Any]) -> None:
        """Change options of the vendor; only what changes is sent."""
        changes = {
            name: value
            for name, value in changes.items()
            if name not in self._settings or self._settings[name] != value
        }
        if changes:
            self._settings.update(changes)
            self._change(options=changes)

    def _change(
        self,
        *,
        instructions: str | None = None,
        tools: Sequence[dict[str, Any]] | None = None,
        options: dict[str, Any] | None = None,
    ) -> None:
        self._version += 1
        link = self._link
        if link is not None and not link.closed.done():
            link.version = self._version
            self._send(
                m.UpdateSession(
                    _stamps.new_id("session_update_"),
                    instructions=instructions,
                    tools=tools,
                    options=options,
                )
            )

    def _all_settings(self) -> m.UpdateSession:
        return m.UpdateSession(
            _stamps.new_id("session_update_"),
            instructions=self._instructions,
            tools=self._tool_specs,
            options=dict(self._settings),
        )

    # -- sending -------------------------------------------------------------------------------

    def _send(self, command: m.Command, *, urgent: bool = False) -> bool:
        link = self._link
        if link is None or link.closed.done():
            return False
        try:
            return link.send(command, urgent=urgent)
        except ConfigurationError as error:
            self._report(APIStatusError(str(error), retryable=False), recoverable=True)
            return False

    def _append(self, piece: bytes | bytearray | memoryview) -> None:
        frames = self._codec.send(m.AppendAudio(piece))
        size = piece.nbytes if isinstance(piece, memoryview) else len(piece)
        ms = size * 500.0 / self._codec.sample_rate
        link = self._link
        connected = link is not None and not link.closed.done()
        self._kept.add(ms, frames, wanted=self._speaking or not connected)
        self._uncommitted_ms += ms
        if link is not None and connected:
            self._uplink_at = self._loop.time()
            link.send_frames(frames)

    def _flush(self) -> None:
        rest = self._sound.flush()
        if rest is not None:
            self._append(rest)

    def _create(self, previous_id: str | None, item: ChatItem) -> list[asyncio.Future[None]]:
        """Put an item into the conversation; without a connection into our copy, which the next one is
        given."""
        link = self._link
        if link is not None and not link.closed.done():
            return self._create_on(link, previous_id, item)
        self._insert(previous_id, item)
        return []

    def _create_on(
        self, link: Link, previous_id: str | None, item: ChatItem
    ) -> list[asyncio.Future[None]]:
        ref = _stamps.new_id("chat_ctx_create_")
        command = m.CreateItem(ref, item, self._anchor(link, previous_id))
        try:
            sent = link.send(command)
        except ConfigurationError as error:
            refused: asyncio.Future[None] = self._loop.create_future()
            refused.set_exception(RealtimeError(f"item {item.id!r}: {error}", code="refused"))
            return [refused]
        if not sent:
            self._insert(previous_id, item)
            return []
        done: asyncio.Future[None] = self._loop.create_future()
        link.pending[ref] = PendingItem(done, item.id, item, previous_id)
        link.known.add(item.id)
        return [done]

    def _remove(self, item_id: str) -> list[asyncio.Future[None]]:
        link = self._link
        if link is None or link.closed.done() or item_id not in link.known:
            self._drop(item_id)
            return []
        ref = _stamps.new_id("chat_ctx_delete_")
        link.send(m.DeleteItem(ref, item_id))
        link.known.discard(item_id)
        done: asyncio.Future[None] = self._loop.create_future()
        link.pending[ref] = PendingItem(done, item_id, None)
        return [done]

    def _anchor(self, link: Link, previous_id: str | None) -> str | None:
        """The nearest item at or before `previous_id` that the service of `link` holds."""
        if previous_id is None or previous_id in link.known:
            return previous_id
        anchor: str | None = None
        for item in self._remote.to_chat_ctx().items:
            if item.id in link.known:
                anchor = item.id
            if item.id == previous_id:
                break
        return anchor

    # -- our copy of the conversation ------------------------------------------------------------

    def _insert(self, previous_id: str | None, item: ChatItem, *, at_tail: bool = False) -> None:
        if self._remote.get(item.id) is not None:
            return
        if at_tail or (previous_id is not None and self._remote.get(previous_id) is None):
            previous_id = self._remote.last_id
        early = self._early.pop(item.id, None)
        if early is not None and isinstance(item, ChatMessage) and not item.content:
            item.content = [early]
        self._remote.insert(previous_id, item)

    def _drop(self, item_id: str) -> None:
        if self._remote.get(item_id) is not None:
            self._remote.delete(item_id)

    def _settle(self, link: Link) -> None:
        """Carry out in our copy what `link` will not confirm any more; the next one is given it."""
        for entry in link.pending.values():
            if entry.item is None:
                self._drop(entry.item_id)
            else:
                self._insert(entry.previous_id, entry.item)
            if not entry.done.done():
                entry.done.set_result(None)
        link.pending.clear()

    # -- connections -----------------------------------------------------------------------------

    async def _supervise(self) -> None:
        failures = 0
        while self._over is None:
            try:
                link = self._next or await self._open_link()
            except APIError as error:
                decision = retry.after(
                    failures,
                    error,
                    committed=False,
                    options=self._options.conn_options,
                    now=self._loop.time(),
                    deadline=None,
                    jitter=random.random(),  # noqa: S311  spreads retries, hides nothing
                )
                if isinstance(decision, retry.GiveUp):
                    self._fail(error)
                    return
                self._report(error, recoverable=True)
                failures += 1
                await asyncio.sleep(decision.delay)
                continue
            except ConfigurationError as error:
                self._fail(APIStatusError(str(error), retryable=False))
                return
            self._install(link)
            how = await self._watch()
            current = self._link
            if self._over is not None or current is None:
                return
            lived = self._loop.time() - current.opened_at
            failures = 0 if lived >= _GOOD_LIFE else failures + 1
            verdict = current.protocol.closed(how.code, how.reason)
            self._lose(current)
            self._close_soon(current)
            if verdict is not None and verdict.fatal:
                self._fail(verdict.error)
                return
            lost = verdict.error if verdict is not None else APIConnectionError(describe_end(how))
            if failures > self._options.conn_options.max_retry:
                self._fail(lost)
                return
            self._report(lost, recoverable=True)

    async def _watch(self) -> Closed:
        """How the connection in use ended; those that were replaced do not count."""
        while True:
            link = self._link
            if link is None:
                return Closed(None)
            how = await asyncio.shield(link.closed)
            if self._link is link:
                return how

    async def _open_link(self) -> Link:
        """A connection that has been given settings and history.

        Raises:
            APIError: it could not be had.
        """
        began = self._loop.time()
        protocol = self._make_protocol()
        socket = await self._dial()
        link = Link(socket, protocol, self._received)
        try:
            link.version = self._version
            link.send_frames(protocol.open(self._all_settings()))
            timeout = self._options.conn_options.connect_timeout or 10.0
            try:
                async with asyncio.timeout(timeout):
                    await asyncio.shield(link.ready)
            except TimeoutError:
                raise APIConnectionError(
                    f"the service did not accept the session within {timeout:g} s"
                ) from None
            await self._furnish(link)
        except BaseException:
            self._close_soon(link)
            raise
        link.acquire_time = self._loop.time() - began
        return link

    async def _furnish(self, link: Link) -> None:
        """Give a new connection the conversation, and wait until it has it."""
        while missing := self._give_history(link):
            _, late = await asyncio.wait(missing, timeout=_FURNISH_TIMEOUT)
            if link.closed.done():
                raise APIConnectionError(describe_end(link.closed.result()))
            if late:
                raise APIConnectionError(
                    f"the service did not confirm {len(late)} items of the history within "
                    f"{_FURNISH_TIMEOUT:g} s"
                )

    def _give_history(self, link: Link) -> list[asyncio.Future[None]]:
        """Send the items of our copy that `link` does not have."""
        waiting: list[asyncio.Future[None]] = []
        previous_id: str | None = None
        wanted: set[str] = set()
        for item in self._remote.to_chat_ctx().items:
            wanted.add(item.id)
            if item.id not in link.known:
                waiting += self._create_on(link, previous_id, item)
            if item.id in link.known:
                previous_id = item.id
        for item_id in link.known - wanted - {p.item_id for p in link.pending.values()}:
            link.send(m.DeleteItem(_stamps.new_id("chat_ctx_delete_"), item_id))
            link.known.discard(item_id)
        return [future for future in waiting if not future.done()]

    def _install(self, link: Link) -> None:
        """Put `link` in use."""
        previous = self._link
        self._link, self._next = link, None
        self._force_at = math.inf
        longest = self._options.max_duration
        now = self._loop.time()
        self._swap_at = now + longest if longest is not None else math.inf
        if previous is not None and not previous.closed.done():
            self._lose(previous)
            self._close_soon(previous)
        if link.version != self._version:
            link.version = self._version
            self._send(self._all_settings())
        self._give_history(link)
        kept = self._kept.frames()
        if kept:
            link.send_frames(kept)
            self._uplink_at = now
        if self._kept.dropped_ms:
            logger.warning(
                "%g s of the user's sound did not fit into the %g s that are kept while there is no "
                "connection",
                round(self._kept.dropped_ms / 1000, 1),
                self._options.kept_sound,
            )
            self._kept.dropped_ms = 0.0
        self._emit_connection_metrics(link, reused=False)
        if previous is not None:
            self.emit("session_reconnected", RealtimeSessionReconnectedEvent())
        self._apply(self._replies.connected(now))

    def _lose(self, link: Link) -> None:
        """`link` is not in use any more."""
        self._settle(link)
        self._apply(self._replies.lost(self._loop.time()))

    def _start_swap(self) -> None:
        running = self._swap_task is not None and not self._swap_task.done()
        if not running and self._next is None and self._over is None:
            self._swap_task = self._loop.create_task(self._swap(), name="realtime swap")

    async def _swap(self) -> None:
        try:
            link = await self._open_link()
        except (APIError, ConfigurationError) as error:
            if isinstance(error, APIError):
                self._report(error, recoverable=True)
            self._swap_at = self._loop.time() + 5.0
            return
        if self._over is not None or self._next is not None:
            self._close_soon(link)
            return
        self._next = link
        self._force_at = min(self._force_at, self._loop.time() + _FORCE_AFTER)
        self._swap_if_due()

    def _swap_if_due(self) -> None:
        """Use the next connection, if it is there and no turn would be torn apart."""
        link = self._next
        current = self._link
        if link is None or current is None or current.closed.done():
            return  # where the current one has ended, the supervisor takes the next one
        if link.closed.done():
            self._next = None
            self._swap_at = self._loop.time()
            return
        forced = self._loop.time() >= self._force_at
        if forced or (self._replies.between_turns and not self._speaking):
            self._install(link)

    def _close_soon(self, link: Link) -> None:
        task = self._loop.create_task(link.aclose(), name="realtime close")
        self._closings.add(task)
        task.add_done_callback(self._closings.discard)

    # -- time ------------------------------------------------------------------------------------

    def _due(self) -> float:
        due = min(self._replies.deadline(), self._swap_at, self._force_at)
        link = self._link
        if link is not None and not link.closed.done():
            half = self._options.silence / 2
            due = min(due, max(link.heard_at, self._uplink_at, link.probed_at) + half)
        return due

    def _tick(self) -> None:
        now = self._loop.time()
        if self._over is not None:
            return
        self._apply(self._replies.tick(now))
        if now >= self._swap_at:
            self._swap_at = math.inf
            self._start_swap()
        self._swap_if_due()
        link = self._link
        if link is not None and not link.closed.done():
            silence = self._options.silence
            quiet = now - max(link.heard_at, link.opened_at)
            going_up = now - self._uplink_at < silence
            if quiet >= silence and going_up and link.probed_at > link.heard_at:
                link.abort(
                    f"nothing came for {quiet:.0f} s although it was asked for a sign of life"
                )
            elif quiet >= silence / 2 and going_up and link.probed_at <= link.heard_at:
                link.probed_at = now
                link.send_frames(link.protocol.probe())
        self._timer.arm()

    # -- effects ---------------------------------------------------------------------------------

    def _apply(self, effects: list[Effect]) -> None:
        for effect in effects:
            match effect:
                case Send(request):
                    self._ask(request)
                case Announce(reply_id, refs):
                    self._announce(reply_id, refs)
                case Cancel(reply_id):
                    self._send(m.CancelReply(_stamps.new_id("cancel_"), reply_id), urgent=True)
                case Finish(reply_id, status):
                    self._end_streams(reply_id, status)
                case Fail(refs, message, code):
                    self._fail_requests(refs, message, code)
        self._swap_if_due()
        self._timer.arm()

    def _ask(self, request: m.CreateReply) -> None:
        link = self._link
        if link is None:
            return
        try:
            link.send(request)
        except ConfigurationError as error:
            refusal = APIStatusError(str(error), retryable=False)
            self._apply(self._replies.refused(request.ref, refusal, self._loop.time()))

    def _announce(self, reply_id: str, refs: tuple[str, ...]) -> None:
        reply = Reply(reply_id, asked=bool(refs), sample_rate=self._codec.sample_rate)
        self._live[reply_id] = reply
        for ref in refs:
            future = self._requests.pop(ref, None)
            if future is not None and not future.done():
                future.set_result(reply.event)
        self.emit("generation_created", reply.event)

    def _end_streams(self, reply_id: str, status: m.ReplyStatus) -> None:
        reply = self._live.get(reply_id)
        if reply is None:
            return
        reply.end(status)
        cut = status != "completed"
        for message in reply.messages:
            node = self._remote.get(message.item_id)
            text = message.spoken.text
            if node is not None and isinstance(node.item, ChatMessage):
                node.item.content = [text] if text else []
                node.item.interrupted = node.item.interrupted or cut
        if len(self._live) > _REMEMBERED:
            self._live.pop(next(iter(self._live)))

    def _fail_requests(self, refs: tuple[str, ...], message: str, code: str | None) -> None:
        for ref in refs:
            future = self._requests.pop(ref, None)
            if future is not None and not future.done():
                future.set_exception(RealtimeError(message, code=code))
                future.exception()  # a caller that does not look must not make asyncio complain

    def _forget_request(self, ref: str, future: asyncio.Future[Any]) -> None:
        if self._requests.pop(ref, None) is not None and future.cancelled():
            self._apply(self._replies.give_up(ref, self._loop.time()))

    # -- events ----------------------------------------------------------------------------------

    def _received(self, link: Link, event: m.Event) -> None:
        if isinstance(event, m.SessionReady):
            if not link.ready.done():
                link.ready.set_result(None)
            return
        if link is not self._link:
            self._received_beside(link, event)
            return
        match event:
            case m.AudioDelta(reply_id, item_id, data):
                if self._replies.progressed(reply_id, self._loop.time()):
                    reply = self._live[reply_id]
                    reply.produced()
                    reply.message(item_id).add_audio(data)
            case m.TextDelta(reply_id, item_id, text, start_time):
                if self._replies.progressed(reply_id, self._loop.time()):
                    reply = self._live[reply_id]
                    reply.produced()
                    reply.message(item_id).add_text(text, start_time)
            case m.MessageStarted(reply_id, item_id):
                if self._replies.progressed(reply_id, self._loop.time()):
                    message = self._live[reply_id].message(item_id)
                    _keep(self._spoken, item_id, message.spoken)
            case m.ModalityKnown(reply_id, item_id, audio):
                if self._replies.progressed(reply_id, self._loop.time()):
                    self._live[reply_id].message(item_id).know_modality(audio)
            case m.MessageEnded(reply_id, item_id, text):
                if self._replies.progressed(reply_id, self._loop.time()):
                    self._live[reply_id].message(item_id).end(text)
            case m.ToolCalled(reply_id, call):
                self._called(reply_id, call)
            case m.ReplyStarted(reply_id, ref):
                self._apply(self._replies.started(reply_id, ref, self._loop.time()))
            case m.ReplyEnded():
                self._reply_ended(event)
            case m.ItemAdded(item, previous_id, at_tail):
                self._item_added(link, item, previous_id, at_tail)
            case m.ItemDeleted(item_id):
                link.known.discard(item_id)
                self._confirm(link, item_id, created=False)
                self._drop(item_id)
            case m.SpeechStarted(item_id):
                self._speaking = True
                self._speech_began = _stamps.wall_now()
                if item_id is not None:
                    _keep(self._turns, item_id, self._speech_began)
                self.emit("input_speech_started", InputSpeechStartedEvent())
            case m.SpeechStopped():
                self._speaking = False
                self.emit(
                    "input_speech_stopped",
                    InputSpeechStoppedEvent(
                        user_transcription_enabled=self.capabilities.user_transcription
                    ),
                )
                self._swap_if_due()
            case m.AudioCommitted(item_id, previous_id):
                self._kept.clear()
                self._uncommitted_ms = 0.0
                self._speaking = False
                link.known.add(item_id)
                if item_id not in self._turns:
                    _keep(self._turns, item_id, _stamps.wall_now())
                self._insert(previous_id, ChatMessage(id=item_id, role="user", content=[]))
            case m.Transcript():
                self._transcribed(event)
            case m.CallsCancelled(call_ids):
                for call_id in call_ids:
                    _keep(self._calls, call_id, "cancelled")
                    self._apply(self._replies.answered(call_id, self._loop.time()))
            case m.Refused(ref, error, code, busy, harmless):
                self._refused(link, ref, error, code, busy, harmless)
            case m.ServiceFailed(error, fatal, _):
                if fatal:
                    self._fail(error)
                else:
                    self._report(error, recoverable=True)
            case m.SessionEnding(seconds):
                self._force_at = min(
                    self._force_at, self._loop.time() + max(0.0, seconds - _MARGIN)
                )
                self._start_swap()
                self._timer.arm()
            case m.SessionReady():
                return

    def _received_beside(self, link: Link, event: m.Event) -> None:
        """Events of a connection that is being prepared, or was replaced."""
        match event:
            case m.ItemAdded(item):
                link.known.add(item.id)
                self._confirm(link, item.id, created=True)
            case m.Refused(ref, error, _, _, harmless):
                entry = link.pending.pop(ref, None)
                if entry is not None and not entry.done.done():
                    if not harmless:
                        logger.warning("an item of the history was refused: %s", error.message)
                        link.known.discard(entry.item_id)
                    entry.done.set_result(None)
            case m.ServiceFailed(error, fatal, _):
                if not link.ready.done():
                    error.retryable = error.retryable and not fatal
                    link.ready.set_exception(error)
                elif fatal:
                    link.abort(error.message)
            case _:
                return

    def _confirm(self, link: Link, item_id: str, *, created: bool) -> None:
        for ref, entry in list(link.pending.items()):
            if entry.item_id == item_id and (entry.item is not None) is created:
                del link.pending[ref]
                if link is self._link and entry.item is not None:
                    self._insert(entry.previous_id, entry.item)
                if not entry.done.done():
                    entry.done.set_result(None)

    def _item_added(
        self, link: Link, item: ChatItem, previous_id: str | None, at_tail: bool
    ) -> None:
        link.known.add(item.id)
        self._confirm(link, item.id, created=True)
        if self._remote.get(item.id) is not None:
            return
        self._insert(previous_id, item, at_tail=at_tail)
        self.emit("remote_item_added", RemoteItemAddedEvent(previous_id, item))

    def _called(self, reply_id: str, call: FunctionCall) -> None:
        node = self._remote.get(call.id)
        if node is not None:
            node.item = call  # announced before its arguments were there
        if call.call_id in self._calls:
            return  # told twice; it runs once
        if not self._replies.progressed(reply_id, self._loop.time()):
            # Nobody will run it. Some services fall silent while a call has no answer.
            _keep(self._calls, call.call_id, "answered")
            self._create(
                call.id if node is not None else None,
                FunctionCallOutput(
                    call_id=call.call_id,
                    name=call.name,
                    output="The call was interrupted before it ran.",
                    is_error=True,
                ),
            )
            return
        _keep(self._calls, call.call_id, "open")
        self._replies.called(call.call_id)
        self._live[reply_id].call(call)

    def _reply_ended(self, event: m.ReplyEnded) -> None:
        now = self._loop.time()
        error = event.error
        self._apply(
            self._replies.ended(
                event.reply_id,
                event.status,
                event.ref,
                now,
                message=error.message if error is not None else "",
                code=event.reason,
            )
        )
        reply = self._live.pop(event.reply_id, None)
        if reply is not None:
            status = reply.outcome.result() if reply.outcome.done() else event.status
            reply.end(event.status)
            self.emit(
                "metrics_collected",
                reply.metrics(self._realtime_model.label, self._metadata(), status, event.usage),
            )
        if error is not None:
            if event.fatal:
                self._fail(error)
            else:
                self._report(error, recoverable=True)

    def _transcribed(self, event: m.Transcript) -> None:
        item_id = event.item_id
        if item_id in self._finals:
            return
        if event.final:
            _keep(self._finals, item_id, None)
            node = self._remote.get(item_id)
            if event.text:
                if node is None:
                    self._early[item_id] = event.text
                    while len(self._early) > _REMEMBERED:
                        self._early.pop(next(iter(self._early)))
                elif isinstance(node.item, ChatMessage):
                    node.item.content = [event.text]
                    node.item.transcript_confidence = event.confidence
            if event.failed:
                logger.warning("the user's words of item %s could not be transcribed", item_id)
        self.emit(
            "input_audio_transcription_completed",
            InputTranscriptionCompleted(
                item_id=item_id,
                transcript=event.text,
                is_final=event.final,
                confidence=event.confidence,
                turn_started_at=self._turns.get(item_id),
            ),
        )

    def _refused(
        self, link: Link, ref: str, error: APIError, code: str | None, busy: bool, harmless: bool
    ) -> None:
        entry = link.pending.pop(ref, None)
        if entry is not None:
            if harmless:
                if entry.item is not None:
                    self._insert(entry.previous_id, entry.item)
                else:
                    self._drop(entry.item_id)
            elif entry.item is not None:
                link.known.discard(entry.item_id)
            if not entry.done.done():
                if harmless:
                    entry.done.set_result(None)
                else:
                    entry.done.set_exception(
                        RealtimeError(
                            f"item {entry.item_id!r} was refused: {error.message}", code=code
                        )
                    )
                    entry.done.exception()
            return
        effects = self._replies.refused(ref, error, self._loop.time(), code=code, busy=busy)
        if ref in self._requests or effects:
            self._apply(effects)
        elif not harmless:
            self._report(error, recoverable=True)

    # -- the end ---------------------------------------------------------------------------------

    def _metadata(self) -> Metadata:
        model = self._realtime_model
        return Metadata(model_name=model.model, model_provider=model.provider)

    def _emit_connection_metrics(self, link: Link, *, reused: bool) -> None:
        self.emit(
            "metrics_collected",
            RealtimeModelMetrics(
                label=self._realtime_model.label,
                request_id="",
                timestamp=_stamps.wall_now(),
                input_token_details=RealtimeModelMetrics.InputTokenDetails(),
                output_token_details=RealtimeModelMetrics.OutputTokenDetails(),
                metadata=self._metadata(),
                acquire_time=link.acquire_time,
                connection_reused=reused,
            ),
        )

    def _report(self, error: Exception, *, recoverable: bool) -> None:
        logger.log(
            logging.WARNING if recoverable else logging.ERROR,
            "%s: %s",
            self._realtime_model.label,
            error,
        )
        self.emit(
            "error",
            RealtimeModelError(
                timestamp=_stamps.wall_now(),
                label=self._realtime_model.label,
                error=error,
                recoverable=recoverable,
            ),
        )

    def _fail(self, error: APIError) -> None:
        """The session cannot go on."""
        if self._over is not None:
            return
        body = cast("dict[str, Any]", error.body if isinstance(error.body, dict) else {})
        code = body.get("code")
        self._finish(RealtimeError(error.message, code=code if isinstance(code, str) else None))
        self._report(error, recoverable=False)
        for link in (self._link, self._next):
            if link is not None:
                self._close_soon(link)

    def _finish(self, why: RealtimeError) -> None:
        if self._over is None:
            self._over = why
        self._timer.stop()
        self._apply_last(self._replies.fail_all(str(why), why.code))
        for link in (self._link, self._next):
            if link is not None:
                self._settle(link)
        for reply in self._live.values():
            reply.end("failed")
        for ref in list(self._requests):
            self._fail_requests((ref,), str(why), why.code)

    def _apply_last(self, effects: list[Effect]) -> None:
        for effect in effects:
            if isinstance(effect, Fail):
                self._fail_requests(effect.refs, effect.message, effect.code)
            elif isinstance(effect, Finish):
                self._end_streams(effect.reply_id, effect.status)


_V = TypeVar("_V")


def _keep(entries: OrderedDict[str, _V], key: str, value: _V) -> None:
    """Remember an entry; the oldest ones are forgotten."""
    entries[key] = value
    if len(entries) > _REMEMBERED:
        entries.popitem(last=False)
