"""An answer that was sent unasked, at each moment at which it can arrive."""

from __future__ import annotations

import asyncio
import contextlib
import select
import socket
import ssl
import sys
from collections.abc import Callable, Iterator
from importlib import import_module
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from certificates import server_context
from rejoinder.errors import APIConnectionError
from rejoinder.transport import AiohttpTransport, Request
from rejoinder.transport._aiohttp_reuse import Connector, UnaskedAnswerError


def answer(text: bytes) -> bytes:
    return b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (len(text), text)


class Peer:
    """A server of one connection at a time, which the test moves by hand: nothing of it runs on the
    loop. It reads only what was asked before, so it never answers unasked what already waits.

    Args:
        tls: with it the server speaks TLS, also behind a CONNECT.
    """

    def __init__(self, tls: ssl.SSLContext | None = None) -> None:
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.listener.setblocking(False)
        self.place = f"127.0.0.1:{self.listener.getsockname()[1]}"
        self.url = f"http://{self.place}"
        self.connections: list[socket.socket] = []
        self._tls = tls
        self._shaking: set[socket.socket] = set()
        self.crossed = False
        """A request was on its way while something unasked was said: it looks like the answer."""

    def accept(self, tunnel: bool = False) -> None:
        with contextlib.suppress(BlockingIOError):
            connection = self.listener.accept()[0]
            connection.setblocking(False)
            self.connections.append(connection if tunnel else self._secure(connection))

    def _secure(self, connection: socket.socket) -> socket.socket:
        if self._tls is None:
            return connection
        secure = self._tls.wrap_socket(connection, server_side=True, do_handshake_on_connect=False)
        self._shaking.add(secure)
        return secure

    def asked(self, connection: socket.socket) -> bool:
        return bool(select.select([connection], [], [], 0)[0])

    def serve(self, tunnel: bool = False) -> None:
        """Answer each request that waits with its own path."""
        self.accept(tunnel)
        for at, connection in enumerate(self.connections):
            # One that the client has thrown away, or whose bytes are no record of TLS yet.
            with contextlib.suppress(ConnectionError, ssl.SSLError):
                if not self.asked(connection):
                    continue
                if connection in self._shaking:
                    assert isinstance(connection, ssl.SSLSocket)
                    connection.do_handshake()
                    self._shaking.discard(connection)
                elif head := connection.recv(1 << 16):
                    if head.startswith(b"CONNECT"):
                        connection.sendall(b"HTTP/1.1 200 Connected\r\n\r\n")
                        self.connections[at] = self._secure(connection)
                    else:
                        path = head.split(b" ")[1]
                        connection.sendall(answer(path[path.rindex(b"/") :]))

    def say_unasked(self) -> bool:
        """Returns whether it did: a request that waits would get it for an answer."""
        first = self.connections[0]
        if self.asked(first):
            return False
        first.sendall(answer(b"of another conversation"))
        while _unacknowledged(first):  # on a busy machine it takes a moment to arrive
            pass
        self.crossed = self.asked(first)
        return True

    def close(self) -> None:
        for one in [self.listener, *self.connections]:
            one.close()


@pytest.fixture
def peer() -> Iterator[Peer]:
    made = Peer()
    yield made
    made.close()


@pytest.fixture(params=["direct", "TLS", "proxy", "tunnel"])
def place(request: pytest.FixtureRequest, certificate: Path) -> Iterator[Place]:
    """A peer, and how it is reached."""
    secure = request.param in ("TLS", "tunnel")
    peer = Peer(server_context(certificate) if secure else None)
    yield Place(
        peer,
        f"{'https' if secure else 'http'}://{peer.place}",
        {
            "ssl": str(certificate),
            "proxy": peer.url if request.param in ("proxy", "tunnel") else None,
        },
        tunnel=request.param == "tunnel",
    )
    peer.close()


class Place(NamedTuple):
    peer: Peer
    url: str
    options: dict[str, Any]
    tunnel: bool


def _unacknowledged(connection: socket.socket) -> int:
    """Packets that have not arrived, as far as the system tells."""
    if sys.platform != "linux":
        return 0
    told = connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 28)
    return int.from_bytes(told[24:28], sys.byteorder)


LOOPS: list[Callable[[], asyncio.AbstractEventLoop]] = [asyncio.new_event_loop]
with contextlib.suppress(ImportError):
    LOOPS.append(import_module("uvloop").new_event_loop)


async def fetch(transport: AiohttpTransport, url: str, method: str) -> bytes:
    body = None if method == "GET" else b"{}"
    async with await transport.send(Request(method, url, {}, body)) as response:
        return await response.read_all()


async def served(place: Place, fetching: asyncio.Future[bytes]) -> None:
    """Let the peer answer what it is asked until `fetching` is done."""
    while not fetching.done():
        place.peer.serve(place.tunnel)
        await asyncio.sleep(0)


async def race(place: Place, method: str, turns: int, early: bool) -> bool:
    """Say something unasked `turns` turns of the loop after the second request began, `early` or
    late in that turn. Returns whether it was said."""
    loop = asyncio.get_running_loop()
    said: list[bool] = []

    def later(turns: int) -> None:
        if turns:
            loop.call_soon(later, turns - 1)
        else:
            said.append(place.peer.say_unasked())

    transport = AiohttpTransport(**place.options)
    try:
        first = asyncio.ensure_future(fetch(transport, f"{place.url}/0", method))
        await served(place, first)
        assert first.result() == b"/0"
        if early:
            loop.call_soon(later, turns)
        second = asyncio.ensure_future(fetch(transport, f"{place.url}/1", method))
        if not early:
            loop.call_soon(later, turns)
        while not said:
            await asyncio.sleep(0)
        await served(place, second)
        with contextlib.suppress(APIConnectionError):
            assert second.result() == b"/1" or place.peer.crossed
    finally:
        await transport.aclose()
    return said[0]


@pytest.mark.parametrize("loop", LOOPS, ids=lambda loop: loop.__module__.split(".")[0])
@pytest.mark.parametrize("method", ["POST", "GET"])
@pytest.mark.parametrize("turns", range(5))
@pytest.mark.parametrize("early", [False, True])
def test_it_is_never_the_answer_to_the_next_request(
    place: Place,
    loop: Callable[[], asyncio.AbstractEventLoop],
    method: str,
    turns: int,
    early: bool,
) -> None:
    with asyncio.Runner(loop_factory=loop) as runner:
        runner.run(race(place, method, turns, early))


async def test_what_comes_before_the_request_has_left_is_no_answer(peer: Peer) -> None:
    """As with uvloop and TLS, where bytes leave at the end of a turn of the loop."""
    connector = Connector()
    transport, handler = await asyncio.get_running_loop().create_connection(
        connector._factory, *peer.listener.getsockname()
    )
    handler.set_response_params()
    peer.accept()
    assert handler.lend()
    assert handler.write_now()  # on a new connection nothing is looked at
    peer.serve()
    transport.write(b"POST /0 HTTP/1.1\r\n\r\n")
    while not peer.asked(peer.connections[0]):
        await asyncio.sleep(0)
    peer.serve()
    message, payload = await handler.read()
    assert (message.code, await payload.read()) == (200, b"/0")

    assert handler.lend()
    assert handler.write_now()
    assert peer.say_unasked()  # nothing was written yet
    with pytest.raises(UnaskedAnswerError):
        await handler.read()
    await connector.close()
