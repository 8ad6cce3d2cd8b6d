"""The protocol of OpenAI's Live API: commands to frames, frames to events. Pure.

A session is one stream of sound in each direction. Only the service decides who speaks; it has no
replies, no truncation and no changes of its history. `live_turns` finds the turns; `live_backend` keeps
the calls of the model to which the service delegates tasks.

Frames and limits are those of the types of the ``openai`` package, version 3.57
(``openai.types.live``).
"""

from __future__ import annotations

import binascii
from collections import OrderedDict
from collections.abc import Callable, Sequence
from typing import Any, Final, Literal, TypeAlias

from rejoinder import _stamps
from rejoinder._core import jsontext
from rejoinder._core.items import ChatItem, ChatMessage, FunctionCallOutput
from rejoinder._core.realtime import messages as m
from rejoinder._core.realtime.frames import read_frame
from rejoinder.errors import APIError, ConfigurationError, WireError
from rejoinder.providers.openai.live_backend import LiveBackend
from rejoinder.providers.openai.live_format import (
    SAMPLE_RATE,
    append_pieces,
    backend,
    described,
    session_object,
)
from rejoinder.providers.openai.live_turns import LiveTurns
from rejoinder.providers.openai.realtime_errors import api_error, closed_in_setup, refused_setup

__all__ = ["OpenAILiveProtocol", "Told"]

Told: TypeAlias = Literal["instructions", "thinking", "commentary"]
"""The purpose of a text for the model: a rule from now on, silent information, or something to say in
its own words."""

_TRAITS: Final = m.Traits(
    input_rate=SAMPLE_RATE,
    output_rate=SAMPLE_RATE,
    confirms=False,
    confirms_settings=True,
    names_replies=False,
    history_at_once=True,
    history_in_setup=True,
    answers_move=False,
    tells_speech=False,
)
_MOST_SOUND: Final = 1 << 21
"""Maximum characters of a piece of sound in base64: half a minute. Each window of it is measured."""
_REMEMBERED: Final = 256
_STOP: Final = (
    "Stop speaking now and listen. The user does not hear you any more, and has not heard what you "
    "have just said."
)
_ANSWER: Final = "Speak to the user now, without waiting for them to speak first."
_ANSWER_TEXT: Final = f"{_ANSWER} Answer what they have just written:"
_ANSWER_BY: Final = f"{_ANSWER} Follow these instructions:"
_APPENDED: Final = frozenset(
    {
        "session.commentary.appended",
        "session.instructions.appended",
        "session.thinking.appended",
    }
)
_KNOWN: Final = frozenset(
    {
        "info",
        "session.decision",
        "session.input_audio.append",
        "session.input_audio.muted",
        "session.input_audio.unmuted",
        "session.output_audio.fixture.played",
        "session.output_audio.fixture.playing",
    }
)
"""Events that a session ignores."""


