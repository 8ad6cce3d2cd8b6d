"""What is sent to the gateway of LiveKit, and the token that goes with it."""

from __future__ import annotations

from typing import Any

import jwt
import pydantic
import pytest
from hypothesis import given
from hypothesis import strategies as st

from providers.conversation import IMAGE, ONCE, TOOLS, conversation, sent
from rejoinder import _stamps
from rejoinder.errors import ConfigurationError
from rejoinder.llm import AudioContent, ImageContent
from rejoinder.llm.chat_context import ChatContext
from rejoinder.media import AudioFrame
from rejoinder.providers import inference
from rejoinder.providers.inference.token import mint
from rejoinder.testing.faults import FaultServer
from rejoinder.testing.history import assert_legal

SECRET = "a-secret-of-at-least-thirty-two-bytes"


def gateway(model: str = "openai/gpt-4.1", **options: Any) -> Any:
    options = {"api_key": "APIkey", "api_secret": SECRET, **options}
    return lambda url: inference.LLM(model, base_url=f"{url}/v1", **options)


@given(
    st.text(min_size=1, max_size=20),
    st.text(alphabet=st.characters(codec="utf-8"), min_size=32, max_size=40),
    st.floats(0, 4e9),
)
def test_the_token_is_what_others_make_of_it(key: str, secret: str, now: float) -> None:
    claims = {
        "inference": {"perform": True},
        "sub": "agent",
        "iss": key.encode("utf-8", "replace").decode(),
        "nbf": int(now),
        "exp": int(now) + 600,
    }
    token = mint(claims["iss"], secret, now)
    assert jwt.get_unverified_header(token) == {"alg": "HS256", "typ": "JWT"}
    checks = {"verify_exp": False, "verify_nbf": False}
    assert jwt.decode(token, secret, algorithms=["HS256"], options=checks) == claims
    header = jwt.encode(claims, secret, algorithm="HS256").split(".")
    assert token.split(".")[0] == header[0]


def test_a_token_is_valid_now_and_not_for_others() -> None:
    token = mint("APIkey", SECRET, _stamps.wall_now())
    assert jwt.decode(token, SECRET, algorithms=["HS256"])["iss"] == "APIkey"
    with pytest.raises(jwt.InvalidSignatureError):
        jwt.decode(token, SECRET[::-1], algorithms=["HS256"])


async def test_a_request() -> None:
    make = gateway(provider="azure", inference_class="priority", extra_kwargs={"temperature": 0.2})
    request = await sent(
        make, tools=TOOLS, tool_choice="auto", extra_kwargs={"prompt_cache_key": "k"}
    )
    assert request.path == "/v1/chat/completions"
    assert request.headers["x-livekit-inference-provider"] == "azure"
    assert request.headers["x-livekit-inference-priority"] == "priority"
    claims = jwt.decode(
        request.headers["authorization"].removeprefix("Bearer "), SECRET, algorithms=["HS256"]
    )
    assert (claims["iss"], claims["sub"]) == ("APIkey", "agent")
    assert claims["inference"] == {"perform": True}
    body = request.json()
    assert_legal("openai", body)
    assert body["model"] == "openai/gpt-4.1"
    assert (body["temperature"], body["prompt_cache_key"]) == (0.2, "k")
    assert body["tool_choice"] == "auto"
    assert body["stream_options"] == {"include_usage": True}
    (image,) = [part for part in body["messages"][1]["content"] if part["type"] == "image_url"]
    assert image["image_url"] == {"url": IMAGE, "detail": "auto"}
    weather = body["tools"][0]["function"]
    assert weather["strict"] is True
    assert weather["parameters"]["required"] == ["city", "unit", "days"]
    # An enum that may be null holds null, which LiveKit Agents 1.2.17 forgets.
    assert weather["parameters"]["properties"]["unit"]["enum"] == ["c", "f", None]


