"""Input items of the Responses API as items. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rejoinder._core.items import ChatItem
from rejoinder._core.reading import ItemReader, as_text, mappings, system_texts
from rejoinder.providers.completions.inverse import content_of

__all__ = ["from_input"]


def from_input(messages: object, system: Any = None) -> list[ChatItem]:
    """The items that input items of the Responses API hold.

    Args:
        messages: as they are sent, or as a response gives them; or one text of the user.
        system: the ``instructions`` beside them.

    Raises:
        ValueError: an entry is not an item of this API; the text says where.
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
            content = content_of(entry.get("content"), f"{place}.content")
            reader.message(role, content, {"openai": state} if state else None)
        elif kind in ("function_call", "custom_tool_call"):
            state = _state(entry, "item_id", reasoning)
            arguments = entry.get("arguments", {"input": entry.get("input")})
            extra = {"openai": state} if state else None
            reader.call(entry.get("call_id"), entry.get("name"), arguments, extra)
        elif kind in ("function_call_output", "custom_tool_call_output"):
            output = content_of(entry.get("output"), f"{place}.output")
            reader.output(entry.get("call_id"), "\n".join(map(as_text, output)))
        elif isinstance(kind, str) and kind != "message":
            reader.message("assistant", [dict(entry)])
        else:
            raise ValueError(f"{place}: expected an item with a `type` or a `role`")
        reasoning = []
    if reasoning:
        reader.message("assistant", [], {"openai": {"reasoning_items": reasoning}})
    return reader.finish()


def _state(
    entry: Mapping[str, Any], name: str, reasoning: list[Mapping[str, Any]]
) -> dict[str, Any]:
    if not reasoning:
        return {}
    state: dict[str, Any] = {"reasoning_items": reasoning}
    if isinstance(entry.get("id"), str):
        state[name] = entry["id"]
    return state
