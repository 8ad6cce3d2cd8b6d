"""Realtime sessions beside a loop written by hand and beside LiveKit Agents: CPU, delay, memory.

A server on the loopback interface speaks to every session: 20 pieces of sound a second, while the
client sends 100 ms of sound ten times a second. All sessions of a client run in one process on one
core, the server on the other. The delay of a piece is the time from the server's writing it to the
consumer's having it; the moment stands in its first bytes.

    python bench/realtime.py                      # 200 sessions, 60 s
    python bench/realtime.py --sessions 50 --seconds 10 --only bare,rejoinder
    python bench/realtime.py --only "bare google,rejoinder google,livekit google,rejoinder aws"
    python bench/realtime.py --only "bare,rejoinder,rejoinder live"
    python bench/realtime.py --hour               # memory of one session over a simulated hour
"""

from __future__ import annotations

import argparse
import asyncio
import base64
import contextlib
import gc
import itertools
import json
import os
import resource
import statistics
import struct
import subprocess
import sys
import time
from array import array
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent))

from figures import add_json_option, write_rows

UP_MS = 100
DOWN_MS = 50
WORDS_EVERY = 5
"""Pieces of sound for one piece of transcript."""
SOUND = bytes(48 * UP_MS)
STAMP = struct.Struct("<q")
CLIENTS = ("bare", "rejoinder", "livekit-1.2.17", "livekit")
"""Clients of OpenAI's protocol. Those of Google's and Amazon's have the name of the vendor behind
theirs (`realtime_vendors.CLIENTS`)."""


# -- the server ------------------------------------------------------------------------------------


async def listen(session: Any, tls: Any = None) -> None:
    """Serve WebSockets until the process is ended; prints the port."""
    from aiohttp import web

    app = web.Application()
    app.router.add_get("/{path:.*}", session)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0, backlog=1024, ssl_context=tls).start()
    print(runner.addresses[0][1], flush=True)
    await asyncio.Event().wait()


async def paced(send: Callable[[int], Awaitable[None]]) -> None:
    """Call `send` for each piece of sound, with its number."""
    loop = asyncio.get_running_loop()
    due = loop.time()
    for number in itertools.count():
        await send(number)
        due += DOWN_MS / 1000
        await asyncio.sleep(max(0.0, due - loop.time()))


async def serve() -> None:
    """Answer sessions until the process is ended; prints the port."""
    from aiohttp import WSMsgType, web

    part = {"response_id": "resp_1", "item_id": "item_1", "output_index": 0, "content_index": 0}
    rest = base64.b64encode(bytes(48 * DOWN_MS - 12)).decode()
    begin, end = json.dumps(
        {"type": "response.output_audio.delta", "event_id": "event_1", **part, "delta": "@"}
    ).split("@")
    word = json.dumps(
        {
            "type": "response.output_audio_transcript.delta",
            "event_id": "event_2",
            **part,
            "delta": " word",
        }
    )
    item = {"id": "item_1", "type": "message", "role": "assistant", "content": []}
    opening = [
        {"type": "response.output_item.added", **part, "item": {**item, "status": "in_progress"}},
        {"type": "conversation.item.added", "previous_item_id": None, "item": item},
        {"type": "response.content_part.added", **part, "part": {"type": "audio"}},
    ]

    async def speak(socket: web.WebSocketResponse, asked: dict[str, Any]) -> None:
        response: dict[str, Any] = {"id": "resp_1", "object": "realtime.response", "output": []}
        response["metadata"] = (asked.get("response") or {}).get("metadata")
        for event in ({"type": "response.created", "response": response}, *opening):
            await socket.send_str(json.dumps({"event_id": "event_0", **event}))

        async def send(number: int) -> None:
            stamp = base64.b64encode(STAMP.pack(time.monotonic_ns()) + bytes(4)).decode()
            await socket.send_str(f"{begin}{stamp}{rest}{end}")
            if number % WORDS_EVERY == WORDS_EVERY - 1:
                await socket.send_str(word)

        await paced(send)

    async def session(request: web.Request) -> web.StreamResponse:
        socket = web.WebSocketResponse(compress=False, max_msg_size=1 << 24)
        await socket.prepare(request)
        await socket.send_str('{"type":"session.created","event_id":"e","session":{}}')
        speaking: asyncio.Task[None] | None = None
        async for message in socket:
            if message.type is not WSMsgType.TEXT or message.data.startswith(
                ('{"type":"input_audio_buffer.append"', '{"type": "input_audio_buffer.append"')
            ):
                continue
            event = json.loads(message.data)
            if event["type"] == "session.update":
                told = {"type": "session.updated", "event_id": "e", "session": event["session"]}
                await socket.send_str(json.dumps(told))
            elif event["type"] == "response.create":
                speaking = asyncio.create_task(speak(socket, event))
        if speaking is not None:
            speaking.cancel()
            await asyncio.gather(speaking, return_exceptions=True)
        return socket

    await listen(session)


