"""What a streamed reply costs: this package beside its peers, all in one interleaved run.

    python bench/providers.py                       everything; makes the environments it needs
    python bench/providers.py --only bare,rejoinder --rounds 5
    python bench/providers.py --json figures.json

A server on the loopback interface answers as OpenAI does. Every client runs in an environment and
a process of its own, one after the other, round after round; the medians of the rounds count. CPU
time is what the client's process used, so that a busy machine disturbs little.

- fast: CPU microseconds per chunk and per request, chunks arriving as fast as they are read
- slow: the same, each chunk in a packet of its own, every 2 ms
- ttft: milliseconds from asking to the first text
- our-...: our clients of other APIs, each in its own dialect, beside our client for OpenAI
- delays: many streams of 50 tokens a second on one core; milliseconds that a token is late

Ends with status 1 when a limit is missed (see `LIMITS`).
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
from collections import defaultdict
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

from environments import LIVEKIT, OURS, Environment, python
from figures import add_json_option, write_rows

HERE = Path(__file__).parent
BARE = Environment("bare", "bench/bare")
PEERS: dict[str, Environment] = {
    "bare": BARE,
    "rejoinder": OURS,
    "openai": Environment("openai", "bench/openai"),
    "livekit": LIVEKIT,
    "langchain": Environment("langchain", "bench/langchain"),
    "pydantic-ai": Environment("pydantic-ai", "bench/pydantic-ai"),
    "any-llm": Environment("any-llm", "bench/any-llm"),
    "litellm": Environment("litellm", "bench/litellm"),
    # Our clients of other APIs; only their cost is measured, each in its own dialect.
    "our-anthropic": OURS,
    "our-google": OURS,
    "our-aws": OURS,
    "our-mistralai": OURS,
    "our-inference": OURS,
}
CHUNKS = 4000
REQUESTS = 60
SLOW_CHUNKS = 500

# What has to hold for this package, where `bare` is the client that builds and checks nothing.
LIMITS = (
    ("a chunk costs at most 5 us more than bare", "fast chunk", lambda our, bare: our <= bare + 5),
    ("a chunk costs at most 3 x bare", "fast chunk", lambda our, bare: our <= 3 * bare),
    ("a request costs at most 600 us", "fast request", lambda our, bare: our <= 600),
    ("the first token comes within 2 x bare", "ttft p50", lambda our, bare: our <= 2 * bare),
    ("300 streams: p99 under 60 ms", "delays 300 p99", lambda our, bare: our < 60),
    ("500 streams: p99 under 250 ms", "delays 500 p99", lambda our, bare: our < 250),
)

# Of our own clients, measured against the one for OpenAI.
RATIO = 1.5


class Server:
    """The loopback server, on a core of its own where there are several."""

    def __init__(self, core: int | None) -> None:
        command = [python(OURS), str(HERE / "providers_server.py")]
        if core is not None:
            command = ["taskset", "-c", str(core), *command]
        self.process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        assert self.process.stdout is not None
        self.url = f"http://127.0.0.1:{int(self.process.stdout.readline())}"

    def close(self) -> None:
        self.process.communicate(timeout=10)


def measure(name: str, url: str, core: int | None, *arguments: object) -> dict[str, float] | str:
    environment = {k: v for k, v in os.environ.items() if not k.startswith("PYTHON")}
    environment |= {"PYTHONWARNINGS": "ignore", "NO_PROXY": "127.0.0.1"}
    if core is not None:
        environment["BENCH_CORE"] = str(core)
    try:
        done = subprocess.run(
            [
                *(python(PEERS[name]), str(HERE / "providers_clients.py"), name, url),
                *map(str, arguments),
            ],
            capture_output=True,
            text=True,
            timeout=180,
            env=environment,
        )
    except subprocess.TimeoutExpired:
        return "did not end within 180 s"
    if done.returncode:
        return done.stderr.strip().splitlines()[-1][:120] if done.stderr.strip() else "failed"
    return json.loads(done.stdout.strip().splitlines()[-1])


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--only", default=",".join(PEERS), help="clients, separated by commas")
    parser.add_argument("--what", default="fast,slow,ttft,delays")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--streams", default="100,300,500")
    parser.add_argument("--seconds", type=float, default=6.0, help="length of the delayed streams")
    add_json_option(parser)
    options = parser.parse_args()
    names = options.only.split(",")
    wanted = options.what.split(",")
    for name in names:
        python(PEERS[name])
    cores = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else []
    ours, theirs = (cores[0], cores[1]) if len(cores) > 1 else (None, None)

    figures: dict[str, dict[str, list[float]]] = {name: defaultdict(list) for name in names}
    failures: dict[str, str] = {}
    server = Server(theirs)
    try:
        for number in range(options.rounds):
            for name in names:
                print(f"round {number + 1} of {options.rounds}: {name}", file=sys.stderr)
                plans: list[tuple[str, tuple[object, ...]]] = []
                if "fast" in wanted:
                    plans.append(("fast", ("fast", CHUNKS, REQUESTS)))
                ours_only = name.startswith("our-")
                if "slow" in wanted and not ours_only:
                    plans.append(("slow", ("slow", SLOW_CHUNKS, 5)))
                if "ttft" in wanted and not ours_only:
                    plans.append(("ttft", ("ttft", REQUESTS)))
                if "delays" in wanted and not ours_only:
                    plans += [
                        (f"delays {streams}", ("delays", streams, options.seconds))
                        for streams in options.streams.split(",")
                    ]
                for label, arguments in plans:
                    found = measure(name, server.url, ours, *arguments)
                    if isinstance(found, str):
                        failures[f"{name} {label}"] = found
                        continue
                    for key, value in found.items():
                        figures[name][f"{label} {key}"].append(value)
    finally:
        server.close()

    medians = {
        name: {key: statistics.median(values) for key, values in rows.items()}
        for name, rows in figures.items()
    }
    show(medians, failures)
    keys = dict.fromkeys(key for rows in medians.values() for key in rows)
    by_key = {key: {name: r[key] for name, r in medians.items() if key in r} for key in keys}
    write_rows(options.json, by_key, failures=failures)
    return judge(medians)


def show(medians: dict[str, dict[str, float]], failures: dict[str, str]) -> None:
    keys = list(dict.fromkeys(key for rows in medians.values() for key in rows))
    width = max((len(key) for key in keys), default=10)
    print(" " * width + "".join(f"{name:>{len(name) + 4}}" for name in medians))
    for key in keys:
        cells = [(len(name) + 4, rows.get(key)) for name, rows in medians.items()]
        row = "".join(f"{'-' if cell is None else f'{cell:.2f}':>{size}}" for size, cell in cells)
        print(f"{key:<{width}}{row}")
    for what, why in failures.items():
        print(f"{what}: {why}")


def judge(medians: dict[str, dict[str, float]]) -> int:
    our, bare = medians.get("rejoinder", {}), medians.get("bare", {})
    missed = 0
    for sentence, key, holds in LIMITS:
        if key in our:
            good = holds(our[key], bare.get(key, float("inf")))
            missed += not good
            print(
                f"{'ok    ' if good else 'MISSED'} {sentence}: "
                f"{our[key]:.2f} (bare {bare.get(key, float('nan')):.2f})"
            )
    for name, rows in medians.items():
        if name.startswith("our-") and "fast chunk" in rows and "fast chunk" in our:
            ratio = rows["fast chunk"] / our["fast chunk"]
            missed += ratio > RATIO
            print(
                f"{'ok    ' if ratio <= RATIO else 'MISSED'} {name}: a chunk costs at most {RATIO} x "
                f"our client for OpenAI: {ratio:.2f}"
            )
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
