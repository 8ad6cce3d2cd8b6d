"""What `rejoinder.speech` costs for each chunk of a word, and how soon the first piece is out.

CPU time of the process, with an asynchronous generator as the model: its own cost is the first row.

    python bench/speech.py
"""

from __future__ import annotations

import argparse
import asyncio
import re
import statistics
import sys
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "src"))
sys.path.insert(0, str(Path(__file__).resolve().parent))

from figures import Rows, add_json_option, write_rows
from rejoinder.speech import speakable

PROSE = (
    "Sure, I can help you with that, as there are many ways to do it. The first thing to know is that "
    "Dr. Smith paid $3.50 for it on Jan. 5, which is a lot. After that, you should try the new "
    "version! Is it not nice? "
) * 100
MARKED = (
    "Here is **what to do**:\n\n- Open [the page](https://a.example/b) first.\n- Then run `make it`.\n\n"
    "```sh\nmake it\n```\n\nThat is *all* there is 😀. "
) * 100


def words(text: str) -> list[str]:
    return re.findall(r"\s*\S+", text)


async def chunks(pieces: list[str]) -> AsyncIterator[str]:
    for piece in pieces:
        yield piece


async def spent(
    pieces: list[str], through: Callable[[AsyncIterator[str]], AsyncIterator[object]]
) -> float:
    begin = time.process_time()
    async for _ in through(chunks(pieces)):
        pass
    return (time.process_time() - begin) / len(pieces) * 1e6


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=9)
    add_json_option(parser)
    options = parser.parse_args()
    cases: list[tuple[str, str, Callable[[AsyncIterator[str]], AsyncIterator[object]]]] = [
        ("the generator alone", PROSE, lambda stream: stream),
        ("prose, in sentences", PROSE, speakable),
        ("dense Markdown, in sentences", MARKED, speakable),
        (
            "prose, handed on as it comes",
            PROSE,
            lambda stream: speakable(stream, cut="none", transforms=[]),
        ),
        (
            "the same, without emoji and so word by word",
            PROSE,
            lambda stream: speakable(stream, cut="none"),
        ),
    ]
    print(f"{'CPU µs per chunk, median':40}")
    rows: Rows = {}
    for name, text, through in cases:
        pieces = words(text)
        found = [asyncio.run(spent(pieces, through)) for _ in range(options.rounds + 1)]
        rows[name] = {"rejoinder": statistics.median(found[1:])}
        print(f"{name:44} {rows[name]['rejoinder']:6.2f}")
    write_rows(options.json, rows)


if __name__ == "__main__":
    main()
