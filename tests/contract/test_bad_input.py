"""What a user gets wrong at first: each mistake is one clear sentence, the same for every provider."""

from __future__ import annotations

import dataclasses
import json
import re
from collections.abc import Callable
from typing import Any, TypedDict

import pytest
from pydantic import BaseModel

from rejoinder.errors import APIStatusError, ConfigurationError
from rejoinder.llm import ChatContext, ImageContent, function_tool
from rejoinder.llm.llm import LLM
from rejoinder.testing import Answer, FaultServer
from rejoinder.types import APIConnectOptions

ONCE = APIConnectOptions(max_retry=0, timeout=2.0)
KEY = "key-of-the-test"


def openai(url: str, **options: Any) -> LLM[Any]:
    from rejoinder.providers.openai import LLM

    return LLM(**{"model": "gpt-4.1", "api_key": KEY, "base_url": url + "/v1", **options})


def responses(url: str, **options: Any) -> LLM[Any]:
    return openai(url, api="responses", **options)


def anthropic(url: str, **options: Any) -> LLM[Any]:
    from rejoinder.providers.anthropic import LLM

    return LLM(**{"api_key": KEY, "base_url": url, **options})


def google(url: str, **options: Any) -> LLM[Any]:
    from rejoinder.providers.google import LLM

    return LLM(**{"api_key": KEY, "base_url": url, **options})


def aws(url: str, **options: Any) -> LLM[Any]:
    from rejoinder.providers.aws import LLM

    return LLM(**{"bearer_token": KEY, "base_url": url, **options})


def mistralai(url: str, **options: Any) -> LLM[Any]:
    from rejoinder.providers.mistralai import LLM

    return LLM(**{"api_key": KEY, "base_url": url + "/v1", **options})


def inference(url: str, **options: Any) -> LLM[Any]:
    from rejoinder.providers.inference import LLM

    given = {"model": "openai/gpt-4.1", "api_key": KEY, "api_secret": "only-signs"}
    return LLM(**{**given, "base_url": url + "/v1", **options})


def local(url: str) -> LLM[Any]:
    from rejoinder.providers.local import LLM

    return LLM()


Make = Callable[..., LLM[Any]]
NOWHERE = "http://127.0.0.1:1"
PROVIDERS: list[Make] = [openai, responses, anthropic, google, aws, mistralai, inference]
every_llm = pytest.mark.parametrize("make", [*PROVIDERS, local], ids=lambda make: make.__name__)
every_provider = pytest.mark.parametrize("make", PROVIDERS, ids=lambda make: make.__name__)


def conversation(*content: Any) -> ChatContext:
    chat_ctx = ChatContext.empty()
    chat_ctx.add_message(role="user", content=list(content) or ["Hello?"])
    return chat_ctx


@function_tool
async def weather(city: str) -> str:
    """The weather."""
    return city


async def body_of(make: Make, **arguments: Any) -> str:
    async with FaultServer() as server, make(server.url) as llm:
        await llm.chat(chat_ctx=conversation(), conn_options=ONCE, **arguments).collect()
        return json.dumps(server.requests[0].json())


# -- making an LLM -------------------------------------------------------------------------------


@every_provider
@pytest.mark.parametrize("url", ["host", "ftp://host", "https://", "http://a b", "http://h:x", 5])
def test_addresses_that_are_none(make: Make, url: Any) -> None:
    with pytest.raises(ConfigurationError, match=r"\bbase_url: expected an absolute URL like"):
        make(NOWHERE, base_url=url)


@every_provider
def test_a_forgotten_scheme_is_named(make: Make) -> None:
    with pytest.raises(ConfigurationError, match=r"did you mean 'http://localhost:1234/v1'\? "):
        make(NOWHERE, base_url="localhost:1234/v1")


@every_provider
async def test_an_address_may_hold_the_endpoint_and_a_slash(make: Make) -> None:
    async with FaultServer() as server:
        async with make(server.url) as llm:
            await llm.chat(chat_ctx=conversation(), conn_options=ONCE).collect()
        wanted = server.requests[0].path
        endpoints = {anthropic: "/v1/messages", responses: "/v1/responses", aws: "", google: ""}
        for ending in {endpoints.get(make, "/v1/chat/completions"), ""} - {""}:
            for slash in ("", "/"):
                async with make(server.url, base_url=server.url + ending + slash) as llm:
                    await llm.chat(chat_ctx=conversation(), conn_options=ONCE).collect()
                assert server.requests[-1].path == wanted


