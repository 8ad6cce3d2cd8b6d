"""The token counts of the Chat Completions dialect. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, TypeAlias

import msgspec

from rejoinder._core import jsontext
from rejoinder._core.chunks import CompletionUsage
from rejoinder._core.usage import MOST, Buckets, count

__all__ = ["usage_from_openai"]

_Count: TypeAlias = Annotated[int, msgspec.Meta(ge=0, le=MOST)] | None


class _Inside(msgspec.Struct, gc=False):
    audio_tokens: _Count = None
    cached_tokens: _Count = None
    cache_write_tokens: _Count = None
    cache_creation_tokens: _Count = None


class _Outside(msgspec.Struct, gc=False):
    audio_tokens: _Count = None
    reasoning_tokens: _Count = None


class _Usage(msgspec.Struct, gc=False):
    prompt_tokens: _Count = None
    completion_tokens: _Count = None
    total_tokens: _Count = None
    prompt_tokens_details: _Inside | None = None
    completion_tokens_details: _Outside | None = None
    reasoning_tokens: _Count = None
    prompt_cache_hit_tokens: _Count = None
    num_cached_tokens: _Count = None
    cached_tokens: _Count = None
    cache_creation_input_tokens: _Count = None
    service_tier: str | None = None


def _read(raw: object) -> _Usage:
    """The counts. Counts of unexpected types are read as far as possible."""
    try:
        return msgspec.convert(raw, _Usage)
    except msgspec.ValidationError:
        usage = jsontext.as_mapping(raw) or {}
        counts = _counted(_Usage(), usage)
        inside = jsontext.as_mapping(usage.get("prompt_tokens_details")) or {}
        outside = jsontext.as_mapping(usage.get("completion_tokens_details")) or {}
        counts.prompt_tokens_details = _counted(_Inside(), inside)
        counts.completion_tokens_details = _counted(_Outside(), outside)
        counts.service_tier = jsontext.as_text(usage.get("service_tier"))
        return counts


def _counted(counts: Any, members: Mapping[str, Any]) -> Any:
    for name in counts.__struct_fields__:
        if name.endswith("_tokens"):
            setattr(counts, name, count(members, name))
    return counts


_NO_INSIDE = _Inside()
_NO_OUTSIDE = _Outside()


def usage_from_openai(raw: object, *, service_tier: object = None) -> CompletionUsage | None:
    """From the ``usage`` of a chat completion: OpenAI, Mistral, and other servers of that dialect.

    OpenAI includes cached tokens and sound in the prompt's count, and thinking in the completion's. xAI
    counts thinking separately, and Mistral sound; their totals show this.
    """
    usage = _read(raw)
    prompt = usage.prompt_tokens or 0
    completion = usage.completion_tokens or 0
    total = usage.total_tokens or 0
    if not (prompt or completion or total):
        return None
    inside = usage.prompt_tokens_details or _NO_INSIDE
    outside = usage.completion_tokens_details or _NO_OUTSIDE
    audio = inside.audio_tokens or 0
    reasoning = outside.reasoning_tokens or usage.reasoning_tokens or 0
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
        cache_read=inside.cached_tokens
        or usage.prompt_cache_hit_tokens
        or usage.num_cached_tokens
        or usage.cached_tokens
        or 0,
        cache_write=inside.cache_write_tokens
        or inside.cache_creation_tokens
        or usage.cache_creation_input_tokens
        or 0,
        input_audio=audio,
        reasoning=reasoning,
        output_audio=outside.audio_tokens or 0,
    ).usage(service_tier=usage.service_tier or jsontext.as_text(service_tier) or None)
