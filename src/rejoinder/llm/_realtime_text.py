"""A realtime session on a text model, used when no speech-to-speech model answers.

It takes no sound and makes none. History, tools and replies work as in any other session; messages
consist only of text.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from dataclasses import dataclass
from typing import Any, Literal

from rejoinder import _aio, _stamps
from rejoinder._core.chunks import ChatChunk
from rejoinder._core.collecting import is_restart
from rejoinder._core.items import ChatItem, ChatMessage, FunctionCall, FunctionCallOutput
from rejoinder._core.realtime.messages import ReplyStatus
from rejoinder._core.realtime.speech import in_words
from rejoinder.errors import APIError
from rejoinder.llm._tool_runs import call_items
from rejoinder.llm.chat_context import ChatContext
from rejoinder.llm.llm import LLM
from rejoinder.llm.realtime import (
    GenerationCreatedEvent,
    MessageGeneration,
    RealtimeCapabilities,
    RealtimeError,
    RealtimeModel,
    RealtimeSession,
    RemoteItemAddedEvent,
    error_event,
)
from rejoinder.llm.tool_context import ToolContext
from rejoinder.media import AudioFrame
from rejoinder.types import NOT_GIVEN, NotGivenOr, is_given

__all__ = ["TextSession", "text_capabilities"]

logger = logging.getLogger("rejoinder")


def text_capabilities(*, replies_to_tools: bool) -> RealtimeCapabilities:
    """The capabilities of a session on a text model."""
    return RealtimeCapabilities(
        message_truncation=True,
        turn_detection=False,
        user_transcription=False,
        auto_tool_reply_generation=replies_to_tools,
        audio_output=False,
        manual_function_calls=True,
        can_disable_turn_detection=True,
        mutable_chat_context=True,
        mutable_instructions=True,
        mutable_tools=True,
        per_response_tool_choice=True,
    )


@dataclass(slots=True, eq=False)
class _Request:
    asked: asyncio.Future[GenerationCreatedEvent] | None
    instructions: str | None = None
    tool_choice: Any = NOT_GIVEN
    tools: list[Any] | None = None


class _Reply:
    """The streams of one reply."""

    def __init__(self, *, asked: bool) -> None:
        self.reply_id = _stamps.new_id("response_")
        self._messages: _aio.Chan[MessageGeneration] = _aio.Chan()
        self._calls: _aio.Chan[FunctionCall] = _aio.Chan()
        self._text: _aio.Chan[str] | None = None
        self._outcome: asyncio.Future[ReplyStatus] = asyncio.get_running_loop().create_future()
        self.event = GenerationCreatedEvent(
            message_stream=self._messages,
            function_stream=self._calls,
            user_initiated=asked,
            response_id=self.reply_id,
            outcome=self._outcome,
        )

    def begin_message(self, item_id: str) -> None:
        self.end_message()
        sound: _aio.Chan[AudioFrame] = _aio.Chan()
        sound.close()
        modalities: asyncio.Future[list[Literal["text", "audio"]]]
        modalities = asyncio.get_running_loop().create_future()
        modalities.set_result(["text"])
        self._text = _aio.Chan()
        self._messages.send_nowait(MessageGeneration(item_id, self._text, sound, modalities))

    def add_text(self, text: str) -> None:
        if self._text is not None:
            self._text.send_nowait(text)

    def end_message(self) -> None:
        if self._text is not None:
            self._text.close()
            self._text = None

    def call(self, call: FunctionCall) -> None:
        self._calls.send_nowait(call)

    def end(self, status: ReplyStatus) -> None:
        self.end_message()
        self._messages.close()
        self._calls.close()
        if not self._outcome.done():
            self._outcome.set_result(status)


class TextSession(RealtimeSession[Any]):
    """A session on `llm`.

    Args:
        model: the model that makes the session.
        llm: the text model; it is not closed here.
        replies_to_tools: whether a tool result is answered without a request.
    """

    def __init__(self, model: RealtimeModel, llm: LLM[Any], *, replies_to_tools: bool) -> None:
        super().__init__(model)
        self._loop = asyncio.get_running_loop()
        self._llm = llm
        self._able = text_capabilities(replies_to_tools=replies_to_tools)
        self._items: list[ChatItem] = []
        self._instructions: str | None = None
        self._tool_ctx = ToolContext.empty()
        self._tool_choice: Any = NOT_GIVEN
        self._queue: deque[_Request] = deque()
        self._request: _Request | None = None
        self._task: asyncio.Task[None] | None = None
        self._leaving: set[asyncio.Task[None]] = set()
        self._open: ChatMessage | None = None
        self._over = False

    @property
    def capabilities(self) -> RealtimeCapabilities:
        return self._able

    @property
    def chat_ctx(self) -> ChatContext:
        return ChatContext(list(self._items))

    @property
    def tools(self) -> ToolContext:
        return self._tool_ctx

    @property
    def working(self) -> bool:
        return self._request is not None or bool(self._queue)

    async def update_instructions(self, instructions: str) -> None:
        self._instructions = instructions

    async def update_tools(self, tools: list[Any]) -> None:
        self._tool_ctx = ToolContext(tools)

    def update_options(self, *, tool_choice: NotGivenOr[Any] = NOT_GIVEN) -> None:
        if is_given(tool_choice):
            self._tool_choice = NOT_GIVEN if tool_choice is None else tool_choice

    async def update_chat_ctx(self, chat_ctx: ChatContext) -> None:
        known = {item.id for item in self._items}
        open_message = self._open
        # Copy the items, so that neither side changes those of the other.
        items = [item.model_copy() for item in chat_ctx.items]
        if open_message is not None:
            # Keep the message in progress, which the caller may not have.
            items = [open_message if item.id == open_message.id else item for item in items]
            if open_message not in items:
                items.append(open_message)
        self._items = items
        if self._able.auto_tool_reply_generation and any(
            isinstance(item, FunctionCallOutput) and item.id not in known for item in self._items
        ):
            self._queue.append(_Request(None))
            self._pump()

    def push_audio(self, frame: AudioFrame) -> None:
        """Has no effect: a text model takes no sound."""

    def push_video(self, frame: Any) -> None:
        """Has no effect: a text model takes no video."""

    def commit_audio(self) -> None:
        """Nothing happens."""

    def clear_audio(self) -> None:
        """Nothing happens."""

    def generate_reply(
        self,
        *,
        instructions: NotGivenOr[str] = NOT_GIVEN,
        tool_choice: NotGivenOr[Any] = NOT_GIVEN,
        tools: NotGivenOr[list[Any]] = NOT_GIVEN,
    ) -> asyncio.Future[GenerationCreatedEvent]:
        """Ask for a reply; it begins with the first token. While another one runs, it waits."""
        future: asyncio.Future[GenerationCreatedEvent] = self._loop.create_future()
        if self._over:
            future.set_exception(RealtimeError("the session was closed", code="closed"))
            return future
        self._queue.append(
            _Request(
                future,
                instructions if is_given(instructions) else None,
                tool_choice,
                tools if is_given(tools) else None,
            )
        )
        self._pump()
        return future

    def interrupt(self) -> None:
        self._stop("the reply was interrupted before it began", "superseded")

    def truncate(
        self,
        *,
        message_id: str,
        modalities: list[Literal["text", "audio"]],
        audio_end_ms: int,
        audio_transcript: NotGivenOr[str] = NOT_GIVEN,
    ) -> None:
        """Cut a message down to its heard text, `audio_transcript`. Times are ignored, except 0:
        nothing was heard, and the message is removed."""
        for index, item in enumerate(self._items):
            if item.id != message_id or not isinstance(item, ChatMessage):
                continue
            text = audio_transcript if is_given(audio_transcript) else None
            if text == "" or (text is None and audio_end_ms <= 0):
                del self._items[index]
            elif text is not None:
                item.content, item.interrupted = [text], True
            if item is self._open:
                self._open = None  # later parts of it change nothing
            return

    async def aclose(self) -> None:
        self._over = True
        self._stop("the session was closed", "closed")
        await _aio.end(*self._leaving, within=0.5, name="reply of a text model")

    # -- replies -----------------------------------------------------------------------------

    def _stop(self, why: str, code: str) -> None:
        waiting = list(self._queue)
        self._queue.clear()
        if self._request is not None:
            waiting.append(self._request)
            self._request = None
        for request in waiting:
            _fail(request, why, code)
        task, self._task = self._task, None
        if task is not None:
            task.cancel()
            self._leaving.add(task)
            task.add_done_callback(self._leaving.discard)

    def _pump(self) -> None:
        if self._task is None and self._queue and not self._over:
            self._request = self._queue.popleft()
            self._task = self._loop.create_task(self._answer(self._request), name="text reply")

    async def _answer(self, request: _Request) -> None:
        reply = _Reply(asked=request.asked is not None)
        run = _Run(self, reply, request)
        status: ReplyStatus = "failed"
        try:
            tools = self._tool_ctx.flatten() if request.tools is None else request.tools
            choice = request.tool_choice if is_given(request.tool_choice) else self._tool_choice
            stream = self._llm.chat(
                chat_ctx=self._asked(request.instructions),
                tools=tools or None,
                tool_choice=choice if tools else NOT_GIVEN,
            )
            async with stream:
                async for chunk in stream:
                    run.take(chunk)
            run.announce()
            status = "completed"
        except asyncio.CancelledError:
            status = "interrupted"
        except Exception as error:
            if not isinstance(error, APIError):
                logger.exception("%s failed", self._llm.label)
            _fail(request, f"the text model failed: {error}", None)
            self._report(error)
        finally:
            run.end(status)
            if self._task is asyncio.current_task():
                self._task, self._request = None, None
                self._pump()

    def _asked(self, instructions: str | None) -> ChatContext:
        items = [in_words(item) for item in self._items]
        told = [text for text in (self._instructions, instructions) if text]
        if told:
            items.insert(0, ChatMessage(role="system", content=["\n".join(told)]))
        return ChatContext(items)

    def _report(self, error: Exception) -> None:
        self.emit("error", error_event(self._llm.label, error, recoverable=True))

    def _add(self, item: ChatItem) -> None:
        previous = self._items[-1].id if self._items else None
        self._items.append(item)
        self.emit("remote_item_added", RemoteItemAddedEvent(previous, item))

    def _began(self, reply: _Reply, request: _Request) -> None:
        if self._request is request:
            self._request = None
        if request.asked is not None and not request.asked.done():
            request.asked.set_result(reply.event)
        self.emit("generation_created", reply.event)

    def _replace(self, message: ChatMessage, text: str, *, interrupted: bool) -> None:
        """Record the text of a message, unless it was truncated."""
        if self._open is not message:
            return
        self._open = None
        if text.strip():
            message.content, message.interrupted = [text], interrupted
        else:
            self._items = [item for item in self._items if item is not message]


class _Run:
    """One reply in progress: chunks in, streams and items out."""

    def __init__(self, session: TextSession, reply: _Reply, request: _Request) -> None:
        self._session = session
        self._reply = reply
        self._request = request
        self._announced = False
        self._message: ChatMessage | None = None
        self._text = ""
        self._called: list[Any] = []

    def announce(self) -> None:
        if not self._announced:
            self._announced = True
            self._session._began(self._reply, self._request)

    def take(self, chunk: ChatChunk) -> None:
        delta = chunk.delta
        if delta is None:
            return
        if delta.extra and is_restart(delta):
            self._end_message(interrupted=True, discard=True)
            self._called.clear()
        if delta.content:
            self.announce()
            if self._message is None:
                self._message = ChatMessage(role="assistant", content=[])
                self._session._open = self._message
                self._session._add(self._message)
                self._reply.begin_message(self._message.id)
            self._text += delta.content
            self._reply.add_text(delta.content)
        self._called.extend(delta.tool_calls)

    def end(self, status: ReplyStatus) -> None:
        """End the streams. Calls of an incomplete reply are not run."""
        self._end_message(interrupted=status != "completed", discard=False)
        if self._called and status == "completed":
            taken = [item.call_id for item in self._session._items if item.type == "function_call"]
            for call in call_items(self._called, taken=taken, group_id=self._reply.reply_id):
                self._session._add(call)
                self._reply.call(call)
        self._reply.end(status)

    def _end_message(self, *, interrupted: bool, discard: bool) -> None:
        if self._message is not None:
            text = "" if discard else self._text
            self._session._replace(self._message, text, interrupted=interrupted)
            self._reply.end_message()
            self._message, self._text = None, ""


def _fail(request: _Request, why: str, code: str | None) -> None:
    future = request.asked
    if future is not None and not future.done():
        future.set_exception(RealtimeError(why, code=code))
        future.exception()  # mark as retrieved, or asyncio warns
