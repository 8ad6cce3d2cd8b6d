"""OpenAI's Live API in a `RealtimeService`: one connection of a `RealtimeServer`.

It refuses what the real service refuses: commands before ``session.start``, fields that never change,
an append without `delegation_id` or that is too long, a part of a batch of results. Its sound is
loud while it speaks and silent in between; `silence` lets time pass.
"""

from __future__ import annotations

import asyncio
import base64
from dataclasses import dataclass, field
from typing import Any, Final, cast

from rejoinder import _stamps
from rejoinder.testing.memory_socket import Peer
from rejoinder.testing.realtime_connection import (
    ENDS,
    RealtimeConnection,
    ServerCall,
    ServerReply,
)
from rejoinder.testing.realtime_faults import RealtimeFault, Stage
from rejoinder.testing.realtime_service import RealtimeService

__all__ = ["LiveConnection"]

_BYTES_PER_MS: Final = 48
_LOUD: Final = b"\x00\x10"
_PIECE_MS: Final = 100
_PAUSE_MS: Final = 1000
_MOST_BYTES: Final = 4000
"""No text of 500 tokens is longer."""
_APPENDS: Final = {
    "session.instructions.append": "instructions",
    "session.thinking.append": "thinking",
    "session.commentary.append": "commentary",
}


@dataclass
class _Speaking:
    reply: ServerReply
    done: asyncio.Event = field(default_factory=asyncio.Event)


