"""Why replies end, in any provider's word. Pure."""

from __future__ import annotations

from typing import Final

__all__ = ["is_broken_off", "is_cut"]

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
_CUT: Final = frozenset(
    {
        "length",
        "max_tokens",
        "max_output_tokens",
        "max_completion_tokens",
        "max_new_tokens",
        "model_length",  # Mistral
        "model_context_window_exceeded",  # Anthropic, Bedrock
        "context_length_exceeded",
        "token_limit",
        "content_filter",
    }
)


def is_broken_off(reason: str | None) -> bool:
    """Whether a stop reason is no end of a reply: the server broke it off."""
    return reason is not None and reason.lower() in _BROKEN_OFF


def is_cut(reason: str | None) -> bool:
    """Whether a reply that stopped for `reason` may have been cut anywhere, also inside a call."""
    return reason is not None and (reason.lower() in _CUT or is_broken_off(reason))
