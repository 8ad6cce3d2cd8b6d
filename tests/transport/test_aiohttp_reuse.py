"""An answer that was sent unasked, at each moment at which it can arrive."""

from __future__ import annotations

import asyncio
import contextlib
import select
import socket
from collections.abc import Callable, Iterator
from importlib import import_module

import pytest

from rejoinder.errors import APIConnectionError
from rejoinder.transport import AiohttpTransport, Request
from rejoinder.transport._aiohttp_reuse import Connector, UnaskedAnswerError


def answer(text: bytes) -> bytes:
    return b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (len(text), text)


class Peer:
    """A server of one connection at a time, which the test moves by hand: nothing of it runs on the
    loop. It reads only what was asked before, so it never answers unasked what already waits."""

    def __init__(self) -> None:
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.listener.setblocking(False)
        self.url = f"http://127.0.0.1:{self.listener.getsockname()[1]}"
        self.connections: list[socket.socket] = []

    def accept(self) -> None:
        with contextlib.suppress(BlockingIOError):
            self.connections.append(self.listener.accept()[0])

    def asked(self, connection: socket.socket) -> bool:
        return bool(select.select([connection], [], [], 0)[0])

    def serve(self) -> None:
        """Answer each request that waits with its own path."""
        self.accept()
        for connection in self.connections:
            with contextlib.suppress(ConnectionError):  # one that the client has thrown away
                if self.asked(connection) and (head := connection.recv(1 << 16)):
                    connection.sendall(answer(head.split(b" ")[1]))

    def say_unasked(self) -> bool:
        """Returns whether it did: a request that waits would get it for an answer."""
        first = self.connections[0]
        if self.asked(first):
            return False
        first.sendall(answer(b"of another conversation"))
        return True

    def close(self) -> None:
        for one in [self.listener, *self.connections]:
            one.close()


@pytest.fixture
def peer() -> Iterator[Peer]:
    made = Peer()
    yield made
    made.close()


LOOPS: list[Callable[[], asyncio.AbstractEventLoop]] = [asyncio.new_event_loop]
with contextlib.suppress(ImportError):
    LOOPS.append(import_module("uvloop").new_event_loop)


async def fetch(transport: AiohttpTransport, url: str, method: str) -> bytes:
    body = None if method == "GET" else b"{}"
    async with await transport.send(Request(method, url, {}, body)) as response:
        return await response.read_all()


async def served(peer: Peer, fetching: asyncio.Future[bytes]) -> None:
    """Let the peer answer what it is asked until `fetching` is done."""
    while not fetching.done():
        peer.serve()
        await asyncio.sleep(0)


async def race(peer: Peer, method: str, turns: int, early: bool) -> bool:
    """Say something unasked `turns` turns of the loop after the second request began, `early` or
    late in that turn. Returns whether it was said."""
    loop = asyncio.get_running_loop()
    said: list[bool] = []

    def later(turns: int) -> None:
        if turns:
            loop.call_soon(later, turns - 1)
        else:
            said.append(peer.say_unasked())

    transport = AiohttpTransport()
    try:
        first = asyncio.ensure_future(fetch(transport, f"{peer.url}/0", method))
        await served(peer, first)
        assert first.result() == b"/0"
        if early:
            loop.call_soon(later, turns)
        second = asyncio.ensure_future(fetch(transport, f"{peer.url}/1", method))
        if not early:
            loop.call_soon(later, turns)
        while not said:
            await asyncio.sleep(0)
        await served(peer, second)
        with contextlib.suppress(APIConnectionError):
            assert second.result() == b"/1"
    finally:
        await transport.aclose()
    return said[0]


@pytest.mark.parametrize("loop", LOOPS, ids=lambda loop: loop.__module__.split(".")[0])
@pytest.mark.parametrize("method", ["POST", "GET"])
@pytest.mark.parametrize("turns", range(5))
@pytest.mark.parametrize("early", [False, True])
def test_it_is_never_the_answer_to_the_next_request(
    peer: Peer,
    loop: Callable[[], asyncio.AbstractEventLoop],
    method: str,
    turns: int,
    early: bool,
) -> None:
    with asyncio.Runner(loop_factory=loop) as runner:
        runner.run(race(peer, method, turns, early))


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
