"""Families of models: what each accepts, refuses and needs back, wherever it is served.

Pure data and lookups; nothing else in the project knows single models. A family is found by the name
of a model, however its host writes it: ``anthropic/claude-sonnet-4.6`` (OpenRouter),
``us.anthropic.claude-sonnet-4-6-v1:0`` or an ARN (Bedrock), ``claude-sonnet-4-6@default``
(Vertex AI), ``Qwen/Qwen3-8B`` (vLLM), ``accounts/fireworks/models/kimi-k2p5``. Other names,
such as those of deployments, need a hint or the option ``family=``.

Every refusal in the tables names its source: a recorded answer, the maker's guide, or a report.
"""

from __future__ import annotations

import re
from functools import lru_cache
from typing import Final

from rejoinder._core.families import anthropic, google, openai, others
from rejoinder._core.families._family import (
    SAMPLING,
    Family,
    Forced,
    Ids,
    Input,
    ReasoningBack,
    Retired,
    Thinks,
    Words,
)
from rejoinder.errors import ConfigurationError

__all__ = [
    "FAMILIES",
    "RETIRED",
    "SAMPLING",
    "UNKNOWN",
    "Family",
    "Forced",
    "Ids",
    "Input",
    "ReasoningBack",
    "Retired",
    "Thinks",
    "Words",
    "choose_family",
    "find_family",
    "retirement",
    "words_of",
]

UNKNOWN: Final = Family(name="unknown")
"""An unknown model: nothing is refused, nothing is added."""

FAMILIES: Final = (
    *others.FAMILIES,
    *anthropic.FAMILIES,
    *google.FAMILIES,
    *openai.FAMILIES,
)
"""All families. The first one that matches a name counts."""

RETIRED: Final = {
    **openai.RETIRED,
    **anthropic.RETIRED,
    **google.RETIRED,
    **others.RETIRED,
}
"""Retired models, by their maker's name."""

_SEPARATORS: Final = re.compile(r"[^a-z0-9]+")
# Abbreviations in the names of deployments, which are replaced by the names of the tables.
_RUN_TOGETHER: Final = (
    (re.compile(r"(?<![a-z0-9])(?:gpt|phi|glm)(?=\d)"), r"\g<0>-"),
    (re.compile(r"(gpt-\d|(?:sonnet|opus|haiku)-\d)([1-9])(?!\d)"), r"\1-\2"),
    (re.compile(r"(gpt-\d(?:-\d)?o?|(?<![a-z0-9])o[134])(mini|nano|pro|turbo)(?![a-z])"), r"\1-\2"),
)
_CLAUDE: Final = re.compile(r"(?<![a-z0-9])(?:sonnet|opus|haiku)-\d")


def words_of(text: str) -> str:
    """``-gpt-5-6-terra-`` for ``openai/gpt-5.6-Terra``, ``-prod-gpt-4o-mini-`` for ``prod_gpt4omini``."""
    words = f"-{_SEPARATORS.sub('-', text.lower()).strip('-')}-"
    for found, meant in _RUN_TOGETHER:
        words = found.sub(meant, words)
    if "claude" not in words:
        words = _CLAUDE.sub(r"claude-\g<0>", words)
    return words


def _compiled(pattern: str) -> tuple[str, ...]:
    """The texts that must all occur in the words of a name; ``*`` at the end allows a longer word."""
    return tuple(
        words_of(term[:-1])[:-1] if term.endswith("*") else words_of(term)
        for term in pattern.split()
    )


@lru_cache(maxsize=1)
def _table() -> tuple[tuple[tuple[str, ...], Family], ...]:
    return tuple((_compiled(pattern), family) for family in FAMILIES for pattern in family.match)


@lru_cache(maxsize=512)
def find_family(name: str, *hints: str) -> Family:
    """The family of a model.

    The patterns of a row are words of the name in their order; ``.``, ``_``, ``/``, ``:`` and
    ``-`` are all the same. A pattern of several words matches when all of them occur.

    Args:
        name: name of the model, as its host writes it.
        hints: further names, such as that of the model behind a deployment, tried in order if `name`
            does not decide.

    Returns:
        The family, or `UNKNOWN`.
    """
    for text in (name, *hints):
        words = words_of(text)
        for terms, family in _table():
            if all(term in words for term in terms):
                return family
    return UNKNOWN


def choose_family(option: str | None, name: str, *hints: str) -> Family:
    """The family that the option ``family=`` names, else that of the model.

    Args:
        option: the name of a row, or of any model of the family.
        name: name of the model.
        hints: see `find_family`.

    Raises:
        ConfigurationError: `option` names no known family.
    """
    if option is None:
        return find_family(name, *hints)
    for family in (UNKNOWN, *FAMILIES):
        if family.name == option:
            return family
    found = find_family(option)
    if found is UNKNOWN:
        raise ConfigurationError(
            f"family: expected the name of a model or one of "
            f"{', '.join(family.name for family in (UNKNOWN, *FAMILIES))}; got {option!r}"
        )
    return found


def retirement(name: str) -> Retired | None:
    """The retirement of a model; ``None`` if it is not retired."""
    return RETIRED.get(name.lower().rpartition("/")[2])
