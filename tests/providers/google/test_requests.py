"""What is sent to the Gemini API and to Vertex AI."""

from __future__ import annotations

import asyncio
import contextlib
import datetime as dt
import re
import traceback
from typing import Any

import pydantic
import pytest
import requests
from google.genai import types
from google.oauth2.credentials import Credentials

from listening import listening
from providers.conversation import IMAGE, ONCE, PNG, RAW_SCHEMA, TOOLS, conversation, sent
from rejoinder.clouds.google import GoogleCredentials
from rejoinder.errors import APIConnectionError, APIError, APIStatusError, ConfigurationError
from rejoinder.llm import AudioContent, ImageContent
from rejoinder.llm.chat_context import ChatContext, FunctionCall, FunctionCallOutput
from rejoinder.media import AudioFrame
from rejoinder.providers import anthropic, google
from rejoinder.testing.faults import Answer, FaultServer
from rejoinder.testing.history import assert_legal


def gemini(**options: Any) -> Any:
    return lambda url: google.LLM(**{"api_key": "gk", "base_url": url, **options})


def fits(body: dict[str, Any], **options: Any) -> dict[str, Any]:
    """`body`, if it is what the vendor's own types say it has to be."""
    for content in body["contents"]:
        types.Content.model_validate(content)
    for tool in body.get("tools", []):
        types.Tool.model_validate(tool)
    if "toolConfig" in body:
        types.ToolConfig.model_validate(body["toolConfig"])
    types.GenerationConfig.model_validate(body["generationConfig"])
    assert_legal("google", body, **options)
    return body


# As LiveKit Agents 1.2.17 sends it, in camel case throughout.
CONTENTS: list[dict[str, Any]] = [
    {
        "role": "user",
        "parts": [
            {"text": "look"},
            {"inlineData": {"data": PNG, "mimeType": "image/png"}},
            {"fileData": {"fileUri": "https://example.com/a.jpg", "mimeType": "image/jpeg"}},
        ],
    },
    {
        "role": "model",
        "parts": [
            {"text": "Checking."},
            {"functionCall": {"id": "call_1", "name": "get_weather", "args": {"city": "Rome"}}},
            {"functionCall": {"id": "call_2", "name": "raw_tool", "args": {}}},
        ],
    },
    {
        "role": "user",
        "parts": [
            {
                "functionResponse": {
                    "id": "call_1",
                    "name": "get_weather",
                    "response": {"output": "sunny"},
                }
            },
            {
                "functionResponse": {
                    "id": "call_2",
                    "name": "raw_tool",
                    "response": {"error": "boom"},
                }
            },
        ],
    },
    {"role": "user", "parts": [{"text": "and now?"}]},
]
SPECS: list[dict[str, Any]] = [
    {
        "name": "get_weather",
        "description": "Look up the weather.\n",
        "parameters": {
            "type": "OBJECT",
            "properties": {
                "city": {"description": "The city name", "type": "STRING"},
                "unit": {
                    "description": "Temperature unit",
                    "enum": ["c", "f"],
                    "type": "STRING",
                },
                "days": {"nullable": True, "type": "INTEGER"},
            },
            "required": ["city"],
        },
    },
    {"name": "raw_tool", "description": "raw", "parametersJsonSchema": RAW_SCHEMA},
]


