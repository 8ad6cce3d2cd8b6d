"""The interface of speech-to-speech models, and the events they emit.

A `RealtimeModel` makes sessions; a `RealtimeSession` is one live conversation. Both are abstract
classes: an incomplete subclass cannot be instantiated.
"""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from collections.abc import AsyncIterable, Awaitable
from dataclasses import dataclass
from types import TracebackType
from typing import TYPE_CHECKING, Any, Generic, Literal, Self, TypeAlias, TypeVar

from pydantic import BaseModel, ConfigDict, Field

from rejoinder import _stamps
from rejoinder._core.realtime.messages import ReplyStatus
from rejoinder._emitter import EventEmitter
from rejoinder.llm.chat_context import ChatContext, ChatItem, FunctionCall
from rejoinder.media import AudioFrame, VideoFrame
from rejoinder.types import NOT_GIVEN, NotGivenOr

if TYPE_CHECKING:
    from rejoinder.llm.tool_context import ToolChoice, ToolContext

__all__ = [
    "EventTypes",
    "GenerationCreatedEvent",
    "InputSpeechStartedEvent",
    "InputSpeechStoppedEvent",
    "InputTranscriptionCompleted",
    "MessageGeneration",
    "RealtimeCapabilities",
    "RealtimeError",
    "RealtimeModel",
    "RealtimeModelError",
    "RealtimeSession",
    "RealtimeSessionReconnectedEvent",
    "RemoteItemAddedEvent",
    "ReplyStatus",
]

TEvent = TypeVar("TEvent")

EventTypes: TypeAlias = Literal[
    "input_speech_started",
    "input_speech_stopped",
    "input_audio_transcription_completed",
    "generation_created",
    "session_reconnected",
    "metrics_collected",
    "remote_item_added",
    "error",
]
"""Names of the events of every session."""


@dataclass
class InputSpeechStartedEvent:
    """``"input_speech_started"``: the provider hears the user speak."""


@dataclass
class InputSpeechStoppedEvent:
    """``"input_speech_stopped"``: the provider heard the user stop."""

    user_transcription_enabled: bool
    """Whether a transcript of the user's words will follow."""


@dataclass
class MessageGeneration:
    """One message in progress; its parts arrive while the model speaks."""

    message_id: str
    text_stream: AsyncIterable[str]
    """The text, or the transcript of the sound."""
    audio_stream: AsyncIterable[AudioFrame]
    modalities: Awaitable[list[Literal["text", "audio"]]]
    """The modalities of the message; known once its first part has arrived."""


@dataclass
class GenerationCreatedEvent:
    """``"generation_created"``: the model began to answer."""

    message_stream: AsyncIterable[MessageGeneration]
    function_stream: AsyncIterable[FunctionCall]
    user_initiated: bool
    """`RealtimeSession.generate_reply` requested the answer; otherwise the model began by
    itself."""
    response_id: str | None = None
    """The provider's own id of the answer."""
    outcome: Awaitable[ReplyStatus] | None = None
    """How the answer ended; known when its streams have ended. ``None`` if the model does not
    report it."""


@dataclass
class InputTranscriptionCompleted:
    """``"input_audio_transcription_completed"``: the transcript of the user's words."""

    item_id: str
    """Id of the user's message in the conversation."""
    transcript: str
    is_final: bool
    """False while the text can still change."""
    confidence: float | None = None
    """0 to 1, if the provider reports it."""
    turn_started_at: float | None = None
    """When the user began to speak, seconds since the epoch."""


@dataclass
class RealtimeSessionReconnectedEvent:
    """``"session_reconnected"``: the connection was lost and is back, with its history."""


@dataclass
class RemoteItemAddedEvent:
    """``"remote_item_added"``: the provider put an item into its conversation."""

    previous_item_id: str | None
    """The item it follows; ``None`` at the head."""
    item: ChatItem


@dataclass
class RealtimeCapabilities:
    """The capabilities of a model."""

    message_truncation: bool
    """The unheard part of a message can be cut off."""
    turn_detection: bool
    """The provider decides when the user has finished."""
    user_transcription: bool
    """The provider transcribes the user's speech."""
    auto_tool_reply_generation: bool
    """The model continues by itself after a tool output."""
    audio_output: bool
    manual_function_calls: bool
    """Calls and outputs can be put into the history."""
    can_disable_turn_detection: bool = False
    """`RealtimeModel.session` accepts `turn_detection_disabled`."""
    mutable_chat_context: bool = False
    """The history can be changed while the session runs."""
    mutable_instructions: bool = False
    mutable_tools: bool = False
    per_response_tool_choice: bool = False
    """`RealtimeSession.generate_reply` accepts `tool_choice` and `tools`."""
    supports_say: bool = False
    """`RealtimeSession.say` works."""
    supports_overlapping_speech: bool = False
    """The model listens while it speaks, and decides itself when to speak."""


class RealtimeError(Exception):
    """An operation of a session failed, for example because of a timeout.

    Attributes:
        code: the provider's own error code, if it sent one.
    """

    def __init__(self, message: str, *, code: str | None = None) -> None:
        super().__init__(message)
        self.code = code


class RealtimeModelError(BaseModel):
    """Payload of the event ``"error"``."""

    model_config = ConfigDict(arbitrary_types_allowed=True, defer_build=True)

    type: Literal["realtime_model_error"] = "realtime_model_error"
    timestamp: float
    """Seconds since the epoch."""
    label: str
    error: Exception = Field(..., exclude=True)
    recoverable: bool
    """True while the session continues."""


def error_event(label: str, error: Exception, *, recoverable: bool) -> RealtimeModelError:
    """The event for an error that occurs now."""
    return RealtimeModelError(
        timestamp=_stamps.wall_now(), label=label, error=error, recoverable=recoverable
    )


