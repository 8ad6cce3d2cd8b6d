"""Finish reasons of all providers. Pure."""

from __future__ import annotations

import re
from typing import Final, Literal, TypeAlias

__all__ = ["FinishReason", "is_broken_off", "is_cut", "portable_reason"]

FinishReason: TypeAlias = Literal["stop", "length", "content_filter", "tool_call", "error"]
"""Finish reasons of OpenTelemetry's conventions for generative AI."""

_BROKEN_OFF: Final = frozenset(
    {
        "abort",  # vLLM and SGLang, when they shut down or are scaled down (vllm-project/vllm#57082)
        "aborted",
        "cancelled",
        "canceled",
        "engine_error",
        "error",
        "insufficient_system_resource",  # DeepSeek's reference
        "network_error",  # Z.ai (BerriAI/litellm PR#24373)
        "overloaded",
        "server_error",
        "timeout",
    }
)
_CUT: Final = re.compile(
    # Every server has its own word for a limit: "length", "MAX_TOKENS", "max_output_tokens",
    # "model_length" (Mistral), "model_context_window_exceeded" (Anthropic, Bedrock), "token_limit",
    # "time_limit" and "not_finished" (watsonx), "incomplete".
    r"length|limit|max_|exceeded|incomplete|(?:not_|un)finished|truncated|^content_filter$",
    re.IGNORECASE,
)
_BLOCKED: Final = frozenset(
    {
        "blocklist",
        "content_filter",
        "content_filtered",  # Bedrock
        "guardrail_intervened",
        "image_prohibited_content",
        "image_recitation",
        "image_safety",
        "language",
        "prohibited_content",
        "recitation",
        "refusal",
        "safety",
        "spii",
    }
)
_ERRORS: Final = ("failed", "malformed", "missing_", "too_many_", "unexpected_")
"""Beginnings of the finish reasons of failed replies: Gemini, Bedrock, the Responses API."""


def portable_reason(reason: str | None, *, called: bool) -> FinishReason:
    """The finish reason, in the same words for every provider.

    Args:
        reason: the provider's own word; ``None`` if it was missing.
        called: the reply holds a tool call.
    """
    word = (reason or "").lower()
    if word in _BLOCKED:
        return "content_filter"
    if is_broken_off(reason) or word.startswith(_ERRORS):
        return "error"
    if is_cut(reason):
        return "length"
    return "tool_call" if called else "stop"


def is_broken_off(reason: str | None) -> bool:
    """Whether a finish reason means that the server broke the reply off."""
    return reason is not None and reason.lower() in _BROKEN_OFF


def is_cut(reason: str | None) -> bool:
    """Whether a reply with this finish reason may have been cut anywhere, even inside a call."""
    return reason is not None and (_CUT.search(reason) is not None or is_broken_off(reason))