NO_NAMES = [
    pytest.param(make, model, id=f"{make.__name__}-{model!r}")
    for make in PROVIDERS
    for model in ("", " ", 5)
    if (make, model) != (aws, "")  # there an empty name asks the environment
]


@pytest.mark.parametrize(("make", "model"), NO_NAMES)
def test_models_that_are_no_name(make: Make, model: Any) -> None:
    with pytest.raises(ConfigurationError, match=r"\bmodel: expected the name of a model, got"):
        make(NOWHERE, model=model)


@every_provider
def test_keys_that_are_no_text(make: Make) -> None:
    option = "bearer_token" if make is aws else "api_key"
    with pytest.raises(ConfigurationError, match=rf"\b{option}: expected a string.*of type int$"):
        make(NOWHERE, **{option: 123456})


NUMBERS: list[tuple[Make, list[str]]] = [
    (openai, ["temperature", "top_p", "max_completion_tokens"]),
    (responses, ["temperature", "top_p", "max_completion_tokens"]),
    (anthropic, ["temperature", "top_k", "max_tokens"]),
    (
        google,
        [
            *("temperature", "top_p", "top_k", "presence_penalty", "frequency_penalty", "seed"),
            "max_output_tokens",
        ],
    ),
    (aws, ["temperature", "top_p", "max_output_tokens"]),
    (mistralai, ["temperature", "max_completion_tokens"]),
]


@pytest.mark.parametrize(
    ("make", "option"),
    [(make, option) for make, options in NUMBERS for option in options],
    ids=lambda value: value if isinstance(value, str) else value.__name__,
)
def test_numbers_that_are_none(make: Make, option: str) -> None:
    counts = option.startswith("max_")
    for wrong in ("hot", float("nan"), float("inf"), True, [1], *((0, 0.5) if counts else ())):
        with pytest.raises(ConfigurationError) as found:
            make(NOWHERE, **{option: wrong})
        expected = "a whole number of at least 1" if counts else r"a (whole|finite)? ?number"
        assert re.match(rf"LLM\.{option}: expected {expected}", str(found.value))
    for right in (None, 1):
        make(NOWHERE, **{option: right})


# -- asking it -----------------------------------------------------------------------------------


@every_llm
@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ({"chat_ctx": None}, r"\bchat_ctx: expected a ChatContext .*empty.*, got None$"),
        (
            {"chat_ctx": [{"role": "user"}]},
            r"\bchat_ctx: expected a ChatContext .*, got a list of dict$",
        ),
        (
            {"chat_ctx": {"items": []}},
            r"\bchat_ctx: expected a ChatContext .*, got a value of type dict$",
        ),
        (
            {"tools": weather},
            r"\btools: expected a list of tools .*decorated with @function_tool",
        ),
        ({"tool_choice": "maybe"}, r"\btool_choice: expected 'auto', .* got 'maybe'$"),
        ({"tool_choice": 5}, r"\btool_choice: expected 'auto', .* got 5$"),
        (
            {"tool_choice": {"type": "function"}},
            r"\btool_choice: expected 'auto', .* got a value of type dict$",
        ),
        ({"extra_kwargs": 5}, r"\bextra_kwargs: expected a dict .*, got a value of type int$"),
        ({"extra_kwargs": {"extra_headers": 5}}, r"\bextra_headers: expected a mapping, got int$"),
        ({"extra_kwargs": {"extra_body": 5}}, r"\bextra_body: expected a mapping, got int$"),
        ({"extra_kwargs": {"extra_query": []}}, r"\bextra_query: expected a mapping, got list$"),
    ],
)
@pytest.mark.parametrize("tools", [None, [weather]], ids=["", "tools"])
def test_arguments_of_chat(make: Make, arguments: dict[str, Any], told: str, tools: Any) -> None:
    """Before a loop runs, and before anything is sent."""
    if make is google and "tool_choice" in arguments:
        tools = [weather]  # Gemini's choice goes with the tools: without them it is not looked at
    with pytest.raises(ConfigurationError, match=told):
        make(NOWHERE).chat(**{"chat_ctx": conversation(), "tools": tools, **arguments})


@every_provider
@pytest.mark.parametrize("image", ["/tmp/a.png", "a.png", "example.com/a.png", ""])
def test_images_that_are_no_address(make: Make, image: str) -> None:
    with pytest.raises(ConfigurationError, match=r"^image .*: expected a URL like .* for a file"):
        make(NOWHERE).chat(chat_ctx=conversation("Look:", ImageContent(image=image)))


