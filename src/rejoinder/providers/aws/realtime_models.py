"""Capabilities of each Nova Sonic model. Pure data; no other module compares model names.

Sources: AWS's user guides of Nova Sonic and Nova 2 Sonic and its model cards, read in November 2026,
and what AWS's own samples do.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Final, Literal, TypeAlias

from rejoinder._core.realtime.makers import elsewhere
from rejoinder.errors import ConfigurationError

__all__ = [
    "DEFAULT_MODEL",
    "MODELS",
    "Sensitivity",
    "SonicFacts",
    "check_region_of",
    "check_voice",
    "facts_of",
]

DEFAULT_MODEL: Final = "amazon.nova-2-sonic-v1:0"

Sensitivity: TypeAlias = Literal["HIGH", "MEDIUM", "LOW"]
"""How soon a pause ends the user's turn; HIGH ends it soonest."""


@dataclass(frozen=True, kw_only=True)
class SonicFacts:
    """One model."""

    name: str
    """Common name."""
    text_input: bool
    """Accepts text of the user during a session, and answers it aloud."""
    turn_detection: bool
    """Takes ``turnDetectionConfiguration``."""
    async_tools: bool
    """Continues to speak and listen while tools run."""
    voices: frozenset[str]
    regions: frozenset[str] | None
    """``None``: not known."""
    history_messages: int | None
    """Maximum number of messages of a history; ``None``: as many as fit."""
    message_bytes: int
    """Maximum bytes of one message of a history."""
    history_bytes: int
    """Maximum bytes of a whole history."""
    shut_down: str | None = None
    """Day of its shutdown, past or announced."""
    successor: str | None = None


_VOICES_1: Final = frozenset(
    [
        "matthew",
        "tiffany",
        "amy",
        "ambre",
        "florian",
        "beatrice",
        "lorenzo",
        "greta",
        "lennart",
        "lupe",
        "carlos",
    ]
)
_VOICES_2: Final = frozenset(
    [
        "tiffany",
        "matthew",
        "amy",
        "olivia",
        "lupe",
        "carlos",
        "ambre",
        "florian",
        "tina",
        "lennart",
        "beatrice",
        "lorenzo",
        "carolina",
        "leo",
        "arjun",
        "kiara",
    ]
)
_SONIC_1: Final = SonicFacts(
    name="Nova Sonic",
    text_input=False,
    turn_detection=False,
    async_tools=False,
    voices=_VOICES_1,
    regions=frozenset({"us-east-1", "eu-north-1", "ap-northeast-1"}),
    history_messages=40,
    message_bytes=1000,
    history_bytes=40_000,
    shut_down="2026-09-14",
    successor=DEFAULT_MODEL,
)
_SONIC_2: Final = SonicFacts(
    name="Nova 2 Sonic",
    text_input=True,
    turn_detection=True,
    async_tools=True,
    voices=_VOICES_2,
    regions=frozenset({"us-east-1", "us-west-2", "eu-north-1", "ap-northeast-1"}),
    history_messages=None,
    message_bytes=50_000,
    history_bytes=200_000,
)
MODELS: Final[Mapping[str, SonicFacts]] = {
    "amazon.nova-sonic": _SONIC_1,
    "amazon.nova-2-sonic": _SONIC_2,
    "amazon.nova-2-5-sonic": replace(_SONIC_2, name="Nova 2.5 Sonic", regions=None),
}
"""Facts by prefix of the model id."""

_PREFIX: Final = re.compile(r"^(?:arn:[^/]*/)?(?:(?:us|eu|apac|jp|au|global)\.)?")


def facts_of(model: str) -> SonicFacts:
    """The facts about `model`, an id, an inference profile or its ARN. An unknown Sonic model gets
    the facts of the newest one.

    Raises:
        ConfigurationError: `model` is not a Nova Sonic model.
    """
    bare = _PREFIX.sub("", model)
    for prefix, facts in MODELS.items():
        if bare.startswith(prefix) and bare[len(prefix) :][:1] in ("", "-", ":"):
            return facts
    if "sonic" in bare or model.startswith("arn:"):
        return MODELS["amazon.nova-2-5-sonic"]
    hint = elsewhere(model)
    raise ConfigurationError(
        f"model: {model!r} is not a Nova Sonic model{f': {hint}' if hint else ''}; expected {DEFAULT_MODEL!r} or another id that "
        "begins with " + ", ".join(MODELS)
    )


def check_voice(voice: str, model: str, facts: SonicFacts) -> bool:
    """Whether the model is known to have `voice`; ``False`` for a voice that no known model has.

    Raises:
        ConfigurationError: it is a voice of other models.
    """
    if voice in facts.voices:
        return True
    others = [known for known, other in MODELS.items() if voice in other.voices]
    if others:
        raise ConfigurationError(
            f"voice: {model!r} has no voice {voice!r}, which belongs to {', '.join(others)}; "
            f"expected one of {', '.join(sorted(facts.voices))}"
        )
    close = difflib.get_close_matches(voice.lower(), sorted(facts.voices), n=1)
    if close:
        raise ConfigurationError(
            f"voice: {model!r} has no voice {voice!r}; did you mean {close[0]!r}?"
        )
    return False


def check_region_of(region: str, model: str, facts: SonicFacts) -> None:
    """Refuse a region that does not offer the model.

    Raises:
        ConfigurationError: the region is known not to offer the model.
    """
    if facts.regions is not None and region not in facts.regions:
        raise ConfigurationError(
            f"region: {region!r} does not have {model!r}; {facts.name} is in "
            f"{', '.join(sorted(facts.regions))}. If this list is out of date, pass base_url as well."
        )
