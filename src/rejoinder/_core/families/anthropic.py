"""Models of Anthropic. Data.

Sources: Anthropic's guides (extended thinking, adaptive thinking, migration), and the reports
named by project and number.
"""

from __future__ import annotations

from typing import Final

from msgspec.structs import replace

from rejoinder._core.families._family import Family, Retired

__all__ = ["FAMILIES", "RETIRED"]

_SAMPLING: Final = frozenset({"temperature", "top_p", "top_k"})

# Claude's API does not know these parameters; its compatible endpoint ignores them.
_PLAIN: Final = Family(
    name="claude",
    maker="anthropic",
    schema="anthropic",
    # Structured outputs and strict tools began with Opus 4.1 and the models 4.5 (Anthropic's guide).
    schemas=False,
    strict=False,
    prefill=True,
    context=200_000,
    output=4_096,
    inputs=frozenset({"document", "image"}),
    # Claude 3 writes its thinking between these tags if it has tools; later models do so on request.
    think_tags=(("<thinking>", "</thinking>"),),
)

# "Thinking may not be enabled when tool_choice forces tool use" (run-llama/llama_index #19641);
# "`temperature` may only be set to 1 when thinking is enabled"; `top_k` is refused then, and
# `max_tokens` must be greater than the budget (the guide to extended thinking).
_MANUAL: Final = replace(
    _PLAIN,
    thinks="asked",
    words="budget",
    budget=(1_024, 32_000),
    refuses_thinking=frozenset({"top_k", "top_p"}),
    thinking_temperature=1.0,
    forced="unless_budget",
    output=64_000,
)

# "does not support assistant message prefill. The conversation must end with a user message"
# (livekit/agents #4907). Adaptive thinking accepts a forced tool.
_ADAPTIVE: Final = replace(
    _MANUAL,
    words="adaptive",
    efforts=("low", "medium", "high", "max"),
    prefill=False,
    ends_with_user=True,
    schemas=True,
    strict=True,
    one_of=frozenset({"temperature", "top_p"}),
    context=1_000_000,
    output=128_000,
)

# "`temperature` is deprecated for this model" (UKGovernmentBEIS/inspect_ai #3721), so are `top_p`
# and `top_k`; "\"thinking.type.enabled\" is not supported for this model" (NousResearch/hermes-agent
# #11137).
_NO_SAMPLING: Final = replace(
    _ADAPTIVE,
    refuses=_SAMPLING,
    refuses_thinking=frozenset(),
    thinking_temperature=None,
    efforts=("low", "medium", "high", "xhigh", "max"),
    budget=None,
)

FAMILIES: Final = (
    # Thinking is always on: "disabled" is a 400. 5.1 refuses a forced tool.
    replace(
        _NO_SAMPLING,
        name="claude-fable-5.1",
        match=("claude-fable-5-1", "claude-mythos-5-1", "claude-mythos-preview"),
        thinks="always",
        forced="never",
    ),
    replace(
        _NO_SAMPLING,
        name="claude-fable-5",
        match=("claude-fable*", "claude-mythos*"),
        thinks="always",
    ),
    # The 5.5 models refuse a forced tool while they think (Anthropic's guide to thinking in tool
    # workflows).
    replace(
        _NO_SAMPLING,
        name="claude-5.5",
        match=(
            "claude-opus-5-5",
            "claude-sonnet-5-5",
            "claude-haiku-5-5",
            "claude-5-5-opus",
            "claude-5-5-sonnet",
            "claude-5-5-haiku",
        ),
        forced="unless_thinking",
    ),
    replace(
        _NO_SAMPLING,
        name="claude-5",
        match=(
            "claude-opus-5",
            "claude-sonnet-5",
            "claude-haiku-5",
            "claude-5-opus",
            "claude-5-sonnet",
            "claude-5-haiku",
        ),
    ),
    replace(
        _NO_SAMPLING,
        name="claude-4.7",
        match=(
            "claude-opus-4-7",
            "claude-opus-4-8",
            "claude-sonnet-4-7",
            "claude-sonnet-4-8",
            "claude-4-7-opus",
            "claude-4-8-opus",
        ),
    ),
    replace(
        _ADAPTIVE,
        name="claude-4.6",
        match=(
            "claude-opus-4-6",
            "claude-sonnet-4-6",
            "claude-haiku-4-6",
            "claude-4-6-opus",
            "claude-4-6-sonnet",
        ),
    ),
    # "`temperature` and `top_p` cannot both be specified for this model. Please use only one."
    replace(
        _MANUAL,
        name="claude-opus-4.5",
        match=("claude-opus-4-5", "claude-4-5-opus"),
        efforts=("low", "medium", "high"),
        one_of=frozenset({"temperature", "top_p"}),
        schemas=True,
        strict=True,
    ),
    replace(
        _MANUAL,
        name="claude-4.5",
        match=(
            "claude-sonnet-4-5",
            "claude-haiku-4-5",
            "claude-4-5-sonnet",
            "claude-4-5-haiku",
        ),
        one_of=frozenset({"temperature", "top_p"}),
        schemas=True,
        strict=True,
    ),
    replace(
        _MANUAL,
        name="claude-opus-4.1",
        match=("claude-opus-4-1", "claude-4-1-opus"),
        one_of=frozenset({"temperature", "top_p"}),
        schemas=True,
        strict=True,
        output=32_000,
    ),
    replace(
        _MANUAL,
        name="claude-4",
        match=(
            "claude-opus-4",
            "claude-sonnet-4",
            "claude-haiku-4",
            "claude-4-opus",
            "claude-4-sonnet",
        ),
    ),
    replace(_MANUAL, name="claude-3.7", match=("claude-3-7*",)),
    replace(_PLAIN, name="claude-3.5", match=("claude-3-5*",), output=8_192),
    replace(
        _PLAIN, name="claude-3", match=("claude-3*", "claude-instant*", "claude-2*", "claude-v*")
    ),
    # Every other Claude counts as a newer one.
    replace(_NO_SAMPLING, name="claude", match=("claude*",)),
)

RETIRED: Final = {
    "claude-3-opus-20240229": Retired("2026-01-05", "claude-opus-4-8"),
    "claude-3-sonnet-20240229": Retired("2025-07-21", "claude-sonnet-4-6"),
    "claude-3-5-sonnet-20240620": Retired("2025-10-28", "claude-sonnet-4-6"),
    "claude-3-5-sonnet-20241022": Retired("2025-10-28", "claude-sonnet-4-6"),
    "claude-3-5-haiku-20241022": Retired("2026-02-19", "claude-haiku-4-5"),
    "claude-3-7-sonnet-20250219": Retired("2026-02-19", "claude-sonnet-4-6"),
    "claude-3-haiku-20240307": Retired("2026-04", "claude-haiku-4-5"),
}
