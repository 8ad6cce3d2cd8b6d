"""Encodes events, tools, results and histories for Nova Sonic. Pure."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from typing import Any, Final, Literal, TypeAlias, cast

from rejoinder._core import jsontext
from rejoinder._core.items import (
    ChatItem,
    ChatMessage,
    FunctionCall,
    FunctionCallOutput,
    ImageContent,
    parts_of,
)
from rejoinder._core.realtime.speech import spoken_text
from rejoinder._core.results import described, refusal
from rejoinder.errors import ConfigurationError
from rejoinder.providers.aws.realtime_models import SonicFacts

__all__ = [
    "DEFAULT_INSTRUCTIONS",
    "History",
    "audio_start",
    "event",
    "history_of",
    "prompt_start",
    "result_text",
    "session_start",
    "told_result",
    "tool_choice",
    "whole_arguments",
]

logger = logging.getLogger("rejoinder")

Role: TypeAlias = Literal["USER", "ASSISTANT"]

DEFAULT_INSTRUCTIONS: Final = (
    "You are a friendly assistant in a spoken conversation. Answer in one to three short sentences."
)
"""Default instructions, because the service requires some."""

INPUT_RATE: Final = 16_000
OUTPUT_RATE: Final = 24_000

_TEXT_BYTES: Final = 1000
"""Maximum bytes of one ``textInput``. A longer text takes several of them in one block."""
_PLAIN: Final = {"mediaType": "text/plain"}


def event(kind: str, /, **fields: Any) -> str:
    """Encode one event."""
    return jsontext.encode({"event": {kind: fields}}).decode()


# -- the beginning -------------------------------------------------------------------------------


def session_start(options: Mapping[str, Any], facts: SonicFacts, *, has_tools: bool) -> str:
    """``sessionStart``. With tools, sampling defaults to greedy, which this service expresses as
    1.0."""
    sampling: dict[str, Any] = {"maxTokens": options.get("max_tokens", 1024)}
    for name, key, default in (("top_p", "topP", 0.9), ("temperature", "temperature", 0.7)):
        value = options.get(name)
        sampling[key] = value if value is not None else 1.0 if has_tools else default
    fields: dict[str, Any] = {"inferenceConfiguration": sampling}
    sensitivity = options.get("turn_detection")
    if sensitivity is not None and facts.turn_detection:
        fields["turnDetectionConfiguration"] = {"endpointingSensitivity": sensitivity}
    return event("sessionStart", **fields)


def prompt_start(
    prompt: str, options: Mapping[str, Any], tools: Sequence[Mapping[str, Any]] | None
) -> str:
    """``promptStart``: the output formats and the tools."""
    fields: dict[str, Any] = {
        "promptName": prompt,
        "textOutputConfiguration": _PLAIN,
        "audioOutputConfiguration": {
            "mediaType": "audio/lpcm",
            "sampleRateHertz": OUTPUT_RATE,
            "sampleSizeBits": 16,
            "channelCount": 1,
            "voiceId": options["voice"],
            "encoding": "base64",
            "audioType": "SPEECH",
        },
    }
    choice = options.get("tool_choice")
    if tools and choice != "none":
        configuration: dict[str, Any] = {"tools": [_sonic_tool(tool) for tool in tools]}
        wanted = tool_choice(choice)
        if wanted is not None:
            configuration = {"toolChoice": wanted, **configuration}
        fields["toolUseOutputConfiguration"] = {"mediaType": "application/json"}
        fields["toolConfiguration"] = configuration
    return event("promptStart", **fields)


def _sonic_tool(tool: Mapping[str, Any]) -> dict[str, Any]:
    """A tool in Converse format, with its schema as JSON text."""
    spec = dict(cast("Mapping[str, Any]", tool["toolSpec"]))
    schema = spec["inputSchema"]["json"]
    spec.setdefault("description", spec["name"])
    spec["inputSchema"] = {"json": jsontext.encode(schema).decode()}
    return {"toolSpec": spec}


def tool_choice(choice: Any) -> dict[str, Any] | None:
    """A tool choice in Bedrock's format; ``None`` without a choice.

    Raises:
        ConfigurationError: the value is not a tool choice.
    """
    if choice is None or choice == "none":
        return None
    if choice == "auto":
        return {"auto": {}}
    if choice == "required":
        return {"any": {}}
    if isinstance(choice, Mapping):
        named = cast("Mapping[str, Any]", choice)
        function = cast("Mapping[str, Any]", named.get("function") or named)
        if isinstance(function.get("name"), str):
            return {"tool": {"name": function["name"]}}
    raise ConfigurationError(
        "tool_choice: expected 'auto', 'required', 'none' or "
        f"{{'type': 'function', 'function': {{'name': ...}}}}, got {choice!r}"
    )


def audio_start(prompt: str, name: str) -> str:
    """``contentStart`` of the user's sound."""
    return event(
        "contentStart",
        promptName=prompt,
        contentName=name,
        type="AUDIO",
        interactive=True,
        role="USER",
        audioInputConfiguration={
            "mediaType": "audio/lpcm",
            "sampleRateHertz": INPUT_RATE,
            "sampleSizeBits": 16,
            "channelCount": 1,
            "audioType": "SPEECH",
            "encoding": "base64",
        },
    )


