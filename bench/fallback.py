"""Falling over: what it costs when nothing fails, and how long silence lasts when something does.

`FallbackAdapter` of rejoinder and of LiveKit Agents 1.2.17, the same scripted models, each package
in a process of its own environment, in turn. CPU time for the costs, seconds of wall time for the
silences (a silence of 5 s counts as for ever).

    python bench/fallback.py
"""

from __future__ import annotations

import argparse
import asyncio
import json
import statistics
import sys
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))

CHUNKS = 16_000
PATIENCE = 5.0


def child(package: str) -> None:
    """Run in the environment of `package`; prints its figures as JSON."""
    if package == "rejoinder":
        from rejoinder.llm import (
            LLM,
            ChatChunk,
            ChatContext,
            ChoiceDelta,
            CompletionUsage,
            FallbackAdapter,
            LLMStream,
        )
        from rejoinder.types import DEFAULT_API_CONNECT_OPTIONS
    else:
        from livekit.agents.llm import (
            LLM,
            ChatChunk,
            ChatContext,
            ChoiceDelta,
            CompletionUsage,
            FallbackAdapter,
            LLMStream,
        )
        from livekit.agents.types import DEFAULT_API_CONNECT_OPTIONS

    class Model(LLM):
        def __init__(self, play: Any) -> None:
            super().__init__()
            self.play = play

        def chat(self, *, chat_ctx, tools=None, conn_options=DEFAULT_API_CONNECT_OPTIONS, **_):
            return Stream(self, chat_ctx=chat_ctx, tools=[], conn_options=conn_options)

    class Stream(LLMStream):
        async def _run(self):
            await self._llm.play(self._event_ch.send_nowait)

    def text(content: str) -> Any:
        return ChatChunk(id="r", delta=ChoiceDelta(role="assistant", content=content))

    chunks = [text("word ") for _ in range(CHUNKS)]
    usage = ChatChunk(
        id="r", usage=CompletionUsage(completion_tokens=1, prompt_tokens=1, total_tokens=2)
    )

    def speaks(burst: int) -> Any:
        async def play(send):
            for start in range(0, CHUNKS, burst):
                for chunk in chunks[start : start + burst]:
                    send(chunk)
                await asyncio.sleep(0)

        return play

    async def one_word(send):
        send(chunks[0])

    async def silent(send):
        await asyncio.sleep(3600)

    def repeats(chunk: Any) -> Any:
        async def play(send):
            while True:
                send(chunk)
                await asyncio.sleep(0.05)

        return play

    async def empty(send):
        return None

    async def usage_then_end(send):
        send(usage)

    async def drain(llm: Any) -> int:
        count = 0
        async with llm.chat(chat_ctx=ChatContext.empty()) as stream:
            async for _ in stream:
                count += 1
        return count

    async def cost(llm: Any) -> float:
        begin = time.process_time()
        assert await drain(llm) == CHUNKS
        return (time.process_time() - begin) / CHUNKS * 1e6

    async def per_request(llm: Any) -> float:
        begin = time.process_time()
        for _ in range(300):
            await drain(llm)
        return (time.process_time() - begin) / 300 * 1e6

    async def silence(first: Any) -> str:
        adapter = FallbackAdapter([Model(first), Model(one_word)], attempt_timeout=0.5)
        begin = time.perf_counter()
        heard = None
        try:
            async with asyncio.timeout(PATIENCE):
                async with adapter.chat(chat_ctx=ChatContext.empty()) as stream:
                    async for chunk in stream:
                        if chunk.delta is not None and chunk.delta.content:
                            heard = time.perf_counter() - begin
                            break
        except TimeoutError:
            return "for ever"
        return "nothing is said" if heard is None else f"{heard * 1000:.0f} ms"

    async def main() -> None:
        figures: dict[str, Any] = {}
        for burst in (16, 1):
            bare, adapter = Model(speaks(burst)), FallbackAdapter([Model(speaks(burst))])
            await cost(bare), await cost(adapter)
            pairs = [(await cost(bare), await cost(adapter)) for _ in range(5)]
            figures[f"bare, bursts of {burst}"] = [a for a, _ in pairs]
            figures[f"adapter, bursts of {burst}"] = [b for _, b in pairs]
        bare, adapter = Model(one_word), FallbackAdapter([Model(one_word), Model(one_word)])
        await per_request(bare), await per_request(adapter)
        figures["bare, a request"] = [await per_request(bare) for _ in range(3)]
        figures["adapter, a request"] = [await per_request(adapter) for _ in range(3)]
        figures["silences"] = {
            "says nothing": await silence(silent),
            "role only, for ever": await silence(
                repeats(ChatChunk(id="r", delta=ChoiceDelta(role="assistant", content="")))
            ),
            "usage only, for ever": await silence(repeats(usage)),
            "empty answer": await silence(empty),
            "usage, then the end": await silence(usage_then_end),
        }
        print(json.dumps(figures))

    import logging

    logging.disable(logging.CRITICAL)
    asyncio.run(main())


