"""OpenAI Responses: the history as a flat list of input items, and the body of a request.

Law: pure; no loop, no clock, no socket; the items are not changed. Reasoning items in
``extra["openai"]["reasoning_items"]`` of a message or call are sent before it, because the API demands
that each is followed by the item it produced. ``"host"`` beside them names the server. If a reply had
several messages, the list also holds those before the last one, in their places.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from copy import deepcopy
from typing import Any, cast

from rejoinder._core import jsontext
from rejoinder._core.groups import Group, group_tool_calls
from rejoinder._core.items import (
    ChatItem,
    ChatMessage,
    FunctionCall,
    ImageContent,
    with_fields,
)
from rejoinder._core.results import shown_in
from rejoinder._core.unread import unread_in
from rejoinder.providers.asking.in_order import in_order, is_text_entry
from rejoinder.providers.completions.format import (
    image_url,
    ordered_content,
    read_image,
    with_kept_output,
    with_kept_parts,
)
from rejoinder.providers.completions.request import named_choice

__all__ = [
    "request_body",
    "stands_alone",
    "to_chat_ctx",
    "without_foreign_state",
    "without_stored_state",
]


def without_foreign_state(items: Sequence[ChatItem], host: str) -> Sequence[ChatItem]:
    """`items` without state of servers other than `host`: only the server that made reasoning can
    decrypt it, and ids of its items are unknown elsewhere. State of unknown origin stays.
    """
    return [_without_state(item) if _is_foreign(item, host) else item for item in items]


def _is_foreign(item: ChatItem, host: str) -> bool:
    extra = getattr(item, "extra", None)
    return bool(extra) and _state(extra).get("host", host) != host


def _without_state(item: ChatItem) -> ChatItem:
    extra: dict[str, Any] = getattr(item, "extra", {})
    return with_fields(item, extra={key: extra[key] for key in extra if key != "openai"})


def without_stored_state(items: Sequence[ChatItem]) -> Sequence[ChatItem]:
    """`items` without reasoning of which only the id is known, for requests that are not stored. The
    API refuses it: "Item with id rs_... not found. Items are not persisted when `store` is set to
    false"."""
    return [_unstored(item) for item in items]


def _unstored(item: ChatItem) -> ChatItem:
    extra: dict[str, Any] = getattr(item, "extra", {})
    if not extra:
        return item
    state = _state(extra)
    found = state.get("reasoning_items")
    if not isinstance(found, list):
        return item
    entries = cast("list[Any]", found)
    readable = [entry for entry in entries if _is_encrypted(entry)]
    if len(readable) == len(entries):
        return item
    kept = {key: value for key, value in state.items() if key != "reasoning_items"}
    if readable:
        kept["reasoning_items"] = readable
    return with_fields(item, extra={**extra, "openai": kept})


def _is_encrypted(entry: object) -> bool:
    if not isinstance(entry, dict):
        return False
    held = cast("dict[str, Any]", entry)
    return is_text_entry(held) or bool(held.get("encrypted_content"))


def to_chat_ctx(
    items: Sequence[ChatItem], *, inject_dummy_user_message: bool = True
) -> tuple[list[dict[str, Any]], None]:
    """`items` as input items of the Responses API; there is no data beside them.

    Args:
        items: a history; calls and outputs without their counterpart are omitted with a warning.
        inject_dummy_user_message: ignored; accepted because every format accepts it.

    Raises:
        ValueError: an image cannot be read.
    """
    entries: list[dict[str, Any]] = []
    append = entries.append
    for turn in group_tool_calls(items):
        if not isinstance(turn, Group):
            _append_message(entries, turn)
            continue
        # A message with only state just carries the reasoning that precedes a call.
        message = turn.message
        if message is not None:
            if turn.calls and not any(message.content):
                entries.extend(_compactions(message.extra))
                entries.extend(_reasoning(message.extra, None))
                entries.extend(_whole_item(message.extra))
            else:
                _append_message(entries, message)
        custom: set[str] = set()
        for call in turn.calls:
            entry: dict[str, Any] = {
                "type": "function_call",
                "call_id": call.call_id,
                "name": call.name,
                "arguments": call.arguments,
            }
            if call.extra:
                if _state(call.extra).get("type") == "custom_tool_call":
                    custom.add(call.call_id)
                    entry = _custom_call(call)
                identity = _identity(call.extra, "item_id")
                entries.extend(_compactions(call.extra))
                entries.extend(_reasoning(call.extra, identity))
                if identity is not None:
                    entry["id"] = identity
                entry = _with_fields(entry, call.extra)
            append(entry)
        for output in turn.outputs:
            kind = "custom_tool_call" if output.call_id in custom else "function_call"
            text, pictures = shown_in(output)
            parts = [{"type": "input_text", "text": text}] if text else []
            told: dict[str, Any] = {
                "type": f"{kind}_output",
                "call_id": output.call_id,
                "output": [*parts, *map(_image, pictures)] if pictures else text,
            }
            for call in turn.calls:
                if call.extra and call.call_id == output.call_id:
                    told = with_kept_output(told, _unread(call.extra), "output", output, _image)
            append(told)
    return entries, None


