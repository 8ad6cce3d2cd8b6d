"""The options of a request as attributes of its span, read from the encoded body.

Pure, and never raises. The decoder skips the messages and creates no objects for them. Each option is
listed with its names in all APIs; options that a body lacks are omitted.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final, cast

import msgspec

from rejoinder.telemetry import names

__all__ = ["request_attributes"]


def _number(value: object) -> float | None:
    return float(value) if isinstance(value, int | float) and not isinstance(value, bool) else None


def _whole(value: object) -> int | None:
    if isinstance(value, bool) or not isinstance(value, int | float) or abs(value) >= 1 << 63:
        return None  # exporters encode 64 bits
    return int(value) if value == int(value) else None


def _count(value: object) -> int | None:
    """The conventions omit a count of 1."""
    return None if value == 1 else _whole(value)


def _word(value: object) -> str | None:
    return value.lower() if isinstance(value, str) and value else None


def _texts(value: object) -> list[str] | None:
    if isinstance(value, str):
        return [value]
    if not isinstance(value, list):
        return None
    return [text for text in cast("list[object]", value) if isinstance(text, str)] or None


_ATTRIBUTES: Final[dict[str, tuple[Callable[[object], Any], tuple[str, ...]]]] = {
    names.ATTR_GEN_AI_REQUEST_TEMPERATURE: (_number, ("temperature",)),
    names.ATTR_GEN_AI_REQUEST_TOP_P: (_number, ("top_p", "topP")),
    names.ATTR_GEN_AI_REQUEST_TOP_K: (_whole, ("top_k", "topK")),
    names.ATTR_GEN_AI_REQUEST_SEED: (_whole, ("seed", "random_seed")),
    names.ATTR_GEN_AI_REQUEST_MAX_TOKENS: (
        _whole,
        (
            "max_completion_tokens",
            "max_output_tokens",
            "max_tokens",
            "maxOutputTokens",
            "maxTokens",
        ),
    ),
    names.ATTR_GEN_AI_REQUEST_STOP_SEQUENCES: (_texts, ("stop", "stop_sequences", "stopSequences")),
    names.ATTR_GEN_AI_REQUEST_CHOICE_COUNT: (_count, ("n", "candidateCount")),
    names.ATTR_GEN_AI_REQUEST_FREQUENCY_PENALTY: (
        _number,
        ("frequency_penalty", "frequencyPenalty"),
    ),
    names.ATTR_GEN_AI_REQUEST_PRESENCE_PENALTY: (_number, ("presence_penalty", "presencePenalty")),
    names.ATTR_GEN_AI_REQUEST_REASONING_LEVEL: (
        _word,
        ("reasoning_effort", "effort", "thinkingLevel"),
    ),
}
# Objects in which an API keeps some of its options.
_HOLDERS: Final = (
    "generationConfig",  # Gemini
    "inferenceConfig",  # Bedrock
    "additionalModelRequestFields",  # fields that Bedrock passes on to the model
    "output_config",  # Anthropic
    "reasoning",  # Responses, OpenRouter
)
_THINKING: Final = "thinkingConfig"  # of Gemini, inside its generationConfig

_Options: Any = msgspec.defstruct(
    "_Options",
    [
        (name, Any, None)
        for name in (*(one for _, found in _ATTRIBUTES.values() for one in found), *_HOLDERS)
    ],
)
_DECODER: Final = msgspec.json.Decoder(_Options)


def request_attributes(body: bytes | None) -> dict[str, Any]:
    """The attributes of the options in `body`; empty if it is not a JSON object."""
    if not body:
        return {}
    try:
        options = _DECODER.decode(body)
    except (msgspec.DecodeError, ValueError, RecursionError):
        return {}
    places: list[Mapping[str, Any]] = [msgspec.structs.asdict(options)]
    for name in _HOLDERS:
        holder = places[0][name]
        if isinstance(holder, dict):
            found = cast("dict[str, Any]", holder)
            places.append(found)
            if isinstance(found.get(_THINKING), dict):
                places.append(found[_THINKING])
    attributes: dict[str, Any] = {}
    for attribute, (read, spellings) in _ATTRIBUTES.items():
        for place in places:
            given = (read(place.get(name)) for name in spellings)
            value = next((value for value in given if value is not None), None)
            if value is not None:
                attributes[attribute] = value
                break
    return attributes
