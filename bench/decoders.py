"""What decoding costs per chunk of text: each dialect, in bursts and one event at a time.

CPU time is noisy on a shared machine, so instructions are counted too, by callgrind: two runs that
differ in the number of chunks, and the difference divided by it.

    python bench/decoders.py                   # CPU microseconds
    python bench/decoders.py --instructions    # needs valgrind
"""

from __future__ import annotations

import argparse
import gc
import json
import marshal
import re
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from rejoinder.testing._dialects import DIALECTS, Usage

BURST = 16


def decoders() -> dict[str, tuple[str, Callable[[], Any]]]:
    """The format and the decoder of each dialect."""
    from rejoinder.providers.anthropic import wire as anthropic
    from rejoinder.providers.aws import wire as aws
    from rejoinder.providers.completions import wire as completions
    from rejoinder.providers.google import wire as google
    from rejoinder.providers.openai import responses_wire as responses

    return {
        "completions": ("openai", completions.make_decoder),
        "responses": ("responses", responses.make_decoder),
        "anthropic": ("anthropic", anthropic.make_decoder),
        "google": ("google", google.make_decoder),
        "bedrock": ("bedrock", aws.make_decoder),
    }


def pieces(form: str, chunks: int, burst: int) -> list[bytes]:
    """The body of a reply of `chunks` words, cut as reads of `burst` events."""
    dialect = DIALECTS[form]
    parts = dialect.render(("word ",) * chunks, (), "", Usage())
    start, between, end = dialect.frame
    events = [*parts.opening, *parts.outputs, *parts.closing]
    joined = [event + between for event in events[:-1]] + [events[-1]]
    reads = [b"".join(joined[at : at + burst]) for at in range(0, len(joined), burst)]
    return [start, *reads, end]


def decode(name: str, chunks: int, burst: int, reads: list[bytes] | None = None) -> float:
    """CPU seconds for one reply."""
    form, make = decoders()[name]
    if reads is None:
        reads = [read for read in pieces(form, chunks, burst) if read]
    decoder = make()
    gc.disable()
    count = 0
    begin = time.process_time()
    for read in reads:
        count += len(decoder.feed(read))
    took = time.process_time() - begin
    gc.enable()
    assert count >= chunks
    return took


def instructions(name: str, chunks: int, burst: int) -> int:
    with tempfile.TemporaryDirectory() as folder:
        # The body is made outside, or its making would be counted.
        body = Path(folder, "body")
        reads = [read for read in pieces(decoders()[name][0], chunks, burst) if read]
        body.write_bytes(marshal.dumps(reads))
        child = [sys.executable, __file__, "--child", name, str(chunks), str(burst), str(body)]
        out = subprocess.run(
            ["valgrind", "--tool=callgrind", f"--callgrind-out-file={folder}/out", *child],
            check=True,
            capture_output=True,
            text=True,
            env={"PYTHONHASHSEED": "0", "PYTHONPATH": ":".join(sys.path), "PATH": "/usr/bin"},
        )
        found = re.search(r"Collected : (\d+)", out.stderr)
        assert found is not None, out.stderr
        return int(found[1])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--instructions", action="store_true")
    parser.add_argument("--only", nargs="*")
    parser.add_argument("--child", nargs=4, metavar=("NAME", "CHUNKS", "BURST", "BODY"))
    arguments = parser.parse_args()
    if arguments.child:
        name, chunks, burst, body = arguments.child
        decode(name, int(chunks), int(burst), marshal.loads(Path(body).read_bytes()))
        return
    unit = "instructions" if arguments.instructions else "CPU microseconds"
    print(f"{unit} per chunk")
    found: dict[str, float] = {}
    for name in arguments.only or decoders():
        for burst in (BURST, 1):
            how = f"bursts of {burst}" if burst > 1 else "one at a time"
            if arguments.instructions:
                few, many = 1_000, 3_000
                cost = (instructions(name, many, burst) - instructions(name, few, burst)) / (
                    many - few
                )
            else:
                decode(name, 4_000, burst)
                cost = (
                    statistics.median(decode(name, 16_000, burst) for _ in range(7)) / 16_000 * 1e6
                )
            found[f"{name} {burst}"] = round(cost, 2)
            print(f"  {name:<14} {how:<16} {cost:10.2f}")
    print(json.dumps(found))


if __name__ == "__main__":
    assert Path(__file__).exists()
    main()