async def test_every_option() -> None:
    make = gemini(
        model="tuned",  # of which nothing is known: Gemini refuses some of these options
        temperature=0.4,
        max_output_tokens=55,
        top_p=0.8,
        top_k=3.0,
        presence_penalty=0.1,
        frequency_penalty=0.2,
        seed=7,
        thinking_config={"thinking_budget": 0},
        tool_choice="required",
        safety_settings=[
            types.SafetySetting(
                category=types.HarmCategory.HARM_CATEGORY_HARASSMENT,
                threshold=types.HarmBlockThreshold.BLOCK_NONE,
            )
        ],
        service_tier="flex",
        cached_content="cachedContents/x",
        media_resolution="MEDIA_RESOLUTION_LOW",
        retrieval_config={"language_code": "de"},
        http_options={"headers": {"X-Mine": "1"}},
    )
    request = await sent(make, conversation(url=True), tools=TOOLS)
    assert request.path == "/v1beta/models/tuned:streamGenerateContent?alt=sse"
    assert request.headers["x-goog-api-key"] == "gk"
    assert request.headers["x-mine"] == "1"
    assert fits(request.json()) == {
        "contents": CONTENTS,
        "systemInstruction": {"role": "user", "parts": [{"text": "You are S."}]},
        "tools": [{"functionDeclarations": SPECS}],
        "toolConfig": {
            "functionCallingConfig": {
                "mode": "ANY",
                "allowedFunctionNames": ["get_weather", "raw_tool"],
            },
            "retrievalConfig": {"languageCode": "de"},
        },
        "generationConfig": {
            "temperature": 0.4,
            "topP": 0.8,
            "topK": 3.0,
            "maxOutputTokens": 55,
            "presencePenalty": 0.1,
            "frequencyPenalty": 0.2,
            "seed": 7,
            "mediaResolution": "MEDIA_RESOLUTION_LOW",
            "thinkingConfig": {"thinkingBudget": 0},
        },
        "safetySettings": [{"category": "HARM_CATEGORY_HARASSMENT", "threshold": "BLOCK_NONE"}],
        "serviceTier": "flex",
        "cachedContent": "cachedContents/x",
    }


async def test_a_plain_request() -> None:
    body = fits((await sent(gemini())).json())
    assert "tools" not in body
    assert "toolConfig" not in body
    assert body["generationConfig"] == {}


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ("auto", {"mode": "AUTO"}),
        ("none", {"mode": "NONE"}),
        (
            {"type": "function", "function": {"name": "raw_tool"}},
            {"mode": "ANY", "allowedFunctionNames": ["raw_tool"]},
        ),
    ],
)
async def test_tool_choices_of_a_call(given: Any, expected: Any) -> None:
    body = fits((await sent(gemini(), tools=TOOLS, tool_choice=given)).json())
    assert body["toolConfig"]["functionCallingConfig"] == expected
    assert "toolConfig" not in (await sent(gemini(), tool_choice=given)).json()


@pytest.mark.parametrize(
    "config",
    [
        {"thinking_level": "LOW", "include_thoughts": True},
        types.ThinkingConfig(thinking_level=types.ThinkingLevel.LOW, include_thoughts=True),
    ],
)
async def test_thinking_options(config: Any) -> None:
    body = (await sent(gemini(thinking_config=config))).json()
    assert body["generationConfig"]["thinkingConfig"] == {
        "thinkingLevel": "LOW",
        "includeThoughts": True,
    }
    with pytest.raises(ConfigurationError, match="thinking_budget"):
        google.LLM(api_key="k", thinking_config={"thinking_budget": "many"})
    with pytest.raises(ConfigurationError, match="thinking_config"):
        google.LLM(api_key="k", thinking_config=5)


@pytest.mark.parametrize(
    "tools",
    [
        ["google_search", "url_context"],
        [{"google_search": {}}, {"urlContext": {}}],
        [types.GoogleSearch(), types.UrlContext()],
        [
            types.Tool(google_search=types.GoogleSearch()),
            types.Tool(url_context=types.UrlContext()),
        ],
    ],
)
async def test_tools_of_google(tools: list[Any]) -> None:
    expected = [{"googleSearch": {}}, {"urlContext": {}}]
    assert fits((await sent(gemini(gemini_tools=tools))).json())["tools"] == expected
    assert (await sent(gemini(), gemini_tools=tools)).json()["tools"] == expected


