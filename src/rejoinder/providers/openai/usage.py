"""The token counts of the Responses API. Pure."""

from __future__ import annotations

from rejoinder._core import jsontext
from rejoinder._core.chunks import CompletionUsage
from rejoinder._core.usage import Buckets, count

__all__ = ["usage_from_responses"]


def usage_from_responses(raw: object, *, service_tier: object = None) -> CompletionUsage | None:
    """Convert the ``usage`` of the Responses API. xAI's thinking is counted as in Chat Completions."""
    usage = jsontext.as_mapping(raw) or {}
    prompt = count(usage, "input_tokens")
    completion = count(usage, "output_tokens")
    total = count(usage, "total_tokens")
    if not (prompt or completion or total):
        return None
    inside = jsontext.as_mapping(usage.get("input_tokens_details")) or {}
    outside = jsontext.as_mapping(usage.get("output_tokens_details")) or {}
    reasoning = count(outside, "reasoning_tokens")
    if reasoning and total == prompt + completion + reasoning:
        completion += reasoning
    elif not completion and total > prompt > 0:
        completion = total - prompt
    elif not prompt and total > completion:
        prompt = total - completion
    return Buckets.within(
        prompt=prompt,
        completion=completion,
        cache_read=count(inside, "cached_tokens"),
        cache_write=count(inside, "cache_write_tokens"),
        input_audio=count(inside, "audio_tokens"),
        reasoning=reasoning,
        output_audio=count(outside, "audio_tokens"),
    ).usage(service_tier=jsontext.as_text(service_tier) or None)
