"""The clients that `bench/providers.py` compares, each run in its own environment.

    python providers_clients.py NAME URL WHAT [N]

Prints one line of JSON. Each client gets the same request and hands out the pieces of text.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import gc
import json
import os
import statistics
import sys
import time
from collections.abc import AsyncIterator, Callable
from typing import Any

QUESTION = "What is the weather in Cologne, and what will it be tomorrow?"
INSTRUCTIONS = "You are a friendly voice assistant. Be brief."
Ask = Callable[[str], AsyncIterator[str]]


@contextlib.asynccontextmanager
async def bare(url: str) -> AsyncIterator[Ask]:
    """The loop one writes by hand with aiohttp and msgspec: nothing checked, nothing built."""
    import aiohttp
    import msgspec

    decode = msgspec.json.decode
    # aiohttp's own limit of 100 connections would keep further streams waiting, and the others quick.
    connector = aiohttp.TCPConnector(limit=0)
    async with aiohttp.ClientSession(connector=connector) as session:

        async def ask(model: str) -> AsyncIterator[str]:
            body = {
                "model": model,
                "messages": [
                    {"role": "system", "content": INSTRUCTIONS},
                    {"role": "user", "content": QUESTION},
                ],
                "stream": True,
                "stream_options": {"include_usage": True},
            }
            headers = {"Authorization": "Bearer key", "Content-Type": "application/json"}
            data = msgspec.json.encode(body)
            async with session.post(
                f"{url}/v1/chat/completions", data=data, headers=headers
            ) as answer:
                async for line in answer.content:
                    if not line.startswith(b"data: ") or line.startswith(b"data: [DONE]"):
                        continue
                    for choice in decode(line[6:])["choices"]:
                        text = choice["delta"].get("content")
                        if text:
                            yield text

        yield ask


def our_openai(url: str, model: str) -> Any:
    from rejoinder.providers import openai

    return openai.LLM(model=model, api_key="key", base_url=f"{url}/v1")


def our_anthropic(url: str, model: str) -> Any:
    from rejoinder.providers import anthropic

    return anthropic.LLM(model=model, api_key="key", base_url=url)


def our_google(url: str, model: str) -> Any:
    from rejoinder.providers import google

    return google.LLM(model=model, api_key="key", base_url=url)


def our_aws(url: str, model: str) -> Any:
    from rejoinder.providers import aws

    return aws.LLM(model=model, api_key="key", api_secret="secret", base_url=url)


def our_mistralai(url: str, model: str) -> Any:
    from rejoinder.providers import mistralai

    return mistralai.LLM(model=model, api_key="key", base_url=f"{url}/v1")


def our_inference(url: str, model: str) -> Any:
    from rejoinder.providers import inference

    return inference.LLM(model, api_key="key", api_secret="secret", base_url=f"{url}/v1")


@contextlib.asynccontextmanager
async def rejoinder(url: str, make: Callable[[str, str], Any] = our_openai) -> AsyncIterator[Ask]:
    from rejoinder.llm import ChatContext

    models: dict[str, Any] = {}
    seen: list[Any] = []

    async def ask(model: str) -> AsyncIterator[str]:
        llm = models.get(model)
        if llm is None:
            llm = models[model] = make(url, model)
            llm.on("metrics_collected", seen.append)
        async with llm.chat(chat_ctx=livekit_context(ChatContext)) as stream:
            async for chunk in stream:
                delta = chunk.delta
                if delta is not None and delta.content:
                    yield delta.content

    yield ask
    for llm in models.values():
        await llm.aclose()
    assert seen
    assert all(metrics.completion_tokens for metrics in seen)


def livekit_context(kind: Any) -> Any:
    context = kind.empty()
    context.add_message(role="system", content=INSTRUCTIONS)
    context.add_message(role="user", content=QUESTION)
    return context


@contextlib.asynccontextmanager
async def livekit(url: str) -> AsyncIterator[Ask]:
    from livekit.agents.llm import ChatContext
    from livekit.plugins import openai

    models: dict[str, Any] = {}

    async def ask(model: str) -> AsyncIterator[str]:
        llm = models.get(model)
        if llm is None:
            llm = models[model] = openai.LLM(model=model, api_key="key", base_url=f"{url}/v1")
        async with llm.chat(chat_ctx=livekit_context(ChatContext)) as stream:
            async for chunk in stream:
                if chunk.delta is not None and chunk.delta.content:
                    yield chunk.delta.content

    yield ask


MESSAGES = [
    {"role": "system", "content": INSTRUCTIONS},
    {"role": "user", "content": QUESTION},
]


@contextlib.asynccontextmanager
async def openai(url: str) -> AsyncIterator[Ask]:
    from openai import AsyncOpenAI

    async with AsyncOpenAI(api_key="key", base_url=f"{url}/v1", max_retries=0) as client:

        async def ask(model: str) -> AsyncIterator[str]:
            stream = await client.chat.completions.create(
                model=model,
                messages=MESSAGES,
                stream=True,
                stream_options={"include_usage": True},
            )
            async for chunk in stream:
                for choice in chunk.choices:
                    if choice.delta.content:
                        yield choice.delta.content

        yield ask


@contextlib.asynccontextmanager
async def litellm(url: str) -> AsyncIterator[Ask]:
    os.environ["LITELLM_LOCAL_MODEL_COST_MAP"] = "True"
    import litellm as module

    module.REPEATED_STREAMING_CHUNK_LIMIT = 10**9

    async def ask(model: str) -> AsyncIterator[str]:
        stream = await module.acompletion(
            model=f"openai/{model}",
            messages=MESSAGES,
            api_base=f"{url}/v1",
            api_key="key",
            stream=True,
            stream_options={"include_usage": True},
        )
        async for chunk in stream:
            for choice in chunk.choices:
                if choice.delta.content:
                    yield choice.delta.content

    yield ask


@contextlib.asynccontextmanager
async def langchain(url: str) -> AsyncIterator[Ask]:
    from langchain_openai import ChatOpenAI

    models: dict[str, Any] = {}
    asked = [("system", INSTRUCTIONS), ("human", QUESTION)]

    async def ask(model: str) -> AsyncIterator[str]:
        llm = models.get(model)
        if llm is None:
            llm = models[model] = ChatOpenAI(
                model=model, api_key="key", base_url=f"{url}/v1", stream_usage=True, max_retries=0
            )
        async for chunk in llm.astream(asked):
            if chunk.content:
                yield chunk.content

    yield ask


@contextlib.asynccontextmanager
async def pydantic_ai(url: str) -> AsyncIterator[Ask]:
    from pydantic_ai.direct import model_request_stream
    from pydantic_ai.messages import (
        ModelRequest,
        PartDeltaEvent,
        PartStartEvent,
        SystemPromptPart,
        UserPromptPart,
    )
    from pydantic_ai.models.openai import OpenAIChatModel
    from pydantic_ai.providers.openai import OpenAIProvider

    provider = OpenAIProvider(base_url=f"{url}/v1", api_key="key")
    models: dict[str, Any] = {}

    async def ask(model: str) -> AsyncIterator[str]:
        llm = models.get(model)
        if llm is None:
            llm = models[model] = OpenAIChatModel(model, provider=provider)
        asked = [ModelRequest(parts=[SystemPromptPart(INSTRUCTIONS), UserPromptPart(QUESTION)])]
        async with model_request_stream(llm, asked) as stream:
            async for event in stream:
                if isinstance(event, PartDeltaEvent):
                    if event.delta.content_delta:
                        yield event.delta.content_delta
                elif isinstance(event, PartStartEvent) and event.part.content:
                    yield event.part.content

    yield ask


@contextlib.asynccontextmanager
async def any_llm(url: str) -> AsyncIterator[Ask]:
    from any_llm import acompletion

    async def ask(model: str) -> AsyncIterator[str]:
        stream = await acompletion(
            model=model,
            provider="openai",
            messages=MESSAGES,
            api_base=f"{url}/v1",
            api_key="key",
            stream=True,
            stream_options={"include_usage": True},
        )
        async for chunk in stream:
            for choice in chunk.choices:
                if choice.delta.content:
                    yield choice.delta.content

    yield ask


CLIENTS = {
    "bare": bare,
    "rejoinder": rejoinder,
    "our-anthropic": functools.partial(rejoinder, make=our_anthropic),
    "our-google": functools.partial(rejoinder, make=our_google),
    "our-aws": functools.partial(rejoinder, make=our_aws),
    "our-mistralai": functools.partial(rejoinder, make=our_mistralai),
    "our-inference": functools.partial(rejoinder, make=our_inference),
    "openai": openai,
    "livekit": livekit,
    "litellm": litellm,
    "langchain": langchain,
    "pydantic-ai": pydantic_ai,
    "any-llm": any_llm,
}


async def take(ask: Ask, model: str) -> int:
    count = 0
    async for _ in ask(model):
        count += 1
    return count


async def cost(ask: Ask, kind: str, chunks: int, requests: int) -> dict[str, float]:
    """CPU microseconds of a request, and of each of its chunks."""
    for _ in range(3):
        await take(ask, f"{kind}-2")
    await take(ask, f"{kind}-200")
    gc.collect()
    begin = time.process_time()
    for _ in range(requests):
        await take(ask, f"{kind}-2")
    request = (time.process_time() - begin) / requests
    best = float("inf")
    for _ in range(3 if kind == "fast" else 1):
        begin = time.process_time()
        count = await take(ask, f"{kind}-{chunks}")
        best = min(best, time.process_time() - begin)
        assert count == chunks, (count, chunks)
    return {"request": 1e6 * request, "chunk": 1e6 * (best - request) / (chunks - 2)}


async def first_token(ask: Ask, requests: int) -> dict[str, float]:
    """Milliseconds from asking to the first text."""
    for _ in range(5):
        await take(ask, "fast-2")
    took: list[float] = []
    for _ in range(requests):
        begin = time.perf_counter()
        async for _ in ask("fast-2"):
            took.append(1e3 * (time.perf_counter() - begin))
            break
    took.sort()
    return {"p50": statistics.median(took), "p95": took[int(0.95 * len(took))]}


async def delays(ask: Ask, streams: int, seconds: float) -> dict[str, float]:
    """Milliseconds between the sending of a chunk and its arrival at the consumer."""
    chunks = int(50 * seconds)
    seen: list[float] = []
    await take(ask, "fast-2")

    async def one() -> None:
        async for text in ask(f"clock-{chunks}"):
            now = time.monotonic()
            seen.append(now - float(text))

    # Callers do not call at the same moment.
    tasks: list[asyncio.Task[None]] = []
    for _ in range(streams):
        tasks.append(asyncio.create_task(one()))
        await asyncio.sleep(2.0 / streams)
    begin = time.process_time(), time.monotonic()
    await asyncio.gather(*tasks)
    busy = (time.process_time() - begin[0]) / (time.monotonic() - begin[1])
    assert len(seen) == streams * chunks, (len(seen), streams * chunks)
    seen = sorted(1e3 * delay for delay in seen)
    return {
        "p50": seen[len(seen) // 2],
        "p99": seen[int(0.99 * len(seen))],
        "max": seen[-1],
        "busy": busy,
    }


async def main(name: str, url: str, what: str, numbers: list[str]) -> None:
    logging_off()
    async with CLIENTS[name](url) as ask:
        match what:
            case "fast" | "slow":
                found = await cost(ask, what, int(numbers[0]), int(numbers[1]))
            case "ttft":
                found = await first_token(ask, int(numbers[0]))
            case "delays":
                found = await delays(ask, int(numbers[0]), float(numbers[1]))
            case _:
                raise SystemExit(f"unknown measurement {what!r}")
    print(json.dumps(found))


def logging_off() -> None:
    import logging

    logging.disable(logging.WARNING)


if __name__ == "__main__":
    if hasattr(os, "sched_setaffinity") and os.environ.get("BENCH_CORE"):
        os.sched_setaffinity(0, {int(os.environ["BENCH_CORE"])})
    asyncio.run(main(sys.argv[1], sys.argv[2], sys.argv[3], sys.argv[4:]))
