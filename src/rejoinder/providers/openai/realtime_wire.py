"""OpenAI's realtime protocol and its dialects: commands to frames, frames to events. Pure.

One object serves one connection. It keeps the state of the wire: requests that wait for their
``response.created``, partial transcripts, and shortened ids.
"""

from __future__ import annotations

import binascii
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from typing import Any, Final, cast

from rejoinder._core import jsontext
from rejoinder._core.items import ChatMessage, FunctionCall
from rejoinder._core.realtime import messages as m
from rejoinder._core.realtime.frames import read_frame
from rejoinder.errors import APIError
from rejoinder.metrics import RealtimeModelMetrics
from rejoinder.providers.openai.realtime_dialects import Dialect
from rejoinder.providers.openai.realtime_errors import api_error, closed_in_setup, refused_setup
from rejoinder.providers.openai.realtime_format import (
    item_from_wire,
    item_to_wire,
    session_object,
    sound_to_wire,
    text_parts,
    wire_id,
)

__all__ = ["SAMPLE_RATE", "OpenAIRealtimeProtocol"]

SAMPLE_RATE: Final = 24000
_TRAITS: Final = m.Traits(input_rate=SAMPLE_RATE, output_rate=SAMPLE_RATE, confirms_settings=True)

_REMEMBERED: Final = 256

_BUSY: Final = "conversation_already_has_active_response"
_HARMLESS: Final = frozenset(
    {
        "response_cancel_not_active",
        "item_create_duplicate_item_id",
        "input_audio_buffer_commit_empty",
        "item_not_found",
        "item_delete_invalid_item_id",
        "item_truncate_invalid_item_id",
    }
)

_KNOWN: Final = frozenset(
    {
        "session.created",
        "conversation.created",
        "conversation.item.done",
        "conversation.item.retrieved",
        "conversation.item.truncated",
        "conversation.item.input_audio_transcription.segment",
        "input_audio_buffer.cleared",
        "input_audio_buffer.timeout_triggered",
        "input_audio_buffer.dtmf_event_received",
        "output_audio_buffer.started",
        "output_audio_buffer.stopped",
        "output_audio_buffer.cleared",
        "rate_limits.updated",
        "response.content_part.done",
        "response.output_text.done",
        "response.output_audio.done",
        "response.output_audio_transcript.done",
        "response.function_call_arguments.delta",
        "response.mcp_call_arguments.delta",
        "response.mcp_call_arguments.done",
        "response.mcp_call.in_progress",
        "response.mcp_call.completed",
        "response.mcp_call.failed",
        "mcp_list_tools.in_progress",
        "mcp_list_tools.completed",
        "mcp_list_tools.failed",
        "ping",
    }
)
"""Events that a session ignores."""

_STATUS: Final[Mapping[str, m.ReplyStatus]] = {
    "completed": "completed",
    "cancelled": "cancelled",
    "incomplete": "incomplete",
    "failed": "failed",
}


