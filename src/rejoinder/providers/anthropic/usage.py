"""The token counts of the Messages API. Pure."""

from __future__ import annotations

from rejoinder._core import jsontext
from rejoinder._core.chunks import CompletionUsage
from rejoinder._core.usage import Buckets, count

__all__ = ["usage_from_anthropic"]


def usage_from_anthropic(raw: object) -> CompletionUsage | None:
    """Convert the ``usage`` of a message. ``input_tokens`` does not include cached tokens.

    Pass the merged usage of ``message_start`` and ``message_delta``: the later counts win.
    """
    usage = jsontext.as_mapping(raw) or {}
    fresh = count(usage, "input_tokens")
    completion = count(usage, "output_tokens")
    read = count(usage, "cache_read_input_tokens")
    written = count(usage, "cache_creation_input_tokens")
    if not written:
        parts = jsontext.as_mapping(usage.get("cache_creation")) or {}
        written = sum(count(parts, str(key)) for key in parts)
    if not (fresh or completion or read or written):
        return None
    details = jsontext.as_mapping(usage.get("output_tokens_details")) or {}
    return Buckets.within(
        prompt=fresh + read + written,
        completion=completion,
        cache_read=read,
        cache_write=written,
        reasoning=count(details, "thinking_tokens") or count(details, "reasoning_tokens"),
    ).usage(service_tier=jsontext.as_text(usage.get("service_tier")) or None)
