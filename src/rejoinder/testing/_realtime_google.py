"""Google's Live API in a `RealtimeService`: one connection of a `RealtimeServer`.

It closes the connection where the real service does: for unsupported options, for text that the model
does not accept, for an unknown handle, and for a handle whose session still has an open connection.
It does not speak while it waits for the result of a call.
"""

from __future__ import annotations

import asyncio
import base64
import json
from dataclasses import dataclass, field, replace
from typing import Any, Final, cast

from rejoinder.providers.google.realtime_rules import LiveRules, rules_of
from rejoinder.testing.memory_socket import Peer
from rejoinder.testing.realtime_connection import ENDS, RealtimeConnection, ServerReply
from rejoinder.testing.realtime_faults import RealtimeFault, Stage
from rejoinder.testing.realtime_service import RealtimeService
from rejoinder.transport.ws import WireFrame

__all__ = ["GeminiConnection"]

_OUTPUT_BYTES_PER_MS: Final = 48
_REASONS: Final = {
    RealtimeFault.FAILED: "MALFORMED_FUNCTION_CALL",
    RealtimeFault.FILTERED: "RESPONSE_REJECTED",
}
_BETWEEN: Final[dict[RealtimeFault | None, tuple[WireFrame, ...]]] = {
    RealtimeFault.UNKNOWN_EVENTS: ('{"hologram":{}}', '{"serverContent":{"smell":"rose"}}'),
    RealtimeFault.GARBAGE: ("", "{", "[]", "null", b"\x00\xff", "7", "{}"),
    RealtimeFault.ODD_TYPES: (
        '{"serverContent":[]}',
        '{"serverContent":{"modelTurn":{"parts":[{"inlineData":7}]}}}',
        '{"toolCall":{"functionCalls":3}}',
        '{"goAway":"soon"}',
        '{"sessionResumptionUpdate":null}',
        '{"usageMetadata":"x"}',
    ),
}


@dataclass
class _Speaking:
    reply: ServerReply
    task: asyncio.Task[None]
    done: asyncio.Event = field(default_factory=asyncio.Event)
    cut: bool = False