def text_block(
    prompt: str, name: str, role: str, text: str, *, interactive: bool = False
) -> list[str]:
    """A whole block of text: its beginning, its pieces and its end. No other event may come between
    them."""
    names = {"promptName": prompt, "contentName": name}
    return [
        event(
            "contentStart",
            **names,
            type="TEXT",
            interactive=interactive,
            role=role,
            textInputConfiguration=_PLAIN,
        ),
        *(event("textInput", **names, content=piece) for piece in _pieces(text, _TEXT_BYTES)),
        event("contentEnd", **names),
    ]


def result_block(prompt: str, name: str, call_id: str, content: str) -> list[str]:
    """A whole block with the result of a call."""
    names = {"promptName": prompt, "contentName": name}
    return [
        event(
            "contentStart",
            **names,
            type="TOOL",
            interactive=False,
            role="TOOL",
            toolResultInputConfiguration={
                "toolUseId": call_id,
                "type": "TEXT",
                "textInputConfiguration": _PLAIN,
            },
        ),
        event("toolResult", **names, content=content),
        event("contentEnd", **names),
    ]


def _pieces(text: str, size: int) -> list[str]:
    """`text` in pieces of at most `size` bytes of UTF-8."""
    if len(text.encode("utf-8", "surrogatepass")) <= size:
        return [text]
    pieces: list[str] = []
    piece, length = "", 0
    for word in _words(text):
        width = len(word.encode("utf-8", "surrogatepass"))
        if length + width > size and piece:
            pieces.append(piece)
            piece, length = "", 0
        for character in word if width > size else ():
            wide = len(character.encode("utf-8", "surrogatepass"))
            if length + wide > size:
                pieces.append(piece)
                piece, length = "", 0
            piece, length = piece + character, length + wide
        if width <= size:
            piece, length = piece + word, length + width
    return [*pieces, piece] if piece else pieces


def _words(text: str) -> list[str]:
    """`text` in words, each with the space after it."""
    words = [word + " " for word in text.split(" ")]
    words[-1] = words[-1][:-1]
    return [word for word in words if word]


# -- tools ---------------------------------------------------------------------------------------


def result_text(output: FunctionCallOutput) -> str:
    """A result as the service expects it: a JSON object, encoded as text.

    Raises:
        ConfigurationError: it is a picture or a document, which the service does not support.
    """
    text = output.output
    wrong = refusal(output, ())
    if wrong is not None:
        raise ConfigurationError(wrong)
    if output.is_error:
        return jsontext.encode({"error": text}).decode()
    try:
        value: object = jsontext.decode(text)
    except ValueError:
        value = text
    if not isinstance(value, dict):
        value = {"result": value}
    return jsontext.encode(value).decode()


