"""Histories in the dialect of chat completions, which many providers clone.

Pure: items in, plain dicts out. One message per turn, with unchanged roles. Consecutive texts are
joined by newlines; with an image, content is a list, in the order of the message. Calls are part of
their assistant message, with their arguments as text; outputs follow in the role ``tool``.
"""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple, cast

from rejoinder._core.families import ReasoningBack
from rejoinder._core.groups import Group, group_tool_calls
from rejoinder._core.items import (
    ChatContent,
    ChatItem,
    ChatMessage,
    FunctionCall,
    FunctionCallOutput,
    ImageContent,
    parts_of,
    with_fields,
)
from rejoinder._core.unread import (
    kept_list,
    kept_of,
    output_as_read,
    place_kept,
    unread_in,
    without_kept,
)

if TYPE_CHECKING:
    from rejoinder._core.images import SerializedImage

__all__ = [
    "image_url",
    "ordered_content",
    "read_image",
    "to_messages",
    "with_kept_output",
    "with_kept_parts",
]

# Sent if a model demands reasoning and none is known, as for calls of another model.
_NO_THOUGHT = " "

_REASONING = frozenset({"reasoning_content", "reasoning_details"})

# State of these providers travels in `extra_content`, where their own and clone servers look.
_EXTRA_CONTENT = ("google", "livekit", "xai")


def to_messages(
    items: Sequence[ChatItem],
    *,
    reasoning_back: ReasoningBack | None = None,
    reasoning_details: bool = False,
    host: str = "",
    key: str = "openai",
    form: str = "openai",
) -> list[dict[str, Any]]:
    """`items` as messages of the chat completions API.

    Args:
        items: a history.
        reasoning_back: the assistant messages whose ``reasoning_content`` is sent back, for models
            that demand it; others refuse the field. If it is unknown, an empty text is sent, which
            they accept. ``None``: messages that had the field when they were read.
        reasoning_details: send ``reasoning_details`` back with their message, for hosts that need
            them.
        host: the server; undocumented fields of its messages are sent back to it.
        key: the key of `extra` that keeps unknown parts.
        form: the format whose unknown parts and fields are sent; empty to send none.

    Raises:
        ValueError: an image cannot be read.
    """
    messages: list[dict[str, Any]] = []
    append = messages.append
    thoughtful: list[tuple[dict[str, Any], str]] = []
    called = False
    gives_back = reasoning_back not in (None, "never")
    wants_state = reasoning_details or gives_back or bool(host)
    back = _Back(key, form, frozenset() if reasoning_back is None else _REASONING)
    for turn in group_tool_calls(items):
        if not isinstance(turn, Group):
            entry = _message(turn, back)
            if turn.role == "assistant" and wants_state:
                thought = _state_of(entry, (turn,), reasoning_details, host)
                thoughtful.append((entry, thought))
            append(entry)
            continue
        message = turn.message
        if not turn.calls:
            if message is not None:
                append(_message(message, back))
            continue
        called = True
        entry: dict[str, Any] = (
            {"role": "assistant"} if message is None else _message(message, back)
        )
        entry["tool_calls"] = list(map(partial(_call, back=back), turn.calls))
        if wants_state:
            carriers = (message, *turn.calls)
            thoughtful.append((entry, _state_of(entry, carriers, reasoning_details, host)))
        append(entry)
        for output in turn.outputs:
            told = {"role": "tool", "tool_call_id": output.call_id, "content": output.output}
            for call in turn.calls:
                if call.extra and call.call_id == output.call_id:
                    told = with_kept_output(told, back.of(call.extra), "content", output, _image)
            append(told)
    for entry, thought in thoughtful:
        if "tool_calls" in entry:
            if gives_back:
                entry["reasoning_content"] = thought
        elif called and reasoning_back == "after_calls":
            entry["reasoning_content"] = thought
    return messages


def _state_of(
    entry: dict[str, Any],
    carriers: Sequence[ChatMessage | FunctionCall | None],
    details: bool,
    host: str,
) -> str:
    """The reasoning of a message. Its opaque state is added to the message: the details of the
    reasoning, with `details`, and the unknown fields from `host`."""
    thought = ""
    for carrier in carriers:
        state: Any = carrier.extra.get("openai") if carrier is not None else None
        if not isinstance(state, dict):
            continue
        held = cast("dict[str, Any]", state)
        said: Any = held.get("reasoning_content")
        if not thought and isinstance(said, str):
            thought = said
        fields: Any = held.get("fields")
        if isinstance(fields, dict) and host and held.get("host") == host:
            for name, value in cast("dict[str, Any]", fields).items():
                entry.setdefault(name, value)
        found: Any = held.get("reasoning_details")
        if details and held.get("host", host) in (host, "") and isinstance(found, list) and found:
            entry["reasoning_details"] = [*entry.get("reasoning_details", ()), *found]
    return thought or _NO_THOUGHT


class _Back(NamedTuple):
    """Which unknown parts are sent back, see `rejoinder._core.unread`."""

    key: str
    form: str
    without: frozenset[str]
    """Fields of messages that stay here."""

    def of(self, extra: Mapping[str, Any]) -> Mapping[str, Any]:
        return unread_in(extra, self.key, self.form) if self.form else {}


def _call(call: FunctionCall, back: _Back) -> dict[str, Any]:
    spec: dict[str, Any] = {
        "id": call.call_id,
        "type": "function",
        "function": {"name": call.name, "arguments": call.arguments},
    }
    if call.extra:
        if kept := back.of(call.extra):
            spec = _call_as_read(spec, call, kept)
        if state := _extra_content(call.extra):
            spec["extra_content"] = {**spec.get("extra_content", {}), **state}
    return spec


