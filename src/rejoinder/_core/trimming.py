"""Selects the items that stay when a conversation is shortened. Changes nothing itself.

Law: the first instructions stay. An item is kept completely or dropped. The kept items never begin
with a call or an output, and a cut never separates a call from its output; an output that never had a
call is not checked. Takes linear time.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from rejoinder._core.items import ChatItem, ChatMessage, parts_of

__all__ = [
    "keep_last_items",
    "keep_last_tokens",
    "render_for_summary",
    "split_for_summary",
]


def keep_last_items(items: Sequence[ChatItem], max_items: int) -> list[ChatItem] | None:
    """The items to keep when only the last `max_items` stay; ``None`` if nothing changes."""
    if len(items) <= max_items:
        return None
    return _window(items, len(items) - max_items)


def keep_last_tokens(
    items: Sequence[ChatItem], max_tokens: int, count: Callable[[ChatItem], int]
) -> list[ChatItem] | None:
    """The items to keep within `max_tokens`; ``None`` if nothing changes."""
    instructions = _first_instructions(items)
    left = max_tokens - (count(instructions) if instructions is not None else 0)
    start = len(items)
    while start:
        item = items[start - 1]
        cost = 0 if item is instructions else count(item)
        if cost > left:
            break
        left -= cost
        start -= 1
    return None if start == 0 else _window(items, start)


def _first_instructions(items: Sequence[ChatItem]) -> ChatMessage | None:
    for item in items:
        if item.type == "message" and item.role in ("system", "developer"):
            return item
    return None


def _calls_of_outputs(items: Sequence[ChatItem]) -> dict[int, int]:
    """Position of the call, by the position of each output that has one.

    Some models reuse call ids, so an output belongs to the nearest call before it, or, if there is
    none, to a later call.
    """
    last: dict[str, int] = {}
    early: dict[str, list[int]] = {}
    found: dict[int, int] = {}
    for index, item in enumerate(items):
        if item.type == "function_call":
            last[item.call_id] = index
            for output in early.pop(item.call_id, ()):
                found[output] = index
        elif item.type == "function_call_output":
            call = last.get(item.call_id)
            if call is None:
                early.setdefault(item.call_id, []).append(index)
            else:
                found[index] = call
    return found


def _window(items: Sequence[ChatItem], start: int) -> list[ChatItem]:
    while start < len(items) and items[start].type in ("function_call", "function_call_output"):
        start += 1
    # Only pairs that this cut separated: outputs without their call, calls without any output.
    parted: set[int] = set()
    whole: set[int] = set()
    for output, call in _calls_of_outputs(items).items():
        if output >= start and call >= start:
            whole.add(call)
        elif output >= start:
            parted.add(output)
        elif call >= start:
            parted.add(call)
    parted -= whole
    kept = [items[index] for index in range(start, len(items)) if index not in parted]
    instructions = _first_instructions(items)
    if instructions is not None and all(item.id != instructions.id for item in kept):
        return [instructions, *kept]
    return kept


def split_for_summary(items: Sequence[ChatItem], keep_last_turns: int) -> list[ChatItem]:
    """The items that a summary replaces if the last turns stay.

    A turn begins with a user message; several user messages in a row begin one turn. Instructions
    stay, and so do calls without an output and calls whose output stays. Empty if there is nothing
    to summarize.
    """
    start = len(items)
    turns = 0
    while start and turns < keep_last_turns:
        start -= 1
        if _is_user(items[start]):
            while start and _is_user(items[start - 1]):
                start -= 1
            turns += 1
    if not start:
        return []
    calls = _calls_of_outputs(items)
    answered = set(calls.values())
    staying = {call for output, call in calls.items() if output >= start or call >= start}
    old: list[ChatItem] = []
    for index in range(start):
        item = items[index]
        match item.type:
            case "message":
                if item.role in ("system", "developer"):
                    continue
            case "function_call":
                if index in staying or index not in answered:
                    continue
            case "function_call_output":
                if calls.get(index) in staying:
                    continue
            case "agent_handoff" | "agent_config_update":
                continue
        old.append(item)
    if all(item.type == "message" and item.extra.get("is_summary") for item in old):
        return []
    return old


def _is_user(item: ChatItem) -> bool:
    return item.type == "message" and item.role == "user"


def render_for_summary(items: Sequence[ChatItem]) -> str:
    """The items as JSON lines, for a model to read. Pictures and sound are only mentioned."""
    import json

    lines: list[str] = []
    for item in items:
        record: dict[str, Any]
        match item.type:
            case "message":
                parts = [_render_part(part) for part in parts_of(item)]
                who = "earlier summary" if item.extra.get("is_summary") else item.role
                record = {who: "\n".join(parts)}
                if item.interrupted:
                    record["interrupted"] = True
            case "function_call":
                record = {"tool call": item.name, "arguments": item.arguments}
            case "function_call_output":
                parts = [item.output, *map(_render_part, item.images)]
                record = {"tool error" if item.is_error else "tool output": "\n".join(parts)}
                if item.name:
                    record["tool"] = item.name
            case "agent_handoff" | "agent_config_update":
                continue
        lines.append(json.dumps(record, ensure_ascii=False))
    return "\n".join(lines)


def _render_part(part: Any) -> str:
    if isinstance(part, str):
        return part
    if part.type == "audio_content":
        return part.transcript or "[sound]"
    return "[image]"
