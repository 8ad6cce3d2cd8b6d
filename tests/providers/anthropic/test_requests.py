"""What is sent to Anthropic and to the other hosts of Claude."""

from __future__ import annotations

from typing import Any

import pydantic
import pytest
from anthropic.types.message_create_params import MessageCreateParamsStreaming

from providers.conversation import (
    IMAGE,
    ONCE,
    PNG,
    RAW_SCHEMA,
    TOOLS,
    WEATHER_SCHEMA,
    conversation,
    sent,
)
from rejoinder.errors import APIStatusError, ConfigurationError
from rejoinder.llm import ImageContent
from rejoinder.llm.chat_context import ChatContext
from rejoinder.media import AudioFrame
from rejoinder.providers import anthropic
from rejoinder.testing.faults import Answer, FaultServer
from rejoinder.testing.history import assert_legal


def claude(**options: Any) -> Any:
    return lambda url: anthropic.LLM(**{"api_key": "sk-ant", "base_url": url, **options})


def fits(body: dict[str, Any]) -> dict[str, Any]:
    """`body`, if it is what the vendor's own types say it has to be."""
    adapter = pydantic.TypeAdapter[Any](MessageCreateParamsStreaming)
    adapter.validate_json(adapter.dump_json(adapter.validate_python(body)))
    assert_legal("anthropic", body)
    return body


# As LiveKit Agents 1.2.17 sends it, with two repairs: the image is bare base64 (a data URL is
# refused), and a developer message is told as instructions.
MESSAGES: list[dict[str, Any]] = [
    {
        "role": "user",
        "content": [
            {"text": "look", "type": "text"},
            {
                "type": "image",
                "source": {"type": "base64", "data": PNG, "media_type": "image/png"},
            },
        ],
    },
    {
        "role": "assistant",
        "content": [
            {"text": "Checking.", "type": "text"},
            {"id": "call_1", "type": "tool_use", "name": "get_weather", "input": {"city": "Rome"}},
            {"id": "call_2", "type": "tool_use", "name": "raw_tool", "input": {}},
        ],
    },
    {
        "role": "user",
        "content": [
            {
                "tool_use_id": "call_1",
                "type": "tool_result",
                "content": "sunny",
                "is_error": False,
            },
            {"tool_use_id": "call_2", "type": "tool_result", "content": "boom", "is_error": True},
            {"text": "and now?", "type": "text"},
        ],
    },
]
SPECS: list[dict[str, Any]] = [
    {
        "name": "get_weather",
        "description": "Look up the weather.\n",
        "input_schema": WEATHER_SCHEMA,
    },
    {"name": "raw_tool", "description": "raw", "input_schema": RAW_SCHEMA},
]


async def test_a_plain_request() -> None:
    request = await sent(claude(), tools=TOOLS)
    assert request.path == "/v1/messages"
    assert request.headers["x-api-key"] == "sk-ant"
    assert request.headers["anthropic-version"] == "2023-06-01"
    assert request.headers["content-type"] == "application/json"
    assert fits(request.json()) == {
        "model": "claude-sonnet-4-6",
        "max_tokens": 1024,
        "stream": True,
        "system": [{"text": "You are S.", "type": "text"}],
        "messages": MESSAGES,
        "tools": SPECS,
    }


async def test_every_option() -> None:
    make = claude(
        model="claude-sonnet-4-5",
        user="u-1",
        top_k=5,
        max_tokens=77,
        temperature=0.4,
        parallel_tool_calls=False,
        tool_choice="required",
        caching="ephemeral",
    )
    body = fits((await sent(make, tools=TOOLS)).json())
    assert body["metadata"] == {"user_id": "u-1"}
    assert (body["top_k"], body["max_tokens"], body["temperature"]) == (5, 77, 0.4)
    assert body["tool_choice"] == {"type": "any", "disable_parallel_tool_use": True}
    cached = {"cache_control": {"type": "ephemeral"}}
    assert body["tools"] == [SPECS[0], {**SPECS[1], **cached}]
    assert body["system"] == [{"text": "You are S.", "type": "text", **cached}]
    marked = [
        (index, place)
        for index, message in enumerate(body["messages"])
        for place, block in enumerate(message["content"])
        if "cache_control" in block
    ]
    assert marked == [(0, 1), (1, 2)]


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ("auto", {"type": "auto"}),
        ("required", {"type": "any"}),
        ("none", {"type": "none"}),
        (
            {"type": "function", "function": {"name": "raw_tool"}},
            {"type": "tool", "name": "raw_tool"},
        ),
    ],
)
async def test_tool_choices_of_a_call(given: Any, expected: Any) -> None:
    # Without tools the API would refuse the calls in the history, so "none" keeps them.
    body = fits((await sent(claude(tool_choice="auto"), tools=TOOLS, tool_choice=given)).json())
    assert body["tool_choice"] == expected
    assert body["tools"] == SPECS