async def test_tools_of_google_beside_functions() -> None:
    search = ["google_search"]
    old = (await sent(gemini(model="gemini-2.5-flash", gemini_tools=search), tools=TOOLS)).json()
    assert [list(tool) for tool in old["tools"]] == [["functionDeclarations"]]
    new = (
        await sent(gemini(model="gemini-3-flash-preview", gemini_tools=search), tools=TOOLS)
    ).json()
    assert [list(tool) for tool in new["tools"]] == [["functionDeclarations"], ["googleSearch"]]
    assert new["toolConfig"]["includeServerSideToolInvocations"] is True
    for wrong in ("tea", {"tea": {}}, 7, {}):
        with pytest.raises(ConfigurationError, match="gemini_tools"):
            google.LLM(api_key="k", gemini_tools=[wrong])


class Answer2(pydantic.BaseModel):
    a: int
    b: str | None = None


class Tree(pydantic.BaseModel):
    children: list[Tree] = []


async def test_a_schema_for_the_answer() -> None:
    body = fits((await sent(gemini(), response_format=Answer2)).json())
    assert body["generationConfig"] == {
        "responseMimeType": "application/json",
        "responseSchema": {
            "properties": {"a": {"type": "INTEGER"}, "b": {"nullable": True, "type": "STRING"}},
            "property_ordering": ["a", "b"],
            "required": ["a"],
            "type": "OBJECT",
        },
    }
    # What the dialect has no words for goes as JSON schema.
    nested = (await sent(gemini(), response_format=Tree)).json()["generationConfig"]
    assert "responseSchema" not in nested
    assert "$defs" in nested["responseJsonSchema"]
    own = types.Schema(type=types.Type.STRING)
    given = (await sent(gemini(), response_format=own)).json()["generationConfig"]
    assert given["responseSchema"] == {"type": "STRING"}


async def test_further_parameters() -> None:
    extra = {
        "stop_sequences": ["END"],
        "response_modalities": ["TEXT"],
        "labels": {"my_label": "x"},
        "temperature": 0.9,
        "http_options": {"timeout": 5},
        "extra_headers": {"X-Mine": "1"},
        "extra_query": {"key": "v"},
        "extra_body": {"store": False},
    }
    request = await sent(gemini(temperature=0.1), extra_kwargs=extra)
    body = fits(request.json())
    assert body["generationConfig"] == {
        "stopSequences": ["END"],
        "responseModalities": ["TEXT"],
        "temperature": 0.1,  # what the constructor was told stands, as in LiveKit Agents
    }
    assert body["labels"] == {"my_label": "x"}
    assert body["store"] is False
    assert request.path.endswith("?alt=sse&key=v")
    assert request.headers["x-mine"] == "1"


async def test_sound_and_documents() -> None:
    context = ChatContext.empty()
    frame = AudioFrame(b"\1\0" * 80, 8000, 1, 80)
    parts: list[Any] = [
        AudioContent(frame=[frame, frame]),
        "hear and read",
        ImageContent(image="data:application/pdf;base64,JVBERg=="),
        ImageContent(image="gs://bucket/x.mp4", mime_type="video/mp4"),
        ImageContent(image=IMAGE),
    ]
    context.add_message(role="user", content=parts)
    body = fits((await sent(gemini(), context)).json())
    sound, text, document, video, image = body["contents"][0]["parts"]
    assert sound["inlineData"]["mimeType"] == "audio/wav"
    assert text == {"text": "hear and read"}
    assert document == {"inlineData": {"data": "JVBERg==", "mimeType": "application/pdf"}}
    assert video == {"fileData": {"fileUri": "gs://bucket/x.mp4", "mimeType": "video/mp4"}}
    assert image["inlineData"]["mimeType"] == "image/png"


def called(**extra: Any) -> ChatContext:
    context = ChatContext.empty()
    context.add_message(role="user", content="go")
    context.insert(
        [
            FunctionCall(call_id="c1", name="get_weather", arguments="{}", extra=extra),
            FunctionCallOutput(call_id="c1", name="get_weather", output="x", is_error=False),
        ]
    )
    return context


def signature_of(body: dict[str, Any]) -> str | None:
    return body["contents"][1]["parts"][0].get("thoughtSignature")


