"""Google's and Amazon's realtime protocols and OpenAI's Live API for `realtime.py`: the services, and the
clients.

The package google-genai opens WebSockets with TLS alone, so all clients of Google's protocol use TLS
here. LiveKit's plugin for Nova Sonic needs Python 3.12, and a package of AWS that takes no address
without TLS: it has no row. The Live API has a row of ours alone.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import json
import os
import ssl
import sys
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

from realtime import DOWN_MS, STAMP, UP_MS, WORDS_EVERY, Lag, listen, livekits, ours, paced

MODEL = "gemini-2.5-flash-native-audio-preview-12-2025"
"""A model that each of the clients knows."""
SOUND_16 = bytes(32 * UP_MS)
REST = bytes(48 * DOWN_MS - 12)


def stamped() -> bytes:
    return STAMP.pack(time.monotonic_ns()) + bytes(4)


# -- Google ----------------------------------------------------------------------------------------


def certificate() -> Path:
    """A certificate for this machine, made once."""
    sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))
    from certificates import LOOPBACK, make_certificate

    path = Path(os.environ.get("TMPDIR") or "/tmp") / f"rejoinder-bench-{os.getpid()}.pem"
    return path if path.exists() else make_certificate(path, *LOOPBACK)


async def serve_google(place: str) -> None:
    """Answer sessions until the process is ended; prints the port. `place`: of the certificate."""
    from aiohttp import WSMsgType, web

    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(place)
    rest = base64.b64encode(REST).decode()
    begin, end = json.dumps(
        {
            "serverContent": {
                "modelTurn": {
                    "parts": [{"inlineData": {"mimeType": "audio/pcm;rate=24000", "data": "@"}}]
                }
            }
        }
    ).split("@")
    word = json.dumps({"serverContent": {"outputTranscription": {"text": " word"}}}).encode()

    async def session(request: web.Request) -> web.StreamResponse:
        socket = web.WebSocketResponse(compress=False, max_msg_size=1 << 24)
        await socket.prepare(request)

        async def send(number: int) -> None:
            sound = base64.b64encode(stamped()).decode()
            await socket.send_bytes(f"{begin}{sound}{rest}{end}".encode())
            if number % WORDS_EVERY == WORDS_EVERY - 1:
                await socket.send_bytes(word)

        speaking: asyncio.Task[None] | None = None
        async for message in socket:
            data = message.data if isinstance(message.data, str) else message.data.decode()
            if message.type not in (WSMsgType.TEXT, WSMsgType.BINARY) or len(data) > 4000:
                continue  # sound
            event = json.loads(data)
            content = event.get("clientContent") or event.get("client_content") or {}
            if "setup" in event:
                await socket.send_bytes(b'{"setupComplete":{}}')
            elif speaking is None and (content.get("turnComplete") or content.get("turn_complete")):
                speaking = asyncio.create_task(paced(send))
        if speaking is not None:
            speaking.cancel()
            await asyncio.gather(speaking, return_exceptions=True)
        return socket

    await listen(session, context)


@contextlib.asynccontextmanager
async def bare_google(url: str) -> Any:
    """The loop one writes by hand with aiohttp and json."""
    import aiohttp

    http = aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0))
    tasks: list[asyncio.Task[None]] = []

    async def session(lag: Lag) -> Callable[[], Awaitable[None]]:
        socket = await http.ws_connect(f"{url}/ws/live", compress=0)
        setup = {"model": MODEL, "generationConfig": {"responseModalities": ["AUDIO"]}}
        await socket.send_str(json.dumps({"setup": setup}))
        turn = {"role": "user", "parts": [{"text": "."}]}
        await socket.send_str(
            json.dumps({"clientContent": {"turns": [turn], "turnComplete": True}})
        )

        async def read() -> None:
            text = ""
            async for message in socket:
                content = json.loads(message.data).get("serverContent") or {}
                for part in (content.get("modelTurn") or {}).get("parts") or ():
                    lag(base64.b64decode(part["inlineData"]["data"]))
                text = (content.get("outputTranscription") or {}).get("text", text)
            assert text

        async def push() -> None:
            blob = {
                "data": base64.b64encode(SOUND_16).decode(),
                "mimeType": "audio/pcm;rate=16000",
            }
            await socket.send_str(json.dumps({"realtimeInput": {"audio": blob}}))

        tasks.append(asyncio.create_task(read()))
        return push

    yield session
    for task in tasks:
        task.cancel()
    await http.close()


@contextlib.asynccontextmanager
async def rejoinder_google(url: str) -> Any:
    from rejoinder.providers.google.realtime import RealtimeModel

    async with ours(RealtimeModel(model=MODEL, base_url=url, api_key="key"), 16000) as session:
        yield session


@contextlib.asynccontextmanager
async def livekit_google(url: str) -> Any:
    from google.genai import types

    try:
        from livekit.plugins.google import realtime
    except ImportError:  # 1.2.17
        from livekit.plugins.google.beta import realtime
    options = types.HttpOptions(base_url=url)
    model = realtime.RealtimeModel(model=MODEL, api_key="key", http_options=options)
    async with livekits(model, 16000) as session:
        yield session


# -- Amazon ----------------------------------------------------------------------------------------


async def serve_aws(_: str) -> None:
    """Speak on every stream until the process is ended; prints the port."""
    from rejoinder.testing.h2_server import H2Server, H2ServerStream
    from rejoinder.wire.eventstream import encode_message

    headers = {
        ":message-type": "event",
        ":event-type": "chunk",
        ":content-type": "application/json",
    }

    async def event(stream: H2ServerStream, kind: str, **fields: Any) -> None:
        text = json.dumps({"event": {kind: {"completionId": "c", "sessionId": "s", **fields}}})
        payload = json.dumps({"bytes": base64.b64encode(text.encode()).decode()}).encode()
        await stream.send(encode_message(headers, payload))

    async def serve(stream: H2ServerStream) -> None:
        stream.respond(200, content_type="application/vnd.amazon.eventstream")
        speaking: asyncio.Task[None] | None = None
        heard = b""

        async def begin(name: str, kind: str, **more: Any) -> None:
            await event(stream, "contentStart", contentId=name, type=kind, role="ASSISTANT", **more)

        async def send(number: int) -> None:
            if number % WORDS_EVERY == 0:
                name = f"t{number}"
                stage = json.dumps({"generationStage": "SPECULATIVE"})
                if number:
                    await event(stream, "contentEnd", contentId="a", type="AUDIO",
                                stopReason="PARTIAL_TURN")  # fmt: skip
                await begin(name, "TEXT", additionalModelFields=stage)
                await event(stream, "textOutput", contentId=name, role="ASSISTANT", content=" word")
                await event(stream, "contentEnd", contentId=name, type="TEXT",
                            stopReason="PARTIAL_TURN")  # fmt: skip
                await begin("a", "AUDIO")
            sound = base64.b64encode(stamped() + REST).decode()
            await event(stream, "audioOutput", contentId="a", role="ASSISTANT", content=sound)

        while data := await stream.receive():
            if speaking is None:
                heard = (heard + data)[-(1 << 16) :]
                # The typed request is the first frame that is answered: it is encoded twice, so
                # any speech after the beginning of the sound begins the reply.
                if len(heard) > 6000:
                    await event(stream, "completionStart")
                    speaking = asyncio.create_task(paced(send))
        if speaking is not None:
            speaking.cancel()
            await asyncio.gather(speaking, return_exceptions=True)

    async with H2Server(serve) as server:
        print(server.url.rpartition(":")[2], flush=True)
        await asyncio.Event().wait()


@contextlib.asynccontextmanager
async def rejoinder_aws(url: str) -> Any:
    from rejoinder.providers.aws.realtime import RealtimeModel

    model = RealtimeModel(base_url=url, api_key="AKID", api_secret="secret")
    async with ours(model, 16000) as session:
        yield session


# -- OpenAI's Live API -----------------------------------------------------------------------------

LOUD = b"\x00\x10" * 4
HALF = 480
"""Bytes of 10 ms. Speech is told by windows of 20 ms, so every second frame begins with the end of the
piece before."""


async def serve_live(_: str) -> None:
    """Speak in every session until the process is ended; prints the port. The sound is loud, as the
    service sends silence too and the client tells speech by it."""
    from aiohttp import WSMsgType, web

    begin, end = json.dumps({"type": "session.output_audio.delta", "delta": "@"}).split("@")
    rest = base64.b64encode(LOUD[:2] * (len(REST) // 2)).decode()
    word = '{"type":"session.output_transcript.delta","delta":" word","start_ms":%d,"end_ms":%d}'
    started = json.dumps(
        {"type": "session.started", "session": {"id": "live_1", "expires_at": time.time() + 3600}}
    )

    async def session(request: web.Request) -> web.StreamResponse:
        socket = web.WebSocketResponse(compress=False, max_msg_size=1 << 24)
        await socket.prepare(request)

        async def send(number: int) -> None:
            if number % WORDS_EVERY == 0:
                at = number * DOWN_MS
                await socket.send_str(word % (at, at + DOWN_MS))
            sound = base64.b64encode(stamped()).decode()
            await socket.send_str(f"{begin}{sound}{rest}{end}")

        speaking: asyncio.Task[None] | None = None
        async for message in socket:
            if message.type is not WSMsgType.TEXT or len(message.data) > 4000:
                continue  # sound
            event = json.loads(message.data)
            if event["type"] == "session.start":
                await socket.send_str(started)
            elif event["type"] == "session.commentary.append" and speaking is None:
                told = {"type": "session.commentary.appended", "start_ms": 0, "end_ms": 0}
                await socket.send_str(json.dumps({**told, "client_event_id": event["event_id"]}))
                speaking = asyncio.create_task(paced(send))
        if speaking is not None:
            speaking.cancel()
            await asyncio.gather(speaking, return_exceptions=True)
        return socket

    await listen(session)


@contextlib.asynccontextmanager
async def rejoinder_live(url: str) -> Any:
    from rejoinder.providers.openai.live import GPTLiveModel

    async with ours(GPTLiveModel(base_url=url, api_key="key")) as session:

        def begin(lag: Lag) -> Awaitable[Callable[[], Awaitable[None]]]:
            return session(lambda data: lag(data[HALF:] if data[:8] == LOUD else data))

        yield begin


SERVERS = {"google": serve_google, "aws": serve_aws, "live": serve_live}
CLIENTS = {
    "bare google": bare_google,
    "rejoinder google": rejoinder_google,
    "livekit-1.2.17 google": livekit_google,
    "livekit google": livekit_google,
    "rejoinder aws": rejoinder_aws,
    "rejoinder live": rejoinder_live,
}
