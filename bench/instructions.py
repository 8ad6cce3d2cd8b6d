"""How many instructions a chunk and a request cost, beside a bare loop of aiohttp and msgspec.

CPU time on a shared machine varies by half from run to run; the number of executed instructions
does not. Each subject runs twice under valgrind, with fewer and with more work, and the difference
is divided by the work: start-up cancels. A server in a process of its own sends the replies. It
reads from /proc/net/tcp whether the client has taken what was sent, and only then sends more, so
that the load of the machine does not decide how many chunks come in one read.

    lone       20 streams, one chunk at a time, each alone in its turn of the loop
    together   10 streams, a chunk of each at once
    burst      one stream, 16 chunks in one write
    request    whole exchanges of four events, one after the other

    python bench/instructions.py                                # needs valgrind and Linux
    python bench/instructions.py --kinds lone --subjects bare rejoinder --loops asyncio uvloop

The ratios of a kind are to its first row: bare on asyncio, also for the rows of uvloop.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import platform
import re
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent))

from figures import Rows, add_json_option, write_rows

KINDS = {"lone": (20, 1), "together": (10, 1), "burst": (1, 16), "request": (1, 4)}
"""Streams at once, and chunks in one write."""
WORK = {"lone": (5, 55), "together": (10, 110), "burst": (160, 1_760), "request": (20, 120)}
"""Chunks of each stream (or requests) in the short and in the long run."""
SUBJECTS = ("bare", "rejoinder", "fallback", "turn")
LOOPS = ("asyncio", "uvloop")

HEAD = (
    b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n"
    b"x-request-id: req_1\r\n\r\n"
)


def _event(delta: dict[str, Any], finish: str | None = None, usage: Any = None) -> bytes:
    event: dict[str, Any] = {
        "id": "chatcmpl-1",
        "object": "chat.completion.chunk",
        "created": 1_700_000_000,
        "model": "gpt-4.1-mini",
        "service_tier": "default",
        "system_fingerprint": "fp_1",
        "choices": []
        if usage
        else [{"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish}],
        "usage": usage,
    }
    data = b"data: " + json.dumps(event, separators=(",", ":")).encode() + b"\n\n"
    return b"%x\r\n%b\r\n" % (len(data), data)


FIRST = _event({"role": "assistant", "content": "", "refusal": None})
WORD = _event({"content": " word"})
LAST = (
    _event({}, "stop")
    + _event(
        {},
        usage={
            "prompt_tokens": 20,
            "completion_tokens": 9,
            "total_tokens": 29,
            "prompt_tokens_details": {"cached_tokens": 0, "audio_tokens": 0},
            "completion_tokens_details": {"reasoning_tokens": 0, "audio_tokens": 0},
        },
    )
    + b"e\r\ndata: [DONE]\n\n\r\n0\r\n\r\n"
)


# -- the server ----------------------------------------------------------------------------------

_ASKED = "asked"
"""What the server prints at each request."""


class Server:
    """Sends one chunk after the other, each when the one before was taken."""

    def __init__(self, kind: str, work: int) -> None:
        self.streams, self.at_once = KINDS[kind]
        self.kind = kind
        self.work = work
        self.waiting: list[asyncio.StreamWriter] = []
        self.driver: asyncio.Task[None] | None = None

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            try:
                head = await reader.readuntil(b"\r\n\r\n")
            except asyncio.IncompleteReadError:
                writer.close()
                return
            length = int(re.search(rb"(?i)content-length: (\d+)", head)[1])
            await reader.readexactly(length)
            print(_ASKED, flush=True)
            if self.kind == "request":
                writer.write(HEAD + FIRST + WORD * 2 + LAST)
                continue
            writer.write(HEAD + FIRST)
            self.waiting.append(writer)
            if len(self.waiting) == self.streams:
                self.driver = asyncio.ensure_future(self.drive())

    async def drive(self) -> None:
        writers, self.waiting = self.waiting, []
        await taken(writers)
        for _ in range(self.work // self.at_once):
            if self.kind == "lone":
                for writer in writers:
                    writer.write(WORD)
                    await taken([writer])
            else:
                for writer in writers:
                    writer.write(WORD * self.at_once)
                await taken(writers)
        for writer in writers:
            writer.write(LAST)


async def taken(writers: list[asyncio.StreamWriter]) -> None:
    """Wait until the client has read what was sent to it."""
    ports = {f"{writer.get_extra_info('peername')[1]:04X}" for writer in writers}
    while True:
        with open("/proc/net/tcp") as table:
            rows = [line.split() for line in table][1:]
        left = [
            row for row in rows if row[1].rpartition(":")[2] in ports and row[4][-8:] != "00000000"
        ]
        if not left:
            return
        await asyncio.sleep(0.0005)


async def serving(kind: str, work: int) -> None:
    server = await asyncio.start_server(Server(kind, work).serve, "127.0.0.1", 0)
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()


# -- the clients ---------------------------------------------------------------------------------

BODY = {
    "model": "gpt-4.1-mini",
    "messages": [{"role": "user", "content": "Tell me something."}],
    "stream": True,
    "stream_options": {"include_usage": True},
}


async def bare(url: str, streams: int, requests: int) -> int:
    """aiohttp and msgspec, as a good programmer writes it for one server: no retry, no deadline."""
    import aiohttp
    import msgspec

    delta = msgspec.defstruct("Delta", [("content", str | None, None)])
    choice = msgspec.defstruct("Choice", [("delta", delta)])
    event_type = msgspec.defstruct("Event", [("choices", list[choice])])
    decode = msgspec.json.Decoder(event_type).decode
    encode = msgspec.json.Encoder().encode
    words = 0

    async def one(session: aiohttp.ClientSession) -> None:
        nonlocal words
        headers = {"Authorization": "Bearer key", "Content-Type": "application/json"}
        async with session.post(
            f"{url}/chat/completions", data=encode(BODY), headers=headers
        ) as response:
            rest = b""
            async for data in response.content.iter_any():
                *events, rest = (rest + data).split(b"\n\n")
                for event in events:
                    if event.startswith(b"data: ") and event != b"data: [DONE]":
                        for choice in decode(event[6:]).choices:
                            if choice.delta.content:
                                words += 1

    # As below: longer than valgrind can take. Without a limit it would count less.
    patient = aiohttp.ClientTimeout(total=36_000.0)
    async with aiohttp.ClientSession(timeout=patient) as session:
        if requests:
            for _ in range(requests):
                await one(session)
        else:
            await asyncio.gather(*(one(session) for _ in range(streams)))
    return words


async def ours(url: str, streams: int, requests: int, subject: str) -> int:
    from rejoinder.llm import ChatContext, FallbackAdapter
    from rejoinder.providers import openai
    from rejoinder.turn import Text, run_turn
    from rejoinder.types import APIConnectOptions

    words = 0
    # Valgrind makes everything fifty times slower but the clock: the few looks at the clock that a
    # deadline of ten seconds needs would be counted fifty times.
    patient = APIConnectOptions(timeout=600.0)
    llm: Any = openai.LLM(model="gpt-4.1-mini", api_key="key", base_url=url)
    if subject == "fallback":
        other = openai.LLM(model="gpt-4.1-mini", api_key="key", base_url=url)
        llm = FallbackAdapter([llm, other], attempt_timeout=600.0)

    async def one() -> None:
        nonlocal words
        context = ChatContext.empty()
        context.add_message(role="user", content="Tell me something.")
        if subject == "turn":
            async for event in run_turn(llm, context, conn_options=patient):
                if isinstance(event, Text):
                    words += 1
            return
        async with llm.chat(chat_ctx=context, conn_options=patient) as stream:
            async for chunk in stream:
                if chunk.delta is not None and chunk.delta.content:
                    words += 1

    if requests:
        for _ in range(requests):
            await one()
    else:
        await asyncio.gather(*(one() for _ in range(streams)))
    await llm.aclose()
    return words


def client(subject: str, kind: str, work: int, port: int, loop: str) -> None:
    url = f"http://127.0.0.1:{port}/v1"
    streams, _ = KINDS[kind]
    requests = work if kind == "request" else 0
    factory: Callable[[], asyncio.AbstractEventLoop] | None = None
    if loop == "uvloop":
        import uvloop

        factory = uvloop.new_event_loop
    with asyncio.Runner(loop_factory=factory) as runner:
        if subject == "bare":
            words = runner.run(bare(url, streams, requests))
        else:
            words = runner.run(ours(url, streams, requests, subject))
    expected = 2 * requests if requests else streams * (work // KINDS[kind][1]) * KINDS[kind][1]
    if words != expected:
        sys.exit(f"{words} words arrived instead of {expected}")


# -- counting ------------------------------------------------------------------------------------


def instructions(subject: str, kind: str, work: int, loop: str, out: Path | None = None) -> int:
    """The instructions of a whole process that does this much work.

    Ends the program where a reply failed, also where another one took its place: on a machine that
    is too busy for the deadlines, the count would be that of other work.
    """
    here = str(Path(__file__).resolve())
    server = subprocess.Popen(
        [sys.executable, here, "--serve", kind, str(work)], stdout=subprocess.PIPE, text=True
    )
    try:
        assert server.stdout is not None
        port = server.stdout.readline().strip()
        with tempfile.NamedTemporaryFile() as counts:
            tool = ["--tool=cachegrind", "--cache-sim=no", f"--cachegrind-out-file={counts.name}"]
            if out is not None:
                tool = ["--tool=callgrind", f"--callgrind-out-file={out}"]
            done = subprocess.run(
                ["valgrind", *tool, sys.executable, here, "--client", subject, kind, str(work), port,
                 loop],
                env={**os.environ, "PYTHONHASHSEED": "0"}, capture_output=True, text=True, check=False,
            )  # fmt: skip
        if done.returncode:
            sys.exit(f"{kind}, {subject}: no figure, the replies failed:\n{done.stderr[-3000:]}")
        server.kill()
        asked = server.stdout.read().count(_ASKED)
        expected = work if kind == "request" else KINDS[kind][0]
        if asked != expected:
            sys.exit(
                f"{kind}, {subject}: no figure, {asked} requests were made where {expected} were "
                "meant: replies failed and were asked for again; try it on a machine less busy"
            )
        found = re.search(r"(?:I\s+refs:|Collected :)\s+([\d,]+)", done.stderr)
        assert found is not None, done.stderr[-3000:]
        return int(found[1].replace(",", ""))
    finally:
        server.kill()
        server.wait()


def cost(subject: str, kind: str, loop: str) -> float:
    short, long = WORK[kind]
    few, many = (instructions(subject, kind, work, loop) for work in (short, long))
    return (many - few) / ((long - short) * KINDS[kind][0])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kinds", nargs="+", choices=KINDS, default=list(KINDS))
    parser.add_argument("--subjects", nargs="+", choices=SUBJECTS, default=list(SUBJECTS))
    parser.add_argument("--loops", nargs="+", choices=LOOPS, default=["asyncio"])
    add_json_option(parser)
    parser.add_argument("--serve", nargs=2, help=argparse.SUPPRESS)
    parser.add_argument("--client", nargs=5, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.serve:
        asyncio.run(serving(arguments.serve[0], int(arguments.serve[1])))
        return
    if arguments.client:
        subject, kind, work, port, loop = arguments.client
        client(subject, kind, int(work), int(port), loop)
        return
    print(f"Python {platform.python_version()} ({platform.python_compiler()})")
    rows: Rows = {}
    for kind in arguments.kinds:
        base = 0.0
        for loop in arguments.loops:
            for subject in arguments.subjects:
                value = cost(subject, kind, loop)
                base = base or value
                name = subject if loop == "asyncio" else f"{subject}, {loop}"
                rows.setdefault(kind, {})[name] = value / 1000
                print(f"{kind:9} {name:18} {value:>11,.0f}  {value / base:5.2f}", flush=True)
    write_rows(arguments.json, rows)


if __name__ == "__main__":
    main()
