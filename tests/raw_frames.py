"""WebSocket and HTTP/2 frames, byte by byte, for tests of peers that misbehave."""

from __future__ import annotations

import asyncio
import base64
import hashlib
from collections.abc import AsyncGenerator, Callable, Iterable
from contextlib import asynccontextmanager

import hpack

from listening import listening

__all__ = [
    "BINARY",
    "CONTINUED",
    "PING",
    "PONG",
    "TEXT",
    "http2_sending",
    "http2_frame",
    "ws_accept",
    "ws_frame",
    "ws_sending",
]

CONTINUED, TEXT, BINARY, PING, PONG = 0, 1, 2, 9, 10
_PIECE = 1 << 18


def ws_frame(kind: int, body: bytes = b"", *, last: bool = True) -> bytes:
    """A frame of a WebSocket server."""
    size = len(body)
    head = bytes([(0x80 if last else 0) | kind])
    if size < 126:
        return head + bytes([size]) + body
    if size < 1 << 16:
        return head + b"\x7e" + size.to_bytes(2) + body
    return head + b"\x7f" + size.to_bytes(8) + body


async def ws_accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Answer the request for a WebSocket."""
    head = await reader.readuntil(b"\r\n\r\n")
    fields = dict(line.lower().split(b": ", 1) for line in head.split(b"\r\n") if b": " in line)
    key = next(
        line.split(b": ", 1)[1]
        for line in head.split(b"\r\n")
        if line.lower().startswith(b"sec-websocket-key")
    )
    assert fields[b"upgrade"] == b"websocket"
    proof = base64.b64encode(hashlib.sha1(key + b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11").digest())
    writer.write(
        b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        b"Sec-WebSocket-Accept: " + proof + b"\r\n\r\n"
    )


def http2_frame(kind: int, flags: int, stream: int, body: bytes = b"") -> bytes:
    return len(body).to_bytes(3) + bytes([kind, flags]) + stream.to_bytes(4) + body


def _http2_begin() -> bytes:
    fields = hpack.Encoder().encode([(":status", "200")])
    return http2_frame(4, 0, 0) + http2_frame(1, 4, 1, fields)


@asynccontextmanager
async def ws_sending(make: Callable[[], Iterable[bytes]]) -> AsyncGenerator[str]:
    """The URL of a server that sends these frames over each WebSocket, and reads what it gets."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await ws_accept(reader, writer)
        await _send(reader, writer, make())

    async with listening(serve) as url:
        yield url


@asynccontextmanager
async def http2_sending(make: Callable[[], Iterable[bytes]]) -> AsyncGenerator[str]:
    """The URL of a server that answers each stream with status 200 and these frames, and then
    closes the connection."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(1 << 16)
        await _send(reader, writer, [_http2_begin(), *make()])

    async with listening(serve) as url:
        yield url


async def _send(
    reader: asyncio.StreamReader, writer: asyncio.StreamWriter, pieces: Iterable[bytes]
) -> None:
    async def drain() -> None:
        while await reader.read(1 << 16):
            pass

    reading = asyncio.ensure_future(drain())
    try:
        for piece in pieces:
            for start in range(0, len(piece), _PIECE):
                writer.write(piece[start : start + _PIECE])
                await writer.drain()
        writer.write_eof()
        await reading
    finally:
        reading.cancel()
