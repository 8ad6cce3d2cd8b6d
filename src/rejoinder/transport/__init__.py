"""The only folder that moves bytes. aiohttp is imported when `AiohttpTransport` is first used."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rejoinder._late import late_names

if TYPE_CHECKING:
    from rejoinder.transport._aiohttp import AiohttpTransport
    from rejoinder.transport.http import HttpResponse, HttpTransport, Request

__all__ = ["AiohttpTransport", "HttpResponse", "HttpTransport", "Request"]

__getattr__, __dir__ = late_names(
    __name__,
    {
        "AiohttpTransport": "_aiohttp",
        "HttpResponse": "http",
        "HttpTransport": "http",
        "Request": "http",
    },
)
