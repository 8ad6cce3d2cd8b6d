"""The token counts of Converse. Pure."""

from __future__ import annotations

from rejoinder._core import jsontext
from rejoinder._core.chunks import CompletionUsage
from rejoinder._core.usage import Buckets, count

__all__ = ["usage_from_bedrock"]


def usage_from_bedrock(raw: object, *, service_tier: object = None) -> CompletionUsage | None:
    """Convert the ``usage`` of a Converse ``metadata`` event. ``inputTokens`` does not include cached
    tokens."""
    usage = jsontext.as_mapping(raw) or {}
    fresh = count(usage, "inputTokens")
    completion = count(usage, "outputTokens")
    read = count(usage, "cacheReadInputTokens") or count(usage, "cacheReadInputTokenCount")
    written = count(usage, "cacheWriteInputTokens") or count(usage, "cacheWriteInputTokenCount")
    if not (fresh or completion or read or written):
        return None
    return Buckets.within(
        prompt=fresh + read + written,
        completion=completion,
        cache_read=read,
        cache_write=written,
    ).usage(service_tier=jsontext.as_text(service_tier) or None)
