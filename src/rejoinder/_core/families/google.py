"""Models of Google. Data.

Sources: Google's guides (thinking, thought signatures, tool combination, deprecations), recorded
answers, and the reports named by project and number.
"""

from __future__ import annotations

from typing import Final

from msgspec.structs import replace

from rejoinder._core.families._family import Family, Retired

__all__ = ["FAMILIES", "RETIRED"]

# "Penalty is not enabled for models/gemini-2.5-flash": no Gemini that was tried accepts one.
_PENALTIES: Final = frozenset({"presence_penalty", "frequency_penalty"})

_OLD: Final = Family(
    name="gemini-2.0",
    maker="google",
    match=("gemini-1*", "gemini-2.0*", "gemini-pro"),
    schema="gemini",
    # "Function calling with a response mime type: 'application/json' is unsupported".
    schema_with_tools=False,
    context=1_048_576,
    output=8_192,
    inputs=frozenset({"audio", "document", "image", "video"}),
)

_BUDGETED: Final = replace(
    _OLD,
    refuses=_PENALTIES,
    thinks="unless_told",
    words="thinking_budget",
    budget=(0, 24_576),
    output=65_536,
)

# Calls must come back with their thought signature; a level replaces the budget, and both in one
# request are a 400. Tools combine with a response format and with built-in tools.
_LEVELLED: Final = replace(
    _BUDGETED,
    words="thinking_level",
    thinks="always",
    efforts=("minimal", "low", "medium", "high"),
    budget=None,
    signed_calls=True,
    schema_with_tools=True,
    built_in_with_tools=True,
)

# Marks of the tokenizers (vllm-project/vllm #49955, PR#48522).
_GEMMA_MARKS: Final = ("<end_of_turn>", "<start_of_turn>", "<eos>", "<bos>")

FAMILIES: Final = (
    # "Function calling is not enabled for this model".
    replace(
        _BUDGETED,
        name="gemini-image",
        match=("gemini image",),
        thinks="never",
        words="",
        budget=None,
        tools=False,
        output=32_768,
    ),
    # "gemini-3-pro" takes two levels, 3.1 three; flash models take "minimal" too.
    replace(_LEVELLED, name="gemini-3-pro", match=("gemini-3-pro",), efforts=("low", "high")),
    replace(
        _LEVELLED,
        name="gemini-3.x-pro",
        match=("gemini-3.1 pro", "gemini-3.5 pro", "gemini-3.8 pro", "gemini-pro-latest"),
        efforts=("low", "medium", "high"),
    ),
    replace(_LEVELLED, name="gemini-3", match=("gemini-3*", "gemini-flash-latest")),
    replace(
        _BUDGETED,
        name="gemini-2.5-pro",
        match=("gemini-2.5-pro*",),
        thinks="always",
        budget=(128, 32_768),
    ),
    replace(
        _BUDGETED,
        name="gemini-2.5-flash-lite",
        match=("gemini-2.5-flash-lite*",),
        thinks="asked",
        budget=(0, 24_576),
    ),
    replace(_BUDGETED, name="gemini-2.5-flash", match=("gemini-2.5*", "gemini-live-2.5*")),
    _OLD,
    # Every other Gemini counts as a newer one.
    replace(_LEVELLED, name="gemini", match=("gemini*",)),
    # The templates of Gemma 2 and 3 raise an error unless user and assistant take turns, that of
    # Gemma 2 for a system message too.
    replace(
        Family(name="gemma-2", maker="google"),
        match=("gemma-2*", "gemma2*", "codegemma*"),
        system="user",
        alternates=True,
        context=8_192,
        marks=_GEMMA_MARKS,
    ),
    Family(
        name="gemma-3",
        maker="google",
        match=("gemma-3*", "gemma3*"),
        alternates=True,
        context=131_072,
        inputs=frozenset({"image"}),
        marks=_GEMMA_MARKS,
    ),
    # Its template has a switch for thinking; its thoughts stand between these where the server does
    # not parse them.
    Family(
        name="gemma",
        maker="google",
        match=("gemma*",),
        thinks="asked",
        words="enable_thinking",
        context=262_144,
        inputs=frozenset({"image"}),
        think_tags=(("<|channel>thought", "<channel|>"),),
        marks=(
            "<turn|>",
            "<|turn>",
            "<|channel>",
            "<channel|>",
            "<|tool_call>",
            "<tool_call|>",
            "<|tool_response>",
            "<tool_response|>",
            *_GEMMA_MARKS,
        ),
    ),
)

RETIRED: Final = {
    "gemini-1.5-flash": Retired("2025-09-24", "gemini-3.5-flash"),
    "gemini-1.5-pro": Retired("2025-09-24", "gemini-3.1-pro-preview"),
    "gemini-2.0-flash": Retired("2026-06-01", "gemini-3.5-flash"),
    "gemini-2.0-flash-001": Retired("2026-06-01", "gemini-3.5-flash"),
    "gemini-2.0-flash-lite": Retired("2026-06-01", "gemini-3.5-flash-lite"),
    "gemini-2.0-flash-lite-001": Retired("2026-06-01", "gemini-3.5-flash-lite"),
    "gemini-3-pro-preview": Retired("2026-03-09", "gemini-3.1-pro-preview"),
}
