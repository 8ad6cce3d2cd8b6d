"""Responses API answers: bytes in, chunks out. Pure.

The law of this file: it dispatches on the `type` inside an event, because some servers send no
event names. The end mark is ``response.completed``, ``response.incomplete`` or ``response.failed``;
``[DONE]`` proves nothing. Text is handed out as it arrives, a tool call when its item is done;
what a server leaves out on the way is taken from the final response, so that nothing is lost and
nothing said twice. Reasoning items are kept whole, with the item they led to: both travel back, to
the server they came from. A tool call that the token limit cut is never handed out.
"""

from __future__ import annotations

import logging
from itertools import islice
from typing import Any, Final, cast

import msgspec

from rejoinder._core import jsontext
from rejoinder._core.bodies import plain_text
from rejoinder._core.chunks import ChatChunk
from rejoinder._core.usage import usage_from_responses
from rejoinder.errors import (
    APIConnectionError,
    APIError,
    APIStatusError,
    EmptyResponseError,
    RefusalError,
    WireError,
)
from rejoinder.providers.answering.chunks import SCAN_FROM, TEXT_OVERHEAD, Reply, too_many_values
from rejoinder.providers.answering.first_bytes import Opening
from rejoinder.providers.completions.errors import (
    decode_error,
    error_from,
    error_in_text,
    message_of,
)
from rejoinder.wire.sse import SSEDecoder

__all__ = ["StreamDecoder", "decode_error"]

logger = logging.getLogger("rejoinder")

_LIMIT: Final = 1 << 24
"""Bytes of tool arguments, refusals and state, or of a whole JSON answer, that are kept at most."""
_CALL: Final = 512
"""Bytes that a tool call takes beside its texts."""
_PLACE: Final = 256
"""Characters that a further place of text counts for: it takes as much."""
_TRACKED: Final = 1 << 20
"""Characters of text that are compared with the final response; nobody says more in one reply."""
_MAX_PARTS: Final = 1024
_EXPECTED: Final = "server-sent events of a response"
_END_MARKS: Final = frozenset({"response.completed", "response.incomplete", "response.failed"})


class _Event(msgspec.Struct, gc=False):
    type: str | None = None
    delta: str | None = None
    item_id: str | None = None
    output_index: int | None = None
    content_index: int | None = None
    summary_index: int | None = None
    item: dict[str, Any] | None = None
    response: dict[str, Any] | None = None
    part: dict[str, Any] | None = None
    text: str | None = None
    arguments: str | None = None
    refusal: str | None = None
    loose: bool = False
    raw: Any = None
    """The whole event, where it was read by the tolerant way."""


_decode_event = msgspec.json.Decoder(_Event).decode


