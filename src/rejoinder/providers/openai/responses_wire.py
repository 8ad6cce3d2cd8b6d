"""Reads the replies of the Responses API. Pure.

Events are dispatched by the `type` inside them, because some servers send no event names. The end mark
is ``response.completed``, ``response.incomplete`` or ``response.failed``; ``[DONE]`` proves nothing.
Text is passed on as it arrives, a tool call when its item is done. Parts that a server omits on the way
are taken from the finished items and the final response, so that nothing is lost and nothing is sent
twice. Reasoning items are kept whole, with the item they produced; both are sent back to the same
server. A tool call that the token limit cut is never passed on.
"""

from __future__ import annotations

from typing import Any, Final

import msgspec

from rejoinder._core import jsontext
from rejoinder._core.bodies import plain_text
from rejoinder._core.chunks import CompletionUsage
from rejoinder._core.families import UNKNOWN, Family
from rejoinder.errors import (
    APIConnectionError,
    APIStatusError,
    EmptyResponseError,
    RefusalError,
    WireError,
)
from rejoinder.providers.answering.arguments import (
    Arguments,
    canonical,
    is_object,
    warn_cut_call,
)
from rejoinder.providers.answering.chunks import Reply
from rejoinder.providers.answering.decoder import ReplyDecoder
from rejoinder.providers.answering.framings import sse_events
from rejoinder.providers.answering.marks import ReplyMarks
from rejoinder.providers.answering.names import model_name
from rejoinder.providers.completions.errors import decode_error, error_from, event_error, message_of
from rejoinder.providers.openai.usage import usage_from_responses

__all__ = ["ResponsesReader", "decode_error", "make_decoder"]

_CALL: Final = 512
"""Memory overhead of a tool call, in bytes."""
_MARK: Final = 96
"""Memory for the record of something passed on, in bytes."""
_END_MARKS: Final = frozenset({"response.completed", "response.incomplete", "response.failed"})
_MESSAGE_FIELDS: Final = frozenset({"type", "id", "role", "status", "content", "phase"})
_CALL_FIELDS: Final = frozenset({"type", "id", "call_id", "name", "arguments", "input", "status"})


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
    annotation: dict[str, Any] | None = None
    text: str | None = None
    arguments: str | None = None
    input: str | None = None
    refusal: str | None = None
    loose: bool = False


_decode_event = msgspec.json.Decoder(_Event).decode


class _Begun:
    """A call whose arguments are still arriving."""

    __slots__ = ("arguments", "done", "item")

    def __init__(self, item: dict[str, Any]) -> None:
        self.item = item
        self.arguments = Arguments()
        self.done = ""  # the whole arguments, if a separate event has them


def make_decoder(
    *, allow_empty: bool = False, host: str = "", family: Family = UNKNOWN
) -> ReplyDecoder:
    """A decoder for the stream of one response; the options are those of the reader."""
    reader = ResponsesReader(allow_empty=allow_empty, host=host, family=family)
    return ReplyDecoder(sse_events(), reader, prefix="resp_", track_text=True)