class OpenAIRealtimeProtocol:
    """See `rejoinder._core.realtime.messages.RealtimeProtocol`.

    Args:
        model: name of the model.
        dialect: the variant of the protocol.
    """

    def __init__(self, model: str, dialect: Dialect) -> None:
        self._model = model
        self._dialect = dialect
        self._renamed = dialect.renamed
        self._instructions: str | None = None
        self._open_ref = ""
        self._ready = False
        self._asked: list[str] = []
        self._updates: list[str] = []
        """Unconfirmed changes of the session, in order: ``session.updated`` does not name its
        change."""
        self._partial: OrderedDict[str, str] = OrderedDict()
        self._calls: dict[str, dict[str, Any]] = {}
        self._names: dict[str, str] = {}
        self._any_item = False
        self._probes = 0
        self.skipped = 0

    @property
    def traits(self) -> m.Traits:
        return _TRAITS

    # -- commands ----------------------------------------------------------------------------

    def open(self, settings: m.UpdateSession) -> Sequence[m.Frame]:
        self._open_ref = settings.ref
        self._instructions = settings.instructions
        return self._session_update(settings, self._model)

    def send(self, command: m.Command) -> Sequence[m.Frame]:
        match command:
            case m.AppendAudio():
                return (f'{{"type":"input_audio_buffer.append","audio":"{command.base64}"}}',)
            case m.UpdateSession():
                if command.instructions is not None:
                    self._instructions = command.instructions
                self._updates.append(command.ref)
                return self._session_update(command, None)
            case m.CreateItem(ref, item, previous_id, sound):
                made = item_to_wire(item, self._dialect)
                if sound and isinstance(item, ChatMessage):
                    made = sound_to_wire(item, sound)
                if made is None:
                    return ()
                return _frame(
                    "conversation.item.create",
                    ref,
                    previous_item_id="root" if previous_id is None else self._out(previous_id),
                    item={**made, "id": self._out(item.id)},
                )
            case m.DeleteItem(ref, item_id):
                return _frame("conversation.item.delete", ref, item_id=self._out(item_id))
            case m.TruncateItem(ref, item_id, audio_ms):
                return _frame(
                    "conversation.item.truncate",
                    ref,
                    item_id=self._out(item_id),
                    content_index=0,
                    audio_end_ms=audio_ms,
                )
            case m.CommitAudio(ref):
                return _frame("input_audio_buffer.commit", ref)
            case m.ClearAudio(ref):
                return _frame("input_audio_buffer.clear", ref)
            case m.CancelReply(ref, reply_id):
                fields = {"response_id": reply_id} if reply_id else {}
                return _frame("response.cancel", ref, **fields)
            case m.CreateReply():
                return self._create_reply(command)
            case m.GiveHistory() | m.StartActivity() | m.SoundPaused() | m.AbandonCall():
                return ()  # items are sent one by one, and sound as it arrives
            case m.SendImage(ref, url):
                if not self._dialect.takes_images:
                    return ()
                return _frame(
                    "conversation.item.create",
                    ref,
                    item={
                        "type": "message",
                        "role": "user",
                        "content": [{"type": "input_image", "image_url": url}],
                    },
                )

    def takes(self, command: m.Command) -> bool:
        return True

    def _create_reply(self, command: m.CreateReply) -> Sequence[m.Frame]:
        response: dict[str, Any] = {"metadata": {"client_event_id": command.ref}}
        if command.instructions is not None:
            # They replace the session's instructions, so repeat those.
            parts = [part for part in (self._instructions, command.instructions) if part]
            response["instructions"] = "\n".join(parts)
        if command.tool_choice is not None:
            response["tool_choice"] = session_object(
                self._dialect,
                {"tool_choice": command.tool_choice},
                instructions=None,
                tools=None,
                model=None,
            )["tool_choice"]
        if command.tools is not None:
            response["tools"] = list(command.tools)
        self._asked.append(command.ref)
        if len(self._asked) > _REMEMBERED:
            self._asked.pop(0)
        return _frame("response.create", command.ref, response=response)

    def _session_update(self, settings: m.UpdateSession, model: str | None) -> Sequence[m.Frame]:
        session = session_object(
            self._dialect,
            settings.options or {},
            instructions=settings.instructions,
            tools=settings.tools,
            model=model,
        )
        return _frame("session.update", settings.ref, session=session)

    def probe(self) -> Sequence[m.Frame]:
        if not self._dialect.probe:
            return ()
        self._probes += 1
        self._updates.append(f"probe_{self._probes}")
        session = {} if self._dialect.session == "flat" else {"type": "realtime"}
        return _frame("session.update", f"probe_{self._probes}", session=session)

    def farewell(self) -> Sequence[m.Frame]:
        return ()

    @property
    def settled(self) -> bool:
        return True

    # -- events ------------------------------------------------------------------------------

    def receive(self, frame: m.Frame) -> Sequence[m.Event]:
        fields = read_frame(frame, pieces=("delta",))
        kind = None if fields is None else fields.get("type")
        if fields is None or not isinstance(kind, str):
            self.skipped += 1
            return ()
        kind = self._renamed.get(kind, kind)
        try:
            return self._event(kind, fields)
        except (TypeError, KeyError, AttributeError, ValueError):
            # A field has an unexpected type: drop the frame, keep the session.
            self.skipped += 1
            return ()

    def _event(self, kind: str, event: dict[str, Any]) -> Sequence[m.Event]:
        if kind == "response.output_audio.delta":
            try:
                data = binascii.a2b_base64(event["delta"])
            except binascii.Error:
                self.skipped += 1
                return ()
            return (m.AudioDelta(_reply_id(event), self._in(event["item_id"]), data),)
        if kind in ("response.output_audio_transcript.delta", "response.output_text.delta"):
            text = event["delta"]
            if not isinstance(text, str) or not text:
                return ()
            start = event.get("start_time")
            return (
                m.TextDelta(
                    _reply_id(event),
                    self._in(event["item_id"]),
                    text,
                    float(start) if isinstance(start, int | float) else None,
                ),
            )
        if kind.startswith("response."):
            return self._reply_event(kind, event)
        if kind.startswith("conversation.item."):
            return self._item_event(kind, event)
        match kind:
            case "session.updated":
                if self._ready:
                    return self._updated()
                self._ready = True
                return (m.SessionReady(),)
            case "input_audio_buffer.speech_started":
                return (m.SpeechStarted(self._in_or_none(event.get("item_id"))),)
            case "input_audio_buffer.speech_stopped":
                return (m.SpeechStopped(self._in_or_none(event.get("item_id"))),)
            case "input_audio_buffer.committed":
                self._any_item = True
                return (
                    m.AudioCommitted(
                        self._in(event["item_id"]), self._in_or_none(event.get("previous_item_id"))
                    ),
                )
            case "error":
                return self._error(event.get("error"))
            case _:
                if kind not in _KNOWN:
                    self.skipped += 1
                return ()

    def _updated(self) -> Sequence[m.Event]:
        if not self._updates:
            return ()
        ref = self._updates.pop(0)
        return () if ref.startswith("probe_") else (m.SettingsApplied(ref),)

    def _reply_event(self, kind: str, event: dict[str, Any]) -> Sequence[m.Event]:
        match kind:
            case "response.created":
                response = event["response"]
                return (m.ReplyStarted(str(response["id"]), self._ref_of(response)),)
            case "response.output_item.added":
                item = event["item"]
                if item.get("type") == "message":
                    return (m.MessageStarted(_reply_id(event), self._in(item["id"])),)
                if item.get("type") == "function_call":
                    self._calls[item["id"]] = item
                return ()
            case "response.function_call_arguments.done":
                # The call is complete here; its item ends a moment later.
                begun = self._calls.pop(event["item_id"], None)
                if begun is None:
                    return ()
                return self._item_done(_reply_id(event), {**begun, "arguments": event["arguments"]})
            case "response.content_part.added":
                part = event["part"].get("type", "")
                return (
                    m.ModalityKnown(
                        _reply_id(event), self._in(event["item_id"]), audio="audio" in part
                    ),
                )
            case "response.output_item.done":
                self._calls.pop(event["item"].get("id"), None)
                return self._item_done(_reply_id(event), event["item"])
            case "response.done":
                self._calls.clear()
                return self._reply_done(event)
            case _:
                if kind not in _KNOWN:
                    self.skipped += 1
                return ()

    def _item_done(self, reply_id: str, item: dict[str, Any]) -> list[m.Event]:
        if item.get("type") == "function_call":
            call = item_from_wire({**item, "id": self._in(item["id"])})
            if isinstance(call, FunctionCall) and call.name:
                return [m.ToolCalled(reply_id, call)]
        elif item.get("type") == "message":
            text = "".join(text_parts(item))
            return [m.MessageEnded(reply_id, self._in(item["id"]), text or None)]
        return []

    def _reply_done(self, event: dict[str, Any]) -> list[m.Event]:
        response = event["response"]
        reply_id = str(response["id"])
        events: list[m.Event] = []
        for item in response.get("output") or ():
            # In case an event was lost; the session passes each call on only once.
            if isinstance(item, dict) and item.get("type") == "function_call":  # pyright: ignore[reportUnknownMemberType]
                events += self._item_done(reply_id, cast("dict[str, Any]", item))
        status = _STATUS.get(str(response.get("status")), "completed")
        details = response.get("status_details")
        reason: str | None = None
        error: APIError | None = None
        fatal = False
        if isinstance(details, str):
            reason = details
        elif isinstance(details, dict):
            told = cast("dict[str, Any]", details)
            reason = told.get("reason") if isinstance(told.get("reason"), str) else None
            if status == "failed":
                error, fatal, code = api_error(told.get("error"), "the reply failed")
                reason = reason or code
        if status == "failed" and error is None:
            error = APIError(f"the reply failed ({reason or 'no reason given'})")
        usage = response.get("usage") or event.get("usage")
        events.append(
            m.ReplyEnded(
                reply_id,
                status,
                ref=self._ref_of(response),
                reason=reason,
                error=error,
                usage=_usage(usage),
                fatal=fatal,
            )
        )
        return events

    def _item_event(self, kind: str, event: dict[str, Any]) -> Sequence[m.Event]:
        match kind:
            case "conversation.item.added":
                raw = event["item"]
                item = item_from_wire({**raw, "id": self._in(raw["id"])})
                if item is None:
                    return ()
                previous = self._in_or_none(event.get("previous_item_id"))
                at_tail = previous is None and self._any_item
                self._any_item = True
                return (m.ItemAdded(item, None if previous == "root" else previous, at_tail),)
            case "conversation.item.deleted":
                return (m.ItemDeleted(self._in(event["item_id"])),)
            case "conversation.item.input_audio_transcription.delta":
                return self._transcript_piece(event)
            case "conversation.item.input_audio_transcription.completed":
                item_id = self._in(event["item_id"])
                text = event.get("transcript")
                text = text if isinstance(text, str) else self._partial.get(item_id, "")
                # xAI sends the partial text in this event, until its status is "completed".
                final = event.get("status") != "in_progress"
                if final:
                    self._partial.pop(item_id, None)
                usage = event.get("usage")
                return (
                    m.Transcript(
                        item_id,
                        text,
                        final=final,
                        usage=cast("dict[str, Any]", usage) if isinstance(usage, dict) else None,
                    ),
                )
            case "conversation.item.input_audio_transcription.failed":
                item_id = self._in(event["item_id"])
                text = self._partial.pop(item_id, "")
                return (m.Transcript(item_id, text, final=True, failed=True),)
            case _:
                if kind not in _KNOWN:
                    self.skipped += 1
                return ()

    def _transcript_piece(self, event: dict[str, Any]) -> Sequence[m.Event]:
        piece = event.get("delta")
        if not isinstance(piece, str) or not piece:
            return ()
        item_id = self._in(event["item_id"])
        text = self._partial.pop(item_id, "") + piece
        self._partial[item_id] = text
        if len(self._partial) > _REMEMBERED:
            self._partial.popitem(last=False)
        return (m.Transcript(item_id, text, final=False),)

    def _error(self, raw: object) -> Sequence[m.Event]:
        error, fatal, code = api_error(raw, "the service reported an error")
        fields = cast("dict[str, Any]", raw) if isinstance(raw, dict) else {}
        ref = fields.get("event_id")
        busy = code == _BUSY
        if not isinstance(ref, str) or not ref:
            # The error lacks an event id. A "busy" refusal can only concern the request
            # that waits.
            ref = self._asked[0] if busy and self._asked else None
        if ref is None or fatal:
            if code in _HARMLESS or error.message.startswith("Cancellation failed"):
                return ()
            return (m.ServiceFailed(error, fatal=fatal, code=code),)
        if ref == self._open_ref and not self._ready:
            return (refused_setup(error, fatal=True, code=code),)
        for waiting in (self._asked, self._updates):
            if ref in waiting:
                waiting.remove(ref)
        harmless = (
            code in _HARMLESS
            or ref.startswith(("truncate_", "cancel_", "probe_", "clear_"))
            or error.message.startswith("Cancellation failed")
        )
        return (m.Refused(ref, error, code, busy=busy, harmless=harmless),)

    def closed(self, code: int | None, reason: str) -> m.ServiceFailed | None:
        return None if self._ready else closed_in_setup(self._model, code, reason)

    # -- inside ------------------------------------------------------------------------------

    def _ref_of(self, response: dict[str, Any]) -> str | None:
        metadata = response.get("metadata")
        ref: str | None = None
        if isinstance(metadata, dict):
            found = cast("dict[str, Any]", metadata).get("client_event_id")
            ref = found if isinstance(found, str) else None
        elif not self._dialect.echoes_metadata and self._asked:
            ref = self._asked[0]
        if ref is not None and ref in self._asked:
            self._asked.remove(ref)
        return ref

    def _out(self, item_id: str) -> str:
        short = wire_id(item_id)
        if short != item_id:
            self._names[short] = item_id
        return short

    def _in(self, item_id: Any) -> str:
        if not isinstance(item_id, str):
            raise TypeError("expected an id as a string")
        return self._names.get(item_id, item_id) if self._names else item_id

    def _in_or_none(self, item_id: Any) -> str | None:
        return self._in(item_id) if isinstance(item_id, str) and item_id else None


