"""A voice server's day: many slow replies at once, on one core, beside a bare loop and the peers.

    python bench/live.py                    everything; makes the environments of the peers
    python bench/live.py --quick            bare and rejoinder, 50 and 100 streams, 4 seconds
    python bench/live.py --subjects bare rejoinder --streams 500 1000 --loop uvloop --json live.json
    python bench/live.py --faults           what a fault of one stream does to the others

Each stream brings 50 chunks a second, each chunk with the moment at which it was sent. One stream in
ten ends in a call of a tool, after which the model is asked again; one in ten is cancelled half-way;
half of ours go through a `FallbackAdapter`. Those of the bare loop and of the peers go straight to
the server, and what runs the tool is the loop below. Each subject runs in an environment and a process of
its own, on one core, with the server on the other.

- chunk: CPU microseconds for each chunk that was read while all streams ran
- p50, p99, p99.9: milliseconds from the sending of a chunk to its consumer
- first: milliseconds from asking to the first text, p50
- busy: share of the core
- memory: kB that each further stream takes, from the smallest to the largest number of streams;
  kept: kB a stream that are still taken when all have ended

With ``--faults`` each row is a moment of one run: the longest delay of all other streams (or of
the half that is left) within half of the ``--seconds`` before, and within as many after a consumer stops
reading, a server sends 1 MB at once to one stream, and half of the streams are cancelled at once. The
longest turn of the loop is in CPU time, which other work of the machine disturbs little.

Wall time counts here: on a machine that does other work only the ratios of one run say anything.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import functools
import gc
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))

from figures import Rows, add_json_option, write_rows

SUBJECTS = ("bare", "rejoinder", "livekit", "pydantic-ai", "litellm")
STREAMS = (100, 300, 500, 1_000, 2_000)
RATE = 50
Talk = Callable[[str, int], AsyncIterator[str]]
"""From the model's name and the number of the stream to the pieces of text."""


# -- the clients, each in its own environment ----------------------------------------------------


@contextlib.asynccontextmanager
async def ours(url: str) -> AsyncIterator[Talk]:
    from rejoinder.llm import ChatContext, FallbackAdapter, function_tool
    from rejoinder.providers import openai
    from rejoinder.turn import Text, run_turn

    @function_tool
    async def weather(city: str) -> str:
        """The weather in a city."""
        return "3 degrees"

    models: dict[tuple[str, bool], Any] = {}

    def model_of(name: str, second: bool) -> Any:
        found = models.get((name, second))
        if found is None:
            make = functools.partial(
                openai.LLM, model=name, api_key="key", base_url=f"{url}/v1", timeout=60.0
            )
            found = FallbackAdapter([make(), make()], attempt_timeout=60.0) if second else make()
            models[name, second] = found
        return found

    async def talk(name: str, number: int) -> AsyncIterator[str]:
        llm = model_of(name, number % 2 == 1)
        context = ChatContext.empty()
        context.add_message(role="user", content="Tell me something.")
        if name.startswith("call"):
            async with run_turn(llm, context, tools=[weather]) as turn:
                async for event in turn:
                    if isinstance(event, Text):
                        yield event.text
            return
        async with llm.chat(chat_ctx=context) as stream:
            async for chunk in stream:
                if chunk.delta is not None and chunk.delta.content:
                    yield chunk.delta.content

    yield talk
    for llm in models.values():
        await llm.aclose()


def theirs(name: str) -> Callable[[str], Any]:
    """A client of `providers_clients`. It asks twice where a tool is called; the second question is
    one without tools, because all that counts here is the two replies."""
    import providers_clients

    @contextlib.asynccontextmanager
    async def opened(url: str) -> AsyncIterator[Talk]:
        async with providers_clients.CLIENTS[name](url) as ask:

            async def talk(model: str, number: int) -> AsyncIterator[str]:
                if not model.startswith("call"):
                    async with contextlib.aclosing(ask(model)) as texts:
                        async for text in texts:
                            yield text
                    return
                half = f"clock-{int(model.partition('-')[2]) // 2}"
                for _ in range(2):
                    async with contextlib.aclosing(ask(half)) as texts:
                        async for text in texts:
                            yield text

            yield talk

    return opened


