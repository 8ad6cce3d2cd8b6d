"""Anthropic Messages: the history as alternating turns, and the body of a request.

Pure: no loop, no clock, no socket. It does not change the items. Consecutive turns of one role become
one message, and tool results belong to the user's role. Thinking and other state of a message or call
is sent back unchanged and in its place; see `rejoinder.providers.anthropic.state`.
"""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, cast

from rejoinder._core.groups import logger, parse_arguments
from rejoinder._core.items import ChatItem, FunctionCall, FunctionCallOutput, ImageContent
from rejoinder._core.results import shown_in
from rejoinder.errors import ConfigurationError
from rejoinder.providers.anthropic.options import DEFAULT_MAX_TOKENS, Options
from rejoinder.providers.anthropic.state import (
    FIELDS,
    STATE,
    THINKING,
    accepted,
    carry_state,
    container_of,
    in_order,
)
from rejoinder.providers.asking.alternating import Block, BlockFormat, to_turns
from rejoinder.providers.asking.attachments import Attachment
from rejoinder.providers.asking.fields import tool_choice_name

__all__ = ["AnthropicFormatData", "attachment_block", "go_on", "request_body", "to_chat_ctx"]

# A tool result may be a list of these; any other list is a value, and travels as text.


@dataclass
class AnthropicFormatData:
    """The parts of a request beside the messages.

    Attributes:
        container: id of the container in which Anthropic's tools last worked. Not a dataclass field,
            because in LiveKit Agents 1.2.17 this class has one field only.
    """

    system_messages: list[str]
    container = ""


def to_chat_ctx(
    items: Sequence[ChatItem],
    *,
    inject_dummy_user_message: bool = True,
    inject_trailing_user_message: bool = False,
) -> tuple[list[dict[str, Any]], AnthropicFormatData]:
    """`items` as messages of the Messages API, and the system texts beside them.

    The first system message goes beside the messages. Later instructions stay in their place, as user
    text in an ``<instructions>`` block.

    Args:
        items: a history. Calls without outputs, and outputs without calls, are omitted with a
            warning.
        inject_dummy_user_message: begin with the user text ``(empty)`` if the history does not
            begin with the user.
        inject_trailing_user_message: end with the user text ``.`` if the last turn is the
            assistant's, because newer models refuse to continue it.

    Raises:
        ValueError: an image cannot be read.
    """
    messages, system = to_turns(items, _DIALECT)
    stateful = carry_state(items)
    if stateful:
        messages = accepted(messages)
    if inject_dummy_user_message and (not messages or messages[0]["role"] != "user"):
        messages.insert(0, {"role": "user", "content": [{"text": "(empty)", "type": "text"}]})
    if inject_trailing_user_message and messages and messages[-1]["role"] == "assistant":
        messages.append({"role": "user", "content": [{"text": ".", "type": "text"}]})
    data = AnthropicFormatData(system)
    if stateful:
        data.container = container_of(items)
    return messages, data


def _text(text: str) -> Block:
    return {"text": text, "type": "text"}


def _call(call: FunctionCall) -> Block:
    return {
        "id": call.call_id,
        "type": "tool_use",
        "name": call.name,
        "input": parse_arguments(call),
    }


def _image(content: ImageContent) -> Block:
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


def _result(output: FunctionCallOutput) -> Block:
    # The result of a tool is data, even if it looks like content blocks. The API refuses a block with
    # an unknown field, so such a block would make it refuse every later request of the conversation.
    text, pictures = shown_in(output)
    parts: list[Block] = [{"type": "text", "text": text}] if text and not text.isspace() else []
    return {
        "tool_use_id": output.call_id,
        "type": "tool_result",
        "content": [*parts, *map(_image, pictures)] if pictures else text,
        "is_error": output.is_error,
    }


def _with_state(blocks: list[Block], extra: dict[str, Any]) -> list[Block]:
    state = extra.get("anthropic")
    if not isinstance(state, dict):
        return blocks
    held = cast("dict[str, Any]", state)
    fields = held.get(FIELDS)
    if isinstance(fields, dict) and blocks and blocks[-1].get("type") == "tool_use":
        blocks[-1] = {**cast("Block", fields), **blocks[-1]}
    entries = held.get(STATE)
    return in_order(blocks, cast("list[Block]", entries)) if isinstance(entries, list) else blocks


