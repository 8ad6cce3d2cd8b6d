"""Checks whether a model answers, and times each step: DNS, TCP, TLS, the first byte, a token."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import urlsplit

from rejoinder._foreign import read
from rejoinder.cli.render import render_error
from rejoinder.errors import APIConnectionError, APIError, APIStatusError, APITimeoutError

if TYPE_CHECKING:
    from rejoinder.transport.http import HttpResponse, HttpTransport, Request

__all__ = ["Reach", "advice", "reach"]

_STEP: Final = 10.0
"""Maximum seconds of one step."""


@dataclass(slots=True)
class Reach:
    """The result of a check.

    Attributes:
        steps: the steps, with their duration in seconds.
        stuck: the network step that failed.
        error: why it failed; ``None`` if the model answered.
        advice: how to fix the error.
        text: the model's answer.
    """

    steps: list[tuple[str, float]] = field(default_factory=list[tuple[str, float]])
    stuck: str | None = None
    error: str | None = None
    advice: str | None = None
    text: str = ""


class Watched:
    """Passes requests to a transport, and records their address and the time of the first byte."""

    def __init__(self, inner: HttpTransport, reach: Reach) -> None:
        self._inner = inner
        self._reach = reach
        self._looked = False

    async def send(self, request: Request) -> HttpResponse:
        if not self._looked:
            self._looked = True
            await _look(request.url, self._reach)
        began = time.monotonic()
        response = await self._inner.send(request)
        self._reach.steps.append(("first byte of the answer", time.monotonic() - began))
        return response

    async def prewarm(self, url: str, *, timeout: float = _STEP) -> None:
        pass

    async def aclose(self) -> None:
        await self._inner.aclose()


async def _look(url: str, reach: Reach) -> None:
    """Time the steps to `url` on a separate connection. Errors are ignored here, because they occur
    again, with an explanation, when the request is sent."""
    parts = urlsplit(url)
    host, secure = parts.hostname or "", parts.scheme == "https"
    port = parts.port or (443 if secure else 80)
    loop = asyncio.get_running_loop()
    with contextlib.suppress(OSError, ValueError, TimeoutError):
        async with asyncio.timeout(_STEP):
            began = time.monotonic()
            reach.stuck = "name"
            found = await loop.getaddrinfo(host, port, type=socket.SOCK_STREAM)
            address = str(found[0][4][0])
            reach.steps.append((f"name: {address}", time.monotonic() - began))
            began = time.monotonic()
            reach.stuck = "TCP"
            reader, writer = await asyncio.open_connection(address, port)
            try:
                reach.steps.append((f"TCP: port {port}", time.monotonic() - began))
                if secure:
                    began = time.monotonic()
                    reach.stuck = "TLS"
                    await writer.start_tls(ssl.create_default_context(), server_hostname=host)
                    secured: Any = writer.get_extra_info("ssl_object")
                    reach.steps.append((f"TLS: {secured.version()}", time.monotonic() - began))
                reach.stuck = None
            finally:
                writer.close()
                del reader


async def reach(make: Any, *, local: bool, timeout: float) -> Reach:
    """Ask a model for one token.

    Args:
        make: makes the model with a transport; ``None`` for one on this machine.
        local: whether it runs on this machine.
        timeout: maximum seconds of the whole check.
    """
    from rejoinder.llm.chat_context import ChatContext
    from rejoinder.types import APIConnectOptions

    found = Reach()
    transport: Any = None
    if not local:
        from rejoinder.transport._aiohttp import AiohttpTransport

        transport = Watched(AiohttpTransport(), found)
    model = make(transport)
    try:
        if model.load is not None:
            began = time.monotonic()
            await model.load()
            found.steps.append(("loaded", time.monotonic() - began))
        chat_ctx = ChatContext.empty()
        chat_ctx.add_message(role="user", content="Say OK.")
        began = time.monotonic()
        options = APIConnectOptions(max_retry=0, timeout=timeout)
        async with model.llm.chat(chat_ctx=chat_ctx, conn_options=options) as stream:
            async for chunk in stream:
                delta = chunk.delta
                if delta is not None and (delta.content or delta.thinking):
                    found.text = delta.content or delta.thinking or ""
                    found.steps.append(("first token", time.monotonic() - began))
                    break
    except APIError as error:
        found.error = render_error(error)
        found.advice = advice(error, found.stuck)
    finally:
        await model.llm.aclose()
        if transport is not None:
            await transport.aclose()
    return found


_BY_STATUS: Final = {
    400: "the server refuses this request: the name of the model or the kind of API may be wrong",
    401: "the key is wrong or has expired: set it by `rejoinder keys set PROVIDER`, or check the variable",
    402: "the account has no credit left",
    403: "the key may not use this model, or not from this country",
    404: "this address does not serve the model: check its name, and --base-url",
    429: "too many requests, or no credit left: wait, or check the limits of the account",
}


_BY_CERTIFICATE: Final[Mapping[int | None, str]] = {
    9: "the certificate is not valid yet: check the clock of this machine",
    10: "the certificate has expired: the server needs a new one, or the clock of this machine is "
    "wrong",
    62: "the certificate is for another name: check --base-url",
    64: "the certificate is not for this IP address: use the name of the server in --base-url",
}
"""Advice by error code of OpenSSL."""


def advice(error: APIError, stuck: str | None = None) -> str:
    """How the user can fix `error`.

    Args:
        stuck: the network step that failed.
    """
    if isinstance(error, APIStatusError) and error.status_code > 0:
        if error.status_code >= 500:
            return (
                "the provider has a problem: try again later, or name another model by --fallback"
            )
        return _BY_STATUS.get(error.status_code, "read the message of the server")
    cause: BaseException | None = error
    untrusted = False
    while cause is not None:
        if isinstance(cause, socket.gaierror):
            return "the name is not known here: look at --base-url, the network and its DNS"
        # aiohttp's own error is an `SSLError` without a code; its cause has one.
        if (advice := _BY_CERTIFICATE.get(read(cause, "verify_code", int))) is not None:
            return advice
        untrusted = untrusted or isinstance(cause, ssl.SSLError)
        if isinstance(cause, ConnectionRefusedError):
            return "nothing listens there: start the server, or check --base-url"
        cause = cause.__cause__ or cause.__context__
    message = str(error)
    if "resolved" in message:
        return "the name is not known here: look at --base-url, the network and its DNS"
    if untrusted or "certificate" in message.lower():
        return (
            "the certificate is not trusted: behind a proxy that inspects TLS, set SSL_CERT_FILE to "
            "its certificate"
        )
    if stuck == "TLS":
        return "the port is open, but does not speak TLS: --base-url may need http:// instead of https://"
    if isinstance(error, APITimeoutError):
        return "no answer in time: a firewall may drop it, or HTTPS_PROXY is needed here"
    if isinstance(error, APIConnectionError):
        return (
            "the connection failed: check the network, HTTPS_PROXY and --base-url (http or https?)"
        )
    return "REJOINDER_DEBUG=1 shows more"