async def test_parallel_calls_need_no_choice() -> None:
    body = (await sent(claude(), tools=TOOLS, parallel_tool_calls=False)).json()
    assert body["tool_choice"] == {"type": "auto", "disable_parallel_tool_use": True}
    none = (await sent(claude(), tools=TOOLS, tool_choice="none", parallel_tool_calls=False)).json()
    assert none["tool_choice"] == {"type": "none"}


async def test_calls_of_tools_that_are_gone() -> None:
    body = fits((await sent(claude())).json())
    assert [tool["name"] for tool in body["tools"]] == ["get_weather", "raw_tool"]
    assert body["tool_choice"] == {"type": "none"}
    plain = ChatContext.empty()
    plain.add_message(role="user", content="hi")
    assert "tools" not in (await sent(claude(), plain)).json()


async def test_further_parameters() -> None:
    extra = {
        "thinking": {"type": "enabled", "budget_tokens": 2000},
        "stop_sequences": ["END"],
        "betas": ["one", "two"],
        "extra_headers": {"X-Mine": "1"},
        "extra_query": {"a": "b c"},
        "extra_body": {"service_tier": "auto"},
    }
    plain = ChatContext.empty()
    plain.add_message(role="user", content="hi")
    request = await sent(claude(), plain, extra_kwargs=extra)
    body = fits(request.json())
    assert body["thinking"] == {"type": "enabled", "budget_tokens": 2000}
    assert body["max_tokens"] == 3024  # larger than the budget, as the API demands
    assert body["stop_sequences"] == ["END"]
    assert body["service_tier"] == "auto"
    assert request.headers["anthropic-beta"] == "one,two"
    assert request.headers["x-mine"] == "1"
    assert request.path == "/v1/messages?a=b%20c"


async def test_thinking_goes_back_as_it_came() -> None:
    answer = Answer(thinking="Let me see.", text=("Hi",))
    context = ChatContext.empty()
    context.add_message(role="user", content="hello")
    async with FaultServer() as server, claude()(server.url) as llm:
        server.script(answer)
        reply = await llm.chat(chat_ctx=context, conn_options=ONCE).collect()
        assert reply.thinking == "Let me see."
        context.add_message(role="assistant", content=reply.text, extra=reply.extra)
        context.add_message(role="user", content="and?")
        await llm.chat(chat_ctx=context, conn_options=ONCE).collect()
        kept = server.requests[1].json()["messages"][1]["content"]
    assert kept[0]["type"] == "thinking"
    assert kept[0]["thinking"] == "Let me see."
    assert kept[0]["signature"]
    assert kept[1] == {"type": "text", "text": "Hi"}


async def test_thinking_is_off_where_calls_were_made_without_it() -> None:
    context = conversation()
    context.items.pop()  # the tools have just answered
    extra = {"thinking": {"type": "enabled", "budget_tokens": 1024}}
    body = (await sent(claude(), context, tools=TOOLS, extra_kwargs=extra)).json()
    assert "thinking" not in body
    spoken = (await sent(claude(), conversation(), tools=TOOLS, extra_kwargs=extra)).json()
    assert "thinking" in spoken


