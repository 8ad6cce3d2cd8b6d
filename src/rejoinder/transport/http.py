"""The HTTP interface of this package: one request out, one body in.

`rejoinder.transport._aiohttp` is the implementation; `rejoinder.testing` has others. Any object with
these methods can replace them.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from types import TracebackType
from typing import Final, Protocol, Self, runtime_checkable

from rejoinder._secrets import Hidden, redacted_url, secrets_of

__all__ = [
    "HttpResponse",
    "HttpTransport",
    "PushingResponse",
    "Request",
    "ResponseAround",
    "pour",
    "read_up_to",
    "request_id",
]

CLOSED: Final = (
    "closed: this request came after `aclose()` or the end of `async with`; make a new LLM"
)
"""The error of a request to a closed transport."""


@dataclass(frozen=True, slots=True)
class Request:
    """One complete HTTP request: the URL with its query, the headers with their credentials.

    Its `repr` shows neither query nor credentials.
    """

    method: str
    url: str
    headers: Mapping[str, str] = field(default_factory=dict[str, str])
    body: bytes | None = None
    connect_timeout: float | None = None
    """Seconds for DNS, TCP and TLS; ``None`` for no separate limit."""
    signed_with: Hidden[tuple[str, ...]] | None = None
    """Keys used for a signature in `headers`. They are not sent, and must never be shown."""

    def secrets(self) -> Hidden[list[str]]:
        """The secrets of this request, longest first."""
        found = secrets_of(self.url, self.headers)
        if self.signed_with is not None:
            found = sorted([*found, *self.signed_with.reveal()], key=len, reverse=True)
        return Hidden(found)

    def __repr__(self) -> str:
        return f"Request({self.method!r}, {redacted_url(self.url)!r})"


class HttpResponse(Protocol):
    """A response whose head has arrived. An async context manager: leaving it frees the socket."""

    @property
    def status(self) -> int: ...

    @property
    def headers(self) -> Mapping[str, str]:
        """Header values by lower-case name."""
        ...

    async def read_some(self) -> bytes:
        """The next bytes of the body, decompressed, as they arrive; ``b""`` at its end.

        Raises:
            APIConnectionError: the connection broke before the body was complete.
        """
        ...

    async def read_all(self, limit: int = 1 << 20) -> bytes:
        """The rest of the body, at most `limit` bytes of it."""
        ...

    async def __aenter__(self) -> Self: ...

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
        /,
    ) -> None: ...


class PushingResponse:
    """An `HttpResponse` that passes its body on in the callback of the socket; see `pour`."""

    async def pour(self, take: Callable[[bytes], bool]) -> bool:
        """See the function `pour`."""
        raise NotImplementedError


class ResponseAround:
    """An `HttpResponse` that wraps another one, to change or observe its body: override `read_some`.

    It does not push its body, so each piece passes through `read_some`.
    """

    def __init__(self, inner: HttpResponse) -> None:
        self._inner = inner

    @property
    def status(self) -> int:
        """See `HttpResponse.status`."""
        return self._inner.status

    @property
    def headers(self) -> Mapping[str, str]:
        """See `HttpResponse.headers`."""
        return self._inner.headers

    async def read_some(self) -> bytes:
        """See `HttpResponse.read_some`."""
        return await self._inner.read_some()

    async def read_all(self, limit: int = 1 << 20) -> bytes:
        """See `HttpResponse.read_all`."""
        return await read_up_to(limit, self.read_some)

    async def __aenter__(self) -> Self:
        await self._inner.__aenter__()
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self._inner.__aexit__(exc_type, exc, traceback)


async def pour(response: HttpResponse, take: Callable[[bytes], bool]) -> bool:
    """Pass the body of `response` to `take`, piece by piece as it arrives, until `take` returns False
    or the body ends. Returns whether the body has ended.

    `take` may be called in the callback of a socket, so it must return quickly.

    Raises:
        APIConnectionError: the connection broke before the body was complete.
    """
    if isinstance(response, PushingResponse):
        return await response.pour(take)
    while data := await response.read_some():
        if not take(data):
            return False
    return True


@runtime_checkable
class HttpTransport(Protocol):
    """Sends requests. May be used from several event loops, each with its own connections."""

    async def send(self, request: Request) -> HttpResponse:
        """Send `request`, and return when the head of the response has arrived.

        Returns for every status; the caller decides what it means. The only deadline here is
        `Request.connect_timeout`; the caller has its own deadlines and cancels.

        Raises:
            APIConnectionError: no response arrived.
            APITimeoutError: no connection within `connect_timeout`.
            APIStatusError: a redirect that is not followed.
            WireError: the response is not HTTP.
            ConfigurationError: the request cannot be sent (bad URL, bad header value).
        """
        ...

    async def prewarm(self, url: str, *, timeout: float = 10.0) -> None:
        """Open a connection to the origin of `url` and keep it. Errors are ignored."""
        ...

    async def aclose(self) -> None: ...


async def read_up_to(limit: int, read_some: Callable[[], Awaitable[bytes]]) -> bytes:
    """Read the rest of a body by `read_some`, at most `limit` bytes: an implementation of
    `read_all`."""
    parts: list[bytes] = []
    size = 0
    while size < limit and (data := await read_some()):
        parts.append(data)
        size += len(data)
    return b"".join(parts)[:limit]


def request_id(headers: Mapping[str, str]) -> str | None:
    """The provider's id of a request, from any of the usual header fields."""
    for name in ("x-request-id", "request-id", "x-amzn-requestid", "apim-request-id"):
        value = headers.get(name)
        if value:
            return value
    return None
