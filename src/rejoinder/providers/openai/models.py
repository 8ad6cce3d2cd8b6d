"""What families of models refuse or want, as data. Pure.

The law of this file: a parameter that a model answers with status 400 is left out before it is
sent, with a line in the log; nothing is ever added that the caller did not ask for, except the
default effort of models that otherwise think long before they speak.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any, Final

__all__ = ["Family", "family_of", "unsupported_fields"]

_SAMPLING: Final = frozenset(
    {
        "temperature",
        "top_p",
        "presence_penalty",
        "frequency_penalty",
        "logit_bias",
        "logprobs",
        "top_logprobs",
        "n",
    }
)


@dataclass(frozen=True, slots=True)
class Family:
    """What is true of all models whose names begin alike."""

    reasons: bool = False
    """It thinks before it speaks: its reasoning items are worth keeping."""
    refuses: frozenset[str] = frozenset()
    refuses_unless_idle: frozenset[str] = frozenset()
    """Refused unless `reasoning_effort` is ``"none"``."""
    refuses_with_tools: frozenset[str] = frozenset()
    default_effort: str | None = None
    hears: bool = False
    """It takes sound."""


_PLAIN: Final = Family()
_THINKER: Final = Family(reasons=True, refuses=_SAMPLING)
_SWITCHABLE: Final = Family(reasons=True, refuses_unless_idle=_SAMPLING, default_effort="none")

# The first pattern that matches the whole name counts. Dated names ("-2025-08-07") are included.
_FAMILIES: Final[tuple[tuple[re.Pattern[str], Family], ...]] = tuple(
    (re.compile(pattern), family)
    for pattern, family in (
        (r"gpt-5(\.\d+)?-chat.*", _PLAIN),
        (r"gpt-5(-mini|-nano)?", replace(_THINKER, default_effort="minimal")),
        (r"gpt-5\.1(-mini)?", _SWITCHABLE),
        (
            r"gpt-5\.(2|4)(-mini)?",
            replace(_SWITCHABLE, refuses_with_tools=frozenset({"reasoning_effort"})),
        ),
        (
            r"gpt-5\.(2|4)(-mini)?-\d.*",
            replace(
                _SWITCHABLE,
                default_effort=None,
                refuses_with_tools=frozenset({"reasoning_effort"}),
            ),
        ),
        (r"gpt-5\.\d+(-mini|-nano)?(-\d.*)?", replace(_SWITCHABLE, default_effort=None)),
        (r"gpt-5.*", _THINKER),
        (r"o[134](-.*)?", _THINKER),
        (r"codex-.*", _THINKER),
        (r"gpt-oss.*", Family(reasons=True)),
        (r"(gpt-4o.*-audio.*|gpt-audio.*)", Family(hears=True)),
        (r"gemini-.*", Family(hears=True)),
        (r"(.*voxtral.*|qwen.*-omni.*)", Family(hears=True)),
        (
            r"grok-(3-mini|4|code).*(?<!non-reasoning)",
            Family(
                reasons=True,
                refuses=frozenset({"presence_penalty", "frequency_penalty", "stop"}),
            ),
        ),
    )
)


@lru_cache(maxsize=256)
def family_of(model: str) -> Family:
    """What is known of `model`; the part before a slash (``"openai/gpt-5"``) does not count."""
    name = model.rpartition("/")[2].lower()
    for pattern, family in _FAMILIES:
        if pattern.fullmatch(name):
            return family
    return _PLAIN


def unsupported_fields(
    family: Family, fields: Mapping[str, Any], *, effort: object, tools: bool
) -> frozenset[str]:
    """Names among `fields` that the model would refuse.

    Args:
        family: of the model.
        fields: parameters of the request by name.
        effort: the ``reasoning_effort`` that will be in force.
        tools: whether function tools are offered.
    """
    names: set[str] = set(family.refuses)
    if tools:
        names |= family.refuses_with_tools
        if "reasoning_effort" in family.refuses_with_tools:
            effort = family.default_effort or "none"
    if effort != "none":
        names |= family.refuses_unless_idle
    return frozenset(names & fields.keys())