class ResponsesReader:
    """Reads the events of one response.

    Args:
        allow_empty: accept an answer without text or tool call, which is legal after a tool's output.
        host: the server; kept with the state, which no other server can read.
        family: the model's family, which determines the marks it leaves in the text.
    """

    __slots__ = (
        "_allow_empty",
        "_begun",
        "_custom",
        "_cut",
        "_given",
        "_held",
        "_host",
        "_marks",
        "_other",
        "_pending",
        "_refusal",
        "_said",
        "_streamed",
        "_thoughts",
        "_tier",
        "_usage",
    )

    expected = "server-sent events of a response"

    def __init__(
        self, *, allow_empty: bool = False, host: str = "", family: Family = UNKNOWN
    ) -> None:
        self._allow_empty = allow_empty
        self._host = host
        self._marks = ReplyMarks(family)
        self._begun: dict[int, _Begun] = {}  # unfinished calls, by place in the output
        self._held: list[dict[str, Any]] = []  # calls that may turn out to be cut
        self._custom: list[dict[str, Any]] = []  # custom calls without a following item
        self._given: set[int] = set()  # hashes of items that were passed on
        self._pending: list[dict[str, Any]] = []  # reasoning items without their item yet
        self._said: list[dict[str, Any]] = []  # messages without following reasoning
        self._streamed: set[tuple[str, str]] = set()  # ids and names of calls before the end
        self._thoughts: tuple[int, int] | None = None
        self._refusal: list[str] = []
        self._other = False
        self._cut = False
        self._usage: Any = None
        self._tier: Any = None

    def usage(self) -> CompletionUsage | None:
        """The provider's token counts, which arrive at the end."""
        return usage_from_responses(self._usage, service_tier=self._tier)

    # -- events ------------------------------------------------------------------------------

    def event(self, name: str | None, payload: bytes, reply: Reply) -> None:
        """Read one event."""
        try:
            event = _decode_event(payload)
        except (msgspec.MsgspecError, UnicodeError, RecursionError):
            value = reply.tolerant(payload)
            if value is None:
                return
            found = _walk(value)
            if found is None:
                reply.skipped += 1
                return
            event = found
        kind = event.type
        if kind is None:
            # Gateways put their upstream's unchanged error into the stream, without a type.
            error = _untyped_error(name, payload)
            if error is not None:
                reply.fail(error_from(error))
                return
            kind = name
        if kind == "response.output_text.delta":
            delta = event.delta
            if delta:
                marks = self._marks
                if "<" in delta or marks.busy or (marks.more and marks.begin_in(delta)):
                    marks.split(delta, reply, event.loose)
                else:
                    reply.text(delta, event.loose)
        else:
            self._rare(kind, event, payload, reply)

    def whole(self, body: bytes, reply: Reply) -> None:
        """Read a JSON object that arrived instead of a stream."""
        try:
            response = jsontext.as_mapping(jsontext.decode(body)) or {}
        except ValueError:
            response = {}
        status = response.get("status")
        if isinstance(response.get("output"), list) and isinstance(status, str):
            self._end(response, status, reply)
        elif message_of(response):
            reply.fail(error_from(response))
        else:
            shown = plain_text(body)
            reply.fail(WireError(f"expected {self.expected}, got: {shown}", body=shown))

    def ended(self, reply: Reply) -> None:
        """The bytes have ended without an end mark."""
        reply.fail(
            APIConnectionError(
                "the stream ended before its end mark (response.completed); the answer is cut short"
            ).but(section="cut")
        )

    def _rare(self, kind: str | None, event: _Event, payload: bytes, reply: Reply) -> None:
        """Read an event other than a text delta."""
        place = event.output_index or 0
        if kind in ("response.reasoning_summary_text.delta", "response.reasoning_text.delta"):
            if event.delta:
                self._thought(event, event.delta, reply)
        elif kind in (
            "response.function_call_arguments.delta",
            "response.custom_tool_call_input.delta",
        ):
            begun = self._begun_by(event)
            if event.delta and (begun is None or begun.arguments.add(event.delta)):
                reply.output_count += 1
            if event.delta and begun is not None:
                reply.keep_text(event.delta)
        elif kind in (
            "response.function_call_arguments.done",
            "response.custom_tool_call_input.done",
        ):
            begun = self._begun_by(event)
            text = event.arguments or event.input or ""
            if begun is not None and reply.keep_text(text):
                begun.done = text
        elif kind == "response.output_item.added":
            item = event.item
            if item is not None and item.get("type") in ("function_call", "custom_tool_call"):
                reply.output_count += 1
                names = ("type", "id", "call_id", "name")
                kept = {name: jsontext.as_text(item.get(name)) for name in names}
                self._begun[place] = _Begun(kept)
                reply.keep(_CALL + sum(map(len, kept.values())))
        elif kind == "response.output_item.done":
            if event.item is not None:
                self._item(event.item, place, reply, kind="item")
        elif kind == "response.output_text.done":
            self._finished_text("text", event.text, place, event.content_index, reply)
        elif kind == "response.content_part.done":
            if event.part is not None and event.part.get("type") == "output_text":
                text = event.part.get("text")
                self._finished_text("part", text, place, event.content_index, reply)
        elif kind == "response.output_text.annotation.added":
            if event.annotation is not None:
                self._annotations([event.annotation], reply)
        elif kind == "response.refusal.delta":
            if event.delta:
                reply.output_count += 1
                if reply.keep_text(event.delta):
                    self._refusal.append(event.delta)
        elif kind == "response.refusal.done":
            if event.refusal:
                self._refusal = [event.refusal]
        elif kind in ("response.created", "response.in_progress", "response.queued"):
            self._name(event.response or {}, reply)
        elif kind in _END_MARKS:
            self._end(event.response or {}, kind.removeprefix("response."), reply)
        elif kind in ("error", "response.error"):
            reply.fail(error_from(jsontext.decode(payload)))
        else:
            reply.skipped += 1

    def _name(self, response: dict[str, Any], reply: Reply) -> None:
        reply.id = jsontext.as_text(response.get("id")) or reply.id
        reply.model = model_name(response.get("model")) or reply.model
        if response.get("usage"):
            self._usage = response["usage"]
            self._tier = response.get("service_tier")

    # -- text --------------------------------------------------------------------------------

    def _finished_text(
        self, kind: str, text: object, place: int, part: int | None, reply: Reply
    ) -> None:
        """Add the part of a finished text that its deltas did not contain."""
        if not isinstance(text, str) or not text:
            return
        if self._is_new(reply, kind, place, part, text):
            self._marks.finish(reply)
            self._marks.finished(kind, text, reply)

    def _thought(self, event: _Event, text: str, reply: Reply) -> None:
        place = (event.output_index or 0, (event.summary_index or 0) + (event.content_index or 0))
        if self._thoughts is None:
            self._marks.thinks_apart(reply)
        elif self._thoughts != place:
            text = "\n\n" + text  # summaries come in paragraphs
        self._thoughts = place
        reply.thinking(text, event.loose)

    def _annotations(self, found: list[Any], reply: Reply) -> None:
        """Keep each citation once, because they arrive with the text and with each finished item."""
        new = [
            entry
            for entry in found
            if entry and self._is_new(reply, "annotation", jsontext.encode(entry))
        ]
        if new and reply.keep_value(new):
            reply.provider_state({"openai": {"annotations": new}})

    # -- items -------------------------------------------------------------------------------

    def _item(self, item: dict[str, Any], place: int, reply: Reply, *, kind: str) -> None:
        """Read a finished item of the output. `kind`: kind of the event, ``item`` or ``final``."""
        what = item.get("type")
        if what == "custom_tool_call" and item.get("name") not in reply.tool_names():
            self._custom_call(item, place, reply)
            return
        if what != "reasoning":
            self._ran_itself(reply)
        if what in ("function_call", "custom_tool_call"):
            self._call(item, place, reply, final=kind == "final")
        elif what == "reasoning":
            if self._is_new(reply, what, item.get("id") or place):
                self._reasoning(item, reply)
        elif what == "message":
            self._message(item, place, reply, kind)
        elif isinstance(what, str):
            # Done by the provider itself (searches, code, images, compaction): it counts as an
            # answer, even without text.
            self._other = True
            if what != "compaction":
                self._pending.clear()  # reasoning is not sent back without the item it produced
            if self._is_new(reply, what, item.get("id") or place) and reply.keep_value(item):
                reply.output_count += 1
                state: dict[str, Any] = {"output_items": [item]}
                if what == "compaction" and self._host:
                    state["host"] = self._host  # sent back only to this server
                reply.provider_state({"openai": state})
        else:
            reply.skipped += 1

    def _custom_call(self, item: dict[str, Any], place: int, reply: Reply) -> None:
        """Hold back a custom call: the next item may show that the provider ran the tool itself, as xAI
        does with its searches."""
        begun = self._take_begun(item, place)
        if begun is not None and not item.get("input"):
            item = {**item, "input": begun.done or begun.arguments.text()}
        if self._is_new(reply, "custom", item.get("call_id"), item.get("name")):
            self._custom.append(item)
            reply.keep_value(item)

    def _ran_itself(self, reply: Reply) -> None:
        for item in self._custom:
            self._other = True
            reply.output_count += 1
            reply.provider_state({"openai": {"output_items": [item]}})
        self._custom.clear()

    def _reasoning(self, item: dict[str, Any], reply: Reply) -> None:
        if self._thoughts is None:
            thought = "\n\n".join(_texts(item.get("summary")) or _texts(item.get("content")))
            reply.thinking(thought, may_have_surrogates=True)
        # Explicit nulls and the status are refused when the item is sent back.
        kept = {
            name: value for name, value in item.items() if value is not None and name != "status"
        }
        if reply.keep_value(kept):
            self._pending.append(kept)

    def _message(self, item: dict[str, Any], place: int, reply: Reply, kind: str) -> None:
        for number, part in enumerate(_entries(reply.entries(item.get("content")))):
            if part.get("type") == "refusal":
                if part.get("refusal"):
                    self._refusal = [str(part["refusal"])]
                continue
            self._finished_text(kind, part.get("text"), place, number, reply)
            self._annotations(reply.entries(part.get("annotations")), reply)
        if not self._is_new(reply, "message", item.get("id") or place):
            return
        state = self._led_to("message_id", item)
        if "reasoning_items" in state:
            state["reasoning_items"], self._said = [*self._said, *state["reasoning_items"]], []
        if isinstance(item.get("phase"), str):
            state["phase"] = item["phase"]
        self._keep_text(item, reply)
        self._unknown_fields(item, _MESSAGE_FIELDS, state, reply)
        if state:
            reply.provider_state({"openai": self._with_host(state)})

    def _keep_text(self, item: dict[str, Any], reply: Reply) -> None:
        """Remember a message and its place: reasoning and a further message may follow."""
        text = jsontext.heal("".join(_texts(item.get("content"))))
        entry: dict[str, Any] = {"type": "text", "text": text}
        entry |= {name: item[name] for name in ("id", "phase") if isinstance(item.get(name), str)}
        if text.strip() and reply.keep_value(entry):
            self._said.append(entry)

    def _is_new(self, reply: Reply, *what: object) -> bool:
        """Whether it was not passed on before. From now on it counts as passed on."""
        mark = hash(tuple(map(str, what)))
        if mark in self._given:
            return False
        self._given.add(mark)
        reply.keep(_MARK)
        return True

    def _begun_by(self, event: _Event) -> _Begun | None:
        found = self._begun.get(event.output_index or 0)
        if event.item_id and (found is None or found.item["id"] not in ("", event.item_id)):
            # The index differs from the one with which the item was added.
            return next(
                (begun for begun in self._begun.values() if begun.item["id"] == event.item_id),
                found,
            )
        return found

    def _take_begun(self, item: dict[str, Any], place: int) -> _Begun | None:
        """The parts of a call that arrived before its item was done."""
        call_id = jsontext.as_text(item.get("call_id"))
        found = self._begun.get(place)
        if found is not None and found.item["call_id"] in ("", call_id):
            return self._begun.pop(place)
        for number, begun in self._begun.items():
            if call_id and begun.item["call_id"] == call_id:
                return self._begun.pop(number)
        return None

    def _call(self, item: dict[str, Any], place: int, reply: Reply, *, final: bool) -> None:
        begun = self._take_begun(item, place)
        custom = item.get("type") == "custom_tool_call"
        texts = [item.get("input" if custom else "arguments")]
        if begun is not None:
            texts += [begun.done, begun.arguments.text() if begun.arguments else ""]
        arguments = _fullest(texts, custom=custom)
        name = jsontext.as_text(item.get("name")) or (begun.item["name"] if begun else "")
        call_id = jsontext.as_text(item.get("call_id")) or jsontext.as_text(item.get("id"))
        if not name and not arguments.strip():
            reply.skipped += 1
            return
        item = {**item, "name": name, "call_id": call_id, "arguments": arguments}
        if item.get("status") == "incomplete" and (custom or not is_object(arguments)):
            self._drop(item)
            return
        is_open = arguments.strip() or item.get("status") != "completed"
        if not final and is_open and not is_object(arguments):
            self._held.append(item)  # the end of the response shows whether it was cut
            reply.keep_value(item)
            return
        # The final response repeats all calls, by some servers under other ids of items and with
        # other white space in the arguments.
        again = final and (call_id, name) in self._streamed
        if again or not self._is_new(reply, "call", call_id, name, canonical(arguments)):
            return
        if not final:
            self._streamed.add((call_id, name))
            reply.keep(_CALL + len(call_id) + len(name))
        reply.output_count += 1
        state = self._led_to("item_id", item)
        if custom:
            state["type"] = "custom_tool_call"
        self._unknown_fields(item, _CALL_FIELDS, state, reply)
        extra = {"openai": self._with_host(state)} if state else None
        self._marks.after_call()
        reply.call(call_id, name, arguments, extra)

    def _is_opening(self, item: dict[str, Any], place: int) -> bool:
        """Whether the last call of a cut response may be missing arguments."""
        begun = self._begun.get(place)
        texts = [item.get("arguments")]
        if begun is not None:
            texts += [begun.done, begun.arguments.text() if begun.arguments else ""]
        told = _fullest(texts, custom=False).strip()
        return item.get("status") != "completed" and told in ("", "{}", "null")

    def _drop(self, item: dict[str, Any]) -> None:
        self._cut = True
        warn_cut_call(jsontext.as_text(item.get("name")), "incomplete")

    def _led_to(self, name: str, item: dict[str, Any]) -> dict[str, Any]:
        """The reasoning that produced `item`, and the id of `item`. Both must be sent back in this order;
        the API refuses one without the other."""
        if not self._pending:
            return {}
        state: dict[str, Any] = {"reasoning_items": self._pending}
        self._pending = []
        if isinstance(item.get("id"), str) and item["id"]:
            state[name] = item["id"]
        return state

    def _with_host(self, state: dict[str, Any]) -> dict[str, Any]:
        if self._host:
            state["host"] = self._host
        return state

    def _unknown_fields(
        self, item: dict[str, Any], known: frozenset[str], state: dict[str, Any], reply: Reply
    ) -> None:
        """Keep undocumented fields, because they may have to be sent back."""
        fields = {
            name: value for name, value in item.items() if name not in known and value is not None
        }
        if fields and reply.keep_value(fields):
            state["fields"] = fields

    # -- the end -----------------------------------------------------------------------------

    def _end(self, response: dict[str, Any], status: str, reply: Reply) -> None:
        self._name(response, reply)
        details = jsontext.as_mapping(response.get("incomplete_details")) or {}
        reason = jsontext.as_text(details.get("reason"))
        reply.finish_reason = status
        self._marks.finish(reply)
        if status != "failed":
            self._end_items(response, status, reply)
        reply.flush()
        reply.usage(self.usage())
        error = response.get("error")
        if status == "failed" or error:
            reply.fail(error_from(error or {"message": "the response failed", "code": reason}))
        elif self._refusal:
            text = jsontext.heal("".join(self._refusal))
            reply.fail(RefusalError(f"the model refused: {text}", reason="refusal", body=text))
        elif reason == "content_filter":
            reply.fail(
                RefusalError(
                    "the answer was stopped by the provider's content filter",
                    reason="content_filter",
                )
            )
        elif status == "cancelled":
            reply.fail(APIStatusError("the response was cancelled", status_code=499))
        elif not reply.has_output and not self._other:
            if status == "incomplete":
                reply.fail(
                    EmptyResponseError(
                        f"the response ended ({reason}) before any text or whole tool call; "
                        "allow more tokens or less reasoning",
                        retryable=False,
                    )
                )
            else:
                reply.fail_if_empty(self._allow_empty, f"status {status!r}")
        reply.end()

    def _end_items(self, response: dict[str, Any], status: str, reply: Reply) -> None:
        cut = {"status": "incomplete"} if status == "incomplete" else {}
        held, self._held = self._held, []
        for item in held:
            self._call({**item, **cut}, -1, reply, final=True)
        items = _entries(reply.entries(response.get("output")))
        for place, item in enumerate(items):
            if item.get("type") in ("function_call", "custom_tool_call"):
                if cut and item is items[-1] and self._is_opening(item, place):
                    self._begun.pop(place, None)
                    self._drop(item)
                    continue
                item = {**item, **cut}
            self._item(item, place, reply, kind="final")
        for item in self._custom:
            self._call({**item, **cut}, -1, reply, final=True)
        for place, begun in list(self._begun.items()):
            # Begun and never ended, and not in the final response either. An empty object may have
            # been the opening of one.
            if begun.arguments and begun.arguments.text().strip() == "{}" and not begun.done:
                self._drop(begun.item)
                continue
            self._call({**begun.item, "status": "incomplete"}, place, reply, final=True)
        self._begun.clear()


