"""What a stream itself costs per chunk: `LLMStream` of rejoinder and of LiveKit Agents 1.2.17.

The chunks are made beforehand, so that only the shell is measured: channel, metrics, iteration.
Both run in turn, each in a process of its own environment, and CPU time counts.

    python bench/stream_overhead.py            # makes its environments the first time
"""

from __future__ import annotations

import argparse
import asyncio
import json
import statistics
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

CHUNKS = 32_000


def child(package: str, burst: int, chunk_count: int) -> None:
    """Run in the environment of `package`; prints CPU microseconds per chunk."""
    if package == "rejoinder":
        from rejoinder.llm import LLM, ChatChunk, ChatContext, ChoiceDelta, LLMStream
        from rejoinder.types import DEFAULT_API_CONNECT_OPTIONS
    else:
        from livekit.agents.llm import LLM, ChatChunk, ChatContext, ChoiceDelta, LLMStream
        from livekit.agents.types import DEFAULT_API_CONNECT_OPTIONS

    chunks = [
        ChatChunk(id="r", delta=ChoiceDelta(role="assistant", content="word "))
        for _ in range(chunk_count)
    ]

    class Model(LLM):
        def chat(self, *, chat_ctx, tools=None, conn_options=DEFAULT_API_CONNECT_OPTIONS, **_):
            return Stream(self, chat_ctx=chat_ctx, tools=[], conn_options=conn_options)

    class Stream(LLMStream):
        async def _run(self):
            send = self._event_ch.send_nowait
            for start in range(0, chunk_count, burst):
                for chunk in chunks[start : start + burst]:
                    send(chunk)
                await asyncio.sleep(0)

    async def once() -> float:
        count = 0
        reports = []
        model = Model()
        model.on("metrics_collected", reports.append)
        begin = time.process_time()
        async with model.chat(chat_ctx=ChatContext.empty()) as stream:
            async for _ in stream:
                count += 1
        took = time.process_time() - begin
        assert count == chunk_count
        assert len(reports) == 1
        return took / chunk_count * 1e6

    async def main() -> None:
        await once()
        print(json.dumps([await once() for _ in range(3)]))

    asyncio.run(main())


def main() -> None:
    from environments import LIVEKIT, OURS, run
    from figures import Rows, add_json_option, write_rows

    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--chunks", type=int, default=CHUNKS)
    parser.add_argument("--only", choices=["rejoinder"], help="leave out the peer")
    add_json_option(parser)
    parser.add_argument("--child", nargs=3, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.child:
        package, burst, count = arguments.child
        child(package, int(burst), int(count))
        return
    samples: dict[tuple[str, int], list[float]] = {}
    for _ in range(arguments.rounds):
        for environment in (OURS,) if arguments.only else (OURS, LIVEKIT):
            for burst in (16, 1):
                task = [environment.name, str(burst), str(arguments.chunks)]
                output = run(environment, [__file__, "--child", *task])
                samples.setdefault((environment.name, burst), []).extend(json.loads(output))
    print(f"CPU microseconds per chunk, median (min..max) of {arguments.rounds * 3} runs")
    rows: Rows = {"in bursts of 16": {}, "one at a time": {}}
    for (name, burst), values in samples.items():
        rows["in bursts of 16" if burst > 1 else "one at a time"][name] = statistics.median(values)
        how = f"bursts of {burst}" if burst > 1 else "one at a time"
        print(
            f"  {name:<24} {how:<14} {statistics.median(values):6.2f}"
            f"  ({min(values):.2f}..{max(values):.2f})"
        )
    write_rows(arguments.json, rows)


if __name__ == "__main__":
    main()