def _call_as_read(
    spec: dict[str, Any], call: FunctionCall, kept: Mapping[str, Any]
) -> dict[str, Any]:
    """The original form of a call, unless it has changed since."""
    from rejoinder._core.reading import as_text
    from rejoinder.providers.completions.parts import arguments_of

    raw = kept_of(kept, "call")
    called = raw.get("function") or raw.get("custom")
    if not isinstance(called, dict):
        return spec
    inner = cast("dict[str, Any]", called)
    if inner.get("name") != call.name or as_text(arguments_of(inner)) != call.arguments:
        return spec
    return {"id": call.call_id, **raw}


def with_kept_output(
    told: dict[str, Any],
    kept: Mapping[str, Any],
    name: str,
    output: FunctionCallOutput,
    write_image: Callable[[ImageContent], dict[str, Any]],
) -> dict[str, Any]:
    """The original form of a call's output, unless it has changed since.

    Args:
        told: the output as this format writes it.
        kept: the parts that the call keeps, see `rejoinder._core.unread`.
        name: the member that holds the content.
        output: the current output.
        write_image: writes a picture.
    """
    if not kept:
        return told
    from rejoinder.providers.completions.parts import known_part

    content = output_as_read(kept, output, write_image, lambda raw: known_part("", raw))
    if content is not None:
        told = {**told, name: content}
    return {**kept_of(kept_of(kept, "output"), "fields"), **told}


def _message(message: ChatMessage, back: _Back) -> dict[str, Any]:
    content = message.content
    if message.extra and (kept := back.of(message.extra)):
        entry: dict[str, Any] = _as_read(message, kept, back.without)
    elif len(content) == 1 and isinstance(only := content[0], str):
        entry = {"role": message.role, "content": only}
    else:
        entry = {"role": message.role, "content": ordered_content(message, _text, _image)}
    if message.extra and (state := _extra_content(message.extra)):
        entry["extra_content"] = {**entry.get("extra_content", {}), **state}
    return entry


def _as_read(
    message: ChatMessage, kept: Mapping[str, Any], without: frozenset[str]
) -> dict[str, Any]:
    refused: dict[str, Any] = {}
    refusal: Any = kept.get("refusal")
    if isinstance(refusal, str) and message.content and message.content[-1] == refusal:
        message = with_fields(message, content=message.content[:-1])
        refused["refusal"] = refusal
    told = with_kept_parts(message, kept, _text, _image)
    told = {name: value for name, value in told.items() if name not in without}
    return {**told, "role": message.role, **refused}


def with_kept_parts(
    message: ChatMessage,
    kept: Mapping[str, Any],
    write_text: Callable[[str], dict[str, Any]],
    write_image: Callable[[ImageContent], dict[str, Any]],
) -> dict[str, Any]:
    """The content of a message with the unknown parts in their places, and the unknown fields beside
    it."""
    from rejoinder.providers.completions.parts import known_part

    def write(part: ChatContent) -> dict[str, Any] | None:
        if isinstance(part, str):
            return write_text(part) if part else None
        return write_image(part) if part.type == "image_content" else None

    entries = kept_list(kept, "content")
    content = (
        place_kept(parts_of(message), entries, write, lambda raw: known_part("", raw))
        if entries
        else ordered_content(message, write_text, write_image)
    )
    return {**kept_of(kept, "fields"), "content": content}


def _text(text: str) -> dict[str, Any]:
    return {"type": "text", "text": text}


def _image(image: ImageContent) -> dict[str, Any]:
    read = read_image(image)
    return {
        "type": "image_url",
        "image_url": {"url": image_url(read), "detail": read.inference_detail},
    }


def ordered_content(
    message: ChatMessage,
    write_text: Callable[[str], dict[str, Any]],
    write_image: Callable[[ImageContent], dict[str, Any]],
) -> str | list[dict[str, Any]]:
    """The content of a message: one text, or a list of parts if it has images.

    The parts are in the order of the message, because texts refer to the images beside them
    ("before:", "after:"). Consecutive texts are joined by newlines, without empty ones in front.
    Sound is not part of this dialect.
    """
    runs: list[list[str] | ImageContent] = [[]]
    for part in parts_of(message):
        last = runs[-1]
        if isinstance(part, str):
            if not isinstance(last, list):
                runs.append([part] if part else [])
            elif part or last:
                last.append(part)
        elif part.type == "image_content":
            runs.append(part)
    if len(runs) == 1:
        return "\n".join(cast("list[str]", runs[0]))
    parts: list[dict[str, Any]] = []
    for run in runs:
        if not isinstance(run, list):
            parts.append(write_image(run))
        elif text := "\n".join(run):
            parts.append(write_text(text))
    return parts


def read_image(image: ImageContent) -> SerializedImage:
    """The image's URL or its bytes.

    Raises:
        ValueError: the image cannot be read.
    """
    from rejoinder._core.images import serialize_image  # only histories with images need it

    return serialize_image(image)


def image_url(image: SerializedImage) -> str:
    """The URL of an external image, or a ``data:`` URL with the bytes of an inline one."""
    if image.external_url is not None:
        return image.external_url
    data = b64encode(image.data_bytes or b"").decode("ascii")
    return f"data:{image.mime_type};base64,{data}"


def _extra_content(extra: dict[str, Any]) -> dict[str, Any]:
    return {
        name: without_kept(extra[name])
        for name in _EXTRA_CONTENT
        if name in extra and without_kept(extra[name]) != {}
    }