def _read(block: Block) -> Any:
    from rejoinder.providers.anthropic.inverse import known_block

    return known_block(block)


_DIALECT = BlockFormat(
    text=_text,
    image=_image,
    call=_call,
    result=_result,
    with_state=_with_state,
    unread="anthropic",
    read=_read,
)

_CACHE = {"type": "ephemeral"}
_CACHEABLE = frozenset({"document", "image", "text", "tool_result", "tool_use"})
"""Types of blocks that may have a cache breakpoint. Others are sent back unchanged."""
_VERSIONS = {"bedrock": "bedrock-2023-05-31", "vertex": "vertex-2023-10-16"}


def request_body(
    messages: list[dict[str, Any]],
    data: AnthropicFormatData,
    tools: Sequence[dict[str, Any]],
    tool_choice: str | dict[str, Any] | None,
    options: Options,
) -> dict[str, Any]:
    """The body of a streaming request.

    `options.extra` comes first and the other fields of `options` overwrite it. With
    caching, up to four breakpoints are set: the last tool, the last system text, the last
    assistant turn and the user turn before it.

    Args:
        messages: from `to_chat_ctx`; not changed.
        tools: in Anthropic's form.
        tool_choice: ``"auto"``, ``"required"``, ``"none"``, one function by name, or ``None``.

    Raises:
        ConfigurationError: the choice is not one of these.
    """
    body: dict[str, Any] = dict(options.extra)
    if options.platform in _VERSIONS:
        body.setdefault("anthropic_version", _VERSIONS[options.platform])
    else:
        body["model"] = options.model
    if options.platform != "bedrock":
        body["stream"] = True
    thinking = body.get("thinking")
    if options.max_tokens is not None:
        body["max_tokens"] = options.max_tokens
    elif not isinstance(body.get("max_tokens"), int):
        # Thinking counts against the limit, which must be larger than its budget.
        body["max_tokens"] = DEFAULT_MAX_TOKENS + (_budget(thinking) if thinking else 0)
    last = messages[-1] if messages else None
    if last is not None and last["role"] == "assistant":
        messages = [*messages[:-1], _without_trailing_space(last)]
    body["messages"] = messages
    if thinking and _must_not_think(thinking, messages):
        logger.info("thinking is off for this call: its tool calls were made without thinking")
        del body["thinking"]
    if data.system_messages:
        body["system"] = [{"text": text, "type": "text"} for text in data.system_messages]
    specs = list(tools)
    choice = None if tool_choice is None else _choice(tool_choice)
    if not specs:
        # The API refuses a history with calls of tools that the request does not define.
        specs = _placeholders(messages)
        choice = {"type": "none"} if specs else None
    if specs:
        body["tools"] = specs
        if options.parallel_tool_calls is not None and choice != {"type": "none"}:
            choice = {
                **(choice or {"type": "auto"}),
                "disable_parallel_tool_use": not options.parallel_tool_calls,
            }
        if choice is not None:
            body["tool_choice"] = choice
    if data.container and any(tool.get("type", "custom") != "custom" for tool in specs):
        given = body.get("container")
        if given is None:
            body["container"] = data.container
        elif isinstance(given, dict):
            body["container"] = {"id": data.container, **cast("dict[str, Any]", given)}
    if options.temperature is not None:
        body["temperature"] = options.temperature
    if options.top_k is not None:
        body["top_k"] = options.top_k
    if options.user is not None:
        metadata = body.get("metadata")
        body["metadata"] = {
            **(cast("dict[str, Any]", metadata) if isinstance(metadata, dict) else {}),
            "user_id": options.user,
        }
    if options.response_schema is not None:
        config = body.get("output_config")
        body["output_config"] = {
            **(cast("dict[str, Any]", config) if isinstance(config, dict) else {}),
            "format": {"type": "json_schema", "schema": options.response_schema},
        }
    if options.caching:
        _set_breakpoints(
            body, dict(_CACHE) if isinstance(options.caching, str) else dict(options.caching)
        )
    return body


