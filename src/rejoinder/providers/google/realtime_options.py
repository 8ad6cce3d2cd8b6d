"""Converts the options of a realtime model to the Live API's settings, and checks them against its
rules. Pure. Options that the model would refuse are refused here, before anything is sent."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, Final, cast

from rejoinder.errors import ConfigurationError
from rejoinder.providers.google.options import built_in_tools, plain
from rejoinder.providers.google.realtime_rules import LiveRules

__all__ = ["SETTINGS", "changes", "check", "longest", "settings_of"]

SETTINGS: Final[Mapping[str, str]] = {
    "voice": "voice",
    "language": "language",
    "candidate_count": "candidateCount",
    "temperature": "temperature",
    "max_output_tokens": "maxOutputTokens",
    "top_p": "topP",
    "top_k": "topK",
    "presence_penalty": "presencePenalty",
    "frequency_penalty": "frequencyPenalty",
    "input_audio_transcription": "inputAudioTranscription",
    "output_audio_transcription": "outputAudioTranscription",
    "enable_affective_dialog": "enableAffectiveDialog",
    "proactivity": "proactivity",
    "realtime_input_config": "realtimeInputConfig",
    "context_window_compression": "contextWindowCompression",
    "tool_behavior": "toolBehavior",
    "tool_response_scheduling": "toolResponseScheduling",
    "session_resumption": "sessionResumption",
    "thinking_config": "thinkingConfig",
    "media_resolution": "mediaResolution",
    "safety_settings": "safetySettings",
    "explicit_vad_signal": "explicitVadSignal",
    "avatar_config": "avatarConfig",
    "labels": "labels",
    "tool_choice": "tool_choice",
}
"""Options -> names in the settings of a session: the API's own names where they exist."""

_OBJECTS: Final = frozenset(
    {
        "inputAudioTranscription",
        "outputAudioTranscription",
        "realtimeInputConfig",
        "contextWindowCompression",
        "sessionResumption",
        "thinkingConfig",
        "avatarConfig",
        "labels",
    }
)
_MARGIN: Final = 120.0
"""Seconds before the end of a session at which the next one begins: time to wait for a pause."""
_UNCOMPRESSED: Final = 900.0
"""Maximum duration in seconds of an audio session without compression."""


def settings_of(given: Mapping[str, Any]) -> dict[str, Any]:
    """The given options as settings of a session.

    Raises:
        ConfigurationError: one has a wrong form.
    """
    found: dict[str, Any] = {}
    for name, value in given.items():
        key = SETTINGS.get(name)
        if key is None:
            continue
        value = dict(cast("dict[str, Any]", value)) if name == "labels" and value else plain(value)
        if name == "proactivity" and isinstance(value, bool):
            value = {"proactiveAudio": value}
        if key in _OBJECTS and value is not None and not isinstance(value, Mapping):
            raise ConfigurationError(
                f"RealtimeModel.{name}: expected a mapping or an object of google.genai.types, got "
                f"{type(value).__name__}"
            )
        found[key] = value
    return found


def changes(given: Mapping[str, Any], given_test: Any) -> dict[str, Any]:
    """The settings that the given arguments change."""
    return settings_of({n: v for n, v in given.items() if n in SETTINGS and given_test(v)})


def built_in(tools: Sequence[object]) -> list[dict[str, Any]]:
    """Google's own tools. The Live API accepts only the search.

    Raises:
        ConfigurationError: another tool.
    """
    found = built_in_tools(tools)
    for tool in found:
        if "codeExecution" in tool:
            raise ConfigurationError(
                "RealtimeModel.gemini_tools: the Live API closes the connection if a session uses "
                "code execution; use a function tool, or google_search"
            )
    return found


def check(model: str, rules: LiveRules, settings: Mapping[str, Any]) -> None:
    """Refuse options that the model would refuse, mostly by closing the connection without a
    reason.

    Raises:
        ConfigurationError: names the option and what to give instead.
    """
    modalities: Sequence[str] = settings.get("responseModalities") or ()
    if "TEXT" in modalities and not rules.text_output:
        raise _refused(
            "modalities", f"{model!r} answers with sound only; the transcript is the text"
        )
    behavior = settings.get("toolBehavior")
    if behavior not in (None, "BLOCKING", "NON_BLOCKING"):
        raise _refused("tool_behavior", f"expected 'BLOCKING' or 'NON_BLOCKING', got {behavior!r}")
    if behavior == "BLOCKING" and rules.tools == "always":
        raise _refused("tool_behavior", f"{model!r} never waits for results; omit it")
    if behavior == "NON_BLOCKING" and rules.tools == "blocking":
        raise _refused("tool_behavior", f"{model!r} always waits for results; omit it")
    scheduling = settings.get("toolResponseScheduling")
    if scheduling not in (None, "SILENT", "WHEN_IDLE", "INTERRUPT"):
        raise _refused(
            "tool_response_scheduling",
            f"expected 'SILENT', 'WHEN_IDLE' or 'INTERRUPT', got {scheduling!r}",
        )
    if scheduling is not None and rules.scheduling == "refused":
        raise _refused("tool_response_scheduling", f"{model!r} refuses it; leave it out")
    _check_thinking(model, rules, settings.get("thinkingConfig"))
    if settings.get("enableAffectiveDialog") and not rules.affective:
        raise _refused("enable_affective_dialog", f"{model!r} refuses it; leave it out")
    proactivity = settings.get("proactivity")
    if proactivity and rules.proactive == "none":
        raise _refused("proactivity", f"{model!r} refuses it; leave it out")
    if (
        isinstance(proactivity, Mapping)
        and rules.proactive == "always"
        and cast("Mapping[str, Any]", proactivity).get("proactiveAudio") is False
    ):
        raise _refused("proactivity", f"it cannot be turned off on {model!r}; omit it")


def _check_thinking(model: str, rules: LiveRules, thinking: Any) -> None:
    config: Mapping[str, Any] = thinking or {}
    level, budget = config.get("thinkingLevel"), config.get("thinkingBudget")
    match rules.thinking:
        case "none" if level is not None or budget is not None:
            raise _refused("thinking_config", f"{model!r} does not think; leave it out")
        case "level" if budget is not None:
            raise _refused(
                "thinking_config", f"{model!r} takes thinking_level, not thinking_budget"
            )
        case "level_required" if level is None:
            raise _refused(
                "thinking_config", f"{model!r} needs a level, e.g. {{'thinking_level': 'low'}}"
            )
        case "budget" if level is not None:
            raise _refused(
                "thinking_config", f"{model!r} takes thinking_budget, not thinking_level"
            )
        case _:
            return


def longest(rules: LiveRules, settings: Mapping[str, Any]) -> float | None:
    """The age in seconds at which a new session should replace one with these settings."""
    limit = math.inf if rules.session_limit is None else rules.session_limit
    if not settings.get("contextWindowCompression"):
        limit = min(limit, _UNCOMPRESSED)
    return None if limit == math.inf else limit - _MARGIN


def _refused(option: str, why: str) -> ConfigurationError:
    return ConfigurationError(f"RealtimeModel.{option}: {why}")
