"""Trace context in what is sent to others: only where it was asked for."""

from __future__ import annotations

from collections.abc import Collection
from typing import Final
from urllib.parse import urlsplit

from rejoinder._options import checked

__all__ = ["TRACE_FIELDS", "propagate", "reaches_mcp", "trace_headers"]

TRACE_FIELDS: Final = frozenset({"traceparent", "tracestate", "baggage"})
"""The fields of W3C Trace Context and Baggage, in HTTP and in ``_meta`` of MCP."""

hosts: frozenset[str] = frozenset()
"""That are sent the trace context."""
_mcp = False


@checked()
def propagate(*, http: Collection[str] = (), mcp: bool = False) -> None:
    """Send the ids of the running trace to servers that continue it. Nothing is sent by default.

    Each call replaces what the one before has set.

    Args:
        http: names of hosts, such as ``gateway.example``: requests to them carry
            ``traceparent`` and what else the configured propagators write.
        mcp: requests to MCP servers carry the same in ``_meta`` (SEP-414).
    """
    global hosts, _mcp
    hosts = frozenset(name.lower() for name in http)
    _mcp = mcp


def reaches_mcp() -> bool:
    """Whether MCP servers are sent the trace context."""
    return _mcp


def trace_headers(url: str) -> dict[str, str]:
    """The header fields that tell the server of `url` of the current span; mostly none."""
    if not hosts or (urlsplit(url).hostname or "") not in hosts:
        return {}
    from opentelemetry import propagate as propagators

    carrier: dict[str, str] = {}
    propagators.inject(carrier)
    return carrier
