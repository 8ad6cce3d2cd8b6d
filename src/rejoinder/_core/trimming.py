"""Making a conversation shorter: which items stay, decided without changing anything.

Law: the first instructions stay; an item is kept whole or not at all; what is kept never begins
with a call or an output, and a cut never parts a call from its output. An output whose call was
never there is none of our business. Everything is linear in the number of items.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from typing import Any

from rejoinder._core.items import ChatItem, ChatMessage

__all__ = [
    "estimate_tokens",
    "keep_last_items",
    "keep_last_tokens",
    "render_for_summary",
    "split_for_summary",
]

# What one item costs beside its text: role, separators, ids.
_OVERHEAD = 4
_BYTES_PER_TOKEN = 4
# A picture of 1024 x 1024 costs 258 to 1400 tokens, by provider; sound 10 to 32 a second.
_TOKENS_PER_IMAGE = 1000
_PIXELS_PER_TOKEN = 750
_TOKENS_PER_SECOND = 32


def estimate_tokens(item: ChatItem) -> int:
    """Roughly how many tokens an item costs, never counted by a tokenizer.

    Four bytes of UTF-8 make a token, an image costs about 1000, sound without a transcript 32 a
    second. Expect errors of a third in either direction, more for unusual scripts and code.
    """
    match item.type:
        case "message":
            tokens = 0
            for part in item.content:
                if isinstance(part, str):
                    tokens += _text_tokens(part)
                elif part.type == "audio_content":
                    if part.transcript is not None:
                        tokens += _text_tokens(part.transcript)
                    else:
                        seconds = sum(
                            f.samples_per_channel / (f.sample_rate or 1) for f in part.frame
                        )
                        tokens += int(seconds * _TOKENS_PER_SECOND)
                else:
                    tokens += _TOKENS_PER_IMAGE
            return _OVERHEAD + tokens
        case "function_call":
            return _OVERHEAD + _text_tokens(item.name) + _text_tokens(item.arguments)
        case "function_call_output":
            return _OVERHEAD + _text_tokens(item.output)
        case "agent_handoff" | "agent_config_update":
            return 0  # never sent


def _text_tokens(text: str) -> int:
    size = len(text) if text.isascii() else len(text.encode("utf-8", "surrogatepass"))
    return -(-size // _BYTES_PER_TOKEN)


def keep_last_items(items: Sequence[ChatItem], max_items: int) -> list[ChatItem] | None:
    """The items that stay when the last `max_items` do; ``None`` when nothing has to change."""
    if len(items) <= max_items:
        return None
    return _window(items, len(items) - max_items)


def keep_last_tokens(
    items: Sequence[ChatItem], max_tokens: int, count: Callable[[ChatItem], int]
) -> list[ChatItem] | None:
    """The items that stay when they may cost `max_tokens`; ``None`` when nothing has to change."""
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


def _window(items: Sequence[ChatItem], start: int) -> list[ChatItem]:
    size = len(items)
    while start < size and items[start].type in ("function_call", "function_call_output"):
        start += 1
    dropped = items[:start]
    kept = items[start:]
    # Only what this cut has parted: calls that lost their output, outputs that lost their call.
    calls = {item.call_id for item in dropped if item.type == "function_call"}
    outputs = {item.call_id for item in dropped if item.type == "function_call_output"}
    if calls or outputs:
        calls -= {item.call_id for item in kept if item.type == "function_call"}
        outputs -= {item.call_id for item in kept if item.type == "function_call_output"}
        kept = [
            item
            for item in kept
            if not (item.type == "function_call_output" and item.call_id in calls)
            and not (item.type == "function_call" and item.call_id in outputs)
        ]
    instructions = _first_instructions(items)
    if instructions is not None and all(item.id != instructions.id for item in kept):
        return [instructions, *kept]
    return list(kept)


def split_for_summary(items: Sequence[ChatItem], keep_last_turns: int) -> list[ChatItem]:
    """The items that a summary replaces, when the last turns stay.

    A turn begins with a user message; several user messages in a row begin one turn. Empty when
    there is nothing worth it.
    """
    start = len(items)
    turns = 0
    while start and turns < keep_last_turns:
        start -= 1
        if _is_user(items[start]):
            while start and _is_user(items[start - 1]):
                start -= 1
            turns += 1
    if keep_last_turns and turns < keep_last_turns:
        return []
    kept_outputs = {item.call_id for item in items[start:] if item.type == "function_call_output"}
    answered = {item.call_id for item in items[:start] if item.type == "function_call_output"}
    kept_calls = {item.call_id for item in items[start:] if item.type == "function_call"}
    old: list[ChatItem] = []
    for item in items[:start]:
        match item.type:
            case "message":
                if item.role in ("system", "developer"):
                    continue
            case "function_call":
                if item.call_id in kept_outputs or item.call_id not in answered:
                    continue
            case "function_call_output":
                if item.call_id in kept_outputs or item.call_id in kept_calls:
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
    lines: list[str] = []
    for item in items:
        record: dict[str, Any]
        match item.type:
            case "message":
                parts = [_render_part(part) for part in item.content]
                who = "earlier summary" if item.extra.get("is_summary") else item.role
                record = {who: "\n".join(parts)}
                if item.interrupted:
                    record["interrupted"] = True
            case "function_call":
                record = {"tool call": item.name, "arguments": item.arguments}
            case "function_call_output":
                record = {"tool error" if item.is_error else "tool output": item.output}
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
