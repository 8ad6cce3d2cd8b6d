"""Keeps tests off the network: inside `forbid_network`, code can reach only this machine."""

from __future__ import annotations

import ipaddress
import socket
import threading
from collections.abc import Generator
from contextlib import contextmanager
from typing import Any, cast

from rejoinder._options import checked
from rejoinder._sections import explained

__all__ = ["NetworkForbiddenError", "forbid_network"]


class NetworkForbiddenError(RuntimeError):
    """Code under test tried to reach another machine."""


_lock = threading.Lock()
_allowed: list[frozenset[str]] = []
_originals: tuple[Any, Any, Any] | None = None


@checked()
@contextmanager
def forbid_network(*, allow: tuple[str, ...] = ()) -> Generator[None, None, None]:
    """Refuse connections and name look-ups that leave this machine, in all threads.

    Loopback addresses and Unix sockets stay usable, and the hosts named in `allow` (when several
    blocks are nested, those that all of them allow). As a fixture for a whole test suite::

        @pytest.fixture(autouse=True)
        def offline():
            with forbid_network():
                yield

    Raises:
        NetworkForbiddenError: in the code that tries. It is not an `OSError`, so that no code treats
            it as a network failure and retries.
    """
    global _originals
    hosts = frozenset(allow)
    with _lock:
        _allowed.append(hosts)
        if _originals is None:
            _originals = (socket.socket.connect, socket.socket.connect_ex, socket.getaddrinfo)
            _install(*_originals)
    try:
        yield
    finally:
        with _lock:
            _allowed.remove(hosts)
            if not _allowed and _originals is not None:
                connect, connect_ex, getaddrinfo = _originals
                socket.socket.connect = connect
                socket.socket.connect_ex = connect_ex
                socket.getaddrinfo = getaddrinfo
                _originals = None


def _install(connect: Any, connect_ex: Any, getaddrinfo: Any) -> None:
    def guarded_connect(self: socket.socket, address: Any) -> Any:
        _check_address(self, address)
        return connect(self, address)

    def guarded_connect_ex(self: socket.socket, address: Any) -> Any:
        _check_address(self, address)
        return connect_ex(self, address)

    def guarded_getaddrinfo(host: Any, *args: Any, **kwargs: Any) -> Any:
        _check_host(host)
        return getaddrinfo(host, *args, **kwargs)

    socket.socket.connect = guarded_connect
    socket.socket.connect_ex = guarded_connect_ex
    socket.getaddrinfo = guarded_getaddrinfo


def _check_address(sock: socket.socket, address: Any) -> None:
    if sock.family in (socket.AF_INET, socket.AF_INET6) and isinstance(address, tuple):
        _check_host(cast("tuple[object, ...]", address)[0])


def _check_host(host: object) -> None:
    if isinstance(host, bytes):
        host = host.decode("ascii", "replace")
    if host is None or host == "" or host == "localhost":
        return
    name = str(host)
    if all(name in hosts for hosts in tuple(_allowed)):
        return
    try:
        if ipaddress.ip_address(name.partition("%")[0]).is_loopback:
            return
    except ValueError:
        pass
    raise NetworkForbiddenError(
        explained(
            f"a connection to {name!r} was attempted; only this machine may be reached here "
            "(`forbid_network(allow=...)` makes exceptions)",
            "network",
        )
    )
