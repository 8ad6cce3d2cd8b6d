"""What `bench/integrations.py` runs inside each framework, in the environment of that framework.

    python integrations_frameworks.py FRAMEWORK WHAT SIDE URL

Prints one line of JSON. A *talk* hands out the pieces of text that an application gets from the
framework for one question, with one of these models:

- ``floor``: a model of the framework itself that has its chunks beforehand
- ``canned``: our adapter around a model that has its chunks beforehand
- ``plugin``: the framework's own model for OpenAI
- ``adapter``: our adapter around our model for OpenAI
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import json
import logging
import os
import statistics
import sys
import time
from collections.abc import AsyncIterator, Callable
from datetime import UTC, datetime
from typing import Any

from rejoinder.llm import LLM, ChatChunk, ChoiceDelta, FallbackAdapter, LLMStream
from rejoinder.providers import openai as ours
from rejoinder.types import DEFAULT_API_CONNECT_OPTIONS

INSTRUCTIONS = "You are a friendly voice assistant. Be brief."
QUESTION = "What is the weather in Cologne, and what will it be tomorrow?"
WORDS = [f" word{number}" for number in range(100)]
DEADLINE = 1.0
PATIENCE = 10.0
"""Seconds that a framework alone is waited for."""

Talk = Callable[[Any], AsyncIterator[str]]
"""From a model of the framework to what is heard."""


class CannedStream(LLMStream):
    async def _run(self) -> None:
        model: Any = self._llm
        send = self._event_ch.send_nowait
        for chunk in model.chunks:
            send(chunk)
            await asyncio.sleep(0)


class Canned(LLM[Any]):
    """A `rejoinder` model whose reply is ready."""

    def __init__(self, count: int) -> None:
        super().__init__()
        self.chunks = [
            ChatChunk(id="r", delta=ChoiceDelta(role="assistant", content=WORDS[index % 100]))
            for index in range(count)
        ]

    def chat(self, *, chat_ctx, tools=None, conn_options=DEFAULT_API_CONNECT_OPTIONS, **_):
        return CannedStream(self, chat_ctx=chat_ctx, tools=[], conn_options=conn_options)


def our_openai(url: str, model: str = "any") -> Any:
    return ours.LLM(model=model, api_key="key", base_url=f"{url}/v1")


class Framework:
    """How one framework is asked."""

    def floor(self, count: int) -> Any:
        raise NotImplementedError

    def plugin(self, url: str, model: str, timeout: float | None = None) -> Any:
        raise NotImplementedError

    def adapter(self, llm: Any) -> Any:
        raise NotImplementedError

    def fallback(self, first: str, second: str) -> Any:
        """What the framework has of its own against a silent model, with the same deadline."""
        raise NotImplementedError

    def talk(self, model: Any) -> AsyncIterator[str]:
        raise NotImplementedError


class LiveKit(Framework):
    def __init__(self) -> None:
        from livekit.agents import llm as lk

        self.lk = lk

    def floor(self, count: int) -> Any:
        lk = self.lk
        chunks = [
            lk.ChatChunk(id="r", delta=lk.ChoiceDelta(role="assistant", content=WORDS[index % 100]))
            for index in range(count)
        ]

        class Stream(lk.LLMStream):
            async def _run(self):
                for chunk in chunks:
                    self._event_ch.send_nowait(chunk)
                    await asyncio.sleep(0)

        class Model(lk.LLM):
            def chat(self, *, chat_ctx, tools=None, conn_options, **_):
                return Stream(self, chat_ctx=chat_ctx, tools=[], conn_options=conn_options)

        return Model()

    def plugin(self, url: str, model: str, timeout: float | None = None) -> Any:
        from livekit.plugins import openai

        return openai.LLM(model=model, api_key="key", base_url=f"{url}/v1")

    def adapter(self, llm: Any) -> Any:
        from rejoinder.integrations.livekit import LLM

        return LLM(llm)

    def fallback(self, first: str, second: str) -> Any:
        members = [self.plugin(first, "any"), self.plugin(second, "any")]
        return self.lk.FallbackAdapter(members, attempt_timeout=DEADLINE)

    async def talk(self, model: Any) -> AsyncIterator[str]:
        from livekit.agents.types import APIConnectOptions

        context = self.lk.ChatContext.empty()
        context.add_message(role="system", content=INSTRUCTIONS)
        context.add_message(role="user", content=QUESTION)
        async with model.chat(chat_ctx=context, conn_options=APIConnectOptions()) as stream:
            async for chunk in stream:
                if chunk.delta is not None and chunk.delta.content:
                    yield chunk.delta.content


class Pipecat(Framework):
    def __init__(self) -> None:
        from loguru import logger

        logger.remove()

    def floor(self, count: int) -> Any:
        from pipecat.frames.frames import (
            LLMContextFrame,
            LLMFullResponseEndFrame,
            LLMFullResponseStartFrame,
        )
        from pipecat.services.llm_service import LLMService
        from pipecat.services.settings import LLMSettings

        class Service(LLMService):
            async def process_frame(self, frame, direction):
                await super().process_frame(frame, direction)
                if not isinstance(frame, LLMContextFrame):
                    await self.push_frame(frame, direction)
                    return
                await self.push_frame(LLMFullResponseStartFrame())
                for index in range(count):
                    await self._push_llm_text(WORDS[index % 100])
                    await asyncio.sleep(0)
                await self.push_frame(LLMFullResponseEndFrame())

        settings = LLMSettings(
            **dict.fromkeys(
                (
                    *("system_instruction", "temperature", "max_tokens", "top_p", "top_k", "seed"),
                    *("frequency_penalty", "presence_penalty", "user_turn_completion_config"),
                ),
                None,
            ),
            model="floor",
            filter_incomplete_user_turns=False,
            extra={},
        )
        return Service(settings=settings)

    def plugin(self, url: str, model: str, timeout: float | None = None) -> Any:
        from pipecat.services.openai.llm import OpenAILLMService

        return OpenAILLMService(
            api_key="key",
            base_url=f"{url}/v1",
            settings=OpenAILLMService.Settings(model=model),
            retry_timeout_secs=timeout or 5.0,
            retry_on_timeout=timeout is not None,
        )

    def adapter(self, llm: Any) -> Any:
        from rejoinder.integrations.pipecat import LLMService

        return LLMService(llm)

    def fallback(self, first: str, second: str) -> Any:
        from pipecat.pipeline.llm_switcher import LLMSwitcher
        from pipecat.pipeline.service_switcher import ServiceSwitcherStrategyFailover

        members = [self.plugin(first, "any", DEADLINE), self.plugin(second, "any", DEADLINE)]
        return LLMSwitcher(members, ServiceSwitcherStrategyFailover)

    async def talk(self, model: Any) -> AsyncIterator[str]:
        from pipecat.frames.frames import (
            EndFrame,
            LLMContextFrame,
            LLMFullResponseEndFrame,
            LLMTextFrame,
        )
        from pipecat.pipeline.pipeline import Pipeline
        from pipecat.pipeline.worker import PipelineWorker
        from pipecat.processors.aggregators.llm_context import LLMContext
        from pipecat.processors.frame_processor import FrameProcessor
        from pipecat.workers.runner import WorkerRunner

        heard: asyncio.Queue[str | None] = asyncio.Queue()

        class Ear(FrameProcessor):
            async def process_frame(self, frame, direction):
                await super().process_frame(frame, direction)
                if isinstance(frame, LLMTextFrame):
                    heard.put_nowait(frame.text)
                elif isinstance(frame, LLMFullResponseEndFrame):
                    heard.put_nowait(None)
                await self.push_frame(frame, direction)

        worker = PipelineWorker(
            Pipeline([model, Ear()]), cancel_on_idle_timeout=False, enable_rtvi=False
        )
        started = asyncio.Event()

        @worker.event_handler("on_pipeline_started")
        async def _started(worker, frame):
            started.set()

        runner = WorkerRunner(handle_sigint=False)
        await runner.add_workers(worker)
        running = asyncio.ensure_future(runner.run())
        try:
            await started.wait()
            messages = [
                {"role": "system", "content": INSTRUCTIONS},
                {"role": "user", "content": QUESTION},
            ]
            yield ""  # the pipeline runs; what follows is the answer to the frame
            await worker.queue_frame(LLMContextFrame(LLMContext(messages)))
            while (text := await heard.get()) is not None:
                yield text
            await worker.queue_frame(EndFrame())
            await running
        finally:
            if not running.done():
                await worker.cancel()
                await asyncio.wait([running], timeout=2)


class PydanticAI(Framework):
    def floor(self, count: int) -> Any:
        from pydantic_ai.models import Model, StreamedResponse

        class Reply(StreamedResponse):
            async def _get_event_iterator(self):
                for index in range(count):
                    for event in self._parts_manager.handle_text_delta(
                        vendor_part_id=None, content=WORDS[index % 100]
                    ):
                        yield event
                    await asyncio.sleep(0)

            model_name = "floor"
            provider_name = "floor"
            provider_url = None
            timestamp = datetime.now(UTC)

        class Floor(Model):
            model_name = "floor"
            system = "floor"

            async def request(self, *_):
                raise NotImplementedError

            @contextlib.asynccontextmanager
            async def request_stream(self, messages, settings, parameters, run_context=None):
                settings, parameters = self.prepare_request(settings, parameters)
                yield Reply(model_request_parameters=parameters)

        return Floor()

    def plugin(self, url: str, model: str, timeout: float | None = None) -> Any:
        from pydantic_ai.models.openai import OpenAIChatModel
        from pydantic_ai.providers.openai import OpenAIProvider
        from pydantic_ai.settings import ModelSettings

        return OpenAIChatModel(
            model,
            provider=OpenAIProvider(base_url=f"{url}/v1", api_key="key"),
            settings=ModelSettings(timeout=timeout) if timeout else None,
        )

    def adapter(self, llm: Any) -> Any:
        from rejoinder.integrations.pydantic_ai import Model

        return Model(llm)

    def fallback(self, first: str, second: str) -> Any:
        from pydantic_ai.models.fallback import FallbackModel

        return FallbackModel(
            self.plugin(first, "any", DEADLINE), self.plugin(second, "any", DEADLINE)
        )

    async def talk(self, model: Any) -> AsyncIterator[str]:
        from pydantic_ai import Agent

        agent = Agent(model, instructions=INSTRUCTIONS)
        async with agent.run_stream(QUESTION) as result:
            async for text in result.stream_text(delta=True, debounce_by=None):
                yield text


class OpenAIAgents(Framework):
    def __init__(self) -> None:
        import agents

        agents.set_tracing_disabled(True)

    def floor(self, count: int) -> Any:
        from agents.models.interface import Model
        from openai.types import responses as r

        from rejoinder.integrations._replies import StateMemory
        from rejoinder.integrations.openai_agents import _Reply

        reply = _Reply("floor", StateMemory())
        before = list(reply._say("x"))
        delta = [
            r.ResponseTextDeltaEvent(
                item_id="m",
                output_index=0,
                content_index=0,
                delta=word,
                logprobs=[],
                type="response.output_text.delta",
                sequence_number=0,
            )
            for word in WORDS
        ]
        after = list(reply._close())
        done = r.ResponseCompletedEvent(
            response=reply._response("completed"), type="response.completed", sequence_number=0
        )

        class Floor(Model):
            async def get_response(self, *a, **k):
                raise NotImplementedError

            async def stream_response(self, *a, **k):
                for event in before[:-1]:
                    yield event
                for index in range(count):
                    yield delta[index % 100]
                    await asyncio.sleep(0)
                for event in after:
                    yield event
                yield done

        return Floor()

    def plugin(self, url: str, model: str, timeout: float | None = None) -> Any:
        from agents import OpenAIChatCompletionsModel
        from openai import AsyncOpenAI

        client = AsyncOpenAI(base_url=f"{url}/v1", api_key="key", timeout=timeout)
        return OpenAIChatCompletionsModel(model, client)

    def adapter(self, llm: Any) -> Any:
        from rejoinder.integrations.openai_agents import Model

        return Model(llm)

    def fallback(self, first: str, second: str) -> Any:
        return self.plugin(first, "any", DEADLINE)  # it has none; the client retries by itself

    async def talk(self, model: Any) -> AsyncIterator[str]:
        import agents

        agent = agents.Agent(name="a", instructions=INSTRUCTIONS, model=model)
        result = agents.Runner.run_streamed(agent, QUESTION)
        async for event in result.stream_events():
            if (
                event.type == "raw_response_event"
                and event.data.type == "response.output_text.delta"
            ):
                yield event.data.delta


FRAMEWORKS: dict[str, type[Framework]] = {
    "livekit": LiveKit,
    "livekit-1.2.17": LiveKit,
    "pipecat": Pipecat,
    "pydantic-ai": PydanticAI,
    "openai-agents": OpenAIAgents,
}


def make(framework: Framework, side: str, url: str, count: int) -> Any:
    if side == "floor":
        return framework.floor(count)
    if side == "canned":
        return framework.adapter(Canned(count))
    if side == "plugin":
        return framework.plugin(url, f"fast-{count}")
    return framework.adapter(our_openai(url, f"fast-{count}"))


async def take(framework: Framework, model: Any) -> int:
    return sum([bool(text) async for text in framework.talk(model)])


async def cost(framework: Framework, side: str, url: str) -> float:
    """CPU microseconds of one chunk of text."""
    few, many = 20, 3020
    best = float("inf")
    await take(framework, make(framework, side, url, 200))
    for _ in range(3):
        spent = []
        for count in (few, many):
            model = make(framework, side, url, count)
            gc.collect()
            begin = time.process_time()
            assert await take(framework, model) == count
            spent.append(time.process_time() - begin)
        best = min(best, spent[1] - spent[0])
    return best / (many - few) * 1e6


async def first_word(framework: Framework, model: Any, patience: float) -> float:
    """Seconds from the question to the first text. Infinite: there was none."""
    begin = time.perf_counter()
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(patience):
            async with contextlib.aclosing(framework.talk(model)) as pieces:
                async for text in pieces:
                    if text:
                        return time.perf_counter() - begin
                    begin = time.perf_counter()
    return float("inf")


async def ttft(framework: Framework, side: str, url: str) -> dict[str, float]:
    """Milliseconds to the first text over a connection that is open, and of CPU for it."""
    # A service of Pipecat belongs to one pipeline, and so does its connection.
    shared = None if isinstance(framework, Pipecat) else make(framework, side, url, 2)
    took: list[float] = []
    begin = 0.0
    for number in range(15 if shared is None else 45):
        if number == 5:
            took, begin = [], time.process_time()
        model = make(framework, side, url, 2) if shared is None else shared
        took.append(1e3 * await first_word(framework, model, PATIENCE))
    spent = 1e3 * (time.process_time() - begin) / len(took)
    took.sort()
    return {"p10": took[len(took) // 10], "p50": statistics.median(took), "cpu": spent}


async def silence(framework: Framework, side: str, fault: str) -> list[Any]:
    """Seconds until the user hears the second model while the first says nothing."""
    from rejoinder.testing import Answer, Fault, FaultServer

    heard: list[Any] = []
    async with FaultServer() as silent, FaultServer() as second:
        silent.always(Fault(fault))
        second.always(Answer(text=("Here ", "I ", "am.")))
        for _ in range(5 if side == "adapter" else 1):
            if side == "adapter":
                members = [our_openai(silent.url), our_openai(second.url)]
                model = framework.adapter(FallbackAdapter(members, attempt_timeout=DEADLINE))
            else:
                model = framework.fallback(silent.url, second.url)
            try:
                heard.append(await first_word(framework, model, PATIENCE))
            except Exception as error:
                heard.append(type(error).__name__)
    return heard


async def main() -> None:
    name, what, side, url = sys.argv[1:5]
    logging.disable(logging.CRITICAL)
    framework = FRAMEWORKS[name]()
    if what == "cost":
        found: Any = await cost(framework, side, url)
    elif what == "ttft":
        found = await ttft(framework, side, url)
    else:
        found = await silence(framework, side, what)
    print("\n" + json.dumps(found), flush=True)
    os._exit(0)  # a framework that still waits for a silent model is not waited for


if __name__ == "__main__":
    asyncio.run(main())