class StreamDecoder:
    """Bytes of a streamed response in, chunks out.

    Args:
        allow_empty: an answer without text or tool call is legal (it follows a tool's output).
        host: of the server; kept with the state, which no other server can read.

    Attributes:
        failure: what the next call will raise.
        done: an end mark was seen: nothing of interest follows.
        complete: the same as `done`.
        finish_reason: the status of the final response: ``completed``, ``incomplete``, ``failed``.
        progress: grows with every piece of text, thinking or tool arguments.
        skipped: events that meant nothing to this decoder.
    """

    __slots__ = (
        "_allow_empty",
        "_cut",
        "_finished",
        "_given",
        "_host",
        "_items",
        "_kept",
        "_moved",
        "_opening",
        "_other",
        "_pending",
        "_refusal",
        "_reply",
        "_seen",
        "_sse",
        "_streamed",
        "_texts",
        "_thoughts",
        "_tracked",
        "done",
        "failure",
        "finish_reason",
        "skipped",
    )

    def __init__(self, *, allow_empty: bool = False, host: str = "") -> None:
        self._allow_empty = allow_empty
        self._host = host
        self._sse = SSEDecoder()
        self._reply = Reply("resp_")
        self._opening = Opening(_EXPECTED)
        self._items: dict[int, dict[str, Any]] = {}  # calls under way, by place in the output
        self._given: set[int] = set()  # what was handed out already: hashes of items
        # What was said, by place in the output: the final texts may hold more.
        self._pending: list[dict[str, Any]] = []  # reasoning items that led to nothing yet
        self._texts: dict[tuple[int, int], list[str]] = {}
        self._finished: set[tuple[int, int]] = set()
        self._moved: dict[tuple[int, int], tuple[int, int]] = {}
        self._streamed: set[tuple[str, str]] = set()  # ids and names of calls before the end
        self._thoughts: tuple[int, int] | None = None
        self._refusal: list[str] = []
        self._other = False
        self._cut = False
        self._kept = 0
        self._tracked = 0
        self._seen = False
        self.failure: APIError | None = None
        self.done = False
        self.finish_reason: str | None = None
        self.skipped = 0

    @property
    def progress(self) -> int:
        return self._reply.progress

    @property
    def complete(self) -> bool:
        return self.done

    # -- bytes -------------------------------------------------------------------------------

    def feed(self, data: bytes) -> list[ChatChunk]:
        """The chunks that `data` completes.

        Raises:
            APIError: found in an earlier call.
        """
        if self.failure is not None:
            raise self.failure
        if self.done:
            return []
        if self._opening.kind != "stream":
            data = self._opening.feed(data)
            self.failure = self._opening.failure
            if not data:
                return []
        chunks: list[ChatChunk] = []
        self._events(self._sse.feed(data), chunks, last=False)
        if self.failure is None:
            self.failure = self._sse.failure
        return chunks

    def close(self) -> list[ChatChunk]:
        """No more bytes. Returns what is left; where that is followed by an error, `failure` holds
        it, and the next call raises it.

        Raises:
            APIError: the answer is not complete, or is a refusal, an error or nothing.
        """
        if self.failure is not None:
            raise self.failure
        if self.done:
            return []
        chunks: list[ChatChunk] = []
        if self._opening.kind == "stream":
            self._events(self._sse.close(), chunks, last=True)
        else:
            self._read_body(chunks)
        if self.failure is None and not self.done:
            self.failure = self._truncated()
        if self.failure is not None and not chunks:
            raise self.failure
        return chunks

    def _events(
        self, events: list[tuple[str | None, bytes]], chunks: list[ChatChunk], *, last: bool
    ) -> None:
        for name, data in events:
            if len(data) > SCAN_FROM and (failure := too_many_values(data)) is not None:
                self.failure = failure
                return
            try:
                event = _decode_event(data)
            except (msgspec.MsgspecError, UnicodeError, RecursionError):
                if data.strip() in (b"[DONE]", b""):
                    continue
                try:
                    event = _walk(jsontext.decode_tolerantly(data))
                except ValueError as error:
                    if last:
                        return  # the event was cut with the stream: close() will say so
                    self.failure = WireError(
                        f"an event of the stream is not JSON ({error}): {plain_text(data)!r}",
                        body=plain_text(data),
                    )
                    return
                if event is None:
                    self.skipped += 1
                    continue
            if event.type is None:
                event.type = "error" if self._is_error(name, data) else name
            self._take(event, data, chunks)
            if self.done or self.failure is not None:
                return

    def _is_error(self, name: str | None, data: bytes) -> bool:
        # Gateways put the error of their upstream into the stream as it is, without a type.
        if name == "error":
            return True
        value = jsontext.decode(data)
        return isinstance(value, dict) and bool(cast("dict[str, Any]", value).get("error"))

    # -- values ------------------------------------------------------------------------------

    def _take(self, event: _Event, data: bytes, chunks: list[ChatChunk]) -> None:
        self._seen = True
        kind = event.type
        if kind == "response.output_text.delta":
            if event.delta:
                place = (event.output_index or 0, event.content_index or 0)
                texts = self._texts.get(place)
                if self._tracked < _TRACKED:
                    if texts is None:
                        texts = self._new_place(place)
                    self._tracked += len(event.delta)
                    texts.append(event.delta)
                said = self._reply.text(event.delta, event.loose)
                if said is not None:
                    chunks.append(said)
        elif kind in ("response.reasoning_summary_text.delta", "response.reasoning_text.delta"):
            if event.delta:
                self._thought(event, event.delta, chunks)
        elif kind == "response.function_call_arguments.delta":
            if event.delta:
                self._reply.progress += 1
                self._arguments(event, event.delta, more=True)
        elif kind == "response.function_call_arguments.done":
            if event.arguments:
                self._arguments(event, event.arguments, more=False)
        elif kind == "response.output_item.added":
            item = event.item
            if item is not None and item.get("type") == "function_call":
                self._reply.progress += 1
                begun: dict[str, Any] = {
                    name: _word(item.get(name)) for name in ("id", "call_id", "name")
                }
                self._items[event.output_index or 0] = begun
                self._keep(_CALL + sum(map(len, begun.values())))
        elif kind == "response.output_item.done":
            if event.item is not None:
                self._items.pop(event.output_index or 0, None)
                self._item(event.item, event.output_index or 0, chunks, final=False)
        elif kind == "response.output_text.done":
            place = (event.output_index or 0, event.content_index or 0)
            self._say_rest(place, event.text, chunks)
        elif kind == "response.content_part.done":
            if event.part is not None and event.part.get("type") == "output_text":
                place = (event.output_index or 0, event.content_index or 0)
                self._say_rest(place, event.part.get("text"), chunks)
        elif kind == "response.refusal.delta":
            if event.delta:
                self._reply.progress += 1
                self._refusal.append(event.delta)
                self._keep(len(event.delta))
        elif kind == "response.refusal.done":
            if event.refusal:
                self._refusal = [event.refusal]
        elif kind in ("response.created", "response.in_progress", "response.queued"):
            self._name(event.response)
        elif kind in _END_MARKS:
            response = event.response
            if response is None:
                response = {}
            self._end(response, kind.removeprefix("response."), chunks)
        elif kind in ("error", "response.error"):
            self.failure = error_from(event.raw if event.raw is not None else jsontext.decode(data))
        else:
            self.skipped += 1

    def _name(self, response: dict[str, Any] | None) -> None:
        identity = response.get("id") if response is not None else None
        if isinstance(identity, str) and identity:
            self._reply.id = identity

    def _say_rest(self, place: tuple[int, int], text: object, chunks: list[ChatChunk]) -> None:
        """Say what a finished text holds beyond what was said of it piece by piece."""
        if not isinstance(text, str) or not text or self._tracked >= _TRACKED:
            return
        texts = self._said_of(place, text)
        before = "".join(texts)
        texts[:] = [before]  # joined once, however often a server says that it is done
        if len(text) > len(before) and text.startswith(before):
            texts[:] = [text]
            self._tracked += len(text) - len(before)
            said = self._reply.text(text[len(before) :], loose=True)
            if said is not None:
                chunks.append(said)

    def _said_of(self, place: tuple[int, int], text: str) -> list[str]:
        """What was said already of the finished `text` at `place`. Some servers count the places of
        pieces and of whole texts differently, or only the one or the other."""
        found = self._texts.get(self._moved.get(place, place))
        if found is None or not text.startswith("".join(found)):
            for other, texts in islice(self._texts.items(), _MAX_PARTS):
                if other not in self._finished and any(texts) and text.startswith("".join(texts)):
                    self._finished.add(other)
                    self._moved[place] = other
                    return texts
        if found is None:
            found = self._new_place(place)
        self._finished.add(self._moved.get(place, place))
        return found

    def _new_place(self, place: tuple[int, int]) -> list[str]:
        self._tracked += _PLACE
        texts = self._texts[place] = []
        return texts

    def _thought(self, event: _Event, text: str, chunks: list[ChatChunk]) -> None:
        place = (event.output_index or 0, (event.summary_index or 0) + (event.content_index or 0))
        if self._thoughts is not None and self._thoughts != place:
            text = "\n\n" + text  # summaries come in paragraphs
        self._thoughts = place
        thinking = self._reply.thinking(text, event.loose)
        if thinking is not None:
            chunks.append(thinking)

    def _arguments(self, event: _Event, text: str, *, more: bool) -> None:
        item = self._items.get(event.output_index or 0)
        if item is not None:
            parts: list[str] = item.setdefault("_parts", [])
            if not more:
                parts.clear()
            parts.append(text)
            self._keep(len(text))

    def _item(
        self, item: dict[str, Any], index: int, chunks: list[ChatChunk], *, final: bool
    ) -> None:
        """One item of the output that is done."""
        kind = item.get("type")
        if kind == "function_call":
            self._call(item, chunks, final=final)
        elif kind == "reasoning":
            if self._is_new(kind, item.get("id") or index):
                if self._thoughts is None:
                    thought = "\n\n".join(
                        _texts(item.get("summary")) or _texts(item.get("content"))
                    )
                    thinking = self._reply.thinking(thought, loose=True) if thought else None
                    if thinking is not None:
                        chunks.append(thinking)
                # Explicit nulls and the status are refused when the item is sent back.
                kept = {
                    name: value
                    for name, value in item.items()
                    if value is not None and name != "status"
                }
                self._pending.append(kept)
                self._keep(len(str(kept)))
        elif kind == "message":
            for place, part in enumerate(_entries(item.get("content"))):
                if part.get("type") == "refusal":
                    if part.get("refusal"):
                        self._refusal = [str(part["refusal"])]
                else:
                    self._say_rest((index, place), part.get("text"), chunks)
            if self._is_new(kind, item.get("id") or index):
                state = self._led_to("message_id", item)
                if isinstance(item.get("phase"), str):
                    state["phase"] = item["phase"]
                if state:
                    if self._host:
                        state["host"] = self._host
                    chunks.append(self._reply.state({"openai": state}))
        elif isinstance(kind, str):
            # Done by the provider itself (searches, code, images): an answer, if no words.
            self._other = True
            self._pending.clear()  # what it led to is not sent back, so neither may it be
            if self._is_new(kind, item.get("id") or index):
                self._reply.progress += 1
                chunks.append(self._reply.state({"openai": {"output_items": [item]}}))
        else:
            self.skipped += 1

    def _is_new(self, *what: object) -> bool:
        """Whether it was not handed out before; from now on it was."""
        mark = hash(tuple(map(str, what)))
        if mark in self._given:
            return False
        self._given.add(mark)
        self._keep(TEXT_OVERHEAD)
        return True

    def _call(self, item: dict[str, Any], chunks: list[ChatChunk], *, final: bool) -> None:
        call_id = _word(item.get("call_id")) or _word(item.get("id"))
        arguments = item.get("arguments")
        if not isinstance(arguments, str):
            arguments = "" if arguments is None else jsontext.encode(arguments).decode()
        if not arguments and item.get("_parts"):
            arguments = "".join(item["_parts"])
        name = _word(item.get("name"))
        if not name and not arguments.strip():
            self.skipped += 1
            return
        if item.get("status") == "incomplete" and not _is_whole(arguments):
            self._cut = True
            logger.warning("the call of tool %r was cut and is left out", name)
            return
        # The final response repeats all calls, by some servers under other ids of items and with
        # other white space in the arguments.
        again = final and (call_id, name) in self._streamed
        if again or not self._is_new("call", call_id, name, arguments):
            return
        if not final:
            self._streamed.add((call_id, name))
            self._keep(_CALL + len(call_id) + len(name))
        self._reply.progress += 1
        state = self._led_to("item_id", item)
        if state and self._host:
            state["host"] = self._host
        chunks.append(
            self._reply.call(call_id, name, arguments, {"openai": state} if state else None)
        )

    def _led_to(self, name: str, item: dict[str, Any]) -> dict[str, Any]:
        """The reasoning that led to `item`, and how that is called: the API wants both back in
        this order, and refuses the one without the other."""
        if not self._pending:
            return {}
        state: dict[str, Any] = {"reasoning_items": self._pending}
        self._pending = []
        if isinstance(item.get("id"), str) and item["id"]:
            state[name] = item["id"]
        return state

    # -- the end -----------------------------------------------------------------------------

    def _end(self, response: dict[str, Any], status: str, chunks: list[ChatChunk]) -> None:
        self._name(response)
        reason = _word(_object(response.get("incomplete_details")).get("reason"))
        self.finish_reason = status
        if status != "failed":
            self._finished.clear()  # the final response goes through all of them again
            self._moved.clear()
            for index, item in enumerate(_entries(response.get("output"))):
                if status == "incomplete" and item.get("type") == "function_call":
                    item = {**item, "status": "incomplete"}
                self._item(item, index, chunks, final=True)
            for item in self._items.values():
                # Begun and never ended, and not in the final response either.
                self._call({**item, "status": "incomplete"}, chunks, final=True)
        self._items.clear()
        chunks.extend(self._reply.rest())
        usage = usage_from_responses(
            response.get("usage"), service_tier=response.get("service_tier")
        )
        if usage is not None:
            chunks.append(self._reply.usage(usage))
        error = response.get("error")
        if status == "failed" or error:
            self.failure = error_from(error or {"message": "the response failed", "code": reason})
        elif self._refusal:
            text = jsontext.heal("".join(self._refusal))
            self.failure = RefusalError(f"the model refused: {text}", reason="refusal", body=text)
        elif reason == "content_filter":
            self.failure = RefusalError(
                "the answer was stopped by the provider's content filter", reason="content_filter"
            )
        elif status == "cancelled":
            self.failure = APIStatusError("the response was cancelled", status_code=499)
        elif not self._reply.said and not self._other:
            if status == "incomplete":
                self.failure = EmptyResponseError(
                    f"the response ended ({reason}) before any text or whole tool call; "
                    "allow more tokens or less reasoning",
                    retryable=False,
                )
            else:
                self.failure = self._reply.empty_reply_error(
                    self._allow_empty, f"status {status!r}"
                )
        self.done = self.failure is None

    def _truncated(self) -> APIError:
        stray = self._sse.stray
        if stray:
            quoted = error_in_text(stray)
            if quoted is not None:
                return quoted
        if not self._seen:
            if stray:
                shown = plain_text(stray)
                return WireError(f"expected {_EXPECTED}, got: {shown}", body=shown)
            return APIConnectionError("the answer ended without a single event")
        return APIConnectionError(
            "the stream ended before its end mark (response.completed); the answer is cut short"
        )

    # -- memory ------------------------------------------------------------------------------

    def _keep(self, size: int) -> None:
        self._kept += size + TEXT_OVERHEAD
        if self._kept > _LIMIT and self.failure is None:
            self.failure = WireError(
                f"the tool calls and the state of one answer take more than {_LIMIT} bytes"
            )

    def _read_body(self, chunks: list[ChatChunk]) -> None:
        """An answer that is no stream: a whole response, an error, or a page."""
        if self._opening.kind == "?":
            return
        if self._opening.kind == "page":
            self.failure = self._opening.page()
            return
        body = self._opening.body
        self.failure = too_many_values(body)
        if self.failure is not None:
            return
        try:
            value = jsontext.decode(body)
        except ValueError:
            shown = plain_text(body)
            self.failure = WireError(f"expected {_EXPECTED}, got: {shown}", body=shown)
            return
        response = _object(value)
        status = response.get("status")
        if isinstance(response.get("output"), list) and isinstance(status, str):
            self._seen = True
            self._end(response, status, chunks)
        elif message_of(value):
            self.failure = error_from(value)
        else:
            self.failure = WireError(f"expected {_EXPECTED}, got: {plain_text(body)}", body=value)