def _frame(kind: str, ref: str, **fields: Any) -> tuple[str]:
    return (jsontext.encode({"type": kind, "event_id": ref, **fields}).decode(),)


def _reply_id(event: dict[str, Any]) -> str:
    return str(event["response_id"])


def _usage(raw: object) -> m.Usage | None:
    if not isinstance(raw, dict):
        return None
    usage = cast("dict[str, Any]", raw)
    given = _mapping(usage.get("input_token_details"))
    made = _mapping(usage.get("output_token_details"))
    cached = _mapping(given.get("cached_tokens_details"))
    metrics = RealtimeModelMetrics
    return m.Usage(
        input_tokens=_count(usage, "input_tokens"),
        output_tokens=_count(usage, "output_tokens"),
        total_tokens=_count(usage, "total_tokens")
        or _count(usage, "input_tokens") + _count(usage, "output_tokens"),
        input_details=metrics.InputTokenDetails(
            audio_tokens=_count(given, "audio_tokens"),
            text_tokens=_count(given, "text_tokens"),
            image_tokens=_count(given, "image_tokens"),
            cached_tokens=_count(given, "cached_tokens"),
            cached_tokens_details=metrics.CachedTokenDetails(
                audio_tokens=_count(cached, "audio_tokens"),
                text_tokens=_count(cached, "text_tokens"),
                image_tokens=_count(cached, "image_tokens"),
            )
            if cached
            else None,
        ),
        output_details=metrics.OutputTokenDetails(
            text_tokens=_count(made, "text_tokens"),
            audio_tokens=_count(made, "audio_tokens"),
            image_tokens=_count(made, "image_tokens"),
        ),
    )


def _mapping(value: object) -> dict[str, Any]:
    return cast("dict[str, Any]", value) if isinstance(value, dict) else {}


def _count(fields: dict[str, Any], name: str) -> int:
    value = fields.get(name)
    return value if isinstance(value, int) and value > 0 else 0
