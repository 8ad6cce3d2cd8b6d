"""Streams over HTTP/2: requests whose body and response are sent at the same time.

A stream has the methods of a `rejoinder.transport.ws.WebSocket`; its frames are pieces of the response
body as they arrive. Each stream has its own TCP connection: ``https`` URLs use TLS and agree on HTTP/2
by ALPN, ``http`` URLs use HTTP/2 by prior knowledge (RFC 9113 section 3.3).

Flow control works in both directions: `send` waits for the windows of the peer, and unread data is not
acknowledged, so memory is bounded by the window. The number of frames that are read in one turn of the
loop is bounded.
"""

from __future__ import annotations

import asyncio
import ssl as ssl_module
import struct
from collections.abc import Callable, Mapping
from typing import Final, cast

from yarl import URL

from rejoinder._aio import within
from rejoinder._sections import explained
from rejoinder.errors import (
    APIConnectionError,
    APIError,
    APITimeoutError,
    ConfigurationError,
)
from rejoinder.transport import flood
from rejoinder.transport._addresses import (
    Proxy,
    check_headers,
    origin_of,
    parse_url,
    proxy_from_environment,
    tls_of,
)
from rejoinder.transport.http import CLOSED
from rejoinder.transport.ws import Closed, SocketRequest, WireFrame

try:
    import h2.config
    import h2.connection
    import h2.errors
    import h2.events
    import h2.exceptions
    import h2.settings
except ImportError as error:
    raise ConfigurationError(
        explained("HTTP/2 needs the package h2; pip install 'rejoinder[aws]'", "missing package")
    ) from error

__all__ = ["H2Stream", "H2Transport"]

_WINDOW: Final = 1 << 20
"""Maximum bytes that the peer may send before they are received from the stream."""
_CLOSE_TIMEOUT: Final = 0.4
"""Seconds that each half of a close may take: the peer's end of the stream, and that of TCP."""
_FRAME_HEAD: Final = 9
_PROXY_HEAD: Final = 1 << 14
_MAX_UNREAD: Final = 1 << 22
"""Bytes of answers to pings and settings that a peer may leave unread."""
_AT_ONCE: Final = 128
"""Frames of the peer that are read in one turn of the loop. The smallest have 9 bytes, so that one
read of the socket may hold 29,000."""
_PIECE: Final = 1 << 16
"""Bytes that `receive` returns at most."""
_MAX_FIELDS: Final = 1 << 15
"""Bytes of the header fields of an answer, packed."""
_HEADERS: Final = 1
_GOAWAY: Final = 7
_ORDINARY: Final = frozenset({0, 1, 8, 9})
"""Kinds of frames that come with sound and text: DATA, HEADERS, WINDOW_UPDATE, CONTINUATION."""
_CONTINUATION: Final = 9
_NO_LONGER_SENT: Final = frozenset({"connection", "host", "keep-alive", "transfer-encoding", "te"})


class H2Transport:
    """Opens streams, each over a connection of its own.

    Args:
        ssl: ``True``, a context (ALPN is set on it), the path of a PEM file with authorities, or
            ``False`` for no verification.
        trust_env: use the proxy from the environment.
    """

    def __init__(
        self, *, ssl: ssl_module.SSLContext | bool | str = True, trust_env: bool = True
    ) -> None:
        self._ssl = ssl
        self._context: ssl_module.SSLContext | None = None
        self._trust_env = trust_env
        self._streams: set[H2Stream] = set()
        self._closed = False

    async def connect(self, request: SocketRequest) -> H2Stream:
        """Open a stream: a POST whose body is sent by `send`. Does not wait for the response.

        Raises:
            APIConnectionError: no connection, or the server does not speak HTTP/2.
            APITimeoutError: no connection within `SocketRequest.connect_timeout`.
            ConfigurationError: the request cannot be sent (bad URL, bad header value).
        """
        if self._closed:
            raise APIConnectionError(CLOSED, retryable=False).but(section="closed")
        check_headers(request.headers)
        url = parse_url(request.url)
        place = f"POST {origin_of(url)}"
        error: APIError
        try:
            async with within(request.connect_timeout):
                stream = await self._open(url, request, place)
        except TimeoutError:
            limit = request.connect_timeout
            allowed = "" if limit is None else f" within {limit:g} s"
            error = APITimeoutError(f"{place}: no connection{allowed}").but(section="no connection")
        except ssl_module.SSLCertVerificationError as caught:
            error = APIConnectionError(
                f"{place}: the server's certificate is not trusted: {caught.verify_message}",
                retryable=False,
            ).but(section="certificate")
        except ssl_module.SSLError as caught:
            error = APIConnectionError(
                f"{place}: no TLS connection ({caught.reason or 'no reason'})"
            )
        except OSError as caught:
            what = caught.strerror or type(caught).__name__
            error = APIConnectionError(f"{place}: cannot connect ({what})").but(
                section="no connection"
            )
        else:
            self._streams.add(stream)
            stream.on_end = self._streams.discard
            return stream
        raise error from None

    async def aclose(self) -> None:
        """Close the streams. Idempotent, never raises."""
        self._closed = True
        for stream in list(self._streams):
            await stream.aclose()

    async def _open(self, url: URL, request: SocketRequest, place: str) -> H2Stream:
        loop = asyncio.get_running_loop()
        host, port = url.raw_host or "", url.port or 443
        context = await self._tls() if url.scheme == "https" else None
        proxy = proxy_from_environment(url) if self._trust_env else None
        if proxy is None:
            transport, stream = await loop.create_connection(
                lambda: H2Stream(place),
                host,
                port,
                ssl=context,
                server_hostname=host if context is not None else None,
            )
        else:
            transport, stream = await _through(proxy, host, port, context, place)
        try:
            if context is not None:
                _check_alpn(transport, place)
            stream.begin(_fields(url, request.headers))
        except BaseException:
            transport.abort()
            raise
        return stream

    async def _tls(self) -> ssl_module.SSLContext:
        if self._context is None:
            # Reading the authorities takes milliseconds.
            self._context = await asyncio.to_thread(_make_context, self._ssl)
        return self._context


