"""Finds the API of a model by its name, as a hint when a model is passed to the wrong API. Pure
data."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Final

__all__ = ["elsewhere"]

_OPENAI: Final = (
    "it is a model of OpenAI; use rejoinder.providers.openai.LLM, or openai.realtime for speech"
)
_MAKERS: Final[Mapping[str, str]] = {
    "amazon.nova": "it is a model of Amazon; use rejoinder.providers.aws.LLM",
    "amazon.nova-2-5-sonic": "it is Nova Sonic; use rejoinder.providers.aws.realtime",
    "amazon.nova-2-sonic": "it is Nova Sonic; use rejoinder.providers.aws.realtime",
    "amazon.nova-sonic": "it is Nova Sonic; use rejoinder.providers.aws.realtime",
    "chatgpt": _OPENAI,
    "claude": "it is a text model of Anthropic; use rejoinder.providers.anthropic.LLM",
    "gemini": "it is a model of Google; use rejoinder.providers.google",
    "gpt": _OPENAI,
    "gpt-audio": "it is a model of OpenAI; use rejoinder.providers.openai.realtime",
    "gpt-live": "it speaks OpenAI's Live API; use rejoinder.providers.openai.live",
    "gpt-realtime": "it is a model of OpenAI; use rejoinder.providers.openai.realtime",
    "grok": "it is a model of xAI; use rejoinder.catalog.create_realtime('xai/...')",
    "o1": _OPENAI,
    "o3": _OPENAI,
    "o4": _OPENAI,
}
"""Hints by the beginning of the name, up to a word boundary; the longest one counts."""
_REGION: Final = re.compile(r"^(?:us|eu|apac|jp|au|global)\.")


def elsewhere(model: str, *own: str) -> str:
    """A hint at the API of a model; empty if its name does not show it. `own`: beginnings of the
    model names of the API that asks."""
    name = _REGION.sub("", model.rpartition("/")[2].lower())
    if name.startswith(own):
        return ""
    found = ""
    for known in _MAKERS:
        ends = not name[len(known) : len(known) + 1].isalnum()
        if name.startswith(known) and ends and len(known) > len(found):
            found = known
    return _MAKERS.get(found, "")
