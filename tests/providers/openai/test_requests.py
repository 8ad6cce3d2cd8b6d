"""What is sent to OpenAI, to Azure, and to the servers that speak the same dialect."""

from __future__ import annotations

import base64
import dataclasses
import inspect
import io
import wave
from typing import Any, TypedDict

import pydantic
import pytest
from openai.types.chat.completion_create_params import CompletionCreateParamsStreaming
from openai.types.responses.response_create_params import ResponseCreateParamsStreaming

from providers.conversation import (
    IMAGE,
    ONCE,
    RAW_SCHEMA,
    TOOLS,
    WEATHER_SCHEMA,
    conversation,
    sent,
)
from rejoinder._core.families import find_family
from rejoinder._core.hosts import HOSTS as ALL_HOSTS
from rejoinder.errors import APIStatusError, ConfigurationError
from rejoinder.llm.chat_context import (
    AudioContent,
    ChatContext,
    ChatMessage,
    FunctionCall,
    FunctionCallOutput,
    ImageContent,
)
from rejoinder.llm.tool_context import ProviderTool
from rejoinder.media import AudioFrame
from rejoinder.providers import openai
from rejoinder.testing.faults import Answer, Call, FaultServer
from rejoinder.types import DEFAULT_API_CONNECT_OPTIONS, NOT_GIVEN, APIConnectOptions

# Those with a constructor of their own.
HOSTS = {
    key: host
    for key, host in ALL_HOSTS.items()
    if key == "openai" or (host.base_url and hasattr(openai.LLM, f"with_{key}"))
}
KEYS = sorted({host.key_env for host in HOSTS.values() if host.key_env})


