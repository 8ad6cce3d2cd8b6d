"""What traces and metrics cost a chunk: nothing recorded, spans, and spans with histograms.

    python bench/telemetry.py                     # CPU microseconds, in turn in one process
    python bench/telemetry.py --instructions      # needs valgrind; does not depend on other work

Chunks that are ready go through an `LLMStream` in bursts of 16. Where nothing is recorded, a reply
has no span. Needs opentelemetry-sdk.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import os
import re
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "src"))
sys.path.insert(0, str(Path(__file__).resolve().parent))

from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.trace import TracerProvider

from figures import Rows, add_json_option, write_rows
from rejoinder import telemetry
from rejoinder.llm import LLM, ChatChunk, ChatContext, ChoiceDelta, LLMStream
from rejoinder.types import DEFAULT_API_CONNECT_OPTIONS

MODES = ("nothing recorded", "spans", "spans and histograms")
BURST = 16
CHUNK = ChatChunk(id="r", delta=ChoiceDelta(role="assistant", content="word "))


class Model(LLM):
    def __init__(self, count: int) -> None:
        super().__init__()
        self.count = count

    def chat(self, *, chat_ctx: ChatContext, **_: Any) -> LLMStream:
        return Stream(self, chat_ctx=chat_ctx, tools=[], conn_options=DEFAULT_API_CONNECT_OPTIONS)


class Stream(LLMStream):
    async def _run(self) -> None:
        for _ in range(0, self._llm.count, BURST):
            self._event_ch.send_all([CHUNK] * BURST)
            await asyncio.sleep(0)


def set_up(mode: str) -> None:
    telemetry.set_tracer_provider(TracerProvider() if mode.startswith("spans") else None)
    meters = MeterProvider([InMemoryMetricReader()], shutdown_on_exit=False)
    telemetry.set_meter_provider(meters if mode.endswith("histograms") else None)


async def read(count: int) -> None:
    async with Model(count).chat(chat_ctx=ChatContext.empty()) as stream:
        async for _ in stream:
            pass


def spent(mode: str, count: int) -> float:
    set_up(mode)
    gc.collect()
    begin = time.process_time()
    asyncio.run(read(count))
    return (time.process_time() - begin) / count * 1e6


def instructions(mode: str, count: int) -> int:
    done = subprocess.run(
        ["valgrind", "--tool=cachegrind", "--cache-sim=no", "--cachegrind-out-file=/dev/null",
         sys.executable, __file__, "--child", mode, str(count)],
        env={**os.environ, "PYTHONHASHSEED": "0"}, capture_output=True, text=True, check=False,
    )  # fmt: skip
    found = re.search(r"I\s+refs:\s+([\d,]+)", done.stderr)
    if found is None:
        sys.exit(done.stderr[-2000:])
    return int(found[1].replace(",", ""))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--chunks", type=int, default=16_000)
    parser.add_argument("--instructions", action="store_true")
    parser.add_argument("--child", nargs=2, help=argparse.SUPPRESS)
    add_json_option(parser)
    options = parser.parse_args()
    if options.child:
        set_up(options.child[0])
        asyncio.run(read(int(options.child[1])))
        return
    rows: Rows = {}
    if options.instructions:
        few, many = 1_600, 17_600
        for mode in MODES:
            counted = instructions(mode, many) - instructions(mode, few)
            rows[mode] = {"rejoinder": round(counted / (many - few) / 1000, 2)}
    else:
        found: dict[str, list[float]] = {mode: [] for mode in MODES}
        for _ in range(options.rounds + 1):
            for mode, values in found.items():
                values.append(spent(mode, options.chunks))
        rows = {
            mode: {"rejoinder": statistics.median(values[1:])} for mode, values in found.items()
        }
    unit = "thousands of instructions" if options.instructions else "CPU µs"
    for mode, row in rows.items():
        print(f"{mode:24}{row['rejoinder']:10.2f} {unit} a chunk")
    write_rows(options.json, rows)


if __name__ == "__main__":
    main()