class H2Stream(asyncio.Protocol):
    """One stream, as a `rejoinder.transport.ws.WebSocket`. Made by `H2Transport`.

    Attributes:
        heard_at: loop time of the last bytes that arrived, including pings and their answers.
        going_away: the server opens no more streams on this connection (GOAWAY), but lets this one
            run to its end.
        on_end: called once, when the connection has ended.
    """

    def __init__(self, place: str) -> None:
        self._loop = asyncio.get_running_loop()
        self._place = place
        config = h2.config.H2Configuration(client_side=True, header_encoding="latin-1")
        self._h2 = h2.connection.H2Connection(config)
        self._transport: asyncio.Transport | None = None
        self._stream = 1
        self._rest = b""
        """The received bytes. Those before `_at` have been read."""
        self._at = 0
        self._fields = 0
        """Bytes of the header fields that are arriving."""
        self._reading: asyncio.Handle | None = None
        """Reads the next frames of `_rest`. The connection is not read meanwhile."""
        self._after: Closed | None = None
        """The end of the connection, if it came before all frames were read."""
        self._unread = bytearray()
        self._owed = 0
        """Bytes of the window that `_unread` takes."""
        self._end: Closed | None = None
        """The end of the response. `receive` first returns the bytes before it."""
        self._arrived: asyncio.Future[None] | None = None
        self._sending = asyncio.Lock()
        self._torn = False
        self._ended_sending = False
        self._may_send: asyncio.Future[None] | None = None
        self._paused = False
        self._told_settings = False
        """The peer's window is known; servers that allow less than the default exist."""
        self._head: asyncio.Future[tuple[int, dict[str, str]]] = self._loop.create_future()
        self._ended: asyncio.Future[None] = self._loop.create_future()
        self._gone: asyncio.Future[None] = self._loop.create_future()
        self.heard_at = self._loop.time()
        self._flood = flood.Flood(flood.MOST_SIGNS)
        self._nudged = False
        self.going_away = False
        self.on_end: Callable[[H2Stream], None] | None = None

    # -- the seam ----------------------------------------------------------------------------

    async def head(self) -> tuple[int, Mapping[str, str]]:
        """The status and the header fields of the answer, once they have come.

        Raises:
            APIConnectionError: the stream ended before.
        """
        return await asyncio.shield(self._head)

    async def send(self, frame: WireFrame) -> None:
        """Send bytes; waits for the windows of the peer.

        A call that is cancelled before everything was sent tears the stream: it is reset.

        Raises:
            APIConnectionError: the stream has ended.
        """
        data = memoryview(frame.encode() if isinstance(frame, str) else frame)
        async with self._sending:
            sent = 0
            try:
                while sent < len(data):
                    size = min(len(data) - sent, self._room())
                    if size > 0:
                        self._h2.send_data(self._stream, data[sent : sent + size])
                        self._flush()
                        sent += size
                    else:
                        await self._wait_for_room()
            except asyncio.CancelledError:
                if sent:
                    self._torn = True
                    self._reset("a write was cancelled")
                raise

    async def receive(self) -> bytes | Closed:
        """The next bytes of the response, or its end; ``b""`` once, when `going_away` has become true.
        Never raises for any kind of end."""
        while not self._unread:
            if self._nudged:
                self._nudged = False
                return b""
            if self._end is not None:
                return self._end
            self._arrived = self._loop.create_future()
            await self._arrived
        data = bytes(self._unread[:_PIECE])
        del self._unread[:_PIECE]
        size = min(self._owed, len(data)) if self._unread else self._owed
        self._owed -= size
        self._acknowledge(size)
        return data

    async def ping(self) -> None:
        """Send a PING; its answer counts as a sign of life."""
        if self._end is None:
            self._h2.ping(b"rejoindr")
            self._flush()

    async def aclose(self, code: int = 1000) -> None:
        """End the stream and the connection, within about a second. Idempotent, never raises.

        A body that was sent as far as `send` returned is ended; the answer has a moment to end too.
        With another code than 1000 the stream is reset.
        """
        transport = self._transport
        if transport is None or self._gone.done():
            return
        if self._end is None:
            if self._sending.locked() or self._torn or code != 1000:
                self._reset("closed by this side")
            elif not self._ended_sending:
                self._ended_sending = True
                self._guarded(lambda: self._h2.end_stream(self._stream))
                await asyncio.wait([self._ended], timeout=_CLOSE_TIMEOUT)
                if self._end is None:
                    self._reset("closed by this side")
        self._guarded(self._h2.close_connection)
        transport.close()
        await asyncio.wait([self._gone], timeout=_CLOSE_TIMEOUT)
        if not self._gone.done():
            transport.abort()

    # -- the request -------------------------------------------------------------------------

    def begin(self, fields: list[tuple[str, str]]) -> None:
        """Send the head of the request."""
        codes = h2.settings.SettingCodes
        self._h2.local_settings = h2.settings.Settings(
            client=True,
            initial_values={codes.INITIAL_WINDOW_SIZE: _WINDOW, codes.ENABLE_PUSH: 0},
        )
        self._h2.initiate_connection()
        self._h2.increment_flow_control_window(_WINDOW)
        self._h2.send_headers(self._stream, fields)
        self._flush()

    # -- asyncio.Protocol --------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)

    def data_received(self, data: bytes) -> None:
        self.heard_at = self._loop.time()
        if self._end is not None:
            return
        self._rest = self._rest[self._at :] + data
        self._at = 0
        if self._reading is None:
            self._read()

    def eof_received(self) -> None:
        self._disconnected("the server closed the connection")

    def connection_lost(self, exc: Exception | None) -> None:
        self._disconnected(
            f"the connection broke ({type(exc).__name__})" if exc else "the connection ended"
        )
        if not self._gone.done():
            self._gone.set_result(None)
        if self.on_end is not None:
            self.on_end(self)

    def pause_writing(self) -> None:
        self._paused = True

    def resume_writing(self) -> None:
        self._paused = False
        self._wake_sender()

    # -- frames ------------------------------------------------------------------------------

    def _read(self) -> None:
        """Read frames, a bounded number in each turn of the loop."""
        transport = self._transport
        waited, self._reading = self._reading is not None, None
        more = self._read_some()
        if transport is not None and transport.get_write_buffer_size() > _MAX_UNREAD:
            self._finish(
                Closed(None, "the server does not read the answers to its pings and settings")
            )
            transport.abort()
        if more and self._end is None:
            self._reading = self._loop.call_soon(self._read)
            if not waited and transport is not None:
                transport.pause_reading()
            return
        if waited and transport is not None:
            transport.resume_reading()
        if self._after is not None:
            self._finish(self._after)

    def _read_some(self) -> bool:
        """Read some frames. Returns whether more may follow."""
        began = self._rest[self._at : self._at + _FRAME_HEAD]
        try:
            data, more = self._next_frames()
            events = self._h2.receive_data(data)
        except h2.exceptions.ProtocolError as error:
            self._flush()
            http1 = began.startswith(b"HTTP/1")
            why = "the server speaks HTTP/1" if http1 else f"it is not HTTP/2 ({error})"
            self._finish(Closed(None, f"{self._place}: the answer cannot be read: {why}"))
            return False
        for event in events:
            self._handle(event)
        self._flush()
        self._wake_sender()
        return more

    def _next_frames(self) -> tuple[bytes, bool]:
        """The next whole frames, and whether there may be more of them.

        GOAWAY frames are handled here: h2 ends a connection at the first one, although RFC 9113 section
        6.8 lets existing streams run to their end.
        """
        data = self._rest
        kept: list[bytes] = []
        start = position = self._at
        count = 0
        while count < _AT_ONCE and len(data) - position >= _FRAME_HEAD:
            length = int.from_bytes(data[position : position + 3])
            most = self._h2.max_inbound_frame_size
            if length > most:
                raise h2.exceptions.ProtocolError(f"a frame of {length} bytes; at most {most} fit")
            size = _FRAME_HEAD + length
            if len(data) - position < size:
                break
            kind = data[position + 3]
            if kind not in _ORDINARY and self._flood.one_more(self.heard_at):
                raise h2.exceptions.ProtocolError(self._flood.told("control frames"))
            if kind == _GOAWAY:
                kept.append(data[start:position])
                self._goaway(data[position + _FRAME_HEAD : position + size])
                start = position + size
            elif kind in (_HEADERS, _CONTINUATION):
                self._fields = length + (self._fields if kind == _CONTINUATION else 0)
                if self._fields > _MAX_FIELDS:
                    raise h2.exceptions.ProtocolError(
                        f"header fields of more than {_MAX_FIELDS} bytes"
                    )
            position += size
            count += 1
        self._at = position
        return b"".join((*kept, data[start:position])), count == _AT_ONCE

    def _disconnected(self, reason: str) -> None:
        how = Closed(None, reason)
        if self._reading is None:
            self._finish(how)
        else:
            self._after = self._after or how

    # -- events ------------------------------------------------------------------------------

    def _handle(self, event: h2.events.Event) -> None:
        match event:
            case h2.events.DataReceived():
                size = event.flow_controlled_length or 0
                if event.data:
                    self._unread += event.data
                    self._owed += size
                    self._wake_receiver()
                elif size:  # padding alone
                    self._acknowledge(size)
            case h2.events.ResponseReceived():
                fields = {str(name): str(value) for name, value in event.headers or ()}
                status = fields.pop(":status", "")
                if not self._head.done():
                    self._head.set_result((int(status) if status.isdigit() else 0, fields))
            case h2.events.RemoteSettingsChanged():
                self._told_settings = True
            case h2.events.StreamEnded():
                self._finish(Closed(1000, "the server ended the stream"))
            case h2.events.StreamReset():
                name = _error_name(event.error_code)
                self._finish(Closed(None, f"the server reset the stream (RST_STREAM {name})"))
            case h2.events.ConnectionTerminated():
                self._finish(Closed(None, "the server ended the connection (GOAWAY)"))
            case _:
                return

    def _goaway(self, payload: bytes) -> None:
        if len(payload) < 8:
            return
        last, code = struct.unpack_from("!II", payload)
        if last & 0x7FFFFFFF >= self._stream and code == 0:
            if not self.going_away:
                self.going_away = True
                self._nudged = True
                self._wake_receiver()
            return
        debug = payload[8:208].decode("utf-8", "replace").strip()
        details = f": {debug}" if debug.isprintable() and debug else ""
        self._finish(
            Closed(None, f"the server ended the connection (GOAWAY {_error_name(code)}{details})")
        )

    # -- inside ------------------------------------------------------------------------------

    def _acknowledge(self, size: int) -> None:
        """Let the peer send this many more bytes."""
        if self._end is None:
            self._guarded(lambda: self._h2.acknowledge_received_data(size, self._stream))

    def _room(self) -> int:
        """Bytes that may be sent now.

        Raises:
            APIConnectionError: the stream has ended.
        """
        if self._end is not None or self._ended_sending:
            reason = self._end.reason if self._end is not None else "closed by this side"
            raise APIConnectionError(f"the stream has ended; nothing can be sent ({reason})")
        if self._paused or not self._told_settings:
            return 0
        window = self._h2.local_flow_control_window(self._stream)
        return max(0, min(window, self._h2.max_outbound_frame_size))

    async def _wait_for_room(self) -> None:
        self._may_send = self._loop.create_future()
        try:
            await self._may_send
        finally:
            self._may_send = None

    def _wake_sender(self) -> None:
        if self._may_send is not None and not self._may_send.done():
            self._may_send.set_result(None)

    def _wake_receiver(self) -> None:
        if self._arrived is not None and not self._arrived.done():
            self._arrived.set_result(None)

    def _flush(self) -> None:
        data = self._h2.data_to_send()
        transport = self._transport
        if data and transport is not None and not transport.is_closing():
            transport.write(data)

    def _guarded(self, act: Callable[[], None]) -> None:
        try:
            act()
        except h2.exceptions.ProtocolError:
            return  # it has ended already
        self._flush()

    def _reset(self, why: str) -> None:
        code = h2.errors.ErrorCodes.CANCEL
        self._guarded(lambda: self._h2.reset_stream(self._stream, code))
        self._finish(Closed(None, why))

    def _finish(self, how: Closed) -> None:
        if self._end is None:
            self._end = how
            self._ended.set_result(None)
        if not self._head.done():
            self._head.set_exception(
                APIConnectionError(f"{self._place}: no answer: {self._end.reason}")
            )
            self._head.exception()  # perhaps nothing waits for it
        self._wake_receiver()
        self._wake_sender()


