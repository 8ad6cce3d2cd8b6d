"""The switch that keeps tests off the network."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import threading
import urllib.request

import pytest

from rejoinder.testing import NetworkForbiddenError, forbid_network


def test_other_machines_are_out_of_reach() -> None:
    with forbid_network():
        for refused in (
            lambda: socket.create_connection(("192.0.2.1", 80), timeout=1),
            lambda: socket.create_connection(("example.com", 80), timeout=1),
            lambda: socket.getaddrinfo("example.com", 80),
            lambda: socket.getaddrinfo(b"example.com", 80),
            lambda: urllib.request.urlopen("http://example.com/", timeout=1),
        ):
            with pytest.raises(NetworkForbiddenError, match=r"example\.com|192\.0\.2\.1"):
                refused()
        with socket.socket() as sock, pytest.raises(NetworkForbiddenError):
            sock.connect_ex(("192.0.2.1", 80))
        with socket.socket(socket.AF_INET6) as sock, pytest.raises(NetworkForbiddenError):
            sock.connect(("2001:db8::1", 80, 0, 0))


async def test_asyncio_and_the_transport_are_held_back_too() -> None:
    from rejoinder.transport._aiohttp import AiohttpTransport
    from rejoinder.transport.http import Request

    with forbid_network():
        with pytest.raises(NetworkForbiddenError):
            await asyncio.open_connection("example.com", 80)
        transport = AiohttpTransport(trust_env=False)
        for host in ("example.com", "192.0.2.1"):
            with pytest.raises(NetworkForbiddenError):
                await transport.send(Request("POST", f"http://{host}/", connect_timeout=2))
        await transport.aclose()


def speaks_ipv6() -> bool:
    with contextlib.suppress(OSError), socket.socket(socket.AF_INET6) as listener:
        listener.bind(("::1", 0))
        return True
    return False


IPV6 = pytest.mark.skipif(not speaks_ipv6(), reason="the system has no IPv6")


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", pytest.param("::1", marks=IPV6)])
def test_this_machine_is_within_reach(host: str) -> None:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with forbid_network(), socket.socket(family) as listener:
        listener.bind((host, 0))
        listener.listen()
        with socket.create_connection(listener.getsockname()[:2], timeout=5):
            pass


def test_exceptions_and_nesting() -> None:
    original = socket.getaddrinfo
    with forbid_network(allow=("one.invalid", "two.invalid")):
        with pytest.raises(socket.gaierror):
            socket.getaddrinfo("one.invalid", 80)
        with forbid_network(allow=("one.invalid",)), pytest.raises(NetworkForbiddenError):
            socket.getaddrinfo("two.invalid", 80)
        with pytest.raises(socket.gaierror):
            socket.getaddrinfo("two.invalid", 80)
    assert socket.getaddrinfo is original


def test_other_threads_are_held_back() -> None:
    errors: list[BaseException] = []

    def reach_out() -> None:
        try:
            socket.getaddrinfo("example.com", 80)
        except BaseException as error:
            errors.append(error)

    with forbid_network():
        thread = threading.Thread(target=reach_out)
        thread.start()
        thread.join()
    assert [type(error) for error in errors] == [NetworkForbiddenError]
