"""Encodes items, tools and settings for the Live API. Pure."""

from __future__ import annotations

import base64
import logging
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final, cast

from rejoinder._core import jsontext
from rejoinder._core.items import (
    AudioContent,
    ChatItem,
    ChatMessage,
    FunctionCall,
    FunctionCallOutput,
    ImageContent,
    parts_of,
)
from rejoinder._core.realtime.speech import spoken_text, words_of
from rejoinder._core.results import described, media_of
from rejoinder.errors import ConfigurationError
from rejoinder.providers.google.realtime_rules import LiveRules

__all__ = [
    "IMAGE_TYPES",
    "INPUT_RATE",
    "OUTPUT_RATE",
    "function_response",
    "instructions_block",
    "plain_text",
    "setup",
    "turns",
]

logger = logging.getLogger("rejoinder")

INPUT_RATE: Final = 16000
OUTPUT_RATE: Final = 24000

IMAGE_TYPES: Final = frozenset({"image/png", "image/jpeg", "image/webp"})
"""Types of pictures that the API accepts, in turns and in results."""


# -- items -----------------------------------------------------------------------------------------


def turns(
    items: Iterable[ChatItem], rules: LiveRules, *, calls: Mapping[str, FunctionCall]
) -> list[dict[str, Any]]:
    """`items` as turns of user and model; adjacent items of one role become one turn.

    Instructions become text of the user in an ``<instructions>`` block: the API has no other place
    for them after the beginning. Calls and their results become parts if the model accepts them;
    else a result becomes text that names its call.

    Args:
        items: oldest first.
        rules: of the model.
        calls: calls by id, for results whose call is not among `items`.

    Raises:
        ConfigurationError: a picture cannot be sent.
    """
    found: list[dict[str, Any]] = []
    known = dict(calls)
    items = list(items)
    made = {item.call_id for item in items if isinstance(item, FunctionCall)}
    answered = {item.call_id for item in items if isinstance(item, FunctionCallOutput)}
    paired = made & answered
    for item in items:
        if isinstance(item, FunctionCall):
            known[item.call_id] = item
        if isinstance(item, FunctionCall | FunctionCallOutput):
            as_parts = rules.call_parts and item.call_id in paired
            role, parts = _call_parts(item, as_parts, known, media=rules.result_media)
        else:
            role, parts = _parts(item, rules)
        if not parts:
            continue
        if found and found[-1]["role"] == role:
            found[-1]["parts"] += parts
        else:
            found.append({"role": role, "parts": parts})
    return found


def plain_text(items: Iterable[ChatItem], *, calls: Mapping[str, FunctionCall]) -> str:
    """`items` as text of the user, for a model that accepts nothing else between turns."""
    lines: list[str] = []
    for item in items:
        if isinstance(item, ChatMessage):
            text = spoken_text(item)
            if not text:
                continue
            if item.role == "assistant":
                text = f"(You said: {text})"
            elif item.role != "user":
                text = instructions_block(text)
            lines.append(text)
        elif isinstance(item, FunctionCallOutput):
            lines.append(_result_text(item, calls))
    return "\n".join(lines)


def _call_parts(
    item: FunctionCall | FunctionCallOutput,
    as_parts: bool,
    calls: Mapping[str, FunctionCall],
    *,
    media: bool,
) -> tuple[str, list[dict[str, Any]]]:
    if isinstance(item, FunctionCall):
        if not as_parts:
            return "user", []  # written together with its result
        part = {"id": item.call_id, "name": item.name, "args": arguments(item.arguments)}
        return "model", [{"functionCall": part}]
    if not as_parts:
        return "user", [{"text": _result_text(item, calls)}]
    part = function_response(item, name=_name(item, calls), call_id=item.call_id, media=media)
    return "user", [{"functionResponse": part}]


def _parts(item: ChatItem, rules: LiveRules) -> tuple[str, list[dict[str, Any]]]:
    if not isinstance(item, ChatMessage):
        return "user", []
    if item.role in ("system", "developer"):
        text = item.text_content
        return "user", [{"text": instructions_block(text)}] if text else []
    parts: list[dict[str, Any]] = []
    for part in parts_of(item):
        if isinstance(part, str):
            if part:
                parts.append({"text": part})
        elif isinstance(part, ImageContent):
            parts.append({"inlineData": image_blob(part)})
        else:
            parts += _sound(part, item.role, rules)
    return "model" if item.role == "assistant" else "user", parts


def instructions_block(text: str) -> str:
    return f"<instructions>\n{text}\n</instructions>"


def _name(item: FunctionCallOutput, calls: Mapping[str, FunctionCall]) -> str:
    call = calls.get(item.call_id)
    return item.name or (call.name if call is not None else "")


def _result_text(item: FunctionCallOutput, calls: Mapping[str, FunctionCall]) -> str:
    call = calls.get(item.call_id)
    what = f"The tool {_name(item, calls) or item.call_id}"
    if call is not None and call.arguments:
        what += f", called with {call.arguments},"
    return f"{what} {'failed' if item.is_error else 'returned'}: {described(item.output)}"


def arguments(text: str) -> dict[str, Any]:
    """The arguments of a call as an object; empty if they are not an object."""
    try:
        value: object = jsontext.decode(text) if text else {}
    except ValueError:
        value = None
    return cast("dict[str, Any]", value) if isinstance(value, dict) else {}


