"""OpenAI Responses: the history as a flat list of input items, and the body of a request.

Law: pure; no loop, no clock, no socket. What goes in is not changed. Reasoning items that a
message or a call carries in ``extra["openai"]["reasoning_items"]`` go back before it, because the
API wants each followed by the item it led to.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

from rejoinder._core.groups import Group, group_tool_calls
from rejoinder._core.items import ChatItem, ChatMessage
from rejoinder.providers._completions_format import image_url, read_image, split_content

__all__ = ["to_chat_ctx"]


def to_chat_ctx(
    items: Sequence[ChatItem], *, inject_dummy_user_message: bool = True
) -> tuple[list[dict[str, Any]], None]:
    """`items` as input items of the Responses API; there is no data beside them.

    Args:
        items: a history; what cannot be paired is left out with a warning.
        inject_dummy_user_message: accepted by every format; this one never needs it.

    Raises:
        ValueError: an image cannot be read.
    """
    entries: list[dict[str, Any]] = []
    append = entries.append
    for turn in group_tool_calls(items):
        if not isinstance(turn, Group):
            append(_message(turn))
            continue
        message = turn.message
        if message is not None:
            if message.extra:
                entries.extend(_reasoning(message.extra))
            # A message that holds nothing but state is only the carrier of what precedes a call.
            if not turn.calls or any(message.content):
                append(_message(message))
        for call in turn.calls:
            if call.extra:
                entries.extend(_reasoning(call.extra))
            append(
                {
                    "type": "function_call",
                    "call_id": call.call_id,
                    "name": call.name,
                    "arguments": call.arguments,
                }
            )
        for output in turn.outputs:
            append(
                {
                    "type": "function_call_output",
                    "call_id": output.call_id,
                    "output": output.output,
                }
            )
    return entries, None


def _message(message: ChatMessage) -> dict[str, Any]:
    text, images = split_content(message)
    entry: dict[str, Any]
    if images:
        parts: list[dict[str, Any]] = [
            {
                "type": "input_image",
                "image_url": image_url(image),
                "detail": image.inference_detail,
            }
            for image in map(read_image, images)
        ]
        if text:
            parts.append({"type": "input_text", "text": text})
        entry = {"role": message.role, "content": parts}
    else:
        entry = {"role": message.role, "content": text}
    if message.extra and message.role == "assistant":
        state = message.extra.get("openai")
        if isinstance(state, dict):
            phase = cast("dict[str, Any]", state).get("phase")
            if phase is not None:
                entry["phase"] = phase
    return entry


def _reasoning(extra: dict[str, Any]) -> list[dict[str, Any]]:
    state = extra.get("openai")
    if not isinstance(state, dict):
        return []
    reasoning = cast("dict[str, Any]", state).get("reasoning_items")
    return cast("list[dict[str, Any]]", reasoning) if isinstance(reasoning, list) else []
