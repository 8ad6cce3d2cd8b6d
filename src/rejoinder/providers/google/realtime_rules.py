"""Behaviour and accepted options of each Live API model. Pure data; no other module compares model
names.

Sources: Google's documentation of the Live API, and results that other projects' tests had with the
live service from July to October 2026. A field describes a behaviour, not a model name.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Final, Literal

from rejoinder._core.realtime.makers import elsewhere
from rejoinder.errors import ConfigurationError

__all__ = ["DEFAULT_MODEL", "DEFAULT_VERTEX_MODEL", "MODELS", "LiveRules", "rules_of"]

DEFAULT_MODEL: Final = "gemini-3.8-live"
DEFAULT_VERTEX_MODEL: Final = "gemini-live-2.5-flash-native-audio"


@dataclass(frozen=True, kw_only=True)
class LiveRules:
    """One model."""

    live: bool = True
    """The model supports the Live API."""
    hint: str = ""
    text_output: bool = False
    """Can answer only in text. Other models close the connection with 1007 when this is requested."""
    tools: Literal["blocking", "optional", "non_blocking", "always"] = "optional"
    """``blocking``: the model waits for the results of calls, and `behavior` is not accepted.
    ``optional``: blocking, unless a declaration has NON_BLOCKING. ``non_blocking``: non-blocking,
    unless a declaration has BLOCKING. ``always``: non-blocking; BLOCKING closes the connection with
    1007."""
    scheduling: Literal["taken", "dropped", "refused"] = "taken"
    """`scheduling` on results. ``dropped``: omitted, because it has no effect."""
    thinking: Literal["budget", "level", "level_required", "none"] = "budget"
    """The member of `thinkingConfig` that it accepts."""
    affective: bool = True
    """Takes `enableAffectiveDialog`."""
    proactive: Literal["optional", "always", "none"] = "optional"
    """`proactivity`. ``always``: it is on, and turning it off is an error."""
    alpha: bool = True
    """`enableAffectiveDialog` and `proactivity` are known to ``v1alpha`` only."""
    context: Literal["any", "initial"] = "any"
    """When `clientContent` is accepted: at any time, or only as the first history. In the latter
    case, text of the user is sent as `realtimeInput`."""
    trigger: Literal["dot", "bare"] = "dot"
    """How to request a reply: with the user's turn ``.``, or with `turnComplete` alone."""
    cut_off: bool = True
    """Text and results sent during a reply cut it off. Otherwise the model finishes the reply
    first."""
    tells_speech: bool = True
    """Reports `voiceActivity`."""
    call_parts: bool = False
    """A given history may hold calls and results; otherwise they are written as text."""
    given_sound: bool = False
    """A given history may hold sound, of 16 kHz."""
    long_turns: bool = False
    """A turn may pause: it is over when `interactionStatus` is IDLE."""
    result_media: bool = False
    """Results may hold pictures (PNG, JPEG, WebP)."""
    session_limit: float | None = None
    """Seconds after which the service ends a session with 1011, even a resumed one."""
    patience: float = 30.0
    """Seconds that a reply may pause without progress."""


_NATIVE_25: Final = LiveRules(cut_off=False, tells_speech=False)
_FLASH_31: Final = LiveRules(
    tools="blocking",
    scheduling="dropped",
    thinking="level",
    affective=False,
    context="initial",
    given_sound=True,
    result_media=True,
)
_LIVE_38: Final = LiveRules(
    tools="non_blocking",
    thinking="none",
    proactive="always",
    alpha=False,
    trigger="bare",
    call_parts=True,
    given_sound=True,
    result_media=True,
    session_limit=3480.0,
)

MODELS: Final[Mapping[str, LiveRules]] = {
    "gemini-2.5-flash-native-audio": _NATIVE_25,
    "gemini-live-2.5-flash-native-audio": _NATIVE_25,
    "gemini-live-2.5-flash": LiveRules(
        text_output=True,
        tools="blocking",
        scheduling="dropped",
        thinking="none",
        proactive="none",
        tells_speech=False,
    ),
    "gemini-3.1-flash-live": _FLASH_31,
    "gemini-3.8-live": _LIVE_38,
    "gemini-3.8-live-extended-thinking": replace(
        _LIVE_38,
        tools="always",
        scheduling="refused",
        thinking="level_required",
        given_sound=False,
        long_turns=True,
        patience=120.0,
    ),
    "gemini-2.0-flash-live": LiveRules(
        live=False, hint=f"it was switched off; use {DEFAULT_MODEL!r}"
    ),
    "gemini-2.0-flash-exp": LiveRules(
        live=False, hint=f"it was switched off; use {DEFAULT_MODEL!r}"
    ),
    "gemini": LiveRules(
        live=False, hint="it is not a model of the Live API; use rejoinder.providers.google.LLM"
    ),
}
"""Rules by prefix of the model name; the longest prefix wins."""

_UNKNOWN: Final = replace(_LIVE_38, session_limit=3480.0)


def rules_of(model: str) -> LiveRules:
    """The rules of `model`, which may be a path. An unknown model gets the rules of the newest
    kind.

    Raises:
        ConfigurationError: it does not speak the Live API, or belongs to the API of another maker.
    """
    name = model.rpartition("/")[2]
    found = ""
    for prefix in MODELS:
        if name.startswith(prefix) and len(prefix) > len(found):
            found = prefix
    rules = MODELS.get(found, _UNKNOWN)
    hint = elsewhere(name, "gemini") if not found else ""
    if hint:
        raise ConfigurationError(f"RealtimeModel: model {model!r} cannot be used: {hint}")
    if not rules.live and found == "gemini" and "live" in name:
        return _UNKNOWN  # a newer model
    if not rules.live:
        raise ConfigurationError(f"RealtimeModel: model {model!r} cannot be used: {rules.hint}")
    return rules