@pytest.mark.parametrize(
    ("model", "begun"),
    [
        ("claude-3-5-sonnet-20241022", True),
        ("claude-sonnet-4-5", True),
        ("us.anthropic.claude-sonnet-4-5-20250929-v1:0", True),
        ("claude-haiku-4-5@20251001", True),
        ("claude-opus-4-20250514", True),
        ("claude-sonnet-4-6", False),
        ("claude-opus-4-8", False),
        ("claude-fable-5", False),
        ("some-other-model", False),
    ],
)
async def test_a_reply_can_be_begun_where_the_model_takes_it(model: str, begun: bool) -> None:
    context = ChatContext.empty()
    context.add_message(role="user", content="hi")
    context.add_message(role="assistant", content="Well,  ")
    messages = (await sent(claude(model=model), context)).json()["messages"]
    if begun:
        assert messages[-1] == {"role": "assistant", "content": [{"type": "text", "text": "Well,"}]}
    else:
        assert messages[-1] == {"role": "user", "content": [{"type": "text", "text": "."}]}


class Person(pydantic.BaseModel):
    name: str = pydantic.Field(min_length=1, examples=["minimum"])
    age: int = pydantic.Field(3, ge=0, le=150)
    minimum: list[int] = pydantic.Field(max_length=3)


@pytest.mark.parametrize(
    ("model", "strict"),
    [
        ("claude-sonnet-4-5", True),
        ("claude-opus-4-1", True),
        ("us.anthropic.claude-haiku-4-5-20251001-v1:0", True),
        ("claude-sonnet-4-20250514", False),
        ("claude-3-5-haiku-20241022", False),
        ("a-deployment", True),
    ],
)
async def test_schemas_hold_models_that_can_be_held(model: str, strict: bool) -> None:
    body = (await sent(claude(model=model, strict_tools=True), conversation(), tools=TOOLS)).json()
    assert any(tool.get("strict") for tool in body["tools"]) is strict
    schema = {"title": "A", "type": "object", "properties": {"a": {"type": "string"}}}
    if strict:
        await sent(claude(model=model), conversation(), response_format=schema)
    else:
        with pytest.raises(ConfigurationError, match="no JSON schema as response format; omit"):
            await sent(claude(model=model), conversation(), response_format=schema)


async def test_a_schema_for_the_answer() -> None:
    body = fits((await sent(claude(), tools=TOOLS, response_format=Person)).json())
    config = body["output_config"]["format"]
    assert config["type"] == "json_schema"
    assert config["schema"]["required"] == ["name", "age", "minimum"]
    # The API refuses limits; a member of such a name is none.
    assert not {"minLength", "maximum", "maxItems"} & set(str(config["schema"]).split("'"))
    assert config["schema"]["properties"]["name"]["examples"] == ["minimum"]
    assert config["schema"]["additionalProperties"] is False


async def test_documents() -> None:
    context = ChatContext.empty()
    parts: list[Any] = [
        "read",
        ImageContent(image="data:application/pdf;base64,JVBERg=="),
        ImageContent(image="data:text/plain,a%20b"),
        ImageContent(image="https://example.com/x.pdf", mime_type="application/pdf"),
        ImageContent(image="file_abc", mime_type="application/pdf"),
        ImageContent(image="https://example.com/x.png"),
        ImageContent(image=IMAGE),
    ]
    context.add_message(role="user", content=parts)
    body = fits((await sent(claude(), context)).json())
    blocks = body["messages"][0]["content"]
    assert [block["type"] for block in blocks] == [
        "text",
        *["document"] * 4,
        "image",
        "image",
    ]
    assert [block["source"]["type"] for block in blocks[1:]] == [
        "base64",
        "text",
        "url",
        "file",
        "url",
        "base64",
    ]
    assert blocks[2]["source"]["data"] == "a b"


async def refused(make: Any, context: ChatContext, **options: Any) -> ConfigurationError:
    """The error of a call for which nothing was sent."""
    async with FaultServer() as server, make(server.url) as llm:
        with pytest.raises(ConfigurationError) as caught:
            await llm.chat(chat_ctx=context, **options).collect()
        assert not server.requests
    return caught.value


async def test_what_cannot_be_sent_is_refused_before() -> None:
    sound = ChatContext.empty()
    from rejoinder.llm import AudioContent

    sound.add_message(role="user", content=[AudioContent(frame=[AudioFrame(b"\0\0", 8000, 1, 1)])])
    assert "sound" in str(await refused(claude(), sound))
    archive = ChatContext.empty()
    archive.add_message(
        role="user", content=[ImageContent(image="data:application/zip;base64,UEs=")]
    )
    assert "application/zip" in str(await refused(claude(), archive))
    assert "tool_choice" in str(
        await refused(claude(), conversation(), tools=TOOLS, tool_choice="sometimes")
    )
    assert "response_format" in str(
        await refused(claude(), conversation(), response_format=object())
    )


