"""Translates errors of aiohttp into ours. They state what happened and where, and quote nothing of the
request."""

from __future__ import annotations

import ssl as ssl_module
from typing import Final

import aiohttp
from aiohttp.http_exceptions import ContentEncodingError, HttpProcessingError
from yarl import URL

from rejoinder._foreign import read
from rejoinder._secrets import one_line, redact, shorten
from rejoinder.errors import (
    APIConnectionError,
    APIError,
    APITimeoutError,
    ConfigurationError,
    WireError,
)
from rejoinder.transport._addresses import Proxy, origin_of
from rejoinder.transport._aiohttp_reuse import UnaskedAnswerError
from rejoinder.transport.http import CLOSED, Request

__all__ = ["FOREIGN", "clean", "translate"]

FOREIGN: Final = (aiohttp.ClientError, OSError, EOFError, HttpProcessingError, ValueError)
"""What aiohttp raises. `OSError` holds `TimeoutError` and `ssl.SSLError`."""
_MAX_CAUSES: Final = 5


def translate(
    error: Exception, request: Request, url: URL, owned: bool, proxy: Proxy | None
) -> APIError | ConfigurationError:
    """An error of aiohttp as one of ours, with a cause that is safe to show."""
    translated = _discreet(_translate(error, request, url, owned, proxy), request)
    translated.__cause__ = clean(error, request)
    return translated


def _translate(
    error: Exception, request: Request, url: URL, owned: bool, proxy: Proxy | None
) -> APIError | ConfigurationError:
    place = f"{request.method} {origin_of(url)}"
    if isinstance(error, TimeoutError):
        limit = request.connect_timeout
        within = "" if limit is None else f" within {limit:g} s"
        return APITimeoutError(f"{place}: no connection{within}").but(section="no connection")
    if isinstance(error, aiohttp.ClientHttpProxyError):
        via = "the proxy" if proxy is None else f"the proxy {origin_of(proxy.url)}"
        return APIConnectionError(
            f"{place}: {via} answered {error.status} instead of opening a tunnel",
            retryable=error.status >= 500,
        )
    if isinstance(error, aiohttp.ClientProxyConnectionError):
        via = "the proxy" if proxy is None else f"the proxy {origin_of(proxy.url)}"
        return APIConnectionError(f"{place}: cannot connect to {via}").but(section="no connection")
    if isinstance(error, aiohttp.ClientConnectorCertificateError | ssl_module.CertificateError):
        return APIConnectionError(
            f"{place}: the server's certificate is not trusted: {_certificate_problem(error)}",
            retryable=False,
        ).but(section="certificate")
    if isinstance(error, aiohttp.ServerFingerprintMismatch):
        return APIConnectionError(
            f"{place}: the server's certificate is not the one whose fingerprint was expected",
            retryable=False,
        )
    if isinstance(error, aiohttp.ClientConnectorDNSError):
        return APIConnectionError(f"{place}: the host name cannot be resolved").but(
            section="no connection"
        )
    if isinstance(error, aiohttp.ClientSSLError):
        return APIConnectionError(f"{place}: no TLS connection").but(section="no connection")
    if isinstance(error, aiohttp.ClientConnectorError):
        return APIConnectionError(f"{place}: cannot connect").but(section="no connection")
    if isinstance(error, UnaskedAnswerError):
        return APIConnectionError(
            f"{place}: the server sent something before it had the request: no answer to it"
        )
    if isinstance(error, aiohttp.ServerDisconnectedError):
        return APIConnectionError(f"{place}: the server closed the connection without an answer")
    if _is_by(error, ContentEncodingError):
        # The whole body came with its head, so the problem is found before the head is returned.
        return APIConnectionError(
            f"{place}: the body cannot be decompressed, or was cut short ({_parse_problem(error)})"
        )
    if isinstance(error, aiohttp.ClientResponseError | HttpProcessingError):
        return WireError(f"{place}: the answer is not valid HTTP ({_parse_problem(error)})")
    if isinstance(error, RuntimeError):
        if not owned:
            return ConfigurationError("the given aiohttp.ClientSession is closed")
        return APIConnectionError(CLOSED, retryable=False).but(section="closed")
    if isinstance(error, ValueError) and not isinstance(error, aiohttp.ClientError | OSError):
        if "Cannot combine" in str(error):
            return ConfigurationError(
                f"{place}: the given aiohttp.ClientSession adds credentials of its own (`auth`, or "
                "netrc because of `trust_env=True`) to a request that has an Authorization header"
            )
        return ConfigurationError(f"{place}: the request cannot be sent ({type(error).__name__})")
    if isinstance(error, aiohttp.InvalidURL):
        return ConfigurationError(f"{place}: not a URL that can be requested")
    return APIConnectionError(f"{place}: the connection broke before an answer")


_OF_THE_SERVER: Final = frozenset({9, 10, 62, 64})
"""OpenSSL's codes of faults that only the server can fix: dates, and wrong names or addresses."""


def _certificate_problem(error: Exception) -> str:
    reason = read(error, "certificate_error") or error
    problem = str(read(reason, "verify_message") or reason).rstrip(".")
    if read(reason, "verify_code") in _OF_THE_SERVER:
        return problem
    return f"{problem}; the `ssl` argument of AiohttpTransport takes authorities of your own"


def _is_by(error: BaseException | None, kind: type[BaseException]) -> bool:
    """Whether `error`, or one of its causes, is of `kind`."""
    for _ in range(_MAX_CAUSES):
        if error is None or isinstance(error, kind):
            return error is not None
        error = error.__cause__
    return False


def _parse_problem(error: Exception) -> str:
    message = read(error, "message") or type(error).__name__
    return one_line(str(message))


def _discreet(
    error: APIError | ConfigurationError, request: Request
) -> APIError | ConfigurationError:
    """`error` without credentials that the server repeated in bytes that are not HTTP."""
    if isinstance(error, APIError):
        # Redact before cutting: half of a key would not be recognised.
        return error.but(message=shorten(redact(error.message, request.secrets().reveal())))
    return error


def clean(error: Exception, request: Request) -> BaseException | None:
    """`error` as a cause that is safe to show. An error that holds a request or a URL is replaced."""
    cause = _plain(error)
    if cause is not None:
        shown = f"{cause} {cause!r}"
        if any(secret in shown for secret in request.secrets().reveal()):
            return None  # the server repeated credentials in bytes that aiohttp quotes
    return cause


def _plain(error: Exception) -> BaseException | None:
    if isinstance(error, aiohttp.ClientResponseError):
        # Its arguments hold the request with all header fields. Our message contains its text.
        return error.__cause__
    if isinstance(error, aiohttp.InvalidURL):
        return None
    if type(error) is aiohttp.ClientOSError and "write request body" in str(error):
        plain = OSError(error.errno, "cannot write the request body")
        plain.__cause__ = error.__cause__
        return plain
    if isinstance(error, ValueError | aiohttp.ConnectionTimeoutError) and not isinstance(
        error, ssl_module.SSLError
    ):
        return (
            type(error)("the connection was not made in time")
            if isinstance(error, aiohttp.ConnectionTimeoutError)
            else None
        )
    return error
