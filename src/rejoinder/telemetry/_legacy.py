"""Messages as span events, in the form that LiveKit Agents 1.2.17 uses."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final, TypeAlias

from rejoinder.telemetry import names
from rejoinder.telemetry._content import redacted

if TYPE_CHECKING:
    from rejoinder._core.chunks import FunctionToolCall
    from rejoinder._core.items import ChatItem, FunctionCall

__all__ = ["add_choice", "add_history"]

AddEvent: TypeAlias = Callable[[str, Mapping[str, Any]], None]

_MESSAGE_EVENTS: Final = {
    "system": names.EVENT_GEN_AI_SYSTEM_MESSAGE,
    "developer": names.EVENT_GEN_AI_SYSTEM_MESSAGE,
    "user": names.EVENT_GEN_AI_USER_MESSAGE,
    "assistant": names.EVENT_GEN_AI_ASSISTANT_MESSAGE,
}


def add_history(add: AddEvent, history: Iterable[ChatItem]) -> None:
    """One event for each item that a model reads."""
    for item in history:
        if item.type == "message":
            add(_MESSAGE_EVENTS[item.role], {"content": redacted(item.text_content or "")})
        elif item.type == "function_call":
            calls = [_call_text(item)]
            add(names.EVENT_GEN_AI_ASSISTANT_MESSAGE, {"role": "assistant", "tool_calls": calls})
        elif item.type == "function_call_output":
            output = redacted(item.output)
            add(
                names.EVENT_GEN_AI_TOOL_MESSAGE,
                {"content": output, "name": item.name, "id": item.call_id},
            )


def add_choice(add: AddEvent, text: str, calls: Sequence[FunctionToolCall]) -> None:
    """The event of a reply."""
    attributes: dict[str, Any] = {"role": "assistant"}
    if text:
        attributes["content"] = redacted(text)
    if calls:
        attributes["tool_calls"] = [_call_text(call) for call in calls]
    add(names.EVENT_GEN_AI_CHOICE, attributes)


def _call_text(call: FunctionToolCall | FunctionCall) -> str:
    return json.dumps(
        {
            "function": {"name": call.name, "arguments": redacted(call.arguments)},
            "id": call.call_id,
            "type": "function",
        }
    )