async def test_a_signature_goes_back_on_its_call() -> None:
    body = (await sent(gemini(), called(google={"thought_signature": "c2ln"}), tools=TOOLS)).json()
    assert signature_of(fits(body)) == "c2ln"


async def test_calls_of_others_are_signed_where_a_model_insists() -> None:
    model = gemini(model="gemini-3-pro-preview")
    body = (await sent(model, called(), tools=TOOLS)).json()
    assert signature_of(fits(body, signatures=True))


def test_no_key_no_model(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("GOOGLE_API_KEY", "GEMINI_API_KEY", "GOOGLE_GENAI_USE_VERTEXAI"):
        monkeypatch.delenv(name, raising=False)
    with pytest.raises(ConfigurationError, match="GOOGLE_API_KEY"):
        google.LLM()
    monkeypatch.setenv("GOOGLE_API_KEY", "k")
    assert google.LLM().provider == "Gemini"
    monkeypatch.setenv("GOOGLE_GENAI_USE_VERTEXAI", "true")
    assert google.LLM().provider == "Vertex AI"


@pytest.mark.parametrize(
    ("tail", "model", "path"),
    [
        ("", "gemini-x", "/v1beta/models/gemini-x"),
        ("/v1beta", "models/gemini-x", "/v1beta/models/gemini-x"),
        ("/v1", "tunedModels/mine", "/v1/tunedModels/mine"),
        ("/gemini", "gemini-x", "/gemini/v1beta/models/gemini-x"),
    ],
)
async def test_addresses_people_give(tail: str, model: str, path: str) -> None:
    request = await sent(lambda url: google.LLM(api_key="k", model=model, base_url=url + tail))
    assert request.path == f"{path}:streamGenerateContent?alt=sse"


# -- Vertex AI ---------------------------------------------------------------------------------


class Account:
    """Credentials of google-auth, as far as they are used."""

    def __init__(self, *tokens: str, life: float = 3600) -> None:
        self.tokens = list(tokens)
        self.life = life
        self.token = ""
        self.expiry: dt.datetime | None = None
        self.quota_project_id = "payer"
        self.project_id = "own-project"
        self.refreshed = 0

    def refresh(self, request: Any) -> None:
        assert callable(request)
        self.token = self.tokens[min(self.refreshed, len(self.tokens) - 1)]
        self.refreshed += 1
        now = dt.datetime.now(dt.UTC).replace(tzinfo=None)
        self.expiry = now + dt.timedelta(seconds=self.life)


def vertex(account: Account, **options: Any) -> Any:
    return lambda url: google.LLM(
        **{
            "model": "gemini-2.5-flash",
            "vertexai": True,
            "project": "my-project",
            "location": "europe-west1",
            "credentials": account,
            "base_url": url,
            **options,
        }
    )


async def test_vertex() -> None:
    account = Account("tok")
    request = await sent(vertex(account), tools=TOOLS)
    assert request.path == (
        "/v1beta1/projects/my-project/locations/europe-west1/publishers/google/models/"
        "gemini-2.5-flash:streamGenerateContent?alt=sse"
    )
    assert request.headers["authorization"] == "Bearer tok"
    assert request.headers["x-goog-user-project"] == "payer"
    assert "x-goog-api-key" not in request.headers
    fits(request.json())


async def test_the_project_of_the_credentials(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("GOOGLE_CLOUD_PROJECT", raising=False)
    from rejoinder.types import NOT_GIVEN

    request = await sent(vertex(Account("tok"), project=NOT_GIVEN))
    assert "/projects/own-project/" in request.path
    endpoint = "projects/p/locations/l/endpoints/7"
    request = await sent(vertex(Account("tok"), model=endpoint))
    assert request.path.startswith(f"/v1beta1/{endpoint}:stream")


async def test_a_token_is_fetched_once_and_kept() -> None:
    account = Account("tok")
    async with FaultServer() as server, vertex(account)(server.url) as llm:
        for _ in range(3):
            await llm.chat(chat_ctx=conversation(), conn_options=ONCE).collect()
        assert account.refreshed == 1
        assert len(server.requests) == 3


async def test_a_token_that_ends_soon_is_fetched_again() -> None:
    account = Account("one", "two", life=200)  # less than the margin of five minutes
    credentials = GoogleCredentials(account)
    from rejoinder import _stamps

    assert await credentials.token() == "one"
    assert await credentials.token() == "one"  # not more often than every ten seconds
    now = _stamps.wall_now()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(_stamps, "wall_now", lambda: now + 11)
        assert await credentials.token() == "two"


async def test_many_calls_wait_for_one_token() -> None:
    account = Account("tok")
    credentials = GoogleCredentials(account)
    assert set(await asyncio.gather(*(credentials.token() for _ in range(8)))) == {"tok"}
    assert account.refreshed == 1


async def test_a_token_that_was_refused_is_renewed_once() -> None:
    account = Account("old", "new")
    async with FaultServer() as server, vertex(account)(server.url) as llm:
        server.script(Answer(status=401))
        await llm.chat(chat_ctx=conversation()).collect()
        sent_tokens = [request.headers["authorization"] for request in server.requests]
        assert sent_tokens == ["Bearer old", "Bearer new"]
        server.always(Answer(status=401))
        with pytest.raises(APIStatusError) as caught:
            await llm.chat(chat_ctx=conversation()).collect()
        assert caught.value.status_code == 401
        assert len(server.requests) == 4  # one second chance, no more


async def test_credentials_that_are_revoked_are_not_tried_again() -> None:
    async def refuse(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        length = int(head.lower().split(b"content-length:")[1].split(b"\r\n")[0])
        await reader.readexactly(length)
        body = b'{"error":"invalid_grant","error_description":"Token has been expired or revoked."}'
        writer.write(
            b"HTTP/1.1 400 Bad Request\r\ncontent-type: application/json\r\nconnection: close\r\n"
            b"content-length: %d\r\n\r\n%b" % (len(body), body)
        )
        await writer.drain()
        writer.close()

    async with FaultServer() as server, listening(refuse) as url:
        account = Credentials(
            None,
            refresh_token="refresh",
            client_id="id",
            client_secret="secret",
            token_uri=f"{url}/token",
        )
        async with vertex(account)(server.url) as llm:
            with pytest.raises(APIStatusError) as caught:
                await llm.chat(chat_ctx=conversation()).collect()
            assert caught.value.status_code == 401
            assert "expired or revoked" in str(caught.value)
            assert not caught.value.retryable
            assert not server.requests


async def test_a_token_server_that_is_away_may_come_back() -> None:
    account = Credentials(
        None,
        refresh_token="refresh",
        client_id="id",
        client_secret="secret",
        token_uri="http://127.0.0.1:9/token",
    )
    with pytest.raises(APIConnectionError) as caught:
        await GoogleCredentials(account).token()
    assert caught.value.retryable


async def test_no_credentials(monkeypatch: pytest.MonkeyPatch, tmp_path: Any) -> None:
    monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", str(tmp_path / "missing.json"))
    with pytest.raises(ConfigurationError, match="gcloud"):
        await GoogleCredentials().token()


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{",
        "[]",
        "3",
        "null",
        '{"type": 3}',
        '{"type": "service_account"}',
        '{"type": "service_account", "client_email": "a", "token_uri": "b", "private_key": ["c"]}',
        '{"type": "impersonated_service_account"}',
        '{"type": "external_account"}',
    ],
)
async def test_a_key_file_that_is_wrong(
    text: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Any
) -> None:
    (tmp_path / "key.json").write_text(text)
    monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", str(tmp_path / "key.json"))
    with pytest.raises(ConfigurationError, match="Google credentials"):
        await GoogleCredentials().token()


async def test_a_key_file_that_is_a_directory(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Any
) -> None:
    monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", str(tmp_path))
    with pytest.raises(ConfigurationError, match="Is a directory"):
        await GoogleCredentials().token()


class Raising:
    """Stands for credentials of google-auth that pass on the errors of other libraries."""

    token = expiry = None

    def __init__(self, error: Exception) -> None:
        self.error = error

    def refresh(self, request: object) -> None:
        raise self.error


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (requests.ConnectionError("away"), APIConnectionError),
        (requests.Timeout("late"), APIConnectionError),
        (ConnectionResetError("away"), APIConnectionError),
        (TimeoutError(), APIConnectionError),
        (ValueError("no key"), ConfigurationError),
        (KeyError("client_email"), ConfigurationError),
        (FileNotFoundError(2, "No such file", "/no/such"), ConfigurationError),
        (StopIteration("odd"), ConfigurationError),
    ],
    ids=repr,
)
async def test_foreign_errors_of_credentials(error: Exception, expected: type[Exception]) -> None:
    with pytest.raises(expected, match="Google") as caught:
        await GoogleCredentials(Raising(error)).token()
    assert caught.value.__cause__ is error


