"""One decoder for every reply: bytes in, chunks out. Pure.

A `Framing` cuts the bytes into events; a `Reader`, the provider's part, turns each event into chunks
of a `Reply`. The decoder owns everything else: the kind of the body, the state of the reply, the
bound on memory, and the errors for bodies of an unexpected kind. It keeps the promises of
`rejoinder.wire.decoder.Decoder`.

The state of a reply is one `State`; the table `TRANSITIONS` lists which state may follow.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from enum import Enum
from types import MappingProxyType
from typing import Any, Final, Protocol

from rejoinder._core.bodies import plain_text
from rejoinder._core.chunks import ChatChunk, CompletionUsage
from rejoinder._core.json_values import LARGE, MAX_VALUES, ValueCounter, may_be_crowded
from rejoinder.errors import APIConnectionError, APIError, WireError
from rejoinder.providers.answering.chunks import EVENT_LIMIT, Reply, Step
from rejoinder.wire.json_objects import JSONObjectDecoder

__all__ = ["TRANSITIONS", "Framing", "Reader", "ReplyDecoder", "State", "transition_table"]


class State(Enum):
    """The state of a reply."""

    __hash__ = object.__hash__  # members are singletons; `Enum` computes theirs in Python

    OPENING = "opening"
    """Nothing but white space arrived."""
    STREAM = "stream"
    """Events arrive."""
    WHOLE = "whole"
    """JSON arrives instead of the requested stream: a whole answer, or an error."""
    PAGE = "page"
    """A web page arrives."""
    ANSWERED = "answered"
    """The answer is whole. Only its usage may follow, or nothing."""
    ENDED = "ended"
    """Nothing of interest follows; nothing more is read."""
    BROKEN = "broken"
    """The reply failed."""


TRANSITIONS: Final[Mapping[State, Mapping[Step, State]]] = MappingProxyType(
    {
        State.OPENING: {
            Step.STREAM_OPENED: State.STREAM,
            Step.JSON_OPENED: State.WHOLE,
            Step.PAGE_OPENED: State.PAGE,
            Step.FAIL: State.BROKEN,
        },
        State.STREAM: {
            Step.ANSWER: State.ANSWERED,
            Step.END: State.ENDED,
            Step.FAIL: State.BROKEN,
        },
        State.WHOLE: {
            Step.ANSWER: State.ANSWERED,
            Step.END: State.ENDED,
            Step.FAIL: State.BROKEN,
        },
        State.PAGE: {Step.FAIL: State.BROKEN},
        State.ANSWERED: {
            Step.ANSWER: State.ANSWERED,
            Step.END: State.ENDED,
            Step.FAIL: State.BROKEN,
        },
        State.ENDED: {},
        State.BROKEN: {},
    }
)
"""The next state for each state and step. Steps that are missing here cannot happen."""


def transition_table() -> str:
    """`TRANSITIONS` as a table in Markdown: a row for each state, a column for each step."""
    steps = list(Step)
    lines = [
        "| state | " + " | ".join(step.value for step in steps) + " |",
        "|---" * (len(steps) + 1) + "|",
    ]
    for state, row in TRANSITIONS.items():
        cells = [row[step].value if step in row else "" for step in steps]
        lines.append(f"| **{state.value}** | " + " | ".join(cells) + " |")
    return "\n".join(lines)


class Framing(Protocol):
    """Cuts the bytes of a stream into events."""

    @property
    def failure(self) -> APIError | None:
        """Why no more events follow, after those that `feed` returned."""
        ...

    @property
    def stray(self) -> bytes:
        """The beginning of the bytes that belonged to no event."""
        ...

    def feed(self, data: bytes, /) -> list[tuple[str | None, bytes]]:
        """The events that `data` completes: their names, if any, and payloads."""
        ...

    def close(self) -> list[tuple[str | None, bytes]]:
        """The last event, if the framing can read one without its end. It may be cut anywhere."""
        ...


class Reader(Protocol):
    """The provider's part: reads events and adds to a `Reply`."""

    @property
    def expected(self) -> str:
        """The kind of the requested stream, for error messages."""
        ...

    def event(self, name: str | None, payload: bytes, reply: Reply, /) -> None:
        """Read one event of a stream."""
        ...

    def whole(self, body: bytes, reply: Reply, /) -> None:
        """Read one JSON object that arrived instead of a stream."""
        ...

    def ended(self, reply: Reply, /) -> None:
        """The bytes ended before the reply did. Fail it unless it is complete."""
        ...

    def usage(self) -> CompletionUsage | None:
        """The token counts from the provider so far, even in a reply that is cut."""
        ...