@pytest.fixture(autouse=True)
def no_keys_from_outside(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in (
        *KEYS,
        "OPENAI_BASE_URL",
        "OPENAI_ORG_ID",
        "OPENAI_PROJECT_ID",
        "OPENAI_API_VERSION",
        "AZURE_OPENAI_API_KEY",
        "AZURE_OPENAI_AD_TOKEN",
        "AZURE_OPENAI_ENDPOINT",
    ):
        monkeypatch.delenv(name, raising=False)


def gpt(**options: Any) -> Any:
    return lambda url: openai.LLM(**{"api_key": "sk-test", "base_url": f"{url}/v1", **options})


def talk() -> ChatContext:
    """The conversation of the recorded requests of LiveKit Agents 1.2.17."""
    context = conversation(url=False)
    context.items.insert(1, ChatMessage(role="developer", content=["Dev note."]))
    return context


STRICT_WEATHER: dict[str, Any] = {
    "properties": {
        "city": {"description": "The city name", "type": "string"},
        "unit": {
            "description": "Temperature unit",
            "enum": ["c", "f", None],
            "type": ["string", "null"],
        },
        "days": {"type": ["integer", "null"]},
    },
    "required": ["city", "unit", "days"],
    "type": "object",
    "additionalProperties": False,
}
SPECS: list[dict[str, Any]] = [
    {
        "type": "function",
        "function": {
            "name": "get_weather",
            "strict": True,
            "description": "Look up the weather.\n",
            "parameters": STRICT_WEATHER,
        },
    },
    {
        "type": "function",
        "function": {"name": "raw_tool", "description": "raw", "parameters": RAW_SCHEMA},
    },
]
# As LiveKit Agents 1.2.17 sends it, but for the arguments of a call without any: servers that parse
# them refuse an empty text, so they are an empty object.
MESSAGES: list[dict[str, Any]] = [
    {"role": "system", "content": "You are S."},
    {"role": "developer", "content": "Dev note."},
    {
        "role": "user",
        "content": [
            {"type": "text", "text": "look"},
            {"type": "image_url", "image_url": {"url": IMAGE, "detail": "auto"}},
        ],
    },
    {
        "role": "assistant",
        "content": "Checking.",
        "tool_calls": [
            {
                "id": "call_1",
                "type": "function",
                "function": {"name": "get_weather", "arguments": '{"city":"Rome"}'},
            },
            {
                "id": "call_2",
                "type": "function",
                "function": {"name": "raw_tool", "arguments": "{}"},
            },
        ],
    },
    {"role": "tool", "tool_call_id": "call_1", "content": "sunny"},
    {"role": "tool", "tool_call_id": "call_2", "content": "boom"},
    {"role": "user", "content": "and now?"},
]
STREAM: dict[str, Any] = {"stream": True, "stream_options": {"include_usage": True}}


def fits(body: dict[str, Any], kind: Any = CompletionCreateParamsStreaming) -> dict[str, Any]:
    """`body`, if it is what the vendor's own types say it has to be."""
    adapter = pydantic.TypeAdapter[Any](kind)
    adapter.validate_json(adapter.dump_json(adapter.validate_python(body)))
    return body


# -- Chat Completions -----------------------------------------------------------------------------


async def test_the_least() -> None:
    request = await sent(gpt(), talk())
    assert request.method == "POST"
    assert request.path == "/v1/chat/completions"
    assert request.headers["authorization"] == "Bearer sk-test"
    assert request.headers["content-type"] == "application/json"
    assert "openai-organization" not in request.headers
    assert fits(request.json()) == {"model": "gpt-4.1", "messages": MESSAGES, **STREAM}


async def test_tools() -> None:
    request = await sent(gpt(), talk(), tools=TOOLS)
    assert fits(request.json()) == {
        "model": "gpt-4.1",
        "messages": MESSAGES,
        "tools": SPECS,
        **STREAM,
    }


async def test_every_option() -> None:
    context = talk()
    context.items[2].content.append(
        ImageContent(image="https://example.com/a.jpg", inference_detail="low")
    )
    request = await sent(
        gpt(
            user="u1",
            safety_identifier="sid",
            prompt_cache_key="pck",
            prompt_cache_retention="24h",
            temperature=0.5,
            top_p=0.9,
            parallel_tool_calls=True,
            tool_choice="auto",
            store=True,
            metadata={"a": "b"},
            max_completion_tokens=99,
            service_tier="flex",
            reasoning_effort="low",
            verbosity="low",
            extra_body={"foo": 1},
            extra_headers={"X-E": "1"},
            extra_query={"q": "1"},
        ),
        context,
        tools=TOOLS,
        parallel_tool_calls=False,
        tool_choice={"type": "function", "function": {"name": "get_weather"}},
    )
    assert request.path == "/v1/chat/completions?q=1"
    assert request.headers["x-e"] == "1"
    body = request.json()
    picture = {"url": "https://example.com/a.jpg", "detail": "low"}
    messages = [dict(message) for message in MESSAGES]
    messages[2] = {
        "role": "user",
        "content": [
            *MESSAGES[2]["content"],
            {"type": "image_url", "image_url": picture},
        ],
    }
    assert fits(body) == {
        "model": "gpt-4.1",
        "messages": messages,
        "max_completion_tokens": 99,
        "metadata": {"a": "b"},
        "parallel_tool_calls": False,
        "prompt_cache_key": "pck",
        "prompt_cache_retention": "24h",
        "reasoning_effort": "low",
        "safety_identifier": "sid",
        "service_tier": "flex",
        "store": True,
        "temperature": 0.5,
        "tool_choice": {"type": "function", "function": {"name": "get_weather"}},
        "tools": SPECS,
        "top_p": 0.9,
        "user": "u1",
        "verbosity": "low",
        "foo": 1,
        **STREAM,
    }


async def test_extra_kwargs() -> None:
    request = await sent(
        gpt(temperature=0.5, extra_body={"a": 1, "b": 1}, extra_headers={"X-A": "1"}),
        extra_kwargs={
            "temperature": 0.9,
            "seed": 7,
            "extra_body": {"b": 2},
            "extra_headers": {"x-a": "2"},
            "extra_query": {"v": "x y"},
        },
    )
    body = request.json()
    assert body["temperature"] == 0.5, "the constructor's word counts"
    assert (body["seed"], body["a"], body["b"]) == (7, 1, 2)
    assert request.headers["x-a"] == "2"
    assert request.path.endswith("?v=x%20y")


async def test_nothing_about_tools_without_tools() -> None:
    body = (await sent(gpt(tool_choice="required", parallel_tool_calls=True))).json()
    assert not {"tools", "tool_choice", "parallel_tool_calls"} & body.keys()


async def test_a_choice_is_checked() -> None:
    llm = openai.LLM(api_key="k")
    with pytest.raises(ValueError, match="tool_choice"):
        llm.chat(chat_ctx=talk(), tools=TOOLS, tool_choice="sometimes")  # type: ignore[arg-type]


class Out(pydantic.BaseModel):
    a: int
    b: str | None = None


class OutDict(TypedDict):
    a: int
    b: str | None


@dataclasses.dataclass
class OutClass:
    a: int
    b: str | None = None


@pytest.mark.parametrize("kind", [Out, OutDict, OutClass], ids=lambda kind: kind.__name__)
async def test_a_response_format(kind: Any) -> None:
    body = fits((await sent(gpt(), talk(), response_format=kind)).json())
    form = body["response_format"]
    assert form["type"] == "json_schema"
    assert form["json_schema"]["strict"] is True
    assert form["json_schema"]["name"] == kind.__name__
    schema = form["json_schema"]["schema"]
    assert schema["required"] == ["a", "b"]
    assert schema["additionalProperties"] is False
    assert schema["properties"]["a"] == {"type": "integer"}


async def test_a_response_format_of_ones_own() -> None:
    body = (await sent(gpt(), response_format={"type": "json_object"})).json()
    assert body["response_format"] == {"type": "json_object"}
    body = (await sent(gpt(api="responses"), response_format={"type": "json_object"})).json()
    assert body["text"] == {"format": {"type": "json_object"}}


# -- families of models ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("model", "kept", "effort"),
    [
        ("gpt-4.1", {"temperature", "top_p"}, None),
        ("gpt-5", set(), "minimal"),
        ("gpt-5-mini", set(), "minimal"),
        ("gpt-5-2025-08-07", set(), "minimal"),
        ("gpt-5-chat-latest", {"temperature", "top_p"}, None),
        ("gpt-5.1", {"temperature", "top_p"}, "none"),
        ("gpt-5.2", {"temperature", "top_p"}, "none"),
        ("openai/gpt-5-nano", set(), "minimal"),
        ("o3-mini", set(), None),
        ("grok-4", {"temperature", "top_p"}, None),
    ],
)
async def test_what_a_model_refuses_is_left_out(
    model: str, kept: set[str], effort: str | None
) -> None:
    body = (await sent(gpt(model=model, temperature=0.5, top_p=0.5))).json()
    assert {"temperature", "top_p"} & body.keys() == kept
    assert body.get("reasoning_effort") == effort


async def test_effort_is_left_out_beside_tools_where_that_is_refused() -> None:
    body = (await sent(gpt(model="gpt-5.2"), tools=TOOLS)).json()
    assert "reasoning_effort" not in body
    body = (await sent(gpt(model="gpt-5.1", reasoning_effort="high"), tools=TOOLS)).json()
    assert body["reasoning_effort"] == "high"


async def test_thinking_grok_refuses_penalties() -> None:
    extra = {"presence_penalty": 1, "frequency_penalty": 1, "stop": ["x"], "seed": 1}
    body = (await sent(gpt(model="grok-4-1-fast-reasoning"), extra_kwargs=extra)).json()
    assert {*extra} & body.keys() == {"seed"}
    body = (await sent(gpt(model="grok-4-1-fast-non-reasoning"), extra_kwargs=extra)).json()
    assert {*extra} & body.keys() == {*extra}


