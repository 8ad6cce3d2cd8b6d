"""Histories as alternating turns of two roles, for APIs where a turn holds blocks.

Pure: items in, plain dicts out; the items are not changed. Consecutive turns of one role become one
message; results of tools belong to the user. The first system message is sent beside the messages;
later instructions keep their place, as user text in an ``<instructions>`` block. Each provider writes
its blocks by a `BlockFormat`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, TypeAlias

import msgspec

from rejoinder._core.groups import Group, group_tool_calls, instructions_block, logger
from rejoinder._core.items import (
    ChatContent,
    ChatItem,
    ChatMessage,
    FunctionCall,
    FunctionCallOutput,
    ImageContent,
    parts_of,
)
from rejoinder._core.unread import kept_list, output_as_read, place_kept, unread_in

__all__ = ["CALLS", "Block", "BlockFormat", "to_turns"]

Block: TypeAlias = dict[str, Any]
"""A part of a turn: a text, an image, a call, a result."""

CALLS: Final[Block] = {"calls": "stand here"}
"""A marker that `BlockFormat.with_state` puts between the blocks before a reply's calls and those after
them. It is not sent."""


def _nothing(block: Block) -> Any:
    return None


def _itself(part: Any) -> Any:
    return part


def _as_written(result: Block, content: list[Any]) -> Block:
    return {**result, "content": content}


class BlockFormat(msgspec.Struct, frozen=True):
    """How one API writes the blocks of a turn."""

    text: Callable[[str], Block]
    image: Callable[[ImageContent], Block]
    call: Callable[[FunctionCall], Block]
    result: Callable[[FunctionCallOutput], Block]
    with_state: Callable[[list[Block], dict[str, Any]], list[Block]]
    """The blocks of a message or of one call together with the opaque state that its `extra`
    carries. May change the list and its blocks, and put `CALLS` among them."""
    assistant: str = "assistant"
    """The role of the model."""
    content: str = "content"
    """The key of the blocks."""
    results_apart: bool = False
    """Whether results and the user's next text are separate messages."""
    unread: str = ""
    """The format whose unread parts are sent back, and its key; see `rejoinder._core.unread`."""
    read: Callable[[Block], Any] = _nothing
    """Reads a part as our own type; ``None`` for an unknown part."""
    written: Callable[[Any], Any] = _itself
    """Writes a kept part as it is sent."""
    with_output: Callable[[Block, list[Any]], Block] = _as_written
    """Writes a result with its original content."""


def to_turns(
    items: Sequence[ChatItem], form: BlockFormat
) -> tuple[list[dict[str, Any]], list[str]]:
    """The messages of a history, and the system texts beside them.

    Calls and outputs without their counterpart are omitted with a warning.

    Raises:
        ValueError: an image cannot be read.
    """
    messages: list[dict[str, Any]] = []
    system: list[str] = []
    instructed = False
    call_block, result_block, text_block = form.call, form.result, form.text
    with_state = form.with_state
    assistant, content_key = form.assistant, form.content
    results = "tool" if form.results_apart else "user"
    last_role = ""
    blocks: list[Block] = []
    for turn in group_tool_calls(items):
        if type(turn) is Group:  # checked for every turn, and `isinstance` takes twice as long
            message = turn.message
            new = [] if message is None else _content(message, form)
            behind: list[Block] = []
            if message is not None and message.extra:
                new, behind = _parted(with_state(new, message.extra))
            for call in turn.calls:
                block = call_block(call)
                if call.extra:
                    before, after = _parted(with_state([block], call.extra))
                    new += before
                    behind += after
                else:
                    new.append(block)
            new += behind
            if last_role == assistant:
                blocks += new
            elif new:
                messages.append({"role": assistant, content_key: new})
                last_role = assistant
                blocks = new
            role = results
            outputs = turn.outputs
            # There is nearly always exactly one; a comprehension would double the cost.
            new = (
                [result_block(outputs[0])]
                if len(outputs) == 1
                else [result_block(output) for output in outputs]
            )
            for call in turn.calls:
                if call.extra and (kept := unread_in(call.extra, form.unread, form.unread)):
                    new = _with_kept_output(new, outputs, call, kept, form)
        else:
            role, content = turn.role, turn.content
            # Nearly every message is one text.
            only = content[0] if len(content) == 1 else None
            if role == "system" or role == "developer":
                text = only if isinstance(only, str) else turn.text_content
                if instructed and text:
                    new = [text_block(instructions_block(text))]
                elif text and role == "system":
                    new = []
                    system.append(text)
                    if len(content) > 1 and any(not isinstance(part, str) for part in content):
                        logger.warning("system message %r: only its text is sent", turn.id)
                else:
                    new = _content(turn, form)
                instructed = instructed or bool(text)
                role = "user"
            else:
                if only and isinstance(only, str) and not turn.extra:
                    new = [text_block(only)]
                else:
                    new = _content(turn, form)
                if role == "assistant":
                    role = assistant
                    if turn.extra:
                        before, after = _parted(with_state(new, turn.extra))
                        new = before + after
        if not new:
            continue
        if last_role == role:
            blocks += new
        else:
            messages.append({"role": "user" if role == "tool" else role, content_key: new})
            last_role = role
            blocks = new
    return messages, system


def _parted(blocks: list[Block]) -> tuple[list[Block], list[Block]]:
    """The blocks before the calls of a reply, and those after them."""
    place = next((place for place, block in enumerate(blocks) if block is CALLS), None)
    if place is None:
        return blocks, []
    return blocks[:place], [block for block in blocks[place:] if block is not CALLS]


def _with_kept_output(
    results: list[Block],
    outputs: Sequence[FunctionCallOutput],
    call: FunctionCall,
    kept: Mapping[str, Any],
    form: BlockFormat,
) -> list[Block]:
    out: list[Block] = []
    for result, output in zip(results, outputs, strict=True):
        content = None
        if output.call_id == call.call_id:
            content = output_as_read(kept, output, form.image, form.read)
        out.append(result if content is None else form.with_output(result, content))
    return out


def _content(message: ChatMessage, form: BlockFormat) -> list[Block]:
    if message.extra and (kept := unread_in(message.extra, form.unread, form.unread)):
        return _with_kept(message, kept, form)
    blocks: list[Block] = []
    for part in parts_of(message):
        if isinstance(part, str):
            if part:
                blocks.append(form.text(part))
        elif part.type == "image_content":
            blocks.append(form.image(part))
    return blocks


def _with_kept(message: ChatMessage, kept: Mapping[str, Any], form: BlockFormat) -> list[Block]:
    def write(part: ChatContent) -> Block | None:
        if isinstance(part, str):
            return form.text(part) if part else None
        return form.image(part) if part.type == "image_content" else None

    entries = [
        {**entry, "part": form.written(entry.get("part"))} for entry in kept_list(kept, "content")
    ]
    return place_kept(parts_of(message), entries, write, form.read)
