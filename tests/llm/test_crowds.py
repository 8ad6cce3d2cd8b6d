"""Many replies on one loop: what one of them costs, and that a fault of one is no work for the others."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Iterator
from typing import Any

import pytest

from rejoinder.llm import LLM, ChatChunk, ChatContext, ChoiceDelta, FallbackAdapter, LLMStream
from rejoinder.testing import ScriptedLLM
from rejoinder.types import APIConnectOptions

pytestmark = pytest.mark.looptime

CONTEXT = ChatContext.empty()
CONTEXT.add_message(role="user", content="Hi")


@contextlib.contextmanager
def counted() -> Iterator[list[Any]]:
    """The callbacks that the running loop calls, each step of a task among them."""
    original = asyncio.events.Handle._run
    seen: list[Any] = []

    def run(handle: Any) -> Any:
        seen.append(handle)
        return original(handle)

    asyncio.events.Handle._run = run  # type: ignore[method-assign]
    try:
        yield seen
    finally:
        asyncio.events.Handle._run = original  # type: ignore[method-assign]


async def callbacks(work: Callable[[], Awaitable[object]]) -> int:
    await asyncio.sleep(0)
    with counted() as seen:
        await work()
    return len(seen)


def words(count: int) -> list[Any]:
    """A reply of as many words, one every 20 ms."""
    return [step for number in range(count) for step in (f"{number} ", 0.02)]


class Flood(LLM[Any]):
    """Has 5,000 words at once, and waits for its reader as replies over HTTP do."""

    sent = 0

    def chat(self, *, chat_ctx: ChatContext, **options: Any) -> LLMStream:
        return _FloodStream(self, chat_ctx=chat_ctx, tools=[], conn_options=APIConnectOptions())


class _FloodStream(LLMStream):
    async def _run(self) -> None:
        llm = self._llm
        assert isinstance(llm, Flood)
        for _ in range(5_000):
            llm.sent += 1
            self._event_ch.send_nowait(ChatChunk(id="r", delta=ChoiceDelta(content="word ")))
            if self._event_ch.full:
                await self._wait_for_consumer()
            elif llm.sent == 1:
                await asyncio.sleep(0.1)


async def read(llm: LLM[Any]) -> str:
    async with llm.chat(chat_ctx=CONTEXT) as stream:
        return "".join(
            [chunk.delta.content or "" async for chunk in stream if chunk.delta is not None]
        )


@pytest.mark.asyncio
async def test_a_fallback_adds_no_task_to_the_way_of_a_chunk() -> None:
    async def cost(count: int, *, behind: bool) -> int:
        model = ScriptedLLM(words(count))
        llm: LLM[Any] = FallbackAdapter([model, ScriptedLLM()]) if behind else model
        told = await callbacks(lambda: read(llm))
        await llm.aclose()
        return told

    await cost(10, behind=True)
    alone = await cost(90, behind=False) - await cost(10, behind=False)
    behind = await cost(90, behind=True) - await cost(10, behind=True)
    assert behind <= alone + 4, (alone, behind)  # a few looks of timers, and none for each chunk


@pytest.mark.asyncio
async def test_a_paused_reader_of_a_fallback_holds_its_model_back() -> None:
    model = Flood()
    adapter = FallbackAdapter([model, ScriptedLLM()])
    async with adapter.chat(chat_ctx=CONTEXT) as stream:
        await anext(stream)
        await asyncio.sleep(60)  # longer than the model may be silent
        assert len(stream._event_ch) <= 1_024
        assert model.sent <= 1_026
        said = 1
        async for chunk in stream:
            said += bool(chunk.delta and chunk.delta.content)
    assert said == 5_000
    await adapter.aclose()


@pytest.mark.asyncio
@pytest.mark.parametrize("behind", [False, True])
async def test_the_cancellation_of_half_of_them_costs_each_the_same(behind: bool) -> None:
    async def cost(streams: int) -> int:
        """Callbacks from the cancellation until all those that leave are gone."""
        model = ScriptedLLM(*[words(50) for _ in range(streams)])
        llm: LLM[Any] = FallbackAdapter([model]) if behind else model
        tasks = [asyncio.create_task(read(llm)) for _ in range(streams)]
        await asyncio.sleep(0.1)
        leaving = tasks[::2]

        async def leave() -> None:
            for task in leaving:
                task.cancel()
            await asyncio.wait(leaving)

        told = await callbacks(leave)
        texts = [await task for task in tasks[1::2]]
        assert all(len(text.split()) == 50 for text in texts)
        await llm.aclose()
        return told

    few, many = await cost(20), await cost(80)
    assert many <= 4 * few * 1.1, (few, many)
    assert many / 40 <= 40


@pytest.mark.asyncio
async def test_a_reader_that_stops_is_no_work_for_the_others() -> None:
    model = ScriptedLLM(*[words(50)] * 18)

    async def nine() -> int:
        return await callbacks(lambda: asyncio.gather(*(read(model) for _ in range(9))))

    alone = await nine()
    async with Flood().chat(chat_ctx=CONTEXT) as stuck:
        await anext(stuck)
        await asyncio.sleep(1)  # its model has filled the channel
        assert await nine() <= alone + 8  # a few looks of its timer
    await model.aclose()
