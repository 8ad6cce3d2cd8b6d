"""Encodes and decodes conversation items of OpenAI's realtime API. Pure."""

from __future__ import annotations

import base64
import binascii
import hashlib
import logging
from collections.abc import Mapping, Sequence
from typing import Any, Final, cast

from rejoinder._core.items import (
    AudioContent,
    ChatItem,
    ChatMessage,
    FunctionCall,
    FunctionCallOutput,
    ImageContent,
    parts_of,
)
from rejoinder._core.realtime.messages import AppendAudio
from rejoinder._core.results import described
from rejoinder.providers.openai.realtime_dialects import Dialect

__all__ = ["item_from_wire", "item_to_wire", "session_object", "sound_to_wire", "wire_id"]

logger = logging.getLogger("rejoinder")

_LONGEST_ID: Final = 32


def wire_id(item_id: str) -> str:
    """An id that the API accepts: at most 32 characters."""
    if len(item_id) <= _LONGEST_ID:
        return item_id
    return "i_" + hashlib.blake2s(item_id.encode("utf-8", "surrogatepass")).hexdigest()[:30]


def item_to_wire(item: ChatItem, dialect: Dialect) -> dict[str, Any] | None:
    """`item` for ``conversation.item.create``; ``None`` if it has no content that the API
    supports."""
    if isinstance(item, FunctionCall):
        return {
            "id": wire_id(item.id),
            "type": "function_call",
            "call_id": item.call_id,
            "name": item.name,
            "arguments": item.arguments or "{}",
        }
    if isinstance(item, FunctionCallOutput):
        return {
            "id": wire_id(item.id),
            "type": "function_call_output",
            "call_id": item.call_id,
            "output": described(item.output),
        }
    if not isinstance(item, ChatMessage):
        return None
    role = "system" if item.role == "developer" else item.role
    content: list[dict[str, Any]] = []
    for part in parts_of(item):
        if isinstance(part, str):
            if part:
                kind = dialect.assistant_text if role == "assistant" else "input_text"
                content.append({"type": kind, "text": part})
        elif isinstance(part, ImageContent):
            content += _image(part, dialect)
        else:
            content += _audio(part, role, dialect)
    if not content:
        return None
    return {"id": wire_id(item.id), "type": "message", "role": role, "content": content}


def _image(part: ImageContent, dialect: Dialect) -> list[dict[str, Any]]:
    if not dialect.takes_images:
        logger.warning("omitted a picture: this realtime API does not accept pictures")
        return []
    image = part.image
    if not isinstance(image, str):
        from rejoinder._core.images import serialize_image

        encoded = serialize_image(part)
        if encoded.data_bytes is None:
            return []
        data = base64.b64encode(encoded.data_bytes).decode()
        image = f"data:{encoded.mime_type};base64,{data}"
    if not image.startswith("data:"):
        logger.warning(
            "omitted a picture: the realtime API accepts only data: URLs; pass its bytes"
        )
        return []
    return [{"type": "input_image", "image_url": image}]


def _audio(part: AudioContent, role: str, dialect: Dialect) -> list[dict[str, Any]]:
    if role != "user":
        # The API accepts only the text of assistant messages, not their sound.
        return (
            [{"type": dialect.assistant_text, "text": part.transcript}] if part.transcript else []
        )
    data = b"".join(bytes(frame.data) for frame in part.frame)
    entry: dict[str, Any] = {"type": "input_audio", "audio": base64.b64encode(data).decode()}
    if part.transcript:
        entry["transcript"] = part.transcript
    return [entry]


def sound_to_wire(item: ChatMessage, sound: Sequence[AppendAudio]) -> dict[str, Any]:
    """A message of the user as its sound, for ``conversation.item.create``."""
    pieces = [piece.base64 for piece in sound]
    if any("=" in piece for piece in pieces[:-1]):  # only whole groups of three bytes can be joined
        data = b"".join([binascii.a2b_base64(piece) for piece in pieces])
        pieces = [base64.b64encode(data).decode("ascii")]
    entry = {"type": "input_audio", "audio": "".join(pieces)}
    return {"id": wire_id(item.id), "type": "message", "role": "user", "content": [entry]}


