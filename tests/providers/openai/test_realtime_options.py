"""Addresses, credentials and options of realtime models, as the server sees them."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from rejoinder.errors import ConfigurationError
from rejoinder.llm import AudioContent, ChatContext, ImageContent, ProviderTool, function_tool
from rejoinder.media import AudioFrame, VideoFrame
from rejoinder.providers.openai.realtime import (
    RealtimeModel,
    RealtimeModelBeta,
    RealtimeSessionBeta,
)
from rejoinder.providers.sessions.sound import SoundInput
from rejoinder.testing import RealtimeServer
from rejoinder.types import APIConnectOptions

PIXEL = "data:image/png;base64,AAAA"


async def asked(model: RealtimeModel, server: RealtimeServer) -> tuple[str, dict[str, str]]:
    """Path with query, and the header fields of the first connection of `model`."""
    session = model.session()
    try:
        await asyncio.wait_for(session.generate_reply(), 10)
    finally:
        await model.aclose()
    request = server.requests[0]
    return request.path_qs, {name.lower(): value for name, value in request.headers.items()}


async def test_openai(monkeypatch: pytest.MonkeyPatch) -> None:
    async with RealtimeServer() as server:
        monkeypatch.setenv("OPENAI_API_KEY", "from-env")
        monkeypatch.setenv("OPENAI_BASE_URL", server.url)
        path, headers = await asked(RealtimeModel(), server)
        assert path == "/v1/realtime?model=gpt-realtime-2.1"
        assert headers["authorization"] == "Bearer from-env"
        assert "openai-beta" not in headers


async def test_the_beta_form() -> None:
    async with RealtimeServer(beta=True) as server:
        model = RealtimeModelBeta(base_url=server.url, api_key="k", model="m", speed=1.1)
        assert isinstance(model.session(), RealtimeSessionBeta)
        path, headers = await asked(model, server)
        assert path == "/v1/realtime?model=m"
        assert headers["openai-beta"] == "realtime=v1"
        session = server.connections[-1].session
        assert (session["temperature"], session["speed"], session["voice"]) == (0.8, 1.1, "alloy")
        assert session["input_audio_format"] == "pcm16"


@pytest.mark.parametrize(
    ("options", "path", "header"),
    [
        (
            {"api_version": "2025-04-01-preview", "api_key": "k"},
            "/openai/realtime?api-version=2025-04-01-preview&deployment=d",
            ("api-key", "k"),
        ),
        ({"entra_token": "t"}, "/openai/v1/realtime?model=d", ("authorization", "Bearer t")),
    ],
)
async def test_azure(
    options: dict[str, Any],
    path: str,
    header: tuple[str, str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name in ("OPENAI_API_VERSION", "AZURE_OPENAI_API_KEY"):
        monkeypatch.delenv(name, raising=False)
    async with RealtimeServer(beta="api_version" in options) as server:
        monkeypatch.setenv("AZURE_OPENAI_ENDPOINT", server.url.removesuffix("/v1"))
        found, headers = await asked(RealtimeModel(azure_deployment="d", **options), server)
        assert found == path
        assert headers[header[0]] == header[1]


async def test_with_azure(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("AZURE_OPENAI_API_KEY", "AZURE_OPENAI_ENDPOINT", "OPENAI_API_VERSION"):
        monkeypatch.delenv(name, raising=False)
    async with RealtimeServer(beta=True) as server:
        model = RealtimeModel.with_azure(
            azure_deployment="d",
            azure_endpoint=server.url.removesuffix("/v1"),
            api_version="v",
            api_key="k",
        )
        path, headers = await asked(model, server)
        assert path == "/openai/realtime?api-version=v&deployment=d"
        assert headers["api-key"] == "k"
        assert server.connections[0].session["input_audio_transcription"] == {"model": "whisper-1"}


@pytest.mark.parametrize(
    ("options", "word"),
    [
        ({}, "credentials"),
        ({"api_key": "k"}, "API version"),
        ({"api_key": "k", "api_version": "v"}, "endpoint"),
        (
            {
                "api_key": "k",
                "api_version": "v",
                "azure_endpoint": "https://a",
                "base_url": "https://b",
            },
            "not both",
        ),
    ],
)
def test_what_azure_lacks(
    options: dict[str, Any], word: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("AZURE_OPENAI_API_KEY", "AZURE_OPENAI_ENDPOINT", "OPENAI_API_VERSION"):
        monkeypatch.delenv(name, raising=False)
    with pytest.raises(ConfigurationError, match=word):
        RealtimeModel.with_azure(azure_deployment="d", **options)


@pytest.mark.parametrize(
    ("option", "wrong", "expected"),
    [
        ("voice", 7, "a string or a dict"),
        ("voice", " ", "a string or a dict"),
        ("modalities", [], "a list of 'text' and 'audio'"),
        ("modalities", ["video"], "a list of 'text' and 'audio'"),
        ("input_audio_transcription", "whisper-1", "a dict"),
        ("input_audio_noise_reduction", 1, "a string or a dict"),
        ("turn_detection", "server_vad", "a dict"),
        ("tracing", True, "a string or a dict"),
        ("truncation", 0.8, "a string or a dict"),
        ("reasoning", "low", "a dict"),
        ("prompt", "pmpt_1", "a dict"),
    ],
)
def test_options_that_the_service_would_refuse_are_refused_at_once(
    option: str, wrong: object, expected: str
) -> None:
    options: dict[str, Any] = {"api_key": "k", option: wrong}
    with pytest.raises(ConfigurationError, match=rf"RealtimeModel\.{option}: expected {expected}"):
        RealtimeModel(**options)


@pytest.mark.parametrize("wrong", [0, -1, "many", 1.5, True])
def test_the_limit_of_a_reply_is_a_number_or_inf(wrong: Any) -> None:
    model = RealtimeModel(api_key="k")
    with pytest.raises(ConfigurationError, match="max_response_output_tokens: expected a whole"):
        model.update_options(max_response_output_tokens=wrong)
    model.update_options(max_response_output_tokens="inf")


def test_what_is_missing_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("OPENAI_API_KEY", "AZURE_OPENAI_API_KEY", "AZURE_OPENAI_ENDPOINT"):
        monkeypatch.delenv(name, raising=False)
    with pytest.raises(ConfigurationError, match="OPENAI_API_KEY"):
        RealtimeModel()
    with pytest.raises(ConfigurationError, match="dialect: expected one of"):
        RealtimeModel(api_key="k", dialect="klingon")
    with pytest.raises(ConfigurationError, match="no Azure endpoint"):
        RealtimeModel(azure_deployment="d", api_key="k")
    with pytest.raises(ConfigurationError, match="no Azure credentials"):
        RealtimeModel(azure_deployment="d", base_url="https://a.example/openai")


def test_temperature_has_no_effect() -> None:
    with pytest.warns(DeprecationWarning, match="temperature"):
        RealtimeModel(api_key="k", temperature=0.5)


async def test_only_options_that_change_are_sent() -> None:
    async with RealtimeServer() as server:
        model = RealtimeModel(base_url=server.url, api_key="k")
        session = model.session()
        await session.generate_reply()
        connection = server.connections[0]
        before = len(connection.events)
        model.update_options(voice="marin")
        session.update_options(
            speed=1.2, tool_choice="required", input_audio_noise_reduction="far_field"
        )
        model.update_options(turn_detection=None, max_response_output_tokens=100)
        await session.generate_reply(tool_choice={"type": "function", "function": {"name": "f"}})
        changes = [
            e["session"] for e in connection.events[before:] if e["type"] == "session.update"
        ]
        assert changes == [
            {
                "type": "realtime",
                "audio": {
                    "input": {"noise_reduction": {"type": "far_field"}},
                    "output": {"speed": 1.2},
                },
                "tool_choice": "required",
            },
            {
                "type": "realtime",
                "audio": {"input": {"turn_detection": None}},
                "max_output_tokens": 100,
            },
        ]
        asked_for = [e for e in connection.events if e["type"] == "response.create"][-1]
        assert asked_for["response"]["tool_choice"] == {"type": "function", "name": "f"}
        await model.aclose()


@pytest.mark.dialect
async def test_xai_has_voice_and_turn_detection_at_the_top() -> None:
    async with RealtimeServer() as server:
        model = RealtimeModel(base_url=server.url, api_key="k", dialect="xai", model="grok-voice")
        await asked(model, server)
        session = server.connections[0].session
        assert session["voice"] == "marin"
        assert session["turn_detection"]["type"] == "semantic_vad"
        assert "turn_detection" not in session["audio"]["input"]


async def test_items_of_every_kind_arrive() -> None:
    async with RealtimeServer() as server:
        model = RealtimeModel(base_url=server.url, api_key="k")
        session = model.session()
        await session.generate_reply()
        frame = AudioFrame(bytes(480), 24000, 1, 240)
        chat_ctx = ChatContext.empty()
        chat_ctx.add_message(role="developer", content="Be kind.")
        chat_ctx.add_message(
            role="user",
            content=[
                "Look:",
                ImageContent(image=PIXEL),
                ImageContent(image="https://example.com/a.png"),
                ImageContent(image=VideoFrame(1, 1, "RGBA", bytes(4))),
                AudioContent(frame=[frame], transcript="Hm."),
            ],
        )
        chat_ctx.add_message(
            role="assistant", content=[AudioContent(frame=[frame], transcript="I said.")]
        )
        chat_ctx.add_message(role="assistant", content=[], id="x" * 50)
        chat_ctx.add_message(role="user", content="Long id.", id="y" * 50)
        await session.update_chat_ctx(chat_ctx)
        items = list(server.connections[0].contents.values())
        roles = [(item["role"], [part["type"] for part in item["content"]]) for item in items]
        assert roles == [
            ("system", ["input_text"]),
            ("user", ["input_text", "input_image", "input_image", "input_audio"]),
            ("assistant", ["output_text"]),
            ("user", ["input_text"]),
        ]
        assert len(items[-1]["id"]) <= 32
        assert [item.id for item in session.chat_ctx.items] == [i.id for i in chat_ctx.items]
        session.push_video(VideoFrame(1, 1, "RGBA", bytes(4)))
        await server.until(lambda: len(server.connections[0].items) == 5)
        await model.aclose()


async def test_events_of_ones_own() -> None:
    async with RealtimeServer() as server:
        model = RealtimeModel(base_url=server.url, api_key="k")
        session = model.session()
        queued: list[Any] = []
        received: list[Any] = []
        session.on("openai_client_event_queued", queued.append)
        session.on("openai_server_event_received", received.append)
        await session.generate_reply()
        session.send_event({"type": "input_audio_buffer.clear"})
        session.clear_audio()
        await server.until(
            lambda: (
                len([e for e in server.connections[0].events if e["type"].endswith("clear")]) == 2
            )
        )
        assert queued == [{"type": "input_audio_buffer.clear"}]
        assert "response.created" in [event["type"] for event in received]
        await model.aclose()


async def test_tools_of_every_kind_are_described() -> None:
    @function_tool(
        raw_schema={"name": "raw", "description": "", "parameters": {"type": "object"}, "meta": 1}
    )
    async def raw(raw_arguments: dict[str, object]) -> None: ...

    async with RealtimeServer() as server:
        model = RealtimeModel(base_url=server.url, api_key="k")
        session = model.session()
        hosted = ProviderTool(id="m", provider="openai", spec={"type": "mcp", "server_label": "x"})
        await session.update_tools([raw, hosted])
        await session.generate_reply()
        told = server.connections[0].session["tools"]
        assert [tool["type"] for tool in told] == ["function", "mcp"]
        assert "meta" not in told[0]
        with pytest.raises(ConfigurationError, match="no `spec`"):
            await session.update_tools([ProviderTool(id="empty")])
        await model.aclose()


async def test_sound_of_another_form_needs_soxr(monkeypatch: pytest.MonkeyPatch) -> None:
    import sys

    monkeypatch.setitem(sys.modules, "soxr", None)
    async with RealtimeServer() as server:
        model = RealtimeModel(
            base_url=server.url, api_key="k", conn_options=APIConnectOptions(max_retry=0)
        )
        session = model.session()
        with pytest.raises(
            ConfigurationError,
            match=r"24000 Hz and 1 channel, got 16000 Hz and 2.*rejoinder\[audio\]",
        ):
            session.push_audio(AudioFrame(bytes(640), 16000, 2, 160))
        await model.aclose()


@pytest.mark.may_block  # the first conversion imports numpy
async def test_sound_of_another_form_is_converted() -> None:
    async with RealtimeServer() as server:
        model = RealtimeModel(
            base_url=server.url, api_key="k", conn_options=APIConnectOptions(max_retry=0)
        )
        session = model.session()
        level = (1000).to_bytes(2, "little") + (3000).to_bytes(2, "little")
        for _ in range(40):
            session.push_audio(AudioFrame(level * 160, 16000, 2, 160))
        await server.until(lambda: server.connections and len(server.connections[0].audio) > 9_600)
        heard = memoryview(bytes(server.connections[0].audio)).cast("h")
        assert all(abs(sample - 2000) < 3 for sample in heard[1_200:])
        await model.aclose()


async def test_two_channels_of_the_right_rate_become_one() -> None:
    sound = SoundInput(24000)
    level = (1000).to_bytes(2, "little") + (3000).to_bytes(2, "little")
    piece = sound.feed(AudioFrame(level * 2400, 24000, 2, 2400))
    assert piece == (2000).to_bytes(2, "little") * 2400
