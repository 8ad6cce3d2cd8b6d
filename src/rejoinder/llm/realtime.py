"""Speech-to-speech models: what every one of them offers, and the events it sends.

A `RealtimeModel` makes sessions; a `RealtimeSession` is one live conversation. Both are abstract
classes: a subclass that leaves something out cannot be made.
"""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from collections.abc import AsyncIterable, Awaitable
from dataclasses import dataclass
from types import TracebackType
from typing import TYPE_CHECKING, Any, Generic, Literal, Self, TypeAlias, TypeVar

from pydantic import BaseModel, ConfigDict, Field

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
    """Whether a transcript of what was said will follow."""


@dataclass
class MessageGeneration:
    """One message the model is making; its parts arrive while it speaks."""

    message_id: str
    text_stream: AsyncIterable[str]
    """The text, or the transcript of the sound."""
    audio_stream: AsyncIterable[AudioFrame]
    modalities: Awaitable[list[Literal["text", "audio"]]]
    """What the message consists of; known once its first part is there."""


@dataclass
class GenerationCreatedEvent:
    """``"generation_created"``: the model began to answer."""

    message_stream: AsyncIterable[MessageGeneration]
    function_stream: AsyncIterable[FunctionCall]
    user_initiated: bool
    """The answer was asked for by `RealtimeSession.generate_reply`, not begun by the model."""
    response_id: str | None = None
    """The provider's own id of the answer."""
    outcome: Awaitable[ReplyStatus] | None = None
    """How the answer ended; known when its streams have ended. ``None`` where a model does not tell."""


@dataclass
class InputTranscriptionCompleted:
    """``"input_audio_transcription_completed"``: what the user said, as text."""

    item_id: str
    """Id of the user's message in the conversation."""
    transcript: str
    is_final: bool
    """False while the text can still change."""
    confidence: float | None = None
    """0 to 1, where the provider says it."""
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
    """What a model can do."""

    message_truncation: bool
    """What the user did not hear can be cut off a message."""
    turn_detection: bool
    """The provider decides when the user has finished."""
    user_transcription: bool
    """The provider writes down what the user says."""
    auto_tool_reply_generation: bool
    """The model goes on by itself after a tool output."""
    audio_output: bool
    manual_function_calls: bool
    """Calls and outputs can be put into the history."""
    can_disable_turn_detection: bool = False
    """`RealtimeModel.session` takes `turn_detection_disabled`."""
    mutable_chat_context: bool = False
    """The history can be changed while the session runs."""
    mutable_instructions: bool = False
    mutable_tools: bool = False
    per_response_tool_choice: bool = False
    """`RealtimeSession.generate_reply` takes `tool_choice` and `tools`."""
    supports_say: bool = False
    """`RealtimeSession.say` works."""
    supports_overlapping_speech: bool = False
    """The model listens while it speaks, and decides itself who has the floor."""


class RealtimeError(Exception):
    """A session could not do what it was asked to, e.g. in time.

    Attributes:
        code: the provider's own name of the error, if it gave one.
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
    """True while the session goes on."""


class RealtimeModel(ABC):
    """A speech-to-speech model, of which sessions are made."""

    def __init__(self, *, capabilities: RealtimeCapabilities) -> None:
        self._capabilities = capabilities
        self._label = f"{type(self).__module__}.{type(self).__name__}"

    @property
    def capabilities(self) -> RealtimeCapabilities:
        """What the model can do."""
        return self._capabilities

    @property
    def label(self) -> str:
        """Module and class name; names the model in events and log lines."""
        return self._label

    @property
    def model(self) -> str:
        """Name of the model, as the provider calls it."""
        return "unknown"

    @property
    def provider(self) -> str:
        """Name of who serves the model."""
        return "unknown"

    @property
    def metrics_metadata(self) -> dict[str, str]:
        """What metrics say of their origin."""
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
        """Release what the model holds. Sessions are closed by who made them."""

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
        """The model this session was made by."""
        return self._realtime_model

    @property
    def capabilities(self) -> RealtimeCapabilities:
        """What this session can do."""
        return self._realtime_model.capabilities

    @property
    @abstractmethod
    def chat_ctx(self) -> ChatContext:
        """The conversation as the provider holds it; changing it changes nothing there."""

    @property
    @abstractmethod
    def tools(self) -> ToolContext:
        """The tools the model may call."""

    async def connected(self) -> None:
        """Wait until the session can be used: it has a connection, and the provider accepted it.

        Sessions that cannot tell return at once.

        Raises:
            RealtimeError: the session ended before.
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
            instructions: for this answer, beside those of the session.
            tool_choice: for this answer, where ``capabilities.per_response_tool_choice``.
            tools: for this answer, likewise.
        """

    @abstractmethod
    def commit_audio(self) -> None:
        """Make what was pushed a message of the user."""

    @abstractmethod
    def clear_audio(self) -> None:
        """Forget what was pushed and not committed."""

    @abstractmethod
    def interrupt(self) -> None:
        """Stop the answer that is being made; without one, nothing happens."""

    @abstractmethod
    def truncate(
        self,
        *,
        message_id: str,
        modalities: list[Literal["text", "audio"]],
        audio_end_ms: int,
        audio_transcript: NotGivenOr[str] = NOT_GIVEN,
    ) -> None:
        """Cut off what the user did not hear of a message.

        Args:
            message_id: the message.
            modalities: what it consists of.
            audio_end_ms: how much was heard, in milliseconds.
            audio_transcript: the text that was heard.
        """

    @abstractmethod
    async def aclose(self) -> None:
        """End the session and its connection."""

    def start_user_activity(self) -> None:
        """Tell the provider that the user is doing something, where it wants to know."""

    def say(self, text: str | AsyncIterable[str]) -> asyncio.Future[GenerationCreatedEvent]:
        """Speak exactly this text, where ``capabilities.supports_say``.

        Raises:
            NotImplementedError: the model cannot.
        """
        raise NotImplementedError(
            f"{type(self).__name__} cannot speak a given text; check capabilities.supports_say"
        )