async def test_the_option_family_tells_what_the_name_does_not() -> None:
    body = (await sent(gpt(model="prod-chat", family="gpt-5", temperature=0.5))).json()
    assert body["model"] == "prod-chat"
    assert body["reasoning_effort"] == "minimal"
    assert "temperature" not in body
    with pytest.raises(ConfigurationError, match="family: expected"):
        openai.LLM(model="m", api_key="k", family="prod-chat")


async def test_reasoning_in_portable_words() -> None:
    body = (await sent(gpt(model="gpt-5", reasoning="low"))).json()
    assert body["reasoning_effort"] == "low"
    body = (await sent(gpt(model="gpt-5", reasoning="low", reasoning_effort="high"))).json()
    assert body["reasoning_effort"] == "high", "the words of the API win"
    with pytest.raises(ConfigurationError, match=r"reasoning: expected .*'off'"):
        openai.LLM(model="gpt-5", api_key="k", reasoning="a lot")  # type: ignore[arg-type]


async def test_what_was_changed_is_told_as_data() -> None:
    async with FaultServer() as server:
        server.script(Answer(text=("ok",)))
        llm = gpt(model="o3", temperature=0.5)(server.url)
        stream = llm.chat(chat_ctx=conversation(), conn_options=ONCE)
        await stream.collect()
        assert [change.kind for change in stream.changes if not change.item_id] == ["option"]
        await llm.aclose()


# -- Responses ------------------------------------------------------------------------------------


async def test_responses() -> None:
    request = await sent(
        gpt(
            api="responses",
            model="gpt-5-mini",
            max_completion_tokens=99,
            verbosity="low",
            store=False,
            tool_choice="required",
        ),
        talk(),
        tools=TOOLS,
        response_format=Out,
        parallel_tool_calls=False,
    )
    assert request.path == "/v1/responses"
    body = fits(request.json(), ResponseCreateParamsStreaming)
    assert body.pop("text") == {
        "verbosity": "low",
        "format": {
            "type": "json_schema",
            "name": "Out",
            "strict": True,
            "schema": {
                "properties": {"a": {"type": "integer"}, "b": {"type": ["string", "null"]}},
                "required": ["a", "b"],
                "type": "object",
                "additionalProperties": False,
            },
        },
    }
    tools = body.pop("tools")
    assert [tool["name"] for tool in tools] == ["get_weather", "raw_tool"]
    assert tools[0] == {
        "type": "function",
        "name": "get_weather",
        "strict": True,
        "description": "Look up the weather.\n",
        "parameters": STRICT_WEATHER,
    }
    assert body == {
        "model": "gpt-5-mini",
        "stream": True,
        "store": False,
        "max_output_tokens": 99,
        "reasoning": {"effort": "minimal"},
        "include": ["reasoning.encrypted_content"],
        "tool_choice": "required",
        "parallel_tool_calls": False,
        "input": [
            {"role": "system", "content": "You are S."},
            {"role": "developer", "content": "Dev note."},
            {
                "role": "user",
                "content": [
                    {"type": "input_text", "text": "look"},
                    {"type": "input_image", "image_url": IMAGE, "detail": "auto"},
                ],
            },
            {"role": "assistant", "content": "Checking."},
            {
                "type": "function_call",
                "call_id": "call_1",
                "name": "get_weather",
                "arguments": '{"city":"Rome"}',
            },
            {
                "type": "function_call",
                "call_id": "call_2",
                "name": "raw_tool",
                "arguments": "{}",
            },
            {"type": "function_call_output", "call_id": "call_1", "output": "sunny"},
            {"type": "function_call_output", "call_id": "call_2", "output": "boom"},
            {"role": "user", "content": "and now?"},
        ],
    }


async def test_provider_tools_are_passed_on() -> None:
    search = ProviderTool(id="search", provider="openai", spec={"type": "web_search"})
    other = ProviderTool(id="code", provider="anthropic", spec={"type": "code_execution"})
    body = (await sent(gpt(api="responses"), tools=[*TOOLS, search, other])).json()
    assert body["tools"][2:] == [{"type": "web_search"}]


async def test_reasoning_goes_back_with_the_item_it_led_to() -> None:
    thought = {"type": "reasoning", "id": "rs_1", "summary": [], "encrypted_content": "AAAA"}
    later = {"type": "reasoning", "id": "rs_2", "summary": [], "encrypted_content": "BBBB"}
    context = ChatContext.empty()
    context.add_message(role="user", content="weather?")
    context.insert(
        FunctionCall(
            call_id="call_1",
            name="get_weather",
            arguments="{}",
            extra={"openai": {"reasoning_items": [thought], "item_id": "fc_1"}},
        )
    )
    context.insert(
        FunctionCallOutput(call_id="call_1", name="get_weather", output="sunny", is_error=False)
    )
    context.insert(
        ChatMessage(
            role="assistant",
            content=["Sunny."],
            extra={"openai": {"reasoning_items": [later], "message_id": "msg_1"}},
        )
    )
    context.add_message(role="user", content="thanks")
    request = await sent(gpt(api="responses", model="gpt-5"), context)
    body = fits(request.json(), ResponseCreateParamsStreaming)
    assert body["input"][1:-1] == [
        thought,
        {
            "type": "function_call",
            "id": "fc_1",
            "call_id": "call_1",
            "name": "get_weather",
            "arguments": "{}",
        },
        {"type": "function_call_output", "call_id": "call_1", "output": "sunny"},
        later,
        {
            "type": "message",
            "id": "msg_1",
            "role": "assistant",
            "status": "completed",
            "content": [{"type": "output_text", "text": "Sunny.", "annotations": []}],
        },
    ]
    # Nobody else sees it.
    body = (await sent(gpt(), context)).json()
    assert "AAAA" not in str(body)
    assert "rs_1" not in str(body)


