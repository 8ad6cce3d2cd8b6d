"""WebSockets: signs of life, and what a peer may send."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Iterable
from contextlib import asynccontextmanager

import pytest

from listening import listening
from raw_frames import CONTINUED, PING, PONG, TEXT, ws_accept, ws_frame, ws_sending
from rejoinder.transport._aiohttp import AiohttpTransport
from rejoinder.transport._aiohttp_ws import AiohttpWebSocketTransport
from rejoinder.transport.ws import Closed, SocketRequest, WebSocket


@asynccontextmanager
async def opened(url: str, max_frame: int = 1 << 20) -> AsyncGenerator[WebSocket]:
    transport = AiohttpWebSocketTransport(AiohttpTransport())
    try:
        yield await transport.connect(SocketRequest(url, max_frame=max_frame))
    finally:
        await transport.aclose()


async def turns_until(work: asyncio.Future[object]) -> int:
    turns = 0
    while not work.done():
        turns += 1
        await asyncio.sleep(0)
    return turns


@pytest.mark.parametrize("kind", [PING, PONG])
async def test_a_sign_of_life_is_heard_without_a_frame(kind: int) -> None:
    go_on = asyncio.Event()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await ws_accept(reader, writer)
        await go_on.wait()
        writer.write(ws_frame(kind))
        await reader.read()

    async with listening(serve) as url, opened(url) as socket:
        receiving = asyncio.ensure_future(socket.receive())
        await asyncio.sleep(0)
        before = socket.heard_at
        go_on.set()
        while socket.heard_at == before:
            await asyncio.sleep(0.001)
        assert not receiving.done()
        receiving.cancel()


async def test_a_ping_is_answered_with_its_own_words() -> None:
    answered: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await ws_accept(reader, writer)
        writer.write(ws_frame(PING, b"alive?"))
        head = await reader.readexactly(2)
        mask = await reader.readexactly(4)
        body = await reader.readexactly(head[1] & 0x7F)
        answered.set_result(head[:1] + bytes(b ^ mask[i % 4] for i, b in enumerate(body)))
        await reader.read()

    async with listening(serve) as url, opened(url) as socket:
        receiving = asyncio.ensure_future(socket.receive())
        assert await answered == bytes([0x80 | PONG]) + b"alive?"
        receiving.cancel()


@pytest.mark.parametrize("kind", [PING, PONG])
async def test_the_loop_has_its_turns_however_many_signs_of_life_come_at_once(kind: int) -> None:
    count = 20_000

    def frames() -> Iterable[bytes]:
        yield ws_frame(kind) * count + ws_frame(TEXT, b"the end")

    async with ws_sending(frames) as url, opened(url) as socket:
        receiving = asyncio.ensure_future(socket.receive())
        turns = await turns_until(receiving)  # type: ignore[arg-type]
        assert receiving.result() == "the end"
        assert turns > count / 100


@pytest.mark.parametrize("pieces", [1, 3000])
async def test_a_frame_over_the_limit_ends_the_connection_and_names_it(pieces: int) -> None:
    piece = b"a" * (3000 // pieces)

    def frames() -> Iterable[bytes]:
        if pieces == 1:
            yield ws_frame(TEXT, piece)
        else:
            yield ws_frame(TEXT, piece, last=False) + ws_frame(CONTINUED, piece, last=False) * 5000

    async with ws_sending(frames) as url, opened(url, max_frame=2000) as socket:
        end = await socket.receive()
    assert isinstance(end, Closed)
    assert end.code == 1009
    assert "2000" in end.reason