def told_result(call: FunctionCall, output: FunctionCallOutput) -> str:
    """A call and its result as a sentence, for use where the service accepts neither."""
    how = "failed with" if output.is_error else "returned"
    return f"(The tool {call.name} was called with {call.arguments or '{}'} and {how}: {described(output.output)})"


def whole_arguments(raw: object) -> str:
    """The arguments of a call as one JSON text, even if the service encoded them twice."""
    if isinstance(raw, dict):
        return jsontext.encode(cast("dict[str, Any]", raw)).decode()
    if not isinstance(raw, str) or not raw.strip():
        return "{}"
    text = raw
    for _ in range(3):
        try:
            value: object = jsontext.decode(text)
        except ValueError:
            return text
        if not isinstance(value, str):
            return text
        text = value
    return text


# -- history -------------------------------------------------------------------------------------


class History:
    """A history within the rules of a model.

    Attributes:
        instructions: texts for the system prompt: those of the conversation, and a first message of
            the model, because a history must begin with the user.
        messages: role and text, user and model alternating.
        unanswered: calls without a result, by id.
    """

    def __init__(self) -> None:
        self.instructions: list[str] = []
        self.messages: list[tuple[Role, str]] = []
        self.unanswered: dict[str, FunctionCall] = {}


def history_of(items: Sequence[ChatItem], facts: SonicFacts) -> History:
    """`items` as a history: user and model alternate, the user comes first, and the newest messages
    that fit are kept.

    System messages and a first message of the model go into the instructions. Calls and their
    results become text of the model.
    """
    found = History()
    told: list[tuple[Role, str]] = []
    for item in items:
        if isinstance(item, ChatMessage):
            text = _text_of(item)
            if not text:
                continue
            if item.role in ("system", "developer"):
                found.instructions.append(text)
            else:
                told.append(("USER" if item.role == "user" else "ASSISTANT", text))
        elif isinstance(item, FunctionCall):
            found.unanswered[item.call_id] = item
        elif isinstance(item, FunctionCallOutput):
            call = found.unanswered.pop(item.call_id, None)
            if call is not None:
                told.append(("ASSISTANT", told_result(call, item)))
    merged: list[tuple[Role, str]] = []
    for role, text in told:
        if merged and merged[-1][0] == role:
            merged[-1] = (role, f"{merged[-1][1]}\n{text}")
        else:
            merged.append((role, text))
    if merged and merged[0][0] == "ASSISTANT":
        found.instructions.append(f"You began the conversation with these words: {merged[0][1]}")
        merged = merged[1:]
    found.messages = _within(merged, facts)
    return found


def _within(messages: list[tuple[Role, str]], facts: SonicFacts) -> list[tuple[Role, str]]:
    kept: list[tuple[Role, str]] = []
    room = facts.history_bytes
    for role, whole in reversed(messages):
        text = _cut(whole, facts.message_bytes)
        size = len(text.encode("utf-8", "surrogatepass"))
        full = facts.history_messages is not None and len(kept) >= facts.history_messages
        if size > room or full:
            break
        room -= size
        kept.append((role, text))
    kept.reverse()
    if kept and kept[0][0] == "ASSISTANT":
        kept = kept[1:]
    if len(kept) < len(messages):
        logger.info(
            "omitted %d of %d messages of the history, which do not fit; kept the newest",
            len(messages) - len(kept),
            len(messages),
        )
    return kept


def _cut(text: str, size: int) -> str:
    if len(text.encode("utf-8", "surrogatepass")) <= size:
        return text
    room = size - len("…".encode())
    kept = text.encode("utf-8", "surrogatepass")[:room].decode("utf-8", "ignore")
    words = kept.rpartition(" ")[0]
    return (words if len(words) > len(kept) // 2 else kept).rstrip() + "…"


def _text_of(message: ChatMessage) -> str:
    """The text of a message, including the transcript of its sound. Pictures are omitted."""
    if any(isinstance(part, ImageContent) for part in parts_of(message)):
        logger.warning("omitted a picture: Nova Sonic does not accept pictures")
    return jsontext.heal(spoken_text(message))
