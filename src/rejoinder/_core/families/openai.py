"""Models of OpenAI. Data.

Sources: "recorded" is an answer of the API itself among the recordings that the tests read;
numbers with # are reports at the project named.
"""

from __future__ import annotations

from typing import Final

from msgspec.structs import replace

from rejoinder._core.families._family import SAMPLING, Family, Input, Retired

__all__ = ["FAMILIES", "RETIRED"]

_LEVELS: Final = ("low", "medium", "high")
_SEEING: Final[frozenset[Input]] = frozenset({"document", "image"})

_CHAT: Final = Family(
    name="openai",
    maker="openai",
    schema="openai",
    context=128_000,
    output=16_384,
    inputs=_SEEING,
)

# Recorded: "Unsupported parameter: 'temperature' is not supported with this model" (Responses and
# OpenRouter), "'stop' is not supported with this model" (gpt-5-mini).
_THINKER: Final = replace(
    _CHAT,
    refuses=SAMPLING | {"stop"},
    thinks="always",
    words="effort",
    efforts=("minimal", *_LEVELS),
    encrypted=True,
    context=400_000,
    output=128_000,
)

# From 5.1 on the effort "none" turns reasoning off, and with it the refusals of sampling
# (OpenAI's guide to reasoning; livekit/agents #4908, #6148).
_SWITCHED: Final = replace(
    _THINKER,
    refuses=frozenset({"stop"}),
    refuses_thinking=SAMPLING,
    thinks="asked",
    efforts=("none", *_LEVELS),
    default_effort="none",
)

