"""The transport over real loopback sockets."""

from __future__ import annotations

import asyncio
import base64
import gc
import os
import ssl
import subprocess
import sys
import textwrap
import threading
import warnings
import zlib
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from aiohttp import client_exceptions, http_exceptions
from aiohttp.client_reqrep import ConnectionKey
from aiohttp.http_exceptions import HttpProcessingError, LineTooLong
from multidict import CIMultiDict, CIMultiDictProxy
from yarl import URL

from certificates import make_certificate, server_context
from listening import Handler, listening
from rejoinder.errors import (
    APIConnectionError,
    APIError,
    APIStatusError,
    APITimeoutError,
    ConfigurationError,
    WireError,
)
from rejoinder.testing.faults import Answer, Fault, FaultServer
from rejoinder.testing.leaks import measure_memory, no_leaks
from rejoinder.transport._aiohttp import AiohttpTransport
from rejoinder.transport._aiohttp_ws import AiohttpWebSocketTransport
from rejoinder.transport.http import HttpResponse, Request
from rejoinder.transport.ws import SocketRequest
from stalls import Stalls
from work import stopped_clock

KEY = "sk-canary-4f1d8a7e9b2c"
PATH = "/v1/chat/completions"


def post(url: str, body: bytes = b"{}", **headers: str) -> Request:
    fields = {"Authorization": f"Bearer {KEY}", "Content-Type": "application/json"}
    return Request("POST", url, {**fields, **headers}, body, connect_timeout=5)


async def read(response: HttpResponse) -> bytes:
    parts: list[bytes] = []
    while data := await response.read_some():
        parts.append(data)
    return b"".join(parts)


async def fetch(transport: AiohttpTransport, request: Request) -> tuple[int, bytes]:
    async with await transport.send(request) as response:
        return response.status, await read(response)


def answering(answer: bytes, *, close: bool = False) -> Handler:
    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            head = await reader.readuntil(b"\r\n\r\n")
            size = 0
            for line in head.split(b"\r\n"):
                if line.lower().startswith(b"content-length:"):
                    size = int(line.partition(b":")[2])
            await reader.readexactly(size)
            writer.write(answer)
            await writer.drain()
            if close:
                writer.write_eof()
                await reader.read()
                return

    return handle