def resident() -> int:
    """Bytes of memory of this process."""
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")


class Delays:
    """How late chunks were, and when they came."""

    def __init__(self) -> None:
        self.seen: list[tuple[float, float]] = []
        self.first: list[float] = []

    def take(self, text: str) -> None:
        now = time.monotonic()
        with contextlib.suppress(ValueError):  # the words of a flood
            self.seen.append((now, 1e3 * (now - float(text))))

    def between(self, begin: float, end: float) -> list[float]:
        return sorted(delay for at, delay in self.seen if begin <= at < end)


def quantile(values: list[float], share: float) -> float:
    return values[min(len(values) - 1, int(share * len(values)))] if values else float("nan")


async def listen(talk: Talk, name: str, number: int, delays: Delays, *, until: int = 0) -> None:
    """Read one reply; after `until` chunks leave it, as a caller does who speaks."""
    asked = time.monotonic()
    count = 0
    async with contextlib.aclosing(talk(name, number)) as texts:
        async for text in texts:
            if not count:
                delays.first.append(1e3 * (time.monotonic() - asked))
            count += 1
            delays.take(text)
            if count == until:
                return


def settle() -> None:
    """What a server does once it is warm: what will live as long as it is no longer looked at by the
    garbage collector, which otherwise stops the loop for tens of milliseconds now and then."""
    gc.collect()
    gc.freeze()


async def started(
    talk: Talk, names: list[tuple[str, int]], delays: Delays
) -> list[asyncio.Task[None]]:
    tasks: list[asyncio.Task[None]] = []
    for number, (name, until) in enumerate(names):
        tasks.append(asyncio.create_task(listen(talk, name, number, delays, until=until)))
        await asyncio.sleep(2.0 / len(names))  # callers do not call at the same moment
    return tasks


async def paced(talk: Talk, streams: int, seconds: float) -> dict[str, float]:
    await listen(talk, "fast-2", 0, Delays())
    await listen(talk, "fast-2", 1, Delays())
    settle()
    empty = resident()
    delays = Delays()
    # All streams run for `seconds` after the last one has begun.
    chunks = 2 * int(RATE * (seconds + 2) / 2)
    names = [
        (
            f"{'call' if number % 10 == 9 else 'clock'}-{chunks}",
            chunks // 2 if number % 10 == 4 else 0,
        )
        for number in range(streams)
    ]
    tasks = await started(talk, names, delays)
    begin, cpu, read = time.monotonic(), time.process_time(), len(delays.seen)
    await asyncio.sleep(seconds / 2)
    full = resident()
    await asyncio.sleep(seconds / 2)
    end, used, count = time.monotonic(), time.process_time() - cpu, len(delays.seen) - read
    await asyncio.gather(*tasks)
    late = delays.between(begin, end)
    first = sorted(delays.first)
    figures = {
        "chunk": 1e6 * used / max(1, count),
        "p50": quantile(late, 0.5),
        "p99": quantile(late, 0.99),
        "p99.9": quantile(late, 0.999),
        "first": quantile(first, 0.5),
        "busy": used / (end - begin),
        "resident": full / 1e3,
    }
    del tasks, late, delays, first
    gc.collect()
    return figures | {"kept": (resident() - empty) / 1e3 / streams}


class Turns:
    """The longest turn of the loop, in CPU milliseconds: for so long nothing else can happen, whatever
    else the machine does. Of asyncio's own loop only."""

    def __init__(self) -> None:
        self.longest = 0.0
        loop: Any = asyncio.get_running_loop()
        if not hasattr(loop, "_run_once"):
            self.longest = float("nan")
            return
        turn = loop._run_once

        def timed() -> None:
            began = time.thread_time()
            turn()
            self.longest = max(self.longest, 1e3 * (time.thread_time() - began))

        loop._run_once = timed


