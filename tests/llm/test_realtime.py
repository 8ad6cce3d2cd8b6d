"""The base classes of realtime models: what a subclass owes and what it gets."""

from __future__ import annotations

import asyncio
import dataclasses
import inspect
import typing
from typing import Any, Literal

import pytest
from pydantic import ValidationError

from rejoinder.llm import realtime
from rejoinder.llm.chat_context import ChatContext, ChatMessage
from rejoinder.llm.realtime import (
    GenerationCreatedEvent,
    InputSpeechStartedEvent,
    InputSpeechStoppedEvent,
    InputTranscriptionCompleted,
    RealtimeCapabilities,
    RealtimeError,
    RealtimeModel,
    RealtimeModelError,
    RealtimeSession,
    RealtimeSessionReconnectedEvent,
    RemoteItemAddedEvent,
)
from rejoinder.metrics import LLMMetrics, Metadata, RealtimeModelMetrics

CAPABILITIES = RealtimeCapabilities(
    message_truncation=True,
    turn_detection=True,
    user_transcription=True,
    auto_tool_reply_generation=False,
    audio_output=True,
    manual_function_calls=True,
)


class Model(RealtimeModel):
    def __init__(self) -> None:
        super().__init__(capabilities=CAPABILITIES)
        self.closed = False

    def session(self, *, turn_detection_disabled: bool = False) -> Session:
        return Session(self)

    async def aclose(self) -> None:
        self.closed = True


class Session(RealtimeSession[Literal["my_event"]]):
    """Everything a session owes, written as for LiveKit Agents 1.2.17."""

    @property
    def chat_ctx(self) -> ChatContext:
        return ChatContext()

    @property
    def tools(self) -> Any:
        return None

    async def update_instructions(self, instructions: str) -> None: ...
    async def update_chat_ctx(self, chat_ctx: ChatContext) -> None: ...
    async def update_tools(self, tools: list[Any]) -> None: ...
    def update_options(self, *, tool_choice: Any = None) -> None: ...
    def push_audio(self, frame: Any) -> None: ...
    def push_video(self, frame: Any) -> None: ...
    def generate_reply(self, *, instructions: Any = None) -> asyncio.Future[Any]:  # type: ignore[override]
        raise NotImplementedError

    def commit_audio(self) -> None: ...
    def clear_audio(self) -> None: ...
    def interrupt(self) -> None: ...
    def truncate(self, **kwargs: Any) -> None: ...
    async def aclose(self) -> None: ...


def test_the_model_is_abstract() -> None:
    with pytest.raises(TypeError, match="abstract"):
        RealtimeModel(capabilities=CAPABILITIES)  # type: ignore[abstract]
    assert RealtimeModel.__abstractmethods__ == {"session", "aclose"}


def test_the_session_is_abstract() -> None:
    assert RealtimeSession.__abstractmethods__ == {
        *("aclose", "chat_ctx", "clear_audio", "commit_audio", "generate_reply", "interrupt"),
        *("push_audio", "push_video", "tools", "truncate", "update_chat_ctx"),
        *("update_instructions", "update_options", "update_tools"),
    }

    class Incomplete(Session):
        interrupt = RealtimeSession.interrupt

    with pytest.raises(TypeError, match="interrupt"):
        Incomplete(Model())


async def test_the_model() -> None:
    async with Model() as model:
        assert model.capabilities is CAPABILITIES
        assert model.label == f"{__name__}.Model"
        assert (model.model, model.provider) == ("unknown", "unknown")
        assert model.metrics_metadata == {"model_name": "unknown", "model_provider": "unknown"}
        assert not model.closed
    assert model.closed
    with pytest.raises(TypeError):
        RealtimeModel.__init__(model, CAPABILITIES)  # type: ignore[misc]