async def test_sound_with_a_transcript_becomes_its_words() -> None:
    from rejoinder.llm import AudioContent

    context = ChatContext.empty()
    frame = AudioFrame(b"\0\0", 8000, 1, 1)
    context.add_message(role="user", content=[AudioContent(frame=[frame], transcript="hello")])
    body = (await sent(claude(), context)).json()
    assert body["messages"] == [{"role": "user", "content": [{"type": "text", "text": "hello"}]}]


async def test_what_changes_after_the_call_changes_nothing() -> None:
    context = conversation()
    async with FaultServer() as server, claude()(server.url) as llm:
        stream = llm.chat(chat_ctx=context, tools=TOOLS, conn_options=ONCE)
        context.items[1].content[0] = "changed"
        context.items.clear()
        await stream.collect()
        assert server.requests[0].json()["messages"] == MESSAGES


def test_no_key_no_model(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("ANTHROPIC_API_KEY", "ANTHROPIC_AUTH_TOKEN", "ANTHROPIC_BASE_URL"):
        monkeypatch.delenv(name, raising=False)
    with pytest.raises(ConfigurationError, match="ANTHROPIC_API_KEY"):
        anthropic.LLM()
    with pytest.raises(ConfigurationError, match="base_url"):
        anthropic.LLM(api_key="x", base_url="api.anthropic.com")
    monkeypatch.setenv("ANTHROPIC_API_KEY", "sk-env")
    llm = anthropic.LLM()
    assert llm.provider == "api.anthropic.com"
    assert llm.model == "claude-sonnet-4-6"
    assert "sk-env" not in repr(vars(llm))


async def test_key_and_address_of_a_client() -> None:
    class Client:
        api_key = "sk-client"
        base_url = ""

    async with FaultServer() as server:
        Client.base_url = f"{server.url}/"
        async with anthropic.LLM(client=Client()) as llm:
            await llm.chat(chat_ctx=conversation(), conn_options=ONCE).collect()
        assert server.requests[0].headers["x-api-key"] == "sk-client"


@pytest.mark.parametrize("tail", ["", "/", "/v1", "/v1/messages"])
async def test_addresses_people_give(tail: str) -> None:
    request = await sent(lambda url: anthropic.LLM(api_key="k", base_url=url + tail))
    assert request.path == "/v1/messages"


async def test_a_local_server_needs_no_key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("ANTHROPIC_API_KEY", raising=False)
    request = await sent(lambda url: anthropic.LLM(model="qwen", base_url=url))
    assert "x-api-key" not in request.headers


async def test_a_token_instead_of_a_key() -> None:
    request = await sent(lambda url: anthropic.LLM(auth_token="tok", base_url=url))
    assert request.headers["authorization"] == "Bearer tok"


async def test_azure() -> None:
    make = lambda url: anthropic.LLM.with_azure(  # noqa: E731
        model="my-claude", api_key="k", base_url=f"{url}/anthropic"
    )
    request = await sent(make)
    assert request.path == "/anthropic/v1/messages"
    assert request.headers["x-api-key"] == "k"
    assert request.json()["model"] == "my-claude"
    llm = anthropic.LLM.with_azure(model="m", resource="mine", azure_ad_token="t")
    assert llm.provider == "mine.services.ai.azure.com"
    with pytest.raises(ConfigurationError, match="resource"):
        anthropic.LLM.with_azure(model="m", api_key="k")


async def test_vertex() -> None:
    make = lambda url: anthropic.LLM.with_vertex(  # noqa: E731
        model="claude-sonnet-4-5@20250929",
        project="my-project",
        location="us-east5",
        access_token="tok",
        base_url=f"{url}/v1",
    )
    request = await sent(make, extra_kwargs={"betas": ["b"]})
    assert request.path == (
        "/v1/projects/my-project/locations/us-east5/publishers/anthropic/models/"
        "claude-sonnet-4-5@20250929:streamRawPredict"
    )
    assert request.headers["authorization"] == "Bearer tok"
    assert request.headers["anthropic-beta"] == "b"
    body = request.json()
    assert body["anthropic_version"] == "vertex-2023-10-16"
    assert body["stream"] is True
    assert "model" not in body
    hosts = {
        "global": "aiplatform.googleapis.com",
        "us": "aiplatform.us.rep.googleapis.com",
        "europe-west1": "europe-west1-aiplatform.googleapis.com",
    }
    for location, host in hosts.items():
        assert anthropic.LLM.with_vertex(model="m", location=location).provider == host


async def test_bedrock() -> None:
    make = lambda url: anthropic.LLM.with_bedrock(  # noqa: E731
        model="us.anthropic.claude-sonnet-4-5-20250929-v1:0",
        api_key="AKID",
        api_secret="secret",
        session_token="token",
        region="eu-west-1",
        base_url=url,
    )
    request = await sent(make, extra_kwargs={"betas": ["b"]})
    assert request.path == (
        "/model/us.anthropic.claude-sonnet-4-5-20250929-v1%3A0/invoke-with-response-stream"
    )
    assert "/eu-west-1/bedrock/aws4_request" in request.headers["authorization"]
    assert request.headers["x-amz-security-token"] == "token"
    body = request.json()
    assert body["anthropic_version"] == "bedrock-2023-05-31"
    assert body["anthropic_beta"] == ["b"]
    assert "model" not in body
    assert "stream" not in body
    with pytest.raises(ConfigurationError, match="us-east-1"):
        anthropic.LLM.with_bedrock(model="m", region="us-eest-1")


def test_hosts_are_known_by_their_address(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("ANTHROPIC_API_KEY", raising=False)
    for url, platform in {
        "https://bedrock-runtime.us-west-2.amazonaws.com": "bedrock",
        "https://us-east5-aiplatform.googleapis.com/v1": "vertex",
        "https://aiplatform.eu.rep.googleapis.com/v1": "vertex",
        "https://mine.services.ai.azure.com/anthropic": "azure",
        "http://localhost:1234": "anthropic",
    }.items():
        llm = anthropic.LLM(model="m", api_key="k", base_url=url)
        assert llm._host.platform == platform, url


@pytest.mark.parametrize("status", [400, 401, 403, 404, 413])
async def test_nothing_is_tried_again_that_cannot_get_better(status: int) -> None:
    async with FaultServer() as server, claude()(server.url) as llm:
        server.always(Answer(status=status))
        with pytest.raises(APIStatusError) as caught:
            await llm.chat(chat_ctx=conversation()).collect()
        assert caught.value.status_code == status
        assert len(server.requests) == 1


@pytest.mark.parametrize(
    ("extra", "continues"),
    [
        ({}, True),
        ({"thinking": {"type": "disabled"}}, True),
        ({"thinking": {"type": "enabled", "budget_tokens": 1024}}, False),
        ({"output_config": {"effort": "low"}}, True),
        ({"output_config": {"format": {"type": "json_schema", "schema": {}}}}, False),
        ({"output_format": {"type": "json_schema", "schema": {}}}, False),
    ],
)
async def test_what_excludes_a_begun_reply(extra: dict[str, Any], continues: bool) -> None:
    """`FallbackAdapter` asks before it continues a reply of another model; the body agrees."""
    context = ChatContext.empty()
    context.add_message(role="user", content="Count.")
    context.add_message(role="assistant", content="One, two,")
    make = claude(model="claude-sonnet-4-5")
    async with make("http://127.0.0.1:1") as llm:
        assert llm._continues(extra) is continues
    body = (await sent(make, context, extra_kwargs=extra)).json()
    assert (body["messages"][-1]["role"] == "assistant") is continues


async def test_a_schema_excludes_a_begun_reply() -> None:
    context = ChatContext.empty()
    context.add_message(role="user", content="Count.")
    context.add_message(role="assistant", content="One, two,")
    shape = {"type": "object", "properties": {"n": {"type": "integer"}}}
    make = claude(model="claude-sonnet-4-5")
    body = (await sent(make, context, response_format=shape)).json()
    assert body["messages"][-1]["role"] == "user"
