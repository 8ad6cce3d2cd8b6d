"""Server-sent events and streamable HTTP: the SDK's transports over a client with bounds.

The SDK's transports are used as they are; what they lack is in the HTTP client they are given:
headers that can change while it lives, a limit for bodies, a deadline for messages that expect no
answer (the SDK sends them one after the other, so one that stalls would hold up every call), and
notes about the last error status.
"""

from __future__ import annotations

import asyncio
import logging
import ssl
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from typing import Any, cast

import httpx2
from mcp.client.sse import sse_client
from mcp.client.streamable_http import streamable_http_client

from rejoinder._aio import in_thread
from rejoinder.mcp.notes import Notes, current_notes

__all__ = ["sse_streams", "streamable_http_streams"]

logger = logging.getLogger("rejoinder.mcp")

# Ending a session is a courtesy: a server that stalls must not hold up the end.
_FAREWELL = 0.7

Headers = Callable[[], Mapping[str, str]]


class _BodyTooLarge(httpx2.StreamError):
    """Told to the one call whose answer it was; the SDK's transport expects this family."""


class _Client(httpx2.AsyncClient):
    def __init__(
        self,
        *,
        live_headers: Headers,
        limit: int,
        patience: float,
        answers_follow: bool,
        notes: Notes,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self._live_headers = live_headers
        self._limit = limit
        self._patience = patience
        self._answers_follow = answers_follow
        self._notes = notes

    async def send(self, request: httpx2.Request, **kwargs: Any) -> httpx2.Response:
        request.headers.update(dict(self._live_headers()))
        # A body that is inflated here could not be bounded.
        request.headers["accept-encoding"] = "identity"
        try:
            async with asyncio.timeout(self._deadline(request)):
                response = await super().send(request, **kwargs)
        except TimeoutError:
            raise httpx2.ReadTimeout(
                f"no answer to {request.method} within the time allowed", request=request
            ) from None
        if request.method == "POST":
            self._notes.status = response.status_code if response.status_code >= 400 else None
        kind = response.headers.get("content-type", "").partition(";")[0].strip().lower()
        stream = cast("httpx2.AsyncByteStream", response.stream)
        if kind != "text/event-stream":
            encoding = response.headers.get("content-encoding", "identity").strip().lower()
            response.stream = _Bounded(stream, self._limit if encoding in {"", "identity"} else 0)
        elif request.method == "GET" and self._answers_follow:
            response.stream = _Watched(stream, self._notes)
        return response

    def _deadline(self, request: httpx2.Request) -> float | None:
        if request.method == "DELETE":
            return _FAREWELL
        if request.method == "GET":
            return None
        # Over SSE a POST is only acknowledged; over streamable HTTP a request is answered in it.
        head = request.content[:1024]
        is_request = b'"id"' in head and b'"method"' in head
        return None if self._answers_follow and is_request else self._patience


class _Bounded(httpx2.AsyncByteStream):
    def __init__(self, inner: httpx2.AsyncByteStream, limit: int) -> None:
        self._inner = inner
        self._limit = limit

    async def __aiter__(self) -> AsyncIterator[bytes]:
        size = 0
        async for chunk in self._inner:
            size += len(chunk)
            if size > self._limit:
                raise _BodyTooLarge(
                    f"the server sent a message of more than {self._limit:,} bytes"
                    if self._limit
                    else "the server sent a compressed message, though none was asked for"
                )
            yield chunk

    async def aclose(self) -> None:
        await self._inner.aclose()


class _Watched(httpx2.AsyncByteStream):
    """The stream a server may speak on unasked: when it breaks, the server may be gone."""

    def __init__(self, inner: httpx2.AsyncByteStream, notes: Notes) -> None:
        self._inner = inner
        self._notes = notes

    async def __aiter__(self) -> AsyncIterator[bytes]:
        try:
            async for chunk in self._inner:
                yield chunk
        except Exception:
            self._tell()
            raise
        self._tell()

    def _tell(self) -> None:
        if self._notes.suspect is not None:
            self._notes.suspect()

    async def aclose(self) -> None:
        await self._inner.aclose()


async def _trust() -> ssl.SSLContext:
    # Reads a file of some hundred certificates.
    return await in_thread(httpx2.create_ssl_context, name="rejoinder-mcp-certificates")


@asynccontextmanager
async def streamable_http_streams(
    url: str,
    *,
    headers: Headers,
    timeout: float,
    sse_read_timeout: float,
    max_message_bytes: int = 1 << 24,
) -> AsyncGenerator[tuple[Any, Any]]:
    """The streams of a session over streamable HTTP."""
    client = _Client(
        live_headers=headers,
        limit=max_message_bytes,
        patience=timeout,
        answers_follow=True,
        notes=current_notes.get() or Notes(),
        verify=await _trust(),
        timeout=httpx2.Timeout(timeout, read=sse_read_timeout),
    )
    async with (
        client,
        streamable_http_client(
            url, http_client=client, max_sse_event_size=max_message_bytes
        ) as streams,
    ):
        yield streams[0], streams[1]


@asynccontextmanager
async def sse_streams(
    url: str,
    *,
    headers: Headers,
    timeout: float,
    sse_read_timeout: float,
    max_message_bytes: int = 1 << 24,
) -> AsyncGenerator[tuple[Any, Any]]:
    """The streams of a session over server-sent events. One event may hold 1 MiB."""
    notes = current_notes.get() or Notes()

    def make(
        headers: dict[str, str] | None = None,
        timeout: httpx2.Timeout | None = None,
        auth: httpx2.Auth | None = None,
    ) -> httpx2.AsyncClient:
        return _Client(
            live_headers=live,
            limit=max_message_bytes,
            patience=patience,
            answers_follow=False,
            notes=notes,
            verify=trust,
            timeout=timeout,
            auth=auth,
        )

    live, patience, trust = headers, timeout, await _trust()
    async with sse_client(
        url, timeout=timeout, sse_read_timeout=sse_read_timeout, httpx_client_factory=make
    ) as streams:
        yield streams[0], streams[1]
