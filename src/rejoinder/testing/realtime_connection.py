"""One connection of a `RealtimeService`: the service's side of a conversation."""

from __future__ import annotations

import asyncio
import base64
import json
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Final, TypeAlias, cast

from rejoinder._options import WHOLE, check_fields
from rejoinder.testing.memory_socket import Peer
from rejoinder.testing.realtime_faults import RealtimeFault, Stage
from rejoinder.testing.realtime_playing import SessionPlayer
from rejoinder.transport.ws import WireFrame

if TYPE_CHECKING:
    from rejoinder.testing.realtime_service import RealtimeService

__all__ = ["ENDS", "Handler", "RealtimeConnection", "ServerCall", "ServerReply"]

_BETA: Final = {
    "conversation.item.added": "conversation.item.created",
    "response.output_text.delta": "response.text.delta",
    "response.output_audio.delta": "response.audio.delta",
    "response.output_audio_transcript.delta": "response.audio_transcript.delta",
}
_BYTES_PER_MS: Final = 48
_LATE: Final = 15.0
"""Seconds after which a late reply begins: more than the default deadline of sessions."""
ENDS: Final[dict[RealtimeFault | None, tuple[int, str] | None]] = {
    RealtimeFault.DROP_MID_REPLY: None,
    RealtimeFault.CAP: (1001, "Your session hit the maximum duration of 60 minutes."),
    RealtimeFault.CLOSE_1000: (1000, ""),
    RealtimeFault.CLOSE_1011: (1011, "keepalive ping timeout"),
    RealtimeFault.CLOSE_4000: (4000, "whatever this is"),
}
_BETWEEN: Final[dict[RealtimeFault, tuple[WireFrame, ...]]] = {
    RealtimeFault.UNKNOWN_EVENTS: (
        '{"type":"response.hologram.delta","response_id":"resp_1_1","delta":"x"}',
        '{"type":"weather.changed"}',
    ),
    RealtimeFault.GARBAGE: ("", "{", "[]", "null", "\x00\xff", b"\x00\xff\xfe", '{"type":7}', "{}"),
    RealtimeFault.ODD_TYPES: (
        '{"type":"response.output_audio.delta","response_id":1,"item_id":[],"delta":{}}',
        '{"type":"response.output_item.done","item":null}',
        '{"type":"response.created","response":"x"}',
        '{"type":"response.done"}',
        '{"type":"conversation.item.added","item":{"id":null,"type":"message"}}',
        '{"type":"error","error":"x"}',
        '{"type":"input_audio_buffer.committed"}',
    ),
}


@dataclass(frozen=True)
class ServerCall:
    """A call that the model makes."""

    name: str
    arguments: str = "{}"
    call_id: str = "call_1"

    def __post_init__(self) -> None:
        check_fields(self)


@dataclass(frozen=True)
class ServerReply:
    """One reply of the model.

    `words` are spoken one after another, each with `ms` milliseconds of sound (silence); without
    sound where the session asks for text. `hold`: after its words, the reply stays open until
    `RealtimeConnection.release`, or until it is cancelled.
    """

    words: Sequence[str] = ()
    ms: int = 100
    calls: Sequence[ServerCall] = ()
    status: str = "completed"
    details: dict[str, Any] | None = None
    hold: bool = False

    def __post_init__(self) -> None:
        check_fields(self, ms=WHOLE)


Handler: TypeAlias = Callable[["RealtimeConnection", dict[str, Any]], Awaitable[bool] | bool]
"""Receives each event of a client first. Returning true marks the event as handled."""


@dataclass
class _Running:
    reply_id: str
    message_id: str
    ref: str | None
    task: asyncio.Task[None]
    done: asyncio.Event = field(default_factory=asyncio.Event)
    cancelled: bool = False


