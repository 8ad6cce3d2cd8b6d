"""Checks of URLs, redirects, proxies and header fields.

Strings in, values or an error message out. Reads the environment, sends nothing. No message holds the
value of a header field, or the user or the query of a URL.
"""

from __future__ import annotations

import base64
import re
import ssl as ssl_module
import urllib.request
from collections.abc import Mapping
from functools import lru_cache
from typing import Final, cast

from yarl import URL

from rejoinder._secrets import redacted_url
from rejoinder.errors import APIStatusError, ConfigurationError

__all__ = [
    "FOR_STRANGERS",
    "REDIRECTS",
    "Proxy",
    "check_headers",
    "has_field",
    "origin_of",
    "parse_url",
    "proxy_from_environment",
    "redirect_target",
    "tls_of",
]

REDIRECTS: Final = frozenset({301, 302, 303, 307, 308})
_KEEPS_METHOD: Final = frozenset({307, 308})
FOR_STRANGERS: Final = frozenset({"accept", "accept-encoding", "content-type", "user-agent"})
"""Header fields that may go to another origin."""
_TOKEN: Final = re.compile(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")


@lru_cache(maxsize=256)
def parse_url(text: str) -> URL:
    """`text` as an http(s) URL.

    Raises:
        ConfigurationError: it is not a URL.
    """
    shown = redacted_url(text)[:200]
    if not text.isprintable() or " " in text:
        raise ConfigurationError("a URL holds white space or control characters; check `base_url`")
    try:
        # Unchanged: the caller may have signed or escaped it, so it must not be escaped again.
        url = URL(text, encoded=text.isascii())
        host, _ = url.raw_host, url.port
    except ValueError as error:
        raise ConfigurationError(f"not a URL: {shown!r}") from error
    if url.scheme not in ("http", "https") or not host:
        raise ConfigurationError(
            f"expected a URL that starts with https:// or http:// and names a host, "
            f"got {shown!r}; check `base_url`"
        )
    return url


def origin_of(url: URL) -> str:
    """Scheme, host and port, for messages: no user, no path, no query."""
    try:
        return str(url.origin())
    except ValueError:
        return url.scheme or "an unknown address"


def has_field(headers: Mapping[str, str], name: str) -> bool:
    """Whether there is a field `name` (in lower case)."""
    return any(key.lower() == name for key in headers)


def check_headers(headers: Mapping[str, str]) -> None:
    """Check that all header fields can be sent.

    Raises:
        ConfigurationError: one cannot be sent; the message names the field, without its value.
    """
    try:
        names, values = "".join(headers), "".join(headers.values())
    except TypeError:
        names = values = "\n"
    # Check all together first; the faulty field is found below.
    good = values.isascii() and values.isprintable() and "" not in headers
    if good and _are_names(names):
        return
    for name, value in headers.items():
        if isinstance(value, str) and value.isascii() and value.isprintable():
            if _TOKEN.fullmatch(name):
                continue
            raise ConfigurationError(f"not a name for an HTTP header: {name!r}")
        _refuse_value(name, value)


@lru_cache(maxsize=256)  # requests of one provider have the same names
def _are_names(joined: str) -> bool:
    return _TOKEN.fullmatch(joined) is not None


def _refuse_value(name: str, value: object) -> None:
    if not isinstance(value, str):
        raise ConfigurationError(f"header {name!r}: expected str, got {type(value).__name__}")
    if value.replace("\t", " ").isprintable() and value.isascii():
        return
    what = "a line break" if "\n" in value or "\r" in value else "a control character"
    if not value.isascii():
        what = "a character outside of ASCII"
    raise ConfigurationError(
        f"header {name!r} cannot be sent: its value of {len(value)} characters holds {what}; "
        "check the source of the value (often an API key) for stray characters"
    )


def redirect_target(method: str, status: int, url: URL, location: str) -> URL:
    """The target of a redirect of a request to `url`.

    Raises:
        APIStatusError: the redirect is not followed.
    """
    try:
        target = url.join(URL(location, encoded=location.isascii()))
        usable = target.scheme in ("http", "https") and bool(target.raw_host)
    except ValueError:
        target, usable = url, False
    if not usable or target.raw_user is not None:
        reason = "to an address that cannot be used"
    elif status not in _KEEPS_METHOD and method not in ("GET", "HEAD"):
        reason = (
            f"to {origin_of(target)}, which would turn it into a GET; only 307 and 308 are followed. "
            "Set `base_url` to the address in the redirect"
        )
    elif url.scheme == "https" and target.scheme == "http":
        reason = f"from https to {origin_of(target)}, which is not encrypted"
    else:
        return target
    raise APIStatusError(
        f"{method} {origin_of(url)} was redirected {reason}", status_code=status, retryable=False
    )


class Proxy:
    """A proxy, with its credentials removed from its URL (which aiohttp shows in its errors)."""

    __slots__ = ("headers", "url")

    def __init__(self, text: str, source: str) -> None:
        if not isinstance(cast("object", text), str):
            raise ConfigurationError(
                f"{source}: expected the URL of a proxy, got {type(cast('object', text)).__name__}"
            )
        if "://" not in text:
            text = f"http://{text}"
        try:
            url = URL(text)
            known = url.scheme in ("http", "https") and bool(url.raw_host)
        except ValueError:
            url, known = URL(), False
        if not known:
            raise ConfigurationError(
                f"the proxy in {source} cannot be used: expected http://host:port, got a URL with "
                f"scheme {url.scheme!r}; pass `proxy=` to AiohttpTransport, or "
                "`trust_env=False`"
            )
        self.headers: dict[str, str] = {}
        if url.user is not None:
            pair = f"{url.user}:{url.password or ''}".encode()
            token = base64.b64encode(pair).decode()
            self.headers = {"Proxy-Authorization": f"Basic {token}"}
        self.url = url.with_user(None)


def proxy_from_environment(url: URL) -> Proxy | None:
    """The proxy for `url` from the environment, if any."""
    # `getproxies` would also ask the system's settings, slowly; the environment is the contract.
    proxies = urllib.request.getproxies_environment()
    text = proxies.get(url.scheme)
    source = f"{url.scheme}_proxy"
    if text is None:
        text, source = proxies.get("all"), "all_proxy"
    if not text:
        return None
    address = f"{url.host}:{url.port}"
    # In the standard library since 2.6, but not in its type stubs.
    if urllib.request.proxy_bypass_environment(  # pyright: ignore[reportUnknownMemberType, reportAttributeAccessIssue]
        address, proxies
    ):
        return None
    return Proxy(text, f"the environment variable {source.upper()}")


def tls_of(option: ssl_module.SSLContext | bool | str) -> ssl_module.SSLContext | bool:
    """aiohttp's value for `option`.

    Raises:
        ConfigurationError: it has a wrong type, or is a file that cannot be read.
    """
    if isinstance(option, str):
        try:
            return ssl_module.create_default_context(cafile=option)
        except OSError as error:
            raise ConfigurationError(
                f"ssl={option!r}: expected a file with PEM certificates: {error}"
            ) from error
    if not isinstance(cast("object", option), (bool, ssl_module.SSLContext)):
        raise ConfigurationError(
            "ssl: expected True, False, an ssl.SSLContext or the path of a PEM file, got "
            f"{type(cast('object', option)).__name__}"
        )
    return option
