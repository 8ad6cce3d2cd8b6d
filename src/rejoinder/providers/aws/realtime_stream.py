"""The stream of one Nova Sonic session: JSON texts both ways, over signed event frames and HTTP/2.

It has the methods of a WebSocket. Its first text is ``{"opened": true}``, sent when the service has
accepted the request. ``{"leaving": seconds}`` announces a graceful end of the connection. Refusals
and exceptions end the stream with a code: the HTTP status that the exception stands for.
"""

from __future__ import annotations

import asyncio
import base64
from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from rejoinder import _stamps
from rejoinder._core import jsontext
from rejoinder._core.json_values import may_be_crowded
from rejoinder._secrets import one_line, redact, shorten
from rejoinder.clouds.aws import AWSCredentials, is_stale
from rejoinder.clouds.aws_errors import frame_error, http_error
from rejoinder.clouds.event_signing import EVENTS_HASH, EventSigner, seed_of
from rejoinder.clouds.sigv4 import sign
from rejoinder.errors import APIConnectionError, APIError, APIStatusError
from rejoinder.providers.asking.fields import path_part
from rejoinder.transport.ws import Closed, SocketRequest, WireFrame
from rejoinder.wire.eventstream import EventStreamDecoder, Message, encode_message

if TYPE_CHECKING:
    from rejoinder.transport._h2 import H2Stream, H2Transport

__all__ = ["EventStream", "open_stream"]

_SERVICE: Final = "bedrock"
_INNER: Final = {
    ":message-type": "event",
    ":event-type": "chunk",
    ":content-type": "application/json",
}
_MAX_MESSAGE: Final = 1 << 23
_MAX_REFUSAL: Final = 1 << 16
_LAST_WORD: Final = 0.2
"""Seconds allowed for sending the last frame."""
_LEAVING: Final = 30.0
"""Seconds until the end of the session, if the service announces it without a time."""


async def open_stream(
    transport: H2Transport,
    *,
    base_url: str,
    model: str,
    credentials: AWSCredentials,
    region: str,
    connect_timeout: float | None,
) -> EventStream:
    """Open a signed stream to a model.

    Raises:
        APIError: no connection, or no credentials for now.
        ConfigurationError: there are no credentials, or the request cannot be sent.
    """
    found = await credentials.get()
    url = f"{base_url}/model/{path_part('model', model)}/invoke-with-bidirectional-stream"
    headers = sign(
        "POST",
        url,
        {
            "Content-Type": "application/vnd.amazon.eventstream",
            "Accept": "application/vnd.amazon.eventstream",
            "X-Amz-Content-Sha256": EVENTS_HASH,
        },
        b"",
        credentials=found,
        region=region,
        service=_SERVICE,
        wall_now=_stamps.wall_now(),
        payload_hash=EVENTS_HASH,
    )
    signer = EventSigner(
        seed_of(headers["Authorization"]), credentials=found, region=region, service=_SERVICE
    )
    stream = await transport.connect(SocketRequest(url, headers, connect_timeout=connect_timeout))
    return EventStream(
        stream, signer, renew=credentials.renew, secrets=(found.secret_key, found.session_token)
    )


