"""The transport of an LLM: its own, one around the caller's session, or the caller's."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rejoinder._foreign import has
from rejoinder.errors import APIConnectionError, ConfigurationError
from rejoinder.transport.http import CLOSED

if TYPE_CHECKING:
    from rejoinder.transport._aiohttp import ClientSession
    from rejoinder.transport.http import HttpResponse, HttpTransport, Request

__all__ = ["make_transport"]


def make_transport(
    http_session: ClientSession | None, transport: HttpTransport | None
) -> HttpTransport:
    """The transport of an LLM, to be closed with it: its own, one around the caller's session, or
    the caller's (which then only seems to close).

    Raises:
        ConfigurationError: both are given, or one has the wrong type.
    """
    if transport is None:
        from rejoinder.transport._aiohttp import AiohttpTransport

        return AiohttpTransport(http_session)
    if http_session is not None:
        raise ConfigurationError("http_session and transport: pass one of them, not both")
    missing = [name for name in ("send", "prewarm", "aclose") if not has(transport, name)]
    if missing:
        raise ConfigurationError(
            "transport: expected an HttpTransport (see rejoinder.transport.http), got "
            f"{type(transport).__name__} without {', '.join(missing)}"
        )
    return BorrowedTransport(transport)


class BorrowedTransport:
    """The caller's transport: closing the LLM ends its use here, but leaves it open."""

    def __init__(self, transport: HttpTransport) -> None:
        self._transport = transport
        self._closed = False

    async def send(self, request: Request) -> HttpResponse:
        if self._closed:
            raise APIConnectionError(CLOSED, retryable=False).but(section="closed")
        return await self._transport.send(request)

    async def prewarm(self, url: str, *, timeout: float = 10.0) -> None:
        await self._transport.prewarm(url, timeout=timeout)

    async def aclose(self) -> None:
        self._closed = True
