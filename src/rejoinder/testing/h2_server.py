"""A scripted HTTP/2 server on the loopback interface, controlled frame by frame.

    async def echo(stream: H2ServerStream) -> None:
        stream.respond(200)
        while data := await stream.receive():
            await stream.send(data)
        stream.end()

    async with H2Server(echo) as server:
        ...  # server.url

Needs the package ``h2`` (``rejoinder[aws]``).
"""

from __future__ import annotations

import asyncio
import ssl
from collections import deque
from collections.abc import Awaitable, Callable
from types import TracebackType
from typing import Self, TypeAlias, cast

import h2.config
import h2.connection
import h2.events
import h2.exceptions
import h2.settings

from rejoinder._options import COUNT, checked
from rejoinder.testing._accepting import accept_no_more

__all__ = ["H2Handler", "H2Server", "H2ServerStream"]


class H2ServerStream:
    """One request, seen from the server.

    Attributes:
        fields: the header fields of the request, pseudo fields included.
        ended: the client ended its half.
        reset_by_client: the code of the client's RST_STREAM, if one came.
    """

    def __init__(self, connection: _Connection, stream_id: int, fields: dict[str, str]) -> None:
        self._connection = connection
        self._id = stream_id
        self.fields = fields
        self.ended = False
        self.reset_by_client: int | None = None
        self._chunks: deque[tuple[bytes, int]] = deque()
        self._changed = asyncio.Event()

    def respond(self, status: int = 200, /, **fields: str) -> None:
        """Send the head of the answer. ``_`` in a name stands for ``-``."""
        headers = [(":status", str(status))]
        headers += [(name.replace("_", "-"), value) for name, value in fields.items()]
        self._connection.h2.send_headers(self._id, headers)
        self._connection.flush()

    async def receive(self) -> bytes:
        """The next bytes of the request; ``b""`` at its end, or after a reset. Bytes are
        acknowledged to the client only when they are received here."""
        while not self._chunks:
            if self.ended or self.reset_by_client is not None or self._connection.over:
                return b""
            self._changed.clear()
            await self._changed.wait()
        data, size = self._chunks.popleft()
        if not self._connection.over and self.reset_by_client is None:
            self._connection.h2.acknowledge_received_data(size, self._id)
            self._connection.flush()
        return data

    async def send(self, data: bytes, *, piece: int = 1 << 14) -> None:
        """Send bytes in DATA frames of at most `piece` bytes, as the client's windows permit.

        Raises:
            ConnectionError: the client has disconnected, or has reset the stream.
        """
        connection = self._connection
        while data:
            if connection.over or self.reset_by_client is not None:
                raise ConnectionError("the client does not listen any more")
            window = connection.h2.local_flow_control_window(self._id)
            size = min(len(data), window, piece, connection.h2.max_outbound_frame_size)
            if size <= 0:
                await connection.changed()
                continue
            connection.h2.send_data(self._id, data[:size])
            connection.flush()
            data = data[size:]

    def end(self) -> None:
        """End the answer."""
        self._connection.attempt(lambda: self._connection.h2.end_stream(self._id))

    def reset(self, code: int = 0) -> None:
        """Send RST_STREAM."""
        self._connection.attempt(lambda: self._connection.h2.reset_stream(self._id, code))

    def goaway(self, code: int = 0, *, last: int | None = None, debug: bytes = b"") -> None:
        """Send GOAWAY. Streams up to `last`, by default this one, continue."""
        number = self._id if last is None else last
        payload = number.to_bytes(4) + code.to_bytes(4) + debug
        head = len(payload).to_bytes(3) + b"\x07\x00" + bytes(4)
        self._connection.write(head + payload)

    def write_raw(self, data: bytes) -> None:
        """Send arbitrary bytes on the connection."""
        self._connection.write(data)

    def drop(self) -> None:
        """Break the TCP connection."""
        self._connection.abort()

    def go_deaf(self) -> None:
        """Stop reading and writing, but keep the connection open, like a half-open one."""
        self._connection.go_deaf()

    # -- for the connection ------------------------------------------------------------------

    def got(self, data: bytes, size: int) -> None:
        self._chunks.append((data, size))
        self._changed.set()

    def wake(self) -> None:
        self._changed.set()


H2Handler: TypeAlias = Callable[[H2ServerStream], Awaitable[None]]


