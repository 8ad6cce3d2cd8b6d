"""HTTP over aiohttp. `rejoinder.transport._aiohttp_errors` translates its errors into ours.

The rules of this module:

- Each event loop has its own pool of connections. The pool is created at the loop's first request and
  closed with the loop, even if `aclose` is never called. After a fork, the child creates its own pool
  and does not touch the parent's sockets.
- No cookies and no credentials from netrc. The only deadline is the one for connecting; the caller
  limits silence, because it knows what counts as an answer.
- Only redirects with status 307 and 308 are followed. Another origin receives the body and a few
  harmless header fields, but never a key. A redirect from https to http is refused. A session of your
  own that adds header fields to every request is never redirected to another origin.
- A request is sent once. If a pooled connection dies, the server may already have read (and billed)
  the request. So only the caller's visible retry sends it again, after a first pause of 0.1 s. A
  connection that the server has closed properly is never picked. If that is noticed after it was picked
  but before the first byte was sent, another connection replaces it.
- An unsolicited response must not become the response to the next request; see
  `rejoinder.transport._aiohttp_reuse`. (A session of your own has aiohttp's pool, which does not check
  this.)
- A connection with an unread body is closed, not drained, unless the rest of the body arrives within a
  moment: servers send the last few bytes of a stream separately.
- Messages and causes hold no header values and no query of a URL. No error leaves this module with a
  frame that has them as local variables, because error reporters print those. Tracing of sessions sees
  no user, password or query; see `rejoinder.transport._aiohttp_veil`. (For a session of your own,
  aiohttp's own tracing applies.)
"""

from __future__ import annotations

import asyncio

# Python imports it when it first looks up the address of a host.
import encodings.idna  # noqa: F401  # pyright: ignore[reportUnusedImport]
import io
import os
import ssl as ssl_module
import weakref
from collections.abc import AsyncGenerator, Iterator, Mapping
from types import TracebackType
from typing import Final, Self, cast

import aiohttp
from aiohttp import ClientSession
from multidict import CIMultiDictProxy
from yarl import URL

from rejoinder.__about__ import __version__
from rejoinder._options import AMOUNT, WHOLE, checked
from rejoinder._secrets import forget_frames
from rejoinder._sections import explained
from rejoinder.errors import (
    APIConnectionError,
    APIError,
    APIStatusError,
    APITimeoutError,
    ConfigurationError,
)
from rejoinder.transport._addresses import (
    FOR_STRANGERS,
    REDIRECTS,
    Proxy,
    check_headers,
    has_field,
    origin_of,
    parse_url,
    proxy_from_environment,
    redirect_target,
    tls_of,
)
from rejoinder.transport._aiohttp_errors import FOREIGN, clean, translate
from rejoinder.transport._aiohttp_push import Take, can_push, push
from rejoinder.transport._aiohttp_reuse import Connector, NotSentError, OneAnswerRequest
from rejoinder.transport._aiohttp_veil import unveil, veil
from rejoinder.transport.http import (
    CLOSED,
    HttpResponse,
    PushingResponse,
    Request,
    read_up_to,
    request_id,
)

__all__ = ["AiohttpTransport", "ClientSession"]

USER_AGENT: Final = f"rejoinder/{__version__}"

_READ_SIZE: Final = 1 << 16  # aiohttp buffers at most twice this much of a body, decompressed
_LARGE_BODY: Final = 1 << 20  # pass larger bodies as files, so that aiohttp writes them in pieces
_KEEP_ALIVE: Final = 60.0  # seconds to keep an idle connection: longer than most pauses in a talk
_LINGER: Final = 0.25  # seconds to wait for the end of a body after the caller stopped reading
_MAX_REDIRECTS: Final = 5
_MAX_REPLACED: Final = 3  # unusable pooled connections that one request may replace


