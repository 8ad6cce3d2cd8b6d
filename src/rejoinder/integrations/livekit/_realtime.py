"""A `rejoinder` speech-to-speech model as a LiveKit one."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterable, AsyncIterator, Callable
from dataclasses import fields
from typing import Any, TypeVar

from livekit import rtc
from livekit.agents import llm as lk
from livekit.agents import metrics as their_metrics
from livekit.agents.types import NOT_GIVEN as THEIR_NOT_GIVEN

from rejoinder import errors
from rejoinder._foreign import read
from rejoinder.integrations.livekit._context import (
    context_from_livekit,
    context_to_livekit,
    error_to_livekit,
    item_to_livekit,
    tools_from_livekit,
)
from rejoinder.llm import realtime as ours
from rejoinder.media import AudioFrame, audio_bytes
from rejoinder.metrics import RealtimeModelMetrics, STTMetrics
from rejoinder.types import NOT_GIVEN

__all__ = ["RealtimeModel", "RealtimeSession"]

T = TypeVar("T")

_CAPABILITIES = frozenset(field.name for field in fields(lk.RealtimeCapabilities))
_RemoteItemAdded: Any = read(lk, "RemoteItemAddedEvent")  # 1.2.17 has none
_TRANSCRIPT = frozenset(field.name for field in fields(lk.InputTranscriptionCompleted))


class RealtimeModel(lk.RealtimeModel):
    """Any `rejoinder` speech-to-speech model, usable wherever LiveKit takes a ``RealtimeModel``.

        session = AgentSession(llm=RealtimeModel(any_rejoinder_realtime_model))

    Connections, reconnection, deadlines and fallback are those of `model`. Closing the adapter closes
    `model`.

    Args:
        model: the model, for instance `rejoinder.providers.openai.realtime.RealtimeModel` or a
            `rejoinder.llm.RealtimeModelFallbackAdapter`.

    Raises:
        TypeError: `model` is not a `rejoinder` realtime model.
    """

    def __init__(self, model: ours.RealtimeModel) -> None:
        given: object = model
        if not isinstance(given, ours.RealtimeModel):
            raise TypeError(
                "integrations.livekit.RealtimeModel: expected a rejoinder.llm.RealtimeModel, got "
                f"{type(given).__name__}"
            )
        self._inner = model
        super().__init__(capabilities=_capabilities(model.capabilities))

    @property
    def capabilities(self) -> lk.RealtimeCapabilities:
        return _capabilities(self._inner.capabilities)

    @property
    def model(self) -> str:
        return self._inner.model

    @property
    def provider(self) -> str:
        return self._inner.provider

    @property
    def metrics_metadata(self) -> Any:
        """The origin that metrics report: model and provider."""
        return self._inner.metrics_metadata

    def session(self, *, turn_detection_disabled: bool = False) -> RealtimeSession:
        """A new session, which connects by itself. Needs a running event loop."""
        return RealtimeSession(self, turn_detection_disabled=turn_detection_disabled)

    async def aclose(self) -> None:
        """Close the model and its sessions."""
        await self._inner.aclose()


class RealtimeSession(lk.RealtimeSession[str]):
    """A session of a `rejoinder` model as a session of LiveKit.

    Its events are LiveKit's. A handler for any other event of the inner session, such as
    ``"openai_server_event_received"``, receives that event unchanged.
    """

    def __init__(self, model: RealtimeModel, *, turn_detection_disabled: bool = False) -> None:
        super().__init__(model)
        self._inner = model._inner.session(turn_detection_disabled=turn_detection_disabled)
        self._tools = lk.ToolContext([])
        self._forwarded: set[str] = set()
        handlers: dict[str, Callable[[Any], None]] = {
            "input_speech_started": self._pass_on("input_speech_started", _speech_started),
            "input_speech_stopped": self._pass_on("input_speech_stopped", _speech_stopped),
            "input_audio_transcription_completed": self._pass_on(
                "input_audio_transcription_completed", _transcript
            ),
            "generation_created": self._pass_on("generation_created", _generation),
            "session_reconnected": self._pass_on("session_reconnected", _reconnected),
            "remote_item_added": self._remote_item_added,
            "metrics_collected": self._metrics_collected,
            "error": self._failed,
        }
        for event, handler in handlers.items():
            self._forwarded.add(event)
            self._inner.on(event, handler)

    # -- events --------------------------------------------------------------------------------

    def on(self, event: Any, callback: Any = None) -> Any:
        if event not in self._forwarded:
            self._forwarded.add(event)
            self._inner.on(event, self._pass_on(event, None))
        mine: Any = super()
        return mine.on(event, callback)

    def _pass_on(self, event: Any, convert: Callable[[Any], Any] | None) -> Callable[..., None]:
        def handler(*payload: Any) -> None:
            self.emit(event, *(payload if convert is None else map(convert, payload)))

        return handler

    def _remote_item_added(self, event: ours.RemoteItemAddedEvent) -> None:
        item = item_to_livekit(event.item)
        if _RemoteItemAdded is not None and item is not None:
            made = _RemoteItemAdded(previous_item_id=event.previous_item_id, item=item)
            self.emit("remote_item_added", made)

    def _metrics_collected(self, metrics: Any) -> None:
        made = _metrics(metrics, self._realtime_model.label)
        if made is not None:
            self.emit("metrics_collected", made)

    def _failed(self, event: ours.RealtimeModelError) -> None:
        self.emit(
            "error",
            lk.RealtimeModelError(
                timestamp=event.timestamp,
                label=self._realtime_model.label,
                error=_their_error(event.error),
                recoverable=event.recoverable,
            ),
        )

    # -- the conversation ------------------------------------------------------------------------

    @property
    def capabilities(self) -> lk.RealtimeCapabilities:
        return _capabilities(self._inner.capabilities)

    @property
    def chat_ctx(self) -> lk.ChatContext:
        """The conversation as the provider holds it; a copy."""
        return context_to_livekit(self._inner.chat_ctx)

    @property
    def tools(self) -> lk.ToolContext:
        return self._tools

    async def update_instructions(self, instructions: str) -> None:
        await _translated(self._inner.update_instructions(instructions))

    async def update_chat_ctx(self, chat_ctx: lk.ChatContext) -> None:
        await _translated(self._inner.update_chat_ctx(context_from_livekit(chat_ctx)))

    async def update_tools(self, tools: list[Any]) -> None:
        made: Any = lk.ToolContext(tools)
        await _translated(self._inner.update_tools(tools_from_livekit(tools)))
        self._tools = made

    def update_options(self, *, tool_choice: Any = THEIR_NOT_GIVEN) -> None:
        self._inner.update_options(tool_choice=_given(tool_choice))

    def push_audio(self, frame: rtc.AudioFrame) -> None:
        sound: Any = frame  # recognised by its shape, and not copied
        self._inner.push_audio(sound)

    def push_video(self, frame: rtc.VideoFrame) -> None:
        picture: Any = frame  # likewise
        self._inner.push_video(picture)

    def commit_audio(self) -> None:
        self._inner.commit_audio()

    def clear_audio(self) -> None:
        self._inner.clear_audio()

    # -- replies ---------------------------------------------------------------------------------

    def generate_reply(
        self,
        *,
        instructions: Any = THEIR_NOT_GIVEN,
        tool_choice: Any = THEIR_NOT_GIVEN,
        tools: Any = THEIR_NOT_GIVEN,
    ) -> asyncio.Future[lk.GenerationCreatedEvent]:
        """Ask for a reply. The future fails with LiveKit's ``RealtimeError``; cancelling it cancels
        the reply."""
        options: dict[str, Any] = {"instructions": _given(instructions)}
        if tool_choice is not THEIR_NOT_GIVEN:
            options["tool_choice"] = tool_choice
        if tools is not THEIR_NOT_GIVEN:
            options["tools"] = tools_from_livekit(tools)
        return self._asked(self._inner.generate_reply(**options))

    def say(self, text: str | AsyncIterable[str]) -> asyncio.Future[lk.GenerationCreatedEvent]:
        return self._asked(self._inner.say(text))

    def _asked(
        self, reply: asyncio.Future[ours.GenerationCreatedEvent]
    ) -> asyncio.Future[lk.GenerationCreatedEvent]:
        made: asyncio.Future[lk.GenerationCreatedEvent] = reply.get_loop().create_future()

        def begun(reply: asyncio.Future[ours.GenerationCreatedEvent]) -> None:
            if made.cancelled():
                if not reply.cancelled() and reply.exception() is None:
                    self._inner.interrupt()  # it began while the caller gave up
            elif reply.cancelled():
                made.cancel()
            elif (error := reply.exception()) is not None:
                made.set_exception(_their_error(error))
            else:
                made.set_result(_generation(reply.result()))

        def given_up(made: asyncio.Future[lk.GenerationCreatedEvent]) -> None:
            if made.cancelled():
                reply.cancel()

        reply.add_done_callback(begun)
        made.add_done_callback(given_up)
        return made

    def interrupt(self) -> None:
        self._inner.interrupt()

    def truncate(
        self,
        *,
        message_id: str,
        modalities: list[Any],
        audio_end_ms: int,
        audio_transcript: Any = THEIR_NOT_GIVEN,
    ) -> None:
        self._inner.truncate(
            message_id=message_id,
            modalities=modalities,
            audio_end_ms=audio_end_ms,
            audio_transcript=_given(audio_transcript),
        )

    def start_user_activity(self) -> None:
        self._inner.start_user_activity()

    async def aclose(self) -> None:
        await self._inner.aclose()


# -- values ------------------------------------------------------------------------------------------


def _given(value: Any) -> Any:
    return NOT_GIVEN if value is THEIR_NOT_GIVEN else value


def _capabilities(found: ours.RealtimeCapabilities) -> lk.RealtimeCapabilities:
    return lk.RealtimeCapabilities(
        **{name: value for name, value in found.__dict__.items() if name in _CAPABILITIES}
    )


def _speech_started(_: Any) -> lk.InputSpeechStartedEvent:
    return lk.InputSpeechStartedEvent()


def _speech_stopped(event: ours.InputSpeechStoppedEvent) -> lk.InputSpeechStoppedEvent:
    return lk.InputSpeechStoppedEvent(event.user_transcription_enabled)


def _reconnected(_: Any) -> lk.RealtimeSessionReconnectedEvent:
    return lk.RealtimeSessionReconnectedEvent()


def _transcript(event: ours.InputTranscriptionCompleted) -> lk.InputTranscriptionCompleted:
    return lk.InputTranscriptionCompleted(
        **{name: value for name, value in event.__dict__.items() if name in _TRANSCRIPT}
    )


def _generation(event: ours.GenerationCreatedEvent) -> lk.GenerationCreatedEvent:
    return lk.GenerationCreatedEvent(
        message_stream=_mapped(event.message_stream, _message),
        function_stream=_mapped(event.function_stream, item_to_livekit),
        user_initiated=event.user_initiated,
        response_id=event.response_id,
    )


def _message(message: ours.MessageGeneration) -> lk.MessageGeneration:
    return lk.MessageGeneration(
        message_id=message.message_id,
        text_stream=message.text_stream,
        audio_stream=_mapped(message.audio_stream, _frame),
        modalities=message.modalities,
    )


def _frame(frame: AudioFrame) -> rtc.AudioFrame:
    return rtc.AudioFrame(
        audio_bytes(frame), frame.sample_rate, frame.num_channels, frame.samples_per_channel
    )


async def _mapped(stream: AsyncIterable[Any], convert: Callable[[Any], T]) -> AsyncIterator[T]:
    async for value in stream:
        yield convert(value)


def _metrics(metrics: Any, label: str) -> Any:
    """The figures as LiveKit's metrics; ``None`` for a kind that LiveKit does not have."""
    if isinstance(metrics, RealtimeModelMetrics):
        kind: Any = their_metrics.RealtimeModelMetrics
    elif isinstance(metrics, STTMetrics):
        kind = their_metrics.STTMetrics
    else:
        return None
    known = kind.model_fields
    found = {name: value for name, value in metrics.model_dump().items() if name in known}
    return kind(**{**found, "label": label})


def _their_error(error: BaseException) -> Exception:
    if isinstance(error, errors.APIError):
        return error_to_livekit(error)
    if isinstance(error, ours.RealtimeError):
        made: Any = lk.RealtimeError(str(error))
        made.code = error.code  # 1.2.17 takes no code
        return made
    return error if isinstance(error, Exception) else RuntimeError(str(error))


async def _translated(work: Any) -> None:
    try:
        await work
    except ours.RealtimeError as error:
        raise _their_error(error) from error
