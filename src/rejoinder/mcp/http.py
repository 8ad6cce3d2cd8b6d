"""Server-sent events and streamable HTTP: the SDK's transports over a carrier with bounds.

The SDK's transports are used unchanged. The carrier below their HTTP client adds what they lack:
headers that can change during a connection, limits for bodies, a deadline for messages that expect no
answer (the SDK sends them one after the other, so one that stalls would delay every call), and notes
about refusals and ended sessions.

The carrier also hides credentials. The SDK and its HTTP client see the URL without user and query, none
of our headers, and no session id, so their frames, errors and log lines cannot show them. The carrier
adds the credentials below, and no frame that holds them leaves it in a traceback.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import re
import urllib.request
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import asynccontextmanager
from contextvars import ContextVar
from functools import partial
from typing import Any, Final, cast
from urllib.parse import urlsplit

import httpx2
from mcp.client.sse import sse_client
from mcp.client.streamable_http import streamable_http_client

from rejoinder._aio import in_thread, within
from rejoinder._core.json_values import LARGE, SLICE, ValueCounter
from rejoinder._secrets import Hidden, Redactor, forget_frames
from rejoinder.errors import APIConnectionError, APIError, APIStatusError
from rejoinder.mcp.notes import TOO_MANY, BadAnswer, Call, Notes, current_notes
from rejoinder.mcp.targets import Endpoint

__all__ = ["sse_streams", "streamable_http_streams"]

logger = logging.getLogger("rejoinder.mcp")

# The DELETE that ends a session is optional: a server that stalls must not delay `aclose`.
_FAREWELL: Final = 0.7
_SESSION: Final = "mcp-session-id"
_ALIAS: Final = "rejoinder"  # the session id that the SDK sees
_REFUSAL: Final = 64 << 10  # bytes of an error body that are read
_SHOWN: Final = 200  # characters of it that an error quotes
_TAGS: Final = re.compile(rb"<(script|style)\b.*?</\1\s*>|<[^>]*>", re.S | re.I)
# A server that does not know the session answers 404 (specification of 2025-03-26, section
# "Session Management"). 410 is the same for servers that remember what they ended.
_FORGOTTEN: Final = frozenset({404, 410})


class _WithoutHeaders(logging.Filter):
    """Removes the header fields of responses (session ids, cookies, redirects with our query) from the
    DEBUG log of the HTTP library, for our requests only."""

    def filter(self, record: logging.LogRecord) -> bool:
        if _sending.get() and isinstance(record.msg, str):
            record.msg = record.msg.partition(" return_value=(")[0]
        return True


_sending: ContextVar[bool] = ContextVar("rejoinder_mcp_sending", default=False)
for _name in ("httpcore2.http11", "httpcore2.http2", "httpcore2.proxy"):
    logging.getLogger(_name).addFilter(_WithoutHeaders())


class _BodyTooLarge(httpx2.StreamError):
    """Stops reading one response. The SDK's transport expects this base class."""


