"""The open requests and replies of a session: futures and streams that must end."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from typing import Any

from rejoinder._core.realtime.messages import ReplyStatus
from rejoinder.llm.realtime import GenerationCreatedEvent, RealtimeError
from rejoinder.metrics import Metadata
from rejoinder.providers.sessions.conversation import REMEMBERED, Conversation
from rejoinder.providers.sessions.spans import ReplySpan
from rejoinder.providers.sessions.streams import Reply

__all__ = ["OpenReplies"]


class OpenReplies:
    """Futures by the reference of their request, streams by the id of their reply.

    Args:
        conversation: receives the text of replies.
        rate: samples a second of the model's sound.
        names: names of the model in spans.
    """

    def __init__(
        self, conversation: Conversation, *, rate: int, names: Callable[[], Metadata]
    ) -> None:
        self._conversation = conversation
        self._rate = rate
        self._names = names
        self._asked: dict[str, asyncio.Future[GenerationCreatedEvent]] = {}
        self._live: dict[str, Reply] = {}

    def __getitem__(self, reply_id: str) -> Reply:
        return self._live[reply_id]

    def get(self, reply_id: str) -> Reply | None:
        """The reply, unless it has ended."""
        return self._live.get(reply_id)

    def take(self, reply_id: str) -> Reply | None:
        """Like `get`, and remove the reply."""
        return self._live.pop(reply_id, None)

    @property
    def message_ids(self) -> set[str]:
        """Ids of the messages in progress."""
        return {msg.item_id for reply in self._live.values() for msg in reply.messages}

    def is_asked(self, ref: str) -> bool:
        """Whether this request has an open future."""
        return ref in self._asked

    def ask(
        self, ref: str, given_up: Callable[[str], None]
    ) -> asyncio.Future[GenerationCreatedEvent]:
        """The future of a request. `given_up` is called when the application cancels it."""
        future: asyncio.Future[GenerationCreatedEvent] = asyncio.get_running_loop().create_future()
        self._asked[ref] = future

        def done(future: asyncio.Future[Any]) -> None:
            if self._asked.pop(ref, None) is not None and future.cancelled():
                given_up(ref)

        future.add_done_callback(done)
        return future

    def announce(self, reply_id: str, refs: tuple[str, ...]) -> GenerationCreatedEvent:
        """A reply began, which answers these requests."""
        asked = bool(refs)
        span = ReplySpan(self._names(), reply_id, asked=asked)
        reply = Reply(reply_id, asked=asked, sample_rate=self._rate, span=span)
        self._live[reply_id] = reply
        for ref in refs:
            future = self._asked.get(ref)
            if future is not None and not future.done():  # else `given_up` is about to be called
                del self._asked[ref]
                future.set_result(reply.event)
        return reply.event

    def end(self, reply_id: str, status: ReplyStatus) -> None:
        """End the streams of a reply. The conversation keeps its text."""
        reply = self._live.get(reply_id)
        if reply is None:
            return
        reply.end(status)
        for message in reply.messages:
            text = message.spoken.text
            self._conversation.set_text(message.item_id, text, interrupted=status != "completed")
        if len(self._live) > REMEMBERED:
            self._live.pop(next(iter(self._live)))

    def fail(self, refs: Iterable[str], message: str, code: str | None) -> None:
        """Fail requests."""
        for ref in refs:
            future = self._asked.pop(ref, None)
            if future is not None and not future.done():
                future.set_exception(RealtimeError(message, code=code))
                future.exception()  # mark as retrieved, or asyncio warns

    def finish(self, why: RealtimeError) -> None:
        """The session is over: everything ends."""
        for reply in self._live.values():
            reply.end("failed")
        self.fail(list(self._asked), str(why), why.code)