async def test_a_token_server_that_quotes_the_key() -> None:
    async with FaultServer() as server:
        server.always(Answer(status=401, message="the token canary-0123456789 was revoked"))
        user: Any = Credentials(
            None,
            refresh_token="canary-0123456789",
            client_id="c",
            client_secret="s",
            token_uri=f"{server.url}/token",
        )
        with pytest.raises(APIStatusError, match=r"the token \*\*\* was revoked") as caught:
            await GoogleCredentials(user).token()
    told = traceback.TracebackException.from_exception(caught.value, capture_locals=True)
    assert "canary" not in "".join(told.format())


async def test_the_wrong_project_is_told_at_once() -> None:
    async with FaultServer() as server, vertex(Account("tok"))(server.url) as llm:
        server.always(Answer(status=403, message="Permission denied on resource project x."))
        with pytest.raises(APIStatusError, match="resource project x"):
            await llm.chat(chat_ctx=conversation()).collect()
        assert len(server.requests) == 1


@pytest.mark.parametrize("location", ["us-centrall1", "Frankfurt", "eu-west-1"])
def test_an_unknown_location(location: str) -> None:
    with pytest.raises(ConfigurationError, match="location"):
        google.LLM(vertexai=True, project="p", location=location)
    with pytest.raises(ConfigurationError, match="location"):
        anthropic.LLM.with_vertex(model="m", project="p", location=location)
    # A new one can be told by its address.
    url = f"https://{location.lower()}-aiplatform.googleapis.com"
    assert google.LLM(vertexai=True, location=location, base_url=url)._location == location