class RealtimeModel(ABC):
    """A speech-to-speech model. Makes sessions."""

    def __init__(self, *, capabilities: RealtimeCapabilities) -> None:
        self._capabilities = capabilities
        self._label = f"{type(self).__module__}.{type(self).__name__}"

    @property
    def capabilities(self) -> RealtimeCapabilities:
        """The capabilities of the model."""
        return self._capabilities

    @property
    def label(self) -> str:
        """Module and class name; names the model in events and log lines."""
        return self._label

    @property
    def model(self) -> str:
        """The provider's name of the model."""
        return "unknown"

    @property
    def provider(self) -> str:
        """Name of the service that runs the model."""
        return "unknown"

    @property
    def metrics_metadata(self) -> dict[str, str]:
        """The origin that metrics report."""
        return {"model_name": self.model, "model_provider": self.provider}

    @abstractmethod
    def session(self, *, turn_detection_disabled: bool = False) -> RealtimeSession[Any]:
        """A new session, which connects by itself.

        Args:
            turn_detection_disabled: the caller decides when the user has finished; only where
                ``capabilities.can_disable_turn_detection``.
        """

    @abstractmethod
    async def aclose(self) -> None:
        """Release the resources of the model. Callers close the sessions that they made."""

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        exc_tb: TracebackType | None,
    ) -> None:
        await self.aclose()


class RealtimeSession(ABC, EventEmitter[EventTypes | TEvent], Generic[TEvent]):
    """One live conversation with a `RealtimeModel`. See `EventTypes` for its events.

    Subclasses may name further events: ``class MySession(RealtimeSession[Literal["my_event"]])``.
    """

    def __init__(self, realtime_model: RealtimeModel) -> None:
        super().__init__()
        self._realtime_model = realtime_model

    @property
    def realtime_model(self) -> RealtimeModel:
        """The model that made this session."""
        return self._realtime_model

    @property
    def capabilities(self) -> RealtimeCapabilities:
        """The capabilities of this session."""
        return self._realtime_model.capabilities

    @property
    @abstractmethod
    def chat_ctx(self) -> ChatContext:
        """The conversation as the provider holds it; changing it changes nothing there."""

    @property
    @abstractmethod
    def tools(self) -> ToolContext:
        """The tools the model may call."""

    @property
    def working(self) -> bool:
        """Whether the turn continues after the running reply: a reply was requested, a call has no
        result, or a backend or the application runs a task that the model has delegated.

        False for sessions that cannot determine this.
        """
        return False

    async def connected(self) -> None:
        """Wait until the session can be used: it has a connection, and the provider accepted it.

        Sessions that cannot determine this return at once.

        Raises:
            RealtimeError: the session ended first.
        """

    @abstractmethod
    async def update_instructions(self, instructions: str) -> None:
        """Replace the instructions.

        Raises:
            RealtimeError: the provider did not confirm in time.
        """

    @abstractmethod
    async def update_chat_ctx(self, chat_ctx: ChatContext) -> None:
        """Make the provider's conversation equal to `chat_ctx`.

        Raises:
            RealtimeError: the provider did not confirm in time.
        """

    @abstractmethod
    async def update_tools(self, tools: list[Any]) -> None:
        """Replace the tools.

        Raises:
            RealtimeError: the provider did not confirm in time.
        """

    @abstractmethod
    def update_options(self, *, tool_choice: NotGivenOr[ToolChoice | None] = NOT_GIVEN) -> None:
        """Change options of the session."""

    @abstractmethod
    def push_audio(self, frame: AudioFrame) -> None:
        """Send sound of the user."""

    @abstractmethod
    def push_video(self, frame: VideoFrame) -> None:
        """Send a picture of the user's video."""

    @abstractmethod
    def generate_reply(
        self,
        *,
        instructions: NotGivenOr[str] = NOT_GIVEN,
        tool_choice: NotGivenOr[ToolChoice] = NOT_GIVEN,
        tools: NotGivenOr[list[Any]] = NOT_GIVEN,
    ) -> asyncio.Future[GenerationCreatedEvent]:
        """Ask for an answer now.

        The future fails with a `RealtimeError` when the provider does not begin in time.

        Args:
            instructions: for this answer, in addition to those of the session.
            tool_choice: for this answer, where ``capabilities.per_response_tool_choice``.
            tools: for this answer, likewise.
        """

    @abstractmethod
    def commit_audio(self) -> None:
        """Turn the pushed sound into a user message."""

    @abstractmethod
    def clear_audio(self) -> None:
        """Discard the sound that was pushed but not committed."""

    @abstractmethod
    def interrupt(self) -> None:
        """Stop the answer in progress, if there is one."""

    @abstractmethod
    def truncate(
        self,
        *,
        message_id: str,
        modalities: list[Literal["text", "audio"]],
        audio_end_ms: int,
        audio_transcript: NotGivenOr[str] = NOT_GIVEN,
    ) -> None:
        """Cut off the part of a message that the user did not hear.

        Args:
            message_id: the message.
            modalities: its modalities.
            audio_end_ms: how much was heard, in milliseconds.
            audio_transcript: the text that was heard.
        """

    @abstractmethod
    async def aclose(self) -> None:
        """End the session and its connection."""

    def start_user_activity(self) -> None:
        """Report user activity to the provider, if the provider supports it."""

    def say(self, text: str | AsyncIterable[str]) -> asyncio.Future[GenerationCreatedEvent]:
        """Speak exactly this text, where ``capabilities.supports_say``.

        Raises:
            NotImplementedError: the model cannot.
        """
        raise NotImplementedError(
            f"{type(self).__name__} cannot speak a given text; check capabilities.supports_say"
        )
