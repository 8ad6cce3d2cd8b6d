"""What the shells of several providers share: options read from the environment, the transport, and
one second chance for stale credentials.

Functions and small values only: a provider puts them together, it does not inherit from them.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from rejoinder.errors import APIError, APIStatusError, ConfigurationError
from rejoinder.types import NotGiven, NotGivenOr

if TYPE_CHECKING:
    from rejoinder.providers._stream import DecodeError
    from rejoinder.transport._aiohttp import AiohttpTransport, ClientSession

__all__ = [
    "check_base_url",
    "environment",
    "given",
    "make_transport",
    "with_second_chance",
    "without_secrets",
]


def environment(*names: str) -> str | None:
    """The first of these variables that is set and not blank."""
    for name in names:
        value = os.environ.get(name)
        if value is not None and value.strip():
            return value.strip()
    return None


def given(value: NotGivenOr[Any]) -> Any:
    """`value`, or ``None`` where the caller said nothing."""
    return None if isinstance(value, NotGiven) else value


def check_base_url(url: object, option: str = "base_url") -> str:
    """`url` without a slash at its end.

    Raises:
        ConfigurationError: it is no absolute http(s) URL.
    """
    text = str(url).strip()
    try:
        parts = urlsplit(text)
        sound = parts.scheme in ("http", "https") and bool(parts.hostname)
    except ValueError:
        sound = False
    if not sound:
        raise ConfigurationError(
            f"{option}: expected an absolute URL like 'https://host/path', got {text!r}"
        )
    return text.rstrip("/")


def make_transport(http_session: ClientSession | None) -> AiohttpTransport:
    """The transport of an LLM, around the caller's own session if there is one."""
    from rejoinder.transport._aiohttp import AiohttpTransport

    return AiohttpTransport(http_session)


def with_second_chance(
    decode: DecodeError, stale: Callable[[APIStatusError], bool], renew: Callable[[], bool]
) -> DecodeError:
    """`decode`, but an error for which fresh credentials may be the cure is tried once more.

    Args:
        stale: whether the error says that the credentials are old.
        renew: forget the credentials; returns whether others can be had.
    """
    used = False

    def decode_error(status: int, headers: Mapping[str, str], body: bytes) -> APIError:
        nonlocal used
        error = decode(status, headers, body)
        if not used and isinstance(error, APIStatusError) and stale(error) and renew():
            used = True
            error.retryable = True
        return error

    return decode_error


def without_secrets(decode: DecodeError, *secrets: str | None) -> DecodeError:
    """`decode`, but the errors never show these texts.

    For secrets that only sign: they are in no header field, so nobody else knows what to hide.
    """
    kept = [secret for secret in secrets if secret is not None and len(secret) >= 6]
    if not kept:
        return decode

    def decode_error(status: int, headers: Mapping[str, str], body: bytes) -> APIError:
        from rejoinder.providers._stream import hide

        error = decode(status, headers, body)
        for secret in kept:
            hide(error, secret)
        return error

    return decode_error