async def test_express_mode() -> None:
    make = lambda url: google.LLM(  # noqa: E731
        model="gemini-x", vertexai=True, api_key="ek", base_url=url
    )
    request = await sent(make)
    assert request.path.startswith("/v1beta1/publishers/google/models/gemini-x:stream")
    assert request.headers["x-goog-api-key"] == "ek"


@pytest.mark.parametrize("name", ["..", "../../v1/secret", "a/../b", "m?x=1", "m#f"])
@pytest.mark.parametrize("option", ["project", "location"])
@pytest.mark.parametrize("vendor", ["google", "anthropic"])
async def test_a_project_and_a_location_lead_nowhere_else(
    vendor: str, option: str, name: str
) -> None:
    options: dict[str, Any] = {"project": "p", "location": "l", "model": "m"} | {option: name}
    async with FaultServer() as server:
        at = {"base_url": server.url}
        llm = (
            google.LLM(vertexai=True, credentials=Account("tok"), **options, **at)
            if vendor == "google"
            else anthropic.LLM.with_vertex(access_token="tok", **options, **at)
        )
        async with llm:
            with contextlib.suppress(ConfigurationError, APIError):
                await llm.chat(chat_ctx=conversation(), conn_options=ONCE).collect()
        for request in server.requests:
            path = request.path.partition("?")[0]
            assert re.fullmatch(r"(/v1\w*)?/projects/[^/]+/locations/[^/]+/publishers/.*", path)
            assert not {"", ".", ".."} & set(path.split("/")[1:])
