"""Anthropic's and Gemini's APIs as LiteLLM's proxy speaks them, which nobody here wrote.

Behind the proxy stand a small model in llama.cpp's server and a server that misbehaves; both speak
OpenAI's dialect, so every request and every reply is translated by LiteLLM on its way.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from outside.litellm.litellm_server import running
from outside.litellm.test_proxy import Behind
from outside.litellm.test_proxy import behind as behind
from outside.llama.test_server import KEY, MODEL
from outside.llama.test_server import server as server
from providers.conversation import TOOLS, conversation
from rejoinder.errors import APIError, APIStatusError
from rejoinder.llm.chat_context import ChatContext
from rejoinder.providers import anthropic, google
from rejoinder.testing.faults import Answer, Call, Fault, Usage
from rejoinder.types import APIConnectOptions

pytest.importorskip("xllamacpp", reason="the extra `local` is not installed")
pytestmark = [pytest.mark.timeout(900), pytest.mark.may_block]

ONCE = APIConnectOptions(max_retry=0, timeout=120.0)
MODELS = """
model_list:
  - model_name: behind
    litellm_params:
      model: hosted_vllm/behind
      api_base: {behind}/v1
      api_key: upstream-key
      max_retries: 0
  - model_name: small
    litellm_params:
      model: hosted_vllm/{model}
      api_base: {small}/v1
      api_key: {key}
      max_retries: 0
"""

Make = Callable[[str], Any]
ROUTES: dict[str, Callable[[str, str, str], Any]] = {
    "anthropic": lambda url, key, model: anthropic.LLM(
        model=model, api_key=key, base_url=url, temperature=0.0, max_tokens=24
    ),
    "google": lambda url, key, model: google.LLM(
        model=model, api_key=key, base_url=url, temperature=0.0, max_output_tokens=24
    ),
}
every_route = pytest.mark.parametrize("route", ROUTES)


@pytest.fixture(scope="module")
def make(
    behind: Behind, server: str, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Callable[[str, str], Any]]:
    """Makes the LLM of a route for a model of the proxy."""
    models = MODELS.format(behind=behind.server.url, small=server, model=MODEL, key=KEY)
    with running(models, tmp_path_factory.mktemp("litellm")) as (url, key):
        yield lambda route, model: ROUTES[route](url, key, model)


def asking(text: str) -> ChatContext:
    context = ChatContext.empty()
    context.add_message(role="system", content="Answer with one short sentence.")
    context.add_message(role="user", content=text)
    return context


@every_route
async def test_a_real_model_answers(make: Any, route: str) -> None:
    async with make(route, "small") as llm:
        stream = llm.chat(chat_ctx=asking("Say hello."), conn_options=ONCE)
        pieces = [
            chunk.delta.content
            async for chunk in stream
            if chunk.delta is not None and chunk.delta.content
        ]
        assert len(pieces) > 1
        assert "".join(pieces).strip()
        assert stream.finish_reason in ("end_turn", "max_tokens", "STOP", "MAX_TOKENS")
        again = await llm.chat(chat_ctx=asking("Say hello."), conn_options=ONCE).collect()
        assert again.text == "".join(pieces).strip()


@every_route
async def test_text_and_calls_pass_through(make: Any, behind: Behind, route: str) -> None:
    call = Call("get_weather", '{"city":"Köln"}', "call_1")
    behind.server.script(
        Answer(text=("Grüß", " dich"), calls=(call,), usage=Usage(31, 5), format="openai")
    )
    async with make(route, "behind") as llm:
        reply = await llm.chat(
            chat_ctx=conversation(image=False), tools=TOOLS, conn_options=ONCE
        ).collect()
    assert reply.text == "Grüß dich"
    assert [(c.name, c.arguments) for c in reply.tool_calls] == [(call.name, call.arguments)]
    assert reply.usage is not None
    assert (reply.usage.prompt_tokens, reply.usage.completion_tokens) == (31, 5)
    # What the proxy understood of the request.
    body = behind.server.requests[-1].json()
    assert [tool["function"]["name"] for tool in body["tools"]] == ["get_weather", "raw_tool"]
    roles = [message["role"] for message in body["messages"]]
    assert roles == ["system", "user", "assistant", "tool", "tool", "user"]
    told = str(body["messages"])
    for words in ("You are S.", "look", "Checking.", "Rome", "sunny", "boom", "and now?"):
        assert words in told


@every_route
@pytest.mark.parametrize("status", [401, 429])
async def test_errors_behind_it_are_told(
    make: Any, behind: Behind, route: str, status: int
) -> None:
    behind.server.script(Answer(status=status, message="said behind", format="openai"))
    async with make(route, "behind") as llm:
        with pytest.raises(APIStatusError) as caught:
            await llm.chat(chat_ctx=asking("hi"), conn_options=ONCE).collect()
    assert caught.value.status_code == status
    assert "said behind" in caught.value.message


@every_route
async def test_a_reply_that_breaks_behind_it_is_an_error(
    make: Any, behind: Behind, route: str
) -> None:
    behind.server.script(
        Answer(text=("One", " two"), fault=Fault.ERROR_EVENT_MID_STREAM, after=1, format="openai")
    )
    async with make(route, "behind") as llm:
        with pytest.raises(APIError):
            await llm.chat(chat_ctx=asking("hi"), conn_options=ONCE).collect()


@every_route
async def test_a_model_it_does_not_know(make: Any, route: str) -> None:
    async with make(route, "unheard-of") as llm:
        with pytest.raises(APIStatusError) as caught:
            await llm.chat(chat_ctx=asking("hi"), conn_options=ONCE).collect()
    assert "unheard-of" in caught.value.message