async def test_reasoning_goes_back_to_the_server_it_came_from_only() -> None:
    def responses(url: str) -> Any:
        return openai.LLM(model="gpt-5", api_key="k", base_url=f"{url}/v1", api="responses")

    context = ChatContext.empty()
    context.add_message(role="user", content="weather?")
    async with FaultServer() as here, FaultServer() as elsewhere:
        here.script(
            Answer(text=(), thinking="Hm.", calls=(Call("get_weather"),)),
            Answer(text=("Sunny.",), thinking="Easy."),
        )
        async with responses(here.url) as llm, responses(elsewhere.url) as other:
            reply = await llm.chat(chat_ctx=context, tools=TOOLS).collect()
            (made,) = reply.tool_calls
            call = FunctionCall(
                call_id=made.call_id,
                name=made.name,
                arguments=made.arguments,
                extra=made.extra or {},
            )
            output = FunctionCallOutput(
                call_id=made.call_id, name=made.name, output="22", is_error=False
            )
            context.insert([call, output])
            reply = await llm.chat(chat_ctx=context, tools=TOOLS).collect()
            context.add_message(role="assistant", content=reply.text, extra=reply.extra)
            context.add_message(role="user", content="thanks")
            saved = ChatContext.from_dict(context.to_dict(exclude_timestamp=False))
            for history in (context, saved):
                await llm.chat(chat_ctx=history).collect()
                await other.chat(chat_ctx=history).collect()
    kept, again = (
        fits(request.json(), ResponseCreateParamsStreaming)["input"]
        for request in here.requests[2:]
    )
    assert kept == again
    assert [item.get("id") for item in kept] == [None, "rs_1", "fc_0", None, None, None]
    bare, again = (
        fits(request.json(), ResponseCreateParamsStreaming)["input"]
        for request in elsewhere.requests
    )
    assert (
        bare
        == again
        == [
            {"role": "user", "content": "weather?"},
            {
                "type": "function_call",
                "call_id": made.call_id,
                "name": "get_weather",
                "arguments": made.arguments,
            },
            {"type": "function_call_output", "call_id": made.call_id, "output": "22"},
            {"role": "assistant", "content": "Sunny."},
            {"role": "user", "content": "thanks"},
        ]
    )


# -- what is heard and read -----------------------------------------------------------------------


def sound() -> AudioContent:
    frame = AudioFrame(b"\x01\x00" * 160, 16000, 1, 160)
    return AudioContent(frame=[frame, frame], transcript="what I said")


async def test_a_model_that_hears_gets_the_sound() -> None:
    context = ChatContext.empty()
    context.add_message(role="user", content=[sound(), "and this?"])
    body = fits((await sent(gpt(model="gpt-4o-audio-preview"), context)).json())
    heard, text = body["messages"][0]["content"]
    assert text == {"type": "text", "text": "and this?"}
    assert heard["type"] == "input_audio"
    assert heard["input_audio"]["format"] == "wav"
    with wave.open(io.BytesIO(base64.b64decode(heard["input_audio"]["data"]))) as file:
        assert (file.getframerate(), file.getnchannels(), file.getnframes()) == (16000, 1, 320)


async def test_a_model_that_does_not_hear_gets_the_transcript() -> None:
    context = ChatContext.empty()
    context.add_message(role="user", content=[sound()])
    body = (await sent(gpt(), context)).json()
    assert body["messages"] == [{"role": "user", "content": "what I said"}]
    body = (await sent(gpt(audio_input=True), context)).json()
    assert body["messages"][0]["content"][0]["type"] == "input_audio"


PDF = "data:application/pdf;base64,JVBERi0xLjQK"


async def test_a_document() -> None:
    context = ChatContext.empty()
    context.add_message(
        role="user", content=["Read.", ImageContent(id="img_1", image=PDF), "Well?"]
    )
    body = fits((await sent(gpt(), context)).json())
    assert body["messages"][0]["content"] == [
        {"type": "file", "file": {"filename": "img_1.pdf", "file_data": PDF}},
        {"type": "text", "text": "Read.\nWell?"},
    ]
    request = await sent(gpt(api="responses"), context)
    body = fits(request.json(), ResponseCreateParamsStreaming)
    assert body["input"][0]["content"] == [
        {"type": "input_file", "filename": "img_1.pdf", "file_data": PDF},
        {"type": "input_text", "text": "Read.\nWell?"},
    ]


async def test_a_document_the_provider_keeps() -> None:
    context = ChatContext.empty()
    context.add_message(role="user", content=[ImageContent(image="file-abc"), "?"])
    body = fits((await sent(gpt(), context)).json())
    assert body["messages"][0]["content"][0] == {"type": "file", "file": {"file_id": "file-abc"}}


async def test_pictures_are_a_snapshot_too() -> None:
    context = ChatContext.empty()
    picture = ImageContent(image=IMAGE)
    context.add_message(role="user", content=["look", picture])
    async with FaultServer() as server, gpt()(server.url) as llm:
        stream = llm.chat(chat_ctx=context)
        picture.image = "https://example.com/other.png"
        context.items[0].content[0] = "changed"
        await stream.collect()
        body = server.requests[0].json()
    assert body["messages"] == [
        {
            "role": "user",
            "content": [
                {"type": "text", "text": "look"},
                {"type": "image_url", "image_url": {"url": IMAGE, "detail": "auto"}},
            ],
        }
    ]


# -- Azure ----------------------------------------------------------------------------------------


def azure(**options: Any) -> Any:
    return lambda url: openai.LLM.with_azure(
        **{"azure_endpoint": url, "api_version": "2024-10-21", "azure_deployment": "dep", **options}
    )