def image_blob(part: ImageContent) -> dict[str, str]:
    """A picture as ``inlineData``.

    Raises:
        ConfigurationError: it is an address, or of a type that the API does not accept.
    """
    from rejoinder._core.images import serialize_image

    encoded = serialize_image(part)
    if encoded.data_bytes is None:
        raise ConfigurationError(
            "a picture: the Live API does not accept URLs of pictures; pass its bytes, or a data: URL"
        )
    if encoded.mime_type not in IMAGE_TYPES:
        raise ConfigurationError(
            f"a picture: expected one of {', '.join(sorted(IMAGE_TYPES))}, got "
            f"{encoded.mime_type}; convert it"
        )
    data = base64.b64encode(encoded.data_bytes).decode("ascii")
    return {"mimeType": encoded.mime_type, "data": data}


def _sound(part: AudioContent, role: str, rules: LiveRules) -> list[dict[str, Any]]:
    frames = part.frame
    fits = all(f.sample_rate == INPUT_RATE and f.num_channels == 1 for f in frames)
    if part.transcript or not (rules.given_sound and frames and fits):
        words = words_of(part, role)
        return [{"text": words}] if words else []
    data = base64.b64encode(b"".join(bytes(frame.data) for frame in frames)).decode("ascii")
    return [{"inlineData": {"mimeType": f"audio/pcm;rate={INPUT_RATE}", "data": data}}]


def function_response(
    item: FunctionCallOutput,
    *,
    name: str,
    call_id: str | None = None,
    scheduling: str | None = None,
    media: bool = False,
) -> dict[str, Any]:
    """The answer to a call. An empty result is spelled out, because some models repeat the call
    when they receive nothing.

    Args:
        item: the result.
        name: of the function.
        call_id: the id from the service; ``None`` if it sent none.
        scheduling: when the model should speak about it.
        media: the model takes pictures as results; otherwise they are described.
    """
    response: dict[str, Any]
    found = media_of(item.output)
    picture = found if media and found is not None and found.mime_type in IMAGE_TYPES else None
    if picture is not None:
        response = {"output": f"{picture.name}, which follows"}
    elif found is not None:
        response = {"output": described(item.output)}
    elif item.is_error:
        response = {"error": item.output or "The tool failed."}
    elif item.output:
        response = {"output": item.output}
    else:
        response = {"status": "succeeded", "result": None, "retryable": False}
    made: dict[str, Any] = {"name": name, "response": response}
    if picture is not None:
        made["parts"] = [{"inlineData": {"mimeType": picture.mime_type, "data": picture.data}}]
    if call_id is not None:
        made["id"] = call_id
    if scheduling is not None:
        made["scheduling"] = scheduling
    return made


# -- the setup -------------------------------------------------------------------------------------

_GENERATION: Final = (
    "candidateCount",
    "temperature",
    "maxOutputTokens",
    "topP",
    "topK",
    "presencePenalty",
    "frequencyPenalty",
    "thinkingConfig",
    "mediaResolution",
    "enableAffectiveDialog",
    "responseModalities",
)
_BESIDE: Final = (
    "inputAudioTranscription",
    "outputAudioTranscription",
    "realtimeInputConfig",
    "contextWindowCompression",
    "proactivity",
    "explicitVadSignal",
    "avatarConfig",
    "safetySettings",
    "labels",
)


def setup(
    model: str,
    rules: LiveRules,
    options: Mapping[str, Any],
    *,
    instructions: str | None,
    tools: Sequence[Mapping[str, Any]] | None,
    resume: str | None,
    history: bool,
) -> dict[str, Any]:
    """The object of the first message.

    Args:
        model: full name, as the server takes it.
        rules: of the model.
        options: settings by their names in the API; further `voice`, `language`, `builtInTools`,
            `toolBehavior` and `sessionResumption`.
        instructions: of the session.
        tools: function declarations.
        resume: handle of a session to continue.
        history: whether a history follows.
    """
    generation = {name: options[name] for name in _GENERATION if options.get(name) is not None}
    speech: dict[str, Any] = {}
    if options.get("voice"):
        speech["voiceConfig"] = {"prebuiltVoiceConfig": {"voiceName": options["voice"]}}
    if options.get("language"):
        speech["languageCode"] = options["language"]
    if speech:
        generation["speechConfig"] = speech
    made: dict[str, Any] = {"model": model, "generationConfig": generation}
    made |= {name: options[name] for name in _BESIDE if options.get(name) is not None}
    if instructions:
        made["systemInstruction"] = {"parts": [{"text": instructions}]}
    declared: list[dict[str, Any]] = [dict(tool) for tool in options.get("builtInTools") or ()]
    if tools:
        behavior = options.get("toolBehavior")
        more = {"behavior": behavior} if behavior and rules.tools != "blocking" else {}
        declared.append({"functionDeclarations": [{**tool, **more} for tool in tools]})
    if declared:
        made["tools"] = declared
    resumption: dict[str, Any] = dict(options.get("sessionResumption") or {})
    resumption.pop("handle", None)
    if resume is not None:
        # The service closes with 1008 on an explicit null, so omit the key.
        resumption["handle"] = resume
    made["sessionResumption"] = resumption
    if history and rules.context == "initial":
        made["historyConfig"] = {"initialHistoryInClientContent": True}
    return made
