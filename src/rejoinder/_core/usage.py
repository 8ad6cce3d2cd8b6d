"""One meaning of token counts, whoever counted.

Providers disagree: some count cached tokens inside the prompt and some beside it, some count
thinking inside the completion and some beside it. Here every token lies in exactly one bucket, so
that the buckets of one reply add up to its totals, and the buckets of many replies can be added.
Converters take the provider's own object, tolerate anything in it (nulls, text, missing keys), and
return ``None`` when it counts nothing. No count is ever negative.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, cast

from rejoinder._core.chunks import CompletionUsage

__all__ = [
    "Buckets",
    "usage_from_anthropic",
    "usage_from_bedrock",
    "usage_from_google",
    "usage_from_openai",
    "usage_from_responses",
]


_MOST: Final = 1 << 53
"""No reply holds more tokens; beyond it nothing could be divided or added as a float."""


@dataclass(frozen=True, slots=True)
class Buckets:
    """Tokens of one reply (or of many), each counted once."""

    input: int = 0
    """Read afresh: text and images, neither cached nor sound."""
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
        """Buckets that add up to `prompt` and `completion`, whatever the parts claim.

        A part that is larger than what is left of its whole is cut: the totals are what is paid
        for. Where cached tokens were sound, they count as cached.
        """
        prompt, completion = max(0, prompt), max(0, completion)
        cache_read = _clamp(cache_read, prompt)
        cache_write = _clamp(cache_write, prompt - cache_read)
        input_audio = _clamp(input_audio, prompt - cache_read - cache_write)
        reasoning = _clamp(reasoning, completion)
        output_audio = _clamp(output_audio, completion - reasoning)
        return cls(
            input=prompt - cache_read - cache_write - input_audio,
            input_audio=input_audio,
            cache_read=cache_read,
            cache_write=cache_write,
            output=completion - reasoning - output_audio,
            output_audio=output_audio,
            reasoning=reasoning,
        )

    @classmethod
    def of(cls, usage: CompletionUsage) -> Buckets:
        """The buckets of a usage, e.g. to price them."""
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
        """The same numbers in the form that chunks carry."""
        return CompletionUsage(
            completion_tokens=self.completion,
            prompt_tokens=self.prompt,
            prompt_cached_tokens=self.cache_read,
            cache_creation_tokens=self.cache_write,
            cache_read_tokens=self.cache_read,
            total_tokens=self.total,
            service_tier=service_tier,
            reasoning_tokens=self.reasoning,
            prompt_audio_tokens=self.input_audio,
            completion_audio_tokens=self.output_audio,
        )


def usage_from_openai(raw: object, *, service_tier: object = None) -> CompletionUsage | None:
    """From the ``usage`` of a chat completion: OpenAI, Mistral, and whoever speaks that dialect.

    OpenAI counts cached tokens and sound in the prompt, and thinking in the completion. xAI counts
    thinking beside the completion and Mistral sound beside the prompt; their total tells.
    """
    usage = _mapping(raw)
    prompt = _count(usage, "prompt_tokens")
    completion = _count(usage, "completion_tokens")
    total = _count(usage, "total_tokens")
    if not (prompt or completion or total):
        return None
    inside = _mapping(usage.get("prompt_tokens_details"))
    outside = _mapping(usage.get("completion_tokens_details"))
    audio = _count(inside, "audio_tokens")
    reasoning = _count(outside, "reasoning_tokens") or _count(usage, "reasoning_tokens")
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
        cache_read=_count(inside, "cached_tokens")
        or _count(usage, "prompt_cache_hit_tokens")
        or _count(usage, "num_cached_tokens")
        or _count(usage, "cached_tokens"),
        cache_write=_count(inside, "cache_write_tokens")
        or _count(inside, "cache_creation_tokens")
        or _count(usage, "cache_creation_input_tokens"),
        input_audio=audio,
        reasoning=reasoning,
        output_audio=_count(outside, "audio_tokens"),
    ).usage(service_tier=_word(usage.get("service_tier")) or _word(service_tier))


def usage_from_responses(raw: object, *, service_tier: object = None) -> CompletionUsage | None:
    """From the ``usage`` of a response of the Responses API; xAI's thinking as in the other."""
    usage = _mapping(raw)
    prompt = _count(usage, "input_tokens")
    completion = _count(usage, "output_tokens")
    total = _count(usage, "total_tokens")
    if not (prompt or completion or total):
        return None
    inside = _mapping(usage.get("input_tokens_details"))
    outside = _mapping(usage.get("output_tokens_details"))
    reasoning = _count(outside, "reasoning_tokens")
    if reasoning and total == prompt + completion + reasoning:
        completion += reasoning
    elif not completion and total > prompt > 0:
        completion = total - prompt
    elif not prompt and total > completion:
        prompt = total - completion
    return Buckets.within(
        prompt=prompt,
        completion=completion,
        cache_read=_count(inside, "cached_tokens"),
        cache_write=_count(inside, "cache_write_tokens"),
        input_audio=_count(inside, "audio_tokens"),
        reasoning=reasoning,
        output_audio=_count(outside, "audio_tokens"),
    ).usage(service_tier=_word(service_tier))