class AiohttpTransport:
    """An `HttpTransport`. It is cheap to create, and needs no running loop for that.

    Args:
        session: your own `aiohttp.ClientSession`, with its connector, proxy, TLS settings and default
            header fields. It is used on the loop it was created in, and never closed here. The
            other arguments do not apply to it.
        ssl: ``True`` verifies certificates, ``False`` does not, an `ssl.SSLContext` can hold a
            client certificate or your own authorities, and a string is the path of a file with
            certificates of authorities (PEM).
        proxy: URL of a proxy for all requests, ``http://user:password@host:port``.
        trust_env: without `proxy`, take proxies from ``HTTPS_PROXY``, ``HTTP_PROXY``, ``ALL_PROXY``
            and ``NO_PROXY``, read once for each origin. netrc files are never read.
        max_connections: maximum number of open connections per loop. Further requests wait, within
            their `connect_timeout`. 0: no limit.
        keep_alive: seconds to keep an idle connection.

    Raises:
        ConfigurationError: `session`, `proxy` or `ssl` cannot be used.
    """

    @checked(max_connections=WHOLE, keep_alive=AMOUNT)
    def __init__(
        self,
        session: aiohttp.ClientSession | None = None,
        *,
        ssl: ssl_module.SSLContext | bool | str = True,
        proxy: str | None = None,
        trust_env: bool = True,
        max_connections: int = 0,
        keep_alive: float = _KEEP_ALIVE,
    ) -> None:
        if session is not None and not isinstance(cast("object", session), aiohttp.ClientSession):
            raise ConfigurationError(
                "http_session: expected an aiohttp.ClientSession, got "
                f"{type(cast('object', session)).__name__}"
            )
        self._session = session
        self._ssl = tls_of(ssl)
        self._proxy = None if proxy is None else Proxy(proxy, "proxy")
        self._trust_env = trust_env
        self._max_connections = max_connections
        self._keep_alive = keep_alive
        self._pools: dict[asyncio.AbstractEventLoop, _Pool] = {}
        self._latest: _Pool | None = None
        self._proxies: dict[str, Proxy | None] = {}
        self._timeouts: dict[float | None, aiohttp.ClientTimeout] = {}
        self._closed = False

    async def send(self, request: Request) -> HttpResponse:
        """Send `request`; see `HttpTransport.send`.

        Raises:
            APIConnectionError: no answer: refused, reset, name unknown, certificate refused.
            APITimeoutError: no connection within `Request.connect_timeout`.
            APIStatusError: a redirect that is not followed.
            WireError: the answer is not HTTP.
            ConfigurationError: the request cannot be sent (bad URL, bad header value).
        """
        try:
            return await self._send(request)
        except BaseException as error:
            forget_frames(error)
            raise

    async def _send(self, request: Request) -> _Response:
        """Send `request`. The frames below hold header fields and URLs, so no error may show them."""
        check_headers(request.headers)
        url = parse_url(request.url)
        headers: Mapping[str, str] = request.headers
        if url.raw_user is not None and has_field(headers, "authorization"):
            raise ConfigurationError(
                f"the URL of {origin_of(url)} holds a user name, and the request an Authorization "
                "header; remove one of them (often: the user name in `base_url`)"
            )
        pool = self._pool()
        if pool.guard is None:
            await pool.watch(self)
        redirects = replaced = 0
        while True:
            try:
                raw = await self._exchange(pool, request, url, headers)
            except APIConnectionError as error:
                replaced += 1
                if replaced > _MAX_REPLACED or not isinstance(error.__cause__, NotSentError):
                    raise
                continue
            location = raw.headers.get("Location") if raw.status in REDIRECTS else None
            if not location:
                return _Response(raw, pool, url, request)
            _abandon(raw)
            target = redirect_target(request.method, raw.status, url, location)
            redirects += 1
            if redirects > _MAX_REDIRECTS:
                raise APIStatusError(
                    f"{request.method} {origin_of(parse_url(request.url))}: more than "
                    f"{_MAX_REDIRECTS} redirects, the last one to {origin_of(target)}",
                    status_code=raw.status,
                    retryable=False,
                )
            if target.origin() != url.origin():
                if not pool.owned and _adds_fields(pool.session):
                    raise APIStatusError(
                        f"{request.method} {origin_of(url)} was redirected to {origin_of(target)}, and "
                        "the given aiohttp.ClientSession would send its own header fields or "
                        "`auth` there too; set `base_url` to the address the server names",
                        status_code=raw.status,
                        retryable=False,
                    )
                headers = {k: v for k, v in headers.items() if k.lower() in FOR_STRANGERS}
            url = target

    async def prewarm(self, url: str, *, timeout: float = 10.0) -> None:
        """Open a connection to the origin of `url` and keep it. Sends one request without a body or
        credentials, and ignores its response and any error."""
        try:
            origin = parse_url(url).origin()
            pool = self._pool()
            if pool.guard is None:
                await pool.watch(self)
            request = Request("HEAD", str(origin), connect_timeout=timeout)
            async with asyncio.timeout(timeout):
                raw = await self._exchange(pool, request, origin, request.headers)
                _abandon(raw)
        except (APIError, ConfigurationError, TimeoutError):
            return

    async def aclose(self) -> None:
        """Close all connections, even those in use. A session of your own stays open."""
        self._closed = True
        self._latest = None
        here = asyncio.get_running_loop()
        for loop, pool in list(self._pools.items()):
            self._pools.pop(loop, None)
            if loop is here:
                await pool.aclose()
            elif loop.is_running():  # in another thread
                loop.call_soon_threadsafe(_close_soon, pool)
            else:
                pool.discard()

    # -- one exchange ------------------------------------------------------------------------

    async def _exchange(
        self, pool: _Pool, request: Request, url: URL, headers: Mapping[str, str]
    ) -> aiohttp.ClientResponse:
        body = request.body
        data = io.BytesIO(body) if body is not None and len(body) > _LARGE_BODY else body
        proxy = self._proxy_for(url) if pool.owned else None
        bare, mark = veil(url) if pool.owned else (url, None)
        error: Exception
        try:
            if proxy is None:
                return await pool.session.request(
                    request.method,
                    bare,
                    data=data,
                    headers=headers,
                    allow_redirects=False,
                    timeout=self._timeout(request.connect_timeout),
                    auto_decompress=True,
                    raise_for_status=False,
                    read_bufsize=_READ_SIZE,
                )
            tunnel = url.scheme == "https"
            return await pool.session.request(
                request.method,
                bare,
                data=data,
                headers=headers if tunnel else {**headers, **proxy.headers},
                allow_redirects=False,
                timeout=self._timeout(request.connect_timeout),
                proxy=proxy.url,
                proxy_headers=proxy.headers if tunnel else None,
                read_bufsize=_READ_SIZE,
            )
        except FOREIGN as caught:
            error = caught
        except RuntimeError as caught:
            if not pool.session.closed:
                raise
            error = caught
        finally:
            unveil(mark)
        # Outside the handler, so that no __context__ leads to what may hold keys.
        raise translate(error, request, url, pool.owned, proxy)

    async def borrow(self, url: URL) -> tuple[_Pool, Proxy | None]:
        """The connections of this loop and the proxy for `url`, for another protocol of this package."""
        pool = self._pool()
        if pool.guard is None:
            await pool.watch(self)
        return pool, self._proxy_for(url) if pool.owned else None

    def _timeout(self, connect: float | None) -> aiohttp.ClientTimeout:
        timeout = self._timeouts.get(connect)
        if timeout is None:
            if len(self._timeouts) >= 64:
                self._timeouts.clear()
            # For aiohttp, 0 means no limit.
            limit = connect if connect is None or connect > 0 else 0.001
            timeout = aiohttp.ClientTimeout(total=None, connect=limit, sock_read=None)
            self._timeouts[connect] = timeout
        return timeout

    def _proxy_for(self, url: URL) -> Proxy | None:
        if self._proxy is not None or not self._trust_env:
            return self._proxy
        key = f"{url.scheme}://{url.raw_authority}"
        try:
            return self._proxies[key]
        except KeyError:
            proxy = self._proxies[key] = proxy_from_environment(url)
            return proxy

    # -- pools -------------------------------------------------------------------------------

    def _pool(self) -> _Pool:
        loop = asyncio.get_running_loop()
        pool = self._latest
        if pool is not None and pool.loop is loop and pool.pid == os.getpid():
            return pool
        return self._find_pool(loop)

    def _find_pool(self, loop: asyncio.AbstractEventLoop) -> _Pool:
        if self._closed:
            raise APIConnectionError(CLOSED, retryable=False).but(section="closed")
        pid = os.getpid()
        for other, pool in list(self._pools.items()):
            if pool.pid != pid:
                # The parent shares these sockets and their selector. Closing the sockets here, or
                # letting them be collected, would remove them from that selector.
                _LEFT_TO_THE_PARENT.append(pool)
                del self._pools[other]
            elif other.is_closed():
                del self._pools[other]
                pool.discard()
        pool = self._pools.get(loop)
        if pool is None:
            pool = self._pools[loop] = self._make_pool(loop, pid)
        self._latest = pool
        return pool

    def _make_pool(self, loop: asyncio.AbstractEventLoop, pid: int) -> _Pool:
        session = self._session
        if session is not None:
            home = getattr(session, "_loop", loop)
            if home is not loop:
                message = (
                    "the given aiohttp.ClientSession was made in another event loop; "
                    "omit it, and each loop gets its own connections"
                )
                raise ConfigurationError(explained(message, "other loop"))
            return _Pool(loop, pid, session, owned=False)
        return _Pool(
            loop,
            pid,
            aiohttp.ClientSession(
                connector=Connector(
                    ssl=self._ssl,
                    limit=self._max_connections,
                    keepalive_timeout=self._keep_alive,
                ),
                cookie_jar=aiohttp.DummyCookieJar(),
                headers={"User-Agent": USER_AGENT},
                timeout=aiohttp.ClientTimeout(total=None),
                request_class=OneAnswerRequest,
                response_class=_AiohttpResponse,
                trust_env=False,
                requote_redirect_url=False,
            ),
            owned=True,
        )


