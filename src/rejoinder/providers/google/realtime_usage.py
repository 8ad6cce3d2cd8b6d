"""The token counts of the Live API, on the Developer API and on Vertex AI. Pure."""

from __future__ import annotations

from rejoinder._core import jsontext
from rejoinder._core.realtime.messages import Usage
from rejoinder._core.usage import count
from rejoinder.metrics import RealtimeModelMetrics

__all__ = ["usage_of"]


def usage_of(raw: object) -> Usage | None:
    """From ``usageMetadata``. The Developer API counts the reply as ``responseTokenCount``, Vertex AI
    as ``candidatesTokenCount``; thoughts are counted separately, and some totals omit them."""
    fields = jsontext.as_mapping(raw)
    if not fields:
        return None
    given = count(fields, "promptTokenCount") + count(fields, "toolUsePromptTokenCount")
    thoughts = count(fields, "thoughtsTokenCount")
    made = count(fields, "responseTokenCount") or count(fields, "candidatesTokenCount")
    made += thoughts
    total = max(count(fields, "totalTokenCount"), given + made)
    if not total:
        return None
    prompt = _by_kind(fields.get("promptTokensDetails"), fields.get("toolUsePromptTokensDetails"))
    cached = _by_kind(fields.get("cacheTokensDetails"))
    reply = _by_kind(fields.get("responseTokensDetails") or fields.get("candidatesTokensDetails"))
    metrics = RealtimeModelMetrics
    return Usage(
        input_tokens=given,
        output_tokens=made,
        total_tokens=total,
        input_details=metrics.InputTokenDetails(
            audio_tokens=prompt["AUDIO"],
            text_tokens=prompt["TEXT"],
            image_tokens=prompt["IMAGE"],
            cached_tokens=count(fields, "cachedContentTokenCount") or sum(cached.values()),
            cached_tokens_details=metrics.CachedTokenDetails(
                audio_tokens=cached["AUDIO"],
                text_tokens=cached["TEXT"],
                image_tokens=cached["IMAGE"],
            )
            if any(cached.values())
            else None,
        ),
        output_details=metrics.OutputTokenDetails(
            text_tokens=reply["TEXT"] + thoughts,
            audio_tokens=reply["AUDIO"],
            image_tokens=reply["IMAGE"],
        ),
    )


_KINDS = {"AUDIO": "AUDIO", "IMAGE": "IMAGE", "VIDEO": "IMAGE"}


def _by_kind(*details: object) -> dict[str, int]:
    found = {"AUDIO": 0, "TEXT": 0, "IMAGE": 0}
    for entries in details:
        for entry in jsontext.as_list(entries):
            fields = jsontext.as_mapping(entry) or {}
            kind = _KINDS.get(str(fields.get("modality")).upper(), "TEXT")
            found[kind] += count(fields, "tokenCount")
    return found