def _fields(url: URL, headers: Mapping[str, str]) -> list[tuple[str, str]]:
    fields = [
        (":method", "POST"),
        (":scheme", url.scheme),
        (":authority", url.raw_authority.rpartition("@")[2]),
        (":path", url.raw_path_qs or "/"),
    ]
    for name, value in headers.items():
        if (lower := name.lower()) not in _NO_LONGER_SENT:
            fields.append((lower, value))
    return fields


def _make_context(option: ssl_module.SSLContext | bool | str) -> ssl_module.SSLContext:
    found = tls_of(option)
    if found is True:
        found = ssl_module.create_default_context()
    elif found is False:
        found = ssl_module.SSLContext(ssl_module.PROTOCOL_TLS_CLIENT)
        found.check_hostname = False
        found.verify_mode = ssl_module.CERT_NONE
    found.set_alpn_protocols(["h2"])
    return found


def _check_alpn(transport: asyncio.BaseTransport, place: str) -> None:
    tls = cast("ssl_module.SSLObject | None", transport.get_extra_info("ssl_object"))
    chosen = None if tls is None else tls.selected_alpn_protocol()
    if chosen != "h2":
        raise APIConnectionError(
            f"{place}: the server does not offer HTTP/2 (ALPN chose {chosen or 'nothing'}); check "
            "`base_url`",
            retryable=False,
        )