class _Pool:
    """The connections of one event loop."""

    def __init__(
        self, loop: asyncio.AbstractEventLoop, pid: int, session: aiohttp.ClientSession, owned: bool
    ) -> None:
        self.loop = loop
        self.pid = pid
        self.session = session
        self.owned = owned
        self.open: set[aiohttp.ClientResponse] = set()  # being read, or lingering
        self.guard: AsyncGenerator[None, None] | None = None

    async def watch(self, transport: AiohttpTransport) -> None:
        """Tie the session to the end of its loop."""
        session = self.session if self.owned else None
        self.guard = _guard(session, self.open, weakref.ref(transport), self.loop)
        await self.guard.__anext__()

    def linger(self, raw: aiohttp.ClientResponse) -> None:
        """Wait a moment for the end of a body, so that its connection can be reused."""
        timer = self.loop.call_later(_LINGER, self._give_up, raw)

        def ended() -> None:
            timer.cancel()
            self.open.discard(raw)

        raw.content.on_eof(ended)

    def _give_up(self, raw: aiohttp.ClientResponse) -> None:
        self.open.discard(raw)
        _abandon(raw)

    async def aclose(self) -> None:
        # If only the session were closed, tasks that read a body would wait for ever.
        for raw in list(self.open):
            self._give_up(raw)
        if self.guard is not None:
            await self.guard.aclose()
        if self.owned and not self.session.closed:
            await self.session.close()
        await asyncio.sleep(0)  # transports report their end one turn of the loop later

    def discard(self) -> None:
        """Discard a pool whose loop no longer runs."""
        if self.owned and self.loop.is_closed() and not self.session.closed:
            closing = self.session.close()
            try:
                closing.send(None)  # the loop is closed, so there is nothing to wait for
            except (StopIteration, RuntimeError):
                pass
            finally:
                closing.close()