def _walk(value: object) -> _Event | None:
    """An event from any JSON value, keeping what can be understood of it."""
    if not isinstance(value, dict):
        return None
    data = cast("dict[str, Any]", value)

    def number(name: str) -> int | None:
        found = data.get(name)
        return found if isinstance(found, int) else None

    def text(name: str) -> str | None:
        found = data.get(name)
        return found if isinstance(found, str) else None

    item, response, part = data.get("item"), data.get("response"), data.get("part")
    return _Event(
        type=text("type"),
        delta=text("delta"),
        item_id=text("item_id"),
        output_index=number("output_index"),
        content_index=number("content_index"),
        summary_index=number("summary_index"),
        item=cast("dict[str, Any]", item) if isinstance(item, dict) else None,
        response=cast("dict[str, Any]", response) if isinstance(response, dict) else None,
        part=cast("dict[str, Any]", part) if isinstance(part, dict) else None,
        text=text("text"),
        arguments=text("arguments"),
        refusal=text("refusal"),
        loose=True,
        raw=data,
    )


def _object(value: object) -> dict[str, Any]:
    return cast("dict[str, Any]", value) if isinstance(value, dict) else {}


def _entries(value: object) -> list[dict[str, Any]]:
    if not isinstance(value, list):
        return []
    return [
        cast("dict[str, Any]", entry)
        for entry in cast("list[Any]", value)
        if isinstance(entry, dict)
    ]


def _texts(value: object) -> list[str]:
    return [entry["text"] for entry in _entries(value) if isinstance(entry.get("text"), str)]


def _word(value: object) -> str:
    return value if isinstance(value, str) else ""


def _is_whole(arguments: str) -> bool:
    try:
        return isinstance(jsontext.decode(arguments), dict)
    except ValueError:
        return False
