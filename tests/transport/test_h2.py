"""Streams over HTTP/2: both ways at once, flow control, and every way to end."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from certificates import server_context
from listening import listening
from raw_frames import http2_frame, http2_sending
from rejoinder.errors import APIConnectionError, APITimeoutError, ConfigurationError
from rejoinder.testing import no_leaks
from rejoinder.testing.h2_server import H2Handler, H2Server, H2ServerStream
from rejoinder.testing.leaks import measure_memory
from rejoinder.transport import flood
from rejoinder.transport._h2 import H2Stream, H2Transport
from rejoinder.transport.ws import Closed, SocketRequest


@asynccontextmanager
async def opened(
    handler: H2Handler, *, window: int | None = None
) -> AsyncGenerator[tuple[H2Server, H2Stream]]:
    async with no_leaks(), H2Server(handler, window=window) as server:
        transport = H2Transport()
        try:
            yield server, await transport.connect(SocketRequest(server.url + "/a"))
        finally:
            await transport.aclose()


async def everything(stream: H2Stream) -> tuple[bytes, Closed]:
    parts: list[bytes] = []
    while not isinstance(found := await stream.receive(), Closed):
        parts.append(found)
    return b"".join(parts), found


async def echo(stream: H2ServerStream) -> None:
    stream.respond(200, content_type="text/plain")
    while data := await stream.receive():
        await stream.send(data)
    stream.end()


async def test_both_ways_at_once() -> None:
    async with opened(echo) as (_, stream):
        await stream.send(b"one")
        assert await stream.head() == (200, {"content-type": "text/plain"})
        assert await stream.receive() == b"one"
        await stream.send("zwölf")
        assert await stream.receive() == "zwölf".encode()


async def test_the_request_is_as_it_was_given() -> None:
    async with H2Server(echo) as server:
        transport = H2Transport()
        request = SocketRequest(
            server.url + "/model/a%3A0/x?y=%20", {"X-Some": "v", "Connection": "close"}
        )
        stream = await transport.connect(request)
        await stream.head()
        fields = server.streams[0].fields
        assert fields[":method"] == "POST"
        assert fields[":path"] == "/model/a%3A0/x?y=%20"
        assert fields[":authority"] == server.url.removeprefix("http://")
        assert fields["x-some"] == "v"
        assert "connection" not in fields
        await transport.aclose()


async def test_over_tls_the_protocol_is_agreed_on(certificate: Path) -> None:
    async with no_leaks(), H2Server(echo, tls=server_context(certificate)) as server:
        transport = H2Transport(ssl=str(certificate))
        stream = await transport.connect(SocketRequest(server.url))
        await stream.send(b"hello")
        assert await stream.receive() == b"hello"
        await transport.aclose()


async def test_a_server_without_http2_is_told(certificate: Path) -> None:
    context = server_context(certificate)

    async def close(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.close()

    async with listening(close, context) as url:
        transport = H2Transport(ssl=str(certificate))
        with pytest.raises(APIConnectionError, match="does not offer HTTP/2") as caught:
            await transport.connect(SocketRequest(url.replace("127.0.0.1", "localhost")))
        assert not caught.value.retryable


async def test_an_unknown_authority_is_not_trusted(certificate: Path) -> None:
    async with H2Server(echo, tls=server_context(certificate)) as server:
        with pytest.raises(APIConnectionError, match="not trusted") as caught:
            await H2Transport().connect(SocketRequest(server.url))
        assert not caught.value.retryable


async def test_without_verification_it_is(certificate: Path) -> None:
    async with H2Server(echo, tls=server_context(certificate)) as server:
        transport = H2Transport(ssl=False)
        stream = await transport.connect(SocketRequest(server.url))
        await stream.send(b"x")
        assert await stream.receive() == b"x"
        await transport.aclose()


async def test_http1_is_told() -> None:
    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(3)
        writer.write(b"HTTP/1.1 400 Bad Request\r\ncontent-length: 0\r\n\r\n")
        writer.close()

    async with listening(answer) as url:
        transport = H2Transport()
        stream = await transport.connect(SocketRequest(url))
        ended = await stream.receive()
        assert isinstance(ended, Closed)
        assert "HTTP/1" in ended.reason
        with pytest.raises(APIConnectionError, match="no answer"):
            await stream.head()
        await transport.aclose()


# -- flow control --------------------------------------------------------------------------------


@pytest.mark.parametrize("window", [1, 100, 65_535])
async def test_what_does_not_fit_waits_for_the_window(window: int) -> None:
    data = bytes(range(256)) * (4 if window == 1 else 600)

    async def take(stream: H2ServerStream) -> None:
        stream.respond()
        got = b""
        while len(got) < len(data):
            got += await stream.receive()
        await stream.send(got)
        stream.end()

    async with opened(take, window=window) as (server, stream):
        await stream.send(data)
        found, end = await everything(stream)
        assert found == data
        assert end.code == 1000
        assert not server.errors


async def test_a_peer_that_does_not_read_stops_the_sender() -> None:
    release = asyncio.Event()

    async def slow(stream: H2ServerStream) -> None:
        stream.respond()
        await release.wait()
        size = 0
        while data := await stream.receive():
            size += len(data)
        await stream.send(str(size).encode())
        stream.end()

    async with opened(slow, window=1000) as (_, stream):
        writing = asyncio.create_task(stream.send(bytes(5000)))
        await stream.head()
        await asyncio.sleep(0.02)
        assert not writing.done()
        release.set()
        await writing
        await stream.aclose()


async def test_what_is_not_received_stops_the_server() -> None:
    sent = 0

    async def flood(stream: H2ServerStream) -> None:
        nonlocal sent
        stream.respond()
        while sent < 4 << 20:
            await stream.send(bytes(1 << 14))
            sent += 1 << 14
        stream.end()

    async with opened(flood) as (_, stream):
        await stream.head()
        for _ in range(50):
            await asyncio.sleep(0.005)
        assert sent <= 1 << 20
        found, _ = await everything(stream)
        assert len(found) == 4 << 20


async def test_a_cancelled_write_resets_the_stream() -> None:
    async def stuck(stream: H2ServerStream) -> None:
        stream.respond()
        await asyncio.Event().wait()

    async with opened(stuck, window=10) as (server, stream):
        writing = asyncio.create_task(stream.send(bytes(100)))
        await stream.head()
        writing.cancel()
        with pytest.raises(asyncio.CancelledError):
            await writing
        with pytest.raises(APIConnectionError, match="has ended"):
            await stream.send(b"more")
        assert isinstance(await stream.receive(), Closed)
        while server.streams[0].reset_by_client is None:
            await asyncio.sleep(0.001)


async def test_a_write_that_waits_ends_with_the_stream() -> None:
    async def reset(stream: H2ServerStream) -> None:
        stream.respond()
        await stream.receive()
        stream.reset(8)

    async with opened(reset, window=10) as (_, stream):
        with pytest.raises(APIConnectionError, match="RST_STREAM CANCEL"):
            await stream.send(bytes(100))


# -- ends ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(("code", "name"), [(0, "NO_ERROR"), (7, "REFUSED_STREAM"), (999, "999")])
async def test_a_reset_is_the_end_after_what_came(code: int, name: str) -> None:
    async def reset(stream: H2ServerStream) -> None:
        stream.respond()
        await stream.send(b"first")
        stream.reset(code)

    async with opened(reset) as (_, stream):
        found, end = await everything(stream)
        assert found == b"first"
        assert end.code is None
        assert f"RST_STREAM {name}" in end.reason
        assert await stream.receive() == end


async def test_a_graceful_goaway_lets_the_stream_run() -> None:
    async def leaving(stream: H2ServerStream) -> None:
        stream.respond()
        stream.goaway(0, last=2**31 - 1)
        stream.goaway(0)
        while data := await stream.receive():
            await stream.send(data)
        stream.end()

    async with opened(leaving) as (_, stream):
        await stream.head()
        assert await stream.receive() == b""
        for word in (b"a", b"b"):
            await stream.send(word)
            assert await stream.receive() == word
        assert stream.going_away


@pytest.mark.parametrize(("code", "last"), [(11, None), (0, 0)])
async def test_a_goaway_that_is_about_this_stream_ends_it(code: int, last: int | None) -> None:
    async def leaving(stream: H2ServerStream) -> None:
        stream.respond()
        await stream.send(b"x")
        stream.goaway(code, last=last, debug=b"too calm")
        await asyncio.Event().wait()

    async with opened(leaving) as (_, stream):
        found, end = await everything(stream)
        assert found == b"x"
        assert "GOAWAY" in end.reason
        assert "too calm" in end.reason


async def test_a_broken_connection_is_an_end() -> None:
    async def dropping(stream: H2ServerStream) -> None:
        stream.drop()

    async with opened(dropping) as (_, stream):
        end = await stream.receive()
        assert isinstance(end, Closed)
        assert end.code is None
        with pytest.raises(APIConnectionError):
            await stream.send(b"x")


async def test_closing_ends_the_body_before_the_connection() -> None:
    ended: list[bool] = []

    async def last_words(stream: H2ServerStream) -> None:
        stream.respond()
        while await stream.receive():
            pass
        ended.append(stream.ended)
        stream.end()

    async with opened(last_words) as (_, stream):
        await stream.send(b"bye")
        await stream.head()
        await stream.aclose()
        await stream.aclose()
        assert ended == [True]
        assert isinstance(await everything(stream), tuple)


async def test_closing_does_not_wait_for_a_server_that_hears_nothing() -> None:
    async def deaf(stream: H2ServerStream) -> None:
        stream.respond()
        await stream.receive()
        stream.go_deaf()
        await asyncio.Event().wait()

    async with opened(deaf) as (_, stream):
        await stream.send(b"x")
        await stream.head()
        async with asyncio.timeout(60):
            await stream.aclose()
        assert isinstance(await stream.receive(), Closed)


async def test_a_ping_is_a_sign_of_life() -> None:
    async with opened(echo) as (_, stream):
        await stream.head()
        before = stream.heard_at
        await stream.ping()
        async with asyncio.timeout(60):
            while stream.heard_at == before:
                await asyncio.sleep(0.001)


# -- connecting ----------------------------------------------------------------------------------


async def test_nobody_listens() -> None:
    with pytest.raises(APIConnectionError, match="cannot connect") as caught:
        await H2Transport().connect(SocketRequest("http://127.0.0.1:9/secret?key=K"))
    assert "secret" not in str(caught.value)
    assert caught.value.retryable


async def test_the_deadline_counts_for_tls_too() -> None:
    async def mute(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()

    async with listening(mute) as url:
        with pytest.raises(APITimeoutError, match=r"within 0\.05 s"):
            await H2Transport().connect(
                SocketRequest(url.replace("http:", "https:"), connect_timeout=0.05)
            )


async def test_a_header_that_cannot_be_sent_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="x-key"):
        await H2Transport().connect(SocketRequest("http://127.0.0.1:9", {"x-key": "a\nb"}))


async def test_a_closed_transport_opens_nothing() -> None:
    transport = H2Transport()
    await transport.aclose()
    with pytest.raises(APIConnectionError, match="closed"):
        await transport.connect(SocketRequest("http://127.0.0.1:9"))


@asynccontextmanager
async def proxy(answer: bytes) -> AsyncGenerator[tuple[str, list[bytes]]]:
    """A proxy that opens every tunnel, if its answer says so."""
    asked: list[bytes] = []

    async def pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(1 << 14):
            writer.write(data)
        writer.close()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        asked.append(head)
        writer.write(answer)
        if b" 200 " not in answer:
            return
        host, _, port = head.split()[1].decode().rpartition(":")
        there = await asyncio.open_connection(host, int(port))
        try:
            await asyncio.gather(pump(reader, there[1]), pump(there[0], writer))
        finally:
            there[1].transport.abort()

    async with listening(serve) as url:
        yield url.replace("//", "//me:secret@"), asked


@pytest.mark.parametrize("tls", [False, True])
async def test_the_proxy_of_the_environment_is_used(
    tls: bool, certificate: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("no_proxy", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)
    context = server_context(certificate) if tls else None
    async with (
        proxy(b"HTTP/1.1 200 OK\r\n\r\n") as (address, asked),
        H2Server(echo, tls=context) as server,
    ):
        monkeypatch.setenv("https_proxy" if tls else "http_proxy", address)
        transport = H2Transport(ssl=str(certificate))
        stream = await transport.connect(SocketRequest(server.url))
        await stream.send(b"through")
        assert await stream.receive() == b"through"
        assert asked[0].startswith(b"CONNECT ")
        assert b"Proxy-Authorization: Basic" in asked[0]
        await transport.aclose()


async def test_a_proxy_that_refuses_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("no_proxy", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)
    async with proxy(b"HTTP/1.1 407 Who are you\r\n\r\n") as (address, _):
        monkeypatch.setenv("https_proxy", address)
        with pytest.raises(APIConnectionError, match="407") as caught:
            await H2Transport().connect(SocketRequest("https://example.com"))
        assert "secret" not in str(caught.value)
        assert not caught.value.retryable


@pytest.mark.parametrize(
    ("pieces", "told"),
    [
        ([], "did not open a tunnel"),
        ([b"HTTP/1.1 40", b"7 Who are you\r\n", b"\r\n"], "answered 407 instead"),
        ([b"nonsense\r\n\r\n"], "did not open a tunnel"),
        ([b"HTTP/1.1 200 OK\r\n" + b"x: y\r\n" * 20_000], "did not open a tunnel"),
    ],
    ids=["nothing", "in pieces", "no HTTP", "a head without end"],
)
async def test_a_proxy_that_opens_no_tunnel_is_told(
    pieces: list[bytes], told: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        for piece in pieces:
            writer.write(piece)
            await writer.drain()
            await asyncio.sleep(0)

    for name in ("no_proxy", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)
    async with no_leaks(), listening(serve) as url:
        monkeypatch.setenv("https_proxy", url)
        with pytest.raises(APIConnectionError, match=told):
            await H2Transport().connect(SocketRequest("https://example.com"))


async def test_what_is_no_tls_is_told() -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(1)
        writer.write(b"HTTP/1.1 400 Bad Request\r\n\r\n")

    async with no_leaks(), listening(serve) as url:
        with pytest.raises(APIConnectionError, match=r"no TLS connection \([A-Z_]+\)") as caught:
            await H2Transport().connect(SocketRequest(url.replace("http:", "https:")))
    assert caught.value.retryable


# -- hostile bytes -------------------------------------------------------------------------------


@given(
    st.lists(
        st.one_of(
            st.binary(max_size=60),
            st.builds(
                http2_frame,
                st.integers(0, 12),
                st.integers(0, 255),
                st.sampled_from([0, 1, 2, 3, 2**31 - 1]),
                st.binary(max_size=40),
            ),
        ),
        max_size=8,
    )
)
def test_no_bytes_raise(pieces: list[bytes]) -> None:
    async def main() -> None:
        stream = H2Stream("POST test")
        stream.begin(
            [(":method", "POST"), (":scheme", "http"), (":authority", "a"), (":path", "/")]
        )
        for piece in pieces:
            stream.data_received(piece)
        stream.connection_lost(None)
        async with asyncio.timeout(60):
            _, end = await everything(stream)
        assert end.reason

    asyncio.run(main())


FLOODS = {
    "pings": http2_frame(6, 0, 0, bytes(8)),
    "settings": http2_frame(4, 0, 0),
    "windows": http2_frame(8, 0, 1, b"\0\0\0\1"),
    "resets of other streams": http2_frame(3, 0, 3, bytes(4)),
    "farewells": http2_frame(7, 0, 0, b"\0\0\0\1" + bytes(4)),
    "priorities": http2_frame(2, 0, 3, bytes(5)),
    "unknown frames": http2_frame(77, 0, 1),
    "empty data": http2_frame(0, 0, 1),
    "padding": http2_frame(0, 8, 1, b"\0"),
    "single bytes": http2_frame(0, 0, 1, b"a"),
}


@pytest.mark.parametrize("name", FLOODS)
async def test_many_frames_at_once_are_read_in_turns_and_keep_nothing(name: str) -> None:
    count = 5_000

    def frames() -> list[bytes]:
        return [FLOODS[name] * count, http2_frame(0, 1, 1, b"the end")]

    async with no_leaks(), http2_sending(frames) as url:
        transport = H2Transport()
        stream = await transport.connect(SocketRequest(url))
        reading = asyncio.ensure_future(everything(stream))
        await stream.head()
        turns = 0
        with measure_memory() as memory:
            while not reading.done():
                turns += 1
                await asyncio.sleep(0)
        text, end = reading.result()
        await transport.aclose()
    assert text == b"a" * (count if name == "single bytes" else 0) + b"the end"
    assert end.code == 1000
    assert turns > count / 200
    assert memory.peak < 2 << 20


@pytest.mark.parametrize(
    ("frames", "told"),
    [
        (http2_frame(8, 0, 1, bytes(4)), "non-compliant"),
        (
            http2_frame(1, 0, 1, bytes(16_000)) + http2_frame(9, 0, 1, bytes(16_000)) * 9,
            "32768 bytes",
        ),
        (http2_frame(1, 0, 1) + http2_frame(9, 0, 1) * 9000, "[Cc]ontinuation"),
        (http2_frame(1, 4, 1, b"\x82" * 16_000), "header list larger than"),
        (b"\x7f\xff\xff\0\0\0\0\0\1", "a frame of 8388607 bytes; at most 16384"),
    ],
    ids=["no window", "huge head", "endless head", "packed head", "huge frame"],
)
async def test_what_breaks_the_protocol_ends_the_stream_and_is_named(
    frames: bytes, told: str
) -> None:
    async with (
        no_leaks(),
        http2_sending(lambda: [frames, http2_frame(6, 0, 0, bytes(8)) * 9000]) as url,
    ):
        transport = H2Transport()
        stream = await transport.connect(SocketRequest(url))
        end = (await everything(stream))[1]
        await transport.aclose()
    assert re.search(told, end.reason)


async def test_what_arrived_with_the_end_of_the_connection_is_read() -> None:
    """Also where there was too much of it for one turn of the loop."""
    async with http2_sending(lambda: [http2_frame(0, 0, 1, b"a") * 5000]) as url:
        transport = H2Transport()
        stream = await transport.connect(SocketRequest(url))
        text, end = await everything(stream)
        await transport.aclose()
    assert len(text) == 5000
    assert end.reason == "the server closed the connection"


async def test_every_cut_of_a_dialogue_means_the_same() -> None:
    async def talk(stream: H2ServerStream) -> None:
        stream.respond()
        stream.goaway(0)
        await stream.send(b"words")
        stream.goaway(2, debug=b"end")

    seen: list[bytes] = []
    async with opened(talk) as (_, stream):
        take = stream.data_received
        stream.data_received = lambda data: (seen.append(data), take(data))[1]  # type: ignore[method-assign]
        await everything(stream)
    data = b"".join(seen)
    for cut in range(1, len(data)):
        again = H2Stream("POST test")
        again.begin([(":method", "POST"), (":scheme", "http"), (":authority", "a"), (":path", "/")])
        again.data_received(data[:cut])
        again.data_received(data[cut:])
        found, end = await everything(again)
        assert (found, "PROTOCOL_ERROR" not in end.reason) == (b"words", True) or (
            found == b"words" and "INTERNAL_ERROR" in end.reason
        )
        assert again.going_away


@pytest.mark.parametrize(
    "frame",
    [
        b"\x00\x00\x08\x06\x00\x00\x00\x00\x00" + bytes(8),
        b"\x00\x00\x08\x07\x00\x00\x00\x00\x00\x7f\xff\xff\xff" + bytes(4),
        b"\x00\x00\x00\x04\x00\x00\x00\x00\x00",
    ],
    ids=["PING", "GOAWAY", "SETTINGS"],
)
async def test_a_flood_of_control_frames_ends_the_connection(
    frame: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(flood, "MOST_SIGNS", 300)

    async def talks(stream: H2ServerStream) -> None:
        stream.respond()
        stream.write_raw(frame * 1000)
        await stream.receive()

    async with opened(talks) as (_, stream):
        _, end = await everything(stream)
        assert "more than 300 control frames within 10 s" in end.reason
