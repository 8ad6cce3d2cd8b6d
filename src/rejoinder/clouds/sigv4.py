"""AWS Signature Version 4: the header fields that prove who sends a request.

Pure: values in, header fields out; the time is passed in. The result equals that of botocore's
``SigV4Auth``. S3's exceptions are missing, because nothing here uses S3. The path is passed
percent-encoded once, as in the URL, and is encoded a second time for the signature.
"""

from __future__ import annotations

import hmac
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from hashlib import sha256
from urllib.parse import quote, urlsplit

from rejoinder.errors import ConfigurationError

__all__ = ["Credentials", "derived_key", "sign"]


@dataclass(frozen=True, slots=True)
class Credentials:
    """The credentials of the signer. Their `repr` shows no secret."""

    access_key: str = field(repr=False)
    secret_key: str = field(repr=False)
    session_token: str | None = field(default=None, repr=False)

    def __post_init__(self) -> None:
        # They may come from programs, files and sessions of other software.
        for name in ("access_key", "secret_key", "session_token"):
            value: object = getattr(self, name)
            if value is None and name == "session_token":
                continue
            if not isinstance(value, str):
                got = f"a value of type {type(value).__name__}"
            elif not value or not value.isascii() or not value.isprintable():
                got = "an empty string" if not value else "one with other characters"
            else:
                continue
            raise ConfigurationError(
                f"AWS credentials: {name}: expected a string of printable ASCII characters, got {got}"
            )


def sign(
    method: str,
    url: str,
    headers: Mapping[str, str],
    body: bytes,
    *,
    credentials: Credentials,
    region: str,
    service: str,
    wall_now: float,
    payload_hash: str | None = None,
) -> dict[str, str]:
    """`headers` and the fields of the signature: ``Authorization``, ``X-Amz-Date``, and
    ``X-Amz-Security-Token`` where the credentials have a token.

    Every field of `headers` is signed, except those that proxies and tracers add or change
    (``User-Agent``, ``Connection``, ``Traceparent`` and others that botocore leaves out as well).

    Args:
        url: absolute; path and query percent-encoded.
        wall_now: seconds since the epoch. Servers accept a difference of five minutes.
        payload_hash: replaces the hash of `body`, for bodies that are signed in pieces.
    """
    stamp = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime(wall_now))
    day = stamp[:8]
    signed = dict(headers)
    signed["X-Amz-Date"] = stamp
    if credentials.session_token:
        signed["X-Amz-Security-Token"] = credentials.session_token

    parts = urlsplit(url)
    fields = {
        name.lower(): " ".join(value.split())
        for name, value in signed.items()
        if name.lower() not in _UNSIGNED
    }
    fields.setdefault("host", _host(parts.scheme, parts.hostname or "", parts.port))
    names = ";".join(sorted(fields))
    canonical = "\n".join(
        (
            method.upper(),
            quote(_normalized(parts.path), safe="/~"),
            _query(parts.query),
            *(f"{name}:{fields[name]}" for name in sorted(fields)),
            "",
            names,
            sha256(body).hexdigest() if payload_hash is None else payload_hash,
        )
    )
    scope = f"{day}/{region}/{service}/aws4_request"
    text = "\n".join(
        ("AWS4-HMAC-SHA256", stamp, scope, sha256(canonical.encode("utf-8")).hexdigest())
    )
    key = derived_key(credentials.secret_key, day, region, service)
    signature = hmac.new(key, text.encode("utf-8"), sha256).hexdigest()
    signed["Authorization"] = (
        f"AWS4-HMAC-SHA256 Credential={credentials.access_key}/{scope}, "
        f"SignedHeaders={names}, Signature={signature}"
    )
    return signed


# Hop by hop, or changed on the way by proxies and tracers.
_UNSIGNED = frozenset(
    {
        "authorization",
        "baggage",
        "connection",
        "expect",
        "keep-alive",
        "proxy-authenticate",
        "proxy-authorization",
        "te",
        "traceparent",
        "tracestate",
        "trailer",
        "transfer-encoding",
        "upgrade",
        "user-agent",
        "x-amzn-trace-id",
    }
)


@lru_cache(maxsize=16)
def derived_key(secret: str, day: str, region: str, service: str) -> bytes:
    """The key that signs for one day (``YYYYMMDD``), region and service."""
    key = ("AWS4" + secret).encode("utf-8")
    for word in (day, region, service, "aws4_request"):
        key = hmac.new(key, word.encode("utf-8"), sha256).digest()
    return key


def _host(scheme: str, host: str, port: int | None) -> str:
    if ":" in host:
        host = f"[{host}]"
    if port is None or (scheme, port) in (("https", 443), ("http", 80)):
        return host
    return f"{host}:{port}"


def _normalized(path: str) -> str:
    """`path` without ``.``, ``..`` and doubled slashes (RFC 3986 section 5.2.4)."""
    if not path:
        return "/"
    kept: list[str] = []
    for segment in path.split("/"):
        if segment == "..":
            if kept:
                kept.pop()
        elif segment and segment != ".":
            kept.append(segment)
    joined = "/" + "/".join(kept)
    return joined + "/" if path.endswith("/") and kept else joined


def _query(query: str) -> str:
    if not query:
        return ""
    pairs: list[tuple[str, str]] = []
    for pair in query.split("&"):
        name, _, value = pair.partition("=")
        pairs.append((name, value))
    return "&".join(f"{name}={value}" for name, value in sorted(pairs))