def _untyped_error(name: str | None, payload: bytes) -> object | None:
    """The error in an event without a type."""
    try:
        data = jsontext.as_mapping(jsontext.decode(payload))
    except ValueError:
        data = None
    if data is not None and data.get("error"):
        return data
    return event_error(name, payload)


def _fullest(texts: list[Any], *, custom: bool) -> str:
    """The longest of several texts of one call's arguments: servers omit them in some events, and an
    empty text revokes nothing."""
    found = [
        text if isinstance(text, str) else jsontext.encode(text).decode()
        for text in texts
        if text is not None
    ]
    if custom:
        return jsontext.encode({"input": max(found, key=len, default="")}).decode()
    whole = [text for text in found if is_object(text)]
    told = [text for text in whole if text.strip() not in ("{}", "null")]
    return (told or whole or sorted(found, key=len, reverse=True) or [""])[0]


def _walk(value: object) -> _Event | None:
    """Read any JSON value as an event, as far as it can be understood."""
    data = jsontext.as_mapping(value)
    if data is None:
        return None

    return _Event(
        type=_text(data, "type"),
        delta=_text(data, "delta"),
        item_id=_text(data, "item_id"),
        output_index=_number(data, "output_index"),
        content_index=_number(data, "content_index"),
        summary_index=_number(data, "summary_index"),
        item=jsontext.as_mapping(data.get("item")),
        response=jsontext.as_mapping(data.get("response")),
        part=jsontext.as_mapping(data.get("part")),
        annotation=jsontext.as_mapping(data.get("annotation")),
        text=_text(data, "text"),
        arguments=_text(data, "arguments"),
        input=_text(data, "input"),
        refusal=_text(data, "refusal"),
        loose=True,
    )


def _number(data: dict[str, Any], name: str) -> int | None:
    found = data.get(name)
    return found if isinstance(found, int) else None


def _text(data: dict[str, Any], name: str) -> str | None:
    found = data.get(name)
    return found if isinstance(found, str) else None


def _entries(value: object) -> list[dict[str, Any]]:
    return [entry for entry in jsontext.as_list(value) if isinstance(entry, dict)]


def _texts(value: object) -> list[str]:
    return [entry["text"] for entry in _entries(value) if isinstance(entry.get("text"), str)]