class RealtimeConnection:
    """One connection, seen from the server.

    Attributes:
        number: 1 for the first connection of the server.
        events: all events of the client, except sound.
        audio: all sound from the client.
        items: ids of the conversation, in order.
        contents: the items by id.
    """

    def __init__(
        self,
        server: RealtimeService,
        peer: Peer,
        number: int,
    ) -> None:
        self.server = server
        self._peer = peer
        self._fault: RealtimeFault | None = None
        self._held_back: list[str] | None = None
        self._asleep = False
        self.number = number
        self.events: list[dict[str, Any]] = []
        self.audio = bytearray()
        self.appends = 0
        self.items: list[str] = []
        self.contents: dict[str, dict[str, Any]] = {}
        self.sent_ms: dict[str, int] = {}
        self.session: dict[str, Any] = {}
        self.running: _Running | None = None
        self.player: SessionPlayer | None = None
        self._count = 0
        self._uncommitted = 0

    async def send(self, kind: str, **fields: Any) -> None:
        """Send one event in the server's dialect."""
        if self.server.beta:
            kind = _BETA.get(kind, kind)
        text = json.dumps({"type": kind, "event_id": self._id("event"), **fields})
        if self._held_back is not None:
            self._held_back.append(text)
            return
        for odd in _BETWEEN.get(self._fault, ()) if self._fault is not None else ():
            await self.send_raw(odd)
        for _ in range(2 if self._fault is RealtimeFault.TWICE else 1):
            await self.send_raw(text)

    async def send_raw(self, frame: WireFrame) -> None:
        """Send one frame unchanged."""
        if not self._peer.closed and not self._asleep:
            await self._peer.send(frame)

    async def greet(self) -> None:
        """Send the first event of a connection."""
        await self.send("session.created", session={})

    def note(self, event: dict[str, Any]) -> None:
        """Handle an event of the client."""
        if event.get("type") == "input_audio_buffer.append":
            self.heard(base64.b64decode(event["audio"]))
        else:
            self.events.append(event)

    async def close(self, code: int = 1000, reason: str = "") -> None:
        """Close the connection."""
        await self._peer.close(code, reason)

    def drop(self) -> None:
        """Break the connection without a close frame."""
        self._peer.drop()

    def fall_asleep(self) -> None:
        """Stop reading and writing, but leave the connection open."""
        self._asleep = True

    @property
    def asleep(self) -> bool:
        return self._asleep

    async def error(
        self, message: str, *, code: str | None = None, ref: str | None = None, kind: str = ""
    ) -> None:
        """Report an error."""
        await self.send(
            "error",
            error={
                "type": kind or "invalid_request_error",
                "code": code,
                "message": message,
                "param": None,
                "event_id": ref,
            },
        )

    async def speech(self, transcript: str | None = None, *, item_id: str | None = None) -> str:
        """Simulate a turn of the user: started, stopped, committed, transcribed. Return its id."""
        item_id = item_id or self._id("item")
        await self.send("input_audio_buffer.speech_started", audio_start_ms=0, item_id=item_id)
        await self.send("input_audio_buffer.speech_stopped", audio_end_ms=1, item_id=item_id)
        await self._commit(item_id)
        if transcript is not None:
            await self.send(
                "conversation.item.input_audio_transcription.completed",
                item_id=item_id,
                content_index=0,
                transcript=transcript,
            )
        return item_id

    async def begin_reply(self, reply: ServerReply, *, ref: str | None = None) -> str:
        """Begin a reply, as the service does by itself after a turn. Return its id."""
        reply_id, message_id = self._id("resp"), self._id("item")
        started = asyncio.Event()
        task = asyncio.create_task(self._reply(reply, reply_id, message_id, ref, started))
        self.running = _Running(reply_id, message_id, ref, task)
        started.set()
        return reply_id

    def release(self) -> None:
        """Let a held reply end."""
        if self.running is not None:
            self.running.done.set()

    # -- the conversation --------------------------------------------------------------------

    async def handle(self, event: dict[str, Any]) -> None:
        """Process an event of the client as the service does."""
        match event.get("type"):
            case "session.update":
                self.session.update(event.get("session") or {})
                await self.send("session.updated", session=self.session)
            case "input_audio_buffer.append":
                return
            case "input_audio_buffer.commit":
                if self._uncommitted < 100 * _BYTES_PER_MS:
                    await self.error(
                        "Error committing input audio buffer: buffer too small.",
                        code="input_audio_buffer_commit_empty",
                        ref=event.get("event_id"),
                    )
                else:
                    await self._commit(self._id("item"))
            case "input_audio_buffer.clear":
                self._uncommitted = 0
                await self.send("input_audio_buffer.cleared")
            case "conversation.item.create":
                await self._create(event)
            case "conversation.item.delete":
                await self._delete(event)
            case "conversation.item.truncate":
                await self._truncate(event)
            case "response.create":
                await self._answer(event)
            case "response.cancel":
                await self._cancel(event)
            case kind:
                await self.error(f"Unknown event {kind!r}", ref=event.get("event_id"))

    def heard(self, data: bytes) -> None:
        """Sound of the client."""
        self.audio += data
        self.appends += 1
        self._uncommitted += len(data)

    async def _commit(self, item_id: str) -> None:
        self._uncommitted = 0
        previous = self.items[-1] if self.items else None
        await self.send("input_audio_buffer.committed", item_id=item_id, previous_item_id=previous)
        item = {
            "id": item_id,
            "type": "message",
            "role": "user",
            "status": "completed",
            "content": [{"type": "input_audio", "transcript": None}],
        }
        await self._add(item, previous)

    async def _add(self, item: dict[str, Any], previous: str | None) -> None:
        place = self.items.index(previous) + 1 if previous in self.items else len(self.items)
        if previous is None:
            place = 0
        self.items.insert(place, item["id"])
        self.contents[item["id"]] = item
        await self.send("conversation.item.added", previous_item_id=previous, item=item)

    async def _create(self, event: dict[str, Any]) -> None:
        item: dict[str, Any] = dict(event["item"])
        item.setdefault("id", self._id("item"))
        ref = event.get("event_id")
        if item["id"] in self.items:
            await self.error(
                f"Item with id '{item['id']}' already exists.",
                code="item_create_duplicate_item_id",
                ref=ref,
            )
            return
        previous = event.get("previous_item_id")
        if previous == "root":
            previous = None
        elif previous is None:
            previous = self.items[-1] if self.items else None
        elif previous not in self.items:
            await self.error(
                f"Previous item with id '{previous}' not found.", code="item_not_found", ref=ref
            )
            return
        await self._add(item, previous)

    async def _delete(self, event: dict[str, Any]) -> None:
        item_id = event["item_id"]
        if item_id not in self.items:
            await self.error(
                f"Item with id '{item_id}' not found.",
                code="item_delete_invalid_item_id",
                ref=event.get("event_id"),
            )
            return
        self.items.remove(item_id)
        del self.contents[item_id]
        await self.send("conversation.item.deleted", item_id=item_id)

    async def _truncate(self, event: dict[str, Any]) -> None:
        item_id, end = event["item_id"], event["audio_end_ms"]
        sent = self.sent_ms.get(item_id, 0)
        ref = event.get("event_id")
        if not sent or end <= 0:
            await self.error(
                "Only model output audio messages can be truncated",
                code="unsupported_content_type",
                ref=ref,
            )
        elif end > sent:
            await self.error(f"Audio content of {sent}ms is already shorter than {end}ms", ref=ref)
        else:
            self.sent_ms[item_id] = end
            await self.send(
                "conversation.item.truncated", item_id=item_id, content_index=0, audio_end_ms=end
            )

    async def _answer(self, event: dict[str, Any]) -> None:
        running = self.running
        ref = event.get("event_id")
        if running is not None:
            await self.error(
                f"Conversation already has an active response: {running.reply_id}.",
                code="conversation_already_has_active_response",
                ref=ref,
            )
            return
        response: dict[str, Any] = event.get("response") or {}
        metadata = cast("dict[str, Any]", response.get("metadata") or {})
        asked = metadata.get("client_event_id")
        self.server.asked(self, response)
        fault = self.server.next_fault(Stage.REPLY)
        if fault is None:
            await self.begin_reply(self.server.next_reply(), ref=asked)
        else:
            await self._misbehave(fault, asked, ref)

    async def _misbehave(self, fault: RealtimeFault, asked: str | None, ref: str | None) -> None:
        """Apply the fault to the request."""
        match fault:
            case RealtimeFault.NEVER_ANSWERS:
                return
            case RealtimeFault.HALF_OPEN:
                self.fall_asleep()
            case RealtimeFault.DROP_BEFORE:
                self.drop()
            case RealtimeFault.REFUSED:
                await self.error("The instructions are too odd.", code="invalid_value", ref=ref)
            case RealtimeFault.RATE_LIMIT:
                await self.error(
                    "Rate limit reached.", code="inference_rate_limit_exceeded", ref=ref
                )
            case RealtimeFault.LATE:
                task = asyncio.create_task(self._later(_LATE, asked))
                self.server.keep(task)
            case RealtimeFault.BUSY:
                own = await self.begin_reply(ServerReply(["Mine first."], hold=True))
                await self.error(
                    f"Conversation already has an active response: {own}.",
                    code="conversation_already_has_active_response",
                    ref=ref,
                )
                self.server.keep(asyncio.create_task(self._release_later(1.0)))
            case _:
                self._fault = fault
                await self.begin_reply(_changed(fault, self.server.next_reply()), ref=asked)

    async def _later(self, seconds: float, asked: str | None) -> None:
        await asyncio.sleep(seconds)
        await self.begin_reply(self.server.next_reply(), ref=asked)

    async def _release_later(self, seconds: float) -> None:
        await asyncio.sleep(seconds)
        self.release()

    async def _cancel(self, event: dict[str, Any]) -> None:
        running = self.running
        wanted = event.get("response_id")
        if running is None or (wanted and wanted != running.reply_id):
            await self.error(
                "Cancellation failed: no active response found",
                code="response_cancel_not_active",
                ref=event.get("event_id"),
            )
            return
        running.cancelled = True
        running.done.set()

    async def _reply(
        self,
        reply: ServerReply,
        reply_id: str,
        message_id: str,
        ref: str | None,
        started: asyncio.Event,
    ) -> None:
        await started.wait()
        running = self.running
        if running is None:
            return
        metadata = {"client_event_id": ref} if ref is not None else None
        base: dict[str, Any] = {"id": reply_id, "object": "realtime.response", "metadata": metadata}
        if self._fault is RealtimeFault.BACKWARDS:
            self._held_back = []
        if self._fault is not RealtimeFault.NO_BEGINNING:
            await self.send("response.created", response={**base, "status": "in_progress"})
        output: list[dict[str, Any]] = []
        if reply.words:
            output.append(await self._speak(reply, reply_id, message_id, running))
        if reply.hold:
            await running.done.wait()
        if not running.cancelled:
            output += [await self._call(call, reply_id) for call in reply.calls]
        status = "cancelled" if running.cancelled else reply.status
        details = reply.details
        if running.cancelled:
            details = {"type": "cancelled", "reason": "client_cancelled"}
        if self.running is running:
            self.running = None
        if self._fault is RealtimeFault.NO_END:
            self._fault = None
            return
        await self.send(
            "response.done",
            response={
                **base,
                "status": status,
                "status_details": details,
                "output": output,
                "usage": {
                    "total_tokens": 30,
                    "input_tokens": 20,
                    "output_tokens": 10,
                    "input_token_details": {"text_tokens": 5, "audio_tokens": 15},
                    "output_token_details": {"text_tokens": 3, "audio_tokens": 7},
                },
            },
        )
        self._fault = None
        held, self._held_back = self._held_back, None
        for text in reversed(held or ()):
            await self.send_raw(text)

    async def _speak(
        self, reply: ServerReply, reply_id: str, message_id: str, running: _Running
    ) -> dict[str, Any]:
        where: dict[str, Any] = {"response_id": reply_id, "output_index": 0}
        part: dict[str, Any] = {**where, "item_id": message_id, "content_index": 0}
        spoken = self._spoken()
        item: dict[str, Any] = {
            "id": message_id,
            "type": "message",
            "role": "assistant",
            "status": "in_progress",
            "content": [],
        }
        await self.send("response.output_item.added", **where, item=item)
        await self._add(item, self.items[-1] if self.items else None)
        kind = "audio" if spoken else "text"
        await self.send("response.content_part.added", **part, part={"type": kind})
        said = ""
        for word in reply.words:
            if running.cancelled:
                break
            said += word
            name = "audio_transcript" if spoken else "text"
            await self.send(f"response.output_{name}.delta", **part, delta=word)
            if spoken:
                sound = base64.b64encode(bytes(reply.ms * _BYTES_PER_MS)).decode()
                self.sent_ms[message_id] = self.sent_ms.get(message_id, 0) + reply.ms
                await self.send("response.output_audio.delta", **part, delta=sound)
            if self._fault in ENDS:
                await self._end_as_told()
            await asyncio.sleep(0)
        key = "transcript" if spoken else "text"
        kind = "output_audio" if spoken else "output_text"
        done = {**item, "status": "completed", "content": [{"type": kind, key: said}]}
        self.contents[message_id] = done
        await self.send("response.output_item.done", **where, item=done)
        return done

    async def _end_as_told(self) -> None:
        """End the connection as the fault demands."""
        fault, self._fault = self._fault, None
        how = ENDS[fault] if fault is not None else None
        if how is None:
            self.drop()
        else:
            await self.close(*how)

    async def _call(self, call: ServerCall, reply_id: str) -> dict[str, Any]:
        item = {
            "id": self._id("item"),
            "type": "function_call",
            "call_id": call.call_id,
            "name": call.name,
            "arguments": "",
            "status": "in_progress",
        }
        where: dict[str, Any] = {"response_id": reply_id, "output_index": 1}
        await self.send("response.output_item.added", **where, item=item)
        await self._add(item, self.items[-1] if self.items else None)
        done = {**item, "arguments": call.arguments, "status": "completed"}
        self.contents[item["id"]] = done
        await self.send("response.output_item.done", **where, item=done)
        return done

    def _spoken(self) -> bool:
        wanted = self.session.get("output_modalities") or self.session.get("modalities")
        return wanted is None or "audio" in wanted

    def _id(self, prefix: str) -> str:
        self._count += 1
        return f"{prefix}_{self.number}_{self._count}"


def _changed(fault: RealtimeFault, reply: ServerReply) -> ServerReply:
    """Send a reply with an abnormal end."""
    match fault:
        case RealtimeFault.FAILED:
            error = {"type": "server_error", "code": "server_error", "message": "It broke."}
            return replace(reply, status="failed", details={"type": "failed", "error": error})
        case RealtimeFault.QUOTA:
            error = {"type": "insufficient_quota", "code": "insufficient_quota", "message": "No."}
            return replace(reply, status="failed", details={"type": "failed", "error": error})
        case RealtimeFault.FILTERED:
            details = {"type": "incomplete", "reason": "content_filter"}
            return replace(reply, status="incomplete", details=details)
        case _:
            return reply