FAMILIES: Final = (
    # "Function tools with reasoning_effort are not supported for gpt-6-luna in
    # /v1/chat/completions. To use function tools, use /v1/responses or set reasoning_effort to
    # 'none'" (moltis-org/moltis #1298). Astra does not take "none" (OpenAI's guide for it).
    replace(
        _SWITCHED,
        name="gpt-6-astra",
        match=("gpt-6-astra",),
        refuses=SAMPLING | {"stop"},
        refuses_thinking=frozenset(),
        thinks="always",
        efforts=(*_LEVELS, "xhigh"),
        default_effort="low",
        idle_tools=True,
        context=1_050_000,
    ),
    replace(
        _SWITCHED,
        name="gpt-6",
        match=("gpt-6*",),
        thinks="unless_told",
        efforts=("none", *_LEVELS, "xhigh"),
        default_effort="",
        idle_tools=True,
        context=1_050_000,
    ),
    # Measured: tools alone give 400, tools with "low" give 400, tools with "none" give 200
    # (BerriAI/litellm #34569).
    replace(
        _SWITCHED,
        name="gpt-5.6",
        match=("gpt-5.6",),
        thinks="unless_told",
        efforts=("none", *_LEVELS, "xhigh"),
        default_effort="",
        idle_tools=True,
        context=1_050_000,
    ),
    # The pro models reason always, and are served by the Responses API alone.
    replace(
        _THINKER,
        name="gpt-5-pro",
        match=("gpt-5-pro",),
        efforts=("high",),
        responses_only=True,
        output=272_000,
    ),
    replace(
        _THINKER,
        name="gpt-5.x-pro",
        match=("gpt-5.2-pro", "gpt-5.4-pro", "gpt-5.5-pro"),
        efforts=("medium", "high", "xhigh"),
        responses_only=True,
    ),
    replace(
        _SWITCHED,
        name="gpt-5.5",
        match=("gpt-5.5",),
        thinks="unless_told",
        efforts=("none", *_LEVELS, "xhigh"),
        default_effort="",
        idle_tools=True,
        context=1_050_000,
    ),
    # They reason at one effort, and refuse every other (OpenAI's Responses API, 2026-07).
    replace(
        _THINKER,
        name="gpt-5.x-chat",
        match=("gpt-5.1-chat", "gpt-5.2-chat", "gpt-5.3-chat"),
        efforts=("medium",),
        context=128_000,
        output=16_384,
    ),
    # Recorded: "'reasoning.effort' is not supported with this model" (gpt-5-chat-latest).
    replace(
        _CHAT,
        name="gpt-5-chat",
        match=("gpt-5-chat",),
        refuses=frozenset({"reasoning_effort"}),
    ),
    replace(
        _THINKER,
        name="gpt-5-codex",
        match=("gpt-5-codex", "gpt-5.1-codex", "codex-mini"),
        efforts=_LEVELS,
        responses_only=True,
    ),
    # Chat Completions refuses any effort but "none" beside function tools (livekit/agents #5088).
    replace(
        _SWITCHED,
        name="gpt-5.4",
        match=("gpt-5.4",),
        efforts=("none", *_LEVELS, "xhigh"),
        idle_tools=True,
        context=1_050_000,
    ),
    replace(
        _SWITCHED,
        name="gpt-5.2",
        match=("gpt-5.2",),
        efforts=("none", *_LEVELS, "xhigh"),
        idle_tools=True,
    ),
    replace(_SWITCHED, name="gpt-5.3", match=("gpt-5.3",), efforts=("none", *_LEVELS, "xhigh")),
    replace(_SWITCHED, name="gpt-5.1", match=("gpt-5.1",)),
    # Versions that this table does not know yet.
    replace(
        _SWITCHED,
        name="gpt-5.x",
        match=("gpt-5.7", "gpt-5.8", "gpt-5.9"),
        thinks="unless_told",
        default_effort="",
        idle_tools=True,
    ),
    # "Model incompatible request argument supplied: temperature".
    replace(
        _CHAT,
        name="gpt-4o-search",
        match=("gpt-4o-search-preview", "gpt-4o-mini-search-preview", "gpt-5-search-api"),
        refuses=SAMPLING | {"parallel_tool_calls", "stop", "reasoning_effort"},
    ),
    replace(
        _THINKER,
        name="gpt-5",
        match=("gpt-5", "gpt5", "gpt-5-mini", "gpt-5-nano"),
        default_effort="minimal",
    ),
    # Recorded: "'messages[0].role' does not support 'developer' with this model"; the API refuses
    # `system` and tools there too.
    replace(
        _THINKER,
        name="o1-mini",
        match=("o1-mini", "o1-preview"),
        refuses=SAMPLING | {"reasoning_effort", "stop", "parallel_tool_calls"},
        efforts=(),
        words="",
        encrypted=False,
        tools=False,
        system="user",
        context=128_000,
        output=65_536,
        inputs=frozenset(),
    ),
    # 400 unsupported_parameter, even for false (run-llama/llama_index #20865).
    replace(
        _THINKER,
        name="o-pro",
        match=("o1-pro", "o3-pro", "o3-deep-research", "o4-mini-deep-research"),
        refuses=SAMPLING | {"stop", "parallel_tool_calls"},
        efforts=_LEVELS,
        responses_only=True,
        context=200_000,
        output=100_000,
    ),
    replace(
        _THINKER,
        name="o-series",
        match=("o1", "o3", "o3-mini", "o4-mini"),
        refuses=SAMPLING | {"stop", "parallel_tool_calls"},
        efforts=_LEVELS,
        context=200_000,
        output=100_000,
    ),
    # Harmony's marks leak where a server does not parse them (vllm-project/vllm #32587).
    replace(
        _CHAT,
        name="gpt-oss",
        match=("gpt-oss*",),
        thinks="always",
        words="effort",
        efforts=_LEVELS,
        context=131_072,
        output=131_072,
        inputs=frozenset(),
        marks=(
            "<|channel|>",
            "<|constrain|>",
            "<|message|>",
            "<|start|>",
            "<|end|>",
            "<|call|>",
            "<|return|>",
            "<|endoftext|>",
        ),
    ),
    replace(
        _CHAT,
        name="gpt-audio",
        match=("gpt-audio*", "gpt-4o-audio*", "gpt-4o-mini-audio*"),
        refuses=frozenset({"reasoning_effort"}),
        inputs=frozenset({"audio"}),
    ),
    replace(_CHAT, name="gpt-4.1", match=("gpt-4.1",), context=1_047_576, output=32_768),
    replace(_CHAT, name="gpt-4o", match=("gpt-4o", "chatgpt-4o", "chatgpt-4o-latest")),
    # "'response_format' of type 'json_schema' is not supported with this model" (OpenAI's guide to
    # structured outputs); strict functions are.
    replace(
        _CHAT,
        name="gpt-4",
        match=("gpt-4", "gpt-4-turbo*", "gpt-3.5*", "gpt-35-turbo*"),
        schemas=False,
        output=None,
        inputs=None,
    ),
)

RETIRED: Final = {
    "o1-mini": Retired("2025-10-27", "o4-mini"),
    "o1-preview": Retired("2025-07-28", "o3"),
    "gpt-4.5-preview": Retired("2025-07-14", "gpt-4.1"),
    "chatgpt-4o-latest": Retired("2026-02", "gpt-5.3-chat-latest"),
}
