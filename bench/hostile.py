"""How long the event loop stands still for what others send: bodies, arguments, outputs, results and
lists of MCP servers, histories, answers.

A table of bodies (`tests/contract/hostile.py`) times sizes from 10 kB to 10 MB, for each dialect. A
body is fed as `WireStream` feeds it: in pieces, between which the loop may turn. A second table
(`tests/stretches.py`) is run on a loop, whose longest stretch of work counts. Printed are the CPU time of
a whole body and of the worst stretch (time of the thread, so that a busy machine does not count), and a
mark where that takes longer than 50 ms. A third one prints what a whole reply takes of memory at most,
from the socket to `collect`, and marks more than 64 MiB.

    python bench/hostile.py [--rows openai aws] [--only NAME] [--sizes 10000 1000000] [--part bodies]
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import logging
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent / "tests"))

from contract.hostile import GENERATORS, LARGE, pieces
from contract.rows import ROWS, Row
from contract.test_whole_replies import MOST, collected
from rejoinder.errors import APIError
from stretches import SCENARIOS, measured

SIZES = (10_000, 100_000, 300_000, 1_000_000, 10_000_000)
EVENT = 8_300_000
"""Bytes of an event that is just read."""
LIMIT = 0.05
"""Seconds of a stretch of work, from which a row is marked."""


def stall(row: Row, body: bytes) -> tuple[float, float]:
    """CPU seconds of the whole body, and of its worst piece."""
    decoder = row.decoder()
    took: list[float] = []
    gc.collect()
    gc.disable()  # a collection costs as much as the whole process holds, whatever arrives
    try:
        for piece in [*pieces(body), None]:
            begin = time.thread_time()
            try:
                if piece is None:
                    decoder.close()
                else:
                    decoder.feed(piece)
            finally:
                took.append(time.thread_time() - begin)
    except APIError:
        pass
    finally:
        gc.enable()
    return sum(took), max(took)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", nargs="*")
    parser.add_argument("--only")
    parser.add_argument("--part", choices=("bodies", "work", "memory", "all"), default="all")
    parser.add_argument("--sizes", nargs="*", type=int, default=SIZES)
    arguments = parser.parse_args()
    logging.disable(logging.CRITICAL)
    worst_of_all = 0.0
    if arguments.part in ("bodies", "all"):
        worst_of_all = bodies(arguments)
    if arguments.part in ("work", "all"):
        worst_of_all = max(worst_of_all, asyncio.run(work(arguments)))
    if arguments.part in ("memory", "all"):
        print(f"most memory: {asyncio.run(memory(arguments)) / 1e6:.1f} MB")
    print(f"worst stretch of all: {worst_of_all * 1e3:.1f} ms")


async def work(arguments: argparse.Namespace) -> float:
    """The table of work on a loop. Returns the worst stretch."""
    worst_of_all = 0.0
    for name, make in SCENARIOS.items():
        if arguments.only and arguments.only not in name:
            continue
        await measured(make(1000), time.thread_time)  # imports, caches
        for size in arguments.sizes:
            worst = await measured(make(size), time.thread_time)
            worst_of_all = max(worst_of_all, worst)
            mark = "  <-- too long" if worst > LIMIT else ""
            print(f"{name:<51} {size:>9} B  worst {worst * 1e3:6.1f} ms{mark}", flush=True)
    return worst_of_all


async def memory(arguments: argparse.Namespace) -> int:
    """The table of memory, of bodies as large as an event may be. Returns the most."""
    most = 0
    for row in {row.format: row for row in reversed(ROWS)}.values():
        if arguments.rows and row.name not in arguments.rows:
            continue
        for name in [*sorted(LARGE), "long texts"]:
            if arguments.only and arguments.only not in name:
                continue
            body = GENERATORS[name](row, EVENT if name in LARGE else 5 * EVENT)
            for packed in (False, True):
                peak = await collected(row, body, packed=packed)
                most = max(most, peak)
                mark = "  <-- too much" if peak > MOST else ""
                how = "gzip" if packed else ""
                print(f"{row.name:<18} {name:<32} {how:<4} {peak / 1e6:6.1f} MB{mark}", flush=True)
    return most


def bodies(arguments: argparse.Namespace) -> float:
    """The table of bodies. Returns the worst stretch."""
    rows = {row.format: row for row in reversed(ROWS)}.values()
    worst_of_all = 0.0
    for row in rows:
        if arguments.rows and row.name not in arguments.rows:
            continue
        for name, generator in GENERATORS.items():
            if arguments.only and arguments.only not in name:
                continue
            for size in arguments.sizes:
                total, worst = stall(row, generator(row, size))
                worst_of_all = max(worst_of_all, worst)
                mark = "  <-- too long" if worst > LIMIT else ""
                print(
                    f"{row.name:<18} {name:<32} {size:>9} B  {total * 1e3:9.1f} ms"
                    f"  worst {worst * 1e3:6.1f} ms{mark}",
                    flush=True,
                )
    return worst_of_all


if __name__ == "__main__":
    main()
