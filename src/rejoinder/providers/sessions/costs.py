"""The cost of a reply of a realtime session."""

from __future__ import annotations

from rejoinder._core.chunks import CompletionUsage
from rejoinder._core.prices import cost_of
from rejoinder._core.realtime.messages import Usage
from rejoinder.metrics import Metadata

__all__ = ["cost_of_reply"]


def cost_of_reply(metadata: Metadata | None, usage: Usage, at: float) -> float | None:
    """US dollars for the tokens of a reply; ``None`` if the price is not known."""
    if metadata is None or not usage.input_tokens + usage.output_tokens:
        return None
    given, made = usage.input_details, usage.output_details
    cached = given.cached_tokens_details
    sound = 0 if cached is None else cached.audio_tokens
    counted = CompletionUsage(
        prompt_tokens=usage.input_tokens,
        completion_tokens=usage.output_tokens,
        total_tokens=usage.total_tokens,
        cache_read_tokens=given.cached_tokens,
        prompt_cached_tokens=given.cached_tokens,
        prompt_audio_tokens=max(0, given.audio_tokens - sound),
        completion_audio_tokens=made.audio_tokens,
    )
    return cost_of(
        counted,
        provider=metadata.model_provider,
        model=metadata.model_name,
        at=at,
        cached_audio=sound,
    )
