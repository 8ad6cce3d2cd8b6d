"""The WebSocket interface of this package: frames in both directions, and a close as a value.

`rejoinder.transport._aiohttp_ws` is the implementation. Any object with these methods can replace it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Protocol, TypeAlias, runtime_checkable

from rejoinder._secrets import redacted_url

__all__ = ["Closed", "SocketRequest", "WebSocket", "WebSocketTransport", "WireFrame"]

WireFrame: TypeAlias = str | bytes


@dataclass(frozen=True, slots=True)
class SocketRequest:
    """The upgrade request of one connection. Its `repr` shows neither query nor headers.

    ``https`` and ``wss`` URLs use TLS, ``http`` and ``ws`` URLs do not.
    """

    url: str
    headers: Mapping[str, str] = field(default_factory=dict[str, str])
    connect_timeout: float | None = None
    """Seconds for DNS, TCP, TLS and the upgrade; ``None`` for no separate limit."""
    max_frame: int = 1 << 23
    """Maximum bytes of a frame."""

    def __repr__(self) -> str:
        return f"SocketRequest({redacted_url(self.url)!r})"


@dataclass(frozen=True, slots=True)
class Closed:
    """The connection has ended. `code` is ``None`` if it broke without a close frame."""

    code: int | None
    reason: str = ""


class WebSocket(Protocol):
    """One open connection. Pings of the peer are answered by the implementation."""

    async def send(self, frame: WireFrame) -> None:
        """Send one frame; waits while the peer reads too slowly.

        Raises:
            APIConnectionError: the connection has ended.
        """
        ...

    async def receive(self) -> WireFrame | Closed:
        """The next frame, or the end. Never raises for any kind of end."""
        ...

    async def ping(self) -> None:
        """Send a ping. Its answer only counts as a sign of life; see `heard_at`."""
        ...

    @property
    def heard_at(self) -> float:
        """Loop time of the last bytes that arrived, control frames included."""
        ...

    async def aclose(self, code: int = 1000) -> None:
        """Close it, within about a second. Idempotent, never raises."""
        ...


@runtime_checkable
class WebSocketTransport(Protocol):
    """Opens connections."""

    async def connect(self, request: SocketRequest) -> WebSocket:
        """Open one connection.

        Raises:
            APIConnectionError: no connection.
            APITimeoutError: no connection within `SocketRequest.connect_timeout`.
            APIStatusError: the server refused the upgrade.
            ConfigurationError: the request cannot be sent (bad URL, bad header value).
        """
        ...

    async def aclose(self) -> None: ...
