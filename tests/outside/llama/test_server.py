"""The HTTP server of llama.cpp, which nobody here wrote, with a small model.

It is part of the engine that the extra ``local`` installs. It runs in a process of its own, started
and stopped here.
"""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from pydantic import BaseModel

from rejoinder.errors import APIError, APIStatusError
from rejoinder.llm.chat_context import ChatContext
from rejoinder.providers import openai
from rejoinder.types import APIConnectOptions

pytest.importorskip("xllamacpp", reason="the extra `local` is not installed")
pytestmark = [pytest.mark.timeout(300), pytest.mark.may_block]

KEY = "key-of-the-llama-server"
MODEL = "smollm2-135m"
PATIENT = APIConnectOptions(max_retry=0, timeout=120.0)

SERVER = """
import sys, xllamacpp
params = xllamacpp.CommonParams()
params.model.path = sys.argv[1]
params.n_parallel = 1
params.n_ctx = 2048
params.cpuparams.n_threads = params.cpuparams_batch.n_threads = 1
params.api_keys = [sys.argv[2]]
params.hostnames = ["127.0.0.1"]
params.port = 0
params.endpoint_slots = True
params.verbosity = -1
server = xllamacpp.Server(params)
print("ADDRESS", server.listening_address, flush=True)
sys.stdin.read()
import os; os._exit(0)
"""


def model_file() -> Path:
    from rejoinder.providers.local import fetch, models

    model = next(model for model in models.MODELS if model.name == MODEL)
    path = fetch.ready(model)
    if path is None:
        try:
            path = asyncio.run(asyncio.wait_for(fetch.fetch(model), 240))
        except (APIError, models.ModelError, TimeoutError) as error:
            pytest.skip(f"the model {MODEL} is not here and cannot be fetched: {error}")
    return path


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    """The address of the running server."""
    process = subprocess.Popen(
        [sys.executable, "-c", SERVER, str(model_file()), KEY],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    try:
        assert process.stdout is not None
        for line in process.stdout:
            if line.startswith("ADDRESS "):
                yield line.split()[1]
                break
        else:
            pytest.fail("the server did not start")
    finally:
        assert process.stdin is not None
        process.stdin.close()
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        if process.stdout is not None:
            process.stdout.close()


@pytest.fixture
async def llm(server: str) -> AsyncIterator[Any]:
    async with openai.LLM(
        model=MODEL,
        api_key=KEY,
        base_url=f"{server}/v1",
        temperature=0.0,
        max_completion_tokens=24,
    ) as made:
        yield made


def asking(text: str) -> ChatContext:
    context = ChatContext.empty()
    context.add_message(role="user", content=text)
    return context


async def test_it_talks(llm: Any) -> None:
    metrics: list[Any] = []
    llm.on("metrics_collected", metrics.append)
    pieces: list[str] = []
    usage: Any = None
    async with llm.chat(chat_ctx=asking("What colour is the sky?"), conn_options=PATIENT) as stream:
        async for chunk in stream:
            if chunk.delta is not None and chunk.delta.content:
                pieces.append(chunk.delta.content)
            usage = chunk.usage or usage
        finish = stream.finish_reason
    assert len(pieces) > 3, "it streams"
    assert "".join(pieces).strip()
    assert finish in ("stop", "length")
    assert usage.prompt_tokens > 0
    assert 0 < usage.completion_tokens <= 24
    assert usage.total_tokens == usage.prompt_tokens + usage.completion_tokens
    assert metrics[0].completion_tokens == usage.completion_tokens


async def test_it_keeps_to_a_schema(llm: Any) -> None:
    class Person(BaseModel):
        name: str
        age: int

    reply = await llm.chat(
        chat_ctx=asking("Sam is 7. Who?"), response_format=Person, conn_options=PATIENT
    ).collect()
    person = Person.model_validate_json(reply.text)
    assert isinstance(person.age, int)


async def test_the_responses_dialect_is_understood_too(server: str) -> None:
    async with openai.LLM(
        model=MODEL,
        api_key=KEY,
        base_url=f"{server}/v1",
        api="responses",
        max_completion_tokens=12,
    ) as llm:
        stream = llm.chat(chat_ctx=asking("Say hello."), conn_options=PATIENT)
        reply = await stream.collect()
    assert reply.text
    assert reply.usage is not None
    assert reply.usage.completion_tokens > 0
    assert stream.finish_reason in ("completed", "incomplete")


async def test_its_errors_are_ours(llm: Any, server: str) -> None:
    long = "word " * 6000
    with pytest.raises(APIStatusError) as caught:
        await llm.chat(chat_ctx=asking(long), conn_options=PATIENT).collect()
    assert caught.value.status_code == 400
    assert not caught.value.retryable
    assert "context" in caught.value.message.lower()

    async with openai.LLM(model=MODEL, api_key="wrong", base_url=f"{server}/v1") as stranger:
        with pytest.raises(APIStatusError) as caught:
            await stranger.chat(chat_ctx=asking("hi"), conn_options=PATIENT).collect()
    assert caught.value.status_code == 401
    assert "key" in caught.value.message.lower()


async def test_it_notices_that_nobody_listens_any_more(server: str) -> None:
    async def busy(session: aiohttp.ClientSession) -> bool:
        headers = {"Authorization": f"Bearer {KEY}"}
        async with session.get(f"{server}/slots", headers=headers) as answer:
            return any(slot["is_processing"] for slot in json.loads(await answer.text()))

    async with (
        aiohttp.ClientSession() as session,
        openai.LLM(
            model=MODEL,
            api_key=KEY,
            base_url=f"{server}/v1",
            max_completion_tokens=1800,
            extra_body={"ignore_eos": True},
        ) as llm,
    ):
        stream = llm.chat(chat_ctx=asking("Tell me a long story."), conn_options=PATIENT)
        await anext(stream)
        assert await busy(session)
        await stream.aclose()
        async with asyncio.timeout(20):
            while await busy(session):
                await asyncio.sleep(0.02)


async def test_it_serves_again_afterwards(llm: Any) -> None:
    reply = await llm.chat(chat_ctx=asking("Say yes."), conn_options=PATIENT).collect()
    assert reply.text