class _Carrier(httpx2.AsyncBaseTransport):
    """Carries the requests of the SDK's HTTP client to an endpoint.

    Args:
        endpoint: the URL of the endpoint.
        inner: the transport that sends the requests.
        limit: maximum bytes of one message.
        patience: seconds for a message that is only acknowledged.
        answers_follow: a request is answered in its own response (streamable HTTP).
        notes: the notes of this connection.
    """

    def __init__(
        self,
        endpoint: Endpoint,
        inner: httpx2.AsyncBaseTransport,
        *,
        limit: int,
        patience: float,
        answers_follow: bool,
        notes: Notes,
    ) -> None:
        self._endpoint = endpoint
        self._inner = inner
        self._limit = limit
        self._patience = patience
        self._answers_follow = answers_follow
        self._notes = notes
        self._session = Hidden("")

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        content = b"" if request.method == "GET" else await request.aread()
        deadline = self._deadline(request.method, content[:1024])
        failure: Exception
        token = _sending.set(True)
        try:
            async with within(deadline):
                response = await self._send(request, content)
        except TimeoutError:
            failure = httpx2.ReadTimeout(
                f"no answer to {request.method} within the time allowed", request=request
            )
        except asyncio.CancelledError as error:
            forget_frames(error)
            raise
        except Exception as error:
            failure = forget_frames(error)
        else:
            return await self._received(request, content, response)
        finally:
            _sending.reset(token)
        if request.method == "POST" and not self._answers_follow:
            self._refuse(content, APIConnectionError(f"the message could not be sent: {failure}"))
            if self._notes.lost is not None:
                self._notes.lost("a message could not be sent")
        failure.__context__ = None
        raise failure

    async def _send(self, request: httpx2.Request, content: bytes) -> httpx2.Response:
        """Send the request. Frames below hold credentials, so no exception may carry them out."""
        url = request.url
        query = self._endpoint.query.reveal()
        if query and not url.query and (self._answers_follow or request.method == "GET"):
            url = url.copy_with(query=query.encode())
        headers = request.headers.copy()
        headers.update(self._endpoint.headers().reveal())
        # The size of a compressed body could not be bounded.
        headers["accept-encoding"] = "identity"
        if _SESSION in headers:
            headers[_SESSION] = self._session.reveal()
        real = httpx2.Request(
            request.method, url, headers=headers, content=content, extensions=request.extensions
        )
        return await self._inner.handle_async_request(real)

    async def _received(
        self, request: httpx2.Request, content: bytes, response: httpx2.Response
    ) -> httpx2.Response:
        headers = response.headers
        # The SDK logs what it cannot read, with the values of its frames.
        stream = _Redacted(cast("httpx2.AsyncByteStream", response.stream), self._notes.secrets)
        response.stream = stream
        if _SESSION in headers:
            self._session = Hidden(headers[_SESSION])
            headers[_SESSION] = _ALIAS
        if "location" in headers:
            headers["location"] = _without_query(headers["location"])
        if request.method == "POST":
            refused = response.status_code >= 400
            self._notes.status = response.status_code if refused else None
            if refused:
                return await self._refused(request, content, response)
        kind = headers.get("content-type", "").partition(";")[0].strip().lower()
        if kind != "text/event-stream":
            encoding = headers.get("content-encoding", "identity").strip().lower()
            limit = self._limit if encoding in {"", "identity"} else 0
            response.stream = _Bounded(stream, limit, partial(self._refuse, content))
        elif request.method == "GET" and self._answers_follow:
            response.stream = _Watched(stream, self._notes)
        else:
            response.stream = _Events(stream, partial(self._refuse, content))
        return response

    async def _refused(
        self, request: httpx2.Request, content: bytes, response: httpx2.Response
    ) -> httpx2.Response:
        status = response.status_code
        body = await self._beginning(cast("httpx2.AsyncByteStream", response.stream))
        response.stream = httpx2.ByteStream(body)
        words = self._notes.redacted(_plain(body))
        error = APIStatusError(
            f"HTTP {status}: {words}" if words else f"HTTP {status}", status_code=status
        )
        call = self._call(content)
        if call is not None:
            call.status, call.refusal = status, words
        in_session = _SESSION in request.headers if self._answers_follow else True
        if in_session and status in _FORGOTTEN and self._notes.forgotten is not None:
            self._notes.forgotten(call, error)
        elif not self._answers_follow:
            self._refuse(content, error)
        if self._answers_follow:
            return response
        # The SDK's transport would send nothing more after an error status.
        return httpx2.Response(202, request=request)

    async def _beginning(self, stream: httpx2.AsyncByteStream) -> bytes:
        body = bytearray()
        try:
            async with within(self._patience):
                async for chunk in stream:
                    body += chunk
                    if len(body) > _REFUSAL:
                        break
        except (TimeoutError, httpx2.HTTPError):
            pass
        finally:
            with contextlib.suppress(httpx2.HTTPError):
                await stream.aclose()
        return bytes(body[:_REFUSAL])

    def _call(self, content: bytes) -> Call | None:
        with contextlib.suppress(ValueError, AttributeError):
            return self._notes.call(json.loads(content).get("id"))
        return None

    def _refuse(self, content: bytes, error: APIError) -> None:
        """End the wait of the call whose message was `content`."""
        call = self._call(content)
        if call is not None and call.fail is not None:
            call.fail(error)

    def _deadline(self, method: str, head: bytes) -> float | None:
        if method == "DELETE":
            return _FAREWELL
        if method == "GET":
            return None
        # Over SSE a POST is only acknowledged; over streamable HTTP a request is answered in it.
        is_request = b'"id"' in head and b'"method"' in head
        return None if self._answers_follow and is_request else self._patience

    async def aclose(self) -> None:
        await self._inner.aclose()