async def faulty(talk: Talk, streams: int, seconds: float) -> dict[str, float]:
    """The longest delays around each fault. The faulty streams are not among those that count."""
    await listen(talk, "fast-2", 0, Delays())
    await listen(talk, "fast-2", 1, Delays())
    settle()
    delays, ignored, turns = Delays(), Delays(), Turns()
    chunks = 2 * int(RATE * (4 * seconds + 3) / 2)
    tasks = await started(talk, [(f"clock-{chunks}", 0)] * streams, delays)
    found: dict[str, float] = {}

    async def around(fault: str, happens: Callable[[], None]) -> None:
        await asyncio.sleep(seconds / 2)
        begin = time.monotonic()
        quiet, turns.longest = turns.longest, turns.longest * 0
        happens()
        await asyncio.sleep(seconds / 2)
        before = delays.between(begin - seconds / 2, begin)
        after = delays.between(begin, time.monotonic())
        found[f"{fault}: before"] = quantile(before, 1.0)
        found[f"{fault}: after"] = quantile(after, 1.0)
        found[f"{fault}: after, p99"] = quantile(after, 0.99)
        found[f"{fault}: longest turn before"] = quiet
        found[f"{fault}: longest turn after"] = turns.longest
        turns.longest *= 0

    async def stuck() -> None:
        async with contextlib.aclosing(talk("flood-50", 0)) as texts:
            async for _ in texts:
                await asyncio.sleep(3600)  # reads one chunk, and no further one

    others: list[asyncio.Task[None]] = []
    await around("a consumer stops reading", lambda: others.append(asyncio.create_task(stuck())))
    # Half of its chunks come before the flood: it falls into the time that is looked at.
    flood = f"flood-{2 * max(1, int(RATE * seconds / 8))}"
    flooded = functools.partial(listen, talk, flood, 0, ignored)
    await around("1 MB at once", lambda: others.append(asyncio.create_task(flooded())))
    leaving = tasks[::2]

    def leave() -> None:
        for task in leaving:
            task.cancel()

    await around("half are cancelled", leave)
    for task in (*tasks, *others):
        task.cancel()
    await asyncio.gather(*tasks, *others, return_exceptions=True)
    return found


def child(subject: str, url: str, streams: int, seconds: float, loop: str, mode: str) -> None:
    import logging

    logging.disable(logging.WARNING)
    if hasattr(os, "sched_setaffinity") and os.environ.get("BENCH_CORE"):
        os.sched_setaffinity(0, {int(os.environ["BENCH_CORE"])})
    factory: Any = None
    if loop == "uvloop":
        import uvloop

        factory = uvloop.new_event_loop

    async def run() -> dict[str, float]:
        opened = ours if subject == "rejoinder" else theirs(subject)
        async with opened(url) as talk:
            return await (faulty if mode == "faults" else paced)(talk, streams, seconds)

    with asyncio.Runner(loop_factory=factory) as runner:
        print(json.dumps(runner.run(run())))


# -- the run -------------------------------------------------------------------------------------