async def test_azure_with_a_key() -> None:
    request = await sent(azure(api_key="az"))
    assert request.path == "/openai/deployments/dep/chat/completions?api-version=2024-10-21"
    assert request.headers["api-key"] == "az"
    assert "authorization" not in request.headers
    assert request.json()["model"] == "gpt-4o"


async def test_azure_with_a_token() -> None:
    request = await sent(azure(azure_ad_token="tok"))
    assert request.headers["authorization"] == "Bearer tok"
    assert "api-key" not in request.headers


async def test_azure_asks_for_a_token_at_each_attempt() -> None:
    tokens = iter(["one", "two"])

    async def later() -> str:
        return next(tokens)

    async with (
        FaultServer() as server,
        azure(azure_ad_token_provider=later)(server.url) as llm,
    ):
        server.script(Answer(status=503), Answer(text="Hello"))
        await llm.chat(chat_ctx=conversation()).collect()
        assert [request.headers["authorization"] for request in server.requests] == [
            "Bearer one",
            "Bearer two",
        ]
    request = await sent(azure(azure_ad_token_provider=lambda: "sync"))
    assert request.headers["authorization"] == "Bearer sync"


async def test_a_token_that_is_none_is_told() -> None:
    async with FaultServer() as server, azure(azure_ad_token_provider=str)(server.url) as llm:
        with pytest.raises(ConfigurationError, match="token"):
            await llm.chat(chat_ctx=conversation()).collect()


async def test_azure_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in (
        ("AZURE_OPENAI_API_KEY", "env-key"),
        ("OPENAI_API_VERSION", "2025-01-01"),
        ("OPENAI_ORG_ID", "org"),
        ("OPENAI_PROJECT_ID", "proj"),
    ):
        monkeypatch.setenv(name, value)

    def make(url: str) -> Any:
        monkeypatch.setenv("AZURE_OPENAI_ENDPOINT", url)
        return openai.LLM.with_azure(model="m/1")

    request = await sent(make)
    assert request.path == "/openai/deployments/m%2F1/chat/completions?api-version=2025-01-01"
    assert request.headers["api-key"] == "env-key"
    assert request.headers["openai-organization"] == "org"
    assert request.headers["openai-project"] == "proj"


async def test_azure_responses() -> None:
    request = await sent(azure(api_key="az", api="responses", api_version=None))
    assert request.path == "/openai/v1/responses"
    assert request.json()["model"] == "dep"


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({}, "AZURE_OPENAI_ENDPOINT"),
        ({"azure_endpoint": "https://h"}, "OPENAI_API_VERSION"),
        ({"azure_endpoint": "https://h", "api_version": "1"}, "AZURE_OPENAI_API_KEY"),
    ],
)
def test_what_azure_misses_is_named(options: dict[str, str], named: str) -> None:
    with pytest.raises(ConfigurationError, match=named):
        openai.LLM.with_azure(**options)


# -- other servers --------------------------------------------------------------------------------

PLAIN = sorted(set(HOSTS) - {"openai", "letta", "ollama", "openrouter"})


