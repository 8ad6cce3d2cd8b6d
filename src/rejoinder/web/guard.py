"""Access control of the web server: an ASGI application that wraps another one.

- The ``Host`` must be one of the server's own names. This refuses a page of another site whose name
  points at this machine (DNS rebinding).
- An ``Origin``, if the browser sends one, must be the server's own.
- Everything below ``/api`` needs the token from the page's address. The page itself holds no secrets.
- A body over the limit is refused, and never held in memory.
- Every response has headers that keep a browser from loading or running anything else.
"""

from __future__ import annotations

import hmac
import json
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any, Final, TypeAlias

__all__ = ["LARGEST_BODY", "POLICY", "Guard", "TooLargeError"]

LARGEST_BODY: Final = 24 << 20
"""Maximum bytes of a request, pictures included."""
_DRAINED: Final = 128 << 20
"""Maximum bytes of a too large body to read and drop, so that its sender receives the response."""

Scope: TypeAlias = MutableMapping[str, Any]
Message: TypeAlias = MutableMapping[str, Any]
Receive: TypeAlias = Callable[[], Awaitable[Message]]
Send: TypeAlias = Callable[[Message], Awaitable[None]]
App: TypeAlias = Callable[[Scope, Receive, Send], Awaitable[None]]

POLICY: Final = (
    "default-src 'none'; connect-src 'self'; img-src 'self' data: blob:; base-uri 'none'; "
    "form-action 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'; "
    "trusted-types 'none'"
)
"""Forbids all scripts and styles. The page allows its own, by their hashes."""

HEADERS: Final = {
    "content-security-policy": POLICY,
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "permissions-policy": "camera=(), geolocation=(), microphone=()",
    "referrer-policy": "no-referrer",
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
    "cache-control": "no-store",
}


class Guard:
    """The application around `app`.

    Args:
        app: the application that receives the accepted requests.
        token: the token at the end of the page's address.
        hosts: the accepted values of ``Host``, with the port.
    """

    def __init__(self, app: App, *, token: str, hosts: frozenset[str]) -> None:
        self._app = app
        self._token = token
        self._hosts = hosts

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
            return
        if scope["type"] != "http":
            return  # no WebSockets here; uvicorn refuses the handshake
        fields: dict[str, list[str]] = {}
        for name, value in scope["headers"]:
            fields.setdefault(name.decode("latin-1").lower(), []).append(value.decode("latin-1"))
        refusal = self._refusal(scope, fields)

        async def answer(message: Message) -> None:
            if message["type"] == "http.response.start":
                own = list(message.get("headers", ()))
                names = {name.lower() for name, _ in own}
                added = [(name.encode(), value.encode()) for name, value in HEADERS.items()]
                message["headers"] = [*own, *(each for each in added if each[0] not in names)]
            await send(message)

        if refusal is not None:
            await _drain(receive, 0)
            await _refuse(answer, *refusal)
            return
        await self._app(scope, _limited(receive), answer)

    def _refusal(self, scope: Scope, fields: dict[str, list[str]]) -> tuple[int, str] | None:
        hosts = fields.get("host", [])
        if len(hosts) != 1 or hosts[0].lower() not in self._hosts:
            return 421, (
                "this server answers to its own address only; open the address that "
                "`rejoinder web` has printed"
            )
        own = {f"http://{host}" for host in self._hosts}
        if any(origin not in own for origin in fields.get("origin", [])):
            return 403, "another site may not use this server"
        if fields.get("sec-fetch-site", ["none"])[0] == "cross-site" and not _is_visit(fields):
            return 403, "another site may not use this server"
        if scope["path"].startswith("/api/") and not self._has_token(fields):
            return 401, (
                "the token is missing or wrong; open the address that `rejoinder web` has printed"
            )
        return None

    def _has_token(self, fields: dict[str, list[str]]) -> bool:
        given = fields.get("authorization", [""])[0]
        return hmac.compare_digest(given.encode(), f"Bearer {self._token}".encode())


_TOO_LARGE: Final = (
    f"the request is larger than {LARGEST_BODY >> 20} MB; send less text or smaller pictures"
)


class TooLargeError(Exception):
    """The body of a request is too large. The application should respond with 413."""

    def __init__(self) -> None:
        super().__init__(_TOO_LARGE)


def _is_visit(fields: dict[str, list[str]]) -> bool:
    """Whether a browser follows a link to the page, which shows nothing without the token."""
    return fields.get("sec-fetch-mode", [""])[0] == "navigate"


def _limited(receive: Receive) -> Receive:
    size = 0

    async def limited() -> Message:
        nonlocal size
        message = await receive()
        size += len(message.get("body") or b"")
        if size > LARGEST_BODY:
            if message.get("more_body"):
                await _drain(receive, size)
            raise TooLargeError
        return message

    return limited


async def _drain(receive: Receive, size: int) -> None:
    while size < _DRAINED:
        message = await receive()
        size += len(message.get("body") or b"")
        if not message.get("more_body"):
            return


async def _refuse(send: Send, status: int, message: str) -> None:
    body = json.dumps({"error": message}).encode()
    headers = [
        (b"content-type", b"application/json"),
        (b"content-length", str(len(body)).encode()),
        (b"connection", b"close"),  # the rest of a large body is not read
    ]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})