class EventStream:
    """A `rejoinder.transport.ws.WebSocket` of JSON texts.

    Args:
        stream: the bytes.
        signer: signs what is sent.
        renew: discards credentials that the service rejected; returns whether new ones can be
            obtained.
        secrets: strings to redact in errors.
    """

    def __init__(
        self,
        stream: H2Stream,
        signer: EventSigner,
        *,
        renew: Callable[[], bool],
        secrets: tuple[str | None, ...] = (),
    ) -> None:
        self._stream = stream
        self._signer = signer
        self._renew = renew
        self._secrets = [secret for secret in secrets if secret]
        self._decoder = EventStreamDecoder(max_message=_MAX_MESSAGE)
        self._texts: deque[str] = deque()
        self._opened = False
        self._end: Closed | None = None
        self._sending = asyncio.Lock()
        self._over = False

    @property
    def heard_at(self) -> float:
        """Loop time of the last bytes that arrived."""
        return self._stream.heard_at

    async def send(self, frame: WireFrame) -> None:
        """Send one event.

        Raises:
            APIConnectionError: the stream has ended.
        """
        data = frame.encode() if isinstance(frame, str) else frame
        payload = b'{"bytes":"' + base64.b64encode(data) + b'"}'
        async with self._sending:
            await self._send(encode_message(_INNER, payload))

    async def _send(self, payload: bytes) -> None:
        if self._over:
            raise APIConnectionError("the stream has ended; nothing can be sent")
        await self._stream.send(self._signer.frame(payload, wall_now=_stamps.wall_now()))

    async def receive(self) -> WireFrame | Closed:
        """The next text, or the end. Never raises, whatever ended the stream."""
        if not self._opened:
            self._opened = True
            refused = await self._refusal()
            if refused is not None:
                self._end = refused
            else:
                return '{"opened":true}'
        while not self._texts:
            if self._end is not None:
                return self._end
            data = await self._stream.receive()
            if isinstance(data, Closed):
                self._end = self._closed(data)
            elif not data and self._stream.going_away:
                return f'{{"leaving":{_LEAVING}}}'
            else:
                self._take(data)
                if not self._texts:
                    await asyncio.sleep(0)  # messages without content must not block the loop
        return self._texts.popleft()

    async def ping(self) -> None:
        """Ask the service for a sign of life."""
        await self._stream.ping()

    async def aclose(self, code: int = 1000) -> None:
        """Send the empty last frame and close, within about a second; with another code, or after
        the end, without it. Idempotent, never raises."""
        whole = code == 1000 and self._end is None
        if whole and not self._over:
            try:
                async with asyncio.timeout(_LAST_WORD), self._sending:
                    await self._send(b"")
            except (APIError, TimeoutError):
                pass  # a peer that does not read does not need it
        self._over = True
        await self._stream.aclose(1000 if whole else 1001)

    # -- inside ------------------------------------------------------------------------------

    async def _refusal(self) -> Closed | None:
        """The refusal in the response head; ``None`` if the service accepted."""
        try:
            status, headers = await self._stream.head()
        except APIConnectionError:
            ended = await self._stream.receive()
            return self._ended_by(ended.code, ended.reason) if isinstance(ended, Closed) else None
        if status == 200:
            return None
        body = b""
        while len(body) < _MAX_REFUSAL and not isinstance(
            data := await self._stream.receive(), Closed
        ):
            body += data
        return self._failed(http_error(status, headers, body))

    def _take(self, data: bytes) -> None:
        try:
            messages = self._decoder.feed(data)
            if self._decoder.failure is not None:
                self._end = self._ended_by(None, self._decoder.failure.message)
        except APIError as error:
            self._end = self._ended_by(None, error.message)
            return
        for message in messages:
            if message.kind in ("exception", "error"):
                self._end = self._failed(frame_error(message))
                return
            if message.name == "chunk":
                self._texts.append(_text_of(message))

    def _closed(self, how: Closed) -> Closed:
        if how.code == 1000:
            try:
                self._decoder.close()
            except APIError as error:
                return self._ended_by(None, error.message)
        return self._ended_by(how.code, how.reason)

    def _ended_by(self, code: int | None, reason: str) -> Closed:
        """An end, without the credentials that the service may have quoted."""
        return Closed(code, shorten(one_line(redact(reason, self._secrets))))

    def _failed(self, error: APIStatusError) -> Closed:
        # Credentials may expire at any time. Another stream gets new ones, so this can be retried.
        if is_stale(error) and self._renew():
            return self._ended_by(None, error.message)
        return self._ended_by(error.status_code, error.message)


def _text_of(message: Message) -> str:
    """The JSON text in a chunk. Unreadable chunks are passed on, so that the protocol counts
    them, and those of too many values, so that the session refuses them."""
    if may_be_crowded(message.payload):
        return message.payload.decode("utf-8", "replace")
    fields = jsontext.as_mapping(_decoded(message.payload)) or {}
    encoded = fields.get("bytes")
    if not isinstance(encoded, str):
        return ""
    try:
        return base64.b64decode(encoded).decode("utf-8", "replace")
    except ValueError:
        return ""


def _decoded(payload: bytes) -> object:
    try:
        return jsontext.decode(payload)
    except ValueError:
        return None