@pytest.mark.parametrize("name", PLAIN)
async def test_a_host(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    host = HOSTS[name]
    make = getattr(openai.LLM, f"with_{name}")
    assert host.key_env is not None
    with pytest.raises(ConfigurationError, match=host.key_env):
        make()
    monkeypatch.setenv(host.key_env, "env-key")
    llm = make()
    assert llm.model == host.model
    assert host.base_url.startswith(f"https://{llm.provider}")

    def ask(tools: list[Any]) -> Any:
        options: dict[str, Any] = {"temperature": 0.1, "max_completion_tokens": 5}
        return sent(lambda url: make(base_url=f"{url}/v1", **options), tools=tools)

    takes_tools = find_family(host.model).tools
    if not takes_tools:  # Perplexity
        with pytest.raises(ConfigurationError, match="this model takes no tools"):
            await ask(TOOLS)
    request = await ask(TOOLS if takes_tools else [])
    assert request.path == "/v1/chat/completions"
    assert request.headers["authorization"] == "Bearer env-key"
    body = request.json()
    assert body["model"] == host.model
    assert body["temperature"] == 0.1
    assert body.get("tool_choice") == (host.tool_choice if takes_tools else None)
    limit = "max_tokens" if host.limits_by_max_tokens else "max_completion_tokens"
    assert body[limit] == 5
    assert not ({"max_tokens", "max_completion_tokens"} - {limit}) & body.keys()
    if takes_tools:
        assert ("strict" in body["tools"][0]["function"]) is host.strict_tools
    if takes_tools and not host.strict_tools:
        assert body["tools"][0]["function"]["parameters"] == WEATHER_SCHEMA


def without_developer(messages: list[Any]) -> list[Any]:
    """As servers other than OpenAI's want it."""
    return [
        {**message, "role": "system"} if message["role"] == "developer" else message
        for message in messages
    ]


async def test_openrouter() -> None:
    @dataclasses.dataclass
    class Plugin:
        max_results: int = 5
        search_prompt: str | None = None
        id: str = "web"

    request = await sent(
        lambda url: openai.LLM.with_openrouter(
            api_key="or",
            base_url=f"{url}/v1",
            site_url="https://s",
            app_name="app",
            fallback_models=["m2"],
            provider={"order": ["x"]},
            plugins=[Plugin()],
            extra_headers={"X-More": "1"},
        ),
        talk(),
        tools=TOOLS,
    )
    assert request.headers["http-referer"] == "https://s"
    assert request.headers["x-title"] == "app"
    assert request.headers["x-more"] == "1"
    assert request.json() == {
        "model": "auto",
        "messages": without_developer(MESSAGES),
        "tools": SPECS,
        "tool_choice": "auto",
        "provider": {"order": ["x"]},
        "models": ["auto", "m2"],
        "plugins": [{"max_results": 5, "id": "web"}],
        **STREAM,
    }


async def test_ollama() -> None:
    request = await sent(lambda url: openai.LLM.with_ollama(base_url=f"{url}/v1"), talk())
    assert request.headers["authorization"] == "Bearer ollama"
    messages = without_developer(MESSAGES)
    assert request.json() == {"model": "llama3.1", "messages": messages, **STREAM}


async def test_letta() -> None:
    request = await sent(
        lambda url: openai.LLM.with_letta(agent_id="agent/1", base_url=f"{url}/x/", api_key="le")
    )
    assert request.path == "/x/agent%2F1/chat/completions"
    with pytest.raises(ConfigurationError, match="base_url"):
        openai.LLM.with_letta(agent_id="a", base_url="ftp://h", api_key="le")


# -- addresses, keys, patience --------------------------------------------------------------------


@pytest.mark.parametrize("blank", [None, "", " \n"])
def test_a_missing_key_is_named(blank: str | None, monkeypatch: pytest.MonkeyPatch) -> None:
    if blank is not None:
        monkeypatch.setenv("OPENAI_API_KEY", blank)
        monkeypatch.setenv("OPENAI_BASE_URL", blank)
        with pytest.raises(ValueError, match="OPENAI_API_KEY"):
            openai.LLM(api_key=blank)
    with pytest.raises(ValueError, match="OPENAI_API_KEY"):
        openai.LLM()


async def test_white_space_around_what_comes_from_files_does_not_matter(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "file-key\n")
    monkeypatch.setenv("OPENAI_BASE_URL", " https://proxy.example/v1/\n")
    llm = openai.LLM()
    assert (llm._access.key, llm._access.base_url) == ("file-key", "https://proxy.example/v1/")
    request = await sent(gpt(api_key=lambda: "asked\n"))
    assert request.headers["authorization"] == "Bearer asked"


async def test_a_server_of_ones_own_may_need_no_key() -> None:
    request = await sent(lambda url: openai.LLM(model="m", base_url=url))
    assert "authorization" not in request.headers


async def test_addresses(monkeypatch: pytest.MonkeyPatch) -> None:
    request = await sent(lambda url: openai.LLM(api_key="k", base_url=f"{url}/a/b/?x=1"))
    assert request.path == "/a/b/chat/completions?x=1"
    with pytest.raises(ConfigurationError, match="base_url"):
        openai.LLM(api_key="k", base_url="localhost:8080")
    monkeypatch.setenv("OPENAI_BASE_URL", "https://proxy.example/v1")
    assert openai.LLM(api_key="k").provider == "proxy.example"
    assert openai.LLM(api_key="k", base_url="https://user:pw@h.example/v1").provider == "h.example"


async def test_a_key_may_be_asked_for() -> None:
    async def key() -> str:
        return "asked"

    request = await sent(gpt(api_key=key))
    assert request.headers["authorization"] == "Bearer asked"


async def test_a_header_of_ones_own_counts_more_than_the_key() -> None:
    request = await sent(gpt(extra_headers={"authorization": "Basic mine"}))
    assert request.headers["authorization"] == "Basic mine"


async def test_organisation_and_project(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_ORG_ID", "org")
    monkeypatch.setenv("OPENAI_PROJECT_ID", "proj")
    llm = openai.LLM(api_key="k")
    assert llm._headers["OpenAI-Organization"] == "org"
    request = await sent(gpt())
    assert "openai-organization" not in request.headers, "they are no business of other servers"


async def test_a_client_of_the_vendor_gives_its_address_and_key() -> None:
    import openai as vendor

    async with vendor.AsyncOpenAI(
        api_key="ck",
        base_url="http://h.example/v1",
        organization="org",
        default_headers={"X-C": "1"},
        default_query={"q": "1"},
    ) as client:
        llm = openai.LLM(client=client, model="m")
        assert llm._url == "http://h.example/v1/chat/completions?q=1"
        assert llm._headers["OpenAI-Organization"] == "org"
        assert llm._headers["X-C"] == "1"
        assert llm._access.key == "ck"
    async with vendor.AsyncAzureOpenAI(
        api_key="ak",
        azure_endpoint="http://h.example",
        azure_deployment="dep",
        api_version="2024-10-21",
    ) as client:
        llm = openai.LLM(client=client, model="m")
        assert llm._url == (
            "http://h.example/openai/deployments/dep/chat/completions?api-version=2024-10-21"
        )
        assert (llm._access.key, llm._access.key_header) == ("ak", "api-key")


def test_secrets_do_not_show() -> None:
    llm = openai.LLM(
        api_key="canary-key",
        base_url="https://me:canary-password@host.example/v1?key=canary-query",
        extra_headers={"X-Secret": "canary-header"},
        extra_query={"sig": "canary-parameter"},
    )
    assert "canary" not in repr(llm) + repr(llm._access)


@pytest.mark.parametrize(
    "url",
    [
        "htp://me:canary@host/v1", "https://me:canary@host:99999/v1", "me:canary@host",
        "https://host/v1 ?key=canary", "host?key=canary",
    ],
)  # fmt: skip
def test_an_address_that_cannot_be_used_shows_no_secret(url: str) -> None:
    with pytest.raises(ConfigurationError, match="base_url: expected") as caught:
        openai.LLM(api_key="k", base_url=url)
    assert "canary" not in str(caught.value)


class Patience:
    connect = 3.0
    read = 7.0


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({}, DEFAULT_API_CONNECT_OPTIONS),
        ({"timeout": 5}, APIConnectOptions(timeout=5.0)),
        (
            {"timeout": Patience(), "max_retries": 1},
            APIConnectOptions(max_retry=1, connect=3.0, first_output=7.0, between_outputs=7.0),
        ),
    ],
)
def test_patience(options: dict[str, Any], expected: APIConnectOptions) -> None:
    llm = openai.LLM(api_key="k", **options)
    stream = llm.chat(chat_ctx=conversation())
    assert stream._conn_options == expected
    stream = llm.chat(chat_ctx=conversation(), conn_options=ONCE)
    assert stream._conn_options is ONCE


