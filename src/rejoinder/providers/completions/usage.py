"""The token counts of the Chat Completions dialect. Pure."""

from __future__ import annotations

from rejoinder._core import jsontext
from rejoinder._core.chunks import CompletionUsage
from rejoinder._core.usage import Buckets, count

__all__ = ["usage_from_openai"]


def usage_from_openai(raw: object, *, service_tier: object = None) -> CompletionUsage | None:
    """From the ``usage`` of a chat completion: OpenAI, Mistral, and whoever speaks that dialect.

    OpenAI counts cached tokens and sound in the prompt, and thinking in the completion. xAI counts
    thinking beside the completion and Mistral sound beside the prompt; their total tells.
    """
    usage = jsontext.as_mapping(raw) or {}
    prompt = count(usage, "prompt_tokens")
    completion = count(usage, "completion_tokens")
    total = count(usage, "total_tokens")
    if not (prompt or completion or total):
        return None
    inside = jsontext.as_mapping(usage.get("prompt_tokens_details")) or {}
    outside = jsontext.as_mapping(usage.get("completion_tokens_details")) or {}
    audio = count(inside, "audio_tokens")
    reasoning = count(outside, "reasoning_tokens") or count(usage, "reasoning_tokens")
    surplus = total - prompt - completion
    if surplus > 0:
        if surplus == reasoning:
            completion += reasoning
        elif surplus == audio:
            prompt += audio
        elif surplus == reasoning + audio:
            completion += reasoning
            prompt += audio
        elif completion == 0 and prompt:
            completion = surplus
        elif prompt == 0:
            prompt = surplus
    return Buckets.within(
        prompt=prompt,
        completion=completion,
        cache_read=count(inside, "cached_tokens")
        or count(usage, "prompt_cache_hit_tokens")
        or count(usage, "num_cached_tokens")
        or count(usage, "cached_tokens"),
        cache_write=count(inside, "cache_write_tokens")
        or count(inside, "cache_creation_tokens")
        or count(usage, "cache_creation_input_tokens"),
        input_audio=audio,
        reasoning=reasoning,
        output_audio=count(outside, "audio_tokens"),
    ).usage(
        service_tier=jsontext.as_text(usage.get("service_tier"))
        or jsontext.as_text(service_tier)
        or None
    )