def _without_query(location: str) -> str:
    # The carrier adds the endpoint's query to every request without one.
    return location.partition("?")[0]


def _plain(body: bytes) -> str:
    """The first words of an error body: the message of a JSON-RPC error, or a page without tags."""
    if body.lstrip()[:1] == b"{":
        with contextlib.suppress(ValueError):
            error: Any = json.loads(body).get("error")
            if isinstance(error, dict):
                error = cast("dict[str, Any]", error).get("message")
            if isinstance(error, str):
                return error[:_SHOWN]
    text = _TAGS.sub(b" ", body[:4096]).decode("utf-8", "replace")
    return " ".join(text.split())[:_SHOWN]


class _Count:
    """Counts the values of a message as its chunks pass. Small messages cost nothing."""

    def __init__(self) -> None:
        self._held: list[bytes] | None = []
        self._size = 0
        self._counter = ValueCounter()

    async def crowded(self, chunk: bytes) -> bool:
        self._size += len(chunk)
        if self._held is not None:
            self._held.append(chunk)
            if self._size <= LARGE:
                return False
            chunk, self._held = b"".join(self._held), None
        for start in range(0, len(chunk), SLICE):
            self._counter.feed(chunk[start : start + SLICE])
            if self._counter.crowded:
                return True
            if start:
                await asyncio.sleep(0)
        return False


class _Redacted(httpx2.AsyncByteStream):
    """A body without the credentials of the request: a server may quote them anywhere."""

    def __init__(self, inner: httpx2.AsyncByteStream, secrets: Hidden[list[str]]) -> None:
        self._inner = inner
        self._clean = Redactor(secrets.reveal()).pieces()

    async def __aiter__(self) -> AsyncIterator[bytes]:
        async for chunk in self._inner:
            if chunk and (piece := self._clean(chunk)):
                yield piece
        if rest := self._clean(b""):
            yield rest

    async def aclose(self) -> None:
        await self._inner.aclose()


class _Bounded(httpx2.AsyncByteStream):
    """A body that is read whole, with a limit of bytes and of JSON values."""

    def __init__(
        self, inner: httpx2.AsyncByteStream, limit: int, refuse: Callable[[APIError], None]
    ) -> None:
        self._inner = inner
        self._limit = limit
        self._refuse = refuse

    async def __aiter__(self) -> AsyncIterator[bytes]:
        size, count = 0, _Count()
        async for chunk in self._inner:
            size += len(chunk)
            text = ""
            if size > self._limit:
                text = (
                    f"the server sent a message of more than {self._limit:,} bytes"
                    if self._limit
                    else "the server sent a compressed message, which was not requested"
                )
            elif await count.crowded(chunk):
                text = f"the server sent {TOO_MANY}"
            if text:
                self._refuse(BadAnswer(text))
                raise _BodyTooLarge(text)
            yield chunk

    async def aclose(self) -> None:
        await self._inner.aclose()


class _Events(httpx2.AsyncByteStream):
    """Server-sent events, with a limit of JSON values in each. (The SDK bounds their bytes.)"""

    def __init__(self, inner: httpx2.AsyncByteStream, refuse: Callable[[APIError], None]) -> None:
        self._inner = inner
        self._refuse = refuse

    async def __aiter__(self) -> AsyncIterator[bytes]:
        count = _Count()
        async for chunk in self._inner:
            # Everything before the last blank line belongs to events that end in this chunk.
            end = max(chunk.rfind(b"\n\n"), chunk.rfind(b"\r\n\r\n"), chunk.rfind(b"\r\r"))
            if end >= 0 and not await count.crowded(chunk[:end]):
                count = _Count()
            if await count.crowded(chunk[end:] if end >= 0 else chunk):
                text = f"the server sent {TOO_MANY}"
                self._refuse(BadAnswer(text))
                raise httpx2.SSEError(text)
            yield chunk

    async def aclose(self) -> None:
        await self._inner.aclose()


