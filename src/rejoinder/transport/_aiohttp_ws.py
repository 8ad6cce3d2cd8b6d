"""WebSockets over aiohttp: an `AiohttpTransport` opens them with its own pool, proxy and TLS."""

from __future__ import annotations

import asyncio
from collections.abc import Sized
from typing import Final

import aiohttp

from rejoinder._aio import within
from rejoinder._foreign import read
from rejoinder._secrets import Redactor, forget_frames, one_line
from rejoinder.errors import APIConnectionError, APIStatusError
from rejoinder.transport import flood
from rejoinder.transport._addresses import check_headers, parse_url
from rejoinder.transport._aiohttp import AiohttpTransport
from rejoinder.transport._aiohttp_errors import FOREIGN, translate
from rejoinder.transport._aiohttp_veil import unveil, veil
from rejoinder.transport.http import Request
from rejoinder.transport.ws import Closed, SocketRequest, WireFrame

__all__ = ["AiohttpWebSocketTransport"]

_CLOSE_TIMEOUT: Final = 0.5
_QUOTED: Final = 1 << 16
"""Maximum characters of a frame that is searched for credentials: errors are short, sound is long."""
_SIGNS_AT_ONCE: Final = 64
"""Pings and pongs taken before yielding to the event loop: tens of thousands fit into one read."""
_SCHEMES: Final = {"ws": "http", "wss": "https"}


class AiohttpWebSocketTransport:
    """A `WebSocketTransport` on top of an `AiohttpTransport`, which the caller closes."""

    def __init__(self, http: AiohttpTransport) -> None:
        self._http = http

    async def connect(self, request: SocketRequest) -> _Socket:
        """See `WebSocketTransport.connect`."""
        try:
            return await self._connect(request)
        except BaseException as error:
            forget_frames(error)
            raise

    async def _connect(self, request: SocketRequest) -> _Socket:
        """Like `AiohttpTransport._send`: no error shows the frames below."""
        check_headers(request.headers)
        url = parse_url(_as_http(request.url))
        asked = Request("GET", str(url), request.headers, connect_timeout=request.connect_timeout)
        pool, proxy = await self._http.borrow(url)
        bare, mark = veil(url) if pool.owned else (url, None)
        failure: Exception
        try:
            async with within(request.connect_timeout):
                return _Socket(
                    await pool.session.ws_connect(
                        bare,
                        headers=request.headers,
                        proxy=None if proxy is None else proxy.url,
                        proxy_headers=None if proxy is None else proxy.headers,
                        autoping=False,
                        autoclose=True,
                        heartbeat=None,
                        compress=0,
                        max_msg_size=request.max_frame,
                        timeout=aiohttp.ClientWSTimeout(ws_close=_CLOSE_TIMEOUT),  # pyright: ignore[reportCallIssue]
                    ),
                    Redactor(asked.secrets().reveal()),
                )
        except aiohttp.WSServerHandshakeError as caught:
            status = caught.status
            failure = APIStatusError(
                f"{asked!r}: the server refused the WebSocket with status {status}",
                status_code=status,
            )
        except FOREIGN as caught:
            failure = translate(caught, asked, url, pool.owned, proxy)
        finally:
            unveil(mark)
        # Outside the handler, so that no __context__ leads to what holds keys.
        raise failure

    async def aclose(self) -> None:
        await self._http.aclose()


def _as_http(url: str) -> str:
    scheme, mark, rest = url.partition("://")
    return f"{_SCHEMES.get(scheme.lower(), scheme)}{mark}{rest}"


class _Socket:
    """Args:
    redactor: removes the request's credentials from short frames and from close reasons.
    """

    __slots__ = ("_flood", "_loop", "_raw", "_redactor", "heard_at")

    def __init__(self, raw: aiohttp.ClientWebSocketResponse, redactor: Redactor) -> None:
        self._raw = raw
        self._redactor = redactor
        self._flood = flood.Flood(flood.MOST_SIGNS)
        self._loop = asyncio.get_running_loop()
        self.heard_at = self._loop.time()

    async def send(self, frame: WireFrame) -> None:
        raw = self._raw
        try:
            if isinstance(frame, str):
                await raw.send_str(frame)
            else:
                await raw.send_bytes(frame)
        except (aiohttp.ClientError, OSError, RuntimeError) as error:
            raise APIConnectionError(
                f"the WebSocket has ended; a frame could not be sent ({type(error).__name__})"
            ) from None

    async def receive(self) -> WireFrame | Closed:
        raw = self._raw
        signs = 0
        while True:
            try:
                message = await raw.receive()
            except (aiohttp.ClientError, OSError, RuntimeError, ValueError) as error:
                return Closed(raw.close_code, type(error).__name__)
            self.heard_at = self._loop.time()
            kind = message.type
            if kind is aiohttp.WSMsgType.TEXT:
                text: str = message.data
                return text if len(text) > _QUOTED else self._redactor.text(text)
            if kind is aiohttp.WSMsgType.BINARY:
                data: bytes = message.data
                return data if len(data) > _QUOTED else self._redactor.data(data)
            if kind is aiohttp.WSMsgType.PONG or kind is aiohttp.WSMsgType.PING:
                if kind is aiohttp.WSMsgType.PING:
                    await self._answer(message.data)
                if self._flood.one_more(self.heard_at):
                    return Closed(1008, self._flood.told("pings and pongs"))
                signs += 1
                if signs % _SIGNS_AT_ONCE == 0:
                    await asyncio.sleep(0)
                continue
            if kind is aiohttp.WSMsgType.CLOSE:
                return Closed(message.data, self._shown(message.extra or ""))
            if kind is aiohttp.WSMsgType.ERROR:
                return Closed(raw.close_code, self._shown(message.data))
            return Closed(raw.close_code)  # CLOSING, CLOSED

    def _shown(self, reason: object) -> str:
        return one_line(self._redactor.text(str(reason)))

    async def _answer(self, ping: bytes) -> None:
        try:
            await self._raw.pong(ping)
        except (aiohttp.ClientError, OSError, RuntimeError):
            return  # its end is reported by `receive`

    async def ping(self) -> None:
        try:
            await self._raw.ping()
        except (aiohttp.ClientError, OSError, RuntimeError):
            return  # its end is reported by `receive`

    async def aclose(self, code: int = 1000) -> None:
        # To find the peer's close frame, aiohttp reads all that has arrived, without yielding.
        # With much unread data, the close frame is not worth that.
        waiting = read(self._raw, "_reader._buffer", Sized)
        if waiting is not None and len(waiting) > _SIGNS_AT_ONCE:
            connection = read(self._raw, "_response.connection", aiohttp.connector.Connection)
            if connection is not None:
                connection.close()
        try:
            async with asyncio.timeout(2 * _CLOSE_TIMEOUT):
                await self._raw.close(code=code)
        except (aiohttp.ClientError, OSError, RuntimeError, TimeoutError):
            return
