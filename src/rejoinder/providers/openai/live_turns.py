"""Divides a session of the Live API into turns. The API itself sends one continuous stream in each
direction, without turns. Pure.

The service sends continuous sound, and fragments of transcripts with their place on the session's
timeline. The model's reply lasts as long as its sound is audible; the amount of sound received serves
as the clock. A turn of the user ends when no fragment has arrived for a while.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from rejoinder._core.items import ChatMessage, FunctionCall
from rejoinder._core.realtime import messages as m
from rejoinder._core.realtime.gate import SilenceGate

__all__ = ["LiveTurns"]

_PAUSE_MS: Final = 800
"""Milliseconds of silence that end a turn: without words for the user, without sound for the model.
LiveKit Agents 1.8 uses the same time."""
_AHEAD_MS: Final = 300
"""Milliseconds by which words are passed on before their sound; transcripts run ahead of the sound."""
_UNCLAIMED_MS: Final = 2000
"""Milliseconds after which words without any sound are passed on as text."""


@dataclass(slots=True)
class _Words:
    text: str
    start_ms: float | None


@dataclass(slots=True)
class _Speech:
    """One reply: its place in the sound of the session."""

    reply_id: str
    message_id: str
    began_ms: float
    until_ms: float
    offset_ms: float | None = None
    """Transcript time minus sound time; known from the first words."""
    stopped: bool = False
    """The application discarded it."""


@dataclass(slots=True)
class _User:
    item_id: str
    text: str
    until_ms: float | None
    at_ms: float


class LiveTurns:
    """Sound and transcripts in, replies and turns out.

    Args:
        sample_rate: samples a second of the model's sound.
        new_id: makes an id with a prefix.

    Attributes:
        asked: reference of the request that has no reply yet.
    """

    def __init__(self, sample_rate: int, new_id: Callable[[str], str]) -> None:
        self._new_id = new_id
        self._bytes_per_ms = sample_rate * 2 / 1000
        self._gate = SilenceGate(sample_rate, pause_ms=_PAUSE_MS)
        self._rest = b""
        self._clock = 0.0
        self._speech: _Speech | None = None
        self._last: _Speech | None = None
        self._words: deque[_Words] = deque()
        self._waiting_since = 0.0
        self._user: _User | None = None
        self.asked: str | None = None

    @property
    def user_words(self) -> str:
        """The user's speech in the current turn."""
        return "" if self._user is None else self._user.text

    def ask(self, ref: str) -> None:
        """The application requests a reply. This ends speech that the application has stopped; what
        follows is the answer."""
        self.asked = ref
        if self._speech is not None and self._speech.stopped:
            self._last, self._speech = self._speech, None
            self._gate.close()

    def refused(self, ref: str) -> None:
        """The service refused the request."""
        if self.asked == ref:
            self.asked = None

    def stop(self, reply_id: str) -> None:
        """The application discards this reply. Its words do not enter the conversation."""
        for speech in (self._speech, self._last):
            if speech is not None and speech.reply_id == reply_id:
                speech.stopped = True

    # -- the model ---------------------------------------------------------------------------

    def sound(self, data: bytes) -> list[m.Event]:
        """Sound of the model, its silence included."""
        events: list[m.Event] = [m.SoundMade(data)]
        data = self._rest + data
        size = self._gate.window_bytes
        whole = len(data) - len(data) % size
        played = bytearray()
        for at in range(0, whole, size):
            was_open = self._gate.open
            heard = self._gate.feed(data[at : at + size])
            self._clock += self._gate.WINDOW_MS
            if heard:
                if not was_open:
                    events += self._begin(self._clock - len(heard) / self._bytes_per_ms)
                played += heard
            else:
                if was_open:
                    events += self._play(played)
                    events += self._end()
                events += self._quiet()
            if self._user is not None and self._clock - self._user.at_ms >= _PAUSE_MS:
                events += self._user_ends()
        self._rest = data[whole:]
        return events + self._play(played)

    def words(self, text: str, start_ms: float | None) -> list[m.Event]:
        """Words of the model, with their place on the timeline of the session."""
        if not self._words:
            self._waiting_since = self._clock
        self._words.append(_Words(text, start_ms))
        return self._late() + self._due()

    def _begin(self, at_ms: float, *, audio: bool = True) -> list[m.Event]:
        reply_id = self._new_id("GL_")
        self._speech = _Speech(reply_id, reply_id, at_ms, at_ms)
        ref, self.asked = self.asked, None
        message = ChatMessage(id=reply_id, role="assistant", content=[])
        return [
            m.ReplyStarted(reply_id, ref),
            m.MessageStarted(reply_id, reply_id),
            m.ItemAdded(message, None, at_tail=True),
            m.ModalityKnown(reply_id, reply_id, audio),
        ]

    def _play(self, played: bytearray) -> list[m.Event]:
        speech = self._speech
        if speech is None:
            return []
        events: list[m.Event] = []
        if played:
            speech.until_ms += len(played) / self._bytes_per_ms
            events.append(m.AudioDelta(speech.reply_id, speech.message_id, bytes(played)))
            played.clear()
        return events + self._due()

    def _end(self) -> list[m.Event]:
        speech, self._speech = self._speech, None
        if speech is None:
            return []
        self._last = speech
        self._waiting_since = self._clock
        return [
            m.MessageEnded(speech.reply_id, speech.message_id),
            m.ReplyEnded(speech.reply_id, "completed"),
        ]

    def _due(self) -> list[m.Event]:
        """The words whose sound has come, or is about to."""
        speech = self._speech
        events: list[m.Event] = []
        while speech is not None and self._words:
            first = self._words[0]
            start: float | None = None
            if first.start_ms is not None:
                if speech.offset_ms is None:
                    speech.offset_ms = first.start_ms - speech.began_ms
                place = first.start_ms - speech.offset_ms
                if place > speech.until_ms + _AHEAD_MS:
                    break
                start = max(0.0, place - speech.began_ms) / 1000
            self._words.popleft()
            events.append(m.TextDelta(speech.reply_id, speech.message_id, first.text, start))
        return events

    def _late(self) -> list[m.Event]:
        """Words whose sound the last reply has already played."""
        last = self._last
        events: list[m.Event] = []
        while last is not None and last.offset_ms is not None and self._words:
            first = self._words[0]
            if first.start_ms is None or first.start_ms - last.offset_ms > last.until_ms:
                break
            self._words.popleft()
            if not last.stopped:
                events.append(m.TextAppended(last.message_id, first.text))
        return events

    def _quiet(self) -> list[m.Event]:
        """Turn words without sound into a text reply, so that they are not lost."""
        if not self._words or self._clock - self._waiting_since < _UNCLAIMED_MS:
            return []
        events = self._begin(self._clock, audio=False)
        speech = self._speech
        if speech is None:
            return events
        while self._words:
            text = self._words.popleft().text
            events.append(m.TextDelta(speech.reply_id, speech.message_id, text))
        return events + self._end()

    def called(self, calls: list[FunctionCall]) -> list[m.Event]:
        """Calls of the backend. They join the current reply, or form a reply without words."""
        speech = self._speech
        joined = speech is not None and not speech.stopped
        reply_id = speech.reply_id if speech is not None and joined else self._new_id("GL_")
        events: list[m.Event] = [] if joined else [m.ReplyStarted(reply_id)]
        for call in calls:
            events += [
                m.ItemAdded(call, None, at_tail=True),
                m.ToolCalled(reply_id, call, waits=True),
            ]
        return events if joined else [*events, m.ReplyEnded(reply_id, "completed")]

    # -- the user ----------------------------------------------------------------------------

    def heard(self, text: str, start_ms: float | None, end_ms: float | None) -> list[m.Event]:
        """Words of the user, with their place on the timeline of the session."""
        events: list[m.Event] = []
        user = self._user
        if (
            user is not None
            and user.until_ms is not None
            and start_ms is not None
            and start_ms - user.until_ms > _PAUSE_MS
        ):
            events += self._user_ends()
            user = None
        if user is None:
            user = self._user = _User(self._new_id("GL_"), "", None, self._clock)
            message = ChatMessage(id=user.item_id, role="user", content=[])
            events += [
                m.SpeechStarted(user.item_id),
                m.ItemAdded(message, None, at_tail=True),
            ]
        user.text += text if user.text else text.lstrip()
        user.at_ms = self._clock
        if end_ms is not None:
            user.until_ms = max(user.until_ms or 0.0, end_ms)
        return [*events, m.Transcript(user.item_id, user.text, final=False)]

    def _user_ends(self) -> list[m.Event]:
        user, self._user = self._user, None
        if user is None:
            return []
        return [
            m.SpeechStopped(user.item_id),
            m.AudioCommitted(user.item_id, None),
            m.Transcript(user.item_id, user.text, final=True),
        ]