def usage_from_anthropic(raw: object) -> CompletionUsage | None:
    """From the ``usage`` of a message. Anthropic counts cached tokens beside ``input_tokens``.

    Pass the merged usage of ``message_start`` and ``message_delta``: the later counts win.
    """
    usage = _mapping(raw)
    fresh = _count(usage, "input_tokens")
    completion = _count(usage, "output_tokens")
    read = _count(usage, "cache_read_input_tokens")
    written = _count(usage, "cache_creation_input_tokens")
    if not written:
        parts = _mapping(usage.get("cache_creation"))
        written = sum(_count(parts, str(key)) for key in parts)
    if not (fresh or completion or read or written):
        return None
    details = _mapping(usage.get("output_tokens_details"))
    return Buckets.within(
        prompt=fresh + read + written,
        completion=completion,
        cache_read=read,
        cache_write=written,
        reasoning=_count(details, "thinking_tokens") or _count(details, "reasoning_tokens"),
    ).usage(service_tier=_word(usage.get("service_tier")))


def usage_from_google(raw: object) -> CompletionUsage | None:
    """From ``usageMetadata``. Google counts cached tokens in the prompt, thoughts beside the
    candidates, and the results of its own tools beside the prompt."""
    usage = _mapping(raw)
    prompt = _count(usage, "promptTokenCount") + _count(usage, "toolUsePromptTokenCount")
    candidates = _count(usage, "candidatesTokenCount") or _count(usage, "responseTokenCount")
    thoughts = _count(usage, "thoughtsTokenCount")
    total = _count(usage, "totalTokenCount")
    if not (prompt or candidates or thoughts or total):
        return None
    if total > prompt + candidates + thoughts and not candidates:
        # While a reply is on its way the count of its tokens may be missing from the parts.
        candidates = total - prompt - thoughts
    return Buckets.within(
        prompt=prompt,
        completion=candidates + thoughts,
        cache_read=_count(usage, "cachedContentTokenCount"),
        input_audio=_modality(usage.get("promptTokensDetails"), "AUDIO")
        + _modality(usage.get("toolUsePromptTokensDetails"), "AUDIO"),
        reasoning=thoughts,
        output_audio=_modality(
            usage.get("candidatesTokensDetails") or usage.get("responseTokensDetails"), "AUDIO"
        ),
    ).usage(
        service_tier=_word(usage.get("serviceTier")) or _word(usage.get("trafficType")),
    )


def usage_from_bedrock(raw: object, *, service_tier: object = None) -> CompletionUsage | None:
    """From the ``usage`` of a Converse ``metadata`` event. Cached tokens lie beside
    ``inputTokens``."""
    usage = _mapping(raw)
    fresh = _count(usage, "inputTokens")
    completion = _count(usage, "outputTokens")
    read = _count(usage, "cacheReadInputTokens") or _count(usage, "cacheReadInputTokenCount")
    written = _count(usage, "cacheWriteInputTokens") or _count(usage, "cacheWriteInputTokenCount")
    if not (fresh or completion or read or written):
        return None
    return Buckets.within(
        prompt=fresh + read + written,
        completion=completion,
        cache_read=read,
        cache_write=written,
    ).usage(service_tier=_word(service_tier))


def _clamp(part: int, whole: int) -> int:
    return min(max(0, part), whole)


def _mapping(value: object) -> Mapping[str, Any]:
    return cast("Mapping[str, Any]", value) if isinstance(value, Mapping) else {}


def _word(value: object) -> str | None:
    return value if isinstance(value, str) and value else None


def _count(usage: Mapping[str, Any], key: str) -> int:
    value = usage.get(key)
    if type(value) is int:
        return min(max(0, value), _MOST)
    if isinstance(value, (float, str)):
        try:
            return min(max(0, int(float(value))), _MOST)
        except (ValueError, OverflowError):
            return 0
    return 0


def _modality(details: object, name: str) -> int:
    if not isinstance(details, list):
        return 0
    return sum(
        _count(_mapping(entry), "tokenCount")
        for entry in cast("list[object]", details)
        if str(_mapping(entry).get("modality")).upper() == name
    )