class GeminiConnection(RealtimeConnection):
    """One connection, as the server sees it. Pass the class as `connection=` of a `RealtimeServer`.

    Attributes:
        setup: the object of the first message.
        said: the conversation as the model knows it: role and text of each turn.
        owed: ids of calls without a result.
        results: the results received, in order.
    """

    def __init__(
        self,
        server: RealtimeService,
        peer: Peer,
        number: int,
    ) -> None:
        super().__init__(server, peer, number)
        self.setup: dict[str, Any] = {}
        self.said: list[tuple[str, str]] = []
        self.owed: list[str] = []
        self.results: list[dict[str, Any]] = []
        self.speaking: _Speaking | None = None
        self._waiting: list[ServerReply] = []
        self._history = False
        self._session = ""
        self._talking = False
        self._rules = LiveRules()

    # -- what a test does --------------------------------------------------------------------

    async def send_message(self, **fields: Any) -> None:
        """Send one message, as the service does: JSON in a binary frame."""
        for odd in _BETWEEN.get(self._fault, ()):
            await self.send_raw(odd)
        for _ in range(2 if self._fault is RealtimeFault.TWICE else 1):
            await self.send_raw(json.dumps(fields))

    async def send_raw(self, frame: WireFrame) -> None:
        await super().send_raw(frame.encode() if isinstance(frame, str) else frame)

    async def greet(self) -> None:
        return

    async def error(
        self, message: str, *, code: str | None = None, ref: str | None = None, kind: str = ""
    ) -> None:
        """Report an error: this service has no event for it and closes the connection."""
        await self.close(1011, message)

    async def go_away(self, seconds: float) -> None:
        """Announce the end of the connection."""
        await self.send_message(goAway={"timeLeft": f"{seconds:g}s"})

    async def cancel_calls(self, *call_ids: str) -> None:
        """The model no longer wants these results."""
        self.owed = [call_id for call_id in self.owed if call_id not in call_ids]
        await self.send_message(toolCallCancellation={"ids": list(call_ids)})

    async def speech(self, transcript: str | None = None, *, item_id: str | None = None) -> str:
        """The user speaks a turn, which cuts off the model."""
        if self._rules.tells_speech:
            await self._voice("ACTIVITY_START")
        if self.speaking is not None:
            await self._cut()
        if transcript is not None:
            for word in transcript.split(" "):
                await self.send_message(serverContent={"inputTranscription": {"text": f" {word}"}})
        self.said.append(("user", transcript or ""))
        if self._rules.tells_speech:
            await self._voice("ACTIVITY_END")
        return ""

    async def begin_reply(self, reply: ServerReply, *, ref: str | None = None) -> str:
        """Begin a reply, as the service does by itself after a turn."""
        if self.owed and self._waits:
            self._waiting.append(reply)  # it waits for the result of its call
            return ""
        started = asyncio.Event()
        task = asyncio.create_task(self._speak_reply(reply, started))
        self.server.keep(task)
        self.speaking = _Speaking(reply, task)
        started.set()
        return ""

    def release(self) -> None:
        if self.speaking is not None:
            self.speaking.done.set()

    async def close(self, code: int = 1000, reason: str = "") -> None:
        if self.speaking is not None:
            self.speaking.task.cancel()
        await super().close(code, reason)

    # -- the client --------------------------------------------------------------------------

    def note(self, event: dict[str, Any]) -> None:
        sound = _object(event.get("realtimeInput")).get("audio")
        if sound is not None:
            self.heard(base64.b64decode(sound["data"]))
        else:
            self.events.append(event)

    async def handle(self, event: dict[str, Any]) -> None:
        (kind,) = event
        body = cast("dict[str, Any]", event[kind])
        if not self.setup and kind != "setup":
            await self.close(1007, "the first message has to be the setup")
        elif kind == "setup":
            await self._set_up(body)
        elif kind == "clientContent":
            await self._content(body)
        elif kind == "realtimeInput":
            await self._input(body)
        elif kind == "toolResponse":
            await self._results(body["functionResponses"])
        else:
            await self.close(1007, f"Unknown name {kind!r}")

    async def _set_up(self, setup: dict[str, Any]) -> None:
        self._rules = rules_of(setup["model"])
        self.setup = setup
        wrong = self._refusal(setup)
        if wrong:
            await self.close(1007, wrong)
            return
        handle = _object(setup.get("sessionResumption")).get("handle")
        if handle is None:
            self._session = self._id("session")
        else:
            kept = self.server.handles.get(handle)
            if kept is None:
                await self.close(1008, "BidiGenerateContent session not found")
                return
            self._session, said = cast("tuple[str, list[tuple[str, str]]]", kept)
            if any(other._is_open_in(self._session) for other in self._others):
                await self.close(1011, "the session has another connection")
                return
            self.said = list(said)
        config = _object(setup.get("historyConfig"))
        self._history = config.get("initialHistoryInClientContent") is True
        await self.send_message(setupComplete={})

    @property
    def _others(self) -> list[GeminiConnection]:
        return [
            other
            for other in self.server.connections
            if other is not self and isinstance(other, GeminiConnection)
        ]

    def _is_open_in(self, session: str) -> bool:
        return self._session == session and not self._peer.closed

    def _refusal(self, setup: dict[str, Any]) -> str:
        generation = _object(setup.get("generationConfig"))
        rules = self._rules
        thinking = _object(generation.get("thinkingConfig"))
        behaviors = self._behaviors
        if "TEXT" in generation.get("responseModalities", ()) and not rules.text_output:
            return "text output is not supported"
        if rules.thinking == "none" and thinking:
            return "thinking is not supported"
        if rules.thinking == "level_required" and "thinkingLevel" not in thinking:
            return "a thinking level is required"
        if rules.tools == "always" and "BLOCKING" in behaviors:
            return "blocking functions are not supported"
        return ""

    async def _content(self, body: dict[str, Any]) -> None:
        rules = self._rules
        given = cast("list[dict[str, Any]]", body.get("turns") or [])
        if rules.context == "initial" and not self._history:
            await self.close(1007, "clientContent is for the initial history")
            return
        for turn in given:
            texts = [part.get("text", "") for part in turn["parts"]]
            if turn.get("role") not in ("user", "model", "system"):
                await self.close(1007, "Please use a valid role: user, model.")
                return
            if rules.trigger == "bare" and texts == ["."]:
                await self.close(1007, "Request contains an invalid argument.")
                return
            if not rules.call_parts and any("functionCall" in part for part in turn["parts"]):
                await self.close(1007, "function parts are not supported")
                return
            if texts != ["."]:
                self.said.append((turn["role"], "".join(texts)))
        if body.get("turnComplete") is not True:
            return
        if self._history:
            self._history = False
            return
        await self._respond()

    async def _respond(self) -> None:
        if self.speaking is not None:
            if not self._rules.cut_off:
                self._waiting.append(self.server.next_reply())
                return
            await self._cut()
        fault = self.server.next_fault(Stage.REPLY)
        if fault is None:
            await self.begin_reply(self.server.next_reply())
        else:
            await self._misbehave(fault, None, None)

    async def _misbehave(self, fault: RealtimeFault, asked: str | None, ref: str | None) -> None:
        match fault:
            case RealtimeFault.REFUSED:
                await self.close(1007, "Request contains an invalid argument.")
            case RealtimeFault.RATE_LIMIT | RealtimeFault.QUOTA:
                await self.close(1011, "You exceeded your current quota.")
            case RealtimeFault.FAILED | RealtimeFault.FILTERED:
                details = {"turnCompleteReason": _REASONS[fault]}
                await self.begin_reply(replace(self.server.next_reply(), details=details))
            case RealtimeFault.BUSY | RealtimeFault.BACKWARDS | RealtimeFault.NO_BEGINNING:
                # Its replies have neither ids nor an event at their beginning.
                await self.begin_reply(self.server.next_reply())
            case _:
                await super()._misbehave(fault, asked, ref)

    async def _input(self, body: dict[str, Any]) -> None:
        manual = self._manual
        if "text" in body:
            self.said.append(("user", body["text"]))
            await self._respond()
        elif "activityStart" in body or "activityEnd" in body:
            if not manual or self._talking is ("activityStart" in body):
                await self.close(1007, "activity is not expected")
                return
            self._talking = "activityStart" in body
            if self._talking and self.speaking is not None:
                await self._cut()
            elif not self._talking:
                self.said.append(("user", "(sound)"))
                await self._respond()
        elif "audioStreamEnd" in body and manual:
            await self.close(1007, "audioStreamEnd is for automatic detection")

    async def _results(self, results: list[dict[str, Any]]) -> None:
        for result in results:
            self.results.append(result)
            call_id = result.get("id")
            if call_id in self.owed:
                self.owed.remove(call_id)
        if self.owed and self._waits:
            return
        waiting, self._waiting = self._waiting, []
        silent = all(result.get("scheduling") == "SILENT" for result in results)
        abandoned = all("replaced" in str(result["response"]) for result in results)
        if waiting or not (silent or abandoned):
            await self.begin_reply(waiting[0] if waiting else self.server.next_reply())

    @property
    def _behaviors(self) -> list[Any]:
        return [
            declared.get("behavior")
            for tool in cast("list[dict[str, Any]]", self.setup.get("tools") or [])
            for declared in cast("list[dict[str, Any]]", tool.get("functionDeclarations") or [])
        ]

    @property
    def _waits(self) -> bool:
        declared = self._behaviors
        if self._rules.tools == "non_blocking":
            return "BLOCKING" in declared
        if self._rules.tools == "optional":
            return "NON_BLOCKING" not in declared
        return self._rules.tools == "blocking"

    @property
    def _manual(self) -> bool:
        config = _object(self.setup.get("realtimeInputConfig"))
        return _object(config.get("automaticActivityDetection")).get("disabled") is True

    # -- the model ---------------------------------------------------------------------------

    async def _voice(self, kind: str) -> None:
        await self.send_message(voiceActivity={"voiceActivityType": kind, "audioOffset": "1s"})

    async def _cut(self) -> None:
        speaking = self.speaking
        if speaking is None:
            return
        speaking.cut = True
        speaking.done.set()
        await speaking.task

    async def _speak_reply(self, reply: ServerReply, started: asyncio.Event) -> None:
        await started.wait()
        speaking = self.speaking
        if speaking is None:
            return
        said = ""
        sounds = "TEXT" not in self.setup["generationConfig"].get("responseModalities", ())
        for word in reply.words:
            if speaking.cut:
                break
            said += word
            if sounds:
                await self.send_message(serverContent={"outputTranscription": {"text": word}})
                data = base64.b64encode(bytes(reply.ms * _OUTPUT_BYTES_PER_MS)).decode()
                blob = {"mimeType": "audio/pcm;rate=24000", "data": data}
                await self._parts({"inlineData": blob})
            else:
                await self._parts({"text": word})
            if self._fault in ENDS:
                await self._end_as_told()
            await asyncio.sleep(0)
        if reply.hold and not speaking.cut:
            await speaking.done.wait()
        if said:
            self.said.append(("model", said))
        if speaking.cut:
            await self.send_message(serverContent={"interrupted": True})
        elif reply.calls:
            await self._calls(reply)
        elif "turnCompleteReason" not in (reply.details or {}):
            await self.send_message(serverContent={"generationComplete": True})
        self.speaking = None
        end: dict[str, Any] = {"turnComplete": True, **(reply.details or {})}
        fault, self._fault = self._fault, None
        if fault is RealtimeFault.NO_END:
            return
        if not (reply.calls and self._waits and not speaking.cut):
            await self.send_message(serverContent=end, usageMetadata=_USAGE)
        await self.snapshot()
        if self._waiting and not self.owed:
            await self.begin_reply(self._waiting.pop(0))

    async def _parts(self, *parts: dict[str, Any]) -> None:
        await self.send_message(serverContent={"modelTurn": {"role": "model", "parts": parts}})

    async def _calls(self, reply: ServerReply) -> None:
        calls = [
            {"id": call.call_id, "name": call.name, "args": json.loads(call.arguments)}
            for call in reply.calls
        ]
        self.owed += [call.call_id for call in reply.calls]
        await self.send_message(toolCall={"functionCalls": calls})

    async def snapshot(self) -> None:
        """Send the client a handle for the current conversation, unless a call is open."""
        if "sessionResumption" not in self.setup or self._peer.closed:
            return
        if self.owed:
            update: dict[str, Any] = {"resumable": False}
        else:
            handle = self._id("handle")
            self.server.handles[handle] = (self._session, list(self.said))
            update = {"newHandle": handle, "resumable": True}
        await self.send_message(sessionResumptionUpdate=update)


def _object(value: object) -> dict[str, Any]:
    return cast("dict[str, Any]", value) if isinstance(value, dict) else {}


_USAGE: Final = {
    "promptTokenCount": 20,
    "responseTokenCount": 10,
    "totalTokenCount": 30,
    "promptTokensDetails": [
        {"modality": "TEXT", "tokenCount": 5},
        {"modality": "AUDIO", "tokenCount": 15},
    ],
    "responseTokensDetails": [{"modality": "AUDIO", "tokenCount": 10}],
}
