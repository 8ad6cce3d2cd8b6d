"""How long the event loop stands still, and how much memory is held, while a hostile body is decoded.

A table of bodies (`tests/contract/hostile.py`) times sizes from 10 kB to 10 MB, for each dialect. A
body is fed as `WireStream` feeds it: in pieces, between which the loop may turn. Printed are the CPU
time of the whole body and of its worst piece (time of the thread, so that a busy machine does not
count), and every row whose worst piece takes longer than 50 ms.

    python bench/hostile.py [--rows openai aws] [--only NAME] [--sizes 10000 1000000]
"""

from __future__ import annotations

import argparse
import gc
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent / "tests"))

from contract.hostile import GENERATORS, pieces
from contract.rows import ROWS, Row
from rejoinder.errors import APIError

SIZES = (10_000, 100_000, 1_000_000, 10_000_000)
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
    parser.add_argument("--sizes", nargs="*", type=int, default=SIZES)
    arguments = parser.parse_args()
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
    print(f"worst stretch of all: {worst_of_all * 1e3:.1f} ms")


if __name__ == "__main__":
    main()
