"""What tests of the FallbackAdapter are made of: models that play steps, and ears that listen."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterator
from typing import Any

from rejoinder import _stamps
from rejoinder.errors import APIConnectionError
from rejoinder.llm import (
    LLM,
    ChatChunk,
    ChatContext,
    ChoiceDelta,
    CompletionUsage,
    FallbackAdapter,
    LLMStream,
)
from rejoinder.llm.fallback_adapter import AvailabilityChangedEvent
from rejoinder.llm.llm import FunctionToolCall
from rejoinder.metrics import LLMMetrics
from rejoinder.types import DEFAULT_API_CONNECT_OPTIONS, APIConnectOptions

Step = ChatChunk | Exception | float | str


class Model(LLM[Any]):
    """Plays one list of steps per call; the last list repeats. A number is a pause in seconds."""

    def __init__(self, name: str, *calls: list[Step], prefill: bool = False) -> None:
        super().__init__()
        self._label = name
        self.calls = calls
        self.asked: list[ChatContext] = []
        self.prefill = prefill

    @property
    def continues_prefill(self) -> bool:
        return self.prefill

    def chat(
        self,
        *,
        chat_ctx: ChatContext,
        tools: list[Any] | None = None,
        conn_options: APIConnectOptions = DEFAULT_API_CONNECT_OPTIONS,
        **_: Any,
    ) -> LLMStream:
        steps = self.calls[min(len(self.asked), len(self.calls) - 1)]
        self.asked.append(chat_ctx)
        return Stream(self, steps, chat_ctx=chat_ctx, tools=tools or [], conn_options=conn_options)


class Stream(LLMStream):
    def __init__(self, llm: Model, steps: list[Step], **rest: Any) -> None:
        self._steps = steps
        super().__init__(llm, **rest)

    async def _run(self) -> None:
        for step in self._steps:
            if isinstance(step, Exception):
                raise step
            if isinstance(step, float | int):
                await asyncio.sleep(step)
                continue
            chunk = step if isinstance(step, ChatChunk) else text(step)
            self._event_ch.send_nowait(chunk)


def text(content: str) -> ChatChunk:
    return ChatChunk(id="r", delta=ChoiceDelta(role="assistant", content=content))


def call(name: str) -> ChatChunk:
    tool_call = FunctionToolCall(name=name, arguments="{}", call_id="c")
    return ChatChunk(id="r", delta=ChoiceDelta(role="assistant", tool_calls=[tool_call]))


ROLE = ChatChunk(id="r", delta=ChoiceDelta(role="assistant", content=""))
USAGE = ChatChunk(
    id="r", usage=CompletionUsage(completion_tokens=2, prompt_tokens=10, total_tokens=12)
)
THINKING = ChatChunk(id="r", delta=ChoiceDelta(role="assistant", thinking="hm"))
DOWN = APIConnectionError("down")
FOREVER = 1e6


def question() -> ChatContext:
    context = ChatContext.empty()
    context.add_message(role="user", content="Hello?")
    return context


async def said(adapter: FallbackAdapter, **how: Any) -> tuple[list[str], Exception | None]:
    got: list[str] = []
    try:
        async with adapter.chat(chat_ctx=question(), **how) as stream:
            async for chunk in stream:
                if chunk.delta is not None and chunk.delta.content is not None:
                    got.append(chunk.delta.content)
    except Exception as error:
        return got, error
    return got, None


def listen(adapter: FallbackAdapter) -> tuple[list[tuple[str, bool]], list[LLMMetrics]]:
    events: list[tuple[str, bool]] = []
    metrics: list[LLMMetrics] = []

    @adapter.on("llm_availability_changed")
    def _(event: AvailabilityChangedEvent) -> None:
        events.append((event.llm.label, event.available))

    adapter.on("metrics_collected", metrics.append)
    return events, metrics


@contextlib.contextmanager
def wall_clock() -> Iterator[None]:
    """Wall time that follows the loop's."""
    loop = asyncio.get_running_loop()
    before = _stamps.wall_now
    _stamps.wall_now = lambda: 1e9 + loop.time()  # what _stamps is for
    try:
        yield
    finally:
        _stamps.wall_now = before
