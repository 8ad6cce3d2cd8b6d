"""Full-duplex models: they listen while they speak, and decide themselves when to speak.

Names are those of LiveKit Agents 1.8. Here a `DuplexModel` is a `RealtimeModel`, and its session is a
`RealtimeSession` that also offers the model's sound as one stream, including silence. So it needs no
adapter: code that accepts a realtime model accepts a duplex model.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import AsyncIterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from rejoinder.llm.chat_context import ChatContext, ChatItem
from rejoinder.llm.realtime import RealtimeCapabilities, RealtimeModel, RealtimeSession, TEvent
from rejoinder.media import AudioFrame
from rejoinder.types import NOT_GIVEN, NotGivenOr, is_given

if TYPE_CHECKING:
    from rejoinder.llm.tool_context import ToolChoice

__all__ = [
    "Delegate",
    "DelegatedTasks",
    "DuplexAudioFrame",
    "DuplexCapabilities",
    "DuplexModel",
    "DuplexOutputTranscriptDelta",
    "DuplexSession",
]


@dataclass
class DuplexAudioFrame:
    """A piece of the model's sound."""

    frame: AudioFrame
    start_ms: int | None = None
    """Its place on the timeline of the session, in milliseconds, if the service reports it."""


@dataclass
class DuplexOutputTranscriptDelta:
    """``"transcript_delta"``: a piece of the transcript of the model's speech."""

    text: str
    start_ms: int | None = None
    """Its place on the timeline of the session, in milliseconds."""
    end_ms: int | None = None


@dataclass(kw_only=True)
class DuplexCapabilities(RealtimeCapabilities):
    """The capabilities of a duplex model. Those that all duplex models share have defaults."""

    message_truncation: bool = False
    turn_detection: bool = True
    audio_output: bool = True
    manual_function_calls: bool = False
    supports_overlapping_speech: bool = True


class DelegatedTasks(Protocol):
    """The tasks of one session."""

    @property
    def running(self) -> Sequence[str]:
        """Ids of the running tasks."""
        ...

    def cancel(self, delegation_id: str) -> None:
        """Stop a task without a result."""
        ...

    def stop(self) -> None:
        """The session is over: stop all tasks."""
        ...

    async def aclose(self) -> None:
        """Stop all tasks and wait for their ends. Never raises."""
        ...


class Delegate(Protocol):
    """Handles the tasks that the speech model of a session delegates to the application."""

    def attach(self, session: Any) -> DelegatedTasks:
        """Serve `session` until it ends. Called once for each session, when it is made."""
        ...


class DuplexModel(RealtimeModel):
    """A speech model that listens and speaks at the same time, and handles interruptions itself."""

    @abstractmethod
    def session(self, *, turn_detection_disabled: bool = False) -> DuplexSession[Any]:
        """A new session, which connects by itself. The model always detects turns."""


class DuplexSession(RealtimeSession[TEvent]):
    """A conversation with a `DuplexModel`.

    Its speech is available in two forms: as replies (``"generation_created"``), which end when the
    model falls silent, and as one continuous stream (`audio_stream`). Further events are
    ``"transcript_delta"`` (`DuplexOutputTranscriptDelta`) and ``"function_call"``.

    LiveKit Agents 1.8 calls the methods with an underscore; applications use the public ones.
    """

    @property
    def duplex_model(self) -> RealtimeModel:
        """The model that made this session."""
        return self._realtime_model

    @property
    @abstractmethod
    def audio_stream(self) -> AsyncIterable[DuplexAudioFrame]:
        """The sound of the model from now on, including silence. For one reader."""

    async def _update_instructions(self, instructions: str) -> None:
        await self.update_instructions(instructions)

    async def _append_items(self, items: list[ChatItem]) -> None:
        chat_ctx = self.chat_ctx
        chat_ctx.items.extend(items)
        await self.update_chat_ctx(chat_ctx)

    async def _update_tools(self, tools: list[Any]) -> None:
        await self.update_tools(tools)

    def _update_options(self, *, tool_choice: NotGivenOr[ToolChoice | None] = NOT_GIVEN) -> None:
        self.update_options(tool_choice=tool_choice)

    def _generate_reply(
        self,
        *,
        instructions: NotGivenOr[str] = NOT_GIVEN,
        tool_choice: NotGivenOr[ToolChoice] = NOT_GIVEN,
        tools: NotGivenOr[list[Any]] = NOT_GIVEN,
    ) -> None:
        self.generate_reply(instructions=instructions, tool_choice=tool_choice, tools=tools)

    async def _update_session(
        self,
        *,
        instructions: NotGivenOr[str] = NOT_GIVEN,
        chat_ctx: NotGivenOr[ChatContext] = NOT_GIVEN,
        tools: NotGivenOr[list[Any]] = NOT_GIVEN,
    ) -> None:
        if is_given(instructions):
            await self._update_instructions(instructions)
        if is_given(chat_ctx):
            await self._append_items(chat_ctx.items)
        if is_given(tools):
            await self._update_tools(tools)
