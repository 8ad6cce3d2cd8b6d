"""Sends the trace context to other servers, only if the application requests it."""

from __future__ import annotations

from collections.abc import Collection
from typing import Final
from urllib.parse import urlsplit

from rejoinder._options import checked

__all__ = ["TRACE_FIELDS", "propagate", "reaches_mcp", "trace_headers"]

TRACE_FIELDS: Final = frozenset({"traceparent", "tracestate", "baggage"})
"""The fields of W3C Trace Context and Baggage, in HTTP and in ``_meta`` of MCP."""

hosts: frozenset[str] = frozenset()
"""Hosts that receive the trace context."""
_mcp = False


@checked()
def propagate(*, http: Collection[str] = (), mcp: bool = False) -> None:
    """Send the ids of the running trace to servers that continue it. Nothing is sent by default.

    Each call replaces the settings of the previous one.

    Args:
        http: names of hosts, such as ``gateway.example``: requests to them carry
            ``traceparent`` and the other fields of the configured propagators.
        mcp: requests to MCP servers carry the same in ``_meta`` (SEP-414).
    """
    global hosts, _mcp
    hosts = frozenset(name.lower() for name in http)
    _mcp = mcp


def reaches_mcp() -> bool:
    """Whether MCP servers receive the trace context."""
    return _mcp


def trace_headers(url: str) -> dict[str, str]:
    """Header fields that send the current span to the server of `url`; usually empty."""
    if not hosts or (urlsplit(url).hostname or "") not in hosts:
        return {}
    from opentelemetry import propagate as propagators

    carrier: dict[str, str] = {}
    propagators.inject(carrier)
    return carrier
