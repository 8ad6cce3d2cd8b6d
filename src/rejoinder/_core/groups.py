"""Calls matched with their outputs: a flat history cut into the turns that a provider sees.

Law: nothing here knows a provider, and nothing is ever changed. Assistant messages and calls of
one turn form a `Group`; every other message stands alone, also when two of them share an id. An
output goes to the group of its call, wherever either of them stands in the list; what has no
partner is left out with a warning, because no provider takes half a pair. One pass, linear.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from typing import Any, Never, TypeAlias, cast

from rejoinder._core import jsontext
from rejoinder._core.items import ChatItem, ChatMessage, FunctionCall, FunctionCallOutput

__all__ = [
    "Group",
    "Turn",
    "group_key",
    "group_tool_calls",
    "instructions_block",
    "parse_arguments",
    "refuse_item",
]

logger = logging.getLogger("rejoinder")


class Group:
    """One assistant turn: its message if there is one, its calls, and what came of them."""

    __slots__ = ("calls", "message", "outputs")

    def __init__(self, message: ChatMessage | None = None) -> None:
        self.message = message
        self.calls: list[FunctionCall] = []
        self.outputs: list[FunctionCallOutput] = []

    def flatten(self) -> Iterator[ChatMessage | FunctionCall | FunctionCallOutput]:
        """The message, then the calls, then the outputs."""
        if self.message is not None:
            yield self.message
        yield from self.calls
        yield from self.outputs


Turn: TypeAlias = ChatMessage | Group
"""A message of role user, system or developer, or a `Group` of what the assistant did."""


def group_key(item: ChatMessage | FunctionCall) -> str:
    """What the assistant messages and calls of one turn share: `group_id` of a call, otherwise
    the part of the id before the first slash."""
    if item.type == "function_call" and item.group_id:
        return item.group_id
    item_id = item.id
    return item_id.split("/", 1)[0] if "/" in item_id else item_id


def group_tool_calls(items: Sequence[ChatItem]) -> list[Turn]:
    """The turns of a history, each group at the place of its first member.

    A second assistant message with the key of an earlier one opens a group of its own, so that
    no text is lost. Handoffs and configuration updates are not for providers and left out.

    Raises:
        TypeError: an element is not an item of a chat context.
    """
    turns: list[Turn] = []
    newest: dict[str, Group] = {}
    outputs: list[FunctionCallOutput] = []
    called: list[Group] = []
    for item in items:
        kind = getattr(item, "type", None)
        if item.type == "message":
            if item.role != "assistant":
                turns.append(item)
                continue
            key = item.id
            if "/" in key:
                key = key.split("/", 1)[0]
            group = newest.get(key)
            if group is None or group.message is not None:
                newest[key] = group = Group(item)
                turns.append(group)
            else:
                group.message = item
        elif item.type == "function_call":
            key = item.group_id or item.id.split("/", 1)[0]
            group = newest.get(key)
            if group is None:
                newest[key] = group = Group()
                turns.append(group)
            if not group.calls:
                called.append(group)
            group.calls.append(item)
        elif item.type == "function_call_output":
            outputs.append(item)
        elif item.type == "agent_handoff" or item.type == "agent_config_update":
            pass
        else:
            refuse_item(item, kind)
    if called or outputs:
        _match(called, outputs)
    return turns


def _match(called: list[Group], outputs: list[FunctionCallOutput]) -> None:
    by_call = {call.call_id: group for group in called for call in group.calls}
    for output in outputs:
        group = by_call.get(output.call_id)
        if group is None:
            logger.warning(
                "output %r left out: no call %r in the history", output.id, output.call_id
            )
        else:
            group.outputs.append(output)
    for group in called:
        answered = {output.call_id for output in group.outputs}
        if len(answered) == len(group.calls) and all(
            call.call_id in answered for call in group.calls
        ):
            continue
        kept: list[FunctionCall] = []
        for call in group.calls:
            if call.call_id in answered:
                kept.append(call)
            else:
                logger.warning(
                    "call %r of %r left out: no output in the history", call.call_id, call.name
                )
        group.calls = kept


def refuse_item(item: Never, kind: object) -> Never:
    """Raise the error for something that is no chat item; pyright proves that nothing else is."""
    raise TypeError(
        "a history holds messages, function calls, their outputs, handoffs and configuration "
        f"updates; got {type(item).__name__} with type {kind!r}"
    )


def parse_arguments(call: FunctionCall) -> Any:
    """The arguments of `call` as a value, for providers that want an object and not its text.

    Nothing, blank text and ``null`` are ``{}``. Text that is not JSON is wrapped as
    ``{"invalid_json": text}`` with a warning: a history that once held a broken call must still
    be sendable, and the model should see what it wrote. Other values are passed as they are.
    """
    text = call.arguments
    if text == "{}":
        return {}
    try:
        value: Any = jsontext.decode(text)
    except ValueError:
        if not text or text.isspace():
            return {}
        logger.warning("arguments of call %r of %r are not JSON", call.call_id, call.name)
        return {"invalid_json": text}
    return cast("dict[str, Any]", {}) if value is None else value


def instructions_block(text: str) -> str:
    """Instructions given in mid-conversation, for providers that know only one place for them."""
    return f"<instructions>\n{text}\n</instructions>"
