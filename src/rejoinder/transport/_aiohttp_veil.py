"""Hides the user, password and query of a URL from tracing of aiohttp sessions.

aiohttp passes the URL of each request to the tracers of its sessions, and monitoring tools trace every
session of a process: Sentry keeps user, password and query in the breadcrumbs of the next error. So we
pass the session a URL without them. The request adds them again, below all tracing.
"""

from __future__ import annotations

import base64
from contextvars import ContextVar, Token
from typing import Any, Final

import aiohttp
from multidict import CIMultiDict
from yarl import URL

__all__ = ["Mark", "VeiledRequest", "unveil", "veil"]

Mark = Token[URL | None]

_whole: Final[ContextVar[URL | None]] = ContextVar("rejoinder_whole_address", default=None)


def veil(url: URL) -> tuple[URL, Mark | None]:
    """The URL to pass to a session whose requests are `VeiledRequest`, and a mark to `unveil` after the
    response."""
    if not url.raw_query_string and url.raw_user is None and url.raw_password is None:
        return url, None
    return url.with_user(None).with_query(None), _whole.set(url)


def unveil(mark: Mark | None) -> None:
    """Stop replacing the URL of this task's requests."""
    if mark is not None:
        _whole.reset(mark)


class VeiledRequest(aiohttp.ClientRequest):
    """Is sent to the whole URL that `veil` shortened."""

    def __init__(self, method: str, url: URL, *, headers: Any = None, **options: Any) -> None:
        asked, whole = url, _whole.get()
        if whole is not None:
            url = whole.with_user(None)
            if whole.raw_user is not None or whole.raw_password is not None:
                pair = f"{whole.user or ''}:{whole.password or ''}".encode()
                headers = CIMultiDict[str](headers or ())
                headers["Authorization"] = f"Basic {base64.b64encode(pair).decode()}"
        super().__init__(method, url, headers=headers, **options)
        self.original_url = asked  # the URL that responses show

    async def _on_headers_request_sent(self, method: str, url: URL, headers: Any) -> None:
        await super()._on_headers_request_sent(method, self.original_url, headers)

    async def _on_chunk_request_sent(self, method: str, url: URL, chunk: bytes) -> None:
        await super()._on_chunk_request_sent(method, self.original_url, chunk)