async def _through(
    proxy: Proxy, host: str, port: int, context: ssl_module.SSLContext | None, place: str
) -> tuple[asyncio.Transport, H2Stream]:
    """A connection through the tunnel of a proxy (CONNECT)."""
    loop = asyncio.get_running_loop()
    where = proxy.url
    transport, tunnel = await loop.create_connection(
        _Tunnel,
        where.raw_host or "",
        where.port or 80,
        ssl=True if where.scheme == "https" else None,
    )
    name = f"[{host}]" if ":" in host else host
    lines = [f"CONNECT {name}:{port} HTTP/1.1", f"Host: {name}:{port}"]
    lines += [f"{field}: {value}" for field, value in proxy.headers.items()]
    try:
        transport.write(("\r\n".join(lines) + "\r\n\r\n").encode())
        status, rest = await tunnel.answer
        if status != "200":
            outcome = f"answered {status} instead of opening" if status else "did not open"
            raise APIConnectionError(
                f"{place}: the proxy {origin_of(where)} {outcome} a tunnel",
                retryable=not status or status.startswith("5"),
            )
        stream = H2Stream(place)
        transport.set_protocol(stream)
        found: asyncio.Transport = transport
        if context is not None:
            secure = await loop.start_tls(transport, stream, context, server_hostname=host)
            if secure is None:
                raise APIConnectionError(f"{place}: the proxy {origin_of(where)} closed the tunnel")
            found = secure
        # Neither `set_protocol` nor `start_tls` announces the transport to the protocol.
        stream.connection_made(found)
        if rest:
            stream.data_received(rest)
    except BaseException:
        transport.abort()
        raise
    return found, stream


class _Tunnel(asyncio.Protocol):
    """Waits for a proxy's answer to CONNECT: its status, and what came behind it."""

    def __init__(self) -> None:
        self.answer: asyncio.Future[tuple[str, bytes]] = asyncio.get_running_loop().create_future()
        self._data = b""

    def data_received(self, data: bytes) -> None:
        self._data += data
        head, mark, rest = self._data.partition(b"\r\n\r\n")
        if not mark and len(head) < _PROXY_HEAD:
            return
        words = head.split(b" ", 2)
        status = words[1].decode("latin-1") if mark and len(words) > 1 else ""
        if not self.answer.done():
            self.answer.set_result((status, rest))

    def connection_lost(self, exc: Exception | None) -> None:
        if not self.answer.done():
            self.answer.set_result(("", b""))


def _error_name(code: int | None) -> str:
    if code is None:
        return "without a code"
    try:
        return h2.errors.ErrorCodes(code).name
    except ValueError:
        return str(int(code))