_ONE_TEXT: Final = 1 << 20
"""More bytes than the text of any reply has. Larger payloads are pictures or sound, without commas."""
_PAGE_LIMIT: Final = 4096
_BOM: Final = b"\xef\xbb\xbf"

_STREAM: Final = State.STREAM
_READING: Final = frozenset({State.STREAM, State.WHOLE, State.ANSWERED})
_FINAL: Final = frozenset({State.ENDED, State.BROKEN})


class ReplyDecoder:
    """Bytes of one reply in, chunks out.

    Args:
        framing: the framing of the requested stream. A body that begins like JSON or like a web
            page does not pass through it.
        reader: the provider's part.
        prefix: prefix of the reply's id, until the provider sends an id.
        track_text: remember the text, for readers that compare finished texts with it.
        checksums: the framing has checksums, which prove its type whatever the body declares.

    Attributes:
        state: the state of the reply.
        reply: the reply so far; use only its `output_count`.
        checksums: see above.
    """

    __slots__ = (
        "_framing",
        "_head",
        "_reader",
        "_seen",
        "_take",
        "checksums",
        "reply",
        "state",
    )

    def __init__(
        self,
        framing: Framing,
        reader: Reader,
        *,
        prefix: str,
        track_text: bool = False,
        checksums: bool = False,
    ) -> None:
        self.checksums = checksums
        self._framing = framing
        self._reader = reader
        self.reply = Reply(prefix)
        if track_text:
            self.reply.track_text()
        self._take = reader.event
        self._head = b""  # the first bytes, until they show the kind of the body
        self._seen = False  # an event was read
        self.state = State.OPENING

    @property
    def failure(self) -> APIError | None:
        """The error that the next `feed` or `close` will raise."""
        return self.reply.failure

    @property
    def model(self) -> str | None:
        """The model that answers, if the provider has named it."""
        return self.reply.model or None

    @property
    def finish_reason(self) -> str | None:
        """The provider's own finish reason, or ``None`` until it arrives."""
        return self.reply.finish_reason

    @property
    def output_count(self) -> int:
        """Grows with every event that carries text, thinking or part of a tool call."""
        return self.reply.output_count

    @property
    def skipped(self) -> int:
        """Number of events that the reader skipped."""
        return self.reply.skipped

    @property
    def usage_so_far(self) -> CompletionUsage | None:
        """The token counts from the provider so far, even in a reply that is cut."""
        return self.reply.with_spent(self._reader.usage())

    @property
    def paused(self) -> dict[str, Any] | None:
        """The part to send back so that the reply continues, or ``None`` if it has ended."""
        return self.reply.paused

    def may_pause(self) -> None:
        """Let a paused reply be sent back. Otherwise a pause is its end."""
        self.reply.may_pause = True

    def go_on(self, spent: CompletionUsage | None) -> None:
        """Continue a reply whose earlier parts used `spent`."""
        self.reply.spent = spent

    def know_tools(self, names: Callable[[], Collection[str]]) -> None:
        """Set the names of the declared tools, to which names with leaked marks are mended."""
        self.reply.tool_names = names

    def feed(self, data: bytes) -> list[ChatChunk]:
        """The chunks that `data` completes.

        Raises:
            APIError: found in an earlier call.
        """
        if self.state is not _STREAM and self.state not in _READING:
            data = self._open(data)
        reply = self.reply
        if data:
            framing = self._framing
            events = framing.feed(data)
            if events:
                self._seen = True
                self._read(events)
            if framing.failure is not None and self.state not in _FINAL:
                reply.fail(framing.failure)
                self._step()
        chunks = reply.chunks
        if chunks:
            reply.chunks = []
        return chunks

    def close(self) -> list[ChatChunk]:
        """No more bytes follow. Returns the remaining chunks. If an error follows them, `failure`
        holds it and the next call raises it.

        Raises:
            APIError: the reply is not complete, or is an error, a refusal or empty.
        """
        reply = self.reply
        if reply.failure is not None:
            raise reply.failure
        if self.state in _READING:
            self._close_stream()
        elif self.state is State.PAGE:
            reply.fail(self._page())
        elif self.state is State.OPENING:
            reply.fail(_nothing())
        if reply.step is not None:
            self._step()
        chunks, reply.chunks = reply.chunks, []
        if reply.failure is not None and not chunks:
            raise reply.failure
        return chunks

    # -- states ------------------------------------------------------------------------------

    def _step(self, step: Step | None = None) -> bool:
        """Take note of a step. Returns whether the reply is over."""
        if step is None:
            step, self.reply.step = self.reply.step, None
        if step is not None:
            self.state = TRANSITIONS[self.state][step]
            if step is Step.FAIL and isinstance(self.failure, APIConnectionError):
                self._explain()
        return self.state in _FINAL

    def _explain(self) -> None:
        """Use an error between the events as the reason why the reply was cut."""
        reply = self.reply
        failure, reply.failure = reply.failure, None
        if not self._read_stray(self._framing.stray):
            reply.failure = failure
        reply.step = None

    def _open(self, data: bytes) -> bytes:
        """The part of `data` to read; empty while the kind of body is unknown."""
        reply = self.reply
        if reply.failure is not None:
            raise reply.failure
        if self.state is State.ENDED:
            return b""
        self._head += data
        if self.state is State.OPENING:
            opened = _kind_of(self._head)
            if opened is None:
                return b""
            self._step(opened)
            if self.state is not State.PAGE:
                data, self._head = self._head, b""
                if self.state is State.WHOLE:
                    self._framing = JSONObjectDecoder(max_object=EVENT_LIMIT)
                    self._take = self._take_object
                return data
        if len(self._head) > _PAGE_LIMIT:
            reply.fail(self._page())
            self._step()
        return b""

    def _take_object(self, name: str | None, payload: bytes, reply: Reply) -> None:
        self._reader.whole(payload, reply)

    # -- events ------------------------------------------------------------------------------

    def _read(self, events: list[tuple[str | None, bytes]]) -> None:
        reply = self.reply
        take = self._take
        for name, payload in events:
            if len(payload) > LARGE and may_be_crowded(payload) and _is_crowded(payload):
                reply.fail(
                    WireError(f"{len(payload)} bytes of JSON hold more than {MAX_VALUES} values")
                )
            else:
                take(name, payload, reply)
            if reply.step is not None and self._step():
                return

    def _close_stream(self) -> None:
        reply = self.reply
        framing = self._framing
        if framing.failure is None:
            before = self.state
            events = framing.close()
            if events:
                self._seen = True
                self._read(events)
            if reply.unreadable:
                # The last event was cut off with the stream, so it is not garbage.
                reply.failure = None
                reply.unreadable = False
                self.state = before
        if self.state in _FINAL:
            return
        stray = framing.stray
        if stray and self._read_stray(stray):
            return
        if not self._seen:
            shown = plain_text(stray)
            reply.fail(
                WireError(f"expected {self._reader.expected}, got: {shown}", body=shown)
                if shown
                else _nothing()
            )
            return
        self._reader.ended(reply)
        reply.end()

    def _read_stray(self, stray: bytes) -> bool:
        """Read an error that a server wrote into the stream without framing it as an event. Google
        does this, and so do gateways that pass on the body of their upstream."""
        reply = self.reply
        begin = stray.find(b"{")
        if begin < 0:
            return False
        for _, found in JSONObjectDecoder().feed(stray[begin:]):
            self._reader.whole(found, reply)
            if reply.failure is not None:
                if isinstance(reply.failure, WireError):  # it was not an error object
                    reply.failure = reply.step = None
                    continue
                return True
        return False

    def _page(self) -> APIError:
        shown = plain_text(self._head, limit=_PAGE_LIMIT)
        return WireError(
            f"expected {self._reader.expected}, got a web page: {shown}", body=shown
        ).but(section="web page")


def _nothing() -> APIError:
    return APIConnectionError("the response ended without a single event")


def _kind_of(head: bytes) -> Step | None:
    """The kind of a body, by its first byte that is not white space: a brace or bracket is JSON, ``<``
    is a proxy's web page, and anything else is the stream. An AWS frame could begin with one of these
    bytes only if it were a gigabyte long."""
    start = head.removeprefix(_BOM).lstrip()[:1]
    if not start or head in (_BOM[:1], _BOM[:2]):
        return None if len(head) <= _PAGE_LIMIT else Step.STREAM_OPENED
    if start in (b"{", b"["):
        return Step.JSON_OPENED
    return Step.PAGE_OPENED if start == b"<" else Step.STREAM_OPENED


def _is_crowded(payload: bytes) -> bool:
    """Whether it holds too many values. Commas and brackets inside strings do not count."""
    if len(payload) > _ONE_TEXT:
        return True
    counter = ValueCounter()
    counter.feed(payload)
    return counter.crowded
