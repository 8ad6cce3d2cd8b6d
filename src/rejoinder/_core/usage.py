"""Token counts with the same meaning for every provider.

Providers differ: some include cached tokens in the prompt's count, and some thinking in the completion's;
others count them separately. Here, every token is in exactly one bucket, so the buckets of a reply add up
to its totals, and the buckets of many replies can be added. No count is negative.

Each provider's folder has the reader of its usage object. Readers tolerate any content (nulls, text,
missing keys), and return ``None`` if it has no counts.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final

import msgspec

from rejoinder._core.chunks import CompletionUsage

__all__ = ["MOST", "Buckets", "added", "count"]


MOST: Final = 1 << 53
"""Maximum count. No reply has more tokens, and larger integers could not be used as floats."""


class Buckets(msgspec.Struct, frozen=True, gc=False):
    """Tokens of one reply (or of many), each counted once."""

    input: int = 0
    """Text and images that were read without the cache."""
    input_audio: int = 0
    cache_read: int = 0
    cache_write: int = 0
    output: int = 0
    """Text and tool calls."""
    output_audio: int = 0
    reasoning: int = 0

    @property
    def prompt(self) -> int:
        return self.input + self.input_audio + self.cache_read + self.cache_write

    @property
    def completion(self) -> int:
        return self.output + self.output_audio + self.reasoning

    @property
    def total(self) -> int:
        return self.prompt + self.completion

    def __add__(self, other: Buckets) -> Buckets:
        return Buckets(
            input=self.input + other.input,
            input_audio=self.input_audio + other.input_audio,
            cache_read=self.cache_read + other.cache_read,
            cache_write=self.cache_write + other.cache_write,
            output=self.output + other.output,
            output_audio=self.output_audio + other.output_audio,
            reasoning=self.reasoning + other.reasoning,
        )

    @classmethod
    def within(
        cls,
        *,
        prompt: int,
        completion: int,
        cache_read: int = 0,
        cache_write: int = 0,
        input_audio: int = 0,
        reasoning: int = 0,
        output_audio: int = 0,
    ) -> Buckets:
        """Buckets that add up to `prompt` and `completion`, even if the parts do not.

        A part that exceeds the rest of its total is reduced, because the totals are billed. Cached sound
        counts as cached.
        """
        if prompt < 0 or completion < 0:
            prompt, completion = max(0, prompt), max(0, completion)
        # Most parts are 0, and need no check.
        cache_read = cache_read and _clamp(cache_read, prompt)
        cache_write = cache_write and _clamp(cache_write, prompt - cache_read)
        input_audio = input_audio and _clamp(input_audio, prompt - cache_read - cache_write)
        reasoning = reasoning and _clamp(reasoning, completion)
        output_audio = output_audio and _clamp(output_audio, completion - reasoning)
        return cls(
            prompt - cache_read - cache_write - input_audio,
            input_audio,
            cache_read,
            cache_write,
            completion - reasoning - output_audio,
            output_audio,
            reasoning,
        )

    @classmethod
    def of(cls, usage: CompletionUsage) -> Buckets:
        """The buckets of a usage, e.g. to compute its price."""
        return cls.within(
            prompt=usage.prompt_tokens,
            completion=usage.completion_tokens,
            cache_read=usage.cache_read_tokens or usage.prompt_cached_tokens,
            cache_write=usage.cache_creation_tokens,
            input_audio=usage.prompt_audio_tokens,
            reasoning=usage.reasoning_tokens,
            output_audio=usage.completion_audio_tokens,
        )

    def usage(self, *, service_tier: str | None = None) -> CompletionUsage:
        """The same numbers as the usage of a chunk."""
        prompt, completion = self.prompt, self.completion
        # Like CompletionUsage(...), but without pydantic's Python code: this runs for every reply.
        validated: Callable[[Any], CompletionUsage] = (
            CompletionUsage.__pydantic_validator__.validate_python
        )
        return validated(
            {
                "completion_tokens": completion,
                "prompt_tokens": prompt,
                "prompt_cached_tokens": self.cache_read,
                "cache_creation_tokens": self.cache_write,
                "cache_read_tokens": self.cache_read,
                "total_tokens": prompt + completion,
                "service_tier": service_tier,
                "reasoning_tokens": self.reasoning,
                "prompt_audio_tokens": self.input_audio,
                "completion_audio_tokens": self.output_audio,
            }
        )


def added(first: CompletionUsage, second: CompletionUsage | None) -> CompletionUsage:
    """The sum of the usage of two requests that make one reply."""
    if second is None:
        return first
    tier = second.service_tier or first.service_tier
    return (Buckets.of(first) + Buckets.of(second)).usage(service_tier=tier)


def count(usage: Mapping[str, Any], key: str, /) -> int:
    """The number of tokens under `key`; 0 for any other value."""
    value = usage.get(key)
    if value is None:
        return 0
    if type(value) is int:
        return value if 0 <= value <= MOST else min(max(0, value), MOST)
    if isinstance(value, (float, str)):
        try:
            return min(max(0, int(float(value))), MOST)
        except (ValueError, OverflowError):
            return 0
    return 0


def _clamp(part: int, whole: int) -> int:
    return part if 0 <= part <= whole else min(max(0, part), whole)