@pytest.mark.parametrize(
    "options",
    [
        {"timeout": "5"}, {"max_retries": -1}, {"max_retries": "1"}, {"extra_headers": ["a"]},
        {"extra_query": "a=1"}, {"extra_body": 5}, {"client": 5}, {"api_key": 5}, {"base_url": 5},
    ],
    ids=repr,
)  # fmt: skip
def test_options_of_a_wrong_type_are_named(options: dict[str, Any]) -> None:
    (name,) = options
    for make in (openai.LLM, openai.LLM.with_openrouter):
        with pytest.raises(ConfigurationError, match=f"{name}: expected"):
            make(**{"api_key": "k", **options})


async def test_what_is_none_is_not_sent() -> None:
    nothing = {"extra_headers": None, "extra_query": None, "extra_body": None}
    for make in (openai.LLM, openai.LLM.with_openrouter):
        request = await sent(
            lambda url, make=make: make(api_key="k", base_url=url, **nothing),
            extra_kwargs=nothing,
        )
        assert request.path == "/chat/completions"
    some = {"extra_headers": {"X-A": None, "X-B": 7}, "extra_query": {"a": None, "b": 7}}
    request = await sent(gpt(**some), extra_kwargs={"extra_query": {"b": 8}})
    assert "x-a" not in request.headers
    assert request.headers["x-b"] == "7"
    assert request.path.endswith("?b=8"), "what a call says counts, and once"


def test_an_unknown_api_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="'chat', 'responses'"):
        openai.LLM(api_key="k", api="assistants")  # type: ignore[arg-type]


async def test_a_session_of_ones_own() -> None:
    import aiohttp

    async with aiohttp.ClientSession(headers={"X-Mine": "1"}) as session:
        request = await sent(gpt(http_session=session))
        assert request.headers["x-mine"] == "1"
        assert not session.closed


async def test_errors_keep_what_the_provider_said() -> None:
    async with FaultServer() as server, gpt()(server.url) as llm:
        server.script(Answer(status=404, message="no such model"))
        with pytest.raises(APIStatusError) as caught:
            await llm.chat(chat_ctx=conversation(), conn_options=ONCE).collect()
    error = caught.value
    assert error.status_code == 404
    assert error.message.startswith("no such model; check `model`, and `base_url`")
    assert isinstance(error.body, dict)
    assert error.body["message"] == "no such model"


def test_names_are_where_they_are_looked_for() -> None:
    assert openai.LLM.__module__ == "rejoinder.providers.openai"
    llm = openai.LLM(api_key="k")
    assert llm.label == "rejoinder.providers.openai.LLM"
    assert isinstance(llm.chat(chat_ctx=conversation()), openai.LLMStream)


# Names and defaults of LiveKit Agents 1.2.17, beside those every constructor has.
COMMON = [
    "temperature",
    "parallel_tool_calls",
    "tool_choice",
    "reasoning_effort",
    "safety_identifier",
    "top_p",
]
OF_THEIR_OWN = {
    "azure": "model azure_endpoint azure_deployment api_version api_key azure_ad_token user timeout "
    "azure_ad_token_provider organization project base_url prompt_cache_key",
    "openrouter": "model api_key base_url client site_url app_name fallback_models provider plugins "
    "user timeout prompt_cache_key",
    "ollama": "model base_url client prompt_cache_key",
    "letta": "agent_id base_url api_key",
}


@pytest.mark.parametrize("name", sorted({*HOSTS, "azure"} - {"openai"}))
def test_constructors_show_what_they_take(name: str) -> None:
    parameters = inspect.signature(getattr(openai.LLM, f"with_{name}")).parameters
    expected = OF_THEIR_OWN.get(name, "model api_key base_url client user prompt_cache_key").split()
    if name != "letta":
        expected += COMMON
    assert set(expected) <= set(parameters)
    assert all(one.kind is inspect.Parameter.KEYWORD_ONLY for one in parameters.values())
    if name in HOSTS:
        assert parameters["base_url"].default == HOSTS[name].base_url
        assert parameters["tool_choice"].default == (HOSTS[name].tool_choice or NOT_GIVEN)


async def test_deepseek_gets_the_reasoning_that_led_to_calls_back() -> None:
    def make(url: str) -> Any:
        return openai.LLM.with_deepseek(api_key="k", base_url=f"{url}/v1")

    async with FaultServer() as server, make(server.url) as llm:
        server.script(Answer(text=(), thinking="hm, the weather", calls=(Call("get_weather"),)))
        reply = await llm.chat(chat_ctx=conversation(), tools=TOOLS).collect()
    assert reply.thinking == "hm, the weather"
    context = ChatContext.empty()
    context.add_message(role="user", content="weather?")
    made = reply.tool_calls[0]
    context.insert(
        [
            FunctionCall(
                call_id=made.call_id, name=made.name, arguments=made.arguments, extra=reply.extra
            ),
            FunctionCallOutput(
                call_id=made.call_id, name=made.name, output="sunny", is_error=False
            ),
        ]
    )
    body = (await sent(make, context)).json()
    assert body["messages"][1]["reasoning_content"] == "hm, the weather"
    assert "reasoning_content" not in str((await sent(gpt(), context)).json())


# -- state that goes back ---------------------------------------------------------------------------


def _context(*items: Any) -> ChatContext:
    context = ChatContext.empty()
    context.add_message(role="user", content="q")
    context.items.extend(items)
    context.add_message(role="user", content="z")
    return context