async def test_each_request_has_a_fresh_token(monkeypatch: pytest.MonkeyPatch) -> None:
    async with FaultServer() as server, gateway()(server.url) as llm:
        now = _stamps.wall_now()
        for later in (0, 700):
            monkeypatch.setattr(_stamps, "wall_now", lambda later=later: now + later)
            await llm.chat(chat_ctx=conversation(), conn_options=ONCE).collect()
        ends = [
            jwt.decode(
                request.headers["authorization"][7:],
                options={"verify_signature": False, "verify_nbf": False, "verify_exp": False},
            )["exp"]
            for request in server.requests
        ]
    assert ends[1] - ends[0] == 700


async def test_the_constructor_has_the_last_word() -> None:
    make = gateway(extra_kwargs={"tool_choice": "none", "parallel_tool_calls": False, "seed": 1})
    body = (
        await sent(
            make,
            tools=TOOLS,
            tool_choice="auto",
            parallel_tool_calls=True,
            extra_kwargs={"seed": 2, "top_p": 0.5},
        )
    ).json()
    assert (body["tool_choice"], body["parallel_tool_calls"]) == ("none", False)
    assert (body["seed"], body["top_p"]) == (1, 0.5)


class Person(pydantic.BaseModel):
    name: str


async def test_a_schema_for_the_answer() -> None:
    body = (await sent(gateway(), response_format=Person)).json()
    assert body["response_format"]["json_schema"]["strict"] is True


async def test_sound_and_documents() -> None:
    context = ChatContext.empty()
    parts: list[Any] = [
        AudioContent(frame=[AudioFrame(b"\1\0" * 80, 8000, 1, 80)], transcript="spoken"),
        ImageContent(image="data:application/pdf;base64,JVBERg=="),
        "read",
    ]
    context.add_message(role="user", content=parts)
    heard = (await sent(gateway("google/gemini-2.5-flash"), context)).json()
    kinds = [part["type"] for part in heard["messages"][0]["content"]]
    assert kinds == ["input_audio", "file", "text"]
    read = (await sent(gateway(), context)).json()
    assert [part["type"] for part in read["messages"][0]["content"]] == ["file", "text"]
    assert read["messages"][0]["content"][1]["text"] == "spoken\nread"


def test_where_keys_and_addresses_come_from(monkeypatch: pytest.MonkeyPatch) -> None:
    names = ("URL", "API_KEY", "API_SECRET")
    for name in names:
        monkeypatch.delenv(f"LIVEKIT_{name}", raising=False)
        monkeypatch.delenv(f"LIVEKIT_INFERENCE_{name}", raising=False)
    with pytest.raises(ConfigurationError, match="LIVEKIT_API_KEY"):
        inference.LLM("x")
    monkeypatch.setenv("LIVEKIT_API_KEY", "general")
    monkeypatch.setenv("LIVEKIT_API_SECRET", SECRET)
    llm = inference.LLM.from_model_string("openai/gpt-4.1-mini")
    assert llm._base_url == "https://agent-gateway.livekit.cloud/v1"
    assert (llm.model, llm.provider) == ("openai/gpt-4.1-mini", "livekit")
    assert llm._api_key == "general"
    monkeypatch.setenv("LIVEKIT_INFERENCE_API_KEY", "special")
    assert inference.LLM("x")._api_key == "special"
    monkeypatch.setenv("LIVEKIT_URL", "wss://mine.staging.livekit.cloud")
    assert "staging" in inference.LLM("x")._base_url
    monkeypatch.setenv("LIVEKIT_INFERENCE_URL", "https://mine.example/v1/")
    assert inference.LLM("x")._base_url == "https://mine.example/v1"
    assert inference.LLM("x", base_url="http://localhost:1")._base_url == "http://localhost:1"


async def test_other_options_from_now_on() -> None:
    async with FaultServer() as server, gateway()(server.url) as llm:
        llm.update_options(model="other/model", extra_kwargs={"seed": 4})
        await llm.chat(chat_ctx=conversation(), conn_options=ONCE).collect()
        body = server.requests[0].json()
    assert (body["model"], body["seed"]) == ("other/model", 4)