async def _guard(
    session: aiohttp.ClientSession | None,
    unfinished: set[aiohttp.ClientResponse],
    transport: weakref.ref[AiohttpTransport],
    loop: asyncio.AbstractEventLoop,
) -> AsyncGenerator[None, None]:
    """Closes unfinished responses and the session when this generator is closed.

    An event loop closes its asynchronous generators before it ends (`asyncio.run` does this), and when
    they are garbage. So a transport that was never closed leaves no sockets and causes no warnings. The
    generator must not refer to its pool."""
    try:
        yield
    finally:
        owner = transport()
        if owner is not None:
            owner._pools.pop(loop, None)
            if owner._latest is not None and owner._latest.loop is loop:
                owner._latest = None
        for raw in list(unfinished):
            _abandon(raw)
        unfinished.clear()
        if session is not None:
            await session.close()


_LEFT_TO_THE_PARENT: Final[list[_Pool]] = []


def _close_soon(pool: _Pool) -> None:
    task = pool.loop.create_task(pool.aclose())
    _CLOSING.add(task)
    task.add_done_callback(_CLOSING.discard)


_CLOSING: Final[set[asyncio.Task[None]]] = set()


class _Fields(Mapping[str, str]):
    """Header fields by lower-case name. A repeated name has all its values."""

    __slots__ = ("_raw",)

    def __init__(self, raw: CIMultiDictProxy[str]) -> None:
        self._raw = raw

    def __getitem__(self, name: str) -> str:
        return ", ".join(self._raw.getall(name))

    def __contains__(self, name: object) -> bool:
        return name in self._raw

    def __iter__(self) -> Iterator[str]:
        return iter(dict.fromkeys(name.lower() for name in self._raw))

    def __len__(self) -> int:
        return len(set(self))


