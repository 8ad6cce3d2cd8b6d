"""Mistral: the history as chat completions messages or as entries of the Conversations API.

Pure: no loop, no clock, no socket; the items are not changed.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from rejoinder._core.groups import Group, group_tool_calls
from rejoinder._core.items import ChatItem, ChatMessage, ImageContent
from rejoinder.errors import ConfigurationError
from rejoinder.providers.asking.attachments import Attachment
from rejoinder.providers.completions import request
from rejoinder.providers.completions.format import (
    image_url,
    ordered_content,
    read_image,
    to_messages,
)

__all__ = ["MistralFormatData", "attachment_part", "request_body", "to_chat_ctx", "to_conversation"]


@dataclass
class MistralFormatData:
    """The parts of a request to the Conversations API beside the entries."""

    instructions: str | None


def to_chat_ctx(
    items: Sequence[ChatItem], *, inject_dummy_user_message: bool = True
) -> tuple[list[dict[str, Any]], None]:
    """`items` as chat completions messages; system texts stay among them, so there is no data.

    Args:
        items: a history; calls and outputs without their counterpart are omitted with a warning.
        inject_dummy_user_message: append an empty user message if the last message is neither
            from the user nor from a tool.

    Raises:
        ValueError: an image cannot be read.
    """
    messages = to_messages(items, key="mistralai", form="mistralai")
    if inject_dummy_user_message and (not messages or messages[-1]["role"] not in ("user", "tool")):
        messages.append({"role": "user", "content": ""})
    return messages, None


def to_conversation(
    items: Sequence[ChatItem], *, inject_dummy_user_message: bool = True
) -> tuple[list[dict[str, Any]], MistralFormatData]:
    """`items` as entries of the Conversations API, and the instructions beside them.

    The API takes one text of instructions: that of the last system or developer message.

    Args:
        items: a history; calls and outputs without their counterpart are omitted with a warning.
        inject_dummy_user_message: ignored; accepted because every format accepts it.

    Raises:
        ValueError: an image cannot be read.
    """
    entries: list[dict[str, Any]] = []
    instructions: str | None = None
    for turn in group_tool_calls(items):
        if not isinstance(turn, Group):
            if turn.role == "user":
                entries.append(_entry("message.input", turn))
            elif turn.role == "assistant":
                entries.append(_entry("message.output", turn))
            else:
                instructions = turn.text_content
            continue
        if turn.message is not None:
            entries.append(_entry("message.output", turn.message))
        entries.extend(
            {
                "type": "function.call",
                "tool_call_id": call.call_id,
                "name": call.name,
                "arguments": call.arguments,
            }
            for call in turn.calls
        )
        entries.extend(
            {
                "type": "function.result",
                "tool_call_id": output.call_id,
                "result": output.output,
            }
            for output in turn.outputs
        )
    return entries, MistralFormatData(instructions=instructions)


def _entry(kind: str, message: ChatMessage) -> dict[str, Any]:
    content = ordered_content(message, _text, _image)
    return {"type": kind, "role": message.role, "content": content}


def _text(text: str) -> dict[str, Any]:
    return {"type": "text", "text": text}


def _image(image: ImageContent) -> dict[str, Any]:
    return {"type": "image_url", "image_url": image_url(read_image(image))}


def request_body(
    messages: Sequence[Mapping[str, Any]],
    data: object,
    tools: Sequence[Mapping[str, Any]],
    tool_choice: object,
    options: Mapping[str, Any],
) -> dict[str, Any]:
    """The body of a chat completions request.

    Mistral always reports usage, and refuses unknown fields.

    Args:
        messages: from `to_chat_ctx`; not changed.
        tools: specs in OpenAI's envelope.
        tool_choice: ``"auto"``, ``"required"``, ``"none"``, one function by name, or ``None``.
        options: the other fields, including ``model``; ``extra_body`` is merged over everything.

    Raises:
        ValueError: `tool_choice` has another value.
    """
    fields = dict(options)
    limit = fields.pop("max_completion_tokens", None)
    if limit is not None:
        fields.setdefault("max_tokens", limit)
    body = request.request_body(messages, data, tools, tool_choice, fields)
    if "stream_options" not in fields and "stream_options" not in (fields.get("extra_body") or {}):
        del body["stream_options"]
    return body


def attachment_part(attachment: Attachment) -> dict[str, Any]:
    """Sound or a document as a part of a message.

    Raises:
        ConfigurationError: the API does not take documents of this type.
    """
    if attachment.mime_type.startswith("audio/"):
        return {"type": "input_audio", "input_audio": attachment.url or attachment.data}
    if attachment.url:
        return {"type": "document_url", "document_url": attachment.url}
    if attachment.mime_type == "application/pdf":
        url = f"data:application/pdf;base64,{attachment.data}"
        return {"type": "document_url", "document_url": url}
    raise ConfigurationError(
        f"document {attachment.id!r}: Mistral takes PDF and documents by address, "
        f"got {attachment.mime_type}"
    )