def test_the_session() -> None:
    model = Model()
    session = model.session()
    assert session.realtime_model is model
    assert session.capabilities is CAPABILITIES
    assert session.start_user_activity() is None
    with pytest.raises(NotImplementedError, match="supports_say"):
        session.say("hello")
    heard: list[Any] = []
    session.on("input_speech_started", heard.append)
    session.once("my_event", heard.append)
    for _ in range(2):
        session.emit("input_speech_started", 1)
        session.emit("my_event", 2)
    assert heard == [1, 2, 1]


def test_names_of_events() -> None:
    assert set(typing.get_args(realtime.EventTypes)) == {
        *("input_speech_started", "input_speech_stopped", "generation_created", "error"),
        *("input_audio_transcription_completed", "session_reconnected", "metrics_collected"),
        "remote_item_added",
    }


def test_capabilities() -> None:
    names = [field.name for field in dataclasses.fields(RealtimeCapabilities)]
    assert names[:6] == [
        *("message_truncation", "turn_detection", "user_transcription"),
        *("auto_tool_reply_generation", "audio_output", "manual_function_calls"),
    ]
    assert len(names) == 13
    assert not any(getattr(CAPABILITIES, name) for name in names[6:])
    with pytest.raises(TypeError):
        RealtimeCapabilities()  # type: ignore[call-arg]


def test_events() -> None:
    assert InputSpeechStartedEvent() == InputSpeechStartedEvent()
    assert RealtimeSessionReconnectedEvent() == RealtimeSessionReconnectedEvent()
    assert InputSpeechStoppedEvent(True).user_transcription_enabled
    done = InputTranscriptionCompleted("i", "text", True)
    assert (done.confidence, done.turn_started_at) == (None, None)
    item = ChatMessage(role="user", content=[])
    assert RemoteItemAddedEvent(None, item).item is item
    parameters = inspect.signature(GenerationCreatedEvent).parameters
    assert parameters["response_id"].default is None


def test_errors() -> None:
    assert RealtimeError("x").args == ("x",)
    assert RealtimeError("x").code is None
    assert RealtimeError("x", code="late").code == "late"
    with pytest.raises(TypeError):
        RealtimeError()  # type: ignore[call-arg]
    error = ValueError("x")
    event = RealtimeModelError(timestamp=1.0, label="l", error=error, recoverable=True)
    assert event.error is error
    assert event.model_dump() == {
        "type": "realtime_model_error",
        "timestamp": 1.0,
        "label": "l",
        "recoverable": True,
    }


def test_realtime_metrics() -> None:
    details = RealtimeModelMetrics.InputTokenDetails(
        cached_tokens_details=RealtimeModelMetrics.CachedTokenDetails(audio_tokens=3)
    )
    metrics = RealtimeModelMetrics(
        request_id="r",
        timestamp=1.0,
        input_token_details=details,
        output_token_details=RealtimeModelMetrics.OutputTokenDetails(),
    )
    assert metrics.ttft == -1
    assert (metrics.input_tokens, metrics.session_duration, metrics.connection_reused) == (
        0,
        0,
        False,
    )
    assert RealtimeModelMetrics.model_validate_json(metrics.model_dump_json()) == metrics
    assert metrics.input_token_details.cached_tokens_details is not None
    with pytest.raises(ValidationError):
        RealtimeModelMetrics(request_id="r", timestamp=1.0)  # type: ignore[call-arg]


def test_fields_of_metrics_in_the_references_order() -> None:
    assert list(LLMMetrics.model_fields)[:14] == [
        *("type", "label", "request_id", "timestamp", "duration", "ttft", "cancelled"),
        *("completion_tokens", "prompt_tokens", "prompt_cached_tokens", "total_tokens"),
        *("tokens_per_second", "speech_id", "metadata"),
    ]
    assert list(RealtimeModelMetrics.model_fields)[:14] == [
        *("type", "label", "request_id", "timestamp", "duration", "ttft", "cancelled"),
        *("input_tokens", "output_tokens", "total_tokens", "tokens_per_second"),
        *("input_token_details", "output_token_details", "metadata"),
    ]
    assert Metadata().model_dump() == {"model_name": None, "model_provider": None}
