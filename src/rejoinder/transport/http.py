"""HTTP as this package sees it: one request out, one body in, on a page.

`rejoinder.transport._aiohttp` is the implementation; `rejoinder.testing` has others. Anything that
has these methods can take their place.
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
    "closed: `aclose()` was called, or `async with` left, before this request; make a new LLM"
)
"""What those hear who ask a transport that was closed."""


@dataclass(frozen=True, slots=True)
class Request:
    """One HTTP request, complete: the URL with its query, the headers with their credentials.

    Its `repr` shows neither.
    """

    method: str
    url: str
    headers: Mapping[str, str] = field(default_factory=dict[str, str])
    body: bytes | None = None
    connect_timeout: float | None = None
    """Seconds for name look-up, TCP and TLS. ``None``: no limit of its own."""
    signed_with: Hidden[tuple[str, ...]] | None = None
    """Keys that made a signature in `headers`: they are not sent, and must not be shown."""

    def secrets(self) -> Hidden[list[str]]:
        """The secrets of this request, longest first."""
        found = secrets_of(self.url, self.headers)
        if self.signed_with is not None:
            found = sorted([*found, *self.signed_with.reveal()], key=len, reverse=True)
        return Hidden(found)

    def __repr__(self) -> str:
        return f"Request({self.method!r}, {redacted_url(self.url)!r})"


class HttpResponse(Protocol):
    """An answer whose head has arrived. An async context manager: leaving it frees the socket."""

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
    """An `HttpResponse` that hands its body over in the callback of the socket; see `pour`."""

    async def pour(self, take: Callable[[bytes], bool]) -> bool:
        """See the function `pour`."""
        raise NotImplementedError


class ResponseAround:
    """An `HttpResponse` that changes or notes what another one gives: override `read_some`.

    It does not push its body, so each piece goes through `read_some`.
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
    """Give the body of `response` to `take`, piece by piece as it arrives, until `take` returns False
    or the body ends. Returns whether the body has ended.

    `take` may be called from the callback of a socket: it must not wait and must return soon.

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
        """Send `request`, and return when the head of the answer has arrived.

        Whatever the status: it is for the caller to judge. There is no other deadline than
        `Request.connect_timeout`; the caller keeps its own and cancels.

        Raises:
            APIConnectionError: no answer.
            APITimeoutError: no connection within `connect_timeout`.
            APIStatusError: a redirect that is not followed.
            WireError: the answer is not HTTP.
            ConfigurationError: the request cannot be sent (bad URL, bad header value).
        """
        ...

    async def prewarm(self, url: str, *, timeout: float = 10.0) -> None:
        """Open a connection to the origin of `url` and keep it. Errors are swallowed."""
        ...

    async def aclose(self) -> None: ...


async def read_up_to(limit: int, read_some: Callable[[], Awaitable[bytes]]) -> bytes:
    """What `read_some` of an `HttpResponse` gives until its end, at most `limit` bytes: its
    `read_all`."""
    parts: list[bytes] = []
    size = 0
    while size < limit and (data := await read_some()):
        parts.append(data)
        size += len(data)
    return b"".join(parts)[:limit]


def request_id(headers: Mapping[str, str]) -> str | None:
    """The provider's name for a request, under any of the header fields in use."""
    for name in ("x-request-id", "request-id", "x-amzn-requestid", "apim-request-id"):
        value = headers.get(name)
        if value:
            return value
    return None