def _unread(extra: Mapping[str, Any]) -> Mapping[str, Any]:
    return unread_in(extra, "openai", "openai.responses")


def _whole_item(extra: Mapping[str, Any]) -> list[dict[str, Any]]:
    """An item of an unknown kind."""
    item: Any = _unread(extra).get("item")
    return [deepcopy(cast("dict[str, Any]", item))] if isinstance(item, dict) else []


def _message(message: ChatMessage) -> dict[str, Any]:
    entry: dict[str, Any] = {"role": message.role}
    if message.extra and (kept := _unread(message.extra)):
        write_text = _output_text if message.role == "assistant" else _text
        entry |= with_kept_parts(message, kept, write_text, _image)
    elif len(message.content) == 1 and isinstance(only := message.content[0], str):
        entry["content"] = only
    else:
        entry["content"] = ordered_content(message, _text, _image)
    if message.extra and message.role == "assistant":
        state = message.extra.get("openai")
        if isinstance(state, dict):
            phase = cast("dict[str, Any]", state).get("phase")
            if phase is not None:
                entry["phase"] = phase
    return entry


def _text(text: str) -> dict[str, Any]:
    return {"type": "input_text", "text": text}


def _output_text(text: str) -> dict[str, Any]:
    return {"type": "output_text", "text": text}


def _image(image: ImageContent) -> dict[str, Any]:
    read = read_image(image)
    return {
        "type": "input_image",
        "image_url": image_url(read),
        "detail": read.inference_detail,
    }


def _append_message(entries: list[dict[str, Any]], message: ChatMessage) -> None:
    if not message.extra or message.role != "assistant":
        entries.append(_message(message))
        return
    compactions = _compactions(message.extra)
    entries.extend(compactions)
    if (whole := _whole_item(message.extra)) and not any(message.content):
        entries.extend([*_reasoning(message.extra, None), *whole])
        return
    if compactions and not any(message.content):
        return
    identity = _identity(message.extra, "message_id")
    entry = _message(message)
    text = entry["content"]
    found = _reasoning_items(message.extra)
    placed = _in_place(text, found) if isinstance(text, str) else None
    if placed is None:
        entries.extend(_reasoning(message.extra, identity))
        entries.append(_as_output(entry, identity, message))
        return
    for place, piece in enumerate(placed):
        follows = placed[place + 1] if place + 1 < len(placed) else None
        if not is_text_entry(piece):
            if follows is not None and is_text_entry(follows):  # the item it produced
                entries.append(piece)
            continue
        told = {"role": "assistant", "content": piece["text"]}
        led_to = place > 0 and not is_text_entry(placed[place - 1])
        if place == len(found):  # the last message, whose id and phase are those of ours
            entries.append(_as_output({**entry, **told}, identity if led_to else None, message))
            continue
        source = found[place]
        if "phase" in source:
            told["phase"] = source["phase"]
        cut = piece["text"] != source["text"] and source["text"].startswith(piece["text"].strip())
        entries.append(_output(told, source.get("id") if led_to else None, cut=cut))


def _in_place(text: str, found: Sequence[dict[str, Any]]) -> list[dict[str, Any]] | None:
    """`found` with the parts of `text` in the places of the messages that formed it; ``None`` if it
    was one message, or has changed since."""
    if not any(is_text_entry(entry) for entry in found):
        return None
    placed = in_order([_part(text)], found, _part)
    known = [is_text_entry(entry) for entry in found[: len(placed)]]
    return placed if [is_text_entry(entry) for entry in placed[: len(found)]] == known else None


def _part(text: str) -> dict[str, Any]:
    return {"type": "text", "text": text}


def _as_output(entry: dict[str, Any], identity: str | None, message: ChatMessage) -> dict[str, Any]:
    """`entry` as the server's message that reasoning produced, if it has an `identity`."""
    if identity is None:
        return entry
    if not isinstance(entry["content"], str):
        # It has unknown parts.
        return {**entry, "type": "message", "id": identity} if _unread(message.extra) else entry
    return _with_fields(_output(entry, identity, cut=message.interrupted), message.extra)