@pytest.fixture(autouse=True)
def no_proxies(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in list(os.environ):
        if name.lower().endswith("_proxy"):
            monkeypatch.delenv(name)


@pytest.fixture
async def transport() -> AsyncIterator[AiohttpTransport]:
    transport = AiohttpTransport()
    yield transport
    await transport.aclose()


@pytest.fixture
async def server() -> AsyncIterator[FaultServer]:
    async with FaultServer() as server:
        yield server


@pytest.fixture
def tls(certificate: Path) -> ssl.SSLContext:
    return server_context(certificate)


# -- sending and reading -------------------------------------------------------------------------


async def test_a_request_arrives_as_it_is(server: FaultServer, transport: AiohttpTransport) -> None:
    url = server.url + "/model/a%3Ab%2Fc/converse-stream?x=1%202&y=%E2%82%AC"
    await fetch(transport, post(url, '{"a":"é"}'.encode(), **{"X-Custom": "v", "user-agent": "me"}))
    (request,) = server.requests
    assert request.method == "POST"
    assert request.path == "/model/a%3Ab%2Fc/converse-stream?x=1%202&y=%E2%82%AC"
    assert request.body == '{"a":"é"}'.encode()
    assert request.headers["authorization"] == f"Bearer {KEY}"
    assert request.headers["content-type"] == "application/json"
    assert request.headers["x-custom"] == "v"
    assert request.headers["user-agent"] == "me"
    assert "gzip" in request.headers["accept-encoding"]
    assert "cookie" not in request.headers


async def test_it_names_itself(server: FaultServer, transport: AiohttpTransport) -> None:
    await fetch(transport, post(server.url + PATH))
    assert server.requests[0].headers["user-agent"].startswith("rejoinder/")


async def test_large_bodies(server: FaultServer, transport: AiohttpTransport) -> None:
    body = b"x" * (3 << 20)
    status, _ = await fetch(transport, post(server.url + PATH, body))
    assert status == 200
    assert server.requests[0].body == body
    assert server.requests[0].headers["content-length"] == str(len(body))


async def test_header_names_of_the_answer_are_lower_case(
    server: FaultServer, transport: AiohttpTransport
) -> None:
    server.script(Answer(text="Hello", headers={"X-Request-ID": "r1"}))
    async with await transport.send(post(server.url + PATH)) as response:
        assert response.headers["x-request-id"] == "r1"
        assert response.headers["content-type"].startswith("text/event-stream")


async def test_repeated_header_fields_are_joined(transport: AiohttpTransport) -> None:
    answer = b"HTTP/1.1 200 OK\r\nA: 1\r\na: 2\r\nContent-Length: 0\r\n\r\n"
    async with (
        listening(answering(answer)) as url,
        await transport.send(post(url)) as response,
    ):
        assert response.headers["a"] == "1, 2"


@pytest.mark.parametrize(
    "fault",
    [
        Fault.NONE, Fault.BYTE_DRIP, Fault.ONE_WRITE, Fault.GZIP, Fault.CONTENT_LENGTH,
        Fault.UNTIL_CLOSE,
    ],
)  # fmt: skip
async def test_every_kind_of_body(
    server: FaultServer, transport: AiohttpTransport, fault: Fault
) -> None:
    _, expected = await fetch(transport, post(server.url + PATH))
    server.script(fault)
    assert await fetch(transport, post(server.url + PATH)) == (200, expected)


async def test_deflate_with_and_without_its_header(transport: AiohttpTransport) -> None:
    for wbits in (15, -15):
        packer = zlib.compressobj(wbits=wbits)
        body = packer.compress(b"data: x\n\n" * 50) + packer.flush()
        head = (
            f"HTTP/1.1 200 OK\r\nContent-Encoding: deflate\r\nContent-Length: {len(body)}\r\n\r\n"
        )
        async with listening(answering(head.encode() + body)) as url:
            assert await fetch(transport, post(url)) == (200, b"data: x\n\n" * 50)


def packer(encoding: str) -> tuple[Callable[[bytes], bytes], Callable[[], bytes]]:
    """How to compress the next bytes so that they can be read at once, and the end."""
    if encoding == "br":
        brotli = pytest.importorskip("brotli")
        compressor = brotli.Compressor(quality=1)
        return lambda data: compressor.process(data) + compressor.flush(), compressor.finish
    stream = zlib.compressobj(wbits=31 if encoding == "gzip" else 15)
    return lambda data: stream.compress(data) + stream.flush(zlib.Z_SYNC_FLUSH), stream.flush


ENCODINGS = ["gzip", "deflate", "br"]


@pytest.mark.parametrize("encoding", ENCODINGS)
async def test_compressed_events_arrive_as_they_are_sent(
    transport: AiohttpTransport, encoding: str
) -> None:
    pack, _ = packer(encoding)
    said = asyncio.Event()

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        assert encoding.encode() in head.partition(b"Accept-Encoding: ")[2].partition(b"\r\n")[0]
        writer.write(
            f"HTTP/1.1 200 OK\r\nContent-Encoding: {encoding}\r\n"
            "Transfer-Encoding: chunked\r\n\r\n".encode()
        )
        for word in (b"one", b"two", b"three"):
            data = pack(b"data: " + word + b"\n\n")
            writer.write(b"%x\r\n%b\r\n" % (len(data), data))
            await said.wait()
            said.clear()

    async with (
        asyncio.timeout(20),
        listening(handle) as url,
        await transport.send(post(url)) as response,
    ):
        for word in (b"one", b"two", b"three"):
            assert await response.read_some() == b"data: " + word + b"\n\n"
            said.set()


@pytest.mark.parametrize("encoding", ENCODINGS)
async def test_a_compressed_body_that_ends_too_early_is_the_beginning_of_it(
    transport: AiohttpTransport, encoding: str
) -> None:
    """Nobody tells that it is not all: that is for the end mark of a stream."""
    pack, finish = packer(encoding)
    text = b"".join(b"data: %d\n\n" % number for number in range(200))
    body = pack(text[:1000]) + pack(text[1000:]) + finish()
    cut = body[: len(body) // 2]
    answer = (
        f"HTTP/1.1 200 OK\r\nContent-Encoding: {encoding}\r\nContent-Length: {len(cut)}\r\n\r\n"
    )
    got = b""
    told = "cut short"
    async with listening(answering(answer.encode() + cut)) as url:
        try:
            async with await transport.send(post(url)) as response:
                while data := await response.read_some():
                    got += data
        except APIConnectionError as error:
            told = error.message
    assert "cut short" in told
    assert text.startswith(got)
    assert len(got) < len(text)


@pytest.mark.parametrize("encoding", ENCODINGS)
async def test_a_body_that_is_small_only_on_the_wire(
    transport: AiohttpTransport, encoding: str
) -> None:
    pack, finish = packer(encoding)
    megabyte = bytes(1 << 20)
    body = b"".join(pack(megabyte) for _ in range(40)) + finish()
    answer = (
        f"HTTP/1.1 200 OK\r\nContent-Encoding: {encoding}\r\nContent-Length: {len(body)}\r\n\r\n"
    )
    assert len(body) < 1 << 20
    size = 0
    async with listening(answering(answer.encode() + body)) as url:
        with measure_memory() as use:
            async with await transport.send(post(url)) as response:
                while data := await response.read_some():
                    size += len(data)
                    assert len(data) <= 1 << 20
    assert size == 40 << 20
    assert use.peak < 16 << 20


async def test_events_arrive_as_they_are_sent(
    server: FaultServer, transport: AiohttpTransport
) -> None:
    server.script(Answer(fault=Fault.STALL_MID_STREAM, text=("one", "two"), after=1))
    async with asyncio.timeout(60), await transport.send(post(server.url + PATH)) as response:
        seen = b""
        while b"one" not in seen:
            seen += await response.read_some()
    await server.all_closed()


async def test_read_all_is_bounded(server: FaultServer, transport: AiohttpTransport) -> None:
    server.script(Fault.ENDLESS_ERROR_BODY)
    async with await transport.send(post(server.url + PATH)) as response:
        assert await response.read_all(100_001) == b"x" * 100_001


@pytest.mark.parametrize("fault", [Fault.ENDLESS_LINE, Fault.GZIP_BOMB])
async def test_a_slow_reader_of_an_endless_body_holds_little(
    server: FaultServer, transport: AiohttpTransport, fault: Fault
) -> None:
    server.script(fault)
    with measure_memory() as use:
        async with await transport.send(post(server.url + PATH)) as response:
            for _ in range(30):
                assert len(await response.read_some()) <= 1 << 20
                await asyncio.sleep(0.002)  # the server goes on sending meanwhile
    assert use.peak < 16 << 20


# -- connections ---------------------------------------------------------------------------------


async def test_connections_are_reused(server: FaultServer, transport: AiohttpTransport) -> None:
    for _ in range(3):
        await fetch(transport, post(server.url + PATH))
    assert server.connections == 1


async def test_prewarm_opens_the_connection_that_is_used_later(
    server: FaultServer, transport: AiohttpTransport
) -> None:
    await transport.prewarm(server.url + PATH + "?key=" + KEY)
    assert (server.warmups, server.connections, len(server.requests)) == (1, 1, 0)
    await fetch(transport, post(server.url + PATH))
    assert server.connections == 1


async def test_prewarm_swallows_errors(transport: AiohttpTransport) -> None:
    await transport.prewarm("http://127.0.0.1:1/", timeout=1)
    await transport.prewarm("nonsense")

    async def silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()

    async with listening(silent) as url:
        await transport.prewarm(url, timeout=0.02)


async def test_a_body_that_ends_a_moment_later_keeps_its_connection(
    server: FaultServer, transport: AiohttpTransport
) -> None:
    """As providers do: the end mark in one packet, the end of the chunked body in the next."""
    go_on = asyncio.Event()

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            await reader.readuntil(b"\r\n\r\n")
            await reader.readexactly(2)
            writer.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\ndone\r\n")
            await writer.drain()
            await go_on.wait()
            go_on.clear()
            writer.write(b"0\r\n\r\n")
            seen.append(writer)

    seen: list[asyncio.StreamWriter] = []
    async with listening(handle) as url:
        for _ in range(2):
            async with await transport.send(post(url)) as response:
                assert await response.read_some() == b"done"
            go_on.set()
            await asyncio.sleep(0.05)
        assert len(seen) == 2
        assert len(set(seen)) == 1


async def test_a_body_that_does_not_end_is_dropped_soon(
    server: FaultServer, transport: AiohttpTransport
) -> None:
    server.script(Fault.HANG_AFTER_END)
    async with await transport.send(post(server.url + PATH)) as response:
        while b"[DONE]" not in await response.read_some():
            pass
    await server.all_closed()


async def test_leaving_by_an_error_closes_the_connection_at_once(
    server: FaultServer, transport: AiohttpTransport
) -> None:
    server.script(Fault.STALL_MID_STREAM)

    async def fail() -> None:
        async with await transport.send(post(server.url + PATH)) as response:
            await response.read_some()
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        await fail()
    with stopped_clock():
        await server.all_closed()


STALLS = [
    Fault.STALL_BEFORE_HEADERS, Fault.STALL_BEFORE_OUTPUT, Fault.STALL_MID_STREAM,
    Fault.KEEP_ALIVES_FOR_EVER, Fault.ENDLESS_LINE,
]  # fmt: skip


@pytest.mark.parametrize("secure", [False, True], ids=["http", "https"])
@pytest.mark.parametrize("fault", STALLS)
async def test_cancelling_frees_everything_at_once(
    fault: Fault, secure: bool, tls: ssl.SSLContext
) -> None:
    async with no_leaks(), FaultServer(ssl=tls if secure else None) as server:
        transport = AiohttpTransport(ssl=False)
        server.script(fault)
        task = asyncio.create_task(fetch(transport, post(server.url + PATH)))
        await asyncio.sleep(0.05)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        with stopped_clock():
            await transport.aclose()
        await server.all_closed()


@pytest.mark.parametrize("secure", [False, True], ids=["http", "https"])
@pytest.mark.parametrize("fault", STALLS)
async def test_aclose_ends_what_still_runs(fault: Fault, secure: bool, tls: ssl.SSLContext) -> None:
    async with no_leaks(), FaultServer(ssl=tls if secure else None) as server:
        transport = AiohttpTransport(ssl=False)
        server.script(fault)
        task = asyncio.create_task(fetch(transport, post(server.url + PATH)))
        await asyncio.sleep(0.05)
        with stopped_clock():
            await transport.aclose()
            with pytest.raises(APIConnectionError):
                await task


@pytest.mark.parametrize("secure", [False, True], ids=["http", "https"])
async def test_cancelling_while_the_server_does_not_take_the_request(
    secure: bool, tls: ssl.SSLContext
) -> None:
    """What is unsent must not keep the socket, nor must a peer that answers no farewell."""
    asked = asyncio.Event()
    over = asyncio.Event()

    async def deaf(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(10)
        writer.transport.pause_reading()
        asked.set()
        await over.wait()

    async with listening(deaf, tls if secure else None) as url, no_leaks():
        transport = AiohttpTransport(ssl=False)
        before = len(os.listdir("/proc/self/fd")) if os.path.exists("/proc/self/fd") else 0
        task = asyncio.create_task(fetch(transport, post(url, b"x" * (30 << 20))))
        await asked.wait()
        await asyncio.sleep(0.02)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await asyncio.sleep(0.02)
        if before:  # only the server's side of the connection is left
            assert len(os.listdir("/proc/self/fd")) == before + 1
        await transport.aclose()
        over.set()


async def test_aclose_is_idempotent_and_final(server: FaultServer) -> None:
    transport = AiohttpTransport()
    await fetch(transport, post(server.url + PATH))
    await transport.aclose()
    await transport.aclose()
    with pytest.raises(APIConnectionError, match="closed") as caught:
        await transport.send(post(server.url + PATH))
    assert not caught.value.retryable


@pytest.mark.looptime
async def test_aclose_while_connecting(server: FaultServer) -> None:
    async def mute(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await asyncio.Event().wait()

    async with no_leaks(), listening(mute) as url, asyncio.timeout(3):
        transport = AiohttpTransport()
        request = Request("POST", url.replace("http:", "https:"), {}, b"", connect_timeout=0.3)
        task = asyncio.create_task(transport.send(request))
        await asyncio.sleep(0.05)
        await transport.aclose()
        with pytest.raises(APIConnectionError):
            await task


async def test_different_connect_limits_are_kept_apart(
    server: FaultServer, transport: AiohttpTransport
) -> None:
    for number in range(100):
        request = Request("POST", server.url + PATH, {}, b"{}", connect_timeout=10 + number)
        assert (await fetch(transport, request))[0] == 200
    assert len(transport._timeouts) <= 64


async def test_a_connection_the_server_closed_is_not_picked(transport: AiohttpTransport) -> None:
    async with listening(
        answering(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok", close=True)
    ) as url:
        for _ in range(3):
            assert await fetch(transport, post(url)) == (200, b"ok")
            await asyncio.sleep(0.01)


async def test_a_request_is_not_sent_twice(transport: AiohttpTransport) -> None:
    """A connection that dies with the request may have carried it to where it was acted on."""
    arrived: list[bytes] = []

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        arrived.append(await reader.readuntil(b"\r\n\r\n"))
        if len(arrived) == 1:
            await reader.readexactly(2)
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
            arrived.append(await reader.readuntil(b"\r\n\r\n"))

    async with listening(handle) as url:
        assert await fetch(transport, post(url)) == (200, b"ok")
        with pytest.raises(APIConnectionError) as caught:
            await fetch(transport, post(url))
        assert caught.value.retryable
        assert len(arrived) == 2


async def test_many_requests_at_once_are_not_queued(
    server: FaultServer, transport: AiohttpTransport
) -> None:
    server.always(Fault.STALL_BEFORE_OUTPUT)
    async with asyncio.timeout(10):
        responses = await asyncio.gather(
            *(transport.send(post(server.url + PATH)) for _ in range(150))
        )
    assert len(responses) == 150


# -- loops, threads, processes -------------------------------------------------------------------


@pytest.mark.may_block
def test_one_transport_on_loops_one_after_the_other_and_nobody_closes_it(
    recwarn: pytest.WarningsRecorder, caplog: pytest.LogCaptureFixture
) -> None:
    transport = AiohttpTransport()

    async def once(transport: AiohttpTransport) -> int:
        async with FaultServer() as server:
            status, _ = await fetch(transport, post(server.url + PATH))
            return status

    assert [asyncio.run(once(transport)) for _ in range(3)] == [200] * 3
    assert not transport._pools
    del transport
    gc.collect()
    assert not recwarn.list
    assert not caplog.records


@pytest.mark.may_block
@pytest.mark.filterwarnings("ignore:unclosed (transport|event loop|<socket):ResourceWarning")
def test_loops_that_end_without_closing_anything(caplog: pytest.LogCaptureFixture) -> None:
    """Their sockets are lost, as asyncio says; the transport goes on, and says nothing itself."""
    transport = AiohttpTransport()
    server = FaultServer()

    async def once(transport: AiohttpTransport) -> int:
        status, _ = await fetch(transport, post(server.url + PATH))
        return status

    with asyncio.Runner() as home:
        home.run(server.start())

        async def both(shared: AiohttpTransport) -> list[int]:
            def elsewhere(transport: AiohttpTransport) -> int:
                loop = asyncio.new_event_loop()
                try:
                    return loop.run_until_complete(once(transport))
                finally:
                    loop.close()

            return [await asyncio.to_thread(elsewhere, shared) for _ in range(3)]

        assert home.run(both(transport)) == [200] * 3
        assert len(transport._pools) == 1
        home.run(transport.aclose())
        assert not transport._pools
        del transport
        gc.collect()
        home.run(server.aclose())
    assert not caplog.records


async def test_a_forgotten_transport_closes_its_connections(
    server: FaultServer, recwarn: pytest.WarningsRecorder, caplog: pytest.LogCaptureFixture
) -> None:
    transport = AiohttpTransport()
    await fetch(transport, post(server.url + PATH))
    del transport
    gc.collect()
    with stopped_clock():
        await server.all_closed()
    assert not recwarn.list
    assert not caplog.records


@pytest.mark.may_block
def test_one_transport_on_loops_at_the_same_time() -> None:
    transport = AiohttpTransport()
    errors: list[BaseException] = []

    async def work() -> None:
        async with FaultServer() as server:
            results = await asyncio.gather(
                *(fetch(transport, post(server.url + PATH)) for _ in range(10))
            )
            assert [status for status, _ in results] == [200] * 10

    def run() -> None:
        try:
            for _ in range(3):
                asyncio.run(work())
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=run) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert not errors


async def test_aclose_reaches_a_loop_in_another_thread(server: FaultServer) -> None:
    transport = AiohttpTransport()
    used, stop = threading.Event(), threading.Event()

    async def elsewhere() -> None:
        await fetch(transport, post(server.url + PATH))
        used.set()
        while not stop.is_set():
            await asyncio.sleep(0.005)

    thread = threading.Thread(target=lambda: asyncio.run(elsewhere()))
    thread.start()
    try:
        await asyncio.to_thread(used.wait, 5)
        assert server.open_connections == 1
        await transport.aclose()
        with stopped_clock():
            await server.all_closed()
    finally:
        stop.set()
        await asyncio.to_thread(thread.join, 5)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="the system cannot fork")
@pytest.mark.may_block
def test_parent_and_child_of_a_fork_both_go_on() -> None:
    """In a process of its own: the parent keeps its pooled connection, the child makes another."""
    script = textwrap.dedent(
        """
        import asyncio, gc, os, sys
        from rejoinder.testing.faults import FaultServer
        from rejoinder.transport._aiohttp import AiohttpTransport
        from rejoinder.transport.http import Request

        transport = AiohttpTransport()

        async def ask(url):
            async with await transport.send(Request("POST", url, {}, b"{}")) as response:
                while await response.read_some():
                    pass
                return response.status

        def child(url):
            assert asyncio.run(ask(url)) == 200
            assert asyncio.run(ask(url)) == 200
            gc.collect()

        async def main():
            async with FaultServer() as server:
                url = server.url + "/v1/chat/completions"
                assert await ask(url) == 200
                assert server.connections == 1
                pid = os.fork()
                if pid == 0:
                    code = 1
                    try:
                        import threading
                        # The loop of the parent is not this process's to run: use another thread.
                        thread = threading.Thread(target=child, args=(url,))
                        thread.start(); thread.join(10)
                        code = 0 if not thread.is_alive() else 2
                    finally:
                        os._exit(code)
                while True:
                    done, status = os.waitpid(pid, os.WNOHANG)
                    if done:
                        break
                    await asyncio.sleep(0.01)
                assert os.waitstatus_to_exitcode(status) == 0, status
                before = server.connections
                assert before == 3, before
                assert await ask(url) == 200
                assert server.connections == before, "the parent lost its pooled connection"
            await transport.aclose()
            print("both went on")

        asyncio.run(main())
        """
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, timeout=40, check=False
    )
    assert done.stdout.strip() == "both went on", done.stderr


@pytest.mark.skipif(not hasattr(os, "fork"), reason="the system cannot fork")
@pytest.mark.may_block
def test_a_child_that_goes_on_with_the_same_loop() -> None:
    """Its pool is not that of the parent, and letting that one go does not harm the parent."""
    script = textwrap.dedent(
        """
        import asyncio, gc, os, threading
        from rejoinder.testing.faults import FaultServer
        from rejoinder.transport._aiohttp import AiohttpTransport
        from rejoinder.transport.http import Request

        transport = AiohttpTransport()
        server = FaultServer()
        ready, over = threading.Event(), threading.Event()

        async def serve():
            await server.start()
            ready.set()
            while not over.is_set():
                await asyncio.sleep(0.01)
            await server.aclose()

        async def ask():
            async with asyncio.timeout(60):
                url = server.url + "/v1/chat/completions"
                async with await transport.send(Request("POST", url, {}, b"{}")) as response:
                    while await response.read_some():
                        pass
                    return response.status

        thread = threading.Thread(target=lambda: asyncio.run(serve()))
        thread.start()
        ready.wait(5)
        loop = asyncio.new_event_loop()
        assert loop.run_until_complete(ask()) == 200
        assert server.connections == 1
        pid = os.fork()
        if pid == 0:
            code = 1
            try:
                assert loop.run_until_complete(ask()) == 200
                gc.collect()
                loop.run_until_complete(asyncio.sleep(0.05))
                code = 0
            finally:
                os._exit(code)
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
        assert server.connections == 2, server.connections
        assert loop.run_until_complete(ask()) == 200
        assert server.connections == 2, "the parent lost its pooled connection"
        loop.run_until_complete(transport.aclose())
        loop.close()
        over.set()
        thread.join(5)
        print("both went on")
        """
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, timeout=40, check=False
    )
    assert done.stdout.strip() == "both went on", done.stderr


# -- a session of the user's own -----------------------------------------------------------------


async def test_a_given_session_is_used_and_left_open(server: FaultServer) -> None:
    async with aiohttp.ClientSession(headers={"X-Mine": "yes"}) as session:
        transport = AiohttpTransport(session)
        status, _ = await fetch(transport, post(server.url + PATH))
        assert status == 200
        assert server.requests[0].headers["x-mine"] == "yes"
        await transport.aclose()
        assert not session.closed


async def test_the_timeouts_of_a_given_session_do_not_cut_a_stream(server: FaultServer) -> None:
    timeout = aiohttp.ClientTimeout(total=0.05)
    async with aiohttp.ClientSession(timeout=timeout) as session:
        transport = AiohttpTransport(session)
        server.script(Fault.KEEP_ALIVES_FOR_EVER)
        async with await transport.send(post(server.url + PATH)) as response:
            loop = asyncio.get_running_loop()
            deadline = loop.time() + 2 * 0.05
            while loop.time() < deadline:
                assert await response.read_some()


def test_a_given_session_that_is_closed_before_a_stream_ends_leaves_nothing() -> None:
    async def main() -> None:
        async with FaultServer() as server:
            server.script(Fault.KEEP_ALIVES_FOR_EVER)
            async with (
                aiohttp.ClientSession() as session,
                await AiohttpTransport(session).send(post(server.url + PATH)) as answer,
            ):
                assert await answer.read_some()

    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        asyncio.run(main())
        gc.collect()
    assert [str(warning.message) for warning in caught] == []


async def test_raise_for_status_of_a_given_session_is_not_used(server: FaultServer) -> None:
    async with aiohttp.ClientSession(raise_for_status=True) as session:
        server.script(Fault.STATUS_429)
        status, _ = await fetch(AiohttpTransport(session), post(server.url + PATH))
        assert status == 429


async def test_a_given_session_that_was_closed(server: FaultServer) -> None:
    session = aiohttp.ClientSession()
    await session.close()
    with pytest.raises(ConfigurationError, match="ClientSession is closed"):
        await AiohttpTransport(session).send(post(server.url + PATH))


@pytest.mark.may_block
def test_a_given_session_on_another_loop() -> None:
    async def make() -> aiohttp.ClientSession:
        return aiohttp.ClientSession()

    async def use(transport: AiohttpTransport) -> None:
        with pytest.raises(ConfigurationError, match="another event loop"):
            await transport.send(post("http://127.0.0.1:1/"))

    with asyncio.Runner() as first:
        session = first.run(make())
        with asyncio.Runner() as second:
            second.run(use(AiohttpTransport(session)))
        first.run(session.close())


# -- credentials ---------------------------------------------------------------------------------


@pytest.fixture
def netrc(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "netrc"
    path.write_text("machine 127.0.0.1 login me password from-netrc\ndefault login a password b\n")
    path.chmod(0o600)
    monkeypatch.setenv("NETRC", str(path))


@pytest.mark.usefixtures("netrc")
async def test_netrc_is_never_read(server: FaultServer, transport: AiohttpTransport) -> None:
    await fetch(transport, Request("POST", server.url + PATH, {}, b"{}"))
    assert "authorization" not in server.requests[0].headers


@pytest.mark.usefixtures("netrc")
async def test_a_given_session_that_reads_netrc_is_told_apart(server: FaultServer) -> None:
    async with aiohttp.ClientSession(trust_env=True) as session:
        with pytest.raises(ConfigurationError, match="netrc") as caught:
            await AiohttpTransport(session).send(post(server.url + PATH))
    assert "from-netrc" not in str(caught.value)


@pytest.mark.parametrize(
    ("value", "says"),
    [
        (f"Bearer {KEY}\n", "line break"),
        (f"Bearer {KEY}\r\nX-Evil: 1", "line break"),
        (f"Bearer {KEY}é", "outside of ASCII"),
        (f"Bearer {KEY}\u200b", "outside of ASCII"),
        (f"Bearer {KEY}\x00", "control character"),
        (f"Bearer {KEY}\x7f", "control character"),
    ],
)
async def test_header_values_that_cannot_be_sent(
    server: FaultServer, transport: AiohttpTransport, value: str, says: str
) -> None:
    with pytest.raises(ConfigurationError, match=says) as caught:
        await transport.send(post(server.url + PATH, Authorization=value))
    assert "'Authorization'" in str(caught.value)
    assert "canary" not in repr(caught.value)
    assert not server.requests


@pytest.mark.parametrize("name", ["a b", "a\n", "", "é", "a:"])
async def test_header_names_that_cannot_be_sent(transport: AiohttpTransport, name: str) -> None:
    with pytest.raises(ConfigurationError, match="not a name"):
        await transport.send(Request("POST", "http://127.0.0.1:1/", {name: "x"}))


async def test_a_header_value_of_a_wrong_type(transport: AiohttpTransport) -> None:
    headers: dict[str, str] = {"x-api-key": None}  # type: ignore[dict-item]
    with pytest.raises(ConfigurationError, match="expected str, got NoneType"):
        await transport.send(Request("POST", "http://127.0.0.1:1/", headers))


async def test_tabs_are_allowed(server: FaultServer, transport: AiohttpTransport) -> None:
    await fetch(transport, post(server.url + PATH, **{"X-A": "a\tb"}))
    assert server.requests[0].headers["x-a"] == "a\tb"


@pytest.mark.parametrize(
    "url",
    [
        "", "nonsense", "ftp://host/", "https://", "http:///path", "https://host:port/",
        "https://host:99999/", "https://ho st/", "https://host/\n", "//host/v1", "https://[::1/",
    ],
)  # fmt: skip
async def test_urls_that_cannot_be_requested(transport: AiohttpTransport, url: str) -> None:
    with pytest.raises(ConfigurationError):
        await transport.send(post(f"{url}?key={KEY}" if url else url))


async def test_the_query_and_user_of_a_url_are_not_shown(transport: AiohttpTransport) -> None:
    for url in (f"ftp://me:{KEY}@host/?key={KEY}", f"http://127.0.0.1:1/?key={KEY}"):
        with pytest.raises((ConfigurationError, APIConnectionError)) as caught:
            await transport.send(Request("POST", url))
        assert_no_canary(caught.value)


async def test_a_user_in_the_url_and_a_key(transport: AiohttpTransport) -> None:
    with pytest.raises(ConfigurationError, match="remove one of them"):
        await transport.send(post("http://me:secret@127.0.0.1:1/"))


async def test_a_user_in_the_url_is_sent(server: FaultServer, transport: AiohttpTransport) -> None:
    url = server.url.replace("//", "//me:secret@") + PATH
    await fetch(transport, Request("POST", url, {}, b"{}"))
    assert server.requests[0].headers["authorization"] == "Basic bWU6c2VjcmV0"


def assert_no_canary(error: BaseException | None, canary: str = KEY) -> None:
    """In nothing that an error shows or refers to (frames of a traceback excepted)."""
    seen: set[int] = set()
    todo = [error]
    while todo:
        error = todo.pop()
        if error is None or id(error) in seen:
            continue
        seen.add(id(error))
        assert canary not in str(error)
        assert canary not in repr(error)
        assert canary not in repr(error.args)
        assert canary not in repr(getattr(error, "__dict__", {}))
        todo += [error.__cause__, error.__context__]


@pytest.mark.parametrize(
    "fault",
    [
        Fault.CLOSE_BEFORE_HEADERS, Fault.RESET_BEFORE_HEADERS, Fault.RESET_MID_STREAM,
        Fault.CUT_CHUNKED_BODY, Fault.NOT_HTTP, Fault.REDIRECT_LOOP,
    ],
)  # fmt: skip
async def test_errors_hold_no_credentials(
    server: FaultServer, transport: AiohttpTransport, fault: Fault
) -> None:
    server.script(fault)
    url = f"{server.url}{PATH}?key={KEY}"
    with pytest.raises((APIConnectionError, WireError, APIStatusError)) as caught:
        await fetch(transport, post(url, **{"x-api-key": KEY}))
    assert_no_canary(caught.value)


def foreign_error(kind: type[Exception]) -> Exception:
    """An error of aiohttp as it makes them itself, with all that it knows of a request."""
    address = URL(f"http://me:{KEY}@host/?key={KEY}")
    fields = CIMultiDictProxy(CIMultiDict({"Authorization": f"Bearer {KEY}"}))
    key = ConnectionKey("host", 1, False, True, None, None, None)
    arguments: dict[type[Exception], tuple[Any, ...]] = {
        client_exceptions.UnixClientConnectorError: ("/path", key, OSError(1, "x")),
        aiohttp.ClientConnectorCertificateError: (key, ssl.CertificateError("x")),
        aiohttp.ClientConnectorError: (key, OSError(1, "x")),
        aiohttp.ClientResponseError: (aiohttp.RequestInfo(address, "POST", fields, address), ()),
        aiohttp.ServerFingerprintMismatch: (b"a", b"b", "host", 1),
        aiohttp.InvalidURL: (address,),
        aiohttp.ClientOSError: (1, "x"),
        LineTooLong: (KEY, 1),
    }
    for known, found in arguments.items():
        if issubclass(kind, known):
            return kind(*found)
    if issubclass(kind, HttpProcessingError) and kind.__init__ is HttpProcessingError.__init__:
        return kind(message=KEY)
    return kind(KEY)


@pytest.mark.parametrize(
    "kind",
    [
        kind
        for module in (client_exceptions, http_exceptions)
        for kind in vars(module).values()
        if isinstance(kind, type)
        and issubclass(kind, aiohttp.ClientError | HttpProcessingError)
        and kind.__module__ == module.__name__
    ],
    ids=lambda kind: kind.__name__,
)
async def test_every_error_of_aiohttp_becomes_ours(kind: type[Exception]) -> None:
    async def fail(*_: object) -> None:
        raise foreign_error(kind)

    trace = aiohttp.TraceConfig()
    trace.on_request_start.append(fail)
    async with aiohttp.ClientSession(trace_configs=[trace]) as session:
        with pytest.raises((APIError, ConfigurationError)) as caught:
            await AiohttpTransport(session).send(post("http://127.0.0.1:1/"))
    assert len(str(caught.value)) > 20
    assert_no_canary(caught.value)
    if issubclass(kind, TimeoutError):
        assert isinstance(caught.value, APITimeoutError)


@pytest.mark.parametrize(
    "answer",
    [
        b"HTTP/1.1 200 OK\r\nYour Key: Bearer %b\r\n\r\n",
        b"You said Bearer %b\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n%b\r\nhello\r\n",
        b"HTTP/1.1 307 X\r\nLocation: https://%b.invalid/\r\nContent-Length: 0\r\n\r\n",
    ],
    ids=["header", "status line", "chunk", "host"],
)
async def test_a_key_that_a_server_repeats_is_not_quoted(
    transport: AiohttpTransport, answer: bytes
) -> None:
    async with listening(answering(answer.replace(b"%b", KEY.encode()))) as url:
        with pytest.raises((APIConnectionError, WireError)) as caught:
            await fetch(transport, post(url))
    assert_no_canary(caught.value)


async def test_a_request_does_not_show_its_headers() -> None:
    assert repr(post(f"http://me:{KEY}@host/v1?key={KEY}", KEY.encode())) == (
        "Request('POST', 'http://...@host/v1')"
    )


# -- redirects -----------------------------------------------------------------------------------


def redirecting(status: int, location: str) -> bytes:
    return (
        f"HTTP/1.1 {status} Moved\r\nLocation: {location}\r\nContent-Length: 0\r\n\r\n"
    ).encode()


@pytest.mark.parametrize("status", [307, 308])
async def test_a_redirect_to_the_same_origin_keeps_everything(
    transport: AiohttpTransport, status: int
) -> None:
    seen: list[bytes] = []

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            head = await reader.readuntil(b"\r\n\r\n")
            seen.append(head + await reader.readexactly(2))
            if head.startswith(b"POST /there "):
                writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
            else:
                writer.write(redirecting(status, "/there"))

    async with listening(handle) as url:
        assert await fetch(transport, post(url + "/here")) == (200, b"ok")
    assert KEY.encode() in seen[1]
    assert seen[1].endswith(b"{}")


async def test_a_redirect_to_another_origin_takes_no_key(
    server: FaultServer, transport: AiohttpTransport
) -> None:
    server.script(Fault.REDIRECT_AWAY)
    secrets = {
        "Authorization": f"Bearer {KEY}", "x-api-key": KEY, "api-key": KEY, "X-Goog-Api-Key": KEY,
        "X-Amz-Security-Token": KEY, "Cookie": KEY, "OpenAI-Organization": KEY,
    }  # fmt: skip
    status, body = await fetch(
        transport,
        post(f"{server.url}{PATH}?key={KEY}", **{**secrets, "Accept": "text/event-stream"}),
    )
    assert status == 200
    assert b"[DONE]" in body
    (request,) = server.elsewhere.requests
    assert request.body == b"{}"
    assert request.headers["accept"] == "text/event-stream"
    assert request.headers["content-type"] == "application/json"
    # The address is the one the server named: what it repeats of ours is its own doing.
    assert KEY not in repr(request.headers) + str(dict(request.headers))


async def test_a_key_does_not_come_back_after_a_detour(
    server: FaultServer, transport: AiohttpTransport
) -> None:
    """There and back again: whoever is redirected to from elsewhere gets no key, not even we."""

    async with (
        listening(answering(redirecting(307, server.url + PATH))) as detour,
        listening(answering(redirecting(307, detour))) as start,
    ):
        status, _ = await fetch(transport, post(start))
    assert status == 200
    assert "authorization" not in server.requests[0].headers


@pytest.mark.parametrize(
    "options",
    [
        {"headers": {"Authorization": f"Bearer {KEY}"}},
        {"headers": {"X-Mine": KEY}},
        {},
    ],
    ids=["authorization", "other", "auth"],
)
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
async def test_what_a_given_session_adds_goes_to_no_other_origin(
    server: FaultServer, options: dict[str, Any]
) -> None:
    server.script(Fault.REDIRECT_AWAY)
    options = options or {"auth": aiohttp.BasicAuth("me", KEY)}  # deprecated, and still there
    async with aiohttp.ClientSession(**options) as session:
        with pytest.raises(APIStatusError, match="would send its own header fields") as caught:
            await AiohttpTransport(session).send(Request("POST", server.url + PATH, {}, b"{}"))
    assert not server.elsewhere.requests
    assert not caught.value.retryable
    assert_no_canary(caught.value)


async def test_a_given_session_that_adds_nothing_secret_is_led_on(server: FaultServer) -> None:
    server.script(Fault.REDIRECT_AWAY)
    async with aiohttp.ClientSession(headers={"User-Agent": "mine"}) as session:
        status, _ = await fetch(AiohttpTransport(session), post(server.url + PATH))
    assert status == 200
    (request,) = server.elsewhere.requests
    assert request.headers["user-agent"] == "mine"
    assert KEY not in str(dict(request.headers))


@pytest.mark.parametrize("status", [301, 302, 303])
async def test_redirects_that_would_lose_the_body(transport: AiohttpTransport, status: int) -> None:
    async with listening(answering(redirecting(status, "https://elsewhere.test/x?key=1"))) as url:
        with pytest.raises(APIStatusError, match=r"https://elsewhere\.test, which") as caught:
            await transport.send(post(url))
    assert caught.value.status_code == status
    assert not caught.value.retryable


@pytest.mark.parametrize(
    "location", ["ftp://host/", "http://[", "http://user:pw@127.0.0.1/", "https://", "javascript:1"]
)
async def test_redirects_to_nowhere(transport: AiohttpTransport, location: str) -> None:
    async with listening(answering(redirecting(307, location))) as url:
        with pytest.raises(APIStatusError, match="cannot be used"):
            await transport.send(post(url))


async def test_a_redirect_from_https_to_http(tls: ssl.SSLContext, server: FaultServer) -> None:
    transport = AiohttpTransport(ssl=False)
    async with listening(answering(redirecting(308, server.url)), tls) as url:
        with pytest.raises(APIStatusError, match="not encrypted"):
            await transport.send(post(url))
        await transport.aclose()
    assert not server.requests


async def test_a_redirect_without_a_target_is_an_answer(transport: AiohttpTransport) -> None:
    async with listening(answering(b"HTTP/1.1 307 X\r\nContent-Length: 2\r\n\r\nno")) as url:
        assert await fetch(transport, post(url)) == (307, b"no")


async def test_endless_redirects(server: FaultServer, transport: AiohttpTransport) -> None:
    server.script(Fault.REDIRECT_LOOP)
    with pytest.raises(APIStatusError, match="more than 5 redirects") as caught:
        await transport.send(post(server.url + PATH))
    assert not caught.value.retryable
    assert len(server.requests) == 6


# -- proxies -------------------------------------------------------------------------------------


@asynccontextmanager
async def proxy_server(
    answer: bytes = b"", *, target: int | None = None
) -> AsyncIterator[tuple[str, list[bytes]]]:
    """Answers each request with `answer`, or opens tunnels to the local port `target`."""
    heads: list[bytes] = []

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        heads.append(head)
        if answer or target is None:
            writer.write(answer)
            await writer.drain()
            await reader.read()
            return
        far_reader, far_writer = await asyncio.open_connection("127.0.0.1", target)
        writer.write(b"HTTP/1.1 200 Connected\r\n\r\n")

        async def pump(source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
            while data := await source.read(65536):
                sink.write(data)
            sink.close()

        try:
            await asyncio.gather(pump(reader, far_writer), pump(far_reader, writer))
        finally:
            far_writer.transport.abort()

    async with listening(handle) as url:
        yield url, heads


OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"


@pytest.mark.parametrize("name", ["http_proxy", "HTTP_PROXY", "all_proxy"])
async def test_a_proxy_from_the_environment(
    monkeypatch: pytest.MonkeyPatch, transport: AiohttpTransport, name: str
) -> None:
    async with proxy_server(OK) as (url, heads):
        monkeypatch.setenv(name, url.replace("//", "//me:pass%20word@"))
        assert await fetch(transport, post("http://model.test/v1/x")) == (200, b"ok")
    assert heads[0].startswith(b"POST http://model.test/v1/x HTTP/1.1\r\n")
    assert b"Proxy-Authorization: Basic bWU6cGFzcyB3b3Jk\r\n" in heads[0]


async def test_no_proxy(
    monkeypatch: pytest.MonkeyPatch, server: FaultServer, transport: AiohttpTransport
) -> None:
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:1")
    monkeypatch.setenv("no_proxy", "localhost,127.0.0.1")
    status, _ = await fetch(transport, post(server.url + PATH))
    assert status == 200


async def test_the_environment_can_be_ignored(
    monkeypatch: pytest.MonkeyPatch, server: FaultServer
) -> None:
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:1")
    transport = AiohttpTransport(trust_env=False)
    status, _ = await fetch(transport, post(server.url + PATH))
    assert status == 200
    await transport.aclose()


async def test_a_tunnel_shows_the_proxy_no_key(tls: ssl.SSLContext) -> None:
    async with FaultServer(ssl=tls) as server:
        port = int(server.url.rpartition(":")[2])
        async with proxy_server(target=port) as (url, heads):
            proxy = url.replace("//", "//me:secret@")
            transport = AiohttpTransport(ssl=False, proxy=proxy)
            status, _ = await fetch(transport, post(server.url + PATH))
            await transport.aclose()
        assert status == 200
        assert "proxy-authorization" not in server.requests[0].headers
    assert heads[0].startswith(f"CONNECT 127.0.0.1:{port} ".encode())
    assert b"Proxy-Authorization: Basic bWU6c2VjcmV0\r\n" in heads[0]
    assert KEY.encode() not in b"".join(heads)


@pytest.mark.parametrize(("status", "retryable"), [(407, False), (403, False), (502, True)])
async def test_a_proxy_that_refuses(status: int, retryable: bool) -> None:
    answer = f"HTTP/1.1 {status} No\r\nContent-Length: 0\r\n\r\n".encode()
    async with proxy_server(answer) as (url, _):
        transport = AiohttpTransport(proxy=url.replace("//", f"//me:{KEY}@"))
        with pytest.raises(APIConnectionError, match=f"answered {status}") as caught:
            await transport.send(post("https://model.test/"))
        await transport.aclose()
    assert caught.value.retryable is retryable
    assert_no_canary(caught.value)


async def test_a_failure_behind_a_proxy_does_not_show_its_password(tls: ssl.SSLContext) -> None:
    async with FaultServer(ssl=tls) as server:
        port = int(server.url.rpartition(":")[2])
        async with proxy_server(target=port) as (url, _):
            transport = AiohttpTransport(proxy=url.replace("//", f"//me:{KEY}@"))
            with pytest.raises(APIConnectionError, match="not trusted") as caught:
                await transport.send(post(server.url + PATH))
            await transport.aclose()
    assert_no_canary(caught.value)


async def test_a_proxy_that_is_not_there() -> None:
    transport = AiohttpTransport(proxy=f"http://me:{KEY}@127.0.0.1:1")
    with pytest.raises(APIConnectionError, match="cannot connect to the proxy") as caught:
        await transport.send(post("https://model.test/"))
    assert_no_canary(caught.value)
    await transport.aclose()


async def test_a_proxy_without_a_scheme(monkeypatch: pytest.MonkeyPatch) -> None:
    async with proxy_server(OK) as (url, heads):
        monkeypatch.setenv("http_proxy", url.removeprefix("http://"))
        transport = AiohttpTransport()
        assert await fetch(transport, post("http://model.test/")) == (200, b"ok")
        await transport.aclose()
    assert len(heads) == 1


@pytest.mark.parametrize("proxy", ["", "http://", "http://[", "ftp://host"])
def test_proxies_that_are_none(proxy: str) -> None:
    with pytest.raises(ConfigurationError, match="the proxy in proxy cannot be used"):
        AiohttpTransport(proxy=proxy)


async def test_proxies_that_are_not_supported(
    monkeypatch: pytest.MonkeyPatch, transport: AiohttpTransport
) -> None:
    with pytest.raises(ConfigurationError, match="scheme 'socks5'"):
        AiohttpTransport(proxy="socks5://127.0.0.1:1")
    monkeypatch.setenv("all_proxy", f"socks5://me:{KEY}@127.0.0.1:1")
    with pytest.raises(ConfigurationError, match="ALL_PROXY") as caught:
        await transport.send(post("https://model.test/"))
    assert_no_canary(caught.value)


# -- TLS -----------------------------------------------------------------------------------------


async def test_a_certificate_nobody_knows(tls: ssl.SSLContext, transport: AiohttpTransport) -> None:
    async with FaultServer(ssl=tls) as server:
        with pytest.raises(APIConnectionError, match="not trusted") as caught:
            await transport.send(post(server.url + PATH))
    assert not caught.value.retryable
    assert isinstance(caught.value.__cause__, aiohttp.ClientError)
    assert "self" in str(caught.value)  # OpenSSL says why


async def test_authorities_of_ones_own(tls: ssl.SSLContext, certificate: Path) -> None:
    context = ssl.create_default_context(cafile=certificate)
    async with FaultServer(ssl=tls) as server:
        for option in (str(certificate), context, False):
            transport = AiohttpTransport(ssl=option)
            status, _ = await fetch(transport, post(server.url + PATH))
            assert status == 200
            await transport.aclose()


@pytest.mark.parametrize(
    ("days", "name", "problem"),
    [(-1, "127.0.0.1", "has expired"), (1, "other.test", "not valid for '127.0.0.1'")],
)
async def test_a_certificate_that_only_the_server_can_mend(
    tmp_path: Path, days: int, name: str, problem: str
) -> None:
    path = make_certificate(tmp_path / "made.pem", name, days=days)
    transport = AiohttpTransport(ssl=str(path))
    async with FaultServer(ssl=server_context(path)) as server:
        with pytest.raises(APIConnectionError) as caught:
            await transport.send(post(server.url + PATH))
        await transport.aclose()
    assert problem in caught.value.message
    assert "AiohttpTransport" not in caught.value.message  # no option of ours would help
    assert not caught.value.retryable


async def test_a_certificate_of_the_client(certificate: Path) -> None:
    """A server that wants one refuses those without, and takes those with it."""
    theirs = server_context(certificate)
    theirs.load_verify_locations(certificate)
    theirs.verify_mode = ssl.CERT_REQUIRED
    ours = ssl.create_default_context(cafile=certificate)
    ours.load_cert_chain(certificate)
    async with FaultServer(ssl=theirs) as server:
        nameless = AiohttpTransport(ssl=str(certificate))
        with pytest.raises(APIConnectionError):
            await fetch(nameless, post(server.url + PATH))
        await nameless.aclose()
        named = AiohttpTransport(ssl=ours)
        status, _ = await fetch(named, post(server.url + PATH))
        await named.aclose()
    assert status == 200


def test_a_file_of_authorities_that_is_missing() -> None:
    with pytest.raises(ConfigurationError, match="PEM"):
        AiohttpTransport(ssl="/nowhere/ca.pem")


def test_options_of_a_wrong_type() -> None:
    wrong: Any = 5
    with pytest.raises(ConfigurationError, match="ssl: expected"):
        AiohttpTransport(ssl=wrong)
    with pytest.raises(ConfigurationError, match="proxy: expected"):
        AiohttpTransport(proxy=wrong)


async def test_tls_spoken_to_a_plain_server(transport: AiohttpTransport) -> None:
    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(100)
        writer.write(b"HTTP/1.1 400 Bad Request\r\n\r\n")
        await writer.drain()

    async with listening(handle) as url:
        with pytest.raises(APIConnectionError, match="no TLS connection") as caught:
            await transport.send(post(url.replace("http:", "https:")))
    assert isinstance(caught.value.__cause__, aiohttp.ClientError)


# -- failures ------------------------------------------------------------------------------------


async def test_nobody_listens(transport: AiohttpTransport) -> None:
    with pytest.raises(APIConnectionError, match="ConnectionRefused") as caught:
        await transport.send(post("http://127.0.0.1:1/"))
    assert caught.value.retryable
    assert isinstance(caught.value.__cause__, aiohttp.ClientConnectorError)


async def test_a_name_that_does_not_resolve(transport: AiohttpTransport) -> None:
    with pytest.raises(APIConnectionError, match="cannot be resolved") as caught:
        await transport.send(post("http://does-not-exist.invalid/"))
    assert caught.value.retryable


async def test_no_connection_in_time(transport: AiohttpTransport) -> None:
    """A full backlog: the kernel answers nothing."""
    import socket

    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)
        fillers = [socket.socket() for _ in range(8)]
        for filler in fillers:
            filler.setblocking(False)
            filler.connect_ex(listener.getsockname())
        try:
            url = f"http://127.0.0.1:{listener.getsockname()[1]}/?key={KEY}"
            with pytest.raises(APITimeoutError, match=r"within 0\.05 s") as caught:
                await transport.send(Request("POST", url, {}, b"", connect_timeout=0.05))
        finally:
            for filler in fillers:
                filler.close()
    assert_no_canary(caught.value)


@pytest.mark.parametrize("limit", [0.0, 0.05])
async def test_a_handshake_that_does_not_end_is_a_slow_connection(
    transport: AiohttpTransport, limit: float
) -> None:
    async def mute(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await asyncio.Event().wait()

    async with listening(mute) as url:
        request = Request("POST", url.replace("http:", "https:"), {}, b"", connect_timeout=limit)
        with pytest.raises(APITimeoutError, match="no connection within"):
            await transport.send(request)


@pytest.mark.parametrize("pause", [0.0, 0.05])
async def test_an_answer_that_was_sent_unasked_is_no_answer_to_the_next_request(
    transport: AiohttpTransport, pause: float
) -> None:
    """On the idle connection (after a pause), or glued to the end of the answer before it."""

    def answer(text: bytes) -> bytes:
        return b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (len(text), text)

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            head = await reader.readuntil(b"\r\n\r\n")
            number = head.split(b"/")[1].split(b" ")[0]
            if pause:
                writer.write(answer(number))
                await asyncio.sleep(pause)
                writer.write(answer(b"of another conversation"))
            else:
                writer.write(answer(number) + answer(b"of another conversation"))

    async with listening(handle) as url:
        for number in range(3):
            assert await fetch(transport, Request("POST", f"{url}/{number}", {}, b"")) == (
                200,
                b"%d" % number,
            )
            await asyncio.sleep(2 * pause)
        await transport.aclose()


async def test_a_busy_loop_is_no_slow_connection(
    server: FaultServer, transport: AiohttpTransport
) -> None:
    stalls = Stalls()
    server.always(Answer(text=("Hi",)))
    url = server.url.replace("127.0.0.1", "localhost") + PATH  # looked up in a thread
    sending = asyncio.ensure_future(
        transport.send(Request("POST", url, {}, b"{}", connect_timeout=2.0))
    )
    for _ in range(3):
        await asyncio.sleep(0)
        stalls.stand_still(3.0)
    async with await sending as response:
        assert response.status == 200


async def test_an_answer_before_all_of_the_request_was_taken(transport: AiohttpTransport) -> None:
    """As servers do when a request is too large: they say so, and read the rest to the end."""

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        answer = b"HTTP/1.1 413 Large\r\nConnection: close\r\nContent-Length: 4\r\n\r\nlong"
        writer.write(answer)
        await writer.drain()
        while await reader.read(1 << 20):
            pass

    async with no_leaks(), listening(handle) as url:
        assert await fetch(transport, post(url, b"x" * (20 << 20))) == (413, b"long")
        await transport.aclose()


async def test_an_answer_from_a_server_that_hangs_up_on_a_large_request(
    transport: AiohttpTransport,
) -> None:
    """The answer may get lost on its way, but an error of ours it is."""

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 413 Large\r\nContent-Length: 4\r\n\r\nlong")
        await writer.drain()

    async with no_leaks(), listening(handle) as url:
        try:
            status, body = await fetch(transport, post(f"{url}/?key={KEY}", b"x" * (20 << 20)))
            assert (status, body) == (413, b"long")
        except APIConnectionError as error:
            assert_no_canary(error)
        await transport.aclose()


@pytest.mark.looptime
async def test_a_server_that_is_slow_to_answer_is_not_a_slow_connection(
    server: FaultServer, transport: AiohttpTransport
) -> None:
    server.script(Fault.STALL_BEFORE_HEADERS)
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.1):
            await transport.send(
                Request("POST", server.url + PATH, {}, b"{}", connect_timeout=0.02)
            )


@pytest.mark.parametrize(
    ("fault", "kind", "says"),
    [
        (Fault.CLOSE_BEFORE_HEADERS, APIConnectionError, "without an answer"),
        (Fault.RESET_BEFORE_HEADERS, APIConnectionError, "broke before an answer"),
        (Fault.NOT_HTTP, WireError, "not valid HTTP"),
    ],
)
async def test_no_answer(
    server: FaultServer, transport: AiohttpTransport, fault: Fault, kind: type, says: str
) -> None:
    server.script(fault)
    with pytest.raises(kind, match=says) as caught:
        await transport.send(post(server.url + PATH))
    assert caught.value.retryable


@pytest.mark.parametrize("fault", [Fault.CUT_CHUNKED_BODY, Fault.RESET_MID_STREAM])
async def test_a_body_that_is_cut_gives_what_came_and_then_an_error(
    server: FaultServer, transport: AiohttpTransport, fault: Fault
) -> None:
    server.script(Answer(fault=fault, headers={"x-request-id": "req_77"}))
    async with await transport.send(post(server.url + PATH)) as response:
        await asyncio.sleep(0.05)  # all of it is there, and so is the error
        assert b"Hello" in await response.read_some()
        with pytest.raises(APIConnectionError, match="req_77") as caught:
            await response.read_some()
        assert caught.value.retryable
        with pytest.raises(APIConnectionError):
            await response.read_some()


@pytest.mark.parametrize("encoding", ["gzip", "deflate", "br"])
async def test_a_body_that_cannot_be_decompressed(
    transport: AiohttpTransport, encoding: str
) -> None:
    answer = (
        f"HTTP/1.1 200 OK\r\nContent-Encoding: {encoding}\r\nContent-Length: 9\r\n\r\nnonsense!"
    )
    async with listening(answering(answer.encode())) as url:
        with pytest.raises((APIConnectionError, WireError)):
            await fetch(transport, post(url))


@pytest.mark.parametrize(
    "answer",
    [
        b"HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: x\r\n\r\n",
        b"HTTP/1.1 abc OK\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
        b"HTTP/1.1 200 OK\r\nA: " + b"x" * 100_000 + b"\r\n\r\n",
        b"HTTP/1.1 200 OK\r\n" + b"A: b\r\n" * 1000 + b"\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
        b"\x00" * 100 + b"\r\n\r\n",
    ],
    ids=["negative", "text", "status", "chunk", "long field", "many fields", "tls", "zeros"],
)
async def test_answers_that_are_no_http(transport: AiohttpTransport, answer: bytes) -> None:
    async with listening(answering(answer, close=True)) as url:
        with pytest.raises((APIConnectionError, WireError)) as caught:
            await fetch(transport, post(f"{url}/?key={KEY}"))
    assert_no_canary(caught.value)


def test_it_is_where_users_look_for_it() -> None:
    from rejoinder import transport

    assert transport.AiohttpTransport is AiohttpTransport
    assert transport.Request is Request
    assert {"AiohttpTransport", "HttpTransport", "HttpResponse", "Request"} <= set(dir(transport))


@pytest.mark.parametrize("how", ["plain", "proxy", "redirect", "socket"])
async def test_tracing_of_sessions_sees_bare_addresses(
    how: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Tools for monitoring add a trace to every session of the process, as is done here."""
    traced: list[str] = []
    heads: list[bytes] = []

    async def note(session: Any, context: Any, told: Any) -> None:
        traced.append(str(told.url))

    trace = aiohttp.TraceConfig()
    trace.on_request_start.append(note)
    trace.on_request_end.append(note)
    trace.on_request_exception.append(note)
    trace.on_request_headers_sent.append(note)
    trace.on_request_chunk_sent.append(note)
    trace.on_response_chunk_received.append(note)
    original = aiohttp.ClientSession.__init__

    def init(self: Any, *args: Any, **options: Any) -> None:
        original(self, *args, trace_configs=[trace], **options)

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        heads.append(await reader.readuntil(b"\r\n\r\n"))
        again = how == "redirect" and len(heads) == 1
        more = f"307 X\r\nlocation: /there?key={KEY}-2" if again else "200 X"
        writer.write(f"HTTP/1.1 {more}\r\ncontent-length: 0\r\nconnection: close\r\n\r\n".encode())

    monkeypatch.setattr(aiohttp.ClientSession, "__init__", init)
    async with listening(handle) as url:
        proxy = url.replace("://", f"://user:{KEY}@") if how == "proxy" else None
        transport = AiohttpTransport(proxy=proxy, trust_env=False)
        place = "http://example.org" if how == "proxy" else url
        user = "" if how == "redirect" else f"me:{KEY}@"
        address = f"{place.replace('://', f'://{user}')}/here?a=b&key={KEY}"
        if how == "socket":
            with pytest.raises(APIError):
                await AiohttpWebSocketTransport(transport).connect(SocketRequest(address))
        else:
            assert await fetch(transport, Request("POST", address, {}, b"{}")) == (200, b"")
        await transport.aclose()
    path = f"/here?a=b&key={KEY} HTTP/1.1".encode()
    basic = base64.b64encode(f"me:{KEY}".encode())
    assert heads[0].split(b" ", 1)[1].startswith(b"http://example.org" * (how == "proxy") + path)
    if how != "redirect":
        assert b"Authorization: Basic " + basic in heads[0]
    else:
        assert f"/there?key={KEY}-2 HTTP/1.1".encode() in heads[1]
    assert len(traced) >= 2
    assert {*traced} <= {f"{place}/here", f"{place}/there"}