class _Response(PushingResponse):
    """An `HttpResponse`."""

    __slots__ = ("_content", "_headers", "_pool", "_raw", "_request", "_url", "status")

    def __init__(
        self, raw: aiohttp.ClientResponse, pool: _Pool, url: URL, request: Request
    ) -> None:
        self._request = request
        self.status = raw.status
        self._raw = raw
        self._content = raw.content
        self._pool = pool
        self._url = url
        self._headers: _Fields | None = None
        pool.open.add(raw)

    @property
    def headers(self) -> Mapping[str, str]:
        headers = self._headers
        if headers is None:
            headers = self._headers = _Fields(self._raw.headers)
        return headers

    async def read_some(self) -> bytes:
        try:
            return await self._content.readany()
        except FOREIGN as caught:
            rest = _unread(self._content)
            if rest:
                return rest  # the bytes before the error; the next read raises it again
            error = caught
        raise self._broken(error) from clean(error, self._request)

    async def pour(self, take: Take) -> bool:
        """See `rejoinder.transport.http.pour`."""
        content = self._content
        while not can_push(content):
            data = await self.read_some()
            if not data:
                return True
            if not take(data):
                return False
        try:
            outcome = await push(content, take)
        except FOREIGN as caught:
            error = caught
        else:
            if isinstance(outcome, Exception):
                raise outcome
            return outcome is None
        raise self._broken(error) from clean(error, self._request)

    async def read_all(self, limit: int = 1 << 20) -> bytes:
        return await read_up_to(limit, self.read_some)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        raw = self._raw
        if exc_type is None and not raw.content.is_eof() and raw.content.exception() is None:
            self._pool.linger(raw)
        else:
            self._pool.open.discard(raw)
            _abandon(raw)

    def _broken(self, error: Exception) -> APIError:
        place = origin_of(self._url)
        name = request_id(self.headers)
        suffix = "" if name is None else f" (request_id={name})"
        if isinstance(error, TimeoutError):
            return APITimeoutError(f"{place}: the connection timed out{suffix}")
        if isinstance(error, aiohttp.ClientPayloadError):
            if "encod" in str(error).lower() and "Content-Encoding" in self._raw.headers:
                return APIConnectionError(
                    f"{place}: the body cannot be decompressed, or was cut short{suffix}"
                )
            return APIConnectionError(
                f"{place}: the connection closed before the body was complete{suffix}"
            ).but(section="cut")
        return APIConnectionError(f"{place}: the connection broke within the body{suffix}")


def _unread(content: aiohttp.StreamReader) -> bytes:
    """Bytes that arrived before the error of `content`. aiohttp hides them behind the error."""
    if not getattr(content, "_buffer", None):
        return b""
    error = content.exception()
    content._exception = None  # pyright: ignore[reportAttributeAccessIssue]
    try:
        return content.read_nowait()
    except Exception:  # an internal of aiohttp has changed: lose these bytes
        return b""
    finally:
        content._exception = error  # pyright: ignore[reportAttributeAccessIssue]


class _AiohttpResponse(aiohttp.ClientResponse):
    """Closes its connection at once. A normal close would first wait until the peer has read the rest of
    the request and has answered TLS's close notification: half a minute, or for ever."""

    def close(self) -> None:
        connection = self.connection
        if connection is not None and connection.transport is not None:
            connection.transport.abort()
        super().close()


def _abandon(raw: aiohttp.ClientResponse) -> None:
    """Return the connection to the pool if the body is complete, else close it."""
    if raw.content.is_eof():
        raw.release()
    else:
        raw.close()


def _adds_fields(session: aiohttp.ClientSession) -> bool:
    """Whether `session` adds header fields to every request that another origin must not see."""
    if getattr(session, "auth", None) is not None:
        return True
    return any(name.lower() not in FOR_STRANGERS for name in session.headers)
