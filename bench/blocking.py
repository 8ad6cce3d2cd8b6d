"""How long one reply may hold up the event loop: the longest stretch of work without an await.

    python bench/blocking.py

Everything that happens on the loop counts, from `LLM.chat()` until the request is handed to the
transport: repair, format, body, JSON, signature. A conversation of 2000 items and 50 tools; then
the same after a change of provider, so that call ids, names and state have to be mended, and as
many of these items as are turned into a request on the spot; then with 10 pictures of 200 kB, once
as data URLs and once as frames that have yet to be encoded.

Figures are milliseconds of CPU time of the loop's thread, medians of the rounds. Ends with status 1
when a stretch is longer than the limit.
"""

from __future__ import annotations

import argparse
import asyncio
import base64
import gc
import logging
import random
import statistics
import sys
import time
from collections.abc import Callable, Coroutine, Generator
from functools import partial
from pathlib import Path
from typing import Any

from context import ITEMS, conversation, tools
from figures import Rows, add_json_option, write_rows
from rejoinder import llm
from rejoinder.errors import APIConnectionError
from rejoinder.llm import ChatContext, ImageContent
from rejoinder.media import VideoBufferType, VideoFrame
from rejoinder.providers import anthropic, aws, google, mistralai, openai
from rejoinder.transport.http import Request
from rejoinder.types import APIConnectOptions

LIMIT_MS = 5.0
ONCE = APIConnectOptions(max_retry=0)

MODELS: dict[str, Callable[..., Any]] = {
    "openai": partial(openai.LLM, api_key="k"),
    "openai responses": partial(openai.LLM, api_key="k", api="responses"),
    "anthropic": partial(anthropic.LLM, model="claude-sonnet-4-6", api_key="k"),
    "google": partial(google.LLM, model="gemini-2.5-flash", api_key="k"),
    "google, signatures": partial(google.LLM, model="gemini-3-pro-preview", api_key="k"),
    "aws": partial(aws.LLM, api_key="k", api_secret="s"),
    "mistralai": partial(mistralai.LLM, api_key="k"),
}


class Nowhere:
    """A transport that takes a request and never reaches anybody."""

    async def send(self, request: Request) -> Any:
        raise APIConnectionError("nobody is asked")

    async def prewarm(self, url: str, *, timeout: float = 10.0) -> None: ...

    async def aclose(self) -> None: ...


class Stretches:
    """A task factory that times every step of every task."""

    def __init__(self) -> None:
        self.longest = 0.0

    def __call__(
        self, loop: asyncio.AbstractEventLoop, coro: Any, **options: Any
    ) -> asyncio.Task[Any]:
        return asyncio.Task(self._timed(coro), loop=loop, **options)

    async def _timed(self, coro: Coroutine[Any, Any, Any]) -> Any:
        return await _Steps(self, coro)


class _Steps:
    def __init__(self, stretches: Stretches, coro: Coroutine[Any, Any, Any]) -> None:
        self._stretches = stretches
        self._coro = coro

    def __await__(self) -> Generator[Any, Any, Any]:
        inner = self._coro.__await__()
        step: Callable[[], Any] = partial(next, inner)
        while True:
            started = time.thread_time()
            try:
                waited_for = step()
            except StopIteration as end:
                return end.value
            finally:
                spent = time.thread_time() - started
                self._stretches.longest = max(self._stretches.longest, spent)
            try:
                step = partial(inner.send, (yield waited_for))
            except BaseException as error:
                step = partial(inner.throw, error)


# --- the conversations ---


def plain() -> ChatContext:
    return conversation(llm)


def foreign(count: int = ITEMS) -> ChatContext:
    """As another provider left it: long ids, state of its own, names that few would take."""
    context = conversation(llm, count)
    for item in context.items:
        if item.type in ("function_call", "function_call_output"):
            item.call_id = f"toolu_{item.call_id}.{'x' * 60}"
            item.name = "get weather"
        if item.type == "function_call" or (item.type == "message" and item.role == "assistant"):
            thinking = {"type": "thinking", "thinking": "Hm.", "signature": "c2lnbmF0dXJl"}
            item.extra = {"anthropic": {"thinking": [thinking]}}
    return context


def with_pictures(pictures: list[Any]) -> ChatContext:
    context = plain()
    said = [item for item in context.items if item.type == "message" and item.role == "user"]
    for picture, message in zip(pictures, said[-len(pictures) :], strict=True):
        message.content.append(ImageContent(image=picture))
    return context


def data_urls() -> ChatContext:
    noise = random.Random(1)
    return with_pictures(
        [
            "data:image/jpeg;base64," + base64.b64encode(noise.randbytes(200_000)).decode()
            for _ in range(10)
        ]
    )


def frames() -> ChatContext:
    noise = random.Random(2)
    return with_pictures(
        [
            VideoFrame(
                width=250, height=200, type=VideoBufferType.RGBA, data=noise.randbytes(200_000)
            )
            for _ in range(10)
        ]
    )


CONVERSATIONS: dict[str, Callable[[], ChatContext]] = {
    "plain": plain,
    "from another": foreign,
    "200 of those": lambda: foreign(200),
    "data URLs": data_urls,
    "frames": frames,
}


async def ask(model: Any, context: ChatContext, given: list[Any]) -> float:
    stretches = Stretches()
    asyncio.get_running_loop().set_task_factory(stretches)
    gc.collect()
    gc.freeze()
    started = time.thread_time()
    stream = model.chat(chat_ctx=context, tools=given, conn_options=ONCE)
    called = time.thread_time() - started
    try:
        await stream.collect()
    except APIConnectionError:
        pass
    asyncio.get_running_loop().set_task_factory(None)
    return max(called, stretches.longest) * 1e3


async def measure(rounds: int, place: Path | None) -> bool:
    given = tools(llm, 50)
    missed = False
    rows: Rows = {}
    print(f"{'':20}" + "".join(f"{name:>14}" for name in CONVERSATIONS))
    for name, make in MODELS.items():
        line = f"{name:20}"
        async with make(transport=Nowhere()) as model:
            await ask(model, plain(), given)
            for kind, context in CONVERSATIONS.items():
                spent = statistics.median(
                    [await ask(model, context(), given) for _ in range(rounds)]
                )
                rows[f"{name}, {kind}"] = {"rejoinder": spent}
                missed = missed or spent > LIMIT_MS
                line += f"{spent:13.2f}{'!' if spent > LIMIT_MS else ' '}"
        print(line, flush=True)
    write_rows(place, rows, limit=LIMIT_MS)
    return missed


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5, help="rounds of each figure (5)")
    add_json_option(parser)
    options = parser.parse_args()
    logging.disable(logging.WARNING)
    sys.exit(asyncio.run(measure(options.rounds, options.json)))