@every_llm
@pytest.mark.parametrize("length", [2, 300], ids=["short", "long"])
@pytest.mark.parametrize(
    ("spoil", "told"),
    [
        (lambda items: items.insert(1, {"type": "message"}), r"items\[1\]: .* got dict"),
        (lambda items: items.insert(1, None), r"items\[1\]: .* got NoneType"),
        (lambda items: setattr(items[1], "content", None), r"items\[1\]\.content: expected a list"),
        (lambda items: setattr(items[1], "content", [{}]), r"items\[1\]\.content\[0\]: expected a"),
        (lambda items: setattr(items[1], "role", "robot"), r"items\[1\]\.role: expected one of"),
    ],
    ids=["dict", "none", "content", "part", "role"],
)
async def test_what_no_history_holds(
    make: Make, length: int, spoil: Callable[[list[Any]], None], told: str
) -> None:
    """A long conversation is looked through in a thread, and told the same."""
    chat_ctx = conversation()
    for number in range(length):
        chat_ctx.add_message(role="user" if number % 2 else "assistant", content="Yes.")
    spoil(chat_ctx.items)
    with pytest.raises(ConfigurationError, match=f"^the request cannot be made: {told}"):
        await make(NOWHERE).chat(chat_ctx=chat_ctx, conn_options=ONCE).collect()


# -- response_format -----------------------------------------------------------------------------


class Model(BaseModel):
    city: str


class Typed(TypedDict):
    city: str


@dataclasses.dataclass
class Data:
    city: str


SCHEMA = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}


@every_provider
@pytest.mark.parametrize(
    "shape",
    [
        Model,
        Typed,
        Data,
        SCHEMA,
        {"type": "json_schema", "json_schema": {"name": "Place", "schema": SCHEMA}},
    ],
    ids=["model", "typed_dict", "dataclass", "schema", "openai"],
)
async def test_every_kind_of_response_format(make: Make, shape: Any) -> None:
    body = await body_of(make, response_format=shape)
    assert "city" in body
    if make in (openai, responses, mistralai, inference):
        parsed = json.loads(body)
        told = parsed["text"]["format"] if make is responses else parsed["response_format"]
        assert told["type"] == "json_schema"
        assert "city" in json.dumps(told["schema" if make is responses else "json_schema"])
        assert (told if make is responses else told["json_schema"])["name"]


@every_provider
async def test_no_response_format(make: Make) -> None:
    """``None`` is nothing, and plain text is what they write anyway."""
    assert await body_of(make, response_format=None) == await body_of(make)
    body = await body_of(make, response_format={"type": "text"})
    assert "schema" not in body


@pytest.mark.parametrize("make", [anthropic, google, aws], ids=lambda make: make.__name__)
def test_json_without_a_schema_is_refused(make: Make) -> None:
    with pytest.raises(ConfigurationError, match=r"needs a schema; pass a pydantic model"):
        make(NOWHERE).chat(chat_ctx=conversation(), response_format={"type": "json_object"})


@every_provider
@pytest.mark.parametrize("shape", [5, "json", Callable])
def test_what_describes_nothing(make: Make, shape: Any) -> None:
    with pytest.raises(
        (ConfigurationError, TypeError), match=r"^response.format: expected"
    ) as found:
        make(NOWHERE).chat(chat_ctx=conversation(), response_format=shape)
    assert "\n" not in str(found.value)


# -- answers -------------------------------------------------------------------------------------


@every_provider
@pytest.mark.parametrize(
    ("status", "remedy"),
    [
        (401, "check the API key"),
        (403, "check what the API key may do"),
        (404, "check `model`, and `base_url`"),
        (413, "shorten the conversation"),
    ],
)
async def test_refusals_say_what_to_do(make: Make, status: int, remedy: str) -> None:
    async with FaultServer() as server, make(server.url) as llm:
        server.script(Answer(status=status, message=f"Nothing for {KEY}."))
        with pytest.raises(APIStatusError) as caught:
            await llm.chat(chat_ctx=conversation()).collect()
        assert len(server.requests) == 1
    error = caught.value
    assert error.status_code == status
    assert not error.retryable
    assert f"Nothing for ***; {remedy}" in str(error)
    assert KEY not in repr(error) + repr(error.body)
