"""The token of a gateway request: a JSON web token (RFC 7519), signed with HS256.

Pure: values in, text out; the time is passed in.
"""

from __future__ import annotations

import hmac
from base64 import urlsafe_b64encode
from hashlib import sha256
from typing import Final

from rejoinder._core import jsontext

__all__ = ["mint"]

_LIFE: Final = 600
_HEADER: Final = urlsafe_b64encode(b'{"alg":"HS256","typ":"JWT"}').rstrip(b"=")


def mint(api_key: str, api_secret: str, wall_now: float) -> str:
    """A token that allows inference for ten minutes from `wall_now` (seconds since the epoch)."""
    begin = int(wall_now)
    claims = {
        "inference": {"perform": True},
        "sub": "agent",
        "iss": api_key,
        "nbf": begin,
        "exp": begin + _LIFE,
    }
    signed = _HEADER + b"." + urlsafe_b64encode(jsontext.encode(claims)).rstrip(b"=")
    signature = hmac.new(api_secret.encode("utf-8"), signed, sha256).digest()
    return (signed + b"." + urlsafe_b64encode(signature).rstrip(b"=")).decode("ascii")
