"""Bodies that are handed over in the callback of the socket: the same bytes, ends and errors."""

from __future__ import annotations

import asyncio
import gzip
import itertools
import random
from typing import Any

import pytest
from aiohttp import ClientSession, StreamReader

from listening import Handler, listening
from rejoinder.errors import APIConnectionError
from rejoinder.testing.leaks import no_leaks
from rejoinder.transport import _aiohttp, _aiohttp_push
from rejoinder.transport._aiohttp import AiohttpTransport
from rejoinder.transport.http import HttpResponse, Request, pour

CHUNKS = 4_097
"""With so many unread, aiohttp takes a rest."""


@pytest.fixture(params=["pushed", "pulled"])
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """How bodies are read; the second way is that of an aiohttp which is not as we know it."""
    pushed = request.param == "pushed"
    monkeypatch.setattr(_aiohttp, "can_push", _aiohttp_push.can_push if pushed else lambda _: False)
    return request.param


def chunked(pieces: list[bytes], *, headers: bytes = b"", cut: bool = False) -> Handler:
    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n" + headers + b"\r\n")
        for piece in pieces:
            writer.write(b"%x\r\n%b\r\n" % (len(piece), piece))
            await writer.drain()
            await asyncio.sleep(0)
        if not cut:
            writer.write(b"0\r\n\r\n")
            await reader.read()

    return handle


def plain(pieces: list[bytes], *, length: bool = True) -> Handler:
    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        size = b"Content-Length: %d\r\n" % sum(map(len, pieces)) if length else b""
        writer.write(b"HTTP/1.1 200 OK\r\n" + size + b"\r\n")
        for piece in pieces:
            writer.write(piece)
            await asyncio.sleep(0)
        if length:
            await reader.read()

    return handle


async def poured(response: HttpResponse, dice: random.Random, stop: float = 0.2) -> bytes:
    """The whole body, by many calls: `take` wants a rest now and then."""
    seen: list[bytes] = []

    def take(data: bytes) -> bool:
        assert data
        seen.append(data)
        return dice.random() >= stop

    while not await pour(response, take):
        if dice.random() < 0.5:
            await asyncio.sleep(0)  # what comes meanwhile is buffered
        if dice.random() < 0.2:
            seen.append(await response.read_some())
    return b"".join(seen)


BODY = bytes(random.Random(7).randbytes(40_000))


@pytest.mark.parametrize("seed", range(8))
@pytest.mark.parametrize("kind", ["chunked", "gzip", "length", "close"])
async def test_all_bytes_in_order(way: str, kind: str, seed: int) -> None:
    dice = random.Random(seed)
    sent = gzip.compress(BODY) if kind == "gzip" else BODY
    edges = sorted({0, len(sent), *(dice.randrange(len(sent)) for _ in range(60))})
    pieces = [sent[a:b] for a, b in itertools.pairwise(edges)]
    if kind in ("chunked", "gzip"):
        header = b"Content-Encoding: gzip\r\n" if kind == "gzip" else b""
        handle = chunked(pieces, headers=header)
    else:
        handle = plain(pieces, length=kind == "length")
    async with no_leaks(), listening(handle) as url:
        transport = AiohttpTransport()
        async with await transport.send(Request("GET", url)) as response:
            assert await poured(response, dice) == BODY
            assert await response.read_some() == b""
            assert await pour(response, lambda _: True)
        await transport.aclose()


@pytest.mark.parametrize("way", ["pushed"], indirect=True)
async def test_the_first_way_is_the_one_in_use(way: str) -> None:
    """The check at start holds for the aiohttp that is installed."""
    more = asyncio.Event()

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\na")
        await more.wait()
        writer.write(b"b")

    async with listening(handle) as url:
        transport = AiohttpTransport()
        async with await transport.send(Request("GET", url)) as response:
            assert _aiohttp_push.works()
            callers: list[Any] = []

            def take(data: bytes) -> bool:
                callers.append(asyncio.current_task())
                asyncio.get_running_loop().call_soon(more.set)
                return True

            assert await pour(response, take)
            assert callers[-1] is None, "the second piece did not come in the callback"
        await transport.aclose()