def measure(
    subject: str, url: str, core: int | None, streams: int, options: argparse.Namespace
) -> dict[str, float] | str:
    from environments import OURS, Environment, python
    from providers import PEERS

    # The bare loop runs on the aiohttp that ours runs on.
    environment = OURS if subject in ("bare", "rejoinder") else PEERS[subject]
    if subject == "livekit":
        environment = Environment("livekit-agents", "outside/livekit")  # the newest
    variables = {
        k: v for k, v in os.environ.items() if not k.startswith("PYTHON") or k == "PYTHONPATH"
    }
    variables |= {"PYTHONWARNINGS": "ignore", "NO_PROXY": "127.0.0.1"}
    if environment is not OURS:
        variables.pop("PYTHONPATH", None)
    if core is not None:
        variables["BENCH_CORE"] = str(core)
    mode = "faults" if options.faults else "paced"
    arguments = [subject, url, str(streams), str(options.seconds), options.loop, mode]
    try:
        done = subprocess.run(
            [python(environment), __file__, "--child", *arguments],
            capture_output=True,
            text=True,
            timeout=60 + 20 * options.seconds,
            env=variables,
        )
    except subprocess.TimeoutExpired:
        return "did not end"
    if done.returncode:
        lines = done.stderr.strip().splitlines() or ["failed"]
        return lines[-1][:120]
    return json.loads(done.stdout.strip().splitlines()[-1])


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--subjects", nargs="+", choices=SUBJECTS)
    parser.add_argument("--streams", nargs="+", type=int)
    parser.add_argument("--seconds", type=float, help="for which all streams run (10)")
    parser.add_argument("--rounds", type=int, help="the medians of which count (3)")
    parser.add_argument("--loop", choices=("asyncio", "uvloop"), default="asyncio")
    parser.add_argument("--faults", action="store_true")
    parser.add_argument("--quick", action="store_true")
    add_json_option(parser)
    parser.add_argument("--child", nargs=6, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        subject, url, streams, seconds, loop, mode = options.child
        child(subject, url, int(streams), float(seconds), loop, mode)
        return
    quick = options.quick
    options.subjects = options.subjects or list(SUBJECTS[:2] if quick else SUBJECTS)
    options.streams = options.streams or ([50, 100] if quick else list(STREAMS))
    options.seconds = options.seconds or (4.0 if quick else 10.0)
    options.rounds = options.rounds or (1 if quick else 3)
    from providers import Server

    cores = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else []
    core, other = (cores[0], cores[1]) if len(cores) > 1 else (None, None)
    samples: dict[str, dict[int, dict[str, list[float]]]] = {}
    failures: dict[str, str] = {}
    server = Server(other)
    try:
        for number in range(options.rounds):
            for streams in options.streams:
                for subject in options.subjects:
                    print(f"round {number + 1}: {subject}, {streams}", file=sys.stderr)
                    found = measure(subject, server.url, core, streams, options)
                    if isinstance(found, str):
                        failures[f"{subject}, {streams} streams"] = found
                        continue
                    rows = samples.setdefault(subject, {}).setdefault(streams, {})
                    for name, value in found.items():
                        rows.setdefault(name, []).append(value)
    finally:
        server.close()
    medians = {
        subject: {
            streams: {name: statistics.median(values) for name, values in rows.items()}
            for streams, rows in by_streams.items()
        }
        for subject, by_streams in samples.items()
    }
    show(medians, options)
    for what, why in failures.items():
        print(f"{what}: {why}")
    rows: Rows = {}
    for subject, by_streams in medians.items():
        for streams, values in by_streams.items():
            for name, value in values.items():
                rows.setdefault(f"{streams} streams, {name}", {})[subject] = value
    told = {"loop": options.loop, "seconds": options.seconds, "rounds": options.rounds}
    write_rows(options.json, rows, **told, samples=samples, failures=failures)


def show(medians: dict[str, dict[int, dict[str, float]]], options: argparse.Namespace) -> None:
    names = list(dict.fromkeys(n for by in medians.values() for rows in by.values() for n in rows))
    if options.faults:
        for subject, by_streams in medians.items():
            for streams, rows in by_streams.items():
                print(f"{subject}, {streams} streams: milliseconds")
                for name, value in rows.items():
                    print(f"  {name:42}{value:9.1f}")
        return
    shown = [name for name in names if name != "resident"]
    print(f"{'streams':>8} {'':12}" + "".join(f"{name:>9}" for name in shown))
    for streams in options.streams:
        for subject, by_streams in medians.items():
            if streams in by_streams:
                row = by_streams[streams]
                print(f"{streams:8} {subject:12}" + "".join(f"{row[n]:9.2f}" for n in shown))
    for subject, by_streams in medians.items():
        few, many = min(by_streams), max(by_streams)
        if many > few:
            slope = (by_streams[many]["resident"] - by_streams[few]["resident"]) / (many - few)
            print(f"memory: {subject:12} {slope:6.1f} kB a further stream, {few} to {many}")


if __name__ == "__main__":
    main()