class _Connection(asyncio.Protocol):
    def __init__(self, server: H2Server) -> None:
        self._server = server
        config = h2.config.H2Configuration(client_side=False, header_encoding="latin-1")
        self.h2 = h2.connection.H2Connection(config)
        self.over = False
        self._deaf = False
        self._transport: asyncio.Transport | None = None
        self._streams: dict[int, H2ServerStream] = {}
        self._changed = asyncio.Event()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)
        self._server.connections.add(self)
        if self._server.window is not None:
            code = h2.settings.SettingCodes.INITIAL_WINDOW_SIZE
            self.h2.local_settings = h2.settings.Settings(
                client=False, initial_values={code: self._server.window}
            )
        self.h2.initiate_connection()
        self.flush()

    def data_received(self, data: bytes) -> None:
        if self._deaf:
            return
        try:
            events = self.h2.receive_data(data)
        except h2.exceptions.ProtocolError as error:
            self._server.errors.append(error)
            self.flush()
            self.abort()
            return
        for event in events:
            self._handle(event)
        self.flush()
        self._changed.set()

    def connection_lost(self, exc: Exception | None) -> None:
        self.over = True
        self._server.connections.discard(self)
        self._changed.set()
        for stream in self._streams.values():
            stream.wake()

    def _handle(self, event: h2.events.Event) -> None:
        match event:
            case h2.events.RequestReceived():
                fields = {str(name): str(value) for name, value in event.headers or ()}
                stream = H2ServerStream(self, event.stream_id or 0, fields)
                self._streams[event.stream_id or 0] = stream
                self._server.streams.append(stream)
                task = asyncio.ensure_future(self._run(stream))
                self._server.handling.add(task)
                task.add_done_callback(self._server.handling.discard)
            case h2.events.DataReceived():
                stream = self._streams[event.stream_id or 0]
                stream.got(event.data or b"", event.flow_controlled_length or 0)
            case h2.events.StreamEnded():
                stream = self._streams[event.stream_id or 0]
                stream.ended = True
                stream.wake()
            case h2.events.StreamReset():
                stream = self._streams[event.stream_id or 0]
                stream.reset_by_client = int(event.error_code or 0)
                stream.wake()
            case _:
                return

    async def _run(self, stream: H2ServerStream) -> None:
        try:
            await self._server.handler(stream)
        except (ConnectionError, h2.exceptions.ProtocolError):
            return  # the client is gone

    async def changed(self) -> None:
        self._changed.clear()
        await self._changed.wait()

    def attempt(self, act: Callable[[], None]) -> None:
        try:
            act()
        except h2.exceptions.ProtocolError:
            return
        self.flush()

    def flush(self) -> None:
        self.write(self.h2.data_to_send())

    def write(self, data: bytes) -> None:
        transport = self._transport
        if data and transport is not None and not transport.is_closing() and not self._deaf:
            transport.write(data)

    def abort(self) -> None:
        self.over = True
        if self._transport is not None:
            self._transport.abort()

    def go_deaf(self) -> None:
        self._deaf = True
        if self._transport is not None:
            self._transport.pause_reading()


class H2Server:
    """Serves HTTP/2: by prior knowledge, or over TLS with ALPN.

    Args:
        handler: called with each stream, in a task.
        tls: a context for the server's side; ALPN is set on it.
        window: bytes that a client may send ahead on each stream; 65,535 by default.

    Attributes:
        streams: all streams so far.
        errors: HTTP/2 violations of the clients.
    """

    @checked(window=COUNT)
    def __init__(
        self,
        handler: H2Handler,
        *,
        tls: ssl.SSLContext | None = None,
        window: int | None = None,
    ) -> None:
        self.handler = handler
        self.window = window
        self.streams: list[H2ServerStream] = []
        self.errors: list[Exception] = []
        self.connections: set[_Connection] = set()
        self.handling: set[asyncio.Task[None]] = set()
        self.url = ""
        self._tls = tls
        if tls is not None:
            tls.set_alpn_protocols(["h2"])
        self._server: asyncio.Server | None = None

    async def __aenter__(self) -> Self:
        loop = asyncio.get_running_loop()
        self._server = await loop.create_server(
            lambda: _Connection(self), "127.0.0.1", 0, ssl=self._tls
        )
        port = self._server.sockets[0].getsockname()[1]
        host = "127.0.0.1" if self._tls is None else "localhost"
        self.url = f"{'http' if self._tls is None else 'https'}://{host}:{port}"
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._server is not None:
            await accept_no_more(self._server.sockets)
            self._server.close()
        tasks = list(self.handling)  # also those whose client is gone
        for connection in list(self.connections):
            connection.abort()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        if self._server is not None:
            await self._server.wait_closed()
