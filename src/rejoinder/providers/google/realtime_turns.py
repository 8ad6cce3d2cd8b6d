"""Tracks the turns of a Live API conversation: whose turn it is, and which reply a part belongs to.
Pure.

The API assigns no ids to replies and messages, so this module does. It also decides what each reply
answers: the open request, the result of a call, or the user's words.

States of the model's turn::

    IDLE --words, sound, thought, call--> SPEAKING
    SPEAKING --call that the model waits for, generationComplete, interrupted--> ENDING
    SPEAKING, ENDING --turnComplete--> IDLE
    ENDING --result of the call, then words--> SPEAKING (the next reply)

In ENDING, late parts of the old reply are dropped. On models whose turns pause
(`LiveRules.long_turns`), `generationComplete` changes nothing, and `turnComplete` only with IDLE.
"""

from __future__ import annotations

import binascii
from collections import OrderedDict
from collections.abc import Callable, Sequence
from typing import Any, Final, Literal

from rejoinder._core import jsontext
from rejoinder._core.items import ChatMessage, FunctionCall
from rejoinder._core.realtime import messages as m
from rejoinder.errors import APIError
from rejoinder.providers.google.realtime_rules import LiveRules

__all__ = ["LiveTurns", "wire_id"]

_REMEMBERED: Final = 256
_STRAYS: Final = 50
"""Maximum number of parts dropped after the end of a reply. More parts than that belong to a new
one."""
_BAD_ENDS: Final = frozenset({"MALFORMED_FUNCTION_CALL", "UNEXPECTED_TOOL_CALL", "OTHER"})
_GOOD_ENDS: Final = frozenset({"NEED_MORE_INPUT", "TURN_COMPLETE_REASON_UNSPECIFIED", ""})


def wire_id(call: FunctionCall) -> str | None:
    """The id that the service assigned to a call; ``None`` if it was generated here."""
    state = jsontext.as_mapping(call.extra.get("google")) or {}
    return None if state.get("unnamed") is True else call.call_id


