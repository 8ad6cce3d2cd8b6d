"""What the shells of several providers share: options read from the environment, the transport, and
one second chance for stale credentials.

Functions and small values only: a provider puts them together, it does not inherit from them.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from math import isfinite
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from rejoinder._secrets import shown_url
from rejoinder.errors import APIConnectionError, APIError, APIStatusError, ConfigurationError
from rejoinder.transport.http import CLOSED
from rejoinder.types import NotGiven, NotGivenOr

if TYPE_CHECKING:
    from rejoinder.providers._stream import DecodeError
    from rejoinder.transport._aiohttp import ClientSession
    from rejoinder.transport.http import HttpResponse, HttpTransport, Request

__all__ = [
    "check_base_url",
    "check_numbers",
    "check_texts",
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


def check_texts(model: object, **keys: object) -> None:
    """Refuse a `model` that is no name, and `keys` that are no text (``None`` is none at all).

    Raises:
        ConfigurationError: one of them; a key is not shown.
    """
    if not isinstance(model, str) or not model.strip():
        raise ConfigurationError(f"model: expected the name of a model, got {model!r}")
    for option, key in keys.items():
        if key is not None and not isinstance(key, str):
            raise ConfigurationError(f"{option}: expected a text, got {type(key).__name__}")


def check_numbers(**options: object) -> None:
    """Refuse options that are given and no finite numbers; those that begin with ``max_`` count
    something, so they are whole and at least 1.

    Raises:
        ConfigurationError: naming the option.
    """
    for option, value in options.items():
        if value is None or isinstance(value, NotGiven):
            continue
        sound = isinstance(value, int | float) and not isinstance(value, bool) and isfinite(value)
        if option.startswith("max_"):
            if not (sound and isinstance(value, int) and value >= 1):
                raise ConfigurationError(
                    f"{option}: expected a whole number of at least 1, got {value!r}"
                )
        elif not sound:
            raise ConfigurationError(f"{option}: expected a number, got {value!r}")


def check_base_url(
    url: object, option: str = "base_url", *, endpoints: tuple[str, ...] = ()
) -> str:
    """`url` without a slash at its end.

    Args:
        endpoints: what is cut off the end, because it is added to every address.

    Raises:
        ConfigurationError: it is no absolute http(s) URL.
    """
    text = url.strip() if isinstance(url, str) else ""
    if not _is_address(text):
        guess = f"http://{text}"
        hint = f"; did you mean {shown_url(guess)!r}?" if text and "://" not in text else ""
        if hint and not _is_address(guess):
            hint = ""
        shown = shown_url(url) if isinstance(url, str) else url
        raise ConfigurationError(
            f"{option}: expected an absolute URL like 'https://host/path', got {shown!r}{hint}"
        )
    text = text.rstrip("/")
    for endpoint in endpoints:
        if text.endswith(endpoint):
            return text[: -len(endpoint)].rstrip("/")
    return text


def _is_address(text: str) -> bool:
    try:
        parts = urlsplit(text)
        port = parts.port
    except ValueError:
        return False
    sound = parts.scheme in ("http", "https") and bool(parts.hostname) and port != 0
    return sound and not any(character.isspace() for character in text)


def make_transport(
    http_session: ClientSession | None, transport: HttpTransport | None
) -> HttpTransport:
    """The transport of an LLM, to be closed with it: its own, one around the caller's session, or
    the caller's (which then only seems to close).

    Raises:
        ConfigurationError: both are given, or one is not what its name says.
    """
    if transport is None:
        from rejoinder.transport._aiohttp import AiohttpTransport

        return AiohttpTransport(http_session)
    if http_session is not None:
        raise ConfigurationError("http_session and transport: pass one of them, not both")
    missing = [name for name in ("send", "prewarm", "aclose") if not hasattr(transport, name)]
    if missing:
        raise ConfigurationError(
            "transport: expected an HttpTransport (see rejoinder.transport.http), got "
            f"{type(transport).__name__} without {', '.join(missing)}"
        )
    return _Lent(transport)


class _Lent:
    """Somebody else's transport: closing the LLM ends its use here and leaves it open."""

    def __init__(self, transport: HttpTransport) -> None:
        self._transport = transport
        self._closed = False

    async def send(self, request: Request) -> HttpResponse:
        if self._closed:
            raise APIConnectionError(CLOSED, retryable=False)
        return await self._transport.send(request)

    async def prewarm(self, url: str, *, timeout: float = 10.0) -> None:
        await self._transport.prewarm(url, timeout=timeout)

    async def aclose(self) -> None:
        self._closed = True


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
    kept = [secret for secret in secrets if secret is not None]
    if not kept:
        return decode

    def decode_error(status: int, headers: Mapping[str, str], body: bytes) -> APIError:
        from rejoinder.providers._stream import hide

        error = decode(status, headers, body)
        hide(error, kept)
        return error

    return decode_error
