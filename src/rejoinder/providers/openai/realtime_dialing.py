"""Opens the sockets of OpenAI's speech services."""

from __future__ import annotations

from collections.abc import Mapping

from rejoinder.providers.asking.fields import build_url
from rejoinder.providers.openai.access import Access, resolve_secret, with_key
from rejoinder.transport.ws import SocketRequest, WebSocket, WebSocketTransport

__all__ = ["dial"]


async def dial(
    transport: WebSocketTransport,
    access: Access,
    path: str,
    *,
    query: Mapping[str, str] | None = None,
    headers: Mapping[str, str] | None = None,
    connect_timeout: float | None = None,
) -> WebSocket:
    """Open a socket. The key is resolved now.

    Raises:
        APIError: the connection failed.
        ConfigurationError: the function for the key returned no key.
    """
    secret = access.key
    key = await resolve_secret(secret) if callable(secret) else secret
    sent = {**with_key(access.headers, key, access.key_header), **(headers or {})}
    url = build_url(access.base_url, path, query)
    return await transport.connect(SocketRequest(url, sent, connect_timeout=connect_timeout))
