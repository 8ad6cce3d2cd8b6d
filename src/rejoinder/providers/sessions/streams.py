"""A reply as its consumer receives it: streams of messages, text, sound and calls."""

from __future__ import annotations

import asyncio
from typing import Final, Literal, TypeAlias

from rejoinder import _stamps
from rejoinder._aio import Chan
from rejoinder._core import jsontext
from rejoinder._core.items import FunctionCall
from rejoinder._core.realtime import messages as m
from rejoinder._core.realtime.heard import SpokenMessage
from rejoinder._core.realtime.messages import ReplyStatus, Usage, UsageReported
from rejoinder.errors import WireError
from rejoinder.llm.realtime import GenerationCreatedEvent, MessageGeneration
from rejoinder.media import AudioFrame
from rejoinder.metrics import Metadata, RealtimeModelMetrics
from rejoinder.providers.sessions.costs import cost_of_reply
from rejoinder.providers.sessions.spans import ReplySpan

__all__ = ["Message", "Reply", "connection_metrics", "usage_metrics"]

Part: TypeAlias = m.AudioDelta | m.TextDelta | m.MessageStarted | m.ModalityKnown | m.MessageEnded
"""The modalities of a message."""

_MAX_UNREAD: Final = 1 << 25
"""Bytes of a reply that may wait to be read: about eleven minutes of sound."""
_MAX_TEXT: Final = 1 << 20
"""Characters of a reply, which is kept as a whole: more than half a day of speech."""
_MAX_MESSAGES: Final = 1 << 10
_PIECE: Final = 512
"""Bytes that a piece of text or sound takes at least, and a call."""
_RECOUNT: Final = 1 << 22
"""Bytes of new output after which the unread bytes are counted again."""


