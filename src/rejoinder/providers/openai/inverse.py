"""Input items of the Responses API as items. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from copy import deepcopy
from functools import partial
from typing import Any

from rejoinder._core.items import ChatItem
from rejoinder._core.reading import ItemReader, mappings, system_texts
from rejoinder._core.unread import with_unread
from rejoinder.providers.completions.parts import (
    arguments_of,
    fields_of,
    read_content,
    read_output,
)

__all__ = ["from_input"]

# The id and the status belong to the server; our items have their own.
_OWN = frozenset({"type", "id", "status"})
_MESSAGE = _OWN | {"role", "content", "phase"}
_CALL = _OWN | {"call_id", "name", "arguments", "input"}
_OUTPUT = _OWN | {"call_id", "output"}


def from_input(messages: object, system: Any = None) -> list[ChatItem]:
    """Convert input items of the Responses API to items.

    Args:
        messages: input items of a request, or output items of a response; or one user text.
        system: the ``instructions`` beside them.

    Raises:
        ValueError: an entry is not an item of this API; the message names the place.
    """
    reader = ItemReader(system_texts(system))
    if isinstance(messages, str):
        messages = [{"role": "user", "content": messages}]
    reasoning: list[Mapping[str, Any]] = []
    for place, entry in mappings(messages, "input"):
        kind = entry.get("type", "message")
        if kind == "reasoning":
            reasoning.append(dict(entry))
            continue
        role = entry.get("role")
        if kind == "message" and isinstance(role, str):
            state = _state(entry, "message_id", reasoning)
            if entry.get("phase") is not None:
                state["phase"] = entry["phase"]
            content, parts = read_content(entry.get("content"), f"{place}.content")
            kept = {"content": parts, "fields": fields_of(entry, _MESSAGE)}
            reader.message(role, content, _extra(state, kept))
        elif kind in ("function_call", "custom_tool_call"):
            state = _state(entry, "item_id", reasoning)
            if kind == "custom_tool_call":
                state["type"] = kind
            if fields := fields_of(entry, _CALL):
                state["fields"] = fields
            arguments = arguments_of(entry)
            reader.call(entry.get("call_id"), entry.get("name"), arguments, _extra(state))
        elif kind in ("function_call_output", "custom_tool_call_output"):
            given = entry.get("output")
            found = read_output(given, f"{place}.output", pictures=True)
            output = dict(found.kept)
            if fields := fields_of(entry, _OUTPUT):
                output["fields"] = fields
            reader.output(
                entry.get("call_id"),
                found.text,
                keep=partial(_with_output, output),
                images=found.images,
            )
        elif isinstance(kind, str) and kind != "message":
            state = {"reasoning_items": reasoning} if reasoning else {}
            reader.message("assistant", [], _extra(state, {"item": deepcopy(dict(entry))}))
        else:
            raise ValueError(f"{place}: expected an item with a `type` or a `role`")
        reasoning = []
    if reasoning:
        reader.message("assistant", [], {"openai": {"reasoning_items": reasoning}})
    return reader.finish()


def _extra(state: dict[str, Any], kept: Mapping[str, Any] | None = None) -> dict[str, Any]:
    extra = {"openai": state} if state else {}
    return with_unread(extra, "openai", "openai.responses", kept or {})


def _with_output(output: Mapping[str, Any], extra: Mapping[str, Any]) -> dict[str, Any]:
    return with_unread(extra, "openai", "openai.responses", {"output": output})


def _state(
    entry: Mapping[str, Any], name: str, reasoning: list[Mapping[str, Any]]
) -> dict[str, Any]:
    if not reasoning:
        return {}
    state: dict[str, Any] = {"reasoning_items": reasoning}
    if isinstance(entry.get("id"), str):
        state[name] = entry["id"]
    return state