class LiveTurns:
    """Reads content, calls and speech of one connection.

    Args:
        rules: the rules of the model.
        new_id: makes an id with a prefix.

    Attributes:
        sounds: the model answers with sound.
        waits: the model waits for the results of its calls.
        asked: reference of the request that has no reply yet.
        due: why the service is about to speak by itself: a result, or speech whose end was
            reported.
        overtaken: requested turns before the newest one that have no word so far. The service may
            end each of them empty.
        typed: the newest item is a user text without an answer.
        active: the client has reported that the user is active.
        reply: id of the reply that runs.
        bill: id of the reply to which reported tokens belong.
        calls: the known calls, by id.
        open_calls: calls for which the service expects a result.
        batch: results held until the other calls of the turn have theirs.
        skipped: parts that were broken or of unknown type.
    """

    def __init__(self, rules: LiveRules, new_id: Callable[[str], str]) -> None:
        self._rules = rules
        self._new_id = new_id
        self.sounds = True
        self.waits = True
        self.skipped = 0
        self.asked: str | None = None
        self.due: Literal["result", "speech"] | None = None
        self.overtaken = 0
        self.typed = False
        self.active = False
        self.reply: str | None = None
        self.bill = ""
        self.calls: OrderedDict[str, FunctionCall] = OrderedDict()
        self.open_calls: dict[str, None] = {}
        self.batch: list[dict[str, Any]] = []
        self._turn = False
        self._ending = False
        self._strays = 0
        self._message: str | None = None
        self._user: str | None = None
        self._words = ""
        self._hears = False
        self._replied = False

    # -- what this side does -----------------------------------------------------------------

    def know(self, call: FunctionCall) -> None:
        """Remember a call, for its name and arguments."""
        self.calls[call.call_id] = call
        if len(self.calls) > _REMEMBERED:
            self.calls.popitem(last=False)

    def will_speak(self, *, reply: bool) -> None:
        """A result was sent. `reply`: the model speaks about it, and no longer about the result
        before it."""
        if reply and self.due == "result":
            self.overtaken += 1
        self.due = "result" if reply else None

    def answered(self, *, reply: bool) -> None:
        """Results were sent. `reply`: the model speaks about them."""
        self.will_speak(reply=reply)
        if self.waits:
            self._ending = False
            self._strays = 0

    # -- what the service does ---------------------------------------------------------------

    def activity(self, fields: dict[str, Any]) -> list[m.Event]:
        """The service heard the user begin or stop."""
        match fields.get("voiceActivityType"):
            case "ACTIVITY_START":
                return self._user_begins(anew=True)
            case "ACTIVITY_END":
                return self._user_stops()
            case _:
                self.skipped += 1
                return []

    def content(self, fields: dict[str, Any]) -> list[m.Event]:
        """Transcripts, parts of a reply, the ends of replies and turns."""
        events = self._transcribed(fields)
        turn = jsontext.as_mapping(fields.get("modelTurn")) or {}
        for part in jsontext.as_list(turn.get("parts")):
            events += self._part(jsontext.as_mapping(part) or {})
        said = jsontext.as_mapping(fields.get("outputTranscription")) or {}
        text = jsontext.as_text(said.get("text"))
        if text and self.sounds:
            events += self._text(text)
        if fields.get("interrupted") is True:
            events += self._interrupted()
        if fields.get("generationComplete") is True and not self._rules.long_turns:
            events += self._end_reply("completed")
        if fields.get("turnComplete") is True:
            events += self._turn_complete(fields)
        return events

    # -- the user's turn ---------------------------------------------------------------------

    def _transcribed(self, fields: dict[str, Any]) -> list[m.Event]:
        events: list[m.Event] = []
        heard = jsontext.as_mapping(fields.get("inputTranscription")) or {}
        text = jsontext.as_text(heard.get("text"))
        if text:
            events += self._user_begins(anew=False)
            self._words += text if self._words else text.lstrip()
            events.append(m.Transcript(self._user_id, self._words, final=False))
        if heard.get("finished") is True and self._user is not None:
            events += self._transcript_ends()
        interim = jsontext.as_mapping(fields.get("interimInputTranscription")) or {}
        text = jsontext.as_text(interim.get("text"))
        if text:
            events += self._user_begins(anew=False)
            words = self._words + (text if self._words else text.lstrip())
            events.append(m.Transcript(self._user_id, words, final=False))
        return events

    @property
    def _user_id(self) -> str:
        return self._user or ""

    def _user_begins(self, *, anew: bool) -> list[m.Event]:
        """A turn of the user begins. `anew`: words that were already answered belong to an earlier turn."""
        events: list[m.Event] = []
        if anew and self._replied:
            events += self._transcript_ends()
        if self._user is None:
            self._user = self._new_id("GI_")
            self._hears = True
            self._replied = False
            message = ChatMessage(id=self._user, role="user", content=[])
            events += [m.SpeechStarted(self._user), m.ItemAdded(message, None, at_tail=True)]
        elif not self._hears and anew:
            self._hears = True
            events.append(m.SpeechStarted(self._user))
        return events

    def _user_stops(self) -> list[m.Event]:
        if not self._hears:
            return []
        self._hears = False
        return [m.SpeechStopped(self._user)]

    def _transcript_ends(self) -> list[m.Event]:
        """End the user's turn; its transcript is complete."""
        events = self._user_stops()
        if self._user is not None:
            if self._words:
                events.append(m.Transcript(self._user, self._words, final=True))
            self._user = None
            self._words = ""
            self._replied = False
        return events

    # -- the model's turn --------------------------------------------------------------------

    def _part(self, part: dict[str, Any]) -> list[m.Event]:
        if part.get("thought") is True:
            return self._begin_reply()  # a sign of life without content
        call = jsontext.as_mapping(part.get("functionCall"))
        if call is not None:
            return self._called([call])
        blob = jsontext.as_mapping(part.get("inlineData"))
        if blob is not None:
            if not jsontext.as_text(blob.get("mimeType")).startswith("audio/pcm"):
                return []
            try:
                data = binascii.a2b_base64(jsontext.as_text(blob.get("data")))
            except binascii.Error:
                self.skipped += 1
                return []
            if not data:
                return []
            events = self._begin_message()
            if self._message is not None:
                events.append(m.AudioDelta(self._reply_id, self._message, data))
            return events
        text = jsontext.as_text(part.get("text"))
        # If the model sends sound, the transcript holds the spoken words, and text does not.
        return self._text(text) if text and not self.sounds else []

    def _text(self, text: str) -> list[m.Event]:
        events = self._begin_message()
        if self._message is not None:
            events.append(m.TextDelta(self._reply_id, self._message, text))
        return events

    @property
    def _reply_id(self) -> str:
        return self.reply or ""

    def _begin_reply(self) -> list[m.Event]:
        if self.reply is not None:
            return []
        if self._ending and self._strays < _STRAYS:
            self._strays += 1
            return []
        events: list[m.Event] = []
        spoken = self.due == "speech" or (
            self.asked is None and self.due is None and not self._turn
        )
        if spoken and self._user is None:
            events += self._user_begins(anew=False)  # its transcript may still arrive
        events += self._user_stops()
        if self._user is not None:
            self._replied = True
            events.append(m.AudioCommitted(self._user, None))
        self.reply = self.bill = self._new_id("GR_")
        self._message = None
        self._turn = True
        self._ending = False
        self._strays = 0
        self.due = None
        self.overtaken = 0
        self.typed = False
        events.append(m.ReplyStarted(self.reply, self.asked))
        self.asked = None
        return events

    def _begin_message(self) -> list[m.Event]:
        events = self._begin_reply()
        if self.reply is not None and self._message is None:
            self._message = self.reply
            message = ChatMessage(id=self._message, role="assistant", content=[])
            events += [
                m.MessageStarted(self.reply, self._message),
                m.ItemAdded(message, None, at_tail=True),
                m.ModalityKnown(self.reply, self._message, audio=self.sounds),
            ]
        return events

    def _end_reply(
        self, status: m.ReplyStatus, reason: str | None = None, error: APIError | None = None
    ) -> list[m.Event]:
        self._ending = True
        if self.reply is None:
            return []
        reply, message = self.reply, self._message
        self.reply = self._message = None
        events: list[m.Event] = []
        if message is not None:
            events.append(m.MessageEnded(reply, message))
        if not self._hears:
            events += self._transcript_ends()
        events.append(m.ReplyEnded(reply, status, reason=reason, error=error, usage_follows=True))
        return events

    def _interrupted(self) -> list[m.Event]:
        """The reply was cut off, by the user or by a text from the client."""
        by_user = self.asked is None and not self.active
        events = self._end_reply("cancelled", "interrupted")
        if by_user and not self._hears:
            events += self._user_begins(anew=True)
        return events

    def _turn_complete(self, fields: dict[str, Any]) -> list[m.Event]:
        if self._rules.long_turns and fields.get("interactionStatus") == "IN_PROGRESS":
            return []
        reason = jsontext.as_text(fields.get("turnCompleteReason"))
        status: m.ReplyStatus = "completed"
        error: APIError | None = None
        if reason in _BAD_ENDS:
            status = "failed"
            error = APIError(f"the reply failed: {reason}", body=fields)
        elif reason not in _GOOD_ENDS:
            status = "incomplete"
        events = self._end_reply(status, reason or None, error)
        overtaken = not self._turn and self.overtaken > 0
        if overtaken:
            self.overtaken -= 1
        elif not self._turn:
            self.due = None
        if not self._turn and not overtaken and self.asked is not None:
            # An empty turn: the request gets no other answer.
            error = error or APIError(
                f"the service sent an empty reply ({reason or 'no reason given'})"
            )
            ref, self.asked = self.asked, None
            status = "incomplete" if status == "completed" else status
            reply = self._new_id("GR_")
            events.append(m.ReplyEnded(reply, status, ref=ref, reason=reason or None, error=error))
        self._turn = self._ending = False
        self._strays = 0
        return events

    def _called(self, calls: Sequence[dict[str, Any]]) -> list[m.Event]:
        events: list[m.Event] = []
        waited = False
        for fields in calls:
            name = jsontext.as_text(fields.get("name"))
            call_id = jsontext.as_text(fields.get("id"))
            state: dict[str, Any] = {}
            given = fields.get("args")
            text = jsontext.encode(given if isinstance(given, dict) else {}).decode()
            if not name or call_id in self.calls or self._told(name, text, call_id):
                continue
            if not call_id:
                call_id = self._new_id("call_")
                state = {"google": {"unnamed": True}}
            if not events:
                self._ending = False
                events += self._begin_reply()
            call = FunctionCall(
                id=self._new_id("item_"), call_id=call_id, name=name, arguments=text, extra=state
            )
            self.know(call)
            self.open_calls[call_id] = None
            waited = True
            events += [
                m.ItemAdded(call, None, at_tail=True),
                m.ToolCalled(self._reply_id, call, waits=self.waits),
            ]
        if waited and self.waits:
            # The model speaks again when it has the results: that is another reply.
            events += self._end_reply("completed")
        return events

    def _told(self, name: str, text: str, call_id: str) -> bool:
        """Whether a call without an id is open already: some arrive twice, once as a part and once
        separately."""
        return any(
            self.calls[known].name == name and self.calls[known].arguments == text
            for known in self.open_calls
            if not call_id or wire_id(self.calls[known]) is None
        )

    def tool_call(self, fields: dict[str, Any]) -> list[m.Event]:
        """Complete calls."""
        calls = [
            jsontext.as_mapping(call) for call in jsontext.as_list(fields.get("functionCalls"))
        ]
        return self._called([call for call in calls if call is not None])

    def cancelled_calls(self, fields: dict[str, Any]) -> list[m.Event]:
        """Results that the service no longer expects."""
        ids = tuple(call for call in jsontext.as_list(fields.get("ids")) if isinstance(call, str))
        for call_id in ids:
            self.open_calls.pop(call_id, None)
        return [m.CallsCancelled(ids)] if ids else []