@pytest.mark.parametrize("way", ["pushed"], indirect=True)
async def test_another_aiohttp_is_read_as_usual(way: str, monkeypatch: pytest.MonkeyPatch) -> None:
    class Renamed:
        """A reader that has none of the names this file relies on."""

    monkeypatch.setattr(_aiohttp_push, "StreamReader", Renamed)
    _aiohttp_push.works.cache_clear()
    try:
        assert not _aiohttp_push.works()
        async with listening(chunked([b"a", b"b"])) as url:
            transport = AiohttpTransport()
            async with await transport.send(Request("GET", url)) as response:
                assert await poured(response, random.Random(1)) == b"ab"
            await transport.aclose()
    finally:
        _aiohttp_push.works.cache_clear()


async def test_a_session_of_the_users(way: str) -> None:
    async with ClientSession() as session, listening(chunked([b"a", b"b" * 99])) as url:
        transport = AiohttpTransport(session)
        async with await transport.send(Request("GET", url)) as response:
            assert await poured(response, random.Random(2)) == b"a" + b"b" * 99
        await transport.aclose()


async def test_a_cut_body_is_told_after_what_came(way: str) -> None:
    async with listening(chunked([b"a", b"b"], cut=True)) as url:
        transport = AiohttpTransport()
        seen: list[bytes] = []
        with pytest.raises(APIConnectionError, match="before the body was complete"):
            async with await transport.send(Request("GET", url)) as response:
                await pour(response, lambda data: seen.append(data) or True)
        assert b"".join(seen) == b"ab"
        await transport.aclose()


@pytest.mark.parametrize("error", [ValueError("no"), OSError("no"), KeyError("no")])
async def test_what_take_raises_is_raised(way: str, error: Exception) -> None:
    def take(data: bytes) -> bool:
        raise error

    async with no_leaks(), listening(chunked([b"a", b"b"])) as url:
        transport = AiohttpTransport()
        with pytest.raises(type(error)) as caught:
            async with await transport.send(Request("GET", url)) as response:
                await pour(response, take)
        assert caught.value is error
        await transport.aclose()


async def test_cancelled_while_it_waits(way: str) -> None:
    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\na")
        await reader.read()

    async with no_leaks(), listening(handle) as url:
        transport = AiohttpTransport()
        first = asyncio.Event()

        async def read() -> None:
            async with await transport.send(Request("GET", url)) as response:
                await pour(response, lambda _: first.set() or True)

        task = asyncio.ensure_future(read())
        await first.wait()
        await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await transport.aclose()


async def test_a_rest_holds_the_sender_back(way: str) -> None:
    """While nothing is wanted, no more is buffered than aiohttp's own bound."""
    sent = 0

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal sent
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n")
        for _ in range(512):
            writer.write(b"x" * (1 << 16))
            await writer.drain()
            sent += 1 << 16

    size = 0

    def take(data: bytes) -> bool:
        nonlocal size
        size += len(data)
        return size > 1 << 19

    async with listening(handle) as url:
        transport = AiohttpTransport()
        async with await transport.send(Request("GET", url)) as response:
            assert not await pour(response, take)
            for _ in range(2000):
                await asyncio.sleep(0)
            assert sent < 512 << 16
            while not await pour(response, take):
                pass
            assert size == 512 << 16
        await transport.aclose()


@pytest.mark.parametrize("own", [False, True])
async def test_what_follows_a_rest_in_one_packet_is_read_at_once(way: str, own: bool) -> None:
    """aiohttp takes a rest after very many chunks, and its parser notices that at the next one."""
    go_on = asyncio.Event()

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        head = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
        writer.write(head + b"1\r\nx\r\n" * CHUNKS)
        await go_on.wait()
        writer.write(b"1\r\na\r\n1\r\nb\r\n0\r\n\r\n")
        await reader.read()

    body = b""

    def take(data: bytes) -> bool:
        nonlocal body
        body += data
        if body == b"x" * CHUNKS:
            asyncio.get_running_loop().call_soon(go_on.set)
        return True

    async with ClientSession() as session, listening(handle) as url:
        transport = AiohttpTransport(session if own else None)
        async with await transport.send(Request("GET", url)) as response:
            assert await pour(response, take)
        assert body == b"x" * CHUNKS + b"ab"
        await transport.aclose()


def test_the_reader_has_the_layout_of_its_base() -> None:
    """Else an object could not change its class while a body is read."""
    assert _aiohttp_push.PushingReader.__slots__ == ()
    assert "__dict__" not in dir(StreamReader)
