"""The events of the Chat Completions dialect as typed values. Pure.

msgspec reads nearly every event strictly. Events that it refuses are read key by key: null instead
of a list, numbers as text, content as a list of parts, undocumented fields.
"""

from __future__ import annotations

from typing import Any, Final, cast

import msgspec

from rejoinder._core import jsontext

__all__ = ["Call", "Chunk", "Delta", "Function", "decode_chunk", "walk"]


class Function(msgspec.Struct, gc=False):
    name: str | None = None
    arguments: str | None = None


class Call(msgspec.Struct, gc=False):
    index: int | None = None
    id: str | None = None
    function: Function | None = None
    extra_content: dict[str, Any] | None = None


# A field that is missing here makes strict reading fail, so that no state is silently lost.
class Delta(msgspec.Struct, gc=False, forbid_unknown_fields=True):
    content: str | None = None
    tool_calls: list[Call] | None = None
    reasoning_content: str | None = None
    reasoning: str | None = None
    refusal: str | None = None
    function_call: Function | None = None
    reasoning_details: list[Any] | None = None
    extra_content: dict[str, Any] | None = None
    annotations: list[Any] | None = None
    audio: dict[str, Any] | None = None
    # Known, and without meaning here.
    role: msgspec.Raw = msgspec.Raw()
    name: msgspec.Raw = msgspec.Raw()
    tool_call_id: msgspec.Raw = msgspec.Raw()
    logprobs: msgspec.Raw = msgspec.Raw()
    prefix: msgspec.Raw = msgspec.Raw()
    unknown: dict[str, Any] | None = None


class Choice(msgspec.Struct, gc=False):
    delta: Delta | None = None
    index: int | None = None
    finish_reason: str | None = None
    message: Delta | None = None
    error: Any = None


class Chunk(msgspec.Struct, gc=False):
    id: str | None = None
    choices: list[Choice] | None = None
    usage: Any = None
    error: Any = None
    x_groq: dict[str, Any] | None = None
    service_tier: Any = None
    loose: bool = False
    """Read tolerantly; texts may hold halves of surrogate pairs."""


decode_chunk = msgspec.json.Decoder(Chunk).decode

_MAX_ENTRIES: Final = 4096
_KNOWN: Final = frozenset(Delta.__struct_fields__) - {"unknown"}


def walk(value: object) -> Chunk | None:
    """Read any JSON value as an event, as far as it can be understood."""
    if isinstance(value, str):
        return Chunk(error=value) if value else None
    data = jsontext.as_mapping(value)
    if data is None:
        return None
    choices: list[Choice] | None = None
    if isinstance(data.get("choices"), (dict, list)):
        choices = []
        for entry in _entries(data["choices"]):
            choice = jsontext.as_mapping(entry)
            if choice is not None:
                choices.append(
                    Choice(
                        delta=_delta(choice.get("delta")),
                        index=_integer(choice.get("index")),
                        finish_reason=_word(choice.get("finish_reason")),
                        message=_delta(choice.get("message")),
                        error=choice.get("error"),
                    )
                )
    return Chunk(
        id=_word(data.get("id")),
        choices=choices,
        usage=data.get("usage"),
        error=data.get("error"),
        x_groq=jsontext.as_mapping(data.get("x_groq")),
        service_tier=data.get("service_tier"),
        loose=True,
    )


def _delta(value: object) -> Delta | None:
    if isinstance(value, str):
        return Delta(content=value)
    data = jsontext.as_mapping(value)
    if data is None:
        return None
    content, thought = _content(data.get("content"))
    calls: list[Call] = []
    for entry in _entries(data.get("tool_calls")):
        call = jsontext.as_mapping(entry)
        if call is not None:
            calls.append(
                Call(
                    index=_integer(call.get("index")),
                    id=_word(call.get("id")),
                    # Some servers forget the envelope and put name and arguments beside the id.
                    function=_function(call.get("function")) or _function(call),
                    extra_content=jsontext.as_mapping(call.get("extra_content")),
                )
            )
    unknown = {
        name: field for name, field in data.items() if name not in _KNOWN and field is not None
    }
    return Delta(
        content=content,
        tool_calls=calls or None,
        reasoning_content=_thought(data.get("reasoning_content")) or thought or None,
        reasoning=_thought(data.get("reasoning")),
        refusal=_word(data.get("refusal")),
        function_call=_function(data.get("function_call")),
        reasoning_details=_entries(data.get("reasoning_details")) or None,
        extra_content=jsontext.as_mapping(data.get("extra_content")),
        annotations=_entries(data.get("annotations")) or None,
        audio=jsontext.as_mapping(data.get("audio")),
        unknown=unknown or None,
    )


def _content(value: object) -> tuple[str | None, str | None]:
    """Text and thinking of a content that may be text, a part, or a list of them."""
    if isinstance(value, str):
        return value, None
    if isinstance(value, dict):
        part = cast("dict[str, Any]", value)
        if part.get("type") in ("thinking", "reasoning"):
            inner = (part[key] for key in _THOUGHTS if part.get(key))
            return None, _thought(next(inner, None))
        for key in ("text", "content", "refusal"):
            if isinstance(part.get(key), str):
                return part[key], None
        return None, None
    if isinstance(value, list):
        texts: list[str] = []
        thoughts: list[str] = []
        for entry in _entries(cast("object", value)):
            text, thought = _content(entry)
            texts.append(text or "")
            thoughts.append(thought or "")
        return "".join(texts) or None, "".join(thoughts) or None
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        return str(value), None
    return None, None


_THOUGHTS: Final = ("thinking", "reasoning", "text", "content", "summary")
"""Members of a thinking part that hold its text."""


def _thought(value: object) -> str | None:
    """The text of a thinking field, which may have any form that content may have."""
    if isinstance(value, list):
        return "".join(_thought(entry) or "" for entry in _entries(cast("object", value))) or None
    text, thought = _content(value)
    return text or thought or None


def _function(value: object) -> Function | None:
    data = jsontext.as_mapping(value)
    if data is None:
        return None
    arguments: Any = data.get("arguments")
    if arguments is not None and not isinstance(arguments, str):
        # An object instead of JSON text: convert it to text.
        arguments = jsontext.encode(arguments).decode()
    name = _word(data.get("name"))
    if name is None and arguments is None:
        return None
    return Function(name=name, arguments=arguments)


def _entries(value: object) -> list[Any]:
    """A list unchanged; a single object as a list."""
    if isinstance(value, list):
        # No real reply is longer, and reading key by key would take long.
        return cast("list[Any]", value)[:_MAX_ENTRIES]
    return [value] if isinstance(value, dict) else []


def _word(value: object) -> str | None:
    if isinstance(value, str):
        return value or None
    return str(value) if isinstance(value, int) and not isinstance(value, bool) else None


def _integer(value: object) -> int | None:
    if isinstance(value, bool):
        return None
    if isinstance(value, int):
        return value
    if isinstance(value, (str, float)):
        try:
            return int(value)
        except (ValueError, OverflowError):
            return None
    return None