def _must_not_think(thinking: object, messages: list[dict[str, Any]]) -> bool:
    """Whether the API would refuse thinking. With thinking, it requires that each turn since the user's
    last message begins with thinking, and turns with another model's calls do not."""
    if not isinstance(thinking, dict) or cast("dict[str, Any]", thinking).get("type") != "enabled":
        return False
    for message in reversed(messages):
        blocks = message["content"]
        if message["role"] == "user":
            if any(block.get("type") != "tool_result" for block in blocks):
                return False
        elif blocks and blocks[0].get("type") not in THINKING:
            return True
    return False


def _budget(thinking: object) -> int:
    if not isinstance(thinking, dict):
        return 0
    budget = cast("dict[str, Any]", thinking).get("budget_tokens")
    return budget if isinstance(budget, int) else 0


def _choice(tool_choice: str | dict[str, Any]) -> dict[str, Any]:
    if isinstance(tool_choice, dict):
        return {"type": "tool", "name": tool_choice_name(tool_choice)}
    if tool_choice in ("auto", "none"):
        return {"type": tool_choice}
    if tool_choice == "required":
        return {"type": "any"}
    raise ConfigurationError(
        "tool_choice: expected 'auto', 'required', 'none' or one function, got " + repr(tool_choice)
    )


def _placeholders(messages: list[dict[str, Any]]) -> list[dict[str, Any]]:
    names = {
        block["name"]: None
        for message in messages
        for block in message["content"]
        if block.get("type") == "tool_use"
    }
    return [
        {
            "name": name,
            "description": "No longer available.",
            "input_schema": {"type": "object", "properties": {}},
        }
        for name in names
    ]


def _without_trailing_space(message: dict[str, Any]) -> dict[str, Any]:
    """The message without white space at its end, which the API refuses in a reply to continue."""
    blocks = [dict(block) for block in message["content"]]
    if blocks and blocks[-1].get("type") == "text":
        blocks[-1]["text"] = blocks[-1]["text"].rstrip() or "."
    return {**message, "content": blocks}


def _set_breakpoints(body: dict[str, Any], cache: dict[str, Any]) -> None:
    for member in ("tools", "system"):
        if held := body.get(member):
            body[member] = [*held[:-1], {**held[-1], "cache_control": cache}]
    messages: list[dict[str, Any]] = list(body["messages"])
    wanted = "assistant"
    for index in range(len(messages) - 1, -1, -1):
        message = messages[index]
        if message["role"] != wanted:
            continue
        marked = _marked(message, cache)
        if marked is None:
            continue
        messages[index] = marked
        if wanted == "user":
            break
        wanted = "user"
    body["messages"] = messages


def _marked(message: dict[str, Any], cache: dict[str, Any]) -> dict[str, Any] | None:
    blocks: list[dict[str, Any]] = list(message["content"])
    for index in range(len(blocks) - 1, -1, -1):
        if blocks[index].get("type") in _CACHEABLE:
            blocks[index] = {**blocks[index], "cache_control": cache}
            return {**message, "content": blocks}
    return None


def go_on(body: dict[str, Any], parts: Sequence[dict[str, Any]]) -> None:
    """Append the unfinished reply to `body`, so that the model continues it.

    Args:
        parts: the reply before each pause: its ``content``, and the id of the ``container`` in which
            Anthropic's tools work (enricoros/big-AGI #1010).
    """
    message = {
        "role": "assistant",
        "content": [block for part in parts for block in part["content"]],
    }
    body["messages"] = [*body["messages"], _without_trailing_space(message)]
    for part in parts:
        if "container" in part:
            body["container"] = part["container"]


def attachment_block(attachment: Attachment) -> dict[str, Any]:
    """A document as a block of a message.

    Raises:
        ConfigurationError: the API does not take documents of this type.
    """
    kind = attachment.mime_type
    if attachment.url:
        if attachment.url.startswith("file_"):
            return {"type": "document", "source": {"type": "file", "file_id": attachment.url}}
        if kind == "application/pdf":
            return {"type": "document", "source": {"type": "url", "url": attachment.url}}
    elif kind == "application/pdf":
        return {
            "type": "document",
            "source": {"type": "base64", "media_type": kind, "data": attachment.data},
        }
    elif kind.startswith("text/"):
        return {
            "type": "document",
            "source": {"type": "text", "media_type": "text/plain", "data": attachment.text()},
        }
    raise ConfigurationError(
        f"document {attachment.id!r}: Anthropic takes PDF (as bytes or a URL) and text, got {kind}"
    )