# -- the clients -----------------------------------------------------------------------------------

Lag = Callable[[bytes], None]
Session = Callable[[Lag], Awaitable[Callable[[], Awaitable[None]]]]
"""Opens a session, reports the first bytes of each piece of sound, and gives what pushes 100 ms."""


@contextlib.asynccontextmanager
async def bare(url: str) -> Any:
    """The loop one writes by hand with aiohttp and json."""
    import aiohttp

    http = aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0))
    tasks: list[asyncio.Task[None]] = []

    async def session(lag: Lag) -> Callable[[], Awaitable[None]]:
        socket = await http.ws_connect(f"{url}/v1/realtime?model=m", compress=0)
        await socket.send_str(json.dumps({"type": "session.update", "session": {}}))
        await socket.send_str(json.dumps({"type": "response.create", "response": {}}))

        async def read() -> None:
            text = ""
            async for message in socket:
                event = json.loads(message.data)
                if event["type"] == "response.output_audio.delta":
                    lag(base64.b64decode(event["delta"]))
                elif event["type"] == "response.output_audio_transcript.delta":
                    text = event["delta"]
            assert text

        async def push() -> None:
            sound = base64.b64encode(SOUND).decode()
            await socket.send_str(json.dumps({"type": "input_audio_buffer.append", "audio": sound}))

        tasks.append(asyncio.create_task(read()))
        return push

    yield session
    for task in tasks:
        task.cancel()
    await http.close()


async def consume(reply: Any, lag: Lag) -> None:
    """Read a reply as both frameworks give it."""

    async def text(message: Any) -> None:
        async for _ in message.text_stream:
            pass

    async for message in reply.message_stream:
        reading = asyncio.create_task(text(message))
        async for frame in message.audio_stream:
            lag(memoryview(frame.data).cast("B"))
        await reading


@contextlib.asynccontextmanager
async def spoken(model: Any, push: Callable[[Any], None]) -> Any:
    """Sessions of a model of ours or of LiveKit's; `push` gives one 100 ms of sound."""
    sessions: list[Any] = []
    tasks: list[asyncio.Task[None]] = []

    async def session(lag: Lag) -> Callable[[], Awaitable[None]]:
        session = model.session()
        sessions.append(session)
        tasks.append(asyncio.create_task(consume(await session.generate_reply(), lag)))

        async def send() -> None:
            push(session)

        return send

    yield session
    for task in tasks:
        task.cancel()
    for session in sessions:
        with contextlib.suppress(Exception):
            await session.aclose()


