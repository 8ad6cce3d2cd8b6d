"""Options and addresses of the models of the Live API."""

from __future__ import annotations

from inspect import Parameter, signature
from typing import Any

import pytest

from providers.openai.duplex import Checked
from rejoinder.delegation import Delegate
from rejoinder.errors import ConfigurationError
from rejoinder.llm import (
    DuplexAudioFrame,
    DuplexCapabilities,
    DuplexModel,
    DuplexOutputTranscriptDelta,
    DuplexSession,
    RealtimeModel,
    RealtimeSession,
)
from rejoinder.providers.openai import live
from rejoinder.providers.openai.live import GPTLiveModel
from rejoinder.testing import RealtimeServer, ScriptedLLM


@pytest.mark.parametrize(
    ("options", "header", "path"),
    [
        ({"api_key": "key"}, ("api-key", "key"), ""),
        ({"entra_token": "token"}, ("Authorization", "Bearer token"), "/openai"),
        ({"api_key": "key"}, ("api-key", "key"), "/openai/v1"),
        ({"api_key": "key"}, ("api-key", "key"), "/openai/v1/live/sessions"),
    ],
)
async def test_azure(options: dict[str, Any], header: tuple[str, str], path: str) -> None:
    async with RealtimeServer(connection=Checked) as server:
        model = GPTLiveModel.with_azure(
            azure_deployment="voice",
            azure_endpoint=server.url.removesuffix("/v1") + path,
            responses_options={"model": "brain"},
            **options,
        )
        await model.session().connected()
        await model.aclose()
        (request,) = server.requests
        assert request.path == "/openai/v1/live/sessions"
        assert request.headers[header[0]] == header[1]
        connection = server.connections[0]
        assert isinstance(connection, Checked)
        assert connection.start["model"] == "voice"
        assert connection.start["delegation"]["responses"] == {"model": "brain"}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"model": "gpt-realtime-2.1"}, "it speaks the Realtime API"),
        ({"model": "gpt-4o"}, "it is a text model"),
        ({"delegation": "decisions"}, "expected 'responses', 'client' or a Delegate"),
        (
            {"delegation": ScriptedLLM("x")},
            r"such as Delegate\(llm\), got a value of type Scripted",
        ),
        ({"delegation": Delegate}, r"such as Delegate\(llm\)"),
        (
            {"delegation": "client", "responses_options": {"model": "m"}},
            "responses_options are for delegation='responses'",
        ),
        ({"voice": ""}, "expected the name of a voice"),
        ({"voice": 7}, "expected the name of a voice"),
        ({"acknowledgement_delay": -1}, "expected seconds of at least 0"),
        ({"max_session_duration": 0}, "expected seconds greater than 0"),
        ({"responses_options": "gpt-5"}, "expected a dict"),
        ({"store": "yes"}, "expected True or False"),
        ({"base_url": "nowhere"}, "expected an absolute URL"),
        ({"azure_deployment": "d"}, "no Azure endpoint"),
        ({"entra_token": "t"}, "Azure needs azure_deployment"),
        (
            {"azure_deployment": "d", "base_url": "https://x.example"},
            "the name of a deployment of a Responses model",
        ),
    ],
)
def test_a_wrong_option_is_one_sentence(
    options: dict[str, Any], message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("AZURE_OPENAI_ENDPOINT", raising=False)
    with pytest.raises(ConfigurationError, match=message) as caught:
        GPTLiveModel(api_key="key", **options)
    assert "\n" not in str(caught.value)


def test_a_missing_key_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    with pytest.raises(ConfigurationError, match="OPENAI_API_KEY"):
        GPTLiveModel()
    with pytest.raises(ConfigurationError, match="not both"):
        GPTLiveModel.with_azure(
            azure_deployment="d", azure_endpoint="https://x", base_url="https://y"
        )


async def test_all_options_arrive_in_the_first_frame() -> None:
    async with RealtimeServer(connection=Checked) as server:
        model = GPTLiveModel(
            base_url=server.url + "/live/sessions",
            api_key="key",
            voice={"id": "voice_1"},
            responses_options={
                "model": "gpt-5.6-luna",
                "instructions": "Look it up.",
                "tool_choice": "auto",
                "parallel_tool_calls": True,
                "reasoning": {"effort": "low"},
                "text": {"verbosity": "low"},
                "service_tier": "priority",
                "max_output_tokens": 100,
            },
            acknowledgement_delay=0.4,
            store=True,
            safety_identifier="ada",
        )
        await model.session().connected()
        await model.aclose()
        connection = server.connections[0]
        assert isinstance(connection, Checked)
        assert connection.start["audio"]["output"]["voice"] == {"id": "voice_1"}
        assert connection.start["delegation"]["acknowledgement_delay_ms"] == 400
        assert len(connection.start["delegation"]["responses"]) == 8
        assert connection.start["store"] is True
        assert server.requests[0].path == "/v1/live/sessions"


LIVEKIT = {
    # Names and defaults of LiveKit Agents 1.8.9; ``...`` stands for a value of its own.
    GPTLiveModel: {
        "model": "gpt-live-1", "voice": "marin", "delegation": "responses",
        "responses_options": ..., "service_tier": ..., "api_key": None, "base_url": ...,
        "http_session": None, "max_session_duration": ..., "conn_options": ...,
        "azure_deployment": None, "entra_token": None,
    },
    GPTLiveModel.with_azure: {
        "azure_deployment": Parameter.empty, "azure_endpoint": None, "api_key": None,
        "entra_token": None, "base_url": None, "voice": "marin", "delegation": "responses",
        "responses_options": ..., "service_tier": ..., "http_session": None,
        "max_session_duration": ..., "conn_options": ...,
    },
    live.GPTLiveSession.append_instructions: {"text": Parameter.empty, "delegation_id": None},
    live.GPTLiveSession.append_thinking: {"text": Parameter.empty, "delegation_id": None},
    live.GPTLiveSession.append_commentary: {"text": Parameter.empty, "delegation_id": None},
    live.GPTLiveSession.send_event: {"event": Parameter.empty},
    live.GPTLiveSession.mute_input: {},
    live.GPTLiveSession.unmute_input: {},
    live.GPTLiveDelegation: {"id": Parameter.empty, "pending_transcript": Parameter.empty},
    DuplexAudioFrame: {"frame": Parameter.empty, "start_ms": None},
    DuplexOutputTranscriptDelta: {"text": Parameter.empty, "start_ms": None, "end_ms": None},
    DuplexCapabilities: {
        "user_transcription": Parameter.empty, "auto_tool_reply_generation": Parameter.empty,
        "mutable_chat_context": False, "mutable_instructions": False, "mutable_tools": False,
    },
    DuplexSession._update_session: {"instructions": ..., "chat_ctx": ..., "tools": ...},
    DuplexSession._generate_reply: {"instructions": ..., "tool_choice": ..., "tools": ...},
    DuplexSession._append_items: {"items": Parameter.empty},
}  # fmt: skip


@pytest.mark.parametrize("called", LIVEKIT, ids=lambda called: called.__qualname__)
def test_parameters_are_those_of_livekit(called: Any) -> None:
    ours = signature(called).parameters
    for name, default in LIVEKIT[called].items():
        assert name in ours
        assert default is ... or ours[name].default == default


async def test_the_names_of_livekit() -> None:
    assert live.DuplexModel is GPTLiveModel
    assert issubclass(GPTLiveModel, DuplexModel)
    assert issubclass(GPTLiveModel, RealtimeModel)
    assert issubclass(live.GPTLiveSession, DuplexSession)
    assert issubclass(live.GPTLiveSession, RealtimeSession)
    model = GPTLiveModel(api_key="key")
    assert model.capabilities.supports_overlapping_speech
    session = model.session()
    await session._update_session(instructions="Be brief.")
    assert session.duplex_model is model
    await model.aclose()


@pytest.mark.parametrize("event", [3, "session.close", None, ["session.close"]])
async def test_an_event_of_ones_own_is_an_object(event: Any) -> None:
    async with RealtimeServer(connection=Checked) as server:
        model = GPTLiveModel(api_key="key", base_url=server.url)
        with pytest.raises(ConfigurationError, match="event: expected a dict or an object"):
            model.session().send_event(event)
        await model.aclose()