def item_from_wire(item: Mapping[str, Any]) -> ChatItem | None:
    """An item that the service announces; ``None`` for kinds that have no place in a `ChatContext`
    (hosted MCP calls and lists)."""
    kind = item.get("type")
    item_id = _text(item.get("id"))
    if not item_id:
        return None
    if kind == "message":
        role = item.get("role")
        if role not in ("system", "user", "assistant"):
            return None
        return ChatMessage(id=item_id, role=role, content=list(text_parts(item)))
    if kind == "function_call":
        return FunctionCall(
            id=item_id,
            call_id=_text(item.get("call_id")),
            name=_text(item.get("name")),
            arguments=_text(item.get("arguments")),
        )
    if kind == "function_call_output":
        return FunctionCallOutput(
            id=item_id,
            call_id=_text(item.get("call_id")),
            output=_text(item.get("output")),
            is_error=False,
        )
    return None


def text_parts(item: Mapping[str, Any]) -> Sequence[str]:
    """The texts and transcripts of a message."""
    content: object = item.get("content")
    if not isinstance(content, list):
        return ()
    found: list[str] = []
    for entry in cast("list[object]", content):
        if not isinstance(entry, dict):
            continue
        part = cast("dict[str, Any]", entry)
        for key in ("text", "transcript"):
            text = part.get(key)
            if isinstance(text, str) and text:
                found.append(text)
                break
    return found


def _text(value: object) -> str:
    return value if isinstance(value, str) else ""


# -- the session object --------------------------------------------------------------------------

_PCM: Final = {"type": "audio/pcm", "rate": 24000}


def session_object(
    dialect: Dialect,
    options: Mapping[str, Any],
    *,
    instructions: str | None,
    tools: Sequence[Mapping[str, Any]] | None,
    model: str | None,
) -> dict[str, Any]:
    """The object of ``session.update``, with only the given fields. The API accepts `model` only at
    the beginning."""
    if dialect.session == "flat":
        session = _flat(options, first=model is not None)
    else:
        session = _nested(dialect, options, first=model is not None)
        if model is not None:
            session["model"] = model
    for name in ("tracing", "truncation", "reasoning", "parallel_tool_calls", "prompt", "include"):
        if name in options:
            session[name] = options[name]
    if instructions is not None:
        session["instructions"] = instructions
    if tools is not None:
        session["tools"] = list(tools)
    return session


def _nested(dialect: Dialect, options: Mapping[str, Any], *, first: bool) -> dict[str, Any]:
    session: dict[str, Any] = {"type": "realtime"}
    sound_in: dict[str, Any] = {"format": _PCM} if first else {}
    sound_out: dict[str, Any] = {"format": _PCM} if first else {}
    at_top = dialect.session == "xai"
    for name, key in (
        ("input_audio_noise_reduction", "noise_reduction"),
        ("input_audio_transcription", "transcription"),
    ):
        if name in options:
            sound_in[key] = options[name]
    if "turn_detection" in options:
        (session if at_top else sound_in)["turn_detection"] = options["turn_detection"]
    if "voice" in options:
        (session if at_top else sound_out)["voice"] = options["voice"]
    if "speed" in options:
        sound_out["speed"] = options["speed"]
    audio: dict[str, Any] = {}
    if sound_in:
        audio["input"] = sound_in
    if sound_out:
        audio["output"] = sound_out
    if audio:
        session["audio"] = audio
    if "modalities" in options:
        session["output_modalities"] = ["audio"] if "audio" in options["modalities"] else ["text"]
    if "tool_choice" in options:
        session["tool_choice"] = _tool_choice(options["tool_choice"])
    if "max_response_output_tokens" in options:
        session["max_output_tokens"] = options["max_response_output_tokens"]
    return session


def _flat(options: Mapping[str, Any], *, first: bool) -> dict[str, Any]:
    session: dict[str, Any] = {}
    if first:
        session["input_audio_format"] = session["output_audio_format"] = "pcm16"
    if "modalities" in options:
        session["modalities"] = ["text", "audio"] if "audio" in options["modalities"] else ["text"]
    for name in (
        "voice",
        "turn_detection",
        "input_audio_transcription",
        "input_audio_noise_reduction",
        "temperature",
        "speed",
        "max_response_output_tokens",
    ):
        if name in options:
            session[name] = options[name]
    if "tool_choice" in options:
        choice = _tool_choice(options["tool_choice"])
        session["tool_choice"] = choice["name"] if isinstance(choice, dict) else choice
    return session


def _tool_choice(choice: Any) -> Any:
    if isinstance(choice, Mapping):
        named = cast("Mapping[str, Any]", choice)
        function = cast("Mapping[str, Any]", named.get("function") or named)
        return {"type": "function", "name": function["name"]}
    return "auto" if choice is None else choice
