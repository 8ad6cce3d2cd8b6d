"""The state machine of replies: which one runs, which are requested, which are owed.

A service makes one reply at a time, on its own initiative or on request. A request made meanwhile
waits here and is sent when the running reply has ended. Each request ends exactly once: in a reply, or
in an error. A reply to a request that has already ended is cancelled by its id and never played.

::

    request    WAITING --send--> ASKED --started--> (a reply)
               WAITING --interrupt, deadline--> failed
               ASKED   --refused: busy--> WAITING        --refused--> failed
               ASKED   --interrupt, deadline--> OWED (failed to its caller; cancelled when it starts)
    reply      RUNNING --ended--> over
               RUNNING --interrupt--> STOPPING (its words are dropped) --ended, deadline--> over

A deadline counts the silence of the service. It does not run while the service waits for this side:
for the result of a call, or for the answer to a task that it has delegated.

Pure: events and times in, effects out.
"""

from __future__ import annotations

import math
from collections import OrderedDict
from enum import Enum
from typing import Final, TypeAlias

import msgspec

from rejoinder._core.realtime.messages import CreateReply, ReplyStatus
from rejoinder.errors import APIError

__all__ = [
    "TRANSITIONS",
    "Announce",
    "Cancel",
    "Effect",
    "Fail",
    "Finish",
    "Replies",
    "RequestState",
    "Send",
]

_REMEMBERED: Final = 64
"""Number of ended replies and requests to remember, so that late events for them are recognized."""
_STOP_TIMEOUT: Final = 5.0
"""Seconds that a cancelled reply may take to end. After that the next one is requested."""
_SWAP_PATIENCE: Final = 0.5
"""Share of its time that a request waits for a good moment to change connections."""


class RequestState(Enum):
    """The state of a request for a reply."""

    WAITING = "waiting"
    """Another reply runs, or results of tools are missing."""
    ASKED = "asked"
    """Sent; the service has not begun."""
    OWED = "owed"
    """Its caller has received a failure, but the service may still begin."""
    STARTED = "started"
    FAILED = "failed"


TRANSITIONS: Final[dict[RequestState, dict[str, RequestState]]] = {
    RequestState.WAITING: {
        "send": RequestState.ASKED,
        "started": RequestState.STARTED,  # refused as busy, but begun anyway
        "refused": RequestState.FAILED,
        "interrupt": RequestState.FAILED,
        "deadline": RequestState.FAILED,
        "lost": RequestState.WAITING,
    },
    RequestState.ASKED: {
        "started": RequestState.STARTED,
        "busy": RequestState.WAITING,
        "refused": RequestState.FAILED,
        "interrupt": RequestState.OWED,
        "deadline": RequestState.OWED,
        "lost": RequestState.WAITING,
    },
    RequestState.OWED: {
        "started": RequestState.FAILED,
        "refused": RequestState.FAILED,
        "lost": RequestState.FAILED,
    },
    RequestState.STARTED: {},
    RequestState.FAILED: {},
}
"""The next state of a request for each event. An event that is not listed changes nothing."""


class Send(msgspec.Struct, frozen=True):
    """Send this request now."""

    request: CreateReply


class Announce(msgspec.Struct, frozen=True):
    """A reply began; `refs` are the requests it answers, empty if the service began by itself."""

    reply_id: str
    refs: tuple[str, ...]


class Cancel(msgspec.Struct, frozen=True):
    """Tell the service to stop this reply."""

    reply_id: str


class Finish(msgspec.Struct, frozen=True):
    """End the streams of this reply now, with this status."""

    reply_id: str
    status: ReplyStatus


class Fail(msgspec.Struct, frozen=True):
    """These requests failed."""

    refs: tuple[str, ...]
    message: str
    code: str | None = None


Effect: TypeAlias = Send | Announce | Cancel | Finish | Fail


class _Request(msgspec.Struct):
    command: CreateReply
    refs: list[str]
    """The callers that this request answers: several if each asked for the reply to the same batch
    of tool results."""
    since: float
    """When it was requested, was sent, or lost its connection."""
    for_tools: bool
    """It waits for the other results of its batch."""
    state: RequestState = RequestState.WAITING
    pressing: bool = False
    """It has waited long enough for the next connection."""


class _Running(msgspec.Struct):
    reply_id: str
    quiet_since: float
    stopping_since: float = math.inf
    refs: list[str] = msgspec.field(default_factory=list[str])
    """The callers that still wait for it."""
    calls: set[str] = msgspec.field(default_factory=set[str])
    """Its calls without a result: it may pause until it has them."""