async def over_sockets(turns: int, at_once: int) -> None:
    """Two OpenAI servers on the loopback; the first one stalls for 5 s on 5 % of the turns."""
    import random

    from rejoinder.llm import ChatContext, FallbackAdapter, Hedge
    from rejoinder.providers import openai

    answer = (
        b'data: {"id":"r","choices":[{"index":0,"delta":{"content":"word"}}]}\n\n'
        b'data: {"id":"r","choices":[{"index":0,"delta":{},"finish_reason":"stop"}]}\n\n'
        b"data: [DONE]\n\n"
    )
    requests = 0

    def server(median: float, stalls: float, dice: random.Random) -> Any:
        async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            nonlocal requests
            try:
                while True:
                    head = (await reader.readuntil(b"\r\n\r\n")).lower()
                    length = int(head.split(b"content-length:")[1].split(b"\r\n")[0])
                    await reader.readexactly(length)
                    requests += 1
                    pause = dice.lognormvariate(0, 0.3) * median
                    await asyncio.sleep(pause + (5.0 if dice.random() < stalls else 0.0))
                    writer.write(
                        b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n"
                        b"content-length: %d\r\n\r\n%b" % (len(answer), answer)
                    )
                    await writer.drain()
            except (asyncio.IncompleteReadError, ConnectionError, asyncio.CancelledError):
                pass
            finally:
                writer.close()

        return serve

    async def worker(adapter: Any, context: Any, times: list[float], count: int) -> None:
        for _ in range(count):
            begin = time.perf_counter()
            async with adapter.chat(chat_ctx=context) as stream:
                async for chunk in stream:
                    if chunk.delta is not None and chunk.delta.content:
                        times.append(time.perf_counter() - begin)
                        break

    print(f"\nover sockets: {turns} turns, {at_once} at once, 5 % of them stall for 5 s")
    for name, hedge in (("without hedging", None), ("hedged", Hedge())):
        dice = random.Random(7)
        listeners = [
            await asyncio.start_server(server(0.3, 0.05, dice), "127.0.0.1", 0),
            await asyncio.start_server(server(0.35, 0.0, dice), "127.0.0.1", 0),
        ]
        llms = [
            openai.LLM(
                model="m",
                api_key="k",
                base_url=f"http://127.0.0.1:{listener.sockets[0].getsockname()[1]}/v1",
            )
            for listener in listeners
        ]
        adapter = FallbackAdapter(llms, attempt_timeout=30.0, hedge=hedge)
        context = ChatContext.empty()
        context.add_message(role="user", content="hi")
        times: list[float] = []
        requests = 0

        await asyncio.gather(
            *(worker(adapter, context, times, turns // at_once) for _ in range(at_once))
        )
        times.sort()
        p50, p95, p99 = (times[int(len(times) * q)] for q in (0.5, 0.95, 0.99))
        print(
            f"  {name:<16} first word p50 {p50:.2f} s, p95 {p95:.2f} s, p99 {p99:.2f} s, "
            f"extra requests {requests / len(times) - 1:.1%}"
        )
        await adapter.aclose()
        for llm in llms:
            await llm.aclose()
        for listener in listeners:
            listener.close()


def milliseconds(told: str) -> float | str:
    """``"507 ms"`` as a number; what is no time stays a text."""
    return float(told.removesuffix(" ms")) if told.endswith(" ms") else told


def main() -> None:
    from environments import LIVEKIT, OURS, run
    from figures import Rows, add_json_option, write_rows

    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    add_json_option(parser)
    parser.add_argument("--child", metavar="PACKAGE")
    arguments = parser.parse_args()
    if arguments.child:
        child(arguments.child)
        return
    samples: dict[str, dict[str, list[float]]] = {}
    silences: dict[str, dict[str, str]] = {}
    for _ in range(arguments.rounds):
        for environment in (OURS, LIVEKIT):
            figures = json.loads(run(environment, [__file__, "--child", environment.name]))
            silences[environment.name] = figures.pop("silences")
            for case, values in figures.items():
                samples.setdefault(case, {}).setdefault(environment.name, []).extend(values)
    names = [OURS.name, LIVEKIT.name]
    rows: Rows = {
        case: {name: statistics.median(values) for name, values in by_name.items()}
        for case, by_name in samples.items()
    } | {
        case: {name: milliseconds(silences[name][case]) for name in names}
        for case in silences[names[0]]
    }
    write_rows(arguments.json, rows)
    print("CPU microseconds, a chunk or a request, medians")
    print(f"{'':<26}" + "".join(f"{name:>26}" for name in names))
    for case, by_name in samples.items():
        row = [f"{statistics.median(by_name[name]):.2f}" for name in names]
        print(f"{case:<26}" + "".join(f"{value:>26}" for value in row))
    print("\nfrom the question to the first word, attempt_timeout=0.5")
    for case in silences[names[0]]:
        print(f"{case:<26}" + "".join(f"{silences[name][case]:>26}" for name in names))
    asyncio.run(over_sockets(1500, 30))


if __name__ == "__main__":
    main()
