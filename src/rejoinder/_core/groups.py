"""Divides a flat history into the turns that a provider receives, and matches calls with outputs.

Law: this module knows no provider and changes no item. Assistant messages and calls of one turn form
a `Group`; every other message stands alone, even if two share an id. An output joins the group of its
call, wherever the two stand in the list. A call or output without its counterpart is omitted with a
warning, because providers refuse half a pair. One pass, linear.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from typing import Any, Never, TypeAlias, cast, final, get_args

import msgspec

from rejoinder._core import jsontext
from rejoinder._core.items import (
    AudioContent,
    ChatItem,
    ChatMessage,
    ChatRole,
    FunctionCall,
    FunctionCallOutput,
    ImageContent,
)

__all__ = [
    "Group",
    "Turn",
    "group_key",
    "group_tool_calls",
    "instructions_block",
    "parse_arguments",
    "refuse_item",
    "reject_non_items",
]

logger = logging.getLogger("rejoinder")

_decode = msgspec.json.Decoder().decode


@final
class Group:
    """One assistant turn: its message, if any, its calls and their outputs."""

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
"""A message of any role, or a `Group`: the assistant's message, calls and outputs of one turn."""


def group_key(item: ChatMessage | FunctionCall) -> str:
    """The key that assistant messages and calls of one turn share: the `group_id` of a call,
    otherwise the part of the id before the first slash."""
    if item.type == "function_call" and item.group_id:
        return item.group_id
    item_id = item.id
    return item_id.split("/", 1)[0] if "/" in item_id else item_id


def group_tool_calls(items: Sequence[ChatItem]) -> list[Turn]:
    """The turns of a history, each group at the place of its first member.

    A second assistant message with the key of an earlier one opens a new turn, so that no text is
    lost. Handoffs and configuration updates are omitted, because they are not for providers.

    Raises:
        TypeError: an element is not an item of a chat context.
    """
    turns: list[Turn] = []
    # The newest turn of each key, as its place: most assistant messages never get a call, and
    # need no group.
    newest: dict[str, int] = {}
    outputs: list[FunctionCallOutput] = []
    grouped: list[Group] = []
    by_call: dict[str, Group] = {}
    try:
        for item in items:
            match item.type:
                case "message":
                    if item.role == "assistant":
                        key = item.id
                        if "/" in key:
                            key = key.split("/", 1)[0]
                        at = newest.get(key)
                        if at is not None:
                            group = turns[at]
                            if isinstance(group, Group) and group.message is None:
                                group.message = item
                                continue
                        newest[key] = len(turns)
                    turns.append(item)
                case "function_call":
                    key = item.group_id  # as in `group_key`, which would cost as much as the rest
                    if not key:
                        key = item.id
                        if "/" in key:
                            key = key.split("/", 1)[0]
                    at = newest.get(key)
                    if at is None:
                        newest[key] = len(turns)
                        group = Group()
                        turns.append(group)
                        grouped.append(group)
                    else:
                        group = turns[at]
                        if not isinstance(group, Group):
                            group = turns[at] = Group(group)
                            grouped.append(group)
                    group.calls.append(item)
                    by_call[item.call_id] = group
                case "function_call_output":
                    if not isinstance(cast("object", item.output), str):
                        reject_non_items(items)
                    outputs.append(item)
                case "agent_handoff" | "agent_config_update":
                    pass
                case _:
                    refuse_item(item)
        if grouped or outputs:
            _match(grouped, by_call, outputs)
    except (AttributeError, TypeError):
        reject_non_items(items)
        raise
    return turns


def _match(
    grouped: list[Group], by_call: dict[str, Group], outputs: list[FunctionCallOutput]
) -> None:
    for output in outputs:
        group = by_call.get(output.call_id)
        if group is None:
            logger.warning(
                "output %r omitted: no call %r in the history", output.id, output.call_id
            )
        else:
            group.outputs.append(output)
    for group in grouped:
        calls = group.calls
        if len(calls) == 1 and group.outputs:
            continue  # outputs are only in groups that have their call
        answered = {output.call_id for output in group.outputs}
        group.calls = [call for call in calls if call.call_id in answered]
        for call in calls:
            if call.call_id not in answered:
                logger.warning(
                    "call %r of %r omitted: no output in the history", call.call_id, call.name
                )


def refuse_item(item: Never, where: str = "") -> Never:
    """Raise the error for an object that is not a chat item."""
    kind: object = getattr(item, "type", None)
    raise TypeError(
        f"{where}expected a message, function call, output, handoff or configuration update, "
        f"got {type(item).__name__} with type {kind!r}; to load plain data, use "
        "ChatContext.from_dict()"
    )


def reject_non_items(items: Sequence[object]) -> None:
    """Raise the error for the first element that is not an item, or has a field of a wrong type
    (assignments to items are not checked). Called after something has failed, to explain it."""
    for at, item in enumerate(items):
        kind = getattr(item, "type", None)
        if not isinstance(kind, str) or kind not in _KINDS:
            refuse_item(cast("Never", item), f"items[{at}]: ")
        held = vars(item)
        for name, accepted, expected in _FIELDS:
            if name in held and not isinstance(held[name], accepted):
                raise TypeError(
                    f"items[{at}].{name}: expected {expected}, got {type(held[name]).__name__}"
                )
        if isinstance(item, ChatMessage):
            _refuse_content(item, f"items[{at}]")


_FIELDS: tuple[tuple[str, type, str], ...] = (
    ("id", str, "a text"),
    ("call_id", str, "a text"),
    ("name", str, "a text"),
    ("arguments", str, "JSON as a text"),
    ("output", str, "a text"),
    ("extra", dict, "a dict"),
)
_ROLES = frozenset(get_args(ChatRole))
_KINDS = frozenset(kind.model_fields["type"].default for kind in get_args(get_args(ChatItem)[0]))


def _refuse_content(message: ChatMessage, where: str) -> None:
    if message.role not in _ROLES:
        raise TypeError(
            f"{where}.role: expected one of {', '.join(sorted(_ROLES))}, got {message.role!r}"
        )
    content: object = message.content
    if not isinstance(content, Sequence):
        raise TypeError(
            f"{where}.content: expected a list of texts, images and sounds, "
            f"got {type(content).__name__}"
        )
    for at, part in enumerate(cast("Sequence[object]", content)):
        if not isinstance(part, (str, ImageContent, AudioContent)):
            raise TypeError(
                f"{where}.content[{at}]: expected a text, an ImageContent or an AudioContent, "
                f"got {type(part).__name__}"
            )


def parse_arguments(call: FunctionCall) -> Any:
    """The arguments of `call` as a value, for providers that take an object instead of text.

    ``None``, blank text and ``null`` become ``{}``. Text that is not JSON is wrapped as
    ``{"invalid_json": text}`` with a warning, so that a history with a broken call can still be sent
    and the model sees what it wrote. Other values are returned unchanged.
    """
    text = call.arguments
    try:
        value = _decode(text)
    except (msgspec.MsgspecError, UnicodeError, RecursionError):
        try:
            value = jsontext.decode_tolerantly(text)
        except ValueError:
            if not text or text.isspace():
                return {}
            logger.warning("arguments of call %r of %r are not JSON", call.call_id, call.name)
            return {"invalid_json": text}
    return {} if value is None else value


def instructions_block(text: str) -> str:
    """Instructions in mid-conversation, for providers that accept them only at the beginning."""
    return f"<instructions>\n{text}\n</instructions>"