def _call(call_id: str, state: dict[str, Any], arguments: str = "{}") -> list[Any]:
    return [
        FunctionCall(call_id=call_id, name="t", arguments=arguments, extra={"openai": state}),
        FunctionCallOutput(call_id=call_id, name="t", output="r", is_error=False),
    ]


async def test_a_custom_call_goes_back_as_one() -> None:
    context = _context(
        *_call("c1", {"type": "custom_tool_call"}, '{"input":"echo hi"}'), *_call("c2", {})
    )
    body = (await sent(gpt(model="gpt-5", api="responses"), context)).json()
    kinds = [(item["type"], item.get("input")) for item in body["input"] if "type" in item]
    assert kinds == [
        ("custom_tool_call", "echo hi"),
        ("custom_tool_call_output", None),
        ("function_call", None),
        ("function_call_output", None),
    ]


async def test_a_compaction_goes_back_in_its_place_to_its_server_alone() -> None:
    compaction = {"type": "compaction", "id": "cmp_1", "encrypted_content": "C"}
    search = {"type": "web_search_call", "id": "ws_1"}
    for host, kept in (("", True), ("api.openai.com", False)):
        state: dict[str, Any] = {"output_items": [search, compaction]}
        if host:
            state["host"] = host
        said = ChatMessage(role="assistant", content=["a"], extra={"openai": state})
        body = (await sent(gpt(model="gpt-5", api="responses"), _context(said))).json()
        kinds = [item.get("type", item.get("role")) for item in body["input"]]
        middle = ["compaction"] if kept else []
        assert kinds == ["user", *middle, "assistant", "user"]


async def test_unknown_fields_go_back_to_their_server_alone() -> None:
    async with FaultServer() as server:
        llm = gpt(model="m")(server.url)
        here = server.url.removeprefix("http://")
        for host, kept in ((here, True), ("elsewhere", False), (None, False)):
            state = {"fields": {"trace": {"a": 1}, "role": "x"}, "host": host}
            said = ChatMessage(role="assistant", content=["a"], extra={"openai": state})
            server.script(Answer(text="ok"))
            await llm.chat(chat_ctx=_context(said), conn_options=ONCE).collect()
            message = server.requests[-1].json()["messages"][1]
            assert message.get("trace") == ({"a": 1} if kept else None)
            assert message["role"] == "assistant"
        await llm.aclose()


async def test_reasoning_that_is_not_stored_is_not_sent_by_its_id() -> None:
    readable = {"type": "reasoning", "id": "rs_2", "summary": [], "encrypted_content": "E"}
    known = {"type": "reasoning", "id": "rs_1", "summary": []}
    items = _call("c1", {"reasoning_items": [known], "item_id": "fc_1"})
    items += _call("c2", {"reasoning_items": [readable], "item_id": "fc_2"})
    make = gpt(model="my-deployment", api="responses", store=False)
    body = (await sent(make, _context(*items))).json()
    found = [item["id"] for item in body["input"] if "id" in item]
    assert found == ["rs_2", "fc_2"]
    stored = gpt(model="my-deployment", api="responses")
    body = (await sent(stored, _context(*items))).json()
    assert [item["id"] for item in body["input"] if "id" in item] == [
        "rs_1",
        "fc_1",
        "rs_2",
        "fc_2",
    ]


async def test_thoughts_go_back_where_the_model_insists() -> None:
    items = [
        *_call("c1", {"reasoning_content": "hm"}),
        *_call("c2", {}),
        ChatMessage(role="assistant", content=["a"], extra={"openai": {"reasoning_content": "so"}}),
    ]
    for model, thoughts in (
        ("deepseek-v4-pro", ["hm", " ", "so"]),
        ("kimi-k2.6", ["hm", " ", None]),
        ("gpt-4.1", [None, None, None]),
    ):
        body = (await sent(gpt(model=model), _context(*items))).json()
        said = [m for m in body["messages"] if m["role"] == "assistant"]
        assert [message.get("reasoning_content") for message in said] == thoughts


async def test_details_of_reasoning_go_back_to_openrouter_alone() -> None:
    details = [{"type": "reasoning.encrypted", "data": "S", "index": 0}]
    items = _call("c1", {"reasoning_details": details})
    router = lambda url: openai.LLM.with_openrouter(api_key="k", base_url=f"{url}/v1")  # noqa: E731
    body = (await sent(router, _context(*items))).json()
    assert body["messages"][1]["reasoning_details"] == details
    body = (await sent(gpt(model="m"), _context(*items))).json()
    assert "reasoning_details" not in body["messages"][1]


@pytest.mark.parametrize(
    ("model", "goes"),
    [
        ("gpt-5", []),
        ("qwen/qwen3-32b", []),
        ("grok-4", ["xai"]),
        ("google/gemini-3-pro-preview", ["google"]),
        ("acme-1", ["google", "xai"]),  # perhaps a deployment of any of them
    ],
)
async def test_state_of_a_maker_goes_to_its_models_alone(model: str, goes: list[str]) -> None:
    """The models of a fallback share one history, and other APIs refuse a field that they do not know
    (Groq: "property 'extra_content' is unsupported")."""
    extra = {"google": {"thought_signature": "c2ln"}, "xai": {"a": 1}, "livekit": {"b": 2}}
    context = ChatContext.empty()
    context.add_message(role="user", content="q")
    context.insert(FunctionCall(call_id="c", name="get_weather", arguments="{}", extra=extra))
    context.insert(FunctionCallOutput(call_id="c", name="get_weather", output="r", is_error=False))
    body = (await sent(gpt(model=model), context, tools=TOOLS)).json()
    (call,) = next(m for m in body["messages"] if m["role"] == "assistant")["tool_calls"]
    # State of a gateway goes to hosts that may be one.
    assert sorted(call["extra_content"]) == sorted({*goes, "livekit"})