def _ignore(error: APIError) -> None:
    """No call waits for what arrives on this stream."""


class _Watched(_Events):
    """The stream for a server's own requests. If it breaks, the server may be gone."""

    def __init__(self, inner: httpx2.AsyncByteStream, notes: Notes) -> None:
        super().__init__(inner, _ignore)
        self._notes = notes

    async def __aiter__(self) -> AsyncIterator[bytes]:
        try:
            async for chunk in super().__aiter__():
                yield chunk
        except Exception:
            self._tell()
            raise
        self._tell()

    def _tell(self) -> None:
        if self._notes.suspect is not None:
            self._notes.suspect()


async def _inner(endpoint: Endpoint) -> httpx2.AsyncBaseTransport:
    # Creating the context reads a file of some hundred certificates.
    trust = await in_thread(httpx2.create_ssl_context, name="rejoinder-mcp-trust")
    return httpx2.AsyncHTTPTransport(verify=trust, proxy=_proxy(endpoint.url))


def _proxy(url: str) -> httpx2.Proxy | None:
    """The proxy that the environment names for `url`, if any."""
    parts = urlsplit(url)
    proxies = Hidden(urllib.request.getproxies_environment())
    bypass: Any = urllib.request.proxy_bypass_environment  # pyright: ignore[reportUnknownMemberType, reportAttributeAccessIssue, reportUnknownVariableType]
    name = parts.scheme if parts.scheme in proxies.reveal() else "all"
    if name not in proxies.reveal() or bypass(parts.netloc, proxies.reveal()):
        return None
    address = Hidden(proxies.reveal()[name])
    if "://" not in address.reveal():
        address = Hidden(f"http://{address.reveal()}")
    with contextlib.suppress(ValueError, httpx2.InvalidURL):
        return httpx2.Proxy(address.reveal())
    raise APIConnectionError(
        f"the proxy in {name.upper()}_PROXY cannot be used: expected http://host:port",
        retryable=False,
    )


async def _client(
    endpoint: Endpoint,
    timeout: httpx2.Timeout,
    *,
    patience: float,
    limit: int,
    answers_follow: bool,
) -> httpx2.AsyncClient:
    notes = current_notes.get() or Notes()
    notes.secrets = endpoint.secrets()
    carrier = _Carrier(
        endpoint,
        await _inner(endpoint),
        limit=limit,
        patience=patience,
        answers_follow=answers_follow,
        notes=notes,
    )
    return httpx2.AsyncClient(transport=carrier, timeout=timeout)


@asynccontextmanager
async def streamable_http_streams(
    endpoint: Endpoint,
    *,
    timeout: float,
    sse_read_timeout: float,
    max_message_bytes: int = 1 << 24,
) -> AsyncGenerator[tuple[Any, Any]]:
    """The streams of a session over streamable HTTP."""
    client = await _client(
        endpoint,
        httpx2.Timeout(timeout, read=sse_read_timeout),
        patience=timeout,
        limit=max_message_bytes,
        answers_follow=True,
    )
    async with (
        client,
        streamable_http_client(
            endpoint.url, http_client=client, max_sse_event_size=max_message_bytes
        ) as streams,
    ):
        yield streams[0], streams[1]


@asynccontextmanager
async def sse_streams(
    endpoint: Endpoint,
    *,
    timeout: float,
    sse_read_timeout: float,
    max_message_bytes: int = 1 << 24,
) -> AsyncGenerator[tuple[Any, Any]]:
    """The streams of a session over server-sent events. One event may hold 1 MiB."""
    client = await _client(
        endpoint,
        httpx2.Timeout(timeout, read=sse_read_timeout),
        patience=timeout,
        limit=max_message_bytes,
        answers_follow=False,
    )

    def make(
        headers: dict[str, str] | None = None,
        timeout: httpx2.Timeout | None = None,
        auth: httpx2.Auth | None = None,
    ) -> httpx2.AsyncClient:
        return client

    async with sse_client(
        endpoint.url,
        timeout=timeout,
        sse_read_timeout=sse_read_timeout,
        httpx_client_factory=make,
    ) as streams:
        yield streams[0], streams[1]
