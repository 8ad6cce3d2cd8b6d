"""The server and our clients against each other: memory, formats, what is tried again.

The whole table of faults and providers is in ``tests/contract``.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from rejoinder.errors import APIError, APIStatusError, APITimeoutError
from rejoinder.llm import ChatContext
from rejoinder.llm.llm import LLM
from rejoinder.testing.faults import (
    GREETING,
    OUTCOMES,
    Answer,
    Call,
    Fault,
    FaultServer,
    Format,
    outcome_of,
)
from rejoinder.testing.leaks import no_leaks
from rejoinder.types import APIConnectOptions

pytestmark = pytest.mark.looptime

KEY = "sk-canary-4f1d8a7e9b2c"
PIECES = ("Hello", " wörld", " 👋.")
TEXT = "".join(PIECES)
OPTIONS = APIConnectOptions(max_retry=0, timeout=20)


def deadline(fault: Fault) -> float:
    """Short where only the clock can end it, long where it must not, however slow the machine."""
    return 1.0 if APITimeoutError in OUTCOMES[fault].errors else 20.0


def openai_chat(url: str) -> LLM[Any]:
    from rejoinder.providers.openai import LLM

    return LLM(model="gpt-4.1", api_key=KEY, base_url=url + "/v1")


def openai_responses(url: str) -> LLM[Any]:
    from rejoinder.providers.openai import LLM

    return LLM(model="gpt-4.1", api_key=KEY, base_url=url + "/v1", api="responses")


def anthropic(url: str) -> LLM[Any]:
    from rejoinder.providers.anthropic import LLM

    return LLM(api_key=KEY, base_url=url)


def google(url: str) -> LLM[Any]:
    from rejoinder.providers.google import LLM

    return LLM(api_key=KEY, base_url=url)


def aws(url: str) -> LLM[Any]:
    from rejoinder.providers.aws import LLM

    return LLM(api_key="AKIACANARY4F1D8A7E9B", api_secret=KEY, base_url=url)


def mistral(url: str) -> LLM[Any]:
    from rejoinder.providers.mistralai import LLM

    return LLM(api_key=KEY, base_url=url)


def inference(url: str) -> LLM[Any]:
    from rejoinder.providers.inference import LLM

    return LLM("openai/gpt-4.1-mini", api_key="key", api_secret=KEY, base_url=url + "/v1")


Make = Callable[[str], LLM[Any]]
PROVIDERS: dict[str, tuple[Make, Format]] = {
    "openai": (openai_chat, "openai"),
    "openai-responses": (openai_responses, "responses"),
    "anthropic": (anthropic, "anthropic"),
    "google": (google, "google"),
    "google-array": (google, "google-array"),
    "aws": (aws, "bedrock"),
    "mistralai": (mistral, "mistral"),
    "inference": (inference, "openai"),
}


def conversation() -> ChatContext:
    chat_ctx = ChatContext.empty()
    chat_ctx.add_message(role="user", content="Hello?")
    return chat_ctx


async def ask(llm: LLM[Any], options: APIConnectOptions = OPTIONS) -> tuple[str, APIError | None]:
    """What reaches the consumer: text, then perhaps an error."""
    text = ""
    try:
        async with llm.chat(chat_ctx=conversation(), conn_options=options) as stream:
            async for chunk in stream:
                if chunk.delta is not None and chunk.delta.content:
                    text += chunk.delta.content
    except APIError as error:
        return text, error
    return text, None


def test_every_fault_has_an_outcome() -> None:
    assert set(OUTCOMES) == set(Fault)


@pytest.mark.parametrize("fault", Fault, ids=str)
async def test_outcome_of_a_json_array(fault: Fault) -> None:
    make, wire = PROVIDERS["google-array"]
    expected = outcome_of(fault, wire)
    options = APIConnectOptions(max_retry=0, timeout=deadline(fault))
    async with no_leaks(), FaultServer() as server:
        async with make(server.url) as llm:
            server.script(Answer(text=PIECES, fault=fault, format=wire))
            text, error = await ask(llm, options)
        if not expected.errors:
            assert error is None, repr(error)
            assert text == TEXT
        else:
            assert isinstance(error, expected.errors), repr(error)
            assert text == (PIECES[0] if expected.text else ""), text
            if expected.status is not None:
                assert isinstance(error, APIStatusError)
                assert error.status_code == expected.status
            if expected.retryable is not None:
                assert error.retryable is expected.retryable, repr(error)
            if expected.retry_after is not None:
                assert error.retry_after == pytest.approx(expected.retry_after, abs=1.1)
        redirects = 6 if fault is Fault.REDIRECT_LOOP else 1
        assert len(server.requests) == redirects
        assert server.unused == 0


@pytest.mark.parametrize("provider", PROVIDERS)
@pytest.mark.parametrize("fault", [Fault.ENDLESS_LINE, Fault.GZIP_BOMB, Fault.ENDLESS_ERROR_BODY])
async def test_memory(provider: str, fault: Fault) -> None:
    make, wire = PROVIDERS[provider]
    async with FaultServer() as server, make(server.url) as llm:
        server.script(Answer(text=GREETING, format=wire))
        assert (await ask(llm))[1] is None  # what is imported and cached once is no growth
        server.script(Answer(text=GREETING, fault=fault, format=wire))
        async with no_leaks(max_memory=64 << 20):
            _, error = await ask(llm, APIConnectOptions(max_retry=0, timeout=20))
    assert isinstance(error, OUTCOMES[fault].errors)


@pytest.mark.parametrize("provider", PROVIDERS)
async def test_what_can_be_retried_is_and_leaves_no_trace(provider: str) -> None:
    """The faults before any text, then an answer: the consumer sees the answer alone."""
    make, wire = PROVIDERS[provider]
    again = [
        fault
        for fault, outcome in OUTCOMES.items()
        if outcome.errors and outcome.retryable and not outcome.text and outcome.retry_after is None
    ]
    assert len(again) >= 15

    async def one(fault: Fault) -> tuple[Fault, str, APIError | None, int]:
        async with FaultServer() as server, make(server.url) as llm:
            server.script(
                Answer(text=("Never ", "heard"), fault=fault, format=wire),
                Answer(text=PIECES, format=wire),
            )
            once = APIConnectOptions(max_retry=1, timeout=deadline(fault))
            return fault, *await ask(llm, once), len(server.requests)

    for result in await asyncio.gather(*map(one, again)):
        assert result == (result[0], TEXT, None, 2)


@pytest.mark.parametrize("provider", PROVIDERS)
async def test_nothing_is_retried_once_text_was_heard(provider: str) -> None:
    make, wire = PROVIDERS[provider]
    committed = [fault for fault, outcome in OUTCOMES.items() if outcome.text]

    async def one(fault: Fault) -> tuple[Fault, str, bool, int]:
        async with FaultServer() as server, make(server.url) as llm:
            server.always(Answer(text=PIECES, fault=fault, format=wire))
            often = APIConnectOptions(max_retry=3, timeout=deadline(fault), retry_interval=0.0)
            text, error = await ask(llm, often)
            return fault, text, error is not None, len(server.requests)

    for result in await asyncio.gather(*map(one, committed)):
        assert result == (result[0], PIECES[0], True, 1)


@pytest.mark.parametrize("provider", PROVIDERS)
async def test_tool_calls_thinking_and_usage(provider: str) -> None:
    make, wire = PROVIDERS[provider]
    async with FaultServer() as server, make(server.url) as llm:
        server.script(
            Answer(
                text=("Let me see.",),
                thinking="The user wants the weather.",
                calls=(
                    Call("weather", '{"city": "Zürich 👋"}', "call_1"),
                    Call("clock", "{}", "call_2"),
                ),
                format=wire,
            )
        )
        stream = llm.chat(chat_ctx=conversation(), conn_options=OPTIONS)
        reply = await stream.collect()
    assert reply.text == "Let me see."
    assert "weather" not in reply.text
    assert [(call.name, call.arguments.replace(" ", "")) for call in reply.tool_calls] == [
        ("weather", '{"city":"Zürich👋"}'),
        ("clock", "{}"),
    ]
    assert len({call.call_id for call in reply.tool_calls}) == 2
    usage = reply.usage
    assert usage is not None
    assert (usage.prompt_tokens, usage.completion_tokens, usage.total_tokens) == (11, 7, 18)
