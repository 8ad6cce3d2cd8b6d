"""Chained signatures of the frames of an AWS event stream: each covers the previous one.

Source: the signing of event streams in Signature Version 4 (``AWS4-HMAC-SHA256-PAYLOAD``). The result
equals that of AWS's own signer, byte by byte. Pure.
"""

from __future__ import annotations

import hmac
import time
from hashlib import sha256
from typing import Final

from rejoinder.clouds.sigv4 import Credentials, derived_key
from rejoinder.wire.eventstream import Timestamp, encode_headers, encode_message

__all__ = ["EVENTS_HASH", "EventSigner", "seed_of"]

EVENTS_HASH: Final = "STREAMING-AWS4-HMAC-SHA256-EVENTS"
"""Replaces the hash of the body in the request of a signed event stream."""


class EventSigner:
    """Signs the frames of one stream, in their order.

    Args:
        seed: the signature of the request, in hex; see `seed_of`.
        credentials: the credentials that signed the request.
        region: as in the signature of the request.
        service: as in the signature of the request.
    """

    def __init__(self, seed: str, *, credentials: Credentials, region: str, service: str) -> None:
        self._previous = seed
        self._secret = credentials.secret_key
        self._region = region
        self._service = service

    def __repr__(self) -> str:
        return f"EventSigner({self._region!r}, {self._service!r})"

    def frame(self, payload: bytes, *, wall_now: float) -> bytes:
        """A signed frame around `payload`, which is itself a frame. ``b""`` makes the last frame."""
        seconds = int(wall_now)
        date: dict[str, Timestamp] = {":date": Timestamp(seconds * 1000)}
        stamp = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime(seconds))
        day = stamp[:8]
        text = "\n".join(
            (
                "AWS4-HMAC-SHA256-PAYLOAD",
                stamp,
                f"{day}/{self._region}/{self._service}/aws4_request",
                self._previous,
                sha256(encode_headers(date)).hexdigest(),
                sha256(payload).hexdigest(),
            )
        )
        key = derived_key(self._secret, day, self._region, self._service)
        signature = hmac.new(key, text.encode(), sha256).digest()
        self._previous = signature.hex()
        return encode_message({**date, ":chunk-signature": signature}, payload)


def seed_of(authorization: str) -> str:
    """The signature in the header field ``Authorization`` of a request."""
    return authorization.rpartition("Signature=")[2]
