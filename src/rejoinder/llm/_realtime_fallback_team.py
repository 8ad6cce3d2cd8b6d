"""Parts of a `FallbackSession`: the team of models, the open requests, and the unanswered sound."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from enum import Enum
from typing import Any

from rejoinder._core.items import (
    AudioContent,
    ChatItem,
    ChatMessage,
    FunctionCall,
    FunctionCallOutput,
)
from rejoinder._core.realtime.kept import KeptSound
from rejoinder._core.realtime.speech import UNTRANSCRIBED
from rejoinder.llm.llm import LLM
from rejoinder.llm.realtime import (
    GenerationCreatedEvent,
    RealtimeError,
    RealtimeModel,
    RealtimeSession,
)
from rejoinder.media import AudioFrame

__all__ = [
    "Child",
    "Mark",
    "OwedSound",
    "Requests",
    "Team",
    "replaced",
    "unanswered",
]


class Mark(Enum):
    """A mark in the list of kept frames."""

    COMMIT = "commit"
    """The application committed the sound before it."""
    TURN = "turn"
    """The service heard the user stop."""


@dataclass
class Team:
    """State shared by all sessions of an adapter: the models and their cooldowns."""

    models: Sequence[RealtimeModel]
    text: LLM[Any] | None
    cooldown: float
    regenerate: bool
    attempt_timeout: float
    kept_sound: float
    announce: Callable[[int, bool], None]
    available: list[bool] = field(default_factory=list[bool])
    rests_until: list[float] = field(default_factory=list[float])

    def __post_init__(self) -> None:
        self.available = [True] * len(self.models)
        self.rests_until = [-math.inf] * len(self.models)

    def failed(self, index: int, now: float) -> None:
        self.rests_until[index] = now + self.cooldown
        self._set(index, False)

    def reached(self, index: int) -> None:
        self.rests_until[index] = -math.inf
        self._set(index, True)

    def usable(self, now: float) -> list[int]:
        """The models that may be tried, in their order."""
        return [index for index, until in enumerate(self.rests_until) if until <= now]

    def _set(self, index: int, available: bool) -> None:
        if self.available[index] != available:
            self.available[index] = available
            self.announce(index, available)


@dataclass(eq=False)
class Child:
    """The session of one model."""

    session: RealtimeSession[Any]
    index: int | None
    """Which model; ``None``: the text model."""
    error: Exception | None = None
    """Why it ended."""


@dataclass(eq=False)
class Request:
    """A reply that was requested from this session."""

    options: dict[str, Any]
    asked: asyncio.Future[GenerationCreatedEvent]
    inner: asyncio.Future[GenerationCreatedEvent] | None = None
    child: Child | None = None


class Requests:
    """Requested replies of all sessions. If a session fails, its unanswered requests go to the next
    one.

    Args:
        stir: called when a request has ended.
    """

    def __init__(self, stir: Callable[[], None]) -> None:
        self._open: list[Request] = []
        self._stir = stir

    def __len__(self) -> int:
        return len(self._open)

    @property
    def asked(self) -> bool:
        """Whether a session is working on a request."""
        return any(request.inner is not None for request in self._open)

    def add(
        self, options: dict[str, Any], child: Child | None
    ) -> asyncio.Future[GenerationCreatedEvent]:
        """Request a reply from `child`. If it is ``None``, the next call of `ask` assigns one."""
        request = Request(options, asyncio.get_running_loop().create_future())
        self._open.append(request)
        request.asked.add_done_callback(lambda _: self._forget(request))
        if child is not None:
            self._ask(request, child)
        return request.asked

    def ask(self, child: Child) -> None:
        """Send `child` the requests that no session is working on."""
        for request in list(self._open):
            if request.inner is None:
                self._ask(request, child)

    def give_up(self, child: Child) -> None:
        """`child` has failed: its requests wait for the next session."""
        for request in self._open:
            if request.child is child:
                request.inner = request.child = None

    def fail(self, why: str, code: str | None) -> None:
        """Fail all requests."""
        for request in list(self._open):
            request.inner = None
            if not request.asked.done():
                request.asked.set_exception(RealtimeError(why, code=code))
                request.asked.exception()

    def _ask(self, request: Request, child: Child) -> None:
        try:
            inner = child.session.generate_reply(**request.options)
        except Exception as error:
            request.asked.set_exception(error)
            return
        request.inner, request.child = inner, child
        inner.add_done_callback(lambda _: self._answered(request, inner))

    def _answered(self, request: Request, inner: asyncio.Future[GenerationCreatedEvent]) -> None:
        if inner.cancelled():
            error: BaseException | None = RealtimeError("the request was cancelled", code="closed")
        else:
            error = inner.exception()
        if request.inner is not inner or request.asked.done():
            return  # the next session will answer it
        if error is None:
            request.asked.set_result(inner.result())
        else:
            request.asked.set_exception(error)
            request.asked.exception()  # mark as retrieved, or asyncio warns

    def _forget(self, request: Request) -> None:
        self._open.remove(request)
        inner, request.inner = request.inner, None
        if request.asked.cancelled() and inner is not None:
            inner.cancel()
        self._stir()


class OwedSound:
    """Tracks the user's turns. Those without a transcript and without a reply still need their sound,
    so it is pushed again. Those that were answered without one are carried as messages with sound."""

    def __init__(self, kept: KeptSound[AudioFrame | Mark]) -> None:
        self._kept = kept
        self.number = 0
        """The number of ended ones."""
        self._transcribed = 0
        self._settled = 0
        self._unread: set[str] = set()
        """Messages whose transcript is empty, and which have no reply."""
        self._answered: dict[str, None] = {}
        """Messages that have a reply, but no transcript."""

    @property
    def open(self) -> bool:
        return self._settled < self.number

    def ended(self, mark: Mark) -> None:
        self._kept.add_commit(mark)
        self.number += 1

    def transcribed(self, item_id: str, text: str) -> None:
        """A transcript is final. An empty one does not replace the sound."""
        if item_id in self._answered:
            if text:
                del self._answered[item_id]
                self._kept.written(item_id)
                self._transcribed += 1
            return
        if not text:
            self._unread.add(item_id)
            return
        self._transcribed += 1 + len(self._unread)
        self._unread.clear()
        self._settle(self._transcribed + len(self._answered))

    def unwritten(self, items: Sequence[ChatItem]) -> list[str]:
        """The user's messages among `items` that have neither a transcript nor a reply."""
        return [item.id for item in items if _is_empty(item) and item.id not in self._answered]

    def answered(self, number: int, item_ids: Sequence[str]) -> None:
        """A reply to the first `number` turns is complete.

        Args:
            number: number of turns that had ended when the reply began.
            item_ids: the messages without a transcript at that time.
        """
        self._settle(number, item_ids)
        self._answered.update(dict.fromkeys(item_ids))
        self._unread.difference_update(item_ids)

    def clear(self) -> None:
        self._kept.clear()
        self._settled = self.number
        self._transcribed = self.number - len(self._answered)
        self._unread.clear()

    def carried(self, items: Sequence[ChatItem]) -> list[ChatItem]:
        """The history for another service. Messages that were answered without a transcript become
        sound, or a text that mentions it if the sound is not kept. Other empty messages are omitted,
        because their sound is pushed again."""
        found: list[ChatItem] = []
        for item in items:
            if not isinstance(item, ChatMessage) or item.content:
                found.append(item)
            elif item.id in self._answered:
                pieces = self._kept.sound_of(item.id)
                sound = [piece for piece in pieces if not isinstance(piece, Mark)]
                content = AudioContent(frame=sound) if sound else UNTRANSCRIBED
                found.append(item.model_copy(update={"content": [content]}))
        return found

    def begin_anew(self) -> None:
        """Prepare the kept sound for another service, which detects the ends of turns again.
        Commits by the caller stay."""
        self._settled = self._transcribed = self.number - self._kept.forget(Mark.TURN)
        self._kept.forget_turns()
        self._answered.clear()
        self._unread.clear()

    def _settle(self, number: int, item_ids: Sequence[str] = ()) -> None:
        turns = max(min(number, self.number) - self._settled, 0)
        names = [None] * turns + list(item_ids)
        for name in names[len(names) - turns :]:
            self._settled += 1
            self._kept.committed(name)


def _is_empty(item: ChatItem) -> bool:
    return isinstance(item, ChatMessage) and item.role == "user" and not item.content


def unanswered(items: Sequence[ChatItem]) -> bool:
    """Whether a tool call has no result."""
    answered = {item.call_id for item in items if isinstance(item, FunctionCallOutput)}
    return any(isinstance(item, FunctionCall) and item.call_id not in answered for item in items)


def replaced(items: Sequence[ChatItem], item_id: str, by: ChatItem | None) -> list[ChatItem]:
    found: list[ChatItem] = []
    for item in items:
        if item.id != item_id:
            found.append(item)
        elif by is not None:
            found.append(by)
    return found
