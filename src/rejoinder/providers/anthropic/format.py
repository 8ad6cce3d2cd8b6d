"""Anthropic Messages: the history as alternating turns, and the body of a request.

Law: pure; no loop, no clock, no socket. What goes in is not changed. Consecutive turns of one role
are one message, tool results stand under the user. Thinking that a message or a call carries in
``extra["anthropic"]["thinking"]`` goes back, signature and all, before what it led to.
"""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, cast

from rejoinder._core import jsontext
from rejoinder._core.groups import (
    Group,
    group_tool_calls,
    instructions_block,
    logger,
    parse_arguments,
)
from rejoinder._core.items import ChatItem, ChatMessage, FunctionCallOutput, ImageContent

__all__ = ["AnthropicFormatData", "to_chat_ctx"]

# A tool result may be a list of these; any other list is a value, and travels as text.
_RESULT_BLOCKS = frozenset({"document", "image", "search_result", "text", "tool_reference"})


@dataclass
class AnthropicFormatData:
    """What goes beside the messages."""

    system_messages: list[str]


def to_chat_ctx(
    items: Sequence[ChatItem],
    *,
    inject_dummy_user_message: bool = True,
    inject_trailing_user_message: bool = False,
) -> tuple[list[dict[str, Any]], AnthropicFormatData]:
    """`items` as messages of the Messages API, and the system texts beside them.

    The first system message goes beside the messages; later instructions stay where they are, as
    user text in an ``<instructions>`` block.

    Args:
        items: a history; what cannot be paired is left out with a warning.
        inject_dummy_user_message: begin with the user text ``(empty)`` where the history does
            not begin with the user.
        inject_trailing_user_message: end with the user text ``.`` where the last turn is the
            assistant's; newer models refuse to continue it.

    Raises:
        ValueError: an image cannot be read.
    """
    messages: list[dict[str, Any]] = []
    system: list[str] = []
    instructed = False
    last_role = ""
    blocks: list[dict[str, Any]] = []
    for turn in group_tool_calls(items):
        new: list[dict[str, Any]] = []
        if isinstance(turn, Group):
            message = turn.message
            if message is not None:
                if message.extra:
                    new.extend(_thinking(message.extra))
                _add_content(new, message)
            for call in turn.calls:
                if call.extra:
                    new.extend(_thinking(call.extra))
                new.append(
                    {
                        "id": call.call_id,
                        "type": "tool_use",
                        "name": call.name,
                        "input": parse_arguments(call),
                    }
                )
            if new:
                if last_role == "assistant":
                    blocks.extend(new)
                else:
                    last_role, blocks = "assistant", new
                    messages.append({"role": "assistant", "content": new})
            if not turn.outputs:
                continue
            new = [_result(output) for output in turn.outputs]
        elif turn.role == "user":
            _add_content(new, turn)
        else:
            text = turn.text_content
            if instructed and text:
                new.append({"text": instructions_block(text), "type": "text"})
            elif text and turn.role == "system":
                system.append(text)
                if len(turn.content) > 1 and any(not isinstance(p, str) for p in turn.content):
                    logger.warning("system message %r: only its text is sent", turn.id)
            else:
                _add_content(new, turn)
            instructed = True
        if not new:
            continue
        if last_role == "user":
            blocks.extend(new)
        else:
            last_role, blocks = "user", new
            messages.append({"role": "user", "content": new})
    if inject_dummy_user_message and (not messages or messages[0]["role"] != "user"):
        messages.insert(0, {"role": "user", "content": [{"text": "(empty)", "type": "text"}]})
    if inject_trailing_user_message and messages and messages[-1]["role"] == "assistant":
        messages.append({"role": "user", "content": [{"text": ".", "type": "text"}]})
    return messages, AnthropicFormatData(system_messages=system)


def _add_content(blocks: list[dict[str, Any]], message: ChatMessage) -> None:
    for part in message.content:
        if isinstance(part, str):
            if part:
                blocks.append({"text": part, "type": "text"})
        elif part.type == "image_content":
            blocks.append(_image(part))


def _image(content: ImageContent) -> dict[str, Any]:
    from rejoinder._core.images import serialize_image

    image = serialize_image(content)
    if image.external_url is not None:
        return {"type": "image", "source": {"type": "url", "url": image.external_url}}
    return {
        "type": "image",
        "source": {
            "type": "base64",
            "data": b64encode(image.data_bytes or b"").decode("ascii"),
            "media_type": image.mime_type,
        },
    }


def _result(output: FunctionCallOutput) -> dict[str, Any]:
    text = output.output
    return {
        "tool_use_id": output.call_id,
        "type": "tool_result",
        "content": (_result_blocks(text) or text) if text[:1] == "[" else text,
        "is_error": output.is_error,
    }


def _result_blocks(text: str) -> list[dict[str, Any]] | None:
    try:
        value = jsontext.decode(text)
    except ValueError:
        return None
    if not isinstance(value, list) or not value:
        return None
    for block in cast("list[object]", value):
        if not isinstance(block, dict):
            return None
        if cast("dict[str, object]", block).get("type") not in _RESULT_BLOCKS:
            return None
    return cast("list[dict[str, Any]]", value)


def _thinking(extra: dict[str, Any]) -> list[dict[str, Any]]:
    state = extra.get("anthropic")
    if not isinstance(state, dict):
        return []
    thinking = cast("dict[str, Any]", state).get("thinking")
    return cast("list[dict[str, Any]]", thinking) if isinstance(thinking, list) else []
