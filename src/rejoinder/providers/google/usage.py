"""The token counts of generateContent. Pure."""

from __future__ import annotations

from rejoinder._core import jsontext
from rejoinder._core.chunks import CompletionUsage
from rejoinder._core.usage import Buckets, count

__all__ = ["usage_from_google"]


def usage_from_google(raw: object) -> CompletionUsage | None:
    """From ``usageMetadata``. Google includes cached tokens in the prompt's count. It counts thoughts
    separately from the candidates, and results of its own tools separately from the prompt."""
    usage = jsontext.as_mapping(raw) or {}
    prompt = count(usage, "promptTokenCount") + count(usage, "toolUsePromptTokenCount")
    candidates = count(usage, "candidatesTokenCount") or count(usage, "responseTokenCount")
    thoughts = count(usage, "thoughtsTokenCount")
    total = count(usage, "totalTokenCount")
    if not (prompt or candidates or thoughts or total):
        return None
    if total > prompt + candidates + thoughts and not candidates:
        # Until a reply ends, the parts may lack the count of its tokens.
        candidates = total - prompt - thoughts
    return Buckets.within(
        prompt=prompt,
        completion=candidates + thoughts,
        cache_read=count(usage, "cachedContentTokenCount"),
        input_audio=_modality(usage.get("promptTokensDetails"), "AUDIO")
        + _modality(usage.get("toolUsePromptTokensDetails"), "AUDIO"),
        reasoning=thoughts,
        output_audio=_modality(
            usage.get("candidatesTokensDetails") or usage.get("responseTokensDetails"), "AUDIO"
        ),
    ).usage(
        service_tier=jsontext.as_text(usage.get("serviceTier"))
        or jsontext.as_text(usage.get("trafficType"))
        or None,
    )


def _modality(details: object, name: str) -> int:
    return sum(
        count((jsontext.as_mapping(entry) or {}), "tokenCount")
        for entry in jsontext.as_list(details)
        if str((jsontext.as_mapping(entry) or {}).get("modality")).upper() == name
    )