class Replies:
    """The requests and replies of one session.

    Args:
        timeout: seconds of silence from the sending of a request to the beginning of its reply.
        silence: seconds without any event after which a running reply has failed.
    """

    def __init__(self, *, timeout: float = 10.0, silence: float = 20.0) -> None:
        self._timeout = timeout
        self._silence = silence
        self._requests: list[_Request] = []
        self._owed: OrderedDict[str, None] = OrderedDict()
        self._running: _Running | None = None
        self._over: OrderedDict[str, None] = OrderedDict()
        self._unanswered: set[str] = set()
        self._answered_some = False
        self._awaited: set[str] = set()
        """The calls and tasks for which the service waits before it begins another reply."""
        self._open = False
        self._held_until = -math.inf

    # -- what is known -----------------------------------------------------------------------

    @property
    def running(self) -> str | None:
        """Id of the audible reply; also ``None`` while a cancelled one is ending."""
        running = self._running
        return None if running is None or running.stopping_since < math.inf else running.reply_id

    @property
    def idle(self) -> bool:
        """Whether no reply runs and none is requested."""
        return self._running is None and not self._requests

    @property
    def working(self) -> bool:
        """Whether a reply is requested, or the service waits for this side before it begins one."""
        return bool(self._requests or self._awaited)

    @property
    def between_turns(self) -> bool:
        """Whether no reply runs and none is about to begin."""
        return self._running is None and not any(
            request.state is RequestState.ASKED for request in self._requests
        )

    @property
    def pressing(self) -> bool:
        """Whether a request cannot wait longer for a good moment to change connections."""
        return self._for_next and any(request.pressing for request in self._requests)

    @property
    def _for_next(self) -> bool:
        """Whether requests wait for the next connection, and for nothing else."""
        return not self._open and self._running is None

    def hears(self, reply_id: str) -> bool:
        """Whether parts of this reply are passed on."""
        return self._running is not None and self.running == reply_id

    def deadline(self) -> float:
        """When `tick` is due; infinite if never."""
        due = self._held_until if self._requests and self._held_until > -math.inf else math.inf
        for request in self._requests:
            due = min(due, self._due(request))
            if self._for_next and not request.pressing:
                due = min(due, request.since + self._timeout * _SWAP_PATIENCE)
        running = self._running
        if running is not None:
            stopping = running.stopping_since < math.inf
            end = running.stopping_since + _STOP_TIMEOUT
            due = min(due, end if stopping else self._silent_until(running))
        return due

    # -- what this side does -----------------------------------------------------------------

    def connected(self, now: float) -> list[Effect]:
        """The session is ready: send the waiting requests."""
        self._open = True
        self._awaited.clear()
        return self._pump(now)

    def request(self, command: CreateReply, now: float) -> list[Effect]:
        """A reply is asked for."""
        for_tools = bool(self._unanswered) and self._answered_some
        if for_tools:
            for known in self._requests:
                if known.for_tools and known.state is RequestState.WAITING:
                    known.refs.append(command.ref)
                    return []
        self._requests.append(_Request(command, [command.ref], now, for_tools))
        return self._pump(now)

    def pause(self) -> None:
        """Hold waiting requests for the next connection, and send no more over this one."""
        self._open = False

    def hold(self, until: float) -> None:
        """Send no request before `until` or `release`, because the user's turn is being sent again, and
        the replies must follow it."""
        self._held_until = until

    def release(self, now: float) -> list[Effect]:
        """The turn has arrived: send the requests that waited for it."""
        self._held_until = -math.inf
        return self._pump(now)

    def forgive(self) -> None:
        """Stop waiting for owed replies: the next reply that begins is a different one. For
        services that do not name the request they answer."""
        self._owed.clear()

    def give_up(self, ref: str, now: float) -> list[Effect]:
        """The caller no longer wants its reply, which may have begun meanwhile."""
        for request in list(self._requests):
            if ref in request.refs:
                request.refs.remove(ref)
                if not request.refs:
                    self._drop(request)
        running = self._running
        if running is not None and ref in running.refs:
            running.refs.remove(ref)
            if not running.refs:
                return self._stop(running, now)
        return self._pump(now)

    def interrupt(self, now: float) -> list[Effect]:
        """Stop the running reply and all requests, if any."""
        effects: list[Effect] = []
        for request in list(self._requests):
            effects.append(
                _failure(request, "the reply was interrupted before it began", "superseded")
            )
            self._drop(request)
        if self._running is not None:
            effects += self._stop(self._running, now)
        return effects

    def called(self, call_id: str, *, waits: bool = False) -> None:
        """The running reply called a tool. `waits`: the service begins no reply before it has the
        result."""
        if not self._unanswered:
            self._answered_some = False
        self._unanswered.add(call_id)
        if self._running is not None:
            self._running.calls.add(call_id)
        if waits:
            self._awaited.add(call_id)

    def answered(self, call_id: str, now: float) -> list[Effect]:
        """The result of a call was sent, or is no longer needed."""
        if call_id in self._unanswered:
            self._unanswered.discard(call_id)
            self._answered_some = bool(self._unanswered)
        self.unblocked(call_id, now)
        return self._pump(now)

    def blocked(self, ref: str) -> None:
        """The service has delegated the task `ref`, and begins no reply before it has the answer."""
        self._awaited.add(ref)

    def unblocked(self, ref: str, now: float) -> None:
        """The service no longer waits for this call or task: its silence counts from now on."""
        if ref in self._awaited:
            self._awaited.discard(ref)
            self.works(now)
        running = self._running
        if running is not None and ref in running.calls:
            running.calls.discard(ref)
            running.quiet_since = now

    def works(self, now: float) -> None:
        """The service works on the last requested reply."""
        for request in self._requests:
            if request.state is RequestState.ASKED:
                request.since = now

    # -- what the service does ---------------------------------------------------------------

    def started(self, reply_id: str, ref: str | None, now: float) -> list[Effect]:
        """The service began a reply."""
        if reply_id in self._over:
            return []
        effects: list[Effect] = []
        if ref is not None and ref in self._owed:
            del self._owed[ref]
            self._remember(reply_id)
            effects.append(Cancel(reply_id))
            # It occupies the service until it ends, unless another reply is known to occupy it.
            if self._running is None or not self._running.reply_id:
                self._running = _Running(reply_id, now, stopping_since=now)
            return effects
        request = self._find(ref)
        previous = self._running
        if previous is not None and previous.reply_id != reply_id:
            # The end event of the previous reply was lost: no service makes two replies at once.
            self._remember(previous.reply_id)
            if previous.stopping_since == math.inf:
                effects.append(Finish(previous.reply_id, "cancelled"))
        elif previous is not None:
            return []
        refs: tuple[str, ...] = ()
        if request is not None:
            self._move(request, "started")
            refs = tuple(request.refs)
        self._running = _Running(reply_id, now, refs=list(refs))
        effects.append(Announce(reply_id, refs))
        return effects

    def progressed(self, reply_id: str, now: float) -> bool:
        """A part of a reply arrived. Return whether to pass it on."""
        running = self._running
        if running is None or running.reply_id != reply_id:
            return False
        running.quiet_since = now
        return running.stopping_since == math.inf

    def ended(
        self,
        reply_id: str,
        status: ReplyStatus,
        ref: str | None,
        now: float,
        *,
        message: str = "",
        code: str | None = None,
    ) -> list[Effect]:
        """The service ended a reply, perhaps one that it never began."""
        effects: list[Effect] = []
        running = self._running
        if running is not None and running.reply_id == reply_id:
            self._running = None
            if running.stopping_since == math.inf:
                effects.append(Finish(reply_id, status))
            for request in self._requests:
                request.since = now  # the service may have held it back until now
        elif ref is not None:
            self._owed.pop(ref, None)
            request = self._find(ref)
            if request is not None:
                self._move(request, "refused")
                effects.append(
                    _failure(
                        request,
                        message or f"the service ended the reply before it began ({status})",
                        code,
                    )
                )
        self._remember(reply_id)
        effects += self._pump(now)
        return effects

    def refused(
        self, ref: str, error: APIError, now: float, *, code: str | None = None, busy: bool = False
    ) -> list[Effect]:
        """The service refused a request. `busy`: because another reply runs."""
        self._owed.pop(ref, None)
        request = self._find(ref)
        if request is None:
            return []
        if busy:
            self._move(request, "busy")
            if self._running is None:
                # A reply that is not announced yet. Its beginning or the deadline replaces this
                # entry.
                self._running = _Running("", now, stopping_since=now)
            return []
        self._move(request, "refused")
        return [_failure(request, error.message, code), *self._pump(now)]

    def lost(self, now: float) -> list[Effect]:
        """The connection is gone: running replies have ended, and requests are sent again."""
        self._open = False
        self._held_until = -math.inf
        self._awaited.clear()
        effects: list[Effect] = []
        running = self._running
        self._running = None
        if running is not None:
            self._remember(running.reply_id)
            if running.stopping_since == math.inf:
                effects.append(Finish(running.reply_id, "failed"))
        self._owed.clear()
        for request in self._requests:
            self._move(request, "lost")
            request.since = now
        return effects

    def fail_all(self, message: str, code: str | None = None) -> list[Effect]:
        """The session is over: everything ends."""
        effects: list[Effect] = [_failure(request, message, code) for request in self._requests]
        self._requests.clear()
        self._owed.clear()
        running = self._running
        self._running = None
        if running is not None and running.stopping_since == math.inf:
            effects.append(Finish(running.reply_id, "failed"))
        return effects

    def tick(self, now: float) -> list[Effect]:
        """Handle what is due."""
        if now >= self._held_until:
            self._held_until = -math.inf
        effects: list[Effect] = []
        for request in list(self._requests):
            request.pressing = (
                self._for_next and now >= request.since + self._timeout * _SWAP_PATIENCE
            )
            if self._due(request) > now:
                continue
            if request.for_tools and self._open and request.state is RequestState.WAITING:
                # Missing results may take long, but they must not delay the reply to the others.
                request.for_tools = False
                continue
            effects.append(
                _failure(
                    request,
                    f"no reply began within {self._timeout:g} s of the request",
                    "timeout",
                )
            )
            self._drop(request)
        running = self._running
        if running is not None and now >= running.stopping_since + _STOP_TIMEOUT:
            self._remember(running.reply_id)
            self._running = None
        elif (
            running is not None
            and running.stopping_since == math.inf
            and now >= self._silent_until(running)
        ):
            self._remember(running.reply_id)
            self._running = None
            effects.append(Cancel(running.reply_id))
            effects.append(Finish(running.reply_id, "failed"))
        effects += self._pump(now)
        return effects

    def excuse(self, seconds: float) -> None:
        """Subtract the time that the event loop was blocked from the service's silence."""
        for request in self._requests:
            request.since += seconds
        if self._running is not None:
            self._running.quiet_since += seconds
            self._running.stopping_since += seconds

    # -- inside ------------------------------------------------------------------------------

    def _pump(self, now: float) -> list[Effect]:
        """Send the first request, if the service is free for it."""
        if not self._open or self._running is not None or now < self._held_until:
            return []
        self._held_until = -math.inf
        if any(request.state is RequestState.ASKED for request in self._requests):
            return []
        for request in self._requests:
            if request.for_tools and self._unanswered:
                continue
            self._move(request, "send")
            request.since = now
            return [Send(request.command)]
        return []

    def _stop(self, running: _Running, now: float) -> list[Effect]:
        """End a reply to its listeners now, and at the service; once."""
        if running.stopping_since < math.inf:
            return []
        running.stopping_since = now
        return [Cancel(running.reply_id), Finish(running.reply_id, "interrupted")]

    def _due(self, request: _Request) -> float:
        """The deadline of the oldest request; infinite while a reply runs, because then its silence
        is watched instead, and while the service waits for this side."""
        if self._running is not None:
            return math.inf
        if not self._open:
            return request.since + self._timeout
        asked = request.state is RequestState.ASKED and not self._awaited
        held = request.for_tools and bool(self._unanswered)
        return request.since + self._timeout if asked or held else math.inf

    def _silent_until(self, running: _Running) -> float:
        """When a running reply has been silent for too long."""
        return math.inf if running.calls else running.quiet_since + self._silence

    def _move(self, request: _Request, event: str) -> None:
        request.state = TRANSITIONS[request.state].get(event, request.state)
        if request.state in (RequestState.STARTED, RequestState.FAILED, RequestState.OWED):
            self._requests.remove(request)
        if request.state is RequestState.OWED:
            self._owed[request.command.ref] = None
            if len(self._owed) > _REMEMBERED:
                self._owed.popitem(last=False)

    def _drop(self, request: _Request) -> None:
        """Its callers have received the failure, but the service may still begin."""
        self._move(request, "deadline")

    def _find(self, ref: str | None) -> _Request | None:
        if ref is None:
            return None
        for request in self._requests:
            if request.command.ref == ref:
                return request
        return None

    def _remember(self, reply_id: str) -> None:
        self._over[reply_id] = None
        if len(self._over) > _REMEMBERED:
            self._over.popitem(last=False)


def _failure(request: _Request, message: str, code: str | None) -> Fail:
    return Fail(tuple(request.refs), message, code)