class Message:
    """One message of a reply, open or ended."""

    __slots__ = ("_half", "_odd", "audio", "item_id", "modalities", "rate", "spoken", "text")

    def __init__(self, item_id: str, sample_rate: int) -> None:
        self.item_id = item_id
        self.rate = sample_rate
        self.text: Chan[str] = Chan()
        self.audio: Chan[AudioFrame] = Chan()
        self.modalities: asyncio.Future[list[Literal["text", "audio"]]] = (
            asyncio.get_running_loop().create_future()
        )
        self.spoken = SpokenMessage(sample_rate)
        self._odd = b""
        self._half = ""

    @property
    def unread(self) -> int:
        """Bytes that wait to be read, roughly."""
        sound = sum(2 * frame.samples_per_channel for frame in self.audio.unread)
        return sound + _PIECE * (len(self.audio) + len(self.text))

    def know_modality(self, audio: bool) -> None:
        if not self.modalities.done():
            self.modalities.set_result(["audio", "text"] if audio else ["text"])
            if not audio:
                self.audio.close()

    def add_text(self, text: str, start_time: float | None) -> None:
        if self._half or not text.isascii():
            text, self._half = jsontext.join_halves(self._half, text)
            if not text:
                return
        self.spoken.add_text(text, start_time)
        if not self.text.closed:
            self.text.send_nowait(text)

    def add_audio(self, data: bytes) -> None:
        self.know_modality(audio=True)
        if self._odd or len(data) % 2:  # an incomplete sample waits for its second byte
            data = self._odd + data
            whole = len(data) & ~1
            data, self._odd = data[:whole], data[whole:]
        if not data:
            return
        self.spoken.add_audio(len(data))
        if not self.audio.closed:
            self.audio.send_nowait(AudioFrame(data, self.rate, 1, len(data) // 2))

    def end(self, text: str | None = None) -> None:
        """No more parts follow. `text`: the whole text, as the service repeats it."""
        half, self._half = self._half, ""
        if half and text is None:
            self.add_text("\ufffd", None)
        if text is not None and text != self.spoken.text and not self.spoken.is_cut:
            rest = text.removeprefix(self.spoken.text)
            if rest != text or not self.spoken.text:
                self.add_text(rest, None)
            else:
                self.spoken.replace_text(text)
        self.know_modality(audio=self.spoken.received_ms > 0)
        self.text.close()
        self.audio.close()


class Reply:
    """One reply, from its beginning to its end."""

    def __init__(self, reply_id: str, *, asked: bool, sample_rate: int, span: ReplySpan) -> None:
        loop = asyncio.get_running_loop()
        self.reply_id = reply_id
        self._rate = sample_rate
        self._messages: Chan[MessageGeneration] = Chan()
        self._calls: Chan[FunctionCall] = Chan()
        self._open: dict[str, Message] = {}
        self._text = 0
        self._uncounted = 0
        self._began = loop.time()
        self._created_at = _stamps.wall_now()
        self._ttft = -1.0
        self._span = span
        self.usage: Usage | None = None
        """Its tokens, if they are known at its end."""
        self.outcome: asyncio.Future[ReplyStatus] = loop.create_future()
        self.event = GenerationCreatedEvent(
            message_stream=self._messages,
            function_stream=self._calls,
            user_initiated=asked,
            response_id=reply_id,
            outcome=self.outcome,
        )

    @property
    def messages(self) -> list[Message]:
        """Its messages so far, in order."""
        return list(self._open.values())

    def message(self, item_id: str) -> Message:
        """The message of this id, begun if it is new."""
        known = self._open.get(item_id)
        if known is None:
            known = self._open[item_id] = Message(item_id, self._rate)
            self._messages.send_nowait(
                MessageGeneration(
                    message_id=item_id,
                    text_stream=known.text,
                    audio_stream=known.audio,
                    modalities=known.modalities,
                )
            )
        return known

    def take(self, part: Part) -> Message:
        """Add a part. Return its message.

        Raises:
            WireError: the reply exceeds a limit.
        """
        message = self.message(part.item_id)
        match part:
            case m.AudioDelta():
                self.produced()
                self._count(len(part.data))
                message.add_audio(part.data)
            case m.TextDelta():
                self.produced()
                self._count(0, len(part.text))
                message.add_text(part.text, part.start_time)
            case m.ModalityKnown():
                message.know_modality(part.audio)
            case m.MessageEnded():
                self._count(0, len(part.text or ""))
                message.end(part.text)
            case m.MessageStarted():
                pass
        return message

    def produced(self) -> None:
        """Output arrived; the first one determines the latency."""
        if self._ttft < 0:
            self._ttft = asyncio.get_running_loop().time() - self._began

    def _count(self, size: int, characters: int = 0) -> None:
        """Raises:
        WireError: the reply would exceed a limit.
        """
        self._text += characters
        self._uncounted += size + _PIECE
        if self._text > _MAX_TEXT:
            raise WireError(f"one reply holds more than {_MAX_TEXT:,} characters of text")
        if len(self._open) > _MAX_MESSAGES:
            raise WireError(f"one reply holds more than {_MAX_MESSAGES:,} messages")
        if self._uncounted > _RECOUNT:
            self._uncounted = 0
            unread = sum(message.unread for message in self._open.values())
            unread += sum(len(call.arguments) + _PIECE for call in self._calls.unread)
            if unread > _MAX_UNREAD:
                raise WireError(f"more than {_MAX_UNREAD >> 20} MB of one reply wait to be read")

    def call(self, call: FunctionCall) -> None:
        """Add a call.

        Raises:
            WireError: the reply exceeds a limit.
        """
        self.produced()
        self._count(len(call.arguments))
        self._calls.send_nowait(call)

    def end(self, status: ReplyStatus) -> None:
        """End all of its streams. Idempotent."""
        if self.outcome.done():
            return
        for message in self._open.values():
            message.end()
        self._messages.close()
        self._calls.close()
        self._span.end(status, self.usage)
        self.outcome.set_result(status)

    def metrics(self, label: str, metadata: Metadata, status: ReplyStatus) -> RealtimeModelMetrics:
        duration = asyncio.get_running_loop().time() - self._began
        usage = self.usage or Usage()
        return RealtimeModelMetrics(
            label=label,
            request_id=self.reply_id,
            timestamp=self._created_at,
            duration=duration,
            ttft=self._ttft,
            cancelled=status in ("cancelled", "interrupted"),
            input_tokens=usage.input_tokens,
            output_tokens=usage.output_tokens,
            total_tokens=usage.total_tokens,
            tokens_per_second=usage.output_tokens / duration if duration > 0 else 0.0,
            input_token_details=usage.input_details,
            output_token_details=usage.output_details,
            metadata=metadata,
            cost=cost_of_reply(metadata, usage, self._created_at),
        )


def connection_metrics(label: str, metadata: Metadata, acquire_time: float) -> RealtimeModelMetrics:
    """The metrics of opening a connection, which costs no tokens."""
    return RealtimeModelMetrics(
        label=label,
        request_id="",
        timestamp=_stamps.wall_now(),
        input_token_details=RealtimeModelMetrics.InputTokenDetails(),
        output_token_details=RealtimeModelMetrics.OutputTokenDetails(),
        metadata=metadata,
        acquire_time=acquire_time,
    )


def usage_metrics(label: str, metadata: Metadata, event: UsageReported) -> RealtimeModelMetrics:
    """The metrics of tokens used outside a reply."""
    usage = event.usage
    now = _stamps.wall_now()
    return RealtimeModelMetrics(
        label=label,
        request_id=event.reply_id,
        timestamp=now,
        input_tokens=usage.input_tokens,
        output_tokens=usage.output_tokens,
        total_tokens=usage.total_tokens,
        input_token_details=usage.input_details,
        output_token_details=usage.output_details,
        metadata=metadata,
        session_duration=usage.seconds,
        cost=cost_of_reply(metadata, usage, now),
    )
