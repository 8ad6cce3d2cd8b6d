"""The server of the page, by uvicorn."""

from __future__ import annotations

import asyncio
import secrets
import socket
from dataclasses import dataclass

import uvicorn

from rejoinder.web.guard import App

__all__ = ["Address", "bind", "serve"]

_LOOPBACK = frozenset({"127.0.0.1", "localhost", "::1"})
_CLOSING = 3.0
"""Seconds within which the server must shut down."""


@dataclass(frozen=True, slots=True)
class Address:
    """The address on which the server listens.

    Attributes:
        socket: the listening socket.
        host: the address it is bound to.
        port: its port.
        token: a new secret.
        hosts: the values of ``Host`` for this server.
    """

    socket: socket.socket
    host: str
    port: int
    token: str
    hosts: frozenset[str]

    @property
    def url(self) -> str:
        """The URL of the page. The token follows the ``#``, so no browser sends it, and no log holds
        it."""
        return f"http://{_bracketed(self.host)}:{self.port}/#{self.token}"


def _bracketed(host: str) -> str:
    return f"[{host}]" if ":" in host else host


def bind(host: str, port: int) -> Address:
    """Listen.

    Args:
        host: an address of this machine.
        port: 0 for any free one.

    Raises:
        OSError: the address cannot be used.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listening = socket.socket(family, socket.SOCK_STREAM)
    try:
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.bind((host, port))
        listening.listen()
    except OSError:
        listening.close()
        raise
    port = listening.getsockname()[1]
    names = {host, *(_LOOPBACK if host in _LOOPBACK else ())}
    hosts = frozenset(f"{_bracketed(name)}:{port}".lower() for name in names)
    return Address(listening, host, port, secrets.token_urlsafe(24), hosts)


async def serve(app: App, address: Address) -> None:
    """Serve until the task is cancelled.

    Args:
        app: the application.
        address: the address; its socket is closed at the end.
    """
    config = uvicorn.Config(
        app,
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=False,
        timeout_graceful_shutdown=1,
        ws="none",
        lifespan="on",
    )
    server = uvicorn.Server(config)
    work = asyncio.ensure_future(server.serve([address.socket]))
    try:
        await asyncio.shield(work)
    except asyncio.CancelledError:
        server.should_exit = True
        await asyncio.wait((work,), timeout=_CLOSING)
        raise
    finally:
        address.socket.close()