@contextlib.asynccontextmanager
async def ours(model: Any, rate: int = 24000) -> Any:
    from rejoinder.media import AudioFrame

    sound = bytes(rate // 1000 * 2 * UP_MS)

    def push(session: Any) -> None:
        session.push_audio(AudioFrame(sound, rate, 1, len(sound) // 2))

    async with model, spoken(model, push) as session:
        yield session


@contextlib.asynccontextmanager
async def livekits(model: Any, rate: int = 24000) -> Any:
    from livekit import rtc

    sound = bytes(rate // 1000 * 2 * UP_MS)

    def push(session: Any) -> None:
        session.push_audio(rtc.AudioFrame(sound, rate, 1, len(sound) // 2))

    async with spoken(model, push) as session:
        yield session


@contextlib.asynccontextmanager
async def rejoinder(url: str) -> Any:
    from rejoinder.providers.openai.realtime import RealtimeModel

    model = RealtimeModel(base_url=f"{url}/v1", api_key="key", dialect="ga")
    async with ours(model) as session:
        yield session


@contextlib.asynccontextmanager
async def livekit(url: str) -> Any:
    import aiohttp
    from livekit.plugins.openai import realtime

    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as http:
        model = realtime.RealtimeModel(base_url=f"{url}/v1", api_key="key", http_session=http)
        async with livekits(model) as session:
            yield session


async def patiently(open_session: Session, lag: Lag) -> Callable[[], Awaitable[None]]:
    """Open a session; on a busy machine some clients need several tries."""
    for _ in range(3):
        try:
            return await open_session(lag)
        except Exception as error:
            print(f"not opened: {error}", file=sys.stderr)
    return await open_session(lag)


async def child(name: str, url: str, sessions: int, seconds: float) -> None:
    """Hold `sessions` for `seconds`; prints a line of JSON."""
    make = {"bare": bare, "rejoinder": rejoinder}.get(name)
    if make is None and " " in name:
        import realtime_vendors

        make = realtime_vendors.CLIENTS[name]
    make = make or livekit
    lags = array("q")
    measuring = False

    def lag(data: bytes) -> None:
        if measuring:
            lags.append(time.monotonic_ns() - STAMP.unpack_from(data)[0])

    async def hold(push: Callable[[], Awaitable[None]], number: int) -> None:
        loop = asyncio.get_running_loop()
        due = loop.time() + UP_MS / 1000 * number / sessions
        while True:
            await asyncio.sleep(max(0.0, due - loop.time()))
            await push()
            due += UP_MS / 1000

    async with make(url) as open_session:
        pushes: list[Callable[[], Awaitable[None]]] = []
        for start in range(0, sessions, 5):
            batch = range(start, min(start + 5, sessions))
            pushes += await asyncio.gather(*(patiently(open_session, lag) for _ in batch))
        pushing = [asyncio.create_task(hold(push, number)) for number, push in enumerate(pushes)]
        await asyncio.sleep(1.0)
        gc.collect()
        measuring = True
        began, spent = time.monotonic(), time.process_time()
        await asyncio.sleep(seconds)
        took, spent = time.monotonic() - began, time.process_time() - spent
        measuring = False
        memory = resident()
        for task in pushing:
            task.cancel()
        ordered = sorted(lags)
        print(
            json.dumps(
                {
                    "cpu": spent * 1000 / sessions / took,
                    "p50": ordered[len(ordered) // 2] / 1e6,
                    "p99": ordered[int(len(ordered) * 0.99)] / 1e6,
                    "pieces": len(ordered) / sessions / took * DOWN_MS / 1000,
                    "memory": memory,
                }
            ),
            flush=True,
        )
        os._exit(0)  # how long closing takes is not measured here


def resident() -> float:
    """Megabytes of this process."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * resource.getpagesize() / 1e6


# -- a simulated hour ------------------------------------------------------------------------------


def traced(model: Any) -> tuple[float, float]:
    """Megabytes that are held, and those that were not allocated by the double of the service."""
    import tracemalloc

    for connection in model.service.connections:
        connection.audio.clear()
        connection.events.clear()
    model.service.requests.clear()
    gc.collect()
    taken = tracemalloc.take_snapshot().filter_traces(
        [
            tracemalloc.Filter(False, "*/rejoinder/testing/*"),
            tracemalloc.Filter(False, "*/looptime/*"),
            tracemalloc.Filter(False, tracemalloc.__file__),
        ]
    )
    held, _ = tracemalloc.get_traced_memory()
    return held / 1e6, sum(trace.size for trace in taken.traces) / 1e6


def hour(minutes: int) -> None:
    """One session, sound up all the time and a reply a minute, on a clock that jumps."""
    import tracemalloc

    import looptime

    from rejoinder.media import AudioFrame
    from rejoinder.testing import ScriptedRealtimeModel, ServerReply

    frame = AudioFrame(bytes(48000), 24000, 1, 24000)

    async def main() -> None:
        replies = [ServerReply([f"word{n} " for n in range(20)]) for _ in range(minutes)]
        model = ScriptedRealtimeModel(*replies, max_session_duration=1200.0)
        session = model.session()
        for minute in range(minutes):
            if minute % 10 == 0:
                held, ours = traced(model)
                print(f"{minute:4} min  all {held:7.3f} MB  the session {ours:7.3f} MB", flush=True)
            for _ in range(60):
                session.push_audio(frame)
                await asyncio.sleep(1.0)
            await model.service.connections[-1].speech(f"Question {minute}?")
            reply = await session.generate_reply()
            await consume(reply, lambda _: None)
        await model.aclose()

    loop = looptime.patch_event_loop(asyncio.new_event_loop())
    asyncio.set_event_loop(loop)
    tracemalloc.start()
    loop.run_until_complete(main())


# -- the comparison --------------------------------------------------------------------------------


def compare(names: list[str], sessions: int, seconds: float, rounds: int) -> dict[str, Any]:
    from environments import OURS, Environment, python

    environments = {
        "bare": OURS,
        "rejoinder": OURS,
        "livekit-1.2.17": Environment("livekit plugins 1.2.17", "outside/livekit-1.2.17"),
        "livekit": Environment("livekit plugins", "outside/livekit"),
    }
    place = ""
    if any(name.endswith(" google") for name in names):
        from realtime_vendors import certificate

        place = str(certificate())
    cores = sorted(os.sched_getaffinity(0))
    found: dict[str, list[dict[str, float]]] = {name: [] for name in names}
    for _ in range(rounds):
        for name in names:
            client, _, vendor = name.partition(" ")
            scheme = "https" if vendor == "google" else "http"
            server = subprocess.Popen(
                [sys.executable, __file__, "--serve", vendor, "--certificate", place],
                stdout=subprocess.PIPE,
                text=True,
            )
            os.sched_setaffinity(server.pid, {cores[-1]})
            try:
                assert server.stdout is not None
                url = f"{scheme}://127.0.0.1:{int(server.stdout.readline())}"
                result = subprocess.run(
                    [
                        *("taskset", "-c", str(cores[0])),
                        *(python(environments[client]), __file__, "--child", name, url),
                        *("--sessions", str(sessions), "--seconds", str(seconds)),
                    ],
                    stdout=subprocess.PIPE,
                    stderr=subprocess.DEVNULL,
                    text=True,
                    timeout=seconds + 120,
                    check=True,
                    env={
                        key: value
                        for key, value in os.environ.items()
                        if not key.startswith("PYTHON")
                    }
                    | (
                        {"PYTHONPATH": str(Path(__file__).parents[1] / "src")}
                        if environments[client] is OURS
                        else {}
                    )
                    | ({"SSL_CERT_FILE": place} if place else {}),
                )
            finally:
                server.kill()
                server.wait()
            found[name].append(json.loads(result.stdout))
    return {
        name: {key: statistics.median([run[key] for run in runs]) for key in runs[0]}
        for name, runs in found.items()
    }


GOALS = {"CPU beside bare": 1.3, "p99 ms": 10.0, "MB": 60.0}
"""With 200 sessions on one core, for 60 s, on a machine without other work."""


def against_goals(bare: dict[str, float], ours: dict[str, float]) -> None:
    """Print what was asked for and what was measured. On a busy machine the delay says nothing."""
    measured = (ours["cpu"] / bare["cpu"], ours["p99"], ours["memory"])
    print(f"\nload of the machine: {os.getloadavg()[0]:.1f}")
    for (name, goal), value in zip(GOALS.items(), measured, strict=True):
        print(f"{name:22}{value:10.2f}  goal {goal:g}: {'met' if value <= goal else 'missed'}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sessions", type=int, default=200)
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--only", default=",".join(CLIENTS))
    add_json_option(parser)
    parser.add_argument("--hour", type=int, nargs="?", const=60, metavar="MINUTES")
    parser.add_argument("--serve", help=argparse.SUPPRESS)
    parser.add_argument("--certificate", default="", help=argparse.SUPPRESS)
    parser.add_argument("--child", nargs=2, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.serve is not None:
        if options.serve:
            from realtime_vendors import SERVERS

            asyncio.run(SERVERS[options.serve](options.certificate))
        asyncio.run(serve())
        return
    if options.child:
        asyncio.run(child(*options.child, options.sessions, options.seconds))
        return
    if options.hour:
        hour(options.hour)
        return
    rows = compare(options.only.split(","), options.sessions, options.seconds, options.rounds)
    keys = dict.fromkeys(key for row in rows.values() for key in row)
    write_rows(options.json, {key: {name: row[key] for name, row in rows.items()} for key in keys})
    print(f"{'':22}{'CPU ms/s':>10}{'p50 ms':>10}{'p99 ms':>10}{'MB':>8}{'arrived':>10}")
    for name, row in rows.items():
        print(
            f"{name:22}{row['cpu']:10.2f}{row['p50']:10.2f}{row['p99']:10.2f}"
            f"{row['memory']:8.0f}{row['pieces']:10.1%}"
        )
    if "bare" in rows and "rejoinder" in rows:
        against_goals(rows["bare"], rows["rejoinder"])


if __name__ == "__main__":
    main()
