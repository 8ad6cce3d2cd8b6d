"""Addresses, credentials and options of the Live API: what is sent, and what is refused before."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from typing import Any

import pytest
from google.genai import types

from providers.google.live import connection, gemini_server, talking, until
from rejoinder.errors import ConfigurationError
from rejoinder.llm import ProviderTool
from rejoinder.llm.realtime import RealtimeError
from rejoinder.media import VideoBufferType, VideoFrame
from rejoinder.providers.google.beta import realtime as beta
from rejoinder.providers.google.realtime import RealtimeModel, RealtimeSession
from rejoinder.testing import RealtimeServer

ENVIRONMENT = (
    "GOOGLE_API_KEY",
    "GEMINI_API_KEY",
    "GOOGLE_GENAI_USE_VERTEXAI",
    "GOOGLE_CLOUD_PROJECT",
    "GOOGLE_CLOUD_LOCATION",
    "GOOGLE_GEMINI_BASE_URL",
    "GOOGLE_VERTEX_BASE_URL",
)


@pytest.fixture(autouse=True)
def bare(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ENVIRONMENT:
        monkeypatch.delenv(name, raising=False)


class Credentials:
    """As google-auth has them."""

    token = "from-google"
    expiry = None
    project_id = "my-project"
    quota_project_id = "payer"

    def refresh(self, _: Any) -> None: ...


async def asked(server: RealtimeServer, **options: Any) -> tuple[str, dict[str, str], Any]:
    """Path, header fields and setup of the first connection."""
    model = RealtimeModel(base_url=server.url.removesuffix("/v1"), **options)
    session = model.session()
    try:
        await asyncio.wait_for(session.connected(), 10)
    finally:
        await model.aclose()
    request = server.requests[0]
    headers = {name.lower(): value for name, value in request.headers.items()}
    return request.path, headers, connection(server, 0).setup


async def test_the_developer_api(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GEMINI_API_KEY", "from-env")
    async with gemini_server() as server:
        path, headers, setup = await asked(server)
    assert path.endswith(
        "/ws/google.ai.generativelanguage.v1beta.GenerativeService.BidiGenerateContent"
    )
    assert headers["x-goog-api-key"] == "from-env"
    assert setup["model"] == "models/gemini-3.8-live"


async def test_vertex() -> None:
    async with gemini_server() as server:
        path, headers, setup = await asked(
            server, vertexai=True, credentials=Credentials(), location="europe-west4"
        )
    assert path.endswith("/ws/google.cloud.aiplatform.v1beta1.LlmBidiService/BidiGenerateContent")
    assert headers["authorization"] == "Bearer from-google"
    assert headers["x-goog-user-project"] == "payer"
    assert "x-goog-api-key" not in headers
    assert setup["model"] == (
        "projects/my-project/locations/europe-west4/publishers/google/models/"
        "gemini-live-2.5-flash-native-audio"
    )


def test_addresses_of_google() -> None:
    model = RealtimeModel(api_key="k")
    assert model._url.startswith("https://generativelanguage.googleapis.com/ws/google.ai.")
    model = RealtimeModel(vertexai=True, api_key="k", location="us-central1")
    assert model._url.startswith("https://us-central1-aiplatform.googleapis.com/ws/google.cloud.")
    assert (model.model, model.provider) == ("gemini-live-2.5-flash-native-audio", "Vertex AI")
    assert beta.RealtimeModel is RealtimeModel
    assert beta.RealtimeSession is RealtimeSession


async def test_options_that_need_the_alpha_version() -> None:
    async with gemini_server() as server:
        path, _, setup = await asked(
            server,
            api_key="k",
            model="gemini-2.5-flash-native-audio-latest",
            enable_affective_dialog=True,
            proactivity=True,
        )
    assert ".v1alpha." in path
    assert setup["generationConfig"]["enableAffectiveDialog"] is True
    assert setup["proactivity"] == {"proactiveAudio": True}


async def test_objects_of_google_genai() -> None:
    async with gemini_server() as server:
        _, _, setup = await asked(
            server,
            api_key="k",
            model="gemini-3.1-flash-live-preview",
            modalities=[types.Modality.AUDIO],
            input_audio_transcription=types.AudioTranscriptionConfig(language_codes=["de"]),
            output_audio_transcription=None,
            thinking_config=types.ThinkingConfig(thinking_level=types.ThinkingLevel.LOW),
            realtime_input_config=types.RealtimeInputConfig(
                automatic_activity_detection=types.AutomaticActivityDetection(
                    silence_duration_ms=500
                )
            ),
            context_window_compression=types.ContextWindowCompressionConfig(
                trigger_tokens=1000, sliding_window=types.SlidingWindow(target_tokens=500)
            ),
            media_resolution=types.MediaResolution.MEDIA_RESOLUTION_LOW,
            labels={"team_a": "b"},
            http_options={"headers": {"x-mine": "1"}},
        )
    assert setup["inputAudioTranscription"] == {"languageCodes": ["de"]}
    assert "outputAudioTranscription" not in setup
    assert setup["generationConfig"]["thinkingConfig"] == {"thinkingLevel": "LOW"}
    assert setup["generationConfig"]["mediaResolution"] == "MEDIA_RESOLUTION_LOW"
    assert setup["contextWindowCompression"] == {
        "triggerTokens": 1000,
        "slidingWindow": {"targetTokens": 500},
    }
    detection = setup["realtimeInputConfig"]["automaticActivityDetection"]
    assert detection == {"silenceDurationMs": 500}
    assert setup["labels"] == {"team_a": "b"}
    assert server.requests[0].headers["x-mine"] == "1"


LATEST = "gemini-2.5-flash-native-audio-latest"
THINKER = "gemini-3.8-live-extended-thinking"


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"api_key": ""}, "no API key"),
        ({"model": "voice-of-tomorrow", "modalities": ["TEXT"]}, "modalities"),
        ({"model": "gemini-3.5-flash"}, "not a model of the Live API"),
        ({"model": "gemini-2.0-flash-live-001"}, "switched off"),
        ({"modalities": ["TEXT"]}, "sound only"),
        ({"modalities": ["AUDIO", "TEXT"]}, r"expected \['AUDIO'\]"),
        ({"thinking_config": {"thinking_budget": 0}}, "does not think"),
        ({"thinking_config": 3}, "thinking_config"),
        ({"model": THINKER}, "needs a level"),
        ({"model": LATEST, "thinking_config": {"thinking_level": "low"}}, "thinking_budget"),
        (
            {
                "model": THINKER,
                "thinking_config": {"thinking_level": "low"},
                "tool_behavior": "BLOCKING",
            },
            "never waits",
        ),
        (
            {
                "model": THINKER,
                "thinking_config": {"thinking_level": "low"},
                "tool_response_scheduling": "SILENT",
            },
            "refuses it",
        ),
        ({"tool_behavior": "SOMETIMES"}, "'BLOCKING' or 'NON_BLOCKING'"),
        ({"tool_response_scheduling": "LATER"}, "'WHEN_IDLE'"),
        ({"proactivity": False}, "cannot be turned off"),
        ({"model": "gemini-3.1-flash-live-x", "enable_affective_dialog": True}, "refuses it"),
        ({"gemini_tools": ["code_execution"]}, "code execution"),
        ({"gemini_tools": ["nothing"]}, "not a built-in tool"),
        ({"voice": 3}, "voice"),
        ({"base_url": "nowhere"}, "base_url"),
        ({"max_session_duration": -1}, "max_session_duration"),
        ({"vertexai": True, "location": "mars", "credentials": Credentials()}, "location"),
    ],
)
def test_what_a_model_refuses_is_refused_at_once(options: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigurationError, match=words):
        RealtimeModel(**{"api_key": "k", **options})


async def test_a_provider_tool_is_refused() -> None:
    async with gemini_server() as server, talking(server) as (session, _):
        with pytest.raises(ConfigurationError, match="gemini_tools"):
            await session.update_tools([ProviderTool(id="x", spec={"googleSearch": {}})])


async def test_tools_for_one_reply_are_refused() -> None:
    async with gemini_server() as server, talking(server) as (session, _):
        with pytest.raises(RealtimeError, match="for one reply"):
            await session.generate_reply(tool_choice="required")


@pytest.mark.parametrize("code", [1007, 1008, 1003, 3000])
async def test_a_setup_that_is_refused_ends_the_session_once(code: int) -> None:
    async def refuse(conn: Any, event: dict[str, Any]) -> bool:
        await conn.close(code, "models/nothing is not found")
        return True

    async with gemini_server(on_event=refuse) as server, talking(server) as (session, seen):
        with pytest.raises(RealtimeError, match="models/nothing is not found"):
            await session.generate_reply()
        (error,) = seen.named("error")
        assert not error.recoverable
        assert len(server.connections) == 1


async def test_a_wrong_key_ends_the_session() -> None:
    async with gemini_server(refuse=403) as server, talking(server) as (session, seen):
        with pytest.raises(RealtimeError):
            await session.generate_reply()
        assert [error.recoverable for error in seen.named("error")] == [False]
        assert len(server.requests) == 1


async def test_changed_options_take_another_connection() -> None:
    async with gemini_server() as server, talking(server) as (session, seen):
        await session.generate_reply()
        await until(lambda: session.session_resumption_handle)
        session.update_options(tool_response_scheduling="SILENT")
        session.update_options(voice="Puck")
        for _ in range(20):
            await asyncio.sleep(0)
        assert len(server.connections) == 1
        session.realtime_model.update_options(voice="Kore", temperature=0.5)  # type: ignore[attr-defined]
        await until(lambda: seen.named("session_reconnected"))
        generation = connection(server).setup["generationConfig"]
        voice = generation["speechConfig"]["voiceConfig"]["prebuiltVoiceConfig"]["voiceName"]
        assert (voice, generation["temperature"]) == ("Kore", 0.5)
        with pytest.raises(ConfigurationError, match="tool_behavior"):
            session.update_options(tool_behavior="x")


async def test_pictures_of_the_video() -> None:
    async with gemini_server() as server, talking(server) as (session, _):
        await session.connected()
        session.push_video(VideoFrame(2, 2, VideoBufferType.RGBA, bytes(16)))
        await until(lambda: len(connection(server).events) == 2)
        video = connection(server).events[1]["realtimeInput"]["video"]
        assert video["mimeType"] == "image/jpeg"


def test_the_pure_halves_load_no_network() -> None:
    code = (
        "import sys; import rejoinder.providers.google.realtime_wire; "
        "print([name for name in ('aiohttp', 'google.genai', 'google.auth') if name in sys.modules])"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "[]"