class OpenAILiveProtocol:
    """See `rejoinder._core.realtime.messages.RealtimeProtocol`.

    Args:
        model: name of the model.
        delegation: who handles the tasks that the model delegates.
        new_id: makes an id with a prefix.
        now: seconds since the epoch.

    Attributes:
        session_id: the service's id of the session.
        seconds: sound that the session was billed for so far.
        unconfirmed: texts sent to the model that the service has not acknowledged, in order.
        context_used: share of the context that is in use, if the service reports it.
    """

    def __init__(
        self,
        model: str,
        delegation: str,
        *,
        new_id: Callable[[str], str] = _stamps.new_id,
        now: Callable[[], float] = _stamps.wall_now,
    ) -> None:
        self._model = model
        self._delegation = delegation
        self._new_id = new_id
        self._now = now
        self._turns = LiveTurns(SAMPLE_RATE, new_id)
        self._backend = LiveBackend()
        self._delegations: dict[str, None] = {}
        self._event_ids: OrderedDict[str, None] = OrderedDict()
        self._typed = ""
        self._open_ref = ""
        self._ready = False
        self._ended = False
        self.skipped = 0
        self.unconfirmed: dict[str, tuple[Told, str]] = {}
        self.session_id: str | None = None
        self.seconds = 0.0
        self.context_used: float | None = None

    @property
    def traits(self) -> m.Traits:
        return _TRAITS

    @property
    def settled(self) -> bool:
        return self._backend.idle

    @property
    def delegations(self) -> frozenset[str]:
        """Ids of the tasks that this session has delegated to the application."""
        return frozenset(self._delegations)

    # -- commands ----------------------------------------------------------------------------

    def open(self, settings: m.UpdateSession) -> Sequence[m.Frame]:
        self._open_ref = settings.ref
        session = session_object(self._model, self._delegation, settings)
        return _frame("session.start", settings.ref, session=session)

    def takes(self, command: m.Command) -> bool:
        match command:
            case m.UpdateSession():
                fixed = set(command.options or ()) - {"tool_choice", "responses"}
                return command.instructions is None and not fixed
            case m.DeleteItem() | m.AbandonCall():
                return False  # the model does not wait for a result
            case m.GiveHistory():
                return self._ready
            case _:
                return True

    def send(self, command: m.Command) -> Sequence[m.Frame]:
        match command:
            case m.AppendAudio():
                return (f'{{"type":"session.input_audio.append","audio":"{command.base64}"}}',)
            case m.UpdateSession():
                return self._update(command)
            case m.GiveHistory(_, items):
                return [frame for item in items for frame in self._add(item)]
            case m.CreateItem(_, item, _):
                return self._add(item)
            case m.CreateReply():
                return self._ask(command)
            case m.CancelReply(ref, reply_id):
                self._turns.stop(reply_id)
                return self.tell("instructions", _STOP, ref=ref)
            case (
                m.DeleteItem()
                | m.TruncateItem()
                | m.CommitAudio()
                | m.ClearAudio()
                | m.StartActivity()
                | m.SoundPaused()
                | m.SendImage()
                | m.AbandonCall()
            ):
                return ()

    def tell(
        self,
        how: Told,
        text: str,
        *,
        delegation_id: str | None = None,
        ref: str | None = None,
        keep: bool = False,
    ) -> Sequence[m.Frame]:
        """Send a text to the model, in as many pieces as necessary.

        Args:
            how: see `Told`.
            text: the text.
            delegation_id: the task that it belongs to, if the application handles it.
            ref: names the first piece.
            keep: it stays in `unconfirmed` until the service has it.
        """
        frames: list[m.Frame] = []
        for number, piece in enumerate(append_pieces(text)):
            name = ref if ref and not number else self._new_id(f"{how}_")
            if keep:
                self.unconfirmed[name] = (how, piece)
                if len(self.unconfirmed) > _REMEMBERED:
                    del self.unconfirmed[next(iter(self.unconfirmed))]
            frames += _frame(
                f"session.{how}.append", name, content=piece, delegation_id=delegation_id
            )
        return frames

    def mute(self, *, muted: bool) -> Sequence[m.Frame]:
        """Whether the model hears the user."""
        kind = "mute" if muted else "unmute"
        return _frame(f"session.input_audio.{kind}", self._new_id(f"{kind}_"))

    def _update(self, command: m.UpdateSession) -> Sequence[m.Frame]:
        changed = backend(command.options or {}, command.tools)
        if self._delegation != "responses" or not changed:
            return ()  # the application has the tools
        return _frame(
            "session.update",
            command.ref,
            session={"delegation": {"type": "responses", "responses": changed}},
        )

    def _add(self, item: ChatItem) -> Sequence[m.Frame]:
        if isinstance(item, FunctionCallOutput):
            if item.call_id in self._backend.open_calls:
                frames: list[m.Frame] = []
                for fields in self._backend.answer(item):
                    frames += _frame(**fields, ref=self._new_id("result_"))
                return frames
            said = described(item, self._backend.names)
            # The call belongs to an earlier session, so no backend waits for its result.
            how: Told = "commentary" if item.reply_required else "thinking"
            return () if said is None else self.tell(how, said.text)
        said = described(item)
        if said is None:
            return ()
        if said.role == "developer" and isinstance(item, ChatMessage):
            return self.tell("instructions", said.text)
        if said.role == "user":
            self._typed = said.text
            return self.tell("thinking", f"The user has written: {said.text}")
        if said.role == "assistant":
            return self.tell("thinking", f"You have said to the user: {said.text}")
        return self.tell("thinking", said.text)

    def _ask(self, command: m.CreateReply) -> Sequence[m.Frame]:
        if command.tools is not None or command.tool_choice not in (None, "auto"):
            raise ConfigurationError(
                "generate_reply: the Live API takes no tools and no tool_choice for one reply; set "
                "them for the session"
            )
        frames = [frame for item in command.context for frame in self._add(item)]
        typed, self._typed = self._typed, ""
        if command.instructions:
            text = f"{_ANSWER_BY}\n{command.instructions}"
        else:
            text = f"{_ANSWER_TEXT}\n{typed}" if typed else _ANSWER
        self._turns.ask(command.ref)
        return [*frames, *self.tell("commentary", text, ref=command.ref)]

    def probe(self) -> Sequence[m.Frame]:
        return _frame("session.update", self._new_id("probe_"), session={})

    def farewell(self) -> Sequence[m.Frame]:
        return () if self._ended or not self._ready else _frame("session.close", "close")

    # -- events ------------------------------------------------------------------------------

    def receive(self, frame: m.Frame) -> Sequence[m.Event]:
        event = read_frame(frame, pieces=("delta",))
        if event is None or not isinstance(event.get("type"), str):
            self.skipped += 1
            return ()
        if event["type"] == "session.output_audio.delta":
            return self._sound(event)
        if self._repeated(event.get("event_id")):
            return ()
        return self._read(event["type"], event)

    def _repeated(self, event_id: object) -> bool:
        """Whether an event was sent before. Sound has no id."""
        if not isinstance(event_id, str):
            return False
        if event_id in self._event_ids:
            return True
        self._event_ids[event_id] = None
        if len(self._event_ids) > _REMEMBERED:
            self._event_ids.popitem(last=False)
        return False

    def _read(self, kind: str, event: dict[str, Any]) -> Sequence[m.Event]:
        match kind:
            case "session.output_transcript.delta":
                text = jsontext.as_text(event.get("delta"))
                return self._turns.words(text, _ms(event, "start_ms")) if text else ()
            case "session.input_transcript.delta":
                text = jsontext.as_text(event.get("delta"))
                if not text:
                    return ()
                return self._turns.heard(text, _ms(event, "start_ms"), _ms(event, "end_ms"))
            case "session.delegation.created":
                return self._delegated(event)
            case "response.event":
                calls, events = self._backend.read(event)
                return [m.Working(), *(self._turns.called(calls) if calls else ()), *events]
            case "session.started":
                return self._started(event)
            case "session.updated":
                ref = jsontext.as_text(event.get("client_event_id"))
                return (m.SettingsApplied(ref),) if ref else ()
            case "session.usage.updated":
                return self._used(event)
            case "session.closed":
                return self._closed(event)
            case "error":
                return self._error(event.get("error"))
            case _ if kind in _APPENDED:
                self.unconfirmed.pop(jsontext.as_text(event.get("client_event_id")), None)
                return ()
            case _:
                if kind not in _KNOWN:
                    self.skipped += 1
                return ()

    def _started(self, event: dict[str, Any]) -> Sequence[m.Event]:
        if self._ready:
            return ()
        self._ready = True
        session = jsontext.as_mapping(event.get("session")) or {}
        self.session_id = jsontext.as_text(session.get("id")) or None
        ends = session.get("expires_at")
        lasts = ends - self._now() if isinstance(ends, int | float) else None
        return (m.SessionReady(lasts if lasts is not None and lasts > 0 else None),)

    def _sound(self, event: dict[str, Any]) -> Sequence[m.Event]:
        delta = jsontext.as_text(event.get("delta"))
        if len(delta) > _MOST_SOUND:
            told = f"{len(delta)} characters of sound at once; at most {_MOST_SOUND} are played"
            return (m.ServiceFailed(WireError(told)),)
        try:
            data = binascii.a2b_base64(delta)
        except (binascii.Error, ValueError):
            data = b""
        if not data:
            self.skipped += 1
            return ()
        return self._turns.sound(data)

    def _delegated(self, event: dict[str, Any]) -> Sequence[m.Event]:
        delegation = jsontext.as_mapping(event.get("delegation")) or {}
        delegation_id = jsontext.as_text(delegation.get("id"))
        if not delegation_id:
            self.skipped += 1
            return ()
        if delegation.get("target") != "client" or delegation_id in self._delegations:
            return ()
        self._delegations[delegation_id] = None
        if len(self._delegations) > _REMEMBERED:
            del self._delegations[next(iter(self._delegations))]
        return (m.Delegated(delegation_id, self._turns.user_words),)

    def _used(self, event: dict[str, Any]) -> Sequence[m.Event]:
        usage = jsontext.as_mapping(event.get("usage")) or {}
        window = jsontext.as_mapping(event.get("context_window")) or {}
        ratio = window.get("usage_ratio")
        if isinstance(ratio, int | float):
            self.context_used = float(ratio)
        seconds = usage.get("seconds")
        if not isinstance(seconds, int | float) or not seconds > self.seconds:
            return ()
        more, self.seconds = seconds - self.seconds, float(seconds)
        return (m.UsageReported("", m.Usage(seconds=more)),)

    def _closed(self, event: dict[str, Any]) -> Sequence[m.Event]:
        self._ended = True
        reason = jsontext.as_text(event.get("reason")) or "no reason given"
        events = list(self._used(event))
        if reason == "content":
            error = APIError(
                "the service ended the session: its safety filter objects to the conversation",
                body=event,
                retryable=False,
            )
            return [*events, m.ServiceFailed(error, fatal=True, code=reason)]
        return [*events, m.SessionEnded(f"the service ended the session: {reason}")]

    def _error(self, raw: object) -> Sequence[m.Event]:
        error, fatal, code = api_error(raw, "the service reported an error")
        fields = jsontext.as_mapping(raw) or {}
        ref = jsontext.as_text(fields.get("client_event_id"))
        if ref == self._open_ref and ref and not self._ready:
            fatal = fatal or fields.get("type") == "invalid_request_error"
            return (refused_setup(error, fatal=fatal, code=code),)
        if fatal or not ref:
            return (m.ServiceFailed(error, fatal=fatal, code=code),)
        self.unconfirmed.pop(ref, None)
        self._turns.refused(ref)
        return (m.Refused(ref, error, code, harmless=ref.startswith(("probe_", "cancel_"))),)

    def closed(self, code: int | None, reason: str) -> m.ServiceFailed | None:
        return None if self._ready else closed_in_setup(self._model, code, reason)


def _frame(type: str, ref: str, **fields: Any) -> tuple[str]:
    return (jsontext.encode({"type": type, "event_id": ref, **fields}).decode(),)


def _ms(event: dict[str, Any], name: str) -> float | None:
    value = event.get(name)
    return float(value) if isinstance(value, int | float) and 0 <= value < 1e12 else None