class LiveConnection(RealtimeConnection):
    """One connection, as the server sees it. Pass the class as `connection=` of a `RealtimeServer`.

    A commentary without a task requests the next reply of the script. A commentary of a task is spoken
    unchanged.

    Attributes:
        start: the object of the first frame.
        told: the texts that the model received: ``instructions``, ``thinking`` or ``commentary``, the
            id of the task or ``None``, and the text.
        said: the conversation as the model knows it: role and text of each message.
        results: the results of calls, in order.
        muted: the model does not hear the user.
        speaking: the reply that is being spoken.
    """

    def __init__(self, server: RealtimeService, peer: Peer, number: int) -> None:
        super().__init__(server, peer, number)
        self.start: dict[str, Any] = {}
        self.told: list[tuple[str, str | None, str]] = []
        self.said: list[tuple[str, str]] = []
        self.results: list[dict[str, Any]] = []
        self.muted = False
        self.speaking: _Speaking | None = None
        self.expires_in = 3600.0
        self._tasks_open: list[str] = []
        self._owed: list[str] = []
        self._timeline = 0
        self._turn = asyncio.Lock()

    # -- for tests ---------------------------------------------------------------------------

    async def greet(self) -> None:
        return

    async def silence(self, ms: int = _PAUSE_MS) -> None:
        """Let the model be silent for this long."""
        for _ in range(0, ms, _PIECE_MS):
            await self._sound(bytes(_PIECE_MS * _BYTES_PER_MS))

    async def speech(self, transcript: str | None = None, *, item_id: str | None = None) -> str:
        """The user speaks a turn, while the model is silent."""
        await self.words_of_user(transcript or "")
        await self.silence()
        self.said.append(("user", transcript or ""))
        return ""

    async def words_of_user(self, transcript: str) -> None:
        """The user begins to speak and does not end the turn."""
        for word in transcript.split(" "):
            await self._transcript("input", f"{word} ")

    async def delegate(self, *, target: str = "client", delegation_id: str | None = None) -> str:
        """The model delegates a task. Return its id."""
        delegation_id = delegation_id or self._id("dlg")
        self._tasks_open.append(delegation_id)
        delegation = {"id": delegation_id, "target": target, "type": "delegation"}
        await self.send(
            "session.delegation.created", delegation=delegation, offset_ms=self._timeline
        )
        return delegation_id

    async def begin_reply(self, reply: ServerReply, *, ref: str | None = None) -> str:
        self.server.keep(asyncio.create_task(self._speak_reply(reply)))
        return ""

    def release(self) -> None:
        if self.speaking is not None:
            self.speaking.done.set()

    async def end_session(self, reason: str) -> None:
        """The service ends the session, and then the connection."""
        usage = {"seconds": self._timeline / 1000}
        await self.send("session.closed", reason=reason, session=self._resource(), usage=usage)
        await self.close(1000)

    async def error(
        self, message: str, *, code: str | None = None, ref: str | None = None, kind: str = ""
    ) -> None:
        error = {
            "type": kind or "invalid_request_error",
            "code": code or "invalid_value",
            "message": message,
        }
        named = {} if ref is None else {"client_event_id": ref}
        await self.send("error", error={**error, **named}, **named)

    # -- the client --------------------------------------------------------------------------

    def note(self, event: dict[str, Any]) -> None:
        if event.get("type") != "session.input_audio.append":
            self.events.append(event)
        elif not self.muted:
            self.heard(base64.b64decode(event["audio"]))

    async def handle(self, event: dict[str, Any]) -> None:
        kind, ref = event.get("type"), event.get("event_id")
        if (kind == "session.start") is bool(self.start):
            await self.error("session.start has to come first, and once.", ref=ref)
        elif kind == "session.start":
            await self._start(event)
        elif kind in _APPENDS:
            await self._append(_APPENDS[cast("str", kind)], event)
        elif kind == "session.update":
            await self._update(event)
        elif kind == "response.item.create":
            await self._result(event)
        elif kind == "response.create":
            await self._continue(event)
        elif kind in ("session.input_audio.mute", "session.input_audio.unmute"):
            self.muted = kind.endswith(".mute")
            state = "muted" if self.muted else "unmuted"
            await self.send(f"session.input_audio.{state}", client_event_id=ref)
        elif kind == "session.close":
            await self.end_session("close_requested")
        elif kind != "session.input_audio.append":
            await self.error(f"Unknown event {kind!r}", code="unknown_parameter", ref=ref)

    async def _start(self, event: dict[str, Any]) -> None:
        self.start = cast("dict[str, Any]", event["session"])
        for message in cast("list[dict[str, Any]]", self.start.get("input") or []):
            self.said.append((message["role"], message["content"][0]["text"]))
        await self.send(
            "session.started", session=self._resource(), client_event_id=event.get("event_id")
        )

    def _resource(self) -> dict[str, Any]:
        expires = round(_stamps.wall_now() + self.expires_in)
        return {
            **self.start,
            "id": f"live_{self.number}",
            "expires_at": expires,
            "status": "active",
        }

    async def _append(self, how: str, event: dict[str, Any]) -> None:
        ref, text = event.get("event_id"), event.get("content")
        delegation_id = event.get("delegation_id")
        if "delegation_id" not in event or not isinstance(text, str):
            await self.error("delegation_id and content are required.", ref=ref)
        elif not 0 < len(text.encode()) <= _MOST_BYTES:
            await self.error("content has more than 500 tokens.", ref=ref)
        elif delegation_id is not None and delegation_id not in self._tasks_open:
            await self.error(f"Unknown delegation {delegation_id!r}", ref=ref)
        else:
            self.told.append((how, delegation_id, text))
            at = {"start_ms": self._timeline, "end_ms": self._timeline}
            if how != "commentary":
                await self.send(f"session.{how}.appended", **at, client_event_id=ref)
            elif delegation_id is not None:
                await self.send(f"session.{how}.appended", **at, client_event_id=ref)
                await self.begin_reply(ServerReply([text]))
            else:
                await self._asked(ref, at)

    async def _asked(self, ref: str | None, at: dict[str, int]) -> None:
        self.server.asked(self, {})
        fault = self.server.next_fault(Stage.REPLY)
        if fault is None:
            await self.send("session.commentary.appended", **at, client_event_id=ref)
            await self.begin_reply(self.server.next_reply())
        else:
            await self._misbehave(fault, ref, ref)

    async def _update(self, event: dict[str, Any]) -> None:
        ref, session = event.get("event_id"), cast("dict[str, Any]", event["session"])
        if set(session) - {"delegation", "triggers"}:
            await self.error("Only the delegation can change.", code="unknown_parameter", ref=ref)
            return
        delegation = cast("dict[str, Any]", session.get("delegation") or {})
        owner = cast("dict[str, Any]", self.start.get("delegation") or {"type": "client"})
        if delegation and delegation["type"] != owner["type"]:
            await self.error("The type of the delegation cannot change.", ref=ref)
            return
        changed = cast("dict[str, Any]", delegation.get("responses") or {})
        if changed:
            owner["responses"] = {**owner.get("responses", {}), **changed}
        await self.send("session.updated", session=self._resource(), client_event_id=ref)

    async def _result(self, event: dict[str, Any]) -> None:
        item = cast("dict[str, Any]", event["item"])
        call_id = item.get("call_id")
        if call_id not in self._owed:
            await self.error(f"No call {call_id!r} is open.", ref=event.get("event_id"))
            return
        self._owed.remove(call_id)
        self.results.append(item)

    async def _continue(self, event: dict[str, Any]) -> None:
        if self._owed:
            await self.error(
                f"No output for the call {self._owed[0]!r}.", ref=event.get("event_id")
            )
        else:
            await self.begin_reply(self.server.next_reply())

    # -- the model ---------------------------------------------------------------------------

    async def _sound(self, data: bytes) -> None:
        self._timeline += len(data) // _BYTES_PER_MS
        for at in range(0, len(data), _PIECE_MS * _BYTES_PER_MS):
            piece = data[at : at + _PIECE_MS * _BYTES_PER_MS]
            await self.send("session.output_audio.delta", delta=base64.b64encode(piece).decode())

    async def _transcript(self, which: str, text: str, ms: int = 0) -> None:
        await self.send(
            f"session.{which}_transcript.delta",
            delta=text,
            start_ms=self._timeline,
            end_ms=self._timeline + ms,
        )

    async def _speak_reply(self, reply: ServerReply) -> None:
        async with self._turn:
            speaking = self.speaking = _Speaking(reply)
            if self._fault is RealtimeFault.BACKWARDS:
                self._held_back = []
            for word in reply.words:
                await self._transcript("output", word, reply.ms)
                await self._sound(_LOUD * (reply.ms * _BYTES_PER_MS // len(_LOUD)))
                if await self._ended_as_told():
                    return
                await asyncio.sleep(0)
            if reply.hold:
                await speaking.done.wait()
            if reply.calls:
                await self.call(*reply.calls)
            self.said.append(("assistant", "".join(reply.words)))
            self.speaking = None
            fault, self._fault = self._fault, None
            held, self._held_back = self._held_back, None
            for text in reversed(held or ()):
                await self.send_raw(text)
            if fault is RealtimeFault.NO_END:
                return
            await self.silence()
            usage = {"seconds": self._timeline / 1000}
            await self.send(
                "session.usage.updated", usage=usage, context_window={"usage_ratio": 0.01}
            )

    async def _ended_as_told(self) -> bool:
        match self._fault:
            case RealtimeFault.FILTERED:
                await self.end_session("content")
            case RealtimeFault.CAP:
                await self.end_session("expired")
            case RealtimeFault.QUOTA:
                await self.error("No.", code="insufficient_quota", kind="insufficient_quota")
            case RealtimeFault.FAILED:
                await self.error("It broke.", code="server_error", kind="server_error")
                return False
            case fault if fault in ENDS:
                await self._end_as_told()
            case _:
                return False
        self._fault = None
        self.speaking = None
        return True

    async def thinks(self) -> str:
        """The backend model begins a response, without output yet. Return the id of its task."""
        response = {"id": self._id("resp"), "object": "response", "status": "in_progress"}
        delegation_id = self._id("dlg")
        await self._backend(delegation_id, "response.created", response=response)
        return delegation_id

    async def thought(self, delegation_id: str) -> None:
        """The response that the backend model began for this task is complete."""
        response = {"id": self._id("resp"), "object": "response", "status": "completed"}
        await self._backend(delegation_id, "response.completed", response=response)

    async def call(self, *calls: ServerCall, end: str = "completed") -> None:
        """The backend model calls tools. `end`: how its response ends."""
        delegation_id = self._id("dlg")
        response = {"id": self._id("resp"), "object": "response", "status": "in_progress"}
        await self._backend(delegation_id, "response.created", response=response)
        for number, call in enumerate(calls):
            item = {
                "type": "function_call", "id": self._id("fc"), "call_id": call.call_id,
                "name": call.name, "arguments": call.arguments, "status": "completed",
            }  # fmt: skip
            await self._backend(
                delegation_id, "response.output_item.done", output_index=number, item=item
            )
        if end == "completed":
            self._owed += [call.call_id for call in calls if call.call_id not in self._owed]
        error = {"code": "server_error", "message": "It broke."} if end == "failed" else None
        usage = {"input_tokens": 20, "output_tokens": 10, "total_tokens": 30}
        done: dict[str, Any] = {
            **response,
            "status": end,
            "error": error,
            "usage": usage,
            "output": [],
        }
        await self._backend(delegation_id, f"response.{end}", response=done)

    async def _backend(self, delegation_id: str, kind: str, **fields: Any) -> None:
        await self.send(
            "response.event", delegation_id=delegation_id, event={"type": kind, **fields}
        )
