"""LiteLLM's proxy, which nobody here wrote, between our client and a server that misbehaves.

It lives in an environment of its own, made at the first run, and is started and stopped here. What
stands behind it speaks OpenAI's dialect, so that what arrives has passed through LiteLLM twice.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest

from outside.litellm.litellm_server import running
from rejoinder.errors import APIError, APIStatusError
from rejoinder.llm.chat_context import ChatContext
from rejoinder.llm.tool_context import function_tool
from rejoinder.providers import openai
from rejoinder.testing.faults import Answer, Call, Fault, FaultServer, Usage
from rejoinder.types import APIConnectOptions

pytestmark = [pytest.mark.timeout(900), pytest.mark.may_block]

ONCE = APIConnectOptions(max_retry=0, timeout=60.0)

CONFIG = """
model_list:
  - model_name: behind
    litellm_params:
      model: openai/behind
      api_base: {url}/v1
      api_key: upstream-key
      max_retries: 0
"""


class Behind:
    """The misbehaving server, on a loop in a thread, so that it outlives the loops of the tests."""

    def __init__(self) -> None:
        self.loop = asyncio.new_event_loop()
        self.server = FaultServer()
        self.thread = threading.Thread(target=self.loop.run_forever, daemon=True)
        self.thread.start()
        self.run(self.server.start())

    def run(self, work: Any) -> Any:
        return asyncio.run_coroutine_threadsafe(work, self.loop).result(30)

    def close(self) -> None:
        self.run(self.server.aclose())
        self.loop.call_soon_threadsafe(self.loop.stop)
        self.thread.join(10)
        self.loop.close()


@pytest.fixture(scope="module")
def behind() -> Iterator[Behind]:
    made = Behind()
    yield made
    made.close()


@pytest.fixture(scope="module")
def proxy(behind: Behind, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, str]]:
    """Address and key of the running proxy."""
    folder = tmp_path_factory.mktemp("litellm")
    with running(CONFIG.format(url=behind.server.url), folder) as found:
        yield found


@pytest.fixture
async def llm(proxy: tuple[str, str]) -> AsyncIterator[Any]:
    url, key = proxy
    async with openai.LLM(model="behind", api_key=key, base_url=f"{url}/v1") as made:
        yield made


def asking(text: str = "hello") -> ChatContext:
    context = ChatContext.empty()
    context.add_message(role="user", content=text)
    return context


@function_tool
async def look_up(city: str) -> str:
    """Look up the weather."""
    return ""


async def test_text_and_usage_pass_through(llm: Any, behind: Behind) -> None:
    behind.server.script(Answer(text=("Grüß", " dich", " 👋"), usage=Usage(31, 5)))
    stream = llm.chat(chat_ctx=asking(), conn_options=ONCE)
    reply = await stream.collect()
    assert reply.text == "Grüß dich 👋"
    assert reply.usage is not None
    assert (reply.usage.prompt_tokens, reply.usage.completion_tokens) == (31, 5)
    assert stream.finish_reason == "stop"


async def test_calls_pass_through(llm: Any, behind: Behind) -> None:
    calls = (
        Call("look_up", '{"city":"Köln"}', "call_1"),
        Call("look_up", '{"city":"Rom"}', "call_2"),
    )
    behind.server.script(Answer(text=("Let me see.",), calls=calls))
    reply = await llm.chat(chat_ctx=asking(), tools=[look_up], conn_options=ONCE).collect()
    assert reply.text == "Let me see."
    assert [(call.name, call.arguments, call.call_id) for call in reply.tool_calls] == [
        (call.name, call.arguments, call.call_id) for call in calls
    ]
    sent = behind.server.requests[-1].json()
    assert sent["tools"][0]["function"]["name"] == "look_up"


@pytest.mark.parametrize("status", [400, 401, 429, 500])
async def test_errors_behind_it_keep_their_status(llm: Any, behind: Behind, status: int) -> None:
    behind.server.script(Answer(status=status, message="said behind"))
    with pytest.raises(APIStatusError) as caught:
        await llm.chat(chat_ctx=asking(), conn_options=ONCE).collect()
    assert caught.value.status_code == status
    assert "said behind" in caught.value.message
    assert caught.value.retryable is (status in (429, 500))


async def test_a_reply_that_breaks_behind_it_is_an_error(llm: Any, behind: Behind) -> None:
    behind.server.script(Answer(text=("One", " two"), fault=Fault.ERROR_EVENT_MID_STREAM, after=1))
    with pytest.raises(APIError) as caught:
        await llm.chat(chat_ctx=asking(), conn_options=ONCE).collect()
    assert caught.value.message


async def test_its_own_errors_are_ours(llm: Any, proxy: tuple[str, str]) -> None:
    url, key = proxy
    async with openai.LLM(model="behind", api_key="sk-wrong-0123456789", base_url=url) as stranger:
        with pytest.raises(APIStatusError) as caught:
            await stranger.chat(chat_ctx=asking(), conn_options=ONCE).collect()
    assert caught.value.status_code in (400, 401)
    assert "sk-wrong-0123456789" not in repr(caught.value)
    async with openai.LLM(model="unheard-of", api_key=key, base_url=f"{url}/v1") as other:
        with pytest.raises(APIStatusError) as caught:
            await other.chat(chat_ctx=asking(), conn_options=ONCE).collect()
    assert caught.value.status_code in (400, 404)
    assert not caught.value.retryable
    assert "unheard-of" in caught.value.message


async def test_the_responses_dialect_passes_too(proxy: tuple[str, str], behind: Behind) -> None:
    url, key = proxy
    behind.server.script(Answer(text=("Hello", " there"), format="responses"))
    async with openai.LLM(
        model="behind", api_key=key, base_url=f"{url}/v1", api="responses"
    ) as llm:
        reply = await llm.chat(chat_ctx=asking(), conn_options=ONCE).collect()
    assert reply.text == "Hello there"