def _output(entry: dict[str, Any], identity: str | None, *, cut: bool) -> dict[str, Any]:
    if identity is None:
        return entry
    part: dict[str, Any] = {"type": "output_text", "text": entry["content"], "annotations": []}
    return {
        **entry,
        "type": "message",
        "id": identity,
        "status": "incomplete" if cut else "completed",
        "content": [part],
    }


def _state(extra: Mapping[str, Any]) -> Mapping[str, Any]:
    state = extra.get("openai")
    return cast("Mapping[str, Any]", state) if isinstance(state, Mapping) else {}


def _custom_call(call: FunctionCall) -> dict[str, Any]:
    """A call of a tool that takes plain text."""
    try:
        value = jsontext.decode(call.arguments)
    except ValueError:
        value = None
    text = cast("dict[str, Any]", value).get("input") if isinstance(value, dict) else None
    return {
        "type": "custom_tool_call",
        "call_id": call.call_id,
        "name": call.name,
        "input": text if isinstance(text, str) else call.arguments,
    }


def _compactions(extra: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Compactions: the server's summary of older items, which must be sent back."""
    found = _state(extra).get("output_items")
    if not isinstance(found, list):
        return []
    return [item for item in cast("list[Any]", found) if _is_compaction(item)]


def stands_alone(state: Mapping[str, Any]) -> bool:
    """Whether a message may hold only `state`: a compaction needs no item after it."""
    return bool(_compactions({"openai": state}))


def _is_compaction(item: object) -> bool:
    return isinstance(item, dict) and cast("dict[str, Any]", item).get("type") == "compaction"


def _with_fields(entry: dict[str, Any], extra: Mapping[str, Any]) -> dict[str, Any]:
    """`entry` with the undocumented fields of its server."""
    fields = _state(extra).get("fields")
    if not isinstance(fields, Mapping):
        return entry
    return {**cast("Mapping[str, Any]", fields), **entry}


def _identity(extra: Mapping[str, Any], name: str) -> str | None:
    """The id of the item that the reasoning produced, if there was reasoning."""
    state = _state(extra)
    identity = state.get(name)
    return identity if isinstance(identity, str) and state.get("reasoning_items") else None


def _reasoning(extra: Mapping[str, Any], identity: str | None) -> list[dict[str, Any]]:
    """Reasoning items as they may be sent before an item called `identity`.

    The API demands the exact item that the reasoning produced. Of several reasoning items, only the
    last one produced it; the others produced messages that are now merged into it. Without an
    `identity` they are sent unchanged.
    """
    items = [entry for entry in _reasoning_items(extra) if not is_text_entry(entry)]
    return items if identity is None else items[-1:]


def _reasoning_items(extra: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The kept reasoning items, and the messages between them."""
    found = _state(extra).get("reasoning_items")
    return cast("list[dict[str, Any]]", found) if isinstance(found, list) else []


def request_body(
    messages: Sequence[dict[str, Any]],
    data: object,
    tools: Sequence[dict[str, Any]],
    tool_choice: object,
    options: Mapping[str, Any],
) -> dict[str, Any]:
    """The body of a streaming request.

    Args:
        messages: input items, as `to_chat_ctx` makes them.
        data: not used by this format.
        tools: flat specs.
        tool_choice: ``"auto"``, ``"required"``, ``"none"``, one function by name, or ``None``.
        options: the other fields, named as in chat completions; they are converted for this API.
            ``extra_body`` is merged over everything.
    """
    body: dict[str, Any] = {"input": messages, "stream": True}
    reasoning: dict[str, Any] = {}
    text: dict[str, Any] = {}
    extra: Mapping[str, Any] = {}
    for name, value in options.items():
        match name:
            case "extra_body":
                extra = value or {}
            case "max_completion_tokens" | "max_tokens":
                body["max_output_tokens"] = value
            case "reasoning_effort":
                reasoning["effort"] = value
            case "reasoning":
                reasoning.update(value)
            case "verbosity":
                text["verbosity"] = value
            case "response_format":
                text["format"] = _text_format(value)
            case "text":
                text.update(value)
            case "parallel_tool_calls":
                if tools:
                    body[name] = value
            case _:
                body[name] = value
    if reasoning:
        body["reasoning"] = reasoning
    if text:
        body["text"] = text
    if tools:
        body["tools"] = tools
        if tool_choice is not None:
            body["tool_choice"] = named_choice(tool_choice, flat=True)
    body.update(extra)
    for name, value in extra.items():
        if value is None:
            del body[name]
    return body


def _text_format(response_format: Mapping[str, Any]) -> dict[str, Any]:
    """A response format in the flat form of this API."""
    inner = response_format.get("json_schema")
    if isinstance(inner, Mapping):
        return {"type": "json_schema", **cast("Mapping[str, Any]", inner)}
    return dict(response_format)
